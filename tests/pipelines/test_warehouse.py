"""City data in PostgreSQL: what may enter, what is rejected and why, and that a merge is whole or not at all."""

import itertools
import random
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import psycopg2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.connectors.base import Column
from pipelines.connectors.csv_pages import settle
from pipelines.errors import DataError, LeaseLost, PermanentError, SetupError, TransientError
from pipelines.warehouse import postgres
from pipelines.warehouse.postgres import Load
from pipelines.warehouse.tables import Merged, Only, Region, Rejected, Scope, Table
from tests.pipelines.scene import city, connect, drop_city, write_csv

pytestmark = pytest.mark.django_db

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def clean_city(db):
    yield
    drop_city()


@pytest.fixture
def dsn(settings):
    return settings.WAREHOUSES["default"]


class Loads:
    """Loads of one table from rows given as text."""

    def __init__(self, dsn, folder, columns: dict[str, str], key: tuple[str, ...] = ("id",), version="", name="", vouched=False):
        self.dsn, self.folder, self.vouched = dsn, folder, vouched
        self.table = Table(name or f"t{next(_numbers)}", tuple(Column(name=name, type=kind) for name, kind in columns.items()), key, version)
        self.fence = 0
        self.rejected: list[Rejected] = []

    def files(self, *files) -> list:
        """CSV files of rows, or of raw bytes, as they lie in the lake."""
        paths = []
        for number, rows in enumerate(files):
            path = self.folder / f"{self.table.name}-{next(_numbers)}-{number}.csv"
            if isinstance(rows, bytes):
                path.write_bytes(rows)
            else:
                write_csv(path, self.table.names, rows)
            paths.append(path)
        return paths

    def load(self, *files, block: int = 1, pipeline: int = 1, fence: int | None = None, counted: bool = True, **more) -> Merged:
        self.fence = fence if fence is not None else self.fence + 1
        paths = self.files(*files)
        with Load(self.dsn, self.table, run_id=1, block_id=block, pipeline_id=pipeline, fence=self.fence, **{"vouched": self.vouched, **more}) as job:
            for number, path in enumerate(paths):
                rows = settle(path, proven=True).rows
                assert job.stage(number, path) == rows or not counted
            number = job.judge()
            self.rejected = list(job.rejected())
            assert len(self.rejected) == number
            merged = job.merge()
            assert job.staged == merged.inserted + merged.updated + merged.unchanged + merged.duplicates + number
        return merged

    def rows(self, columns: str = "*") -> list[tuple]:
        listed = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in self.table.names) if columns == "*" else columns
        return city(f'select {listed} from city."{self.table.name}" order by 1')


@pytest.fixture(params=[False, True], ids=["judged", "vouched"])
def loads(request, dsn, tmp_path):
    """A maker of loads, once the careful way and once with types that the source vouches for: both promise the same."""
    return lambda columns, **more: Loads(dsn, tmp_path, columns, vouched=request.param, **more)


# merging by key


def test_a_first_load_inserts_and_the_same_again_changes_nothing(loads):
    job = loads({"id": "text", "n": "number"})
    rows = [[f"k{n}", str(n)] for n in range(50)]
    assert job.load(rows) == Merged(50, 0, 0, 0, 0)
    before = job.rows("id, n, _odo_seq, _odo_loaded_at, xmin::text")
    assert job.load(rows) == Merged(0, 0, 50, 0, 0)
    assert job.rows("id, n, _odo_seq, _odo_loaded_at, xmin::text") == before  # not even touched


