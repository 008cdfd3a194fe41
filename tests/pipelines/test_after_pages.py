"""Steps after a load on pages: written by stewards, seen by all, done again by operators; what failed waits on the first page."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog.models import AuditEntry
from opendata_ops import selectors as front
from pipelines import secrets
from pipelines.models import AfterRun, AfterStep, Run
from pipelines.selectors import after as selectors
from tests import world
from tests.pipelines.commanding import command
from tests.pipelines.connectors.servers import Told
from tests.pipelines.test_admin import pipeline_values
from tests.web import asks, plain_web  # noqa: F401

SECRET = "hook-canary-77aa01"
HOOK = f"https://hooks.example/services/T00000000/{SECRET}"
Kind, States = AfterStep.Kind, AfterRun.State


@pytest.fixture
def city(db):
    return world.build(world.SATURDAY)


@pytest.fixture
def one(city):
    return city.pipelines["requests"]


def step(pipeline, kind=Kind.REFRESH, position=0, **fields):
    return AfterStep.objects.create(pipeline=pipeline, kind=kind, position=position, **{"target": "service_requests", **fields})


def due(what: AfterStep, block, state=States.FAILED, message="There is no materialized view service_requests.", run=None, **fields):
    """The step, due after the newest run of the block."""
    now = timezone.now()
    times = {} if state == States.WAITING else {"started_at": now - timedelta(seconds=3)}
    if state in (States.DONE, States.FAILED, States.SKIPPED):
        times["finished_at"] = now
    return AfterRun.objects.create(step=what, run=run or Run.objects.filter(block=block).first(), state=state, message=message, **times, **fields)


def all_states(one, block):
    """A step in each state, on one block."""
    for position, state in enumerate(States):
        due(step(one, position=position, target=f"view_{state}"), block, state, f"So it is {state}.")


# seen


def test_the_page_of_a_block_tells_each_step_its_state_and_what_was_said(client, city, one):
    all_states(one, city.blocks["requests"])
    due(step(one, Kind.NOTIFY, 9, target="", secret=secrets.seal(HOOK)), city.blocks["requests"], States.DONE, "hooks.example took it.")
    client.force_login(city.viewer)
    page = client.get(city.blocks["requests"].get_absolute_url()).content.decode()
    section = page[page.index('id="after"') : page.index("</section>", page.index('id="after"'))]
    for word in ("Waiting", "Running", "Done", "Failed", "Skipped", "view_failed", "So it is skipped.", "Notify a webhook", "hooks.example took it."):
        assert word in section
    assert "Retry" not in section, "a viewer can't"
    assert SECRET not in page


def test_an_operator_may_do_a_failed_step_again_and_no_other(client, city, one):
    all_states(one, city.blocks["requests"])
    client.force_login(city.operator)
    page = client.get(city.blocks["requests"].get_absolute_url()).content.decode()
    failed = AfterRun.objects.get(state=States.FAILED)
    assert page.count("Retry…") == 1 and reverse("after_retry", args=[failed.pk]) in page


def test_a_failure_that_a_later_load_made_good_is_not_asked_for_again(client, city, one):
    what, block = step(one), city.blocks["requests"]
    first, second = Run.objects.filter(block=block).order_by("pk")[:2]
    due(what, block, run=first)
    assert len(selectors.failures()) == 1
    due(what, block, States.DONE, "Refreshed.", run=second)
    assert selectors.failures() == []
    assert [(line.face.word, line.may_retry) for line in selectors.of_block(block).lines] == [("Done", False), ("Failed, made good", False)]


def test_a_failure_stays_while_a_later_one_only_waits_or_was_skipped(city, one):
    what, block = step(one), city.blocks["requests"]
    first, second = Run.objects.filter(block=block).order_by("pk")[:2]
    failed = due(what, block, run=first)
    later = due(what, block, States.WAITING, "", run=second)
    assert [failure.line.pk for failure in selectors.failures()] == [failed.pk]
    AfterRun.objects.filter(pk=later.pk).update(state=States.SKIPPED)
    assert [failure.line.pk for failure in selectors.failures()] == [failed.pk]


def test_a_step_that_was_switched_off_needs_nobody(city, one):
    due(step(one, is_active=False), city.blocks["requests"])
    assert selectors.failures() == []


def test_a_failed_step_is_on_the_first_page_with_the_button_for_those_who_may(client, city, one):
    before = len(front.board(city.now).needs)
    failed = due(step(one), city.blocks["requests"])
    [need] = [need for need in front.board(city.now).needs if need.hop == "After the load"]
    assert need.cause == "Refresh the view service_requests: There is no materialized view service_requests."
    assert front.needs_count(city.now) == before + 1
    client.force_login(city.operator)
    assert f'href="{reverse("after_retry", args=[failed.pk])}">Retry</a>' in client.get(reverse("today")).content.decode()
    client.force_login(city.viewer)
    page = client.get(reverse("today")).content.decode()
    assert reverse("after_retry", args=[failed.pk]) not in page and "After the load" in page


@pytest.mark.parametrize("tab", ["blocks", "settings"])
def test_the_page_of_a_pipeline_tells_what_failed(client, city, one, tab):
    due(step(one), city.blocks["requests"])
    client.force_login(city.operator)
    page = client.get(reverse("pipeline", args=[one.slug]), {"tab": tab}).content.decode()
    assert "Refresh the view service_requests failed after a load" in page and "Retry…" in page


def test_the_settings_list_the_steps_in_their_order_with_their_last_time_and_no_secret(client, city, one):
    step(one, Kind.ANALYZE, 2, target="")
    cache = step(one, Kind.POST, 1, target=f"https://api.example/reset?token={SECRET}", secret=secrets.seal(SECRET))
    due(cache, city.blocks["requests"], States.DONE)
    step(one, Kind.NOTIFY, 3, target="", secret="env:OPS_HOOK", prefix="Testing", is_active=False)
    client.force_login(city.viewer)
    page = client.get(reverse("pipeline", args=[one.slug]), {"tab": "settings"}).content.decode()
    section = page[page.index('id="after"') :]
    places = [section.index(word) for word in ("Clear a cache at", "Renew the statistics of", "Notify a webhook")]
    assert places == sorted(places)
    for word in ("api.example/reset", "requests", "never due", "env:OPS_HOOK", "Testing", "Switched off", "••••••"):
        assert word in section
    assert SECRET not in page


def test_a_pipeline_without_steps_says_so(client, city, one):
    client.force_login(city.viewer)
    assert "Nothing is done after a load" in client.get(reverse("pipeline", args=[one.slug]), {"tab": "settings"}).content.decode()


def test_the_section_asks_for_itself_until_nothing_moves(client, city, one):
    client.force_login(city.viewer)
    waiting = due(step(one), city.blocks["requests"], States.WAITING, "")
    address = reverse("after_block", args=[city.blocks["requests"].pk])
    assert f'hx-get="{address}"' in client.get(address).content.decode()
    AfterRun.objects.filter(pk=waiting.pk).update(state=States.DONE, finished_at=timezone.now())
    told = client.get(address).content.decode()
    assert "hx-get" not in told and "Done" in told
    assert client.get(reverse("after_block", args=[10**9])).status_code == 404


def test_pages_ask_as_often_however_many_steps_there_are(client, city, one):
    client.force_login(city.operator)
    block = city.blocks["requests"]
    pages = [block.get_absolute_url(), f"{one.get_absolute_url()}?tab=settings", reverse("after_block", args=[block.pk]), reverse("today")]

    def counts():
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        told = []
        for page in pages:
            client.get(page)
            with CaptureQueriesContext(connection) as asked:
                client.get(page)
            told.append(len([query for query in asked if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]))
        return told

    all_states(one, block)
    few = counts()
    for _ in range(4):
        all_states(one, block)
    assert counts() == few
    with asks(2):
        selectors.of_pipeline(one)
    with asks(1):
        selectors.failures()
    with asks(1):
        selectors.of_block(block)


# done again


def test_a_retry_is_confirmed_with_its_reason_and_left_to_a_worker(client, city, one):
    from django_q.models import OrmQ

    failed = due(step(one), city.blocks["requests"])
    client.force_login(city.operator)
    address = reverse("after_retry", args=[failed.pk])
    page = client.get(address).content.decode()
    assert "Refresh the view service_requests" in page and "no stage of it runs" in page
    failed.refresh_from_db()
    assert failed.state == States.FAILED, "to look is not to press"
    reply = client.post(address, {"reason": "the view is there now"})
    assert reply.status_code == 302 and reply.url == city.blocks["requests"].get_absolute_url()
    failed.refresh_from_db()
    assert failed.state == States.WAITING
    row = AuditEntry.objects.filter(verb="retry").get()
    assert (row.actor, row.kind, row.target, row.reason) == ("operator", "block", str(city.blocks["requests"].pk), "the view is there now")
    assert [message.func() for message in OrmQ.objects.all()] == ["pipelines.tasks.carry_out_after"]
    again = client.post(address, {"reason": "twice"}, follow=True).content.decode()
    assert "Nothing was done. Only a failed step can be done again; this one is waiting." in again


def test_on_the_production_system_a_retry_says_why(client, city, one, settings):
    settings.ENVIRONMENT = "prod"
    failed = due(step(one), city.blocks["requests"])
    client.force_login(city.operator)
    reply = client.post(reverse("after_retry", args=[failed.pk]), {"reason": ""})
    assert reply.status_code == 422 and AfterRun.objects.get(pk=failed.pk).state == States.FAILED


def test_who_only_looks_cannot_do_it_again(client, city, one):
    failed = due(step(one), city.blocks["requests"])
    client.force_login(city.viewer)
    for method in (client.get, client.post):
        assert method(reverse("after_retry", args=[failed.pk])).status_code == 403
    client.logout()
    assert client.get(reverse("after_retry", args=[failed.pk])).status_code == 302
    failed.refresh_from_db()
    assert failed.state == States.FAILED


# written


def form_of(one, *steps, **more):
    """What a browser sends of the pipeline's form with these steps."""
    stored = [values for values in steps if values.get("id")]
    sent = {"after_steps-TOTAL_FORMS": len(steps), "after_steps-INITIAL_FORMS": len(stored)}
    for number, values in enumerate(steps):
        sent |= {f"after_steps-{number}-{name}": value for name, value in {"pipeline": one.pk, "position": 1, "is_active": "on", **values}.items()}
    return {**pipeline_values(one, **more), **sent}


