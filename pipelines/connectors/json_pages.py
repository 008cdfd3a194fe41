"""Settle a page of rows in JSON that arrived: is it a whole array of objects, and how many, in one pass and one piece of memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from pipelines.connectors.csv_pages import PIECE, QUOTE, Settled, Watched, has_mark, read_through
from pipelines.errors import DataError, TransientError

_NOISE = bytes(byte for byte in range(256) if byte not in b'"{}[]')
_PROTECTED = re.compile(rb"\\.", re.DOTALL)
_OPENS = b"{["


class ObjectCounter:
    """Counts the objects of a JSON array that comes in pieces.

    Only quotes and brackets matter, so all else is thrown away first (in C); what a backslash protects goes before that.
    """

    def __init__(self) -> None:
        self.objects = 0
        self.depth = 0
        self.quoted = False
        #: the array has begun, and ended; what stands there instead of an array of objects
        self.begun = self.ended = False
        self.strange = ""
        self._kept = b""

    def feed(self, piece: bytes) -> None:
        piece = self._kept + piece
        # a backslash at the end protects what comes next
        self._kept = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        piece = piece.removesuffix(self._kept)
        if not self.begun and (start := piece.lstrip()) and not start.startswith(b"["):
            self.strange = self.strange or "it does not begin with ["
        if b"\\" in piece:
            piece = _PROTECTED.sub(b"", piece)
        marks = np.frombuffer(piece.translate(None, _NOISE), np.uint8)
        quotes = marks == QUOTE
        is_text = (np.cumsum(quotes) + self.quoted) % 2 == 1
        self.quoted = bool((np.count_nonzero(quotes) + self.quoted) % 2)
        self._walk(marks[~quotes & ~is_text])

    def _walk(self, brackets: np.ndarray) -> None:
        """Follow the brackets that stand outside of texts."""
        opens = (brackets == _OPENS[0]) | (brackets == _OPENS[1])
        steps = np.where(opens, 1, -1)
        after = self.depth + np.cumsum(steps)
        before = after - steps
        tops = int(np.count_nonzero(opens & (before == 0)))
        if tops > (not self.begun) or (tops and self.ended):
            self.strange = self.strange or "something follows the array"
        self.begun |= tops > 0
        rows = brackets[opens & (before == 1)]
        if (lists := np.flatnonzero(rows != _OPENS[0])).size:
            self.strange = self.strange or f"row {self.objects + int(lists[0]) + 1:,} is a list"
        self.objects += rows.size
        self.ended |= bool(np.any(~opens & (after <= 0)))
        self.depth = int(after[-1]) if after.size else self.depth

    @property
    def is_open(self) -> bool:
        """Whether the array has not come to its end."""
        return self.quoted or self.depth > 0 or not self.ended


def settle(path: Path, *, watched: Watched | None = None, sha256: str = "") -> Settled:
    """Take the byte order mark off, count the rows and hash what results; what was `watched` while it came need not be read again.

    Raises TransientError("cut-body") for an array that does not end, DataError("not-rows") for what is no array of objects.
    """
    if watched and sha256 and not has_mark(path):
        counter, size, notes = watched.counter, path.stat().st_size, []
    else:
        counter = ObjectCounter()
        digest, size, notes = read_through(path, counter)
        sha256 = digest.hexdigest()
    if counter.strange:
        raise DataError(f"{path.name} is not an array of rows: {counter.strange}", code="not-rows")
    if counter.is_open:
        raise TransientError(f"{path.name} was cut: it ends in row {counter.objects:,}, or before its end", code="cut-body")
    return Settled(_first_names(path), counter.objects, size, sha256, tuple(notes))


def _first_names(path: Path) -> tuple[str, ...]:
    """The names in the first row; () where it can't be read alone, which the loader will say better."""
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(4 * PIECE)
    try:
        row, _ = json.JSONDecoder(strict=False).raw_decode(start, start.find("{"))
    except (ValueError, IndexError):
        return ()
    return tuple(row)
