"""The practice city's CKAN, where no real one is needed: faults, a restart, what Toronto's portal adds, and our own connector on it.

That it answers as a real one does is tests/ckan/test_contract.py's promise.
"""

import csv
import json

import pytest
import requests

from opendata_ops.sandbox import Fault
from opendata_ops.sandbox.ckan import Ckan, User
from pipelines.connectors import connector_for
from pipelines.connectors.base import About, Account, Column
from pipelines.connectors.http import Door
from pipelines.errors import PipelineError, TransientError

COLUMNS = (Column("ID", "number", portal_type="int", description="The number"), Column("Name", portal_type="text"))


@pytest.fixture
def portal():
    with Ckan() as portal:
        yield portal
        assert not portal.mistakes


def ask(portal, action, key=None, **params):
    """The result of an action, as the sysadmin."""
    headers = {"Authorization": portal.sysadmin_key if key is None else key}
    reply = requests.post(f"{portal.url}/api/3/action/{action}", json=params, headers=headers, timeout=10)
    assert reply.status_code == 200, reply.text
    return reply.json()["result"]


def a_table(portal, count=3):
    """The id of a resource of the dataset `pools` with so many rows."""
    ask(portal, "package_create", name="pools", owner_org="city", refresh_rate="Daily")
    records = [{"n": number, "name": f"Pool {number}"} for number in range(count)]
    return ask(portal, "datastore_create", resource={"package_id": "pools", "name": "Pools"}, records=records, primary_key="n")["resource_id"]


def connector(portal, key):
    account = Account("portal", portal.url, {"organization": "city"}, {"api_key": key})
    return connector_for("ckan")(account, Door(["127.0.0.1"], secrets=(key,), owner="portal"))


