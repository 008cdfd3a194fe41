"""What a raw file looks like: its format, its columns with their types, and its first rows as they would be loaded."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.toronto_rows import workbook
from pipelines.errors import DataError, SetupError
from pipelines.formats import detect as detecting
from pipelines.formats.attributes import Attribute, problems
from pipelines.formats.detect import Detected, detect, guessed
from tests.pipelines.formats.reading import TORONTO


@pytest.fixture
def look(tmp_path):
    """Detects what a file of these bytes is."""

    def make(body: bytes | str, format: str = "", **options) -> Detected:
        path = tmp_path / "raw.file"
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        found = detect(path, format, zone=TORONTO, **options)
        # what is proposed is always a configuration that can be saved
        told = [{"source": one.source, "name": one.name, "type": one.type, "format": one.format} for one in found.attributes]
        assert not told or problems(told) == []
        return found

    return make


def types(found: Detected) -> dict[str, str]:
    return {one.name: f"{one.type} {one.format}".strip() for one in found.attributes}


@pytest.mark.parametrize(
    ("values", "made"),
    [
        (["1", "0", "-5"], "int"), (["1,000", "12"], "int"), (["3.0", "4"], "int"), (["1.5", "2"], "float"), ([".5", "1e-3"], "float"),
        (["007", "12"], "text"), (["0", "0.5"], "float"), (["1", "x"], "text"), (["1234567890123456789012"], "text"), ([True, False], "text"),
        ([{"a": 1}], "json"), ([[1]], "json"), (["12:30", "13:45"], "text"), (["M5V 2H1"], "text"),
        (["2024-03-15", "2024-12-31"], "date %Y-%m-%d"), (["2024/03/15"], "date %Y-%m-%d"), (["03/15/2024", "3/5/2024"], "date %m/%d/%Y"),
        (["15/03/2024", "01/02/2024"], "date %d/%m/%Y"), (["15-Mar-2024"], "date %d-%b-%Y"), (["Mar 15, 2024"], "date %b %d, %Y"),
        (["2024-03-15T00:00:00", "2024-03-16T00:00:00"], "date %Y-%m-%dT%H:%M:%S"),
        (["2024-03-15T00:00:00", "2024-03-16T01:00:00"], "timestamp %Y-%m-%dT%H:%M:%S"),
        (["2024-03-15T01:02:03.5Z"], "timestamp %Y-%m-%dT%H:%M:%S.%fZ"), (["3/15/2024 1:02:03 PM"], "timestamp %m/%d/%Y %I:%M:%S %p"),
        ([datetime(2024, 3, 15), datetime(2024, 3, 16)], "date %Y-%m-%d"), ([datetime(2024, 3, 15, 1)], "timestamp %Y-%m-%d %H:%M:%S"),
        (["2024-03-15", "soon"], "text"), (["2024-02-30"], "text"),
    ],
)  # fmt: skip
def test_a_type_is_what_fits_every_value_and_loses_nothing(values, made):
    kind, pattern, _ = guessed("column", values)
    assert f"{kind} {pattern}".strip() == made


@pytest.mark.parametrize(
    ("name", "values", "made"),
    [
        ("LAST_UPDATED_DATE", [1710498000000, 1610498000000], "timestamp epoch"), ("AREA", [1710498000000], "int"),
        ("Date", ["20240315"], "date %Y%m%d"), ("Number", ["20240315"], "int"),
        ("issued_date", ["20240315130203"], "timestamp %Y%m%d%H%M%S"), ("Day", ["3", "4"], "int"),
        ("Date", ["20241315"], "int"),
    ],
)  # fmt: skip
def test_digits_are_a_date_only_where_the_name_says_so_too(name, values, made):
    kind, pattern, _ = guessed(name, values)
    assert f"{kind} {pattern}".strip() == made


def test_what_may_be_two_things_is_told(look):
    found = look("when,code\n01/02/2024,007\n03/04/2024,012\n")
    assert types(found) == {"when": "date %m/%d/%Y", "code": "text"}
    assert "when may be %m/%d/%Y or %d/%m/%Y: no day in it is greater than 12." in found.notes
    assert "code has numbers that begin with 0: they are taken for codes." in found.notes


def test_a_csv_is_known_with_its_letters_its_delimiter_and_its_point(look):
    found = look(toronto_rows.licences_latin1(30).body)
    assert (found.format, found.encoding, found.options) == ("csv", "latin1", {"encoding": "latin1"})
    assert types(found)["Fee"] == "int" and types(found)["Issued"] == "date %d-%b-%Y" and types(found)["geometry"] == "text"
    assert found.sample_rows[0]["geometry"] == '{"type":"Point","coordinates":[-79.4,43.6]}' and found.sample_rows[5]["geometry"] == ""
    assert len(found.sample_rows) == 20 and found.looked_at == 30
    assert look("a;b\n1,5;2\n").options == {"delimiter": ";"} and look(b"a,b\n\x93x\x94,1\n").encoding == "cp1252"
    marked = look(toronto_rows.development_pipeline(40).body)
    assert marked.attributes[0] == Attribute("Pipeline Status", "Pipeline Status") and not marked.options
    assert types(marked)["Proposed Gross Floor Area"] == "float" and types(marked)["Ward"] == "int"


def test_the_sample_is_what_would_be_loaded(look):
    found = look(toronto_rows.subway_delays(40).body)
    assert types(found)["Date"] == "date %Y%m%d" and found.sample_rows[0]["Date"] == "2025-01-01"


def test_a_workbook_is_known_with_its_sheets(look):
    body = toronto_rows.subway_codes().body
    assert look(body).sheets == ("Read me", "Subway Code Description") and look(body).options == {"sheet": "Read me"}
    found = look(body, sheet="Subway Code Description")
    assert list(types(found)) == ["CODE", "DESCRIPTION"] and found.sample_rows[0]["CODE"] == "EUDO"
    found = look(workbook({"S": [("a", "d"), (3.0, datetime(2024, 3, 15)), (None, None), (4, None)]}))
    assert types(found) == {"a": "int", "d": "date %Y-%m-%d"} and found.sample_rows[0] == {"a": "3", "d": "2024-03-15"}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('[{"a": 1}]', None), ('{"value": [{"a": 1}]}', "$.value"),
        ('{"n": 1, "s": "[", "tags": ["x"], "r": {"none": [], "rows": [{"a": 1}]}}', "$.r.rows"),
        ('{"a": 1}\n{"a": 2, "list": [{"b": 1}]}\n', None), ('{"a": [{"b": 1}]}\n{"a": []}\n', None),
    ],
)  # fmt: skip
def test_a_json_document_is_known_with_the_path_of_its_list(look, body, path):
    found = look(body)
    assert found.format == "json" and found.options.get("jsonpath") == path and "a" in types(found)


def test_by_laws_have_columns_of_json(look):
    found = look(toronto_rows.by_laws(20).body)
    assert types(found)["tableData"] == "json" and types(found)["latestRegulationActionCouncilDate"] == "date %Y-%m-%d"
    assert "parsedTableData is empty in all rows that were looked at." in found.notes


def test_a_layer_s_own_types_go_before_what_its_values_look_like(look):
    body = json.dumps({"type": "FeatureCollection", "features": toronto_rows.road_works(40)})
    found = look(body)
    assert found.format == "geojson" and types(found)["LAST_UPDATED_DATE"] == "timestamp epoch" and types(found)["geometry"] == "text"
    assert types(found)["INV_PRIORITY"] == "int" and types(found)["EST_COST"] == "float"
    found = look(body, fields=[{"name": name, "type": kind} for name, kind in toronto_rows.ROAD_FIELDS])
    assert types(found)["INV_PRIORITY"] == "text" and types(found)["OBJECTID"] == "int"
    assert found.sample_rows[0]["LAST_UPDATED_DATE"] == "2024-03-15T06:20:00"
    assert any("Shape__Length: the geometry says it already" in note for note in found.notes)
    # dates that are all empty, by the layer's word
    empty = '{"type": "FeatureCollection", "features": [{"properties": {"D": null}, "geometry": null}]}'
    assert types(look(empty, fields=[{"name": "D", "type": "timestamp"}]))["D"] == "timestamp epoch"


def test_names_are_cut_and_told_apart(look):
    found = look(f"{'x' * 70},{'x' * 70}y, a ,\n1,2,3,4\n")
    assert [one.name for one in found.attributes] == ["x" * 63, "x" * 59 + "_2", "a"]
    assert [one.source for one in found.attributes][2] == " a " and "is longer than 63 bytes" in found.notes[0]


def test_broken_rows_are_told_and_nothing_more(look):
    found = look("a,b\n1,2\n3\n4,5\n")
    assert found.looked_at == 2 and "1 of the first rows are broken and would be refused." in found.notes
    assert "The file has no rows: the types are guesses about nothing." in look("a,b\n").notes


def test_only_the_first_rows_of_a_big_file_are_looked_at(look, monkeypatch):
    monkeypatch.setattr(detecting, "LOOKED_AT", 10)
    monkeypatch.setattr("pipelines.formats.csv_table.BATCH", 5)
    assert look("a\n" + "1\n" * 100).looked_at == 10


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"<!DOCTYPE html>", "is a web page"), (b"", "is empty"), (b"%PDF-1.7", "an old Excel file, a PDF"), (b"PK\x03\x04x", "not an Excel")],
)
def test_what_is_no_table_is_told_in_words(look, body, words):
    with pytest.raises(DataError, match=words) as caught:
        look(body)
    assert caught.value.next_step


def test_a_format_that_nobody_reads_is_a_matter_of_settings(look):
    with pytest.raises(SetupError, match="'pdf'"):
        look("a\n", "pdf")
