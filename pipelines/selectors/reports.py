"""Blocks as the commands and their JSON twins print them. The names are a contract: scripts read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Prefetch

from pipelines import clock
from pipelines.models import COUNTS, Run, ScheduleBlock
from pipelines.selectors.blocks import earlier_runs, reconcile

#: A stage that the pass did not reach, or did not need.
NOT_RUN = {"run": None, "state": "not run", "attempt": 0, **dict.fromkeys(COUNTS, 0), "seconds": 0.0, "message": ""}


def stage_report(run: Run) -> dict[str, Any]:
    """A run: its counts by their promised names, and its seconds (None while it goes on)."""
    return {"run": run.pk, "state": run.state, "attempt": run.attempt, **run.counts(), "seconds": run.seconds, "message": run.message}


def report(block: ScheduleBlock, runs: Iterable[Run] | None = None, *, since_run: int = 0) -> dict[str, Any]:
    """A block with its pipeline's slug, its window, its state and, by stage, what the newest run counted.

    With `since_run` only runs with a higher number are told: what one command did, not what was stored before.
    """
    runs = list(block.runs.all()) if runs is None else list(runs)
    newest = {run.stage: run for run in sorted(runs, key=lambda run: run.pk) if run.pk > since_run}
    pipeline = block.pipeline
    return {
        "block": block.pk,
        "pipeline": pipeline.slug,
        "dataset": pipeline.dataset.slug,
        "window": {
            "starts_at": block.starts_at.isoformat(),
            "ends_at": block.ends_at.isoformat(),
            "time_zone": pipeline.time_zone,
            "text": clock.window_text(block.starts_at, block.ends_at, pipeline.time_zone),
        },
        "state": block.state,
        "stage": block.stage,
        "mark": block.mark,
        "attempts": block.attempts,
        "due_at": block.due_at.isoformat(),
        "upstream_status": block.upstream_status,
        "message": block.message,
        "error_code": block.error_code,
        "next_step": block.next_step,
        "stages": {stage: stage_report(newest[stage]) if stage in newest else dict(NOT_RUN) for stage in pipeline.stages},
        "rows": reconcile(runs, pipeline.stages, earlier_runs(runs)).as_json(),
    }


def blocks_with_runs(**filters: Any):
    """Blocks as `report` wants them, newest window first, in a fixed number of queries."""
    return (
        ScheduleBlock.objects.filter(**filters)
        .select_related("pipeline__dataset", "pipeline__provider")
        .prefetch_related(Prefetch("runs", queryset=Run.objects.order_by("pk")))
        .order_by("pipeline__slug", "-starts_at")
    )
