"""What is done to PostgreSQL after a load: views refreshed, statistics renewed, the space of dead rows reclaimed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier

from pipelines.errors import SetupError, TransientError
from pipelines.warehouse.postgres.ddl import identifier
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words

#: So long another session may keep us waiting for its lock; whoever stands behind us in that queue waits as long.
LOCK_SECONDS = 5
#: So long one of these may take: half an hour is a large view.
STATEMENT_SECONDS = 30 * 60


def refresh(dsn: str, view: str) -> str:
    """Refresh a materialized view ("name", looked for in city and public, or "schema.name"); says how. Raises PipelineError.

    Readers see the old rows meanwhile where the view has a unique index; without one PostgreSQL locks them out.
    """
    with _session(dsn) as cursor:
        schema, name, is_populated, has_unique_index = _view(cursor, view)
        concurrently = is_populated and has_unique_index
        cursor.execute(SQL("refresh materialized view {}{}").format(SQL("concurrently " * concurrently), Identifier(schema, name)))
    if concurrently:
        return f"Refreshed {schema}.{name} concurrently: readers saw the old rows meanwhile."
    why = "it has no unique index" if is_populated else "it had never been filled"
    return f"Refreshed {schema}.{name}, not concurrently, for {why}: readers waited meanwhile."


def analyze(dsn: str, table: str) -> str:
    """Renew the planner's statistics of a city table; says so. Raises PipelineError."""
    _run(dsn, SQL("analyze {}").format(identifier(table)))
    return f"Renewed the statistics of {SCHEMA}.{table}."


def vacuum(dsn: str, table: str) -> str:
    """Make the space of dead rows of a city table free for new ones, and renew its statistics; says so. Raises PipelineError."""
    # never FULL: it would lock every reader out and write the whole table anew
    _run(dsn, SQL("vacuum (analyze) {}").format(identifier(table)))
    return f"Reclaimed the dead rows of {SCHEMA}.{table} and renewed its statistics; nobody was locked out."


def _run(dsn: str, statement: Composable) -> None:
    with _session(dsn) as cursor:
        cursor.execute(statement)
        # of a table of somebody else PostgreSQL only warns, and does nothing
        if skipped := [notice for notice in cursor.connection.notices if "skipping it" in notice]:
            words = skipped[0].partition(":")[2].strip()
            raise SetupError(f"Nothing was done: {words}", code="warehouse-forbidden", next_step="Give the table to the warehouse user.")


@contextlib.contextmanager
def _session(dsn: str) -> Iterator[Any]:
    """A cursor outside of transactions (VACUUM has its own) whose waits and statements end by themselves."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection:
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("select set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS}s"])
                cursor.execute("select set_config('statement_timeout', %s, false)", [f"{STATEMENT_SECONDS}s"])
                yield cursor
        except psycopg2.errors.LockNotAvailable as error:
            raise TransientError(f"Somebody else held it locked for more than {LOCK_SECONDS} seconds.", code="warehouse-busy") from error
        except psycopg2.errors.QueryCanceled as error:
            words = f"It took longer than {STATEMENT_SECONDS // 60} minutes and was stopped; everything is as it was."
            raise TransientError(words, code="deadline") from error
        except psycopg2.errors.UndefinedTable as error:
            raise SetupError("There is no such table yet.", code="no-table", next_step="Load it once, then try again.") from error


def _view(cursor: Any, view: str) -> tuple[str, str, bool, bool]:
    """(schema, name, is it populated, may it be refreshed concurrently) of a materialized view. Raises SetupError."""
    schema, dot, name = view.rpartition(".")
    cursor.execute(
        "select n.nspname, c.relname, c.relispopulated, exists (select from pg_index i where i.indrelid = c.oid and i.indisunique"
        # as REFRESH … CONCURRENTLY wants it: of columns alone, of all rows, and checked at once
        " and i.indisvalid and i.indimmediate and i.indpred is null and 0 <> all(i.indkey[0:i.indnkeyatts - 1]))"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind = 'm' and c.relname = %s and n.nspname = any(%s) order by array_position(%s, n.nspname::text)",
        [name, [schema] if dot else [SCHEMA, "public"], [schema] if dot else [SCHEMA, "public"]],
    )
    if found := cursor.fetchone():
        return found
    where = f"in the schema {schema}" if dot else f"in {SCHEMA} or public"
    raise SetupError(
        f"There is no materialized view {name} {where}.",
        code="no-view",
        next_step="Make it in the warehouse, or correct its name in the pipeline's steps after a load.",
    )
