"""Test twins: a copy of a pipeline to try things out on, that touches nothing of the real one.

A twin has the settings of its pipeline at the moment it was made or refreshed, and a place of its own for everything it writes: a
dataset and a table with `_test`, repositories that end in -test, and for publishing a dataset that somebody names, or a CSV file
below var/. It is paused, so it only runs when somebody asks, and what is to be done after loads (notices, caches) is not copied.
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction

from catalog import audit, lake
from catalog.audit import Actor
from catalog.models import Dataset, DatasetColumn, RefreshRate
from pipelines.errors import SetupError
from pipelines.models import Enrichment, Pipeline, Provider, Stage

#: What a twin has of its own; the rest is copied each time.
OWN = {
    "id", "slug", "title", "dataset", "table", "portal", "portal_resource", "is_paused", "paused_reason", "twin_of", "created_at",
    "source_version", "published_seq", "watermark", "compared_at", "accepted_columns", "surrogate_key",
}  # fmt: skip
PAUSED = "A test twin runs only when somebody asks."
#: The provider that stands for the folder below var/.
FOLDER = "test-published"


def twin_of(pipeline: Pipeline) -> Pipeline | None:
    """The twin as it is, None where it was never made."""
    return Pipeline.objects.select_related("provider", "dataset", "portal").filter(twin_of=pipeline).first()


@transaction.atomic
def refreshed(pipeline: Pipeline, *, actor: Actor, resource: str = "", reason: str = "") -> tuple[Pipeline, str]:
    """The twin with the pipeline's present settings, made if there is none; and words about it. Audited.

    `resource` names the dataset on the pipeline's portal to which the twin publishes from now on; "" leaves that as it is, which for
    a new twin is a CSV file. Raises SetupError where the twin would write to a place that is real.
    """
    if pipeline.is_test:
        raise SetupError(f"{pipeline.title} is a test twin itself.", code="twin-of-twin", next_step=f"Name {pipeline.twin_of.slug} instead.")
    twin = twin_of(pipeline)
    is_new = twin is None
    twin = twin or Pipeline(twin_of=pipeline, slug=f"{pipeline.slug[:75]}-test", is_paused=True, paused_reason=PAUSED)
    before = {} if is_new else _settings(twin)
    for name in _copied():
        setattr(twin, name, getattr(pipeline, name))
    twin.title, twin.table = f"{pipeline.title[:190]} (test)", f"{pipeline.table[:58]}_test"
    twin.dataset = _dataset(pipeline)
    if Stage.PUBLISH in pipeline.stages:
        _place(twin, pipeline, resource)
    _guard(twin)
    twin.full_clean(exclude=["twin_of"])
    twin.save()
    twin.enrichments.all().delete()
    for one in pipeline.enrichments.all():
        Enrichment.objects.create(
            pipeline=twin, position=one.position, layer=one.layer, lon_column=one.lon_column, lat_column=one.lat_column, column=one.column
        )
    changed = sorted(name for name, value in _settings(twin).items() if name in before and before[name] != value)
    where = f"publishes to {twin.portal_resource} of {twin.portal.title}" if twin.portal else "publishes nowhere"
    became = "was made" if is_new else f"took over {', '.join(changed)}" if changed else "is up to date"
    words = f"its test twin {twin.slug} {became}; it {where}."
    if is_new or changed:
        audit.write(actor, "twin", kind="pipeline", target=twin.slug, reason=reason, result=words[:300], changed=changed)
    return twin, words


def _copied() -> list[str]:
    return [field.name for field in Pipeline._meta.concrete_fields if field.name not in OWN]


def _settings(twin: Pipeline) -> dict[str, object]:
    return {name: getattr(twin, name) for name in [*_copied(), "table", "portal_id", "portal_resource"]}


def _dataset(pipeline: Pipeline) -> Dataset:
    """A dataset of its own, with the dictionary of the real one: what stays inside there stays inside here."""
    real = pipeline.dataset
    made, _ = Dataset.objects.update_or_create(
        slug=f"{real.slug[:75]}-test",
        defaults={
            "title": f"{real.title[:190]} (test)",
            "description": f"For trying out {real.title}.",
            "access": Dataset.Access.RESTRICTED,
            "refresh_rate": RefreshRate.IRREGULAR,
            "tags": "test",
        },
    )
    for column in real.columns.all():
        told = {name: getattr(column, name) for name in ("position", "label", "type", "portal_type", "description", "is_published")}
        DatasetColumn.objects.update_or_create(dataset=made, part=column.part, name=column.name, defaults=told)
    return made


def _place(twin: Pipeline, pipeline: Pipeline, resource: str) -> None:
    """Say where the twin publishes."""
    if resource:
        twin.portal, twin.portal_resource = pipeline.portal, resource
    elif not twin.portal_resource:
        folder = Path(settings.VAR_DIR) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        portal, _ = Provider.objects.get_or_create(
            slug=FOLDER, defaults={"title": "Test files", "kind": "csv_file", "base_url": str(folder), "time_zone": pipeline.time_zone}
        )
        twin.portal, twin.portal_resource = portal, f"{lake.safe_name(pipeline.slug)}.csv"


def _guard(twin: Pipeline) -> None:
    """Raise SetupError where the twin would write to what is not a test's."""
    real = Pipeline.objects.filter(twin_of=None).exclude(pk=twin.pk)
    if twin.portal and (found := real.filter(portal=twin.portal, portal_resource=twin.portal_resource).first()):
        raise SetupError(
            f"{found.title} publishes to {twin.portal_resource} for real.",
            code="twin-place",
            next_step="Give the test a dataset of its own with --test-resource.",
        )
    if found := real.filter(table=twin.table, warehouse=twin.warehouse).first():
        raise SetupError(
            f"{found.title} loads the table {twin.table}, which the test would take.", code="twin-place", next_step="Name that table otherwise."
        )
    if found := real.filter(slug=twin.slug).first():
        raise SetupError(f"{found.title} is called {twin.slug} already, and is no test twin.", code="twin-place", next_step="Name it otherwise.")
