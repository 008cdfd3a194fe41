"""The job report: each data source and stage on a day, and the days around it. A job has no table: it is read off the runs.

Pipelines of one `data_source` stand together; one without stands under its own title. A stage that should have run and did
not is a line too: absent is what an operator must see first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Count, DateField, DurationField, ExpressionWrapper, F, Func, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Cast, TruncDate
from django.urls import reverse

from catalog.models import CatalogEntry, Layer
from perfmet.selectors import spans
from perfmet.selectors.spans import Span
from pipelines import clock, planner
from pipelines.models import Cadence, Pipeline, Run, RunState, ScheduleBlock, Stage
from pipelines.selectors import faces
from pipelines.selectors.faces import Face, Square

#: Days that are shown where nobody asked for others.
DAYS = 14
#: So many failed runs are looked at; those with the same words are one line.
FAILURES = 500
#: A chart has five colours: the sources that took longest, and the others as one.
SERIES = 5
#: A run of a stage comes so soon after that of the one before it; only then it is absent.
SOON = faces.OVERDUE_AFTER
ABSENT = Face("missing", "Absent")
NOT_NEEDED = Face("unchanged", "Not needed")
#: The oldest window that may fall due today: a month, and the days of grace.
LONGEST = timedelta(days=40)
_LAYERS = {Layer.RAW: Stage.EXTRACT, Layer.STANDARD: Stage.STANDARDIZE, Layer.READY: Stage.ENRICH, Layer.AGGREGATED: Stage.AGGREGATE}
_RANK = {
    face: place
    for place, face in enumerate(
        [faces.FAILED, faces.CRASHED, ABSENT, faces.SUSPICIOUS, faces.CANCELLED, faces.RUNNING, faces.NOT_READY, faces.OK, faces.UNCHANGED,
         faces.RECOVERED, NOT_NEEDED, faces.NOT_YET, faces.PAUSED, faces.NOT_OWED]
    )
}  # fmt: skip
_BAD = (faces.FAILED, faces.CRASHED, ABSENT, faces.SUSPICIOUS)


@dataclass(frozen=True)
class Asked:
    """What the address asks for. `by` is the clock of the days: "run", when the work was done, or "data", what the data is about."""

    day: date
    span: Span
    by: str
    source: str
    problem: str

    @classmethod
    def of(cls, given: Mapping[str, str], now: datetime) -> Asked:
        by = "data" if given.get("by") == "data" else "run"
        today = now.astimezone(clock.zone(settings.TIME_ZONE)).date()
        usual = today - timedelta(days=by == "data")
        day, wrong = spans.day_of(given, "day")
        span = spans.span_of(given, day or usual, DAYS)
        day = day or (usual if span.first <= usual <= span.last else span.last)
        return cls(day, span, by, given.get("source", "").strip(), " ".join(filter(None, (wrong, span.problem))))

    @property
    def before(self) -> date:
        return self.day - timedelta(days=1)

    @property
    def after(self) -> date:
        return self.day + timedelta(days=1)


@dataclass
class Job:
    """One stage of a source on a day: its state, and what its runs did together.

    `records` are the windows that it finished (of daily pipelines: days), `files` what it wrote into the lake, `rows` what came
    out of it. `began` to `ended` is when it worked, `covers_from` to `covers_to` the time that its data is about; `worked_on` is the
    day, where the days of the report are those of the runs.
    """

    source: str
    stage: str
    face: Face
    runs: int = 0
    seconds: float = 0
    records: int = 0
    rows: int = 0
    files: int | None = None
    failed: int = 0
    began: datetime | None = None
    ended: datetime | None = None
    covers_from: datetime | None = None
    covers_to: datetime | None = None
    worked_on: date | None = None
    notes: list[str] = field(default_factory=list)
    slugs: list[str] = field(default_factory=list)

    @property
    def is_absent(self) -> bool:
        return self.runs == 0

    @property
    def covers(self) -> str:
        """ "1 day", "18 hours": how long the span is that the data is about."""
        if self.covers_from is None or self.covers_to is None:
            return "none"
        span = self.covers_to - self.covers_from
        days = round(span / timedelta(days=1))
        # a day of 23 or 25 hours is a day
        if days and abs(span - timedelta(days=days)) <= timedelta(hours=1):
            return f"{days:,} {'day' if days == 1 else 'days'}"
        hours = max(round(span / timedelta(hours=1)), 1)
        return f"{hours:,} {'hour' if hours == 1 else 'hours'}"

    @property
    def href(self) -> str:
        """The runs behind it, as near as the list of runs can be narrowed: to one pipeline, and to the day on which they began."""
        asks = {"pipeline": self.slugs[0] if len(self.slugs) == 1 else "", "stage": self.stage, "day": self.worked_on}
        return f"{reverse('runs')}?{urlencode({name: value for name, value in asks.items() if value})}"


@dataclass(frozen=True)
class Source:
    """A data source over the span: a square a day, and its sums. The shares are of all sources together, 0 to 1."""

    name: str
    face: Face
    squares: list[Square]
    records: int
    rows: int
    seconds: float
    share: float
    records_bar: float
    seconds_bar: float
    failed: int
    absent: int


@dataclass(frozen=True)
class Failure:
    """What failed with the same words at the same stage of a pipeline: the newest run, and how many runs and blocks there are."""

    source: str
    run: Run
    runs: int
    blocks: int


@dataclass(frozen=True)
class JobsPage:
    """The whole report. `quiet` are the sources that owe nothing on the day; `failures` the newest of the `failed` runs of the span."""

    asked: Asked
    names: list[str]
    jobs: list[Job]
    quiet: list[str]
    sources: list[Source]
    failures: list[Failure]
    failed: int
    chart: dict
    days: list[tuple[date, list[float | None], float]]
    chart_names: list[str]

    @property
    def bad(self) -> int:
        """Jobs of the day that an operator should look at."""
        return sum(job.face in _BAD for job in self.jobs)

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self.jobs)

    @property
    def rows(self) -> int:
        """Rows that were read of the sources that day."""
        return sum(job.rows for job in self.jobs if job.stage == Stage.EXTRACT)

    @property
    def records(self) -> int:
        return sum(job.records for job in self.jobs if job.stage == Stage.EXTRACT)


@dataclass
class _Cell:
    """What the runs of one pipeline and stage did on one day."""

    face: Face
    runs: int
    seconds: float
    records: int
    rows: int
    failed: int
    began: datetime | None
    ended: datetime | None
    covers_from: datetime | None
    covers_to: datetime | None


def source_of(pipeline: Pipeline) -> str:
    return pipeline.data_source or pipeline.title


def page(asked: Asked, now: datetime) -> JobsPage:
    """Four queries: the pipelines, their runs by day, the newest failures, and the files of the day."""
    pipelines = [one for one in Pipeline.objects.select_related("provider").filter(twin_of=None) if one.stages]
    names = sorted({source_of(one) for one in pipelines}, key=str.casefold)
    if asked.source:
        pipelines = [one for one in pipelines if source_of(one) == asked.source]
    cells = _cells(asked, pipelines)
    by_source: dict[str, list[Pipeline]] = defaultdict(list)
    for one in pipelines:
        by_source[source_of(one)].append(one)
    owed = {one.pk: set(_owed_days(one, asked, now)) for one in pipelines}
    files = _files(asked, pipelines)
    jobs, quiet = [], []
    for name in sorted(by_source, key=str.casefold):
        found = [job for job in _jobs(name, by_source[name], asked.day, cells, owed, now) if job.face != faces.NOT_OWED]
        for job in found:
            job.worked_on = asked.day if asked.by == "run" else None
            if job.runs and any((slug, job.stage) in files for slug in job.slugs):
                job.files = sum(files.get((slug, job.stage), 0) for slug in job.slugs)
        jobs += found
        if not found:
            quiet.append(name)
    jobs = _worst_source_first(jobs)
    sources = _sources(by_source, asked, cells, owed, now)
    chart, days, chart_names = _elapsed(by_source, asked, cells)
    failures = list(_failures(asked, pipelines))
    return JobsPage(asked, names, jobs, quiet, sources, failures, sum(source.failed for source in sources), chart, days, chart_names)


def _worst_source_first(jobs: list[Job]) -> list[Job]:
    """The sources with the loudest state first, each with its stages in their order."""
    loudest: dict[str, int] = {}
    for job in jobs:
        rank = _RANK.get(job.face, 0) if job.face in _BAD else len(_RANK)
        loudest[job.source] = min(loudest.get(job.source, len(_RANK)), rank)
    return sorted(jobs, key=lambda job: (loudest[job.source], job.source.casefold()))


# runs by day


def _day_of_data() -> Cast:
    """The day that a block is about, by its pipeline's own clock."""
    local = Func(F("block__starts_at"), F("block__pipeline__time_zone"), template="(%(expressions)s)", arg_joiner=" AT TIME ZONE ")
    return Cast(local, DateField())


