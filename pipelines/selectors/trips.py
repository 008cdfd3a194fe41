"""The page of trips: by month and provider, by vehicle type, by day, and by hour of the week, as charts and as the tables beneath them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings

from pipelines import clock
from pipelines.errors import PipelineError
from pipelines.upkeep import trip_counts
from pipelines.upkeep.trip_counts import LONG_MILES, OTHER_LONG_MILES, Line, Source, Terms, Vehicles, too_small

#: A page waits so long for each of its questions.
SECONDS = 15
#: Months that are shown where nobody asked for others.
MONTHS = 6
#: More providers than these are one line of a chart: it has five colours.
SERIES = 5
#: The shades of a cell of the week, from one trip to the most of all.
SHADES = 5
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OTHERS = "others"
#: The first trips of the city's public numbers.
ALL_TIME = date(2018, 4, 1)

#: (provider, month or day) or (weekday, hour) to a number of trips; None where it is under k
Counts = dict[tuple[Any, Any], int | None]


@dataclass(frozen=True)
class Asked:
    """What the address asks for. `problem` says what was wrong with it, and what is shown instead."""

    terms: Terms
    table: str = ""
    problem: str = ""
    today: date = date.min

    @classmethod
    def of(cls, given: Mapping[str, str], now: datetime) -> Asked:
        zone = "UTC" if given.get("zone", "").upper() == "UTC" else settings.TIME_ZONE
        today = now.astimezone(clock.zone(zone)).date()
        usual = today.replace(day=1)
        for _ in range(MONTHS - 1):
            usual = trip_counts.month_before(usual)
        problems = []
        first, last = given.get("from", "").strip(), given.get("to", "").strip()
        if month := given.get("month", "").strip():
            first = last = month
        begins, ends = _day(first, problems), _day(last, problems, is_last=True)
        ends = ends or max(today, begins or today)
        begins = begins or (min(usual, ends) if not first else usual)
        if begins > ends:
            problems.append(f"The span from {begins} to {ends} ends before it begins; the days are swapped.")
            begins, ends = ends, begins
        if begins < ALL_TIME.replace(year=2000):
            problems.append("Nothing began before 2000; the span begins there.")
            begins, ends = ALL_TIME.replace(year=2000), max(ends, ALL_TIME.replace(year=2000))
        long_miles = _number(given.get("long", ""), LONG_MILES, 1, 10_000, "A long trip", problems)
        k = _number(given.get("k", ""), 0, 0, 10_000, "The smallest count", problems)
        terms = Terms(begins, ends, zone, given.get("trips", "") != "all", long_miles, k)
        return cls(terms, given.get("table", ""), " ".join(problems), today)

    @property
    def is_month(self) -> bool:
        return self.terms.first.day == 1 and self.terms.last == trip_counts.last_day(self.terms.first)


def _day(text: str, problems: list[str], *, is_last: bool = False) -> date | None:
    """A day, or the first or last one of a month like 2026-10."""
    if not text:
        return None
    try:
        if len(text) == 7:
            month = date.fromisoformat(f"{text}-01")
            found = trip_counts.last_day(month) if is_last else month
        else:
            found = date.fromisoformat(text)
        # the year after it must still be one
        if 1 < found.year < 9_000:
            return found
    except ValueError:
        pass
    problems.append(f"“{text}” is no day. Write it like 2026-10-01, or 2026-10 for the month.")
    return None


def _number(text: str, default: int, least: int, most: int, what: str, problems: list[str]) -> int:
    text = text.strip()
    if not text:
        return default
    if text.isdecimal() and least <= int(text[:9]) <= most:
        return int(text)
    problems.append(f"{what} is a whole number from {least:,} to {most:,}, not “{text[:20]}”; {default} is taken.")
    return default


# what is shown


@dataclass(frozen=True)
class Cell:
    """A number as the page prints it, and what it is called where the table has no head."""

    text: str
    head: str
    look: str = ""


@dataclass(frozen=True)
class Row:
    month: date
    name: str
    title: str
    cells: list[Cell]
    is_total: bool = False


@dataclass(frozen=True)
class WeekCell:
    text: str
    #: 0 for no trips or a hidden number, else 1 to SHADES
    shade: int


@dataclass(frozen=True)
class WeekLine:
    name: str
    cells: list[WeekCell]
    total: str


@dataclass(frozen=True)
class DayRow:
    day: date
    cells: list[str]
    total: str


@dataclass(frozen=True)
class Total:
    """A headline: a number and what it is."""

    text: str
    name: str
    note: str


@dataclass(frozen=True)
class TripsPage:
    """Everything on the page. `words` say why there is nothing, or not all; `is_broken` that it is a fault."""

    asked: Asked
    sources: list[Source]
    source: Source | None = None
    words: str = ""
    next_step: str = ""
    is_broken: bool = False
    totals: list[Total] = field(default_factory=list)
    heads: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    vehicle_rows: list[Row] = field(default_factory=list)
    providers: list[str] = field(default_factory=list)
    days: list[DayRow] = field(default_factory=list)
    week: list[WeekLine] = field(default_factory=list)
    charts: list[Bars] = field(default_factory=list)
    chart: dict[str, Any] = field(default_factory=dict)

    @property
    def city_zone(self) -> str:
        return settings.TIME_ZONE

    @property
    def hours(self) -> range:
        return range(24)

    @property
    def long_choices(self) -> list[int]:
        return sorted({*OTHER_LONG_MILES, LONG_MILES, self.asked.terms.long_miles})

    @property
    def k_choices(self) -> list[int]:
        return sorted({5, trip_counts.MDS_K, 25, self.asked.terms.k} - {0})

    @property
    def has_trips(self) -> bool:
        return bool(self.days)


def page(asked: Asked, now: datetime) -> TripsPage:
    """The whole page: four questions to the warehouse, each at most once between two loads, and some queries of ours."""
    sources = trip_counts.sources()
    if not sources:
        words = "No pipeline brings trips: none reads an MDS provider and loads a table."
        return TripsPage(asked, sources, words=words, next_step="Add an MDS provider and a pipeline that reads it, then come back.")
    try:
        source = trip_counts.chosen(asked.table)
    except PipelineError as error:
        return TripsPage(asked, sources, words=error.message, next_step=error.next_step)
    try:
        lines = trip_counts.months(source, asked.terms, now=now, seconds=SECONDS)
        vehicles = trip_counts.vehicles(source, asked.terms, seconds=SECONDS)
        by_day = trip_counts.by_day(source, asked.terms, seconds=SECONDS)
        by_hour = trip_counts.by_hour(source, asked.terms, seconds=SECONDS)
    except PipelineError as error:
        is_new = error.code == "no-table"
        words = (
            f"No trips were loaded yet: the table {source.name} is not there." if is_new else f"The warehouse could not count them: {error.message}"
        )
        return TripsPage(asked, sources, source, words=words, next_step=error.next_step, is_broken=not is_new)
    names = _by_size(lines)
    counts = veiled_days(by_day, asked.terms.k) if asked.terms.k else dict(by_day)
    return TripsPage(
        asked=asked,
        sources=sources,
        source=source,
        words="" if any(line.rows for line in lines) else "No trip began in this span.",
        totals=_totals(lines, asked.terms),
        heads=_heads(asked.terms),
        rows=list(_rows(lines, asked.terms)),
        vehicle_rows=[_vehicle_row(each, asked.terms) for each in vehicles],
        providers=names,
        days=_days(counts, names, asked) if by_day else [],
        week=_week(by_hour, asked.terms.k) if by_hour else [],
        charts=_charts(lines, names) if by_day else [],
        chart=_chart(counts, names, asked) if by_day else {},
    )


def _by_size(lines: Iterable[Line]) -> list[str]:
    """The providers, who had most trips first."""
    sizes: dict[str, int] = defaultdict(int)
    for line in lines:
        sizes[line.provider] += line.trips or 0
    return sorted(sizes, key=lambda name: (-sizes[name], name.casefold()))


# numbers as words


def number(value: Decimal | int | None, places: int = 0) -> str:
    return "–" if value is None else f"{value:,.{places}f}"


def _count(line: Line | Vehicles, name: str, k: int) -> str:
    return f"< {k}" if name in line.hidden else number(getattr(line, name))


def _heads(terms: Terms) -> list[tuple[str, str]]:
    """(head, what it means) of the columns after the provider."""
    of_all = "of all trips in the table, for the filter hides them" if terms.valid_only else ""
    return [
        ("Trips", "that pass the filter" if terms.valid_only else "all that the table has"),
        ("Miles", "together"),
        ("Miles each", "average length"),
        ("Minutes each", "average duration"),
        ("Devices", "distinct devices"),
        ("Zero distance", of_all),
        (f"{terms.long_miles}+ mi", of_all),
        ("Left out", "trips in the table that the filter leaves out"),
        ("Hours open", "hours of the month that have not come in yet"),
        ("Loaded", "when the last of them was loaded"),
    ]


def _rows(lines: list[Line], terms: Terms) -> Iterator[Row]:
    """The newest month first; a month of several providers ends with its sum."""
    by_month: dict[date, list[Line]] = defaultdict(list)
    for line in lines:
        by_month[line.month].append(line)
    for month, of_it in sorted(by_month.items(), reverse=True):
        for line in of_it:
            received = f"{line.received:%b} {line.received.day}" if line.received else "–"
            yield Row(month, line.provider, line.provider_id, [*_numbers(line, terms), _open(line.hours_open), Cell(received, "loaded")])
        if len(of_it) > 1:
            yield _sum_row(month, of_it, terms)


def _numbers(line: Line, terms: Terms) -> list[Cell]:
    is_zero = line.trips == 0
    return [
        Cell(_count(line, "trips", terms.k), "trips", "dim" if is_zero else ""),
        Cell(number(line.miles, 0 if (line.miles or 0) >= 100 else 1), "miles", "dim" if is_zero else ""),
        Cell(number(line.length, 2), "miles each"),
        Cell(number(line.minutes, 1), "minutes each"),
        Cell(_count(line, "devices", terms.k), "devices"),
        Cell(_count(line, "zero", terms.k), "zero distance"),
        Cell(_count(line, "long", terms.k), f"{terms.long_miles}+ mi"),
        Cell(_count(line, "left_out", terms.k), "left out"),
    ]


def _open(hours: int) -> Cell:
    return Cell(number(hours), "hours open", "warn" if hours else "dim")


def _sum_row(month: date, lines: list[Line], terms: Terms) -> Row:
    """Of the numbers that are shown: a sum of all would tell the hidden one."""
    shown = [line for line in lines if "trips" not in line.hidden]
    miles = sum((line.miles for line in shown), Decimal(0))
    trips = sum(line.trips for line in shown)
    is_whole = len(shown) == len(lines)
    cells = [
        Cell(number(trips), "trips"),
        Cell(number(miles, 0 if miles >= 100 else 1), "miles"),
        Cell(number(miles / trips if trips else None, 2), "miles each"),
        Cell(number(_minutes(shown), 1), "minutes each"),
        *(
            Cell(number(sum(getattr(line, name) or 0 for line in lines if name not in line.hidden)), head)
            for name, head in (("devices", "devices"), ("zero", "zero distance"), ("long", f"{terms.long_miles}+ mi"), ("left_out", "left out"))
        ),
        _open(sum(line.hours_open for line in lines)),
        Cell("", "loaded"),
    ]
    return Row(month, "All" if is_whole else "All that are shown", "", cells, is_total=True)


def _minutes(lines: list[Line]) -> Decimal | None:
    known = [line for line in lines if line.minutes is not None and line.trips]
    return sum((line.minutes * line.trips for line in known), Decimal(0)) / sum(line.trips for line in known) if known else None


def _vehicle_row(one: Vehicles, terms: Terms) -> Row:
    cells = [
        Cell(_count(one, "trips", terms.k), "trips"),
        Cell(number(one.miles, 0 if (one.miles or 0) >= 100 else 1), "miles"),
        Cell(number(one.length, 2), "miles each"),
        Cell(number(one.minutes, 1), "minutes each"),
        Cell(_count(one, "devices", terms.k), "devices"),
    ]
    return Row(terms.first, one.vehicle_type, "", cells)


def _totals(lines: list[Line], terms: Terms) -> list[Total]:
    """The headlines of the whole span, of the numbers that are shown."""
    shown = [line for line in lines if "trips" not in line.hidden]
    trips = sum(line.trips for line in shown)
    miles = sum((line.miles for line in shown), Decimal(0))

    def of(name: str) -> int:
        return sum(getattr(line, name) for line in lines if name not in line.hidden)

    rows = of("rows")
    share = f"{of('left_out') / rows:.1%} of {rows:,}" if rows and terms.valid_only else ("" if terms.valid_only else "the filter is off")
    partly = "of those shown" if len(shown) < len(lines) else ""
    return [
        Total(number(trips), "trips", partly or ("valid" if terms.valid_only else "all")),
        Total(number(miles), "miles", partly or f"{number(miles / trips if trips else None, 2)} a trip"),
        Total(number(_minutes(shown), 1), "minutes a trip", partly or "on average"),
        Total(number(of("left_out")), "left out", share),
        Total(number(sum(line.hours_open for line in lines)), "hours open", "not in yet"),
    ]


# days and hours


def veiled_days(counts: Mapping[tuple[date, str], int], k: int) -> Counts:
    """Each day's count under `k` as None, and of a provider's month never one alone: the month's sum stands on the page."""
    found: Counts = dict(counts)
    months: dict[tuple[date, str], list[tuple[date, str]]] = defaultdict(list)
    for day, name in counts:
        months[day.replace(day=1), name].append((day, name))
    for keys in months.values():
        for place in too_small([counts[key] for key in keys], k):
            found[keys[place]] = None
    return found


