"""Boundary layers: what is refused in which words, and which area a point lies in: always the same one."""

import csv
import json

import numpy as np
import pytest
import shapely
from django.conf import settings

from catalog import boundaries
from catalog.audit import Actor
from catalog.models import AuditEntry, BoundaryLayer
from pipelines.errors import DataError
from tests.catalog.squares import collection, square

ANN = Actor("ann")
POLYGONS = settings.BASE_DIR.parent / "shared" / "data" / "polygons"
REAL = {
    "district": ("council_districts_simplified", "district_n", 10),
    "tract": ("census_tracts_2010_simplified_20pct", "GEOID10", 332),
    "hex": ("hex1000", "id", 4633),
}


def areas(*features: dict) -> boundaries.Areas:
    return boundaries.parse(collection(*features), "name")


def where(layer: boundaries.Areas, *points: tuple) -> list:
    return list(layer.locate(np.array([lon for lon, _ in points], dtype=object), [lat for _, lat in points]))


# which area


def test_a_point_is_in_its_area_or_in_none():
    layer = areas(square("a", 0, 0), square("b", 1, 0))
    assert where(layer, (0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (0.5, -0.1)) == ["a", "b", None, None]


def test_a_border_is_inside_and_its_ties_go_to_the_lowest_key_whatever_the_order_of_the_file():
    for order in (1, -1):
        layer = areas(*[square(name, west, 0) for name, west in (("10", 0), ("9", 1), ("100", 2))][::order])
        assert layer.keys == ("9", "10", "100")
        # the corner of one, the edge of two, the edge of one
        assert where(layer, (0, 0), (1, 0.5), (2, 0.5), (3, 1), (3.0000001, 1)) == ["10", "9", "9", "100", None]


@pytest.mark.parametrize(
    "keys",
    [["9", "10", "100"], ["002", "010", "0100"], ["-3", "1.5", "1.25e"], ["2", "D9", "D10", "E1"], ["1", "1a", "a"], ["Ab", "a2", "a10"]],
)
def test_numbers_are_sorted_as_numbers_also_inside_of_words(keys):
    shuffled = keys[::-1]
    assert sorted(shuffled, key=boundaries.key_order) == keys


def test_where_areas_lie_over_each_other_the_lowest_key_has_the_point():
    layer = areas(square(3, 0, 0, size=4), square(2, 1, 1, size=2), square(1, 2, 2, size=9))
    assert where(layer, (0.5, 0.5), (1.5, 1.5), (2.5, 2.5), (3.5, 3.5), (9, 9)) == ["3", "2", "1", "1", "1"]


def test_a_hole_is_outside_and_the_parts_of_an_area_are_one():
    ring = square("", 1, 1)["geometry"]["coordinates"][0]
    holed = square("holed", 0, 0, size=3)
    holed["geometry"]["coordinates"].append(ring)
    parts = {"type": "Feature", "properties": {"name": "parts"}, "geometry": {"type": "MultiPolygon", "coordinates": [
        square("", 5, 0)["geometry"]["coordinates"], square("", 7, 0)["geometry"]["coordinates"]]}}  # fmt: skip
    layer = areas(holed, parts)
    assert where(layer, (0.5, 0.5), (1.5, 1.5), (1, 1.5), (5.5, 0.5), (6.5, 0.5), (7.5, 0.5)) == ["holed", None, "holed", "parts", None, "parts"]


@pytest.mark.parametrize(
    ("lon", "lat"), [(None, 0.5), (0.5, None), (float("nan"), 0.5), (float("inf"), 0.5), ("", "0.5"), ("west", 0.5), (0.5, 1e308), (181, 0.5)]
)
def test_what_is_no_point_lies_nowhere_and_spoils_no_other(lon, lat):
    assert where(areas(square("a", 0, 0)), (0.5, 0.5), (lon, lat), (0.25, 0.25)) == ["a", None, "a"]


def test_no_points_are_no_answers():
    assert list(areas(square("a", 0, 0)).locate([], [])) == []


def test_all_points_are_found_in_small_pieces_and_in_large_ones(monkeypatch):
    dice = np.random.default_rng(4)
    made = [square(f"{n}", *dice.uniform(-1, 5, 2), size=dice.choice([0.05, 0.4, 3])) for n in range(80)]
    layer = areas(*made)
    # corners and edges among them, where rounding would show
    corners = np.array([point for one in made for point in one["geometry"]["coordinates"][0]])
    lon, lat = np.concatenate([dice.uniform(-2, 7, (1000, 2)), corners, (corners + corners[::-1]) / 2]).T
    hits = np.array([shapely.intersects_xy(shape, lon, lat) for shape in layer.geometries])
    wanted = list(np.where(hits.any(axis=0), hits.argmax(axis=0), len(layer)))
    assert list(layer.index(lon, lat)) == wanted
    monkeypatch.setattr(boundaries, "PIECE", 7)
    assert list(layer.index(lon, lat)) == wanted


@pytest.mark.parametrize("column", REAL)
def test_the_points_of_austin_are_in_their_areas(column):
    if not POLYGONS.exists():
        pytest.skip(f"the real polygons are not at {POLYGONS}")
    file, key, number = REAL[column]
    geojson = (POLYGONS / f"{file}.json").read_bytes()
    assert boundaries.likely_key(boundaries.properties_of(geojson)) == key
    layer = boundaries.parse(geojson, key)
    rows = list(csv.DictReader((POLYGONS / "points_500.csv").read_text().splitlines()))
    found = layer.locate([row["lon"] for row in rows], [row["lat"] for row in rows])
    assert len(layer) == number and len(rows) == 500
    assert [(row, key) for row, key in zip(rows, found, strict=True) if (row[column] or None) != key] == []


# what is taken, and what is refused in which words


def shaped(kind: str | None, coordinates=None) -> bytes:
    """A file whose one area has this geometry."""
    return collection({**square("a", 0, 0), "geometry": kind and {"type": kind, "coordinates": coordinates}})


def refused(geojson: bytes, key: str = "name") -> DataError:
    with pytest.raises(DataError) as caught:
        boundaries.parse(geojson, key)
    assert caught.value.next_step.endswith(".")
    return caught.value


@pytest.mark.parametrize(
    ("geojson", "code", "words"),
    [
        (b"", "boundary-json", "no JSON: Expecting value in line 1"),
        (b"PK\x03\x04\xff\xfe", "boundary-json", "byte 4 is not UTF-8"),
        (b"[" * 200_000, "boundary-json", "no GeoJSON"),
        (b"[1, 2]", "boundary-kind", "its type is 'list'"),
        (b'{"type": "Topology"}', "boundary-kind", "its type is 'Topology'"),
        (b'{"type": "FeatureCollection", "features": {}}', "boundary-kind", "no FeatureCollection with a list"),
        (collection(), "boundary-empty", "no features"),
        (collection(square("a", 0, 0), crs={"type": "name", "properties": {"name": "EPSG:2277"}}), "boundary-projected", "EPSG:2277"),
        (collection(square("a", 3_112_034.2, 10_085_463)), "boundary-projected", "lies at 3,112,034.2, 10,085,463.0, which are no degrees"),
        (collection(square("a", 30, -97.7)), "boundary-shape", "the longitude first"),
        (collection(square("a", 0, 0), square("a", 1, 0)), "boundary-twice", r"Feature 2 \(name a\) has the key of feature 1"),
        (collection(square(9, 0, 0), square(9.0, 1, 0)), "boundary-twice", r"Feature 2 \(name 9\)"),
        (collection(square("a", 0, 0), square(None, 1, 0)), "boundary-key", "Feature 2 has an empty name"),
        (collection(square(["a"], 0, 0)), "boundary-key", "which can't name an area"),
        (shaped(None), "boundary-shape", r"Feature 1 \(name a\) has no geometry"),
        (shaped("Point", [0, 0]), "boundary-shape", "is a Point"),
        (shaped("Polygon", [[[0, 0], [1, 1], [0, 0]]]), "boundary-shape", "three corners"),
        (shaped("Polygon", [[["0", 0], [1, 1], [0, 1]]]), "boundary-shape", "no list of"),
        (shaped("MultiPolygon", []), "boundary-shape", "has no coordinates"),
        (shaped("Polygon", [[[0, 0], [1, 1], [2, 2], [0, 0]]]), "boundary-shape", "encloses nothing"),
        (collection(square("a", 0, 0)).replace(b"[0, 0]", b"[NaN, 0]"), "boundary-shape", "no number"),
        (collection(square("a", 0, 0)).replace(b"[0, 0]", b"[1e999, 0]"), "boundary-shape", "no number"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_layer_is_refused_in_words(geojson, code, words):
    error = refused(geojson)
    assert error.code == code
    assert boundaries.re.search(words, error.message), error.message


def test_a_file_without_the_key_names_the_properties_that_it_has():
    error = refused(collection(square("a", 0, 0, GEOID10="48453")), "GEOID")
    assert "Feature 1 has no GEOID" in error.message and "name, GEOID10" in error.next_step


def test_of_many_wrong_features_the_first_are_named_and_the_rest_counted():
    error = refused(collection(*[square("same", n, 0) for n in range(9)]))
    assert error.message.startswith("8 of 9 features can't be taken.") and "3 more" in error.message and "Feature 7" not in error.message


def test_a_file_that_is_too_large_says_how_to_make_it_smaller(monkeypatch):
    monkeypatch.setattr(boundaries, "MOST_BYTES", 100)
    error = refused(collection(square("a", 0, 0)))
    assert error.code == "boundary-size" and "-simplify" in error.next_step


def test_an_outline_that_crosses_itself_is_repaired_and_named():
    bow = square("bow", 4, 0)
    bow["geometry"]["coordinates"] = [[[4, 0], [5, 1], [5, 0], [4, 1], [4, 0]]]
    layer = areas(square("a", 0, 0), bow)
    assert where(layer, (0.5, 0.5), (4.1, 0.5), (4.9, 0.5), (4.5, 0.1)) == ["a", "bow", "bow", None]
    assert len(layer.repaired) == 1 and layer.repaired[0].startswith("Feature 2 (name bow): Self-intersection")


def test_heights_open_rings_and_a_byte_order_mark_are_no_fault():
    tall, left_open = square("tall", 0, 0), square("open", 1, 0)
    tall["geometry"]["coordinates"] = [[[*point, 12.5] for point in ring] for ring in tall["geometry"]["coordinates"]]
    left_open["geometry"]["coordinates"][0].pop()
    for features in ((tall, left_open), (tall,), (left_open,)):
        layer = boundaries.parse(b"\xef\xbb\xbf" + collection(*features), "name")
        assert where(layer, (0.5, 0.5), (1.5, 0.5)) == [
            name if any(one["properties"]["name"] == name for one in features) else None for name in ("tall", "open")
        ]


def test_one_odd_feature_changes_nothing_of_the_others():
    # all at once, and one by one beside a feature that has to be looked at by itself
    many = [square(str(n), n % 20, n // 20) for n in range(200)]
    bow = square("bow", 40, 0)
    bow["geometry"]["coordinates"] = [[[40, 0], [41, 1], [41, 0], [40, 1]]]
    plain, mixed = areas(*many), areas(*many, bow)
    assert not plain.repaired and len(mixed.repaired) == 1
    assert all(shapely.equals(one, other) for one, other in zip(plain.geometries, mixed.geometries, strict=False))


def test_the_properties_of_a_file_are_listed_with_those_that_can_be_its_key_first():
    made = collection(square("a", 0, 0, zone=1, OBJECTID=7, district_n="1"), square("a", 1, 0, zone=None, OBJECTID=8, district_n="2"))
    found = {one.name: one for one in boundaries.properties_of(made)}
    assert [name for name, one in found.items() if one.is_key] == ["OBJECTID", "district_n"] == list(found)[:2]
    assert (found["zone"].filled, found["name"].distinct) == (1, 1)
    assert boundaries.likely_key(list(found.values())) == "district_n"
    assert boundaries.likely_key(boundaries.properties_of(collection(square("a", 0, 0), square("a", 1, 0)))) == ""


def test_a_square_kilometre_is_one():
    # a hundredth of a degree at Austin
    [size] = boundaries.square_kilometres(areas(square("a", -97.745, 30.265, size=0.01)))
    assert size == pytest.approx(1.0665, rel=0.005)


# keeping


@pytest.mark.django_db
def test_a_layer_is_kept_as_it_came_and_replaced_by_the_next_one():
    first, second = collection(square("a", 0, 0)), collection(square("a", 0, 0), square("b", 1, 0, label="Bee"))
    made = boundaries.store("city", "City", "name", first, ANN)
    assert boundaries.content_of(BoundaryLayer.objects.get(slug="city")) == first
    assert (made.areas, made.extent, made.uploaded_by) == (1, [0, 0, 1, 1], "ann") and made.uploaded_at
    old = boundaries.load(made)

    again = boundaries.store("city", "The city", "name", second, Actor("bob"), label_property="label")
    assert again.pk == made.pk and again.sha256 != made.sha256 and again.uploaded_by == "bob"
    assert list(boundaries.load(again).labels) == ["a", "Bee"]
    # whoever holds the old one goes on with it
    assert boundaries.load(made) is old
    assert boundaries.load(BoundaryLayer.objects.defer("content").get(slug="city")) is boundaries.load(again)

    other_words = boundaries.store("city", "Our city", "name", second, ANN, label_property="label")
    assert (other_words.uploaded_by, other_words.uploaded_at) == ("bob", again.uploaded_at)
    boundaries.store("city", "Our city", "name", second, ANN, label_property="label")
    told = list(AuditEntry.objects.filter(kind="boundary", target="city").order_by("pk").values_list("actor", "verb"))
    assert told == [("ann", "create"), ("bob", "replace"), ("ann", "edit")]


@pytest.mark.django_db
def test_a_file_that_is_refused_leaves_the_layer_as_it_was():
    made = boundaries.store("city", "City", "name", collection(square("a", 0, 0)), ANN)
    for slug, geojson in (("city", collection(square("a", 0, 0), square("a", 1, 0))), ("no slug", collection(square("a", 0, 0)))):
        with pytest.raises(DataError):
            boundaries.store(slug, "Other", "name", geojson, ANN)
    assert BoundaryLayer.objects.get() == made and BoundaryLayer.objects.get().sha256 == made.sha256
    assert AuditEntry.objects.filter(kind="boundary").count() == 1


@pytest.mark.django_db
def test_a_stored_file_that_was_changed_behind_our_back_is_not_used():
    made = boundaries.store("city", "City", "name", json.dumps(json.loads(collection(square("z", 3, 3)))).encode(), ANN)
    BoundaryLayer.objects.update(content=boundaries.gzip.compress(b"{}"))
    with pytest.raises(DataError, match="not the one that was uploaded"):
        boundaries.load(BoundaryLayer.objects.get(pk=made.pk))
