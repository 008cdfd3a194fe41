"""Lines sorted by a key, any number of them in a bounded memory: sorted runs lie on disk and are merged.

Lines with equal keys keep the order in which they came.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

#: So many bytes are sorted at once; a row of a sensor has two or three hundred.
RUN = 12 * 1024 * 1024
#: What a line costs beside its bytes.
_EACH = 60
_APART = b"\0"
_KEYED = str.maketrans("\0\n", "\1\1")


class SortedLines:
    """Add lines with their keys, then read them once, in order. Use it as a context: the files that it needs go with it.

    A key has always the same number of parts; they are compared one after the other, by their UTF-8. A line holds no line end.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._held: list[bytes] = []
        self._size = self._number = self._parts = 0
        self._files: list[IO[bytes]] = []

    def add(self, key: Sequence[str], line: bytes) -> None:
        told = "\0".join((*key, f"{self._number:012}", ""))
        self._parts = len(key) + 1
        if told.count("\0") != self._parts or "\n" in told:
            told = "\0".join((*(part.translate(_KEYED) for part in key), f"{self._number:012}", ""))
        self._number += 1
        record = told.encode() + line
        self._held.append(record)
        self._size += len(record) + _EACH
        if self._size > RUN:
            self._spill()

    def _spill(self) -> None:
        self._held.sort()
        file = TemporaryFile(dir=self.folder)  # noqa: SIM115 - it is read when all are there, and closed with the others
        self._files.append(file)
        for begin in range(0, len(self._held), 1_000):
            file.write(b"\n".join(self._held[begin : begin + 1_000]) + b"\n")
        file.seek(0)
        self._held, self._size = [], 0

    def __iter__(self) -> Iterator[bytes]:
        self._held.sort()
        merged = heapq.merge(*self._files, self._held) if self._files else self._held
        for record in merged:
            yield record.split(_APART, self._parts)[-1].removesuffix(b"\n")

    def __enter__(self) -> SortedLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with ExitStack() as closing:
            for file in self._files:
                closing.callback(file.close)
