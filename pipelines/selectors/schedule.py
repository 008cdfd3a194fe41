"""What is owed and what of it is here: the day grid of all pipelines, the block grid of one, the preview of a re-run, the lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from statistics import quantiles

from django.conf import settings
from django.db.models import (
    Avg,
    Case,
    Count,
    DateField,
    DurationField,
    ExpressionWrapper,
    F,
    Func,
    Max,
    Min,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import RowNumber, TruncHour
from django.urls import reverse

from catalog import asked
from pipelines import clock, planner
from pipelines.models import Cadence, Pipeline, Run, RunState, ScheduleBlock, Stage, State, Trigger
from pipelines.selectors import faces
from pipelines.selectors.blocks import HOP_NAMES
from pipelines.selectors.faces import Face

GRID_DAYS = 28
MONTHS_BACK = 13
RUNS_A_PAGE = 100
#: How far back a finished but suspicious block still asks for a person.
SUSPICIOUS_FOR = timedelta(days=35)
SUSPICIOUS = Q(mark=ScheduleBlock.Mark.SUSPICIOUS)

#: Where a stage has its trouble: at the place that it writes to, but to extract is to ask the source.
HOPS = {**HOP_NAMES, Stage.EXTRACT: "Source"}


@dataclass(frozen=True)
class Square:
    """One cell of a grid; `shade` is "", "v1", "v3" or "v4" (more rows, darker), `starts_at`/`ends_at` the UTC span that it stands for.

    `local_from` and `local_to` are the same span as the inputs of the order form write it.
    """

    face: Face
    title: str
    href: str = ""
    shade: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    local_from: str = ""
    local_to: str = ""


def as_input(moment: datetime, pipeline: Pipeline, *, is_end: bool = False) -> str:
    """An instant as the order form writes it: local date and time where a pipeline runs by the hour, else a day; an end is its last day."""
    local = moment.astimezone(clock.zone(pipeline.time_zone))
    if pipeline.cadence == Cadence.HOURLY:
        return f"{local:%Y-%m-%dT%H:%M}"
    return f"{(local - timedelta(microseconds=1)).date() if is_end else local.date()}"


# pipelines, with what is newest of each


def pipelines_with_newest():
    """Pipelines with provider, dataset and portal, and the end, the finish and the rows of their newest finished block. One query."""
    done = ScheduleBlock.objects.filter(pipeline=OuterRef("pk"), state=State.DONE).order_by("-starts_at")
    return Pipeline.objects.select_related("provider", "dataset", "portal").annotate(
        newest_end=Subquery(done.values("ends_at")[:1]),
        newest_finish=Subquery(done.values("finished_at")[:1]),
        newest_rows=Subquery(done.values("rows")[:1]),
    )


def pipeline_choices() -> list[tuple[str, str]]:
    """Slug and title of every pipeline, for a filter. One query."""
    return list(Pipeline.objects.values_list("slug", "title"))


def cadence_words(pipeline: Pipeline) -> str:
    """When it runs, in a sentence without a full stop: "Every day at 06:30"; with the zone where it isn't the city's."""
    settle = pipeline.settle_minutes
    where = "" if pipeline.time_zone == settings.TIME_ZONE else f", {pipeline.time_zone}"
    if pipeline.cadence == Cadence.MANUAL:
        return "Only by hand"
    if pipeline.cadence == Cadence.HOURLY:
        moment = "begins" if pipeline.is_snapshot else "has ended"
        return f"Every hour, {f'{settle} min after' if settle else 'when'} it {moment}{where}"
    due = datetime.combine(date(2000, 1, 1), pipeline.due_time or time.min) + timedelta(minutes=settle)
    days_later = (due.date() - date(2000, 1, 1)).days
    later = f", {days_later} {'day' if days_later == 1 else 'days'} later" if days_later else ""
    when = {Cadence.DAILY: "Every day", Cadence.WEEKLY: "Every Monday", Cadence.MONTHLY: "On the 1st of every month"}[Cadence(pipeline.cadence)]
    return f"{when}{later} at {due:%H:%M}{where}"


def newest_words(pipeline: Pipeline) -> str:
    """Up to when there is data: "Nov 20, 17:00" by the hour, "Nov 20" by the day, the moment of the last reading of a snapshot; a dash for none."""
    moment = pipeline.newest_finish if pipeline.is_snapshot else pipeline.newest_end
    if moment is None:
        return "–"
    local = moment.astimezone(clock.zone(pipeline.time_zone))
    if pipeline.is_snapshot or pipeline.cadence == Cadence.HOURLY:
        return f"{local:%b} {local.day}, {local:%H:%M}"
    last = local - timedelta(microseconds=1)
    return f"{last:%b} {last.day}"


# trouble: blocks that a person should look at


def troubled_blocks(now: datetime):
    """Failed and not made good, held, or suspicious and recent."""
    return ScheduleBlock.objects.filter(
        Q(state=State.FAILED, superseded_at=None) | Q(state=State.HELD) | (SUSPICIOUS & Q(state=State.DONE, starts_at__gte=now - SUSPICIOUS_FOR))
    )


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pipeline, one a state and stage: the newest block of it speaks for `count` of them."""

    pipeline_id: int
    face: Face
    stage: str
    count: int
    since: datetime
    first_start: datetime
    last_end: datetime
    block_id: int
    message: str
    next_step: str

    @property
    def hop(self) -> str:
        return HOPS[Stage(self.stage)]


