"""City data in MariaDB: the promises that PostgreSQL keeps, kept by the real server, and where they differ, how."""

import hashlib
import itertools
import random
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pymysql
import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import faults, planner, warehouse
from pipelines.connectors.base import Column
from pipelines.connectors.csv_pages import settle
from pipelines.errors import DataError, LeaseLost, PermanentError, SetupError, TransientError
from pipelines.models import Pipeline
from pipelines.warehouse import mysql
from pipelines.warehouse.mysql import session, staging, values
from pipelines.warehouse.mysql.session import name
from pipelines.warehouse.tables import Merged, Only, Region, Rejected, Scope, Table
from tests.mariadb import mariadb, mariadb_server
from tests.pipelines.scene import SOURCE, as_sent, made_row, stage_scene, table, write_csv

__all__ = ["mariadb", "mariadb_server", "stage_scene"]
pytestmark = pytest.mark.needs("mariadb")

_numbers = itertools.count(1)


@pytest.fixture
def dsn(mariadb):
    return mariadb


@pytest.fixture
def city(dsn):
    """Ask the warehouse as a reader does."""

    def ask(query: str) -> list[tuple]:
        with closing(session.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    return ask


class Loads:
    """Loads of one table from rows given as text."""

    def __init__(self, dsn: str, folder, columns: dict[str, str], key: tuple[str, ...] = ("id",), version: str = "", name: str = ""):
        self.dsn, self.folder = dsn, folder
        self.table = Table(name or f"t{next(_numbers)}", tuple(Column(name=name, type=kind) for name, kind in columns.items()), key, version)
        self.fence = 0
        self.rejected: list[Rejected] = []

    def files(self, *files, header: tuple[str, ...] = ()) -> list:
        """CSV files of rows, or of raw bytes, as they lie in the lake."""
        paths = []
        for number, rows in enumerate(files):
            path = self.folder / f"{self.table.name}-{next(_numbers)}-{number}.csv"
            if isinstance(rows, bytes):
                path.write_bytes(rows)
            else:
                write_csv(path, list(header or self.table.names), rows)
            paths.append(path)
        return paths

    def load(self, *files, block: int = 1, pipeline: int = 1, fence: int | None = None, counted: bool = True, keys=None, **more) -> Merged:
        self.fence = fence if fence is not None else self.fence + 1
        paths = self.files(*files)
        with mysql.Load(self.dsn, self.table, run_id=1, block_id=block, pipeline_id=pipeline, fence=self.fence, **more) as job:
            for number, path in enumerate(paths):
                rows = settle(path, proven=True).rows
                assert job.stage(number, path) == rows or not counted
            if keys is not None:
                [path] = self.files(keys, header=self.table.key)
                assert job.stage_keys(path) == len(keys)
            number = job.judge()
            self.rejected = list(job.rejected())
            assert len(self.rejected) == number
            merged = job.merge()
            assert job.staged == merged.inserted + merged.updated + merged.unchanged + merged.duplicates + number
        return merged

    def rows(self, columns: str = "*") -> list[tuple]:
        listed = ", ".join(map(name, self.table.names)) if columns == "*" else columns
        with closing(session.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(f"select {listed} from {name(self.table.name)} order by 1")
            return list(cursor.fetchall())

    def sent(self) -> list[dict]:
        """All rows as a portal would get them."""
        found = mysql.rows_after(self.dsn, self.table.name, self.table.columns, Scope(), after=0, chunk=1000, run_id=1)
        return [row for _, rows in found for row in rows]

    def deleted(self, after: int = 0) -> list[dict]:
        found = mysql.deleted_after(self.dsn, self.table.name, Scope(), after=after, chunk=2, run_id=1)
        return [key for _, keys in found for key in keys]


@pytest.fixture
def loads(dsn, tmp_path):
    return lambda columns, **more: Loads(dsn, tmp_path, columns, **more)


def test_both_names_of_the_address_find_this_engine():
    assert warehouse.engine("mysql://u@h/d") is mysql and warehouse.engine("mariadb://u@h/d") is mysql


def test_it_has_every_word_that_the_stages_ask_of_an_engine():
    from pipelines.warehouse import postgres

    assert set(mysql.__all__) >= set(postgres.__all__) - {"SCHEMA"}


# merging by key


def test_a_first_load_inserts_and_the_same_again_changes_nothing(loads):
    job = loads({"id": "text", "n": "number"})
    rows = [[f"k{n}", str(n)] for n in range(50)]
    assert job.load(rows) == Merged(50, 0, 0, 0, 0)
    before = job.rows("id, n, _odo_seq, _odo_loaded_at")
    assert job.load(rows) == Merged(0, 0, 50, 0, 0)
    assert job.rows("id, n, _odo_seq, _odo_loaded_at") == before  # not even touched


def test_only_what_differs_is_written_and_gets_a_new_number(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([[f"k{n}", str(n)] for n in range(100)])
    before = dict(job.rows("id, _odo_seq"))
    assert job.load([[f"k{n}", "999" if n % 10 == 0 else str(n)] for n in range(101)]) == Merged(1, 10, 90, 0, 0)
    after = dict(job.rows("id, _odo_seq"))
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {f"k{n}" for n in range(0, 101, 10)}
    assert min(after[key] for key in changed) > max(before.values())


def test_a_value_that_comes_or_goes_is_a_change_and_a_case_an_accent_or_a_blank_as_well(loads):
    job = loads({"id": "text", "note": "text"})
    job.load([["a", ""], ["b", "x"], ["c", "x"], ["d", "e"], ["e", "x"], ["f", ""]])
    assert job.load([["a", "x"], ["b", ""], ["c", "X"], ["d", "é"], ["e", "x "], ["f", ""]]) == Merged(0, 5, 1, 0, 0)


def test_of_copies_within_a_load_the_last_one_wins_and_the_others_are_counted(loads):
    job = loads({"id": "text", "n": "number"})
    for _ in range(2):  # into an empty table, then over rows
        merged = job.load([["a", "1"], ["b", "1"], ["a", "2"]], [["a", "3"], ["c", "1"]])
        assert merged.duplicates == 2
        assert job.rows("id, cast(n as int)") == [("a", 3), ("b", 1), ("c", 1)]
    assert merged == Merged(0, 0, 3, 0, 2)


def test_with_a_version_the_newest_copy_wins_wherever_it_stands(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time"}, version="at")
    files = ([["a", "2", "2026-01-02T00:00:00"], ["a", "1", "2026-01-01T00:00:00"]], [["a", "0", ""], ["b", "1", ""]])
    assert job.load(*files) == Merged(2, 0, 0, 0, 2)
    assert job.rows("id, cast(n as int)") == [("a", 2), ("b", 1)]
    # a tie: the later one
    job.load([["a", "5", "2026-01-03T00:00:00"], ["a", "6", "2026-01-03T00:00:00"]])
    assert job.rows("id, cast(n as int)") == [("a", 6), ("b", 1)]


def test_an_older_version_never_replaces_a_newer_one(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time"}, version="at")
    job.load([["a", "2", "2026-01-02T00:00:00"]])
    assert job.load([["a", "1", "2026-01-01T00:00:00"], ["b", "1", "2026-01-01T00:00:00"]]) == Merged(1, 0, 0, 0, 1)
    assert job.rows("id, cast(n as int)") == [("a", 2), ("b", 1)]


def test_a_key_of_several_columns_of_any_type(loads):
    job = loads({"day": "local_time", "code": "number", "open": "boolean", "n": "number"}, key=("day", "code", "open"))
    rows = [[f"2026-01-{d:02}T00:00:00", str(c), flag, "1"] for d in range(1, 4) for c in range(3) for flag in ("true", "false")]
    assert job.load(rows) == Merged(18, 0, 0, 0, 0)
    # 1.0 is 1: equal values are one key, however they are written
    assert job.load([["2026-01-01", "1.0", "t", "7"], ["1/1/2026", "1", "yes", "8"]]) == Merged(0, 1, 0, 0, 1)
    assert len(job.rows()) == 18


def test_keys_that_join_to_one_text_are_still_two(loads):
    job = loads({"a": "text", "b": "text"}, key=("a", "b"))
    rows = [["x", "yz"], ["xy", "z"], ["1:x", "y"], ["1", "x:y"]]
    assert job.load(rows) == Merged(4, 0, 0, 0, 0)
    assert job.load(rows) == Merged(0, 0, 4, 0, 0)


def test_a_table_that_is_all_key_loads_too(loads):
    job = loads({"id": "text"})
    assert job.load([["a"], ["b"]]) == Merged(2, 0, 0, 0, 0)
    assert job.load([["b"], ["c"]]) == Merged(1, 0, 1, 0, 0)


def test_keys_differ_by_case_accent_and_blanks_at_their_end(loads):
    job = loads({"id": "text", "n": "number"})
    keys = ["a", "A", "á", "a ", " a", "ａ", "ß", "ss"]
    assert job.load([[key, "1"] for key in keys]) == Merged(len(keys), 0, 0, 0, 0)
    assert job.load([[key, "2"] for key in keys]) == Merged(0, len(keys), 0, 0, 0)


# what is gone at the source


def test_rows_that_a_snapshot_lacks_are_counted_and_deleted_only_when_asked(loads):
    job = loads({"id": "text", "n": "number"})
    whole = Region("pipeline")
    job.load([["a", "1"], ["b", "1"], ["c", "1"]], region=whole)
    assert job.load([["a", "1"], ["c", "2"]], region=whole) == Merged(0, 1, 1, 0, 0, 1)
    assert job.deleted() == []
    assert job.load([["a", "1"], ["c", "2"]], region=whole, deletes_gone=True) == Merged(0, 0, 2, 1, 0, 1)
    assert [key for key, _ in job.rows()] == ["a", "c"]
    assert job.deleted() == [{"id": "b"}]
    # what comes back is no longer deleted, whatever a portal has read so far
    assert job.load([["a", "1"], ["b", "9"], ["c", "2"]], region=whole, deletes_gone=True) == Merged(1, 0, 2, 0, 0, 0)
    assert job.deleted() == []


def test_another_pipelines_rows_are_never_gone(loads):
    job = loads({"id": "text"})
    job.load([["theirs"]], block=9, pipeline=2, region=Region("pipeline"))
    job.load([["a"], ["b"]], region=Region("pipeline"))
    assert job.load([["b"]], region=Region("pipeline"), deletes_gone=True) == Merged(0, 0, 1, 1, 0, 1)
    assert job.rows() == [("b",), ("theirs",)]


def test_only_rows_of_the_block_are_gone_when_the_files_speak_for_a_block(loads):
    job = loads({"id": "text"})
    job.load([["old"]], block=1)
    job.load([["a"], ["b"]], block=2)
    assert job.load([["b"]], block=2, region=Region("block"), deletes_gone=True) == Merged(0, 0, 1, 1, 0, 1)
    assert job.rows() == [("b",), ("old",)]


def test_a_row_whose_new_copy_was_rejected_is_not_gone(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"], ["b", "1"], ["c", "1"], ["d", "1"]], region=Region("pipeline"))
    body = b'id,n\n"a","x"\n"b","1"\n"c","1\x00"\n'  # one that is no number, one that no bulk load takes, and one that is gone
    assert job.load(body, region=Region("pipeline"), deletes_gone=True) == Merged(0, 0, 1, 1, 0, 1)
    assert [key for key, _ in job.rows()] == ["a", "b", "c"]


def test_the_keys_alone_tell_what_is_gone(loads):
    job = loads({"id": "text", "code": "number", "n": "number"}, key=("id", "code"))
    job.load([["a", "1", "1"], ["b", "2", "1"], ["c", "3", "1"]])
    merged = job.load([["b", "2.0", "7"]], keys=[["a", "1.00"], ["b", "2"]], deletes_gone=True)
    assert merged == Merged(0, 1, 0, 1, 0, 1)
    assert [key for key, *_ in job.rows()] == ["a", "b"]
    assert job.deleted() == [{"id": "c", "code": "3"}]


def test_a_deleted_key_of_any_type_is_told_as_a_portal_knows_it(loads):
    columns = {"id": "text", "n": "number", "at": "instant", "day": "local_time", "open": "boolean"}
    job = loads(columns, key=tuple(columns))
    job.load([["it's \\ 🙂", "1.50", "2026-01-02T03:04:05Z", "2026-01-02", "true"], ["x", "2", "2026-01-02", "2026-01-02", "f"]])
    job.load([["x", "2", "2026-01-02", "2026-01-02", "f"]], region=Region("pipeline"), deletes_gone=True)
    assert job.deleted() == [{"id": "it's \\ 🙂", "n": "1.5", "at": "2026-01-02T03:04:05.000Z", "day": "2026-01-02T00:00:00.000", "open": "true"}]


def test_deleted_keys_come_in_chunks_from_where_one_stopped(loads):
    job = loads({"id": "text"})
    job.load([[f"k{n}"] for n in range(7)], region=Region("pipeline"))
    job.load([["k0"]], region=Region("pipeline"), deletes_gone=True)
    chunks = list(mysql.deleted_after(job.dsn, job.table.name, Scope(pipeline_id=1), after=0, chunk=4, run_id=1))
    assert [len(keys) for _, keys in chunks] == [4, 2]
    assert job.deleted(after=chunks[0][0]) == chunks[1][1]
    assert not list(mysql.deleted_after(job.dsn, job.table.name, Scope(pipeline_id=2), after=0, chunk=4, run_id=1))
    assert not list(mysql.deleted_after(job.dsn, "never_made", Scope(), after=0, chunk=4, run_id=1))


def test_rows_of_some_values_only_are_counted_and_read_and_so_are_all_the_others(loads):
    job = loads({"id": "text", "kind": "text"})
    job.load([["a", "rider"], ["b", "operator's"], ["c", ""], ["d", "Rider"]])
    columns = (*job.table.columns, Column("_odo_block", "number"), Column("_odo_loaded_at", "instant"))
    riders = Only("kind", ("", "rider"))
    for only, expected in ((riders, "ac"), (replace(riders, is_not=True), "bd"), (Only("kind", ("operator's",)), "b")):
        scope = Scope(block_id=1, only=only)
        rows = [row for _, rows in mysql.rows_after(job.dsn, job.table.name, columns, scope, after=0, chunk=3, run_id=1) for row in rows]
        assert [row["id"] for row in rows] == list(expected) and mysql.count(job.dsn, job.table.name, scope) == len(expected)
        assert {row["_odo_block"] for row in rows} == {"1"} and datetime.fromisoformat(rows[0]["_odo_loaded_at"]).tzinfo is UTC
    # what was deleted is told whatever it was
    job.load([["a", "rider"]], region=Region("pipeline"), deletes_gone=True)
    told = mysql.deleted_after(job.dsn, job.table.name, Scope(pipeline_id=1, only=riders), after=0, chunk=9, run_id=1)
    assert sorted(key["id"] for _, keys in told for key in keys) == ["b", "c", "d"]


# without a key


def test_without_a_key_the_rows_of_the_window_are_replaced_and_no_others(loads):
    job = loads({"id": "text", "n": "number"}, key=())
    job.load([["a", "1"], ["a", "1"]], block=1)
    assert job.load([["b", "1"]], block=2) == Merged(1, 0, 0, 0, 0)
    assert job.load([["c", "1"], ["d", "1"], ["e", "1"]], block=1) == Merged(3, 0, 0, 2, 0)
    assert job.rows("id") == [("b",), ("c",), ("d",), ("e",)]


def test_a_snapshot_without_a_key_replaces_what_its_pipeline_wrote_and_no_other_pipelines_rows(loads):
    job = loads({"id": "text"}, key=())
    job.load([["mine"]], block=1, pipeline=1, region=Region("pipeline"))
    job.load([["theirs"]], block=2, pipeline=2, region=Region("pipeline"))
    assert job.load([["new"], ["newer"]], block=3, pipeline=1, region=Region("pipeline")) == Merged(2, 0, 0, 1, 0)
    assert job.rows("id") == [("new",), ("newer",), ("theirs",)]


def test_equal_rows_stay_as_many_as_they_are_and_untouched(loads):
    job = loads({"a": "text", "n": "number", "at": "instant"}, key=())
    rows = [["x", "1", ""], ["x", "1.0", ""], ["x", "1", ""], ["", "2", "2026-01-01"], ["y", "", "2026-01-01T00:00:00Z"]]
    assert job.load(rows) == Merged(5, 0, 0, 0, 0)
    before = job.rows("_odo_seq, _odo_loaded_at")
    assert job.load(rows) == Merged(0, 0, 5, 0, 0)
    assert job.rows("_odo_seq, _odo_loaded_at") == before
    # one copy fewer, one row more
    assert job.load([*rows[1:], ["new", "", ""]]) == Merged(1, 0, 4, 1, 0)
    assert len(job.rows()) == 5


def test_rows_since_a_moment_are_compared_and_older_ones_stay(loads):
    job = loads({"n": "number", "at": "local_time"}, key=())
    job.load([["1", "2026-01-01T00:00:00"], ["2", "2026-01-05T00:00:00"], ["3", ""]], region=Region("pipeline"))
    since = Region("since", "at", "2026-01-04T00:00:00.000")
    assert job.load([["2", "2026-01-05T00:00:00"], ["4", "2026-01-06T00:00:00"]], region=since) == Merged(1, 0, 1, 1, 0)
    assert job.rows("cast(n as int)") == [(1,), (2,), (4,)]


def test_a_missing_value_is_no_empty_text_in_a_comparison_of_whole_rows(loads):
    job = loads({"a": "text", "b": "text"}, key=())
    rows = [["-", ""], ["", "-"], ["1:x", "y"], ["", ""], ["x" * 5000, "y"]]
    assert job.load(rows) == Merged(5, 0, 0, 0, 0)
    assert job.load(rows) == Merged(0, 0, 5, 0, 0)
    assert job.load([["x" * 4999 + "z", "y"], *rows[:4]]) == Merged(1, 0, 4, 1, 0)
    job.load([["-", ""]])
    assert job.load([["", "-"]]) == Merged(1, 0, 0, 1, 0)


def test_rows_that_are_added_make_room_only_for_a_re_run_of_their_own_block(loads):
    job = loads({"n": "number"}, key=())
    job.load([["1"], ["2"]], block=1, mode="append")
    job.load([["1"]], block=2, mode="append")
    assert job.load([["1"], ["2"], ["3"]], block=1, mode="append") == Merged(3, 0, 0, 2, 0)
    assert job.rows("cast(n as int)") == [(1,), (1,), (2,), (3,)]


# values

GOOD_AND_BAD = [
    (
        "number",
        ["1", "-1.5", "+2", ".5", "5.", "1e10", "1E-3", " 7 ", "0" * 50, "9" * 35, "-" + "9" * 35 + "." + "9" * 30, "1e-30", "34.194028460000003"],
        ["x", "1,5", "1_000", "0x1f", "NaN", "Infinity", "-inf", "1e99999", "1 2", "--1", "½", "1e", "٣", "1;drop table t",
         # PostgreSQL keeps these
         "9" * 36, "9" * 200, "1e9999", "1e-31"],
    ),
    (
        "local_time",
        ["2026-01-02T03:04:05.678", "2026-01-02 03:04", "2026-01-02", "1/2/20 8:43", "1/2/2020 8:43:59 PM", "1/2/2020 8:43AM", "April 19 2003",
         "0001-01-01", "9999-12-31T23:59:59.999", "2024-02-29", "2026-03-08T02:30:00", "Wed Dec 17 07:37:16 1997"],
        ["2026-13-01", "2023-02-29", "31/12/2026", "yesterday", "now", " Today ", "infinity", "-infinity", "epoch", "2026-01-01 allballs", "noon",
         "0044-03-15 BC", "12026-01-01", "9999999-01-01", "24:00", "x", "2026-01-02T25:00:00", "'); --", "0000-01-01", "2026-04-31",
         "2026-01-02T03:04:05Z", "2026-01-02T03:04:05z", "2026-01-02 03:04:05+00", "2026-01-02T03:04:05-08:00", "2026-01-02 03:04 -0500",
         "2026-01-02 03:04 EST", "2026-01-02 03:04 America/Chicago", "2026-01-02 03:04 UTC", "2026-01-02 03:04 PM PST", "2026-01-02T03:04 GMT"],
    ),
    (
        "instant",
        ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05+05:30", "2026-01-02 03:04 PST", "2026-01-02T03:04:05", "2026-01-02"],
        ["infinity", "now", "tomorrow 10:00", "2026-13-01", "0044-03-15 BC", "10000-01-01", "1e5", "2026-01-02 03:04 Mars/Olympus"],
    ),
    ("boolean", ["true", "false", "t", "F", "yes", "no", "1", "0", "on", " off "], ["2", "maybe", "truthy", "null", "-1"]),
    (
        "json",
        ['{"a": 1}', "[]", "null", '"x"', "1", "[" * 40 + "]" * 40, '"\\ud83d\\ude42"', '"tab\\t"'],
        ["{", "{'a': 1}", "NaN", '{"a": Infinity}', '"\\u0000"', "[1,]", "undefined", "1.", '"\\x"', '"\\ud800"', "01"],
    ),
    ("text", ["anything", "NULL", "\\N", "\\.", "''", '"', "now", "\u202eevil", "🙂" * 50, "a\tb", "a\nb", "a\r\nb", "%s {} ;", "a ", "\\"], []),
    ("point", ["POINT (-118.25 34.05)", "x"], []),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "good", "bad"), GOOD_AND_BAD, ids=[kind for kind, *_ in GOOD_AND_BAD])
def test_each_value_is_taken_or_rejected_with_its_reason(loads, kind, good, bad):
    job = loads({"id": "text", "value": kind})
    cells = [*good, "", *bad]
    job.load([[f"k{n:03}", cell] for n, cell in enumerate(cells)])
    assert [rejected.value for rejected in job.rejected] == bad
    assert {rejected.column for rejected in job.rejected} <= {"value"}
    kept = job.rows("id, value")
    assert [key for key, _ in kept] == [f"k{n:03}" for n in range(len(good) + 1)]
    assert kept[-1][1] is None  # an empty cell is nothing, whatever its type
    if kind in ("text", "point", "json"):
        assert [value for _, value in kept[:-1]] == good
    # what was taken goes out to a portal as text
    sent = job.sent()
    assert len(sent) == len(good) + 1 and all(isinstance(row["value"], str | bool | None) for row in sent)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "good", "bad"), [row for row in GOOD_AND_BAD if row[0] != "text"], ids=lambda value: value if isinstance(value, str) else ""
)
def test_postgresql_takes_and_sends_the_same(loads, tmp_path, settings, kind, good, bad):
    from pipelines.warehouse import postgres
    from tests.pipelines.scene import drop_city

    cells = [cell for cell in [*good, "", *bad] if cell not in ("9" * 36, "9" * 200, "1e9999", "1e-31")]
    job = loads({"id": "text", "value": kind})
    rows = [[f"k{n:03}", cell] for n, cell in enumerate(cells)]
    job.load(rows)
    [path] = job.files(rows)
    dsn = settings.WAREHOUSES["default"]
    try:
        with postgres.Load(dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=1) as other:
            other.stage(0, path)
            other.judge()
            theirs = [(row.record, row.column, row.reason, row.value, row.raw) for row in other.rejected()]
            other.merge()
        assert [(row.record, row.column, row.reason, row.value, row.raw) for row in job.rejected] == theirs
        [(_, sent)] = postgres.rows_after(dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=1000, run_id=1)
    finally:
        drop_city()
    if kind == "number":  # the one difference: a zero at the end is not kept
        sent = [{**row, "value": row["value"] and values.meant("number", row["value"])} for row in sent]
    if kind == "json":  # and JSON goes out as it came
        return
    assert sorted(job.sent(), key=lambda row: row["id"]) == sorted(sent, key=lambda row: row["id"])


MONTHS = ["", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December", "Smarch"]
DAYS = [
    "{m}/{d}/{y}", "{y}-{m}-{d}", "{y}-{m:02}-{d:02}", "{y}/{m}/{d}", "{mon} {d} {y}", "{mon} {d}, {y}", "{d} {mon} {y}", "{d}-{mon}-{y2}",
    "{m}-{d}-{y2}", "{m}/{d}/{y2}", "{y}{m:02}{d:02}", "{m}.{d}.{y}", "{month} {d} {y}", "{month} {d}, {y}", "Tue, {d} {mon} {y}",
]  # fmt: skip
CLOCKS = [
    "", " {h}:{i:02}", " {h}:{i:02}:{s:02}", "T{h:02}:{i:02}:{s:02}.25", " {h}:{i:02} PM", " {h}:{i:02}:{s:02}am", "T{h}:{i}",
    " {h:02}:{i:02}:{s:02}.1234567",
]  # fmt: skip
ZONES = ["", "", "", "Z", "+00", " -08:00", " UTC", "+0530", " PST", " EDT", " America/New_York", " Europe/Berlin"]


@st.composite
def moments(draw):
    """Days and times as people and portals write them; some that never were."""
    month, day, year = draw(st.integers(0, 13)), draw(st.integers(0, 32)), draw(st.integers(1, 3000))
    shape = draw(st.sampled_from(DAYS)) + draw(st.sampled_from(CLOCKS)) + draw(st.sampled_from(ZONES))
    recase = draw(st.sampled_from([str, str.lower, str.upper]))
    return shape.format(
        m=month, d=day, y=f"{year:04}", y2=f"{year % 100:02}", mon=recase(MONTHS[month][:3]), month=recase(MONTHS[month]),
        h=draw(st.integers(0, 25)), i=draw(st.integers(0, 61)), s=draw(st.integers(0, 61)),
    )  # fmt: skip


@pytest.mark.django_db
@given(kind=st.sampled_from(["local_time", "instant"]), text=moments())
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_time_is_read_as_postgresql_reads_it(kind, text):
    from django.db import connection

    sql_type = "timestamp" if kind == "local_time" else "timestamptz"
    with connection.cursor() as cursor:
        cursor.execute("select pg_input_is_valid(%s, %s)", [text, sql_type])
        theirs = None
        if cursor.fetchone()[0]:
            cursor.execute("set local timezone = 'UTC'")
            cursor.execute(f"select to_char(%s::{sql_type}, 'YYYY-MM-DD HH24:MI:SS.US'), to_char(%s::{sql_type}, 'BC') = 'AD'", [text, text])
            written, is_ad = cursor.fetchone()
            theirs = written if is_ad and len(written) == 26 else None
    try:
        ours = values.meant(kind, text)
    except values.Refused as refusal:
        if str(refusal) == values.HAS_A_ZONE:
            assert theirs is not None  # a good time, but for its zone
            return
        ours = None
    assert (ours and (ours if "." in ours else f"{ours}.000000")) == theirs


def test_the_reason_names_what_is_wrong(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time", "open": "boolean", "more": "json"})
    rows = [["a", "x", "", "", ""], ["b", "1", "x", "", ""], ["c", "1", "2026-01-01T00:00:00Z", "", ""], ["d", "", "", "?", ""]]
    job.load(
        [*rows, ["e", "", "", "", "{"], ["", "1", "", "", ""], ["k" * 1001, "", "", "", ""], ["k" * 769, "", "", "", ""], ["f", "1e99", "", "", ""]]
    )
    assert [(rejected.column, rejected.reason) for rejected in job.rejected] == [
        ("n", "not a number"),
        ("at", "not a date and time"),
        ("at", "has a zone, but the column is in local time"),
        ("open", "not true or false"),
        ("more", "not JSON"),
        ("id", "the key is empty"),
        ("id", "the key is longer than 1,000 bytes"),
        ("id", "the key is longer than 768 characters"),
        ("n", "a number with more digits than the warehouse keeps (35 before the point, 30 after it)"),
    ]


def test_a_rejected_row_is_kept_as_it_came_with_its_line(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"], ["b\nb", "2"], ["c", "bad"]], [["d", "worse"]])
    first, second = job.rejected
    assert (first.file, first.record, first.line, first.raw) == (0, 3, 5, {"id": "c", "n": "bad"})
    assert (second.file, second.record, second.line, second.value) == (1, 1, 2, "worse")


def test_a_long_key_of_several_columns_is_rejected_and_not_the_load(loads):
    job = loads({"a": "text", "b": "text", "c": "text"}, key=("a", "b", "c"))
    chance = random.Random(1)
    long = ["".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(320)) for _ in range(3)]
    assert job.load([long, ["x", "y", "z"], ["x" * 256, "y", "z" * 257]]) == Merged(1, 0, 0, 0, 0)
    assert [rejected.column for rejected in job.rejected] == ["a", "c"]


def test_what_the_portal_gets_is_what_it_would_get_from_postgresql(loads):
    job = loads({"id": "text", "n": "number", "at": "instant", "day": "local_time", "open": "boolean", "more": "json", "note": "text"})
    job.load([["a", "-1.50", "2026-01-02 03:04:05.6789+05:30", "1/2/20 8:43", "yes", '{"a": 1}', "Zoë 🙂"], ["b", "1e3", "", "", "", "", ""]])
    assert job.sent() == [
        {
            "id": "a",
            "n": "-1.5",
            "at": "2026-01-01T21:34:05.678Z",
            "day": "2020-01-02T08:43:00.000",
            "open": True,
            "more": '{"a": 1}',
            "note": "Zoë 🙂",
        },
        {"id": "b", "n": "1000", "at": None, "day": None, "open": None, "more": None, "note": None},
    ]


# files


def test_one_broken_row_does_not_take_its_neighbours_with_it(loads):
    job = loads({"id": "text", "n": "number"})
    body = b'id,n\n"a","1"\n"b"\n"c","2","3"\n"d","4"\n\n"e\x00","5"\n"f\xff","6"\n"g","7"\n'
    assert job.load(body) == Merged(3, 0, 0, 0, 0)
    assert job.rows("id") == [("a",), ("d",), ("g",)]
    assert [(rejected.line, rejected.reason) for rejected in job.rejected] == [
        (3, "1 cells where 2 are expected"),
        (4, "3 cells where 2 are expected"),
        (6, "0 cells where 2 are expected"),
        (7, "a NUL byte in a cell"),
        (8, "bytes that are not UTF-8"),
    ]
    assert job.rejected[3].value == "e\\x00, 5" and job.rejected[4].raw["id"] == "f\\xff"
    assert job.rejected[1].raw["(more)"] == "3"


@pytest.mark.parametrize("broken", [b'"b"', b'"c","2","3"', b"", b'"e\x00","5"', b'"f\xff","6"', b'"f\xc3","6"', b'"f\xed\xa0\x80","6"'])
def test_each_kind_of_broken_row_alone_is_seen(loads, broken):
    job = loads({"id": "text", "n": "number"})
    assert job.load(b'id,n\n"a","1"\n' + broken + b'\n"z","1"\n') == Merged(2, 0, 0, 0, 0)
    assert [rejected.line for rejected in job.rejected] == [3]


def test_broken_rows_and_bad_values_of_one_file_are_told_apart_and_in_order(loads):
    job = loads({"id": "text", "n": "number"})
    job.load(b'id,n\n"a","x"\n"b"\n"c","y"\n"d","1"\n')
    told = [(rejected.line, rejected.reason) for rejected in job.rejected]
    assert told == [(2, "not a number"), (3, "1 cells where 2 are expected"), (4, "not a number")]


def test_a_file_of_one_column_counts_its_blank_lines_as_rows(loads):
    job = loads({"name": "text"}, key=())
    assert job.load(b'name\n"a"\n\n"b"\n\n') == Merged(4, 0, 0, 0, 0)
    assert job.rows("count(*), count(name)") == [(4, 2)]
    # also where a broken row makes the file be read row by row
    assert job.load(b'name\n"a"\n\n"b","c"\n"d"\n', fence=9) == Merged(1, 0, 2, 2, 0)
    assert [rejected.line for rejected in job.rejected] == [4]


def test_what_other_loaders_take_for_a_command_is_a_value(loads):
    job = loads({"id": "text", "name": "text"})
    body = b'id,name\n"a","\\."\nb,NULL\n"c","NULL"\nd,\\N\n"e","\\"\n"f","x\\"\ng,"a\\nb"\nh,null\n'
    assert job.load(body) == Merged(8, 0, 0, 0, 0)
    assert job.rows() == [
        ("a", "\\."), ("b", "NULL"), ("c", "NULL"), ("d", "\\N"), ("e", "\\"), ("f", "x\\"), ("g", "a\\nb"), ("h", "null"),
    ]  # fmt: skip


def test_quoted_newlines_and_carriage_returns_stay_in_their_cell(loads):
    job = loads({"id": "text", "note": "text"})
    notes = [
        "one\ntwo",
        "one\r\ntwo",
        "one\rtwo",
        '"quoted"',
        "a,b",
        "\n",
        '""',
        "tab\t",
        " lead and trail ",
        '"',
        '","',
        '"\n"',
        'x"',
        '"x',
        "\r",
        "x\r",
    ]
    job.load([[f"k{n:02}", note] for n, note in enumerate(notes)])
    assert [note for _, note in job.rows()] == notes


@pytest.mark.parametrize("body", [
    b'id,note\r\n"a","x"\r\nb,y\r\n"c","one\r\ntwo"\r\nd,\r\n',
    b'id,note\n"a","x"\r\nb,y\r\n"c","one\r\ntwo"\nd,\n',
    b'id,note\r\n"a","x"\nb,y\n"c","one\r\ntwo"\r\nd,\n',
])  # fmt: skip
def test_lines_may_end_in_either_way_and_in_both(loads, body):
    job = loads({"id": "text", "note": "text"})
    assert job.load(body) == Merged(4, 0, 0, 0, 0)
    assert job.rows() == [("a", "x"), ("b", "y"), ("c", "one\r\ntwo"), ("d", None)]


def test_one_line_that_ends_otherwise_leaves_nothing_in_its_last_cell(loads):
    job = loads({"id": "text", "note": "text"})
    assert job.load(b"id,note\na,x\nb,y\r\nc,z\n") == Merged(3, 0, 0, 0, 0)
    assert job.rows() == [("a", "x"), ("b", "y"), ("c", "z")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(loads):
    job = loads({"id": "text", "n": "number"})
    assert job.load(b'\xef\xbb\xbf"id","n"\n"a","1"\n') == Merged(1, 0, 0, 0, 0)


def test_cells_of_a_megabyte_are_kept(loads):
    job = loads({"id": "text", "note": "text"})
    big = "x" * (1 << 20) + "ü🙂\n"
    job.load([["a", big], ["b", "small"]])
    assert job.rows()[0] == ("a", big)
    # and where the file is read row by row
    job.load(f'id,note\n"c","{big}"\n"d"\n'.encode())
    assert job.rows("id, char_length(note)")[-1] == ("c", len(big))
    assert job.load([["a", big], ["b", "small"], ["c", big]]) == Merged(0, 0, 3, 0, 0)


def test_a_character_that_lies_across_two_pieces_is_whole(loads, monkeypatch):
    monkeypatch.setattr(staging, "READ", 7)
    job = loads({"id": "text", "note": "text"})
    rows = [[f"k{n}", "ü🙂€" * n] for n in range(9)]
    job.load(rows)
    assert [list(row) for row in job.rows("id, coalesce(note, '')")] == rows
    assert job.rejected == []


@pytest.mark.parametrize("header", ['"n","id"', '"id"', '"id","n","more"', '"id","N"', '"surprise","id"', ""])
def test_a_file_with_other_columns_is_refused_whole(loads, header):
    job = loads({"id": "text", "n": "number"})
    [path] = job.files(f'{header}\n"a","1"\n'.encode())
    with mysql.Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=1) as load, pytest.raises(DataError) as told:
        load.stage(0, path)
    assert told.value.code == "wrong-header"
    assert "expected id, n" in told.value.message


texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)


@given(rows=st.lists(st.tuples(texts, texts), max_size=12))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_text_a_source_sends_comes_back_the_same_and_every_row_is_accounted_for(loads, rows):
    job = loads({"id": "text", "note": "text"})
    job.load([list(row) for row in rows])
    expected = {key: note or None for key, note in rows if key}
    assert dict(job.rows()) == expected
    assert len(job.rejected) == sum(not key for key, _ in rows)


# names


HOSTILE = [
    'quote"inside', "it's", "back`tick", "percent %s %(x)s 100%", "{}", "{0} {name}", "; drop table t; --", "select", "user", "table", "ORDER",
    "two words", "ünïcødé", "\u202egnp.exe", "tab\there", "a.b", "x" * 63, "é" * 31, "1st", "is_new", "is_older", "_file", "_record",
    "why", "s", "n", "o", "typed", "good", "$1", ":id", "?", "\\", "/*", "ctid_", "now()", "NULL", "print", "copy", "place", "cell",
]  # fmt: skip


def test_hostile_column_names_are_only_names(loads):
    names = dict.fromkeys(HOSTILE, "text")
    job = loads({**names, "id": "text", "at %s": "local_time"}, version="at %s")
    row = [f"v{n}" for n in range(len(names))]
    assert job.load([[*row, "a", "2026-01-01"]]) == Merged(1, 0, 0, 0, 0)
    assert job.load([["changed", *row[1:], "a", "2026-01-02"]]) == Merged(0, 1, 0, 0, 0)
    assert job.load([["old", *row[1:], "a", "2026-01-01"]]) == Merged(0, 0, 0, 0, 1)
    [sent] = job.sent()
    assert sent['quote"inside'] == "changed" and sent["is_new"] == row[HOSTILE.index("is_new")]
    assert mysql.table_columns(job.dsn, job.table.name) == job.table.names
    assert mysql.sample(job.dsn, job.table.name)[0] == job.table.names


@pytest.mark.parametrize("named", HOSTILE)
def test_a_hostile_name_may_be_the_key(loads, named):
    job = loads({named: "text", "amount": "number"}, key=(named,))
    assert job.load([["a", "1"], ["", "2"], ["b", "x"]]) == Merged(1, 0, 0, 0, 0)
    assert [rejected.column for rejected in job.rejected] == [named, "amount"]
    assert job.load([["c", "1"], ["c", "2"]], region=Region("pipeline"), deletes_gone=True) == Merged(1, 0, 0, 1, 1, 1)
    assert job.deleted() == [{named: "a"}]


def test_hostile_names_without_a_key(loads):
    job = loads(dict.fromkeys(HOSTILE, "text"), key=())
    for expected in (Merged(1, 0, 0, 0, 0), Merged(0, 0, 1, 0, 0)):
        assert job.load([["x"] * len(HOSTILE)]) == expected


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": "text", "_odo_seq": "text"}, "names with _odo_ are ours"),
        ({"id": "text", "y" * 65: "text"}, "64 characters"),
        ({"id": "text", "Name": "text", "name": "text"}, "same name"),
        ({"id": "text", "Resume": "text", "résumé": "text"}, "same name"),
        ({"id": "text", "smile 🙂": "text"}, "no emoji"),
        ({"id": "text", "blank ": "text"}, "no blank at its end"),
    ],
)
def test_a_column_that_the_warehouse_cannot_keep_apart_is_refused_by_name(loads, columns, words):
    with pytest.raises(SetupError, match=words) as told:
        loads(columns).load([])
    assert told.value.code == "column-name"


# tables that exist


def test_new_columns_widen_the_table_and_old_rows_keep_what_they_had(loads, city):
    job = loads({"id": "text"}, name="widens")
    job.load([["a"]])
    wider = loads({"id": "text", "n": "number", "at": "instant"}, name="widens")
    wider.fence = 5
    assert wider.load([["b", "1", "2026-01-01T00:00:00Z"]]) == Merged(1, 0, 0, 0, 0)
    assert city("select id, cast(n as int) from widens order by 1") == [("a", None), ("b", 1)]
    assert mysql.column_types(job.dsn, "widens") == {"id": "text", "n": "number", "at": "instant"}


def test_a_column_that_left_the_source_stays_in_the_table(loads, city):
    loads({"id": "text", "n": "number"}, name="narrows").load([["a", "1"]])
    job = loads({"id": "text"}, name="narrows")
    assert job.load([["a"], ["b"]], fence=2) == Merged(1, 0, 1, 0, 0)
    assert city("select id, cast(n as int) from narrows order by 1") == [("a", 1), ("b", None)]


def test_another_type_than_the_tables_own_is_refused_with_what_to_do(loads, city):
    loads({"id": "text", "n": "text"}, name="retyped").load([["a", "1"]])
    with pytest.raises(SetupError, match="retyped.n is text, the source says number") as told:
        loads({"id": "text", "n": "number"}, name="retyped").load([["a", "2"]])
    assert told.value.code == "other-type" and told.value.next_step
    assert city("select n from retyped") == [("1",)]


def test_a_column_whose_type_changed_becomes_text_where_the_pipeline_may_widen(loads):
    first = loads({"id": "text", "n": "number", "at": "local_time", "open": "boolean", "same": "number"}, name="grows")
    first.load([["a", "1.50", "2026-01-02", "t", "7"], ["b", "", "", "", ""]])
    job = loads({"id": "text", "n": "text", "at": "text", "open": "number", "same": "number"}, name="grows")
    with mysql.Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=5, widens=True) as load:
        load.stage(0, job.files([["a", "about 2", "spring", "true", "7"]])[0])
        load.judge()
        assert load.merge() == Merged(0, 1, 0, 0, 0)
    assert [words.split()[0] for words in load.widened] == ["n", "at", "open"]
    assert mysql.column_types(job.dsn, "grows") == {"id": "text", "n": "text", "at": "text", "open": "text", "same": "number"}
    assert job.rows("id, n, at, open") == [("a", "about 2", "spring", "true"), ("b", None, None, None)]


def test_values_stay_as_portals_know_them_when_their_column_becomes_text(loads):
    loads({"id": "text", "n": "number", "at": "instant", "open": "boolean"}, name="keeps").load([["a", "1.50", "2026-01-02T03:04:05Z", "t"]])
    job = loads({"id": "text", "n": "text", "at": "text", "open": "text"}, name="keeps")
    assert job.load([["b", "", "", ""]], fence=5, widens=True) == Merged(1, 0, 0, 0, 0)
    assert job.rows()[0] == ("a", "1.5", "2026-01-02T03:04:05.000Z", "true")


def test_a_widening_that_died_half_way_is_made_anew(loads, city):
    loads({"id": "text", "n": "number"}, name="half").load([["a", "1"]])
    city("alter table half add column _odo_wider longtext after n")
    job = loads({"id": "text", "n": "text"}, name="half")
    job.load([["b", "x"]], fence=5, widens=True)
    assert job.rows() == [("a", "1"), ("b", "x")]
    assert "_odo_wider" not in [column for (column,) in city("select column_name from information_schema.columns where table_name = 'half'")]


def test_a_first_load_that_was_refused_does_not_bind_the_second_to_its_types(loads):
    first = loads({"id": "text", "n": "number"}, name="anew")
    with mysql.Load(first.dsn, first.table, run_id=1, block_id=1, pipeline_id=1, fence=1):
        pass
    job = loads({"id": "text", "n": "text"}, name="anew")
    assert job.load([["a", "x"]], fence=2) == Merged(1, 0, 0, 0, 0)


@pytest.mark.parametrize("key", [("n",), ("id", "n"), ()])
def test_another_key_than_the_tables_own_is_refused(loads, key):
    loads({"id": "text", "n": "text"}, name="keyed").load([["a", "1"]])
    with pytest.raises(SetupError) as told:
        loads({"id": "text", "n": "text"}, name="keyed", key=key).load([["a", "2"]])
    assert told.value.code == "other-key"


def test_a_table_of_somebody_else_is_never_touched(loads, city):
    city("create table theirs (id varchar(9) primary key)")
    city("insert into theirs values ('x')")
    with pytest.raises(SetupError, match="not made by Open Data Ops"):
        loads({"id": "text"}, name="theirs").load([["a"]])
    with pytest.raises(SetupError, match="not made by Open Data Ops"):
        loads({"id": "text"}, name="theirs").load([["a"]], rebuild=True)
    assert city("select id from theirs") == [("x",)]
    assert mysql.tables(loads({"id": "text"}).dsn) == []


def test_tables_are_made_once_by_many_who_need_them_at_once(loads, dsn):
    jobs = [loads({"id": "text"}, name="crowd") for _ in range(8)]
    errors = []

    def prepare(job):
        try:
            with closing(mysql.connect(dsn)) as connection:
                mysql.prepare(connection, job.table)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert mysql.tables(dsn) == ["crowd"]


# a table built anew


def test_a_rebuild_puts_a_new_table_in_the_place_of_the_old_with_other_columns_and_another_key(loads, city):
    old = loads({"id": "text", "n": "number", "left": "text"}, name="rebuilt")
    old.load([["a", "1", "x"], ["b", "2", "x"], ["c", "3", "x"]])
    highest = old.rows("max(_odo_seq)")[0][0]
    job = loads({"id": "text", "n": "text"}, name="rebuilt")
    assert job.load([["a", "one"], ["b", "two"], ["a", "ONE"]], fence=2, rebuild=True) == Merged(2, 0, 0, 1, 1, 1)
    assert job.rows() == [("a", "ONE"), ("b", "two")]
    assert mysql.column_types(job.dsn, "rebuilt") == {"id": "text", "n": "text"}
    assert job.rows("min(_odo_seq)")[0][0] > highest  # a portal gets all of it
    assert job.deleted() == [{"id": "c"}]
    assert mysql.has_merged(job.dsn, block_id=1, fence=2)
    other = loads({"id": "text", "n": "text"}, name="rebuilt", key=("n",))
    assert other.load([["a", "1"]], fence=3, rebuild=True) == Merged(1, 0, 0, 0, 0, 0)
    keyless = loads({"id": "text", "n": "text"}, name="rebuilt", key=())
    assert keyless.load([["a", "1"], ["a", "1"]], fence=4, rebuild=True) == Merged(2, 0, 0, 1, 0, 0)
    assert [found for (found,) in city("show tables like '\\_odo\\_%'")] == ["_odo_counter", "_odo_deleted", "_odo_ledger"]


def test_a_rebuild_keeps_what_other_pipelines_wrote_with_their_columns(loads):
    theirs = loads({"id": "text", "extra": "instant"}, name="both")
    theirs.load([["x", "2026-01-01"], ["y", "2026-01-01"]], pipeline=2, block=2)
    loads({"id": "text", "n": "number"}, name="both").load([["a", "1"]], pipeline=1, fence=1)
    job = loads({"id": "text", "n": "number"}, name="both")
    assert job.load([["b", "1"], ["y", "9"]], pipeline=1, fence=2, rebuild=True) == Merged(2, 0, 0, 1, 0, 1)
    assert mysql.column_types(job.dsn, "both") == {"id": "text", "n": "number", "extra": "instant"}
    assert [row[0] for row in job.rows("id, _odo_pipeline")] == ["b", "x", "y"]
    assert job.rows("id, year(extra)") == [("b", None), ("x", 2026), ("y", None)]
    assert job.deleted() == [{"id": "a"}]


@pytest.mark.parametrize("where", ["load.merged", "load.swapped"])
def test_a_rebuild_that_dies_leaves_whole_rows_and_the_next_one_heals(loads, city, monkeypatch, where):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"], ["b", "1"]])
    with monkeypatch.context() as patch:
        patch.setenv("ODO_FAULT", f"{where}:1:raise")
        faults._passes.clear()
        with pytest.raises(faults.InjectedFault):
            job.load([["a", "2"]], rebuild=True)
    assert job.rows("id, cast(n as int)") == ([("a", 1), ("b", 1)] if where == "load.merged" else [("a", 2)])
    assert not mysql.has_merged(job.dsn, block_id=1, fence=2)
    if where == "load.merged":
        assert job.deleted() == []  # nothing was deleted, so no portal may lose it
    merged = job.load([["a", "2"]], rebuild=True)
    assert merged.inserted == 1 and mysql.has_merged(job.dsn, block_id=1, fence=3)
    assert job.rows("id, cast(n as int)") == [("a", 2)]
    assert job.deleted() == [{"id": "b"}]
    mysql.sweep(job.dsn, set())
    assert city("show tables like '\\_odo\\_old%'") == [] and city("show tables like '\\_odo\\_new%'") == []


def test_a_rebuild_whose_session_is_killed_leaves_the_old_rows_and_its_table_is_swept(loads, city, monkeypatch):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"]])
    from pipelines.warehouse.mysql import load as load_module

    def kill(*_):
        mysql.end_sessions(job.dsn, run_id=1)

    monkeypatch.setattr(load_module.fresh, "keep_others", kill)
    with pytest.raises(TransientError):
        job.load([["a", "2"]], rebuild=True)
    assert job.rows("id, cast(n as int)") == [("a", 1)]
    assert mysql.sweep(job.dsn, {(1, 2)}) == []  # it may still go on
    assert mysql.sweep(job.dsn, {(1, 3)}) == ["_odo_new_1_2"]


def test_a_late_rebuild_is_void(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"]], fence=1)
    [old, new] = job.files([["a", "old"]], [["a", "2"]])
    with mysql.Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=2, rebuild=True) as late:
        late.stage(0, old)
        late.judge()
        with mysql.Load(job.dsn, job.table, run_id=2, block_id=1, pipeline_id=1, fence=3, rebuild=True) as successor:
            successor.stage(0, new)
            successor.judge()
            successor.merge()
        with pytest.raises(LeaseLost):
            late.merge()
    assert job.rows("id, cast(n as int)") == [("a", 2)]


def test_a_table_with_triggers_is_not_put_aside(loads, mariadb_server):
    job = loads({"id": "text"}, name="watched")
    job.load([["a"]])
    with closing(mariadb_server.root()) as root, root.cursor() as cursor:
        cursor.execute("create trigger city.watch before insert on city.watched for each row set @x = 1")
    with pytest.raises(SetupError) as told:
        job.load([["b"]], rebuild=True)
    assert told.value.code == "depended-on"
    assert job.rows() == [("a",)]


# law 3 and law 5


def test_an_attempt_that_was_replaced_merges_nothing(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"]], fence=1)
    [old, new] = job.files([["a", "old"], ["b", "1"]], [["a", "2"]])
    with mysql.Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=2) as late:
        late.stage(0, old)
        late.judge()
        with mysql.Load(job.dsn, job.table, run_id=2, block_id=1, pipeline_id=1, fence=3) as successor:
            successor.stage(0, new)
            successor.judge()
            successor.merge()
        with pytest.raises(LeaseLost):
            late.merge()
    assert job.rows("id, cast(n as int)") == [("a", 2)]
    with pytest.raises(LeaseLost):
        job.load([["z", "1"]], fence=2)
    assert mysql.has_merged(job.dsn, block_id=1, fence=3) and not mysql.has_merged(job.dsn, block_id=1, fence=2)


def test_a_claim_of_the_ledger_is_not_a_merge(loads):
    job = loads({"id": "text"})
    assert not mysql.has_merged(job.dsn, block_id=1, fence=1)
    job.load([["a"]], fence=1)
    assert mysql.has_merged(job.dsn, block_id=1, fence=1)
    with mysql.Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=2):
        assert not mysql.has_merged(job.dsn, block_id=1, fence=2)


