"""Trips of a scooter operator, made by provider and UTC hour: the same seed and the same hour give the same trips, always.

    fleet = Fleet("Redwing", seed="a", hourly=20)          # twenty trips end in each hour
    fleet = Fleet("Redwing", daily=600)                    # a day's rhythm: none at night, most after work, by the city's clock
    fleet = Fleet("Redwing", hourly=20, odd={"swapped": 0.01}, odd_hours={"2026-03-08T10": {"duplicate": 2, "missing": 1}})
    fleet.trips("2026-03-08T10")                           # list[Trip]: what the operator delivers for that hour, in its order
    as_json(trip, "1.2")                                   # a trip as MDS of that version writes it

A trip belongs to the hour in which it ends. Routes stay inside the practice city; distance is the route's own length, and
duration is end minus start. ODDITIES says what may be wrong on purpose, by rate for every hour or by number for one hour. What
goes wrong does not change the other trips, and each trip says in `oddities` what is wrong with it.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from . import areas

#: two figures → the full number that an answer carries
VERSIONS = {
    "0.2": "0.2.1",
    "0.3": "0.3.2",
    "0.4": "0.4.1",
    "1.0": "1.0.0",
    "1.1": "1.1.1",
    "1.2": "1.2.0",
    "2.0": "2.0.2",
    "2.1": "2.1.0",
}

#: what may be wrong with a trip on purpose
ODDITIES = {
    "zero_distance": "distance 0",
    "negative_distance": "distance below 0",
    "long_distance": "a distance of 200 km and more",
    "zero_duration": "duration 0",
    "short": "a trip of less than a minute",
    "end_before_start": "its start lies after its end",
    "outside_hour": "it ended three hours before the hour that it is delivered for",
    "swapped": "latitude and longitude in each other's place",
    "outside": "it took place in another city (Pittsburgh)",
    "no_route": "a route without points (2.x: no start_location)",
    "duplicate": "the same trip comes a second time, after all others",
    "corrected": "the same trip comes a second time with another distance, published a minute later",
    "missing": "a required field is missing (`Trip.missing` says which)",
    "extra": "a key that no version knows",
    "number_as_text": 'a distance written as "12"',
    "null_accuracy": "accuracy is null (2.x: horizontal_accuracy)",
    "null_vehicle": "vehicle_id is null (2.x: in /vehicles it is as it should be)",
    "rebalance": "not a rider's: the operator moved the vehicle (told by 2.x alone)",
    "maintenance": "not a rider's: the operator repaired the vehicle (told by 2.x alone)",
}
#: where the trips of "outside" are moved: degrees from here to Pittsburgh
_AWAY = (38.28, 6.39)
#: the required fields that "missing" takes away, by turns
_TAKEN = ("device_id", "vehicle_type", "trip_duration", "accuracy", "route")
_TAKEN_2 = ("device_id", "trip_id", "duration", "distance", "end_location")

#: trips by hour of the local day: none from two to five, most in the late afternoon
_RHYTHM = (10, 5, 0, 0, 0, 3, 10, 26, 40, 34, 34, 42, 58, 56, 52, 58, 70, 84, 80, 62, 46, 36, 28, 18)
_WEEKDAYS = (0.9, 0.92, 0.95, 1.0, 1.15, 1.2, 0.95)
#: where trips begin, with how often
_HUBS = (
    ((-118.2510, 34.0480), 9),
    ((-118.2850, 34.0220), 6),
    ((-118.2970, 34.0610), 5),
    ((-118.3280, 34.0980), 3),
    ((-118.2620, 34.0780), 4),
    ((-118.2230, 34.0440), 2),
    ((-118.3490, 34.0680), 2),
    ((-118.4650, 33.9910), 2),
    ((-118.3780, 34.1680), 1),
)
_PLACES = [place for place, often in _HUBS for _ in range(often)]
_METRES = 111_195.0


@dataclass(frozen=True)
class Device:
    """A vehicle of a fleet. `kind` is scooter or bicycle; ids may be integers."""

    device_id: str | int
    vehicle_id: str | int
    kind: str
    propulsion: tuple[str, ...]


@dataclass(frozen=True)
class Trip:
    """A trip as the operator knows it. Times are milliseconds UTC; `route` is (lon, lat, milliseconds) from start to end.

    `hour` is the UTC hour that it is delivered for and `due_ms` its end in that hour: the same as `end_ms` but for "outside_hour".
    """

    provider_id: str
    provider_name: str
    trip_id: str | int
    device: Device
    hour: datetime
    due_ms: int
    start_ms: int
    end_ms: int
    duration_s: int
    distance_m: int
    accuracy_m: int
    route: tuple[tuple[float, float, int], ...]
    cost_standard: int
    cost_actual: int
    currency: str
    published_ms: int
    parking: str
    trip_type: str = "rider"
    oddities: tuple[str, ...] = ()
    missing: str = ""

    @property
    def start(self) -> tuple[float, float]:
        """(lon, lat)"""
        return self.route[0][:2]

    @property
    def end(self) -> tuple[float, float]:
        """(lon, lat)"""
        return self.route[-1][:2]


def as_hour(value: datetime | str) -> datetime:
    """A UTC hour from its text (2026-03-08T10) or from any moment in it. Raises ValueError."""
    if isinstance(value, str):
        value = datetime.strptime(value[:13], "%Y-%m-%dT%H").replace(tzinfo=UTC)
    if value.tzinfo is None:
        raise ValueError(f"{value} has no zone; an hour is a UTC hour")
    return value.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


class Fleet:
    """An operator's vehicles and their trips: see the module's head.

    `hourly` trips end in every hour, or `daily` ones by a day's rhythm in `zone`. `integer_ids` numbers trips, devices and
    vehicles as VeoRide does. `bicycles` is their share of the vehicles. Raises ValueError for an oddity that does not exist.
    """

    _KEPT_HOURS = 200

    def __init__(
        self,
        name: str = "Redwing",
        *,
        provider_id: str = "",
        seed: str | int = 0,
        daily: int = 600,
        hourly: int | None = None,
        devices: int = 0,
        bicycles: float = 0.0,
        zone: str = "America/Los_Angeles",
        odd: Mapping[str, float] | None = None,
        odd_hours: Mapping[str | datetime, Mapping[str, int]] | None = None,
        integer_ids: bool = False,
    ):
        self.name = name
        self.seed = str(seed)
        self.provider_id = provider_id or self._uuid("provider")
        self.daily = daily
        self.hourly = hourly
        self.zone = ZoneInfo(zone)
        self.odd = dict(odd or {})
        self.odd_hours = {as_hour(hour): dict(wanted) for hour, wanted in (odd_hours or {}).items()}
        self.integer_ids = integer_ids
        if unknown := {*self.odd, *(oddity for wanted in self.odd_hours.values() for oddity in wanted)} - set(ODDITIES):
            raise ValueError(f"no oddity is called {', '.join(sorted(unknown))}; there are: {', '.join(ODDITIES)}")
        self.devices = [self._device(number, bicycles) for number in range(devices or max(20, (daily if hourly is None else hourly * 12) // 4))]
        self._kept: OrderedDict[datetime, tuple[Trip, ...]] = OrderedDict()
        self._keeping = threading.Lock()

    def _uuid(self, *words: object) -> str:
        digest = hashlib.sha256(" ".join(map(str, (self.seed, self.name, *words))).encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def _device(self, number: int, bicycles: float) -> Device:
        is_bicycle = (number * 37 % 100) < bicycles * 100
        device_id: str | int = number + 1 if self.integer_ids else self._uuid("device", number)
        vehicle_id: str | int = 100_000 + number if self.integer_ids else f"{self.name[:3].upper()}-{number:05d}"
        return Device(device_id, vehicle_id, "bicycle" if is_bicycle else "scooter", ("electric_assist", "human") if is_bicycle else ("electric",))

    def expected(self, hour: datetime | str) -> float:
        """How many trips usually end in that hour."""
        if self.hourly is not None:
            return self.hourly
        local = as_hour(hour).astimezone(self.zone)
        return self.daily * _WEEKDAYS[local.weekday()] * _RHYTHM[local.hour] / sum(_RHYTHM)

    def trips(self, hour: datetime | str) -> list[Trip]:
        """What the operator delivers for that hour, in its order."""
        hour = as_hour(hour)
        with self._keeping:
            kept = self._kept.get(hour)
        if kept is None:
            kept = tuple(self._spoiled(hour, self._made(hour)))
            with self._keeping:
                self._kept[hour] = kept
                while len(self._kept) > self._KEPT_HOURS:
                    self._kept.popitem(last=False)
        return list(kept)

    def _made(self, hour: datetime) -> list[Trip]:
        chance = random.Random(f"{self.seed} {self.provider_id} {hour:%Y-%m-%dT%H}")
        count = self.hourly
        if count is None:
            count = int(self.expected(hour) * chance.uniform(0.8, 1.2) + chance.random())
        devices = chance.sample(self.devices, min(count, len(self.devices)))
        begins = int(hour.timestamp() * 1000)
        # one in eight hours has a trip that ends on the hour itself, which is in it: windows are half-open
        ends = sorted(begins + chance.randrange(3_600_000) for _ in range(count))
        if ends and chance.random() < 0.125:
            ends[0] = begins
        return [self._trip(hour, place, end, devices[place % len(devices)], chance) for place, end in enumerate(ends)]

    def _trip(self, hour: datetime, place: int, end: int, device: Device, chance: random.Random) -> Trip:
        points, distance = _route(chance)
        speed = chance.uniform(2.2, 4.2)
        duration = max(60, int(distance / speed) + chance.randrange(20, 200))
        start = end - duration * 1000
        steps = len(points) - 1
        route = tuple((lon, lat, start + duration * 1000 * step // steps) for step, (lon, lat) in enumerate(points))
        cost = 100 + 39 * -(-duration // 60)
        number = int(hour.timestamp()) // 3600 * 1000 + place
        return Trip(
            provider_id=self.provider_id,
            provider_name=self.name,
            trip_id=number if self.integer_ids else self._uuid("trip", number),
            device=device,
            hour=hour,
            due_ms=end,
            start_ms=start,
            end_ms=end,
            duration_s=duration,
            distance_m=distance,
            accuracy_m=chance.choice((3, 5, 5, 8, 12)),
            route=route,
            cost_standard=cost,
            cost_actual=cost // 2 if chance.random() < 0.1 else cost,
            currency="USD",
            published_ms=end + chance.randrange(60_000, 900_000),
            parking=chance.choice(("corral", "rack", "curb", "other_valid", "")),
        )

    def _spoiled(self, hour: datetime, trips: list[Trip]) -> list[Trip]:
        """The trips with what is to be wrong in this hour. Its dice are its own: the good trips stay as they were."""
        chance = random.Random(f"{self.seed} {self.provider_id} odd {hour:%Y-%m-%dT%H}")
        wrong: dict[int, str] = {}
        for place in range(len(trips)):
            roll = chance.random()
            for name, rate in self.odd.items():
                if roll < rate:
                    wrong[place] = name
                    break
                roll -= rate
        whole = [place for place in range(len(trips)) if place not in wrong]
        for name, count in self.odd_hours.get(hour, {}).items():
            if count > len(whole):
                raise ValueError(f"{self.name} has {len(trips)} trips in {hour:%Y-%m-%dT%H}: too few for what is to be wrong with them")
            for place in chance.sample(whole, count):
                wrong[place] = name
                whole.remove(place)
        told, again = [], []
        for place, trip in enumerate(trips):
            name = wrong.get(place, "")
            if name in ("duplicate", "corrected"):
                again.append(_wrong(trip, name, place))
            told.append(_wrong(trip, name, place) if name and name not in ("duplicate", "corrected") else trip)
        return told + again


def _wrong(trip: Trip, name: str, place: int) -> Trip:
    trip = replace(trip, oddities=(name,))
    match name:
        case "zero_distance":
            return replace(trip, distance_m=0)
        case "negative_distance":
            return replace(trip, distance_m=-trip.distance_m)
        case "long_distance":
            return replace(trip, distance_m=200_000 + trip.distance_m)
        case "zero_duration":
            return replace(trip, start_ms=trip.end_ms, duration_s=0)
        case "short":
            return replace(trip, start_ms=trip.end_ms - 20_000, duration_s=20)
        case "end_before_start":
            return replace(trip, start_ms=trip.end_ms + trip.duration_s * 1000)
        case "outside_hour":
            back = 3 * 3_600_000
            return replace(trip, start_ms=trip.start_ms - back, end_ms=trip.end_ms - back)
        case "corrected":
            return replace(trip, distance_m=trip.distance_m + 100, published_ms=trip.published_ms + 60_000)
        case "swapped":
            return replace(trip, route=tuple((lat, lon, at) for lon, lat, at in trip.route))
        case "outside":
            return replace(trip, route=tuple((round(lon + _AWAY[0], 6), round(lat + _AWAY[1], 6), at) for lon, lat, at in trip.route))
        case "missing":
            return replace(trip, missing=_TAKEN[place % len(_TAKEN)])
        case "rebalance" | "maintenance":
            return replace(trip, trip_type=name)
    return trip  # the rest is a matter of how the trip is written


def _apart(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Metres between two near points."""
    return math.hypot((b[0] - a[0]) * math.cos(math.radians((a[1] + b[1]) / 2)), b[1] - a[1]) * _METRES


