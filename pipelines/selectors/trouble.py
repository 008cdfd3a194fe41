"""Trouble: the blocks that a person should look at, told once for each pipeline, state and stage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Max, Min, Q, Window
from django.db.models.functions import RowNumber

from pipelines.models import ScheduleBlock, Stage, State
from pipelines.selectors import faces
from pipelines.selectors.chain import HOP_NAMES
from pipelines.selectors.faces import Face

#: How far back a finished but suspicious block still asks for a person.
SUSPICIOUS_FOR = timedelta(days=35)
SUSPICIOUS = Q(mark=ScheduleBlock.Mark.SUSPICIOUS)
ACCEPT = "Ask the provider whether this is right; if it is, accept it on the block’s page."

#: Where a stage has its trouble: at the place that it writes to, but to extract is to ask the source.
HOPS = {**HOP_NAMES, Stage.EXTRACT: "Source"}


def troubled_blocks(now: datetime):
    """Failed and not made good, held, or suspicious and recent."""
    return ScheduleBlock.objects.filter(
        Q(state=State.FAILED, superseded_at=None) | Q(state=State.HELD) | (SUSPICIOUS & Q(state=State.DONE, starts_at__gte=now - SUSPICIOUS_FOR))
    )


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a pipeline, one a state and stage: the newest block of it speaks for `count` of them."""

    pipeline_id: int
    face: Face
    stage: str
    count: int
    since: datetime
    first_start: datetime
    last_end: datetime
    block_id: int
    message: str
    next_step: str

    @property
    def hop(self) -> str:
        return HOPS[Stage(self.stage)]


def troubles(now: datetime) -> list[Trouble]:
    """All trouble, grouped by pipeline, state and stage, in one query."""
    same = {"partition_by": [F("pipeline_id"), F("state"), F("mark"), F("stage")]}
    rows = (
        troubled_blocks(now)
        .annotate(
            count=Window(Count("pk"), **same),
            since=Window(Min("changed_at"), **same),
            first_start=Window(Min("starts_at"), **same),
            last_end=Window(Max("ends_at"), **same),
            place=Window(RowNumber(), order_by=F("changed_at").desc(), **same),
        )
        .filter(place=1)
    )
    return [
        Trouble(
            pipeline_id=block.pipeline_id,
            face=faces.of_block(block, now),
            stage=block.stage,
            count=block.count,
            since=block.since,
            first_start=block.first_start,
            last_end=block.last_end,
            block_id=block.pk,
            message=block.message,
            next_step=block.next_step or (ACCEPT if block.mark == ScheduleBlock.Mark.SUSPICIOUS else ""),
        )
        for block in rows
    ]
