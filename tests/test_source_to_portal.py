"""The main job, end to end through real components: source, lake, warehouse, portal; and what becomes of it when things die.

After every case the same questions: are all rows there, none twice, do the counts add up, and did it finish without an operator?
"""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from django.conf import settings as configured
from django.db import InterfaceError, OperationalError, connections

from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.rows import la311
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import blocks, planner
from pipelines.models import ImportLog, Run, RunState, ScheduleBlock, State
from pipelines.planner import Order
from tests.pipelines.scene import ANN, SOURCE, Scene, as_sent, city, made_row, stage_scene, table

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(configured.BASE_DIR)
LA311 = ROOT.parent / "shared" / "data" / "la311_2020_10000rows.csv"
ROWS = 1000


def whole(scene: Scene, rows: int = ROWS) -> None:
    """Law 1 and 3: source = lake = warehouse = portal, each row once, and every finished run's counts add up."""
    block = scene.block
    assert block.state == State.DONE, (block.state, block.message)
    assert len(scene.source_rows()) == scene.lake_rows() == rows
    assert city(f'select count(*), count(distinct "{scene.pipeline.key[0]}") from city.{scene.pipeline.table}') == [(rows, rows)]
    assert len(scene.portal.dataset(scene.pipeline.portal_resource)) == rows
    assert as_sent(scene.portal_rows()) == as_sent(scene.source_rows())
    for run in scene.runs():
        assert run.state != RunState.RUNNING
        if run.state == RunState.DONE:
            assert run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates


@pytest.mark.parametrize("origin", ["the real sample", "generated"])
def test_ten_thousand_rows_at_every_hop_then_nothing_then_what_changed(stage_scene, origin):
    if origin == "generated":
        rows = la311(SOURCE, 10_000)
        # made rows differ in the portal's own number form only; they are compared as the portal keeps them
        source = SandboxTable(SOURCE, "Made", rows.columns, [record.values for record in rows._rows], key="srnumber")
    elif LA311.exists():
        source = SandboxTable.from_csv(LA311, id=SOURCE, key="srnumber")
    else:
        pytest.skip(f"{LA311} is not here")
    scene = stage_scene(source, page_size=4000, publish_chunk=5000)
    scene.go()
    whole(scene, 10_000)
    assert [(run.stage, run.rows_in, run.rows_out) for run in scene.runs()] == [
        ("extract", 10_000, 10_000), ("load", 10_000, 10_000), ("publish", 10_000, 10_000),
    ]  # fmt: skip

    before = city(f"select srnumber, _odo_seq from city.{scene.pipeline.table}")
    portal_version = scene.portal.dataset("bbbb-0001").version
    scene.source.requests.clear()
    scene.portal.requests.clear()
    assert scene.go().mark == "unchanged"
    assert [request.path for request in scene.source.requests] == [f"/api/views/{SOURCE}.json"]
    assert not scene.portal.requests and scene.portal.dataset("bbbb-0001").version == portal_version
    assert city(f"select srnumber, _odo_seq from city.{scene.pipeline.table}") == before

    edited = set(scene.source.edit(SOURCE, 0.05)["edited"])
    assert len(edited) == 500
    scene.go()
    whole(scene, 10_000)
    after = dict(city(f"select srnumber, _odo_seq from city.{scene.pipeline.table}"))
    assert {key for key, seq in before if after[key] != seq} == edited
    load, publish = scene.last("load"), scene.last("publish")
    assert (load.updated, load.unchanged, load.inserted) == (500, 9_500, 0)
    assert (publish.published, publish.unchanged) == (500, 9_500)


def test_the_very_same_end_whether_a_stage_runs_once_or_twice(stage_scene):
    scene = stage_scene(ROWS)
    scene.go()
    rows = scene.warehouse()
    for stage in ("publish", "load", "extract", "load"):
        scene.again(stage=stage)
        whole(scene)
    scene.go(force=True)
    whole(scene)
    assert scene.warehouse() == rows


FEW, MORE = 300, 60


def change(scene: Scene) -> None:
    """A day's work at the source: a third of the rows edited, some new."""
    held = scene.source.dataset(SOURCE)
    scene.source.edit(SOURCE, 0.3)
    held.publish([dict(zip(held.names, made_row(n), strict=True)) for n in range(FEW, FEW + MORE)])


# kill -9 at every step of a stage's process

POINTS = [
    *(("extract.page", n) for n in (1, 2, 3)),
    *(("load.staged", n) for n in (1, 2, 3)),
    ("load.merged", 1),
    ("load.committed", 1),
    *(("publish.sent", n) for n in (1, 2, 3, 4)),
]


