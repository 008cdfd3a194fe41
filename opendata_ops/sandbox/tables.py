"""A portal's table: rows in memory, or rows made on demand by their number; found, ordered, edited and published to.

Values are kept in the portal's own form: text and numbers as text, a calendar date as `2016-09-21T15:45:00.000`, a checkbox
as a bool, a point as GeoJSON, null as None. A record is never changed, only replaced, so a page that is being sent stays true.
"""

from __future__ import annotations

import bisect
import csv
import json
import random
import re
import threading
import time
import zlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import soql

#: metadata's dataTypeName → the type as X-SODA2-Types and SoQL say it; what is not here says its own name
SODA_TYPES = {"calendar_date": "floating_timestamp", "date": "fixed_timestamp"}
#: as the metadata calls a type in the catalog
CATALOG_TYPES = {"calendar_date": "Calendar date", "date": "Date", "url": "URL"}
SYSTEM_TYPES = {":id": "row_identifier", ":created_at": "fixed_timestamp", ":updated_at": "fixed_timestamp", ":version": "row_version"}

#: more rows than this are sampled for cachedContents and never sorted twice
LARGE = 100_000


@dataclass(frozen=True)
class Column:
    """A column as the portal describes it. `type` is a dataTypeName; `display` is how rows.csv writes a calendar date."""

    name: str
    type: str = "text"
    label: str = ""
    description: str = ""
    display: str = "%m/%d/%Y %I:%M:%S %p"

    @property
    def soda_type(self) -> str:
        return SODA_TYPES.get(self.type, self.type)


class Record:
    """One row: its number (whence `:id`), its system times as text, its values in the order of the columns."""

    __slots__ = ("seq", "created", "updated", "values")

    def __init__(self, seq: int, created: str, updated: str, values: tuple[Any, ...]):
        self.seq = seq
        self.created = created
        self.updated = updated
        self.values = values


def field_name(label: str) -> str:
    """The field name that a portal makes of a column's label: `Animal's Name` → `animal_s_name`."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def guess_type(name: str) -> str:
    """A column's type by its name, as the city data of this field is named."""
    if name.endswith("date"):
        return "calendar_date"
    return "number" if name in ("latitude", "longitude", "nc", "cd") else "text"


_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?(?: ?([AP]M))?)?$")


@lru_cache(65_536)
def local_time(text: str) -> str:
    """`1/2/20 8:43`, `01/02/2020 08:43:00 AM`, `April 19 2003` or ISO as a calendar date. Raises ValueError."""
    if found := _US_DATE.match(text):
        month, day, year, hour, minute, second, half = found.groups()
        hours = int(hour or 0)
        if half:
            hours = hours % 12 + (12 if half == "PM" else 0)
        when = datetime(  # noqa: DTZ001 - a calendar date has no zone
            int(year) + (2000 if len(year) == 2 else 0), int(month), int(day), hours, int(minute or 0), int(second or 0)
        )
        return when.isoformat(timespec="milliseconds")
    if text[:1].isalpha():
        return datetime.strptime(text, "%B %d %Y").isoformat(timespec="milliseconds")  # noqa: DTZ007 - nor has this
    return soql.timestamp(text, "floating_timestamp")


def portal_value(value: Any, kind: str) -> Any:
    """What a portal keeps of a value that it is sent for a column of dataTypeName `kind`. Raises ValueError."""
    return None if value is None or value == "" else _CONVERT.get(kind, _text)(value)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, dict | list):
        raise ValueError(f"{value!r} is not text")
    return json.dumps(value)


@lru_cache(65_536)
def _number_text(text: str) -> str:
    try:
        parsed = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if not parsed.is_finite():
        raise ValueError(f"{text!r} is not a number")
    return format(parsed, "f")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a number")
    return _number_text(str(value))


@lru_cache(65_536)
def _instant(text: str) -> str:
    return soql.timestamp(text, "fixed_timestamp")


def _checkbox(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"{value!r} is not true or false")


