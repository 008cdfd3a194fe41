"""After a load: each step is done once, has a state of its own, is never silent, and never fails the load."""

import itertools
import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from django.db.models.functions import Now

from catalog.audit import Actor
from catalog.models import AuditEntry
from opendata_ops.sandbox.wire import Reply
from pipelines import blocks, planner, secrets, tasks
from pipelines.blocks import Counts, Outcome
from pipelines.errors import SetupError, TransientError
from pipelines.models import AfterRun, AfterStep, Pipeline, Run, ScheduleBlock, State
from pipelines.upkeep import after
from tests import world
from tests.pipelines.commanding import command
from tests.pipelines.connectors.servers import Told
from tests.pipelines.scene import city, drop_city, stage_scene, together  # noqa: F401  a fixture

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
ANN = Actor("ann")
SECRET = "hook-canary-8c1f2e"
Kind, States = AfterStep.Kind, AfterRun.State
_names = itertools.count(1)

pytestmark = pytest.mark.django_db


class Receiver(Told):
    """The other side: a webhook, a cache, a report. Keeps what it was told."""

    def __init__(self, says=None):
        super().__init__(says)
        self.heard = []

    def answer(self, request, fault):
        self.heard.append(request)
        return super().answer(request, fault)

    @property
    def texts(self):
        return [request.json()["text"] for request in self.heard]


