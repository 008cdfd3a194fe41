"""Datasets as the city sees them: the list, one dataset from source to promise, and who did what to anything (the audit)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.postgres.aggregates import ArrayAgg
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max, Prefetch, Q, Sum
from django.db.models.functions import Coalesce, TruncDate
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from catalog import asked
from catalog import audit as audits
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import needs_view
from catalog.models import AuditEntry, CatalogEntry, Dataset, DatasetColumn, DatasetEvent
from opendata_ops.chart import Chart, chart_of
from perfmet.selectors.quality import Line as ScoreLine
from perfmet.selectors.quality import Standing, of_dataset, of_datasets, standing
from pipelines import clock, planner, secrets
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, RejectedRow, Run, RunState, ScheduleBlock, Stage, State
from pipelines.selectors import faces, promises, schedule
from pipelines.selectors.chain import Chain, evidence_run, reconcile
from pipelines.selectors.faces import Face, Square
from pipelines.selectors.trouble import troubles
from pipelines.stages import describe

BAR_BLOCKS, TIMELINE, AUDIT_A_PAGE = 90, 30, 100
#: The timeline looks back so far for days on which something ran.
LOOKS_BACK = timedelta(days=400)


# the list


@dataclass(frozen=True)
class DatasetLine:
    """A dataset as one line: how it is, what was promised, what is newest, and how many files and rows of it there are."""

    dataset: Dataset
    face: Face
    promise: str
    newest: datetime | None
    finished: datetime | None
    rows: int | None
    pipelines: int
    files: int
    bytes: int
    quality: Standing | None


@dataclass(frozen=True)
class DatasetFilters:
    search: str = ""
    department: str = ""
    access: str = ""
    standing: str = ""

    @classmethod
    def of(cls, given) -> DatasetFilters:
        standing = given.get("standing", "")
        return cls(
            search=given.get("q", "").strip(),
            department=given.get("department", ""),
            access=given.get("access", "") if given.get("access", "") in Dataset.Access.values else "",
            standing=standing if standing in STANDINGS else "",
        )

    def datasets(self):
        found = Dataset.objects.order_by("title")
        if self.search:
            words = Q(title__icontains=self.search) | Q(slug__icontains=self.search) | Q(tags__icontains=self.search)
            found = found.filter(words | Q(description__icontains=self.search) | Q(steward__icontains=self.search))
        if self.department:
            found = found.filter(department=self.department)
        return found.filter(access=self.access) if self.access else found


#: What a list of datasets can be narrowed to, and the looks that belong to it.
STANDINGS = {"trouble": "In trouble", "late": "Late", "fine": "Fine", "none": "Nothing yet"}


@dataclass(frozen=True)
class DatasetList:
    filters: DatasetFilters
    lines: list[DatasetLine]
    counts: dict[str, int]
    departments: list[str]
    all: int


def dataset_list(filters: DatasetFilters, now: datetime) -> DatasetList:
    """Every dataset that the filters ask for, the ones in trouble first; seven queries."""
    datasets = list(filters.datasets())
    feeding: dict[int, list[Pipeline]] = defaultdict(list)
    for pipeline in schedule.pipelines_with_newest():
        feeding[pipeline.dataset_id].append(pipeline)
    late = {promise.dataset.pk for promise in promises.late_promises([one for some in feeding.values() for one in some], now)}
    trouble: dict[int, list[Face]] = defaultdict(list)
    for problem in troubles(now):
        trouble[problem.pipeline_id].append(problem.face)
    held = {row["dataset"]: row for row in CatalogEntry.objects.live().order_by().values("dataset").annotate(files=Count("pk"), size=Sum("bytes"))}
    good = of_datasets()
    lines = [_dataset_line(one, feeding.get(one.pk, []), trouble, one.pk in late, held.get(one.pk, {}), good.get(one.pk)) for one in datasets]
    counts = {name: sum(_standing(line.face) == name for line in lines) for name in STANDINGS}
    if filters.standing:
        lines = [line for line in lines if _standing(line.face) == filters.standing]
    lines.sort(key=lambda line: (_LOUDNESS.get(line.face.look, 9), line.dataset.title.lower()))
    departments = list(Dataset.objects.exclude(department="").order_by("department").values_list("department", flat=True).distinct())
    return DatasetList(filters, lines, counts, departments, all=len(datasets))


NOTHING, FINE, NO_PIPELINE = Face("queued", "Nothing yet"), Face("ok", "Up to date"), Face("unchanged", "No pipeline")
_LOUDNESS = {"failed": 0, "crashed": 0, "suspicious": 1, "late": 2, "paused": 3, "queued": 4, "unchanged": 5}


def _standing(face: Face) -> str:
    if face.look == "late":
        return "late"
    return {"ok": "fine", "queued": "none", "unchanged": "none"}.get(face.look, "trouble")


def _dataset_line(
    dataset: Dataset, feeding: list[Pipeline], trouble: dict[int, list[Face]], is_late: bool, held: dict, good: Standing | None
) -> DatasetLine:
    bad = [face for pipeline in feeding for face in trouble.get(pipeline.pk, [])]
    newest = max((pipeline.newest_end for pipeline in feeding if pipeline.newest_end), default=None)
    if bad:
        face = faces.worst(bad)
    elif is_late:
        face = faces.LATE
    elif not feeding:
        face = NO_PIPELINE
    elif all(pipeline.is_paused for pipeline in feeding):
        face = faces.PAUSED
    else:
        face = FINE if newest else NOTHING
    rows = [pipeline.newest_rows for pipeline in feeding if pipeline.newest_rows is not None]
    return DatasetLine(
        dataset=dataset,
        face=face,
        promise=promises.promise_words(dataset),
        newest=newest,
        finished=max((pipeline.newest_finish for pipeline in feeding if pipeline.newest_finish), default=None),
        rows=sum(rows) if rows else None,
        pipelines=len(feeding),
        files=held.get("files", 0),
        bytes=held.get("size") or 0,
        quality=good,
    )


# one dataset


@dataclass(frozen=True)
class Promise:
    """Whether the public's promise is kept; `words` say it, `face` None where nothing was promised."""

    words: str
    face: Face | None
    detail: str