def _runs(asked: Asked, pipelines: Iterable[Pipeline], first: date, last: date) -> QuerySet[Run]:
    """The runs of these days, each with its `day`."""
    runs = Run.objects.filter(block__pipeline__in=[one.pk for one in pipelines])
    since, until = clock.day_start(first, settings.TIME_ZONE), clock.day_start(last + timedelta(days=1), settings.TIME_ZONE)
    if asked.by == "run":
        return runs.filter(started_at__gte=since, started_at__lt=until).annotate(day=TruncDate("started_at", tzinfo=clock.zone(settings.TIME_ZONE)))
    # a pipeline has a clock of its own, up to a day away from the city's: the wider span finds the blocks, the day decides
    wide = runs.filter(block__starts_at__gte=since - timedelta(days=1, hours=2), block__starts_at__lt=until + timedelta(days=1, hours=2))
    return wide.annotate(day=_day_of_data()).filter(day__gte=first, day__lte=last)


def _cells(asked: Asked, pipelines: list[Pipeline]) -> dict[tuple[int, str, date], _Cell]:
    """(pipeline, stage, day) to what was done. One query."""
    first, last = min(asked.span.first, asked.day), max(asked.span.last, asked.day)
    took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    good = Q(state__in=[RunState.DONE, RunState.UNCHANGED])
    bad = Q(state__in=[RunState.FAILED, RunState.CRASHED])
    groups = (
        _runs(asked, pipelines, first, last)
        .values("block__pipeline_id", "stage", "day")
        .annotate(
            runs=Count("pk"),
            took=Sum(took),
            records=Count("block", distinct=True, filter=good),
            rows_sum=Sum("rows_out", filter=good),
            began=Min("started_at"),
            ended=Max("finished_at"),
            covers_from=Min("block__starts_at", filter=good),
            covers_to=Max("block__ends_at", filter=good),
            open_failed=Count("pk", filter=bad & Q(superseded_at=None)),
            crashed=Count("pk", filter=Q(state=RunState.CRASHED, superseded_at=None)),
            running=Count("pk", filter=Q(state=RunState.RUNNING)),
            done=Count("pk", filter=Q(state=RunState.DONE)),
            same=Count("pk", filter=Q(state=RunState.UNCHANGED)),
            waits=Count("pk", filter=Q(state=RunState.WAITING)),
            cancelled=Count("pk", filter=Q(state=RunState.CANCELLED, superseded_at=None)),
            odd=Count("pk", filter=Q(block__mark=ScheduleBlock.Mark.SUSPICIOUS)),
        )
        .order_by()
    )
    return {
        (group["block__pipeline_id"], group["stage"], group["day"]): _Cell(
            face=_face(group),
            runs=group["runs"],
            seconds=group["took"].total_seconds() if group["took"] else 0,
            records=group["records"],
            rows=group["rows_sum"] or 0,
            failed=group["open_failed"],
            began=group["began"],
            ended=group["ended"],
            covers_from=group["covers_from"],
            covers_to=group["covers_to"],
        )
        for group in groups
    }


