"""MDS trips of any version come out as one internal trip; what is no trip is refused in words, and nothing is lost between."""

from __future__ import annotations

import csv
import json
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings

from pipelines.errors import DataError
from pipelines.formats.mds_trips import Terms, TripReader, read_vehicles
from pipelines.formats.trip_columns import TRIP_COLUMNS
from tests.pipelines.formats.mds_samples import BEGAN, DEVICE, END, ENDED, OPERATOR, ROUTED, START, TRIP, VERSIONS, body, trip

SAMPLES = Path(settings.BASE_DIR).parent / "shared" / "data" / "mds"
HOUR = datetime(2020, 2, 11, 15, tzinfo=UTC)
AWAY = ...


@pytest.fixture
def read(tmp_path):
    """(rows, what was refused, the reader) of one page or of several; each page is bytes, or a trip of `version`."""

    def make(*pages, version="0.4", vehicles=None, about=None, **terms):
        terms = {"version": version, "starts_at": HOUR, "ends_at": HOUR + timedelta(hours=1), **terms}
        reader, rows, refused = TripReader(Terms(**terms), vehicles), [], []
        for number, held in enumerate(pages):
            source, target = tmp_path / f"page{number}.json", tmp_path / f"page{number}.csv"
            source.write_bytes(held if isinstance(held, bytes) else body(version, held))
            refused += reader.convert(source, target, about or {})
            with target.open(encoding="utf-8", newline="") as file:
                rows += csv.DictReader(file)
        tally = reader.tally
        assert tally.rows_in == tally.rows_out + tally.rejected + tally.duplicates + tally.elsewhere
        assert (tally.rows_out, tally.rejected) == (len(rows), len(refused))
        assert reader.report()["trips"] == tally.rows_in
        return rows, refused, reader

    return make


def numbered(version: str, number: int, **changes):
    return trip(version, trip_id=f"b3ca5c86-7f45-4544-bf58-{number:012x}", **changes)


# what a trip becomes


@pytest.mark.parametrize("version", VERSIONS)
def test_a_trip_of_every_version_becomes_the_same_internal_trip(read, version):
    known = {DEVICE: ("VID120SF", "scooter", "electric,human")}
    [row], refused, reader = read(trip(version), version=version, vehicles=known, operator="sample_co")
    assert not refused and reader.report()["misfits"] == [] and reader.report()["fit"] == 1 and not reader.tally.flags
    later = version >= "0.3"
    assert row == {
        "provider_id": OPERATOR,
        "provider_name": "sample_co",
        "trip_id": TRIP,
        "device_id": DEVICE,
        "vehicle_id": "VID120SF",
        "vehicle_type": "scooter",
        "propulsion": "electric,human",
        "start_time": "2020-02-11T14:52:28Z",
        "end_time": "2020-02-11T15:08:25Z",
        "start_lon": str(START[0]),
        "start_lat": str(START[1]),
        "end_lon": str(END[0]),
        "end_lat": str(END[1]),
        "duration_s": "957",
        "distance_m": "1879",
        "accuracy_m": "4.5" if version >= "2" else "5",
        "cost_standard": "330",
        "cost_actual": "310",
        "currency": "USD" if version >= "0.4" else "",
        "published_at": "2020-02-11T15:08:25Z" if later else "",
        "parking": "corral" if version >= "2" else "",
        "trip_type": "rider" if version >= "2" else "",
    }


@pytest.mark.parametrize(
    ("told", "instant"),
    [(1581433705000, "2020-02-11T15:08:25Z"), (1529968782.421409, "2018-06-25T23:19:42Z"), (1632842501000, "2021-09-28T15:21:41Z")],
)
def test_times_are_understood_in_seconds_and_in_milliseconds_and_written_in_utc(read, told, instant):
    for version in ("0.2", "1.2"):
        [row], *_ = read(trip(version, end_time=told), version=version, starts_at=None)
        assert row["end_time"] == instant


