"""The compare loop: what a source has that a target lacks, day by day and file by file. Pure; the lake and the sources are `catchup`'s.

A thing is told by its name, in two parts: `base` ("Austin", "Burnet_Richcreek") and `ext` ("unmatched.txt", "zip"), and by its span of
time. The target has it when it holds something of the same name whose span overlaps; what has no end lasts a local day. So an hour
inside a day is there when the day is, and a day of which one hour is there counts as there. Where both sides carry fingerprints, a
thing that was made of other bytes than the source has now is made anew.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate

from pipelines import clock

#: What atd-data-lake means by a last run date of 0.
FIRST_DAY = date(2000, 1, 1)
#: More days back than a century are seconds since 1970 instead.
MOST_DAYS_BACK = 36_525
#: How a name may tell two things apart.
BASE, BASE_AND_EXT = "base", "base+ext"
#: Files beside the data that say nothing of the data being there, told by how their ext begins.
BESIDE = ("unit_data.", "site.")
MISSING, CHANGED, FORCED = "missing", "changed", "forced"


@dataclass(frozen=True)
class Item:
    """Something of a span of time: `starts_at` and `ends_at` are aware; no end means one local day.

    `fingerprint` is of the source's bytes, "" where it has none. `inputs` are the fingerprints of what a target's thing was made of;
    None where that was not kept.
    """

    base: str
    ext: str
    starts_at: datetime
    ends_at: datetime | None = None
    fingerprint: str = ""
    inputs: frozenset[str] | None = None
    label: str = ""


@dataclass(frozen=True)
class Decision:
    """What becomes of a thing of the source: `why` it is taken (missing, changed, forced), or "" when it is left alone.

    `is_late`: it is of a time before the last run, so it came late or was overlooked.
    """

    item: Item
    ends_at: datetime
    why: str
    is_late: bool = False


# from when to when


@dataclass(frozen=True)
class Bounds:
    """From `since` up to, and not with, `until`. `last_run_at` is when somebody last looked, None where nobody said."""

    since: datetime
    until: datetime
    last_run_at: datetime | None = None
    is_exact: bool = False
    #: nobody named an end: what is dated today or later is not complete yet
    is_guarded: bool = False

    def hold(self, moment: datetime) -> bool:
        return self.since <= moment < self.until

    def words(self, zone_name: str) -> str:
        """The bounds as a person reads them, in the city's time."""
        zone = clock.zone(zone_name)
        first, last = self.since.astimezone(zone), self.until.astimezone(zone)
        if self.is_exact:
            return f"{first:%Y-%m-%d} only"
        return f"from {_day(first)} up to {'today' if self.is_guarded else _day(last)}, which is left out"


def _day(local: datetime) -> str:
    return f"{local:%Y-%m-%d}" if local.time() == time.min else f"{local:%Y-%m-%d %H:%M}"


def bounds(*, last_run: str = "", start: str = "", end: str = "", zone_name: str, now: datetime) -> Bounds:
    """The bounds that somebody typed. `start` goes before `last_run`; the same day as start and end is exactly that day.

    A time of day is cut off: the day that holds it is meant. Raises ValueError in words.
    """
    if not start and not last_run:
        raise ValueError("Say from when: a start date or the date of the last run must be given.")
    last_run_at = _moment(last_run, zone_name) if last_run else None
    since = _start(start, zone_name, now) if start else last_run_at
    today = clock.day_start(now.astimezone(clock.zone(zone_name)).date(), zone_name)
    if not end:
        return Bounds(since, max(today, since), last_run_at, is_guarded=True)
    until = _moment(end, zone_name)
    if start and until == since:
        return Bounds(since, a_day_after(since, zone_name), last_run_at, is_exact=True)
    if until <= since:
        raise ValueError(f"{end!r} is not after {start or last_run!r}: the end is left out, so nothing lies between them.")
    return Bounds(since, until, last_run_at)


