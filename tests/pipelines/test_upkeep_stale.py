"""Stale datasets: the day on which a promise breaks, dates of every form and none, the original's line, and our own catalog."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from catalog.models import Dataset, RefreshRate
from pipelines.models import Run, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.portals import Faults
from pipelines.upkeep.stale_datasets import OURS, PERIODS, Promise, told
from tests import world
from tests.pipelines.small_ckan import found, package, portal, well  # noqa: F401  a fixture

KIND = "stale-datasets"
#: The morning on which the original was run: 2020-01-01 is 2517 days ago.
NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)


def promise(days: float, rate: str = "weekly", name: str = "covid-19-cases-in-toronto", email: str = "tph@toronto.ca") -> Promise:
    return Promise(name, email, "", rate, NOW - timedelta(days=days))


@pytest.mark.parametrize("rate", PERIODS)
def test_on_the_day_it_is_due_nothing_is_behind_and_the_next_day_it_is(rate):
    period = PERIODS[rate]
    assert not promise(period, rate).is_behind(NOW)
    assert not promise(period + 0.99, rate).is_behind(NOW)
    assert promise(period + 1, rate).is_behind(NOW)


def test_the_line_of_a_stale_dataset_is_the_originals():
    """Facts 1.6, as the original was run."""
    one = Promise("covid-19-cases-in-toronto", "tph@toronto.ca", "", "weekly", datetime(2020, 1, 1, tzinfo=UTC))
    lines = told([one], [], Faults(), 5, NOW).splitlines()
    assert lines[1] == "1. _covid-19-cases-in-toronto_ (weekly): refreshed `2020-01-01`. Behind *2517 days*. tph@toronto.ca"
    assert f"{one.next:%Y-%m-%d}" == "2020-01-08"


def test_only_the_stalest_are_told_of_and_how_many_there_are():
    behind = [promise(100 - number, name=f"d{number}") for number in range(8)]
    lines = told(behind, [], Faults(), 5, NOW).splitlines()
    assert lines[0] == "*The 5 stalest of 8 datasets behind their refresh rate*" and len(lines) == 6
    assert len(told(behind, [], Faults(), 0, NOW).splitlines()) == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-01T10:20:30.123456", datetime(2020, 1, 1, 10, 20, 30, 123456, tzinfo=UTC)),
        ("2020-01-01 10:20:30", datetime(2020, 1, 1, 10, 20, 30, tzinfo=UTC)),
        ("2020-01-01T10:20:30", datetime(2020, 1, 1, 10, 20, 30, tzinfo=UTC)),
        ("2020-01-01", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01T00:20:30-05:00", datetime(2020, 1, 1, 5, 20, 30, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
def test_a_portals_moment_is_read_in_every_form_that_it_has(text, expected):
    assert portals.moment(text) == expected


def test_every_rate_of_ours_that_promises_something_has_a_period():
    promises_nothing = {RefreshRate.REAL_TIME, RefreshRate.IRREGULAR, RefreshRate.NEVER}
    assert set(OURS) == set(RefreshRate) - promises_nothing and set(OURS.values()) == set(PERIODS)


# on a portal


def ago(days: int) -> str:
    return f"{timezone.now() - timedelta(days=days):%Y-%m-%dT%H:%M:%S.%f}"


@pytest.mark.django_db
def test_what_is_judged_what_is_not_and_what_nobody_knows(portal):  # noqa: F811
    portal.packages = [
        package("weekly-late", refresh_rate="Weekly", last_refreshed=ago(20), owner_email="w@city", owner_division="Parks", is_retired=False),
        package("fortnight", refresh_rate="Bi-weekly", last_refreshed=ago(16)),
        package("no-word-of-retirement", refresh_rate="Daily", last_refreshed=ago(30)),
        package("retired", refresh_rate="Daily", last_refreshed=ago(30), is_retired="True"),
        package("as-available", refresh_rate="As available", last_refreshed=ago(900)),
        package("real-time", refresh_rate="Real-time", last_refreshed=ago(900)),
        package("no-rate", last_refreshed=ago(900)),
        package("no-date", refresh_rate="Daily", last_refreshed=None),
        package("odd-date", refresh_rate="Daily", last_refreshed="last Tuesday"),
        package("in-time", refresh_rate="Monthly", last_refreshed=ago(30)),
    ]
    run = well(KIND, portal="open")
    assert found(run, "dataset", "days since", "days late", "finding") == [
        ("no-word-of-retirement", 30, 29, "behind"),
        ("weekly-late", 20, 13, "behind"),
        ("fortnight", 16, 2, "behind"),
        ("no-date", None, None, "no date"),
        ("odd-date", None, None, run.details["findings"]["rows"][-1][-1]),
    ]
    assert "No date of a refresh: no-date" in run.notice and "odd-date: " in run.notice and run.details["trouble"]
    assert run.message == "3 of 5 datasets that promise a refresh are behind; of 1 nobody knows; 1 could not be read."
    assert found(run, "email", "publisher", "rate")[1] == ("w@city", "Parks", "weekly")


@pytest.mark.django_db
def test_where_nothing_is_behind_that_is_said(portal):  # noqa: F811
    portal.packages = [package("fresh", refresh_rate="Daily", last_refreshed=ago(0))]
    run = well(KIND, portal="open", is_dry=True)
    assert (run.notice, run.details["trouble"]) == ("No dataset is behind its refresh rate.", False)


# our own


@pytest.mark.django_db
def test_our_own_catalog_is_judged_by_when_rows_were_last_loaded():
    now = timezone.now()
    source = world.provider("source", "Source")
    world.provider("portal", "Portal")
    for slug, rate, is_retired in (
        ("late", "weekly", False), ("fresh", "weekly", False), ("retired", "weekly", True), ("irregular", "irregular", False),
        ("never", "daily", False),
    ):  # fmt: skip
        made = world.dataset(slug, slug.title(), refresh_rate=rate, is_retired=is_retired)
        one = world.pipeline(slug, slug, source, made, now)
        if slug != "never":
            back = now - timedelta(days=1 if slug == "fresh" else 40)
            block = world.block(one, (back, back + timedelta(hours=1)), "done", rows=1)
            block.save()
            facts = {"block": block, "attempt": 1, "trigger": "schedule", "asked_by": "schedule", "holder": "w", "state": "done"}
            Run.objects.create(stage="load", fence=1, started_at=back, finished_at=back, **facts)
            # a look at a source that had nothing new refreshes nothing
            Run.objects.create(stage="extract", fence=2, started_at=now, finished_at=now, **{**facts, "state": "unchanged"})
    world.dataset("nobody-feeds-it", "Nobody feeds it", refresh_rate="daily")
    run = well(KIND)
    assert run.state == UpkeepRun.State.DONE and Dataset.objects.count() == 6
    assert found(run, "dataset", "days since", "finding") == [("late", 40, "behind"), ("never", None, "no date")]
    assert found(run, "email", "publisher")[0] == ("r.ortiz@riverton.example", "Transportation")
