"""Each upkeep job that looks at a portal, on the real CKAN: what it finds there, what it tells, and that a dry run changes nothing."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
import requests
from django.utils import timezone

from opendata_ops.sandbox.wire import Reply
from pipelines import secrets
from pipelines.models import Provider, UpkeepJob
from pipelines.upkeep.etl_inventory import COLUMNS
from tests import world
from tests.ckan.real import RealCkan
from tests.pipelines.connectors.servers import Told
from tests.pipelines.small_ckan import done, found, well

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db]

FIELDS = [{"id": "name", "type": "text", "info": {"notes": "The name."}}, {"id": "beds", "type": "int"}]


@pytest.fixture
def portal(real_ckan: RealCkan, settings):
    """The real CKAN, empty, and the provider `open` that is its sysadmin's."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    provider("open", real_ckan, real_ckan.sysadmin_key)
    return real_ckan


def provider(slug: str, ckan: RealCkan, key: str = "") -> Provider:
    return Provider.objects.create(
        slug=slug, title=f"Portal {slug}", kind="ckan", base_url=ckan.url, parameters={"organization": "city"},
        secrets={"api_key": secrets.seal(key)} if key else {},
    )  # fmt: skip


def table(ckan: RealCkan, package: str, rows: int = 0, name: str = "", **fields) -> str:
    """A dataset with one table; returns the id of its resource."""
    made = ckan.action("package_create", name=package, owner_org="city", **{"title": package.replace("-", " ").title(), **fields})
    records = [{"name": f"n{number}", "beds": number} for number in range(rows)]
    told = ckan.action("datastore_create", resource={"package_id": made["id"], "name": name or package}, fields=FIELDS, records=records, force=True)
    return told["resource_id"]


@contextmanager
def webhook(settings):
    """A Slack-compatible webhook; its texts are in the list."""
    texts: list[str] = []

    def take(request):
        texts.append(request.json()["text"])
        return Reply(200, b"ok", "text/plain")

    settings.ENVIRONMENT = "prod"
    with Told(take) as server:
        yield server.url, texts


def state(ckan: RealCkan) -> list[tuple]:
    """What a job that only looks must leave as it is."""
    packages = ckan.action("package_search", rows=100, include_private=True)["results"]
    return sorted((one["name"], one["metadata_modified"], [each["id"] for each in one["resources"]]) for one in packages)


def test_empty_tables_are_told_in_the_originals_words_each_time_then_once_that_they_are_over_then_no_more(portal, settings):
    shelter, budget = table(portal, "a-shelter"), table(portal, "budget")
    table(portal, "full", rows=3)
    with webhook(settings) as (address, texts):
        fields = {"notices": "trouble", "webhook": secrets.seal(address)}
        for _ in range(2):
            run = well("empty-resources", columns="package, extract_job", job_fields=fields)
        assert found(run, "title", "id", "finding", "rows") == [("A Shelter", shelter, "empty", 0), ("Budget", budget, "empty", 0)]
        for one in (shelter, budget):
            portal.action("datastore_upsert", resource_id=one, records=[{"name": "x"}], method="insert", force=True)
        for _ in range(2):
            well("empty-resources", columns="package, extract_job", job_fields=fields)
    head = "*empty-resources* | PROD\n"
    warning = f"{head}EMPTIES FOUND:\n```\n# \tPACKAGE  \n1.\tA Shelter\n2.\tBudget   \n```"
    assert texts == [warning, warning, f"{head}No empties"]


def test_a_table_that_is_gone_is_broken_and_not_empty(portal):
    made = portal.action("package_create", name="gone", owner_org="city")
    lost = portal.action("resource_create", package_id=made["id"], name="Lost", url="http://x.example", url_type="datastore")
    run = well("empty-resources")
    assert found(run, "resource", "id", "finding", "rows") == [("Lost", lost["id"], "broken", None)] and run.details["trouble"]


