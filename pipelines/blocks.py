"""The life of a block: the only module that changes a block's state.

    WAITING --claim--> RUNNING --advance--> WAITING (next stage) | DONE | HELD (the pass ends before the last stage)
                          |-----fail------> WAITING (later)      | FAILED
                          |-----reap------> WAITING (now)        | FAILED        the lease ran out
                          `-----cancel----> HELD
    WAITING, FAILED --hold--> HELD        WAITING, FAILED, HELD, DONE --requeue(stage)--> WAITING

Each transition is one UPDATE whose WHERE names the state or the lease that it leaves; no row changed means that somebody
else was first. Times are the database's, so that hosts may disagree about theirs. Every claim raises the fence, and every
exit asks for it: a worker whose lease ran out moves nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Max, Min, Q, Value, When
from django.db.models.functions import Greatest, Now

from catalog import audit
from catalog.audit import Actor
from pipelines import clock
from pipelines.errors import DataError, LeaseLost, NotReady, PermanentError, PipelineError, TransientError
from pipelines.models import COUNTS, AfterRun, AfterStep, LogLine, Pipeline, Provider, Run, RunState, ScheduleBlock, Stage, State, Trigger

FIRST_RETRY_SECONDS = 30
LONGEST_RETRY_SECONDS = 3600
#: What the source asked for is honoured up to a day; longer is a mistake somewhere.
LONGEST_WAIT_SECONDS = 86_400


#: Stages that are a function of their input alone: run again, what they said of it before is taken back. (A load that changed half
#: a table stays suspicious, though it changes nothing when it is run again.)
JUDGES_ANEW = (Stage.STANDARDIZE, Stage.ENRICH, Stage.AGGREGATE)

#: What a cancelled stage leaves behind, in words.
KEPT = {
    Stage.EXTRACT: "The warehouse and the portal are as they were.",
    Stage.PUBLISH: "What the portal had taken stays there; a later run goes on after it.",
}


@dataclass(frozen=True)
class Counts:
    """What a stage did with its rows: rows_in = rows_out + unchanged + rejected + duplicates."""

    rows_in: int = 0
    rows_out: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0
    duplicates: int = 0
    published: int = 0
    bytes: int = 0

    def add_up(self) -> bool:
        return self.rows_in == self.rows_out + self.unchanged + self.rejected + self.duplicates


@dataclass(frozen=True)
class Outcome:
    """How a stage ended well. `is_final` ends the block here: nothing changed, so the later stages have nothing to do."""

    counts: Counts
    message: str = ""
    mark: str = ScheduleBlock.Mark.NONE
    is_final: bool = False
    details: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answer to a press: moved, or refused with the reason in words."""

    moved: bool
    text: str
    block_id: int


# claim and the exits of a run


def claim(block_id: int, *, holder: str) -> Run | None:
    """Take a due block with a lease, and open a Run for its next stage. None: it isn't due, or somebody or a limit was first."""
    with transaction.atomic():
        # block, then pipeline, then provider: everybody who locks takes this order, so no two can wait for each other
        waiting = ScheduleBlock.objects.select_related("pipeline").select_for_update(of=("self",))
        block = waiting.filter(pk=block_id, state=State.WAITING, due_at__lte=Now()).first()
        if block is None or not _has_room(block):
            return None
        ScheduleBlock.objects.filter(pk=block.pk).update(
            state=State.RUNNING,
            holder=holder,
            lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS),
            fence=F("fence") + 1,
            attempts=F("attempts") + 1,
            cancel_asked_at=None,
            cancel_asked_by="",
            progress_done=None,
            progress_total=None,
            changed_at=Now(),
        )
        block.refresh_from_db()
        return Run.objects.create(
            block=block,
            stage=block.stage,
            attempt=block.attempts,
            fence=block.fence,
            trigger=block.trigger,
            asked_by=block.asked_by,
            asked_because=block.asked_because,
            is_forced=block.is_forced,
            is_rebuild=block.is_rebuild,
            holder=holder,
            queued_at=max(block.due_at, block.created_at),
        )


