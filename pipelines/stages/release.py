"""Release: the rules by which rows of the warehouse become rows of the portal, and the guard that lets nothing private out as it is.

A pipeline's `release` is a list. Each entry makes a published column,

    {"column": "end_time", "from": "end_time", "rule": "round_minutes", "minutes": 15, "type": "local_time"}
    {"column": "hour", "from": "end_time", "rules": [{"rule": "round_minutes", "minutes": 15}, {"rule": "part", "part": "hour"}], "type": "number"}

or says which rows are published at all, once at most: {"only": {"column": "trip_type", "in": ["", "rider"]}}; "" stands for no
value as well. Further words of a column: "area": true (blanked where fewer than the pipeline's `release_k` rows share its value)
and "key": true (names the row on the portal; without it, what is made of the whole key of the table). An empty list releases the
table's columns as they are.

Rules run on plain values: an instant is an aware datetime in UTC, a local time a naive one, a number and a text are texts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import reduce
from secrets import token_hex
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction

from catalog.models import Dataset
from pipelines import secrets, warehouse
from pipelines.connectors.base import COLUMN_TYPES, Column
from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline, ScheduleBlock
from pipelines.stages.load import warehouse_of
from pipelines.warehouse.tables import Only, Scope

Row = dict[str, Any]

#: When the row was last written: a rule may take it, though it is no column of the city's.
LOADED_AT = "_odo_loaded_at"
PARTS: dict[str, Callable[[datetime], int]] = {
    "year": lambda when: when.year,
    "month": lambda when: when.month,
    "day": lambda when: when.day,
    "hour": lambda when: when.hour,
    "day_of_week": lambda when: when.weekday(),  # Monday is 0, as Austin publishes it
}
#: rule: (the option that it needs, whether it hides what a private column holds, the types that it takes; () = any)
RULES: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "as_is": ("", False, ()),
    "surrogate": ("", True, ()),
    "round_minutes": ("minutes", True, ("instant", "local_time")),
    "round_decimals": ("decimals", True, ("number",)),
    "in_zone": ("zone", False, ("instant",)),
    "part": ("part", False, ("instant", "local_time")),
    "blank_as": ("value", False, ()),
    "constant": ("value", False, ()),
}
#: Finer than this a rounding hides nothing: a quarter of an hour and a city block, as Austin's policy has it.
FINEST_MINUTES, FINEST_DECIMALS = 15, 3
COLUMN_WORDS = {"column", "from", "rule", "rules", "type", "label", "area", "key"}

_QUARTER = {"rule": "round_minutes", "minutes": 15}


def _time(column: str, source: str, *further: dict[str, Any], kind: str = "local_time") -> dict[str, Any]:
    return {"column": column, "from": source, "rules": [_QUARTER, *further], "type": kind}


def _part(part: str) -> dict[str, Any]:
    # of the rounded time: of the raw one, 4:59 published as 5:00 with the hour 4 would say on which side it lay
    return _time(part, "end_time", {"rule": "part", "part": part}, kind="number")


def _area(column: str, source: str) -> dict[str, Any]:
    # a text column of the portal takes numbers, a number column no texts: Austin's dataset has had both. Outside is 0 there.
    return {"column": column, "from": source, "rule": "blank_as", "value": "0", "type": "number", "area": True}


#: What Austin publishes as "Shared Micromobility Vehicle Trips" (7d8e-dm7r), of the columns of formats/mds_trips.py.
ATD_TRIPS: list[dict[str, Any]] = [
    {"only": {"column": "trip_type", "in": ["", "rider"]}},
    {"column": "trip_id", "from": ["provider_id", "trip_id"], "rule": "surrogate", "type": "text", "key": True},
    {"column": "device_id", "from": ["provider_id", "device_id"], "rule": "surrogate", "type": "text"},
    {"column": "vehicle_type", "from": "vehicle_type", "rule": "as_is", "type": "text"},
    {"column": "trip_duration", "from": "duration_s", "rule": "as_is", "type": "number"},
    {"column": "trip_distance", "from": "distance_m", "rule": "as_is", "type": "number"},
    _time("start_time", "start_time"),
    _time("end_time", "end_time"),
    {"column": "modified_date", "from": LOADED_AT, "rule": "as_is", "type": "local_time"},
    _time("start_time_us_central", "start_time", {"rule": "in_zone", "zone": "US/Central"}),
    _time("end_time_us_central", "end_time", {"rule": "in_zone", "zone": "US/Central"}),
    _part("year"),
    _part("month"),
    _part("hour"),
    _part("day_of_week"),
    _area("council_district_start", "council_district_start"),
    _area("council_district_end", "council_district_end"),
    _area("census_geoid_start", "census_geoid_start"),
    _area("census_geoid_end", "census_geoid_end"),
]
#: What of a trip must never leave as it is: who, which vehicle, where exactly, when exactly, for how much.
ATD_PRIVATE = [
    "provider_id", "provider_name", "trip_id", "device_id", "vehicle_id", "start_time", "end_time", "start_lon", "start_lat", "end_lon",
    "end_lat", "cost_standard", "cost_actual", "published_at", "parking",
]  # fmt: skip
#: Releases that a steward may name instead of writing them: (rules, private columns).
PRESETS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {"atd-trips": (ATD_TRIPS, ATD_PRIVATE)}


# what is wrong with a release, in words


def problems(pipeline: Pipeline) -> list[str]:
    """What is wrong with the pipeline's release and its private columns, a sentence each; [] for nothing. Asks no database."""
    rules, private = pipeline.release, pipeline.private_columns
    if not isinstance(rules, list) or not all(isinstance(entry, dict) for entry in rules):
        return ["A release is a list of columns, each an object like {\"column\": …, \"from\": …, \"rule\": …}."]
    found = [words for entry in rules for words in _entry_problems(entry)]
    if found or not rules:
        return found
    columns = [entry for entry in rules if "only" not in entry]
    names = [entry["column"] for entry in columns]
    found += [f"The column {name} is released twice." for name in sorted({name for name in names if names.count(name) > 1})]
    if len(rules) - len(columns) > 1:
        found.append("Which rows are published (“only”) is said once at most.")
    if not columns:
        found.append("A release names at least one column.")
    found += [leak for entry in columns if (leak := _leak(entry, private))]
    key = _key_entries(columns, list(pipeline.key))
    if pipeline.key and columns and not key:
        found.append(f"No released column is made of {', '.join(pipeline.key)}, the key: without it the portal can't tell rows apart.")
    elif stray := [entry["column"] for entry in key if not set(_sources(entry)) <= set(pipeline.key)]:
        found.append(f"{stray[0]} is to be the key on the portal, and is made of columns beside the table's key: a deletion could not name it.")
    if pipeline.release_k and not any(entry.get("area") for entry in columns):
        found.append('The smallest group blanks areas, and no released column is one: give it "area": true.')
    return found


