"""GeoJSON of areas, such as council districts: a boundary layer under a slug of the file's name, with the property that names an area as
its key. Austin's own files become the layers `council-districts`, `census-tracts` and `trip-cells`, in which its trips are looked up.
"""

from __future__ import annotations

import re

from catalog import boundaries
from pipelines.errors import DataError
from pipelines.formats.atd_trips import AREAS
from pipelines.importers.plan import BOUNDARY, Plan, Problem, Wanted
from pipelines.importers.portals import as_slug, as_title

NAME = "GeoJSON of areas"
_TYPE = re.compile(r'"type"\s*:\s*"FeatureCollection"')
#: Austin's grid has the plainest of keys, so it is known by its name.
_GRID = re.compile(r"^hex", re.IGNORECASE)


def recognises(path: str, text: str) -> bool:
    """Whether it is a FeatureCollection."""
    return text.lstrip().startswith("{") and bool(_TYPE.search(text))


def read(path: str, text: str) -> Plan:
    """The layer that the file makes. All that is wrong with it is in `problems`; nothing is raised."""
    try:
        key = boundaries.likely_key(boundaries.properties_of(text.encode()))
    except DataError as error:
        return _refused(path, error.message, error.next_step)
    name = path.rpartition("/")[2]
    slug = slug_of(name, key)
    if not key or not slug:
        what = "No property of its features names each of them." if not key else "Its name gives no name for a layer."
        return _refused(path, what, "Upload it under Boundaries, where the key is chosen.")
    first = {"title": as_title(slug), "key_property": key}
    return Plan((Wanted(BOUNDARY, slug, {"file": name}, path, 1, {"file": 1}, first=first),))


def slug_of(name: str, key: str) -> str:
    """The layer that a file of that name and key makes: one of Austin's, else one of the file's own name."""
    known = {key_property: slug for _, key_property, slug in AREAS}
    if key in known and (key != "id" or _GRID.search(name)):
        return known[key]
    return as_slug(re.sub(r"\.(geo)?json$", "", name, flags=re.IGNORECASE))


def _refused(path: str, message: str, next_step: str) -> Plan:
    return Plan(problems=(Problem(path, 0, "", message, next_step),))
