"""Backups of a portal's tables from the shell: what there is, make one, put one back."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import CommandParser

from pipelines.errors import PipelineError
from pipelines.management.base import DONE, FAILED, NOTHING, OpsCommand, count, me, pipelines_named, refusal
from pipelines.upkeep import backups


class Command(OpsCommand):
    help = "List, make and restore the backups of what pipelines publish on a CKAN portal (Parquet and fields, in the lake)."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 1 one of several could not be made, 2 refused or the portal failed, 3 there is none"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|make|restore")
        told = verbs.add_parser("list", help="the backups of a pipeline's table, the newest first")
        told.add_argument("pipeline", metavar="PIPELINE", help="slug of the pipeline")
        make = verbs.add_parser("make", help="back up what these pipelines publish, where it changed since the last backup")
        make.add_argument("pipelines", nargs="+", metavar="PIPELINE", help="slugs")
        back = verbs.add_parser("restore", help="put a backup in the place of what the portal shows, in one step")
        back.add_argument("pipeline", metavar="PIPELINE", help="slug of the pipeline")
        back.add_argument("--backup", default="", metavar="SHA256", help="its first letters; without it, the newest")
        back.add_argument("--dry-run", action="store_true", help="tell what would be restored, and change nothing")
        back.add_argument("--yes", action="store_true", help="answer yes to what it asks")
        back.add_argument("--reason", default="", help="why; kept in the audit")
        for one in (told, make, back):
            one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout, and nothing else there")

    def act(self, **options: Any) -> int:
        return {"list": self._list, "make": self._make, "restore": self._restore}[options["verb"]](options)

    def _list(self, options: dict[str, Any]) -> int:
        holding = self._holding(options["pipeline"])
        entries = list(holding.entries())
        if self.as_json:
            told = [
                {"sha256": one.metadata["content"], "rows": one.rows, "bytes": one.bytes, "at": one.created_at.isoformat(), "file": one.pointer}
                for one in entries
            ]
            self.print_json({"table": holding.resource, "backups": told})
        for one in entries:
            self.say(f"{one.metadata['content'][:12]}  {one.created_at:%Y-%m-%d %H:%M} UTC  {count(one.rows or 0, 'row')}  {one.bytes:,} bytes")
        if not entries:
            self.say(f"{holding.resource} has no backup yet. Next: python3 manage.py backups make {options['pipeline']}")
        return DONE if entries else NOTHING

    def _make(self, options: dict[str, Any]) -> int:
        failed, told = 0, []
        for pipeline in pipelines_named(options["pipelines"]):
            try:
                made = backups.back_up(backups.of_pipeline(pipeline))
            except PipelineError as error:
                failed += 1
                told.append({"pipeline": pipeline.slug, "error": error.message})
                self.complain(f"{pipeline.slug}: {error.message}", error.next_step)
                continue
            told.append({"pipeline": pipeline.slug, "sha256": made.sha256, "rows": made.rows, "is_new": made.is_new, "file": made.data.pointer})
            self.say(f"{pipeline.slug}: {made.words}{'' if made.is_new else ', as it was already'}")
        if self.as_json:
            self.print_json({"backups": told})
        return FAILED if failed else DONE

    def _restore(self, options: dict[str, Any]) -> int:
        holding = self._holding(options["pipeline"])
        backup = backups.chosen(holding, options["backup"])
        self.say(
            f"{holding.resource} of {holding.portal.title}: to be restored are {count(backup.rows, 'row')} of "
            f"{backup.data.created_at:%Y-%m-%d %H:%M} UTC ({backup.sha256[:12]}), in the place of what it shows now."
        )
        if options["dry_run"]:
            if self.as_json:
                self.print_json({"table": holding.resource, "sha256": backup.sha256, "rows": backup.rows, "restored": False})
            self.say("This was a dry run: nothing was changed.")
            return DONE
        self._ask(yes=options["yes"])
        rows = backups.restore(holding, backup, actor=me(), reason=options["reason"])
        if self.as_json:
            self.print_json({"table": holding.resource, "sha256": backup.sha256, "rows": rows, "restored": True})
        self.say(f"Restored: {count(rows, 'row')}. The warehouse is as it was; a forced publication would send its rows again.")
        return DONE

    def _holding(self, slug: str) -> backups.Holding:
        [pipeline] = pipelines_named([slug])
        return backups.of_pipeline(pipeline)

    def _ask(self, *, yes: bool) -> None:
        """Go on only with a yes. Raises Refusal."""
        if yes:
            return
        if self.as_json or not sys.stdin.isatty():
            raise refusal("This changes what the public sees, and nobody was there to say yes.", "Add --yes if that is what you want.")
        self.say("Restore them? Type yes:")
        if sys.stdin.readline().strip().lower() != "yes":
            raise refusal("Nothing was changed.", "Type yes in full, or add --yes.")
