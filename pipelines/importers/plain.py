"""Providers, datasets, pipelines … as plain values: what an export writes and an import compares. No secret is among them."""

from __future__ import annotations

import hashlib
import json
from datetime import time
from typing import Any
from urllib.parse import urlsplit

from django.db import models

from catalog.models import BoundaryLayer, Dataset, DatasetColumn
from pipelines import secrets
from pipelines.connectors.redaction import MASK
from pipelines.importers.plan import BOUNDARY, DATASET, KEEP, OPERATOR, PIPELINE, PROVIDER, UPKEEP
from pipelines.models import AfterStep, Enrichment, Pipeline, Provider, RegisteredOperator, UpkeepJob

#: Each kind after those that it refers to.
MODELS: dict[str, type[models.Model]] = {
    PROVIDER: Provider,
    DATASET: Dataset,
    BOUNDARY: BoundaryLayer,
    PIPELINE: Pipeline,
    UPKEEP: UpkeepJob,
    OPERATOR: RegisteredOperator,
}
#: What is no setting but a state of the moment, or the name under which the object stands.
_STATES = {"slug", "blocked_until", "position", "seen_at"}
_NAMES = {
    DatasetColumn: {"dataset", "part", "name"},
    AfterStep: {"pipeline"},
    Enrichment: {"pipeline"},
    UpkeepJob: {"title"},
    RegisteredOperator: {"operator_id", "mode"},
}


def setting_fields(model: type[models.Model]) -> dict[str, models.Field]:
    """The fields that a person sets, in the model's order; a new field of a model is exported and imported without more ado."""
    skip = _STATES | _NAMES.get(model, set())
    return {field.name: field for field in model._meta.concrete_fields if field.editable and not field.primary_key and field.name not in skip}


FIELDS = {kind: setting_fields(model) for kind, model in MODELS.items()}
COLUMN_FIELDS = setting_fields(DatasetColumn)
STEP_FIELDS = setting_fields(AfterStep)
ENRICHMENT_FIELDS = setting_fields(Enrichment)
#: What stands under an object though it is no field of it.
PARTS = {DATASET: ("columns", "parts"), BOUNDARY: ("file", "sha256"), PIPELINE: ("after", "enrichments"), UPKEEP: ("pipelines",)}
#: JSON whose numbers stay numbers; elsewhere the models mean text.
EXACT = ("options", "portal_fields")


def keys_of(kind: str) -> list[str]:
    """What may be written of an object of this kind."""
    return [*FIELDS[kind], *PARTS.get(kind, ())]


def identity(kind: str, slug: str) -> dict[str, str]:
    """The fields, with their values, by which the object that stands under `slug` is found."""
    if kind == UPKEEP:
        return {"title": slug}
    if kind == OPERATOR:
        operator_id, _, mode = slug.partition(" ")
        return {"operator_id": operator_id, "mode": mode}
    return {"slug": slug}


def slug_of(thing: models.Model) -> str:
    """Under what name it stands; the reverse of `identity`."""
    if isinstance(thing, UpkeepJob):
        return thing.title
    return f"{thing.operator_id} {thing.mode}".rstrip() if isinstance(thing, RegisteredOperator) else thing.slug


def plain(thing: models.Model) -> dict[str, Any]:
    """Every setting, as text, number, truth, list or mapping. A sealed secret is the word `sealed`, an address shows no password."""
    kind = next(kind for kind, model in MODELS.items() if isinstance(thing, model))
    told = {name: _value(thing, field) for name, field in FIELDS[kind].items()}
    if kind == PROVIDER:
        told["base_url"] = without_password(thing.base_url)
        told["secrets"] = {name: plain_secret(stored) for name, stored in sorted(thing.secrets.items())}
    if kind == DATASET:
        columns = columns_of(thing)
        told["columns"] = {column.name: plain_column(column) for column in columns if not column.part}
        if parts := list(dict.fromkeys(column.part for column in columns if column.part)):
            told["parts"] = {part: {column.name: plain_column(column) for column in columns if column.part == part} for part in parts}
    if kind == PIPELINE:
        told["after"] = [plain_step(step) for step in steps_of(thing)]
        told["enrichments"] = [plain_enrichment(one) for one in enrichments_of(thing)]
    if kind == BOUNDARY:
        told |= {"file": geojson_name(thing.slug), "sha256": thing.sha256}
    if kind == UPKEEP:
        told["webhook"] = plain_secret(thing.webhook) if thing.webhook else ""
        told["pipelines"] = sorted(pipeline.slug for pipeline in thing.pipelines.all()) if thing.pk else []
    return told


