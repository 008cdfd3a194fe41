"""`run`: its exit codes, its JSON, its windows, and words that say what to do next."""

import itertools
import logging
import os
import signal
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from django.apps import apps
from django.core.management.base import CommandParser
from django.db import OperationalError
from django.db.models import Max
from django.db.models.functions import Now

from catalog.models import AuditEntry
from pipelines import blocks, clock, planner, runner, secrets
from pipelines.blocks import Counts, Outcome
from pipelines.management.commands import run as run_module
from pipelines.models import COUNTS, Run, RunState, ScheduleBlock, State
from tests import world
from tests.pipelines.commanding import command, ended, program
from tests.pipelines.scene import ANN, stage_scene, table  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db(transaction=True)

STAGES = ["extract", "load", "publish"]
HOURLY = {"window_column": "updateddate", "cadence": "hourly"}
#: The rows of `scene.table` begin at midnight of this day in Los Angeles, one a minute.
DAY = ("--time-min", "2026-01-01-00", "--time-max", "2026-01-01-24")


@pytest.fixture
def scene(stage_scene):  # noqa: F811
    """One snapshot pipeline with 40 rows."""
    return stage_scene(40)


@pytest.fixture
def hourly(stage_scene):  # noqa: F811
    """One pipeline with hourly windows; the first two hours of 2026 have 60 rows each."""
    return stage_scene(120, **HOURLY)


def snapshot_of_tables() -> dict[str, tuple]:
    """How many rows every table holds, and the newest of them."""
    models = [model for app in ("catalog", "pipelines", "django_q") for model in apps.get_app_config(app).get_models()]
    return {model._meta.label: (model.objects.count(), model.objects.aggregate(last=Max("pk"))["last"]) for model in models}


def taken_by_another(one: ScheduleBlock) -> Run:
    """Let another worker claim the block."""
    taken = blocks.claim(one.pk, holder="elsewhere:1:1")
    assert taken
    return taken


# what it prints


def test_a_run_that_went_well_ends_with_0_and_tells_every_count(scene):
    told = command("run", scene.pipeline.slug, "--json")
    assert told.code == 0, told.err
    [block] = told.json["blocks"]
    assert (block["pipeline"], block["state"], told.json["refused"]) == (scene.pipeline.slug, "done", [])
    assert block["window"]["starts_at"] == scene.block.starts_at.isoformat()
    assert list(block["stages"]) == STAGES
    for stage in block["stages"].values():
        assert {*COUNTS, "seconds"} <= set(stage)
        assert isinstance(stage["seconds"], float)
    extract, load, publish = block["stages"].values()
    assert (extract["rows_in"], extract["rows_out"], load["inserted"], publish["published"]) == (40, 40, 40, 40)
    assert block["rows"]["adds_up"] is True
    assert "40 on the portal" in told.err


def test_without_json_the_words_are_on_stdout_and_nothing_is_on_stderr(scene):
    told = command("run", scene.pipeline.slug)
    assert (told.code, told.err) == (0, "")
    assert "40 at the source = 40 in the lake = 40 in the warehouse" in told.out


def test_only_what_this_command_did_is_told_of_the_stages(scene):
    command("run", scene.pipeline.slug)
    [block] = command("run", scene.pipeline.slug, "--json").json["blocks"]
    assert block["mark"] == "unchanged"
    assert [stage["state"] for stage in block["stages"].values()] == ["unchanged", "not run", "not run"]
    assert block["rows"]["adds_up"] is True


def test_a_program_prints_nothing_but_json_on_stdout_however_loud_the_log_is(scene):
    told = ended(program("run", scene.pipeline.slug, "--json", LOG_LEVEL="DEBUG"))
    assert told.code == 0, told.err
    assert told.json["blocks"][0]["state"] == "done"


def test_the_log_is_as_loud_after_a_command_as_before(scene):
    before = logging.getLogger("pipelines").level
    command("run", scene.pipeline.slug, "--dry-run")
    assert logging.getLogger("pipelines").level == before


def test_who_ran_it_and_why_is_kept(scene):
    command("run", scene.pipeline.slug, "--reason", "the mayor asked")
    entry = AuditEntry.objects.get(kind="block", target=str(scene.block.pk))
    assert entry.reason == "the mayor asked"
    assert entry.actor.endswith("(command)")


# bad usage


