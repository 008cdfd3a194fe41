"""Trips as each version of MDS writes them, valid by its schema, and pages of them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

OPERATOR = "0309585e-599f-4e57-ac85-ffffffffffff"
DEVICE = "da9e067b-7b40-4d2d-8053-aaaaaaaaaaaa"
TRIP = "b3ca5c86-7f45-4544-bf58-111111111111"
#: 2020-02-11 15:08:25 UTC, and a quarter of an hour before
ENDED, BEGAN = 1581433705, 1581432748
START, END = [-97.738363, 30.2667], [-97.738561, 30.25]

FULL = {"0.2": "0.2.1", "0.3": "0.3.2", "0.4": "0.4.1", "1.0": "1.0.0", "1.1": "1.1.1", "1.2": "1.2.0", "2.0": "2.0.2", "2.1": "2.1.0"}
ROUTED = ["0.2", "0.3", "0.4", "1.0", "1.1", "1.2"]
VERSIONS = list(FULL)


def trip(version: str, **changes: Any) -> dict[str, Any]:
    """A valid trip of that version; a change to `...` takes the field away."""
    unit = 1 if version == "0.2" else 1000
    made: dict[str, Any] = {
        "provider_id": OPERATOR,
        "device_id": DEVICE,
        "trip_id": TRIP,
        "start_time": BEGAN * unit,
        "end_time": ENDED * unit,
        "standard_cost": 330,
        "actual_cost": 310,
    }
    if version >= "2":
        made |= {
            "start_location": {"lat": START[1], "lng": START[0], "horizontal_accuracy": 4.5},
            "end_location": {"lat": END[1], "lng": END[0]},
            "duration": 957,
            "distance": 1879,
            "trip_type": ["rider"],
            "parking_category": "corral",
        }
    else:
        points = [(START, BEGAN), (END, ENDED)]
        made |= {
            "provider_name": "sample_co",
            "vehicle_id": "VID120SF",
            "vehicle_type": "scooter",
            "propulsion_types" if version >= "1" else "propulsion_type": ["electric", "human"],
            "trip_duration": 957,
            "trip_distance": 1879,
            "route": {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "properties": {"timestamp": at * unit}, "geometry": {"type": "Point", "coordinates": list(point)}}
                    for point, at in points
                ],
            },
            "accuracy": 5,
        }
    if version >= "0.3":
        made["publication_time"] = ENDED * unit
    if version >= "0.4":
        made["currency"] = "USD"
    made |= changes
    return deepcopy({name: value for name, value in made.items() if value is not ...})


def page(version: str, *trips: Any, **envelope: Any) -> dict[str, Any]:
    held = {"trips": list(trips)}
    return {"version": FULL[version], **(held if version >= "2" else {"data": held}), **envelope}


def body(version: str, *trips: Any, **envelope: Any) -> bytes:
    return json.dumps(page(version, *trips, **envelope)).encode()
