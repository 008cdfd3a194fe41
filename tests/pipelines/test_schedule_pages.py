"""Pipelines, a pipeline's blocks, the re-run with its preview, runs and blocks: what they show is what is there, and what a press does."""

import json
import re
from datetime import date, timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.urls import reverse

from catalog.models import AuditEntry
from pipelines import clock, planner
from pipelines.models import Pipeline, Run, ScheduleBlock, State
from pipelines.selectors import faces, schedule
from pipelines.selectors.grid import Grid, block_grid
from tests import world
from tests.web import asks, plain_web  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def saturday():
    with time_machine.travel(world.SATURDAY, tick=False):
        yield world.SATURDAY


@pytest.fixture
def city(saturday):
    return world.build(saturday)


@pytest.fixture
def operator(client, city):
    client.force_login(city.operator)
    return client


@pytest.fixture
def viewer(client, city):
    client.force_login(city.viewer)
    return client


def grid(city, name: str, until: date | None = None) -> Grid:
    one = schedule.pipelines_with_newest().get(pk=city.pipelines[name].pk)
    return block_grid(one, city.now, until)


# the grid


def test_the_day_on_which_the_clock_goes_back_has_25_hours_and_its_second_hour_a_column(city):
    drawn = grid(city, "scooters")
    row = next(row for row in drawn.rows if row.label == "Sun Nov 1")
    assert row.note == "25 h"
    assert len([cell for cell in row.cells if cell]) == 25
    assert [column.label for column in drawn.columns][1:4] == ["01", "01′", "02"]
    assert all(len([cell for cell in other.cells if cell]) == 24 for other in drawn.rows if other is not row)


def test_the_day_on_which_the_clock_goes_forward_has_23_hours(city):
    one = city.pipelines["scooters"]
    Pipeline.objects.filter(pk=one.pk).update(starts_on=date(2026, 3, 1))
    row = next(row for row in grid(city, "scooters", until=date(2026, 3, 20)).rows if row.label == "Sun Mar 8")
    assert row.note == "23 h"
    assert row.cells[2] is None and row.cells[3] is not None


def test_gaps_are_drawn_missing_and_what_is_not_due_yet_is_not(city):
    drawn = grid(city, "scooters")
    assert (drawn.missing, drawn.failed) == (30, 6)
    today = drawn.rows[0]
    assert [cell.face for cell in today.cells if cell][-1] == faces.NOT_YET


def test_each_cell_leads_to_its_block_and_says_its_hour_state_and_rows(city):
    block = ScheduleBlock.objects.filter(pipeline=city.pipelines["scooters"], state=State.DONE, mark="", rows__gt=0).order_by("-starts_at").first()
    square = next(cell for row in grid(city, "scooters").rows for cell in row.cells if cell and cell.starts_at == block.starts_at)
    assert square.href == block.get_absolute_url()
    assert square.title.endswith(f"done, {block.rows:,} rows")


def test_more_rows_are_darker_and_equal_rows_are_equal(city):
    squares = [cell for row in grid(city, "scooters").rows for cell in row.cells if cell and cell.face == faces.OK]
    rows = dict(ScheduleBlock.objects.filter(pipeline=city.pipelines["scooters"]).values_list("starts_at", "rows"))
    order = ["v1", "", "v3", "v4"]
    shades = sorted((rows[square.starts_at], order.index(square.shade)) for square in squares)
    assert [shade for _, shade in shades] == sorted(shade for _, shade in shades)
    assert {shade for _, shade in shades} == {0, 1, 2, 3}
    assert {cell.shade for row in grid(city, "trees").rows for cell in row.cells if cell} == {""}


@pytest.mark.parametrize(("name", "columns", "word"), [("requests", 31, "Month"), ("pets", 5, "Weeks from a Monday of"), ("inspections", 12, "Year")])
def test_longer_windows_make_a_calendar(city, name, columns, word):
    drawn = grid(city, name)
    assert (drawn.row_word, len(drawn.columns)) == (word, columns)
    shown = {cell.starts_at for row in drawn.rows for cell in row.cells if cell}
    since = clock.day_start(drawn.first, world.CHICAGO)
    assert set(ScheduleBlock.objects.filter(pipeline=city.pipelines[name], starts_at__gte=since).values_list("starts_at", flat=True)) <= shown


@pytest.mark.parametrize(("cron", "word"), [("5 4-14 * * *", "Day"), ("7 7 1 * *", "Month")])
def test_a_cron_expression_is_drawn_by_the_hour_where_it_comes_several_times_a_day(city, cron, word):
    one = city.pipelines["requests"]
    one.cadence, one.cron, one.window_column = "cron", cron, ""
    assert block_grid(one, city.now).row_word == word


