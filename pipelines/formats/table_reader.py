"""Tables of any file format → the CSV that the warehouse stages, as the attributes of a configuration say.

The formats differ only in how rows are had: each gives its own in batches (`Batch`). Here names are matched, values typed column by column,
what does not fit is refused with its column and value, and the rest is written. What the file has and nobody configured is told
(`extra`); what is configured and the file lacks is refused before it could make a column of nothings (`MissingColumns`).
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import DataError
from pipelines.formats.attributes import FILE_DATE, GEOMETRY, Attribute, Cleaner, Number
from pipelines.formats.standard import Refused, Tally

#: So many rows are typed and written at once.
BATCH = 2_000
#: What stands around a name in a header and is no part of it: spaces, and the mark of UTF-8, also read as latin1.
_AROUND = "\ufeff \t\r\n\xa0"
_MISREAD_MARK = "ï»¿"
#: The names under which a file has the two halves of a point, the likelier first.
LATITUDES = ("lat", "latitude", "y", "y coordinate", "point_y")
LONGITUDES = ("lon", "long", "lng", "longitude", "x", "x coordinate", "point_x")
_COORDINATE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
#: So many of the nearest names are told of one that is missing.
NEAREST = 3


class MissingColumns(DataError):
    """A file lacks configured columns: `missing` are their names, `extra` what the file has and nobody configured."""

    def __init__(self, file: str, missing: Sequence[str], names: Sequence[str], extra: Sequence[str]):
        missing, names, extra = (list(map(legible, given)) for given in (missing, names, extra))
        told = "; ".join(f"{name} is in the configuration, but not in the data{_nearest(name, extra or names)}" for name in missing)
        super().__init__(
            f"{file}: {told}.",
            code="columns-missing",
            next_step="Change these attributes to the names that the file has now, or ask the provider; then run standardize again.",
        )
        self.missing, self.extra = missing, extra


def _nearest(name: str, names: Iterable[str]) -> str:
    """The names that could be meant, to be set behind one that is missing; "" where none is near."""
    told = {one.casefold(): one for one in names}
    near = [told[one] for one in difflib.get_close_matches(name.casefold(), list(told), NEAREST, 0.5)]
    return f" (nearest there: {', '.join(near)})" if near else ""


@dataclass(frozen=True)
class Terms:
    """What a reader is told: the attributes, the names of those that tell a row by, the zone of epoch times, the pipeline's options."""

    attributes: tuple[Attribute, ...]
    key: tuple[str, ...] = ()
    zone: tzinfo | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    title: str = "The pipeline"


class Batch(ABC):
    """Some rows of a file."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, name: str) -> Sequence[Any]:
        """The values of a column by the source's name."""

    @abstractmethod
    def row(self, place: int) -> tuple[int, dict[str, Any]]:
        """A row for a person to look at: its number in the file (the first is 1; in CSV its line), and all that it holds."""


class Records(Batch):
    """Rows that are mappings, such as JSON's objects, and their numbers in the file."""

    def __init__(self, records: Sequence[Mapping[str, Any]], numbers: Sequence[int]):
        self._records, self._numbers = records, numbers

    def __len__(self) -> int:
        return len(self._records)

    def column(self, name: str) -> Sequence[Any]:
        return [record.get(name) for record in self._records]

    def row(self, place: int) -> tuple[int, dict[str, Any]]:
        return self._numbers[place], dict(self._records[place])


