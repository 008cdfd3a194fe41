"""GRIDSMART cameras, second and third step: zones' documents → one document an intersection and day → counts by the quarter hour.

The vehicles of a local day are those of the zones that the site file lets count, from the day's own files and, where the device's
midnight is not ours, from those of the day before or after. The intersection is found in the inventory by its streets, else by the
device's address, else by where it stands (facts/datalake.md §7.3). Unlike atd-data-lake an intersection of which nothing is in the
inventory is refused here, and what a person must do is said; two intersections may not be the same device.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import msgspec

from pipelines.errors import SetupError
from pipelines.formats.sensors import Document, DocumentWriter, Made, Standard, Terms, hashed, md5_of, text_of, wall
from pipelines.formats.sorted_lines import SortedLines
from pipelines.formats.standard import Refused, Tally

#: What a site file may hold; they are some hundred thousand letters long.
MOST_SITE_BYTES = 32 * 1024 * 1024
#: Streets that are at least so alike are the same (difflib's ratio).
ALIKE = 0.7
#: A device this near to an intersection stands at it.
NEAR_FEET = 300.0
#: Vehicles of this many feet and more are heavy.
HEAVY_FEET = 17
BATCH = 500

#: The published columns of camera counts (facts/datalake.md §6), in the order in which they are sent.
COUNT_COLUMNS = (
    ("atd_device_id", "text"),
    ("read_date", "local_time"),
    ("intersection_name", "text"),
    ("direction", "text"),
    ("movement", "text"),
    ("heavy_vehicle", "boolean"),
    ("volume", "number"),
    ("speed_average", "number"),
    ("speed_stddev", "number"),
    ("seconds_in_zone_average", "number"),
    ("seconds_in_zone_stddev", "number"),
    ("month", "number"),
    ("day", "number"),
    ("year", "number"),
    ("hour", "number"),
    ("minute", "number"),
    ("day_of_week", "number"),
    ("bin_duration", "number"),
    ("record_id", "text"),
)
UNASSIGNED = "UNASSIGNED"
_DIRECTIONS = {
    "northbound": "NORTHBOUND", "nb": "NORTHBOUND", "southbound": "SOUTHBOUND", "sb": "SOUTHBOUND", "eastbound": "EASTBOUND",
    "eb": "EASTBOUND", "westbound": "WESTBOUND", "wb": "WESTBOUND", "unassigned": UNASSIGNED,
}  # fmt: skip
_MOVEMENTS = {"S": "THRU", "L": "LEFT TURN", "R": "RIGHT TURN", "U": "U-TURN"}


# the site


def read_site(path: Path) -> dict[str, Any] | None:
    """A site file as it lies in the lake, `{header, site, datetime, hardware_info}`; None for what is none."""
    if path.stat().st_size > MOST_SITE_BYTES:
        return None
    try:
        told = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("site"), dict) else None


def inside(told: Any, *names: str) -> Any:
    """What stands under these names, one in the other; None where there is nothing."""
    for name in names:
        told = told.get(name) if isinstance(told, Mapping) else None
    return told


def zones_of(site: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(id in 32 letters, approach, whether it is counted) of each vehicle zone of the configured cameras of a site file."""
    cameras = inside(site, "site", "CameraDevices")
    for camera in cameras if isinstance(cameras, list) else []:
        eye = inside(camera, "Fisheye")
        masks = inside(eye, "CameraMasks", "ZoneMasks")
        for mask in masks if inside(eye, "IsConfigured") is True and isinstance(masks, list) else []:
            vehicle = inside(mask, "Vehicle")
            if isinstance(zone := inside(vehicle, "Id"), str):
                approach = inside(vehicle, "ApproachType")
                yield zone_id(zone), approach if isinstance(approach, str) else "", inside(vehicle, "IncludeInData") is True


def zone_id(told: str) -> str:
    return told.replace("-", "").lower()


