"""Blocks as JSON: what the commands print and a block's page gives. The names are a contract: scripts read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Prefetch

from pipelines import clock
from pipelines.models import COUNTS, Run, ScheduleBlock
from pipelines.selectors.chain import earlier_runs, evidence_run, reconcile

#: A stage that the pass did not reach, or did not need.
NOT_RUN = {"run": None, "state": "not run", "attempt": 0, **dict.fromkeys(COUNTS, 0), "seconds": 0.0, "message": ""}


def _stage(run: Run) -> dict[str, Any]:
    """A run: its counts by their promised names, and its seconds (None while it goes on)."""
    return {"run": run.pk, "state": run.state, "attempt": run.attempt, **run.counts(), "seconds": run.seconds, "message": run.message}


def report(block: ScheduleBlock, *, since_run: int = 0, earlier: Iterable[Run] | None = None) -> dict[str, Any]:
    """A block with its pipeline's slug, its window, its state and, by stage, what the newest run counted.

    With `since_run` only runs with a higher number are told: what one command did, not what was stored before. `earlier` are
    the runs of the block that has the evidence, where the source was found unchanged; None: look them up.
    """
    runs = list(block.runs.all())
    newest = {run.stage: run for run in sorted(runs, key=lambda run: run.pk) if run.pk > since_run}
    pipeline = block.pipeline
    return {
        "block": block.pk,
        "pipeline": pipeline.slug,
        "dataset": pipeline.dataset.slug,
        "window": _window(block),
        "state": block.state,
        "stage": block.stage,
        "mark": block.mark,
        "attempts": block.attempts,
        "due_at": block.due_at.isoformat(),
        "superseded": block.superseded_at is not None,
        "upstream_status": block.upstream_status,
        "rejected": block.rejected,
        "flags": block.flags,
        "message": block.message,
        "error_code": block.error_code,
        "next_step": block.next_step,
        "stages": {stage: _stage(newest[stage]) if stage in newest else dict(NOT_RUN) for stage in pipeline.stages},
        "rows": reconcile(runs, pipeline.stages, earlier_runs(runs) if earlier is None else earlier).as_json(),
    }


def _window(block: ScheduleBlock) -> dict[str, str]:
    """The block's span: two UTC instants, the zone of its pipeline, and the words for it there."""
    zone = block.pipeline.time_zone
    return {
        "starts_at": block.starts_at.isoformat(),
        "ends_at": block.ends_at.isoformat(),
        "time_zone": zone,
        "text": clock.window_text(block.starts_at, block.ends_at, zone),
    }


def report_all(blocks: Iterable[ScheduleBlock], *, since_run: int = 0) -> list[dict[str, Any]]:
    """The reports of blocks from `blocks_with_runs`, in their order; two more queries at most, however many there are."""
    blocks = list(blocks)
    named = {block.pk: evidence for block in blocks if (evidence := evidence_run(block.runs.all()))}
    owners = dict(Run.objects.filter(pk__in=named.values()).values_list("pk", "block")) if named else {}
    runs_of: dict[int, list[Run]] = {}
    for run in Run.objects.filter(block__in=set(owners.values())).order_by("pk") if owners else ():
        runs_of.setdefault(run.block_id, []).append(run)
    return [report(block, since_run=since_run, earlier=runs_of.get(owners.get(named.get(block.pk, 0), 0), [])) for block in blocks]


def blocks_with_runs(**filters: Any):
    """Blocks as `report` wants them, newest window first, in a fixed number of queries."""
    return (
        ScheduleBlock.objects.filter(**filters)
        .select_related("pipeline__dataset", "pipeline__provider")
        .prefetch_related(Prefetch("runs", queryset=Run.objects.order_by("pk")))
        .order_by("pipeline__slug", "-starts_at")
    )