def _has_room(block: ScheduleBlock) -> bool:
    """Whether the outside system of the next stage may take one more. The row locks are held for the milliseconds of a claim."""
    pipeline = block.pipeline
    # two blocks of a snapshot read and merge the same rows: one after the other. The pipeline's row is the turnstile.
    if pipeline.is_snapshot or block.stage == Stage.LOAD:
        Pipeline.objects.select_for_update(no_key=True).get(pk=pipeline.pk)
    if pipeline.is_snapshot and ScheduleBlock.objects.filter(pipeline=pipeline, state=State.RUNNING).exclude(pk=block.pk).exists():
        return False
    if block.stage == Stage.EXTRACT:
        provider_id, same = pipeline.provider_id, Q(pipeline__provider=pipeline.provider_id, stage=Stage.EXTRACT)
    elif block.stage == Stage.PUBLISH:
        provider_id, same = pipeline.portal_id, Q(pipeline__portal=pipeline.portal_id, stage=Stage.PUBLISH)
    else:
        return True
    provider = Provider.objects.select_for_update(no_key=True).get(pk=provider_id)
    blocked = Provider.objects.filter(pk=provider_id, blocked_until__gt=Now()).exists()
    return not blocked and ScheduleBlock.objects.filter(same, state=State.RUNNING).count() < provider.max_parallel


def renew(run: Run, *, done: int | None = None, total: int | None = None) -> bool:
    """Say that the run is alive; True when somebody asked to cancel it. Raises LeaseLost when the block has a new holder."""
    mine = _mine(run)
    if not mine.update(lease_until=Now() + timedelta(seconds=settings.LEASE_SECONDS), progress_done=done, progress_total=total):
        raise LeaseLost(f"{run} no longer holds its block")
    Run.objects.filter(pk=run.pk, state=RunState.RUNNING).update(beat_at=Now())
    return mine.filter(cancel_asked_at__isnull=False).exists()


def holds(run: Run) -> bool:
    """Whether this run still owns its block, locked for the present transaction: the last question before a final write."""
    return _mine(run).filter(lease_until__gt=Now()).select_for_update(of=("self",)).exists()


def advance(run: Run, outcome: Outcome) -> ScheduleBlock:
    """Close a stage that went well and move the block on; one whose counts don't add up has failed. Raises LeaseLost when it isn't ours any more."""
    block = run.block
    counts = outcome.counts
    if not counts.add_up():
        return fail(run, not_conserved(counts))
    unchanged = outcome.is_final and outcome.mark == ScheduleBlock.Mark.UNCHANGED
    with transaction.atomic():
        stage, state, message = _next(run, outcome)
        changes = {
            "stage": stage,
            "state": state,
            "attempts": 0,
            "mark": _mark(run, outcome),
            "message": message,
            "error_code": "",
            "next_step": "",
            "due_at": Now(),
            "rung_at": None,
        }
        if run.stage == Stage.EXTRACT and not unchanged:
            changes["rows"] = counts.rows_in
        elif "rows" in outcome.details:
            # of files nobody could say before they were read how many rows the source had
            changes["rows"] = outcome.details["rows"]
        if state == State.DONE and changes["mark"] == ScheduleBlock.Mark.SUSPICIOUS:
            changes["message"] = _suspicion(run) or message
        if state == State.DONE:
            changes |= {"finished_at": Now(), "superseded_at": None, "is_forced": False, "is_rebuild": False}
        _leave(run, **changes)
        _close(run, RunState.UNCHANGED if unchanged else RunState.DONE, outcome.message, counts=counts, details=_marked(outcome))
        if not unchanged:
            _note_oddities(block)
        _ask_after(run, loaded=run.stage == Stage.LOAD and not unchanged)
        if run.stage == Stage.LOAD:
            _remember_watermark(block, outcome.details)
        if state == State.DONE:
            _supersede(block)
            if not unchanged:
                _remember_version(block)
    block.refresh_from_db()
    return block


def _note_oddities(block: ScheduleBlock) -> None:
    """Keep with the block what of its present data was rejected, and what is odd about it, by all stages together.

    Of each stage its newest good run counts, unless a stage before it has run since: publishing again forgets nothing, and
    reading again begins anew.
    """
    good = block.runs.filter(state=RunState.DONE).order_by("stage", "-pk").distinct("stage")
    newest = {stage: (pk, rejected, flags) for stage, pk, rejected, flags in good.values_list("stage", "pk", "rejected", "details__flags")}
    rejected, flags, before = 0, Counter(), 0
    for stage in Stage.values:
        if stage not in newest or newest[stage][0] < before:
            continue
        before = newest[stage][0]
        rejected += newest[stage][1]
        flags.update(newest[stage][2] or {})
    ScheduleBlock.objects.filter(pk=block.pk).update(rejected=rejected, flags=dict(sorted(flags.items())))


def _marked(outcome: Outcome) -> dict:
    """The details of a stage, with the mark that it gave: the block's is of all its stages together."""
    return {**outcome.details, "mark": str(outcome.mark)} if outcome.mark else outcome.details


