"""Upkeep jobs: due by the city's clock, done once whoever asks, given up when lost; the nightly heal; three doors; presets."""

from datetime import UTC, datetime, time, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db.models.functions import Now
from django.urls import reverse
from django_q.models import OrmQ

from catalog.audit import Actor
from catalog.models import AuditEntry
from opendata_ops import selectors as front
from pipelines import planner, tasks
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Provider, ScheduleBlock, State, Trigger, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs, presets
from pipelines.upkeep.jobs import Job, JobLost
from tests import world
from tests.pipelines.commanding import command
from tests.pipelines.scene import stage_scene, together  # noqa: F401  a fixture
from tests.web import plain_web  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
ANN = Actor("ann")
RunState = UpkeepRun.State


class Sweep(Job):
    """A job of the tests: does what a test tells it."""

    kind = "test-sweep"
    label = "Sweep"
    options = ()
    does = staticmethod(lambda job, run, note: "Swept.")

    def run(self, job, run, note):
        return type(self).does(job, run, note)


@pytest.fixture
def does(monkeypatch):
    """Let the job of the tests do something else."""

    def set_to(what):
        monkeypatch.setattr(Sweep, "does", staticmethod(what))

    return set_to


def job(**fields) -> UpkeepJob:
    values = {"kind": "test-sweep", "title": "Sweep", "at_time": time(2), "time_zone": world.CHICAGO, **fields}
    return UpkeepJob.objects.create(**values)


def asked(one: UpkeepJob | None = None) -> UpkeepRun:
    return jobs.start(one or job(), actor=ANN, reason="spring").run


# when


@pytest.mark.parametrize(
    "fields, after, expected",
    [
        ({}, "2026-06-10T06:59Z", "2026-06-10T07:00Z"),
        ({}, "2026-06-10T07:00Z", "2026-06-11T07:00Z"),
        # the night on which 02:00 does not exist: the next valid minute; and the next day again at two
        ({}, "2026-03-08T06:30Z", "2026-03-08T08:00Z"),
        ({}, "2026-03-08T08:00Z", "2026-03-09T07:00Z"),
        # the night on which 01:30 comes twice: once, at its first
        ({"at_time": time(1, 30)}, "2026-11-01T05:00Z", "2026-11-01T06:30Z"),
        ({"at_time": time(1, 30)}, "2026-11-01T06:30Z", "2026-11-02T07:30Z"),
        ({"cadence": "hourly", "at_time": time(0, 15)}, "2026-06-10T06:20Z", "2026-06-10T07:15Z"),
        ({"cadence": "weekly", "day": 1}, "2026-06-10T06:20Z", "2026-06-15T07:00Z"),
        ({"cadence": "monthly", "day": 3, "at_time": time(7, 40)}, "2026-06-10T06:20Z", "2026-07-03T12:40Z"),
        ({"cadence": "monthly", "day": 31, "at_time": time(7, 40)}, "2026-02-10T06:20Z", "2026-02-28T13:40Z"),
        ({"cadence": "manual"}, "2026-06-10T06:20Z", None),
    ],
)
def test_the_next_time_is_by_the_citys_clock_also_when_it_changes(fields, after, expected):
    values = {"cadence": "daily", "at_time": time(2), "time_zone": world.CHICAGO, **fields}
    found = jobs.next_time(UpkeepJob(**values), datetime.fromisoformat(after))
    assert found == (datetime.fromisoformat(expected) if expected else None)


def test_a_job_is_not_begun_by_having_been_made_and_what_was_missed_is_done_once():
    one = job()
    assert jobs.begin_due(NOW) == []
    one.refresh_from_db()
    assert one.next_at == datetime(2026, 11, 22, 8, tzinfo=UTC)
    [run] = jobs.begin_due(NOW + timedelta(days=5))
    assert (run.job, run.trigger, run.asked_by) == (one, Trigger.SCHEDULE, "schedule")
    assert jobs.begin_due(NOW + timedelta(days=5)) == []