def troubles(now: datetime) -> list[Trouble]:
    """All trouble, grouped by pipeline, state and stage, in one query."""
    same = {"partition_by": [F("pipeline_id"), F("state"), F("mark"), F("stage")]}
    rows = (
        troubled_blocks(now)
        .annotate(
            count=Window(Count("pk"), **same),
            since=Window(Min("changed_at"), **same),
            first_start=Window(Min("starts_at"), **same),
            last_end=Window(Max("ends_at"), **same),
            place=Window(RowNumber(), order_by=F("changed_at").desc(), **same),
        )
        .filter(place=1)
    )
    return [
        Trouble(
            pipeline_id=block.pipeline_id,
            face=faces.of_block(block, now),
            stage=block.stage,
            count=block.count,
            since=block.since,
            first_start=block.first_start,
            last_end=block.last_end,
            block_id=block.pk,
            message=block.message,
            next_step=block.next_step,
        )
        for block in rows
    ]


# every pipeline, day by day


@dataclass(frozen=True)
class PipelineLine:
    """A pipeline as one line: its 28 days, and the figures beside them. `rows` has a value a day, None where nothing came."""

    pipeline: Pipeline
    face: Face
    cadence: str
    days: list[Square]
    rows: list[int | None]
    rows_a_day: int | None
    kept: int
    owed: int
    newest: str
    last_finish: datetime | None
    next_due: datetime | None

    @property
    def is_short(self) -> bool:
        return self.kept < self.owed

    @property
    def last_rows(self) -> list[int | None]:
        """The rows of the last 14 days, for the small bars."""
        return self.rows[-14:]

    @property
    def spark_words(self) -> str:
        known = [value for value in self.last_rows if value is not None]
        return f"{min(known):,} to {max(known):,} rows a day" if known else "no rows in 14 days"


@dataclass(frozen=True)
class DayHead:
    """A column of the day grid: a day, and the words for a week where it begins."""

    day: date
    is_monday: bool


def day_heads(now: datetime, days: int = GRID_DAYS) -> list[DayHead]:
    """The last `days` days up to today in the city's zone."""
    today = now.astimezone(clock.zone(settings.TIME_ZONE)).date()
    return [DayHead(day, day.weekday() == 0) for day in (today - timedelta(days=back) for back in range(days - 1, -1, -1))]


def weeks(heads: list[DayHead]) -> list[tuple[date, int]]:
    """The heads of the day grid merged by week: the first day of each, and how many columns it spans."""
    merged: list[tuple[date, int]] = []
    for head in heads:
        if head.is_monday or not merged:
            merged.append((head.day, 1))
        else:
            merged[-1] = (merged[-1][0], merged[-1][1] + 1)
    return merged


