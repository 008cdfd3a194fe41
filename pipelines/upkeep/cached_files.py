"""Cached files of a CKAN portal's datastore: those that are older than their table are asked for again.

Toronto's portal keeps each table as csv, json, xml files too, which its extension's action `datastore_cache` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.connectors.ckan import Ckan
from pipelines.errors import PipelineError, SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural

CACHED, FAILED, STALE = "successfully cached", "failed", "would be cached"


class CachedFiles(Job):
    """Asked for once a package, however many of its tables are ahead of their files; twice is harmless."""

    kind = "cached-files"
    label = "Cached files of the datastore"
    about = "Has a CKAN portal write the files of each table anew that are older than the table. It takes the action datastore_cache there."
    can_dry = True
    options = (portals.PORTAL, portals.REPEAT)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        faults, stale, looked_at = Faults(), {}, 0
        with portals.asked(job, self.word(job, "portal"), note) as portal:
            for package in portal.packages():
                note.walk()
                with faults.of(str(package.get("name", "?"))):
                    tables = [one for one in package["resources"] if portals.is_true(one.get("datastore_active"))]
                    looked_at += len(tables)
                    if behind := [one for one in tables if is_behind(one)]:
                        stale[package["name"]] = package["id"], [str(one.get("name") or one["id"]) for one in behind]
            rows = []
            for number, (name, (package_id, tables)) in enumerate(stale.items(), start=1):
                outcome, why = (STALE, "") if note.is_dry else _cached(portal, name, package_id, faults)
                rows.append((name, ", ".join(tables), outcome, why))
                note(f"{number:,} of {plural(len(stale), 'package')} asked for.")
        rows += [(name, "", "could not be read", why) for name, why in faults.rows]
        note.findings(("package", "tables", "outcome", "why"), rows)
        bad = [row for row in rows if not _is_well(row)]
        note.notice("\n".join(map(_line, rows)) or "All files of the datastore are as new as their tables.", trouble=bool(bad))
        words = f"{plural(looked_at, 'table')} looked at: the files of {plural(len(stale), 'package')} were behind"
        return f"{words}{', and are left so' if note.is_dry and stale else ''}{f'; {len(bad):,} failed' if bad else ''}."


def _is_well(row: tuple[str, str, str, str]) -> bool:
    return row[2] in (CACHED, STALE)


def _line(row: tuple[str, str, str, str]) -> str:
    """A line of the notice: what went wrong has a mark."""
    name, _, outcome, why = row
    return f"*{name}*: {'' if _is_well(row) else ':exclamation: '}{outcome}{f' ({why})' if why else ''}"


def is_behind(resource: Mapping[str, Any]) -> bool:
    """Whether the files of a table were never written, or before it last changed; to the second. Raises ValueError."""
    cached, changed = portals.moment(resource.get("datastore_cache_last_update")), portals.changed_at(resource)
    return cached is None or (changed is not None and cached.replace(microsecond=0) < changed)


def _cached(portal: Ckan, name: str, package_id: str, faults: Faults) -> tuple[str, str]:
    """(what became of it, why). Raises SetupError where the portal has no such action."""
    try:
        portal.action("datastore_cache", package_id=package_id)
    except PipelineError as error:
        if error.code == "http-400":  # what CKAN says to an action that it does not know; to one that it refuses it says 403 or 409
            raise SetupError(
                f"{portal.host} keeps no files of its tables: it has no action datastore_cache, which Toronto's extension of CKAN adds.",
                code="no-action",
                next_step="Switch this job off, or ask who runs the portal for the extension.",
            ) from error
        faults.strike(error)
        return FAILED, error.message
    faults.well()
    return CACHED, ""
