"""Extract from sources that give files: they lie in the lake as they came, under the names of atd-data-lake; what never comes is told, not green."""

import sqlite3
from contextlib import closing
from datetime import date, timedelta

import pytest

from catalog.models import CatalogEntry
from pipelines import blocks
from pipelines.errors import NotReady, SetupError
from pipelines.models import LogLine, Pipeline, Provider, RunState, ScheduleBlock, State
from pipelines.stages.extract import fingerprints_of
from tests.pipelines.scene import ANN, city, drop_city
from tests.pipelines.sensor_days import ONE, Sensors, window

pytestmark = pytest.mark.django_db

ONLY = {"stages": ["extract", "standardize"]}
LINE = b"6/1/2019 12:00:00 AM,166.159.23.10,5/31/2019 11:59:56 PM,lamar_mlk,QQ==\r\n"
TODAY = date.today()


def folder_of(sensors: Sensors):
    folder = sensors.tmp_path / "drop"
    folder.mkdir(exist_ok=True)
    return folder


def put(sensors: Sensors, name: str, content: bytes = LINE) -> None:
    (folder_of(sensors) / name).write_bytes(content)


def change(sensors: Sensors, **fields) -> None:
    """Change the pipeline's settings, as a steward does."""
    Pipeline.objects.filter(pk=sensors.pipeline.pk).update(**fields)
    sensors.pipeline.refresh_from_db()


def warnings(run) -> list[str]:
    return list(LogLine.objects.filter(run=run, level="warning").values_list("text", flat=True))


@pytest.fixture
def unmatched(tmp_path):
    made = Sensors("bt-unmatched", tmp_path)
    folder_of(made)
    return made


def test_the_files_of_a_day_lie_where_atd_data_lake_laid_them_byte_for_byte(unmatched, lake_folder):
    put(unmatched, "Austin_bt_06-01-2019.txt", LINE * 3)
    put(unmatched, "Austin_btmatch_06-01-2019.txt", b"m\n")
    run = unmatched.do("extract")
    matched, main = unmatched.files("raw")
    assert (lake_folder / main.pointer).read_bytes() == LINE * 3
    assert (main.pointer, main.id_base, main.id_ext) == ("raw/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt", "Austin", "unmatched.txt")
    assert (main.window_start, main.window_end) == window(ONE) and main.rows == 3
    assert matched.pointer == "raw/2019/06/01/bt/Austin_bt_2019-06-01_matched.txt" and matched.metadata["role"] == "matched"
    # the helper's rows are none of the day's
    assert (run.rows_in, run.rows_out, run.message) == (3, 3, "3 rows in 1 file and 1 of matched")
    assert warnings(run) == []


def test_a_helper_that_is_missing_is_told_in_the_log_and_the_day_goes_on(unmatched):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    run = unmatched.do("extract")
    assert run.state == RunState.DONE and "comes without its file of matched" in warnings(run)[0]
    assert unmatched.files("raw")[0].metadata["missing"] == ["matched"]


def test_a_test_pipeline_lays_its_files_apart(tmp_path, unmatched):
    twin = Sensors("bt-unmatched", tmp_path)
    change(twin, twin_of=unmatched.pipeline)
    put(twin, "Austin_bt_06-01-2019.txt")
    twin.do("extract")
    assert twin.names("raw") == ["raw-test/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt"]


def test_a_corrected_file_takes_the_place_of_the_first_which_stays(unmatched, lake_folder):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    unmatched.do("extract")
    [before], marks = unmatched.files("raw"), fingerprints_of(unmatched.block())
    put(unmatched, "Austin_bt_06-01-2019.txt", LINE * 2)
    unmatched.do("extract")
    [after] = unmatched.files("raw")
    assert after.rows == 2 and after.pointer.startswith("raw/2019/06/01/bt/Austin_bt_2019-06-01_unmatched-")
    assert (lake_folder / before.pointer).read_bytes() == LINE
    assert CatalogEntry.objects.get(pk=before.pk).withdrawn_at is not None
    [(key, mark)] = fingerprints_of(unmatched.block()).items()
    assert key == ("Austin", "unmatched.txt") and mark != marks[key]


def test_the_same_file_twice_is_one_entry(unmatched):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    unmatched.do("extract")
    [before] = unmatched.files("raw")
    unmatched.do("extract")
    assert unmatched.files("raw") == [before] and CatalogEntry.objects.filter(source=unmatched.slug).count() == 1


def test_a_file_that_is_late_is_waited_for_and_nothing_fails(unmatched):
    yesterday = TODAY - timedelta(days=1)
    with pytest.raises(NotReady):
        unmatched.do("extract", yesterday)
    block = unmatched.block(yesterday)
    assert (block.state, block.error_code, block.attempts) == (State.WAITING, "not-there-yet", 0)
    assert "has no file Austin_bt_%m-%d-%Y.txt of" in block.message


def test_a_file_that_never_came_is_suspicious_and_green_only_when_it_comes_or_somebody_accepts(unmatched):
    run = unmatched.do("extract")
    block = unmatched.block()
    assert (block.state, block.mark, run.rows_in) == (State.DONE, ScheduleBlock.Mark.SUSPICIOUS, 0)
    assert block.message.startswith(f"{folder_of(unmatched)} has no file Austin_bt_%m-%d-%Y.txt of Sat Jun 1 2019, 3 days after it. Ask whoever")
    assert blocks.accept(block.pk, actor=ANN).moved and unmatched.block().mark == ScheduleBlock.Mark.EMPTY
    put(unmatched, "Austin_bt_06-01-2019.txt")
    unmatched.do("extract")
    assert unmatched.block().mark == ScheduleBlock.Mark.NONE and len(unmatched.files("raw")) == 1


