"""What is read of a city's table: counts, the rows that a portal has not seen, a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.warehouse.postgres.ddl import BOOKKEEPING, columns_of, key_of, our_type, portal_text
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.tables import Scope


def where(scope: Scope) -> Composable:
    """The scope as a condition."""
    if scope.block_id is not None:
        return SQL("_odo_block = {}").format(Literal(scope.block_id))
    if scope.pipeline_id is not None:
        return SQL("_odo_pipeline = {}").format(Literal(scope.pipeline_id))
    return SQL("true")


def count(dsn: str, table: str, scope: Scope, *, after: int = 0) -> int:
    """Rows of the scope that were written after the sequence number `after`."""
    query = SQL("select count(*) from {} where {} and _odo_seq > %s").format(Identifier(SCHEMA, table), where(scope))
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, [after])
        return cursor.fetchone()[0]


def rows_after(
    dsn: str, table: str, columns: Sequence[Column], scope: Scope, *, after: int, chunk: int, run_id: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(last sequence number, rows) in chunks, in the order in which they were written. Values are text, booleans or None, as portals take them."""
    shown = SQL(", ").join(_portal_text(column) for column in columns)
    query = SQL("select _odo_seq, {} from {} where {} and _odo_seq > {} order by _odo_seq").format(
        shown, Identifier(SCHEMA, table), where(scope), Literal(after)
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
    return name if column.type == "boolean" else portal_text(name, column.type)


def tables(dsn: str) -> list[str]:
    """The city's tables, by name."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = %s and tablename not like '\\_odo\\_%%' order by 1", [SCHEMA])
        return [name for (name,) in cursor.fetchall()]


def deleted_after(dsn: str, table: str, scope: Scope, *, after: int, chunk: int, run_id: int) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """(last sequence number, keys) in chunks: what was deleted after the sequence number, and has not come back since."""
    whose = SQL("true")
    if scope.block_id is not None:
        whose = SQL("d.block_id = {}").format(Literal(scope.block_id))
    elif scope.pipeline_id is not None:
        whose = SQL("d.pipeline_id = {}").format(Literal(scope.pipeline_id))
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection:
        with connection, connection.cursor() as cursor:
            key = _key_of(cursor, table)
        if not key:
            return
        same = SQL(" and ").join(SQL("t.{0}::text = d.row_key ->> {1}").format(Identifier(name), Literal(name)) for name in key)
        query = SQL(
            "select d.seq, d.row_key from {d} d where d.table_name = {name} and {whose} and d.seq > {after}"
            " and not exists (select from {t} t where {same}) order by d.seq"
        ).format(d=Identifier(SCHEMA, "_odo_deleted"), name=Literal(table), whose=whose, after=Literal(after), t=Identifier(SCHEMA, table), same=same)
        cursor = connection.cursor("odo_deleted", withhold=True)
        cursor.itersize = chunk
        cursor.execute(query)
        connection.commit()
        while found := cursor.fetchmany(chunk):
            yield found[-1][0], [key for _, key in found]


def _key_of(cursor: Any, table: str) -> tuple[str, ...]:
    cursor.execute("select to_regclass(%s) is not null and to_regclass(%s) is not null", [f'{SCHEMA}."{table}"', f"{SCHEMA}._odo_deleted"])
    return key_of(cursor, table) if cursor.fetchone()[0] else ()


def highest(dsn: str, table: str, column: str, *, pipeline_id: int) -> str:
    """The greatest value of a column in the pipeline's rows, as portals write it; "" when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kind = columns_of(cursor, table).get(column)
        if kind is None:
            return ""
        value = portal_text(SQL("max({})").format(Identifier(column)), our_type(kind))
        cursor.execute(SQL("select {} from {} where _odo_pipeline = %s").format(value, Identifier(SCHEMA, table)), [pipeline_id])
        return cursor.fetchone()[0] or ""


def count_by_two(dsn: str, table: str, rows: str, columns: str, *, limit: int = 10_000) -> list[tuple[str | None, str | None, int]]:
    """(value of `rows`, value of `columns`, how many rows), the most frequent first; a date counts by its year, an empty cell as None."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kinds = columns_of(cursor, table)
        if rows not in kinds or columns not in kinds:
            return []
        shown = [
            SQL("extract(year from {})::int::text").format(Identifier(name))
            if kinds[name].startswith("timestamp")
            else SQL("{}::text").format(Identifier(name))
            for name in (rows, columns)
        ]
        cursor.execute("set local statement_timeout = '20s'")
        cursor.execute(
            SQL("select {}, {}, count(*) from {} group by 1, 2 order by 3 desc, 1, 2 limit {}").format(
                *shown, Identifier(SCHEMA, table), Literal(limit)
            )
        )
        return cursor.fetchall()


def sample(dsn: str, table: str, limit: int = 20) -> tuple[list[str], list[tuple]]:
    """A few rows as text, for a page."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        names = [name for name in columns_of(cursor, table) if name not in BOOKKEEPING]
        if not names:
            return [], []
        listed = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in names)
        cursor.execute(SQL("select {} from {} limit {}").format(listed, Identifier(SCHEMA, table), Literal(limit)))
        return names, cursor.fetchall()
