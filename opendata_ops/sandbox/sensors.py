"""The practice city's traffic sensors: Bluetooth readers that drop files, a radar database like KITS, and cameras; with the city's inventory.

    with SensorCity(folder) as city:
        city.awam                 # the folder of the readers' three files a day
        city.kits                 # the SQLite database of the detectors
        city.office.url           # gives the inventory: /units/bt.json, /units/wt.json, /units/gs.json
        city.keep_up()            # brings the days that are over since then

What was counted on a day is the same whenever it is asked. Some sensors are ill, counted from the day on which the city began
(`ILLNESSES`): on the day before it, what is wrong with each has just become visible, as on any console's first morning.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from .faults import Fault
from .gridsmart import INTERSECTIONS, ZONE, Cameras
from .wire import LocalServer, Reply, Request

#: So many days before the city began are there at the start.
DAYS = 14
#: What the readers' files are called (facts/datalake.md §7.1), by what they hold.
FILES = {"unmatched": "Austin_bt_%m-%d-%Y.txt", "matched": "Austin_btmatch_%m-%d-%Y.txt", "summary": "Austin_bt_summary_15_%m-%d-%Y.txt"}
#: Inventory code → what stands in it.
CODES = ("bt", "wt", "gs")

TRIPLE, ZERO, SILENT, LONG_SILENT, PARTIAL = "triple", "zero", "silent", "long-silent", "partial"
#: What is wrong with whom: readers by name, radar intersections by name.
ILLNESSES = {
    "lamar_6th": TRIPLE,
    "burnet_anderson": SILENT,
    "51st_manor": LONG_SILENT,
    "speedway_38th": PARTIAL,
    "SLAUGHTERBRODIE": ZERO,
    "CONGRESSRIVERSIDE": SILENT,
}


@dataclass(frozen=True)
class Reader:
    """A Bluetooth reader; `reads` on a usual day."""

    name: str
    lat: float
    lon: float
    reads: int
    is_known: bool = True


READERS = (
    Reader("lamar_mlk", 30.2836, -97.7520, 330),
    Reader("lamar_6th", 30.2715, -97.7540, 390),
    Reader("lamar_38th", 30.3040, -97.7440, 270),
    Reader("burnet_anderson", 30.3577, -97.7336, 240),
    Reader("burnet_45th", 30.3173, -97.7389, 225),
    Reader("51st_manor", 30.2944, -97.6990, 180),
    Reader("51st_springdale", 30.2920, -97.6830, 165),
    Reader("speedway_38th", 30.2999, -97.7331, 255),
    Reader("congress_riverside", 30.2580, -97.7460, 420),
    Reader("slaughter_brodie", 30.1930, -97.8468, 210),
    # the city has forgotten to enter it: its rows are rejected, and told
    Reader("ghost_reader", 0.0, 0.0, 150, is_known=False),
)
#: Roads between two readers, in miles.
ROADS = (
    ("lamar_6th", "lamar_mlk", 0.914), ("lamar_mlk", "lamar_38th", 1.52), ("burnet_45th", "burnet_anderson", 2.87),
    ("51st_manor", "51st_springdale", 0.633),
)  # fmt: skip


@dataclass(frozen=True)
class Junction:
    """An intersection with radar, and its detectors, one a lane."""

    id: int
    name: str
    lanes: tuple[str, ...]
    lat: float
    lon: float
    busy: int
    is_known: bool = True


JUNCTIONS = (
    Junction(1, "LAMARMANCHACA", ("NB_in", "NB_out", "SB_in", "SB_out"), 30.2449, -97.7818, 60),
    Junction(2, "BURNETANDERSON", ("NB_in", "SB_in"), 30.3577, -97.7336, 45),
    Junction(3, "SLAUGHTERBRODIE", ("EB_in", "WB_in"), 30.1930, -97.8468, 50),
    Junction(4, "CONGRESSRIVERSIDE", ("NB_in", "SB_in"), 30.2580, -97.7460, 70),
    Junction(5, "PARMERMOPAC", ("EB_in", "EB_out", "WB_in"), 30.4100, -97.7040, 80),
    # without a kits_id in the inventory
    Junction(77, "NOWHERE", ("EB_out",), 0.0, 0.0, 5, is_known=False),
)


def rhythm(hour: float) -> float:
    """How busy a city is at that hour of a day, 1.0 on average: two peaks, and quiet nights."""
    peaks = math.exp(-(((hour - 8) / 2.2) ** 2)) + 1.2 * math.exp(-(((hour - 17.3) / 2.8) ** 2))
    return 0.15 + 2.3 * peaks + 0.9 * math.exp(-(((hour - 13) / 5) ** 2))


@dataclass(frozen=True)
class Days:
    """What was counted on each day, for a city that began on `began`."""

    began: date

    def factor(self, name: str, day: date) -> float:
        """How much of what is usual a sensor counts on a day: about 1, or as ill as it is."""
        age = (self.began - day).days
        match ILLNESSES.get(name):
            case "triple" if age == 1:
                return 3.0
            case "zero" if 0 <= age <= 1:
                return 0.0
            case "silent" if 0 <= age <= 1:
                return -1.0
            case "long-silent" if age <= 9:
                return -1.0
        return random.Random(f"{name} {day}").uniform(0.85, 1.15)

    def ends_at(self, name: str, day: date) -> float:
        """The hour at which a sensor stops on that day."""
        return 9.5 if ILLNESSES.get(name) == PARTIAL and (self.began - day).days == 1 else 24.0

    # Bluetooth

    def reads(self, day: date) -> list[tuple[datetime, datetime, str, str]]:
        """(host time, field time, reader, address) of a day, by host time; wall times."""
        found = []
        for reader in READERS:
            chance = random.Random(f"bt {reader.name} {day}")
            factor = self.factor(reader.name, day)
            for _ in range(round(reader.reads * max(factor, 0))):
                at = self._moment(day, chance)
                if at is None or _hours(day, at) >= self.ends_at(reader.name, day):
                    continue
                found.append((at, at - timedelta(seconds=chance.randrange(11)), reader.name, _address(chance.randrange(900), day)))
        return sorted(found)

    def _moment(self, day: date, chance: random.Random) -> datetime | None:
        seconds = chance.randrange(86_400)
        # the busy hours keep more of what is drawn; one draw in four is kept whatever the hour, so that a day is covered
        if chance.random() < 0.25 or chance.random() < rhythm(seconds / 3600) / 3.2:
            return _midnight(day) + timedelta(seconds=seconds)
        return None

    def matches(self, day: date) -> list[tuple[Any, ...]]:
        """Devices that passed two readers, by their start."""
        found = []
        for origin, dest, miles in ROADS:
            chance = random.Random(f"match {origin} {dest} {day}")
            if min(self.factor(origin, day), self.factor(dest, day)) < 0:
                continue
            for _ in range(18):
                begins = self._moment(day, chance)
                if begins is None:
                    continue
                seconds = round(miles / chance.uniform(14, 34) * 3600) if chance.random() < 0.9 else chance.randrange(600, 1500)
                ends = begins + timedelta(seconds=seconds)
                validity = "valid" if seconds < 500 * miles else "invalid"
                found.append(
                    (_address(chance.randrange(900), day), origin, dest, begins, ends, seconds, round(miles / seconds * 3600), validity, 125)
                )
        return sorted(found, key=lambda row: row[3:5] + row[1:3])

    def bluetooth(self, kind: str, day: date) -> bytes:
        """A file of the readers' system, without a header."""
        held = io.StringIO()
        lines = csv.writer(held, lineterminator="\n")
        if kind == "unmatched":
            for place, (at, seen, reader, address) in enumerate(self.reads(day)):
                lines.writerow([_wall(at), f"166.159.23.{10 + place % 40}", _wall(seen), reader, address])
        elif kind == "matched":
            for address, origin, dest, begins, ends, *rest in self.matches(day):
                lines.writerow([address, origin, dest, _wall(begins), _wall(ends), *rest])
        else:
            lines.writerows(self._summary(day))
        return held.getvalue().encode()

    def _summary(self, day: date) -> Iterator[list[Any]]:
        matches = self.matches(day)
        for quarter in range(96):
            begins = _midnight(day) + timedelta(minutes=15 * quarter)
            for origin, dest, miles in ROADS:
                seen = [row for row in matches if row[1:3] == (origin, dest) and begins <= row[3] < begins + timedelta(minutes=15)]
                numbers = [-1, -1, 15, 0, -1]
                if seen:
                    mean = sum(row[5] for row in seen) / len(seen)
                    numbers = [round(mean), round(miles / mean * 3600), 15, len(seen), round(math.sqrt(sum((row[5] - mean) ** 2 for row in seen)))]
                (road, cross), (to_road, to_cross) = origin.split("_"), dest.split("_")
                ends = [road.title(), cross.title(), "Northbound", to_road.title(), to_cross.title(), "Southbound"]
                yield [origin, dest, *ends, miles, f"{_wall(begins, seconds=False)}", *numbers]

    # radar

    def counts(self, day: date) -> Iterator[tuple[Any, ...]]:
        """(DETID, CURDATETIME, VOLUME, OCCUPANCY, SPEED, STATUS, UPLOADSUCCESS, DETCOUNTCOMPARISON, DAILYCUMULATIVE) of a day."""
        for junction in JUNCTIONS:
            factor = self.factor(junction.name, day)
            if factor < 0:
                continue
            for lane in range(len(junction.lanes)):
                chance, sum_of_day = random.Random(f"wt {junction.name} {lane} {day}"), 0
                for quarter in range(96):
                    at = _midnight(day) + timedelta(minutes=15 * quarter)
                    volume = round(junction.busy * factor * rhythm(quarter / 4) * chance.uniform(0.7, 1.3))
                    sum_of_day += volume
                    occupancy, speed = round(volume / 8), round(chance.uniform(25, 50)) if volume else 0
                    yield junction.id * 10 + lane, f"{at:%Y-%m-%d %H:%M:%S}", volume, occupancy, speed, "Working", 100, 0, sum_of_day