def test_two_blocks_with_the_same_keys_merge_one_after_the_other_and_both_arrive(loads):
    one = loads({"id": "text", "n": "number"}, name="shared")
    two = loads({"id": "text", "n": "number"}, name="shared")
    one.load([["seed", "0"]])
    errors, merged = [], {}

    def load(job, block, value):
        try:
            merged[block] = job.load([[f"k{n}", value] for n in range(3000)], block=block, fence=1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=args) for args in ((one, 11, "1"), (two, 12, "2"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted((each.inserted, each.updated) for each in merged.values()) == [(0, 3000), (3000, 0)]
    assert len({n for _, n in one.rows("id, n") if n}) == 1


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_reader_sees_the_old_rows_or_the_new_ones_and_never_a_mix(loads, dsn, rebuild):
    job = loads({"id": "text", "n": "number"}, key=())
    job.load([[f"k{n}", "0"] for n in range(2000)])
    stop, seen = threading.Event(), set()

    def read():
        with closing(session.connect(dsn)) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(f"select count(*), cast(min(n) as int), cast(max(n) as int) from {job.table.name}")
                seen.add(cursor.fetchone())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in range(1, 6):
            job.load([[f"k{n}", str(value)] for n in range(2000)], rebuild=rebuild)
    finally:
        stop.set()
        reader.join()
    assert seen <= {(2000, value, value) for value in range(6)} and seen


@pytest.mark.parametrize("mode", ["upsert", "replace", "append"])
def test_a_merge_that_breaks_off_changes_nothing(loads, monkeypatch, mode):
    job = loads({"id": "text", "n": "number"}, key=("id",) if mode == "upsert" else ())
    job.load([["a", "1"], ["b", "1"]], region=Region("pipeline"), mode=mode)
    before = job.rows("id, n, _odo_seq")
    with monkeypatch.context() as patch:
        patch.setenv("ODO_FAULT", "load.merged:1:raise")
        faults._passes.clear()
        with pytest.raises(faults.InjectedFault):
            job.load([["a", "2"], ["c", "1"]], region=Region("pipeline"), deletes_gone=True, mode=mode)
    assert job.rows("id, n, _odo_seq") == before
    assert not mysql.has_merged(job.dsn, block_id=1, fence=2) and job.deleted() == []
    merged = job.load([["a", "2"], ["c", "1"]], region=Region("pipeline"), deletes_gone=True, mode=mode)
    assert (merged.inserted, merged.updated, merged.deleted) == {"upsert": (1, 1, 1), "replace": (2, 0, 2), "append": (2, 0, 2)}[mode]


def test_a_load_whose_session_is_ended_leaves_the_table_as_it_was(loads):
    job = loads({"id": "text"})
    job.load([["a"]])
    [path] = job.files([["b"], ["c"]])
    with mysql.Load(job.dsn, job.table, run_id=77, block_id=1, pipeline_id=1, fence=5) as load:
        load.stage(0, path)
        load.judge()
        assert mysql.end_sessions(job.dsn, run_id=77) == 1
        with pytest.raises(TransientError) as told:
            load.merge()
    assert told.value.code == "warehouse-down"
    assert job.rows() == [("a",)]
    assert mysql.end_sessions(job.dsn, run_id=77) == 0


def test_all_sessions_of_a_run_are_ended_and_no_other_runs(dsn):
    with closing(mysql.connect(dsn, run_id=5)) as one, closing(mysql.connect(dsn, run_id=5)) as two, closing(mysql.connect(dsn, run_id=6)) as other:
        assert mysql.end_sessions(dsn, run_id=5) == 2
        for ended in (one, two):
            with pytest.raises(pymysql.Error), ended.cursor() as cursor:
                cursor.execute("select 1")
        with other.cursor() as cursor:
            assert cursor.execute("select 1") == 1


def test_nothing_of_a_load_is_left_on_the_server(loads, city):
    job = loads({"id": "text"})
    job.load([["a"]])
    until = time.monotonic() + 10
    while len(city("show processlist")) > 1 and time.monotonic() < until:
        time.sleep(0.05)  # a session that was closed takes an instant to end
    assert [found for (found,) in city("show tables")] == ["_odo_counter", "_odo_deleted", "_odo_ledger", job.table.name]
    assert len(city("show processlist")) == 1


# errors in plain words


def test_a_warehouse_that_is_away_is_worth_another_try_and_tells_no_password():
    with pytest.raises(TransientError) as told:
        mysql.count("mysql://someone:hunter2@127.0.0.1:1/nowhere", "t", Scope())
    assert told.value.code == "warehouse-down" and "hunter2" not in told.value.message


def test_a_wrong_password_is_for_a_person_and_not_told(mariadb_server):
    with pytest.raises(SetupError) as told:
        mysql.count(f"mysql://odo:hunter2@127.0.0.1:{mariadb_server.port}/city", "t", Scope())
    assert told.value.code == "warehouse-forbidden" and "hunter2" not in told.value.message and told.value.next_step


@pytest.mark.parametrize("address", ["mysql://u:p@h:port/d", "mysql://u:p@h", "mysql://u:p@h/d?charset=latin1", "mysql://[h/d"])
def test_an_address_that_cannot_be_read_is_told_as_one(address):
    with pytest.raises(SetupError) as told:
        mysql.connect(address)
    assert told.value.code == "warehouse-address"


def test_a_right_that_is_missing_is_told_as_one(loads, mariadb_server):
    job = loads({"id": "text"}, name="guarded")
    with closing(mariadb_server.root()) as root, root.cursor() as cursor:
        cursor.execute("create user reader@'127.0.0.1' identified by 'x'")
        cursor.execute("grant select on city.* to reader@'127.0.0.1'")
    try:
        with pytest.raises(SetupError) as told:
            Loads(f"mysql://reader:x@127.0.0.1:{mariadb_server.port}/city", job.folder, {"id": "text"}, name="guarded").load([["a"]])
    finally:
        with closing(mariadb_server.root()) as root, root.cursor() as cursor:
            cursor.execute("drop user reader@'127.0.0.1'")
    assert told.value.code == "warehouse-forbidden"


def test_a_server_that_takes_no_local_files_says_what_to_set(loads, mariadb_server):
    job = loads({"id": "text"})
    with closing(mariadb_server.root()) as root, root.cursor() as cursor:
        cursor.execute("set global local_infile = off")
        try:
            with pytest.raises(SetupError) as told:
                job.load([["a"]])
        finally:
            cursor.execute("set global local_infile = on")
    assert told.value.code == "warehouse-local-infile" and "local_infile" in told.value.next_step


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pymysql.OperationalError(1213, "Deadlock found"), TransientError),
        (pymysql.OperationalError(1205, "Lock wait timeout"), TransientError),
        (pymysql.OperationalError(2013, "Lost connection"), TransientError),
        (pymysql.OperationalError(1114, "The table is full"), TransientError),
        (pymysql.InterfaceError(0, ""), TransientError),
        (pymysql.ProgrammingError(1064, "syntax"), PermanentError),
    ],
)
def test_the_servers_errors_tell_who_acts(error, kind):
    with pytest.raises(kind), mysql.plain_words():
        raise error