def pipeline_lines(pipelines: Iterable[Pipeline], now: datetime, days: int = GRID_DAYS) -> list[PipelineLine]:
    """Every pipeline × the last days, each by its own zone's day. One query besides the pipelines themselves."""
    heads = day_heads(now, days)
    found = _blocks_by_day(heads, now)
    owed: dict[tuple, dict[date, int]] = {}
    lines = []
    for pipeline in pipelines:
        # most pipelines share a rhythm: what one owes is counted once for all of them
        rhythm = (
            pipeline.cadence, pipeline.time_zone, pipeline.starts_on or pipeline.created_at.date(),
            pipeline.settle_minutes, pipeline.due_time, pipeline.is_snapshot,
        )  # fmt: skip
        if rhythm not in owed:
            owed[rhythm] = _owed_by_day(pipeline, heads, now)
        lines.append(_line(pipeline, heads, found.get(pipeline.pk, {}), owed[rhythm], now))
    return lines


@dataclass
class _Day:
    """What came of one pipeline's day, while it is being added up."""

    faces: dict[Face, int]
    rows: int | None = None
    block_id: int | None = None

    @property
    def blocks(self) -> int:
        return sum(self.faces.values())

    @property
    def done(self) -> int:
        return sum(self.faces.get(face, 0) for face in (faces.OK, faces.EMPTY, faces.UNCHANGED))


def _blocks_by_day(heads: list[DayHead], now: datetime) -> dict[int, dict[date, _Day]]:
    local_day = Func(F("pipeline__time_zone"), F("starts_at"), template="(timezone(%(expressions)s))::date", output_field=DateField())
    since = datetime.combine(heads[0].day - timedelta(days=1), time.min, tzinfo=UTC)
    groups = (
        ScheduleBlock.objects.filter(starts_at__gte=since, starts_at__lt=now + timedelta(days=2))
        .annotate(
            day=local_day,
            is_overdue=Case(When(state=State.WAITING, due_at__lt=now - faces.OVERDUE_AFTER, then=True), default=False),
            is_superseded=Q(superseded_at__isnull=False),
            crash_code=Case(When(state=State.FAILED, then=F("error_code")), default=Value("")),
        )
        .values("pipeline_id", "day", "state", "mark", "is_overdue", "is_superseded", "crash_code")
        .annotate(count=Count("pk"), total=Sum("rows"), any_id=Min("pk"))
        .order_by()
    )
    found: dict[int, dict[date, _Day]] = defaultdict(dict)
    for group in groups:
        # where it is tomorrow already, what happens there stands under our today
        day = found[group["pipeline_id"]].setdefault(min(group["day"], heads[-1].day), _Day({}))
        face = faces.of_parts(
            group["state"],
            group["mark"],
            superseded=group["is_superseded"],
            attempts=0,
            due_at=now - 2 * faces.OVERDUE_AFTER if group["is_overdue"] else now,
            error_code=group["crash_code"],
            now=now,
        )
        day.faces[face] = day.faces.get(face, 0) + group["count"]
        if group["total"] is not None and group["state"] == State.DONE:
            day.rows = (day.rows or 0) + group["total"]
        day.block_id = group["any_id"]
    return found


def _owed_by_day(pipeline: Pipeline, heads: list[DayHead], now: datetime) -> dict[date, int]:
    """How many windows that are due by now begin on each day, in the pipeline's zone."""
    zone = clock.zone(pipeline.time_zone)
    since = clock.day_start(heads[0].day, pipeline.time_zone)
    counts: dict[date, int] = defaultdict(int)
    for start, end in planner.owed_windows(pipeline, since, now):
        if start >= since and planner.due_at(pipeline, start, end) <= now:
            counts[start.astimezone(zone).date()] += 1
    return counts