def _entry_problems(entry: Mapping[str, Any]) -> list[str]:
    if "only" in entry:
        only = entry["only"]
        good = isinstance(only, dict) and isinstance(only.get("column"), str) and only["column"] and isinstance(only.get("in"), list) and only["in"]
        if good and len(entry) == 1 and all(isinstance(value, str) for value in only["in"]):
            return []
        return ['Which rows are published is said like {"only": {"column": "trip_type", "in": ["", "rider"]}}.']
    name = entry.get("column")
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        return [f"{name!r} can't be the name of a released column: use letters, digits and underscores."]
    if "rule" in entry and "rules" in entry:
        return [f"{name}: give one “rule”, or several as “rules”."]
    kind = entry.get("type", "text")
    if kind not in COLUMN_TYPES:
        return [f"{name}: {kind!r} is not one of {', '.join(COLUMN_TYPES)}."]
    steps = _steps(entry)
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return [f"{name}: “rules” is a list of rules, each an object."]
    found = []
    for step in steps:
        if step.get("rule") not in RULES:
            return [f"{name}: there is no rule {step.get('rule')!r}. There are {', '.join(RULES)}."]
        known = {"rule", RULES[step["rule"]][0], *(["kind"] if step["rule"] == "surrogate" else []), *(COLUMN_WORDS if "rule" in entry else [])}
        found += [f"{name}: the rule {step['rule']} has no {word!r}." for word in step if word not in known]
        if words := _option_problem(step):
            found.append(f"{name}: {words}")
    if [step["rule"] for step in steps[1:] if step["rule"] in ("surrogate", "constant")]:
        found.append(f"{name}: a surrogate or a constant comes first.")
    sources, first = _sources(entry), steps[0]["rule"]
    if first != "constant" and (not sources or not all(isinstance(source, str) and source for source in sources)):
        found.append(f"{name}: say “from” which column it is made.")
    if len(sources) > 1 and first != "surrogate":
        found.append(f"{name}: only a surrogate is made of several columns.")
    return found


