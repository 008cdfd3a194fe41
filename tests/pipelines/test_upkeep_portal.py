"""Cached files, two catalogues, the ETL inventory and missing descriptions, on a small CKAN."""

import csv

import pytest

from catalog.models import DatasetColumn
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors.ckan import Ckan
from pipelines.models import Provider, UpkeepJob, UpkeepRun
from pipelines.upkeep import cached_files
from pipelines.upkeep.etl_inventory import COLUMNS
from tests import world
from tests.pipelines.small_ckan import done, found, package, portal, refusal, resource, small_ckan, well  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db
EARLY, LATE = "2026-01-02T03:04:05.900000", "2026-01-02 03:04:06"


# cached files


@pytest.mark.parametrize(
    ("cached", "modified", "created", "is_behind"),
    [
        (None, EARLY, None, True),
        (EARLY, LATE, None, True),
        (LATE, EARLY, None, False),
        (EARLY, None, LATE, True),
        ("2026-01-02T03:04:05", EARLY, None, False),  # within the second
        (EARLY, None, None, False),
    ],
)
def test_a_file_is_behind_when_its_table_changed_since_to_the_second(cached, modified, created, is_behind):
    one = {"datastore_cache_last_update": cached, "last_modified": modified, "created": created}
    assert cached_files.is_behind(one) is is_behind


@pytest.fixture
def behind(portal):  # noqa: F811
    """A portal of which two packages are behind, one of them with two tables."""
    late = {"last_modified": LATE, "datastore_cache_last_update": EARLY}
    portal.packages = [
        package("parks", resource("p1", **late), resource("p2", datastore_cache_last_update=None)),
        package("in-step", resource("i", last_modified=EARLY, datastore_cache_last_update=LATE)),
        package("no-table", resource("n", datastore_active=False, url_type="upload")),
        package("roads", resource("r", **late)),
    ]
    return portal


def test_files_are_asked_for_once_a_package_and_a_failure_has_its_mark(behind):
    behind.actions["datastore_cache"] = lambda given: refusal("Validation Error", "busy", 409) if given["package_id"] == "id-roads" else None
    run = well("cached-files")
    assert [given for name, given in behind.asked if name == "datastore_cache"] == [{"package_id": "id-parks"}, {"package_id": "id-roads"}]
    assert found(run, "package", "tables", "outcome") == [("parks", "p1, p2", "successfully cached"), ("roads", "r", "failed")]
    assert run.notice.startswith("*parks*: successfully cached\n*roads*: :exclamation: failed (") and run.details["trouble"]


def test_a_dry_run_asks_for_no_file_and_says_which_it_would(behind):
    run = well("cached-files", is_dry=True)
    assert "datastore_cache" not in behind.names()
    assert found(run, "package", "outcome") == [("parks", "would be cached"), ("roads", "would be cached")] and not run.details["trouble"]


def test_a_portal_without_that_action_is_told_apart_from_a_failure(behind):
    run = done("cached-files")
    assert run.state == UpkeepRun.State.FAILED and "it has no action datastore_cache" in run.message
    assert behind.names().count("datastore_cache") == 1


def test_files_that_are_in_step_are_left_alone(portal):  # noqa: F811
    portal.packages = [package("in-step", resource("i", last_modified=EARLY, datastore_cache_last_update=LATE))]
    run = well("cached-files")
    assert run.notice == "All files of the datastore are as new as their tables." and portal.names() == ["package_search"]


# two catalogues


@pytest.fixture
def twin(portal, settings):  # noqa: F811
    """A second CKAN, with the slug `copy`; both have the same two packages."""
    with small_ckan(settings, "copy") as other:
        for one in (portal, other):
            one.packages = [package("parks", resource("p1"), resource("p2")), package("roads", resource("r", last_modified=EARLY))]
        yield other


def compared(**options) -> UpkeepRun:
    return well("catalogue-compare", portal="open", other="copy", **options)


def test_two_catalogues_that_are_the_same_are_in_sync_however_they_write_it(portal, twin):  # noqa: F811
    twin.packages[1]["resources"][0] |= {"datastore_active": "true", "last_modified": EARLY.replace("T", " ")[:19]}
    run = compared(is_dry=True)
    assert run.notice == ":+1: In Sync: 2 packages of open and copy are the same." and not run.details["trouble"]
    assert {*portal.names(), *twin.names()} == {"package_search"}


