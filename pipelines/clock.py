"""Time: UTC inside, the city's clock outside. Windows, zones and the words for them; pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from django.core.exceptions import ValidationError

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises ValueError with the name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        raise ValueError(f"{name!r} is not a time zone. Use a name like America/Chicago.") from error


def validate_zone(name: str) -> None:
    try:
        zone(name)
    except ValueError as error:
        raise ValidationError(str(error)) from error


def validate_cron(expression: str) -> None:
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValidationError(
            f"{expression!r} is no time that comes: {error}. Write minute, hour, day, month and weekday, like 20 7 * * 4."
        ) from error


def cron_times(expression: str, zone_name: str, after: datetime) -> Iterator[datetime]:
    """The UTC instants after `after` that a cron expression names by the zone's clock, without end.

    A time that the clock skips comes when it has, one that it repeats comes once, as Debian's cron has it. Raises ValueError.
    """
    try:
        for moment in CronSim(expression, after.astimezone(zone(zone_name))):
            yield moment.astimezone(UTC)
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error


def cron_before(expression: str, zone_name: str, moment: datetime) -> datetime:
    """The latest UTC instant at or before `moment` that a cron expression names. Raises ValueError."""
    try:
        local = moment.astimezone(zone(zone_name)) + timedelta(minutes=1)
        found = (one.astimezone(UTC) for one in CronSim(expression, local, reverse=True))
        return next(one for one in found if one <= moment)
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error


def cron_words(expression: str) -> str:
    """A cron expression in a sentence without a full stop, "At 07:20 on Thursday"; itself where it can't be read."""
    try:
        return CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)).explain()
    except CronSimError:
        return expression


def local_instant(day: date, at: time, zone_name: str) -> datetime:
    """The UTC instant of a local wall time. A time that the clock skips is taken at the next valid minute, a repeated one at its first."""
    wall = datetime.combine(day, at, tzinfo=zone(zone_name))
    instant = wall.astimezone(UTC)
    if instant.astimezone(wall.tzinfo).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return instant
    # skipped: fold 1 reads the wall time by the clock after the change, which names an instant before it
    before, after = wall.replace(fold=1).astimezone(UTC), instant
    offset = after.astimezone(wall.tzinfo).utcoffset()
    while after - before > timedelta(milliseconds=1):
        middle = before + (after - before) / 2
        before, after = (before, middle) if middle.astimezone(wall.tzinfo).utcoffset() == offset else (middle, after)
    return after.replace(microsecond=0)


def instants(wall: datetime, zone_name: str) -> tuple[datetime, ...]:
    """The UTC instants of a local wall time without a zone: one; two where the clock goes back over it; none where it skips it."""
    first, second = (wall.replace(tzinfo=zone(zone_name), fold=fold).astimezone(UTC) for fold in (0, 1))
    return (first,) if first == second else (first, second) if first < second else ()


def day_start(day: date, zone_name: str) -> datetime:
    return local_instant(day, time.min, zone_name)


def windows(cadence: str, zone_name: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The (start, end) spans in UTC of a cadence that end after `since` and start before `until`, in order.

    Hours are UTC hours, so a year has each exactly once; days, weeks (from Monday) and months are local, 23 to 25 hours a day.
    A cadence that is a cron expression has the spans from one of its times to the next.
    """
    if " " in cadence:
        start = cron_before(cadence, zone_name, since)
        for end in cron_times(cadence, zone_name, start):
            if start >= until:
                return
            if end > since:
                yield start, end
            start = end
        return
    if cadence == "hourly":
        start = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while start < until:
            if start + HOUR > since:
                yield start, start + HOUR
            start += HOUR
        return
    day = _first_day(cadence, since.astimezone(zone(zone_name)).date())
    while (start := day_start(day, zone_name)) < until:
        day = _next_day(cadence, day)
        end = day_start(day, zone_name)
        # a zone that crosses the date line skips a whole day: such a day has no window
        if end > since and end > start:
            yield start, end


def window_at(cadence: str, zone_name: str, moment: datetime) -> tuple[datetime, datetime]:
    """The window that holds `moment`; for a cadence by hand or once, its local day."""
    return next(windows("daily" if cadence in ("manual", "once") else cadence, zone_name, moment, moment + timedelta(microseconds=1)))


def _first_day(cadence: str, day: date) -> date:
    if cadence == "weekly":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if cadence == "monthly" else day


def _next_day(cadence: str, day: date) -> date:
    if cadence == "monthly":
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return day + (7 * DAY if cadence == "weekly" else DAY)


def window_text(starts_at: datetime, ends_at: datetime, zone_name: str) -> str:
    """A window in words, in its own zone: "Fri Nov 20, 17:00 to 18:00", "Fri Nov 20 2026", "Nov 2026"."""
    local = zone(zone_name)
    start, end = starts_at.astimezone(local), ends_at.astimezone(local)
    midnight = start.time() == end.time() == time.min
    if midnight and (end.date() - start.date()).days == 1:
        return f"{start:%a %b} {start.day} {start.year}"
    if midnight and start.day == end.day == 1:
        return f"{start:%b %Y}"
    if midnight:
        last = end - DAY
        return f"{start:%a %b} {start.day} to {last:%a %b} {last.day} {last.year}"
    again = " (second)" if start.fold else ""
    if ends_at - starts_at > DAY - HOUR:
        # from one time of a cron expression to the next: days, or years
        year = f" {end.year}" if end.year != start.year else ""
        return f"{start:%a %b} {start.day} {start.year}, {start:%H:%M}{again} to {end:%a %b} {end.day}{year}, {end:%H:%M}"
    return f"{start:%a %b} {start.day} {start.year}, {start:%H:%M}{again} to {end:%H:%M}"


def span_words(seconds: float | None) -> str:
    """Seconds as people say them: "0.4 s", "41 s", "1 min 06 s", "2 h 05 min"."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
