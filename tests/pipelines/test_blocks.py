"""The life of a block: who may move it, that a race has one winner, and that nobody's wish is lost or done twice."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from catalog.audit import Actor
from catalog.models import AuditEntry
from pipelines import blocks
from pipelines.blocks import Counts, Outcome
from pipelines.errors import DataError, LeaseLost, NotReady, SetupError, TransientError
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, Stage, State
from tests import world
from tests.pipelines.scene import together

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
DAY = timedelta(days=1)
ANN, BOB = Actor("ann"), Actor("bob")
STAGES = ["extract", "load", "publish"]
_names = itertools.count(1)

pytestmark = pytest.mark.django_db


def pipeline(**fields) -> Pipeline:
    name = f"one-{next(_names)}"
    values = {"stages": STAGES, "portal": world.provider(f"portal-{name}", "Portal"), **fields}
    source = values.pop("source", None) or world.provider(f"p-{name}", "Source")
    return world.pipeline(name, name, source, world.dataset(name, name), NOW, **values)


def block(one: Pipeline | None = None, day: int = 1, **fields) -> ScheduleBlock:
    """A block that is due."""
    one = one or pipeline()
    start = datetime(2026, 11, day, 6, tzinfo=UTC)
    values = {"stage": one.stages[0], "stages": one.stages, "due_at": NOW - 300 * DAY, **fields}
    return ScheduleBlock.objects.create(pipeline=one, starts_at=start, ends_at=start + DAY, **values)


def claim(one: ScheduleBlock, holder: str = "host:1:1") -> Run:
    run = blocks.claim(one.pk, holder=holder)
    assert run is not None
    return run


def well(rows: int = 0, **more) -> Outcome:
    return Outcome(Counts(rows_in=rows, rows_out=rows), **more)


def pass_through(one: ScheduleBlock) -> ScheduleBlock:
    """Every stage goes well."""
    one.refresh_from_db()
    while one.state == State.WAITING:
        one = blocks.advance(claim(one), well(5))
    return one


def lose(run: Run) -> None:
    """Its lease runs out."""
    ScheduleBlock.objects.filter(pk=run.block_id).update(lease_until=Now() - timedelta(seconds=1))


def now_due(one: ScheduleBlock) -> None:
    ScheduleBlock.objects.filter(pk=one.pk).update(due_at=Now())


# what the database itself refuses


@pytest.mark.parametrize(
    ("fields", "promise"),
    [
        ({"state": State.RUNNING}, "block_running_iff_leased"),
        ({"state": State.WAITING, "holder": "w"}, "block_running_iff_leased"),
        ({"state": State.FAILED, "lease_until": NOW}, "block_running_iff_leased"),
        ({"state": "lost"}, "block_state_known"),
        ({"state": State.DONE}, "block_done_has_an_end"),
        ({"ends_at": NOW - 400 * DAY}, "block_window_forward"),
    ],
)
def test_the_database_refuses_a_block_that_breaks_a_promise(fields, promise):
    one = block()
    with pytest.raises(IntegrityError, match=promise), transaction.atomic():
        ScheduleBlock.objects.filter(pk=one.pk).update(**fields)


def test_the_database_keeps_one_block_a_window_and_one_running_attempt_a_block():
    one = block()
    with pytest.raises(IntegrityError, match="block_once_per_window"), transaction.atomic():
        block(one.pipeline)
    run = claim(one)
    with pytest.raises(IntegrityError, match="run_one_running_per_block"), transaction.atomic():
        Run.objects.create(block=one, stage="extract", attempt=1, fence=99, trigger="button", asked_by="x", holder="y")
    blocks.advance(run, well())
    with pytest.raises(IntegrityError, match="run_one_per_claim"), transaction.atomic():
        Run.objects.create(block=one, stage="extract", attempt=1, fence=run.fence, trigger="button", asked_by="x", holder="y")
    with pytest.raises(IntegrityError, match="run_rows_are_conserved"), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(rows_in=7)


# claiming


def test_a_claim_leases_the_block_and_counts_the_attempt_and_the_fence():
    one = block()
    run = claim(one)
    one.refresh_from_db()
    assert (one.state, one.attempts, one.fence, one.holder) == (State.RUNNING, 1, 1, "host:1:1")
    assert (run.stage, run.attempt, run.fence, run.state) == ("extract", 1, 1, RunState.RUNNING)
    assert blocks.claim(one.pk, holder="other") is None


@pytest.mark.parametrize("state", [State.FAILED, State.HELD, State.DONE])
def test_only_a_waiting_block_can_be_claimed(state):
    assert blocks.claim(block(state=state, finished_at=NOW).pk, holder="w") is None


def test_a_block_is_not_claimed_before_its_time_or_when_it_is_gone():
    assert blocks.claim(block(due_at=datetime.now(UTC) + DAY).pk, holder="w") is None
    assert blocks.claim(0, holder="w") is None


@pytest.mark.django_db(transaction=True)
def test_of_many_who_claim_one_block_at_once_one_wins():
    one = block()
    assert sum(run is not None for run in together(lambda: blocks.claim(one.pk, holder="w"), times=8)) == 1
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_no_more_blocks_run_at_a_source_than_it_takes():
    source = world.provider("narrow", "Narrow", max_parallel=3)
    due = [block(pipeline(source=source), day=day).pk for day in range(1, 3)]
    due += [block(one, day=day).pk for one in [pipeline(source=source)] for day in range(1, 9)]
    queue = iter(due)
    won = [run for run in together(lambda: blocks.claim(next(queue), holder="w"), times=10) if run]
    assert len(won) == 3 == ScheduleBlock.objects.running().count()
    blocks.advance(won[0], well())
    # its load needs no place at the source, so another extract may begin
    assert sum(blocks.claim(pk, holder="w") is not None for pk in due if pk != won[0].block_id) == 1


@pytest.mark.django_db(transaction=True)
def test_of_a_snapshots_blocks_one_runs_at_a_time():
    one = pipeline(window_column="", source=world.provider("wide", "Wide", max_parallel=9))
    queue = iter([block(one, day=day).pk for day in range(1, 7)])
    assert sum(run is not None for run in together(lambda: blocks.claim(next(queue), holder="w"), times=6)) == 1


@pytest.mark.django_db(transaction=True)
def test_claims_ends_presses_and_reaping_at_once_never_wait_for_each_other_for_ever():
    source = world.provider("busy", "Busy", max_parallel=2)
    one = pipeline(window_column="", source=source)
    due = [block(one, day=day).pk for day in range(1, 5)] + [block(pipeline(source=source), day=9).pk]
    turns = itertools.count()

    def muddle():
        for _ in range(25):
            turn = next(turns)
            pk = due[turn % len(due)]
            run = blocks.claim(pk, holder=f"w{turn}")
            try:
                if run and turn % 4 == 0:
                    blocks.fail(run, TransientError("later", retry_after=1, code="http-429"))
                    Provider.objects.update(blocked_until=None)
                elif run and turn % 4 == 1:
                    lose(run)
                elif run:
                    blocks.advance(run, well(3))
            except LeaseLost:
                pass  # reaped by another thread a moment ago
            ScheduleBlock.objects.filter(pk=pk, state=State.WAITING).update(due_at=Now())
            blocks.requeue(pk, actor=ANN, force=bool(turn % 2))
            blocks.reap()

    together(muddle, times=6)
    lost = ScheduleBlock.objects.running()
    assert Run.objects.filter(state=RunState.RUNNING).count() == lost.count()
    assert Run.objects.count() == sum(ScheduleBlock.objects.values_list("fence", flat=True))


def test_a_source_that_asked_for_patience_is_left_alone_by_all_its_pipelines():
    source = world.provider("tired", "Tired")
    one, other = block(pipeline(source=source)), block(pipeline(source=source))
    elsewhere = block()
    blocks.fail(claim(one), TransientError("429", retry_after=120, code="http-429"))
    assert blocks.claim(other.pk, holder="w") is None
    assert blocks.claim(elsewhere.pk, holder="w") is not None


@pytest.mark.parametrize("error", [NotReady("not complete", retry_after=600), TransientError("it moved", retry_after=60, code="source-moved")])
def test_one_dataset_that_has_to_wait_does_not_stop_its_neighbours(error):
    source = world.provider("calm", "Calm")
    one, other = block(pipeline(source=source)), block(pipeline(source=source))
    blocks.fail(claim(one), error)
    assert blocks.claim(other.pk, holder="w") is not None


def test_a_short_request_for_patience_does_not_end_a_long_one():
    source = world.provider("asks-twice", "Asks twice", max_parallel=2)
    one, other = claim(block(pipeline(source=source))), claim(block(pipeline(source=source)))
    blocks.fail(one, TransientError("503", retry_after=3600, code="http-503"))
    blocks.fail(other, TransientError("503", retry_after=20, code="http-503"))
    source.refresh_from_db()
    assert source.blocked_until > datetime.now(UTC) + timedelta(seconds=3000)


# ends


def test_a_block_walks_its_stages_and_is_done():
    one = block()
    one = pass_through(one)
    assert (one.state, one.stage, one.attempts, one.holder, one.rows) == (State.DONE, "publish", 0, "", 5)
    assert [run.stage for run in one.runs.order_by("pk")] == STAGES


def test_counts_that_do_not_add_up_fail_the_stage_in_words():
    one = block()
    ended = blocks.advance(claim(one), Outcome(Counts(rows_in=10, rows_out=7, rejected=1)))
    assert (ended.state, ended.stage, ended.error_code) == (State.FAILED, "extract", "rows-not-conserved")
    assert "10 rows in, 7 out" in ended.message
    assert ended.runs.get().state == RunState.FAILED


def test_an_outage_is_tried_again_later_and_not_for_ever():
    one = block(pipeline(max_attempts=3))
    waits = []
    for attempt in (1, 2, 3):
        now_due(one)
        ended = blocks.fail(claim(one), TransientError("away"))
        assert ended.attempts == attempt
        waits.append((ended.due_at - datetime.now(UTC)).total_seconds())
    assert ended.state == State.FAILED and ended.finished_at
    assert 10 < waits[0] <= 30 and 25 < waits[1] <= 60


def test_the_wait_doubles_up_to_an_hour():
    for attempt, full in [(1, 30), (2, 60), (5, 480), (8, 3600), (40, 3600)]:
        assert all(full / 2 <= blocks.backoff(attempt) <= full for _ in range(50))


def test_what_a_source_asks_for_is_kept_up_to_a_day():
    one = block()
    ended = blocks.fail(claim(one), TransientError("429", retry_after=10**9, code="http-429"))
    assert timedelta(hours=23) < ended.due_at - datetime.now(UTC) <= timedelta(days=1, seconds=5)


@pytest.mark.parametrize("error", [SetupError("no password"), DataError("not the file that it claims")])
def test_what_a_person_must_change_fails_at_once(error):
    ended = blocks.fail(claim(block()), error)
    assert (ended.state, ended.attempts) == (State.FAILED, 1)


def test_not_ready_counts_against_nothing_however_often_it_is_said():
    one = block(pipeline(max_attempts=2))
    for _ in range(6):
        now_due(one)
        ended = blocks.fail(claim(one), NotReady("the hour is not complete"))
        assert (ended.state, ended.attempts) == (State.WAITING, 0)
    assert set(one.runs.values_list("state", flat=True)) == {RunState.WAITING}


def not_ready(one: ScheduleBlock, *, days_ago: float = 0) -> ScheduleBlock:
    """One more answer "not ready", and the moment of it moved into the past."""
    now_due(one)
    run = claim(one)
    ended = blocks.fail(run, NotReady("The hour is not complete."))
    Run.objects.filter(pk=run.pk).update(finished_at=Now() - timedelta(days=days_ago))
    return ended


def test_what_is_not_ready_for_a_week_fails_in_words_and_asks_for_a_person(settings):
    settings.NOT_READY_DAYS = 7
    one = block()
    not_ready(one, days_ago=6.9)
    assert not_ready(one).state == State.WAITING
    first = one.runs.earliest("pk")
    Run.objects.filter(pk=first.pk).update(finished_at=Now() - timedelta(days=7, minutes=1))
    ended = not_ready(one)
    assert (ended.state, ended.error_code) == (State.FAILED, "never-ready")
    assert "not ready, longer than 7 days: The hour is not complete." in ended.message
    assert ended.next_step.startswith("Ask the provider")
    assert one.runs.latest("pk").state == RunState.FAILED


def test_whoever_runs_it_again_gives_the_source_the_whole_time_anew(settings):
    settings.NOT_READY_DAYS = 2
    one = block()
    not_ready(one, days_ago=3)
    assert not_ready(one).state == State.FAILED
    assert blocks.requeue(one.pk, actor=ANN).moved
    assert not_ready(one, days_ago=1).state == State.WAITING
    assert not_ready(one).state == State.WAITING


def test_the_wait_for_a_source_ends_with_a_good_answer_and_not_with_a_crash_of_ours(settings):
    settings.NOT_READY_DAYS = 2
    one = block()
    not_ready(one, days_ago=3)
    now_due(one)
    blocks.crash(claim(one), "stopped", code="worker-stopped", counts_as_attempt=False)
    assert not_ready(one).state == State.FAILED
    other = block()
    not_ready(other, days_ago=3)
    now_due(other)
    assert pass_through(other).state == State.DONE
    blocks.requeue(other.pk, actor=ANN)
    assert not_ready(other).state == State.WAITING


def test_a_worker_that_is_stopped_gives_its_block_back_at_once_and_uncounted():
    one = block(pipeline(max_attempts=1))
    for _ in range(4):
        ended = blocks.crash(claim(one), "stopped", code="worker-stopped", counts_as_attempt=False)
        assert (ended.state, ended.attempts) == (State.WAITING, 0)
        assert blocks.is_due(one.pk)


def test_a_run_that_kills_its_worker_each_time_is_put_aside():
    one = block(pipeline(max_attempts=3))
    for _ in range(3):
        now_due(one)
        lose(claim(one))
        assert len(blocks.reap()) == 1
    one.refresh_from_db()
    assert (one.state, one.error_code) == (State.FAILED, "worker-lost")
    assert one.next_step


def test_the_first_loss_of_a_worker_is_made_up_for_at_once():
    one = block()
    lose(claim(one))
    blocks.reap()
    assert blocks.is_due(one.pk)


def test_a_worker_that_lives_is_not_reaped():
    run = claim(block())
    assert blocks.reap() == []
    lose(run)
    blocks.renew(run)
    assert blocks.reap() == []


def test_a_worker_that_died_before_its_first_sign_of_life_is_found():
    run = claim(block())
    lose(run)
    assert [died.pk for died in blocks.reap()] == [run.pk]


# law 5


def after_reaping() -> tuple[Run, Run]:
    """A late worker's run, and that of the one who replaced it."""
    one = block()
    late = claim(one, holder="late:1:1")
    lose(late)
    blocks.reap()
    return late, claim(one, holder="new:1:1")


