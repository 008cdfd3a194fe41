"""CSV by a configuration: any encoding, cells with line ends, ragged rows and bad bytes; a broken row never takes its neighbours along."""

from __future__ import annotations

import tracemalloc

import pytest

from opendata_ops.sandbox import toronto_rows
from pipelines.errors import DataError, SetupError
from pipelines.formats.csv_table import CsvTable
from pipelines.formats.table_reader import MissingColumns
from tests.pipelines.formats.reading import configured, read, terms  # noqa: F401

MARK = b"\xef\xbb\xbf"


def test_columns_are_taken_by_name_in_the_order_of_the_configuration_and_renamed(read):  # noqa: F811
    made = read(CsvTable, "b,a,c\n1,x,9\n0,,9\n", "a", "b>count:int")
    assert (made.header, made.rows) == (["a", "count"], [["x", "1"], ["", "0"]])
    assert made.extra == ["c"] and made.tally.rows_out == 2 and not made.refused


@pytest.mark.parametrize("source", ["Café", "\ufeffCafé"])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", "Café,b\né,1\n".encode()), ("", MARK + "Café,b\né,1\n".encode()), ("utf-8", MARK + "Café,b\né,1\n".encode()),
        ("utf-8-sig", "Café,b\né,1\n".encode()), ("utf-8-sig", MARK + '"Café",b\né,1\n'.encode()), ("latin1", "Café,b\né,1\n".encode("latin1")),
        ("cp1252", "Café,b\né,1\n".encode("cp1252")), ("latin1", MARK + "Café,b\né,1\n".encode()), ("", "Café,b\né,1\n".encode("utf-16")),
    ],
)  # fmt: skip
def test_a_byte_order_mark_is_never_part_of_a_name_whoever_declares_it(read, encoding, body, source):  # noqa: F811
    made = read(CsvTable, body, f"{source}>name", "b:int", **({"encoding": encoding} if encoding else {}))
    assert made.rows == [["é", "1"]] and not made.warnings and not made.extra


def test_a_header_with_outer_spaces_is_found_with_a_warning(read):  # noqa: F811
    made = read(CsvTable, " Ward ,Total\n1,2\n", "Ward", "Total ")
    assert made.rows == [["1", "2"]] and made.warnings == {
        "the column 'Ward' is ' Ward ' in the file: only spaces differ": 1,
        "the column 'Total ' is 'Total' in the file: only spaces differ": 1,
    }
    # an exact name goes before one that is only like it
    assert read(CsvTable, "Ward ,Ward\n1,2\n", "Ward").rows == [["2"]]


def test_line_ends_in_cells_stay_and_only_what_is_a_row_counts(read):  # noqa: F811
    made = read(CsvTable, 'a,b\r\n"one\ntwo",1\r\n"three\r\nfour\rfive",2\r\n\r\n"a ""quote"", and",3\r\n', "a", "b:int")
    assert made.rows == [["one\ntwo", "1"], ["three\r\nfour\rfive", "2"], ['a "quote", and', "3"]]
    assert made.tally.rows_in == 3 and made.reader.report() == {"blank_lines": 1}
    # a bare CR without quotes would break the warehouse's COPY
    assert '"three\r\nfour\rfive"' in made.text


def test_a_refused_row_is_told_with_its_line_column_value_and_all_of_it(read):  # noqa: F811
    body = 'id,day,n\n1,"2024-01-01\n",5\n2,2024-02-30,5\n3,2024-01-03\n4,2024-01-04,5,6\n5,2024-01-05,5,,\n6,2024-01-06,x\n7,,\n'
    made = read(CsvTable, body, "id", "day:date:%Y-%m-%d", "n:int", key=["id"])
    assert made.rows == [["1", "2024-01-01", "5"], ["5", "2024-01-05", "5"], ["7", "", ""]]
    assert made.why == [
        (4, "day is not a date of the form %Y-%m-%d"),
        (5, "2 cells where 3 are expected"),
        (6, "4 cells where 3 are expected"),
        (8, "n is not a number"),
    ]
    wrong = made.refused[0]
    assert (wrong.column, wrong.value, wrong.key, wrong.raw) == ("day", "2024-02-30", "2", {"id": "2", "day": "2024-02-30", "n": "5"})
    assert made.warnings == {"it has empty cells behind its last column": 1}


def test_lines_are_told_right_beyond_the_first_batch(read, monkeypatch):  # noqa: F811
    monkeypatch.setattr("pipelines.formats.csv_table.BATCH", 3)
    body = "a,b\n" + "".join(f'"x\ny",{number}\n' for number in range(7)) + "z,bad\n" + "short\n"
    made = read(CsvTable, body, "a", "b:int")
    assert made.why == [(16, "b is not a number"), (17, "1 cells where 2 are expected")] and made.tally.rows_out == 7