def test_only_what_differs_is_written_and_gets_a_new_number(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([[f"k{n}", str(n)] for n in range(100)])
    before = dict(job.rows("id, _odo_seq"))
    assert job.load([[f"k{n}", "999" if n % 10 == 0 else str(n)] for n in range(101)]) == Merged(1, 10, 90, 0, 0)
    after = dict(job.rows("id, _odo_seq"))
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {f"k{n}" for n in range(0, 101, 10)}
    assert min(after[key] for key in changed) > max(before.values())


def test_of_copies_within_a_load_the_last_one_wins_and_the_others_are_counted(loads):
    job = loads({"id": "text", "n": "number"})
    assert job.load([["a", "1"], ["b", "1"], ["a", "2"]], [["a", "3"], ["c", "1"]]) == Merged(3, 0, 0, 0, 2)
    assert job.rows("id, n::int") == [("a", 3), ("b", 1), ("c", 1)]


def test_with_a_version_the_newest_copy_wins_wherever_it_stands(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time"}, version="at")
    files = ([["a", "2", "2026-01-02T00:00:00"], ["a", "1", "2026-01-01T00:00:00"]], [["a", "0", ""], ["b", "1", ""]])
    assert job.load(*files) == Merged(2, 0, 0, 0, 2)
    assert job.rows("id, n::int") == [("a", 2), ("b", 1)]
    # a tie: the later one
    job.load([["a", "5", "2026-01-03T00:00:00"], ["a", "6", "2026-01-03T00:00:00"]])
    assert job.rows("id, n::int") == [("a", 6), ("b", 1)]


def test_an_older_version_never_replaces_a_newer_one(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time"}, version="at")
    job.load([["a", "2", "2026-01-02T00:00:00"]])
    assert job.load([["a", "1", "2026-01-01T00:00:00"], ["b", "1", "2026-01-01T00:00:00"]]) == Merged(1, 0, 0, 0, 1)
    assert job.rows("id, n::int") == [("a", 2), ("b", 1)]


def test_a_key_of_several_columns_of_any_type(loads):
    job = loads({"day": "local_time", "code": "number", "open": "boolean", "n": "number"}, key=("day", "code", "open"))
    rows = [[f"2026-01-{d:02}T00:00:00", str(c), flag, "1"] for d in range(1, 4) for c in range(3) for flag in ("true", "false")]
    assert job.load(rows) == Merged(18, 0, 0, 0, 0)
    # 1.0 is 1: equal values are one key, however they are written
    assert job.load([["2026-01-01", "1.0", "t", "7"], ["1/1/2026", "1", "yes", "8"]]) == Merged(0, 1, 0, 0, 1)
    assert len(job.rows()) == 18


def test_a_table_that_is_all_key_loads_too(loads):
    job = loads({"id": "text"})
    assert job.load([["a"], ["b"]]) == Merged(2, 0, 0, 0, 0)
    assert job.load([["b"], ["c"]]) == Merged(1, 0, 1, 0, 0)


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


# values


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "number",
            ["1", "-1.5", "+2", ".5", "5.", "1e10", "1E-3", " 7 ", "0" * 50, "9" * 200, "1e9999"],
            ["x", "1,5", "1_000", "0x1f", "NaN", "Infinity", "-inf", "1e99999", "1 2", "--1", "½", "1e", "٣", "1;drop table t"],
        ),
        (
            "local_time",
            ["2026-01-02T03:04:05.678", "2026-01-02 03:04", "2026-01-02", "1/2/20 8:43", "1/2/2020 8:43:59 PM", "1/2/2020 8:43AM", "April 19 2003",
             "0001-01-01", "9999-12-31T23:59:59.999", "2024-02-29", "2026-03-08T02:30:00", "Wed Dec 17 07:37:16 1997"],
            ["2026-13-01", "2023-02-29", "31/12/2026", "yesterday", "now", " Today ", "infinity", "-infinity", "epoch", "2026-01-01 allballs", "noon",
             "0044-03-15 BC", "12026-01-01", "9999999-01-01", "24:00", "x", "2026-01-02T25:00:00", "'); --",
             "2026-01-02T03:04:05Z", "2026-01-02T03:04:05z", "2026-01-02 03:04:05+00", "2026-01-02T03:04:05-08:00", "2026-01-02 03:04 -0500",
             "2026-01-02 03:04 EST", "2026-01-02 03:04 America/Chicago", "2026-01-02 03:04 UTC", "2026-01-02 03:04 PM PST", "2026-01-02T03:04 GMT"],
        ),
        (
            "instant",
            ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05+05:30", "2026-01-02 03:04 PST", "2026-01-02T03:04:05", "2026-01-02"],
            ["infinity", "now", "tomorrow 10:00", "2026-13-01", "0044-03-15 BC", "10000-01-01", "1e5", "2026-01-02 03:04 Mars/Olympus"],
        ),
        ("boolean", ["true", "false", "t", "F", "yes", "no", "1", "0", "on", " off "], ["2", "maybe", "truthy", "null", "-1"]),
        ("json", ['{"a": 1}', "[]", "null", '"x"', "1"], ["{", "{'a': 1}", "NaN", '{"a": Infinity}', '"\\u0000"', "[1,]", "undefined"]),
        ("text", ["anything", "NULL", "\\N", "\\.", "''", '"', "now", "\u202eevil", "🙂" * 50, "a\tb", "a\nb", "a\r\nb", "%s {} ;"], []),
        ("point", ["POINT (-118.25 34.05)", "x"], []),
    ],
)  # fmt: skip
def test_each_value_is_taken_or_rejected_with_its_reason(loads, kind, good, bad):
    job = loads({"id": "text", "value": kind})
    cells = [*good, "", *bad]
    job.load([[f"k{n:03}", cell] for n, cell in enumerate(cells)])
    assert [rejected.value for rejected in job.rejected] == bad
    assert {rejected.column for rejected in job.rejected} <= {"value"}
    kept = job.rows("id, value::text")
    assert [key for key, _ in kept] == [f"k{n:03}" for n in range(len(good) + 1)]
    assert kept[-1][1] is None  # an empty cell is nothing, whatever its type
    if kind in ("text", "point"):
        assert [value for _, value in kept[:-1]] == good
    # what was taken can be read back by a program, and goes out to a portal as text
    [(_, sent)] = postgres.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=1000, run_id=1)
    assert len(sent) == len(good) + 1 and all(isinstance(row["value"], str | bool | None) for row in sent)
    job.rows("value")


