"""Law 1 in every way of reading: a block that read little, rows that were deleted, rows without a key, a portal that is replaced whole."""

from datetime import timedelta

import pytest
from django.utils import timezone

from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines.models import Pipeline, State
from pipelines.selectors.chain import Chain, earlier_runs, moment_words, reconcile
from pipelines.selectors.outcome import outcome
from tests.pipelines.scene import SOURCE, city, made_row, stage_scene

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

WATERMARKED = {"watermark_column": "updateddate", "overlap_minutes": 0, "page_size": 400}


def chain_of(scene) -> Chain:
    block = scene.block
    assert block.state == State.DONE, block.message
    runs = list(block.runs.all())
    return reconcile(runs, block.pipeline.stages, earlier_runs(runs))


def counts(scene) -> list[int | None]:
    chain = chain_of(scene)
    assert chain.adds_up is True, chain.sentence
    return [hop.rows for hop in chain.hops]


def said(scene) -> str:
    return " ".join(outcome(scene.block, chain_of(scene)))


def add(scene, numbers) -> None:
    source = scene.source.dataset(SOURCE)
    source.publish([dict(zip(source.names, made_row(number), strict=True)) for number in numbers])


def test_a_block_that_read_only_changes_adds_up_to_what_it_read(stage_scene):
    scene = stage_scene(1000, **WATERMARKED)
    scene.go()
    assert counts(scene) == [1000] * 4
    add(scene, (1000, 1001))
    scene.go()
    assert counts(scene) == [3, 3, 3, 3]
    assert chain_of(scene).sentence.startswith("3 new or changed at the source since 2026-01-01 16:39 = 3 in the lake")
    words = said(scene)
    assert "The table and the portal have 1,002 rows each, those of other blocks among them." in words
    assert "It asked for rows whose updateddate is at or after 2026-01-01 16:39" in words and "Read up to 2026-01-01 16:41 (updateddate)" in words


def test_what_earlier_blocks_left_unsent_is_not_called_too_many(stage_scene):
    scene = stage_scene(100, **WATERMARKED)
    scene.go(stages=["extract", "load"])
    add(scene, (100,))
    scene.again("extract")
    assert scene.last("publish").published == 101
    assert counts(scene) == [2, 2, 2, 2]
    assert "99 rows besides those of this block were sent" in said(scene)


def test_force_by_watermark_and_a_portal_that_is_replaced_whole_add_up(stage_scene):
    scene = stage_scene(100, **WATERMARKED, portal_mode="replace")
    scene.go()
    add(scene, (100,))
    scene.go()
    assert scene.last("publish").published == 101 and counts(scene) == [2, 2, 2, 2]
    scene.again("publish", force=True)
    assert counts(scene) == [2, 2, 2, 2]


def test_while_the_portal_is_down_nothing_is_told_of_what_it_had_before(stage_scene):
    scene = stage_scene(100, max_attempts=5)
    scene.go()
    scene.portal.fail(503, times=100)
    block = scene.go(rebuild=True)
    runs = list(block.runs.all())
    chain = reconcile(runs, block.pipeline.stages)
    words = " ".join(outcome(block, chain))
    assert "a new table was put" in words and "have 100 rows each" not in words and "on the portal" not in chain.sentence


@pytest.mark.parametrize(("policy", "here"), [("delete", 90), ("keep", 100)])
def test_after_deletions_the_portal_has_what_the_warehouse_has(stage_scene, policy, here):
    scene = stage_scene(100, gone_rows=policy)
    scene.go()
    scene.source.dataset(SOURCE).publish([{"id": f"k{number:07d}", ":deleted": True} for number in range(10)])
    scene.go()
    assert counts(scene) == [90] * 4
    assert len(scene.warehouse()) == here == len(scene.portal_rows())
    words = said(scene)
    if policy == "delete":
        assert "10 rows are gone at the source: they were deleted from the table." in words and "10 rows were deleted on Portal" in words
        assert "The table and the portal have 90 rows each." in words
    else:
        assert "10 rows are gone at the source, and kept" in words and "The table and the portal have 100 rows each" in words