def test_a_job_with_an_impossible_schedule_does_not_stop_the_others():
    job(title="Nowhere", time_zone="Mars/Olympus")
    job(title="Never", cadence="weekly", day=9)
    well = job(title="Well")
    assert jobs.plan(NOW) == 1
    well.refresh_from_db()
    assert well.next_at


@pytest.mark.django_db(transaction=True)
def test_of_many_ticks_at_once_one_asks():
    job(next_at=NOW - timedelta(minutes=1))
    begun = together(lambda: len(jobs.begin_due(NOW)), 6)
    assert sum(begun) == UpkeepRun.objects.count() == 1
    assert AuditEntry.objects.filter(kind="upkeep").count() == 1  # and nobody had to be refused


def test_the_tick_asks_rings_and_rings_again_for_a_lost_message():
    one = job(next_at=NOW - timedelta(minutes=1))
    planner.ring_upkeep(NOW)
    [message] = OrmQ.objects.all()
    assert message.task["func"] == planner.UPKEEP and message.task["func"] in tasks.ALLOWED
    planner.ring_upkeep(NOW)
    assert OrmQ.objects.count() == 1
    UpkeepRun.objects.update(asked_at=Now() - timedelta(minutes=2))
    planner.ring_upkeep(NOW)
    assert OrmQ.objects.count() == 2
    assert tasks.carry_out_upkeep(one.runs.get().pk) == "Swept."
    assert tasks.carry_out_upkeep(one.runs.get().pk) == "nothing to do"
    assert one.runs.get().state == RunState.DONE


# asked and done


def test_a_job_that_goes_on_is_not_begun_again_and_both_answers_are_in_the_audit():
    one = job()
    assert jobs.start(one, actor=ANN).run
    answer = jobs.start(one, actor=Actor("bob"), reason="me too")
    assert (answer.run, answer.text) == (None, "It waits already, asked by ann.")
    assert [entry.result.startswith("refused") for entry in AuditEntry.objects.filter(kind="upkeep").order_by("pk")] == [False, True]


@pytest.mark.django_db(transaction=True)
def test_a_run_is_done_by_one_of_many_workers(does):
    did = []
    does(lambda job, run, note: did.append(run.pk) or "Swept.")
    run = asked()
    together(lambda: jobs.carry_out(run.pk), 5)
    assert did == [run.pk]


def test_what_a_job_says_meanwhile_is_a_sign_of_life_and_is_kept(does):
    def work(one, run, note):
        note("Half of it.", rooms=3)
        seen = UpkeepRun.objects.get(pk=run.pk)
        assert (seen.message, seen.details) == ("Half of it.", {"rooms": 3})
        return "All of it."

    does(work)
    ended = jobs.carry_out(asked().pk)
    assert (ended.state, ended.message, ended.details) == (RunState.DONE, "All of it.", {"rooms": 3, "trouble": False})


@pytest.mark.parametrize(
    "error, words",
    [(SetupError("The table is gone.", next_step="Name another."), "The table is gone. Name another."), (KeyError("x"), "Unexpected KeyError")],
)
def test_a_job_that_fails_says_why_and_may_be_begun_again(does, error, words):
    def work(*_):
        raise error

    does(work)
    one = job()
    ended = jobs.carry_out(asked(one).pk)
    assert ended.state == RunState.FAILED and words in ended.message
    assert jobs.start(one, actor=ANN).run


def test_a_time_out_of_the_queue_ends_the_run_in_words_and_goes_on_to_the_queue(does):
    def work(*_):
        raise SystemExit(1)

    does(work)
    run = asked()
    with pytest.raises(SystemExit):
        jobs.carry_out(run.pk)
    run.refresh_from_db()
    assert (run.state, run.message) == (RunState.FAILED, "The worker was stopped before it was done.")


def test_a_lost_job_is_given_up_and_what_it_still_wants_to_say_is_void(does):
    def work(job, run, note):
        UpkeepRun.objects.filter(pk=run.pk).update(beat_at=Now() - timedelta(hours=2))
        assert jobs.give_up_lost() == 1
        with pytest.raises(JobLost):
            note("I live.")
        note("So I do.")

    does(work)
    ended = jobs.carry_out(asked().pk)
    assert ended.state == RunState.FAILED and "no sign of life" in ended.message