def _mark(run: Run, outcome: Outcome) -> str:
    """The block's mark after this stage. What only an earlier run of it called suspicious is no longer, where it has judged all rows anew."""
    if outcome.mark or run.stage == Stage.EXTRACT:
        return outcome.mark
    if run.block.mark == ScheduleBlock.Mark.SUSPICIOUS and run.stage in JUDGES_ANEW:
        newest = run.block.runs.filter(state=RunState.DONE).order_by("stage", "-pk").distinct("stage")
        called = [stage for stage, mark in newest.values_list("stage", "details__mark") if mark == ScheduleBlock.Mark.SUSPICIOUS]
        if called == [run.stage]:
            return ScheduleBlock.Mark.NONE
    return run.block.mark


def _suspicion(run: Run) -> str:
    """What the stage said that first called the present data suspicious; "" when it is `run` itself. The last stage's words would hide it."""
    done = run.block.runs.filter(state=RunState.DONE)
    read = done.filter(stage=Stage.EXTRACT).first()
    since = done.filter(pk__gte=read.pk) if read else done
    taken_back = Q(pk__in=[])
    for stage in JUDGES_ANEW:
        if newest := since.filter(stage=stage).first():
            taken_back |= Q(stage=stage, pk__lt=newest.pk)
    first = since.filter(details__mark=ScheduleBlock.Mark.SUSPICIOUS).exclude(taken_back).order_by("pk").first()
    return first.message if first else ""


def bookkeeper(block: ScheduleBlock) -> Pipeline | ScheduleBlock:
    """Who remembers how far source and portal are known: of a snapshot the pipeline, of a window its block."""
    return block.pipeline if block.pipeline.is_snapshot else block


def _remember_version(block: ScheduleBlock) -> None:
    """All stages went well with what the last extract brought (else the block would not be done): the next one may skip that version."""
    last = block.runs.filter(stage=Stage.EXTRACT, state=RunState.DONE).first()
    keeper = bookkeeper(block)
    # a reading that suspiciously brought nothing is worth another one, even of the same version
    if last and (last.rows_in or last.details.get("mark") != ScheduleBlock.Mark.SUSPICIOUS):
        type(keeper).objects.filter(pk=keeper.pk).update(source_version=last.details.get("source_version", ""))


def _remember_watermark(block: ScheduleBlock, details: dict) -> None:
    """How far the load came, now that its rows are committed, and when all keys were compared: the next reading begins there."""
    known = {"watermark": details["watermark"]} if details.get("watermark") else {}
    if details.get("compared"):
        known["compared_at"] = Now()
    if known:
        Pipeline.objects.filter(pk=block.pipeline_id).update(**known)


def note_published(run: Run, seq: int) -> None:
    """The portal has everything up to `seq`: the point from which a later attempt goes on. Raises LeaseLost."""
    keeper = bookkeeper(run.block)
    with transaction.atomic():
        if not holds(run):
            raise LeaseLost(f"{run} no longer holds its block")
        type(keeper).objects.filter(pk=keeper.pk).update(published_seq=seq)
    keeper.published_seq = seq


def not_conserved(counts: Counts) -> DataError:
    """What to say of counts that break the first law."""
    parts = f"{counts.rows_out:,} out, {counts.unchanged:,} unchanged, {counts.rejected:,} rejected, {counts.duplicates:,} duplicates"
    return DataError(
        f"The counts do not add up: {counts.rows_in:,} rows in, {parts}.",
        code="rows-not-conserved",
        next_step="Report this with the run's number: it is a fault of the program.",
    )


def _next(run: Run, outcome: Outcome) -> tuple[str, str, str]:
    """The stage, state and message that follow a stage that went well."""
    block, stage = run.block, run.stage
    if outcome.is_final:
        return stage, State.DONE, outcome.message
    later = [name for name in block.stages if Stage.values.index(name) > Stage.values.index(stage)]
    if later:
        return later[0], State.WAITING, ""
    owed = [name for name in block.pipeline.stages if Stage.values.index(name) > Stage.values.index(stage)]
    if owed:
        return owed[0], State.HELD, f"Stopped before {owed[0]}, as {block.asked_by} asked."
    if behind := _behind(run):
        has_run = block.runs.filter(stage=behind, state__in=[RunState.DONE, RunState.UNCHANGED]).exists()
        why = f"{behind} has not been done with what the stages before it brought last" if has_run else f"{behind} has never been done"
        return behind, State.HELD, f"{stage.capitalize()} went well, but {why}."
    return stage, State.DONE, outcome.message


