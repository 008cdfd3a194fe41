"""The upkeep jobs as pages and the command tell them: what each does, how it went, when it comes next. Fixed numbers of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import OuterRef, Prefetch, Subquery

from pipelines.models import Pipeline, UpkeepJob, UpkeepRun
from pipelines.selectors import faces
from pipelines.selectors.faces import Face
from pipelines.upkeep import jobs

HISTORY = 50
#: Rows of a run's findings on a page; the file has all that were kept.
A_PAGE = 50

_FACES = {
    UpkeepRun.State.WAITING: faces.WAITING,
    UpkeepRun.State.RUNNING: faces.RUNNING,
    UpkeepRun.State.DONE: faces.OK,
    UpkeepRun.State.FAILED: faces.FAILED,
}


@dataclass(frozen=True)
class RunLine:
    """One time that a job was done, or was tried."""

    run: UpkeepRun

    @property
    def face(self) -> Face:
        return _FACES[UpkeepRun.State(self.run.state)]

    @property
    def seconds(self) -> float | None:
        return (self.run.finished_at - self.run.started_at).total_seconds() if self.run.finished_at and self.run.started_at else None


@dataclass(frozen=True)
class JobLine:
    """A job with its newest run; `works_on` are the titles of its pipelines, none for all."""

    job: UpkeepJob
    last: RunLine | None
    works_on: list[str]

    @property
    def face(self) -> Face:
        if self.last and self.last.run.state in jobs.OPEN:
            return self.last.face
        if not self.job.is_active:
            return faces.PAUSED
        return self.last.face if self.last else faces.NOTHING_YET

    @property
    def label(self) -> str:
        kind = jobs.kinds().get(self.job.kind)
        return kind.label if kind else self.job.kind

    @property
    def about(self) -> str:
        kind = jobs.kinds().get(self.job.kind)
        return kind.about if kind else f"There is no upkeep job of the kind {self.job.kind}: it fails until its kind is corrected."

    @property
    def rhythm(self) -> str:
        return jobs.rhythm(self.job)

    @property
    def next_at(self) -> datetime | None:
        return self.job.next_at if self.job.is_active else None

    @property
    def can_dry(self) -> bool:
        """Whether it can look without changing anything."""
        return jobs.can_dry(self.job)

    @property
    def options(self) -> list[tuple[str, Any]]:
        """What is set, or stands by default: label and value."""
        kind = jobs.kinds().get(self.job.kind)
        return [(option.label, self.job.options.get(option.name, option.default)) for option in kind.options] if kind else []


def job_lines(**filters: Any) -> list[JobLine]:
    """All jobs, or those that fit, by title. Three queries."""
    newest = UpkeepRun.objects.filter(job=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    named = Prefetch("pipelines", queryset=Pipeline.objects.order_by("title"))
    found = list(UpkeepJob.objects.filter(**filters).annotate(newest=Subquery(newest)).prefetch_related(named))
    runs = UpkeepRun.objects.in_bulk([job.newest for job in found if job.newest])
    return [JobLine(job, RunLine(runs[job.newest]) if job.newest in runs else None, [one.title for one in job.pipelines.all()]) for job in found]


def history(job: UpkeepJob | None = None, limit: int = HISTORY) -> list[RunLine]:
    """The newest runs, of one job or of all, without what they found: that may be thousands of rows each. One query."""
    runs = UpkeepRun.objects.select_related("job").defer("details", "notice")
    return [RunLine(run) for run in (runs.filter(job=job) if job else runs)[:limit]]


# what one run found


@dataclass(frozen=True)
class Cell:
    """A value of a finding as a page prints it; `href` where it is an address."""

    text: str
    is_number: bool = False
    href: str = ""

    @classmethod
    def of(cls, value: Any, decimals: int = 0, *, is_number: bool = False) -> Cell:
        """`decimals`: so many a fraction of its column has, that they stand below each other; `is_number`: so are the others of it."""
        if value is None or value == "":
            return cls("–", is_number)
        if isinstance(value, bool):
            return cls("yes" if value else "no")
        if isinstance(value, int | float):
            return cls(f"{value:,}" if isinstance(value, int) and not decimals else f"{value:,.{decimals}f}", is_number=True)
        text = str(value)
        return cls(text, href=text if text.startswith(("https://", "http://")) else "")


@dataclass(frozen=True)
class Findings:
    """What a run found, as a table; `more` rows were not kept. Rows have as many cells as there are columns, whatever the job kept."""

    columns: list[str]
    rows: list[list[Any]]
    more: int = 0

    @classmethod
    def of(cls, details: Any) -> Findings | None:
        """What stands in the details of a run; None where it keeps no table."""
        told = details.get("findings") if isinstance(details, dict) else None
        if not isinstance(told, dict) or not isinstance(told.get("columns"), list) or not isinstance(told.get("rows"), list):
            return None
        columns, more = [str(name) for name in told["columns"]], told.get("more")
        rows = [row for row in told["rows"] if isinstance(row, list)]
        wide = max([len(columns), *(len(row) for row in rows)])
        columns += [""] * (wide - len(columns))
        return cls(columns, [row + [None] * (wide - len(row)) for row in rows], more if isinstance(more, int) else 0)

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """Each column's words, and whether it holds numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.columns)
        return [(name.replace("_", " "), _are_numbers(values)) for name, values in zip(self.columns, columns, strict=True)]

    def page(self, number: str | None) -> Page:
        return Paginator(self.rows, A_PAGE).get_page(number)

    @staticmethod
    def cells(rows: Iterable[list[Any]]) -> list[list[Cell]]:
        """Rows of equal length as a page prints them."""
        rows = list(rows)
        looks = [(max(map(_decimals, column)), _are_numbers(column)) for column in zip(*rows, strict=True)]
        return [[Cell.of(value, places, is_number=is_number) for value, (places, is_number) in zip(row, looks, strict=True)] for row in rows]


