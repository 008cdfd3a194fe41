"""Standardize: raw files become the city's own form, what is refused is kept and judged anew, and nothing stops a block but a broken file."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry, Dataset, Layer
from pipelines import blocks, stages
from pipelines.errors import DataError, PipelineError, SetupError
from pipelines.faults import InjectedFault
from pipelines.models import LogLine, Pipeline, Provider, RegisteredOperator, RejectedRow, Run, RunState, ScheduleBlock, State
from pipelines.stages.note import Note
from tests.pipelines.formats.mds_samples import DEVICE, ENDED, OPERATOR, body, trip
from tests.pipelines.scene import city, drop_city
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db
HOUR = datetime(2020, 2, 11, 15, tzinfo=UTC)
_numbers = count(1)


def numbered(number: int, version: str = "0.4", **changes):
    return trip(version, trip_id=f"b3ca5c86-7f45-4544-bf58-{number:012x}", **changes)


class Hour:
    """One hour of an operator whose raw files already lie in the lake; its stages are done here, as a worker does them."""

    def __init__(self, tmp_path, *pages: bytes, version="0.4", then=(), vehicles=b"", metadata=None, **parameters):
        self.tmp_path, name = tmp_path, f"hour{next(_numbers)}"
        dataset = Dataset.objects.create(slug=name, title="Trips")
        parameters = {"version": version, **parameters}
        provider = Provider.objects.create(slug=name, title="Redwing", kind="mds", base_url="https://mds.example.org", parameters=parameters)
        self.pipeline = Pipeline.objects.create(
            slug=name, title="Trips", provider=provider, dataset=dataset, resource="trips", format="mds_trips", cadence="hourly",
            window_column="end_time", key=["provider_id", "trip_id"], table=name, stages=["extract", "standardize", *then],
        )  # fmt: skip
        self.block = ScheduleBlock.objects.create(
            pipeline=self.pipeline, starts_at=HOUR, ends_at=HOUR + timedelta(hours=1), due_at=timezone.now(), stage="extract",
            stages=self.pipeline.stages,
        )  # fmt: skip
        self.metadata = {"version": version, **(metadata or {})}
        self.fetch(*pages, vehicles=vehicles)

    def fetch(self, *pages: bytes, vehicles: bytes = b"", mark: str = "") -> None:
        """What an extract of these pages leaves behind."""
        run, entries, rows = self._claim("extract"), [], 0
        for number, held in enumerate([*pages, *filter(None, [vehicles])]):
            is_page = number < len(pages)
            path = self.tmp_path / "raw"
            path.write_bytes(held)
            rows_of = held.count(b'"device_id"')
            rows += rows_of if is_page else 0
            entries.append(
                lake.shelve(
                    dataset=self.pipeline.dataset, source=self.pipeline.slug, layer=Layer.RAW, window=(HOUR, HOUR + timedelta(hours=1)),
                    file=path, name=f"trips-{number:05d}.json" if is_page else "vehicles.json", sha256=lake.fingerprint(path), bytes=len(held),
                    rows=rows_of, metadata=self.metadata if is_page else {"role": "vehicles"}, run_id=run.pk,
                )
            )  # fmt: skip
        lake.withdraw_others(self.pipeline.slug, Layer.RAW, HOUR, entries)
        counts, told = blocks.Counts(rows_in=rows, rows_out=rows), {"entries": [entry.pk for entry in entries]}
        blocks.advance(run, blocks.Outcome(counts, mark=mark, details=told))

    def _claim(self, stage: str) -> Run:
        ScheduleBlock.objects.filter(pk=self.block.pk).update(stage=stage, state=State.WAITING, due_at=timezone.now() - timedelta(seconds=1))
        return blocks.claim(self.block.pk, holder="test")

    def go(self, stage: str = "standardize") -> Run:
        """Do the stage; a failure is the block's, and raised."""
        run = self._claim(stage)
        workdir = self.tmp_path / f"work{run.pk}"
        workdir.mkdir()
        self.progress: list = []
        try:
            outcome = stages.carry_out(run, Note(run, workdir, lambda *told: self.progress.append(told)))
        except PipelineError as error:
            blocks.fail(run, error)
            raise
        blocks.advance(run, outcome)
        run.refresh_from_db()
        self.block.refresh_from_db()
        assert run.state == RunState.DONE and run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates
        return run

    @property
    def files(self) -> list[CatalogEntry]:
        live = CatalogEntry.objects.live().filter(source=self.pipeline.slug, layer=Layer.STANDARD)
        return list(live.order_by("id_base"))

    def text(self) -> str:
        return "".join(lake.lake().local_path(entry.pointer, self.tmp_path, sha256=entry.sha256).read_text() for entry in self.files)


