"""Extract of cameras: the inventory says which devices are asked, and one that is dead is seen, named and takes nothing away."""

from datetime import UTC, date, datetime

import pytest

from opendata_ops.sandbox.gridsmart import INTERSECTIONS, Cameras
from pipelines.connectors import http
from pipelines.errors import SetupError
from pipelines.models import Provider, ScheduleBlock
from tests.pipelines.sensor_days import Sensors, edition

pytestmark = pytest.mark.django_db
BURNET, LAMAR = INTERSECTIONS[:2]
DAY = date(2019, 7, 3)


@pytest.fixture
def cameras(settings, monkeypatch):
    monkeypatch.setattr(http, "_pause", lambda state: 0)
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Cameras((BURNET, LAMAR), now=lambda: datetime(2019, 7, 4, 9, tzinfo=UTC), days=3) as running:
        yield running


def pipeline_of(cameras, tmp_path) -> Sensors:
    one = Sensors("camera-counts", tmp_path)
    parameters = {"timeout": "5", "attempts": "1"}
    source = Provider(slug=f"gs-{one.slug}", title="Cameras", kind="gridsmart", base_url="http://{ip}:8902/api", parameters=parameters)
    source.full_clean()
    source.save()
    one.pipeline.provider = source
    one.pipeline.save()
    return one


def test_the_devices_of_the_newest_inventory_are_asked_and_their_files_lie_where_the_original_laid_them(cameras, tmp_path):
    edition("gs", [], date(2019, 7, 5))
    edition("gs", cameras.units(), date(2019, 7, 6))
    one = pipeline_of(cameras, tmp_path)
    run = one.do("extract", DAY)
    assert (run.rows_in, run.details["missing"], one.block(DAY).mark) == (2, [], ScheduleBlock.Mark.NONE)
    names = one.names("raw", DAY)
    # site files lie with the day on which they were asked for, which is today
    assert [name for name in names if name.endswith(".zip")] == [f"raw/2019/07/03/gs/{base}_gs_2019-07-03.zip" for base in (BURNET.base, LAMAR.base)]
    assert [entry.metadata["role"] for entry in one.files("raw", DAY) if entry.id_ext == "site.json"] == ["site", "site"]


def test_a_device_that_dies_is_seen_and_named_and_what_it_gave_before_stays(cameras, tmp_path):
    edition("gs", cameras.units(), date(2019, 7, 6))
    one = pipeline_of(cameras, tmp_path)
    one.do("extract", DAY)
    cameras.devices[BURNET.base].stop()
    run = one.do("extract", DAY)
    assert one.block(DAY).mark == ScheduleBlock.Mark.SUSPICIOUS and "1 missing: BURNET RD_RICHCREEK RD (127.0.0.1:" in run.message
    assert [missing["code"] for missing in run.details["missing"]] == ["unreachable"]
    assert {entry.id_base for entry in one.files("raw", DAY)} == {BURNET.base, LAMAR.base}


def test_cameras_without_an_inventory_say_so(cameras, tmp_path):
    one = pipeline_of(cameras, tmp_path)
    with pytest.raises(SetupError, match="asks the devices of an inventory"):
        one.do("extract", DAY)
