"""Bluetooth readers: three text files a day (who was read where, who was matched between two readers, and the quarter hours' sums).

Standardize makes a document of a file: its times with their UTC offset, every other cell the text that it was. Ready joins it with
the inventory, sorts it, and puts a number in the place of each phone's address: 1 for the first address of the day, in the order
of the matched rows and then of the unmatched ones. The numbers are the same for all who make them from the same files, and are worth
nothing on the next day.

A day has half a million lines: a piece of plain lines is cut by columns, and what is not plain goes line by line. Both give the same.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from pipelines.formats import text_lines
from pipelines.formats.sensors import Document, DocumentWriter, LocalTimes, Made, Raw, Seen, Standard, Terms, md5_of, offsets, wall
from pipelines.formats.sorted_lines import SortedLines
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.tables import TableWriter, id_time, is_number, utc
from pipelines.formats.units import Unit, Units

DATA_TYPE = "bluetooth"
UNIT = "Unmatched Entries"
MATCHED = "matched"
SHORT, LONG = "has fewer fields than a line should have: the others are null", "has more fields than a line should have"
UNREAD = "is no time like 6/1/2019 12:00:00 AM: it is null"
NO_MATCHED = "the day's matched file is missing: the numbers of its addresses begin with the unmatched rows"
#: With a key of text, what else a line had.
TOO_MANY = "null"
#: md5 of these fields of a unit is its device_id.
ID_FIELDS = ("device_type", "device_ip", "lat", "lon")

BATCH = 1_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class File:
    """One of the three files. `guide` is the time by whose order the passes through a repeated hour are told apart.

    `columns` are published; each is (name, type, the row's field); what is made here has none and stands behind the others.
    `needed` fields may not be null.
    """

    fields: tuple[str, ...]
    times: tuple[str, ...]
    guide: str
    readers: tuple[str, ...]
    order: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    hashed: tuple[str, ...]
    needed: tuple[str, ...] = ()
    #: rows of one pair of readers come once for each time
    once_by: tuple[str, ...] = ()

    @property
    def table(self) -> list[tuple[str, str]]:
        """The columns of the CSV file: what is published, and which devices it is of."""
        return [*((name, kind) for name, kind, _ in self.columns), *((name, "text") for name in self.device_fields)]

    @property
    def device_fields(self) -> tuple[str, ...]:
        return ("device_id",) if len(self.readers) == 1 else ("origin_device_id", "dest_device_id")


FILES = {
    "unmatched": File(
        fields=("host_timestamp", "ip_address", "field_timestamp", "reader_id", "dev_addr"),
        times=("host_timestamp", "field_timestamp"),
        guide="host_timestamp",
        readers=("reader_id",),
        order=("host_timestamp", "reader_id"),
        columns=(
            ("host_read_time", "local_time", "host_timestamp"),
            ("field_device_read_time", "local_time", "field_timestamp"),
            ("reader_identifier", "text", "reader_id"),
            ("device_address", "number", "dev_addr"),
            ("record_id", "text", ""),
        ),
        hashed=("host_timestamp", "reader_id", "dev_addr"),
        needed=("dev_addr",),
    ),
    MATCHED: File(
        fields=(
            "dev_addr", "origin_reader_id", "dest_reader_id", "start_time", "end_time", "travel_time_secs", "speed", "match_validity", "filter_id"
        ),
        times=("start_time", "end_time"),
        guide="end_time",
        readers=("origin_reader_id", "dest_reader_id"),
        order=("start_time", "origin_reader_id", "dest_reader_id"),
        columns=(
            ("device_address", "number", "dev_addr"),
            ("origin_reader_identifier", "text", "origin_reader_id"),
            ("destination_reader_identifier", "text", "dest_reader_id"),
            ("travel_time_seconds", "number", "travel_time_secs"),
            ("speed_miles_per_hour", "number", "speed"),
            ("match_validity", "text", "match_validity"),
            ("filter_identifier", "text", "filter_id"),
            ("start_time", "local_time", "start_time"),
            ("end_time", "local_time", "end_time"),
            ("day_of_week", "text", ""),
            ("record_id", "text", ""),
        ),
        hashed=("start_time", "end_time", "origin_reader_id", "dest_reader_id", "dev_addr"),
        needed=("dev_addr",),
    ),
    "traf_match_summary": File(
        fields=(
            "origin_reader_id", "dest_reader_id", "origin_road", "origin_cross_st", "origin_dir", "dest_road", "dest_cross_st", "dest_dir",
            "seg_length", "timestamp", "avg_travel_time", "avg_speed", "interval", "samples", "std_dev",
        ),
        times=("timestamp",),
        guide="timestamp",
        readers=("origin_reader_id", "dest_reader_id"),
        order=("timestamp", "origin_reader_id", "dest_reader_id"),
        columns=(
            ("origin_reader_identifier", "text", "origin_reader_id"),
            ("destination_reader_identifier", "text", "dest_reader_id"),
            ("origin_roadway", "text", "origin_road"),
            ("origin_cross_street", "text", "origin_cross_st"),
            ("origin_direction", "text", "origin_dir"),
            ("destination_roadway", "text", "dest_road"),
            ("destination_cross_street", "text", "dest_cross_st"),
            ("destination_direction", "text", "dest_dir"),
            ("segment_length_miles", "number", "seg_length"),
            ("timestamp", "local_time", "timestamp"),
            ("average_travel_time_seconds", "number", "avg_travel_time"),
            ("average_speed_mph", "number", "avg_speed"),
            ("summary_interval_minutes", "number", "interval"),
            ("number_samples", "number", "samples"),
            ("standard_deviation", "number", "std_dev"),
            ("record_id", "text", ""),
        ),
        hashed=("timestamp", "origin_reader_id", "dest_reader_id", "seg_length"),
        needed=("seg_length",),
        once_by=("origin_reader_id", "dest_reader_id"),
    ),
}  # fmt: skip
#: In this order the addresses of a day are numbered.
ORDER = (MATCHED, "traf_match_summary", "unmatched")


class Bluetooth:
    """The Bluetooth format of one block (see SensorFormat)."""

    counts_lines = True

    def __init__(self, terms: Terms):
        self.terms = terms
        self.tally = Tally()
        self._seen: dict[str, Seen] = {}

    # raw → standard

    def standardize(self, raw: Raw, folder: Path) -> Iterator[Refused | Made]:
        """One file, named by its ext (`unmatched.txt`), as a document. A file that is none of the three is refused whole."""
        kind = raw.ext.removesuffix(".txt")
        if kind not in FILES:
            self.tally.rows_in += 1
            self.tally.rejected += 1
            yield Refused(0, f"is not one of {', '.join(FILES)}", "", raw.ext, raw.name, {"file": raw.name})
            return
        ext = f"{kind}.json"
        header = {
            "data_type": DATA_TYPE,
            "file_type": kind,
            "origin_filename": raw.name,
            "target_filename": self.terms.name(raw.base, ext),
            **self.terms.dates(),
        }
        path = folder / f"{kind}.standard.json"
        reader = _Reader(FILES[kind], self.terms.time_zone, self.tally, self._seen if kind == "unmatched" else None)
        with DocumentWriter(path, header) as document:
            for piece in text_lines.pieces(raw.path):
                lines, refused = reader.read(piece)
                document.write_lines(lines)
                self.tally.rows_out += len(lines)
                self.tally.rejected += len(refused)
                yield from refused
        yield Made(path, raw.base, ext, header, document.rows)

    def observations(self) -> dict[str, dict[str, Any]]:
        """Reads by reader, of the unmatched file alone: the others tell the same reads again."""
        return {name: seen.told(UNIT) for name, seen in sorted(self._seen.items())}

    def neighbour(self, header: Mapping[str, Any]) -> int:
        return 0

    # standard → ready

    def ready(self, documents: Sequence[Standard], units: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Refused | Made]:
        """Each document of the block's own with its devices, sorted, and its table. A document of the role `matched` only numbers addresses."""
        numbers = _Numbers()
        documents = sorted(documents, key=lambda one: ORDER.index(_kind(one)))
        if "unmatched" in map(_kind, documents) and MATCHED not in map(_kind, documents):
            self.tally.warnings[NO_MATCHED] += 1
        for document in documents:
            if document.role:
                # what is refused here is refused, and counted, where the file is published
                join = _Join(document, self.terms, units, Tally(), folder)
                with join:
                    for _ in join.refused():
                        pass
                    for row in join.rows():
                        numbers[row["dev_addr"]]
                continue
            join = _Join(document, self.terms, units, self.tally, folder)
            with join:
                yield from join.refused()
                yield join.write(numbers)

    def aggregate(self, document: Path, base: str, folder: Path) -> Iterator[Refused | Made]:
        raise NotImplementedError("Bluetooth files come with their quarter hours counted")


def _kind(document: Standard) -> str:
    return document.ext.removesuffix(".json")


class _Numbers(dict[str, int]):
    """Address → its number in the day."""

    def __missing__(self, address: str) -> int:
        number = self[address] = len(self) + 1
        return number


# times


#: "05:09" and "05" behind the hour → minutes and seconds.
_REST = {f"{minute:02}{second}": f"{minute:02}{second or ':00'}" for minute in range(60) for second in ("", *(f":{one:02}" for one in range(60)))}
_HALVES = {"AM": 0, "PM": 12}


@lru_cache(maxsize=512)
def _hour(day: str, hour: str, half: str) -> datetime | None:
    """The wall hour of ("6/1/2019", "12", "AM"); None where there is none."""
    try:
        month, of_month, year = day.split("/")
        if len(year) != 4 or not 1 <= int(hour) <= 12:
            return None
        return datetime(int(year), int(month), int(of_month), int(hour) % 12 + _HALVES[half])  # noqa: DTZ001 - a wall time: `offsets` gives it its zone
    except (ValueError, KeyError):
        return None


def _split(text: str) -> tuple[datetime, str] | None:
    """The wall hour of a time as the files write it, and what stands behind the hour ("05:09"); None for what is no time."""
    try:
        day, clock, half = text.split(" ")
    except ValueError:
        return None
    hour, _, rest = clock.partition(":")
    found = _hour(day, hour, half.upper())
    return None if found is None or rest not in _REST else (found, _REST[rest])


class _Times(dict[str, str]):
    """A file's time → its JSON text in a document: `"2019-06-01 00:00:00-05:00"`, or null. The times of one piece are found again.

    A time in the hour that the clock repeats is never kept: `repeated` says that one was asked for, and its text here is of no use.
    """

    #: the seconds of some hours: a file goes by its time
    MOST = 20_000

    def __init__(self, time_zone: str):
        super().__init__()
        self.time_zone = time_zone
        self.repeated = False

    def __missing__(self, text: str) -> str:
        if len(self) >= self.MOST:
            self.clear()
        found = _split(text)
        if found is None:
            self[text] = "null"
            return "null"
        hour, rest = found
        first, second = offsets(hour, self.time_zone)
        if first != second:
            self.repeated = True
            return "null"
        made = self[text] = f'"{str(hour)[:14]}{rest}{first}"'
        return made


# a file


@dataclass
class _Reader:
    """Turns the lines of one file into rows of JSON. `tally.rows_in` grows with each record; a blank line is none."""

    file: File
    time_zone: str
    tally: Tally
    seen: dict[str, Seen] | None
    number: int = 0
    _times: _Times = field(init=False)
    _passes: LocalTimes = field(init=False)
    _template: str = field(init=False)

    def __post_init__(self) -> None:
        self._times, self._passes = _Times(self.time_zone), LocalTimes(self.time_zone)
        times = self.file.times
        self._template = "{" + ",".join(f'"{name}":%s' if name in times else f'"{name}":"%s"' for name in self.file.fields) + "}"
        self._places = [self.file.fields.index(name) for name in times]

    def read(self, piece: bytes) -> tuple[list[bytes], list[Refused]]:
        """The rows of a piece of lines, and what is refused of it."""
        if text_lines.is_plain(piece) and (rows := self._by_columns(piece.decode("ascii").split("\n"))) is not None:
            return rows, []
        rows, refused = [], []
        for line in piece.split(b"\n"):
            self.number += 1
            made = self._by_line(line)
            if made is None:
                continue
            self.tally.rows_in += 1
            (refused if isinstance(made, Refused) else rows).append(made)
        return rows, refused

    # as nearly all lines are

    def _by_columns(self, lines: list[str]) -> list[bytes] | None:
        """The rows of plain lines; None where one of them must be looked at alone."""
        rows = [line.split(",") for line in lines]
        if set(map(len, rows)) != {len(self.file.fields)} or len(max(lines, key=len)) > text_lines.LONGEST:
            return None
        columns: list[Sequence[str]] = list(zip(*rows, strict=True))
        times = self._times
        times.repeated = False
        for place in self._places:
            columns[place] = list(map(times.__getitem__, columns[place]))
        if times.repeated or (self.seen is not None and "null" in columns[0]):
            return None
        for name, place in zip(self.file.times, self._places, strict=True):
            if unread := columns[place].count("null"):
                self.tally.warnings[f"{name} {UNREAD}"] += unread
        if self.seen is not None:
            self._see(columns[3], columns[0])
        self.number += len(rows)
        self.tally.rows_in += len(rows)
        return list(map(str.encode, map(self._template.__mod__, zip(*columns, strict=True))))

    def _see(self, readers: Sequence[str], times: Sequence[str]) -> None:
        """Count reads by reader, with the first and the last time of each: as `Seen.see` row by row."""
        if times != sorted(times):
            times, readers = zip(*sorted(zip(times, readers, strict=True)), strict=True)
        first, last = dict(zip(reversed(readers), reversed(times), strict=True)), dict(zip(readers, times, strict=True))
        for reader, rows in Counter(readers).items():
            seen = self.seen.setdefault(reader, Seen())
            seen.see(first[reader][1:-1], rows)
            seen.see(last[reader][1:-1], 0)
            seen.rows += rows - 2

    # one that may be anything

    def _by_line(self, line: bytes) -> bytes | Refused | None:
        """The row of a line, why it is refused, or None of a blank one."""
        if not line.strip():
            return None
        if problem := text_lines.problem_of(line):
            return self._refuse(problem, line)
        text = line.decode()
        if '"' in text:
            try:
                [cells] = csv.reader([text], strict=True)
            except csv.Error as error:
                return self._refuse(f"is no CSV: {error}", line)
        else:
            cells = text.split(",")
        fields = self.file.fields
        row: dict[str, Any] = dict(zip(fields, [*cells, *[None] * len(fields)], strict=False))
        if len(cells) < len(fields):
            self.tally.warnings[SHORT] += 1
        elif len(cells) > len(fields):
            self.tally.warnings[LONG] += 1
            row[TOO_MANY] = cells[len(fields) :]
        self._tell_times(row)
        if self.seen is not None and row["reader_id"]:
            self.seen.setdefault(row["reader_id"], Seen()).see(row["host_timestamp"] or "")
        return _encode(row)

    def _tell_times(self, row: dict[str, Any]) -> None:
        """The row's times with their offset: the guide's by its place in the file, the others' so that they lie next to it."""
        walls = {name: self._wall(name, row[name]) for name in self.file.times}
        guide = None
        if at := walls[self.file.guide]:
            once_by = tuple(row[name] for name in self.file.once_by)
            guide = self._passes.text(at, once_by, strictly=bool(once_by))
        for name, at in walls.items():
            row[name] = guide if name == self.file.guide else at and self._beside(at, guide)

    def _wall(self, name: str, text: str | None) -> datetime | None:
        if text is None:
            return None
        if found := _split(text):
            hour, rest = found
            return hour.replace(minute=int(rest[:2]), second=int(rest[3:]))
        self.tally.warnings[f"{name} {UNREAD}"] += 1
        return None

    def _beside(self, at: datetime, guide: str | None) -> str:
        both = [f"{at}{offset}" for offset in offsets(at.replace(minute=0, second=0), self.time_zone)]
        if guide is None or both[0] == both[1]:
            return both[0]
        beside = datetime.fromisoformat(guide)
        return min(both, key=lambda text: abs(datetime.fromisoformat(text) - beside))

    def _refuse(self, problem: str, line: bytes) -> Refused:
        return Refused(self.number, f"the line {problem}", "", "", "", {"line": text_lines.shown(line)})


# joined with the inventory


class _Join:
    """The rows of a document that have their devices, sorted on disk. Use it as a context; read `refused` to its end before the rows."""

    def __init__(self, document: Standard, terms: Terms, units: Sequence[Mapping[str, Any]], tally: Tally, folder: Path):
        self.file, self.document, self.terms, self.tally, self.folder = FILES[_kind(document)], document, terms, tally, folder
        self.units = Units(units, "device_name", _name, ID_FIELDS, tally.warnings)
        self._lines = SortedLines(folder)
        self._numbers = tuple(source for _, kind, source in self.file.columns if kind == "number" and source != "dev_addr")

    def __enter__(self) -> _Join:
        return self

    def __exit__(self, *problem: Any) -> None:
        self._lines.__exit__(*problem)

    def refused(self) -> Iterator[Refused]:
        """Read the document; yield what can't be published."""
        file = self.file
        for number, row in enumerate(Document(self.document.path).rows(), 1):
            self.tally.rows_in += 1
            keys = {name: utc(row.get(name)) for name in file.times}
            name = next((name for name in file.times if keys[name] is None), None) or next((name for name in file.needed if not row.get(name)), None)
            if name:
                yield self._refuse(number, name, f"{name} is missing" if row.get(name) in (None, "") else f"{name} is no time", row)
                continue
            if name := next((name for name in self._numbers if not is_number(row.get(name))), None):
                yield self._refuse(number, name, f"{name} is no number", row)
                continue
            devices: list[Unit] = []
            for name in file.readers:
                if not row.get(name):
                    yield self._refuse(number, name, f"{name} is missing", row)
                    break
                if (unit := self.units.find(row[name])) is None:
                    yield self._refuse(number, name, f"{name} is no device of the inventory", row)
                    break
                devices.append(unit)
            else:
                for name, unit in zip(file.device_fields, devices, strict=True):
                    row[name] = unit.device_id
                self._lines.add([keys.get(name) or row[name] for name in file.order], _encode(row))

    def _refuse(self, number: int, name: str, reason: str, row: dict[str, Any]) -> Refused:
        self.tally.rejected += 1
        value = row.get(name)
        key = " · ".join(str(row[part]) for part in self.file.order if row.get(part))
        return Refused(number, reason, name, "" if value is None else str(value), key, row)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows that go on, in order."""
        return map(_decode, self._lines)

    def write(self, numbers: Mapping[str, int]) -> Made:
        """The ready document, and the table beside it."""
        kind, base, file = _kind(self.document), self.document.base, self.file
        path, table = self.folder / f"{kind}.ready.json", self.folder / f"{kind}.rows.csv"
        header = {**self.document.header, "processing_date": self.terms.processing_date}
        cells = _cells(file, numbers, self.terms.time_zone)
        with ExitStack() as open_files:
            document = open_files.enter_context(DocumentWriter(path, header))
            rows = open_files.enter_context(TableWriter(table, file.table))
            lines = iter(self._lines)
            while batch := list(islice(lines, BATCH)):
                document.write_lines(batch)
                rows.write(map(cells, map(_decode, batch)))
            document.tail["devices"] = self.units.used
        self.tally.rows_out += rows.rows
        return Made(path, base, f"{kind}.json", header, document.rows, table, tuple(file.table), rows.rows)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _cells(file: File, numbers: Mapping[str, int], time_zone: str) -> Callable[[dict[str, Any]], list[Any]]:
    """What makes the table's cells of a row."""
    times = frozenset(file.times)

    def hashed(row: dict[str, Any], name: str) -> str:
        return id_time(row[name], time_zone) if name in times else row[name]

    def made(row: dict[str, Any]) -> list[Any]:
        if "dev_addr" in row:
            row["dev_addr"] = str(numbers[row["dev_addr"]])
        cells = [wall(row[source]) if kind == "local_time" else row[source] for _, kind, source in file.columns if source]
        if "start_time" in times:
            cells.append(_weekday(row["start_time"][:10]))
        return [*cells, md5_of(*(hashed(row, name) for name in file.hashed)), *(row[name] for name in file.device_fields)]

    return made


@lru_cache(maxsize=64)
def _weekday(day: str) -> str:
    return f"{date.fromisoformat(day):%A}"