def test_a_stale_dataset_is_found_by_the_fields_of_the_portal(portal):
    last = timezone.now() - timedelta(days=40)
    table(portal, "stale", refresh_rate="Weekly", last_refreshed=f"{last:%Y-%m-%d %H:%M:%S}", owner_email="s@city", owner_division="Shelter")
    table(portal, "retired", refresh_rate="Daily", last_refreshed="2020-01-01", is_retired="true")
    table(portal, "fresh", refresh_rate="Daily", last_refreshed=f"{timezone.now():%Y-%m-%dT%H:%M:%S.%f}")
    before = state(portal)
    run = well("stale-datasets", portal="open", is_dry=True)
    assert found(run, "dataset", "rate", "days since", "days late", "email") == [("stale", "weekly", 40, 33, "s@city")] and state(portal) == before
    assert f"1. _stale_ (weekly): refreshed `{last:%Y-%m-%d}`. Behind *40 days*. s@city" in run.notice


def test_a_portal_that_keeps_no_files_says_so_and_a_dry_run_names_the_tables_without_them(portal):
    table(portal, "shelters", rows=1, name="Beds")
    run = well("cached-files", is_dry=True)
    assert found(run, "package", "tables", "outcome") == [("shelters", "Beds", "would be cached")]
    assert "it has no action datastore_cache" in done("cached-files").message


def test_two_views_of_a_portal_are_in_sync_until_one_lacks_a_dataset(portal):
    table(portal, "shelters", rows=1)
    provider("public", portal)
    assert well("catalogue-compare", portal="open", other="public").notice.startswith(":+1: In Sync: 1 package of")
    portal.action("package_create", name="secret", owner_org="city", private=True)
    run = well("catalogue-compare", portal="open", other="public")
    assert run.details["findings"]["rows"] == [["secret", "", "package", "is there", "missing"]] and ":exclamation: Out of Sync" in run.notice


def test_the_inventory_is_published_where_everybody_reads_it_and_stays_one_table(portal):
    table(portal, "shelters", rows=1, name="Beds", refresh_rate="Daily", date_published="2020-01-02 03:04:05")
    table(portal, "orphan", rows=1)
    source, _ = world.provider("source", "Source", base_url="https://gis.city.gov"), world.provider("portal", "Portal")
    to = Provider.objects.get(slug="open")
    world.pipeline("beds", "Beds", source, world.dataset("shelters", "Shelters"), world.SATURDAY, portal=to, portal_resource="shelters/Beds")
    before = state(portal)
    well("etl-inventory", is_dry=True)
    assert state(portal) == before
    ids = set()
    for _ in range(2):
        well("etl-inventory")
        [resource] = portal.action("package_show", id="od-etl-configs")["resources"]
        ids.add(resource["id"])
    shown = portal.action("datastore_search", resource_id=resource["id"], key="", sort="package_id, resource_name")
    assert len(ids) == 1 and [field["id"] for field in shown["fields"]][1:] == list(COLUMNS)
    # the second time it lists itself, too: nobody is known to feed it
    assert [(row["package_id"], row["resource_name"], row["engine"]) for row in shown["records"]] == [
        ("od-etl-configs", "od-etl-configs", None),
        ("orphan", "orphan", None),
        ("shelters", "Beds", "Open Data Ops"),
    ]
    assert shown["records"][2]["date_published"].startswith("2020-01-02T03:04:05") and shown["records"][2]["datastore_active"] == "true"
    assert {field["type"] for field in shown["fields"] if field["id"] == "date_published"} == {"timestamp"}


def test_columns_without_a_description_are_those_that_the_portal_shows_without_one(portal):
    table(portal, "shelters", rows=1, name="Beds", owner_email="s@city")
    run = well("missing-dictionary", portal="open", is_dry=True)
    assert found(run, "dataset", "table", "without description", "columns", "which", "email") == [("shelters", "Beds", 1, 2, "beds", "s@city")]