@pytest.fixture
def hour(tmp_path):
    return lambda *pages, **about: Hour(tmp_path, *pages, **about)


def test_each_raw_file_becomes_a_standard_one_and_every_row_is_accounted_for(hour):
    idle = numbered(2, trip_distance=0)
    one = hour(body("0.4", numbered(1), idle, numbered(1)), body("0.4", numbered(3, route={}), idle))
    run = one.go()
    assert (run.rows_in, run.rows_out, run.rejected, run.duplicates) == (5, 2, 1, 2)
    assert [(entry.name, entry.rows) for entry in one.files] == [("trips-00000.csv", 2), ("trips-00001.csv", 0)]
    assert run.details["entries"] == [entry.pk for entry in one.files] and run.bytes == sum(entry.bytes for entry in one.files)
    assert one.files[0].metadata["columns"][0] == ["provider_id", "text"] and one.files[0].metadata["vouched"]
    assert (one.block.rejected, one.block.flags) == (1, {"zero-distance": 1, "duplicate-id": 2})
    assert run.details["schema"]["misfits"][0] | {"field": "route", "what": "has no points", "trips": 1} == run.details["schema"]["misfits"][0]
    assert one.progress[0] == (0, 5) and one.progress[-1] == (5, 5)
    assert LogLine.objects.filter(run=run, level="warning", text="1 rows rejected: route has no points").exists()


def test_a_refused_trip_is_kept_whole_with_its_reason_and_its_place(hour):
    sent = numbered(7, vehicle_id="V\x007", provider_name='Quote " Inc.', trip_duration="long")
    one = hour(body("0.4", numbered(1), sent))
    one.go()
    [kept] = RejectedRow.objects.filter(block=one.block)
    assert (kept.reason, kept.column, kept.value, kept.line) == ("trip_duration is not a number", "trip_duration", '"long"', 2)
    assert kept.raw == {**sent, "vehicle_id": "V\\x007"} and kept.row_key == f"{OPERATOR} · {sent['trip_id']}"
    assert kept.file == CatalogEntry.objects.get(layer=Layer.RAW, source=one.pipeline.slug).pointer


def test_running_again_gives_the_same_file_and_replaces_only_its_own_rejections(hour):
    one = hour(body("0.4", numbered(1), numbered(2, route={})))
    first, text = one.go(), one.text()
    # a load's rejection is not this stage's to forget
    about = {"attempt": 1, "fence": 99, "trigger": "button", "asked_by": "x", "holder": "x", "finished_at": timezone.now()}
    load = Run.objects.create(block=one.block, stage="load", state=RunState.DONE, **about)
    RejectedRow.objects.create(run=load, block=one.block, reason="of a load", file="x", line=1)
    entries = [entry.pk for entry in one.files]
    second = one.go()
    assert ([entry.pk for entry in one.files], one.text()) == (entries, text)
    assert second.counts() == first.counts()
    left = RejectedRow.objects.filter(block=one.block, replayed_at=None).order_by("pk")
    assert [(row.run_id, row.reason) for row in left] == [(load.pk, "of a load"), (second.pk, "route has no points")]
    assert RejectedRow.objects.filter(run=first).exclude(replayed_at=None).count() == 1


