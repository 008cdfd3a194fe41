"""Initialize by a button: what the page says it will drop, what it wants typed, what the press leaves behind, and when it is refused."""

import pytest
from django.test import Client
from django.urls import reverse

from catalog.models import AuditEntry
from pipelines import blocks, planner
from pipelines.models import Pipeline, ScheduleBlock, State
from pipelines.selectors import rebuilds
from tests import world
from tests.pipelines.scene import ANN, SOURCE, made_row, stage_scene
from tests.web import plain_web  # noqa: F401

__all__ = ["stage_scene"]


@pytest.fixture
def city(db, monkeypatch):
    monkeypatch.setattr(planner, "async_task", lambda *args: None)
    monkeypatch.setattr(rebuilds, "words", lambda one: f"drops 58,120 rows of city.{one.table} and puts a new table in its place.")
    return world.build()


@pytest.fixture
def operator(client, city):
    client.force_login(city.operator)
    return client


def snapshot(city) -> Pipeline:
    """The trees, read whole each time."""
    one = city.pipelines["trees"]
    assert one.is_snapshot
    return one


def page(client, one) -> str:
    reply = client.get(reverse("initialize", args=[one.slug]))
    assert reply.status_code == 200
    return reply.content.decode()


def press(client, one, **form):
    return client.post(reverse("initialize", args=[one.slug]), form, follow=True)


def rebuilt(one):
    return ScheduleBlock.objects.filter(pipeline=one, is_rebuild=True)


def test_the_page_says_what_goes_before_anything_does(operator, city):
    one = snapshot(city)
    text = page(operator, one)
    assert "drops 58,120 rows of city.trees" in text and "Nothing has started" in text
    assert "the old rows are still there" in text and f"type <code>{one.slug}</code>" in text
    assert f"python3 manage.py run {one.slug} --initialize" in text and "initialize: extract" in text
    assert ' style="' not in text and "onclick" not in text and "disabled" not in text
    assert not rebuilt(one).exists() and not AuditEntry.objects.filter(verb="initialize").exists()


def test_the_press_places_the_order_and_leaves_who_and_why(operator, city):
    one = snapshot(city)
    reply = press(operator, one, slug=one.slug, reason="the vendor renumbered all trees")
    block = rebuilt(one).get()
    assert reply.redirect_chain == [(reverse("block", args=[block.pk]), 302)]
    assert "Asked to initialize" in reply.content.decode()
    assert (block.state, block.stage, block.asked_by) == (State.WAITING, one.stages[0], "operator")
    entry = AuditEntry.objects.get(verb="initialize")
    assert (entry.actor, entry.reason, entry.target) == ("operator", "the vendor renumbered all trees", str(block.pk))
    assert "· initialize" in reply.content.decode() and "Asked by" in reply.content.decode()


@pytest.mark.parametrize("typed", ["", "pets", "TREES", "trees-"])
def test_another_slug_or_none_starts_nothing(operator, city, typed):
    one = snapshot(city)
    reply = press(operator, one, slug=typed, reason="slip")
    assert reply.status_code == 422 and "slug" in reply.content.decode()
    assert "drops 58,120 rows" in reply.content.decode()
    assert not rebuilt(one).exists() and not AuditEntry.objects.filter(verb="initialize").exists()


def test_on_the_production_system_it_wants_a_reason(operator, city, settings):
    settings.ENVIRONMENT = "prod"
    one = snapshot(city)
    reply = press(operator, one, slug=one.slug, reason="")
    assert reply.status_code == 422 and "Say why" in reply.content.decode() and not rebuilt(one).exists()


def test_while_a_block_runs_it_is_refused_in_words(operator, city):
    one = snapshot(city)
    press(operator, one, slug=one.slug)
    block = rebuilt(one).get()
    world_block = {"state": State.RUNNING, "holder": "ops-1:1", "lease_until": city.now, "is_rebuild": False, "asked_by": "vera"}
    ScheduleBlock.objects.filter(pk=block.pk).update(**world_block)
    text = page(operator, one)
    assert "can’t be initialized now: running since" in text and "disabled" in text
    reply = press(operator, one, slug=one.slug)
    assert "Nothing was done. running since" in reply.content.decode() and not rebuilt(one).exists()
    assert AuditEntry.objects.filter(verb="initialize", result__startswith="refused: running since").count() == 1


