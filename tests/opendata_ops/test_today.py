"""The first page: what is broken, late, running, next, and who must act; true, in a fixed number of queries, also with nothing."""

from datetime import timedelta

import pytest
import time_machine
from django.urls import reverse

from catalog.models import Dataset
from opendata_ops import selectors
from pipelines import clock, planner
from pipelines.models import Pipeline, ScheduleBlock, State
from pipelines.selectors import faces, promises, schedule
from tests import world
from tests.web import asks, plain_web  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture
def saturday():
    with time_machine.travel(world.SATURDAY, tick=False):
        yield world.SATURDAY


@pytest.fixture
def city(saturday):
    return world.build(saturday)


def page(client, person) -> str:
    client.force_login(person)
    answer = client.get(reverse("today"))
    assert answer.status_code == 200
    return answer.content.decode()


def test_trouble_comes_first_and_says_the_hop_the_cause_and_the_act(city):
    first, *others = selectors.board(city.now).needs
    assert (first.title, first.hop, first.face) == ("Scooter trips, Zipwheel", "Source", faces.FAILED)
    assert "503" in first.cause
    assert first.act == "Retry 6 blocks"
    assert [need.face.word for need in others] == ["Suspicious", "Suspicious", "Late", "Late", "Held", "Paused"]


def test_the_retry_button_previews_exactly_the_failed_blocks(client, city):
    need = selectors.board(city.now).needs[0]
    client.force_login(city.operator)
    preview = client.get(need.act_href).context["preview"]
    failed = set(ScheduleBlock.objects.filter(state=State.FAILED).values_list("pk", flat=True))
    assert {line.planned.block.pk for line in preview.lines} == failed
    assert preview.will_run == len(failed) == 6


def test_each_counter_is_the_length_of_the_list_that_it_leads_to(client, city):
    client.force_login(city.viewer)
    failed, late, suspicious, running, due = selectors.board(city.now).counters
    for counter in (failed, suspicious, running):
        assert len(client.get(counter.href).context["page"].blocks) == counter.number > 0
    listed = {line.pipeline.dataset_id for line in client.get(late.href).context["lines"]}
    assert len(listed) == late.number == 2
    assert due.number >= len(client.get(due.href).context["lines"]) > 0


def test_the_number_beside_today_is_the_number_of_needs(client, city):
    assert selectors.needs_count(city.now) == len(selectors.board(city.now).needs) == 7
    assert '<span class="count" title="7 things need a person">7</span>' in page(client, city.viewer)


def test_a_failure_that_was_made_good_asks_nobody(city):
    ScheduleBlock.objects.filter(state=State.FAILED).update(superseded_at=city.now)
    board = selectors.board(city.now)
    assert {need.face.word for need in board.needs} == {"Suspicious", "Late", "Held", "Paused"}
    assert board.counters[0].number == 0


def test_a_gap_is_drawn_as_missing_and_counts_against_the_pipeline(city):
    line = next(line for line in selectors.board(city.now).lines if line.pipeline.slug == "scooters-zipwheel")
    missing = [square for square in line.days if square.face == faces.MISSING]
    assert len(missing) == 2
    assert "16 never ran" in missing[0].title
    assert line.owed - line.kept == 30 + 6 + 2  # never ran, failed, suspicious


def test_a_missed_reading_of_a_snapshot_is_covered_by_the_next_and_no_gap(city):
    trees = city.pipelines["trees"]
    Pipeline.objects.filter(pk=trees.pk).update(is_paused=False)
    gone, *_, newest = ScheduleBlock.objects.filter(pipeline=trees).order_by("starts_at")
    gone.runs.all().delete()
    gone.delete()
    line = next(line for line in selectors.board(city.now).lines if line.pipeline == trees)
    assert [square.face for square in line.days].count(faces.MISSING) == 1  # only today's, which nothing covers yet
    assert line.days[-1].face == faces.MISSING


def test_of_an_hourly_snapshot_only_its_last_reading_is_wanted_and_the_hours_before_its_first_are_no_gap(city):
    one = world.pipeline(
        "hourly", "Hourly", world.provider("hourly", "Hourly"), city.pipelines["requests"].dataset, city.now, cadence="hourly", window_column="",
        starts_on=city.now.date(),
    )  # fmt: skip

    def line():
        return next(line for line in selectors.board(city.now).lines if line.pipeline == one)

    assert (line().days[-1].face, line().kept, line().owed) == (faces.MISSING, 0, 1)
    world.block(one, clock.window_at("hourly", world.CHICAGO, city.now - timedelta(hours=2)), rows=5).save()
    assert (line().days[-1].face, line().kept, line().owed) == (faces.MISSING, 1, 2), "the last one never ran"
    world.block(one, clock.window_at("hourly", world.CHICAGO, city.now), rows=5).save()
    assert (line().days[-1].face, line().kept, line().owed) == (faces.OK, 2, 2)


