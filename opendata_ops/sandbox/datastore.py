"""CKAN's datastore: typed tables of records, with PostgreSQL's words for a value that does not fit. In memory; no HTTP here.

It does what CKAN 2.12 was seen to do (tests/ckan/test_contract.py asks both). Of PostgreSQL's many forms of a date only the ISO
ones and month/day/year are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

ROWS_MAX = 32_000
LONGEST_NAME = 63

#: what a column may be declared as → what it is from then on
TYPES = {
    "int": "int4", "int2": "int2", "int4": "int4", "int8": "int8", "integer": "int4", "smallint": "int2", "bigint": "int8",
    "float": "float8", "float4": "float4", "float8": "float8", "real": "float4", "numeric": "numeric", "decimal": "numeric",
    "text": "text", "varchar": "varchar", "name": "name", "bool": "bool", "boolean": "bool", "date": "date", "time": "time",
    "timestamp": "timestamp", "timestamptz": "timestamptz", "json": "json", "nested": "json", "jsonb": "jsonb", "_text": "_text", "uuid": "uuid",
}  # fmt: skip
_WHOLE = {"int2": ("smallint", 1 << 15), "int4": ("integer", 1 << 31), "int8": ("bigint", 1 << 63)}
_SPOKEN = {
    "float4": "real", "float8": "double precision", "bool": "boolean", "timestamp": "timestamp", "timestamptz": "timestamp with time zone",
    **{name: spoken for name, (spoken, _) in _WHOLE.items()},
}  # fmt: skip
_NATIVE = _SPOKEN | {"timestamp": "timestamp without time zone", "json": "nested"}

Record = dict[str, Any]


class Invalid(Exception):
    """A validation error: `error` is what CKAN would say of it, field by field."""

    def __init__(self, **error: Any):
        super().__init__(error)
        self.error = error


class Unstorable(ValueError):
    """A value that PostgreSQL would not take, in its words."""


@dataclass
class Field:
    """One column. `info` is its entry of the dictionary; None as long as nobody wrote one."""

    id: str
    type: str
    info: Mapping[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, **({} if self.info is None else {"info": dict(self.info)})}


@dataclass
class Table:
    """One table of the datastore: `rows` by their `_id`, in the order in which they were inserted."""

    fields: dict[str, Field] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    rows: dict[int, Record] = field(default_factory=dict)
    last_id: int = 0
    #: names of functions that each new row fires
    triggers: tuple[str, ...] = ()
    #: what an exchange wrote on it, so that it is done once
    token: str = ""
    version: int = 0

    # ------------------------------------------------------------------------------------------------------ columns

    def declare(self, fields: Sequence[Mapping[str, Any]], records: Sequence[Any], *, delete_fields: bool = False) -> None:
        """Make or add columns: those of `fields`, and those that the first record has besides. Raises Invalid."""
        for each in fields:
            check_name(each.get("id"))
        first = records[0] if records else {}
        if not isinstance(first, dict):
            raise Invalid(records=["The first row is not a json object"])
        declared: dict[str, Field] = {}
        for each in fields:
            name = each["id"]
            if each.get("type") and each["type"] not in TYPES:
                raise Invalid(fields=[f'"{each["type"]}" is not a valid field type'])
            if name in self.fields:
                # another type changes nothing: the column stays what it is
                declared[name] = self.fields[name]
            elif not each.get("type") and name not in first:
                raise Invalid(fields=[f'"{name}" type not guessable'])
            else:
                if name in declared:
                    raise Invalid(field=["Duplicate column names are not supported"])
                declared[name] = Field(name, TYPES[each.get("type") or guessed(first[name])])
        for name in first:
            if name not in declared and name not in self.fields:
                check_name(name)
                declared[name] = Field(name, TYPES[guessed(first[name])])
        infos = {each["id"]: each["info"] for each in fields if each.get("info") is not None}
        if delete_fields and fields:
            self.fields = {name: kept for name, kept in self.fields.items() if name in declared}
            self.rows = {number: {name: row.get(name) for name in self.fields} for number, row in self.rows.items()}
        for name, added in declared.items():
            self.fields.setdefault(name, added)
            if name in infos:
                self.fields[name] = Field(name, self.fields[name].type, infos[name])
        self.version += 1

    def identify(self, key: Sequence[str]) -> None:
        """Know rows by these columns from now on; by none, where there are none. Raises Invalid."""
        if unknown := [name for name in key if name not in self.fields]:
            raise Invalid(index=[f'The field "{unknown}" is not a valid column name.'])
        seen = set()
        for row in self.rows.values():
            values = tuple(_hashable(row.get(name)) for name in key)
            if key and None not in values:
                if values in seen:
                    raise Invalid(
                        constraints=["Cannot insert records or create indexbecause of uniqueness constraint"],
                        info={"orig": "could not create unique index", "pgcode": "23505"},
                    )
                seen.add(values)
        self.key = tuple(key)
        self.version += 1

    # --------------------------------------------------------------------------------------------------------- rows

    def write(self, records: Any, method: str, fire: Callable[[str], None]) -> list[Record]:
        """Insert, update or upsert all records or none of them; returns them as stored. Raises Invalid."""
        if method != "insert" and not self.key:
            raise Invalid(table=["unique key must be passed for update/upsert"])
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise Invalid(records=[f'row "{number}" is not a json object'])
        # on a copy: what fails on the way was never there, but for the numbers that it took
        working = replace(self, rows=dict(self.rows))
        places = working._places()
        try:
            written = [working._one(number, record, method, places, fire) for number, record in enumerate(records)]
        finally:
            self.last_id = working.last_id
            self.version += 1
        self.rows = working.rows
        return written

    def _one(self, number: int, record: Mapping[str, Any], method: str, places: dict[tuple, int], fire: Callable[[str], None]) -> Record:
        unknown = [name for name in record if name not in self.fields and name != "_id"]
        if unknown and method == "insert":
            raise Invalid(records=[f'row "{number + 1}" has extra keys "{", ".join(unknown)}"'])
        if unknown:
            raise Invalid(fields=[f'fields "{", ".join(unknown)}" do not exist'])
        if method != "insert" and (missing := [name for name in self.key if name not in record]):
            raise Invalid(key=[f'fields "{", ".join(missing)}" are missing\n                            but needed as key'])
        try:
            new = {name: stored(value, self.fields[name].type, name) for name, value in record.items() if name != "_id"}
        except Unstorable as refusal:
            raise Invalid(records=[str(refusal)], records_row=number) from None
        # a sequence gives out a number also for what is then refused or written elsewhere
        self.last_id += method != "update"
        place = tuple(_hashable(new.get(name)) for name in self.key)
        there = places.get(place) if self.key and None not in place else None
        if there is not None:
            if method == "insert":
                raise Invalid(records=[f'duplicate key value violates unique constraint "{"_".join(self.key)}"'], records_row=number)
            self.rows[there] = {**self.rows[there], **new}
            return {"_id": there, **self.rows[there]}
        if method == "update":
            raise Invalid(key=[f'key "{dict(zip(self.key, place, strict=True))}" not found'])
        for function in self.triggers:
            try:
                fire(function)
            except Unstorable as refusal:
                raise Invalid(records=[str(refusal)], records_row=number) from None
        self.rows[self.last_id] = {name: new.get(name) for name in self.fields}
        if self.key and None not in place:
            places[place] = self.last_id
        return {"_id": self.last_id, **self.rows[self.last_id]}

    def _places(self) -> dict[tuple, int]:
        return {tuple(_hashable(row.get(name)) for name in self.key): number for number, row in self.rows.items()} if self.key else {}

    def delete(self, filters: Mapping[str, Any]) -> None:
        """Delete the rows that match; all of them where `filters` is empty. Raises Invalid."""
        matches = self._matcher(filters)
        self.rows = {number: row for number, row in self.rows.items() if not matches(number, row)}
        self.version += 1

    # ------------------------------------------------------------------------------------------------------- search

    def search(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The page that `datastore_search` asks for: fields, records, total. Raises Invalid."""
        names = _listed(asked.get("fields")) or ["_id", *self.fields]
        if unknown := [name for name in names if name != "_id" and name not in self.fields]:
            raise Invalid(fields=[f'invalid value "{unknown[0]}"'])
        limit = min(_natural("limit", asked.get("limit", 100)), ROWS_MAX)
        offset = _natural("offset", asked.get("offset", 0))
        form = asked.get("records_format", "objects")
        if form not in ("objects", "lists"):
            raise Invalid(records_format=["Value must be one of ['objects', 'lists', 'csv', 'tsv']"])
        filters = _parsed_filters(asked.get("filters"))
        matches = self._matcher(filters, words=str(asked.get("q") or "").lower().split())
        found = [number for number, row in self.rows.items() if matches(number, row)]
        self._sort(found, asked.get("sort"))
        total = len(found)
        page = [{name: number if name == "_id" else self.rows[number].get(name) for name in names} for number in found[offset : offset + limit]]
        with_total = _truth(asked.get("include_total", True))
        return {
            "include_total": with_total,
            "limit": limit,
            **({"offset": offset} if "offset" in asked else {}),
            **({"filters": filters} if "filters" in asked else {}),
            **{name: asked[name] for name in ("sort", "q") if name in asked},
            "records_format": form,
            "records": page if form == "objects" else [list(record.values()) for record in page],
            "fields": [{"id": "_id", "type": "int"} if name == "_id" else self.fields[name].shown() for name in names],
            **({"total": total} if with_total else {}),
        }

    def _sort(self, numbers: list[int], asked: Any) -> None:
        clauses = _listed(asked)
        if not clauses:
            numbers.sort()
        for clause in reversed(clauses):
            parts = re.fullmatch(r'"?([^"]+?)"?(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?', clause.strip(), re.IGNORECASE)
            name = parts[1] if parts else ""
            if name != "_id" and name not in self.fields:
                raise Invalid(sort=[f'invalid value "{clause.strip()}"'])
            downwards = (parts[2] or "asc").lower() == "desc"
            empty_first = (parts[3] or ("first" if downwards else "last")).lower() == "first"

            def rank(number: int, name: str = name, downwards: bool = downwards, empty_first: bool = empty_first) -> tuple:
                value = number if name == "_id" else self.rows[number].get(name)
                if value is None:
                    return (empty_first if downwards else not empty_first, 0)
                return (not empty_first if downwards else empty_first, json.dumps(value) if isinstance(value, dict | list) else value)

            numbers.sort(key=rank, reverse=downwards)

    def _matcher(self, filters: Mapping[str, Any], words: Sequence[str] = ()) -> Callable[[int, Record], bool]:
        """A test of a row by its number and its values. Raises Invalid."""
        tests: list[tuple[str, Callable[[Any], bool]]] = []
        for name, wanted in filters.items():
            if name != "_id" and name not in self.fields:
                raise Invalid(filters=[f"Unknown field: {name}"])
            tests.append((name, _holds(name, "int8" if name == "_id" else self.fields[name].type, wanted)))

        def matches(number: int, row: Record) -> bool:
            if not all(test(number if name == "_id" else row.get(name)) for name, test in tests):
                return False
            if not words:
                return True
            text = " ".join(str(value) for value in row.values() if value is not None).lower()
            return all(word in text for word in words)

        return matches

    def schema(self) -> list[dict[str, Any]]:
        """The columns as `datastore_info` shows them."""
        return [
            {
                **each.shown(),
                **({"type": "nested"} if each.type == "json" else {}),
                "schema": {
                    "native_type": _NATIVE.get(each.type, each.type),
                    "notnull": False,
                    "index_name": "_".join(self.key) if name in self.key else None,
                    "is_index": name in self.key,
                    "uniquekey": False,
                },
            }
            for name, each in self.fields.items()
        ]