def test_a_value_that_the_server_would_change_stops_the_load(dsn):
    with closing(session.connect(dsn)) as connection, connection.cursor() as cursor, pytest.raises(PermanentError, match="changed a value"):
        session.run(cursor, "select cast('12x' as decimal)")


def test_the_server_cannot_ask_for_a_file_of_this_machine(dsn, tmp_path, city):
    (tmp_path / "secret").write_text("secret\n")
    city("create table loot (line text)")
    with closing(session.connect(dsn)) as connection, connection.cursor() as cursor, pytest.raises(SetupError, match="nobody offered"):
        cursor.execute(f"load data local infile '{tmp_path / 'secret'}' into table loot")
    assert city("select * from loot") == []


# what publishing and pages read


def test_rows_are_read_in_the_order_of_writing_and_from_where_one_stopped(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([[f"k{n:02}", str(n)] for n in range(25)])
    chunks = list(mysql.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=10, run_id=1))
    assert [len(rows) for _, rows in chunks] == [10, 10, 5]
    later = list(mysql.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=chunks[0][0], chunk=100, run_id=1))
    assert later[0][1] == chunks[1][1] + chunks[2][1]
    assert mysql.count(job.dsn, job.table.name, Scope(), after=chunks[1][0]) == 5


def test_reading_for_a_portal_holds_no_transaction_open_while_the_portal_is_talked_to(loads, mariadb_server):
    job = loads({"id": "text"})
    job.load([[f"k{n}"] for n in range(30)])
    with closing(mariadb_server.root()) as root, root.cursor() as cursor:
        for _ in mysql.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=10, run_id=55):
            cursor.execute("select count(*) from information_schema.innodb_trx")
            assert cursor.fetchone() == (0,)


