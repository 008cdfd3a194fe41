"""What is done to MariaDB after a load: statistics renewed, the space of dead rows reclaimed. It has no views that are refreshed."""

from __future__ import annotations

import contextlib
from typing import Any

import pymysql
from pymysql.constants import ER

from pipelines.errors import SetupError, TransientError
from pipelines.warehouse.mysql.session import connect, name, plain_words, run

#: So long another session may keep us waiting for its lock; whoever stands behind us in that queue waits as long.
LOCK_SECONDS = 5


def refresh(dsn: str, view: str) -> str:
    """Always raises SetupError: a view of MariaDB is a query and shows the new rows by itself."""
    raise SetupError(
        f"{view} can't be refreshed: MariaDB and MySQL have no materialized views; theirs show the new rows by themselves.",
        code="no-view",
        next_step="Take this step off the pipeline.",
    )


def examine(dsn: str) -> str:
    """Whether the user may make, fill and drop tables there; a sentence. Raises PipelineError."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("select version(), @@local_infile")
        version, may_send_files = cursor.fetchone()
        if not may_send_files:
            raise SetupError(
                "The server takes no files from its clients, and every load is one (LOAD DATA LOCAL).",
                code="no-local-infile",
                next_step="Set local_infile=ON on the server.",
            )
        cursor.execute("create table if not exists _odo_examined (n int)")
        cursor.execute("drop table _odo_examined")
    return f"{version} answers, tables may be made there, and it takes files."


def analyze(dsn: str, table: str) -> str:
    """Renew the planner's statistics of a city table; says so. Raises PipelineError."""
    _run(dsn, "analyze table", table)
    return f"Renewed the statistics of {table}."


def vacuum(dsn: str, table: str) -> str:
    """Write a city table anew without the room of dead rows, and renew its statistics; says so. Raises PipelineError."""
    # InnoDB does it as an online change of the table: readers and writers go on but for its first and last moment
    _run(dsn, "optimize table", table)
    return f"Rewrote {table} without its dead rows and renewed its statistics; readers went on meanwhile."


def _run(dsn: str, verb: str, table: str) -> None:
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        run(cursor, f"set session lock_wait_timeout = {LOCK_SECONDS}")
        try:
            cursor.execute(f"{verb} {name(table)}")
        except pymysql.Error as error:
            if error.args[0] == ER.LOCK_WAIT_TIMEOUT:
                raise TransientError(f"{table} was in use; {verb} was given up after {LOCK_SECONDS} seconds.", code="warehouse-busy") from error
            raise
        _raise_what_it_says(table, cursor.fetchall())


def _raise_what_it_says(table: str, told: Any) -> None:
    """These statements report their errors as rows."""
    for _, _, kind, words in told:
        if str(kind).lower() != "error":
            continue
        if "doesn't exist" in words:
            raise SetupError("There is no such table yet.", code="no-table", next_step="Load it once, then try again.")
        if "denied" in words:
            raise SetupError(f"Nothing was done: {words}", code="warehouse-forbidden", next_step="Grant the warehouse user this right.")
        raise TransientError(f"{table}: {words}", code="warehouse-busy")
