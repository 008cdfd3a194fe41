"""The catalog saved and brought back: nothing is lost on the way, nothing that came later is taken away, and every gap is named."""

import gzip
import hashlib
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog import backup, inventory, lake
from catalog.audit import Actor
from catalog.models import AuditEntry, CatalogEntry, Dataset, InventoryEdition
from pipelines.errors import DataError
from pipelines.models import UpkeepJob
from pipelines.upkeep import jobs
from tests.pipelines.commanding import command
from tests.web import asks

pytestmark = pytest.mark.django_db
ANN = Actor("ann")
START = datetime(2019, 6, 1, 5, tzinfo=UTC)
UNITS = [{"device_name": "lamar_mlk", "lat": 30.27, "lon": -97.75}]


@pytest.fixture
def reads(db):
    return Dataset.objects.create(slug="reads", title="Bluetooth reads")


def shelve(dataset: Dataset, tmp_path: Path, body: bytes, name: str = "page_1.csv", day: int = 0, **more) -> CatalogEntry:
    file = tmp_path / "arriving"
    file.write_bytes(body)
    start = START + timedelta(days=day)
    return lake.shelve(
        dataset=dataset, source="bt-unmatched", layer="raw", window=(start, start + timedelta(days=1)), file=file, name=name,
        sha256=hashlib.sha256(body).hexdigest(), bytes=len(body), rows=None, metadata={"header": {"data_type": "bluetooth"}}, run_id=7, **more,
    )  # fmt: skip


@pytest.fixture
def city(reads, tmp_path):
    """Two days of files, one of which was brought twice, and an edition of the inventory."""
    shelve(reads, tmp_path, b"a,b\n1,2\n")
    shelve(reads, tmp_path, b"a,b\n1,3\n")  # withdraws the first
    shelve(reads, tmp_path, b"a,b\n9,9\n", name="Austin_bt_2019-06-02_unmatched.txt", day=1, identity=("Austin", "unmatched.txt"))
    inventory.store("bt", START, UNITS, ANN)


def state() -> list[dict]:
    fields = ("dataset__slug", "pointer", "sha256", *backup.IDENTITY, *backup.FACTS)
    return [
        *CatalogEntry.objects.order_by("pointer").values(*fields),
        *InventoryEdition.objects.order_by("code", "dated_at").values("code", "dated_at", "units", "sha256", "origin", "uploaded_at", "uploaded_by"),
    ]


def saved(tmp_path: Path, name: str = "catalog.jsonl.gz") -> Path:
    path = tmp_path / name
    backup.backup(path, ANN)
    return path


@pytest.mark.parametrize("name", ["catalog.jsonl", "catalog.jsonl.gz"])
def test_a_lost_catalog_comes_back_as_it_was(city, tmp_path, name):
    before, path = state(), saved(tmp_path, name)
    assert backup.check(path) == (3, 1) and [entry.name for entry in tmp_path.glob(".*")] == []
    CatalogEntry.objects.all().delete()
    InventoryEdition.objects.all().delete()
    Dataset.objects.all().delete()
    done = backup.restore(path, ANN, verify="sha256")
    assert state() == before and done.is_whole
    assert (done.created, done.updated, done.unchanged, done.datasets, done.editions_created) == (3, 0, 0, ["reads"], 1)
    assert Dataset.objects.get().title == "Bluetooth reads"
    # twice is harmless
    again = backup.restore(path, ANN)
    assert state() == before and (again.created, again.updated, again.unchanged, again.editions_unchanged) == (0, 0, 3, 1)
    assert list(AuditEntry.objects.filter(kind="catalog").order_by("pk").values_list("verb", flat=True)) == ["backup", "restore", "restore"]


def test_the_same_catalog_is_the_same_lines(city, tmp_path):
    first, second = (gzip.decompress(saved(tmp_path, name).read_bytes()).splitlines() for name in ("a.gz", "b.gz"))
    assert first[1:-1] == second[1:-1] and json.loads(first[-1])["entries"] == 3
    assert json.loads(first[2])["window_start"] == "2019-06-01T05:00:00+00:00"