def test_a_number_of_writing_of_another_table_is_never_higher_than_the_next_one(loads):
    one, two = loads({"id": "text"}), loads({"id": "text"})
    one.load([["a"], ["b"]])
    two.load([["a"]])
    one.load([["c"]])
    written = dict(one.rows("id, _odo_seq"))
    assert written["a"] < written["b"] < two.rows("_odo_seq")[0][0] < written["c"]


def test_a_scope_is_a_block_or_a_pipeline_or_all(loads):
    job = loads({"id": "text"})
    job.load([["a"]], block=1, pipeline=1)
    job.load([["b"], ["c"]], block=2, pipeline=1)
    job.load([["d"]], block=3, pipeline=2)
    counts = [mysql.count(job.dsn, job.table.name, scope) for scope in (Scope(block_id=2), Scope(pipeline_id=1), Scope())]
    assert counts == [2, 3, 4]


def test_the_highest_value_is_told_as_portals_write_it(loads):
    job = loads({"id": "text", "at": "local_time", "seen": "instant", "n": "number", "none": "text"})
    job.load([["a", "2026-01-02", "2026-01-02T03:04:05Z", "9", ""], ["b", "2026-01-01", "", "10.5", ""]])
    job.load([["c", "2027-01-01", "", "99", ""]], pipeline=2)
    told = {column: mysql.highest(job.dsn, job.table.name, column, pipeline_id=1) for column in ("id", "at", "seen", "n", "none", "missing")}
    assert told == {"id": "b", "at": "2026-01-02T00:00:00.000", "seen": "2026-01-02T03:04:05.000Z", "n": "10.5", "none": "", "missing": ""}


