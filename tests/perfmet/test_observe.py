"""Observing: rows for what came and for what did not, judged anew when an earlier day changes; from standardize or from the table."""

from datetime import UTC, datetime, timedelta

import pytest

from catalog.models import InventoryEdition
from perfmet import observe
from perfmet.models import Health, Observation
from pipelines import clock
from pipelines.errors import DataError, SetupError
from tests.perfmet.readers import SUNDAY, ZONE, block_of, board, days_ago, delivered, one, ran, reading, watched
from tests.web import asks

pytestmark = pytest.mark.django_db


def weeks(watch, *, last: int = 1, first: int = 10, **values: float) -> None:
    """The days from `first` to `last` days ago, the same each day."""
    given = {days_ago(ago): observe.Delivery({name: reading(value, day=days_ago(ago)) for name, value in values.items()}, 100 - ago)
             for ago in range(first, last - 1, -1)}  # fmt: skip
    observe.observe_days(watch, given)


def test_who_was_expected_and_sent_nothing_has_a_row_that_says_so():
    watch = watched()
    weeks(watch, a=100, b=100, c=100)
    seen = observe.observe(watch, SUNDAY, {"a": reading(110), "b": reading(0, rows=96)}, run_id=7)
    assert board(watch) == {"a": Health.WELL, "b": Health.ZERO, "c": Health.SILENT}
    assert (seen.days, seen.written, seen.health) == ((SUNDAY,), 3, {Health.WELL: 1, Health.ZERO: 1, Health.SILENT: 1})
    silent = one(watch, "c")
    assert (silent.value, silent.rows, silent.expected, silent.first_at, silent.run_id) == (0, 0, 100, None, 7)
    assert silent.reason == "No reading since 21 Nov (1 day)"
    assert one(watch, "a").reason == "110 against 100 expected"


def test_a_day_without_any_reading_is_the_sources_fault_and_makes_nobody_silent():
    watch = watched()
    weeks(watch, last=2, a=100, b=100)
    observe.observe(watch, days_ago(1), {})
    assert board(watch, days_ago(1)) == {"a": Health.STALE, "b": Health.STALE}
    observe.observe(watch, SUNDAY, {"a": reading(100)})
    assert one(watch, "a").expected == 100 and one(watch, "a").health == Health.WELL
    assert one(watch, "b").reason == "No reading since 20 Nov (2 days)"


def test_what_comes_late_is_seen_and_the_later_days_are_judged_anew():
    watch = watched()
    weeks(watch, first=10, last=3, a=100, b=100)
    observe.observe(watch, days_ago(2), {})
    observe.observe(watch, days_ago(1), {"a": reading(100)}, run_id=5)
    observe.observe(watch, SUNDAY, {"a": reading(100)}, run_id=6)
    assert one(watch, "b").reason == "No reading since 19 Nov (3 days)"
    observe.observe(watch, days_ago(2), {"a": reading(100), "b": reading(100)}, run_id=9)
    assert one(watch, "b").reason == "No reading since 20 Nov (2 days)"
    assert (one(watch, "b").run_id, one(watch, "b", days_ago(2)).run_id) == (6, 9)  # only judged anew: its run is still the old one


def test_what_an_earlier_day_was_changes_what_is_usual_after_it():
    watch = watched()
    weeks(watch, first=4, last=1, a=100)
    observe.observe(watch, SUNDAY, {"a": reading(100)})
    for ago in (4, 3, 2, 1):
        observe.observe(watch, days_ago(ago), {"a": reading(30, day=days_ago(ago))})
    assert (one(watch, "a").expected, one(watch, "a").health) == (30, Health.HIGH)


def test_twice_is_harmless():
    watch = watched()
    weeks(watch, a=100, b=100)
    observe.observe(watch, SUNDAY, {"a": reading(100)}, run_id=3)
    before = list(Observation.objects.order_by("pk").values())
    observe.observe(watch, SUNDAY, {"a": reading(100)}, run_id=3)
    assert [{**row, "at": 0} for row in Observation.objects.order_by("pk").values()] == [{**row, "at": 0} for row in before]


def test_a_sensor_that_a_second_reading_of_the_day_no_longer_has_goes():
    watch = watched()
    observe.observe(watch, SUNDAY, {"a": reading(1), "misspelt": reading(1)})
    observe.observe(watch, SUNDAY, {"a": reading(1)})
    assert board(watch) == {"a": Health.NEW}


def test_a_sensor_silent_for_weeks_stays_until_four_windows_have_passed():
    watch = watched(window_days=2)
    weeks(watch, first=12, last=9, a=100, gone=100)
    weeks(watch, first=8, last=0, a=100)
    assert one(watch, "gone", days_ago(1)).reason == "No reading since 13 Nov (8 days)"
    assert board(watch) == {"a": Health.WELL}


