"""The real CKAN of the tests: that it is one, that it dies when told to, and that each test has it alone and finds it empty."""

import fcntl

import pytest
import requests

from opendata_ops.sandbox.lucene import Query
from tests.ckan.real import RealCkan, Refused

pytestmark = pytest.mark.needs("redis")

FIELDS = {"refresh_rate": "Daily", "topics": ["Health", "Water"], "is_retired": "false", "owner_email": "a@city.example", "excerpt": ""}


def table(ckan: RealCkan, *names: str) -> str:
    """The id of a resource of a new dataset, with a row for each name."""
    ckan.action("package_create", name="shelters", owner_org="city")
    resource = {"package_id": "shelters", "name": "Shelters"}
    records = [{"name": name} for name in names]
    return ckan.action("datastore_create", resource=resource, fields=[{"id": "name", "type": "text"}], records=records)["resource_id"]


def names(ckan: RealCkan, resource: str) -> list[str]:
    return [record["name"] for record in ckan.action("datastore_search", resource_id=resource, sort="_id")["records"]]


def test_a_table_is_made_searched_and_taken_away_by_an_editor_and_by_nobody_else(real_ckan: RealCkan):
    assert real_ckan.action("package_list") == []
    resource = table(real_ckan, "Aurora", "Birkdale")
    real_ckan.action("datastore_upsert", key=real_ckan.editor_key, resource_id=resource, method="insert", records=[{"name": "Cedar"}], force=True)
    with pytest.raises(Refused, match="403"):
        real_ckan.action("datastore_delete", key="", resource_id=resource, force=True)
    assert names(real_ckan, resource) == ["Aurora", "Birkdale", "Cedar"]
    with real_ckan.sql() as cursor:
        cursor.execute(f'SELECT count(*) FROM "{resource}"')
        assert cursor.fetchone() == (3,)
    real_ckan.action("datastore_delete", key=real_ckan.editor_key, resource_id=resource, force=True)
    with pytest.raises(Refused) as caught:
        names(real_ckan, resource)
    assert caught.value.status == 404 and caught.value.error["__type"] == "Not Found Error"


def test_a_search_finds_datasets_page_by_page_with_the_fields_of_toronto(real_ckan: RealCkan):
    # whatever the test before left is gone
    assert real_ckan.action("package_search", include_private=True)["count"] == 0
    for number in range(5):
        real_ckan.action("package_create", name=f"set-{number}", owner_org="city", private=number == 4, **FIELDS)
    everything = [real_ckan.action("package_search", rows=2, start=start, sort="name asc", include_private=True) for start in (0, 2, 4, 6)]
    assert [[package["name"] for package in page["results"]] for page in everything] == [["set-0", "set-1"], ["set-2", "set-3"], ["set-4"], []]
    assert {page["count"] for page in everything} == {5}
    assert FIELDS.items() <= everything[0]["results"][0].items()
    one = real_ckan.action("package_search", fq='name:("set-1" OR "set-9")', key="")
    assert [package["name"] for package in one["results"]] == ["set-1"]


@pytest.mark.parametrize(("when", "left"), [("before", ["old"]), ("commit", ["old"]), ("after", ["old", "new", "newer"])])
def test_it_dies_at_the_moment_it_is_told_to_and_comes_back_at_its_address(real_ckan: RealCkan, when: str, left: list[str]):
    resource = table(real_ckan, "old")
    real_ckan.kill_at("datastore_upsert", nth=2, when=when)
    real_ckan.action("datastore_upsert", resource_id=resource, method="insert", records=[], force=True)
    with pytest.raises(requests.ConnectionError):
        real_ckan.action("datastore_upsert", resource_id=resource, method="insert", records=[{"name": "new"}, {"name": "newer"}], force=True)
    with pytest.raises(requests.ConnectionError):
        names(real_ckan, resource)
    real_ckan.restart()
    assert names(real_ckan, resource) == left


def test_it_belongs_to_one_test_at_a_time_whatever_the_number_of_processes(real_ckan: RealCkan):
    with (real_ckan.folder / "alone.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_next_test_finds_no_functions_and_no_orders_of_the_one_before(real_ckan: RealCkan):
    resource = table(real_ckan, "old")
    body = "BEGIN NEW.name = 'x'; RETURN NEW; END;"
    real_ckan.action("datastore_function_create", name="stamp", rettype="trigger", definition=body)
    real_ckan.action("datastore_create", resource_id=resource, triggers=[{"function": "stamp"}], force=True)
    real_ckan.kill_at("package_list")
    real_ckan.stop()
    real_ckan.empty()
    assert real_ckan.action("package_list") == []
    with pytest.raises(Refused, match="does not exist"):
        real_ckan.action("datastore_function_delete", name="stamp")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("*:*", True),
        ("+state:active", True),
        ('+site_id:"default" +state:active', True),
        ('name:"other" OR id:"7"', True),
        ("+state:active -capacity:private", False),
        ('+permission_labels:("public" OR "member-9")', False),
        ('+permission_labels:("public" OR "creator-1")', True),
        ("title:shelt*", True),
        ("metadata_modified:[2026-01-01T00:00:00Z TO *]", True),
        ("metadata_modified:[2027-01-01T00:00:00Z TO *]", False),
        ("homeless", True),
        ("homeless people", False),
        ("NOT (name:a AND id:7)", True),
    ],
)
def test_the_stand_in_for_solr_understands_what_ckan_asks(query: str, found: bool):
    document = {
        "id": "7", "name": "shelters", "title": "Shelters", "notes": "For the homeless.", "state": "active", "site_id": "default",
        "capacity": "private", "permission_labels": ["creator-1"], "metadata_modified": "2026-11-22T00:00:00Z",
    }  # fmt: skip
    assert Query(query).test(document) is found
