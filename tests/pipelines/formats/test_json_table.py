"""JSON by a configuration: a list at any path, an object a line, lists that are columns; as it streams, and never half."""

from __future__ import annotations

import json

import pytest

from opendata_ops.sandbox import toronto_rows
from pipelines.errors import DataError, SetupError
from pipelines.formats import json_stream
from pipelines.formats.json_stream import path_of
from pipelines.formats.json_table import JsonTable
from pipelines.formats.table_reader import MissingColumns
from tests.pipelines.formats.reading import configured, read  # noqa: F401

ROWS = '[{"a": 0, "b": 1.50}, {"b": null, "a": 7}]'
MADE = [["0", "1.50"], ["7", ""]]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (ROWS, {}),
        ("\ufeff" + ROWS, {}),
        (f'{{"value": {ROWS}}}', {"jsonpath": "$.value"}),
        (f'{{"n": 51234.75, "x": {{"skip": [1, {{}}], "y": [0, {{"v": {ROWS}, "z": 1}}]}}, "end": "]"}}', {"jsonpath": "$.x.y.1.v"}),
        (f"[[], {ROWS}]", {"jsonpath": "$.1"}),
        ('{"a": 0, "b": 1.50}\n{"a": 7, "b": null}\n', {}),
        ('{"a": 0, "b": 1.50}{"a": 7}', {}),
        ('{"a": [0, 7], "b": [1.50, null]}', {}),
        ('{"d": {"a": [0, 7], "b": [1.50, null]}}', {"jsonpath": "d"}),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_rows_are_found_wherever_they_stand_and_however_the_file_is_cut_into_pieces(read, monkeypatch, body, options, piece):  # noqa: F811
    monkeypatch.setattr(json_stream, "PIECE", piece)
    made = read(JsonTable, body, "a:int", "b:float", **options)
    assert made.rows == MADE and not made.refused


def test_zero_is_zero_null_is_nothing_and_numbers_stay_as_written(read):  # noqa: F811
    body = '[{"i": 0, "t": 1.10, "n": null, "w": "None", "z": "0"}, {"i": 3.0, "t": false, "n": NaN, "w": "", "z": 0.0}]'
    made = read(JsonTable, body, "i:int", "t", "n:float", "w", "z:float")
    assert made.rows == [["0", "1.10", "", "None", "0"], ["3", "false", "", "", "0.0"]]


def test_names_are_changed_and_what_is_nested_is_json(read):  # noqa: F811
    body = '[{"tableData": {"rows": [{"Zone": 0, "w": 1.0}]}, "d": "x"}, {"tableData": [], "d": "y"}, {"tableData": null, "d": "z"}]'
    made = read(JsonTable, body, "tableData>ByLaw_Table:json", "d>Description")
    assert made.header == ["ByLaw_Table", "Description"]
    assert made.rows == [['{"rows":[{"Zone":0,"w":1.0}]}', "x"], ["[]", "y"], ["", "z"]]


def test_a_key_that_a_record_lacks_is_nothing_and_one_that_all_lack_is_missing(read):  # noqa: F811
    made = read(JsonTable, '[{"a": 1}, {"b": 2, "c": 3}]', "a", "b")
    assert made.rows == [["1", ""], ["", "2"]] and made.extra == ["c"]
    with pytest.raises(MissingColumns, match=r"bb is in the configuration, but not in the data \(nearest there: b\)"):
        read(JsonTable, '[{"a": 1}, {"b": 2}]', "a", "bb")
    assert read(JsonTable, "[]", "a", "b").rows == []


def test_what_is_no_object_is_refused_and_what_is_no_value_too(read):  # noqa: F811
    made = read(JsonTable, '[{"a": 1}, 5, null, {"a": "x"}, {"a": 2}]', "a:int")
    assert made.rows == [["1"], ["2"]]
    assert made.why == [(2, "it is not an object"), (3, "it is not an object"), (4, "a is not a number")]
    assert made.refused[2].raw == {"a": "x"}


def test_half_a_letter_refuses_its_row(read):  # noqa: F811
    made = read(JsonTable, b'[{"a": "fine"}, {"a": "\\ud800"}, {"a": "\xff"}, {"a": "x\\u0000y"}]', "a")
    assert made.rows == [["fine"], ["x y"]] and [number for number, _ in made.why] == [2, 3]


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        ("", {"jsonpath": "$.value"}, "a value without keys"),
        ("<html>", {}, "neither a list nor an object"),
        ('[{"a": 1}', {}, "neither a comma nor ]"),
        ('[{"a": 1}, {"a": ', {}, "in record 2"),
        ('[{"a": 1}] trailing', {}, "something follows"),
        ('{"value": [{"a": 1}]', {"jsonpath": "$.value"}, "neither a comma nor }"),
        ('{"value": [{"a": 1}], "next', {"jsonpath": "$.value"}, "in record 1"),
        ('{"error": {"code": 5}}', {"jsonpath": "$.value"}, "has nothing at $.value; there is error"),
        ('{"value": [{"a": 1}]}', {}, "lists are at $.value"),
        ('{"value": 5}', {"jsonpath": "$.value"}, "neither a list nor an object"),
        ('{"value": [[1]]}', {"jsonpath": "$.value.7"}, "a list, which has no 7"),
    ],
)
def test_what_is_cut_off_or_something_else_is_never_taken_for_a_table(read, body, options, words):  # noqa: F811
    with pytest.raises(DataError) as caught:
        read(JsonTable, body, "a", **options)
    assert words in caught.value.message and caught.value.code == "bad-json" and caught.value.next_step


@pytest.mark.parametrize(
    ("told", "steps"), [("", ()), (None, ()), ("$", ()), ("$.a.1.b", ("a", "1", "b")), ("value", ("value",)), ("$.a b", ("a b",))]
)
def test_a_path_is_keys_with_dots_between_them(told, steps):
    assert path_of(told) == steps


@pytest.mark.parametrize("told", ["$..a", "$.a[0]", "$.*", "$.a."])
def test_any_other_path_is_a_matter_of_settings(told):
    with pytest.raises(SetupError, match="jsonpath"):
        path_of(told)


def test_a_document_is_never_held_whole(read, monkeypatch):  # noqa: F811
    held = []
    real = json_stream.Cursor._more

    def watched(cursor):
        held.append(len(cursor._text) - cursor._at)
        return real(cursor)

    monkeypatch.setattr(json_stream, "PIECE", 4096)
    monkeypatch.setattr(json_stream.Cursor, "_more", watched)
    rows = [{"a": number, "b": "x" * 50} for number in range(3_000)]
    made = read(JsonTable, json.dumps({"head": 1, "value": rows, "tail": 2}), "a:int", jsonpath="$.value")
    assert len(made.rows) == 3_000 and max(held) < 8192 and made.extra == ["b"]


def test_toronto_s_by_laws_are_read_as_configured(read):  # noqa: F811
    told, options = configured("traffic-and-parking-by-law-schedules", "Traffic and parking by-law schedules data")
    made = read(JsonTable, toronto_rows.by_laws(30).body, *told, jsonpath=options["jsonpath"])
    assert made.tally.rows_out == 30 and not made.refused
    row = dict(zip(made.header, made.rows[3], strict=True))
    assert row["Bylaw_Description"] == "No Stopping\n(Chapter 950-1303)" and json.loads(row["ByLaw_Table"])["rows"][0]["Zone"] == 0
    assert made.rows[9][made.header.index("Latest_Action_Date")] == ""
    assert made.extra == ["latestRegulationActionEffectiveDate", "parsedTableData"]