# ---------------------------------------------------------------------------------------------------------------- names


def check_name(name: Any) -> None:
    """Raise Invalid for what can't be the name of a column."""
    if not isinstance(name, str) or not name or name != name.strip() or name.startswith("_") or '"' in name:
        raise Invalid(fields=[{"id": [f'"{name}" is not a valid field name']}])
    if len(name) > LONGEST_NAME:
        raise Invalid(fields=[f'Column heading "{name}" exceeds limit of {LONGEST_NAME} characters.'])


def guessed(value: Any) -> str:
    """The type of a column that nobody declared, by its first value."""
    if isinstance(value, dict | list):
        return "nested"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    for convert, kind in ((int, "integer"), (float, "numeric"), (datetime.fromisoformat, "timestamp")):
        try:
            convert(value)
        except (TypeError, ValueError):
            continue
        return kind
    return "text"


# --------------------------------------------------------------------------------------------------------------- values


def stored(value: Any, kind: str, name: str) -> Any:
    """A value as the datastore keeps it and gives it back. Raises Unstorable in PostgreSQL's words."""
    if value is None:
        return None
    if kind in ("json", "jsonb"):
        return value
    if kind == "_text" and isinstance(value, list):
        return [str(each) for each in value]
    if isinstance(value, dict):
        raise Unstorable("can't adapt type 'dict'")
    if isinstance(value, list):
        raise Unstorable(f'column "{name}" is of type {_SPOKEN.get(kind, kind)} but expression is of type text[]')
    if kind not in ("text", "varchar", "name"):
        if value == "":
            return None
        if isinstance(value, bool) != (kind == "bool") and not isinstance(value, str):
            theirs = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "numeric"
            raise Unstorable(f'column "{name}" is of type {_SPOKEN.get(kind, kind)} but expression is of type {theirs}')
    if kind in _WHOLE:
        return _whole(value, kind)
    return _READERS.get(kind, _text)(value)