@dataclass(frozen=True)
class Feed:
    """One pipeline of the dataset: its newest block with the chain of its rows, its last 90 blocks, and its next time."""

    pipeline: Pipeline
    block: ScheduleBlock | None
    face: Face
    chain: Chain | None
    window: str
    bar: list[Square]
    cadence: str
    next_due: datetime | None


@dataclass(frozen=True)
class Event:
    """One line of the timeline: the runs of a day, a change at the source or the portal, or what a person did."""

    at: datetime
    face: Face
    kind: str
    text: str
    who: str
    href: str


@dataclass(frozen=True)
class ColumnLine:
    """A line of the dictionary with what the source says of the column's values; each "" where it says nothing."""

    column: DatasetColumn
    empty: str
    distinct: str
    smallest: str
    largest: str

    @classmethod
    def of(cls, column: DatasetColumn) -> ColumnLine:
        told = column.told if isinstance(column.told, dict) else {}
        return cls(
            column=column,
            empty=_share(told.get("null"), told.get("count")),
            distinct=_number(told.get("cardinality")),
            smallest=_plain(told.get("smallest")),
            largest=_plain(told.get("largest")),
        )


def _share(part: object, whole: object) -> str:
    """A part in per cent, with a decimal where it is small: "0.3 %"; "" for what is no number."""
    try:
        part, whole = float(part), float(whole)  # portals send their numbers as words too
        share = 100 * part / whole
    except (TypeError, ValueError, ZeroDivisionError):
        return ""
    if 0 < share < 0.1:
        return "under 0.1 %"
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"


def _number(value: object) -> str:
    try:
        return f"{int(value):,}"
    except (TypeError, ValueError, OverflowError):
        return ""