def _face(group: Mapping[str, int]) -> Face:
    """The loudest state among some runs; what failed and was made good since is quiet."""
    if group["open_failed"]:
        return faces.CRASHED if group["crashed"] == group["open_failed"] else faces.FAILED
    if group["odd"] and (group["done"] or group["same"]):
        return faces.SUSPICIOUS
    for name, face in (
        ("cancelled", faces.CANCELLED),
        ("running", faces.RUNNING),
        ("done", faces.OK),
        ("same", faces.UNCHANGED),
        ("waits", faces.NOT_READY),
    ):
        if group[name]:
            return face
    return faces.RECOVERED


# what was owed


def _owed_days(pipeline: Pipeline, asked: Asked, now: datetime) -> Iterator[date]:
    """The days of the span, and the day itself, on which a window of the pipeline fell due (or, by data, that such a window is about)."""
    first, last = min(asked.span.first, asked.day), max(asked.span.last, asked.day)
    city, own = clock.zone(settings.TIME_ZONE), clock.zone(pipeline.time_zone)
    since = clock.day_start(first, settings.TIME_ZONE) - timedelta(minutes=pipeline.settle_minutes) - LONGEST
    until = clock.day_start(last + timedelta(days=1), settings.TIME_ZONE) + timedelta(days=1)
    if pipeline.cadence == Cadence.HOURLY:
        yield from _hourly_days(pipeline, asked, first, last, now)
        return
    for window in planner.owed_windows(pipeline, since, until):
        due = planner.due_at(pipeline, *window)
        if due > now - SOON:
            return
        day = due.astimezone(city).date() if asked.by == "run" else window[0].astimezone(own).date()
        if first <= day <= last:
            yield day


