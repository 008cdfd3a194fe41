"""Whether a sensor was well on a day, and the words for it; and that broken ones are named, and healthy ones never."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings

from perfmet.health import Known, Thresholds, judge
from perfmet.models import Health
from perfmet.reckoning import Reading, Reckoner
from pipelines.errors import SetupError

CHICAGO = ZoneInfo("America/Chicago")
SUNDAY = date(2026, 11, 22)
USUAL = Thresholds.of(settings.SENSOR_THRESHOLDS, {})
MIDNIGHT = datetime(2026, 11, 22, 6, tzinfo=UTC)


def known(value: float = 130, **more) -> Known:
    """A full day of a sensor that usually counts 137."""
    last = MIDNIGHT + timedelta(hours=more.pop("hours", 23.9))
    told = {"rows": 96, "first_at": MIDNIGHT, "last_at": last, "expected": 136.8, "history": 7, "usual_hours": 23.9, **more}
    return Known(day=SUNDAY, zone=CHICAGO, value=value, **told)


SILENT = {"value": 0, "rows": 0, "first_at": None, "last_at": None}


@pytest.mark.parametrize(
    ("day", "health", "words"),
    [
        (known(), Health.WELL, "130 against 137 expected"),
        (known(412), Health.HIGH, "412 against 137 expected: 3.0 times the usual"),
        (known(41), Health.LOW, "41 against 137 expected: 30% of the usual"),
        (known(0), Health.ZERO, "96 rows, and nothing but zeros; 137 expected"),
        (known(0, history=0, expected=None, rows=1), Health.ZERO, "1 row, and nothing but zeros"),
        (known(60, hours=9.5), Health.PARTIAL, "Only 9.5 hours, from 00:00 to 09:30; 23.9 are usual"),
        (known(60, history=2), Health.NEW, "2 days known before; what is usual is known after 3"),
        (known(60, history=0, expected=None), Health.NEW, "Its first day; what is usual is known after 3"),
        (known(**SILENT, last_heard=date(2026, 11, 19)), Health.SILENT, "No reading since 19 Nov (3 days)"),
        (known(**SILENT, last_heard=date(2026, 11, 21)), Health.SILENT, "No reading since 21 Nov (1 day)"),
        (known(**SILENT, last_heard=date(2025, 12, 31)), Health.SILENT, "No reading since 31 Dec 2025 (326 days)"),
        (known(**SILENT, is_listed=True), Health.SILENT, "No reading yet; the inventory has it"),
        (known(**SILENT, is_delivered=False), Health.STALE, "The source has given nothing for 22 Nov: this says nothing of the sensor."),
    ],
    ids=lambda one: one.reason if hasattr(one, "reason") else None,
)
def test_each_day_has_its_health_and_its_reason(day, health, words):
    assert judge(day, USUAL) == (health, words)


def test_a_little_more_or_less_is_usual():
    assert {judge(known(value), USUAL)[0] for value in (69, 100, 137, 200, 246)} == {Health.WELL}


def test_of_few_rows_chance_alone_makes_low_and_high():
    assert judge(known(1, expected=4.3), USUAL) == (Health.WELL, "1 against 4.3 expected")
    assert judge(known(15, expected=4.3), USUAL)[0] == Health.WELL
    assert judge(known(60, expected=4.3), USUAL)[0] == Health.HIGH


def test_a_sensor_that_rests_at_night_is_not_partial():
    assert judge(known(hours=12, usual_hours=12.4), USUAL)[0] == Health.WELL
    assert judge(known(hours=6, usual_hours=12.4), USUAL)[0] == Health.PARTIAL


def test_a_day_without_moments_is_not_called_partial():
    assert judge(known(first_at=None, last_at=None), USUAL)[0] == Health.WELL


def test_a_watch_lays_its_own_thresholds_over_those_of_the_city():
    own = Thresholds.of(settings.SENSOR_THRESHOLDS, {"low": 0.99, "least": 0})
    assert (own.low, own.high) == (0.99, settings.SENSOR_THRESHOLDS["high"])
    assert judge(known(130), own)[0] == Health.LOW


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"lo": 1}, "there is no lo"),
        ({"low": "much"}, "low must be a number"),
        ({"low": True}, "low must be a number"),
        ({"hours": -1}, "hours must be a number"),
        ({"hours": float("nan")}, "hours must be a number"),
        ({"low": 3}, r"low \(3\) must be less than high \(1.8\)"),
        ([1], "are none"),
    ],
    ids=str,
)
def test_thresholds_that_make_no_sense_are_refused_in_words(own, words):
    with pytest.raises(SetupError, match=words):
        Thresholds.of(settings.SENSOR_THRESHOLDS, own)


# the seeded defects of issue 5

DEFECTS = {"triple": Health.HIGH, "zero": Health.ZERO, "yesterday": Health.SILENT, "gone": Health.SILENT, "partial": Health.PARTIAL}


def a_day(dice: random.Random, usual: dict[str, float], day: date, today: date) -> dict[str, Reading]:
    """What 40 healthy sensors and five broken ones send: 30 per cent more or less by chance, and the defects."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=CHICAGO)
    found = {}
    for sensor, mean in usual.items():
        value, hours = mean * dice.uniform(0.7, 1.3), 23.5
        if day == today:
            # three times its average, whatever it would have been that day: facts/datalake.md §7.5
            value = 3 * mean if sensor == "triple" else value * {"zero": 0, "partial": 0.5}.get(sensor, 1)
            hours = 11.0 if sensor == "partial" else hours
        if (sensor == "yesterday" and day == today) or (sensor == "gone" and (today - day).days < 9):
            continue
        found[sensor] = Reading(round(value), 96, midnight + timedelta(minutes=dice.randint(0, 25)), midnight + timedelta(hours=hours))
    return found


@pytest.mark.parametrize("rule", ["previous", "six-points"])
def test_every_seeded_defect_is_named_rightly_and_no_healthy_sensor_is(rule):
    for seed in range(25):
        dice = random.Random(seed)
        usual = {f"sensor {number}": 10 ** dice.uniform(1.5, 4.5) for number in range(40)} | dict.fromkeys(DEFECTS, 400)
        reckoner = Reckoner(rule, 7, USUAL, CHICAGO)
        for ago in range(13, -1, -1):
            day = SUNDAY - timedelta(days=ago)
            judged = reckoner.day(day, a_day(dice, usual, day, SUNDAY), {})
        odd = {sensor: one.health for sensor, one in judged.items() if one.health != Health.WELL}
        assert odd == DEFECTS, seed
        assert judged["yesterday"].reason == "No reading since 21 Nov (1 day)"
        assert judged["gone"].reason == "No reading since 13 Nov (9 days)"


def test_on_no_day_is_a_healthy_sensor_called_odd():
    told = Counter()
    for seed in range(15):
        dice = random.Random(1000 + seed)
        usual = {f"sensor {number}": 10 ** dice.uniform(1.5, 4.5) for number in range(40)}
        reckoner = Reckoner("previous", 7, USUAL, CHICAGO)
        for ago in range(20, -1, -1):
            day = SUNDAY - timedelta(days=ago)
            told.update(one.health for one in reckoner.day(day, a_day(dice, usual, day, SUNDAY), {}).values())
    assert told == {Health.NEW: 15 * 40 * 3, Health.WELL: 15 * 40 * 18}
