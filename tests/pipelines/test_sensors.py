"""Sensors from raw days to the portal, through the real stages: what is published is what was always published, and no row is lost on the way."""

from datetime import date, timedelta

import pytest

from catalog.models import CatalogEntry, DatasetColumn
from opendata_ops.sandbox.soda import Portal
from pipelines import blocks
from pipelines.errors import DataError, SetupError, TransientError
from pipelines.faults import InjectedFault
from pipelines.formats import sensors
from pipelines.models import RejectedRow, Run, RunState, ScheduleBlock, State
from pipelines.selectors.chain import reconcile
from pipelines.stages import documents, ready
from tests.pipelines.formats.gridsmart_samples import BASE, NB, SB, UNIT, layout_b, v8
from tests.pipelines.formats.sensing import RADAR_HEAD, STRAY, needs_the_original, raw_day
from tests.pipelines.scene import drop_city
from tests.pipelines.sensor_days import (
    BLUETOOTH_UNITS,
    ONE,
    PASSWORD,
    RADAR_UNITS,
    TWO,
    Sensors,
    camera_day,
    drop,
    drop_the_original,
    edition,
    window,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def portal(settings):
    """A portal that takes what the sensors' pipelines publish; their tables in the warehouse are gone afterwards."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Portal(accounts={"u": PASSWORD}) as server:
        yield server
    drop_city()


def chain(block: ScheduleBlock):
    """The block's rows, hop by hop, which must add up."""
    found = reconcile(block.runs.all(), block.pipeline.stages)
    assert found.adds_up, found.sentence
    return found


# Bluetooth and radar


@pytest.mark.parametrize("slug", ["bt-unmatched", "bt-matched", "bt-summary", "radar-counts"])
def test_what_is_published_are_the_rows_of_known_sensors_with_their_ids_and_numbers(portal, tmp_path, slug):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS), edition("wt", RADAR_UNITS)
    one = Sensors(slug, tmp_path, portal=portal)
    for block in one.run(ONE, TWO):
        assert block.state == State.DONE
        chain(block)
    assert one.told() == one.due(ONE, TWO)


@needs_the_original
@pytest.mark.parametrize("slug", ["bt-matched", "bt-summary", "radar-counts"])
def test_what_is_published_is_what_the_original_published(portal, tmp_path, slug):
    drop_the_original(tmp_path / "drop")
    one = Sensors(slug, tmp_path, portal=portal)
    for block in one.run(ONE, TWO):
        assert block.state == State.DONE
        chain(block)
    assert one.told() == one.golden(ONE) + one.golden(TWO)


@needs_the_original
def test_addresses_are_numbered_once_a_day_across_files(portal, tmp_path):
    drop_the_original(tmp_path / "drop")
    one = Sensors("bt-unmatched", tmp_path, portal=portal)
    one.run(ONE, TWO)
    told = one.told()
    assert told[:3] == one.golden(ONE)
    # the original began anew at 1 for each file of every day but the first
    first, *others = one.golden(TWO)
    assert told[4:] == others
    assert told[3] == {**first, "device_address": "3", "record_id": told[3]["record_id"]} and told[3]["record_id"] != first["record_id"]


def test_a_row_of_an_unknown_reader_is_rejected_and_told(portal, tmp_path):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    one = Sensors("bt-unmatched", tmp_path, portal=portal)
    [block] = one.run(ONE)
    [row] = RejectedRow.objects.filter(block=block)
    assert row.reason == "reader_id is no device of the inventory" and row.value == STRAY
    assert row.file == "rawjson/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.json" and row.raw["host_timestamp"] == "2019-06-01 00:02:30-05:00"
    assert (block.rejected, block.mark) == (1, "")
    assert chain(block).sentence == (
        "4 at the source = 4 in the lake = 4 in the standard file = 3 in the ready file + 1 rejected"
        " = 3 in the warehouse + 0 rejected + 0 duplicates = 3 on the portal"
    )