def _hourly_days(pipeline: Pipeline, asked: Asked, first: date, last: date, now: datetime) -> Iterator[date]:
    """Every day of it has an hour that is due: they need not be counted one by one."""
    zone = clock.zone(settings.TIME_ZONE if asked.by == "run" else pipeline.time_zone)
    settle = timedelta(minutes=pipeline.settle_minutes) + clock.HOUR
    began = pipeline.starts_on or pipeline.created_at.astimezone(clock.zone(pipeline.time_zone)).date()
    starts = clock.day_start(began, pipeline.time_zone)
    newest = now - SOON if asked.by == "run" else now - SOON - settle
    oldest = starts + settle if asked.by == "run" else starts
    day, end = max(first, oldest.astimezone(zone).date()), min(last, newest.astimezone(zone).date())
    while day <= end:
        yield day
        day += timedelta(days=1)


# the jobs of a day


def _jobs(
    name: str, pipelines: list[Pipeline], day: date, cells: Mapping[tuple[int, str, date], _Cell], owed: Mapping[int, set[date]], now: datetime
) -> Iterator[Job]:
    """A line a stage, in their order, of all pipelines of a source."""
    found: dict[str, Job] = {}
    for pipeline in pipelines:
        for stage, face, cell, words in _stages(pipeline, day, cells, day in owed[pipeline.pk], now):
            job = found.setdefault(stage, Job(name, stage, face))
            if _RANK.get(face, 0) < _RANK.get(job.face, 0):
                job.face = face
            job.slugs.append(pipeline.slug)
            if words:
                job.notes.append(f"{pipeline.title}: {words}" if len(pipelines) > 1 else words)
            if cell:
                _add(job, cell)
    yield from (found[stage] for stage in Stage.values if stage in found)


def _add(job: Job, cell: _Cell) -> None:
    job.runs += cell.runs
    job.seconds += cell.seconds
    job.records += cell.records
    job.rows += cell.rows
    job.failed += cell.failed
    job.began = min(filter(None, (job.began, cell.began)), default=None)
    job.ended = max(filter(None, (job.ended, cell.ended)), default=None)
    if cell.records:
        job.covers_from = min(filter(None, (job.covers_from, cell.covers_from)), default=None)
        job.covers_to = max(filter(None, (job.covers_to, cell.covers_to)), default=None)


