"""City data in PostgreSQL: bulk copy into a private stage, judge every value, merge in one transaction.

A city table lies in the schema `city` and carries four columns of ours: `_odo_pipeline` and `_odo_block` (who wrote the row
last), `_odo_seq` (rises with every write: what the portal has not seen yet) and `_odo_loaded_at`. The table `city._odo_ledger`
keeps for each block the fence of the last merge: a worker whose lease ran out can't merge over its successor.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
from psycopg2 import errorcodes
from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.errors import DataError, LeaseLost, PermanentError, SetupError, TransientError
from pipelines.faults import faultpoint

SCHEMA = "city"
COPY_BYTES = 1 << 20  # the default of 8 kB costs a third of the speed (facts/performance.md §9)
#: So long a key, all its columns together, still fits a btree page.
LONGEST_KEY = 1_000
TOO_LONG = -10_000  # the verdict on a longer one; -1 is the first column of the key being empty, -2 the second, …
#: A cell larger than this is rejected, in a file that has to be read row by row.
LARGEST_CELL = 64 << 20
#: When most of a file is rejected the type is wrong, not the rows: then nothing is loaded.
REJECTED_SHARE, REJECTED_ROWS = 0.5, 100

SQL_TYPES = {
    "text": "text",
    "number": "numeric",
    "local_time": "timestamp",
    "instant": "timestamptz",
    "boolean": "boolean",
    "point": "text",
    "json": "jsonb",
}
BOOKKEEPING = {"_odo_pipeline": "bigint", "_odo_block": "bigint", "_odo_seq": "bigint", "_odo_loaded_at": "timestamptz"}

#: Words that PostgreSQL would take as a time although no source means them.
_MAGIC_TIME = r"\y(now|today|tomorrow|yesterday|epoch|allballs|infinity)\y"
#: Zones that are UTC under another name: read by a clock that goes by UTC, they change nothing, so they are told by their looks.
_ZULU_AT_END = r"\d\s*(z|zulu|utc?|gmt|[+-]00(:?00)?)\s*$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*$"


@dataclass(frozen=True)
class Table:
    """A city table as a pipeline wants it. `version` is the column that tells the newer of two copies, or ""."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    version: str = ""

    @property
    def identifier(self) -> Identifier:
        return Identifier(SCHEMA, self.name)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True)
class Rejected:
    """A row that can't be loaded: `record` is its number in the file (the first data row is 1), `line` the line it begins on."""

    file: int
    record: int
    line: int
    column: str
    reason: str
    value: str
    raw: dict[str, str]


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows staged and good = inserted + updated + unchanged + duplicates."""

    inserted: int
    updated: int
    unchanged: int
    deleted: int
    duplicates: int


def connect(dsn: str, *, run_id: int | None = None) -> Any:
    """A connection of a stage; its name lets `end_sessions` find it. The server notices within a second when its client dies."""
    name = f"odo run {run_id}" if run_id else "odo"
    try:
        return psycopg2.connect(
            dsn, application_name=name, connect_timeout=10, options="-c client_connection_check_interval=1s -c datestyle=ISO,MDY -c timezone=UTC"
        )
    except psycopg2.OperationalError as error:
        raise TransientError(f"The warehouse does not answer: {_first_line(error)}", code="warehouse-down") from error


def end_sessions(dsn: str, *, run_id: int) -> int:
    """End what a dead run left running in the warehouse, and wait until it is gone. Returns how many sessions."""
    if not dsn:
        return 0
    with contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = %s and pid <> pg_backend_pid()",
            [f"odo run {run_id}"],
        )
        return cursor.fetchone()[0]


def has_merged(dsn: str, *, block_id: int, fence: int) -> bool:
    """Whether the attempt with that fence has merged its rows."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s) is not null", [f"{SCHEMA}._odo_ledger"])
        if not cursor.fetchone()[0]:
            return False
        ledger = Identifier(SCHEMA, "_odo_ledger")
        merged = SQL("select exists (select from {} where block_id = %s and fence = %s and merged_at is not null)").format(ledger)
        cursor.execute(merged, [block_id, fence])
        return cursor.fetchone()[0]


