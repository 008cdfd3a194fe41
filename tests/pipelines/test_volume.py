"""How many rows are usual: far from it, or none although the source says that it changed, is suspicious; a person may accept it."""

from datetime import UTC, datetime, timedelta

import pytest

from catalog.audit import Actor
from catalog.models import AuditEntry
from pipelines import blocks, clock, runner
from pipelines.connectors.base import SourceState
from pipelines.models import Run, RunState, ScheduleBlock, State
from pipelines.stages import volume
from tests import world
from tests.pipelines.scene import SOURCE, city, stage_scene  # noqa: F401

ANN = Actor("ann")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUSPICIOUS, EMPTY, FINE = "suspicious", "empty", ""


def made(**fields):
    """A pipeline of one provider and one dataset; daily windows unless said otherwise."""
    return world.pipeline("one", "One", world.provider("source", "Source"), world.dataset("one", "One"), NOW, **fields)


def block_of(pipeline, starts_at=NOW, rows=None, span=timedelta(days=1), **more):
    one = world.block(pipeline, (starts_at, starts_at + span), rows=rows, **more)
    one.save()
    return one


def run_of(block, stage="extract", fence=1, state=RunState.DONE, **more):
    return Run.objects.create(
        block=block, stage=stage, state=state, attempt=1, fence=fence, trigger="schedule", asked_by="schedule", holder="h", finished_at=NOW, **more
    )


def judged(rows, history=(), changed=False, read="all", known=None, watch=True):
    """The mark of a block that was read with `rows`, of a pipeline that is nowhere stored."""
    pipeline = world.Pipeline(slug="x", watch_volume=watch)
    return volume.judge(ScheduleBlock(pipeline=pipeline, rows=known), rows, history=history, source_changed=changed, read=read)


# the band


def test_fewer_than_four_blocks_say_nothing_of_what_is_usual():
    assert volume.usual([100] * 3) is None
    assert volume.usual([100] * 4) is not None


def test_half_as_much_again_is_within_the_band_and_more_is_not():
    band = volume.usual([1000] * 10)
    assert (band.low, band.high) == (500, 1500)
    assert judged(500, [1000] * 10) == judged(1500, [1000] * 10) == volume.FINE
    assert judged(499, [1000] * 10)[0] == judged(1501, [1000] * 10)[0] == SUSPICIOUS


def test_twenty_rows_more_or_less_are_never_news():
    assert judged(22, [4] * 10)[0] == FINE and judged(25, [4] * 10)[0] == SUSPICIOUS


def test_one_wild_day_in_the_history_moves_the_band_by_nothing():
    assert volume.usual([1000] * 9 + [900_000]) == volume.Band(500, 1000, 1500, 10)


def test_a_pipeline_that_swings_has_a_wide_band_but_nothing_at_all_is_not_in_it():
    swinging = [40, 640, 400, 90, 500, 610, 60, 300]
    assert judged(20, swinging)[0] == FINE and judged(900, swinging)[0] == FINE
    assert judged(0, swinging, read="window")[0] == SUSPICIOUS


def test_the_sentence_tells_what_is_usual_and_what_came():
    _, sentence = judged(3, [560] * 8)
    assert sentence == "3 rows came; usual are about 560, from 280 to 840 (by 8 earlier blocks)."


def test_a_pipeline_that_is_not_watched_is_not_judged_by_its_volume():
    assert judged(3, [560] * 8, watch=False) == volume.FINE
    assert judged(0, [560] * 8, watch=False, read="window")[0] == EMPTY
    assert judged(0, [560] * 8, watch=False)[0] == SUSPICIOUS, "a snapshot that lost all of its rows is no question of volume"


# nothing at all


@pytest.mark.parametrize("read", ["all", "changes", "window"])
def test_no_rows_although_the_source_says_that_it_changed_is_never_green(read):
    mark, sentence = judged(0, changed=True, read=read)
    assert mark == SUSPICIOUS and "says that it changed" in sentence and "left as they are" in sentence


