"""The runner: whatever becomes of a stage's process or of its worker, the block ends in a true state and nothing is left behind."""

import inspect
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import time_machine
from django.conf import settings as configured
from django.db import OperationalError

from catalog.audit import Actor
from pipelines import blocks, planner, runner, stages
from pipelines.blocks import Counts, Outcome
from pipelines.errors import DataError, LeaseLost, NotReady, PermanentError, SetupError, TransientError
from pipelines.models import LogLine, Pipeline, Run, RunState, ScheduleBlock, Stage, State
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
ANN = Actor("ann")
_names = itertools.count(1)
ROOT = Path(configured.BASE_DIR)


@pytest.fixture(autouse=True)
def workshop(settings, tmp_path):
    settings.WORK_DIR = tmp_path / "work"
    settings.HEARTBEAT_SECONDS = 0.05


@pytest.fixture
def stage(monkeypatch):
    """Let the stages be this function of (run, note) instead of their own; the child process inherits it."""
    return lambda act: monkeypatch.setattr(stages, "carry_out", act)


def block(**fields) -> ScheduleBlock:
    name = f"run-{next(_names)}"
    values = {"stages": ["extract", "load"], "portal": None, **fields}
    one = world.pipeline(name, name, world.provider(f"p-{name}", "Source"), world.dataset(name, name), NOW, **values)
    start = datetime(2026, 11, 1, 6, tzinfo=UTC)
    return ScheduleBlock.objects.create(
        pipeline=one, starts_at=start, ends_at=start + timedelta(days=1), stage=one.stages[0], stages=one.stages, due_at=NOW - timedelta(days=300)
    )


def go(one: ScheduleBlock) -> ScheduleBlock:
    runner.work(one.pk)
    one.refresh_from_db()
    return one


def last(one: ScheduleBlock) -> Run:
    return one.runs.first()


#: what others left running before a test began: the browser's driver stays for the whole session
_others: list[psutil.Process] = []


@pytest.fixture(autouse=True)
def other_children():
    _others[:] = psutil.Process().children()


def children() -> list[psutil.Process]:
    """The processes that the test at hand started and did not end."""
    return [child for child in psutil.Process().children() if child not in _others]


def fine(run, note) -> Outcome:
    return Outcome(Counts(rows_in=3, rows_out=3), message=f"{run.stage} went well")


# how a stage may end


def test_a_stage_that_goes_well_is_followed_by_the_next(stage):
    stage(fine)
    one = go(block())
    assert (one.state, one.message) == (State.DONE, "load went well")
    assert [(run.stage, run.state, run.rows_out) for run in one.runs.order_by("pk")] == [("extract", "done", 3), ("load", "done", 3)]
    assert children() == [] and not list(Path(configured.WORK_DIR).glob("*"))


