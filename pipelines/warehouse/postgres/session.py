"""Sessions with a PostgreSQL warehouse: how it is reached, what its errors mean, and how a dead run's sessions end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from psycopg2.sql import SQL, Identifier

from pipelines.errors import PermanentError, SetupError, TransientError

SCHEMA = "city"


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