@pytest.mark.parametrize(
    "words, said, next_step",
    [
        ([], "Name a pipeline", "status"),
        (["nowhere"], "There is no pipeline 'nowhere'.", "Use one of: scene"),
        (["SLUG", "--workers", "0"], "--workers 0", "Leave it out"),
        (["SLUG", "--stages", "lod"], "There is no stage 'lod'.", "extract, standardize, enrich, aggregate, load, publish"),
        (["SLUG", "--stages", ","], "--stages names no stage.", "extract"),
        (["SLUG", "--stages", "enrich"], "No stage of", "It has: extract, load, publish"),
        (["SLUG", "--no-extract", "--no-load", "--no-publish"], "No stage of", "It has"),
        (["SLUG", "--provider", "nobody"], "There is no provider 'nobody'.", "Use one of: p-"),
        (["SLUG", "--force"], "has many windows", "--time-min"),
        (["SLUG", "--interval", "0"], "--interval 0", "--time-min"),
        (["SLUG", "--time-max", "yesterday"], "--time-max 'yesterday' is not a time.", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-max", "2026-01-01"], "is not a time", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-max", "2026-02-30-01"], "is not a time", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-max", "2026-01-01-25"], "is not a time", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-max", "9999-12-31-24"], "is not a time", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-max", "0001-01-01-00"], "is not a time", "yyyy-mm-dd-hh"),
        (["SLUG", "--time-min", "2026-01-01-05", "--time-max", "2026-01-01-05"], "is not before", "earlier"),
        (["SLUG", "--time-min", "2026-01-01-05", "--time-max", "2026-01-01-04"], "is not before", "earlier"),
        (["SLUG", "--time-min", "1900-01-01-00"], "more than 10,000 windows", "shorter"),
    ],
)
def test_what_can_not_be_obeyed_is_refused_with_the_next_step_and_changes_nothing(hourly, words, said, next_step):
    before = snapshot_of_tables()
    words = [hourly.pipeline.slug if word == "SLUG" else word for word in words]
    told = command("run", *words, "--json")
    assert told.code == 2
    assert said in told.json["error"]
    assert next_step in told.json["next_step"]
    assert told.json["error"] in told.err
    assert f"Next: {told.json['next_step']}" in told.err
    assert snapshot_of_tables() == before


@pytest.mark.parametrize(
    "words, said", [(["--workers", "many"], "invalid int value: 'many'"), (["--tomorrow"], "Unrecognized arguments: --tomorrow")]
)
def test_a_line_that_has_no_meaning_is_refused_with_the_next_step(words, said):
    told = ended(program("run", "anything", *words, "--json"))
    assert told.code == 2
    assert said in told.json["error"]
    assert "run --help" in told.json["next_step"]
    assert f"Next: {told.json['next_step']}" in told.err


def test_without_json_an_error_leaves_stdout_empty(scene):
    told = command("run", "nowhere")
    assert (told.code, told.out) == (2, "")


@pytest.mark.parametrize("typed", ["pet_licences", "Pet-Licenses", "licen"])
def test_a_slug_that_is_nearly_right_is_suggested(scene, typed):
    scene.change(slug="pet-licenses")
    assert "Did you mean pet-licenses?" in command("run", typed).err


def test_a_future_span_is_refused(hourly):
    told = command("run", hourly.pipeline.slug, "--time-min", "2999-01-01-00")
    assert told.code == 2
    assert "lies in the future" in told.err


# windows


def windows_of(slug: str, *words: str) -> list[tuple[str, str]]:
    """The UTC windows that a dry run names."""
    told = command("run", slug, *words, "--dry-run", "--json")
    if told.code == 3:
        return []
    assert told.code == 0, told.err
    return [(line["window"]["starts_at"][:16], line["window"]["ends_at"][:16]) for line in told.json["would_run"]]


@pytest.mark.parametrize(
    "words, hours",
    [
        # chosen by their end: after the first time, up to and including the second
        (["--time-min", "2026-01-01-05", "--time-max", "2026-01-01-08"], ["13", "14", "15"]),
        (["--time-min", "2026-1-1-5", "--time-max", "2026-1-1-8"], ["13", "14", "15"]),
        (["--time-max", "2026-01-01-05"], ["12"]),
        (["--time-max", "2026-01-01-05", "--interval", "3"], ["10", "11", "12"]),
        (["--time-min", "2026-01-01-05", "--interval", "2"], ["13", "14"]),
        (["--time-min", "2025-12-31-22", "--time-max", "2025-12-31-24"], ["06", "07"]),
    ],
)
def test_an_hour_is_chosen_by_its_end_in_the_pipelines_zone(hourly, words, hours):
    assert [start[11:13] for start, _ in windows_of(hourly.pipeline.slug, *words)] == hours


def test_hour_24_is_the_next_days_midnight(hourly):
    slug = hourly.pipeline.slug
    assert windows_of(slug, "--time-max", "2026-01-01-24") == windows_of(slug, "--time-max", "2026-01-02-00")


@pytest.mark.parametrize("day, after, hours", [("2025-11-02", "2025-11-03", 25), ("2025-03-09", "2025-03-10", 23), ("2025-06-01", "2025-06-02", 24)])
def test_a_day_has_each_of_its_hours_once_also_when_the_clock_changes(hourly, day, after, hours):
    found = windows_of(hourly.pipeline.slug, "--time-min", f"{day}-00", "--time-max", f"{after}-00")
    assert len(found) == len(set(found)) == hours
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))