def _plain(value: object) -> str:
    """A value as a cell: midnight of a day is the day."""
    text = "" if value is None or isinstance(value, dict | list) else str(value)
    return text.removesuffix("T00:00:00.000").removesuffix("T00:00:00")


@dataclass(frozen=True)
class DatasetPage:
    dataset: Dataset
    feeds: list[Feed]
    promise: Promise
    columns: list[DatasetColumn]
    lines: list[ColumnLine]
    can_be_told: bool
    quality: list[ScoreLine]
    chart: Chart
    timeline: list[Event]
    shown: str
    files: int
    bytes: int
    first_data: datetime | None
    newest_data: datetime | None
    finished: datetime | None
    published: datetime | None
    rejected_open: int
    rejected_replayed: int
    now: datetime

    @property
    def standing(self) -> Standing | None:
        """How good its tables are for the public."""
        return standing(self.quality)

    @property
    def has_told(self) -> bool:
        """Whether the source says anything of its columns' values."""
        return any(line.empty or line.distinct or line.smallest or line.largest for line in self.lines)

    @property
    def undescribed(self) -> int:
        return sum(not column.description for column in self.columns)

    @property
    def has_parts(self) -> bool:
        return any(column.part for column in self.columns)

    @property
    def withheld(self) -> int:
        return sum(not column.is_published for column in self.columns)


def dataset_page(dataset: Dataset, now: datetime, shown: str = "all", chart: Mapping[str, str] | None = None) -> DatasetPage:
    """All that the page of a dataset prints; fifteen queries whatever its history, one more where a chart is shown.

    `shown` is one of SHOWN; `chart` is what is asked of the chart, as `chart_of` takes it.
    """
    pipelines = list(schedule.pipelines_with_newest().select_related("watch").filter(dataset=dataset).order_by("title"))
    for pipeline in pipelines:
        pipeline.dataset = dataset
    feeds = _feeds(pipelines, now)
    span = ScheduleBlock.objects.filter(pipeline__in=pipelines, state=State.DONE).order_by()
    first = span.filter(rows__gt=0).order_by("starts_at").values_list("starts_at", flat=True).first()
    published = (
        Run.objects.filter(block__pipeline__in=pipelines, stage=Stage.PUBLISH, state=RunState.DONE)
        .order_by("-pk")
        .values_list("finished_at", flat=True)
        .first()
    )
    rejected = RejectedRow.objects.filter(block__pipeline__in=pipelines, run__superseded_at=None).aggregate(
        open=Count("pk", filter=Q(replayed_at=None)), replayed=Count("pk", filter=~Q(replayed_at=None))
    )
    files = CatalogEntry.objects.live().filter(dataset=dataset).aggregate(files=Count("pk"), size=Sum("bytes"))
    columns = list(dataset.columns.all())
    return DatasetPage(
        dataset=dataset,
        feeds=feeds,
        promise=promise_of(dataset, pipelines, now),
        columns=columns,
        lines=[ColumnLine.of(column) for column in columns],
        can_be_told=any(describe.can_be_told(pipeline) for pipeline in pipelines),
        quality=of_dataset(dataset.pk),
        chart=chart_of(dataset, pipelines, columns, chart or {}),
        timeline=_timeline(dataset, pipelines, shown, now),
        shown=shown,
        files=files["files"],
        bytes=files["size"] or 0,
        first_data=first,
        newest_data=max((pipeline.newest_end for pipeline in pipelines if pipeline.newest_end), default=None),
        finished=max((pipeline.newest_finish for pipeline in pipelines if pipeline.newest_finish), default=None),
        published=published,
        rejected_open=rejected["open"],
        rejected_replayed=rejected["replayed"],
        now=now,
    )