def test_a_bad_byte_refuses_its_row_and_no_other(read):  # noqa: F811
    made = read(CsvTable, b"a,b,more\nfine,1,\xff\ncaf\xe9,2,\n\xc3\xa9,3,\n", "a", "b")
    assert made.rows == [["fine", "1"], ["é", "3"]] and made.why == [(3, "a has bytes that are not utf-8")]
    # of an encoding with holes, too
    made = read(CsvTable, b"a,b\n\x81,1\n\x92,2\n", "a", "b", encoding="cp1252")
    assert made.rows == [["\u2019", "2"]] and made.why == [(2, "a has bytes that are not cp1252")]


def test_a_nul_is_a_space(read):  # noqa: F811
    assert read(CsvTable, b"a,b\nx\x00y,5\x00\n", "a", "b:int").rows == [["x y", "5"]]
    # and none of the signs by which the reader knows where a file ends
    assert read(CsvTable, b"a,b\x00end\n1,\x00end\n2,x\n", "a", "b end").rows == [["1", " end"], ["2", "x"]]


def test_a_quote_that_is_never_closed_fails_the_file_for_its_rows_are_lost(read):  # noqa: F811
    with pytest.raises(DataError, match="a quote is opened on line 3") as caught:
        read(CsvTable, 'a,b\n1,2\n3,"4\n5,6\n', "a", "b")
    assert caught.value.code == "bad-csv"
    with pytest.raises(DataError, match="never closed"):
        read(CsvTable, '"a,b\n1,2\n', "a")


def test_a_last_line_without_its_end_is_a_row(read):  # noqa: F811
    assert read(CsvTable, "a,b\n1,2", "a", "b").rows == [["1", "2"]]
    assert read(CsvTable, "a,b\n1,2\n3", "a", "b").why == [(3, "1 cells where 2 are expected")]


def test_a_file_without_rows_is_a_table_without_rows_and_one_without_a_header_is_none(read):  # noqa: F811
    made = read(CsvTable, "a,b\n", "a")
    assert (made.rows, made.extra, made.tally.rows_in) == ([], ["b"], 0)
    for body in (b"", MARK, b"\n\n"):
        with pytest.raises(DataError, match="not even a header"):
            read(CsvTable, body, "a")


def test_another_delimiter_is_as_given(read):  # noqa: F811
    assert read(CsvTable, "a;b\n1,5;2\n", "a", "b", delimiter=";").rows == [["1,5", "2"]]


def test_an_encoding_that_nobody_knows_is_a_matter_of_settings(read):  # noqa: F811
    with pytest.raises(SetupError, match="'klingon'"):
        read(CsvTable, "a\n", "a", encoding="klingon")


def test_missing_columns_are_named_all_of_them_with_the_nearest_that_are_there(read):  # noqa: F811
    with pytest.raises(MissingColumns) as caught:
        read(CsvTable, "INV_PROJEKT,Ward,Café\n1,2,3\n", "INV_PROJECT", "Ward", "day:date:%Y-%m-%d", "INV_PROJECT>again")
    assert caught.value.message == (
        "raw.file: INV_PROJECT is in the configuration, but not in the data (nearest there: INV_PROJEKT); "
        "day is in the configuration, but not in the data."
    )
    assert (caught.value.missing, caught.value.extra, caught.value.code) == (["INV_PROJECT", "day"], ["INV_PROJEKT", "Café"], "columns-missing")


def test_a_column_that_stands_twice_is_taken_as_its_last_and_told(read):  # noqa: F811
    made = read(CsvTable, "a,b,a\n1,2,3\n", "a")
    assert made.rows == [["3"]] and made.warnings == {"the file has 2 columns 'a': the last is taken": 1}


@pytest.mark.parametrize(
    ("header", "latitude", "longitude", "made"),
    [
        ("lat,lon", "43.650", "-79.38", '{"type":"Point","coordinates":[-79.38,43.650]}'),
        ("Latitude,LONG", "43.65", "-79.38", '{"type":"Point","coordinates":[-79.38,43.65]}'),
        ("Y,X", " 0 ", "0", '{"type":"Point","coordinates":[0,0]}'),
        ("Y Coordinate,X Coordinate", ".5", "+07.0", '{"type":"Point","coordinates":[7.0,0.5]}'),
        ("POINT_Y,POINT_X", "1", "2", '{"type":"Point","coordinates":[2,1]}'),
        ("lat,lng", "", "-79.38", ""),
        ("lat,longitude", "43.6", "  ", ""),
    ],
)
def test_a_geometry_is_made_of_two_columns_and_is_nothing_where_one_is_empty(read, header, latitude, longitude, made):  # noqa: F811
    assert read(CsvTable, f"id,{header}\n1,{latitude},{longitude}\n", "id", "geometry").rows == [["1", made]]


