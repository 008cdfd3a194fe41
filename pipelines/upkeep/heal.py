"""Heal: what failed in the last weeks is run again, each block from the stage at which it failed. Nobody has to press anything.

Windows that have no block yet are no business of it: the tick plans them, as far back as PLAN_HORIZON_DAYS.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from catalog.audit import Actor
from pipelines import blocks
from pipelines.connectors.base import Parameter
from pipelines.models import ScheduleBlock, State, UpkeepJob, UpkeepRun
from pipelines.upkeep.jobs import Job, Note

DAYS = 35
#: Of one call; the rest waits for the next night, oldest first.
MOST_BLOCKS = 5_000
#: How often the page hears of a long list.
NOTE_EVERY = 50


class Heal(Job):
    """Blocks that wait run by themselves, blocks that a person held stay held, and what is done or empty is left as it is."""

    kind = "heal"
    label = "Heal"
    about = "Runs again what failed, from the stage at which it failed. What is done or empty, and what somebody holds, is left alone."
    options = (Parameter("days", "Days", default=str(DAYS), help="Blocks whose window ended in so many days."),)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        days = self.number(job, "days")
        since = timezone.now() - timedelta(days=days)
        ours = ScheduleBlock.objects.filter(pipeline__in=self.pipelines_of(job), ends_at__gt=since)
        resting = Q(pipeline__is_paused=True) | Q(pipeline__provider__is_active=False)
        newer = ScheduleBlock.objects.filter(pipeline=OuterRef("pipeline"), starts_at__gt=OuterRef("starts_at"))
        # what a snapshot's source holds belongs to its newest block: the older ones can't be read any more
        past = Q(pipeline__window_column="") & Exists(newer)
        failed = ours.failed_for_good().exclude(resting).exclude(past).order_by("starts_at")
        actor = Actor(run.asked_by)
        moved: Counter[str] = Counter()
        refused = 0
        for number, (pk, fence, stage) in enumerate(failed.values_list("pk", "fence", "stage")[:MOST_BLOCKS], start=1):
            verdict = blocks.requeue(pk, actor=actor, reason=job.title, stage=stage, trigger=run.trigger, seen_fence=fence)
            moved[stage] += verdict.moved
            refused += not verdict.moved
            if number % NOTE_EVERY == 0:
                note(f"{number:,} blocks asked for so far.")
        total = moved.total()
        note(asked=total, refused=refused, by_stage=dict(moved), held=(held := ours.filter(state=State.HELD).count()))
        return _words(days, moved, refused, held, later=failed.count() if total == MOST_BLOCKS else 0)


def _words(days: int, moved: Counter[str], refused: int, held: int, later: int) -> str:
    total = moved.total()
    if not total:
        sentences = [f"Nothing of the last {days} days had failed."]
    else:
        stages = ", ".join(f"{number:,} from {stage}" for stage, number in moved.items() if number)
        sentences = [f"{total:,} block{'s' * (total != 1)} of the last {days} days {'were' if total != 1 else 'was'} asked to run again: {stages}."]
    if refused:
        sentences.append(f"{refused:,} moved meanwhile by themselves.")
    if held:
        sentences.append(f"{held:,} {'are' if held != 1 else 'is'} held, and left so.")
    if later:
        sentences.append(f"{later:,} more wait for the next time.")
    return " ".join(sentences)