def test_the_reason_names_what_is_wrong(loads):
    job = loads({"id": "text", "n": "number", "at": "local_time", "open": "boolean", "more": "json"})
    rows = [["a", "x", "", "", ""], ["b", "1", "x", "", ""], ["c", "1", "2026-01-01T00:00:00Z", "", ""], ["d", "", "", "?", ""]]
    job.load([*rows, ["e", "", "", "", "{"], ["", "1", "", "", ""], ["k" * 1001, "", "", "", ""]])
    assert [(rejected.column, rejected.reason) for rejected in job.rejected] == [
        ("n", "not a number"),
        ("at", "not a date and time"),
        ("at", "has a zone, but the column is in local time"),
        ("open", "not true or false"),
        ("more", "not JSON"),
        ("id", "the key is empty"),
        ("id", "the key is longer than 1,000 bytes"),
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
    # nothing that PostgreSQL could compress into one index page
    long = ["".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(320)) for _ in range(3)]
    assert job.load([long, ["x", "y", "z"]]) == Merged(1, 0, 0, 0, 0)
    assert "longer than" in job.rejected[0].reason


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


def test_broken_rows_and_bad_values_of_one_file_are_told_apart_and_in_order(loads):
    job = loads({"id": "text", "n": "number"})
    job.load(b'id,n\n"a","x"\n"b"\n"c","y"\n"d","1"\n')
    told = [(rejected.line, rejected.reason) for rejected in job.rejected]
    assert told == [(2, "not a number"), (3, "1 cells where 2 are expected"), (4, "not a number")]


def test_a_file_of_one_column_counts_its_blank_lines_as_rows(loads):
    job = loads({"name": "text"}, key=())
    assert job.load(b'name\n"a"\n\n"b"\n\n') == Merged(4, 0, 0, 0, 0)
    assert city(f"select count(*), count(name) from city.{job.table.name}") == [(4, 2)]
    # also where a broken row makes the file be read row by row
    assert job.load(b'name\n"a"\n\n"b","c"\n"d"\n') == Merged(1, 0, 2, 2, 0)  # an "a" and a blank one stay as they are
    assert [rejected.line for rejected in job.rejected] == [4]


def test_a_line_of_backslash_and_dot_is_a_value_and_not_the_end(loads):
    job = loads({"name": "text"}, key=())
    assert job.load(b'name\n"a"\n"\\."\n"b"\n') == Merged(3, 0, 0, 0, 0)
    assert sorted(job.rows()) == [("\\.",), ("a",), ("b",)]


def test_quoted_newlines_and_carriage_returns_stay_in_their_cell(loads):
    job = loads({"id": "text", "note": "text"})
    notes = ["one\ntwo", "one\r\ntwo", "one\rtwo", '"quoted"', "a,b", "\n", '""', "tab\t", " lead and trail "]
    job.load([[f"k{n}", note] for n, note in enumerate(notes)])
    assert [note for _, note in job.rows()] == notes


