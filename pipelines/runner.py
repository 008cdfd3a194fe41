"""The runner: claims a block, lets a child process do the stage, keeps the lease meanwhile, and decides what a failure means.

A stage runs in a process of its own, with a deadline, a memory limit and a process group: what crashes, hangs or is
cancelled is the child, never the worker. The child dies with its parent. Only this module catches what stages raise.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, connections
from django.dispatch import Signal
from django.utils import timezone

from pipelines import blocks, secrets, stages, warehouse
from pipelines.blocks import Counts, Outcome
from pipelines.errors import DataError, LeaseLost, NotReady, PermanentError, PipelineError, SetupError, TransientError
from pipelines.models import LogLine, Run, ScheduleBlock, Stage, State
from pipelines.stages.note import Note

log = logging.getLogger(__name__)

#: What a child may report; anything else that it raises is a fault of the program.
KINDS = {kind.__name__: kind for kind in (TransientError, NotReady, PermanentError, SetupError, DataError)}
#: When the control database is away for longer than this, the lease is as good as lost: the stage is stopped.
PATIENCE_SECONDS = settings.LEASE_SECONDS * 0.8
#: So long a claim and the record of an end wait for it: a restart takes seconds, and what a stage did should not be done twice.
OUTAGE_SECONDS = 60
OUR_FAULT = "This is a fault of the program: report the log of this run."
PR_SET_PDEATHSIG = 1

#: Sent with `block_ids` when blocks were worked off and no stage of them runs here any more: what walks behind (perfmet) may look at
#: their runs now. A receiver that fails fails alone. Who is stopped or killed before sends nothing, so nobody may rely on it alone.
after_work = Signal()

Answer = TypeVar("Answer")


def holder() -> str:
    """Who claims: host, process and thread, as the page shows it."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_native_id()}"[:120]


def work(block_id: int) -> str:
    """Work one block off as far as it goes now: the answer to a ring. Returns what became of it, in a few words."""
    [result] = work_off([block_id], workers=1, waits_for_room=False)
    return result.text


@dataclass(frozen=True)
class Result:
    """What became of a block: its state now, and the words for it."""

    block_id: int
    state: str
    text: str


def work_off(
    block_ids: Iterable[int],
    *,
    workers: int,
    waits_for_room: bool = True,
    on_step: Callable[[Run, ScheduleBlock | None, tuple[int, int | None]], None] = lambda run, block, progress: None,
) -> list[Result]:
    """Run blocks until each is done, failed, held or has to wait; `workers` at once, in the order given.

    `on_step` hears of each heartbeat (block None) and each end of a stage. With `waits_for_room` a block that only lacks
    room at its provider is asked again; without, it is left to the next ring.
    """
    pending = list(dict.fromkeys(block_ids))
    going: list[Attempt] = []
    results: dict[int, Result] = {}
    try:
        while pending or going:
            for block_id in list(pending):
                if len(going) >= workers:
                    break
                if run := _patiently(blocks.claim, block_id, holder=holder()):
                    pending.remove(block_id)
                    if attempt := _begun(run):
                        going.append(attempt)
                    else:
                        results[block_id] = _result(_patiently(_block, block_id))
                elif (result := _patiently(_left_alone, block_id)) or not waits_for_room:
                    pending.remove(block_id)
                    results[block_id] = result or Result(block_id, State.WAITING, "waits for room at its provider")
            _wait(going)
            for attempt in list(going):
                block = attempt.step()
                on_step(attempt.run, block, attempt.progress)
                if block is None:
                    continue
                going.remove(attempt)
                # asked of the database: this host's clock may be behind it, and then no stage would ever follow another
                if block.state == State.WAITING and _patiently(blocks.is_due, block.pk):
                    pending.insert(0, block.pk)
                else:
                    results[block.pk] = _result(block)
    except BaseException as stop:
        # a time-out, Ctrl-C or the queue's SystemExit: the blocks go back at once instead of waiting for their leases
        for attempt in going:
            attempt.give_back(stop)
        raise
    after_work.send_robust(sender=None, block_ids=list(results))
    return [results[block_id] for block_id in results]


