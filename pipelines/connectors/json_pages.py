"""Settle a page of rows in JSON that arrived: is it a whole array of objects, and how many, in one pass and one piece of memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipelines.connectors.csv_pages import PIECE, Settled, read_through
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
        marks = piece.translate(None, _NOISE).replace(b'""', b"").split(b'"')
        for brackets in marks[1 if self.quoted else 0 :: 2]:
            self._walk(brackets)
        self.quoted ^= len(marks) % 2 == 0

    def _walk(self, brackets: bytes) -> None:
        depth, objects = self.depth, self.objects
        for bracket in brackets:
            if bracket in _OPENS:
                if depth == 0:
                    self.strange = self.strange or ("something follows the array" if self.ended else "")
                    self.begun = True
                if depth == 1:
                    objects += 1
                    if bracket != _OPENS[0]:
                        self.strange = self.strange or f"row {objects:,} is a list"
                depth += 1
            else:
                depth -= 1
                if depth <= 0:
                    self.ended = True
        self.depth, self.objects = depth, objects

    @property
    def is_open(self) -> bool:
        """Whether the array has not come to its end."""
        return self.quoted or self.depth > 0 or not self.ended


def settle(path: Path) -> Settled:
    """Take the byte order mark off, count the rows and hash what results.

    Raises TransientError("cut-body") for an array that does not end, DataError("not-rows") for what is no array of objects.
    """
    counter = ObjectCounter()
    digest, size, notes = read_through(path, counter)
    if counter.strange:
        raise DataError(f"{path.name} is not an array of rows: {counter.strange}", code="not-rows")
    if counter.is_open:
        raise TransientError(f"{path.name} was cut: it ends in row {counter.objects:,}, or before its end", code="cut-body")
    return Settled(_first_names(path), counter.objects, size, digest.hexdigest(), tuple(notes))


def _first_names(path: Path) -> tuple[str, ...]:
    """The names in the first row; () where it can't be read alone, which the loader will say better."""
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(4 * PIECE)
    try:
        row, _ = json.JSONDecoder(strict=False).raw_decode(start, start.find("{"))
    except (ValueError, IndexError):
        return ()
    return tuple(row)
