"""JSON pages as CSV: every value comes through as it stood, whichever of the two readers reads it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.connectors.json_pages import settle
from pipelines.errors import DataError
from pipelines.formats import json_rows
from pipelines.formats.json_rows import write_csv

COLUMNS = {"a": "text", "b": "text"}


@pytest.fixture
def convert(tmp_path):
    """Rows of a page as lists of cells, by both readers: they may not differ."""

    def make(body: str, columns=COLUMNS) -> list[list[str]]:
        page, target = tmp_path / "page.json", tmp_path / "page.csv"
        page.write_text(body, encoding="utf-8")
        count = settle(page).rows
        write_csv(page, target, columns, rows=count)
        rows = read(target)
        assert rows[0] == list(columns) and count == len(rows) - 1
        by_hand = tmp_path / "by_hand.csv"
        assert json_rows._by_python(page, by_hand, columns) == count
        assert read(by_hand) == rows
        return rows[1:]

    return make


csv.field_size_limit(2**26)


def read(path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def by_duckdb(monkeypatch):
    """How often DuckDB was asked, and how often its answer was taken."""
    asked, real = [], json_rows._by_duckdb

    def watched(*args):
        asked.append("asked")
        done = real(*args)
        asked.append("answered")
        return done

    monkeypatch.setattr(json_rows, "_by_duckdb", watched)
    return asked


def test_nulls_that_are_left_out_and_columns_that_vanish_become_empty_cells(convert, by_duckdb):
    page = '[{"b":"2","a":"1"}\n,{"a":"3"}\n,{}\n,{"a":null,"b":"4"}]\n'
    assert convert(page, {"a": "text", "gone": "number", "b": "number"}) == [["1", "", "2"], ["3", "", ""], ["", "", ""], ["", "", "4"]]
    assert by_duckdb == ["asked", "answered"]


def test_an_empty_page_has_a_header_and_no_rows(convert):
    assert convert("[]\n") == []
    assert convert(" [ ] ") == []


@pytest.mark.parametrize(
    "text",
    [
        "plain", "two\nlines\r\nand a\rthird", "x" * 1_048_576,
        'the "REAR" house', "a,b;c", " spaces ", "\\", "\\.", "\\N", "NULL", "tab\there", "O'Malley",
        "☂ Cañada №", "🎂👩‍👩‍👧 emoji", "é", "\ufeffmark", "￿", "{}", "[1, 2]", "27", "007", "1.50", "-0", "1e5", "NaN", '{"type":"Point"}', "=1+1",
        "'; drop table x; --", "2020-01-01T00:00:00.000", "(34.1, -118.2)", "POINT (1 2)", "\x7f\x1b",
    ],
)  # fmt: skip
def test_a_text_comes_through_as_it_is(convert, by_duckdb, text):
    # first with its letters, then with every letter that is not ASCII escaped
    for page in (json.dumps([{"a": text, "b": "end"}], ensure_ascii=False), json.dumps([{"a": text, "b": "end"}])):
        assert convert(page) == [[text, "end"]]
    assert by_duckdb == ["asked", "answered"] * 2


def test_a_dot_alone_in_its_line_does_not_end_the_rows(tmp_path):
    (tmp_path / "p.json").write_text('[{"a":"\\\\."},{"a":"after"}]')
    write_csv(tmp_path / "p.json", tmp_path / "p.csv", {"a": "text"}, rows=2)
    assert b"\n\\.\n" not in (tmp_path / "p.csv").read_bytes()


@pytest.mark.parametrize("reader", ["duckdb", "python"])
def test_an_empty_text_is_told_apart_from_null_by_its_quotes(tmp_path, reader):
    (tmp_path / "p.json").write_text('[{"a":"","b":"x"},{"b":"y"}]')
    make = json_rows._by_duckdb if reader == "duckdb" else json_rows._by_python
    make(tmp_path / "p.json", tmp_path / "p.csv", COLUMNS)
    lines = (tmp_path / "p.csv").read_text().replace('"x"', "x").replace('"y"', "y").splitlines()[1:]
    assert lines == ['"",x', ",y"]


@pytest.mark.parametrize(
    ("number", "fast"),
    [
        ("27", True), ("-118.4994716", True), ("0", True), ("0.5", True), ("123456789012345", True), ("0.30000000000000004", True),
        ("1.50", False), ("1.0", True), ("-0", False), ("1E2", False), ("1e400", False), ("12345678901234567890.123456789", False),
        ("0.00001", False), ("9007199254740993", False), ("NaN", True),
    ],
)  # fmt: skip
def test_a_bare_number_keeps_its_text(convert, by_duckdb, number, fast):
    assert convert(f'[{{"a":{number},"b": {number}}}]') == [[number, number]]
    assert by_duckdb == (["asked", "answered"] if fast else [])
    assert convert(f'[{{"a":[[{number},2],[3,4]]}}]')[0][0] == f"[[{number},2],[3,4]]"


def test_truths_are_words(convert):
    assert convert('[{"a":true,"b":false}]') == [["true", "false"]]


@pytest.mark.parametrize(
    ("written", "cell"),
    [
        ('{"type":"Point","coordinates":[-118.4994716,34.19402846]}', "POINT (-118.4994716 34.19402846)"),
        ('{"type":"Point","coordinates":[-118.50,34]}', "POINT (-118.50 34)"),
        ('{"latitude":"34.19","longitude":"-118.49","human_address":"{\\"city\\":\\"LA\\"}","needs_recoding":false}', "POINT (-118.49 34.19)"),
        ('"(34.19402846, -118.4994716)"', "POINT (-118.4994716 34.19402846)"),
        ('"POINT (-118.4994716 34.19402846)"', "POINT (-118.4994716 34.19402846)"),
        ('"nowhere"', "nowhere"),
        ('{"human_address":"{}"}', '{"human_address":"{}"}'),
        ('{"type":"Point","coordinates":[]}', '{"type":"Point","coordinates":[]}'),
        ('"{broken"', "{broken"),
        ("null", ""),
    ],
)
def test_a_point_is_one_text_however_it_was_written(convert, written, cell):
    assert convert(f'[{{"a":"1","b":{written}}}]', {"a": "text", "b": "point"}) == [["1", cell]]


def test_an_object_in_a_text_column_is_its_json(convert):
    page = '[{"a":{"url": "http://x/?a=1","description":"é \\"q\\""},"b":{"latitude":"34.1","longitude":"-118.2","needs_recoding":false}}]'
    assert convert(page) == [['{"url":"http://x/?a=1","description":"é \\"q\\""}', '{"latitude":"34.1","longitude":"-118.2","needs_recoding":false}']]


def test_a_nul_stays_for_the_loader_to_refuse(convert, by_duckdb):
    assert convert('[{"a":"x\\u0000y","b":"z"},{"a":"next"}]') == [["x\0y", "z"], ["next", ""]]
    assert by_duckdb == ["asked", "answered"]


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a":"x\\ud800y","b":"1"},{"a":"good","b":"2"}]',
        b'[{"a":"x\\udcc3\\udca9y","b":"1"},{"a":"good","b":"2"}]',
        b'[{"a":"x\xffy","b":"1"},{"a":"good","b":"2"}]',
        b'[{"a":"x\xc3","b":"1"},{"a":"good","b":"2"}]',
        b'[{"a":"x\xed\xa0\x80y","b":"1"},{"a":"good","b":"2"}]',
    ],
)
def test_what_is_no_letter_becomes_a_row_that_no_database_takes_and_the_others_are_whole(tmp_path, body):
    (tmp_path / "p.json").write_bytes(body)
    write_csv(tmp_path / "p.json", tmp_path / "p.csv", COLUMNS, rows=2)
    _, bad, good = (tmp_path / "p.csv").read_bytes().splitlines()
    assert good == b'"good","2"' and bad.startswith(b'"x') and bad.endswith(b',"1"')
    with pytest.raises(UnicodeDecodeError):
        bad.decode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "does not begin with"), ('{"error":true}', "does not begin with"), ('"rows"', "does not begin with"),
        ('[{"a":"1"}', "no comma or ] follows row 1"), ('[{"a":"1"}\n,{"a":"2', "row 2: Unterminated string"),
        ('[{"a":"1"},]', "row 2 is not an object"),
        ('[{"a":"1"} {"a":"2"}]', "no comma or ] follows row 1"), ('[{"a":"1"}] [', "something follows"),
        ("[5]", "row 1 is not an object"),
        ('[{"a":"1"},null]', "row 2 is not an object"), ('[{"a":"1","a":"2"}]', "row 1: the key 'a' stands twice"),
        ('[{"a":"1"},{"b":1}]', "has 2 rows where 3 were counted"),
    ],
)  # fmt: skip
def test_what_is_not_a_page_of_rows_is_refused_and_named(tmp_path, body, says):
    (tmp_path / "p.json").write_text(body)
    with pytest.raises(DataError) as caught:
        write_csv(tmp_path / "p.json", tmp_path / "p.csv", COLUMNS, rows=3)
    assert says in caught.value.message and "p.json" in caught.value.message


def test_a_null_in_place_of_a_row_is_never_a_row_of_nulls(tmp_path):
    (tmp_path / "p.json").write_text('[{"a":"1"},null]')
    with pytest.raises(DataError, match="row 2 is not an object"):
        write_csv(tmp_path / "p.json", tmp_path / "p.csv", COLUMNS, rows=settle(tmp_path / "p.json").rows)


@pytest.mark.parametrize("columns", [{"A": "text", "a": "text"}, {":updated_at": "instant", 'we"ird': "text", "it's": "text"}])
def test_any_name_may_be_wanted(convert, columns):
    row = {name: f"<{name}>" for name in columns}
    assert convert(json.dumps([row, {"other": "x"}]), columns) == [list(row.values()), [""] * len(columns)]


def test_a_path_is_a_path_and_not_a_pattern(tmp_path):
    for name in ("a*.json", "[a].json", "it's.json"):
        (tmp_path / name).write_text('[{"a":"1"}]')
        (tmp_path / "ab.json").write_text('[{"a":"other"}]')
        write_csv(tmp_path / name, tmp_path / f"{name}.csv", COLUMNS, rows=1)
        assert read(tmp_path / f"{name}.csv")[1] == ["1", ""]


PEAK = """
import sys
from pathlib import Path
from pipelines.formats import json_rows
page, target = Path(sys.argv[2]), Path(sys.argv[3])
{"fast": json_rows._by_duckdb, "slow": json_rows._by_python}[sys.argv[1]](page, target, {f"c{n}": "text" for n in range(34)})
# not ru_maxrss, which a child inherits from the tests' own process
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("reader", ["fast", "slow"])
def test_memory_does_not_grow_with_the_page(tmp_path, reader):
    row = json.dumps({f"c{n}": f"value {n} of some length" for n in range(34)}, separators=(",", ":"))

    def peak(rows: int) -> int:
        page = tmp_path / f"{rows}.json"
        with page.open("w") as file:
            file.write("[" + row)
            for _ in range(rows - 1):
                file.write("\n," + row)
            file.write("]\n")
        return int(subprocess.check_output([sys.executable, "-c", PEAK, reader, page, tmp_path / "out.csv"]))

    small, large = peak(20_000), peak(80_000)
    assert large < small * 1.15 and large < 160
