"""What is owed, and when: which windows a pipeline should have, which blocks are asked for, and whose bell is rung.

Blocks are made lazily: the tick makes those that are owed within the horizon, an order makes those that it names. The
queue is only a doorbell: a lost message is rung again, one that comes twice finds nothing to claim.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise, takewhile
from pathlib import Path
from time import time as time_now
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.tasks import async_task

from catalog import audit, lake
from catalog.audit import SCHEDULE, Actor
from pipelines import blocks, clock, warehouse
from pipelines.blocks import Verdict
from pipelines.errors import PipelineError
from pipelines.models import Cadence, Pipeline, Provider, Pulse, Run, RunState, ScheduleBlock, Stage, State, Trigger, UpkeepJob
from pipelines.upkeep import after, jobs

log = logging.getLogger(__name__)

WORK, AFTER, CANARY = "pipelines.tasks.work", "pipelines.tasks.carry_out_after", "pipelines.tasks.answer_canary"
UPKEEP = "pipelines.tasks.carry_out_upkeep"
#: Of one pipeline, so many blocks at most are made by one tick: an outage of months is caught up in portions.
MOST_NEW_BLOCKS = 500
RING_AGAIN_SECONDS = 30
TICK_LOCK = 0x0D0_71C
LAKE_SWEEP_SECONDS = 3600


# what is owed


def owed_windows(pipeline: Pipeline, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The windows that the pipeline owes between two instants, in order; none when it only runs by hand."""
    if pipeline.cadence == Cadence.MANUAL:
        return
    if pipeline.cadence == Cadence.ONCE:
        # the day on which it was made, or is to begin: one window, whenever that was
        begins = clock.day_start(pipeline.starts_on, pipeline.time_zone) if pipeline.starts_on else pipeline.created_at
        window = clock.window_at(pipeline.cadence, pipeline.time_zone, begins)
        if window[1] > since and window[0] < until:
            yield window
        return
    first = clock.day_start(pipeline.starts_on or pipeline.created_at.astimezone(clock.zone(pipeline.time_zone)).date(), pipeline.time_zone)
    yield from clock.windows(pipeline.rhythm, pipeline.time_zone, max(since, first), until)


def due_at(pipeline: Pipeline, starts_at: datetime, ends_at: datetime) -> datetime:
    """When a window should be fetched: a snapshot on its first day, else once it has ended and settled."""
    settle = timedelta(minutes=pipeline.settle_minutes)
    if pipeline.cadence in (Cadence.HOURLY, Cadence.MANUAL, Cadence.CRON) or pipeline.due_time is None:
        return (starts_at if pipeline.is_snapshot else ends_at) + settle
    day = (starts_at if pipeline.is_snapshot else ends_at).astimezone(clock.zone(pipeline.time_zone)).date()
    return clock.local_instant(day, pipeline.due_time or time.min, pipeline.time_zone) + settle


#: How far the due time of a window may lie from its end, without the settling time: its length and a day, a change of the clock included.
_REACH = {
    Cadence.HOURLY: timedelta(hours=2),
    Cadence.DAILY: timedelta(days=3),
    Cadence.WEEKLY: timedelta(days=9),
    Cadence.MONTHLY: timedelta(days=33),
    Cadence.ONCE: timedelta(days=3),
}


def coming_due(pipeline: Pipeline, now: datetime, until: datetime) -> Iterator[tuple[datetime, tuple[datetime, datetime]]]:
    """When windows fall due after `now` and up to `until`, in order, each with its window."""
    settle = timedelta(minutes=pipeline.settle_minutes)
    if pipeline.cadence == Cadence.CRON:
        # by its own times: a window may be a minute long, or years
        times = pairwise(clock.cron_times(pipeline.cron, pipeline.time_zone, clock.cron_before(pipeline.cron, pipeline.time_zone, now - settle)))
        yield from takewhile(
            lambda found: found[0] <= until, ((due_at(pipeline, *window), window) for window in times if due_at(pipeline, *window) > now)
        )
        return
    since = now - settle - _REACH.get(pipeline.cadence, timedelta())
    for window in owed_windows(pipeline, since, until + timedelta(seconds=1)):
        due = due_at(pipeline, *window)
        if now < due <= until:
            yield due, window


