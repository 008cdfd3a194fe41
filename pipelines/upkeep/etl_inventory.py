"""Who feeds what: every resource of a CKAN portal with the pipeline that fills it, and null where none of ours does; published as a dataset."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.connectors.base import About, Column, Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import SetupError
from pipelines.models import Cadence, Pipeline, UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural
from pipelines.upkeep.remote_files import RemoteFiles, Wish, wishes_of

ENGINE, UPLOADS = "Open Data Ops", "Open Data Ops - Remote files"
TABLE = "od-etl-configs"
MOMENTS = frozenset({"resource_last_modified", "date_published", "package_last_refreshed"})
#: In this order they are published; the names are those by which others have read the inventory for years.
COLUMNS = {
    "package_id": "The name of the dataset.",
    "resource_name": "The name of the resource.",
    "engine": "What fills it; empty where nothing is known to.",
    "fme": "The FME job that the portal says fills it.",
    "source_data": "Where the rows come from.",
    "datastore_active": "Whether it has a table in the datastore.",
    "refresh_rate": "How often the public was promised new data.",
    "schedule": "When it is filled: a cron expression, or a word.",
    "is_retired": "Whether the dataset is kept up no more.",
    "owner_division": "The division that owns the dataset.",
    "owner_unit": "The unit that owns it.",
    "owner_email": "Whom to ask about the dataset.",
    "resource_last_modified": "When the resource last changed.",
    "config_location": "The page of the pipeline that fills it.",
    "od_owner": "Who is told when the pipeline fails.",
    "date_published": "When the dataset was first published.",
    "package_last_refreshed": "When the dataset was last refreshed.",
}


class EtlInventory(Job):
    """The files that a portal writes from its own tables are not listed: nobody feeds them."""

    kind = "etl-inventory"
    label = "ETL inventory"
    about = "Lists every resource of a CKAN portal with the pipeline that fills it, and publishes the list as a dataset there."
    can_dry = True
    options = (
        portals.PORTAL,
        Parameter("dataset", "Dataset", default=TABLE, help="The name of the dataset on the portal. “none”: it is only kept with the run."),
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        slug, dataset, faults = self.word(job, "portal"), self.word(job, "dataset"), Faults()
        ours, wishes = _ours(portals.provider(job, slug).pk), _wishes()
        with portals.asked(job, slug, note) as portal:
            lines = sorted(_lines(portal.packages(), ours, wishes, faults, note), key=lambda line: (line["package_id"], line["resource_name"]))
            note.findings(COLUMNS, ([line[name] for name in COLUMNS] for line in lines))
            fed = sum(line["engine"] is not None for line in lines)
            words = f"{plural(len(lines), 'resource')}: {fed:,} are fed by pipelines of ours, {len(lines) - fed:,} by nothing that we know"
            if faults.rows:
                note(unread=[list(row) for row in faults.rows])
                words += f"; {plural(len(faults.rows), 'package')} could not be read ({'; '.join(faults.lines[:3])})"
            if dataset != "none" and lines and not note.is_dry:
                _publish(portal, dataset, lines)
                words += f"; published as {dataset}"
        note.notice(f"{words}.", trouble=bool(faults.rows))
        return f"{words}."


def _ours(portal_id: int) -> dict[str, Pipeline]:
    """Our pipelines by what they publish: "package/Resource name", or the resource's id, in small letters."""
    publishing = Pipeline.objects.filter(portal=portal_id, twin_of=None).select_related("dataset", "provider")
    return {one.portal_resource.casefold(): one for one in publishing}


def _wishes() -> list[Wish]:
    """The files that jobs of ours bring to a portal; a job whose files can't be read says so itself, when it runs."""
    found = []
    for job in UpkeepJob.objects.filter(kind=RemoteFiles.kind, is_active=True):
        with suppress(SetupError):
            found += wishes_of(job)
    return found


def _lines(
    packages: Iterable[Mapping[str, Any]], ours: Mapping[str, Pipeline], wishes: list[Wish], faults: Faults, note: Note
) -> Iterator[dict[str, Any]]:
    for package in packages:
        note.walk()
        with faults.of(str(package.get("name", "?"))):
            yield from [_line(package, one, ours, wishes) for one in package["resources"] if not portals.is_true(one.get("is_datastore_cache_file"))]


def _line(package: Mapping[str, Any], resource: Mapping[str, Any], ours: Mapping[str, Pipeline], wishes: list[Wish]) -> dict[str, Any]:
    """A resource as the inventory has it. Raises KeyError, ValueError."""
    name = resource.get("name") or ""
    brought = next((wish for wish in wishes if wish.feeds(package["name"], name)), None)
    fed = ours.get(f"{package['name']}/{name}".casefold()) or ours.get(str(resource["id"]).casefold())
    extract_job = str(resource.get("extract_job") or "")
    return {
        "package_id": package["name"],
        "resource_name": name,
        "engine": ENGINE if fed else UPLOADS if brought else None,
        "fme": extract_job if extract_job.upper().startswith("FME") else None,
        "source_data": f"{fed.provider.base_url.rstrip('/')}/{fed.resource.lstrip('/')}" if fed else brought and brought.url,
        "datastore_active": "true" if portals.is_true(resource.get("datastore_active")) else "false",
        "refresh_rate": package.get("refresh_rate"),
        "schedule": _schedule(fed) if fed else None,
        "is_retired": "true" if portals.is_true(package.get("is_retired")) else "false",
        "owner_division": package.get("owner_division"),
        "owner_unit": package.get("owner_unit"),
        "owner_email": package.get("owner_email"),
        "resource_last_modified": _stamp(resource.get("last_modified") or resource.get("created")),
        "config_location": fed.get_absolute_url() if fed else None,
        "od_owner": fed.dataset.engineer or None if fed else None,
        "date_published": _stamp(package.get("date_published")),
        "package_last_refreshed": _stamp(package.get("last_refreshed")),
    }


def _schedule(pipeline: Pipeline) -> str:
    return {Cadence.CRON: pipeline.cron, Cadence.ONCE: "@once"}.get(Cadence(pipeline.cadence), pipeline.cadence)


def _stamp(text: Any) -> str | None:
    found = portals.moment(text)
    return found and f"{found:%Y-%m-%dT%H:%M:%S}"


def _publish(portal: Ckan, dataset: str, lines: list[dict[str, Any]]) -> None:
    """Put the list in the place of the last one. Raises PipelineError."""
    columns = tuple(
        Column(name, "local_time" if name in MOMENTS else "text", description=words, portal_type="timestamp" if name in MOMENTS else "text")
        for name, words in COLUMNS.items()
    )
    resource = f"{dataset}/{dataset}"
    about = About(
        fields={
            "title": "Open data ETL inventory",
            "description": "Every resource of this portal, with what fills it, from where and when.",
            "refresh_rate": "Daily",
        },
        table=dataset,
        columns=columns,
    )
    portal.introduce(resource, about)
    portal.preflight(resource, columns=columns, key=(), replaces=True)
    with tempfile.TemporaryDirectory(prefix="etl-inventory-") as folder:
        path = Path(folder) / "inventory.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerows(lines)
        portal.replace(resource, columns, path, len(lines))