def test_a_byte_order_mark_is_no_part_of_the_first_name(loads):
    job = loads({"id": "text", "n": "number"})
    assert job.load(b'\xef\xbb\xbf"id","n"\n"a","1"\n') == Merged(1, 0, 0, 0, 0)


def test_cells_of_a_megabyte_are_kept(loads):
    job = loads({"id": "text", "note": "text"})
    big = "x" * (1 << 20) + "ü\n"
    job.load([["a", big], ["b", "small"]])
    assert job.rows()[0] == ("a", big)
    # and where the file is read row by row
    job.load(f'id,note\n"c","{big}"\n"d"\n'.encode())
    assert city(f"select length(note) from city.{job.table.name} where id = 'c'") == [(len(big),)]


@pytest.mark.parametrize("header", ['"n","id"', '"id"', '"id","n","more"', '"id","N"', '"surprise","id"', ""])
def test_a_file_with_other_columns_is_refused_whole(loads, header):
    job = loads({"id": "text", "n": "number"})
    [path] = job.files(f'{header}\n"a","1"\n'.encode())
    with Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=1) as load, pytest.raises((DataError, PermanentError)) as told:
        load.stage(0, path)
    assert told.value.code == "wrong-header"
    assert "expected id, n" in told.value.message


texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)


@given(rows=st.lists(st.tuples(texts, texts), max_size=12))
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_text_a_source_sends_comes_back_the_same_and_every_row_is_accounted_for(loads, rows):
    job = loads({"id": "text", "note": "text"})
    job.load([list(row) for row in rows])
    expected = {key: note or None for key, note in rows if key}
    assert dict(city(f"select id, note from city.{job.table.name}")) == expected
    assert len(job.rejected) == sum(not key for key, _ in rows)


# names


HOSTILE = [
    'quote"inside', "it's", "percent %s %(x)s 100%", "{}", "{0} {name}", "; drop table t; --", "select", "user", "table", "ORDER", "two words",
    "ünïcødé", "\u202egnp.exe", "tab\there", "a.b", "x" * 63, "é" * 31, "1st", "is_new", "is_older", "_file", "_record",
    "why", "s", "n", "o", "typed", "good", "$1", ":id", "?", "\\", "/*", "ctid_", "now()", "NULL",
]  # fmt: skip


def test_hostile_column_names_are_only_names(loads):
    names = dict.fromkeys(HOSTILE, "text")
    job = loads({**names, "id": "text", "at %s": "local_time"}, version="at %s")
    row = [f"v{n}" for n in range(len(names))]
    assert job.load([[*row, "a", "2026-01-01"]]) == Merged(1, 0, 0, 0, 0)
    assert job.load([["changed", *row[1:], "a", "2026-01-02"]]) == Merged(0, 1, 0, 0, 0)
    assert job.load([["old", *row[1:], "a", "2026-01-01"]]) == Merged(0, 0, 0, 0, 1)
    [(_, [sent])] = postgres.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=9, run_id=1)
    assert sent['quote"inside'] == "changed" and sent["is_new"] == row[HOSTILE.index("is_new")]
    assert postgres.table_columns(job.dsn, job.table.name) == job.table.names
    assert postgres.sample(job.dsn, job.table.name)[0] == job.table.names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_may_be_the_key(loads, name):
    job = loads({name: "text", "amount": "number"}, key=(name,))
    assert job.load([["a", "1"], ["", "2"], ["b", "x"]]) == Merged(1, 0, 0, 0, 0)
    assert [rejected.column for rejected in job.rejected] == [name, "amount"]


def test_hostile_names_without_a_key(loads):
    job = loads(dict.fromkeys(HOSTILE, "text"), key=())
    assert job.load([["x"] * len(HOSTILE)]) == Merged(1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": "text", "_odo_seq": "text"}, "names with _odo_ are ours"),
        ({"id": "text", "y" * 64: "text"}, "63 bytes"),
        ({"id": "text", "é" * 32: "text"}, "63 bytes"),
        ({"id": "text", "Name": "text", "name": "text"}, "same name"),
    ],
)
def test_a_column_that_the_warehouse_cannot_keep_apart_is_refused_by_name(loads, columns, words):
    with pytest.raises(SetupError, match=words):
        loads(columns).load([])


