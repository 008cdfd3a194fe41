"""The lake's promises, kept by a folder and by a bucket alike; the bucket is moto's real HTTP server."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from catalog import lake as lakes
from catalog.models import CatalogEntry, Dataset
from pipelines.errors import DataError, SetupError, TransientError

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 20, 23, tzinfo=UTC)
NOTHING_IS_TOO_YOUNG = timedelta(seconds=-5)


def give_credentials(patch: pytest.MonkeyPatch, endpoint: str = "") -> None:
    given = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": endpoint}
    for name, value in given.items():
        patch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        patch.delenv(name, raising=False)


@pytest.fixture
def credentials(monkeypatch):
    give_credentials(monkeypatch)


@pytest.fixture(scope="module")
def storage():
    """A lake in a bucket at moto's server, which must still be made."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        give_credentials(patch, "http://{}:{}".format(*server.get_host_and_port()))
        place = lakes.at("s3://city-lake/open/data")
        yield place
        place._s3.close()
    server.stop()


@pytest.fixture
def bucket(storage):
    storage._s3.create_bucket(Bucket="city-lake")
    yield storage
    for item in storage._s3.list_objects_v2(Bucket="city-lake").get("Contents", []):
        storage._s3.delete_object(Bucket="city-lake", Key=item["Key"])
    storage._s3.delete_bucket(Bucket="city-lake")


@pytest.fixture(params=["folder", "bucket"])
def lake(request, tmp_path, settings):
    """The lake of this installation, of either kind."""
    if request.param == "folder":
        settings.LAKE_URL = str(tmp_path / "lake")
    else:
        settings.LAKE_URL = "s3://city-lake/open/data"
        # a client takes half a second to make, and one is enough for all of these tests
        lakes.lake()._s3 = request.getfixturevalue("bucket")._s3
    yield lakes.lake()
    lakes._opened.cache_clear()


@pytest.fixture
def dataset(db):
    return Dataset.objects.create(slug="service-requests", title="Service requests")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def make(tmp_path):
    """make(b"…") is a local file with these bytes."""
    workdir = tmp_path / "work"
    workdir.mkdir()

    def make(content: bytes, name="fetched.csv") -> Path:
        path = workdir / name
        path.write_bytes(content)
        return path

    return make


def pointer_of(content: bytes, name="page_1.csv", starts_at=START) -> str:
    return lakes.shelf("la-311", "service-requests", "raw", starts_at, sha(content), name)


def shelve(dataset, path: Path, *, name="page_1.csv", window=(START, START + HOUR), **changes) -> CatalogEntry:
    content = path.read_bytes()
    facts = {"sha256": sha(content), "bytes": len(content), "rows": content.count(b"\n"), "origin": "https://data.example.gov/x", "run_id": 7}
    return lakes.shelve(dataset=dataset, source="la-311", layer="raw", window=window, file=path, name=name, **{**facts, **changes})


def files(lake) -> set[str]:
    """Every name that lies in the lake, temporaries too."""
    if isinstance(lake, lakes.FolderLake):
        return {path.relative_to(lake.root).as_posix() for path in lake.root.rglob("*") if path.is_file()}
    return {lake._pointer(item["Key"]) for item in lake._s3.list_objects_v2(Bucket=lake.bucket).get("Contents", [])}


# names


def test_a_pointer_tells_the_layer_the_dataset_the_pipeline_and_the_hour():
    assert pointer_of(b"a") == f"raw/service-requests/la-311/2026/11/2026-11-20T23Z/{sha(b'a')[:12]}-page_1.csv"


def test_the_two_hours_of_the_autumn_clock_change_stay_two():
    first, second = datetime(2026, 11, 1, 6, tzinfo=UTC), datetime(2026, 11, 1, 7, tzinfo=UTC)  # both are 01:00 in Chicago
    assert pointer_of(b"", starts_at=first) != pointer_of(b"", starts_at=second)


def test_a_window_that_starts_at_the_half_hour_has_a_place_of_its_own():
    assert pointer_of(b"", starts_at=START + HOUR / 2) != pointer_of(b"", starts_at=START)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".hidden", "a\\..\\b", "x\0y", "", "é" * 300, "a" * 5000 + ".csv", "a/b.csv"]
)
def test_a_hostile_name_stays_one_harmless_file_of_its_window(name):
    folder, _, file = pointer_of(b"a", name=name).rpartition("/")
    assert folder == "raw/service-requests/la-311/2026/11/2026-11-20T23Z"
    assert lakes.OURS.fullmatch(f"{folder}/{file}")
    assert len(file) <= 140 and file.isascii()


