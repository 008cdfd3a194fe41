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


def test_a_folder_may_want_the_backslash_dialect_and_its_rows_are_counted_right(tmp_path):
    connector = CsvFile(Account("files", str(tmp_path), {"dialect": "backslash"}), door=None)
    connector.preflight("requests", columns=COLUMNS, key=())
    publish(connector, [{"id": "1", "note": 'an odd " quote\nand \\', "n": 5}, {"id": "2", "note": None}, {"id": "3", "note": '"'}])
    assert (tmp_path / "requests.csv").read_text() == 'id,note,n\n1,"an odd \\" quote\\\nand \\\\",5\n2,,\n3,"\\"",\n'
    assert connector.published_count("requests") == 3


def test_a_dialect_that_there_is_not_is_refused_before_anything_is_written(tmp_path):
    connector = CsvFile(Account("files", str(tmp_path), {"dialect": "excel"}), door=None)
    for act in (lambda: connector.preflight("r", columns=COLUMNS, key=()), lambda: connector.open_publication("r", COLUMNS)):
        with pytest.raises(SetupError, match="the dialect 'excel'") as caught:
            act()
        assert caught.value.next_step == "Write rfc4180 or backslash as the dialect of provider files."
    assert not list(tmp_path.iterdir())


def test_a_bare_carriage_return_in_a_cell_ends_no_row(folder, tmp_path):
    publish(folder, [{"id": "1", "note": "a\rb"}, {"id": "2", "note": "\r\n"}, {"id": "3", "note": "end\r"}])
    with (tmp_path / "requests.csv").open(newline="") as file:
        assert [row[1] for row in csv.reader(file)] == ["note", "a\rb", "\r\n", "end\r"]
    assert folder.published_count("requests") == 3
