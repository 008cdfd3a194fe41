"""The acceptance sequence of the original (facts/datalake.md §7.6), for every source and every stage, as a person would type it.

One day's input is hidden and the range caught up: the others are done. Again, and with -r instead of -s: nothing. With -F: all again.
The day comes back: a later range does not see it, the range takes exactly it. One day back from today: nothing, they are old. The
next day's input comes: it is taken.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.db.models.functions import Now

from catalog.models import CatalogEntry
from opendata_ops.sandbox.gridsmart import Cameras, Intersection
from opendata_ops.sandbox.soda import Portal
from pipelines.models import Provider, State
from pipelines.upkeep import catchup
from tests.pipelines.catching import caught, here  # noqa: F401  a fixture
from tests.pipelines.scene import drop_city
from tests.pipelines.sensor_days import BLUETOOTH_UNITS, PASSWORD, RADAR_UNITS, ZONE, Sensors, drop, edition, window

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]
JUNE = [date(2019, 6, 1), date(2019, 6, 2), date(2019, 6, 3)]


class Drop(Sensors):
    """Bluetooth: the files of three days in a folder."""

    days = JUNE

    def __init__(self, tmp_path: Path, portal: Portal):
        drop(tmp_path / "drop")
        for name in ("bt", "btmatch"):
            (tmp_path / "drop" / f"Austin_{name}_06-03-2019.txt").write_bytes((tmp_path / "drop" / f"Austin_{name}_06-02-2019.txt").read_bytes())
        edition("bt", BLUETOOTH_UNITS)
        super().__init__("bt-unmatched", tmp_path, portal=portal)

    def hide(self, day: date) -> None:
        self._file(day).rename(self.tmp_path / f"{day}")

    def show(self, day: date) -> None:
        (self.tmp_path / f"{day}").rename(self._file(day))

    def _file(self, day: date) -> Path:
        return self.tmp_path / "drop" / f"Austin_bt_{day:%m-%d-%Y}.txt"

    def close(self) -> None: ...


class Kits(Sensors):
    """Radar: three days in a database with the tables of KITS."""

    days = JUNE

    def __init__(self, tmp_path: Path, portal: Portal):
        self.path = tmp_path / "kits.db"
        self._do("create table DETECTORSRM (DETID integer, INTID integer, INTNAME text, DETNAME text)")
        self._do("insert into DETECTORSRM values (2, 14, 'OAKSECOND', 'EB_in')")
        self._do(
            "create table SYSDETHISTORYRM (DETID integer, CURDATETIME timestamp, VOLUME integer, OCCUPANCY integer, SPEED integer, STATUS text, "
            "UPLOADSUCCESS integer, DETCOUNTCOMPARISON integer, DAILYCUMULATIVE integer)"
        )
        edition("wt", RADAR_UNITS)
        super().__init__("radar-counts", tmp_path, portal=portal, resource="kits")
        Provider.objects.filter(pk=self.pipeline.provider_id).update(kind="database", base_url=f"sqlite:///{self.path}")
        for day in self.days:
            self.show(day)

    def hide(self, day: date) -> None:
        self._do("delete from SYSDETHISTORYRM where CURDATETIME = ?", f"{day} 00:15:00")

    def show(self, day: date) -> None:
        self._do("insert into SYSDETHISTORYRM values (2, ?, 21, 0, 34, 'Working', 100, 1, 21)", f"{day} 00:15:00")

    def _do(self, statement: str, *values: str) -> None:
        with closing(sqlite3.connect(self.path)) as held, held:
            held.execute(statement, values)

    def close(self) -> None: ...


class Crossing(Sensors):
    """A camera: a device that has three days of last week, for it compares its clock with ours."""

    def __init__(self, tmp_path: Path, portal: Portal):
        today = datetime.now(ZoneInfo(ZONE)).date()
        self.days = [today - timedelta(days=back) for back in (8, 7, 6)]
        self.cameras = Cameras([Intersection("Burnet", "Richcreek", "BURNET RD", "RICHCREEK RD", 30.3527, -97.7351, vehicles=2)]).start()
        [self.device] = self.cameras.devices.values()
        self.has = set(self.days)
        self.device.has = lambda: sorted(self.has)
        edition("gs", self.cameras.units(), today)
        options = {"area": "Austin", "ignore_previous": True, "ignore_next": True}
        super().__init__("camera-counts", tmp_path, portal=portal, options=options)
        Provider.objects.filter(pk=self.pipeline.provider_id).update(kind="gridsmart", base_url="http://{ip}/api")

    def hide(self, day: date) -> None:
        self.has.remove(day)

    def show(self, day: date) -> None:
        self.has.add(day)

    def close(self) -> None:
        self.cameras.stop()
        assert self.device.mistakes == []


def before(one: Sensors, stage: str) -> str:
    """The layer whose files the stage takes."""
    return catchup.layer_before(one.pipeline, catchup.stage_of(stage))


def hide(one: Sensors, stage: str, *days: date) -> None:
    """Take the stage's input of these days away: at the source, or out of the catalog."""
    if stage == "ingest":
        for day in days:
            one.hide(day)
    else:
        there = CatalogEntry.objects.live().filter(source=one.slug, layer=before(one, stage))
        one.hidden = {day: list(there.filter(window_start=window(day)[0]).values_list("pk", flat=True)) for day in days}
        CatalogEntry.objects.filter(pk__in=sum(one.hidden.values(), [])).update(withdrawn_at=Now())


def show(one: Sensors, stage: str, day: date) -> None:
    if stage == "ingest":
        one.show(day)
    else:
        CatalogEntry.objects.filter(pk__in=one.hidden[day]).update(withdrawn_at=None)


@pytest.fixture(params=[Drop, Kits, Crossing])
def one(request, tmp_path, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Portal(accounts={"u": PASSWORD}) as portal:
        made = request.param(tmp_path, portal)
        yield made
        made.close()
    drop_city()


def test_each_stage_of_each_source_keeps_the_acceptance_sequence(one):
    for stage in ("ingest", "standardize", "ready", "aggregate", "publish"):
        if catchup.stage_of(stage) in one.pipeline.stages:
            keeps_the_sequence(one, stage)
    assert [one.block(day).state for day in one.days] == [State.DONE] * 3
    assert len(one.told()) > 0


def keeps_the_sequence(one: Sensors, stage: str) -> None:
    first, second, third = one.days
    names = {day: f"{window(day)[0]:%m-%d}" for day in one.days}

    def days(*flags: str) -> list[str]:
        return sorted({file.split()[0] for file in caught(one.slug, stage, *flags)})

    past = ("-s", f"{first}", "-e", f"{third + timedelta(days=1)}")
    # what is hidden before and after the second day is not there yet
    hide(one, stage, first, third)
    assert days(*past) == [names[second]], "the others are done"
    assert days(*past) == [], "twice is once"
    assert days("-r", f"{first}", *past[2:]) == [], "-r bounds as -s does"
    assert days(*past, "-F") == [names[second]], "force does them again"
    show(one, stage, first)
    assert days("-s", f"{second}", *past[2:]) == [], "a later range does not see it"
    assert days(*past) == [names[first]], "the range takes exactly what came back"
    assert days("-s", "1") == [], "one day back: all of it is old"
    show(one, stage, third)
    assert days(*past) == [names[third]], "the next day is picked up"
    assert days(*past) == []
