"""How much is read and what becomes of it: by watermark with ties and empty ones, keys compared, rows gone, tables built anew."""

from datetime import timedelta

import pytest
from django.utils import timezone

from catalog.models import CatalogEntry
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import planner, secrets
from pipelines.models import ImportLog, Pipeline, RunState, State
from tests.pipelines.scene import SOURCE, city, exists, made_row, stage_scene, table

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

WATERMARKED = {"watermark_column": "updateddate", "overlap_minutes": 0, "page_size": 400}


def wheres(scene) -> list[str]:
    """The conditions of the pages that the source was asked for."""
    return [request.query.get("$where", "") for request in scene.source.requests if request.path.endswith(".csv")]


def gone(numbers) -> list[dict]:
    """Rows of these numbers as a publisher deletes them."""
    return [{"id": f"k{number:07d}", ":deleted": True} for number in numbers]


def asked(scene) -> int:
    return len(wheres(scene))


# by watermark


def test_after_the_first_load_only_what_is_as_new_as_the_watermark_is_read(stage_scene):
    scene = stage_scene(1000, **WATERMARKED)
    assert scene.go().state == State.DONE
    scene.pipeline.refresh_from_db()
    assert scene.pipeline.watermark == made_row(999)[5]
    first = asked(scene)
    scene.source.dataset(SOURCE).publish([dict(zip(scene.source.dataset(SOURCE).names, made_row(n), strict=True)) for n in (1000, 1001)])
    assert scene.go().state == State.DONE
    load = scene.last("load")
    assert (load.rows_in, load.inserted, load.unchanged) == (3, 2, 1)  # the tie at the watermark is read again, and changes nothing
    assert len(wheres(scene)[first:]) == 1 and "updateddate >=" in wheres(scene)[-1] and "IS NULL" in wheres(scene)[-1].upper()
    assert len(scene.warehouse()) == 1002


def test_rows_without_a_watermark_come_every_time_and_late_ones_within_the_overlap(stage_scene):
    scene = stage_scene(100, **{**WATERMARKED, "overlap_minutes": 60})
    scene.go()
    source = scene.source.dataset(SOURCE)
    late = dict(zip(source.names, made_row(500), strict=True)) | {"updateddate": made_row(60)[5]}  # 39 minutes before the newest
    silent = dict(zip(source.names, made_row(501), strict=True)) | {"updateddate": None}
    source.publish([late, silent])
    scene.go()
    assert scene.last("load").inserted == 2
    assert {late["id"], silent["id"]} <= {row[0] for row in scene.warehouse()}


def test_the_watermark_moves_only_when_the_rows_are_in(stage_scene, monkeypatch):
    scene = stage_scene(100, **WATERMARKED)
    monkeypatch.setenv("ODO_FAULT", "load.merged:1:kill")
    scene.go()
    scene.pipeline.refresh_from_db()
    assert scene.pipeline.watermark == ""
    monkeypatch.delenv("ODO_FAULT")
    scene.hurry()
    scene.pipeline.refresh_from_db()
    assert scene.pipeline.watermark == made_row(99)[5]


def test_an_empty_table_begins_where_the_steward_says(stage_scene):
    scene = stage_scene(100, **WATERMARKED, since="2026-01-01T01:00:00")
    scene.go()
    assert len(scene.warehouse()) == 40
    scene.go(force=True)  # who forces wants all
    assert len(scene.warehouse()) == 100


# rows that the source no longer has


@pytest.mark.parametrize(("policy", "left"), [("keep", 100), ("delete", 90)])
def test_a_whole_reading_finds_what_is_gone_and_keeps_or_deletes_it(stage_scene, policy, left):
    scene = stage_scene(100, gone_rows=policy)
    scene.go()
    scene.source.dataset(SOURCE).publish(gone(range(10)))
    assert scene.go().state == State.DONE
    load = scene.last("load")
    assert load.details["gone"] == 10 and load.deleted == (10 if policy == "delete" else 0)
    assert "10 gone at the source and kept" in load.message or "10 deleted" in load.message
    assert len(scene.warehouse()) == left == len(scene.portal_rows())
    assert scene.last("publish").deleted == 100 - left


def test_a_publication_killed_after_its_deletions_is_finished_by_the_next_attempt(stage_scene, monkeypatch):
    scene = stage_scene(100, gone_rows="delete", publish_chunk=4)
    scene.go()
    scene.source.dataset(SOURCE).publish(gone(range(10)))
    monkeypatch.setenv("ODO_FAULT", "publish.deleted:2:kill")
    scene.go()
    assert scene.block.state == State.WAITING and len(scene.portal_rows()) == 92
    monkeypatch.delenv("ODO_FAULT")
    assert scene.hurry().state == State.DONE
    assert len(scene.portal_rows()) == 90 and scene.last("publish").deleted == 10


