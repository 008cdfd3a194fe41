"""The commands that press one button on some blocks: cancel, hold, release."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.blocks import Verdict
from pipelines.management.base import DONE, NOTHING, REFUSED, OpsCommand, me, pipelines_named, refusal
from pipelines.models import ScheduleBlock


class VerbCommand(OpsCommand):
    """Subclasses say which `verb` of `blocks` they press, and on blocks of which `states` when a pipeline is named."""

    verb: Callable[..., Verdict]
    states: tuple[str, ...] = ()

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("targets", nargs="+", metavar="BLOCK|PIPELINE", help=f"numbers of blocks, or slugs of pipelines: all their blocks that are {' or '.join(self.states)}")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options) -> int:
        numbers = [int(target) for target in options["targets"] if target.isdecimal()]
        missing = set(numbers) - set(ScheduleBlock.objects.filter(pk__in=numbers).values_list("pk", flat=True))
        if missing:
            raise refusal(f"There is no block {', '.join(map(str, sorted(missing)))}.", "See them with: python3 manage.py status --json")
        named = pipelines_named([target for target in options["targets"] if not target.isdecimal()])
        numbers += ScheduleBlock.objects.filter(pipeline__in=named, state__in=self.states).values_list("pk", flat=True)
        verdicts = [type(self).verb(number, actor=me(), reason=options["reason"]) for number in dict.fromkeys(numbers)]
        if self.as_json:
            self.print_json({"blocks": [{"block": verdict.block_id, "moved": verdict.moved, "text": verdict.text} for verdict in verdicts]})
        for verdict in verdicts:
            self.say(f"Block {verdict.block_id}: {verdict.text}")
        if not verdicts:
            self.say(f"Nothing to do: no block there is {' or '.join(self.states)}.")
            return NOTHING
        return DONE if any(verdict.moved for verdict in verdicts) else REFUSED