def _behind(run: Run) -> str | None:
    """The first stage that is older than the one before it, when `run` has ended well. Done means that the data went all the way:
    after a pass of single stages (publish alone, where the load had failed) it may not have."""
    well = run.block.runs.filter(Q(state__in=[RunState.DONE, RunState.UNCHANGED]) | Q(pk=run.pk))
    first, *others = run.block.pipeline.stages
    if not well.filter(stage=first).exists():
        return first
    latest = dict(well.exclude(state=RunState.UNCHANGED).order_by().values_list("stage").annotate(Max("pk")))
    before = latest.get(first, 0)
    for stage in others:
        if latest.get(stage, 0) < before:
            return stage
        before = latest.get(stage, 0)
    return None


def _supersede(block: ScheduleBlock) -> None:
    """What failed before on this block is made up for; on a snapshot, what failed on its earlier blocks too."""
    runs = Q(block=block)
    if block.pipeline.is_snapshot:
        earlier = Q(pipeline=block.pipeline_id, starts_at__lt=block.starts_at)
        ScheduleBlock.objects.filter(earlier, state=State.FAILED, superseded_at=None).update(superseded_at=Now(), changed_at=Now())
        runs |= Q(block__pipeline=block.pipeline_id, block__starts_at__lt=block.starts_at)
    bad = [RunState.FAILED, RunState.CRASHED, RunState.CANCELLED]
    Run.objects.filter(runs, state__in=bad, superseded_at=None).update(superseded_at=Now())


def fail(run: Run, error: PipelineError) -> ScheduleBlock:
    """Close a stage that failed: later, or for good. Raises LeaseLost when the block isn't ours any more."""
    block = run.block
    if isinstance(error, NotReady) and (since := _not_ready_for_too_long(run)):
        first = since.astimezone(clock.zone(block.pipeline.time_zone))
        error = PermanentError(
            f"The source has said since {first:%b} {first.day} that it is not ready, longer than {settings.NOT_READY_DAYS} days: {error.message}",
            code="never-ready",
            next_step="Ask the provider whether this window will ever be complete; if it will, run the block again, and it waits anew.",
        )
    changes = {"message": error.message, "error_code": error.code, "next_step": error.next_step, "rung_at": None}
    if isinstance(error, NotReady):
        # nothing went wrong, so nothing is counted against it
        changes |= _later(error.retry_after or 15 * 60, attempts=F("attempts") - 1)
        run_state = RunState.WAITING
    else:
        run_state = RunState.FAILED
        if isinstance(error, TransientError) and run.attempt < block.pipeline.max_attempts:
            changes |= _later(error.retry_after or backoff(run.attempt))
        else:
            changes |= {"state": State.FAILED, "finished_at": Now()}
    with transaction.atomic():
        _leave(run, **changes)
        _close(run, run_state, error.message, code=error.code, next_step=error.next_step)
        _ask_after(run)
        # only a server that says "later" speaks for all of its datasets; one that moved, or isn't ready, for itself
        if isinstance(error, TransientError) and error.retry_after and error.code.startswith(("http-", "rate-limited")):
            _block_provider(run, error.retry_after)
    block.refresh_from_db()
    return block


def _not_ready_for_too_long(run: Run) -> datetime | None:
    """Since when the source has said nothing but "not ready" of this stage, if that is longer than it may; None while it may go on."""
    # a crash of ours is no answer of the source: it begins no new wait, or one crash a week would make it endless
    answered = run.block.runs.exclude(pk=run.pk).exclude(state__in=[RunState.WAITING, RunState.CRASHED]).aggregate(last=Max("pk"))["last"] or 0
    told = run.block.runs.filter(stage=run.stage, state=RunState.WAITING, pk__gt=answered)
    return told.filter(finished_at__lt=Now() - timedelta(days=settings.NOT_READY_DAYS)).aggregate(first=Min("finished_at"))["first"]


def _later(seconds: float, **changes) -> dict:
    return {"state": State.WAITING, "due_at": Now() + timedelta(seconds=min(seconds, LONGEST_WAIT_SECONDS)), **changes}


def _block_provider(run: Run, seconds: float) -> None:
    """The source asked for patience: no other block of it need ask again before."""
    pipeline = run.block.pipeline
    provider_id = {Stage.EXTRACT: pipeline.provider_id, Stage.PUBLISH: pipeline.portal_id}.get(run.stage)
    if provider_id:
        until = Now() + timedelta(seconds=min(seconds, LONGEST_WAIT_SECONDS))
        Provider.objects.filter(pk=provider_id).update(blocked_until=Greatest("blocked_until", until))


