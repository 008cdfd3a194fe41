"""Empty tables on a CKAN portal: resources of its datastore without a row, and those that can't be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import PipelineError, SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.notices import FENCE
from pipelines.upkeep.portals import Faults, plural

EMPTY, BROKEN = "empty", "broken"


@dataclass(frozen=True)
class Found:
    """A table that people find nothing in: `rows` is 0, or None where it could not be counted, for the reason `why`."""

    package: str
    title: str
    resource: str
    id: str
    extract_job: str
    rows: int | None = 0
    why: str = ""

    @property
    def finding(self) -> str:
        return BROKEN if self.rows is None else EMPTY

    @property
    def place(self) -> tuple[str, str, str]:
        return self.title.casefold(), self.title, self.resource


#: What a line of the notice may show.
CELLS = {
    "package": lambda one: one.title,
    "resource": lambda one: one.resource,
    "extract_job": lambda one: one.extract_job,
    "rows": lambda one: one.rows,
    "id": lambda one: one.id,
}


class EmptyResources(Job):
    """A table that can't be counted is broken, not empty: each is told as what it is."""

    kind = "empty-resources"
    label = "Empty datastore resources"
    about = "Counts every table of a CKAN portal's datastore, and warns of those that are empty or can't be counted."
    can_dry = True
    options = (
        portals.PORTAL,
        Parameter("columns", "Columns of the notice", default="package, resource, extract_job", help=f"Of: {', '.join(CELLS)}."),
        portals.REPEAT,
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        columns = self.words(job, "columns")
        if strangers := [name for name in columns if name not in CELLS]:
            raise SetupError(
                f"{job}: the notice has no column {', '.join(strangers)}.", code="bad-option", next_step=f"Choose of {', '.join(CELLS)}."
            )
        faults, found, counted = Faults(), [], 0
        with portals.asked(job, self.word(job, "portal"), note) as portal:
            for package in portal.packages():
                with faults.of(str(package.get("name", "?"))):
                    for resource in filter(portals.in_datastore, package["resources"]):
                        counted += 1
                        found += _looked_at(portal, package, resource, faults)
                note.walk(f"{plural(counted, 'table')} counted so far.")
        found.sort(key=lambda one: one.place)
        rows = [(one.package, one.title, one.resource, one.id, one.extract_job, one.finding, one.rows, one.why) for one in found]
        rows += [(package, "", "", "", "", "not looked at", None, why) for package, why in faults.rows]
        note.findings(("package", "title", "resource", "id", "extract job", "finding", "rows", "why"), rows)
        empty = [one for one in found if one.finding == EMPTY]
        broken = [one for one in found if one.finding == BROKEN]
        note.notice(told(empty, broken, faults, columns), trouble=bool(empty or broken or faults.rows))
        words = [f"{plural(counted, 'table')} counted: {len(empty):,} empty, {len(broken):,} could not be counted."]
        if faults.rows:
            words.append(f"{plural(len(faults.rows), 'package')} could not be looked at.")
        return " ".join(words)


def _looked_at(portal: Ckan, package: Mapping[str, Any], resource: Mapping[str, Any], faults: Faults) -> Iterator[Found]:
    """The table, if there is nothing in it or it can't be counted."""
    who = {
        "package": package["name"],
        "title": package.get("title") or package["name"],
        "resource": resource.get("name") or "",
        "id": resource["id"],
        "extract_job": resource.get("extract_job") or "",
    }
    try:
        total = portal.action("datastore_search", resource_id=resource["id"], limit=0)["total"]
    except PipelineError as error:
        faults.strike(error)
        yield Found(**who, rows=None, why=error.message)
        return
    faults.well()
    if not total:
        yield Found(**who)


def told(empty: list[Found], broken: list[Found], faults: Faults, columns: list[str]) -> str:
    """The notice, in Slack's words."""
    parts = []
    if empty:
        shown = portals.table({name.upper(): [CELLS[name](one) for one in empty] for name in columns})
        parts.append(f"EMPTIES FOUND:\n{FENCE}\n{shown}\n{FENCE}")
    if broken:
        shown = portals.table(
            {"PACKAGE": [one.title for one in broken], "RESOURCE": [one.resource for one in broken], "WHY": [one.why for one in broken]}
        )
        parts.append(f"COULD NOT BE COUNTED:\n{FENCE}\n{shown}\n{FENCE}")
    if faults.rows:
        parts.append("\n".join(["COULD NOT BE LOOKED AT:", *faults.lines]))
    return "\n".join(parts) or "No empties"
