"""Cameras from the zones' documents to what is published: which device it is, which day a vehicle is of, and the quarter hours."""

import csv
import json
import statistics
import tracemalloc
from datetime import date, timedelta

import pytest

from pipelines.errors import SetupError
from pipelines.formats import gridsmart, gridsmart_counts, gridsmart_zip, sorted_lines
from pipelines.formats.gridsmart_counts import COUNT_COLUMNS, feet_between, match_device
from pipelines.formats.sensors import Standard
from tests.pipelines.formats.gridsmart_samples import (
    BASE,
    DAY,
    GOLDEN,
    NB,
    SB,
    UNIT,
    aggregate,
    layout_a,
    layout_b,
    ready,
    site,
    standardize,
    standards,
    v8,
)


def counted(tmp_path, zones=GOLDEN, about=None, **options):
    """The counts of a day of these zones, from their zip on."""
    done = standardize(tmp_path / "1", layout_a(zones), about)
    return ready(tmp_path / "2", standards(done, about=about or site()), **options)


def published(tmp_path, zones=GOLDEN, about=None, **options):
    """(what aggregate did, its published rows) of a day of these zones."""
    counts = counted(tmp_path, zones, about)
    done = aggregate(tmp_path / "3", counts.made[0].path, **options)
    with done.made[0].table.open(newline="") as file:
        return done, list(csv.DictReader(file))


# the golden


@pytest.mark.parametrize("layout", [layout_a, layout_b])
def test_the_golden_day_is_published_equal(tmp_path, layout):
    """facts/datalake.md §7.3: six vehicles of seven, five rows, the record ids of the first two."""
    zones = standardize(tmp_path / "1", layout(GOLDEN))
    counts = ready(tmp_path / "2", standards(zones, about=site()))
    assert (counts.tally.rows_in, counts.tally.rows_out, counts.tally.elsewhere) == (7, 6, 1)
    done = aggregate(tmp_path / "3", counts.made[0].path)
    assert (done.tally.rows_in, done.tally.rows_out, done.made[0].rows, done.made[0].table_rows) == (6, 6, 5, 5)
    with done.made[0].table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    measures = ["read_date", "direction", "movement", "heavy_vehicle", "volume", *(name for name in rows[0] if name.startswith(("speed", "seconds")))]
    assert [[row[name] for name in measures] for row in rows] == [
        ["2019-06-01T00:00:00", "NORTHBOUND", "THRU", "false", "2", "38.0", "5.657", "1.3", "0.99"],
        ["2019-06-01T00:00:00", "NORTHBOUND", "THRU", "true", "1", "30.0", "0.0", "1.0", "0.0"],
        ["2019-06-01T00:00:00", "SOUTHBOUND", "LEFT TURN", "false", "1", "13.0", "0.0", "2.5", "0.0"],
        ["2019-06-01T00:15:00", "NORTHBOUND", "THRU", "false", "1", "20.0", "0.0", "30.0", "0.0"],
        ["2019-06-01T23:30:00", "NORTHBOUND", "U-TURN", "false", "1", "20.0", "0.0", "3.0", "0.0"],
    ]
    assert [row["record_id"] for row in rows[:2]] == ["dc18dd0c4eb50ead5b2b30eab9ece1ad", "697f36c5f6a3d28a2e2c1958fc4334a1"]
    assert rows[4] | {"record_id": ""} == {
        "atd_device_id": "6945", "read_date": "2019-06-01T23:30:00", "intersection_name": "BURNET RD / RICHCREEK RD", "direction": "NORTHBOUND",
        "movement": "U-TURN", "heavy_vehicle": "false", "volume": "1", "speed_average": "20.0", "speed_stddev": "0.0",
        "seconds_in_zone_average": "3.0", "seconds_in_zone_stddev": "0.0", "month": "6", "day": "1", "year": "2019", "hour": "23", "minute": "30",
        "day_of_week": "6", "bin_duration": "900", "record_id": "",
    }  # fmt: skip
    assert list(rows[0]) == [name for name, _ in COUNT_COLUMNS]


