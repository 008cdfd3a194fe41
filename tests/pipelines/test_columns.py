"""What a source changes about itself: columns that wait for a person or widen the table, and words that fill what the steward left empty."""

from types import SimpleNamespace

import pytest

from catalog.audit import Actor
from catalog.models import AuditEntry, Dataset, DatasetColumn, DatasetEvent
from pipelines import runner
from pipelines.connectors.base import Column, SourceState
from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline, Run, ScheduleBlock, State
from pipelines.stages import columns, metadata
from pipelines.stages.extract import version_of
from tests import world
from tests.pipelines.scene import SOURCE, stage_scene, together  # noqa: F401

ANN = Actor("ann")
ONLY = {"stages": ["extract", "load"], "portal": None}
FIRST = {"id": "text", "amount": "number", "open": "boolean"}


class Heard:
    """A note that keeps what it is told."""

    def __init__(self):
        self.run = SimpleNamespace(pk=7)
        self.lines = []

    def log(self, text):
        self.lines.append(text)

    warn = log


def made(**fields):
    fields = {"window_column": "", "key": ["id"], **fields}
    return world.pipeline("one", "One", world.provider("source", "Source"), Dataset.objects.create(slug="one", title="One"), world.SATURDAY, **fields)


def state_of(names=FIRST, **more):
    return SourceState(title="One", columns=tuple(Column(name, kind) for name, kind in names.items()), **more)


def noticed(pipeline, names):
    """What the run's details and log say of a source with these columns."""
    note = Heard()
    pipeline.refresh_from_db()
    return columns.notice_columns(state_of(names), pipeline, note), note.lines


def told(kind="columns"):
    return [event.text for event in DatasetEvent.objects.filter(kind=kind).order_by("pk")]


# columns


def test_what_changed_is_named_with_its_types_and_the_order_is_no_change():
    changes = columns.compare([["a", "text"], ["b", "number"], ["c", "text"]], [["c", "number"], ["a", "text"], ["d", "point"]])
    assert str(changes) == "d (point) is new; b (number) is gone; c was text and is number now"
    assert not columns.compare([["a", "text"], ["b", "text"]], [["b", "text"], ["a", "text"]])


@pytest.mark.django_db
def test_the_first_reading_accepts_what_there_is_without_a_word():
    pipeline = made(drift="stop")
    assert noticed(pipeline, FIRST) == ({}, []) and told() == []
    pipeline.refresh_from_db()
    assert dict(map(tuple, pipeline.accepted_columns)) == FIRST


@pytest.mark.django_db
def test_a_change_is_told_once_and_the_table_is_widened():
    pipeline = made()
    noticed(pipeline, FIRST)
    now = {"id": "text", "open": "text", "phone": "text"}
    drift, lines = noticed(pipeline, now)
    assert drift == {"added": [["phone", "text"]], "removed": [["amount", "number"]], "retyped": [["open", "boolean", "text"]]}
    assert any("phone" in line for line in lines) and any("amount" in line for line in lines) and "open was boolean and is text now." in lines
    assert noticed(pipeline, now) == ({}, [])
    assert told() == ["The source’s columns changed: phone (text) is new; amount (number) is gone; open was boolean and is text now."]
    event = DatasetEvent.objects.get()
    assert (event.source, event.run_id, event.dataset) == ("one", 7, pipeline.dataset)


@pytest.mark.django_db
def test_where_a_person_must_accept_the_change_stops_before_anything_is_taken():
    pipeline = made(drift="stop")
    noticed(pipeline, FIRST)
    for _ in range(2):
        with pytest.raises(SetupError, match=r"phone \(text\) is new") as stopped:
            noticed(pipeline, {**FIRST, "phone": "text"})
        assert stopped.value.code == "columns-changed" and "accept one --columns" in stopped.value.next_step
    assert len(told()) == 1, "told once, not at each try"
    pipeline.refresh_from_db()
    assert dict(map(tuple, pipeline.accepted_columns)) == FIRST
    assert columns.unaccepted(pipeline).text == told()[0]


