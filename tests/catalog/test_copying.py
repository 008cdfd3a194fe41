"""Files copied from one repository to another: the same bytes under their own name, twice harmless, the original untouched."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from catalog import copying, lake
from catalog.audit import Actor
from catalog.models import AuditEntry, CatalogEntry
from pipelines.errors import DataError
from tests import world
from tests.pipelines.commanding import command

pytestmark = pytest.mark.django_db
ANN = Actor("ann")
START = datetime(2019, 6, 1, 5, tzinfo=UTC)


@pytest.fixture
def city(db):
    """A pipeline with the names of atd-data-lake, its test twin, and another one of the same dataset."""
    awam, reads = world.provider("awam", "AWAM"), world.dataset("reads", "Bluetooth reads")
    own = world.pipeline("bt-unmatched", "Unmatched", awam, reads, world.SATURDAY, inventory="bt", data_source="Bluetooth")
    world.pipeline("bt-unmatched-test", "Twin", awam, reads, world.SATURDAY, inventory="bt", data_source="Bluetooth", twin_of=own)
    world.pipeline("archive", "Archive", awam, world.dataset("old", "Old reads"), world.SATURDAY)
    return reads


def shelve(city, tmp_path, body: bytes, place: str = "raw/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt", day: int = 0) -> CatalogEntry:
    file = tmp_path / "arriving"
    file.write_bytes(body)
    start = START + timedelta(days=day)
    return lake.shelve(
        dataset=city, source="bt-unmatched", layer="raw", window=(start, start + timedelta(days=1)), file=file, name="Austin_bt_06-01-2019.txt",
        sha256=hashlib.sha256(body).hexdigest(), bytes=len(body), rows=5, origin="/srv/awam", metadata={"base": "Austin"},
        place=place, identity=("Austin", "unmatched.txt"),
    )  # fmt: skip


def body_of(entry: CatalogEntry) -> bytes:
    with lake.lake().open(entry.pointer) as stream:
        return stream.read()


def test_a_copy_lies_in_the_test_repository_with_an_entry_of_its_own(city, tmp_path):
    entry = shelve(city, tmp_path, b"one\n")
    made = copying.copy([entry], source="bt-unmatched-test", dataset=city, actor=ANN, is_test=True, reason="try")
    assert (made.new, made.same, made.bytes, made.failed) == (1, 0, 4, [])
    copied = CatalogEntry.objects.get(source="bt-unmatched-test")
    assert copied.pointer == "raw-test/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt" and body_of(copied) == b"one\n"
    for name in ("layer", "id_base", "id_ext", "window_start", "window_end", "sha256", "bytes", "rows", "origin"):
        assert getattr(copied, name) == getattr(entry, name), name
    assert copied.metadata == {"base": "Austin", "copied_from": entry.pointer}
    # the original is still there, and live
    entry.refresh_from_db()
    assert body_of(entry) == b"one\n" and entry.withdrawn_at is None
    again = copying.copy([entry], source="bt-unmatched-test", dataset=city, actor=ANN, is_test=True)
    assert (again.new, again.same) == (0, 1) and CatalogEntry.objects.count() == 2
    assert AuditEntry.objects.filter(kind="files", verb="copy", reason="try").count() == 1


def test_other_bytes_take_the_place_of_an_earlier_copy(city, tmp_path):
    copying.copy([shelve(city, tmp_path, b"one\n")], source="bt-unmatched-test", dataset=city, actor=ANN, is_test=True)
    made = copying.copy([shelve(city, tmp_path, b"two\n")], source="bt-unmatched-test", dataset=city, actor=ANN, is_test=True)
    assert (made.new, made.replaced) == (0, 1)
    assert body_of(CatalogEntry.objects.filter(source="bt-unmatched-test").live().get()) == b"two\n"
    assert CatalogEntry.objects.filter(source="bt-unmatched-test").count() == 2


def test_a_file_of_the_shelf_is_shelved_again_and_may_change_its_layer(city, tmp_path):
    entry = shelve(city, tmp_path, b"one\n", place="")
    target = world.dataset("old2", "Older")
    copying.copy([entry], source="archive", dataset=target, actor=ANN, layer="backup")
    copied = CatalogEntry.objects.get(source="archive")
    assert copied.pointer == f"backup/old2/archive/2019/06/2019-06-01T05Z/{entry.sha256[:12]}-Austin_bt_06-01-2019.txt"
    assert copied.layer == "backup" and copied.dataset == target and body_of(copied) == b"one\n"


def test_a_file_that_is_missing_is_named_and_the_others_are_copied(city, tmp_path, lake_folder):
    lost, whole = shelve(city, tmp_path, b"one\n"), shelve(city, tmp_path, b"two\n", "raw/2019/06/02/bt/Austin_bt_2019-06-02_unmatched.txt", day=1)
    (lake_folder / lost.pointer).unlink()
    dry = copying.copy([lost, whole], source="archive", dataset=city, actor=ANN, dry_run=True)
    made = copying.copy([lost, whole], source="archive", dataset=city, actor=ANN)
    for one in (dry, made):
        assert one.new == 1 and len(one.failed) == 1 and lost.pointer in one.failed[0] and "1 failed" in one.words
    assert CatalogEntry.objects.filter(source="archive").count() == 1


def test_a_file_is_never_copied_onto_itself(city, tmp_path):
    with pytest.raises(DataError, match="is one of bt-unmatched already"):
        copying.copy([shelve(city, tmp_path, b"one\n")], source="bt-unmatched", dataset=city, actor=ANN)


def test_the_command_copies_what_a_search_finds_to_the_twins(city, tmp_path):
    shelve(city, tmp_path, b"one\n")
    told = command("catalog", "copy", "--source", "bluetooth", "--repository", "raw", "--to", "twins", "--dry-run")
    assert told.code == 0 and "would be 1 copied" in told.out and CatalogEntry.objects.count() == 1
    told = command("catalog", "copy", "--source", "bluetooth", "--repository", "raw", "--date", "2019-06-01", "--to", "twins", "--json")
    assert told.code == 0 and told.json["copied"][0]["to"] == "bt-unmatched-test"
    assert CatalogEntry.objects.filter(pointer__startswith="raw-test/").count() == 1
    assert command("catalog", "copy", "--source", "bt", "--repository", "raw-test", "--to", "twins").code == 2
    assert command("catalog", "copy", "--source", "none", "--to", "archive").code == 3
    assert command("catalog", "copy", "--to", "archive").code == 2
    assert command("catalog", "copy", "--source", "bt-unmatched", "--to", "archiv").code == 2
