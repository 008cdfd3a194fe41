"""The bench's portal: slices of files, counted requests, and nothing guessed."""

import csv
import io
import json
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from opendata_ops.bench import rows, server

NAME = "aaaa-0001"


@pytest.fixture
def portal(tmp_path):
    for kind in ("base", "delta", "snap"):
        for form in ("csv", "json"):
            rows.render(tmp_path, rows.Content(kind, 200), form)
    with server.start(tmp_path) as running:
        running.place(NAME, server.Place("base", 200, since_kind="delta"))
        yield running


def ask(portal: server.Running, path: str, **asked: str | int) -> bytes:
    query = urlencode({f"${name}": value for name, value in asked.items()})
    with urlopen(f"{portal.url}/{path}?{query}", timeout=10) as answer:
        body = answer.read()
        assert len(body) == int(answer.headers["Content-Length"])
        return body


def records(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline="")))


def test_a_page_of_csv_has_the_header_and_the_asked_rows(portal):
    header, *found = records(ask(portal, f"resource/{NAME}.csv", offset=50, limit=30, order="srnumber"))
    assert header == list(rows.NAMES)
    assert found == [[cell or "" for cell in rows.row(number)] for number in range(50, 80)]


def test_a_page_of_json_is_a_list_also_when_it_is_empty(portal):
    found = json.loads(ask(portal, f"resource/{NAME}.json", offset=198, limit=10))
    assert [row["srnumber"] for row in found] == [rows.row(198)[0], rows.row(199)[0]]
    assert json.loads(ask(portal, f"resource/{NAME}.json", offset=200, limit=10)) == []


def test_a_where_gets_what_was_placed_for_it(portal):
    delta = rows.Content("delta", 200)
    assert json.loads(ask(portal, f"resource/{NAME}.json", select="count(*)")) == [{"count": "200"}]
    assert json.loads(ask(portal, f"resource/{NAME}.json", select="count(*)", where="updateddate >= '2021'")) == [{"count": str(delta.count)}]
    _, *found = records(ask(portal, f"resource/{NAME}.csv", where="updateddate >= '2021'", limit=100))
    assert [row[0] for row in found] == [rows.row(number)[0] for number, _ in delta.numbers(0)]


def test_what_it_cannot_answer_is_refused(portal):
    portal.place("aaaa-0002", server.Place("base", 200))
    for path, asked in (
        (f"resource/{NAME}.csv", {"select": "srnumber,status"}),
        ("resource/aaaa-0002.csv", {"where": "status = 'Open'"}),
        ("resource/aaaa-0003.csv", {}),
    ):
        with pytest.raises(HTTPError):
            ask(portal, path, **asked)


def test_every_request_is_counted_until_something_is_placed(portal):
    ask(portal, f"api/views/{NAME}.json")
    ask(portal, f"resource/{NAME}.csv", limit=5)
    ask(portal, f"resource/{NAME}.json", select="count(*)")
    assert portal.seen() == {"metadata": 1, "rows": 1, "csv": 1, "count": 1}
    portal.place(NAME, server.Place("snap", 200))
    assert portal.seen() == {}


def test_the_columns_and_the_version_are_told(portal):
    portal.place(NAME, server.Place("base", 200, version=1_700_000_123))
    told = json.loads(ask(portal, f"api/views/{NAME}.json"))
    assert [column["fieldName"] for column in told["columns"]] == list(rows.NAMES)
    assert (told["rowsUpdatedAt"], told["metadata"]["rowIdentifier"]) == (1_700_000_123, "srnumber")


def test_it_ends_with_the_one_who_started_it(tmp_path):
    with server.start(tmp_path) as running:
        assert running.seen() == {}
    with pytest.raises(OSError):
        running.seen()
