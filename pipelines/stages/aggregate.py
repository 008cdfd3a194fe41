"""Aggregate: lake, ready → lake, aggregated. The vehicles that cameras saw become counts by the quarter hour, and the rows that are loaded."""

from __future__ import annotations

from catalog.models import Layer
from pipelines.blocks import Outcome
from pipelines.errors import SetupError
from pipelines.faults import faultpoint
from pipelines.models import Run, ScheduleBlock
from pipelines.stages import documents
from pipelines.stages.documents import Desk
from pipelines.stages.load import DOCUMENT, entries_of
from pipelines.stages.note import Note
from pipelines.stages.refusals import is_suspicious

NOTHING = "The lake has no ready documents for this window."


def aggregate(run: Run, note: Note) -> Outcome:
    """Count the block's ready documents. Raises PipelineError.

    rows_in and rows_out are vehicles, so that none is lost; `made` in the details are the rows that come of them.
    """
    block = run.block
    pipeline = block.pipeline
    if pipeline.format not in documents.COUNTING:
        raise SetupError(
            f"Nothing is known that counts the rows of the format {pipeline.format!r}.",
            code="no-such-format",
            next_step=f"Take aggregate out of the stages of {pipeline.title}.",
        )
    entries = documents.of_role(entries_of(block, [Layer.READY]), DOCUMENT)
    desk = Desk(run, note, Layer.AGGREGATED, entries)
    tally = desk.tally
    total = sum(entry.rows or 0 for entry in entries)
    note.progress(0, total)
    for entry in entries:
        faultpoint("aggregate.document")
        before = tally.rows_in
        with desk.folder() as folder:
            desk.take(desk.reader.aggregate(desk.local_path(entry), entry.id_base, folder), entry.pointer, [entry])
        documents.refuse_lost(entry.pointer, tally.rows_in - before, entry.rows or 0)
        note.progress(tally.rows_in, total)
    details = desk.close()
    refused = f", {tally.rejected:,} rejected" * bool(tally.rejected)
    return Outcome(
        desk.counts(),
        message=f"{tally.rows_out:,} of {tally.rows_in:,} vehicles in {desk.table_rows:,} rows{refused}" if entries else NOTHING,
        mark=ScheduleBlock.Mark.SUSPICIOUS if is_suspicious(tally) else ScheduleBlock.Mark.NONE,
        details={**details, "made": desk.table_rows},
    )