def test_around_the_cut_between_seconds_and_milliseconds(read):
    for told, year in ((4_100_264_519, "2099"), (4_100_264_520, "1970"), (253_402_300_799_999, "9999")):
        [row], *_ = read(trip("0.4", end_time=told), starts_at=None)
        assert row["end_time"][:4] == year
    for told in (-1, 253_402_300_800_000, 1e300):
        rows, [one], _ = read(trip("0.4", end_time=told), starts_at=None)
        assert not rows and one.reason == "end_time is no time between the years 1970 and 9999"


@pytest.mark.parametrize("name", ["valid", "valid_long", "valid_short", "not_valid"])
@pytest.mark.parametrize("version", ["0.2", "0.3", "0.4"])
def test_the_verdicts_on_the_four_samples_are_upstreams(read, name, version):
    path = SAMPLES / f"trip_sample_data_{name}.json"
    if not path.exists():
        pytest.skip("the samples are not at hand")
    sample = json.loads(path.read_text())
    rows, refused, _ = read(sample, version=version)
    if name != "not_valid":
        assert len(rows) == 1 and rows[0]["parking"] == sample.get("parking_verification_url", "")
    else:
        assert [one.reason for one in refused] == ["provider_name is missing, propulsion_type is missing"]
        assert refused[0].raw == sample and refused[0].column == "provider_name"
        assert refused[0].key == f"{sample['provider_id']} · {sample['trip_id']}"


#: field, value, what it becomes (None: the trip is refused), what is said of it
MUTATIONS = [
    # valid for upstream: no range, sign or form is asked
    ("trip_distance", -1, {"distance_m": "-1"}, ""),
    ("trip_distance", 10**9, {"distance_m": "1000000000"}, ""),
    ("trip_duration", 0, {"duration_s": "0"}, ""),
    ("trip_duration", 956.5, {"duration_s": "956.5"}, "is not a whole number"),
    ("trip_id", "7", {"trip_id": "7"}, "is not a UUID in small letters"),
    ("vehicle_type", "rocket", {"vehicle_type": "rocket"}, "is not one of this version's vehicle types"),
    ("standard_cost", None, {"cost_standard": ""}, ""),
    ("standard_cost", AWAY, {"cost_standard": ""}, ""),
    ("currency", None, {"currency": ""}, ""),
    ("provider_name", 'Ann\'s "best", Inc.', {"provider_name": 'Ann\'s "best", Inc.'}, ""),
    ("provider_name", "two\r\nlines\r", {"provider_name": "two\r\nlines\r"}, ""),
    # invalid for upstream, and there is one way to understand it
    ("trip_distance", "12", {"distance_m": "12"}, "is a number written as a text"),
    ("end_time", str(ENDED * 1000), {"end_time": "2020-02-11T15:08:25Z"}, "is a number written as a text"),
    ("accuracy", None, {"accuracy_m": ""}, "is null"),
    ("vehicle_id", 120, {"vehicle_id": "120"}, "is a number where a text is due"),
    ("colour", "red", {}, "is a key that this version does not have"),
    ("propulsion_type", "human", {"propulsion": "human"}, "is a text where a list is due"),
    ("propulsion_type", [], {"propulsion": ""}, "is not a list of this version's propulsion types"),
    ("publication_time", None, {"published_at": ""}, "is null, and is left out"),
    ("publication_time", "soon", {"published_at": ""}, "is not a number, and is left out"),
    ("currency", ["USD"], {"currency": ""}, "is not a text, and is left out"),
    # nothing can be made of it
    ("trip_id", AWAY, None, "is missing"),
    ("trip_id", None, None, "is null"),
    ("trip_id", "", None, "is empty"),
    ("trip_id", 5, None, "is a whole number, and the provider has no rule for such ids"),
    ("device_id", True, None, "is not a text"),
    ("provider_id", 5, None, "is not a text"),
    ("provider_name", AWAY, None, "is missing"),
    ("vehicle_id", None, None, "is null"),
    ("vehicle_type", ["scooter"], None, "is not a text"),
    ("propulsion_type", [1], None, "is not a list of texts"),
    ("trip_duration", "long", None, "is not a number"),
    ("trip_duration", True, None, "is not a number"),
    ("trip_distance", AWAY, None, "is missing"),
    ("accuracy", AWAY, None, "is missing"),
    ("start_time", "2020-02-11T15:08:25Z", None, "is not a number"),
    ("end_time", None, None, "is null"),
    ("route", AWAY, None, "is missing"),
    ("route", None, None, "is null"),
    ("route", {}, None, "has no points"),
    ("route", [], None, "is not a route"),
]


