"""Trips counted as the city reports them: how many, how far, how long, by provider and month, with the filter that the public numbers have.

The numbers are those of the old monthly report, and what it left unsaid: the devices, the trips that the filter leaves out, and the
hours of a month that have not come yet. Page, command and upkeep job ask here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db.models import F, Max, Min, Sum
from django.db.models.functions import TruncMonth

from pipelines import clock, warehouse
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Provider, RegisteredOperator, Run, RunState, ScheduleBlock, Stage, State
from pipelines.warehouse.measures import By, Measure, Question, Where, offsets

METRES_A_MILE = Decimal("1609.344")
#: The filter of the city's public numbers, in metres and seconds: 0.1 to under 500 miles, and less than a day.
SHORTEST_M, FARTHEST_M, LONGEST_S = Decimal("160.934"), 804_672, 86_400
#: A trip of so many miles or more counts as a long one, as the flag of its block does; the city asked for the other three beside it.
LONG_MILES, OTHER_LONG_MILES = 60, (15, 30, 45)
#: What MDS asks for where counts are given away.
MDS_K = 10
#: A count that is too small to be told, in a file.
HIDDEN = -1
KEPT_SECONDS = 3600

#: As the old report's view named them, then ours.
COLUMNS = (
    "provider", "year", "month", "total_trips", "total_trip_miles", "trip_length_avg", "trip_duration_avg", "trips_zero_distance",
    "trips_long_distance", "date_received", "provider_id", "vehicle_type", "devices", "trips_15_mi_or_more", "trips_30_mi_or_more",
    "trips_45_mi_or_more", "trips_in_table", "trips_left_out", "hours_open", "long_distance_miles", "valid_only", "time_zone",
)  # fmt: skip
#: The counts of a line, and what can only be told together with the first of them.
_COUNTS = ("trips", "zero", "long", "from_15", "from_30", "from_45", "devices", "rows", "left_out")
_OF_TRIPS = ("miles", "length", "minutes")


# what is asked


@dataclass(frozen=True)
class Terms:
    """Trips that began on the days `first` to `last` of the clock in `zone`; `valid_only` applies the public filter.

    Counts under `k` are not told. Trips of `long_miles` or more count as long ones.
    """

    first: date
    last: date
    zone: str
    valid_only: bool = True
    long_miles: int = LONG_MILES
    k: int = 0

    @property
    def since(self) -> datetime:
        return clock.day_start(self.first, self.zone)

    @property
    def until(self) -> datetime:
        return clock.day_start(self.last + clock.DAY, self.zone)

    def months(self) -> list[date]:
        """The first day of each month that the days touch."""
        found = [self.first.replace(day=1)]
        while (after_it := next_month(found[-1])) <= self.last:
            found.append(after_it)
        return found


def next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def month_before(day: date) -> date:
    """The first day of the month before the day's own."""
    return (day.replace(day=1) - clock.DAY).replace(day=1)


def last_day(month: date) -> date:
    return next_month(month) - clock.DAY


def of_month(month: date, zone: str, **more: Any) -> Terms:
    """A whole month."""
    return Terms(month.replace(day=1), last_day(month), zone, **more)


@dataclass(frozen=True)
class Source:
    """A table of trips and the pipelines that load it."""

    warehouse: str
    table: str
    pipelines: tuple[Pipeline, ...]

    @property
    def name(self) -> str:
        return self.table if self.warehouse == "default" else f"{self.warehouse}.{self.table}"

    @property
    def dsn(self) -> str:
        """Where the table lies. Raises SetupError."""
        if self.warehouse not in settings.WAREHOUSES:
            raise SetupError(f"There is no warehouse {self.warehouse!r}.", code="no-warehouse", next_step="Name it in WAREHOUSES, or choose another.")
        return settings.WAREHOUSES[self.warehouse]


