"""Extract: what the source has lies in the lake, whole and counted, or the block says why not; nothing is fetched needlessly."""

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.db.models import Sum

from catalog.models import CatalogEntry, Dataset, DatasetColumn
from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.mds import Bearer, MdsServer
from opendata_ops.sandbox.mds_trips import Fleet
from pipelines import blocks, clock, planner, runner, secrets
from pipelines.connectors.base import Column
from pipelines.models import LogLine, Pipeline, Provider, Run, RunState, ScheduleBlock, State
from pipelines.planner import Order
from pipelines.stages import columns as dictionary
from tests.pipelines.scene import ANN, COLUMNS, SOURCE, SandboxTable, Scene, city, stage_scene, table, together

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

ONLY = {"stages": ["extract"], "portal": None}
_numbers = count(1)
PAGE = r"/resource/aaaa-0001\.csv"


def asked(scene: Scene) -> list[str]:
    """The addresses that the source was asked for, and forget them."""
    found = [request.target for request in scene.source.requests]
    scene.source.requests.clear()
    return found


def warnings(scene: Scene) -> list[str]:
    return list(LogLine.objects.filter(run__block__pipeline=scene.pipeline, level="warning").values_list("text", flat=True))


def test_all_rows_lie_in_the_lake_and_each_file_has_its_entry(stage_scene, lake_folder):
    scene = stage_scene(1000, **ONLY)
    block = scene.go()
    run = scene.last("extract")
    assert (block.state, block.rows, run.rows_in, run.rows_out) == (State.DONE, 1000, 1000, 1000)
    entries = CatalogEntry.objects.live().order_by("id_base")
    assert [entry.rows for entry in entries] == [400, 400, 200]
    assert run.bytes == entries.aggregate(total=Sum("bytes"))["total"]
    assert all((lake_folder / entry.pointer).stat().st_size == entry.bytes for entry in entries)
    assert {entry.window_start for entry in entries} == {block.starts_at}


def test_an_unchanged_source_costs_one_request_and_ends_the_block(stage_scene):
    scene = stage_scene(100, **ONLY)
    scene.go()
    asked(scene)
    block = scene.go()
    assert len(asked(scene)) == 1
    assert (block.state, block.mark, scene.last("extract").state) == (State.DONE, "unchanged", RunState.UNCHANGED)
    assert scene.last("extract").unchanged == 100
    assert block.rows == 100


def test_force_reads_it_all_again_and_the_lake_holds_each_file_once(stage_scene):
    scene = stage_scene(1000, **ONLY)
    scene.go()
    before = set(CatalogEntry.objects.values_list("pk", "pointer", "withdrawn_at"))
    block = scene.go(force=True)
    assert (block.state, block.is_forced) == (State.DONE, False)
    assert scene.last("extract").rows_out == 1000
    assert set(CatalogEntry.objects.values_list("pk", "pointer", "withdrawn_at")) == before


@pytest.mark.parametrize(
    "change",
    [{"columns": ["id", "name"]}, {"key": ["name", "id"]}, {"types": {"amount": "text"}}, {"version_column": ""}, {"table": "other"}],
    ids=str,
)
def test_an_unchanged_source_is_read_again_when_something_else_is_asked_of_it(stage_scene, change):
    scene = stage_scene(50, **ONLY)
    scene.go()
    scene.change(**change)
    assert scene.go().mark == ""
    assert scene.last("extract").state == RunState.DONE


def test_a_source_that_failed_later_on_is_read_again(stage_scene):
    """Only what went all the way is skipped: an extract that went well before a load that did not is no reason."""
    scene = stage_scene(50, stages=["extract", "load"], portal=None, types={"name": "boolean"})
    assert scene.go().state == State.DONE  # a name is no boolean: rejected rows, one kept
    other = stage_scene(500, stages=["extract", "load"], portal=None, types={"name": "boolean"})
    assert other.go().error_code == "mostly-rejected"
    other.again(stage="extract")
    assert [run.state for run in other.runs("extract")] == [RunState.DONE, RunState.DONE]


