"""Downloads as CSV: values as they are, and nothing that a spreadsheet would run."""

import csv
import io
from datetime import datetime, timedelta, timezone

import pytest

from catalog.exports import csv_response, plain


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_a_cell_that_a_spreadsheet_would_run_is_disarmed(sign):
    assert plain(f'{sign}HYPERLINK("http://x")') == f'\'{sign}HYPERLINK("http://x")'


@pytest.mark.parametrize("text", ["-5", "+1.5e-3", "1,234", "a=b", "Main St @ 1st", "", " =1", "ü"])
def test_numbers_and_plain_words_stay_as_they_are(text):
    assert plain(text) == text


def test_a_moment_is_told_in_utc_and_nothing_is_empty():
    noon = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=-6)))
    assert (plain(noon), plain(None), plain(0), plain("a\x00b")) == ("2026-11-21T18:00:00Z", "", "0", "a\N{SYMBOL FOR NULL}b")


def test_a_download_comes_with_its_header_line_by_line():
    reply = csv_response("rows.csv", ["a", "b"], iter([["＝1+1", 'say "x"\nagain'], [None, 2]]))
    text = b"".join(reply.streaming_content).decode()
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ["'＝1+1", 'say "x"\nagain'], ["", "2"]]
    assert reply["Content-Disposition"] == 'attachment; filename="rows.csv"'
