"""The practice city's web files and layers: they answer as real servers do, so that what reads them may be tested against them."""

import csv
import gzip
import io
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from openpyxl import load_workbook

from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.arcgis import BOTH as FLAGGED_TWICE
from opendata_ops.sandbox.arcgis import NEITHER, PROPERTIES, TOP, ArcGIS, Layer, toronto_layers
from opendata_ops.sandbox.files import BOTH, ETAG, MODIFIED, NONE, NOW, WebFiles, toronto_files

from .conftest import Client

THEN = datetime(2024, 3, 15, 10, 20, 30, tzinfo=UTC)
BODY = b"a,b\n1,2\n"
ROADS = toronto_rows.ROADS_PATH
FILTER = "inv_display_program ='TS_Road_Reconstruction'"


# web files


@pytest.fixture
def site():
    with WebFiles(clock=lambda: THEN) as one:
        one.put("/a.csv", BODY)
        yield one
    assert one.mistakes == []


@pytest.mark.parametrize(
    ("tells", "names"),
    [(BOTH, {"etag", "last-modified"}), (ETAG, {"etag"}), (MODIFIED, {"last-modified"}), (NONE, set()), (NOW, {"last-modified"})],
)
def test_a_file_tells_its_changes_as_it_is_told_to(site, tells, names):
    site.put("/a.csv", BODY, tells=tells)
    status, headers, body = Client(site)("/a.csv")
    assert (status, body, names) == (200, BODY, {"etag", "last-modified"} & set(headers))
    assert Client(site)("/a.csv", "HEAD")[1].get("content-length") == str(len(BODY))


def test_only_other_bytes_are_another_state(site):
    ask = Client(site)
    first = ask("/a.csv", "HEAD")[1]
    site.put("/a.csv", BODY)
    assert ask("/a.csv", "HEAD")[1]["last-modified"] == first["last-modified"] == "Fri, 15 Mar 2024 10:20:30 GMT"
    site.put("/a.csv", BODY + b"3,4\n")
    changed = ask("/a.csv", "HEAD")[1]
    # within the same second of the clock, too
    assert changed["etag"] != first["etag"] and changed["last-modified"] == "Fri, 15 Mar 2024 10:20:31 GMT"


def test_a_client_that_has_the_file_gets_a_304(site):
    ask = Client(site)
    headers = ask("/a.csv")[1]
    assert ask("/a.csv", headers={"If-None-Match": headers["etag"]})[::2] == (304, b"")
    assert ask("/a.csv", headers={"If-Modified-Since": headers["last-modified"]})[0] == 304
    assert ask("/a.csv", headers={"If-None-Match": '"other"', "If-Modified-Since": headers["last-modified"]})[0] == 200


def test_servers_are_as_odd_as_they_are_told_to_be(site):
    ask = Client(site)
    site.put("/no-head.csv", BODY, head=405)
    site.put("/secret.csv", BODY, wants={"X-Key": "s3cret"})
    site.put("/moved.csv", status=302, to="/a.csv")
    site.put("/broken.csv", status=500)
    site.put("/packed.csv", BODY, packs=True)
    assert (ask("/no-head.csv", "HEAD")[0], ask("/no-head.csv")[0]) == (405, 200)
    assert (ask("/secret.csv")[0], ask("/secret.csv", headers={"X-Key": "s3cret"})[0]) == (401, 200)
    status, headers, _ = ask("/moved.csv")
    assert (status, headers["location"], ask("/broken.csv")[0]) == (302, "/a.csv", 500)
    assert gzip.decompress(ask("/packed.csv", headers={"Accept-Encoding": "gzip"})[2]) == BODY == ask("/packed.csv")[2]
    status, headers, body = ask("/nothing.csv")
    assert status == 404 and headers["content-type"].startswith("text/html") and body.startswith(b"<!DOCTYPE html>")
    assert ask("/a.csv", "POST", b"x")[0] == 405


def test_the_files_of_toronto_are_there_and_are_made_when_they_are_asked_for():
    with toronto_files() as site:
        for path, make in toronto_rows.FILES.items():
            status, headers, body = Client(site)(path)
            assert (status, body) == (200, make().body) and headers["content-type"] == make().content_type
        assert Client(site)(toronto_rows.GRANTS_TEMPLATE.replace("yyyy", "2021"))[0] == 404


# their content


