"""Radar: a day comes out as it always was published; a bad number costs its row, and nothing else."""

from datetime import date, datetime

import pytest

from pipelines.formats import text_lines, wavetronix
from pipelines.formats.sensors import Document, md5_of
from pipelines.formats.wavetronix import Wavetronix, timebin
from tests.pipelines.formats.sensing import (
    ORIGINAL_RADAR,
    RADAR,
    RADAR_HEAD,
    RADAR_ID,
    Told,
    as_cells,
    due,
    golden,
    needs_the_original,
    original,
    published,
    raw_day,
    ready,
    standard_of,
    standardize,
    terms,
)

DAY, SUNDAY, FALL = date(2019, 6, 1), date(2019, 6, 2), date(2019, 11, 3)
HEAD = RADAR_HEAD + "\n"
ROW = "7,14,2019-06-01 00:00:00,OAK,NB_in,26,1,31,Working,100,2,26"


def block(day: date = DAY) -> Wavetronix:
    return Wavetronix(terms("wt", day))


def read(folder, body: str | bytes, day: date = DAY) -> tuple[Wavetronix, Told]:
    reader = block(day)
    return reader, standardize(reader, folder, body, "csv")


def joined(folder, body: str | bytes, day: date = DAY, units: list[dict] | None = None) -> tuple[Wavetronix, Told]:
    _, told = read(folder, body, day)
    reader = block(day)
    return reader, ready(reader, folder, [standard_of(told.made[0])], [RADAR] if units is None else units)


def changed(**cells: str) -> str:
    """The row with other cells."""
    names = HEAD.strip().split(",")
    return ",".join(cells.get(name, cell) for name, cell in zip(names, ROW.split(","), strict=True))


@needs_the_original
def test_a_day_is_published_as_the_original_did(tmp_path):
    _, told = joined(tmp_path, original("radar", DAY), units=[ORIGINAL_RADAR])
    assert published(told.table) == as_cells(golden("i626-g7ub")[0])
    assert {row["device_id"] for row in told.table} == {"7913ca6e3735f7b681d2996a87c8afd4"}
    assert told.reasons == ["intID is no device of the inventory"]


@pytest.mark.parametrize("day", [DAY, SUNDAY])
def test_a_day_is_published_with_its_parts_of_time_and_its_ids_and_the_unknown_intersection_is_refused(tmp_path, day):
    _, told = joined(tmp_path, raw_day("radar", day), day)
    assert published(told.table) == as_cells(due("radar", day))
    assert {row["device_id"] for row in told.table} == {RADAR_ID}
    [refused] = told.refused
    assert (refused.reason, refused.column, refused.value) == ("intID is no device of the inventory", "intID", "88")


def test_documents_have_the_shapes_of_the_lake(tmp_path):
    _, told = read(tmp_path, raw_day("radar", DAY))
    [made] = told.made
    assert made.header == Document(made.path).header == {
        "data_type": "wavetronix", "origin_filename": "Austin_wt_2019-06-01.csv", "target_filename": "Austin_wt_2019-06-01.json",
        "collection_date": "2019-06-01 00:00:00-05:00", "processing_date": "2019-06-02 08:00:00-05:00",
    }  # fmt: skip
    assert told.rows[0] == {
        "detID": 5, "intID": 14, "curDateTime": "2019-06-01 00:00:00-05:00", "intName": "OAKSECOND", "detName": "EB_in", "volume": 23,
        "occupancy": 1, "speed": 29, "status": "Working", "uploadSuccess": 100, "detCountComparison": 3, "dailyCumulative": 23,
    }  # fmt: skip
    made = ready(block(), tmp_path, [standard_of(made)], [RADAR]).made[0]
    assert Document(made.path).part("devices") == [{**RADAR, "device_id": RADAR_ID}]
    assert [(row["detID"], row["device_id"]) for row in Document(made.path).rows()] == [(4, RADAR_ID), (5, RADAR_ID), (6, RADAR_ID)]


def test_vehicles_are_observed_by_intersection_the_unknown_and_the_empty_too(tmp_path):
    reader, _ = read(tmp_path, raw_day("radar", DAY))
    seen = reader.observations()
    assert {name: one["value"] for name, one in seen.items()} == {"OAKSECOND": 76, "ELSEWHERE": 0}
    assert seen["OAKSECOND"] == {
        "value": 76, "rows": 3, "first": "2019-06-01T05:00:00+00:00", "last": "2019-06-01T05:15:00+00:00", "unit": "Vehicle Counts"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("clock", "bin"),
    [("00:00", "00:00"), ("00:07", "00:00"), ("00:08", "00:15"), ("00:22", "00:15"), ("00:23", "00:30"), ("00:37", "00:30"),
     ("00:38", "00:45"), ("00:52", "00:45"), ("00:53", "01:00"), ("13:59", "14:00"), ("23:53", "00:00")],
)  # fmt: skip
def test_a_time_bin_is_the_nearest_quarter_hour_and_never_sixty(clock, bin):
    assert timebin(datetime.fromisoformat(f"2019-06-01 {clock}:00")) == bin


@pytest.mark.parametrize("name", wavetronix.NEEDED)
@pytest.mark.parametrize("cell", ["", "19.5", "x", "nan", "1_0", "9" * 30])
def test_a_number_that_is_not_whole_costs_its_row_and_not_the_day(tmp_path, name, cell):
    reader, told = read(tmp_path, f"{HEAD}{ROW}\n{changed(**{name: cell})}\n{ROW}\n")
    [refused] = told.refused
    assert (refused.reason, refused.column, refused.value, refused.number) == (f"{name} is no whole number", name, cell, 3)
    assert len(told.rows) == 2 and reader.observations()["OAK"]["value"] == 52


