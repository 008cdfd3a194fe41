"""What is read of a city's table: counts, the rows that a portal has not seen, a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.warehouse.postgres.ddl import BOOKKEEPING, columns_of
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