@pytest.mark.parametrize(
    "act",
    [
        lambda run: blocks.advance(run, well(99)),
        lambda run: blocks.fail(run, TransientError("late")),
        lambda run: blocks.fail(run, SetupError("late")),
        lambda run: blocks.crash(run, "late"),
        lambda run: blocks.cancelled(run),
        lambda run: blocks.renew(run, done=1, total=2),
        lambda run: blocks.note_published(run, 12),
        lambda run: blocks.advance(run, Outcome(Counts(rows_in=1))),
    ],
    ids=["advance", "fail", "fail for good", "crash", "cancelled", "renew", "note_published", "wrong counts"],
)
def test_a_late_worker_cannot_overwrite_the_worker_that_replaced_it(act):
    late, new = after_reaping()
    before = ScheduleBlock.objects.values().get(pk=new.block_id)
    with pytest.raises(LeaseLost):
        act(late)
    assert ScheduleBlock.objects.values().get(pk=new.block_id) == before
    late.refresh_from_db()
    new.refresh_from_db()
    assert (late.state, late.rows_out, new.state) == (RunState.CRASHED, 0, RunState.RUNNING)


def test_a_lease_that_ran_out_is_no_right_to_write_even_before_it_is_reaped():
    run = claim(block())
    lose(run)
    with pytest.raises(LeaseLost):
        blocks.note_published(run, 5)
    run.block.refresh_from_db()
    assert run.block.published_seq == 0


