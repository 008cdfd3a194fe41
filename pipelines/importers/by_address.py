"""A dataset from an address: what lies there, and the provider, dataset and pipeline that a steward makes of it in the browser.

The look fetches one file, or one page of a layer, and changes nothing. What is then wanted is a Plan like that of any file, so it
is compared, checked, audited and made, or refused field by field, by the same code as an import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from pipelines import clock
from pipelines.connectors.base import FetchRequest, SourceState
from pipelines.errors import SetupError
from pipelines.formats import attributes, detect
from pipelines.formats.detect import Detected
from pipelines.importers import plain
from pipelines.importers.plan import DATASET, PIPELINE, PROVIDER, Plan, Wanted
from pipelines.importers.portals import as_slug
from pipelines.models import LoadMode, Pipeline, PortalMode, Provider, Stage
from pipelines.stages import outside

FORM = "this form"
#: The last part of a layer's address.
_LAYER = re.compile(r"/(?:FeatureServer|MapServer)/\d+/?(?:query)?/?$", re.IGNORECASE)
FORMATS = ("csv", "xlsx", "json", "geojson")
#: Of a layer so many features tell what its columns are.
FEATURES = 200
OPTIONS = ("sheet", "jsonpath", "encoding", "delimiter", "where")


@dataclass(frozen=True)
class Place:
    """Where an address leads: the kind of provider, the address of that, and what to ask of it."""

    kind: str
    base_url: str
    resource: str

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    def provider(self) -> Provider:
        """The provider that is here already, or one that is not stored yet."""
        known = Provider.objects.filter(kind=self.kind, base_url__in=[self.base_url, f"{self.base_url}/"]).order_by("-is_active", "pk").first()
        return known or Provider(slug=self.slug, title=self.host, kind=self.kind, base_url=self.base_url)

    @property
    def slug(self) -> str:
        wish = as_slug(self.host) + ("-arcgis" if self.kind == "arcgis" else "")
        return plain.short(
            wish, 80, of=self.base_url, is_cut=Provider.objects.filter(slug=wish).exclude(kind=self.kind, base_url=self.base_url).exists()
        )


@dataclass(frozen=True)
class Look:
    """What lies at an address: its format, its columns as they were recognised, some rows, and what the source says of itself."""

    place: Place
    detected: Detected
    state: SourceState
    bytes: int

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for and what was found out, for the form to send back."""
        return {name: value for name, value in self.detected.options.items() if name in OPTIONS}

    @property
    def title(self) -> str:
        """A title to begin with: the source's own, else of the file's name."""
        name = self.place.resource.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(".")[0]
        told = self.state.title if self.place.kind == "arcgis" else ""
        return told or re.sub(r"[-_.\s]+", " ", name).strip().capitalize() or self.place.host


