"""CSV files in a folder: readers see the old file or the new one, never a part."""

import csv
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pipelines.connectors.base import Account, Column
from pipelines.connectors.csv_file import CsvFile
from pipelines.errors import SetupError, TransientError

COLUMNS = (Column("id"), Column("note"), Column("n", "number"))


@pytest.fixture
def folder(tmp_path):
    return CsvFile(Account("files", str(tmp_path)), door=None)


def publish(connector, rows, resource="requests"):
    connector.open_publication(resource, COLUMNS)
    connector.upsert(resource, rows)
    connector.close_publication(resource)


def test_a_publication_is_one_file_with_every_value_as_it_was(folder, tmp_path):
    nasty = 'a,"b"\nc é €'
    rows = [
        {"id": "1", "note": nasty, "n": Decimal("1E+3")},
        {"id": "2", "note": "=1+1", "n": None},
        {"n": True, "note": datetime(2026, 3, 1, tzinfo=UTC)},
    ]
    publish(folder, rows)
    with (tmp_path / "requests.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "note", "n"],
            ["1", nasty, "1000"],
            ["2", "=1+1", ""],
            ["", "2026-03-01T00:00:00+00:00", "true"],
        ]
    assert folder.published_count("requests") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["requests.csv"]


def test_readers_see_the_last_file_until_the_next_one_is_whole(folder, tmp_path):
    publish(folder, [{"id": "old"}])
    folder.open_publication("requests", COLUMNS)
    folder.upsert("requests", [{"id": "new"}] * 5000)
    assert folder.published_count("requests") == 1
    folder.upsert("requests", [{"id": "new"}] * 5000)
    folder.close_publication("requests")
    assert folder.published_count("requests") == 10_000


def test_what_a_killed_publication_left_is_not_in_the_next_one(folder, tmp_path):
    killed = CsvFile(Account("files", str(tmp_path)), door=None)
    killed.open_publication("requests", COLUMNS)
    killed.upsert("requests", [{"id": "half"}] * 9000)
    killed._open.pop("requests")[0].close()  # as the end of its process does
    publish(folder, [{"id": "1"}])
    assert folder.published_count("requests") == 1


def test_two_publications_of_one_file_do_not_mix(folder, tmp_path):
    other = CsvFile(Account("files", str(tmp_path)), door=None)
    folder.open_publication("requests", COLUMNS)
    with pytest.raises(TransientError, match="another publication is writing"):
        other.open_publication("requests", COLUMNS)
    folder.upsert("requests", [{"id": "1"}])
    folder.close_publication("requests")
    publish(other, [{"id": "1"}, {"id": "2"}])
    assert folder.published_count("requests") == 2


@pytest.mark.parametrize("resource", ["", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\nb", "a\\b", "a\0b"])
def test_only_plain_file_names_are_written(folder, resource):
    with pytest.raises(SetupError) as caught:
        folder.preflight(resource, columns=COLUMNS, key=("id",))
    assert caught.value.code == "bad-resource"


@pytest.mark.parametrize("address", ["", "relative/folder", "/nonexistent/folder"])
def test_a_folder_that_cannot_be_written_is_named(address):
    with pytest.raises(SetupError) as caught:
        CsvFile(Account("files", address), door=None).test()
    assert caught.value.next_step


def test_nothing_published_is_no_rows(folder):
    assert folder.published_count("requests") == 0
    assert "can be written" in folder.test()