def test_a_calendar_ends_where_the_pipeline_began(city):
    drawn = grid(city, "requests")
    assert len(drawn.rows) == 3  # sixty days touch three months
    assert drawn.earlier is None


def test_earlier_and_later_pages_meet_without_a_hole(city):
    now = grid(city, "scooters")
    before = grid(city, "scooters", until=now.earlier)
    assert before.last + timedelta(days=1) == now.first
    assert before.later is not None


def test_the_page_of_blocks_asks_a_fixed_number_of_times(operator, city):
    address = reverse("pipeline", args=["scooters-zipwheel"])
    operator.get(address)
    with asks(15):
        assert operator.get(address).status_code == 200


@pytest.mark.parametrize("slug", ["requests", "scooters-zipwheel", "pets", "trees", "inspections", "notes", "shelters"])
@pytest.mark.parametrize("query", ["", "tab=runs", "tab=durations", "tab=settings", "format=json", "format=csv", "until=2026-10-01", "until=rubbish"])
def test_every_tab_of_every_kind_of_pipeline_stands(viewer, slug, query):
    assert viewer.get(f"{reverse('pipeline', args=[slug])}?{query}").status_code == 200


def test_an_unknown_tab_or_pipeline_is_not_found(viewer):
    assert viewer.get(reverse("pipeline", args=["requests"]), {"tab": "x"}).status_code == 404
    assert viewer.get(reverse("pipeline", args=["no-such"])).status_code == 404


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cadence": "hourly", "settle_minutes": 5}, "Every hour, 5 min after it has ended"),
        ({"cadence": "daily", "settle_minutes": 90, "time_zone": "Asia/Tokyo"}, "Every day at 01:30, Asia/Tokyo"),
        ({"cadence": "daily", "settle_minutes": 48 * 60}, "Every day, 2 days later at 00:00"),
        ({"cadence": "weekly"}, "Every Monday at 00:00"),
        ({"cadence": "monthly"}, "On the 1st of every month at 00:00"),
        ({"cadence": "manual"}, "Only by hand"),
        ({"cadence": "cron", "cron": "20 7 * * 4", "time_zone": "America/Toronto"}, "At 07:20 on Thursday, America/Toronto"),
        ({"cadence": "once"}, "Once"),
    ],
)
def test_a_rhythm_is_told_in_words(values, words):
    assert schedule.cadence_words(Pipeline(**{"time_zone": "America/Chicago", "window_column": "t", **values})) == words


def test_next_due_misses_no_window_that_a_longer_look_would_find(city):
    for one in schedule.pipelines_with_newest():
        far = timedelta(days=63)
        moments = [planner.due_at(one, *window) for window in planner.owed_windows(one, city.now - far, city.now + far)]
        wanted = None if one.is_paused else min((moment for moment in moments if moment > city.now), default=None)
        assert planner.next_due(one, city.now) == wanted, one.slug


# the re-run


def rerun(slug: str = "scooters-zipwheel") -> str:
    return reverse("rerun", args=[slug])


GAP = {"from": "2026-11-12T08:00", "to": "2026-11-13T14:00"}


def press(operator, query: dict, **more):
    """Open the preview, then press its button with what its form holds."""
    shown = operator.get(rerun(), query)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown.content.decode().split('class="press"')[1]))
    return operator.post(rerun(), {**hidden, "reason": "restored archive", **more})


def test_the_preview_lists_exactly_what_then_runs(operator, city):
    preview = operator.get(rerun(), {**GAP, "which": "missing"}).context["preview"]
    assert (preview.will_run, preview.skipped) == (30, 0)
    promised = {line.planned.starts_at for line in preview.lines}
    before = set(ScheduleBlock.objects.values_list("pk", flat=True))
    assert press(operator, {**GAP, "which": "missing"}).status_code == 302
    made = ScheduleBlock.objects.exclude(pk__in=before)
    assert {block.starts_at for block in made} == promised
    assert {(block.state, block.asked_by, block.asked_because) for block in made} == {(State.WAITING, "operator", "restored archive")}


def test_looking_at_a_preview_changes_nothing(operator, city):
    before = list(ScheduleBlock.objects.order_by("pk").values())
    operator.get(rerun(), {"which": "all", "from": "2026-11-01", "to": "2026-11-21"})
    assert list(ScheduleBlock.objects.order_by("pk").values()) == before
    assert not AuditEntry.objects.filter(result__startswith="Asked to run →").exists()