class TableReader(ABC):
    """Reads the files of one block. A format says `rows_of`; what it remembers is the block's."""

    #: Every value is text, as in CSV.
    is_text = False
    #: The names of all columns are known before the first row.
    has_header = False
    #: What is said of a cell with bytes or letters that no text may hold.
    not_text = "has letters that are no Unicode"

    def __init__(self, terms: Terms):
        self.terms = terms
        self.attributes = terms.attributes
        self.columns = tuple((attribute.name, attribute.kind) for attribute in self.attributes)
        self.tally = Tally()
        self.extra: dict[str, None] = {}
        self._cleaners = [Cleaner(attribute, *([terms.zone] if terms.zone else []), is_text=self.is_text) for attribute in self.attributes]
        self._refused: list[Refused] = []

    @abstractmethod
    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        """The rows of a file. The names of its columns are added to `names` before the first batch that has them. Raises DataError.

        A format whose file names its columns at once yields nothing before that; an empty `names` at the end: the file says none.
        """

    def convert(self, page: Path, target: Path, about: Mapping[str, Any]) -> Iterator[Refused]:
        """Write the rows of a file to `target` (CSV, UTF-8, a header) and yield what is refused. Raises MissingColumns, DataError.

        `about["date_from_filename"]` is what the address says of the file's year.
        """
        names: dict[str, None] = {}
        plan, planned = _Plan(self.attributes, names, about, self.terms.options), -1
        with target.open("wb") as file:
            file.write(lines_of([[attribute.name] for attribute in self.attributes], 1))
            for batch in self.rows_of(page, about, names):
                if len(names) != planned:
                    # a document's rows may bring names that those before had not
                    plan, planned = _Plan(self.attributes, names, about, self.terms.options), len(names)
                    if self.has_header:
                        self._settle(page, plan)
                self._write(batch, plan, file)
                yield from self._taken()
        yield from self._taken()
        if names or self.has_header:
            if planned != len(names):
                plan = _Plan(self.attributes, names, about, self.terms.options)
            self._settle(page, plan)
        for words in plan.warnings:
            self.tally.warnings[words] += 1

    def report(self) -> dict[str, Any]:
        return {}

    def finish(self) -> None:  # noqa: B027  most formats have nothing more to say
        """Called after the last file of a block. Raises DataError where only all of them together show that something is missing."""

    def in_batches(self, found: Iterable[tuple[int, Any]], names: dict[str, None]) -> Iterator[Batch]:
        """Numbered records as batches; what is no mapping is refused."""
        records: list[Mapping[str, Any]] = []
        numbers: list[int] = []
        for number, record in found:
            if isinstance(record, Mapping):
                if not record.keys() <= names.keys():
                    names.update(dict.fromkeys(record))
                records.append(record)
                numbers.append(number)
            else:
                self.refuse(number, "it is not an object", {"record": record}, value=record)
            if len(records) >= BATCH:
                yield Records(records, numbers)
                records, numbers = [], []
        if records:
            yield Records(records, numbers)

    def refuse(self, number: int, reason: str, raw: Mapping[str, Any], *, column: str = "", value: Any = "") -> None:
        """Refuse a record that is no row: the format yields nothing for it."""
        self.tally.rows_in += 1
        self.tally.rejected += 1
        self._refused.append(Refused(number, reason, column, shown(value), "", plain(raw)))

    def _taken(self) -> list[Refused]:
        taken, self._refused = sorted(self._refused, key=lambda refused: refused.number), []
        return taken

    def _settle(self, page: Path, plan: _Plan) -> None:
        """Raise MissingColumns where a file lacks what is configured; else keep what it has beside that."""
        if plan.missing:
            raise MissingColumns(page.name, plan.missing, list(plan.names), plan.extra)
        self.extra |= dict.fromkeys(map(legible, plan.extra))

    def _write(self, batch: Batch, plan: _Plan, file: BinaryIO) -> None:
        rows, wrong = len(batch), {}
        texts: list[Sequence[str]] = []
        for attribute, cleaner, values_of in zip(self.attributes, self._cleaners, plan.values, strict=True):
            values = values_of(batch)
            cleaned = cleaner.column(values)
            texts.append(cleaned.texts)
            for place, words in cleaned.unfit.items():
                # the first that is wrong is told
                wrong.setdefault(place, (attribute, words, values[place]))
            if attribute.name == GEOMETRY and plan.makes_points:
                odd = {place: value for place, value in enumerate(values) if type(value) is _NoPoint}
                wrong |= {place: (attribute, "would be made of coordinates that are no numbers", value) for place, value in odd.items()}
        if wrong:
            rows = _without(texts, wrong)
        if rows:
            try:
                lines = lines_of(texts, rows)
            except UnicodeEncodeError:
                places = [place for place in range(len(batch)) if place not in wrong]
                broken = self._broken(batch, plan, texts, places)
                rows = _without(texts, {left for left, place in enumerate(places) if place in broken})
                wrong |= broken
                lines = lines_of(texts, rows)
            file.write(lines)
        self.tally.rows_in += len(batch)
        self.tally.rows_out += rows
        self.tally.rejected += len(wrong)
        for place in sorted(wrong):
            attribute, words, value = wrong[place]
            number, raw = batch.row(place)
            key = " · ".join(shown(raw.get(one.source)) for one in self.attributes if one.name in self.terms.key)
            self._refused.append(Refused(number, f"{attribute.name} {words}", attribute.name, shown(value), key, plain(raw)))

    def _broken(self, batch: Batch, plan: _Plan, texts: list[Sequence[str]], places: Sequence[int]) -> dict[int, tuple[Attribute, str, Any]]:
        """The rows (by their places in the batch) of which a cell is no text that any file may hold."""
        broken: dict[int, tuple[Attribute, str, Any]] = {}
        for attribute, column in zip(self.attributes, texts, strict=True):
            for place, cell in zip(places, column, strict=True):
                if not cell.isascii() and place not in broken and not _is_text(cell):
                    broken[place] = (attribute, self.not_text, cell)
        return broken


