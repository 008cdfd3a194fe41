"""Excel workbooks: one sheet, its first row the names of the columns. Read as it streams; what is held whole is only the book's texts.

Cells are trimmed; what Excel could not compute (#N/A, #REF!) is nothing and counted as a warning; empty rows are none.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.table_reader import BATCH, Batch, TableReader

ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA", "#SPILL!", "#CALC!"})
#: How the files begin that carry the wrong name.
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"


class Xlsx(TableReader):
    """Options: `sheet`, its name; the first one where none is told."""

    has_header = True

    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        with Workbook(page) as book:
            rows = book.rows(self._sheet(book))
            header = [str(cell).strip() if cell is not None else "" for cell in next(rows, (0, ()))[1]]
            while header and not header[-1]:
                header.pop()
            if not header:
                raise DataError(
                    f"{page.name} has nothing in the first row of its sheet {self._sheet(book)!r}, where the names of the columns should stand.",
                    code="no-header",
                    next_step="Look at the workbook; name another sheet, or ask the provider to begin with the header.",
                )
            for name in {name for name in header if name and header.count(name) > 1}:
                self.tally.warnings[f"the sheet has {header.count(name)} columns {name!r}: the last is taken"] += 1
            places = {name: place for place, name in enumerate(header) if name}
            names |= places
            while batch := list(islice(self._cleaned(rows, len(header)), BATCH)):
                yield _Cells(places, batch)

    def _sheet(self, book: Workbook) -> str:
        """The sheet to read. Raises DataError for a book that has none of that name."""
        told = self.terms.options.get("sheet")
        if not told:
            if len(book.sheets) > 1:
                self.tally.warnings[f"no sheet is configured: the first of {len(book.sheets)}, {book.sheets[0]!r}, is read"] = 1
            return book.sheets[0]
        if told in book.sheets:
            return told
        near = next((name for name in book.sheets if name.strip().casefold() == str(told).strip().casefold()), None)
        if near is None:
            raise DataError(
                f"{book.name} has no sheet {told!r}; it has {', '.join(map(repr, book.sheets))}.",
                code="no-sheet",
                next_step="Change the pipeline's sheet, or ask the provider.",
            )
        self.tally.warnings[f"the sheet {told!r} is {near!r} in the file"] = 1
        return near

    def _cleaned(self, rows: Iterator[tuple[int, Sequence[Any]]], width: int) -> Iterator[tuple[int, list[Any]]]:
        for number, cells in rows:
            made = [_trimmed(cell) for cell in cells]
            if made.count(None) == len(made):
                continue
            if len(made) > width:
                if made[width:].count(None) < len(made) - width:
                    self.tally.warnings["it has values right of its last named column"] += 1
                del made[width:]
            elif len(made) < width:
                made += [None] * (width - len(made))
            if not ERRORS.isdisjoint(cell for cell in made if type(cell) is str):
                self.tally.warnings["it has cells that Excel could not compute; they are empty"] += 1
                made = [None if type(cell) is str and cell in ERRORS else cell for cell in made]
            yield number, made


def _trimmed(cell: Any) -> Any:
    return cell if type(cell) is not str else cell.strip() or None


class _Cells(Batch):
    def __init__(self, places: Mapping[str, int], rows: Sequence[tuple[int, list[Any]]]):
        self._places, self._rows = places, rows
        self._columns = list(zip(*(cells for _, cells in rows), strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> Sequence[Any]:
        return self._columns[self._places[name]]

    def row(self, place: int) -> tuple[int, dict[str, Any]]:
        number, cells = self._rows[place]
        return number, {name: cells[at] for name, at in self._places.items()}


class Workbook:
    """An Excel file, open for reading. Raises DataError for a file that is none."""

    def __init__(self, page: Path):
        # here, and not above: openpyxl takes a while, and most pipelines have no workbooks
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException

        self.name = page.name
        self._file = page.open("rb")
        try:
            with _quietly():
                self._book = load_workbook(self._file, read_only=True, data_only=True)
        except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
            self._file.seek(0)
            head = self._file.read(200)
            self._file.close()
            what = "an old Excel file (.xls)" if head.startswith(_OLD_EXCEL) else f"a file that begins with {head[:40]!r}"
            raise DataError(
                f"{page.name} is not an Excel workbook (.xlsx), but {what}.",
                code="bad-xlsx",
                next_step="Look at the raw file; the source may have answered with a page of its own.",
            ) from error
        self.sheets = [sheet.title for sheet in self._book.worksheets]

    def __enter__(self) -> Workbook:
        return self

    def __exit__(self, *_: object) -> None:
        self._book.close()
        self._file.close()

    def rows(self, sheet: str) -> Iterator[tuple[int, Sequence[Any]]]:
        """(row number, its values), from the first row on; a row may be shorter than others."""
        held = self._book[sheet]
        # what a book says of its own size is often wrong
        held.reset_dimensions()
        rows = enumerate(held.iter_rows(values_only=True), start=1)
        while True:
            with _quietly():
                batch = list(islice(rows, BATCH))
            if not batch:
                return
            yield from batch


def sheet_records(page: Path, sheet: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a sheet (the first where none is named) by the names of its first row, for custom readers. Raises DataError."""
    with Workbook(page) as book:
        rows = book.rows(sheet or book.sheets[0])
        header = [str(cell).strip() if cell is not None else "" for cell in next(rows, (0, ()))[1]]
        for _, cells in rows:
            if any(cell is not None for cell in cells):
                yield {name: _trimmed(cell) for name, cell in zip(header, cells, strict=False) if name}


class _quietly(warnings.catch_warnings):
    """What openpyxl minds of a book (a validation it does not know) is nothing to us."""

    def __enter__(self) -> Any:
        held = super().__enter__()
        warnings.simplefilter("ignore")
        return held
