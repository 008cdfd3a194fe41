"""What runs brought is observed by whoever ran it, else by the upkeep job; late days become stale; a failure is seen, and fails no load."""

from datetime import datetime, timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from catalog.audit import Actor
from opendata_ops import selectors as front
from perfmet import observe, tasks
from perfmet.models import Health, Observation, SensorWatch
from perfmet.observe import Delivery
from pipelines import clock, planner, runner
from pipelines.errors import SetupError, TransientError
from pipelines.models import ScheduleBlock, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from tests.perfmet.readers import SUNDAY, ZONE, block_of, board, days_ago, delivered, one, ran, reading, watched
from tests.pipelines.scene import stage_scene, together  # noqa: F401  a fixture
from tests.web import asks

pytestmark = pytest.mark.django_db

#: The day after SUNDAY, at ten in the morning.
MONDAY = datetime.combine(days_ago(-1), datetime.min.time(), tzinfo=clock.zone(ZONE)) + timedelta(hours=10)


@pytest.fixture(autouse=True)
def monday(request, monkeypatch) -> datetime:
    """Now, whatever the clock says; but for the tests in which real stages run."""
    if "stage_scene" not in request.fixturenames:
        monkeypatch.setattr(timezone, "now", lambda: MONDAY)
    return MONDAY


def broken(*args, **kwargs):
    raise TransientError("The warehouse does not answer.", code="warehouse-down", next_step="Look whether it runs.")


def job_run() -> UpkeepRun:
    """Have the job done, as a button has it."""
    run = jobs.start(tasks.the_job(), actor=Actor("ann")).run
    return jobs.carry_out(run.pk)


def test_what_was_worked_off_is_observed_by_the_process_that_did_it():
    watch = watched()
    run = delivered(watch, SUNDAY, {"a": 5})
    other = delivered(watched(is_active=False), SUNDAY, {"a": 5})
    runner.after_work.send_robust(sender=None, block_ids=[run.block_id, other.block_id])
    assert one(watch, "a").run_id == run.pk
    assert Observation.objects.count() == 1 and not UpkeepRun.objects.exists()


def test_where_nothing_is_watched_a_run_costs_one_question():
    with asks(1):
        tasks.hear([1, 2, 3])


def test_what_is_observed_is_not_observed_again():
    watch = watched()
    run = delivered(watch, SUNDAY, {"a": 5})
    assert tasks.unseen(now=timezone.now()) == [(watch, [SUNDAY])]
    tasks.hear([run.block_id])
    assert tasks.unseen(now=timezone.now()) == tasks.unseen(block_ids=[run.block_id], now=timezone.now()) == []
    delivered(watch, SUNDAY, {"a": 6})
    assert tasks.unseen(now=timezone.now()) == [(watch, [SUNDAY])]


def test_of_two_hours_of_a_day_the_one_that_ends_last_is_seen_whatever_its_number():
    watch = watched(pipeline={"cadence": "hourly"})
    midnight = clock.day_start(SUNDAY, ZONE)
    first, second = (block_of(watch, midnight + timedelta(hours=hour), midnight + timedelta(hours=hour + 1)) for hour in (0, 1))
    slow = ran(first, observations={"a": {"value": 1, "rows": 1}}, state="running", finished_at=None)
    ran(second, observations={"a": {"value": 10, "rows": 1}})
    tasks.hear([second.pk])
    type(slow).objects.filter(pk=slow.pk).update(state="done", finished_at=Now())
    tasks.hear([first.pk])
    assert one(watch, "a").value == 11


