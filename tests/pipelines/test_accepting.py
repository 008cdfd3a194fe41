"""Accepting by button and by command: a suspicious block as it is, the changed columns of a source. Both say what they will do, and who did it."""

import json

import pytest
from django.core.management.base import CommandError
from django.urls import reverse

from catalog.models import AuditEntry, DatasetEvent
from pipelines import planner
from pipelines.models import Pipeline, ScheduleBlock, State
from pipelines.selectors.blocks import buttons
from tests import world
from tests.pipelines.commanding import command
from tests.web import plain_web  # noqa: F401

OLD = [["id", "text"], ["updated_at", "instant"], ["open", "boolean"]]
NEW = [["id", "text"], ["updated_at", "instant"], ["open", "text"], ["<b>phone", "text"]]


@pytest.fixture
def city(db, monkeypatch):
    """The small city; the radar's last block is suspicious, and the columns of its source have changed."""
    monkeypatch.setattr(planner, "async_task", lambda *args: None)
    made = world.build(world.SATURDAY)
    one = made.pipelines["radar"]
    Pipeline.objects.filter(pk=one.pk).update(accepted_columns=OLD, drift="stop", key=["id"])
    DatasetEvent.objects.create(
        dataset=one.dataset, kind="columns", source="radar", text="The source’s columns changed: <b>phone (text) is new.", details={"columns": NEW}
    )
    stopped = ScheduleBlock.objects.filter(pipeline=one, rows__gt=0).order_by("-starts_at").first()
    ScheduleBlock.objects.filter(pk=stopped.pk).update(state=State.FAILED, error_code="columns-changed", message="The source’s columns changed.")
    made.blocks["stopped"] = stopped
    return made


def text_of(client, name, *args):
    reply = client.get(reverse(name, args=args), follow=True)
    assert reply.status_code == 200
    return reply.content.decode()


# a block


def test_a_suspicious_block_offers_to_accept_it_first(city):
    found = buttons(city.blocks["suspicious"])
    assert (found[0].verb, found[0].is_primary) == ("accept", True) and sum(button.is_primary for button in found) == 1
    assert "accept" not in {button.verb for button in buttons(city.blocks["requests"])}


def test_the_page_before_the_press_says_what_accepting_does(client, city):
    client.force_login(city.operator)
    block = city.blocks["suspicious"]
    text = text_of(client, "block_confirm", block.pk, "accept")
    assert "no rows is right for this block" in text and "Later blocks are judged by it too" in text and "Accept no rows" in text
    fine = text_of(client, "block_confirm", city.blocks["requests"].pk, "accept")
    assert "nothing about it is suspicious" in fine and "disabled" in fine


def test_the_press_accepts_with_its_reason_and_the_trouble_is_gone(client, city):
    client.force_login(city.operator)
    block = city.blocks["suspicious"]
    reply = client.post(reverse("block_act", args=[block.pk, "accept"]), {"reason": "a storm", "seen_fence": block.fence}, follow=True)
    assert "Accepted with no rows" in reply.content.decode()
    block.refresh_from_db()
    assert block.mark == "empty"
    entry = AuditEntry.objects.get(verb="accept")
    assert (entry.actor, entry.reason, entry.target) == ("operator", "a storm", str(block.pk))


def test_a_viewer_neither_sees_nor_presses_accept(client, city):
    client.force_login(city.viewer)
    block = city.blocks["suspicious"]
    for name, *args in (("block_confirm", block.pk, "accept"), ("accept_columns", "radar")):
        assert client.get(reverse(name, args=args)).status_code == 403
    assert client.post(reverse("block_act", args=[block.pk, "accept"])).status_code == 403
    assert client.post(reverse("accept_columns", args=["radar"])).status_code == 403
    assert reverse("accept_columns", args=["radar"]) not in text_of(client, "pipeline", "radar")
    assert not AuditEntry.objects.filter(verb="accept").exists()


# columns