def _route(chance: random.Random) -> tuple[list[tuple[float, float]], int]:
    """(points from start to end inside the city, their length in metres)."""
    holds = areas.outline().holds
    while True:
        hub = chance.choice(_PLACES)
        lon, lat = hub[0] + chance.gauss(0, 0.012), hub[1] + chance.gauss(0, 0.010)
        away = min(12_000.0, max(150.0, chance.lognormvariate(7.1, 0.7))) / _METRES
        course = chance.uniform(0, 2 * math.pi)
        east, north = math.sin(course) * away / math.cos(math.radians(lat)), math.cos(course) * away
        steps = chance.randrange(1, 6)
        points = []
        for step in range(steps + 1):
            part = step / steps
            # streets turn: between its ends a route leaves the straight line
            aside = chance.uniform(-0.12, 0.12) if 0 < step < steps else 0.0
            points.append((round(lon + east * part + north * aside, 6), round(lat + north * part - east * aside, 6)))
        if all(holds(*point) for point in points):
            return points, round(sum(_apart(a, b) for a, b in zip(points, points[1:], strict=False)))


# how a version writes it


def as_json(trip: Trip, version: str) -> dict[str, Any]:
    """The trip in MDS of `version` ("0.2" … "2.1"): 0.2 in seconds with a fraction, the others in milliseconds."""
    return _modern(trip, version) if version >= "2" else _classic(trip, version)


