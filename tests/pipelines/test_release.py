"""Release: each rule makes what the facts say, nothing private passes the guard, and what is wrong is said in words. No database here."""

from datetime import datetime

import pytest

from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline
from pipelines.stages.release import ATD_PRIVATE, ATD_TRIPS, PARTS, compiled, problems, public_key, rounded

TYPES = {
    "provider_id": "text", "provider_name": "text", "trip_id": "text", "device_id": "text", "vehicle_id": "text", "vehicle_type": "text",
    "propulsion": "text", "start_time": "instant", "end_time": "instant", "start_lon": "number", "start_lat": "number", "end_lon": "number",
    "end_lat": "number", "duration_s": "number", "distance_m": "number", "trip_type": "text", "council_district_start": "text",
    "council_district_end": "text", "census_geoid_start": "text", "census_geoid_end": "text", "_odo_loaded_at": "instant",
}  # fmt: skip
TRIP = {
    "provider_id": "63f13c48-34ff-49d2-aca7-cf6a5b6171c3", "trip_id": "t-1", "device_id": "d-1", "vehicle_type": "scooter",
    "duration_s": "2184", "distance_m": "4254.48", "start_time": "2021-11-02T00:50:11.000Z", "end_time": "2021-11-02T01:17:29.500Z",
    "_odo_loaded_at": "2021-11-03T03:16:12.418Z", "council_district_start": "9", "council_district_end": None,
    "census_geoid_start": "48453001100", "census_geoid_end": "None", "start_lon": "-97.742803", "trip_type": None,
}  # fmt: skip
KEY = ["provider_id", "trip_id"]


def trips(**more) -> Pipeline:
    return Pipeline(**{"key": KEY, "release": ATD_TRIPS, "private_columns": ATD_PRIVATE, **more})


def made(*entries, row=TRIP, secret="s", key=KEY):
    return compiled(list(entries), TYPES, key=key, secret=secret).row(row)


def test_austins_columns_come_out_exactly_as_austin_publishes_them():
    release = compiled(ATD_TRIPS, TYPES, key=KEY, secret="s")
    row = release.row(TRIP)
    assert list(row) == [
        "trip_id", "device_id", "vehicle_type", "trip_duration", "trip_distance", "start_time", "end_time", "modified_date",
        "start_time_us_central", "end_time_us_central", "year", "month", "hour", "day_of_week", "council_district_start",
        "council_district_end", "census_geoid_start", "census_geoid_end",
    ]  # fmt: skip
    # the real public row of facts §3.6: 12:45 AM to 1:15 AM in UTC is 7:45 to 8:15 PM of the day before, a Tuesday's hour 1
    assert {name: row[name] for name in row if name not in ("trip_id", "device_id")} == {
        "vehicle_type": "scooter", "trip_duration": "2184", "trip_distance": "4254.48",
        "start_time": "2021-11-02T00:45:00", "end_time": "2021-11-02T01:15:00", "modified_date": "2021-11-03T03:16:12",
        "start_time_us_central": "2021-11-01T19:45:00", "end_time_us_central": "2021-11-01T20:15:00",
        "year": "2021", "month": "11", "hour": "1", "day_of_week": "1",
        "council_district_start": "9", "council_district_end": "0", "census_geoid_start": "48453001100", "census_geoid_end": "0",
    }  # fmt: skip
    assert release.key == ("trip_id",) and problems(trips()) == [] and public_key(trips()) == ("trip_id",)


@pytest.mark.parametrize(
    ("at", "becomes"),
    [
        ("1:13", "1:15"), ("1:31", "1:30"), ("1:49", "1:45"), ("1:59", "2:00"), ("1:52", "1:45"), ("1:52:29", "1:45"),
        ("1:52:30", "2:00"), ("1:53", "2:00"), ("1:00:30", "1:00"), ("23:55", "0:00 of the next day"), ("1:52:29.999999", "1:45"),
    ],
)  # fmt: skip
def test_a_time_goes_to_the_nearest_quarter_of_an_hour(at, becomes):
    hour, minute, *second = at.split(":")
    seconds, _, fraction = (second or ["0"])[0].partition(".")
    when = datetime(2020, 2, 28, int(hour), int(minute), int(seconds), int(fraction or 0))
    there = rounded(when, 15)
    assert f"{there.hour}:{there.minute:02}" + " of the next day" * (there.day != when.day) == becomes


def test_what_upstream_made_of_an_unrounded_time_is_made_here_too():
    end = {"from": "end_time", "type": "local_time"}
    parts = [{"column": part, "from": "end_time", "rule": "part", "part": part, "type": "number"} for part in PARTS]
    row = made(
        {"column": "end_time", **end},
        {"column": "end_time_us_central", **end, "rule": "in_zone", "zone": "US/Central"},
        *parts,
        row={"end_time": "2020-07-05T04:59:59+00:00"},
    )
    assert row == {
        "end_time": "2020-07-05T04:59:59", "end_time_us_central": "2020-07-04T23:59:59",
        "year": "2020", "month": "7", "day": "5", "hour": "4", "day_of_week": "6",
    }  # fmt: skip


def test_a_public_id_tells_nothing_and_stays_the_same_for_one_key():
    entry = {"column": "trip_id", "from": KEY, "rule": "surrogate"}
    device = {"column": "device_id", "from": KEY, "rule": "surrogate"}
    one = made(entry)["trip_id"]
    assert made(entry)["trip_id"] == one and len(one) == 36 and one.count("-") == 4
    others = {
        "another key": made(entry, secret="t"),
        "another trip": made(entry, row={**TRIP, "trip_id": "t-2"}),
        "another provider": made(entry, row={**TRIP, "provider_id": "x"}),
        "cut elsewhere": made(entry, row={**TRIP, "provider_id": TRIP["provider_id"] + "t", "trip_id": "-1"}),
    }
    assert one not in [row["trip_id"] for row in others.values()]
    assert made(device)["device_id"] != one  # a trip and a device of the same number are not told to be one
    assert made({**device, "kind": "trip_id"})["device_id"] == one
    assert made(entry, row=dict.fromkeys(KEY))["trip_id"] is None


