"""For the peers' scripts: the argument that they get, and the line that they end with."""

import json
import resource
import sys
import time
from contextlib import contextmanager


def argument():
    """What the bench asks for, as a dict."""
    return json.loads(sys.argv[1])


def _cpu():
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


@contextmanager
def clock():
    """Measure the block, and tell it on the last line of stdout."""
    cpu, started = _cpu(), time.perf_counter()
    yield
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
    told = {"seconds": time.perf_counter() - started, "cpu": _cpu() - cpu, "peak_mb": peak}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
