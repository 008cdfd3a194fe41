"""The practice city: what it publishes, as plain data, and the servers that it runs.

`DATASETS` says ids, columns, keys and stewards, `ACCOUNT` who may publish and `ZONE` what its clocks show; whoever sets up
providers and pipelines for practice reads them from here. `City` is the servers themselves: a *source* that the city's
offices fill, an empty *portal* for the public to which publishing goes, and the *scooters* of OPERATORS, whose trips are to become
the portal's TRIPS. Its web *files* and its *maps* are those that Toronto's dataset files name. Other kinds of server join `City.servers`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from . import mds, rows
from .arcgis import ArcGIS, toronto_layers
from .ckan import Ckan
from .files import toronto_files
from .mds_trips import Fleet
from .sensors import SensorCity
from .soda import Portal
from .tables import Column, Dataset
from .wire import LocalServer

NAME = "Practice City"
ZONE = "America/Los_Angeles"
#: new service requests a day, and days that the source shows when it starts
REQUESTS_A_DAY = 600
DAYS_SHOWN = 30


@dataclass(frozen=True)
class Account:
    """Who may publish on the practice portal."""

    user: str
    password: str


ACCOUNT = Account("publisher@practice.city", "practice-only")


@dataclass(frozen=True)
class CityColumn:
    """A column as the city wants it. `type` is one of the catalog's COLUMN_TYPES, `source_type` the dataTypeName at the source.

    Where the two do not agree (a date kept as text), some rows do not fit and are to be rejected on the way.
    """

    name: str
    type: str = "text"
    label: str = ""
    source_type: str = ""
    description: str = ""

    @property
    def portal_type(self) -> str:
        """The dataTypeName on the portal."""
        return _DATA_TYPES.get(self.type, self.type)


_DATA_TYPES = {"local_time": "calendar_date", "instant": "date", "boolean": "checkbox", "json": "text"}
_COLUMN_TYPES = {"calendar_date": "local_time", "date": "instant", "checkbox": "boolean"}


@dataclass(frozen=True)
class CityDataset:
    """One table of the city: `id` at the source, `target_id` on the portal, and what its pipeline needs to know.

    `key` names the column whose values should be unique (some are not); `source_key` says whether the source enforces it as its
    row identifier. `is_keyless` says that the city gave up on it: rows are compared whole, and the portal has no row identifier.
    `window_column` is "" for a table that is not read by windows; `watermark_column` grows with what is new or changed.
    """

    id: str
    target_id: str
    title: str
    description: str
    key: str
    columns: tuple[CityColumn, ...]
    window_column: str = ""
    watermark_column: str = ""
    source_key: bool = False
    is_keyless: bool = False
    cadence: str = "daily"
    licence: str = "CC0 1.0 Universal"
    steward: str = ""
    refresh_rate: str = "Daily"
    category: str = ""
    tags: tuple[str, ...] = ()


def _columns(*told: tuple[str, ...]) -> tuple[CityColumn, ...]:
    return tuple(CityColumn(*entry) for entry in told)


def _as_city(columns: tuple[Column, ...]) -> tuple[CityColumn, ...]:
    return tuple(CityColumn(column.name, _COLUMN_TYPES.get(column.type, column.type), column.label, column.type) for column in columns)


SERVICE_REQUESTS = CityDataset(
    id="srq0-2026",
    target_id="pub0-srqs",
    title="MyCity 311 Service Requests",
    description="Requests for service that residents make by phone, on the web and in the app, with what became of them.",
    key="srnumber",
    source_key=True,
    window_column="createddate",
    watermark_column="updateddate",
    columns=_as_city(rows.LA311_COLUMNS),
    steward="Office of Customer Service",
    category="City Services",
    tags=("311", "requests"),
)
BUILDING_PERMITS = CityDataset(
    id="bpm0-2026",
    target_id="pub0-bpms",
    title="Building Permits",
    description="Permits applied for in the last two years, with their state. Issue dates are typed by hand at the counter.",
    key="permit_number",
    columns=_columns(
        ("permit_number", "text", "Permit Number"),
        ("permit_type", "text", "Permit Type"),
        ("work_description", "text", "Work Description"),
        ("status", "text", "Status"),
        ("applied_date", "local_time", "Applied Date", "calendar_date"),
        ("issued_date", "local_time", "Issued Date", "text"),
        ("final_date", "local_time", "Final Date", "calendar_date"),
        ("valuation", "number", "Valuation", "text", "US dollars"),
        ("contractor", "text", "Contractor"),
        ("address", "text", "Address"),
        ("zip_code", "text", "ZIP Code"),
        ("council_district", "number", "Council District", "number"),
        ("latitude", "number", "Latitude", "number"),
        ("longitude", "number", "Longitude", "number"),
    ),
    steward="Department of Building and Safety",
    category="Housing and Development",
    tags=("permits", "construction"),
)
STREET_TREES = CityDataset(
    id="tre0-2026",
    target_id="pub0-tree",
    title="Street Trees",
    description="Trees in the public way. Planting dates before the inventory were copied from paper.",
    key="tree_id",
    columns=_columns(
        ("tree_id", "text", "Tree ID"),
        ("species", "text", "Species"),
        ("latin_name", "text", "Latin Name"),
        ("diameter_in", "number", "Diameter (in)", "text", "inches at breast height"),
        ("planted_date", "local_time", "Planted Date", "text"),
        ("condition", "text", "Condition"),
        ("address", "text", "Address"),
        ("zip_code", "text", "ZIP Code"),
        ("council_district", "number", "Council District", "number"),
        ("location", "point", "Location", "point"),
    ),
    steward="Bureau of Street Services",
    refresh_rate="Weekly",
    category="Environment",
    tags=("trees",),
)
INSPECTIONS = CityDataset(
    id="ins0-2026",
    target_id="pub0-insp",
    title="Restaurant Inspections",
    description="Inspections of restaurants in the last year, with score and grade.",
    key="serial_number",
    columns=_columns(
        ("serial_number", "text", "Serial Number"),
        ("facility_name", "text", "Facility Name"),
        ("inspection_date", "local_time", "Inspection Date", "text"),
        ("score", "number", "Score", "text", "0 to 100"),
        ("grade", "text", "Grade"),
        ("inspection_type", "text", "Inspection Type"),
        ("violation", "text", "Violation"),
        ("address", "text", "Address"),
        ("zip_code", "text", "ZIP Code"),
        ("council_district", "number", "Council District", "number"),
        ("latitude", "number", "Latitude", "number"),
        ("longitude", "number", "Longitude", "number"),
    ),
    steward="Department of Public Health",
    refresh_rate="Weekly",
    category="Health",
    tags=("food", "inspections"),
)
PET_LICENCES = CityDataset(
    id="pet0-2026",
    target_id="pub0-pets",
    title="Pet Licenses",
    description="Active licences of cats, dogs, goats and pigs. A licence number may have been given to two animals.",
    key="license_number",
    is_keyless=True,
    watermark_column="license_issue_date",
    columns=_as_city(rows.PET_COLUMNS),
    licence="Public Domain",
    steward="Animal Services",
    refresh_rate="Monthly",
    category="Community",
    tags=("pets",),
)
DATASETS = (SERVICE_REQUESTS, BUILDING_PERMITS, STREET_TREES, INSPECTIONS, PET_LICENCES)

#: Fed by the operators and not by the source: on the portal as Austin publishes it (facts/mds.md §3.6).
TRIPS = CityDataset(
    id="trips",
    target_id="pub0-mobi",
    title="Shared Micromobility Trips",
    description="Trips on shared scooters and bicycles. Times are rounded to a quarter of an hour; ids lead to no vehicle and no person.",
    key="trip_id",
    cadence="hourly",
    columns=_columns(
        ("trip_id", "text", "ID"),
        ("device_id", "text", "Device ID"),
        ("vehicle_type", "text", "Vehicle Type"),
        ("trip_duration", "number", "Trip Duration", "", "seconds"),
        ("trip_distance", "number", "Trip Distance", "", "metres"),
        ("start_time", "local_time", "Start Time", "", "UTC"),
        ("end_time", "local_time", "End Time", "", "UTC"),
        ("modified_date", "local_time", "Modified Date", "", "UTC"),
        ("start_time_us_central", "local_time", "Start Time (US/Central)"),
        ("end_time_us_central", "local_time", "End Time (US/Central)"),
        ("year", "number", "Year"),
        ("month", "number", "Month"),
        ("hour", "number", "Hour", "", "of the end, UTC"),
        ("day_of_week", "number", "Day of Week", "", "of the end, UTC; Monday is 0"),
        ("council_district_start", "number", "Council District (Start)", "", "0: outside the city"),
        ("council_district_end", "number", "Council District (End)", "", "0: outside the city"),
        ("census_geoid_start", "number", "Census Tract Start", "", "0: outside the city"),
        ("census_geoid_end", "number", "Census Tract End", "", "0: outside the city"),
    ),
    steward="Department of Transportation",
    refresh_rate="Hourly",
    category="Transportation",
    tags=("mobility", "scooters", "bicycles"),
)


def _numbers(*names: str) -> list[tuple[str, str]]:
    return [(name, "number") for name in names]


_PARTS = _numbers("month", "day", "year", "hour", "minute", "day_of_week")

#: What is published of the sensors (facts/datalake.md §6), by the slug of the pipeline that does.
SENSOR_TABLES = {
    "bt-unmatched": CityDataset(
        id="bt-unmatched",
        target_id="pub0-btun",
        title="Bluetooth Travel Sensors, Individual Addresses",
        description="Devices that passed a Bluetooth reader. Addresses are replaced by numbers that begin anew each day.",
        key="record_id",
        columns=_columns(
            ("host_read_time", "local_time"), ("field_device_read_time", "local_time"), ("reader_identifier",), *_numbers("device_address"),
            ("record_id",),
        ),
        steward="Department of Transportation", category="Transportation", tags=("traffic", "bluetooth"),
    ),
    "bt-matched": CityDataset(
        id="bt-matched",
        target_id="pub0-btma",
        title="Bluetooth Travel Sensors, Individual Traffic Matches",
        description="Devices that passed two Bluetooth readers, and how long they took.",
        key="record_id",
        columns=_columns(
            *_numbers("device_address"), ("origin_reader_identifier",), ("destination_reader_identifier",),
            *_numbers("travel_time_seconds", "speed_miles_per_hour"), ("match_validity",), ("filter_identifier",),
            ("start_time", "local_time"), ("end_time", "local_time"), ("day_of_week",), ("record_id",),
        ),
        steward="Department of Transportation", category="Transportation", tags=("traffic", "bluetooth"),
    ),
    "bt-summary": CityDataset(
        id="bt-summary",
        target_id="pub0-btsu",
        title="Bluetooth Travel Sensors, Match Summary Records",
        description="Travel times between two Bluetooth readers, by the quarter of an hour.",
        key="record_id",
        columns=_columns(
            ("origin_reader_identifier",), ("destination_reader_identifier",), ("origin_roadway",), ("origin_cross_street",), ("origin_direction",),
            ("destination_roadway",), ("destination_cross_street",), ("destination_direction",), *_numbers("segment_length_miles"),
            ("timestamp", "local_time"),
            *_numbers("average_travel_time_seconds", "average_speed_mph", "summary_interval_minutes", "number_samples", "standard_deviation"),
            ("record_id",),
        ),
        steward="Department of Transportation", category="Transportation", tags=("traffic", "bluetooth"),
    ),
    "radar-counts": CityDataset(
        id="radar-counts",
        target_id="pub0-rada",
        title="Radar Traffic Counts",
        description="Vehicles by lane and quarter of an hour, counted by radar.",
        key="row_id",
        columns=_columns(
            *_numbers("detid", "int_id"), ("curdatetime", "local_time"), ("intname",), ("detname",), *_numbers("volume", "occupancy", "speed"),
            *_PARTS, ("timebin",), ("direction",), ("row_id",),
        ),
        steward="Department of Transportation", category="Transportation", tags=("traffic", "radar"),
    ),
    "camera-counts": CityDataset(
        id="camera-counts",
        target_id="pub0-came",
        title="Camera Traffic Counts",
        description="Vehicles by movement and quarter of an hour, counted by cameras.",
        key="record_id",
        columns=_columns(
            ("atd_device_id",), ("read_date", "local_time"), ("intersection_name",), ("direction",), ("movement",), ("heavy_vehicle", "boolean"),
            *_numbers("volume", "speed_average", "speed_stddev", "seconds_in_zone_average", "seconds_in_zone_stddev"), *_PARTS,
            *_numbers("bin_duration"), ("record_id",),
        ),
        steward="Department of Transportation", category="Transportation", tags=("traffic", "cameras"),
    ),
}  # fmt: skip

#: id → (rows, generator) of the tables that do not move by themselves
_STILL: dict[str, tuple[int, rows.Generator]] = {
    BUILDING_PERMITS.id: (2000, rows.building_permits),
    STREET_TREES.id: (5000, rows.street_trees),
    INSPECTIONS.id: (1200, rows.restaurant_inspections),
    PET_LICENCES.id: (51_754, lambda today: rows.seattle_pets()),
}


@dataclass(frozen=True)
class Operator:
    """Who rents out scooters: `slug` is its path on the scooters' server, `fleet` its trips, `options` what else its server is told.

    In hours that `sleeps_at` names, by the city's clock, it is not in service.
    """

    slug: str
    version: str
    auth: mds.Bearer | mds.Basic | mds.OAuth
    fleet: Fleet
    options: Mapping[str, Any] = field(default_factory=dict)
    sleeps_at: tuple[int, ...] = ()

    def is_asleep(self, hour: datetime) -> bool:
        return hour.astimezone(ZoneInfo(ZONE)).hour in self.sleeps_at


OPERATORS = (
    Operator(
        "redwing",
        "0.3",
        mds.Bearer(),
        # what an analyst found in the public data of real cities (facts/mds.md §3.7), a little more often
        Fleet("Redwing", daily=480, odd={"duplicate": 0.01, "zero_distance": 0.03, "negative_distance": 0.005, "end_before_start": 0.005}),
        {"page_size": 20},
    ),
    Operator(
        "zipwheel",
        "1.2",
        mds.OAuth(lifetime=900.0),
        Fleet("Zipwheel", daily=360, odd={"long_distance": 0.01, "missing": 0.005, "extra": 0.02, "number_as_text": 0.005, "outside": 0.01}),
    ),
    Operator(
        "kiwi",
        "2.0",
        mds.Basic(),
        Fleet("Kiwi", daily=240, bicycles=0.4, odd={"rebalance": 0.04, "maintenance": 0.02, "swapped": 0.01, "short": 0.01}),
        sleeps_at=(3, 4),
    ),
)


def _scooters(port: int, clock: Callable[[], datetime]) -> mds.Operators:
    made = {
        told.slug: mds.MdsServer(told.fleet, version=told.version, auth=told.auth, clock=clock, pauses=told.is_asleep, **told.options)
        for told in OPERATORS
    }
    return mds.Operators(made, port=port)


class City:
    """The servers of the practice city. `port` 0 lets the system choose; otherwise the servers take `port`, `port` + 1, ….

    `state` is a folder in which published rows survive a restart. `clock` tells the city's time. With `pulse` seconds the source
    changes by itself that often while the city runs: requests that are due by the clock come in and are closed; in a quiet
    minute one is edited. `requests_a_day` come in, and those of the last `days_shown` are there at the start.
    With a folder `sensors` the city has traffic sensors, too (`SensorCity`), whose office takes the fourth port, and its cameras the next.
    Use it as a context manager, or `start()` and `stop()`.
    """

    #: How many ports are taken, one after the other; settings know it, too. Those of files, maps and CKAN follow the sensors'.
    PORTS = 3 + SensorCity.PORTS + 3

    def __init__(
        self,
        *,
        port: int = 0,
        state: str | Path | None = None,
        sensors: str | Path | None = None,
        pulse: float = 0.0,
        clock: Callable[[], datetime] | None = None,
        requests_a_day: int = REQUESTS_A_DAY,
        days_shown: int = DAYS_SHOWN,
    ):
        self.pulse = pulse
        self.days_shown = days_shown
        self.clock = clock or (lambda: datetime.now(ZoneInfo(ZONE)))
        self.state = Path(state) if state else None
        self.source = Portal(port=port)
        self.portal = Portal(port=port + 1 if port else 0, accounts={ACCOUNT.user: ACCOUNT.password}, state=self.state)
        self.scooters = _scooters(port + 2 if port else 0, self.clock)
        #: what is said when the city is ready → the server
        self.servers: dict[str, LocalServer] = {"source": self.source, "portal": self.portal, "scooters": self.scooters}
        self.sensors = SensorCity(Path(sensors), port=port + 3 if port else 0, clock=self.clock) if sensors else None
        if self.sensors:
            self.servers["sensors"] = self.sensors.office
        behind = 3 + SensorCity.PORTS
        self.servers["files"] = self.files = toronto_files(port=port + behind if port else 0)
        self.servers["maps"] = self.maps = ArcGIS(toronto_layers(), port=port + behind + 1 if port else 0)
        self.servers["ckan"] = self.ckan = Ckan(port=port + behind + 2 if port else 0, state=self.state / "ckan" if self.state else None)
        self._requests = rows.ServiceRequests(requests_a_day, starts=date(2020, 1, 1), days=1)
        self._next = self._requests.first_on(self._first_day())
        #: requests whose end is still to come → as the source shows them
        self._unsettled: dict[int, rows.Row] = {}
        self._quiet = 0
        self._stopping = threading.Event()
        self._heart: threading.Thread | None = None
        today = self.clock().date()
        for told in DATASETS:
            self.source.add(_source_dataset(told, today))
            self.portal.add(_portal_dataset(told))
        for told in (TRIPS, *SENSOR_TABLES.values()):
            self.portal.add(_portal_dataset(told))
        self.tick()

    def _first_day(self) -> date:
        """The first day that the source shows: some days back, or that of the city's first start where it is kept."""
        day = self.clock().date() - timedelta(days=self.days_shown)
        if not self.state:
            return day
        kept = self.state / "city.json"
        if kept.exists():
            return date.fromisoformat(json.loads(kept.read_text())["first_day"])
        self.state.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps({"first_day": day.isoformat()}))
        partial.replace(kept)
        return day

    def tick(self) -> int:
        """Bring the source's requests to the clock's now; returns how many rows were added or changed.

        The rows are a function of the moment alone, so that a city that was restarted tells the same story.
        """
        now = self.clock().replace(tzinfo=None).isoformat(timespec="milliseconds")
        dataset, made = self.source.dataset(SERVICE_REQUESTS.id), self._requests
        changed: list[rows.Row] = []
        for number, shown in list(self._unsettled.items()):
            row = made.at(number, now)
            if row != shown:
                changed.append(row)
                self._unsettled[number] = row
                if row == made(number):
                    del self._unsettled[number]
        while (row := made.at(self._next, now))[1] <= now:
            changed.append(row)
            if row != made(self._next):
                self._unsettled[self._next] = row
            self._next += 1
        if not len(dataset):
            dataset.fill(changed)
            return len(changed)
        if not changed:
            # nothing is due in this minute: somebody looks at one of the last fifty requests
            self._quiet += 1
            key = made(self._next - 1 - self._quiet % 50)[0]
            dataset.publish([{"srnumber": key, "actiontaken": "SR Updated", "updateddate": now}])
            return 1
        names = dataset.names
        dataset.publish([dict(zip(names, row, strict=True)) for row in changed])
        return len(changed)

    def start(self) -> City:
        for server in self.servers.values():
            server.start()
        if self.sensors:
            self.sensors.cameras.start()
        self._stopping.clear()
        if self.pulse or self.state:
            self._heart = threading.Thread(target=self._live, name="practice-city", daemon=True)
            self._heart.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        if self._heart:
            self._heart.join()
            self._heart = None
        for server in self.servers.values():
            server.stop()
        if self.sensors:
            self.sensors.cameras.stop()

    def __enter__(self) -> City:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _live(self) -> None:
        """Until the city stops: a tick each pulse, and what was published kept within two seconds."""
        waited = 0.0
        while not self._stopping.wait(1.0):
            waited += 1.0
            self.portal.keep()
            self.ckan.keep()
            if self.pulse and waited >= self.pulse:
                waited = 0.0
                self.tick()
                if self.sensors:
                    self.sensors.keep_up()


