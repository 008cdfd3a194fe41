"""CSV files as cities publish them: any encoding, with or without a byte-order mark, line ends inside cells, ragged rows, here and there a bad byte.

Read as it streams; a row that is broken is refused with the line it begins on, and never takes its neighbours along.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, SetupError
from pipelines.formats.custom import Broken
from pipelines.formats.table_reader import BATCH, Batch, TableReader, Terms, bare_name

#: Python's own bound of 131,072 is too small for polygons.
LARGEST_CELL = 64 * 1024 * 1024
#: What follows the last line. No cell holds it, for a NUL is made a space on its way here.
_END = "\x00end"
#: What a file says of its own encoding.
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8"}


class CsvTable(TableReader):
    """Options: `encoding` (utf-8), `delimiter` (,)."""

    is_text = True
    has_header = True

    def __init__(self, terms: Terms):
        super().__init__(terms)
        self._encoding = encoding_of(terms.options.get("encoding"), terms.title)
        self._delimiter = terms.options.get("delimiter") or ","
        self.not_text = f"has bytes that are not {self._encoding}"
        self._blank = 0

    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
        reader = csv.reader(lines_of_file(page, self._encoding), delimiter=self._delimiter)
        header = next((cells for cells in reader if cells), [_END])
        if header[-1].endswith(_END):
            if header == [_END]:
                raise DataError(f"{page.name} is empty: not even a header.", code="empty-file", next_step="Look at the address; ask the provider.")
            raise _unclosed(page, 1)
        at = reader.line_num + 1
        width = len(header)
        places = {name: place for place, name in enumerate(header)}
        for name in {name for name in header if header.count(name) > 1 and name}:
            self.tally.warnings[f"the file has {header.count(name)} columns {name!r}: the last is taken"] += 1
        names |= places
        while rows := list(islice(reader, BATCH)):
            is_last = False
            if rows[-1] and rows[-1][-1].endswith(_END):
                is_last = rows.pop() == [_END]
                if not is_last:
                    raise _unclosed(page, at + sum(map(_lines, rows)))
            if not rows:
                return
            if set(map(len, rows)) == {width}:
                yield _Lines(places, rows, at)
            else:
                yield from self._ragged(rows, at, header, places)
            if is_last:
                return
            at = reader.line_num + 1

    def report(self) -> dict[str, Any]:
        return {"blank_lines": self._blank} if self._blank else {}

    def _ragged(self, rows: Sequence[list[str]], at: int, header: list[str], places: dict[str, int]) -> Iterator[Batch]:
        """The rows of a batch of which some have not as many cells as the header; blank lines are none."""
        width, good, numbers = len(header), [], []
        for cells in rows:
            if not cells:
                self._blank += 1
            elif len(cells) == width:
                good.append(cells)
                numbers.append(at)
            elif len(cells) > width and not any(cells[width:]):
                self.tally.warnings["it has empty cells behind its last column"] += 1
                good.append(cells[:width])
                numbers.append(at)
            else:
                raw = dict(zip(header, cells, strict=False)) | ({"(beyond the header)": cells[width:]} if len(cells) > width else {})
                self.refuse(at, f"{len(cells)} cells where {width} are expected", raw)
            at += _lines(cells)
        if good:
            yield _Lines(places, good, numbers)


class _Lines(Batch):
    """Rows of as many cells as there are columns. `at` is the line of the first, or the lines of all of them."""

    def __init__(self, places: Mapping[str, int], rows: list[list[str]], at: int | list[int]):
        self._places, self._rows, self._at = places, rows, at
        self._columns = list(zip(*rows, strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> Sequence[str]:
        return self._columns[self._places[name]]

    def row(self, place: int) -> tuple[int, dict[str, Any]]:
        line = self._at[place] if isinstance(self._at, list) else self._at + sum(map(_lines, self._rows[:place]))
        return line, {name: self._rows[place][number] for name, number in self._places.items()}


def _lines(cells: Sequence[str]) -> int:
    """On how many lines of the file a row stands."""
    return 1 + sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in cells if "\n" in cell or "\r" in cell)


def _unclosed(page: Path, line: int) -> DataError:
    return DataError(
        f"{page.name}: a quote is opened on line {line:,} or after it, and never closed; nobody can say where the rows behind it begin.",
        code="bad-csv",
        next_step="Look at that line of the raw file, and ask the provider to mend it.",
    )


def encoding_of(told: Any, title: str = "The pipeline") -> str:
    """The encoding to read with, utf-8 where none is told. Raises SetupError for one that nobody knows."""
    name = str(told or "utf-8")
    try:
        found = codecs.lookup(name).name
    except LookupError:
        raise SetupError(
            f"{title} names the encoding {name!r}, which is unknown.",
            code="bad-encoding",
            next_step="Write utf-8, latin1 or cp1252 in the pipeline's options.",
        ) from None
    return "utf-8" if found == "utf-8-sig" else found


def lines_of_file(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a file with their ends, without a byte-order mark or NULs; then a last one that is none.

    A mark of UTF-8 or UTF-16 goes before what was told. Bytes that are not of the encoding come as surrogates.
    """
    with path.open("rb") as file:
        head = file.read(3)
    told = next((name for mark, name in _MARKS.items() if head.startswith(mark)), encoding)
    encoding, errors = ("utf-16", "replace") if told == "utf-16" else ("utf-8-sig" if told == "utf-8" else told, "surrogateescape")
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        for line in file:
            yield line if "\x00" not in line else line.replace("\x00", " ")
    yield _END


def records(path: Path, encoding: str, delimiter: str = ",") -> Iterator[dict[str, str] | Broken]:
    """The rows of a file by the names of its header, for custom readers; a row of another width comes as Broken. Raises DataError."""
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    reader = csv.reader(lines_of_file(path, encoding), delimiter=delimiter)
    header: list[str] = []
    for cells in reader:
        if cells and cells[-1].endswith(_END):
            if cells != [_END]:
                raise _unclosed(path, reader.line_num - sum(map(_lines, [cells])))
            return
        if not header:
            header = [bare_name(cell) for cell in cells]
        elif cells and len(cells) != len(header):
            yield Broken(f"{len(cells)} cells where {len(header)} are expected", dict(zip(header, cells, strict=False)))
        elif cells:
            yield dict(zip(header, cells, strict=True))