def test_the_same_worker_with_an_older_claim_is_late_too():
    one = block()
    late = claim(one)
    lose(late)
    blocks.reap()
    claim(one)  # same holder, next fence
    with pytest.raises(LeaseLost):
        blocks.advance(late, well())


# presses


def test_fifty_presses_of_force_on_one_page_are_one_run_whenever_they_arrive():
    one = pass_through(block())
    seen = one.fence
    press = {"actor": ANN, "force": True, "stage": "extract", "seen_fence": seen}
    verdicts = [blocks.requeue(one.pk, **press) for _ in range(10)]
    for _ in STAGES:
        run = claim(one)
        verdicts += [blocks.requeue(one.pk, **press) for _ in range(5)]  # while it runs
        blocks.advance(run, well(5))
        verdicts += [blocks.requeue(one.pk, **press) for _ in range(5)]  # between two stages, and after the last
    verdicts += [blocks.requeue(one.pk, **press) for _ in range(10)]
    assert [verdict.moved for verdict in verdicts] == [True] + [False] * 49
    assert all(verdict.text for verdict in verdicts)
    assert one.runs.count() == 2 * len(STAGES)
    assert AuditEntry.objects.filter(verb="force").count() == 50


def test_presses_without_a_page_never_restart_a_pass_that_goes_on():
    one = pass_through(block())
    press = {"actor": ANN, "force": True, "stages": STAGES}
    assert blocks.requeue(one.pk, **press).moved
    for _ in STAGES:
        assert not blocks.requeue(one.pk, **press).moved
        run = claim(one)
        assert not blocks.requeue(one.pk, **press).moved
        blocks.advance(run, well(5))
    assert one.runs.count() == 2 * len(STAGES)