def test_both_documents_have_the_shape_of_the_lake(tmp_path):
    counts = counted(tmp_path)
    told = json.loads(counts.made[0].path.read_text())
    dates = {"collection_date": "2019-06-01 00:00:00-05:00", "processing_date": "2019-06-02 04:00:00-05:00"}
    assert (list(told), counts.made[0].ext) == (["header", "counts", "site", "device"], "counts.json")
    assert told["header"] == {"data_type": "gridsmart", "zip_name": "Burnet_Richcreek_gs_2019-06-01.zip", **dates, "version": 8}
    assert told["counts"][0]["zone"] == NB and told["site"] == site() and told["device"] == {**UNIT, "reversed": False}
    done = aggregate(tmp_path / "3", counts.made[0].path)
    told = json.loads(done.made[0].path.read_text())
    assert (list(told), done.made[0].ext, done.made[0].header["agg_interval_sec"]) == (["header", "data", "site", "device"], "agg15.json", 900)
    assert told["data"][0] == {
        "timestamp": "2019-06-01 00:00:00-05:00", "zone_approach": "Northbound", "turn": "S", "heavy_vehicle": 0, "volume": 2, "speed_avg": 38.0,
        "speed_std": 5.657, "seconds_in_zone_avg": 1.3, "seconds_in_zone_std": 0.99,
    }  # fmt: skip
    assert told["device"]["atd_device_id"] == "6945"


# which day


def test_vehicles_stand_in_the_order_of_their_times_across_zones(tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_lines, "RUN", 500)
    lines = [v8(f"{number}.5") for number in (59, 3, 41, 7, 20)]
    counts = counted(tmp_path, {NB: lines, SB: [v8(f"{number}.2") for number in (30, 1, 50)]})
    times = [row["timestamp_adj"] for row in counts.rows(0, "counts")]
    assert times == sorted(times) and len(times) == 8


def test_a_day_that_a_drifting_clock_cut_is_filled_from_its_neighbour(tmp_path):
    """Two minutes ahead: the day's first file begins before midnight, and its last two minutes stand in the next day's."""
    ahead = site(drift=timedelta(seconds=120))
    own = standardize(tmp_path / "1", layout_a({NB: [v8("30.0"), v8("1000.0"), v8("235959.0")], SB: []}), ahead)
    after = standardize(tmp_path / "2", layout_a({NB: [v8("100.0"), v8("300.0")]}, DAY + timedelta(days=1)), ahead, day=DAY + timedelta(days=1))
    assert own.format.neighbour(own.made[0].header) == 1
    done = ready(tmp_path / "3", [*standards(own, about=ahead), *standards(after, days=1)])
    assert [row["timestamp_adj"][:19] for row in done.rows(0, "counts")] == ["2019-06-01 00:08:00", "2019-06-01 23:57:59", "2019-06-01 23:59:00"]
    assert (done.tally.rows_in, done.tally.rows_out, done.tally.elsewhere) == (5, 3, 2) and not done.tally.warnings


def test_a_day_without_the_neighbour_that_it_needs_says_so(tmp_path):
    ahead = site(drift=timedelta(seconds=120))
    own = standardize(tmp_path / "1", layout_a({NB: [v8("1000.0")]}), ahead)
    done = ready(tmp_path / "2", standards(own, about=ahead))
    assert any("made without the day after" in words for words in done.tally.warnings) and done.made[0].rows == 1


def test_zones_of_the_site_that_have_no_file_are_told(tmp_path):
    done = counted(tmp_path, {NB: [v8("1.0")]})
    assert done.tally.warnings == {f"{BASE}: zones without a file of this day": 1}


def test_vehicles_whose_time_is_not_known_are_refused(tmp_path):
    about = site()
    about["datetime"] = {}
    done = counted(tmp_path, {NB: [v8("1.0")], SB: []}, about)
    assert done.reasons == ["The time of the vehicle is not known, for its device's clock is not"] and done.made[0].rows == 0


