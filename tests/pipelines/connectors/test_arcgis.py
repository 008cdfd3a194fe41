"""ArcGIS layers as a source: described, counted, and read in pages, against a server with what is odd about real ones."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from opendata_ops.sandbox import Fault, toronto_rows
from opendata_ops.sandbox.arcgis import ALWAYS, BOTH, NEITHER, PROPERTIES, TOP, ArcGIS, Layer, toronto_layers
from pipelines.connectors import arcgis
from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.http import Door
from pipelines.errors import DataError, SetupError, TransientError

TREES = "/arcgis/rest/services/Trees/FeatureServer/0"
FIELDS = (("OBJECTID", "esriFieldTypeOID"), ("SPECIES", "esriFieldTypeString"), ("PLANTED", "esriFieldTypeDate"))


def trees(ids, **more):
    return [
        {
            "type": "Feature",
            "id": one,
            "geometry": None if one % 7 == 3 else {"type": "Point", "coordinates": [-79.4, 43.7]},
            "properties": {"OBJECTID": one, "SPECIES": "Élm, “red”" if one % 2 else "Oak", "PLANTED": 1585699200000 + one, **more},
        }
        for one in ids
    ]


@pytest.fixture
def server():
    with ArcGIS({TREES: Layer("Trees", FIELDS, trees(range(10)), max_record_count=4, edited=1710498000000)}) as one:
        yield one
    assert one.mistakes == []


def source(server, *, naps=None, token="", **parameters):
    door = Door(
        [server.url.removeprefix("http://")], sleep=(naps if naps is not None else []).append, secrets=[token] if token else (), owner="provider maps"
    )
    return arcgis.ArcGIS(Account("maps", server.url, parameters, {"token": token} if token else {}), door)


def request(page_size=50_000, **options):
    return FetchRequest(columns=(), page_size=page_size, options=options)


def read(server, tmp_path, path=TREES, page_size=50_000, rows=None, **options):
    """The files of a reading, as extract asks for it."""
    asked, one = request(page_size, **options), source(server)
    rows = one.count(path, asked) if rows is None else rows
    return list(one.fetch(path, asked, rows=rows, workdir=tmp_path, progress=lambda done, of: None))


def features(files):
    return [feature for file in files for feature in json.loads(file.path.read_bytes())["features"]]


def pages_asked(server):
    return [asked.query for asked in server.requests if asked.query.get("f") == "geojson"]


# what a layer says of itself


def test_a_layer_says_its_title_its_last_edit_and_its_fields(server):
    server.layers[TREES].description, server.layers[TREES].copyright = "All trees", "The city"
    server.layers[TREES].fields = (*FIELDS, ("PHOTO", "esriFieldTypeBlob"), ("GlobalID", "esriFieldTypeGlobalID"), ("AREA", "esriFieldTypeDouble"))
    told = source(server).describe(TREES)
    assert (told.title, told.description, told.version, told.columns) == ("Trees", "All trees", "1710498000000", ())
    assert told.changed_at == datetime(2024, 3, 15, 10, 20, tzinfo=UTC)
    assert told.metadata["fields"] == [
        ["OBJECTID", "int"], ["SPECIES", "text"], ["PLANTED", "timestamp"], ["GlobalID", "text"], ["AREA", "float"], ["geometry", "text"],
    ]  # fmt: skip
    assert told.metadata["unsupported"] == [["PHOTO", "esriFieldTypeBlob"]]
    assert (told.metadata["copyright"], told.metadata["object_id"], told.metadata["labels"]["SPECIES"]) == ("The city", "OBJECTID", "Species")


def test_a_layer_that_tells_no_last_edit_has_no_version_and_a_table_no_geometry(server):
    server.layers[TREES].edited, server.layers[TREES].geometry_type = None, ""
    told = source(server).describe(TREES)
    assert (told.version, told.changed_at) == (None, None)
    assert [name for name, _ in told.metadata["fields"]] == ["OBJECTID", "SPECIES", "PLANTED"]


@pytest.mark.parametrize("path", ["Trees", "/arcgis/rest/services/Trees/FeatureServer", "https://maps.example/x/FeatureServer/0", "/x/0"])
def test_what_is_no_layers_path_is_refused_before_anything_is_asked(server, path):
    with pytest.raises(SetupError, match="is not the path of an ArcGIS layer"):
        source(server).describe(path)
    assert server.requests == []


def test_the_address_of_a_query_is_the_layers_own(server):
    assert source(server).describe(f"{TREES}/query?where=1=1").title == "Trees"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"speaks_geojson": False}, "as JSON, AMF, and not as GeoJSON"),
        ({"fields": [("SPECIES", "esriFieldTypeString"), ("OBJECTID", "esriFieldTypeInteger")]}, "has no object ids"),
        ({"fields": []}, "has no fields"),
    ],
)
def test_a_layer_that_can_not_be_read_is_refused_in_words(server, change, words, monkeypatch):
    monkeypatch.setattr(Layer, "id_field", "")
    for name, value in change.items():
        setattr(server.layers[TREES], name, value)
    with pytest.raises(SetupError, match=words) as caught:
        source(server).describe(TREES)
    assert caught.value.next_step


# pages


@pytest.mark.parametrize("flag", [TOP, PROPERTIES, BOTH, NEITHER, ALWAYS])
@pytest.mark.parametrize("has_pages", [True, False])
@pytest.mark.parametrize("size", [3, 4, 10, 50_000])
def test_every_feature_comes_once_wherever_the_server_says_that_there_are_more(server, tmp_path, flag, has_pages, size):
    layer = server.layers[TREES]
    layer.flag, layer.has_pages = flag, has_pages
    files = read(server, tmp_path, page_size=size)
    assert sorted(one["id"] for one in features(files)) == list(range(10))
    assert sum(file.rows for file in files) == 10
    # no page is asked for in vain, and none for more than the layer gives
    assert len(pages_asked(server)) == len(files) == -(-10 // min(size, 4))
    assert all(int(asked.get("resultRecordCount", 0)) <= 4 for asked in pages_asked(server))


def test_twenty_pages_are_read_in_the_order_of_their_ids_and_kept_as_they_came(server, tmp_path):
    ids = [one * 3 + one // 50 * 1000 for one in range(980)]
    server.layers[TREES].features, server.layers[TREES].max_record_count = trees(ids)[::-1], 49
    seen = []
    one = source(server)
    files = list(one.fetch(TREES, request(), rows=980, workdir=tmp_path, progress=lambda done, of: seen.append((done, of))))
    assert len(files) == len(pages_asked(server)) == 20 and [file.rows for file in files] == [49] * 20
    assert [feature["id"] for feature in features(files)] == ids
    assert seen[0] == (49, 980) and seen[-1] == (980, 980)
    for file in files:
        body = file.path.read_bytes()
        assert (file.bytes, file.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert files[1].metadata["first_id"] > files[0].metadata["last_id"]
    assert {(asked["outSR"], asked["outFields"]) for asked in pages_asked(server)} == {("4326", "*")}


def test_object_id_0_and_a_feature_without_a_geometry_come_too(server, tmp_path):
    found = {one["id"]: one for one in features(read(server, tmp_path, page_size=1))}
    assert len(found) == 10 and found[0]["properties"]["OBJECTID"] == 0 and found[3]["geometry"] is None
    assert found[1]["properties"] == {"OBJECTID": 1, "SPECIES": "Élm, “red”", "PLANTED": 1585699200001}


def test_ids_below_0_come_too(server, tmp_path):
    server.layers[TREES].features = trees(range(-5, 5))
    assert [one["id"] for one in features(read(server, tmp_path, page_size=3))] == list(range(-5, 5))


@pytest.mark.parametrize("has_pages", [True, False])
def test_a_filter_is_asked_on_every_page(server, tmp_path, has_pages):
    server.layers[TREES].has_pages = has_pages
    files = read(server, tmp_path, page_size=2, where="species = 'Oak' OR OBJECTID = 9")
    assert [one["id"] for one in features(files)] == [0, 2, 4, 6, 8, 9]
    assert all("species = 'Oak' OR OBJECTID = 9" in asked["where"] for asked in pages_asked(server))


def test_the_road_program_of_toronto_is_read_by_its_own_filter(tmp_path):
    with ArcGIS(toronto_layers()) as server:
        files = read(server, tmp_path, toronto_rows.ROADS_PATH, where="inv_display_program ='TS_Road_Reconstruction'")
    assert [file.rows for file in files] == [50, 40]
    assert {one["properties"]["INV_DISPLAY_PROGRAM"] for one in features(files)} == {"TS_Road_Reconstruction"}


def test_a_layer_without_features_gives_no_file(server, tmp_path):
    server.layers[TREES].features = []
    assert read(server, tmp_path) == [] and pages_asked(server) == []


def test_the_filter_of_a_quick_count_is_that_of_the_rows(server):
    one = source(server)
    assert (one.count(TREES, request()), one.count(TREES, request(where="SPECIES = 'Oak'"))) == (10, 5)


# what goes wrong


@pytest.mark.parametrize("flag", [TOP, PROPERTIES])
def test_a_page_without_features_that_says_there_are_more_is_an_error_and_no_loop(server, tmp_path, flag):
    server.layers[TREES].empty_after, server.layers[TREES].flag = 4, flag
    with pytest.raises(DataError, match=r"gave no features of Trees after object id 3, and says that there are more") as caught:
        read(server, tmp_path)
    assert caught.value.code == "empty-page" and caught.value.next_step and len(pages_asked(server)) == 2


def test_a_range_that_is_too_much_for_an_old_server_is_halved_and_one_feature_that_is_too_much_is_an_error(server, tmp_path, monkeypatch):
    layer = server.layers[TREES]
    layer.has_pages = False
    asked = ArcGIS._page

    def two_at_most(self, one, found, query):
        """It sends two features at once, whatever it says of itself."""
        return asked(self, Layer(one.name, one.fields, one.rows(), max_record_count=2), found, query)

    monkeypatch.setattr(ArcGIS, "_page", two_at_most)
    files = read(server, tmp_path)
    assert [one["id"] for one in features(files)] == list(range(10)) and max(file.rows for file in files) == 2
    assert [file.name for file in files] == [f"features-{number:05}.geojson" for number in range(1, len(files) + 1)]
    monkeypatch.setattr(ArcGIS, "_page", asked)
    layer.empty_after = 8
    with pytest.raises(DataError, match="gave no features of Trees at object id 8"):
        read(server, tmp_path)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, SetupError), (403, SetupError), (498, SetupError), (499, SetupError), (429, TransientError), (500, TransientError), (504, TransientError)],
)
@pytest.mark.parametrize("when", ["f=json$", "returnCountOnly", "f=geojson"])
def test_an_error_that_comes_with_status_200_is_told_as_what_it_is(server, tmp_path, code, kind, when):
    body = json.dumps({"error": {"code": code, "message": "Cannot perform query.", "details": ["'where' clause is invalid"]}})
    one = source(server)
    server.fail(Fault(200, body=body), path=when)
    with pytest.raises(kind, match=f"says {code}: Cannot perform query.; 'where' clause is invalid") as caught:
        one.describe(TREES)
        rows = one.count(TREES, request())
        list(one.fetch(TREES, request(), rows=rows, workdir=tmp_path, progress=lambda done, of: None))
    assert caught.value.code == f"arcgis-{code}"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_filter_is_named(server):
    with pytest.raises(SetupError, match="Invalid field or expression") as caught:
        source(server).count(TREES, request(where="COLOUR = 'red'"))
    assert "COLOUR = 'red'" in caught.value.next_step


def test_a_token_goes_along_and_is_never_shown(server, tmp_path):
    server.layers[TREES].token = "s3cret-token"
    with pytest.raises(SetupError, match="499: Token Required") as caught:
        source(server).describe(TREES)
    assert "enter a token of provider maps" in caught.value.next_step
    with pytest.raises(SetupError, match="498: Invalid Token") as caught:
        source(server, token="wrong-token").describe(TREES)
    assert "a new token" in caught.value.next_step and "wrong-token" not in str(caught.value)
    one = source(server, token="s3cret-token")
    files = list(one.fetch(TREES, request(), rows=one.count(TREES, request()), workdir=tmp_path, progress=lambda done, of: None))
    assert sum(file.rows for file in files) == 10 and not any("s3cret" in file.origin for file in files)


def test_a_layer_that_changed_since_it_was_counted_is_read_again(server, tmp_path):
    for had in (9, 11):
        with pytest.raises(TransientError, match=f"had {had} features before it was read, and gave (10|12)") as caught:
            # the count of 9 is reached in the middle of a page
            read(server, tmp_path, rows=had)
        assert caught.value.code == "source-moved"


@pytest.mark.parametrize(("has_pages", "words"), [(True, "OBJECTID 0"), (False, "OBJECTID [0-9]")])
def test_a_feature_that_comes_twice_is_an_error(server, tmp_path, has_pages, words):
    layer = server.layers[TREES]
    layer.ignores_ranges, layer.has_pages, layer.max_record_count = True, has_pages, 4
    with pytest.raises(DataError, match=f"gave the feature {words} of Trees twice, or where it was not asked for") as caught:
        read(server, tmp_path)
    assert caught.value.code == "duplicate-rows"


def test_an_object_id_that_two_features_of_a_page_have_is_an_error(server, tmp_path):
    server.layers[TREES].features = [*trees(range(3)), *trees([2])]
    with pytest.raises(DataError, match="gave the feature OBJECTID 2 of Trees twice"):
        read(server, tmp_path)


def test_a_server_that_keeps_no_order_is_not_believed_to_have_given_all(server, tmp_path):
    server.layers[TREES].features, server.layers[TREES].ignores_order = trees([5, 1, 9, 0, 7]), True
    with pytest.raises(DataError, match="out of order, though asked for the order of OBJECTID"):
        read(server, tmp_path, page_size=3)
    # of one page, the order is nobody's business
    server.layers[TREES].max_record_count = 100
    assert [one["id"] for one in features(read(server, tmp_path))] == [5, 1, 9, 0, 7]


def test_a_cut_page_and_a_late_one_are_asked_for_again_and_a_login_page_is_no_page(server, tmp_path):
    server.fail(next=[Fault("cut"), Fault(503)], path="f=geojson")
    assert len(features(read(server, tmp_path))) == 10
    server.fail(Fault("html"), path="f=geojson", times=4)
    with pytest.raises(TransientError, match="a web page where JSON was asked for"):
        read(server, tmp_path)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (
            '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"OBJECTID": 1}}',
            TransientError,
            "is not the JSON that it should be",
        ),
        ('{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"SPECIES": "x"}}]}', DataError, "feature 1 has no OBJECTID"),
        ('{"type": "FeatureCollection", "features": [7]}', DataError, "feature 1 has no OBJECTID"),
        ('{"type": "FeatureCollection"}', DataError, "it has no features"),
        ("[]", DataError, "does not begin with {"),
        ('{"features": []} {"features": []}', TransientError, "something follows"),
        ('{"features": [}', TransientError, "is not the JSON"),
    ],
)
def test_what_is_no_page_is_refused_in_words(server, tmp_path, body, kind, words):
    server.fail(Fault(200, body=body), path="f=geojson")
    with pytest.raises(kind, match=words):
        read(server, tmp_path)


def test_a_feature_with_numbers_that_json_has_not_counts_like_any_other(server, tmp_path):
    body = '{"features": [{"type": "Feature", "geometry": null, "properties": {"OBJECTID": 1, "AREA": NaN}}]}'
    server.fail(Fault(200, body=body), path="f=geojson")
    server.layers[TREES].features = trees([1])
    [file] = read(server, tmp_path)
    assert (file.rows, file.metadata["last_id"]) == (1, 1)


def test_a_window_is_refused_rather_than_forgotten(server, tmp_path):
    asked = FetchRequest(columns=(), window_column="PLANTED")
    with pytest.raises(SetupError, match="are read whole, and the pipeline asks for PLANTED"):
        list(source(server).fetch(TREES, asked, rows=1, workdir=tmp_path, progress=lambda done, of: None))
    with pytest.raises(SetupError, match="filter of a layer is no text"):
        source(server).count(TREES, request(where=["x"]))


def test_the_test_asks_for_a_layer_or_for_the_server(server):
    assert source(server).test().endswith("answers; it is ArcGIS 11.2")
    assert source(server, test_path=TREES).test().endswith("FeatureServer/0 is Trees")
    assert "can't be tested without a layer" in source(server, token="s3cret-token").test()
    server.layers[TREES].token = "s3cret-token"
    with pytest.raises(SetupError, match="498"):
        source(server, token="wrong-token", test_path=TREES).test()
    server.fail(404)
    assert source(server).test() == f"{server.url.removeprefix('http://')} answers"
    server.stop()
    with pytest.raises(TransientError):
        source(server, naps=[]).test()


def test_a_page_longer_than_what_is_read_at_once_is_walked_piece_by_piece(server, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.formats.json_stream.PIECE", 37)
    server.layers[TREES].features = trees(range(10), NOTE="x" * 300 + '},{"OBJECTID":1, "\\')
    assert [one["id"] for one in features(read(server, tmp_path))] == list(range(10))
