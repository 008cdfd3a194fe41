"""Hours on pages: both nights on which the clock changes, and the words for rejected rows, a provider out of service, a source not ready."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.urls import reverse

from pipelines.models import ScheduleBlock
from pipelines.selectors import faces
from pipelines.selectors.grid import block_grid
from pipelines.views.order import OrderForm
from tests import world
from tests.web import plain_web  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def scooters(now: datetime):
    world.provider("portal", "Portal")
    one = world.pipeline(
        "scooters", "Scooters", world.provider("zip", "Zip"), world.dataset("trips", "Trips"), now, cadence="hourly", stages=world.ALL_STAGES
    )
    one.refresh_from_db()
    return one


def day_of(one, night: date) -> tuple[list[str], list]:
    """The columns of the grid and the cells of one day, with a done block in each hour of it."""
    now = datetime(night.year, night.month, night.day, 23, 59, tzinfo=UTC) + timedelta(hours=30)
    start = world.clock.day_start(night, world.CHICAGO)
    end = world.clock.day_start(night + timedelta(days=1), world.CHICAGO)
    hours = [start + HOUR * number for number in range(int((end - start) / HOUR))]
    ScheduleBlock.objects.bulk_create([world.block(one, (hour, hour + HOUR), rows=number) for number, hour in enumerate(hours)])
    grid = block_grid(one, now, night)
    [row] = [row for row in grid.rows if row.label == f"{night:%a %b} {night.day}"]
    return [column.label for column in grid.columns], row


def test_the_night_on_which_the_clock_goes_back_has_25_blocks_the_second_hour_in_a_column_of_its_own():
    one = scooters(datetime(2020, 11, 3, tzinfo=UTC))
    columns, row = day_of(one, date(2020, 11, 1))
    assert columns[:4] == ["00", "01", "01′", "02"] and len(columns) == 25
    assert [cell.block.rows for cell in row.cells] == list(range(25))
    assert (row.note, row.done, row.owed) == ("25 h", 25, 25)
    assert [cell.starts_at.hour for cell in row.cells[:4]] == [5, 6, 7, 8]


def test_the_night_on_which_the_clock_goes_forward_has_23_blocks_and_leaves_the_skipped_hour_empty():
    one = scooters(datetime(2020, 3, 10, tzinfo=UTC))
    columns, row = day_of(one, date(2020, 3, 8))
    assert columns[:4] == ["00", "01", "02", "03"] and len(columns) == 24
    assert [cell and cell.block.rows for cell in row.cells[:4]] == [0, 1, None, 2]
    assert (row.note, row.done, row.owed) == ("23 h", 23, 23)


@pytest.mark.parametrize(("place", "hours"), [(1, [6]), (2, [6, 7]), (3, [8])])
def test_a_span_that_is_picked_in_the_grid_of_that_night_holds_the_hour_that_was_picked(place, hours):
    """The boxes of a browser know no second hour: its span is that of both."""
    one = scooters(datetime(2020, 11, 3, tzinfo=UTC))
    _, row = day_of(one, date(2020, 11, 1))
    cell = row.cells[place]
    form = OrderForm(one, {"from": cell.local_from, "to": cell.local_to, "which": "all"})
    assert form.is_valid(), form.errors
    span = form.cleaned_data["ends_at"] - form.cleaned_data["starts_at"]
    assert [form.cleaned_data["starts_at"].hour + number for number in range(int(span / HOUR))] == hours


def test_the_second_of_two_equal_hours_is_told_apart_on_its_own_page():
    one = scooters(datetime(2020, 11, 3, tzinfo=UTC))
    day_of(one, date(2020, 11, 1))
    first, second = (ScheduleBlock.objects.get(starts_at=datetime(2020, 11, 1, hour, tzinfo=UTC)) for hour in (6, 7))
    assert str(first) != str(second) and "(second)" in str(second)


def test_what_was_rejected_stands_in_words_in_the_grid_on_the_page_and_in_every_export(client):
    viewer, *_ = world.people()
    client.force_login(viewer)
    now = datetime.now(UTC)
    one = scooters(now)
    start = now.replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    world.block(one, (start, start + HOUR), rows=9, rejected=3, flags={"swapped_coordinates": 2}).save()
    block = ScheduleBlock.objects.get()
    page = client.get(one.get_absolute_url()).content.decode()
    assert "9 rows, 3 rejected" in page and "3 rows rejected" in page
    story = client.get(block.get_absolute_url()).content.decode()
    assert "3 rejected</a>" in story and "Odd among its rows: 2 swapped coordinates." in story
    [line] = [line for line in client.get(one.get_absolute_url(), {"format": "csv"}).getvalue().decode().splitlines() if "Done" in line]
    assert line.endswith("Done,9,3,8")
    told = client.get(reverse("block_json", args=[block.pk])).json()
    assert (told["rejected"], told["flags"], told["upstream_status"]) == (3, {"swapped_coordinates": 2}, 8)
    windows = client.get(one.get_absolute_url(), {"format": "json"}).json()["windows"]
    assert [(window["rejected"], window["upstream_status"]) for window in windows if window["rows"]] == [(3, 8)]


def test_no_data_no_service_and_not_ready_are_three_different_words():
    now = datetime.now(UTC)
    parts = {"superseded": False, "attempts": 0, "due_at": now + HOUR, "now": now}
    words = [
        faces.of_parts(state, mark, error_code=code, **parts).word
        for state, mark, code in (("done", "empty", ""), ("done", "no-service", ""), ("waiting", "", "not-ready"), ("waiting", "", ""))
    ]
    assert words == ["Complete and empty", "Provider not in service", "Source not ready", "Waiting"]
    assert set(faces.WORST_FIRST) >= {faces.NO_SERVICE, faces.NOT_READY}