@pytest.mark.django_db
def test_accepting_takes_the_columns_runs_the_stopped_blocks_again_and_is_audited():
    pipeline = made(drift="stop", window_column="updated_at")
    noticed(pipeline, names := {**FIRST, "updated_at": "instant"})
    with pytest.raises(SetupError):
        noticed(pipeline, {**names, "phone": "text"})
    stopped = [world.block(pipeline, window, State.FAILED, error_code="columns-changed") for window in world.windows(pipeline, world.SATURDAY, 3)]
    other = world.block(pipeline, world.windows(pipeline, world.SATURDAY, 9)[0], State.FAILED, error_code="http-503")
    ScheduleBlock.objects.bulk_create([*stopped, other])
    verdict = columns.accept(pipeline, actor=ANN, reason="they told us")
    assert verdict.moved and sorted(verdict.again) == sorted(block.pk for block in stopped) and "phone (text) is new" in verdict.text
    assert {block.state for block in ScheduleBlock.objects.filter(pk__in=verdict.again)} == {State.WAITING}
    assert ScheduleBlock.objects.get(pk=other.pk).state == State.FAILED
    entry = AuditEntry.objects.get(kind="pipeline")
    assert (entry.actor, entry.verb, entry.target, entry.reason, entry.details["added"]) == (
        "ann",
        "accept",
        "one",
        "they told us",
        [["phone", "text"]],
    )
    assert noticed(pipeline, {**names, "phone": "text"}) == ({}, [])


@pytest.mark.django_db
def test_of_a_stopped_snapshot_only_the_newest_block_runs_again():
    pipeline = made(drift="stop")
    noticed(pipeline, FIRST)
    with pytest.raises(SetupError):
        noticed(pipeline, {"id": "text"})
    old, new = (
        world.block(pipeline, window, State.FAILED, error_code="columns-changed") for window in world.windows(pipeline, world.SATURDAY, 9)[:2]
    )
    ScheduleBlock.objects.bulk_create([old, new])
    assert columns.accept(pipeline, actor=ANN).again == (new.pk,)


@pytest.mark.django_db
def test_what_changed_since_the_page_was_made_is_not_accepted_unseen():
    pipeline = made(drift="stop")
    noticed(pipeline, FIRST)
    with pytest.raises(SetupError):
        noticed(pipeline, {**FIRST, "phone": "text"})
    seen = columns.unaccepted(pipeline).pk
    with pytest.raises(SetupError):
        noticed(pipeline, {"id": "text"})
    assert not columns.accept(pipeline, actor=ANN, seen_event=seen).moved
    assert columns.accept(pipeline, actor=ANN, seen_event=columns.unaccepted(pipeline).pk).moved
    assert not columns.accept(pipeline, actor=ANN).moved, "twice is once"


@pytest.mark.django_db
def test_a_change_that_the_source_takes_back_waits_for_nobody():
    pipeline = made(drift="stop")
    noticed(pipeline, FIRST)
    with pytest.raises(SetupError):
        noticed(pipeline, {**FIRST, "phone": "text"})
    noticed(pipeline, FIRST)
    pipeline.refresh_from_db()
    assert columns.unaccepted(pipeline) is None and told()[-1] == "The source’s columns are again those that were accepted."


@pytest.mark.django_db
@pytest.mark.parametrize("drift", ["widen", "stop"])
@pytest.mark.parametrize("role", ["key", "version_column", "watermark_column", "window_column"])
def test_a_column_that_names_or_dates_the_rows_always_stops_and_cannot_be_accepted_away(drift, role):
    pipeline = made(drift=drift, **{role: ["amount"] if role == "key" else "amount"})
    noticed(pipeline, FIRST)
    with pytest.raises(DataError, match="no longer has amount") as stopped:
        noticed(pipeline, {"id": "text", "open": "boolean"})
    assert stopped.value.code == "columns-gone" and len(told()) == 1
    verdict = columns.accept(pipeline, actor=ANN)
    assert not verdict.moved and "amount" in verdict.text