@pytest.mark.parametrize("read", ["all", "changes", "window"])
def test_no_rows_of_a_source_that_says_nothing_new_are_empty(read):
    assert judged(0, read=read)[0] == EMPTY


def test_a_quiet_hour_that_somebody_accepted_explains_the_next_and_a_quiet_night_does_not():
    assert judged(0, [40, 0, 30, 20], changed=True, read="window")[0] == EMPTY
    assert judged(0, [0, 0, 0], changed=True, read="changes")[0] == SUSPICIOUS
    assert judged(0, [0, 0, 0, 0], changed=True, read="changes")[0] == EMPTY


def test_a_snapshot_that_lost_its_rows_is_suspicious_until_somebody_accepts_that_it_is_empty():
    assert judged(0, [120])[0] == SUSPICIOUS and judged(0, known=120)[0] == SUSPICIOUS
    assert judged(0, [0, 120, 120])[0] == EMPTY


# history


@pytest.mark.django_db
def test_an_hour_is_judged_by_the_same_hour_of_the_week_across_the_change_of_the_clock():
    pipeline = made(cadence="hourly")
    local = datetime(2026, 11, 6, 8, tzinfo=clock.zone(world.CHICAGO))  # a Friday, five days after the clocks went back
    hour = {"span": timedelta(hours=1)}
    for weeks in range(1, 6):
        block_of(pipeline, (local - timedelta(weeks=weeks)).astimezone(UTC), rows=600 + weeks, **hour)
        block_of(pipeline, (local - timedelta(weeks=weeks, hours=5)).astimezone(UTC), rows=7, **hour)
    now = block_of(pipeline, local.astimezone(UTC), **hour, state=State.WAITING)
    assert volume.history(now, "window") == [601, 602, 603, 604, 605]


@pytest.mark.django_db
def test_a_young_pipeline_is_judged_by_the_same_hour_of_other_days_and_a_newborn_one_not_at_all():
    pipeline = made(cadence="hourly")
    hour = timedelta(hours=1)
    starts = [NOW - hour * n for n in range(1, 5 * 24)]
    ScheduleBlock.objects.bulk_create(world.block(pipeline, (start, start + hour), rows=start.hour) for start in starts)
    now = block_of(pipeline, NOW, span=hour, state=State.WAITING)
    assert volume.history(now, "window") == [NOW.hour] * 4
    ScheduleBlock.objects.filter(starts_at__lt=NOW - 20 * hour).delete()
    assert volume.history(now, "window") == []


@pytest.mark.django_db
def test_suspicious_blocks_count_as_usual_only_when_somebody_accepted_them():
    pipeline = made(window_column="")
    for days in range(1, 5):
        block_of(pipeline, NOW - timedelta(days=days), rows=100)
    odd = block_of(pipeline, NOW - timedelta(days=5), rows=10_000, mark=SUSPICIOUS)
    failed = block_of(pipeline, NOW - timedelta(days=6), rows=5, state=State.FAILED)
    now = block_of(pipeline, state=State.WAITING)
    assert volume.history(now, "all") == [100] * 4
    assert blocks.accept(odd.pk, actor=ANN, reason="they sent the backlog").moved
    assert volume.history(now, "all") == [100] * 4 + [10_000]
    assert failed.rows not in volume.history(now, "all")


@pytest.mark.django_db
def test_how_many_rows_changed_is_not_judged_by_how_many_there_are():
    pipeline = made(window_column="", watermark_column="updated_at")
    for days, read, rows in ((4, "all", 1_500_000), (3, "changes", 5_100), (2, "changes", 4_900), (1, "changes", 5_000)):
        run_of(block_of(pipeline, NOW - timedelta(days=days), rows=rows), details={"read": read})
    now = block_of(pipeline, state=State.WAITING)
    assert volume.history(now, "changes") == [5_000, 4_900, 5_100]
    assert volume.history(now, "all") == [1_500_000]


