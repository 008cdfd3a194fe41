"""Resync: what the portal lacks, has too much or has otherwise is found by row, and a repair makes both sides one again, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from catalog.models import AuditEntry
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import runner
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Provider, Reconciliation, ScheduleBlock, State, UpkeepJob
from pipelines.upkeep import jobs, resync
from tests.pipelines.commanding import command
from tests.pipelines.scene import ANN, stage_scene
from tests.pipelines.trips import NINE, RAW, TripScene, trip

__all__ = ["stage_scene"]


@pytest.fixture
def trips(stage_scene):
    def make(**more) -> TripScene:
        """Three hours of trips, one of them at 59 minutes and 17 seconds past each hour: in public it ended in the next."""
        rows = [trip(number, NINE + timedelta(hours=hour), trip_id=f"t-{hour}-{number}") for hour in range(3) for number in range(2, 60, 3)]
        return TripScene(stage_scene, rows, **more)

    return make


def compared(scene: TripScene, hours: int = 3, begin: int = 0) -> Reconciliation:
    return resync.reconcile(scene.pipeline, NINE + timedelta(hours=begin), NINE + timedelta(hours=begin + hours), actor=ANN)


def numbers(one: Reconciliation) -> tuple[int, int, int]:
    return one.missing, one.extra, one.changed


def public(scene: TripScene, **wish) -> list[str]:
    """The public ids whose row has these values, in the portal's order."""
    return [key for key, row in scene.public().items() if all(row[name] == value for name, value in wish.items())]


@pytest.mark.django_db(transaction=True)
def test_differences_are_found_named_and_repaired_and_what_is_not_ours_stays(trips):
    scene = trips(gone_rows="keep", release_k=3)
    scene.run(3)
    told = len(scene.told)
    same = compared(scene)
    # sixty trips ended there, and in public those of 11:52:30 and later at noon
    assert (same.is_equal, same.warehouse_rows, same.portal_rows, same.differences) == (True, 57, 57, [])
    assert compared(scene, 1, begin=1).warehouse_rows == 20 and resync.sentence(same) == "Equal: 57 rows here and on Portal."
    assert not any(line.startswith(b"POST") for line in scene.told[told:])

    ids = public(scene, end_time="2026-07-01T09:30:00.000")
    ten, noon = public(scene, end_time="2026-07-01T10:00:00.000")[0], public(scene, end_time="2026-07-01T11:45:00.000")[0]
    extra = {"trip_id": "stray", "end_time": "2026-07-01T10:15:00"}
    before = {"trip_id": "before our time", "end_time": "2026-07-01T08:45:00"}
    edge = {"trip_id": "at the edge", "end_time": "2026-07-01T12:00:00"}  # it may belong to an hour that is not loaded
    scene.table.publish([{"trip_id": key, ":deleted": True} for key in ids[:2]])
    scene.table.publish([{"trip_id": ten, "vehicle_type": "bicycle"}, {"trip_id": noon, "end_time": "2026-07-01T05:00:00"}, extra, before, edge])
    found = compared(scene, 5, begin=-1)
    first, _, last = ScheduleBlock.objects.order_by("starts_at").values_list("pk", flat=True)
    assert numbers(found) == (2, 1, 2) and found.blocks == sorted([first, last])
    kinds = {(one["kind"], one.get("key")): one for one in found.differences}
    assert {("missing", ids[0]), ("missing", ids[1]), ("extra", "stray")} < set(kinds)
    assert kinds["changed", ten]["columns"] == {"vehicle_type": ["scooter", "bicycle"]}
    assert kinds["changed", noon]["columns"] == {"end_time": ["in this span", "at another time"]}
    assert "2 rows of Portal are of times that are not loaded here: they are left alone." in [one.get("words") for one in found.differences]

    done = resync.repair(found, actor=ANN, reason="audit of July")
    assert done.moved and len(done.asked) == 2 and done.deleted == 1, done.text
    runner.work_off(list(done.asked), workers=1)
    after = compared(scene, 5, begin=-1)
    assert after.is_equal and after.warehouse_rows == 60
    assert {"before our time", "at the edge"} < set(scene.public()) and "stray" not in scene.public()
    verbs = dict(AuditEntry.objects.filter(verb__in=("repair", "force")).values_list("verb", "reason"))
    assert verbs == {"repair": "audit of July", "force": "audit of July"}
    found.refresh_from_db()
    assert "repaired by ann already" in resync.repair(found, actor=ANN).text and resync.repair(after, actor=ANN).text.startswith("Nothing differs")