def test_an_hour_that_the_clock_skips_is_the_next_valid_one(hourly):
    assert windows_of(hourly.pipeline.slug, "--time-max", "2025-03-09-02") == [("2025-03-09T09:00", "2025-03-09T10:00")]


CHICAGO = {"time_zone": "America/Chicago", "starts_on": date(2019, 1, 1)}


def hours_of(one, *words: str) -> list[datetime]:
    """The starts of the hours that an order means, by the planner itself."""
    flags = CommandParser(prog="run")
    run_module.Command().add_arguments(flags)
    options = vars(flags.parse_args([one.pipeline.slug, *words]))
    return [line.starts_at for line in planner.preview(run_module.order_of(one.pipeline, options, datetime.now(UTC)))]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    "words, first, last, hours",
    [
        (["--interval", "1", "--time-max", "2020-1-1-1"], utc(2020, 1, 1, 6), utc(2020, 1, 1, 6), 1),
        (["--interval", "23", "--time-max", "2020-1-1-1"], utc(2019, 12, 31, 8), utc(2020, 1, 1, 6), 23),
        (["--time-min", "2019-1-1-1", "--time-max", "2019-1-2-1"], utc(2019, 1, 1, 7), utc(2019, 1, 2, 6), 24),
        # with both times the interval says nothing
        (["--time-min", "2019-1-1-1", "--time-max", "2019-1-2-1", "--interval", "3"], utc(2019, 1, 1, 7), utc(2019, 1, 2, 6), 24),
    ],
)
def test_upstreams_golden_spans_are_the_same_hours(hourly, words, first, last, hours):
    hourly.change(**CHICAGO)
    found = hours_of(hourly, *words)
    assert (found[0], found[-1], len(found)) == (first, last, hours)


