"""The practice city's configuration, and the first order of `demo`."""

from datetime import datetime, time, timedelta

import pytest

from catalog.models import AuditEntry, BoundaryLayer, Dataset, InventoryEdition
from opendata_ops import practice
from opendata_ops.sandbox import city
from opendata_ops.sandbox.sensors import SensorCity
from perfmet.models import SensorWatch
from pipelines import clock, planner, runner
from pipelines.connectors import http
from pipelines.formats.bluetooth import FILES
from pipelines.formats.gridsmart_counts import COUNT_COLUMNS
from pipelines.formats.wavetronix import COLUMNS as RADAR_COLUMNS
from pipelines.models import AfterRun, AfterStep, Pipeline, ScheduleBlock, State, UpkeepJob
from pipelines.selectors.chain import reconcile
from pipelines.stages import release
from pipelines.stages.documents import INSIDE
from pipelines.upkeep import after
from tests.pipelines.scene import city as ask
from tests.pipelines.scene import drop_city


@pytest.mark.django_db
def test_the_first_order_of_the_demo_is_not_refused_for_blocks_that_wait_already(monkeypatch):
    monkeypatch.setattr("pipelines.planner.ring", lambda block_id: True)
    practice.create("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")

    practice.start()
    practice.start()

    assert ScheduleBlock.objects.filter(state=State.WAITING).exists()
    assert not AuditEntry.objects.filter(result__startswith="refused").exists()


@pytest.mark.django_db
def test_the_practice_pipelines_show_every_way_of_reading_and_are_made_once():
    for _ in range(2):
        practice.create("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")
    pets, days, changes = (Pipeline.objects.get(slug=slug) for slug in ("pet-licenses", "311-service-requests", "311-service-requests-changes"))
    assert (pets.key, pets.load_mode, pets.watermark_column, pets.portal_mode) == ([], "replace", "license_issue_date", "replace")
    assert (days.window_column, days.watermark_column) == ("createddate", "")
    assert (changes.window_column, changes.watermark_column, changes.compare_days, changes.gone_rows) == ("", "updateddate", 1, "delete")
    assert (changes.table, changes.key, changes.dataset_id, changes.portal_resource) == (days.table, days.key, days.dataset_id, days.portal_resource)
    assert (pets.dataset.chart_rows, pets.dataset.chart_columns) == ("species", "license_issue_date")
    assert set(AfterStep.objects.values_list("pipeline__slug", "kind")) == {(pets.slug, "analyze"), (changes.slug, "analyze")}
    of_the_source = Pipeline.objects.filter(provider__slug=practice.SOURCE)
    assert of_the_source.count() == len(city.DATASETS) + 1 and Dataset.objects.count() == len(city.DATASETS) + 1


@pytest.mark.django_db
def test_the_sensors_have_a_source_an_inventory_and_a_portal_that_takes_just_what_is_published_of_them(tmp_path):
    written = {slug: FILES[feed.options["file"]].table for slug, feed in practice.FEEDS.items() if feed.format == "bluetooth"}
    written |= {"radar-counts": RADAR_COLUMNS, "camera-counts": COUNT_COLUMNS}
    public = {slug: [(name, kind) for name, kind in columns if name not in INSIDE] for slug, columns in written.items()}
    assert {slug: [(column.name, column.type) for column in told.columns] for slug, told in city.SENSOR_TABLES.items()} == public
    with SensorCity(tmp_path, days=1) as sensors:
        for _ in range(2):
            practice.create("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", sensors.office.url, str(tmp_path))
        held = {code: sensors.units(code) for code in ("bt", "wt", "gs")}
    assert {one.code: len(one.units) for one in InventoryEdition.objects.all()} == {code: len(units) for code, units in held.items()}
    assert set(Pipeline.objects.exclude(data_source="").values_list("slug", flat=True)) == set(practice.FEEDS)
    watched = {"bt-unmatched": "Unmatched Entries", "radar-counts": "Vehicle Counts", "camera-counts": "Vehicle Counts"}
    assert dict(SensorWatch.objects.values_list("pipeline__slug", "label")) == watched
    assert UpkeepJob.objects.filter(kind="inventory").count() == 3