def test_one_field_that_differs_is_out_of_sync_and_named(portal, twin):  # noqa: F811
    twin.packages[1]["resources"][0]["format"] = "JSON"
    run = compared()
    assert run.details["findings"]["rows"] == [["roads", "r", "format", "CSV", "JSON"]] and run.details["trouble"]
    assert run.notice.splitlines() == [
        ":exclamation: Out of Sync: open has 2 packages, copy has 2 packages.",
        "_roads_, r: format: `CSV` against `JSON`",
    ]


def test_what_one_side_lacks_is_named_be_it_a_package_a_resource_or_a_field(portal, twin):  # noqa: F811
    twin.packages[0]["resources"].pop()
    twin.packages[0]["excerpt"] = "Green."
    twin.packages.append(package("extra"))
    rows = compared().details["findings"]["rows"]
    assert rows == [
        ["extra", "", "package", "missing", "is there"],
        ["parks", "", "fields", "", "excerpt"],
        ["parks", "", "number of resources", "2", "1"],
        ["parks", "p2", "resource", "is there", "missing"],
    ]


def test_resources_with_other_ids_are_matched_by_their_names(portal, twin):  # noqa: F811
    for one in twin.packages[0]["resources"]:
        one["id"] = f"copy-{one['id']}"
    rows = compared().details["findings"]["rows"]
    assert rows == [["parks", "p1", "id", "p1", "copy-p1"], ["parks", "p2", "id", "p2", "copy-p2"]]
    assert compared(fields="name, format").details["findings"]["rows"] == []


def test_a_catalogue_is_not_compared_with_itself_or_with_nothing(portal):  # noqa: F811
    assert "it takes two portals" in done("catalogue-compare", portal="open").message
    assert "it takes two portals" in done("catalogue-compare", portal="open", other="open").message


# who feeds what


@pytest.fixture
def fed(portal, monkeypatch):  # noqa: F811
    """A portal with four resources, of which two pipelines fill one each; what is published is kept in `.published`."""
    portal.packages = [
        package("parks", resource("p1", "Parks", last_modified=LATE), resource("p2", "Benches", extract_job="FME: benches"), refresh_rate="Daily"),
        package(
            "roads",
            resource("r", "Roads"),
            {**resource("c", "Roads.csv"), "is_datastore_cache_file": "true"},
            owner_email="r@city",
            is_retired="true",
        ),
    ]
    source = world.provider("source", "Source", base_url="https://gis.city.gov")
    world.provider("portal", "Portal")
    to = Provider.objects.get(slug="open")
    for slug, place, fields in (
        ("parks", "parks/Parks", {"cadence": "cron", "cron": "20 7 * * 4"}),
        ("roads", "r", {"cadence": "once"}),
    ):
        made = world.dataset(slug, slug.title(), engineer="A. Engineer")
        world.pipeline(slug, slug, source, made, world.SATURDAY, portal=to, portal_resource=place, resource="/layers/1", **fields)
    portal.published = []

    def replace(self, resource, columns, path, rows):
        with path.open(newline="") as file:
            portal.published.append((resource, [column.name for column in columns], list(csv.DictReader(file)), rows))

    monkeypatch.setattr(Ckan, "introduce", lambda self, resource, about: portal.published.append((resource, about.table)) or ())
    monkeypatch.setattr(Ckan, "preflight", lambda self, resource, **wants: wants["columns"])
    monkeypatch.setattr(Ckan, "replace", replace)
    return portal


def test_the_inventory_lists_each_resource_with_its_pipeline_and_null_where_there_is_none(fed):
    run = well("etl-inventory")
    assert run.details["findings"]["columns"] == list(COLUMNS) and len(COLUMNS) == 17
    assert found(run, "package_id", "resource_name", "engine", "schedule", "source_data", "fme") == [
        ("parks", "Benches", None, None, None, "FME: benches"),
        ("parks", "Parks", "Open Data Ops", "20 7 * * 4", "https://gis.city.gov/layers/1", None),
        ("roads", "Roads", "Open Data Ops", "@once", "https://gis.city.gov/layers/1", None),
    ]
    assert found(run, "config_location", "od_owner", "resource_last_modified", "is_retired")[1] == (
        "/pipelines/parks/", "A. Engineer", "2026-01-02T03:04:06", "false",
    )  # fmt: skip
    assert found(run, "is_retired", "owner_email")[2] == ("true", "r@city")
    assert run.message.startswith("3 resources: 2 are fed by pipelines of ours, 1 by nothing that we know; published as od-etl-configs")


