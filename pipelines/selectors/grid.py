"""One pipeline's blocks as a grid: by day and hour, by month and day, by month and week, or by year and month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import quantiles

from django.urls import reverse

from pipelines import clock, planner
from pipelines.models import Cadence, Pipeline, ScheduleBlock, State
from pipelines.selectors import faces
from pipelines.selectors.faces import Square
from pipelines.selectors.schedule import GRID_DAYS

MONTHS_BACK = 13


def as_input(moment: datetime, pipeline: Pipeline, *, is_end: bool = False) -> str:
    """An instant as the order form writes it: local date and time where a pipeline runs by the hour, else a day; an end is its last day."""
    local = moment.astimezone(clock.zone(pipeline.time_zone))
    if pipeline.cadence == Cadence.HOURLY:
        return f"{local:%Y-%m-%dT%H:%M}"
    return f"{(local - timedelta(microseconds=1)).date() if is_end else local.date()}"


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
    rejected: int = 0
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
    rejected: int
    undone: int
    trouble_start: datetime | None
    trouble_end: datetime | None


def block_grid(pipeline: Pipeline, now: datetime, until: date | None = None) -> Grid:
    """The blocks of a pipeline by day and hour, by month and day, by month and week, or by year and month. One query."""
    zone = clock.zone(pipeline.time_zone)
    today = now.astimezone(zone).date()
    last = min(until or today, today)
    layout = _layout(pipeline, now)
    first = _first_of_page(layout, last)
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
            "rejected",
            "stage",
            "message",
            "pipeline_id",
        )
    }
    for block in blocks.values():
        block.pipeline = pipeline  # its number for export asks for it
    cadence = "daily" if pipeline.cadence in (Cadence.MANUAL, Cadence.ONCE) else pipeline.rhythm
    owed = {window[0] for window in planner.owed_windows(pipeline, since, end)}
    windows = {start: (start, finish) for start, finish in clock.windows(cadence, pipeline.time_zone, since, end) if start >= since}
    for start, block in blocks.items():
        windows.setdefault(start, (start, block.ends_at))
    shade = _shades(block.rows for block in blocks.values() if block.state == State.DONE and block.rows)
    newest_due = max((start for start in owed if planner.due_at(pipeline, *windows[start]) <= now), default=None) if owed <= windows.keys() else None
    squares = {start: _square(pipeline, windows[start], blocks.get(start), start in owed, newest_due, shade, now) for start in sorted(windows)}
    bad = [square for square in squares.values() if square.face in (faces.MISSING, faces.FAILED, faces.CRASHED)]
    lay = {"hourly": _by_hour, "weekly": _by_week, "monthly": _by_month}.get(layout, _by_day)
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
        rejected=sum(row.rejected for row in rows),
        undone=sum(square.face.look not in ("ok", "unchanged", "suspicious", "due") for square in squares.values()),
        trouble_start=bad[0].starts_at if bad else None,
        trouble_end=bad[-1].ends_at if bad else None,
    )


def _layout(pipeline: Pipeline, now: datetime) -> str:
    """By which cadence's table its windows are drawn: a cron expression that names several times of a day is drawn by the hour."""
    if pipeline.cadence != Cadence.CRON:
        return pipeline.cadence
    week = clock.windows(pipeline.cron, pipeline.time_zone, now - 7 * clock.DAY, now)
    return Cadence.HOURLY if any(end - start < 23 * clock.HOUR for start, end in week) else Cadence.DAILY


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
        if block.rejected:
            words += f", {block.rejected:,} rejected"
        return Square(
            face, f"{label}: {words}", reverse("block", args=[block.pk]), shade(block.rows) if face == faces.OK else "", *window, *span, block
        )
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
    good = [cell for cell in due if cell.face in (*faces.GOOD, faces.SUSPICIOUS)]
    known = [blocks[cell.starts_at].rows for cell in good if cell.starts_at in blocks and blocks[cell.starts_at].rows is not None]
    done = [cell for cell in good if cell.face != faces.SUSPICIOUS]
    rejected = sum(blocks[cell.starts_at].rejected for cell in present if cell.starts_at in blocks)
    return GridRow(label, cells, rows=sum(known) if known else None, done=len(done), owed=len(due), rejected=rejected, **more)


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
