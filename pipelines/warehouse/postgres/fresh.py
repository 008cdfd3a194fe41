"""A table built beside the one that is served, and put in its place in one transaction: first loads, and rebuilds on request.

Nothing reads the new table while it fills, so it has no index yet: COPY is as fast as it can be, and the key is made at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.errors import SetupError
from pipelines.warehouse.postgres.ddl import BOOKKEEPING, SQL_TYPES, columns_of, identifier, index_extras
from pipelines.warehouse.postgres.merge import SEQ, TOMBSTONES, Writer, drop_copies, names, same_key
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.postgres.staging import CHECKED

#: A table beside is named by its block and its attempt: a late worker must not write into its successor's.
BESIDE = "_odo_new_"


def build_name(writer: Writer) -> str:
    return f"{BESIDE}{writer.block_id}_{writer.fence}"


def make(cursor: Any, writer: Writer) -> Composable:
    """The empty table beside. Returns its name in SQL."""
    beside = Identifier(SCHEMA, build_name(writer))
    cursor.execute(SQL("drop table if exists {}").format(beside))
    fields = [SQL("{} {}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in writer.table.columns]
    # the other bookkeeping is the same in all rows: `book` adds it without touching one
    fields.append(SQL("_odo_seq bigint not null default nextval({})").format(SEQ))
    # each file commits apart, and autovacuum would run after them over rows that nobody reads yet
    cursor.execute(SQL("create table {} ({}) with (autovacuum_enabled = off)").format(beside, SQL(", ").join(fields)))
    return beside


def fill(cursor: Any, writer: Writer, beside: Composable) -> None:
    """Copy the typed good rows of `_stage` into the table beside."""
    columns = names(writer.table.names)
    cursor.execute(SQL("insert into {} ({}) select {} from _stage").format(beside, columns, columns))


def book(cursor: Any, writer: Writer, beside: Composable) -> None:
    """Add the bookkeeping that is the same in all rows; PostgreSQL keeps such a value once, so no row is written for it."""
    same = {"_odo_pipeline": Literal(writer.pipeline_id), "_odo_block": Literal(writer.block_id), "_odo_loaded_at": SQL("now()")}
    added = [SQL("add {} {} not null default {}").format(Identifier(name), SQL(BOOKKEEPING[name]), value) for name, value in same.items()]
    cursor.execute(SQL("alter table {} {}").format(beside, SQL(", ").join(added)))
    for name in BOOKKEEPING:
        cursor.execute(SQL("alter table {} alter {} drop default").format(beside, Identifier(name)))


def finish(cursor: Any, writer: Writer, beside: Composable) -> int:
    """Make the key, once each of them is there once. Returns how many copies went."""
    table = writer.table
    cursor.execute(SQL("alter table {} drop constraint if exists {}").format(beside, Identifier(CHECKED)))
    cursor.execute(SQL("alter table {} reset (autovacuum_enabled)").format(beside))
    cursor.execute("set local maintenance_work_mem = '256MB'")
    duplicates = 0
    if table.key:
        key = names(table.key)
        cursor.execute("savepoint keyed")
        try:
            cursor.execute(SQL("alter table {} add primary key ({})").format(beside, key))
        except psycopg2.errors.UniqueViolation:
            cursor.execute("rollback to savepoint keyed")
            duplicates = drop_copies(cursor, beside, table)
            cursor.execute(SQL("alter table {} add primary key ({})").format(beside, key))
    index_extras(cursor, beside, table)
    return duplicates


def keep_others(cursor: Any, writer: Writer, beside: Composable) -> None:
    """A rebuild of one pipeline's rows: what other pipelines wrote into the table goes along, but for keys that are new here."""
    held = columns_of(cursor, writer.table.name)
    shared = [name for name in (*writer.table.names, *BOOKKEEPING) if name in held]
    for name, kind in held.items():
        if name not in {*writer.table.names, *BOOKKEEPING} and _others(cursor, writer):
            cursor.execute(SQL("alter table {} add column {} {}").format(beside, Identifier(name), SQL(kind)))
            shared.append(name)
    theirs = SQL("insert into {b} ({c}) select {c} from {t} o where o._odo_pipeline <> {p}").format(
        b=beside, c=names(shared), t=writer.target, p=Literal(writer.pipeline_id)
    )
    if writer.table.key:
        theirs += SQL(" and not exists (select from {b} n where {same})").format(b=beside, same=same_key(writer.table.key, "n", "o"))
    cursor.execute(theirs)