def test_a_job_of_an_unknown_kind_fails_in_words():
    ended = jobs.carry_out(asked(job(kind="moonshine")).pk)
    assert ended.state == RunState.FAILED and "no upkeep job of the kind 'moonshine'" in ended.message


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"kind": "moonshine"}, "kind"),
        ({"kind": "heal", "options": {"weeks": 3}}, "options"),
        ({"kind": "heal", "options": [3]}, "options"),
        ({"kind": "heal", "cadence": "weekly", "day": 8}, "day"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_by_field(fields, field):
    with pytest.raises(ValidationError) as refused:
        jobs.check(UpkeepJob(**{"title": "x", "options": {}, **fields}))
    assert list(refused.value.message_dict) == [field]


def test_two_kinds_of_one_name_can_not_be():
    with pytest.raises(TypeError, match="two upkeep jobs"):
        type("Again", (Job,), {"kind": "heal", "label": "Heal", "run": lambda *_: ""})


# heal


def hours(one: Pipeline, *blocks: dict) -> list[ScheduleBlock]:
    """Blocks of the last hours, the newest last, each in the given state."""
    made = []
    for back, fields in zip(range(len(blocks), 0, -1), blocks, strict=True):
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=back + 1)
        made.append(world.block(one, (start, start + timedelta(hours=1)), **fields))
    ScheduleBlock.objects.bulk_create(made)
    return made


def scooters(slug: str = "scooters", **fields) -> Pipeline:
    source = world.provider(f"p-{slug}", "Source")
    world.Provider.objects.filter(slug="portal").exists() or world.provider("portal", "Portal")
    values = {"cadence": "hourly", "stages": world.ALL_STAGES, **fields}
    return world.pipeline(slug, slug, source, world.dataset(slug, slug), datetime.now(UTC), **values)


def healed(**options) -> UpkeepRun:
    return jobs.carry_out(asked(job(kind="heal", title="Nightly heal", options=options)).pk)


def test_what_failed_is_run_again_from_where_it_failed_and_nothing_else_is():
    one = scooters()
    blocks = hours(
        one,
        {"state": "failed", "stage": "extract"},
        {"state": "failed", "stage": "load", "rows": 5},
        {"state": "failed", "stage": "publish", "rows": 5},
        {"state": "done", "rows": 9, "rejected": 2},
        {"state": "done", "rows": 0, "mark": "empty"},
        {"state": "done", "rows": 0, "mark": "no-service"},
        {"state": "held", "stage": "load", "error_code": "held"},
        {"state": "waiting", "error_code": "not-ready"},
        {"state": "running"},
        {"state": "failed", "superseded_at": NOW},
    )
    before = {found.pk: found for found in ScheduleBlock.objects.all()}
    ended = healed()
    assert (
        ended.message == "3 blocks of the last 35 days were asked to run again: 1 from extract, 1 from load, 1 from publish. 1 is held, and left so."
    )
    after = {found.pk: found for found in ScheduleBlock.objects.select_related("pipeline")}
    for block, stages in zip(blocks[:3], (world.ALL_STAGES, ["load", "publish"], ["publish"]), strict=True):
        now = after[block.pk]
        assert (now.state, now.stages, now.stage, now.attempts, now.asked_because) == (State.WAITING, stages, stages[0], 0, "Nightly heal")
    for block in blocks[3:]:
        then, now = before[block.pk], after[block.pk]
        assert (now.state, now.stage, now.changed_at, now.due_at) == (then.state, then.stage, then.changed_at, then.due_at)