def test_a_day_of_hours_is_judged_when_its_last_hour_has_come_or_comes_no_more(monkeypatch):
    watch = watched(pipeline={"cadence": "hourly"})
    midnight = clock.day_start(days_ago(-1), ZONE)
    blocks = [block_of(watch, midnight - (hours + 1) * clock.HOUR, midnight - hours * clock.HOUR) for hours in (5, 0)]
    monkeypatch.setattr(timezone, "now", lambda: midnight + timedelta(minutes=30))
    ran(blocks[0], observations={"a": {"value": 1, "rows": 1}})
    tasks.hear([blocks[0].pk])
    assert not board(watch)
    ran(blocks[1], observations={"a": {"value": 1, "rows": 1}})
    tasks.hear([blocks[1].pk])
    assert one(watch, "a").value == 2
    Observation.objects.all().delete()
    blocks[1].runs.all().delete()
    monkeypatch.setattr(timezone, "now", lambda: midnight + timedelta(hours=3))
    tasks.hear([blocks[0].pk])
    assert one(watch, "a").value == 1


def test_the_load_of_a_pipeline_whose_standardize_counts_asks_the_warehouse_nothing(monkeypatch):
    watch = watched()
    run = delivered(watch, SUNDAY, {"a": 5})
    ran(run.block, "load")
    monkeypatch.setattr(observe, "_of_table", broken)
    tasks.hear([run.block_id])
    assert one(watch, "a").value == 5 and tasks.unseen(now=timezone.now()) == []


def test_a_new_watch_learns_of_the_last_weeks_at_once():
    watch = watched()
    for ago in (2, 1, 0):
        delivered(watch, days_ago(ago), {"a": 100})
    assert job_run().message == "Observed 3 days of 1 pipeline."
    assert Observation.objects.filter(watch=watch, sensor="a").count() == 3
    assert not tasks.Observe().has_work(tasks.the_job())


def test_a_load_that_brought_no_sensor_at_all_is_looked_at_and_then_left():
    watch = watched()
    ran(delivered(watch, SUNDAY, {}).block, "load", finished_at=timezone.now() - timedelta(hours=1))
    assert tasks.unseen(now=timezone.now())
    job_run()
    assert tasks.unseen(now=timezone.now()) == []


def test_where_standardize_names_no_sensor_the_table_is_asked_after_the_load(monkeypatch):
    watch = watched()
    run = delivered(watch, SUNDAY, {})
    tasks.hear([run.block_id])
    assert not board(watch)
    load = ran(run.block, "load")
    monkeypatch.setattr(observe, "_of_table", lambda *args: {SUNDAY: {"a": reading(5)}})
    tasks.hear([run.block_id])
    assert (one(watch, "a").value, one(watch, "a").run_id) == (5, load.pk)


# days that do not come


def test_a_day_that_is_due_and_did_not_come_is_stale_until_it_comes(monday):
    watch = watched()
    observe.observe_days(watch, {days_ago(ago): Delivery({"a": reading(100)}, ago) for ago in (4, 3, 2, 1)})
    assert tasks.overdue(monday) == [(watch, [SUNDAY])]
    job_run()
    assert board(watch) == {"a": Health.STALE}
    assert tasks.overdue(monday) == []
    tasks.hear([delivered(watch, SUNDAY, {"a": 100}).block_id])
    assert board(watch) == {"a": Health.WELL}


def test_a_day_is_not_called_stale_before_its_hours_of_grace_are_over(monday):
    watch = watched(thresholds={"late": 11})
    observe.observe(watch, days_ago(1), {"a": reading(100)})
    assert tasks.overdue(monday) == []
    assert tasks.overdue(monday + timedelta(hours=1)) == [(watch, [SUNDAY])]


@pytest.mark.parametrize("rests", [{"is_paused": True}, {"cadence": "manual"}, {"window_column": ""}])
def test_what_nobody_owes_is_not_stale(monday, rests):
    watch = watched(pipeline={key: value for key, value in rests.items() if key != "window_column"})
    for name, value in rests.items():
        setattr(watch.pipeline, name, value)
    watch.pipeline.save()
    observe.observe(watch, days_ago(1), {"a": reading(100)})
    assert tasks.overdue(monday) == []


