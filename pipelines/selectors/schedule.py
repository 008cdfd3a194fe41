"""Every pipeline as one line: its cadence in words, what is newest of it, and its last days, kept against owed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.conf import settings
from django.db.models import Case, Count, DateField, F, Func, Min, OuterRef, Q, Subquery, Sum, Value, When
from django.urls import reverse

from pipelines import clock, planner
from pipelines.models import Cadence, Pipeline, ScheduleBlock, State
from pipelines.selectors import faces
from pipelines.selectors.faces import Face, Square

GRID_DAYS = 28


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
    if pipeline.cadence == Cadence.ONCE:
        return "Once"
    if pipeline.cadence == Cadence.CRON:
        return f"{clock.cron_words(pipeline.cron)}{f', {settle} min later' if settle else ''}{where}"
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
    owed: dict[tuple, _Owed] = {}
    lines = []
    for pipeline in pipelines:
        # most pipelines share a rhythm: what one owes is counted once for all of them
        rhythm = (
            pipeline.rhythm, pipeline.time_zone, pipeline.starts_on or pipeline.created_at.date(),
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
        return sum(self.faces.get(face, 0) for face in faces.GOOD)


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


@dataclass(frozen=True)
class _Owed:
    """How many windows that are due by now begin on each day, and when the last of them ends (None: none is due)."""

    days: dict[date, int]
    last_end: datetime | None


def _owed_by_day(pipeline: Pipeline, heads: list[DayHead], now: datetime) -> _Owed:
    """What is due by now, by the day in the pipeline's zone."""
    zone = clock.zone(pipeline.time_zone)
    since = clock.day_start(heads[0].day, pipeline.time_zone)
    counts: dict[date, int] = defaultdict(int)
    last_end = None
    for start, end in planner.owed_windows(pipeline, since, now):
        if start >= since and planner.due_at(pipeline, start, end) <= now:
            counts[start.astimezone(zone).date()] += 1
            last_end = end
    return _Owed(counts, last_end)


def _line(pipeline: Pipeline, heads: list[DayHead], found: dict[date, _Day], owed: _Owed, now: datetime) -> PipelineLine:
    page = reverse("pipeline", args=[pipeline.slug])
    # asked once a line: Django takes longer to find an address than all the rest of a cell does
    before_number, _, after_number = reverse("block", args=[0]).rpartition("0")
    newest_owed = max(owed.days, default=None)
    has_newest = bool(owed.last_end and pipeline.newest_end and pipeline.newest_end >= owed.last_end)
    squares, rows, seen = [], [], []
    kept = total_owed = 0
    for head in heads:
        day = found.get(head.day, _Day({}))
        due = owed.days.get(head.day, 0)
        gap = max(0, due - day.blocks)
        if pipeline.is_snapshot and gap and (head.day != newest_owed or pipeline.is_paused or has_newest or day.done < day.blocks):
            # a snapshot's missed reading is covered by any later one; one that is still open, or failed, shows its own face
            due, gap, absent = due - gap, 0, faces.COVERED
        elif pipeline.is_snapshot and gap:
            # of all its readings of the day only the last is wanted now
            due, gap, absent = due - gap + 1, 1, faces.NOT_OWED
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
        href = f"{before_number}{day.block_id}{after_number}" if day.blocks == 1 and not gap else f"{page}?day={head.day}"
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
    return faces.OK if loud in (*faces.GOOD, faces.RECOVERED) else loud