@pytest.fixture
def receiver(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Receiver() as server:
        yield server


def plain(text, status=200, **headers):
    return Reply(status, text.encode(), "text/plain; charset=utf-8", headers=headers)


def pipeline(**fields) -> Pipeline:
    name = f"after{next(_names)}"
    values = {"stages": ["extract", "load"], "portal": None, "portal_resource": "", **fields}
    return world.pipeline(name, values.pop("title", "The “big” one"), world.provider(f"p-{name}", "S"), world.dataset(name, name), NOW, **values)


def step(one: Pipeline, kind, position=0, *, secret="", **fields) -> AfterStep:
    return AfterStep.objects.create(pipeline=one, kind=kind, position=position, secret=secrets.seal(secret) if secret else "", **fields)


def webhook(one: Pipeline, server, **fields) -> AfterStep:
    return step(one, Kind.NOTIFY, 9, secret=f"{server.url}/services/T00000000/B00000000/{SECRET}", **fields)


def block(one: Pipeline, day: int = 1) -> ScheduleBlock:
    start = datetime(2026, 11, day, 6, tzinfo=UTC)
    values = {"stage": one.stages[0], "stages": one.stages, "due_at": NOW - timedelta(days=300)}
    return ScheduleBlock.objects.create(pipeline=one, starts_at=start, ends_at=start + timedelta(days=1), **values)


def stage_of(one: ScheduleBlock, stage: str = "") -> Run:
    run = blocks.claim(one.pk, holder="host:1:1")
    assert run is not None and (not stage or run.stage == stage)
    return run


def load(one: ScheduleBlock, inserted=3, updated=2, message="5 rows.", **more) -> Run:
    """Its extract and its load go well. Returns the load."""
    one.refresh_from_db()
    if one.stage == "extract":
        blocks.advance(stage_of(one), Outcome(Counts(rows_in=5, rows_out=5)))
    run = stage_of(one, "load")
    counts = Counts(rows_in=inserted + updated, rows_out=inserted + updated, inserted=inserted, updated=updated)
    blocks.advance(run, Outcome(counts, message=message, **more))
    return Run.objects.get(pk=run.pk)


def ends(one: Pipeline | None = None) -> list[tuple]:
    """(kind, state, words) of all that was due, oldest first."""
    found = AfterRun.objects.order_by("pk")
    return list((found.filter(step__pipeline=one) if one else found).values_list("step__kind", "state", "message"))


def states(one: Pipeline | None = None) -> list[tuple]:
    return [end[:2] for end in ends(one)]


# what is due


def test_after_a_load_every_active_step_is_due_and_a_notice_only_at_the_blocks_end(receiver):
    portal = world.provider("portal-of-it", "Portal")
    one = pipeline(stages=["extract", "load", "publish"], portal=portal, portal_resource="abcd-1234")
    step(one, Kind.ANALYZE)
    step(one, Kind.VACUUM, is_active=False)
    webhook(one, receiver)
    own = block(one)
    load(own)
    assert states() == [("analyze", "waiting")]
    blocks.advance(stage_of(own, "publish"), Outcome(Counts()))
    assert states() == [("analyze", "waiting"), ("notify", "waiting")]


def test_a_load_that_failed_or_an_unchanged_source_asks_for_no_refresh(receiver):
    one = pipeline()
    step(one, Kind.ANALYZE)
    unchanged = block(one, 1)
    blocks.advance(stage_of(unchanged), Outcome(Counts(), mark="unchanged", is_final=True))
    failed = block(one, 2)
    blocks.advance(stage_of(failed), Outcome(Counts(rows_in=5, rows_out=5)))
    blocks.fail(stage_of(failed, "load"), SetupError("No such column."))
    assert ends() == []


def test_a_failure_that_is_tried_again_is_not_told_and_one_for_good_is(receiver):
    one = pipeline(max_attempts=2)
    webhook(one, receiver)
    own = block(one)
    blocks.fail(stage_of(own), TransientError("S said 503."))
    assert ends() == []
    ScheduleBlock.objects.filter(pk=own.pk).update(due_at=Now())
    blocks.fail(stage_of(own), TransientError("S said 503."))
    assert states() == [("notify", "waiting")]


def test_a_worker_that_died_for_the_last_time_is_told(receiver):
    one = pipeline(max_attempts=1)
    webhook(one, receiver)
    blocks.crash(stage_of(block(one)), "The process of extract was ended by SIGKILL.")
    after.carry_out()
    assert "FAILURE: Something went wrong" in receiver.texts[0] and "SIGKILL" in receiver.texts[0]


def test_who_cancelled_needs_no_notice(receiver):
    one = pipeline()
    webhook(one, receiver)
    own = block(one)
    run = stage_of(own)
    blocks.cancel(own.pk, actor=ANN)
    blocks.fail(run, TransientError("S said 503."))
    assert ends() == []


def test_what_is_due_is_noted_with_the_end_of_the_load_or_not_at_all(monkeypatch):
    one = pipeline()
    step(one, Kind.ANALYZE)
    own = block(one)
    blocks.advance(stage_of(own), Outcome(Counts(rows_in=5, rows_out=5)))
    run = stage_of(own, "load")

    def full(*args, **kwargs):
        raise OSError("the disk is full")

    monkeypatch.setattr(AfterRun.objects, "bulk_create", full)
    with pytest.raises(OSError):
        blocks.advance(run, Outcome(Counts(rows_in=5, rows_out=5)))
    own.refresh_from_db()
    assert (own.state, own.stage) == (State.RUNNING, "load")


# notices


def test_a_block_that_is_done_is_told_with_what_was_loaded(receiver):
    one = pipeline(title='Requests of "2020"')
    webhook(one, receiver, prefix="Testing")
    load(block(one), inserted=1_234, updated=5, message="All 1,239 rows are in.")
    after.carry_out()
    assert receiver.texts == [
        'Testing :grin: "Requests of "2020"" loaded [1,234] records, updated [5] records, and finished with message "All 1,239 rows are in."'
    ]
    assert receiver.heard[0].json().keys() == {"text"} and receiver.heard[0].headers["content-type"] == "application/json"
    assert ends() == [("notify", "done", f"127.0.0.1:{receiver.port} took it.")]


def test_an_unchanged_source_is_told_as_nothing_loaded_though_an_earlier_load_brought_rows(receiver):
    one = pipeline()
    own = block(one)
    load(own, inserted=77)
    webhook(one, receiver)
    blocks.requeue(own.pk, actor=ANN)
    blocks.advance(stage_of(own), Outcome(Counts(), message="The source is unchanged.", mark="unchanged", is_final=True))
    after.carry_out()
    assert 'loaded [0] records, updated [0] records, and finished with message "The source is unchanged."' in receiver.texts[0]


def test_a_publish_alone_tells_of_the_load_that_it_finished(receiver):
    one = pipeline(stages=["extract", "load", "publish"], portal=world.provider("portal-x", "Portal"), portal_resource="abcd-1234")
    webhook(one, receiver)
    own = block(one)
    load(own, inserted=77, updated=0)
    blocks.fail(stage_of(own, "publish"), SetupError("The portal has no row identifier."))
    blocks.requeue(own.pk, actor=ANN)
    blocks.advance(stage_of(own, "publish"), Outcome(Counts(), message="Sent."))
    after.carry_out()
    assert "FAILURE" in receiver.texts[0] and "loaded [77] records, updated [0] records" in receiver.texts[1]


@pytest.mark.parametrize("mark", ["suspicious", ""])
def test_a_suspicious_or_held_end_is_told_as_a_doubt(receiver, mark):
    one = pipeline()
    webhook(one, receiver)
    own = block(one)
    if mark:
        load(own, message="3 rows; usually 400.", mark=mark)
    else:
        ScheduleBlock.objects.filter(pk=own.pk).update(stages=["extract"])
        blocks.advance(stage_of(own), Outcome(Counts(rows_in=5, rows_out=5), message="Read 5 rows."))
    after.carry_out()
    assert receiver.texts[0].startswith(" :confused: Something might have failed in The “big” one: ")


def test_a_notice_tells_how_the_block_ended_then_although_it_has_moved_on_since(receiver):
    one = pipeline(max_attempts=1)
    webhook(one, receiver)
    own = block(one)
    blocks.fail(stage_of(own), SetupError("S has no such dataset."))
    blocks.requeue(own.pk, actor=ANN)
    after.carry_out()
    assert receiver.texts == [' :rage: FAILURE: Something went wrong in The “big” one: "S has no such dataset."']


def test_a_long_message_arrives_whole_in_several_posts(receiver):
    one = pipeline(max_attempts=1)
    webhook(one, receiver)
    message = "\n".join(f'row {number} has a "quote" and an it\'s' for number in range(300))
    blocks.fail(stage_of(block(one)), SetupError(message))
    after.carry_out()
    assert len(receiver.texts) > 2 and all(len(text) <= 3_000 for text in receiver.texts)
    assert "\n".join(receiver.texts).endswith(f'"{message}"')
    assert ends()[0][2].endswith(f"took it, in {len(receiver.texts)} posts.")


def test_a_webhook_that_is_down_changes_nothing_but_its_own_state(receiver):
    one = pipeline()
    webhook(one, receiver)
    receiver.stop()
    own = block(one)
    load(own, message="5 rows.")
    before = ScheduleBlock.objects.values().get(pk=own.pk), list(Run.objects.order_by("pk").values())
    after.carry_out()
    assert states() == [("notify", "failed")] and "127.0.0.1" in ends()[0][2]
    assert (ScheduleBlock.objects.values().get(pk=own.pk), list(Run.objects.order_by("pk").values())) == before
    assert before[0]["state"] == State.DONE


def test_a_webhook_says_in_its_own_words_why_it_refuses(receiver):
    receiver.says = plain("channel_is_archived", 410)
    one = pipeline()
    webhook(one, receiver)
    load(block(one))
    after.carry_out()
    assert ends()[0][1:] == ("failed", f"127.0.0.1:{receiver.port} says 410: channel_is_archived. Check the address of this step.")


def test_a_webhook_that_is_asked_too_often_is_asked_again_after_its_pause(receiver, monkeypatch):
    naps = []
    monkeypatch.setattr(after.time, "sleep", naps.append)
    answers = iter([plain("slow down", 429, **{"Retry-After": "2"}), plain("ok")])
    receiver.says = lambda request: next(answers)
    one = pipeline()
    webhook(one, receiver)
    load(block(one))
    after.carry_out()
    assert states() == [("notify", "done")] and naps == [2]


def test_half_a_notice_is_told_as_such(receiver):
    answers = iter([plain("ok"), plain("no_text", 400)])
    receiver.says = lambda request: next(answers)
    one = pipeline(max_attempts=1)
    webhook(one, receiver)
    blocks.fail(stage_of(block(one)), SetupError("word " * 1_000))
    after.carry_out()
    assert ends()[0][1] == "failed" and "no_text. 1 of 2 posts had arrived." in ends()[0][2]


@pytest.mark.parametrize("trouble", ["down", "refuses", "echoes", "redirects", "well"])
def test_the_address_of_a_webhook_is_told_nowhere(receiver, caplog, trouble):
    caplog.set_level(logging.DEBUG)  # where libraries tell of each request
    address = f"{receiver.url}/services/T00000000/B00000000/{SECRET}"
    elsewhere = {"Location": f"http://127.0.0.1:1/services/T00000000/B00000000/{SECRET}"}
    receiver.says = {
        "refuses": plain("no", 500),
        "echoes": plain(f"bad address {address} {SECRET}", 404),
        "redirects": Reply(302, b"", headers=elsewhere),
    }.get(trouble, plain("ok"))
    if trouble == "down":
        receiver.stop()
    one = pipeline()
    webhook(one, receiver)
    load(block(one))
    after.carry_out()
    told = [*itertools.chain.from_iterable(ends()), caplog.text, *AfterStep.objects.values_list("secret", flat=True)]
    assert not [text for text in told if SECRET in text]
    assert "Starting new HTTP connection" in "".join(told)
    assert "127.0.0.1" in ends()[0][2]


def test_a_webhook_from_the_environment_is_read_when_it_is_needed_and_named_when_it_is_missing(receiver, monkeypatch):
    one = pipeline()
    step(one, Kind.NOTIFY, secret="env:OPS_HOOK_OF_TEST")
    load(block(one))
    after.carry_out()
    assert ends()[0][1] == "failed" and "OPS_HOOK_OF_TEST" in ends()[0][2]
    monkeypatch.setenv("OPS_HOOK_OF_TEST", f"{receiver.url}/{SECRET}")
    after.retry(AfterRun.objects.get().pk, actor=ANN)
    after.carry_out()
    assert states() == [("notify", "done")] and receiver.heard[0].path == f"/{SECRET}"


def test_an_address_that_no_rule_allows_is_refused(receiver, settings):
    settings.OUTBOUND_ALLOW = []
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/status/reset-cache")
    load(block(one))
    after.carry_out()
    assert ends()[0][1] == "failed" and "OUTBOUND_ALLOW" in ends()[0][2] and not receiver.heard


# caches and reports


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_cache_is_cleared_by_an_empty_json_post_and_any_2xx_is_done(receiver, status):
    receiver.says = Reply.of({"message": "cache successfully reset"}, status)
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/status/reset-cache", secret=SECRET)
    load(block(one))
    after.carry_out()
    (asked,) = receiver.heard
    assert (asked.method, asked.path, asked.json(), asked.headers["authorization"]) == ("POST", "/status/reset-cache", {}, f"Bearer {SECRET}")
    assert ends() == [("post", "done", f"127.0.0.1:{receiver.port} answered {status}.")]


def test_a_cache_that_refuses_is_a_failure_that_says_what_it_answered_and_is_asked_once(receiver):
    receiver.says = plain(f"redis is away {SECRET}", 500)
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset", secret=SECRET)
    own = block(one)
    load(own)
    after.carry_out()
    assert ends() == [("post", "failed", f"127.0.0.1:{receiver.port} answered 500 Internal Server Error: redis is away ***.")]
    assert len(receiver.heard) == 1
    own.refresh_from_db()
    assert own.state == State.DONE


def test_a_report_is_reloaded_when_its_answer_holds_the_words(receiver):
    receiver.says = Reply(200, "<html><p>Reloading… é</p></html>".encode(), "text/html")
    one = pipeline()
    step(one, Kind.RELOAD, 1, target=f"{receiver.url}/reload", expect="Reloading…")
    step(one, Kind.RELOAD, 2, target=f"{receiver.url}/reload", expect="Done")
    step(one, Kind.RELOAD, 3, target=f"{receiver.url}/reload")
    load(block(one))
    after.carry_out()
    assert [end[1] for end in ends()] == ["done", "failed", "done"]
    assert "without the words “Done”; it began: <html><p>Reloading… é" in ends()[1][2]


def test_an_answer_with_any_bytes_is_kept_in_readable_words(receiver):
    receiver.says = plain("a\x00b\x07 \ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), 500)
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one))
    after.carry_out()
    assert ends()[0][1] == "failed" and "\x00" not in ends()[0][2]


