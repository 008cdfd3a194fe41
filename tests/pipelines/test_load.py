"""Load: every row of every file is merged, rejected with its reason, or counted as a copy; all at once or not at all."""

import resource
from dataclasses import replace

import pytest

from catalog import lake
from catalog.models import CatalogEntry
from opendata_ops.sandbox.rows import la311
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import runner, stages
from pipelines.models import ImportLog, LogLine, RejectedRow, RunState, ScheduleBlock, State
from tests.pipelines.scene import COLUMNS, SOURCE, Scene, city, made_row, stage_scene

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

NO_PORTAL = {"stages": ["extract", "load"], "portal": None}


def odd_rows(rows: int = 1000, bad: int = 30, copies: int = 20) -> SandboxTable:
    """A table whose `name` is sometimes no number, and whose `code` names some rows twice."""
    columns = [*COLUMNS, ("code", "text")]
    made = [(*made_row(n)[:1], "x" if n < bad else str(n), *made_row(n)[2:], f"c{max(n, copies):05d}") for n in range(rows)]
    return SandboxTable(SOURCE, "Odd rows", columns, made, key="id")


def events(scene: Scene) -> list[tuple]:
    return list(ImportLog.objects.filter(pipeline=scene.pipeline).order_by("pk").values_list("event", "offset", "rows", "total"))


def test_rows_are_conserved_and_the_import_log_tells_the_story(stage_scene):
    scene = stage_scene(odd_rows(), key=["code"], types={"name": "number"}, **NO_PORTAL)
    block = scene.go()
    run = scene.last("load")
    assert block.state == State.DONE, block.message
    # the copies 0 to 19 of c00020 were rejected for their name, row 20 too; the newest wins where any is left
    assert (run.rows_in, run.rejected) == (1000, 30)
    assert run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates
    assert run.rows_out == len(scene.warehouse("code")) == run.inserted
    assert scene.lake_rows() == 1000 == run.rows_in
    chunks = [("chunk", offset, rows, 1000) for offset, rows in ((0, 400), (400, 400), (800, 200))]
    assert events(scene) == [("begin", 0, 0, 1000), *chunks, ("end", 1000, 970, 1000)]


def test_copies_of_a_key_are_counted_and_the_newest_stays(stage_scene):
    scene = stage_scene(odd_rows(bad=0), key=["code"], **NO_PORTAL)
    scene.go()
    run = scene.last("load")
    assert (run.inserted, run.duplicates, run.rejected) == (980, 20, 0)
    assert scene.warehouse("code, id")[0] == ("c00020", "k0000020")


def test_every_rejected_row_is_kept_with_its_place_in_the_lake(stage_scene):
    scene = stage_scene(odd_rows(), types={"name": "number"}, **NO_PORTAL)
    block = scene.go()
    kept = list(RejectedRow.objects.filter(block=block))
    assert len(kept) == 30 == block.runs.filter(stage="load").get().rejected
    one = next(row for row in kept if row.row_key == "k0000007")
    assert (one.column, one.value, one.reason, one.raw["id"]) == ("name", "x", "not a number", "k0000007")
    with lake.lake().open(one.file) as file:
        assert b"k0000007" in file.read().splitlines()[one.line - 1]
    assert LogLine.objects.filter(run__block=block, level="warning", text="30 rows rejected: name: not a number").exists()


def test_a_load_of_which_most_is_refused_loads_nothing_and_keeps_examples(stage_scene, monkeypatch):
    monkeypatch.setattr("pipelines.stages.load.EXAMPLES", 40)
    scene = stage_scene(1000, types={"id": "number"}, **NO_PORTAL)
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "mostly-rejected")
    assert "1,000 of 1,000 rows were rejected, most because of id: not a number" in block.message
    assert RejectedRow.objects.count() == 40
    assert scene.warehouse("id") == []
    assert events(scene)[-1][0] == "failed"
    scene.change(types={})
    assert scene.again(stage="load").state == State.DONE


def test_a_small_block_of_which_nothing_could_be_loaded_is_not_simply_green(stage_scene):
    scene = stage_scene(5, types={"id": "number"}, **NO_PORTAL)
    block = scene.go()
    assert (block.state, block.mark) == (State.DONE, "suspicious")