@pytest.mark.django_db(transaction=True)
def test_fifty_presses_at_the_same_moment_move_the_block_once():
    one = pass_through(block())
    press = {"actor": ANN, "force": True, "stage": "extract", "seen_fence": one.fence}
    verdicts = together(lambda: blocks.requeue(one.pk, **press), times=50)
    assert sum(verdict.moved for verdict in verdicts) == 1
    assert AuditEntry.objects.filter(verb="force").count() == 50


def test_a_block_that_waits_for_its_next_try_can_be_hurried_once():
    one = block()
    blocks.fail(claim(one), TransientError("away"))
    assert not blocks.is_due(one.pk)
    assert [blocks.requeue(one.pk, actor=ANN).moved for _ in range(3)] == [True, False, False]
    assert blocks.is_due(one.pk)


def test_another_wish_than_the_one_that_waits_is_heard():
    one = pass_through(block())
    assert blocks.requeue(one.pk, actor=ANN).moved
    assert blocks.requeue(one.pk, actor=BOB, force=True).moved
    one.refresh_from_db()
    assert (one.is_forced, one.asked_by) == (True, "bob")


def test_a_weaker_wish_does_not_take_the_force_from_a_block_that_waits():
    one = block(state=State.WAITING)
    blocks.requeue(one.pk, actor=ANN, force=True)
    blocks.advance(claim(one), well(5))
    one.refresh_from_db()
    assert one.stage == Stage.LOAD

    verdict = blocks.requeue(one.pk, actor=BOB, stages=["load", "publish"])

    assert not verdict.moved
    one.refresh_from_db()
    assert (one.is_forced, one.asked_by) == (True, "ann")


