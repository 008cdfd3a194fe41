"""Configurations of other systems, and our own: a file each, found by being here.

An importer is a module of this folder with two functions, and `NAME`, what its format is called:

- `recognises(path, text) -> bool` says, at a glance and without raising, whether a file is of its format;
- `read(path, text) -> Plan` says what the file wants (`Wanted`) and what is wrong with it (`Problem`), with file and line. It
  writes nothing, asks no database, and executes nothing of what it reads.

Where several files of a format belong together it has `read_all([(path, text), …])` besides. The first paragraph of its docstring
is what the help of import_config says of the format.

Comparing with the database, checking and writing are done here, the same for all formats. To import is to add and to change:
what no file names stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from django.db import transaction

from catalog.audit import Actor
from pipelines.importers import environments, files, own
from pipelines.importers.plan import PIPELINE, Plan, Problem, Report, Wanted
from pipelines.importers.settle import NO_CHECKS, Checks, settle

#: The Fernet key of an encrypted file, by its path; "" for none.
KeyFor = Callable[[str], str]

FORMATS: tuple[ModuleType, ...] = tuple(
    module
    for module in (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    if hasattr(module, "recognises") and hasattr(module, "read")
)


class Refused(Exception):
    """Nothing was written, for there are problems: `problems` says which and where."""

    def __init__(self, problems: tuple[Problem, ...]):
        super().__init__(f"{len(problems)} problems, the first: {problems[0].message}")
        self.problems = problems


def plan(paths: Iterable[str | Path], *, warehouse: str = "", portal: str = "", checks: Checks = NO_CHECKS, key_for: KeyFor | None = None) -> Plan:
    """What these files would make, change and leave, and all that is wrong with them. Nothing stays written.

    With a `warehouse` (an alias of the settings) all their pipelines load into it, whatever the files say; with a `portal` (the
    slug of a provider) all that publish do so to it. `checks` judge what an importer can't. `key_for` is asked for the Fernet key
    of a file that is encrypted; "" leaves it to ATD_MDS_FERNET_KEY of the environment.
    """
    paths = [str(path) for path in paths]
    read = _read(paths, key_for)
    if warehouse:
        read = replace(read, wanted=tuple(_into(warehouse, wanted) for wanted in read.wanted))
    if portal:
        read = replace(read, wanted=tuple(_onto(portal, wanted) for wanted in read.wanted if not wanted.is_stand_in))
    with transaction.atomic():
        settled = settle(read, checks=checks)
        transaction.set_rollback(True)
    # in the order of the files and their lines, as a person goes through them
    places = {path: place for place, path in enumerate(paths)}

    def in_order(found: Iterable[Problem]) -> tuple[Problem, ...]:
        return tuple(sorted(found, key=lambda problem: (places.get(problem.file, len(places)), problem.line)))

    return replace(settled, problems=in_order(settled.problems), warnings=in_order(settled.warnings))


def _into(warehouse: str, wanted: Wanted) -> Wanted:
    if wanted.kind != PIPELINE:
        return wanted
    next_steps = {name: words for name, words in wanted.next_steps.items() if name != "warehouse"}
    return replace(wanted, values={**wanted.values, "warehouse": warehouse}, next_steps=next_steps)


def _onto(portal: str, wanted: Wanted) -> Wanted:
    if wanted.kind != PIPELINE or not (wanted.values.get("portal") or wanted.first.get("portal")):
        return wanted
    return replace(wanted, values={**wanted.values, "portal": portal})


def apply(planned: Plan, *, actor: Actor, reason: str = "", checks: Checks = NO_CHECKS) -> Report:
    """Do what the plan says, all or nothing, with an audit row for each object that was made or changed.

    The database may have changed since the plan was made, so everything is compared and checked again. Raises Refused.
    """
    if planned.problems:
        raise Refused(planned.problems)
    with transaction.atomic():
        done = settle(Plan(planned.wanted), actor=actor, reason=reason, checks=checks)
        if done.problems:
            transaction.set_rollback(True)
    if done.problems:
        raise Refused(done.problems)
    notes = tuple(dict.fromkeys((*planned.notes, *done.notes)))
    return Report(done.of("created"), done.of("changed"), done.of("unchanged"), notes, planned.warnings)


def _read(paths: Iterable[str], key_for: KeyFor | None) -> Plan:
    """All files read, each by the importer that knows its format; a file that can't be read is a problem like any other."""
    plans: list[Plan] = []
    together: dict[ModuleType, list[tuple[str, str]]] = {}
    queue: list[tuple[str, Mapping[str, str]]] = [(path, {}) for path in paths]
    for path, environment in queue:  # which grows: a .env names further files
        try:
            text = _text(path, environment, key_for)
            if environments.is_one(text):
                named = environments.read(path, text)
                queue += [(file, named.variables) for file in named.files]
                plans.append(Plan(problems=named.problems, notes=named.notes))
                continue
            known = _importer_of(path, text)
        except files.Unreadable as error:
            plans.append(Plan(problems=(Problem(path, error.line, "", error.message, error.next_step),)))
            continue
        if hasattr(known, "read_all"):
            together.setdefault(known, []).append((path, text))
        else:
            plans.append(known.read(path, text))
    plans += [known.read_all(found) for known, found in together.items()]
    return Plan(
        wanted=tuple(wanted for one in plans for wanted in one.wanted),
        problems=tuple(problem for one in plans for problem in one.problems),
        notes=tuple(note for one in plans for note in one.notes),
        warnings=tuple(warning for one in plans for warning in one.warnings),
    )


def _text(path: str, environment: Mapping[str, str], key_for: KeyFor | None) -> str:
    """What the file says. Raises files.Unreadable."""
    content = files.read(path, environment)
    if files.is_encrypted(content):
        key = environment.get(environments.FERNET_KEY) or (key_for(path) if key_for else "") or os.environ.get(environments.FERNET_KEY, "")
        if not key:
            raise files.Unreadable(
                "The file is encrypted, and no key was given.",
                "Put the key into the environment, and name its variable: --fernet-key-env ATD_MDS_FERNET_KEY",
            )
        content = files.opened(content, key)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise files.Unreadable("The file is not UTF-8 text.", "Save it again as UTF-8.", line) from None


def _importer_of(path: str, text: str) -> ModuleType:
    known = next((importer for importer in FORMATS if importer.recognises(path, text)), None)
    if known is None and Path(path).suffix.lower() in (".yaml", ".yml"):
        known = own  # it is probably meant to be ours, and its reader can say what is wrong with it
    if known is None:
        names = ", ".join(importer.NAME for importer in FORMATS)
        raise files.Unreadable(
            "This is no configuration that is known here.",
            f"These are known: {names}. `manage.py help import_config` shows an example.",
        )
    return known