def backoff(attempt: int) -> float:
    """Seconds before the next try: doubling from half a minute to an hour, and up to a half less so that a crowd spreads out."""
    full = min(FIRST_RETRY_SECONDS * 2 ** (attempt - 1), LONGEST_RETRY_SECONDS)
    return full * random.uniform(0.5, 1)  # noqa: S311  a spread, not a secret


def cancelled(run: Run, *, kept: str = "") -> ScheduleBlock:
    """Close a run that was stopped because somebody asked; the block is held until somebody lets it go on.

    `kept` says what of its work stays, where that is known.
    """
    run.block.refresh_from_db()
    who = run.block.cancel_asked_by or "somebody"
    message = f"Cancelled by {who} during {run.stage}. {kept or KEPT.get(run.stage, '')}".strip()
    with transaction.atomic():
        _leave(run, state=State.HELD, message=message, error_code="cancelled", next_step="")
        _close(run, RunState.CANCELLED, message, code="cancelled")
    run.block.refresh_from_db()
    return run.block


def crash(run: Run, message: str, *, code: str = "crashed", counts_as_attempt: bool = True) -> ScheduleBlock:
    """Close a run whose process died, hung or outgrew its memory. Raises LeaseLost when the block isn't ours any more."""
    block = run.block
    changes = {"message": message, "error_code": code, "next_step": "", "rung_at": None}
    if run.attempt < block.pipeline.max_attempts or not counts_as_attempt:
        wait = 0 if not counts_as_attempt or run.attempt == 1 else backoff(run.attempt - 1)
        changes |= _later(wait, attempts=F("attempts") - (0 if counts_as_attempt else 1))
    else:
        changes |= {"state": State.FAILED, "finished_at": Now(), "next_step": "Look at the log, then re-run from this stage."}
    with transaction.atomic():
        _leave(run, **changes)
        _close(run, RunState.CRASHED, message, code=code)
        _ask_after(run)
    block.refresh_from_db()
    return block


def reap(limit: int = 200) -> list[Run]:
    """Take back the blocks whose lease ran out; returns the runs that died with them."""
    died = []
    for run in Run.objects.select_related("block__pipeline").filter(
        state=RunState.RUNNING, block__state=State.RUNNING, fence=F("block__fence"), block__lease_until__lt=Now()
    )[:limit]:
        try:
            with transaction.atomic():
                if not _mine(run).filter(lease_until__lt=Now()).select_for_update(of=("self",), skip_locked=True).exists():
                    continue
                if run.block.cancel_asked_at:
                    cancelled(run)
                else:
                    silence = f"no sign of life for {settings.LEASE_SECONDS} s"
                    crash(run, f"The worker {run.holder} was lost during {run.stage}: {silence}.", code="worker-lost")
        except LeaseLost:
            continue
        died.append(run)
    return died


def _mine(run: Run):
    return ScheduleBlock.objects.filter(pk=run.block_id, state=State.RUNNING, fence=run.fence, holder=run.holder)


def _leave(run: Run, **changes) -> None:
    """Give the block back. One that would go on although somebody asked to cancel it meanwhile is held instead."""
    block = _mine(run).select_for_update(of=("self",)).first()
    if block is None:
        raise LeaseLost(f"{run} no longer holds its block")
    changes.setdefault("state", State.WAITING)
    if block.cancel_asked_at and changes["state"] == State.WAITING:
        stage = changes.get("stage", run.stage)
        again = " again" if stage == run.stage else ""
        words = f"Cancelled by {block.cancel_asked_by} before {stage} began{again}."
        changes |= {"state": State.HELD, "message": words, "error_code": "cancelled", "next_step": ""}
    cleared = {"holder": "", "lease_until": None, "progress_done": None, "progress_total": None, "cancel_asked_at": None, "cancel_asked_by": ""}
    ScheduleBlock.objects.filter(pk=block.pk).update(**{**cleared, "changed_at": Now(), **changes})


def _close(
    run: Run, state: str, message: str, *, counts: Counts | None = None, code: str = "", next_step: str = "", details: dict | None = None
) -> None:
    numbers = {name: getattr(counts, name) for name in (*COUNTS, "bytes")} if counts else {}
    Run.objects.filter(pk=run.pk, state=RunState.RUNNING).update(
        state=state, message=message, error_code=code, next_step=next_step, finished_at=Now(), details=details or {}, **numbers
    )
    bad = {RunState.FAILED: LogLine.Level.ERROR, RunState.CRASHED: LogLine.Level.ERROR, RunState.CANCELLED: LogLine.Level.WARNING}
    level = bad.get(state, LogLine.Level.INFO)
    LogLine.objects.create(run=run, level=level, text=message or "Done.")