def test_a_file_that_was_taken_away_leaves_what_came_of_it_and_is_suspicious(unmatched):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    unmatched.do("extract")
    (folder_of(unmatched) / "Austin_bt_06-01-2019.txt").unlink()
    unmatched.do("extract")
    assert unmatched.block().mark == ScheduleBlock.Mark.SUSPICIOUS and "The window had 1 rows before." in unmatched.block().message
    assert len(unmatched.files("raw")) == 1


def test_a_zip_whose_rows_nobody_has_counted_yet_counts_as_one_file(tmp_path):
    cameras = Sensors("camera-counts", tmp_path)
    put(cameras, "x_2019-06-01_01.zip", b"PK1")
    put(cameras, "x_2019-06-01_02.zip", b"PK22")
    change(cameras, resource="x_%Y-%m-%d_%H.zip")
    run = cameras.do("extract")
    assert (run.rows_in, run.rows_out, run.message) == (2, 2, "2 files, whose rows are counted when they are read")
    # two of one kind in one day: both stay, the second under its own name
    assert sorted((entry.id_base, entry.id_ext, entry.rows) for entry in cameras.files("raw")) == [
        ("Austin", "zip", None),
        ("x_2019-06-01_02", ".zip", None),
    ]


def test_files_that_nobody_would_read_are_not_loaded_as_they_are(unmatched):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    change(unmatched, stages=["extract", "load"])
    with pytest.raises(SetupError, match="whose columns nobody knows") as caught:
        unmatched.do("extract")
    assert caught.value.code == "columns-unknown" and "Add standardize" in caught.value.next_step


def test_names_of_atd_data_lake_need_the_code_of_an_inventory(unmatched):
    put(unmatched, "Austin_bt_06-01-2019.txt")
    change(unmatched, inventory="")
    with pytest.raises(SetupError) as caught:
        unmatched.do("extract")
    assert caught.value.code == "no-inventory-code"


# databases


@pytest.fixture
def database(tmp_path):
    """A SQLite file with KITS' tables, and who fills it."""
    path = tmp_path / "kits.db"
    with closing(sqlite3.connect(path)) as held, held:
        held.execute("create table DETECTORSRM (DETID integer, INTID integer, INTNAME text, DETNAME text)")
        held.execute(
            "create table SYSDETHISTORYRM (DETID integer, CURDATETIME text, VOLUME integer, OCCUPANCY integer, SPEED integer, STATUS text, "
            "UPLOADSUCCESS integer, DETCOUNTCOMPARISON integer, DAILYCUMULATIVE integer)"
        )
        held.execute("insert into DETECTORSRM values (1, 1, 'LAMARMANCHACA', 'NB_out')")
        for time in ("2019-05-31 23:45:00", "2019-06-01 00:00:00", "2019-06-01 23:45:00", "2019-06-02 00:00:00"):
            held.execute("insert into SYSDETHISTORYRM values (1, ?, 17, 0, 31, 'Working', 100, 0, 17)", [time])
    return Provider.objects.create(slug="kits", title="KITS", kind="database", base_url=f"sqlite:///{path}")


def test_a_day_of_kits_lies_in_the_lake_as_atd_data_lake_laid_it_and_is_standardized(tmp_path, database, lake_folder):
    radar = Sensors("radar-counts", tmp_path)
    change(radar, provider=database, resource="kits")
    run = radar.do("extract")
    [raw] = radar.files("raw")
    assert (raw.pointer, raw.rows, run.rows_in) == ("raw/2019/06/01/wt/Austin_wt_2019-06-01.csv", 2, 2)
    assert (lake_folder / raw.pointer).read_bytes().splitlines()[1] == b"1,1,2019-06-01 00:00:00,LAMARMANCHACA,NB_out,17,0,31,Working,100,0,17"
    assert radar.do("standardize").rows_out == 2


@pytest.mark.django_db(transaction=True)
def test_a_table_by_its_own_columns_goes_into_the_warehouse(tmp_path, database):
    fields = {
        "stages": ["extract", "load"],
        "raw_names": "own",
        "format": "csv",
        "inventory": "",
        "options": {},
        "key": ["id"],
        "window_column": "seen",
    }
    with closing(sqlite3.connect(tmp_path / "kits.db")) as held, held:
        held.execute("create table counts (id integer primary key, seen datetime, amount numeric, words text)")
        held.execute("insert into counts values (1, '2019-06-01 00:00:00', 1.5, 'a \"b\", c'), (2, '2019-06-01T23:59:59', null, null)")
        held.execute("insert into counts values (3, '2019-06-02 00:00:00', 1, 'not yet')")
    table = Sensors("radar-counts", tmp_path)
    change(table, provider=database, resource="counts", **fields)
    try:
        table.do("extract")
        assert table.do("load").inserted == 2
        found = city(f'select id, seen::text, amount, words from city."{table.pipeline.table}" order by id')
        assert found == [(1, "2019-06-01 00:00:00", 1.5, 'a "b", c'), (2, "2019-06-01 23:59:59", None, None)]
    finally:
        drop_city()
