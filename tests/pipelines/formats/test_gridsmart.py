"""A camera's zip into zones' documents: count versions, wrong lines, the device's clock, and what a day covers."""

import json
import tracemalloc
from datetime import date, timedelta

import pytest

from pipelines.formats import gridsmart, gridsmart_zip
from pipelines.formats.gridsmart import Gridsmart, clock_of
from pipelines.formats.sensors import Raw
from tests.pipelines.formats.gridsmart_samples import (
    BASE,
    DAY,
    EB,
    GOLDEN,
    NB,
    SB,
    Done,
    dashes,
    layout_a,
    layout_b,
    site,
    standardize,
    terms,
    v8,
)

V7 = "7,23,512.4,-360,S,17,30,G,1.0,1,0.9"
V4 = "4,23,20190601T050512.4,77,car,17,30,S,SLR,1.0,2.0,1,G,3.0,100,D"


def rows_of(tmp_path, lines, about=None, **more):
    return standardize(tmp_path, layout_a({NB: lines}), about, **more)


@pytest.mark.parametrize("layout", [layout_a, layout_b])
def test_the_golden_day_is_seven_vehicles_in_a_document_a_zone(tmp_path, layout):
    done = standardize(tmp_path, layout(GOLDEN))
    assert (done.tally.rows_in, done.tally.rows_out, done.refused) == (7, 7, [])
    assert [(made.base, made.ext, made.rows) for made in done.made] == [
        (BASE, f"{dashes(NB)}.json", 5), (BASE, f"{dashes(SB)}.json", 1), (BASE, f"{dashes(EB)}.json", 1),
    ]  # fmt: skip
    assert done.format.observations() == {
        BASE: {"value": 7, "rows": 7, "first": "2019-06-01T05:00:10+00:00", "last": "2019-06-02T04:30:00.100000+00:00", "unit": ""}
    }


def test_a_document_has_the_shape_of_the_lake(tmp_path):
    done = standardize(tmp_path, layout_a(GOLDEN))
    document = json.loads(done.zone(NB).path.read_text())
    assert document["header"] == {
        "data_type": "gridsmart", "zip_name": "Burnet_Richcreek_gs_2019-06-01.zip", "origin_filename": f"{dashes(NB)}.csv",
        "target_filename": f"Burnet_Richcreek_gs_2019-06-01_{dashes(NB)}.json", "collection_date": "2019-06-01 00:00:00-05:00",
        "processing_date": "2019-06-02 04:00:00-05:00", "version": 8, "guid": dashes(NB), "day_covered": 0, "clock_seconds": -3600.0,
    }  # fmt: skip
    assert document["data"][1] == {
        "count_version": 8, "site_version": 23, "timestamp": 512.4, "utc_offset": -360, "turn": "S", "vehicle_length": 17, "speed": 30,
        "light_state": "G", "seconds_in_zone": 1.0, "vehicles_in_zone": 1, "light_state_sec": 5.0, "sec_since_green": 0.0,
        "zone_freeflow_speed": 42, "zone_freeflow_speed_cal": 39, "timestamp_adj": "2019-06-01 00:05:12.400000-05:00",
    }  # fmt: skip


@pytest.mark.parametrize("version", [(8, v8("512.4", length=17, speed=30, zone=1.0)), (7, V7), (4, V4)])
def test_vehicles_of_every_count_version_are_put_at_their_time(tmp_path, version):
    number, line = version
    done = rows_of(tmp_path, [line])
    [row] = done.rows()
    assert (done.made[0].header["version"], row["count_version"]) == (number, number)
    assert {name: row[name] for name in ("turn", "vehicle_length", "speed", "seconds_in_zone", "timestamp_adj")} == {
        "turn": "S", "vehicle_length": 17, "speed": 30, "seconds_in_zone": 1.0, "timestamp_adj": "2019-06-01 00:05:12.400000-05:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("9,23,512.4,-360,S", "count_version", "none that is known"),
        ("x,23,512.4,-360,S", "count_version", "none that is known"),
        ("8,23,512.4,-360,S", "", "fewer fields than a count of version 8"),
        (v8("1.0") + ",1", "", "more fields than a count of version 8"),
        (v8("abc"), "timestamp", "is not a time of day"),
        (v8(""), "timestamp", "is not a time of day"),
        (v8("240000.0"), "timestamp", "is not a time of day"),
        (v8("6000.0"), "timestamp", "is not a time of day"),
        (v8("60.0"), "timestamp", "is not a time of day"),
        (v8("-1.0"), "timestamp", "is not a time of day"),
        (v8("1e4"), "timestamp", "is not a time of day"),
        (v8("1.0", offset=""), "utc_offset", "is not a UTC offset"),
        (v8("1.0", offset="999999"), "utc_offset", "is not a UTC offset"),
        (v8("1.0", offset="nan"), "utc_offset", "is not a UTC offset"),
        (v8("1.0", turn=""), "turn", "is not a letter or two"),
        (v8("1.0", turn="SLR"), "turn", "is not a letter or two"),
        (v8("1.0", length="long"), "vehicle_length", "is not a number"),
        (v8("1.0", speed="1e999"), "speed", "is not a number"),
        (v8("1.0", speed="inf"), "speed", "is not a number"),
        (v8("1.0", zone="١"), "seconds_in_zone", "is not a number"),
        ("4" + V4[1:].replace("20190601T", "20190631T"), "timestamp", "is not a time like"),
        ("4" + V4[1:].replace("20190601T", "2019-06-01 "), "timestamp", "is not a time like"),
        ("8\x00,23", "count_version", "none that is known"),
    ],
)
def test_a_wrong_line_is_refused_with_its_reason_and_stops_no_other(tmp_path, line, column, reason):
    good = V4 if line.startswith("4") else v8("20.0")
    done = rows_of(tmp_path, [good, line, good])
    [refused] = done.refused
    assert (refused.number, refused.column, refused.key) == (2, column, dashes(NB)) and reason in refused.reason
    assert refused.raw["line"] == line.strip() and refused.raw["file"].endswith(f"{dashes(NB)}.csv")
    assert (done.tally.rows_in, done.tally.rows_out, done.tally.rejected) == (3, 2, 1) and len(done.rows()) == 2