def test_by_watermark_the_keys_are_compared_when_it_is_time(stage_scene):
    scene = stage_scene(100, **WATERMARKED, gone_rows="delete", compare_days=7)
    scene.go()
    source = scene.source.dataset(SOURCE)
    source.publish(gone([3]))
    scene.go()
    assert len(scene.warehouse()) == 100  # too early to look
    Pipeline.objects.update(compared_at=timezone.now() - timedelta(days=8))
    source.publish(gone([4]))
    assert scene.go().state == State.DONE
    assert len(scene.warehouse()) == 98 == len(scene.portal_rows())
    assert scene.last("load").deleted == 2 and scene.last("load").rows_in == 1
    scene.pipeline.refresh_from_db()
    assert timezone.now() - scene.pipeline.compared_at < timedelta(hours=1)
    assert CatalogEntry.objects.live().filter(source=scene.pipeline.slug, metadata__role="keys").count() == 1


def test_a_rejected_row_is_not_taken_for_gone(stage_scene):
    scene = stage_scene(100, gone_rows="delete", types={"name": "text"})
    scene.go()
    source = scene.source.dataset(SOURCE)
    scene.change(types={"name": "number"}, drift="widen")
    source.publish([dict(zip(source.names, made_row(3), strict=True)) | {"amount": "7"}])
    scene.change(types={})
    scene.go()
    assert len(scene.warehouse()) == 100


def test_a_source_that_lost_most_of_its_rows_deletes_nothing_unasked(stage_scene):
    scene = stage_scene(100, gone_rows="delete", watch_volume=False)
    scene.go()
    scene.source.dataset(SOURCE).publish(gone(range(60)))
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "shrunk") and "more than half" in block.message
    assert len(scene.warehouse()) == 100 == len(scene.portal_rows())
    assert scene.go(force=True).state == State.DONE
    assert len(scene.warehouse()) == 40 == len(scene.portal_rows())


# without a key


def keyless(rows) -> SandboxTable:
    return SandboxTable(SOURCE, "Pets", (("name", "text"), ("species", "text"), ("issued", "calendar_date")), rows)


PETS = [("Molly", "Dog", "2017-04-28T00:00:00.000"), ("Molly", "Dog", "2017-04-28T00:00:00.000"), ("Zoë", "Cat", "2018-01-02T00:00:00.000")]
NO_PORTAL = {"key": [], "load_mode": "replace", "portal": None, "portal_resource": "", "stages": ["extract", "load"], "version_column": ""}


def test_rows_without_a_key_are_compared_as_they_are_and_twins_stay_twins(stage_scene):
    scene = stage_scene(keyless(PETS), **NO_PORTAL)
    scene.go()
    before = city(f'select name, xmin::text, ctid::text from city."{scene.pipeline.table}" order by 1, 3')
    assert [row[0] for row in before] == ["Molly", "Molly", "Zoë"]
    scene.go(force=True)
    assert (scene.last("load").unchanged, scene.last("load").inserted, scene.last("load").deleted) == (3, 0, 0)
    assert city(f'select name, xmin::text, ctid::text from city."{scene.pipeline.table}" order by 1, 3') == before


def test_rows_without_a_key_by_watermark_replace_only_what_was_read(stage_scene):
    scene = stage_scene(keyless(PETS), **NO_PORTAL, watermark_column="issued", overlap_minutes=0)
    scene.go()
    names = ("name", "species", "issued")
    came = [("Rex", "Dog", "2018-01-02T00:00:00.000"), ("Tim", "Pig", None)]
    scene.source.dataset(SOURCE).publish([dict(zip(names, row, strict=True)) for row in came])
    scene.go()
    load = scene.last("load")
    assert (load.rows_in, load.inserted, load.unchanged, load.deleted) == (3, 2, 1, 0)
    assert len(city(f'select * from city."{scene.pipeline.table}"')) == 5


def test_appended_rows_are_added_once_however_often_the_load_runs(stage_scene):
    scene = stage_scene(keyless(PETS), **{**NO_PORTAL, "load_mode": "append"})
    scene.go()
    scene.again("load")
    assert city(f'select count(*) from city."{scene.pipeline.table}"') == [(3,)]


# several pipelines, one table


