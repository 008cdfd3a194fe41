"""Publish: warehouse → portal. Rows go in chunks by key, each acknowledged before the next, so that a broken one goes on where it stopped."""

from __future__ import annotations

import json

from django.db.models import Q

from pipelines import blocks, warehouse
from pipelines.blocks import Counts, Outcome
from pipelines.connectors.base import Column, Connector, Published
from pipelines.errors import DataError, SetupError, TransientError
from pipelines.faults import faultpoint
from pipelines.models import Pipeline, Run, RunState, ScheduleBlock, Stage, State
from pipelines.stages import outside
from pipelines.stages.load import warehouse_of
from pipelines.stages.note import Note
from pipelines.warehouse.tables import Scope


def publish(run: Run, note: Note) -> Outcome:
    """Send the rows that the portal has not seen; all of them when forced. rows_in = published + unchanged."""
    block = run.block
    pipeline = block.pipeline
    columns = public_columns(pipeline)
    if not columns:
        return Outcome(Counts(), message="Nothing was ever loaded, so there is nothing to publish.", mark=block.mark)
    dsn = warehouse_of(pipeline)
    portal = outside.connector(pipeline.portal, note.event)
    portal.preflight(pipeline.portal_resource, columns=columns, key=tuple(pipeline.key))
    scope, after = _whose(block, portal, forced=run.is_forced)
    waiting = warehouse.engine(dsn).count(dsn, pipeline.table, scope, after=after)
    sent = _send(run, note, portal, columns, scope, after, waiting) if waiting or portal.publishes_whole else 0
    rows_in = max(_held_by_warehouse(block), sent)
    portal_rows = _compare(run, portal, note)
    place = f"{pipeline.portal.title} has {portal_rows:,} rows now"
    message = f"{sent:,} rows sent, {rows_in - sent:,} were there already; {place}" if sent else f"Nothing new to send; {place}"
    return Outcome(
        Counts(rows_in=rows_in, rows_out=sent, unchanged=rows_in - sent, published=sent), message=message, details={"portal_rows": portal_rows}
    )


def public_columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns that may leave: those of the table that the dictionary does not keep inside. Raises SetupError when the key may not."""
    dsn = warehouse_of(pipeline)
    have = warehouse.engine(dsn).table_columns(dsn, pipeline.table)
    told = {column.name: column for column in pipeline.dataset.columns.all()}
    # a column that nobody described is withheld: better a gap than a leak
    columns = tuple(Column(name=name, type=told[name].type, label=told[name].label) for name in have if name in told and told[name].is_published)
    withheld = [name for name in pipeline.key if name not in {column.name for column in columns}]
    if have and withheld:
        raise SetupError(
            f"The key {', '.join(withheld)} is not to be published, and without it the portal can't tell rows apart.",
            code="key-withheld",
            next_step="Publish the key column, or drop the publish stage.",
        )
    return columns


def _held_by_warehouse(block: ScheduleBlock) -> int:
    """Rows of this block that the warehouse holds, by its last load."""
    last = block.runs.filter(stage=Stage.LOAD, state=RunState.DONE).first()
    return last.rows_out + last.unchanged if last else 0


def _whose(block: ScheduleBlock, portal: Connector, *, forced: bool) -> tuple[Scope, int]:
    """Whose rows to send, and after which of them."""
    if portal.publishes_whole:
        return Scope(), 0
    after = 0 if forced else blocks.bookkeeper(block).published_seq
    if block.pipeline.is_snapshot:
        return Scope(pipeline_id=block.pipeline_id), after
    return Scope(block_id=block.pk), after


def _send(run: Run, note: Note, portal: Connector, columns: tuple[Column, ...], scope: Scope, after: int, waiting: int) -> int:
    """Send every row of the scope in chunks; each acknowledged one moves the resume point. Raises DataError for rows the portal refuses."""
    pipeline = run.block.pipeline
    resource = pipeline.portal_resource
    note.log(f"{waiting:,} rows to send to {pipeline.portal.title} {resource}")
    sent = 0
    portal.open_publication(resource, columns)
    dsn = warehouse_of(pipeline)
    chunks = warehouse.engine(dsn).rows_after(dsn, pipeline.table, columns, scope, after=after, chunk=pipeline.publish_chunk, run_id=run.pk)
    for seq, rows in chunks:
        # the last moment at which a successor may be noticed before the portal is changed
        blocks.renew(run, done=sent, total=waiting)
        reply = portal.upsert(resource, rows)
        faultpoint("publish.sent")
        _accepted(reply, len(rows), sent, pipeline.portal.title)
        if not portal.publishes_whole:
            blocks.note_published(run, seq)
        sent += len(rows)
        note.progress(sent, waiting)
        note.log(f"{sent:,} of {waiting:,} sent: {reply.created:,} created, {reply.updated:,} updated")
    portal.close_publication(resource)
    return sent


def _accepted(reply: Published, rows: int, before: int, portal: str) -> None:
    """Raise DataError unless the portal took every row, in its own words."""
    words = json.dumps(dict(reply.reply))[:500]
    if reply.errors:
        raise DataError(
            f"{portal} refused {reply.errors:,} of {rows:,} rows (rows {before + 1:,} to {before + rows:,}). It said: {words}",
            code="portal-refused",
            next_step="Correct the rows or the portal's columns, then re-run from publish; what was accepted is not sent again.",
        )
    if reply.created + reply.updated != rows:
        raise DataError(
            f"{portal} was sent {rows:,} rows and counts {reply.created:,} created and {reply.updated:,} updated. It said: {words}",
            code="portal-miscounted",
            next_step="Look at the dataset on the portal, then force the publish stage.",
        )


def _compare(run: Run, portal: Connector, note: Note) -> int:
    """How many rows the portal has, read back. Raises TransientError when it has fewer than the warehouse and nobody else is on the way."""
    pipeline = run.block.pipeline
    # asked before and after the counts: a block that publishes meanwhile explains any difference
    others = _others_on_the_way(run)
    dsn = warehouse_of(pipeline)
    here = warehouse.engine(dsn).count(dsn, pipeline.table, Scope())
    there = portal.published_count(pipeline.portal_resource)
    if there < here and not others and not _others_on_the_way(run):
        raise TransientError(
            f"{pipeline.portal.title} has {there:,} rows, the warehouse {here:,}: {here - there:,} did not arrive.",
            code="portal-short",
            next_step="If it stays so, force the publish stage: it sends every row again.",
        )
    if there > here:
        note.warn(f"{pipeline.portal.title} has {there - here:,} rows that the warehouse does not have.")
    return there


def _others_on_the_way(run: Run) -> bool:
    """Whether another block of the same table may have rows in the warehouse that the portal has not seen yet."""
    pipeline = run.block.pipeline
    same_table = ScheduleBlock.objects.filter(pipeline__table=pipeline.table, pipeline__warehouse=pipeline.warehouse).exclude(pk=run.block_id)
    return same_table.filter(Q(state=State.RUNNING) | Q(stage=Stage.PUBLISH) & ~Q(state=State.DONE)).exists()
