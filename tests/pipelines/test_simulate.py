"""A simulation does the work and leaves nothing: no row of any table, no file, nothing on the portal. The folder gets what would be."""

import hashlib
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings as conf

from opendata_ops.sandbox.soda import Portal
from pipelines.models import Pipeline, ScheduleBlock
from tests.pipelines.catching import catch_up, caught, here  # noqa: F401  a fixture
from tests.pipelines.scene import city, drop_city
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, ONE, PASSWORD, TWO, Sensors, drop, edition

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]
JUNE = ("-s", "2019-06-01", "-e", "2019-06-05")


@pytest.fixture
def one(tmp_path, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.WORK_DIR = tmp_path / "work"  # the tests beside this one work in the usual folder
    drop(tmp_path / "drop")
    edition("bt", BLUETOOTH_UNITS)
    with Portal(accounts={"u": PASSWORD}) as server:
        yield Sensors("bt-unmatched", tmp_path, portal=server)
    drop_city()


def everything(one: Sensors) -> dict[str, object]:
    """How many rows every table of ours has , what stands in those of pipelines; the files, the warehouse, the portal."""
    tables = {
        model._meta.label: model.objects.count()
        for model in apps.get_models()
        if model._meta.app_config.name in ("catalog", "pipelines", "perfmet", "opendata_ops", "django_q")
    }
    lake = Path(conf.LAKE_URL)
    files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in lake.rglob("*") if path.is_file()} if lake.exists() else {}
    names = [name for (name,) in city("select tablename from pg_tables where schemaname = 'city' order by 1")]
    loaded = {name: city(f'select count(*) from city."{name}"') for name in names}
    states = list(ScheduleBlock.objects.order_by("pk").values()), list(Pipeline.objects.order_by("pk").values())
    work = sorted(Path(conf.WORK_DIR).rglob("*")) if Path(conf.WORK_DIR).exists() else []
    return {"tables": tables, "files": files, "city": loaded, "states": states, "portal": one.told(), "work": work}


def test_all_stages_of_new_days_leave_nothing_anywhere_and_the_folder_has_what_would_be(one, tmp_path):
    before, folder = everything(one), tmp_path / "made" / "here"
    told = catch_up(one.slug, "ingest", *JUNE, "-0", "--onward", "-o", str(folder))
    assert told.code == 0, told.err
    assert everything(one) == before
    first, second = told.json["simulated"]
    assert {stage: counts["rows_out"] for stage, counts in first["stages"].items()} == {
        "extract": 4, "standardize": 4, "enrich": 3, "load": 3, "publish": 3,
    }  # fmt: skip
    assert first["stages"]["publish"]["message"] == "3 rows would be sent to qnpj-zrb9 of Portal" and not second["error"]
    there = {path.name for path in folder.iterdir()}
    for day in ("2019-06-01", "2019-06-02"):
        names = [f"Austin_bt_{day}_{end}" for end in ("unmatched.txt", "matched.txt", "unmatched.json", "matched.json", "unmatched.rows.csv")]
        assert {*names, f"ready-Austin_bt_{day}_unmatched.json"} <= there, "two layers share a name"
    lines = (folder / "qnpj-zrb9.csv").read_text().splitlines()
    due = one.due(ONE, TWO)
    assert lines[0].split(",") == [name for name, _ in one.public] and len(lines) == 1 + len(due)
    assert lines[1].endswith(due[0]["record_id"])
    # what is simulated stays to be done, and is then the very same
    assert len(caught(one.slug, "ingest", *JUNE, "--onward", "-o", str(tmp_path / "real"))) == 2
    real = {path.name: path for path in (tmp_path / "real").iterdir()}
    assert set(real) == there
    assert (tmp_path / "real" / "Austin_bt_2019-06-01_unmatched.txt").read_bytes() == (folder / "Austin_bt_2019-06-01_unmatched.txt").read_bytes()


def test_one_stage_of_days_that_are_done_leaves_them_as_they_are(one):
    caught(one.slug, "ingest", *JUNE, "--onward")
    before = everything(one)
    for stage in ("ingest", "standardize", "ready", "publish"):
        told = catch_up(one.slug, stage, *JUNE, "-0", "-F")
        assert told.code == 0 and len(told.json["simulated"]) == 2, told.err
        assert everything(one) == before, stage


def test_a_bad_day_is_told_and_keeps_no_other_from_being_tried(one):
    caught(one.slug, "ingest", *JUNE)
    (Path(conf.LAKE_URL) / "raw/2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt").unlink()
    before = everything(one)
    told = catch_up(one.slug, "standardize", *JUNE, "-0")
    first, second = told.json["simulated"]
    assert told.code == 1 and "is not in the lake" in first["error"] and second["stages"]["standardize"]["rows_out"] > 0
    assert everything(one) == before