@pytest.mark.parametrize(("field", "value", "becomes", "said"), MUTATIONS, ids=lambda value: str(value)[:40])
def test_each_mutation_is_taken_or_refused_and_told(read, field, value, becomes, said):
    sent = trip("0.4", **{field: value})
    rows, refused, reader = read(sent)
    if becomes is None:
        assert [one.reason for one in refused] == [f"{field} {said}"] and not rows
        assert (refused[0].column, refused[0].number, refused[0].raw) == (field, 1, sent)
    else:
        assert becomes.items() <= rows[0].items() and not refused
        assert dict(reader.tally.warnings) == ({f"{field} {said}": 1} if said else {})
    told = [(one["field"], one["what"], one["trips"], one["refused"], one["first"]) for one in reader.report()["misfits"]]
    assert told == ([(field, said, 1, int(becomes is None), "page0.json trip 1")] if said else [])


def route(*coordinates):
    return {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "Point", "coordinates": one}} for one in coordinates]}


@pytest.mark.parametrize("held", [AWAY, None, {}, route(), route([], []), {"features": [{}]}], ids=str)
def test_only_0_2_may_come_without_points(read, held):
    [row], refused, reader = read(trip("0.2", route=held), version="0.2")
    assert [row[name] for name in ("start_lon", "start_lat", "end_lon", "end_lat")] == [""] * 4 and not refused
    assert reader.tally.flags == {"no-coordinates": 1}
    for version in ("0.3", "1.2"):
        rows, [one], _ = read(trip(version, route=held), version=version)
        assert one.column == "route" and not rows


def test_the_ends_of_a_route_are_its_first_and_last_points_whatever_lies_between(read):
    [row], _, reader = read(trip("0.4", route=route([-97.1, 30.1], None, ["-97.3", "30.3"])))
    assert [row[name] for name in ("start_lon", "start_lat", "end_lon", "end_lat")] == ["-97.1", "30.1", "-97.3", "30.3"]
    assert list(reader.tally.warnings) == ["route has a point without type, geometry or timestamp"]
    whole = trip("0.4")["route"]["features"]
    [row], _, reader = read(trip("0.4", route={"type": "FeatureCollection", "features": [whole[0], whole[0], whole[1]]}))
    assert [row["start_lon"], row["end_lon"]] == [str(START[0]), str(END[0])] and reader.report()["fit"] == 1
    [row], *_ = read(trip("0.2", route=route([-97.1, 30.1], [])), version="0.2")
    assert [row[name] for name in ("start_lon", "end_lon")] == ["-97.1", ""]


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_2_x_takes_vehicles_names_and_trip_types_from_where_they_stand(read, version):
    pages = [trip(version, trip_type="maintenance", parking_verification_url="https://x/y.jpg", start_location={"lat": 30.2, "lng": -97.7})]
    [row], _, reader = read(*pages, version=version, operator="Redwing", operators={OPERATOR: "Redwing Inc."})
    assert (row["provider_name"], row["vehicle_type"], row["trip_type"], row["accuracy_m"]) == ("Redwing Inc.", "", "maintenance", "")
    assert row["parking"] == "corral https://x/y.jpg"
    assert reader.tally.flags == {"not-a-rider": 1}
    assert list(reader.tally.warnings) == ["device_id is of no vehicle that /vehicles told us"]
    for change in ({"start_location": None}, {"end_location": {"lat": 1}}, {"distance": AWAY}, {"trip_type": {"a": 1}}):
        rows, refused, _ = read(trip(version, **change), version=version)
        assert len(refused) == 1 or (not rows[0]["trip_type"] and "trip_type" in change)


