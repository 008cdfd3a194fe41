"""What a webhook is told of an upkeep job, and when; jobs that only look; what they find."""

from datetime import UTC, datetime

import pytest
from django.urls import reverse

from catalog.audit import Actor
from catalog.models import AuditEntry
from opendata_ops.sandbox.wire import Reply
from pipelines import planner, secrets
from pipelines.errors import SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.selectors import upkeep as selectors
from pipelines.upkeep import jobs, telling
from pipelines.upkeep.jobs import Job
from pipelines.upkeep.notices import LONGEST, MOST_POSTS, reports
from tests import world
from tests.pipelines.commanding import command
from tests.pipelines.connectors.servers import Told
from tests.web import plain_web  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
RunState = UpkeepRun.State


class Looker(Job):
    """A job of the tests that can look: it finds what a test tells it to find."""

    kind = "test-looker"
    label = "Looker"
    can_dry = True
    does = staticmethod(lambda job, run, note: "Looked.")

    def run(self, job, run, note):
        return type(self).does(job, run, note)


class Doer(Job):
    """A job of the tests that can't look."""

    kind = "test-doer"
    label = "Doer"

    def run(self, job, run, note):
        return "Done."


@pytest.fixture
def finds(monkeypatch):
    """Let the job find so much trouble from now on: a number, or an error to raise."""

    def set_to(trouble):
        def does(job, run, note):
            if isinstance(trouble, Exception):
                raise trouble
            note.notice(f"{trouble} found" if trouble else "All well", trouble=bool(trouble))
            return f"{trouble} found."

        monkeypatch.setattr(Looker, "does", staticmethod(does))

    return set_to


@pytest.fixture
def slack(settings):
    """A webhook of this machine; what it was told is in `.texts`, and whole in `.told`."""

    class Slack(Told):
        def __init__(self):
            super().__init__(Reply(200, b"ok", "text/plain"))
            self.told = []

        def answer(self, request, fault):
            self.told.append({"path": request.path, **request.json()})
            return super().answer(request, fault)

        @property
        def texts(self):
            return [told["text"] for told in self.told]

    settings.ENVIRONMENT = "prod"
    with Slack() as server:
        settings.OUTBOUND_ALLOW = [server.url.removeprefix("http://")]
        yield server


def job(webhook: str = "", **fields) -> UpkeepJob:
    values = {"kind": "test-looker", "title": "Looker", "webhook": webhook and secrets.seal(webhook), **fields}
    return UpkeepJob.objects.create(**values)


def done(one: UpkeepJob, *, is_dry: bool = False, naps: list[float] | None = None) -> UpkeepRun:
    answer = jobs.start(one, actor=ANN, is_dry=is_dry)
    assert answer.run, answer.text
    return jobs.carry_out(answer.run.pk, pause=(naps if naps is not None else []).append)


# the posts, without a database


def test_a_report_is_split_as_the_original_splits_it_and_its_head_is_repeated():
    """Facts 1.8, as their function was run: 100 lines of 69 characters under "*job* | DEV" are three posts of 2939, 2939 and 1119."""
    lines = [f"{number:03}" + "x" * 66 for number in range(100)]
    posts = reports("*job* | DEV", "\n".join(lines), "Open Data Ops (dev)")
    bodies = [post["text"].removeprefix("*job* | DEV\n") for post in posts]
    assert [len(body) for body in bodies] == [2939, 2939, 1119] and "\n".join(bodies) == "\n".join(lines)
    assert all(post["text"].startswith("*job* | DEV\n") and post["username"] == "Open Data Ops (dev)" for post in posts)


def test_one_line_of_7000_characters_is_cut_and_never_sent_three_times():
    posts = [post["text"].removeprefix("*job* | DEV\n") for post in reports("*job* | DEV", "x" * 7_000, "me")]
    assert len(posts) == 3 and "".join(posts) == "x" * 7_000


