"""How a state looks: a word for people and a word for the stylesheet, which also names the icon. One table for every page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from pipelines.models import Run, RunState, ScheduleBlock, State

#: A block that has been due for so long is shown as overdue: the tick rings once a minute, and a worker is rarely busy for longer.
OVERDUE_AFTER = timedelta(minutes=15)


@dataclass(frozen=True)
class Face:
    """`look` is a class of ops.css and an icon of the sprite ("ok", "failed", "missing" ...); `word` is what a person reads."""

    look: str
    word: str


@dataclass(frozen=True)
class Square:
    """One cell of a grid; `shade` is "", "v1", "v3" or "v4" (more rows, darker), `starts_at`/`ends_at` the UTC span that it stands for.

    `local_from` and `local_to` are the same span as the inputs of the order form write it.
    """

    face: Face
    title: str
    href: str = ""
    shade: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    local_from: str = ""
    local_to: str = ""
    block: ScheduleBlock | None = None


OK = Face("ok", "Done")
EMPTY = Face("unchanged", "Complete and empty")
NO_SERVICE = Face("unchanged", "Provider not in service")
UNCHANGED = Face("unchanged", "Unchanged")
SUSPICIOUS = Face("suspicious", "Suspicious")
WAITING = Face("queued", "Waiting")
NOT_READY = Face("queued", "Source not ready")
RETRY = Face("queued", "Will retry")
OVERDUE = Face("late", "Overdue")
RUNNING = Face("running", "Running")
FAILED = Face("failed", "Failed")
CRASHED = Face("crashed", "Crashed")
RECOVERED = Face("unchanged", "Failed, made good")
HELD = Face("paused", "Held")
CANCELLED = Face("cancelled", "Cancelled")
PAUSED = Face("paused", "Paused")
LATE = Face("late", "Late")
MISSING = Face("missing", "Never ran")
PAUSED_GAP = Face("paused", "Not run while paused")
NOTHING_YET = Face("queued", "Nothing yet")
COVERED = Face("due", "Covered by a later reading")
NOT_YET = Face("due", "Not yet")
NOT_OWED = Face("due", "Nothing owed")

#: From the loudest to the quietest: of several blocks in one cell the first of these is shown.
WORST_FIRST = [
    FAILED, CRASHED, SUSPICIOUS, MISSING, OVERDUE, LATE, HELD, PAUSED, PAUSED_GAP, CANCELLED, RUNNING, RETRY, NOT_READY, WAITING, OK, UNCHANGED,
    EMPTY, NO_SERVICE, RECOVERED, COVERED, NOT_YET, NOT_OWED, NOTHING_YET,
]  # fmt: skip

#: What ended well, whether there were rows or not; a suspicious block is not among them.
GOOD = (OK, EMPTY, NO_SERVICE, UNCHANGED)

_RANK = {face: place for place, face in enumerate(WORST_FIRST)}

#: How a source says that a window is not complete yet. That is not "no data": it is asked again.
NOT_READY_CODES = ("not-ready", "http-202", "NotReady")

#: What `blocks.crash` and the runner say of a process that died, hung or outgrew its memory.
CRASH_CODES = ("crashed", "worker-lost", "worker-stopped", "deadline", "out-of-memory")

_RUNS = {
    RunState.RUNNING: RUNNING,
    RunState.DONE: OK,
    RunState.UNCHANGED: UNCHANGED,
    RunState.WAITING: Face("queued", "Not ready"),
    RunState.FAILED: FAILED,
    RunState.CRASHED: CRASHED,
    RunState.CANCELLED: CANCELLED,
}
_WORDS = {face.look: face for face in (FAILED, CRASHED, SUSPICIOUS, LATE, RUNNING, PAUSED, MISSING, CANCELLED, UNCHANGED, OK)}


def of_parts(state: str, mark: str, *, superseded: bool, attempts: int, due_at: datetime, error_code: str, now: datetime) -> Face:
    """The face of a block from its columns."""
    if state == State.RUNNING:
        return RUNNING
    if state == State.HELD:
        return SUSPICIOUS if mark == ScheduleBlock.Mark.SUSPICIOUS else HELD
    if state == State.FAILED:
        if superseded:
            return RECOVERED
        return CRASHED if error_code in CRASH_CODES else FAILED
    if state == State.DONE:
        return {
            ScheduleBlock.Mark.EMPTY: EMPTY,
            ScheduleBlock.Mark.NO_SERVICE: NO_SERVICE,
            ScheduleBlock.Mark.UNCHANGED: UNCHANGED,
            ScheduleBlock.Mark.SUSPICIOUS: SUSPICIOUS,
        }.get(mark, OK)
    if due_at < now - OVERDUE_AFTER:
        return OVERDUE
    if error_code in NOT_READY_CODES:
        return NOT_READY
    return RETRY if attempts and error_code else WAITING


def of_block(block: ScheduleBlock, now: datetime | None = None) -> Face:
    return of_parts(
        block.state,
        block.mark,
        superseded=block.superseded_at is not None,
        attempts=block.attempts,
        due_at=block.due_at,
        error_code=block.error_code,
        now=now or timezone.now(),
    )


def of_run(run: Run) -> Face:
    face = _RUNS[RunState(run.state)]
    return RECOVERED if run.superseded_at and face in (FAILED, CRASHED) else face


def of(thing) -> Face:
    """The face of a block, a run, anything with a `face`, or a look by its word ("failed"). Raises KeyError for an unknown word."""
    if isinstance(thing, Face):
        return thing
    if isinstance(thing, ScheduleBlock):
        return of_block(thing)
    if isinstance(thing, Run):
        return of_run(thing)
    if isinstance(thing, str):
        return _WORDS[thing]
    return thing.face


def worst(faces) -> Face:
    """The loudest of several faces; nothing owed where there are none."""
    return min(faces, key=_RANK.__getitem__, default=NOT_OWED)