def test_what_the_source_no_longer_gives_is_withdrawn_and_not_erased(stage_scene, lake_folder):
    scene = stage_scene(1000, **ONLY)
    scene.go()
    held = scene.source.dataset(SOURCE)
    held.publish([{"id": f"k{n:07d}", ":deleted": True} for n in range(300, 1000)])
    scene.go()
    assert scene.lake_rows() == 300
    assert CatalogEntry.objects.count() == 4
    assert all((lake_folder / entry.pointer).exists() for entry in CatalogEntry.objects.all())


# what is wrong is named, and nothing enters


@pytest.mark.parametrize(
    ("fault", "where", "code"),
    [
        (Fault("status", code=500), "/api/views", "http-500"),
        (Fault("status", code=503, retry_after=3600), PAGE, "http-503"),
        (Fault("status", code=429, retry_after=900), PAGE, "http-429"),
        (Fault("cut"), PAGE, "cut-body"),
        (Fault("cut", end="reset"), PAGE, "cut-body"),
        (Fault("cut_chunked"), PAGE, "cut-body"),
        (Fault("cut_at_line"), PAGE, "short-page"),
        (Fault("missing_row"), PAGE, "short-page"),
        (Fault("html"), PAGE, "html-instead"),
        (Fault("empty"), PAGE, None),
        (Fault("duplicate_rows"), PAGE, "long-page"),
    ],
    ids=lambda value: value.kind + str(value.options.get("end") or "") if isinstance(value, Fault) else None,
)
def test_an_answer_that_stays_wrong_is_named_and_tried_later(stage_scene, fault, where, code):
    scene = stage_scene(1000, **ONLY)
    scene.source.fail(fault, path=where, times=99)
    block = scene.go()
    assert block.state in (State.WAITING, State.FAILED), block.message
    assert code in (None, block.error_code), (block.error_code, block.message)
    assert block.message and block.source_version == ""
    scene.source.faults.clear()
    if block.state == State.FAILED:
        assert scene.again().state == State.DONE
    else:
        assert scene.hurry().state == State.DONE
    assert scene.lake_rows() == 1000


@pytest.mark.parametrize(
    "fault", [500, 502, 503, Fault("cut"), Fault("cut", end="reset"), Fault("cut_chunked"), Fault("status", code=429, retry_after=1)], ids=str
)
def test_what_passes_is_waited_out_within_the_run(stage_scene, fault):
    scene = stage_scene(1000, **ONLY)
    scene.source.fail(fault, path=PAGE, times=2)
    block = scene.go()
    assert (block.state, block.runs.count()) == (State.DONE, 1)
    assert scene.lake_rows() == 1000


def test_other_columns_than_were_asked_for_stop_the_block_at_once(stage_scene):
    scene = stage_scene(100, **ONLY)
    scene.source.fail(Fault("wrong_columns"), path=PAGE, times=99)
    block = scene.go()
    assert (block.state, block.error_code, block.attempts) == (State.FAILED, "wrong-columns", 1)
    assert block.next_step


def test_a_column_that_is_gone_is_named(stage_scene):
    scene = stage_scene(100, columns=["id", "name", "amount"], version_column="", **ONLY)
    scene.source.alter(SOURCE, remove=["amount"])
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "columns-gone")
    assert "amount" in block.message


@pytest.mark.parametrize("fault", [Fault("edit", fraction=0, add=7), Fault("touch")], ids=["rows are added", "only touched"])
def test_a_source_that_moves_while_it_is_read_is_read_again(stage_scene, fault):
    scene = stage_scene(1000, **ONLY)
    scene.source.dataset(SOURCE).clock = lambda: 2_000_000_000  # another second than before
    scene.source.fail(fault, path=PAGE)
    block = scene.go()
    if fault.kind == "edit":
        assert (block.state, block.error_code) == (State.WAITING, "source-moved")
        assert scene.hurry().state == State.DONE
        assert scene.lake_rows() == 1007
    else:
        assert block.state == State.DONE
        assert any("changed while it was read" in text for text in warnings(scene))
        assert scene.go().mark == ""  # not taken for unchanged
        assert scene.go().mark == "unchanged"