def _classic(trip: Trip, version: str) -> dict[str, Any]:
    def moment(ms: int) -> int | float:
        return ms / 1000 if version == "0.2" else ms

    device = trip.device
    features = [
        {"type": "Feature", "properties": {"timestamp": moment(at)}, "geometry": {"type": "Point", "coordinates": [lon, lat]}}
        for lon, lat, at in trip.route
    ]
    told: dict[str, Any] = {
        "provider_id": trip.provider_id,
        "provider_name": trip.provider_name,
        "device_id": device.device_id,
        "vehicle_id": device.vehicle_id,
        "vehicle_type": device.kind,
        "propulsion_types" if version >= "1" else "propulsion_type": list(device.propulsion),
        "trip_id": trip.trip_id,
        "trip_duration": trip.duration_s,
        "trip_distance": trip.distance_m,
        "route": {"type": "FeatureCollection", "features": features},
        "accuracy": trip.accuracy_m,
        "start_time": moment(trip.start_ms),
        "end_time": moment(trip.end_ms),
        "standard_cost": trip.cost_standard,
        "actual_cost": trip.cost_actual,
    }
    if version >= "0.3":
        told["publication_time"] = trip.published_ms
    if version >= "0.4":
        told["currency"] = trip.currency
    if trip.parking:
        told["parking_verification_url"] = f"https://photos.example/{trip.trip_id}.jpg"
    match trip.oddities:
        case ("no_route",):
            told["route"] = {"type": "FeatureCollection", "features": []}
        case ("missing",):
            del told[trip.missing]
        case ("extra",):
            told["crew_note"] = "seen near the pier"
        case ("number_as_text",):
            told["trip_distance"] = str(trip.distance_m)
        case ("null_accuracy",):
            told["accuracy"] = None
        case ("null_vehicle",):
            told["vehicle_id"] = None
    return told


