"""The city's tables in PostgreSQL: made, widened, and known by their columns and keys."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.errors import SetupError
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.tables import Table

SQL_TYPES = {
    "text": "text",
    "number": "numeric",
    "local_time": "timestamp",
    "instant": "timestamptz",
    "boolean": "boolean",
    "point": "text",
    "json": "jsonb",
}
SEQ_CACHE = 1000
#: Our own columns of every city table; names with _odo_ are ours alone.
BOOKKEEPING = {"_odo_pipeline": "bigint", "_odo_block": "bigint", "_odo_seq": "bigint", "_odo_loaded_at": "timestamptz"}


def identifier(name: str) -> Identifier:
    """A city table as SQL names it."""
    return Identifier(SCHEMA, name)


def full_name(name: str) -> str:
    """A city table as people name it."""
    return f"{SCHEMA}.{name}"


def prepare(connection: Any, table: Table, *, widens: bool = False, replaces: bool = False) -> tuple[Table, tuple[str, ...]]:
    """Make the schema, our own tables and the city table, or widen it; returns the table as it is now, and what was widened, in words.

    New columns are always added. One whose type changed stops the load, or, with `widens`, becomes text. `replaces`: the
    table will be built anew, so what it is now does not matter. Raises SetupError.
    """
    for column in table.columns:
        if column.name.startswith("_odo_"):
            raise SetupError(f"The source has a column {column.name!r}; names with _odo_ are ours.", code="column-name")
        if len(column.name.encode()) > 63:
            raise SetupError(f"The column {column.name!r} has a longer name than PostgreSQL keeps (63 bytes).", code="column-name")
    if len({name.casefold() for name in table.names}) != len(table.names):
        raise SetupError(f"Two columns of {table.name} have the same name.", code="column-name")
    with connection, connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended('odo prepare', 0))")
        _prepare_our_own(cursor)
        have = columns_of(cursor, table.name)
        if not have:
            _create(cursor, table)
            return table, ()
        if "_odo_seq" not in have:
            raise SetupError(
                f"The table {SCHEMA}.{table.name} was not made by Open Data Ops.",
                code="foreign-table",
                next_step="Name another table in the pipeline, or rename that one.",
            )
        if replaces:
            return table, ()
        _check_key(cursor, table)
        return _widen(cursor, table, have, widens=widens)


def _prepare_our_own(cursor: Any) -> None:
    cursor.execute(SQL("create schema if not exists {}").format(Identifier(SCHEMA)))
    # a session takes a thousand numbers at once, for a bulk copy feels each. A load's own session takes its first when it has the
    # table for itself, so whoever writes later still has the greater numbers
    sequence = Identifier(SCHEMA, "_odo_seq")
    cursor.execute(SQL("create sequence if not exists {} cache {}").format(sequence, Literal(SEQ_CACHE)))
    cursor.execute("select seqcache from pg_sequence where seqrelid = to_regclass(%s)", [f"{SCHEMA}._odo_seq"])
    if cursor.fetchone()[0] != SEQ_CACHE:
        cursor.execute(SQL("alter sequence {} cache {}").format(sequence, Literal(SEQ_CACHE)))
    cursor.execute(
        SQL(
            "create table if not exists {} (block_id bigint, table_name text, fence bigint not null, merged_at timestamptz,"
            " primary key (block_id, table_name))"
        ).format(Identifier(SCHEMA, "_odo_ledger"))
    )
    # the keys of rows that were deleted, until every portal has followed; one row a key, the last time that it went
    cursor.execute(
        SQL(
            "create table if not exists {} (table_name text, row_key jsonb not null, seq bigint not null, pipeline_id bigint not null,"
            " block_id bigint not null, at timestamptz not null, primary key (table_name, seq))"
        ).format(Identifier(SCHEMA, "_odo_deleted"))
    )


def _create(cursor: Any, table: Table) -> None:
    fields = [SQL("{} {}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in table.columns]
    fields += [SQL("{} {} not null").format(Identifier(name), SQL(kind)) for name, kind in BOOKKEEPING.items()]
    if table.key:
        fields.append(SQL("primary key ({})").format(SQL(", ").join(map(Identifier, table.key))))
    cursor.execute(SQL("create table {} ({})").format(identifier(table.name), SQL(", ").join(fields)))
    index_extras(cursor, identifier(table.name), table)


def index_extras(cursor: Any, relation: Composable, table: Table) -> None:
    """The indexes of a city table besides its key."""
    # rows written together lie together: a block-range index finds the unpublished ones at almost no cost to the load
    cursor.execute(SQL("create index on {} using brin (_odo_seq) with (pages_per_range = 32, autosummarize = on)").format(relation))
    if not table.key:
        cursor.execute(SQL("create index on {} (_odo_block)").format(relation))


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


def key_of(cursor: Any, name: str) -> tuple[str, ...]:
    """The columns of a city table's key, in their order."""
    cursor.execute(
        "select array_agg(a.attname::text order by array_position(i.indkey::int[], a.attnum::int)) from pg_index i"
        " join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) where i.indrelid = to_regclass(%s) and i.indisprimary",
        [f'{SCHEMA}."{name}"'],
    )
    return tuple(cursor.fetchone()[0] or ())