def test_a_fetch_that_broke_off_leaves_no_mix_to_load(stage_scene):
    """Page 1 is new and page 2 is old: together they are nobody's data."""
    scene = stage_scene(1000, stages=["extract", "load"], portal=None, pages_in_flight=1)
    scene.go()
    before = scene.warehouse()
    scene.source.edit(SOURCE, 0.5)
    scene.source.fail(Fault("status", code=500), path=r"offset=400", times=99)
    assert scene.go().state == State.WAITING
    block = scene.again(stage="load")
    assert (block.state, block.error_code) == (State.FAILED, "mixed-files")
    assert scene.warehouse() == before
    scene.source.faults.clear()
    assert scene.again(stage="extract").state == State.DONE
    assert scene.warehouse() != before


# nothing there


def test_a_source_without_rows_is_empty_and_a_source_that_lost_them_is_suspicious(stage_scene):
    scene = stage_scene(table(0), **ONLY)
    assert scene.go().mark == "empty"
    other = stage_scene(60, stages=["extract", "load"], portal=None)
    other.go()
    other.source.dataset(SOURCE).publish([], replace=True)
    block = other.go()
    assert (block.state, block.mark) == (State.DONE, "suspicious")
    assert "were left as they are" in Run.objects.filter(block=block, stage="extract").first().message
    assert len(other.warehouse()) == 60


def windowed(stage_scene, rows: int = 2000, **fields) -> Scene:
    """Rows a minute apart from 1 January 2026 on, in windows of an hour."""
    return stage_scene(rows, window_column="updateddate", cadence="hourly", time_zone="UTC", starts_on=datetime(2026, 1, 1).date(), **fields)


def hours(scene: Scene, first: int, last: int, **order) -> list[ScheduleBlock]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    order = Order([scene.pipeline], starts_at=start + timedelta(hours=first), ends_at=start + timedelta(hours=last), which="all", **order)
    runner.work_off(planner.place(order, actor=ANN, bell=False).moved, workers=3)
    return list(ScheduleBlock.objects.filter(pipeline=scene.pipeline).order_by("starts_at"))


def test_each_window_holds_its_own_rows_and_together_they_are_all(stage_scene):
    scene = windowed(stage_scene, 200, **ONLY)
    found = hours(scene, 0, 5)
    assert [(block.state, block.rows, block.mark) for block in found] == [
        *[(State.DONE, 60, "")] * 3, (State.DONE, 20, ""), (State.DONE, 0, "empty"),
    ]  # fmt: skip


def test_a_window_that_lost_its_rows_is_suspicious(stage_scene):
    scene = windowed(stage_scene, 60, **ONLY)
    hours(scene, 0, 1)
    scene.source.dataset(SOURCE).publish([], replace=True)
    [block] = hours(scene, 0, 1, force=True)
    assert block.mark == "suspicious"


def test_local_windows_meet_around_the_hour_that_comes_twice(stage_scene):
    """Los Angeles, 1 November 2026: the window column is in local time, the windows are UTC hours; no row is lost or doubled."""
    moments = [datetime(2026, 11, 1) + timedelta(minutes=15 * n) for n in range(16)]
    rows = [(f"k{n}", "x", "1", True, None, moment.isoformat(timespec="milliseconds")) for n, moment in enumerate(moments)]
    scene = stage_scene(
        SandboxTable(SOURCE, "Autumn", COLUMNS, rows, key="id"),
        window_column="updateddate", cadence="hourly", starts_on=datetime(2026, 10, 30).date(), **ONLY,
    )  # fmt: skip
    start = clock.day_start(datetime(2026, 11, 1).date(), "America/Los_Angeles")
    order = Order([scene.pipeline], starts_at=start, ends_at=start + timedelta(hours=5), which="all")
    runner.work_off(planner.place(order, actor=ANN, bell=False).moved, workers=1)
    found = list(ScheduleBlock.objects.order_by("starts_at"))
    assert len(found) == 5 and {block.state for block in found} == {State.DONE}
    assert sum(block.rows for block in found) == 16