def file_of(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([["ID", "Name"], *rows])
    return path


def test_a_search_gives_no_more_rows_than_the_portal_allows(portal):
    portal.rows_max = 2
    found = ask(portal, "datastore_search", resource_id=a_table(portal), limit=32_000)
    assert len(found["records"]) == 2 and found["limit"] == 2 and found["total"] == 3


def test_without_another_word_the_cap_is_32_000(portal):
    assert ask(portal, "datastore_search", resource_id=a_table(portal), limit=99_999)["limit"] == 32_000


def test_a_fault_meets_the_request_that_it_was_set_for_and_leaves_the_rows_alone(portal):
    id = a_table(portal)
    portal.fail(next=[503, Fault("status", code=429, retry_after=7)], path="datastore_upsert")
    wish = {"resource_id": id, "records": [{"n": 9}]}
    for status in (503, 429):
        reply = requests.post(f"{portal.url}/api/3/action/datastore_upsert", json=wish, headers={"Authorization": portal.editor_key}, timeout=10)
        assert reply.status_code == status and reply.json()["success"] is False
    assert reply.headers["Retry-After"] == "7"
    assert ask(portal, "datastore_search", resource_id=id)["total"] == 3


def test_an_answer_may_be_lost_after_the_rows_are_in(portal):
    id = a_table(portal)
    portal.fail(Fault("lost_reply"), path="datastore_upsert")
    with pytest.raises(requests.ConnectionError):
        ask(portal, "datastore_upsert", resource_id=id, records=[{"n": 9}])
    assert ask(portal, "datastore_search", resource_id=id)["total"] == 4


def test_a_page_may_lack_a_row_or_have_one_twice(portal):
    id = a_table(portal)
    portal.fail(next=[Fault("missing_row"), Fault("duplicate_rows")], path="datastore_search")
    assert [len(ask(portal, "datastore_search", resource_id=id)["records"]) for _ in range(3)] == [2, 4, 3]


def test_everything_is_there_after_a_restart(tmp_path):
    with Ckan(state=tmp_path) as portal:
        id = a_table(portal)
        ask(portal, "datastore_function_create", name="f", rettype="trigger", definition="BEGIN RETURN NEW; END;")
        form = {"package_id": "pools", "name": "File"}
        headers = {"Authorization": portal.editor_key}
        address = f"{portal.url}/api/3/action/resource_create"
        requests.post(address, data=form, files={"upload": ("a.csv", b"a\n1\n")}, headers=headers, timeout=10).raise_for_status()
        before = ask(portal, "datastore_search", resource_id=id)
        port = portal.port
    with Ckan(state=tmp_path, port=port) as portal:
        assert ask(portal, "datastore_search", resource_id=id) == before
        portal.keep()
        assert ask(portal, "datastore_upsert", resource_id=id, records=[{"n": 9}])
        assert ask(portal, "datastore_search", resource_id=id, sort="_id desc", limit=1)["records"][0]["_id"] == 4
        file = ask(portal, "package_show", id="pools")["resources"][1]
        assert requests.get(file["url"], timeout=10).content == b"a\n1\n"
        assert portal.functions and portal.package("pools")["refresh_rate"] == "Daily"
    # the second stop kept what came after the first
    with Ckan(state=tmp_path) as portal:
        assert len(portal.table("pools", "Pools").rows) == 4


def test_only_the_portal_of_toronto_writes_files_of_tables_on_demand(portal):
    id = a_table(portal)
    assert "datastore_cache_last_update" not in ask(portal, "resource_show", id=id)
    ask(portal, "datastore_cache", package_id="pools")
    shown = ask(portal, "resource_show", id=id)
    assert shown["datastore_cache_last_update"] and requests.get(shown["datastore_cache"]["CSV"], timeout=10).text.startswith("_id,n,name")
    portal.has_cache = False
    reply = requests.post(f"{portal.url}/api/3/action/datastore_cache", json={"resource_id": id}, timeout=10)
    assert reply.status_code == 400 and reply.json() == "Bad request: Action name not known: datastore_cache"


def test_a_portal_without_extensions_drops_a_field_that_it_does_not_know():
    with Ckan(fields=()) as portal:
        made = ask(portal, "package_create", name="pools", refresh_rate="Daily", extras=[{"key": "refresh_rate", "value": "Daily"}])
    assert "refresh_rate" not in made and made["extras"] == [{"key": "refresh_rate", "value": "Daily"}]


def test_an_editor_of_one_organization_does_not_edit_the_datasets_of_another():
    users = {"root": User("root", True), "a-key": User("ann", organizations=frozenset({"parks"}))}
    with Ckan(users=users, organizations={"parks": "Parks", "roads": "Roads"}) as portal:
        ask(portal, "package_create", name="potholes", owner_org="roads")
        reply = requests.post(
            f"{portal.url}/api/3/action/package_patch", json={"id": "potholes", "title": "x"}, headers={"Authorization": "a-key"}, timeout=10
        )
    assert reply.status_code == 403 and "ann not authorized to edit package" in reply.json()["error"]["message"]


@pytest.mark.parametrize("who", ["sysadmin", "editor"])
def test_our_connector_introduces_replaces_and_reads_on_it(portal, tmp_path, who):
    key = portal.sysadmin_key if who == "sysadmin" else portal.editor_key
    ours = connector(portal, key)
    about = About({"title": "Pools", "refresh_rate": "Daily", "topics": ["Health"]}, table="Pools", columns=COLUMNS)
    ours.introduce("pools/Pools", about)
    for rows in ([["1", "Ash"], ["2", "Birch"]], [["2", "Birch"], ["3", "Cedar"], ["4", ""]]):
        ours.preflight("pools/Pools", columns=COLUMNS, key=("ID",), replaces=True)
        ours.replace("pools/Pools", COLUMNS, file_of(tmp_path / "rows.csv", rows), len(rows))
        assert ours.published_count("pools/Pools") == len(rows)
    held = [list(row.values()) for row in portal.table("pools", "Pools").rows.values()]
    assert held == [[2, "Birch"], [3, "Cedar"], [4, None]]
    shown = portal.package("pools")
    assert shown["topics"] == ["Health"] and shown["resources"][0]["last_modified"]
    # nothing of the exchange is left, and words told twice change nothing
    assert list(portal.packages) == [shown["id"]] and not portal.functions and len(portal.tables) == 1
    assert ours.introduce("pools/Pools", about) == ()


@pytest.mark.parametrize(
    ("who", "step"),
    [
        ("sysadmin", "datastore_create"),
        ("sysadmin", "datastore_upsert"),
        ("sysadmin", "datastore_function_create"),
        ("editor", "datastore_create"),
        ("editor", "datastore_upsert"),
    ],
)
def test_a_portal_that_fails_on_the_way_keeps_serving_the_old_rows(portal, tmp_path, who, step):
    key = portal.sysadmin_key if who == "sysadmin" else portal.editor_key
    ours = connector(portal, key)
    ours.introduce("pools/Pools", About({"title": "Pools"}, table="Pools", columns=COLUMNS))
    ours.preflight("pools/Pools", columns=COLUMNS, key=("ID",), replaces=True)
    ours.replace("pools/Pools", COLUMNS, file_of(tmp_path / "rows.csv", [["1", "Ash"]]), 1)
    portal.fail(Fault("status", code=400, body=json.dumps({"success": False, "error": {"message": "no"}})), path=step, times=99)
    with pytest.raises(PipelineError):
        ours.replace("pools/Pools", COLUMNS, file_of(tmp_path / "more.csv", [["1", "Ash"], ["2", "Birch"]]), 2)
    assert [list(row.values()) for row in portal.table("pools", "Pools").rows.values()] == [[1, "Ash"]]
    portal.faults.clear()
    ours.replace("pools/Pools", COLUMNS, tmp_path / "more.csv", 2)
    assert len(portal.table("pools", "Pools").rows) == 2


def test_a_portal_that_is_gone_is_an_error_that_passes(portal):
    ours = connector(portal, portal.sysadmin_key)
    portal.stop()
    with pytest.raises(TransientError):
        ours.action("datastore_upsert", resource_id="x", records=[])
