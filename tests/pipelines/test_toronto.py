"""Toronto's six dataset files, unchanged, from their sources to a CKAN: every row at every hop, twice, changed, forced, killed on the way."""

import json

import pytest

from catalog.models import Dataset, DatasetColumn, DatasetEvent
from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.arcgis import ArcGIS, toronto_layers
from opendata_ops.sandbox.ckan import Ckan
from opendata_ops.sandbox.files import toronto_files
from pipelines.connectors import http
from pipelines.models import Pipeline, RejectedRow, Run, RunState, State, UpkeepJob
from pipelines.upkeep import jobs
from tests.pipelines.scene import ANN, drop_city
from tests.pipelines.toronto import DEVELOPMENTS, SIX, TTC, Town, needs_six

pytestmark = [pytest.mark.django_db, needs_six]


@pytest.fixture
def toronto(settings, tmp_path, monkeypatch):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.WORK_DIR = tmp_path / "work"
    settings.HEARTBEAT_SECONDS = 0.1
    monkeypatch.setattr(http, "_pause", lambda state: 0.01)
    with toronto_files() as files, ArcGIS(toronto_layers()) as layers, Ckan() as portal:
        yield Town(files, layers, portal.url, portal.sysadmin_key, tmp_path)
    drop_city()


def the(slug="") -> Pipeline:
    return Pipeline.objects.select_related("dataset", "provider", "portal").get(**({"slug": slug} if slug else {}))


@pytest.mark.parametrize("package", [path.stem for path in sorted(SIX.glob("*.yaml"))])
def test_every_row_is_the_same_at_the_source_in_the_lake_in_the_warehouse_and_on_the_portal(toronto, package):
    toronto.take(package)
    last = toronto.go()
    for pipeline in Pipeline.objects.select_related("dataset", "provider"):
        due = toronto.due(pipeline)
        assert due and toronto.standard(pipeline) == due
        assert toronto.warehouse(pipeline) == due
        assert toronto.portal(pipeline) == due
        assert last[pipeline.slug].published == len(due)
        runs = Run.objects.filter(block__pipeline=pipeline)
        assert all(run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates for run in runs)
    # nothing to fetch, and nothing sent
    for run in toronto.go().values():
        assert (run.stage, run.state, run.published) == ("extract", RunState.UNCHANGED, 0)


def test_what_the_portal_says_of_the_packages_is_what_their_files_say(toronto):
    toronto.take("dinesafe", "traffic-and-parking-by-law-schedules")
    toronto.go()
    package = toronto.package("dinesafe")
    assert (package["title"], package["refresh_rate"], package["dataset_category"]) == ("Dinesafe", "Daily", "Table")
    assert (package["owner_division"], package["owner_email"]) == ("Toronto Public Health", "PublicHealth@toronto.ca")
    assert package["topics"] in (["Public safety", "Health"], "Public safety, Health")
    assert {tag["name"] for tag in package["tags"]} == {"dinesafe", "food", "health inspection", "restaurant"}
    assert package["notes"].startswith("DineSafe is Toronto Public Health’s food safety program")
    assert package["date_published"].startswith("2019-07-23T17:04:01")
    fields = toronto.action("datastore_search", resource_id=toronto.table(the("dinesafe"))["id"], limit=0)["fields"]
    told = {field["id"]: (field["type"], field.get("info", {}).get("notes")) for field in fields}
    assert told["inspectionDate"] == ("date", "Date of inspection")
    assert told["amountFined"] == ("float8", "Dollar amount of fine given")
    laws = toronto.package("traffic-and-parking-by-law-schedules")
    assert laws.get("jira_issue_id") == "DIA-648" or {"key": "jira_issue_id", "value": "DIA-648"} in laws["extras"]


def test_a_changed_source_takes_the_place_of_the_old_rows_and_the_ids_stay(toronto):
    toronto.take("development-pipeline")
    toronto.go()
    pipeline = the()
    ids, old = (toronto.package("development-pipeline")["id"], toronto.table(pipeline)["id"]), toronto.portal(pipeline)
    toronto.files.put(DEVELOPMENTS, toronto_rows.development_pipeline(210, seed=2))
    assert toronto.go()["development-pipeline"].published == 210
    assert (toronto.package("development-pipeline")["id"], toronto.table(pipeline)["id"]) == ids
    assert toronto.portal(pipeline) == toronto.due(pipeline) != old
    # another stamp on the same rows is no change
    toronto.files.put(DEVELOPMENTS, toronto_rows.development_pipeline(210, seed=2).body + b"")
    numbers = toronto.numbers(pipeline)
    assert toronto.go()["development-pipeline"].published == 0
    assert toronto.numbers(pipeline) == numbers


def test_what_vanished_from_a_source_that_is_upserted_stays_on_the_portal_and_what_changed_is_updated(toronto):
    toronto.take("dinesafe")
    toronto.go()
    pipeline = the()
    before, numbers = toronto.portal(pipeline), toronto.numbers(pipeline)
    places = json.loads(toronto_rows.dinesafe().body)
    gone, moved, new = places.pop(0), places[1], {**places[2], "estId": "99999"}
    moved["address"] = "1 New St"
    toronto.files.put(toronto_rows.DINESAFE_PATH, json.dumps([*places, new]).encode(), content_type=toronto_rows.JSON)
    toronto.go()
    after = toronto.portal(pipeline)
    assert [row for row in after if row["estId"] == gone["estId"]] == [row for row in before if row["estId"] == gone["estId"]]
    assert {row["address"] for row in after if row["estId"] == moved["estId"]} >= {"1 New St"}
    assert [row for row in after if row["estId"] == "99999"]
    assert set(numbers) & set(toronto.numbers(pipeline))
    assert len(after) == len(toronto.warehouse(pipeline)) > len(before)


