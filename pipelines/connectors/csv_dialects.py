"""The two dialects of CSV that cities exchange: quotes doubled (RFC 4180), and everything odd behind a backslash.

The second is what GatherAndStore and MySQL's LOAD DATA speak: `"two \\"words\\""`, a line end in a cell as a backslash before it.
Both are UTF-8 with commas and LF. Nothing is dropped here: what a reader cannot take is refused where it is loaded, and seen.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

RFC4180, BACKSLASH = "rfc4180", "backslash"
DIALECTS = (RFC4180, BACKSLASH)

#: Python's own bound of 131,072 is for files that nobody knows; cells of a megabyte were seen.
LARGEST_CELL = 64 * 1024 * 1024
#: What stands behind a backslash; CR too, for a reader that takes it for a line end.
_ESCAPED = str.maketrans({sign: f"\\{sign}" for sign in '\\"\t\n\r'})
#: A cell with one of these is quoted.
_QUOTED = frozenset(" \t,\\'\"\r\n")


class BackslashWriter:
    """Like csv.writer, in the backslash dialect: None is an empty cell, an empty text `""`; what is no text is not quoted."""

    def __init__(self, file: TextIO):
        self._file = file

    def writerow(self, row: Iterable[Any]) -> None:
        self._file.write(",".join(map(_cell, row)) + "\n")

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, str) and (not text or not _QUOTED.isdisjoint(text)):
        return '"' + text.translate(_ESCAPED) + '"'
    return text


class _LineEnds:
    """A file for csv.writer: told to end lines with CR LF, it quotes both of them in cells (told LF, it leaves a bare CR as it is)."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def writer(file: TextIO, dialect: str = RFC4180) -> Any:
    """What writes rows, ended by LF, to a text file that was opened with newline=""."""
    return BackslashWriter(file) if dialect == BACKSLASH else csv.writer(_LineEnds(file), lineterminator="\r\n")


def rows_of(path: Path, dialect: str) -> Iterator[list[str]]:
    """The records of a file, its header among them. Raises csv.Error for what ends in the middle of one."""
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    # a byte that is not UTF-8 is handed on as it is: the loader refuses its row
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if dialect == BACKSLASH:
            yield from csv.reader(file, escapechar="\\", doublequote=False, strict=True)
        else:
            yield from csv.reader(file, strict=True)


def to_rfc4180(source: Path, target: Path) -> int:
    """Write a file of the backslash dialect anew with its quotes doubled; return how many records it has, header and all.

    Python can't tell an empty text from an absent one: both become an empty cell. Raises csv.Error.
    """
    records = 0
    with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        made = writer(file)
        for row in rows_of(source, BACKSLASH):
            made.writerow(row)
            records += 1
    return records
