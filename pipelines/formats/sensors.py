"""What the sensors' formats share: names of files, documents that are written and read row by row, local time, row ids, and the protocol.

A *document* is one JSON object, `{"header": {…}, "data": [ … ], …}`, a row a line. A sensor's format (Bluetooth, Wavetronix,
GRIDSMART) makes documents of raw files (`standardize`), joins them with the inventory (`ready`) and, for cameras, counts them by
the quarter hour (`aggregate`). It knows files and plain values; the stages know the lake. No Django.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from pipelines.errors import DataError
from pipelines.formats.standard import Refused, Tally

# names: as atd-data-lake has them (facts/datalake.md §2)

#: The formats that make documents.
FORMATS = ("bluetooth", "wavetronix", "gridsmart")
#: The layer of a file → the repository in which atd-data-lake keeps it; what is aggregated lies beside what it was made of.
REPOSITORIES = {"raw": "raw", "standard": "rawjson", "ready": "ready", "aggregated": "ready"}


def file_name(base: str, code: str, day: date, ext: str) -> str:
    """`Austin_bt_2019-06-01_unmatched.txt` of an ext with a dot ("unmatched.txt"), `Austin_wt_2019-06-01.csv` of one without ("csv")."""
    return f"{base.replace('/', '&')}_{code}_{day:%Y-%m-%d}{'_' if '.' in ext else '.'}{ext}"


def pointer(layer: str, code: str, day: date, name: str, *, is_test: bool = False) -> str:
    """Where a file of that collection day lies: `rawjson/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.json`; of a test twin in `rawjson-test`."""
    return f"{REPOSITORIES[layer]}{'-test' * is_test}/{day:%Y/%m/%d}/{code}/{name}"


def rows_ext(ext: str) -> str:
    """The ext of the CSV file beside a document: "unmatched.rows.csv" of "unmatched.json", "rows.csv" of "json"."""
    return f"{ext.removesuffix('json')}rows.csv"


# row ids


def md5_of(*values: Any) -> str:
    """The md5, in hex, of the texts of `values` one behind the other: how record ids and device ids have always been made."""
    return hashlib.md5("".join(map(str, values)).encode(), usedforsecurity=False).hexdigest()


# local time


def text_of(at: datetime, time_zone: str) -> str:
    """An aware time as documents write it: `2019-06-01 00:00:00-05:00`, with microseconds only where there are some."""
    return str(at.astimezone(_zone(time_zone)))


@lru_cache(maxsize=32)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=4096)
def offsets(hour: datetime, time_zone: str) -> tuple[str, str]:
    """The UTC offsets of a wall hour, as text, by the first and by the second reading of it; equal but where the clock goes back."""
    zone = _zone(time_zone)
    first = hour.replace(tzinfo=zone)
    second = first.replace(fold=1)
    if first.utcoffset() < second.utcoffset():
        # the clock skips this hour: such a time is taken by the clock before it, as atd-data-lake does
        second = first
    return tuple(str(one)[-6:] for one in (first, second))


class LocalTimes:
    """Gives the times of one file their UTC offset. Of the hour that the autumn clock repeats it says which pass a time is of.

    A file tells the passes apart only by its order: where the times of one `series` (a reader, a pair, a detector) go back within
    that hour, the second pass has begun. Sensors' clocks jitter, so a step back of less than `jitter` is none. A series whose times must
    not repeat (a detector has one row a quarter hour) says `strictly=True`: any step back counts then, and of two equal times the
    second is of the second pass, it alone: a database sorts by the wall time, and so gives both passes by turns.
    """

    def __init__(self, time_zone: str, *, jitter: timedelta = timedelta(minutes=10)):
        self.time_zone, self.jitter = time_zone, jitter
        self._last: dict[Hashable, datetime] = {}
        self._second: set[Hashable] = set()

    def text(self, wall: datetime, series: Hashable = None, *, strictly: bool = False) -> str:
        """A wall time without a zone as documents write it, with its offset: `2019-06-01 00:00:00-05:00`."""
        first, second = offsets(wall.replace(minute=0, second=0, microsecond=0), self.time_zone)
        if first == second:
            return f"{wall}{first}"
        last = self._last.get(series, wall)
        is_again = strictly and series in self._last and wall == last
        if wall < (last if strictly else last - self.jitter):
            self._second.add(series)
        self._last[series] = max(last, wall)
        return f"{wall}{second if is_again or series in self._second else first}"


def wall(text: str) -> str:
    """The wall time of a document's time as portals take it: `2019-06-01T00:00:00` of `2019-06-01 00:00:00-05:00`."""
    return f"{text[:10]}T{text[11:-6]}"