def test_loading_twice_changes_nothing(stage_scene):
    scene = stage_scene(600, **NO_PORTAL)
    scene.go()
    before = city(f"select *, xmin::text from city.{scene.pipeline.table} order by id")
    block = scene.again(stage="load")
    assert (block.state, scene.last("load").unchanged, scene.last("load").rows_out) == (State.DONE, 600, 0)
    assert city(f"select *, xmin::text from city.{scene.pipeline.table} order by id") == before


def test_a_file_that_was_changed_in_the_lake_is_not_loaded(stage_scene, lake_folder):
    scene = stage_scene(500, **NO_PORTAL)
    scene.go()
    before = scene.warehouse()
    entry = CatalogEntry.objects.live().first()
    path = lake_folder / entry.pointer
    path.write_bytes(path.read_bytes().replace(b"k0000001", b"k9999999"))
    block = scene.again(stage="load")
    assert (block.state, block.error_code) == (State.FAILED, "lake-sha256")
    assert scene.warehouse() == before


def test_a_file_that_is_gone_is_named_with_what_to_do(stage_scene, lake_folder):
    scene = stage_scene(500, **NO_PORTAL)
    scene.go()
    (lake_folder / CatalogEntry.objects.live().first().pointer).unlink()
    block = scene.again(stage="load")
    assert (block.state, block.error_code) == (State.FAILED, "lake-missing")
    assert "extract" in block.next_step
    assert scene.again(stage="extract", force=True).state == State.DONE


def test_rows_that_were_lost_between_catalog_and_copy_are_noticed(stage_scene):
    scene = stage_scene(500, **NO_PORTAL)
    scene.go()
    CatalogEntry.objects.filter(rows=100).update(rows=101)
    block = scene.again(stage="load")
    assert (block.state, block.error_code) == (State.FAILED, "rows-lost")


def test_a_warehouse_that_is_not_in_the_settings_is_named(stage_scene):
    scene = stage_scene(10, warehouse="elsewhere", **NO_PORTAL)
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "no-warehouse")


def test_an_old_snapshot_is_not_loaded_over_a_newer_one(stage_scene):
    scene = stage_scene(50, **NO_PORTAL)
    block = scene.go()
    older = ScheduleBlock.objects.create(
        pipeline=scene.pipeline, starts_at=block.starts_at.replace(year=2025), ends_at=block.ends_at.replace(year=2025),
        stage="load", stages=["load"], due_at=block.due_at,
    )  # fmt: skip
    runner.work_off([older.pk], workers=1)
    older.refresh_from_db()
    assert older.state == State.DONE
    assert "A newer block has been loaded" in older.message


def test_memory_does_not_grow_with_the_rows(stage_scene, monkeypatch):
    """Law 11: ten times the rows, and a stage's process takes no more memory for them."""
    carry_out = stages.carry_out

    def weighed(run, note):
        # what it takes itself: its process begins with what the worker had, and here the worker is the source as well
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = carry_out(run, note)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        return replace(outcome, details={**outcome.details, "grown_mb": grown})

    monkeypatch.setattr(stages, "carry_out", weighed)
    grown = []
    for rows in (10_000, 100_000):
        scene = stage_scene(la311(SOURCE, rows), page_size=10_000, **NO_PORTAL)
        block = scene.go()
        assert (block.state, scene.last("load").rows_out) == (State.DONE, rows)
        grown.append([scene.last(stage).details["grown_mb"] for stage in ("extract", "load")])
    # the files of the large one are 35 MB; as Python's rows they would be some hundreds
    assert max(grown[1]) < 30, grown
    assert max(large - small for small, large in zip(*grown, strict=True)) < 12, grown


def test_two_pipelines_into_one_table_both_arrive(stage_scene):
    one = stage_scene(300, **NO_PORTAL)
    two = stage_scene(500, **NO_PORTAL)
    two.change(table=one.pipeline.table)
    blocks_of = [*one.place().moved, *two.place().moved]
    assert [result.state for result in runner.work_off(blocks_of, workers=2)] == [State.DONE] * 2
    assert len(one.warehouse()) == 500
    assert {run.state for run in [one.last("load"), two.last("load")]} == {RunState.DONE}