def test_what_a_changed_setting_makes_good_is_no_longer_rejected(hour):
    one = hour(body("0.2", *(trip("0.2", trip_id=number) for number in (0, 1))), version="0.2")
    assert one.go().rejected == 2
    assert (one.block.mark, one.block.state) == ("suspicious", State.DONE)
    assert "2 rejected (most because of: trip_id is a whole number" in one.block.message
    one.pipeline.provider.parameters["id_rule"] = "integers-to-uuid"
    one.pipeline.provider.save()
    run = one.go()
    assert (run.rejected, run.rows_out, one.block.rejected) == (0, 2, 0)
    assert not RejectedRow.objects.filter(block=one.block, replayed_at=None).exists()
    assert "0309585e-599f-4e57-ac85-fffffffffff0" in one.text()


def test_an_hour_of_nothing_but_refused_trips_is_suspicious_and_all_of_them_are_kept(hour):
    one = hour(body("0.4", *(numbered(n, route=None) for n in range(250))))
    run = one.go()
    assert (run.rows_out, run.rejected, one.block.mark) == (0, 250, "suspicious")
    assert RejectedRow.objects.filter(run=run).count() == 250
    # most of them, and many
    one = hour(body("0.4", *(numbered(n, **({"route": None} if n < 150 else {})) for n in range(200))))
    assert one.go().details["mark"] == "suspicious"
    one = hour(body("0.4", *(numbered(n, **({"route": None} if n < 40 else {})) for n in range(50))))
    assert "mark" not in one.go().details


def test_an_empty_hour_walks_through_with_its_mark(hour):
    one = hour(body("0.4"))
    one.fetch(body("0.4"), mark="empty")
    run = one.go()
    assert (run.rows_in, run.rows_out, one.block.mark) == (0, 0, "empty")
    # a file all the same: a load must not take the raw one
    assert [(entry.name, entry.rows) for entry in one.files] == [("trips-00000.csv", 0)]
    # an operator that was not in service left nothing
    one = hour()
    assert one.go().message == "The lake has no raw files for this window." and one.files == []


def test_a_page_that_the_source_no_longer_gives_takes_its_standard_file_along(hour):
    one = hour(body("0.4", numbered(1)), body("0.4", numbered(2)))
    one.go()
    one.fetch(body("0.4", numbered(1)))
    one.go()
    assert [entry.name for entry in one.files] == ["trips-00000.csv"]


def test_2_x_trips_know_their_vehicles_and_their_operator_from_elsewhere(hour):
    vehicles = json.dumps({"version": "2.0.0", "vehicles": [{"device_id": DEVICE, "vehicle_type": "moped", "propulsion_types": ["electric"]}]})
    one = hour(body("2.0", trip("2.0")), version="2.0", vehicles=vehicles.encode())
    run = one.go()
    assert run.rows_in == 1 and f"{OPERATOR},Redwing,b3" in one.text() and ",moped,electric," in one.text()
    RegisteredOperator.objects.create(operator_id=OPERATOR, name="Registered, Inc.")
    one.go()
    assert f'{OPERATOR},"Registered, Inc.",b3' in one.text()
    one.pipeline.provider.parameters["provider_name"] = "As told"
    one.pipeline.provider.save()
    one.go()
    assert f"{OPERATOR},As told,b3" in one.text()


def test_trips_of_other_hours_are_rejected_unless_the_question_had_to_be_wider(hour):
    sent = [numbered(n, "0.2", end_time=ENDED - 3600 * n) for n in range(9)]
    run = hour(body("0.2", *sent), version="0.2", metadata={"overlaps": True}).go()
    assert (run.rows_out, run.rejected, run.duplicates, run.details["elsewhere"]) == (1, 2, 6, 6)
    one = hour(body("0.2", *sent), version="0.2")
    run = one.go()
    assert (run.rows_out, run.rejected, run.duplicates) == (1, 8, 0) and one.block.flags["outside-hour"] == 8


