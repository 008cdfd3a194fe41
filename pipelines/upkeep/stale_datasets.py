"""Stale datasets: which are behind the refresh rate that they promise, and by how much; on a CKAN portal or in our own catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Max, Q
from django.utils import timezone

from catalog.models import Dataset, RefreshRate
from pipelines.connectors.base import Parameter
from pipelines.models import RunState, Stage, UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural

#: A promise in the words of a portal's public, and the days after which it is broken. What promises nothing is not judged.
PERIODS = {"daily": 1, "weekly": 7, "bi-weekly": 14, "monthly": 30, "quarterly": 91, "semi-annually": 182, "annually": 365}
#: The same of our own catalog, with the portal's word.
OURS = {
    RefreshRate.HOURLY: "daily",
    RefreshRate.DAILY: "daily",
    RefreshRate.WEEKLY: "weekly",
    RefreshRate.FORTNIGHTLY: "bi-weekly",
    RefreshRate.MONTHLY: "monthly",
    RefreshRate.QUARTERLY: "quarterly",
    RefreshRate.HALF_YEARLY: "semi-annually",
    RefreshRate.YEARLY: "annually",
}


@dataclass(frozen=True)
class Promise:
    """A dataset that promises to be refreshed: every `rate`; `last` None where nothing says when it was."""

    name: str
    email: str
    publisher: str
    rate: str
    last: datetime | None

    @property
    def next(self) -> datetime | None:
        return self.last and self.last + timedelta(days=PERIODS[self.rate])

    def days(self, now: datetime) -> int:
        """Whole days since it was last refreshed; -1 where that is not known."""
        return (now - self.last).days if self.last else -1

    def is_behind(self, now: datetime) -> bool:
        """On the day on which it is due it is not behind yet."""
        return self.days(now) > PERIODS[self.rate]


class StaleDatasets(Job):
    """One that says nothing of its retirement is not retired, and one without a date is told of apart."""

    kind = "stale-datasets"
    label = "Stalest datasets"
    about = "Finds datasets that are behind the refresh rate that they promise, the stalest first."
    can_dry = True
    options = (
        portals.PORTAL_OR_OURS,
        Parameter("top", "Told of", default="5", help="So many of the stalest; the page has all of them. 0: all."),
        portals.REPEAT,
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        top, now, faults = self.number(job, "top"), timezone.now(), Faults()
        if slug := self.word(job, "portal"):
            with portals.asked(job, slug, note) as portal:
                promises = list(_of_portal(portal.packages(), faults, note))
        else:
            promises = list(_of_ours())
        behind = sorted((one for one in promises if one.is_behind(now)), key=lambda one: (-one.days(now), one.name))
        unknown = sorted((one for one in promises if one.last is None), key=lambda one: one.name)
        rows = [(*_told_of(one), one.days(now), one.days(now) - PERIODS[one.rate], "behind") for one in behind]
        rows += [(*_told_of(one), None, None, "no date") for one in unknown] + [(name, *[None] * 7, why) for name, why in faults.rows]
        note.findings(("dataset", "email", "publisher", "rate", "last refreshed", "next due", "days since", "days late", "finding"), rows)
        note.notice(told(behind, unknown, faults, top, now), trouble=bool(behind or unknown or faults.rows))
        words = f"{len(behind):,} of {plural(len(promises), 'dataset')} that promise a refresh are behind"
        return (
            f"{words}{f'; of {len(unknown):,} nobody knows' if unknown else ''}{f'; {len(faults.rows):,} could not be read' if faults.rows else ''}."
        )


def _told_of(one: Promise) -> tuple[str | None, ...]:
    return one.name, one.email, one.publisher, one.rate, one.last and f"{one.last:%Y-%m-%d}", one.next and f"{one.next:%Y-%m-%d}"


def _of_portal(packages: Iterator[Mapping[str, Any]], faults: Faults, note: Note) -> Iterator[Promise]:
    for package in packages:
        note.walk()
        with faults.of(str(package.get("name", "?"))):
            rate = str(package.get("refresh_rate") or "").strip().lower()
            if rate in PERIODS and not portals.is_true(package.get("is_retired")):
                yield Promise(
                    name=package["name"],
                    email=package.get("owner_email") or "",
                    publisher=package.get("owner_division") or "",
                    rate=rate,
                    last=portals.moment(package.get("last_refreshed")),
                )


def _of_ours() -> Iterator[Promise]:
    """Of our own datasets those that pipelines feed; refreshed is one when rows of it were last loaded, or where it has no table fetched."""
    done = Q(pipelines__blocks__runs__state=RunState.DONE, pipelines__twin_of=None)
    loaded = Max("pipelines__blocks__runs__finished_at", filter=done & Q(pipelines__blocks__runs__stage=Stage.LOAD))
    fetched = Max("pipelines__blocks__runs__finished_at", filter=done & Q(pipelines__blocks__runs__stage=Stage.EXTRACT))
    promising = Dataset.objects.filter(is_retired=False, refresh_rate__in=list(OURS), pipelines__isnull=False)
    for dataset in promising.annotate(loaded=loaded, fetched=fetched).order_by("slug"):
        last = dataset.loaded or dataset.fetched
        yield Promise(dataset.slug, dataset.steward_email, dataset.department, OURS[RefreshRate(dataset.refresh_rate)], last and last.astimezone(UTC))


def told(behind: list[Promise], unknown: list[Promise], faults: Faults, top: int, now: datetime) -> str:
    """The notice, in Slack's words: the stalest with the days since each was last refreshed."""
    if not (behind or unknown or faults.rows):
        return "No dataset is behind its refresh rate."
    shown = behind[:top] if top else behind
    lines = []
    if behind:
        stalest = f"The {len(shown):,} stalest of {len(behind):,} datasets" if len(shown) < len(behind) else plural(len(behind), "dataset")
        lines.append(f"*{stalest} behind {'its' if len(behind) == 1 else 'their'} refresh rate*")
    lines += [
        f"{number}. _{one.name}_ ({one.rate}): refreshed `{one.last:%Y-%m-%d}`. Behind *{one.days(now)} days*. {one.email}".rstrip()
        for number, one in enumerate(shown, start=1)
    ]
    if unknown:
        lines.append(f"No date of a refresh: {', '.join(one.name for one in unknown)}")
    if faults.rows:
        lines += ["Could not be read:", *faults.lines]
    return "\n".join(lines)