def _line(pipeline: Pipeline, heads: list[DayHead], found: dict[date, _Day], owed: dict[date, int], now: datetime) -> PipelineLine:
    page = reverse("pipeline", args=[pipeline.slug])
    newest_owed = max(owed, default=None)
    squares, rows, seen = [], [], []
    kept = total_owed = 0
    for head in heads:
        day = found.get(head.day, _Day({}))
        due = owed.get(head.day, 0)
        gap = max(0, due - day.blocks)
        if pipeline.is_snapshot and gap and (head.day != newest_owed or pipeline.is_paused):
            # a snapshot's missed reading is covered by any later one
            due, gap, absent = due - gap, 0, faces.COVERED
        else:
            absent = (
                faces.NOT_YET if due == 0 and pipeline.cadence in (Cadence.HOURLY, Cadence.DAILY) and head.day >= heads[-1].day else faces.NOT_OWED
            )
        if gap and pipeline.is_paused:
            face = faces.worst([*day.faces, faces.PAUSED_GAP])
        else:
            face = faces.worst([*day.faces, *([faces.MISSING] if gap else [])]) if day.faces or gap else absent
        seen.append(face)
        rows.append(day.rows)
        expected = max(due, day.blocks)
        total_owed += expected
        kept += day.done
        href = reverse("block", args=[day.block_id]) if day.blocks == 1 and not gap else f"{page}?day={head.day}"
        squares.append(Square(face, _day_title(head.day, day, gap, face), href if day.faces or gap else ""))
    values = [value for value in rows if value is not None]
    return PipelineLine(
        pipeline=pipeline,
        face=_standing(pipeline, seen),
        cadence=cadence_words(pipeline),
        days=squares,
        rows=rows,
        rows_a_day=round(sum(values) / len(values)) if values else None,
        kept=kept,
        owed=total_owed,
        newest=newest_words(pipeline),
        last_finish=pipeline.newest_finish,
        next_due=planner.next_due(pipeline, now),
    )


def _day_title(day: date, found: _Day, gap: int, face: Face) -> str:
    label = f"{day:%a %b} {day.day}"
    parts = [f"{count:,} {faced.word.lower()}" if found.blocks > 1 else faced.word.lower() for faced, count in found.faces.items()]
    if gap:
        parts.append(f"{gap} never ran" if gap > 1 or found.blocks else "never ran")
    if found.rows is not None:
        parts.append(f"{found.rows:,} rows")
    return f"{label}: {', '.join(parts) or face.word.lower()}"


def _standing(pipeline: Pipeline, seen: list[Face]) -> Face:
    """How a pipeline is, in one state: paused, its loudest trouble, running, or what its last days were."""
    if pipeline.is_paused:
        return faces.PAUSED
    loud = faces.worst(face for face in seen if face not in (faces.NOT_OWED, faces.NOT_YET, faces.COVERED))
    if loud == faces.NOT_OWED:
        return faces.OK if pipeline.newest_finish else faces.NOTHING_YET
    return faces.OK if loud in (faces.OK, faces.UNCHANGED, faces.EMPTY, faces.RECOVERED) else loud


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


# one pipeline's blocks as a grid


@dataclass(frozen=True)
class GridColumn:
    label: str
    title: str = ""
    is_again: bool = False


@dataclass(frozen=True)
class GridRow:
    """A line of the grid; a cell is a Square, or None where the calendar has none. `rows` is the sum of what is known."""

    label: str
    cells: list[Square | None]
    rows: int | None
    done: int
    owed: int
    note: str = ""
    note_title: str = ""
    is_week: bool = False

    @property
    def is_short(self) -> bool:
        return self.done < self.owed


@dataclass(frozen=True)
class Grid:
    """Windows of one pipeline, newest first. `earlier` and `later` are the last days of the neighbouring pages, None at the end."""

    row_word: str
    columns: list[GridColumn]
    rows: list[GridRow]
    first: date
    last: date
    earlier: date | None
    later: date | None
    owed: int
    done: int
    missing: int
    failed: int
    undone: int
    trouble_start: datetime | None
    trouble_end: datetime | None