def test_the_year_2020_has_8784_hours_none_missing_and_none_twice(hourly):
    hourly.change(**CHICAGO)
    found = hours_of(hourly, "--time-min", "2020-01-01-00", "--time-max", "2021-01-01-00")
    assert len(set(found)) == len(found) == 8784
    assert (found[0], found[-1]) == (utc(2020, 1, 1, 6), utc(2021, 1, 1, 5))
    assert all(after - before == timedelta(hours=1) for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("day, hours", [(date(2020, 3, 8), 23), (date(2020, 11, 1), 25), (date(2020, 6, 1), 24)])
def test_hour_by_hour_as_the_clock_on_the_wall_shows_them_none_is_missed_or_met_twice(hourly, day, hours):
    hourly.change(**CHICAGO)
    shown = [hour for hour in range(1, 25) if hour == 24 or clock.instants(datetime(day.year, day.month, day.day, hour), "America/Chicago")]
    found = [start for hour in shown for start in hours_of(hourly, "--time-max", f"{day}-{hour}")]
    begin = clock.day_start(day, "America/Chicago")
    assert found == [begin + timedelta(hours=number) for number in range(hours)]


def test_an_hour_that_comes_twice_means_both_and_that_is_said(hourly):
    hourly.change(**CHICAGO)
    told = command("run", hourly.pipeline.slug, "--time-max", "2020-11-01-01", "--dry-run", "--json")
    assert [line["window"]["starts_at"][11:13] for line in told.json["would_run"]] == ["05", "06"]
    assert "--time-max 2020-11-01-01 comes twice in America/Chicago: both hours are meant." in told.err
    assert hours_of(hourly, "--time-min", "2020-11-01-01", "--time-max", "2020-11-01-02") == [utc(2020, 11, 1, 7)]


def test_one_of_two_equal_hours_is_named_by_its_instant_and_so_it_is_advised(hourly):
    hourly.change(**CHICAGO)
    assert hours_of(hourly, "--time-min", "2020-11-01T06:00Z", "--time-max", "2020-11-01T07:00Z") == [utc(2020, 11, 1, 6)]
    told = command("run", hourly.pipeline.slug, "--time-min", "2020-11-01T06:00Z", "--time-max", "2020-11-01T07:00Z", "--no-publish")
    assert "--time-min 2020-11-01T06:00Z --time-max 2020-11-01T07:00Z" in told.out


def test_an_hour_that_does_not_exist_is_told(hourly):
    hourly.change(**CHICAGO)
    told = command("run", hourly.pipeline.slug, "--time-max", "2020-03-08-02", "--dry-run", "--json")
    assert [line["window"]["starts_at"][11:13] for line in told.json["would_run"]] == ["07"]
    assert "--time-max 2020-03-08-02 does not exist in America/Chicago: the clock jumps over it to 03:00" in told.err
    assert hours_of(hourly, "--time-min", "2020-03-08-02", "--time-max", "2020-03-08-04") == [utc(2020, 3, 8, 8)]


def test_a_day_belongs_to_the_span_that_holds_its_end(hourly):
    hourly.change(cadence="daily")
    slug = hourly.pipeline.slug
    assert windows_of(slug, "--time-min", "2026-01-01-00", "--time-max", "2026-01-02-00") == [("2026-01-01T08:00", "2026-01-02T08:00")]
    assert windows_of(slug, "--time-max", "2026-01-02-00") == [("2026-01-01T08:00", "2026-01-02T08:00")]
    assert windows_of(slug, "--time-min", "2026-01-01-01", "--time-max", "2026-01-01-23") == []


def test_a_window_that_is_not_over_is_left_out_and_that_is_said(hourly):
    now = datetime.now(UTC)
    low, high = (f"{moment:%Y-%m-%d-%H}" for moment in (now - timedelta(hours=24), now + timedelta(hours=48)))
    told = command("run", hourly.pipeline.slug, "--time-min", low, "--time-max", high, "--dry-run", "--json")
    ends = [datetime.fromisoformat(line["window"]["ends_at"]) for line in told.json["would_run"]]
    assert ends
    assert max(ends) <= datetime.now(UTC)
    assert "--time-max lies in the future" in told.err


def test_a_span_without_a_window_says_so_and_ends_with_3(hourly):
    hourly.change(cadence="daily")
    told = command("run", hourly.pipeline.slug, "--time-min", "2026-01-01-01", "--time-max", "2026-01-01-23")
    assert told.code == 3
    assert "none of its daily windows ends after 2026-01-01-01" in told.out
    assert not ScheduleBlock.objects.exists()


# dry runs


def test_a_dry_run_changes_nothing(hourly):
    command("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01")
    before = snapshot_of_tables()
    told = command("run", hourly.pipeline.slug, "--force", *DAY, "--dry-run")
    assert told.code == 0
    assert "24 blocks would run" in told.out
    assert snapshot_of_tables() == before


def test_a_dry_run_tells_the_stages_that_would_run(hourly):
    slug = hourly.pipeline.slug
    command("run", slug, "--time-max", "2026-01-01-01", "--no-publish")
    told = command("run", slug, "--time-min", "2026-01-01-00", "--time-max", "2026-01-01-02", "--dry-run", "--json")
    assert [line["stages"] for line in told.json["would_run"]] == [["publish"], STAGES]
    assert [line["state"] for line in told.json["would_run"]] == ["held", None]


# stages


def test_without_publish_a_window_stops_there_as_asked_and_a_later_run_goes_on_from_publish(hourly):
    slug = hourly.pipeline.slug
    told = command("run", slug, "--time-max", "2026-01-01-01", "--no-publish")
    assert told.code == 0
    assert "held before publish" in told.out
    assert "asked" in hourly.block.message
    assert f"run {slug} --time-min 2026-01-01-00 --time-max 2026-01-01-01" in told.out
    assert (hourly.block.state, hourly.block.stage, len(hourly.portal_rows())) == ("held", "publish", 0)

    [block] = command("run", slug, "--time-max", "2026-01-01-01", "--json").json["blocks"]
    assert [stage["state"] for stage in block["stages"].values()] == ["not run", "not run", "done"]
    assert (block["state"], len(hourly.portal_rows())) == ("done", 60)


def test_the_command_that_is_advised_for_a_held_window_names_it_and_no_other(stage_scene):  # noqa: F811
    """Also where the city's hours begin at half past of UTC's."""
    kolkata = stage_scene(40, **HOURLY, time_zone="Asia/Kolkata")
    told = command("run", kolkata.pipeline.slug, "--time-max", "2026-01-01-06", "--no-publish")
    [advised] = [line.split("run ", 1)[1].split() for line in told.out.splitlines() if "python3 manage.py run" in line]
    before = [(kolkata.block.starts_at.isoformat()[:16], kolkata.block.ends_at.isoformat()[:16])]
    assert windows_of(*advised) == before


def test_publish_alone_sends_what_the_warehouse_has(scene):
    slug = scene.pipeline.slug
    command("run", slug, "--no-publish")
    told = command("run", slug, "--stages", "publish", "--json")
    assert told.code == 0
    [block] = told.json["blocks"]
    assert [stage["state"] for stage in block["stages"].values()] == ["not run", "not run", "done"]
    assert (block["state"], block["stages"]["publish"]["published"]) == ("done", 40)


def test_force_sends_every_row_again(scene):
    command("run", scene.pipeline.slug)
    [block] = command("run", scene.pipeline.slug, "--force", "--json").json["blocks"]
    assert (block["stages"]["extract"]["rows_out"], block["stages"]["publish"]["published"]) == (40, 40)


# what upstream's command line says in other words


@pytest.fixture
def scooters(hourly, monkeypatch):
    """Like an operator of scooters: it can't be asked how much it has."""
    monkeypatch.setattr(hourly.provider.connector_class, "can_count", False)
    return hourly


SPAN = ("--time-min", "2026-01-01-00", "--time-max", "2026-01-01-02")


def test_hours_that_are_done_are_fetched_again_only_by_force(scooters):
    slug = scooters.pipeline.slug
    world.block(scooters.pipeline, (utc(2026, 1, 1, 8), utc(2026, 1, 1, 9)), rows=60).save()
    assert windows_of(slug, *SPAN) == [("2026-01-01T09:00", "2026-01-01T10:00")]
    assert len(windows_of(slug, *SPAN, "--force")) == len(windows_of(slug, *SPAN, "--stages", "load,publish")) == 2


@pytest.mark.parametrize(
    "flags, left",
    [
        (["--no-sync-db"], ["extract", "publish"]),
        (["--no-load"], ["extract", "publish"]),
        (["--no-sync-socrata"], ["extract", "standardize", "enrich", "load"]),
        (["--no-extract"], ["standardize", "enrich", "load", "publish"]),
        (["--no-extract", "--no-sync-db"], ["publish"]),
    ],
)
def test_upstreams_names_of_the_steps_leave_out_what_they_did(hourly, flags, left):
    hourly.change(stages=world.ALL_STAGES)
    told = command("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01", *flags, "--dry-run", "--json")
    assert [line["stages"] for line in told.json["would_run"]] == [left]


#: upstream's number: (the block that has it, what --incomplete-only does with it)
INCOMPLETE = {
    0: ({"stage": "extract", "state": "waiting"}, world.ALL_STAGES),
    2: ({"stage": "standardize", "state": "waiting"}, world.ALL_STAGES[1:]),
    5: ({"stage": "publish", "state": "waiting", "rows": 9}, ["publish"]),
    6: ({"stage": "publish", "state": "waiting", "rows": 9, "rejected": 2}, ["publish"]),
    -6: ({"stage": "publish", "state": "waiting", "rows": 9, "rejected": 9}, ["publish"]),
    -5: ({"stage": "load", "state": "failed", "rows": 9}, ["load", "publish"]),
    7: ({"state": "done", "rows": 0, "mark": "empty"}, None),
    8: ({"state": "done", "rows": 9, "rejected": 2}, None),
    -8: ({"stage": "publish", "state": "failed", "rows": 9}, ["publish"]),
}


@pytest.mark.parametrize("number", INCOMPLETE)
def test_incomplete_only_goes_on_from_the_stage_that_is_missing_whatever_upstreams_number(hourly, number):
    fields, stages = INCOMPLETE[number]
    hourly.change(stages=world.ALL_STAGES)
    block = world.block(hourly.pipeline, (utc(2026, 1, 1, 8), utc(2026, 1, 1, 9)), **fields)
    block.save()
    assert block.upstream_status == number
    told = command("run", hourly.pipeline.slug, *SPAN[:3], "2026-01-01-01", "--incomplete-only", "--dry-run", "--json")
    assert told.code == (3 if stages is None else 0)
    assert [line["stages"] for line in told.json["would_run"]] == ([] if stages is None else [stages])


def test_a_block_whose_load_failed_is_loaded_and_published_by_incomplete_only(hourly):
    slug = hourly.pipeline.slug
    hourly.change(warehouse="nowhere")
    assert command("run", slug, "--time-max", "2026-01-01-01").code == 1
    assert (hourly.block.stage, hourly.block.state, hourly.block.upstream_status) == ("load", "failed", -5)
    hourly.change(warehouse="default")
    told = command("run", slug, "--time-max", "2026-01-01-01", "--incomplete-only", "--json")
    assert told.code == 0
    [block] = told.json["blocks"]
    assert [stage["state"] for stage in block["stages"].values()] == ["not run", "done", "done"]
    assert (block["upstream_status"], len(hourly.portal_rows())) == (8, 60)


def test_a_block_that_fails_stops_its_own_chain_and_no_other(hourly):
    hourly.source.fail(403, times=1)
    told = command("run", hourly.pipeline.slug, *SPAN, "--workers", "1", "--json")
    assert told.code == 1
    assert [[stage["state"] for stage in block["stages"].values()] for block in told.json["blocks"]] == [
        ["failed", "not run", "not run"],
        ["done"] * 3,
    ]


def test_no_logs_tells_only_what_became_of_each_block(hourly):
    slug = hourly.pipeline.slug
    told = command("run", slug, "--time-max", "2026-01-01-01", "--no-logs")
    assert (told.code, len(told.out.splitlines())) == (0, 1)
    assert hourly.last("extract").lines.exists()


# in a container


@pytest.fixture
def settings_file(tmp_path):
    file = tmp_path / "city.env"
    file.write_text("CITY_NAME=Riverton")
    return str(file)


def test_a_dry_run_in_docker_mode_prints_the_plan_and_the_same_order_for_a_container(hourly, settings_file):
    words = ["run", hourly.pipeline.slug, *SPAN, "--force", "--no-sync-socrata", "--reason", "the vendor's file"]
    words += ["--docker-mode", "--env-file", settings_file, "--docker-args", "--network 'my net'"]
    told = command(*words, "--dry-run")
    line = (
        f"(dry)$ docker run --network 'my net' --env-file {settings_file} --rm opendata_ops:local python3 manage.py run {hourly.pipeline.slug} "
        f"--time-min 2026-01-01-00 --time-max 2026-01-01-02 --reason 'the vendor'\"'\"'s file' --force --no-publish"
    )
    assert line in told.out.splitlines()
    assert "would run extract → load" in told.out
    assert not ScheduleBlock.objects.exists()
    assert command(*words, "--dry-run", "--json").json["command"].endswith("--force --no-publish --json")


def test_docker_mode_runs_the_container_and_gives_its_exit_code(hourly, settings_file, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "docker got: $*"\nexit 1\n')
    docker.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    told = ended(program("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01", "--docker-mode", "--env-file", settings_file, PATH=path))
    assert told.code == 1
    assert f"docker got: run --env-file {settings_file} --rm opendata_ops:local python3 manage.py run {hourly.pipeline.slug}" in told.out
    assert not ScheduleBlock.objects.exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--docker-mode"], "--docker-mode needs the settings of the container."),
        (["--docker-mode", "--env-file", "/nowhere/x.env"], "There is no file /nowhere/x.env."),
        (["--env-file", "/nowhere/x.env"], "are for --docker-mode"),
        (["--docker-mode", "--env-file", "FILE", "--docker-args", "'"], "--docker-args can't be read"),
        (["--docker-mode", "--env-file", "FILE", "--initialize"], "Add --yes"),
    ],
)
def test_a_container_without_its_settings_is_refused(hourly, settings_file, flags, said):
    flags = [settings_file if flag == "FILE" else flag for flag in flags]
    told = command("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01", *flags)
    assert told.code == 2 and said in told.err and "Next: " in told.err


