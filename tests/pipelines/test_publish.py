"""Publish: the portal ends with exactly the warehouse's rows, and whatever it does in between is told in its own words."""

import csv

import pytest

from catalog import lake
from catalog.models import CatalogEntry, DatasetColumn, DatasetEvent
from opendata_ops.sandbox.faults import Fault
from pipelines.models import LogLine, Pipeline, Provider, RunState, State
from tests.pipelines.scene import SOURCE, TARGET, Scene, as_sent, made_row, stage_scene

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 1000  # four chunks of 300 at most


def chunks(scene: Scene) -> int:
    """How many chunks the portal was sent since the last look."""
    sent = sum(request.method == "POST" for request in scene.portal.requests)
    scene.portal.requests.clear()
    return sent


def same(scene: Scene) -> bool:
    return as_sent(scene.portal_rows()) == as_sent(scene.source_rows())


def refuse(scene: Scene, fault, times: int = 99, after: int = 0) -> None:
    """Let the portal's upserts go wrong, `after` so many that go well."""
    if after:
        scene.portal.fail(Fault("none"), method="POST", times=after)
    scene.portal.fail(fault, method="POST", times=times)


def test_all_rows_arrive_and_only_changed_ones_are_sent_later(stage_scene):
    scene = stage_scene(ROWS)
    assert scene.go().state == State.DONE
    assert same(scene) and chunks(scene) == 4
    changed = scene.source.edit(SOURCE, 0.05)["edited"]
    assert scene.go().state == State.DONE
    run = scene.last("publish")
    assert (run.published, run.unchanged, chunks(scene)) == (len(changed), ROWS - len(changed), 1)
    assert same(scene)


def test_force_sends_every_row_again(stage_scene):
    scene = stage_scene(ROWS)
    scene.go()
    chunks(scene)
    scene.again(stage="publish", force=True)
    assert chunks(scene) == 4
    assert scene.last("publish").published == ROWS


def test_a_broken_publication_goes_on_at_the_chunk_where_it_broke(stage_scene):
    scene = stage_scene(ROWS)
    refuse(scene, Fault("status", code=503), after=2)
    block = scene.go()
    assert (block.state, block.stage, block.error_code) == (State.WAITING, "publish", "http-503")
    assert len(scene.portal_rows()) == 600
    scene.portal.faults.clear()
    chunks(scene)
    assert scene.hurry().state == State.DONE
    assert chunks(scene) == 2 and same(scene)
    run = scene.last("publish")
    assert (run.rows_in, run.published, run.unchanged) == (ROWS, 400, 600)


@pytest.mark.parametrize("fault", [Fault("lost_reply"), Fault("lost_reply", end="reset"), Fault("status", code=500), Fault("cut")], ids=str)
def test_a_reply_that_is_lost_once_is_made_up_for_without_doubling_a_row(stage_scene, fault):
    scene = stage_scene(ROWS)
    refuse(scene, fault, times=1, after=1)
    block = scene.go()
    assert (block.state, scene.last("publish").published) == (State.DONE, ROWS)
    assert len(scene.portal_rows()) == ROWS and same(scene)


def test_rows_that_the_portal_refuses_are_a_failure_in_its_own_words(stage_scene):
    scene = stage_scene(ROWS)
    refuse(scene, Fault("row_errors", n=3), times=1, after=1)
    block = scene.go()
    assert (block.state, block.stage, block.error_code) == (State.FAILED, "publish", "portal-refused")
    assert "refused 3 of 300 rows (rows 301 to 600)" in block.message and '"Errors": 3' in block.message
    assert scene.last("publish").state == RunState.FAILED
    assert scene.again().state == State.DONE
    assert same(scene)


def test_a_portal_without_a_row_identifier_is_never_written_to(stage_scene):
    scene = stage_scene(50, portal_key="")
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "row-identifier-missing")
    assert "Set id as the row identifier" in block.next_step
    assert chunks(scene) == 0 and len(scene.portal.dataset(TARGET)) == 0


def test_a_wrong_password_is_a_persons_work_and_is_never_shown(stage_scene):
    scene = stage_scene(50)
    scene.portal.accounts["u"] = "another"
    block = scene.go()
    assert (block.state, block.stage) == (State.FAILED, "publish")
    assert block.error_code in ("http-401", "http-403") and block.next_step
    lines = " ".join(LogLine.objects.values_list("text", flat=True)) + block.message
    assert "pw-canary-1" not in lines
    assert scene.portal_rows() == {}


def test_a_portal_that_asks_for_patience_gets_it_and_its_neighbours_too(stage_scene):
    scene = stage_scene(50)
    refuse(scene, Fault("status", code=429, retry_after=1200))
    block = scene.go()
    assert (block.state, block.error_code) == (State.WAITING, "http-429")
    scene.portal_provider.refresh_from_db()
    assert scene.portal_provider.blocked_until is not None
    assert Provider.objects.get(pk=scene.provider.pk).blocked_until is None
    scene.portal.faults.clear()
    assert scene.hurry().state == State.DONE


