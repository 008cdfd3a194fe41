"""Runs and blocks as lists that go on by key, and how long a pipeline's runs take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Q

from catalog import asked
from pipelines.models import Pipeline, Run, RunState, ScheduleBlock, Stage, State, Trigger
from pipelines.selectors.schedule import GRID_DAYS
from pipelines.selectors.trouble import SUSPICIOUS, SUSPICIOUS_FOR

RUNS_A_PAGE = 100


# a pipeline's runs and their durations


@dataclass(frozen=True)
class StagePace:
    """How a stage usually goes, by its good runs of 28 days."""

    stage: str
    runs: int
    seconds: float


def paces(pipeline: Pipeline, now: datetime) -> dict[str, StagePace]:
    """Stage to its usual seconds. One query."""
    took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    rows = (
        Run.objects.filter(block__pipeline=pipeline, state=RunState.DONE, started_at__gte=now - timedelta(days=GRID_DAYS))
        .values("stage")
        .annotate(runs=Count("pk"), took=Avg(took))
        .order_by()
    )
    return {row["stage"]: StagePace(row["stage"], row["runs"], row["took"].total_seconds()) for row in rows}


@dataclass(frozen=True)
class Durations:
    """The last runs of a pipeline, oldest first, as a table and as columns for a chart (seconds since 1970, a series a stage)."""

    runs: list[Run]
    paces: list[StagePace]
    chart: dict


def durations(pipeline: Pipeline, now: datetime, limit: int = 300) -> Durations:
    """Two queries: the runs, and the usual pace of each stage."""
    latest = Run.objects.filter(block__pipeline=pipeline, state__in=[RunState.DONE, RunState.UNCHANGED, RunState.FAILED, RunState.CRASHED])
    runs = sorted(latest.select_related("block__pipeline").order_by("-pk")[:limit], key=lambda run: (run.started_at, run.pk))
    usual = paces(pipeline, now)
    # how long a failure took says nothing about the pace
    good = [run for run in runs if run.state == RunState.DONE]
    return Durations(
        runs=runs[::-1],
        paces=[usual[stage] for stage in pipeline.stages if stage in usual],
        chart={
            "zone": pipeline.time_zone,
            "x": [round(run.started_at.timestamp()) for run in good],
            "seconds": {stage: [round(run.seconds, 2) if run.stage == stage else None for run in good] for stage in pipeline.stages},
            "rows": {"rows read": [run.rows_in if run.stage == pipeline.stages[0] else None for run in good]},
        },
    )


@dataclass(frozen=True)
class RunFilter:
    """What a list of runs is narrowed to; every part may be empty. `before` is the run number after which the page goes on."""

    pipeline: str = ""
    stage: str = ""
    state: str = ""
    trigger: str = ""
    day: date | None = None
    before: int | None = None


@dataclass(frozen=True)
class RunPage:
    runs: list[Run]
    next_before: int | None


def run_page(wanted: RunFilter, size: int = RUNS_A_PAGE) -> RunPage:
    """Runs, the newest first, a page at a time, by key: runs that begin meanwhile move nothing. One query."""
    runs = Run.objects.select_related("block__pipeline")
    if wanted.pipeline:
        runs = runs.filter(block__pipeline__slug=wanted.pipeline)
    if wanted.stage:
        runs = runs.filter(stage=wanted.stage)
    if wanted.state == "bad":
        runs = runs.filter(state__in=[RunState.FAILED, RunState.CRASHED], superseded_at=None)
    elif wanted.state:
        runs = runs.filter(state=wanted.state)
    if wanted.trigger:
        runs = runs.filter(trigger=wanted.trigger)
    if wanted.day:
        start, end = asked.span(wanted.day)
        runs = runs.filter(started_at__gte=start, started_at__lt=end)
    if wanted.before:
        runs = runs.filter(pk__lt=wanted.before)
    found = list(runs.order_by("-pk")[: size + 1])
    return RunPage(found[:size], found[size - 1].pk if len(found) > size else None)


#: The choices of the filters above the list of runs, with an empty one that means all.
RUN_STATES = [("bad", "Failed, not made good"), *RunState.choices]
STAGES = Stage.choices
TRIGGERS = Trigger.choices


# blocks in a state, as a list: where the counters of the first page lead

BLOCK_LISTS = {
    "failed": "Failed and not made good",
    "suspicious": "Suspicious",
    "held": "Held",
    "running": "Running",
    "waiting": "Waiting",
}


@dataclass(frozen=True)
class BlockPage:
    blocks: list[ScheduleBlock]
    next_before: int | None


def block_page(state: str, pipeline: str, before: int | None, now: datetime, size: int = RUNS_A_PAGE) -> BlockPage:
    """Blocks of one of BLOCK_LISTS, newest number first, by key. One query. Raises KeyError for another word."""
    narrowed = {
        "failed": Q(state=State.FAILED, superseded_at=None),
        "suspicious": SUSPICIOUS & (Q(state=State.HELD) | Q(state=State.DONE, starts_at__gte=now - SUSPICIOUS_FOR)),
        "held": Q(state=State.HELD) & ~SUSPICIOUS,
        "running": Q(state=State.RUNNING),
        "waiting": Q(state=State.WAITING),
    }[state]
    blocks = ScheduleBlock.objects.filter(narrowed).select_related("pipeline")
    if pipeline:
        blocks = blocks.filter(pipeline__slug=pipeline)
    if before:
        blocks = blocks.filter(pk__lt=before)
    found = list(blocks.order_by("-pk")[: size + 1])
    return BlockPage(found[:size], found[size - 1].pk if len(found) > size else None)