def _point(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value.get("type") == "Point":
        longitude, latitude = value["coordinates"]
    elif isinstance(value, str) and (found := re.fullmatch(r"POINT \((\S+) (\S+)\)", value.strip())):
        longitude, latitude = found.groups()
    elif isinstance(value, str) and (found := re.fullmatch(r"\((\S+), (\S+)\)", value.strip())):
        latitude, longitude = found.groups()
    else:
        raise ValueError(f"{value!r} is not a point")
    return {"type": "Point", "coordinates": [float(longitude), float(latitude)]}


def _location(value: Any) -> dict[str, Any]:
    """The older type of a place: an object with the two numbers as text."""
    if isinstance(value, dict) and "latitude" in value and "longitude" in value:
        return value
    longitude, latitude = _point(value)["coordinates"]
    return {"latitude": str(latitude), "longitude": str(longitude), "needs_recoding": False}


#: dataTypeName → what the portal makes of a value that is not null; what is not here is text
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "number": _number,
    "calendar_date": lambda value: local_time(str(value)),
    "date": lambda value: _instant(str(value)),
    "checkbox": _checkbox,
    "point": _point,
    "location": _location,
    "url": lambda value: value,
}


class MadeRows(Sequence[Record]):
    """Rows made by their number: `make(i)` gives the values of row i, always the same. Edited and added rows are kept aside."""

    def __init__(self, count: int, make: Callable[[int], tuple[Any, ...]], created: str):
        self.count = count
        self.make = make
        self.created = created
        self.edited: dict[int, Record] = {}
        self.added: list[Record] = []

    def __len__(self) -> int:
        return self.count + len(self.added)

    def __getitem__(self, i: Any) -> Any:
        if i >= self.count:
            return self.added[i - self.count]
        if self.edited and (found := self.edited.get(i)):
            return found
        return Record(i, self.created, self.created, self.make(i))

    def touched(self) -> Iterator[int]:
        """The places of the rows that are no longer, or never were, as they were made."""
        yield from sorted(self.edited)
        yield from range(self.count, len(self))

    def replaced(self, changes: Mapping[int, Record], added: Sequence[Record]) -> MadeRows:
        """The same rows with these changed (by place) and these at the end."""
        made = MadeRows(self.count, self.make, self.created)
        made.edited = {**self.edited, **{i: record for i, record in changes.items() if i < self.count}}
        kept = [changes.get(self.count + place, record) for place, record in enumerate(self.added)]
        made.added = [*kept, *added]
        return made

    def mapped(self, change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> MadeRows:
        """The same rows with other columns."""
        old = self.make
        made = MadeRows(self.count, lambda i: change(old(i)), self.created)
        made.edited = {i: _with(record, change(record.values)) for i, record in self.edited.items()}
        made.added = [_with(record, change(record.values)) for record in self.added]
        return made


def _with(record: Record, values: tuple[Any, ...], updated: str = "") -> Record:
    return Record(record.seq, record.created, updated or record.updated, values)


class Shuffled(Sequence[int]):
    """The same places in another order, without holding them: what a portal gives to who asks for no order.

    The order is a function of `turn`, so that the pages of one reader do not fit together, the same way each time.
    """

    def __init__(self, places: Sequence[int], turn: int):
        self.places = places
        size = max(1, len(places))
        self.step = _coprime(int(size * 0.381966) + turn * 7 + 1, size)
        self.start = (turn * 2_654_435_761) % size

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: Any) -> Any:
        size = len(self.places)
        if isinstance(i, slice):
            return [self.places[(self.start + self.step * n) % size] for n in range(*i.indices(size))]
        if not 0 <= i < size:
            raise IndexError(i)
        return self.places[(self.start + self.step * i) % size]


def _coprime(near: int, size: int) -> int:
    """A step near `near` that visits all of `size` places before it repeats."""
    near = near % size or 1
    while _gcd(near, size) != 1:
        near = near % size + 1
    return near


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


class IllegalField(ValueError):
    """A publish names a field that the table does not have."""