def _start(text: str, zone_name: str, now: datetime) -> datetime:
    """A whole number is so many days back from today, by the city's clock; else a moment."""
    if re.fullmatch(r"\d+", text.strip()) and int(text) <= MOST_DAYS_BACK:
        today = now.astimezone(clock.zone(zone_name)).date()
        return clock.day_start(today - timedelta(days=int(text)), zone_name)
    return _moment(text, zone_name)


def _moment(text: str, zone_name: str) -> datetime:
    """The beginning of the day that a date, an ISO time or seconds since 1970 lie in: in their own zone, else the city's.

    An offset is believed, +00:00 as well. Raises ValueError in words.
    """
    plain = text.strip()
    if plain == "0":
        return clock.day_start(FIRST_DAY, zone_name)
    try:
        if re.fullmatch(r"\d+(\.\d+)?", plain) and len(plain) != len("20190601"):
            return _midnight(datetime.fromtimestamp(float(plain), clock.zone(zone_name)), zone_name)
        return _midnight(datetime.fromisoformat(plain), zone_name)
    except (ValueError, OverflowError, OSError):
        words = "Write a date like 2026-11-20, a time like 2026-11-20T06:00-06:00, or seconds since 1970"
        raise ValueError(f"{text!r} is not a time. {words}; as a start also a number of days back.") from None


def _midnight(moment: datetime, zone_name: str) -> datetime:
    if moment.tzinfo is None or moment.tzinfo is clock.zone(zone_name):
        return clock.day_start(moment.date(), zone_name)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def a_day_after(moment: datetime, zone_name: str) -> datetime:
    """The same time of the next local day: 23 to 25 hours later."""
    local = moment.astimezone(clock.zone(zone_name)).replace(tzinfo=None) + timedelta(days=1)
    return local.replace(tzinfo=clock.zone(zone_name)).astimezone(UTC)


# what is there


def compare(
    source: Iterable[Item], target: Iterable[Item], *, within: Bounds, zone_name: str, key: str = BASE, force: bool = False
) -> list[Decision]:
    """Decide on every thing of the source that the bounds hold, in the order of time and name; the two sides may come in any order.

    By `key` base, any file of that name is evidence; by base+ext only one of the same ext, so one missing of three is found.
    """
    there: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for one in target:
        if key == BASE_AND_EXT or not one.ext.lower().startswith(BESIDE):
            there[_key(one, key)].append(one)
    shelves = {name: _Shelf(items, zone_name) for name, items in there.items()}
    decided = []
    for item in sorted(source, key=lambda one: (one.starts_at, one.base, one.ext)):
        if not within.hold(item.starts_at):
            continue
        ends_at = item.ends_at or a_day_after(item.starts_at, zone_name)
        shelf = shelves.get(_key(item, key))
        why = FORCED if force else _why(item, shelf.overlapping(item.starts_at, ends_at) if shelf else [])
        decided.append(Decision(item, ends_at, why, is_late=bool(within.last_run_at and item.starts_at < within.last_run_at)))
    return decided


def _key(item: Item, key: str) -> tuple[str, str]:
    return (item.base, item.ext if key == BASE_AND_EXT else "")


def _why(item: Item, there: list[Item]) -> str:
    if not there:
        return MISSING
    # one that does not say of what it was made is taken at its word
    if not item.fingerprint or any(one.inputs is None for one in there):
        return ""
    return "" if any(item.fingerprint in one.inputs for one in there) else CHANGED


class _Shelf:
    """The target's things of one name, to be asked which of them overlap a span."""

    def __init__(self, items: list[Item], zone_name: str):
        ends = {id(one): one.ends_at or a_day_after(one.starts_at, zone_name) for one in items}
        self.items = sorted(items, key=lambda one: one.starts_at)
        self.starts = [one.starts_at for one in self.items]
        self.ends = [ends[id(one)] for one in self.items]
        #: the latest end so far: where it is not after a moment, nothing before reaches it
        self.reach = list(accumulate(self.ends, max))

    def overlapping(self, starts_at: datetime, ends_at: datetime) -> list[Item]:
        place, found = bisect_left(self.starts, ends_at) - 1, []
        while place >= 0 and self.reach[place] > starts_at:
            if self.ends[place] > starts_at:
                found.append(self.items[place])
            place -= 1
        return found
