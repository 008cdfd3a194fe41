"""A trips pipeline on a stage: a source that holds raw trips, a portal with Austin's columns, and all that the portal was ever told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import runner
from pipelines.models import ScheduleBlock
from pipelines.stages.release import ATD_PRIVATE, ATD_TRIPS
from tests.pipelines.scene import PASSWORD, TARGET, Scene, keyed

NINE = datetime(2026, 7, 1, 9, tzinfo=UTC)
RAW = (
    ("provider_id", "text"), ("provider_name", "text"), ("trip_id", "text"), ("device_id", "text"), ("vehicle_id", "text"),
    ("vehicle_type", "text"), ("start_time", "date"), ("end_time", "date"), ("start_lon", "number"), ("start_lat", "number"),
    ("end_lon", "number"), ("end_lat", "number"), ("duration_s", "number"), ("distance_m", "number"), ("trip_type", "text"),
    ("council_district_start", "text"), ("council_district_end", "text"), ("census_geoid_start", "text"), ("census_geoid_end", "text"),
)  # fmt: skip
PUBLIC = tuple((entry["column"], {"local_time": "calendar_date"}.get(entry["type"], entry["type"])) for entry in ATD_TRIPS if "only" not in entry)
PROVIDER = "63f13c48-34ff-49d2-aca7-cf6a5b6171c3"


def trip(number: int, at: datetime = NINE, **more: Any) -> dict[str, Any]:
    """Trip `number`, which ends `number` minutes (of 60) and 17 seconds after `at`; every value that is private is one of a kind."""
    end = at + timedelta(minutes=number % 60, seconds=17)
    return {
        "provider_id": PROVIDER, "provider_name": "Zipwheel", "trip_id": f"7e57{number:04d}-0000-4000-8000-00000000a1a1",
        "device_id": f"d3f1ce{number % 7:02d}-0000-4000-8000-00000000b2b2", "vehicle_id": f"ZIP-{number:05d}", "vehicle_type": "scooter",
        "start_time": stamp(end - timedelta(minutes=11, seconds=3)), "end_time": stamp(end),
        "start_lon": f"-97.74{number % 900 + 100}7", "start_lat": f"30.26{number % 900 + 100}9",
        "end_lon": f"-97.75{number % 900 + 100}3", "end_lat": f"30.27{number % 900 + 100}1",
        "duration_s": "663", "distance_m": "1879", "trip_type": "rider", "council_district_start": str(number % 3 + 1),
        "council_district_end": "9", "census_geoid_start": "48453001100", "census_geoid_end": None, **more,
    }  # fmt: skip


def stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


class TripScene:
    """Raw trips on their way to a portal. `told` is every request that the portal got, address, headers and body."""

    def __init__(self, stage_scene: Any, rows: list[Mapping[str, Any]], *, portal_columns: tuple = PUBLIC, **fields: Any):
        fields = {
            "key": ["provider_id", "trip_id"], "window_column": "end_time", "cadence": "hourly", "time_zone": "America/Chicago",
            "release": ATD_TRIPS, "private_columns": ATD_PRIVATE, "version_column": "", **fields,
        }  # fmt: skip
        self.scene: Scene = stage_scene(SandboxTable("aaaa-0001", "Raw trips", RAW, rows), **fields)
        self.scene.portal.stop()
        self.table = SandboxTable(TARGET, "Trips", portal_columns, [], key="trip_id" if ("trip_id", "text") in portal_columns else "")
        self.scene.portal = self.portal = Portal(self.table, accounts={"u": PASSWORD}).start()
        self.scene.portal_provider.base_url = self.portal.url
        self.scene.portal_provider.save()
        self.told: list[bytes] = []
        answer = self.portal.answer

        def overheard(request: Any, fault: Any) -> Any:
            self.told.append(f"{request.method} {request.address} {request.headers}".encode() + request.body)
            return answer(request, fault)

        self.portal.answer = overheard

    @property
    def pipeline(self) -> Any:
        self.scene.pipeline.refresh_from_db()
        return self.scene.pipeline

    def run(self, hours: int = 1, **order: Any) -> list[ScheduleBlock]:
        """Run the hours from nine on, and return their blocks."""
        placed = self.scene.place(starts_at=NINE, ends_at=NINE + timedelta(hours=hours), which="all", **order)
        assert len(placed.moved) == hours, placed.refused
        runner.work_off(placed.moved, workers=1)
        return list(ScheduleBlock.objects.filter(pipeline=self.scene.pipeline).order_by("starts_at")[:hours])

    def public(self) -> dict[str, dict[str, Any]]:
        return keyed(self.table)

    def raw(self, *columns: str) -> list[str]:
        """Every value that the source has of these columns."""
        found = keyed(self.scene.source.dataset("aaaa-0001")).values()
        return [str(row[name]) for row in found for name in columns if row[name] is not None]