def test_coordinates_and_constants_and_nothing():
    lon = {"column": "lon", "from": "start_lon", "rule": "round_decimals", "decimals": 3, "type": "number"}
    assert made(lon) == {"lon": "-97.743"}
    assert made(lon, row={"start_lon": "-97.7425"}) == {"lon": "-97.743"} and made(lon, row={"start_lon": "1E+2"}) == {"lon": "100.000"}
    assert made(lon, row={"start_lon": None}) == {"lon": None}
    assert made({"column": "city", "rule": "constant", "value": "Riverton"}) == {"city": "Riverton"}
    time = {"column": "t", "from": "end_time", "rules": [{"rule": "round_minutes", "minutes": 15}], "type": "instant"}
    assert made(time) == {"t": "2021-11-02T01:15:00.000Z"} and made(time, row={"end_time": None}) == {"t": None}


@pytest.mark.parametrize("column", [name for name in ATD_PRIVATE if name in TYPES])
def test_a_private_column_can_only_leave_hidden(column):
    def words(*rules, **more):
        entry = {"column": "out", "from": column, "rules": list(rules), "type": "text", **more}
        return problems(trips(release=[*ATD_TRIPS, entry]))

    as_is, id_of = {"rule": "as_is"}, {"rule": "surrogate"}
    for open_rules in ([as_is], [{"rule": "in_zone", "zone": "UTC"}], [{"rule": "part", "part": "hour"}], [{"rule": "blank_as", "value": "0"}],
                       [{"rule": "round_minutes", "minutes": 5}], [{"rule": "round_decimals", "decimals": 4}]):  # fmt: skip
        [said] = words(*open_rules)
        assert f"private column {column}:" in said and "out would let out" in said
    quarter = [{"rule": "round_minutes", "minutes": 15}, {"rule": "part", "part": "hour"}]
    for hidden in ([id_of], quarter, [{"rule": "round_decimals", "decimals": 3}]):
        assert words(*hidden) == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("x", "A release is a list of columns"),
        ({"column": "a b", "from": "x"}, "can't be the name"),
        ({"column": "a", "from": "x", "rule": "shuffle"}, "no rule 'shuffle'. There are as_is, surrogate"),
        ({"column": "a", "from": "x", "type": "date"}, "'date' is not one of text, number"),
        ({"column": "a", "from": "x", "rule": "round_minutes", "minutes": 7}, "divides a day"),
        ({"column": "a", "from": "x", "rule": "round_minutes"}, "divides a day"),
        ({"column": "a", "from": "x", "rule": "round_decimals", "decimals": -1}, "0 to 12"),
        ({"column": "a", "from": "x", "rule": "in_zone", "zone": "Texas"}, "'Texas' is not a time zone"),
        ({"column": "a", "from": "x", "rule": "part", "part": "week"}, "one of year, month, day, hour, day_of_week"),
        ({"column": "a", "from": "x", "rule": "blank_as"}, "needs a “value”"),
        ({"column": "a", "rule": "as_is"}, "say “from” which column"),
        ({"column": "a", "from": ["x", "y"], "rule": "as_is"}, "only a surrogate is made of several"),
        ({"column": "a", "from": "x", "rule": "as_is", "rules": []}, "give one “rule”, or several"),
        ({"column": "a", "from": "x", "minute": 15}, "has no 'minute'"),
        ({"column": "a", "from": "x", "rules": [{"rule": "as_is"}, {"rule": "surrogate"}]}, "comes first"),
        ({"column": "vehicle_type", "from": "x"}, "vehicle_type is released twice"),
        ({"only": {"column": "trip_type", "in": "rider"}}, "Which rows are published is said like"),
        ({"only": {"column": "trip_type", "in": ["rider"]}}, "once at most"),
        ({"column": "a", "from": ["trip_id", "device_id"], "rule": "surrogate", "key": True}, "a deletion could not name it"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_in_words(entry, said):
    found = problems(trips(release=[*ATD_TRIPS, entry], private_columns=[]))
    assert len(found) == 1 and said in found[0]


def test_a_release_without_a_key_or_without_an_area_to_blank_is_told():
    no_key = [entry for entry in ATD_TRIPS if entry.get("column") != "trip_id"]
    assert "without it the portal can't tell rows apart" in problems(trips(release=no_key))[0]
    no_area = [entry for entry in ATD_TRIPS if not entry.get("area")]
    assert problems(trips(release=no_area)) == [] and '"area": true' in problems(trips(release=no_area, release_k=10))[0]
    assert problems(Pipeline(key=["id"], release=[], private_columns=[])) == []


def test_a_rule_that_its_column_cannot_obey_is_a_persons_work():
    with pytest.raises(SetupError, match="round_minutes takes instant or local_time, and it gets text") as caught:
        made({"column": "a", "from": "vehicle_type", "rule": "round_minutes", "minutes": 15})
    assert caught.value.code == "release-type"
    with pytest.raises(SetupError, match="council_district_north, which the table does not have"):
        made({"column": "a", "from": "council_district_north"})
    with pytest.raises(DataError) as caught:
        made({"column": "a", "from": "start_lon", "rule": "round_decimals", "decimals": 3}, row={"start_lon": "12 canary"})
    assert "canary" not in str(caught.value)  # an error is read by more people than the value may be