def test_where_there_is_no_docker_that_is_said(hourly, settings_file, monkeypatch):
    monkeypatch.setattr(run_module.shutil, "which", lambda name: None)
    told = command("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01", "--docker-mode", "--env-file", settings_file)
    assert told.code == 2 and "no program `docker`" in told.err


# exit codes


def test_one_of_two_that_fails_makes_1_and_the_other_is_done(stage_scene):  # noqa: F811
    well, ill = stage_scene(40), stage_scene(40, portal_resource="nono-0000")
    told = command("run", ill.pipeline.slug, well.pipeline.slug, "--json")
    assert told.code == 1
    assert {block["pipeline"]: block["state"] for block in told.json["blocks"]} == {ill.pipeline.slug: "failed", well.pipeline.slug: "done"}
    failed = next(block for block in told.json["blocks"] if block["state"] == "failed")
    assert failed["next_step"]
    assert f"Next: {failed['next_step']}" in told.err
    assert len(well.portal_rows()) == 40


def test_a_secret_that_is_not_there_fails_in_words_and_names_the_variable(scene):
    scene.portal_provider.secrets = {"password": "env:NOBODY_SET_THIS"}
    scene.portal_provider.save()
    told = command("run", scene.pipeline.slug)
    assert told.code == 1
    assert "NOBODY_SET_THIS" in told.err
    assert "Next: " in told.err
    assert "Traceback" not in told.err