def _midnight(day: date) -> datetime:
    """On the wall: the sensors' systems know no zone."""
    return datetime.combine(day, time())


def _hours(day: date, at: datetime) -> float:
    return (at - _midnight(day)).total_seconds() / 3600


def _address(number: int, day: date) -> str:
    """Who passed, as the readers write it; another one each day, but in the inventory of nobody."""
    mark = hashlib.md5(f"{number} {day:%Y-%m}".encode(), usedforsecurity=False).hexdigest().upper()
    return base64.b64encode(":".join(mark[place : place + 2] for place in range(0, 12, 2)).encode()).decode()


def _wall(at: datetime, *, seconds: bool = True) -> str:
    """6/1/2019 12:00:05 AM"""
    clock = f"{at.hour % 12 or 12}:{at:%M:%S}" if seconds else f"{at.hour % 12 or 12}:{at:%M}"
    return f"{at.month}/{at.day}/{at.year} {clock} {'AM' if at.hour < 12 else 'PM'}"


class Office(LocalServer):
    """The street works office: it gives the inventory of the sensors as JSON documents."""

    def __init__(self, units: Callable[[str], list[dict[str, Any]]], **server: Any):
        super().__init__(**server)
        self.units = units

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        for code in CODES:
            if request.path == f"/units/{code}.json":
                return Reply.of({"devices": self.units(code)})
        return Reply.of({"message": "There is no such inventory."}, 404)


