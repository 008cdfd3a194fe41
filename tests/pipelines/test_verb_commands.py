"""`cancel`, `hold`, `release` and `tick`: the operator's verbs in the terminal."""

from datetime import UTC, datetime, timedelta

import pytest

from catalog.models import AuditEntry
from pipelines import planner
from pipelines.models import Pipeline, ScheduleBlock, State
from tests import world
from tests.pipelines.commanding import command

pytestmark = pytest.mark.django_db

NOW = datetime.now(UTC)


@pytest.fixture
def potholes() -> Pipeline:
    source = world.provider("offices", "City offices")
    return world.pipeline("potholes", "Potholes", source, world.dataset("potholes", "Potholes"), NOW, stages=["extract", "load"], portal=None)


def block(one: Pipeline, state: str, days_ago: int = 1) -> ScheduleBlock:
    start = NOW - timedelta(days=days_ago)
    made = world.block(one, (start, start + timedelta(days=1)), state)
    made.save()
    return made


def state(one: ScheduleBlock) -> str:
    one.refresh_from_db()
    return one.state


@pytest.mark.parametrize(
    "verb, before, after",
    [("cancel", "waiting", "held"), ("hold", "waiting", "held"), ("hold", "failed", "held"), ("release", "held", "waiting")],
)
def test_a_verb_moves_a_block_and_leaves_who_and_why(potholes, verb, before, after):
    one = block(potholes, before)
    told = command(verb, str(one.pk), "--reason", "the road is closed", "--json")
    assert told.code == 0
    assert [(found["block"], found["pipeline"], found["state"], found["moved"]) for found in told.json["blocks"]] == [
        (one.pk, "potholes", after, True)
    ]
    assert state(one) == after
    entry = AuditEntry.objects.get(verb=verb, target=str(one.pk))
    assert entry.reason == "the road is closed"
    assert entry.actor.endswith("(command)")


def test_cancel_asks_a_running_block_to_stop(potholes):
    one = block(potholes, State.RUNNING)
    told = command("cancel", str(one.pk))
    assert told.code == 0
    assert "Asked to stop; it ends within seconds." in told.out
    one.refresh_from_db()
    assert one.cancel_asked_at is not None
    again = command("cancel", str(one.pk))
    assert again.code == 2
    assert "being stopped already" in again.err
    assert "Next: Wait some seconds" in again.err


@pytest.mark.parametrize(
    "verb, found",
    [("cancel", "done"), ("cancel", "failed"), ("cancel", "held"), ("hold", "done"), ("hold", "held"), ("hold", "running")]
    + [("release", found) for found in ("waiting", "running", "done", "failed")],
)
def test_a_block_in_another_state_is_refused_with_what_to_do_instead(potholes, verb, found):
    one = block(potholes, found)
    told = command(verb, str(one.pk))
    assert told.code == 2
    assert found in told.err
    assert "Next: " in told.err
    assert told.out == ""
    assert state(one) == found
    assert AuditEntry.objects.get(verb=verb).result.startswith("refused: ")


def test_a_pipelines_slug_means_all_its_blocks_that_the_verb_may_move(potholes):
    waiting, failed, done = block(potholes, State.WAITING, 1), block(potholes, State.FAILED, 2), block(potholes, State.DONE, 3)
    told = command("hold", "potholes")
    assert told.code == 0
    assert [state(one) for one in (waiting, failed, done)] == ["held", "held", "done"]
    assert "2 blocks moved, 0 refused." in told.out


def test_a_pipeline_without_such_a_block_is_nothing_to_do(potholes):
    told = command("release", "potholes", "--json")
    assert (told.code, told.json) == (3, {"blocks": []})
    assert "Nothing to do: no block of potholes is held." in told.err


def test_one_refusal_among_others_is_2_and_the_others_have_moved(potholes):
    waiting, done = block(potholes, State.WAITING, 1), block(potholes, State.DONE, 2)
    told = command("hold", str(waiting.pk), str(done.pk))
    assert told.code == 2
    assert (state(waiting), state(done)) == ("held", "done")
    assert "1 block moved, 1 refused." in told.out


@pytest.mark.parametrize("target", ["987654321", "99999999999999999999999", "nowhere", "-1x"])
def test_what_is_not_there_is_refused_before_anything_moves(potholes, target):
    one = block(potholes, State.WAITING)
    words = ["hold", str(one.pk), "--", target] if target.startswith("-") else ["hold", str(one.pk), target]
    told = command(*words)
    assert told.code == 2
    assert "There is no" in told.err
    assert "Next: " in told.err
    assert state(one) == "waiting"


def test_a_block_that_is_named_twice_is_pressed_once(potholes):
    one = block(potholes, State.WAITING)
    assert command("hold", str(one.pk), str(one.pk), "potholes").code == 0
    assert AuditEntry.objects.filter(verb="hold").count() == 1


# tick


@pytest.mark.django_db(transaction=True)
def test_a_tick_plans_and_rings_and_tells_how_many(potholes):
    potholes.starts_on = (NOW - timedelta(days=3)).date()
    potholes.save()
    told = command("tick", "--json")
    assert told.code == 0
    assert told.json["made"] == ScheduleBlock.objects.count() > 0
    assert told.json["rung"] == planner.queue_depth() > 0
    assert f"{told.json['made']} blocks planned" in told.err
    assert command("tick", "--json").json["made"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_schedule_that_can_not_be_planned_is_2_and_the_log_names_it(potholes, caplog):
    Pipeline.objects.update(time_zone="Mars/Olympus")
    told = command("tick")
    assert told.code == 2
    assert "The schedule of 1 pipeline can't be planned" in told.err
    assert "Next: " in told.err
    assert "potholes" in caplog.text