def test_what_the_inventory_lists_is_expected_from_its_first_day_on_and_after_any_silence():
    watch = watched(pipeline={"inventory": "bt"}, unit_field="device_name", window_days=2)
    units = [{"device_name": "a"}, {"device_name": "b", "primary_st": "LAMAR BLVD", "cross_st": "6TH ST"}, {"device_name": ""}, {}]
    InventoryEdition.objects.create(code="bt", dated_at=clock.day_start(days_ago(1), ZONE), units=units, sha256="1")
    InventoryEdition.objects.create(code="bt", dated_at=clock.day_start(days_ago(-1), ZONE), units=[{"device_name": "c"}], sha256="2")
    InventoryEdition.objects.create(code="wt", dated_at=clock.day_start(days_ago(-1), ZONE), units=[{"device_name": "d"}], sha256="3")
    weeks(watch, first=20, last=0, a=100)
    assert board(watch, days_ago(2)) == {"a": Health.WELL, "b": Health.SILENT}
    assert one(watch, "b", days_ago(2)).reason == "No reading yet; the inventory has it"
    assert one(watch, "b", days_ago(2)).unit == "LAMAR BLVD / 6TH ST"
    assert board(watch) == {"a": Health.WELL, "c": Health.SILENT}
    observe.observe(watch, days_ago(-5), {"a": reading(100)})
    assert set(board(watch, days_ago(-5))) == {"a", "c"}  # of the days after the newest edition it is all that is known


def test_a_month_of_many_sensors_takes_no_more_questions_than_a_day_of_one(django_assert_max_num_queries):
    watch = watched()
    with django_assert_max_num_queries(9):
        weeks(watch, first=1, last=0, a=1)
    with django_assert_max_num_queries(9):
        weeks(watch, first=30, last=0, **{f"s{number}": 100 for number in range(40)})
    assert Observation.objects.count() == 31 * 40


def test_thresholds_of_the_watch_are_obeyed_and_wrong_ones_refused(settings):
    settings.SENSOR_THRESHOLDS = {**settings.SENSOR_THRESHOLDS, "days": 1}
    watch = watched(thresholds={"low": 0.95})
    weeks(watch, a=100)
    observe.observe(watch, SUNDAY, {"a": reading(90)})
    assert board(watch) == {"a": Health.LOW}
    watch.thresholds = {"lowest": 3}
    with pytest.raises(SetupError, match="no lowest"):
        observe.observe(watch, SUNDAY, {"a": reading(90)})


# where readings come from


def test_what_standardize_counted_is_taken_as_it_is_by_the_newest_good_run():
    watch = watched()
    delivered(watch, SUNDAY, {"a": 5, "b": 9})
    last = delivered(watch, SUNDAY, {"a": 7})
    ran(last.block, observations={"a": {"value": 1, "rows": 1}}, state="failed")
    observe.gather(watch, [SUNDAY])
    row = one(watch, "a")
    assert (row.value, row.rows, row.run_id, row.health) == (7, 96, last.pk, Health.NEW)
    assert (row.first_at, row.last_at) == (clock.day_start(SUNDAY, ZONE), clock.day_start(days_ago(-1), ZONE) - timedelta(minutes=15))
    assert board(watch) == {"a": Health.NEW}


def test_the_hours_of_a_day_are_put_together():
    watch = watched(pipeline={"cadence": "hourly"})
    midnight = clock.day_start(SUNDAY, ZONE)
    for hour in (0, 5):
        start = midnight + timedelta(hours=hour)
        told = {"a": {"value": 10 + hour, "rows": 2, "first": start.isoformat(), "last": (start + timedelta(minutes=59)).isoformat()}}
        last = ran(block_of(watch, start, start + clock.HOUR), observations=told)
    observe.gather(watch, [SUNDAY])
    row = one(watch, "a")
    assert (row.value, row.rows, row.run_id) == (25, 4, last.pk)
    assert (row.first_at, row.last_at) == (midnight, midnight + timedelta(hours=5, minutes=59))


def test_the_day_on_which_the_clock_goes_back_is_one_day():
    watch = watched()
    day = datetime(2026, 11, 1, tzinfo=UTC).date()
    delivered(watch, day, {"a": 100})
    observe.gather(watch, [day])
    assert board(watch, day) == {"a": Health.NEW}
    row = one(watch, "a", day)
    assert (row.last_at - row.first_at) == timedelta(hours=24, minutes=45)


def test_a_day_of_which_nothing_ran_well_has_no_readings():
    watch = watched()
    delivered(watch, days_ago(1), {"a": 1})
    observe.gather(watch, [days_ago(1), SUNDAY])
    assert board(watch) == {"a": Health.STALE}


def test_what_a_week_has_counted_is_not_taken_for_one_day(monkeypatch):
    watch = watched(pipeline={"cadence": "weekly"})
    week = block_of(watch, clock.day_start(days_ago(6), ZONE), clock.day_start(days_ago(-1), ZONE))
    ran(week, observations={"a": {"value": 700, "rows": 7}})
    load = ran(week, "load")
    monkeypatch.setattr(observe, "_of_table", lambda *args: {SUNDAY: {"a": reading(100)}})
    observe.gather(watch, [SUNDAY])
    assert (one(watch, "a").value, one(watch, "a").run_id) == (100, load.pk)


def test_counts_that_cannot_be_read_are_a_fault_that_names_the_run():
    watch = watched()
    run = ran(delivered(watch, SUNDAY, {}).block, observations={"a": {"value": 1}})
    with pytest.raises(DataError, match=f"run {run.pk}"):
        observe.gather(watch, [SUNDAY])


def test_a_day_from_standardize_takes_few_questions():
    watch = watched()
    delivered(watch, SUNDAY, {"a": 1})
    with asks(5):
        observe.gather(watch, [SUNDAY])