def _span(asked: Asked) -> list[date]:
    """The days of the span that have begun."""
    last = min(asked.terms.last, asked.today)
    return [asked.terms.first + timedelta(days=place) for place in range((last - asked.terms.first).days + 1)]


def _days(counts: Counts, names: list[str], asked: Asked) -> list[DayRow]:
    """A row a day, the newest first, a number a provider; a day without a trip is 0, or under k as others are."""
    k, rows = asked.terms.k, []
    for day in reversed(_span(asked)):
        found = [_of_day(counts, day, name, k) for name in names]
        rows.append(DayRow(day, [f"< {k}" if each is None else number(each) for each in found], number(sum(found)) if None not in found else "–"))
    return rows


def _of_day(counts: Counts, day: date, name: str, k: int) -> int | None:
    return counts.get((day, name), None if k else 0)


def _week(counts: Mapping[tuple[int, int], int], k: int) -> list[WeekLine]:
    """A line a weekday, from Monday; with `k` no sums, for they would tell the hidden ones."""
    keys = [(weekday, hour) for weekday in range(7) for hour in range(24)]
    hidden = {keys[place] for place in too_small([counts.get(key, 0) for key in keys], k)} if k else set()
    top = max(counts.values(), default=0)
    lines = []
    for weekday, name in enumerate(WEEKDAYS):
        of_it = [(weekday, hour) for hour in range(24)]
        cells = [WeekCell(f"< {k}", 0) if key in hidden else WeekCell(number(counts.get(key, 0)), _shade(counts.get(key, 0), top)) for key in of_it]
        lines.append(WeekLine(name, cells, "–" if hidden & set(of_it) else number(sum(counts.get(key, 0) for key in of_it))))
    return lines


