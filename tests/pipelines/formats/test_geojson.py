"""GeoJSON: properties typed, geometry as compact text; an ArcGIS page and a plain file are read alike."""

from __future__ import annotations

import json

import pytest

from opendata_ops.sandbox import toronto_rows
from pipelines.errors import DataError
from pipelines.formats.geojson import GeoJson
from pipelines.formats.table_reader import MissingColumns
from tests.pipelines.formats.reading import configured, read  # noqa: F401


def features(*told: dict, **beside) -> str:
    return json.dumps({"type": "FeatureCollection", **beside, "features": list(told)})


def feature(geometry=None, **properties) -> dict:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


POINT = {"type": "Point", "coordinates": [-79.38, 43.65]}


def test_a_feature_is_a_row_of_its_properties_and_its_geometry_as_compact_text(read):  # noqa: F811
    body = features(feature(POINT, OBJECTID=0, NAME="Café", Z=0), feature(POINT, OBJECTID=1, NAME=None, Z=1.5), exceededTransferLimit=True)
    made = read(GeoJson, body, "geometry", "OBJECTID>id:int", "NAME>name", "Z:float")
    assert made.rows == [['{"type":"Point","coordinates":[-79.38,43.65]}', "0", "Café", "0"], [made.rows[0][0], "1", "", "1.5"]]
    assert not made.extra and not made.warnings


def test_coordinates_stay_as_they_are_written(read):  # noqa: F811
    body = '{"features": [{"properties": {"a": 1}, "geometry": {"type": "Polygon",\n "coordinates": [[[-79.380, 43.6500], [1e1, 0.0]]]}}]}'
    made = read(GeoJson, body, "a", "geometry")
    assert made.rows == [["1", '{"type":"Polygon","coordinates":[[[-79.380,43.6500],[1e1,0.0]]]}']]


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ('{"type":"Point","coordinates":[1,2]}', '{"type":"Point","coordinates":[1,2]}'),
        ('{ "type" : "Point",\r\n\t"coordinates" : [ 1.0, 2 ] }', '{"type":"Point","coordinates":[1.0,2]}'),
        ('{"crs": "a b", "n": ""}', '{"crs":"a b","n":""}'),
        ('{"crs": "a\\" b", "n": 1.50}', '{"crs":"a\\" b","n":1.50}'),
    ],
)
def test_spaces_go_from_a_geometry_and_never_from_its_texts(read, written, made):  # noqa: F811
    assert read(GeoJson, f'{{"features": [{{"properties": {{"a": 1}}, "geometry": {written}}}]}}', "a", "geometry").rows == [["1", made]]


def test_a_feature_without_a_geometry_is_a_row_all_the_same_and_counted(read):  # noqa: F811
    body = '{"features": [{"properties": {"a": 1}, "geometry": null}, {"properties": {"a": 2}}, {"properties": {"a": 3}, "geometry": {}}]}'
    made = read(GeoJson, body, "a:int", "geometry")
    assert [row[0] for row in made.rows] == ["1", "2", "3"] and [row[1] for row in made.rows] == ["", "", "{}"]
    assert made.warnings == {"it has no geometry": 2}
    # where nobody asked for one, nothing is missing
    made = read(GeoJson, body, "a:int")
    assert made.header == ["a"] and not made.warnings and not made.extra


def test_epoch_times_are_of_the_configured_zone_and_a_day_is_a_day(read):  # noqa: F811
    made = read(GeoJson, features(feature(T=1710498000000), feature(T=None)), "T>t:timestamp:epoch", "T>d:date:epoch")
    assert made.rows == [["2024-03-15T06:20:00", "2024-03-15"], ["", ""]]


def test_the_id_of_a_feature_may_be_asked_for(read):  # noqa: F811
    told = [{**feature(a=1), "id": 0}, {**feature(a=2), "id": "x"}]
    assert read(GeoJson, features(*told), "a", "id").rows == [["1", "0"], ["2", "x"]]
    assert read(GeoJson, features({**feature(a=1, id=9), "id": 0}), "a", "id").rows == [["1", "9"]]


def test_what_is_no_feature_is_refused_and_what_does_not_fit_too(read):  # noqa: F811
    body = '{"features": [{"properties": {"a": 1}}, 7, {"properties": [1]}, {"properties": {"a": "x"}}, {"properties": {"a": NaN}}]}'
    made = read(GeoJson, body, "a:int")
    assert made.rows == [["1"], [""]]
    assert made.why == [(2, "it is not a feature"), (3, "it is not a feature"), (4, "a is not a number")]


@pytest.mark.parametrize("body", ['{"error": {"code": 400, "message": "Invalid where"}}', '{"error": "Invalid where"}'])
def test_an_error_of_the_source_is_told_with_its_own_words(read, body):  # noqa: F811
    with pytest.raises(DataError, match="Invalid where"):
        read(GeoJson, body, "a")


@pytest.mark.parametrize("body", ['{"type": "FeatureCollection"}', '{"features": [{"properties": {"a": 1}}', "<html>", '{"features": {}}'])
def test_what_is_cut_off_or_something_else_is_refused(read, body):  # noqa: F811
    with pytest.raises(DataError) as caught:
        read(GeoJson, body, "a")
    assert caught.value.code == "bad-json"


def test_a_page_without_features_has_no_rows_and_lacks_nothing(read):  # noqa: F811
    assert read(GeoJson, features(exceededTransferLimit=True), "a", "geometry").rows == []
    with pytest.raises(MissingColumns, match="PROJ is in the configuration"):
        read(GeoJson, features(feature(PROJ_NUM=1)), "PROJ")


def test_pages_of_one_block_are_counted_together(read):  # noqa: F811
    first = read(GeoJson, features(feature(POINT, a=1, b=2)), "a", "geometry")
    second = read.again(first.reader, features(feature(None, a=2, c=3), properties={"exceededTransferLimit": False}))
    assert second.rows == [["2", ""]] and second.extra == ["b", "c"]
    assert (second.tally.rows_in, second.warnings) == (2, {"it has no geometry": 1})


def test_toronto_s_road_works_are_read_as_configured(read):  # noqa: F811
    told, _ = configured("road-reconstruction-program", "Road Reconstruction Program")
    works = toronto_rows.road_works(60)
    made = read(GeoJson, features(*works), *told)
    assert made.tally.rows_out == 60 and made.warnings == {"it has no geometry": 3}
    row = dict(zip(made.header, made.rows[0], strict=True))
    assert row["OBJECTID"] == "0" and row["LAST_UPDATED_DATE"] == "2024-03-15" and row["PROJECT"] == "Road Reconstruction"
    assert json.loads(row["geometry"]) == works[0]["geometry"]


def test_what_the_original_filter_made_of_a_layer_is_made_here_with_its_letters(read):  # noqa: F811
    """The input of facts §1.5; that script dropped letters beyond ASCII and wrote the epoch in UTC."""
    body = features(feature(POINT, OBJECTID=1, NAME="Café one", X=1, Latitude=2, OPENED=1585699200000, AREA=10, Shape_Area=3, RATIO=2))
    made = read(GeoJson, body, "geometry", "OBJECTID:int", "NAME", "OPENED:timestamp:epoch", "AREA:float", "RATIO:float", epoch_zone="UTC")
    assert made.rows == [['{"type":"Point","coordinates":[-79.38,43.65]}', "1", "Café one", "2020-04-01T00:00:00", "10", "2"]]
    assert made.extra == ["X", "Latitude", "Shape_Area"]
