"""Publish: warehouse → portal. Rows go in chunks by key, each acknowledged before the next, so that a broken one goes on where it stopped.

What leaves of a row is the release's business (`release.py`, `offer.py`): here are only rows as the public gets them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from catalog.models import DatasetEvent
from pipelines import blocks
from pipelines.blocks import Counts, Outcome
from pipelines.connectors.base import Column, Connector, Published, SourceState
from pipelines.errors import DataError, NotReady, PermanentError, SetupError, TransientError
from pipelines.faults import faultpoint
from pipelines.models import Pipeline, PortalMode, Run, RunState, ScheduleBlock, Stage, State
from pipelines.stages import describe, outside, pending
from pipelines.stages.columns import compare
from pipelines.stages.note import Note
from pipelines.stages.offer import Offer, offer
from pipelines.warehouse.tables import Scope

#: The word of a pipeline's option `update` with which rows that are on the portal are never exchanged.
NEVER = "never"


def publish(run: Run, note: Note) -> Outcome:
    """Send the rows that the portal has not seen; all of them when forced. rows_in = published + unchanged."""
    block = run.block
    pipeline = block.pipeline
    ours = offer(pipeline)
    if not ours.columns:
        return Outcome(Counts(), message="Nothing was ever loaded, so there is nothing to publish.", mark=block.mark)
    portal = outside.connector(pipeline.portal, note.event)
    job = Publication(run, note, portal, ours)
    try:
        outcome = job.carry_out()
    except TransientError as error:
        if portal.publishes_whole or isinstance(error, NotReady):
            raise
        raise pending.kept(job, error) from error
    pending.withdraw(block)
    return outcome


@dataclass
class Publication:
    """One publication of one block: whose rows, after which of them, and how the portal takes them."""

    run: Run
    note: Note
    portal: Connector
    offer: Offer

    def __post_init__(self):
        self.pipeline = self.run.block.pipeline
        self.dsn, self.engine = self.offer.dsn, self.offer.engine
        self.scope, self.after = _whose(self.run.block, self.portal, forced=self.run.is_forced)
        #: Cells of areas that are left blank, by column: fewer rows than the smallest group share them.
        self.blanked: Counter[str] = Counter()

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.offer.columns

    @property
    def replaces(self) -> bool:
        return self.pipeline.portal_mode == PortalMode.REPLACE and self.portal.can_replace

    def introduced(self) -> tuple[Column, ...]:
        """Tell the portal what to say of the dataset, where it lets itself be told, and ask what it can take: its columns.

        A description that it refuses keeps no rows back, where it has a place for them already. Raises PipelineError.
        """
        refused: PermanentError | None = None
        try:
            if self.portal.can_introduce:
                describe.push(self.pipeline, self.note.log)
        except PermanentError as error:
            refused = error
        try:
            there = self._preflight()
        except SetupError as error:
            if not self.portal.can_introduce or error.code != "not-introduced":
                raise
            if refused:
                raise refused from None
            # somebody deleted there what it was once told of
            describe.push(self.pipeline, self.note.log, is_asked=True)
            there = self._preflight()
        if refused:
            self.note.warn(f"{self.pipeline.portal.title} refused the description of the dataset: {refused.message} {refused.next_step}".strip())
        return there

    def _preflight(self) -> tuple[Column, ...]:
        return self.portal.preflight(self.pipeline.portal_resource, columns=self.columns, key=self.offer.key, replaces=self.replaces)

    def carry_out(self) -> Outcome:
        pipeline, portal = self.pipeline, self.portal
        there = self.introduced()
        self.offer.guard_portal(there)
        described = notice_portal(pipeline, portal.described, self.run, self.note)
        if pipeline.options.get("update") == NEVER and (portal_rows := portal.published_count(pipeline.portal_resource)):
            return self.left_alone(portal_rows, described)
        waiting = self.offer.count(self.scope, after=self.after)
        gone = self.deleted()
        withheld = self.withheld(self.after)
        if self.offer.k and (waiting or gone or withheld):
            # one row more or less may show or hide an area in all the others
            self.after, waiting = 0, self.offer.count(self.scope)
        if self.replaces:
            sent = self.replace() if waiting or gone or withheld or self.differs() else 0
            deleted = gone if sent else 0
        else:
            # first, for a resume point behind rows that were sent must not lie behind deletions that were not
            deleted = self.delete(gone)
            self.take_back(withheld)
            sent = self.send(waiting) if waiting or portal.publishes_whole else 0
            if deleted:
                blocks.note_published(self.run, max(self.last_deleted, blocks.bookkeeper(self.run.block).published_seq))
        if sent and portal.can_introduce:
            # columns that we brought just now are no news of the portal's the next time
            described = _remembered(portal.describe(pipeline.portal_resource))
        held = _held_by_warehouse(self.run.block)
        rows_in = max(held, sent)
        table_rows, portal_rows = _compare(self.run, portal, self.offer, self.note)
        hidden = self.withheld(0)
        message = f"{sent:,} rows sent, {max(rows_in - sent - hidden, 0):,} were there already" if sent else "Nothing new to send"
        message += f", {deleted:,} deleted" * bool(deleted) + f", {hidden:,} are not for the public" * bool(hidden)
        message += f", {self.blanked.total():,} areas left blank (fewer than {self.offer.k} rows)" * bool(self.blanked)
        message += f"; {pipeline.portal.title} has {portal_rows:,} rows now"
        counts = Counts(rows_in=rows_in, rows_out=sent, unchanged=rows_in - sent, published=sent, deleted=deleted)
        # what earlier readings had left to send, or a portal that is replaced whole, brings rows besides those of this block
        details = {"portal_rows": portal_rows, "table_rows": table_rows, "beyond": rows_in - held, "portal": described}
        if self.offer.release:
            details |= {"withheld": hidden, "blanked": dict(self.blanked)}
        return Outcome(counts, message=message, details=details)

    def left_alone(self, portal_rows: int, described: dict[str, Any]) -> Outcome:
        """The rows that are on the portal stay, whatever changed and whoever forces it: so the pipeline's options want it."""
        held = _held_by_warehouse(self.run.block)
        forced = ", though it was forced" * self.run.is_forced
        message = f"The {portal_rows:,} rows on {self.pipeline.portal.title} are left as they are{forced}: its options say update: {NEVER}"
        counts = Counts(rows_in=held, unchanged=held)
        return Outcome(counts, message=message, details={"portal_rows": portal_rows, "portal": described, "left_alone": True})

    def differs(self) -> bool:
        """Whether the portal holds another number of rows than the table: rows without a key leave no trace when they are deleted."""
        return self.portal.published_count(self.pipeline.portal_resource) != self.offer.count(Scope())

    def withheld(self, after: int) -> int:
        """How many rows of the scope, of those written after `after`, the release does not publish."""
        hidden = self.offer.withheld(self.scope)
        return self.engine.count(self.dsn, self.pipeline.table, hidden, after=after) if hidden else 0

    def take_back(self, number: int) -> None:
        """Take off the portal what is no longer for the public there: a rider's trip may turn out to be the operator's own."""
        if not number or not self.portal.can_delete:
            return
        for _, keys in self.offer.withheld_keys(self.scope, self.after, run_id=self.run.pk):
            self._delete(keys)

    def deleted(self) -> int:
        """How many rows were deleted in the warehouse that the portal may still have."""
        self.last_deleted = 0
        number = 0
        if not self.pipeline.key or self.portal.publishes_whole:
            return 0
        for seq, keys in self._tombstones():
            number += len(keys)
            self.last_deleted = seq
        return number

    def _tombstones(self) -> Iterator[tuple[int, list[dict[str, str]]]]:
        return self.engine.deleted_after(
            self.dsn, self.pipeline.table, self.scope, after=self.after, chunk=self.pipeline.publish_chunk, run_id=self.run.pk
        )

    def delete(self, number: int) -> int:
        """Take off the portal what the warehouse deleted. Returns how many. Raises DataError when some are still there."""
        title = self.pipeline.portal.title
        if not number:
            return 0
        if not self.portal.can_delete:
            self.note.warn(f"{number:,} rows were deleted here, and {title} can't delete single rows: they stay there. Replace all rows instead.")
            return 0
        for _, keys in self._tombstones():
            self._delete([self.offer.key_of(key) for key in keys])
        self.note.log(f"{number:,} rows deleted on {title}")
        return number

    def _delete(self, keys: list[dict[str, Any]]) -> None:
        blocks.renew(self.run)
        title = self.pipeline.portal.title
        reply = self.portal.delete(self.pipeline.portal_resource, keys)
        faultpoint("publish.deleted")
        if reply.errors:
            words = json.dumps(dict(reply.reply))[:500]
            raise DataError(
                f"{title} did not delete {reply.errors:,} of {len(keys):,} rows. It said: {words}",
                code="portal-refused",
                next_step="Look at these rows on the portal, then re-run from publish.",
            )

    def replace(self) -> int:
        """Exchange all rows of the portal's dataset for the table's, in one request. Returns how many."""
        path = self.note.workdir / "replace.csv"
        rows, last = pending.write_csv(path, self.chunks(Scope(), 0), [column.name for column in self.columns])
        blocks.renew(self.run, done=0, total=rows)
        reply = self.portal.replace(self.pipeline.portal_resource, self.columns, path, rows)
        faultpoint("publish.sent")
        _accepted(reply, rows, 0, self.pipeline.portal.title)
        blocks.note_published(self.run, max(last, self.last_deleted, self.after))
        self.note.log(f"{rows:,} rows in the place of all that were there")
        return rows

    def chunks(self, scope: Scope, after: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        return self.offer.chunks(scope, after, run_id=self.run.pk, blanked=self.blanked)

    def send(self, waiting: int) -> int:
        """Send every row of the scope in chunks; each acknowledged one moves the resume point. Raises DataError for rows the portal refuses."""
        pipeline, resource = self.pipeline, self.pipeline.portal_resource
        self.note.log(f"{waiting:,} rows to send to {pipeline.portal.title} {resource}")
        sent = 0
        self.portal.open_publication(resource, self.columns)
        for seq, rows in self.chunks(self.scope, self.after):
            # the last moment at which a successor may be noticed before the portal is changed
            blocks.renew(self.run, done=sent, total=waiting)
            reply = self.portal.upsert(resource, rows)
            faultpoint("publish.sent")
            _accepted(reply, len(rows), sent, pipeline.portal.title)
            if not self.portal.publishes_whole:
                blocks.note_published(self.run, seq)
            sent += len(rows)
            self.note.progress(sent, waiting)
            self.note.log(f"{sent:,} of {waiting:,} sent: {reply.created:,} created, {reply.updated:,} updated")
        self.portal.close_publication(resource)
        return sent


def notice_portal(pipeline: Pipeline, state: SourceState | None, run: Run, note: Note) -> dict[str, Any]:
    """Tell on the dataset's timeline what changed on the portal since the last publication; returns what to remember of it."""
    if state is None:
        return {}
    now = _remembered(state)
    last = Run.objects.filter(block__pipeline=pipeline, stage=Stage.PUBLISH, state=RunState.DONE, details__portal__isnull=False).first()
    before = last.details["portal"] if last else {}
    told = [f"{name} was {before[name]!r} and is {now[name]!r} now" for name in now if name != "columns" and before.get(name, now[name]) != now[name]]
    if before and (changes := compare(before.get("columns", []), now["columns"])):
        told.insert(0, str(changes))
    if told:
        text = f"{pipeline.portal.title} changed {pipeline.portal_resource}: {'; '.join(told)}."
        note.warn(text)
        DatasetEvent.objects.create(
            dataset=pipeline.dataset, kind=DatasetEvent.Kind.PORTAL, source=pipeline.slug, text=text, details=now, run_id=run.pk
        )
    return now


def _remembered(state: SourceState) -> dict[str, Any]:
    """What is kept of a portal's dataset, to be compared with at the next publication."""
    return {
        "columns": [[column.name, column.type] for column in state.columns],
        "title": state.title,
        "description": state.description[:2_000],
        "licence": state.licence,
        "row identifier": state.key,
    }


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


def _compare(run: Run, portal: Connector, ours: Offer, note: Note) -> tuple[int, int]:
    """How many rows the table has for the public, and how many the portal, read back.

    Raises TransientError when the portal has fewer than the warehouse and nobody else is on the way.
    """
    pipeline = run.block.pipeline
    # asked before and after the counts: a block that publishes meanwhile explains any difference
    others = _others_on_the_way(run)
    here = ours.count(Scope())
    there = portal.published_count(pipeline.portal_resource)
    if there < here and not others and not _others_on_the_way(run):
        raise TransientError(
            f"{pipeline.portal.title} has {there:,} rows, the warehouse {here:,}: {here - there:,} did not arrive.",
            code="portal-short",
            next_step="If it stays so, force the publish stage: it sends every row again.",
        )
    if there > here:
        note.warn(f"{pipeline.portal.title} has {there - here:,} rows that the warehouse does not have.")
    return here, there


def _others_on_the_way(run: Run) -> bool:
    """Whether another block of the same table may have rows in the warehouse that the portal has not seen yet."""
    pipeline = run.block.pipeline
    same_table = ScheduleBlock.objects.filter(pipeline__table=pipeline.table, pipeline__warehouse=pipeline.warehouse).exclude(pk=run.block_id)
    return same_table.filter(Q(state=State.RUNNING) | Q(stage=Stage.PUBLISH) & ~Q(state=State.DONE)).exists()
