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
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from pipelines.formats import text_lines
from pipelines.formats.sensors import Document, DocumentWriter, LocalTimes, Made, Raw, Seen, Standard, Terms, md5_of, offsets
from pipelines.formats.sorted_lines import SortedLines
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.tables import TableWriter, is_number, moment
from pipelines.formats.units import Units

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
        self._reads = _Reads()

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
        reader = _Reader(FILES[kind], self.terms.time_zone, self.tally, self._reads if kind == "unmatched" else None)
        with DocumentWriter(path, header) as document:
            for piece in text_lines.pieces(raw.path):
                yield from reader.read(piece, document)
        yield Made(path, raw.base, ext, header, document.rows)

    def observations(self) -> dict[str, dict[str, Any]]:
        """Reads by reader, of the unmatched file alone: the others tell the same reads again."""
        return self._reads.told()

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
    """A file's time → its JSON text in a document: `"2019-06-01 00:00:00-05:00"`, or null. The latest are kept.

    A time in the hour that the clock repeats is never kept: `repeated` says that one was asked for, and its text here is of no use.
    """

    #: the seconds of some hours: a file goes by its time
    MOST = 20_000
    #: so many seconds of an hour are asked for before all of it are made at once
    FEW = 30

    def __init__(self, time_zone: str):
        super().__init__()
        self.time_zone = time_zone
        self.repeated = False
        self._asked: Counter[tuple[str, str, str]] = Counter()

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
        begin = f'"{str(hour)[:14]}'
        made = self[text] = f'{begin}{rest}{first}"'
        day, clock, half = text.split(" ")
        key = (day, clock.partition(":")[0], half)
        self._asked[key] += 1
        # once only: of an hour that comes again by turns with many others, each second is made when it is asked for
        if self._asked[key] == self.FEW:
            before, behind = f"{day} {key[1]}:", f" {half}"
            self.update((f"{before}{spelt}{behind}", f'{begin}{rest}{first}"') for spelt, rest in _REST.items())
        return made