@pytest.mark.parametrize("make", [*toronto_rows.FILES.values()])
def test_the_same_file_has_the_same_bytes_whenever_it_is_made(make, monkeypatch):
    first = make().body
    # an archive knows the second of its making, and a workbook the moment
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    monkeypatch.setattr(time, "localtime", lambda *told: tomorrow.timetuple())
    monkeypatch.setattr("openpyxl.writer.excel.datetime.datetime", type("Tomorrow", (datetime,), {"now": staticmethod(lambda tz=None: tomorrow)}))
    assert make().body == first


def records(made, encoding="utf-8"):
    return list(csv.DictReader(io.StringIO(made.body.decode(encoding), newline="")))


def test_the_subway_delays_have_compact_dates_zeros_and_line_breaks_in_quotes():
    made = toronto_rows.subway_delays(200, misfits=3)
    rows = records(made)
    assert len(rows) == made.rows == 200 and made.misfits == 3
    wrong = [row for row in rows if not _is_date(row["Date"], "%Y%m%d")]
    assert len(wrong) == 3 and any("\n" in row["Station"] for row in rows) and {row["Min Delay"] for row in rows} >= {"0", "12"}
    assert b"\r\n" in made.body


def _is_date(text, form):
    try:
        return bool(datetime.strptime(text, form))
    except ValueError:
        return False


def test_the_development_pipeline_begins_with_a_mark_and_has_thousands_in_quotes():
    made = toronto_rows.development_pipeline(200, misfits=2)
    assert made.body.startswith(b"\xef\xbb\xbfPipeline Status,")
    rows = records(made)
    assert "\ufeffPipeline Status" in rows[0] and len(rows) == 200
    assert sum(row["Ward"] == "not known" for row in rows) == made.misfits == 2
    assert any(row["Ward"].endswith(".0") for row in rows) and any("," in row["Proposed Gross Floor Area"] for row in rows)
    assert any(row["Proposed Residential Units"] == "0" for row in rows) and any("\n" in row["Description"] for row in rows)


def test_the_grants_lie_in_the_first_of_two_sheets_with_untidy_headers():
    book = load_workbook(io.BytesIO(toronto_rows.grants(2023, 20).body))
    assert book.sheetnames == ["Grants Allocations", "Legend"]
    header, *rows = book["Grants Allocations"].iter_rows(values_only=True)
    assert header[4] == "Total Funding Amount " and len([row for row in rows if any(value is not None for value in row)]) == 20
    assert any(row[4] == 0 for row in rows) and book["Legend"].max_row == toronto_rows.LEGEND_ROWS + 1
    codes = load_workbook(io.BytesIO(toronto_rows.subway_codes().body))
    assert codes.sheetnames[1] == "Subway Code Description" and codes["Subway Code Description"]["A1"].value == "CODE "


def test_the_establishments_have_each_kind_of_nothing_in_them():
    made = json.loads(toronto_rows.dinesafe(120).body)
    inspections = [one for place in made for one in place["inspections"] or []]
    infractions = [one for visit in inspections for one in visit["infractions"] or []]
    prosecutions = [one for fault in infractions for one in fault["prosecutions"] or []]
    assert {None, ()} <= {tuple(place["inspections"]) if place["inspections"] == [] else place["inspections"] and 1 for place in made}
    assert any(visit["infractions"] is None for visit in inspections) and any(fault["prosecutions"] is None for fault in infractions)
    assert {0, 365.0, None} <= {one["amountFined"] for one in prosecutions} and any(one["outcomeDate"] is None for one in prosecutions)
    assert any(len(kinds) > len(set(kinds)) for visit in inspections if (kinds := [fault["typeDesc"] for fault in visit["infractions"] or []]))


def test_the_by_laws_lie_below_a_path_and_the_licences_are_not_utf8():
    laws = json.loads(toronto_rows.by_laws().body)["value"]
    assert len(laws) == 44 and any(law["latestRegulationActionCouncilDate"] is None for law in laws) and isinstance(laws[0]["tableData"], dict)
    licences = toronto_rows.licences_latin1()
    with pytest.raises(UnicodeDecodeError):
        licences.body.decode()
    rows = records(licences, "latin-1")
    assert rows[0]["Operating Name"].startswith("Pâtisserie") and any(row["Latitude"] == "" for row in rows)


# layers


@pytest.fixture
def maps():
    with ArcGIS(toronto_layers()) as one:
        yield one
    assert one.mistakes == []


def query(server, path=ROADS, **asked):
    return Client(server).json(f"{path}/query", **{"f": "geojson", "where": "1=1", **asked})