def _option_problem(step: Mapping[str, Any]) -> str:
    match step["rule"]:
        case "round_minutes":
            minutes = step.get("minutes")
            if type(minutes) is not int or not 1 <= minutes <= 1440 or 1440 % minutes:
                return f"“minutes” is a whole number that divides a day, like 15; not {minutes!r}."
        case "round_decimals":
            if type(step.get("decimals")) is not int or not 0 <= step["decimals"] <= 12:
                return f"“decimals” is a whole number from 0 to 12, like 3; not {step.get('decimals')!r}."
        case "in_zone":
            try:
                ZoneInfo(str(step.get("zone") or "?"))
            except (ZoneInfoNotFoundError, ValueError, IsADirectoryError):
                return f"{step.get('zone')!r} is not a time zone. Use a name like America/Chicago."
        case "part":
            if step.get("part") not in PARTS:
                return f"“part” is one of {', '.join(PARTS)}; not {step.get('part')!r}."
        case "blank_as" | "constant":
            if not isinstance(step.get("value"), str | int | float | bool):
                return f"the rule {step['rule']} needs a “value”."
    return ""


def _leak(entry: Mapping[str, Any], private: Iterable[str]) -> str:
    """What of a private column this entry would let out, in words; "" for nothing."""
    if hidden := [name for name in _sources(entry) if name in set(private)]:
        for step in _steps(entry):
            finest = {"round_minutes": step.get("minutes", 0) >= FINEST_MINUTES, "round_decimals": step.get("decimals", 99) <= FINEST_DECIMALS}
            if RULES[step["rule"]][1] and finest.get(step["rule"], True):
                return ""
        return (
            f"{entry['column']} would let out the private column {hidden[0]}: release it as a surrogate, rounded to {FINEST_MINUTES} minutes or"
            f" more, or to {FINEST_DECIMALS} decimals or fewer; or not at all."
        )
    return ""


def _steps(entry: Mapping[str, Any]) -> Any:
    return entry.get("rules", [{"rule": "as_is", **entry}])


def _sources(entry: Mapping[str, Any]) -> list[str]:
    source = entry.get("from", [])
    return [source] if isinstance(source, str) else list(source)


def _key_entries(columns: list[Mapping[str, Any]], key: list[str]) -> list[Mapping[str, Any]]:
    """The entries that name a row on the portal: the marked ones, else the surrogate of the whole key, else the key as it is."""
    if marked := [entry for entry in columns if entry.get("key")]:
        return marked
    for entry in columns:
        if key and sorted(_sources(entry)) == sorted(key) and _steps(entry)[0]["rule"] == "surrogate":
            return [entry]
    plain = {_sources(entry)[0]: entry for entry in columns if _sources(entry) and all(step["rule"] == "as_is" for step in _steps(entry))}
    return [plain[name] for name in key] if key and all(name in plain for name in key) else []


# the rules at work


@dataclass(frozen=True)
class Released:
    """A published column: how it is made. `make` gets the values of `sources`, in their order, as the warehouse writes them."""

    column: Column
    sources: tuple[str, ...]
    make: Callable[[tuple[Any, ...]], Any]
    is_area: bool = False
    is_key: bool = False