def test_an_old_page_moves_nothing_that_ran_since(operator, city):
    query = {"which": "failed"}
    page = operator.get(rerun(), query).context["preview"]
    one = page.lines[0].planned.block
    ScheduleBlock.objects.filter(pk=one.pk).update(fence=one.fence + 1)
    answer = operator.post(rerun(), {**query, "seen": page.seen, "reason": "x"}, follow=True)
    assert ScheduleBlock.objects.get(pk=one.pk).state == State.FAILED
    assert ScheduleBlock.objects.filter(state=State.FAILED).count() == 1
    assert "Asked to run 5 blocks" in answer.content.decode() and "1 left alone" in answer.content.decode()


def test_what_runs_already_is_left_alone_and_said(operator, city):
    shown = operator.get(rerun("permits"), {"which": "incomplete"})
    assert shown.context["preview"].skipped == 1
    assert "left alone: running since" in shown.content.decode()


@pytest.mark.parametrize(
    ("query", "stages"),
    [
        ({"start": "load"}, ["load", "publish"]),
        ({"start": "load", "stop": "only"}, ["load"]),
        ({"stop": "unpublished"}, ["extract", "standardize", "enrich", "load"]),
        ({}, ["extract", "standardize", "enrich", "load", "publish"]),
    ],
)
def test_the_scope_says_which_stages_run(operator, query, stages):
    preview = operator.get(rerun(), {**GAP, "which": "missing", **query}).context["preview"]
    assert {line.planned.will for line in preview.lines} == {tuple(stages)}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"from": "x", "to": "2026-11-01"}, "is not a time"),
        ({"from": "2026-11-02", "to": "2026-10-01"}, "ends before it begins"),
        ({"from": "2026-11-02"}, "both ends"),
        ({"from": "1990-01-01", "to": "2026-01-01"}, "at most 3,000"),
        ({"stop": "only"}, "needs a stage"),
        ({"start": "publish", "stop": "unpublished"}, "nothing to do"),
        ({"start": "nonsense"}, "nonsense"),
        ({"from": "9999-12-31", "to": "9999-12-31"}, "is not a time"),
    ],
)
def test_an_order_that_makes_no_sense_is_answered_with_what_to_change(operator, query, says):
    answer = operator.get(rerun(), query)
    assert answer.status_code == 400
    assert says in answer.content.decode()


def test_a_stage_that_the_pipeline_lacks_is_refused(operator):
    assert "has no stage" in operator.get(rerun("requests"), {"start": "enrich"}).content.decode()


def test_on_the_production_system_a_press_needs_a_reason(operator, city, settings):
    settings.ENVIRONMENT = "prod"
    refused = press(operator, {"which": "failed"}, reason=" ")
    assert refused.status_code == 422
    assert "Say why" in refused.content.decode()
    assert ScheduleBlock.objects.filter(state=State.FAILED).count() == 6


@pytest.mark.parametrize(
    ("query", "command"),
    [
        ({**GAP}, "python3 manage.py run scooters-zipwheel --time-min 2026-11-12-08 --time-max 2026-11-13-14 --incomplete-only --queue"),
        (
            {**GAP, "which": "all", "force": "on", "start": "load"},
            "python3 manage.py run scooters-zipwheel --time-min 2026-11-12-08 --time-max 2026-11-13-14 --stages load,publish --force --queue",
        ),
    ],
)
def test_the_command_beside_the_button_asks_for_the_same(operator, query, command):
    shown = operator.get(rerun(), query)
    assert shown.context["command"] == command
    told = StringIO()
    call_command("run", *command.split()[3:], "--dry-run", "--json", stdout=told)
    typed = [(line["window"]["starts_at"], line["stages"], line["skip"]) for line in json.loads(told.getvalue())["would_run"]]
    lines = [line.planned for line in shown.context["preview"].lines]
    assert typed == [(line.starts_at.isoformat(), list(line.will), line.skip) for line in lines] != []


@pytest.mark.parametrize("name", ["rerun", "pause", "resume"])
def test_a_viewer_can_neither_preview_nor_press(viewer, name):
    address = reverse(name, args=["requests"])
    assert viewer.post(address, {"reason": "x"}).status_code == 403
    assert viewer.get(address).status_code in (403, 405)


def test_a_viewer_sees_no_button_on_a_pipeline(viewer):
    shown = viewer.get(reverse("pipeline", args=["scooters-zipwheel"])).content.decode()
    assert "Retry" not in shown and "Backfill" not in shown and "Pause" not in shown


