"""Faults on demand: what can go wrong with a reply, by name, and whose turn it is to go wrong.

A fault says *what* happens; a `Schedule` says *to which request*. A server asks the schedule once a request
(`take`), so a fault set for two requests is seen by two requests, whoever makes them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: kind → (what a client sees, options with their defaults). Every fault also takes `delay` (seconds before the answer).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # instead of an answer: nothing is read and nothing is committed
    "status": ("an error status with the portal's body shape", {"code": 500, "retry_after": None, "body": None, "content_type": None}),
    "html": ("a log-in page with status 200", {"content_type": "text/html; charset=utf-8"}),
    "empty": ("status 200 and no body at all", {}),
    "redirect": ("a redirect to another host", {"to": "http://169.254.169.254/latest/meta-data/", "code": 302}),
    "length_cap": ("400 'length must be <= 50000', whatever was asked", {}),
    "gzip_bomb": ("a small compressed body that grows to `megabytes`", {"megabytes": 100}),
    "hang": ("no answer at all for `seconds`, then the connection closes", {"seconds": 3600.0}),
    # the right answer, badly delivered
    "none": ("the right answer (for a place in a script, or only late with `delay`)", {}),
    "cut": ("Content-Length promised, `part` of the body sent, then `end`: close or reset", {"part": 0.5, "end": "close"}),
    "cut_at_line": ("no Content-Length, Connection: close, ends at a line end after `part` of the lines", {"part": 0.5}),
    "cut_chunked": ("chunked, `part` of the body sent, and the end never comes", {"part": 0.5, "end": "close"}),
    "truncated": ("`part` of the body with a Content-Length that agrees (JSON that does not parse)", {"part": 0.5}),
    "drip": ("one byte each `seconds`", {"seconds": 0.5}),
    "lost_reply": ("the work is done (a publish is committed), then the connection closes without a word", {"end": "close"}),
    "headers": ("the right answer with these headers set; None removes one", {"set": {}}),
    # the wrong answer, well delivered (rows of a page)
    "wrong_columns": ("the page's header names other columns, in another order", {}),
    "missing_row": ("`n` rows of the page are left out", {"n": 1}),
    "duplicate_rows": ("`n` rows of the page come twice; with `instead` they push the page's last rows out", {"n": 1, "instead": False}),
    "nulls_kept": ("JSON says null instead of leaving the field out", {}),
    "bom": ("the body begins with a UTF-8 byte order mark", {}),
    "nul": ("one text cell of the page holds a NUL byte", {}),
    "bad_utf8": ("one text cell of the page holds a byte that is not UTF-8", {}),
    "out_of_date": ("X-SODA2-Data-Out-Of-Date: true", {}),
    "count_key": ("a count comes under another name", {"name": "COUNT"}),
    # the world moves while it is read or written
    "touch": ("the answer is right, and afterwards rowsUpdatedAt moves", {}),
    "edit": ("the answer is right, and afterwards `fraction` of the rows change", {"fraction": 0.05, "seed": 0, "add": 0}),
    "alter": ("the columns change, then the request is answered", {"add": {}, "remove": (), "retype": {}}),
    "row_errors": ("a publish answers 200 and refuses the first `n` rows of the chunk (Errors: n)", {"n": 1}),
}


class Fault:
    """One thing that goes wrong: `Fault("status", code=429, retry_after=2)`, `Fault("cut", part=0.3)`, or short `Fault(503)`.

    `kind` is a key of KINDS, the options are those that it lists, and `delay` (seconds) is waited before anything is answered.
    Raises ValueError for a kind or an option that does not exist, so that a misspelt fault cannot pass as a quiet server.
    """

    def __init__(self, kind: str | int, *, delay: float = 0.0, **options: Any):
        if isinstance(kind, int):
            kind, options = "status", {"code": kind, **options}
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}; there are: {', '.join(KINDS)}")
        known = KINDS[kind][1]
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"fault {kind!r} has no option {', '.join(unknown)}; it has: {', '.join([*known, 'delay'])}")
        self.kind = kind
        self.delay = float(delay)
        self.options = {**known, **options}

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.options.items() if value != KINDS[self.kind][1][name])
        return f"Fault({self.kind!r}{', ' + told if told else ''}{f', delay={self.delay}' if self.delay else ''})"

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "delay": self.delay, **self.options}


@dataclass
class _Turn:
    """A fault waiting for its requests: those whose `METHOD /path?query` matches, `times` of them."""

    fault: Fault
    path: re.Pattern[str]
    method: str
    times: int


class Schedule:
    """Whose turn it is to go wrong. Turns are taken in the order in which they were set; one fault a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: list[_Turn] = []

    def add(
        self,
        fault: Fault | int | None = None,
        *,
        next: Sequence[Fault | int | None] = (),
        path: str = "",
        method: str = "",
        times: int = 1,
    ) -> None:
        """Let the next `times` matching requests meet `fault`, or the next ones meet the script `next`, one each.

        `path` is a regular expression searched in the decoded address with its query (`/resource/abcd-1234.csv?$limit=5`);
        None in a script is a request answered well.
        """
        faults: Iterable[Fault | int | None] = next if next else [fault] if fault is not None else []
        turns = [
            _Turn(entry if isinstance(entry, Fault) else Fault("none" if entry is None else entry), re.compile(path), method.upper(), times)
            for entry in faults
        ]
        if not turns:
            raise ValueError("say which fault: fail(Fault(...)) or fail(next=[Fault(...), ...])")
        with self._lock:
            self._turns += turns

    def take(self, method: str, address: str) -> Fault | None:
        """The fault that this request meets, or None; counts it as met."""
        with self._lock:
            for turn in self._turns:
                if turn.method in ("", method) and turn.path.search(address):
                    turn.times -= 1
                    if turn.times <= 0:
                        self._turns.remove(turn)
                    return turn.fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._turns.clear()

    def waiting(self) -> list[dict[str, Any]]:
        """What is still to go wrong, as plain values."""
        with self._lock:
            return [{**turn.fault.as_json(), "path": turn.path.pattern, "method": turn.method, "times": turn.times} for turn in self._turns]
