"""The practice city's areas: council districts, census tracts and a grid of cells, as GeoJSON made by code from one seed.

    districts()   10 districts, property `district_n` ("1" … "10"), one of them in two parts
    tracts()      58 tracts, property `GEOID10` (eleven digits of a state that does not exist)
    cells()       400 six-sided cells of about 800 m, property `id` ("000001" …); like Austin's they cover less than the city

Neighbours share every point of their common line, so a layer has neither gaps nor overlaps, and a district is exactly its
tracts. `outline().holds(lon, lat)` answers whether a point lies in the city.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

Point = tuple[float, float]
Ring = list[Point]

#: Which district each tract belongs to, north at the top ("A" is 10, "." is outside the city). 9 has a part in the east.
MAP = (
    ".112223.",
    "11122233",
    "11444333",
    "55444366",
    "55577666",
    "58877669",
    ".8899AAA",
    "..899AA.",
)
#: The corner and the size of the map's squares, degrees.
WEST, SOUTH, STEP_LON, STEP_LAT = -118.68, 33.72, 0.07, 0.08
#: Where the scooters are: the middle of the grid of cells.
CENTRE: Point = (-118.2785, 34.0555)
CELL_COLUMNS, CELL_ROWS = 20, 20
_SEED = "practice city areas"
#: points on each side of a tract; between two corners the line wanders
_PIECES = 8
_METRES = 111_195.0  # a degree of latitude


def district_of(letter: str) -> str:
    """The district's number, as `district_n` says it."""
    return str(int(letter, 16))


@cache
def _corners() -> dict[tuple[int, int], Point]:
    """The corners of the map's squares, (column, row) from the south-west, each moved a little."""
    chance = random.Random(_SEED)
    return {
        (x, y): (
            round(WEST + (x + chance.uniform(-0.15, 0.15)) * STEP_LON, 6),
            round(SOUTH + (y + chance.uniform(-0.15, 0.15)) * STEP_LAT, 6),
        )
        for y in range(len(MAP) + 1)
        for x in range(len(MAP[0]) + 1)
    }


@cache
def _side(a: tuple[int, int], b: tuple[int, int]) -> tuple[Point, ...]:
    """The points from corner `a` to corner `b`, both included; the same points the other way round from `b` to `a`."""
    if b < a:
        return _side(b, a)[::-1]
    (x0, y0), (x1, y1) = _corners()[a], _corners()[b]
    chance = random.Random(f"{_SEED} {a} {b}")
    points = [(x0, y0)]
    for piece in range(1, _PIECES):
        along, aside = piece / _PIECES, chance.uniform(-0.05, 0.05)
        points.append((round(x0 + (x1 - x0) * along - (y1 - y0) * aside, 6), round(y0 + (y1 - y0) * along + (x1 - x0) * aside, 6)))
    return (*points, (x1, y1))


def _squares() -> list[tuple[int, int, str]]:
    """(column, row from the south, district's letter) of every tract, from the north-west as one reads."""
    height = len(MAP)
    return [(x, height - 1 - line, letter) for line, row in enumerate(MAP) for x, letter in enumerate(row) if letter != "."]


def _ring(x: int, y: int) -> Ring:
    """A tract's outline, anticlockwise, closed."""
    corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)]
    ring: Ring = []
    for a, b in zip(corners, corners[1:], strict=False):
        ring += _side(a, b)[:-1]
    return [*ring, ring[0]]


def _joined(rings: Iterable[Ring]) -> list[Ring]:
    """The outlines of rings that share sides: a side that two rings walk in opposite directions is inside, and goes."""
    onward: dict[Point, Point] = {}
    sides = {(a, b) for ring in rings for a, b in zip(ring, ring[1:], strict=False)}
    for a, b in sorted(sides):
        if (b, a) not in sides:
            onward[a] = b
    outlines = []
    while onward:
        start, point = onward.popitem()
        ring = [start, point]
        while point != start:
            point = onward.pop(point)
            ring.append(point)
        outlines.append(ring)
    return sorted(outlines, key=lambda ring: (-abs(_area(ring)), ring[0]))