def _ask_after(run: Run, *, loaded: bool = False) -> None:
    """Note what is to be done after this end of a stage; in its transaction, so that no worker that dies takes it along."""
    steps = list(AfterStep.objects.filter(pipeline=run.block.pipeline_id, is_active=True))
    wanted = [step for step in steps if loaded and step.kind != AfterStep.Kind.NOTIFY]
    notices = [step for step in steps if step.kind == AfterStep.Kind.NOTIFY]
    if notices:
        # as it stands now: a cancel may have held what would have gone on, and who cancelled needs no notice of it
        block = ScheduleBlock.objects.get(pk=run.block_id)
        if block.state in (State.DONE, State.FAILED) or (block.state == State.HELD and block.error_code != "cancelled"):
            wanted += notices
            # a notice tells how the block ended here, and is written when the block may have moved on
            details = Run.objects.values_list("details", flat=True).get(pk=run.pk)
            ended = {"state": block.state, "mark": block.mark, "message": block.message}
            Run.objects.filter(pk=run.pk).update(details={**details, "ended": ended})
    AfterRun.objects.bulk_create([AfterRun(step=step, run=run) for step in wanted])


def is_due(block_id: int) -> bool:
    """Whether the block waits and its time has come, by the clock that `claim` goes by."""
    return ScheduleBlock.objects.due(Now()).filter(pk=block_id).exists()


# the operator's verbs: each moves a block and leaves its audit row, both or neither


@transaction.atomic
def requeue(
    block_id: int,
    *,
    actor: Actor,
    reason: str = "",
    stage: str | None = None,
    stages: list[str] | None = None,
    force: bool = False,
    rebuild: bool = False,
    trigger: str = Trigger.BUTTON,
    seen_fence: int | None = None,
) -> Verdict:
    """Run a block again, from `stage` (or through `stages`), now. A run of it that goes on, or the same wish made before, refuses it.

    `force` reads although the source has not changed; `rebuild` reads everything and puts a new table in the place of the old.

    `seen_fence` is the block's fence as the page showed it: a press on an old page is refused instead of running twice.
    """
    block = ScheduleBlock.objects.select_related("pipeline").get(pk=block_id)
    wanted = _pass(block, stage, stages)
    if not wanted:
        return _answer(block, actor, "run", reason, False, f"{block.pipeline.title} has none of the stages {', '.join(stages or [stage or ''])}.")
    idle = Q(state__in=[State.FAILED, State.HELD, State.DONE])
    # a waiting block may be hurried or changed, but the same wish twice is one wish, also while its pass is between two stages
    left = stages_left(block)
    other_stages = Q(pk__in=[]) if left == wanted else ~Q(stages=wanted)
    stronger = Q(is_forced=False) if force else Q(pk__in=[])
    if rebuild:
        stronger |= Q(is_rebuild=False)
    waiting = Q(state=State.WAITING) & (Q(due_at__gt=Now()) | stronger | other_stages)
    rows = ScheduleBlock.objects.filter(pk=block_id).filter(idle | waiting)
    if seen_fence is not None:
        rows = rows.filter(fence=seen_fence)
    moved = rows.update(
        state=State.WAITING,
        stage=wanted[0],
        stages=wanted,
        # who asked for all rows gets them, though somebody else asks for less meanwhile
        is_forced=Case(When(state=State.WAITING, is_forced=True, then=Value(True)), default=Value(force)),
        is_rebuild=Case(When(is_rebuild=True, state__in=_still_rebuild(block, wanted), then=Value(True)), default=Value(rebuild)),
        attempts=0,
        due_at=Now(),
        rung_at=None,
        trigger=trigger,
        asked_by=actor.name,
        asked_because=reason,
        message="",
        error_code="",
        next_step="",
        finished_at=None,
        superseded_at=None,
        changed_at=Now(),
    )
    verb = "initialize" if rebuild else "force" if force else "run"
    if moved:
        return _answer(block, actor, verb, reason, True, f"Asked to run {' → '.join(wanted)}.", stages=wanted)
    return _answer(block, actor, verb, reason, False, _why_not(block_id, seen_fence))