# a source that cannot count, and whose hours may not be ready: an operator's MDS

HOUR = datetime(2026, 3, 8, 10, tzinfo=UTC)


class Operator:
    """A pipeline of an operator's trips, by the hour."""

    def __init__(self, server: MdsServer, **fields):
        self.server = server
        name = f"op{next(_numbers)}_{os.getpid()}"
        self.provider = Provider.objects.create(
            slug=name, title="Redwing", kind="mds", base_url=server.url, max_parallel=1,
            parameters={"version": server.version, "provider_id": "p-1", "auth_type": "bearer"},
            secrets={"token": secrets.seal(Bearer().token)},
        )  # fmt: skip
        dataset = Dataset.objects.create(slug=name, title="Trips")
        values = {
            "resource": "trips", "format": "mds_trips", "cadence": "hourly", "window_column": "end_time", "key": ["provider_id", "trip_id"],
            "table": name, "time_zone": "America/Chicago", "starts_on": HOUR.date(), "stages": ["extract"], **fields,
        }  # fmt: skip
        self.pipeline = Pipeline(slug=name, title="Trips", provider=self.provider, dataset=dataset, **values)
        self.pipeline.full_clean(exclude=["portal"])
        self.pipeline.save()

    def go(self, hours: int = 1, first: datetime = HOUR, **order) -> list[ScheduleBlock]:
        order = Order([self.pipeline], starts_at=first, ends_at=first + timedelta(hours=hours), which="all", **order)
        runner.work_off(planner.place(order, actor=ANN, bell=False).moved, workers=1)
        return list(ScheduleBlock.objects.filter(pipeline=self.pipeline, starts_at__gte=first).order_by("starts_at"))

    def files(self, block: ScheduleBlock) -> list[CatalogEntry]:
        return list(CatalogEntry.objects.live().filter(source=self.pipeline.slug, window_start=block.starts_at).order_by("id_base"))


@pytest.fixture
def operator(stage_scene):
    """A maker of operators' pipelines: `operator(version="1.2", fields={…}, hourly=9)`."""
    made = []

    def make(version="1.2", *, fields=None, hourly=9, **options):
        made.append(MdsServer(Fleet("Redwing", seed="extract", hourly=hourly, devices=5), version=version, auth=Bearer(), **options).start())
        return Operator(made[-1], **fields or {})

    yield make
    for server in made:
        server.stop()


def test_the_trips_of_an_hour_lie_in_the_lake_page_by_page_with_all_that_is_needed_to_read_them(operator, lake_folder):
    scene = operator("0.3", page_size=4)
    [block] = scene.go()
    run = block.runs.get()
    assert (block.state, block.rows, block.mark, run.rows_in, run.rows_out) == (State.DONE, 9, "", 9, 9)
    files = scene.files(block)
    assert [(file.id_base, file.rows) for file in files] == [("trips", 4), ("trips-00002", 4), ("trips-00003", 1)]
    about = files[0].metadata
    assert (about["provider_id"], about["version"], about["starts_at"], about["vouched"]) == ("p-1", "0.3", "2026-03-08T10:00:00Z", False)
    page = json.loads((lake_folder / files[0].pointer).read_bytes())
    assert len(page["data"]["trips"]) == 4
    assert Bearer().token not in f"{files[0].origin} {about} {list(LogLine.objects.values_list('text', flat=True))}"


