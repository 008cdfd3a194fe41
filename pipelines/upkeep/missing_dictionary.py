"""Columns that nobody has described: on a CKAN portal, or in the dictionaries of our own catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from catalog.models import DatasetColumn
from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import PipelineError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural

#: What the datastore itself adds to a table.
OWN_FIELDS = frozenset({"_id"})


@dataclass(frozen=True)
class Dictionary:
    """The columns of a table, and those of them without a description."""

    dataset: str
    table: str
    columns: int
    missing: tuple[str, ...]
    email: str = ""


class MissingDictionary(Job):
    """A description of spaces is none. It changes nothing: the words are a steward's to write."""

    kind = "missing-dictionary"
    label = "Missing data dictionary"
    about = "Finds the columns that have no description, table by table, those with the most first."
    can_dry = True
    options = (
        portals.PORTAL_OR_OURS,
        Parameter("top", "Told of", default="20", help="So many tables; the page has all of them. 0: all."),
        portals.REPEAT,
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        top, faults = self.number(job, "top"), Faults()
        if slug := self.word(job, "portal"):
            with portals.asked(job, slug, note) as portal:
                tables = list(_of_portal(portal, faults, note))
        else:
            tables = list(_of_ours())
        lacking = sorted((one for one in tables if one.missing), key=lambda one: (-len(one.missing), one.dataset, one.table))
        rows = [(one.dataset, one.table, len(one.missing), one.columns, ", ".join(one.missing), one.email) for one in lacking]
        rows += [(name, "", None, None, why, "") for name, why in faults.rows]
        note.findings(("dataset", "table", "without description", "columns", "which", "email"), rows)
        note.notice(told(lacking, faults, top), trouble=bool(lacking or faults.rows))
        missing, columns = sum(len(one.missing) for one in lacking), sum(one.columns for one in tables)
        unread = f"; {len(faults.rows):,} could not be read" if faults.rows else ""
        return f"{missing:,} of {plural(columns, 'column')} in {plural(len(lacking), 'table')} have no description{unread}."


def _of_portal(portal: Ckan, faults: Faults, note: Note) -> Iterator[Dictionary]:
    for package in portal.packages():
        note.walk()
        with faults.of(str(package.get("name", "?"))):
            for resource in filter(portals.in_datastore, package["resources"]):
                place = f"{package['name']}/{resource.get('name') or resource['id']}"
                try:
                    fields = portal.action("datastore_search", resource_id=resource["id"], limit=0)["fields"]
                except PipelineError as error:
                    # one broken table must not hide the others of its package
                    faults.rows.append((place, error.message))
                    faults.strike(error)
                    continue
                faults.well()
                yield _dictionary(package, resource, [one for one in fields if one["id"] not in OWN_FIELDS])


def _dictionary(package: Mapping[str, Any], resource: Mapping[str, Any], fields: list[Mapping[str, Any]]) -> Dictionary:
    missing = tuple(one["id"] for one in fields if not str((one.get("info") or {}).get("notes") or "").strip())
    return Dictionary(package["name"], resource.get("name") or "", len(fields), missing, package.get("owner_email") or "")


def _of_ours() -> Iterator[Dictionary]:
    """Of our datasets that are kept up, what is published of them."""
    columns = DatasetColumn.objects.filter(is_published=True, dataset__is_retired=False).select_related("dataset")
    for (slug, part), group in groupby(columns.order_by("dataset__slug", "part", "position", "name"), key=lambda one: (one.dataset.slug, one.part)):
        lines = list(group)
        missing = tuple(one.name for one in lines if not one.description.strip())
        yield Dictionary(slug, part, len(lines), missing, lines[0].dataset.steward_email)


def told(lacking: list[Dictionary], faults: Faults, top: int) -> str:
    """The notice, in Slack's words."""
    if not (lacking or faults.rows):
        return "Every column has a description."
    shown = lacking[:top] if top else lacking
    lines = [f"*Columns without a description in {plural(len(lacking), 'table')}*"] if lacking else []
    for number, one in enumerate(shown, start=1):
        place = f"_{one.dataset}_" + (f", {one.table}" if one.table else "")
        lines.append(
            f"{number}. {place}: *{len(one.missing):,} of {one.columns:,}* ({', '.join(one.missing[:8])}{', …' if len(one.missing) > 8 else ''})"
        )
    if len(shown) < len(lacking):
        lines.append(f"… and {plural(len(lacking) - len(shown), 'more table')}, on the page of the job.")
    return "\n".join([*lines, *(["Could not be read:", *faults.lines] if faults.rows else [])])
