"""Toronto's dataset files onto the real CKAN: all six; and two of them again, changed, upserted, killed on the way, and restored."""

import json

import pytest

from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.arcgis import ArcGIS, toronto_layers
from opendata_ops.sandbox.files import toronto_files
from pipelines.connectors import http
from pipelines.models import Pipeline, State
from pipelines.upkeep import backups
from tests.ckan.portals import leftovers
from tests.pipelines.scene import ANN, drop_city
from tests.pipelines.toronto import DEVELOPMENTS, SIX, Town, needs_six

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True), needs_six]


@pytest.fixture
def toronto(real_ckan, settings, tmp_path, monkeypatch, transactional_db):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.WORK_DIR = tmp_path / "work"
    settings.HEARTBEAT_SECONDS = 0.1
    monkeypatch.setattr(http, "_pause", lambda state: 0.01)
    with toronto_files() as files, ArcGIS(toronto_layers()) as layers:
        yield lambda who: Town(files, layers, real_ckan.url, getattr(real_ckan, who), tmp_path)
    drop_city()


def test_all_six_files_reach_the_portal_row_by_row_and_a_second_run_sends_nothing(toronto):
    toronto = toronto("sysadmin_key")
    packages = [path.stem for path in sorted(SIX.glob("*.yaml"))]
    toronto.take(*packages)
    last = toronto.go()
    pipelines = list(Pipeline.objects.select_related("dataset", "provider", "portal"))
    assert len(packages) == 6 and len(pipelines) == 8
    for pipeline in pipelines:
        due = toronto.due(pipeline)
        assert due and toronto.portal(pipeline) == toronto.warehouse(pipeline) == toronto.standard(pipeline) == due
        assert last[pipeline.slug].published == len(due)
        # what the public sees can be put back as it is
        holding = backups.of_pipeline(pipeline)
        assert backups.restore(holding, backups.back_up(holding), actor=ANN) == len(due)
        assert toronto.portal(pipeline) == due
    assert {run.published for run in toronto.go().values()} == {0}


def test_the_rows_of_a_file_are_exchanged_whole_again_and_after_a_kill_and_the_ids_stay(toronto, real_ckan, monkeypatch):
    toronto = toronto("sysadmin_key")
    toronto.take("development-pipeline")
    assert toronto.go()["development-pipeline"].published == 200
    pipeline = Pipeline.objects.get()
    old, id = toronto.portal(pipeline), toronto.table(pipeline)["id"]
    assert old == toronto.warehouse(pipeline) == toronto.standard(pipeline) == toronto.due(pipeline)
    assert toronto.go()["development-pipeline"].published == 0
    toronto.files.put(DEVELOPMENTS, toronto_rows.development_pipeline(210, seed=2))
    monkeypatch.setenv("ODO_FAULT", "ckan.batch:1:kill")
    assert toronto.work().state == State.WAITING
    assert toronto.portal(pipeline) == old
    monkeypatch.delenv("ODO_FAULT")
    assert toronto.work().state == State.DONE
    assert toronto.portal(pipeline) == toronto.warehouse(pipeline) == toronto.due(pipeline) != old
    assert toronto.table(pipeline)["id"] == id
    assert not leftovers(real_ckan, id)


def test_upserted_rows_that_vanish_from_the_source_stay_on_the_portal(toronto):
    toronto = toronto("editor_key")
    toronto.take("dinesafe")
    toronto.go()
    pipeline = Pipeline.objects.get()
    before, numbers = toronto.portal(pipeline), toronto.numbers(pipeline)
    assert before == toronto.warehouse(pipeline) == toronto.due(pipeline)
    places = json.loads(toronto_rows.dinesafe().body)
    gone = places.pop(0)
    toronto.files.put(toronto_rows.DINESAFE_PATH, json.dumps([*places, {**places[1], "estId": "99999"}]).encode(), content_type=toronto_rows.JSON)
    toronto.go()
    after = toronto.portal(pipeline)
    assert all(row in after for row in before) and gone["estId"] in {row["estId"] for row in after}
    assert [row for row in after if row["estId"] == "99999"]
    assert set(numbers) < set(toronto.numbers(pipeline))