def test_a_table_that_is_cut_stays_a_table_in_every_post():
    text = "EMPTIES FOUND:\n```\n" + "\n".join(f"{n}.\t{'shelter ' * 8}" for n in range(120)) + "\n```"
    posts = [post["text"] for post in reports("*job* | DEV", text, "me")]
    assert len(posts) > 2
    assert all(len(post) <= LONGEST and post.count("```") == 2 for post in posts)
    assert sum(post.count("shelter") for post in posts) == 960


def test_a_flood_of_findings_is_cut_short_and_says_where_the_rest_is():
    posts = reports("*job* | DEV", "x" * 1_000_000, "me")
    assert len(posts) == MOST_POSTS and "on the page of the job." in posts[-1]["text"]


# who is told, and when


def test_in_trouble_each_run_warns_its_end_is_told_once_and_a_healthy_job_is_silent(slack, finds):
    one = job(slack.url, notices="trouble")
    said = []
    for trouble in (0, 2, 3, 0, 0):
        finds(trouble)
        said.append(done(one).noticed)
    assert slack.texts == ["*Looker* | PROD\n2 found", "*Looker* | PROD\n3 found", "*Looker* | PROD\nAll well"]
    assert said[0] == said[4] == "Nobody was told: nothing is wrong." and "took it" in said[1]


def test_a_job_that_failed_is_trouble_too_and_its_recovery_is_told(slack, finds):
    one = job(slack.url, notices="trouble")
    finds(SetupError("The portal is gone.", next_step="Ask it."))
    assert done(one).state == RunState.FAILED
    finds(0)
    done(one)
    assert slack.texts == ["*Looker* | PROD\n:red_circle: Failed: The portal is gone. Ask it.", "*Looker* | PROD\nAll well"]


def test_a_run_that_only_looked_tells_nobody_and_is_no_part_of_the_story(slack, finds):
    one = job(slack.url, notices="trouble")
    finds(2)
    assert done(one, is_dry=True).noticed == "Nobody was told: it only looked."
    finds(0)
    assert done(one).noticed == "Nobody was told: nothing is wrong."  # it was never warned of
    finds(2)
    done(one)
    finds(0)
    done(one, is_dry=True)
    done(one)
    assert slack.texts == ["*Looker* | PROD\n2 found", "*Looker* | PROD\nAll well"]


def test_a_job_may_warn_only_once_while_it_lasts(slack, finds):
    one = job(slack.url, notices="trouble", options={"repeat": "no"})
    for trouble in (2, 3, 0):
        finds(trouble)
        done(one)
    assert slack.texts == ["*Looker* | PROD\n2 found", "*Looker* | PROD\nAll well"]


def test_always_is_always_and_never_is_never(slack, finds):
    finds(0)
    done(job(slack.url, title="Always"))
    assert slack.texts == ["*Always* | PROD\nAll well"]
    finds(1)
    assert "set to tell nobody" in done(job(slack.url, title="Never", notices="never")).noticed
    assert len(slack.texts) == 1


def test_a_job_without_words_of_its_own_has_those_of_its_run(slack):
    done(job(slack.url, kind="test-doer"))
    assert slack.texts == ["*Looker* | PROD\nDone."]


# which webhook


def test_the_citys_webhook_hears_of_jobs_that_name_none_but_not_that_all_is_well(slack, settings, finds):
    settings.NOTICE_WEBHOOK = slack.url
    finds(1)
    done(job())
    assert "names no webhook of its own" in done(job(kind="test-doer", title="Doer")).noticed
    finds(SetupError("Gone."))
    done(job(title="Other"))
    assert slack.texts == ["*Looker* | PROD\n1 found", "*Other* | PROD\n:red_circle: Failed: Gone."]


def test_outside_production_nothing_reaches_the_citys_channel(slack, settings, finds):
    settings.ENVIRONMENT, settings.NOTICE_WEBHOOK = "staging", f"{slack.url}/city"
    finds(1)
    assert done(job()).noticed == "Nobody was told: no webhook is named, by the job or by the settings."
    settings.NOTICE_WEBHOOK_TEST = f"{slack.url}/test"
    done(job(f"{slack.url}/city", title="A copy of the city's"))
    assert slack.told == [{"path": "/test", "text": "*A copy of the city's* | STAGING\n1 found", "username": "Open Data Ops (staging)"}]


