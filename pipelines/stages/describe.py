"""Describe: what the catalog knows of a dataset → its portal. Titles, notes and dictionary, by themselves: no row is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from catalog.models import RefreshRate
from pipelines import secrets
from pipelines.connectors.base import About, Column
from pipelines.models import Pipeline, Stage
from pipelines.stages import outside
from pipelines.stages.offer import public_columns

#: How often new data comes, in the words that the public of open-data portals knows; the others are the catalog's own.
RATES = {
    RefreshRate.FORTNIGHTLY: "Bi-weekly",
    RefreshRate.HALF_YEARLY: "Semi-annually",
    RefreshRate.YEARLY: "Annually",
    RefreshRate.IRREGULAR: "As available",
    RefreshRate.NEVER: "Will not be Refreshed",
}


def about(pipeline: Pipeline) -> About:
    """What the pipeline's portal is to say of its dataset and of its table. Columns that stay inside are left out. Raises SetupError."""
    dataset = pipeline.dataset
    fields: dict[str, Any] = {
        "title": dataset.title,
        "description": dataset.description,
        "excerpt": dataset.excerpt,
        "limitations": dataset.limitations,
        "collection_method": dataset.collection_method,
        "information_url": dataset.information_url,
        "category": dataset.category,
        "topics": dataset.topics,
        "civic_issues": dataset.civic_issues,
        "department": dataset.department,
        "section": dataset.section,
        "unit": dataset.unit,
        "steward_email": dataset.steward_email,
        "licence": dataset.licence,
        "refresh_rate": RATES.get(RefreshRate(dataset.refresh_rate), str(RefreshRate(dataset.refresh_rate).label)),
        "tags": [tag for each in dataset.tags.split(",") if (tag := each.strip())],
        "organization": dataset.organization,
        "published_on": _moment(dataset.published_on),
        "is_retired": dataset.is_retired,
    }
    return About(
        fields={**fields, **dataset.portal_fields},
        table=pipeline.part or dataset.title,
        columns=_columns(pipeline),
        key=tuple(pipeline.key),
        format=pipeline.options.get("published_format") or "csv",
        origin=_origin(pipeline),
    )


def _moment(when: datetime | None) -> str:
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") if when else ""


def _columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """The dictionary of what leaves: of a release its own columns, else the lines of the table that are published."""
    if pipeline.release:
        return public_columns(pipeline)
    told = [line for line in pipeline.dictionary() if line.is_published and line.name not in pipeline.private_columns]
    return tuple(Column(line.name, line.type, line.label, line.description, line.portal_type) for line in told)


def _origin(pipeline: Pipeline) -> str:
    """The web address that the rows come from; "" where they come from elsewhere. What stands behind its ? may be a key, and stays here."""
    base = pipeline.provider.base_url.rstrip("/")
    if not base.lower().startswith(("http://", "https://")):
        return ""
    path = urlsplit(pipeline.resource).path if pipeline.resource.startswith("/") else ""
    return secrets.redact(base + path)


def can_be_told(pipeline: Pipeline) -> bool:
    """Whether the pipeline publishes to a portal that lets itself be told what to say."""
    return Stage.PUBLISH in pipeline.stages and pipeline.portal is not None and pipeline.portal.connector_class.can_introduce


def differs(pipeline: Pipeline) -> bool:
    """Whether the portal has been told something else than what is to be said now, or nothing yet. Raises SetupError."""
    return _digest(pipeline, about(pipeline)) != pipeline.described


def _digest(pipeline: Pipeline, said: About) -> str:
    """The sha256 of a description and of where it is told: another portal has heard nothing yet."""
    told = json.dumps([pipeline.portal_id, pipeline.portal_resource, asdict(said)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def push(pipeline: Pipeline, tell: Callable[[str], None], *, is_asked: bool = False) -> tuple[str, ...]:
    """Tell the portal what differs from what it was told last; everything again where a person asked for it.

    Returns what changed there, in words; () where nothing did. `tell` gets lines for a log. Raises PipelineError.
    """
    said = about(pipeline)
    digest = _digest(pipeline, said)
    if digest == pipeline.described and not is_asked:
        return ()
    portal = outside.connector(pipeline.portal, lambda level, text: tell(text) if level == "warning" else None)
    with portal.door:
        changed = portal.introduce(pipeline.portal_resource, said)
    Pipeline.objects.filter(pk=pipeline.pk).update(described=digest)
    pipeline.described = digest
    if changed:
        tell(f"{pipeline.portal.title} was told of {pipeline.portal_resource}: {', '.join(changed)}")
    return changed