def test_a_site_file_that_counts_no_zone_refuses_the_day_in_one_record(tmp_path):
    about = site()
    about["site"]["CameraDevices"][0]["Fisheye"]["IsConfigured"] = False
    done = counted(tmp_path, GOLDEN, about)
    [refused] = done.refused
    assert "No site file tells" in refused.reason and (refused.number, refused.raw["vehicles"]) == (0, 7)
    assert done.made == [] and done.tally.rejected == 7


@pytest.mark.parametrize(
    "cameras",
    [None, 5, [None], [{"Fisheye": None}], [{"Fisheye": {"IsConfigured": True, "CameraMasks": {"ZoneMasks": [{"Vehicle": {"Id": 5}}, 7]}}}]],
)
def test_a_site_file_of_another_shape_never_crashes(tmp_path, cameras):
    about = site()
    about["site"]["CameraDevices"] = cameras
    assert counted(tmp_path, GOLDEN, about).tally.rejected == 7


def test_an_intersection_of_which_nothing_is_in_the_inventory_is_refused_with_what_to_do(tmp_path):
    zones = standardize(tmp_path / "1", layout_a(GOLDEN))
    done = ready(tmp_path / "2", standards(zones, about=site()), units=[])
    assert done.reasons == ["No device of the inventory is at this intersection"] and done.tally.rejected == 7 and not done.made


def test_two_intersections_are_never_the_same_device(tmp_path):
    """Their rows would have the same ids, and one would take the other's place."""
    zones = standardize(tmp_path / "1", layout_a(GOLDEN))
    documents = standards(zones, about=site())
    first = ready(tmp_path / "2", documents)
    again = first.format.ready([Standard(one.path, "Burnet_Richcrek", one.ext, one.header, 0, one.role) for one in documents], [UNIT], tmp_path)
    [refused] = list(again)
    assert "is that of another one already" in refused.reason


# which device


def units_of(*streets, **more):
    return [{**UNIT, "atd_device_id": f"{number}", "device_ip": None, "lat": None, "lon": None, "primary_st": one, "cross_st": other, **more}
            for number, (one, other) in enumerate(streets)]  # fmt: skip


def test_a_device_is_found_by_its_streets_though_they_are_written_otherwise():
    found = match_device(site(), units_of(("LAMAR BLVD", "6TH ST"), ("BURNET RD", "RICHCREEK RD")))
    assert (found.unit["atd_device_id"], found.by, found.reversed) == ("1", "streets", False)


def test_a_device_is_found_by_its_streets_in_the_other_order():
    found = match_device(site(), units_of(("RICHCREEK RD", "BURNET RD")))
    assert found.reversed and found.record["reversed"] is True


def test_of_streets_that_are_alike_the_most_alike_is_taken():
    found = match_device(
        site(streets=("Burnet", "Anderson")), units_of(("BURNET RD", "ANDERSON SQ"), ("BURNET", "ANDERSON LN"), ("BURNET", "ANDERSON"))
    )
    assert found.unit["atd_device_id"] == "2"


def test_of_two_equal_streets_the_one_at_the_address_and_never_one_that_was_removed():
    two = units_of(("BURNET RD", "RICHCREEK RD"), ("BURNET RD", "RICHCREEK RD"))
    two[0]["device_status"] = "REMOVED"
    assert match_device(site(), two).unit["atd_device_id"] == "1"
    two[0] |= {"device_status": "TURNED_ON"}
    two[1] |= {"device_ip": "10.0.0.7"}
    assert match_device(site(), two).unit["atd_device_id"] == "1"


def test_streets_that_are_less_alike_than_seven_tenths_are_others():
    assert match_device(site(address=""), units_of(("LAMAR BLVD", "6TH ST"))) is None


def test_a_name_that_a_person_wrote_goes_before_all():
    units = units_of(("BURNET RD", "RICHCREEK RD"), ("ANYWHERE", "ELSE"))
    units[1]["atd_location_id"] = "LOC16-004315"
    found = match_device(site(), units, names={BASE: "LOC16-004315"})
    assert (found.unit["atd_device_id"], found.by, found.reversed) == ("1", "name", False)
    assert match_device(site(), units, names={BASE: "LOC16-999999"}) is None