def test_an_empty_hour_does_not_end_the_range_and_a_name_full_of_quotes_reaches_the_table(operator):
    """Two of the cases of facts/mds.md §5 that upstream failed on."""
    scene = operator("1.2", fields={"stages": ["extract", "standardize", "load"]})
    fleet = scene.server.fleet
    fleet.name, made = """O'Brien "Wheels", Inc.""", fleet._made
    fleet._made = lambda hour: [] if hour == HOUR else made(hour)
    first, second, third = scene.go(hours=3)
    assert [(one.state, one.mark, one.rows) for one in (first, second, third)] == [("done", "empty", 0), ("done", "", 9), ("done", "", 9)]
    assert city(f"select provider_name, count(*) from city.{scene.pipeline.table} group by 1") == [(fleet.name, 18)]


def test_what_is_told_of_vehicles_lies_beside_the_trips_and_is_not_counted_as_rows(operator):
    scene = operator("2.0")
    [block] = scene.go()
    files = scene.files(block)
    told = [file for file in files if file.metadata.get("role") == "vehicles"]
    assert (block.rows, len(files) - len(told)) == (9, 1) and told
    assert f"9 rows in 1 file and {len(told)} of vehicles" in block.message


@pytest.mark.parametrize(
    ("scripted", "state", "mark", "code"),
    [
        (404, State.WAITING, "", "no-service-yet"),
        (202, State.WAITING, "", "not-ready"),
        (102, State.WAITING, "", "not-ready"),
        (429, State.WAITING, "", "rate-limited"),
        (500, State.WAITING, "", "http-500"),
        (401, State.FAILED, "", "credentials-refused"),
        (400, State.FAILED, "", "request-refused"),
        (406, State.FAILED, "", "version-refused"),
        (410, State.FAILED, "", "gone"),
    ],
)
def test_each_answer_of_an_hour_is_a_state_of_its_own(operator, scripted, state, mark, code):
    scene = operator("1.2")
    scene.server.script(HOUR, scripted, times=9, **({"retry_after": 900} if scripted == 429 else {}))
    [block] = scene.go()
    assert (block.state, block.mark, block.error_code) == (state, mark, code), block.message
    assert "127.0.0.1" in block.message and scene.files(block) == []
    assert block.attempts == (1 if code in ("rate-limited", "http-500", "credentials-refused", "request-refused", "version-refused", "gone") else 0)
    if code == "rate-limited":
        scene.provider.refresh_from_db()
        assert scene.provider.blocked_until > block.changed_at + timedelta(minutes=14)  # none of its other hours asks before


def test_no_service_ends_the_hour_before_its_later_stages_and_an_empty_hour_does_not(operator):
    fields = {"stages": ["extract", "load"]}
    scene = operator("1.2", fields=fields, closes=HOUR)
    scene.go()
    [block] = scene.go()
    assert (block.state, block.mark, [run.stage for run in block.runs.all()]) == (State.DONE, "no-service", ["extract"] * 2)
    assert block.rows == 0 and "check the address" in block.message
    quiet = operator("1.2", hourly=0)
    [block] = quiet.go()
    assert (block.state, block.mark, [file.rows for file in quiet.files(block)]) == (State.DONE, "empty", [0])


def test_an_operator_that_says_once_by_mistake_that_it_did_not_operate_is_asked_again(operator):
    scene = operator("1.2")
    scene.server.script(HOUR, 404)
    [block] = scene.go()
    assert (block.state, block.error_code) == (State.WAITING, "no-service-yet") and "before that is believed" in block.message
    [block] = scene.go()
    assert (block.state, block.mark, block.rows) == (State.DONE, "", 9)


def test_an_hour_that_had_trips_and_is_no_service_now_is_suspicious_and_loses_nothing(operator):
    scene = operator("1.2")
    scene.go()
    scene.server.script(HOUR, 404, times=2)
    scene.go(force=True)
    [block] = scene.go(force=True)
    assert (block.state, block.mark) == (State.DONE, "suspicious") and "had 9 rows before" in block.message
    assert [file.rows for file in scene.files(block)] == [9]


