"""`status`: what is stored, in words and as JSON, also when nothing is there or nobody listens."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from pipelines import planner
from pipelines.models import COUNTS, Pipeline, Run, RunState, ScheduleBlock, State
from tests import world
from tests.pipelines.commanding import command, ended, program

pytestmark = pytest.mark.django_db

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
STAGES = ["extract", "load", "publish"]


def pipeline(slug: str = "potholes", **fields) -> Pipeline:
    source = world.provider(f"source-of-{slug}", "City offices")
    portal = world.provider(f"portal-of-{slug}", "Portal")
    return world.pipeline(slug, slug.title(), source, world.dataset(slug, slug.title()), NOW, **{"stages": STAGES, "portal": portal, **fields})


def block(one: Pipeline, state: str = State.DONE, days_ago: int = 1, rows: int = 100, **fields) -> ScheduleBlock:
    """A saved block; a block that is done has the runs that explain it."""
    start = NOW - timedelta(days=days_ago)
    made = world.block(one, (start, start + timedelta(days=1)), state, rows, **fields)
    made.save()
    if state == State.DONE:
        Run.objects.bulk_create(world.runs_of(made))
    return made


# words


def test_an_empty_installation_is_told_what_to_do_first():
    told = command("status")
    assert told.code == 0
    assert "There is no pipeline yet. Next: python3 manage.py import_config" in told.out


def test_each_state_is_counted_and_what_needs_a_person_comes_with_its_next_step():
    one = pipeline()
    block(one, days_ago=3)
    failed = block(one, State.FAILED, 2, stage="publish", message="The portal says 404.", next_step="Correct the id.")
    held = block(one, State.HELD, 1, stage="load", message="Held by ann.")
    told = command("status", "potholes")
    assert "potholes: 1 done, 1 failed, 1 held; next due" in told.out
    assert f"block {failed.pk}" in told.out
    assert "failed at publish. The portal says 404.\n    Next: Correct the id." in told.out
    assert f"block {held.pk}" in told.out
    assert "held before load. Held by ann." in told.out


def test_more_blocks_than_are_shown_are_counted():
    one = pipeline()
    for day in range(1, 10):
        block(one, State.FAILED, day)
    told = command("status").out
    assert told.count("failed at extract") == 5
    assert "and 4 more: python3 manage.py status potholes --json" in told


def test_a_state_that_was_asked_for_is_shown_also_when_it_is_done():
    one = pipeline()
    done, failed = block(one, days_ago=2), block(one, State.FAILED)
    told = command("status", "--state", "done")
    assert f"block {done.pk}" in told.out
    assert f"block {failed.pk}" not in told.out


def test_a_failure_that_was_made_good_says_so():
    one = pipeline()
    block(one, State.FAILED, superseded_at=NOW)
    assert "made good by a later run" in command("status").out


def test_a_block_that_waits_for_its_time_tells_it_in_the_citys():
    one = pipeline(time_zone="Asia/Tokyo")
    block(one, State.WAITING, due_at=datetime(2999, 1, 1, 15, tzinfo=UTC))
    assert "waiting for extract, due Wed Jan 02, 00:00:00 JST" in command("status").out


def test_a_pipeline_that_does_not_exist_is_2_and_near_names_are_told():
    pipeline()
    told = command("status", "pothole", "--json")
    assert told.code == 2
    assert "Did you mean potholes?" in told.json["next_step"]


@pytest.mark.parametrize("words", [["--limit", "0"], ["--limit", "-3"], ["--provider", "nobody"]])
def test_bad_usage_is_2_with_the_next_step(words):
    told = command("status", *words)
    assert (told.code, told.out) == (2, "")
    assert "Next: " in told.err


# the machinery


def test_when_no_worker_listens_that_is_said_with_what_to_do():
    told = command("status")
    assert "workers answered never" in told.out
    assert "No worker listens" in told.err
    assert "manage.py up" in told.err
    planner.beat("canary")
    assert command("status").err == ""


def test_a_queue_that_can_not_be_asked_does_not_hide_what_is_stored(monkeypatch):
    def down():
        raise ConnectionError("redis is away")

    monkeypatch.setattr(planner, "queue_depth", down)
    pipeline()
    told = command("status")
    assert told.code == 0
    assert "potholes: no blocks yet" in told.out
    assert "can't be asked (ConnectionError)" in told.out
    assert "QUEUE_URL" in told.err
    assert command("status", "--json").json["machinery"]["queue_depth"] is None


# json


def test_json_has_the_promised_names_for_every_block():
    one = pipeline()
    made = {state: block(one, state, days) for days, state in enumerate(State.values, start=1)}
    told = command("status", "potholes", "--json")
    assert told.code == 0
    assert told.err == ""
    found = {block["block"]: block for block in told.json["blocks"]}
    assert {pk: block["state"] for pk, block in found.items()} == {block.pk: state for state, block in made.items()}
    assert set(found[made["done"].pk]["stages"]) == set(STAGES)
    for each in found.values():
        assert each["pipeline"] == "potholes"
        assert {"starts_at", "ends_at", "time_zone", "text"} == set(each["window"])
        for stage in each["stages"].values():
            assert {*COUNTS, "seconds"} <= set(stage)
    done = found[made["done"].pk]
    assert (done["stages"]["load"]["inserted"], done["stages"]["publish"]["published"], done["rows"]["adds_up"]) == (100, 100, True)


def test_json_is_one_pipelines_one_states_or_the_newest():
    one, other = pipeline(), pipeline("trees")
    for day in range(1, 5):
        block(one, days_ago=day)
    failed = block(other, State.FAILED)
    assert {told["pipeline"] for told in command("status", "--json").json["blocks"]} == {"potholes", "trees"}
    assert [told["block"] for told in command("status", "--state", "failed", "--json").json["blocks"]] == [failed.pk]
    newest = command("status", "potholes", "--limit", "2", "--json").json["blocks"]
    starts = sorted((found.starts_at.isoformat() for found in one.blocks.all()), reverse=True)
    assert [told["window"]["starts_at"] for told in newest] == starts[:2]


def unchanged(one: Pipeline, days_ago: int, evidence: Run) -> ScheduleBlock:
    """A block that found the source as `evidence` had left it."""
    made = block(one, State.WAITING, days_ago)
    Run.objects.create(
        block=made, stage="extract", state=RunState.UNCHANGED, attempt=1, fence=1, trigger="schedule", asked_by="schedule", holder="h:1:1",
        finished_at=NOW, rows_in=100, unchanged=100, details={"evidence_run": evidence.pk},
    )  # fmt: skip
    return made


def test_a_source_that_did_not_change_shows_the_counts_of_the_block_that_read_it():
    one = pipeline(window_column="")
    read = block(one, days_ago=9)
    later = unchanged(one, 1, read.runs.get(stage="extract"))
    [told] = [told for told in command("status", "--json").json["blocks"] if told["block"] == later.pk]
    assert told["rows"]["adds_up"] is True
    assert f"block {read.pk:,}" in told["rows"]["note"]


def test_the_number_of_queries_does_not_grow_with_the_blocks():
    one = pipeline(window_column="")
    evidence = block(one, days_ago=40).runs.get(stage="extract")

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            command("status", "--json")
        return len(captured)

    unchanged(one, 1, evidence)
    few = queries()
    for day in range(2, 12):
        unchanged(one, day, evidence)
    assert queries() == few


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_leaves_sees_no_traceback():
    """`status --json | head -1`"""
    one = pipeline()
    for day in range(1, 80):
        block(one, days_ago=day)
    process = program("status", "--json")
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    assert err == ""


@pytest.mark.django_db(transaction=True)
def test_a_program_tells_the_same_as_the_command():
    block(pipeline())
    assert ended(program("status", "--json")).json["blocks"] == command("status", "--json").json["blocks"]
