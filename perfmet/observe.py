"""Observing: what each sensor gave on a day, against what was expected of it, kept as `Observation` rows.

`gather` fetches the readings of days from where they lie: what standardize counted, else the table in the warehouse. `observe`
keeps them, adds a row for each sensor that was expected and sent nothing, and judges anew the later days that stand on them. Both
may be done again at any time: the rows of a day are what its data says now.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q
from django.db.models.functions import Now

from catalog.models import InventoryEdition
from perfmet import expected
from perfmet.expected import Heard
from perfmet.health import Thresholds, hours_between
from perfmet.models import Observation, SensorWatch
from perfmet.reckoning import Judged, Reading, Readings, Reckoner
from pipelines import clock, warehouse
from pipelines.errors import DataError, SetupError
from pipelines.models import Run, RunState, ScheduleBlock, Stage
from pipelines.warehouse.measures import By, Measure, Question, Where, offsets

#: A worker waits so long for the warehouse's answer.
SECONDS = 60
#: Of a long span, so many days are kept at once: memory does not grow with it.
DAYS_AT_ONCE = 31
#: What an observation holds of a name.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Delivery:
    """What a source gave of one day, and the newest run (None: none) that brought it."""

    readings: Readings
    run_id: int | None = None


@dataclass(frozen=True)
class Seen:
    """What an observing did: the days it was given, the rows it wrote of them and of the later days, and the health on the given days."""

    days: tuple[date, ...]
    written: int
    health: Counter[str]

    def plus(self, other: Seen) -> Seen:
        return Seen(self.days + other.days, self.written + other.written, self.health + other.health)


# keeping what was read


def observe(watch: SensorWatch, day: date, readings: Readings, *, run_id: int | None = None) -> Seen:
    """Keep one day. See `observe_days`."""
    return observe_days(watch, {day: Delivery(readings, run_id)})


@transaction.atomic
def observe_days(watch: SensorWatch, given: Mapping[date, Delivery]) -> Seen:
    """Write the observations of these days, and judge anew the later days that stand on them, up to four windows after the last.

    A reading without rows is none. Where nothing at all was given of a day, its expected sensors are stale, not silent. Takes
    five or six queries, however many days and sensors there are. Raises SetupError for thresholds that make no sense.
    """
    if not given:
        return Seen((), 0, Counter())
    return _judged(watch, given, min(given), max(given))


@transaction.atomic
def judge_again(watch: SensorWatch, first: date, last: date) -> Seen:
    """Judge what is kept of these days, and of four windows after them, by the rule and the thresholds as they are now. Reads nothing anew."""
    return _judged(watch, {}, first, last)


def _judged(watch: SensorWatch, given: Mapping[date, Delivery], first: date, last: date) -> Seen:
    # one at a time for a watch: two days that are observed at once would each judge without the other
    SensorWatch.objects.select_for_update(no_key=True).get(pk=watch.pk)
    fresh, gone = _Kept(watch, given, first, last).reckoned()
    _write(fresh)
    Observation.objects.filter(pk__in=gone).delete()
    return Seen(tuple(sorted(given)), len(fresh), Counter(row.health for row in fresh if row.day in given))


class _Kept:
    """What was kept of a watch before the given days, and after them as far as it stands on them. Reads, and writes nothing."""

    def __init__(self, watch: SensorWatch, given: Mapping[date, Delivery], first: date, last: date):
        self.watch, self.given = watch, given
        reach = expected.reach(watch.window_days)
        ours = Observation.objects.filter(watch=watch)
        earlier = ours.filter(day__lt=first, rows__gt=0).order_by().values_list("sensor").annotate(Max("day"))
        past: dict[str, list[Heard]] = defaultdict(list)
        self.rows: dict[date, dict[str, Observation]] = defaultdict(dict)
        for row in ours.filter(day__gte=first - reach, day__lte=last + reach).order_by("day"):
            if row.day >= first:
                self.rows[row.day][row.sensor] = row
            elif row.rows:
                past[row.sensor].append(Heard(row.day, row.value, hours_between(row.first_at, row.last_at), row.health))
        self.days = sorted({*given, *self.rows})
        self.inventory = _Inventory(watch, self.days)
        thresholds = Thresholds.of(settings.SENSOR_THRESHOLDS, watch.thresholds)
        self.reckoner = Reckoner(watch.rule, watch.window_days, thresholds, clock.zone(watch.pipeline.time_zone), past, dict(earlier))

    def reckoned(self) -> tuple[list[Observation], list[int]]:
        """(the rows that are new or changed, the numbers of those that are no longer expected)."""
        fresh, gone = [], []
        for day in self.days:
            kept, listed = self.rows.get(day, {}), self.inventory.of(day)
            readings, run_id = self._of(day, kept)
            judged = self.reckoner.day(day, readings, listed)
            units = {sensor: row.unit for sensor, row in kept.items()} | listed
            rows = [self._row(day, sensor, one, units.get(sensor, ""), run_id) for sensor, one in judged.items()]
            fresh += [row for row in rows if day in self.given or not _same(row, kept.get(row.sensor))]
            gone += [row.pk for sensor, row in kept.items() if sensor not in judged]
        return fresh, gone

    def _of(self, day: date, kept: Mapping[str, Observation]) -> tuple[Readings, int | None]:
        """(what was read on a day, by which run)."""
        if day in self.given:
            delivery = self.given[day]
            return {sensor[:LONGEST_NAME]: reading for sensor, reading in delivery.readings.items()}, delivery.run_id
        readings = {sensor: Reading(row.value, row.rows, row.first_at, row.last_at) for sensor, row in kept.items()}
        return readings, max((row.run_id for row in kept.values() if row.run_id is not None), default=None)

    def _row(self, day: date, sensor: str, one: Judged, unit: str, run_id: int | None) -> Observation:
        reading = one.reading
        return Observation(
            watch=self.watch,
            sensor=sensor,
            day=day,
            value=reading.value,
            rows=reading.rows,
            expected=one.expected,
            first_at=reading.first_at,
            last_at=reading.last_at,
            health=one.health,
            reason=one.reason[:300],
            unit=unit,
            run_id=run_id,
        )


#: What is written of a row again; `at` becomes the moment of writing.
_TOLD = ("value", "rows", "expected", "first_at", "last_at", "health", "reason", "unit", "run_id")


def _same(row: Observation, kept: Observation | None) -> bool:
    return kept is not None and all(getattr(row, name) == getattr(kept, name) for name in _TOLD)


def _write(rows: Sequence[Observation]) -> None:
    for row in rows:
        row.at = Now()
    Observation.objects.bulk_create(
        rows, batch_size=5_000, update_conflicts=True, unique_fields=["watch", "sensor", "day"], update_fields=[*_TOLD, "at"]
    )


class _Inventory:
    """Which sensors the inventory lists on a day; one query for all days, none where the watch names no field of it."""

    def __init__(self, watch: SensorWatch, days: Sequence[date]):
        self.zone = watch.pipeline.time_zone
        self.editions: list[tuple[datetime, dict[str, str]]] = []
        if days and watch.unit_field and watch.pipeline.inventory:
            editions = InventoryEdition.objects.filter(code=watch.pipeline.inventory)
            since = clock.day_start(days[0], self.zone)
            newest = editions.order_by("-dated_at").values("pk")[:1]
            # the newest too: of the days after it, nothing else is known
            wanted = editions.filter(Q(dated_at__gt=since) | Q(pk__in=newest)).order_by("dated_at")
            self.editions = [(edition.dated_at, _names(edition, watch.unit_field)) for edition in wanted]

    def of(self, day: date) -> dict[str, str]:
        """Sensor to what the inventory calls it ("": the same), by the first edition dated after the day, else by the newest."""
        if not self.editions:
            return {}
        since = clock.day_start(day, self.zone)
        return next((names for dated_at, names in self.editions if dated_at > since), self.editions[-1][1])


def _names(edition: InventoryEdition, field: str) -> dict[str, str]:
    """Sensor to the crossing at which it stands, of the records that name one."""
    named = {}
    for unit in edition.units:
        sensor = str(unit.get(field) or "").strip()[:LONGEST_NAME]
        if sensor:
            streets = " / ".join(str(unit[name]) for name in ("primary_st", "cross_st") if unit.get(name))
            named[sensor] = streets[:200]
    return named


# fetching what was read


def gather(watch: SensorWatch, days: Collection[date], *, open_days: Collection[date] = ()) -> Seen:
    """Fetch the readings of these days from where they lie, and keep them. The warehouse is asked outside of any transaction of ours.

    A day of which nothing came is stale; of `open_days` it may still come, and then nothing is written of it. `watch` has its
    pipeline. Raises SetupError where the table can't be counted so, TransientError where the warehouse does not answer.
    """
    seen = Seen((), 0, Counter())
    ordered = sorted(set(days))
    for place in range(0, len(ordered), DAYS_AT_ONCE):
        came = deliveries(watch, ordered[place : place + DAYS_AT_ONCE])
        seen = seen.plus(observe_days(watch, {day: one for day, one in came.items() if one.run_id or day not in open_days}))
    return seen


def days_between(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def days_of(pipeline: Any, starts_at: datetime, ends_at: datetime) -> list[date]:
    """The local days that a block's span touches."""
    zone = clock.zone(pipeline.time_zone)
    return days_between(starts_at.astimezone(zone).date(), (ends_at - timedelta(microseconds=1)).astimezone(zone).date())


