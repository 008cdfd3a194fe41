"""What is stored of pipelines and their blocks: states, counts by stage, what is due next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Count, Q
from django.utils import timezone

from pipelines import clock, planner
from pipelines.management.base import DONE, OpsCommand, pipelines_named, refusal
from pipelines.models import Pipeline, ScheduleBlock, State
from pipelines.selectors import reports
from pipelines.selectors.waiting import CANARY_SILENT

#: Blocks that are told of one pipeline; the rest is counted.
SHOWN = 5


class Command(OpsCommand):
    help = "Show the state of pipelines and their blocks."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 told, 2 bad usage, or no such pipeline"
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="slugs of pipelines (default: all)")
        parser.add_argument("--provider", default="", help="only pipelines of this provider")
        parser.add_argument("--state", choices=State.values, help="only blocks in this state")
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="with --json: the newest N blocks of each pipeline (default: 100)")

    def act(self, **options: Any) -> int:
        if options["limit"] < 1:
            raise refusal(f"--limit {options['limit']}: at least 1 is needed.", "Leave it out for the newest 100 blocks of each pipeline.")
        named = options["pipelines"] or options["provider"]
        chosen = pipelines_named(options["pipelines"], options["provider"]) if named else list(Pipeline.objects.all())
        filters = {"state": options["state"]} if options["state"] else {}
        if self.as_json:
            found = [block for pipeline in chosen for block in reports.blocks_with_runs(pipeline=pipeline, **filters)[: options["limit"]]]
            self.print_json({"blocks": reports.report_all(found), "machinery": machinery()})
            return DONE
        if not chosen:
            self.say("There is no pipeline yet. Next: python3 manage.py import_config FILE, or add one in the admin.")
        for pipeline in chosen:
            for line in _lines(pipeline, filters):
                self.say(line)
        health = machinery()
        queue = f"{health['queue_depth']:,} waiting" if health["queue_depth"] is not None else f"can't be asked ({health['queue_trouble']})"
        self.say(f"Queue: {queue}; last tick {_ago(health['tick_age'])}; workers answered {_ago(health['canary_age'])}.")
        if advice := unheard(health):
            self.complain(*advice)
        return DONE


def _lines(pipeline: Pipeline, filters: dict[str, str]) -> Iterator[str]:
    """A pipeline: one line, and one for each block that is not done."""
    counts = pipeline.blocks.aggregate(**{state: Count("pk", filter=Q(state=state)) for state in State.values})
    told = ", ".join(f"{number:,} {state}" for state, number in counts.items() if number) or "no blocks yet"
    coming = planner.next_due(pipeline, timezone.now())
    when = f"next due {coming.astimezone(clock.zone(pipeline.time_zone)):%a %b %d, %H:%M %Z}" if coming else "runs only by hand"
    yield f"{pipeline.slug}: {told}; {'paused' if pipeline.is_paused else when}"
    wanted = pipeline.blocks.filter(**filters) if filters else pipeline.blocks.exclude(state=State.DONE)
    blocks = list(wanted.select_related("pipeline").order_by("-starts_at")[: SHOWN + 1])
    for block in blocks[:SHOWN]:
        window = clock.window_text(block.starts_at, block.ends_at, pipeline.time_zone)
        yield f"  block {block.pk}  {window}: {_standing(block)}. {block.message}".rstrip()
        if block.next_step:
            yield f"    Next: {block.next_step}"
    if len(blocks) > SHOWN:
        state = f" --state {filters['state']}" if filters else ""
        yield f"  and {wanted.count() - SHOWN:,} more: python3 manage.py status {pipeline.slug}{state} --json"


def _standing(block: ScheduleBlock) -> str:
    if block.state == State.DONE:
        return f"done ({block.get_mark_display()})" if block.mark else "done"
    words = {State.WAITING: "waiting for", State.RUNNING: "running", State.FAILED: "failed at", State.HELD: "held before"}
    later = ""
    if block.state == State.WAITING and block.due_at > timezone.now():
        later = f", due {block.due_at.astimezone(clock.zone(block.pipeline.time_zone)):%a %b %d, %H:%M:%S %Z}"
    made_good = ", and made good by a later run" if block.superseded_at else ""
    return f"{words[State(block.state)]} {block.stage}{later}{made_good}"


def machinery() -> dict[str, Any]:
    """Is anybody listening: ages in seconds, None = never. A queue that can't be asked has no depth, and its trouble in words."""
    trouble = ""
    try:
        depth = planner.queue_depth()
    except Exception as error:  # noqa: BLE001  redis, SQS and the database each raise their own; what is stored is told all the same
        depth, trouble = None, type(error).__name__
    return {"queue_depth": depth, "queue_trouble": trouble, "tick_age": planner.age("tick"), "canary_age": planner.pulse_age()}


def unheard(health: dict[str, Any]) -> tuple[str, str] | None:
    """What to say, and what to do, when nothing would move by itself; None when all is well."""
    if health["queue_trouble"]:
        return (
            "The queue can't be reached, so the workers hear of nothing.",
            "Look at QUEUE_URL and whether its server runs; python3 manage.py doctor tells more.",
        )
    if health["canary_age"] is None or health["canary_age"] > CANARY_SILENT.total_seconds():
        return "No worker listens, so nothing runs by itself.", "Start them with: python3 manage.py up"
    return None


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for size, word in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {word} ago"
    return f"{seconds:,.0f} s ago"