@pytest.mark.parametrize(("text", "value"), [("", None), ("NaN", None), ("12", 12), ("-3", -3), ("12.5", 12.5), ("1.5e1", 15.0), ('"7"', 7)])
def test_numbers_that_a_device_leaves_out_are_null_and_the_vehicle_counts(tmp_path, text, value):
    done = rows_of(tmp_path, [v8("1.0", speed=text)])
    assert done.rows()[0]["speed"] == value and not done.refused


def test_the_last_twentieth_of_a_second_is_not_lost(tmp_path):
    done = rows_of(tmp_path, [v8("18.95"), v8("18.999")])
    assert [row["timestamp_adj"][11:26] for row in done.rows()] == ["00:00:18.950000", "00:00:18.999000"]


def test_a_line_of_another_version_than_those_before_is_refused(tmp_path):
    done = rows_of(tmp_path, [v8("1.0"), V7])
    assert done.reasons == ["count_version is another than that of the lines before"]


def test_empty_lines_and_a_missing_last_line_end_are_nothing(tmp_path):
    done = rows_of(tmp_path, ["", v8("1.0"), "   "])
    assert (done.tally.rows_in, done.tally.rows_out) == (1, 1)


def test_a_zone_without_vehicles_is_a_document_and_an_observation(tmp_path):
    done = rows_of(tmp_path, [])
    assert done.rows() == [] and done.made[0].header["version"] is None and done.made[0].header["day_covered"] == 0
    assert done.format.observations()[BASE]["value"] == 0


def test_a_file_that_is_all_wrong_is_passed_over_after_many_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(gridsmart, "MOST_REFUSED", 5)
    done = rows_of(tmp_path, ["x"] * 50)
    assert len(done.refused) == 6 and "The rest of the file is passed over" in done.reasons[-1] and done.made[0].rows == 0


# the clock


def test_the_example_of_the_documentation_comes_out_equal(tmp_path):
    """18.6 of a device that showed 6/3/2019 2:32:13 AM (UTC-05:00) at 06:34:06 UTC: 2019-05-31 22:02:11.6 (facts/datalake.md §7.3)."""
    about = site()
    about["datetime"] = {
        "DateTime": "6/3/2019 2:32:13 AM", "TimeZoneId": "(UTC-05:00) Eastern Time (US & Canada)", "HostTimeUTC": "06/03/2019 06:34:06 AM",
    }  # fmt: skip
    assert clock_of(about).off == -timedelta(minutes=58, seconds=7)
    done = rows_of(tmp_path, [v8("18.6", offset=-240)], about)
    assert done.rows()[0]["timestamp_adj"] == "2019-05-31 22:02:11.600000-05:00"
    assert done.made[0].header["day_covered"] == -1 and done.format.neighbour(done.made[0].header) == 1


@pytest.mark.parametrize(
    ("drift", "time", "day_covered", "needs"),
    [
        (timedelta(), "2019-06-01 00:10:00-05:00", 0, 0),
        (timedelta(seconds=120), "2019-06-01 00:08:00-05:00", -1, 1),
        (timedelta(seconds=-120), "2019-06-01 00:12:00-05:00", 1, -1),
        (timedelta(hours=1), "2019-05-31 23:10:00-05:00", -1, 1),
    ],
)
def test_a_clock_that_is_off_is_put_right_and_asks_for_the_day_that_has_the_rest(tmp_path, drift, time, day_covered, needs):
    done = rows_of(tmp_path, [v8("1000.0")], site(drift=drift))
    header = done.made[0].header
    assert (done.rows()[0]["timestamp_adj"], header["day_covered"], done.format.neighbour(header)) == (time, day_covered, needs)