def _whole(value: Any, kind: str) -> int:
    spoken, bound = _WHOLE[kind]
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            raise Unstorable(f'invalid input syntax for type {spoken}: "{value}"')
        if not -bound <= int(value) < bound:
            raise Unstorable(f'value "{value}" is out of range for type {spoken}')
        return int(value)
    if not -bound <= round(value) < bound:
        raise Unstorable(f"{spoken} out of range")
    return int(Decimal(str(value)).to_integral_value("ROUND_HALF_UP"))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _float(value: Any) -> float | int:
    try:
        number = float(value)
    except ValueError:
        raise Unstorable(f'invalid input syntax for type double precision: "{value}"') from None
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _numeric(value: Any) -> float | int:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise Unstorable(f'invalid input syntax for type numeric: "{value}"') from None
    return int(number) if number == number.to_integral_value() else float(number)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    for truth, words in ((True, ("t", "true", "yes", "y", "on", "1")), (False, ("f", "false", "no", "n", "off", "0"))):
        if value.strip().lower() in words:
            return truth
    raise Unstorable(f'invalid input syntax for type boolean: "{value}"')


def _moment(value: Any, spoken: str) -> datetime:
    text = str(value).strip()
    if parts := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})(.*)", text):
        text = f"{parts[3]}-{parts[1]:0>2}-{parts[2]:0>2}{parts[4]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        looks = re.match(r"\d{4}-\d\d?-\d\d?|\d{8}", text)
        told = f'date/time field value out of range: "{value}"' if looks else f'invalid input syntax for type {spoken}: "{value}"'
        raise Unstorable(told) from None