def hashed(text: str, time_zone: str) -> str:
    """What of a document's time goes into a row id: its wall time; in the second pass through a repeated hour with its offset behind it.

    The first pass keeps the id that it always had, and the second no longer takes its place.
    """
    hour = datetime.fromisoformat(f"{text[:13]}:00:00")
    first, second = offsets(hour, time_zone)
    return wall(text) + (text[-6:] if first != second and text[-6:] == second else "")


# documents


_ENCODER = msgspec.json.Encoder()


class DocumentWriter:
    """Writes a document row by row: `{"header":{…},` in the first line, then what is given at the beginning, then a row a line.

    Use it as a context: an error leaves no file behind. What is known only after the last row (`devices`) goes into `tail`.
    Raises UnicodeEncodeError for a text that UTF-8 can't hold: such a row is the format's to refuse.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, rows_key: str = "data", head: Mapping[str, Any] | None = None):
        self.path = path
        self.rows = 0
        self.tail: dict[str, Any] = {}
        self._file = path.open("wb")
        self._put(b"{")
        for name, value in {"header": dict(header), **(head or {})}.items():
            self._put(_ENCODER.encode(name) + b":" + _ENCODER.encode(value) + b",\n")
        self._put(_ENCODER.encode(rows_key) + b":[")

    def _put(self, piece: bytes) -> None:
        self._file.write(piece)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows: many at once are written faster than one by one."""
        self.write_lines(map(_ENCODER.encode, rows))

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Add rows that are JSON objects in UTF-8 already, without a line end in them."""
        lines = list(lines)
        if lines:
            self.write_joined(b",\n".join(lines), len(lines))

    def write_joined(self, lines: bytes, rows: int) -> None:
        """Add so many rows that are joined already, with a comma and a line end between two."""
        self._put((b",\n" if self.rows else b"\n") + lines)
        self.rows += rows

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._put(b"\n]" + b"".join(b",\n" + _ENCODER.encode(name) + b":" + _ENCODER.encode(value) for name, value in self.tail.items()) + b"}\n")
        self._file.close()
        if kind is not None:
            self.path.unlink()


class Document:
    """A document to read: `header` at once, `rows()` one after the other, `part("devices")` what stands before or behind the rows.

    Raises DataError for a file that is no document.
    """

    def __init__(self, path: Path, *, rows_key: str = "data"):
        self.path, self.rows_key = path, rows_key
        self._parts: dict[str, Any] = {}
        self._behind_is_read = False
        with path.open("rb") as file:
            self._rows_at = self._head(file)

    @property
    def header(self) -> dict[str, Any]:
        return self.part("header") or {}

    def part(self, name: str) -> Any:
        """What stands under `name` beside the rows; None if nothing does. The rows are passed over, not read."""
        if name not in self._parts and not self._behind_is_read:
            with self.path.open("rb") as file:
                file.seek(self._rows_at)
                self._tail(next((line for line in file if line[:1] == b"]"), b""), file)
            self._behind_is_read = True
        return self._parts.get(name)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in their order; each is a dict of its own, read when it is asked for."""
        decode = msgspec.json.Decoder().decode
        with self.path.open("rb") as file:
            file.seek(self._rows_at)
            for number, line in enumerate(file, 1):
                if line[:1] == b"]":
                    return
                try:
                    yield decode(line[:-2] if line[-2:] == b",\n" else line)
                except msgspec.DecodeError as error:
                    raise self._broken(f"row {number:,}: {error}") from error
        raise self._broken("it ends before its last row")

    def _head(self, file: Any) -> int:
        begin = b"{"
        opening = _ENCODER.encode(self.rows_key) + b":["
        for line in file:
            if line.startswith(begin):
                line = line.removeprefix(begin)
                begin = b""
            if line.rstrip(b"\n") == opening:
                return file.tell()
            self._member(line)
        raise self._broken(f"it has no {self.rows_key}")

    def _tail(self, line: bytes, file: Iterator[bytes]) -> None:
        if not line:
            raise self._broken("it ends before its last row")
        for line in file:
            self._member(line)

    def _member(self, line: bytes) -> None:
        try:
            # the last member stands before the brace that ends the document
            self._parts.update(msgspec.json.decode(b"{" + (line[:-2] + b"}" if line[-2:] == b",\n" else line)))
        except msgspec.DecodeError as error:
            raise self._broken(str(error)) from error

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self.path.name} is not a document of ours: {what}.", code="bad-document", next_step="Run the block again from extract.")


# the protocol