def test_vehicles_are_read_from_lists_of_each_form_and_singly(tmp_path):
    vehicle = {"device_id": "a", "vehicle_id": 7, "vehicle_type": "bicycle", "propulsion_types": ["human", "electric_assist"]}
    pages = [
        {"version": "2.0.0", "vehicles": [vehicle, {"device_id": "b"}, 5, {"vehicle_id": "x"}]},
        {"version": "1.2.0", "data": {"vehicles": [{"device_id": "c", "propulsion_types": "human"}]}},
        {"version": "2.0.0", "device_id": "d", "vehicle_type": "moped"},
    ]
    for number, held in enumerate(pages):
        (tmp_path / f"{number}.json").write_text(json.dumps(held))
    assert read_vehicles(sorted(tmp_path.iterdir())) == {
        "a": ("7", "bicycle", "human,electric_assist"),
        "b": ("", "", ""),
        "c": ("", "", "human"),
        "d": ("", "moped", ""),
    }
    for wrong in (b"{", b"[]", b'{"vehicles": {}}'):
        (tmp_path / "0.json").write_bytes(wrong)
        with pytest.raises(DataError, match=r"0\.json is not"):
            read_vehicles([tmp_path / "0.json"])


def test_ids_that_are_numbers_become_uuids_by_the_providers_rule_alone(read):
    sent = [trip("0.2", trip_id=number, device_id=104865, vehicle_id=12) for number in (1, 0, -1)]
    rows, [one], reader = read(body("0.2", *sent), version="0.2", integer_ids=True)
    assert [(row["trip_id"][-13:], row["device_id"][-13:]) for row in rows] == [
        ("-fffffffffff1", "-fffffff199a1"),
        ("-fffffffffff0", "-fffffff199a1"),
    ]
    assert one.reason == "trip_id is a whole number that no UUID can hold" and one.raw["trip_id"] == -1
    assert read(body("0.2", *sent), version="0.2")[2].tally.rejected == 3


# whose hour


def test_what_ended_outside_the_hour_is_refused_and_the_hour_is_half_open(read):
    first = int(HOUR.timestamp())
    sent = [numbered("0.4", n, end_time=at * 1000 + 999) for n, at in enumerate((first - 1, first, first + 3599, first + 3600))]
    rows, refused, reader = read(body("0.4", *sent))
    assert [row["end_time"] for row in rows] == ["2020-02-11T15:00:00Z", "2020-02-11T15:59:59Z"]
    assert [(one.number, one.reason, one.column) for one in refused] == [(n, "end_time is outside the hour", "end_time") for n in (1, 4)]
    assert reader.tally.flags["outside-hour"] == 2


def test_a_wider_question_brings_trips_of_other_hours_which_are_no_news(read):
    first = int(HOUR.timestamp())
    times = (first - 7 * 3600, first - 6 * 3600, first - 1, first, first + 3600, first + 3601)
    sent = [numbered("0.2", n, end_time=at + 0.5) for n, at in enumerate(times)]
    # what is wrong with a trip of another hour is told there
    sent[2]["trip_duration"] = "long"
    rows, refused, reader = read(body("0.2", *sent), version="0.2", overlap_hours=6, about={"overlaps": True})
    assert (len(rows), [one.number for one in refused], reader.tally.elsewhere) == (1, [1, 6], 3)
    assert reader.tally.flags["outside-hour"] == 2 and reader.report()["misfits"][0]["trips"] == 2


