"""From a bare Python to a running command: the environment, the programs for the tests, the database, then Django.

Only the standard library is imported at the top: this file runs before the environment exists.
`manage.py` calls `main`; the order is always the same: environment, then (for `test`) pytest, else database, then Django.
"""

import collections
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
STAMP = ".opendata_ops"  # inside .venv: what was installed, and with which Python

# Commands that never touch the database: they must work on a machine where none can be started.
WITHOUT_DATABASE = {
    "check", "collectstatic", "compilemessages", "diffsettings", "findstatic", "help", "makemessages", "startapp", "startproject",
    "test", "version",
}  # fmt: skip
# Commands that look at or change migrations: they need the server, and must find the schema as it is.
SCHEMA_AS_IT_IS = {
    "dbshell", "makemigrations", "migrate", "optimizemigration", "showmigrations", "sqlmigrate", "squashmigrations",
}  # fmt: skip
# Commands that look for what is wrong: a database that does not answer is one of their findings.
FINDS_FAULTS = {"doctor"}
# Commands that a person starts to run the city: they may bring a database of `DATABASE_URL` up to date.
MAY_MIGRATE_ANY = {"demo", "up"}


class BootstrapError(Exception):
    """The environment cannot be made; the message says what is missing and what to do."""


class Program(NamedTuple):
    """A program that some tests need and pip cannot bring."""

    name: str
    commands: tuple[str, ...]  # any one of these on the PATH will do
    packages: tuple[str, ...]  # what Debian and Ubuntu call it
    serves: str  # what is skipped without it


# One line for each; tests ask for them by name: `@pytest.mark.needs("chromium")`.
PROGRAMS = (
    Program("chromium", ("chromium", "chromium-browser"), ("chromium", "chromium-driver"), "the tests in a browser"),
    Program("mariadb", ("mariadb-install-db", "mariadbd"), ("mariadb-server",), "the tests on MariaDB"),
    Program("redis", ("redis-server",), ("redis-server", "libmagic1"), "the tests on a real CKAN"),
)


def main(argv: Sequence[str]) -> int:
    """Run one command line (`argv[0]` is manage.py) and return its exit code; may replace this process on the way."""
    testing = argv[1:2] == ["test"]
    try:
        enter_environment(PROJECT, argv, dev=testing)
    except BootstrapError as error:
        print(error, file=sys.stderr)
        return 2
    if testing:
        run_tests(PROJECT, argv[2:])

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opendata_ops.settings")
    from django.core.management import execute_from_command_line

    from opendata_ops import database

    need = database_need(argv)
    try:
        if need != "none":
            database.start()
        if need == "current":
            import django

            django.setup()
            database.keep_current(may_migrate=database.is_embedded() or argv[1] in MAY_MIGRATE_ANY)
    except database.DatabaseUnavailable as error:
        if "--traceback" in argv:
            raise
        say(str(error))
        if argv[1] not in FINDS_FAULTS:
            if "--json" in argv:
                # a script reads one object, whatever happened; the command itself was never reached
                print(json.dumps({"error": error.message, "next_step": error.next_step}, indent=2))
            return 2
    try:
        execute_from_command_line(list(argv))
    except KeyboardInterrupt:
        return 130  # what a shell expects of a program ended by Ctrl-C; a traceback would say nothing more
    return 0


def database_need(argv: Sequence[str]) -> str:
    """What a command line asks of the database: "none", "server" (running, schema untouched) or "current" (and migrated)."""
    words = argv[1:]
    if not words or words[0].startswith("-") or {"--help", "-h", "--version"} & set(words):
        return "none"
    if words[0] == "check" and any(word.startswith("--database") for word in words):
        return "server"
    if words[0] in WITHOUT_DATABASE:
        return "none"
    return "server" if words[0] in SCHEMA_AS_IT_IS else "current"


# ---------------------------------------------------------------- the environment