def _patiently(ask: Callable[..., Answer], *args, **kwargs) -> Answer:
    """What `ask` answers, through a short absence of the control database. Raises OperationalError or InterfaceError after a long one."""
    until = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return ask(*args, **kwargs)
        except (OperationalError, InterfaceError):
            connections.close_all()
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _block(block_id: int) -> ScheduleBlock:
    return ScheduleBlock.objects.select_related("pipeline").get(pk=block_id)


def _result(block: ScheduleBlock) -> Result:
    return Result(block.pk, block.state, block.message or block.get_state_display())


def _begun(run: Run) -> Attempt | None:
    """The attempt of a claimed run; None when this host could not even start it, which is recorded."""
    try:
        return Attempt(run)
    except OSError as error:
        refused = TransientError(f"{socket.gethostname()} could not start {run.stage}: {error}", code="worker-unable")
        with contextlib.suppress(LeaseLost):
            _patiently(blocks.fail, run, refused)
        return None


def _left_alone(block_id: int) -> Result | None:
    """Why a block that can't be claimed needs no further asking; None when it only waits for room."""
    block = ScheduleBlock.objects.select_related("pipeline__provider", "pipeline__portal").filter(pk=block_id).first()
    if block is None:
        return Result(block_id, "", f"there is no block {block_id} any more")
    if block.state != State.WAITING:
        return Result(block_id, block.state, f"somebody else moved it: it is {block.state}")
    if not blocks.is_due(block_id):
        return Result(block_id, block.state, block.message or f"not due before {block.due_at:%Y-%m-%d %H:%M} UTC")
    asked = block.pipeline.portal if block.stage == "publish" else block.pipeline.provider
    if asked and asked.blocked_until and asked.blocked_until > timezone.now():
        return Result(block_id, block.state, f"{asked.title} asked us to wait until {asked.blocked_until:%Y-%m-%d %H:%M:%S} UTC")
    return None


def _wait(going: list[Attempt]) -> None:
    """Sleep until a child says something, a second at the most."""
    select.select([attempt.ears for attempt in going], [], [], settings.HEARTBEAT_SECONDS)


