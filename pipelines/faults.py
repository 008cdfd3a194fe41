"""Places where a test may make a step fail: `ODO_FAULT=load.staged:2:kill` acts on the second pass of `load.staged`.

Actions: kill (SIGKILL to this process), raise, sleep (an hour). Without the variable a faultpoint is one dictionary look-up.
"""

import os
import signal
import time
from collections import Counter

_passes: Counter[str] = Counter()
# a stage's process counts its own passes, not those of the process that it was forked from
os.register_at_fork(after_in_child=_passes.clear)


class InjectedFault(Exception):
    """A test asked for this failure."""


def faultpoint(name: str) -> None:
    wanted = os.environ.get("ODO_FAULT")
    if not wanted:
        # who wishes the same again later counts from one
        _passes.clear()
        return
    where, nth, action = wanted.split(":")
    if where != name:
        return
    # counted for each wish: what a process passed under an earlier one says nothing of this one
    _passes[wanted] += 1
    if _passes[wanted] != int(nth):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "sleep":
        time.sleep(3600)
    raise InjectedFault(f"injected at {name}, pass {nth}")
