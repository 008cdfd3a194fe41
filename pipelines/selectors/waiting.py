"""Why a waiting block does not run yet: its own time, its provider, its pipeline, the queue and the machinery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q

from pipelines import clock
from pipelines.clock import span_words
from pipelines.models import Pulse, ScheduleBlock, Stage, State

#: A tick or a canary that is older than this is no sign of life any more.
TICK_SILENT, CANARY_SILENT = timedelta(minutes=3), timedelta(minutes=3)
#: A lost message is rung again within half a minute, so a block that is due for longer has some other cause.
LONG_DUE = timedelta(minutes=2)


@dataclass(frozen=True)
class Surroundings:
    """What a waiting block can wait for, besides its time. Ages in seconds; None = never heard of."""

    now: datetime
    provider: str = ""
    running_there: int = 0
    limit_there: int | None = None
    asked_to_wait_until: datetime | None = None
    other_block_runs: bool = False
    ahead: int = 0
    tick_age: float | None = None
    canary_age: float | None = None
    running: int = 0


def why_waiting(block: ScheduleBlock, around: Surroundings) -> list[str]:
    """Why a waiting block does not run yet, the most binding cause first, in sentences. Pure; empty for a block that is not waiting."""
    if block.state != State.WAITING:
        return []
    pipeline = block.pipeline
    reasons = []
    if around.canary_age is None and around.running == 0:
        reasons.append("No worker is listening: nobody has ever answered the queue. Start the workers with manage.py up.")
    elif around.canary_age is not None and around.canary_age > CANARY_SILENT.total_seconds() and around.running == 0:
        reasons.append(f"No worker is listening: the queue last answered {span_words(around.canary_age)} ago. Start the workers with manage.py up.")
    if around.tick_age is None:
        reasons.append("The scheduler has never ticked, so nobody rings for due blocks. Start it with manage.py up.")
    elif around.tick_age > TICK_SILENT.total_seconds():
        reasons.append(f"The scheduler last ticked {span_words(around.tick_age)} ago, so nobody rings for due blocks. Start it with manage.py up.")
    if not pipeline.provider.is_active:
        reasons.append(f"{pipeline.provider.title} is switched off; nothing of it runs until a steward switches it on.")
    if pipeline.is_paused and block.trigger == "schedule":
        reasons.append(f"The pipeline is paused: {pipeline.paused_reason or 'nobody said why'}. Resume it, or run this block by hand.")
    if block.due_at > around.now:
        why = "to try again" if block.attempts else ("for the source" if block.error_code else "until it is due")
        reasons.append(f"It waits {why}, until {_local(block.due_at, around.now, pipeline.time_zone)}.")
    if around.asked_to_wait_until and around.asked_to_wait_until > around.now:
        reasons.append(
            f"{around.provider} asked us to wait until {_local(around.asked_to_wait_until, around.now, pipeline.time_zone)}. Nothing to do."
        )
    if around.limit_there is not None and around.running_there >= around.limit_there:
        verb = "block runs" if around.running_there == 1 else "blocks run"
        reasons.append(f"{around.running_there} {verb} at {around.provider} already, and {around.limit_there} at once is its limit.")
    if around.other_block_runs:
        reasons.append("Another block of this pipeline is running, and they go one after the other, for they touch the same rows.")
    if around.ahead and block.due_at <= around.now:
        reasons.append(f"It is behind {around.ahead:,} {'block' if around.ahead == 1 else 'blocks'} in the queue.")
    if reasons:
        return reasons
    overdue = (around.now - block.due_at).total_seconds()
    if overdue > LONG_DUE.total_seconds():
        return [f"It has been due for {span_words(overdue)}, and nothing that is known keeps it. Look at Workers, or press Run now."]
    return ["It is next: a worker takes it within seconds."]


def _local(moment: datetime, now: datetime, zone_name: str) -> str:
    local, today = moment.astimezone(clock.zone(zone_name)), now.astimezone(clock.zone(zone_name)).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%a %b} {local.day}, {local:%H:%M}"


def surroundings(block: ScheduleBlock, now: datetime) -> Surroundings:
    """Look around a waiting block, in three queries."""
    pipeline = block.pipeline
    provider = {Stage.EXTRACT: pipeline.provider, Stage.PUBLISH: pipeline.portal}.get(Stage(block.stage))
    here = Q(pipeline__provider=provider) if block.stage == Stage.EXTRACT else Q(pipeline__portal=provider)
    running = ScheduleBlock.objects.running().aggregate(
        all=Count("pk"),
        there=Count("pk", filter=here & Q(stage=block.stage)),
        siblings=Count("pk", filter=Q(pipeline=pipeline)),
    )
    ahead = (
        ScheduleBlock.objects.due(now)
        .filter(Q(pipeline__priority__gt=pipeline.priority) | Q(pipeline__priority=pipeline.priority, due_at__lt=block.due_at))
        .exclude(pk=block.pk)
        .filter(Q(pipeline__is_paused=False) | ~Q(trigger="schedule"), pipeline__provider__is_active=True)
        .count()
    )
    ages = {pulse.name: (now - pulse.at).total_seconds() for pulse in Pulse.objects.filter(name__in=["tick", "canary"])}
    return Surroundings(
        now=now,
        provider=provider.title if provider else "",
        running_there=running["there"] if provider else 0,
        limit_there=provider.max_parallel if provider else None,
        asked_to_wait_until=provider.blocked_until if provider else None,
        other_block_runs=pipeline.is_snapshot and running["siblings"] > 0,
        ahead=ahead,
        tick_age=ages.get("tick"),
        canary_age=ages.get("canary"),
        running=running["all"],
    )
