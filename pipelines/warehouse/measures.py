"""A question of groups and measures to a city table: described once, in our words, and put into SQL by each engine's `measures`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from pipelines.errors import SetupError

#: What of a local time a question may group by: the first day of its month, its day, its hour (0 to 23), its weekday (Monday = 0).
PARTS = ("month", "day", "hour", "weekday")
TIMES = ("local_time", "instant")
KINDS = ("count", "sum", "distinct", "min", "max")

Value = int | float | Decimal | datetime
#: (from this instant on, seconds that the clock is ahead of UTC), the first from None: since ever.
Offsets = tuple[tuple[datetime | None, int], ...]


@dataclass(frozen=True)
class By:
    """A column to group by; `part` is what of a time's local clock."""

    name: str
    column: str
    part: str = ""


@dataclass(frozen=True)
class Where:
    """What a row must be: all that is given of it. An empty value passes only with `or_empty`. Instants are aware datetimes."""

    column: str
    at_least: Value | None = None
    more_than: Value | None = None
    below: Value | None = None
    equals: Value | None = None
    among: tuple[str, ...] = ()
    or_empty: bool = False

    def bounds(self) -> list[tuple[str, Value]]:
        """(operator, value) of what is given."""
        given = ((">=", self.at_least), (">", self.more_than), ("<", self.below), ("=", self.equals))
        return [(sign, value) for sign, value in given if value is not None]


@dataclass(frozen=True)
class Measure:
    """A number of each group, over its rows that pass `where`. `kind` is one of KINDS; "count" without a column counts rows, with one its values."""

    name: str
    kind: str = "count"
    column: str = ""
    where: tuple[Where, ...] = ()


@dataclass(frozen=True)
class Question:
    """`measures` for each group of `by`, of the rows that pass `where`; `offsets` say how the clock of the groups goes.

    The engine breaks off after `seconds`, and refuses to answer with more than `limit` groups: a part would look like the whole.
    """

    by: tuple[By, ...]
    measures: tuple[Measure, ...]
    where: tuple[Where, ...] = ()
    offsets: Offsets = ((None, 0),)
    seconds: int = 20
    limit: int = 200_000

    @property
    def told_apart(self) -> str:
        """The column whose distinct values are counted, "" where there is none, or where there are several."""
        columns = {measure.column for measure in self.measures if measure.kind == "distinct"}
        return columns.pop() if len(columns) == 1 else ""

    def check(self, table: str, kinds: Mapping[str, str]) -> None:
        """Raise SetupError where a table with columns of these kinds, in our words, can't answer it; `kinds` is empty where there is no table."""
        if not kinds:
            raise SetupError(
                f"The warehouse has no table {table}.", code="no-table", next_step="The first load makes it: run a block of a pipeline that loads it."
            )
        wrong = [f"{column} is missing" for column in sorted({column for column, _ in self._wanted()} - kinds.keys())]
        wrong += [f"{column} is {kinds[column]}" for column, fit in self._wanted() if column in kinds and fit and kinds[column] not in fit]
        if wrong:
            raise SetupError(
                f"The table {table} can't be counted so: {', '.join(dict.fromkeys(wrong))}.",
                code="no-column",
                next_step="Look at its columns and types, and name the right table in the pipeline.",
            )

    def answer(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """The rows by name, in the order of their groups, empty ones last. Raises SetupError for more than the limit."""
        if len(rows) > self.limit:
            raise SetupError(f"The answer has more than {self.limit:,} groups.", code="too-many-groups", next_step="Ask for a shorter span.")
        names, groups = [each.name for each in (*self.by, *self.measures)], len(self.by)
        # sorted here, for a server that has to sort sorts all its rows instead of the few groups
        rows = sorted(rows, key=lambda row: [(value is None, value if value is not None else 0) for value in row[:groups]])
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _wanted(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(column, the types that it may have, () = any) of all that is asked."""
        for by in self.by:
            yield by.column, TIMES if by.part else ()
        for where in (*self.where, *(where for measure in self.measures for where in measure.where)):
            for _, value in where.bounds():
                yield where.column, TIMES if isinstance(value, datetime) else ("number",)
            if where.among:
                yield where.column, ("text",)
        for measure in self.measures:
            if measure.column:
                yield measure.column, ("number",) if measure.kind == "sum" else ()


def offsets(zone: tzinfo, since: datetime, until: datetime) -> Offsets:
    """How a zone's clock goes between two instants: by the same rules as ours, whatever zones the warehouse's server knows."""
    at, found = since.astimezone(UTC), [(None, _ahead(zone, since))]
    while at < until:
        day_after = at + timedelta(days=1)
        if _ahead(zone, day_after) != found[-1][1]:
            change = _change(zone, at, day_after)
            found.append((change, _ahead(zone, change)))
        at = day_after
    return tuple(found)


def _ahead(zone: tzinfo, at: datetime) -> int:
    return int(at.astimezone(zone).utcoffset().total_seconds())


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """The second at which the clock changes between the two."""
    old = _ahead(zone, before)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        before, after = (middle, after) if _ahead(zone, middle) == old else (before, middle)
    return after
