"""Time: windows tile it without a gap or an overlap, in every zone, and local times mean what people mean."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import clock

ZONES = ["America/Chicago", "America/Los_Angeles", "Australia/Lord_Howe"]
#: with half-hour offsets, changes at midnight, a day that never was, and no changes at all
ODD_ZONES = [
    *ZONES, "UTC", "Asia/Kathmandu", "Asia/Beirut", "Africa/Cairo", "America/Havana", "America/Santiago", "America/Sao_Paulo", "Pacific/Apia",
]  # fmt: skip
CADENCES = ["hourly", "daily", "weekly", "monthly", "20 7 * * 4", "5 4-14 * * *", "0 */6 * * *", "30 1 * * *", "30 2 1 * *"]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [2020, 2026])
def test_a_year_has_each_of_its_utc_hours_exactly_once(zone, year):
    since, until = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    hours = list(clock.windows("hourly", zone, since, until))
    assert [start for start, _ in hours] == [since + n * HOUR for n in range((366 if year == 2020 else 365) * 24)]
    assert all(end - start == HOUR for start, end in hours)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/Chicago", date(2026, 3, 8), 23),
        ("America/Chicago", date(2026, 11, 1), 25),
        ("America/Los_Angeles", date(2020, 3, 8), 23),
        ("America/Los_Angeles", date(2020, 11, 1), 25),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ("America/Chicago", date(2026, 7, 4), 24),
    ],
)
def test_a_local_day_is_as_long_as_its_clock_says(zone, day, hours):
    [window] = clock.windows("daily", zone, clock.day_start(day, zone), clock.day_start(day + DAY, zone))
    assert window[1] - window[0] == hours * HOUR


moments = st.datetimes(min_value=datetime(2005, 1, 2), max_value=datetime(2035, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(cadence=st.sampled_from(CADENCES), zone=st.sampled_from(ODD_ZONES), since=moments, hours=st.integers(1, 24 * 70))
@settings(max_examples=300, deadline=None)
def test_windows_tile_time_without_a_gap_or_an_overlap(cadence, zone, since, hours):
    until = since + hours * HOUR
    tiles = list(clock.windows(cadence, zone, since, until))
    assert tiles[0][0] <= since < tiles[0][1]
    assert tiles[-1][0] < until <= tiles[-1][1]
    assert all(start < end for start, end in tiles)
    assert all(one[1] == other[0] for one, other in pairwise(tiles))


@given(cadence=st.sampled_from(CADENCES), zone=st.sampled_from(ODD_ZONES), moment=moments)
@settings(max_examples=200, deadline=None)
def test_the_window_of_a_moment_does_not_depend_on_where_one_begins_to_count(cadence, zone, moment):
    window = clock.window_at(cadence, zone, moment)
    assert window[0] <= moment < window[1]
    assert window in list(clock.windows(cadence, zone, moment - 40 * DAY, moment + 40 * DAY))


@given(zone=st.sampled_from(ODD_ZONES), day=st.dates(date(2005, 1, 2), date(2035, 1, 1)), minute=st.integers(0, 24 * 60 - 1))
@settings(max_examples=400, deadline=None)
def test_a_local_time_is_kept_to_the_minute_where_it_exists_and_else_the_first_that_does(zone, day, minute):
    at = time(minute // 60, minute % 60)
    local = clock.local_instant(day, at, zone).astimezone(clock.zone(zone)).replace(tzinfo=None)
    wanted = datetime.combine(day, at)
    assert local >= wanted
    if local > wanted:
        # skipped: a minute earlier the clock still stood before the wish
        earlier = (clock.local_instant(day, at, zone) - timedelta(minutes=1)).astimezone(clock.zone(zone)).replace(tzinfo=None)
        assert earlier < wanted


def test_a_time_that_the_clock_skips_is_taken_at_the_next_valid_minute():
    assert clock.local_instant(date(2026, 3, 8), time(2, 30), "America/Chicago") == datetime(2026, 3, 8, 8, tzinfo=UTC)  # 03:00 there
    assert clock.local_instant(date(2026, 10, 4), time(2, 15), "Australia/Lord_Howe") == datetime(2026, 10, 3, 15, 30, tzinfo=UTC)


def test_a_time_that_comes_twice_is_taken_once_and_first():
    assert clock.local_instant(date(2026, 11, 1), time(1, 30), "America/Chicago") == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)


def test_a_day_that_a_zone_skipped_has_no_window():
    days = list(clock.windows("daily", "Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 2, tzinfo=UTC)))
    assert all(start < end for start, end in days)
    assert [start.astimezone(clock.zone("Pacific/Apia")).day for start, _ in days] == [27, 28, 29, 31, 1, 2]


def test_weeks_begin_on_monday_and_months_on_their_first():
    since, until = datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 4, 15, tzinfo=UTC)
    local = [start.astimezone(clock.zone("America/Chicago")) for start, _ in clock.windows("weekly", "America/Chicago", since, until)]
    assert {(start.weekday(), start.hour) for start in local} == {(0, 0)}
    months = [start.astimezone(clock.zone("America/Chicago")) for start, _ in clock.windows("monthly", "America/Chicago", since, until)]
    assert [(start.month, start.day, start.hour) for start in months] == [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0)]


@pytest.mark.parametrize(
    ("start", "hours", "words"),
    [
        (datetime(2026, 11, 20, 23, tzinfo=UTC), 1, "Fri Nov 20 2026, 17:00 to 18:00"),
        (datetime(2026, 11, 20, 6, tzinfo=UTC), 24, "Fri Nov 20 2026"),
        (datetime(2026, 11, 2, 6, tzinfo=UTC), 7 * 24, "Mon Nov 2 to Sun Nov 8 2026"),
        (datetime(2026, 7, 1, 5, tzinfo=UTC), 31 * 24, "Jul 2026"),
        (datetime(2026, 11, 1, 6, tzinfo=UTC), 1, "Sun Nov 1 2026, 01:00 to 01:00"),
        (datetime(2026, 11, 1, 7, tzinfo=UTC), 1, "Sun Nov 1 2026, 01:00 (second) to 02:00"),
        (datetime(2026, 11, 16, 9, 30, tzinfo=UTC), 7 * 24, "Mon Nov 16 2026, 03:30 to Mon Nov 23, 03:30"),
        (datetime(2026, 12, 31, 9, 30, tzinfo=UTC), 24, "Thu Dec 31 2026, 03:30 to Fri Jan 1 2027, 03:30"),
    ],
)
def test_a_window_is_told_in_its_own_zone(start, hours, words):
    assert clock.window_text(start, start + hours * HOUR, "America/Chicago") == words


@pytest.mark.parametrize("name", ["", "Chicago", "America", "../etc/passwd", "America/Chicago\x00", "/etc/localtime", "x" * 300])
def test_a_zone_that_does_not_exist_is_refused_by_name(name):
    with pytest.raises(ValidationError, match="is not a time zone"):
        clock.validate_zone(name)


def test_a_cron_expression_is_told_in_words_and_one_that_never_comes_is_refused():
    assert clock.cron_words("20 7 * * 4") == "At 07:20 on Thursday"
    assert clock.cron_words("at noon") == "at noon"
    for wrong in ("20 7 * *", "61 * * * *", "0 0 31 2 *", "", "@once"):
        with pytest.raises(ValidationError, match="minute, hour, day, month and weekday"):
            clock.validate_cron(wrong)


def test_a_cron_time_that_the_clock_skips_comes_and_one_that_it_repeats_comes_once():
    spring = list(islice(clock.cron_times("30 2 * * *", "America/Toronto", datetime(2026, 3, 7, 5, tzinfo=UTC)), 3))
    assert [str(moment.astimezone(clock.zone("America/Toronto")))[:16] for moment in spring] == [
        "2026-03-07 02:30",
        "2026-03-08 03:00",
        "2026-03-09 02:30",
    ]
    autumn = list(islice(clock.cron_times("30 1 * * *", "America/Toronto", datetime(2026, 10, 31, 4, tzinfo=UTC)), 3))
    assert len({moment.astimezone(clock.zone("America/Toronto")).date() for moment in autumn}) == 3