def test_files_lie_where_the_original_laid_them_and_say_what_they_were_made_of(tmp_path):
    drop(tmp_path / "drop")
    units = edition("bt", BLUETOOTH_UNITS)
    one = Sensors("bt-unmatched", tmp_path)
    one.run(ONE)
    assert one.names("raw") == ["raw/2019/06/01/bt/Austin_bt_2019-06-01_matched.txt", "raw/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt"]
    assert one.names("standard") == [
        "rawjson/2019/06/01/bt/Austin_bt_2019-06-01_matched.json", "rawjson/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.json"
    ]  # fmt: skip
    assert one.names("ready") == [
        "ready/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.json", "ready/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.rows.csv"
    ]  # fmt: skip
    helper, made = one.files("standard")
    document, table = one.files("ready")
    assert (helper.metadata["role"], made.metadata["role"], document.metadata["role"]) == ("matched", "document", "document")
    assert document.metadata["inputs"] == table.metadata["inputs"] == [made.sha256, helper.sha256]
    assert document.metadata["inventory"] == {"code": "bt", "sha256": units.sha256, "date": "2019-06-20"}
    assert document.metadata["header"] == one.document("ready", "Austin", "unmatched.json")["header"]
    assert "role" not in table.metadata and (table.rows, document.rows, made.rows, helper.rows) == (3, 3, 4, 2)


def test_files_of_a_twin_lie_in_the_repositories_for_tests(tmp_path):
    drop(tmp_path / "drop")
    edition("wt", RADAR_UNITS)
    one = Sensors("radar-counts", tmp_path, twin_of=Sensors("radar-counts", tmp_path).pipeline)
    one.run(ONE)
    assert [one.names(layer)[0].split("/")[0] for layer in ("raw", "standard", "ready")] == ["raw-test", "rawjson-test", "ready-test"]


def test_sensors_are_read_day_by_day(tmp_path):
    one = Sensors("radar-counts", tmp_path, cadence="weekly")
    one.give(("Austin", "csv", b"x\n"))
    ScheduleBlock.objects.update(ends_at=window(TWO)[1])
    with pytest.raises(SetupError, match="longer than a day"):
        one.do("standardize")


def test_what_stays_inside_is_in_the_table_and_not_on_the_portal(portal, tmp_path):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    one = Sensors("bt-matched", tmp_path, portal=portal)
    one.run(ONE)
    columns = DatasetColumn.objects.filter(dataset=one.pipeline.dataset)
    assert set(columns.filter(is_published=False).values_list("name", flat=True)) == {"origin_device_id", "dest_device_id"}
    assert list(one.table.names) == [name for name, _ in one.public]


def test_sensors_are_observed_as_they_are_standardized(tmp_path):
    drop(tmp_path / "drop")
    one, other = Sensors("bt-unmatched", tmp_path), Sensors("radar-counts", tmp_path)
    for camera in (one, other):
        camera.do("extract")
    seen = one.do("standardize").details["observations"]
    first, last = "2019-06-01T05:00:03+00:00", "2019-06-01T05:01:40+00:00"
    assert {name: about["value"] for name, about in seen.items()} == {"elm_2nd": 1, "oak_2nd": 2, STRAY: 1}
    assert seen["oak_2nd"] == {"value": 2, "rows": 2, "first": first, "last": last, "unit": "Unmatched Entries"}
    counted = other.do("standardize").details["observations"]
    assert {name: about["value"] for name, about in counted.items()} == {"OAKSECOND": 76, "ELSEWHERE": 0}


@pytest.mark.parametrize("slug", ["bt-unmatched", "radar-counts"])
def test_every_stage_twice_is_harmless(portal, tmp_path, slug):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS), edition("wt", RADAR_UNITS)
    one = Sensors(slug, tmp_path, portal=portal)
    one.run(ONE)
    entries, told = list(CatalogEntry.objects.order_by("pk").values()), one.told()
    one.run(ONE)
    assert list(CatalogEntry.objects.order_by("pk").values()) == entries, "the same files, byte for byte, in the same places"
    assert one.told() == told
    assert RejectedRow.objects.count() == 2 and RejectedRow.objects.filter(replayed_at=None).count() == 1
    chain(one.block())


def test_a_day_that_no_inventory_comes_after_fails_with_what_to_do(tmp_path):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS, ONE)
    one = Sensors("bt-matched", tmp_path)
    one.do("extract"), one.do("standardize")
    with pytest.raises(SetupError, match="no edition dated after 2019-06-01") as told:
        one.do("enrich")
    assert told.value.code == "no-inventory"
    assert one.names("ready") == []


def test_another_inventory_makes_other_files_and_keeps_the_old_ones(tmp_path):
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS[:1])
    one = Sensors("bt-unmatched", tmp_path)
    [*_] = one.run(ONE)
    assert one.files("ready")[0].rows == 2
    edition("bt", BLUETOOTH_UNITS, TWO)
    assert one.do("enrich").rows_out == 3
    live = one.files("ready")
    assert [entry.rows for entry in live] == [3, 3] and live[0].metadata["inventory"]["date"] == "2019-06-02"
    assert CatalogEntry.objects.filter(source=one.slug, layer="ready").exclude(withdrawn_at=None).count() == 2