def enter_environment(project: Path, argv: Sequence[str], *, dev: bool) -> None:
    """Return when this Python holds the requirements; otherwise make `.venv` and start again inside it (does not return).

    Raises BootstrapError when `.venv` cannot be made.
    """
    if os.environ.get("ODO_NO_BOOTSTRAP") == "1":
        return
    venv = project / ".venv"
    inside = Path(sys.prefix).resolve() == venv.resolve()
    entered = os.environ.pop("ODO_ENTERED", None)  # not for our children: they may be started with another Python
    if inside and is_ready(project, dev=dev):
        return
    # A container or a person's own environment that already holds every pin is as good as ours.
    if not inside and sys.prefix != sys.base_prefix and satisfies(wanted(project, dev=dev)):
        return
    if not inside and not venv.exists() and satisfies(wanted(project, dev=dev)):
        return
    if not is_ready(project, dev=dev):
        with held(var_folder(project) / "environment.lock"):
            if not is_ready(project, dev=dev):  # another process may have made it while we waited
                make_environment(project, dev=dev)
    elif entered == str(venv):
        raise BootstrapError(f"{venv}/bin/python does not start in its own environment; delete {venv} and try again.")
    os.environ["ODO_ENTERED"] = str(venv)
    os.environ.pop("__PYVENV_LAUNCHER__", None)  # macOS: it would point the new Python at the old environment
    python = str(venv / "bin" / "python")
    sys.stdout.flush()
    os.execv(python, [python, str(project / "manage.py"), *argv[1:]])  # noqa: S606  the same command, in the environment


def requirement_files(project: Path, *, dev: bool) -> list[Path]:
    """The files that say what must be installed."""
    return [project / "requirements.txt"] + ([project / "requirements-dev.txt"] if dev else [])


def wanted(project: Path, *, dev: bool) -> dict[str, str]:
    """name → exact version, of every pin."""
    pins = {}
    for path in requirement_files(project, dev=dev):
        for line in path.read_text().splitlines():
            if pin := re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", line):
                pins[pin[1]] = pin[2]
    return pins


def satisfies(pins: dict[str, str]) -> bool:
    """True when this very Python has each package in exactly that version; stops at the first that is missing."""
    try:
        return all(importlib.metadata.version(name) == version for name, version in pins.items())
    except importlib.metadata.PackageNotFoundError:
        return False


def fingerprint(project: Path, *, dev: bool) -> str:
    """Changes when a requirement changes or when the Python behind `.venv` is another one (a system upgrade)."""
    digest = hashlib.sha256()
    for path in requirement_files(project, dev=dev):
        digest.update(path.read_bytes())
    digest.update(os.path.realpath(project / ".venv" / "bin" / "python").encode())
    return digest.hexdigest()


def is_ready(project: Path, *, dev: bool) -> bool:
    """True when `.venv` was completed for today's requirements."""
    stamp = project / ".venv" / STAMP
    if not os.access(project / ".venv" / "bin" / "python", os.X_OK):
        return False
    return stamp.exists() and fingerprint(project, dev=dev) in stamp.read_text().split()


def make_environment(project: Path, *, dev: bool) -> None:
    """Create `.venv` when there is no usable one, install the pins, and stamp it last, so that a half-made one is made again.

    Raises BootstrapError with what pip or venv said.
    """
    venv = project / ".venv"
    python = venv / "bin" / "python"
    if not _starts(python):
        say(f"Making the Python environment in {venv} (once; a minute or two) …")
        base = getattr(sys, "_base_executable", None) or sys.executable
        made = subprocess.run([base, "-m", "venv", "--clear", str(venv)], check=False, capture_output=True, text=True)
        if made.returncode or not _starts(python):
            raise BootstrapError(
                f"{base} cannot make a virtual environment with pip.\n"
                "On Debian and Ubuntu: apt-get install python3-venv; then start the same command again.\n"
                + _tail((made.stdout + made.stderr).splitlines())
            )
    else:
        say("Bringing the Python environment up to date …")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    _install([*pip, "-r", str(requirement_files(project, dev=dev)[-1])], total=len(wanted(project, dev=dev)))
    lines = {fingerprint(project, dev=False)} | ({fingerprint(project, dev=True)} if dev else set())
    (venv / STAMP).write_text("\n".join(sorted(lines)) + "\n")