def deliveries(watch: SensorWatch, days: Sequence[date]) -> dict[date, Delivery]:
    """What the source gave of each of these days (in order). Of standardize where it counted any sensor, else of the table.

    A day of which no block went well so far has no readings, and no run. Raises PipelineError.
    """
    pipeline = watch.pipeline
    runs = _good_runs(pipeline, days)
    reached = {run["pk"]: _reached(pipeline, run, days) for run in runs}
    newest: dict[date, int] = {}
    for run in runs:
        newest |= {day: max(run["pk"], newest.get(day, 0)) for day in reached[run["pk"]]}
    found: dict[date, Readings] = {}
    for run in runs:
        own = days_of(pipeline, run["block__starts_at"], run["block__ends_at"])
        # what a block of several days has counted says nothing of each
        if run["details__observations"] and len(own) == 1 and not pipeline.is_snapshot:
            [day] = own
            found[day] = _together(found.get(day, {}), _read(run["details__observations"], run["pk"]))
    loaded = {day for run in runs if run["stage"] == Stage.LOAD for day in reached[run["pk"]]} - set(found)
    if loaded:
        read = _of_table(watch, min(loaded), max(loaded))
        found |= {day: read.get(day, {}) for day in loaded}
    return {day: Delivery(found.get(day, {}), newest.get(day)) for day in days}