# the same trip again


def test_a_trip_that_comes_twice_is_counted_once_also_across_pages(read):
    one, two = numbered("0.4", 1), numbered("0.4", 2)
    rows, refused, reader = read(body("0.4", one, two, one), body("0.4", two))
    assert (len(rows), reader.tally.duplicates, reader.tally.flags["duplicate-id"]) == (2, 2, 2)
    # another operator's trip of that id is another trip
    rows, *_ = read(body("0.4", one, {**one, "provider_id": DEVICE}))
    assert len(rows) == 2


def test_of_two_copies_the_one_published_later_goes_on_and_without_a_date_nobody_knows(read):
    one = trip("0.4", publication_time=ENDED * 1000)
    later, earlier = one | {"trip_distance": 5, "publication_time": (ENDED + 60) * 1000}, one | {"publication_time": BEGAN * 1000}
    rows, refused, reader = read(body("0.4", one, later, earlier, one))
    assert [row["distance_m"] for row in rows] == ["1879", "5"] and not refused
    assert (reader.tally.duplicates, reader.tally.flags["duplicate-id"]) == (2, 3)
    rows, refused, _ = read(body("0.4", one, one | {"trip_distance": 5}))
    assert [row["distance_m"] for row in rows] == ["1879"]
    assert [one.reason for one in refused] == ["trip_id came before in this hour, with other values"]


# what is odd


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({"trip_distance": 0}, ["zero-distance"]),
        ({"trip_distance": -0.5}, ["negative-distance"]),
        ({"trip_distance": 96_560}, []),
        ({"trip_distance": 96_561}, ["long-distance"]),
        ({"start_time": (ENDED + 1) * 1000}, ["end-before-start"]),
        ({"start_time": ENDED * 1000}, []),
        ({"trip_duration": 59}, ["under-a-minute"]),
        ({"trip_duration": 60}, []),
        ({"trip_duration": 86_400}, ["a-day-or-longer"]),
        ({"route": route([30.2, -97.7], [30.25, -97.75])}, ["swapped-coordinates"]),
        ({"route": route(START, [30.25, -97.75])}, ["swapped-coordinates"]),
        ({"route": route([200, 300], END)}, []),
    ],
)
def test_flags_count_what_is_odd_about_a_trip(read, change, flags):
    _, _, reader = read(trip("0.4", **change))
    assert sorted(reader.tally.flags) == flags


def test_swapped_coordinates_are_told_by_the_citys_extent_where_both_are_on_the_globe(read):
    swapped = trip("0.4", route=route([40.44, -79.99], [40.45, -79.98]))
    assert not read(swapped)[2].tally.flags
    pittsburgh = (-80.1, 40.3, -79.8, 40.6)
    assert read(swapped, extent=pittsburgh)[2].tally.flags == {"swapped-coordinates": 1}
    # a trip somewhere else is not swapped for that
    assert not read(trip("0.4"), extent=pittsburgh)[2].tally.flags


# pages


def test_an_empty_page_is_a_file_with_nothing_but_its_header(read, tmp_path):
    for version in VERSIONS:
        rows, refused, _ = read(body(version), version=version)
        assert rows == refused == []
        assert (tmp_path / "page0.csv").read_bytes().decode() == ",".join(name for name, _ in TRIP_COLUMNS) + "\n"