def test_a_secret_sealed_with_a_lost_key_fails_in_words(scene):
    scene.portal_provider.secrets = {"password": f"{secrets.SEALED}gAAAAABnonsense"}
    scene.portal_provider.save()
    told = command("run", scene.pipeline.slug)
    assert told.code == 1
    assert "Next: " in told.err


def test_a_wait_for_a_source_that_is_ill_is_no_success(scene):
    scene.source.fail(503, times=99)
    told = command("run", scene.pipeline.slug)
    assert told.code == 1
    assert f"{scene.pipeline.slug}" in told.err
    assert "It is tried again from" in told.err


def test_all_pipelines_of_a_provider_run_when_none_is_named(stage_scene):  # noqa: F811
    first, other = stage_scene(40), stage_scene(40)
    told = command("run", "--provider", first.provider.slug, "--json")
    assert [block["pipeline"] for block in told.json["blocks"]] == [first.pipeline.slug]
    assert not ScheduleBlock.objects.filter(pipeline=other.pipeline).exists()


def test_a_provider_narrows_what_was_named(stage_scene):  # noqa: F811
    first, other = stage_scene(40), stage_scene(40)
    told = command("run", first.pipeline.slug, other.pipeline.slug, "--provider", other.provider.slug, "--dry-run", "--json")
    assert [line["pipeline"] for line in told.json["would_run"]] == [other.pipeline.slug]
    assert command("run", first.pipeline.slug, "--provider", other.provider.slug).code == 2


def test_a_pipeline_that_is_named_twice_runs_once(scene):
    told = command("run", scene.pipeline.slug, scene.pipeline.slug, "--json")
    assert (told.code, len(told.json["blocks"]), told.json["refused"]) == (0, 1, [])


