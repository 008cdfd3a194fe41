"""What is expected: how much of a sensor, by both rules, and of whom at all."""

from datetime import date, timedelta

import pytest

from perfmet import expected
from perfmet.expected import Heard
from perfmet.models import Health, SensorWatch

PREVIOUS, SIX = SensorWatch.Rule.PREVIOUS, SensorWatch.Rule.SIX_POINTS
FIRST = date(2026, 11, 1)


def past(*values: float | None, health: str = Health.WELL, hours: float | None = 23.5) -> list[Heard]:
    """One value a day from FIRST on; None for a day of silence."""
    return [Heard(FIRST + timedelta(days=place), value, hours, health) for place, value in enumerate(values) if value is not None]


def after(heard: list[Heard], days: int = 1) -> date:
    return heard[-1].day + timedelta(days=days)


def test_the_six_points_are_those_of_the_original_the_day_itself_among_them():
    before = past(10, 20, 30, 40, 50, 60, 70)
    assert expected.usual(SIX, 7, after(before), 80, before).value == 55.0


def test_the_days_before_are_a_week_without_the_day_itself():
    before = past(10, 20, 30, 40, 50, 60, 70)
    assert expected.usual(PREVIOUS, 7, after(before), 80, before).value == 40.0
    assert expected.usual(PREVIOUS, 3, after(before), 80, before).value == 60.0


@pytest.mark.parametrize(("rule", "value"), [(PREVIOUS, None), (SIX, 80)])
def test_of_a_new_sensor_nothing_is_known_but_its_own_value(rule, value):
    assert expected.usual(rule, 7, FIRST, 80, []).value == value


def test_of_a_silent_day_the_six_points_are_the_five_before():
    before = past(10, 20, 30, 40, 50, 60, 70)
    assert expected.usual(SIX, 7, after(before), None, before).value == 50.0


def test_days_of_silence_are_no_zeros():
    before = past(100, None, None, 200, None)
    assert expected.usual(PREVIOUS, 7, after(before, 2), 0, before).value == 150.0


def test_what_is_older_than_four_windows_counts_no_more():
    before = past(100, 200, 300)
    assert expected.usual(PREVIOUS, 7, after(before, 27), 0, before).value == 250.0
    assert expected.usual(PREVIOUS, 7, after(before, 29), 0, before) == expected.Usual(None, None, 0)


@pytest.mark.parametrize("health", [Health.ZERO, Health.HIGH, Health.LOW, Health.PARTIAL])
def test_a_day_on_which_the_sensor_was_broken_does_not_change_what_is_usual(health):
    before = past(100, 100, 100)
    broken = [Heard(after(before), 300, 3, health)]
    assert expected.usual(PREVIOUS, 7, after(broken), 100, before + broken) == expected.Usual(100.0, 23.5, 3)
    assert expected.usual(SIX, 7, after(broken), 100, before + broken).value == 140.0  # the original leaves nothing out


def test_hours_that_nobody_knows_are_left_out():
    before = past(1, 2, hours=20) + past(None, None, 3, hours=None)
    assert expected.usual(PREVIOUS, 7, after(before), 1, before) == expected.Usual(2.0, 20, 3)


def test_a_sensor_is_waited_for_four_windows_and_in_the_inventory_for_ever():
    heard = {"a": FIRST, "b": FIRST + timedelta(days=20)}
    assert expected.roster(FIRST + timedelta(days=28), 7, heard, []) == {"a", "b"}
    assert expected.roster(FIRST + timedelta(days=29), 7, heard, []) == {"b"}
    assert expected.roster(FIRST + timedelta(days=900), 7, heard, {"a": "", "c": ""}) == {"a", "c"}