def block_grid(pipeline: Pipeline, now: datetime, until: date | None = None) -> Grid:
    """The blocks of a pipeline by day and hour, by month and day, by month and week, or by year and month. One query."""
    zone = clock.zone(pipeline.time_zone)
    today = now.astimezone(zone).date()
    last = min(until or today, today)
    first = _first_of_page(pipeline.cadence, last)
    since, end = clock.day_start(first, pipeline.time_zone), clock.day_start(last + timedelta(days=1), pipeline.time_zone)
    blocks = {
        block.starts_at: block
        for block in ScheduleBlock.objects.filter(pipeline=pipeline, starts_at__gte=since, starts_at__lt=end).only(
            "pk",
            "starts_at",
            "ends_at",
            "state",
            "mark",
            "superseded_at",
            "attempts",
            "due_at",
            "error_code",
            "rows",
            "stage",
            "message",
            "pipeline_id",
        )
    }
    cadence = "daily" if pipeline.cadence == Cadence.MANUAL else pipeline.cadence
    owed = {window[0] for window in planner.owed_windows(pipeline, since, end)}
    windows = {start: (start, finish) for start, finish in clock.windows(cadence, pipeline.time_zone, since, end) if start >= since}
    for start, block in blocks.items():
        windows.setdefault(start, (start, block.ends_at))
    shade = _shades(block.rows for block in blocks.values() if block.state == State.DONE and block.rows)
    newest_due = max((start for start in owed if planner.due_at(pipeline, *windows[start]) <= now), default=None) if owed <= windows.keys() else None
    squares = {start: _square(pipeline, windows[start], blocks.get(start), start in owed, newest_due, shade, now) for start in sorted(windows)}
    bad = [square for square in squares.values() if square.face in (faces.MISSING, faces.FAILED, faces.CRASHED)]
    lay = {"hourly": _by_hour, "weekly": _by_week, "monthly": _by_month}.get(cadence, _by_day)
    word, columns, rows = lay(squares, blocks, zone, first, last)
    begun = len(rows)
    # from before the first owed window there is nothing to draw
    while len(rows) > 1 and all(cell is None or cell.face == faces.NOT_OWED for cell in rows[-1].cells):
        rows.pop()
    return Grid(
        row_word=word,
        columns=columns,
        rows=rows,
        first=first,
        last=last,
        earlier=first - timedelta(days=1) if len(rows) == begun else None,
        later=min(last + (last - first) + timedelta(days=1), today) if last < today else None,
        owed=sum(row.owed for row in rows),
        done=sum(row.done for row in rows),
        missing=sum(square.face == faces.MISSING for square in squares.values()),
        failed=sum(square.face in (faces.FAILED, faces.CRASHED) for square in squares.values()),
        undone=sum(square.face.look not in ("ok", "unchanged", "suspicious", "due") for square in squares.values()),
        trouble_start=bad[0].starts_at if bad else None,
        trouble_end=bad[-1].ends_at if bad else None,
    )