@pytest.mark.django_db
def test_a_named_column_that_is_gone_is_left_out_with_a_warning_and_an_unknown_one_stops():
    pipeline = made(columns=["id", "amount"])
    columns.describe_columns(pipeline, columns.wanted(state_of(), pipeline), Heard())
    left = columns.wanted(state_of({"id": "text", "open": "boolean"}), pipeline)
    assert [column.name for column in left] == ["id"]
    note = Heard()
    columns.describe_columns(pipeline, left, note)
    assert any("names amount" in line for line in note.lines)
    pipeline.columns = ["id", "amuont"]
    with pytest.raises(DataError, match="amuont"):
        columns.wanted(state_of(), pipeline)


@pytest.mark.django_db
def test_the_sources_own_clock_is_no_column_that_could_be_gone():
    pipeline = made(watermark_column=":updated_at")
    noticed(pipeline, FIRST)
    assert len(columns.wanted(state_of(), pipeline)) == 3


@pytest.mark.django_db
def test_what_a_source_says_of_its_values_is_kept_short():
    pipeline = made()
    stats = {"amount": {"count": 10, "null": "2", "smallest": "a\x00b", "top": [{"item": "x" * 500}] * 50}}
    columns.describe_columns(pipeline, columns.wanted(state_of(), pipeline), Heard(), stats)
    kept = DatasetColumn.objects.get(name="amount").told
    assert (kept["count"], kept["null"], kept["smallest"], len(kept["top"]), len(kept["top"][0]["item"])) == (10, "2", "ab", 20, 200)
    columns.describe_columns(pipeline, columns.wanted(state_of(), pipeline), Heard())
    assert DatasetColumn.objects.get(name="amount").told == kept, "a source that says nothing takes nothing back"


@pytest.mark.django_db(transaction=True)
def test_of_two_blocks_that_see_a_change_at_once_one_tells_it():
    pipeline = made()
    noticed(pipeline, FIRST)
    together(lambda: noticed(Pipeline.objects.get(pk=pipeline.pk), {**FIRST, "phone": "text"}), times=4)
    assert len(told()) == 1


# words


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ("Daily", "daily"), ("  every DAY. ", "daily"), ("Annually", "yearly"), ("Every 3 months", "quarterly"), ("R/P1W", "weekly"),
        ("Every 2 weeks", "fortnightly"), ("Bi-weekly", ""), ("Semi-annually", "half-yearly"), ("Every 15 minutes", ""), ("As needed", ""), ("", ""),
    ],
)  # fmt: skip
def test_only_a_rate_that_is_certain_is_taken(words, rate):
    assert metadata.rate_of(words) == rate


SAID = {
    "description": "Each pet.",
    "licence": "CC0",
    "refresh_rate": "Daily",
    "metadata": {"tags": ["pets", "licences"], "contact": "pets@riverton.example"},
}


def described(pipeline, **said):
    note = Heard()
    metadata.describe_dataset(state_of(**said), pipeline, note)
    pipeline.dataset.refresh_from_db()
    return note.lines


@pytest.mark.django_db
def test_the_sources_words_fill_what_the_steward_left_empty():
    pipeline = made()
    described(pipeline, **SAID)
    one = pipeline.dataset
    assert (one.description, one.licence, one.refresh_rate, one.tags) == ("Each pet.", "CC0", "daily", "pets, licences")
    assert one.steward_email == "pets@riverton.example"
    assert told("metadata")[0].startswith("Taken from the source’s own description: description (Each pet.), licence (CC0), refresh rate (Daily)")


@pytest.mark.django_db
def test_a_persons_words_stay_and_what_the_source_changed_is_told_once_with_old_and_new():
    pipeline = made()
    Dataset.objects.update(licence="Ours", refresh_rate="weekly")
    described(pipeline, **SAID)
    described(pipeline, **{**SAID, "licence": "CC BY", "refresh_rate": "Monthly"})
    described(pipeline, **{**SAID, "licence": "CC BY", "refresh_rate": "Monthly"})
    assert (pipeline.dataset.licence, pipeline.dataset.refresh_rate) == ("Ours", "weekly")
    assert told("metadata")[1:] == ["At the source, licence: CC0 → CC BY; refresh rate: Daily → Monthly."]
    assert DatasetEvent.objects.filter(kind="metadata").first().details["changed"] == {
        "licence": ["CC0", "CC BY"],
        "refresh_rate": ["Daily", "Monthly"],
    }