def test_a_press_on_an_old_page_is_refused(operator, city):
    one = snapshot(city)
    press(operator, one, slug=one.slug)
    block = rebuilt(one).get()
    ScheduleBlock.objects.filter(pk=block.pk).update(fence=block.fence + 1, is_rebuild=False)
    reply = press(operator, one, slug=one.slug, seen=f"{block.pk}:{block.fence}")
    assert "Nothing was done." in reply.content.decode() and not rebuilt(one).exists()
    assert press(operator, one, slug=one.slug, seen="1:1;drop").status_code == 422


def test_a_pipeline_of_windows_is_refused_and_has_no_link(operator, city):
    one = city.pipelines["requests"]
    assert "read window by window" in page(operator, one)
    reply = press(operator, one, slug=one.slug)
    assert reply.status_code == 422 and not rebuilt(one).exists()
    address = reverse("initialize", args=[one.slug])
    for tab in ("blocks", "settings"):
        assert address not in operator.get(f"{one.get_absolute_url()}?tab={tab}").content.decode()
    assert "it has no load stage" in rebuilds.refusal(Pipeline(title="X", stages=["extract"]))


@pytest.mark.parametrize("tab", ["blocks", "settings"])
def test_the_pipelines_page_leads_there_for_operators_only(client, city, tab):
    one = snapshot(city)
    for person, sees in ((city.operator, True), (city.viewer, False)):
        client.force_login(person)
        assert (reverse("initialize", args=[one.slug]) in client.get(f"{one.get_absolute_url()}?tab={tab}").content.decode()) is sees


def test_a_viewer_may_neither_look_nor_press_and_a_form_without_its_token_is_refused(client, city):
    one = snapshot(city)
    address = reverse("initialize", args=[one.slug])
    client.force_login(city.viewer)
    assert client.get(address).status_code == 403 and client.post(address, {"slug": one.slug}).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(city.operator)
    assert strict.post(address, {"slug": one.slug}).status_code == 403
    assert not rebuilt(one).exists()


def test_the_preview_and_the_story_call_it_initialize(operator, city):
    one = snapshot(city)
    press(operator, one, slug=one.slug)
    block = rebuilt(one).get()
    # waiting for its next try: a re-run would hurry it, and leave it what it is
    ScheduleBlock.objects.filter(pk=block.pk).update(due_at=city.now.replace(year=2099))
    assert "initialize: extract → load" in operator.get(reverse("rerun", args=[one.slug])).content.decode()
    run = block.runs.create(
        stage="extract", state="done", attempt=1, fence=9, trigger="button", asked_by="operator", holder="h", is_rebuild=True,
        finished_at=city.now,
    )  # fmt: skip
    text = operator.get(reverse("block", args=[block.pk])).content.decode()
    attempts = text[text.index('id="attempts"') : text.index('id="files"')]
    assert "by operator, initialize" in attempts and f"{run.pk:,}" in attempts
    assert "initialize" in operator.get(reverse("block_confirm", args=[block.pk, "run"])).content.decode()


@pytest.mark.django_db(transaction=True)
def test_what_the_page_says_is_what_the_table_has(client, stage_scene):
    scene = stage_scene(20)
    people = world.people()
    client.force_login(people[1])
    assert "does not exist yet" in page(client, scene.pipeline)
    scene.go()
    assert "drops 20 rows of" in page(client, scene.pipeline)


@pytest.mark.django_db(transaction=True)
def test_a_new_table_is_never_built_of_changes_alone(stage_scene):
    scene = stage_scene(100, watermark_column="updateddate", overlap_minutes=0)
    scene.go()
    source = scene.source.dataset(SOURCE)
    source.publish([dict(zip(source.names, made_row(100), strict=True))])
    scene.go()
    block = scene.go(rebuild=True, stages=["load", "publish"])
    assert (block.state, block.error_code) == (State.FAILED, "not-whole") and "all other rows" in block.message
    assert len(scene.warehouse()) == 101


@pytest.mark.django_db(transaction=True)
def test_an_initialization_that_failed_goes_on_as_one(stage_scene, monkeypatch):
    scene = stage_scene(20, max_attempts=1)
    scene.go()
    monkeypatch.setenv("ODO_FAULT", "load.merged:1:kill")
    assert scene.go(rebuild=True).state == State.FAILED
    monkeypatch.delenv("ODO_FAULT")
    assert blocks.requeue(scene.block.pk, actor=ANN, stage="load").moved
    assert scene.block.is_rebuild
    assert scene.work().state == State.DONE
    assert scene.last("load").is_rebuild and not scene.block.is_rebuild
    blocks.requeue(scene.block.pk, actor=ANN, stage="load")
    assert not scene.block.is_rebuild
