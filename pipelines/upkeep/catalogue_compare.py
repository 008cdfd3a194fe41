"""Two CKAN catalogues compared: the same packages, the same fields, the same resources with the same values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.connectors.base import Parameter
from pipelines.errors import SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural

FIELDS = ("name", "datastore_active", "format", "last_modified", "state", "id")
IN_SYNC, OUT_OF_SYNC = ":+1: In Sync", ":exclamation: Out of Sync"
#: More lines in a notice nobody reads: the page has all of them.
MOST_LINES = 20


@dataclass(frozen=True)
class Resource:
    """What is compared of a resource, by field; it is matched by its id, or else by its name."""

    id: str
    name: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Digest:
    """What is compared of a package: the names of its fields, and its resources."""

    keys: frozenset[str]
    resources: tuple[Resource, ...]


@dataclass(frozen=True)
class Difference:
    """One thing that differs; `here` and `there` are what each side says, "" for nothing."""

    package: str
    resource: str
    what: str
    here: str = ""
    there: str = ""


class CatalogueCompare(Job):
    """It changes nothing on either side."""

    kind = "catalogue-compare"
    label = "Compare two catalogues"
    about = "Compares two CKAN portals, package by package and resource by resource, and tells what differs."
    can_dry = True
    options = (
        Parameter("portal", "CKAN portal", required=True, help="The slug of a provider."),
        Parameter("other", "The other CKAN portal", required=True, help="The slug of a provider."),
        Parameter(
            "fields", "Fields of a resource", default=", ".join(FIELDS), help="Portals with databases of their own have other ids: leave id out."
        ),
        portals.REPEAT,
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        slugs, fields, faults = [self.word(job, "portal"), self.word(job, "other")], self.words(job, "fields"), Faults()
        if not all(slugs) or slugs[0] == slugs[1]:
            raise SetupError(
                f"{job}: it takes two portals to compare.", code="bad-option", next_step="Name two CKAN providers as its options portal and other."
            )
        sides = []
        for slug in slugs:
            note(f"Reading {slug}.")
            with portals.asked(job, slug, note) as portal:
                side: dict[str, Digest] = {}
                for package in portal.packages():
                    note.walk()
                    with faults.of(f"{slug}: {package.get('name', '?')}"):
                        side[package["name"]] = digest(package, fields)
                sides.append(side)
        found = list(differences(*sides))
        rows = [(one.package, one.resource, one.what, one.here, one.there) for one in found]
        note.findings(("package", "resource", "what differs", *slugs), [*rows, *((name, "", why, "", "") for name, why in faults.rows)])
        bad = bool(found or faults.rows)
        note.notice(told(slugs, sides, found, faults), trouble=bad)
        unread = f"; {plural(len(faults.rows), 'package')} could not be read" if faults.rows else ""
        return f"{plural(len(found), 'difference')} between {len(sides[0]):,} packages of {slugs[0]} and {len(sides[1]):,} of {slugs[1]}{unread}."


def digest(package: Mapping[str, Any], fields: list[str]) -> Digest:
    """What is compared of a package as CKAN gives it, and by what its resources are matched. Raises KeyError, ValueError."""
    resources = [
        Resource(str(one["id"]), str(one.get("name") or ""), {name: _value(name, one.get(name)) for name in fields}) for one in package["resources"]
    ]
    return Digest(frozenset(package), tuple(resources))


def _value(name: str, value: Any) -> str:
    """A value as text, however the portal writes it: true is "true", a moment is to the second."""
    if name == "datastore_active":
        return "true" if portals.is_true(value) else "false"
    if name in ("last_modified", "created"):
        found = portals.moment(value)
        return f"{found:%Y-%m-%dT%H:%M:%S}" if found else ""
    return "" if value is None else str(value)


def differences(here: Mapping[str, Digest], there: Mapping[str, Digest]) -> Iterator[Difference]:
    """Yield what differs, package by package in the order of their names."""
    for name in sorted({*here, *there}):
        one, other = here.get(name), there.get(name)
        if one is None or other is None:
            yield Difference(name, "", "package", *_presence(one, other))
            continue
        if one.keys != other.keys:
            yield Difference(name, "", "fields", ", ".join(sorted(one.keys - other.keys)), ", ".join(sorted(other.keys - one.keys)))
        if len(one.resources) != len(other.resources):
            yield Difference(name, "", "number of resources", str(len(one.resources)), str(len(other.resources)))
        yield from _of_resources(name, one, other)


def _of_resources(package: str, one: Digest, other: Digest) -> Iterator[Difference]:
    alone, left = list(one.resources), list(other.resources)
    # first by their ids, then those that are left by their names
    for told_by in ("id", "name"):
        for resource in list(alone):
            twin = next((each for each in left if getattr(each, told_by) == getattr(resource, told_by)), None)
            if twin is not None:
                alone.remove(resource)
                left.remove(twin)
                for name, value in resource.values.items():
                    if value != twin.values[name]:
                        yield Difference(package, resource.name, name, value, twin.values[name])
    for resource in alone:
        yield Difference(package, resource.name, "resource", *_presence(resource, None))
    for resource in left:
        yield Difference(package, resource.name, "resource", *_presence(None, resource))


def _presence(one: Any, other: Any) -> tuple[str, str]:
    return "missing" if one is None else "is there", "missing" if other is None else "is there"


def told(slugs: list[str], sides: list[dict[str, Digest]], found: list[Difference], faults: Faults) -> str:
    """The notice, in Slack's words."""
    if not (found or faults.rows):
        return f"{IN_SYNC}: {plural(len(sides[0]), 'package')} of {slugs[0]} and {slugs[1]} are the same."
    lines = [f"{OUT_OF_SYNC}: {slugs[0]} has {plural(len(sides[0]), 'package')}, {slugs[1]} has {plural(len(sides[1]), 'package')}."]
    for one in found[:MOST_LINES]:
        where = f"_{one.package}_" + (f", {one.resource}" if one.resource else "")
        lines.append(f"{where}: {one.what}: `{one.here or '–'}` against `{one.there or '–'}`")
    if len(found) > MOST_LINES:
        lines.append(f"… and {plural(len(found) - MOST_LINES, 'more difference')}, on the page of the job.")
    return "\n".join([*lines, *(["Could not be read:", *faults.lines] if faults.rows else [])])
