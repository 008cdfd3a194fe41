"""Take days off the portal again: the page's button in a shell."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from pipelines import clock, planner
from pipelines.management.base import DONE, NOTHING, REFUSED, OpsCommand, count, me, refusal
from pipelines.management.spans import add_span, pipeline_and_span
from pipelines.models import Trigger
from pipelines.upkeep import unpublish
from pipelines.upkeep.unpublish import Preview

SHOWN = 40


class Command(OpsCommand):
    help = "Delete the rows of a span of days from a pipeline's portal, and forget that they were published."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 2 refused or the portal failed, 3 there is nothing of these days"
        parser.add_argument("pipeline", metavar="PIPELINE", help="slug of the pipeline")
        add_span(parser)
        parser.add_argument("--republish", action="store_true", help="have the workers publish them again, from what the warehouse has")
        parser.add_argument("--dry-run", action="store_true", help="tell what would be deleted, and change nothing")
        parser.add_argument("--yes", action="store_true", help="answer yes to what it asks")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        pipeline, starts_at, ends_at = pipeline_and_span(options, "unpublish")
        found = unpublish.preview(pipeline, starts_at, ends_at)
        self._tell_of(found)
        if not found.taken:
            if self.as_json:
                self.print_json(_as_json(found))
            return REFUSED if found.lines else NOTHING
        if options["dry_run"]:
            if self.as_json:
                self.print_json(_as_json(found))
            self.say("This was a dry run: nothing was changed.")
            return DONE
        self._ask(found, yes=options["yes"])
        done = unpublish.unpublish(
            found, actor=me(), reason=options["reason"], republish=options["republish"], trigger=Trigger.COMMAND, tell=self.say
        )
        for block_id in done.asked:
            planner.ring(block_id)
        words = done.words(pipeline.portal.title)
        if self.as_json:
            self.print_json({**_as_json(found), "deleted": done.deleted, "held": done.held, "asked": done.asked, "text": words})
        self.say(f"{pipeline.slug}: {words}")
        if not options["republish"]:
            first = starts_at.astimezone(clock.zone(pipeline.time_zone)).date()
            self.say(f"Publish them again with: python3 manage.py catchup {pipeline.slug} --stage publish -s {first}")
        return REFUSED if done.refused else DONE

    def _tell_of(self, found: Preview) -> None:
        pipeline = found.pipeline
        for line in found.lines[:SHOWN]:
            window = clock.window_text(line.block.starts_at, line.block.ends_at, pipeline.time_zone)
            self.say(f"  {window}: {f'left alone: {line.skip}' if line.skip else count(line.rows, 'row')}")
        if len(found.lines) > SHOWN:
            self.say(f"  … and {len(found.lines) - SHOWN:,} more")
        where = f"{pipeline.portal_resource} of {pipeline.portal.title}"
        blocks = count(len(found.taken), "block")
        self.say(f"{pipeline.slug}: {count(found.rows, 'row')} of {blocks} to be deleted from {where}." if found.taken else "Nothing to take off.")

    def _ask(self, found: Preview, *, yes: bool) -> None:
        """Go on only with a yes. Raises Refusal."""
        if yes:
            return
        if self.as_json or not sys.stdin.isatty():
            raise refusal("This deletes rows that the public sees, and nobody was there to say yes.", "Add --yes if that is what you want.")
        self.say("Delete them? Type yes:")
        if sys.stdin.readline().strip().lower() != "yes":
            raise refusal("Nothing was changed.", "Type yes in full, or add --yes.")


def _as_json(found: Preview) -> dict[str, Any]:
    lines = [{"block": line.block.pk, "starts_at": line.block.starts_at.isoformat(), "rows": line.rows, "skip": line.skip} for line in found.lines]
    return {"pipeline": found.pipeline.slug, "rows": found.rows, "blocks": lines}
