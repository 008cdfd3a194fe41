"""Un-publish: the rows of a span leave the portal and no others, it is forgotten that they were published, and they may come back."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog.models import AuditEntry
from opendata_ops.sandbox.soda import Portal
from pipelines import planner
from pipelines.connectors.base import Published
from pipelines.connectors.socrata import Socrata
from pipelines.models import Pipeline, ScheduleBlock, State
from pipelines.upkeep import unpublish
from tests import world
from tests.pipelines.catching import caught, here, work_off  # noqa: F401  a fixture
from tests.pipelines.commanding import command
from tests.pipelines.scene import city, drop_city
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, ONE, PASSWORD, TWO, Sensors, drop, edition
from tests.web import plain_web  # noqa: F401  a fixture

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]
JUNE = ("-s", "2019-06-01", "-e", "2019-06-05")
FIRST = ("--from", "2019-06-01", "--to", "2019-06-01")


@pytest.fixture
def new(tmp_path, settings, monkeypatch):
    """A pipeline that has done nothing yet."""
    monkeypatch.setattr(planner, "async_task", lambda *message: None)
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    drop(tmp_path / "drop")
    with Portal(accounts={"u": PASSWORD}) as server:
        yield Sensors("bt-summary", tmp_path, portal=server, publish_chunk=1)
    drop_city()


@pytest.fixture
def one(new):
    """Two published days of two rows each."""
    edition("bt", BLUETOOTH_UNITS)
    caught(new.slug, "ingest", *JUNE, "--onward")
    assert new.told() == new.due(ONE, TWO) and len(new.due(ONE)) == 2
    return new


def address(one: Sensors) -> str:
    return reverse("unpublish", args=[one.slug])


def test_the_rows_of_a_day_leave_the_portal_until_it_is_published_again_and_everything_else_stays(one):
    held = city(f'select * from city."{one.pipeline.table}" order by record_id')
    told = command("unpublish", one.slug, *FIRST, "--yes", "--reason", "a reader was wrong", "--json")
    assert told.code == 0 and (told.json["deleted"], told.json["asked"]) == (2, []), told.err
    assert one.told() == one.due(TWO)
    assert city(f'select * from city."{one.pipeline.table}" order by record_id') == held
    block = one.block(ONE)
    assert (block.state, block.stage, block.error_code, block.published_seq) == (State.HELD, "publish", "unpublished", 0)
    assert one.block(TWO).state == State.DONE
    audited = {(entry.verb, entry.kind): entry for entry in AuditEntry.objects.filter(reason="a reader was wrong")}
    assert set(audited) == {("unpublish", "block"), ("unpublish", "pipeline")}
    assert "2 rows of 1 block deleted on Portal; held until somebody publishes them again." in audited["unpublish", "pipeline"].result
    # again is harmless
    again = command("unpublish", one.slug, *FIRST, "--yes", "--json")
    assert again.code == 0 and again.json["deleted"] in (0, 2) and one.told() == one.due(TWO)
    # it is lacking only where it was taken from
    assert caught(one.slug, "ingest", *JUNE) == caught(one.slug, "ready", *JUNE) == []
    assert [file[:5] for file in caught(one.slug, "publish", *JUNE)] == ["06-01"]
    assert sorted(one.told(), key=str) == sorted(one.due(ONE, TWO), key=str)
    assert caught(one.slug, "publish", *JUNE) == [] and one.block(ONE).state == State.DONE


def test_looking_changes_nothing_and_with_republish_the_workers_publish_it_again(one):
    before = one.told(), list(ScheduleBlock.objects.order_by("pk").values())
    told = command("unpublish", one.slug, *FIRST, "--dry-run")
    assert told.code == 0 and "2 rows of 1 block to be deleted from v7zg-5jg9 of Portal." in told.out
    assert command("unpublish", one.slug, *FIRST).code == 2
    assert command("unpublish", one.slug, "--from", "2019-07-01", "--to", "2019-07-02", "--yes").code == 3
    assert command("unpublish", one.slug, "--from", "soon", "--to", "2019-07-02", "--yes").code == 2
    assert (one.told(), list(ScheduleBlock.objects.order_by("pk").values())) == before
    told = command("unpublish", one.slug, *FIRST, "--yes", "--republish", "--json")
    assert told.json["asked"] == told.json["held"] == [one.block(ONE).pk] and one.told() == one.due(TWO)
    assert one.block(ONE).stages == ["publish"]
    work_off(told.json["asked"])
    assert one.block(ONE).state == State.DONE and len(one.told()) == len(one.due(ONE, TWO))


def test_a_block_that_is_running_is_left_alone(one):
    later = timezone.now() + timedelta(days=1)
    ScheduleBlock.objects.filter(pk=one.block(ONE).pk).update(state=State.RUNNING, holder="elsewhere:1:1", lease_until=later)
    told = command("unpublish", one.slug, "--from", "2019-06-01", "--to", "2019-06-02", "--yes", "--json")
    assert told.code == 2 and told.json["held"] == [one.block(TWO).pk] and "left alone" in told.json["text"]
    assert one.told() == one.due(ONE) and one.block(ONE).state == State.RUNNING


def test_a_portal_that_keeps_a_row_is_told_and_the_days_stay_held(one, monkeypatch):
    real, asked = Socrata.delete, []

    def stubborn(self, resource, rows):
        asked.append(rows)
        return real(self, resource, rows) if len(asked) == 1 else Published(errors=1, reply={"Errors": 1})

    monkeypatch.setattr(Socrata, "delete", stubborn)
    told = command("unpublish", one.slug, *FIRST, "--yes")
    assert told.code == 2 and "did not delete 1 of 1 rows" in told.err and [len(rows) for rows in asked] == [1, 1]
    assert one.block(ONE).error_code == "unpublished" and len(one.told()) == 3
    assert AuditEntry.objects.get(verb="unpublish", kind="pipeline").result.count("broke off after 1 rows") == 1
    monkeypatch.setattr(Socrata, "delete", real)
    assert command("unpublish", one.slug, *FIRST, "--yes").code == 0 and one.told() == one.due(TWO)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window_column": ""}, "has no days that could be taken off"),
        ({"portal_mode": "replace"}, "replaces all rows"),
        ({"stages": ["extract", "standardize", "enrich", "load"]}, "is not published"),
        ({"key": []}, "has no key"),
    ],
)
def test_where_days_can_not_be_taken_off_it_says_why(new, client, fields, words):
    Pipeline.objects.filter(pk=new.pipeline.pk).update(**fields)
    new.pipeline.refresh_from_db()
    assert words in unpublish.refusal(new.pipeline)
    told = command("unpublish", new.slug, *FIRST, "--yes")
    assert told.code == 2 and words in told.err
    _, operator, _ = world.people()
    client.force_login(operator)
    assert words in client.get(address(new)).content.decode()


# the page


def test_the_page_says_what_will_go_asks_why_and_does_it_once(one, client, plain_web):  # noqa: F811
    viewer, operator, _ = world.people()
    client.force_login(viewer)
    assert client.get(address(one)).status_code == 403
    client.force_login(operator)
    assert f'href="{address(one)}"' in client.get(one.pipeline.get_absolute_url()).content.decode()
    assert "Pick the days." in client.get(address(one)).content.decode()
    span = {"from": "2019-06-01", "to": "2019-06-01"}
    page = client.get(address(one), span).content.decode()
    assert "2 rows go from v7zg-5jg9 on Portal" in page and "The public will no longer see 2 rows" in page
    wish = {**span, "seen": re.search(r'name="seen" value="(\w+)"', page)[1], "reason": "wrong reader", "sure": "on"}
    for lacking, words in (("reason", "Say why these rows have to go."), ("sure", "Tick that you are sure")):
        reply = client.post(address(one), {**wish, lacking: ""})
        assert reply.status_code == 422 and words in reply.content.decode()
    assert client.post(address(one), {**wish, "seen": "old"}).status_code == 422 and len(one.told()) == 4
    reply = client.post(address(one), wish, follow=True)
    assert "2 rows of 1 block deleted on Portal; held until somebody publishes them again." in reply.content.decode()
    assert one.told() == one.due(TWO)
    # the same press again finds other blocks than it was shown
    assert client.post(address(one), wish).status_code == 422
    assert AuditEntry.objects.get(verb="unpublish", kind="pipeline").user == operator


def test_a_page_takes_a_month_at_most_and_names_the_command(new, client):
    _, operator, _ = world.people()
    client.force_login(operator)
    text = client.get(address(new), {"from": "2019-01-01", "to": "2019-06-01"}).content.decode()
    assert f"unpublish {new.slug} --from 2019-01-01 --to 2019-06-01" in text and "at most 31 days" in text
