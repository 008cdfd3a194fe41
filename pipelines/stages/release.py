"""Release: the rules by which rows of the warehouse become rows of the portal, and the guard that lets nothing private out as it is.

A pipeline's `release` is a list. Each entry makes a published column,

    {"column": "end_time", "from": "end_time", "rule": "round_minutes", "minutes": 15, "type": "local_time"}
    {"column": "hour", "from": "end_time", "rules": [{"rule": "round_minutes", "minutes": 15}, {"rule": "part", "part": "hour"}], "type": "number"}

or says which rows are published at all, once at most: {"only": {"column": "trip_type", "in": ["", "rider"]}}; "" stands for no
value as well. Further words of a column: "area": true (blanked where fewer than the pipeline's `release_k` rows share its value)
and "key": true (names the row on the portal; without it, what is made of the whole key of the table). An empty list releases the
table's columns as they are.

Pure: what reads a table and keeps the key of the public ids is `offer.py`. Rules run on plain values: an instant is an aware
datetime in UTC, a local time a naive one, a number and a text are texts.
"""

from __future__ import annotations

import hmac
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.connectors.base import COLUMN_TYPES, Column
from pipelines.errors import DataError, SetupError
from pipelines.formats.atd_trips import ATD_PRIVATE, ATD_TRIPS
from pipelines.models import Pipeline
from pipelines.warehouse.tables import Only

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
    "blank_as": ("value", False, ("text", "number", "boolean")),
    "constant": ("value", False, ()),
}
#: Finer than this a rounding hides nothing: a quarter of an hour and a city block, as Austin's policy has it.
FINEST_MINUTES, FINEST_DECIMALS = 15, 3
COLUMN_WORDS = {"column", "from", "rule", "rules", "type", "label", "area", "key"}

#: Releases that a steward may name instead of writing them: (rules, private columns).
PRESETS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {"atd-trips": (ATD_TRIPS, ATD_PRIVATE)}


# what is wrong with a release, in words


def problems(pipeline: Pipeline) -> list[str]:
    """What is wrong with the pipeline's release and its private columns, a sentence each; [] for nothing. Asks no database."""
    rules, private = pipeline.release, pipeline.private_columns
    if not isinstance(rules, list) or not all(isinstance(entry, dict) for entry in rules):
        return ['A release is a list of columns, each an object like {"column": …, "from": …, "rule": …}.']
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
    elif stray := [entry["column"] for entry in key if not set(sources_of(entry)) <= set(pipeline.key)]:
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
    steps = steps_of(entry)
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return [f"{name}: “rules” is a list of rules, each an object."]
    found = [f"{name}: a column with “rules” has no {word!r}." for word in entry if "rules" in entry and word not in COLUMN_WORDS]
    for step in steps:
        if step.get("rule") not in RULES:
            return [f"{name}: there is no rule {step.get('rule')!r}. There are {', '.join(RULES)}."]
        known = {"rule", RULES[step["rule"]][0], *(["kind"] if step["rule"] == "surrogate" else []), *(COLUMN_WORDS if "rules" not in entry else [])}
        found += [f"{name}: the rule {step['rule']} has no {word!r}." for word in step if word not in known]
        if words := _option_problem(step):
            found.append(f"{name}: {words}")
    if [step["rule"] for step in steps[1:] if step["rule"] in ("surrogate", "constant")]:
        found.append(f"{name}: a surrogate or a constant comes first.")
    sources, first = sources_of(entry), steps[0]["rule"]
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
    if hidden := [name for name in sources_of(entry) if name in set(private)]:
        for step in steps_of(entry):
            finest = {"round_minutes": step.get("minutes", 0) >= FINEST_MINUTES, "round_decimals": step.get("decimals", 99) <= FINEST_DECIMALS}
            if RULES[step["rule"]][1] and finest.get(step["rule"], True):
                return ""
        return (
            f"{entry['column']} would let out the private column {hidden[0]}: release it as a surrogate, rounded to {FINEST_MINUTES} minutes or"
            f" more, or to {FINEST_DECIMALS} decimals or fewer; or not at all."
        )
    return ""


def steps_of(entry: Mapping[str, Any]) -> Any:
    return entry.get("rules", [{"rule": "as_is", **entry}])