def promise_of(dataset: Dataset, pipelines: list[Pipeline], now: datetime) -> Promise:
    """The refresh rate against the newest done block. Asks nothing: the pipelines carry what is newest of each."""
    promised = promises.promised_by(dataset, now)
    if promised is None:
        return Promise("Nothing was promised: it is refreshed as needed.", None, "")
    words = f"{promises.promise_words(dataset)}."
    through, since = promised
    newest = max((pipeline.newest_end for pipeline in pipelines if pipeline.newest_end), default=None)
    if promises.late_promises(pipelines, now):
        late = clock.span_words((now - since).total_seconds())
        return Promise(words, Face("late", "Late"), f"late by {late}" if newest else f"nothing has arrived; late by {late}")
    if newest is None:
        return Promise(words, Face("queued", "Not due yet"), "nothing has arrived yet")
    return Promise(words, Face("ok", "Kept"), "the newest data is here in time")


def _feeds(pipelines: list[Pipeline], now: datetime) -> list[Feed]:
    """The newest block of each pipeline with its chain, and the bar of its last blocks; three queries, or four."""
    recent: dict[int, list[ScheduleBlock]] = {pipeline.pk: [] for pipeline in pipelines}
    newest_first = ScheduleBlock.objects.filter(starts_at__lte=now).order_by("-starts_at")[:BAR_BLOCKS]
    for pipeline in Pipeline.objects.filter(pk__in=list(recent)).prefetch_related(Prefetch("blocks", queryset=newest_first, to_attr="recent")):
        recent[pipeline.pk] = pipeline.recent
    told: dict[int, ScheduleBlock] = {}
    for pipeline in pipelines:
        for block in recent[pipeline.pk]:
            block.pipeline = pipeline
        # a block that waits its first turn says nothing yet; the one before it does
        told[pipeline.pk] = next((block for block in recent[pipeline.pk] if block.fence), next(iter(recent[pipeline.pk]), None))
    runs = _runs_of([block for block in told.values() if block])
    elsewhere = {block_id: named for block_id, own in runs.items() if (named := evidence_run(own))}
    earlier = _blocks_of_runs(elsewhere.values())
    feeds = []
    for pipeline in pipelines:
        block = told[pipeline.pk]
        own = runs.get(block.pk, []) if block else []
        chain = reconcile(own, pipeline.stages, earlier.get(elsewhere.get(block.pk), [])) if block else None
        squares = _bar(pipeline, recent[pipeline.pk], now)
        feeds.append(
            Feed(
                pipeline=pipeline,
                block=block,
                face=faces.of_block(block, now) if block else NOTHING,
                chain=chain,
                window=clock.window_text(block.starts_at, block.ends_at, pipeline.time_zone) if block else "",
                bar=squares,
                cadence=schedule.cadence_words(pipeline),
                next_due=planner.next_due(pipeline, now),
            )
        )
    return feeds


def _runs_of(some: Iterable[ScheduleBlock]) -> dict[int, list[Run]]:
    found: dict[int, list[Run]] = defaultdict(list)
    for run in Run.objects.filter(block__in=list(some)):
        found[run.block_id].append(run)
    return found


def _blocks_of_runs(run_ids: Iterable[int]) -> dict[int, list[Run]]:
    """Run to all runs of its block, for the blocks that hold the evidence of others; no query where there are none."""
    wanted = set(run_ids)
    if not wanted:
        return {}
    found: dict[int, list[Run]] = defaultdict(list)
    for run in Run.objects.filter(block__runs__in=wanted).distinct():
        found[run.block_id].append(run)
    return {run.pk: some for some in found.values() for run in some if run.pk in wanted}


def _bar(pipeline: Pipeline, have: list[ScheduleBlock], now: datetime) -> list[Square]:
    """The last windows, oldest first: the blocks that there are, and the gaps where one is owed and never was."""
    squares = {block.starts_at: _square(block, now) for block in have}
    span = {"hourly": clock.HOUR, "daily": clock.DAY, "weekly": 7 * clock.DAY, "monthly": 31 * clock.DAY}.get(pipeline.cadence, clock.DAY)
    due = [window for window in planner.owed_windows(pipeline, now - BAR_BLOCKS * span, now) if planner.due_at(pipeline, *window) <= now]
    for window in due:
        if window[0] in squares:
            continue
        covered = pipeline.is_snapshot and window != due[-1]
        face = faces.COVERED if covered else (faces.PAUSED_GAP if pipeline.is_paused else faces.MISSING)
        words = f"{clock.window_text(*window, pipeline.time_zone)}: {face.word.lower()}"
        squares[window[0]] = Square(face, words, href=pipeline.get_absolute_url(), starts_at=window[0])
    return [squares[start] for start in sorted(squares)][-BAR_BLOCKS:]


