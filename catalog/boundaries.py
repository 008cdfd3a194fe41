"""Boundary layers: the areas of the city that a steward uploads as GeoJSON, and the area in which a point lies.

`store` judges an upload and keeps it, `load` gives a layer's areas, and `Areas.locate` finds the area of each of many points:
a point on a border is inside, and where areas meet or overlap the one with the lowest key has it, on every machine and every time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from threading import Lock
from typing import Any

import numpy as np
import shapely
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction
from django.db.models.functions import Now

from catalog import audit
from catalog.audit import Actor
from catalog.models import BoundaryLayer
from pipelines.errors import DataError

#: A layer of 5,000 areas has 3 MB; one of more is drawn finer than any point is measured.
MOST_BYTES = 20_000_000
LONGEST_KEY = 200
#: So many wrong features are named, and the rest counted.
NAMED = 5
#: Layers whose areas a process keeps in memory: a block needs three, and the processes that work them off are many.
KEPT = 8
#: Points that are looked up at once: the pairs to be tested stay in the processor's cache, and memory is flat.
PIECE = 50_000
MOST_STRIPS = 512
#: What a GeoJSON of old may say of its coordinates, where it means longitude and latitude (NAD83 is within two metres of it).
DEGREES = re.compile(r"(CRS84|CRS83|WGS ?84|[:/]4326|[:/]4269)$", re.IGNORECASE)
SIMPLIFY = "Draw it simpler (for example: mapshaper areas.json -simplify 20% keep-shapes -o format=geojson) and upload it again."
REPROJECT = "Export it as longitude and latitude, WGS 84 (EPSG:4326), and upload it again."
#: Properties that programs add: they are unique, and mean nothing to a person.
NO_NAMES = re.compile(r"^(_|shape|st_|objectid|fid|ogc|gid$|globalid)", re.IGNORECASE)
NAMES = tuple(re.compile(words, re.IGNORECASE) for words in (r"geoid", r"(_n|_no|_num|number)$", r"(^|_)(key|code)$", r"id$", r"name"))


# keys


def key_order(key: str) -> tuple:
    """What keys are sorted by: numbers as numbers and before words ("9" before "10"), the numbers inside words too ("D9" before "D10")."""
    if re.fullmatch(r"-?\d+(\.\d+)?", key):
        return 0, Decimal(key), (), key
    parts = re.split(r"(\d+)", key)
    return 1, 0, tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part), key


def _key(value: Any) -> str | None:
    """A property's value as a key, or None for what can't name an area."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    # some programs write every number with a point: 9.0 is area 9
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text if text and len(text) <= LONGEST_KEY and text.isprintable() else None


# reading a file


@dataclass(frozen=True)
class Property:
    """A property of the features of a file. `is_key`: every feature has it, and no two have the same value."""

    name: str
    filled: int
    distinct: int
    example: str
    is_key: bool


def properties_of(geojson: bytes) -> list[Property]:
    """What the features of a file say of themselves, those that can be its key first. Raises DataError for what is no FeatureCollection."""
    features = _features(geojson)
    values: dict[str, list[Any]] = {}
    for feature in features:
        for name, value in _properties(feature).items():
            if value is not None and value != "":
                values.setdefault(name, []).append(value)
    found = []
    for name, given in values.items():
        keys = {key for value in given if (key := _key(value)) is not None}
        found.append(Property(name, len(given), len(set(map(str, given))), str(given[0])[:60], len(keys) == len(features)))
    return sorted(found, key=lambda one: not one.is_key)


def likely_key(found: Sequence[Property]) -> str:
    """The property that most likely names an area to people; "" where none can."""
    keys = [one.name for one in found if one.is_key]
    good = [one.name for one in found if one.is_key and not NO_NAMES.search(one.name) and not re.fullmatch(r"-?\d*\.\d+", one.example)]
    for pattern in NAMES:
        if named := [name for name in good if pattern.search(name)]:
            return named[0]
    return next(iter(good or keys), "")