def _stages(
    pipeline: Pipeline, day: date, cells: Mapping[tuple[int, str, date], _Cell], is_owed: bool, now: datetime
) -> Iterator[tuple[str, Face, _Cell | None, str]]:
    """Each stage of a pipeline on a day: its face, its runs, and words about a stage that did not run."""
    before: Face | None = None
    before_stage, before_ended = "", None
    any_ran = any((pipeline.pk, stage, day) in cells for stage in pipeline.stages)
    for stage in pipeline.stages:
        cell = cells.get((pipeline.pk, stage, day))
        words = ""
        if cell:
            face = cell.face
        elif before is None:
            # runs of later stages alone are a repair of that day
            face = ABSENT if is_owed and not any_ran else faces.NOT_OWED
            if face is ABSENT and (pipeline.is_paused or not pipeline.provider.is_active):
                face = faces.PAUSED
            words = "no run, though a block was due" if face is ABSENT else ""
        elif before in (faces.NOT_OWED, faces.PAUSED, faces.NOT_YET, NOT_NEEDED):
            face = before
        elif before in (faces.UNCHANGED, faces.RECOVERED):
            face = NOT_NEEDED
        elif before in (faces.RUNNING, faces.NOT_READY) or (before is faces.OK and before_ended and before_ended > now - SOON):
            face = faces.NOT_YET
        else:
            face = ABSENT
            words = _why(before, before_stage)
        yield stage, face, cell, words
        # a chain of absent stages has one cause: the last one that ran
        if not (face is ABSENT and before is not None):
            before, before_stage, before_ended = face, stage, cell.ended if cell else None


def _why(before: Face, stage: str) -> str:
    if before is faces.OK:
        return f"not reached, though {stage} went well"
    verb = "" if before in (faces.FAILED, faces.CRASHED) else "was " if before is faces.CANCELLED else "is "
    return f"not reached, {stage} {verb}{before.word.lower()}"


# the sources of a span


def _sources(
    by_source: Mapping[str, list[Pipeline]],
    asked: Asked,
    cells: Mapping[tuple[int, str, date], _Cell],
    owed: Mapping[int, set[date]],
    now: datetime,
) -> list[Source]:
    """The slowest first."""
    days = asked.span.days
    sums = {}
    for name, pipelines in by_source.items():
        mine = [(stage, cell) for one in pipelines for stage in one.stages for day in days if (cell := cells.get((one.pk, stage, day)))]
        first_stages = {one.stages[0] for one in pipelines}
        sums[name] = (
            sum(cell.records for stage, cell in mine if stage in first_stages),
            sum(cell.rows for stage, cell in mine if stage in first_stages),
            sum(cell.seconds for _, cell in mine),
            sum(cell.failed for _, cell in mine),
        )
    most_records = max((found[0] for found in sums.values()), default=0) or 1
    most_seconds = max((found[2] for found in sums.values()), default=0) or 1
    all_seconds = sum(found[2] for found in sums.values()) or 1
    lines = []
    for name, pipelines in by_source.items():
        by_day = [_loudest(name, pipelines, day, cells, owed, now) for day in days]
        squares = [
            Square(face, f"{day:%a %b} {day.day}: {words}", f"{reverse('performance')}?{_address(asked, day)}" if face != faces.NOT_OWED else "")
            for day, (face, words) in zip(days, by_day, strict=True)
        ]
        records, rows, seconds, failed = sums[name]
        lines.append(
            Source(
                name=name,
                face=min((face for face, _ in by_day), key=lambda face: _RANK.get(face, 0), default=faces.NOT_OWED),
                squares=squares,
                records=records,
                rows=rows,
                seconds=seconds,
                share=seconds / all_seconds,
                records_bar=round(120 * records / most_records, 1),
                seconds_bar=round(120 * seconds / most_seconds, 1),
                failed=failed,
                absent=sum(face is ABSENT for face, _ in by_day),
            )
        )
    return sorted(lines, key=lambda line: (-line.seconds, line.name.casefold()))