class SensorCity:
    """The sensors and their office. What they drop lies in `folder`; the days before the first start are made then, and kept.

    `port` 0 lets the system choose; otherwise the office takes it, and the cameras the next ones. `clock` tells the city's time.
    """

    #: How many ports are taken, one after the other.
    PORTS = 1 + len(INTERSECTIONS)

    def __init__(self, folder: Path, *, port: int = 0, clock: Callable[[], datetime] | None = None, days: int = DAYS):
        self.folder, self.days_shown = folder, days
        self.clock = clock or (lambda: datetime.now(ZoneInfo(ZONE)))
        self.awam, self.kits = folder / "awam", folder / "kits.db"
        self.cameras = Cameras(now=lambda: self.clock().astimezone(UTC), days=days, port=port + 1 if port else 0)
        self.office = Office(self.units, port=port)
        self.awam.mkdir(parents=True, exist_ok=True)
        self.days = Days(self._began())
        self.keep_up()

    def _began(self) -> date:
        kept = self.folder / "began.json"
        if not kept.exists():
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps({"began": self.today.isoformat()}))
            partial.replace(kept)
        return date.fromisoformat(json.loads(kept.read_text())["began"])

    @property
    def today(self) -> date:
        return self.clock().astimezone(ZoneInfo(ZONE)).date()

    def keep_up(self) -> int:
        """Drop the files and the counts of the days that are over and not there yet; returns how many days there were."""
        first = self.days.began - timedelta(days=self.days_shown)
        over = [first + timedelta(days=place) for place in range((self.today - first).days)]
        new = [day for day in over if not (self.awam / f"{day:{FILES['summary']}}").exists()]
        if new:
            self._keep_counts(new)
        for day in new:
            for kind, pattern in FILES.items():
                path = self.awam / f"{day:{pattern}}"
                partial = path.with_name(f".{path.name}")
                partial.write_bytes(self.days.bluetooth(kind, day))
                partial.replace(path)
        return len(new)

    def _keep_counts(self, days: list[date]) -> None:
        with closing(sqlite3.connect(self.kits)) as connection, connection:
            connection.execute("create table if not exists DETECTORSRM (DETID integer primary key, INTID integer, INTNAME text, DETNAME text)")
            connection.execute(
                "create table if not exists SYSDETHISTORYRM (DETID integer, CURDATETIME text, VOLUME integer, OCCUPANCY integer, SPEED integer,"
                " STATUS text, UPLOADSUCCESS integer, DETCOUNTCOMPARISON integer, DAILYCUMULATIVE integer, primary key (DETID, CURDATETIME))"
            )
            lanes = [(one.id * 10 + place, one.id, one.name, lane) for one in JUNCTIONS for place, lane in enumerate(one.lanes)]
            connection.executemany("insert or replace into DETECTORSRM values (?, ?, ?, ?)", lanes)
            for day in days:
                connection.executemany("insert or replace into SYSDETHISTORYRM values (?, ?, ?, ?, ?, ?, ?, ?, ?)", self.days.counts(day))

    def units(self, code: str) -> list[dict[str, Any]]:
        """The inventory of a code, as records of facts/datalake.md §4."""
        if code == "gs":
            return self.cameras.units()
        common = {"device_status": "TURNED_ON", "ip_comm_status": "ONLINE"}
        if code == "bt":
            return [
                {
                    "device_type": "BLUETOOTH", "atd_device_id": 100 + place, "device_name": one.name, "device_ip": f"172.16.132.{60 + place}",
                    "lat": one.lat, "lon": one.lon, **dict(zip(("primary_st", "cross_st"), one.name.upper().split("_"), strict=True)), **common,
                }
                for place, one in enumerate(READERS) if one.is_known
            ]  # fmt: skip
        return [
            {
                "device_type": "RADAR", "atd_device_id": 200 + one.id, "device_name": one.name, "device_ip": f"172.16.133.{60 + one.id}",
                "kits_id": one.id, "lat": one.lat, "lon": one.lon, **common,
            }
            for one in JUNCTIONS if one.is_known
        ]  # fmt: skip

    def start(self) -> SensorCity:
        self.cameras.start()
        self.office.start()
        return self

    def stop(self) -> None:
        self.office.stop()
        self.cameras.stop()

    def __enter__(self) -> SensorCity:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
