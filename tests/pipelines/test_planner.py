"""What is owed and when, what an order moves, and whose bell is rung: no more than needed, and never nothing."""

import os
from datetime import UTC, date, datetime, time, timedelta
from time import time as time_now

import psycopg2
import pytest
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from catalog.audit import Actor
from catalog.models import AuditEntry
from pipelines import blocks, clock, planner, tasks
from pipelines.models import Pipeline, Provider, ScheduleBlock, State, Trigger
from pipelines.planner import Order
from tests import world
from tests.pipelines.scene import together

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CHICAGO = "America/Chicago"
ANN, BOB = Actor("ann"), Actor("bob")


def pipeline(slug: str = "one", **fields) -> Pipeline:
    """A pipeline of a provider of its own, owed since two months."""
    values = {"portal": None, "stages": ["extract", "load"], **fields}
    return world.pipeline(slug, slug.title(), world.provider(f"p-{slug}", f"Source {slug}"), world.dataset(slug, slug), NOW, **values)


def made(one: Pipeline) -> list[ScheduleBlock]:
    return list(ScheduleBlock.objects.filter(pipeline=one).order_by("starts_at"))


# what is owed


@pytest.mark.parametrize("zone", [CHICAGO, "America/Los_Angeles", "Australia/Lord_Howe"])
@pytest.mark.parametrize("year", [2020, 2026])
def test_a_year_of_hours_is_owed_each_once(zone, year):
    one = Pipeline(cadence="hourly", time_zone=zone, window_column="at", starts_on=date(2019, 1, 1))
    owed = list(planner.owed_windows(one, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)))
    assert len(owed) == len({start for start, _ in owed}) == (8784 if year == 2020 else 8760)


def test_a_daily_job_keeps_its_local_time_through_both_clock_changes():
    one = Pipeline(cadence="daily", time_zone=CHICAGO, window_column="at", due_time=time(2, 30), starts_on=date(2026, 1, 1))
    owed = list(planner.owed_windows(one, datetime(2026, 1, 1, 6, tzinfo=UTC), datetime(2027, 1, 1, 6, tzinfo=UTC)))
    due = [planner.due_at(one, *window).astimezone(clock.zone(CHICAGO)) for window in owed]
    assert len({moment.date() for moment in due}) == len(due) == 365
    assert {moment.date() for moment in due if (moment.hour, moment.minute) != (2, 30)} == {date(2026, 3, 8)}
    assert [moment.hour for moment in due if moment.date() == date(2026, 3, 8)] == [3]


def test_a_job_in_the_hour_that_comes_twice_is_due_once():
    one = Pipeline(cadence="daily", time_zone=CHICAGO, window_column="at", due_time=time(1, 30), starts_on=date(2026, 10, 1))
    owed = planner.owed_windows(one, datetime(2026, 10, 30, 5, tzinfo=UTC), datetime(2026, 11, 4, 6, tzinfo=UTC))
    due = [planner.due_at(one, *window) for window in owed]
    that_day = [moment for moment in due if moment.astimezone(clock.zone(CHICAGO)).date() == date(2026, 11, 1)]
    assert that_day == [datetime(2026, 11, 1, 6, 30, tzinfo=UTC)]


def test_a_month_from_the_31st_is_a_month():
    one = Pipeline(cadence="monthly", time_zone=CHICAGO, window_column="at", due_time=time(3), starts_on=date(2026, 1, 31))
    owed = list(planner.owed_windows(one, datetime(2026, 1, 31, 6, tzinfo=UTC), datetime(2026, 6, 1, 5, tzinfo=UTC)))
    due = [planner.due_at(one, *window).astimezone(clock.zone(CHICAGO)) for window in owed]
    assert [(moment.month, moment.day, moment.hour) for moment in due] == [(2, 1, 3), (3, 1, 3), (4, 1, 3), (5, 1, 3), (6, 1, 3)]