def test_a_raw_file_that_is_missing_altered_or_of_two_fetches_is_told_in_words(hour, lake_folder):
    one = hour(body("0.4", numbered(1)))
    path = lake_folder / CatalogEntry.objects.get(source=one.pipeline.slug).pointer
    held = path.read_bytes()
    for act, code in ((lambda: path.unlink(), "lake-missing"), (lambda: path.write_bytes(held + b" "), "lake-sha256")):
        act()
        with pytest.raises(DataError) as caught:
            one.go()
        assert caught.value.code == code and "extract" in caught.value.next_step
        one.block.refresh_from_db()
        assert (one.block.state, one.block.error_code) == (State.FAILED, code)
    path.write_bytes(held)
    assert one.go().rows_out == 1


@pytest.mark.parametrize(("held", "code"), [(b"{", "bad-json-page"), (b'{"version": "0.4.0", "data": []}', "bad-mds-page"), (b"[]", "bad-mds-page")])
def test_a_page_that_is_none_fails_the_block_and_says_what_to_do(hour, held, code):
    one = hour(held)
    with pytest.raises(DataError) as caught:
        one.go()
    assert caught.value.code == code and caught.value.next_step


def test_rows_that_were_lost_between_the_fetch_and_here_are_noticed(hour):
    one = hour(body("0.4", numbered(1)))
    CatalogEntry.objects.filter(source=one.pipeline.slug).update(rows=2)
    with pytest.raises(DataError, match="has 1 rows; 2 were counted"):
        one.go()


def test_a_format_that_nobody_standardizes_is_a_matter_of_settings(hour):
    one = hour(body("0.4"))
    Pipeline.objects.filter(pk=one.pipeline.pk).update(format="csv")
    with pytest.raises(SetupError, match="'csv'") as caught:
        one.go()
    assert "mds_trips" in caught.value.next_step


def test_a_stage_that_dies_between_two_pages_leaves_nothing_that_a_second_one_does_not_replace(hour, monkeypatch):
    one = hour(body("0.4", numbered(1)), body("0.4", numbered(2, route={})))
    monkeypatch.setenv("ODO_FAULT", "standardize.page:2:raise")
    with pytest.raises(InjectedFault):
        one.go()
    monkeypatch.delenv("ODO_FAULT")
    blocks.fail(Run.objects.get(block=one.block, state=RunState.RUNNING), DataError("died"))
    run = one.go()
    assert (run.rows_out, run.rejected, len(one.files)) == (1, 1, 2)
    assert [row.run_id for row in RejectedRow.objects.filter(block=one.block, replayed_at=None)] == [run.pk]


@pytest.mark.django_db(transaction=True)
def test_standard_files_are_loaded_and_a_load_forgets_no_rejection_of_this_stage(hour):
    one = hour(body("0.4", numbered(1), numbered(2, route={}), numbered(3, provider_name='Two\r\nlines, "x"')), then=["load"])
    one.go()
    try:
        run = one.go("load")
        assert (run.rows_in, run.inserted, run.rejected) == (2, 2, 0)
        found = city(f"select trip_id, provider_name, end_time, start_lon, distance_m, currency from city.{one.pipeline.table} order by 1")
        assert [row[1] for row in found] == ["sample_co", 'Two\r\nlines, "x"']
        assert found[0][2] == datetime(2020, 2, 11, 15, 8, 25, tzinfo=UTC) and [float(cell) for cell in found[0][3:5]] == [-97.738363, 1879]
        assert RejectedRow.objects.filter(block=one.block, replayed_at=None).count() == 1
        assert one.block.rejected == 1
        one.go()
        assert one.go("load").unchanged == 2
    finally:
        drop_city()


def test_the_page_shows_a_rejected_trip_as_the_json_that_came(hour, client):
    one = hour(body("0.4", numbered(1), numbered(2, route={"type": "FeatureCollection", "features": [{"a": "<b>"}]})))
    one.go()
    client.force_login(User.objects.create_superuser("ann"))
    page = client.get(reverse("block", args=[one.block.pk])).content.decode()
    assert "route has no start point" in page
    assert "&lt;b&gt;" in page and "&quot;features&quot;: [" in page and "&#x27;features&#x27;" not in page
