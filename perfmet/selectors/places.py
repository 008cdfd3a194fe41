"""Where sensors stand: found in the newest edition of the inventory, and drawn without tiles, above the outlines of a boundary layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog import boundaries, maps
from catalog.models import BoundaryLayer, InventoryEdition
from perfmet.models import SensorWatch
from perfmet.selectors import looks
from pipelines.errors import PipelineError
from pipelines.selectors.faces import Face

if TYPE_CHECKING:
    from perfmet.selectors.sensors import Line

#: The fields of a record that may be a sensor's name, where the watch names none.
NAMES = ("device_name", "atd_device_id", "kits_id", "atd_location_id", "device_ip")
#: A layer of more areas is not drawn beneath sensors: it would hide them.
MOST_AREAS = 300
#: More sensors that are well than this are one path of dots: a link for each would weigh more than the page. The list has them all.
MOST_LINKS = 300


@dataclass(frozen=True)
class Spot:
    """A place in degrees, and what the inventory calls it."""

    lon: float
    lat: float
    name: str


@dataclass(frozen=True)
class Mark:
    """A sensor on the map: where, how, and what the pointer says."""

    x: int
    y: int
    letter: str
    face: Face
    fill: str
    title: str
    href: str


@dataclass(frozen=True)
class Picture:
    """`width` and `height` of the viewBox, the `outline` beneath, `dots` that are well as one path, and the marks, the loudest last."""

    width: int
    height: int
    outline: str
    dots: str
    marks: list[Mark]
    layer: BoundaryLayer | None


class Units:
    """The records of an inventory by the names that a sensor may have."""

    def __init__(self, units: Iterable[Mapping[str, Any]], field: str = ""):
        self._by: dict[str, Mapping[str, Any]] = {}
        fields = (field, *NAMES) if field else NAMES
        known = [unit for unit in units if isinstance(unit, Mapping)]
        # the field that the watch names wins over all others
        for name in fields:
            for unit in known:
                text = str(unit.get(name) if unit.get(name) is not None else "").strip()
                if text:
                    self._by.setdefault(text.casefold(), unit)

    def spot(self, *names: str) -> Spot | None:
        """The place of the first of these names that the inventory has, and has a place for."""
        for name in names:
            unit = self._by.get(name.strip().casefold())
            if unit is not None and (place := _place(unit)):
                return place
        return None

    def has(self, *names: str) -> bool:
        return any(name.strip().casefold() in self._by for name in names if name.strip())


def _place(unit: Mapping[str, Any]) -> Spot | None:
    try:
        lon, lat = float(unit.get("lon") or 0), float(unit.get("lat") or 0)
    except (TypeError, ValueError):
        return None
    # 0, 0 is what an empty field becomes; no city lies there
    if not (math.isfinite(lon) and math.isfinite(lat)) or not (lon or lat) or abs(lon) > 180 or abs(lat) > 90:
        return None
    streets = " / ".join(str(unit[name]).strip() for name in ("primary_st", "cross_st") if unit.get(name))
    return Spot(lon, lat, streets)


def newest_units(codes: Iterable[str]) -> dict[str, InventoryEdition]:
    """The newest edition of each of these inventories. One query."""
    editions = InventoryEdition.objects.filter(code__in=set(codes) - {""}).order_by("code", "-dated_at").distinct("code")
    return {edition.code: edition for edition in editions}


def of_sensor(watch: SensorWatch, line: Line) -> tuple[Spot | None, Picture | None, str]:
    """Where one sensor stands, on a map with the others of its inventory as dots; or words that say why there is none. Three queries."""
    code = watch.pipeline.inventory
    if not code:
        return None, None, "Its pipeline names no inventory, so its place is not known."
    edition = newest_units([code]).get(code)
    if edition is None:
        return None, None, f"The inventory {code} has no edition yet."
    units = Units(edition.units, watch.unit_field)
    spot = units.spot(line.sensor, line.unit)
    if spot is None:
        what = "has it without a place" if units.has(line.sensor, line.unit) else "does not have it"
        return None, None, f"The inventory {code} of {edition.dated_at:%Y-%m-%d} {what}."
    others = [
        place for unit in edition.units if isinstance(unit, Mapping) and (place := _place(unit)) and (place.lon, place.lat) != (spot.lon, spot.lat)
    ]
    return spot, drawn([(spot, line)], dots=others), ""


def drawn(placed: Sequence[tuple[Spot, Line]], layer_slug: str = "", dots: Sequence[Spot] = ()) -> Picture | None:
    """The map of these sensors; None without any. `dots` are other places, drawn quietly. One query, one more for a layer not read yet."""
    if not placed:
        return None
    points = [("", "", spot.lon, spot.lat) for spot, _ in placed] + [("", "", spot.lon, spot.lat) for spot in dots]
    layer, areas = _beneath(points, layer_slug)
    picture = maps.draw_spots(points, areas)
    quiet = len(placed) > MOST_LINKS
    marks, path = [], [f"M{spot.x} {spot.y}h0" for spot in picture.spots[len(placed) :]]
    for (_, line), at in zip(placed, picture.spots[: len(placed)], strict=True):
        letter = looks.letter_of(line.health)
        if quiet and not letter:
            path.append(f"M{at.x} {at.y}h0")
            continue
        title = f"{line.name}: {line.face.word.lower()}{f'. {line.reason}' if line.reason else ''}"
        marks.append(Mark(at.x, at.y, letter, line.face, line.fill, title, line.href))
    # the quiet ones first: what is drawn last lies on top
    marks.sort(key=lambda mark: bool(mark.letter))
    return Picture(picture.width, picture.height, picture.outline, "".join(path), marks, layer)


def layers() -> list[BoundaryLayer]:
    """Layers that can lie beneath sensors, those of few and large areas first. One query."""
    return list(BoundaryLayer.objects.defer("content").filter(areas__gt=0, areas__lte=MOST_AREAS).order_by("areas", "title"))


def _beneath(points: Sequence[tuple[str, str, float, float]], slug: str) -> tuple[BoundaryLayer | None, boundaries.Areas | None]:
    """The layer asked for, else the first one in which a sensor lies; none for "none", or where it can't be read."""
    if slug == "none":
        return None, None
    found = [layer for layer in layers() if layer.slug == slug or (not slug and _holds(layer, points))]
    for layer in found[:1]:
        try:
            return layer, boundaries.load(layer)
        except PipelineError:
            # its own page says what is wrong with it; sensors can be drawn without
            return layer, None
    return None, None


def _holds(layer: BoundaryLayer, points: Sequence[tuple[str, str, float, float]]) -> bool:
    if len(layer.extent) != 4:
        return False
    west, south, east, north = layer.extent
    return any(west <= lon <= east and south <= lat <= north for _, _, lon, lat in points)