class Attempt:
    """A stage that runs in a child process. `step` it at least once a heartbeat until it returns the block."""

    def __init__(self, run: Run):
        self.run = run
        self.progress: tuple[int, int | None] = (0, None)
        self.workdir = Path(settings.WORK_DIR) / f"run-{run.pk}"
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.message: dict | None = None
        self._heard = b""
        self.seconds = min(run.block.pipeline.deadline_minutes * 60, settings.MAX_STAGE_SECONDS)
        self.deadline = time.monotonic() + self.seconds
        self._beaten = time.monotonic()
        self.ears, self.pid = self._fork()

    def _fork(self) -> tuple[int, int]:
        ears, mouth = os.pipe()
        parent = os.getpid()
        # a connection must not be shared with the child: each opens its own
        if not connection.in_atomic_block:
            connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            os.close(mouth)
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(pid, pid)
            os.set_blocking(ears, False)
            return ears, pid
        try:
            os.close(ears)
            _become_child(parent)
            _child(self.run, self.workdir, mouth)
        finally:
            # never back into the worker's own code, whatever happened
            os._exit(1)

    def step(self) -> ScheduleBlock | None:
        """Hear the child, keep the lease, and close the run when it has ended. None while it goes on."""
        if self._listen():
            return self._ended()
        try:
            if time.monotonic() >= self.deadline:
                self._kill()
                words = f"{self.run.stage} took longer than {self.seconds / 60:g} minutes and was stopped."
                return self._close(blocks.crash, self.run, words, code="deadline")
            if time.monotonic() - self._beaten >= settings.HEARTBEAT_SECONDS and self._renew():
                self._kill()
                return self._stopped()
        except LeaseLost:
            return self._lost()
        return None

    def _listen(self) -> bool:
        """Read what the child said; True when it has closed its mouth."""
        while True:
            try:
                piece = os.read(self.ears, 65536)
            except BlockingIOError:
                return False
            if not piece:
                return True
            *lines, self._heard = (self._heard + piece).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "progress" in said:
                    self.progress = tuple(said["progress"])
                else:
                    self.message = said

    def _renew(self) -> bool:
        """Keep the lease; True when a cancel was asked. A database that is away is forgiven until the lease would be over."""
        try:
            asked = blocks.renew(self.run, done=self.progress[0], total=self.progress[1])
        except (OperationalError, InterfaceError) as error:
            connections.close_all()
            if time.monotonic() - self._beaten > PATIENCE_SECONDS:
                raise LeaseLost("the control database has been away for too long") from error
            return False
        self._beaten = time.monotonic()
        return asked

    def _ended(self) -> ScheduleBlock:
        _, status, usage = os.wait4(self.pid, 0)
        self.pid = 0
        if self.message is None:
            return self._close(blocks.crash, self.run, _obituary(self.run, status))
        return self._conclude(self.message, {"peak_memory_mb": usage.ru_maxrss // 1024})

    def _conclude(self, said: dict, more: dict) -> ScheduleBlock:
        """Record what the child said that became of it, with `more` details."""
        if "done" in said:
            details = {**said["done"]["details"], **more}
            outcome = Outcome(**{**said["done"], "counts": Counts(**said["done"]["counts"]), "details": details})
            return self._close(blocks.advance, self.run, outcome)
        if "lost" in said:
            return self._lost()
        error = KINDS[said["kind"]](said["message"], code=said["code"], next_step=said["next_step"], **said["more"])
        return self._close(blocks.fail, self.run, error)

    def _stopped(self) -> ScheduleBlock:
        """Record a cancel, now that the child is gone; what it had finished before is finished."""
        self._listen()
        if self.message is not None:
            return self._conclude(self.message, {})
        kept = ""
        if self.run.stage == Stage.LOAD:
            dsn = settings.WAREHOUSES.get(self.run.block.pipeline.warehouse, "")
            with contextlib.suppress(PipelineError):
                merged = warehouse.engine(dsn).has_merged(dsn, block_id=self.run.block_id, fence=self.run.fence)
                kept = "Its rows had been merged already: the warehouse has them." if merged else "The warehouse is as it was."
        return self._close(blocks.cancelled, self.run, kept=kept)

    def _close(self, move: Callable[..., ScheduleBlock], *args, **kwargs) -> ScheduleBlock:
        """Record the end, through a short absence of the database; a lease that was lost records nothing."""
        self._tidy()
        try:
            return _patiently(move, *args, **kwargs)
        except LeaseLost:
            return self._lost()
        except (DatabaseError, ValueError) as error:
            if isinstance(error, OperationalError | InterfaceError):
                raise
            # the end itself can't be written down; left so, the block would be taken up again for ever
            log.exception("the end of run %s can't be recorded", self.run.pk)
            fault = PermanentError(
                f"What {self.run.stage} reported could not be recorded: {_clean(str(error))[:500]}", code="unexpected", next_step=OUR_FAULT
            )
            return _patiently(blocks.fail, self.run, fault)

    def _lost(self) -> ScheduleBlock:
        self._kill()
        self._tidy()
        log.warning("run %s lost its block to a later one; what it did is void", self.run.pk)
        return _patiently(_block, self.run.block_id)

    def give_back(self, stop: BaseException) -> None:
        """The worker itself is being stopped: end the child and let the next worker have the block at once."""
        self._kill()
        self._tidy()
        with contextlib.suppress(LeaseLost, OperationalError, InterfaceError):
            words = f"The worker was stopped ({type(stop).__name__}); the stage begins again."
            blocks.crash(self.run, words, code="worker-stopped", counts_as_attempt=False)

    def _kill(self) -> None:
        """End the child's whole group, and what it left running in the warehouse."""
        if not self.pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0
        dsn = settings.WAREHOUSES.get(self.run.block.pipeline.warehouse, "")
        with contextlib.suppress(PipelineError):
            warehouse.end_sessions(dsn, run_id=self.run.pk)

    def _tidy(self) -> None:
        if self.ears >= 0:
            os.close(self.ears)
            self.ears = -1
        shutil.rmtree(self.workdir, ignore_errors=True)


def _obituary(run: Run, status: int) -> str:
    """How a child died that said nothing."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        more = " (out of memory, or somebody ended it)" if name == "SIGKILL" else ""
        return f"The process of {run.stage} was ended by {name}{more}."
    return f"The process of {run.stage} ended without a word, with exit code {os.waitstatus_to_exitcode(status)}."


# inside the child


_parents_connections: list = []


def _become_child(parent: int) -> None:
    """Own process group, default signals, a memory limit, and death when the parent dies."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(0)
    for inherited in connections.all(initialized_only=True):
        # the parent's connection, if it still had one: used or closed here it would break there; kept, so that nothing closes it
        _parents_connections.append(inherited.connection)
        inherited.connection = None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # what the worker had loaded stays as long as the child: the garbage collector need not walk through it again and again
    gc.freeze()
    if settings.STAGE_MEMORY_MB and sys.platform == "linux":
        # measured from what the worker has mapped already, so that the limit is about what the stage takes
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = mapped + settings.STAGE_MEMORY_MB * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _child(run: Run, workdir: Path, mouth: int) -> None:
    """Do the stage and say how it ended, as one JSON line."""
    structlog.contextvars.bind_contextvars(run_id=run.pk, block_id=run.block_id, stage=run.stage)
    said: dict

    def say(message: dict) -> None:
        line = json.dumps(message, default=str).encode() + b"\n"
        while line:
            line = line[os.write(mouth, line) :]

    note = Note(run, workdir, on_progress=_calm(lambda done, total: say({"progress": [done, total]})))
    try:
        outcome = stages.carry_out(run, note)
        said = {"done": asdict(outcome)}
    except LeaseLost as error:
        log.warning("%s", error)
        said = {"lost": str(error)}
    except PipelineError as error:
        said = _told(error)
    except MemoryError:
        said = _told(TransientError(f"{run.stage} needed more than {settings.STAGE_MEMORY_MB:,} MB and was stopped.", code="out-of-memory"))
    except (OperationalError, InterfaceError) as error:
        said = _told(TransientError(f"The control database broke off: {str(error).splitlines()[0]}", code="database-down"))
    except Exception as error:
        text = secrets.redact("".join(traceback.format_exception(error)))
        log.exception("%s of run %s", run.stage, run.pk)
        with contextlib.suppress(OperationalError, InterfaceError):
            note.log(text, LogLine.Level.ERROR)
        said = _told(PermanentError(f"Unexpected {type(error).__name__}: {str(error)[:500]}", code="unexpected", next_step=OUR_FAULT))
    say(said)
    connections.close_all()
    os._exit(0)


def _told(error: PipelineError) -> dict:
    kind = type(error).__name__ if type(error).__name__ in KINDS else "PermanentError"
    more = {"retry_after": error.retry_after} if isinstance(error, TransientError) else {}
    return {
        "kind": kind,
        "message": _clean(secrets.redact(error.message)),
        "code": error.code[:60],
        "next_step": _clean(secrets.redact(error.next_step)),
        "more": more,
    }


def _clean(text: str) -> str:
    """Text as PostgreSQL keeps it: a message may quote a source that sends NUL bytes, or bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _calm(say: Callable[[int, int | None], None]) -> Callable[[int, int | None], None]:
    """Let progress through four times a second at most; the last figure of a stage is in its counts anyway."""
    last = 0.0

    def throttled(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= 0.25:
            last = time.monotonic()
            say(done, total)

    return throttled
