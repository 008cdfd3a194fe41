"""The way back to Toronto: a dataset with its pipelines as the file that `operations` and `toronto_yaml.py` read. No secret is in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any

from catalog.models import Dataset
from pipelines import secrets
from pipelines.connectors.web_file import HEADERS
from pipelines.importers import plain
from pipelines.importers.plan import KEEP
from pipelines.importers.toronto_words import ISSUE, ISSUE_URL, LEGACY, ONCE, RATES, TIMES, column_name, cron_of
from pipelines.importers.yaml_nodes import dump
from pipelines.models import Cadence, Pipeline

#: The kinds of provider whose resources such a file can name.
KINDS = ("web_file", "arcgis")
#: Words that their catalogue does not have.
NOT_THEIRS = ("Hourly", "Bi-weekly")
HEADER = "# Written by Open Data Ops (python3 manage.py export_config --format toronto); import_config reads it back.\n"

_RATES = {str(ours): theirs for theirs, ours in RATES.items()}
#: A cadence without an expression of its own, at minute and hour.
_CRONS = {Cadence.HOURLY: "0 * * * *", Cadence.DAILY: "{} {} * * *", Cadence.WEEKLY: "{} {} * * 1", Cadence.MONTHLY: "{} {} 1 * *"}


def packages(datasets: Iterable[Dataset]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """({package: what its file says}, what a person should know of it), by slug. A dataset that no such file can describe is only told of."""
    told: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for dataset in sorted(datasets, key=lambda one: one.slug):
        pipelines = []
        for pipeline in dataset.pipelines.filter(twin_of=None).select_related("provider").order_by("pk"):
            if why := _why_not(pipeline):
                notes.append(f"{pipeline.slug} is left out: {why}.")
            else:
                pipelines.append(pipeline)
        if pipelines:
            told[dataset.slug] = _package(dataset, pipelines, notes)
    return told, notes


def write(told: dict[str, dict[str, Any]]) -> str:
    """`packages` as YAML: the same settings give the same bytes."""
    return HEADER + "".join(f"\n{dump({name: package}, is_open=True)}" for name, package in told.items())


def _why_not(pipeline: Pipeline) -> str:
    """Why a resource can't be such a pipeline, in words; "" where it can."""
    if pipeline.provider.kind not in KINDS:
        return f"its source is of the kind {pipeline.provider.kind}, and such a file knows {' and '.join(KINDS)}"
    if not pipeline.options.get("attributes"):
        return "its options name no attributes"
    return ""


def _package(dataset: Dataset, pipelines: Sequence[Pipeline], notes: list[str]) -> dict[str, Any]:
    own = next((pipeline.options["own"] for pipeline in pipelines if pipeline.options.get("own")), {})
    fields = dict(dataset.portal_fields)
    published = dataset.published_on and f"{dataset.published_on.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    told: dict[str, Any] = {}
    if issue := fields.pop(ISSUE, None):
        told[ISSUE] = issue
    if ISSUE_URL in own:
        told[ISSUE_URL] = own[ISSUE_URL]
    told |= {
        "schedule": _schedule(dataset, pipelines, own, notes),
        "dag_owner_name": dataset.engineer,
        "dag_owner_email": dataset.engineer_email or own.get("dag_owner_email", ""),
        "title": dataset.title,
        "date_published": published or fields.pop("date_published", None),
        "dataset_category": dataset.category or ("Map" if _is_map(pipelines) else "Table"),
        "refresh_rate": _RATES[dataset.refresh_rate],
        "owner_division": dataset.department or None,
        "owner_section": dataset.section or None,
        "owner_unit": dataset.unit or None,
        "owner_email": dataset.steward_email or fields.pop("owner_email", None),
        "civic_issues": list(dataset.civic_issues) or None,
        "topics": list(dataset.topics) or None,
        "tags": _tags(dataset, fields, own),
        "information_url": dataset.information_url or None,
        "excerpt": dataset.excerpt or None,
        "limitations": dataset.limitations or None,
    }
    if dataset.collection_method:
        told["collection_method"] = dataset.collection_method
    told["notes"] = dataset.description or None
    told["resources"] = {_name(pipeline): _resource(pipeline) for pipeline in pipelines}
    if told["refresh_rate"] in NOT_THEIRS:
        notes.append(f"{dataset.slug}: Toronto's catalogue has no refresh rate {told['refresh_rate']!r}.")
    if fields:
        notes.append(f"{dataset.slug}: such a file has no place for {', '.join(sorted(fields))}, which its portal is told beside.")
    hidden = [column.name for pipeline in pipelines for column in pipeline.dictionary() if not column.is_published]
    if hidden:
        notes.append(f"{dataset.slug}: {', '.join(hidden)} stays inside here; whoever reads the file elsewhere would publish it.")
    return told