@dataclass(frozen=True)
class Release:
    """What a pipeline shows the public: the columns, what is read for them, the key on the portal, which rows. Pure."""

    made: tuple[Released, ...]
    reads: tuple[Column, ...]
    only: Only | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(one.column for one in self.made)

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(one.column.name for one in self.made if one.is_key)

    @property
    def areas(self) -> tuple[Released, ...]:
        return tuple(one for one in self.made if one.is_area)

    def row(self, row: Row) -> Row:
        """A row of the warehouse as the portal gets it."""
        return {one.column.name: one.make(tuple(row[name] for name in one.sources)) for one in self.made}

    def key_of(self, row: Row) -> Row:
        """The key on the portal of a row, told by its key in the table alone."""
        return {one.column.name: one.make(tuple(row[name] for name in one.sources)) for one in self.made if one.is_key}


def compiled(rules: list[dict[str, Any]], types: Mapping[str, str], *, key: Iterable[str] = (), secret: str = "") -> Release:
    """The rules made ready for a table whose columns have these types. Raises SetupError for a rule that its column can't obey.

    `key` are the table's key columns, `secret` makes the surrogates.
    """
    entries = [entry for entry in rules if "only" not in entry]
    keys = _key_entries(entries, list(key))
    made = tuple(
        Released(
            Column(name=entry["column"], type=entry.get("type", "text"), label=entry.get("label", "")),
            tuple(_sources(entry)),
            _maker(entry, types, secret),
            is_area=bool(entry.get("area")),
            is_key=any(entry is one for one in keys),
        )
        for entry in entries
    )
    [only] = [Only(entry["only"]["column"], tuple(entry["only"]["in"])) for entry in rules if "only" in entry] or [None]
    if only and only.column not in types:
        raise _no_column(only.column, "which rows are published")
    sources = dict.fromkeys(name for one in made for name in one.sources)
    return Release(made, tuple(Column(name=name, type=types[name]) for name in sources), only)


def _maker(entry: Mapping[str, Any], types: Mapping[str, str], secret: str) -> Callable[[tuple[Any, ...]], Any]:
    sources, steps = _sources(entry), _steps(entry)
    for name in sources:
        if name not in types:
            raise _no_column(name, entry["column"])
    if steps[0]["rule"] == "constant":
        constant = _plain(steps[0]["value"])
        return lambda values: constant
    kind = types[sources[0]]
    if steps[0]["rule"] == "surrogate":
        first = _surrogate(secret, str(steps[0].get("kind") or entry["column"]))
        kind = "text"
        steps = steps[1:]
    else:
        first = _reader(kind)
    acts = []
    for step in steps:
        takes = RULES[step["rule"]][2]
        if takes and kind not in takes:
            raise SetupError(
                f"The release can't make {entry['column']}: the rule {step['rule']} takes {' or '.join(takes)}, and it gets {kind}.",
                code="release-type",
                next_step="Correct the rule in the pipeline's release, or the column's type.",
            )
        act, kind = _act(step, kind)
        acts.append(act)
    finish = _writer(entry.get("type", "text"))
    name = entry["column"]

    def make(values: tuple[Any, ...]) -> Any:
        try:
            return finish(reduce(lambda value, act: act(value), acts, first(values)))
        except (ValueError, InvalidOperation, OverflowError) as error:
            raise DataError(
                f"The release can't make {name} of {', '.join(sources)}: {type(error).__name__}.",
                code="release-value",
                next_step="Look at the column's values in the warehouse, or correct the rule in the pipeline's release.",
            ) from None

    return make


def _no_column(name: str, what: str) -> SetupError:
    return SetupError(
        f"The release makes {what} of the column {name}, which the table does not have.",
        code="release-column",
        next_step="Correct the pipeline's release, or load the column: an enrichment adds one.",
    )


def _reader(kind: str) -> Callable[[tuple[Any, ...]], Any]:
    """The one source value, a time as a datetime: aware in UTC where it is an instant."""
    if kind not in ("instant", "local_time"):
        return lambda values: values[0]

    def read(values: tuple[Any, ...]) -> datetime | None:
        [value] = values
        if value is None or value == "":
            return None
        when = datetime.fromisoformat(str(value))
        if kind == "local_time":
            return when.replace(tzinfo=None)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)

    return read


