"""GRIDSMART cameras, first step: a device's zip of a day → one document a zone, its times put right by the device's clock.

A line is a vehicle. What its columns are depends on the count version, its first column (facts/datalake.md §7.3). Its time is of the
device's clock, which may be wrong; the site file beside the zip tells by how much, for our clock was read when the device's was.
Where that is not known the vehicles are kept as they came, without `timestamp_adj`, and the next stage refuses them.

Unlike atd-data-lake: version 7 is put right as version 8 is, for its times are written alike; the last twentieth of a second of each
second is not lost; an offset of "(UTC)" is none of an unknown clock; what a zone without vehicles covers is not its neighbour's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.formats import gridsmart_counts
from pipelines.formats.gridsmart_zip import Bounds, ZoneFile, zone_files
from pipelines.formats.sensors import DocumentWriter, Made, Raw, Seen, Standard, Terms, text_of
from pipelines.formats.standard import Refused, Tally

#: So many rows are written at once.
BATCH = 500
#: So many lines of a zone's file are refused one by one; where so many are wrong, the rest is one more.
MOST_REFUSED = 10_000
#: A clock that is off by more says nothing of the day that a file is of.
MOST_OFF = timedelta(days=1)
HOUR = timedelta(hours=1)
#: UTC offsets lie within 14 hours, in minutes.
MOST_OFFSET = 14 * 60


class _Bad(Exception):
    """A field that is not as it must be: (column, value, what is wrong with it)."""


# the fields of a line


def _number(text: str) -> int | float | None:
    """A number, None for an empty field or NaN. Raises ValueError for anything else."""
    if text.isdigit() and text.isascii():
        return int(text)
    if text.lower() in ("", "nan", "null"):
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a number")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("is not a number")
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value


_NUMBER = re.compile(r"-?\d{1,15}(\.\d{0,15})?([eE][-+]?\d{1,3})?", re.ASCII)


def _must(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def needed(text: str) -> Any:
        if (value := read(text)) is None:
            raise ValueError("is empty")
        return value

    return needed


def _text(text: str) -> str | None:
    """A short word, None for an empty field. Raises ValueError."""
    if len(text) > 20 or not text.isprintable():
        raise ValueError("is not a short word")
    return text or None


def _turn(text: str) -> str:
    """A movement: S, L, R, U, or another letter or two. Raises ValueError; longer ones would be groups without end."""
    if not _LETTERS.fullmatch(text):
        raise ValueError("is not a letter or two")
    return text


_LETTERS = re.compile(r"[A-Za-z0-9]{1,2}", re.ASCII)


def _time_of_day(text: str) -> int | float:
    """HHMMSS.f, a number. Raises ValueError for no time of a day."""
    _since_midnight(text)
    return _number(text)


def _since_midnight(text: str) -> timedelta:
    found = _CLOCK.fullmatch(text)
    if not found:
        raise ValueError("is not a time of day")
    whole = int(found[1])
    hours, minutes, seconds = whole // 10_000, whole // 100 % 100, whole % 100
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("is not a time of day")
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=_microseconds(found[2]))


_CLOCK = re.compile(r"(\d{1,6})(?:\.(\d{0,9}))?", re.ASCII)


def _microseconds(fraction: str | None) -> int:
    return int((fraction or "").ljust(6, "0")[:6])


def _offset(text: str) -> int:
    """Minutes of a UTC offset. Raises ValueError."""
    if not _WHOLE.fullmatch(text) or not -MOST_OFFSET <= int(text) <= MOST_OFFSET:
        raise ValueError("is not a UTC offset in minutes")
    return int(text)


_WHOLE = re.compile(r"-?\d{1,4}(?=\.0*$|$)", re.ASCII)


def _stamp(text: str) -> str:
    """YYYYMMDDTHHMMSS with or without a fraction. Raises ValueError."""
    _moment(text)
    return text


def _moment(text: str) -> datetime:
    found = _STAMP.fullmatch(text)
    if not found:
        raise ValueError("is not a time like 20190601T000512.4")
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC, microsecond=_microseconds(found[2]))
    except ValueError:
        raise ValueError("is not a time like 20190601T000512.4") from None


_STAMP = re.compile(r"(\d{8}T\d{6})(?:\.(\d{1,9}))?", re.ASCII)

Fields = tuple[tuple[str, Callable[[str], Any]], ...]
_BEGIN: Fields = (("count_version", _must(_number)), ("site_version", _number))
_V8: Fields = (
    *_BEGIN,
    ("timestamp", _time_of_day),
    ("utc_offset", _offset),
    ("turn", _turn),
    ("vehicle_length", _number),
    ("speed", _number),
    ("light_state", _text),
    ("seconds_in_zone", _number),
    ("vehicles_in_zone", _number),
    ("light_state_sec", _number),
    ("sec_since_green", _number),
    ("zone_freeflow_speed", _number),
    ("zone_freeflow_speed_cal", _number),
)
#: The columns of a line by its count version, and what each may hold.
VERSIONS: dict[int, Fields] = {
    8: _V8,
    7: (*_V8[:10], ("confidence", _number)),
    4: (
        *_BEGIN,
        ("timestamp", _stamp),
        ("internal_veh_id", _number),
        ("internal_veh_type", _text),
        ("vehicle_length", _number),
        ("speed", _number),
        ("turn", _turn),
        ("allowable_turns", _text),
        ("seconds_in_zone", _number),
        ("seconds_since_last_exit", _number),
        ("queue_length", _number),
        ("light_state_on_exit", _text),
        ("sec_since_green", _number),
        ("internal_frame_count", _number),
        ("day_night", _text),
    ),
}


# the device's clock


@dataclass(frozen=True)
class Clock:
    """How much a device's clock is behind ours (`off`; less than nothing: ahead), and its zone's offset, as its site file tells them.

    Devices tell wall times with summer time beside a zone's offset without it, so in summer an hour of it is no error of the clock
    but is to be added all the same, for their counts are written alike. Version 4 writes UTC: of a whole hour it knows nothing.
    """

    off: timedelta
    offset: timedelta

    def added_to(self, version: int | None) -> timedelta:
        """What is added to the times of counts of that version."""
        return self.off - round(self.off / HOUR) * HOUR if version == 4 else self.off


def clock_of(site: Mapping[str, Any]) -> Clock | str:
    """The clock of a device by its site file; why it is not known, in words, where the file does not tell."""
    told = site.get("datetime")
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), str) for name in ("DateTime", "TimeZoneId", "HostTimeUTC")):
        return "its site file does not tell the device's time"
    zone = _ZONE.match(told["TimeZoneId"])
    if not zone:
        return "its time zone is none with an offset"
    sign, hours, minutes = zone[1], int(zone[2] or 0), int(zone[3] or 0)
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    try:
        device, host = (datetime.strptime(f"{told[name]} +0000", "%m/%d/%Y %I:%M:%S %p %z") for name in ("DateTime", "HostTimeUTC"))
        off = host - (device - offset)
    except (ValueError, OverflowError):
        return "its site file tells the device's time in another way than devices do"
    return Clock(off, offset) if abs(off) <= MOST_OFF else "the device's clock is off by more than a day"


#: "(UTC-05:00) Eastern Time (US & Canada)"; "(UTC) Dublin" has no offset to add.
_ZONE = re.compile(r"\(UTC(?:([+-])(\d{2}):(\d{2}))?\)", re.ASCII)


# the format


class Gridsmart:
    """The camera format (`sensors.SensorFormat`): zones' documents here, counts by the day and by the quarter hour in gridsmart_counts."""

    counts_lines = False

    def __init__(self, terms: Terms, bounds: Bounds | None = None):
        self.terms, self.bounds = terms, bounds
        self.tally = Tally()
        self._seen: dict[str, Seen] = {}
        self._counting = gridsmart_counts.Counting(terms, self.tally)

    # standardize

    def standardize(self, raw: Raw, folder: Path) -> Iterator[Refused | Made]:
        """A zip into one document a zone."""
        clock = self._clock(raw)
        seen: Seen | None = None
        for found in zone_files(raw.path, self.terms.day, folder, self.bounds):
            if isinstance(found, Refused):
                self.tally.rows_in += 1
                self.tally.rejected += 1
                yield found
            else:
                seen = self._seen.setdefault(raw.base, Seen())
                yield from self._zone(raw, found, clock, seen, folder)

    def observations(self) -> dict[str, dict[str, Any]]:
        """Vehicles by intersection, of all its zones."""
        return {base: seen.told("") for base, seen in self._seen.items()}

    def _clock(self, raw: Raw) -> Clock | None:
        site = gridsmart_counts.read_site(raw.helpers["site"]) if "site" in raw.helpers else None
        told = clock_of(site) if site is not None else "it has no site file that can be read"
        if isinstance(told, Clock):
            return told
        self.tally.warnings[f"The times of {raw.base} are left as its device wrote them: {told}"] += 1
        return None

    def _zone(self, raw: Raw, zone: ZoneFile, clock: Clock | None, seen: Seen, folder: Path) -> Iterator[Refused | Made]:
        """The document of one zone. Its header tells of its first vehicle, so that is read first."""
        lines = _Lines(zone, self.terms, clock)
        rows = lines.rows()
        refused: list[Refused] = []
        first = None
        for found in rows:
            if not isinstance(found, Refused):
                first = found
                break
            refused.append(found)
            if len(refused) >= BATCH:
                yield from self._refuse(refused)
        yield from self._refuse(refused)
        terms, ext = self.terms, f"{zone.guid}.json"
        header = {
            "data_type": "gridsmart",
            "zip_name": raw.name,
            "origin_filename": f"{zone.guid}.csv",
            "target_filename": terms.name(raw.base, ext),
            **terms.dates(),
            "version": lines.version,
            "guid": zone.guid,
            "day_covered": _day_covered(terms, lines.version, first, clock),
            "clock_seconds": clock.added_to(lines.version).total_seconds() if clock else None,
        }
        path = folder / f"zone-{zone.guid}.json"
        with DocumentWriter(path, header) as document:
            batch = []
            if first is not None:
                batch.append(first)
                seen.see(first.get("timestamp_adj", ""))
            for found in rows:
                if isinstance(found, Refused):
                    refused.append(found)
                    yield from self._refuse(refused)
                    continue
                seen.see(found.get("timestamp_adj", ""))
                batch.append(found)
                if len(batch) >= BATCH:
                    document.write(batch)
                    batch.clear()
            document.write(batch)
        self.tally.rows_in += document.rows
        self.tally.rows_out += document.rows
        yield Made(path, raw.base, ext, header, document.rows)

    def _refuse(self, refused: list[Refused]) -> Iterator[Refused]:
        self.tally.rows_in += len(refused)
        self.tally.rejected += len(refused)
        yield from refused
        refused.clear()

    # what follows

    @staticmethod
    def neighbour(header: Mapping[str, Any]) -> int:
        """A file that begins in the day before ends early: the day after has the rest; and the other way about."""
        return -header.get("day_covered", 0)

    def ready(self, documents: Sequence[Standard], units: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Refused | Made]:
        """The counts of one intersection and day."""
        return self._counting.ready(documents, units, folder)

    def aggregate(self, document: Path, base: str, folder: Path) -> Iterator[Refused | Made]:
        """Its vehicles by the quarter hour (or the minutes of the option), approach, turn and weight."""
        return self._counting.aggregate(document, base, folder)


