"""The bench's own ground: a private database on the warehouse's server, a private lake, its folder under var/, and the portal.

Nothing of the city is touched: for the length of a bench the settings point here, and at its end the database is dropped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import environ
import psutil
import psycopg2
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg2.sql import SQL, Identifier

from opendata_ops.bench import rows, server
from opendata_ops.bench.meter import Meter
from pipelines.errors import SetupError

PREFIX = "odo_bench_"


class Ground:
    """Where the bench stands. `dsn` is the private database, `portal` the running server, `folder` var/bench."""

    def __init__(self, folder: Path, dsn: str, portal: server.Running):
        self.folder, self.dsn, self.portal = folder, dsn, portal
        self.database = dsn.rpartition("/")[2]
        self._numbers = iter(range(1, 10_000))
        self.known: dict[str, int] = {}  # rows of a content → the hash that every load of it must leave
        self.known_plain: dict[int, int] = {}  # the same of the columns that other loaders leave alone
        # this very session keeps others from taking the database for a dead bench's
        self.connection = psycopg2.connect(dsn, application_name="odo bench")
        self.connection.autocommit = True
        self.meter = self._meter()

    def _meter(self) -> Meter | None:
        [[pid]] = self.ask("select pg_backend_pid()")
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres"):
            return None
        parent = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("PPid:"))
        return Meter(int(parent), self.database)

    def close(self) -> None:
        self.connection.close()
        if self.meter:
            self.meter.close()

    # asking

    def ask(self, query: Any, values: Sequence[Any] = ()) -> list[tuple]:
        """What a query answers; [] for a statement without an answer."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def number(self) -> int:
        """A number that no table, slug or dataset id of this bench has yet."""
        return next(self._numbers)

    def settle(self) -> None:
        """Leave nothing of what came before to be written during the next measurement."""
        try:
            self.ask("checkpoint")
        except psycopg2.errors.InsufficientPrivilege:
            # the embedded server's role may make databases, and nobody drops one without a checkpoint
            other = SQL("{} database {}{}")
            name = Identifier(f"{self.database}_checkpoint")
            self.ask(other.format(SQL("create"), name, SQL(" template template0 strategy file_copy")))
            self.ask(other.format(SQL("drop"), name, SQL("")))
        os.sync()

    def wal(self) -> int:
        """Bytes of write-ahead log so far, of the whole server."""
        [[place]] = self.ask("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return place

    def fingerprint(self, schema: str, table: str, columns: Sequence[str] = rows.NAMES, *, as_text: bool = False) -> tuple[int, int]:
        """(rows, a hash of their cells that no order changes). `as_text` for tables of other types: null and "" are one."""
        cells = [SQL("coalesce({}::text, '')" if as_text else "{}").format(Identifier(name)) for name in columns]
        query = SQL("select count(*), coalesce(bit_xor(hashtextextended(row({})::text, 0)), 0) from {}")
        [found] = self.ask(query.format(SQL(", ").join(cells), Identifier(schema, table)))
        return found

    def drop(self, schema: str, table: str) -> None:
        self.ask(SQL("drop table if exists {}").format(Identifier(schema, table)))

    def copy_table(self, schema: str, original: str, copy: str) -> None:
        """A table like `original`, with its keys and rows, as if it had always been there: vacuumed and known to the planner."""
        self.drop(schema, copy)
        names = {"new": Identifier(schema, copy), "old": Identifier(schema, original)}
        self.ask(SQL("create table {new} (like {old} including all)").format(**names))
        self.ask(SQL("insert into {new} select * from {old}").format(**names))
        self.ask(SQL("vacuum analyze {new}").format(**names))


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[Ground]:
    """A Ground; settings point at it meanwhile. Raises SetupError when the warehouse's server does not let us."""
    address = settings.WAREHOUSES["default"]
    if not address.startswith(("postgres://", "postgresql://")):
        raise SetupError("The bench needs PostgreSQL as the default warehouse.", code="bench-engine", next_step="Set WAREHOUSE_URL for this command.")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    name = f"{PREFIX}{os.getpid()}"
    dsn = f"{address.rpartition('/')[0]}/{name}"
    with _database(address, name), server.start(folder) as portal, _pointed_at(dsn, folder, portal.port):
        call_command("migrate", verbosity=0)
        ground = Ground(folder, dsn, portal)
        try:
            yield ground
        finally:
            ground.close()
            connections.close_all()


def sweep(folder: Path) -> None:
    """Remove gigabytes that another version of the generator made, and what benches that were killed left."""
    for old in set(folder.glob("rows-*")) - {rows.folder(folder)}:
        shutil.rmtree(old)
    for left in (*folder.glob("run-*"), *folder.glob("peer-*")):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left)


@contextlib.contextmanager
def _database(address: str, name: str) -> Iterator[None]:
    """A fresh database beside the warehouse's; those that dead benches left are dropped first.

    Never "with (force)": our role may not end the autovacuum that may look at it, and a plain drop does that by itself.
    """
    try:
        connection = psycopg2.connect(address, connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise SetupError(f"The warehouse's server does not answer: {str(error).splitlines()[0]}", code="warehouse-down") from error
    connection.autocommit = True
    try:
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("select datname from pg_database where starts_with(datname, %s)", [PREFIX])
            for (found,) in cursor.fetchall():
                # one that is in use belongs to a bench that lives
                with contextlib.suppress(psycopg2.errors.ObjectInUse):
                    cursor.execute(SQL("drop database if exists {}").format(Identifier(found)))
            try:
                cursor.execute(SQL("create database {} template template0").format(Identifier(name)))
            except psycopg2.errors.InsufficientPrivilege as error:
                raise SetupError(
                    "The bench needs a database of its own, and the warehouse's user may not make one.",
                    code="bench-forbidden",
                    next_step="Let it (ALTER ROLE … CREATEDB), or set WAREHOUSE_URL to another server for this command.",
                ) from error
            try:
                yield
            finally:
                # one that a session still holds is dropped by the next bench
                with contextlib.suppress(psycopg2.errors.ObjectInUse):
                    cursor.execute(SQL("drop database if exists {}").format(Identifier(name)))
    except psycopg2.OperationalError as error:
        raise SetupError(f"The warehouse's server broke off: {str(error).splitlines()[0]}", code="warehouse-down") from error


@contextlib.contextmanager
def _pointed_at(dsn: str, folder: Path, port: int) -> Iterator[None]:
    """Settings that lead every stage to the bench's own database, lake and portal."""
    place, kept = settings.DATABASES["default"], dict(settings.DATABASES["default"])
    before = {name: getattr(settings, name) for name in ("WAREHOUSES", "LAKE_URL", "WORK_DIR", "OUTBOUND_ALLOW")}
    own = folder / f"run-{os.getpid()}"
    connections.close_all()
    # in place: the connection looks at this very dictionary
    place.update({name: value for name, value in environ.Env.db_url_config(dsn).items() if name in ("NAME", "HOST", "PORT", "USER", "PASSWORD")})
    settings.WAREHOUSES = {"default": dsn}
    settings.LAKE_URL, settings.WORK_DIR = str(own / "lake"), own / "work"
    settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, f"127.0.0.1:{port}"]
    try:
        yield
    finally:
        connections.close_all()
        place.clear()
        place.update(kept)
        for name, value in before.items():
            setattr(settings, name, value)
        shutil.rmtree(own, ignore_errors=True)
