"""What the queue may call: doors of a few lines, each to one room."""

import os
import signal
import socket

from pipelines import planner, runner

#: The only functions that the queue runs; anything else in it is refused.
ALLOWED = frozenset({planner.WORK, planner.CANARY})


def work(block_id: int) -> str:
    """Work a block off as far as it goes now, then ring for what is due next."""
    stop_if_orphaned()
    answer = runner.work(block_id)
    planner.ring_due()
    return answer


def answer_canary() -> None:
    """A worker is listening."""
    stop_if_orphaned()
    planner.beat("canary", host=socket.gethostname(), pid=os.getpid())


def stop_if_orphaned() -> None:
    """A cluster whose watchdog died has nobody to restart or stop it: end its whole group; the leases do the rest."""
    watchdog = os.environ.get("ODO_SUPERVISOR_PID")
    if not watchdog:
        return
    try:
        os.kill(int(watchdog), 0)
    except ProcessLookupError:
        os.killpg(os.getpgid(0), signal.SIGKILL)