class _Plan:
    """How each attribute's values are had of a file whose columns have these names."""

    def __init__(self, attributes: Sequence[Attribute], names: Mapping[str, Any], about: Mapping[str, Any], options: Mapping[str, Any]):
        self.names = names
        self.missing: list[str] = []
        self.warnings: list[str] = []
        self.makes_points = False
        used: set[str] = set()
        bare: dict[str, str] = {}
        for name in names:
            bare.setdefault(bare_name(name), name)
        self.values: list[Callable[[Batch], Sequence[Any]]] = []
        for attribute in attributes:
            source = attribute.source
            near = bare.get(bare_name(source))
            if source in names:
                self._take(source, used)
            elif source == FILE_DATE and (options.get("multi_insert_date") or FILE_DATE in about):
                self._constant(about.get(FILE_DATE))
            elif near is not None:
                if near.strip() != near or source.strip() != source:
                    self.warnings.append(f"the column {source!r} is {near!r} in the file: only spaces differ")
                self._take(near, used)
            elif source == GEOMETRY and (point := halves(names)):
                used.update(point)
                self.values.append(_points(*point))
                self.makes_points = True
            else:
                self.missing += [source] * (source not in self.missing)
                self._constant(None)
        self.extra = [name for name in names if name not in used and bare_name(name)]

    def _take(self, name: str, used: set[str]) -> None:
        used.add(name)
        self.values.append(lambda batch: batch.column(name))

    def _constant(self, value: Any) -> None:
        self.values.append(lambda batch: [value] * len(batch))


def bare_name(name: str) -> str:
    """A column's name without what stands around it."""
    return name.removeprefix(_MISREAD_MARK).strip(_AROUND)


def halves(names: Iterable[str]) -> tuple[str, str] | None:
    """The columns of latitude and longitude, None where one is missing."""
    told = {bare_name(name).lower(): name for name in names}
    latitude = next((told[name] for name in LATITUDES if name in told), None)
    longitude = next((told[name] for name in LONGITUDES if name in told), None)
    return (latitude, longitude) if latitude is not None and longitude is not None else None


def _points(latitude: str, longitude: str) -> Callable[[Batch], Sequence[Any]]:
    """What makes GeoJSON points of two columns; nothing where one of them is empty."""

    def made(batch: Batch) -> list[str | None]:
        return [point(lon, lat) for lat, lon in zip(batch.column(latitude), batch.column(longitude), strict=True)]

    return made


def point(longitude: Any, latitude: Any) -> str | None:
    """Two cells as a GeoJSON point; None where one is empty, and a `_NoPoint` where one is no number."""
    east, north = (str(value).strip() if value is not None else "" for value in (longitude, latitude))
    if not east or not north:
        return None
    if not _COORDINATE.fullmatch(east) or not _COORDINATE.fullmatch(north):
        return _NoPoint(f"{east}, {north}")
    return f'{{"type":"Point","coordinates":[{_coordinate(east)},{_coordinate(north)}]}}'


class _NoPoint(str):
    """Two cells that no point can be made of."""


def _coordinate(written: str) -> str:
    """A number as JSON has it: as it stands, where it is one there."""
    try:
        json.loads(written)
        return written
    except ValueError:
        return repr(float(written))


# writing


def lines_of(columns: Sequence[Sequence[str]], rows: int) -> bytes:
    """Rows, given as columns of texts, as CSV. Raises UnicodeEncodeError for letters that no file may hold."""
    if len(columns) == 1:
        # alone in its line, nothing must be an empty line, and a cell `\.` would end COPY
        text = "".join('"' + cell.replace('"', '""') + '"\n' if cell else "\n" for cell in columns[0])
    else:
        text = _written(columns)
    if "\x00" in text:
        text = text.replace("\x00", " ")
    return text.encode()


def _written(columns: Sequence[Sequence[str]]) -> str:
    held = io.StringIO()
    csv.writer(held, lineterminator="\n").writerows(zip(*columns, strict=True))
    text = held.getvalue()
    if "\r" in text:
        # told that lines end with LF, it leaves a bare CR without quotes
        held = io.StringIO()
        csv.writer(_LineEnds(held), lineterminator="\r\n").writerows(zip(*columns, strict=True))
        text = held.getvalue()
    return text


class _LineEnds:
    """A file for csv.writer: told to end lines with CR LF, it quotes both of them in cells; here each line ends with LF."""

    def __init__(self, file: io.StringIO):
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _without(columns: list[Sequence[str]], places: Iterable[int]) -> int:
    """Take these rows out of all columns; returns how many are left."""
    gone = set(places)
    for number, column in enumerate(columns):
        columns[number] = [cell for place, cell in enumerate(column) if place not in gone]
    return len(columns[0]) if columns else 0


def _is_text(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True


# for people to look at


def legible(name: str) -> str:
    """A name as it can be kept and shown: what is no text is written as its bytes."""
    return "".join(sign if not "\ud800" <= sign <= "\udfff" else f"\\x{ord(sign) & 0xFF:02x}" for sign in name).replace("\x00", "\\x00")


def shown(value: Any) -> str:
    """A value as text; "" for nothing."""
    return "" if value is None else str(value)


def plain(value: Any) -> Any:
    """What JSON can hold of a record: numbers that came as text are numbers, dates texts."""
    match value:
        case Number():
            number = float(value)
            return number if abs(number) < 1e300 else str(value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(name): plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case datetime() | date() | time() | timedelta():
            return str(value)
    return repr(value)