# whether the source moved


def state_of(version="8", changed_at=None):
    return SourceState(title="x", columns=(), version=version, changed_at=changed_at)


@pytest.mark.django_db
def test_the_sources_word_is_compared_with_the_last_read_that_was_good():
    pipeline = made(window_column="")
    assert not volume.source_changed(pipeline, state_of()), "the first reading follows no other"
    run_of(block_of(pipeline, NOW - timedelta(days=2), rows=10), details={"source_version": "7/abc"})
    assert volume.source_changed(pipeline, state_of("8")) and not volume.source_changed(pipeline, state_of("7"))
    # the night that brought nothing does not become the measure of the next
    silent = block_of(pipeline, NOW - timedelta(days=1), rows=0, mark=SUSPICIOUS)
    run_of(silent, details={"source_version": "8/abc", "mark": SUSPICIOUS})
    assert volume.source_changed(pipeline, state_of("8"))
    blocks.accept(silent.pk, actor=ANN)
    assert not volume.source_changed(pipeline, state_of("8"))


@pytest.mark.django_db
def test_a_source_without_a_version_is_known_by_the_time_of_its_change():
    pipeline = made(window_column="")
    run_of(block_of(pipeline, NOW - timedelta(days=2), rows=10), details={"source_version": "", "changed_at": NOW.isoformat()})
    assert not volume.source_changed(pipeline, state_of(None, NOW))
    assert volume.source_changed(pipeline, state_of(None, NOW + timedelta(hours=1)))
    assert not volume.source_changed(pipeline, state_of(None))


# three loads that changed nothing


def loads(pipeline, *changed, **more):
    """A block a day, each read and loaded with so many changed rows; returns the last load's run."""
    for day, rows in enumerate(changed):
        block = block_of(pipeline, NOW - timedelta(days=len(changed) - day), rows=50)
        run_of(block, fence=1, details={"source_version": f"{day}/x", "read": "changes"})
        last = run_of(block, "load", fence=2, rows_in=50, updated=rows, unchanged=50 - rows, rows_out=rows, **more)
    return last


@pytest.mark.django_db
def test_three_loads_without_a_change_from_a_source_that_says_it_changed_are_suspicious():
    pipeline = made(window_column="", watermark_column="updated_at")
    mark, sentence = volume.judge_changes(loads(pipeline, 4, 0, 0, 0), 0)
    assert mark == SUSPICIOUS and "3 times running" in sentence and "updated_at" in sentence


@pytest.mark.django_db
@pytest.mark.parametrize("changed", [(0, 0), (0, 4, 0), (4, 0)])
def test_fewer_or_broken_standstills_are_fine(changed):
    assert volume.judge_changes(loads(made(window_column="", watermark_column="updated_at"), *changed), 0) == volume.FINE


@pytest.mark.django_db
def test_what_was_forced_or_read_whole_says_nothing_of_a_standstill():
    assert volume.judge_changes(loads(made(window_column="", watermark_column="u"), 0, 0, 0, is_forced=True), 0) == volume.FINE


@pytest.mark.django_db
def test_a_standstill_that_somebody_accepted_is_counted_anew():
    pipeline = made(window_column="", watermark_column="updated_at")
    last = loads(pipeline, 4, 0, 0, 0)
    Run.objects.filter(pk=last.pk).update(details={"mark": SUSPICIOUS})
    ScheduleBlock.objects.filter(pk=last.block_id).update(mark=SUSPICIOUS)
    block = block_of(pipeline, rows=50)
    run_of(block, details={"source_version": "9/x", "read": "changes"})
    tonight = run_of(block, "load", fence=2, rows_in=50, unchanged=50)
    assert volume.judge_changes(tonight, 0)[0] == SUSPICIOUS
    blocks.accept(last.block_id, actor=ANN)
    assert volume.judge_changes(tonight, 0) == volume.FINE


# nights


