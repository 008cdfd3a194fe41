"""The page of trips: what the address asks for, what the tables and charts show of it, and what is said where there is nothing."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.cache import cache
from django.urls import reverse

from pipelines.errors import TransientError
from pipelines.selectors import trips as selectors
from pipelines.selectors.trips import Asked
from pipelines.upkeep import trip_counts
from pipelines.upkeep.trip_counts import Line, Terms
from tests import world
from tests.pipelines.test_trip_report import BOLT, CHICAGO, TRIPS, WHEELS, drop, make, operators
from tests.web import plain_web  # noqa: F401

NOW = datetime(2026, 12, 20, 18, tzinfo=UTC)


@pytest.fixture
def viewer(db, monkeypatch):
    monkeypatch.setattr("pipelines.views.trips.timezone.now", lambda: NOW)
    return world.people()[0]


@pytest.fixture
def city(viewer, settings):
    """Three operators and their trips, in the real warehouse."""
    cache.clear()
    found = operators()
    make(settings.WAREHOUSES["default"], TRIPS, {WHEELS: found["Wheels"].pk, BOLT: found["Bolt"].pk})
    yield found
    drop(settings.WAREHOUSES["default"], "trips")
    cache.clear()


def shown(client, user, status=200, **asked):
    client.force_login(user)
    reply = client.get(reverse("trips"), asked)
    assert reply.status_code == status
    return reply.content.decode()


def lines_of(client, user, **asked):
    client.force_login(user)
    reply = client.get(reverse("trips"), {"format": "csv", **asked})
    assert reply["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))


# what is asked


def test_an_address_without_a_wish_shows_half_a_year_up_to_now():
    asked = Asked.of({}, NOW)
    assert (asked.terms.first, asked.terms.last, asked.problem) == (date(2026, 7, 1), date(2026, 12, 20), "")
    assert asked.terms.valid_only and asked.terms.long_miles == 60 and asked.terms.k == 0


def test_days_months_and_the_other_terms_are_read():
    asked = Asked.of({"from": "2026-10", "to": "2026-10", "zone": "utc", "trips": "all", "long": "15", "k": "10"}, NOW)
    assert asked.terms == Terms(date(2026, 10, 1), date(2026, 10, 31), "UTC", False, 15, 10) and not asked.problem
    assert Asked.of({"month": "2026-02"}, NOW).terms.last == date(2026, 2, 28)
    assert Asked.of({"from": "2020-01-05"}, NOW).terms.first == date(2020, 1, 5)
    assert Asked.of({"to": "2020-01-05"}, NOW).terms.first <= date(2020, 1, 5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"from": "yesterday"}, "“yesterday” is no day"),
        ({"from": "9999-12-31"}, "is no day"),
        ({"to": "0001-01-01"}, "is no day"),
        ({"month": "2026-1x"}, "is no day"),
        ({"from": "2026-10-05", "to": "2026-10-01"}, "the days are swapped"),
        ({"from": "1066-10-14"}, "the span begins there"),
        ({"long": "-3"}, "A long trip is a whole number from 1 to 10,000"),
        ({"k": "9" * 40}, "The smallest count is a whole number"),
    ],
)
def test_a_wish_that_makes_no_sense_is_answered_in_words(given, words):
    asked = Asked.of(given, NOW)
    assert words in asked.problem and asked.terms.first <= asked.terms.last and asked.terms.since < asked.terms.until


# what is shown


def test_the_page_has_the_numbers_and_a_zero_for_who_had_none(client, city, viewer):
    page = shown(client, viewer, **{"from": "2026-10", "to": "2026-12"})
    for words in (
        "Oct 2026",
        "Dec 2026",
        "Wheels",
        "Bolt",
        "Sleepy",
        "18.28",
        "scooter",
        "bicycle",
        "Hours of the week",
        "The same as a table, 81 days",
    ):
        assert words in page, words
    assert 'aria-current="page">Trips</a>' in page, "the rail leads here where there is an MDS pipeline"
    assert page.count('data-chart="') == 1 and page.count('<svg class="chart"') == 2 and "style=" not in page.split("<main")[1]


def test_the_files_agree_with_the_page_and_have_stable_columns(client, city, viewer):
    span = {"from": "2026-10", "to": "2026-12"}
    months = lines_of(client, viewer, **span)
    assert tuple(months[0]) == trip_counts.COLUMNS
    assert [(line["month"], line["provider"], line["total_trips"]) for line in months] == [
        ("10", "Bolt", "0"), ("10", "Wheels", "4"), ("11", "Bolt", "2"), ("11", "Wheels", "2"), ("12", "Bolt", "0"), ("12", "Sleepy", "0"),
        ("12", "Wheels", "1"),
    ]  # fmt: skip
    vehicles = lines_of(client, viewer, what="vehicles", **span)
    assert sum(int(line["total_trips"]) for line in vehicles) == 9 and {line["vehicle_type"] for line in vehicles} == {"", "scooter", "bicycle"}
    days = lines_of(client, viewer, what="days", **span)
    assert len(days) == 2 * 81 and sum(int(line["total_trips"]) for line in days) == 9, "days without a trip are lines too, days to come are not"
    hours = lines_of(client, viewer, what="hours", **span)
    assert len(hours) == 168 and sum(int(line["total_trips"]) for line in hours) == 9


def test_with_k_no_small_count_stands_anywhere(client, city, viewer):
    asked = {"from": "2026-10", "to": "2026-12", "k": "3"}
    page = shown(client, viewer, **asked)
    assert "&lt; 3" in page and "All that are shown" in page
    numbers = [int(line["total_trips"]) for what in ("", "vehicles", "days", "hours") for line in lines_of(client, viewer, what=what, **asked)]
    assert set(numbers) == {-1, 4}


def test_of_many_operators_a_chart_shows_the_largest_and_the_others_together():
    names = [f"p{number}" for number in range(8)]
    months = [date(2026, 10, 1), date(2026, 11, 1)]
    found = selectors._series(months, names, lambda month, name: None if (month.month, name) == (11, "p7") else int(name[1]))
    assert list(found) == ["p0", "p1", "p2", "p3", "4 others"] and found["4 others"] == [22, None]


def test_bars_stand_side_by_side_to_scale_and_a_hidden_one_is_left_out():
    months = [date(2026, 10, 1), date(2026, 11, 1)]
    found = selectors.bars("Trips", months, {"A": [100, 50], "B": [None, 25]})
    heights = {bar.title: bar.height for bar in found.bars}
    assert heights == {"Oct 2026, A: 100": 200, "Nov 2026, A: 50": 100, "Nov 2026, B: 25": 50}
    assert [text for _, text in found.ticks] == ["0", "25", "50", "75", "100"] and [text for _, text in found.labels] == ["Oct 2026", "Nov"]
    _, first, second = found.bars
    assert first.x + first.width < second.x and found.names == [("plot__a", "A"), ("plot__b", "B")]
    assert (
        selectors.bars("Trips", [], {}).bars == []
        and len(selectors.bars("Trips", [date(2020 + n // 12, n % 12 + 1, 1) for n in range(60)], {}).labels) <= 9
    )


def test_a_month_of_several_operators_is_summed_without_what_is_hidden():
    october = date(2026, 10, 1)
    lines = [
        Line(october, "A", trips=30, miles=Decimal(60), length=Decimal(2), minutes=Decimal(10), rows=30),
        Line(october, "B", trips=10, miles=Decimal(40), length=Decimal(4), minutes=Decimal(30), rows=10),
    ]
    [*_, total] = selectors._rows(lines, Terms(october, date(2026, 10, 31), CHICAGO))
    assert total.is_total and [cell.text for cell in total.cells[:4]] == ["40", "100", "2.50", "15.0"]
    [*_, total] = selectors._rows(trip_counts.veiled(lines, 20), Terms(october, date(2026, 10, 31), CHICAGO, k=20))
    assert (total.name, total.cells[0].text) == ("All that are shown", "30")


def test_a_day_alone_under_k_takes_its_smallest_neighbour_along():
    days = [date(2026, 10, 1) + timedelta(days=place) for place in range(3)]
    found = selectors.veiled_days({(days[0], "A"): 4, (days[1], "A"): 40, (days[2], "A"): 30}, 10)
    assert found == {(days[0], "A"): None, (days[1], "A"): 40, (days[2], "A"): None}


# nothing to show


def test_without_mds_the_page_says_so_and_the_rail_does_not_lead_here(client, viewer):
    page = shown(client, viewer)
    assert "No pipeline brings trips" in page and ">Trips</a>" not in page


def test_before_the_first_load_the_page_says_so(client, viewer):
    cache.clear()
    operators()
    page = shown(client, viewer)
    assert "No trips were loaded yet: the table trips is not there." in page and "story--calm" in page


def test_a_span_without_trips_has_its_zeros(client, city, viewer):
    page = shown(client, viewer, **{"from": "2026-12-10", "to": "2026-12-20"})
    assert "No trip began in this span." in page and "Sleepy" in page and 'data-chart="' not in page and '<svg class="chart"' not in page


def test_a_warehouse_that_does_not_answer_is_told_in_words(client, city, viewer, monkeypatch):
    def broken(*args, **more):
        raise TransientError("The warehouse broke off: canceling statement due to statement timeout")

    monkeypatch.setattr("pipelines.warehouse.postgres.measures", broken)
    assert "could not count them: The warehouse broke off" in shown(client, viewer)
    assert "The warehouse broke off" in shown(client, viewer, status=503, format="csv")


def test_a_table_that_does_not_exist_in_any_pipeline_is_refused_in_words(client, city, viewer):
    assert "No MDS pipeline loads a table &#x27;x&lt;y&#x27;" in shown(client, viewer, table="x<y")


def test_whoever_may_not_look_does_not(client, city, viewer):
    assert client.get(reverse("trips")).status_code == 302
    assert client.post(reverse("trips")).status_code in (302, 405)