def test_what_was_changed_is_put_right_and_what_came_later_stays(city, reads, tmp_path):
    path = saved(tmp_path)
    CatalogEntry.objects.filter(id_base="Austin").update(metadata={}, withdrawn_at=START)
    later = shelve(reads, tmp_path, b"a,b\n1,4\n")  # other bytes of the first day, after the backup
    done = backup.restore(path, ANN)
    assert (done.created, done.updated, done.unchanged, done.superseded) == (0, 1, 2, 1)
    later.refresh_from_db()
    assert later.withdrawn_at is None and CatalogEntry.objects.filter(window_start=START).live().get() == later
    entry = CatalogEntry.objects.get(id_base="Austin")
    assert entry.withdrawn_at is None and entry.metadata == {"header": {"data_type": "bluetooth"}}


def test_an_entry_that_is_lost_comes_back_in_the_place_of_an_older_one(city, tmp_path):
    path = saved(tmp_path)
    older, newer = CatalogEntry.objects.filter(window_start=START).order_by("created_at")
    newer.delete()
    CatalogEntry.objects.filter(pk=older.pk).update(withdrawn_at=None)
    before = [one for one in state() if one.get("pointer") == older.pointer]
    done = backup.restore(path, ANN)
    # the older one is live now, so it stays what the backup does not take away, but gives way to the one that came after it
    assert done.created == 1 and CatalogEntry.objects.filter(window_start=START).live().get().pointer == newer.pointer
    assert before and CatalogEntry.objects.count() == 3


def test_a_file_that_is_missing_or_changed_is_left_out_and_named(city, tmp_path, lake_folder):
    path = saved(tmp_path)
    withdrawn, changed, gone = CatalogEntry.objects.order_by("pk")
    (lake_folder / gone.pointer).unlink()
    (lake_folder / changed.pointer).write_bytes(b"x,y\n1,3\n")
    CatalogEntry.objects.all().delete()
    dry = backup.restore(path, ANN, verify="sha256", dry_run=True)
    assert not CatalogEntry.objects.exists() and not AuditEntry.objects.filter(verb="restore").exists()
    done = backup.restore(path, ANN, verify="sha256")
    assert vars(done) == vars(dry) and not done.is_whole
    assert (done.created, done.missing, done.altered) == (1, [gone.pointer], [changed.pointer])
    assert CatalogEntry.objects.get().pointer == withdrawn.pointer
    # the size alone does not show it, and whoever wants no look gets none
    assert backup.restore(path, ANN).created == 1
    assert backup.restore(path, ANN, verify="nothing").created == 1


def test_another_file_under_the_same_pointer_is_a_conflict_and_stays(city, tmp_path):
    path = saved(tmp_path)
    CatalogEntry.objects.filter(id_base="Austin").update(id_base="Dallas")
    InventoryEdition.objects.update(units=[], sha256=inventory.fingerprint([]))
    done = backup.restore(path, ANN)
    assert "here it is bt-unmatched" in done.conflicts[0] and CatalogEntry.objects.filter(id_base="Dallas").exists()
    assert done.editions_other == ["bt of 2019-06-01"] and InventoryEdition.objects.get().units == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: lines[:-1], "it was cut: its last line is missing"),
        (lambda lines: lines[:2] + lines[3:], "what it holds is not what its last line says"),
        (lambda lines: [*lines, lines[1]], "stands after its end"),
        (lambda lines: [line.replace(b"Austin", b"Dallas") for line in lines], "it was changed"),
        (lambda lines: lines[1:], "does not begin as a backup"),
        (lambda lines: [*lines[:2], lines[2][:30]], "line 3"),
        (lambda lines: [b"1"], "line 1"),
        (lambda lines: [], "it was cut"),
    ],
)
def test_what_is_no_whole_backup_changes_nothing(city, tmp_path, spoil, words):
    path = saved(tmp_path, "catalog.jsonl")
    path.write_bytes(b"\n".join(spoil(path.read_bytes().splitlines())))
    CatalogEntry.objects.all().delete()
    with pytest.raises(DataError, match=words) as caught:
        backup.restore(path, ANN)
    assert caught.value.code == "backup-broken" and not CatalogEntry.objects.exists()


