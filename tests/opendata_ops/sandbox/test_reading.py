"""Reading as SODA 2.1 was measured to answer: rows, counts, metadata, headers and error bodies."""

import csv
import io
import json
from email.utils import parsedate_to_datetime

import pytest

from opendata_ops.sandbox import Dataset, Portal

from .conftest import COLUMNS, Client, small_rows

ROWS = "/resource/abcd-1234.json"
TABLE = "/resource/abcd-1234.csv"


def test_json_leaves_nulls_out_and_says_numbers_as_text(ask):
    [row] = ask.json(ROWS, S_where="srnumber='1-1003'")
    assert row == {
        "srnumber": "1-1003",
        "status": "Closed",
        "updateddate": "2020-01-01T00:00:00.000",
        "location": {"type": "Point", "coordinates": [-118.5, 34.253]},
        "verified": False,
    }
    [row] = ask.json(ROWS, S_where="srnumber='1-1004'")
    assert row["nc"] == "4" and row["verified"] is True


def test_csv_quotes_every_value_that_is_not_null(ask):
    _, headers, body = ask(TABLE, S_where="srnumber in ('1-1002','1-1003')", S_order="srnumber")
    assert headers["content-type"] == "text/csv; charset=UTF-8"
    assert body.decode() == (
        '"srnumber","status","updateddate","nc","address","location","verified"\n'
        '"1-1002","Closed","2020-01-01T00:00:00.000","2","UNIT 4\nCAÑADA ☂","POINT (-118.5 34.252)","true"\n'
        '"1-1003","Closed","2020-01-01T00:00:00.000",,,"POINT (-118.5 34.253)","false"\n'
    )


def test_a_csv_page_reads_back_as_the_rows(ask, portal):
    _, _, body = ask(TABLE, S_order="srnumber", S_limit=50000)
    read = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    kept = portal.dataset("abcd-1234").rows
    assert [row["srnumber"] for row in read] == sorted(kept)
    assert all(row["address"] == (kept[row["srnumber"]]["address"] or "") for row in read)


def test_only_a_thousand_rows_come_when_no_limit_is_asked():
    with Portal(Dataset("many-0000", "", ["id"], [{"id": f"{i:05d}"} for i in range(1500)], key="id")) as portal:
        ask = Client(portal)
        assert len(ask.json("/resource/many-0000.json")) == 1000
        assert len(ask.json("/resource/many-0000.json", S_offset=1000, S_order="id")) == 500


def test_an_empty_page_is_a_list_and_a_newline(ask):
    assert ask(ROWS, S_offset=1000)[2] == b"[]\n"
    assert ask(TABLE, S_offset=1000)[2].count(b"\n") == 1


def test_pages_in_a_stable_order_hold_each_row_once(ask):
    pages = [ask.json(ROWS, S_order="srnumber", S_limit=30, S_offset=offset) for offset in (0, 30, 60, 90)]
    seen = [row["srnumber"] for page in pages for row in page]
    assert seen == sorted(seen) and len(set(seen)) == 100


@pytest.mark.parametrize("order", ["", "updateddate", "status"])
def test_pages_without_a_total_order_lose_rows(ask, order):
    seen = [row["srnumber"] for offset in (0, 33, 66, 99) for row in ask.json(ROWS, S_order=order, S_limit=33, S_offset=offset)]
    assert len(seen) == 100 and len(set(seen)) < 100


def test_the_order_by_row_id_is_stable_too(ask):
    rows = [row for offset in (0, 60) for row in ask.json(ROWS, S_select=":id,srnumber", S_order=":id", S_limit=60, S_offset=offset)]
    assert len({row[":id"] for row in rows}) == 100
    assert [row[":id"] for row in rows] == sorted(row[":id"] for row in rows)


def test_nulls_are_last_going_up_and_first_going_down(ask):
    up = [row.get("nc") for row in ask.json(ROWS, S_order="nc, srnumber")]
    down = [row.get("nc") for row in ask.json(ROWS, S_order="nc DESC, srnumber")]
    assert up[:3] == ["0", "1", "2"] and up[-10:] == [None] * 10
    assert down[:10] == [None] * 10 and down[10] == "99"


def test_system_fields_come_only_when_they_are_asked_for(ask):
    assert not any(name.startswith(":") for name in ask.json(ROWS, S_limit=1)[0])
    [row] = ask.json(ROWS, S_select=":*,*", S_limit=1, S_order=":id")
    assert {":id", ":created_at", ":updated_at", ":version"} <= set(row)
    assert row[":updated_at"].endswith("Z") and row[":id"].startswith("row-")


def test_the_headers_tell_fields_types_and_time(ask, portal):
    _, headers, _ = ask(ROWS, S_select="srnumber,updateddate,nc,location")
    assert headers["content-type"] == "application/json;charset=utf-8"
    assert json.loads(headers["x-soda2-fields"]) == ["srnumber", "updateddate", "nc", "location"]
    assert json.loads(headers["x-soda2-types"]) == ["text", "floating_timestamp", "number", "point"]
    assert parsedate_to_datetime(headers["last-modified"]).timestamp() == portal.dataset("abcd-1234").rows_updated_at
    assert headers["x-soda2-data-out-of-date"] == "false"
    assert headers["x-socrata-requestid"] and headers["etag"].endswith('--gzip"')


