"""Commands as a person or a script gives them: in this process, or as `python3 manage.py …` in one of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.management import call_command


@dataclass(frozen=True)
class Told:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that stdout holds. Raises JSONDecodeError when there is anything else."""
        return json.loads(self.out)


def command(*words: str) -> Told:
    """Give a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        call_command(*words, stdout=out, stderr=err)
    except SystemExit as end:
        code = end.code
    return Told(code, out.getvalue(), err.getvalue())


def program(*words: str, **environment: str) -> subprocess.Popen:
    """Start `python3 manage.py …` on the tests' database and lake; its streams are pipes."""
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=settings.BASE_DIR,
        env={**os.environ, "ODO_NO_BOOTSTRAP": "1", "OUTBOUND_ALLOW": "127.0.0.1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in its background lets them ignore Ctrl-C, and that would be inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen) -> Told:
    """Wait for the program's end; one that never ends fails its test."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end; it said\n{out}\n{err}") from None
    return Told(process.returncode, out, err)