@pytest.fixture
def write(client, city, one):
    """Send the form of the pipeline as its steward; returns the answer."""
    client.force_login(city.steward)
    return lambda *steps: client.post(reverse("admin:pipelines_pipeline_change", args=[one.pk]), form_of(one, *steps))


def test_a_steward_writes_steps_and_their_secrets_are_sealed(write, city, one):
    reply = write(
        {"kind": "refresh", "target": "public.service_requests"},
        {"kind": "vacuum", "target": "", "position": 2},
        {"kind": "post", "target": "https://api.example/reset", "new_secret": SECRET, "position": 3},
        {"kind": "notify", "new_secret": HOOK, "prefix": "Testing", "position": 4},
    )
    assert reply.status_code == 302
    stored = list(AfterStep.objects.filter(pipeline=one).order_by("position"))
    assert [step.kind for step in stored] == ["refresh", "vacuum", "post", "notify"]
    assert [step.secret.partition(":")[0] for step in stored] == ["", "", "fernet", "fernet"]
    assert secrets.reveal(stored[3].secret) == HOOK
    told = str(list(AuditEntry.objects.values_list("details", "result")))
    assert "secret set" in told and SECRET not in told


def test_the_form_never_shows_a_secret_and_an_empty_field_keeps_it(client, write, city, one):
    what = step(one, Kind.POST, target="https://api.example/reset", secret=secrets.seal(SECRET))
    page = client.get(reverse("admin:pipelines_pipeline_change", args=[one.pk])).content.decode()
    assert SECRET not in page and what.secret not in page and 'placeholder="set: ••••••"' in page
    assert write({"id": what.pk, "kind": "post", "target": "https://api.example/other"}).status_code == 302
    what.refresh_from_db()
    assert what.target == "https://api.example/other" and secrets.reveal(what.secret) == SECRET