@pytest.mark.parametrize(
    ("error", "state", "run_state"),
    [
        (TransientError("The server is tired.", code="http-503", next_step="Wait."), State.WAITING, RunState.FAILED),
        (NotReady("The hour is not complete."), State.WAITING, RunState.WAITING),
        (SetupError("No password.", code="credentials-missing", next_step="Enter it."), State.FAILED, RunState.FAILED),
        (DataError("Not the file that it claims."), State.FAILED, RunState.FAILED),
        (PermanentError("No."), State.FAILED, RunState.FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_a_stage_raises_reaches_the_page_in_its_own_words(stage, error, state, run_state):
    def act(run, note):
        raise error

    stage(act)
    one = go(block())
    assert (one.state, one.message, one.error_code, one.next_step) == (state, error.message, error.code, error.next_step)
    assert (last(one).state, last(one).message, last(one).error_code) == (run_state, error.message, error.code)


def test_a_retry_after_is_kept_across_the_process(stage):
    def act(run, note):
        raise TransientError("429", retry_after=5000, code="http-429")

    stage(act)
    one = go(block())
    assert timedelta(seconds=4900) < one.due_at - datetime.now(UTC) < timedelta(seconds=5001)


def test_a_fault_of_the_program_is_told_as_one_with_its_traceback_in_the_log(stage):
    def act(run, note):
        return {}["no such column"]

    stage(act)
    one = go(block())
    assert (one.state, one.error_code) == (State.FAILED, "unexpected")
    assert "KeyError" in one.message and "report" in one.next_step
    assert "Traceback" in LogLine.objects.filter(run=last(one)).first().text


@pytest.mark.parametrize("text", ["NUL \x00 in it", "not UTF-8: \udcff", "long " * 300_000], ids=["NUL", "surrogate", "1.5 MB"])
def test_a_message_that_quotes_something_odd_is_still_recorded(stage, text):
    def act(run, note):
        raise DataError(text, next_step=text)

    stage(act)
    one = go(block())
    assert one.state == State.FAILED
    assert one.message[:3] == text[:3] and len(one.message) >= len(text)


def test_a_report_larger_than_a_pipe_holds_arrives_whole(stage):
    details = {"entries": list(range(200_000))}
    stage(lambda run, note: Outcome(Counts(), details=details))
    one = go(block())
    assert one.state == State.DONE
    assert last(one).details["entries"] == details["entries"]


def test_counts_that_do_not_add_up_end_the_block_and_do_not_go_round_for_ever(stage):
    stage(lambda run, note: Outcome(Counts(rows_in=10, rows_out=9)))
    one = go(block())
    assert (one.state, one.error_code, one.runs.count()) == (State.FAILED, "rows-not-conserved", 1)


@pytest.mark.parametrize("text", ["NUL \x00", "\udcff"], ids=["NUL", "surrogate"])
def test_an_end_that_the_database_cannot_hold_fails_the_block_instead_of_repeating_it(stage, text):
    stage(lambda run, note: Outcome(Counts(), message=text))
    one = go(block())
    assert (one.state, one.error_code, one.runs.count()) == (State.FAILED, "unexpected", 1)
    assert "could not be recorded" in one.message


def kill_myself(run, note):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(run, note):
    raise SystemExit(3)


def exit_hard(run, note):
    os._exit(7)


def interrupt(run, note):
    raise KeyboardInterrupt


def stopped_in_the_middle_of_a_word(run, note):
    frame = inspect.currentframe()
    while "mouth" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["mouth"], b'{"done": {"counts"')
    os._exit(0)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (kill_myself, "ended by SIGKILL (out of memory, or somebody ended it)"),
        (leave, "ended without a word, with exit code"),
        (exit_hard, "exit code 7"),
        (interrupt, "ended without a word"),
        (stopped_in_the_middle_of_a_word, "ended without a word, with exit code 0"),
    ],
)
def test_a_stage_whose_process_dies_is_tried_again_and_the_worker_lives(stage, act, words):
    stage(act)
    me = os.getpid()
    one = block(max_attempts=3)
    go(one)
    assert os.getpid() == me and children() == []
    # the first death is made up for at once, the second waits
    assert [run.state for run in one.runs.all()] == [RunState.CRASHED, RunState.CRASHED]
    assert (one.state, one.attempts, one.error_code) == (State.WAITING, 2, "crashed")
    assert words in one.message
    ScheduleBlock.objects.update(due_at=NOW - timedelta(days=300))
    assert go(one).state == State.FAILED


def test_a_stage_that_wants_more_memory_than_it_may_have_is_stopped_and_says_so(stage, settings):
    settings.STAGE_MEMORY_MB = 100
    stage(lambda run, note: bytearray(400 << 20) and fine(run, note))
    one = go(block())
    assert (one.state, one.error_code) == (State.WAITING, "out-of-memory")
    assert "100 MB" in one.message
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_stage_within_its_memory_is_not_disturbed(stage, settings):
    settings.STAGE_MEMORY_MB = 300
    stage(lambda run, note: bytearray(100 << 20) and fine(run, note))
    assert go(block()).state == State.DONE