@pytest.mark.parametrize("name", wavetronix.OTHERS)
def test_what_is_not_published_may_be_empty(tmp_path, name):
    _, told = joined(tmp_path, f"{HEAD}{changed(**{name: ''})}\n")
    assert told.rows[0][name] is None and len(told.table) == 1


@pytest.mark.parametrize("time", ["nan", "", "2019-13-01 00:00:00"])
def test_what_is_no_time_is_null_and_refused_at_ready(tmp_path, time):
    reader, told = read(tmp_path, f"{HEAD}{changed(curDateTime=time)}\n")
    assert told.rows[0]["curDateTime"] is None and dict(reader.tally.warnings) == {wavetronix.UNREAD: 1}
    assert reader.observations()["OAK"] == {"value": 26, "rows": 1, "first": "", "last": "", "unit": "Vehicle Counts"}
    told = ready(block(), tmp_path, [standard_of(told.made[0])], [RADAR])
    assert told.reasons == ["curDateTime is missing or no time"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"2,1,2019-06-01 00:00:00", "the line has fewer fields than the header"),
        (ROW.encode() + b",1", "the line has more fields than the header"),
        (ROW.replace("OAK", "O\0AK").encode(), "the line holds a NUL byte"),
        (ROW.encode().replace(b"OAK", b"OA\xff"), "the line is not UTF-8"),
        (b'"' + ROW.encode(), "the line is no CSV: unexpected end of data"),
        (b"," * (text_lines.LONGEST + 1), "the line is longer than 65,536 bytes"),
    ],
)
def test_a_line_that_is_no_row_is_refused_and_the_others_go_on(tmp_path, line, reason):
    _, told = read(tmp_path, b"\n".join([HEAD.strip().encode(), ROW.encode(), line, ROW.encode()]))
    assert (told.reasons, len(told.rows), told.refused[0].number) == ([reason], 2, 3)


def test_a_file_without_a_column_refuses_its_rows_by_the_columns_name(tmp_path):
    _, told = read(tmp_path, HEAD.replace("volume", "vol") + ROW)
    assert (told.reasons, told.rows) == (["the file has no column volume"], [])


@pytest.mark.parametrize("body", ["", "\n\n", HEAD, "\ufeff"])
def test_a_file_without_rows_is_an_empty_document_and_an_empty_table(tmp_path, body):
    _, told = joined(tmp_path, body)
    assert (told.table, told.refused) == ([], [])


def test_names_of_columns_may_be_written_as_a_database_does(tmp_path):
    _, told = joined(tmp_path, HEAD.lower() + ROW)
    assert [row["int_id"] for row in told.table] == ["14"]


@pytest.mark.parametrize("kits_id", [14, 14.0, "14"])
def test_a_kits_id_is_a_number_however_the_inventory_writes_it(tmp_path, kits_id):
    _, told = joined(tmp_path, HEAD + ROW, units=[{**RADAR, "kits_id": kits_id}, {**RADAR, "kits_id": None}, {**RADAR, "kits_id": "?"}])
    assert len(told.table) == 1


def test_of_two_units_with_a_kits_id_the_first_is_taken_and_no_row_doubles(tmp_path):
    reader, told = joined(tmp_path, HEAD + ROW, units=[{**RADAR, "atd_device_id": 208, "device_ip": "10.20.0.8"}, RADAR])
    assert [row["device_id"] for row in told.table] == [RADAR_ID]
    assert dict(reader.tally.warnings) == {"kits_id is of several units: the one with the lowest atd_device_id is taken": 1}


def test_rows_are_sorted_by_time_and_by_the_number_of_the_detector(tmp_path):
    lines = [changed(detID=detector, curDateTime=f"2019-06-01 {clock}") for clock in ("00:15:00", "00:00:00.000") for detector in ("10", "9", "-1")]
    _, told = joined(tmp_path, HEAD + "\n".join(lines))
    assert [(row["detid"], row["curdatetime"][11:]) for row in told.table] == [
        (detector, clock) for clock in ("00:00:00", "00:15:00") for detector in ("-1", "9", "10")
    ]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_the_second_pass_through_the_repeated_hour_has_its_own_ids_in_either_order(tmp_path, is_sorted):
    """A database sorts by the wall time, and so gives both passes by turns."""
    clocks = ["01:00:00", "01:15:00", "01:30:00", "01:45:00"] * 2
    lines = [changed(curDateTime=f"2019-11-03 {clock}", detID=detector) for clock in (sorted(clocks) if is_sorted else clocks) for detector in "12"]
    _, told = joined(tmp_path, HEAD + "\n".join([*lines, changed(curDateTime="2019-11-03 02:00:00")]), FALL)
    ids = [row["row_id"] for row in told.table]
    assert len(set(ids)) == 17
    assert ids[0] == md5_of("OAK", "2019-11-03T01:00:00", 1) and ids[8] == md5_of("OAK", "2019-11-03T01:00:00-06:00", 1)
    assert [row["curdatetime"][11:16] for row in told.table[:8:2]] == ["01:00", "01:15", "01:30", "01:45"]
    assert ids[16] == md5_of("OAK", "2019-11-03T02:00:00", 7)
