"""The page that compares with the portal: what was found is read by everyone, compared and repaired by operators, and refused in words."""

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog.models import AuditEntry
from pipelines import planner
from pipelines.errors import TransientError
from pipelines.models import Pipeline, Reconciliation, ScheduleBlock, State
from pipelines.selectors import reconcile as selectors
from pipelines.upkeep import resync
from tests import world
from tests.web import asks, plain_web  # noqa: F401


@pytest.fixture
def city(db, monkeypatch):
    monkeypatch.setattr(planner, "async_task", lambda *args: None)
    made = world.build(world.SATURDAY)
    Pipeline.objects.filter(slug="scooters-zipwheel").update(release_k=10)
    return made


def found(city, **more) -> Reconciliation:
    """A comparison of an evening that found one row of each kind, and the hour that lacks two of them."""
    one = Pipeline.objects.get(slug="scooters-zipwheel")
    block = ScheduleBlock.objects.filter(pipeline=one, state=State.DONE).order_by("-starts_at").first()
    differences = [
        {"kind": "note", "words": "3 blocks of this span are not done yet: their rows were not compared."},
        {"kind": "changed", "key": "c0ffee00-changed", "block": block.pk, "columns": {"vehicle_type": ["scooter", None]}},
        {"kind": "missing", "key": "<b>missing", "block": block.pk},
        {"kind": "extra", "key": "e0000000-extra", "at": "2026-11-20T19:15:00.000"},
    ]
    fields = {
        "starts_at": block.starts_at - timedelta(hours=3), "ends_at": block.ends_at, "asked_by": "ann", "warehouse_rows": 1234, "portal_rows": 1233,
        "missing": 1, "extra": 1, "changed": 1, "differences": differences, "blocks": [block.pk], **more,
    }  # fmt: skip
    return Reconciliation.objects.create(pipeline=one, **fields)


def address(name: str = "reconcile", *args) -> str:
    return reverse(name, args=["scooters-zipwheel", *args])


def test_what_was_found_is_read_by_everyone_and_only_operators_may_act(client, city):
    one = found(city)
    client.force_login(city.viewer)
    text = client.get(address()).content.decode()
    for words in (
        "1,234 rows here, 1,233 on Riverton open data: 1 missing there, 1 only there, 1 with other values.", "3 blocks of this span are not done",
        "vehicle_type: scooter here, nothing there", "stands there at 2026-11-20T19:15:00.000", "&lt;b&gt;missing", "Missing: 1 row",
    ):  # fmt: skip
        assert words in text, words
    assert "Compare a span" not in text and "Repair…" not in text
    assert client.post(address("reconcile_run"), {"from": "2026-11-20", "to": "2026-11-20"}).status_code == 403
    assert client.get(address("reconcile_repair", one.pk)).status_code == 403
    told = json.loads(client.get(address(), {"of": one.pk, "format": "json"}).content)
    assert (told["missing"], told["pipeline"], told["repaired"]) == (1, "scooters-zipwheel", False)
    lines = b"".join(client.get(address(), {"of": one.pk, "format": "csv"}).streaming_content).decode()
    assert lines.splitlines()[1].startswith("missing,<b>missing,")
    assert client.get(address(), {"of": 999_999}).status_code == 404
    client.force_login(city.operator)
    assert "Repair…" in client.get(address()).content.decode()


def test_the_page_asks_the_database_four_questions_however_much_there_is(city):
    for _ in range(12):
        found(city)
    one = Pipeline.objects.select_related("portal").get(slug="scooters-zipwheel")
    with asks(exactly=4):
        assert len(selectors.page(one).recent) == 10


def test_a_span_is_compared_and_the_answer_is_its_page(client, city, monkeypatch):
    asked = []

    def compare(one, starts_at, ends_at, *, actor, reason):
        asked.append((one.slug, starts_at.isoformat(), ends_at.isoformat(), actor.name, reason))
        return found(city, missing=0, extra=0, changed=0, differences=[], blocks=[])

    monkeypatch.setattr(resync, "reconcile", compare)
    client.force_login(city.operator)
    reply = client.post(address("reconcile_run"), {"from": "2026-11-01T00:00", "to": "2026-11-01", "reason": "audit"}, follow=True)
    # the day on which the clocks go back has 25 hours
    assert asked == [("scooters-zipwheel", "2026-11-01T05:00:00+00:00", "2026-11-02T06:00:00+00:00", "operator", "audit")]
    assert "Equal: 1,234 rows here" in reply.content.decode() and "Repair…" not in reply.content.decode()


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (("", ""), "Give both ends of the span."),
        (("2026-11-03", "2026-11-01"), "ends before it begins"),
        (("soon", "2026-11-01"), "&#x27;soon&#x27; is not a time"),
        (("2026-10-01", "2026-11-01"), "reconcile scooters-zipwheel --from 2026-10-01 --to 2026-11-01"),
        (("2026-11-01", "2026-11-01"), "Nothing was compared: the portal is down"),
    ],
)
def test_a_span_that_cannot_be_compared_says_why(client, city, monkeypatch, span, said):
    def down(*args, **more):
        raise TransientError("the portal is down")

    monkeypatch.setattr(resync, "reconcile", down)
    client.force_login(city.operator)
    reply = client.post(address("reconcile_run"), dict(zip(("from", "to"), span, strict=True)))
    assert reply.status_code == 422 and said in reply.content.decode()


def test_a_repair_says_first_what_it_will_do_and_does_it_once(client, city):
    one = found(city, extra=0, differences=[])
    client.force_login(city.operator)
    page = client.get(address("reconcile_repair", one.pk)).content.decode()
    assert "1 block sends all its rows to Riverton open data again" in page and "delete:" not in page
    block = ScheduleBlock.objects.get(pk=one.blocks[0])
    assert block.state == State.DONE
    text = client.post(address("reconcile_repair", one.pk), {"reason": "audit of November"}, follow=True).content.decode()
    assert "1 block asked to publish all rows again." in text and "Repaired" in text
    block.refresh_from_db()
    assert (block.state, block.stage, block.stages, block.is_forced) == (State.WAITING, "publish", ["publish"], True)
    assert set(AuditEntry.objects.filter(actor="operator", reason="audit of November").values_list("verb", flat=True)) == {"repair", "force"}
    again = client.get(address("reconcile_repair", one.pk)).content.decode()
    assert "It was repaired by operator already" in again and "disabled" in again
    assert client.post(address("reconcile_repair", one.pk), {"reason": "twice"}).status_code == 422


def test_old_findings_delete_nothing_and_rows_that_go_are_named(client, city):
    client.force_login(city.operator)
    page = client.get(address("reconcile_repair", found(city).pk)).content.decode()
    assert "1 row that only Riverton open data has goes from there" in page
    old = found(city, at=timezone.now() - timedelta(days=2))
    assert "more than a day ago" in client.get(address("reconcile_repair", old.pk)).content.decode()


def test_a_pipeline_without_rows_to_compare_says_so(client, city):
    client.force_login(city.operator)
    Pipeline.objects.filter(slug="requests").update(window_column="")
    for slug, words in (("shelters", "is not published"), ("requests", "force its publish stage"), ("radar", "It was never compared.")):
        assert words in client.get(reverse("reconcile", args=[slug])).content.decode()