def test_a_file_that_a_job_brings_is_fed_by_that_job_also_under_the_name_of_its_year(fed):
    def file(address):
        return {"format": "CSV", "url": f"https://files.city.gov/{address}"}

    files = {"parks": {"Benches": file("b.csv")}, "roads": {"every year": file("roads%20yyyy.csv")}}
    UpkeepJob.objects.create(kind="remote-files", title="Files", options={"files": files})
    UpkeepJob.objects.create(kind="remote-files", title="Empty", options={})
    fed.packages[1]["resources"] += [resource("y", "roads 2021.csv"), resource("n", "roads next.csv")]
    run = well("etl-inventory")
    engines = dict(found(run, "resource_name", "engine"))
    assert (engines["Benches"], engines["roads 2021.csv"], engines["roads next.csv"]) == (*["Open Data Ops - Remote files"] * 2, None)
    assert dict(found(run, "resource_name", "source_data"))["Benches"] == "https://files.city.gov/b.csv"


def test_the_inventory_is_published_as_a_dataset_of_that_portal_and_not_by_a_dry_run(fed):
    well("etl-inventory", is_dry=True)
    well("etl-inventory", dataset="none")
    assert fed.published == []
    well("etl-inventory")
    [introduced, (place, columns, rows, count)] = fed.published
    assert introduced == ("od-etl-configs/od-etl-configs", "od-etl-configs") and place == "od-etl-configs/od-etl-configs"
    assert (columns, count) == (list(COLUMNS), 3)
    assert [(row["resource_name"], row["engine"]) for row in rows] == [("Benches", ""), ("Parks", "Open Data Ops"), ("Roads", "Open Data Ops")]


def test_a_package_that_can_not_be_read_is_told_and_the_others_are_listed(fed):
    fed.packages[0]["resources"][0]["last_modified"] = "yesterday"
    run = well("etl-inventory")
    assert found(run, "package_id") == [("roads",)] and "1 package could not be read (parks: " in run.message and run.details["trouble"]


# columns without a description


def field(id: str, notes: str | None = None) -> dict:
    return {"id": id, "type": "text", **({} if notes is None else {"info": {"notes": notes}})}


def test_columns_without_notes_are_found_table_by_table_the_worst_first(portal):  # noqa: F811
    portal.packages = [package("parks", resource("p1", "Parks"), resource("gone")), package("roads", resource("r", "Roads"), owner_email="r@city")]
    portal.table("p1", 9, [field("name", "The name."), field("area")])
    portal.table("r", 9, [field("name", ""), field("length", "  "), field("lanes", "How many.")])
    run = well("missing-dictionary", portal="open")
    assert found(run, "dataset", "table", "without description", "columns", "which", "email")[:2] == [
        ("roads", "Roads", 2, 3, "name, length", "r@city"),
        ("parks", "Parks", 1, 2, "area", ""),
    ]
    assert "parks/gone: " in run.notice and run.notice.splitlines()[1] == "1. _roads_, Roads: *2 of 3* (name, length)"
    assert run.message == "3 of 5 columns in 2 tables have no description; 1 could not be read."


def test_our_own_dictionaries_are_looked_at_where_no_portal_is_named():
    one, gone = world.dataset("parks", "Parks"), world.dataset("gone", "Gone", is_retired=True)
    for dataset, part, name, words, fields in (
        (one, "", "name", "The name.", {}), (one, "", "area", "", {}), (one, "", "inside", "", {"is_published": False}),
        (one, "Benches", "wood", " ", {}), (gone, "", "old", "", {}),
    ):  # fmt: skip
        DatasetColumn.objects.create(dataset=dataset, part=part, name=name, description=words, **fields)
    run = well("missing-dictionary", is_dry=True)
    assert found(run, "dataset", "table", "which") == [("parks", "", "area"), ("parks", "Benches", "wood")]
    DatasetColumn.objects.update(description="Told.")
    assert well("missing-dictionary").notice == "Every column has a description."


def test_an_answer_that_is_no_ckans_fails_in_words(portal):  # noqa: F811
    portal.actions["package_search"] = lambda given: Reply.of(["not", "ckan"])
    assert "not as a CKAN portal does" in done("missing-dictionary", portal="open").message
