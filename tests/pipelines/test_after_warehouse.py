"""What is done to a real PostgreSQL after a load: refreshed, analyzed, vacuumed, and in each case said how."""

from contextlib import closing

import pytest
from django.conf import settings

from pipelines.errors import SetupError, TransientError
from pipelines.warehouse import postgres
from pipelines.warehouse.postgres import ddl, upkeep
from tests.pipelines.scene import city, connect, drop_city


@pytest.fixture
def table(transactional_db):
    """A city table of three rows and its views: with a unique index, without one, never filled, and one with an index that is no use."""
    statements = [
        "create schema if not exists city",
        "create table city.after_t (id int primary key, name text)",
        "insert into city.after_t values (1, 'a'), (2, 'b'), (3, 'c')",
        "create materialized view city.after_sharp as select * from city.after_t",
        "create unique index on city.after_sharp (id)",
        "create materialized view public.after_blunt as select * from city.after_t",
        "create materialized view city.after_empty as select * from city.after_t with no data",
        "create unique index on city.after_empty (id)",
        "create materialized view city.after_partly as select * from city.after_t",
        "create unique index on city.after_partly (id) where id > 1",
        "create unique index on city.after_partly (lower(name))",
    ]
    for statement in statements:
        city(statement)
    yield "after_t"
    for view in ("city.after_sharp", "public.after_blunt", "city.after_empty", "city.after_partly"):
        city(f"drop materialized view {view}")
    drop_city()


def refresh(view):
    return postgres.refresh(settings.WAREHOUSES["default"], view)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("after_sharp", "Refreshed city.after_sharp concurrently"),
        ("city.after_sharp", "Refreshed city.after_sharp concurrently"),
        ("after_blunt", "Refreshed public.after_blunt, not concurrently, for it has no unique index"),
        ("after_partly", "Refreshed city.after_partly, not concurrently, for it has no unique index"),
        ("after_empty", "Refreshed city.after_empty, not concurrently, for it had never been filled"),
    ],
)
def test_a_view_is_refreshed_concurrently_where_postgresql_can_and_says_which(table, view, words):
    city("insert into city.after_t values (4, 'd')")
    assert refresh(view).startswith(words)
    name = view if "." in view else words.split()[1].rstrip(",")
    assert city(f"select count(*) from {name}") == [(4,)]


def test_a_view_that_was_filled_once_is_refreshed_concurrently_from_then_on(table):
    refresh("after_empty")
    assert "concurrently: readers saw the old rows" in refresh("after_empty")


def test_readers_are_not_locked_out_by_a_concurrent_refresh(table):
    with closing(connect()) as reader, reader.cursor() as cursor:
        cursor.execute("select count(*) from city.after_sharp")  # its transaction stays open, and with it the lock of a reader
        assert "concurrently" in refresh("after_sharp")


def test_who_holds_the_view_is_not_waited_for_for_long(table, monkeypatch):
    monkeypatch.setattr(upkeep, "LOCK_SECONDS", 0.2)
    with closing(connect()) as reader, reader.cursor() as cursor:
        cursor.execute("select count(*) from public.after_blunt")
        with pytest.raises(TransientError, match="held it locked for more than 0.2 seconds"):
            refresh("after_blunt")


@pytest.mark.parametrize(("view", "where"), [("nothing", "in city or public"), ("elsewhere.after_sharp", "in the schema elsewhere")])
def test_a_view_that_is_not_there_is_named_with_the_place_where_it_was_looked_for(table, view, where):
    with pytest.raises(SetupError, match=where):
        refresh(view)


def test_a_table_is_no_materialized_view(table):
    with pytest.raises(SetupError, match="There is no materialized view after_t"):
        refresh("after_t")


def test_a_name_is_never_taken_for_sql(table):
    with pytest.raises(SetupError, match="There is no materialized view"):
        refresh('after_sharp"; drop table city.after_t; --')
    assert city("select count(*) from city.after_t") == [(3,)]


def test_a_refresh_that_takes_too_long_is_stopped_and_the_old_rows_stay(table, monkeypatch):
    monkeypatch.setattr(upkeep, "STATEMENT_SECONDS", 0.2)
    city("create materialized view city.after_slow as select id from city.after_t, pg_sleep(60) with no data")
    try:
        with pytest.raises(TransientError, match="was stopped; everything is as it was"):
            refresh("after_slow")
    finally:
        city("drop materialized view city.after_slow")


def test_analyze_gives_the_planner_its_numbers(table):
    assert city("select reltuples from pg_class where oid = 'city.after_t'::regclass") == [(-1,)]
    assert postgres.analyze(settings.WAREHOUSES["default"], table) == "Renewed the statistics of city.after_t."
    assert city("select reltuples from pg_class where oid = 'city.after_t'::regclass") == [(3,)]


def test_vacuum_reclaims_dead_rows_and_writes_no_new_file(table):
    file = city("select relfilenode from pg_class where oid = 'city.after_t'::regclass")
    city("delete from city.after_t where id = 3")
    assert "nobody was locked out" in postgres.vacuum(settings.WAREHOUSES["default"], table)
    # FULL would have written the table anew, into another file
    assert city("select relfilenode from pg_class where oid = 'city.after_t'::regclass") == file
    assert city("select reltuples from pg_class where oid = 'city.after_t'::regclass") == [(2,)]


def test_a_table_that_is_not_there_yet_is_said_to_be_missing(transactional_db):
    city("create schema if not exists city")
    for act in (postgres.analyze, postgres.vacuum):
        with pytest.raises(SetupError, match="There is no such table yet"):
            act(settings.WAREHOUSES["default"], "never_loaded")


def test_a_table_of_somebody_else_is_not_skipped_in_silence(transactional_db, monkeypatch):
    monkeypatch.setattr(ddl, "SCHEMA", "pg_catalog")
    with pytest.raises(SetupError, match="Nothing was done: .*pg_authid"):
        postgres.analyze(settings.WAREHOUSES["default"], "pg_authid")