def _reached(pipeline: Any, run: Mapping[str, Any], days: Sequence[date]) -> list[date]:
    """Which of the days a run brought; a snapshot has all that it has."""
    if pipeline.is_snapshot:
        return list(days)
    wanted = set(days)
    return [day for day in days_of(pipeline, run["block__starts_at"], run["block__ends_at"]) if day in wanted]


def _together(some: Readings, more: Readings) -> Readings:
    return {**some, **{sensor: some[sensor].with_(reading) if sensor in some else reading for sensor, reading in more.items()}}


def _good_runs(pipeline: Any, days: Sequence[date]) -> list[dict[str, Any]]:
    """The newest good run of each block and stage that brought something of these days."""
    runs = Run.objects.filter(block__pipeline=pipeline, state=RunState.DONE, stage__in=[Stage.STANDARDIZE, Stage.LOAD])
    if not pipeline.is_snapshot:
        since, until = clock.day_start(days[0], pipeline.time_zone), clock.day_start(days[-1] + clock.DAY, pipeline.time_zone)
        runs = runs.filter(block__ends_at__gt=since, block__starts_at__lt=until)
    newest = runs.order_by("block_id", "stage", "-pk").distinct("block_id", "stage")
    return list(newest.values("pk", "stage", "block__starts_at", "block__ends_at", "details__observations"))


