"""Extract: source → lake, raw. Pages stream into the lake as files; a source that has not changed is left alone."""

from __future__ import annotations

import hashlib
import json

from catalog import lake
from catalog.models import Layer
from pipelines import blocks
from pipelines.blocks import Counts, Outcome
from pipelines.connectors.base import FetchRequest, SourceState
from pipelines.errors import TransientError
from pipelines.faults import faultpoint
from pipelines.models import Pipeline, Run, RunState, ScheduleBlock, Stage
from pipelines.stages import outside
from pipelines.stages.columns import describe_columns, notice_columns, wanted
from pipelines.stages.metadata import describe_dataset
from pipelines.stages.note import Note


def extract(run: Run, note: Note) -> Outcome:
    """Fetch the block's rows. Rows in are what the source counts, rows out what lies in the lake; they must be equal."""
    block = run.block
    pipeline = block.pipeline
    source = outside.connector(pipeline.provider, note.event)
    before = source.describe(pipeline.resource)
    describe_dataset(before, pipeline, note)
    drift = notice_columns(before, pipeline, note)
    version = version_of(before, pipeline)
    if version and not run.is_forced and version == blocks.bookkeeper(block).source_version:
        return _unchanged(block, before)

    columns = wanted(before, pipeline)
    # with the source's own types: a steward's word may be taken back, and the files must not remember it
    types = {column.name: column.type for column in before.columns}
    told = [[column.name, types[column.name]] for column in columns]
    describe_columns(pipeline, columns, note, stats=before.metadata.get("column_stats"))
    request = FetchRequest(
        columns=columns,
        order=tuple(pipeline.key),
        window_column=pipeline.window_column,
        starts_at=block.starts_at if pipeline.window_column else None,
        ends_at=block.ends_at if pipeline.window_column else None,
        time_zone=pipeline.time_zone,
        page_size=pipeline.page_size,
        in_flight=pipeline.pages_in_flight,
    )
    rows = source.count(pipeline.resource, request)
    note.log(f"{pipeline.resource} of {pipeline.provider.title} has {rows:,} rows for this window")
    note.progress(0, rows)

    entries = []
    read = size = 0
    for fetched in source.fetch(pipeline.resource, request, rows=rows, workdir=note.workdir, progress=note.progress):
        faultpoint("extract.page")
        entries.append(
            lake.shelve(
                dataset=pipeline.dataset,
                source=pipeline.slug,
                layer=Layer.RAW,
                window=(block.starts_at, block.ends_at),
                file=fetched.path,
                name=fetched.name,
                sha256=fetched.sha256,
                bytes=fetched.bytes,
                rows=fetched.rows,
                origin=fetched.origin,
                metadata={**fetched.metadata, "columns": told},
                run_id=run.pk,
            )
        )
        # the lake linked or uploaded the file; its copy here would pile up
        fetched.path.unlink(missing_ok=True)
        read += fetched.rows
        size += fetched.bytes
        note.log(f"{fetched.name}: {fetched.rows:,} rows, {fetched.bytes:,} bytes, sha256 {fetched.sha256[:12]}")

    if rows:
        _unmoved(source.count(pipeline.resource, request), rows, read)
        after = source.describe(pipeline.resource)
        if after.version != before.version:
            note.warn("The source changed while it was read, though not in its count; the next run will read it again.")
    lake.withdraw_others(pipeline.slug, Layer.RAW, block.starts_at, entries)
    mark, message = _judge(block, rows)
    return Outcome(
        Counts(rows_in=rows, rows_out=read, bytes=size),
        message=message or f"{read:,} rows in {len(entries)} file{'s' * (len(entries) != 1)}",
        mark=mark,
        details={
            "source_version": version,
            "files": len(entries),
            "entries": [entry.pk for entry in entries],
            "changed_at": before.changed_at.isoformat() if before.changed_at else None,
            "drift": drift,
        },
    )


def version_of(state: SourceState, pipeline: Pipeline) -> str:
    """What must be the same for a second read to be needless: the source's version, and what we ask of it."""
    if not state.version:
        return ""
    taken = [[column.name, column.type] for column in state.columns if not pipeline.columns or column.name in pipeline.columns]
    asked = [
        taken, pipeline.resource, pipeline.columns, pipeline.types, pipeline.key, pipeline.window_column, pipeline.version_column,
        pipeline.table, pipeline.warehouse, pipeline.load_mode, pipeline.portal_id, pipeline.portal_resource, pipeline.stages,
    ]  # fmt: skip
    return f"{state.version}/{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"


def _unchanged(block: ScheduleBlock, state: SourceState) -> Outcome:
    """The lake, the warehouse and the portal have this version already."""
    last = Run.objects.filter(block__pipeline=block.pipeline_id, stage=Stage.EXTRACT, state=RunState.DONE)
    if not block.pipeline.is_snapshot:
        last = last.filter(block=block)
    found = last.first()
    rows = found.rows_out if found else 0
    since = f" since {state.changed_at:%Y-%m-%d %H:%M} UTC" if state.changed_at else ""
    return Outcome(
        Counts(rows_in=rows, unchanged=rows),
        message=f"The source has not changed{since}.",
        mark=ScheduleBlock.Mark.UNCHANGED,
        is_final=True,
        details={"evidence_run": found.pk if found else None},
    )


def _unmoved(now: int, rows: int, read: int) -> None:
    """Raise TransientError unless the source counted the same before and after, and we have them all."""
    if now != rows or read != rows:
        raise TransientError(
            f"The source changed while it was read: {rows:,} rows before, {read:,} read, {now:,} after. Nothing was loaded.",
            code="source-moved",
        )


def _judge(block: ScheduleBlock, rows: int) -> tuple[str, str]:
    """No rows: a quiet window is empty; one that had rows and has none any more is suspicious."""
    if rows:
        return ScheduleBlock.Mark.NONE, ""
    before = bool(block.rows)
    if block.pipeline.is_snapshot:
        before = before or ScheduleBlock.objects.filter(pipeline=block.pipeline, rows__gt=0).exists()
    window = "" if block.pipeline.is_snapshot else " for this window"
    if not before:
        return ScheduleBlock.Mark.EMPTY, f"The source has no rows{window}."
    return ScheduleBlock.Mark.SUSPICIOUS, f"The source has no rows{window}, and had some before. The warehouse and the portal were left as they are."
