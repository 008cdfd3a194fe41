"""What was to be done after loads, as pages tell it: by block, by pipeline, and what failed and was not made good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet, Subquery

from pipelines import secrets
from pipelines.models import AfterRun, AfterStep, Pipeline, ScheduleBlock, State
from pipelines.selectors import faces
from pipelines.selectors.faces import Face
from pipelines.upkeep import after

#: What a block's page shows of it; older ones belong to runs that were replaced.
SHOWN = 30

#: What a step does, in few words; the target stands beside it.
DEEDS = {
    AfterStep.Kind.REFRESH: "Refresh the view",
    AfterStep.Kind.ANALYZE: "Renew the statistics of",
    AfterStep.Kind.VACUUM: "Reclaim the space of",
    AfterStep.Kind.POST: "Clear a cache at",
    AfterStep.Kind.RELOAD: "Reload the report at",
    AfterStep.Kind.NOTIFY: "Notify a webhook",
}
_FACES = {
    AfterRun.State.WAITING: faces.WAITING,
    AfterRun.State.RUNNING: faces.RUNNING,
    AfterRun.State.DONE: faces.OK,
    AfterRun.State.FAILED: faces.FAILED,
    AfterRun.State.SKIPPED: Face("unchanged", "Skipped"),
}


@dataclass(frozen=True)
class AfterLine:
    """One time that a step was due. `may_retry`: it failed, and nothing has made up for it."""

    pk: int
    deed: str
    target: str
    face: Face
    at: datetime
    seconds: float | None
    message: str
    run_id: int
    may_retry: bool


@dataclass(frozen=True)
class Afterwards:
    """What was due after the runs of one block, newest run first, each run's in their order."""

    block_id: int
    zone: str
    lines: list[AfterLine]
    moves: bool


@dataclass(frozen=True)
class StepLine:
    """One step of a pipeline, and how it went the last time. `secret` is the name of its variable, or a mask."""

    step: AfterStep
    deed: str
    target: str
    secret: str
    last: AfterLine | None
    last_block: ScheduleBlock | None


def target_words(step: AfterStep) -> str:
    """What a step is about, without secrets; the table of the pipeline where none is named."""
    if step.kind in (AfterStep.Kind.ANALYZE, AfterStep.Kind.VACUUM):
        return step.target or step.pipeline.table
    return secrets.redact(step.target)


def deed_words(step: AfterStep) -> str:
    """What a step does, and to what, in a few words."""
    return f"{DEEDS[AfterStep.Kind(step.kind)]} {target_words(step)}".strip()


def after_json(one: AfterRun) -> dict[str, Any]:
    """What commands print of a step that ended. The names are a contract: scripts read them."""
    return {
        "number": one.pk,
        "pipeline": one.step.pipeline.slug,
        "block": one.run.block_id,
        "run": one.run_id,
        "kind": one.step.kind,
        "target": target_words(one.step),
        "state": one.state,
        "message": one.message,
    }


def of_block(block: ScheduleBlock) -> Afterwards:
    """One query. `block` has its pipeline."""
    rows = _told(AfterRun.objects.filter(run__block=block.pk)).order_by("-run_id", "step__position", "step_id")[:SHOWN]
    found = list(rows)
    open_ = any(one.state in (AfterRun.State.WAITING, AfterRun.State.RUNNING) for one in found)
    return Afterwards(
        block_id=block.pk,
        zone=block.pipeline.time_zone,
        lines=[_line(one) for one in found],
        moves=open_ or block.state in (State.RUNNING, State.WAITING),
    )


def of_pipeline(pipeline: Pipeline) -> list[StepLine]:
    """Its steps in their order, each with its last time. Two queries."""
    last = AfterRun.objects.filter(step=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    steps = list(AfterStep.objects.filter(pipeline=pipeline).annotate(last_pk=Subquery(last)))
    ran = _told(AfterRun.objects).select_related("run__block__pipeline").in_bulk([step.last_pk for step in steps if step.last_pk])
    lines = []
    for step in steps:
        step.pipeline = pipeline
        one = ran.get(step.last_pk)
        lines.append(
            StepLine(
                step=step,
                deed=DEEDS[AfterStep.Kind(step.kind)],
                target=target_words(step),
                secret=secrets.describe(step.secret) if step.secret else "",
                last=_line(one) if one else None,
                last_block=one.run.block if one else None,
            )
        )
    return lines


@dataclass(frozen=True)
class Failure:
    """A step that failed the last time that it was done, and waits for a person."""

    line: AfterLine
    pipeline: Pipeline
    block_id: int

    @property
    def words(self) -> str:
        return f"{self.line.deed} {self.line.target}".strip()


def failures(pipelines: Iterable[Pipeline] | None = None) -> list[Failure]:
    """The active steps (of these pipelines, or of all) that failed the last time they were done, oldest first. One query."""
    rows = _told(after.failed()).order_by("pk")
    if pipelines is not None:
        rows = rows.filter(step__pipeline__in=pipelines)
    return [Failure(line=_line(one), pipeline=one.step.pipeline, block_id=one.run.block_id) for one in rows]


def _told(rows: QuerySet[AfterRun]) -> QuerySet[AfterRun]:
    """The rows with all that a line tells of them."""
    later = AfterRun.objects.filter(step=OuterRef("step"), pk__gt=OuterRef("pk"), state=AfterRun.State.DONE)
    return rows.select_related("step__pipeline", "run").annotate(is_made_good=Exists(later))


def _line(one: AfterRun) -> AfterLine:
    failed = one.state == AfterRun.State.FAILED
    return AfterLine(
        pk=one.pk,
        deed=DEEDS[AfterStep.Kind(one.step.kind)],
        target=target_words(one.step),
        face=faces.RECOVERED if failed and one.is_made_good else _FACES[AfterRun.State(one.state)],
        at=one.finished_at or one.started_at or one.asked_at,
        seconds=(one.finished_at - one.started_at).total_seconds() if one.finished_at and one.started_at else None,
        message=one.message,
        run_id=one.run_id,
        may_retry=failed and not one.is_made_good and one.step.is_active,
    )