def _instant(value: Any) -> str:
    moment = _moment(value, "timestamp with time zone")
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.isoformat()


def _local(value: Any) -> str:
    # a zone is read and forgotten
    return _moment(value, "timestamp").replace(tzinfo=None).isoformat(timespec="milliseconds")


def _date(value: Any) -> str:
    return _moment(value, "date").date().isoformat()


def _time(value: Any) -> str:
    try:
        return time.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise Unstorable(f'invalid input syntax for type time: "{value}"') from None


_READERS: dict[str, Callable[[Any], Any]] = {
    "float4": _float, "float8": _float, "numeric": _numeric, "bool": _bool, "timestamp": _local, "timestamptz": _instant, "date": _date,
    "time": _time,
}  # fmt: skip


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


# --------------------------------------------------------------------------------------------------------------- filters


def _holds(name: str, kind: str, wanted: Any) -> Callable[[Any], bool]:
    """A test of a value by what a filter says: a value, several of them, {operation: value}, or several of these. Raises Invalid."""
    if isinstance(wanted, dict):
        tests = [_compares(name, kind, operation, value) for operation, value in wanted.items()]
        return lambda value: all(test(value) for test in tests)
    if isinstance(wanted, list):
        tests = [_holds(name, kind, each) for each in wanted]
        return lambda value: any(test(value) for test in tests)
    return _compares(name, kind, "eq", wanted)


