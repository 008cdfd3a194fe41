"""What the queue may call: doors of a few lines, each to one room."""

import os
import signal
import socket

from pipelines import planner, runner
from pipelines.upkeep import after, jobs

#: The only functions that the queue runs; anything else in it is refused.
ALLOWED = frozenset({planner.WORK, planner.AFTER, planner.UPKEEP, planner.CANARY})


def work(block_id: int) -> str:
    """Work a block off as far as it goes now, ring for what is due next, then do what is to be done after its load."""
    stop_if_orphaned()
    _heard()
    answer = runner.work(block_id)
    planner.ring_due()
    after.carry_out(block_ids=[block_id])
    return answer


def carry_out_after() -> str:
    """Do what is still to be done after loads, whose own workers did not come to it."""
    stop_if_orphaned()
    _heard()
    return f"{len(after.carry_out())} steps after loads ended"


def carry_out_upkeep(run_id: int) -> str:
    """Do an upkeep job that was asked for; one that somebody else has done or does is left to him."""
    stop_if_orphaned()
    _heard()
    run = jobs.carry_out(run_id)
    planner.ring_due()
    return run.message if run else "nothing to do"


def answer_canary() -> None:
    """A worker is listening."""
    stop_if_orphaned()
    _heard()
    planner.beat("canary", host=socket.gethostname(), pid=os.getpid())


def _heard() -> None:
    """This host has taken a message, which no other host can do for it."""
    planner.beat(f"worker {socket.gethostname()}", pid=os.getpid())


def stop_if_orphaned() -> None:
    """A cluster whose watchdog died has nobody to restart or stop it: end its whole group; the leases do the rest."""
    watchdog = os.environ.get("ODO_SUPERVISOR_PID")
    if not watchdog:
        return
    try:
        os.kill(int(watchdog), 0)
    except ProcessLookupError:
        os.killpg(os.getpgid(0), signal.SIGKILL)
