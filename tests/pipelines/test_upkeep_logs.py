"""Old logs: what goes, what stays because it is evidence or the newest, and a dry run that only counts."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from django_q.models import Success, Task

from catalog import audit
from catalog.models import AuditEntry
from pipelines.errors import SetupError
from pipelines.models import ImportLog, LogLine, RejectedRow, Run, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs, log_retention
from tests import world
from tests.pipelines.small_ckan import done, well

pytestmark = pytest.mark.django_db
KIND = "log-retention"
OLD, NEW = timedelta(days=40), timedelta(days=3)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    """The folder of logs of the tests."""
    settings.VAR_DIR = tmp_path
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def block():
    source = world.provider("source", "Source")
    world.provider("portal", "Portal")
    one = world.pipeline("parks", "Parks", source, world.dataset("parks", "Parks"), timezone.now())
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = world.block(one, (start, start + timedelta(hours=1)), "done", rows=1)
    made.save()
    return made


def ran(block, stage: str, back: timedelta = OLD, state: str = "done", **fields) -> Run:
    """A run with two log lines; of a load also a diary."""
    at = timezone.now() - back
    fence = Run.objects.filter(block=block).count() + 1
    facts = {"attempt": 1, "trigger": "schedule", "asked_by": "schedule", "holder": "w", "started_at": at, "finished_at": at}
    run = Run.objects.create(block=block, stage=stage, fence=fence, state=state, **{**facts, **fields})
    for _ in range(2):
        LogLine.objects.create(run=run, at=at, text="Read a page.")
    if stage == "load":
        for event in ("begin", "chunk", "end" if state == "done" else "failed"):
            ImportLog.objects.create(run=run, pipeline=block.pipeline, at=at, event=event, table="parks", file="raw/parks.csv")
    return run


def lines() -> set[int]:
    return set(LogLine.objects.values_list("run_id", flat=True))


def diaries() -> dict[int, int]:
    found: dict[int, int] = {}
    for run_id in ImportLog.objects.values_list("run_id", flat=True):
        found[run_id] = found.get(run_id, 0) + 1
    return found


def test_of_each_stage_of_a_block_the_newest_story_stays_however_old_it_is(block):
    first, second = ran(block, "extract"), ran(block, "extract")
    load = ran(block, "load")
    young_but_overtaken, newest = ran(block, "publish", NEW), ran(block, "publish", NEW)
    run = well(KIND)
    assert lines() == {second.pk, load.pk, young_but_overtaken.pk, newest.pk} and first.pk not in lines()
    assert "2 log lines of runs" in run.message and Run.objects.count() == 5  # the runs with their counts stay


def test_the_diary_by_which_catching_up_sees_what_was_published_stays(block):
    """A load that was not published yet does not overtake the one whose rows are on the portal."""
    oldest = ran(block, "load")
    published = ran(block, "load")
    ran(block, "publish")
    failed, waiting = ran(block, "load", state="failed"), ran(block, "load")
    well(KIND)
    assert diaries() == {published.pk: 3, failed.pk: 3, waiting.pk: 3} and oldest.pk not in diaries()


def test_a_publication_that_was_taken_back_does_not_count(block):
    shown = ran(block, "load")
    ran(block, "publish")
    ran(block, "load")
    ran(block, "publish", superseded_at=timezone.now())
    well(KIND)
    assert shown.pk in diaries()


def test_a_diary_goes_whole_or_not_at_all_so_that_no_load_seems_to_have_died(block, monkeypatch):
    """The job is stopped after its first portion."""
    gone = [ran(block, "load").pk for _ in range(3)]
    LogLine.objects.all().delete()
    kept = ran(block, "load")
    monkeypatch.setattr(log_retention, "PORTION", 1)

    def stop(note, words=""):
        raise SetupError("Stopped.")

    monkeypatch.setattr(jobs.Note, "walk", stop)
    assert done(KIND).message == "Stopped."
    assert diaries() == {gone[1]: 3, gone[2]: 3, kept.pk: 3}
    monkeypatch.undo()
    well(KIND)
    assert diaries() == {kept.pk: 3}


def test_where_nothing_was_loaded_well_every_diary_stays(block):
    failed = [ran(block, "load", state="failed").pk for _ in range(2)]
    well(KIND)
    assert set(diaries()) == set(failed)


def test_rejected_rows_and_the_audit_are_evidence_and_stay(block):
    run = ran(block, "standardize")
    ran(block, "standardize")
    RejectedRow.objects.create(run=run, block=block, reason="no number", file="raw/parks.csv", line=2, at=timezone.now() - OLD)
    audit.write(audit.Actor("ann"), "run", kind="block", target="1", result="Asked.")
    before = AuditEntry.objects.count()
    well(KIND)
    assert RejectedRow.objects.count() == 1 and AuditEntry.objects.count() == before + 1  # that of having asked for this


def test_of_an_upkeep_job_its_newest_runs_and_what_its_webhook_was_last_told_stay():
    job = UpkeepJob.objects.create(kind="heal", title="Heal")
    at = timezone.now() - OLD

    def one(state="done", **fields):
        return UpkeepRun.objects.create(job=job, state=state, finished_at=None if state == "waiting" else at, **fields).pk

    one(details={"trouble": False})
    in_trouble = one(details={"trouble": True})
    one(state="failed")  # its worker was stopped: nobody was told
    real = one()
    one(is_dry=True)
    newest = one(is_dry=True)
    waiting = one(state="waiting")
    run = well(KIND)
    assert set(job.runs.values_list("pk", flat=True)) == {in_trouble, real, newest, waiting} and "3 runs of upkeep jobs" in run.message


def test_messages_that_the_queue_carried_out_go_and_failed_ones_stay():
    for number, (success, back) in enumerate([(True, OLD), (True, NEW), (False, OLD)]):
        at = timezone.now() - back
        Task.objects.create(id=f"t{number}", name=f"t{number}", func="x", started=at, stopped=at, success=success)
    well(KIND)
    assert sorted(Task.objects.values_list("id", flat=True)) == ["t1", "t2"] and Success.objects.count() == 1


def test_old_log_files_and_folders_of_days_go_and_what_is_written_now_stays(folder):
    old, today = f"{timezone.now() - OLD:%Y-%m-%d}", f"{timezone.now():%Y-%m-%d}"
    for name in (old, today, "latest", "2026-99-99"):
        (folder / name).mkdir()
        (folder / name / "web.log").write_text("x")
    for name in ("web.log", "web.log.1", "worker.log.1", "notes.txt"):
        (folder / name).write_text("x")
        if name != "worker.log.1":
            os.utime(folder / name, times=((timezone.now() - OLD).timestamp(),) * 2)
    (folder / "2020-01-01").symlink_to(folder / "latest")
    run = well(KIND)
    left = {path.name for path in folder.iterdir()}
    assert left == {today, "latest", "2026-99-99", "web.log", "worker.log.1", "notes.txt", "2020-01-01"}
    assert run.notice == "*log files*: 2" and len(run.details["files"]) == 2


def test_a_dry_run_counts_what_would_go_and_leaves_it(block, folder):
    ran(block, "load")
    ran(block, "load")
    (folder / "2020-01-01").mkdir()
    run = well(KIND, is_dry=True)
    assert run.message == "Would delete what is older than 30 days: 2 log lines of runs, 3 entries of the import log, 1 log file."
    assert LogLine.objects.count() == 4 and ImportLog.objects.count() == 6 and (folder / "2020-01-01").is_dir()
    assert well(KIND).message == "Deleted what is older than 30 days: 2 log lines of runs, 3 entries of the import log, 1 log file."


def test_nothing_is_told_as_nothing_and_twice_is_harmless(block):
    ran(block, "load")
    for _ in range(2):
        run = well(KIND)
        assert (run.notice, run.message) == ("Nothing", "Nothing is older than 30 days and overtaken.")


def test_nobody_deletes_what_is_still_looked_into():
    assert "kept for 7 days at least, not 1" in done(KIND, days="1").message