def _features(geojson: bytes) -> list[dict]:
    if len(geojson) > MOST_BYTES:
        raise DataError(
            f"The file has {len(geojson) / 1e6:.1f} MB; a boundary layer may have {MOST_BYTES / 1e6:.0f} MB.",
            code="boundary-size",
            next_step=SIMPLIFY,
        )
    try:
        told = json.loads(geojson.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"The file is no GeoJSON: byte {error.start:,} is not UTF-8.", code="boundary-json", next_step=_EXPORT) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"The file is no JSON: {error.msg} in line {error.lineno:,}, column {error.colno:,}.", code="boundary-json", next_step=_EXPORT
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"The file is no GeoJSON: {error}.", code="boundary-json", next_step=_EXPORT) from error
    kind = told.get("type") if isinstance(told, dict) else type(told).__name__
    if kind != "FeatureCollection" or not isinstance(told.get("features"), list):
        raise DataError(f"The file is no FeatureCollection with a list of features: its type is {kind!r}.", code="boundary-kind", next_step=_EXPORT)
    if not told["features"]:
        raise DataError("The file has no features: there is no area in it.", code="boundary-empty", next_step=_EXPORT)
    system = told.get("crs")
    named = system.get("properties") if isinstance(system, dict) else None
    name = named.get("name", "") if isinstance(named, dict) else ""
    if system is not None and not DEGREES.search(str(name)):
        raise DataError(f"The file says that its coordinates are {name or system}, not degrees.", code="boundary-projected", next_step=REPROJECT)
    return told["features"]


_EXPORT = "Export the areas as GeoJSON, and upload that file."


def _properties(feature: Any) -> dict:
    told = feature.get("properties") if isinstance(feature, dict) else None
    return told if isinstance(told, dict) else {}


class _Odd(ValueError):
    """What is wrong with one feature, in words."""


def _shape(geometry: Any) -> tuple[shapely.Geometry, str]:
    """A geometry, and what had to be repaired of it ("" for nothing). Raises _Odd."""
    if not isinstance(geometry, dict):
        raise _Odd("has no geometry")
    kind, told = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise _Odd(f"is a {kind}, and an area is a Polygon or a MultiPolygon: leave it out of the file")
    polygons = [told] if kind == "Polygon" else told
    if not isinstance(polygons, list) or not polygons or not all(isinstance(rings, list) and rings for rings in polygons):
        raise _Odd("has no coordinates")
    parts = []
    for rings in polygons:
        outer, *holes = [shapely.linearrings(_ring(ring)) for ring in rings]
        parts.append(shapely.polygons(outer, holes=holes or None))
    made = parts[0] if kind == "Polygon" else shapely.multipolygons(parts)
    return (made, "") if shapely.is_valid(made) else _repaired(made)


def _all_at_once(geometries: list[Any]) -> np.ndarray | None:
    """The shapes of a file without a fault, at a tenth of the price; None where one of them has to be looked at by itself."""
    points: list = []
    ring_of, polygon_of, shape_of = [], [], []  # of each point, of each ring, of each polygon
    rings = polygons = 0
    try:
        for place, geometry in enumerate(geometries):
            if geometry["type"] not in ("Polygon", "MultiPolygon"):
                return None
            for told in [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]:
                for ring in told:
                    if len(ring) < 3:
                        return None
                    points += ring
                    ring_of += [rings] * len(ring)
                    polygon_of.append(polygons)
                    rings += 1
                shape_of.append(place)
                polygons += 1
        corners = np.array(points)
        if corners.dtype.kind not in "fi" or corners.ndim != 2 or len(set(shape_of)) != len(geometries):
            return None
        if not (np.abs(corners[:, :2]) <= (180, 90)).all():
            return None
        outlines = shapely.linearrings(corners[:, :2].astype(float), indices=ring_of)
        shapes = shapely.multipolygons(shapely.polygons(outlines, indices=polygon_of), indices=shape_of)
    except (KeyError, TypeError, ValueError, shapely.errors.GEOSException):
        return None
    return shapes if len(shapes) == len(geometries) and shapely.is_valid(shapes).all() else None