# a raise differs from a kill in what is tidied up after it, not in which pass it comes
@pytest.mark.parametrize(
    ("point", "nth", "action"), [(*one, "kill") for one in POINTS] + [(name, 1, "raise") for name in sorted({name for name, _ in POINTS})]
)
def test_a_stage_that_dies_at_any_step_is_finished_by_the_next_attempt(stage_scene, monkeypatch, point, nth, action):
    scene = stage_scene(FEW, page_size=120, publish_chunk=100)
    scene.go()
    change(scene)
    old, new = as_sent(scene.portal_rows()), as_sent(scene.source_rows())
    old_rows = scene.warehouse()
    monkeypatch.setenv("ODO_FAULT", f"{point}:{nth}:{action}")
    block = scene.go(force=True)
    assert block.state == (State.WAITING if action == "kill" else State.FAILED)
    assert block.message and block.error_code == ("crashed" if action == "kill" else "unexpected")
    # the warehouse holds the old rows or the new ones, the portal of each row the one or the other
    rows = scene.warehouse()
    assert (rows == old_rows) is (point in ("extract.page", "load.staged", "load.merged"))
    assert len(rows) in (FEW, FEW + MORE)
    assert all(row in (old.get(key), new[key]) for key, row in as_sent(scene.portal_rows()).items())
    monkeypatch.delenv("ODO_FAULT")
    if block.state == State.WAITING:
        scene.hurry()
    else:
        scene.again()
    whole(scene, FEW + MORE)


CKAN_STEPS = {"staging", "batch", "counted", "function", "exchanged", "cleaned", "unkeyed", "removed", "dated"}


def test_the_list_of_steps_is_complete():
    """A faultpoint that is added to the stages must be killed at, too."""
    found = set()
    for path in (ROOT / "pipelines").rglob("*.py"):
        found |= {line.split('faultpoint("')[1].split('"')[0] for line in path.read_text().splitlines() if 'faultpoint("' in line}
    # those of a deletion are killed at in test_modes.py, those of MariaDB alone in test_warehouse_mysql.py, those of the stages
    # between extract and load in test_standardize.py, test_enrich.py and test_sensors.py, those of a remote file in test_upkeep_remote.py
    elsewhere = {"publish.deleted", "load.swapped", "standardize.page", "enrich.file", "ready.group", "aggregate.document", "remote-file.sent"}
    # those of an exchange on a CKAN portal in ckan/test_no_hole.py
    elsewhere |= {f"ckan.{step}" for step in CKAN_STEPS}
    assert found - {"name"} - elsewhere == {point for point, _ in POINTS}


