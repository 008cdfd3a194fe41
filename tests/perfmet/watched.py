"""Watched pipelines for tests and screenshots of the pages: sensors with every health, days with gaps, an inventory, and strange data."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, time, timedelta

from catalog.models import InventoryEdition
from perfmet.models import Health, Observation, SensorWatch
from pipelines import clock
from pipelines.models import Pipeline, Run, RunState, ScheduleBlock, Stage, State
from tests import world

#: The newest day of the sensors at world.SATURDAY.
FRIDAY = date(2026, 11, 20)
STREETS = ("Airport Rd", "Levee Rd", "Riverside Dr", "Bridge St", "Mill St", "Harbor Blvd", "College Ave", "South Loop", "Depot St", "Route 12")
CROSSES = ("Manor Dr", "Chapel St", "Weir Rd", "5th Ave", "Canal Rd", "Lock Ln", "24th St", "Quarry Rd", "Foundry Rd", "Oak St", "Signal Rd")
STAGES = [Stage.EXTRACT, Stage.STANDARDIZE, Stage.ENRICH, Stage.LOAD, Stage.PUBLISH]
#: The sensors whose newest day is odd, by their place in the list.
ODD = {0: Health.SILENT, 1: Health.ZERO, 2: Health.PARTIAL, 3: Health.HIGH, 4: Health.LOW, 5: Health.NEW}


def pipeline(slug: str = "bt-unmatched", title: str = "Bluetooth, unmatched", source: str = "Bluetooth", **more) -> Pipeline:
    """A daily pipeline of sensors, due at 00:30, with its provider and dataset."""
    provider = world.provider(f"{slug}-files", f"{title}, files")
    feeds = world.dataset(slug, title)
    more = {"inventory": "bt", "due_time": time(0, 30), "stages": STAGES, **more}
    return world.pipeline(slug, title, provider, feeds, world.SATURDAY, data_source=source, **more)


def watch(one: Pipeline, **more) -> SensorWatch:
    return SensorWatch.objects.create(
        pipeline=one, **{"label": "Unmatched Entries", "sensor_column": "reader_identifier", "unit_field": "device_name", **more}
    )


def moment(day: date, hours: float) -> datetime:
    return clock.day_start(day, world.CHICAGO) + timedelta(hours=hours)


def name_of(place: int) -> str:
    street, cross = STREETS[place % len(STREETS)], CROSSES[place // len(STREETS) % len(CROSSES)]
    return f"{street}_{cross}".lower().replace(" ", "_") + (f"_{place // 110}" if place >= 110 else "")


def seen(one: SensorWatch, sensor: str, day: date = FRIDAY, health: str = Health.WELL, **more) -> Observation:
    """An unsaved observation that fits its health."""
    usual = {"value": 4_100, "rows": 4_100, "expected": 4_000, "first_at": moment(day, 0.02), "last_at": moment(day, 23.98)}
    odd = {
        Health.SILENT: {"value": 0, "rows": 0, "first_at": None, "last_at": None, "reason": "No reading since 19 Nov (1 day)"},
        Health.ZERO: {"value": 0, "rows": 96, "reason": "96 rows, and nothing but zeros; 4,000 expected"},
        Health.LOW: {"value": 900, "rows": 900, "reason": "900 against 4,000 expected: 22% of the usual"},
        Health.HIGH: {"value": 12_300, "rows": 12_300, "reason": "12,300 against 4,000 expected: 3.1 times the usual"},
        Health.PARTIAL: {"value": 1_900, "rows": 1_900, "last_at": moment(day, 11.3), "reason": "Only 11.3 hours, from 00:01 to 11:18"},
        Health.NEW: {"expected": None, "reason": "Its first day; what is usual is known after 3"},
        Health.STALE: {"value": 0, "rows": 0, "first_at": None, "last_at": None, "reason": "The source has given nothing for 20 Nov"},
    }
    return Observation(watch=one, sensor=sensor, day=day, health=health, **{**usual, **odd.get(health, {}), **more})


def fill(one: SensorWatch, sensors: int, days: int, last: date = FRIDAY, gap: date | None = None) -> None:
    """Sensors with some weeks of days; those of ODD are odd on the last ones. `gap` is a day of which nothing is known."""
    dice = random.Random(5)
    rows = []
    for place in range(sensors):
        usual = dice.randint(1_500, 11_000)
        for back in range(days):
            day = last - timedelta(days=back)
            if day == gap:
                continue
            value = round(usual * dice.uniform(0.88, 1.12))
            health = ODD.get(place % 150 if place >= 150 else place, Health.WELL) if back <= place % 4 else Health.WELL
            if health == Health.NEW and back > 2:
                break
            row = seen(one, name_of(place), day, health)
            row.expected = None if health == Health.NEW else usual * dice.uniform(0.97, 1.03)
            if health in (Health.WELL, Health.NEW):
                row.value = row.rows = value
            elif row.value:
                row.value = row.rows = round(row.value * usual / 4_000)
            rows.append(row)
    Observation.objects.bulk_create(rows, batch_size=5_000)


def edition(code: str = "bt", sensors: int = 12, missing: int = 0) -> InventoryEdition:
    """An inventory of these sensors, spread over the city; the first `missing` of them have no place."""
    dice = random.Random(8)
    units = [
        {
            "device_name": name_of(place),
            "primary_st": STREETS[place % len(STREETS)],
            "cross_st": CROSSES[place // len(STREETS) % len(CROSSES)],
            "lat": None if place < missing else round(30.27 + dice.gauss(0, 0.05), 5),
            "lon": None if place < missing else round(-97.74 + dice.gauss(0, 0.05), 5),
        }
        for place in range(sensors)
    ]
    return InventoryEdition.objects.create(code=code, dated_at=datetime(2026, 11, 21, 6, tzinfo=UTC), units=units, sha256=f"{code}{sensors}")


def strange(one: SensorWatch, day: date = FRIDAY) -> None:
    """What broken sources and older versions leave behind."""
    Observation.objects.bulk_create(
        [
            seen(one, "", day, Health.HIGH),
            seen(one, "a/b//c", day),
            seen(one, "<script>alert(1)</script>", day, Health.LOW, reason="<b>bold</b> words"),
            seen(one, "line\nbreak", day, Health.ZERO),
            seen(one, "n" * 200, day, Health.SILENT, unit="u" * 200, reason="r" * 300),
            seen(one, "not a number", day, value=math.nan, expected=math.nan),
            seen(one, "endless", day, value=math.inf, expected=3),
            seen(one, "below zero", day, value=-7, expected=12),
            seen(one, "much", day, value=9.9e17, expected=1e-9),
            seen(one, "from another day", day, first_at=moment(day, 80), last_at=moment(day, 90)),
            seen(one, "backwards", day, first_at=moment(day, 20), last_at=moment(day, 4)),
            seen(one, "of a later version", day, "purple"),
            seen(one, "половина дня 半日", day, Health.PARTIAL),
        ]
    )


def worked(one: Pipeline, days: int, last: date = FRIDAY, failed: date | None = None, none: date | None = None, rows: int = 410_000) -> None:
    """Blocks and runs of a daily pipeline. On `failed` it stopped at its second stage, on `none` nobody ran it."""
    blocks, runs = [], []
    for back in range(days):
        day = last - timedelta(days=back)
        window = moment(day, 0), clock.day_start(day + timedelta(days=1), world.CHICAGO)
        if day == none:
            continue
        if day == failed:
            words = {"message": "The disk of the lake is full.", "error_code": "lake-full", "next_step": "Make room, then retry this day."}
            blocks.append(world.block(one, window, State.FAILED, stage=one.stages[1], **words))
            first = world.failed_run(blocks[-1], "", "", stage=one.stages[0], fence=1)
            first.state = RunState.DONE
            runs.append(first)
            runs.append(world.failed_run(blocks[-1], words["message"], words["error_code"], one.stages[1], fence=2, next_step=words["next_step"]))
            continue
        blocks.append(world.block(one, window, rows=rows + back * 100))
        runs += world.runs_of(blocks[-1])
    ScheduleBlock.objects.bulk_create(blocks)
    Run.objects.bulk_create(runs)