def test_the_pipelines_page_tells_the_change_and_leads_to_accepting_it(client, city):
    client.force_login(city.operator)
    text = text_of(client, "pipeline", "radar")
    assert "&lt;b&gt;phone (text) is new." in text and reverse("accept_columns", args=["radar"]) in text
    assert "Accept the columns" not in text_of(client, "pipeline", "requests")


def test_the_block_that_was_stopped_leads_there_too(client, city):
    client.force_login(city.operator)
    stopped = city.blocks["stopped"]
    assert "Accept the columns…" in text_of(client, "block", stopped.pk)
    reply = client.get(reverse("block_confirm", args=[stopped.pk, "accept"]))
    assert (reply.status_code, reply["Location"]) == (302, reverse("accept_columns", args=["radar"]))


def test_the_page_names_each_change_and_the_press_runs_the_stopped_block_again(client, city):
    client.force_login(city.operator)
    text = text_of(client, "accept_columns", "radar")
    assert "&lt;b&gt;phone" in text and "boolean" in text and ' style="' not in text
    event = DatasetEvent.objects.get()
    reply = client.post(reverse("accept_columns", args=["radar"]), {"reason": "they told us", "seen_event": event.pk}, follow=True)
    assert "1 block runs again" in reply.content.decode()
    assert Pipeline.objects.get(slug="radar").accepted_columns == NEW
    assert ScheduleBlock.objects.get(pk=city.blocks["stopped"].pk).state == State.WAITING
    assert AuditEntry.objects.filter(verb="accept", kind="pipeline", target="radar", actor="operator", reason="they told us").exists()
    assert "There is nothing to accept" in text_of(client, "accept_columns", "radar")


def test_what_cannot_be_done_without_cannot_be_accepted_away(client, city):
    Pipeline.objects.filter(slug="radar").update(key=["unit"])
    client.force_login(city.operator)
    text = text_of(client, "accept_columns", "radar")
    assert "unit is gone" in text and "disabled" in text
    reply = client.post(reverse("accept_columns", args=["radar"]), {"seen_event": DatasetEvent.objects.get().pk}, follow=True)
    assert "Nothing was done" in reply.content.decode() and Pipeline.objects.get(slug="radar").accepted_columns == OLD


def test_where_a_reason_is_needed_nothing_is_accepted_without_one(client, city, settings):
    settings.ENVIRONMENT = "prod"
    client.force_login(city.operator)
    block = city.blocks["suspicious"]
    assert client.post(reverse("block_act", args=[block.pk, "accept"]), {"seen_fence": block.fence}).status_code == 422
    assert client.post(reverse("accept_columns", args=["radar"]), {"seen_event": DatasetEvent.objects.get().pk}).status_code == 422
    assert Pipeline.objects.get(slug="radar").accepted_columns == OLD and ScheduleBlock.objects.get(pk=block.pk).mark == "suspicious"


# the command


def test_the_command_accepts_blocks_by_number_or_by_their_pipeline(city):
    block = city.blocks["suspicious"]
    told = command("accept", "radar", "--rows", "--reason", "a storm", "--json")
    assert told.code == 0
    assert [one["block"] for one in json.loads(told.out)["blocks"]] == [block.pk]
    again = command("accept", "radar", "--rows")
    assert again.code == 3 and "is suspicious" in again.out
    refused = command("accept", str(block.pk), "--rows")
    assert refused.code == 2 and "nothing about it is suspicious" in refused.err


def test_the_command_accepts_columns_and_says_what_runs_again(city):
    told = command("accept", "radar", "--columns", "--json")
    [answer] = json.loads(told.out)["pipelines"]
    assert told.code == 0 and answer["moved"] and answer["blocks"] == [city.blocks["stopped"].pk]
    again = command("accept", "radar", "--columns")
    assert again.code == 2 and "nothing to accept" in again.err


def test_the_command_wants_to_know_what_is_accepted(city):
    for words in ([], ["--rows", "--columns"]):
        with pytest.raises(CommandError, match="--rows"):
            command("accept", "radar", *words)
    wrong = command("accept", str(city.blocks["suspicious"].pk), "--columns")
    assert wrong.code == 2 and "Name the pipeline" in wrong.err
    assert not AuditEntry.objects.filter(verb="accept").exists()