def sources_of(entry: Mapping[str, Any]) -> list[str]:
    source = entry.get("from", [])
    return [source] if isinstance(source, str) else list(source)


def _key_entries(columns: list[Mapping[str, Any]], key: list[str]) -> list[Mapping[str, Any]]:
    """The entries that name a row on the portal: the marked ones, else the surrogate of the whole key, else the key as it is."""
    if marked := [entry for entry in columns if entry.get("key")]:
        return marked
    for entry in columns:
        if key and sorted(sources_of(entry)) == sorted(key) and steps_of(entry)[0]["rule"] == "surrogate":
            return [entry]
    plain = {sources_of(entry)[0]: entry for entry in columns if sources_of(entry) and all(step["rule"] == "as_is" for step in steps_of(entry))}
    return [plain[name] for name in key] if key and all(name in plain for name in key) else []


# the rules at work


@dataclass(frozen=True)
class Step:
    """One act on the way from the warehouse's values to a published one. Steps of one `name` do the same to the same columns."""

    name: str
    act: Callable[[Any], Any]


@dataclass(frozen=True)
class Released:
    """A published column and the steps that make it. The first gets the values of `sources`, each other what the one before made."""

    column: Column
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
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

    def part(self, made: Iterable[Released]) -> Release:
        """The same release with these of its columns, which reads only what they need."""
        some = tuple(made)
        needed = {name for one in some for name in one.sources}
        return Release(some, tuple(column for column in self.reads if column.name in needed), self.only)

    @cached_property
    def keys(self) -> Release:
        """Only the key on the portal: made of a row's key in the table alone."""
        return self.part(one for one in self.made if one.is_key)

    @cached_property
    def _plan(self) -> tuple[list[tuple[Callable[[Any], Any], int, tuple[str, ...], str]], list[tuple[str, int]]]:
        """Every step once, in order: (act, place of the step before or -1, sources, column for which it is made); and where columns end.

        A time is read and rounded once for the seven columns that are made of it.
        """
        acts: list[tuple[Callable[[Any], Any], int, tuple[str, ...], str]] = []
        places: dict[str, int] = {}
        ends = []
        for one in self.made:
            place = -1
            for step in one.steps:
                if step.name not in places:
                    places[step.name] = len(acts)
                    acts.append((step.act, place, one.sources, one.column.name))
                place = places[step.name]
            ends.append((one.column.name, place))
        return acts, ends

    def row(self, row: Row) -> Row:
        """A row of the warehouse as the portal gets it. Raises DataError for a value that its rule can't take, without saying it."""
        acts, ends = self._plan
        values: list[Any] = []
        try:
            for act, before, sources, _ in acts:
                values.append(act([row[name] for name in sources]) if before < 0 else act(values[before]))
        except (ValueError, InvalidOperation, OverflowError) as error:
            _, _, sources, column = acts[len(values)]
            raise DataError(
                f"The release can't make {column} of {', '.join(sources)}: {type(error).__name__}.",
                code="release-value",
                next_step="Look at the column's values in the warehouse, or correct the rule in the pipeline's release.",
            ) from None
        return {name: values[place] for name, place in ends}