WORKER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "opendata_ops.settings"
import django; django.setup()
from django.conf import settings
settings.WORK_DIR, settings.OUTBOUND_ALLOW = sys.argv[2], ["127.0.0.1"]
from pipelines import runner
runner.work(int(sys.argv[1]))
"""


@contextlib.contextmanager
def worker(block_id: int, folder: Path, **env: str) -> Iterator[subprocess.Popen]:
    """A worker as a process of its own; whatever the test does, it is gone afterwards."""
    command = [sys.executable, "-c", WORKER, str(block_id), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition, seconds: float = 30):
    """Wait for something that another process does."""
    last = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.02)
    return answer


@pytest.mark.parametrize("point", ["extract.page:2", "load.staged:2", "load.merged:1", "publish.sent:2"])
def test_when_the_worker_itself_is_killed_the_reaper_finds_it_and_another_finishes(stage_scene, tmp_path, point):
    scene = stage_scene(FEW, page_size=120, publish_chunk=100)
    scene.go()
    before = scene.warehouse()
    scene.source.edit(SOURCE, 0.9)
    scene.portal.requests.clear()
    scene.place(force=True)
    stage = point.split(".")[0]
    going = Run.objects.filter(state=RunState.RUNNING, stage=stage)
    # it stands still inside the stage, in the middle of its work
    standing = {
        "extract": lambda: going.filter(lines__text__contains="00001.csv").exists(),
        "load": lambda: going.filter(import_log__event="chunk").exists(),
        "publish": lambda: sum(request.method == "POST" for request in scene.portal.requests) == 2,
    }
    with worker(scene.block.pk, tmp_path / "other", ODO_FAULT=f"{point}:sleep") as process:
        until(standing[stage])
        children = psutil.Process(process.pid).children()
        assert children
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    if stage != "publish":
        assert scene.warehouse() == before
    assert planner.sweep()["reaped"] == 0  # the lease still holds
    ScheduleBlock.objects.update(lease_until=datetime.now(UTC) - timedelta(seconds=1))
    assert planner.sweep()["reaped"] == 1
    assert "was lost during" in scene.block.message
    scene.work()
    whole(scene, FEW)
    # a session that was closed is gone a moment later
    until(lambda: city("select count(*) from pg_stat_activity where application_name like 'odo run %'") == [(0,)])


# people


def test_fifty_presses_of_force_at_once_are_one_run(stage_scene):
    scene = stage_scene(100)
    scene.go()
    seen = {scene.block.pk: scene.block.fence}
    answers, start = [], threading.Barrier(50)

    def press():
        start.wait()
        order = Order([scene.pipeline], force=True)
        answers.append(planner.place(order, actor=ANN, seen=seen, bell=False))
        connections.close_all()

    people = [threading.Thread(target=press) for _ in range(50)]
    for person in people:
        person.start()
    scene_work = threading.Thread(target=lambda: (scene.work(), connections.close_all()))
    scene_work.start()  # somebody works while they press
    for person in (*people, scene_work):
        person.join()
    if scene.block.state == State.WAITING:
        scene.work()
    assert sum(len(answer.moved) for answer in answers) == 1
    assert sum(len(answer.refused) for answer in answers) == 49
    assert all(verdict.text for answer in answers for verdict in answer.refused)
    assert len(scene.runs("extract")) == 2
    whole(scene, 100)


def test_a_cancel_in_the_middle_of_copy_ends_within_ten_seconds_and_leaves_the_warehouse(stage_scene, monkeypatch):
    scene = stage_scene(ROWS)
    scene.go()
    before = scene.warehouse()
    scene.source.edit(SOURCE, 0.9)
    monkeypatch.setenv("ODO_FAULT", "load.staged:2:sleep")
    scene.place(force=True)
    took = []

    def press():
        until(lambda: ImportLog.objects.filter(run__state=RunState.RUNNING, event="chunk").exists())
        asked = time.monotonic()
        assert blocks.cancel(scene.block.pk, actor=ANN, reason="wrong file").moved
        until(lambda: scene.block.state == State.HELD)
        took.append(time.monotonic() - asked)
        connections.close_all()

    person = threading.Thread(target=press)
    person.start()
    block = scene.work()
    person.join()
    assert took and took[0] < 10
    assert (block.state, block.error_code) == (State.HELD, "cancelled")
    assert block.message == "Cancelled by ann during load. The warehouse is as it was."
    assert scene.warehouse() == before
    until(lambda: city("select count(*) from pg_stat_activity where application_name like 'odo run %'") == [(0,)])
    monkeypatch.delenv("ODO_FAULT")
    scene.again()
    whole(scene)


def test_a_cancel_after_the_merge_says_that_the_rows_are_there(stage_scene, monkeypatch):
    scene = stage_scene(ROWS)
    monkeypatch.setenv("ODO_FAULT", "load.committed:1:sleep")
    scene.place()

    def press():
        until(lambda: scene.warehouse())
        blocks.cancel(scene.block.pk, actor=ANN)
        connections.close_all()

    person = threading.Thread(target=press)
    person.start()
    block = scene.work()
    person.join()
    assert block.state == State.HELD
    assert "had been merged already" in block.message
    monkeypatch.delenv("ODO_FAULT")
    scene.again()
    whole(scene)


# everything wrong at once, in a random order that is always the same


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bad_day_at_source_and_portal_ends_well(stage_scene, seed):
    chance = random.Random(seed)
    scene = stage_scene(table(ROWS), max_attempts=50)
    scene.go()
    scene.source.edit(SOURCE, 0.4)
    soon, late = (Fault("status", code=429, retry_after=seconds) for seconds in (1, 60))
    bad = [Fault(503), Fault("cut"), Fault("html"), Fault("cut_at_line"), Fault("missing_row"), Fault("cut_chunked"), soon]
    worse = [Fault(500), Fault("lost_reply"), Fault("cut"), Fault("html"), late]
    for _ in range(6):
        scene.source.fail(chance.choice(bad), path=r"\.csv", times=chance.randint(1, 3))
        scene.portal.fail(chance.choice(worse), method="POST", times=chance.randint(1, 3))
    block = scene.go()
    for _ in range(40):
        if block.state == State.DONE:
            break
        assert block.state == State.WAITING, (block.error_code, block.message)
        block = scene.hurry()
    whole(scene)


def test_a_database_that_drops_every_session_again_and_again_loses_and_doubles_nothing(stage_scene):
    """As a restart does: control tables and warehouse lose all their sessions, at any moment, ten times."""
    scene = stage_scene(table(ROWS), max_attempts=50, page_size=50, publish_chunk=50)
    scene.go()
    scene.source.edit(SOURCE, 0.5)
    scene.place(force=True)
    done, cut = threading.Event(), []
    # clients only: nobody but a superuser may end an autovacuum that happens to look at the database
    others = "pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"

    def cuts():
        while not done.wait(0.25) and len(cut) < 10:
            cut.append(city(f"select count(pg_terminate_backend(pid)) from {others}"))

    person = threading.Thread(target=cuts)
    person.start()
    try:
        for _ in range(60):
            block = patiently(scene.hurry)
            if block.state == State.DONE:
                break
            if block.state == State.RUNNING:
                # the claim was kept and its answer lost: nobody works on it, so its lease runs out and the sweep takes it back
                patiently(lambda: ScheduleBlock.objects.filter(state=State.RUNNING).update(lease_until=datetime.now(UTC) - timedelta(seconds=1)))
                patiently(planner.sweep)
                continue
            assert block.state == State.WAITING, (block.error_code, block.message)
    finally:
        done.set()
        person.join()
    assert sum(ended for [(ended,)] in cut) > 0
    whole(scene)


def patiently(act):
    """What the test itself asks is cut off like everything else."""
    while True:
        try:
            return act()
        except (OperationalError, InterfaceError):
            connections.close_all()