def test_a_wide_table_has_no_room_for_field_headers():
    with Portal(Dataset("wide-0000", "", [f"column_with_a_long_name_{i}" for i in range(200)])) as portal:
        assert "x-soda2-fields" not in Client(portal)("/resource/wide-0000.json")[1]


def test_one_row_is_found_by_its_key(ask):
    assert ask.json("/resource/abcd-1234/1-1007.json")["srnumber"] == "1-1007"
    assert ask("/resource/abcd-1234/nothing.json")[0] == 404


def test_metadata_has_the_keys_that_clients_read(ask, portal):
    told = ask.json("/api/views/abcd-1234.json")
    assert told["rowsUpdatedAt"] == portal.dataset("abcd-1234").rows_updated_at
    assert told["metadata"]["custom_fields"]["Update"]["Update Frequency"] == "Daily"
    by_name = {column["fieldName"]: column for column in told["columns"]}
    assert by_name["updateddate"]["dataTypeName"] == "calendar_date" and by_name["updateddate"]["name"] == "UpdatedDate"
    assert str(by_name["srnumber"]["id"]) == told["metadata"]["rowIdentifier"] == str(told["rowIdentifierColumnId"])
    assert [column["position"] for column in told["columns"]] == list(range(1, 8))
    contents = by_name["nc"]["cachedContents"]
    assert (contents["count"], contents["null"], contents["largest"], contents["smallest"]) == ("100", "10", "99", "0")
    assert "rowIdentifierColumnId" not in ask.json("/api/views/free-0000.json")
    assert ask.json("/api/views/metadata/v1/abcd-1234")["dataUri"].endswith("/resource/abcd-1234")


def test_the_whole_table_downloads_with_display_names_whatever_is_asked(ask):
    _, headers, body = ask("/api/views/abcd-1234/rows.csv?accessType=DOWNLOAD&$limit=1")
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert rows[0] == ["SRNumber", "Status", "UpdatedDate", "NC", "Address", "Location", "Verified"]
    assert len(rows) == 101 and rows[1][2] == "01/01/2020 12:00:00 AM" and rows[1][5] == "POINT (-118.5 34.25)"
    assert headers["transfer-encoding"] == "chunked"


def test_the_catalog_lists_what_is_public(portal, ask):
    portal.add(Dataset("priv-0000", "Secret", ["id"], private=True))
    told = ask.json("/api/catalog/v1", limit=1)
    assert told["resultSetSize"] == 2 and len(told["results"]) == 1
    assert told["results"][0]["resource"]["columns_datatype"][2] == "Calendar date"
    assert ask.json("/api/catalog/v1", domains="elsewhere.gov")["results"] == []


def test_soda3_answers_only_with_a_token(ask):
    path = "/api/v3/views/abcd-1234/query.json"
    body = {"query": "SELECT srnumber WHERE status = 'Open'", "page": {"pageNumber": 2, "pageSize": 10}}
    assert ask(path, "POST", body)[0] == 403
    token = {"X-App-Token": "any"}
    assert [row["srnumber"] for row in json.loads(ask(path, "POST", body, token)[2])][:2] == ["1-1040", "1-1044"]
    assert ":id" in json.loads(ask(path, "POST", {"query": "SELECT *"}, token)[2])[0]
    assert ask("/api/v3/views/abcd-1234/export.csv", "POST", {}, token)[2].count(b'\n"1-') == 100


def test_a_soda3_export_knows_no_pages_and_a_query_pages_within_its_limit(ask):
    token = {"X-App-Token": "any"}
    paged = {"query": "SELECT srnumber ORDER BY srnumber LIMIT 25", "page": {"pageNumber": 3, "pageSize": 10}}
    export = ask("/api/v3/views/abcd-1234/export.csv", "POST", paged, token)[2]
    assert export.count(b'\n"1-') == 25
    rows = json.loads(ask("/api/v3/views/abcd-1234/query.json", "POST", paged, token)[2])
    assert [row["srnumber"] for row in rows] == [f"1-{1000 + n}" for n in range(20, 25)]
    for bad in ("{", {"page": {"pageNumber": 0}}, {"page": {"pageSize": "many"}}, {"page": 3}, [1]):
        assert ask("/api/v3/views/abcd-1234/query.json", "POST", bad, token)[0] == 400


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/resource/songs.json", 404, {"code": "dataset.missing", "error": True, "message": "Not found", "data": {"id": "songs"}}),
        ("/api/views/songs.json", 404, {"code": "not_found", "error": True, "message": "Not found", "data": {"id": "songs"}}),
        ("/resource/abcd-1234.json?$foo=1", 400, {"error": True, "message": "Unrecognized arguments [$foo]"}),
    ],
)
def test_errors_have_the_measured_bodies(ask, path, status, body):
    got, headers, text = ask(path)
    assert (got, json.loads(text)) == (status, body)
    if "views" in path:
        assert headers["x-error-code"] == "not_found"


