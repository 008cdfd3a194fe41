"""Which day and which span of days an address asks for: `?day=`, `?from=`, `?to=`, in words where they make no sense. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from catalog import asked

#: A span is no longer than this: a page of it must stay readable.
MOST_DAYS = 92
FIRST_YEAR = 1970


@dataclass(frozen=True)
class Span:
    """`first` to `last`, both among them. `problem` says what was wrong with what was asked for."""

    first: date
    last: date
    problem: str = ""

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=place) for place in range((self.last - self.first).days + 1)]

    @property
    def mondays(self) -> set[int]:
        """The places at which a week begins, the first one among them."""
        return {place for place, day in enumerate(self.days) if day.weekday() == 0 or place == 0}

    @property
    def weeks(self) -> list[tuple[date, int]]:
        """(first day, number of days) of each week of it."""
        found: list[tuple[date, int]] = []
        for place, day in enumerate(self.days):
            if place in self.mondays:
                found.append((day, 1))
            else:
                found[-1] = found[-1][0], found[-1][1] + 1
        return found


def day_of(given: Mapping[str, str], name: str) -> tuple[date | None, str]:
    """The day under that name, and what is wrong with it. A day from which no week can be counted is none."""
    found, problem = asked.day(given.get(name))
    if problem:
        return None, f"“{given.get(name, '').strip()[:40]}” is no day. Write it like 2026-11-20."
    if found and not FIRST_YEAR <= found.year < 9000:
        return None, f"{found} is too far away; the usual days are shown."
    return found, ""


def span_of(given: Mapping[str, str], until: date, usual: int) -> Span:
    """The span asked for by `from` and `to`; without them `usual` days up to `until`."""
    first, wrong_first = day_of(given, "from")
    last, wrong_last = day_of(given, "to")
    problems = [words for words in (wrong_first, wrong_last) if words]
    last = last or (until if first is None or first <= until else first)
    first = first or last - timedelta(days=usual - 1)
    if first > last:
        problems.append(f"The span from {first} to {last} ends before it begins; the days are swapped.")
        first, last = last, first
    if (last - first).days >= MOST_DAYS:
        first = last - timedelta(days=MOST_DAYS - 1)
        problems.append(f"A page shows {MOST_DAYS} days at most: those up to {last}.")
    return Span(first, last, " ".join(problems))