def compiled(rules: list[dict[str, Any]], types: Mapping[str, str], *, key: Iterable[str] = (), secret: str = "") -> Release:
    """The rules made ready for a table whose columns have these types. Raises SetupError for a rule that its column can't obey.

    `key` are the table's key columns, `secret` makes the surrogates.
    """
    entries = [entry for entry in rules if "only" not in entry]
    keys = _key_entries(entries, list(key))
    made = tuple(
        Released(
            Column(name=entry["column"], type=entry.get("type", "text"), label=entry.get("label", "")),
            tuple(sources_of(entry)),
            _steps(entry, types, secret),
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


def _steps(entry: Mapping[str, Any], types: Mapping[str, str], secret: str) -> tuple[Step, ...]:
    sources, rules = sources_of(entry), steps_of(entry)
    for name in sources:
        if name not in types:
            raise _no_column(name, entry["column"])
    if rules[0]["rule"] == "constant":
        constant = _plain(rules[0]["value"])
        return (Step(f"constant {constant}", lambda values: constant),)
    kind = types[sources[0]]
    if rules[0]["rule"] == "surrogate":
        of = str(rules[0].get("kind") or entry["column"])
        steps, kind = [Step(f"surrogate {of} of {sources}", _surrogate(secret, of))], "text"
        rules = rules[1:]
    else:
        steps = [Step(f"value of {sources}", _reader(kind))]
    for rule in rules:
        takes = RULES[rule["rule"]][2]
        if takes and kind not in takes:
            raise SetupError(
                f"The release can't make {entry['column']}: the rule {rule['rule']} takes {' or '.join(takes)}, and it gets {kind}.",
                code="release-type",
                next_step="Correct the rule in the pipeline's release, or the column's type.",
            )
        if rule["rule"] != "as_is":
            act, kind = _act(rule, kind)
            steps.append(Step(f"{steps[-1].name}, {rule['rule']} {rule.get(RULES[rule['rule']][0])!r}", act))
    if kind in ("instant", "local_time"):
        steps.append(Step(f"{steps[-1].name}, as {entry.get('type', 'text')}", _writer(entry.get("type", "text"))))
    return tuple(steps)


def _no_column(name: str, what: str) -> SetupError:
    return SetupError(
        f"The release makes {what} of the column {name}, which the table does not have.",
        code="release-column",
        next_step="Correct the pipeline's release, or load the column: an enrichment adds one.",
    )


def _reader(kind: str) -> Callable[[list[Any]], Any]:
    """The one source value, a time as a datetime: aware in UTC where it is an instant."""
    if kind not in ("instant", "local_time"):
        return lambda values: values[0]

    def read(values: list[Any]) -> datetime | None:
        [value] = values
        if value is None or value == "":
            return None
        when = datetime.fromisoformat(str(value))
        if kind == "local_time":
            return when.replace(tzinfo=None)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)

    return read


def _surrogate(secret: str, kind: str) -> Callable[[list[Any]], str | None]:
    """A name that nobody without the key can trace back, in the form of a UUID; the same values of the same kind give the same name."""
    key = secret.encode()

    def name(values: list[Any]) -> str | None:
        if not any(value is not None for value in values):
            return None
        # as JSON: no two lists of values read alike
        told = json.dumps([kind, *[None if value is None else _plain(value) for value in values]], ensure_ascii=False)
        return str(uuid.UUID(bytes=hmac.digest(key, told.encode(), "sha256")[:16], version=5))

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
    if 60 % minutes == 0:
        return later.replace(minute=later.minute - later.minute % minutes, second=0, microsecond=0)
    midnight = later.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (later - midnight) // step * step


def _writer(kind: str) -> Callable[[datetime | None], str | None]:
    """A time as portals take it: a local one says no fraction of a second, and an instant as one says UTC."""

    def write(when: datetime | None) -> str | None:
        if when is None:
            return None
        if kind == "local_time":
            return when.replace(tzinfo=None).isoformat(timespec="seconds")
        if when.tzinfo is None:
            return when.isoformat(timespec="seconds")
        return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"

    return write


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def public_key(pipeline: Pipeline) -> tuple[str, ...]:
    """The columns that name a row on the portal."""
    entries = [entry for entry in pipeline.release if "only" not in entry]
    return tuple(entry["column"] for entry in _key_entries(entries, list(pipeline.key))) if entries else tuple(pipeline.key)


def public_time(pipeline: Pipeline, types: Mapping[str, str]) -> tuple[str, str, int] | None:
    """(released column, zone of its clock, minutes it is rounded to) of the column that tells a row's window; None where none does.

    `types` are those of the table's columns.
    """
    source = pipeline.window_column
    if not source or source not in types:
        return None
    own = pipeline.time_zone if types[source] == "local_time" else "UTC"
    if not pipeline.release:
        return source, own, 0
    for entry in pipeline.release:
        if "only" in entry or sources_of(entry) != [source] or entry.get("type") not in ("instant", "local_time"):
            continue
        rules = {step["rule"]: step for step in steps_of(entry)}
        if set(rules) <= {"as_is", "round_minutes"}:
            return entry["column"], own, rules.get("round_minutes", {}).get("minutes", 0)
    return None