def _surrogate(secret: str, kind: str) -> Callable[[tuple[Any, ...]], str | None]:
    """A name that nobody without the key can trace back, in the form of a UUID; the same values of the same kind give the same name."""
    seed = hmac.new(secret.encode(), digestmod=hashlib.sha256)

    def name(values: tuple[Any, ...]) -> str | None:
        if all(value is None for value in values):
            return None
        keyed = seed.copy()
        # as JSON: no two lists of values read alike
        keyed.update(json.dumps([kind, *(None if value is None else _plain(value) for value in values)], ensure_ascii=False).encode())
        return str(uuid.UUID(bytes=keyed.digest()[:16], version=5))

    return name


def _act(step: Mapping[str, Any], kind: str) -> tuple[Callable[[Any], Any], str]:
    """One rule as a function on a value, and the type that comes out of it. Nothing stays nothing, but for `blank_as`."""
    match step["rule"]:
        case "round_minutes":
            return _unless_none(lambda when: rounded(when, step["minutes"])), kind
        case "round_decimals":
            grain = Decimal(1).scaleb(-step["decimals"])
            return _unless_none(lambda value: format(Decimal(str(value)).quantize(grain, ROUND_HALF_UP), "f")), kind
        case "in_zone":
            zone = ZoneInfo(step["zone"])
            return _unless_none(lambda when: when.astimezone(zone).replace(tzinfo=None)), "local_time"
        case "part":
            return _unless_none(lambda when: str(PARTS[step["part"]](when))), "number"
        case "blank_as":
            stands = _plain(step["value"])
            # "None" is what atd-mds wrote for a point in no area, and tables taken over from it still hold
            return (lambda value: stands if value in (None, "", "None") else value), kind
    return (lambda value: value), kind


