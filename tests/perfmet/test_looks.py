"""How numbers, shares, hours and spans of days are printed; pure, without a database."""

import math
from datetime import UTC, date, datetime, timedelta

import pytest

from perfmet.models import Health
from perfmet.selectors import looks, spans
from perfmet.selectors.places import Units

FRIDAY, ZONE = date(2026, 11, 20), "America/Chicago"
MIDNIGHT = datetime(2026, 11, 20, 6, tzinfo=UTC)


def test_every_health_has_a_face_a_letter_of_its_own_and_a_rank():
    assert set(looks.FACES) == set(looks.LETTERS) == set(looks.RANKS) == set(looks.ORDER) == set(Health)
    letters = [letter for letter in looks.LETTERS.values() if letter]
    assert len(set(letters)) == len(letters), "two healths look alike on the map of a reader who sees no colours"


def test_a_health_of_a_later_version_needs_a_look_and_breaks_nothing():
    assert looks.face_of("purple") == looks.UNKNOWN and looks.letter_of("purple") == "?" and looks.is_trouble("purple")
    assert not looks.is_trouble(Health.WELL) and not looks.is_trouble(Health.STALE) and looks.is_trouble(Health.SILENT)


@pytest.mark.parametrize(
    ("value", "words"),
    [(18_439, "18,439"), (0, "0"), (0.25, "0.25"), (123.4, "123"), (None, "–"), (math.nan, "–"), (math.inf, "–"), (9.9e17, "9.9e+17"), (-7, "-7")],
)
def test_a_figure_is_whole_where_it_counts_and_a_dash_where_it_is_none(value, words):
    assert looks.figure(value) == words


def test_a_share_is_only_told_of_something_that_was_expected():
    assert looks.percent(looks.share(2_950, 6_414)) == "46 %"
    assert looks.percent(looks.share(5, 1e-9)) == "> 9,999 %"
    assert [looks.percent(looks.share(5, expected)) for expected in (0, None, math.nan, -3)] == ["–"] * 4


def test_who_is_farthest_off_stands_first_whichever_side_and_who_is_well_last():
    days = [
        ("as usual", Health.WELL, 100, 100),
        ("a third", Health.LOW, 33, 100),
        ("four times", Health.HIGH, 400, 100),
        ("twice", Health.HIGH, 210, 100),
        ("nothing", Health.ZERO, 0, 100),
        ("gone, little", Health.SILENT, 0, 100),
        ("gone, much", Health.SILENT, 0, 9_000),
        ("new", Health.NEW, 50, None),
    ]
    names = [name for name, *_ in sorted(days, key=lambda day: looks.worst_first(*day[1:], day[0]))]
    assert names == ["gone, much", "gone, little", "nothing", "four times", "a third", "twice", "new", "as usual"]


def test_a_bar_has_its_mark_in_the_middle_and_says_when_it_goes_on_beyond():
    assert looks.bar(50, 100) == looks.Bar(30)
    assert looks.bar(1_000, 100) == looks.Bar(120, is_beyond=True)
    assert looks.bar(-5, 100).width == 0 and looks.bar(None, 100) == looks.Bar(0, has_mark=False) and looks.bar(7, None).has_mark is False


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (0, 24, "00:00 to 24:00"),
        (0.5, 11.25, "00:30 to 11:15"),
        (-3, 30, "00:00 to 24:00"),
        (20, 4, "04:00 to 20:00"),
        (80, 90, "outside of the day"),
        (None, None, "no data"),
    ],
)
def test_the_hours_are_those_of_the_local_day_and_end_with_it(first, last, words):
    moments = [None if hour is None else MIDNIGHT + timedelta(hours=hour) for hour in (first, last)]
    found = looks.hours(*moments, FRIDAY, ZONE)
    assert found.words == words and 0 <= found.x <= found.x + found.width <= 73


def test_the_day_of_twenty_five_hours_fills_its_strip():
    begins = datetime(2026, 11, 1, 5, tzinfo=UTC)
    found = looks.hours(begins, begins + timedelta(hours=25), date(2026, 11, 1), ZONE)
    assert (found.x, found.width, found.words) == (0, 72, "00:00 to 24:00")


# spans


def test_a_span_is_what_was_asked_for_and_else_the_usual_days_up_to_the_newest():
    assert spans.span_of({}, FRIDAY, 14) == spans.Span(date(2026, 11, 7), FRIDAY)
    assert spans.span_of({"from": "2026-11-01", "to": "2026-11-03"}, FRIDAY, 14).days == [date(2026, 11, day) for day in (1, 2, 3)]
    assert spans.span_of({"from": "2026-12-01"}, FRIDAY, 14) == spans.Span(date(2026, 12, 1), date(2026, 12, 1))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"from": "yesterday"}, "“yesterday” is no day"),
        ({"to": "0001-01-01"}, "too far away"),
        ({"to": "9999-12-31"}, "too far away"),
        ({"from": "2026-11-10", "to": "2026-11-01"}, "the days are swapped"),
        ({"from": "2020-01-01"}, "92 days at most"),
    ],
)
def test_a_span_that_makes_no_sense_is_answered_in_words(given, words):
    span = spans.span_of(given, FRIDAY, 14)
    assert words in span.problem and 0 < len(span.days) <= spans.MOST_DAYS


def test_the_weeks_of_a_span_add_up_to_its_days():
    span = spans.span_of({}, FRIDAY, 14)
    assert span.weeks == [(date(2026, 11, 7), 2), (date(2026, 11, 9), 7), (date(2026, 11, 16), 5)] and span.mondays == {0, 2, 9}


# places


def test_a_sensor_stands_where_the_field_that_the_watch_names_says_and_else_where_any_name_fits():
    units = Units(
        [
            {"device_name": "lamar_6th", "kits_id": 5, "lat": "30.27", "lon": "-97.75", "primary_st": "Lamar", "cross_st": "6th"},
            {"device_name": "5", "kits_id": 9, "lat": 30.3, "lon": -97.7},
            {"device_name": "nowhere", "lat": None, "lon": None},
            {"device_name": "sea", "lat": 0, "lon": 0},
            {"device_name": "words", "lat": "north", "lon": "west"},
            "no record",
        ],
        "kits_id",
    )
    assert units.spot("5").name == "Lamar / 6th", "the watch's own field wins over another record's name"
    assert units.spot("LAMAR_6TH ").lat == 30.27 and units.spot("unknown", "9").lat == 30.3
    assert [units.spot(name) for name in ("nowhere", "sea", "words", "", "ghost")] == [None] * 5
    assert units.has("nowhere") and not units.has("", "ghost")
