"""What files want, against what the database has: every object is made or changed and checked, inside the caller's transaction.

Whether it is kept is the caller's affair: a dry run goes through the very same steps and rolls back, so it promises nothing
that the real import would not do. What others refer to comes first: providers and datasets before pipelines.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from catalog import audit, boundaries
from catalog.audit import Actor
from catalog.models import BoundaryLayer, Dataset, DatasetColumn
from pipelines import secrets
from pipelines.connectors.base import COLUMN_TYPES, REGISTRY
from pipelines.connectors.redaction import MASK
from pipelines.errors import PipelineError, SetupError
from pipelines.importers import files, plain
from pipelines.importers.plan import (
    BOUNDARY,
    DATASET,
    KEEP,
    PIPELINE,
    PLURAL,
    PROVIDER,
    UPKEEP,
    Change,
    FieldChange,
    Plan,
    Problem,
    Step,
    Wanted,
    suggestion,
)
from pipelines.models import AfterStep, Cadence, Enrichment, LoadMode, Pipeline, Provider, Stage, UpkeepJob

#: What an export shows only a part of, or nothing.
_HIDDEN = {PROVIDER: ("base_url", "secrets"), UPKEEP: ("webhook",)}
#: Settings that are names with values, of which a file may leave those that it does not name.
_KEPT = ("parameters", "options", "portal_fields")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AGAIN = "Correct the file and import it again."
#: The settings of an upkeep job that say when its turn is.
_TIMES = {"cadence", "cron", "at_time", "day", "time_zone", "is_active"}
_MASKED = "The password in this address was taken out when it was exported."
#: What Django says in more words than a terminal needs.
_PLAINER = {"blank": "It is empty, and it is needed.", "null": "It is needed.", "unique": "Something else has it already."}


@dataclass(frozen=True)
class Checks:
    """What an importer can't judge by itself, for who carries it out stands beside it: given by the caller; None = not judged.

    `job` raises ValidationError by field for an upkeep job; `release` returns sentences about a pipeline's release.
    """

    job: Callable[[UpkeepJob], None] | None = None
    release: Callable[[Pipeline], list[str]] | None = None


NO_CHECKS = Checks()


def settle(plan: Plan, *, actor: Actor | None = None, reason: str = "", checks: Checks = NO_CHECKS) -> Plan:
    """The plan with its `changes`, and with the problems that only the database knows. Writes; call it inside a transaction.

    With an `actor` each object that was made or changed leaves an audit row. Where problems remain, roll back.
    """
    return _Settling(plan, actor, reason, checks).plan()


class _Settling:
    def __init__(self, read: Plan, actor: Actor | None, reason: str, checks: Checks):
        self.read, self.actor, self.reason, self.checks = read, actor, reason, checks
        self.problems: list[Problem] = list(read.problems)
        self.notes: list[str] = list(read.notes)
        self.changes: list[Change] = []
        self.broken: set[tuple[str, str]] = set()
        #: What a reference to the slug of a stand-in means.
        self.stands_for: dict[str, str] = {}

    def plan(self) -> Plan:
        asked = self.read
        self.read = replace(asked, wanted=tuple(self._portals(self._placed(asked.wanted))))
        for kind in plain.MODELS:
            for wanted in self._once(kind):
                before = len(self.problems)
                if wanted.is_readable:
                    _Settled(self, wanted).settle()
                # what was not even read has its problem already; a reference to it must not be a second one
                if len(self.problems) > before or not wanted.is_readable or wanted.unread:
                    self.broken.add((kind, wanted.slug))
        # what was asked for, not what it came to here: who carries it out compares again
        return replace(asked, problems=tuple(self.problems), notes=tuple(self.notes), changes=tuple(self.changes))

    def _placed(self, all_wanted: Iterable[Wanted]) -> Iterator[Wanted]:
        """What is wanted, each under the slug of the stored object that it is, or under one that nothing else has."""
        taken: dict[tuple[str, str], Mapping[str, Any]] = {}
        called: dict[tuple[str, str], str] = {}
        placed = []
        for wanted in all_wanted:
            identity = wanted.known_by or wanted.else_by
            if identity:
                stored = self._stored(wanted)
                slug = stored.slug if stored else self._free_slug(wanted, taken)
                taken[wanted.kind, slug] = identity
                if wanted.kind == PROVIDER and slug != wanted.slug:
                    self.stands_for[wanted.slug] = slug
                if wanted.kind == PIPELINE and stored and stored.part != wanted.values["part"]:
                    called[wanted.values["dataset"], wanted.values["part"]] = stored.part
                    wanted = replace(wanted, values={**wanted.values, "part": stored.part})
                wanted = replace(wanted, slug=slug)
            placed.append(wanted)
        for wanted in placed:
            if wanted.kind == DATASET and "parts" in wanted.values:
                parts = {called.get((wanted.slug, part), part): columns for part, columns in wanted.values["parts"].items()}
                only = {"columns": parts.pop("")} if "" in parts else {}
                wanted = replace(wanted, values={**wanted.values, **only, "parts": parts})
            yield wanted

    @staticmethod
    def _stored(wanted: Wanted) -> Any:
        """The stored object that is meant; None for none."""
        known = wanted.known_by or {"slug": wanted.slug, "kind": wanted.values.get("kind")}
        stored = plain.MODELS[wanted.kind].objects.order_by("pk")
        return stored.filter(**known).first() or (stored.filter(**wanted.else_by).first() if wanted.else_by else None)

    @staticmethod
    def _free_slug(wanted: Wanted, taken: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
        """The slug that it wishes, or one like it where something else has that."""
        identity, model = wanted.known_by or wanted.else_by, plain.MODELS[wanted.kind]
        if taken.get((wanted.kind, wanted.slug), identity) == identity and not model.objects.filter(slug=wanted.slug).exists():
            return wanted.slug
        return plain.short(wanted.slug, model._meta.get_field("slug").max_length, of="/".join(map(str, identity.values())), is_cut=True)

    def _portals(self, all_wanted: Iterable[Wanted]) -> Iterator[Wanted]:
        """What is wanted, of the stand-ins of many files only one, and none that nothing needs or that a portal of this installation is."""
        all_wanted = list(all_wanted)
        seen = set()
        for wanted in all_wanted:
            if not wanted.is_stand_in:
                yield wanted
            elif wanted.slug not in seen:
                seen.add(wanted.slug)
                if self._is_needed(wanted, all_wanted):
                    yield wanted

    def _is_needed(self, stand_in: Wanted, all_wanted: Iterable[Wanted]) -> bool:
        """Whether to make it. Where a portal that is here is meant instead, that is kept; where several may be, it is a problem."""
        if Provider.objects.filter(slug=stand_in.slug).exists():
            return True
        asking = {one.slug for one in all_wanted if one.kind == PIPELINE and one.first.get("portal") == stand_in.slug}
        if not asking - set(Pipeline.objects.filter(slug__in=asking).values_list("slug", flat=True)):
            return False  # what is here already has its portal
        kind = stand_in.first["kind"]
        made = [one.slug for one in all_wanted if one.kind == PROVIDER and one.values.get("kind") == kind]
        there = sorted({*made, *Provider.objects.filter(kind=kind).values_list("slug", flat=True)})
        if not there:
            self.notes.append(stand_in.next_steps[""])
            return True
        if len(there) == 1:
            self.stands_for[stand_in.slug] = there[0]
        else:
            names = ", ".join(there)
            self.problems.append(stand_in.problem("", f"Several portals may be meant: {names}.", f"Say which: import_config … --portal {there[0]}"))
            self.broken.add((PROVIDER, stand_in.slug))
        return False

    def _once(self, kind: str) -> Iterable[Wanted]:
        """The wanted objects of a kind; of two with one slug the first, and a problem, unless both may ask for it and agree."""
        seen: dict[str, Wanted] = {}
        for wanted in self.read.wanted:
            if wanted.kind != kind:
                continue
            if wanted.slug in seen:
                first = seen[wanted.slug]
                if (joined := _joined(first, wanted)) is not None:
                    seen[wanted.slug] = joined
                    continue
                place = f"{first.file}, line {first.line}"
                self.problems.append(wanted.problem("", f"The {kind} {wanted.slug} is described twice; first in {place}.", "Keep one of the two."))
            else:
                seen[wanted.slug] = wanted
        return seen.values()

    def slugs(self, kind: str) -> list[str]:
        """All that a reference may name: what is stored and what these files make."""
        stored = plain.MODELS[kind].objects.order_by("slug").values_list("slug", flat=True)  # of a kind that is referred to
        return sorted({*stored, *(wanted.slug for wanted in self.read.wanted if wanted.kind == kind)})


def _joined(one: Wanted, other: Wanted) -> Wanted | None:
    """What both ask for, if they may share it and say nothing different of it; else None."""
    secrets_agree = all(one.values.get("secrets", {}).get(name, value) == value for name, value in other.values.get("secrets", {}).items())
    agree = all(one.values.get(name, value) == value for name, value in other.values.items() if name != "secrets")
    if not (one.is_shared and other.is_shared and agree and secrets_agree):
        return None
    both = {**one.values, **other.values}
    if "secrets" in both:
        both["secrets"] = {**one.values.get("secrets", {}), **other.values.get("secrets", {})}
    return replace(one, values=both, first={**other.first, **one.first}, lines={**other.lines, **one.lines})


class _Settled:
    """One object on its way from a file to the database."""

    def __init__(self, settling: _Settling, wanted: Wanted):
        self.settling, self.wanted = settling, wanted
        self.model = plain.MODELS[wanted.kind]
        self.faulty: set[str] = set(wanted.unread)
        self.steps: list[AfterStep] = []
        self.enrichments: list[Enrichment] = []
        self.works_on: list[Pipeline] = []
        self.geojson = b""

    def settle(self) -> None:
        stored = self.model.objects.select_for_update().filter(**plain.identity(self.wanted.kind, self.wanted.slug)).first()
        first = self.wanted.first
        if stored is None:
            values = {**first, **self.wanted.values}
            if "secrets" in values:
                values["secrets"] = {**first.get("secrets", {}), **values["secrets"]}
            self.wanted = replace(self.wanted, values=values)
        if self.wanted.offers:
            self._take_offers(stored)
        wanted = self.wanted
        for name, value in wanted.values.items():
            if any("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text) for text in _texts(value)):
                self._fault(name, "It holds a character that the database can't store (NUL or half of a pair).", "Take it out.")
        if self.faulty - wanted.unread:
            return
        before = plain.plain(stored) if stored else {}
        raw = {name: getattr(stored, name) for name in _HIDDEN.get(wanted.kind, ())} if stored else {}
        thing = stored or self._fresh()
        for name, value in wanted.values.items():
            if name == "secrets":
                self._secrets(thing, value)
            elif name in _KEPT and wanted.keeps_parameters:
                kept = {**(getattr(stored, name) if stored else first.get(name, {})), **value}
                setattr(thing, name, {item: word for item, word in kept.items() if word is not None})
            elif name == "webhook":
                thing.webhook = self._webhook(thing, value)
            elif name in plain.PARTS.get(wanted.kind, ()):
                continue  # things of their own, once this is stored
            elif isinstance(field := plain.FIELDS[wanted.kind][name], models.ForeignKey):
                self._refer(thing, field, value)
            elif name == "base_url" and before.get("base_url") == value:
                continue  # a password in it was not exported, and stays
            else:
                setattr(thing, name, value)
        if raw and wanted.kind == PROVIDER:
            self._keep_secrets_at_home(thing, raw["base_url"])
        self._defaults(thing, is_new=stored is None)
        checks: Mapping[str, Callable[[Any], None]] = {
            PROVIDER: self._check_provider,
            DATASET: self._check_dataset,
            BOUNDARY: self._check_areas,
            PIPELINE: self._check_pipeline,
            UPKEEP: self._check_upkeep,
        }
        if wanted.kind in checks:
            checks[wanted.kind](thing)
        self._check_fields(thing, is_new=stored is None)
        if self.faulty:
            return
        changed = self._store(thing, before, raw)
        if changed is not None:
            self._note_change("unchanged" if stored and not changed else "changed" if stored else "created", changed)

    def _fresh(self) -> models.Model:
        names = plain.identity(self.wanted.kind, self.wanted.slug)
        if "slug" in names:
            names["title"] = self.wanted.slug.replace("-", " ").replace("_", " ").capitalize()
        return self.model(**names)

    def _defaults(self, thing: models.Model, *, is_new: bool) -> None:
        """What a short file need not say of a new pipeline."""
        if not is_new or self.wanted.kind != PIPELINE:
            return
        given = {*self.wanted.values, *self.wanted.unread}
        if "table" not in given:
            thing.table = self._free_table(thing) if self.wanted.known_by else Pipeline.table_of(thing.slug)
        if "stages" not in given and "portal" not in given:
            thing.stages = [Stage.EXTRACT.value, Stage.LOAD.value]
        if "load_mode" not in given and "key" not in given:
            thing.load_mode = LoadMode.REPLACE.value

    @staticmethod
    def _free_table(pipeline: Pipeline) -> str:
        """A table for it that no other pipeline loads."""
        table = Pipeline.table_of(pipeline.slug)
        is_taken = Pipeline.objects.filter(table=table, warehouse=pipeline.warehouse).exclude(slug=pipeline.slug).exists()
        return plain.short(table, 63, of=pipeline.slug, is_cut=is_taken or len(pipeline.slug) > 62).replace("-", "_")

    # values that need more than their type

    def _refer(self, thing: models.Model, field: models.ForeignKey, slug: str | None) -> None:
        setattr(thing, field.name, self._named(field.name, field.related_model, slug))

    def _named(self, place: str, model: type[models.Model], slug: str | None) -> Any:
        """What a reference at `place` means; None for none, and with a fault for one that is not there."""
        kind = next(kind for kind, one in plain.MODELS.items() if one is model)
        if not slug:
            return None
        if kind == PROVIDER:
            slug = self.settling.stands_for.get(slug, slug)
        if (kind, slug) in self.settling.broken:
            self.faulty.add(place.partition(".")[0])  # told where it stands
            self.settling.broken.add((self.wanted.kind, self.wanted.slug))
            return None
        if (found := model.objects.filter(slug=slug).first()) is None:
            self._fault(place, f"There is no {kind} {slug!r}.", suggestion(slug, self.settling.slugs(kind), what=f"The {PLURAL[kind]}"))
        return found

    def _secrets(self, provider: Provider, given: dict[str, str | None]) -> None:
        """Put the secrets into the provider: sealed, by reference, kept or forgotten. What is not named stays."""
        kept = dict(provider.secrets)
        for name, value in given.items():
            if value is None:
                kept.pop(name, None)
                continue
            stored = self._secret(f"secrets.{name}", f"Provider {provider.slug}", f"the secret {name}", value, kept.get(name))
            if stored is not None:
                kept[name] = stored
        provider.secrets = kept

    def _keep_secrets_at_home(self, provider: Provider, address: str) -> None:
        """A sealed secret goes to the host for which it was entered, and to no other: at a new one it must be written anew.

        One of the environment is only named: who imports could name it anyway.
        """
        if "base_url" in self.faulty or _host(address) == _host(provider.base_url):
            return
        for name, stored in provider.secrets.items():
            if stored.startswith(secrets.SEALED) and self.wanted.values.get("secrets", {}).get(name) in (None, KEEP):
                self._fault(f"secrets.{name}", f"The address has another host now, and the secret {name} does not follow it.", "Write it anew.")

    def _secret(self, place: str, owner: str, what: str, value: str, stored: str | None, *, is_idle: bool = False) -> str | None:
        """What to store for a secret that the file gives; `stored`, and a fault, where it can't be stored.

        `owner` and `what` name it in a sentence: "Provider la", "the secret app_token". One that `is_idle` nobody misses yet.
        """
        if value == KEEP:
            if not stored:
                # known, and still to be entered: a run says so, rather than going on without it
                example = f"`{place.rpartition('.')[2]}: env:NAME`"
                self.settling.notes.append(
                    f"{owner}: enter {what} (in the admin, or by importing {example}); the file only says that it was sealed elsewhere."
                )
            return stored or ""
        if not value:
            self._fault(place, f"{_begun(what)} is empty.", "Write env:NAME, the value, or `sealed` to keep what is stored.")
        elif value.startswith(secrets.ENV):
            return self._environment(place, owner, what, value, stored, is_idle=is_idle)
        elif stored is None or not self._opens_to(stored, value):
            return self._sealed(place, what, value, stored)
        return stored

    def _environment(self, place: str, owner: str, what: str, value: str, stored: str | None, *, is_idle: bool) -> str | None:
        variable = value.removeprefix(secrets.ENV)
        if not _VARIABLE.fullmatch(variable):
            self._fault(place, f"{_begun(what)} does not name a variable of the environment.", "Write it like env:LA_APP_TOKEN.")
            return stored
        try:
            secrets.seal(value)
        except SetupError as error:
            self._fault(place, f"{_begun(what)}: {error.message}", error.next_step)
            return stored
        if variable not in os.environ and not is_idle:
            self.settling.notes.append(f"{owner}: the environment here has no {variable}; set it for the web and the workers.")
        return value

    def _opens_to(self, stored: str, value: str) -> bool:
        """Whether this very secret is stored already."""
        if not stored.startswith(secrets.SEALED):
            return False
        try:
            return value == stored or secrets.reveal(stored) == value
        except SetupError:
            return False  # sealed by a key that is gone: the new value takes its place

    def _sealed(self, place: str, what: str, value: str, stored: str | None) -> str | None:
        if not value.startswith(secrets.SEALED):
            secrets.redact.learn(value)
        try:
            sealed = secrets.seal(value)
            secrets.reveal(sealed)
        except SetupError as error:
            self._fault(place, f"{_begun(what)}: {error.message}", error.next_step)
            return stored
        return sealed

    # checks

    def _check_provider(self, provider: Provider) -> None:
        if MASK in provider.base_url:
            self._fault("base_url", _MASKED, "Write the address anew.")
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
        stored = {(column.part, column.name): column.type for column in plain.columns_of(dataset)}
        for part, place, named in _tables(self.wanted.values):
            for name, words in named.items():
                kind = words.get("type")
                if kind is not None and kind not in COLUMN_TYPES and kind != stored.get((part, name)):
                    self._fault(f"{place}.{name}", f"{kind!r} is not a type of column.", suggestion(kind, COLUMN_TYPES, what="The types"))
                    continue
                try:
                    DatasetColumn(**{"name": name, "part": part, **words}).clean_fields(exclude=["dataset"])
                except ValidationError as error:
                    for word, messages in error.message_dict.items():
                        self._fault(f"{place}.{name}", f"The {word} of column {name}: {messages[0]}", _AGAIN)

    def _check_pipeline(self, pipeline: Pipeline) -> None:
        if pipeline.warehouse not in settings.WAREHOUSES:
            next_step = self.wanted.next_steps.get("warehouse") or suggestion(
                pipeline.warehouse, settings.WAREHOUSES, what="The warehouses of the settings"
            )
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
        if "after" in self.wanted.values:
            self._make_steps(pipeline)
        if "enrichments" in self.wanted.values:
            self._make_enrichments(pipeline)
        if self.settling.checks.release and {"release", "private_columns", "release_k"} & self.wanted.values.keys() and not self.faulty:
            for words in self.settling.checks.release(pipeline):
                self._fault("release", words, _AGAIN)

    def _check_upkeep(self, job: UpkeepJob) -> None:
        if self.settling.checks.job and job.kind and job.cadence in Cadence.values:
            try:
                self.settling.checks.job(job)
            except ValidationError as error:
                for name, messages in error.message_dict.items():
                    self._fault(name, messages[0], _AGAIN)
        chosen = [self._named("pipelines", Pipeline, slug) for slug in self.wanted.values.get("pipelines", ())]
        self.works_on = [pipeline for pipeline in chosen if pipeline]

    # the areas of a boundary layer

    def _check_areas(self, layer: BoundaryLayer) -> None:
        """Find the layer's GeoJSON, in `self.geojson`: the file beside the one that names it, else what is stored already."""
        said = self.wanted.values
        file, sha256 = said.get("file", ""), said.get("sha256", "")
        content = self._beside(file) if file and not (layer.pk and sha256 == layer.sha256) else None
        if "file" in self.faulty:
            return
        if content is None and not layer.pk:
            name = file or plain.geojson_name(layer.slug)
            self._fault(
                "file",
                f"The areas of {layer.slug} are not here: there is no {name} beside this file.",
                f"Put {name} there and write file: {name}, or upload it under Boundaries first.",
            )
            return
        if content is None and sha256 and sha256 != layer.sha256:
            what = f"There is no {file} beside this file" if file else "It does not name the file"
            self._fault("sha256", f"{what}, and the areas that are stored here are others.", "Put it there, or take the line sha256 out.")
            return
        try:
            self.geojson = boundaries.content_of(layer) if content is None else content
            if not layer.key_property:
                found = boundaries.properties_of(self.geojson)
                near = boundaries.likely_key(found)
                self._fault("key_property", "It does not say which property names an area.", f"Write key_property: {near or 'and its name'}")
        except PipelineError as error:
            self._fault("file", error.message, error.next_step)

    def _beside(self, name: str) -> bytes | None:
        """The bytes of the file of that name in the folder of the file that names it; None if there is none."""
        if Path(name).name != name or name.startswith("."):
            self._fault("file", f"{name!r} is no name of a file beside this one.", "Write its name only, like council-districts.geojson.")
            return None
        try:
            return files.read(files.beside(self.wanted.file, name))
        except files.Missing:
            return None
        except files.Unreadable as error:
            self._fault("file", f"{name}: {error.message}", error.next_step)
            return None

    def _store_areas(self, layer: BoundaryLayer, before: dict[str, Any]) -> list[FieldChange]:
        """Keep the layer as its module does; what that changes beside the layer's own words."""
        if before == {**plain.plain(layer), "sha256": hashlib.sha256(self.geojson).hexdigest()}:
            return []
        try:
            kept = boundaries.store(
                layer.slug,
                layer.title,
                layer.key_property,
                self.geojson,
                self.settling.actor or Actor("dry run"),
                label_property=layer.label_property,
                reason=self.settling.reason,
            )
        except PipelineError as error:
            self._fault("file", error.message, error.next_step)
            return []
        layer.pk, layer.sha256 = kept.pk, kept.sha256
        return [FieldChange("sha256", before["sha256"], kept.sha256)] if before and before["sha256"] != kept.sha256 else []

    # the columns that the enrich stage adds

    def _take_offers(self, pipeline: Pipeline | None) -> None:
        """Add to the wanted enrichments those that are offered, whose layer is here and whose column is new."""
        has = plain.enrichments_of(pipeline) if pipeline else []
        kept = [Step(plain.plain_enrichment(one)) for one in has]
        columns = {one.column for one in has}
        missing: dict[str, list[str]] = {}
        for offer in self.wanted.offers:
            column, slug = offer.values["column"], offer.values["layer"]
            if column in columns:
                continue
            layers = BoundaryLayer.objects.defer("content")
            layer = layers.filter(slug=slug).first() or layers.filter(key_property=offer.first.get("key_property", "")).first()
            if layer is None:
                missing.setdefault(slug, []).append(column)
            else:
                kept.append(Step({**offer.values, "layer": layer.slug}))
        self.wanted = replace(self.wanted, values={**self.wanted.values, "enrichments": tuple(kept)})
        for slug, names in missing.items():
            note = (
                f"There is no boundary layer {slug}, so nothing fills {' and '.join(names)}: import its GeoJSON with these files, "
                "or upload it under Boundaries under that name and import them again."
            )
            if note not in self.settling.notes:
                self.settling.notes.append(note)

    def _make_enrichments(self, pipeline: Pipeline) -> None:
        """What the pipeline will have, in `self.enrichments`: one a column, each in the place of the one that is stored."""
        stored = {one.column: one for one in plain.enrichments_of(pipeline)}
        for number, step in enumerate(self.wanted.values["enrichments"], start=1):
            place = f"enrichments.{number}"
            column = step.values.get("column", "")
            if column in [one.column for one in self.enrichments]:
                self._fault(f"{place}.column", f"The column {column!r} stands here twice.", "Keep one of the two, or name another column.")
                continue
            one = stored.get(column) or Enrichment()
            for name, value in step.values.items():
                setattr(one, name, self._named(f"{place}.{name}", plain.MODELS[BOUNDARY], value) if name == "layer" else value)
            needed = [name for name in plain.ENRICHMENT_FIELDS if not getattr(one, plain.ENRICHMENT_FIELDS[name].attname)]
            for name in needed:
                # of a layer that is named and not there a problem tells already
                if not step.values.get(name):
                    self._fault(place, f"This enrichment does not say its {name}.", f"Write {name} there.")
            if "enrichments" not in self.faulty:
                try:
                    one.clean_fields(exclude=["pipeline"])
                except ValidationError as error:
                    for name, messages in error.message_dict.items():
                        self._fault(f"{place}.{name}", f"The {name} of this enrichment: {messages[0]}", _AGAIN)
            self.enrichments.append(one)

    # the steps after a load

    def _make_steps(self, pipeline: Pipeline) -> None:
        """What the pipeline will have, in `self.steps`: those that the file names, checked, each in the place of one that is stored."""
        wanted: tuple[Step, ...] = self.wanted.values["after"]
        stored = plain.steps_of(pipeline)
        matched = self._matched(wanted, stored)
        named = []
        for number, (step, old) in enumerate(zip(wanted, matched, strict=True), start=1):
            place = f"after.{number}"
            thing = old or AfterStep()
            address, secret = thing.target, thing.secret
            given = dict(step.values if old else {**step.first, **step.values})
            given_secret = given.pop("secret", None)
            for name, value in given.items():
                # a password in an address was not exported, and stays
                if not (name == "target" and old and value == plain.without_password(address)):
                    setattr(thing, name, value)
            if given_secret is not None:
                thing.secret = self._step_secret(place, f"Pipeline {pipeline.slug}, step {number} after a load", thing, given_secret)
            if secret.startswith(secrets.SEALED) and thing.secret == secret and _host(address) != _host(thing.target):
                self._fault(f"{place}.target", "The address has another host now, and the secret does not follow it.", "Write the secret anew.")
            self._check_step(place, thing)
            named.append(thing)
        if self.wanted.keeps_steps:
            self.steps = [*stored, *(step for step in named if not step.pk)]
        else:
            self.steps = named

    def _matched(self, wanted: tuple[Step, ...], stored: list[AfterStep]) -> list[AfterStep | None]:
        """For each wanted step the stored one that it describes: its history stays with it."""
        left = list(stored)
        found: list[AfterStep | None] = [None] * len(wanted)

        def is_same(step: Step, old: AfterStep) -> bool:
            told = plain.plain_step(old)
            return all(told[name] == value for name, value in step.values.items())

        def does_same(step: Step, old: AfterStep) -> bool:
            return (step.values.get("kind"), step.values.get("target", "")) == (old.kind, plain.without_password(old.target))

        def is_alike(step: Step, old: AfterStep) -> bool:
            return step.values.get("kind") == old.kind

        ways: list[Callable[[Step, AfterStep], bool]] = [is_same, does_same]
        if not self.wanted.keeps_steps:
            ways.append(is_alike)  # where the file's list is all there is, another target means the same step, changed
        for way in ways:
            for place, step in enumerate(wanted):
                if found[place] is None and (old := next((old for old in left if way(step, old)), None)):
                    found[place] = old
                    left.remove(old)
        return found

    def _webhook(self, job: UpkeepJob, value: str) -> str:
        """What to store for the address that a file gives of a job's webhook."""
        if not value:
            return ""
        if not value.startswith((secrets.ENV, secrets.SEALED, KEEP, "https://", "http://")):
            self._fault("webhook", "This is no address of a webhook.", "Write what the chat gave you; it begins with https://.")
            return ""
        stored = self._secret("webhook", f"Upkeep job {job.title}", "its webhook", value, job.webhook or None, is_idle=not job.is_active) or ""
        if len(stored) > UpkeepJob._meta.get_field("webhook").max_length:
            self._fault("webhook", "The address is too long to be stored.", "Put it into the environment, and write env:NAME.")
        return stored

    def _step_secret(self, place: str, owner: str, step: AfterStep, value: str) -> str:
        """What to store for the secret that a file gives of a step; all else of the step is known already."""
        is_notice = step.kind == AfterStep.Kind.NOTIFY
        if not value and not is_notice:
            return ""
        if is_notice and value and not value.startswith((secrets.ENV, secrets.SEALED, KEEP, "https://", "http://")):
            self._fault(f"{place}.secret", "This is no address of a webhook.", "Write what the chat gave you; it begins with https://.")
            return ""
        return self._secret(f"{place}.secret", owner, "its secret", value, step.secret or None, is_idle=not step.is_active) or ""

    def _check_step(self, place: str, step: AfterStep) -> None:
        kinds = AfterStep.Kind.values
        if step.kind not in kinds:
            self._fault(f"{place}.kind", f"{step.kind!r} is not a kind of step.", suggestion(step.kind, kinds, what="The kinds"))
            return
        if MASK in step.target:
            self._fault(f"{place}.target", _MASKED, "Write the address anew.")
        elif step.kind == AfterStep.Kind.REFRESH and not step.target:
            self._fault(f"{place}.target", "It does not say which view to refresh.", "Write target: and the name of the view.")
        elif step.kind in (AfterStep.Kind.POST, AfterStep.Kind.RELOAD) and not step.target.startswith(("http://", "https://")):
            self._fault(f"{place}.target", "This is no address of the web.", "Write it like https://api.example.gov/status/reset-cache.")
        elif step.kind == AfterStep.Kind.NOTIFY and step.target:
            self._fault(f"{place}.target", "A webhook's address is a secret.", "Write it under secret, or env:NAME there.")
        if len(step.secret) > AfterStep._meta.get_field("secret").max_length:
            self._fault(f"{place}.secret", "The secret is too long to be stored.", "Put it into the environment, and write env:NAME.")
        try:
            step.clean_fields(exclude=["pipeline", "secret", "kind"])
        except ValidationError as error:
            for name, messages in error.message_dict.items():
                self._fault(f"{place}.{name}", f"The {name} of this step: {messages[0]}", _AGAIN)

    def _check_fields(self, thing: models.Model, *, is_new: bool) -> None:
        """What the model itself asks, in words that name the value and the choices."""
        for name, field in plain.FIELDS[self.wanted.kind].items():
            value = getattr(thing, field.attname)
            if name in self.faulty:
                continue
            if is_new and name not in self.wanted.values and value in (None, "") and not (field.blank or field.null):
                self._fault(name, f"A new {self.wanted.kind} needs {name}.", self._example(thing, name))
            elif field.choices and not (field.blank and value == "") and value not in (choices := [value for value, _ in field.choices]):
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
            return "Write kind: heal, for example." if isinstance(thing, UpkeepJob) else suggestion("", REGISTRY, what="The kinds")
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
                if isinstance(thing, UpkeepJob) and any(change.name in _TIMES for change in changes):
                    thing.next_at = None  # the tick plans it anew
                if self.wanted.kind == BOUNDARY:
                    changes += self._store_areas(thing, before)
                elif changes or not before:
                    thing.save()
                if self.wanted.kind == DATASET and {"columns", "parts"} & self.wanted.values.keys():
                    changes += self._columns(thing)
                if self.wanted.kind == PIPELINE and "after" in self.wanted.values:
                    changes += self._store_steps(thing, before.get("after", []))
                if self.wanted.kind == PIPELINE and "enrichments" in self.wanted.values:
                    changes += self._store_enrichments(thing, before.get("enrichments", []))
                if self.wanted.kind == UPKEEP and "pipelines" in self.wanted.values:
                    changes += self._store_works_on(thing, before.get("pipelines", []))
        except IntegrityError as error:
            self._fault("", f"The database refuses it: {str(error).splitlines()[0]}", "Somebody may have made it just now; import again.")
            return None
        if self.faulty:
            return None
        if before:
            return tuple(changes)
        return tuple(FieldChange(name, None, value) for name, value in plain.plain(thing).items() if name in self.wanted.values)

    @staticmethod
    def _differences(thing: models.Model, before: dict[str, Any], raw: dict[str, Any]) -> list[FieldChange]:
        after = plain.plain(thing)
        kind = next(kind for kind, model in plain.MODELS.items() if isinstance(thing, model))
        skip = ("secrets", *plain.PARTS.get(kind, ()))
        told = [FieldChange(name, before[name], after[name]) for name in after if name not in skip and before[name] != after[name]]
        if not raw:
            return told
        if kind == UPKEEP:
            if raw["webhook"] != thing.webhook and before["webhook"] == after["webhook"]:
                told.append(FieldChange("webhook", before["webhook"], f"{after['webhook']} (a new value)"))
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
        changes: list[FieldChange] = []
        for part, place, named in _tables(self.wanted.values):
            changes += self._table(dataset, part, place, named)
        return changes

    @staticmethod
    def _table(dataset: Dataset, part: str, place: str, named: Mapping[str, Mapping[str, Any]]) -> list[FieldChange]:
        """The same of one table of the dataset."""
        stored = {column.name: column for column in plain.columns_of(dataset) if column.part == part}
        changes = []
        lines = []
        for name, words in named.items():
            column = stored.get(name) or DatasetColumn(dataset=dataset, part=part, name=name)
            was = plain.plain_column(column) if column.pk else None
            for word, value in words.items():
                setattr(column, word, value)
            now = plain.plain_column(column)
            if was is None:
                changes.append(FieldChange(f"{place}.{name}", None, now))
            else:
                changes += [FieldChange(f"{place}.{name}.{word}", was[word], now[word]) for word in now if was[word] != now[word]]
            lines.append(column)
        order = [name for name in stored if name in named]
        if order != list(named):
            if len(order) == len(named):
                changes.append(FieldChange(f"{place} (their order)", order, list(named)))
            lines += [column for name, column in stored.items() if name not in named]
            for position, column in enumerate(lines):
                column.position = position
        if changes:
            # two statements, not one a column: a city has thousands of them
            DatasetColumn.objects.bulk_create([column for column in lines if not column.pk])
            DatasetColumn.objects.bulk_update([column for column in stored.values() if column in lines], ["position", *plain.COLUMN_FIELDS])
        return changes

    def _store_steps(self, pipeline: Pipeline, before: list[dict[str, Any]]) -> list[FieldChange]:
        """Write the steps in their order, and take away those that the file's list no longer has."""
        stored = {step.pk: step for step in plain.steps_of(pipeline)}
        changed_secrets = set()
        last = -1
        for number, step in enumerate(self.steps):
            old = stored.pop(step.pk, None)
            if not (old and self.wanted.keeps_steps):
                step.position = last + 1
            last = step.position
            if old and old.secret != step.secret and plain.plain_step(old)["secret"] == plain.plain_step(step)["secret"]:
                changed_secrets.add(number)
            step.pipeline = pipeline
            if old is None or any(getattr(old, name) != getattr(step, name) for name in ("position", *plain.STEP_FIELDS)):
                step.save()
        for gone in stored.values():
            gone.delete()
        after = [plain.plain_step(step) for step in self.steps]
        for number in changed_secrets:
            after[number]["secret"] += " (a new value)"
        return [FieldChange("after", before, after)] if before != after else []

    def _store_enrichments(self, pipeline: Pipeline, before: list[dict[str, Any]]) -> list[FieldChange]:
        """Write the enrichments in their order, and take away those that the file's list no longer has."""
        pipeline.enrichments.exclude(pk__in=[one.pk for one in self.enrichments if one.pk]).delete()
        after = [plain.plain_enrichment(one) for one in self.enrichments]
        if before == after:
            return []
        for position, one in enumerate(self.enrichments):
            one.pipeline, one.position = pipeline, position
            one.save()
        return [FieldChange("enrichments", before, after)]

    def _store_works_on(self, job: UpkeepJob, before: list[str]) -> list[FieldChange]:
        """Write which pipelines a job works on."""
        after = sorted({pipeline.slug for pipeline in self.works_on})
        if before == after:
            return []
        job.pipelines.set(self.works_on)
        return [FieldChange("pipelines", before, after)]

    def _note_change(self, verb: str, fields: tuple[FieldChange, ...]) -> None:
        wanted = self.wanted
        self.settling.changes.append(Change(wanted.kind, wanted.slug, verb, wanted.file, wanted.line, fields))
        # a boundary's own module has told of it already
        if self.settling.actor and verb != "unchanged" and wanted.kind != BOUNDARY:
            audit.write(
                self.settling.actor,
                "create" if verb == "created" else "change",
                kind=wanted.kind.split()[0],
                target=wanted.slug,
                reason=self.settling.reason,
                result=f"imported from {wanted.file}",
                changes={change.name: [change.before, change.after] for change in fields},
            )


def _tables(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Mapping[str, Any]]]]:
    """(part, under what name it stands, its columns) of each table of a dataset whose dictionary a file names."""
    if "columns" in values:
        yield "", "columns", values["columns"]
    for part, named in values.get("parts", {}).items():
        yield part, f"parts.{part}", named


def _shown(stored: str | None) -> str:
    """A stored secret as a change may name it."""
    if stored is None:
        return "not there"
    return plain.plain_secret(stored) if stored else "to be entered"


def _begun(words: str) -> str:
    """The words at the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname or address
    except ValueError:
        return address


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Step):
        yield from _texts({**value.first, **value.values})
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(name)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
