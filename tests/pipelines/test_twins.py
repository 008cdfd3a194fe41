"""Test twins: made on demand with the same settings, and nothing that they write is a real pipeline's."""

from pathlib import Path

import pytest
from django.conf import settings as conf
from django.utils import timezone

from catalog.models import AuditEntry, CatalogEntry, DatasetColumn
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import planner
from pipelines.errors import SetupError
from pipelines.models import AfterStep, Pipeline, Provider
from pipelines.upkeep import twins
from tests.pipelines.catching import catch_up, caught, here  # noqa: F401  a fixture
from tests.pipelines.scene import ANN, city, drop_city
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, ONE, PASSWORD, TWO, Sensors, drop, edition

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]
JUNE = ("-s", "2019-06-01", "-e", "2019-06-05")


@pytest.fixture
def portal(settings, tmp_path):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.VAR_DIR = tmp_path / "var"
    with Portal(accounts={"u": PASSWORD}) as server:
        yield server
    drop_city()


@pytest.fixture
def real(portal, tmp_path) -> Sensors:
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    return Sensors("bt-summary", tmp_path, portal=portal)


def test_debug_works_on_a_twin_and_touches_nothing_of_the_real_pipeline(real, tmp_path):
    told = catch_up(real.slug, "ingest", *JUNE, "--debug", "--onward")
    assert told.code == 0 and "was made; it publishes to" in told.err
    assert {block["pipeline"] for block in told.json["blocks"]} == {f"{real.slug}-test"}
    assert real.told() == [] and not real.pipeline.blocks.exists()
    assert not CatalogEntry.objects.filter(source=real.slug).exists()
    pointers = set(CatalogEntry.objects.filter(source=f"{real.slug}-test").values_list("pointer", flat=True))
    assert {pointer.split("/")[0] for pointer in pointers} == {"raw-test", "rawjson-test", "ready-test"}
    tables = {name for (name,) in city("select tablename from pg_tables where schemaname = 'city'")}
    assert f"{real.pipeline.table}_test" in tables and real.pipeline.table not in tables
    published = tmp_path / "var" / "test-published" / f"{real.slug}.csv"
    due = real.due(ONE, TWO)
    lines = published.read_text().splitlines()
    assert len(lines) == 1 + len(due) and "device_id" not in lines[0]
    # the real one is as new as it was: all is still to be done there
    assert len(caught(real.slug, "ingest", *JUNE)) == 2
    assert Path(conf.LAKE_URL, "raw/2019/06/01/bt/Austin_bt_2019-06-01_traf_match_summary.txt").exists()


def test_a_twin_may_publish_to_a_dataset_of_its_own_on_the_portal_and_never_to_a_real_one(real, portal):
    place = portal.add(SandboxTable("test-0001", "For trying out", real.public, [], key="record_id"))
    refused = catch_up(real.slug, "ingest", *JUNE, "--debug", "--test-resource", real.pipeline.portal_resource)
    assert refused.code == 2 and "for real" in refused.err and not twins.twin_of(real.pipeline)
    told = catch_up(real.slug, "ingest", *JUNE, "--debug", "--test-resource", "test-0001", "--onward")
    assert told.code == 0, told.err
    assert len(place._rows) == len(real.due(ONE, TWO)) and real.told() == []
    # it stays there, without being told again
    twin, words = twins.refreshed(real.pipeline, actor=ANN)
    assert twin.portal_resource == "test-0001" and "is up to date" in words


def test_a_twin_takes_over_what_was_changed_and_keeps_what_is_its_own(real):
    AfterStep.objects.create(pipeline=real.pipeline, kind="post", target="https://cache.example/clear")
    DatasetColumn.objects.create(dataset=real.pipeline.dataset, name="inside", is_published=False)
    twin, words = twins.refreshed(real.pipeline, actor=ANN, reason="try the new inventory")
    assert "was made" in words and twin.is_test and twin.is_paused
    assert (twin.dataset.access, twin.dataset.columns.get(name="inside").is_published) == ("restricted", False)
    assert not twin.after_steps.exists()
    Pipeline.objects.filter(pk=real.pipeline.pk).update(max_attempts=2, options={"file": "matched"})
    real.pipeline.refresh_from_db()
    again, words = twins.refreshed(real.pipeline, actor=ANN)
    assert again.pk == twin.pk and "took over max_attempts, options" in words and again.options == {"file": "matched"}
    assert again.is_paused and again.table == f"{real.pipeline.table}_test"
    assert twins.refreshed(real.pipeline, actor=ANN)[1].count("is up to date") == 1
    assert list(AuditEntry.objects.filter(verb="twin").values_list("reason", flat=True).order_by("pk")) == ["try the new inventory", ""]


def test_the_schedule_never_runs_a_twin(real):
    twin, _ = twins.refreshed(real.pipeline, actor=ANN)
    assert twin not in Pipeline.objects.active() and planner.next_due(twin, timezone.now()) is None


def test_a_twin_takes_no_name_table_or_twin_that_is_anothers(real, tmp_path):
    twin, _ = twins.refreshed(real.pipeline, actor=ANN)
    with pytest.raises(SetupError, match="is a test twin itself"):
        twins.refreshed(twin, actor=ANN)
    other = Sensors("bt-matched", tmp_path)
    Pipeline.objects.filter(pk=other.pipeline.pk).update(table=twin.table)
    with pytest.raises(SetupError, match="which the test would take"):
        twins.refreshed(real.pipeline, actor=ANN)
    twin.delete()
    Pipeline.objects.filter(pk=other.pipeline.pk).update(table="other", slug=f"{real.slug}-test")
    with pytest.raises(SetupError, match="is no test twin"):
        twins.refreshed(real.pipeline, actor=ANN)
    assert Provider.objects.filter(slug=twins.FOLDER).count() == 1