def test_a_secret_can_be_forgotten(write, one):
    what = step(one, Kind.POST, target="https://api.example/reset", secret=secrets.seal(SECRET))
    assert write({"id": what.pk, "kind": "post", "target": "https://api.example/reset", "forget": "on"}).status_code == 302
    what.refresh_from_db()
    assert what.secret == ""
    assert "secret forgotten" in str(AuditEntry.objects.latest("pk").details)


@pytest.mark.parametrize("moved", [{"kind": "post", "target": "https://elsewhere.example/reset"}, {"kind": "notify", "target": ""}])
def test_a_secret_does_not_follow_a_step_to_another_place(write, one, moved):
    what = step(one, Kind.POST, target="https://api.example/reset", secret=secrets.seal(SECRET))
    reply = write({"id": what.pk, **moved})
    assert reply.status_code == 200 and "enter the secret again" in reply.content.decode()
    what.refresh_from_db()
    assert what.target == "https://api.example/reset"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "refresh", "target": ""}, "Name the view"),
        ({"kind": "refresh", "target": "a.b.c; drop table x"}, "Name the view"),
        ({"kind": "analyze", "target": "Not A Table"}, "Name a table of the city"),
        ({"kind": "post", "target": "ftp://x/y"}, "Enter an address like"),
        ({"kind": "post", "target": "https://me:pw@x.example/y"}, "without a user name or password"),
        ({"kind": "reload", "target": ""}, "Enter an address like"),
        ({"kind": "notify"}, "Enter the address of the webhook here"),
        ({"kind": "notify", "new_secret": "hooks.example"}, "A webhook’s address begins with https://"),
        ({"kind": "notify", "target": HOOK, "new_secret": HOOK}, "the address of a webhook is a secret"),
        ({"kind": "notify", "new_secret": "env:SECRET_KEY"}, "is a secret of this program itself"),
    ],
)
def test_a_step_that_cannot_work_is_refused_in_words(write, one, wrong, said):
    reply = write(wrong)
    assert reply.status_code == 200 and said in reply.content.decode()
    assert not AfterStep.objects.exists()


