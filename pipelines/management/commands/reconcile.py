"""Compare what is published with the warehouse, row by row, and repair the difference: the page's two buttons in a shell."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from pipelines import planner
from pipelines.management.base import DONE, FAILED, REFUSED, OpsCommand, me
from pipelines.management.spans import add_span, pipeline_and_span
from pipelines.models import Trigger
from pipelines.selectors import reconcile as selectors
from pipelines.upkeep import resync

SHOWN = 20


class Command(OpsCommand):
    help = "Compare what a pipeline's portal has of a span of time with what the warehouse has for the public, row by row."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 equal or repaired, 1 they differ, 2 it can't be compared or the repair was refused"
        parser.add_argument("pipeline", metavar="PIPELINE", help="slug of the pipeline; others that publish to the same dataset are compared with it")
        add_span(parser)
        parser.add_argument("--repair", action="store_true", help="publish again what is missing or changed, delete what only the portal has")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        pipeline, starts_at, ends_at = pipeline_and_span(options, "reconcile")
        found = resync.reconcile(pipeline, starts_at, ends_at, actor=me(), reason=options["reason"], tell=self.say)
        done = None
        if options["repair"] and not found.is_equal:
            done = resync.repair(found, actor=me(), reason=options["reason"], trigger=Trigger.COMMAND)
            for block_id in done.asked:
                planner.ring(block_id)
        if self.as_json:
            repaired = {"repair": done.text, "asked": list(done.asked), "deleted": done.deleted} if done else {}
            self.print_json({**selectors.as_json(found), **repaired})
        self.say(f"{pipeline.slug}: {resync.sentence(found)}")
        for difference in found.differences[:SHOWN]:
            self.say(f"  {_words(difference)}")
        if len(found.differences) > SHOWN:
            self.say(f"  … and {len(found.differences) - SHOWN:,} more; see them all with --json")
        if done is None:
            return DONE if found.is_equal else FAILED
        (self.say if done.moved else self.complain)(f"{pipeline.slug}: {done.text}")
        return DONE if done.moved else REFUSED


def _words(difference: dict[str, Any]) -> str:
    if difference["kind"] == "note":
        return difference["words"]
    where = f", block {difference['block']}" if "block" in difference else ""
    columns = "; ".join(f"{name} {here} here, {there} there" for name, (here, there) in difference.get("columns", {}).items())
    return f"{difference['kind']}: {difference['key']}{where}{f' ({columns})' if columns else ''}"