def test_a_packed_backup_that_was_cut_is_not_taken(city, tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole backup"):
        backup.check(path)
    with pytest.raises(DataError, match="can't be read"):
        backup.check(tmp_path / "none.gz")


def many(dataset: Dataset, number: int) -> None:
    CatalogEntry.objects.all().delete()
    days = [START + timedelta(days=n) for n in range(number)]
    CatalogEntry.objects.bulk_create(
        CatalogEntry(
            dataset=dataset, source="s", layer="raw", id_base="b", id_ext=".csv", window_start=day, window_end=day + timedelta(days=1),
            pointer=f"raw/{n}", sha256="0" * 64, bytes=1, metadata={"header": "x" * 500},
        )
        for n, day in enumerate(days)
    )  # fmt: skip


def test_a_batch_is_asked_for_at_once_however_many_lines_it_has(reads, tmp_path):
    for number in (3, 30):
        many(reads, number)
        path = saved(tmp_path, f"{number}.jsonl")
        CatalogEntry.objects.filter(pointer="raw/0").delete()
        with asks(exactly=5):
            assert backup.restore(path, ANN, verify="nothing").unchanged == number - 1


def test_memory_is_flat_while_it_is_saved_and_brought_back(reads, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "BATCH", 25)

    def cost(number: int) -> int:
        many(reads, number)
        tracemalloc.start()
        backup.restore(saved(tmp_path, f"{number}.jsonl"), ANN, verify="nothing", dry_run=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    cost(10)  # what is only made once
    assert cost(300) < 2 * cost(100)


# the command


def test_the_command_saves_into_the_lake_and_brings_the_newest_back(city, tmp_path, lake_folder):
    first = command("catalog", "backup", "--reason", "before the move", "--json")
    assert first.code == 0 and (first.json["entries"], first.json["editions"]) == (3, 1)
    assert first.json["place"].startswith("backup/catalog/20") and (lake_folder / first.json["place"]).exists()
    assert not CatalogEntry.objects.filter(layer="backup").exists() and lake.lake().sweep(timedelta(seconds=-5)) == []
    before = state()
    CatalogEntry.objects.all().delete()
    dry = command("catalog", "restore", "--dry-run")
    assert dry.code == 0 and "Would be restored" in dry.out and "3 brought back" in dry.out and not CatalogEntry.objects.exists()
    told = command("catalog", "restore", "--verify", "sha256", "--json")
    assert told.code == 0 and told.json["is_whole"] and state() == before
    assert command("catalog", "restore", "--from-lake", first.json["place"]).code == 0
    (lake_folder / CatalogEntry.objects.get(id_base="Austin").pointer).unlink()
    CatalogEntry.objects.filter(id_base="Austin").delete()
    told = command("catalog", "restore")
    assert told.code == 1 and "not in the lake: raw/reads/bt-unmatched" in told.err


def test_the_command_takes_no_other_files_place(city, tmp_path):
    path = tmp_path / "mine.jsonl"
    assert command("catalog", "backup", str(path)).code == 0 and path.exists()
    assert command("catalog", "backup", str(path)).code == 2
    assert command("catalog", "backup", str(tmp_path / "no" / "x.jsonl")).code == 2
    assert command("catalog", "restore", str(path), "--from-lake", "x").code == 2
    assert command("catalog", "restore", str(tmp_path / "none")).code == 2


def test_a_lake_without_a_backup_says_so(reads):
    told = command("catalog", "restore")
    assert told.code == 2 and "There is no backup below backup/catalog" in told.err


def test_the_upkeep_job_keeps_the_newest(city, lake_folder):
    folder = lake_folder / backup.PLACE
    folder.mkdir(parents=True)
    for day in (1, 2, 3):
        (folder / f"2026-01-0{day}T000000Z.jsonl.gz").write_bytes(b"old")
    job = UpkeepJob.objects.create(title="Backup", kind="catalog-backup", options={"keep": 2}, time_zone="UTC")
    run = jobs.carry_out(jobs.start(job, actor=ANN).run.pk)
    assert run.state == "done" and "3 entries and 1 edition of" in run.message and "2 older ones were taken out" in run.message
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 2 and kept[0] == "2026-01-03T000000Z.jsonl.gz" and backup.check(folder / kept[1]) == (3, 1)