def test_pause_and_resume_leave_their_reason(operator, city):
    operator.post(reverse("pause", args=["requests"]), {"reason": "strike"})
    one = Pipeline.objects.get(slug="requests")
    assert (one.is_paused, one.paused_reason) == (True, "strike")
    assert "strike" in operator.get(one.get_absolute_url()).content.decode()
    operator.post(reverse("resume", args=["requests"]), {"reason": "over"})
    assert not Pipeline.objects.get(slug="requests").is_paused
    assert list(AuditEntry.objects.filter(target="requests").order_by("pk").values_list("verb", "reason")) == [
        ("pause", "strike"),
        ("resume", "over"),
    ]


# lists


def test_pages_of_runs_go_on_by_key_and_lose_none(viewer, city):
    seen, address = [], reverse("runs")
    while address:
        page = viewer.get(address).context["page"]
        seen += [run.pk for run in page.runs]
        address = f"{reverse('runs')}?before={page.next_before}" if page.next_before else ""
    assert seen == list(Run.objects.order_by("-pk").values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("pipeline=requests", lambda run: run.block.pipeline.slug == "requests"),
        ("stage=load", lambda run: run.stage == "load"),
        ("state=bad", lambda run: run.state in ("failed", "crashed") and run.superseded_at is None),
        ("state=running", lambda run: run.state == "running"),
        ("trigger=button", lambda run: run.trigger == "button"),
        ("day=2026-11-21", lambda run: run.started_at.astimezone(clock.zone("America/Chicago")).date() == date(2026, 11, 21)),
    ],
)
def test_a_filter_of_runs_keeps_what_it_names_and_drops_the_rest(viewer, city, query, fits):
    everything = {run.pk for run in Run.objects.select_related("block__pipeline") if fits(run)}
    answer = viewer.get(f"{reverse('runs')}?{query}&format=csv")
    shown = {int(line.split(",")[0]) for line in b"".join(answer.streaming_content).decode().splitlines()[1:]}
    assert shown == everything


@pytest.mark.parametrize("query", ["state=nonsense", "day=nonsense", "before=nonsense", "before=-1", "before=" + "9" * 40, "pipeline=no-such"])
def test_a_damaged_address_of_runs_still_answers(viewer, query):
    assert viewer.get(f"{reverse('runs')}?{query}").status_code == 200


def test_runs_ask_a_fixed_number_of_times(viewer):
    viewer.get(reverse("runs"))
    with asks(11):
        viewer.get(reverse("runs"))


def test_durations_draw_good_runs_only_and_table_all(viewer, city):
    found = viewer.get(reverse("pipeline", args=["scooters-zipwheel"]), {"tab": "durations"}).context["durations"]
    assert len(found.chart["x"]) == len(found.chart["seconds"]["extract"]) == sum(run.state == "done" for run in found.runs)
    assert any(run.state == "failed" for run in found.runs)


# one clock for lists, one table for several


def test_lists_of_many_pipelines_are_told_by_the_citys_clock_and_a_pipelines_own_by_its_own(viewer, city):
    Pipeline.objects.update(time_zone="Asia/Tokyo")
    began = Run.objects.order_by("-pk").first()
    tokyo, here = (f"{began.started_at.astimezone(clock.zone(zone)):%H:%M}</time>" for zone in ("Asia/Tokyo", world.CHICAGO))
    text = viewer.get(reverse("runs")).content.decode()
    assert here in text and tokyo not in text
    own = viewer.get(began.block.pipeline.get_absolute_url(), {"tab": "runs"}).content.decode()
    assert tokyo in own


def test_a_table_that_another_pipeline_loads_too_is_said(viewer, city):
    trees, pets = city.pipelines["trees"], city.pipelines["pets"]
    page = pets.get_absolute_url()
    assert "also loaded by" not in viewer.get(page).content.decode()
    Pipeline.objects.filter(pk=trees.pk).update(table=pets.table, key=pets.key)
    text = viewer.get(page).content.decode()
    assert "Its table is also loaded by" in text and trees.get_absolute_url() in text and "names a row by" not in text
    Pipeline.objects.filter(pk=trees.pk).update(key=["tree"])
    text = viewer.get(page).content.decode()
    assert "which names a row by tree; this pipeline by id" in text
    Pipeline.objects.filter(pk=trees.pk).update(warehouse="archive")
    assert "also loaded by" not in viewer.get(page).content.decode(), "a table of the same name elsewhere is another table"


def test_a_preview_that_would_run_nothing_says_what_to_choose(operator, city):
    text = operator.get(reverse("rerun", args=["notes"])).content.decode()
    assert "Nothing would run." in text and "Choose another span" in text