def test_two_names_never_become_one():
    names = ["a b.csv", "a_b.csv", "a/b.csv", "a?b.csv", "a" * 200 + ".csv", "a" * 201 + ".csv", "ä.csv", "ö.csv"]
    assert len({pointer_of(b"", name=name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("page_2.csv", ("page_2", ".csv")),
        ("page_2.csv.gz", ("page_2", ".csv.gz")),
        ("README", ("README", "")),
        ("2026.11.20 trips.json", ("2026.11.20 trips", ".json")),
    ],
)
def test_a_name_is_split_where_its_kind_begins(name, parts):
    assert lakes.split_name(name) == parts


@pytest.mark.parametrize("pointer", ["../out.csv", "/etc/passwd", "raw/../../out", "raw//x", "", "raw/./x", "raw\\..\\x", "raw/x\n"])
def test_a_pointer_that_leads_out_of_the_lake_is_refused(lake, make, pointer):
    for verb in (lambda: lake.put(make(b"a"), pointer=pointer), lambda: lake.exists(pointer), lambda: lake.open(pointer).__enter__()):
        with pytest.raises(DataError) as caught:
            verb()
        assert caught.value.code == "lake-pointer"


def test_a_link_in_the_folder_does_not_lead_out_of_the_lake(tmp_path, make):
    place = lakes.FolderLake(tmp_path / "lake")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "raw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError):
        place.put(make(b"a"), pointer=pointer_of(b"a"))
    assert not list((tmp_path / "elsewhere").iterdir())


# files in, files out


@pytest.mark.django_db
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_what_went_in_comes_out(lake, make, tmp_path, size):
    content = os.urandom(size)
    pointer = pointer_of(content)
    path = make(content)
    lake.put(path, pointer=pointer, sha256=sha(content))
    assert not path.exists()
    assert lake.exists(pointer) and lake.size(pointer) == size
    with lake.open(pointer) as stream:
        assert stream.read() == content
    assert lake.local_path(pointer, tmp_path, sha256=sha(content)).read_bytes() == content
    assert files(lake) == {pointer}


@pytest.mark.django_db
def test_a_file_in_parts_is_uploaded_whole(bucket, make, monkeypatch):
    monkeypatch.setattr(lakes, "PART", 5 << 20)
    content = os.urandom(1 << 20) * 12
    bucket.put(make(content), pointer=pointer_of(content))
    head = bucket._head(pointer_of(content))
    assert head["ContentLength"] == len(content) and head["ETag"].endswith('-3"')  # three parts
    with bucket.open(pointer_of(content)) as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == sha(content)


@pytest.mark.django_db
def test_the_same_bytes_again_are_welcome_and_other_bytes_are_refused(lake, make):
    pointer = pointer_of(b"a")
    lake.put(make(b"a"), pointer=pointer)
    lake.put(make(b"a"), pointer=pointer)
    path = make(b"b")
    with pytest.raises(DataError) as caught:
        lake.put(path, pointer=pointer)
    assert caught.value.code == "lake-other-bytes"
    assert path.exists()
    with lake.open(pointer) as stream:
        assert stream.read() == b"a"


def test_a_file_that_changed_on_its_way_is_refused(lake, make):
    with pytest.raises(DataError, match="changed before it reached the lake"):
        lake.put(make(b"a"), pointer=pointer_of(b"b"), sha256=sha(b"b"))
    assert files(lake) == set()


def test_a_missing_file_is_named_with_what_to_do(lake, tmp_path):
    for verb in (lambda: lake.open("raw/x").__enter__(), lambda: lake.size("raw/x"), lambda: lake.local_path("raw/x", tmp_path)):
        with pytest.raises(DataError) as caught:
            verb()
        assert caught.value.code == "lake-missing" and "raw/x" in caught.value.message and "again from extract" in caught.value.next_step
    assert not lake.exists("raw/x")


@pytest.mark.django_db
def test_a_file_that_somebody_changed_in_the_lake_is_not_taken_for_the_old_one(lake, make, tmp_path):
    pointer = pointer_of(b"a")
    lake.put(make(b"a"), pointer=pointer)
    lake._write_bytes(b"b", pointer)
    with pytest.raises(DataError, match="not the file that was catalogued"):
        lake.local_path(pointer, tmp_path / "work", sha256=sha(b"a"))
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.django_db
def test_an_object_stays_private(bucket, make):
    bucket.put(make(b"a"), pointer=pointer_of(b"a"))
    grants = bucket._s3.get_object_acl(Bucket="city-lake", Key=f"open/data/{pointer_of(b'a')}")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"]


def test_the_probe_says_where_and_leaves_nothing(lake):
    assert lake.describe() in lake.check()
    assert files(lake) == set()


def test_the_page_sees_the_place_and_no_secret(tmp_path, credentials, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://admin:hunter2@minio.city.gov:9000/x?token=hunter2")
    assert lakes.at("s3://city-lake/open").describe() == "s3://city-lake/open on minio.city.gov:9000"
    assert lakes.at(str(tmp_path)).describe() == str(tmp_path)


def test_only_a_disk_says_how_much_is_free(lake):
    free = lake.free_space()
    assert (free is None) if isinstance(lake, lakes.BucketLake) else free > 0


@pytest.mark.parametrize(
    "url", ["", "  ", "http://x/y", "s3://", "s3://key:secret@bucket/x", "s3://Bucket_/x", "s3://bucket/../x", "s3://bucket/x?y=1"]
)
def test_an_address_that_is_no_lake_is_refused_without_repeating_it(url):
    with pytest.raises(SetupError) as caught:
        lakes.at(url)
    assert "secret" not in caught.value.message


def test_a_connection_is_not_shared_with_another_process(settings, tmp_path, monkeypatch):
    settings.LAKE_URL = str(tmp_path)
    mine = lakes.lake()
    assert lakes.lake() is mine
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert lakes.lake() is not mine
    lakes._opened.cache_clear()


# files and their entries


def test_a_shelved_file_has_an_entry_that_tells_all(lake, dataset, make):
    entry = shelve(dataset, make(b"id\n1\n"), metadata={"page": 1})
    entry.refresh_from_db()
    with lake.open(entry.pointer) as stream:
        assert stream.read() == b"id\n1\n"
    assert (entry.source, entry.layer, entry.name, entry.id_base, entry.id_ext) == ("la-311", "raw", "page_1.csv", "page_1", ".csv")
    assert (entry.window_start, entry.window_end, entry.bytes, entry.rows, entry.run_id) == (START, START + HOUR, 5, 2, 7)
    assert (entry.origin, entry.metadata, entry.withdrawn_at) == ("https://data.example.gov/x", {"page": 1}, None)


def test_the_same_bytes_give_the_same_entry(lake, dataset, make):
    first = shelve(dataset, make(b"a"))
    assert shelve(dataset, make(b"a"), run_id=8) == first
    assert CatalogEntry.objects.get().run_id == 7
    assert files(lake) == {first.pointer}


def test_other_bytes_withdraw_the_former_entry_and_keep_its_file(lake, dataset, make):
    first, second = shelve(dataset, make(b"a")), shelve(dataset, make(b"b"))
    first.refresh_from_db()
    assert first.withdrawn_at and list(CatalogEntry.objects.live()) == [second]
    assert files(lake) == {first.pointer, second.pointer}


def test_bytes_that_come_back_revive_their_entry(lake, dataset, make):
    first, second = shelve(dataset, make(b"a")), shelve(dataset, make(b"b"))
    assert shelve(dataset, make(b"a")) == first
    assert list(CatalogEntry.objects.live()) == [first]
    assert CatalogEntry.objects.count() == 2 and second.pk


def test_two_files_of_a_window_stay_two_even_with_the_same_bytes(lake, dataset, make):
    names = ["x.csv", "x.txt", "x y.csv", "x_y.csv"]
    for name in names:
        shelve(dataset, make(b"a"), name=name)
    assert sorted(entry.name for entry in CatalogEntry.objects.live()) == sorted(names)


def test_the_same_bytes_in_another_window_are_another_file(lake, dataset, make):
    shelve(dataset, make(b""))
    shelve(dataset, make(b""), window=(START + HOUR, START + 2 * HOUR))
    assert CatalogEntry.objects.live().count() == 2


def test_what_the_source_no_longer_gives_is_withdrawn_not_erased(lake, dataset, make):
    kept = shelve(dataset, make(b"a"), name="page_1.csv")
    gone = shelve(dataset, make(b"b"), name="page_2.csv")
    elsewhere = shelve(dataset, make(b"b"), name="page_2.csv", window=(START + HOUR, START + 2 * HOUR))
    assert lakes.withdraw_others("la-311", "raw", START, [kept]) == 1
    assert set(CatalogEntry.objects.live()) == {kept, elsewhere}
    assert lake.exists(gone.pointer)


def test_an_entry_whose_file_was_lost_gets_it_back(lake, dataset, make):
    entry = shelve(dataset, make(b"a"))
    lake._remove(entry.pointer)
    assert shelve(dataset, make(b"a")) == entry
    assert lake.exists(entry.pointer)


def test_a_file_of_another_size_than_told_is_not_shelved(lake, dataset, make):
    with pytest.raises(DataError, match="has 1 bytes, not 2"):
        shelve(dataset, make(b"a"), bytes=2)
    assert files(lake) == set() and not CatalogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_workers_that_shelve_the_same_window_at_once_leave_one_live_entry(lake, make):
    dataset = Dataset.objects.create(slug="service-requests", title="Service requests")
    gate, failures = threading.Barrier(6), []

    def work(number):
        from django.db import connection

        path = make(bytes([number]), name=f"{number}.csv")
        gate.wait()
        try:
            for _ in range(3):
                shelve(dataset, path)
                path.write_bytes(bytes([number]))
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert CatalogEntry.objects.live().count() == 1 and CatalogEntry.objects.count() == 6


# what may be removed


def test_a_file_in_the_catalog_cannot_be_deleted_even_when_withdrawn(lake, dataset, make):
    entry = shelve(dataset, make(b"a"))
    CatalogEntry.objects.update(withdrawn_at=START)
    with pytest.raises(DataError, match="in the catalog"):
        lake.delete(entry.pointer)
    assert lake.exists(entry.pointer)


@pytest.mark.django_db
def test_a_file_that_nobody_names_can_be_deleted_twice(lake, make):
    lake.put(make(b"a"), pointer=pointer_of(b"a"))
    lake.delete(pointer_of(b"a"))
    lake.delete(pointer_of(b"a"))
    assert not lake.exists(pointer_of(b"a"))


def test_a_death_between_file_and_entry_leaves_an_orphan_and_no_entry(lake, dataset, make, monkeypatch):
    def die(*args, **kwargs):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(lakes, "_enter", die)
        with pytest.raises(SystemExit):
            shelve(dataset, make(b"a"))
    assert not CatalogEntry.objects.exists()
    assert lake.sweep(HOUR) == [], "it may be one whose entry is about to be made"
    assert lake.sweep(NOTHING_IS_TOO_YOUNG) == [pointer_of(b"a")]
    assert files(lake) == set()


def test_the_names_below_a_folder_are_those_of_its_files_alone(lake, make):
    for name in ("backup/catalog/b.gz", "backup/catalog/a.gz", "backup/catalog/deeper/c.gz", "backup/catalogue/d.gz"):
        lake.put(make(name.encode()), pointer=name)
    assert lake.names("backup/catalog") == ["a.gz", "b.gz"] and lake.names("backup/none") == []
    with pytest.raises(DataError):
        lake.names("backup/../..")


def test_a_sweep_takes_orphans_and_temporaries_only(lake, dataset, make):
    entry = shelve(dataset, make(b"a"))
    withdrawn = shelve(dataset, make(b"b"), name="gone.csv")
    lakes.withdraw_others("la-311", "raw", START, [entry])
    strangers = {"raw/notes.txt", "README.md", "raw/service-requests/la-311/2026/11/2026-11-20T23Z/plain.csv"}
    litter = {pointer_of(b"c"), f"raw/service-requests/{lakes._temporary()}"}
    for pointer in strangers | litter:
        lake._write_bytes(b"c", pointer)
    assert set(lake.sweep(NOTHING_IS_TOO_YOUNG)) == litter
    assert files(lake) == strangers | {entry.pointer, withdrawn.pointer}


@pytest.mark.django_db
def test_an_upload_that_died_is_aborted_by_the_sweep_and_others_uploads_are_not(bucket):
    ours = f"open/data/{pointer_of(b'a')}"
    for key in (ours, "open/data/theirs.bin", "elsewhere/x"):
        bucket._s3.create_multipart_upload(Bucket="city-lake", Key=key)
    assert bucket.sweep(HOUR) == [pointer_of(b"a")]  # moto says of every upload that it began in 2010
    left = {upload["Key"] for upload in bucket._s3.list_multipart_uploads(Bucket="city-lake")["Uploads"]}
    assert left == {"open/data/theirs.bin", "elsewhere/x"}


@pytest.mark.django_db
def test_an_upload_that_is_going_on_is_left_alone(credentials):
    place = lakes.at("s3://city-lake")
    with Stubber(place._s3) as stub:
        going_on = {"Key": pointer_of(b"a"), "UploadId": "1", "Initiated": datetime.now(UTC)}
        stub.add_response("list_multipart_uploads", {"Uploads": [going_on]})
        stub.add_response("list_objects_v2", {})
        assert place.sweep(HOUR) == []  # an abort would be a call that the stub does not expect
        stub.assert_no_pending_responses()


@pytest.mark.django_db
def test_a_writer_killed_in_the_middle_leaves_only_what_a_sweep_removes(tmp_path):
    script = (
        "import os, signal, django; django.setup()\n"
        "from pathlib import Path\n"
        "from catalog import lake\n"
        "def half(path, part):\n"
        "    part.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "lake._link_or_copy = half\n"
        f"lake.FolderLake(Path({str(tmp_path / 'lake')!r}))._write(Path('whole'), {pointer_of(b'a')!r}, '')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "DJANGO_SETTINGS_MODULE": "opendata_ops.settings"}, cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL
    place = lakes.FolderLake(tmp_path / "lake")
    assert not place.exists(pointer_of(b"a"))
    assert len(place.sweep(NOTHING_IS_TOO_YOUNG)) == 1 and files(place) == set()


# trouble, in words


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path, make, dataset, settings):
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk; the next test has the same promise with a disk that says it is full")
    try:
        settings.LAKE_URL = str(tmp_path / "lake")
        with pytest.raises(TransientError) as caught:
            big = Path("/dev/shm") / f"lake-test-{os.getpid()}"
            big.write_bytes(bytes(1 << 20))
            try:
                shelve(dataset, big)
            finally:
                assert big.exists()
                big.unlink()
        assert caught.value.code == "lake-full" and f"The lake at {tmp_path}/lake is full" in caught.value.message
        assert files(lakes.lake()) == set() and not CatalogEntry.objects.exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
        lakes._opened.cache_clear()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        ("ENOSPC", TransientError, "lake-full"),
        ("EDQUOT", TransientError, "lake-full"),
        ("EACCES", SetupError, "lake-permission"),
        ("EIO", TransientError, "lake-io"),
    ],
)
def test_trouble_with_the_disk_is_told_and_leaves_nothing_behind(tmp_path, make, monkeypatch, number, kind, code):
    import errno

    def half(path, part):
        part.write_bytes(b"half")
        raise OSError(getattr(errno, number), "trouble", str(part))

    monkeypatch.setattr(lakes, "_link_or_copy", half)
    place, path = lakes.FolderLake(tmp_path / "lake"), make(b"whole")
    with pytest.raises(kind) as caught:
        place.put(path, pointer=pointer_of(b"whole"))
    assert caught.value.code == code and str(place.root) in caught.value.message
    assert path.read_bytes() == b"whole" and files(place) == set()