def _others(cursor: Any, writer: Writer) -> bool:
    cursor.execute(SQL("select exists (select from {} where _odo_pipeline <> {})").format(writer.target, Literal(writer.pipeline_id)))
    return cursor.fetchone()[0]


def bury(cursor: Any, writer: Writer, beside: Composable) -> int:
    """Leave the keys that the new table no longer has, for the portals to follow. Returns how many."""
    if not writer.table.key:
        return 0
    cursor.execute(
        SQL(
            "insert into {tombstones} (table_name, row_key, seq, pipeline_id, block_id, at)"
            " select {name}, to_jsonb(dead), nextval({seq}), {pipeline}, {block}, now()"
            " from (select {key} from {t} o where not exists (select from {b} n where {same})) dead"
        ).format(
            tombstones=TOMBSTONES,
            name=Literal(writer.table.name),
            seq=SEQ,
            pipeline=Literal(writer.pipeline_id),
            block=Literal(writer.block_id),
            key=SQL(", ").join(SQL("o.{0}::text as {0}").format(Identifier(name)) for name in writer.table.key),
            t=writer.target,
            b=beside,
            same=same_key(writer.table.key, "n", "o"),
        )
    )
    return cursor.rowcount


def swap(cursor: Any, writer: Writer, beside: Composable) -> None:
    """Put the new table in the old one's place: under its name, or, where views or rights hang on the old one, with its rows."""
    if _is_depended_on(cursor, writer.table.name):
        _same_columns(cursor, writer, beside)
        columns = names((*writer.table.names, *BOOKKEEPING))
        cursor.execute(SQL("delete from {}").format(writer.target))
        cursor.execute(SQL("insert into {t} ({c}) select {c} from {b}").format(t=writer.target, c=columns, b=beside))
        cursor.execute(SQL("drop table {}").format(beside))
        return
    cursor.execute(SQL("drop table {}").format(writer.target))
    cursor.execute(SQL("alter table {} rename to {}").format(beside, Identifier(writer.table.name)))
    # the indexes took their names from the table beside; the next one must find its names free
    cursor.execute(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = to_regclass(%s)",
        [f'{SCHEMA}."{writer.table.name.replace(chr(34), chr(34) * 2)}"'],
    )
    for number, (index,) in enumerate(cursor.fetchall()):
        cursor.execute(SQL("alter index {} rename to {}").format(Identifier(SCHEMA, index), Identifier(_index_name(writer.table.name, number))))


def _index_name(table: str, number: int) -> str:
    return f"{table[:50]}_odo_{number}"


def _same_columns(cursor: Any, writer: Writer, beside: Composable) -> None:
    held = columns_of(cursor, writer.table.name)
    fresh = columns_of(cursor, build_name(writer))
    other = [name for name, kind in fresh.items() if held.get(name) != kind]
    if other:
        raise SetupError(
            f"Views or rights hang on {SCHEMA}.{writer.table.name}, and its columns would change: {', '.join(other)}.",
            code="depended-on",
            next_step="Drop the views, rebuild, and make them again.",
        )


def _is_depended_on(cursor: Any, name: str) -> bool:
    """Whether a view, a foreign key or a right that somebody granted would be lost with the table."""
    cursor.execute(
        "select c.relacl is not null"
        " or exists (select from pg_depend d join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass where d.refobjid = c.oid)"
        " or exists (select from pg_constraint k where k.confrelid = c.oid)"
        " or exists (select from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal)"
        " from pg_class c where c.oid = to_regclass(%s)",
        [f'{SCHEMA}."{name.replace(chr(34), chr(34) * 2)}"'],
    )
    found = cursor.fetchone()
    return bool(found and found[0])


def is_empty(cursor: Any, name: str) -> bool:
    cursor.execute(SQL("select not exists (select from {})").format(identifier(name)))
    return cursor.fetchone()[0]


def sweep(dsn: str, going: Collection[tuple[int, int]]) -> list[str]:
    """Drop the tables beside whose attempts (block, fence) do not go on any more. Returns their names."""
    dropped = []
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("set local lock_timeout = '2s'")
        cursor.execute("select tablename from pg_tables where schemaname = %s and tablename ~ %s", [SCHEMA, f"^{BESIDE}[0-9]+_[0-9]+$"])
        for (name,) in cursor.fetchall():
            block_id, fence = name.removeprefix(BESIDE).split("_")
            if (int(block_id), int(fence)) not in going:
                cursor.execute(SQL("drop table if exists {}").format(Identifier(SCHEMA, name)))
                dropped.append(name)
    return dropped