def test_a_day_without_a_line_goes_all_the_way(portal, tmp_path):
    edition("wt", RADAR_UNITS)
    one = Sensors("radar-counts", tmp_path, portal=portal)
    one.give(("Austin", "csv", f"{RADAR_HEAD}\n".encode()), rows={"csv": 0})
    for stage in one.pipeline.stages[1:]:
        one.do(stage)
    assert one.told() == [] and one.files("ready")[0].rows == 0


def test_a_raw_file_of_fewer_rows_than_were_counted_fails_the_stage(tmp_path):
    one = Sensors("radar-counts", tmp_path)
    one.give(("Austin", "csv", raw_day("radar", ONE).encode()), rows={"csv": 5})
    with pytest.raises(DataError, match="has 4 rows; 5 were counted") as told:
        one.do("standardize")
    assert told.value.code == "rows-lost"


def test_sensors_without_the_code_of_their_inventory_say_so(tmp_path):
    one = Sensors("radar-counts", tmp_path, inventory="", raw_names="own")
    one.give(("Austin", "csv", b"x\n"))
    with pytest.raises(SetupError, match="does not say which inventory"):
        one.do("standardize")


# cameras

OTHER = "Lamar_Oltorf"
UNITS = [
    UNIT,
    {**UNIT, "atd_device_id": "7000", "device_ip": "10.0.0.8", "primary_st": "LAMAR BLVD", "cross_st": "OLTORF ST", "lat": 30.2, "lon": -97.8},
]
FAST = timedelta(minutes=2)


def a_camera(tmp_path, **fields) -> Sensors:
    edition("gs", UNITS)
    return Sensors("camera-counts", tmp_path, **fields)


def test_vehicles_become_the_quarter_hours_that_the_original_published(portal, tmp_path):
    one = a_camera(tmp_path, portal=portal)
    one.give(*camera_day())
    one.give(*camera_day(day=TWO, layout=layout_b), day=TWO)
    for day in (ONE, TWO):
        for stage in one.pipeline.stages[1:]:
            one.do(stage, day)
        chain(one.block(day))
    told = one.told()
    assert [row["volume"] for row in told] == ["2", "1", "1", "1", "1"] * 2
    assert [row["record_id"] for row in told[:2]] == ["dc18dd0c4eb50ead5b2b30eab9ece1ad", "697f36c5f6a3d28a2e2c1958fc4334a1"]
    assert (told[0]["read_date"], told[0]["speed_average"], told[5]["read_date"]) == ("2019-06-01T00:00:00.000", "38.0", "2019-06-02T00:00:00.000")
    assert chain(one.block()).sentence == (
        "1 at the source = 1 in the lake → 7 in the standard file = 6 in the ready file + 1 duplicate → 5 in the aggregated file"
        " = 5 in the warehouse + 0 rejected + 0 duplicates = 5 on the portal"
    )


def test_documents_of_cameras_lie_where_the_original_laid_them(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day(zones={NB: [v8("10.0")]}), asked=TWO)
    for stage in ("standardize", "enrich", "aggregate"):
        one.do(stage)
    zone = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
    assert one.names("standard") == [
        f"rawjson/2019/06/01/gs/{BASE}_gs_2019-06-01_{zone}.json",
        f"rawjson/2019/06/02/gs/{BASE}_gs_2019-06-02_site.json",
    ]
    assert one.names("ready") == [f"ready/2019/06/01/gs/{BASE}_gs_2019-06-01_counts.json"]
    assert one.names("aggregated") == [f"ready/2019/06/01/gs/{BASE}_gs_2019-06-01_agg15.{end}" for end in ("json", "rows.csv")]
    counts = one.document("ready", BASE, "counts.json")
    assert list(counts) == ["header", "counts", "site", "device"] and counts["device"]["atd_device_id"] == "6945"
    assert one.files("aggregated")[0].metadata["inputs"] == [one.files("ready")[0].sha256]
    assert one.files("aggregated")[1].metadata["columns"][0] == ["atd_device_id", "text"]


def test_every_stage_of_cameras_twice_is_harmless(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day())
    entries = None
    for _ in range(2):
        runs = [one.do(stage) for stage in ("standardize", "enrich", "aggregate")]
        assert [(run.rows_in, run.rows_out, run.duplicates) for run in runs] == [(7, 7, 0), (7, 6, 1), (6, 6, 0)]
        found = list(CatalogEntry.objects.order_by("pk").values())
        assert entries in (None, found)
        entries = found