def _starts(python: Path) -> bool:
    """True when this Python runs, has pip, and finds its own library (a system upgrade can take it away)."""
    try:
        return subprocess.run([str(python), "-c", "import pip"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _install(command: list[str], *, total: int) -> None:
    """Run pip quietly: a counter on a terminal, its last lines when it fails."""
    said: collections.deque[str] = collections.deque(maxlen=30)
    collected = 0
    counting = sys.stderr.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
        for line in pip.stdout:
            said.append(line.rstrip())
            if line.startswith("Collecting "):
                collected += 1
                if counting:
                    print(f"\r  {collected} of {total} packages", end="", file=sys.stderr, flush=True)
    if counting and collected:
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    if pip.returncode:
        raise BootstrapError(
            "pip could not install the requirements. Its last words:\n"
            + _tail(said)
            + "\nCheck the network, or point pip at your own index (PIP_INDEX_URL), and start the same command again."
        )


def _tail(lines: Sequence[str]) -> str:
    return "\n".join("  " + line for line in list(lines)[-15:])


def say(sentence: str) -> None:
    """To stderr: stdout belongs to the command (it may be printing JSON)."""
    print(sentence, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the tests


def run_tests(project: Path, arguments: Sequence[str]) -> NoReturn:
    """Bring what the tests need where we may, say what will be skipped, and become pytest."""
    os.chdir(project)  # pytest finds its configuration and its tests from here, wherever we were called
    for program in PROGRAMS:
        if missing(program) and may_install():
            _apt_install(program)
        if missing(program):
            say(f"{program.name} is not installed: {program.serves} will be skipped.")
    if not arguments:
        # the whole suite: a process a core and one more, for they wait for servers; each with a database and a lake of its own
        arguments = ["-n", str(min((os.cpu_count() or 1) + 1, 5)), "--dist", "worksteal"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])  # noqa: S606  pytest takes our place


def missing(program: Program) -> bool:
    """True when none of its commands is on the PATH."""
    return not any(shutil.which(command) for command in program.commands)


def may_install() -> bool:
    """True on Debian and Ubuntu as root: there, and only there, `test` installs programs."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def _apt_install(program: Program) -> None:
    """Try once; a failure is said and leaves the decision to the tests (skipped here, failed in CI)."""
    say(f"Installing {', '.join(program.packages)} for {program.serves} …")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *program.packages]):
        done = subprocess.run(command, check=False, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            say(f"`{' '.join(command)}` failed:\n{_tail((done.stdout + done.stderr).splitlines())}")
            return


# ---------------------------------------------------------------- folders and locks, shared with database.py


def var_folder(project: Path) -> Path:
    """The project's own folder for what it makes. Under root the database's user must pass through, and may see no more."""
    return folder_of_ours(project / "var", 0o711 if os.geteuid() == 0 else 0o700)


def folder_of_ours(path: Path, mode: int) -> Path:
    """Make a folder with exactly this mode, whatever the umask; one that exists keeps the mode it has."""
    try:
        path.mkdir()
        path.chmod(mode)
        keep_owner(path)
    except FileExistsError:
        pass
    return path


def keep_owner(path: Path) -> None:
    """What root makes in another person's checkout belongs to that person, or they could not start it again."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        if owner.st_uid != path.stat().st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)


def lock_file(path: Path) -> int:
    """Open a file that only serves to be locked; returns its descriptor, which the caller closes."""
    fd = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    keep_owner(path)
    return fd


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file for the length of a block; it falls by itself if this process dies."""
    fd = lock_file(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