def test_equal_rows_are_sent_again_by_force_and_by_nothing_else(toronto):
    toronto.take("ttc-subway-delay-data")
    toronto.go()
    pipeline = the("ttc-subway-delay-data-code-descriptions")
    rows, id = toronto.portal(pipeline), toronto.table(pipeline)["id"]
    assert {run.published for run in toronto.go(force=True).values()} == {200, len(rows)}
    assert (toronto.portal(pipeline), toronto.table(pipeline)["id"]) == (rows, id)


def test_rows_that_are_never_to_be_exchanged_are_not(toronto):
    toronto.take("development-pipeline")
    toronto.go()
    pipeline = the()
    Pipeline.objects.update(options={**pipeline.options, "update": "never"})
    toronto.read([SIX / "development-pipeline.yaml"])
    assert the().options["update"] == "never"
    before = toronto.portal(pipeline)
    toronto.files.put(DEVELOPMENTS, toronto_rows.development_pipeline(210, seed=2))
    assert toronto.go()["development-pipeline"].published == 0
    assert toronto.portal(pipeline) == before != toronto.due(pipeline)


def test_other_notes_in_the_file_alone_reach_the_portal_and_no_row_is_sent(toronto):
    toronto.take("development-pipeline")
    toronto.go()
    pipeline = the()
    numbers, modified = toronto.numbers(pipeline), toronto.table(pipeline)["last_modified"]
    path = toronto.edited(
        "development-pipeline",
        ("excerpt: Shows anticipated housing starts in the city", "excerpt: Housing that is to come"),
        ("notes: Description of the project. Should be verified for accuracy.", "notes: What is to be built."),
    )
    changed = toronto.read([path]).changed
    assert [field.name for change in changed for field in change.fields if change.kind == "dataset"] == [
        "excerpt",
        "parts.Development Pipeline.Description.description",
    ]
    job = UpkeepJob.objects.create(title="Descriptions", kind="descriptions", cadence="hourly")
    assert jobs.kind_of(job)().has_work(job)
    jobs.carry_out(jobs.start(job, actor=ANN).run.pk)
    assert toronto.package("development-pipeline")["excerpt"] == "Housing that is to come"
    fields = toronto.action("datastore_search", resource_id=toronto.table(pipeline)["id"], limit=0)["fields"]
    assert {field["id"]: field.get("info", {}).get("notes") for field in fields}["Description"] == "What is to be built."
    assert (toronto.numbers(pipeline), toronto.table(pipeline)["last_modified"]) == (numbers, modified)
    assert toronto.go()["development-pipeline"].published == 0


def test_a_row_with_a_value_that_is_none_of_its_type_is_kept_apart_and_the_others_arrive(toronto):
    toronto.take("ttc-subway-delay-data")
    toronto.files.put(f"{TTC}.csv", toronto_rows.subway_delays(200, misfits=3))
    last = toronto.go()["ttc-subway-delay-data-ttc-subway-delay-data-since-2025"]
    assert last.published == 197
    rejected = RejectedRow.objects.filter(block=last.block).order_by("line")
    assert [(row.column, row.value, row.line) for row in rejected] == [("Date", "20250230", 2), ("Date", "20250230", 3), ("Date", "20250230", 4)]


def test_a_column_that_the_source_no_longer_has_is_named_and_the_public_keeps_the_old_rows(toronto):
    toronto.take("development-pipeline")
    toronto.go()
    pipeline = the()
    before = toronto.portal(pipeline)
    body = toronto_rows.development_pipeline(20).body.replace(b"Application Number", b"Application No", 1)
    toronto.files.put(DEVELOPMENTS, body, content_type=toronto_rows.CSV)
    with pytest.raises(Exception, match="Application Number"):
        toronto.go()
    assert toronto.portal(pipeline) == before
    assert DatasetEvent.objects.filter(dataset=pipeline.dataset, kind="columns").exists()


def test_the_dictionary_of_each_part_is_that_of_its_file_after_the_runs_too(toronto):
    toronto.take("ttc-subway-delay-data")
    words = ("part", "name", "type", "portal_type", "description", "is_published", "position")
    lines = list(DatasetColumn.objects.order_by("pk").values_list(*words))
    toronto.go()
    assert list(DatasetColumn.objects.order_by("pk").values_list(*words)) == lines
    dataset = Dataset.objects.get()
    assert (dataset.title, dataset.refresh_rate) == ("TTC Subway Delay Data", "monthly")
    report = toronto.read([SIX / "ttc-subway-delay-data.yaml"])
    # the test itself leads the provider elsewhere
    assert {change.kind for change in report.changed} == {"provider"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", ["standardize.page:1:kill", "load.merged:1:kill", "ckan.batch:1:kill", "ckan.exchanged:1:kill"])
def test_who_is_killed_on_the_way_leaves_the_old_rows_or_the_new_ones_and_the_next_run_heals(toronto, monkeypatch, fault):
    toronto.take("development-pipeline")
    toronto.walk(toronto.placed()[0][1])
    pipeline = the()
    old = toronto.portal(pipeline)
    toronto.files.put(DEVELOPMENTS, toronto_rows.development_pipeline(210, seed=2))
    monkeypatch.setenv("ODO_FAULT", fault)
    assert toronto.work().state == State.WAITING
    assert toronto.portal(pipeline) in (old, toronto.due(pipeline))
    monkeypatch.delenv("ODO_FAULT")
    assert toronto.work().state == State.DONE
    assert toronto.portal(pipeline) == toronto.warehouse(pipeline) == toronto.due(pipeline) != old
    assert [package["name"] for package in toronto.action("package_search", rows=100)["results"]] == ["development-pipeline"]