@pytest.mark.django_db
def test_three_operators_of_different_versions_and_log_ins_feed_one_table_and_the_public_gets_austins_columns():
    for port in (3, 4):
        practice.create("http://127.0.0.1:1", "http://127.0.0.1:2", f"http://127.0.0.1:{port}")
    pipelines = list(Pipeline.objects.filter(provider__kind="mds").select_related("provider").order_by("slug"))
    told = {one.slug: (one.provider.parameters["version"], one.provider.parameters["auth_type"], sorted(one.provider.secrets)) for one in pipelines}
    assert told == {
        "trips-kiwi": ("2.0", "basic", ["auth_data"]),
        "trips-redwing": ("0.3", "bearer", ["token"]),
        "trips-zipwheel": ("1.2", "oauth", ["auth_data"]),
    }
    assert {one.provider.base_url for one in pipelines} == {f"http://127.0.0.1:4/{slug}" for slug in ("kiwi", "redwing", "zipwheel")}
    assert pipelines[2].provider.parameters["token_url"] == "http://127.0.0.1:4/zipwheel/oauth/token"
    assert {(one.table, one.dataset_id, one.settle_minutes, tuple(one.stages)) for one in pipelines} == {
        ("trips", pipelines[0].dataset_id, 1800, ("extract", "standardize", "enrich", "load", "publish"))
    }
    assert "practice-" not in str([one.provider.secrets for one in pipelines]), "secrets are sealed"
    assert [one.column for one in pipelines[0].enrichments.all()] == [
        f"{column}_{end}" for column in ("council_district", "census_geoid", "cell") for end in ("start", "end")
    ]
    assert {layer.slug: layer.areas for layer in BoundaryLayer.objects.all()} == {"council-districts": 10, "census-tracts": 58, "trip-cells": 400}
    assert all(release.problems(one) == [] for one in pipelines)
    released = [(entry["column"], entry["type"]) for entry in pipelines[0].release if "column" in entry]
    assert [(column.name, column.type) for column in city.TRIPS.columns] == released
    assert not pipelines[0].dataset.columns.filter(is_published=True, name__in=[*release.ATD_PRIVATE, "cell_start", "cell_end"]).exists()
    assert set(UpkeepJob.objects.values_list("kind", flat=True)) >= {"heal"}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_licences_without_a_key_and_the_changes_of_an_hour_reach_the_portal_and_every_row_is_accounted_for(settings, tmp_path, monkeypatch):
    settings.OUTBOUND_ALLOW, settings.WORK_DIR = ["127.0.0.1"], tmp_path / "work"
    monkeypatch.setattr(http, "_pause", lambda state: 0.01)
    try:
        with city.City(requests_a_day=20, days_shown=3) as servers:
            practice.create(servers.source.url, servers.portal.url, servers.scooters.url)
            for slug in ("pet-licenses", "311-service-requests", "311-service-requests-changes", "311-service-requests-changes"):
                go(slug)
            source = servers.source.dataset(city.SERVICE_REQUESTS.id)
            source.publish([{"srnumber": list(source.rows)[-1], ":deleted": True}])
            Pipeline.objects.update(compared_at=None)  # a day passes
            go("311-service-requests-changes")
            pets, requests = servers.portal.dataset(city.PET_LICENCES.target_id), servers.portal.dataset(city.SERVICE_REQUESTS.target_id)
            assert len(pets) == 51_754 == ask("select count(*) from city.pet_licenses")[0][0]
            assert set(requests.rows) == set(source.rows)
        assert set(AfterRun.objects.values_list("state", flat=True)) <= {"done", "skipped"}
    finally:
        drop_city()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_an_evening_of_three_operators_becomes_public_trips_and_nothing_private_leaves(settings, tmp_path, monkeypatch):
    settings.OUTBOUND_ALLOW, settings.WORK_DIR = ["127.0.0.1"], tmp_path / "work"
    monkeypatch.setattr(http, "_pause", lambda state: 0.01)
    zone = clock.zone(city.ZONE)
    evening = clock.local_instant(datetime.now(zone).date() - timedelta(days=practice.TRIP_DAYS), time(17), city.ZONE)
    try:
        with city.City(requests_a_day=20, days_shown=3) as servers:
            practice.create(servers.source.url, servers.portal.url, servers.scooters.url)
            pipelines = list(Pipeline.objects.filter(provider__kind="mds").select_related("provider"))
            order = planner.Order(pipelines, starts_at=evening, ends_at=evening + timedelta(hours=1), which="all")
            placed = planner.place(order, actor=practice.ACTOR, bell=False)
            runner.work_off(placed.moved, workers=2)
            blocks = list(ScheduleBlock.objects.filter(pk__in=placed.moved).select_related("pipeline"))
            assert [(block.state, block.message) for block in blocks if block.state != State.DONE] == [] and len(blocks) == 3
            delivered = [trip for server in servers.scooters.operators.values() for trip in server.trips(evening)]
            riders = ask("select count(*) from city.trips where coalesce(trip_type, 'rider') = 'rider'")[0][0]
            [[loaded, placed_in_city]] = ask("select count(*), count(council_district_start) from city.trips")
            published = servers.portal.dataset(city.TRIPS.target_id).rows
        for block in blocks:
            assert reconcile(list(block.runs.all()), block.pipeline.stages).adds_up in (True, None)
        rejected = sum(block.rejected for block in blocks)
        assert 0.8 * len(delivered) < loaded <= len(delivered) - rejected
        assert placed_in_city > 0.9 * loaded
        assert len(published) == riders
        told = str(published)
        private = {word for trip in delivered for word in (trip.trip_id, trip.device.device_id, str(trip.device.vehicle_id), trip.provider_id)}
        assert [word for word in private if word in told] == []
        assert not any(str(coordinate) in told for trip in delivered for coordinate in trip.start)
    finally:
        drop_city()


def go(slug: str) -> None:
    placed = planner.place(planner.Order([Pipeline.objects.get(slug=slug)], which="all"), actor=practice.ACTOR, bell=False)
    runner.work_off(placed.moved, workers=2)
    after.carry_out(block_ids=placed.moved)
    for block in ScheduleBlock.objects.filter(pk__in=placed.moved):
        assert block.state == State.DONE, f"{block}: {block.message}"
        runs = list(block.runs.all())
        assert reconcile(runs, block.pipeline.stages).adds_up in (True, None)