# the warehouse, for real


@pytest.fixture
def views(transactional_db):
    city("create schema if not exists city")
    city("create table city.after_t (id int primary key)")
    city("create materialized view city.after_sharp as select * from city.after_t")
    city("create unique index on city.after_sharp (id)")
    city("create materialized view city.after_blunt as select * from city.after_t")
    yield
    city("drop materialized view city.after_sharp, city.after_blunt")
    drop_city()


_NO_VIEWS = [
    ("lost", "There is no warehouse 'lost'."),
    ("foreign", "A warehouse's address begins with"),
    ("maria", "MariaDB and MySQL have no materialized views"),
]


@pytest.mark.django_db(transaction=True)
def test_steps_are_done_in_their_order_and_one_that_fails_stops_no_other(views, receiver):
    one = pipeline(table="after_t")
    step(one, Kind.POST, 5, target=f"{receiver.url}/reset")
    step(one, Kind.REFRESH, 2, target="after_sharp")
    step(one, Kind.REFRESH, 1, target="no_such_view")
    step(one, Kind.REFRESH, 3, target="city.after_blunt")
    step(one, Kind.ANALYZE, 4)
    step(one, Kind.VACUUM, 4)
    webhook(one, receiver)
    city("insert into city.after_t values (1), (2)")
    own = block(one)
    load(own)
    ended = after.carry_out()
    assert [(end.step.position, end.state) for end in ended] == [
        (1, "failed"), (2, "done"), (3, "done"), (4, "done"), (4, "done"), (5, "done"), (9, "done"),
    ]  # fmt: skip
    words = [end.message for end in ended]
    assert words[0].startswith("There is no materialized view no_such_view in city or public.")
    assert words[1].startswith("Refreshed city.after_sharp concurrently") and "not concurrently" in words[2]
    assert city("select (select count(*) from city.after_sharp), (select count(*) from city.after_blunt)") == [(2, 2)]
    own.refresh_from_db()
    assert own.state == State.DONE