@contextlib.contextmanager
def plain_words() -> Iterator[None]:
    """Turn the driver's errors into ours: a server that is away passes, a server that refuses needs a person."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        if error.pgcode in (errorcodes.DISK_FULL, errorcodes.OUT_OF_MEMORY):
            raise TransientError(f"The warehouse is out of room: {_first_line(error)}", code="warehouse-full", retry_after=600) from error
        raise TransientError(f"The warehouse broke off: {_first_line(error)}", code="warehouse-down") from error
    except (psycopg2.errors.DeadlockDetected, psycopg2.errors.LockNotAvailable, psycopg2.errors.SerializationFailure) as error:
        raise TransientError(f"The warehouse was busy: {_first_line(error)}", code="warehouse-busy") from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise SetupError(
            f"The warehouse forbids it: {_first_line(error)}", code="warehouse-forbidden", next_step="Grant the warehouse user this right."
        ) from error
    except psycopg2.Error as error:
        raise PermanentError(f"The warehouse refused: {_first_line(error)}", code="warehouse-refused") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Load:
    """One load of one block: `stage` each file, `rejected` rows out, `merge`. Leaving it closes the session and drops the stage."""

    def __init__(self, dsn: str, table: Table, *, run_id: int, block_id: int, pipeline_id: int, fence: int, replaces_block: bool = True):
        self.table = table
        self.block_id, self.pipeline_id, self.fence = block_id, pipeline_id, fence
        # without a key the rows of the window are replaced: those of the block, or of the whole pipeline when it is a snapshot
        self.replaces_block = replaces_block
        self.connection = connect(dsn, run_id=run_id)
        self.torn: dict[int, int] = {}  # file → rows of it that no COPY can take
        self.files: dict[int, Path] = {}
        self.staged = 0

    def __enter__(self) -> Load:
        with plain_words():
            prepare(self.connection, self.table)
            self._make_stage()
            self._claim_ledger()
        return self

    def __exit__(self, *problem) -> None:
        self.connection.close()

    # 1 stage

    def _make_stage(self) -> None:
        fields = SQL(", ").join(SQL("{} text").format(Identifier(name)) for name in self.table.names)
        with self.connection, self.connection.cursor() as cursor:
            # what we add begins with _odo_, as no column of a source may
            cursor.execute("create temp sequence _record")
            own = SQL("_odo_file int not null default 0, _odo_record bigint not null default nextval('_record')")
            cursor.execute(SQL("create temp table _stage ({}, {})").format(own, fields))

    def stage(self, number: int, path: Path) -> int:
        """Copy one CSV file with a header; returns how many rows it had, rejected ones included. Raises DataError for a wrong header."""
        self.files[number] = path
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            cursor.execute(SQL("alter table _stage alter _odo_file set default {}").format(Literal(number)))
            cursor.execute("alter sequence _record restart")
            cursor.execute("savepoint file")
            try:
                with path.open("rb") as stream:
                    cursor.copy_expert(self._copy(self.table.names), stream, size=COPY_BYTES)
                rows = cursor.rowcount
            except psycopg2.errors.BadCopyFileFormat as error:
                self._check_header(path, error)
                rows = self._stage_row_by_row(cursor, number, path)
            except (psycopg2.errors.CharacterNotInRepertoire, psycopg2.errors.UntranslatableCharacter):
                rows = self._stage_row_by_row(cursor, number, path)
        self.staged += rows
        faultpoint("load.staged")
        return rows

    def _copy(self, names: Sequence[str], *, header: str = "match") -> Composable:
        listed = SQL(", ").join(map(Identifier, names))
        own = SQL(", ").join(map(Identifier, self.table.names))
        return SQL("copy _stage ({}) from stdin (format csv, header {}, force_null ({}), encoding 'UTF8')").format(listed, SQL(header), own)

    def _check_header(self, path: Path, error: Exception) -> None:
        with path.open("rb") as stream:
            first = stream.readline().decode("utf-8", "replace").strip().lstrip("\ufeff")
        found = next(csv.reader([first]), [])
        if found != self.table.names:
            raise DataError(
                f"{path.name}: the header names {', '.join(found) or 'nothing'}; expected {', '.join(self.table.names)}.", code="wrong-header"
            ) from error

    def _stage_row_by_row(self, cursor: Any, number: int, path: Path) -> int:
        """A file with broken rows: they are taken out, with their reason, and the others copied with their own numbers."""
        cursor.execute("rollback to savepoint file")
        rows = 0
        width = len(self.table.names)
        clean = path.with_name(path.name + ".clean")
        try:
            with clean.open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                for record, _, cells in records(path, width):
                    rows = record
                    if broken(cells, width):
                        self.torn[number] = self.torn.get(number, 0) + 1
                    else:
                        writer.writerow([record, *cells])
            with clean.open("rb") as stream:
                cursor.copy_expert(self._copy(["_odo_record", *self.table.names], header="false"), stream, size=COPY_BYTES)
        finally:
            clean.unlink(missing_ok=True)
        return rows

    def _rejected_cells(self, number: int, record: int, line: int, reason: str, cells: list[str]) -> Rejected:
        shown = [visible(cell) for cell in cells]
        raw = dict(zip(self.table.names, shown, strict=False))
        if len(shown) > len(self.table.names):
            raw["(more)"] = ", ".join(shown[len(self.table.names) :])
        return Rejected(number, record, line, "", reason, ", ".join(shown)[:1000], raw)

    # 2 judge

    def judge(self) -> int:
        """Find the rows that can't be loaded, all columns at once in the server. Returns how many, unreadable ones included."""
        key = self.table.key
        cases = [SQL("when {} is null then {}").format(Identifier(name), Literal(-1 - n)) for n, name in enumerate(key)]
        if key:
            length = SQL(" + ").join(SQL("octet_length({})").format(Identifier(name)) for name in key)
            cases.append(SQL("when {} > {} then {}").format(length, Literal(LONGEST_KEY), Literal(TOO_LONG)))
        cases += [
            SQL("when {0} is not null and {1} then {2}").format(Identifier(column.name), SQL(test).format(c=Identifier(column.name)), Literal(n))
            for n, (column, test, _) in enumerate(self._tests)
        ]
        verdict = SQL("case {} end").format(SQL(" ").join(cases)) if cases else SQL("null::int")
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                SQL(
                    "create temp table _bad as select _odo_file, _odo_record, _odo_why from"
                    " (select _odo_file, _odo_record, {} as _odo_why from _stage) judged where _odo_why is not null"
                ).format(verdict)
            )
            found = cursor.rowcount
            cursor.execute("create unique index on _bad (_odo_file, _odo_record)")
            cursor.execute("analyze _bad")
        return found + sum(self.torn.values())

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        for file in self.files:
            with plain_words(), self.connection, self.connection.cursor() as cursor:
                cursor.execute("select _odo_record, _odo_why from _bad where _odo_file = %s", [file])
                why_of = dict(cursor.fetchall())
            if why_of or file in self.torn:
                yield from self._explain(file, why_of)

    @property
    def _tests(self) -> list[tuple[Column, str, str]]:
        return [(column, *check) for column in self.table.columns for check in _checks(column)]

    def _explain(self, file: int, why_of: dict[int, int]) -> Iterator[Rejected]:
        names, key, tests = self.table.names, self.table.key, self._tests
        for record, line, cells in records(self.files[file], len(names)):
            if file in self.torn and (reason := broken(cells, len(names))):
                yield self._rejected_cells(file, record, line, reason, cells)
                continue
            why = why_of.get(record)
            if why is None:
                continue
            if why == TOO_LONG:
                column, reason = key[0], f"the key is longer than {LONGEST_KEY:,} bytes"
            elif why < 0:
                column, reason = key[-1 - why], "the key is empty"
            else:
                column, reason = tests[why][0].name, tests[why][2]
            raw = dict(zip(names, cells, strict=True))
            yield Rejected(file, record, line, column, reason, raw[column][:1000], raw)

    # 3 merge

    def _claim_ledger(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                SQL(
                    "insert into {ledger} (block_id, table_name, fence) values (%s, %s, %s)"
                    " on conflict (block_id, table_name) do update set fence = excluded.fence, merged_at = null"
                    " where _odo_ledger.fence <= excluded.fence"
                ).format(ledger=Identifier(SCHEMA, "_odo_ledger")),
                [self.block_id, self.table.name, self.fence],
            )
            if not cursor.rowcount:
                raise LeaseLost("A later attempt has begun to load this block.")

    def merge(self) -> Merged:
        """Insert and update by key, or replace, in one transaction that a later attempt's claim makes void. Raises LeaseLost."""
        with plain_words():
            with self.connection, self.connection.cursor() as cursor:
                # one merge into a table at a time, so that two blocks with one key can't both insert it
                cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"odo {SCHEMA}.{self.table.name}"])
                merged = self._upsert(cursor) if self.table.key else self._replace(cursor)
                faultpoint("load.merged")
                mine = SQL("update {} set merged_at = now() where block_id = %s and table_name = %s and fence = %s")
                cursor.execute(mine.format(Identifier(SCHEMA, "_odo_ledger")), [self.block_id, self.table.name, self.fence])
                if not cursor.rowcount:
                    raise LeaseLost("A later attempt has begun to load this block.")
            # the planner's knowledge of a table that just grew from nothing is worth the second it costs
            if merged.inserted > 10_000:
                with self.connection, self.connection.cursor() as cursor:
                    cursor.execute(SQL("analyze {}").format(self.table.identifier))
        faultpoint("load.committed")
        return merged

    def _good(self) -> Composable:
        return SQL("_stage s where not exists (select from _bad b where b._odo_file = s._odo_file and b._odo_record = s._odo_record)")

    def _typed(self) -> Composable:
        return SQL(", ").join(SQL("{0}::{1} as {0}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in self.table.columns)

    def _upsert(self, cursor: Any) -> Merged:
        names = {
            "t": self.table.identifier,
            "key": SQL(", ").join(map(Identifier, self.table.key)),
            "columns": SQL(", ").join(map(Identifier, self.table.names)),
            "typed": self._typed(),
            "good": self._good(),
            "mine": SQL(", ").join(SQL("n.{}").format(Identifier(name)) for name in self.table.names),
            "theirs": SQL(", ").join(SQL("o.{}").format(Identifier(name)) for name in self.table.names),
            "same_key": SQL(" and ").join(SQL("o.{0} = n.{0}").format(Identifier(name)) for name in self.table.key),
            "first_key": SQL("o.{}").format(Identifier(self.table.key[0])),
            "set": SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in (*self.table.names, *BOOKKEEPING)),
            "book": SQL(", ").join(map(Identifier, BOOKKEEPING)),
            # literals, not parameters: a column's name may hold a percent sign
            "writer": SQL("{}, {}").format(Literal(self.pipeline_id), Literal(self.block_id)),
            "seq": Literal(f"{SCHEMA}._odo_seq"),
            "newest": SQL("{} desc nulls last, ").format(Identifier(self.table.version)) if self.table.version else SQL(""),
            "older": SQL("n.{0} < o.{0}").format(Identifier(self.table.version)) if self.table.version else SQL("false"),
        }
        # of two copies of a key the newer wins; without a version column the one that came last
        cursor.execute(
            SQL(
                "create temp table _new on commit drop as select distinct on ({key}) {columns} from"
                " (select _odo_file, _odo_record, {typed} from {good}) typed order by {key}, {newest} _odo_file desc, _odo_record desc"
            ).format(**names)
        )
        distinct = cursor.rowcount
        cursor.execute("analyze _new")
        cursor.execute(SQL("select count(*) from {good}").format(**names))
        good = cursor.fetchone()[0]
        # only what differs is written: a whole snapshot with 5 % edits costs a quarter of a blind upsert (facts/performance.md §3)
        cursor.execute(
            SQL(
                "create temp table _delta on commit drop as select n.*, {first_key} is null as _odo_is_new, coalesce({older}, false) as _odo_is_older"
                " from _new n left join {t} o on {same_key}"
                " where {first_key} is null or ({mine}) is distinct from ({theirs})"
            ).format(**names)
        )
        cursor.execute(
            "select count(*) filter (where _odo_is_new), count(*) filter (where not _odo_is_new and not _odo_is_older),"
            " count(*) filter (where _odo_is_older) from _delta"
        )
        inserted, updated, older = cursor.fetchone()
        cursor.execute(
            SQL(
                "insert into {t} ({columns}, {book}) select {columns}, {writer}, nextval({seq}), now() from _delta where not _odo_is_older"
                " on conflict ({key}) do update set {set}"
            ).format(**names)
        )
        return Merged(inserted, updated, distinct - inserted - updated - older, 0, good - distinct + older)

    def _replace(self, cursor: Any) -> Merged:
        whose, value = ("_odo_block", self.block_id) if self.replaces_block else ("_odo_pipeline", self.pipeline_id)
        cursor.execute(SQL("delete from {} where {} = %s").format(self.table.identifier, Identifier(whose)), [value])
        deleted = cursor.rowcount
        columns = SQL(", ").join(map(Identifier, self.table.names))
        cursor.execute(
            SQL("insert into {t} ({columns}, {book}) select {typed}, {writer}, nextval({seq}), now() from {good}").format(
                t=self.table.identifier,
                columns=columns,
                typed=self._typed(),
                good=self._good(),
                book=SQL(", ").join(map(Identifier, BOOKKEEPING)),
                writer=SQL("{}, {}").format(Literal(self.pipeline_id), Literal(self.block_id)),
                seq=Literal(f"{SCHEMA}._odo_seq"),
            )
        )
        return Merged(cursor.rowcount, 0, 0, deleted, 0)


def _checks(column: Column) -> list[tuple[str, str]]:
    """(SQL test that is true for a bad value, reason in words) for a column's type; `{c}` stands for its text.

    They are asked in order: a test may count on those before it.
    """
    kind = SQL_TYPES[column.type]
    never = f"not pg_input_is_valid({{c}}, '{kind}')"
    if column.type == "number":
        return [(f"{{c}} !~ '{_braced(_NUMBER)}' or {never}", "not a number")]
    if column.type in ("local_time", "instant"):
        # years that Python and the portals can't read are no dates to us
        far = f"not ({{c}}::{kind} >= '0001-01-01' and {{c}}::{kind} < '10000-01-01')"
        checks = [(f"case when {{c}} ~* '{_braced(_MAGIC_TIME)}' or {never} then true else {far} end", "not a date and time")]
        if column.type == "local_time":
            # PostgreSQL reads a time with a zone into a column without one by dropping the zone, whatever it says
            zoned = f"({{c}}::timestamptz at time zone 'UTC') <> {{c}}::timestamp or {{c}} ~* '{_braced(_ZULU_AT_END)}'"
            checks.append((zoned, "has a zone, but the column is in local time"))
        return checks
    if column.type in ("boolean", "json"):
        return [(never, "not true or false" if column.type == "boolean" else "not JSON")]
    return []


def _braced(pattern: str) -> str:
    """A pattern that goes through `SQL.format`."""
    return pattern.replace("{", "{{").replace("}", "}}")


def broken(cells: list[str], width: int) -> str:
    """Why PostgreSQL can't take these cells at all, or ""."""
    if len(cells) != width:
        return f"{len(cells)} cells where {width} are expected"
    for cell in cells:
        if "\x00" in cell:
            return "a NUL byte in a cell"
        if len(cell) > LARGEST_CELL:
            return f"a cell larger than {LARGEST_CELL >> 20} MB"
        if not cell.isascii() and any("\ud800" <= char <= "\udfff" for char in cell):
            return "bytes that are not UTF-8"
    return ""


def visible(cell: str) -> str:
    """A cell as it can be kept and shown: what isn't text is written as its bytes."""
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def records(path: Path, width: int) -> Iterator[tuple[int, int, list[str]]]:
    """(record number, line it begins on, cells) of a CSV file of `width` columns after its header; what isn't UTF-8 comes as surrogates."""
    csv.field_size_limit(1 << 30)
    with path.open("r", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        reader = csv.reader(stream)
        next(reader, None)
        before = reader.line_num
        for record, cells in enumerate(reader, start=1):
            line, before = before + 1, reader.line_num
            # a blank line is a row as well, and was counted as one when it came: of one empty cell, or one that has too few
            yield record, line, cells or [""] * (width == 1)


# the table


def prepare(connection: Any, table: Table) -> list[str]:
    """Make the schema, the ledger and the table, or widen the table by new columns; returns their names. Raises SetupError."""
    for column in table.columns:
        if column.name.startswith("_odo_"):
            raise SetupError(f"The source has a column {column.name!r}; names with _odo_ are ours.", code="column-name")
        if len(column.name.encode()) > 63:
            raise SetupError(f"The column {column.name!r} has a longer name than PostgreSQL keeps (63 bytes).", code="column-name")
    if len({name.casefold() for name in table.names}) != len(table.names):
        raise SetupError(f"Two columns of {table.name} have the same name.", code="column-name")
    with connection, connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended('odo prepare', 0))")
        cursor.execute(SQL("create schema if not exists {}").format(Identifier(SCHEMA)))
        cursor.execute(SQL("create sequence if not exists {}").format(Identifier(SCHEMA, "_odo_seq")))
        cursor.execute(
            SQL(
                "create table if not exists {} (block_id bigint, table_name text, fence bigint not null, merged_at timestamptz,"
                " primary key (block_id, table_name))"
            ).format(Identifier(SCHEMA, "_odo_ledger"))
        )
        have = columns_of(cursor, table.name)
        if not have:
            _create(cursor, table)
            return []
        if "_odo_seq" not in have:
            raise SetupError(
                f"The table {SCHEMA}.{table.name} was not made by Open Data Ops.",
                code="foreign-table",
                next_step="Name another table in the pipeline, or rename that one.",
            )
        _check_key(cursor, table)
        return _widen(cursor, table, have)


def _create(cursor: Any, table: Table) -> None:
    fields = [SQL("{} {}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in table.columns]
    fields += [SQL("{} {} not null").format(Identifier(name), SQL(kind)) for name, kind in BOOKKEEPING.items()]
    if table.key:
        fields.append(SQL("primary key ({})").format(SQL(", ").join(map(Identifier, table.key))))
    cursor.execute(SQL("create table {} ({})").format(table.identifier, SQL(", ").join(fields)))
    # rows written together lie together: a block-range index finds the unpublished ones at almost no cost to the load
    cursor.execute(SQL("create index on {} using brin (_odo_seq) with (pages_per_range = 32, autosummarize = on)").format(table.identifier))
    if not table.key:
        cursor.execute(SQL("create index on {} (_odo_block)").format(table.identifier))


def columns_of(cursor: Any, name: str) -> dict[str, str]:
    """Column to SQL type of a city table; empty when there is none."""
    cursor.execute(
        "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a"
        " where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped order by a.attnum",
        [f'{SCHEMA}."{name}"'],
    )
    return dict(cursor.fetchall())


def table_columns(dsn: str, name: str) -> list[str]:
    """The city's own columns of a table, in its order; empty when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        return [column for column in columns_of(cursor, name) if column not in BOOKKEEPING]


def _check_key(cursor: Any, table: Table) -> None:
    cursor.execute(
        "select array_agg(a.attname::text order by array_position(i.indkey::int[], a.attnum::int)) from pg_index i"
        " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) where i.indrelid = to_regclass(%s) and i.indisprimary",
        [f'{SCHEMA}."{table.name}"'],
    )
    found = tuple(cursor.fetchone()[0] or ())
    if found != table.key:
        raise SetupError(
            f"The table {SCHEMA}.{table.name} has the key ({', '.join(found) or 'none'}), the pipeline wants ({', '.join(table.key) or 'none'}).",
            code="other-key",
            next_step="Name another table, or give the pipeline the key that the table has.",
        )


_SAME_TYPE = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}


def _widen(cursor: Any, table: Table, have: dict[str, str]) -> list[str]:
    fresh = []
    cursor.execute(SQL("select not exists (select from {})").format(table.identifier))
    [is_empty] = cursor.fetchone()
    for column in table.columns:
        wanted = SQL_TYPES[column.type]
        if column.name not in have:
            cursor.execute(SQL("alter table {} add column {} {}").format(table.identifier, Identifier(column.name), SQL(wanted)))
            fresh.append(column.name)
        elif have[column.name] == _SAME_TYPE.get(wanted, wanted):
            continue
        elif is_empty:
            # nothing was loaded yet: a first load that was refused for its types must not bind the second
            cursor.execute(SQL("alter table {0} alter {1} type {2} using null").format(table.identifier, Identifier(column.name), SQL(wanted)))
        else:
            raise SetupError(
                f"{SCHEMA}.{table.name}.{column.name} is {have[column.name]}, the source says {column.type} ({wanted}).",
                code="other-type",
                next_step=f"Set the type of {column.name} in the pipeline to the table's own, or load into another table.",
            )
    return fresh


# what publishing reads


@dataclass(frozen=True)
class Scope:
    """Whose rows: those of one block, of one pipeline, or (both None) of the whole table."""

    block_id: int | None = None
    pipeline_id: int | None = None

    def where(self) -> Composable:
        if self.block_id is not None:
            return SQL("_odo_block = {}").format(Literal(self.block_id))
        if self.pipeline_id is not None:
            return SQL("_odo_pipeline = {}").format(Literal(self.pipeline_id))
        return SQL("true")


def count(dsn: str, table: str, scope: Scope, *, after: int = 0) -> int:
    """Rows of the scope that were written after the sequence number `after`."""
    query = SQL("select count(*) from {} where {} and _odo_seq > %s").format(Identifier(SCHEMA, table), scope.where())
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, [after])
        return cursor.fetchone()[0]


def rows_after(
    dsn: str, table: str, columns: Sequence[Column], scope: Scope, *, after: int, chunk: int, run_id: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(last sequence number, rows) in chunks, in the order in which they were written. Values are text, booleans or None, as portals take them."""
    shown = SQL(", ").join(_portal_text(column) for column in columns)
    query = SQL("select _odo_seq, {} from {} where {} and _odo_seq > {} order by _odo_seq").format(
        shown, Identifier(SCHEMA, table), scope.where(), Literal(after)
    )
    names = [column.name for column in columns]
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection:
        # held in the server after its transaction ended: one sort for all chunks, nothing gathered here, and no transaction
        # open while the portal is being talked to (law 10)
        cursor = connection.cursor("odo_publish", withhold=True)
        cursor.itersize = chunk
        cursor.execute(query)
        connection.commit()
        while found := cursor.fetchmany(chunk):
            yield found[-1][0], [dict(zip(names, row[1:], strict=True)) for row in found]


def _portal_text(column: Column) -> Composable:
    name = Identifier(column.name)
    if column.type == "local_time":
        return SQL("to_char({0}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')").format(name)
    if column.type == "instant":
        return SQL("to_char({0} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')").format(name)
    return name if column.type == "boolean" else SQL("{}::text").format(name)


def sample(dsn: str, table: str, limit: int = 20) -> tuple[list[str], list[tuple]]:
    """A few rows as text, for a page."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        names = [name for name in columns_of(cursor, table) if name not in BOOKKEEPING]
        if not names:
            return [], []
        listed = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in names)
        cursor.execute(SQL("select {} from {} limit {}").format(listed, Identifier(SCHEMA, table), Literal(limit)))
        return names, cursor.fetchall()
