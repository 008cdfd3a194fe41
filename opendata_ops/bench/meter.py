"""What work costs: wall time, CPU of the client's processes, and CPU of the database's sessions, read from /proc.

A session that has ended leaves no figure behind, so a small process looks at all of ours 25 times a second while they work;
what it may miss is the last fiftieth of a second of each. Sessions are known by the name of the bench's private database in their title.
"""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.04
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What one piece of work took. CPU in seconds; `database` is None where its processes can't be seen."""

    seconds: float = 0.0
    client: float = 0.0
    database: float | None = None
    peak_mb: float = 0.0
    wal: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        return self.client + (self.database or 0.0)


class Meter:
    """Adds up the CPU of a database's sessions between `begin` and `end`. None where the server is not on this machine."""

    def __init__(self, postmaster: int, database: str):
        command = [sys.executable, "-m", "opendata_ops.bench.meter", str(postmaster), database]
        project = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project, text=True)
        self._says("ready")

    def _says(self, word: str) -> str:
        line = self._process.stdout.readline().split()
        if line[:1] != [word]:
            raise RuntimeError(f"the meter of the database's CPU said {' '.join(line)!r} where {word!r} was expected")
        return line[-1]

    def begin(self) -> None:
        self._tell("begin")
        self._says("begun")

    def end(self) -> float:
        """CPU seconds since `begin`."""
        self._tell("end")
        return float(self._says("spent"))

    def _tell(self, word: str) -> None:
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def own_cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


@contextmanager
def measured(meter: Meter | None) -> Iterator[Cost]:
    """Measure a piece of work; the Cost is complete when the block has ended."""
    cost = Cost()
    if meter:
        meter.begin()
    cpu, started = own_cpu(), time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - started
    cost.client = own_cpu() - cpu
    if meter:
        cost.database = meter.end()


# the process that looks


def _children(parent: int) -> Iterator[int]:
    try:
        yield from map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    except FileNotFoundError:
        return


def _cpu(pid: int) -> int | None:
    """Ticks of a process, or None when it has gone."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(told[11]) + int(told[12])


def _is_ours(pid: int, database: str, ours: dict[int, Any]) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # "postgres: user database host(port) COPY", or "postgres: parallel worker for PID 4711"
    return database in words or ("parallel" in words and any(str(pid) in words for pid in ours))


def watch(postmaster: int, database: str, ask: Callable[[float], str | None], say: Callable[[str], None]) -> None:
    """Look until `ask` says that the other side has gone ("")."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    running = False

    def look(*, new_from_zero: bool) -> None:
        for pid in _children(postmaster):
            if pid not in first and not _is_ours(pid, database, first):
                continue
            ticks = _cpu(pid)
            if ticks is not None:
                first.setdefault(pid, 0 if new_from_zero else ticks)
                last[pid] = ticks

    say("ready")
    while True:
        word = ask(LOOK_SECONDS if running else None)
        if word == "":
            return
        if word == "begin":
            first.clear()
            last.clear()
            look(new_from_zero=False)
            running = True
            say("begun")
        elif word == "end":
            look(new_from_zero=True)
            running = False
            say(f"spent {sum(last[pid] - first[pid] for pid in last) / TICK}")
        else:
            look(new_from_zero=True)


def main(postmaster: str, database: str) -> None:
    def ask(seconds: float | None) -> str | None:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return (sys.stdin.readline().strip()) if readable else None

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    watch(int(postmaster), database, ask, say)


if __name__ == "__main__":
    main(*sys.argv[1:])
