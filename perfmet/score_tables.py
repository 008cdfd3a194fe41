"""Scores as tables for the public: the original's 17 columns for each table and run, and 0.1.0's scorecard a package. As CSV, and on a CKAN portal.

On the portal rows are only ever added, in the package `catalogue-quality-scores`; what a publication that broke off had added is
taken out before it is added again, so twice is harmless. Where the original kept its score as text, ours is a number.
"""

from __future__ import annotations

import csv
import json
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

from django.utils import timezone

from perfmet import scorecard
from perfmet.dimensions import ACCESSIBILITY, COMPLETENESS, DIMENSIONS, FRESHNESS, METADATA, NOT_APPLICABLE, USABILITY
from perfmet.models import QualityRun, QualityScore
from pipelines.connectors.base import About, Column
from pipelines.connectors.ckan import Ckan
from pipelines.errors import DataError, SetupError
from pipelines.models import Provider
from pipelines.stages import outside

PACKAGE = "catalogue-quality-scores"
SCORES, SCORECARD, MODELS = "quality-scores-explanation-codes-and-scores", "catalogue-scorecard", "scoring-models"
#: Rows that are sent at once.
BATCH = 20_000
#: The dimensions in the order of the 17 columns.
ORDER = (USABILITY, METADATA, FRESHNESS, COMPLETENESS, ACCESSIBILITY)
ABOUT = {
    USABILITY: "How easy it is to use the data, by how it is organized and named.",
    METADATA: "How well the dataset and its columns are described.",
    FRESHNESS: "How well it keeps the refresh rate that was promised, and how old it is.",
    COMPLETENESS: "How much of the data is there.",
    ACCESSIBILITY: "How easy it is to find it and to get it.",
}


@dataclass(frozen=True)
class Table:
    """A table of the publication: its name, its columns (name, the portal's type, what it is), and the rows of a run."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[QualityRun], Iterator[dict[str, Any]]]


def _column(name: str, kind: str, notes: str) -> Column:
    ours = {"float": "number", "timestamp": "local_time"}.get(kind, "text")
    return Column(name, ours, description=notes, portal_type=kind)


def _whole_columns() -> tuple[Column, ...]:
    found = [_column("package", "text", "The name of the dataset."), _column("resource", "text", "The name of its table or file.")]
    for name in ORDER:
        found.append(_column(name, "float", f"{ABOUT[name]} From 0 to 1."))
        found.append(_column(f"{name}_code", "text", f"What lowers its {name}, as codes that each begin with ~."))
    return (
        *found,
        _column("store_type", "text", "datastore: a table that can be queried; filestore: a file."),
        _column("division", "text", "The division that owns it."),
        _column("score", "float", "The weighted sum of the dimensions, from 0 to 1."),
        _column("grade", "text", "Bronze up to 0.6, Silver up to 0.8, above that Gold."),
        _column("recorded_at", "timestamp", "When it was scored, in UTC."),
    )


def stamp(at: datetime) -> str:
    """A moment as the tables have it, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _whole_rows(run: QualityRun) -> Iterator[dict[str, Any]]:
    for score in _scores(run):
        row: dict[str, Any] = {"package": score.package, "resource": score.resource}
        for name in ORDER:
            value = getattr(score, name)
            # a file is not asked: the original keeps a 0
            row[name] = 0.0 if value is None else round(value, 3)
            row[f"{name}_code"] = NOT_APPLICABLE if value is None else score.codes.get(name, "")
        yield row | {
            "store_type": score.store_type,
            "division": score.division or None,
            "score": round(score.score, 3),
            "grade": score.grade,
            "recorded_at": stamp(score.recorded_at),
        }


def _card_rows(run: QualityRun) -> Iterator[dict[str, Any]]:
    packages: dict[str, list[QualityScore]] = defaultdict(list)
    for score in _scores(run):
        packages[score.package].append(score)
    for package, scores in packages.items():
        means = {name: fmean(getattr(score, name) or 0.0 for score in scores) for name in (*DIMENSIONS, "score", "score_norm")}
        yield {
            "package": package,
            **{name: round(value, 2) for name, value in means.items()},
            "grade": scores[0].grade,
            "grade_norm": scores[0].grade_norm,
            "recorded_at": stamp(scores[0].recorded_at),
            "version": run.version,
        }


def _scores(run: QualityRun) -> Iterator[QualityScore]:
    """Only what the public has; of a dataset that is not public not even the name leaves."""
    shown = run.scores.select_related("dataset").order_by("package", "resource")
    hidden = set(run.details.get("inside", ()))
    return (score for score in shown.iterator(chunk_size=1_000) if f"{score.package} / {score.resource}" not in hidden)


WHOLE = Table(SCORES, _whole_columns(), _whole_rows)
CARD = Table(
    SCORECARD,
    (
        _column("package", "text", "The name of the dataset."),
        *(_column(name, "float", f"{ABOUT[name]} From 0 to 1, the mean of its tables.") for name in DIMENSIONS),
        _column("score", "float", "The weighted sum of the dimensions, the mean of its tables."),
        _column("score_norm", "float", "The score between the lowest and the highest of its run, the mean of its tables."),
        _column("grade", "text", "Of the normed score: Bronze up to 0.6, Silver up to 0.8, above that Gold."),
        _column("grade_norm", "text", "The same."),
        _column("recorded_at", "timestamp", "When it was scored, in UTC."),
        _column("version", "text", "The model by which it was scored; see scoring-models."),
    ),
    _card_rows,
)


