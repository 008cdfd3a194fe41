"""What the tables beside ready documents are made with: CSV for the loader, times for sorting and for row ids, numbers that are numbers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pipelines.formats.sensors import hashed, wall

_SECONDS = re.compile(r":[0-5][0-9](\.[0-9]{1,6})?")


class TableWriter:
    """Writes rows as CSV (UTF-8, a header, null as an empty cell). Use it as a context: an error leaves no file behind."""

    def __init__(self, path: Path, columns: Iterable[tuple[str, str]]):
        self.path = path
        self.rows = 0
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow([name for name, _ in columns])

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        rows = list(rows)
        self._writer.writerows(rows)
        self.rows += len(rows)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None:
            self.path.unlink()


@lru_cache(maxsize=4096)
def _minute(text: str, offset: str) -> str:
    return f"{datetime.fromisoformat(f'{text}:00{offset}').astimezone(UTC):%Y-%m-%d %H:%M}"


class Moment(NamedTuple):
    """A document's time: as a text that sorts by time, as portals take it, and as it goes into row ids."""

    utc: str
    wall: str
    hashed: str


@lru_cache(maxsize=8192)
def moment(text: Any, time_zone: str) -> Moment | None:
    """A document's time in the three ways in which a table needs it; None for what is no such time."""
    if type(text) is not str or not _SECONDS.fullmatch(seconds := text[16:-6]):
        return None
    try:
        return Moment(_minute(text[:16], text[-6:]) + seconds, wall(text), wall(text) + hashed(f"{text[:13]}:00:00{text[-6:]}", time_zone)[19:])
    except ValueError:
        return None


def is_number(value: Any) -> bool:
    """Whether a cell may stand in a column of numbers: a finite number, as text or not, or nothing at all."""
    if value is None or value == "":
        return True
    try:
        text = str(value)
        return math.isfinite(float(text)) and text.isascii() and "_" not in text
    except (ValueError, TypeError):
        return False