def test_an_order_for_other_stages_keeps_the_force_of_the_one_before():
    one = block(state=State.WAITING)
    blocks.requeue(one.pk, actor=ANN, force=True)

    assert blocks.requeue(one.pk, actor=BOB, stages=["load"]).moved

    one.refresh_from_db()
    assert (one.is_forced, one.stages) == (True, ["load"])


def test_a_press_on_an_old_page_is_told_what_happened_since():
    one = pass_through(block())
    answer = blocks.requeue(one.pk, actor=ANN, seen_fence=one.fence - 1)
    assert not answer.moved
    assert "It was run since you looked" in answer.text


def test_a_press_while_it_runs_names_the_run():
    one = block()
    run = claim(one)
    assert f"Run {run.pk} is on it" in blocks.requeue(one.pk, actor=ANN).text


def test_a_stage_that_the_pipeline_does_not_have_is_refused():
    answer = blocks.requeue(block().pk, actor=ANN, stage="enrich")
    assert not answer.moved
    assert "enrich" in answer.text


def test_a_failed_block_is_run_again_from_where_it_failed():
    one = block()
    blocks.advance(claim(one), well(5))
    blocks.fail(claim(one), SetupError("no rights"))
    blocks.requeue(one.pk, actor=ANN)
    one.refresh_from_db()
    assert (one.stage, one.stages, one.attempts, one.error_code) == ("load", ["load", "publish"], 0, "")


