"""Made trips: always the same, believable, inside the city, and wrong exactly where it was asked for."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from opendata_ops.sandbox import areas
from opendata_ops.sandbox.mds_trips import ODDITIES, Fleet, as_hour, as_json, hours

HOUR = "2026-06-13T01"  # six in the evening of a Friday


def test_the_same_seed_and_hour_give_the_same_trips_whatever_was_asked_before():
    first, second = Fleet(seed=5), Fleet(seed=5)
    second.trips("2026-06-12T20")
    assert first.trips(HOUR) == second.trips(HOUR) != Fleet(seed=6).trips(HOUR)


def test_trips_end_in_their_hour_and_are_believable():
    trips = Fleet(hourly=300).trips(HOUR)
    begins = as_hour(HOUR).timestamp() * 1000
    assert len(trips) == 300 == len({trip.trip_id for trip in trips}) == len({trip.device.device_id for trip in trips})
    assert all(begins <= trip.end_ms < begins + 3_600_000 for trip in trips)
    assert all(trip.duration_s * 1000 == trip.end_ms - trip.start_ms >= 60_000 for trip in trips)
    assert all(100 < trip.distance_m < 20_000 and trip.distance_m / trip.duration_s < 4.5 for trip in trips)
    assert all(trip.route[0][2] == trip.start_ms and trip.route[-1][2] == trip.end_ms for trip in trips)
    assert all(areas.outline().holds(lon, lat) for trip in trips for lon, lat, _ in trip.route)


def test_no_route_leaves_the_city_where_its_border_is_near(monkeypatch):
    class WestBank:
        def holds(self, lon, lat):
            return lon < -118.25

    monkeypatch.setattr(areas, "outline", WestBank)
    assert all(lon < -118.25 for trip in Fleet(hourly=200).trips(HOUR) for lon, _, _ in trip.route)


@pytest.mark.parametrize(("day", "length"), [(datetime(2026, 3, 8, 8, tzinfo=UTC), 23), (datetime(2026, 11, 1, 7, tzinfo=UTC), 25)])
def test_a_day_follows_the_citys_clock_over_both_changes(day, length):
    fleet = Fleet(daily=2400)
    by_hour = [len(fleet.trips(hour)) for hour in hours(day, day + timedelta(hours=length))]
    local = [hour.astimezone(fleet.zone).hour for hour in hours(day, day + timedelta(hours=length))]
    assert len(by_hour) == length and local[0] == 0 and local[-1] == 23
    assert [count for hour, count in zip(local, by_hour, strict=True) if hour in (3, 4)] == [0, 0]
    assert by_hour[local.index(17)] > 100 > by_hour[local.index(7)]


@pytest.mark.parametrize("name", ODDITIES)
def test_an_oddity_comes_as_often_as_asked_and_spoils_no_other_trip(name):
    good, odd = Fleet(hourly=30), Fleet(hourly=30, odd_hours={HOUR: {name: 4}})
    trips = odd.trips(HOUR)
    wrong = [trip for trip in trips if trip.oddities == (name,)]
    whole = [trip for trip in trips if not trip.oddities]
    assert len(wrong) == 4 and set(whole) <= set(good.trips(HOUR))
    assert len(trips) == (34 if name in ("duplicate", "corrected") else 30)
    assert odd.trips("2026-06-13T02") == good.trips("2026-06-13T02")
    before = {trip.trip_id: trip for trip in good.trips(HOUR)}
    versions = ("2.0",) if name in ("rebalance", "maintenance") else ("1.2",) if name == "null_vehicle" else ("0.2", "1.2", "2.0")
    for version in versions:
        assert all((as_json(trip, version) == as_json(before[trip.trip_id], version)) is (name == "duplicate") for trip in wrong)


def test_a_trip_is_odd_in_one_way_only():
    trips = Fleet(hourly=30, odd_hours={HOUR: {"swapped": 15, "zero_distance": 15}}).trips(HOUR)
    assert Counter(trip.oddities for trip in trips) == {("swapped",): 15, ("zero_distance",): 15}


def test_rates_hold_over_many_hours():
    fleet = Fleet(hourly=100, odd={"swapped": 0.05, "duplicate": 0.02})
    found = Counter(
        word for hour in hours(as_hour(HOUR), as_hour(HOUR) + timedelta(hours=20)) for trip in fleet.trips(hour) for word in trip.oddities
    )
    assert 70 < found["swapped"] < 130 and 20 < found["duplicate"] < 60


def test_integer_ids_are_integers_and_never_the_same_twice():
    fleet = Fleet("VeoRide INC.", hourly=5, integer_ids=True)
    trips = [trip for hour in hours(as_hour(HOUR), as_hour(HOUR) + timedelta(hours=30)) for trip in fleet.trips(hour)]
    assert len({trip.trip_id for trip in trips}) == 150
    assert {type(trip.trip_id) for trip in trips} == {type(trip.device.device_id) for trip in trips} == {int}


def test_wishes_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="no oddity is called late"):
        Fleet(odd={"late": 0.1})
    with pytest.raises(ValueError, match="too few"):
        Fleet(hourly=2, odd_hours={HOUR: {"swapped": 3}}).trips(HOUR)
    with pytest.raises(ValueError, match="no zone"):
        as_hour(datetime(2026, 1, 1))