def test_when_all_is_done_there_is_nothing_to_do(hourly):
    words = ("run", hourly.pipeline.slug, "--time-max", "2026-01-01-01", "--incomplete-only")
    assert command(*words).code == 0
    before = snapshot_of_tables()
    told = command(*words, "--json")
    assert (told.code, told.json) == (3, {"blocks": [], "refused": []})
    assert "every block of this order is done" in told.err
    assert snapshot_of_tables() == before


def test_force_of_incomplete_blocks_leaves_the_done_ones_alone(hourly):
    slug = hourly.pipeline.slug
    command("run", slug, "--time-max", "2026-01-01-01")
    span = ("--time-min", "2026-01-01-00", "--time-max", "2026-01-01-02")
    assert len(windows_of(slug, *span, "--force")) == 2
    assert windows_of(slug, *span, "--force", "--incomplete-only") == [("2026-01-01T09:00", "2026-01-01T10:00")]


# others at work


def test_a_block_that_somebody_else_runs_is_left_alone_and_makes_2(scene):
    scene.place()
    taken_by_another(scene.block)
    told = command("run", scene.pipeline.slug, "--json")
    assert told.code == 2
    [refused] = told.json["refused"]
    assert refused["block"] == scene.block.pk
    assert refused["why"].startswith("running since")
    assert f"manage.py cancel {scene.block.pk}" in refused["next_step"]
    assert refused["next_step"] in told.err
    assert command("run", scene.pipeline.slug, "--dry-run").code == 2


def test_a_part_that_was_left_alone_makes_2_although_the_rest_is_done(stage_scene):  # noqa: F811
    free, busy = stage_scene(40), stage_scene(40)
    busy.place()
    taken_by_another(busy.block)
    told = command("run", free.pipeline.slug, busy.pipeline.slug, "--json")
    assert told.code == 2
    assert [block["state"] for block in told.json["blocks"]] == ["done"]


def test_a_block_that_a_worker_takes_first_is_waited_for(scene, monkeypatch):
    """Where workers run too, they hear of the blocks of this command; who asked still wants to know what became of them."""
    real, foreign = runner.work_off, []

    def beaten(ids, **options):
        if not foreign:
            foreign.append(taken_by_another(scene.block))
        return real(ids, **options)

    def worker_ends(seconds):
        blocks.advance(foreign[0], Outcome(Counts(rows_in=0), message="nothing there", mark=ScheduleBlock.Mark.EMPTY, is_final=True))

    monkeypatch.setattr(runner, "work_off", beaten)
    monkeypatch.setattr(run_module, "sleep", worker_ends)
    told = command("run", scene.pipeline.slug)
    assert told.code == 0
    assert "a worker was quicker" in told.out
    assert "complete and empty" in told.out


def test_a_block_that_a_worker_gives_back_is_finished_by_the_command(scene, monkeypatch):
    real, foreign = runner.work_off, []

    def beaten(ids, **options):
        if not foreign:
            foreign.append(taken_by_another(scene.block))
        return real(ids, **options)

    monkeypatch.setattr(runner, "work_off", beaten)
    monkeypatch.setattr(run_module, "sleep", lambda seconds: blocks.crash(foreign[0], "gone", counts_as_attempt=False))
    assert command("run", scene.pipeline.slug).code == 0
    assert (scene.block.state, len(scene.portal_rows())) == ("done", 40)


def test_what_a_killed_worker_left_is_taken_back_where_no_tick_runs(scene):
    scene.place()
    taken_by_another(scene.block)
    ScheduleBlock.objects.update(lease_until=Now() - timedelta(seconds=1))
    assert command("run", scene.pipeline.slug).code == 0
    assert scene.block.state == "done"


def test_a_block_that_is_cancelled_meanwhile_is_no_success(scene, monkeypatch):
    real = runner.work_off

    def cancelled(ids, **options):
        blocks.cancel(scene.block.pk, actor=ANN)
        return real(ids, **options)

    monkeypatch.setattr(runner, "work_off", cancelled)
    told = command("run", scene.pipeline.slug)
    assert told.code == 1
    assert "Cancelled by ann" in told.err
    assert f"release {scene.block.pk}" in told.err


# many


def test_two_workers_over_the_same_range_do_each_block_once(stage_scene, monkeypatch):  # noqa: F811
    """Two programs, begun at the same moment, on hours whose source can't say whether they changed."""
    scene = stage_scene(480, **HOURLY)
    scene.provider.__class__.objects.update(max_parallel=4)
    span = ("--time-min", "2026-01-01-00", "--time-max", "2026-01-01-08", "--incomplete-only", "--json")
    racers = [program("run", scene.pipeline.slug, *span) for _ in range(2)]
    told = [ended(racer) for racer in racers]
    assert {one.code for one in told} <= {0, 2, 3}, [one.err for one in told]
    assert list(ScheduleBlock.objects.values_list("state", flat=True)) == ["done"] * 8
    by_stage = Counter((run.block_id, run.stage) for run in Run.objects.all())
    assert set(by_stage.values()) == {1} and len(by_stage) == 8 * 3
    assert len(scene.portal_rows()) == len(scene.warehouse()) == 480