def test_coordinates_that_are_no_numbers_refuse_the_row(read):  # noqa: F811
    made = read(CsvTable, "lat,lon\n43.6,west\n1,2\n", "geometry", "lat")
    assert made.why == [(2, "geometry would be made of coordinates that are no numbers")] and len(made.rows) == 1
    # a column of this name is taken as it is, and without any halves it is missing
    assert read(CsvTable, "geometry,lat,lon\nx,1,2\n", "geometry").rows == [["x"]]
    with pytest.raises(MissingColumns):
        read(CsvTable, "lat,name\n1,2\n", "geometry")


def test_the_date_of_the_file_is_the_same_in_all_its_rows(read):  # noqa: F811
    about = {"date_from_filename": "2024-3"}
    made = read(CsvTable, "a\n1\n2\n", "a", "date_from_filename>year", about=about, multi_insert_date=True)
    assert made.rows == [["1", "2024-3"], ["2", "2024-3"]]
    assert read(CsvTable, "a\n1\n", "a", "date_from_filename", multi_insert_date=True).rows == [["1", ""]]
    with pytest.raises(MissingColumns):
        read(CsvTable, "a\n1\n", "a", "date_from_filename")


def test_nothing_alone_in_its_line_is_told_from_an_empty_text(read):  # noqa: F811
    made = read(CsvTable, 'a,b\n,1\n\\.,2\n"x""y",3\n', "a")
    # COPY takes an empty line as nothing, "" as a text, and \. without quotes as the end
    assert made.text == '"a"\n\n"\\."\n"x""y"\n'


def test_the_same_file_gives_the_same_bytes_in_batches_of_any_size(read, monkeypatch):  # noqa: F811
    told = ("Date:date:%Y%m%d", "Station", "Min Delay:int", "Vehicle:float")
    body = toronto_rows.subway_delays(60, misfits=2).body
    whole = read(CsvTable, body, *told)
    monkeypatch.setattr("pipelines.formats.csv_table.BATCH", 7)
    parts = read(CsvTable, body, *told)
    assert parts.text == whole.text and parts.refused == whole.refused and whole.tally.rejected == 2


def test_toronto_s_own_configurations_read_their_files(read):  # noqa: F811
    subway, _ = configured("ttc-subway-delay-data", "TTC Subway Delay Data since 2025")
    made = read(CsvTable, toronto_rows.subway_delays(120).body, *subway)
    assert made.tally.rows_out == 120 and made.rows[0][0] == "2025-01-01" and any("\n" in row[3] for row in made.rows)
    assert "0" in {row[5] for row in made.rows}
    pipeline, _ = configured("development-pipeline", "Development Pipeline")
    made = read(CsvTable, toronto_rows.development_pipeline(100, misfits=3).body, *pipeline)
    assert (made.tally.rows_out, made.tally.rejected) == (97, 3) and {reason for _, reason in made.why} == {"Ward is not a number"}
    wards, areas = {row[5] for row in made.rows}, {row[6] for row in made.rows}
    assert wards <= {f"{number}" for number in range(1, 26)} and not any("," in area for area in areas)


def test_letters_of_iso_8859_1_come_through(read):  # noqa: F811
    told = ("Operating Name", "Fee:int", "Issued:date:%d-%b-%Y", "geometry")
    made = read(CsvTable, toronto_rows.licences_latin1(12).body, *told, encoding="latin1")
    assert made.rows[1][:3] == ["Pâtisserie Élan 1", made.rows[1][1], "2020-01-10"] and made.rows[5][3] == "" and made.rows[0][3]


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.formats.csv_table.BATCH", 300)
    peaks = []
    for rows in (1_500, 12_000):
        body = ("a,b,c\n" + "some words,2024-01-02,5\n" * rows).encode()
        tracemalloc.start()
        made = CsvTable(terms(("a", "b:date:%Y-%m-%d", "c:int"), (), {}))
        page = tmp_path / "big.csv"
        page.write_bytes(body)
        del body
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        assert not list(made.convert(page, tmp_path / "big.out", {}))
        peaks.append(tracemalloc.get_traced_memory()[1] - held)
        tracemalloc.stop()
        assert made.tally.rows_out == rows
    assert peaks[1] < peaks[0] * 1.5


def test_what_is_written_is_csv_that_any_reader_reads(read):  # noqa: F811
    cells = ['a,"b"', "x\ry", "", " sp ", "line\nend", "\\."]
    body = "a,b\n" + "".join('"' + cell.replace('"', '""') + '",1\n' for cell in cells)
    assert [row[0] for row in read(CsvTable, body, "a", "b").rows] == cells
    assert [row[0] for row in read(CsvTable, body, "a").rows] == cells
