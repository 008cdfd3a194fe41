"""GRIDSMART devices: the cameras of a practice city, each a server of its own that speaks the device's API.

What passes a camera is the same whenever it is asked: it comes of the intersection's name, the zone and the local day. What a
device makes of it comes of its clock, its time zone, its count version and the layout of its zips, and some devices are
broken. `Cameras` runs several and knows their inventory.

A device shows the wall time of its zone and writes it into its counts, beside the zone's offset without summer time; version 4
writes UTC instead, and its files are of UTC days.
"""

from __future__ import annotations

import hashlib
import io
import random
import socket
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from .faults import Fault
from .wire import LocalServer, Reply, Request

ZONE = "America/Chicago"
_STANDARD = {"America/Chicago": ("Central Time (US & Canada)", -6), "America/New_York": ("Eastern Time (US & Canada)", -5)}
_CLOCK = "%m/%d/%Y %I:%M:%S %p"


@dataclass(frozen=True)
class Zone:
    """A lane that a camera watches. `turns` are the movements with their shares."""

    name: str
    approach: str
    turn_type: str
    turns: str = "S"
    is_counted: bool = True


ZONES = (
    Zone("NB through", "Northbound", "Through", "SSSSSSSSSU"),
    Zone("SB left", "Southbound", "Left", "L"),
    Zone("SB through", "Southbound", "Through", "SSSSSR"),
    Zone("EB right", "Eastbound", "Right", "R", is_counted=False),
    Zone("lot", "Unassigned", "Through", "SSL"),
)


@dataclass(frozen=True)
class Intersection:
    """Where a device stands, and what is odd about it.

    `drift` seconds its clock is ahead; `zone` is the time zone that it was set to. `version` is 8, 7 or 4, `layout` "a" or "b".
    `is_dead`: nothing answers at its address. `cuts_zips`: its zips end in the middle. `vehicles` a zone and day, times `busy(day)`.
    """

    street1: str
    street2: str
    primary: str
    cross: str
    lat: float
    lon: float
    drift: float = 0
    zone: str = ZONE
    version: int = 8
    layout: str = "a"
    is_dead: bool = False
    cuts_zips: bool = False
    vehicles: int = 80
    busy: Callable[[date], float] = field(default=lambda day: 1.0, compare=False, repr=False)

    @property
    def base(self) -> str:
        return f"{self.street1}_{self.street2}"

    def guid(self, zone: Zone) -> str:
        """The zone's id, in 32 letters."""
        return hashlib.md5(f"{self.base}/{zone.name}".encode(), usedforsecurity=False).hexdigest()

    @property
    def camera(self) -> str:
        mark = hashlib.md5(self.base.encode(), usedforsecurity=False).hexdigest().upper()
        return "-".join(mark[place : place + 2] for place in range(0, 12, 2))


