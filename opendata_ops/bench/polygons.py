"""Points in areas: the look-ups of the enrich stage beside the seed's way, which reads a polygon anew for every candidate of every point.

The layers are made here, like Austin's in number and corners. A GeoJSON file that lies in the bench's folder under `polygons/` is
measured as well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import shapely
from shapely.geometry import Point, mapping, shape

from catalog import boundaries
from catalog.boundaries import Areas
from opendata_ops.bench.findings import Finding, compared, interleaved, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.plan import Plan
from pipelines.errors import DataError
from pipelines.stages.enrich import Lookup, Tally, add_columns

#: A box about a city: west, south, east, north.
BOX = (-97.95, 30.08, -97.5, 30.55)
#: What a stage looks up for a trip: three layers at both its ends.
ENDS = ("start", "end")


@dataclass(frozen=True)
class Ready:
    """A layer as it is asked: its areas, and the features of the same file for the peer."""

    name: str
    areas: Areas
    features: list[dict]


def point_in_polygon(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Each layer against the seed's way at 10,000 points, its points a CPU second at a million, and six look-ups a trip from file to file."""
    few, many = plan.size(10_000, 10_000), plan.size(1_000_000, 100_000)
    layers = [*made_layers(), *_found(ground.folder / "polygons")]
    for layer in layers:
        yield from _one_layer(ground, plan, layer, few, many)
    yield _six_look_ups(ground, plan, layers[:3])


def _one_layer(ground: Ground, plan: Plan, layer: Ready, few: int, many: int) -> Iterator[Finding]:
    lon, lat = points(few)
    peer = Peer(layer)
    answers: dict[str, np.ndarray] = {}
    ours = _timed(ground, answers, "ours", lambda: layer.areas.index(lon, lat))
    theirs = _timed(ground, answers, "theirs", lambda: peer.index(lon, lat))
    mine, other = interleaved(plan.pairs, ours, theirs, say=plan.say)
    wrong = np.flatnonzero(answers["ours"] != answers["theirs"])
    if wrong.size:
        # the figures would be of two different things
        raise DataError(f"{layer.name}: {wrong.size:,} points differ, the first at {lon[wrong[0]]}, {lat[wrong[0]]}")
    yield compared("polygons", f"{layer.name}: {len(layer.areas):,} areas", "boxes + shape() of each", few, mine, other, 100)

    lon, lat = points(many)
    costs = [ours() for _ in range(plan.pairs)]
    # of one core, by its CPU: what else the machine does is no matter of the look-ups
    pace = many / median(cost.client for cost in costs)
    details = {"ours": list(map(told, costs))}
    cpu = (median(cost.client for cost in costs) * 1e6 / many, None)
    yield simple("polygons", f"{layer.name}: points a CPU second", many, pace, "/s", 500_000, at_least=True, cpu_per_row=cpu, details=details)


def points(number: int) -> tuple[np.ndarray, np.ndarray]:
    """The same points everywhere."""
    dice = np.random.default_rng(311)
    west, south, east, north = BOX
    return dice.uniform(west, east, number), dice.uniform(south, north, number)


def _timed(ground: Ground, answers: dict[str, np.ndarray], name: str, ask: Callable[[], np.ndarray]) -> Callable[[], Cost]:
    def measure() -> Cost:
        with measured(ground.meter) as cost:
            answers[name] = ask()
        return cost

    return measure


class Peer:
    """The way of atd-mds: an index of boxes gives candidates, and each candidate's polygon is made of its JSON again and asked.

    Its index is the `rtree` package's; the tree here answers the same question somewhat faster, so the ratio is no larger for it.
    Where areas meet, the lowest one is taken, as ours does; the seed takes whichever comes first.
    """

    def __init__(self, layer: Ready):
        places = {key: place for place, key in enumerate(layer.areas.keys)}
        found = sorted((places[str(one["properties"]["key"])], number) for number, one in enumerate(layer.features))
        self.features = [layer.features[number]["geometry"] for _, number in found]
        self.tree = shapely.STRtree([shapely.box(*shape(geometry).bounds) for geometry in self.features])

    def index(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        return np.array([self._one(Point(x, y)) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)])

    def _one(self, point: Point) -> int:
        for place in sorted(self.tree.query(point)):
            if shape(self.features[place]).intersects(point):
                return place
        return len(self.features)


# layers


def made_layers() -> Iterator[Ready]:
    """Ten districts of long outlines, 332 tracts and 4,633 cells, all over the box."""
    for name, areas, corners in (("districts", 10, 145), ("tracts", 332, 69), ("cells", 4_633, 7)):
        yield _ready(name, _geojson(areas, corners))


