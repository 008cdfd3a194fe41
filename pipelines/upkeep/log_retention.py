"""Old logs: what only told how something went, and has been overtaken since, is deleted. Evidence stays.

Deleted are, older than so many days: the log lines of runs and the diaries of loads that a later run of the same block has overtaken;
former runs of upkeep jobs; messages that the queue carried out; log files that were put aside. Runs with their counts, rejected
rows, the audit, the catalog and everything of each block's newest pass stay, and so do the diaries by which catching up sees what
was published. A dry run counts what would go.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django_q.models import Success

from pipelines.connectors.base import Parameter
from pipelines.errors import SetupError
from pipelines.models import ImportLog, LogLine, Run, RunState, Stage, UpkeepJob, UpkeepRun
from pipelines.upkeep.jobs import OPEN, Job, Note
from pipelines.upkeep.portals import plural

DAYS = 30
#: Under a week even what somebody is still looking into would go.
LEAST_DAYS = 7
#: So many rows or runs in one statement: a long transaction would hold up the others.
PORTION = 5_000
FILES = ("log file", "log files")
#: A log of a day is a folder of its name; a log that was put aside has a number at its end. What is written now is neither.
_DAY, _ASIDE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})"), re.compile(r".+\.log\.\d+")


class LogRetention(Job):
    """Files are those of the machine on which it is done; where several have workers, each other one needs a rotation of its own."""

    kind = "log-retention"
    label = "Delete old logs"
    about = "Deletes log lines, diaries of loads, runs of upkeep jobs and log files that are old and overtaken. Rejected rows and the audit stay."
    can_dry = True
    options = (Parameter("days", "Days", default=str(DAYS), help=f"What is younger stays; {LEAST_DAYS} at least."),)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        days = self.number(job, "days")
        if days < LEAST_DAYS:
            raise SetupError(
                f"{job}: logs are kept for {LEAST_DAYS} days at least, not {days}.", code="bad-option", next_step="Raise its option days."
            )
        limit = timezone.now() - timedelta(days=days)
        files = old_files(Path(settings.VAR_DIR) / "log", limit)
        if note.is_dry:
            gone = {words: rows.count() for words, rows, _ in _rows(limit)} | {FILES: len(files)}
        else:
            gone = {words: _delete(rows, by, note) for words, rows, by in _rows(limit)} | {FILES: sum(map(_remove, files))}
        note.findings(("what", "would be deleted" if note.is_dry else "deleted"), [(many, number) for (_, many), number in gone.items()])
        note(files=[str(path) for path in files[:200]])
        told = "\n".join(f"*{many}*: {number:,}" for (_, many), number in gone.items() if number) or "Nothing"
        note.notice(told, trouble=False)
        if not any(gone.values()):
            return f"Nothing is older than {plural(days, 'day')} and overtaken."
        counts = ", ".join(plural(number, *words) for words, number in gone.items() if number)
        return f"{'Would delete' if note.is_dry else 'Deleted'} what is older than {plural(days, 'day')}: {counts}."


def _rows(limit: datetime) -> Iterator[tuple[tuple[str, str], QuerySet, str]]:
    """(one and many of what, the rows that may go, by which column they go in portions): all rows of one value go at once."""
    yield ("log line of a run", "log lines of runs"), log_lines(limit), "pk"
    yield ("entry of the import log", "entries of the import log"), diaries(limit), "run_id"
    yield ("run of an upkeep job", "runs of upkeep jobs"), upkeep_runs(limit), "pk"
    yield ("message that the queue carried out", "messages that the queue carried out"), Success.objects.filter(stopped__lt=limit), "pk"


def log_lines(limit: datetime) -> QuerySet[LogLine]:
    """Lines of runs after which the same stage of the same block ran again: of the newest the story stays."""
    later = Run.objects.filter(block=OuterRef("run__block"), stage=OuterRef("run__stage"), pk__gt=OuterRef("run_id"))
    return LogLine.objects.filter(Exists(later), at__lt=limit, run__finished_at__lt=limit)


def diaries(limit: datetime) -> QuerySet[ImportLog]:
    """Diaries of loads before the one whose rows are in the warehouse and on the portal: a whole diary at a time, or none of it."""
    of_block = Run.objects.filter(block=OuterRef("run__block"), state=RunState.DONE).order_by("-pk").values("pk")
    published = Run.objects.filter(block=OuterRef(OuterRef("run__block")), state=RunState.DONE, stage=Stage.PUBLISH, superseded_at=None)
    shown = of_block.filter(stage=Stage.LOAD, pk__lt=Subquery(published.order_by("-pk").values("pk")[:1]))[:1]
    newest = of_block.filter(stage=Stage.LOAD)[:1]
    # where nothing was loaded well there is nothing to be overtaken by, and the comparison with null keeps all
    return ImportLog.objects.filter(run__finished_at__lt=limit, run_id__lt=Coalesce(Subquery(shown), Subquery(newest)))


def upkeep_runs(limit: datetime) -> QuerySet[UpkeepRun]:
    """Ended runs of jobs, without each job's newest one, its newest that did more than look, and its newest that says if it was in trouble."""

    old = UpkeepRun.objects.filter(finished_at__lt=limit).exclude(state__in=OPEN)
    for condition in (Q(), Q(is_dry=False), Q(is_dry=False, details__has_key="trouble")):
        newer = UpkeepRun.objects.filter(condition, job=OuterRef("job"), pk__gt=OuterRef("pk")).exclude(state__in=OPEN)
        old = old.filter(~condition | Exists(newer)) if condition else old.filter(Exists(newer))
    return old


def _delete(rows: QuerySet, by: str, note: Note) -> int:
    """Delete in portions; how many went."""
    gone = 0
    while portion := list(rows.order_by(by).values_list(by, flat=True).distinct()[:PORTION]):
        gone += rows.model.objects.filter(**{f"{by}__in": portion}).delete()[0]
        note.walk(f"{gone:,} {rows.model._meta.verbose_name_plural} deleted so far.")
    return gone


def old_files(folder: Path, limit: datetime) -> list[Path]:
    """What lies in the folder of logs and is older: folders named by a day before it, and files that were put aside before it."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink():
            continue  # it may lead anywhere
        if path.is_dir():
            day = _day(path.name)
            if day and day < limit.date():
                found.append(path)
        elif _ASIDE.fullmatch(path.name) and datetime.fromtimestamp(path.stat().st_mtime, UTC) < limit:
            found.append(path)
    return found


def _day(name: str) -> date | None:
    """The day that a folder is named by; "latest" and others are none."""
    named = _DAY.fullmatch(name)
    with suppress(ValueError):
        return date(*map(int, named.groups())) if named else None
    return None


def _remove(path: Path) -> bool:
    """Whether it is gone now. Raises OSError."""
    remove: Callable[[Path], None] = shutil.rmtree if path.is_dir() else Path.unlink
    with suppress(FileNotFoundError):
        remove(path)
    return True