@pytest.mark.parametrize(("alias", "words"), _NO_VIEWS)
def test_a_warehouse_that_cannot_do_it_is_said_in_words(settings, alias, words):
    settings.WAREHOUSES = {**settings.WAREHOUSES, "foreign": "oracle://host/name", "maria": "mysql://nobody@nowhere/city"}
    one = pipeline(warehouse=alias)
    step(one, Kind.REFRESH, target="v")
    load(block(one))
    after.carry_out()
    assert ends()[0][1] == "failed" and words in ends()[0][2]


# whose turn


def test_what_a_later_load_is_due_to_do_too_is_done_once(receiver):
    one, other = pipeline(table="shared"), pipeline(table="shared")
    for own in (one, other):
        step(own, Kind.POST, target=f"{receiver.url}/reset")
        webhook(own, receiver)
    step(other, Kind.RELOAD, target=f"{receiver.url}/reload")
    load(block(one, 1))
    load(block(one, 2))
    load(block(other, 1))
    after.carry_out()
    assert states(one) == [("post", "skipped"), ("notify", "done"), ("post", "skipped"), ("notify", "done")]
    assert ends(one)[0][2] == "A later load is due to do the same."
    assert sorted(states(other)) == [("notify", "done"), ("post", "done"), ("reload", "done")]
    assert len([asked for asked in receiver.heard if asked.path == "/reset"]) == 1