def _found(folder: Path) -> Iterator[Ready]:
    """Real ones, by the property that most likely is their key."""
    for path in sorted(folder.glob("*json")) if folder.is_dir() else ():
        told = json.loads(path.read_bytes())
        key = boundaries.likely_key(boundaries.properties_of(path.read_bytes()))
        features = [{**one, "properties": {"key": one["properties"][key]}} for one in told["features"]]
        yield _ready(path.stem, json.dumps({"type": "FeatureCollection", "features": features}).encode())


def _ready(name: str, geojson: bytes) -> Ready:
    return Ready(name, boundaries.parse(geojson, "key"), json.loads(geojson)["features"])


def _geojson(areas: int, corners: int) -> bytes:
    """So many areas that meet without a gap, with about so many corners each: cells about random points, their edges bent."""
    dice = np.random.default_rng(areas)
    west, south, east, north = BOX
    seeds = shapely.multipoints(dice.uniform((west, south), (east, north), (areas, 2)))
    cells = shapely.get_parts(shapely.voronoi_polygons(seeds, extend_to=shapely.box(*BOX)))
    cells = shapely.intersection(cells, shapely.box(*BOX))
    edge = shapely.length(cells).mean() / corners
    if corners > 10:
        # both sides of an edge are cut and bent alike, or there would be slivers between
        cells = shapely.transform(shapely.segmentize(cells, edge), lambda points: points + edge / 4 * np.sin(points[:, ::-1] / edge * 3))
    features = [
        {"type": "Feature", "properties": {"key": number}, "geometry": mapping(shapely.set_precision(cell, 1e-6))}
        for number, cell in enumerate(cells, 1)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


# six look-ups a trip


def _six_look_ups(ground: Ground, plan: Plan, layers: list[Ready]) -> Finding:
    """From a file of trips to the file with six columns more, on one core; a copy of the same bytes, read and hashed, beside it."""
    number = plan.size(200_000, 20_000)
    folder = ground.folder / "enrich"
    folder.mkdir(exist_ok=True)
    given, made = folder / "trips.csv", folder / "enriched.csv"
    _trips(given, number)
    lookups = [Lookup(f"{layer.name}_{end}", f"{end}_lon", f"{end}_lat", layer.name, layer.areas) for end in ENDS for layer in layers]

    def ours() -> Cost:
        tally = Tally()
        with measured(ground.meter) as cost:
            add_columns(given, made, lookups, tally)
        if tally.rows != number:
            raise DataError(f"{tally.rows:,} trips were enriched of {number:,}")
        return cost

    def copied() -> Cost:
        with measured(ground.meter) as cost:
            made.write_bytes(given.read_bytes())
            hashlib.sha256(made.read_bytes()).digest()
        return cost

    mine, theirs = interleaved(plan.pairs, ours, copied, say=plan.say)
    shutil.rmtree(folder)
    pace = number / median(cost.client for cost in mine)
    details = {"ours": list(map(told, mine)), "copied": list(map(told, theirs))}
    words = f"a copy of the same bytes, hashed, takes {median(cost.client for cost in theirs) * 1e6 / number:.1f} µs of CPU a trip"
    cpu = (1e6 / pace, None)
    return simple(
        "polygons", "enrich: six look-ups a trip", number, pace, "trips/CPU s", 100_000, at_least=True, words=words, cpu_per_row=cpu, details=details
    )


def _trips(path: Path, number: int) -> None:
    """Trips as standardize writes them: 22 columns, both ends in or about the city."""
    (x, y), (to_x, to_y) = points(number), (one[::-1] for one in points(number))
    names = (
        "provider_id,provider_name,trip_id,device_id,vehicle_id,vehicle_type,propulsion,start_time,end_time,start_lon,start_lat,end_lon,end_lat,"
        "duration_s,distance_m,accuracy_m,cost_standard,cost_actual,currency,published_at,parking,trip_type"
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{names}\n")
        for place in range(number):
            ends = f"{x[place]:.6f},{y[place]:.6f},{to_x[place]:.6f},{to_y[place]:.6f}"
            file.write(
                f"0309585e-599f-4e57-ac85-ffffffffffff,Wheelies,{place:032x},{place % 997:032x},W{place % 997},scooter,electric,"
                f"2026-11-20T17:00:00Z,2026-11-20T17:12:30Z,{ends},750,1879,5,330,330,USD,2026-11-20T18:00:00Z,,\n"
            )