def _about(told: CityDataset) -> dict[str, object]:
    return {
        "description": told.description,
        "attribution": told.steward,
        "category": told.category,
        "tags": told.tags,
        "licence": told.licence,
        "update_frequency": told.refresh_rate,
        "contact_email": "opendata@practice.city",
    }


def _source_dataset(told: CityDataset, today: date) -> Dataset:
    columns = (
        rows.PET_COLUMNS
        if told is PET_LICENCES
        else [Column(column.name, column.source_type or "text", column.label, column.description) for column in told.columns]
    )
    key = told.key if told.source_key else ""
    # changed when its day began: a restarted city does not look as if everything were new
    moment = int(datetime(today.year, today.month, today.day, tzinfo=ZoneInfo(ZONE)).timestamp())
    if told.id not in _STILL:
        return Dataset(told.id, told.title, columns, key=key, rows_updated_at=moment, **_about(told))
    count, generate = _STILL[told.id]

    @cache
    def made() -> list[rows.Row]:
        return generate(today)

    # made when first asked for: the city starts at once
    return Dataset.made(told.id, told.title, columns, count, lambda i: made()[i], key=key, rows_updated_at=moment, **_about(told))


def _portal_dataset(told: CityDataset) -> Dataset:
    columns = [Column(column.name, column.portal_type, column.label, column.description) for column in told.columns]
    return Dataset(told.target_id, told.title, columns, key="" if told.is_keyless else told.key, **_about(told))
