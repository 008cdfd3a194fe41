"""What the commands share: one way to print, to refuse, and to say what comes next.

Exit codes: 0 done, 1 a block failed, 2 refused, bad usage or configuration, 3 nothing to do.
"""

from __future__ import annotations

import difflib
import getpass
import json
import logging
import os
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from catalog.audit import Actor
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, Provider

DONE, FAILED, REFUSED, NOTHING = 0, 1, 2, 3


class OpsCommand(BaseCommand):
    """A command with `--json`: then stdout holds one JSON object and nothing else; words go to stderr."""

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else there")

    def handle(self, *args, **options):
        self.as_json = options["json"]
        if "LOG_LEVEL" not in os.environ:
            # what a person should know is said in words below; the same as JSON lines would only hide it
            for name in ("pipelines", "catalog"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            code = self.act(**options)
        except PipelineError as error:
            raise refusal(error.message, error.next_step) from error
        if code:
            # SystemExit, since Django prints what handle returns; call_command in a test sees it too
            raise SystemExit(code)

    def act(self, **options) -> int:
        """Do the command's work and return its exit code."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Words for a person."""
        (self.stderr if self.as_json else self.stdout).write(text)

    def print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))


def refusal(message: str, next_step: str = "") -> CommandError:
    """An error with exit code 2 that says what to do."""
    return CommandError(f"{message}\nNext: {next_step}" if next_step else message, returncode=REFUSED)


def me() -> Actor:
    """Who types: the name in the audit."""
    try:
        return Actor(f"{getpass.getuser()} (command)")
    except (KeyError, OSError):
        return Actor("command")


def pipelines_named(slugs: Iterable[str], provider: str = "") -> list[Pipeline]:
    """The pipelines of these slugs, in that order, or all of a provider. Raises CommandError that suggests near names."""
    slugs = list(slugs)
    if provider and not Provider.objects.filter(slug=provider).exists():
        raise refusal(f"There is no provider {provider!r}.{_near(provider, Provider)}", "See them with: python3 manage.py status")
    found = Pipeline.objects.select_related("provider", "dataset", "portal").in_bulk(slugs, field_name="slug") if slugs else {}
    for slug in slugs:
        if slug not in found:
            raise refusal(f"There is no pipeline {slug!r}.{_near(slug, Pipeline)}", "See them with: python3 manage.py status")
    chosen = [found[slug] for slug in slugs] or list(Pipeline.objects.select_related("provider", "dataset", "portal").filter(provider__slug=provider))
    if provider:
        chosen = [pipeline for pipeline in chosen if pipeline.provider.slug == provider]
        if not chosen:
            raise refusal(f"Provider {provider!r} feeds none of these pipelines.", "Leave out --provider, or name another.")
    return chosen


def _near(slug: str, model) -> str:
    near = difflib.get_close_matches(slug, model.objects.values_list("slug", flat=True), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""