def test_what_was_done_is_listed_in_the_admin_and_changed_by_nobody(client, city, one):
    failed = due(step(one), city.blocks["requests"])
    client.force_login(city.steward)
    page = client.get(reverse("admin:pipelines_afterrun_changelist")).content.decode()
    assert "Refresh the view service_requests" in page and "There is no materialized view" in page
    address = reverse("admin:pipelines_afterrun_change", args=[failed.pk])
    assert client.get(address).status_code == 200 and client.post(address, {"state": "done"}).status_code == 403


# commands


def test_keys_are_rotated_for_steps_too(city, one, settings):
    from cryptography.fernet import Fernet

    old, new = settings.FERNET_KEYS[0], Fernet.generate_key().decode()
    what = step(one, Kind.NOTIFY, target="", secret=secrets.seal(HOOK))
    step(one, Kind.NOTIFY, target="", secret="env:OPS_HOOK")
    settings.FERNET_KEYS = [new, old]
    told = command("rotate_keys", "--json")
    assert told.code == 0 and told.json["rotated"] == 1
    assert told.json["references"] == 1
    settings.FERNET_KEYS = [new]
    what.refresh_from_db()
    assert secrets.reveal(what.secret) == HOOK


def test_a_step_whose_secret_no_key_opens_is_named_and_keeps_no_other_from_the_new_key(city, one, settings):
    from cryptography.fernet import Fernet

    lost = step(one, Kind.NOTIFY, target="", secret=secrets.seal(HOOK))
    settings.FERNET_KEYS = [Fernet.generate_key().decode()]
    step(one, Kind.POST, target="https://x.example", secret=secrets.seal(SECRET))
    told = command("rotate_keys", "--json")
    assert told.code == 1 and told.json["rotated"] == 1
    assert told.json["failed"][0]["step"] == lost.pk and told.json["failed"][0]["pipeline"] == one.slug


@pytest.mark.django_db
def test_the_command_lists_what_failed_and_does_it_again(city, one, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Told() as server:
        failed = due(step(one, Kind.POST, target=f"{server.url}/reset"), city.blocks["requests"], message="It answered 500.")
        told = command("after")
        assert told.code == 1 and f"{failed.pk}" in told.err and "It answered 500." in told.err and f"--retry {failed.pk}" in told.err
        done = command("after", "--retry", str(failed.pk), "--reason", "redis is back", "--json")
        assert done.code == 0 and [one["state"] for one in done.json["steps"]] == ["done"]
        assert len(server.requests) == 1
    assert AuditEntry.objects.get(verb="retry").reason == "redis is back"
    assert command("after").code == 0
    assert command("after", "--retry", str(failed.pk)).code == 2


def test_the_command_does_all_of_a_pipeline_again_and_says_which_fails_again(city, one, settings):
    settings.WAREHOUSES = {}
    for view in ("one", "two"):
        due(step(one, target=view), city.blocks["requests"])
    other = city.pipelines["scooters"]
    due(step(other), None, run=Run.objects.filter(block__pipeline=other).first())
    told = command("after", "--retry", "--pipeline", one.slug)
    assert told.code == 1 and told.err.count("There is no warehouse") == 2
    assert AuditEntry.objects.filter(verb="retry").count() == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--retry",), "Name the steps, or a pipeline"),
        (("--retry", "999999"), "There is no step 999999"),
        (("--pipeline", "no-such"), "There is no pipeline 'no-such'"),
        (("--retry", "x"), "invalid int value"),
    ],
)
def test_the_command_refuses_in_words(city, words, said):
    from django.core.management.base import CommandError

    try:
        told = command("after", *words)
    except CommandError as error:  # how call_command tells of a word that argparse refuses
        assert said in str(error)
    else:
        assert told.code == 2 and said in told.err


def test_nothing_to_do_again_is_said(city, one):
    assert command("after", "--retry", "--pipeline", one.slug).code == 3