# tables that exist


def test_new_columns_widen_the_table_and_old_rows_keep_what_they_had(loads):
    job = loads({"id": "text"}, name="widens")
    job.load([["a"]])
    wider = loads({"id": "text", "n": "number", "at": "instant"}, name="widens")
    wider.fence = 5
    assert wider.load([["b", "1", "2026-01-01T00:00:00Z"]]) == Merged(1, 0, 0, 0, 0)
    assert city("select id, n::int from city.widens order by 1") == [("a", None), ("b", 1)]


def test_a_column_that_left_the_source_stays_in_the_table(loads):
    loads({"id": "text", "n": "number"}, name="narrows").load([["a", "1"]])
    job = loads({"id": "text"}, name="narrows")
    assert job.load([["a"], ["b"]], fence=2) == Merged(1, 0, 1, 0, 0)
    assert city("select id, n::int from city.narrows order by 1") == [("a", 1), ("b", None)]


def test_another_type_than_the_tables_own_is_refused_with_what_to_do(loads):
    loads({"id": "text", "n": "text"}, name="retyped").load([["a", "1"]])
    with pytest.raises(SetupError, match="retyped.n is text, the source says number") as told:
        loads({"id": "text", "n": "number"}, name="retyped").load([["a", "2"]])
    assert told.value.code == "other-type" and told.value.next_step
    assert city("select n from city.retyped") == [("1",)]


@pytest.mark.parametrize("key", [("n",), ("id", "n"), ()])
def test_another_key_than_the_tables_own_is_refused(loads, key):
    loads({"id": "text", "n": "text"}, name="keyed").load([["a", "1"]])
    with pytest.raises(SetupError) as told:
        loads({"id": "text", "n": "text"}, name="keyed", key=key).load([["a", "2"]])
    assert told.value.code == "other-key"


def test_a_table_of_somebody_else_is_never_touched(loads):
    city("create schema if not exists city")
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create table city.theirs (id text primary key); insert into city.theirs values ('x')")
    with pytest.raises(SetupError, match="not made by Open Data Ops"):
        loads({"id": "text"}, name="theirs").load([["a"]])
    assert city("select id from city.theirs") == [("x",)]


def test_tables_are_made_once_by_many_who_need_them_at_once(loads, dsn):
    jobs = [loads({"id": "text"}, name="crowd") for _ in range(8)]
    errors = []

    def prepare(job):
        try:
            with closing(postgres.connect(dsn)) as connection:
                postgres.prepare(connection, job.table)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# law 3 and law 5


def test_an_attempt_that_was_replaced_merges_nothing(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([["a", "1"]], fence=1)
    [old, new] = job.files([["a", "old"], ["b", "1"]], [["a", "2"]])
    with Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=2) as late:
        late.stage(0, old)
        late.judge()
        with Load(job.dsn, job.table, run_id=2, block_id=1, pipeline_id=1, fence=3) as successor:
            successor.stage(0, new)
            successor.judge()
            successor.merge()
        with pytest.raises(LeaseLost):
            late.merge()
    assert job.rows("id, n::int") == [("a", 2)]
    with pytest.raises(LeaseLost):
        job.load([["z", "1"]], fence=2)
    assert postgres.has_merged(job.dsn, block_id=1, fence=3) and not postgres.has_merged(job.dsn, block_id=1, fence=2)


def test_a_claim_of_the_ledger_is_not_a_merge(loads):
    job = loads({"id": "text"})
    assert not postgres.has_merged(job.dsn, block_id=1, fence=1)
    job.load([["a"]], fence=1)
    assert postgres.has_merged(job.dsn, block_id=1, fence=1)
    with Load(job.dsn, job.table, run_id=1, block_id=1, pipeline_id=1, fence=2):
        assert not postgres.has_merged(job.dsn, block_id=1, fence=2)


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