def test_an_earlier_load_than_the_one_being_served_is_not_skipped_for_it(receiver):
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one, 1))
    after.carry_out()
    load(block(one, 2))
    after.carry_out()
    assert states() == [("post", "done"), ("post", "done")]


def test_the_same_deed_is_never_begun_while_it_goes_on_elsewhere(receiver):
    one, other = pipeline(), pipeline()
    for own in (one, other):
        step(own, Kind.POST, 1, target=f"{receiver.url}/reset")
        step(own, Kind.RELOAD, 2, target=f"{receiver.url}/reload")
    load(block(one))
    AfterRun.objects.filter(step__kind=Kind.POST).update(state=States.RUNNING, started_at=Now())
    load(block(other))
    assert after.carry_out() == []
    assert states() == [("post", "running"), ("reload", "waiting"), ("post", "waiting"), ("reload", "waiting")]


def test_a_notice_waits_for_no_step(receiver):
    one = pipeline()
    step(one, Kind.POST, 1, target=f"{receiver.url}/reset")
    webhook(one, receiver)
    load(block(one))
    AfterRun.objects.filter(step__kind=Kind.POST).update(state=States.RUNNING, started_at=Now())
    after.carry_out()
    assert states() == [("post", "running"), ("notify", "done")]


def test_a_step_that_was_switched_off_meanwhile_is_skipped(receiver):
    one = pipeline()
    off = step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one))
    AfterStep.objects.filter(pk=off.pk).update(is_active=False)
    after.carry_out()
    assert states() == [("post", "skipped")] and not receiver.heard


