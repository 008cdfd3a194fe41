"""The watches, as the row of tabs above every page of sensors: each with its newest day and how many of its sensors need a look."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, OuterRef, Q, Subquery

from perfmet.models import Observation, SensorWatch
from perfmet.selectors import looks
from pipelines import clock, planner
from pipelines.models import Pipeline

#: So long after its block was due a day should be known: the run and the observing have had their time.
PATIENCE = timedelta(hours=6)
#: The oldest window that may be the newest one due: a month, and the days of grace.
LONGEST = timedelta(days=40)


@dataclass(frozen=True)
class Tab:
    """A watch: `name` as in the job report, `newest` its newest day (None: nothing was observed yet), sensors of that day by health."""

    watch: SensorWatch
    name: str
    newest: date | None
    counts: dict[str, int]

    @property
    def sensors(self) -> int:
        return sum(self.counts.values())

    @property
    def trouble(self) -> int:
        return sum(count for health, count in self.counts.items() if looks.is_trouble(health))


def tabs() -> list[Tab]:
    """Every active watch of a pipeline that is no test twin, by name. Two queries."""
    newest = Observation.objects.filter(watch=OuterRef("pk")).order_by("-day").values("day")[:1]
    watches = list(SensorWatch.objects.filter(is_active=True, pipeline__twin_of=None).select_related("pipeline").annotate(newest=Subquery(newest)))
    known = [watch for watch in watches if watch.newest]
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    if known:
        days = Q(pk__in=[])
        for watch in known:
            days |= Q(watch=watch.pk, day=watch.newest)
        for watch, health, count in Observation.objects.filter(days).order_by().values_list("watch", "health").annotate(count=Count("pk")):
            counts[watch][health] = count
    names = _names([watch.pipeline for watch in watches])
    found = [Tab(watch, names[watch.pipeline_id], watch.newest, counts.get(watch.pk, {})) for watch in watches]
    return sorted(found, key=lambda tab: tab.name.casefold())


def _names(pipelines: list[Pipeline]) -> dict[int, str]:
    """A source's name where one pipeline of it is watched, else the pipeline's title."""
    of_source: dict[str, int] = defaultdict(int)
    for one in pipelines:
        of_source[one.data_source] += 1
    return {one.pk: one.data_source if one.data_source and of_source[one.data_source] == 1 else one.title for one in pipelines}


def newest_due(pipeline: Pipeline, now: datetime) -> date | None:
    """The newest local day that should be known by now; None while the pipeline is paused, or runs by hand."""
    if pipeline.is_paused:
        return None
    since = now - LONGEST - timedelta(minutes=pipeline.settle_minutes)
    due = [start for start, end in planner.owed_windows(pipeline, since, now) if planner.due_at(pipeline, start, end) <= now - PATIENCE]
    return due[-1].astimezone(clock.zone(pipeline.time_zone)).date() if due else None
