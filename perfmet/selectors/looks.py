"""How a sensor's health looks: icon, word, colour, letter and rank; and how a number, a share and the hours of a day are printed. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from perfmet.models import Health
from pipelines import clock
from pipelines.selectors.faces import Face

FACES = {
    Health.WELL: Face("ok", "Well"),
    Health.NEW: Face("running", "New"),
    Health.SILENT: Face("missing", "Silent"),
    Health.ZERO: Face("failed", "All zero"),
    Health.LOW: Face("suspicious", "Low"),
    Health.HIGH: Face("suspicious", "High"),
    Health.PARTIAL: Face("late", "Part of the day"),
    Health.STALE: Face("queued", "No data yet"),
}
#: What stands on the map beside the colour; a sensor that is well is a dot.
LETTERS = {
    Health.WELL: "",
    Health.NEW: "N",
    Health.SILENT: "S",
    Health.ZERO: "0",
    Health.LOW: "L",
    Health.HIGH: "H",
    Health.PARTIAL: "P",
    Health.STALE: "?",
}
#: From the loudest to the quietest; low, high and partial are equally loud, and sorted by how far off they are.
RANKS = {
    Health.SILENT: 0,
    Health.ZERO: 1,
    Health.LOW: 2,
    Health.HIGH: 2,
    Health.PARTIAL: 2,
    Health.STALE: 3,
    Health.NEW: 4,
    Health.WELL: 5,
}
#: In the order of filters and counters.
ORDER = (Health.SILENT, Health.ZERO, Health.LOW, Health.HIGH, Health.PARTIAL, Health.STALE, Health.NEW, Health.WELL)
#: Whoever is none of these needs a look. A day that has not come in yet says nothing of its sensors: its pipeline is what needs a look.
QUIET = frozenset({Health.WELL, Health.NEW, Health.STALE})
UNKNOWN = Face("cancelled", "Unknown")
_FILLS = {"ok": "okquiet", "missing": "failed", "unchanged": "queued", "cancelled": "queued"}


def face_of(health: str) -> Face:
    """The face of a health by its code; UNKNOWN for a code that this version does not have."""
    return FACES.get(health, UNKNOWN)


def is_trouble(health: str) -> bool:
    """Whether a person should look at the sensor; of a health that this version does not know, too."""
    return health not in QUIET


def letter_of(health: str) -> str:
    return LETTERS.get(health, "?")


def fill_of(health: str) -> str:
    """The class of a bar without its "bar--": quiet where all is well."""
    look = face_of(health).look
    return _FILLS.get(look, look)


def known(value: float | None) -> float | None:
    """The number, or None where there is none that can be drawn (NaN and infinity come out of broken sums)."""
    return value if value is not None and math.isfinite(value) else None


def figure(value: float | None) -> str:
    """ "18,439", "0.25", "–": whole where it is a count."""
    value = known(value)
    if value is None:
        return "–"
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.2f}"


def share(value: float | None, expected: float | None) -> float | None:
    """Value by expected; None where nothing was expected or either is no number."""
    value, expected = known(value), known(expected)
    return value / expected if value is not None and expected is not None and expected > 0 else None


def percent(part: float | None) -> str:
    if part is None:
        return "–"
    return f"{100 * part:,.0f} %" if abs(part) < 100 else "> 9,999 %" if part > 0 else "< −9,999 %"


def distance(value: float | None, expected: float | None) -> float:
    """How far off: 0 as expected, the same for twice and for half of it, infinite where nothing came of what was expected."""
    part = share(value, expected)
    if part is None:
        return 0.0 if not known(value) else math.inf
    return abs(math.log(part)) if part > 0 else math.inf


def worst_first(health: str, value: float | None, expected: float | None, sensor: str) -> tuple:
    """A key to sort by: what needs a look first, then who is farthest off, then who is missed most."""
    return RANKS.get(health, 3), -distance(value, expected), -(known(expected) or 0), sensor.casefold(), sensor


@dataclass(frozen=True)
class Bar:
    """A bar of 120 units with the expected value at 60; what is more than twice as much is `beyond`."""

    width: float
    is_beyond: bool = False
    has_mark: bool = True


def bar(value: float | None, expected: float | None) -> Bar:
    part = share(value, expected)
    if part is None:
        return Bar(0 if not known(value) or value < 0 else 120, has_mark=False)
    return Bar(round(min(max(part, 0), 2) * 60, 1), part > 2)


@dataclass(frozen=True)
class Hours:
    """The part of a local day from a sensor's first row to its last, on a strip of 72 units, and in words."""

    x: float
    width: float
    words: str


def hours(first_at: datetime | None, last_at: datetime | None, day: date, zone: str) -> Hours:
    """Clipped to the day; a day on which the clock changes has its own length."""
    if first_at is None or last_at is None:
        return Hours(0, 0, "no data")
    starts, ends = clock.day_start(day, zone), clock.day_start(day + timedelta(days=1), zone)
    first, last = max(min(first_at, last_at), starts), min(max(first_at, last_at), ends)
    if first > last:
        return Hours(0, 0, "outside of the day")
    length = max((ends - starts).total_seconds(), 1)
    x, end = (72 * (moment - starts).total_seconds() / length for moment in (first, last))
    local = clock.zone(zone)
    until = "24:00" if last >= ends - timedelta(seconds=60) else f"{last.astimezone(local):%H:%M}"
    return Hours(round(x, 1), round(max(end - x, 1), 1), f"{first.astimezone(local):%H:%M} to {until}")