def test_older_blocks_paused_pipelines_and_providers_that_are_off_are_left_alone():
    near, paused, off = scooters("near"), scooters("paused", is_paused=True), scooters("off")
    Provider.objects.filter(pk=off.provider_id).update(is_active=False)
    for one in (near, paused, off):
        hours(one, {"state": "failed"})
    long_ago = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=36)
    world.block(near, (long_ago, long_ago + timedelta(hours=1)), "failed").save()
    assert healed().details["asked"] == 1
    assert list(ScheduleBlock.objects.filter(state=State.WAITING).values_list("pipeline__slug", flat=True)) == ["near"]
    UpkeepJob.objects.all().delete()
    assert healed(days=40).details["asked"] == 1


def test_of_a_snapshot_only_the_newest_block_is_worth_healing():
    one = scooters("snap", window_column="", cadence="daily")
    _, _, newest = hours(one, {"state": "failed"}, {"state": "failed"}, {"state": "failed"})
    assert healed().details["asked"] == 1
    assert ScheduleBlock.objects.get(state=State.WAITING).pk == newest.pk


def test_healing_twice_asks_once():
    hours(scooters(), {"state": "failed"})
    assert healed().details["asked"] == 1
    assert jobs.carry_out(asked(UpkeepJob.objects.get()).pk).message == "Nothing of the last 35 days had failed."


def test_an_option_that_is_no_number_fails_in_words():
    assert "days must be a whole number, not 'many'" in healed(days="many").message


@pytest.mark.django_db(transaction=True)
def test_a_night_heals_what_an_outage_of_the_warehouse_left_without_a_person(stage_scene):  # noqa: F811
    """The source is not asked again: each hour goes on from the load that had failed."""
    scene = stage_scene(120, window_column="updateddate", cadence="hourly", warehouse="default")
    scene.change(warehouse="nowhere")
    command("run", scene.pipeline.slug, "--time-min", "2026-01-01-00", "--time-max", "2026-01-01-02")
    assert list(ScheduleBlock.objects.values_list("state", "stage")) == [("failed", "load")] * 2
    scene.change(warehouse="default")
    days = (datetime.now(UTC) - datetime(2026, 1, 1, tzinfo=UTC)).days + 1
    assert healed(days=days).details["by_stage"] == {"load": 2}
    planner.ring_due()
    for block_id in ScheduleBlock.objects.due(Now()).values_list("pk", flat=True):
        tasks.work(block_id)
    assert list(ScheduleBlock.objects.values_list("state", flat=True)) == ["done"] * 2
    assert len(scene.runs("extract")) == 2 and len(scene.warehouse()) == len(scene.portal_rows()) == 120


# presets


def test_presets_make_the_usual_jobs_once_and_overwrite_nobodys_wish():
    for slug, settle in (("fresh", 0), ("own", 90)):
        scooters(slug, cadence="daily", settle_minutes=settle)
    plain = scooters("plain", cadence="daily")
    Provider.objects.filter(slug__in=["p-fresh", "p-own"]).update(kind="mds")
    first = presets.make(actor=ANN)
    assert first[0] == "fresh: every hour, 30 hours after its end."
    settled = {one.slug: (one.cadence, one.settle_minutes) for one in Pipeline.objects.all()}
    assert settled == {"fresh": ("hourly", 1800), "own": ("daily", 90), "plain": ("daily", 0)} and plain
    heal = UpkeepJob.objects.get(title="Nightly heal")
    assert (heal.kind, heal.at_time, heal.time_zone, heal.options) == ("heal", time(2), world.CHICAGO, {"days": 35})
    report = UpkeepJob.objects.get(title="Monthly trip report")
    assert (report.cadence, report.day, report.at_time) == ("monthly", 3, time(7, 40))
    UpkeepJob.objects.filter(title="Nightly heal").update(at_time=time(4))
    assert "it was there, and stays as it is" in presets.make(actor=ANN)[0]
    heal.refresh_from_db()
    assert heal.at_time == time(4)


# the doors