class _Reads:
    """How many reads each reader had, and when its first and its last were."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._last: dict[str, str] = {}
        self._latest = ""

    def see(self, readers: Sequence[str], times: Sequence[str]) -> None:
        """Count these reads; the times are JSON texts, "null" among them."""
        self._rows.update(readers)
        if times[0] >= self._latest and times[-1] != "null" and times == sorted(times):
            # in order, as files are: the last time told is the last
            if new := set(readers) - self._first.keys():
                self._first |= {reader: at for reader, at in zip(reversed(readers), reversed(times), strict=True) if reader in new}
            self._last.update(zip(readers, times, strict=True))
            self._latest = times[-1]
            return
        for reader, at in zip(readers, times, strict=True):
            if at != "null":
                self._first[reader] = min(self._first.get(reader, at), at)
                self._last[reader] = max(self._last.get(reader, at), at)
                self._latest = max(self._latest, at)

    def told(self) -> dict[str, dict[str, Any]]:
        seen = {name: Seen(rows, rows, self._first.get(name, "")[1:-1], self._last.get(name, "")[1:-1]) for name, rows in sorted(self._rows.items())}
        return {name: one.told(UNIT) for name, one in seen.items()}


# a file


class _Reader:
    """Turns the lines of one file into rows of JSON, and counts them. A blank line is no record."""

    def __init__(self, file: File, time_zone: str, tally: Tally, reads: _Reads | None):
        self.file, self.time_zone, self.tally, self.reads = file, time_zone, tally, reads
        self._number = 0
        self._times, self._passes = _Times(time_zone), LocalTimes(time_zone)
        self._places = [file.fields.index(name) for name in file.times]
        # what stands before each cell, and behind the last: a time brings its quotes, or is null
        marks = ["" if name in file.times else '"' for name in file.fields]
        before = [
            f'{end}{"," if place else "{"}"{name}":{mark}'
            for place, (end, name, mark) in enumerate(zip(["", *marks], file.fields, marks, strict=False))
        ]
        self._between = [*before, f"{marks[-1]}}},\n"]

    def read(self, piece: bytes, document: DocumentWriter) -> Iterator[Refused]:
        """Write the rows of a piece of lines, and yield what is refused of it."""
        if text_lines.is_plain(piece) and self._by_columns(piece.decode("ascii"), document):
            return
        rows = []
        for line in piece.split(b"\n"):
            self._number += 1
            made = self._by_line(line)
            if made is None:
                continue
            self.tally.rows_in += 1
            if isinstance(made, Refused):
                self.tally.rejected += 1
                yield made
            else:
                rows.append(made)
        self.tally.rows_out += len(rows)
        document.write_lines(rows)

    # as nearly all lines are

    def _by_columns(self, piece: str, document: DocumentWriter) -> bool:
        """Write the rows of plain lines; False, and nothing is done, where one of them must be looked at alone."""
        number, width = piece.count("\n") + 1, len(self.file.fields)
        cells = f"\n{piece}".replace("\n", ",\n").split(",")[1:]
        if len(cells) != number * width:
            return False
        # a line end stands before the first cell of each line, and nowhere else: so each has as many cells as it should
        columns = ["".join(cells[::width]).split("\n")[1:], *(cells[place::width] for place in range(1, width))]
        if len(columns[0]) != number or (len(piece) > text_lines.LONGEST and max(map(len, piece.split("\n"))) > text_lines.LONGEST):
            return False
        times = self._times
        times.repeated = False
        for place in self._places:
            columns[place] = list(map(times.__getitem__, columns[place]))
        if times.repeated:
            return False
        for name, place in zip(self.file.times, self._places, strict=True):
            if unread := columns[place].count("null"):
                self.tally.warnings[f"{name} {UNREAD}"] += unread
        if self.reads is not None:
            self.reads.see(columns[3], columns[0])
        parts: list[str] = [""] * (number * (2 * width + 1))
        for place, text in enumerate(self._between):
            parts[2 * place :: 2 * width + 1] = [text] * number
        for place, column in enumerate(columns):
            parts[2 * place + 1 :: 2 * width + 1] = column
        document.write_joined("".join(parts).encode()[:-2], number)
        self._number += number
        self.tally.rows_in += number
        self.tally.rows_out += number
        return True

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
        if self.reads is not None and row["reader_id"]:
            at = row["host_timestamp"]
            self.reads.see([row["reader_id"]], [f'"{at}"' if at else "null"])
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
        return Refused(self._number, f"the line {problem}", "", "", "", {"line": text_lines.shown(line)})


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
        file, time_zone = self.file, self.terms.time_zone
        readers, device_fields = file.readers, file.device_fields
        guide, *names = file.order
        for number, row in enumerate(Document(self.document.path).rows(), 1):
            self.tally.rows_in += 1
            if problem := self._problem(row):
                self.tally.rejected += 1
                yield self._refuse(number, row, *problem)
                continue
            for name, reader in zip(device_fields, readers, strict=True):
                row[name] = self.units.find(row[reader]).device_id
            self._lines.add((moment(row[guide], time_zone).utc, *(row[name] for name in names)), _encode(row))

    def _problem(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """The first field for which the row can't be published, and why; None if it can."""
        file, time_zone = self.file, self.terms.time_zone
        for name in file.times:
            if moment(row.get(name), time_zone) is None:
                return name, "is no time" if row.get(name) else "is missing"
        for name in file.needed:
            if not row.get(name):
                return name, "is missing"
        for name in self._numbers:
            if not is_number(row.get(name)):
                return name, "is no number"
        for name in file.readers:
            if not row.get(name):
                return name, "is missing"
            if row[name] not in self.units:
                return name, "is no device of the inventory"
        return None

    def _refuse(self, number: int, row: dict[str, Any], name: str, words: str) -> Refused:
        value = row.get(name)
        key = " · ".join(str(row[part]) for part in self.file.order if row.get(part))
        return Refused(number, f"{name} {words}", name, "" if value is None else str(value), key, row)

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
    fields = itemgetter(*(source for _, _, source in file.columns if source))
    hashed, device_fields = itemgetter(*file.hashed), file.device_fields
    has_address, has_day = "dev_addr" in file.fields, "start_time" in file.fields

    def made(row: dict[str, Any]) -> list[Any]:
        if has_address:
            row["dev_addr"] = str(numbers[row["dev_addr"]])
        ids = row.copy()
        for name in file.times:
            at = moment(row[name], time_zone)
            row[name], ids[name] = at.wall, at.hashed
        cells = [*fields(row)]
        if has_day:
            cells.append(_weekday(row["start_time"][:10]))
        cells.append(md5_of(*hashed(ids)))
        cells += [row[name] for name in device_fields]
        return cells

    return made


@lru_cache(maxsize=64)
def _weekday(day: str) -> str:
    return f"{date.fromisoformat(day):%A}"
