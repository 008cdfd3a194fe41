"""One process that starts and watches the rest: web server, workers, planner's clock and, for `demo`, the practice city.

What is decided here is decided by small pure functions (`is_stalled`, `back_off`); the rest only does it. Measured facts that
shaped it (django-q2 1.11.1): a worker killed at the wrong moment can leave the queue's lock held for ever, so a cluster whose
canary stays silent is killed whole; a cluster that gets two signals at once can hang, so it gets one, and SIGKILL later.
All hosts share the queue, and a canary is answered by whoever is first: that a host stalls while others answer is seen by its
taking nothing although messages wait.

Each child leads a session of its own: Ctrl-C in the terminal reaches only us, and everything that the child ever started can
be found and ended. If we are killed with no chance to act, the leash (a tiny process holding a pipe from us) does it.
"""

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from opendata_ops import database
from opendata_ops.bootstrap import PROJECT, folder_of_ours, lock_file, var_folder
from opendata_ops.sandbox.city import City

log = logging.getLogger(__name__)

TICK_SECONDS = 60
SWEEP_SECONDS = 3
STALL_SECONDS = 30  # so long may the canary be silent while a worker is free
GRACE_SECONDS = 18  # for children to end in good order; with the database's stop the whole ending stays under 30
HEALTHY_SECONDS = 60  # a child that lived so long has earned a fresh start without delay
LOG_BYTES = 20 * 2**20  # a child's log file is put aside at this size
HUNG_SECONDS = 180  # so long may one round of the planner take before a new clock takes over
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class CannotStart(Exception):
    """The supervisor refuses to start; the message says why and what to do."""


# ---------------------------------------------------------------- decisions


def back_off(failures: int) -> float:
    """Seconds to wait before a child is started again after so many failures in a row: 0.5, 1, 2, … at most 30."""
    return min(30.0, 0.5 * 2 ** max(0, failures - 1))


def is_stalled(pulse_age: float | None, busy: int, workers: int, watched: float) -> bool:
    """True when the queue has not answered for too long although a worker is free.

    `pulse_age`: seconds since the last answer, None = never; `busy`: workers with a block in hand; `watched`: seconds for which
    an answer could have been expected without a break (since the cluster started, a worker became free, the database was back).
    """
    silence = watched if pulse_age is None else min(pulse_age, watched)
    return busy < workers and silence > STALL_SECONDS


@dataclasses.dataclass
class PulseWatch:
    """Remembers since when the canary ought to have been answered; times are `time.monotonic()`."""

    workers: int
    since: float | None = None
    seen: float = 0.0

    def reset(self) -> None:
        """The cluster was started anew, or could not be watched for a while: begin to count again."""
        self.since = None

    def stalled(self, now: float, pulse_age: float | None, busy: int) -> bool:
        """Judge one observation. A gap between observations (database away, laptop asleep) excuses the silence in it."""
        if self.since is None or busy >= self.workers or now - self.seen > 4 * SWEEP_SECONDS:
            self.since = now
        self.seen = now
        return is_stalled(pulse_age, busy, self.workers, now - self.since)


# ---------------------------------------------------------------- children