def sources() -> list[Source]:
    """The tables that MDS pipelines load; one query."""
    found: dict[tuple[str, str], list[Pipeline]] = defaultdict(list)
    for pipeline in Pipeline.objects.filter(provider__kind="mds").select_related("provider").order_by("pk"):
        if Stage.LOAD in pipeline.stages:
            found[pipeline.warehouse, pipeline.table].append(pipeline)
    return [Source(*where, tuple(feeding)) for where, feeding in found.items()]


def chosen(table: str = "") -> Source:
    """The table of trips of that name, or the first. Raises SetupError where there is none."""
    found = sources()
    if not found:
        raise SetupError(
            "No pipeline brings trips: none reads an MDS provider and loads a table.",
            code="no-trips",
            next_step="Add an MDS provider and its pipeline, or read upstream's configuration with: python3 manage.py import_config FILE",
        )
    if not table:
        return found[0]
    for source in found:
        if table in (source.table, source.name):
            return source
    names = ", ".join(source.name for source in found)
    raise SetupError(f"No MDS pipeline loads a table {table!r}.", code="no-trips", next_step=f"Name one of: {names}.")


# what is answered


@dataclass(frozen=True)
class Line:
    """A provider's month, or a part of it by vehicle type. A number that is None is not known, or, if named in `hidden`, under k.

    `trips`, `miles`, `length` (miles), `minutes` and `devices` are of the trips that pass the filter; `zero`, `long` and the others
    of all `rows` that began then, for a filter would hide them. `received` is the day on which the last of them was loaded.
    """

    month: date
    provider: str
    provider_id: str = ""
    vehicle_type: str = ""
    trips: int | None = 0
    miles: Decimal | None = Decimal(0)
    length: Decimal | None = None
    minutes: Decimal | None = None
    zero: int | None = 0
    long: int | None = 0
    from_15: int | None = 0
    from_30: int | None = 0
    from_45: int | None = 0
    devices: int | None = 0
    rows: int | None = 0
    left_out: int | None = 0
    received: date | None = None
    hours_open: int = 0
    account: int | None = None
    hidden: frozenset[str] = frozenset()

    def cells(self, terms: Terms) -> dict[str, Any]:
        """The line as a file has it: column to value, a count under k as -1."""
        said = {name: HIDDEN if name in self.hidden and name in _COUNTS else getattr(self, name) for name in (*_COUNTS, *_OF_TRIPS)}
        return dict(
            zip(
                COLUMNS,
                (
                    self.provider, self.month.year, self.month.month, said["trips"], _rounded(said["miles"]), _rounded(said["length"]),
                    _rounded(said["minutes"]), said["zero"], said["long"], self.received, self.provider_id, self.vehicle_type, said["devices"],
                    said["from_15"], said["from_30"], said["from_45"], said["rows"], said["left_out"], self.hours_open, terms.long_miles,
                    terms.valid_only, terms.zone,
                ),
                strict=True,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Vehicles:
    """The trips of a vehicle type in the whole span, over all providers."""

    vehicle_type: str
    trips: int | None
    miles: Decimal | None
    length: Decimal | None
    minutes: Decimal | None
    devices: int | None
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Names:
    """Who a line is about: the city's own name for the account whose pipeline loaded it, else what the trips or the registry say."""

    #: by the number of the pipeline that loaded a row
    providers: Mapping[int, Provider]
    registry: Mapping[str, str] = field(default_factory=dict)
    #: accounts that bring the trips of several operators
    shared: frozenset[int] = frozenset()

    def account(self, row: Mapping[str, Any]) -> int | None:
        provider = self.providers.get(row["pipeline"])
        return provider.pk if provider else None

    def of(self, row: Mapping[str, Any]) -> str:
        provider = self.providers.get(row["pipeline"])
        own = row["provider_name"] or self.registry.get(row["provider_id"], "") or row["provider_id"] or "unknown"
        if provider is None:
            return own
        return f"{provider.title}: {own}" if provider.pk in self.shared else provider.title


def valid() -> tuple[Where, ...]:
    """The public filter; a trip that no rider made, which 2.x tells, is left out too."""
    return (
        Where("distance_m", at_least=SHORTEST_M, below=FARTHEST_M),
        Where("duration_s", below=LONGEST_S),
        Where("trip_type", among=("rider",), or_empty=True),
    )


def months(source: Source, terms: Terms, *, by_vehicle: bool = False, now: datetime, seconds: int = 20) -> list[Line]:
    """A line for each month and provider in their order, and for each provider that was active then and had no trips, a line of zeros.

    One pass over the table, three queries of ours. Raises PipelineError.
    """
    counted = valid() if terms.valid_only else ()
    reach = {f"from_{miles}": miles for miles in OTHER_LONG_MILES} | {"long": terms.long_miles}
    by = [By("month", "start_time", "month"), By("provider_id", "provider_id")]
    rows = _ask(
        source,
        terms,
        by=(*by, By("vehicle_type", "vehicle_type")) if by_vehicle else tuple(by),
        measures=(
            *_of_trips(counted),
            Measure("rows"),
            Measure("zero", where=(Where("distance_m", equals=0),)),
            *(Measure(name, where=(Where("distance_m", at_least=miles * METRES_A_MILE),)) for name, miles in reach.items()),
            Measure("provider_name", "max", "provider_name"),
            Measure("pipeline", "max", "_odo_pipeline"),
            Measure("received", "max", "_odo_loaded_at"),
        ),
        seconds=seconds,
    )
    names = _names(source, rows)
    lines = [_line(row, names, terms) for row in rows]
    owings = _owings(source, now)
    lines += _zeros(owings, terms, lines)
    open_hours = _open_hours(owings, terms)
    lines = [replace(line, hours_open=open_hours.get((line.month, line.account), 0)) for line in lines]
    lines.sort(key=lambda line: (line.month, line.provider.casefold(), line.provider_id, line.vehicle_type))
    return veiled(lines, terms.k) if terms.k else lines


def vehicles(source: Source, terms: Terms, *, seconds: int = 20) -> list[Vehicles]:
    """The whole span by vehicle type, most trips first. One pass over the table. Raises PipelineError."""
    counted = valid() if terms.valid_only else ()
    rows = _ask(source, terms, by=(By("vehicle_type", "vehicle_type"),), measures=_of_trips(counted), seconds=seconds)
    found = [Vehicles(row["vehicle_type"] or "unknown", devices=row["devices"], **_averages(row)) for row in rows if row["trips"]]
    found.sort(key=lambda each: (-each.trips, each.vehicle_type))
    if not terms.k:
        return found
    small = too_small([each.trips for each in found], terms.k)
    return [_veil(each, terms.k, is_hidden=place in small) for place, each in enumerate(found)]


def by_day(source: Source, terms: Terms, *, seconds: int = 20) -> dict[tuple[date, str], int]:
    """(day, provider) to how many trips began; pairs without a trip are not in it. One pass over the table. Raises PipelineError."""
    rows = _ask(
        source,
        terms,
        by=(By("day", "start_time", "day"), By("provider_id", "provider_id")),
        measures=(Measure("trips"), Measure("provider_name", "max", "provider_name"), Measure("pipeline", "max", "_odo_pipeline")),
        where=valid() if terms.valid_only else (),
        seconds=seconds,
    )
    names = _names(source, rows)
    found: dict[tuple[date, str], int] = defaultdict(int)
    for row in rows:
        found[row["day"], names.of(row)] += row["trips"]
    return dict(found)


def by_hour(source: Source, terms: Terms, *, seconds: int = 20) -> dict[tuple[int, int], int]:
    """(weekday, hour of the local clock) to how many trips began, Monday = 0; an hour that the clock repeats counts as one. Raises PipelineError."""
    by = (By("weekday", "start_time", "weekday"), By("hour", "start_time", "hour"))
    rows = _ask(source, terms, by=by, measures=(Measure("trips"),), where=valid() if terms.valid_only else (), seconds=seconds)
    return {(row["weekday"], row["hour"]): row["trips"] for row in rows}


def _of_trips(counted: tuple[Where, ...]) -> tuple[Measure, ...]:
    return (
        Measure("trips", where=counted),
        Measure("metres", "sum", "distance_m", counted),
        Measure("measured", "count", "distance_m", counted),
        Measure("time", "sum", "duration_s", counted),
        Measure("timed", "count", "duration_s", counted),
        Measure("devices", "distinct", "device_id", counted),
    )


def _ask(
    source: Source, terms: Terms, *, by: tuple[By, ...], measures: tuple[Measure, ...], where: tuple[Where, ...] = (), seconds: int
) -> list[dict[str, Any]]:
    """What the warehouse says; the same question before the next load of the table is answered from memory."""
    span = Where("start_time", at_least=terms.since, below=terms.until)
    question = Question(by, measures, (span, *where), offsets(clock.zone(terms.zone), terms.since, terms.until), seconds)
    loads = Run.objects.filter(block__pipeline__in=[pipeline.pk for pipeline in source.pipelines], stage=Stage.LOAD, state=RunState.DONE)
    last = loads.order_by("-pk").values_list("pk", flat=True).first()
    key = f"trips/{source.warehouse}/{source.table}/{last}/{hashlib.sha256(repr(question).encode()).hexdigest()}"
    found = cache.get(key)
    if found is None:
        dsn = source.dsn
        found = warehouse.engine(dsn).measures(dsn, source.table, question)
        if last:
            cache.set(key, found, KEPT_SECONDS)
    return found


def _averages(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trips": row["trips"],
        "miles": Decimal(row["metres"] or 0) / METRES_A_MILE,
        "length": Decimal(row["metres"]) / METRES_A_MILE / row["measured"] if row["measured"] else None,
        "minutes": Decimal(row["time"]) / 60 / row["timed"] if row["timed"] else None,
    }


def _line(row: Mapping[str, Any], names: Names, terms: Terms) -> Line:
    return Line(
        month=row["month"],
        provider=names.of(row),
        provider_id=row["provider_id"] or "",
        account=names.account(row),
        vehicle_type=row.get("vehicle_type") or "",
        **_averages(row),
        **{name: row[name] for name in ("zero", "long", "from_15", "from_30", "from_45", "devices", "rows")},
        left_out=row["rows"] - row["trips"],
        received=row["received"].astimezone(clock.zone(terms.zone)).date(),
    )


def _names(source: Source, rows: Sequence[Mapping[str, Any]]) -> Names:
    providers = {pipeline.pk: pipeline.provider for pipeline in source.pipelines}
    nameless = {row["provider_id"] for row in rows if not row["provider_name"] and row["provider_id"]}
    registry = dict(RegisteredOperator.objects.filter(operator_id__in=nameless).values_list("operator_id", "name")) if nameless else {}
    ids: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        if provider := providers.get(row["pipeline"]):
            ids[provider.pk].add(row["provider_id"])
    return Names(providers, registry, frozenset(account for account, found in ids.items() if len(found) > 1))


@dataclass(frozen=True)
class Owing:
    """What a pipeline owes: from its first hour until now, or, where its provider is switched off, to the end of its last block."""

    pipeline: Pipeline
    begins: datetime
    ends: datetime

    def hours(self, month: date, terms: Terms) -> int:
        """How many whole hours of it lie in a month of the span."""
        begins = max(self.begins, clock.day_start(month, terms.zone), terms.since)
        ends = min(self.ends, clock.day_start(next_month(month), terms.zone), terms.until)
        return max(0, (ends - begins) // clock.HOUR)


def _owings(source: Source, now: datetime) -> list[Owing]:
    blocks = ScheduleBlock.objects.filter(pipeline__in=[pipeline.pk for pipeline in source.pipelines]).order_by()
    spans = {row["pipeline"]: row for row in blocks.values("pipeline").annotate(first=Min("starts_at"), last=Max("ends_at"))}
    found = []
    for pipeline in source.pipelines:
        span, zone = spans.get(pipeline.pk), pipeline.time_zone
        begins = clock.day_start(pipeline.starts_on or pipeline.created_at.astimezone(clock.zone(zone)).date(), zone)
        last = span["last"] if span else begins
        found.append(Owing(pipeline, min(begins, span["first"]) if span else begins, now if pipeline.provider.is_active else last))
    return found


def _zeros(owings: Sequence[Owing], terms: Terms, lines: Sequence[Line]) -> list[Line]:
    """A line for each month in which a provider of ours was active and had no trips."""
    had = {(line.month, line.account) for line in lines}
    ids = {line.account: line.provider_id for line in lines}
    owed = {(month, owing.pipeline.provider_id): owing.pipeline.provider for owing in owings for month in terms.months() if owing.hours(month, terms)}
    return [
        Line(month, provider.title, ids.get(account) or str(provider.parameters.get("provider_id", "")), account=account)
        for (month, account), provider in owed.items()
        if (month, account) not in had
    ]


def _open_hours(owings: Sequence[Owing], terms: Terms) -> dict[tuple[date, int], int]:
    """(month, account) to the hours of it that are owed and not done, planned or not: the numbers may still grow."""
    rows = (
        ScheduleBlock.objects.filter(pipeline__in=[owing.pipeline.pk for owing in owings], state=State.DONE)
        .filter(starts_at__gte=terms.since, starts_at__lt=terms.until)
        .order_by()
        .annotate(of=TruncMonth("starts_at", tzinfo=clock.zone(terms.zone)))
        .values("of", "pipeline")
        .annotate(time=Sum(F("ends_at") - F("starts_at")))
    )
    done = {(row["of"].date(), row["pipeline"]): row["time"] // clock.HOUR for row in rows}
    found: dict[tuple[date, int], int] = defaultdict(int)
    for owing in owings:
        for month in terms.months():
            found[month, owing.pipeline.provider_id] += max(0, owing.hours(month, terms) - done.get((month, owing.pipeline.pk), 0))
    return found


# what is not told


def veiled(lines: Iterable[Line], k: int) -> list[Line]:
    """The lines without the counts under `k`, and without what would let a reader reckon one: of the parts of a whole never one alone."""
    lines = list(lines)
    groups: dict[tuple, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        groups[line.month, line.provider, line.provider_id].append(place)
    hidden = set()
    for places in groups.values():
        hidden |= {places[at] for at in too_small([lines[place].trips for place in places], k)}
    return [_veil(line, k, is_hidden=place in hidden) for place, line in enumerate(lines)]


def too_small(counts: Sequence[int], k: int) -> set[int]:
    """The places of the counts that are under `k`; where it is one alone, its smallest neighbour's too, or the sum would tell it."""
    found = {place for place, count in enumerate(counts) if count < k}
    if len(found) == 1 and len(counts) > 1:
        found.add(min((place for place in range(len(counts)) if place not in found), key=lambda place: counts[place]))
    return found


def _veil(line: Any, k: int, *, is_hidden: bool) -> Any:
    has = {name for name in (*_COUNTS, *_OF_TRIPS) if hasattr(line, name)}
    hidden = {name for name in has & set(_COUNTS) if getattr(line, name) < k}
    if is_hidden:
        hidden.add("trips")
    if "trips" in hidden:
        # the average and the sum of a few trips tell of them as well
        hidden |= has & set(_OF_TRIPS)
    if hidden & {"trips", "left_out"}:
        # one is the difference of the other two
        hidden |= has & {"rows"} | (has & {"left_out"} if "trips" in hidden else set())
    return replace(line, hidden=frozenset(hidden), **dict.fromkeys(hidden))


def _rounded(value: Decimal | None) -> Decimal | None:
    return None if value is None else round(value, 2)