def columns_of(dataset: Dataset) -> list[DatasetColumn]:
    """The dictionary's lines, by part and in their order; sorted here, so that what was prefetched is used."""
    return sorted(dataset.columns.all(), key=lambda column: (column.part, column.position, column.name)) if dataset.pk else []


def plain_column(column: DatasetColumn) -> dict[str, Any]:
    return {name: _value(column, field) for name, field in COLUMN_FIELDS.items()}


def steps_of(pipeline: Pipeline) -> list[AfterStep]:
    """What it does after a load, in order; sorted here, so that what was prefetched is used."""
    return sorted(pipeline.after_steps.all(), key=lambda step: (step.position, step.pk)) if pipeline.pk else []


def plain_step(step: AfterStep) -> dict[str, Any]:
    told = {name: _value(step, field) for name, field in STEP_FIELDS.items()}
    told["target"] = without_password(step.target)
    # a notice without its address is one whose address is still to be entered, as after an import from elsewhere
    told["secret"] = plain_secret(step.secret) if step.secret or step.kind == AfterStep.Kind.NOTIFY else ""
    return told


def enrichments_of(pipeline: Pipeline) -> list[Enrichment]:
    """The columns that the enrich stage adds, in order; sorted here, so that what was prefetched is used."""
    return sorted(pipeline.enrichments.all(), key=lambda one: (one.position, one.pk)) if pipeline.pk else []


def plain_enrichment(one: Enrichment) -> dict[str, Any]:
    return {name: _value(one, field) for name, field in ENRICHMENT_FIELDS.items()}


def short(name: str, most: int, *, of: str, is_cut: bool = False) -> str:
    """The name in `most` characters: where it `is_cut` or too long, the fingerprint of `of` stands in the place of its end."""
    if len(name) <= most and not is_cut:
        return name
    joint = "_" if "_" in name and "-" not in name else "-"
    return f"{name[: most - 9].rstrip('-_')}{joint}{fingerprint(of)}"


def fingerprint(words: str) -> str:
    """Eight characters that tell these words from others."""
    return hashlib.sha256(words.encode()).hexdigest()[:8]


def geojson_name(slug: str) -> str:
    """The name of a boundary layer's own file, beside an export."""
    return f"{slug}.geojson"


def plain_secret(stored: str) -> str:
    return stored if stored.startswith(secrets.ENV) else KEEP


def without_password(address: str) -> str:
    """The address as anyone may read it: `https://***@host/path` where it carries a name or a password."""
    try:
        place = urlsplit(address).netloc
    except ValueError:
        return secrets.redact(address)  # no address at all; whoever opens it will say so
    _, at, host = place.rpartition("@")
    return address.replace(place, f"{MASK}@{host}", 1) if at else address


def _value(thing: models.Model, field: models.Field) -> Any:
    value = getattr(thing, field.attname)
    if isinstance(field, models.ForeignKey):
        return getattr(thing, field.name).slug if value is not None else None
    if isinstance(field, models.TimeField):
        return clock_time(value) if value is not None else None
    if isinstance(field, models.DateField):
        return value.isoformat() if value is not None else None
    if isinstance(field, models.JSONField):
        return value if field.name in EXACT else _json(value)
    return str(value) if isinstance(value, str) else value  # a choice is a str of its own class, which YAML would not write


def clock_time(value: time) -> str:
    return value.isoformat(timespec="auto" if value.microsecond or value.second else "minutes")


def _json(value: Any) -> Any:
    """Lists of text and mappings to text, as the models mean them: a number in there is its text; what is deeper stays."""
    if isinstance(value, dict):
        return {name: _text(item) for name, item in sorted(value.items())}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    return value if isinstance(value, (dict, list)) else "" if value is None else json.dumps(value)
