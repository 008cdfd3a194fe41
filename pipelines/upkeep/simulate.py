"""Simulation: a day's stages done in earnest, and nothing of it kept.

The stages run in this process, within a transaction that is rolled back, with a lake over the lake (`catalog.overlay`) whose folder
goes afterwards. What a stage reads it really reads, at the source as well. Rows are neither loaded nor published: they are counted,
and written to a folder where somebody asked for that.

The transaction stays open while the source is asked, which no real stage does. So it locks nothing that a worker waits for: the
block is not touched, and its run is one that no worker would make (a negative fence). Only the dataset's own row may be locked, for
which workers wait in the children that do the stages.
"""

from __future__ import annotations

import logging
import secrets as dice
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry
from catalog.overlay import Overlay
from pipelines import blocks, secrets, stages
from pipelines.blocks import Outcome
from pipelines.errors import PipelineError
from pipelines.formats import json_rows
from pipelines.models import COUNTS, Pipeline, Run, RunState, ScheduleBlock, Stage, State, Trigger
from pipelines.stages.load import files_of
from pipelines.stages.note import Note
from pipelines.upkeep.output import Output, rows_of

log = logging.getLogger(__name__)

#: Where a simulation without a folder puts what it would write.
NOWHERE = nullcontext()


@dataclass
class Told:
    """What a simulated day would have brought: a line a stage, its counts, and the error that would have ended it."""

    pipeline: str
    starts_at: datetime
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""
    next_step: str = ""

    @property
    def lines(self) -> list[str]:
        return [f"{stage}, simulated: {told['message']}" for stage, told in self.stages.items()]

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "starts_at": self.starts_at.isoformat(),
            "stages": self.stages,
            "error": self.error,
            "next_step": self.next_step,
        }


def day(pipeline: Pipeline, window: tuple[datetime, datetime], wanted: Sequence[str], *, force: bool = False, output: Output | None = None) -> Told:
    """Do these stages of a window and undo them. What they would have left in the lake and on the portal is written to `output`.

    An error of a stage ends the day and is told, not raised.
    """
    told = Told(pipeline.slug, window[0])
    with tempfile.TemporaryDirectory(prefix="odo-simulate-") as folder, transaction.atomic():
        try:
            with lake.instead(Overlay(Path(folder) / "lake", lake.lake())):
                _rehearse(pipeline, window, wanted, force, output, Path(folder), told)
        except PipelineError as error:
            told.error, told.next_step = secrets.redact(error.message), secrets.redact(error.next_step)
        except Exception as error:
            # as in the runner: a fault of one day must not keep the later ones from being tried
            log.exception("the simulation of %s %s", pipeline.slug, window[0])
            told.error = secrets.redact(f"Unexpected {type(error).__name__}: {str(error)[:500]}")
        finally:
            transaction.set_rollback(True)
    return told


def _rehearse(
    pipeline: Pipeline,
    window: tuple[datetime, datetime],
    wanted: Sequence[str],
    force: bool,
    output: Output | None,
    folder: Path,
    told: Told,
) -> None:
    block = _block(pipeline, window, wanted)
    workdir = folder / "work"
    workdir.mkdir()
    for stage in wanted:
        run = _run(block, stage, force=force)
        note = Note(run, workdir, on_progress=lambda done, total: None)
        match stage:
            case Stage.LOAD:
                outcome = _load(block, output)
            case Stage.PUBLISH:
                outcome = _publish(block, workdir, output)
            case _:
                outcome = stages.carry_out(run, note)
        if not outcome.counts.add_up():
            raise blocks.not_conserved(outcome.counts)
        # the stages after this one look for it
        details = {name: getattr(outcome.counts, name) for name in COUNTS} | {"details": outcome.details, "message": outcome.message}
        Run.objects.filter(pk=run.pk).update(state=RunState.DONE, **details)
        told.stages[stage] = {"message": outcome.message, **{name: getattr(outcome.counts, name) for name in COUNTS}}
        if output:
            output.keep_files(pipeline, window[0], [stage])
        if outcome.is_final:
            return


def _block(pipeline: Pipeline, window: tuple[datetime, datetime], wanted: Sequence[str]) -> ScheduleBlock:
    """The window's block, or one that is only thought of: a row of it would make the tick wait that wants to insert the same."""
    found = ScheduleBlock.objects.filter(pipeline=pipeline, starts_at=window[0]).first()
    block = found or ScheduleBlock(pk=-1 - dice.randbelow(2**62), pipeline=pipeline, starts_at=window[0], ends_at=window[1])
    # of this process only: the row is not saved
    block.pipeline, block.stages, block.state = pipeline, list(wanted), State.RUNNING
    return block


def _run(block: ScheduleBlock, stage: str, *, force: bool) -> Run:
    # not a running one: the block may have such a one, and the next worker must not wait for ours to go
    return Run.objects.create(
        block=block,
        stage=stage,
        state=RunState.CANCELLED,
        finished_at=timezone.now(),
        attempt=1,
        fence=-1 - dice.randbelow(2**62),
        trigger=Trigger.COMMAND,
        asked_by="simulation",
        is_forced=force,
        holder="simulation",
    )


def _load(block: ScheduleBlock, output: Output | None) -> Outcome:
    entries = _rows_files(block)
    rows = sum(entry.rows or 0 for entry in entries)
    message = f"{rows:,} rows in {len(entries):,} file{'s' * (len(entries) != 1)} would be loaded into {block.pipeline.table}"
    return Outcome(blocks.Counts(rows_in=rows, rows_out=rows), message=message)


def _publish(block: ScheduleBlock, workdir: Path, output: Output | None) -> Outcome:
    """Count the rows that the files hold for the portal, and write them to the folder; those of a release are made in the warehouse only."""
    pipeline, number = block.pipeline, 0
    entries = _rows_files(block)
    where = f"{pipeline.portal_resource} of {pipeline.portal.title}" if pipeline.portal else pipeline.portal_resource
    if pipeline.release:
        rows = sum(entry.rows or 0 for entry in entries)
        words = f"{rows:,} rows would be considered for {where}; its release is applied in the warehouse, which a simulation leaves alone"
        return Outcome(blocks.Counts(rows_in=rows, unchanged=rows), message=words)
    shown = {column.name for column in pipeline.dictionary() if column.is_published}
    for entry in entries:
        names = [name for name, _ in entry.metadata.get("columns", []) if name in shown]
        rows = _rows(entry, workdir)
        number += output.keep_rows(pipeline, names, rows) if output else sum(1 for _ in rows)
    return Outcome(blocks.Counts(rows_in=number, rows_out=number, published=number), message=f"{number:,} rows would be sent to {where}")


def _rows_files(block: ScheduleBlock) -> list[CatalogEntry]:
    return [entry for entry in files_of(block) if not entry.metadata.get("role")]


def _rows(entry: CatalogEntry, workdir: Path):
    path = lake.lake().local_path(entry.pointer, workdir, sha256=entry.sha256)
    if entry.id_ext == ".json":
        page, path = path, workdir / f"{entry.id_base}.csv"
        json_rows.write_csv(page, path, dict(map(tuple, entry.metadata["columns"])), rows=entry.rows)
    return rows_of(path)