def _square(block: ScheduleBlock, now: datetime) -> Square:
    face = faces.of_block(block, now)
    rows = f", {block.rows:,} rows" if block.rows is not None else ""
    words = clock.window_text(block.starts_at, block.ends_at, block.pipeline.time_zone)
    return Square(face, f"{words}: {face.word.lower()}{rows}", href=block.get_absolute_url(), starts_at=block.starts_at)


#: What the timeline can be narrowed to.
SHOWN = {"all": "All", "runs": "Loads", "changes": "Changes", "edits": "Edits"}
_CHANGE_FACES = {
    DatasetEvent.Kind.COLUMNS: Face("late", "Columns"),
    DatasetEvent.Kind.METADATA: Face("unchanged", "Description"),
    DatasetEvent.Kind.PORTAL: Face("late", "Portal"),
    DatasetEvent.Kind.ROWS: Face("unchanged", "Rows"),
}


def _timeline(dataset: Dataset, pipelines: list[Pipeline], shown: str, now: datetime) -> list[Event]:
    """What happened to the dataset, newest first: what ran, a line a day; what changed; what people did. At most TIMELINE lines."""
    events: list[Event] = []
    if shown in ("all", "runs"):
        events += _days(pipelines, now)
    if shown in ("all", "changes"):
        several = len(pipelines) > 1
        events += [_change_event(change, several) for change in dataset.events.all()[:TIMELINE]]
    if shown in ("all", "edits"):
        mine = Q(kind="dataset", target=dataset.slug) | Q(kind="pipeline", target__in=[pipeline.slug for pipeline in pipelines])
        events += [_edit_event(entry) for entry in AuditEntry.objects.filter(mine)[:TIMELINE]]
    return sorted(events, key=lambda event: event.at, reverse=True)[:TIMELINE]


def _days(pipelines: list[Pipeline], now: datetime) -> list[Event]:
    """The newest days on which something ran, each as one line; two queries."""
    well, bad = Q(state=RunState.DONE), Q(state__in=[RunState.FAILED, RunState.CRASHED])
    loaded, published = Q(stage=Stage.LOAD) & well, Q(stage=Stage.PUBLISH) & well
    runs = Run.objects.filter(block__pipeline__in=pipelines, started_at__gte=now - LOOKS_BACK).exclude(state=RunState.WAITING)
    days = list(
        runs.order_by()
        .values(day=TruncDate("started_at", tzinfo=clock.zone(settings.TIME_ZONE)))
        .annotate(
            at=Max(Coalesce("finished_at", "started_at")),
            loads=Count("pk", filter=loaded),
            **{name: Sum(name, filter=loaded, default=0) for name in ("inserted", "updated", "deleted", "rejected")},
            published=Sum("published", filter=published, default=0),
            unchanged_reads=Count("pk", filter=Q(stage=Stage.EXTRACT, state=RunState.UNCHANGED)),
            going=Count("pk", filter=Q(state=RunState.RUNNING)),
            failed=Count("pk", filter=bad & Q(superseded_at=None)),
            made_good=Count("pk", filter=bad & ~Q(superseded_at=None)),
            newest_failure=Max("pk", filter=bad & Q(superseded_at=None)),
            who=ArrayAgg("asked_by", distinct=True),
        )
        .order_by("-day")[:TIMELINE]
    )
    # asked though nothing failed, too: a page's number of queries does not depend on luck
    failures = Run.objects.filter(pk__in=[0, *(day["newest_failure"] or 0 for day in days)]).in_bulk()
    only = {"pipeline": pipelines[0].slug} if len(pipelines) == 1 else {}
    return [_day_event(day, failures.get(day["newest_failure"]), only) for day in days]


