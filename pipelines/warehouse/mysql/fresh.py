"""A table built beside the one that is served, and put in its place by one RENAME: rebuilds on request.

A RENAME ends the open transaction, so it stands alone between two: before it the rows, and the keys that go, are committed;
after it the merge is noted. While it waits for readers and until it is done, no other merge into the table can begin.
"""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from pipelines.connectors.base import Column
from pipelines.errors import SetupError
from pipelines.warehouse.mysql.ddl import columns_of, create, definition, key_of
from pipelines.warehouse.mysql.merge import Writer, bury, fill
from pipelines.warehouse.mysql.session import Session, collation, connect, name, names, one, plain_words, run
from pipelines.warehouse.tables import BOOKKEEPING

#: Tables beside are named by their block and attempt: a late worker must not write into its successor's.
BESIDE, ASIDE = "_odo_new_", "_odo_old_"


def build_name(writer: Writer) -> str:
    return f"{BESIDE}{writer.block_id}_{writer.fence}"


def aside_name(writer: Writer) -> str:
    return f"{ASIDE}{writer.block_id}_{writer.fence}"


def check_free(cursor: Any, table: str) -> None:
    """Raise SetupError where something would be lost with the old table, or would follow it out of the way."""
    hanging = one(
        cursor,
        "select (select count(*) from information_schema.triggers where event_object_schema = database() and event_object_table = %s)"
        " + (select count(*) from information_schema.referential_constraints where unique_constraint_schema = database()"
        " and (referenced_table_name = %s or table_name = %s))",
        [table, table, table],
    )
    if hanging:
        raise SetupError(
            f"Triggers or foreign keys hang on {table}; it can't be put aside.",
            code="depended-on",
            next_step="Drop them, rebuild, and make them again.",
        )


def build(cursor: Any, writer: Writer, connection: Session) -> tuple[int, int]:
    """Fill the table beside with the staged rows; returns (rows, copies of a key that were left out)."""
    beside = build_name(writer)
    run(cursor, f"drop table if exists {name(beside)}")
    create(cursor, beside, writer.table, collation(connection))
    copies = fill(cursor, writer, name(beside)) if writer.table.key else 0
    if not writer.table.key:
        rows = f"select {writer.typed_row('s')}, {writer.values('s._odo_id')} from _stage s"
        run(cursor, f"{writer.insert(name(beside))} {rows}")
    return one(cursor, f"select count(*) from {name(beside)}"), copies


def keep_others(cursor: Any, writer: Writer, connection: Session) -> None:
    """A rebuild of one pipeline's rows: what other pipelines wrote into the table goes along, but for keys that are new here."""
    others = f"o._odo_pipeline <> {int(writer.pipeline_id)}"
    if not one(cursor, f"select exists (select 1 from {writer.target} o where {others})"):
        return
    beside, held = name(build_name(writer)), columns_of(cursor, writer.table.name)
    more = [column for column in held if column not in {*writer.table.names, *BOOKKEEPING}]
    if more:
        # as the old table has them, with their comments
        listed = [definition(Column(name=column, type=held[column].type), is_key=False, length=0, collate=collation(connection)) for column in more]
        run(cursor, f"alter table {beside} {', '.join(f'add column {each}' for each in listed)}")
    shared = [column for column in (*writer.table.names, *BOOKKEEPING) if column in held] + more
    same = " and ".join(f"n.{name(each)} = o.{name(each)}" for each in writer.table.key)
    new = f" left join {beside} n on {same}" if same else ""
    run(
        cursor,
        f"insert into {beside} ({names(shared)}) select {names(shared, 'o')} from {writer.target} o{new} where {others}"
        + (f" and n.{name(writer.table.key[0])} is null" if same else ""),
    )


def find_gone(cursor: Any, writer: Writer) -> int:
    """Leave the keys that the new table no longer has, for the portals to follow. Returns how many."""
    key = writer.table.key
    if not key or key_of(cursor, writer.table.name) != key:
        return 0
    same = " and ".join(f"n.{name(each)} = o.{name(each)}" for each in key)
    run(
        cursor,
        f"create temporary table _gone (_odo_n bigint not null auto_increment primary key) {writer.engine} select {names(key, 'o')}"
        f" from {writer.target} o left join {name(build_name(writer))} n on {same} where n.{name(key[0])} is null",
    )
    bury(cursor, writer)
    return one(cursor, "select count(*) from _gone")


def swap(cursor: Any, writer: Writer) -> None:
    """Put the new table in the old one's place; the old one stands aside until it is dropped."""
    aside = name(aside_name(writer))
    run(cursor, f"drop table if exists {aside}")
    run(cursor, f"rename table {writer.target} to {aside}, {name(build_name(writer))} to {writer.target}")


def drop_aside(cursor: Any, writer: Writer) -> None:
    run(cursor, f"drop table if exists {name(aside_name(writer))}")


def sweep(dsn: str, going: Collection[tuple[int, int]]) -> list[str]:
    """Drop the tables beside and aside whose attempts (block, fence) do not go on any more. Returns their names."""
    dropped = []
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        run(cursor, "set session lock_wait_timeout = 2")
        cursor.execute(
            "select table_name from information_schema.tables where table_schema = database() and table_name regexp %s",
            [f"^({BESIDE}|{ASIDE})[0-9]+_[0-9]+$"],
        )
        for (found,) in cursor.fetchall():
            block_id, fence = found.removeprefix(BESIDE).removeprefix(ASIDE).split("_")
            if (int(block_id), int(fence)) not in going:
                run(cursor, f"drop table if exists {name(found)}")
                dropped.append(found)
    return dropped