def streets_of(site: Mapping[str, Any]) -> tuple[str, str]:
    """The two streets of a site file, "" for one that it does not name."""
    place = inside(site, "site", "Location")
    first, second = inside(place, "Street1"), inside(place, "Street2")
    return first.strip() if isinstance(first, str) else "", second.strip() if isinstance(second, str) else ""


# which device it is


@dataclass(frozen=True)
class Match:
    """A unit of the inventory, by what it was found, and whether its cross street is the site's first."""

    unit: Mapping[str, Any]
    by: str
    reversed: bool = False

    @property
    def record(self) -> dict[str, Any]:
        return {**self.unit, "reversed": self.reversed}


def match_device(
    site: Mapping[str, Any], units: Iterable[Mapping[str, Any]], names: Mapping[str, str] | None = None, synonyms: Mapping[str, str] | None = None
) -> Match | None:
    """The unit of a site's intersection: by `names` ("Street1_Street2" → atd_location_id), by its streets, by them with `synonyms`
    (part of a street's name → what the inventory says), by its address, by its place. None where nothing fits."""
    units = sorted(units, key=lambda unit: (_is_removed(unit), str(unit.get("atd_device_id") or "")))
    first, second = streets_of(site)
    address = inside(site, "header", "device_net_addr")
    if location := (names or {}).get(f"{first}_{second}"):
        return next((Match(unit, "name") for unit in units if unit.get("atd_location_id") == location), None)
    if found := _by_streets(first, second, units, address, "streets"):
        return found
    if synonyms:
        renamed = tuple(_renamed(street, synonyms) for street in (first, second))
        if renamed != (first, second) and (found := _by_streets(*renamed, units, address, "synonym")):
            return found
    if address and (unit := next((unit for unit in units if unit.get("device_ip") == address), None)):
        return Match(unit, "address")
    return _by_place(site, units) if address else None


def _is_removed(unit: Mapping[str, Any]) -> bool:
    return str(unit.get("device_status") or "").strip().upper() == "REMOVED"


def _by_streets(first: str, second: str, units: Sequence[Mapping[str, Any]], address: Any, by: str) -> Match | None:
    """The unit whose streets are most alike, in either order; of equals the one at the same address, then one that stands there still."""
    if not first and not second:
        return None
    best: tuple[float, bool] = (0.0, False)
    found = None
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq1(f"{first} {second}".lower())
    for unit in units:
        primary, cross = (str(unit.get(name) or "").strip().lower() for name in ("primary_st", "cross_st"))
        if not primary and not cross:
            continue
        for is_reversed, streets in ((False, f"{primary} {cross}"), (True, f"{cross} {primary}")):
            matcher.set_seq2(streets)
            # the two cheap ones are never less
            if min(matcher.real_quick_ratio(), matcher.quick_ratio()) < ALIKE or (ratio := matcher.ratio()) < ALIKE:
                continue
            score = (ratio, bool(address) and unit.get("device_ip") == address)
            if score > best:
                best, found = score, Match(unit, by, is_reversed)
    return found


def _renamed(street: str, synonyms: Mapping[str, str]) -> str:
    """The street with its synonym in place of the longest part of it that has one."""
    for part in sorted(synonyms, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(part)}(?!\w)"
        if part and re.search(pattern, street, re.IGNORECASE):
            return re.sub(pattern, lambda _, part=part: synonyms[part], street, count=1, flags=re.IGNORECASE)
    return street


def _by_place(site: Mapping[str, Any], units: Iterable[Mapping[str, Any]]) -> Match | None:
    """The nearest unit, where it is near."""
    place = inside(site, "site", "Location")
    here = _degrees(inside(place, "Latitude"), inside(place, "Longitude"))
    if here is None:
        return None
    places = ((number, unit, _degrees(unit.get("lat"), unit.get("lon"))) for number, unit in enumerate(units))
    near = [(feet_between(here, there), number, unit) for number, unit, there in places if there]
    feet, _, unit = min(near, key=lambda one: one[:2], default=(math.inf, 0, {}))
    return Match(unit, "place") if feet <= NEAR_FEET else None