def test_a_later_success_makes_up_for_what_failed_before():
    one = pipeline(window_column="")
    older, newer = block(one, day=1), block(one, day=2)
    blocks.fail(claim(older), SetupError("closed"))
    assert ScheduleBlock.objects.failed_for_good().count() == 1
    pass_through(newer)
    assert not ScheduleBlock.objects.failed_for_good().exists()
    assert not Run.objects.filter(state=RunState.FAILED, superseded_at=None).exists()


# single stages: done means that the data went all the way


def test_a_pass_that_stops_early_is_held_before_the_next_stage():
    one = block()
    blocks.requeue(one.pk, actor=ANN, stages=["extract"])
    ended = blocks.advance(claim(one), well(5))
    assert (ended.state, ended.stage) == (State.HELD, "load")
    assert "as ann asked" in ended.message


def test_publishing_alone_does_not_hide_that_the_load_had_failed():
    one = block()
    blocks.advance(claim(one), well(5, details={"source_version": "v2"}))
    blocks.fail(claim(one), DataError("mostly refused"))
    blocks.requeue(one.pk, actor=ANN, stages=["publish"])
    ended = blocks.advance(claim(one), well(5))
    assert (ended.state, ended.stage) == (State.HELD, "load")
    assert ended.source_version == ""  # else the next extract would skip what was never loaded
    blocks.release(one.pk, actor=ANN)
    ended = pass_through(one)
    assert (ended.state, ended.source_version) == (State.DONE, "v2")


def test_a_stage_alone_on_a_window_that_was_never_fetched_does_not_make_it_done():
    one = block(stages=["publish"], stage="publish")
    ended = blocks.advance(claim(one), well())
    assert (ended.state, ended.stage) == (State.HELD, "extract")


def test_publishing_again_after_all_went_well_is_done():
    one = pass_through(block())
    blocks.requeue(one.pk, actor=ANN, stages=["publish"])
    assert blocks.advance(claim(one), well(5)).state == State.DONE


def test_publishing_again_a_block_whose_source_had_not_changed_is_done():
    one = block()
    unchanged = Outcome(Counts(rows_in=5, unchanged=5), mark=ScheduleBlock.Mark.UNCHANGED, is_final=True)
    blocks.advance(claim(one), unchanged)
    blocks.requeue(one.pk, actor=ANN, stages=["publish"])
    assert blocks.advance(claim(one), well(5)).state == State.DONE


# hold, release, cancel


def test_a_held_block_rests_until_it_is_released():
    one = block()
    assert blocks.hold(one.pk, actor=ANN, reason="bad file").moved
    assert blocks.claim(one.pk, holder="w") is None
    assert not blocks.hold(one.pk, actor=ANN).moved
    assert blocks.release(one.pk, actor=ANN).moved
    assert not blocks.release(one.pk, actor=ANN).moved
    assert claim(one)


def test_a_block_that_waits_is_cancelled_at_once():
    one = block()
    assert blocks.cancel(one.pk, actor=ANN).moved
    one.refresh_from_db()
    assert (one.state, one.error_code) == (State.HELD, "cancelled")
    assert "nothing to cancel" in blocks.cancel(one.pk, actor=ANN).text


def test_a_cancel_is_told_to_the_worker_at_its_next_sign_of_life():
    run = claim(block())
    assert blocks.renew(run) is False
    assert blocks.cancel(run.block_id, actor=ANN).moved
    assert "being stopped already" in blocks.cancel(run.block_id, actor=BOB).text
    assert blocks.renew(run) is True
    ended = blocks.cancelled(run)
    assert (ended.state, ended.message[:23]) == (State.HELD, "Cancelled by ann during")
    assert run.block.runs.get().state == RunState.CANCELLED


@pytest.mark.parametrize(
    "act",
    [
        lambda run: blocks.advance(run, well(5)),
        lambda run: blocks.fail(run, TransientError("away")),
        lambda run: blocks.fail(run, NotReady("not yet")),
        lambda run: blocks.crash(run, "ended by SIGKILL"),
        lambda run: blocks.crash(run, "stopped", counts_as_attempt=False),
    ],
    ids=["went well", "to be tried again", "not ready", "crashed", "worker stopped"],
)
def test_a_cancel_that_the_worker_did_not_hear_in_time_still_stops_the_block(act):
    run = claim(block())
    blocks.cancel(run.block_id, actor=ANN)
    ended = act(run)
    assert (ended.state, ended.error_code, ended.cancel_asked_at) == (State.HELD, "cancelled", None)
    assert ended.message.startswith("Cancelled by ann before ")
    assert blocks.claim(ended.pk, holder="w") is None