def _compares(name: str, kind: str, operation: str, wanted: Any) -> Callable[[Any], bool]:
    if operation == "in":
        return _holds(name, kind, list(wanted))
    if operation not in ("eq", "ne", "gt", "gte", "lt", "lte"):
        raise Invalid(filters=[f"Unknown filter operation: FilterOp(field={name!r}, op={operation!r}, value={wanted!r})"])
    try:
        other = stored(wanted, kind, name) if wanted != "" or kind == "text" else _empty(kind)
    except Unstorable as refusal:
        raise Invalid(query=["Invalid query"], info={"orig": [str(refusal)]}) from None
    compare: dict[str, Callable[[Any], bool]] = {
        "eq": lambda value: value == other,
        "ne": lambda value: value != other,
        "gt": lambda value: value > other,
        "gte": lambda value: value >= other,
        "lt": lambda value: value < other,
        "lte": lambda value: value <= other,
    }
    # null is neither equal to anything nor different from it
    return lambda value: value is not None and other is not None and compare[operation](value)


def _empty(kind: str) -> Any:
    """An empty text among the values of another type: written, it is null; asked for, it is an error."""
    raise Unstorable(f'invalid input syntax for type {_SPOKEN.get(kind, kind)}: ""')


def _parsed_filters(filters: Any) -> Mapping[str, Any]:
    if isinstance(filters, str):
        try:
            filters = json.loads(filters)
        except ValueError:
            raise Invalid(filters=["Cannot parse JSON"]) from None
    return filters or {}


def _listed(asked: Any) -> list[str]:
    """A list that may have come as one text with commas."""
    if isinstance(asked, str):
        return [part.strip() for part in asked.split(",") if part.strip()]
    return list(asked or [])


def _natural(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Invalid(**{name: ["Invalid integer", "Please enter an integer value"]}) from None
    if number < 0:
        raise Invalid(**{name: ["Must be a natural number"]})
    return number


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "t", "y", "on", "1")


def dumped(table: Table) -> Iterable[str]:
    """A table as lines of JSON: what it is, then its rows."""
    yield json.dumps(
        {
            "fields": [each.shown() for each in table.fields.values()],
            "key": table.key,
            "last_id": table.last_id,
            "triggers": table.triggers,
            "token": table.token,
        }
    )
    for number, row in table.rows.items():
        yield json.dumps([number, *row.values()])


def restored(lines: Iterable[str]) -> Table:
    """The table that `dumped` wrote."""
    lines = iter(lines)
    told = json.loads(next(lines))
    table = Table(
        fields={each["id"]: Field(each["id"], each["type"], each.get("info")) for each in told["fields"]},
        key=tuple(told["key"]), last_id=told["last_id"], triggers=tuple(told["triggers"]), token=told["token"],
    )  # fmt: skip
    for line in lines:
        number, *values = json.loads(line)
        table.rows[number] = dict(zip(table.fields, values, strict=True))
    return table