@pytest.mark.django_db(transaction=True)
def test_feeds_of_one_dataset_are_compared_together_and_a_row_of_the_other_is_not_extra(trips, stage_scene):
    scene = trips()
    scene.run(1)
    other = Portal(SandboxTable("aaaa-0002", "Others", RAW, [trip(number, provider_id="other", trip_type="") for number in (10, 30)])).start()
    try:
        feed = Pipeline.objects.get(pk=scene.pipeline.pk)
        source = Provider.objects.create(slug="other", title="Other", kind="socrata", base_url=other.url)
        feed.pk, feed.slug, feed.resource, feed.provider, feed.surrogate_key = None, f"{feed.slug}-other", "aaaa-0002", source, ""
        feed.save(force_insert=True)
        scene.scene.pipeline = feed
        [block] = scene.run(1)
    finally:
        other.stop()
    assert block.state == State.DONE and len(scene.public()) == 22
    both = compared(scene, 1)
    assert both.is_equal and both.warehouse_rows == both.portal_rows == 19
    # a trip that was loaded for the other hour meanwhile is no stranger either
    ScheduleBlock.objects.filter(pipeline=feed).update(state=State.HELD)
    assert "1 blocks of this span are not done yet" in compared(scene, 1).differences[-1]["words"] and numbers(compared(scene, 1)) == (0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_the_nightly_job_and_the_command_do_the_same(trips):
    scene = trips()
    scene.run(3)
    victim = public(scene, end_time="2026-07-01T09:30:00.000")[0]
    scene.table.publish([{"trip_id": victim, ":deleted": True}, {"trip_id": "stray", "end_time": "2026-07-01T10:15:00"}])
    span = ["--from", "2026-07-01T04:00", "--to", "2026-07-01T07:00"]  # the city's clock
    slug = scene.pipeline.slug
    told = command("reconcile", slug, *span, "--json")
    assert (told.code, told.json["missing"], told.json["extra"], told.json["repaired"]) == (1, 1, 1, False)
    assert victim in {one["key"] for one in told.json["differences"]}
    days = (datetime.now(UTC) - NINE) // timedelta(days=1) + 2
    job = UpkeepJob.objects.create(kind="resync", title="Nightly resync", options={"days": days, "repair": "publish"})
    run = jobs.carry_out(jobs.start(job, actor=ANN).run.pk)
    assert run.state == "done" and "1 dataset compared" in run.message and "1 rows that only Portal has were left there" in run.message
    runner.work_off([ScheduleBlock.objects.get(pipeline=scene.pipeline, starts_at=NINE).pk], workers=1)
    assert victim in scene.public() and "stray" in scene.public()
    told = command("reconcile", slug, *span, "--repair", "--reason", "a stray")
    assert told.code == 0 and "1 rows deleted on Portal" in told.out and "stray" not in scene.public()
    assert command("reconcile", slug, *span).code == 0 and "Equal: 57 rows" in command("reconcile", slug, *span).out
    assert command("reconcile", slug, "--from", "yesterday", "--to", "2026-07-01").code == 2


@pytest.mark.django_db
def test_what_cannot_be_compared_says_why():
    portal = Provider.objects.create(slug="shelf", title="Shelf", kind="csv_file", base_url="/srv/open")
    fields = {"title": "Trips", "stages": ["extract", "load", "publish"], "key": ["id"], "window_column": "at", "portal": portal}
    for change, words in (
        ({"stages": ["extract", "load"]}, "is not published"),
        ({"window_column": ""}, "force its publish stage"),
        ({"key": []}, "has no key"),
        ({}, "can't be read row by row"),
    ):
        one = Pipeline(**{**fields, **change})
        assert words in resync.refusal(one)
        with pytest.raises(SetupError):
            resync.reconcile(one, NINE, NINE + timedelta(hours=1), actor=ANN)


@pytest.mark.parametrize(
    ("kind", "here", "there"),
    [
        ("number", "9.50", "9.5"), ("number", "1E+2", "100"), ("boolean", True, "true"), ("text", "", None),
        ("json", '{"a": 1, "b": 2}', '{"b":2,"a":1}'),
        ("local_time", "2026-07-01T09:30:00", "2026-07-01T09:30:00.000"), ("instant", "2026-07-01T09:30:00Z", "2026-07-01T04:30:00-05:00"),
        ("point", "(30.25, -97.75)", "POINT (-97.75 30.25)"),
    ],
)  # fmt: skip
def test_the_same_value_in_two_spellings_is_no_difference(kind, here, there):
    assert resync.canonical(here, kind) == resync.canonical(there, kind)
    assert resync.canonical("9.6" if kind != "json" else "[]", kind) != resync.canonical(here, kind)