def test_a_synonym_stands_for_a_part_of_a_street():
    about, units = site(streets=("Loop 360", "Westlake")), units_of(("WESTLAKE DR", "CAPITAL OF TEXAS HWY"))
    assert match_device(about, units) is None
    found = match_device(about, units, synonyms={"Loop 360": "CAPITAL OF TEXAS HWY", "Loop": "AN EXTRA"})
    assert (found.by, found.reversed) == ("synonym", True)
    # part of a word is no street
    assert match_device(site(streets=("Loop 3601", "Westlake")), units, synonyms={"Loop 360": "CAPITAL OF TEXAS HWY"}) is None


def test_a_device_is_found_by_its_address_and_then_by_its_place():
    units = units_of(("NORTH", "FAR"), ("SOUTH", "NEAR"), ("EAST", "NOWHERE"))
    units[0]["device_ip"] = "10.0.0.7"
    units[1] |= {"lat": 30.3531, "lon": -97.7355}
    units[2] |= {"lat": "unknown", "lon": None}
    assert match_device(site(), units).by == "address"
    units[0]["device_ip"] = "10.0.0.8"
    found = match_device(site(), units)
    assert (found.unit["atd_device_id"], found.by) == ("1", "place")
    assert match_device(site(address=None), units) is None, "a site file without an address says nothing of the place either"


@pytest.mark.parametrize(("feet", "is_found"), [(299, True), (301, False)])
def test_a_device_stands_at_an_intersection_within_three_hundred_feet(feet, is_found):
    north = 30.3527 + feet / feet_between((30.3527, -97.7351), (31.3527, -97.7351))
    units = units_of(("NORTH", "FAR"), lat=north, lon=-97.7351)
    assert (match_device(site(), units) is not None) == is_found


def test_a_device_that_was_never_told_where_it_is_stands_nowhere():
    assert match_device(site(place=(0, 0)), units_of(("NORTH", "FAR"), lat=0.0, lon=0.0)) is None


# the quarter hours


def test_a_group_is_a_time_an_approach_a_turn_and_a_weight(tmp_path):
    speeds = [31, 44, 27, 39]
    lines = [v8(f"{minute}00.0", speed=speed) for minute, speed in zip((16, 17, 18, 29), speeds, strict=True)]
    done, rows = published(tmp_path, {NB: [*lines, v8("3000.0", length=17), v8("3001.0", length="16.9")], SB: []})
    assert [(row["read_date"][11:16], row["heavy_vehicle"], row["volume"]) for row in rows] == [
        ("00:15", "false", "4"), ("00:30", "false", "1"), ("00:30", "true", "1"),
    ]  # fmt: skip
    assert float(rows[0]["speed_average"]) == statistics.mean(speeds) and float(rows[0]["speed_stddev"]) == round(statistics.stdev(speeds), 3)


def test_what_a_camera_did_not_measure_leaves_the_mean_alone_and_the_vehicle_counts(tmp_path):
    _, rows = published(tmp_path, {NB: [v8("1.0", speed=30), v8("2.0", speed=""), v8("3.0", length="", speed=40)], SB: []})
    [row] = rows
    assert (row["volume"], row["speed_average"], row["speed_stddev"], row["heavy_vehicle"]) == ("3", "35.0", "7.071", "false")


def test_the_hour_that_autumn_repeats_is_two_hours_with_rows_of_their_own(tmp_path):
    day = date(2019, 11, 3)
    about = site(wall=-6)
    # 01:10 by summer time, and by winter time an hour later
    done = standardize(tmp_path / "1", layout_a({NB: [v8("1000.0"), v8("11000.0")], SB: []}, day), about, day=day)
    counts = ready(tmp_path / "2", standards(done, about=about), day=day)
    assert [row["timestamp_adj"] for row in counts.rows(0, "counts")] == ["2019-11-03 01:10:00-05:00", "2019-11-03 01:10:00-06:00"]
    told = aggregate(tmp_path / "3", counts.made[0].path, day=day)
    with told.made[0].table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["read_date"] == second["read_date"] == "2019-11-03T01:00:00" and first["record_id"] != second["record_id"]