def next_due(pipeline: Pipeline, now: datetime) -> datetime | None:
    """The next time that the schedule runs it; None when it is paused or runs by hand."""
    if pipeline.is_paused or pipeline.cadence == Cadence.MANUAL:
        return None
    until = now + timedelta(minutes=pipeline.settle_minutes) + 2 * _REACH.get(pipeline.cadence, timedelta(days=4 * 366))
    return next((due for due, _ in coming_due(pipeline, now, until)), None)


def plan(pipeline: Pipeline, now: datetime) -> int:
    """Make the blocks that are owed and due by now, oldest first; of a snapshot only the newest. Returns how many are new."""
    # a window is due only after it has settled: one that takes long to settle must not leave the horizon before it is due
    since = now - timedelta(days=settings.PLAN_HORIZON_DAYS, minutes=pipeline.settle_minutes)
    due = [window for window in owed_windows(pipeline, since, now) if due_at(pipeline, *window) <= now]
    if pipeline.is_snapshot:
        due = due[-1:]
    # the first window may have begun long before `since`: a month, or of a cron expression whatever it says
    first = due[0][0] if due else since
    have = set(ScheduleBlock.objects.filter(pipeline=pipeline, starts_at__gte=min(first, since)).values_list("starts_at", flat=True))
    fresh = [window for window in due if window[0] not in have][:MOST_NEW_BLOCKS]
    make(pipeline, fresh, trigger=Trigger.SCHEDULE, asked_by=SCHEDULE.name)
    return len(fresh)


def make(pipeline: Pipeline, windows: list[tuple[datetime, datetime]], *, trigger: str, asked_by: str) -> None:
    """Blocks for these windows, where there are none yet."""
    ScheduleBlock.objects.bulk_create(
        [
            ScheduleBlock(
                pipeline=pipeline,
                starts_at=start,
                ends_at=end,
                stage=pipeline.stages[0],
                stages=pipeline.stages,
                due_at=due_at(pipeline, start, end),
                trigger=trigger,
                asked_by=asked_by,
            )
            for start, end in windows
        ],
        ignore_conflicts=True,
        batch_size=500,
    )


# the tick


def tick(now: datetime | None = None) -> dict[str, int]:
    """Once a minute: plan what is owed, reap the dead, ring for what is due. Of many hosts that call it at once, one does it."""
    now = now or timezone.now()
    made = broken = 0
    with _turnstile() as mine:
        if not mine:
            return {"made": 0, "reaped": 0, "rung": 0, "broken": 0}
        for pipeline in Pipeline.objects.active().select_related("provider"):
            try:
                with transaction.atomic():
                    made += plan(pipeline, now)
            except Exception:
                # one pipeline with an impossible schedule must not stop the others' (facts: one bad row stopped all)
                broken += 1
                log.exception("The schedule of %s can't be planned", pipeline.slug)
        swept = sweep()
        ring_after()
        ring_upkeep(now)
        clear_leftovers()
        beat("tick", host=socket.gethostname(), made=made, broken=broken, **swept)
    return {"made": made, "broken": broken, **swept}


