"""The lake's pages: what lies there, the first rows of a file whatever is in it, its bytes unchanged, and whether they still are."""

import csv
import gzip
import hashlib
import io
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from catalog import lake, selectors
from catalog.models import AuditEntry, CatalogEntry, Dataset
from pipelines.formats.sensors import DocumentWriter
from tests import world
from tests.web import plain_web  # noqa: F401

START = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def people(db):
    return world.build(nothing=True)


@pytest.fixture
def trees(people):
    """A dataset, with the pipeline that its files name."""
    made = world.dataset("street-trees", "Street trees")
    world.pipeline("trees", "Street trees", world.provider("parks", "Parks"), made, START)
    return made


@pytest.fixture
def viewer(client, people):
    client.force_login(people.viewer)
    return client


@pytest.fixture
def operator(client, people):
    client.force_login(people.operator)
    return client


def shelve(trees: Dataset, tmp_path, body: bytes, name="page_1.csv", start=START, rows=None) -> CatalogEntry:
    file = tmp_path / "arriving"
    file.write_bytes(body)
    return lake.shelve(
        dataset=trees, source="trees", layer="raw", window=(start, start + timedelta(days=1)), file=file, name=name,
        sha256=hashlib.sha256(body).hexdigest(), bytes=len(body), rows=rows, origin="https://parks.example/trees.csv", metadata={"page": 1},
    )  # fmt: skip


def looked_at(client, entry) -> str:
    reply = client.get(reverse("lake_file", args=[entry.pk]))
    assert reply.status_code == 200
    return reply.content.decode()


def damage(lake_folder, entry, body: bytes) -> None:
    (lake_folder / entry.pointer).write_bytes(body)


# the first rows of a file, whatever is in it


def shown(body: bytes, name="a.csv") -> selectors.Preview:
    return selectors.preview(io.BytesIO(body), name)


def test_the_first_fifty_rows_are_a_table():
    told = shown(b"id,name\n" + b"".join(b'%d,"Oak, red"\n' % n for n in range(200)))
    assert told.header == ["id", "name"] and len(told.rows) == 50 and told.rows[1] == ["1", "Oak, red"] and told.is_cut


def test_a_small_file_is_shown_whole_and_not_called_cut():
    told = shown("\ufeffid,name\r\n1,Ä\r\n".encode())
    assert (told.header, told.rows, told.is_cut, told.oddities, told.trouble) == (["id", "name"], [["1", "Ä"]], False, [], "")


def test_nul_bytes_and_bad_utf8_are_shown_not_crashed():
    told = shown(b"id,name\n1,Bu\x00lky \xff\n")
    assert told.rows == [["1", "Bu␀lky �"]] and len(told.oddities) == 2


def test_rows_of_another_width_are_counted():
    assert "2 of these rows" in shown(b"a,b\n1\n1,2\n1,2,3\n").oddities[0]


def test_a_quote_that_never_closes_is_a_table_with_one_long_cell():
    told = shown(b'a,b\n1,"never closed\n' + b"x" * 3000)
    assert told.rows and all(len(cell) <= selectors.CELL + 1 for cell in told.rows[0])


def test_a_large_cell_is_cut_for_the_eye_and_the_rows_after_it_are_shown():
    told = shown(b"a,b\n1,2\n3," + b"x" * 200_000 + b"\n5,6\n")
    assert [row[0] for row in told.rows] == ["1", "3", "5"] and len(told.rows[1][1]) == selectors.CELL + 1 and not told.trouble


def test_a_cell_larger_than_the_preview_is_named_with_its_row():
    told = shown(b"a,b\n1,2\n3," + b"x" * 1_000_000 + b"\n5,6\n")
    assert told.rows == [["1", "2"]] and told.oddities == ["Row 2 has a cell so large that the preview ends before it."] and not told.trouble