def table_of(run: QualityRun) -> Table:
    """The table that a run's scores are published in: 0.1.0 has the scorecard, what came after it a row a table."""
    return CARD if scorecard.model_called(run.version).is_relative else WHOLE


def write_csv(run: QualityRun, stream: TextIO) -> int:
    """The run's scores as CSV, with a header. Returns how many rows."""
    table = table_of(run)
    writer = csv.DictWriter(stream, [column.name for column in table.columns], lineterminator="\n")
    writer.writeheader()
    written = 0
    for row in table.rows(run):
        writer.writerow(row)
        written += 1
    return written


# to a portal


def portal_for(run: QualityRun, slug: str = "") -> Provider:
    """The CKAN portal that is named; else the one that was scored, else the only one. Raises SetupError."""
    portals = Provider.objects.filter(kind=Ckan.kind, is_active=True).order_by("slug")
    wanted = slug or run.place
    found = list(portals.filter(slug=wanted) if wanted else portals)
    if len(found) != 1 and not slug:
        found = list(portals)
    if len(found) == 1:
        return found[0]
    there = ", ".join(portals.values_list("slug", flat=True))
    raise SetupError(
        f"There is no CKAN portal {slug!r}." if slug else "It is not said to which CKAN portal the scores go.",
        code="no-portal",
        next_step=f"Name one of these: {there}." if there else "Make a provider of the kind CKAN, with the key of an account that may publish.",
    )


def publish(run: QualityRun, provider: Provider) -> int:
    """Add a run's scores to its table on a CKAN portal, made where there is none. Returns how many rows; twice is harmless.

    Raises SetupError for a run that did not end well, PipelineError where the portal does not take them.
    """
    if run.state != QualityRun.State.DONE:
        raise SetupError(f"The scoring {run.pk} did not end well: there is nothing to publish.", code="not-done", next_step="Score again.")
    table = table_of(run)
    rows = list(table.rows(run))
    portal = outside.connector(provider)
    with portal.door:
        if rows:
            _add(portal, table, rows)
        if table is CARD:
            _describe_models(portal)
    run.published_at = timezone.now()
    run.save(update_fields=["published_at"])
    return len(rows)


def _add(portal: Ckan, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    resource = f"{PACKAGE}/{table.name}"
    portal.introduce(resource, _about(table))
    portal.open_publication(resource, table.columns)
    id = portal.describe(resource).metadata["resource_id"]
    # every row of a run has the run's own second
    [at] = {row["recorded_at"] for row in rows}
    held = _held(portal, id, at)
    if held == len(rows):
        return
    if held:
        portal.action("datastore_delete", resource_id=id, filters={"recorded_at": at}, force=True)
    for start in range(0, len(rows), BATCH):
        portal.action("datastore_upsert", resource_id=id, records=list(rows[start : start + BATCH]), method="insert", force=True)
    if (held := _held(portal, id, at)) != len(rows):
        raise DataError(
            f"{portal.host} has {held:,} of the {len(rows):,} scores that were added",
            code="not-all-there",
            next_step="Publish them again: what is there of them is taken out first.",
        )
    portal.action("resource_patch", id=id, last_modified=f"{timezone.now().astimezone(UTC):%Y-%m-%dT%H:%M:%S}")


def _held(portal: Ckan, id: str, at: str) -> int:
    """How many rows of that second the portal has."""
    return portal.action("datastore_search", resource_id=id, filters={"recorded_at": at}, limit=0)["total"]


def _about(table: Table) -> About:
    fields = {
        "title": "Catalogue quality scores",
        "description": "How good the datasets of this portal are, and why: each table's score, its five dimensions, and codes for what lowers them.",
        "excerpt": "How good the datasets of this portal are, and why.",
        "category": "Table",
        "refresh_rate": "Daily",
        "tags": ["data quality"],
    }
    return About(fields=fields, table=table.name, columns=table.columns, format="csv")


def _describe_models(portal: Ckan) -> None:
    """Put the models beside the scores, as a file of JSON that says how each reckons."""
    resources = portal.action("package_show", id=PACKAGE)["resources"]
    known = next((one for one in resources if one.get("name") == MODELS), None)
    fields = {"id": known["id"]} if known else {"package_id": PACKAGE, "name": MODELS}
    action = "resource_patch" if known else "resource_create"
    content = json.dumps(scorecard.described(), indent=2).encode()
    boundary = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="scoring-models-") as folder:
        path = Path(folder) / "body"
        path.write_bytes(_multipart(boundary, {**fields, "format": "JSON"}, f"{MODELS}.json", content))
        key = portal.account.secrets.get("api_key", "")
        reply = portal.door.upload(
            "POST", f"{portal.web_address}/api/3/action/{action}", path, content_type=f"multipart/form-data; boundary={boundary}",
            headers={"Authorization": key} if key else {}, repeatable=bool(known),
        )  # fmt: skip
    if not (isinstance(reply.json, dict) and reply.json.get("success") is True):
        raise DataError(f"{portal.host} did not take {MODELS}.json", code="not-taken", next_step="Look at the package on the portal.")


def _multipart(boundary: str, fields: dict[str, str], name: str, content: bytes) -> bytes:
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode() for field, value in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="upload"; filename="{name}"\r\nContent-Type: application/json\r\n\r\n'
    return b"".join([*parts, head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])