def test_a_cancel_that_comes_when_all_is_done_changes_nothing():
    one = block()
    for _ in STAGES[:-1]:
        blocks.advance(claim(one), well(5))
    run = claim(one)
    blocks.cancel(one.pk, actor=ANN)
    assert blocks.advance(run, well(5)).state == State.DONE


def test_a_lost_worker_whose_run_was_to_be_cancelled_is_not_replaced():
    run = claim(block())
    blocks.cancel(run.block_id, actor=ANN)
    lose(run)
    blocks.reap()
    run.block.refresh_from_db()
    assert (run.block.state, run.block.error_code) == (State.HELD, "cancelled")


@pytest.mark.django_db(transaction=True)
def test_a_cancel_is_never_lost_between_two_stages():
    one = block(pipeline(source=world.provider("x", "X", max_parallel=9)))
    outcomes = []

    def walk():
        while (run := blocks.claim(one.pk, holder="w")) and run.attempt:
            blocks.advance(run, well(5))
        return "walked"

    def stop():
        return blocks.cancel(one.pk, actor=ANN)

    for _ in range(15):
        acts = iter([walk, stop])
        answers = together(lambda: next(acts)(), times=2)  # noqa: B023
        [verdict] = [answer for answer in answers if answer != "walked"]
        one.refresh_from_db()
        assert one.state == (State.HELD if verdict.moved and one.error_code == "cancelled" else State.DONE), (one.state, verdict)
        if verdict.moved and one.state == State.DONE:
            assert "Asked to stop" in verdict.text  # it came during the last stage
        outcomes.append(one.state)
        blocks.requeue(one.pk, actor=ANN, stages=STAGES)
    assert outcomes


def test_every_verb_leaves_who_when_and_why():
    one = block()
    blocks.hold(one.pk, actor=ANN, reason="odd count")
    blocks.release(one.pk, actor=ANN, reason="asked them")
    blocks.cancel(one.pk, actor=BOB, reason="wrong day")
    blocks.requeue(one.pk, actor=BOB, reason="right day")
    blocks.requeue(one.pk, actor=BOB, reason="right day")
    told = AuditEntry.objects.order_by("pk").values_list("actor", "verb", "reason")
    assert list(told) == [
        ("ann", "hold", "odd count"),
        ("ann", "release", "asked them"),
        ("bob", "cancel", "wrong day"),
        ("bob", "run", "right day"),
        ("bob", "run", "right day"),
    ]
    assert [entry.result.startswith("refused") for entry in AuditEntry.objects.order_by("pk")] == [False] * 4 + [True]