def _first_of_page(cadence: str, last: date) -> date:
    """The first day of a page that ends on `last`: 28 days of hours, 13 months of days or weeks, 6 years of months."""
    if cadence == Cadence.HOURLY:
        return last - timedelta(days=GRID_DAYS - 1)
    if cadence == Cadence.MONTHLY:
        return date(last.year - 5, 1, 1)
    month = last.year * 12 + last.month - 1 - (MONTHS_BACK - 1)
    return date(month // 12, month % 12 + 1, 1)


def _shades(rows: Iterable[int]):
    """Row count to shade, by the quarters of what this page has; the same count always has the same shade."""
    values = list(rows)
    low, middle, high = quantiles(values, n=4) if len(values) > 1 else (0, 0, 0)
    if low == high:
        return lambda count: ""

    def shade(count: int | None) -> str:
        if count is None or count <= low:
            return "v1"
        return "" if count <= middle else "v3" if count <= high else "v4"

    return shade


def _square(
    pipeline: Pipeline,
    window: tuple[datetime, datetime],
    block: ScheduleBlock | None,
    is_owed: bool,
    newest_due: datetime | None,
    shade,
    now: datetime,
) -> Square:
    label = clock.window_text(*window, pipeline.time_zone)
    span = as_input(window[0], pipeline), as_input(window[1], pipeline, is_end=True)
    if block is not None:
        face = faces.of_block(block, now)
        words = face.word.lower() + (f" at {block.stage}: {block.message[:120]}" if face.look in ("failed", "crashed") else "")
        if block.state == State.DONE and block.rows is not None:
            words += f", {block.rows:,} rows"
        return Square(face, f"{label}: {words}", reverse("block", args=[block.pk]), shade(block.rows) if face == faces.OK else "", *window, *span)
    if not is_owed:
        face = faces.NOT_OWED
    elif planner.due_at(pipeline, *window) > now:
        face = faces.NOT_YET
    elif pipeline.is_snapshot and window[0] != newest_due:
        face = faces.COVERED
    elif pipeline.is_paused:
        face = faces.PAUSED_GAP
    else:
        face = faces.MISSING
    return Square(face, f"{label}: {face.word.lower()}", "", "", *window, *span)


def _row(label: str, cells: list[Square | None], blocks: dict[datetime, ScheduleBlock], **more) -> GridRow:
    """A line with its sums. What isn't due yet, was never owed or is covered by a later reading doesn't count as owed."""
    present = [cell for cell in cells if cell is not None]
    due = [cell for cell in present if cell.face.look != "due"]
    good = [cell for cell in due if cell.face in (faces.OK, faces.EMPTY, faces.UNCHANGED, faces.SUSPICIOUS)]
    known = [blocks[cell.starts_at].rows for cell in good if cell.starts_at in blocks and blocks[cell.starts_at].rows is not None]
    done = [cell for cell in good if cell.face != faces.SUSPICIOUS]
    return GridRow(label=label, cells=cells, rows=sum(known) if known else None, done=len(done), owed=len(due), **more)


def _by_hour(squares, blocks, zone, first, last):
    """Day × hour. An hour that the clock repeats gets a column of its own; one that it skips stays empty on that day."""
    placed: dict[date, dict[tuple[int, int], Square]] = defaultdict(dict)
    for start, square in squares.items():
        local = start.astimezone(zone)
        placed[local.date()][local.hour, local.fold] = square
    again = {key for day in placed.values() for key in day if key[1]}
    keys = sorted({(hour, 0) for hour in range(24)} | again)
    columns = [
        GridColumn(f"{hour:02}{'′' if fold else ''}", f"The second {hour:02}:00 of the day that the clock goes back" if fold else "", bool(fold))
        for hour, fold in keys
    ]
    rows = []
    for back in range((last - first).days + 1):
        day = last - timedelta(days=back)
        hours = placed.get(day, {})
        length = len(hours)
        changed = length not in (0, 24)
        rows.append(
            _row(
                f"{day:%a %b} {day.day}",
                [hours.get(key) for key in keys],
                blocks,
                note=f"{length} h" if changed else "",
                note_title=f"The clock {'went back: an hour came twice' if length > 24 else 'went forward: an hour was skipped'}" if changed else "",
                is_week=day.weekday() == 6 and back > 0,
            )
        )
    return "Day", columns, rows


def _by_day(squares, blocks, zone, first, last):
    """Month × day of the month."""
    columns = [GridColumn(str(day)) for day in range(1, 32)]
    return "Month", columns, _monthly_rows(squares, blocks, zone, 31, lambda day, _: day.day - 1)


def _by_week(squares, blocks, zone, first, last):
    """Month × the weeks that begin in it."""
    columns = [GridColumn(ordinal, f"The week that begins on the {ordinal} Monday of the month") for ordinal in ("1st", "2nd", "3rd", "4th", "5th")]
    return "Weeks from a Monday of", columns, _monthly_rows(squares, blocks, zone, 5, lambda day, _: (day.day - 1) // 7)


def _monthly_rows(squares, blocks, zone, width, place):
    months: dict[tuple[int, int], list[Square | None]] = {}
    for start, square in squares.items():
        day = start.astimezone(zone).date()
        cells = months.setdefault((day.year, day.month), [None] * width)
        cells[place(day, width)] = square
    return [_row(f"{date(*month, 1):%b %Y}", months[month], blocks, is_week=month[1] == 12) for month in sorted(months, reverse=True)]


def _by_month(squares, blocks, zone, first, last):
    """Year × month."""
    years: dict[int, list[Square | None]] = {}
    for start, square in squares.items():
        day = start.astimezone(zone).date()
        years.setdefault(day.year, [None] * 12)[day.month - 1] = square
    columns = [GridColumn(f"{date(2000, month, 1):%b}") for month in range(1, 13)]
    return "Year", columns, [_row(str(year), years[year], blocks) for year in sorted(years, reverse=True)]


# a pipeline's runs and their durations


@dataclass(frozen=True)
class StagePace:
    """How a stage usually goes, by its good runs of 28 days."""

    stage: str
    runs: int
    seconds: float


def paces(pipeline: Pipeline, now: datetime) -> dict[str, StagePace]:
    """Stage to its usual seconds. One query."""
    took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    rows = (
        Run.objects.filter(block__pipeline=pipeline, state=RunState.DONE, started_at__gte=now - timedelta(days=GRID_DAYS))
        .values("stage")
        .annotate(runs=Count("pk"), took=Avg(took))
        .order_by()
    )
    return {row["stage"]: StagePace(row["stage"], row["runs"], row["took"].total_seconds()) for row in rows}


@dataclass(frozen=True)
class Durations:
    """The last runs of a pipeline, oldest first, as a table and as columns for a chart (seconds since 1970, a series a stage)."""

    runs: list[Run]
    paces: list[StagePace]
    chart: dict


def durations(pipeline: Pipeline, now: datetime, limit: int = 300) -> Durations:
    """Two queries: the runs, and the usual pace of each stage."""
    latest = Run.objects.filter(block__pipeline=pipeline, state__in=[RunState.DONE, RunState.UNCHANGED, RunState.FAILED, RunState.CRASHED])
    runs = sorted(latest.select_related("block__pipeline").order_by("-pk")[:limit], key=lambda run: (run.started_at, run.pk))
    usual = paces(pipeline, now)
    # how long a failure took says nothing about the pace
    good = [run for run in runs if run.state == RunState.DONE]
    return Durations(
        runs=runs[::-1],
        paces=[usual[stage] for stage in pipeline.stages if stage in usual],
        chart={
            "zone": pipeline.time_zone,
            "x": [round(run.started_at.timestamp()) for run in good],
            "seconds": {stage: [round(run.seconds, 2) if run.stage == stage else None for run in good] for stage in pipeline.stages},
            "rows": {"rows read": [run.rows_in if run.stage == pipeline.stages[0] else None for run in good]},
        },
    )


@dataclass(frozen=True)
class RunFilter:
    """What a list of runs is narrowed to; every part may be empty. `before` is the run number after which the page goes on."""

    pipeline: str = ""
    stage: str = ""
    state: str = ""
    trigger: str = ""
    day: date | None = None
    before: int | None = None


@dataclass(frozen=True)
class RunPage:
    runs: list[Run]
    next_before: int | None


def run_page(wanted: RunFilter, size: int = RUNS_A_PAGE) -> RunPage:
    """Runs, the newest first, a page at a time, by key: runs that begin meanwhile move nothing. One query."""
    runs = Run.objects.select_related("block__pipeline")
    if wanted.pipeline:
        runs = runs.filter(block__pipeline__slug=wanted.pipeline)
    if wanted.stage:
        runs = runs.filter(stage=wanted.stage)
    if wanted.state == "bad":
        runs = runs.filter(state__in=[RunState.FAILED, RunState.CRASHED], superseded_at=None)
    elif wanted.state:
        runs = runs.filter(state=wanted.state)
    if wanted.trigger:
        runs = runs.filter(trigger=wanted.trigger)
    if wanted.day:
        start, end = asked.span(wanted.day)
        runs = runs.filter(started_at__gte=start, started_at__lt=end)
    if wanted.before:
        runs = runs.filter(pk__lt=wanted.before)
    found = list(runs.order_by("-pk")[: size + 1])
    return RunPage(found[:size], found[size - 1].pk if len(found) > size else None)


#: The choices of the filters above the list of runs, with an empty one that means all.
RUN_STATES = [("bad", "Failed, not made good"), *RunState.choices]
STAGES = Stage.choices
TRIGGERS = Trigger.choices

# blocks in a state, as a list: where the counters of the first page lead

BLOCK_LISTS = {
    "failed": "Failed and not made good",
    "suspicious": "Suspicious",
    "held": "Held",
    "running": "Running",
    "waiting": "Waiting",
}


@dataclass(frozen=True)
class BlockPage:
    blocks: list[ScheduleBlock]
    next_before: int | None


def block_page(state: str, pipeline: str, before: int | None, now: datetime, size: int = RUNS_A_PAGE) -> BlockPage:
    """Blocks of one of BLOCK_LISTS, newest number first, by key. One query. Raises KeyError for another word."""
    narrowed = {
        "failed": Q(state=State.FAILED, superseded_at=None),
        "suspicious": SUSPICIOUS & (Q(state=State.HELD) | Q(state=State.DONE, starts_at__gte=now - SUSPICIOUS_FOR)),
        "held": Q(state=State.HELD) & ~SUSPICIOUS,
        "running": Q(state=State.RUNNING),
        "waiting": Q(state=State.WAITING),
    }[state]
    blocks = ScheduleBlock.objects.filter(narrowed).select_related("pipeline")
    if pipeline:
        blocks = blocks.filter(pipeline__slug=pipeline)
    if before:
        blocks = blocks.filter(pk__lt=before)
    found = list(blocks.order_by("-pk")[: size + 1])
    return BlockPage(found[:size], found[size - 1].pk if len(found) > size else None)


# the preview of a re-run


@dataclass(frozen=True)
class PreviewLine:
    planned: planner.Planned
    face: Face
    seconds: float | None

    @property
    def label(self) -> str:
        return clock.window_text(self.planned.starts_at, self.planned.ends_at, self.planned.pipeline.time_zone)

    @property
    def square(self) -> Square:
        block = self.planned.block
        return Square(self.face, f"{self.label}: {self.face.word.lower()}", block.get_absolute_url() if block else "")


@dataclass(frozen=True)
class Preview:
    """What placing an order would do. `seen` maps each block to its fence, for the press that follows."""

    lines: list[PreviewLine]
    will_run: int
    skipped: int
    known_rows: int
    seconds: float | None
    seen: str

    @property
    def publishes(self) -> bool:
        return any(Stage.PUBLISH in line.planned.will for line in self.lines if not line.planned.skip)

    @property
    def first_label(self) -> str:
        return self.lines[0].label

    @property
    def last_label(self) -> str:
        return self.lines[-1].label


def preview(order: planner.Order, now: datetime) -> Preview:
    """The lines of `planner.preview` with a face and a guess of the time, from the usual pace of the stages."""
    (pipeline,) = order.pipelines
    usual = paces(pipeline, now)
    lines = []
    for planned in planner.preview(order, now):
        pace = [usual[stage].seconds for stage in planned.will if stage in usual]
        window = planned.starts_at, planned.ends_at
        unborn = faces.NOT_YET if planner.due_at(pipeline, *window) > now else faces.MISSING
        face = faces.of_block(planned.block, now) if planned.block else unborn
        lines.append(PreviewLine(planned, face, sum(pace) if pace and not planned.skip else None))
    going = [line for line in lines if not line.planned.skip]
    known = [line.seconds for line in going if line.seconds is not None]
    return Preview(
        lines=lines,
        will_run=len(going),
        skipped=len(lines) - len(going),
        known_rows=sum(line.planned.known_rows or 0 for line in going),
        seconds=sum(known) / pipeline.provider.max_parallel if known else None,
        seen=",".join(f"{line.planned.block.pk}:{line.planned.block.fence}" for line in lines if line.planned.block),
    )