@pytest.mark.parametrize("point", ["standardize.page", "ready.group", "aggregate.document"])
def test_a_stage_that_dies_between_two_files_is_finished_by_the_next_attempt(tmp_path, monkeypatch, point):
    stages = ("standardize", "enrich", "aggregate")
    files = [*camera_day(), *camera_day(base=OTHER)]
    one, other = a_camera(tmp_path), Sensors("camera-counts", tmp_path)
    for camera in (one, other):
        camera.give(*files)
    whole = [(run.rows_in, run.rows_out, run.duplicates) for run in map(other.do, stages)]
    found = []
    for stage in stages:
        if stage == {"standardize.page": "standardize", "ready.group": "enrich", "aggregate.document": "aggregate"}[point]:
            monkeypatch.setenv("ODO_FAULT", f"{point}:2:raise")
            with pytest.raises(InjectedFault):
                one.do(stage)
            monkeypatch.delenv("ODO_FAULT")
            blocks.fail(Run.objects.get(block=one.block(), state=RunState.RUNNING), DataError("died"))
        found.append(one.do(stage))
    assert [(run.rows_in, run.rows_out, run.duplicates) for run in found] == whole
    for layer in ("standard", "ready", "aggregated"):
        made = [[(entry.id_base, entry.id_ext, entry.rows) for entry in camera.files(layer)] for camera in (one, other)]
        assert made[0] == made[1] and made[0], layer


def test_an_intersection_whose_clock_is_off_waits_for_its_neighbour_and_the_others_go_on(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day(FAST), *camera_day(base=OTHER))
    one.do("standardize")
    run = one.do("enrich")
    assert [entry.id_base for entry in one.files("ready")] == [OTHER]
    assert run.details["held"] == [{"base": BASE, "days": [1], "rows": 7}]
    assert run.message.endswith(f"7 rows held back until a neighbour day comes: {BASE} lacks the day after.")
    assert one.block().mark == "suspicious" and (run.rows_in, run.details["taken"]) == (7, 14)
    assert one.do("aggregate").rows_in == 6
    chain(one.block())


def test_when_the_neighbour_comes_the_day_is_made_whole(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day(FAST))
    for stage in ("standardize", "enrich", "aggregate"):
        one.do(stage)
    assert (one.block().state, one.block().mark) == (State.DONE, "suspicious")
    # its clock is two minutes ahead: what it writes at 00:01 happened at 23:59 of the day before
    one.give(*camera_day(FAST, day=TWO, zones={NB: [v8("100.5"), v8("500.0")], SB: []}), day=TWO)
    one.do("standardize", TWO)
    one.do("enrich", TWO)
    waiting = one.block()
    assert (waiting.state, waiting.stage, waiting.asked_by) == (State.WAITING, "enrich", "schedule")
    assert waiting.asked_because == f"{BASE} waited for 2019-06-02"
    run = one.do("enrich")
    assert run.details["held"] == [] and (run.rows_in, run.details["taken"]) == (9, 7)
    times = [row["timestamp_adj"] for row in one.document("ready", BASE, "counts.json")["counts"]]
    assert times[-1] == "2019-06-01 23:59:00.500000-05:00" and times == sorted(times) and len(times) == 5
    [entry] = one.files("ready")
    assert {neighbour.sha256 for neighbour in one.files("standard", TWO) if neighbour.rows} <= set(entry.metadata["inputs"])
    one.do("aggregate")
    chain(one.block())
    assert (one.block().state, one.block().mark, one.block().message) == (State.DONE, "", "5 of 5 vehicles in 4 rows")
    # nothing is asked for again once it is whole
    one.do("enrich", TWO)
    assert one.block().state == State.DONE


def test_a_neighbour_that_comes_again_with_other_vehicles_is_taken_anew(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day(FAST))
    one.give(*camera_day(FAST, day=TWO), day=TWO)
    one.do("standardize"), one.do("standardize", TWO)
    for stage in ("enrich", "aggregate"):
        one.do(stage)
    one.do("enrich", TWO)
    assert one.block().state == State.DONE, "nothing has changed"
    before = one.files("ready")
    one.give(*camera_day(FAST, day=TWO, zones={NB: [v8("100.5"), v8("101.5")], SB: []}), day=TWO)
    one.do("standardize", TWO), one.do("enrich", TWO)
    assert (one.block().state, one.block().stage) == (State.WAITING, "enrich")
    one.do("enrich")
    assert one.files("ready") != before and one.files("ready")[0].rows == 6
    one.do("aggregate")
    one.do("enrich", TWO)
    assert one.block().state == State.DONE