@pytest.mark.parametrize("version", ["0.2", "2.0"])
def test_neighbouring_hours_hold_each_trip_once_though_0_2_is_asked_wider(operator, version):
    scene = operator(version, fields={"stages": ["extract", "standardize"]})
    found = scene.go(hours=3)
    out = [block.runs.get(stage="standardize") for block in found]
    truth = [len(scene.server.trips(HOUR + timedelta(hours=n))) for n in range(3)]
    assert ([run.rows_out for run in out], [run.rejected for run in out]) == (truth, [0, 0, 0])
    assert [run.rows_in for run in out] == [block.rows for block in found]


def test_raw_files_lie_where_atd_mds_laid_them_if_the_pipeline_says_so(operator, lake_folder):
    scene = operator("1.2", fields={"raw_names": "atd-mds"})
    [block] = scene.go()
    [file] = scene.files(block)
    assert file.pointer.endswith(f"/{scene.provider.slug}/2026/3/8/5/trips.json") and (lake_folder / file.pointer).exists()


# the dictionary


def test_the_dictionary_follows_the_source_and_a_stewards_words_stay(stage_scene):
    scene = stage_scene(20, **ONLY)
    scene.go()
    assert list(scene.dataset.columns.values_list("name", "type", "is_published"))[:3] == [
        ("id", "text", True), ("name", "text", True), ("amount", "number", True),
    ]  # fmt: skip
    DatasetColumn.objects.filter(name="name").update(label="Who it was", description="As signed.", is_published=False)
    scene.source.alter(SOURCE, add={"phone": "text"}, retype={"open": "text"})
    scene.source.touch(SOURCE)
    scene.go(force=True)
    kept = scene.dataset.columns.get(name="name")
    assert (kept.label, kept.description, kept.is_published) == ("Who it was", "As signed.", False)
    assert scene.dataset.columns.get(name="open").type == "text"
    assert any("New columns at the source: phone" in text for text in warnings(scene))
    assert any("open was boolean and is text now" in text for text in warnings(scene))


def test_a_column_that_appears_later_stays_inside_until_a_steward_lets_it_out(stage_scene):
    scene = stage_scene(30)
    scene.go()
    scene.source.alter(SOURCE, add={"home_phone": "text"})
    scene.source.dataset(SOURCE).publish([{"id": "k0000001", "home_phone": "555-0199"}])
    block = scene.go(force=True)
    assert block.state == State.DONE, block.message  # a drift does not stop the portal either
    assert scene.warehouse("id, home_phone")[1] == ("k0000001", "555-0199")
    assert not scene.dataset.columns.get(name="home_phone").is_published
    assert "home_phone" not in scene.portal.dataset("bbbb-0001").names


def test_two_foundthat_write_the_same_dictionary_at_once_do_not_meet(stage_scene):
    scene = stage_scene(10, **ONLY)
    columns = tuple(Column(name=name, type="text") for name, _ in COLUMNS)

    class Quiet:
        def warn(self, text):
            pass

    for _ in range(5):
        DatasetColumn.objects.all().delete()
        together(lambda: dictionary.describe_columns(scene.pipeline, columns, Quiet()), times=4)
        assert DatasetColumn.objects.count() == len(COLUMNS)


def test_a_run_that_is_forced_stays_forced_through_its_retries_and_no_longer(stage_scene):
    scene = stage_scene(100, **ONLY)
    scene.go()
    scene.source.fail(Fault("status", code=500), path=PAGE, times=99)
    assert scene.go(force=True).is_forced
    scene.source.faults.clear()
    block = scene.hurry()
    assert (block.state, block.is_forced, scene.last("extract").state) == (State.DONE, False, RunState.DONE)
    assert not blocks.is_due(block.pk)