def _area(ring: Ring) -> float:
    """Square degrees, positive when anticlockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False)) / 2


def _collection(features: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": features}


def _feature(properties: dict[str, Any], outlines: list[Ring]) -> dict[str, Any]:
    polygons = [[[list(point) for point in ring]] for ring in outlines]
    geometry = {"type": "Polygon", "coordinates": polygons[0]} if len(polygons) == 1 else {"type": "MultiPolygon", "coordinates": polygons}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


@cache
def _tract_numbers() -> dict[tuple[int, int], str]:
    # there is no state 96: nobody can take these for real tracts, and as numbers they keep their eleven digits
    return {(x, y): f"96999{place:04d}00" for place, (x, y, _) in enumerate(_squares(), start=1)}


@cache
def districts() -> dict[str, Any]:
    """The council districts as a FeatureCollection; `district_n` is text, as Austin's is."""
    belongs: dict[str, list[Ring]] = defaultdict(list)
    for x, y, letter in _squares():
        belongs[letter].append(_ring(x, y))
    return _collection(
        [
            _feature({"district_n": district_of(letter), "name": f"District {district_of(letter)}"}, _joined(belongs[letter]))
            for letter in sorted(belongs)
        ]
    )


@cache
def tracts() -> dict[str, Any]:
    """The census tracts as a FeatureCollection."""
    return _collection(
        [
            _feature({"GEOID10": number, "NAME10": f"{number[5:9].lstrip('0')}", "district_n": district_of(letter)}, [_ring(x, y)])
            for (x, y, letter), number in zip(_squares(), _tract_numbers().values(), strict=True)
        ]
    )


@cache
def cells() -> dict[str, Any]:
    """Six-sided cells in a grid about CENTRE, numbered from the south-west, column by column."""
    # a lattice of half edges by half heights: the corners that neighbours share are the same numbers
    edge = 480.0 / (_METRES * math.cos(math.radians(CENTRE[1])))
    half_height = 480.0 * math.sqrt(3) / 2 / _METRES
    west, south = CENTRE[0] - CELL_COLUMNS * 1.5 * edge / 2, CENTRE[1] - CELL_ROWS * half_height

    def at(i: int, j: int) -> Point:
        return round(west + i * edge / 2, 6), round(south + j * half_height, 6)

    features = []
    for column in range(CELL_COLUMNS):
        for row in range(CELL_ROWS):
            i, j = 3 * column, 2 * row + column % 2
            ring = [at(i, j + 1), at(i + 1, j), at(i + 3, j), at(i + 4, j + 1), at(i + 3, j + 2), at(i + 1, j + 2), at(i, j + 1)]
            features.append(_feature({"id": f"{len(features) + 1:06d}"}, [ring]))
    return _collection(features)


#: layer → (title, the property that is its key, the FeatureCollection's maker)
LAYERS = {
    "council-districts": ("Council districts", "district_n", districts),
    "census-tracts": ("Census tracts", "GEOID10", tracts),
    "trip-cells": ("Trip cells", "id", cells),
}


def geojson(layer: str) -> bytes:
    """A layer's file, as a steward would upload it. Raises KeyError."""
    return json.dumps(LAYERS[layer][2](), separators=(",", ":")).encode()


class Outline:
    """Whether a point lies inside of rings: its sides are kept by bands of latitude, so that a question looks at few."""

    _BAND = 0.01

    def __init__(self, rings: Iterable[Ring]):
        self._bands: dict[int, list[tuple[float, float, float, float]]] = defaultdict(list)
        for ring in rings:
            for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False):
                if y0 == y1:
                    continue
                low, high = sorted((y0, y1))
                for band in range(math.floor(low / self._BAND), math.floor(high / self._BAND) + 1):
                    self._bands[band].append((x0, y0, x1, y1))

    def holds(self, lon: float, lat: float) -> bool:
        """True inside. On the line itself either answer may come."""
        inside = False
        for x0, y0, x1, y1 in self._bands.get(math.floor(lat / self._BAND), ()):
            if (y0 > lat) != (y1 > lat) and lon < x0 + (lat - y0) * (x1 - x0) / (y1 - y0):
                inside = not inside
        return inside


@cache
def outline() -> Outline:
    """The city's own outline."""
    return Outline(_joined(_ring(x, y) for x, y, _ in _squares()))
