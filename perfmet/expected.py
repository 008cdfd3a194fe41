"""What is expected: of whom (the roster of a day), and how much (the usual value). Pure.

Two rules. *previous*: the mean of the newest `window_days` days before on which the sensor reported. *six-points*: as
atd-data-lake reckons, the mean of the six newest calendar days, the day itself among them (10, 20 … 80 gives 55).

Days on which a sensor was broken say nothing of what is usual, so *previous* leaves out those that were judged zero, low, high
or partial: a sensor that triples is called high on the second day too, and its repair is not called low. None of the days may
be older than four windows; so a sensor whose level has changed for good is told as odd that long, then as new, then is well.
The median of the window would forget a defect in half a window, and the rule as it is written is a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import fmean, median

from perfmet.models import Health, SensorWatch

#: How many windows back a day may lie to count for anything: the usual value, or that a silent sensor is still waited for.
WINDOWS = 4
SIX_POINTS = 6
#: Judged so, a day does not say what is usual.
ODD = frozenset({Health.ZERO, Health.LOW, Health.HIGH, Health.PARTIAL})


@dataclass(frozen=True)
class Heard:
    """A day on which a sensor sent something: how much, how long (hours, None: not known), and how it was judged."""

    day: date
    value: float
    hours: float | None
    health: str


@dataclass(frozen=True)
class Usual:
    """What is usual for a sensor: the value (None: not known), the hours a day, and how many earlier days could tell."""

    value: float | None
    hours: float | None
    days: int


def reach(window_days: int) -> timedelta:
    """How far back a day counts."""
    return timedelta(days=WINDOWS * window_days)


def usual(rule: str, window_days: int, day: date, today: float | None, past: Sequence[Heard]) -> Usual:
    """What is usual on `day`, of what was heard before it, oldest first. `today` is the day's own value, None when it was silent."""
    if rule == SensorWatch.Rule.SIX_POINTS:
        since = day - timedelta(days=SIX_POINTS)
        counted = [one for one in past if since < one.day < day]
        values = [one.value for one in counted] + ([today] if today is not None else [])
    else:
        since = day - reach(window_days)
        counted = [one for one in past if since <= one.day < day and one.health not in ODD]
        values = [one.value for one in counted[-window_days:]]
    hours = [one.hours for one in counted[-window_days:] if one.hours is not None]
    return Usual(fmean(values) if values else None, median(hours) if hours else None, len(counted))


def roster(day: date, window_days: int, last_heard: Mapping[str, date], listed: Iterable[str]) -> set[str]:
    """The sensors that are expected on `day`: those that the inventory lists, and those heard within four windows before.

    So one that is silent for longer than the window stays on the board until it is taken out of the inventory and silent for
    four windows; where a watch has no inventory, after the four windows alone.
    """
    return {sensor for sensor, heard in last_heard.items() if heard >= day - reach(window_days)} | set(listed)
