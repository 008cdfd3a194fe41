"""The city that the page tests look at says the same at every minute of an hour and on the nights when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipelines.models import State
from tests import world


@pytest.mark.django_db
@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 11, 21, 13, 0, 20, tzinfo=UTC),  # the last hour has not settled
        datetime(2026, 11, 21, 13, 4, 59, tzinfo=UTC),
        datetime(2026, 11, 21, 13, 5, 0, tzinfo=UTC),
        datetime(2026, 11, 1, 7, 1, tzinfo=UTC),  # the hour that comes twice in Chicago
        datetime(2027, 3, 14, 8, 2, tzinfo=UTC),  # just after the hour that Chicago leaves out
    ],
)
def test_six_hours_of_scooter_trips_have_failed_whenever_one_looks(now):
    city = world.build(now)
    assert city.pipelines["scooters"].blocks.filter(state=State.FAILED).count() == 6