@pytest.mark.django_db(transaction=True)
def test_of_many_who_carry_out_at_once_each_step_has_one(receiver):
    receiver.latency = 0.05
    for _ in range(3):
        one = pipeline()
        step(one, Kind.POST, target=f"{receiver.url}/{one.slug}")
        webhook(one, receiver)
        load(block(one))
    together(after.carry_out, 4)
    paths = [asked.path for asked in receiver.heard if asked.path.startswith("/after")]
    assert len(paths) == len(set(paths)) == 3 and len(receiver.heard) == 6
    assert {state for _, state in states()} == {"done"}


def test_only_the_named_blocks_are_served(receiver):
    one = pipeline()
    webhook(one, receiver)
    first, second = block(one, 1), block(one, 2)
    load(first)
    load(second)
    after.carry_out(block_ids=[second.pk])
    assert states() == [("notify", "waiting"), ("notify", "done")]


# death and silence


@pytest.mark.django_db(transaction=True)
def test_what_a_worker_died_before_is_finished_by_the_tick(stage_scene, receiver):  # noqa: F811
    scene = stage_scene(10)
    webhook(scene.pipeline, receiver)
    step(scene.pipeline, Kind.ANALYZE)
    scene.go()  # its worker is gone before it carries out what is due
    assert states() == [("analyze", "waiting"), ("notify", "waiting")] and scene.block.state == State.DONE
    planner.tick()
    assert _rung() == 0, "the worker of the load may still come to it"
    AfterRun.objects.update(asked_at=Now() - timedelta(seconds=61))
    planner.tick()
    assert _rung() == 1
    tasks.carry_out_after()
    assert states() == [("analyze", "done"), ("notify", "done")] and len(receiver.texts) == 1
    planner.tick()
    assert _rung() == 1


def _rung() -> int:
    """Messages in the queue that ask for it."""
    from django_q.models import OrmQ

    return sum(message.func() == planner.AFTER for message in OrmQ.objects.all())


@pytest.mark.django_db(transaction=True)
def test_the_worker_of_a_load_does_what_is_due_after_it(stage_scene, receiver):  # noqa: F811
    scene = stage_scene(10)
    webhook(scene.pipeline, receiver)
    step(scene.pipeline, Kind.ANALYZE)
    placed = scene.place()
    tasks.work(placed.moved[0])
    assert states() == [("analyze", "done"), ("notify", "done")]
    assert "loaded [10] records, updated [0] records" in receiver.texts[0]


@pytest.mark.django_db(transaction=True)
def test_a_run_in_the_foreground_does_what_is_due_and_a_step_that_fails_does_not_fail_it(stage_scene, receiver):  # noqa: F811
    scene = stage_scene(10)
    step(scene.pipeline, Kind.REFRESH, 1, target="no_such_view")
    webhook(scene.pipeline, receiver)
    told = command("run", scene.pipeline.slug)
    assert told.code == 0 and scene.block.state == State.DONE
    assert "after the load: Refresh the view no_such_view: failed. There is no materialized view" in told.err
    assert f"manage.py after --retry {AfterRun.objects.get(step__kind=Kind.REFRESH).pk}" in told.err
    assert "after the load: Notify a webhook: done." in told.out
    again = command("run", scene.pipeline.slug, "--force", "--json")
    assert again.code == 0 and [(one["kind"], one["state"]) for one in again.json["after"]] == [("refresh", "failed"), ("notify", "done")]


