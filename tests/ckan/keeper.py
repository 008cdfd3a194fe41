"""The servers of the tests' CKAN, and the process that keeps them: `python -m tests.ckan.keeper FOLDER TEMPLATE`.

It starts PostgreSQL (the embedded one's programs, on a copy of the template's data), Redis, the stand-in for Solr and CKAN, writes
FOLDER/running.json, and waits until no process holds a lock on FOLDER/users: then it ends all of them and removes the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg2

from opendata_ops import database
from tests.ckan.real import HERE, START_SECONDS, _functions, _until, environment_folder
from tests.ckan.solr import Solr

POSTGRES = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = '64MB'
jit = off
timezone = 'UTC'
lc_messages = 'C'
# the files are thrown away: they need not survive a power cut
fsync = off
synchronous_commit = off
full_page_writes = off
"""

CKAN = """\
[DEFAULT]
debug = false

[app:main]
use = egg:ckan
SECRET_KEY = {password}
sqlalchemy.url = postgresql://ckan:{password}@127.0.0.1:{postgres}/ckan
ckan.datastore.write_url = postgresql://datastore:{password}@127.0.0.1:{postgres}/datastore
ckan.datastore.read_url = postgresql://datastore_reader:{password}@127.0.0.1:{postgres}/datastore
ckan.redis.url = unix://{folder}/redis.sock
solr_url = {solr}
ckan.site_url = http://127.0.0.1:{port}
ckan.site_id = default
ckan.storage_path = {folder}/files
ckan.plugins = datastore activity toronto_fields
ckan.views.default_views =
ckan.auth.create_unowned_dataset = true
"""


class Servers:
    """Everything that CKAN stands on, in a folder; `stop` ends it."""

    def __init__(self, folder: Path, password: str):
        self.folder = folder
        self.password = password
        self.postgres_port, self.port = _two_free_ports()
        self.solr = Solr()
        self.processes: list[subprocess.Popen] = []

    def start(self, data: Path) -> Servers:
        """Start PostgreSQL on `data`, Redis and Solr, and write CKAN's configuration."""
        user = database._system_user() if os.geteuid() == 0 else None
        (data / "tests.conf").write_text(POSTGRES.format(port=self.postgres_port))
        if user:
            for path in (data, *data.rglob("*")):
                os.chown(path, user.uid, user.gid)
        self.run([database._programs(user) / "postgres", "-D", data], **database._as(user))
        (self.folder / "files").mkdir()
        redis = ["redis-server", "--port", "0", "--unixsocket", self.folder / "redis.sock", "--save", "", "--appendonly", "no", "--dir", self.folder]
        self.run(redis)
        threading.Thread(target=self.solr.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        values = {"password": self.password, "postgres": self.postgres_port, "port": self.port, "folder": self.folder, "solr": self.solr.url}
        self.configuration.write_text(CKAN.format(**values))
        self.configuration.chmod(0o600)
        _until(lambda: not _is_free(self.postgres_port) and self._answers(), "PostgreSQL answers")
        _until((self.folder / "redis.sock").exists, "Redis answers")
        return self

    def run(self, command: list[Any], **how: Any) -> subprocess.Popen:
        """Start a server that dies with this process; it writes to FOLDER/log."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent, **how
            )
        self.processes.append(process)
        return process

    def python(self, *words: object) -> list[str]:
        """How CKAN's Python is called with one of the files here."""
        return [str(word) for word in (environment_folder() / "bin" / "python", "-W", "ignore", *words)]

    @property
    def environment(self) -> dict[str, str]:
        """What CKAN's Python finds of our environment: nothing but the plugin."""
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE / "extension"), "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    @property
    def configuration(self) -> Path:
        return self.folder / "ckan.ini"

    def address(self, name: str) -> str:
        """The address of one of the databases, for the superuser."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.postgres_port}/{name}"

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.address("postgres")).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End the servers, PostgreSQL in good order (its files may be a template)."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGINT if "postgres" in process.args[0] else signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.solr.shutdown()
        self.solr.server_close()


def make_template(template: Path, password: str) -> None:
    """Fill `template` with a stopped PostgreSQL that has CKAN's tables and users, and the keys of these. Raises RuntimeError."""
    user = database._system_user() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="odo-ckan-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        data = folder / "postgres"
        data.mkdir(mode=0o700)
        secret = folder / "password"
        secret.write_text(password)
        if user:
            os.chown(data, user.uid, user.gid)
            os.chown(secret, user.uid, user.gid)
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
        initdb = [database._programs(user) / "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", *locale]
        subprocess.run([str(word) for word in initdb], check=True, stdout=subprocess.DEVNULL, **database._as(user))
        with (data / "postgresql.conf").open("a") as file:
            file.write("include 'tests.conf'\n")
        servers = Servers(folder, password)
        try:
            servers.start(data)
            _sql(servers, "postgres", *(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'" for role in ("ckan", "datastore", "datastore_reader")))
            _sql(servers, "postgres", "CREATE DATABASE ckan OWNER ckan", "CREATE DATABASE datastore OWNER datastore")
            permissions = folder / "permissions.sql"
            command = servers.python(HERE / "prepare.py", servers.configuration, permissions)
            done = subprocess.run(command, env=servers.environment, check=False, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"CKAN's tables could not be made:\n{done.stderr[-5000:]}")
            sql = "\n".join(line for line in permissions.read_text().splitlines() if not line.startswith("\\connect"))
            _sql(servers, "datastore", sql)
        finally:
            servers.stop()
        keys = json.loads(done.stdout.splitlines()[-1])
        shutil.move(data, template / "postgres")
    secret = template / "keys.json"
    secret.touch(mode=0o600)
    secret.write_text(json.dumps({**keys, "password": password}))


def keep(folder: Path, template: Path) -> None:
    """Start everything, say so, and wait until nobody uses it."""
    keys = json.loads((template / "keys.json").read_text())
    data = folder / "postgres"
    shutil.copytree(template / "postgres", data)
    data.chmod(0o700)
    servers = Servers(folder, keys.pop("password"))
    try:
        servers.start(data)
        ckan = servers.run(servers.python(HERE / "serve.py", servers.configuration, servers.port, folder), env=servers.environment)
        _until(lambda: (folder / "loaded").exists() or ckan.poll() is not None, "CKAN loads", seconds=START_SECONDS)
        if ckan.poll() is not None:
            raise RuntimeError(f"CKAN could not be loaded: it ended with {ckan.returncode}")
        ckan.send_signal(signal.SIGHUP)
        _until((folder / "site.pid").exists, "CKAN serves")
        with psycopg2.connect(servers.address("datastore")) as connection, connection.cursor() as cursor:
            functions = sorted(_functions(cursor))
        facts = {
            "url": f"http://127.0.0.1:{servers.port}", "datastore": servers.address("datastore"), "ckan": servers.address("ckan"),
            "solr": servers.solr.url, "loader": ckan.pid, "functions": functions, **keys,
        }  # fmt: skip
        (folder / "running.json.new").write_text(json.dumps(facts))
        (folder / "running.json.new").rename(folder / "running.json")
        users = os.open(folder / "users", os.O_RDONLY)
        fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        servers.stop()
    # still locked: who comes just now waits, and then makes a folder of his own
    shutil.rmtree(folder)


def _sql(servers: Servers, name: str, *statements: str) -> None:
    with contextlib.closing(psycopg2.connect(servers.address(name))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def _two_free_ports() -> list[int]:
    """Below the ports that outgoing connections take."""
    return [port for port in random.sample(range(20_000, 32_000), 200) if _is_free(port)][:2]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a keeper that is killed leaves no server behind


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]))
