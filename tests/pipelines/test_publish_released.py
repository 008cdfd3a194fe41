"""A release on its way to a portal: what is public arrives, what is private never leaves, and a deletion finds its row by the public id."""

import csv
from collections import Counter

import pytest
from cryptography.fernet import Fernet

from catalog import lake
from catalog.models import CatalogEntry
from opendata_ops.sandbox.faults import Fault
from pipelines.errors import SetupError
from pipelines.models import LogLine, Pipeline, Provider, State
from pipelines.stages.offer import surrogate_key
from pipelines.stages.release import ATD_TRIPS
from tests.pipelines.commanding import command
from tests.pipelines.scene import city, stage_scene, together
from tests.pipelines.trips import PUBLIC, TripScene, trip

__all__ = ["stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def trips(stage_scene):
    return lambda rows, **more: TripScene(stage_scene, rows, **more)


def held(scene: TripScene) -> tuple[int, int, int, int]:
    run = scene.scene.last("publish")
    return run.rows_in, run.rows_out, run.unchanged, run.rejected


#: The private columns that the raw trips of these tests have.
RAW_PRIVATE = (
    "provider_id", "provider_name", "trip_id", "device_id", "vehicle_id", "start_time", "end_time", "start_lon", "start_lat", "end_lon",
    "end_lat",
)  # fmt: skip


def test_nothing_private_leaves_in_any_byte_that_the_portal_gets_or_that_waits_for_it(trips):
    scene = trips([trip(number) for number in range(40)] + [trip(41, trip_type="maintenance")], publish_chunk=15, gone_rows="delete")
    scene.portal.fail(Fault("status", code=503), method="POST", times=99)
    [block] = scene.run()
    assert block.state == State.WAITING
    kept = CatalogEntry.objects.live().get(metadata__role="pending upload")
    with lake.lake().open(kept.pointer) as file:
        waiting = file.read()
    scene.portal.faults.clear()
    assert scene.scene.hurry().state == State.DONE
    # a deletion and a correction are told to the portal as well
    source = scene.scene.source.dataset("aaaa-0001")
    source.publish([trip(number, duration_s="700") for number in range(5, 40)], replace=True)
    [block] = scene.run(force=True)
    assert block.state == State.DONE and len(scene.public()) == 35
    lines = "\n".join([*LogLine.objects.values_list("text", flat=True), block.message]).encode()
    raw = [value for number in range(42) for name, value in trip(number).items() if name in RAW_PRIVATE]
    whole = b"\n".join([*scene.told, waiting, lines])
    assert len(scene.told) > 8 and b"2026-07-01T09:15:00" in whole and b"48453001100" in whole
    assert [value for value in raw if value.encode() in whole] == []
    # nor the figures of a coordinate or a moment, however they are written
    assert [value for value in raw if value.lstrip("-").encode() in whole or value[11:19].encode() in whole and value.endswith("Z")] == []


def test_the_portal_has_the_released_columns_and_the_law_holds(trips):
    scene = trips([trip(number) for number in range(30)] + [trip(30, trip_type="rebalance"), trip(31, trip_type=None)])
    [block] = scene.run()
    assert (block.state, held(scene)) == (State.DONE, (32, 31, 1, 0))
    assert "31 rows sent, 0 were there already, 1 are not for the public" in scene.scene.last("publish").message
    assert scene.scene.last("publish").details["withheld"] == 1
    rows = scene.public()
    assert len(rows) == 31 and all(len(key) == 36 for key in rows)
    assert Counter(row["device_id"] for row in rows.values()).most_common(1)[0][1] == 5  # the seven scooters can be told apart, and no more
    assert {row["census_geoid_end"] for row in rows.values()} == {"0"} and {row["hour"] for row in rows.values()} == {"9"}
    # a second publication sends nothing, a forced one makes the same ids
    scene.scene.again(stage="publish")
    assert held(scene) == (32, 0, 32, 0)
    scene.scene.again(stage="publish", force=True)
    assert set(scene.public()) == set(rows) and held(scene) == (32, 31, 1, 0)


def test_a_trip_that_was_no_riders_after_all_is_taken_back(trips):
    scene = trips([trip(number) for number in range(6)])
    scene.run()
    before = set(scene.public())
    corrected = [trip(number, trip_type="maintenance" if number == 3 else "rider") for number in range(6)]
    scene.scene.source.dataset("aaaa-0001").publish(corrected, replace=True)
    [block] = scene.run()
    assert block.state == State.DONE and len(before - set(scene.public())) == 1 and len(scene.public()) == 5


def test_areas_of_too_few_trips_are_blank_and_come_back_when_there_are_enough(trips):
    rows = [trip(number, council_district_start=str(4 if number < 2 else 5), council_district_end=str(7 if number < 3 else 8)) for number in range(9)]
    scene = trips(rows[:8], release_k=3)
    scene.run()
    shown = Counter((row["council_district_start"], row["council_district_end"]) for row in scene.public().values())
    assert shown == {(None, "7"): 2, ("5", "7"): 1, ("5", "8"): 5}
    run = scene.scene.last("publish")
    assert run.details["blanked"] == {"council_district_start": 2} and "2 areas left blank (fewer than 3 rows)" in run.message
    scene.scene.source.dataset("aaaa-0001").publish([*rows[:8], trip(8, council_district_start="4")], replace=True)
    scene.run()
    assert Counter(row["council_district_start"] for row in scene.public().values()) == {"4": 3, "5": 6}


def test_pipelines_of_one_dataset_make_the_same_ids_and_the_key_lies_sealed(trips):
    one, other = trips([trip(1)]), trips([trip(1)])
    Pipeline.objects.filter(pk=other.scene.pipeline.pk).update(dataset=one.scene.dataset)
    one.run()
    other.run()
    assert set(one.public()) == set(other.public())
    sealed = one.pipeline.surrogate_key
    assert sealed.startswith("fernet:") and other.pipeline.surrogate_key == sealed
    stranger = trips([trip(1)])
    stranger.run()
    assert set(stranger.public()).isdisjoint(one.public())


@pytest.mark.parametrize("told", ["no rules", "a rule", "on the portal"])
def test_a_private_column_stops_the_publication_before_a_row_is_sent(trips, told):
    column = "provider_id" if told == "no rules" else "vehicle_id"
    release = {"no rules": [], "a rule": [*ATD_TRIPS, {"column": "vehicle", "from": column}], "on the portal": ATD_TRIPS}[told]
    scene = trips([trip(1)], release=release, portal_columns=PUBLIC + ((column, "text"),) * (told == "on the portal"))
    [block] = scene.run()
    assert (block.state, block.error_code) == (State.FAILED, "private-column")
    assert column in block.message and column in block.next_step
    assert not any(line.startswith(b"POST") for line in scene.told) and city(f'select count(*) from city."{scene.pipeline.table}"') == [(1,)]


def test_a_csv_file_and_a_replaced_portal_get_released_rows_too(trips, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    scene = trips([trip(number) for number in range(8)], release_k=4, portal_mode="replace")
    scene.run()
    assert len(scene.public()) == 8 and {row["council_district_start"] for row in scene.public().values()} == {None}
    shelf = Provider.objects.create(slug="shelf", title="Shelf", kind="csv_file", base_url=str(folder))
    scene.scene.change(portal=shelf, portal_resource="trips.csv", release_k=0)
    [block] = scene.run(force=True)
    assert block.state == State.DONE, block.message
    with (folder / "trips.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["trip_id"] for row in rows} == set(scene.public()) and list(rows[0]) == [name for name, _ in PUBLIC]


def test_the_key_is_made_once_though_many_need_it_at_the_same_moment_and_is_sealed_anew(trips, settings):
    scene = trips([trip(1)])
    pk = scene.scene.pipeline.pk
    keys = together(lambda: surrogate_key(Pipeline.objects.get(pk=pk)), 4)
    assert len(set(keys)) == 1 and len(keys[0]) == 64
    settings.FERNET_KEYS = [Fernet.generate_key().decode(), *settings.FERNET_KEYS]
    assert command("rotate_keys", "--json").json["failed"] == []
    settings.FERNET_KEYS = settings.FERNET_KEYS[:1]
    assert surrogate_key(scene.pipeline) == keys[0]
    settings.FERNET_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(SetupError, match=f"The key of the public ids of {scene.pipeline.slug} can't be opened"):
        surrogate_key(scene.pipeline)