def _day_event(day: dict, failure: Run | None, only: dict[str, str]) -> Event:
    parts = []
    if day["loads"]:
        numbers = [f"{day['inserted']:,} new", f"{day['updated']:,} changed"]
        numbers += [f"{day[name]:,} {name}" for name in ("deleted", "rejected") if day[name]]
        parts.append(f"{_times(day['loads'], 'load')}: {', '.join(numbers)}")
    if day["published"]:
        parts.append(f"{day['published']:,} rows published")
    if day["unchanged_reads"]:
        parts.append(f"source unchanged at {_times(day['unchanged_reads'], 'reading')}")
    if day["made_good"]:
        parts.append(f"{_times(day['made_good'], 'failed run')}, made good since")
    if day["failed"]:
        parts.append(f"{_times(day['failed'], 'run')} failed" + (f", the last one: {failure.message}" if failure and failure.message else ""))
    if day["going"]:
        parts.append(f"{_times(day['going'], 'run')} going on")
    if day["failed"]:
        face = Face("failed", "Failed")
    elif day["going"] and not day["loads"]:
        face = Face("running", "Running")
    elif day["loads"]:
        face = Face("ok", "Loaded")
    else:
        face = Face("unchanged", "Unchanged" if day["unchanged_reads"] else "Ran")
    who = ", ".join(sorted(name for name in day["who"] if name))
    text = "; ".join(parts) or "Read, and nothing was loaded"
    return Event(
        day["at"],
        face,
        "run",
        f"{text[:1].upper()}{text[1:]}.".replace("..", "."),
        who,
        f"{reverse('runs')}?{urlencode({**only, 'day': day['day']})}",
    )


