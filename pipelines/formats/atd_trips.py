"""What Austin makes of scooter trips: the areas that it adds, the columns that it publishes, and what must never leave.

Data, no code: the release stage reads the rules, an importer puts them into the pipelines that it makes.
"""

from __future__ import annotations

from typing import Any

#: Of each end of a trip: (column, property that names an area in Austin's file, slug of the layer).
AREAS = (
    ("council_district", "district_n", "council-districts"),
    ("census_geoid", "GEOID10", "census-tracts"),
    ("cell", "id", "trip-cells"),
)

_QUARTER = {"rule": "round_minutes", "minutes": 15}


def _time(column: str, source: str, *further: dict[str, Any], kind: str = "local_time") -> dict[str, Any]:
    return {"column": column, "from": source, "rules": [_QUARTER, *further], "type": kind}


def _part(part: str) -> dict[str, Any]:
    # of the rounded time: of the raw one, 4:59 published as 5:00 with the hour 4 would say on which side it lay
    return _time(part, "end_time", {"rule": "part", "part": part}, kind="number")


def _area(column: str, source: str) -> dict[str, Any]:
    # a text column of the portal takes numbers, a number column no texts: Austin's dataset has had both. Outside is 0 there.
    return {"column": column, "from": source, "rule": "blank_as", "value": "0", "type": "number", "area": True}


#: What Austin publishes as "Shared Micromobility Vehicle Trips" (7d8e-dm7r), of the columns of formats/mds_trips.py.
ATD_TRIPS: list[dict[str, Any]] = [
    {"only": {"column": "trip_type", "in": ["", "rider"]}},
    {"column": "trip_id", "from": ["provider_id", "trip_id"], "rule": "surrogate", "type": "text", "key": True},
    {"column": "device_id", "from": ["provider_id", "device_id"], "rule": "surrogate", "type": "text"},
    {"column": "vehicle_type", "from": "vehicle_type", "rule": "as_is", "type": "text"},
    {"column": "trip_duration", "from": "duration_s", "rule": "as_is", "type": "number"},
    {"column": "trip_distance", "from": "distance_m", "rule": "as_is", "type": "number"},
    _time("start_time", "start_time"),
    _time("end_time", "end_time"),
    {"column": "modified_date", "from": "_odo_loaded_at", "rule": "as_is", "type": "local_time"},
    _time("start_time_us_central", "start_time", {"rule": "in_zone", "zone": "US/Central"}),
    _time("end_time_us_central", "end_time", {"rule": "in_zone", "zone": "US/Central"}),
    _part("year"),
    _part("month"),
    _part("hour"),
    _part("day_of_week"),
    _area("council_district_start", "council_district_start"),
    _area("council_district_end", "council_district_end"),
    _area("census_geoid_start", "census_geoid_start"),
    _area("census_geoid_end", "census_geoid_end"),
]
#: What of a trip must never leave as it is: who, which vehicle, where exactly, when exactly, for how much.
ATD_PRIVATE = [
    "provider_id", "provider_name", "trip_id", "device_id", "vehicle_id", "start_time", "end_time", "start_lon", "start_lat", "end_lon",
    "end_lat", "cost_standard", "cost_actual", "published_at", "parking",
]  # fmt: skip
