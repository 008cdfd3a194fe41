"""Un-publish: take the rows of a span of days off the portal again, and forget that they were published.

The rows are those that the warehouse has of the span's blocks, told by their keys: what other pipelines or people have put into the
same dataset stays. The blocks are held first, so that nobody publishes them meanwhile, and stay held until a person publishes them
again; `catchup` for the stage publish takes them too. What breaks off half-way may be asked for again: a row that is gone is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from catalog import audit
from catalog.audit import Actor
from pipelines import blocks, clock
from pipelines.blocks import UNPUBLISHED, Verdict
from pipelines.errors import DataError, PipelineError, SetupError
from pipelines.models import Pipeline, PortalMode, ScheduleBlock, Stage, State, Trigger
from pipelines.stages import outside
from pipelines.stages.offer import Offer, offer
from pipelines.warehouse.tables import Scope

Tell = Callable[[str], None]


def refusal(pipeline: Pipeline) -> str:
    """Why days of this pipeline can't be taken off its portal; "" where they can."""
    if Stage.PUBLISH not in pipeline.stages or not pipeline.portal_id:
        return f"{pipeline.title} is not published."
    if pipeline.is_snapshot:
        return f"{pipeline.title} is read as a whole, not by windows, so it has no days that could be taken off."
    if not pipeline.key:
        return f"{pipeline.title} has no key, so its rows can't be told apart on the portal."
    if not pipeline.portal.connector_class.can_delete:
        return f"{pipeline.portal.title} can't delete single rows."
    if pipeline.portal_mode == PortalMode.REPLACE:
        return f"{pipeline.title} replaces all rows of the portal each time: what is taken off would come back with the next block."
    return ""


@dataclass(frozen=True)
class Line:
    """A block of the span and its rows for the public; `skip` says why it is left alone."""

    block: ScheduleBlock
    rows: int
    skip: str = ""


@dataclass(frozen=True)
class Preview:
    """What un-publishing a span would do."""

    pipeline: Pipeline
    starts_at: datetime
    ends_at: datetime
    lines: list[Line]

    @property
    def taken(self) -> list[Line]:
        return [line for line in self.lines if not line.skip]

    @property
    def rows(self) -> int:
        return sum(line.rows for line in self.taken)

    @property
    def mark(self) -> str:
        """Another one when the blocks have moved since: what a page showed is what it may do."""
        return hashlib.sha256(json.dumps([[line.block.pk, line.block.fence, line.block.state] for line in self.lines]).encode()).hexdigest()[:16]


@dataclass
class Done:
    """What became of it: `deleted` rows, the blocks that are held or `asked` to publish again, and those that were refused."""

    held: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    refused: list[Verdict] = field(default_factory=list)
    rows: int = 0
    deleted: int = 0

    def words(self, portal: str) -> str:
        blocks_of = f"{len(self.held):,} block{'s' * (len(self.held) != 1)}"
        told = f"{self.deleted:,} rows of {blocks_of} deleted on {portal}"
        if self.deleted < self.rows:
            told += f", where {self.rows - self.deleted:,} were not there any more"
        told += f"; {len(self.asked):,} asked to publish again" if self.asked else "; held until somebody publishes them again" if self.held else ""
        return told + (f"; {len(self.refused):,} left alone ({self.refused[0].text})" if self.refused else "") + "."


def preview(pipeline: Pipeline, starts_at: datetime, ends_at: datetime) -> Preview:
    """The blocks whose windows lie in the span, with their rows in the warehouse. Changes nothing. Raises SetupError where it can't be done."""
    if words := refusal(pipeline):
        raise SetupError(words, code="not-unpublishable", next_step="Choose a pipeline that publishes days by key to a portal that can delete.")
    ours = offer(pipeline)
    found = ScheduleBlock.objects.filter(pipeline=pipeline, starts_at__gte=starts_at, ends_at__lte=ends_at, fence__gt=0).order_by("starts_at")
    return Preview(pipeline, starts_at, ends_at, [_line(block, ours) for block in found.select_related("pipeline")])


