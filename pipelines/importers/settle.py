"""What files want, against what the database has: every object is made or changed and checked, inside the caller's transaction.

Whether it is kept is the caller's affair: a dry run goes through the very same steps and rolls back, so it promises nothing
that the real import would not do. Providers and datasets come first, because pipelines refer to them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from catalog import audit
from catalog.audit import Actor
from catalog.models import Dataset, DatasetColumn
from pipelines import secrets
from pipelines.connectors.base import COLUMN_TYPES, REGISTRY
from pipelines.connectors.redaction import MASK
from pipelines.errors import SetupError
from pipelines.importers import plain
from pipelines.importers.plan import DATASET, KEEP, PIPELINE, PROVIDER, Change, FieldChange, Plan, Problem, Wanted, suggestion
from pipelines.models import LoadMode, Pipeline, Provider, Stage

ORDER = (PROVIDER, DATASET, PIPELINE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AGAIN = "Correct the file and import it again."
#: What Django says in more words than a terminal needs.
_PLAINER = {"blank": "It is empty, and it is needed.", "null": "It is needed.", "unique": "Something else has it already."}


def settle(plan: Plan, *, actor: Actor | None = None, reason: str = "") -> Plan:
    """The plan with its `changes`, and with the problems that only the database knows. Writes; call it inside a transaction.

    With an `actor` each object that was made or changed leaves an audit row. Where problems remain, roll back.
    """
    return _Settling(plan, actor, reason).plan()


class _Settling:
    def __init__(self, read: Plan, actor: Actor | None, reason: str):
        self.read, self.actor, self.reason = read, actor, reason
        self.problems: list[Problem] = list(read.problems)
        self.notes: list[str] = list(read.notes)
        self.changes: list[Change] = []
        self.broken: set[tuple[str, str]] = set()

    def plan(self) -> Plan:
        for kind in ORDER:
            for wanted in self._once(kind):
                before = len(self.problems)
                if wanted.is_readable:
                    _Settled(self, wanted).settle()
                # what was not even read has its problem already; a reference to it must not be a second one
                if len(self.problems) > before or not wanted.is_readable or wanted.unread:
                    self.broken.add((kind, wanted.slug))
        return Plan(self.read.wanted, tuple(self.problems), tuple(self.notes), tuple(self.changes))

    def _once(self, kind: str) -> Iterable[Wanted]:
        """The wanted objects of a kind; of two with one slug the first, and a problem."""
        seen: dict[str, Wanted] = {}
        for wanted in self.read.wanted:
            if wanted.kind != kind:
                continue
            if wanted.slug in seen:
                first = seen[wanted.slug]
                place = f"{first.file}, line {first.line}"
                self.problems.append(wanted.problem("", f"The {kind} {wanted.slug} is described twice; first in {place}.", "Keep one of the two."))
            else:
                seen[wanted.slug] = wanted
        return seen.values()

    def slugs(self, kind: str) -> list[str]:
        """All that a reference may name: what is stored and what these files make."""
        stored = plain.MODELS[kind].objects.order_by("slug").values_list("slug", flat=True)
        return sorted({*stored, *(wanted.slug for wanted in self.read.wanted if wanted.kind == kind)})


class _Settled:
    """One object on its way from a file to the database."""

    def __init__(self, settling: _Settling, wanted: Wanted):
        self.settling, self.wanted = settling, wanted
        self.model = plain.MODELS[wanted.kind]
        self.faulty: set[str] = set(wanted.unread)

    def settle(self) -> None:
        wanted = self.wanted
        stored = self.model.objects.select_for_update().filter(slug=wanted.slug).first()
        before = plain.plain(stored) if stored else {}
        raw = {name: getattr(stored, name) for name in ("base_url", "secrets")} if stored and wanted.kind == PROVIDER else {}
        thing = stored or self._fresh()
        for name, value in wanted.values.items():
            if name == "secrets":
                self._secrets(thing, value)
            elif name == "columns" and wanted.kind == DATASET:
                continue  # lines of their own, once the dataset is stored
            elif isinstance(field := plain.FIELDS[wanted.kind][name], models.ForeignKey):
                self._refer(thing, field, value)
            elif name == "base_url" and before.get("base_url") == value:
                continue  # a password in it was not exported, and stays
            else:
                setattr(thing, name, value)
        self._defaults(thing, is_new=stored is None)
        {PROVIDER: self._check_provider, DATASET: self._check_dataset, PIPELINE: self._check_pipeline}[wanted.kind](thing)
        self._check_fields(thing, is_new=stored is None)
        if self.faulty:
            return
        changed = self._store(thing, before, raw)
        if changed is not None:
            self._note_change("unchanged" if stored and not changed else "changed" if stored else "created", changed)

    def _fresh(self) -> models.Model:
        return self.model(slug=self.wanted.slug, title=self.wanted.slug.replace("-", " ").replace("_", " ").capitalize())

    def _defaults(self, thing: models.Model, *, is_new: bool) -> None:
        """What a short file need not say of a new pipeline."""
        if not is_new or self.wanted.kind != PIPELINE:
            return
        given = {*self.wanted.values, *self.wanted.unread}
        if "table" not in given:
            table = re.sub(r"[^a-z0-9_]", "_", thing.slug.lower())[:62]
            thing.table = table if not table[:1].isdigit() else f"_{table}"
        if "stages" not in given and "portal" not in given:
            thing.stages = [Stage.EXTRACT.value, Stage.LOAD.value]
        if "load_mode" not in given and "key" not in given:
            thing.load_mode = LoadMode.REPLACE.value

    # values that need more than their type

    def _refer(self, thing: models.Model, field: models.ForeignKey, slug: str | None) -> None:
        kind = next(kind for kind, model in plain.MODELS.items() if model is field.related_model)
        if not slug:
            setattr(thing, field.name, None)
        elif (kind, slug) in self.settling.broken:
            self.faulty.add(field.name)  # told where it stands
            self.settling.broken.add((self.wanted.kind, self.wanted.slug))
        elif found := field.related_model.objects.filter(slug=slug).first():
            setattr(thing, field.name, found)
        else:
            what = f"The {kind}s"
            self._fault(field.name, f"There is no {kind} {slug!r}.", suggestion(slug, self.settling.slugs(kind), what=what))

    def _secrets(self, provider: Provider, given: dict[str, str | None]) -> None:
        """Put the secrets into the provider: sealed, by reference, kept or forgotten. What is not named stays."""
        kept = dict(provider.secrets)
        for name, value in given.items():
            stored = kept.get(name)
            if value is None:
                kept.pop(name, None)
            elif value == KEEP:
                # known, and still to be entered: a run says so, rather than going on without it
                kept[name] = stored if stored is not None else ""
                if not kept[name]:
                    self.settling.notes.append(
                        f"Provider {provider.slug}: enter the secret {name} (in the admin, or by importing `{name}: env:NAME`); "
                        "the file only says that it was sealed elsewhere."
                    )
            elif not value:
                self._fault(
                    f"secrets.{name}",
                    f"The secret {name} is empty.",
                    "Write env:NAME, the value, or `sealed` to keep what is stored.",
                )
            elif value.startswith(secrets.ENV):
                self._environment(provider, kept, name, value)
            elif stored is None or not self._opens_to(stored, value):
                self._seal(kept, name, value)
        provider.secrets = kept

    def _environment(self, provider: Provider, kept: dict[str, str], name: str, value: str) -> None:
        variable = value.removeprefix(secrets.ENV)
        if not _VARIABLE.fullmatch(variable):
            self._fault(
                f"secrets.{name}",
                f"The secret {name} does not name a variable of the environment.",
                "Write it like env:LA_APP_TOKEN.",
            )
            return
        kept[name] = value
        if variable not in os.environ:
            self.settling.notes.append(f"Provider {provider.slug}: the environment here has no {variable}; set it for the web and the workers.")

    def _opens_to(self, stored: str, value: str) -> bool:
        """Whether this very secret is stored already."""
        if not stored.startswith(secrets.SEALED):
            return False
        try:
            return value == stored or secrets.reveal(stored) == value
        except SetupError:
            return False  # sealed by a key that is gone: the new value takes its place

    def _seal(self, kept: dict[str, str], name: str, value: str) -> None:
        if not value.startswith(secrets.SEALED):
            secrets.redact.learn(value)
        try:
            sealed = secrets.seal(value)
            secrets.reveal(sealed)
        except SetupError as error:
            self._fault(f"secrets.{name}", f"The secret {name}: {error.message}", error.next_step)
        else:
            kept[name] = sealed

    # checks

    def _check_provider(self, provider: Provider) -> None:
        if MASK in provider.base_url:
            self._fault("base_url", "The password in this address was taken out when it was exported.", "Write the address anew.")
        if "kind" in self.faulty or not provider.kind:
            return
        if provider.kind not in REGISTRY:
            self._fault("kind", f"No connector is of the kind {provider.kind!r}.", suggestion(provider.kind, REGISTRY, what="The kinds"))
            return
        declared = {parameter.name: parameter for parameter in provider.connector_class.parameters}
        for field, is_secret in (("parameters", False), ("secrets", True)):
            mine = [name for name, parameter in declared.items() if parameter.secret == is_secret]
            for name in getattr(provider, field):
                if name not in declared:
                    self._fault(
                        f"{field}.{name}",
                        f"{provider.kind} has no {name!r} among its {field}.",
                        suggestion(name, mine, what=f"Its {field}"),
                    )
                elif declared[name].secret != is_secret:
                    self._fault(
                        f"{field}.{name}",
                        f"{name!r} does not belong here.",
                        f"Write it under {'parameters' if is_secret else 'secrets'}.",
                    )
            for name in mine:
                if declared[name].required and not declared[name].default and name not in getattr(provider, field):
                    self._fault(field, f"{provider.kind} needs {name} ({declared[name].label}).", f"Write {name} under {field}.")

    def _check_dataset(self, dataset: Dataset) -> None:
        stored = {column.name: column.type for column in plain.columns_of(dataset)}
        for name, words in self.wanted.values.get("columns", {}).items():
            kind = words.get("type")
            if kind is not None and kind not in COLUMN_TYPES and kind != stored.get(name):
                self._fault(f"columns.{name}", f"{kind!r} is not a type of column.", suggestion(kind, COLUMN_TYPES, what="The types"))
                continue
            try:
                DatasetColumn(**{"name": name, **words}).clean_fields(exclude=["dataset"])
            except ValidationError as error:
                for word, messages in error.message_dict.items():
                    self._fault(f"columns.{name}", f"The {word} of column {name}: {messages[0]}", _AGAIN)

    def _check_pipeline(self, pipeline: Pipeline) -> None:
        if pipeline.warehouse not in settings.WAREHOUSES:
            next_step = suggestion(pipeline.warehouse, settings.WAREHOUSES, what="The warehouses of the settings")
            self._fault("warehouse", f"This installation has no warehouse {pipeline.warehouse!r}.", next_step)
        stages = pipeline.stages if isinstance(pipeline.stages, list) else []
        for name, stage, able, verb in (
            ("provider", Stage.EXTRACT, "can_fetch", "fetched from"),
            ("portal", Stage.PUBLISH, "can_publish", "published to"),
        ):
            system = getattr(pipeline, name) if getattr(pipeline, f"{name}_id") else None
            if stage in stages and system and system.kind in REGISTRY and not getattr(system.connector_class, able):
                next_step = f"Name another {name}, or leave {stage.value} out of the stages."
                self._fault(name, f"{system.slug} is of the kind {system.kind}, which can't be {verb}.", next_step)

    def _check_fields(self, thing: models.Model, *, is_new: bool) -> None:
        """What the model itself asks, in words that name the value and the choices."""
        for name, field in plain.FIELDS[self.wanted.kind].items():
            value = getattr(thing, field.attname)
            if name in self.faulty:
                continue
            if is_new and name not in self.wanted.values and value in (None, "") and not (field.blank or field.null):
                self._fault(name, f"A new {self.wanted.kind} needs {name}.", self._example(thing, name))
            elif field.choices and value not in (choices := [value for value, _ in field.choices]):
                self._fault(name, f"{value!r} is not one of its choices.", suggestion(str(value), choices, what=f"The choices of {name}"))
        try:
            thing.full_clean(exclude=self.faulty)
        except ValidationError as error:
            for name, faults in error.error_dict.items():
                if name in self.faulty:
                    continue  # told in better words
                place = "" if name in (NON_FIELD_ERRORS, "slug") else name
                for fault in faults:
                    message = _PLAINER.get(fault.code) or fault.messages[0]
                    self._fault(place, f"The slug {thing.slug!r}: {message}" if name == "slug" else message, _AGAIN)

    def _example(self, thing: models.Model, name: str) -> str:
        if name == "kind":
            return suggestion("", REGISTRY, what="The kinds")
        if name == "base_url" and thing.kind in REGISTRY:
            return f"Write it like {name}: {thing.connector_class.address_hint or 'https://data.example.gov'}"
        return f"Write {name} under {self.wanted.path}."

    def _fault(self, name: str, message: str, next_step: str) -> None:
        self.faulty.add(name.partition(".")[0])
        self.settling.problems.append(self.wanted.problem(name, message, next_step))

    # storing

    def _store(self, thing: models.Model, before: dict[str, Any], raw: dict[str, Any]) -> tuple[FieldChange, ...] | None:
        """Save what differs; the differences, or None after a problem. `raw` is what may not be shown, as it was."""
        changes = self._differences(thing, before, raw) if before else []
        try:
            with transaction.atomic():
                if changes or not before:
                    thing.save()
                if self.wanted.kind == DATASET and "columns" in self.wanted.values:
                    changes += self._columns(thing)
        except IntegrityError as error:
            self._fault("", f"The database refuses it: {str(error).splitlines()[0]}", "Somebody may have made it just now; import again.")
            return None
        if before:
            return tuple(changes)
        return tuple(FieldChange(name, None, value) for name, value in plain.plain(thing).items() if name in self.wanted.values)

    @staticmethod
    def _differences(thing: models.Model, before: dict[str, Any], raw: dict[str, Any]) -> list[FieldChange]:
        after = plain.plain(thing)
        told = [FieldChange(name, before[name], after[name]) for name in after if name not in ("secrets", "columns") and before[name] != after[name]]
        if not raw:
            return told
        if raw["base_url"] != thing.base_url and before["base_url"] == after["base_url"]:
            told.append(FieldChange("base_url", before["base_url"], f"{after['base_url']} (another password)"))
        for name in sorted({*raw["secrets"], *thing.secrets}):
            was, now = raw["secrets"].get(name), thing.secrets.get(name)
            if was != now:
                again = " (a new value)" if _shown(was) == _shown(now) else ""
                told.append(FieldChange(f"secrets.{name}", _shown(was), f"{_shown(now)}{again}"))
        return told

    def _columns(self, dataset: Dataset) -> list[FieldChange]:
        """Write the dictionary's lines that the file names, in its order; the others stay, after them."""
        named = self.wanted.values["columns"]
        stored = {column.name: column for column in plain.columns_of(dataset)}
        changes = []
        lines = []
        for name, words in named.items():
            column = stored.get(name) or DatasetColumn(dataset=dataset, name=name)
            was = plain.plain_column(column) if column.pk else None
            for word, value in words.items():
                setattr(column, word, value)
            now = plain.plain_column(column)
            if was is None:
                changes.append(FieldChange(f"columns.{name}", None, now))
            else:
                changes += [FieldChange(f"columns.{name}.{word}", was[word], now[word]) for word in now if was[word] != now[word]]
            lines.append(column)
        order = [name for name in stored if name in named]
        if order != list(named):
            if len(order) == len(named):
                changes.append(FieldChange("columns (their order)", order, list(named)))
            lines += [column for name, column in stored.items() if name not in named]
            for position, column in enumerate(lines):
                column.position = position
        if changes:
            # two statements, not one a column: a city has thousands of them
            DatasetColumn.objects.bulk_create([column for column in lines if not column.pk])
            DatasetColumn.objects.bulk_update([column for column in stored.values() if column in lines], ["position", *plain.COLUMN_FIELDS])
        return changes

    def _note_change(self, verb: str, fields: tuple[FieldChange, ...]) -> None:
        wanted = self.wanted
        self.settling.changes.append(Change(wanted.kind, wanted.slug, verb, wanted.file, wanted.line, fields))
        if self.settling.actor and verb != "unchanged":
            audit.write(
                self.settling.actor,
                "create" if verb == "created" else "change",
                kind=wanted.kind,
                target=wanted.slug,
                reason=self.settling.reason,
                result=f"imported from {wanted.file}",
                changes={change.name: [change.before, change.after] for change in fields},
            )


def _shown(stored: str | None) -> str:
    """A stored secret as a change may name it."""
    if stored is None:
        return "not there"
    return plain.plain_secret(stored) if stored else "to be entered"
