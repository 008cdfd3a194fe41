"""The practice city's areas: no gaps, no overlaps, districts made of tracts, and the rest of the city's data inside."""

import json
import random

import pytest
import shapely
from shapely.geometry import shape

from opendata_ops.sandbox import areas, rows


def shapes(layer):
    _, key, made = areas.LAYERS[layer]
    return {feature["properties"][key]: shape(feature["geometry"]) for feature in made()["features"]}


@pytest.mark.parametrize(("layer", "count"), [("council-districts", 10), ("census-tracts", 58), ("trip-cells", 400)])
def test_a_layer_is_valid_and_its_areas_neither_overlap_nor_leave_gaps(layer, count):
    made = shapes(layer)
    assert len(made) == count == len(json.loads(areas.geojson(layer))["features"])
    assert all(one.is_valid for one in made.values())
    together = shapely.union_all(list(made.values()))
    assert together.area == pytest.approx(sum(one.area for one in made.values()))
    assert together.geom_type == "Polygon" and not together.interiors


def test_keys_look_like_austins():
    assert set(shapes("council-districts")) == {str(number) for number in range(1, 11)}
    assert all(len(key) == 11 and key.isdigit() for key in shapes("census-tracts"))
    assert sorted(shapes("trip-cells"))[:2] == ["000001", "000002"]
    assert shapes("council-districts")["9"].geom_type == "MultiPolygon"


def test_districts_are_their_tracts_and_the_cells_lie_inside():
    districts, tracts, cells = (list(shapes(layer).values()) for layer in areas.LAYERS)
    city = shapely.union_all(tracts)
    assert shapely.union_all(districts).symmetric_difference(city).area < 1e-12
    assert city.contains(shapely.union_all(cells))


def test_the_outline_agrees_with_the_areas():
    city, chance = shapely.union_all(list(shapes("census-tracts").values())), random.Random(4)
    points = [(chance.uniform(-118.7, -118.1), chance.uniform(33.7, 34.4)) for _ in range(5000)]
    held = [areas.outline().holds(*point) for point in points]
    assert held == list(shapely.contains_xy(city, *zip(*points, strict=True))) and 0.5 < sum(held) / 5000 < 0.95


def test_the_other_rows_of_the_city_lie_in_it():
    near = [(area[-1] + east, area[-2] + north) for area in rows._AREAS for east in (-0.02, 0.02) for north in (-0.02, 0.02)]
    assert all(areas.outline().holds(*point) for point in near)
