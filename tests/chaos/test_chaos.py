"""Chaos: workers are killed at random while a reader never stops looking. It must not see a part of a load, nor any row twice.

A bounded form of the nemesis that the design was measured with; the seed is fixed, the moments are not. The control arm is a
plain chunked load: if the reader saw nothing wrong there, it would see nothing anywhere.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from django.conf import settings as configured

from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import blocks, planner
from pipelines.models import LoadMode, Run, RunState, ScheduleBlock, State
from pipelines.planner import Order
from tests.pipelines.scene import ANN, SOURCE, city, connect, stage_scene

__all__ = ["stage_scene"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ROOT = Path(configured.BASE_DIR)
WINDOWS, ROWS = 6, 200  # windows of an hour, rows in each
WORKERS, BUSY_KILLS = 3, 8
LEASE = 3

WORKER = f"""
import os, random, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "opendata_ops.settings"
import django; django.setup()
from django.conf import settings
settings.WORK_DIR, settings.OUTBOUND_ALLOW = sys.argv[1], ["127.0.0.1"]
settings.LEASE_SECONDS, settings.HEARTBEAT_SECONDS = {LEASE}, 0.2
from django.db.models.functions import Now
from pipelines import blocks, runner
from pipelines.models import ScheduleBlock
blocks.FIRST_RETRY_SECONDS = blocks.LONGEST_RETRY_SECONDS = 0.5
print("ready", flush=True)
while True:
    due = list(ScheduleBlock.objects.due(Now()).values_list("pk", flat=True))
    for pk in random.sample(due, len(due)):
        runner.work(pk)
    time.sleep(0.05)
"""


def generation(number: int) -> SandboxTable:
    """Every row of every window says the number of the edition that it belongs to."""
    start = datetime(2026, 1, 1)
    rows = []
    for window in range(WINDOWS):
        for n in range(ROWS):
            moment = start + timedelta(hours=window, seconds=n)
            rows.append((f"w{window}-{n:05d}", str(number), moment.isoformat(timespec="milliseconds")))
    return SandboxTable(SOURCE, "Editions", [("id", "text"), ("edition", "number"), ("at", "calendar_date")], rows, key="id")


class Reader:
    """Looks at the table without pause and writes down every look that could not be explained by whole loads."""

    def __init__(self, table: str):
        self.table, self.looks, self.violations = table, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *problem):
        self._stop.set()
        self._thread.join()

    def _look(self):
        query = (
            "select split_part(id, '-', 1), count(*)::int, count(distinct id)::int, min(edition)::int, max(edition)::int"
            f" from city.{self.table} group by 1"
        )
        with closing(connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._stop.wait(0.01):
                    cursor.execute(query)
                    found = cursor.fetchall()
                    self.looks += 1
                    wrong = [row for row in found if row[1:3] != (ROWS, ROWS) or row[3] != row[4]]
                    if wrong or len(found) != WINDOWS:
                        self.violations.append((found if len(found) != WINDOWS else wrong)[:3])


class Workers:
    """Worker processes that are killed and replaced."""

    def __init__(self, folder: Path):
        self.folder, self.alive, self.killed, self.busy_killed = folder, [], 0, 0

    def __enter__(self):
        for _ in range(WORKERS):
            self.hire()
        return self

    def __exit__(self, *problem):
        for process in self.alive:
            process.kill()
            process.wait()

    def hire(self):
        command = [sys.executable, "-c", WORKER, str(self.folder)]
        self.alive.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)))

    def kill_one(self, chance: random.Random):
        """One that is busy, seldom one that is not; sometimes only the stage's own process."""
        busy = [process for process in self.alive if psutil.Process(process.pid).children()]
        if not busy and chance.random() < 0.9:
            return
        victim = chance.choice(busy or self.alive)
        self.busy_killed += bool(busy)
        stages = psutil.Process(victim.pid).children()
        if stages and chance.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):  # it may have ended in this instant
                os.kill(stages[0].pid, signal.SIGKILL)
        else:
            victim.kill()
            victim.wait()
            self.alive.remove(victim)
            self.hire()
        self.killed += 1