@given(
    cadence=st.sampled_from(["hourly", "daily", "weekly", "monthly"]),
    zone=st.sampled_from([CHICAGO, "UTC", "Asia/Beirut", "America/Santiago"]),
    due_time=st.none() | st.times(),
    settle=st.integers(0, 40 * 24 * 60),
    snapshot=st.booleans(),
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_a_window_is_never_due_before_there_is_something_to_read(cadence, zone, due_time, settle, snapshot):
    one = Pipeline(
        cadence=cadence, time_zone=zone, due_time=due_time, settle_minutes=settle, window_column="" if snapshot else "at", starts_on=date(2025, 1, 1)
    )
    for start, end in planner.owed_windows(one, NOW - 70 * DAY, NOW):
        assert planner.due_at(one, start, end) >= (start if snapshot else end) + timedelta(minutes=settle)


def test_a_cron_expression_says_when_a_snapshot_is_due():
    one = Pipeline(cadence="cron", cron="7 7 1 * *", time_zone="America/Toronto", starts_on=date(2020, 1, 1))
    due = planner.next_due(one, NOW)
    assert str(due.astimezone(clock.zone("America/Toronto")))[:16] == "2026-12-01 07:07"
    leap = Pipeline(cadence="cron", cron="0 0 29 2 *", time_zone="UTC", starts_on=date(2020, 1, 1))
    assert planner.next_due(leap, NOW).date() == date(2028, 2, 29)


# the tick


@pytest.mark.django_db
def test_a_cron_pipeline_gets_its_newest_block_once():
    one = pipeline(window_column="", cadence="cron", cron="5 4-14 * * *")
    planner.tick(NOW)
    [block] = made(one)
    assert f"{block.due_at.astimezone(clock.zone(CHICAGO)):%H:%M}" == "06:05"
    assert planner.tick(NOW)["made"] == 0
    assert planner.tick(NOW + HOUR)["made"] == 1


@pytest.mark.django_db
def test_what_is_to_run_once_runs_once():
    one = pipeline(window_column="", cadence="once", starts_on=NOW.date())
    assert [planner.tick(NOW + days * DAY)["made"] for days in range(3)] == [1, 0, 0]
    assert planner.next_due(one, NOW + DAY) is None


@pytest.mark.django_db
def test_the_tick_makes_what_is_owed_and_no_more():
    hourly = pipeline("hourly", cadence="hourly", starts_on=date(2026, 11, 20))
    assert planner.tick(NOW)["made"] == len(made(hourly)) > 0
    first, last = made(hourly)[0], made(hourly)[-1]
    assert first.starts_at == clock.day_start(date(2026, 11, 20), CHICAGO)
    assert last.ends_at == NOW.replace(minute=0)
    assert planner.tick(NOW)["made"] == 0


@pytest.mark.django_db
def test_a_snapshot_owes_only_its_newest_window():
    one = pipeline(window_column="", due_time=time(5))
    planner.tick(NOW)
    [block] = made(one)
    assert block.starts_at <= NOW < block.ends_at


@pytest.mark.django_db
def test_an_outage_of_two_days_is_caught_up_oldest_first_and_without_a_stampede(settings):
    settings.WORKERS = 2
    one = pipeline(cadence="hourly", starts_on=date(2026, 11, 18))
    planner.tick(NOW - 2 * DAY)
    before = len(made(one))
    ScheduleBlock.objects.update(state=State.DONE, finished_at=NOW)
    OrmQ.objects.all().delete()
    told = planner.tick(NOW)
    assert told["made"] == len(made(one)) - before == 48
    assert told["rung"] == OrmQ.objects.count() == 8  # four a worker
    rung = ScheduleBlock.objects.exclude(rung_at=None).exclude(state=State.DONE).values_list("starts_at", flat=True)
    waiting = [block.starts_at for block in made(one) if block.state == State.WAITING]
    assert sorted(rung) == waiting[:8]
    assert planner.tick(NOW)["rung"] == 0


@pytest.mark.django_db
def test_a_month_without_a_tick_is_made_in_portions():
    one = pipeline(cadence="hourly")
    assert planner.tick(NOW)["made"] == planner.MOST_NEW_BLOCKS
    while planner.tick(NOW)["made"]:
        pass
    starts = [block.starts_at for block in made(one)]
    assert starts == [starts[0] + n * HOUR for n in range(len(starts))]
    assert starts[-1] + HOUR == NOW.replace(minute=0)


@pytest.mark.django_db
def test_a_window_that_settles_longer_than_the_horizon_is_planned_when_it_is_due():
    one = pipeline(settle_minutes=40 * 24 * 60, starts_on=date(2026, 10, 1))
    planner.tick(NOW)
    assert made(one)[-1].due_at <= NOW < made(one)[-1].due_at + DAY


@pytest.mark.django_db
def test_one_pipeline_with_an_impossible_schedule_does_not_stop_the_others():
    broken, whole = pipeline("broken"), pipeline("whole", starts_on=date(2026, 11, 18))
    Pipeline.objects.filter(pk=broken.pk).update(time_zone="Nowhere/Never", title="A comes first")
    told = planner.tick(NOW)
    assert told["broken"] == 1
    assert made(whole)


@pytest.mark.django_db
def test_a_paused_pipeline_and_one_of_a_closed_provider_owe_nothing():
    paused, closed, hand = pipeline("paused", is_paused=True), pipeline("closed"), pipeline("hand", cadence="manual")
    Provider.objects.filter(pk=closed.provider_id).update(is_active=False)
    planner.tick(NOW)
    assert made(paused) == made(closed) == made(hand) == []


@pytest.mark.django_db(transaction=True)
def test_of_two_hosts_that_tick_at_once_one_does_it(settings):
    one = pipeline(cadence="hourly", starts_on=date(2026, 11, 20))
    other_host = psycopg2.connect(settings.WAREHOUSES["default"])
    try:
        with other_host.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(%s)", [planner.TICK_LOCK])
        assert planner.tick(NOW) == {"made": 0, "reaped": 0, "rung": 0, "broken": 0}
        assert made(one) == []
        # given back by word: after a close the server takes a moment to notice
        with other_host.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(%s)", [planner.TICK_LOCK])
    finally:
        other_host.close()
    assert planner.tick(NOW)["made"]
    # and it lets go of it again
    assert planner.tick(NOW)["rung"] == 0


@pytest.mark.django_db(transaction=True)
def test_ticks_at_once_from_many_hosts_make_each_block_once_and_ring_it_once():
    one = pipeline(cadence="hourly", starts_on=date(2026, 11, 20))
    told = together(lambda: planner.tick(NOW), times=6)
    assert sum(answer["made"] for answer in told) == len(made(one))
    assert sum(answer["rung"] for answer in told) == OrmQ.objects.count() == 8


@pytest.mark.django_db
def test_a_lost_message_is_rung_again_and_not_before_its_time():
    one = pipeline(starts_on=date(2026, 11, 19))
    planner.tick(NOW)
    OrmQ.objects.all().delete()  # as a broker that lost them
    assert planner.ring_due() == 0
    ScheduleBlock.objects.update(rung_at=datetime.now(UTC) - timedelta(seconds=planner.RING_AGAIN_SECONDS + 1))
    assert planner.ring_due() == len(made(one))


@pytest.mark.django_db
def test_the_most_urgent_pipeline_is_rung_first(settings):
    settings.WORKERS = 1
    pipeline("slow", cadence="hourly", starts_on=date(2026, 11, 19))
    urgent = pipeline("urgent", priority=5, starts_on=date(2026, 11, 19))
    planner.tick(NOW)
    assert set(ScheduleBlock.objects.exclude(rung_at=None).values_list("pk", flat=True)) >= {block.pk for block in made(urgent)}


@pytest.mark.django_db
def test_a_source_that_asked_for_patience_is_not_rung_for():
    one = pipeline(starts_on=date(2026, 11, 19))
    Provider.objects.filter(pk=one.provider_id).update(blocked_until=datetime.now(UTC) + HOUR)
    assert planner.tick(NOW)["rung"] == 0
    Provider.objects.filter(pk=one.provider_id).update(blocked_until=datetime.now(UTC) - HOUR)
    assert planner.ring_due() > 0


@pytest.mark.django_db
def test_a_warehouse_that_is_away_does_not_stop_the_bell(settings):
    one = pipeline(starts_on=date(2026, 11, 19), cadence="hourly")
    planner.tick(NOW)
    OrmQ.objects.all().delete()
    first, *others = made(one)
    run = blocks.claim(first.pk, holder="gone")
    ScheduleBlock.objects.filter(pk=run.block_id).update(lease_until=datetime.now(UTC) - HOUR)
    ScheduleBlock.objects.filter(pk__in=[block.pk for block in others]).update(rung_at=None)
    settings.WAREHOUSES = {"default": "postgres://nobody@127.0.0.1:1/nothing"}
    told = planner.sweep()
    assert told["reaped"] == 1
    assert told["rung"] > 0


@pytest.mark.django_db
def test_a_message_for_a_block_that_is_gone_is_answered_quietly():
    assert tasks.work(999_999) == "there is no block 999999 any more"


# orders


@pytest.mark.django_db
def test_a_preview_changes_nothing_and_shows_what_placing_does():
    one = pipeline(starts_on=date(2026, 11, 18))
    order = Order([one], starts_at=clock.day_start(date(2026, 11, 18), CHICAGO), ends_at=clock.day_start(date(2026, 11, 21), CHICAGO))
    lines = planner.preview(order, NOW)
    assert [line.will for line in lines] == [("extract", "load")] * 3
    assert made(one) == [] and not AuditEntry.objects.exists()
    placed = planner.place(order, actor=ANN, bell=False)
    assert len(placed.moved) == 3
    assert [(block.starts_at, block.asked_by) for block in made(one)] == [(line.starts_at, "ann") for line in lines]
    assert AuditEntry.objects.filter(actor="ann", verb="run").count() == 3


@pytest.mark.django_db
def test_missing_means_owed_and_never_ran():
    one = pipeline(starts_on=date(2026, 11, 18))
    planner.tick(NOW)
    first, second, third = made(one)
    run = blocks.claim(first.pk, holder="w")
    blocks.advance(run, blocks.Outcome(blocks.Counts(), is_final=True))
    blocks.hold(second.pk, actor=ANN)  # was touched, never ran
    bounds = {"starts_at": first.starts_at, "ends_at": third.ends_at}
    assert [line.block.pk for line in planner.preview(Order([one], which="missing", **bounds), NOW)] == [second.pk, third.pk]
    assert [line.block.pk for line in planner.preview(Order([one], which="incomplete", **bounds), NOW)] == [second.pk, third.pk]
    assert len(planner.preview(Order([one], which="all", **bounds), NOW)) == 3
    assert planner.preview(Order([one], which="failed", **bounds), NOW) == []


@pytest.mark.django_db(transaction=True)
def test_two_people_who_ask_for_the_same_missing_windows_get_each_once():
    one = pipeline(starts_on=date(2026, 11, 12))
    order = Order([one], starts_at=clock.day_start(date(2026, 11, 12), CHICAGO), ends_at=clock.day_start(date(2026, 11, 20), CHICAGO))
    people = iter([ANN, BOB, ANN, BOB])
    placed = together(lambda: planner.place(order, actor=next(people), bell=False), times=4)
    assert len(made(one)) == 8
    assert sorted(block_id for answer in placed for block_id in answer.moved) == sorted(block.pk for block in made(one))
    assert sum(len(answer.refused) for answer in placed) == 3 * 8
    assert AuditEntry.objects.filter(kind="block").count() == 4 * 8


@pytest.mark.django_db
def test_who_saw_no_block_does_not_run_again_one_that_ran_meanwhile():
    one = pipeline()
    window = clock.window_at("daily", CHICAGO, NOW - DAY)
    wish = {"actor": ANN, "stages": ["extract", "load"], "force": True}
    moved = blocks.open_window(one, *window, **wish)
    for _ in range(2):
        blocks.advance(blocks.claim(moved.block_id, holder="w"), blocks.Outcome(blocks.Counts()))
    late = blocks.open_window(one, *window, **wish)
    assert not late.moved
    assert "since you looked" in late.text


@pytest.mark.django_db
def test_a_running_block_is_left_alone_and_named():
    one = pipeline()
    planner.tick(NOW)
    run = blocks.claim(made(one)[0].pk, holder="w")
    placed = planner.place(Order([one], block_ids=[run.block_id], force=True, which="all"), actor=ANN, bell=False)
    assert placed.moved == []
    assert "running since" in placed.refused[0].text


@pytest.mark.django_db
def test_a_press_that_the_preview_refuses_leaves_its_audit_row_too():
    one = pipeline()
    planner.tick(NOW)
    run = blocks.claim(made(one)[0].pk, holder="w")
    planner.place(Order([one], block_ids=[run.block_id], force=True, which="all"), actor=ANN, reason="again", bell=False)
    row = AuditEntry.objects.get(target=str(run.block_id))
    assert (row.actor, row.verb, row.reason) == ("ann", "force", "again")
    assert row.result.startswith("refused: running since")


@pytest.mark.django_db
def test_stages_that_the_pipeline_does_not_have_are_refused():
    one = pipeline(stages=["extract", "load"])
    planner.tick(NOW)
    placed = planner.place(Order([one], block_ids=[made(one)[0].pk], stages=["publish"]), actor=ANN, bell=False)
    assert placed.text == "moved 0, refused 1"


@pytest.mark.django_db
def test_a_persons_wish_goes_before_a_pause():
    one = pipeline(starts_on=date(2026, 11, 19))
    planner.tick(NOW)
    OrmQ.objects.all().delete()
    ScheduleBlock.objects.update(rung_at=None)
    planner.pause(one, actor=ANN)
    assert planner.ring_due() == 0
    planner.place(Order([one], block_ids=[made(one)[0].pk], force=True), actor=ANN, trigger=Trigger.BUTTON)
    assert OrmQ.objects.count() == 1


# what an order leaves alone


def days_ago(one: Pipeline, *numbers: int) -> tuple[datetime, datetime]:
    """From the start of one local day to the start of another, so many days back from today's."""
    today = clock.window_at("daily", one.time_zone, timezone.now())[0]
    return tuple(today - number * DAY for number in numbers)


@pytest.mark.django_db
def test_a_block_held_by_hand_is_left_alone_by_an_order_that_does_not_name_it():
    one = pipeline(window_column="day", cadence="daily", time_zone="UTC")
    held = planner.place(Order([one], *days_ago(one, 2, 1)), actor=ANN, bell=False).moved
    blocks.hold(held[0], actor=BOB, reason="wait for the vendor")

    placed = planner.place(Order([one], *days_ago(one, 2, 1)), actor=ANN, bell=False)

    assert placed.moved == []
    assert placed.refused[0].text.endswith("wait for the vendor; release it first")
    assert planner.place(Order([one], block_ids=held), actor=ANN, bell=False).moved == held


@pytest.mark.django_db
def test_a_window_that_is_not_over_is_not_run():
    one = pipeline(window_column="day", cadence="daily", time_zone="UTC")
    lines = planner.preview(Order([one], *days_ago(one, 1, -1), which="all"))
    assert [line.skip for line in lines] == ["", "it is not over yet"]


@pytest.mark.django_db
def test_the_past_of_a_snapshot_is_not_read_again():
    one = pipeline(window_column="", cadence="daily", time_zone="UTC")
    lines = planner.preview(Order([one], *days_ago(one, 2, -1), which="all"))
    past = "the source only gives its present rows, which belong to the present window"
    assert [line.skip for line in lines] == [past, past, ""]


@pytest.mark.django_db
def test_what_a_killed_look_left_behind_is_swept_after_a_day_and_not_before(settings, tmp_path):
    settings.WORK_DIR = str(tmp_path)
    old, young = tmp_path / "scratch-old", tmp_path / "scratch-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time_now() - 2 * 86_400,) * 2)
    planner.clear_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == ["scratch-young"]