def _times(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _change_event(change: DatasetEvent, names_source: bool) -> Event:
    source = f"{change.source}: " if names_source else ""
    return Event(change.at, _CHANGE_FACES[DatasetEvent.Kind(change.kind)], "change", f"{source}{change.text}", change.source, "")


def _edit_event(entry: AuditEntry) -> Event:
    text = entry.result or ", ".join(entry.details.get("changed", {})) or entry.target
    refused = entry.result.startswith("refused")
    reason = f" Because: {entry.reason}" if entry.reason else ""
    return Event(entry.at, Face("unchanged" if refused else "ok", entry.verb.capitalize()), "edit", f"{text}{reason}", entry.actor, "")


# the audit


@dataclass(frozen=True)
class AuditFilters:
    """What the audit is narrowed to; `before` is the entry after which a page goes on."""

    user: str = ""
    verb: str = ""
    kind: str = ""
    target: str = ""
    day: date | None = None
    before: int | None = None
    problem: str = ""

    @classmethod
    def of(cls, given) -> AuditFilters:
        day, problem = asked.day(given.get("day", ""))
        return cls(
            user=given.get("user", "").strip(),
            verb=given.get("verb", ""),
            kind=given.get("kind", ""),
            target=given.get("target", "").strip(),
            day=day,
            before=asked.number(given.get("before", "")),
            problem=problem,
        )

    def entries(self):
        """Newest first."""
        found = AuditEntry.objects.order_by("-pk")
        for name, value in (("actor", self.user), ("verb", self.verb), ("kind", self.kind)):
            if value:
                found = found.filter(**{name: value})
        if self.target:
            # a number names one block; of names a part is enough
            exact = self.kind == "block" and self.target.isdecimal()
            found = found.filter(**{"target" if exact else "target__icontains": self.target})
        if self.day:
            start, end = asked.span(self.day)
            found = found.filter(at__gte=start, at__lt=end)
        return found


@dataclass(frozen=True)
class AuditLine:
    entry: AuditEntry
    href: str
    refused: bool
    details: list[tuple[str, str]]


@dataclass(frozen=True)
class AuditPage:
    filters: AuditFilters
    lines: list[AuditLine]
    total: int
    next_before: int | None
    actors: list[str]
    verbs: list[str]
    kinds: list[str]


def audit_page(filters: AuditFilters) -> AuditPage:
    """The audit, newest first, a page at a time by key; five queries."""
    entries = filters.entries()
    page = list((entries.filter(pk__lt=filters.before) if filters.before else entries)[: AUDIT_A_PAGE + 1])
    words = {name: list(AuditEntry.objects.order_by(name).values_list(name, flat=True).distinct()[:200]) for name in ("actor", "verb", "kind")}
    return AuditPage(
        filters=filters,
        lines=[_audit_line(entry) for entry in page[:AUDIT_A_PAGE]],
        total=entries.count(),
        next_before=page[AUDIT_A_PAGE - 1].pk if len(page) > AUDIT_A_PAGE else None,
        actors=words["actor"],
        verbs=words["verb"],
        kinds=words["kind"],
    )


def _audit_line(entry: AuditEntry) -> AuditLine:
    details = entry.details if isinstance(entry.details, dict) else {"details": entry.details}
    pairs = []
    for name, value in details.items():
        if isinstance(value, dict):
            pairs += [(str(key), _detail(inner)) for key, inner in value.items()]
        else:
            pairs.append((str(name), _detail(value)))
    return AuditLine(entry, _target_href(entry), entry.result.startswith("refused"), pairs)


def _detail(value) -> str:
    if isinstance(value, list) and len(value) == 2:
        return f"{value[0] or 'nothing'} → {value[1] or 'nothing'}"
    text = " → ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _target_href(entry: AuditEntry) -> str:
    """The page of what it was done to; empty where it has none."""
    if entry.kind == "block" and entry.target.isdecimal():
        return reverse("block", args=[entry.target])
    if entry.kind in ("pipeline", "dataset"):
        return reverse(entry.kind, args=[entry.target])
    return reverse("workers") if entry.kind == "workers" else ""


# the views

#: Who may choose what a dataset's page shows: a steward.
EDIT = "catalog.change_dataset"


@needs_view
def datasets(request: HttpRequest) -> HttpResponse:
    page = dataset_list(DatasetFilters.of(request.GET), timezone.now())
    if request.GET.get("format") == "csv":
        return csv_response(
            "datasets.csv",
            [
                "dataset", "title", "state", "promise", "newest_data", "last_run", "rows", "pipelines",
                "files", "bytes", "department", "steward", "access", "grade", "score",
            ],
            (
                [
                    line.dataset.slug, line.dataset.title, line.face.word, line.promise, line.newest, line.finished, line.rows, line.pipelines,
                    line.files, line.bytes, line.dataset.department, line.dataset.steward, line.dataset.access,
                    line.quality and line.quality.grade, line.quality and line.quality.score,
                ]
                for line in page.lines
            ),
        )  # fmt: skip
    return render(request, "opendata_ops/datasets/list.html", {"page": page, "standings": STANDINGS, "accesses": Dataset.Access.choices})


@needs_view
def dataset(request: HttpRequest, slug: str) -> HttpResponse:
    one = get_object_or_404(Dataset, slug=slug)
    if request.GET.get("format") == "csv":
        return csv_response(
            f"{one.slug}-columns.csv",
            ["part", "position", "name", "label", "type", "description", "is_published", "seen_at", "empty", "distinct", "smallest", "largest"],
            (
                [
                    c.part,
                    c.position,
                    c.name,
                    c.label,
                    c.type,
                    c.description,
                    c.is_published,
                    c.seen_at,
                    line.empty,
                    line.distinct,
                    line.smallest,
                    line.largest,
                ]
                for c in one.columns.all()
                for line in [ColumnLine.of(c)]
            ),
        )
    shown = request.GET.get("show", "all")
    page = dataset_page(one, timezone.now(), shown if shown in SHOWN else "all", request.GET)
    return render(request, "opendata_ops/datasets/page.html", {"page": page, "shown": SHOWN.items(), "may_edit": request.user.has_perm(EDIT)})


@needs_view
@require_GET
def dataset_chart(request: HttpRequest, slug: str) -> HttpResponse:
    """The chart's numbers: as the table that the page shows, or with `shape=long` a line for each pair."""
    one = get_object_or_404(Dataset, slug=slug)
    chart = chart_of(one, list(one.pipelines.order_by("title")), list(one.columns.all()), request.GET)
    if chart.matrix is None:
        raise Http404(chart.words)
    name = f"{one.slug}-{chart.row_name}-by-{chart.column_name}.csv"
    if request.GET.get("shape") == "long":
        return csv_response(name, [chart.row_head, chart.column_head, "rows"], chart.matrix.pairs())
    lines = [[line.label, *(cell.rows for cell in line.cells), line.total] for line in chart.matrix.lines]
    return csv_response(name, [chart.row_head, *chart.matrix.heads, "all"], [*lines, ["all", *chart.matrix.totals, chart.matrix.total]])


@needs_view
@require_POST
def save_chart(request: HttpRequest, slug: str) -> HttpResponse:
    """Show this chart to everyone who opens the dataset."""
    if not request.user.has_perm(EDIT):
        raise PermissionDenied("Only stewards choose what a dataset's page shows. Ask a steward.")
    one = get_object_or_404(Dataset, slug=slug)
    chosen = [request.POST.get(name, "") for name in ("rows", "columns")]
    known = set(one.columns.values_list("name", flat=True))
    if not set(chosen) <= known or chosen[0] == chosen[1]:
        messages.error(request, "Nothing was saved: choose two different columns of the dictionary.")
        return redirect(one)
    changed = {
        name: [getattr(one, name), new] for name, new in zip(("chart_rows", "chart_columns"), chosen, strict=True) if getattr(one, name) != new
    }
    if changed:
        Dataset.objects.filter(pk=one.pk).update(chart_rows=chosen[0], chart_columns=chosen[1])
        audits.write(Actor.of(request.user), "edit", kind="dataset", target=one.slug, result=f"Changed {', '.join(changed)}.", changed=changed)
    messages.success(request, f"Everyone who opens this page now sees {chosen[0]} by {chosen[1]}.")
    return redirect(f"{one.get_absolute_url()}#chart")


@needs_view
@require_POST
def describe_dataset(request: HttpRequest, slug: str) -> HttpResponse:
    """Tell the dataset's portals what the catalog says of it, now; no row is touched."""
    if not request.user.has_perm(EDIT):
        raise PermissionDenied("Only stewards tell a portal what a dataset is. Ask a steward.")
    one = get_object_or_404(Dataset, slug=slug)
    lines = list(one.pipelines.filter(twin_of=None).select_related("portal", "provider", "dataset"))
    changed: list[str] = []
    for pipeline in filter(describe.can_be_told, lines):
        try:
            changed += [f"{pipeline.part or pipeline.title}: {words}" for words in describe.push(pipeline, lambda text: None, is_asked=True)]
        except PipelineError as error:
            messages.error(request, secrets.redact(f"{pipeline.portal.title} was not told of {pipeline.title}. {error.message} {error.next_step}"))
    result = "; ".join(changed) or "the portal said all of it already"
    audits.write(Actor.of(request.user), "describe", kind="dataset", target=one.slug, result=result)
    if changed:
        messages.success(request, f"The portal was told: {result}.")
    else:
        messages.info(request, "Nothing was to be told: the portal says all of it already.")
    return redirect(one)


@needs_view
def audit(request: HttpRequest) -> HttpResponse:
    filters = AuditFilters.of(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response(
            "audit.csv",
            ["at", "who", "verb", "kind", "target", "reason", "result", "details"],
            ([e.at, e.actor, e.verb, e.kind, e.target, e.reason, e.result, e.details] for e in filters.entries().iterator(chunk_size=2000)),
        )
    return render(request, "opendata_ops/datasets/audit.html", {"page": audit_page(filters)})