@pytest.mark.django_db
def test_what_came_from_the_source_follows_it_and_what_a_person_emptied_stays_empty():
    pipeline = made()
    described(pipeline, **SAID)
    Dataset.objects.update(tags="")
    described(pipeline, **{**SAID, "licence": "CC BY"})
    assert (pipeline.dataset.licence, pipeline.dataset.tags) == ("CC BY", "")
    assert told("metadata")[1] == "At the source, licence: CC0 → CC BY (taken over)."


@pytest.mark.django_db
def test_words_too_long_or_odd_for_a_field_do_no_harm():
    pipeline = made()
    described(pipeline, description="a\x00b", licence="L" * 500, metadata={"tags": ["word"] * 200, "contact": "call Bob"})
    one = pipeline.dataset
    assert (one.description, len(one.licence), one.steward_email) == ("ab", 200, "")
    assert len(one.tags) <= 1000 and one.tags.endswith("word")


# from the source to the page


@pytest.mark.django_db(transaction=True)
def test_a_stopped_pipeline_goes_on_with_the_new_columns_when_they_are_accepted(stage_scene):  # noqa: F811
    scene = stage_scene(30, drift="stop", **ONLY)
    assert scene.go().state == State.DONE
    before = scene.warehouse()
    scene.source.alter(SOURCE, add={"phone": "text"}, remove=["open"])
    scene.source.touch(SOURCE)
    block = scene.go()
    assert (block.state, block.error_code, block.attempts) == (State.FAILED, "columns-changed", 1)
    assert "phone (text) is new; open (boolean) is gone" in block.message and scene.warehouse() == before
    verdict = columns.accept(scene.pipeline, actor=ANN)
    runner.work_off(list(verdict.again), workers=1)
    assert scene.block.state == State.DONE, scene.block.message
    assert len(scene.warehouse("id, phone")) == 30
    assert Run.objects.filter(stage="extract", state="done").count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_widened_pipeline_loads_the_new_column_and_the_run_keeps_what_changed(stage_scene):  # noqa: F811
    scene = stage_scene(30, **ONLY)
    scene.go()
    scene.source.alter(SOURCE, add={"phone": "text"})
    scene.source.touch(SOURCE)
    block = scene.go()
    assert (block.state, block.mark) == (State.DONE, ""), block.message
    assert scene.last("extract").details["drift"]["added"] == [["phone", "text"]]
    assert len(scene.warehouse("id, phone")) == 30


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("drift", ["widen", "stop"])
def test_a_retyped_column_keeps_its_old_values_and_takes_the_new_ones(stage_scene, drift):  # noqa: F811
    scene = stage_scene(30, drift=drift, **ONLY)
    scene.go()
    before = dict(scene.warehouse("id, amount"))
    scene.source.alter(SOURCE, retype={"amount": "text"})
    scene.source.dataset(SOURCE).publish([{"id": "k0000001", "amount": "about ten"}])
    block = scene.go()
    if drift == "stop":
        assert (block.state, block.error_code) == (State.FAILED, "columns-changed") and dict(scene.warehouse("id, amount")) == before
        runner.work_off(list(columns.accept(scene.pipeline, actor=ANN).again), workers=1)
        block = scene.block
    assert block.state == State.DONE, block.message
    after = dict(scene.warehouse("id, amount"))
    assert after["k0000001"] == "about ten" and len(after) == 30
    assert float(after["k0000002"]) == float(before["k0000002"])


def test_columns_that_change_without_a_change_of_rows_are_read_all_the_same():
    every, named = Pipeline(resource="x"), Pipeline(resource="x", columns=["id"])
    before, after = state_of(version="7"), state_of({**FIRST, "phone": "text"}, version="7")
    assert version_of(before, every) != version_of(after, every)
    assert version_of(before, named) == version_of(after, named), "a column that is not taken brings nothing new"