def _line(block: ScheduleBlock, ours: Offer) -> Line:
    rows = ours.count(Scope(block_id=block.pk)) if ours.columns else 0
    return Line(block, rows, "it is running: wait for it, or cancel it" if block.state == State.RUNNING else "")


def unpublish(
    found: Preview, *, actor: Actor, reason: str = "", republish: bool = False, trigger: str = Trigger.BUTTON, tell: Tell = lambda words: None
) -> Done:
    """Take the rows of the preview's blocks off the portal. With `republish` the blocks then run on from publish; the caller rings.

    Each block and the whole leave their audit rows. Raises PipelineError of the portal; the blocks are held then, and it may be
    asked for again.
    """
    pipeline, done = found.pipeline, Done()
    for line in found.lines:
        verdict = blocks.unpublish(line.block.pk, actor=actor, reason=reason, seen_fence=line.block.fence)
        if verdict.moved:
            done.held.append(verdict.block_id)
        else:
            done.refused.append(verdict)
    span = clock.window_text(found.starts_at, found.ends_at, pipeline.time_zone)
    try:
        _delete(pipeline, done, tell)
    except PipelineError as error:
        result = f"{span}: broke off after {done.deleted:,} rows. {error.message}"[:300]
        audit.write(actor, "unpublish", kind="pipeline", target=pipeline.slug, reason=reason, result=result)
        raise
    # somebody may have released a block while its rows were going: what it has sent since is perhaps gone again
    meanwhile = ScheduleBlock.objects.filter(pk__in=done.held).exclude(state=State.HELD, error_code=UNPUBLISHED)
    for block in meanwhile:
        tell(f"{block} was released while its rows were deleted: publish it once more.")
    if republish:
        for pk in done.held:
            if blocks.requeue(pk, actor=actor, reason=reason, trigger=trigger).moved:
                done.asked.append(pk)
    result = f"{span}: {done.words(pipeline.portal.title)}"[:300]
    audit.write(actor, "unpublish", kind="pipeline", target=pipeline.slug, reason=reason, result=result, blocks=done.held)
    return done


def _delete(pipeline: Pipeline, done: Done, tell: Tell) -> None:
    """Delete the rows of the held blocks on the portal, in chunks. Raises DataError where some stay, else what the portal raises."""
    ours = offer(pipeline)
    if not ours.columns:
        return
    portal = outside.connector(pipeline.portal)
    for number, pk in enumerate(done.held, start=1):
        for keys in _keys(ours, pk):
            reply = portal.delete(pipeline.portal_resource, keys)
            done.rows += len(keys)
            done.deleted += reply.deleted
            if reply.errors:
                raise DataError(
                    f"{pipeline.portal.title} did not delete {reply.errors:,} of {len(keys):,} rows. It said: {json.dumps(dict(reply.reply))[:500]}",
                    code="portal-refused",
                    next_step="Look at these rows on the portal, then un-publish the same days again.",
                )
        tell(f"{number:,} of {len(done.held):,} blocks: {done.deleted:,} rows deleted.")


def _keys(ours: Offer, block_id: int) -> Iterator[list[dict[str, Any]]]:
    """The portal's keys of a block's rows, in chunks; also of those that the warehouse has deleted and the portal may still have."""
    pipeline, scope = ours.pipeline, Scope(block_id=block_id)
    how = {"after": 0, "chunk": pipeline.publish_chunk, "run_id": 0}
    for _, rows in ours.engine.rows_after(ours.dsn, pipeline.table, ours.key_columns, ours.public(scope), **how):
        yield [ours.key_of(row) for row in rows]
    for _, keys in ours.engine.deleted_after(ours.dsn, pipeline.table, scope, **how):
        yield [ours.key_of(key) for key in keys]