@pytest.mark.parametrize("verb", [blocks.hold, blocks.cancel, blocks.requeue])
def test_an_act_whose_audit_row_cannot_be_written_did_not_happen(verb, monkeypatch):
    one = block()
    before = ScheduleBlock.objects.values().get(pk=one.pk)
    monkeypatch.setattr(blocks.audit, "write", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verb(one.pk, actor=ANN)
    assert ScheduleBlock.objects.values().get(pk=one.pk) == before


CORRIDOR = ["extract", "standardize", "enrich", "load", "publish"]


@pytest.mark.parametrize(
    "fields, number",
    [
        ({"stage": "extract"}, 0),
        ({"stage": "extract", "state": "running"}, 0),
        ({"stage": "extract", "state": "failed"}, 0),
        ({"stage": "extract", "error_code": "not-ready"}, 0),
        ({"stage": "standardize"}, 2),
        ({"stage": "enrich", "state": "running"}, 2),
        ({"stage": "load", "state": "held"}, 2),
        ({"stage": "standardize", "state": "failed"}, -5),
        ({"stage": "load", "state": "failed", "rows": 9}, -5),
        ({"stage": "publish", "rows": 9}, 5),
        ({"stage": "publish", "rows": 9, "rejected": 2}, 6),
        ({"stage": "publish", "rows": 9, "rejected": 9}, -6),
        ({"stage": "publish", "rows": 0}, 7),
        ({"stage": "publish", "state": "failed", "rows": 9, "rejected": 2}, -8),
        ({"stage": "publish", "state": "done", "rows": 9, "rejected": 2}, 8),
        ({"stage": "publish", "state": "done", "rows": 0, "mark": "empty"}, 7),
        ({"stage": "extract", "state": "done", "rows": 0, "mark": "no-service"}, 7),
        ({"stage": "extract", "state": "done", "rows": 9, "mark": "unchanged"}, 8),
        ({"stage": "load", "state": "done", "rows": 9, "rejected": 2, "pipeline": Pipeline(stages=CORRIDOR[:4])}, 6),
        ({"stage": "load", "state": "done", "rows": 9, "pipeline": Pipeline(stages=CORRIDOR[:4])}, 5),
        ({"stage": "extract", "state": "done", "rows": 9, "pipeline": Pipeline(stages=CORRIDOR[:1])}, 2),
    ],
)
def test_a_block_tells_the_number_that_the_ancestor_would_give(fields, number):
    assert ScheduleBlock(**{"pipeline": Pipeline(stages=CORRIDOR), **fields}).upstream_status == number


def rejecting(rejected: int, **flags: int) -> Outcome:
    return Outcome(Counts(rows_in=9, rows_out=9 - rejected, rejected=rejected), details={"flags": flags} if flags else {})


def test_rows_rejected_on_the_way_stay_visible_when_the_rest_is_published():
    one = block(pipeline(stages=CORRIDOR))
    for outcome in (well(9), rejecting(2, zero_distance=3, swapped=1), rejecting(0, outside_city=4), rejecting(1), well(6)):
        blocks.advance(claim(one), outcome)
    one.refresh_from_db()
    assert (one.state, one.rejected, one.upstream_status) == (State.DONE, 3, 8)
    assert one.flags == {"outside_city": 4, "swapped": 1, "zero_distance": 3}


def test_publishing_again_forgets_no_rejected_row_and_reading_again_begins_anew():
    one = block(pipeline(stages=CORRIDOR))
    for outcome in (well(9), rejecting(2, swapped=1), rejecting(0), rejecting(0), well(7)):
        blocks.advance(claim(one), outcome)
    blocks.requeue(one.pk, actor=ANN, stage="publish")
    blocks.advance(claim(one), well(7))
    one.refresh_from_db()
    assert (one.rejected, one.flags) == (2, {"swapped": 1})
    blocks.requeue(one.pk, actor=ANN, stage="extract")
    blocks.advance(claim(one), well(9))
    one.refresh_from_db()
    assert (one.rejected, one.flags) == (0, {})


def test_fences_rise_with_every_claim_and_never_fall():
    one = block(pipeline(max_attempts=9))
    fences = []
    for _ in range(5):
        now_due(one)
        run = claim(one)
        fences.append(run.fence)
        blocks.fail(run, TransientError("away"))
    assert fences == [1, 2, 3, 4, 5]
    assert not ScheduleBlock.objects.filter(fence__lt=F("attempts")).exists()


# what a stage said before and says no longer


@pytest.mark.parametrize(
    ("stage", "left"), [("standardize", ""), ("enrich", ""), ("aggregate", ""), ("load", "suspicious"), ("publish", "suspicious")]
)
def test_only_a_stage_that_judges_all_rows_anew_takes_its_suspicion_back(stage, left):
    one = block(pipeline(stages=["extract", "standardize", "enrich", "aggregate", "load", "publish"]))
    while one.state == State.WAITING:
        run = claim(one)
        mark = ScheduleBlock.Mark.SUSPICIOUS if run.stage == stage else ""
        one = blocks.advance(run, well(5, mark=mark, message=f"{run.stage} told it"))
    assert (one.mark, one.message) == ("suspicious", f"{stage} told it")
    blocks.requeue(one.pk, actor=ANN, stage=stage)
    after = pass_through(one)
    assert (after.mark, after.message) == (left, f"{stage} told it" if left else "")


def test_what_another_stage_called_suspicious_stays_so():
    one = block(pipeline(stages=["extract", "standardize", "enrich", "load", "publish"]))
    while one.state == State.WAITING:
        run = claim(one)
        mark = ScheduleBlock.Mark.SUSPICIOUS if run.stage in ("standardize", "enrich") else ""
        one = blocks.advance(run, well(5, mark=mark, message=f"{run.stage} told it"))
    blocks.requeue(one.pk, actor=ANN, stage="enrich")
    after = pass_through(one)
    assert (after.mark, after.message) == ("suspicious", "standardize told it")
