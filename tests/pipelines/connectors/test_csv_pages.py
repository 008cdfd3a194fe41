"""CSV files that arrived: rows are counted as a CSV reader counts them, whatever stands in the cells."""

import csv
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.connectors.csv_pages import RecordCounter, Watched, count_records, header_of, settle
from pipelines.errors import DataError, TransientError

CELLS = st.text(alphabet='ab,"\n\r é€', max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12), st.integers(1, 7), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_records_are_counted_as_a_csv_reader_does_wherever_the_pieces_break(rows, size, quoting):
    written = io.StringIO()
    csv.writer(written, lineterminator="\n", quoting=quoting).writerows(rows)
    text = written.getvalue().encode()
    counter = RecordCounter()
    for start in range(0, len(text), size):
        counter.feed(text[start : start + size])
    assert (counter.total, counter.is_open) == (len(rows), False)


@pytest.mark.parametrize(
    ("text", "rows", "notes"),
    [
        (b"a,b\n1,2\n", 1, ()),
        (b"a,b\n", 0, ()),
        (b"\xef\xbb\xbfa,b\n1,2\n", 1, ("byte order mark taken off",)),
        (b'\xef\xbb\xbf"a","b"\n1,2', 1, ("byte order mark taken off", "line end of the last row added")),
        (b"a,b\n1,2", 1, ("line end of the last row added",)),
        (b"a,b\r\n1,2\r\n", 1, ()),
        (b'a,b\n"x\ny","q""\n""q"\n3,4\n', 2, ()),
        (b"a,b\n1,\xff\n3,\x004\n", 2, ()),
    ],
)
def test_a_file_is_settled_and_what_was_done_is_noted(tmp_path, text, rows, notes):
    path = tmp_path / "page.csv"
    path.write_bytes(text)
    page = settle(path, proven=True)
    stored = path.read_bytes()
    assert (page.header, page.rows, page.notes) == (("a", "b"), rows, notes)
    assert (page.bytes, page.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert (stored[-1:], stored[:3] == b"\xef\xbb\xbf", list(tmp_path.iterdir())) == (b"\n", False, [path])


@pytest.mark.parametrize(("text", "proven"), [(b'a,b\n"1,2\n', True), (b'a,b\n"1,2\n', False), (b"a,b\n1,2", False), (b"a,b\n1,2\n3", False)])
def test_a_file_that_ends_inside_a_row_is_cut(tmp_path, text, proven):
    path = tmp_path / "page.csv"
    path.write_bytes(text)
    with pytest.raises(TransientError) as caught:
        settle(path, proven=proven)
    assert caught.value.code == "cut-body"


def test_a_file_without_a_header_is_refused(tmp_path):
    (tmp_path / "page.csv").touch()
    with pytest.raises(DataError, match=r"page\.csv has no header"):
        header_of(tmp_path / "page.csv")


def test_a_big_file_is_counted_piece_by_piece(tmp_path):
    path = tmp_path / "page.csv"
    row = '"' + "x" * 700 + '\n""y""","z"\n'
    path.write_text('"a","b"\n' + row * 5000)
    assert count_records(path) == 5001


@pytest.mark.parametrize(
    "body",
    [b'a,b\n1,2\n3,"x\ny"\n', b"\xef\xbb\xbfa,b\n1,2\n", b"a,b\n1,2", b"a,b\n", b'a\n"x""y"\n'],
    ids=["whole", "a mark", "no last end", "no rows", "quotes"],
)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_what_was_watched_on_its_way_is_settled_as_if_it_were_read(tmp_path, body, piece):
    read, watched = tmp_path / "read.csv", tmp_path / "watched.csv"
    read.write_bytes(body)
    watched.write_bytes(body)
    seen = Watched()
    seen.begin()(b'an attempt, "that broke off')
    feed = seen.begin()
    for start in range(0, len(body), piece):
        feed(body[start : start + piece])
    told = settle(watched, proven=True, watched=seen, sha256=hashlib.sha256(body).hexdigest())
    assert told == settle(read, proven=True)
    assert watched.read_bytes() == read.read_bytes()