def test_a_reader_sees_the_old_rows_or_the_new_ones_and_never_a_mix(loads):
    job = loads({"id": "text", "n": "number"}, key=())
    job.load([[f"k{n}", "0"] for n in range(2000)])
    stop, seen = threading.Event(), set()

    def read():
        with closing(connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute(f"select count(*), min(n)::int, max(n)::int from city.{job.table.name}")
                    seen.add(cursor.fetchone())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in range(1, 6):
            job.load([[f"k{n}", str(value)] for n in range(2000)])
    finally:
        stop.set()
        reader.join()
    assert seen <= {(2000, value, value) for value in range(6)}


def test_a_load_whose_session_is_ended_leaves_the_table_as_it_was(loads):
    job = loads({"id": "text"})
    job.load([["a"]])
    [path] = job.files([["b"], ["c"]])
    with Load(job.dsn, job.table, run_id=77, block_id=1, pipeline_id=1, fence=5) as load:
        load.stage(0, path)
        load.judge()
        assert postgres.end_sessions(job.dsn, run_id=77) == 1
        with pytest.raises(TransientError) as told:
            load.merge()
    assert told.value.code == "warehouse-down"
    assert job.rows() == [("a",)]
    assert postgres.end_sessions(job.dsn, run_id=77) == 0


def test_a_first_load_that_loses_one_of_its_sessions_is_worth_another_try(dsn, tmp_path):
    job = Loads(dsn, tmp_path, {"id": "text"}, vouched=True)
    paths = job.files(*[[[f"{page}-{n}"] for n in range(50)] for page in range(40)])
    others = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = 'odo run 77' and pid <> %s"
    with (
        pytest.raises(TransientError) as told,
        Load(dsn, job.table, run_id=77, block_id=1, pipeline_id=1, fence=1, vouched=True, connections=2) as load,
    ):
        for number, _ in load.stage_many(enumerate(paths)):
            if number == 1:
                city(others, load.connection.info.backend_pid)
    assert told.value.code == "warehouse-down"
    assert job.load([["a"]], fence=2) == Merged(1, 0, 0, 0, 0)


def test_nothing_of_a_load_is_left_on_the_server(loads):
    job = loads({"id": "text"})
    job.load([["a"]])
    until = time.monotonic() + 10
    while city("select 1 from pg_class where relname in ('_stage', '_bad', '_new', '_delta')") and time.monotonic() < until:
        time.sleep(0.05)  # a session that was closed takes an instant to end
    assert city("select relname from pg_class where relname in ('_stage', '_bad', '_new', '_delta', '_record')") == []


# errors in plain words


def test_a_warehouse_that_is_away_is_worth_another_try_and_tells_no_password():
    with pytest.raises(TransientError) as told:
        postgres.count("postgres://someone:hunter2@127.0.0.1:1/nowhere", "t", Scope())
    assert told.value.code == "warehouse-down" and "hunter2" not in told.value.message


def test_a_right_that_is_missing_is_told_as_one(dsn, loads):
    job = loads({"id": "text"}, name="guarded")
    job.load([["a"]])
    with pytest.raises(SetupError) as told, postgres.plain_words(), closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create role nobody_here; set local role nobody_here; select * from city.guarded")
    assert told.value.code == "warehouse-forbidden"


def test_a_lock_or_a_full_disk_is_worth_another_try():
    with pytest.raises(TransientError), postgres.plain_words():
        raise psycopg2.errors.DeadlockDetected("deadlock detected")


# what publishing reads


def test_rows_are_read_in_the_order_of_writing_and_from_where_one_stopped(loads):
    job = loads({"id": "text", "n": "number"})
    job.load([[f"k{n:02}", str(n)] for n in range(25)])
    chunks = list(postgres.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=10, run_id=1))
    assert [len(rows) for _, rows in chunks] == [10, 10, 5]
    later = list(postgres.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=chunks[0][0], chunk=100, run_id=1))
    assert later[0][1] == chunks[1][1] + chunks[2][1]
    assert postgres.count(job.dsn, job.table.name, Scope(), after=chunks[1][0]) == 5


def test_reading_for_a_portal_holds_no_transaction_open_while_the_portal_is_talked_to(loads):
    job = loads({"id": "text"})
    job.load([[f"k{n}"] for n in range(30)])
    for _ in postgres.rows_after(job.dsn, job.table.name, job.table.columns, Scope(), after=0, chunk=10, run_id=55):
        held = "select count(*) from pg_locks join pg_stat_activity using (pid) where application_name = 'odo run 55' and relation = to_regclass(%s)"
        assert city(held, f"city.{job.table.name}") == [(0,)]