def _ring(told: Any) -> np.ndarray:
    number = (int, float)
    if not isinstance(told, list) or not all(
        isinstance(point, list) and len(point) >= 2 and type(point[0]) in number and type(point[1]) in number for point in told
    ):
        raise _Odd("has a ring that is no list of [longitude, latitude]")
    try:
        ring = np.array([point[:2] for point in told], dtype=float).reshape(-1, 2)
    except OverflowError:
        raise _Odd("has a coordinate that no number can hold") from None
    if not np.isfinite(ring).all():
        raise _Odd("has a coordinate that is no number")
    outside = (np.abs(ring[:, 0]) > 180) | (np.abs(ring[:, 1]) > 90)
    if outside.any():
        lon, lat = ring[outside.argmax()]
        if (np.abs(ring[:, 0]) <= 90).all() and (np.abs(ring[:, 1]) <= 180).all():
            raise _Odd(f"lies at {lon:g}, {lat:g}: GeoJSON writes the longitude first, and here the latitude seems to be")
        raise _Odd(f"lies at {lon:,.1f}, {lat:,.1f}, which are no degrees: the coordinates are projected")
    if len(np.unique(ring, axis=0)) < 3:
        raise _Odd("has a ring of fewer than three corners")
    return ring


def _repaired(made: shapely.Geometry) -> tuple[shapely.Geometry, str]:
    why = shapely.is_valid_reason(made)
    valid = shapely.make_valid(made, method="structure", keep_collapsed=False)
    polygons = [part for part in shapely.get_parts(valid) if part.geom_type == "Polygon" and not part.is_empty]
    if not polygons or not shapely.area(polygons).sum():
        raise _Odd(f"has an outline that encloses nothing ({why})")
    return (polygons[0] if len(polygons) == 1 else shapely.multipolygons(polygons)), why


def parse(geojson: bytes, key_property: str, label_property: str = "") -> Areas:
    """The areas of a file. Raises DataError in words that name the first features that are wrong, and what to do."""
    wrong: list[str] = []
    codes: list[str] = []
    repaired: list[str] = []
    found: dict[str, tuple[str, shapely.Geometry]] = {}
    places: dict[str, int] = {}
    features = _features(geojson)
    sound = _all_at_once([feature.get("geometry") if isinstance(feature, dict) else None for feature in features])
    for number, feature in enumerate(features, 1):
        told = _properties(feature)
        key, name = _key(told.get(key_property)), f"Feature {number:,}"
        if key is None:
            codes.append("boundary-key")
            wrong.append(f"{name} {_no_key(told, key_property)}")
            continue
        name += f" ({key_property} {key})"
        if key in places:
            codes.append("boundary-twice")
            wrong.append(f"{name} has the key of feature {places[key]:,}: make one MultiPolygon of them, or choose another property")
            continue
        places[key] = number
        try:
            shape, why = _shape(feature.get("geometry")) if sound is None else (sound[number - 1], "")
        except _Odd as error:
            codes.append("boundary-projected" if "projected" in str(error) else "boundary-shape")
            wrong.append(f"{name} {error}")
            continue
        if why:
            repaired.append(f"{name}: {why}")
        label = told.get(label_property) if label_property else None
        found[key] = (str(label).strip() if label not in (None, "") else key), shape
    if wrong:
        raise _refusal(wrong, codes, len(features), key_property, _properties(features[0]))
    keys = sorted(found, key=key_order)
    return Areas(keys, [found[key][0] for key in keys], [found[key][1] for key in keys], tuple(repaired))


def _no_key(told: dict, key_property: str) -> str:
    if key_property not in told:
        return f"has no {key_property}"
    value = told[key_property]
    return f"has an empty {key_property}" if value in (None, "") else f"has {str(value)[:60]!r} as its {key_property}, which can't name an area"


def _refusal(wrong: list[str], codes: list[str], number: int, key_property: str, first: dict) -> DataError:
    more = f" So it is with {len(wrong) - NAMED:,} more." if len(wrong) > NAMED else ""
    next_step = f"Correct {'it' if len(wrong) == 1 else 'them'} and upload the file again."
    if codes[0] == "boundary-key":
        has = ", ".join(list(first)[:40]) or "no properties"
        next_step = f"Choose a property that every feature has; the first one has {has}."
    if codes[0] == "boundary-projected":
        next_step = REPROJECT
    return DataError(
        f"{len(wrong):,} of {number:,} features can't be taken. " + ". ".join(wrong[:NAMED]) + "." + more, code=codes[0], next_step=next_step
    )


# looking up


