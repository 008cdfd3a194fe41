"""How a pipeline's files become columns, as its settings page tells it: the configured columns, and how the newest files differ from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from catalog.models import DatasetEvent
from pipelines.models import Pipeline

#: What has its own table here, or is kept for the way back into another's file only.
_ELSEWHERE = {"attributes", "own"}


@dataclass(frozen=True)
class Line:
    """One configured column. `is_missing`: the newest files do not have it."""

    source: str
    name: str
    type: str
    format: str
    description: str
    is_missing: bool


@dataclass(frozen=True)
class Reading:
    """The configured columns in their order, what else the format is told, and the columns of the newest files that nobody configured."""

    lines: list[Line]
    options: list[tuple[str, str]]
    extra: list[str]
    told: DatasetEvent | None

    @property
    def missing(self) -> list[str]:
        return [line.source for line in self.lines if line.is_missing]


def reading(pipeline: Pipeline) -> Reading | None:
    """None of a pipeline that reads without a configuration of columns. Two queries."""
    configured = pipeline.options.get("attributes")
    if not isinstance(configured, list):
        return None
    told = DatasetEvent.objects.filter(
        dataset=pipeline.dataset_id, kind=DatasetEvent.Kind.COLUMNS, source=pipeline.slug, details__has_key="drift"
    ).first()
    drift: dict[str, Any] = told.details["drift"] if told else {"missing": [], "extra": []}
    words = {column.name: column.description for column in pipeline.dictionary()}
    lines = [
        Line(
            source=(source := str(one.get("source") or one.get("name", ""))),
            name=(name := str(one.get("name") or source)),
            type=str(one.get("type", "text")),
            format=str(one.get("format") or ""),
            description=words.get(name, ""),
            is_missing=source in drift["missing"] or name in drift["missing"],
        )
        for one in configured
        if isinstance(one, dict)
    ]
    options = [(name, str(value)) for name, value in sorted(pipeline.options.items()) if name not in _ELSEWHERE and value not in (None, "", False)]
    return Reading(lines, options, list(drift["extra"]), told)