def windows(scene) -> list[int]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    order = Order([scene.pipeline], starts_at=start, ends_at=start + timedelta(hours=WINDOWS), which="all", force=True)
    return planner.place(order, actor=ANN, bell=False).moved


def test_whoever_is_killed_readers_see_whole_loads_and_every_block_ends_once(stage_scene, settings, tmp_path, monkeypatch):
    settings.LEASE_SECONDS = LEASE
    monkeypatch.setattr(blocks, "FIRST_RETRY_SECONDS", 0.5)
    chance = random.Random(20261121)
    scene = stage_scene(
        generation(0),
        stages=["extract", "load"],
        portal=None,
        key=[],
        load_mode=LoadMode.REPLACE,
        window_column="at",
        version_column="",
        cadence="hourly",
        time_zone="UTC",
        starts_on=datetime(2026, 1, 1).date(),
        page_size=80,
        max_attempts=100,
    )
    scene.provider.max_parallel = 4
    scene.provider.save()
    edition = 0
    windows(scene)
    with Workers(tmp_path / "work") as workers:
        wait_for(settled, planner.sweep)
        with Reader(scene.pipeline.table) as reader:
            until = time.monotonic() + 50
            while workers.busy_killed < BUSY_KILLS and time.monotonic() < until:
                edition += 1
                names = ("id", "edition", "at")
                scene.source.dataset(SOURCE).publish([dict(zip(names, record.values, strict=True)) for record in generation(edition)._rows])
                windows(scene)
                while not settled() and time.monotonic() < until:
                    planner.sweep()
                    if workers.busy_killed < BUSY_KILLS and chance.random() < 0.4:
                        workers.kill_one(chance)
                    time.sleep(chance.uniform(0.02, 0.2))
            wait_for(settled, planner.sweep)
    assert reader.violations == [], reader.violations[:5]
    assert reader.looks > 100
    assert workers.busy_killed >= BUSY_KILLS // 2, (workers.killed, workers.busy_killed)

    # what is there at the end is the last edition, whole
    assert city(f"select count(*), count(distinct id), min(edition)::int, max(edition)::int from city.{scene.pipeline.table}") == [
        (WINDOWS * ROWS, WINDOWS * ROWS, edition, edition)
    ]
    # each claim has one run, each run an end, each block of each edition one load that counts
    assert set(ScheduleBlock.objects.values_list("state", flat=True)) == {State.DONE}
    assert not Run.objects.filter(state=RunState.RUNNING).exists()
    assert Run.objects.count() == sum(ScheduleBlock.objects.values_list("fence", flat=True))
    loads = Run.objects.filter(stage="load", state=RunState.DONE)
    assert loads.count() == WINDOWS * (edition + 1)
    # one whose end was not recorded any more is loaded again, and finds its rows there
    assert {(run.rows_in, run.rows_out + run.unchanged) for run in loads} == {(ROWS, ROWS)}
    assert Run.objects.filter(state=RunState.CRASHED).exists()


def settled() -> bool:
    return not ScheduleBlock.objects.exclude(state=State.DONE).exists()


def wait_for(condition, meanwhile, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, list(ScheduleBlock.objects.values_list("state", "stage", "message"))
        meanwhile()
        time.sleep(0.1)


def test_the_reader_is_not_blind(stage_scene):
    """Control: a load that empties and fills in chunks, each committed, as others do it."""
    rows = [record.values for record in generation(0)._rows]
    city("create schema if not exists city")
    with closing(connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("create table city.control (id text, edition numeric, at timestamp)")
            cursor.executemany("insert into city.control values (%s, %s, %s)", rows)
            with Reader("control") as reader:
                while reader.looks < 3:
                    time.sleep(0.01)
                seen = reader.looks
                assert reader.violations == []
                for edition in (1, 2):
                    cursor.execute("delete from city.control")
                    for first in range(0, len(rows), 100):
                        chunk = [(key, edition, at) for key, _, at in rows[first : first + 100]]
                        cursor.executemany("insert into city.control values (%s, %s, %s)", chunk)
                while reader.looks < seen + 3:
                    time.sleep(0.01)
    assert reader.violations