def test_where_no_webhook_is_nobody_is_told_and_that_is_said(settings, finds):
    finds(1)
    assert done(job()).noticed == "Nobody was told: no webhook is named, by the job or by the settings."


def test_a_webhook_may_stand_in_the_environment(slack, monkeypatch, finds):
    monkeypatch.setenv("OPS_CHANNEL", slack.url)
    finds(1)
    one = job()
    UpkeepJob.objects.update(webhook="env:OPS_CHANNEL")
    one.refresh_from_db()
    assert "took it" in done(one).noticed and len(slack.texts) == 1


# how it goes


def test_between_two_posts_it_waits_a_second_and_not_before_the_first(slack, monkeypatch):
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: note.notice("x" * 7_000, trouble=True) or "Long."))
    naps = []
    run = done(job(slack.url), naps=naps)
    assert naps == [telling.PACE_SECONDS] * 2 and len(slack.texts) == 3 and run.noticed.endswith("in 3 posts.")


def test_a_webhook_that_refuses_undoes_nothing_is_written_down_and_never_quoted(slack, finds):
    slack.says = Reply(404, b"channel_not_found", "text/plain")
    finds(1)
    run = done(job(f"{slack.url}/services/T0001/B0001/hushhushhush"))
    assert (run.state, run.message) == (RunState.DONE, "1 found.")
    assert run.noticed.startswith("Could not be told: ") and "404" in run.noticed and "hushhush" not in run.noticed
    assert "webhook" in run.noticed and "of this step" not in run.noticed


def test_a_webhook_that_can_not_be_opened_is_said_too(finds, settings):
    settings.ENVIRONMENT = "prod"
    finds(1)
    one = job()
    UpkeepJob.objects.update(webhook="env:NOT_THERE_AT_ALL")
    one.refresh_from_db()
    assert "the environment has no NOT_THERE_AT_ALL" in done(one).noticed


def test_a_notice_is_redacted_and_bounded(slack, monkeypatch):
    secrets.redact.learn("hunter2hunter2")
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: note.notice("\x00hunter2hunter2" + "y" * 90_000, trouble=True) or "!"))
    run = done(job(slack.url))
    assert "hunter2" not in run.notice and len(run.notice) <= jobs.LONGEST_NOTICE and "hunter2" not in str(slack.texts)


# only looking


def test_a_job_that_can_look_is_told_that_it_only_looks(monkeypatch):
    seen = []
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: seen.append(note.is_dry) or "Looked."))
    run = done(job(), is_dry=True)
    assert seen == [True] and run.is_dry and run.state == RunState.DONE
    done(UpkeepJob.objects.get())
    assert seen == [True, False]


def test_a_job_that_can_not_look_refuses_in_words_and_nothing_is_begun():
    answer = planner.ask_for_upkeep(job(kind="test-doer"), actor=ANN, is_dry=True)
    assert (answer.run, answer.text) == (None, "It can't look without changing anything: it has no dry run.")
    assert AuditEntry.objects.get(kind="upkeep").result.startswith("refused: ") and not UpkeepRun.objects.exists()


def test_a_failure_stays_a_persons_matter_while_others_only_look(finds):
    one = job()
    finds(SetupError("Gone."))
    done(one)
    finds(0)
    done(one, is_dry=True)
    assert [line.run.message for line in selectors.failures()] == ["Gone."]


# what is found


def test_findings_are_plain_values_whatever_came_from_outside(monkeypatch):
    rows = [["a\x00b", 3, None, 2.5, True, datetime(2026, 11, 22, tzinfo=UTC)]]
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: note.findings(list("abcdef"), rows) or "Found."))
    found = done(job()).details["findings"]
    assert found == {"columns": list("abcdef"), "rows": [["a\\x00b", 3, None, 2.5, True, "2026-11-22 00:00:00+00:00"]]}