def test_rows_that_vanished_from_the_portal_are_noticed_and_force_repairs_it(stage_scene):
    scene = stage_scene(ROWS, max_attempts=1)
    scene.go()
    scene.portal.dataset(TARGET).publish([{"id": f"k{n:07d}", ":deleted": True} for n in range(40)])
    block = scene.again(stage="publish")
    assert (block.state, block.error_code) == (State.FAILED, "portal-short")
    assert "960 rows, the warehouse 1,000: 40 did not arrive" in block.message
    assert scene.again(stage="publish", force=True).state == State.DONE
    assert same(scene)


def test_rows_that_only_the_portal_has_are_told_and_left(stage_scene):
    scene = stage_scene(50)
    scene.portal.dataset(TARGET).publish([{"id": "by hand"}])
    assert scene.go().state == State.DONE
    assert LogLine.objects.filter(text__contains="1 rows that the warehouse does not have").exists()
    assert "by hand" in scene.portal_rows()


def test_a_column_that_must_stay_inside_never_leaves(stage_scene):
    scene = stage_scene(50)
    scene.place(stages=["extract", "load"])
    scene.work()
    DatasetColumn.objects.filter(name="name").update(is_published=False)
    assert scene.again().state == State.DONE
    assert {row["name"] for row in scene.portal_rows().values()} == {None}
    assert len(scene.warehouse()) == 50 and any(row[1] for row in scene.warehouse())


def test_a_key_that_must_stay_inside_stops_the_publication(stage_scene):
    scene = stage_scene(50)
    scene.place(stages=["extract", "load"])
    scene.work()
    DatasetColumn.objects.filter(name="id").update(is_published=False)
    assert scene.again().error_code == "key-withheld"
    assert scene.portal_rows() == {}


def test_a_csv_file_as_a_portal_is_replaced_whole_and_never_seen_in_part(stage_scene, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    scene = stage_scene(ROWS)
    shelf = Provider.objects.create(slug="shelf", title="Shelf", kind="csv_file", base_url=str(folder))
    Pipeline.objects.filter(pk=scene.pipeline.pk).update(portal=shelf, portal_resource="rows.csv")
    assert scene.go().state == State.DONE
    [file] = folder.glob("*.csv")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(scene.source_rows())
    assert rows["k0000001"]["name"] == "Bo, Jr."
    scene.source.edit(SOURCE, 0.05)
    scene.go()
    with file.open(newline="", encoding="utf-8") as stream:
        assert sum(1 for _ in csv.DictReader(stream)) == ROWS
    assert scene.last("publish").published == ROWS  # the whole file, each time


# a portal that is down, that replaces, that changed


def test_rows_for_a_portal_that_is_down_are_kept_as_a_file_and_sent_when_it_is_back(stage_scene):
    scene = stage_scene(ROWS, max_attempts=2)
    refuse(scene, 503)
    block = scene.go()
    assert (block.state, "pending upload" in block.message) == (State.WAITING, True)
    kept = CatalogEntry.objects.live().get(source=scene.pipeline.slug, metadata__role="pending upload")
    assert kept.rows == ROWS and kept.pointer in block.message
    with lake.lake().open(kept.pointer) as file:
        assert file.read().count(b"k0000") == ROWS
    block = scene.hurry()  # the last of its usual attempts: from here on it waits instead of failing
    assert (block.state, block.error_code) == (State.WAITING, "pending-upload")
    scene.portal.faults.clear()
    assert scene.hurry().state == State.DONE
    assert len(scene.portal_rows()) == ROWS
    assert not CatalogEntry.objects.live().filter(metadata__role="pending upload").exists()


def test_a_portal_whose_rows_are_replaced_has_just_ours_afterwards(stage_scene):
    scene = stage_scene(ROWS, portal_mode="replace", gone_rows="delete")
    stranger = dict(zip(scene.portal.dataset(TARGET).names, made_row(9_999), strict=True))
    scene.portal.dataset(TARGET).publish([stranger])
    scene.go()
    assert as_sent(scene.portal_rows()) == as_sent(scene.source_rows())
    assert [request.method for request in scene.portal.requests if request.method in ("POST", "PUT")] == ["PUT"]
    scene.go(force=False)
    assert scene.last("publish").published == ROWS  # unchanged: nothing was sent again
    scene.source.dataset(SOURCE).publish([{"id": "k0000000", ":deleted": True}])
    scene.go()
    assert as_sent(scene.portal_rows()) == as_sent(scene.source_rows())


def test_a_reply_that_is_lost_after_a_replacement_doubles_nothing(stage_scene):
    scene = stage_scene(ROWS, portal_mode="replace")
    scene.portal.fail(Fault("lost_reply"), method="PUT", times=1)
    scene.go()
    if scene.block.state != State.DONE:
        scene.hurry()
    assert scene.block.state == State.DONE and len(scene.portal_rows()) == ROWS


def test_what_changed_on_the_portal_is_told_once_on_the_timeline(stage_scene):
    scene = stage_scene(ROWS)
    scene.go()
    scene.portal.alter(TARGET, add={"note": "text"})
    scene.again(stage="publish")
    scene.again(stage="publish")
    [event] = DatasetEvent.objects.filter(kind="portal")
    assert "note (text) is new" in event.text