def test_a_scope_is_a_block_or_a_pipeline_or_all(loads):
    job = loads({"id": "text"})
    job.load([["a"]], block=1, pipeline=1)
    job.load([["b"], ["c"]], block=2, pipeline=1)
    job.load([["d"]], block=3, pipeline=2)
    counts = [postgres.count(job.dsn, job.table.name, scope) for scope in (Scope(block_id=2), Scope(pipeline_id=1), Scope())]
    assert counts == [2, 3, 4]


def test_numbers_of_a_first_load_lie_between_those_before_and_those_after_it(dsn, tmp_path):
    """What the portal has seen is told by numbers: one that comes later must be greater, in this table and in all others."""
    busy = Loads(dsn, tmp_path, {"id": "text"}, vouched=True)
    busy.load([["before"]])
    seen = busy.rows("_odo_seq")[0][0]
    job = Loads(dsn, tmp_path, {"id": "text"}, vouched=True)
    [path] = job.files([[f"k{n}"] for n in range(3_000)])
    with Load(dsn, job.table, run_id=1, block_id=2, pipeline_id=2, fence=1, vouched=True) as load:
        load.stage(0, path)
        busy.load([["meanwhile"]])
        load.judge()
        load.merge()
    busy.load([["after"]])
    numbers = [number for (number,) in job.rows("_odo_seq")]
    assert len(set(numbers)) == 3_000 and min(numbers) > seen
    assert dict(busy.rows("id, _odo_seq"))["after"] > max(numbers)
    job.load([["later"]], block=3)
    assert dict(job.rows("id, _odo_seq"))["later"] > max(numbers)


def test_numbers_that_a_load_put_aside_are_not_given_to_rows_that_merge_after_anothers(dsn, tmp_path):
    """The portal may have seen the other's rows before ours are there: a lower number would hide ours from it for ever."""
    job = Loads(dsn, tmp_path, {"id": "text"}, vouched=True)
    [path] = job.files([["slow"]])
    with Load(dsn, job.table, run_id=1, block_id=2, pipeline_id=2, fence=1, vouched=True) as slow:
        slow.stage(0, path)
        job.load([["quick"]], block=3)
        slow.judge()
        slow.merge()
    numbers = dict(job.rows("id, _odo_seq"))
    assert numbers["slow"] > numbers["quick"]


def test_rows_of_some_values_only_are_counted_and_read_and_so_are_all_the_others(loads):
    job = loads({"id": "text", "kind": "text"})
    job.load([["a", "rider"], ["b", "operator's"], ["c", ""], ["d", "Rider"]])
    columns = (*job.table.columns, Column("_odo_block", "number"), Column("_odo_loaded_at", "instant"))
    riders = Only("kind", ("", "rider"))
    for only, expected in ((riders, "ac"), (replace(riders, is_not=True), "bd"), (Only("kind", ("operator's",)), "b")):
        scope = Scope(block_id=1, only=only)
        rows = [row for _, rows in postgres.rows_after(job.dsn, job.table.name, columns, scope, after=0, chunk=3, run_id=1) for row in rows]
        assert [row["id"] for row in rows] == list(expected) and postgres.count(job.dsn, job.table.name, scope) == len(expected)
        assert {row["_odo_block"] for row in rows} == {"1"} and datetime.fromisoformat(rows[0]["_odo_loaded_at"]).tzinfo is UTC
    # what was deleted is told whatever it was
    job.load([["a", "rider"]], region=Region("pipeline"), deletes_gone=True)
    told = postgres.deleted_after(job.dsn, job.table.name, Scope(pipeline_id=1, only=riders), after=0, chunk=9, run_id=1)
    assert sorted(key["id"] for _, keys in told for key in keys) == ["b", "c", "d"]


def test_a_table_that_was_built_beside_is_vacuumed_like_any_other(dsn, tmp_path):
    """While it fills, nobody reads it and autovacuum is kept away; served, it must be looked after."""
    job = Loads(dsn, tmp_path, {"id": "text"}, vouched=True)
    [path] = job.files([["a"]])
    with Load(dsn, job.table, run_id=1, block_id=2, pipeline_id=2, fence=1, vouched=True) as load:
        load.stage(0, path)
        assert city("select reloptions from pg_class where relname = '_odo_new_2_1'") == [(["autovacuum_enabled=off"],)]
        load.judge()
        load.merge()
    assert city(f"select reloptions from pg_class where relname = '{job.table.name}'") == [(None,)]