def session_members(leader: int) -> list[psutil.Process]:
    """The living processes of a session, the zombies left out."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(pid) == leader and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def kill_session(leader: int) -> None:
    """SIGKILL for every process of a session, repeated until none is left: one may fork while we look."""
    for _ in range(50):
        members = session_members(leader)
        if not members:
            return
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)


def _follow(supervisor: int) -> None:
    """In the child, before exec: die with the supervisor."""
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died in the meantime
        os._exit(1)


class Child:
    """One program that we keep running. `log_path` None: it writes to our own stderr."""

    def __init__(self, name: str, command: Sequence[str], log_path: Path | None, env: dict[str, str], *, serves_others: bool = False):
        """`serves_others`: the rest may need it to come to a good end, so it is asked to end last."""
        self.name = name
        self.serves_others = serves_others
        self.command = list(command)
        self.log_path = log_path
        self.env = env
        self.process: subprocess.Popen | None = None
        self.failures = 0
        self.started_at = 0.0
        self.start_at = 0.0  # not before

    def start(self) -> None:
        """Start it now."""
        output = self.log_path.open("ab") if self.log_path else None
        supervisor = os.getpid()
        try:
            self.process = subprocess.Popen(
                self.command, env=self.env, cwd=PROJECT, stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr, stderr=subprocess.STDOUT, start_new_session=True,
                # Runs one prctl call between fork and exec: no lock of another thread can matter to it.
                preexec_fn=lambda: _follow(supervisor),
            )  # fmt: skip
        finally:
            if output:
                output.close()
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def has_ended(self) -> bool:
        """True once its main process is gone. Not reaped before its session is cleared: its number must not be re-used by then."""
        if self.process is None:
            return True
        if not hasattr(os, "waitid"):  # macOS
            return self.process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped already
            return True

    def clear(self) -> int:
        """End whatever is left of it, now; returns the exit code of its main process."""
        if self.process is None:
            return 0
        kill_session(self.process.pid)
        code = self.process.wait()
        self.process = None
        return code

    def ask_to_end(self) -> None:
        """One SIGTERM, to the main process only."""
        if self.process is not None and not self.has_ended():
            self.process.send_signal(signal.SIGTERM)


class Leash:
    """Ends our children if we are killed: a process that waits at a pipe for our end and knows their sessions."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self.told: list[int] = []

    def tell(self, leaders: list[int]) -> None:
        """Name the sessions that live now; starts the leash, or starts it again if somebody killed it."""
        alive = self.process is not None and self.process.poll() is None
        if alive and leaders == self.told:
            return
        if not alive:
            self._close()
            self.process = subprocess.Popen(
                # told by its very call: we may be killed before we could write a line
                [sys.executable, "-m", "opendata_ops.supervisor", json.dumps(leaders)],
                cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        else:
            self._write(leaders)
        self.told = list(leaders)

    def release(self) -> None:
        """All is ended in good order: nothing is left to do."""
        if self.process is not None:
            self._write([])
            self._close()

    def _write(self, leaders: list[int]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it was killed: the next round starts another
            self.process.stdin.write(json.dumps(leaders).encode() + b"\n")
            self.process.stdin.flush()

    def _close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait()
            self.process = None


def hold_leash(leaders: list[int]) -> None:
    """The leash's own program: remember these sessions, or the last line's; when the pipe closes, end them."""
    for request in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(request, signal.SIG_IGN)  # only the end of the supervisor ends it
    for line in sys.stdin:
        leaders = json.loads(line)
    for leader in leaders:
        kill_session(leader)


# ---------------------------------------------------------------- the clock


class Clock(threading.Thread):
    """Calls the planner: sweep and canary every few seconds, tick every minute, and asks how the queue's pulse is.

    Runs beside the main loop, so that a slow or lost database never delays a signal or a restart.
    """

    def __init__(self, workers: int):
        super().__init__(name="clock", daemon=True)
        self.ended = threading.Event()
        self.round_began = time.monotonic()
        self.stall: str = ""  # a reason to restart the workers, for the main loop to act on
        self.notes: list[str] = []  # restarts to be recorded once the database listens
        self._watch = PulseWatch(workers)
        self._own_watch = PulseWatch(workers)
        self._trouble = ""

    def new_cluster(self) -> None:
        """The workers were started (again)."""
        self._watch.reset()
        self._own_watch.reset()
        self.stall = ""

    def run(self) -> None:
        from django.db import connection

        from pipelines import planner

        next_tick = 0.0
        while not self.ended.is_set():
            self.round_began = time.monotonic()
            try:
                self.round(planner, tick=self.round_began >= next_tick)
            except Exception as error:
                # Whatever it was, the next round tries again; said once, not every three seconds.
                connection.close()
                if self._trouble != (trouble := f"{type(error).__name__}: {error}"):
                    self._trouble = trouble
                    log.exception("The planner's round failed; trying again every %d s", SWEEP_SECONDS)
            else:
                if self._trouble:
                    log.warning("The planner works again")
                    self._trouble = ""
                if self.round_began >= next_tick:
                    next_tick = self.round_began + TICK_SECONDS
            self.ended.wait(SWEEP_SECONDS)
        connection.close()

    def round(self, planner, *, tick: bool) -> None:
        """One round; `planner` is the module pipelines.planner or what stands for it in a test."""
        while self.notes:
            planner.note_restart(self.notes[0])
            self.notes.pop(0)
        if tick:
            planner.tick()
        planner.sweep()
        planner.ring_canary()
        busy = planner.busy_workers()
        age, own_age = planner.pulse_age(), planner.host_age()
        now, workers = time.monotonic(), self._watch.workers
        # without a message that waits, nothing could have been taken: as good an excuse as being busy
        takes_nothing = self._own_watch.stalled(now, own_age, busy if planner.messages_wait() else workers)
        if self._watch.stalled(now, age, busy):
            self.stall = f"The queue last answered {_ago(age)}, although only {busy} of {workers} workers are busy"
        elif takes_nothing:
            self.stall = f"Messages wait, and this host last took one {_ago(own_age)}, although only {busy} of {workers} workers are busy"


def _ago(age: float | None) -> str:
    return "never" if age is None else f"{age:.0f} s ago"


# ---------------------------------------------------------------- the supervisor


class Supervisor:
    """Starts children, keeps them running, ends them. Use from the main thread, once, as a context manager."""

    def __init__(self, *, workers: int, logs: Path | None, env: dict[str, str] | None = None, grace: float = GRACE_SECONDS):
        """`logs`: the folder for the children's log files, None = they write to our stderr."""
        self.workers = workers
        self.logs = logs
        self.grace = grace
        self.env = {**os.environ, **(env or {}), "ODO_SUPERVISOR_PID": str(os.getpid())}
        self.children: list[Child] = []
        self.clock: Clock | None = None
        self.asked_to_end = 0  # how many times
        self._leash = Leash()
        self._wake, self._waker = socket.socketpair()
        self._database_url = database.url(start=False)
        self._next_look = 0.0
        self._signalled_at = 0.0

    def __enter__(self) -> "Supervisor":
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._before = {request: signal.signal(request, self._on_signal) for request in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # a child's end wakes us too
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *problem) -> None:
        try:
            self.end()
        finally:
            signal.set_wakeup_fd(self._wakeup_before)
            for request, handler in self._before.items():
                signal.signal(request, handler)
            self._wake.close()
            self._waker.close()

    def _on_signal(self, number: int, frame) -> None:
        now = time.monotonic()
        if now - self._signalled_at > 0.5:  # a terminal and a runner may both pass on one wish
            self.asked_to_end += 1
        self._signalled_at = now

    # ---- starting

    def add(self, name: str, command: Sequence[str], *, log_path: Path | None = None, serves_others: bool = False) -> Child:
        """Start a program and keep it running from now on."""
        path = log_path or (self.logs / f"{name}.log" if self.logs else None)
        child = Child(name, command, path, self.env, serves_others=serves_others)
        child.start()
        self.children.append(child)
        self._leash.tell(self._sessions())
        return child

    def start_clock(self) -> None:
        """Begin to plan, sweep and watch the pulse."""
        self.clock = Clock(self.workers)
        self.clock.start()

    def _sessions(self) -> list[int]:
        return [child.pid for child in self.children if child.pid]

    # ---- watching

    def watch(self) -> None:
        """Keep everything running until somebody asks us to end."""
        self.wait_for(lambda: False)

    def stop_here_if_asked(self) -> None:
        """For the way up: raises KeyboardInterrupt when somebody asked us to end in the meantime."""
        if self.asked_to_end:
            raise KeyboardInterrupt

    def wait_for(self, condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Watch until the condition holds; False when the time is over or when we were asked to end."""
        deadline = time.monotonic() + seconds
        while not self.asked_to_end and time.monotonic() < deadline:
            if condition():
                return True
            self._look_after_children()
            self._sleep(0.1 if seconds < float("inf") else 1.0)
        return False

    def _sleep(self, seconds: float) -> None:
        """Until a signal (a child's end is one) or the time is over."""
        if select.select([self._wake], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(1024)

    def _look_after_children(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and child.has_ended():
                lived = now - child.started_at
                code = child.clear()
                child.failures = 1 if lived > HEALTHY_SECONDS else child.failures + 1
                child.start_at = now + back_off(child.failures)
                log.error("%s ended (%s) after %.0f s; starting it again in %.1f s", child.name, _meaning(code), lived, back_off(child.failures))
                if child.name == "workers" and self.clock:
                    self.clock.notes.append(f"The workers ended: {_meaning(code)}")
            elif child.process is None and now >= child.start_at:
                self._start_again(child)
        self._leash.tell(self._sessions())
        if now < self._next_look:
            return
        self._next_look = now + 2
        self._look_after_clock(now)
        self._look_after_database()
        for child in self.children:
            _put_aside(child.log_path)

    def _start_again(self, child: Child) -> None:
        child.start()
        if child.name == "workers" and self.clock:
            self.clock.new_cluster()

    def _look_after_clock(self, now: float) -> None:
        if self.clock is None:
            return
        if now - self.clock.round_began > HUNG_SECONDS:
            log.error("The planner's round has not come back for %d s; a new clock takes over", HUNG_SECONDS)
            self.clock.ended.set()
            self.start_clock()
        elif self.clock.stall:
            reason = self.clock.stall
            log.error("%s; restarting the workers", reason)
            self.clock.notes.append(reason)
            for child in self.children:
                if child.name == "workers":
                    child.clear()
                    self._start_again(child)

    def _look_after_database(self) -> None:
        """The embedded server is ours to keep alive; another one is not."""
        if not database.is_embedded() or database.is_alive():
            return
        log.error("PostgreSQL is gone; starting it again")
        try:
            database.start()
        except database.DatabaseUnavailable as error:
            log.error("%s", error)
        if database.url(start=False) != self._database_url:
            log.error("Another program has taken the database's port, so its address is new: start this command again")
            self.asked_to_end += 1

    # ---- ending

    def end(self) -> None:
        """End all in good order within the grace period, then by force; a second request ends the patience at once."""
        if self.clock:
            self.clock.ended.set()
        patience, asked = time.monotonic() + self.grace, self.asked_to_end
        # Blocks that still run may need the practice city until they have come to their next stop.
        for wave in ([child for child in self.children if not child.serves_others], [c for c in self.children if c.serves_others]):
            for child in wave:
                child.ask_to_end()
            while any(not child.has_ended() for child in wave):
                if time.monotonic() > patience or self.asked_to_end > min(1, asked):
                    break
                self._sleep(0.1)
        for child in self.children:
            child.clear()
        self._leash.release()


def _meaning(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _put_aside(path: Path | None) -> None:
    """A log that grew too large becomes `name.log.1`; the writer keeps its open file, which starts again at nothing."""
    with contextlib.suppress(FileNotFoundError):
        if path and path.stat().st_size > LOG_BYTES:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


# ---------------------------------------------------------------- `demo` and `up`


@dataclasses.dataclass(frozen=True)
class Options:
    """What `demo` and `up` were asked for."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 2
    practice: bool = False
    fresh: bool = False  # empty the practice city first
    run_at_once: bool = True  # ask for the main job as soon as all is up
    log_console: bool = False  # the children's log lines here instead of in var/log

    @property
    def address(self) -> str:
        """Where a person on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """True when only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


PRACTICE_ADDRESS = "practice.json"  # in var/; settings read it, too
PRACTICE_PORTS = City.PORTS  # of its servers, one after the other
PRACTICE_STATE = "practice-portal"  # in var/: what was published there
PRACTICE_SENSORS = "practice-sensors"  # in var/: what its traffic sensors drop
#: Written on the database (as its comment), so that nobody mistakes one kind of city for the other.
PRACTICE_MARK = "Open Data Ops practice city: everything in it is invented, its passwords are public"


def serve(options: Options, announce: Callable[[str], None]) -> int:
    """Run the whole city until Ctrl-C or SIGTERM; returns the exit code. Raises CannotStart and DatabaseUnavailable.

    `announce` gets the few lines that a person should see.
    """
    from django.conf import settings

    from opendata_ops.sandbox import city

    with contextlib.suppress(KeyboardInterrupt), only_one(options):
        database.start()
        if options.fresh:
            start_over()
        _respect_the_city(options)
        collect_static()
        env = {"WORKERS": str(options.workers)}
        if options.is_private and "HTTPS_ONLY" not in os.environ:
            env["HTTPS_ONLY"] = "false"  # a loopback address has no certificate, and needs none
        if options.practice:
            # the page tells whose city it is, in that city's own time
            env |= {"CITY_NAME": city.NAME, "TIME_ZONE": city.ZONE, "ENVIRONMENT": "practice"}
        settings.WORKERS = options.workers  # our own clock rings for as many as there are
        logs = folder_of_ours(var_folder(PROJECT) / "log", 0o700)
        with Supervisor(workers=options.workers, logs=None if options.log_console else logs, env=env) as supervisor:
            supervisor.add("web", web_command(options))
            log_ins = []
            if options.practice:
                from opendata_ops import practice

                log_ins = practice.create(*_start_practice_city(supervisor, options, logs / "practice-city.log"))
            supervisor.add("workers", [sys.executable, str(PROJECT / "manage.py"), "qcluster"])
            supervisor.start_clock()
            if not supervisor.wait_for(lambda: web_answers(options), 90):
                supervisor.stop_here_if_asked()
                raise CannotStart(f"The web server does not answer at {options.address}.\n{_tail(logs / 'web.log')}")
            announce(welcome(options, log_ins))
            if options.practice and options.run_at_once:
                practice.start()
            supervisor.watch()
    return 0


@contextlib.contextmanager
def only_one(options: Options):
    """Hold this project's place and make sure of the port. Raises CannotStart."""
    path = var_folder(PROJECT) / "supervisor.lock"
    fd = lock_file(path)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"Open Data Ops already runs from this folder: {path.read_text().strip()}. Stop that one first (Ctrl-C there).\n"
                f"For a second city, clone the project into another folder and give it another port: --port {options.port + 1}"
            ) from None
        if not _port_is_free(options.host, options.port):
            raise CannotStart(f"Port {options.port} on {options.host} is taken. Choose another, for example: --port {options.port + 1}")
        path.write_text(f"{options.address} (process {os.getpid()})\n")
        yield
    finally:
        os.close(fd)


def _port_is_free(host: str, port: int, patience: float = 3) -> bool:
    """Whether we could listen there; waits a little for a city that is just ending."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + patience
    while True:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise CannotStart(f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port.") from error
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.2)
            else:
                return True


def start_over() -> None:
    """Empty the practice city: the embedded database, and the lake and the portal under `var/`, nothing else. Raises CannotStart.

    A database that holds providers and does not carry the practice mark is somebody's real city, and stays.
    """
    from django.conf import settings
    from django.db import connections

    if not database.is_embedded():
        raise CannotStart("--fresh empties only the embedded database; DATABASE_URL names another server.")
    if holds_a_real_city():
        raise CannotStart("The database holds a real city, not the practice one: --fresh will not empty it.")
    lake = Path(settings.LAKE_URL)
    if not lake.resolve().is_relative_to((PROJECT / "var").resolve()):
        raise CannotStart(f"--fresh deletes only a lake under {PROJECT / 'var'}; LAKE_URL is {settings.LAKE_URL}.")
    connections.close_all()
    database.start_over()
    for folder in (lake, *(PROJECT / "var" / name for name in (PRACTICE_STATE, PRACTICE_SENSORS))):
        if folder.exists():
            shutil.rmtree(folder)
    database.keep_current(may_migrate=True)


def holds_a_real_city() -> bool:
    """True when there are providers in the database, and it does not carry the practice mark."""
    from pipelines.models import Provider

    return _mark() != PRACTICE_MARK and Provider.objects.exists()


def _respect_the_city(options: Options) -> None:
    """Invented data stay out of a real city's database, and public passwords off the network. Raises CannotStart."""
    from django.db import connection

    if not options.practice:
        if _mark() == PRACTICE_MARK and not options.is_private:
            raise CannotStart(
                "This database holds the practice city, whose passwords are public: it is not offered to the network.\n"
                "Clone the project anew for the real city, or set DATABASE_URL."
            )
        return
    if holds_a_real_city():
        raise CannotStart(
            "This database holds a real city; the practice city does not belong in it.\n"
            "Start the real one with: python3 manage.py up; for practice, clone the project into another folder."
        )
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"COMMENT ON DATABASE {name} IS %s", [PRACTICE_MARK])


def _mark() -> str:
    """The comment on our database, or an empty string."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()")
        return cursor.fetchone()[0] or ""


def collect_static() -> None:
    """Collect the static files when any of them changed since the last time."""
    from django.contrib.staticfiles.finders import get_finders
    from django.core.management import call_command

    files = sorted(
        (path, (at := Path(storage.path(path)).stat()).st_size, at.st_mtime_ns) for finder in get_finders() for path, storage in finder.list([])
    )
    stamp = hashlib.sha256(repr(files).encode()).hexdigest()
    path = var_folder(PROJECT) / "static.stamp"
    if path.exists() and path.read_text() == stamp:
        return
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    path.write_text(stamp)


def web_command(options: Options) -> list[str]:
    """How gunicorn is called."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return [
        sys.executable, "-m", "gunicorn", "opendata_ops.wsgi:application", "--bind", f"{host}:{options.port}",
        "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--graceful-timeout", "10",
        # Its control socket would lie in the home folder, outside of what is ours.
        "--no-control-socket",
    ]  # fmt: skip


def web_answers(options: Options) -> bool:
    """True when /healthz gives any answer: what is not healthy yet is shown on the page itself."""
    try:
        connection = http.client.HTTPConnection(urlsplit(options.address).netloc, timeout=5)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return True


def welcome(options: Options, log_ins: Sequence[tuple[str, str, str]]) -> str:
    """The few lines that a person sees when all is up; `log_ins`: (role, user name, password)."""
    kind = "practice city" if options.practice else "city"
    lines = ["", f"  Open Data Ops, {kind}: {options.address}", ""]
    if log_ins:
        lines += [f"    {role:<10}{user:<12}{password}" for role, user, password in [("role", "log in as", "password"), *log_ins]] + [""]
    if not options.practice and not _has_users():
        lines += ["  Nobody can log in yet. In another terminal: python3 manage.py createsuperuser", ""]
    return "\n".join([*lines, "  Logs: var/log   End: Ctrl-C", ""])


def _has_users() -> bool:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.exists()


def _practice_port(options: Options) -> int:
    """The first of the practice city's ports. Kept from one start to the next: settings and stored providers name it."""
    path = var_folder(PROJECT) / PRACTICE_ADDRESS
    with contextlib.suppress(FileNotFoundError, ValueError):
        told = json.loads(path.read_text())
        port = told["port"]
        if told.get("ports") == PRACTICE_PORTS and all(_port_is_free("127.0.0.1", port + place) for place in range(PRACTICE_PORTS)):
            return port
    groups = (range(port, port + PRACTICE_PORTS) for port in range(options.port + 1, 65535 - PRACTICE_PORTS))
    port = next(group[0] for group in groups if all(_port_is_free("127.0.0.1", port, patience=0) for port in group))
    path.write_text(json.dumps({"port": port, "ports": PRACTICE_PORTS}))
    return port


def _start_practice_city(supervisor: Supervisor, options: Options, log_path: Path) -> tuple[str, ...]:
    """Start the practice city; returns what `practice.create` wants to know of it once all its servers listen. Raises CannotStart."""
    from django.conf import settings

    port = _practice_port(options)
    for ours in (f"127.0.0.1:{port + place}" for place in range(PRACTICE_PORTS)):
        if ours not in settings.OUTBOUND_ALLOW:  # the children read the file that names the port; we read settings before it was there
            settings.OUTBOUND_ALLOW.append(ours)
    began_at = log_path.stat().st_size if log_path.exists() else 0
    state, sensors = PROJECT / "var" / PRACTICE_STATE, PROJECT / "var" / PRACTICE_SENSORS
    command = [sys.executable, "-m", "opendata_ops.sandbox", "--port", str(port), "--state", str(state), "--sensors", str(sensors), "--alive"]
    supervisor.add("practice-city", command, log_path=log_path, serves_others=True)

    def ready() -> dict[str, str]:
        with log_path.open(errors="replace") as file:
            file.seek(began_at)
            return {words[1]: words[2] for line in file if (words := line.split())[:1] == ["ready"]}

    if not supervisor.wait_for(lambda: {"source", "portal", "scooters", "sensors", "files", "maps", "ckan"} <= set(ready()), 30):
        supervisor.stop_here_if_asked()
        raise CannotStart(f"The practice city does not start.\n{_tail(log_path)}")
    told = ready()
    return told["source"], told["portal"], told["scooters"], told["sensors"], str(sensors), told["files"], told["maps"], told["ckan"]


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()[-12:] if path.exists() else []
    return "\n".join("  " + line for line in lines)


if __name__ == "__main__":
    hold_leash(json.loads(sys.argv[1]))
