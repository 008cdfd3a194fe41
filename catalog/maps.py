"""Maps as inline SVG: a boundary layer as its outlines, simplified together and laid flat; points, and the outlines beneath them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely

from catalog.boundaries import Areas

#: The long side of a picture in tenths of a pixel: whole numbers are short to write.
LONG_SIDE = 7200
#: What is finer than this many tenths is not drawn.
FINEST = 8
#: More areas than this are one outline for all: a title for each would weigh more than the page.
MOST_TITLES = 1500
#: The shorter side of a map of points is at least this part of the longer.
LEAST_SIDE = 0.4


@dataclass(frozen=True)
class Drawn:
    """One area: its key, what people call it, and its outline as the `d` of a path."""

    key: str
    label: str
    path: str


@dataclass(frozen=True)
class Map:
    """`width` and `height` of the viewBox; `shapes` one a layer's area in the order of keys, `is_many` when they are better drawn as `outline`."""

    width: int
    height: int
    shapes: tuple[Drawn, ...]

    @property
    def is_many(self) -> bool:
        return len(self.shapes) > MOST_TITLES

    @property
    def outline(self) -> str:
        return "".join(shape.path for shape in self.shapes)


@lru_cache(maxsize=4)
def draw(areas: Areas) -> Map:
    """The picture of a layer, north up; a degree of longitude is as wide as it is at the middle of the layer."""
    west, south, east, north = areas.extent
    narrow = np.cos(np.radians((south + north) / 2))
    wide, high = max((east - west) * narrow, 1e-9), max(north - south, 1e-9)
    scale = LONG_SIDE / max(wide, high)
    flat = shapely.transform(areas.geometries, lambda points: (points - (west, north)) * (narrow * scale, -scale))
    shapes = tuple(Drawn(key, label, _path(shape)) for key, label, shape in zip(areas.keys, areas.labels, _simpler(flat), strict=True))
    return Map(round(wide * scale), round(high * scale), shapes)


def _simpler(shapes: np.ndarray) -> np.ndarray:
    try:
        # neighbours stay neighbours: a border that two areas share is simplified once
        return shapely.coverage_simplify(shapes, FINEST)
    except shapely.errors.GEOSException:
        return shapely.simplify(shapes, FINEST / 2)


def _path(shape: shapely.Geometry) -> str:
    rings = [ring for polygon in shapely.get_parts(shape) for ring in shapely.get_rings(polygon)]
    return "".join(filter(None, map(_ring, rings)))


def _ring(ring: shapely.Geometry) -> str:
    points = np.rint(shapely.get_coordinates(ring)).astype(int)
    steps = np.diff(points, axis=0)
    # the last step is the one back to the beginning, which z draws
    moves = [f"{x} {y}" for x, y in steps[:-1] if x or y]
    # what is smaller than a tenth of a pixel is a dot, or an area would be missing from its map
    return f"M{points[0][0]} {points[0][1]}" + (f"l{' '.join(moves)}" if moves else "h1v1") + "z"


def place(areas: Areas, drawn: Map, lon: float, lat: float) -> tuple[int, int] | None:
    """Where a point lies in the picture; None outside of it."""
    west, south, east, north = areas.extent
    if not (west <= lon <= east and south <= lat <= north):
        return None
    return round((lon - west) / max(east - west, 1e-9) * drawn.width), round((north - lat) / max(north - south, 1e-9) * drawn.height)


# points


@dataclass(frozen=True)
class Spot:
    """A point in the picture: its key, what people call it, and where it is."""

    key: str
    label: str
    x: int
    y: int


@dataclass(frozen=True)
class SpotMap:
    """`width` and `height` of the viewBox; `spots` in the order given; `outline` the `d` of the areas beneath them, "" for none."""

    width: int
    height: int
    spots: tuple[Spot, ...]
    outline: str = ""


def draw_spots(points: Sequence[tuple[str, str, float, float]], under: Areas | None = None) -> SpotMap | None:
    """The picture of points (key, label, longitude, latitude), north up, with a margin; None without points. The page cuts off
    what of `under` lies outside."""
    if not points:
        return None
    places = np.array([(lon, lat) for _, _, lon, lat in points], dtype=float)
    (west, south), (east, north) = places.min(axis=0), places.max(axis=0)
    narrow = max(np.cos(np.radians((south + north) / 2)), 1e-6)
    # a single point is a map of two kilometres, and no map is a strip
    size = max((east - west) * narrow, north - south, 0.018) * 1.1
    wide, high = (max(side * 1.1, size * LEAST_SIDE) for side in ((east - west) * narrow, north - south))
    corner = (west + east) / 2 - wide / narrow / 2, (south + north) / 2 + high / 2
    scale = LONG_SIDE / max(wide, high)
    flat = (places - corner) * (narrow * scale, -scale)
    spots = tuple(Spot(key, label, round(x), round(y)) for (key, label, _, _), (x, y) in zip(points, flat, strict=True))
    outline = ""
    if under is not None:
        beneath = shapely.transform(under.geometries, lambda corners: (corners - corner) * (narrow * scale, -scale))
        outline = "".join(map(_path, _simpler(beneath)))
    return SpotMap(round(wide * scale), round(high * scale), spots, outline)
