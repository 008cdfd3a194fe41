"""Counting the rows of a JSON page, whatever stands in its texts and wherever its pieces meet."""

import hashlib
import json

import pytest

from pipelines.connectors.json_pages import ObjectCounter, settle
from pipelines.errors import DataError, TransientError

ROWS = [
    {"a": "plain", "b": "1"},
    {},
    {"text": 'braces {} [] and "quotes" and \\ and \\" and \\\\', "n": 5, "list": [[1, 2], [{"x": "}"}]]},
    {"point": {"type": "Point", "coordinates": [-118.5, 34.1]}, "deep": {"a": {"b": [{}]}}},
    {"end": "a backslash \\", "next": "☂\n]"},
]
PAGE = json.dumps(ROWS, ensure_ascii=False).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_rows_are_counted_wherever_the_pieces_meet(size):
    counter = ObjectCounter()
    for start in range(0, len(PAGE), size):
        counter.feed(PAGE[start : start + size])
    assert (counter.objects, counter.is_open, counter.strange) == (len(ROWS), False, "")


def test_a_page_that_was_cut_anywhere_is_seen(tmp_path):
    for end in range(1, len(PAGE)):
        (tmp_path / "p.json").write_bytes(PAGE[:end])
        with pytest.raises(TransientError) as caught:
            settle(tmp_path / "p.json")
        assert caught.value.code == "cut-body"


@pytest.mark.parametrize("body", ["[]", "[]\n", " [ ]", "\ufeff[]"])
def test_an_empty_page_is_a_page(tmp_path, body):
    (tmp_path / "p.json").write_text(body, encoding="utf-8")
    assert (settle(tmp_path / "p.json").rows, settle(tmp_path / "p.json").header) == (0, ())


@pytest.mark.parametrize("body", ['{"error":true,"message":"Internal error"}', '"text"', "[[1],[2]]", "[{}][{}]", "[{}] {}", "7"])
def test_what_is_no_array_of_rows_is_not_taken(tmp_path, body):
    (tmp_path / "p.json").write_text(body)
    with pytest.raises(DataError) as caught:
        settle(tmp_path / "p.json")
    assert caught.value.code == "not-rows" and "p.json" in caught.value.message


def test_a_page_is_told_with_its_hash_its_first_names_and_without_its_mark(tmp_path):
    (tmp_path / "p.json").write_bytes(b"\xef\xbb\xbf" + PAGE)
    page = settle(tmp_path / "p.json")
    assert (tmp_path / "p.json").read_bytes() == PAGE
    assert (page.rows, page.bytes, page.sha256) == (len(ROWS), len(PAGE), hashlib.sha256(PAGE).hexdigest())
    assert (page.header, page.notes) == (("a", "b"), ("byte order mark taken off",))
