"""Read configuration files into the database: all of them or nothing, checked before anything is kept."""

import functools
import getpass
import json
import os
import sys
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict

from django.conf import settings
from django.core.management.base import DjangoHelpFormatter

from pipelines import importers
from pipelines.connectors.base import REGISTRY
from pipelines.importers import own
from pipelines.importers.environments import FERNET_KEY
from pipelines.importers.plan import Problem, suggestion
from pipelines.importers.settle import Checks
from pipelines.management.base import DONE, NOTHING, REFUSED, OpsCommand, me, refusal
from pipelines.models import Provider
from pipelines.stages import release
from pipelines.upkeep import jobs

CHECKS = Checks(job=jobs.check, release=release.problems)
VERBS = {"created": "create", "changed": "change", "unchanged": "same"}
FOREIGN = "".join(f"- {importer.__doc__.split(chr(10) * 2)[0].strip()}\n" for importer in importers.FORMATS if importer is not own)
EPILOG = f"""\
The format is seen from the content. Beside the app's own these are read, as they are:
{FOREIGN}
{own.__doc__}
exit codes: 0 something changed (or would, with --dry-run), 2 refused and nothing written, 3 nothing to do
"""


class LinesKept(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Django's help, in which the example stays an example."""


class Command(OpsCommand):
    help = "Read configuration files: providers, datasets, boundaries, pipelines … All is checked first; one mistake, and nothing is written."

    def create_parser(self, prog_name, subcommand, **kwargs):
        return super().create_parser(prog_name, subcommand, epilog=EPILOG, formatter_class=LinesKept, **kwargs)

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("files", nargs="+", metavar="FILE", help="configuration files, also s3://bucket/key; the format is seen from the content")
        parser.add_argument(
            "--fernet-key-env",
            default="",
            metavar="NAME",
            help="the variable that holds the Fernet key of encrypted files (else ATD_MDS_FERNET_KEY, else it is asked for)",
        )
        parser.add_argument(
            "--warehouse",
            default="",
            metavar="NAME",
            help="load all pipelines of these files into this warehouse of the settings, whatever the files say",
        )
        parser.add_argument(
            "--portal",
            default="",
            metavar="SLUG",
            help="publish all pipelines of these files that publish to this provider, whatever the files say; Toronto's name no portal",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would change, and write nothing")
        parser.add_argument("--reason", default="", help="why; kept in the audit, and needed where ENVIRONMENT is prod")

    def act(self, **options) -> int:
        dry_run, reason = options["dry_run"], options["reason"].strip()
        warehouse = options["warehouse"]
        if warehouse and warehouse not in settings.WAREHOUSES:
            near = suggestion(warehouse, settings.WAREHOUSES, what="The warehouses of the settings")
            raise refusal(f"This installation has no warehouse {warehouse!r}.", near)
        portal = self._portal(options["portal"])
        key_for = fernet_key(options["fernet_key_env"])
        planned = importers.plan(options["files"], warehouse=warehouse, portal=portal, checks=CHECKS, key_for=key_for)
        problems, changes, notes = planned.problems, planned.changes, planned.notes
        changing = any(change.verb != "unchanged" for change in changes)
        if not problems and changing and not dry_run:
            if settings.ENVIRONMENT == "prod" and not reason:
                problems = (Problem("", 0, "", "On the production system every change leaves its reason.", "Add --reason and say why."),)
            else:
                try:
                    report = importers.apply(planned, actor=me(), reason=reason, checks=CHECKS)
                    changes, notes = (*report.created, *report.changed, *report.unchanged), report.notes
                except importers.Refused as error:
                    problems = error.problems
        if self.as_json:
            self.print_json(_told(changes, problems, planned.warnings, notes, dry_run))
        for warning in planned.warnings:
            self._complain("Warning: ", warning)
        if problems:
            self._refuse(problems)
            return REFUSED
        self._summarise(changes, notes, dry_run)
        return DONE if changing else NOTHING

    @staticmethod
    def _portal(slug: str) -> str:
        """The portal that was named; "" for none. Raises Refusal for one that is not here."""
        if slug and not Provider.objects.filter(slug=slug).exists():
            kinds = [kind for kind, connector in REGISTRY.items() if connector.can_publish]
            known = Provider.objects.filter(kind__in=kinds).order_by("slug").values_list("slug", flat=True)
            raise refusal(f"There is no provider {slug!r}.", suggestion(slug, known, what="The portals that are here"))
        return slug

    def _refuse(self, problems) -> None:
        for problem in problems:
            self._complain("", problem)
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        self.stderr.write(f"Refused, and nothing was written: {many}.")

    def _complain(self, word: str, problem: Problem) -> None:
        place = f"{problem.file}:{problem.line}: " if problem.line else f"{problem.file}: " if problem.file else ""
        path = f"{problem.field}: " if problem.field else ""
        self.stderr.write(f"{word}{place}{path}{problem.message}\n  Next: {problem.next_step}")

    def _summarise(self, changes, notes, dry_run: bool) -> None:
        for change in changes:
            about = f": {_in_short(change)}" if change.verb == "created" else ""
            self.say(f"{VERBS[change.verb]:<7} {change.kind:<8} {change.slug}{about}")
            if change.verb == "changed":
                for field in change.fields:
                    self.say(f"          {field.name}: {_short(field.before)} → {_short(field.after)}")
        for note in notes:
            self.say(f"Note: {note}")
        counts = ", ".join(f"{sum(change.verb == verb for change in changes)} {verb}" for verb in VERBS)
        self.say(f"{counts}.{' Nothing was written: this was a dry run.' if dry_run else ''}")
        fresh = [change.slug for change in changes if change.kind == "pipeline" and change.verb == "created"]
        if fresh and not dry_run:
            self.say(f"Next: python3 manage.py run {fresh[0]}")


def fernet_key(variable: str) -> importers.KeyFor:
    """Who is asked for the key of an encrypted file: the variable that was named, else a person at a terminal, once.

    Raises Refusal where the variable that was named is not there.
    """
    if variable and not os.environ.get(variable):
        raise refusal(f"The environment has no {variable}.", f"Set it, or name another: --fernet-key-env {FERNET_KEY}")

    @functools.cache
    def asked() -> str:
        return getpass.getpass("Fernet key of the encrypted files: ") if sys.stdin.isatty() and not os.environ.get(FERNET_KEY) else ""

    return lambda path: os.environ[variable] if variable else asked()


def _told(changes, problems, warnings, notes, dry_run: bool) -> dict:
    """What --json promises."""
    kept = () if problems else changes
    return {
        **{
            verb: [
                {
                    "kind": change.kind,
                    "slug": change.slug,
                    "file": change.file,
                    "line": change.line,
                    "fields": {field.name: [field.before, field.after] for field in change.fields},
                }
                for change in kept
                if change.verb == verb
            ]
            for verb in VERBS
        },
        "errors": [asdict(problem) for problem in problems],
        "warnings": [asdict(warning) for warning in warnings],
        "notes": list(notes),
        "dry_run": dry_run,
    }


def _in_short(change) -> str:
    """What a new object is, in a line: enough to see that the file was understood."""
    said = {field.name: field.after for field in change.fields}
    if change.kind == "provider":
        return ", ".join(
            filter(None, [said.get("kind"), said.get("base_url"), *(f"{name} {word}" for name, word in said.get("secrets", {}).items())])
        )
    if change.kind in ("dataset", "boundary"):
        return said.get("title", "")
    if change.kind == "upkeep job":
        return f"{said.get('kind', '')} {said.get('cadence', '')}".strip()
    if change.kind == "operator":
        return ", ".join(filter(None, [said.get("name"), said.get("mds_api_url")]))
    goes = f"{said.get('provider')} {said.get('resource')} → {said.get('warehouse', 'default')}.{said.get('table', '')}".rstrip(".")
    key = f"key {', '.join(said['key'])}" if said.get("key") else "no key"
    mark = f"newer {said['watermark_column']}" if said.get("watermark_column") else ""
    after = ", ".join(f"{step['kind']} {step['target']}".strip() for step in said.get("after", []))
    return "; ".join(filter(None, [goes, key, mark, f"then {after}" if after else "", "paused" if said.get("is_paused") else ""]))


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:150]}… ({len(text):,} characters)"