def test_a_layer_describes_itself_and_counts(maps):
    told = Client(maps).json(ROADS, f="json")
    assert told["objectIdField"] == "OBJECTID" and told["maxRecordCount"] == 50 and told["editingInfo"]["lastEditDate"] % 1000 == 0
    assert {field["name"] for field in told["fields"]} == {name for name, _ in toronto_rows.ROAD_FIELDS}
    assert query(maps, f="json", returnCountOnly="true") == {"count": 120}
    assert query(maps, f="json", returnCountOnly="true", where=FILTER) == {"count": 90}
    ids = query(maps, f="json", returnIdsOnly="true", where=FILTER)
    assert ids["objectIdFieldName"] == "OBJECTID" and len(ids["objectIds"]) == 90 and 0 in ids["objectIds"]


@pytest.mark.parametrize(
    ("flag", "top", "inside"), [(TOP, True, False), (PROPERTIES, False, True), (FLAGGED_TWICE, True, True), (NEITHER, False, False)]
)
def test_a_page_says_where_it_is_told_to_that_there_are_more(maps, flag, top, inside):
    maps.layers[ROADS].flag = flag
    page = query(maps)
    assert len(page["features"]) == 50
    assert ("exceededTransferLimit" in page, "exceededTransferLimit" in page.get("properties", {})) == (top, inside)
    last = query(maps, resultOffset="100")
    assert len(last["features"]) == 20 and "exceededTransferLimit" not in json.dumps(last)


def test_features_have_epoch_dates_null_geometries_zeros_and_no_blobs(maps):
    features = query(maps, where=FILTER, orderByFields="OBJECTID DESC", resultRecordCount="50")["features"]
    features += query(maps, where=FILTER, orderByFields="OBJECTID", resultRecordCount="50")["features"]
    assert features[0]["id"] > features[1]["id"] and features[50]["id"] == 0
    properties = [one["properties"] for one in features]
    assert all("PHOTO" not in one for one in properties) and any(one["geometry"] is None for one in features)
    assert any(one["EST_COST"] == 0 for one in properties) and any(one["LAST_UPDATED_DATE"] is None for one in properties)
    assert max(one["LAST_UPDATED_DATE"] or 0 for one in properties) > 1_710_000_000_000


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("1=1", 120), ("1=0", 0), ("OBJECTID = 0", 1), ("objectid > 10 AND OBJECTID <= 12", 2), ("(1=1) AND OBJECTID < 2", 2),
        ("INV_STATUS = 'it''s'", 0), (f"({FILTER} OR INV_DISPLAY_PROGRAM = 'TS_Cycling') AND EST_COST >= 0", 120), ("OBJECTID <> 0", 119),
    ],
)  # fmt: skip
def test_a_where_is_understood(maps, where, count):
    assert query(maps, f="json", returnCountOnly="true", where=where) == {"count": count}


@pytest.mark.parametrize("where", ["", "COLOUR = 'red'", "OBJECTID =", "(1=1", "1=1)", "OBJECTID LIKE 'x'", "OBJECTID ~ 1", "'x"])
def test_a_wrong_where_is_an_error_with_status_200(maps, where):
    assert query(maps, where=where)["error"]["code"] == 400


def test_old_and_closed_layers_refuse_as_they_do():
    path = "/arcgis/rest/services/Old/MapServer/3"
    layer = Layer("Old", [("FID", "esriFieldTypeOID")], [], has_pages=False, token="s3cret", speaks_geojson=False)
    with ArcGIS({path: layer}) as server:
        assert query(server, path)["error"]["code"] == 499
        assert query(server, path, token="wrong")["error"]["code"] == 498
        told = Client(server).json(path, f="json", token="s3cret")
        assert "advancedQueryCapabilities" not in told and "editingInfo" not in told and told["id"] == 3
        assert query(server, path, token="s3cret")["error"]["code"] == 400
        layer.speaks_geojson = True
        assert query(server, path, token="s3cret", resultOffset="1")["error"]["message"] == "Pagination is not supported."
        assert Client(server).json("/x/FeatureServer/9", f="json")["error"]["code"] == 400
    assert server.mistakes == []


def test_an_edit_moves_the_date_of_the_layer(maps):
    first = Client(maps).json(ROADS, f="json")["editingInfo"]["lastEditDate"]
    maps.edit(ROADS, toronto_rows.road_works(40))
    assert Client(maps).json(ROADS, f="json")["editingInfo"]["lastEditDate"] > first
    assert query(maps, f="json", returnCountOnly="true") == {"count": 40}