def place_of(address: str) -> Place:
    """Where the address leads. Raises SetupError for what is none."""
    try:
        parts = urlsplit(address.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise SetupError(
            "This is no address of the web.", code="bad-address", next_step="Paste it whole, like https://opendata.example.gov/file.csv."
        )
    if parts.username or parts.password:
        raise SetupError(
            "The address holds a name or a password, which everybody could read.",
            code="password-in-address",
            next_step="Paste it without them; a provider in the admin keeps them encrypted.",
        )
    base_url = f"{parts.scheme}://{parts.netloc.lower()}"
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    if _LAYER.search(parts.path):
        return Place("arcgis", base_url, re.sub(r"/query/?$", "", parts.path, flags=re.IGNORECASE).rstrip("/"))
    return Place("web_file", base_url, path)


def format_of(place: Place, told: str = "") -> str:
    """The format to read the place in, as far as that is known before it was looked at; "" for what the file itself must tell."""
    return "geojson" if place.kind == "arcgis" else told if told in FORMATS else ""


def look(address: str, *, format: str = "", options: Mapping[str, Any] | None = None) -> Look:
    """Fetch what lies at the address and say what it is. Nothing is stored. Raises PipelineError."""
    place = place_of(address)
    told = {name: value for name, value in (options or {}).items() if value and name in OPTIONS}
    how = format_of(place, format)
    source = outside.connector(place.provider())
    with source.door, outside.scratch() as folder:
        state = source.describe(place.resource)
        wish = {**told, **({"published_format": how} if how else {})}
        request = FetchRequest(columns=(), page_size=FEATURES, in_flight=1, options=wish)
        rows = source.count(place.resource, request) if source.can_count else None
        fetching = source.fetch(place.resource, request, rows=rows, workdir=folder, progress=lambda done, total: None)
        try:
            found = next(islice(fetching, 1), None)
            if found is None:
                raise SetupError(f"{place.host} gives nothing at {place.resource}.", code="nothing-there", next_step="Check the address.")
            fields = [{"name": name, "type": kind} for name, kind in state.metadata.get("fields", [])]
            detected = detect.detect(found.path, how, zone=clock.zone(settings.TIME_ZONE), fields=fields, **told)
            return Look(place, detected, state, found.bytes)
        finally:
            fetching.close()


@dataclass(frozen=True)
class Line:
    """A column as the steward has it: what the source calls it, its name here, its type and date format, and its words."""

    source: str
    name: str
    type: str
    format: str = ""
    notes: str = ""


def plan(
    address: str,
    *,
    format: str,
    options: Mapping[str, Any],
    lines: Sequence[Line],
    dataset: Mapping[str, Any],
    part: str = "",
    portal: str = "",
    key: Sequence[str] = (),
    schedule: Mapping[str, Any],
) -> Plan:
    """What to make of it. `dataset` has the Dataset's fields with its `slug`; `schedule` cadence, cron, due_time and time_zone of the pipeline.

    A dataset that is there keeps what the form leaves empty, and gets another part. Raises PipelineError for an address that is none.
    """
    place = place_of(address)
    known = place.provider()
    told = [{"source": one.source, "name": one.name, "type": one.type, **({"format": one.format} if one.format else {})} for one in lines]
    wrong = attributes.problems(told)
    if wrong:
        raise SetupError(f"{'. '.join(words[:1].upper() + words[1:] for words in wrong)}.", code="bad-attributes", next_step="Correct these columns.")
    slug = dataset["slug"]
    columns = {
        one.name: {"type": attributes.TYPES[one.type], "portal_type": one.type, "description": one.notes, "is_published": True} for one in lines
    }
    wanted = []
    if known.pk is None:
        wanted.append(
            Wanted(PROVIDER, known.slug, {"kind": place.kind, "base_url": place.base_url}, FORM, first={"title": place.host}, is_shared=True)
        )
    fields = {name: value for name, value in dataset.items() if name != "slug" and value not in ("", None, [])}
    wanted.append(Wanted(DATASET, slug, {**fields, **({"parts": {part: columns}} if part else {"columns": columns})}, FORM))
    wish = f"{slug}-{re.sub(r'[^a-z0-9]+', '-', part.lower()).strip('-')}" if part else slug
    pipeline = {
        "title": f"{dataset.get('title') or slug}{f': {part}' if part else ''}"[:200],
        "provider": known.slug,
        "dataset": slug,
        "part": part,
        "resource": place.resource,
        "format": format,
        "stages": [stage.value for stage in (Stage.EXTRACT, Stage.STANDARDIZE, Stage.LOAD, *([Stage.PUBLISH] if portal else []))],
        "key": list(key),
        "load_mode": (LoadMode.UPSERT if key else LoadMode.REPLACE).value,
        "portal_mode": (PortalMode.UPSERT if key else PortalMode.REPLACE).value,
        "options": {"attributes": told, "published_format": format, **{name: value for name, value in options.items() if value}},
        **{name: value for name, value in schedule.items() if value not in ("", None)},
    }
    if portal:
        pipeline |= {"portal": portal, "portal_resource": f"{slug}/{part or dataset.get('title') or slug}"}
    wanted.append(
        Wanted(
            PIPELINE,
            plain.short(wish, Pipeline._meta.get_field("slug").max_length, of=wish),
            pipeline,
            FORM,
            known_by={"dataset__slug": slug, "part": part},
        )
    )
    return Plan(tuple(wanted))