def test_of_very_many_findings_it_is_said_how_many_more_there_are(monkeypatch):
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: note.findings(["n"], ([n] for n in range(5_007))) or "Found."))
    found = done(job()).details["findings"]
    assert len(found["rows"]) == 5_000 and found["more"] == 7


# the doors


def test_the_command_only_looks_shows_what_it_found_and_refuses_where_it_can_not(monkeypatch):
    monkeypatch.setattr(Looker, "does", staticmethod(lambda job, run, note: note.findings(["title"], [["Shelter"], [None]]) or "Found 1."))
    job()
    told = command("upkeep", "Looker", "--dry-run")
    assert told.code == 0 and "Shelter" in told.out and "Looker (only looked): Found 1." in told.out
    assert UpkeepRun.objects.get().is_dry
    assert command("upkeep", "Looker", "--run", "--dry-run", "--json").json["run"]["is_dry"]
    job(kind="test-doer", title="Doer")
    refused = command("upkeep", "Doer", "--dry-run")
    assert refused.code == 2 and "no dry run" in refused.err and "Next: Run it without --dry-run." in refused.err


def test_the_webhook_in_the_admin_is_write_only_sealed_and_never_in_the_audit(client):
    *_, steward = world.people()
    client.force_login(steward)
    address = "https://hooks.example.com/services/T000/B000/abcdefghijkl"
    values = {
        "title": "Looker", "kind": "test-looker", "options": "{}", "cadence": "manual", "day": "1", "time_zone": "UTC", "notices": "trouble",
        "is_active": "on",
    }  # fmt: skip
    client.post(reverse("admin:pipelines_upkeepjob_add"), {**values, "new_webhook": address})
    one = UpkeepJob.objects.get()
    assert one.webhook.startswith("fernet:") and secrets.reveal(one.webhook) == address and one.notices == "trouble"
    page = reverse("admin:pipelines_upkeepjob_change", args=[one.pk])
    shown = client.get(page).content.decode()
    assert "abcdefghijkl" not in shown and one.webhook not in shown and secrets.MASK in shown
    client.post(page, {**values, "title": "Looker 2"})
    kept = UpkeepJob.objects.get()
    assert (kept.title, kept.webhook) == ("Looker 2", one.webhook)  # an empty field keeps it
    assert "begins with https" in client.post(page, {**values, "new_webhook": "not an address"}).content.decode()
    client.post(page, {**values, "forget_webhook": "on"})
    assert UpkeepJob.objects.get().webhook == ""
    trail = str(list(AuditEntry.objects.values_list("details", "result")))
    assert "webhook set" in trail and "webhook forgotten" in trail and "abcdefghijkl" not in trail and "fernet:" not in trail


def test_rotating_the_keys_seals_the_webhooks_anew():
    one = job("https://hooks.example.com/services/x")
    assert command("rotate_keys").code == 0
    now = UpkeepJob.objects.get()
    assert now.webhook != one.webhook and secrets.reveal(now.webhook) == "https://hooks.example.com/services/x"


# presets


def test_the_presets_of_a_portal_are_made_at_the_original_times_and_only_where_they_can_work():
    assert any("left out, it takes 1 CKAN portal and there are none" in words for words in command("upkeep", "--presets", "toronto").out.splitlines())
    UpkeepJob.objects.all().delete()
    world.provider("open", "Open data", kind="ckan")
    told = command("upkeep", "--presets", "toronto").out
    made = {one.kind: (one.cadence, one.cron, one.notices) for one in UpkeepJob.objects.all()}
    assert made["empty-resources"] == ("cron", "5 4-14 * * *", "trouble")
    assert made["stale-datasets"] == ("cron", "30 4 * * 3", "always")
    assert made["cached-files"][1] == "0 */3 * * *" and made["etl-inventory"][1] == "0 6 * * *" and made["log-retention"][1] == "0 0 * * *"
    assert "catalogue-compare" not in made and "it takes 2 CKAN portals and there is 1" in told
    assert UpkeepJob.objects.exclude(next_at=None).count() == len(made)
    stale = UpkeepJob.objects.get(kind="stale-datasets")
    assert stale.options["portal"] == "open" and jobs.check(stale) is None
