"""Accept what a pipeline found unusual: suspicious blocks as they are, or the changed columns of its source."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from pipelines import blocks
from pipelines.management.base import DONE, REFUSED, me, pipelines_named, refusal
from pipelines.management.verbs import VerbCommand
from pipelines.models import ScheduleBlock, State, Trigger
from pipelines.stages import columns


class Command(VerbCommand):
    help = "Accept suspicious blocks as they are (--rows), or the changed columns of a pipeline's source (--columns)."
    verb = staticmethod(blocks.accept)
    states = (State.DONE, State.HELD)
    only = {"mark": ScheduleBlock.Mark.SUSPICIOUS}
    which = "suspicious"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--rows", action="store_true", help="suspicious blocks: their rows are right, and usual from now on")
        what.add_argument("--columns", action="store_true", help="pipelines: their source's changed columns; what they stopped runs again")

    def act(self, **options: Any) -> int:
        return self._columns(options["targets"], options["reason"]) if options["columns"] else super().act(**options)

    def _columns(self, targets: list[str], reason: str) -> int:
        if numbers := [target for target in targets if target.isdecimal()]:
            words = f"Columns are a pipeline's; {numbers[0]} is the number of a block."
            raise refusal(words, "Name the pipeline: python3 manage.py accept SLUG --columns")
        named = pipelines_named(targets)
        verdicts = [columns.accept(pipeline, actor=me(), reason=reason, trigger=Trigger.COMMAND) for pipeline in named]
        if self.as_json:
            self.print_json(
                {
                    "pipelines": [
                        {"pipeline": pipeline.slug, "moved": verdict.moved, "text": verdict.text, "blocks": list(verdict.again)}
                        for pipeline, verdict in zip(named, verdicts, strict=True)
                    ]
                }
            )
        for pipeline, verdict in zip(named, verdicts, strict=True):
            (self.say if verdict.moved else self.complain)(f"{pipeline.slug}: {verdict.text}")
        return DONE if all(verdict.moved for verdict in verdicts) else REFUSED
