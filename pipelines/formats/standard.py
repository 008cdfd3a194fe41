"""What a format tells of the raw files that it turns into the city's own form: the rows that it refused, and its counts. No Django.

A format that the standardize stage works with has `columns` (name, type), `tally` (a Tally that grows), `convert` (one raw file →
one CSV file, yielding what it refuses) and `report` (what did not fit, for the run's details).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Refused:
    """A record that is no row: `number` is its place in the file (the first is 1), `raw` the whole record as it came.

    `reason` names no values, so that equal reasons can be counted; `column` is the first field that is wrong and `value` what it holds.
    """

    number: int
    reason: str
    column: str
    value: str
    key: str
    raw: dict[str, Any]


@dataclass
class Tally:
    """What became of the records of a block, file after file: rows_in = rows_out + rejected + duplicates + elsewhere.

    `elsewhere` are records that belong to another block, and come again there: the source can only be asked for more than a block.
    `flags` counts what is odd about them, `warnings` what was not as it should be and was taken all the same.
    """

    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    duplicates: int = 0
    elsewhere: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)


class Format(Protocol):
    """A reader of raw files. It is made anew for each block, so what it remembers is the block's."""

    columns: tuple[tuple[str, str], ...]
    tally: Tally

    def convert(self, page: Path, target: Path, about: Mapping[str, Any]) -> Iterator[Refused]:
        """Write the rows of `page` to `target` as CSV (UTF-8, a header), and yield what is refused. `about` is the file's metadata."""
        ...

    def report(self) -> dict[str, Any]:
        """What did not fit, as plain values."""
        ...
