"""What every warehouse engine is told and tells: plain values, and a CSV file read as both engines read it.

An engine is a module with the same names (`postgres`, `mysql`): `Load`, `connect`, `end_sessions`, `has_merged`,
`table_columns`, `count`, `rows_after`, `deleted_after`, `highest`, `sample`, `count_by_two`, `cells`, `measures`, `refresh`, `analyze`, `vacuum`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.connectors.base import Column

#: So long a key, all its columns together, still fits an index page.
LONGEST_KEY = 1_000
#: A cell larger than this is rejected, in a file that has to be read row by row.
LARGEST_CELL = 64 << 20
#: When most of a file is rejected the type is wrong, not the rows: then nothing is loaded.
REJECTED_SHARE, REJECTED_ROWS = 0.5, 100
#: Our own columns of a city table: who wrote the row last, in which order it was written, and when.
BOOKKEEPING = ("_odo_pipeline", "_odo_block", "_odo_seq", "_odo_loaded_at")


@dataclass(frozen=True)
class Table:
    """A city table as a pipeline wants it. `version` is the column that tells the newer of two copies, or ""."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    version: str = ""

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True)
class Region:
    """The rows of a table for which the staged files speak: what lies in it and not in them is gone at the source.

    `kind` is "none" (the files speak only for the keys that they hold), "block" or "pipeline" (all rows that it wrote last),
    or "since" (rows of the pipeline whose `column` is at or after `since`, or empty).
    """

    kind: str = "none"
    column: str = ""
    since: str = ""


@dataclass(frozen=True)
class Only:
    """Rows whose value of a column, as text, is one of `values` ("" stands for no value too); `is_not`: all the others."""

    column: str
    values: tuple[str, ...]
    is_not: bool = False


@dataclass(frozen=True)
class Scope:
    """Whose rows: those of one block, of one pipeline, or (both None) of the whole table; of these, the ones that `only` names.

    What was deleted is told without regard to `only`: its values are gone.
    """

    block_id: int | None = None
    pipeline_id: int | None = None
    only: Only | None = None


@dataclass(frozen=True)
class Rejected:
    """A row that can't be loaded: `record` is its number in the file (the first data row is 1), `line` the line it begins on."""

    file: int
    record: int
    line: int
    column: str
    reason: str
    value: str
    raw: dict[str, str]


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows staged and good = inserted + updated + unchanged + duplicates.

    `gone` rows of the region are not in the files any more; `deleted` of them were deleted (all or none).
    """

    inserted: int
    updated: int
    unchanged: int
    deleted: int
    duplicates: int
    gone: int = 0


def broken(cells: list[str], width: int) -> str:
    """Why no bulk copy can take these cells at all, or ""."""
    if len(cells) != width:
        return f"{len(cells)} cells where {width} are expected"
    for cell in cells:
        if "\x00" in cell:
            return "a NUL byte in a cell"
        if len(cell) > LARGEST_CELL:
            return f"a cell larger than {LARGEST_CELL >> 20} MB"
        if not cell.isascii() and any("\ud800" <= char <= "\udfff" for char in cell):
            return "bytes that are not UTF-8"
    return ""


def visible(cell: str) -> str:
    """A cell as it can be kept and shown: what isn't text is written as its bytes."""
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def records(path: Path, width: int) -> Iterator[tuple[int, int, list[str]]]:
    """(record number, line it begins on, cells) of a CSV file of `width` columns after its header; what isn't UTF-8 comes as surrogates."""
    csv.field_size_limit(1 << 30)
    with path.open("r", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        reader = csv.reader(stream)
        next(reader, None)
        before = reader.line_num
        for record, cells in enumerate(reader, start=1):
            line, before = before + 1, reader.line_num
            # a blank line is a row as well, and was counted as one when it came: of one empty cell, or one that has too few
            yield record, line, cells or [""] * (width == 1)
