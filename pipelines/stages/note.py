"""What a stage says while it works: lines for the log, progress for the page; and where it may put files meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import secrets
from pipelines.models import LogLine, Run

logger = logging.getLogger(__name__)

#: A stage that has more to say than this goes on in the process log only.
MOST_LINES = 2_000


@dataclass
class Note:
    """`workdir` is private to the run and removed after it. `on_progress` is told (rows done, rows expected or None)."""

    run: Run
    workdir: Path
    on_progress: Callable[[int, int | None], None]
    lines: int = field(default=0, init=False)

    def log(self, text: str, level: str = LogLine.Level.INFO) -> None:
        """Keep a line of the run's story, without secrets."""
        text = secrets.redact(text).replace("\x00", "\\x00")
        logger.log(logging.getLevelName(level.upper()), "%s", text, extra={"run_id": self.run.pk, "stage": self.run.stage})
        self.lines += 1
        if self.lines <= MOST_LINES:
            LogLine.objects.create(run=self.run, level=level, text=text)

    def warn(self, text: str) -> None:
        self.log(text, LogLine.Level.WARNING)

    def progress(self, done: int, total: int | None = None) -> None:
        self.on_progress(done, total)

    def event(self, level: str, text: str) -> None:
        """What the outbound door tells: retries are worth a line, single requests only the process log."""
        if level == "debug":
            logger.debug("%s", secrets.redact(text), extra={"run_id": self.run.pk})
        else:
            self.log(text, LogLine.Level.WARNING if level == "warning" else LogLine.Level.INFO)