def test_a_day_that_somebody_holds_is_not_woken(tmp_path):
    one = a_camera(tmp_path)
    one.give(*camera_day(FAST))
    for stage in ("standardize", "enrich", "aggregate"):
        one.do(stage)
    ScheduleBlock.objects.update(state=State.HELD, error_code="unpublished")
    one.give(*camera_day(FAST, day=TWO), day=TWO)
    one.do("standardize", TWO)
    run = one.do("enrich", TWO)
    assert one.block().state == State.HELD
    assert run.lines.filter(text__contains=f"{BASE} waited for 2019-06-02, and").exists()


def test_a_format_without_counts_of_its_own_is_not_aggregated(tmp_path):
    one = Sensors("radar-counts", tmp_path, stages=["extract", "standardize", "enrich", "aggregate"])
    with pytest.raises(SetupError, match="Nothing is known that counts"):
        one.do("aggregate")


@pytest.mark.parametrize(("drift", "option"), [(FAST, "ignore_next"), (-FAST, "ignore_previous")])
def test_a_day_may_be_done_without_its_neighbour(tmp_path, drift, option):
    one = a_camera(tmp_path, options={"area": "Austin", option: True})
    one.give(*camera_day(drift))
    one.do("standardize")
    run = one.do("enrich")
    days = 1 if option == "ignore_next" else -1
    assert (run.details["held"], run.details["without"], one.block().mark) == ([], [{"base": BASE, "days": [days]}], "")
    assert [entry.id_ext for entry in one.files("ready")] == ["counts.json"]
    one.do("aggregate")
    # and is made whole all the same when it comes
    neighbour = ONE + timedelta(days=days)
    one.give(*camera_day(drift, day=neighbour), day=neighbour)
    one.do("standardize", neighbour), one.do("enrich", neighbour)
    assert one.block().stage == "enrich"
    assert one.do("enrich").details["without"] == []


def test_a_neighbour_that_comes_while_the_day_is_held_back_is_not_missed(tmp_path, monkeypatch):
    one = a_camera(tmp_path)
    one.give(*camera_day(FAST))
    one.do("standardize")

    desk = ready.Desk

    def meanwhile(*given):
        monkeypatch.setattr(ready, "Desk", desk)
        one.give(*camera_day(FAST, day=TWO), day=TWO)
        one.do("standardize", TWO)
        return desk(*given)

    monkeypatch.setattr(ready, "Desk", meanwhile)
    with pytest.raises(TransientError, match=f"The day after of {BASE} came meanwhile"):
        one.do("enrich")
    assert one.block().state == State.WAITING
    assert one.do("enrich").details["held"] == []


def test_a_zip_that_cannot_be_read_is_one_rejected_record_and_stops_no_other(tmp_path):
    one = a_camera(tmp_path)
    (base, ext, body), site = camera_day()
    one.give((base, ext, body[:100]), site, *camera_day(base=OTHER))
    run = one.do("standardize")
    assert (run.rows_in, run.rows_out, run.rejected, run.details["taken"]) == (8, 7, 1, 2)
    [row] = RejectedRow.objects.all()
    assert (row.line, row.file) == (0, f"raw/2019/06/01/gs/{BASE}_gs_2019-06-01.zip")
    assert {entry.id_base for entry in one.files("standard") if entry.metadata["role"] == "document"} == {OTHER}
    assert run.details["observations"][OTHER]["value"] == 7 and BASE not in run.details["observations"]


def test_an_intersection_that_the_inventory_does_not_know_is_rejected(tmp_path):
    edition("gs", UNITS[:1])
    one = Sensors("camera-counts", tmp_path)
    one.give(*camera_day(), *camera_day(base=OTHER))
    one.do("standardize")
    run = one.do("enrich")
    assert (run.rows_in, run.rejected) == (14, 7)
    [row] = RejectedRow.objects.all()
    assert row.value == OTHER


def test_the_site_of_a_day_is_the_last_one_collected_by_then_else_the_next(tmp_path):
    one = a_camera(tmp_path)
    for day, drift in ((TWO, FAST), (date(2019, 6, 4), timedelta())):
        one.give(*camera_day(drift, day=day), day=day)
    found = [documents.site_of(one.pipeline, BASE, date(2019, 6, day)) for day in (1, 2, 3, 4, 5)]
    assert [entry.metadata["collection_date"][-2:] for entry in found] == ["02", "02", "02", "04", "04"]
    assert documents.site_of(one.pipeline, OTHER, ONE) is None


def test_each_format_of_sensors_has_its_reader():
    assert set(sensors.FORMATS) == set(documents.FORMATS) >= set(documents.COUNTING)
