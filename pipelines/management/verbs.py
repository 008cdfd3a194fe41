"""The commands that press one button on some blocks: cancel, hold, release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from pipelines.blocks import Verdict
from pipelines.management.base import DONE, NOTHING, REFUSED, OpsCommand, count, me, pipelines_named, refusal
from pipelines.models import ScheduleBlock

#: The largest number that a block can have; a longer one is a slip of the finger, not a question for the database.
MOST = 2**63 - 1


class VerbCommand(OpsCommand):
    """Subclasses say which `verb` of `blocks` they press, and on blocks of which `states` when a pipeline is named.

    `instead` says what to do with a block that is in another state.
    """

    verb: Callable[..., Verdict]
    states: tuple[str, ...] = ()
    instead: dict[str, str] = {}
    #: what else a block of a named pipeline must be, and the word for such blocks
    only: dict[str, Any] = {}
    which = ""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 all of them moved, 2 one was refused or does not exist, 3 nothing to do"
        every = f"numbers of blocks, or slugs of pipelines: all their blocks that are {self._which()}"
        parser.add_argument("targets", nargs="+", metavar="BLOCK|PIPELINE", help=every)
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        numbers = self._numbers([int(target) for target in options["targets"] if target.isdecimal()])
        named = pipelines_named(target for target in options["targets"] if not target.isdecimal())
        theirs = ScheduleBlock.objects.filter(pipeline__in=named, state__in=self.states, **self.only)
        numbers += theirs.order_by("starts_at").values_list("pk", flat=True)
        verdicts = [type(self).verb(number, actor=me(), reason=options["reason"]) for number in dict.fromkeys(numbers)]
        found = ScheduleBlock.objects.select_related("pipeline").in_bulk(numbers)
        if self.as_json:
            self.print_json({"blocks": [_told(verdict, found[verdict.block_id]) for verdict in verdicts]})
        for verdict in verdicts:
            block = found[verdict.block_id]
            if verdict.moved:
                self.say(f"Block {block.pk}, {block}: {verdict.text}")
            else:
                self.complain(f"Block {block.pk}, {block}: {verdict.text}", self.instead.get(block.state, ""))
        if not verdicts:
            self.say(f"Nothing to do: no block of {', '.join(pipeline.slug for pipeline in named)} is {self._which()}.")
            return NOTHING
        refused = sum(not verdict.moved for verdict in verdicts)
        if len(verdicts) > 1:
            self.say(f"{count(len(verdicts) - refused, 'block')} moved, {refused} refused.")
        return REFUSED if refused else DONE

    def _which(self) -> str:
        return self.which or " or ".join(self.states)

    def _numbers(self, asked: list[int]) -> list[int]:
        """The numbers, when there is a block for each. Raises Refusal."""
        there = set(ScheduleBlock.objects.filter(pk__in=[number for number in asked if number <= MOST]).values_list("pk", flat=True))
        if missing := [number for number in asked if number not in there]:
            words = f"There is no block {', '.join(map(str, missing))}."
            raise refusal(words, "See the numbers with: python3 manage.py status; or name a pipeline.")
        return asked


def _told(verdict: Verdict, block: ScheduleBlock) -> dict[str, Any]:
    return {
        "block": block.pk,
        "pipeline": block.pipeline.slug,
        "state": block.state,
        "moved": verdict.moved,
        "text": verdict.text,
    }