#: One of each kind of trouble, and two without.
INTERSECTIONS = (
    Intersection("Burnet", "Richcreek", "BURNET RD", "RICHCREEK RD", 30.3527, -97.7351),
    Intersection("Lamar", "Manchaca", "S LAMAR BLVD", "MANCHACA RD", 30.2449, -97.7818, layout="b"),
    Intersection("Loop 360", "Westlake", "WESTLAKE DR", "CAPITAL OF TEXAS HWY", 30.3152, -97.8069, drift=120),
    Intersection("Speedway", "38th", "SPEEDWAY", "38TH ST", 30.2999, -97.7331, zone="America/New_York"),
    Intersection("Slaughter", "Brodie", "BRODIE LN", "SLAUGHTER LN", 30.1930, -97.8468, version=4),
    Intersection("Parmer", "Amherst", "W PARMER LN", "AMHERST DR", 30.4189, -97.7024, cuts_zips=True),
    Intersection("Cesar Chavez", "Trinity", "CESAR CHAVEZ ST", "TRINITY ST", 30.2614, -97.7411, is_dead=True),
)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle in a zone: when, in UTC, and what the camera saw of it."""

    at: datetime
    turn: str
    length: int
    speed: int
    seconds: float


@lru_cache(maxsize=512)
def traffic(place: Intersection, zone: Zone, day: date, how_many: int) -> tuple[Vehicle, ...]:
    """The vehicles of a zone on a local day of the city, in their order; more of them by day than by night."""
    chance = random.Random(f"{place.base}/{zone.name}/{day}")
    starts_at, ends_at = (datetime.combine(day + timedelta(days=more), day_time(), ZoneInfo(ZONE)).astimezone(UTC) for more in (0, 1))
    tenths = round((ends_at - starts_at).total_seconds() * 10)
    moments = sorted(int(tenths * (chance.random() if chance.random() < 0.25 else chance.betavariate(4, 3))) for _ in range(how_many))
    return tuple(
        Vehicle(
            starts_at + timedelta(milliseconds=100 * moment),
            chance.choice(zone.turns),
            18 + chance.randrange(20) if chance.random() < 0.08 else 9 + chance.randrange(8),
            chance.randrange(8, 48),
            round(chance.uniform(0.3, 8), 1),
        )
        for moment in moments
    )


class Camera(LocalServer):
    """One device. `now` is the true time; the device has the `days` last days that are over by its own clock."""

    def __init__(self, place: Intersection, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), days: int = 30, **server: Any):
        super().__init__(**server)
        self.place, self.now, self.days = place, now, days

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        path = request.path.removeprefix("/api").strip("/")
        if path == "site.json":
            return Reply.of(self._site())
        if path == "datetime.json":
            name, hours = _STANDARD[self.place.zone]
            wall = self._wall(self.now())
            return Reply.of({"DateTime": f"{wall:{_CLOCK}}", "TimeZoneId": f"(UTC{hours:+03}:00) {name}"})
        if path == "system/hardwareinfo.json":
            return Reply.of({"BoxSerialNumber": self.place.camera.replace("-", "")[:8], "HardwareId": self.place.camera, "HardwareVersion": "2.0"})
        if path == "counts.json":
            return Reply.of([f"{day}" for day in self.has()])
        if path.startswith("counts/bydate/"):
            for day in self.has():
                if path == f"counts/bydate/{day}":
                    body = self.zip_of(day)
                    return Reply(200, body[: len(body) * 3 // 5] if self.place.cuts_zips else body, "application/zip")
        return Reply.of({"Message": "No such resource"}, 404)

    def has(self) -> list[date]:
        """The days that the device has, by its own clock."""
        today = self._wall(self.now()).date()
        return [today - timedelta(days=back) for back in range(self.days, 0, -1)]

    def _wall(self, at: datetime) -> datetime:
        """What the device's clock shows at a true moment; no zone."""
        return (at + timedelta(seconds=self.place.drift)).astimezone(ZoneInfo(self.place.zone)).replace(tzinfo=None)

    def _site(self) -> dict[str, Any]:
        place = self.place
        masks = [
            {
                "Vehicle": {
                    "Id": place.guid(zone), "ApproachType": zone.approach, "TurnType": zone.turn_type, "IncludeInData": zone.is_counted,
                    "NumberOfLanes": 1, "ProtectedPhases": [2],
                }
            }
            for zone in ZONES
        ]  # fmt: skip
        eye = {"IsConfigured": True, "MACAddress": place.camera, "Name": place.base, "CameraMasks": {"ZoneMasks": [*masks, {"Bicycle": {}}]}}
        where = {"Street1": place.street1, "Street2": place.street2, "Latitude": place.lat, "Longitude": place.lon, "City": "Austin", "State": "TX"}
        return {"CameraDevices": [{"Fisheye": eye}], "Id": str(uuid.uuid5(uuid.NAMESPACE_DNS, place.base)), "Location": where}

    # the counts of a day

    def zip_of(self, day: date) -> bytes:
        """The zip of a day of the device's clock."""
        place = self.place
        files = {f"{_dashed(place.guid(zone))}.csv": "".join(self._lines(zone, day)) for zone in ZONES}
        if place.layout == "b":
            return _zip({f"{place.camera}/{day}.zip": _zip(files)})
        return _zip({f"{place.camera}/{day}/{name}": text for name, text in files.items()})

    def _lines(self, zone: Zone, day: date) -> Iterator[str]:
        for vehicle in self._seen(zone, day):
            wall = self._wall(vehicle.at)
            stamp = f"{int(wall.strftime('%H%M%S'))}.{wall.microsecond // 100_000}"
            offset = _STANDARD[self.place.zone][1] * 60
            length, speed, seconds = vehicle.length, vehicle.speed, vehicle.seconds
            match self.place.version:
                case 4:
                    utc = vehicle.at + timedelta(seconds=self.place.drift)
                    stamp = f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 100_000}"
                    yield f"4,23,{stamp},1,car,{length},{speed},{vehicle.turn},SLRU,{seconds},2.0,1,G,3.0,100,D\n"
                case 7:
                    yield f"7,23,{stamp},{offset},{vehicle.turn},{length},{speed},G,{seconds},1,0.9\n"
                case _:
                    yield f"8,23,{stamp},{offset},{vehicle.turn},{length},{speed},G,{seconds},1,5.0,0.0,42,39\n"

    def _seen(self, zone: Zone, day: date) -> Iterable[Vehicle]:
        """The vehicles of a day of the device's clock: most are of the city's same day."""
        place = self.place
        for near in (day - timedelta(days=1), day, day + timedelta(days=1)):
            for vehicle in traffic(place, zone, near, round(place.vehicles * place.busy(near))):
                utc = vehicle.at + timedelta(seconds=place.drift)
                if (utc if place.version == 4 else self._wall(vehicle.at)).date() == day:
                    yield vehicle