@pytest.mark.django_db
def test_a_lake_where_nothing_can_be_made_says_what_to_do(tmp_path, make):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SetupError, match="can't be used") as caught:
        lakes.FolderLake(tmp_path / "file").put(make(b"a"), pointer=pointer_of(b"a"))
    assert "LAKE_URL" in caught.value.next_step


def test_another_disk_is_no_obstacle(tmp_path, make, monkeypatch, dataset, settings):
    import errno

    def other_disk(*args, **kwargs):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    settings.LAKE_URL = str(tmp_path / "lake")
    entry = shelve(dataset, make(b"a"))
    assert files(lakes.lake()) == {entry.pointer}
    lakes._opened.cache_clear()


def test_a_bucket_that_is_not_there_says_what_to_do(bucket):
    with pytest.raises(SetupError, match="NoSuchBucket") as caught:
        lakes.at("s3://no-such-bucket/x").check()
    assert "bucket's name" in caught.value.next_step


def test_missing_credentials_say_what_to_do(storage, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SetupError) as caught:
        lakes.at("s3://city-lake").check()
    assert caught.value.code == "lake-credentials"


@contextmanager
def server_that_says(*replies: bytes):
    """An HTTP server of the crudest kind: a connection, a request, one of the replies, the end. The last one is repeated."""
    listener = socket.create_server(("127.0.0.1", 0))
    said = []

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                said.append(replies[min(len(said), len(replies) - 1)])
                client.sendall(said[-1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", said
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nonly this"
SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 71\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole"


@pytest.mark.parametrize("how", ["at once", "in pieces", "by lines", "as a copy"])
def test_a_cut_body_is_never_accepted(credentials, monkeypatch, tmp_path, how):
    with server_that_says(CUT) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        place = lakes.at("s3://city-lake")
        with pytest.raises(TransientError) as caught:
            if how == "as a copy":
                place.local_path("raw/x", tmp_path, sha256=sha(b"only this"))
            with place.open("raw/x") as stream:
                if how == "at once":
                    stream.read()
                elif how == "in pieces":
                    while stream.read(4):
                        pass
                else:
                    list(stream)
        assert caught.value.code == "lake-cut"
        place._s3.close()


def test_a_bucket_that_asks_for_patience_gets_it(credentials, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with server_that_says(SLOW_DOWN, SLOW_DOWN, WHOLE) as (address, said):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        place = lakes.at("s3://city-lake")
        with place.open("raw/x") as stream:
            assert stream.read() == b"whole"
        assert len(said) == 3
        place._s3.close()


def test_a_bucket_that_stays_busy_is_tried_again_later(credentials, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with server_that_says(SLOW_DOWN) as (address, said):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        place = lakes.at("s3://city-lake")
        with pytest.raises(TransientError, match="503 SlowDown"):
            place.open("raw/x").__enter__()
        assert len(said) == 5
        place._s3.close()


def test_a_bucket_that_does_not_answer_is_tried_again_later(credentials, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(TransientError) as caught:
        lakes.at("s3://city-lake").size("raw/x")
    assert caught.value.code == "lake-down"


# places as atd-mds named them


def atd(starts_at: datetime, name="trips.json", provider="VeoRide", zone="America/Chicago") -> str:
    return lakes.atd_mds_place(provider, starts_at, zone, name)


@pytest.fixture
def staging(monkeypatch):
    monkeypatch.setenv("ATD_MDS_RUN_MODE", "STAGING")


@pytest.mark.parametrize(
    ("starts_at", "pointer"),
    [
        (datetime(2020, 1, 11, 22, tzinfo=UTC), "staging/veoride/2020/1/11/16/trips.json"),  # its block was 2020-01-11-17
        (datetime(2020, 1, 1, 5, tzinfo=UTC), "staging/veoride/2019/12/31/23/trips.json"),  # its block was 2020-01-01-00
        (datetime(2020, 3, 8, 7, tzinfo=UTC), "staging/veoride/2020/3/8/1/trips.json"),
        (datetime(2020, 3, 8, 8, tzinfo=UTC), "staging/veoride/2020/3/8/3/trips.json"),
        (datetime(2020, 11, 1, 6, tzinfo=UTC), "staging/veoride/2020/11/1/1-first/trips.json"),
        (datetime(2020, 11, 1, 7, tzinfo=UTC), "staging/veoride/2020/11/1/1/trips.json"),  # as there: the hour after the change
    ],
)
def test_an_hour_lies_where_atd_mds_laid_it(staging, starts_at, pointer):
    assert atd(starts_at) == pointer


def test_no_two_hours_of_a_year_share_a_place(staging):
    hours = [datetime(2020, 1, 1, tzinfo=UTC) + HOUR * number for number in range(8784)]
    assert len({atd(hour) for hour in hours}) == 8784


def test_the_stage_is_the_environments_name_where_no_run_mode_is_set(monkeypatch, settings):
    monkeypatch.delenv("ATD_MDS_RUN_MODE", raising=False)
    settings.ENVIRONMENT = "Production"
    assert atd(START).startswith("production/")


def test_a_place_that_leads_out_is_made_harmless(staging):
    assert atd(START, provider="../../etc", name="../x").count("/") == 6
    assert ".." not in atd(START, provider="../../etc", name="../x").split("/")


def test_the_same_bytes_at_a_named_place_are_the_same_entry(lake, dataset, make, staging):
    place = atd(START)
    first = shelve(dataset, make(b'{"a": 1}'), name="trips.json", place=place)
    again = shelve(dataset, make(b'{"a": 1}'), name="trips.json", place=place)
    assert (first.pk, first.pointer) == (again.pk, place)
    assert files(lake) == {place}


def test_other_bytes_never_overwrite_what_lies_at_a_named_place(lake, dataset, make, staging):
    place = atd(START)
    first = shelve(dataset, make(b"old"), name="trips.json", place=place)
    second = shelve(dataset, make(b"new"), name="trips.json", place=place)
    assert second.pointer == place.replace("trips.json", f"trips-{sha(b'new')[:12]}.json")
    with lake.open(first.pointer) as old, lake.open(second.pointer) as new:
        assert (old.read(), new.read()) == (b"old", b"new")
    first.refresh_from_db()
    assert first.withdrawn_at and not second.withdrawn_at
    back = shelve(dataset, make(b"old"), name="trips.json", place=place)
    assert (back.pk, back.withdrawn_at) == (first.pk, None)


def test_two_pipelines_with_the_same_bytes_at_one_place_keep_an_entry_each(lake, dataset, make, staging):
    first = shelve(dataset, make(b"same"), name="trips.json", place=atd(START))
    content = b"same"
    other = lakes.shelve(
        dataset=dataset, source="other", layer="raw", window=(START, START + HOUR), file=make(content), name="trips.json",
        sha256=sha(content), bytes=4, rows=0, place=atd(START),
    )  # fmt: skip
    assert (first.source, other.source) == ("la-311", "other")
    assert first.pointer != other.pointer and not first.withdrawn_at


def test_days_that_were_fetched_in_one_second_keep_an_entry_each_of_the_same_bytes_at_one_place(lake, dataset, make, staging):
    days = [(START + day * timedelta(days=1), START + (day + 1) * timedelta(days=1)) for day in range(5)]
    entries = [shelve(dataset, make(b"the site"), name="site.json", window=day, place=atd(START)) for day in days]
    again = [shelve(dataset, make(b"the site"), name="site.json", window=day, place=atd(START)) for day in days]
    assert len({entry.pointer for entry in entries}) == 5 and again == entries
    assert [entry.withdrawn_at for entry in CatalogEntry.objects.order_by("pk")] == [None] * 5


def test_the_same_bytes_made_of_other_files_say_what_they_were_made_of_last(lake, dataset, make):
    first = shelve(dataset, make(b"made"), metadata={"inputs": ["a"], "inventory": {"date": "1"}, "header": 1})
    again = shelve(dataset, make(b"made"), metadata={"inputs": ["b"], "inventory": {"date": "2"}, "header": 1})
    assert again.pk == first.pk and CatalogEntry.objects.get().metadata == {"inputs": ["b"], "inventory": {"date": "2"}, "header": 1}


def test_a_file_that_no_entry_names_is_not_taken_for_ours_at_a_named_place(lake, dataset, make, staging):
    lake._write_bytes(b"atd-mds wrote this", atd(START))
    entry = shelve(dataset, make(b"ours"), name="trips.json", place=atd(START))
    assert entry.pointer != atd(START)
    assert lake.sweep(NOTHING_IS_TOO_YOUNG) == []  # what atd-mds laid there is its own
    assert atd(START) in files(lake)


def test_further_pages_stand_beside_the_first_and_each_reads_as_atd_mds_reads_its_own(lake, dataset, make, staging):
    pages = [{"version": "0.3.0", "data": {"trips": [{"trip_id": number}]}} for number in range(2)]
    for page, name in zip(pages, ("trips.json", "trips-00002.json"), strict=True):
        shelve(dataset, make(json.dumps(page).encode()), name=name, place=atd(START, name))
    hour = "staging/veoride/2026/11/20/17"
    assert files(lake) == {f"{hour}/trips.json", f"{hour}/trips-2.json"}
    with lake.open(f"{hour}/trips.json") as first, lake.open(f"{hour}/trips-2.json") as second:
        told = [json.load(page) for page in (first, second)]
    assert [(page["version"], page["data"]["trips"]) for page in told] == [("0.3.0", [{"trip_id": 0}]), ("0.3.0", [{"trip_id": 1}])]
