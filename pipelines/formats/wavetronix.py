"""Wavetronix radar: a CSV file a day from the KITS database, a row a detector and quarter hour.

Standardize makes a document of it: whole numbers, times with their UTC offset. A row with a number that is none is refused, not the
day. Ready joins it with the inventory by the intersection's KITS id and makes what is published of it.

A row's `timebin` is the nearest quarter hour: minute 53 belongs to the next hour's ":00" (atd-data-lake wrote ":60").
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from pipelines.formats import text_lines
from pipelines.formats.sensors import Document, DocumentWriter, LocalTimes, Made, Raw, Seen, Standard, Terms, md5_of, text_of
from pipelines.formats.sorted_lines import SortedLines
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.tables import TableWriter, moment
from pipelines.formats.units import Units

DATA_TYPE = "wavetronix"
UNIT = "Vehicle Counts"
TEXTS = ("intName", "detName", "status")
#: What is published is made of these; a row without one of them is refused.
NEEDED = ("detID", "intID", "volume", "occupancy", "speed")
#: These are kept, and may be empty.
OTHERS = ("uploadSuccess", "detCountComparison", "dailyCumulative")
FIELDS = ("detID", "intID", "curDateTime", "intName", "detName", "volume", "occupancy", "speed", "status", *OTHERS)
UNREAD = "curDateTime is no time: it is null"
COLUMNS = (
    ("detid", "number"),
    ("int_id", "number"),
    ("curdatetime", "local_time"),
    ("intname", "text"),
    ("detname", "text"),
    ("volume", "number"),
    ("occupancy", "number"),
    ("speed", "number"),
    ("month", "number"),
    ("day", "number"),
    ("year", "number"),
    ("hour", "number"),
    ("minute", "number"),
    ("day_of_week", "number"),
    ("timebin", "text"),
    ("direction", "text"),
    ("row_id", "text"),
    ("device_id", "text"),
)
#: md5 of these fields of a unit is its device_id.
ID_FIELDS = ("device_type", "device_name", "device_ip", "lat", "lon")
BATCH = 1_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Wavetronix:
    """The radar format of one block (see SensorFormat)."""

    counts_lines = True

    def __init__(self, terms: Terms):
        self.terms = terms
        self.tally = Tally()
        self._seen: dict[str, Seen] = {}

    # raw → standard

    def standardize(self, raw: Raw, folder: Path) -> Iterator[Refused | Made]:
        """One CSV file with a header as a document. The names of its columns may be written in any case, as databases do."""
        header = {
            "data_type": DATA_TYPE,
            "origin_filename": raw.name,
            "target_filename": self.terms.name(raw.base, "json"),
            **self.terms.dates(),
        }
        path = folder / "radar.standard.json"
        reader = _Reader(self.terms.time_zone, self.tally, self._seen)
        with DocumentWriter(path, header) as document:
            for piece in text_lines.pieces(raw.path):
                made = list(filter(None, map(reader.read, piece.split(b"\n"))))
                rows = [one for one in made if isinstance(one, bytes)]
                document.write_lines(rows)
                self.tally.rows_in += len(made)
                self.tally.rows_out += len(rows)
                self.tally.rejected += len(made) - len(rows)
                yield from (one for one in made if isinstance(one, Refused))
        yield Made(path, raw.base, "json", header, document.rows)

    def observations(self) -> dict[str, dict[str, Any]]:
        """Vehicles by intersection, those that the inventory does not know among them."""
        return {name: seen.told(UNIT) for name, seen in sorted(self._seen.items())}

    def neighbour(self, header: Mapping[str, Any]) -> int:
        return 0

    # standard → ready

    def ready(self, documents: Sequence[Standard], units: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Refused | Made]:
        """Each document with its devices, sorted by time and detector, and its table."""
        for document in documents:
            found = Units(units, "kits_id", _whole, ID_FIELDS, self.tally.warnings)
            with SortedLines(folder) as lines:
                yield from self._join(document, found, lines)
                yield self._write(document, found, lines, folder)

    def _join(self, document: Standard, units: Units, lines: SortedLines) -> Iterator[Refused]:
        for number, row in enumerate(Document(document.path).rows(), 1):
            self.tally.rows_in += 1
            at = moment(row.get("curDateTime"), self.terms.time_zone)
            name = "curDateTime" if at is None else next((name for name in NEEDED if type(row.get(name)) is not int), None)
            name = name or next((name for name in ("intName", "detName") if not row.get(name)), None)
            reason = f"{name} is missing or no {'time' if name == 'curDateTime' else 'value'}" if name else ""
            if not name and row["intID"] not in units:
                name, reason = "intID", "intID is no device of the inventory"
            if name:
                self.tally.rejected += 1
                key = " · ".join(str(row[part]) for part in ("intName", "curDateTime", "detID") if row.get(part) is not None)
                yield Refused(number, reason, name, "" if row.get(name) is None else str(row[name]), key, row)
                continue
            row["device_id"] = units.find(row["intID"]).device_id
            # a detector's number as a text that sorts as it does, be it below zero
            lines.add((at.utc, f"{row['detID'] + 10**18:020d}"), _encode(row))

    def _write(self, document: Standard, units: Units, lines: SortedLines, folder: Path) -> Made:
        path, table = folder / "radar.ready.json", folder / "radar.rows.csv"
        header = {**document.header, "processing_date": self.terms.processing_date}
        with ExitStack() as open_files:
            made = open_files.enter_context(DocumentWriter(path, header))
            rows = open_files.enter_context(TableWriter(table, COLUMNS))
            sorted_lines = iter(lines)
            while batch := list(islice(sorted_lines, BATCH)):
                made.write_lines(batch)
                rows.write(self._cells(_decode(line)) for line in batch)
            made.tail["devices"] = units.used
        self.tally.rows_out += rows.rows
        return Made(path, document.base, "json", header, made.rows, table, COLUMNS, rows.rows)

    def _cells(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        when, name = moment(row["curDateTime"], self.terms.time_zone), row["intName"]
        at = datetime.fromisoformat(when.wall)
        return (
            *(row["detID"], row["intID"], when.wall, name, row["detName"], row["volume"], row["occupancy"], row["speed"]),
            *(at.month, at.day, at.year, at.hour, at.minute, at.isoweekday() % 7, timebin(at), row["detName"].partition("_")[0]),
            *(md5_of(name, when.hashed, row["detID"]), row["device_id"]),
        )


def timebin(at: datetime) -> str:
    """The nearest quarter hour of a wall time: "00:45" of 00:52, "01:00" of 00:53; "00:00" of 23:53. Whole minutes are never between two."""
    quarters = (at.minute + 7) // 15
    return f"{(at.hour + quarters // 4) % 24:02}:{quarters % 4 * 15:02}"


def _whole(value: Any) -> int | None:
    """A whole number of the inventory (1, 1.0 or "1"); None for what is none."""
    try:
        return int(value) if type(value) is not bool and float(value) == int(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


# a file


class _Reader:
    """Turns the lines of one file into rows of JSON."""

    def __init__(self, time_zone: str, tally: Tally, seen: dict[str, Seen]):
        self.time_zone, self.tally, self.seen = time_zone, tally, seen
        self._passes = LocalTimes(time_zone)
        self._number = 0
        self._names: list[str] | None = None

    def read(self, line: bytes) -> bytes | Refused | None:
        """The row of a line, why it is refused, or None of a blank one and of the header."""
        self._number += 1
        if not line.strip():
            return None
        if problem := text_lines.problem_of(line):
            return self._refuse(f"the line {problem}", line)
        try:
            [cells] = csv.reader([line.decode()], strict=True)
        except csv.Error as error:
            return self._refuse(f"the line is no CSV: {error}", line)
        if self._names is None:
            known = {name.lower(): name for name in FIELDS}
            self._names = [known.get(cell.strip().lower(), cell.strip()) for cell in cells]
            return None
        if missing := [name for name in FIELDS if name not in self._names and name not in (*OTHERS, "status")]:
            return self._refuse(f"the file has no column {', '.join(missing)}", line)
        if len(cells) != len(self._names):
            return self._refuse(f"the line has {'fewer' if len(cells) < len(self._names) else 'more'} fields than the header", line)
        return self._row(dict(zip(self._names, cells, strict=True)), line)

    def _row(self, told: dict[str, str], line: bytes) -> bytes | Refused:
        row: dict[str, Any] = dict(told)
        for name in (*NEEDED, *OTHERS):
            if name not in row or (name in OTHERS and row[name] == ""):
                row[name] = None
                continue
            text = row[name].strip()
            if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19):
                return self._refuse(f"{name} is no whole number", line, name, text)
            row[name] = int(text)
        row["curDateTime"] = at = self._time(told["curDateTime"], row["detID"])
        if row["intName"]:
            self.seen.setdefault(row["intName"], Seen()).see(at or "", row["volume"])
        return _encode(row)

    def _time(self, text: str, detector: int) -> str | None:
        try:
            at = datetime.fromisoformat(text.strip())
        except ValueError:
            self.tally.warnings[UNREAD] += 1
            return None
        return text_of(at, self.time_zone) if at.tzinfo else self._passes.text(at, detector, strictly=True)

    def _refuse(self, reason: str, line: bytes, column: str = "", value: str = "") -> Refused:
        return Refused(self._number, reason, column, value, "", {"line": text_lines.shown(line)})