def _unless_none(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else act(value)


def rounded(when: datetime, minutes: int) -> datetime:
    """The nearest whole step of `minutes` since midnight, a half upwards: 1:52:29 is 1:45 of quarters, 1:52:30 is 2:00."""
    step = timedelta(minutes=minutes)
    later = when + step / 2
    midnight = later.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (later - midnight) // step * step


def _writer(kind: str) -> Callable[[Any], Any]:
    """A value as portals take it: text, truth or None. A local time says no fraction of a second, and an instant as one says UTC."""

    def write(value: Any) -> Any:
        if isinstance(value, datetime):
            if kind == "local_time":
                return value.replace(tzinfo=None).isoformat(timespec="seconds")
            if value.tzinfo is None:
                return value.isoformat(timespec="seconds")
            return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        return value if value is None or isinstance(value, bool) else str(value)

    return write


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


# a pipeline's release, and its rows


@dataclass(frozen=True)
class Shop:
    """The rows of a pipeline's table as the public gets them: read here by the publish stage, and by a reconciliation.

    Without a `release` the `columns` are the table's, as they are.
    """

    pipeline: Pipeline
    release: Release | None
    columns: tuple[Column, ...]
    dsn: str

    @property
    def engine(self) -> ModuleType:
        return warehouse.engine(self.dsn)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row on the portal."""
        return self.release.key if self.release else tuple(self.pipeline.key)

    @property
    def k(self) -> int:
        """The smallest group whose area is told; 0 where all are."""
        return self.pipeline.release_k if self.release and self.release.areas else 0

    def public(self, scope: Scope) -> Scope:
        """The rows of a scope that are published."""
        return replace(scope, only=self.release.only) if self.release else scope

    def withheld(self, scope: Scope) -> Scope | None:
        """The rows of a scope that are not; None where all are."""
        return replace(scope, only=replace(self.release.only, is_not=True)) if self.release and self.release.only else None

    def count(self, scope: Scope, *, after: int = 0) -> int:
        """How many rows of the scope are published, of those written after `after`."""
        return self.engine.count(self.dsn, self.pipeline.table, self.public(scope), after=after)

    def chunks(self, scope: Scope, after: int, *, run_id: int = 0, blanked: Counter[str] | None = None) -> Iterator[tuple[int, list[Row]]]:
        """(last sequence number, rows as the public gets them) in chunks; `blanked` counts the cells that the smallest group blanks, by column."""
        if self.release is None:
            yield from self._read(self.columns, scope, after, run_id)
            return
        for part in self._groups(scope):
            yield from self._released(part, after, run_id, Counter() if blanked is None else blanked)

    def _groups(self, scope: Scope) -> Iterator[Scope]:
        """The scope in the parts within which areas are counted: of a pipeline with windows, its blocks."""
        if not self.k or self.pipeline.is_snapshot or scope.block_id is not None:
            yield scope
            return
        same = {"pipeline__table": self.pipeline.table, "pipeline__warehouse": self.pipeline.warehouse}
        for block_id in ScheduleBlock.objects.filter(**same).order_by("pk").values_list("pk", flat=True).iterator(chunk_size=5_000):
            yield Scope(block_id=block_id)

    def _released(self, scope: Scope, after: int, run_id: int, blanked: Counter[str]) -> Iterator[tuple[int, list[Row]]]:
        too_few = self._too_few(scope, run_id)
        for seq, rows in self._read(self.release.reads, self.public(scope), after, run_id):
            made = [self.release.row(row) for row in rows]
            for name, values in too_few.items():
                for row in made:
                    if row[name] in values:
                        row[name] = None
                        blanked[name] += 1
            yield seq, made

    def _too_few(self, scope: Scope, run_id: int) -> dict[str, set[str]]:
        """Column to the areas that fewer rows than the smallest group have: counted in all rows of the scope, whichever are sent."""
        if not self.k:
            return {}
        counts: dict[str, Counter[str]] = {one.column.name: Counter() for one in self.release.areas}
        names = {name for one in self.release.areas for name in one.sources}
        reads = tuple(column for column in self.release.reads if column.name in names)
        for _, rows in self._read(reads, self.public(scope), 0, run_id):
            for one in self.release.areas:
                counts[one.column.name].update(one.make(tuple(row[name] for name in one.sources)) for row in rows)
        return {name: {value for value, rows in found.items() if value is not None and rows < self.k} for name, found in counts.items()}

    def _read(self, columns: tuple[Column, ...], scope: Scope, after: int, run_id: int) -> Iterator[tuple[int, list[Row]]]:
        pipeline = self.pipeline
        return self.engine.rows_after(self.dsn, pipeline.table, columns, scope, after=after, chunk=pipeline.publish_chunk, run_id=run_id)

    def withheld_keys(self, scope: Scope, after: int, *, run_id: int = 0) -> Iterator[tuple[int, list[Row]]]:
        """The portal's keys of the rows that are not published, in chunks like those of `chunks`."""
        if hidden := self.withheld(scope):
            for seq, rows in self._read(self.key_columns, hidden, after, run_id):
                yield seq, [self.key_of(row) for row in rows]

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """What is to be read of a row to know its key on the portal."""
        if self.release is None:
            return tuple(column for column in self.columns if column.name in self.pipeline.key)
        names = {name for one in self.release.made if one.is_key for name in one.sources}
        return tuple(column for column in self.release.reads if column.name in names)

    def key_of(self, row: Row) -> Row:
        """The key on the portal of a row, told by its key in the table."""
        return self.release.key_of(row) if self.release else {name: row[name] for name in self.pipeline.key}

    def guard_portal(self, there: Iterable[Column]) -> None:
        """Raise SetupError if the portal's dataset has a column that is private here: whoever filled it once may fill it again."""
        private = {name.lower() for name in self.pipeline.private_columns} - {column.name.lower() for column in self.columns}
        if forbidden := [column.name for column in there if column.name.lower() in private]:
            raise SetupError(
                f"The portal dataset {self.pipeline.portal_resource} has a column {forbidden[0]}, which is private and must never leave.",
                code="private-column",
                next_step=f"Delete the column {forbidden[0]} of {self.pipeline.portal_resource} on the portal, with its values.",
            )


def shop(pipeline: Pipeline, *, secret: str | None = None) -> Shop:
    """What the pipeline shows the public. Raises SetupError for a release that is wrong, or that would let a private column out.

    Without rules: the columns of the table that the dictionary does not keep inside. `secret` makes the public ids; None: the
    pipeline's own, which is made if there is none yet.
    """
    dsn = warehouse_of(pipeline)
    have = warehouse.engine(dsn).column_types(dsn, pipeline.table)
    if not pipeline.release:
        columns = _as_they_are(pipeline, list(have))
        if leaving := [column.name for column in columns if column.name in pipeline.private_columns]:
            raise _private(f"The private column {leaving[0]} would be published as it is.", leaving[0])
        return Shop(pipeline, None, columns, dsn)
    for words in problems(pipeline):
        leak = next((name for name in pipeline.private_columns if f"private column {name}:" in words), "")
        raise _private(words, leak) if leak else SetupError(words, code="release-wrong", next_step="Correct the pipeline's release in the admin.")
    if not have:
        return Shop(pipeline, None, (), dsn)
    names = [step["rule"] for entry in pipeline.release if "only" not in entry for step in _steps(entry)]
    if secret is None:
        secret = surrogate_key(pipeline) if "surrogate" in names else ""
    made = compiled(pipeline.release, {**have, LOADED_AT: "instant"}, key=pipeline.key, secret=secret)
    return Shop(pipeline, made, made.columns, dsn)


def public_columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns that leave; () before the first load. Writes nothing, so it may be asked where no id is made. Raises SetupError."""
    return shop(pipeline, secret="").columns


def public_key(pipeline: Pipeline) -> tuple[str, ...]:
    """The columns that name a row on the portal."""
    entries = [entry for entry in pipeline.release if "only" not in entry]
    return tuple(entry["column"] for entry in _key_entries(entries, list(pipeline.key))) if entries else tuple(pipeline.key)


def _private(words: str, column: str) -> SetupError:
    return SetupError(
        words,
        code="private-column",
        next_step=f"Give the pipeline a release that hides {column}, or leave it out of what is published. Nothing was sent.",
    )


def _as_they_are(pipeline: Pipeline, have: list[str]) -> tuple[Column, ...]:
    told = {column.name: column for column in pipeline.dataset.columns.all()}
    # a column that nobody described is withheld: better a gap than a leak
    columns = tuple(Column(name=name, type=told[name].type, label=told[name].label) for name in have if name in told and told[name].is_published)
    withheld = [name for name in pipeline.key if name not in {column.name for column in columns}]
    if have and withheld:
        raise SetupError(
            f"The key {', '.join(withheld)} is not to be published, and without it the portal can't tell rows apart.",
            code="key-withheld",
            next_step="Publish the key column, or drop the publish stage.",
        )
    return columns


def surrogate_key(pipeline: Pipeline) -> str:
    """The key that makes the pipeline's public ids; made when it is first needed, and never changed after.

    All pipelines of a dataset share one: a vehicle that comes by two feeds is one vehicle for the public. So a pipeline without
    a key takes that of the dataset's oldest pipeline that has one. A pipeline that is moved to another dataset keeps its own,
    for with another its rows would stand on the portal twice. Raises SetupError where the key can't be opened.
    """
    if not pipeline.surrogate_key:
        with transaction.atomic():
            # two blocks of the dataset may need it at the same moment; one makes it
            Dataset.objects.select_for_update(no_key=True).get(pk=pipeline.dataset_id)
            mates = Pipeline.objects.filter(dataset=pipeline.dataset_id).exclude(surrogate_key="").order_by("pk")
            own = mates.filter(pk=pipeline.pk).values_list("surrogate_key", flat=True).first()
            sealed = own or mates.values_list("surrogate_key", flat=True).first() or secrets.seal(token_hex(32))
            Pipeline.objects.filter(pk=pipeline.pk).update(surrogate_key=sealed)
        pipeline.surrogate_key = sealed
    try:
        return secrets.reveal(pipeline.surrogate_key)
    except SetupError as error:
        raise SetupError(
            f"The key of the public ids of {pipeline.slug} can't be opened: {error.message}", code=error.code, next_step=error.next_step
        ) from error

