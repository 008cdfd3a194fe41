"""Whether a sensor was well on a day, and why, in words. Pure: what is known of the day comes in, a verdict goes out.

The first that applies of: stale (the source gave nothing at all, so nothing is said of any sensor), silent (expected, and sent
nothing), zero (rows, and nothing but zeros), new (too few days to know what is usual), partial, high, low. The rest is well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, tzinfo
from typing import Any

from perfmet.models import Health
from pipelines.errors import SetupError

#: A day is not called partial that covers more than this share of the hours that the sensor usually covers: some rest at night.
USUAL_HOURS = 0.75


@dataclass(frozen=True)
class Thresholds:
    """From where on a day is not usual any more. `of` lays the watch's own over those of the settings.

    `low` and `high` are shares of the expected value; `hours` how many a day has to cover; `days` how many days must be known
    before anything is usual; under an expected `least` a day is neither low nor high: chance alone makes little into nothing.
    `late` is how many hours after its block is due a day is called stale.
    """

    low: float
    high: float
    hours: float
    days: float
    least: float
    late: float

    @classmethod
    def of(cls, usual: Mapping[str, float], own: Mapping[str, Any]) -> Thresholds:
        """Those of the settings, which name all, and over them a watch's own. Raises SetupError for a name or number that makes no sense."""
        known = [field.name for field in fields(cls)]
        if not isinstance(own, Mapping):
            raise _wrong(f"{own!r} are none", known)
        if strangers := sorted(set(own) - set(known)):
            raise _wrong(f"there is no {', '.join(map(str, strangers))}", known)
        for name, value in own.items():
            # of JSON, true is a number to Python, and NaN may come too
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise _wrong(f"{name} must be a number of 0 or more, not {value!r}", known)
        made = cls(**{**usual, **own})
        if made.low >= made.high:
            raise _wrong(f"low ({made.low:g}) must be less than high ({made.high:g})", known)
        return made


def _wrong(what: str, known: Sequence[str]) -> SetupError:
    return SetupError(
        f"The thresholds of the sensors: {what}.",
        code="bad-threshold",
        next_step=f'Correct them in the watch, like {{"low": 0.4}}. The names are: {", ".join(known)}.',
    )


@dataclass(frozen=True)
class Known:
    """What there is to say of a sensor's day. Instants are aware; `zone` is the clock in which the day and the words are told.

    `history` is on how many days before it was heard that count as usual, `usual_hours` how many hours those covered (None: not
    known). `last_heard` is the newest day before this on which it sent anything, and `is_listed` whether the inventory has it.
    """

    day: date
    zone: tzinfo
    value: float = 0
    rows: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    expected: float | None = None
    history: int = 0
    usual_hours: float | None = None
    last_heard: date | None = None
    is_listed: bool = False
    is_delivered: bool = True

    @property
    def hours(self) -> float | None:
        """How long from its first row to its last; None where that is not known."""
        return hours_between(self.first_at, self.last_at)


def hours_between(first_at: datetime | None, last_at: datetime | None) -> float | None:
    return None if first_at is None or last_at is None else (last_at - first_at).total_seconds() / 3600


def judge(known: Known, thresholds: Thresholds) -> tuple[Health, str]:
    """The health of a sensor's day, and the reason in words."""
    if not known.is_delivered:
        return Health.STALE, f"The source has given nothing for {day_words(known.day)}: this says nothing of the sensor."
    if not known.rows:
        return Health.SILENT, silent_words(known)
    if known.value == 0:
        usual = f"; {number_words(known.expected)} expected" if known.expected else ""
        return Health.ZERO, f"{known.rows:,} row{'s' * (known.rows != 1)}, and nothing but zeros{usual}"
    if known.history < thresholds.days:
        before = f"{known.history:,} day{'s' * (known.history != 1)} known before" if known.history else "Its first day"
        return Health.NEW, f"{before}; what is usual is known after {thresholds.days:g}"
    if words := _partial(known, thresholds):
        return Health.PARTIAL, words
    return _against_expected(known, thresholds)


def silent_words(known: Known) -> str:
    """ "No reading since 19 Nov (3 days)": the day is the last on which it was heard."""
    if known.last_heard is None:
        return "No reading yet; the inventory has it" if known.is_listed else "No reading yet"
    days = (known.day - known.last_heard).days
    year = f" {known.last_heard.year}" if known.last_heard.year != known.day.year else ""
    return f"No reading since {day_words(known.last_heard)}{year} ({days:,} day{'s' * (days != 1)})"


def _partial(known: Known, thresholds: Thresholds) -> str:
    """In words that the day is partial; "" when it is not."""
    hours = known.hours
    if hours is None or hours >= thresholds.hours:
        return ""
    if known.usual_hours is not None and hours >= USUAL_HOURS * known.usual_hours:
        return ""
    span = f"{known.first_at.astimezone(known.zone):%H:%M} to {known.last_at.astimezone(known.zone):%H:%M}"
    usual = f"; {known.usual_hours:.1f} are usual" if known.usual_hours is not None else ""
    return f"Only {hours:.1f} hours, from {span}{usual}"


def _against_expected(known: Known, thresholds: Thresholds) -> tuple[Health, str]:
    expected = known.expected
    if not expected or expected < 0:
        return Health.WELL, f"{number_words(known.value)}; nothing is expected of it"
    words = f"{number_words(known.value)} against {number_words(expected)} expected"
    if max(expected, known.value) < thresholds.least:
        return Health.WELL, words
    share = known.value / expected
    if share > thresholds.high:
        return Health.HIGH, f"{words}: {share:,.1f} times the usual"
    if share < thresholds.low and expected >= thresholds.least:
        return Health.LOW, f"{words}: {share:.0%} of the usual"
    return Health.WELL, words


def day_words(day: date) -> str:
    """ "19 Nov"."""
    return f"{day.day} {day:%b}"


def number_words(value: float | None) -> str:
    """A count as people read it: "1,204", and of little numbers their fractions, "4.3"."""
    if value is None:
        return "nothing"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:,.1f}"