def test_before_the_first_reading_nothing_is_stale_and_after_four_windows_nothing_is_waited_for(monday):
    watched()
    watch = watched(window_days=2)
    observe.observe(watch, days_ago(20), {"a": reading(100)})
    assert {day for _, days in tasks.overdue(monday) for day in days} == set()


def test_the_two_questions_of_what_is_overdue_are_two(monday):
    for watch in (watched(), watched()):
        observe.observe(watch, days_ago(1), {"a": reading(100)})
    with asks(2):
        assert len(tasks.overdue(monday)) == 2


# failures


def test_a_failure_is_seen_by_an_operator_and_mended_by_the_next_good_run(monkeypatch):
    watch = watched()
    run = delivered(watch, SUNDAY, {"a": 5})
    with monkeypatch.context() as patch:
        patch.setattr(observe, "deliveries", broken)
        tasks.hear([run.block_id])
    [failed] = UpkeepRun.objects.all()
    assert failed.state == "failed" and f"{watch.pipeline.slug}: The warehouse does not answer. Look whether it runs." in failed.message
    assert front.needs_count(timezone.now()) == 1
    tasks.hear([run.block_id])
    assert board(watch) == {"a": Health.NEW}
    assert tasks.Observe().has_work(tasks.the_job())
    assert job_run().state == "done"
    assert front.needs_count(timezone.now()) == 0
    assert not tasks.Observe().has_work(tasks.the_job())


def test_one_watch_that_fails_does_not_stop_the_others_and_is_tried_each_time():
    bad, well = watched(thresholds={"lo": 1}), watched()
    for watch in (bad, well):
        # long before the job looks: what it has looked through by then must not count as done where it failed
        ran(delivered(watch, days_ago(1), {}).block, observations={"a": {"value": 5, "rows": 5}}, finished_at=MONDAY - timedelta(hours=9))
    for _ in range(2):
        run = job_run()
        assert run.state == "failed" and "there is no lo" in run.message
    assert board(well, days_ago(1)) == {"a": Health.NEW} and board(bad, days_ago(1)) == {}
    SensorWatch.objects.filter(pk=bad.pk).update(thresholds={})
    assert job_run().state == "done" and board(bad, days_ago(1)) == {"a": Health.NEW}


def test_a_fault_of_the_program_fails_no_load_and_is_seen(monkeypatch):
    watch = watched()
    run = delivered(watch, SUNDAY, {"a": 5})
    monkeypatch.setattr(observe, "deliveries", lambda *args: 1 / 0)
    runner.after_work.send_robust(sender=None, block_ids=[run.block_id])
    assert "unexpected ZeroDivisionError" in UpkeepRun.objects.get().message


# the job


def test_where_sensors_are_watched_there_is_the_job_and_only_one():
    watched()
    watched()
    job = UpkeepJob.objects.get(kind="observe")
    assert (job.title, job.cadence) == ("Observe sensors", "hourly")
    UpkeepJob.objects.update(is_active=False, title="Look at sensors")
    watched()
    assert UpkeepJob.objects.get().is_active is False


def test_the_schedule_makes_no_run_where_there_is_nothing_to_do():
    watch = watched()
    job = tasks.the_job()
    now = timezone.now()
    UpkeepJob.objects.update(next_at=now)
    assert jobs.begin_due(now + timedelta(seconds=1)) == []
    job.refresh_from_db()
    assert job.next_at > now
    delivered(watch, SUNDAY, {"a": 1})
    UpkeepJob.objects.update(next_at=now)
    assert len(jobs.begin_due(now + timedelta(seconds=1))) == 1


def test_a_job_that_cannot_say_whether_it_has_work_is_begun(monkeypatch):
    monkeypatch.setattr(tasks.Observe, "has_work", broken)
    UpkeepJob.objects.filter(pk=tasks.the_job().pk).update(next_at=timezone.now())
    assert len(jobs.begin_due(timezone.now())) == 1