def test_what_a_paused_pipeline_did_not_run_is_not_called_missing(city):
    scooters = city.pipelines["scooters"]
    planner.pause(scooters, actor=world.audit.Actor.of(city.operator), reason="strike")
    line = next(line for line in selectors.board(city.now).lines if line.pipeline == scooters)
    assert faces.MISSING not in [square.face for square in line.days]
    assert line.face == faces.PAUSED


def test_a_day_belongs_to_the_zone_of_its_pipeline(city):
    tokyo = world.pipeline("tokyo", "Tokyo", world.provider("tokyo", "Tokyo"), city.pipelines["requests"].dataset, city.now, time_zone="Asia/Tokyo")
    window = clock.window_at("daily", "Asia/Tokyo", city.now - timedelta(days=3))
    world.block(tokyo, window, rows=5).save()
    line = next(line for line in selectors.board(city.now).lines if line.pipeline == tokyo)
    heads = schedule.day_heads(city.now)
    drawn = [head.day for head, square in zip(heads, line.days, strict=True) if square.face == faces.OK]
    assert drawn == [window[0].astimezone(clock.zone("Asia/Tokyo")).date()]


def test_the_running_table_shows_progress_and_asks_again(client, city):
    shown = page(client, city.viewer)
    assert '<progress max="50000" value="30000"' in shown
    assert 'hx-get="/running/" hx-trigger="every 2s"' in shown
    fragment = client.get(reverse("running")).content.decode()
    assert '<progress max="50000" value="30000"' in fragment and "<html" not in fragment


def test_a_viewer_gets_no_button_that_acts(client, city):
    shown = page(client, city.viewer)
    assert "Retry 6 blocks" not in shown
    assert reverse("rerun", args=["scooters-zipwheel"]) not in shown
    assert "Retry 6 blocks" in page(client, city.operator)


def test_an_empty_city_is_shown_the_three_first_steps_and_only_who_may_take_them(client, saturday):
    made = world.build(saturday, nothing=True)
    shown = page(client, made.steward)
    for name in ("admin:pipelines_provider_add", "admin:catalog_dataset_add", "admin:pipelines_pipeline_add"):
        assert f'href="{reverse(name)}"' in shown
        assert client.get(reverse(name)).status_code == 200
    assert reverse("admin:pipelines_provider_add") not in page(client, made.viewer)


def test_the_commands_that_the_empty_page_names_exist():
    from django.core.management import get_commands

    from opendata_ops.views import today  # noqa: F401  the page under test

    assert {"run", "status", "demo", "import_config"} <= set(get_commands())


def test_today_asks_the_database_fourteen_times_however_large_the_city(client, city):
    client.force_login(city.operator)
    client.get(reverse("today"))
    with asks(14):
        client.get(reverse("today"))
    feeds, source = city.pipelines["requests"].dataset, city.pipelines["requests"].provider
    for number in range(5):
        one = world.pipeline(f"more-{number}", f"More {number}", source, feeds, city.now)
        ScheduleBlock.objects.bulk_create([world.block(one, window, State.FAILED, message="no") for window in world.windows(one, city.now, 20)])
    with asks(14):
        client.get(reverse("today"))


def test_the_grid_as_csv_has_a_line_a_pipeline(client, city):
    client.force_login(city.viewer)
    answer = client.get(reverse("today"), {"format": "csv"})
    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert len(lines) == 1 + Pipeline.objects.count()
    assert any(line.startswith("scooters-zipwheel,") and "Never ran" in line for line in lines)


@pytest.mark.parametrize(
    ("rate", "by", "through", "since"),
    [
        ("daily", "07:00", "2026-11-20T00:00", "2026-11-20T07:00"),  # 06:42: this morning's has 18 minutes left
        ("daily", "06:00", "2026-11-21T00:00", "2026-11-21T06:00"),
        ("daily", None, "2026-11-20T00:00", "2026-11-21T00:00"),
        ("weekly", "09:00", "2026-11-16T00:00", "2026-11-16T09:00"),
        ("monthly", "09:00", "2026-11-01T00:00", "2026-11-01T09:00"),
        ("quarterly", None, "2026-10-01T00:00", "2026-10-02T00:00"),
        ("yearly", None, "2026-01-01T00:00", "2026-01-02T00:00"),
        ("hourly", None, "2026-11-21T05:00", "2026-11-21T06:00"),
    ],
)
def test_a_promise_falls_due_when_the_public_was_told(rate, by, through, since):
    from datetime import time

    dataset = Dataset(refresh_rate=rate, promise_time=time.fromisoformat(by) if by else None)
    told = [moment.astimezone(clock.zone("America/Chicago")).strftime("%Y-%m-%dT%H:%M") for moment in promises.promised_by(dataset, world.SATURDAY)]
    assert told == [through, since]


def test_nothing_is_late_where_nothing_was_promised():
    assert promises.promised_by(Dataset(refresh_rate="irregular"), world.SATURDAY) is None