def test_a_stage_that_hangs_is_ended_at_its_deadline_with_all_that_it_started(stage, settings, tmp_path):
    settings.MAX_STAGE_SECONDS = 0.3
    file = tmp_path / "grandchild"

    def hang(run, note):
        other = subprocess.Popen(["sleep", "600"])
        file.write_text(str(other.pid))
        time.sleep(600)

    stage(hang)
    one = block(max_attempts=1)
    go(one)
    assert (one.state, one.error_code, last(one).state) == (State.FAILED, "deadline", RunState.CRASHED)
    assert "took longer than" in one.message
    assert gone(int(file.read_text())) and children() == []


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether the process has ended, which the kernel may take an instant to do."""
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_progress_and_the_lease_are_kept_while_a_stage_works(stage, tmp_path):
    gate = tmp_path / "gate"

    def slow(run, note):
        note.progress(40, 100)
        while not gate.exists():
            time.sleep(0.01)
        return fine(run, note)

    stage(slow)
    one, seen = block(stages=["extract"]), []

    def watch(run, ended, progress):
        now = ScheduleBlock.objects.get(pk=one.pk)
        seen.append((now.progress_done, now.progress_total))
        if (40, 100) in seen:
            gate.touch()

    runner.work_off([one.pk], workers=1, on_step=watch)
    assert (40, 100) in seen
    assert ScheduleBlock.objects.get(pk=one.pk).progress_done is None


# cancelling


def hold_until_killed(run, note):
    note.progress(1, 2)
    time.sleep(600)


def test_a_cancel_ends_the_stage_within_ten_seconds_and_holds_the_block(stage):
    stage(hold_until_killed)
    one = block()
    asked = []

    def press(run, ended, progress):
        if not asked and progress == (1, 2):
            asked.append(time.monotonic())
            assert blocks.cancel(one.pk, actor=ANN).moved

    runner.work_off([one.pk], workers=1, on_step=press)
    assert time.monotonic() - asked[0] < 10
    one.refresh_from_db()
    assert (one.state, one.error_code, last(one).state) == (State.HELD, "cancelled", RunState.CANCELLED)
    assert children() == []


def test_a_cancel_between_claim_and_the_first_sign_of_life_is_heard(stage, monkeypatch):
    stage(hold_until_killed)
    one = block()
    claim = blocks.claim

    def claimed_and_cancelled(pk, holder):
        run = claim(pk, holder=holder)
        if run:
            blocks.cancel(pk, actor=ANN)
        return run

    monkeypatch.setattr(blocks, "claim", claimed_and_cancelled)
    assert go(one).state == State.HELD


def test_a_cancel_that_comes_as_the_stage_ends_stops_the_block_before_the_next_one(stage, monkeypatch):
    stage(fine)
    one = block()
    advance = blocks.advance

    def late(run, outcome):
        blocks.cancel(run.block_id, actor=ANN)
        return advance(run, outcome)

    monkeypatch.setattr(blocks, "advance", late)
    go(one)
    assert (one.state, one.stage, last(one).state) == (State.HELD, "load", RunState.DONE)
    assert one.message == "Cancelled by ann before load began."


def test_what_a_stage_had_finished_when_the_cancel_came_counts_as_finished(stage, monkeypatch):
    """The child is killed after it reported: the report is read before the run is called cancelled."""
    stage(fine)
    one = block()
    kill = runner.Attempt._kill
    blocks_cancelled = []

    def wait_for_the_report(attempt):
        while not runner.select.select([attempt.ears], [], [], 5)[0]:
            pass
        time.sleep(0.2)
        kill(attempt)

    monkeypatch.setattr(runner.Attempt, "_kill", wait_for_the_report)

    def cancel_once(attempt) -> bool:
        if not blocks_cancelled:
            blocks_cancelled.append(blocks.cancel(one.pk, actor=ANN))
        return True

    monkeypatch.setattr(runner.Attempt, "_renew", cancel_once)
    monkeypatch.setattr(runner.Attempt, "_listen", _deaf_once(runner.Attempt._listen))
    configured.HEARTBEAT_SECONDS = 0.0
    go(one)
    assert one.runs.filter(stage="extract").get().state == RunState.DONE
    assert (one.state, one.stage) == (State.HELD, "load")


def _deaf_once(listen):
    heard = []

    def once_deaf(attempt):
        if not heard:
            heard.append(1)
            return False
        return listen(attempt)

    return once_deaf


# leases


def test_a_worker_that_lost_its_block_stops_its_stage_and_leaves_its_successor_alone(stage):
    stage(hold_until_killed)
    one = block()
    successor = []

    def replace(run, ended, progress):
        if not successor and progress == (1, 2):
            ScheduleBlock.objects.filter(pk=one.pk).update(lease_until=NOW - timedelta(days=300))
            blocks.reap()
            successor.append(blocks.claim(one.pk, holder="other-host:1:1"))

    runner.work_off([one.pk], workers=1, on_step=replace)
    one.refresh_from_db()
    assert (one.state, one.holder, one.fence) == (State.RUNNING, "other-host:1:1", successor[0].fence)
    assert children() == []


def test_a_stage_that_learns_itself_that_it_lost_its_block_moves_nothing(stage):
    def lost(run, note):
        ScheduleBlock.objects.filter(pk=run.block_id).update(holder="other:1:1", fence=run.fence + 1)
        raise LeaseLost("another")

    stage(lost)
    one = go(block())
    assert (one.state, one.holder) == (State.RUNNING, "other:1:1")


def test_a_worker_that_is_told_to_stop_gives_its_blocks_back_at_once(stage):
    stage(hold_until_killed)
    one, other = block(max_attempts=1), block(max_attempts=1)

    def stop(run, ended, progress):
        if Run.objects.filter(state=RunState.RUNNING).count() == 2:
            raise SystemExit

    with pytest.raises(SystemExit):
        runner.work_off([one.pk, other.pk], workers=2, on_step=stop)
    for each in (one, other):
        each.refresh_from_db()
        assert (each.state, each.attempts, each.error_code) == (State.WAITING, 0, "worker-stopped")
        assert blocks.is_due(each.pk)
    assert children() == []


def test_a_host_that_cannot_even_start_a_stage_says_so_and_tries_later(monkeypatch, settings, tmp_path):
    (tmp_path / "work").write_text("a file where the folder should be")
    one = go(block())
    assert (one.state, one.error_code) == (State.WAITING, "worker-unable")
    assert "could not start extract" in one.message


# room and order


def test_so_many_stages_run_at_once_as_there_are_workers(stage, tmp_path):
    def busy(run, note):
        (tmp_path / f"in-{run.pk}").touch()
        until = time.monotonic() + 10
        while len(list(tmp_path.glob("in-*"))) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        return fine(run, note)

    stage(busy)
    ones = [block(stages=["extract"]) for _ in range(6)]
    results = runner.work_off([one.pk for one in ones], workers=3)
    assert [result.state for result in results] == [State.DONE] * 6


def test_a_block_that_only_lacks_room_at_its_source_is_asked_again(stage):
    stage(fine)
    one = block(stages=["extract"])
    Pipeline.objects.filter(pk=one.pipeline_id).update(window_column="")  # a snapshot: one after the other
    others = [
        ScheduleBlock.objects.create(
            pipeline=one.pipeline, starts_at=one.starts_at + timedelta(days=n), ends_at=one.ends_at + timedelta(days=n),
            stage="extract", stages=["extract"], due_at=NOW - timedelta(days=300),
        )
        for n in (1, 2)
    ]  # fmt: skip
    results = runner.work_off([one.pk, *(other.pk for other in others)], workers=3)
    assert [result.state for result in results] == [State.DONE] * 3


def test_a_ring_that_comes_twice_finds_nothing_to_do(stage):
    stage(fine)
    one = go(block())
    assert runner.work(one.pk) == "somebody else moved it: it is done"
    assert one.runs.count() == 2


# clocks and databases


@pytest.mark.parametrize("seconds", [-120, 120])
def test_a_host_whose_clock_is_wrong_runs_all_stages_all_the_same(stage, seconds):
    stage(fine)
    one = block()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True):
        blocks.requeue(one.pk, actor=ANN)
        assert go(one).state == State.DONE


def test_a_short_absence_of_the_database_loses_no_result(stage, monkeypatch):
    stage(fine)
    one = block()
    real = {name: getattr(blocks, name) for name in ("claim", "advance", "renew")}
    failing = dict.fromkeys(real, 2)

    def flaky(name):
        def act(*args, **kwargs):
            if failing[name]:
                failing[name] -= 1
                raise OperationalError("server closed the connection unexpectedly")
            return real[name](*args, **kwargs)

        return act

    for name in real:
        monkeypatch.setattr(blocks, name, flaky(name))
    monkeypatch.setattr(runner.time, "sleep", lambda seconds: None)
    go(one)
    assert (one.state, one.runs.count()) == (State.DONE, 2)
    assert failing["claim"] == failing["advance"] == 0


def test_a_stage_is_stopped_before_its_lease_runs_out_when_the_database_stays_away(stage, monkeypatch):
    stage(hold_until_killed)
    monkeypatch.setattr(runner, "PATIENCE_SECONDS", 0.3)
    one = block()

    def away(run, **progress):
        raise OperationalError("no route to host")

    monkeypatch.setattr(blocks, "renew", away)
    go(one)
    assert one.state == State.RUNNING and children() == []  # nobody could write it down; the lease will


# the worker itself


WORKER = """
import os, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "opendata_ops.settings"
import django; django.setup()
from django.conf import settings
settings.WORK_DIR = sys.argv[2]
settings.HEARTBEAT_SECONDS = 0.1
from pipelines import runner, stages
def slow(run, note):
    print("child", os.getpid(), flush=True)
    time.sleep(600)
stages.carry_out = slow
runner.work(int(sys.argv[1]))
"""


def test_when_a_worker_is_killed_its_stage_dies_with_it_and_another_worker_finishes(stage, tmp_path):
    one = block()
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(one.pk), str(tmp_path / "w")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with worker:
        child = int(worker.stdout.readline().split()[1])
        one.refresh_from_db()
        assert one.state == State.RUNNING
        worker.kill()
    assert gone(child)
    assert blocks.reap() == []  # its lease still holds: nobody else may begin yet
    ScheduleBlock.objects.filter(pk=one.pk).update(lease_until=datetime.now(UTC) - timedelta(seconds=1))
    assert planner.sweep()["reaped"] == 1
    stage(fine)
    go(one)
    assert (one.state, one.fence) == (State.DONE, 3)
    assert [run.state for run in one.runs.order_by("pk")] == [RunState.CRASHED, RunState.DONE, RunState.DONE]


def test_a_stage_that_this_version_does_not_have_is_named(monkeypatch):
    monkeypatch.delitem(stages.STAGES, Stage.ENRICH)
    one = go(block(stages=["enrich"]))
    assert (one.state, one.error_code) == (State.FAILED, "no-such-stage")
    assert "Take enrich out of the stages" in one.next_step