def test_a_private_dataset_wants_a_log_in_and_a_retired_one_is_gone():
    with Portal(
        Dataset("priv-0000", "", ["id"], [{"id": "1"}], private=True),
        Dataset("gone-0000", "", ["id"], retired=True),
        accounts={"u": "p"},
    ) as portal:
        ask = Client(portal)
        status, _, body = ask("/resource/priv-0000.json")
        assert status == 403 and json.loads(body) == {"message": "You must be logged in to access this resource", "error": True}
        assert ask("/resource/priv-0000.json", headers={"Authorization": "Basic dTpw"})[0] == 200
        assert ask("/resource/priv-0000.json", headers={"Authorization": "Basic dTp4"})[0] == 401
        assert ask("/resource/gone-0000.json")[0] == 410


def test_a_wrong_password_is_refused_where_the_dataset_is_public_too_and_the_catalog_is_open_to_all():
    with Portal(Dataset("abcd-1234", "", ["id"], [{"id": "1"}]), accounts={"u": "p"}) as portal:
        ask = Client(portal)
        for path in ("/api/views/abcd-1234.json", ROWS):
            assert ask(path)[0] == ask(path, headers={"Authorization": "Basic dTpw"})[0] == 200
            status, _, body = ask(path, headers={"Authorization": "Basic dTp4"})
            assert (status, json.loads(body)["code"]) == (401, "authentication_required")
        assert ask("/api/catalog/v1", headers={"Authorization": "Basic dTp4"})[0] == 200


def test_a_portal_may_want_a_token_and_know_which():
    with Portal(Dataset("abcd-1234", "", ["id"]), require_token=True, tokens=["good"]) as portal:
        ask = Client(portal)
        assert ask(ROWS)[0] == 403
        status, _, body = ask(ROWS, headers={"X-App-Token": "bad"})
        assert (status, json.loads(body)["message"]) == (403, "Invalid app_token specified")
        assert ask(ROWS, headers={"X-App-Token": "good"})[0] == 200
        assert ask(f"{ROWS}?$$app_token=good")[0] == 200


def test_an_old_portal_refuses_more_than_fifty_thousand_rows():
    with Portal(Dataset("abcd-1234", "", ["id"]), limit_cap=50_000) as portal:
        ask = Client(portal)
        assert ask(ROWS, S_limit=50_000)[0] == 200
        status, _, body = ask(ROWS, S_limit=50_001)
        assert (status, json.loads(body)["message"]) == (400, "length must be <= 50000")


def test_gzip_is_sent_to_who_accepts_it():
    import gzip

    with Portal(Dataset("abcd-1234", "", COLUMNS, small_rows(), key="srnumber"), compress=True) as portal:
        ask = Client(portal)
        _, headers, body = ask(TABLE, headers={"Accept-Encoding": "gzip"})
        assert headers["content-encoding"] == "gzip" and gzip.decompress(body).startswith(b'"srnumber"')
        assert "content-encoding" not in ask(TABLE)[1]


def test_what_was_asked_is_remembered_in_order(ask, portal):
    ask(ROWS, S_select="count(*)")
    ask("/api/views/abcd-1234.json")
    assert [(asked.method, asked.path, asked.query, asked.status) for asked in portal.requests] == [
        ("GET", ROWS, {"$select": "count(*)"}, 200),
        ("GET", "/api/views/abcd-1234.json", {}, 200),
    ]
    assert portal.requests[0].at <= portal.requests[1].at
    portal.requests.clear()
    assert portal.requests == []


def test_a_stopped_portal_refuses_and_may_start_again_at_the_same_address(ask, portal):
    port = portal.port
    portal.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(ROWS)
    portal.start()
    assert portal.port == port and ask(ROWS)[0] == 200


def test_real_rows_of_los_angeles_are_served_as_a_portal_would():
    from pathlib import Path

    path = Path(__file__).parents[4] / "shared/data/la311_2020_10000rows.csv"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    dataset = Dataset.from_csv(path, id="rq3b-xjk8", key="srnumber")
    assert len(dataset.rows) == 10_000
    with Portal(dataset) as portal:
        ask = Client(portal)
        row = ask.json("/resource/rq3b-xjk8/1-1523590121.json")
        assert (row["createddate"], row["latitude"], row["nc"]) == ("2020-01-01T00:05:00.000", "34.19402846", "19")
        assert ask.json("/resource/rq3b-xjk8.json", S_select="count(mobileos)") == [{"count_mobileos": "2299"}]
        _, headers, _ = ask("/resource/rq3b-xjk8.json", S_limit=1, S_select="createddate,cd,zipcode")
        assert json.loads(headers["x-soda2-types"]) == ["floating_timestamp", "number", "text"]