@pytest.mark.parametrize(
    "bad",
    [b'{"trip_id": NaN}', b'{"a": "\xff\xfe"}', b'{"a": "\\ud800"}', b'{"a": 1e999}', b"5", b"null", b'"\\u0000"', b"[" * 50 + b"]" * 50],
)
def test_one_trip_that_nobody_can_read_does_not_hide_the_others(read, bad):
    good = json.dumps(trip("0.4")).encode()
    rows, refused, reader = read(b'{"version": "0.4.1", "data": {"trips": [' + bad + b", " + good + b"]}}")
    assert [row["trip_id"] for row in rows] == [TRIP]
    assert [one.number for one in refused] == [1] and refused[0].raw and refused[0].reason


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
def test_a_character_that_is_no_text_is_refused_before_a_table_can_choke_on_it(read, bad):
    rows, [one], _ = read(body("0.4", trip("0.4", vehicle_id=f"V{bad}1"), numbered("0.4", 2)))
    assert len(rows) == 1
    assert (one.column, one.reason) == ("vehicle_id", "vehicle_id holds a character that is no text")


@pytest.mark.parametrize(
    "wrong", [b"", b"{", b"<html>", b"[]", b"5", b'{"error": "no"}', b'{"data": []}', b'{"data": {"trips": {}}}', b'{"trips": null}']
)
def test_what_is_no_page_of_trips_is_refused_as_a_whole(read, wrong):
    with pytest.raises(DataError, match=r"page0\.json is not"):
        read(wrong)


def test_a_page_is_judged_by_the_version_asked_for_if_it_has_its_form(read):
    # Veoride's always said 1.0, and wrote 0.2
    veoride = body("0.2", trip("0.2", route=AWAY)).replace(b'"0.2.1"', b'"1.0"')
    rows, _, reader = read(veoride, version="0.2")
    assert len(rows) == 1 and reader.report()["versions"] == ["0.2"] and reader.report()["said"] == {"1.0": 1}
    assert "(page) says version '1.0'" in reader.tally.warnings
    # an operator that went on to 2.0 before its settings did
    rows, _, reader = read(body("2.0", trip("2.0")), version="1.2")
    assert len(rows) == 1 and reader.report()["versions"] == ["2.0"]
    # an operator that writes as another version does
    rows, _, reader = read(body("1.2", trip("0.4")), version="1.2")
    assert rows[0]["propulsion"] == "electric,human" and "propulsion_types is called propulsion_type" in reader.tally.warnings
    with pytest.raises(DataError, match="says version '9'"):
        read(body("1.2", trip("1.2")).replace(b'"1.2.0"', b'"9"'), version="2.0")


def test_what_stands_around_the_trips_is_reported_too(read):
    links = {"next": None}
    assert read(body("0.3", trip("0.3"), links=links), version="0.3")[2].report()["misfits"] == []
    _, _, reader = read(body("0.4", trip("0.4"), links=links, extra=1), version="0.4")
    assert {one["what"] for one in reader.report()["misfits"]} == {
        "has links, which this version forbids",
        "has a key 'extra' that this version does not have",
    }


def test_the_report_does_not_grow_with_the_names_of_others(read):
    sent = [numbered("0.4", n, **{f"key{n}": 1}) for n in range(300)]
    _, _, reader = read(body("0.4", *sent))
    misfits = reader.report()["misfits"]
    assert len(misfits) <= 201 and sum(one["trips"] for one in misfits) == 300


def test_the_same_page_gives_the_same_bytes(read, tmp_path):
    sent = [numbered(version, n) for n, version in enumerate(ROUTED)]
    made = []
    for _ in range(2):
        read(body("0.4", *sent))
        made.append((tmp_path / "page0.csv").read_bytes())
    assert made[0] == made[1]


def test_memory_is_the_page_and_the_ids_however_many_trips_it_has(read, tmp_path):
    """Decoded, a page would take ten times its bytes."""
    chance = random.Random(4)
    sent = [numbered("0.4", n, vehicle_id=f"V{chance.random()}") for n in range(1500)]
    path, target = tmp_path / "page.json", tmp_path / "page.csv"
    path.write_bytes(body("0.4", *sent))
    size = path.stat().st_size
    del sent
    reader = TripReader(Terms(version="0.4"))
    tracemalloc.start()
    assert list(reader.convert(path, target, {})) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.tally.rows_out == 1500 and peak < 2.5 * size
