"""Excel sheets by a configuration: by the sheet's name, cells trimmed, names changed, and what Excel could not compute is nothing."""

from __future__ import annotations

import zipfile
from datetime import datetime, time

import pytest

from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.toronto_rows import workbook
from pipelines.errors import DataError
from pipelines.formats.table_reader import MissingColumns
from pipelines.formats.xlsx import Xlsx, sheet_records
from tests.pipelines.formats.reading import configured, read  # noqa: F401


def test_cells_are_trimmed_typed_and_renamed(read):  # noqa: F811
    rows = [(" Name ", "n", None, "When", "t"), ("  Ann ", 3.0, "beside", datetime(2024, 3, 15, 10), 0), (None, "1,000", None, None, time(7, 30))]
    made = read(Xlsx, workbook({"S": rows}), "Name>who", "n:int", "When>day:date:%Y-%m-%d", "When>at", "t")
    assert made.header == ["who", "n", "day", "at", "t"]
    assert made.rows == [["Ann", "3", "2024-03-15", "2024-03-15 10:00:00", "0"], ["", "1000", "", "", "07:30:00"]]
    assert not made.extra


def test_a_time_in_a_cell_needs_no_pattern_and_a_text_does(read):  # noqa: F811
    body = workbook({"S": [("d",), (datetime(2024, 3, 15, 13, 2, 3),), ("Mar 15, 2024",), (20240315,), ("2024-03-15",)]})
    made = read(Xlsx, body, "d:timestamp:%b %d, %Y")
    assert made.rows == [["2024-03-15T13:02:03"], ["2024-03-15T00:00:00"]]
    assert made.why == [(4, "d is not a date of the form %b %d, %Y"), (5, "d is not a date of the form %b %d, %Y")]


def test_empty_rows_are_none_and_numbers_of_rows_are_the_sheet_s(read):  # noqa: F811
    body = workbook({"S": [("a", "b"), (1, 2), (None, None), ("  ", ""), ("x", 5), (3, None), (None, None)]})
    made = read(Xlsx, body, "a:int", "b:int")
    assert made.rows == [["1", "2"], ["3", ""]] and made.why == [(5, "a is not a number")] and made.tally.rows_in == 3
    assert made.refused[0].raw == {"a": "x", "b": 5}


def test_what_excel_could_not_compute_is_nothing_and_counted(read):  # noqa: F811
    made = read(Xlsx, workbook({"S": [("a", "b"), ("#N/A", 1), ("#REF!", "#DIV/0!"), ("#1 Fan", 2)]}), "a", "b:int")
    assert made.rows == [["", "1"], ["", ""], ["#1 Fan", "2"]]
    assert made.warnings == {"it has cells that Excel could not compute; they are empty": 2}


def test_what_a_book_says_of_its_own_size_is_not_believed(read, tmp_path):  # noqa: F811
    path = tmp_path / "small.xlsx"
    path.write_bytes(workbook({"S": [("a", "b"), (1, 2), (3, 4)]}))
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    assert b'<dimension ref="A1:B3"' in sheet
    with zipfile.ZipFile(path, "w") as book:
        for name, part in {**parts, "xl/worksheets/sheet1.xml": sheet.replace(b'ref="A1:B3"', b'ref="A1"', 1)}.items():
            book.writestr(name, part)
    assert read(Xlsx, path.read_bytes(), "a", "b").rows == [["1", "2"], ["3", "4"]]


def test_the_sheet_is_found_by_its_name(read):  # noqa: F811
    book = workbook({"Read me": [("About",), ("x",)], "Data ": [("a",), (1,)]})
    assert read(Xlsx, book, "a", sheet="Data ").rows == [["1"]]
    made = read(Xlsx, book, "a", sheet="data")
    assert made.rows == [["1"]] and made.warnings == {"the sheet 'data' is 'Data ' in the file": 1}
    with pytest.raises(DataError, match="has no sheet 'Dates'; it has 'Read me', 'Data '"):
        read(Xlsx, book, "a", sheet="Dates")
    made = read(Xlsx, book, "About")
    assert made.rows == [["x"]] and made.warnings == {"no sheet is configured: the first of 2, 'Read me', is read": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"<html>Sorry</html>", "begins with b'<html>"), (b"\xd0\xcf\x11\xe0old", "an old Excel file"), (b"PK\x03\x04broken", "not an Excel workbook")],
)
def test_a_file_that_is_no_workbook_is_told_by_what_it_is(read, body, words):  # noqa: F811
    with pytest.raises(DataError) as caught:
        read(Xlsx, body, "a")
    assert words in caught.value.message and caught.value.code == "bad-xlsx"


def test_a_zip_that_is_no_workbook_is_refused_too(read, tmp_path):  # noqa: F811
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a.csv", "a,b")
    with pytest.raises(DataError, match="not an Excel workbook"):
        read(Xlsx, (tmp_path / "z").read_bytes(), "a")


def test_missing_columns_and_missing_headers_are_told(read):  # noqa: F811
    with pytest.raises(MissingColumns, match=r"Wards is in the configuration, but not in the data \(nearest there: Ward\)"):
        read(Xlsx, workbook({"S": [("Ward",), (1,)]}), "Wards")
    with pytest.raises(DataError, match="nothing in the first row"):
        read(Xlsx, workbook({"S": [(None, None), ("Ward", 1)]}), "Ward")
    made = read(Xlsx, workbook({"S": [("a", "", "a"), (1, 2, 3), (4, 5, 6, 7)]}), "a")
    assert made.rows == [["3"], ["6"]]
    assert made.warnings == {"the sheet has 2 columns 'a': the last is taken": 1, "it has values right of its last named column": 1}


def test_a_point_is_made_of_a_workbook_s_numbers_too(read):  # noqa: F811
    made = read(Xlsx, workbook({"S": [("Latitude", "Longitude"), (43.65, -79.38), (None, -79.38)]}), "geometry")
    assert made.rows == [['{"type":"Point","coordinates":[-79.38,43.65]}'], [""]]


def test_toronto_s_workbooks_are_read_as_configured(read):  # noqa: F811
    codes, options = configured("ttc-subway-delay-data", "Code Descriptions")
    made = read(Xlsx, toronto_rows.subway_codes().body, *codes, sheet=options["sheet"])
    assert made.tally.rows_out == 6 and made.rows[0] == ["EUDO", "Door Problems - Faulty Equipment"]
    grants, options = configured("community-grants-allocations", "Community Grants Allocations since 2022")
    dated = {"sheet": options["sheet"], "multi_insert_date": True}
    made = read(Xlsx, toronto_rows.grants(2024, 20).body, *grants, about={"date_from_filename": "2024"}, **dated)
    assert made.tally.rows_out == 20 and {row[-1] for row in made.rows} == {"2024"} and made.rows[4][1] in ("0", "1")
    legend, options = configured("community-grants-allocations", "Community Grants Programs since 2022")
    made = read(Xlsx, toronto_rows.grants(2023).body, *legend, about={"date_from_filename": "2023"}, sheet=options["sheet"], multi_insert_date=True)
    assert made.tally.rows_out == toronto_rows.LEGEND_ROWS and [row[2] for row in made.rows] == ["", "until 2023", "0"]


def test_records_of_a_sheet_are_for_custom_readers(tmp_path):
    path = tmp_path / "b.xlsx"
    path.write_bytes(workbook({"S": [("a", None, " b "), (1, 2, " x "), (None, None, None)]}))
    assert list(sheet_records(path)) == [{"a": 1, "b": "x"}]
