"""What is stored of pipelines and their blocks: states, counts by stage, what is due next."""

from __future__ import annotations

from django.db.models import Count, Q
from django.utils import timezone

from pipelines import clock, planner
from pipelines.management.base import DONE, OpsCommand, pipelines_named
from pipelines.models import Pipeline, State
from pipelines.selectors import reports


class Command(OpsCommand):
    help = "Show the state of pipelines and their blocks."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="slugs of pipelines (default: all)")
        parser.add_argument("--provider", default="", help="only pipelines of this provider")
        parser.add_argument("--state", choices=State.values, help="only blocks in this state")
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="with --json: the newest N blocks of each pipeline (default: 100)")

    def act(self, **options) -> int:
        chosen = pipelines_named(options["pipelines"], options["provider"]) if options["pipelines"] or options["provider"] else list(Pipeline.objects.all())
        filters = {"state": options["state"]} if options["state"] else {}
        if self.as_json:
            found = [block for pipeline in chosen for block in reports.blocks_with_runs(pipeline=pipeline, **filters)[: options["limit"]]]
            self.print_json({"blocks": [reports.report(block) for block in found], "machinery": machinery()})
            return DONE
        if not chosen:
            self.say("There is no pipeline yet. Next: python3 manage.py import_config FILE, or add one in the admin.")
        for pipeline in chosen:
            self._pipeline(pipeline, filters)
        health = machinery()
        self.say(f"Queue: {health['queue_depth']} waiting; tick {_ago(health['tick_age'])}; workers answered {_ago(health['canary_age'])}.")
        return DONE

    def _pipeline(self, pipeline: Pipeline, filters: dict) -> None:
        counts = pipeline.blocks.aggregate(**{state: Count("pk", filter=Q(state=state)) for state in State.values})
        told = ", ".join(f"{number:,} {state}" for state, number in counts.items() if number) or "no blocks yet"
        coming = planner.next_due(pipeline, timezone.now())
        when = f"next due {coming.astimezone(clock.zone(pipeline.time_zone)):%a %b %d, %H:%M %Z}" if coming else "runs only by hand"
        self.say(f"{pipeline.slug}: {told}; {'paused' if pipeline.is_paused else when}")
        for block in pipeline.blocks.filter(**filters).exclude(state=State.DONE).select_related("pipeline").order_by("-starts_at")[:5]:
            self.say(f"  block {block.pk}  {clock.window_text(block.starts_at, block.ends_at, pipeline.time_zone)}: {block.state} at {block.stage}. {block.message}")
            if block.next_step:
                self.say(f"    Next: {block.next_step}")


def machinery() -> dict:
    """Is anybody listening: ages in seconds, None = never."""
    return {"queue_depth": planner.queue_depth(), "tick_age": planner.age("tick"), "canary_age": planner.pulse_age()}


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:,.0f} s ago"