def test_an_older_copy_in_another_years_dataset_never_wins(stage_scene):
    """SR 1-870704814 is in the datasets of two years."""
    scene = stage_scene(50)
    other = stage_scene(table(1), portal=None, portal_resource="", stages=["extract", "load"], table=scene.pipeline.table)
    source = other.source.dataset(SOURCE)
    old = dict(zip(source.names, made_row(7), strict=True)) | {"name": "older", "updateddate": "2025-01-01T00:00:00.000"}
    source.publish([old])
    scene.go()
    other.go()
    assert other.last("load").duplicates == 1
    assert "older" not in [row[1] for row in scene.warehouse()]
    scene.go(force=True)
    assert scene.last("load").details["gone"] == 0


# built anew


def test_initialize_serves_the_old_rows_until_the_new_ones_are_complete(stage_scene, monkeypatch):
    scene = stage_scene(1000)
    scene.go()
    scene.source.dataset(SOURCE).publish(gone([0]))
    monkeypatch.setenv("ODO_FAULT", "load.staged:2:kill")
    scene.go(rebuild=True)
    assert scene.last("load").state == RunState.CRASHED
    assert len(scene.warehouse()) == 1000  # killed half-way: the old rows are still there
    monkeypatch.delenv("ODO_FAULT")
    scene.hurry()
    assert scene.block.state == State.DONE and len(scene.warehouse()) == 999
    assert scene.last("load").inserted == 999 and scene.last("load").deleted == 1
    assert len(scene.portal_rows()) == 999
    beside = "select tablename from pg_tables where schemaname = 'city' and tablename like '\\_odo\\_new%'"
    assert city(beside)  # what the killed attempts had begun, which the tick drops
    planner.clear_leftovers()
    assert city(beside) == []


def test_initialize_keeps_what_other_pipelines_wrote_into_the_table_and_the_views_on_it(stage_scene):
    scene = stage_scene(20)
    other = stage_scene(table(30), portal=None, portal_resource="", stages=["extract", "load"], table=scene.pipeline.table)
    scene.go()
    other.go()
    name = scene.pipeline.table
    city(f'create view city.seen as select id, name from city."{name}"')
    scene.go(rebuild=True)
    assert city("select count(*) from city.seen") == [(30,)]
    assert exists(name)
    city("drop view city.seen")


def test_thousand_rows_a_chunk_leave_one_beginning_a_row_a_chunk_and_one_end(stage_scene):
    scene = stage_scene(5_300, page_size=100, portal=None, portal_resource="", stages=["extract", "load"])
    scene.go()
    events = list(ImportLog.objects.order_by("pk").values_list("event", flat=True))
    assert events == ["begin", *["chunk"] * 53, "end"]


# columns that changed


def test_a_column_that_changed_its_type_becomes_text_and_keeps_its_values(stage_scene):
    scene = stage_scene(10, portal=None, portal_resource="", stages=["extract", "load"])
    scene.go()
    source = scene.source.dataset(SOURCE)
    source.alter(retype={"amount": "text"})
    source.publish([dict(zip(source.names, made_row(3), strict=True)) | {"amount": "seven"}])
    assert scene.go().state == State.DONE
    assert dict(city(f'select id, amount from city."{scene.pipeline.table}"'))["k0000003"] == "seven"
    assert scene.last("load").details["widened"]


# JSON pages


def test_json_pages_bring_the_same_rows_as_csv(stage_scene):
    """Nulls are left out of JSON, and a column that is null everywhere is in no row."""
    scene = stage_scene(700, portal=None, portal_resource="", stages=["extract", "load"])
    other = stage_scene(700, portal=None, portal_resource="", stages=["extract", "load"], format="json")
    for one in (scene, other):
        one.source.alter(SOURCE, add={"never": "text"})
        one.go()
        assert one.block.state == State.DONE, one.block.message
    columns = "id, name, amount, open, place, updateddate, never"
    assert other.warehouse(columns) == scene.warehouse(columns) and len(other.warehouse()) == 700
    assert {entry.id_ext for entry in CatalogEntry.objects.filter(source=other.pipeline.slug)} == {".json"}
    assert other.go(force=True).state == State.DONE and other.last("load").unchanged == 700


def test_soda3_reads_the_same_rows_with_a_token(stage_scene):
    scene = stage_scene(700, portal=None, portal_resource="", stages=["extract", "load"])
    scene.provider.parameters = {"api": "3"}
    scene.provider.save()
    block = scene.go()
    assert block.state == State.FAILED and "token" in f"{block.message} {block.next_step}"
    scene.source.tokens = {"canary-token"}
    scene.provider.secrets = {"app_token": secrets.seal("canary-token")}
    scene.provider.save()
    scene.go()
    assert len(scene.warehouse()) == 700 and any("/api/v3/" in request.path for request in scene.source.requests)