def _shade(trips: int, top: int) -> int:
    return math.ceil(SHADES * trips / top) if trips else 0


# the charts


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    look: str
    title: str


@dataclass(frozen=True)
class Bars:
    """A group of bars a month, a bar a provider; `ticks` and `labels` are (position, text), `names` (colour, provider)."""

    title: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    names: list[tuple[str, str]]


#: The room of a chart of bars: for the scale at the left, for the months below, and for the bars.
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 640, 230, 56, 22, 8
COLOURS = "abcde"


def bars(title: str, months: list[date], series: Mapping[str, list[float | None]], places: int = 0) -> Bars:
    """The bars of some months; a number that is hidden has none. Pure."""
    top = _round_up(max((value or 0 for values in series.values() for value in values), default=0))
    room, slot = HEIGHT - BELOW - ABOVE, (WIDTH - LEFT) / max(len(months), 1)
    width = min(slot * 0.8 / max(len(series), 1), 48)
    found = []
    for number_of, (name, values) in enumerate(series.items()):
        for place, (month, value) in enumerate(zip(months, values, strict=True)):
            if value:
                height = max(room * value / top, 1)
                x = LEFT + slot * (place + 0.5) + width * (number_of - len(series) / 2)
                look = f"plot__{COLOURS[number_of % len(COLOURS)]}"
                found.append(
                    Bar(
                        _place(x),
                        _place(ABOVE + room - height),
                        _place(width * 0.9),
                        _place(height),
                        look,
                        f"{month:%b %Y}, {name}: {value:,.{places}f}",
                    )
                )
    ticks = [(_place(ABOVE + room * (4 - part) / 4), f"{top * part / 4:,.0f}" if top >= 4 else f"{top * part / 4:g}") for part in range(5)]
    every = math.ceil(len(months) / 9) or 1
    labels = [
        (_place(LEFT + slot * (place + 0.5)), f"{month:%b}" + (f" {month:%Y}" if place == 0 or month.month == 1 else ""))
        for place, month in enumerate(months)
        if place % every == 0
    ]
    return Bars(title, found, ticks, labels, [(f"plot__{COLOURS[place % len(COLOURS)]}", name) for place, name in enumerate(series)])