def _degrees(lat: Any, lon: Any) -> tuple[float, float] | None:
    try:
        place = float(lat), float(lon)
    except (TypeError, ValueError):
        return None
    # a device that was never told where it is says 0, 0
    return place if place != (0, 0) and -90 <= place[0] <= 90 and -180 <= place[1] <= 180 else None


def feet_between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The feet between two places, (latitude, longitude) in degrees, on a round earth."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 20_902_231 * math.asin(math.sqrt(half))


# vehicles


class Counting:
    """The second and the third step of the cameras of one block."""

    def __init__(self, terms: Terms, tally: Tally):
        self.terms, self.tally = terms, tally
        #: by atd_device_id: the intersection that is it
        self._taken: dict[str, str] = {}

    def ready(self, documents: Sequence[Standard], units: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[Refused | Made]:
        """The vehicles of one intersection in the block's local day, in the order of their times."""
        base = documents[0].base
        zones = [document for document in documents if not document.role]
        site = _site_of(documents)
        counted = {zone for zone, _, is_counted in zones_of(site) if is_counted} if site else set()
        match = self._match(base, site, units) if counted else "No site file tells which zones of this intersection are counted"
        if isinstance(match, str):
            yield from self._refuse_all(base, zones, match)
            return
        self._tell_of_missing(base, zones, counted)
        own = next((zone.header for zone in zones if zone.days == 0), zones[0].header if zones else {})
        header = {
            "data_type": "gridsmart",
            "zip_name": own.get("zip_name", ""),
            **self.terms.dates(),
            "version": next((zone.header["version"] for zone in zones if zone.header.get("version")), None),
        }
        path = folder / "counts.json"
        with ExitStack() as stack:
            lines = stack.enter_context(SortedLines(folder))
            for zone in zones:
                if zone_id(str(zone.header.get("guid", ""))) in counted:
                    yield from self._collect(zone, lines)
                else:
                    self._pass_over(zone)
            document = stack.enter_context(DocumentWriter(path, header, rows_key="counts"))
            batch = []
            for line in lines:
                batch.append(line)
                if len(batch) >= BATCH:
                    document.write_lines(batch)
                    batch.clear()
            document.write_lines(batch)
            document.tail = {"site": site, "device": match.record}
        self.tally.rows_out += document.rows
        yield Made(path, base, "counts.json", header, document.rows)

    def _match(self, base: str, site: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> Match | str:
        """The intersection's device; why there is none, in words."""
        options = self.terms.options
        match = match_device(site, units, options.get("names"), options.get("synonyms"))
        if match is None:
            return "No device of the inventory is at this intersection"
        device = str(match.unit.get("atd_device_id") or "")
        if not device:
            return "The device of this intersection has no atd_device_id in the inventory"
        taken = self._taken.setdefault(device, base)
        # its rows would take the place of the other's, for they would have the same ids
        return match if taken == base else "The device of this intersection is that of another one already; the option names can tell them apart"

    def _tell_of_missing(self, base: str, zones: Sequence[Standard], counted: set[str]) -> None:
        """Warn of zones without a file and of a neighbour day that the vehicles of this one are partly in."""
        warnings = self.tally.warnings
        came = {zone_id(str(zone.header.get("guid", ""))) for zone in zones if zone.days == 0}
        if missing := len(counted - came):
            warnings[f"{base}: zones without a file of this day"] += missing
        needed = {-zone.header.get("day_covered", 0) for zone in zones if zone.days == 0} - {0}
        for days in sorted(needed - {zone.days for zone in zones}):
            warnings[f"{base}: made without the day {'after' if days > 0 else 'before'}, in which its device began or ended this one"] += 1

    def _refuse_all(self, base: str, zones: Sequence[Standard], why: str) -> Iterator[Refused]:
        """Refuse an intersection's day in one record: its vehicles lie in the standard documents."""
        rows = 0
        for zone in zones:
            if zone.days:
                self._pass_over(zone)
            else:
                rows += sum(1 for _ in Document(zone.path).rows())
        self.tally.rows_in += rows
        self.tally.rejected += rows
        yield Refused(0, why, "", base, base, {"intersection": base, "vehicles": rows})

    def _pass_over(self, zone: Standard) -> None:
        rows = sum(1 for _ in Document(zone.path).rows())
        self.tally.rows_in += rows
        self.tally.elsewhere += rows

    def _collect(self, zone: Standard, lines: SortedLines) -> Iterator[Refused]:
        """Take the vehicles of the block's day."""
        tally, starts_at, ends_at = self.tally, self.terms.starts_at, self.terms.ends_at
        guid, encode = zone_id(str(zone.header["guid"])), msgspec.json.Encoder().encode
        for number, row in enumerate(Document(zone.path).rows(), start=1):
            tally.rows_in += 1
            told = row.get("timestamp_adj")
            if told is None:
                tally.rejected += 1
                yield Refused(number, "The time of the vehicle is not known, for its device's clock is not", "timestamp_adj", "", guid, row)
                continue
            at = datetime.fromisoformat(told)
            if starts_at <= at < ends_at:
                row["zone"] = guid
                lines.add((at.astimezone(UTC).isoformat(timespec="microseconds"),), encode(row))
            else:
                tally.elsewhere += 1

    # by the quarter hour

    @property
    def seconds(self) -> int:
        """How long a bin is. Raises SetupError for an option that no day can be cut by."""
        minutes = self.terms.options.get("minutes", 15)
        if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes < 1 or 60 % minutes:
            raise SetupError(
                f"Camera counts are to be added up by {minutes!r} minutes, and an hour can't be cut like that.",
                code="bad-options",
                next_step='Write 1, 5, 10, 15, 30 or 60 as the option "minutes" of the pipeline.',
            )
        return minutes * 60

    def aggregate(self, document: Path, base: str, folder: Path) -> Iterator[Refused | Made]:
        """Add up a ready document by time, approach, turn and weight; only groups that were seen. The vehicles stand in the order of their times."""
        seconds = self.seconds
        counts = Document(document, rows_key="counts")
        site, device = counts.part("site") or {}, counts.part("device") or {}
        approaches = {zone: approach for zone, approach, _ in zones_of(site)}
        groups = self._groups(counts, approaches, seconds)
        ext = f"agg{seconds // 60}.json"
        header = {**counts.header, **self.terms.dates(), "agg_interval_sec": seconds}
        path, table = folder / "aggregate.json", folder / "aggregate.csv"
        published = 0
        publish = _Publish(self.terms, device, seconds)
        with DocumentWriter(path, header) as aggregate, table.open("w", encoding="utf-8", newline="") as file:
            cells = csv.writer(file, lineterminator="\n")
            cells.writerow(name for name, _ in COUNT_COLUMNS)
            for group in groups:
                aggregate.write([group])
                self.tally.rows_in += group["volume"]
                if line := publish.line(group, self.tally.warnings):
                    cells.writerow(line)
                    published += 1
                    self.tally.rows_out += group["volume"]
                else:
                    self.tally.elsewhere += group["volume"]
            aggregate.tail = {"site": site, "device": device}
        yield Made(path, base, ext, header, aggregate.rows, table, COUNT_COLUMNS, published)

    def _groups(self, counts: Document, approaches: Mapping[str, str], seconds: int) -> Iterator[dict[str, Any]]:
        """The groups, bin after bin: only one bin is held. Bins are cut by UTC, so the hour that autumn repeats has its own twice."""
        held: dict[tuple[str, str, int], _Group] = {}
        bin_at = None
        for row in counts.rows():
            at = int(datetime.fromisoformat(row["timestamp_adj"]).timestamp()) // seconds * seconds
            if at != bin_at:
                yield from self._told(bin_at, held)
                held.clear()
                bin_at = at
            length = row.get("vehicle_length")
            key = (approaches.get(row["zone"], ""), row["turn"], int(length is not None and length >= HEAVY_FEET))
            group = held.get(key) or held.setdefault(key, _Group())
            group.add(row.get("speed"), row.get("seconds_in_zone"))
        yield from self._told(bin_at, held)

    def _told(self, at: int | None, held: Mapping[tuple[str, str, int], _Group]) -> Iterator[dict[str, Any]]:
        for (approach, turn, heavy), group in sorted(held.items()):
            yield {
                "timestamp": text_of(datetime.fromtimestamp(at, UTC), self.terms.time_zone),
                "zone_approach": approach,
                "turn": turn,
                "heavy_vehicle": heavy,
                "volume": group.volume,
                "speed_avg": group.speed.mean,
                "speed_std": group.speed.deviation,
                "seconds_in_zone_avg": group.seconds.mean,
                "seconds_in_zone_std": group.seconds.deviation,
            }


def _site_of(documents: Sequence[Standard]) -> dict[str, Any] | None:
    """The site file of the block's own day, else of the nearest; None where there is none that can be read."""
    for document in sorted((one for one in documents if one.role == "site"), key=lambda one: abs(one.days)):
        if site := read_site(document.path):
            return site
    return None


@dataclass
class _Measure:
    """Mean and sample deviation of numbers that pass by, as pandas makes them: the sum with its lost bits, and Welford's squares."""

    number: int = 0
    total: float = 0.0
    lost: float = 0.0
    middle: float = 0.0
    squares: float = 0.0

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self.number += 1
        more = value - self.lost
        total = self.total + more
        self.lost = total - self.total - more
        self.total = total
        step = value - self.middle
        self.middle += step / self.number
        self.squares += step * (value - self.middle)

    @property
    def mean(self) -> float:
        return _rounded(self.total / self.number) if self.number else 0.0

    @property
    def deviation(self) -> float:
        return _rounded(math.sqrt(max(self.squares, 0.0) / (self.number - 1))) if self.number > 1 else 0.0


def _rounded(value: float) -> float:
    """To three places, as numpy does it: what Python's own round makes of 1.0005 is another number."""
    return round(value * 1000) / 1000


@dataclass
class _Group:
    volume: int = 0
    speed: _Measure = field(default_factory=_Measure)
    seconds: _Measure = field(default_factory=_Measure)

    def add(self, speed: float | None, seconds: float | None) -> None:
        self.volume += 1
        self.speed.add(speed)
        self.seconds.add(seconds)


class _Publish:
    """The published lines of one intersection."""

    def __init__(self, terms: Terms, device: Mapping[str, Any], seconds: int):
        self.terms, self.seconds = terms, seconds
        self.takes_unassigned = terms.options.get("publish_unassigned", True)
        self.device = device.get("atd_device_id")
        self.name = " / ".join(str(device.get(name) or "").strip() for name in ("primary_st", "cross_st"))

    def line(self, group: Mapping[str, Any], warnings: Counter[str]) -> list[Any] | None:
        """The cells of a group in the order of COUNT_COLUMNS; None for one that is not published."""
        direction = _DIRECTIONS.get(group["zone_approach"].lower())
        if direction is None:
            warnings[f"approach {group['zone_approach'][:40]!r} is none that is published"] += group["volume"]
            return None
        if direction == UNASSIGNED and not self.takes_unassigned:
            return None
        turn = group["turn"]
        if turn not in _MOVEMENTS:
            warnings[f"turn {turn!r} has no name of its own"] += group["volume"]
        movement, heavy = _MOVEMENTS.get(turn, turn), bool(group["heavy_vehicle"])
        told = group["timestamp"]
        at = datetime.fromisoformat(told)
        return [
            self.device, wall(told), self.name, direction, movement, "true" if heavy else "false",
            group["volume"], group["speed_avg"], group["speed_std"], group["seconds_in_zone_avg"], group["seconds_in_zone_std"],
            at.month, at.day, at.year, at.hour, at.minute, at.isoweekday() % 7, self.seconds,
            md5_of(self.name, hashed(told, self.terms.time_zone), heavy, direction, movement),
        ]  # fmt: skip