def test_a_zone_without_vehicles_asks_for_the_same_day_as_the_others(tmp_path):
    done = standardize(tmp_path, layout_a({NB: [v8("1000.0")], SB: []}), site(drift=timedelta(seconds=120)))
    assert [made.header["day_covered"] for made in done.made] == [-1, -1]


def test_the_files_of_version_4_are_of_utc_days(tmp_path):
    done = rows_of(tmp_path, [V4], site(drift=timedelta(seconds=90)))
    # of the hour of summer time that a clock seems to be off nothing is in UTC
    assert done.rows()[0]["timestamp_adj"] == "2019-06-01 00:03:42.400000-05:00"
    assert (done.made[0].header["day_covered"], done.made[0].header["clock_seconds"]) == (-1, -90.0)


def test_in_winter_the_offset_is_the_whole_truth(tmp_path):
    day = date(2019, 12, 2)
    about = site(wall=-6)
    done = standardize(tmp_path, layout_a({NB: [v8("1000.0")]}, day), about, day=day)
    assert done.rows()[0]["timestamp_adj"] == "2019-12-02 00:10:00-06:00" and done.made[0].header["day_covered"] == 0


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "does not tell"),
        ({}, "does not tell"),
        ({"DateTime": "6/2/2019 1:34:06 AM", "TimeZoneId": "(UTC-06:00)"}, "does not tell"),
        ({"DateTime": 5, "TimeZoneId": "(UTC-06:00)", "HostTimeUTC": "x"}, "does not tell"),
        ({"DateTime": "6/2/2019 1:34:06 AM", "TimeZoneId": "Central", "HostTimeUTC": "06/02/2019 06:34:06 AM"}, "none with an offset"),
        ({"DateTime": "2019-06-02T01:34", "TimeZoneId": "(UTC-06:00)", "HostTimeUTC": "06/02/2019 06:34:06 AM"}, "another way"),
        ({"DateTime": "6/2/2001 1:34:06 AM", "TimeZoneId": "(UTC-06:00)", "HostTimeUTC": "06/02/2019 06:34:06 AM"}, "more than a day"),
        ({"DateTime": "1/1/0001 1:34:06 AM", "TimeZoneId": "(UTC+14:00)", "HostTimeUTC": "06/02/2019 06:34:06 AM"}, "another way"),
    ],
)
def test_of_an_unknown_clock_the_times_are_left_as_they_came_and_that_is_told(tmp_path, told, why):
    about = site()
    about["datetime"] = told
    done = rows_of(tmp_path, [v8("1000.0")], about)
    assert "timestamp_adj" not in done.rows()[0] and done.made[0].header["clock_seconds"] is None
    [words] = done.tally.warnings
    assert why in words and BASE in words


def test_an_offset_of_plain_utc_is_an_offset(tmp_path):
    done = rows_of(tmp_path, [v8("50010.0", offset=0)], site(zone_id="(UTC) Coordinated Universal Time", wall=0))
    assert done.rows()[0]["timestamp_adj"] == "2019-06-01 00:00:10-05:00"


@pytest.mark.parametrize("body", [False, b"", b"{", b"[1]", b'{"site": 5}', b"\xff\xfe{}", b"[" * 100_000])
def test_a_site_file_that_is_none_stops_nothing(tmp_path, body):
    path = tmp_path / "broken.json"
    if body is not False:
        path.write_bytes(body)
    (tmp_path / "zip").write_bytes(layout_a(GOLDEN))
    format_ = Gridsmart(terms())
    helpers = {} if body is False else {"site": path}
    done = Done(format_, format_.standardize(Raw(tmp_path / "zip", "x.zip", BASE, "zip", helpers), tmp_path))
    assert done.tally.rows_out == 7 and "no site file that can be read" in next(iter(done.tally.warnings))
    assert DAY.isoformat() in done.made[0].header["collection_date"]


def test_memory_does_not_grow_with_the_vehicles(tmp_path, monkeypatch):
    monkeypatch.setattr(gridsmart, "BATCH", 50)
    monkeypatch.setattr(gridsmart_zip, "PIECE", 2_048)
    peaks = []
    for number in (400, 400, 1_600):
        lines = [v8(f"{number % 60}.0") for number in range(number)]
        body = layout_a({NB: lines})
        del lines
        tracemalloc.start()
        done = standardize(tmp_path, body)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.made[0].rows == number
    # the first warms what is kept for good
    assert peaks[2] < peaks[1] * 1.3, peaks