def stages_left(block: ScheduleBlock) -> list[str]:
    """The stages of the present pass that are still to come."""
    return block.stages[block.stages.index(block.stage) :] if block.stage in block.stages else []


def _still_rebuild(block: ScheduleBlock, wanted: list[str]) -> list[State]:
    """The states in which an initialization goes on as one when these stages are asked for: from its beginning it is another pass."""
    same = stages_left(block) == wanted or Stage.EXTRACT not in wanted
    return [State.WAITING, State.FAILED, State.HELD] if same else [State.WAITING]


def stays_rebuild(block: ScheduleBlock, wanted: list[str]) -> bool:
    """Whether asking for these stages goes on with an initialization that somebody asked for before. Pure."""
    return block.is_rebuild and block.state in _still_rebuild(block, wanted)


@transaction.atomic
def open_window(
    pipeline: Pipeline,
    starts_at: datetime,
    ends_at: datetime,
    *,
    actor: Actor,
    reason: str = "",
    stages: list[str],
    force: bool = False,
    rebuild: bool = False,
    trigger: str = Trigger.BUTTON,
) -> Verdict:
    """Make the block of a window that has none, to run now. Of two who ask at once the second gets the answer of `requeue`."""
    block, is_new = ScheduleBlock.objects.get_or_create(
        pipeline=pipeline,
        starts_at=starts_at,
        defaults={
            "ends_at": ends_at,
            "stage": stages[0],
            "stages": stages,
            "is_forced": force,
            "is_rebuild": rebuild,
            "due_at": Now(),
            "trigger": trigger,
            "asked_by": actor.name,
            "asked_because": reason,
        },
    )
    if not is_new:
        # who asked saw no block: one that has been claimed since is news to him
        return requeue(block.pk, actor=actor, reason=reason, stages=stages, force=force, rebuild=rebuild, trigger=trigger, seen_fence=0)
    return _answer(
        block, actor, "initialize" if rebuild else "force" if force else "run", reason, True, f"Asked to run {' → '.join(stages)}.", stages=stages
    )


def _pass(block: ScheduleBlock, stage: str | None, stages: list[str] | None) -> list[str]:
    """The stages of a new pass, in the pipeline's order."""
    own = list(block.pipeline.stages)
    if stages:
        return [name for name in own if name in stages]
    if stage:
        return own[own.index(stage) :] if stage in own else []
    if block.state in (State.FAILED, State.HELD, State.WAITING) and block.stage in own:
        return own[own.index(block.stage) :]
    return own


def _why_not(block_id: int, seen_fence: int | None) -> str:
    block = ScheduleBlock.objects.get(pk=block_id)
    last = block.runs.first()
    if block.state == State.RUNNING:
        return f"Run {last.pk} is on it since {last.started_at:%H:%M:%S} UTC, asked by {last.asked_by}."
    if block.state == State.WAITING and (seen_fence is None or seen_fence == block.fence):
        return f"It is waiting its turn already, asked by {block.asked_by}."
    if last:
        return f"It was run since you looked: run {last.pk}, {last.get_state_display().lower()}. Look again before you press."
    return "It changed since you looked. Look again before you press."


@transaction.atomic
def hold(block_id: int, *, actor: Actor, reason: str = "") -> Verdict:
    """Keep a waiting or failed block from running until somebody releases it."""
    block = ScheduleBlock.objects.get(pk=block_id)
    message = f"Held by {actor.name}" + (f": {reason}" if reason else ".")
    moved = ScheduleBlock.objects.filter(pk=block_id, state__in=[State.WAITING, State.FAILED]).update(
        state=State.HELD, message=message, error_code="held", next_step="", changed_at=Now()
    )
    text = "Held." if moved else f"Only a waiting or failed block can be held; this one is {block.state}."
    return _answer(block, actor, "hold", reason, bool(moved), text)


@transaction.atomic
def release(block_id: int, *, actor: Actor, reason: str = "") -> Verdict:
    """Let a held block go on from the stage at which it stands."""
    block = ScheduleBlock.objects.select_related("pipeline").get(pk=block_id)
    stages = _pass(block, block.stage, None)
    moved = ScheduleBlock.objects.filter(pk=block_id, state=State.HELD).update(
        state=State.WAITING, stages=stages, attempts=0, due_at=Now(), rung_at=None, message="", error_code="", changed_at=Now()
    )
    text = "Released." if moved else f"Only a held block can be released; this one is {block.state}."
    return _answer(block, actor, "release", reason, bool(moved), text)


