"""A watched pipeline and what its runs brought, made with the ORM, for the tests of observing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from catalog.models import Dataset
from perfmet.models import Observation, SensorWatch
from perfmet.reckoning import Reading
from pipelines import clock
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, State

ZONE = "America/Chicago"
SUNDAY = date(2026, 11, 22)
_numbers = itertools.count(1)


def days_ago(number: int) -> date:
    return SUNDAY - timedelta(days=number)


def watched(*, pipeline: Mapping[str, Any] | None = None, **fields: Any) -> SensorWatch:
    """A watch on a daily pipeline of its own."""
    number = next(_numbers)
    slug = f"readers-{number}"
    values = {
        "resource": "abcd-1234", "table": slug.replace("-", "_"), "key": ["id"], "window_column": "read_at", "time_zone": ZONE,
        "starts_on": days_ago(40), "stages": ["extract", "standardize", "load"], "data_source": "Bluetooth", **(pipeline or {}),
    }  # fmt: skip
    source = Provider.objects.create(slug=slug, title=slug, kind="socrata", base_url="https://x.example")
    feeds = Dataset.objects.create(slug=slug, title=slug)
    made = Pipeline.objects.create(slug=slug, title=f"Readers {number}", provider=source, dataset=feeds, **values)
    return SensorWatch.objects.create(pipeline=made, **{"sensor_column": "reader", "label": "Entries", **fields})


def reading(value: float, *, rows: int | None = None, day: date = SUNDAY, hours: float = 23.5) -> Reading:
    """A day of `hours` from midnight on."""
    midnight = clock.day_start(day, ZONE)
    return Reading(value, value if rows is None else rows, midnight, midnight + timedelta(hours=hours))


def block_of(watch: SensorWatch, starts_at: datetime, ends_at: datetime, **fields: Any) -> ScheduleBlock:
    """A block that is done."""
    stages = watch.pipeline.stages
    values = {"state": State.DONE, "stage": stages[-1], "stages": stages, "due_at": ends_at, "finished_at": ends_at, **fields}
    return ScheduleBlock.objects.get_or_create(pipeline=watch.pipeline, starts_at=starts_at, defaults={"ends_at": ends_at, **values})[0]


def ran(block: ScheduleBlock, stage: str = "standardize", observations: Mapping[str, Any] | None = None, **fields: Any) -> Run:
    """A run of a block, ended well just now."""
    details = {} if observations is None else {"observations": observations}
    values = {"state": RunState.DONE, "finished_at": datetime.now(UTC), "details": details, **fields}
    fence = block.runs.count() + 1
    return Run.objects.create(block=block, stage=stage, attempt=1, fence=fence, trigger="schedule", asked_by="schedule", holder="here", **values)


def delivered(watch: SensorWatch, day: date, counts: Mapping[str, float]) -> Run:
    """Standardize has counted that day: sensor to value."""
    start, end = clock.day_start(day, ZONE), clock.day_start(day + clock.DAY, ZONE)
    told = {
        sensor: {"value": value, "rows": 96, "first": start.isoformat(), "last": (end - timedelta(minutes=15)).isoformat(), "unit": "Entries"}
        for sensor, value in counts.items()
    }
    return ran(block_of(watch, start, end), observations=told)


def board(watch: SensorWatch, day: date = SUNDAY) -> dict[str, str]:
    """Sensor to health on a day, as the database has it."""
    return dict(Observation.objects.filter(watch=watch, day=day).order_by("sensor").values_list("sensor", "health"))


def one(watch: SensorWatch, sensor: str, day: date = SUNDAY) -> Observation:
    return Observation.objects.get(watch=watch, sensor=sensor, day=day)