def _schedule(dataset: Dataset, pipelines: Sequence[Pipeline], own: dict[str, Any], notes: list[str]) -> str | None:
    said = [_cron(pipeline) for pipeline in pipelines]
    if len(set(said)) > 1:
        notes.append(f"{dataset.slug}: its pipelines run at several times, and such a file has one; that of {pipelines[0].slug} is written.")
    kept = own.get("schedule")
    return kept if kept and cron_of(kept) == said[0] else said[0]


def _cron(pipeline: Pipeline) -> str | None:
    """Its schedule in their words; None for by hand."""
    if pipeline.cadence == Cadence.CRON:
        return pipeline.cron
    if pipeline.cadence == Cadence.ONCE:
        return ONCE
    at = pipeline.due_time
    return _CRONS[Cadence(pipeline.cadence)].format(at.minute if at else 0, at.hour if at else 0) if pipeline.cadence in _CRONS else None


def _is_map(pipelines: Sequence[Pipeline]) -> bool:
    return any(pipeline.options.get("published_format") == "geojson" for pipeline in pipelines)


def _tags(dataset: Dataset, fields: dict[str, Any], own: dict[str, Any]) -> list[dict[str, Any]] | None:
    names = fields.pop("tags", None) or [name for tag in dataset.tags.split(",") if (name := tag.strip())]
    vocabularies = own.get("vocabularies", {})
    return [{"name": name, "vocabulary_id": vocabularies.get(name)} for name in names] or None


# a resource


def _name(pipeline: Pipeline) -> str:
    """What the portal calls the table."""
    return pipeline.portal_resource.partition("/")[2] or pipeline.part or pipeline.title


def _resource(pipeline: Pipeline) -> dict[str, Any]:
    options = pipeline.options
    own = options.get("own") or {}
    is_layer = pipeline.provider.kind == "arcgis"
    told: dict[str, Any] = {"format": options.get("published_format") or pipeline.format}
    if is_layer:
        told["agol"] = True
    for theirs, ours in (
        ("query_params", "where"), ("encoding", "encoding"), ("sheet", "sheet"), ("is_geojson", "is_geojson"), ("jsonpath", "jsonpath"),
        ("custom_reader", "custom_reader"), ("multi", "multi"), ("multi_insert_date", "multi_insert_date"),
    ):  # fmt: skip
        if options.get(ours):
            told[theirs] = options[ours]
    told["url"] = plain.without_password(pipeline.provider.base_url.rstrip("/")) + pipeline.resource
    if headers := _headers(pipeline):
        told["custom_headers"] = headers
    if pipeline.key:
        told["datastore_upsert"] = {"primary_key": pipeline.key[0] if len(pipeline.key) == 1 else list(pipeline.key)}
    told |= {key: own[key] for key in LEGACY if key in own}
    words = {column.name: column for column in pipeline.dictionary()}
    told["attributes"] = [_attribute(one, words.get(one["name"]), own.get("attributes", {}).get(one["name"], {})) for one in options["attributes"]]
    return told


def _headers(pipeline: Pipeline) -> dict[str, str]:
    """Each header with the name of its secret; one that is stored here reads `sealed`."""
    provider = pipeline.provider
    told = {}
    for number in range(1, HEADERS + 1):
        if name := provider.parameters.get(f"header_{number}"):
            stored = provider.secrets.get(f"header_{number}_value", "")
            told[name] = stored.removeprefix(secrets.ENV) if stored.startswith(secrets.ENV) else KEEP
    return told


def _attribute(one: dict[str, Any], column: Any, own: dict[str, Any]) -> dict[str, Any]:
    source, name = one.get("source") or one["name"], one["name"]
    told: dict[str, Any] = {"id": source} if column_name(source) == name else {"source_name": source, "target_name": name}
    told["type"] = one.get("type", "text")
    if told["type"] in TIMES:
        told["format"] = one.get("format", "")
    told |= {key: value for key, value in own.items() if key != "type_override"}
    told["info"] = {"notes": column.description if column else ""}
    if column and column.label:
        told["info"]["label"] = column.label
    if "type_override" in own:
        told["info"]["type_override"] = own["type_override"]
    return told
