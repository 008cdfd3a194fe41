"""The days of a watch, one after the other: who is expected, what is usual, how each sensor was. Pure; `observe.py` reads and writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo

from perfmet import expected
from perfmet.expected import Heard
from perfmet.health import Known, Thresholds, judge
from perfmet.models import Health


@dataclass(frozen=True)
class Reading:
    """What a sensor sent on one day: the value, from how many rows, and the moments (aware) of its first and last."""

    value: float
    rows: int
    first_at: datetime | None = None
    last_at: datetime | None = None

    def with_(self, other: Reading) -> Reading:
        """Both as one: what several blocks of a day have of it."""
        return Reading(
            value=self.value + other.value,
            rows=self.rows + other.rows,
            first_at=min(filter(None, (self.first_at, other.first_at)), default=None),
            last_at=max(filter(None, (self.last_at, other.last_at)), default=None),
        )


#: Sensor to reading; empty for a day of which the source has given nothing.
Readings = Mapping[str, Reading]


@dataclass(frozen=True)
class Judged:
    """A sensor's day: what it sent (rows 0: nothing), what was expected (None: not known), and how that is."""

    reading: Reading
    expected: float | None
    health: Health
    reason: str


SILENCE = Reading(0, 0)


@dataclass
class Reckoner:
    """Goes through the days in their order; each day stands on those before it.

    `past` (sensor to the days on which it was heard, oldest first) and `last_heard` (sensor to the newest of them, however old) are
    what was known before the first day.
    """

    rule: str
    window_days: int
    thresholds: Thresholds
    zone: tzinfo
    past: dict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))
    last_heard: dict[str, date] = field(default_factory=dict)

    def day(self, day: date, readings: Readings, listed: Mapping[str, str]) -> dict[str, Judged]:
        """Sensor to verdict, by name, of all that reported or were expected to. `listed` are those of the inventory.

        Where nothing reported, the source is at fault and not the sensors. A reading without rows is none.
        """
        heard = {sensor: reading for sensor, reading in readings.items() if reading.rows}
        wanted = expected.roster(day, self.window_days, self.last_heard, listed) | set(heard)
        found = {sensor: self._judged(day, sensor, heard, listed) for sensor in sorted(wanted)}
        self.last_heard.update(dict.fromkeys(heard, day))
        return found

    def _judged(self, day: date, sensor: str, heard: Readings, listed: Mapping[str, str]) -> Judged:
        reading, past = heard.get(sensor, SILENCE), self.past[sensor]
        usual = expected.usual(self.rule, self.window_days, day, reading.value if reading.rows else None, past)
        known = Known(
            day=day,
            zone=self.zone,
            value=reading.value,
            rows=reading.rows,
            first_at=reading.first_at,
            last_at=reading.last_at,
            expected=usual.value,
            history=usual.days,
            usual_hours=usual.hours,
            last_heard=self.last_heard.get(sensor),
            is_listed=sensor in listed,
            is_delivered=bool(heard),
        )
        health, reason = judge(known, self.thresholds)
        if reading.rows:
            past.append(Heard(day, reading.value, known.hours, health))
        return Judged(reading, usual.value, health, reason)