class _turnstile:
    """A session advisory lock of the control database: held by one tick at a time, free when its process dies."""

    def __enter__(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("select pg_try_advisory_lock(%s)", [TICK_LOCK])
            self.mine = cursor.fetchone()[0]
        return self.mine

    def __exit__(self, *problem) -> None:
        if self.mine:
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_unlock(%s)", [TICK_LOCK])


def sweep() -> dict[str, int]:
    """Every few seconds: take back lost blocks, end what their workers left in the warehouse, ring again for lost messages."""
    died = blocks.reap()
    for run in died:
        try:
            warehouse.end_sessions(settings.WAREHOUSES.get(run.block.pipeline.warehouse, ""), run_id=run.pk)
        except PipelineError as error:
            # a warehouse that is away must not stop the bell for the others; the ledger's fence holds without this
            log.warning("The sessions of run %s can't be ended: %s", run.pk, error)
    return {"reaped": len(died), "rung": ring_due()}


def clear_leftovers() -> None:
    """Remove what the dead left behind: work folders at each tick; half-written files of the lake once an hour."""
    running = Run.objects.filter(state=RunState.RUNNING)
    _sweep_warehouses(set(running.values_list("block_id", "fence")))
    going = {f"run-{pk}" for pk in running.values_list("pk", flat=True)}
    work = Path(settings.WORK_DIR)
    for folder in work.glob("run-*") if work.is_dir() else ():
        # a folder is made just after its run: one that is this young may belong to a run that was not in the list yet
        if folder.name not in going and time_since_change(folder) > settings.LEASE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in work.glob("scratch-*") if work.is_dir() else ():
        if time_since_change(folder) > timedelta(days=1).total_seconds():
            shutil.rmtree(folder, ignore_errors=True)
    if (age("lake sweep") or LAKE_SWEEP_SECONDS) >= LAKE_SWEEP_SECONDS:
        beat("lake sweep")
        try:
            removed = lake.lake().sweep(timedelta(days=1))
        except PipelineError as error:
            log.warning("The lake can't be swept: %s", error.message)
        else:
            beat("lake sweep", removed=len(removed))


def _sweep_warehouses(going: set[tuple[int, int]]) -> None:
    """Drop the tables that dead loads had begun to build beside the served ones."""
    for alias, dsn in settings.WAREHOUSES.items():
        try:
            for name in warehouse.engine(dsn).sweep(dsn, going):
                log.info("%s, which a load had left in the warehouse %s, was dropped", name, alias)
        except PipelineError as error:
            log.warning("The warehouse %s can't be swept: %s", alias, error.message)


def time_since_change(path: Path) -> float:
    """Seconds since the folder last changed; 0 when it has gone meanwhile."""
    try:
        return time_now() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def ring_due() -> int:
    """Ring for due blocks, the most urgent first, no more at once than the workers can soon answer. Returns how many were rung."""
    room = 4 * settings.WORKERS - queue_depth()
    if room <= 0:
        return 0
    stale = Q(rung_at=None) | Q(rung_at__lt=Now() - timedelta(seconds=RING_AGAIN_SECONDS))
    waiting = (
        ScheduleBlock.objects.due(Now())
        .filter(stale, pipeline__provider__is_active=True)
        # a paused pipeline runs nothing on its own, but a person's wish goes before its pause
        .filter(Q(pipeline__is_paused=False) | ~Q(trigger=Trigger.SCHEDULE))
        .exclude(Q(stage=Stage.EXTRACT) & Exists(Provider.objects.filter(pk=OuterRef("pipeline__provider"), blocked_until__gt=Now())))
        .exclude(Q(stage=Stage.PUBLISH) & Exists(Provider.objects.filter(pk=OuterRef("pipeline__portal"), blocked_until__gt=Now())))
        .order_by("-pipeline__priority", "due_at")
    )
    rung = 0
    for block_id in waiting.values_list("pk", flat=True)[:room]:
        rung += ring(block_id)
    return rung


def ring(block_id: int) -> int:
    """Put the block's number into the queue, unless somebody just did. Returns 1 when rung."""
    stale = Q(rung_at=None) | Q(rung_at__lt=Now() - timedelta(seconds=RING_AGAIN_SECONDS))
    with transaction.atomic():
        # the mark and the message commit together, where the queue is this database
        if not ScheduleBlock.objects.filter(stale, pk=block_id, state=State.WAITING).update(rung_at=Now()):
            return 0
        async_task(WORK, block_id)
    return 1


def ring_after(*, is_asked: bool = False) -> None:
    """Have a worker do what is to be done after loads, where the load's own did not; never here, it may take half an hour.

    `is_asked`: somebody wants it now.
    """
    after.give_up_lost()
    if (is_asked or after.is_left()) and queue_depth() < 4 * settings.WORKERS:
        async_task(AFTER)


def ring_upkeep(now: datetime) -> None:
    """Have workers do the upkeep jobs that are due, and those whose message was lost."""
    jobs.give_up_lost()
    fresh = [run.pk for run in jobs.begin_due(now)]
    if queue_depth() < 4 * settings.WORKERS:
        for run_id in dict.fromkeys([*fresh, *jobs.unheard()]):
            async_task(UPKEEP, run_id)


def ask_for_upkeep(
    job: UpkeepJob, *, actor: Actor, reason: str = "", trigger: str = Trigger.BUTTON, is_dry: bool = False, details: dict[str, Any] | None = None
) -> jobs.Answer:
    """Ask for an upkeep job now, and ring for it: a worker takes it within seconds. `is_dry`, `details`: as `jobs.start` takes them."""
    answer = jobs.start(job, actor=actor, reason=reason, trigger=trigger, is_dry=is_dry, details=details)
    if answer.run:
        async_task(UPKEEP, answer.run.pk)
    return answer


def queue_depth() -> int:
    """Messages that no worker has taken yet."""
    return get_broker().queue_size()


# orders: what an operator, a command or a page asks for


@dataclass(frozen=True)
class Order:
    """Blocks to run: those of `pipelines` whose window ends after `starts_at` and not after `ends_at`, or just `block_ids`.

    `which` is "missing" (owed, never ran), "failed", "incomplete" (anything but done), or "all". `stages` None means: from
    where each block stands, or all of them for a block that is done. `force` ignores that the source is unchanged; `rebuild`
    reads everything and puts a new table in the place of the old. `windows` are named one by one instead, by (start, end); one that
    is not over yet is meant too.
    """

    pipelines: list[Pipeline]
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    which: str = "incomplete"
    stages: list[str] | None = None
    force: bool = False
    block_ids: list[int] | None = None
    rebuild: bool = False
    windows: list[tuple[datetime, datetime]] | None = None


@dataclass(frozen=True)
class Planned:
    """One line of a preview: what would happen to a window. `skip` says why it would be left alone."""

    pipeline: Pipeline
    starts_at: datetime
    ends_at: datetime
    block: ScheduleBlock | None
    will: tuple[str, ...]
    skip: str = ""
    known_rows: int | None = None


@dataclass
class Placed:
    moved: list[int] = field(default_factory=list)
    refused: list[Verdict] = field(default_factory=list)

    @property
    def text(self) -> str:
        return f"moved {len(self.moved)}, refused {len(self.refused)}"


def preview(order: Order, now: datetime | None = None) -> list[Planned]:
    """What placing the order would do, block by block, oldest first. Changes nothing."""
    now = now or timezone.now()
    lines = []
    for pipeline in order.pipelines:
        for window, block in _windows(order, pipeline, now):
            if line := _line(order, pipeline, window, block, now):
                lines.append(line)
    return lines


def _windows(order: Order, pipeline: Pipeline, now: datetime) -> list[tuple[tuple[datetime, datetime], ScheduleBlock | None]]:
    """The windows that an order speaks of, with the blocks that exist, oldest first."""
    have = ScheduleBlock.objects.filter(pipeline=pipeline).select_related("pipeline")
    if order.block_ids is not None:
        return [((block.starts_at, block.ends_at), block) for block in have.filter(pk__in=order.block_ids).order_by("starts_at")]
    if order.windows is not None:
        there = {block.starts_at: block for block in have.filter(starts_at__in=[start for start, _ in order.windows])}
        return [(window, there.get(window[0])) for window in sorted(order.windows)]
    current = clock.window_at(pipeline.rhythm, pipeline.time_zone, now)
    if order.starts_at is None and order.ends_at is None and (pipeline.is_snapshot or pipeline.cadence == Cadence.MANUAL):
        # a snapshot's older windows can't be read any more: what the source holds belongs to the present one
        windows = {current[0]: current}
        have = have.filter(starts_at=current[0])
    else:
        # with no bounds: what is owed within the horizon and settled by now
        since = order.starts_at or now - timedelta(days=settings.PLAN_HORIZON_DAYS)
        until = order.ends_at or now
        cadence = "daily" if pipeline.cadence in (Cadence.MANUAL, Cadence.ONCE) else pipeline.rhythm
        explicit = order.starts_at is not None or order.ends_at is not None
        source = clock.windows(cadence, pipeline.time_zone, since, until) if explicit else owed_windows(pipeline, since, until)
        windows = {start: (start, end) for start, end in source if end <= until or pipeline.is_snapshot}
        if not explicit:
            windows = {start: window for start, window in windows.items() if due_at(pipeline, *window) <= now}
        have = have.filter(ends_at__gt=since, starts_at__lt=until)
        if not pipeline.is_snapshot:
            have = have.filter(ends_at__lte=until)
    found = {block.starts_at: block for block in have}
    for block in found.values():
        windows.setdefault(block.starts_at, (block.starts_at, block.ends_at))
    return [(windows[start], found.get(start)) for start in sorted(windows)]


def _line(order: Order, pipeline: Pipeline, window: tuple[datetime, datetime], block: ScheduleBlock | None, now: datetime) -> Planned | None:
    """One window against the order: a line, a line with a reason to skip, or None when the order doesn't speak of it."""
    ran = block is not None and block.fence > 0
    state = block.state if block else None
    current = pipeline.is_snapshot and order.starts_at is None and order.ends_at is None
    chosen = {
        "missing": not ran,
        "failed": state == State.FAILED,
        # asking a snapshot again is how one learns whether the source changed
        "incomplete": state != State.DONE or current,
        "all": True,
    }[order.which]
    if not chosen and order.block_ids is None:
        return None
    own = list(pipeline.stages)
    if order.stages:
        will = [name for name in own if name in order.stages]
    elif block and not (order.force or order.rebuild) and state in (State.FAILED, State.HELD, State.WAITING) and block.stage in own:
        will = own[own.index(block.stage) :]
    else:
        will = own
    skip = ""
    if state == State.RUNNING:
        skip = f"running since {block.changed_at:%H:%M} UTC, asked by {block.asked_by}"
    elif not will:
        skip = f"it has none of the stages {', '.join(order.stages or [])}"
    elif pipeline.is_snapshot and Stage.EXTRACT in will and window[1] <= now and order.block_ids is None:
        skip = "the source only gives its present rows, which belong to the present window"
    elif not pipeline.is_snapshot and window[1] > now and order.windows is None:
        skip = "it is not over yet"
    elif state == State.WAITING and order.windows is not None and not order.force and set(will) < set(blocks.stages_left(block)):
        skip = f"it waits for {block.stage} and comes to {will[0]} by itself"
    elif state == State.HELD and block.error_code == "held" and order.block_ids is None:
        skip = f"{block.message.rstrip('.')}; release it first"
    return Planned(pipeline, *window, block=block, will=tuple(will), skip=skip, known_rows=block.rows if block else None)


def place(
    order: Order, *, actor: Actor, reason: str = "", trigger: str = Trigger.BUTTON, seen: dict[int, int] | None = None, bell: bool = True
) -> Placed:
    """Do what the preview shows: make the blocks that are missing, requeue the others, ring.

    `seen` maps a block to the fence that the page showed.
    `bell` False leaves the blocks to the caller, who works them off himself.
    """
    placed = Placed()
    for line in preview(order):
        if line.skip:
            placed.refused.append(_refused(line, order, actor, reason))
            continue
        wish = {"actor": actor, "reason": reason, "stages": list(line.will), "force": order.force, "rebuild": order.rebuild, "trigger": trigger}
        if line.block is None:
            verdict = blocks.open_window(line.pipeline, line.starts_at, line.ends_at, **wish)
        else:
            # without a page, what the preview saw a moment ago: of many who ask at once, one moves the block
            verdict = blocks.requeue(line.block.pk, seen_fence=(seen or {}).get(line.block.pk, line.block.fence), **wish)
        if verdict.moved:
            placed.moved.append(verdict.block_id)
        else:
            placed.refused.append(verdict)
    if bell:
        for block_id in placed.moved:
            ring(block_id)
    return placed


def _refused(line: Planned, order: Order, actor: Actor, reason: str) -> Verdict:
    """The answer to a wish that the preview refuses; a press on a block leaves its audit row whatever becomes of it."""
    if line.block:
        verb = "initialize" if order.rebuild else "force" if order.force else "run"
        audit.write(actor, verb, kind="block", target=str(line.block.pk), reason=reason, result=f"refused: {line.skip}")
    return Verdict(False, line.skip, line.block.pk if line.block else 0)


def pause(pipeline: Pipeline, *, actor: Actor, reason: str = "") -> Verdict:
    """Let the schedule leave this pipeline alone; what a person asks for still runs."""
    moved = Pipeline.objects.filter(pk=pipeline.pk, is_paused=False).update(is_paused=True, paused_reason=reason or f"paused by {actor.name}")
    text = "Paused." if moved else "It is paused already."
    audit.write(actor, "pause", kind="pipeline", target=pipeline.slug, reason=reason, result=text if moved else f"refused: {text}")
    return Verdict(bool(moved), text, pipeline.pk)


def resume(pipeline: Pipeline, *, actor: Actor, reason: str = "") -> Verdict:
    """Let the schedule run this pipeline again; the windows missed within the horizon are caught up."""
    moved = Pipeline.objects.filter(pk=pipeline.pk, is_paused=True).update(is_paused=False, paused_reason="")
    text = "Resumed." if moved else "It is not paused."
    audit.write(actor, "resume", kind="pipeline", target=pipeline.slug, reason=reason, result=text if moved else f"refused: {text}")
    return Verdict(bool(moved), text, pipeline.pk)


# the pulse: is anybody listening?


def beat(name: str, **details) -> None:
    """Leave a sign of life, by the database's clock."""
    Pulse.objects.update_or_create(name=name, defaults={"at": Now(), "details": details})


def pulse_age() -> float | None:
    """Seconds since the queue last answered its canary; None = never."""
    return age("canary")


def host_age() -> float | None:
    """Seconds since a worker of this host last took a message; None = never."""
    return age(f"worker {socket.gethostname()}")


def messages_wait() -> bool:
    """Whether the queue holds a message that nobody took; False where a queue only guesses (SQS says so of its counts)."""
    return "sqs" not in settings.Q_CLUSTER and queue_depth() > 0


def age(name: str) -> float | None:
    pulse = Pulse.objects.filter(name=name).annotate(age=Now() - F("at")).first()
    return pulse.age.total_seconds() if pulse else None


def ring_canary() -> None:
    """Put a canary into the queue, unless one is still on its way."""
    asked, answered = (Pulse.objects.filter(name=name).values_list("at", flat=True).first() for name in ("canary asked", "canary"))
    lost = asked and timezone.now() - asked.astimezone(UTC) > timedelta(seconds=60)
    if asked is None or lost or (answered and answered >= asked):
        beat("canary asked", host=socket.gethostname())
        async_task(CANARY)


def busy_workers() -> int:
    """Blocks that workers of this host are running, with a live lease."""
    return ScheduleBlock.objects.running().filter(holder__startswith=f"{socket.gethostname()}:", lease_until__gt=Now()).count()


def note_restart(reason: str) -> None:
    """Leave a trace that the watchdog restarted this host's workers: a pulse and an audit row."""
    audit.write(Actor("watchdog"), "restart", kind="workers", target=socket.gethostname(), reason=reason)
    beat(f"restart {socket.gethostname()}", reason=reason)