@dataclass(frozen=True)
class Terms:
    """What a format is told of the block: its local `day` with its ends in UTC, the inventory's `code`, and the pipeline's options.

    `processed_at` is when these inputs were first made into documents: made again of the same they are the same bytes.
    """

    code: str
    day: date
    time_zone: str
    starts_at: datetime
    ends_at: datetime
    processed_at: datetime
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def collection_date(self) -> str:
        return text_of(self.starts_at, self.time_zone)

    @property
    def processing_date(self) -> str:
        return text_of(self.processed_at, self.time_zone)

    def name(self, base: str, ext: str) -> str:
        """The name of a file of this day: what headers call target_filename."""
        return file_name(base, self.code, self.day, ext)

    def dates(self) -> dict[str, str]:
        """The two dates with which a header ends."""
        return {"collection_date": self.collection_date, "processing_date": self.processing_date}


@dataclass(frozen=True)
class Raw:
    """A raw file: what it is called in the lake, its identity of facts §2 (base "Austin", ext "unmatched.txt"), and its helpers by role.

    `helpers` has "site": the site.json of the same intersection (cameras). `metadata` is what the connector told of the file.
    """

    path: Path
    name: str
    base: str
    ext: str
    helpers: Mapping[str, Path] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standard:
    """A standard document, its header already read. `days` is 0 for the block's own day, -1 for the day before, 1 for the day after.

    `role` is "" for what the block is made of, "matched" for the helper from which Bluetooth's counter starts, "site" for a site.json
    (as it came, with an empty `header`). The rows of those two are not in the tally, and what is refused of them is nobody's.
    """

    path: Path
    base: str
    ext: str
    header: Mapping[str, Any]
    days: int = 0
    role: str = ""


@dataclass(frozen=True)
class Made:
    """A document that was written, with its rows; and, where there is one, the CSV file (`table`) of the rows that load takes.

    `columns` are the (name, type) of the table, types as in connectors' COLUMN_TYPES; its header has exactly these names.
    """

    path: Path
    base: str
    ext: str
    header: Mapping[str, Any]
    rows: int
    table: Path | None = None
    columns: Sequence[tuple[str, str]] = ()
    table_rows: int = 0


@dataclass
class Seen:
    """What was observed of one sensor in a day; times are documents' texts (with an offset). Sum up with `see`."""

    value: float = 0
    rows: int = 0
    first: str = ""
    last: str = ""

    def see(self, at: str, value: float = 1) -> None:
        self.value += value
        self.rows += 1
        if at:
            self.first = min(self.first, at) if self.first else at
            self.last = max(self.last, at)

    def told(self, unit: str) -> dict[str, Any]:
        """As the run's details keep it: times in UTC, "" where no row had one."""
        return {"value": self.value, "rows": self.rows, "first": _utc(self.first), "last": _utc(self.last), "unit": unit}


def _utc(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(_zone("UTC")).isoformat() if text else ""


class SensorFormat(Protocol):
    """The three formats of sensors. One is made anew for each stage of each block (`Format(terms)`), so what it remembers is the block's.

    Each verb is a generator: it yields each record that it refuses, and each document once it is written into `folder` (under any
    name of its own: the stage names it in the lake). `tally` grows meanwhile: rows_in = rows_out + rejected + duplicates +
    elsewhere, over all files; `elsewhere` are rows that belong to another day, or to a zone that is not counted.
    A file that can't be read at all (a broken zip) is one refused record with the number 0: it never stops the others.
    An empty line is no record. Nothing raises for what stands in a file.
    """

    tally: Tally
    #: The records of a raw file are what was counted when it came (lines of text); False for a zip, which nobody opens on its way.
    counts_lines: bool

    def standardize(self, raw: Raw, folder: Path) -> Iterator[Refused | Made]:
        """Turn one raw file into its document; a zip into one document a zone. Rows are streamed."""
        ...

    def observations(self) -> dict[str, dict[str, Any]]:
        """After standardize: sensor → `Seen.told(unit)` over all files of the block."""
        ...

    def neighbour(self, header: Mapping[str, Any]) -> int:
        """Which other day's document the day of this one needs to be whole: -1 the day before, 1 the day after, 0 none."""
        ...

    def ready(self, documents: Sequence[Standard], units: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Refused | Made]:
        """Join documents of one base with the inventory's units. Bluetooth and radar yield a Made with a table, cameras one without.

        Cameras are called once for each intersection, with its zones, those of the neighbour days and its site (if any is known).
        """
        ...


class CountingFormat(SensorFormat, Protocol):
    """A format whose rows are counted by the quarter hour before they are loaded; the others come counted."""

    def aggregate(self, document: Path, base: str, folder: Path) -> Iterator[Refused | Made]:
        """Count a ready document by the quarter hour.

        rows_in are vehicles and rows_out too: those whose group is published. The groups are the rows of what is made, and a
        group that is refused is one Refused, however many vehicles of the tally it has.
        """
        ...
