"""A MariaDB of the tests' own: made in a temporary folder, reached by a user without rights over others, gone with the session.

`@pytest.mark.needs("mariadb")` says that a test uses it; the fixture `mariadb` is the address of its database, emptied for each test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pymysql
import pytest

USER, PASSWORD, DATABASE = "odo", "it's \\ a @ secret", "city"


class Server:
    """One server with an empty database; `stop` ends it and removes its files."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odo-mariadb-", dir=_fast_folder()))
        self.socket = self.folder / "s"
        # below the ports that outgoing connections take
        self.port = next(port for port in random.sample(range(20_000, 32_000), 200) if _is_free(port))
        self._process: subprocess.Popen | None = None

    def start(self) -> Server:
        """Make the files, start the server and wait until it answers."""
        root = ["--user=root"] if os.geteuid() == 0 else []
        data = f"--datadir={self.folder / 'data'}"
        install = ["mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db", *root]
        subprocess.run(install, check=True, capture_output=True)
        (self.folder / "tmp").mkdir()
        path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
        command = [
            shutil.which("mariadbd", path=path) or "mariadbd", "--no-defaults", data, *root,
            f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}", "--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve",
            "--local-infile=ON", "--character-set-server=utf8mb4", "--skip-log-bin", "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=128M",
            # its files are thrown away: they need not survive a power cut
            "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", "--innodb-doublewrite=OFF", "--innodb-flush-method=nosync",
            # a server that starts removes the temporary tables that it finds: not those of another one
            f"--tmpdir={self.folder / 'tmp'}",
        ]  # fmt: skip
        log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        log.close()
        until = time.monotonic() + 60
        while _is_free(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"MariaDB did not start:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)
        with closing(self.root()) as connection, connection.cursor() as cursor:
            cursor.execute(f"create database {DATABASE}")
            cursor.execute(f"create user {USER}@'127.0.0.1' identified by %s", [PASSWORD])
            cursor.execute(f"grant all on {DATABASE}.* to {USER}@'127.0.0.1'")
        return self

    def root(self) -> pymysql.Connection:
        """A connection that may do everything."""
        return pymysql.connect(unix_socket=str(self.socket), user="root", charset="utf8mb4", autocommit=True)

    @property
    def url(self) -> str:
        """The address of its database, as WAREHOUSES has it."""
        return f"mysql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{DATABASE}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _fast_folder() -> str | None:
    """Memory, where there is room for the server's files: each table that a test makes would wait for the disk."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30 else None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a test run that is killed leaves no server behind


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def mariadb(mariadb_server: Server) -> Iterator[str]:
    """The address of an empty MariaDB database."""
    yield mariadb_server.url
    with closing(mariadb_server.root()) as connection, connection.cursor() as cursor:
        cursor.execute("select id from information_schema.processlist where user = %s", [USER])
        for (session,) in cursor.fetchall():
            with contextlib.suppress(pymysql.Error):
                cursor.execute(f"kill {session}")
        cursor.execute(f"drop database {DATABASE}")
        cursor.execute(f"create database {DATABASE}")