def _place(value: float) -> float:
    return round(value, 1)


def _round_up(value: float) -> float:
    """The next number that a scale of four steps can have."""
    if value <= 0:
        return 4
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8, 10) if step * unit >= value)


def _charts(lines: list[Line], names: list[str]) -> list[Bars]:
    """Trips and miles a month."""
    months = sorted({line.month for line in lines})
    of_month = {(line.month, line.provider): line for line in lines}
    trips = _series(months, names, lambda month, name: _shown(of_month.get((month, name)), "trips"))
    miles = _series(months, names, lambda month, name: _shown(of_month.get((month, name)), "miles"))
    return [bars("Trips a month", months, trips), bars("Miles a month", months, miles)]


def _chart(counts: Counts, names: list[str], asked: Asked) -> dict[str, Any]:
    """The chart of days: seconds since 1970, and a list a provider; None leaves a gap."""
    zone, days = asked.terms.zone, _span(asked)
    trips = _series(days, names, lambda day, name: _of_day(counts, day, name, asked.terms.k))
    return {"x": [_seconds(day, zone) for day in days], "zone": zone, "trips": trips}


def _seconds(day: date, zone: str) -> int:
    return int(clock.day_start(day, zone).timestamp())


def _shown(line: Line | None, name: str) -> float | None:
    value = getattr(line, name) if line else 0
    return None if value is None else round(float(value), 1) if name == "miles" else value