@pytest.mark.django_db(transaction=True)
def test_a_source_that_falls_silent_stays_suspicious_until_somebody_accepts_it(stage_scene):  # noqa: F811
    scene = stage_scene(60, stages=["extract", "load"], portal=None)
    scene.go()
    scene.source.dataset(SOURCE).publish([], replace=True)
    for _ in range(3):
        block = scene.go()
        assert (block.state, block.mark) == (State.DONE, SUSPICIOUS), "not taken for unchanged, though it is the version of the last night"
        assert "left as they are" in block.message, "the last stage's words do not hide why"
    assert len(scene.warehouse()) == 60
    assert blocks.accept(block.pk, actor=ANN, reason="they closed").moved
    assert [scene.go().mark, scene.go().mark] == [EMPTY, "unchanged"]


@pytest.mark.django_db(transaction=True)
def test_a_number_of_rows_that_is_not_usual_is_loaded_and_called_suspicious(stage_scene):  # noqa: F811
    scene = stage_scene(60, stages=["extract", "load"], portal=None)
    block = scene.place().moved and scene.block
    earlier = [
        world.block(scene.pipeline, (block.starts_at - timedelta(days=n), block.starts_at - timedelta(days=n - 1)), rows=900) for n in range(1, 6)
    ]
    ScheduleBlock.objects.bulk_create(earlier)
    runner.work_off([block.pk], workers=1)
    block.refresh_from_db()
    assert (block.state, block.mark, block.message) == (
        State.DONE, SUSPICIOUS, "60 rows came; usual are about 900, from 450 to 1,350 (by 5 earlier blocks).",
    )  # fmt: skip
    assert len(city(f'select id from city."{scene.pipeline.table}"')) == 60


# rows that would be deleted


def test_a_read_below_half_of_what_is_held_deletes_nothing():
    assert volume.too_few(500, 1000) == "" and volume.too_few(0, 0) == ""
    assert "499 rows" in volume.too_few(499, 1000) and "1,000" in volume.too_few(499, 1000)


# the verb


@pytest.mark.django_db
def test_accepting_takes_the_mark_away_and_leaves_its_row_in_the_audit():
    block = block_of(made(), rows=3, mark=SUSPICIOUS, message="3 rows came; usual are about 560.")
    verdict = blocks.accept(block.pk, actor=ANN, reason="a holiday")
    block.refresh_from_db()
    assert verdict.moved and "3 rows" in verdict.text and block.mark == FINE
    assert block.message == "3 rows came; usual are about 560. ann accepted it: a holiday"
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.verb, entry.kind, entry.target, entry.reason) == ("ann", "accept", "block", str(block.pk), "a holiday")


@pytest.mark.django_db
def test_an_accepted_block_without_rows_is_empty():
    block = block_of(made(), rows=0, mark=SUSPICIOUS)
    blocks.accept(block.pk, actor=ANN)
    block.refresh_from_db()
    assert block.mark == EMPTY


@pytest.mark.django_db
def test_what_is_not_suspicious_or_not_ended_or_not_seen_is_not_accepted():
    pipeline = made()
    fine = block_of(pipeline, NOW - timedelta(days=3), rows=3)
    waiting = block_of(pipeline, NOW - timedelta(days=2), rows=3, state=State.WAITING, mark=SUSPICIOUS)
    other = block_of(pipeline, NOW - timedelta(days=1), rows=3, mark=SUSPICIOUS)
    run_of(other, fence=3)
    for verdict in (blocks.accept(fine.pk, actor=ANN), blocks.accept(waiting.pk, actor=ANN), blocks.accept(other.pk, actor=ANN, seen_fence=1)):
        assert not verdict.moved and verdict.text
    assert set(ScheduleBlock.objects.values_list("mark", flat=True)) == {"", SUSPICIOUS}
    assert all(entry.result.startswith("refused: ") for entry in AuditEntry.objects.all()) and AuditEntry.objects.count() == 3