def test_the_address_of_each_dataset_is_asked(portal):
    def page(request):
        return Reply(404) if request.path == "/gone" else Reply(302, headers={"Location": "/new"}) if request.path == "/moved" else Reply(200)

    with Told(page) as web:
        for name in ("ok", "gone", "moved"):
            portal.action("package_create", name=name, owner_org="city", information_url=f"{web.url}/{name}")
        run = well("information-urls", portal="open")
    assert found(run, "dataset", "outcome") == [("gone", "not found"), ("moved", "redirected")]


def test_an_editor_who_is_no_sysadmin_may_run_every_job_that_looks(portal):
    table(portal, "shelters")
    Provider.objects.filter(slug="open").update(secrets={"api_key": secrets.seal(portal.editor_key)})
    for kind in ("empty-resources", "stale-datasets", "missing-dictionary", "information-urls"):
        well(kind, portal="open")
    assert UpkeepJob.objects.count() == 4


# remote files


@pytest.fixture
def web():
    """A city's file server: each path has its own bytes, and all changed at one moment."""

    def give(request):
        if request.path in ("/beds.csv", "/map.zip", "/gifts-2020.csv", "/gifts-2021.csv"):
            return Reply(200, f"of {request.path}".encode(), "application/octet-stream", {"Last-Modified": "Fri, 02 Oct 2020 08:30:15 GMT"})
        return Reply(404)

    with Told(give) as server:
        yield server


def resources(ckan: RealCkan, package: str) -> dict[str, dict]:
    return {one["name"]: one for one in ckan.action("package_show", id=package)["resources"]}


def test_a_resource_says_when_the_file_behind_its_address_changed(portal, web):
    made = portal.action("package_create", name="shelters", owner_org="city")
    for name, path in (("Beds", "/beds.csv"), ("Gone", "/gone.csv")):
        portal.action("resource_create", package_id=made["id"], name=name, url=f"{web.url}{path}")
    files = {"shelters": [f"{web.url}/beds.csv", f"{web.url}/gone.csv"]}
    before = resources(portal, "shelters")
    well("remote-file-times", files=files, is_dry=True)
    assert resources(portal, "shelters") == before
    assert found(well("remote-file-times", files=files), "resource", "outcome") == [("Beds", "synced"), ("Gone", "error")]
    after = resources(portal, "shelters")
    assert after["Beds"]["last_modified"] == "2020-10-02T08:30:15" and after["Gone"] == before["Gone"]
    assert found(well("remote-file-times", files=files), "resource", "outcome") == [("Beds", "unchanged"), ("Gone", "error")]


def test_files_are_uploaded_linked_and_found_by_year_and_a_second_run_sends_nothing(portal, web):
    made = portal.action("package_create", name="shelters", owner_org="city")
    old = portal.action("resource_create", package_id=made["id"], name="Beds", url="http://old.example/beds.csv", format="CSV")
    files = {
        "shelters": {
            "Beds": {"format": "CSV", "url": f"{web.url}/beds.csv"},
            "Map": {"format": "ZIP", "url": f"{web.url}/map.zip", "link": True},
            "Gifts yyyy": {"format": "CSV", "url": f"{web.url}/gifts-yyyy.csv"},
        }
    }
    run = well("remote-files", files=files)
    assert run.message == "4 files asked: 4 uploaded."
    now = resources(portal, "shelters")
    assert set(now) == {"Beds", "Map", "gifts-2020.csv", "gifts-2021.csv"} and now["Beds"]["id"] == old["id"]
    assert {one["last_modified"] for one in now.values()} == {"2020-10-02T08:30:15"}
    assert (now["Beds"]["url_type"], now["gifts-2020.csv"]["format"], now["Map"]["url"]) == ("upload", "CSV", f"{web.url}/map.zip")
    assert now["Map"]["size"] == len("of /map.zip")
    for name, path in (("Beds", "/beds.csv"), ("gifts-2021.csv", "/gifts-2021.csv")):
        assert requests.get(now[name]["url"], timeout=30).text == f"of {path}"
    assert well("remote-files", files=files).message == "4 files asked: 4 unchanged."
    assert resources(portal, "shelters") == now
