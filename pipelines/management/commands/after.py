"""What was to be done after loads: list what failed, and do it again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from pipelines.management.base import DONE, FAILED, NOTHING, REFUSED, OpsCommand, count, me, pipelines_named, refusal
from pipelines.models import AfterRun
from pipelines.selectors.after import Failure, after_json, deed_words, failures
from pipelines.upkeep import after


class Command(OpsCommand):
    help = "List the steps after loads that failed and wait for a person; with --retry do them again, here and now."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 nothing has failed, or all of it is done now; 1 a step failed; 2 refused or bad usage; 3 nothing to do again"
        parser.add_argument("--pipeline", default="", metavar="SLUG", help="only the steps of this pipeline")
        parser.add_argument("--retry", nargs="*", type=int, metavar="NUMBER", help="do these failed steps again; without a number all of --pipeline")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        pipelines = pipelines_named([options["pipeline"]]) if options["pipeline"] else None
        if options["retry"] is None:
            return self._list(failures(pipelines))
        numbers = options["retry"]
        if not numbers and pipelines is None:
            raise refusal("Name the steps, or a pipeline: --retry NUMBER, or --retry --pipeline SLUG.", "See them with: python3 manage.py after")
        return self._retry(numbers or [failure.line.pk for failure in failures(pipelines)], options["reason"])

    def _list(self, found: list[Failure]) -> int:
        if self.as_json:
            self.print_json({"failed": [_told(failure) for failure in found]})
        for failure in found:
            where = f"{failure.pipeline.slug}, block {failure.block_id}"
            again = f"Mend the cause, then: python3 manage.py after --retry {failure.line.pk}"
            self.complain(f"{failure.line.pk}  {where}: {failure.words}: {failure.line.message}", again)
        if not found:
            self.say("No step after a load waits for a person.")
        return FAILED if found else DONE

    def _retry(self, numbers: list[int], reason: str) -> int:
        wanted = AfterRun.objects.select_related("step__pipeline", "run").in_bulk(numbers)
        if missing := [number for number in numbers if number not in wanted]:
            raise refusal(f"There is no step {', '.join(map(str, missing))}.", "See their numbers with: python3 manage.py after")
        verdicts = {number: after.retry(number, actor=me(), reason=reason) for number in dict.fromkeys(numbers)}
        asked = [number for number, verdict in verdicts.items() if verdict.moved]
        if asked:
            after.carry_out(block_ids={wanted[number].run.block_id for number in asked})
        ended = AfterRun.objects.select_related("step__pipeline", "run").in_bulk(asked)
        if self.as_json:
            refused = [{"step": number, "text": verdict.text} for number, verdict in verdicts.items() if not verdict.moved]
            self.print_json({"steps": [after_json(ended[number]) for number in asked], "refused": refused})
        for number in asked:
            one = ended[number]
            words = f"{one.step.pipeline.slug}: {deed_words(one.step)}"
            if one.state == AfterRun.State.FAILED:
                self.complain(f"{words}: failed. {one.message}", f"Mend the cause, then: python3 manage.py after --retry {number}")
            else:
                # another process may have been quicker, and be at it still
                self.say(f"{words}: {one.get_state_display().lower()}. {one.message}".rstrip())
        for number, verdict in verdicts.items():
            if not verdict.moved:
                self.complain(f"Step {number}: {verdict.text}")
        if len(verdicts) > 1:
            done = sum(one.state == AfterRun.State.DONE for one in ended.values())
            self.say(f"{count(len(verdicts), 'step')}: {done:,} done now.")
        if any(one.state == AfterRun.State.FAILED for one in ended.values()):
            return FAILED
        if not verdicts:
            self.say("Nothing to do again: no step of it failed.")
            return NOTHING
        return REFUSED if len(asked) < len(verdicts) else DONE


def _told(failure: Failure) -> dict[str, Any]:
    return {
        "number": failure.line.pk,
        "pipeline": failure.pipeline.slug,
        "block": failure.block_id,
        "run": failure.line.run_id,
        "step": failure.words,
        "at": failure.line.at.isoformat(),
        "message": failure.line.message,
    }
