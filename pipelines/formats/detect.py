"""From a raw file to a proposal of its configuration: format, encoding, sheets, columns with guessed types, and what its first rows would become.

A guess is what fits every value that was looked at, and prefers text where a number would lose something: 007 is a text. Pure: the wizard for new
datasets shows it to a person, who decides.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, SetupError
from pipelines.formats import dates
from pipelines.formats.attributes import GEOMETRY, LONGEST_NAME, TYPES, Attribute, Cleaner, Number, Unfit, decimal, fitting, whole
from pipelines.formats.csv_table import CsvTable
from pipelines.formats.geojson import GeoJson
from pipelines.formats.json_stream import Cursor
from pipelines.formats.json_table import JsonTable
from pipelines.formats.table_reader import Batch, TableReader, Terms, bare_name, halves, point
from pipelines.formats.xlsx import Workbook, Xlsx

READERS: dict[str, type[TableReader]] = {"csv": CsvTable, "json": JsonTable, "geojson": GeoJson, "xlsx": Xlsx}
#: So many rows are looked at, and so many shown.
LOOKED_AT, SHOWN = 5_000, 20
#: As far as this a file is read for its encoding.
READ_FOR_LETTERS = 32 * 1024 * 1024
PIECE = 1024 * 1024

#: The ways in which dates are written, the likelier first; a time that is midnight everywhere makes a date all the same.
DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%Y%m%d",
)  # fmt: skip
TIMES = (
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y%m%d%H%M%S", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%Y/%m/%d %H:%M:%S",
)  # fmt: skip
#: How Esri's layers call their types.
ESRI = {
    "OID": "int", "Integer": "int", "SmallInteger": "int", "BigInteger": "int", "Double": "float", "Single": "float", "String": "text",
    "Date": "timestamp", "DateOnly": "date", "GlobalID": "text", "GUID": "text", "XML": "text",
}  # fmt: skip
#: Columns that say where a geometry is or how long, which it says itself.
GEOMETRY_REPEATED = {
    "longitude", "latitude", "lat", "long", "lon", "x", "y", "index_", "shape__length", "shape__area", "shape_length", "shape_area"
}  # fmt: skip
#: Milliseconds of a time that somebody may have meant: 1900 to 2100. Small ones are too few digits to tell.
_EPOCH = (10**11, 41 * 10**11)
_YEARS = (1800, 2200)
#: How layers write their dates.
_PATTERNS = {"timestamp": dates.EPOCH, "date": "%Y-%m-%d"}
_DATE_WORDS = re.compile(r"date|time|day|when|updated|created|issued|opened|closed|_dt\b|_ts\b", re.IGNORECASE)
_CODE = re.compile(r"[+-]?0[0-9]")


@dataclass(frozen=True)
class Detected:
    """What a file seems to be. `options` is what a pipeline's options need beside the attributes; `sample_rows` are typed texts by name.

    `notes` are sentences for a person; `looked_at` is how many rows the guesses are made from.
    """

    format: str
    attributes: tuple[Attribute, ...]
    sample_rows: tuple[Mapping[str, str], ...] = ()
    sheets: tuple[str, ...] = ()
    encoding: str = ""
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    looked_at: int = 0


def detect(path: Path, format: str = "", *, zone: tzinfo = UTC, fields: Sequence[Mapping[str, str]] = (), **options: Any) -> Detected:
    """Look at a raw file. `format` is one of READERS, or "" to find out; `options` as a pipeline has them (sheet, jsonpath, encoding).

    `fields` are a layer's own, [{"name", "type"}] (a type of ours, or Esri's), and go before what the values look like. Raises
    DataError for a file that can't be read as any table, SetupError for options that nobody can read by.
    """
    look = _Look(path, format or sniffed(path), dict(options), zone)
    look.read()
    return look.told(fields)


def sniffed(path: Path) -> str:
    """The format of a file by its first bytes. Raises DataError for a web page and for what is no table."""
    with path.open("rb") as file:
        head = file.read(4096)
    bare = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if not bare:
        raise DataError(f"{path.name} is empty.", code="empty-file", next_step="Look at the address; ask the provider.")
    if bare[:1] == b"<":
        raise DataError(
            f"{path.name} is a web page or XML, not a table: it begins with {bare[:60].decode('utf-8', 'replace')!r}.",
            code="not-a-table",
            next_step="Paste the address of the file itself, or of the layer, not of the page that shows it.",
        )
    if head.startswith((b"\xd0\xcf\x11\xe0", b"%PDF", b"\x1f\x8b")):
        words = f"{path.name} is an old Excel file, a PDF or compressed."
        raise DataError(words, code="not-a-table", next_step="Ask for CSV, JSON, GeoJSON or .xlsx.")
    if bare[:1] in b"{[":
        return "geojson" if re.search(rb'"(FeatureCollection|features)"', head) or re.search(rb'"type"\s*:\s*"Feature"', head) else "json"
    return "csv"


class _Look:
    """One look at one file."""

    def __init__(self, path: Path, format: str, options: dict[str, Any], zone: tzinfo):
        if format not in READERS:
            raise SetupError(f"Nobody reads files of the format {format!r}.", code="no-such-format", next_step=f"Choose one of {', '.join(READERS)}.")
        self.path, self.format, self.options, self.zone = path, format, options, zone
        self.notes: list[str] = []
        self.sheets: tuple[str, ...] = ()
        self.encoding = ""
        self.names: dict[str, None] = {}
        self.columns: dict[str, list[Any]] = {}
        self.rows = 0
        self.is_text = format == "csv"

    def read(self) -> None:
        """Take the first rows, as columns."""
        getattr(self, f"_before_{self.format}")()
        wanted = (Attribute(GEOMETRY, GEOMETRY),) if self.format == "geojson" else ()
        reader = READERS[self.format](Terms(wanted, options=self.options, title="The file"))
        for batch in reader.rows_of(self.path, {}, self.names):
            self._add(batch)
            if self.rows >= LOOKED_AT:
                break
        self.names.pop("", None)
        if reader.tally.rejected:
            self.notes.append(f"{reader.tally.rejected:,} of the first rows are broken and would be refused.")
        self.notes += [f"{times:,} rows: {words}." for words, times in reader.tally.warnings.items()]
        if not self.rows:
            self.notes.append("The file has no rows: the types are guesses about nothing.")

    def _add(self, batch: Batch) -> None:
        for name in self.names:
            held = self.columns.setdefault(name, [None] * self.rows)
            held += batch.column(name)
        self.rows += len(batch)

    def _before_csv(self) -> None:
        told = self.options.get("encoding")
        self.encoding = str(told or encoding_of_file(self.path))
        if self.encoding != "utf-8":
            self.options["encoding"] = self.encoding
            if not told:
                self.notes.append(f"It is not UTF-8; {self.encoding} fits. Look whether letters with accents are right.")
        if "delimiter" not in self.options and (delimiter := _delimiter(self.path, self.encoding)) != ",":
            self.options["delimiter"] = delimiter
            self.notes.append(f"Its cells are divided by {delimiter!r}.")

    def _before_json(self) -> None:
        self.encoding = "utf-8"
        if "jsonpath" not in self.options and (steps := _path_to_list(self.path)):
            self.options["jsonpath"] = ".".join(("$", *steps))
            self.notes.append(f"Its rows are at {self.options['jsonpath']}.")

    def _before_geojson(self) -> None:
        self.encoding = "utf-8"

    def _before_xlsx(self) -> None:
        with Workbook(self.path) as book:
            self.sheets = tuple(book.sheets)
        if not self.options.get("sheet"):
            self.options["sheet"] = self.sheets[0]
            if len(self.sheets) > 1:
                self.notes.append(f"It has {len(self.sheets)} sheets: {', '.join(self.sheets)}. The first is shown.")

    # what it is

    def told(self, fields: Sequence[Mapping[str, str]]) -> Detected:
        kinds = {field["name"]: field["type"] for field in fields}
        types = {name: kind if kind in TYPES else ESRI.get(kind.removeprefix("esriFieldType")) for name, kind in kinds.items()}
        found, taken = [], set()
        for source in self.names:
            name = self._name(source, taken)
            kind, pattern = self._type(source, types.get(source))
            found.append(Attribute(source, name, kind, pattern))
        if GEOMETRY not in self.names and (pair := halves(self.names)):
            found.append(Attribute(GEOMETRY, GEOMETRY))
            self.notes.append(f"geometry is made of {pair[0]} and {pair[1]}.")
        elif GEOMETRY in self.names and (repeated := [name for name in self.names if name.lower() in GEOMETRY_REPEATED]):
            self.notes.append(f"{', '.join(repeated)}: the geometry says it already; they can be left out.")
        return Detected(self.format, tuple(found), tuple(self._sample(found)), self.sheets, self.encoding, tuple(self.notes), self.options, self.rows)

    def _name(self, source: str, taken: set[str]) -> str:
        name = bare_name(source) or source
        if len(name.encode()) > LONGEST_NAME:
            self.notes.append(f"{name} is longer than {LONGEST_NAME} bytes and is cut.")
        number, made = 2, fitting(name)
        while made in taken:
            made, number = fitting(name)[: LONGEST_NAME - 4] + f"_{number}", number + 1
        taken.add(made)
        return made

    def _type(self, source: str, told: str | None) -> tuple[str, str]:
        values = [value for value in self.columns.get(source, ()) if not _is_nothing(value)]
        if source == GEOMETRY:
            return "text", ""
        if not values:
            self.notes.append(f"{source} is empty in all rows that were looked at.")
            return told or "text", _PATTERNS.get(told or "", "")
        if told and told not in _PATTERNS:
            return told, ""
        kind, pattern, note = guessed(source, values)
        if told and kind not in _PATTERNS:
            return told, _PATTERNS[told]
        if note:
            self.notes.append(f"{source} {note}.")
        return kind, pattern

    def _sample(self, attributes: Sequence[Attribute]) -> Iterable[dict[str, str]]:
        shown = min(SHOWN, self.rows)
        columns = []
        pair = halves(self.names)
        for attribute in attributes:
            if attribute.source in self.columns:
                columns.append(Cleaner(attribute, self.zone, is_text=self.is_text).column(self.columns[attribute.source][:shown]).texts)
            elif pair:
                columns.append([point(self.columns[pair[1]][place], self.columns[pair[0]][place]) or "" for place in range(shown)])
        names = [attribute.name for attribute in attributes]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else []


# types


def guessed(name: str, values: Sequence[Any]) -> tuple[str, str, str]:
    """(type, format of dates, what a person should know) of a column with these values, none of them empty."""
    if any(isinstance(value, Mapping | list) for value in values):
        return "json", "", ""
    if all(isinstance(value, date | datetime) for value in values):
        has_time = any(isinstance(value, datetime) and value.time() != time() for value in values)
        return ("timestamp", "%Y-%m-%d %H:%M:%S", "") if has_time else ("date", "%Y-%m-%d", "")
    texts = [_written(value) for value in values]
    if (found := _date(name, texts)) is not None:
        return found
    if any(isinstance(value, bool) for value in values):
        return "text", "", ""
    if any(_CODE.match(text) for text in texts):
        return "text", "", "has numbers that begin with 0: they are taken for codes" if all(_is_number(text) for text in texts) else ""
    if all(_is_whole(text) for text in texts):
        if max(len(text.strip("+-")) for text in texts) > 18:
            return "text", "", "has numbers too long to count with: they are taken for codes"
        return "int", "", ""
    return ("float", "", "") if all(_is_number(text) for text in texts) else ("text", "", "")


def _date(name: str, texts: Sequence[str]) -> tuple[str, str, str] | None:
    """(type, format, what a person should know) of a column of dates; None of one that is none."""
    first = texts[0]
    if first.lstrip("-").isdecimal():
        if not _DATE_WORDS.search(name) or not all(text.lstrip("-").isdecimal() for text in texts):
            return None
        if all(_EPOCH[0] <= abs(int(text)) < _EPOCH[1] for text in texts if int(text)):
            # of days or of times: that depends on the zone, which nobody told
            return "timestamp", dates.EPOCH, ""
        known = [pattern for pattern in ("%Y%m%d", "%Y%m%d%H%M%S") if len(first) == (8 if pattern == "%Y%m%d" else 14)]
    elif not any(sign.isdecimal() for sign in first):
        return None
    else:
        known = [*DATES, *TIMES]
    fitting_ones = [pattern for pattern in known if _reads(pattern, first) and all(_reads(pattern, text) for text in texts)]
    if not fitting_ones:
        return None
    pattern = fitting_ones[0]
    other = next((one for one in fitting_ones[1:] if {pattern[:8], one[:8]} == {"%m/%d/%Y", "%d/%m/%Y"}), None)
    note = f"may be {pattern} or {other}: no day in it is greater than 12" if other else ""
    if pattern in DATES:
        return "date", pattern, note
    return _all_midnight(pattern, texts) or ("timestamp", pattern, note)


def _reads(pattern: str, text: str) -> bool:
    try:
        return _YEARS[0] <= _reader(pattern)(text).year <= _YEARS[1]
    except ValueError:
        return False


@cache
def _reader(pattern: str) -> Callable[[Any], datetime]:
    # strictly: an ISO time is not of the form of a day
    return dates.reader_of(pattern, is_strict=True)


def _all_midnight(pattern: str, texts: Sequence[str]) -> tuple[str, str, str] | None:
    """A column of times that are all midnight is one of days."""
    if any(_reader(pattern)(text).time() != time() for text in texts):
        return None
    return "date", pattern, ""


def _written(value: Any) -> str:
    return str(value).strip() if not isinstance(value, float) or not value.is_integer() else str(int(value))


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_whole(text: str) -> bool:
    try:
        whole(Number(text))
    except Unfit:
        return False
    return "e" not in text.lower()


def _is_number(text: str) -> bool:
    try:
        decimal(text)
    except Unfit:
        return False
    return True


# letters and lists


def encoding_of_file(path: Path) -> str:
    """The encoding of a text file: utf-8 where its bytes fit, else cp1252, else latin1."""
    letters = codecs.getincrementaldecoder("utf-8")()
    fits, others, read = True, set(), 0
    with path.open("rb") as file:
        head = file.read(2)
        if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        file.seek(0)
        while (piece := file.read(PIECE)) and read < READ_FOR_LETTERS:
            read += len(piece)
            if fits:
                try:
                    letters.decode(piece)
                except UnicodeDecodeError:
                    fits = False
            if not piece.isascii():
                others |= set(piece) & set(range(0x80, 0xA0))
    if fits:
        return "utf-8"
    return "cp1252" if others and not others & {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "latin1"


def _delimiter(path: Path, encoding: str) -> str:
    """What divides the cells of the first line: the sign that stands there most often outside of quotes."""
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, errors="replace", newline="") as file:
        line = re.sub(r'"[^"]*"', "", file.readline(1 << 20))
    best = max((",", ";", "\t", "|"), key=line.count)
    return best if line.count(best) else ","


def _path_to_list(path: Path) -> list[str]:
    """The keys to the first list of objects of a document; [] where it stands at the root, or is none."""
    if _are_lines(path):
        return []
    with Cursor(path) as cursor:
        return _look_inside(cursor, []) or [] if cursor.sign() == "{" else []


def _are_lines(path: Path) -> bool:
    """Whether a document is one object a line."""
    with path.open("rb") as file:
        first = file.readline(PIECE).removeprefix(codecs.BOM_UTF8)
        second = file.readline(PIECE)
    try:
        return second.lstrip()[:1] == b"{" and isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _look_inside(cursor: Cursor, steps: list[str]) -> list[str] | None:
    for key in cursor.members():
        match cursor.sign():
            case "[":
                first = next(cursor.items(), None)
                if first is not None and first.startswith("{"):
                    return [*steps, key]
                if first is not None:
                    cursor.leave_list()
            case "{":
                if (found := _look_inside(cursor, [*steps, key])) is not None:
                    return found
            case _:
                cursor.raw()
    return None