def _decimals(value: Any) -> int:
    """How many decimals a fraction has, three at most."""
    return len(f"{value:.3f}".rstrip("0").partition(".")[2]) if isinstance(value, float) else 0


def _are_numbers(values: Iterable[Any]) -> bool:
    there = [value for value in values if value not in (None, "")]
    return bool(there) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)


@dataclass(frozen=True)
class Found:
    """A run whose findings and words to a webhook are shown; `is_newest` where no later run has ended."""

    line: RunLine
    findings: Findings | None
    is_newest: bool


def found(job: UpkeepJob, run_id: int | None = None) -> Found | None:
    """What that run of the job found, or the newest that ended; None where none did. Two queries at most."""
    ended = UpkeepRun.objects.filter(job=job, finished_at__isnull=False)
    newest = ended.first()
    run = newest if run_id is None or newest is None or run_id == newest.pk else ended.filter(pk=run_id).first()
    return Found(RunLine(run), Findings.of(run.details), run.pk == newest.pk) if run and newest else None


def failures() -> list[RunLine]:
    """Active jobs whose newest run failed, of those that did not only look. One query."""
    newest = UpkeepRun.objects.filter(job=OuterRef("job"), is_dry=False).order_by("-pk").values("pk")[:1]
    failed = UpkeepRun.objects.filter(state=UpkeepRun.State.FAILED, job__is_active=True, pk=Subquery(newest))
    return [RunLine(run) for run in failed.select_related("job")]


def run_json(run: UpkeepRun | None) -> dict[str, Any] | None:
    """A run as JSON; None for none."""
    if run is None:
        return None
    return {
        "run": run.pk,
        "state": run.state,
        "trigger": run.trigger,
        "asked_by": run.asked_by,
        "asked_because": run.asked_because,
        "asked_at": run.asked_at.isoformat(),
        "started_at": run.started_at and run.started_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "is_dry": run.is_dry,
        "message": run.message,
        "details": run.details,
        "notice": run.notice,
        "noticed": run.noticed,
    }


def job_json(line: JobLine) -> dict[str, Any]:
    """A job with its newest run as JSON."""
    job = line.job
    return {
        "job": job.pk,
        "title": job.title,
        "kind": job.kind,
        "state": line.face.word.lower(),
        "rhythm": line.rhythm,
        "next_at": line.next_at and line.next_at.isoformat(),
        "is_active": job.is_active,
        "options": job.options,
        "pipelines": [one.slug for one in job.pipelines.all()],
        "last": run_json(line.last.run if line.last else None),
    }