def _address(asked: Asked, day: date) -> str:
    """The page of another day of the same span."""
    asks = {"day": day, "from": asked.span.first, "to": asked.span.last}
    asks |= {"by": asked.by} if asked.by != "run" else {}
    return urlencode(asks | ({"source": asked.source} if asked.source else {}))


def _loudest(
    name: str, pipelines: list[Pipeline], day: date, cells: Mapping[tuple[int, str, date], _Cell], owed: Mapping[int, set[date]], now: datetime
) -> tuple[Face, str]:
    """The loudest stage of a source on a day, and words for it."""
    jobs = list(_jobs(name, pipelines, day, cells, owed, now))
    worst = min(jobs, key=lambda job: _RANK.get(job.face, 0), default=None)
    if worst is None:
        return faces.NOT_OWED, faces.NOT_OWED.word.lower()
    seconds = sum(job.seconds for job in jobs)
    words = f"{worst.stage} {worst.face.word.lower()}" if worst.face in _BAD else worst.face.word.lower()
    return worst.face, f"{words}, {clock.span_words(seconds)}" if seconds else words


def _elapsed(
    by_source: Mapping[str, list[Pipeline]], asked: Asked, cells: Mapping[tuple[int, str, date], _Cell]
) -> tuple[dict, list[tuple[date, list[float | None], float]], list[str]]:
    """Seconds by day and source, for the chart and its table: the slowest sources each, the others together; a day without a run is None."""
    days = asked.span.days
    seconds = {
        name: [_sum(cells[key].seconds for one in pipelines for stage in one.stages if (key := (one.pk, stage, day)) in cells) for day in days]
        for name, pipelines in by_source.items()
    }
    order = sorted(seconds, key=lambda name: (-sum(value or 0 for value in seconds[name]), name.casefold()))
    order = [name for name in order if any(value is not None for value in seconds[name])]
    single = order if len(order) <= SERIES else order[: SERIES - 1]
    series = {name: seconds[name] for name in single}
    if rest := order[len(single) :]:
        series[f"{len(rest)} others"] = [
            _sum(seconds[name][place] for name in rest if seconds[name][place] is not None) for place in range(len(days))
        ]
    series = {name: [None if value is None else round(value, 1) for value in values] for name, values in series.items()}
    starts = [int(clock.day_start(day, settings.TIME_ZONE).timestamp()) for day in days]
    lines = [
        (day, [values[place] for values in series.values()], sum(values[place] or 0 for values in series.values())) for place, day in enumerate(days)
    ]
    return {"x": starts, "zone": settings.TIME_ZONE, "days": True, "gaps": True, "seconds": series}, lines[::-1], list(series)


def _sum(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) if found else None


# failures and files


def _failures(asked: Asked, pipelines: list[Pipeline]) -> Iterator[Failure]:
    """The failures of the span that nothing has made good, the newest first; those with the same words are told once. One query."""
    bad = _runs(asked, pipelines, asked.span.first, asked.span.last).filter(state__in=[RunState.FAILED, RunState.CRASHED], superseded_at=None)
    alike: dict[tuple[int, str, str], list[Run]] = defaultdict(list)
    for run in bad.select_related("block__pipeline").defer("details").order_by("-pk")[:FAILURES]:
        alike[run.block.pipeline_id, run.stage, run.message].append(run)
    for runs in alike.values():
        yield Failure(source_of(runs[0].block.pipeline), runs[0], len(runs), len({run.block_id for run in runs}))


def _files(asked: Asked, pipelines: list[Pipeline]) -> dict[tuple[str, str], int]:
    """(pipeline, stage) to the files that its runs of the day wrote into the lake. One query."""
    runs = _runs(asked, pipelines, asked.day, asked.day)
    groups = (
        CatalogEntry.objects.filter(source__in=[one.slug for one in pipelines], layer__in=list(_LAYERS), run_id__in=runs.values("pk"))
        .values("source", "layer")
        .annotate(files=Count("pk"))
        .order_by()
    )
    return {(group["source"], str(_LAYERS[Layer(group["layer"])])): group["files"] for group in groups}
