"""Readings from the table, of both engines alike: by the city's days, by moments and by wall times, of the watch's own pipeline."""

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from perfmet import observe
from perfmet.models import Health
from perfmet.reckoning import Reading
from pipelines import clock, warehouse
from pipelines.connectors.base import Column
from pipelines.errors import SetupError
from pipelines.warehouse.tables import Table
from tests.mariadb import mariadb, mariadb_server
from tests.perfmet.readers import ZONE, block_of, board, one, ran, watched

__all__ = ["mariadb", "mariadb_server"]
COLUMNS = {"id": "text", "reader": "text", "volume": "number", "read_at": "instant", "read_local": "local_time"}
#: The city's clock goes back at two o'clock of this Sunday.
SUNDAY = date(2026, 11, 1)
#: reader, volume, moment in UTC
ROWS = [
    ("a", "5", "2026-11-01 04:59:59"),  # the last second of Saturday
    ("a", "7", "2026-11-01 05:00:00"),
    ("a", "1.5", "2026-11-01 07:30:00"),  # half past one for the second time
    ("a", None, "2026-11-02 05:59:59"),  # the last second of Sunday, by winter time
    ("a", "9", "2026-11-02 06:00:00"),
    ("b", "0", "2026-11-01 12:00:00"),
    ("b", "0", "2026-11-01 13:00:00"),
    (None, "3", "2026-11-01 12:00:00"),  # names no reader
    ("  ", "3", "2026-11-01 12:00:00"),
]


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.needs("mariadb"))])
def dsn(request, db, settings):
    """The address of a warehouse, of each engine in turn."""
    address = settings.WAREHOUSES["default"] if request.param == "postgres" else request.getfixturevalue("mariadb")
    settings.WAREHOUSES = {**settings.WAREHOUSES, "default": address}
    yield address
    engine = warehouse.engine(address)
    with closing(engine.connect(address)) as connection, connection.cursor() as cursor:
        cursor.execute(f"drop table if exists {engine.full_name('sightings')}")
        connection.commit()


@pytest.fixture
def watch(dsn):
    """A watch on a pipeline whose table has the rows above, and one row of another pipeline."""
    found = watched(pipeline={"table": "sightings", "stages": ["extract", "load"]}, value_column="volume")
    engine, zone = warehouse.engine(dsn), clock.zone(ZONE)
    with closing(engine.connect(dsn)) as connection:
        engine.prepare(connection, Table("sightings", tuple(Column(name=name, type=kind) for name, kind in COLUMNS.items()), ("id",)))
        fields = [*COLUMNS, "_odo_pipeline", "_odo_block", "_odo_seq", "_odo_loaded_at"]
        insert = f"insert into {engine.full_name('sightings')} ({', '.join(fields)}) values ({', '.join(['%s'] * len(fields))})"
        with connection.cursor() as cursor:
            for number, (reader, volume, at) in enumerate([*ROWS, ("a", "1000", "2026-11-01 12:00:00")]):
                local = datetime.fromisoformat(at).replace(tzinfo=UTC).astimezone(zone)
                owner = found.pipeline.pk + (number == len(ROWS))
                cursor.execute(insert, [f"r{number}", reader, volume, at, f"{local:%Y-%m-%d %H:%M:%S}", owner, 1, number, "2026-11-02 09:00:00"])
        connection.commit()
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


OF_SUNDAY = {
    "a": Reading(8.5, 3, at("2026-11-01 05:00:00"), at("2026-11-02 05:59:59")),
    "b": Reading(0, 2, at("2026-11-01 12:00:00"), at("2026-11-01 13:00:00")),
}


@pytest.mark.parametrize("column", ["read_at", "read_local"])
def test_a_day_is_the_citys_day_also_when_its_clock_goes_back(watch, column):
    watch.time_column = column
    found = observe._of_table(watch, SUNDAY, SUNDAY)
    assert found == {SUNDAY: OF_SUNDAY}


def test_several_days_are_one_question(watch):
    found = observe._of_table(watch, SUNDAY - timedelta(days=3), SUNDAY + timedelta(days=1))
    assert {day: {sensor: reading.value for sensor, reading in readings.items()} for day, readings in found.items()} == {
        SUNDAY - timedelta(days=1): {"a": 5},
        SUNDAY: {"a": 8.5, "b": 0},
        SUNDAY + timedelta(days=1): {"a": 9},
    }


def test_without_a_value_column_rows_are_counted(watch):
    watch.value_column = ""
    assert {sensor: reading.value for sensor, reading in observe._of_table(watch, SUNDAY, SUNDAY)[SUNDAY].items()} == {"a": 3, "b": 2}


def test_a_sensor_may_be_a_number(watch):
    watch.sensor_column = "volume"
    named = observe._of_table(watch, SUNDAY, SUNDAY)[SUNDAY]
    assert {Decimal(sensor): reading.rows for sensor, reading in named.items()} == {Decimal(0): 2, Decimal("1.5"): 1, Decimal(3): 2, Decimal(7): 1}


def test_a_load_is_observed_from_its_table(watch):
    start = clock.day_start(SUNDAY, ZONE)
    run = ran(block_of(watch, start, clock.day_start(SUNDAY + clock.DAY, ZONE)), "load")
    observe.gather(watch, [SUNDAY])
    assert board(watch, SUNDAY) == {"a": Health.NEW, "b": Health.ZERO}
    assert (one(watch, "a", SUNDAY).run_id, one(watch, "a", SUNDAY).value) == (run.pk, 8.5)


@pytest.mark.parametrize(("field", "words"), [("sensor_column", "reeder is missing"), ("value_column", "reeder is missing")])
def test_a_column_that_is_not_there_is_named(watch, field, words):
    setattr(watch, field, "reeder")
    with pytest.raises(SetupError, match=words):
        observe._of_table(watch, SUNDAY, SUNDAY)


def test_a_warehouse_that_is_not_there_is_named(watch):
    watch.pipeline.warehouse = "attic"
    with pytest.raises(SetupError, match="no warehouse 'attic'"):
        observe._of_table(watch, SUNDAY, SUNDAY)