def test_rows_are_counted_by_two_columns_and_dates_by_their_year(loads):
    job = loads({"id": "text", "species": "text", "at": "local_time", "open": "boolean"})
    job.load([["1", "Dog", "2018-01-01", "t"], ["2", "Cat", "2018-02-01", "f"], ["3", "Dog", "2018-03-01", ""], ["4", "", "2019-01-01", ""]])
    assert mysql.count_by_two(job.dsn, job.table.name, "species", "at") == [("Dog", "2018", 2), (None, "2019", 1), ("Cat", "2018", 1)]
    assert mysql.count_by_two(job.dsn, job.table.name, "open", "missing") == []
    assert mysql.count_by_two(job.dsn, job.table.name, "open", "species", limit=1) == [(None, None, 1)]


def test_a_sample_is_text_as_a_page_shows_it(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time", "open": "boolean"})
    job.load([["a", "1.50", "2026-01-02T03:04:05.5", "t"], ["b", "", "2026-01-02", ""]])
    assert mysql.sample(job.dsn, job.table.name) == (
        ["id", "n", "at", "open"],
        [("a", "1.5", "2026-01-02 03:04:05.500000", "true"), ("b", None, "2026-01-02 00:00:00", None)],
    )
    assert mysql.sample(job.dsn, "never_made") == ([], [])


def test_statistics_and_room_are_renewed_and_views_are_not_for_refreshing(loads):
    job = loads({"id": "text"})
    job.load([["a"]])
    assert job.table.name in mysql.analyze(job.dsn, job.table.name) and job.table.name in mysql.vacuum(job.dsn, job.table.name)
    for act in (mysql.analyze, mysql.vacuum):
        with pytest.raises(SetupError) as told:
            act(job.dsn, "never_made")
        assert told.value.code == "no-table"
    with pytest.raises(SetupError, match="no materialized views"):
        mysql.refresh(job.dsn, "a_view")


# an independent reader


def test_a_readers_client_sees_the_rows_of_the_file(loads, mariadb_server, tmp_path):
    import subprocess

    job = loads({"id": "text", "note": "text", "n": "number"})
    rows = [[f"k{n:05}", ["Zoë 🙂", 'Leonard "Leo"', "a, b", ""][n % 4], str(n)] for n in range(1000)]
    job.load(rows)
    query = f"select concat_ws('|', id, coalesce(note, ''), cast(n as int)) from {job.table.name} order by id"
    command = ["mariadb", "--no-defaults", f"--socket={mariadb_server.socket}", "-uroot", "--default-character-set=utf8mb4", "-N", "-r", "city"]
    seen = subprocess.run([*command, "-e", query], check=True, capture_output=True).stdout
    expected = "".join("|".join(row) + "\n" for row in rows).encode()
    assert hashlib.sha256(seen).hexdigest() == hashlib.sha256(expected).hexdigest()


# through the whole corridor, by the same stages


@pytest.fixture
def maria_scene(stage_scene, settings, dsn):
    """Scenes whose warehouse is MariaDB."""
    settings.WAREHOUSES = {**settings.WAREHOUSES, "maria": dsn}
    return lambda *args, **fields: stage_scene(*args, **{"warehouse": "maria", **fields})


def whole(scene, ask, rows: int) -> None:
    """Source = lake = warehouse = portal, each row once, and every finished run's counts add up."""
    assert scene.block.state == "done", (scene.block.state, scene.block.message)
    assert ask(f"select count(*), count(distinct id) from {scene.pipeline.table}") == [(rows, rows)]
    assert as_sent(scene.portal_rows()) == as_sent(scene.source_rows()) and len(scene.portal_rows()) == rows
    for run in scene.runs():
        assert run.state != "running"
        if run.state == "done":
            assert run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates


@pytest.mark.django_db(transaction=True)
def test_rows_pass_through_mariadb_to_the_portal_then_nothing_then_what_changed_and_what_is_gone(maria_scene, city):
    scene = maria_scene(1000, gone_rows="delete")
    scene.go()
    whole(scene, city, 1000)
    assert [(run.stage, run.rows_in, run.rows_out) for run in scene.runs()] == [
        ("extract", 1000, 1000),
        ("load", 1000, 1000),
        ("publish", 1000, 1000),
    ]
    before = city(f"select id, _odo_seq from {scene.pipeline.table}")
    scene.again("load")
    assert scene.last("load").unchanged == 1000
    assert city(f"select id, _odo_seq from {scene.pipeline.table}") == before
    edited = set(scene.source.edit(SOURCE, 0.05)["edited"])
    scene.source.dataset(SOURCE).publish([{"id": key, ":deleted": True} for key in sorted(set(scene.source_rows()) - edited)[:10]])
    scene.go()
    whole(scene, city, 990)
    load, publish = scene.last("load"), scene.last("publish")
    assert (load.inserted, load.updated, load.unchanged, load.deleted) == (0, 50, 940, 10)
    assert publish.deleted == 10
    after = dict(city(f"select id, _odo_seq from {scene.pipeline.table}"))
    assert {key for key, seq in before if key in after and after[key] != seq} == edited


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["load.staged:2:kill", "load.merged:1:kill", "load.committed:1:kill"])
def test_a_load_that_is_killed_at_any_step_is_finished_by_the_next_attempt(maria_scene, city, monkeypatch, point):
    scene = maria_scene(1000)
    scene.go()
    old = city(f"select * from {scene.pipeline.table} order by id")
    scene.source.edit(SOURCE, 0.3)
    monkeypatch.setenv("ODO_FAULT", point)
    scene.go()
    rows = city(f"select * from {scene.pipeline.table} order by id")
    assert (rows == old) == (point != "load.committed:1:kill")
    monkeypatch.delenv("ODO_FAULT")
    scene.hurry()
    whole(scene, city, 1000)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("point", ["load.staged:2:kill", "load.merged:1:kill", "load.swapped:1:kill"])
