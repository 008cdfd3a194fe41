"""`catchup`: which days a stage lacks, that a bad day keeps no other from running, where else it writes, and what it refuses."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings as conf
from django.utils import timezone

from catalog import lake
from catalog.models import AuditEntry, CatalogEntry
from opendata_ops.sandbox.soda import Portal
from pipelines import planner
from pipelines.models import Provider, ScheduleBlock, State, UpkeepJob
from pipelines.upkeep import jobs
from tests import world
from tests.pipelines.catching import catch_up, caught, here, work_off  # noqa: F401  a fixture
from tests.pipelines.commanding import command
from tests.pipelines.scene import ANN, drop_city
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, ONE, PASSWORD, TWO, Sensors, drop, edition

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]
JUNE = ("-s", "2019-06-01", "-e", "2019-06-05")
DAYS = ["06-01", "06-02"]
STEPS = ("ingest", "standardize", "ready")


@pytest.fixture
def summary(tmp_path) -> Sensors:
    """Two days of the smallest files, from a folder up to ready."""
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    return Sensors("bt-summary", tmp_path)


@pytest.fixture
def portal(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Portal(accounts={"u": PASSWORD}) as server:
        yield server
    drop_city()


@pytest.fixture
def published(tmp_path, portal) -> Sensors:
    """Two days of the smallest files, published by catching up."""
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    one = Sensors("bt-summary", tmp_path, portal=portal)
    assert days(one, "ingest", *JUNE, "--onward") == DAYS
    assert one.told() == one.due(ONE, TWO)
    return one


def days(one: Sensors, stage: str, *flags: str) -> list[str]:
    return list(dict.fromkeys(file.split()[0] for file in caught(one.slug, stage, *flags)))


def raw(one: Sensors, day: int) -> Path:
    return one.tmp_path / "drop" / f"Austin_bt_summary_15_06-0{day}-2019.txt"


# which days


def test_what_was_made_of_other_bytes_is_made_again_stage_by_stage_and_nothing_else_is(summary):
    for stage in STEPS:
        assert days(summary, stage, *JUNE) == DAYS
    before = raw(summary, 2).read_text()
    raw(summary, 2).write_text(before.splitlines()[0] + "\n")
    for stage in STEPS:
        told = catch_up(summary.slug, stage, *JUNE, "--dry-run")
        assert [(day["starts_at"][:10], day["files"][0]["why"]) for day in told.json["compared"][0]["days"]] == [("2019-06-02", "changed")]
        assert days(summary, stage, *JUNE) == ["06-02"]
        assert days(summary, stage, *JUNE) == []
    # back again: the former files are live again, and what was made of the others is not theirs
    raw(summary, 2).write_text(before)
    assert [days(summary, stage, *JUNE) for stage in STEPS] == [["06-02"]] * 3


def test_a_file_that_was_only_touched_is_looked_at_once_and_makes_nothing_else_again(summary):
    for stage in STEPS:
        caught(summary.slug, stage, *JUNE)
    os.utime(raw(summary, 1))
    assert [days(summary, "ingest", *JUNE) for _ in range(2)] == [["06-01"], []]
    assert days(summary, "standardize", *JUNE) == []


def test_another_inventory_makes_the_ready_files_again(summary):
    for stage in STEPS:
        caught(summary.slug, stage, *JUNE)
    # the first of June keeps its edition: this one is dated at its end, and the next day is still matched with the later one
    edition("bt", BLUETOOTH_UNITS[:1], TWO)
    assert [days(summary, stage, *JUNE) for stage in STEPS] == [[], [], ["06-01"]]
    assert days(summary, "ready", *JUNE) == []


def test_a_helper_that_came_late_or_is_another_one_makes_the_day_again(tmp_path):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    one, helper = Sensors("bt-unmatched", tmp_path), tmp_path / "drop" / "Austin_btmatch_06-01-2019.txt"
    text = helper.read_text()
    helper.unlink()
    assert [days(one, stage, *JUNE) for stage in STEPS] == [DAYS] * 3
    for matched in (text, text.splitlines()[0] + "\n"):
        helper.write_text(matched)
        assert [days(one, stage, *JUNE) for stage in STEPS] == [["06-01"]] * 3
        assert [days(one, stage, *JUNE) for stage in STEPS] == [[]] * 3


def test_a_bad_day_keeps_no_later_one_from_running_and_is_taken_again(summary):
    caught(summary.slug, "ingest", *JUNE)
    lost = Path(conf.LAKE_URL) / summary.names("raw")[0]
    kept = lost.read_bytes()
    lost.unlink()
    told = catch_up(summary.slug, "standardize", *JUNE)
    assert told.code == 1 and "is not in the lake" in told.err
    assert [block["state"] for block in told.json["blocks"]] == [State.FAILED, State.HELD]
    lost.write_bytes(kept)
    assert days(summary, "standardize", *JUNE) == ["06-01"]


def test_what_is_dated_today_is_left_until_somebody_names_an_end(summary):
    today = timezone.now().astimezone(ONE_ZONE).date()
    (summary.tmp_path / "drop" / f"Austin_bt_summary_15_{today:%m-%d-%Y}.txt").write_bytes(raw(summary, 1).read_bytes())
    assert days(summary, "ingest", "-s", "1") == []
    assert days(summary, "ingest", "-s", "1", "-e", f"{today + timedelta(days=1)}") == [f"{today:%m-%d}"]
    assert ScheduleBlock.objects.get(pipeline=summary.pipeline).ends_at > timezone.now()


ONE_ZONE = planner.clock.zone("America/Chicago")


def test_a_block_that_comes_to_the_stage_by_itself_keeps_its_pass(summary):
    caught(summary.slug, "ingest", *JUNE)
    later = timezone.now() + timedelta(hours=1)
    block = summary.block(ONE)
    ScheduleBlock.objects.filter(pk=block.pk).update(state=State.WAITING, stage="extract", stages=summary.pipeline.stages, due_at=later)
    told = catch_up(summary.slug, "standardize", *JUNE)
    assert "it waits for extract and comes to standardize by itself" not in told.err, "it is run here as far as it goes"
    assert [(one["state"], one["stage"]) for one in told.json["blocks"]] == [(State.HELD, "enrich"), (State.WAITING, "extract")]
    block.refresh_from_db()
    assert (block.stages, block.due_at) == (summary.pipeline.stages, later)


# as the other doors


def test_the_days_are_ordinary_blocks_with_their_audit(summary, monkeypatch):
    rung = []
    monkeypatch.setattr(planner, "async_task", lambda *message: rung.append(message))
    told = catch_up(summary.slug, "ingest", *JUNE, "--queue", "--reason", "the folder was away")
    blocks = ScheduleBlock.objects.filter(pipeline=summary.pipeline)
    assert told.code == 0 and sorted(told.json["queued"]) == sorted(blocks.values_list("pk", flat=True)) and len(rung) == 2
    assert {(one.stages[0], len(one.stages), one.trigger, one.asked_because) for one in blocks} == {("extract", 1, "command", "the folder was away")}
    audited = AuditEntry.objects.filter(reason="the folder was away").order_by("pk")
    assert [(one.verb, one.kind) for one in audited] == [("catch-up", "pipeline"), ("run", "block"), ("run", "block")]
    assert audited[0].result == "2 of 2 files, 2 days asked for."


def test_one_source_that_is_away_keeps_no_other_pipeline_from_catching_up(summary, tmp_path):
    other = Sensors("bt-matched", tmp_path)
    Provider.objects.filter(pk=other.pipeline.provider_id).update(base_url=str(tmp_path / "gone"))
    told = command("catchup", other.slug, summary.slug, "--stage", "ingest", "--workers", "1", "--json", *JUNE)
    assert told.code == 1 and "does not exist" in told.err
    assert [block["pipeline"] for block in told.json["blocks"]] == [summary.slug] * 2
    assert [one.get("error", "")[:10] for one in told.json["compared"]] == ["the folder", ""]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--stage", "ingest"), "A last_run_date or start_date must be specified."),
        (("--stage", "ingest", "-s", "soon"), "'soon' is not a time"),
        (("--stage", "ingest", "-s", "9", "-0", "--queue"), "neither simulate nor write to a folder"),
        (("--stage", "ingest", "-s", "9", "-o", "x", "--queue"), "neither simulate nor write to a folder"),
        (("--stage", "ingest", "-s", "9", "--test-resource", "x"), "--test-resource is for --debug"),
        (("--stage", "ingest", "-s", "9", "--workers", "0"), "at least 1 is needed"),
        (("--stage", "ingest", "-s", "9", "--debug", "-0"), "has no test twin yet"),
        (("--stage", "aggregate", "-s", "9"), "has no stage aggregate"),
        (("--stage", "publish", "-s", "9"), "has no stage publish"),
    ],
)
def test_what_can_not_be_done_is_refused_in_words(summary, flags, words):
    told = command("catchup", summary.slug, *flags)
    assert told.code == 2 and words in told.err


def test_a_pipeline_without_windows_or_a_source_that_lists_nothing_says_so(db):
    city = world.build(datetime(2026, 11, 21, 12, tzinfo=UTC))
    one = city.pipelines["requests"]
    told = catch_up(one.slug, "ingest", "-s", "3")
    assert told.code == 2 and "cannot say what it has" in told.err
    type(one).objects.filter(pk=one.pk).update(window_column="")
    told = catch_up(one.slug, "ingest", "-s", "3")
    assert told.code == 2 and "not by windows" in told.err


# publishing, and the folder


def test_publishing_catches_up_what_was_loaded_anew_and_not_what_is_there(published):
    assert days(published, "publish", *JUNE) == []
    raw(published, 1).write_text(raw(published, 1).read_text().splitlines()[0] + "\n")
    assert [days(published, stage, *JUNE) for stage in (*STEPS, "publish")] == [["06-01"]] * 4
    assert days(published, "publish", *JUNE) == []
    # a publication that failed is not there
    Provider.objects.filter(pk=published.pipeline.portal_id).update(secrets={})
    assert catch_up(published.slug, "publish", *JUNE, "-F").code == 1
    assert days(published, "publish", *JUNE, "--dry-run") == []


def test_every_file_and_what_was_published_is_also_written_to_the_folder(published, tmp_path):
    folder = tmp_path / "not" / "there"
    assert days(published, "standardize", *JUNE, "-F", "--onward", "-o", str(folder)) == DAYS
    live = CatalogEntry.objects.live().filter(source=published.slug, layer__in=["standard", "ready"])
    written = {path.name: path for path in folder.iterdir()}
    # the ready document has the name of the standard one
    assert {name for name in written if name.startswith("ready-")} == {
        f"ready-Austin_bt_2019-{day}_traf_match_summary.json" for day in DAYS
    }  # fmt: skip
    files = [path for name, path in written.items() if name != "v7zg-5jg9.csv"]
    assert sorted(map(lake.fingerprint, files)) == sorted(entry.sha256 for entry in live) and len(files) == 6
    lines = written["v7zg-5jg9.csv"].read_text().splitlines()
    assert lines[0].startswith("origin_reader_identifier,destination") and "device_id" not in lines[0]
    assert len(lines) == 1 + len(published.told())
    (tmp_path / "file").write_text("")
    told = catch_up(published.slug, "ready", *JUNE, "-F", "-o", str(tmp_path / "file"))
    assert told.code == 2 and "can't be written" in told.err


# every night


def test_each_night_a_day_goes_on_from_where_it_lacks_and_what_a_person_stopped_is_left(summary, tmp_path, monkeypatch):
    today = timezone.now().astimezone(ONE_ZONE).date()
    names = [today - timedelta(days=back) for back in (3, 2, 1)]
    for day in names:
        (tmp_path / "drop" / f"Austin_bt_summary_15_{day:%m-%d-%Y}.txt").write_bytes(raw(summary, 1).read_bytes())
    edition("bt", BLUETOOTH_UNITS, today)
    job = UpkeepJob.objects.create(kind="catch-up", title="Nightly", options={"days": 5})
    job.pipelines.set([summary.pipeline])

    def night() -> str:
        run = jobs.start(job, actor=ANN).run
        assert jobs.carry_out(run.pk)
        run.refresh_from_db()
        work_off(summary.pipeline.blocks.filter(state=State.WAITING).order_by("starts_at").values_list("pk", flat=True))
        return run.message

    assert night() == "1 pipeline compared over 5 days, 3 days asked for."
    blocks = list(summary.pipeline.blocks.order_by("starts_at"))
    assert [(block.state, block.asked_because) for block in blocks] == [(State.DONE, "Nightly: missing")] * 3
    assert night().endswith("0 days asked for.")
    # one is held by a person, one has been read anew
    ScheduleBlock.objects.filter(pk=blocks[0].pk).update(state=State.HELD, error_code="held")
    for day in names[:2]:
        (tmp_path / "drop" / f"Austin_bt_summary_15_{day:%m-%d-%Y}.txt").write_bytes(raw(summary, 2).read_bytes())
    assert night().endswith("1 day asked for.")
    assert [block.asked_because for block in summary.pipeline.blocks.order_by("starts_at")] == [
        "Nightly: missing",
        "Nightly: changed",
        "Nightly: missing",
    ]
    # a source that is away is told, and what is here is compared all the same
    Provider.objects.filter(pk=summary.pipeline.provider_id).update(base_url=str(tmp_path / "gone"))
    assert "extract: the folder" in night()
