"""The real CKAN of the tests: that it is one, that it is killed when told so, and that each test finds it empty."""

import pytest
import requests

from tests.ckan.real import RealCkan, Refused

pytestmark = pytest.mark.needs("redis")


def test_a_table_is_made_searched_and_deleted(real_ckan: RealCkan):
    dataset = real_ckan.action("package_create", name="shelters", owner_org="city", topics=["Housing"], refresh_rate="Daily")
    made = real_ckan.action(
        "datastore_create",
        resource={"package_id": dataset["id"], "name": "Shelters"},
        fields=[{"id": "name", "type": "text"}],
        records=[{"name": "A"}],
    )
    found = real_ckan.action("datastore_search", resource_id=made["resource_id"])
    assert found["total"] == 1 and found["records"] == [{"_id": 1, "name": "A"}]
    listed = real_ckan.action("package_search", q="*:*", rows=1000, start=0)
    assert listed["count"] == 1 and listed["results"][0]["topics"] == ["Housing"]