class Dataset:
    """One table of a portal with its description.

    `columns` are Columns, or (name, type[, label]) tuples, or names; `rows` are dicts by field name or tuples in the order
    of the columns. With `key` (a field name, the publisher's row identifier) a row replaces the row of the same key; without
    one, every publish appends, as on a real portal. A `private` dataset answers 403 to who is not logged in, a `retired` one 410.

    `Dataset.made` takes a function instead of rows, for a million of them.
    """

    def __init__(
        self,
        id: str,
        name: str = "",
        columns: Iterable[Column | tuple[str, ...] | str] = (),
        rows: Iterable[Mapping[str, Any] | Sequence[Any]] = (),
        *,
        key: str = "",
        description: str = "",
        attribution: str = "",
        category: str = "",
        tags: Sequence[str] = (),
        licence: str = "",
        update_frequency: str = "",
        contact_email: str = "",
        private: bool = False,
        retired: bool = False,
        rows_updated_at: int | None = None,
    ):
        if not re.fullmatch(r"[a-z0-9]{4}-[a-z0-9]{4}", id):
            raise ValueError(f"{id!r} is not a dataset id like abcd-1234")
        self.id = id
        self.name = name or id
        self.columns = tuple(_column(entry) for entry in columns)
        if key and key not in self.names:
            raise ValueError(f"{id}: the key {key!r} is not one of the columns {', '.join(self.names)}")
        self.key = key
        self.description = description
        self.attribution = attribution
        self.category = category
        self.tags = tuple(tags)
        self.licence = licence
        self.update_frequency = update_frequency
        self.contact_email = contact_email
        self.private = private
        self.retired = retired
        self.clock: Callable[[], float] = time.time
        self.rows_updated_at = int(self.clock()) if rows_updated_at is None else rows_updated_at
        self.created_at = self.rows_updated_at
        self.view_last_modified = self.rows_updated_at
        self.version = 1
        #: columns that grow with the row's place → whether no two rows share a value; `:id` always does
        self.grows: dict[str, bool] = {":id": True}
        self._lock = threading.RLock()
        self._places: dict[Any, int] = {}
        self._next_seq = 0
        self._turn = 0
        self._remembered: OrderedDict[Any, Any] = OrderedDict()
        self._rows: Sequence[Record] = []
        self._converters: list[tuple[str, Callable[[Any], Any]]] = []
        #: why the rows of the last publish that were counted in Errors were refused
        self.refusals: list[str] = []
        initial = [entry if isinstance(entry, Mapping) else dict(zip(self.names, entry, strict=True)) for entry in rows]
        if initial:
            told = self.publish(initial, moment=self.rows_updated_at)
            if told["Errors"]:
                raise ValueError(f"{id}: {told['Errors']} of its first rows do not fit its columns; the first: {self.refusals[0]}")

    @classmethod
    def made(
        cls,
        id: str,
        name: str,
        columns: Iterable[Column | tuple[str, ...] | str],
        count: int,
        make: Callable[[int], tuple[Any, ...]],
        *,
        key: str = "",
        grows: Mapping[str, bool] | None = None,
        **about: Any,
    ) -> Dataset:
        """A dataset of `count` rows that are made when they are asked for: `make(i)` gives the values of row i.

        `grows` names the columns whose values never fall as i grows (True: and never repeat; the key among them): windows
        and orders on those cost nothing. It can be read, edited and added to, not published to.
        """
        dataset = cls(id, name, columns, key=key, **about)
        dataset.grows.update(grows or ({key: True} if key else {}))
        dataset._rows = MadeRows(count, make, utc_text(dataset.rows_updated_at))
        dataset._next_seq = count
        return dataset

    @classmethod
    def from_csv(cls, path: str | Path, *, id: str, key: str = "", types: Mapping[str, str] | None = None, name: str = "", **about: Any) -> Dataset:
        """A dataset of the rows of a CSV file with a header. Field names are made of the header as a portal makes them.

        `types` maps field names to dataTypeNames; a column that it does not name is guessed by `guess_type`.
        Raises ValueError that names the line and the column for a value that does not fit.
        """
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            labels = next(reader)
            names = [field_name(label) for label in labels]
            if unknown := sorted(set(types or {}) - set(names)):
                raise ValueError(f"{path}: types name columns that are not there: {', '.join(unknown)}")
            kinds = [(types or {}).get(field) or guess_type(field) for field in names]
            rows = []
            for row in reader:
                try:
                    rows.append([portal_value(value, kind) for value, kind in zip(row, kinds, strict=True)])
                except ValueError as error:
                    raise ValueError(f"{path} line {reader.line_num}: {error}") from error
        columns = [Column(field, kind, label) for field, kind, label in zip(names, kinds, labels, strict=True)]
        dataset = cls(id, name or Path(path).stem, columns, key=key, **about)
        if key and (holes := sum(row[names.index(key)] is None for row in rows)):
            raise ValueError(f"{path}: {holes} rows have no {key}")
        dataset.fill(rows)
        return dataset

    # what it is
    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Any:
        """All rows as dicts (null is None): a dict by key, or a list for a dataset without a key."""
        names, records = self.names, self._rows
        listed = (dict(zip(names, records[i].values, strict=True)) for i in range(len(records)))
        return {row[self.key]: row for row in listed} if self.key else list(listed)

    def sid(self, seq: int) -> str:
        """The `:id` of a row: opaque text that grows with the row's number."""
        digits = ""
        for _ in range(8):
            seq, digit = divmod(seq, 32)
            digits = "23456789abcdefghijkmnpqrstuvwxyz"[digit] + digits
        return f"row-{self.id[:4]}~{digits[:4]}.{digits[4:]}"

    # finding rows
    def getters(self) -> dict[str, soql.Getter]:
        """How SoQL sees each column, system fields included."""
        known: dict[str, soql.Getter] = {
            ":id": (lambda record: self.sid(record.seq), "row_identifier"),
            ":created_at": (lambda record: record.created, "fixed_timestamp"),
            ":updated_at": (lambda record: record.updated, "fixed_timestamp"),
            ":version": (lambda record: f"rv-{self.id[:4]}~{zlib.crc32(record.updated.encode()) & 0xFFFFFF:06x}", "row_version"),
        }
        for place, column in enumerate(self.columns):
            known[column.name] = (_getter(place, column.type), column.soda_type)
        return known

    def found(self, query: soql.Query) -> tuple[Sequence[Record], Sequence[int]]:
        """(the rows of this moment, the places of those that the query wants, in its order). Raises SoqlError."""
        with self._lock:
            version, rows = self.version, self._rows
            compiler = soql.Compiler(self.getters())
            self._turn += 1
            turn = self._turn
        places = self._matching(version, rows, query, compiler)
        if query.aggregates:
            return rows, places
        if not query.order:
            return rows, Shuffled(places, turn)
        return rows, self._ordered(version, rows, places, query, compiler, turn)

    def _matching(self, version: int, rows: Sequence[Record], query: soql.Query, compiler: soql.Compiler) -> Sequence[int]:
        if query.where is not None and compiler.value(query.where)[1] != "checkbox":
            raise soql.SoqlError("query.soql.type-mismatch", "WHERE wants a condition")
        low, high = 0, len(rows)
        rest = []
        for part in soql.conjuncts(query.where):
            narrowed = self._narrowed(rows, part, compiler, low, high)
            if narrowed is None:
                rest.append(part)
            else:
                low, high = narrowed
        if not rest and not query.search:
            return range(low, max(low, high))

        def scan() -> Sequence[int]:
            tests = [compiler.value(part)[0] for part in rest]
            if query.search:
                words = query.search.lower().split()
                tests.append(lambda record: _mentions(record.values, words))
            looked_at: Iterable[int] = range(low, high)
            if isinstance(rows, MadeRows) and any(_after_the_making(part, rows) for part in rest):
                looked_at = (i for i in rows.touched() if low <= i < high)
            return array("I", (i for i in looked_at if all(test(rows[i]) is True for test in tests)))

        return self._remember(("where", version, query.where, query.search), scan)

    def _narrowed(self, rows: Sequence[Record], part: Any, compiler: soql.Compiler, low: int, high: int) -> tuple[int, int] | None:
        """Where a comparison with a growing column can only be true; None when it is no such comparison."""
        if isinstance(part, soql.Call) and part.name == "or":
            newer, absent = part.args
            # a column that grows has no nulls
            if not isinstance(newer, soql.Call) or absent != soql.Call("is null", newer.args[:1]):
                return None
            part = newer
        if not isinstance(part, soql.Call) or part.name not in ("=", "<", "<=", ">", ">="):
            return None
        column, literal = part.args
        if not isinstance(column, soql.Column) or not isinstance(literal, soql.Literal) or column.name not in self.grows:
            return None
        getter, kind = compiler.column(column.name)
        value = soql.literal_as(literal, kind)
        if value is None:
            return None
        if part.name in (">=", "="):
            low = bisect.bisect_left(rows, value, low, high, key=getter)
        if part.name == ">":
            low = bisect.bisect_right(rows, value, low, high, key=getter)
        if part.name in ("<=", "="):
            high = bisect.bisect_right(rows, value, low, max(low, high), key=getter)
        if part.name == "<":
            high = bisect.bisect_left(rows, value, low, max(low, high), key=getter)
        return low, high

    def _ordered(
        self, version: int, rows: Sequence[Record], places: Sequence[int], query: soql.Query, compiler: soql.Compiler, turn: int
    ) -> Sequence[int]:
        wanted = [(expression.name if isinstance(expression, soql.Column) else "", down) for expression, down in query.order]
        keys = [(compiler.value(expression)[0], down) for expression, down in query.order]
        first, down = wanted[0]
        if first in self.grows and (self.grows[first] or (len(wanted) > 1 and self.grows.get(wanted[1][0]) and wanted[1][1] == down)):
            return places[::-1] if down else places

        def sort(start: Sequence[int]) -> Sequence[int]:
            ordered = list(start)
            for key, downwards in reversed(keys):
                # null is last going up and first going down, as in PostgreSQL
                ordered.sort(key=lambda i, key=key: ((value := key(rows[i])) is None, value), reverse=downwards)
            return array("I", ordered)

        if any(name == ":id" or (name and name == self.key) for name, _ in wanted):
            return self._remember(("order", version, query.where, query.search, tuple(query.order)), lambda: sort(places))
        # ties come in another order each time, as they do on a real portal
        return sort(Shuffled(places, turn))

    def _remember(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
        made = make()
        with self._lock:
            self._remembered[key] = made
            while len(self._remembered) > 16:
                self._remembered.popitem(last=False)
        return made

    # changing rows
    def _moment(self) -> float:
        """When the change that is made now is said to have been: later than the last, even within one second."""
        now = self.clock()
        return now if int(now) > self.rows_updated_at else self.rows_updated_at + 1.0

    def _moved(self, rows: Sequence[Record], moment: float) -> None:
        """The rows are these since `moment`; a row that changed says that moment too, so none is older than rowsUpdatedAt tells."""
        self._rows = rows
        self.version += 1
        self.rows_updated_at = int(moment)
        self._remembered.clear()

    def touch(self) -> int:
        """rowsUpdatedAt moves though no row changed, as after a publisher's identical replace; returns it."""
        with self._lock:
            self._moved(self._rows, self._moment())
            return self.rows_updated_at

    def edit(self, fraction: float = 0.05, seed: int = 0, add: int = 0) -> dict[str, list[str]]:
        """Change round(fraction × rows) rows as a city does, and add some; returns the keys `{"edited": …, "added": …}`.

        A row gets another `status` and a later `updateddate`; without those columns, its first free text is corrected.
        An added row is like an old one under a new key. Keys are `:id` where the dataset has no key. The same seed on the
        same rows changes the same ones.
        """
        with self._lock:
            rows = self._rows
            chance = random.Random(f"{self.id} {seed} {len(rows)}")
            moment = self._moment()
            now = utc_text(moment)
            chosen = sorted(chance.sample(range(len(rows)), min(len(rows), round(len(rows) * fraction))))
            changes = {i: _with(rows[i], self._edited(rows[i].values, chance), now) for i in chosen}
            added: list[Record] = []
            for number in range(add if len(rows) else 0):
                # rows that are made by number grow: a new one is like the last
                old = rows[len(rows) - 1] if isinstance(rows, MadeRows) else rows[chance.randrange(len(rows))]
                added.append(Record(self._next_seq + number, now, now, self._copied(old.values, number)))
            self._next_seq += len(added)
            if isinstance(rows, MadeRows):
                self._moved(rows.replaced(changes, added), moment)
            else:
                self._places.update({self._key_of(record): len(rows) + place for place, record in enumerate(added)})
                self._moved([*(changes.get(i, record) for i, record in enumerate(rows)), *added], moment)
            name = self._key_of if self.key else lambda record: self.sid(record.seq)
            return {"edited": [name(record) for record in changes.values()], "added": [name(record) for record in added]}

    def _edited(self, values: tuple[Any, ...], chance: random.Random) -> tuple[Any, ...]:
        row = dict(zip(self.names, values, strict=True))
        if "status" in row:
            row["status"] = chance.choice([word for word in ("Open", "Pending", "Closed", "Cancelled") if word != row["status"]])
        if "updateddate" in row:
            before = datetime.fromisoformat(row["updateddate"] or "2020-01-01T00:00:00.000")
            row["updateddate"] = (before + timedelta(seconds=chance.randrange(60, 86_400))).isoformat(timespec="milliseconds")
        if "status" not in row and "updateddate" not in row:
            for column in self.columns:
                if column.type == "text" and column.name != self.key and column.name not in self.grows:
                    old = row[column.name] or ""
                    row[column.name] = old.removesuffix(" (corrected)") if old.endswith(" (corrected)") else old + " (corrected)"
                    break
        return tuple(row.values())

    def _copied(self, values: tuple[Any, ...], number: int) -> tuple[Any, ...]:
        if not self.key:
            return values
        place = self.names.index(self.key)
        old = str(values[place])
        digits = re.search(r"\d+$", old)
        step = self._next_seq + number + 1_000_000
        if digits:
            # far past the last key: a made dataset's keys must go on growing; others only must not meet
            base = int(digits[0]) if isinstance(self._rows, MadeRows) else 9 * 10 ** max(len(digits[0]), 7)
            fresh = f"{old[: digits.start()]}{base + step:0{len(digits[0])}d}"
        else:
            fresh = f"{old}-{step}"
        return (*values[:place], fresh, *values[place + 1 :])

    def _key_of(self, record: Record) -> Any:
        return record.values[self.names.index(self.key)] if self.key else None

    def alter(self, add: Mapping[str, str] | None = None, remove: Sequence[str] = (), retype: Mapping[str, str] | None = None) -> tuple[Column, ...]:
        """Add columns (name → dataTypeName, all null), remove some, or give some another type; returns the columns.

        A value that does not fit its new type becomes null, as on a portal. The key cannot be removed (ValueError).
        """
        with self._lock:
            unknown = [name for name in (*remove, *(retype or {})) if name not in self.names]
            if unknown or self.key in remove:
                raise ValueError(f"{self.id} cannot change {', '.join(unknown) or self.key}")
            kept = [place for place, column in enumerate(self.columns) if column.name not in remove]
            retyped = {place: kind for place, column in enumerate(self.columns) if (kind := (retype or {}).get(column.name))}
            more = (None,) * len(add or {})

            def change(values: tuple[Any, ...]) -> tuple[Any, ...]:
                return (*(_fitted(values[i], retyped[i]) if i in retyped else values[i] for i in kept), *more)

            self.columns = (
                *(
                    Column(column.name, retyped.get(i, column.type), column.label, column.description, column.display)
                    for i, column in enumerate(self.columns)
                    if i in kept
                ),
                *(Column(name, kind, name) for name, kind in (add or {}).items()),
            )
            for name in (*remove, *(retype or {})):
                self.grows.pop(name, None)
            rows = self._rows
            changed = rows.mapped(change) if isinstance(rows, MadeRows) else [_with(record, change(record.values)) for record in rows]
            self._moved(changed, self._moment())
            self.view_last_modified = self.rows_updated_at
            return self.columns

    def fill(self, rows: Iterable[Sequence[Any]]) -> None:
        """Hold these rows and no others: values in the order of the columns and already in the portal's own form.

        Of rows with the same key the last stays. rowsUpdatedAt does not move: this is how a table begins.
        """
        with self._lock:
            now = utc_text(self.rows_updated_at)
            place = self.names.index(self.key) if self.key else None
            records: list[Record] = []
            places: dict[Any, int] = {}
            for values in rows:
                record = Record(len(records), now, now, tuple(values))
                at = len(records) if place is None else places.setdefault(values[place], len(records))
                if at == len(records):
                    records.append(record)
                else:
                    records[at] = _with(records[at], record.values)
            self._places, self._next_seq = places, len(records)
            self._moved(records, self.rows_updated_at)

    def publish(self, sent: Sequence[Mapping[str, Any]], *, replace: bool = False, refuse: int = 0, moment: float | None = None) -> dict[str, int]:
        """Upsert rows by the key (or `:id`), or replace all rows by them; returns the portal's counters.

        A field left out of an existing row keeps its value; `:deleted` deletes. A row that does not fit (a bad value, no key,
        deleting what is not there) is counted in `Errors` and skipped, with its reason in `refusals`; the first `refuse` rows are
        refused anyway. Raises IllegalField, with nothing changed, for a field that the table does not have.
        """
        known = {*self.names, *SYSTEM_TYPES, ":deleted"}
        for row in sent:
            for name in row:
                if name not in known:
                    raise IllegalField(f"Illegal field name sent: {name}")
        with self._lock:
            if isinstance(self._rows, MadeRows):
                raise IllegalField(f"{self.id} is made of generated rows and takes no publishing")
            counts = Counter(dict.fromkeys(COUNTERS, 0))
            records: list[Record | None] = [] if replace else list(self._rows)
            places = {} if replace else self._places
            self._converters = [(column.name, _CONVERT.get(column.type, _text)) for column in self.columns]
            self.refusals = []
            moment = self._moment() if moment is None else moment
            now = utc_text(moment)
            by_sid = {self.sid(record.seq): i for i, record in enumerate(records) if record} if any(":id" in row for row in sent) else {}
            for number, row in enumerate(sent):
                try:
                    if number < refuse:
                        raise ValueError("refused on demand")
                    self._put(row, records, places, by_sid, now, counts)
                except ValueError as error:
                    counts["Errors"] += 1
                    self.refusals.append(f"row {number + 1}: {error}")
            if None in records:
                kept = [record for record in records if record is not None]
                places = {self._key_of(record): i for i, record in enumerate(kept)} if self.key else {}
            else:
                kept = records  # type: ignore[assignment]
            self._places = places
            self._moved(kept, moment)
            return dict(counts)

    def _put(
        self,
        row: Mapping[str, Any],
        records: list[Record | None],
        places: dict[Any, int],
        by_sid: Mapping[str, int],
        now: str,
        counts: Counter[str],
    ) -> None:
        key = portal_value(row.get(self.key), self._type_of(self.key)) if self.key else None
        if ":id" in row:
            at, how = by_sid.get(row[":id"]), "By SID"
            if at is None or records[at] is None:
                raise ValueError(f"no row has the :id {row[':id']!r}")
        elif self.key and key is None:
            raise ValueError(f"no value for the row identifier {self.key}")
        else:
            at, how = places.get(key) if self.key else None, "By RowIdentifier"
        if row.get(":deleted") in (True, "true"):
            if at is None or (old := records[at]) is None:
                raise ValueError(f"there is no row {key!r} to delete")
            records[at] = None
            places.pop(self._key_of(old), None)
            counts["Rows Deleted"] += 1
            counts[how] += 1
            return
        old = None if at is None else records[at]
        if old is None:
            values = tuple([None if (value := row.get(name)) is None or value == "" else convert(value) for name, convert in self._converters])
            if self.key:
                places[key] = len(records)
            records.append(Record(self._next_seq, now, now, values))
            self._next_seq += 1
            counts["Rows Created"] += 1
            return
        values = tuple(
            portal_value(row[column.name], column.type) if column.name in row else before
            for column, before in zip(self.columns, old.values, strict=True)
        )
        records[at] = _with(old, values, now)  # type: ignore[index]
        counts["Rows Updated"] += 1
        counts[how] += 1

    def _type_of(self, name: str) -> str:
        return next(column.type for column in self.columns if column.name == name)

    # keeping
    def dump(self) -> Iterator[str]:
        """The rows as lines of JSON, a head first: what `restore` reads."""
        with self._lock:
            records = self._rows
            head = {"id": self.id, "rows_updated_at": self.rows_updated_at, "names": self.names, "next": self._next_seq}
        yield json.dumps(head)
        for record in records:
            yield json.dumps([record.seq, record.created, record.updated, record.values], ensure_ascii=False)

    def restore(self, lines: Iterable[str]) -> None:
        """Take the rows of a dump. Raises ValueError when they are of another table or other columns."""
        reader = iter(lines)
        head = json.loads(next(reader))
        if head["id"] != self.id or tuple(head["names"]) != self.names:
            raise ValueError(f"the stored rows are of {head['id']} with columns {', '.join(head['names'])}, not of {self.id} as it is now")
        with self._lock:
            rows = [Record(seq, created, updated, tuple(values)) for seq, created, updated, values in map(json.loads, reader)]
            self._places = {self._key_of(record): i for i, record in enumerate(rows)} if self.key else {}
            self._next_seq = head["next"]
            self._moved(rows, head["rows_updated_at"])

    # describing
    def cached_contents(self) -> list[dict[str, Any]]:
        """For each column what the portal's profile says: counts as text, smallest, largest, top. A large table is sampled."""
        with self._lock:
            version, rows, columns = self.version, self._rows, self.columns
        return self._remember(("contents", version), lambda: _profile(rows, columns))


COUNTERS = ("Rows Created", "Rows Updated", "Rows Deleted", "Errors", "By RowIdentifier", "By SID")


def utc_text(moment: float) -> str:
    """Epoch seconds as the portal writes an instant: `2026-11-22T03:00:00.000Z`."""
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _column(entry: Column | tuple[str, ...] | str) -> Column:
    if isinstance(entry, Column):
        return entry if entry.label else Column(entry.name, entry.type, entry.name, entry.description, entry.display)
    given = (entry,) if isinstance(entry, str) else tuple(entry)
    name, kind, label = (*given, *("", "text", "")[len(given) :])
    return Column(name, kind or "text", label or name)


def _after_the_making(part: Any, rows: MadeRows) -> bool:
    """Whether a condition wants rows changed after all were made: then a million that nobody touched need no look."""
    match part:
        case soql.Call(">" | ">=", (soql.Column(":updated_at"), soql.Literal() as literal)):
            return bool(soql.literal_as(literal, "fixed_timestamp") > rows.created)
    return False


def _getter(place: int, kind: str) -> Callable[[Record], Any]:
    if kind == "number":
        return lambda record: None if (raw := record.values[place]) is None else soql.number(raw)
    return lambda record: record.values[place]


def _fitted(value: Any, kind: str) -> Any:
    """A value under another type, or None where it does not fit."""
    try:
        return portal_value(value if isinstance(value, str) else json.dumps(value) if kind == "text" and value is not None else value, kind)
    except ValueError:
        return None


def _mentions(values: tuple[Any, ...], words: list[str]) -> bool:
    text = " ".join(value for value in values if isinstance(value, str)).lower()
    return all(word in text for word in words)


def _profile(rows: Sequence[Record], columns: Sequence[Column]) -> list[dict[str, Any]]:
    total = len(rows)
    step = 1 if total <= LARGE else total // 20_000
    sample = [rows[i].values for i in range(0, total, step)]
    scale = total / len(sample) if sample else 1
    told = []
    for place, column in enumerate(columns):
        seen = Counter(json.dumps(v) if isinstance(v, dict) else v for values in sample if (v := values[place]) is not None)
        filled = sum(seen.values())
        contents: dict[str, Any] = {
            "count": str(total),
            "non_null": str(round(filled * scale)),
            "null": str(total - round(filled * scale)),
            "cardinality": str(len(seen)),
        }
        if seen and column.type not in ("point", "location", "url", "checkbox"):
            ranked = soql.number if column.type == "number" else None
            contents["largest"] = max(seen, key=ranked)
            contents["smallest"] = min(seen, key=ranked)
            contents["top"] = [{"item": item, "count": str(round(n * scale))} for item, n in seen.most_common(20)]
        told.append(contents)
    return told