def test_a_step_whose_worker_was_lost_is_failed_in_words_and_can_be_done_again(receiver):
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one))
    AfterRun.objects.update(state=States.RUNNING, started_at=Now() - timedelta(minutes=34))
    planner.tick()
    assert states() == [("post", "running")]
    AfterRun.objects.update(started_at=F("started_at") - timedelta(minutes=2))
    planner.tick()
    assert ends() == [("post", "failed", "The worker that did it was lost: whether it was done is not known. Try it again.")]
    assert after.retry(AfterRun.objects.get().pk, actor=ANN).moved
    after.carry_out()
    assert states() == [("post", "done")]


def test_a_late_worker_cannot_end_what_another_does_again(receiver, monkeypatch):
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one))

    def lost_meanwhile(request):
        AfterRun.objects.update(started_at=Now() - timedelta(minutes=36))
        after.give_up_lost()
        return plain("ok")

    real = after._post
    monkeypatch.setitem(after._ACTS, Kind.POST, lambda due: (lost_meanwhile(None), real(due))[1])
    after.carry_out()
    assert states() == [("post", "failed")]


def test_a_worker_that_is_stopped_lets_the_next_one_begin_again(receiver, monkeypatch):
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset")
    load(block(one))

    def stopped(due):
        raise SystemExit("time-out of the queue")

    with monkeypatch.context() as patch:
        patch.setitem(after._ACTS, Kind.POST, stopped)
        with pytest.raises(SystemExit):
            after.carry_out()
    assert ends() == [("post", "waiting", "The worker was stopped; it begins again.")]
    after.carry_out()
    assert states() == [("post", "done")]


def test_a_fault_of_the_program_is_recorded_and_stops_no_other_step(receiver, monkeypatch, caplog):
    one = pipeline()
    step(one, Kind.POST, 1, target=f"{receiver.url}/reset")
    webhook(one, receiver)
    load(block(one))

    def broken(due):
        raise KeyError("x")

    monkeypatch.setitem(after._ACTS, Kind.POST, broken)
    after.carry_out()
    assert states() == [("post", "failed"), ("notify", "done")] and "KeyError" in ends()[0][2]


def test_no_request_is_made_and_no_view_refreshed_inside_a_transaction(views, receiver, monkeypatch):
    from django.db import connection

    seen = []
    receiver.says = lambda request: (seen.append("asked"), plain("ok"))[1]
    one = pipeline(table="after_t")
    step(one, Kind.POST, 1, target=f"{receiver.url}/reset")
    step(one, Kind.REFRESH, 2, target="after_sharp")
    load(block(one))
    for kind in (Kind.POST, Kind.REFRESH):
        real = after._ACTS[kind]
        monkeypatch.setitem(after._ACTS, kind, lambda due, real=real: (seen.append(connection.in_atomic_block), real(due))[1])
    after.carry_out()
    assert seen == [False, "asked", False] and [state for _, state in states()] == ["done", "done"]


# again, by hand


def test_a_retry_leaves_its_audit_row_and_only_a_failed_step_takes_it(receiver):
    receiver.says = plain("no", 500)
    one = pipeline()
    step(one, Kind.POST, target=f"{receiver.url}/reset?token={SECRET}")
    own = block(one)
    load(own)
    after.carry_out()
    due = AfterRun.objects.get()
    verdict = after.retry(due.pk, actor=ANN, reason="redis is back")
    assert verdict.moved and verdict.block_id == own.pk
    second = after.retry(due.pk, actor=ANN)
    assert not second.moved and second.text == "Only a failed step can be done again; this one is waiting."
    rows = list(AuditEntry.objects.filter(verb="retry").order_by("pk").values_list("actor", "kind", "target", "reason", "result"))
    assert [row[:4] for row in rows] == [("ann", "block", str(own.pk), "redis is back"), ("ann", "block", str(own.pk), "")]
    assert "Asked to do it again." in rows[0][4] and SECRET not in rows[0][4] and rows[1][4].startswith("refused: ")


def test_a_step_that_is_switched_off_is_not_done_again(receiver):
    one = pipeline()
    off = step(one, Kind.REFRESH, target="nothing")
    load(block(one))
    after.carry_out()
    AfterStep.objects.filter(pk=off.pk).update(is_active=False)
    verdict = after.retry(AfterRun.objects.get().pk, actor=ANN)
    assert not verdict.moved and "switched off" in verdict.text and states() == [("refresh", "failed")]