class Cameras:
    """Several devices, and the inventory that knows them. Use it as a context manager, or `start()` and `stop()`."""

    def __init__(
        self,
        places: Iterable[Intersection] = INTERSECTIONS,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        days: int = 30,
        host: str = "127.0.0.1",
        port: int = 0,
    ):
        self.places, self.host = tuple(places), host
        #: 0: each has a free one; else the first has this, the others those after it
        self.ports = {place.base: port + number if port else 0 for number, place in enumerate(self.places)}
        living = [place for place in self.places if not place.is_dead]
        self.devices = {place.base: Camera(place, now=now, days=days, host=host, port=self.ports[place.base]) for place in living}
        #: ports that are kept and where nobody listens
        self._dead: dict[str, socket.socket] = {}

    def start(self) -> Cameras:
        for place in self.places:
            if place.is_dead:
                kept = socket.socket()
                kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                kept.bind((self.host, self.ports[place.base]))
                self._dead[place.base] = kept
        for device in self.devices.values():
            device.start()
        return self

    def stop(self) -> None:
        for device in self.devices.values():
            device.stop()
        for kept in self._dead.values():
            kept.close()
        self._dead.clear()

    def __enter__(self) -> Cameras:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def address(self, place: Intersection) -> str:
        """host:port of a device, as the inventory has it."""
        port = self._dead[place.base].getsockname()[1] if place.is_dead else self.devices[place.base].port
        return f"{self.host}:{port}"

    def units(self) -> list[dict[str, Any]]:
        """The inventory: these devices, one that shares an address, one that was removed and one that stands nowhere."""
        units = [self._unit(place, number) for number, place in enumerate(self.places)]
        shares = {
            "atd_device_id": 7001,
            "atd_location_id": "LOC16-007001",
            "primary_st": "E 7TH ST",
            "cross_st": "CHICON ST",
            "lat": None,
            "lon": None,
        }
        removed = {"atd_device_id": 7002, "device_status": "REMOVED", "device_ip": "10.0.0.2", "primary_st": "RED RIVER ST", "cross_st": "32ND ST"}
        nowhere = {"atd_device_id": 7003, "atd_location_id": None, "device_ip": "10.0.0.3", "primary_st": "GUADALUPE ST", "cross_st": "24TH ST"}
        return [*units, *({**units[0], **other} for other in (shares, removed, nowhere))]

    def _unit(self, place: Intersection, number: int) -> dict[str, Any]:
        return {
            "device_type": "GRIDSMART", "atd_device_id": 6900 + number, "device_status": "TURNED_ON", "device_ip": self.address(place),
            "ip_comm_status": "OFFLINE", "atd_location_id": f"LOC16-00{6900 + number}", "coa_intersection_id": 5_000_000 + number,
            "lat": place.lat, "lon": place.lon, "primary_st": place.primary, "cross_st": place.cross,
        }  # fmt: skip


def _dashed(guid: str) -> str:
    return str(uuid.UUID(guid))


def _zip(files: dict[str, str | bytes]) -> bytes:
    """A zip with the same bytes each time."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, body)
    return held.getvalue()
