"""A private MariaDB with everything durable left on, and our load into it beside its own bare LOAD DATA LOCAL INFILE."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
from django.conf import settings

from opendata_ops.bench import bare, rows
from opendata_ops.bench.findings import SKIPPED, Finding, compared, interleaved
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import TICK, Cost, measured
from opendata_ops.bench.ours import Ours
from opendata_ops.bench.plan import Plan, as_file
from opendata_ops.bench.server import Place
from pipelines.errors import DataError
from pipelines.warehouse.tables import BOOKKEEPING

USER, PASSWORD, DATABASE = "odo", "bench", "city"
ALIAS = "bench-mariadb"
START_SECONDS = 60


class Server:
    """A MariaDB of the bench's own, in a temporary folder; also the meter of its CPU."""

    def __init__(self, programs: tuple[str, str]):
        self._install, self._program = programs
        self.folder = Path(tempfile.mkdtemp(prefix="odo-bench-mariadb-"))
        self.socket = self.folder / "s"
        # below the ports that outgoing connections take
        self.port = next(port for port in random.sample(range(20_000, 32_000), 200) if _is_free(port))
        self.process: subprocess.Popen | None = None
        self._before = 0.0

    def start(self) -> None:
        """Make the files and wait until the server answers. Raises DataError with its log."""
        root = ["--user=root"] if os.geteuid() == 0 else []
        data = f"--datadir={self.folder / 'data'}"
        install = [self._install, "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db", *root]
        subprocess.run(install, check=True, capture_output=True)
        command = [
            self._program, "--no-defaults", data, *root, f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}",
            "--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve", "--local-infile=ON", "--character-set-server=utf8mb4",
            "--skip-log-bin", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=1G",
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask(f"create database {DATABASE}", database=None)
                break
            except pymysql.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise DataError(f"MariaDB did not start: {(self.folder / 'log').read_text()[-500:]}") from None
                time.sleep(0.05)
        self.ask(f"create user {USER}@'127.0.0.1' identified by '{PASSWORD}'")
        self.ask(f"grant all on {DATABASE}.* to {USER}@'127.0.0.1'")

    @property
    def url(self) -> str:
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def version(self) -> str:
        [[told]] = self.ask("select version()")
        return told

    def session(self, database: str | None = DATABASE) -> pymysql.Connection:
        return pymysql.connect(unix_socket=str(self.socket), user="root", database=database, charset="utf8mb4", autocommit=True, local_infile=True)

    def ask(self, statement: str, *, database: str | None = DATABASE) -> list[tuple]:
        with closing(self.session(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # the meter
    def _cpu(self) -> float:
        told = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / TICK

    def begin(self) -> None:
        self._before = self._cpu()

    def end(self) -> float:
        """CPU seconds of the server since `begin`."""
        return self._cpu() - self._before


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _programs() -> tuple[str, str] | None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = tuple(shutil.which(name, path=path) for name in ("mariadb-install-db", "mariadbd"))
    return found if all(found) else None


def first_load(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Source → served table in MariaDB, against LOAD DATA LOCAL INFILE of the same bytes into the same keyed table."""
    number = plan.size(200_000, 20_000)
    programs = _programs()
    if programs is None:
        words = "mariadb-server is not installed (on Debian and Ubuntu: apt-get install mariadb-server)"
        yield Finding("mariadb", "first load into MariaDB", "bare LOAD DATA", number, SKIPPED, words=words, target=0.4)
        return
    base = rows.Content("base", number)
    path = as_file(ground, base)
    server = Server(programs)
    try:
        server.start()
        settings.WAREHOUSES = {**settings.WAREHOUSES, ALIAS: server.url}
        # the first one is not measured: its table is the form of the bare one
        form = _load(ground, server, base)
        server.ask(f"create table form like {form.pipeline.table}")
        server.ask(f"alter table form {', '.join(f'drop column {name}' for name in BOOKKEEPING)}")
        wanted = _fingerprint(server, form.pipeline.table)
        _forget(server, form)

        def ours() -> Cost:
            mine = _load(ground, server, base)
            _same(server, mine.pipeline.table, wanted)
            _forget(server, mine)
            return mine.cost

        def theirs() -> Cost:
            server.ask("drop table if exists bare")
            server.ask("create table bare like form")
            os.sync()
            with measured(server) as cost:
                bare.in_a_process(lambda: _bare(server, path))
            _same(server, "bare", wanted)
            return cost

        mine, other = interleaved(plan.pairs, ours, theirs, say=plan.say)
        yield compared("mariadb", f"first load into MariaDB {server.version.partition('-')[0]}", "bare LOAD DATA", number, mine, other, 0.4)
    finally:
        server.stop()


def _load(ground: Ground, server: Server, base: rows.Content) -> Ours:
    mine = Ours(ground, warehouse=ALIAS)
    mine.place(Place(base.kind, base.rows))
    mine.load(meter=server)
    return mine


def _forget(server: Server, mine: Ours) -> None:
    server.ask(f"drop table {mine.pipeline.table}")
    mine.forget()


def _bare(server: Server, path: Path) -> None:
    """The bare load: an empty time or number is a null, all else goes in as it comes."""
    kinds = {name: kind for name, kind, _ in rows.COLUMNS}
    plain = ("text", "point")
    columns = ", ".join(name if kind in plain else f"@{name}" for name, kind in kinds.items())
    nulls = ", ".join(f"{name} = nullif(@{name}, '')" for name, kind in kinds.items() if kind not in plain)
    server.ask(
        f"load data local infile '{path}' into table bare character set utf8mb4"
        f" fields terminated by ',' optionally enclosed by '\"' escaped by '' lines terminated by '\\n' ignore 1 lines ({columns}) set {nulls}"
    )


def _fingerprint(server: Server, table: str) -> tuple[int, int]:
    """(rows, a hash that no order changes); null and "" are one, for LOAD DATA does not tell them apart."""
    cells = ", ".join(f"coalesce({name}, '')" for name in rows.NAMES)
    [found] = server.ask(f"select count(*), bit_xor(conv(left(md5(concat_ws('|', {cells})), 15), 16, 10)) from {table}")  # noqa: S608  our own names
    return found


def _same(server: Server, table: str, wanted: tuple[int, int]) -> None:
    found = _fingerprint(server, table)
    if found != wanted:
        raise DataError(f"{table} has {found[0]:,} rows with the hash {found[1]}; {wanted[0]:,} with {wanted[1]} were expected")