def test_an_initialize_that_is_killed_half_way_serves_whole_rows_and_the_next_attempt_finishes(maria_scene, city, monkeypatch, point):
    scene = maria_scene(1000)
    scene.go()
    scene.source.dataset(SOURCE).publish([{"id": made_row(0)[0], ":deleted": True}])
    monkeypatch.setenv("ODO_FAULT", point)
    scene.go(rebuild=True)
    assert city(f"select count(*) from {scene.pipeline.table}") == [(999 if "swapped" in point else 1000,)]
    monkeypatch.delenv("ODO_FAULT")
    scene.hurry()
    whole(scene, city, 999)
    planner.clear_leftovers()
    assert city("show tables like '\\_odo\\_new%'") == [] == city("show tables like '\\_odo\\_old%'")


@pytest.mark.django_db(transaction=True)
def test_by_watermark_only_what_is_new_is_read_and_keys_alone_find_what_is_gone(maria_scene, city):
    scene = maria_scene(100, gone_rows="delete", watermark_column="updateddate", overlap_minutes=0, page_size=400)
    scene.go()
    scene.pipeline.refresh_from_db()
    assert scene.pipeline.watermark == made_row(99)[5]
    source = scene.source.dataset(SOURCE)
    Pipeline.objects.update(compared_at=timezone.now() - timedelta(days=8))
    source.publish([{"id": made_row(4)[0], ":deleted": True}, dict(zip(source.names, made_row(100), strict=True))])
    scene.go()
    whole(scene, city, 100)
    load = scene.last("load")
    assert (load.rows_in, load.inserted, load.deleted) == (2, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_twins_without_a_key_stay_twins(maria_scene, city):
    rows = [("Molly", "Dog", "2017-04-28T00:00:00.000")] * 2 + [("Zoë", "Cat", "2018-01-02T00:00:00.000")]
    source = SandboxTable(SOURCE, "Pets", (("name", "text"), ("species", "text"), ("issued", "calendar_date")), rows)
    more = {"key": [], "load_mode": "replace", "portal": None, "portal_resource": "", "stages": ["extract", "load"], "version_column": ""}
    scene = maria_scene(source, **more)
    scene.go()
    before = city(f"select name, _odo_seq from {scene.pipeline.table} order by 2")
    assert sorted(name for name, _ in before) == ["Molly", "Molly", "Zoë"]
    scene.go(force=True)
    load = scene.last("load")
    assert (load.unchanged, load.inserted, load.deleted) == (3, 0, 0)
    assert city(f"select name, _odo_seq from {scene.pipeline.table} order by 2") == before


@pytest.mark.django_db(transaction=True)
def test_a_copy_of_the_rows_in_each_kind_of_warehouse_gives_the_same_counts_and_rejects(maria_scene, city):
    from pipelines.models import RejectedRow

    told = {}
    for alias in ("default", "maria"):
        source = table(300)
        scene = maria_scene(source, warehouse=alias, portal=None, portal_resource="", stages=["extract", "load"], types={"amount": "boolean"})
        scene.source.dataset(SOURCE).publish([dict(zip(source.names, made_row(n), strict=True)) | {"amount": "1"} for n in range(200)])
        scene.go()
        run = scene.last("load")
        rejected = RejectedRow.objects.filter(run=run).order_by("line").values_list("line", "column", "reason", "value", "row_key")
        told[alias] = (run.rows_in, run.inserted, run.updated, run.unchanged, run.rejected, run.duplicates, list(rejected))
    assert told["default"] == told["maria"] and told["maria"][4] > 0