def test_the_command_lists_runs_and_tells_in_json():
    assert command("upkeep").code == 3
    hours(scooters(), {"state": "failed"})
    assert command("upkeep", "--presets").code == 0
    told = command("upkeep", "heal", "--run", "--reason", "after the flood", "--json")
    assert told.code == 0, told.err
    assert (told.json["run"]["state"], told.json["run"]["details"]["asked"], told.json["run"]["trigger"]) == ("done", 1, "command")
    listed = command("upkeep", "--json").json["jobs"]
    assert {one["kind"]: one["state"] for one in listed}["heal"] == "done"
    assert "1 block of the last 35 days was asked to run again" in command("upkeep", "Nightly heal").out
    assert AuditEntry.objects.filter(kind="upkeep", reason="after the flood").exists()


@pytest.mark.parametrize("words, said", [(["--run"], "Say which job"), (["moonshine"], "There is no upkeep job 'moonshine'")])
def test_the_command_refuses_in_words(words, said):
    job()
    told = command("upkeep", *words)
    assert told.code == 2 and said in told.err and "Next: " in told.err


def test_the_command_fails_with_1_where_the_job_does(does):
    def work(*_):
        raise SetupError("The table is gone.")

    does(work)
    job()
    assert command("upkeep", "Sweep", "--run").code == 1


def test_the_page_shows_each_job_and_an_operator_runs_one_with_a_reason(client):
    viewer, operator, _ = world.people()
    one = job(next_at=datetime.now(UTC) + timedelta(hours=5))
    client.force_login(viewer)
    page = client.get(reverse("upkeep")).content.decode()
    assert "Sweep" in page and "every day at 02:00 (America/Chicago)" in page and "Run now" not in page
    assert client.post(reverse("upkeep_run", args=[one.pk])).status_code == 403
    client.force_login(operator)
    assert "Run now" in client.get(reverse("upkeep")).content.decode()
    client.post(reverse("upkeep_run", args=[one.pk]), {"reason": "spring"})
    run = one.runs.get()
    assert (run.asked_by, run.asked_because, run.state) == ("operator", "spring", RunState.WAITING)
    assert OrmQ.objects.count() == 1
    assert "spring" in client.get(reverse("upkeep_job", args=[one.pk])).content.decode()
    again = client.post(reverse("upkeep_run", args=[one.pk]), follow=True).content.decode()
    assert "It waits already, asked by operator." in again
    jobs.carry_out(run.pk)
    assert "Swept." in client.get(reverse("upkeep")).content.decode()
    assert client.get(reverse("upkeep"), {"format": "json"}).json()["jobs"][0]["last"]["message"] == "Swept."


def test_a_job_that_failed_needs_a_person_until_it_goes_well_again(client, does):
    def work(*_):
        raise SetupError("The table is gone.")

    does(work)
    one = job()
    jobs.carry_out(asked(one).pk)
    [need] = front.board(datetime.now(UTC)).needs
    assert (need.title, need.cause) == ("Sweep", "The table is gone.") and front.needs_count(datetime.now(UTC)) == 1
    does(lambda *_: "Swept.")
    jobs.carry_out(asked(one).pk)
    assert front.needs_count(datetime.now(UTC)) == 0


def test_a_steward_edits_a_job_in_the_admin_and_its_next_time_follows(client):
    *_, steward = world.people()
    client.force_login(steward)
    values = {
        "title": "Nightly heal",
        "kind": "heal",
        "options": '{"days": 7}',
        "cadence": "daily",
        "at_time": "02:00",
        "day": "1",
        "time_zone": "UTC",
        "notices": "always",
    }
    client.post(reverse("admin:pipelines_upkeepjob_add"), {**values, "is_active": "on"})
    one = UpkeepJob.objects.get()
    assert one.next_at.astimezone(UTC).hour == 2
    page = reverse("admin:pipelines_upkeepjob_change", args=[one.pk])
    client.post(page, {**values, "is_active": "on", "at_time": "03:30"})
    one.refresh_from_db()
    assert one.next_at.astimezone(UTC).strftime("%H:%M") == "03:30"
    refused = client.post(page, {**values, "options": '{"weeks": 7}'}).content.decode()
    assert "Heal has no weeks" in refused
    assert AuditEntry.objects.filter(kind="upkeep", target="Nightly heal").count() == 2
