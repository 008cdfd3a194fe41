"""The embedded PostgreSQL: one server for all, alive through every crash, and no folder opened that is not ours."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import environ
import psutil
import psycopg2
import psycopg2.extensions
import pytest

from opendata_ops import bootstrap, database

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand the server to another user")


@pytest.fixture(scope="module")
def public():
    """A folder that every user may pass through (pytest's own is private), removed with what runs in it."""
    folder = Path(tempfile.mkdtemp(prefix="odo ", dir="/tmp"))  # with a space: paths have them
    folder.chmod(0o755)
    yield folder
    for process in psutil.process_iter():
        try:
            if process.name().startswith("postgres") and process.cwd().startswith(str(folder)):
                process.kill()
        except psutil.Error:
            pass
    shutil.rmtree(folder)


def project_in(folder: Path, name: str) -> database.EmbeddedServer:
    (folder / name).mkdir()
    return database.EmbeddedServer(folder / name)


@pytest.fixture(scope="module")
def shared(public):
    """One server for the tests that leave it as they found it."""
    server = project_in(public, "shared")
    yield server
    server.stop()
    server.leave()


@pytest.fixture
def server(shared):
    """Running, with a table of one row that must survive everything; used by no process but those of the test."""
    shared.start()
    with shared.connected(database.NAME) as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n")
    yield shared
    shared.start()
    assert rows(shared) == [(1,)]


def rows(server: database.EmbeddedServer) -> list[tuple]:
    with server.connected(database.NAME) as cursor:
        cursor.execute("SELECT n FROM kept")
        return cursor.fetchall()


def postmaster(server: database.EmbeddedServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def another_process(server: database.EmbeddedServer, code: str) -> subprocess.Popen:
    """Another program of the same project, with `server` in hand."""
    head = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom opendata_ops import database\n"
        f"server = database.EmbeddedServer(Path({str(server.project)!r}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code], cwd=bootstrap.PROJECT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def modes(path: Path) -> list[tuple[str, int, int]]:
    return [(str(folder), folder.stat().st_mode, folder.stat().st_uid) for folder in (path, *path.parents)]


def within(seconds: float, condition) -> bool:
    """A deadline for what must come, not a time that must pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# crashes


def test_the_server_outlives_the_crash_of_the_process_that_started_it(server):
    server.stop()
    server.leave()
    starter = another_process(server, "server.start(); print(server._postmaster().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    pid = int(starter.communicate(timeout=60)[0])
    assert starter.returncode == -signal.SIGKILL
    assert psutil.pid_exists(pid)
    server.start()
    assert postmaster(server) == pid
    assert rows(server) == [(1,)]


def test_a_server_killed_with_all_its_memory_recovers_at_the_next_start(server):
    victim = postmaster(server)
    os.kill(victim, signal.SIGKILL)
    assert within(10, lambda: not server.is_alive())
    assert not server.answers()
    server.start()
    assert postmaster(server) != victim
    assert rows(server) == [(1,)]


def test_a_left_over_pid_file_never_costs_an_innocent_process_its_life(server):
    server.stop()
    # Of the server's own user: another user's process would not stop PostgreSQL from starting.
    innocent = subprocess.Popen(["sleep", "600"], **database._as(server._server_user()))
    (server.data / "postmaster.pid").write_text(f"{innocent.pid}\n{server.data}\n0\n1\n\n127.0.0.1\n1 1\nready\n")
    assert not server.is_alive()
    server.stop()
    server.start()
    assert postmaster(server) != innocent.pid
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


def test_a_killed_servers_lingering_children_are_ended_before_a_new_one_writes(server):
    """Each process of a server holds its lock: a new one must wait for the last of them."""
    busy = psycopg2.connect(server.url())
    with busy.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = psutil.Process(cursor.fetchone()[0])
    backend.suspend()  # it cannot notice that its main process is dead
    os.kill(postmaster(server), signal.SIGKILL)
    assert within(10, lambda: not server.is_alive())
    assert server._somebody_lives()
    server.start()
    assert not psutil.pid_exists(backend.pid) or backend.status() == psutil.STATUS_ZOMBIE
    busy.close()


# many users


def test_two_first_starts_at_once_give_one_server_and_the_last_to_leave_stops_it(public):
    server = project_in(public, "two at once")
    code = "server.start(); print(server._postmaster().pid, flush=True); sys.stdin.readline()"
    both = [another_process(server, code) for _ in range(2)]
    pids = [int(process.stdout.readline()) for process in both]
    assert pids[0] == pids[1]

    both[0].communicate("end\n", timeout=30)
    assert server.answers()
    both[1].communicate("end\n", timeout=30)
    assert not server.is_alive()
    assert not server._somebody_lives()


def test_a_forked_child_that_ends_takes_nothing_from_its_parent(server):
    code = (
        "server.start()\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"  # runs the exit functions that it inherited
        "os.waitpid(child, 0)\n"
        "print(server.answers())\n"
    )
    server.leave()
    assert another_process(server, code).communicate(timeout=60)[0] == "True\n"


# the address


def test_the_address_is_the_same_to_django_and_to_psycopg2(server):
    url = server.url()
    ours = environ.Env.db_url_config(url)
    theirs = psycopg2.extensions.parse_dsn(url)
    assert (ours["HOST"], str(ours["PORT"]), ours["USER"], ours["PASSWORD"], ours["NAME"]) == (
        theirs["host"], theirs["port"], theirs["user"], theirs["password"], theirs["dbname"],
    )  # fmt: skip
    assert int(theirs["port"]) < 32768


def test_the_address_is_known_before_anything_runs_and_stays(tmp_path):
    server = project_in(tmp_path, "never started")
    url = server.url()
    assert database.EmbeddedServer(server.project).url() == url
    assert (server.var / "database.json").stat().st_mode & 0o777 == 0o600
    assert not (server.var / "postgres").exists()


def test_a_lost_password_is_mended_and_the_data_stay(server):
    (server.var / "database.json").unlink()
    server.stop()
    server.start()
    assert rows(server) == [(1,)]


def test_a_stranger_on_the_port_is_left_alone_and_the_server_moves(server):
    server.stop()
    address = json.loads((server.var / "database.json").read_text())
    with socket.create_server(("127.0.0.1", address["port"])):
        server.start()
        assert server.url() != f"postgres://{database.NAME}:{address['password']}@127.0.0.1:{address['port']}/{database.NAME}"
        assert rows(server) == [(1,)]


def test_only_the_right_password_opens_it_and_not_as_superuser(server):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(re.sub(":[0-9a-f]{48}@", ":wrong@", server.url()))
    with server.connected(database.NAME) as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False,)


def test_a_copied_project_gets_a_database_of_its_own(server, public):
    server.stop()
    shutil.copytree(server.project, public / "copy", symlinks=True)
    server.start()
    copy = database.EmbeddedServer(public / "copy")
    assert copy.url() != server.url()
    copy.start()
    try:
        with copy.connected(database.NAME) as cursor:
            cursor.execute("DROP TABLE kept")
        assert rows(server) == [(1,)]
    finally:
        copy.stop()
        copy.leave()


# folders


@as_root
def test_a_private_home_stays_private_and_its_database_lives_elsewhere(public, monkeypatch, capsys):
    monkeypatch.setattr(database, "OUTSIDE", public / "outside")
    home = public / "private home"
    home.mkdir(mode=0o700)
    server = project_in(home, "project")
    before = modes(server.project)
    server.start()
    try:
        assert modes(server.project) == before
        assert server.data.is_relative_to(public / "outside")
        assert f"the database is kept in {public / 'outside'}" in capsys.readouterr().err
        assert server.answers()
        server.stop()
        server.start()
        assert capsys.readouterr().err == "", "said once"
    finally:
        server.stop()
        server.leave()


@as_root
def test_binaries_that_the_servers_user_cannot_reach_are_copied_and_run_from_the_copy(public, monkeypatch):
    monkeypatch.setattr(database, "OUTSIDE", public / "outside for programs")
    user = database._system_user()
    original = database._package()
    private = public / "private environment"
    private.mkdir(mode=0o700)
    (private / original.name).symlink_to(original)
    (private / f"{original.name}.libs").symlink_to(original.parent / f"{original.name}.libs")
    monkeypatch.setattr(database, "_package", lambda: private / original.name)
    programs = database._programs(user)
    assert programs.is_relative_to(public / "outside for programs")
    asked = subprocess.run([programs / "initdb", "--version"], capture_output=True, text=True, **database._as(user))
    assert "PostgreSQL) 18" in asked.stdout
    assert private.stat().st_mode & 0o777 == 0o700


@as_root
def test_root_in_another_persons_checkout_leaves_everything_to_that_person(public):
    person = database._system_user()  # any user that is not root
    server = project_in(public, "a person's")
    os.chown(server.project, *person)
    server.start()
    try:
        made = [path for path in (server.var, *server.var.rglob("*")) if path.stat().st_uid == 0]
        assert [path.name for path in made if path.name != "postgres.log"] == []
    finally:
        server.stop()
        server.leave()


@as_root
def test_a_folder_that_cannot_be_used_is_named_with_what_to_do(public):
    server = project_in(public, "of root")
    (server.project / "var").mkdir(mode=0o700)
    code = f"""
import os
from opendata_ops import database
from pathlib import Path
os.setgroups([]); os.setgid({database._system_user().gid}); os.setuid({database._system_user().uid})
try: database.EmbeddedServer(Path({str(server.project)!r})).start()
except database.DatabaseUnavailable as error: print(error)
"""
    asked = subprocess.run([sys.executable, "-c", code], cwd=bootstrap.PROJECT, capture_output=True, text=True)
    assert "permission denied" in asked.stdout, asked.stderr
    assert "DATABASE_URL" in asked.stdout


# the rest of the project


def test_another_server_is_used_as_it_is_and_never_started_stopped_or_emptied(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://city@db.example.gov/ops")
    monkeypatch.setattr(database, "embedded", lambda: pytest.fail("touched the embedded server"))
    assert not database.is_embedded()
    assert database.url() == "postgres://city@db.example.gov/ops"
    database.start()
    database.stop()
    with pytest.raises(database.DatabaseUnavailable, match="only the embedded database may be emptied"):
        database.start_over()


def test_start_over_leaves_an_empty_database(server, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setattr(database, "_embedded", server)
    monkeypatch.setattr(database, "PROJECT", server.project)  # no .env of this checkout
    database.start_over()
    with server.connected(database.NAME) as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,)
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS n")


@pytest.fixture
def one_migration_short(db):
    """The tests' database, told that one migration was never applied."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")


def test_a_database_of_yours_is_not_changed_by_a_command_that_only_looks(one_migration_short):
    with pytest.raises(database.DatabaseUnavailable, match=r"lacks sessions\.0001_initial\.\nNext: python3 manage.py migrate"):
        database.keep_current(may_migrate=False)


@pytest.mark.parametrize("command, code", [("status", 2), ("doctor", None), ("check", None)])
def test_a_database_that_does_not_answer_is_said_and_stops_only_who_needs_it(command, code, monkeypatch, capsys):
    """None: the command itself was reached."""
    ran = []
    monkeypatch.setattr(bootstrap, "enter_environment", lambda *_, **__: None)
    monkeypatch.setattr("django.core.management.execute_from_command_line", lambda argv: ran.append(argv[1]))
    refused = "Connection refused"
    monkeypatch.setattr(database, "start", lambda: (_ for _ in ()).throw(database.DatabaseUnavailable(refused)))
    answer = bootstrap.main(["manage.py", command])
    assert (answer, ran) == ((code, []) if code else (0, [command]))
    assert (refused in capsys.readouterr().err) is (command != "check")


@pytest.mark.parametrize("words", [["status", "--json"], ["run", "x", "--json"]])
def test_with_json_a_database_that_does_not_answer_is_one_object_and_no_password(words):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]  # nobody answers there once this is closed
    own = {**os.environ, "DATABASE_URL": f"postgres://ana:c4nary-Secret@127.0.0.1:{port}/city", "ODO_NO_BOOTSTRAP": "1"}
    asked = subprocess.run([sys.executable, "manage.py", *words], cwd=bootstrap.PROJECT, env=own, capture_output=True, text=True)
    assert asked.returncode == 2
    told = json.loads(asked.stdout)
    assert set(told) == {"error", "next_step"}
    assert f"The database at 127.0.0.1:{port} does not answer" in told["error"] and "migration" not in told["error"]
    assert "DATABASE_URL" in told["next_step"]
    assert told["error"] in asked.stderr and "c4nary" not in asked.stdout + asked.stderr


@pytest.mark.django_db
def test_a_database_that_goes_away_while_it_is_looked_at_is_not_blamed_on_the_migrations(monkeypatch):
    from django.db import OperationalError, connection
    from django.db.migrations.executor import MigrationExecutor

    def gone(*_):
        connection.ensure_connection = refuse
        raise OperationalError("server closed the connection unexpectedly")

    def refuse():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "close", lambda: None)  # the test's own transaction lives in it
    monkeypatch.setattr(connection, "ensure_connection", connection.ensure_connection)
    monkeypatch.setattr(MigrationExecutor, "migration_plan", gone)
    with pytest.raises(database.DatabaseUnavailable, match=r"^The database at \S+:\d+ does not answer: connection refused\nNext: "):
        database.keep_current(may_migrate=False)


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_fails_is_said_with_its_reason():
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")  # its table is there already
    try:
        with pytest.raises(database.DatabaseUnavailable, match=r'"django_session" already exists[\s\S]*migrate --traceback'):
            database.keep_current(may_migrate=True)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('sessions', '0001_initial', now())")


@pytest.mark.django_db
def test_a_current_database_is_left_alone(monkeypatch):
    monkeypatch.setattr("django.core.management.call_command", lambda *_, **__: pytest.fail("migrated"))
    database.keep_current(may_migrate=True)