def _check_key(cursor: Any, table: Table) -> None:
    found = key_of(cursor, table.name)
    if found != table.key:
        raise SetupError(
            f"The table {SCHEMA}.{table.name} has the key ({', '.join(found) or 'none'}), the pipeline wants ({', '.join(table.key) or 'none'}).",
            code="other-key",
            next_step="Name another table, or give the pipeline the key that the table has.",
        )


_SAME_TYPE = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}
_OUR_TYPE = {_SAME_TYPE.get(kind, kind): ours for ours, kind in reversed(SQL_TYPES.items())} | {"text": "text"}


def our_type(kind: str) -> str:
    """PostgreSQL's name of a type in our words."""
    return _OUR_TYPE.get(kind, "text")


def column_types(dsn: str, name: str) -> dict[str, str]:
    """The city's own columns of a table with their types in our words; empty when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        return {column: our_type(kind) for column, kind in columns_of(cursor, name).items() if column not in BOOKKEEPING}


def portal_text(name: Identifier, kind: str) -> Composable:
    """A column's value as portals write it."""
    if kind == "local_time":
        return SQL("to_char({0}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')").format(name)
    if kind == "instant":
        return SQL("to_char({0} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')").format(name)
    return SQL("{}::text").format(name)


def _widen(cursor: Any, table: Table, have: dict[str, str], *, widens: bool) -> tuple[Table, tuple[str, ...]]:
    cursor.execute(SQL("select not exists (select from {})").format(identifier(table.name)))
    [is_empty] = cursor.fetchone()
    columns, widened = [], []
    for column in table.columns:
        name, wanted = Identifier(column.name), SQL_TYPES[column.type]
        held = have.get(column.name)
        if held is None:
            cursor.execute(SQL("alter table {} add column {} {}").format(identifier(table.name), name, SQL(wanted)))
            widened.append(f"{column.name} is new")
        elif held == _SAME_TYPE.get(wanted, wanted):
            pass
        elif is_empty:
            # nothing was loaded yet: a first load that was refused for its types must not bind the second
            cursor.execute(SQL("alter table {0} alter {1} type {2} using null").format(identifier(table.name), name, SQL(wanted)))
        elif widens and column.name not in table.key and held == "text":
            column = replace(column, type="text")
        elif widens and column.name not in table.key:
            _become_text(cursor, table, column.name, held)
            widened.append(f"{column.name} was {held} and is text now, for the source says {column.type}")
            column = replace(column, type="text")
        else:
            raise SetupError(
                f"{SCHEMA}.{table.name}.{column.name} is {held}, the source says {column.type} ({wanted}).",
                code="other-type",
                next_step=f"Set the type of {column.name} in the pipeline to the table's own, or load into another table.",
            )
        columns.append(column)
    return replace(table, columns=tuple(columns)), tuple(widened)


def _become_text(cursor: Any, table: Table, name: str, held: str) -> None:
    using = portal_text(Identifier(name), our_type(held))
    try:
        cursor.execute(SQL("alter table {} alter {} type text using {}").format(identifier(table.name), Identifier(name), using))
    except psycopg2.errors.FeatureNotSupported as error:
        raise SetupError(
            f"{SCHEMA}.{table.name}.{name} can't become text, for a view or an index hangs on it.",
            code="depended-on",
            next_step="Drop what hangs on it, run the block again, and make it anew.",
        ) from error
