"""Ratios of neighbours: what a pair of measurements says, and what several say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """A median, and the least and the most that were seen."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when nothing was measured."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times faster ours was, pair by pair: seconds of theirs through seconds of ours, then the median.

    The quotient of two medians would compare minutes that had nothing to do with each other. Raises ValueError for pairs that are none.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} measurements on one side, {len(theirs)} on the other")
    return Spread.of([their / our for our, their in zip(ours, theirs, strict=True)])


def per_row(seconds: Sequence[float], rows: int) -> float:
    """Microseconds a row, by the median."""
    return median(seconds) * 1e6 / rows