def _series(places: list[date], names: list[str], value: Any) -> dict[str, list[float | None]]:
    """Provider to its numbers; beyond the largest ones they are added up, and one that is hidden hides its sum."""
    single = names if len(names) <= SERIES else names[: SERIES - 1]
    found = {name: [value(place, name) for place in places] for name in single}
    if rest := names[len(single) :]:
        parts = [[value(place, name) for name in rest] for place in places]
        found[f"{len(rest)} {OTHERS}"] = [None if None in part else sum(part) for part in parts]
    return found


# as files


def months_csv(source: Source, terms: Terms, *, by_vehicle: bool, now: datetime) -> tuple[tuple[str, ...], list[list[Any]]]:
    """(columns, rows). Raises PipelineError."""
    lines = trip_counts.months(source, terms, by_vehicle=by_vehicle, now=now, seconds=SECONDS)
    return trip_counts.COLUMNS, [list(line.cells(terms).values()) for line in lines]


def days_csv(asked: Asked, source: Source) -> tuple[tuple[str, ...], list[list[Any]]]:
    """(columns, rows): a line a day and provider, days without a trip too. Raises PipelineError."""
    by_day = trip_counts.by_day(source, asked.terms, seconds=SECONDS)
    counts = veiled_days(by_day, asked.terms.k) if asked.terms.k else dict(by_day)
    names = sorted({name for _, name in counts}, key=str.casefold)
    told = ((day, name, _of_day(counts, day, name, asked.terms.k)) for day in _span(asked) for name in names)
    return ("day", "provider", "total_trips"), [[day, name, trip_counts.HIDDEN if trips is None else trips] for day, name, trips in told]


def week_csv(source: Source, terms: Terms) -> tuple[tuple[str, ...], list[list[Any]]]:
    """(columns, rows): a line an hour of the week, Monday = 0 as in what is published. Raises PipelineError."""
    counts = trip_counts.by_hour(source, terms, seconds=SECONDS)
    keys = [(weekday, hour) for weekday in range(7) for hour in range(24)]
    hidden = {keys[place] for place in too_small([counts.get(key, 0) for key in keys], terms.k)} if terms.k else set()
    rows = [[*key, trip_counts.HIDDEN if key in hidden else counts.get(key, 0)] for key in keys]
    return ("day_of_week", "hour", "total_trips"), rows
