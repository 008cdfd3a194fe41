"""The Socrata connector, against the practice city's portal."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import threading
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors.base import Account, Column, FetchRequest
from pipelines.connectors.http import Door
from pipelines.connectors.socrata import Socrata
from pipelines.errors import DataError, PipelineError, SetupError, TransientError
from pipelines.formats.json_rows import write_csv
from tests.pipelines.connectors.servers import Told, by_hand

CANARY = "c4nary-secret-value"
ID = "rq3b-xjk8"
COLUMNS = (
    ("srnumber", "text", "SRNumber"),
    ("createddate", "calendar_date", "CreatedDate"),
    ("seen", "date", "Seen"),
    ("nc", "number", "NC"),
    ("anonymous", "checkbox", "Anonymous"),
    ("place", "point", "Place"),
    ("address", "text", "Address"),
)
START = datetime(2020, 1, 1)


def row(n: int) -> dict:
    return {
        "srnumber": f"1-{n:06d}",
        "createddate": (START + timedelta(hours=n)).isoformat(timespec="milliseconds"),
        "seen": (START + timedelta(hours=n)).isoformat(timespec="milliseconds") + "Z",
        "nc": str(n % 99) if n % 7 else None,
        "anonymous": n % 2 == 0,
        "place": {"type": "Point", "coordinates": [-118.25, 34.05]} if n % 3 else None,
        "address": f'{n} "MAIN", ST\nAPT {n}' if n % 5 == 0 else f"{n} ELM ST",
    }


def dataset(rows: int = 250, **more) -> Dataset:
    return Dataset(ID, "MyLA311", COLUMNS, [row(n) for n in range(rows)], **{"key": "srnumber", "rows_updated_at": 1_600_000_000, **more})


@pytest.fixture
def portal():
    with Portal(dataset(), accounts={"publisher": CANARY}) as portal:
        yield portal
    assert not portal.mistakes


@pytest.fixture
def events():
    return []


@pytest.fixture
def city(portal, events):
    """Make a connector for the portal: `city()`, `city(user="…")`."""
    doors = []

    def make(
        url: str = "", user: str = "publisher", password: str = CANARY, token: str = "token-123", allow=("127.0.0.0/8",), api: str = "", **door
    ) -> Socrata:
        doors.append(
            Door(
                allow,
                sleep=lambda seconds: None,
                secrets=[CANARY, token],
                owner="provider la-311",
                on_event=lambda *event: events.append(event),
                **door,
            )
        )
        secrets = {"password": password, "app_token": token}
        return Socrata(Account("la-311", url or portal.url, {"user": user, "api": api}, secrets, "America/Los_Angeles"), doors[-1])

    yield make
    for door in doors:
        door.close()


def request(names: str = "srnumber createddate nc address", **more) -> FetchRequest:
    types = {"createddate": "local_time", "seen": "instant", "nc": "number", "anonymous": "boolean", "place": "point"}
    columns = tuple(Column(name, types.get(name, "text")) for name in names.split())
    return FetchRequest(columns, **{"order": ("srnumber",), "page_size": 100, "time_zone": "America/Los_Angeles", **more})


def fetched(connector: Socrata, asked: FetchRequest, rows: int, workdir) -> list:
    return list(connector.fetch(ID, asked, rows=rows, workdir=workdir, progress=lambda so_far, expected: None))


def rows_of(files) -> list[dict]:
    found = []
    for file in files:
        with file.path.open(encoding="utf-8", newline="") as page:
            found += list(csv.DictReader(page))
    return found


# ------------------------------------------------------------------------------------------------------------ describe


def test_one_metadata_request_tells_all_that_a_source_says_of_itself(portal, city):
    portal.dataset(ID).update_frequency = "Daily"
    state = city().describe(ID)
    assert (state.title, state.version, state.changed_at, state.key) == (
        "MyLA311", "1600000000", datetime.fromtimestamp(1_600_000_000, UTC), "srnumber",
    )  # fmt: skip
    assert [(column.name, column.type, column.label) for column in state.columns] == [
        ("srnumber", "text", "SRNumber"), ("createddate", "local_time", "CreatedDate"), ("seen", "instant", "Seen"), ("nc", "number", "NC"),
        ("anonymous", "boolean", "Anonymous"), ("place", "point", "Place"), ("address", "text", "Address"),
    ]  # fmt: skip
    assert state.refresh_rate == "Daily"
    assert [(asked.method, asked.path) for asked in portal.requests] == [("GET", f"/api/views/{ID}.json")]


@pytest.mark.parametrize("new_backend", [True, False])
def test_what_the_portal_counted_of_its_columns_comes_with_the_metadata(portal, city, new_backend):
    portal.new_backend = new_backend
    portal.alter(ID, add={"nothing": "text"})
    stats = city().describe(ID).metadata["column_stats"]
    nc = stats["nc"]
    absent = sum(n % 7 == 0 for n in range(250))
    assert (nc["count"], nc["non_null"], nc["null"], nc["cardinality"]) == (250, 250 - absent, absent, len({n % 99 for n in range(250) if n % 7}))
    assert (nc["smallest"], nc["largest"]) == ("0", "98")
    assert len(nc["top"]) == 20 and all(type(entry["count"]) is int for entry in nc["top"]) and nc["top"][0]["count"] == 3
    assert stats["nothing"] == {"count": 250, "non_null": 0, "null": 250, "cardinality": 0}
    assert (stats["createddate"]["smallest"], stats["createddate"]["largest"]) == ("2020-01-01T00:00:00.000", "2020-01-11T09:00:00.000")
    assert len(portal.requests) == 1  # and no row was asked for


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (None, {}), ([], {}), ("7", {}), ({}, {}),
        ({"count": "many", "null": None, "cardinality": "7"}, {"cardinality": 7}),
        ({"non_null": "5", "smallest": None, "largest": "", "top": ["x", {}, {"item": None}, {"item": {"url": "u"}, "count": "2"}]},
         {"non_null": 5, "largest": "", "top": [{"item": {"url": "u"}, "count": 2}]}),
    ],
)  # fmt: skip
def test_statistics_of_another_shape_are_left_out_and_stop_nothing(city, contents, told):
    column = {"fieldName": "a", "name": "A", "dataTypeName": "text", "cachedContents": contents}
    with Told(Reply.of({"id": ID, "columns": [column]})) as portal:
        assert city(portal.url).describe(ID).metadata["column_stats"] == ({"a": told} if told else {})


def test_what_a_steward_should_know_comes_with_the_metadata(portal, city):
    portal.datasets.clear()
    about = {"licence": "CC0", "tags": ("311", "calls"), "category": "Service", "attribution": "BOS", "contact_email": "data@la.example"}
    portal.add(dataset(2, update_frequency="Every 2 Weeks", description="Calls.", **about))
    state = city().describe(ID)
    assert (state.refresh_rate, state.licence, state.description) == ("Every 2 Weeks", "CC0", "Calls.")
    metadata = state.metadata
    assert [metadata[name] for name in ("tags", "category", "attribution", "contact")] == [["311", "calls"], "Service", "BOS", "data@la.example"]


@pytest.mark.parametrize(
    ("view", "contact"),
    [
        ({"privateMetadata": {"contactEmail": "a@b.example"}}, "a@b.example"),
        ({"metadata": {"custom_fields": {"Who": {"Contact Name": "Ann", "Contact Email": "a@b.example"}}}}, "a@b.example"),
        ({"metadata": {"custom_fields": {"Who": {"Contact": "Ann"}, "odd": "text"}}}, "Ann"),
        ({"owner": {"displayName": "robot"}}, ""),
    ],
)
def test_the_contact_is_found_wherever_the_portal_keeps_it(city, view, contact):
    with Told(Reply.of(a_view(**view))) as told:
        assert city(told.url).describe(ID).metadata["contact"] == contact


def test_the_version_moves_when_the_rows_do(portal, city):
    before = city().describe(ID).version
    portal.touch(ID)
    assert city().describe(ID).version != before


def a_view(**more) -> dict:
    columns = [
        {"id": 11, "fieldName": "a", "name": "A", "dataTypeName": "text"},
        {"id": 22, "fieldName": "b", "name": "B", "dataTypeName": "location"},
        {"id": 33, "fieldName": ":@computed_region_x", "name": "x", "dataTypeName": "number"},
    ]
    return {"id": ID, "name": "n", "columns": columns, "viewLastModified": 5, **more}


@pytest.mark.parametrize(
    ("view", "key"),
    [
        ({"metadata": {"rowIdentifier": "b"}}, "b"),
        ({"metadata": {"rowIdentifier": 22}}, "b"),
        ({"metadata": {"rowIdentifier": "22"}}, "b"),
        ({"rowIdentifierColumnId": 11}, "a"),
        ({"metadata": {"rowIdentifier": 0}, "rowIdentifierColumnId": 22}, "b"),
        ({"metadata": None}, ""),
        ({}, ""),
    ],
)
def test_the_row_identifier_is_found_wherever_the_portal_keeps_it(city, view, key):
    with Told(Reply.of(a_view(**view))) as told:
        state = city(told.url).describe(ID)
    assert state.key == key
    assert [column.name for column in state.columns] == ["a", "b"]  # computed regions are the portal's own
    assert (state.version, state.columns[1].type) == ("5", "text")  # no rowsUpdatedAt: the view's own clock


@pytest.mark.parametrize("resource", ["", "rq3b", "RQ3B-XJK8", "rq3b-xjk8/../x", "rq3b-xjk8?x=1", "../../etc"])
def test_what_is_not_a_dataset_id_is_never_asked_for(portal, city, resource):
    with pytest.raises(SetupError) as caught:
        city().describe(resource)
    assert (caught.value.code, portal.requests) == ("bad-resource", [])


def test_a_dataset_without_columns_is_not_a_table(city):
    with Told(Reply.of({"id": ID, "name": "a map", "columns": []})) as told, pytest.raises(SetupError) as caught:
        city(told.url).describe(ID)
    assert caught.value.code == "not-a-table"


@pytest.mark.parametrize(
    "view",
    [
        {"columns": [1, 2]},
        {"columns": [{"name": "no field name"}]},
        {"columns": [{"fieldName": "a"}], "rowsUpdatedAt": "soon"},
        {"columns": [{"fieldName": "a"}], "rowsUpdatedAt": 99999999999999999},
        {"columns": [{"fieldName": "a"}], "license": "CC0"},
        {"columns": {"a": 1}},
    ],
)
def test_metadata_of_another_shape_is_the_portals_fault_and_told_so(city, view):
    with Told(Reply.of(view)) as told, pytest.raises(DataError) as caught:
        city(told.url).describe(ID)
    assert caught.value.code == "odd-metadata"


@pytest.mark.parametrize(("change", "code"), [({"private": True}, "http-403"), ({"retired": True}, "http-410")])
def test_a_closed_dataset_is_told_in_the_portals_words(portal, city, change, code):
    for name, value in change.items():
        setattr(portal.dataset(ID), name, value)
    with pytest.raises(SetupError) as caught:
        city(user="", password="").describe(ID)
    assert (caught.value.code, bool(caught.value.next_step)) == (code, True)


def test_a_missing_dataset_is_told_with_its_next_step(city):
    with pytest.raises(SetupError, match="says 404: Not found") as caught:
        city().describe("gone-gone")
    assert "id" in caught.value.next_step


def test_a_private_dataset_is_read_with_the_credentials(portal, city):
    portal.dataset(ID).private = True
    assert city().describe(ID).title == "MyLA311"


# ------------------------------------------------------------------------------------------------------------- address


def test_http_is_for_listed_hosts_only(city, monkeypatch):
    for url in ("http://data.example.gov", "HTTP://data.example.gov/"):
        with pytest.raises(SetupError) as caught:
            city(url).describe(ID)
        assert caught.value.code == "plain-http"


def test_an_address_without_a_scheme_means_https(city):
    assert city("data.example.gov/").web_address == "https://data.example.gov"


def test_the_test_button_asks_one_small_question_without_a_password(portal, city):
    assert city(user="").test().endswith("its catalog lists 1 entries")
    assert len(portal.requests) == 1
    with Told() as told, pytest.raises(SetupError, match="not as a Socrata portal does"):
        city(told.url).test()


def test_the_test_button_tries_the_password(portal, city):
    assert city().test().endswith("its catalog lists 1 entries, and it takes the user name and password")
    assert [asked.path for asked in portal.requests] == ["/api/catalog/v1", f"/api/views/{ID}.json"]
    with pytest.raises(SetupError) as caught:
        city(password="wrong-password").test()
    assert (caught.value.code, caught.value.next_step) == ("http-401", "Check the user name and password of provider la-311.")
    assert "wrong-password" not in caught.value.message


@pytest.mark.parametrize("results", [[], [{"resource": {"id": "no id"}}], [None, {"resource": 3}], None])
def test_a_catalog_without_a_dataset_leaves_the_password_untried_and_says_so(city, results):
    with Told(Reply.of({"resultSetSize": 0, "results": results})) as told:
        assert "the password could not be tried" in city(told.url).test()


def test_the_app_token_travels_in_its_header_and_nowhere_else(portal, city, tmp_path):
    connector = city()
    fetched(connector, request(), connector.count(ID, request()), tmp_path)
    assert {asked.headers["x-app-token"] for asked in portal.requests} == {"token-123"}
    assert not [asked for asked in portal.requests if "token-123" in asked.target]


# --------------------------------------------------------------------------------------------------------------- count


@pytest.mark.parametrize("name", ["count", "COUNT", "count_1"])
def test_a_count_is_taken_by_value_whatever_its_name(portal, city, name):
    portal.count_key = name
    assert city().count(ID, request()) == 250


@pytest.mark.parametrize("body", ["[]", "{}", '[{"count": "many"}]', '[{"a": 1, "b": 2}]', "7"])
def test_an_answer_that_is_no_count_is_refused(city, body):
    with Told(Reply(200, body.encode())) as told, pytest.raises(DataError) as caught:
        city(told.url).count(ID, request())
    assert caught.value.code == "no-count"


# --------------------------------------------------------------------------------------------------------------- fetch


@pytest.mark.parametrize("in_flight", [1, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250])
def test_every_row_comes_once_and_in_order(portal, city, tmp_path, rows, in_flight):
    portal.datasets.clear()
    portal.add(dataset(rows))
    asked, seen = request("srnumber address nc", in_flight=in_flight), []
    connector = city()
    assert connector.count(ID, asked) == rows
    files = list(connector.fetch(ID, asked, rows=rows, workdir=tmp_path, progress=lambda *so_far: seen.append(so_far)))
    assert rows_of(files) == [{"srnumber": row(n)["srnumber"], "address": row(n)["address"], "nc": row(n)["nc"] or ""} for n in range(rows)]
    assert [file.rows for file in files] == [min(100, rows - start) for start in range(0, rows, 100)]
    assert seen == [(min(start + 100, rows), rows) for start in range(0, rows, 100)]


def test_a_page_tells_where_it_came_from_and_what_it_is(portal, city, tmp_path):
    files = fetched(city(), request(), 250, tmp_path)
    assert [file.name for file in files] == [f"{ID}-00001.csv", f"{ID}-00002.csv", f"{ID}-00003.csv"]
    for file in files:
        stored = file.path.read_bytes()
        assert (file.bytes, file.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
        assert (file.metadata["request_id"] != "", file.metadata["out_of_date"]) == (True, False)
    assert [file.metadata["offset"] for file in files] == [0, 100, 200]
    assert f"{portal.url}/resource/{ID}.csv?" in files[0].origin


def test_columns_order_and_page_are_said_in_each_request(portal, city, tmp_path):
    fetched(city(), request(), 250, tmp_path)
    pages = [asked for asked in portal.requests if asked.path.endswith(".csv")]
    assert {asked.query["$select"] for asked in pages} == {"srnumber,createddate,nc,address"}
    assert {asked.query["$order"] for asked in pages} == {"srnumber,:id"}
    assert sorted((asked.query["$offset"], asked.query["$limit"]) for asked in pages) == [("0", "100"), ("100", "100"), ("200", "100")]


def test_no_more_pages_than_allowed_are_in_flight_or_ahead_of_the_reader(portal, city, tmp_path):
    portal.latency = 0.02
    busy, most, lock, fifth = set(), [], threading.Lock(), threading.Event()
    answer = portal.answer

    def watched(asked, fault):
        with lock:
            busy.add(asked.query["$offset"])
            most.append(len(busy))
            if len(most) == 5:
                fifth.set()
        reply = answer(asked, fault)
        with lock:
            busy.discard(asked.query["$offset"])
        return reply

    portal.answer = watched
    pages = city().fetch(ID, request(page_size=10, in_flight=3), rows=250, workdir=tmp_path, progress=lambda *_: None)
    first = next(pages)
    assert not fifth.wait(0.5)  # the one handed over, three on their way, and no other until the next is asked for
    assert [first, *pages][-1].rows == 10
    assert max(most) <= 3


def test_pages_in_flight_stop_when_the_reader_goes(portal, city, tmp_path):
    pages = city().fetch(ID, request(page_size=10, in_flight=3), rows=250, workdir=tmp_path, progress=lambda *_: None)
    next(pages)
    pages.close()
    assert len(portal.requests) <= 4
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("page-")]
    assert not list(tmp_path.glob("*.part"))


def test_a_page_that_is_half_here_stops_when_the_reader_goes(city, tmp_path):
    sent = []

    def endless():
        yield b'"srnumber"\n'
        while True:
            sent.append(64 * 1024)
            yield b'"1234567"\n' * 6553
            time.sleep(0.01)  # slow enough that the bound below is a second or two away, not an instant

    def answer(asked):
        return Reply(200, b'"srnumber"\n"1"\n' if asked.query["$offset"] == "0" else endless(), "text/csv")

    with Told(answer) as told:
        connector = city(told.url, max_bytes=16 * 1024 * 1024)
        pages = connector.fetch(ID, request("srnumber", page_size=1), rows=2, workdir=tmp_path, progress=lambda *_: None)
        next(pages)
        pages.close()
    assert sum(sent) < 8 * 1024 * 1024
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}-00001.csv"]


WINDOWS = [
    ("createddate", "createddate >= '2020-01-02T00:00:00.000' AND createddate < '2020-01-03T00:00:00.000'", 24),
    ("seen", "seen >= '2020-01-02T08:00:00.000Z' AND seen < '2020-01-03T08:00:00.000Z'", 24),
]


@pytest.mark.parametrize(("column", "where", "rows"), WINDOWS)
def test_a_window_is_asked_for_in_the_columns_own_clock(portal, city, tmp_path, column, where, rows):
    zone = ZoneInfo("America/Los_Angeles")
    asked = request(
        f"srnumber {column}",
        window_column=column,
        starts_at=datetime(2020, 1, 2, tzinfo=zone).astimezone(UTC),
        ends_at=datetime(2020, 1, 3, tzinfo=zone).astimezone(UTC),
    )
    connector = city()
    assert connector.count(ID, asked) == rows
    assert sum(file.rows for file in fetched(connector, asked, rows, tmp_path)) == rows
    assert {asked.query["$where"] for asked in portal.requests} == {where}


def test_windows_that_meet_in_utc_meet_on_the_local_clock_through_both_changes_of_the_year(portal, city):
    """2020 in Los Angeles: no hour from 2 to 3 on 8 March, two of them from 1 to 2 on 1 November; each row belongs to one window."""
    zone = ZoneInfo("America/Los_Angeles")
    for day in (date(2020, 3, 8), date(2020, 11, 1)):
        portal.datasets.clear()
        local = [datetime(day.year, day.month, day.day) + timedelta(minutes=15 * quarter) for quarter in range(96)]
        portal.add(Dataset(ID, "n", COLUMNS[:2], [{"srnumber": str(n), "createddate": when.isoformat()} for n, when in enumerate(local)]))
        start = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        end = (datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(days=1)).astimezone(UTC)
        hours = [start + timedelta(hours=n) for n in range(int((end - start) / timedelta(hours=1)) + 1)]
        counts = [
            city().count(ID, request("srnumber createddate", window_column="createddate", starts_at=a, ends_at=b))
            for a, b in itertools.pairwise(hours)
        ]
        assert (sum(counts), len(counts)) == (96, 23 if day.month == 3 else 25)


@pytest.mark.parametrize("column", ["address", "absent"])
def test_a_window_needs_a_column_with_a_time(portal, city, column):
    asked = request("srnumber address", window_column=column, starts_at=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(SetupError) as caught:
        city().count(ID, asked)
    assert caught.value.code == "bad-window-column"
    # a column that was not asked for is looked up in the portal's description; no row is
    assert [seen.path for seen in portal.requests] == [f"/api/views/{ID}.json"] * (column == "absent")


# ------------------------------------------------------------------------------------------------------ since, and keys


def a_history(*moments: str | None) -> Dataset:
    """Rows 0, 1, 2, … whose createddate is each of `moments`."""
    return Dataset(ID, "n", COLUMNS, [{"srnumber": str(n), "createddate": moment} for n, moment in enumerate(moments)], key="srnumber")


def test_rows_at_the_watermark_and_rows_without_one_come_with_the_newer(portal, city, tmp_path):
    tie = "2020-09-20T01:39:13.000"
    portal.datasets.clear()
    portal.add(a_history("2020-09-20T01:39:12.999", tie, tie, None, "2020-09-20T01:39:13.001", "2019-01-01", None))
    asked = request("srnumber createddate", since_column="createddate", since="2020-09-20T01:39:13")
    connector = city()
    assert connector.count(ID, asked) == 5
    assert [found["srnumber"] for found in rows_of(fetched(connector, asked, 5, tmp_path))] == ["1", "2", "3", "4", "6"]
    assert {seen.query["$where"] for seen in portal.requests} == {f"(createddate >= '{tie}' OR createddate IS NULL)"}


def test_the_portals_own_clock_is_compared_in_utc_and_never_null(portal, city, tmp_path):
    portal.dataset(ID).clock = lambda: 4_000_000_000.0
    changed = [f"1-{n:06d}" for n in (7, 8, 200)]
    portal.dataset(ID).publish([{"srnumber": name, "address": "moved"} for name in changed])
    connector = city()
    for since in ("2096-10-02T07:06:40.000Z", "2096-10-02T00:06:40-07:00", "2096-10-02T07:06:40"):
        asked = request("srnumber", since_column=":updated_at", since=since)
        assert connector.count(ID, asked) == 3
        assert [found["srnumber"] for found in rows_of(fetched(connector, asked, 3, tmp_path))] == changed
    assert {seen.query["$where"] for seen in portal.requests} == {":updated_at >= '2096-10-02T07:06:40.000Z'"}
    assert connector.count(ID, request("srnumber", since_column=":updated_at", since="2096-10-02T07:06:40.001Z")) == 0


def test_a_column_with_a_zone_is_compared_as_an_instant(portal, city):
    assert city().count(ID, request("srnumber seen", since_column="seen", since="2020-01-11T08:00:00.000Z")) == 2
    assert portal.requests[0].query["$where"] == "(seen >= '2020-01-11T08:00:00.000Z' OR seen IS NULL)"


def test_a_number_or_a_text_that_grows_may_be_the_watermark(portal, city):
    assert city().count(ID, request("srnumber nc", since_column="nc", since="97")) == sum(n % 99 >= 97 or n % 7 == 0 for n in range(250))
    assert city().count(ID, request("srnumber", since_column="srnumber", since="1-000240")) == 10
    assert city().count(ID, request("srnumber address", since_column="address", since="O'NEILL ST")) == 0


def test_a_watermark_and_a_window_are_both_asked_for(portal, city):
    asked = request(
        "srnumber createddate", since_column="createddate", since="2020-01-02T12:00:00",
        window_column="createddate", starts_at=datetime(2020, 1, 2, 8, tzinfo=UTC), ends_at=datetime(2020, 1, 3, 8, tzinfo=UTC),
    )  # fmt: skip
    assert city().count(ID, asked) == 12


@pytest.mark.parametrize(
    ("column", "since", "code"),
    [
        ("createddate", "yesterday", "bad-since"), ("createddate", "2020-01-01T00:00:00Z", "bad-since"), ("seen", "never", "bad-since"),
        ("nc", "1 OR 1=1", "bad-since"), ("nc", "NaN", "bad-since"), ("anonymous", "true", "bad-watermark-column"),
        ("place", "x", "bad-watermark-column"), ("colour", "1", "bad-watermark-column"), ("nc OR 1=1", "1", "bad-column"),
    ],
)  # fmt: skip
def test_a_watermark_that_cannot_be_compared_is_refused_before_a_row_is_asked_for(portal, city, column, since, code):
    with pytest.raises(SetupError) as caught:
        city().count(ID, request("srnumber createddate seen nc anonymous place", since_column=column, since=since))
    assert caught.value.code == code and caught.value.next_step
    assert not [seen for seen in portal.requests if seen.path.startswith("/resource/")]


def test_without_a_value_yet_everything_is_read(portal, city):
    assert city().count(ID, request("srnumber createddate", since_column="createddate", since="")) == 250
    assert "$where" not in portal.requests[0].query


def test_keys_alone_come_like_any_columns_though_the_window_is_of_another(portal, city, tmp_path):
    """What the periodic comparison asks for: the type of the window's column comes from the portal's description, once."""
    connector = city()
    whole = request("srnumber")
    assert rows_of(fetched(connector, whole, 250, tmp_path)) == [{"srnumber": f"1-{n:06d}"} for n in range(250)]
    asked = request("srnumber", since_column="createddate", since="2020-01-11T00:00:00")
    assert (connector.count(ID, asked), connector.count(ID, asked)) == (10, 10)
    assert [found["srnumber"] for found in rows_of(fetched(connector, asked, 10, tmp_path))] == [f"1-{n:06d}" for n in range(240, 250)]
    assert [seen.path for seen in portal.requests].count(f"/api/views/{ID}.json") == 1


@pytest.mark.parametrize("name", ["a' OR '1'='1", "a,b", "a b", "count(*)", "a\n", ""])
def test_a_name_that_is_no_field_name_is_never_sent(portal, city, tmp_path, name):
    for asked in (FetchRequest((Column(name),)), FetchRequest((Column("a"),), order=(name,))):
        with pytest.raises(SetupError):
            fetched(city(), asked, 1, tmp_path)
    assert portal.requests == []


# --------------------------------------------------------------------------------------------------- fetch, when it fails


def test_a_cut_body_without_a_length_is_caught_by_its_rows(portal, city, tmp_path):
    """Cut at the end of a line, no Content-Length: valid CSV, and nothing but the count shows it."""
    portal.fail(Fault("cut_at_line", part=0.4), path=r"offset=200")
    with pytest.raises(TransientError, match=r"gave \d+ of 50 rows from row 200 on") as caught:
        fetched(city(), request(), 250, tmp_path)
    assert caught.value.code == "short-page"


@pytest.mark.parametrize("offset", [0, 100, 200])
def test_a_page_with_a_row_too_few_is_not_taken(portal, city, tmp_path, offset):
    portal.fail(Fault("missing_row"), path=rf"offset={offset}")
    with pytest.raises(TransientError, match=rf"gave {49 if offset == 200 else 99} of"):
        fetched(city(), request(), 250, tmp_path)


def test_a_source_that_grew_gives_its_new_rows_with_the_last_page(portal, city, tmp_path):
    files = fetched(city(), request(), 240, tmp_path)
    assert [(file.rows, file.metadata["rows_expected"]) for file in files][-1] == (50, 40)


@pytest.mark.parametrize("fault", [Fault("cut"), Fault("cut_chunked"), Fault("html"), Fault("empty"), Fault(503), Fault("lost_reply")])
def test_a_bad_page_is_asked_for_again_and_the_rows_are_whole(portal, city, tmp_path, fault):
    portal.fail(fault, path=r"offset=100", times=2)
    assert [found["srnumber"] for found in rows_of(fetched(city(), request(), 250, tmp_path))] == [f"1-{n:06d}" for n in range(250)]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault("cut"), "cut-body"), (Fault("html"), "html-instead"), (Fault(500), "http-500"), (Fault("empty"), "empty-body"), (Fault(404), "http-404")],
)
def test_a_page_that_stays_bad_names_its_fault_and_leaves_no_part_behind(portal, city, tmp_path, fault, code):
    portal.fail(fault, path=r"offset=100", times=99)
    with pytest.raises(PipelineError) as caught:
        fetched(city(), request(), 250, tmp_path)
    assert caught.value.code == code
    assert {path.suffix for path in tmp_path.iterdir()} <= {".csv"}


def test_a_header_that_changed_names_the_column(portal, city, tmp_path):
    portal.fail(Fault("wrong_columns"), times=9)
    with pytest.raises(DataError, match=r"column 1 is '.*' where 'srnumber' was asked for") as caught:
        fetched(city(), request(), 250, tmp_path)
    assert caught.value.code == "wrong-columns"


def test_a_column_that_went_away_is_told_in_the_portals_words(portal, city, tmp_path):
    portal.alter(ID, remove=["nc"])
    with pytest.raises(SetupError, match="No such column: nc"):
        fetched(city(), request(), 250, tmp_path)


def test_a_byte_order_mark_does_not_become_a_column(portal, city, tmp_path):
    portal.fail(Fault("bom"), times=3)
    files = fetched(city(), request(), 250, tmp_path)
    assert {file.metadata["notes"][0] for file in files} == {"byte order mark taken off"}
    assert rows_of(files)[0]["srnumber"] == "1-000000"
    assert all(file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest() for file in files)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_a_bad_byte_in_a_cell_is_left_to_the_loader(city, tmp_path, byte):
    body = b'"srnumber"\n"1"\n"a' + byte + b'b"\n"3"\n'
    with Told(Reply(200, body, "text/csv")) as told:
        [file] = fetched(city(told.url), request("srnumber"), 3, tmp_path)
    assert (file.rows, file.path.read_bytes()) == (3, body)


def test_a_portal_whose_copy_is_behind_is_said_so(portal, city, events, tmp_path):
    portal.fail(Fault("out_of_date"), path=r"offset=100")
    files = fetched(city(), request(), 250, tmp_path)
    assert [file.metadata["out_of_date"] for file in files] == [False, True, False]
    assert [text for level, text in events if level == "warning" and "out of date" in text]


def test_packed_pages_are_the_same_pages(portal, city, tmp_path):
    plain = [file.sha256 for file in fetched(city(), request(), 250, tmp_path)]
    portal.compress = True
    assert [file.sha256 for file in fetched(city(), request(), 250, tmp_path)] == plain


def test_memory_does_not_grow_with_the_rows(portal, city, tmp_path):
    columns = [("id", "number"), ("text", "text")]
    portal.add(Dataset.made("made-rows", "Many", columns, 120_000, lambda n: (str(n), "x" * 80)))
    asked = FetchRequest((Column("id", "number"), Column("text")), page_size=20_000)
    connector = city()

    def peak(rows: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert sum(file.rows for file in connector.fetch("made-rows", asked, rows=rows, workdir=tmp_path, progress=lambda *_: None)) == rows
        return tracemalloc.get_traced_memory()[1] - before

    # the portal's own pages are in the figure too: both runs have three of them at once
    tracemalloc.start()
    small, large = peak(60_000), peak(120_000)
    tracemalloc.stop()
    assert large < small * 1.5


# --------------------------------------------------------------------------------------------------------------- SODA3


@pytest.mark.parametrize("api", ["", "2.1", "3"])
def test_both_apis_give_the_same_rows_in_the_same_order_and_the_same_pages(portal, city, tmp_path, api):
    asked = request(
        "srnumber createddate place address", window_column="createddate", starts_at=datetime(2020, 1, 2, 8, tzinfo=UTC),
        since_column="createddate", since="2020-01-03T00:00:00",
    )  # fmt: skip
    connector = city(api=api)
    assert connector.count(ID, asked) == 202
    files = fetched(connector, asked, 202, tmp_path)
    assert [file.rows for file in files] == [100, 100, 2]
    assert [found["srnumber"] for found in rows_of(files)] == [f"1-{n:06d}" for n in range(48, 250)]
    assert rows_of(files)[0]["place"] == "" and rows_of(files)[1]["place"] == "POINT (-118.25 34.05)"


def test_soda3_is_asked_by_post_in_one_query_with_its_order_and_its_limit(portal, city, tmp_path):
    heard, answer = [], portal.answer
    portal.answer = lambda asked, fault: heard.append((asked.method, asked.path, asked.json())) or answer(asked, fault)
    connector = city(api="3")
    files = fetched(connector, request("srnumber nc"), connector.count(ID, request("srnumber nc")), tmp_path)
    assert heard[0] == ("POST", f"/api/v3/views/{ID}/query.json", {"query": "SELECT count(*)"})
    assert sorted(heard[1:], key=str) == [
        ("POST", f"/api/v3/views/{ID}/export.csv", {"query": f"SELECT srnumber,nc ORDER BY srnumber,:id LIMIT 100 OFFSET {offset}"})
        for offset in (0, 100, 200)
    ]
    assert {asked.headers["x-app-token"] for asked in portal.requests} == {"token-123"}
    assert f"/api/v3/views/{ID}/export.csv?query=SELECT+srnumber" in files[0].origin


def test_soda3_without_a_token_is_told_what_it_lacks(portal, city, tmp_path):
    stranger = city(api="3", user="", password="", token="")
    for act in (lambda: stranger.count(ID, request()), lambda: fetched(stranger, request(), 250, tmp_path)):
        with pytest.raises(SetupError, match="only to who has an app token, and provider la-311 has none") as caught:
            act()
        assert caught.value.code == "token-missing" and "app token of provider la-311" in caught.value.next_step
    assert city(api="3", token="").count(ID, request()) == 250  # a log-in will do
    with pytest.raises(SetupError) as caught:
        city(api="3", password="wrong", token="").count(ID, request())
    assert caught.value.code == "http-401"


def test_an_api_that_there_is_not_is_refused_before_anything_is_asked(portal, city):
    with pytest.raises(SetupError, match="API 4, and a Socrata portal has 2.1 and 3") as caught:
        city(api="4").count(ID, request())
    assert (caught.value.code, portal.requests) == ("unknown-api", [])


@pytest.mark.parametrize("fault", [Fault("cut"), Fault("html"), Fault(503), Fault("lost_reply")])
def test_a_bad_page_of_soda3_is_asked_for_again(portal, city, tmp_path, fault):
    portal.fail(fault, method="POST", path="export", times=2)
    assert [found["srnumber"] for found in rows_of(fetched(city(api="3"), request(), 250, tmp_path))] == [f"1-{n:06d}" for n in range(250)]


# ---------------------------------------------------------------------------------------------------------------- JSON


def as_csv(file, columns) -> list[dict]:
    target = file.path.with_suffix(".csv")
    write_csv(file.path, target, {column.name: column.type for column in columns}, rows=file.rows)
    with target.open(encoding="utf-8", newline="") as page:
        return list(csv.DictReader(page))


@pytest.mark.parametrize("api", ["2.1", "3"])
def test_json_pages_hold_what_csv_pages_hold(portal, city, tmp_path, api):
    portal.alter(ID, add={"nothing": "text"})
    names = "srnumber createddate seen nc anonymous place address nothing"
    in_csv, in_json = request(names), request(names, format="json")
    (tmp_path / "csv").mkdir()
    expected = rows_of(fetched(city(api=api), in_csv, 250, tmp_path / "csv"))
    files = fetched(city(api=api), in_json, 250, tmp_path)
    assert [(file.name, file.rows) for file in files] == [(f"{ID}-{n:05d}.json", rows) for n, rows in ((1, 100), (2, 100), (3, 50))]
    assert [found for file in files for found in as_csv(file, in_json.columns)] == expected


def test_a_json_page_lies_in_the_lake_as_the_portal_wrote_it(portal, city, tmp_path):
    portal.alter(ID, add={"nothing": "text"})
    [file] = fetched(city(), request("srnumber nc place nothing", format="json", page_size=1000), 250, tmp_path)
    rows = json.loads(file.path.read_bytes())
    assert rows[0] == {"srnumber": "1-000000"}  # its nulls are left out
    assert rows[1] == {"srnumber": "1-000001", "nc": "1", "place": {"type": "Point", "coordinates": [-118.25, 34.05]}}
    assert not [found for found in rows if "nothing" in found]  # a column of nulls is in no row
    assert (file.bytes, file.sha256) == (file.path.stat().st_size, hashlib.sha256(file.path.read_bytes()).hexdigest())
    assert f"/resource/{ID}.json?" in file.origin


@pytest.mark.parametrize(
    "fault", [Fault("cut"), Fault("cut_chunked"), Fault("cut_at_line"), Fault("html"), Fault("empty"), Fault(503), Fault("lost_reply")]
)
def test_a_bad_json_page_is_asked_for_again_or_refused(portal, city, tmp_path, fault):
    portal.fail(fault, path=r"offset=100", times=1)
    asked = request("srnumber", format="json")
    if fault.kind == "cut_at_line":
        # the transport could not see it: the block is read again
        with pytest.raises(TransientError) as caught:
            fetched(city(), asked, 250, tmp_path)
        assert caught.value.code == "cut-body"
    files = fetched(city(), asked, 250, tmp_path)
    assert [found["srnumber"] for file in files for found in as_csv(file, asked.columns)] == [f"1-{n:06d}" for n in range(250)]


def test_json_that_is_shorter_stranger_or_no_rows_is_not_taken(portal, city, tmp_path):
    asked = request("srnumber", format="json")
    for fault, code in (
        (Fault("missing_row"), "short-page"),
        (Fault("wrong_columns"), "wrong-columns"),
        (Fault("truncated"), "cut-body"),
        (Fault("status", code=200, body='{"error":true,"message":"Internal error"}'), "not-rows"),
    ):
        portal.faults.clear()
        portal.fail(fault, path="offset", times=9)
        with pytest.raises(PipelineError) as caught:
            fetched(city(), asked, 250, tmp_path)
        assert caught.value.code == code


# ------------------------------------------------------------------------------------------------ data as it really is

ODD = {
    "quotes": 'the "REAR" house, ""', "newlines": "UNIT 4\nCAÑADA\r\n\rend", "emoji": "🎂👩‍👩‍👧‍👦 ☂", "big": "9" * 1_048_576,
    "big lines": "a,\"\n" * 262_144, "comma": ",", "backslash": "C:\\new\\", "end of copy": "\\.", "null word": "NULL", "space": "  two  ",
    "separator": "a\x1f\u2028b", "mark": "\ufeffx",
    "markup": "<script>alert(1)</script>", "formula": "=1+1", "right to left": "שלום \u202e", "combined": "e\u0301",
}  # fmt: skip


@pytest.fixture
def odd(portal, city, tmp_path):
    """Fetch a dataset of these texts, as `form`: (files, {row's name: its cell as it came}), bytes that are no letters escaped."""

    def fetch(form: str, texts: dict[str, str], *, compress: bool = False):
        portal.compress = compress
        portal.datasets.clear()
        portal.add(Dataset(ID, "n", COLUMNS, [{"srnumber": name, "address": text} for name, text in texts.items()], key="srnumber"))
        asked = request("srnumber address", format=form, page_size=5)
        files = fetched(city(), asked, len(texts), tmp_path)
        cells = {}
        for file in files:
            path = file.path
            if form == "json":
                path = path.with_suffix(".csv")
                write_csv(file.path, path, {column.name: column.type for column in asked.columns}, rows=file.rows)
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as page:
                cells |= {found["srnumber"]: found["address"] for found in csv.DictReader(page)}
        assert sum(file.rows for file in files) == len(texts) == len(cells)
        return cells

    csv.field_size_limit(2**26)
    return fetch


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_every_text_comes_as_it_lies_at_the_source(odd, form, compress):
    assert odd(form, ODD, compress=compress) == ODD


@pytest.mark.parametrize("form", ["csv", "json"])
def test_bytes_that_no_database_takes_reach_the_loader_and_spoil_no_other_row(odd, form):
    texts = {"nul": "a\0b", "bad byte": "a\udcffb", "bad start": "a\udcc3", "good": "ä", "last": "z"}
    cells = odd(form, texts)
    assert (cells["nul"], cells["good"], cells["last"]) == ("a\0b", "ä", "z")
    for name in ("bad byte", "bad start"):
        with pytest.raises(UnicodeEncodeError):
            cells[name].encode()


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_byte_order_mark_belongs_to_no_value(portal, odd, form):
    portal.fail(Fault("bom"), path="offset", times=9)
    assert odd(form, {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}


# ----------------------------------------------------------------------------------------------------------- preflight

OURS = (Column("srnumber"), Column("createddate", "local_time"), Column("nc", "number"))


def test_a_portal_that_fits_is_told_with_its_further_columns(city):
    columns = city().preflight(ID, columns=OURS, key=("srnumber",))
    assert [column.name for column in columns] == [name for name, *_ in COLUMNS]


def test_without_a_row_identifier_nothing_is_published(portal, city):
    portal.dataset(ID).key = ""
    with pytest.raises(SetupError, match="no row identifier: every upsert would append") as caught:
        city().preflight(ID, columns=OURS, key=("srnumber",))
    assert caught.value.code == "row-identifier-missing"


@pytest.mark.parametrize("key", [("nc",), (), ("srnumber", "nc")])
def test_a_key_that_is_not_the_portals_is_refused(city, key):
    with pytest.raises(SetupError) as caught:
        city().preflight(ID, columns=OURS, key=key)
    assert caught.value.code == "row-identifier-differs"


def test_columns_that_the_portal_does_not_have_or_holds_otherwise_are_each_named(city):
    wrong = (*OURS, Column("colour"), Column("size"), Column("seen", "local_time"), Column("address", "number"))
    with pytest.raises(SetupError) as caught:
        city().preflight(ID, columns=wrong, key=("srnumber",))
    assert caught.value.message.endswith(
        "cannot take our columns: colour does not exist there; size does not exist there; seen is instant there and local_time here"
    )  # a number is taken as text


@pytest.mark.parametrize("missing", ["user", "password"])
def test_publishing_without_credentials_is_refused_before_anything_is_sent(portal, city, missing):
    with pytest.raises(SetupError) as caught:
        city(**{missing: ""}).preflight(ID, columns=OURS, key=("srnumber",))
    assert (caught.value.code, portal.requests) == ("credentials-missing", [])


def test_a_wrong_password_names_the_provider_and_not_the_password(city):
    with pytest.raises(SetupError) as caught:
        city(password="wrong-password").preflight(ID, columns=OURS, key=("srnumber",))
    assert caught.value.code == "http-401"
    assert caught.value.next_step == "Check the user name and password of provider la-311."
    assert "wrong-password" not in caught.value.message


# -------------------------------------------------------------------------------------------------------------- upsert


def stored(portal, srnumber: str) -> dict:
    for line in portal.dataset(ID)._rows:
        values = dict(zip([name for name, *_ in COLUMNS], line.values, strict=True))
        if values["srnumber"] == srnumber:
            return values
    raise AssertionError(f"the portal does not hold {srnumber}")


def test_an_upsert_creates_updates_and_counts(portal, city):
    connector = city()
    done = connector.upsert(ID, [row(1), {"srnumber": "1-000002", "nc": 5}, {"srnumber": "new", "nc": None}])
    assert (done.created, done.updated, done.deleted, done.errors) == (1, 2, 0, 0)
    assert connector.published_count(ID) == 251
    assert done.reply["request_id"]


def test_values_arrive_as_they_were(portal, city):
    sent = {
        "srnumber": "typed", "createddate": datetime(2020, 5, 1, 8, 30), "seen": datetime(2020, 5, 1, 8, 30, tzinfo=timezone(timedelta(hours=-7))),
        "nc": Decimal("1E+2"), "anonymous": True, "place": "POINT (-118.25 34.05)", "address": 'q"uote, é\nline',
    }  # fmt: skip
    assert city().upsert(ID, [sent]).errors == 0
    assert stored(portal, "typed") == {
        "srnumber": "typed", "createddate": "2020-05-01T08:30:00.000", "seen": "2020-05-01T15:30:00.000Z", "nc": "100", "anonymous": True,
        "place": {"type": "Point", "coordinates": [-118.25, 34.05]}, "address": 'q"uote, é\nline',
    }  # fmt: skip


@pytest.mark.parametrize("written", ["POINT (-118.25 34.05)", "point(-118.25 34.05)", "(34.05, -118.25)", "(34.05,-118.25)"])
def test_a_place_arrives_where_it_is_whichever_number_came_first(portal, city, written):
    assert city().upsert(ID, [{"srnumber": "x", "place": written}]).errors == 0
    assert stored(portal, "x")["place"] == {"type": "Point", "coordinates": [-118.25, 34.05]}


def test_a_place_that_is_none_is_refused_by_the_portal_and_breaks_nothing(city):
    assert city().upsert(ID, [{"srnumber": "x", "place": "POINT (here there)"}, {"srnumber": "y", "place": "(1.2.3, -)"}]).errors == 2


def test_the_two_types_of_a_place_come_as_the_portal_writes_them(portal, city, tmp_path):
    """Latitude first in the older type, longitude first in the newer: as JSON both are told apart, and are one text for a point."""
    portal.datasets.clear()
    columns = [("id", "text"), ("old", "location"), ("new", "point")]
    place = {"latitude": "34.05", "longitude": "-118.25", "needs_recoding": False}
    portal.add(Dataset(ID, "n", columns, [{"id": "1", "old": place, "new": "POINT (-118.25 34.05)"}], key="id"))
    asked = FetchRequest((Column("id"), Column("old", "point"), Column("new", "point")), order=("id",))
    [page] = fetched(city(), asked, 1, tmp_path)
    assert rows_of([page]) == [{"id": "1", "old": "(34.05, -118.25)", "new": "POINT (-118.25 34.05)"}]
    [page] = fetched(city(), replace(asked, format="json"), 1, tmp_path)
    assert as_csv(page, asked.columns) == [{"id": "1", "old": "POINT (-118.25 34.05)", "new": "POINT (-118.25 34.05)"}]


def test_a_reply_that_is_lost_after_the_commit_doubles_nothing(portal, city):
    portal.fail(Fault("lost_reply"), method="POST")
    connector = city()
    assert connector.upsert(ID, [{"srnumber": f"new-{n}"} for n in range(500)]).errors == 0
    assert [asked.method for asked in portal.requests].count("POST") == 2
    assert connector.published_count(ID) == 750


@pytest.mark.parametrize("fault", [503, 429, 504])
def test_a_busy_portal_is_asked_again(portal, city, fault):
    portal.fail(fault, method="POST", times=2)
    assert city().upsert(ID, [{"srnumber": "new"}]).created == 1


def test_rows_that_the_portal_refused_are_counted_and_left_to_the_caller(portal, city):
    portal.fail(Fault("row_errors", n=83), method="POST")
    done = city().upsert(ID, [row(n) for n in range(200)])
    assert (done.errors, done.updated) == (83, 117)


def test_a_field_that_the_portal_does_not_know_is_told_in_its_words(city):
    with pytest.raises(SetupError, match="Illegal field name sent: colour"):
        city().upsert(ID, [{"srnumber": "1", "colour": "red"}])


@pytest.mark.parametrize("answer", [{"ok": 1}, {"Rows Created": "many"}, {"Rows Created": None}, {"Rows Updated": 2, "Errors": -1}, [1], True])
def test_an_upsert_that_is_not_answered_with_counts_is_not_believed(portal, city, answer):
    connector = city()
    connector.describe(ID)
    portal.answer = lambda asked, fault: Reply.of(answer)
    with pytest.raises(DataError) as caught:
        connector.upsert(ID, [{"srnumber": "1"}])
    assert caught.value.code == "no-counts"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN")])
def test_a_value_that_is_no_finite_number_names_its_column(city, value):
    with pytest.raises(DataError, match="column nc holds"):
        city().upsert(ID, [{"srnumber": "1", "nc": value}])


# -------------------------------------------------------------------------------------------------------------- delete


def test_deleted_rows_are_gone_and_no_others(portal, city):
    connector = city()
    done = connector.delete(ID, [{"srnumber": "1-000007"}, {"srnumber": "1-000009"}])
    assert (done.created, done.updated, done.deleted, done.errors) == (0, 0, 2, 0)
    assert set(portal.dataset(ID).rows) == {f"1-{n:06d}" for n in range(250)} - {"1-000007", "1-000009"}
    assert [(asked.method, asked.path) for asked in portal.requests][1:] == [("POST", f"/resource/{ID}.json")]  # after the metadata
    assert connector.delete(ID, []).deleted == 0


def test_a_row_that_is_gone_already_is_as_good_as_deleted(portal, city):
    rows = [{"srnumber": f"1-{n:06d}"} for n in range(240, 260)]
    done = city().delete(ID, rows)
    assert (done.deleted, done.errors, done.reply["Errors"], done.reply["Already absent"]) == (10, 0, 10, 10)
    again = city().delete(ID, rows)
    assert (again.deleted, again.errors) == (0, 0)
    assert len(portal.dataset(ID)) == 240


def test_the_portal_says_which_of_many_rows_it_has(portal, city):
    rows = [{"srnumber": f"1-{n:06d}"} for n in range(0, 500, 2)]
    assert city().present(ID, rows) == {f"1-{n:06d}" for n in range(0, 250, 2)} and city().present(ID, []) == set()
    assert max(len(asked.target) for asked in portal.requests) < 4_000


def test_a_delete_whose_reply_is_lost_is_sent_again_and_is_no_failure(portal, city):
    portal.fail(Fault("lost_reply"), method="POST")
    assert city().delete(ID, [{"srnumber": f"1-{n:06d}"} for n in range(100)]).errors == 0
    assert len(portal.dataset(ID)) == 150


def test_rows_that_the_portal_keeps_against_our_will_are_counted_one_by_one(portal, city):
    portal.fail(Fault("row_errors", n=3), method="POST")
    rows = [{"srnumber": f"1-{n:06d}"} for n in range(248, 258)]  # three are refused, of which two exist
    done = city().delete(ID, rows)
    assert (done.deleted, done.errors) == (0, 2)
    assert {"1-000248", "1-000249"} <= set(portal.dataset(ID).rows)


@pytest.mark.parametrize("key", ['O\'Neill, "N"', "§ 5 & more = x", "x" * 4000, "日本" * 300])
def test_any_key_is_found_again_and_no_question_gets_too_long(portal, city, key):
    portal.fail(Fault("row_errors", n=9_999), method="POST")
    portal.dataset(ID).publish([{"srnumber": key}])
    done = city().delete(ID, [{"srnumber": key}, *({"srnumber": f"{n}{key}"[:3000]} for n in range(30)), {"srnumber": "1-000000"}])
    assert done.errors == 2
    longest = max(len(asked.target) for asked in portal.requests)
    # one key may be longer than what many may be together
    assert longest < 4_000 + (len(quote(key)) if len(key) > 100 else 0)


def test_a_number_as_the_key_is_compared_as_a_number(portal, city):
    portal.datasets.clear()
    portal.add(Dataset(ID, "n", COLUMNS, [{"nc": n, "address": "x"} for n in range(5)], key="nc"))
    portal.fail(Fault("row_errors", n=1), method="POST")
    done = city().delete(ID, [{"nc": "1"}, {"nc": "2"}, {"nc": "77"}])
    assert (done.deleted, done.errors) == (1, 1)
    assert portal.requests[-1].query["$where"] == "nc in (77,2,1)"


# ------------------------------------------------------------------------------------------------------------- replace

REPLACED = (Column("srnumber"), Column("nc", "number"), Column("address"), Column("place", "point"), Column("anonymous", "boolean"))


def a_file(path, *rows, header="srnumber,nc,address,place,anonymous"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_replacement_exchanges_all_rows_for_those_of_the_file(portal, city, tmp_path):
    path = a_file(tmp_path / "new.csv", 'a,1,"Ä ""q"", ☂\nline 2",POINT (-118.25 34.05),true', "b,,,,")
    done = city().replace(ID, REPLACED, path, 2)
    assert (done.created, done.updated, done.deleted, done.errors) == (2, 0, 0, 0)
    assert portal.dataset(ID).rows == {
        "a": {
            "srnumber": "a", "createddate": None, "seen": None, "nc": "1", "anonymous": True,
            "place": {"type": "Point", "coordinates": [-118.25, 34.05]}, "address": 'Ä "q", ☂\nline 2',
        },
        "b": {"srnumber": "b", **{name: None for name, *_ in COLUMNS[1:]}},
    }  # fmt: skip
    assert portal.requests[-1].headers["content-type"] == "text/csv"


@pytest.mark.parametrize("fault", [Fault("lost_reply"), Fault(503), Fault(429), Fault("cut")])
def test_a_replacement_whose_reply_is_lost_is_sent_again_from_its_first_byte(portal, city, tmp_path, fault):
    portal.fail(fault, method="PUT", times=2)
    path = a_file(tmp_path / "new.csv", *(f"{n},1,x,,true" for n in range(5_000)))
    assert city().replace(ID, REPLACED, path, 5_000).created == 5_000
    assert len(portal.dataset(ID)) == 5_000
    sizes = [asked.body_bytes for asked in portal.requests if asked.method == "PUT"]
    assert sizes == [path.stat().st_size] * 3


def test_a_replacement_that_fails_leaves_the_old_rows(portal, city, tmp_path):
    portal.fail(Fault(500), method="PUT", times=9)
    with pytest.raises(TransientError, match="answered 500"):
        city().replace(ID, REPLACED, a_file(tmp_path / "new.csv", "a,1,,,"), 1)
    portal.faults.clear()
    with pytest.raises(SetupError, match="says 400: Illegal field name sent: colour"):
        city().replace(ID, (Column("srnumber"), Column("colour")), a_file(tmp_path / "new.csv", "a,red", header="srnumber,colour"), 1)
    assert len(portal.dataset(ID)) == 250


def test_a_file_with_other_columns_is_never_sent(portal, city, tmp_path):
    with pytest.raises(DataError, match="column 2 is 'nb' where 'nc' was asked for"):
        city().replace(ID, REPLACED, a_file(tmp_path / "new.csv", "a,1,,,", header="srnumber,nb,address,place,anonymous"), 1)
    assert portal.requests == []


def test_rows_of_a_replacement_that_do_not_fit_are_counted(city, tmp_path):
    done = city().replace(ID, REPLACED, a_file(tmp_path / "new.csv", "a,many,,,", "b,1,,,", "b,2,,,"), 3)
    assert (done.created, done.updated, done.errors) == (1, 1, 1)


def test_a_replacement_travels_from_the_disk_and_never_through_memory(city, tmp_path):
    path = tmp_path / "big.csv"
    with path.open("wb") as file:
        file.write(b"srnumber\n")
        for _ in range(64):
            file.write(b"1234567\n" * 131_072)
    size, heard = path.stat().st_size, []

    def swallow(connection):
        connection.settimeout(20)
        head, _, start = heard_first[-1].partition(b"\r\n\r\n")
        heard.append(head)
        left, buffer = size - len(start), bytearray(65_536)
        while left > 0 and (got := connection.recv_into(buffer)):
            left -= got
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{"Rows Created":5}')

    with by_hand(swallow) as (url, heard_first):
        connector = city(url)
        tracemalloc.start()
        assert connector.replace(ID, (Column("srnumber"),), path, 5).created == 5
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert f"Content-Length: {size}".encode() in heard[0] and heard[0].startswith(b"PUT /resource/rq3b-xjk8.json ")
    assert peak < 4 * 1024 * 1024 < size


def test_a_replacement_needs_no_row_identifier_and_refuses_a_strange_one(portal, city):
    for key in ((), ("srnumber",), ("srnumber", "nc")):
        portal.dataset(ID).key = ""
        assert len(city().preflight(ID, columns=OURS, key=key, replaces=True)) == len(COLUMNS)
        portal.dataset(ID).key = "address"
        with pytest.raises(SetupError) as caught:
            city().preflight(ID, columns=OURS, key=key, replaces=True)
        assert caught.value.code == "row-identifier-differs"


def test_no_failure_of_the_portal_shows_a_secret(portal, city, events, tmp_path):
    told = []
    echo = Fault("status", code=400, body=f'{{"message":"{CANARY}"}}')
    for fault in (Fault(403), Fault(500), Fault("html"), Fault("cut"), Fault("redirect"), echo):
        for act in (
            lambda: city().describe(ID),
            lambda: fetched(city(), request(), 250, tmp_path),
            lambda: city().upsert(ID, [row(1)]),
            lambda: city().delete(ID, [{"srnumber": "1-000001"}]),
            lambda: city().replace(ID, REPLACED, a_file(tmp_path / "new.csv", "a,1,,,"), 1),
        ):
            portal.faults.clear()
            portal.fail(fault, times=99)
            with pytest.raises(PipelineError) as caught:
                act()
            told += [caught.value.message, caught.value.next_step]
    assert CANARY not in repr(told) + repr(events)
