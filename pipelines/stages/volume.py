"""How many rows are usual: what is far from it, or nothing although the source says that it changed, is suspicious and never green."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from statistics import median
from typing import Literal

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.fields.json import KT

from pipelines import clock
from pipelines.connectors.base import SourceState
from pipelines.models import Cadence, Pipeline, Run, RunState, ScheduleBlock, Stage, State

#: What an extract asked for: every row, those since the watermark, or those of the block's span.
Read = Literal["all", "changes", "window"]
Verdict = tuple[str, str]

FINE: Verdict = (ScheduleBlock.Mark.NONE, "")
#: Fewer blocks than these say nothing of what is usual; more than the most say it of another time.
LEAST_BLOCKS, MOST_BLOCKS = 4, 28
#: However regular the blocks were: so far from the middle is no news.
TOLERANCE, LEAST_DIFFERENCE = 0.5, 20
#: A median deviation is 0.67 of a standard deviation; three of those are unusual.
SPREADS = 3 * 1.4826
#: So many loads running that changed nothing, each from a source that said it had changed, are no coincidence.
STANDSTILLS = 3
#: How often a read without rows must have been good before it is usual. One quiet hour explains the next; one quiet night does not.
KNOWN_EMPTY: dict[str, int] = {"window": 1, "changes": LEAST_BLOCKS, "all": LEAST_BLOCKS}

LEFT = "The warehouse and the portal were left as they are."
SHRUNK_NEXT = "If the source really lost them, force the block, which takes them away; else ask the provider."


@dataclass(frozen=True)
class Band:
    """The usual number of rows, from `low` to `high`, by so many `blocks`."""

    low: int
    middle: int
    high: int
    blocks: int

    def __str__(self):
        return f"usual are about {self.middle:,}, from {self.low:,} to {self.high:,} (by {self.blocks} earlier blocks)"


def usual(history: Sequence[int]) -> Band | None:
    """The band in which nine of ten such numbers lie, by median and median deviation; None of too few. Pure."""
    if len(history) < LEAST_BLOCKS:
        return None
    middle = median(history)
    spread = median(abs(rows - middle) for rows in history)
    tolerance = max(TOLERANCE * middle, LEAST_DIFFERENCE, SPREADS * spread)
    # where rows always came, none at all is not within any spread
    least = 1 if middle >= LEAST_DIFFERENCE and min(history) else 0
    return Band(max(math.ceil(middle - tolerance), least), round(middle), math.floor(middle + tolerance), len(history))


def judge(block: ScheduleBlock, rows: int, *, history: Sequence[int], source_changed: bool, read: Read) -> Verdict:
    """The mark of an extract and the sentence that says why; ("", "") of one like the others. Asks nothing of the database.

    `history` is what `history` gives, `source_changed` what `source_changed` says: both as of before this read.
    """
    band = usual(history) if block.pipeline.watch_volume else None
    if rows:
        if band and not band.low <= rows <= band.high:
            return ScheduleBlock.Mark.SUSPICIOUS, f"{rows:,} row{'s' * (rows != 1)} came; {band}."
        return FINE
    where = {"all": "", "window": " for this window", "changes": " since the last reading"}[read]
    # a suspicion that nobody has accepted stays one, however often the block is run again
    had_some = block.rows or block.mark == ScheduleBlock.Mark.SUSPICIOUS or (read == "all" and any(history[:1]))
    if had_some and read != "changes":
        return ScheduleBlock.Mark.SUSPICIOUS, f"The source has no rows{where}, and had some before. {LEFT}"
    if source_changed and list(history).count(0) < KNOWN_EMPTY[read]:
        return ScheduleBlock.Mark.SUSPICIOUS, f"The source says that it changed, and gave no rows{where}. {LEFT}"
    if band and band.low > 0:
        return ScheduleBlock.Mark.SUSPICIOUS, f"The source has no rows{where}; {band}. {LEFT}"
    return ScheduleBlock.Mark.EMPTY, f"The source has no rows{where}."


def history(block: ScheduleBlock, read: Read) -> list[int]:
    """Rows of earlier blocks that were good, newest first, to judge this one by. Suspicious ones count when somebody has accepted them.

    Of a window: those of the same hour of the week (by the city's clock), else of the same hour of the day, else the last ones.
    """
    pipeline = block.pipeline
    good = ScheduleBlock.objects.filter(pipeline=pipeline, state=State.DONE, rows__isnull=False, starts_at__lt=block.starts_at)
    good = good.exclude(mark=ScheduleBlock.Mark.SUSPICIOUS).order_by("-starts_at")
    if pipeline.watermark_column:
        # a reading of everything says nothing of how many rows change, nor the other way round
        last = Run.objects.filter(block=OuterRef("pk"), stage=Stage.EXTRACT, state=RunState.DONE).order_by("-pk")
        good = good.annotate(was_read=Subquery(last.values(told=KT("details__read"))[:1])).filter(was_read=read)
    if read == "window" and pipeline.cadence in (Cadence.HOURLY, Cadence.DAILY):
        for step in (timedelta(weeks=1), timedelta(days=1)):
            alike = _rows(good.filter(starts_at__in=_earlier(block, step)))
            if len(alike) >= LEAST_BLOCKS:
                return alike
    found = _rows(good)
    # hours of one night say nothing of the morning after it
    return found if pipeline.cadence != Cadence.HOURLY or read != "window" or len(found) >= 24 else []


def _rows(blocks: QuerySet[ScheduleBlock]) -> list[int]:
    return list(blocks.values_list("rows", flat=True)[:MOST_BLOCKS])


def _earlier(block: ScheduleBlock, step: timedelta) -> list:
    """The instants at which the same hour of the city's clock struck, so many steps ago."""
    local = block.starts_at.astimezone(clock.zone(block.pipeline.time_zone))
    return [(local - step * times).astimezone(UTC) for times in range(1, MOST_BLOCKS + 1)]


def source_changed(pipeline: Pipeline, state: SourceState) -> bool:
    """Whether the source says that it changed since the last extract that went well and was not suspicious; False where it never said."""
    done = Run.objects.filter(block__pipeline=pipeline, stage=Stage.EXTRACT, state=RunState.DONE)
    last = done.exclude(block__mark=ScheduleBlock.Mark.SUSPICIOUS, details__mark=ScheduleBlock.Mark.SUSPICIOUS).first()
    if last is None:
        return False
    known = last.details.get("source_version", "").rpartition("/")[0]
    if known and state.version:
        return state.version != known
    before = last.details.get("changed_at")
    return bool(before and state.changed_at and state.changed_at.isoformat() != before)


def judge_changes(run: Run, changed: int) -> Verdict:
    """The mark of an incremental load that brought `changed` new, updated and deleted rows: suspicious when it and the ones before it brought none,
    though each time the source said that it had changed. Asks only when nothing changed."""
    if changed:
        return FINE
    # a source that says nothing new is not read at all, so that each load was preceded by its word; a forced one was not
    loads = Run.objects.filter(block__pipeline=run.block.pipeline_id, stage=Stage.LOAD, state=RunState.DONE, is_forced=False, pk__lt=run.pk)
    before = list(loads.select_related("block")[: STANDSTILLS - 1])
    if run.is_forced or not run.block.pipeline.watermark_column or len(before) < STANDSTILLS - 1:
        return FINE
    if any(load.inserted + load.updated + load.deleted or _was_accepted(load) for load in before):
        return FINE
    extract = Run.objects.filter(block=run.block, stage=Stage.EXTRACT, state=RunState.DONE).first()
    if extract is None or not extract.details.get("source_version"):
        return FINE
    return (
        ScheduleBlock.Mark.SUSPICIOUS,
        f"The source said {STANDSTILLS} times running that it had changed, and not one row was new or different. "
        f"Look whether {run.block.pipeline.watermark_column} is still written there.",
    )


def _was_accepted(run: Run) -> bool:
    """Whether a person said that what this run brought is right: from there it is counted anew."""
    return run.details.get("mark") == ScheduleBlock.Mark.SUSPICIOUS != run.block.mark


def too_few(rows: int, held: int) -> str:
    """Why the rows that a snapshot no longer has must not be deleted unasked: a sentence, or "" where enough of them are left. Pure."""
    if rows * 2 >= held:
        return ""
    return f"The source has {rows:,} rows, and the warehouse holds {held:,} of this pipeline: more than half would be deleted. Nothing was loaded."