def _modern(trip: Trip, version: str) -> dict[str, Any]:
    def location(point: tuple[float, float]) -> dict[str, Any]:
        return {"lat": point[1], "lng": point[0], "horizontal_accuracy": trip.accuracy_m}

    told: dict[str, Any] = {
        "provider_id": trip.provider_id,
        "data_provider_id": None,
        "device_id": trip.device.device_id,
        "trip_id": trip.trip_id,
        "trip_type": [trip.trip_type],
        "trip_attributes": {},
        "start_time": trip.start_ms,
        "end_time": trip.end_ms,
        "start_location": location(trip.start),
        "end_location": location(trip.end),
        "duration": trip.duration_s,
        "distance": trip.distance_m,
        "publication_time": trip.published_ms,
        "standard_cost": trip.cost_standard,
        "actual_cost": trip.cost_actual,
        "currency": trip.currency,
        "parking_verification_url": f"https://photos.example/{trip.trip_id}.jpg" if trip.parking else None,
        "parking_category": trip.parking or None,
    }
    match trip.oddities:
        case ("no_route",):
            del told["start_location"]
        case ("missing",):
            del told[_TAKEN_2[_TAKEN.index(trip.missing)]]
        case ("extra",):
            told["crew_note"] = "seen near the pier"
        case ("number_as_text",):
            told["distance"] = str(trip.distance_m)
        case ("null_accuracy",):
            told["start_location"]["horizontal_accuracy"] = None
    return told


#: our kind of vehicle → vehicle_type of 2.x
_KINDS_2 = {"scooter": "scooter_standing", "bicycle": "bicycle"}


def vehicle_as_json(device: Device, provider_id: str) -> dict[str, Any]:
    """A vehicle as /vehicles of 2.x writes it."""
    return {
        "device_id": device.device_id,
        "provider_id": provider_id,
        "data_provider_id": None,
        "vehicle_id": str(device.vehicle_id),
        "vehicle_type": _KINDS_2[device.kind],
        "vehicle_attributes": {},
        "propulsion_types": list(device.propulsion),
        "accessibility_attributes": [],
        "battery_capacity": 500,
        "maximum_speed": 24,
    }


def hours(begins: datetime, ends: datetime) -> list[datetime]:
    """The UTC hours that begin in [begins, ends), with the one that `begins` lies in."""
    first = as_hour(begins)
    count = max(0, math.ceil((ends - first) / timedelta(hours=1)))
    return [first + timedelta(hours=place) for place in range(count)]
