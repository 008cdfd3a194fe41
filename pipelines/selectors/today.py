"""What moves now and what comes next: running blocks, what falls due soon, and today's chart by the hour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from django.conf import settings
from django.db.models import Count
from django.db.models.functions import TruncHour

from pipelines import clock, planner
from pipelines.models import Pipeline, Run, RunState, ScheduleBlock, State

# what moves now


@dataclass(frozen=True)
class RunningLine:
    block: ScheduleBlock
    since: datetime

    @property
    def has_progress(self) -> bool:
        return bool(self.block.progress_total)


def running(limit: int = 50) -> list[RunningLine]:
    """Blocks that workers hold now, the longest first."""
    blocks = ScheduleBlock.objects.running().select_related("pipeline").order_by("changed_at")[:limit]
    # a cancel touches changed_at too, so the lease's own run says when the stage began
    started = dict(Run.objects.filter(block__in=[block.pk for block in blocks], state=RunState.RUNNING).values_list("block_id", "started_at"))
    return [RunningLine(block, started.get(block.pk, block.changed_at)) for block in blocks]


@dataclass(frozen=True)
class Soon:
    """What falls due in the next hours: `count` windows, and the first of them."""

    count: int
    pipeline_ids: frozenset[int]
    first_at: datetime | None
    first_title: str


def due_soon(pipelines: Iterable[Pipeline], now: datetime, within: timedelta = timedelta(hours=2)) -> Soon:
    """Windows that the schedule will make, and waiting blocks, due within a span. One query."""
    until = now + within
    titles = {pipeline.pk: pipeline.title for pipeline in pipelines}
    waiting = list(ScheduleBlock.objects.filter(state=State.WAITING, due_at__lte=until).values_list("due_at", "pipeline_id", "starts_at")[:5000])
    known = {(pipeline_id, start) for _, pipeline_id, start in waiting}
    coming = [(due, pipeline_id) for due, pipeline_id, _ in waiting]
    for pipeline in pipelines:
        if not pipeline.is_paused:
            coming += [(due, pipeline.pk) for due, window in planner.coming_due(pipeline, now, until) if (pipeline.pk, window[0]) not in known]
    first = min(coming, default=None)
    return Soon(
        len(coming), frozenset(pipeline_id for _, pipeline_id in coming), first[0] if first else None, titles.get(first[1], "") if first else ""
    )


# today by the hour


#: The chart's measures in its own units: names on the left, a row of 16 a pipeline.
CHART_LEFT, CHART_WIDTH, CHART_TOP, CHART_ROW = 112, 228, 20, 16


@dataclass(frozen=True)
class Bar:
    """A rectangle of the chart: `left` and `across` in the chart's units."""

    left: float
    across: float
    kind: str
    title: str


@dataclass(frozen=True)
class Lane:
    pipeline: Pipeline
    bars: list[Bar]
    y: int = 0

    @property
    def text_y(self) -> int:
        return self.y + 9

    @property
    def name(self) -> str:
        return self.pipeline.title if len(self.pipeline.title) <= 18 else f"{self.pipeline.title[:17].rstrip()}…"


@dataclass(frozen=True)
class Tick:
    x: float
    label: str
    anchor: str


@dataclass(frozen=True)
class Hours:
    """Today's runs and plans, hour by hour, ready to draw; `left_out` pipelines found no room."""

    lanes: list[Lane]
    ticks: list[Tick]
    now_x: float
    left_out: int

    @property
    def foot(self) -> int:
        return CHART_TOP + CHART_ROW * len(self.lanes)

    @property
    def height(self) -> int:
        return self.foot + 4


_BAR_KINDS = {
    RunState.RUNNING: "running",
    RunState.FAILED: "failed",
    RunState.CRASHED: "crashed",
    RunState.WAITING: "queued",
    RunState.CANCELLED: "queued",
}
_BAR_RANK = ["failed", "crashed", "running", "queued", "okquiet", "plan"]


def today_by_hour(pipelines: list[Pipeline], now: datetime, lanes: int = 14) -> Hours:
    """What ran in each hour of the city's day and what is planned for the rest of it. One query."""
    zone = settings.TIME_ZONE
    day = now.astimezone(clock.zone(zone)).date()
    start, end = clock.day_start(day, zone), clock.day_start(day + timedelta(days=1), zone)
    groups = (
        Run.objects.filter(started_at__gte=start, started_at__lt=end)
        .annotate(hour=TruncHour("started_at", tzinfo=UTC))
        .values("block__pipeline_id", "hour", "state")
        .annotate(count=Count("pk"))
        .order_by("hour")
    )
    ran: dict[int, dict[datetime, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups:
        kind = _BAR_KINDS.get(group["state"], "okquiet")
        cell = ran[group["block__pipeline_id"]][group["hour"]]
        cell[kind] = cell.get(kind, 0) + group["count"]
    length = end - start

    def at(moment: datetime) -> float:
        return round(CHART_LEFT + CHART_WIDTH * (moment - start) / length, 1)

    hour_wide = round(CHART_WIDTH * clock.HOUR / length, 1)
    drawn = []
    for pipeline in pipelines:
        bars = [_ran_bar(kinds, hour, at(hour), hour_wide) for hour, kinds in ran.get(pipeline.pk, {}).items()]
        if not pipeline.is_paused:
            bars += [Bar(at(due), 5, "plan", f"due {_city(due):%H:%M}") for due, _ in planner.coming_due(pipeline, now, end - timedelta(seconds=1))]
        if bars:
            drawn.append((min(_BAR_RANK.index(bar.kind) for bar in bars), pipeline.title, pipeline, bars))
    drawn.sort(key=lambda lane: lane[:2])
    ticks = [Tick(at(clock.local_instant(day, time(hour), zone)), f"{hour:02}", "middle") for hour in (0, 6, 12, 18)]
    return Hours(
        lanes=[Lane(pipeline, bars, CHART_TOP + CHART_ROW * place) for place, (_, _, pipeline, bars) in enumerate(drawn[:lanes])],
        ticks=[*ticks, Tick(CHART_LEFT + CHART_WIDTH, "24", "end")],
        now_x=at(now),
        left_out=max(0, len(drawn) - lanes),
    )


def _ran_bar(kinds: dict[str, int], hour: datetime, left: float, across: float) -> Bar:
    words = ", ".join(f"{count} {'done' if name == 'okquiet' else name}" for name, count in kinds.items())
    return Bar(left, across, min(kinds, key=_BAR_RANK.index), f"{_city(hour):%H:%M}: {words}")


def _city(moment: datetime) -> datetime:
    return moment.astimezone(clock.zone(settings.TIME_ZONE))