def _day_covered(terms: Terms, version: int | None, first: Mapping[str, Any] | None, clock: Clock | None) -> int:
    """-1 where the file of this day begins in the local day before, 1 where it begins later than the day, else 0.

    Where no vehicle tells the device's offset it is that of its zone.
    """
    if clock is None:
        return 0
    local = terms.starts_at
    begins = datetime.combine(terms.day, time(), UTC) + clock.added_to(version)
    if version != 4:
        begins -= clock.offset if first is None else timedelta(minutes=first["utc_offset"])
    return (begins > local) - (begins < local)


class _Lines:
    """The lines of one zone's file as rows. `version` is the count version of the first that has one."""

    def __init__(self, zone: ZoneFile, terms: Terms, clock: Clock | None):
        self.zone, self.clock = zone, clock
        self.version: int | None = None
        self._text = partial(text_of, time_zone=terms.time_zone)
        self._midnight = datetime.combine(terms.day, time(), UTC)

    def rows(self) -> Iterator[dict[str, Any] | Refused]:
        refused = 0
        for number, line in self.zone.lines():
            try:
                if line is None:
                    raise _Bad("", "", "The line is longer than any count")
                yield self._row(line)
            except _Bad as error:
                refused += 1
                if refused > MOST_REFUSED:
                    yield self._refused(number, line, ("", "", f"The rest of the file is passed over, for {MOST_REFUSED:,} of its lines are wrong"))
                    return
                yield self._refused(number, line, error.args)

    def _refused(self, number: int, line: str | None, why: tuple[str, str, str]) -> Refused:
        column, value, what = why
        return Refused(number, what, column, value, self.zone.guid, {"file": self.zone.name, "line": line or ""})

    def _row(self, line: str) -> dict[str, Any]:
        """A line's values by their names, with the time put right. Raises _Bad."""
        texts = [text.strip().strip('"') for text in line.split(",")]
        fields = self._fields(texts[0])
        if len(texts) != len(fields):
            short = "fewer" if len(texts) < len(fields) else "more"
            raise _Bad("", "", f"The line has {short} fields than a count of version {self.version} has")
        row = {}
        for (name, read), text in zip(fields, texts, strict=True):
            try:
                row[name] = read(text)
            except ValueError as error:
                raise _Bad(name, text, f"{name} {error}") from None
        if self.clock:
            row["timestamp_adj"] = self._text(self._at(row, texts[2]) + self.clock.added_to(self.version))
        return row

    def _fields(self, told: str) -> Fields:
        version = int(told) if told.isascii() and told.isdigit() and len(told) < 4 else None
        if version not in VERSIONS:
            raise _Bad("count_version", told, "count_version is none that is known (4, 7 and 8 are)")
        if self.version is None:
            self.version = version
        if version != self.version:
            raise _Bad("count_version", told, "count_version is another than that of the lines before")
        return VERSIONS[version]

    def _at(self, row: Mapping[str, Any], told: str) -> datetime:
        """The moment of a row by the device's clock."""
        if self.version == 4:
            return _moment(told)
        return self._midnight + _since_midnight(told) - timedelta(minutes=row["utc_offset"])
