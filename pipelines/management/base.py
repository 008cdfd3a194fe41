"""What the commands share: one way to print, to refuse, and to say what comes next.

Exit codes: 0 done, 1 a block failed, 2 refused, bad usage or configuration, 3 nothing to do.
"""

from __future__ import annotations

import contextlib
import difflib
import getpass
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper, SystemCheckError
from django.db import InterfaceError, OperationalError

from catalog.audit import Actor
from pipelines import secrets
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, Provider

DONE, FAILED, REFUSED, NOTHING = 0, 1, 2, 3
#: What a shell expects of a program that Ctrl-C or a signal ended.
STOPPED = 130

SEE_ALL = "See what there is with: python3 manage.py status"
ASK_DOCTOR = "Find the cause with: python3 manage.py doctor"


class Refusal(CommandError):
    """The command can't be obeyed: a sentence, and what to do next."""

    def __init__(self, message: str, next_step: str = ""):
        super().__init__(f"{message}\nNext: {next_step}" if next_step else message, returncode=REFUSED)
        self.message = message
        self.next_step = next_step


def refusal(message: str, next_step: str = "") -> CommandError:
    """An error with exit code 2 that says what to do."""
    return Refusal(message, next_step)


class Output(OutputWrapper):
    """A stream whose reader may leave (`| head`): what it would have read is lost, and the work goes on."""

    def __init__(self, out: Any):
        super().__init__(out)
        if hasattr(out, "reconfigure"):
            # a terminal that is not UTF-8 gets the arrow of "extract → load" as an escape, instead of a traceback
            out.reconfigure(errors="backslashreplace")

    def write(self, msg: str = "", style_func: Any = None, ending: str | None = None) -> None:
        try:
            super().write(msg, style_func, ending)
            # line by line, also into a pipe: who follows a long run wants to see it now
            self.flush()
        except BrokenPipeError:
            # what is still in the buffer goes nowhere too, or Python would complain of it at its exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())
            os.close(nowhere)


class OpsCommand(BaseCommand, ABC):
    """A command with `--json`: then stdout holds one JSON object and nothing else, also for an error; words go to stderr."""

    #: Below this the log is silent in the terminal, unless LOG_LEVEL is set: what a person should know is said in words.
    log_level = logging.CRITICAL
    as_json = False
    _has_printed = False

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        self.name = subcommand
        if self._called_from_command_line:
            parser.error = self._misused
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        self.as_json = "--json" in argv  # known before the rest of the line is, which may be wrong
        super().run_from_argv(argv)

    def _misused(self, message: str) -> NoReturn:
        self._tell(Refusal(f"{message[:1].upper()}{message[1:]}.", f"See what it takes with: python3 manage.py {self.name} --help"))
        raise SystemExit(REFUSED)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else there")

    def execute(self, *args: Any, **options: Any) -> Any:
        self.as_json = bool(options["json"])
        self._has_printed = False
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if options.get("traceback"):
                raise
            self._tell(error)
        except PipelineError as error:
            if options.get("traceback"):
                raise
            self._tell(Refusal(error.message, error.next_step or ASK_DOCTOR))
        except (OperationalError, InterfaceError) as error:
            if options.get("traceback"):
                raise
            self._tell(Refusal(f"The database does not answer: {_first_line(error)}", f"See that it runs, then try again. {ASK_DOCTOR}"))
        raise SystemExit(REFUSED)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout, self.stderr = Output(self.stdout._out), Output(self.stderr._out)
        with quiet(self.log_level):
            code = self.act(**options)
        if code:
            # SystemExit, since Django prints what handle returns; call_command in a test sees it too
            raise SystemExit(code)

    @abstractmethod
    def act(self, **options: Any) -> int:
        """Do the command's work and return its exit code. Raises CommandError, PipelineError: told in words, exit code 2."""

    def say(self, text: str) -> None:
        """Words for a person."""
        (self.stderr if self.as_json else self.stdout).write(text)

    def complain(self, message: str, next_step: str = "") -> None:
        """Words about something that went wrong, on stderr."""
        self.stderr.write(f"{message}\nNext: {next_step}" if next_step else message)

    def print_json(self, value: Any) -> None:
        self._has_printed = True
        self.stdout.write(json.dumps(value, indent=2, default=str))

    def _tell(self, error: CommandError) -> None:
        """Say an error: in words on stderr, and with --json as the one object on stdout."""
        self.stdout, self.stderr = Output(self.stdout._out), Output(self.stderr._out)
        if isinstance(error, Refusal):
            message, next_step = error.message, error.next_step
        elif isinstance(error, SystemCheckError):
            message = str(error).removeprefix("SystemCheckError: ").strip()
            next_step = "Change the settings that it names, in the environment or in .env, and try again."
        else:
            message, next_step = str(error), ""
        self.complain(message, next_step)
        if self.as_json and not self._has_printed:
            self.print_json({"error": message, "next_step": next_step})


@contextlib.contextmanager
def quiet(level: int) -> Iterator[None]:
    """Keep the log's lines out of the terminal, unless somebody asked for them with LOG_LEVEL."""
    loggers = [logging.getLogger(name) for name in ("pipelines", "catalog", "perfmet")] if "LOG_LEVEL" not in os.environ else []
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def me() -> Actor:
    """Who types: the name in the audit."""
    try:
        return Actor(f"{getpass.getuser()} (command)")
    except (KeyError, OSError):
        return Actor("command")


def count(number: int, thing: str) -> str:
    """ "1 block", "1,200 blocks"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def pipelines_named(slugs: Iterable[str], provider: str = "") -> list[Pipeline]:
    """The pipelines of these slugs, each once and in that order, or all of a provider. Raises Refusal that suggests near names."""
    slugs = list(dict.fromkeys(slugs))
    every = Pipeline.objects.select_related("provider", "dataset", "portal")
    if provider and not Provider.objects.filter(slug=provider).exists():
        raise refusal(f"There is no provider {provider!r}.", _near(provider, Provider))
    found = every.in_bulk(slugs, field_name="slug") if slugs else {}
    if missing := [slug for slug in slugs if slug not in found]:
        raise refusal(f"There is no pipeline {', '.join(map(repr, missing))}.", _near(missing[0], Pipeline))
    if not provider:
        return [found[slug] for slug in slugs]
    chosen = [found[slug] for slug in slugs if found[slug].provider.slug == provider] if slugs else list(every.filter(provider__slug=provider))
    if not chosen:
        raise refusal(f"Provider {provider!r} feeds {'none of these pipelines' if slugs else 'no pipeline'}.", SEE_ALL)
    return chosen


def _near(slug: str, model: type[Pipeline] | type[Provider]) -> str:
    """The next step for somebody who typed a name that is not there."""
    known = list(model.objects.order_by("slug").values_list("slug", flat=True))
    wanted = slug.lower().replace("_", "-").replace(" ", "-")
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5) or [name for name in known if wanted and wanted in name][:3]
    if near:
        return f"Did you mean {' or '.join(near)}? {SEE_ALL}"
    if not known:
        return "There is none yet: read some in with python3 manage.py import_config FILE, or practise with python3 manage.py demo"
    return f"Use one of: {', '.join(known)}" if len(known) <= 8 else SEE_ALL


def _first_line(error: Exception) -> str:
    lines = secrets.redact(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