def test_a_day_of_24_hours_goes_through_three_at_a_time(stage_scene):  # noqa: F811
    scene = stage_scene(1440, **HOURLY)
    scene.provider.__class__.objects.update(max_parallel=3)
    told = command("run", scene.pipeline.slug, *DAY, "--workers", "3", "--json")
    assert told.code == 0, told.err
    assert [block["state"] for block in told.json["blocks"]] == ["done"] * 24
    assert [block["stages"]["load"]["inserted"] for block in told.json["blocks"]] == [60] * 24
    assert told.json["blocks"] == sorted(told.json["blocks"], key=lambda block: block["window"]["starts_at"])
    assert len(scene.portal_rows()) == 1440
    runs = list(Run.objects.all())
    at_once = [sum(other.started_at <= one.started_at < other.finished_at for other in runs) for one in runs]
    assert max(at_once) == 3


# the queue


def test_queue_leaves_the_work_to_the_workers(scene):
    told = command("run", scene.pipeline.slug, "--queue", "--json")
    assert told.code == 0
    assert told.json["queued"] == [scene.block.pk]
    assert (scene.block.state, planner.queue_depth(), Run.objects.count()) == ("waiting", 1, 0)
    assert "No worker listens now." in told.err
    again = command("run", scene.pipeline.slug, "--queue", "--json")
    assert (again.code, again.json["waiting"], planner.queue_depth()) == (0, [scene.block.pk], 1)


def test_a_queue_that_is_down_is_told_and_the_blocks_wait(scene, monkeypatch):
    def down(block_id):
        raise ConnectionError("redis is away")

    monkeypatch.setattr(planner, "ring", down)
    told = command("run", scene.pipeline.slug, "--queue", "--json")
    assert told.code == 2
    assert "the queue can't be reached" in told.json["error"]
    assert "doctor" in told.json["next_step"]
    assert scene.block.state == "waiting"


# when the ground gives way


def test_a_database_that_goes_away_is_a_sentence(scene, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("server closed the connection unexpectedly\n\tThis probably means")

    monkeypatch.setattr(runner, "work_off", away)
    told = command("run", scene.pipeline.slug, "--json")
    assert told.code == 2
    assert told.json["error"] == "The database does not answer: server closed the connection unexpectedly"
    assert "doctor" in told.json["next_step"]


def test_a_wrong_setting_is_2_and_says_which(scene, settings):
    settings.LAKE_URL = "ftp://lake"
    out = ended(program("run", scene.pipeline.slug, "--json", LAKE_URL="ftp://lake"))
    assert out.code == 2
    assert "LAKE_URL" in out.json["error"]
    assert not ScheduleBlock.objects.exists()


@pytest.mark.parametrize("words", [["run", "anything"], ["status"]])
def test_without_a_database_there_is_a_sentence_and_no_traceback(words):
    told = ended(program(*words, DATABASE_URL="postgres://ann:hush-hush@127.0.0.1:1/none"))
    assert told.code == 2
    assert "Traceback" not in told.err
    assert "refused" in told.err
    assert "hush-hush" not in told.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_gives_its_blocks_back_at_once(scene, number):
    process = program("run", scene.pipeline.slug, "--json", ODO_FAULT="extract.page:1:sleep")
    try:
        until = time.monotonic() + 60
        while not ScheduleBlock.objects.filter(state=State.RUNNING, progress_total__isnull=False).exists():
            assert process.poll() is None, ended(process)
            assert time.monotonic() < until, "it never began"
            time.sleep(0.05)
        process.send_signal(number)
        told = ended(process)
    finally:
        process.kill()
    assert told.code == 130
    assert told.json["stopped"] is True
    assert [block["state"] for block in told.json["blocks"]] == ["waiting"]
    assert "--incomplete-only" in told.err
    assert (scene.block.state, scene.block.attempts, scene.last("extract").state) == ("waiting", 0, RunState.CRASHED)
    # and nothing hinders the next
    assert command("run", scene.pipeline.slug).code == 0


def test_a_reader_who_leaves_does_not_stop_the_work(scene):
    process = program("run", scene.pipeline.slug)
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=120), err) == (0, "")
    process.stderr.close()
    assert scene.block.state == "done"


def test_a_terminal_without_arrows_gets_them_as_escapes(scene):
    told = ended(program("run", scene.pipeline.slug, "--dry-run", PYTHONIOENCODING="ascii"))
    assert told.code == 0, told.err
    assert "extract \\u2192 load" in told.out


def test_help_needs_no_database():
    told = ended(program("run", "--help", DATABASE_URL="postgres://ann@127.0.0.1:1/none"))
    assert told.code == 0
    assert "3 nothing to do" in " ".join(told.out.split())
