"""The bare work that the real path is held against: COPY of bytes that lie on this disk already, by one session, with nothing kept.

Each runs in a process of its own, forked like a stage's, so that neither side pays for a start that the other does not have.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier

from opendata_ops.bench import rows
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from pipelines.errors import DataError

COPY_BYTES = 1 << 20
SCHEMA = "public"
#: The portal's types as the warehouse keeps them.
SQL_TYPES = {"text": "text", "point": "text", "number": "numeric", "calendar_date": "timestamp"}


class Bytes(io.RawIOBase):
    """The header and a span of a rendered CSV file, as one readable file: the same bytes that the portal sends, without a copy."""

    def __init__(self, rendered: rows.Rendered, offset: int = 0, limit: int | None = None):
        self._file = rendered.path.open("rb")
        first, self._left = rendered.span(offset, rendered.content.count if limit is None else limit)
        self._file.seek(first)
        self._head = rows.HEADER

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        piece = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()
        super().close()


def in_a_process(work: Callable[[], Any]) -> Any:
    """What `work` returns, done in a child of its own. Raises DataError when it failed; its traceback is on stderr then."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def does() -> None:
        gc.freeze()  # as the runner does in a stage's process
        theirs.send(work())

    child = fork.Process(target=does)
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise DataError("a baseline's process failed; the lines above say why") from None
    finally:
        child.join()


def create(ground: Ground, table: str) -> None:
    """A fresh table with the city's types and its key, and nothing of ours."""
    ground.drop(SCHEMA, table)
    fields = [SQL("{} {}").format(Identifier(name), SQL(SQL_TYPES[kind])) for name, kind, _ in rows.COLUMNS]
    fields.append(SQL("primary key ({})").format(Identifier(rows.KEY)))
    ground.ask(SQL("create table {} ({})").format(Identifier(SCHEMA, table), SQL(", ").join(fields)))


def copy_of(target: Composable) -> Composable:
    return SQL("copy {} from stdin (format csv, header true, encoding 'UTF8')").format(target)


def timed(ground: Ground, work: Callable[[Any], None]) -> Cost:
    """One transaction of one session in a process, measured from the connection to the commit."""

    def do() -> None:
        with closing(psycopg2.connect(ground.dsn)) as connection, connection, connection.cursor() as cursor:
            work(cursor)

    ground.settle()
    before = ground.wal()
    with measured(ground.meter) as cost:
        in_a_process(do)
    cost.wal = ground.wal() - before
    return cost


def copy(ground: Ground, table: str, rendered: rows.Rendered) -> Cost:
    """COPY straight into the keyed table: the physical limit of one connection."""

    def work(cursor: Any) -> None:
        with Bytes(rendered) as stream:
            cursor.copy_expert(copy_of(Identifier(SCHEMA, table)), stream, size=COPY_BYTES)

    return timed(ground, work)


def _stage(cursor: Any, table: str, rendered: rows.Rendered) -> None:
    cursor.execute(SQL("create temp table stage (like {})").format(Identifier(SCHEMA, table)))
    with Bytes(rendered) as stream:
        cursor.copy_expert(copy_of(Identifier("stage")), stream, size=COPY_BYTES)


def _upsert(table: str) -> Composable:
    """The blind one: every row of the stage is written, whether it differs or not."""
    columns = SQL(", ").join(map(Identifier, rows.NAMES))
    changes = SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in rows.NAMES if name != rows.KEY)
    return SQL("insert into {} ({}) select {} from stage on conflict ({}) do update set {}").format(
        Identifier(SCHEMA, table), columns, columns, Identifier(rows.KEY), changes
    )


def stage_and_merge(ground: Ground, table: str, rendered: rows.Rendered) -> Cost:
    """COPY into a temporary table, then INSERT … ON CONFLICT DO UPDATE of all of it."""

    def work(cursor: Any) -> None:
        _stage(cursor, table, rendered)
        cursor.execute(_upsert(table))

    return timed(ground, work)


def blind_merge(ground: Ground, table: str, rendered: rows.Rendered) -> Cost:
    """The merge alone: the rows are in the stage already when the clock starts."""
    with closing(psycopg2.connect(ground.dsn)) as connection, connection.cursor() as cursor:
        _stage(cursor, table, rendered)
        ground.settle()
        before = ground.wal()
        with measured(ground.meter) as cost:
            cursor.execute(_upsert(table))
            connection.commit()
        cost.wal = ground.wal() - before
    return cost
