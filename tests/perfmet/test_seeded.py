"""The practice city's sick sensors are named rightly on its first morning, and no other; a raw day of the original, through the real stages."""

from collections import defaultdict
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings

from opendata_ops.sandbox.sensors import DAYS, ILLNESSES, JUNCTIONS, ZONE, Days
from perfmet.health import Thresholds
from perfmet.models import Health, Observation, SensorWatch
from perfmet.reckoning import Reading, Reckoner
from pipelines import clock, runner
from pipelines.models import UpkeepRun
from tests.perfmet.readers import one
from tests.pipelines.formats.sensing import STRAY
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, ONE, Sensors, drop, edition

CHICAGO = ZoneInfo(ZONE)
NAMED = {
    "triple": Health.HIGH, "zero": Health.ZERO, "silent": Health.SILENT, "long-silent": Health.SILENT, "partial": Health.PARTIAL,
}  # fmt: skip


def read(days: Days, day: date) -> tuple[dict[str, Reading], dict[str, Reading]]:
    """What the readers and the radar of the practice city send on a day."""
    moments, volumes = defaultdict(list), defaultdict(list)
    for at, _, name, _ in days.reads(day):
        moments[name].append(at.replace(tzinfo=CHICAGO))
    names = {junction.id: junction.name for junction in JUNCTIONS}
    for detector, _, volume, *_ in days.counts(day):
        volumes[names[detector // 10]].append(volume)
    first, last = clock.day_start(day, ZONE), clock.day_start(day + clock.DAY, ZONE) - timedelta(minutes=15)
    return (
        {name: Reading(len(found), len(found), min(found), max(found)) for name, found in moments.items()},
        {name: Reading(sum(found), len(found), first, last) for name, found in volumes.items()},
    )


@pytest.mark.parametrize("began", [date(2026, 11, 2), date(2026, 11, 22)], ids=str)
def test_the_sick_sensors_of_the_practice_city_are_named_rightly_and_no_other(began):
    days, thresholds = Days(began), Thresholds.of(settings.SENSOR_THRESHOLDS, {})
    reckoners = [Reckoner("previous", 7, thresholds, CHICAGO) for _ in range(2)]
    for ago in range(DAYS, 0, -1):
        day = began - timedelta(days=ago)
        told = [reckoner.day(day, readings, {}) for reckoner, readings in zip(reckoners, read(days, day), strict=True)]
    judged = told[0] | told[1]
    odd = {sensor: found.health for sensor, found in judged.items() if found.health != Health.WELL}
    assert odd == {sensor: NAMED[illness] for sensor, illness in ILLNESSES.items()}


# a raw day


@pytest.mark.django_db
def test_a_raw_day_is_observed_by_the_sensors_that_it_names_the_unknown_too(tmp_path, settings):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    bluetooth, radar = Sensors("bt-unmatched", tmp_path), Sensors("radar-counts", tmp_path)
    watches = [
        SensorWatch.objects.create(pipeline=sensors.pipeline, sensor_column="x", unit_field=field)
        for sensors, field in ((bluetooth, "device_name"), (radar, ""))
    ]
    for sensors in (bluetooth, radar):
        sensors.do("extract"), sensors.do("standardize")
        runner.after_work.send_robust(sender=None, block_ids=[sensors.block().pk])
    counted = {row.sensor: (row.value, row.health) for row in Observation.objects.filter(watch=watches[0], rows__gt=0)}
    assert counted == {STRAY: (1, Health.NEW), "elm_2nd": (1, Health.NEW), "oak_2nd": (2, Health.NEW)}
    seen = one(watches[0], "oak_2nd", ONE)
    assert (f"{seen.first_at:%H:%M}", f"{seen.last_at:%H:%M}", seen.rows) == ("05:00", "05:01", 2)
    counted = {row.sensor: (row.value, row.health) for row in Observation.objects.filter(watch=watches[1])}
    assert counted == {"OAKSECOND": (76, Health.NEW), "ELSEWHERE": (0, Health.ZERO)}
    assert not UpkeepRun.objects.exists()
