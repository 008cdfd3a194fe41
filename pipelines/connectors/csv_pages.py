"""Settle a CSV file that arrived: its header, its rows, its last line, in one pass and one piece of memory."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import DataError, TransientError

PIECE = 1024 * 1024
BOM = b"\xef\xbb\xbf"
QUOTE, LINE_END = ord('"'), ord("\n")


@dataclass(frozen=True)
class Settled:
    """A page as it now lies on disk, without a byte order mark; CSV ends with a line end.

    `rows` without the header. `header` has the names of the columns; of a page in JSON, those that its first row has.
    """

    header: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str
    notes: tuple[str, ...] = ()


class RecordCounter:
    """Counts the records of a CSV text that comes in pieces; a line end inside quotes is part of its record.

    A line end ends a record if an even number of quotes stands before it. Only that parity is wanted, so the quotes of each
    line are summed up in numpy, which also lets the other threads of a download run meanwhile.
    """

    def __init__(self) -> None:
        self.records = 0
        self.quoted = False
        self._last = b""

    def feed(self, piece: bytes) -> None:
        if not piece:
            return
        text = np.frombuffer(piece, np.uint8)
        quotes = (text == QUOTE).view(np.uint8)
        # quotes from the beginning to the first line end, from there to the second, …: sums of bytes, of which only the last bit counts
        starts = np.concatenate(([0], np.flatnonzero(text == LINE_END)))
        parity = np.bitwise_xor.accumulate(np.add.reduceat(quotes, starts, dtype=np.uint8) & 1) ^ self.quoted
        self.records += int(np.count_nonzero(parity[:-1] == 0))
        self.quoted = bool(parity[-1])
        self._last = piece[-1:]

    @property
    def is_open(self) -> bool:
        """Whether the text ends inside a record: inside quotes, or without the line end of its last line."""
        return self.quoted or self._last not in (b"\n", b"")

    @property
    def total(self) -> int:
        """The records so far, with a last one that has no line end."""
        return self.records + self.is_open


def count_records(path: Path) -> int:
    """How many records a CSV file has, its header among them."""
    counter = RecordCounter()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            counter.feed(piece)
    return counter.total


def header_of(path: Path) -> tuple[str, ...]:
    """The names in the first record. Raises DataError if they cannot be read or the file is empty."""
    try:
        # A row with a byte that is not UTF-8 is the loader's to reject; it must not hide the header that it is read with.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return tuple(next(csv.reader(file)))
    except StopIteration:
        raise DataError(f"{path.name} has no header: the file is empty", code="empty-file") from None
    except csv.Error as error:
        raise DataError(f"the header of {path.name} cannot be read: {error}", code="bad-header") from error


class Watched:
    """What is learned of a file while it arrives: `begin` for each attempt, and the last one's counter stands."""

    def __init__(self, counter: Callable[[], Any] = RecordCounter) -> None:
        self._new = counter
        self.counter = counter()

    def begin(self) -> Callable[[bytes], None]:
        self.counter = self._new()
        return self.counter.feed


def has_mark(path: Path) -> bool:
    """Whether the file begins with a byte order mark."""
    with path.open("rb") as file:
        return file.read(len(BOM)) == BOM


def settle(path: Path, *, proven: bool, watched: Watched | None = None, sha256: str = "") -> Settled:
    """Take the byte order mark off, give the last line its end, count the rows and hash what results.

    A file that was `watched` while it arrived, and whose `sha256` is known, is not read again if nothing is to be changed.
    `proven`: the transport showed that the file is whole. A file that ends in the middle of a record raises
    TransientError("cut-body") when it was not proven, or when a quote is left open; a proven one only lacked its line end.
    """
    header = header_of(path)
    if watched and sha256 and not watched.counter.is_open and not has_mark(path):
        return Settled(header, watched.counter.total - 1, path.stat().st_size, sha256)
    counter = RecordCounter()
    digest, size, notes = read_through(path, counter)
    if counter.is_open:
        if counter.quoted or not proven:
            raise TransientError(f"{path.name} was cut: it ends in the middle of row {counter.total - 1:,}", code="cut-body")
        with path.open("ab") as file:
            file.write(b"\n")
        digest.update(b"\n")
        size += 1
        notes.append("line end of the last row added")
    return Settled(header, counter.total - 1, size, digest.hexdigest(), tuple(notes))


def read_through(path: Path, counter: Any) -> tuple[Any, int, list[str]]:
    """Feed a file to a counter, with its byte order mark taken off; return (its sha256, to go on with, its bytes, notes)."""
    digest, size, notes = hashlib.sha256(), 0, []
    bare = path.with_name(f"{path.name}.bare")
    with path.open("rb") as file:
        if file.read(len(BOM)) == BOM:
            notes.append("byte order mark taken off")
        else:
            file.seek(0)
        # only a file with a mark must be written anew
        copy = bare.open("wb") if notes else None
        try:
            while piece := file.read(PIECE):
                counter.feed(piece)
                digest.update(piece)
                size += len(piece)
                if copy:
                    copy.write(piece)
        finally:
            if copy:
                copy.close()
    if copy:
        bare.replace(path)
    return digest, size, notes