def a_document(rows: int, header: dict | None = None, **tail) -> bytes:
    """A document of sensors as its format writes it (`pipelines.formats.sensors`)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "document.json"
        with DocumentWriter(path, header or {"data_type": "x"}, rows_key="counts") as document:
            document.write({"at": n, "turn": None if n % 2 else "Ä"} for n in range(rows))
            document.tail = tail
        return path.read_bytes()


@pytest.mark.parametrize(("rows", "tail", "is_cut"), [(3, {}, False), (50, {"site": {"x": 1}}, False), (51, {}, True), (100_000, {}, True)])
def test_the_first_rows_of_a_document_are_a_table_however_large_it_is(rows, tail, is_cut):
    stream = io.BytesIO(a_document(rows, **tail))
    told = selectors.preview(stream, "Austin_gs_2019-06-01_counts.json")
    assert (told.header, told.rows[:2], len(told.rows)) == (["at", "turn"], [["0", "Ä"], ["1", ""]], min(rows, 50))
    assert told.is_cut is is_cut and stream.tell() <= selectors.PREVIEW_BYTES + 1


def test_a_document_without_rows_or_with_a_long_beginning_and_json_that_is_none_are_text():
    assert shown(a_document(0), "a.json").text.startswith('{"header":')
    assert shown(a_document(3, {"long": "x" * 600_000}), "a.json").text.startswith('{"header":')
    assert shown(b'{"header":{},\n"data":[\n[1],\n]}', "a.json").text and shown(b'[{"a":1}]', "a.json").text == '[{"a":1}]'


def test_values_right_of_the_last_name_are_counted():
    assert shown(b"a,b\n1,2,3,4\n").nameless == 2 and shown(b"a,b\n1\n").nameless == 0


def test_what_is_no_text_is_not_shown_as_text():
    told = shown(bytes(range(256)) * 40, "a.zip")
    assert told.text == "" and "It is not text" in told.oddities[0]
    assert shown("Grüße, 311\n".encode() * 9, "a.txt").text


def test_a_row_that_our_own_limit_cuts_is_not_shown():
    told = shown(b"a,b\n" + b"1,2\n" + (b"y" * 60_000 + b",z\n") * 20)
    assert told.is_cut and all(len(row) == 2 for row in told.rows)


def test_a_packed_file_is_unpacked_a_little_and_no_more():
    bomb = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000_000)
    tracemalloc.start()
    told = shown(bomb, "a.csv.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.header == ["a", "b"] and len(told.rows) == 50 and told.is_cut
    assert peak < 8_000_000, "40 MB were unpacked to show 50 rows"


def test_a_broken_packed_file_says_so():
    assert "can't be unpacked" in shown(b"not gzip at all", "a.csv.gz").trouble


def test_a_packed_file_that_ends_in_the_middle_says_so():
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    assert "cut short" in shown(whole[:-20], "a.csv.gz").trouble and shown(whole, "a.csv.gz").trouble == ""


def test_an_empty_file_says_so_and_a_header_alone_is_no_trouble():
    assert "no bytes" in shown(b"").trouble
    assert shown(b"a,b\n").header == ["a", "b"] and shown(b"a,b\n").trouble == ""


def test_what_is_no_table_is_shown_as_text():
    told = shown(b'{"type": "FeatureCollection"}', "a.geojson")
    assert told.header == [] and told.text.startswith('{"type"')


# the page of a file


def test_the_page_of_a_file_shows_facts_and_rows(viewer, trees, tmp_path):
    entry = shelve(trees, tmp_path, b"id,name\n1,<b>Oak</b>\n", rows=1)
    text = looked_at(viewer, entry)
    assert entry.sha256 in text and "&lt;b&gt;Oak&lt;/b&gt;" in text and "<b>Oak" not in text
    assert "https://parks.example/trees.csv" in text and "First 1 row" in text


def test_a_file_that_the_lake_has_lost_is_said_and_the_page_stands(viewer, trees, tmp_path, lake_folder):
    entry = shelve(trees, tmp_path, b"id\n1\n")
    (lake_folder / entry.pointer).unlink()
    assert "is not in the lake" in looked_at(viewer, entry)
    reply = viewer.get(reverse("lake_download", args=[entry.pk]), follow=True)
    assert "It can&#x27;t be downloaded" in reply.content.decode()


def test_a_withdrawn_file_leads_to_the_one_that_took_its_place(viewer, trees, tmp_path):
    old, new = shelve(trees, tmp_path, b"id\n1\n"), shelve(trees, tmp_path, b"id\n2\n")
    text = looked_at(viewer, old)
    assert "Withdrawn" in text and reverse("lake_file", args=[new.pk]) in text
    assert "Withdrawn" not in looked_at(viewer, new)


# download


def test_a_download_is_the_very_bytes(viewer, trees, tmp_path):
    body = bytes(range(256)) * 4000
    entry = shelve(trees, tmp_path, body)
    reply = viewer.get(reverse("lake_download", args=[entry.pk]))
    assert b"".join(reply.streaming_content) == body and reply["Content-Length"] == str(len(body))
    assert reply["Content-Disposition"] == 'attachment; filename="page_1.csv"' and reply["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ['a"; filename="evil.exe', "ünï cödé.csv", "line\nbreak.csv"])
def test_a_strange_name_cannot_speak_in_the_headers(viewer, trees, tmp_path, name):
    entry = shelve(trees, tmp_path, b"x\n")
    base, ext = lake.split_name(name)
    CatalogEntry.objects.filter(pk=entry.pk).update(id_base=base, id_ext=ext)
    said = viewer.get(reverse("lake_download", args=[entry.pk]))["Content-Disposition"]
    assert said.startswith("attachment") and "\n" not in said and '; filename="evil' not in said.replace('\\"', "")


def test_a_download_that_the_reader_leaves_closes_its_file(viewer, trees, tmp_path, monkeypatch):
    entry = shelve(trees, tmp_path, b"x" * 1_000_000)
    closed = []
    real = lake.FolderLake._stream

    def watched(self, pointer):
        stream = real(self, pointer)
        close = stream.close
        return _Watched(stream, lambda: (closed.append(pointer), close()))

    monkeypatch.setattr(lake.FolderLake, "_stream", watched)
    reply = viewer.get(reverse("lake_download", args=[entry.pk]))
    next(iter(reply.streaming_content))
    reply.close()
    assert closed == [entry.pointer]


class _Watched:
    def __init__(self, stream, close):
        self.read, self.close = stream.read, close


# check now


def test_a_file_as_it_was_is_equal_and_the_check_is_in_the_audit(operator, trees, tmp_path):
    entry = shelve(trees, tmp_path, b"id\n1\n")
    reply = operator.post(reverse("lake_check", args=[entry.pk]), follow=True)
    assert "Equal: 5 bytes" in reply.content.decode()
    line = AuditEntry.objects.get(kind="file", target=entry.pointer)
    assert (line.actor, line.verb) == ("operator", "check") and line.result.startswith("Equal")


@pytest.mark.parametrize("body", [b"id\n2\n", b"id\n1\n\n", b""])
def test_a_file_that_somebody_changed_is_not_equal(operator, trees, tmp_path, lake_folder, body):
    entry = shelve(trees, tmp_path, b"id\n1\n")
    damage(lake_folder, entry, body)
    assert "Not equal" in operator.post(reverse("lake_check", args=[entry.pk]), follow=True).content.decode()


def test_a_missing_file_is_not_called_equal(operator, trees, tmp_path, lake_folder):
    entry = shelve(trees, tmp_path, b"id\n1\n")
    (lake_folder / entry.pointer).unlink()
    assert "could not be checked" in operator.post(reverse("lake_check", args=[entry.pk]), follow=True).content.decode()


def test_a_check_is_an_act_of_operators_and_never_a_get(viewer, people, trees, tmp_path):
    entry = shelve(trees, tmp_path, b"id\n1\n")
    assert viewer.post(reverse("lake_check", args=[entry.pk])).status_code == 403
    assert reverse("lake_check", args=[entry.pk]) not in looked_at(viewer, entry)
    viewer.force_login(people.operator)
    assert viewer.get(reverse("lake_check", args=[entry.pk])).status_code == 405


# the list


def listed(client, **query) -> str:
    reply = client.get(reverse("lake"), query)
    assert reply.status_code == 200
    return reply.content.decode()


def test_the_list_shows_live_files_and_withdrawn_ones_when_asked(viewer, trees, tmp_path):
    old, new = shelve(trees, tmp_path, b"id\n1\n"), shelve(trees, tmp_path, b"id\n2\n")
    links = {entry: f'href="{reverse("lake_file", args=[entry.pk])}"' for entry in (old, new)}
    assert links[new] in listed(viewer) and links[old] not in listed(viewer)
    assert links[old] in listed(viewer, standing="withdrawn") and links[new] not in listed(viewer, standing="withdrawn")
    assert all(link in listed(viewer, standing="all") for link in links.values())


def test_a_day_is_the_day_that_the_data_is_about_in_the_city(viewer, trees, tmp_path):
    # 06:00 UTC is midnight in Chicago
    entry = shelve(trees, tmp_path, b"id\n1\n")
    link = f'href="{reverse("lake_file", args=[entry.pk])}"'
    assert link in listed(viewer, day="2026-11-20")
    assert link not in listed(viewer, day="2026-11-19") and link not in listed(viewer, day="2026-11-21")
    assert "is not a day" in listed(viewer, day="20 Nov")


def test_the_csv_of_the_list_has_every_file_that_the_filters_ask_for(viewer, trees, tmp_path):
    for n in range(3):
        shelve(trees, tmp_path, b"id\n%d\n" % n, name=f"page_{n}.csv")
    shelve(trees, tmp_path, b"id\n9\n", name="page_0.csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(viewer.get(reverse("lake"), {"format": "csv"}).streaming_content).decode())))
    assert [row["file"] for row in rows] == ["page_0.csv", "page_1.csv", "page_2.csv"]


def test_totals_and_queries_do_not_grow_with_the_lake(viewer, trees, tmp_path):
    shelve(trees, tmp_path, b"id\n1\n")
    with CaptureQueriesContext(connection) as few:
        listed(viewer)
    for n in range(130):
        shelve(trees, tmp_path, b"id\n%d\n" % n, name=f"p{n}.csv", rows=1)
    with CaptureQueriesContext(connection) as many:
        text = listed(viewer)
    assert len(many) == len(few) and "131 files" in text and "Files 1 to 100 of 131" in text


def test_an_empty_lake_says_what_comes_first(viewer):
    assert "The lake is empty." in listed(viewer)


def test_a_lake_that_cannot_be_asked_is_said_and_the_list_stands(viewer, settings):
    settings.LAKE_URL = "ftp://nowhere"
    assert "The lake can&#x27;t be asked" in listed(viewer) or "The lake can't be asked" in listed(viewer)


@pytest.mark.parametrize("name", ["lake_file", "lake_download", "lake_check"])
def test_a_file_that_is_not_there_is_not_found(operator, name):
    address = reverse(name, args=[999_999])
    assert (operator.post(address) if name == "lake_check" else operator.get(address)).status_code == 404


def test_a_file_that_the_lake_lost_is_not_called_live(viewer, trees, tmp_path, lake_folder):
    entry = shelve(trees, tmp_path, b"a,b\n1,2\n")
    assert "Live" in looked_at(viewer, entry)
    (lake_folder / entry.pointer).unlink()
    text = looked_at(viewer, entry)
    assert "Can’t be read" in text and "Live" not in text and reverse("lake_download", args=[entry.pk]) not in text