def test_keys_compared_by_watermark_delete_here_and_there_and_the_counts_agree(stage_scene):
    scene = stage_scene(100, **WATERMARKED, gone_rows="delete", compare_days=7)
    scene.go()
    Pipeline.objects.update(compared_at=timezone.now() - timedelta(days=8))
    scene.source.dataset(SOURCE).publish([{"id": "k0000003", ":deleted": True}, {"id": "k0000099", ":deleted": True}])
    scene.go()
    assert counts(scene) == [0, 0, 0, 0]
    assert len(scene.warehouse()) == 98 == len(scene.portal_rows())
    words = said(scene)
    assert "all keys were compared" in words and "2 rows are gone" in words and "98 rows each" in words


NAMES = ("name", "species", "issued")
PETS = [("Molly", "Dog", "2017-04-28T00:00:00.000")] * 2 + [("Zoë", "Cat", "2018-01-02T00:00:00.000")]
KEYLESS = {"key": [], "load_mode": "replace", "version_column": "", "portal_mode": "replace"}


def keyless(rows) -> SandboxTable:
    return SandboxTable(SOURCE, "Pets", (("name", "text"), ("species", "text"), ("issued", "calendar_date")), rows)


def portal_names(scene) -> list[str]:
    return sorted(row["name"] for row in scene.portal_rows().values())


def test_rows_without_a_key_reach_the_portal_and_leave_it_again(stage_scene):
    scene = stage_scene(keyless(PETS), **KEYLESS, gone_rows="delete", watch_volume=False)
    scene.go()
    assert counts(scene) == [3] * 4 and portal_names(scene) == ["Molly", "Molly", "Zoë"]
    # nothing new, one gone: a row without a key leaves no trace but the smaller count
    scene.source.dataset(SOURCE).publish([dict(zip(NAMES, row, strict=True)) for row in PETS[1:]], replace=True)
    scene.go()
    assert counts(scene) == [2] * 4 and portal_names(scene) == ["Molly", "Zoë"]
    assert "1 row of the table made room" in said(scene)
    scene.go(force=True)
    assert counts(scene) == [2] * 4


def test_rows_without_a_key_by_watermark_add_up_though_the_portal_is_replaced_whole(stage_scene):
    scene = stage_scene(keyless(PETS), **KEYLESS, watermark_column="issued", overlap_minutes=0)
    scene.go()
    scene.source.dataset(SOURCE).publish([dict(zip(NAMES, ("Rex", "Dog", "2018-01-02T00:00:00.000"), strict=True))])
    scene.go()
    assert counts(scene) == [2, 2, 2, 2] and portal_names(scene) == ["Molly", "Molly", "Rex", "Zoë"]
    assert "2018-01-02" in said(scene)


def test_an_initialized_table_adds_up_and_says_that_it_is_new(stage_scene):
    scene = stage_scene(50, **WATERMARKED)
    scene.go()
    add(scene, (50,))
    scene.go(rebuild=True)
    assert counts(scene) == [51] * 4
    assert "a new table was put in the place of the old one" in said(scene)


def test_a_widened_column_is_told(stage_scene):
    scene = stage_scene(10, portal=None, portal_resource="", stages=["extract", "load"])
    scene.go()
    source = scene.source.dataset(SOURCE)
    source.alter(retype={"amount": "text"})
    source.publish([dict(zip(source.names, made_row(3), strict=True)) | {"amount": "seven"}])
    scene.go()
    assert counts(scene) == [10] * 3 and "amount" in said(scene)
    assert dict(city(f'select id, amount from city."{scene.pipeline.table}"'))["k0000003"] == "seven"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-01-01T16:39:00.000", "2026-01-01 16:39"),
        ("2018-01-02T00:00:00.000", "2018-01-02"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01 00:00 UTC"),
        ("2026-01-01T16:39:00+02:00", "2026-01-01 16:39 +02:00"),
        ("004512", "004512"),
        ("", ""),
    ],
)
def test_a_watermark_reads_as_people_write_it(text, words):
    assert moment_words(text) == words