def test_a_job_may_be_for_some_pipelines_alone():
    first, second = watched(), watched()
    for watch in (first, second):
        delivered(watch, SUNDAY, {"a": 1})
    tasks.the_job().pipelines.add(first.pipeline)
    job_run()
    assert board(first) and not board(second)
    tasks.the_job().pipelines.clear()
    job_run()
    assert board(second)


# through the real stages, from the table


@pytest.mark.django_db(transaction=True)
def test_any_pipeline_with_a_watch_is_observed_from_its_table_after_its_load(stage_scene):  # noqa: F811
    scene = stage_scene(rows=200, stages=["extract", "load"], portal=None, portal_resource="")
    watch = SensorWatch.objects.create(pipeline=scene.pipeline, sensor_column="name", value_column="amount", time_column="updateddate")
    block = scene.go()
    assert block.state == "done"
    # the rows are of the first day of the year, which a snapshot's own days do not reach
    assert Observation.objects.filter(watch=watch).count() == 0
    day = datetime(2026, 1, 1).date()
    observe.gather(watch, [day])
    rows = {row.sensor: row for row in Observation.objects.filter(watch=watch, day=day)}
    expected = {}
    for name, amount, updated in scene.warehouse("name, amount, updateddate"):
        if name and updated.date() == day:
            value, count, first, last = expected.get(name, (0, 0, updated, updated))
            expected[name] = (value + (amount or 0), count + 1, min(first, updated), max(last, updated))
    assert {name: (row.value, row.rows) for name, row in rows.items()} == {
        name: (float(value), count) for name, (value, count, _, _) in expected.items()
    }
    local = clock.zone(scene.pipeline.time_zone)
    assert {name: row.first_at.astimezone(local).replace(tzinfo=None) for name, row in rows.items()} == {
        name: first for name, (_, _, first, _) in expected.items()
    }
    assert {row.run_id for row in rows.values()} == {scene.last("load").pk}


@pytest.mark.django_db(transaction=True)
def test_a_table_that_cannot_be_counted_fails_no_load(stage_scene):  # noqa: F811
    scene = stage_scene(rows=20, stages=["extract", "load"], portal=None, portal_resource="")
    SensorWatch.objects.create(pipeline=scene.pipeline, sensor_column="reader", time_column="updateddate")
    assert scene.go().state == "done"
    run = UpkeepRun.objects.get()
    assert run.state == "failed" and "reader is missing" in run.message
    assert ScheduleBlock.objects.get().state == "done"


def test_a_watch_without_any_time_column_says_so():
    watch = watched(pipeline={"stages": ["extract", "load"]})
    watch.pipeline.window_column = ""
    with pytest.raises(SetupError, match="names no time column"):
        observe._of_table(watch, SUNDAY, SUNDAY)


def test_the_pulse_of_observing_is_no_worker(monday):
    watch = watched()
    delivered(watch, days_ago(1), {"a": 1})
    job_run()
    assert front.status(monday)["workers"] == {}
    assert planner.age(tasks.PULSE) is not None


@pytest.mark.django_db(transaction=True)
def test_days_that_are_observed_at_once_are_judged_with_each_other():
    watch = watched()
    observe.observe_days(watch, {days_ago(ago): Delivery({"a": reading(100), "b": reading(100)}, ago) for ago in range(9, 3, -1)})
    days = iter((3, 2, 1, 0))

    def one_day():
        ago = next(days)
        readings = {"a": reading(100)} | ({"b": reading(100)} if ago == 3 else {})
        observe.observe(SensorWatch.objects.select_related("pipeline").get(pk=watch.pk), days_ago(ago), readings, run_id=100 + ago)

    together(one_day, times=4)
    assert [one(watch, "b", days_ago(ago)).reason for ago in (2, 1, 0)] == [
        "No reading since 19 Nov (1 day)", "No reading since 19 Nov (2 days)", "No reading since 19 Nov (3 days)",
    ]  # fmt: skip