class Areas:
    """The areas of a layer in the order of their keys, ready for look-ups. One thread at a time may ask an object of this class.

    `keys` and `labels` are texts, `geometries` an array of (Multi)Polygons, `repaired` what was mended of the file, in words.

    The layer is cut into upright strips about as wide as its areas. Points are sorted by strip and latitude, so that all points that
    an area's box may hold in a strip stand side by side, and all such pairs are tested in one call. Measured beside an STRtree and
    beside a sweep polygon by polygon, it is the fastest or near it from 200 points to a million, for 10 areas as for 4,633.
    """

    def __init__(self, keys: Sequence[str], labels: Sequence[str], geometries: Iterable[shapely.Geometry], repaired: tuple[str, ...] = ()):
        self.keys, self.labels, self.repaired = tuple(keys), tuple(labels), repaired
        self.geometries = np.array(list(geometries), dtype=object)
        self.bounds = shapely.bounds(self.geometries)
        self._answers = np.array([*self.keys, None], dtype=object)
        self._cut()

    def __len__(self):
        return len(self.keys)

    @property
    def extent(self) -> list[float]:
        """[west, south, east, north] in degrees."""
        return [*map(float, self.bounds[:, :2].min(axis=0)), *map(float, self.bounds[:, 2:].max(axis=0))]

    def locate(self, lon: Any, lat: Any) -> np.ndarray:
        """The key of the area of each point, None for what lies in no area or is no point (NaN, None, no number, no degrees)."""
        return self._answers[self.index(lon, lat)]

    def index(self, lon: Any, lat: Any) -> np.ndarray:
        """The place of each point's area in `keys`; `len(self)` for none. `lon` and `lat` are degrees, arrays of one length."""
        lon, lat = numbers(lon), numbers(lat)
        found = np.full(len(lon), len(self), dtype=np.intp)
        west, south, east, north = self.extent
        # a comparison with NaN is false
        near = np.flatnonzero((lon >= west) & (lon <= east) & (lat >= south) & (lat <= north))
        for begin in range(0, len(near), PIECE):
            piece = near[begin : begin + PIECE]
            found[piece] = self._found(lon[piece], lat[piece])
        return found

    def _cut(self) -> None:
        """The strips, and for each area the stretch of latitudes that it has in each of its strips."""
        shapely.prepare(self.geometries)
        west, south, east, north = self.extent
        usual = max(float(np.median(self.bounds[:, 2] - self.bounds[:, 0])), 1e-9)
        self._strips = int(np.clip(round((east - west) / usual), 1, MOST_STRIPS))
        self._west, self._south, self._width = west, south, max((east - west) / self._strips, 1e-9)
        # one number says strip and latitude: strips lie further apart than the layer is high
        self._height = (north - south) * 1.01 + 1e-9
        first, last = self._strip(self.bounds[:, 0]), self._strip(self.bounds[:, 2])
        number = last - first + 1
        self._area = np.repeat(np.arange(len(self)), number)
        strip = np.repeat(first, number) + _counted_up(number)
        self._from, self._to = (self._place(strip, self.bounds[self._area, side]) for side in (1, 3))

    # both only ever grow with their argument, so rounding takes no point off a border

    def _strip(self, lon: np.ndarray) -> np.ndarray:
        return np.clip((lon - self._west) / self._width, 0, self._strips - 1).astype(np.intp)

    def _place(self, strip: np.ndarray, lat: np.ndarray) -> np.ndarray:
        return strip * self._height + (lat - self._south)

    def _found(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """As `index`, for points within the extent."""
        place = self._place(self._strip(lon), lat)
        order = np.argsort(place)
        place = place[order]
        begin = np.searchsorted(place, self._from, "left")
        number = np.searchsorted(place, self._to, "right") - begin
        area = np.repeat(self._area, number)
        point = order[np.repeat(begin, number) + _counted_up(number)]
        x = lon[point]
        near = (x >= self.bounds[area, 0]) & (x <= self.bounds[area, 2])
        area, point = area[near], point[near]
        inside = shapely.intersects_xy(self.geometries[area], lon[point], lat[point])
        found = np.full(len(lon), len(self), dtype=np.intp)
        np.minimum.at(found, point[inside], area[inside])
        return found


def _counted_up(numbers: np.ndarray) -> np.ndarray:
    """0, 1, … for each of the numbers: [2, 3] gives [0, 1, 0, 1, 2]."""
    ends = np.cumsum(numbers)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - numbers, numbers)