@transaction.atomic
def cancel(block_id: int, *, actor: Actor, reason: str = "") -> Verdict:
    """Stop a run that goes on; its worker obeys within seconds. A block that only waits is held at once."""
    # locked, for between two stages a block is waiting for an instant: two looks at it could miss both states
    block = ScheduleBlock.objects.select_for_update().get(pk=block_id)
    rows = ScheduleBlock.objects.filter(pk=block_id)
    if block.state == State.RUNNING:
        if block.cancel_asked_at:
            return _answer(block, actor, "cancel", reason, False, "It is being stopped already.")
        rows.update(cancel_asked_at=Now(), cancel_asked_by=actor.name, changed_at=Now())
        return _answer(block, actor, "cancel", reason, True, "Asked to stop; it ends within seconds.")
    if block.state == State.WAITING:
        message = f"Cancelled by {actor.name} before {block.stage} began."
        rows.update(state=State.HELD, message=message, error_code="cancelled", next_step="", changed_at=Now())
        return _answer(block, actor, "cancel", reason, True, f"Its {block.stage} had not begun; it is held now.")
    return _answer(block, actor, "cancel", reason, False, f"There is nothing to cancel: the block is {block.state}.")


#: What a block is held with whose rows were taken off the portal.
UNPUBLISHED = "unpublished"


@transaction.atomic
def unpublish(block_id: int, *, actor: Actor, reason: str = "", seen_fence: int | None = None) -> Verdict:
    """Forget that a block was published, and hold it until somebody publishes it again; its rows the caller takes off the portal after this.

    A block that is done stands before publish then, any other where it stood. `seen_fence` is its fence as the page showed it.
    """
    block = ScheduleBlock.objects.get(pk=block_id)
    rows = ScheduleBlock.objects.filter(pk=block_id).exclude(state=State.RUNNING)
    if seen_fence is not None:
        rows = rows.filter(fence=seen_fence)
    moved = rows.update(
        state=State.HELD,
        stage=Case(When(state=State.DONE, then=Value(Stage.PUBLISH)), default=F("stage")),
        published_seq=0,
        message=f"Taken off the portal by {actor.name}" + (f": {reason}" if reason else "."),
        error_code=UNPUBLISHED,
        next_step="Release it to publish it again.",
        changed_at=Now(),
    )
    if moved:
        Run.objects.filter(block=block, stage=Stage.PUBLISH, superseded_at=None).update(superseded_at=Now())
    text = "Taken off the portal, and held." if moved else _why_not(block_id, seen_fence)
    return _answer(block, actor, "unpublish", reason, bool(moved), text)


@transaction.atomic
def accept(block_id: int, *, actor: Actor, reason: str = "", seen_fence: int | None = None) -> Verdict:
    """Say that a suspicious block is right as it is: its mark goes, and its rows count as usual from now on.

    `seen_fence` is the block's fence as the page showed it: what has been read since is not accepted unseen.
    """
    block = ScheduleBlock.objects.get(pk=block_id)
    suspicious = ScheduleBlock.objects.filter(pk=block_id, mark=ScheduleBlock.Mark.SUSPICIOUS, state__in=[State.DONE, State.HELD])
    story = f"{block.message.rstrip('.')}. " if block.message else ""
    moved = suspicious.filter(fence=block.fence if seen_fence is None else seen_fence).update(
        mark=ScheduleBlock.Mark.NONE if block.rows else ScheduleBlock.Mark.EMPTY,
        message=f"{story}{actor.name} accepted it{f': {reason}' if reason else '.'}",
        next_step="",
        changed_at=Now(),
    )
    if moved:
        rows = f"{block.rows:,} row{'s' * (block.rows != 1)}" if block.rows else "no rows"
        return _answer(block, actor, "accept", reason, True, f"Accepted with {rows}. Later blocks are judged by it too.", told=block.message)
    if block.mark != ScheduleBlock.Mark.SUSPICIOUS:
        text = "There is nothing to accept: nothing about it is suspicious."
    elif block.state not in (State.DONE, State.HELD):
        text = f"It is {block.state} at {block.stage}: look again when it is done."
    else:
        text = _why_not(block_id, seen_fence)
    return _answer(block, actor, "accept", reason, False, text)


def _answer(block: ScheduleBlock, actor: Actor, verb: str, reason: str, moved: bool, text: str, **details) -> Verdict:
    audit.write(actor, verb, kind="block", target=str(block.pk), reason=reason, result=text if moved else f"refused: {text}", **details)
    return Verdict(moved=moved, text=text, block_id=block.pk)