def _read(told: Mapping[str, Mapping[str, Any]], run_id: int) -> dict[str, Reading]:
    """The observations of a run's details. Raises DataError where they are not as standardize writes them."""
    try:
        return {
            sensor: Reading(float(one["value"]), int(one["rows"]), _instant(one.get("first")), _instant(one.get("last")))
            for sensor, one in told.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"What standardize counted in run {run_id} can't be read: {type(error).__name__} {error}.",
            code="bad-observations",
            next_step="Run standardize of that block again; if it stays so, report it.",
        ) from error


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _of_table(watch: SensorWatch, first: date, last: date) -> dict[date, dict[str, Reading]]:
    """Day and sensor to what the table has of them, from `first` to `last`: one question to the warehouse. Raises PipelineError."""
    pipeline = watch.pipeline
    if pipeline.warehouse not in settings.WAREHOUSES:
        raise SetupError(f"There is no warehouse {pipeline.warehouse!r}.", code="no-warehouse", next_step="Name it in WAREHOUSES, or choose another.")
    dsn = settings.WAREHOUSES[pipeline.warehouse]
    time = watch.time_column or pipeline.window_column
    if not time:
        raise SetupError(
            f"The watch on {pipeline.slug} names no time column, and the pipeline has no window column.",
            code="no-column",
            next_step="Name the column with the moment of a row in the watch.",
        )
    engine = warehouse.engine(dsn)
    kinds = engine.column_types(dsn, pipeline.table)
    if not kinds:
        # no load has brought a row yet, or it would be there
        return {}
    is_local = kinds.get(time) == "local_time"
    zone = clock.zone(pipeline.time_zone)
    since, until = clock.day_start(first, pipeline.time_zone), clock.day_start(last + clock.DAY, pipeline.time_zone)
    if is_local:
        # such a column has wall times, and is compared as if they were UTC
        bounds, ways = (_wall(since, zone), _wall(until, zone)), ((None, 0),)
    else:
        bounds, ways = (since, until), offsets(zone, since, until)
    question = Question(
        # a table may hold the rows of several pipelines
        by=(By("sensor", watch.sensor_column), By("day", time, "day"), By("pipeline", "_odo_pipeline")),
        measures=(
            Measure("rows"),
            *((Measure("value", "sum", watch.value_column),) if watch.value_column else ()),
            Measure("first", "min", time),
            Measure("last", "max", time),
        ),
        where=(Where(time, at_least=bounds[0], below=bounds[1]),),
        offsets=ways,
        seconds=SECONDS,
    )
    found: dict[date, dict[str, Reading]] = defaultdict(dict)
    for row in engine.measures(dsn, pipeline.table, question):
        sensor = "" if row["sensor"] is None else str(row["sensor"]).strip()[:LONGEST_NAME]
        if not sensor or row["pipeline"] != pipeline.pk:
            # a row that names no sensor says nothing of any
            continue
        value = row["value"] or 0 if watch.value_column else row["rows"]
        moments = [_moment(row[name], pipeline.time_zone) if is_local else row[name] for name in ("first", "last")]
        reading = Reading(float(value), row["rows"], *moments)
        same = found[row["day"]].get(sensor)
        found[row["day"]][sensor] = same.with_(reading) if same else reading
    return found


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=UTC)


def _moment(wall: datetime, zone_name: str) -> datetime:
    """The instant of a wall time of the table; one that the clock skips is taken at the next valid minute."""
    return clock.local_instant(wall.date(), wall.time(), zone_name)


def recorded_days(watch: SensorWatch) -> tuple[date, date] | None:
    """The first and the last day that blocks of the pipeline are about; None when it has none."""
    blocks = ScheduleBlock.objects.filter(pipeline=watch.pipeline)
    first, last = (blocks.order_by(name).values_list("starts_at", "ends_at").first() for name in ("starts_at", "-starts_at"))
    return (days_of(watch.pipeline, *first)[0], days_of(watch.pipeline, *last)[-1]) if first and last else None