def numbers(values: Any) -> np.ndarray:
    """`values` as floats; NaN for what is none, such as None, an empty text or a word."""
    try:
        return np.asarray(values, dtype=float)
    except (ValueError, TypeError):
        return np.array([_number(value) for value in values], dtype=float)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError):
        return np.nan


# keeping


def store(slug: str, title: str, key_property: str, geojson: bytes, by: Actor, *, label_property: str = "", reason: str = "") -> BoundaryLayer:
    """Make the layer `slug`, or put this file and these words in the place of its present ones; audited.

    Raises DataError in words that name the feature and what to do; then nothing is changed.
    """
    try:
        validate_slug(slug)
    except ValidationError as error:
        raise DataError(f"{slug!r} can't be part of an address.", code="boundary-slug", next_step="Use letters, digits and hyphens.") from error
    areas = parse(geojson, key_property, label_property)
    with transaction.atomic():
        layer = BoundaryLayer(slug=slug, title=title or slug, key_property=key_property, label_property=label_property)
        return _keep(layer, geojson, areas, by, reason)


def _keep(layer: BoundaryLayer, geojson: bytes, areas: Areas, by: Actor, reason: str = "") -> BoundaryLayer:
    before = BoundaryLayer.objects.select_for_update().defer("content").filter(slug=layer.slug).first()
    layer.pk = before.pk if before else None
    layer.content, layer.sha256 = gzip.compress(geojson, mtime=0), hashlib.sha256(geojson).hexdigest()
    layer.areas, layer.extent = len(areas), areas.extent
    is_new_file = before is None or before.sha256 != layer.sha256
    layer.uploaded_at, layer.uploaded_by = (Now(), by.name[:150]) if is_new_file else (before.uploaded_at, before.uploaded_by)
    layer.save()
    told = ("title", "key_property", "label_property", "sha256", "areas")
    changed = {name: [getattr(before, name) if before else None, getattr(layer, name)] for name in told}
    changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    if changed:
        mended = f" {len(areas.repaired):,} outlines were repaired." if areas.repaired else ""
        verb = "create" if before is None else "replace" if is_new_file else "edit"
        result = f"{len(areas):,} areas by {layer.key_property}.{mended}"
        audit.write(by, verb, kind="boundary", target=layer.slug, reason=reason, result=result, changed=changed, repaired=list(areas.repaired[:50]))
    layer.refresh_from_db(fields=["uploaded_at"])
    return layer


def content_of(layer: BoundaryLayer) -> bytes:
    """The file as it was uploaded. Raises DataError if what is stored is not that file."""
    geojson = gzip.decompress(bytes(layer.content))
    if hashlib.sha256(geojson).hexdigest() != layer.sha256:
        raise DataError(f"The stored file of {layer.title} is not the one that was uploaded.", code="boundary-sha256", next_step="Upload it again.")
    return geojson


_kept: OrderedDict[tuple[str, str, str], Areas] = OrderedDict()
_keeping = Lock()


def load(layer: BoundaryLayer) -> Areas:
    """The areas of a layer; read once a process for each file, key and label that it comes to have. Raises DataError."""
    name = (layer.sha256, layer.key_property, layer.label_property)
    with _keeping:
        if name in _kept:
            _kept.move_to_end(name)
            return _kept[name]
    # `content` may be deferred: it is fetched here, and only now
    areas = parse(content_of(layer), layer.key_property, layer.label_property)
    with _keeping:
        _kept[name] = areas
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return areas


def square_kilometres(areas: Areas) -> Iterator[float]:
    """How large each area is, on the ellipsoid's scale at its middle: within half a per cent for what is as large as a city."""
    middle = np.radians((areas.bounds[:, 1] + areas.bounds[:, 3]) / 2)
    north = 111.13295 - 0.55982 * np.cos(2 * middle)
    east = 111.41288 * np.cos(middle) - 0.0935 * np.cos(3 * middle)
    yield from map(float, shapely.area(areas.geometries) * north * east)
