"""The practice city's dataset files: imported as a steward's, run, and on a CKAN portal; one poorly described, so that its score says so."""

import pytest
from django.utils import timezone

from catalog.models import Dataset
from opendata_ops import practice, practice_packages
from opendata_ops.sandbox.arcgis import ArcGIS, toronto_layers
from opendata_ops.sandbox.ckan import Ckan
from opendata_ops.sandbox.files import toronto_files
from perfmet import quality
from perfmet.models import QualityScore
from pipelines import planner, runner
from pipelines.models import Pipeline, Provider, ScheduleBlock, State, UpkeepJob
from pipelines.selectors.chain import reconcile
from tests.pipelines.scene import drop_city

PACKAGES = sorted(path.stem for path in practice_packages.FOLDER.glob("*.yaml"))


@pytest.mark.django_db
def test_made_twice_they_are_there_once_at_the_addresses_of_today():
    for port in (3, 4):
        urls = [f"http://127.0.0.1:{port}{place}" for place in range(3)]
        practice_packages.create(*urls, actor=practice.ACTOR)
    assert sorted(Dataset.objects.values_list("slug", flat=True)) == PACKAGES
    assert set(Pipeline.objects.values_list("provider__kind", "provider__base_url", "portal__base_url")) == {
        ("web_file", "http://127.0.0.1:40", "http://127.0.0.1:42"), ("arcgis", "http://127.0.0.1:41", "http://127.0.0.1:42")
    }  # fmt: skip
    assert Provider.objects.filter(kind="web_file").count() == 1
    assert {"empty-resources", "quality", "log-retention"} <= set(UpkeepJob.objects.values_list("kind", flat=True))


@pytest.fixture
def clean():
    yield
    drop_city()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_all_of_them_reach_the_portal_and_their_scores_tell_which_needs_a_steward(settings, tmp_path, clean):
    settings.OUTBOUND_ALLOW, settings.WORK_DIR, settings.LAKE_URL = ["127.0.0.1"], tmp_path / "work", str(tmp_path / "lake")
    with toronto_files() as files, ArcGIS(toronto_layers()) as maps, Ckan() as portal:
        practice_packages.create(files.url, maps.url, portal.url, actor=practice.ACTOR)
        pipelines = list(Pipeline.objects.select_related("provider", "portal"))
        for one in pipelines:
            planner.plan(one, timezone.now())
        runner.work_off(list(ScheduleBlock.objects.values_list("pk", flat=True)), workers=2)
        blocks = ScheduleBlock.objects.select_related("pipeline")
        assert [(one.pipeline.slug, one.state, one.message) for one in blocks if one.state != State.DONE] == []
        for one in pipelines:
            package, _, table = one.portal_resource.partition("/")
            block = ScheduleBlock.objects.get(pipeline=one)
            runs = {run.stage: run for run in block.runs.all()}
            # files whose rows nobody can count beforehand are files at the source, and from the reader on rows
            chain = reconcile(block.runs.all(), one.stages)
            assert chain.adds_up, chain.sentence
            assert block.rows == runs["standardize"].rows_in, chain.sentence
            assert len(portal.table(package, table).rows) == runs["load"].rows_out == runs["publish"].published > 0
        assert sorted(portal.packages[one]["name"] for one in portal.packages) == PACKAGES
        quality.score(force=True)
    worst = QualityScore.objects.order_by("score").first()
    assert worst.package == "business-licences" and worst.grade != "Gold" and worst.gains