@pytest.mark.parametrize("takes", [True, False])
def test_vehicles_of_an_unassigned_zone_are_published_unless_that_is_switched_off(tmp_path, takes):
    about = site()
    about["site"]["CameraDevices"][0]["Fisheye"]["CameraMasks"]["ZoneMasks"][0]["Vehicle"]["ApproachType"] = "Unassigned"
    done, rows = published(tmp_path, {NB: [v8("1.0")], SB: [v8("1.0", "L")]}, about, publish_unassigned=takes)
    assert [row["direction"] for row in rows] == ["SOUTHBOUND"] + ["UNASSIGNED"] * takes
    assert (done.tally.rows_out, done.tally.elsewhere, done.made[0].rows) == (1 + takes, 1 - takes, 2)


def test_an_approach_that_is_none_is_left_out_and_told_and_an_unknown_turn_is_kept_and_told(tmp_path):
    about = site()
    about["site"]["CameraDevices"][0]["Fisheye"]["CameraMasks"]["ZoneMasks"][0]["Vehicle"]["ApproachType"] = "Skyward"
    done, rows = published(tmp_path, {NB: [v8("1.0"), v8("2.0")], SB: [v8("1.0", "X")]}, about)
    assert [(row["direction"], row["movement"]) for row in rows] == [("SOUTHBOUND", "X")]
    assert done.tally.warnings == {"approach 'Skyward' is none that is published": 2, "turn 'X' has no name of its own": 1}
    assert (done.tally.rows_out, done.tally.elsewhere) == (1, 2)


def test_other_bins_are_cut_when_they_are_asked_for(tmp_path):
    done, rows = published(tmp_path, {NB: [v8("600.0"), v8("1600.0")], SB: []}, minutes=5)
    assert [row["read_date"][11:16] for row in rows] == ["00:05", "00:15"] and done.made[0].ext == "agg5.json" and rows[0]["bin_duration"] == "300"


@pytest.mark.parametrize("minutes", [0, 7, 90, "15", True, None])
def test_bins_that_cut_no_hour_are_refused_in_words(tmp_path, minutes):
    with pytest.raises(SetupError, match="can't be cut like that"):
        published(tmp_path, minutes=minutes)


def test_a_device_whose_street_holds_a_comma_is_one_cell(tmp_path):
    zones = standardize(tmp_path / "1", layout_a(GOLDEN))
    counts = ready(tmp_path / "2", standards(zones, about=site()), units=[{**UNIT, "primary_st": 'BURNET, "RD"'}])
    done = aggregate(tmp_path / "3", counts.made[0].path)
    with done.made[0].table.open(newline="") as file:
        assert next(csv.DictReader(file))["intersection_name"] == 'BURNET, "RD" / RICHCREEK RD'


def test_memory_does_not_grow_with_the_vehicles(tmp_path, monkeypatch):
    for module in (gridsmart, gridsmart_counts):
        monkeypatch.setattr(module, "BATCH", 50)
    monkeypatch.setattr(gridsmart_zip, "PIECE", 2_048)
    monkeypatch.setattr(sorted_lines, "RUN", 100_000)
    peaks = []
    for step, number in enumerate((500, 500, 1_500)):
        zones = standardize(tmp_path / f"{step}", layout_a({NB: [v8(f"{number % 60}.0") for number in range(number)], SB: []}))
        documents = standards(zones, about=site())
        tracemalloc.start()
        counts = ready(tmp_path / f"{step}r", documents)
        done = aggregate(tmp_path / f"{step}a", counts.made[0].path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.tally.rows_out == number
    # the first warms what is kept for good
    assert peaks[2] < peaks[1] * 1.3, peaks
