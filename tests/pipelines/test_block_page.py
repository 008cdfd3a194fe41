"""A block's story: where its rows are (Law 1), why it waits, what may be pressed, and what each press does."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from catalog.models import AuditEntry
from pipelines.clock import span_words
from pipelines.models import LogLine, Pipeline, Provider, RejectedRow, Run, RunState, ScheduleBlock, State
from pipelines.selectors.blocks import buttons
from pipelines.selectors.chain import reconcile
from pipelines.selectors.passes import gantt, passes
from pipelines.selectors.waiting import Surroundings, why_waiting
from tests import world
from tests.pipelines.commanding import command
from tests.web import plain_web  # noqa: F401

NOW = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)


def run(pk, stage, state=RunState.DONE, **counts):
    """An unsaved run; its counts as given."""
    return Run(pk=pk, stage=stage, state=state, attempt=1, fence=pk, started_at=NOW + timedelta(seconds=pk), **counts)


def extract(pk, rows, **more):
    return run(pk, "extract", rows_in=rows, rows_out=rows, **more)


def load(pk, rows_in, rejected=0, duplicates=0, unchanged=0, **more):
    rows_out = rows_in - rejected - duplicates - unchanged
    return run(
        pk, "load", rows_in=rows_in, rows_out=rows_out, inserted=rows_out, unchanged=unchanged, rejected=rejected, duplicates=duplicates, **more
    )


def publish(pk, rows, unchanged=0, **more):
    sent = rows - unchanged
    return run(pk, "publish", rows_in=rows, rows_out=sent, published=sent, unchanged=unchanged, **more)


# Law 1


def test_the_same_rows_at_every_hop_add_up():
    chain = reconcile([extract(1, 10_000), load(2, 10_000), publish(3, 10_000)])
    assert [hop.rows for hop in chain.hops] == [10_000] * 4
    assert chain.adds_up is True and chain.first_differs is None
    assert chain.sentence == "10,000 at the source = 10,000 in the lake = 10,000 in the warehouse + 0 rejected + 0 duplicates = 10,000 on the portal"


def test_rejected_rows_and_duplicates_explain_what_is_missing():
    chain = reconcile([extract(1, 5_218), load(2, 5_218, rejected=22, duplicates=6), publish(3, 5_190)])
    assert chain.adds_up is True
    warehouse = chain.hops[2]
    assert (warehouse.rows, warehouse.rejected, warehouse.duplicates, warehouse.difference) == (5_190, 22, 6, 0)
    assert (warehouse.state, warehouse.joint.sign, warehouse.joint.kind) == ("rejected", "−28", "differs")


def test_rows_that_were_there_already_count_as_arrived():
    chain = reconcile([extract(1, 10_000), load(2, 10_000, unchanged=9_500), publish(3, 10_000, unchanged=9_500)])
    assert [hop.rows for hop in chain.hops] == [10_000] * 4 and chain.adds_up is True


CAMERAS = ("extract", "standardize", "enrich", "aggregate", "load", "publish")


def cameras(**changes):
    """The runs of a day of 2 zips with 10 vehicles, of which one is rejected; 3 come from a neighbour day, and 4 belong to other days."""
    counts = {
        "standardize": {"rows_in": 10, "rows_out": 9, "rejected": 1, "details": {"taken": 2}},
        "enrich": {"rows_in": 12, "rows_out": 8, "duplicates": 4, "details": {"taken": 9}},
        "aggregate": {"rows_in": 8, "rows_out": 8, "details": {"made": 5}},
    }
    between = [run(pk, stage, **{**counts[stage], **changes.get(stage, {})}) for pk, stage in enumerate(counts, 2)]
    return [extract(1, 2), *between, load(5, 5), publish(6, 5)]


def test_rows_that_are_counted_otherwise_at_a_hop_are_not_called_missing():
    chain = reconcile(cameras(), CAMERAS)
    assert chain.adds_up is True
    assert [hop.rows for hop in chain.hops] == [2, 2, 9, 8, 5, 5, 5]
    assert [hop.joint.sign for hop in chain.hops[1:]] == ["=", "→", "→", "→", "=", "="]
    assert chain.sentence.startswith(
        "2 at the source = 2 in the lake → 9 in the standard file + 1 rejected → 8 in the ready file + 4 duplicates → 5 in"
    )


@pytest.mark.parametrize(
    ("stage", "details", "difference"), [("standardize", {"taken": 1}, 1), ("enrich", {"taken": 8}, 1), ("aggregate", {"made": 6}, 1)]
)
def test_rows_that_are_counted_otherwise_and_were_not_all_taken_are_missing(stage, details, difference):
    chain = reconcile(cameras(**{stage: {"details": details}}), CAMERAS)
    assert chain.adds_up is False and chain.first_differs.difference == difference
    assert chain.first_differs.key == ("load" if stage == "aggregate" else stage)


@pytest.mark.parametrize(
    ("runs", "first", "difference"),
    [
        ([run(1, "extract", rows_in=100, rows_out=90), load(2, 90), publish(3, 90)], "extract", 10),
        ([extract(1, 100), load(2, 90), publish(3, 90)], "load", 10),
        ([extract(1, 100), load(2, 100), publish(3, 70)], "publish", 30),
        ([extract(1, 100), load(2, 120), publish(3, 120)], "load", -20),
    ],
)
def test_the_first_hop_that_differs_is_named(runs, first, difference):
    chain = reconcile(runs)
    assert chain.adds_up is False
    assert (chain.first_differs.key, chain.first_differs.difference) == (first, difference)
    assert chain.first_differs.joint.kind == "broken" and "≠" in chain.sentence


def test_a_hop_that_failed_is_the_one_to_repair_and_the_counts_are_not_called_good():
    chain = reconcile([extract(1, 100), load(2, 100), run(3, "publish", RunState.FAILED)])
    assert chain.adds_up is None
    assert chain.first_differs.key == "publish" and chain.hops[-1].rows is None
    assert chain.sentence.endswith("in the warehouse + 0 rejected + 0 duplicates")


def test_a_newer_extract_is_not_compared_with_an_older_load():
    chain = reconcile([extract(1, 100), load(2, 100), publish(3, 100), extract(4, 120)])
    assert [hop.state for hop in chain.hops] == ["ok", "ok", "behind", "ok"]
    assert chain.adds_up is None and chain.hops[2].difference is None
    assert chain.sentence == "120 at the source = 120 in the lake"


def test_a_portal_that_failed_now_and_has_the_rows_of_an_earlier_pass_is_not_called_equal():
    again = [extract(4, 120), load(5, 120), run(6, "publish", RunState.FAILED)]
    portal = reconcile([extract(1, 100), load(2, 100), publish(3, 100), *again]).hops[-1]
    assert (portal.rows, portal.state, portal.joint.sign) == (100, "failed", "–")
    assert "earlier pass" in portal.joint.title


def test_a_retry_that_went_well_counts_and_the_failed_try_does_not():
    chain = reconcile([run(1, "extract", RunState.CRASHED), extract(2, 100), run(3, "load", RunState.FAILED), load(4, 100), publish(5, 100)])
    assert chain.adds_up is True and [hop.state for hop in chain.hops] == ["ok"] * 4


def test_an_unchanged_source_shows_the_last_evidence_and_says_so():
    same = [extract(1, 100), load(2, 100), publish(3, 100)]
    chain = reconcile([*same, run(4, "extract", RunState.UNCHANGED, rows_in=100, unchanged=100)])
    assert chain.adds_up is True and [hop.rows for hop in chain.hops] == [100] * 4
    assert "has not changed" in chain.note and "run 1" in chain.note


def test_the_evidence_of_an_unchanged_snapshot_may_belong_to_an_older_block():
    earlier = [extract(1, 100), load(2, 100, rejected=3), publish(3, 97)]
    for one in earlier:
        one.block_id = 7
    only = run(9, "extract", RunState.UNCHANGED, rows_in=100, unchanged=100, details={"evidence_run": 1})
    chain = reconcile([only], earlier=earlier)
    assert [hop.rows for hop in chain.hops] == [100, 100, 97, 97] and chain.adds_up is True
    assert "block 7" in chain.note


def test_an_unchanged_source_without_any_evidence_is_not_called_good():
    chain = reconcile([run(9, "extract", RunState.UNCHANGED)])
    assert chain.adds_up is None and "no earlier run" in chain.note


def test_an_empty_window_adds_up_to_nothing():
    chain = reconcile([extract(1, 0), load(2, 0), publish(3, 0)])
    assert chain.adds_up is True and [hop.rows for hop in chain.hops] == [0] * 4


def test_a_pipeline_without_a_portal_adds_up_without_one():
    chain = reconcile([extract(1, 5), load(2, 5)], ("extract", "load"))
    assert [hop.key for hop in chain.hops] == ["source", "extract", "load"] and chain.adds_up is True


def test_nothing_ran_is_neither_good_nor_bad():
    chain = reconcile([])
    assert chain.adds_up is None and chain.first_differs is None and chain.sentence == ""


# attempts


def test_tries_of_one_stage_are_one_pass_and_going_back_begins_another():
    runs = [run(1, "extract", RunState.FAILED), extract(2, 5), load(3, 5), publish(4, 5), extract(5, 5), load(6, 5), load(7, 5)]
    assert [[one.pk for one in some] for some in passes(runs)] == [[7], [5, 6], [1, 2, 3, 4]]


def test_a_day_in_the_queue_is_drawn_as_waiting():
    waited = extract(1, 5, queued_at=NOW - timedelta(hours=24), finished_at=NOW + timedelta(seconds=60))
    chart = gantt([waited], NOW)
    assert chart.bars[0].wait_width > chart.bars[0].width
    assert "24 h 00 min in the queue" in chart.bars[0].text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (66, "1 min 06 s"), (7500, "2 h 05 min"), (200_000, "2 d 7 h"), (None, "–")],
)
def test_a_span_reads_as_people_say_it(seconds, words):
    assert span_words(seconds) == words


# why it waits


def waiting(**more):
    source = Provider(title="Lark", slug="lark", kind="socrata")
    values = {"state": State.WAITING, "stage": "extract", "stages": ["extract"], "due_at": NOW - timedelta(seconds=5), "trigger": "schedule", **more}
    one = Pipeline(slug="p", title="P", provider=source, time_zone="America/Chicago", is_paused=values.pop("is_paused", False))
    return ScheduleBlock(pipeline=one, **values)


LISTENING = {"now": NOW, "provider": "Lark", "tick_age": 10.0, "canary_age": 12.0, "limit_there": 2}


@pytest.mark.parametrize(
    ("block", "around", "said"),
    [
        ({}, {}, "It is next"),
        ({}, {"running_there": 2}, "2 blocks run at Lark already"),
        ({}, {"asked_to_wait_until": NOW + timedelta(hours=4)}, "Lark asked us to wait until 10:42"),
        ({}, {"ahead": 3}, "behind 3 blocks in the queue"),
        ({}, {"canary_age": 900.0}, "No worker is listening: the queue last answered 15 min 00 s ago"),
        ({}, {"canary_age": None}, "No worker is listening"),
        ({}, {"tick_age": 600.0}, "The scheduler last ticked 10 min 00 s ago"),
        ({}, {"other_block_runs": True}, "one after the other"),
        ({"due_at": NOW + timedelta(minutes=18), "attempts": 2}, {}, "to try again, until 07:00"),
        ({"due_at": NOW + timedelta(minutes=18), "error_code": "NotReady"}, {}, "for the source, until 07:00"),
        ({"is_paused": True}, {}, "The pipeline is paused"),
        ({"due_at": NOW - timedelta(minutes=40)}, {}, "nothing that is known keeps it"),
    ],
)
def test_a_waiting_block_says_why(block, around, said):
    assert said in " ".join(why_waiting(waiting(**block), Surroundings(**{**LISTENING, **around})))


def test_a_busy_worker_is_a_listening_worker():
    # a canary waits behind long loads; then its age says nothing
    told = why_waiting(waiting(), Surroundings(**{**LISTENING, "canary_age": 900.0, "running": 1}))
    assert "No worker" not in " ".join(told)


# what may be pressed


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        (State.RUNNING, {"cancel"}),
        (State.WAITING, {"run", "force", "rerun", "hold"}),
        (State.FAILED, {"run", "force", "rerun", "hold"}),
        (State.HELD, {"release", "force", "rerun"}),
        (State.DONE, {"run", "force", "rerun"}),
    ],
)
def test_the_buttons_are_those_that_make_sense(state, verbs):
    assert {button.verb for button in buttons(waiting(state=state))} == verbs


def test_a_block_that_is_being_cancelled_has_no_button():
    assert buttons(waiting(state=State.RUNNING, cancel_asked_at=NOW)) == []


# the page


@pytest.fixture
def city(db):
    return world.build()


@pytest.fixture
def operator(client, city):
    client.force_login(city.operator)
    return client


@pytest.fixture
def viewer(client, city):
    client.force_login(city.viewer)
    return client


def page_of(client, block, address="block", **query):
    reply = client.get(reverse(address, args=[block.pk]), query)
    assert reply.status_code in (200, 286)
    return reply.content.decode()


@pytest.mark.parametrize("name", ["requests", "failed", "running", "waiting", "retrying", "suspicious", "held"])
def test_every_state_has_a_page_without_a_word_of_style_or_script(operator, city, name):
    text = page_of(operator, city.blocks[name])
    assert ' style="' not in text and "onclick" not in text and 'href="#"' not in text
    assert "None" not in text.split("<main")[1]


def test_the_page_writes_the_law_out_with_its_numbers(viewer, city):
    rows = city.blocks["requests"].rows
    text = page_of(viewer, city.blocks["requests"])
    assert f"<b>{rows:,}</b> at the source" in text and "<b>22</b> rejected" in text and "it adds up" in text


def test_a_viewer_sees_no_buttons_and_may_not_press(viewer, city):
    failed = city.blocks["failed"]
    assert "/run/confirm/" not in page_of(viewer, failed)
    for address in (reverse("block_confirm", args=[failed.pk, "run"]), reverse("block_act", args=[failed.pk, "run"])):
        assert viewer.post(address).status_code == 403 and viewer.get(address).status_code in (403, 405)
    failed.refresh_from_db()
    assert failed.state == State.FAILED


def test_nobody_looks_without_logging_in(client, city):
    for name in ("block", "block_fragment", "rejected_csv", "block_log", "block_json"):
        reply = client.get(reverse(name, args=[city.blocks["requests"].pk]))
        assert reply.status_code == 302 and "/login/" in reply["Location"]


def test_the_page_asks_as_much_for_a_long_history_as_for_a_short_one(operator, city):
    failed = city.blocks["failed"]
    with CaptureQueriesContext(connection) as few:
        page_of(operator, failed)
    last = failed.runs.first()
    Run.objects.bulk_create(
        [Run(block=failed, stage="extract", state="failed", attempt=1, fence=100 + n, trigger="schedule", asked_by="x", holder="h",
             started_at=NOW, finished_at=NOW, message="m") for n in range(60)]
    )  # fmt: skip
    LogLine.objects.bulk_create([LogLine(run=last, text=f"line {n}") for n in range(400)])
    RejectedRow.objects.bulk_create([RejectedRow(run=last, block=failed, reason=f"r{n % 9}", raw={}, file="f", line=n) for n in range(300)])
    # the rows' page is one query, which an empty list does not need
    with CaptureQueriesContext(connection) as many:
        page_of(operator, failed)
    assert len(many) - len(few) <= 1 and len(many) <= 24


def test_a_running_block_is_polled_and_a_finished_one_stops_the_polling(viewer, city):
    assert viewer.get(reverse("block_fragment", args=[city.blocks["running"].pk])).status_code == 200
    assert 'hx-trigger="every 2s"' in page_of(viewer, city.blocks["running"])
    assert viewer.get(reverse("block_fragment", args=[city.blocks["requests"].pk])).status_code == 286
    assert "hx-trigger" not in page_of(viewer, city.blocks["requests"]).split("<main")[1]


def test_a_running_block_shows_how_far_it_is(viewer, city):
    text = page_of(viewer, city.blocks["running"])
    assert '<progress id="bar" value="30000" max="50000">' in text and "60 %" in text


def test_what_a_source_says_is_shown_and_never_run(viewer, city):
    failed = city.blocks["failed"]
    evil = "<script>alert(1)</script>"
    ScheduleBlock.objects.filter(pk=failed.pk).update(message=evil, asked_because=evil)
    run_ = failed.runs.first()
    LogLine.objects.create(run=run_, text=evil)
    RejectedRow.objects.create(run=run_, block=failed, reason=evil, column=evil, value=evil, row_key=evil, raw={evil: evil}, file=evil, line=2)
    text = page_of(viewer, failed)
    assert evil not in text and "&lt;script&gt;" in text


def test_the_log_is_narrowed_by_level_and_words_and_can_be_taken_away(viewer, city):
    block = city.blocks["requests"]
    assert "rows were rejected" in page_of(viewer, block, level="warning") and "Wrote page-00001.csv" not in page_of(viewer, block, level="warning")
    assert "Wrote page-00001.csv" in page_of(viewer, block, q="WROTE") and "Merged." not in page_of(viewer, block, q="WROTE")
    assert "No line of" in page_of(viewer, block, q="no such words")
    reply = viewer.get(reverse("block_log", args=[block.pk]), {"level": "warning"})
    lines = b"".join(reply.streaming_content).decode().splitlines()
    assert len(lines) == 1 and "warning 22 rows were rejected" in lines[0]


def test_rejected_rows_of_a_replaced_run_are_not_counted_any_more(viewer, city):
    block = city.blocks["requests"]
    old = Run.objects.create(
        block=block, stage="load", state="crashed", attempt=1, fence=90, trigger="schedule", asked_by="x", holder="h", finished_at=NOW, started_at=NOW
    )  # fmt: skip
    Run.objects.filter(pk=old.pk).update(id=0)  # before all others
    RejectedRow.objects.create(run_id=0, block=block, reason="of an earlier try", raw={}, file="f", line=2)
    text = page_of(viewer, block)
    assert "1 row rejected by earlier runs" in text and "of an earlier try" not in text
    assert "of an earlier try" in page_of(viewer, block, all="1")


def test_the_rejected_csv_holds_every_row_and_no_formula(viewer, city):
    block = city.blocks["requests"]
    RejectedRow.objects.create(
        run=block.runs.get(stage="load"), block=block, reason="odd", column="a", value='=HYPERLINK("http://x")',
        row_key="-5", raw={"a": "ü"}, file="f", line=9
    )  # fmt: skip
    body = b"".join(viewer.get(reverse("rejected_csv", args=[block.pk])).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(body)))
    assert len(rows) == 23
    assert rows[-1]["value"].startswith("'=HYPERLINK") and rows[-1]["key"] == "-5" and json.loads(rows[-1]["raw"]) == {"a": "ü"}


def test_the_json_twin_keeps_the_promised_names(viewer, city):
    block = city.blocks["requests"]
    told = json.loads(viewer.get(reverse("block_json", args=[block.pk])).content)
    promised = {"rows_in", "rows_out", "inserted", "updated", "unchanged", "deleted", "rejected", "duplicates", "published", "seconds"}
    assert list(told["stages"]) == ["extract", "load", "publish"]
    assert all(promised <= stage.keys() for stage in told["stages"].values())
    assert told["state"] == "done" and told["pipeline"] == "requests" and told["rows"]["adds_up"] is True


def test_the_page_and_the_command_tell_a_block_in_the_same_words(viewer, city):
    block = city.blocks["requests"]
    printed = {told["block"]: told for told in command("status", "requests", "--json").json["blocks"]}
    assert json.loads(viewer.get(reverse("block_json", args=[block.pk])).content) == printed[block.pk]


def test_a_block_that_is_not_there_is_said_so(viewer):
    assert viewer.get(reverse("block", args=[999_999])).status_code == 404


# the presses


@pytest.fixture
def quiet(monkeypatch):
    """The bell is counted, not rung."""
    rung = []
    monkeypatch.setattr("pipelines.planner.ring", lambda block_id: rung.append(block_id) or 1)
    return rung


def test_the_confirm_page_says_what_will_run_before_anything_does(operator, city):
    failed = city.blocks["failed"]
    text = operator.get(reverse("block_confirm", args=[failed.pk, "rerun"]), {"stage": "load"}).content.decode()
    assert "load → publish" in text and "Nothing has started" in text and f'value="{failed.fence}"' in text
    failed.refresh_from_db()
    assert failed.state == State.FAILED and not AuditEntry.objects.filter(target=str(failed.pk)).exists()


def test_a_press_runs_the_block_and_leaves_who_and_why(operator, city, quiet):
    failed = city.blocks["failed"]
    reply = operator.post(reverse("block_act", args=[failed.pk, "run"]), {"reason": "vendor is back", "seen_fence": failed.fence}, follow=True)
    assert "Asked to run" in reply.content.decode()
    failed.refresh_from_db()
    assert (failed.state, failed.asked_by, failed.asked_because, failed.trigger) == (State.WAITING, "operator", "vendor is back", "button")
    line = AuditEntry.objects.get(kind="block", target=str(failed.pk))
    assert (line.actor, line.verb, line.reason) == ("operator", "run", "vendor is back")
    assert quiet == [failed.pk]


def test_a_press_on_an_old_page_is_refused_in_words(operator, city, quiet):
    failed = city.blocks["failed"]
    ScheduleBlock.objects.filter(pk=failed.pk).update(fence=failed.fence + 1)
    reply = operator.post(reverse("block_act", args=[failed.pk, "force"]), {"seen_fence": failed.fence}, follow=True)
    assert "Nothing was done." in reply.content.decode() and quiet == []
    failed.refresh_from_db()
    assert failed.state == State.FAILED


def test_fifty_presses_are_one_wish(operator, city, quiet):
    failed = city.blocks["failed"]
    for _ in range(50):
        operator.post(reverse("block_act", args=[failed.pk, "force"]), {"seen_fence": failed.fence})
    assert quiet == [failed.pk]


def test_a_rerun_begins_at_the_stage_that_was_pressed(operator, city, quiet):
    failed = city.blocks["failed"]
    operator.post(reverse("block_act", args=[failed.pk, "rerun"]), {"stage": "load", "seen_fence": failed.fence})
    failed.refresh_from_db()
    assert failed.stages == ["load", "publish"] and failed.stage == "load"


def test_hold_release_and_cancel_do_what_they_say(operator, city, quiet):
    waiting_, running = city.blocks["waiting"], city.blocks["running"]
    operator.post(reverse("block_act", args=[waiting_.pk, "hold"]), {"reason": "ask first"})
    waiting_.refresh_from_db()
    assert waiting_.state == State.HELD
    operator.post(reverse("block_act", args=[waiting_.pk, "release"]))
    waiting_.refresh_from_db()
    assert waiting_.state == State.WAITING and quiet == [waiting_.pk]
    operator.post(reverse("block_act", args=[running.pk, "cancel"]))
    running.refresh_from_db()
    assert running.cancel_asked_by == "operator"


def test_an_act_is_never_done_by_looking(operator, city):
    for verb in ("run", "force", "rerun", "cancel", "hold", "release"):
        assert operator.get(reverse("block_act", args=[city.blocks["failed"].pk, verb])).status_code == 405


@pytest.mark.parametrize(("verb", "query"), [("explode", {}), ("rerun", {}), ("rerun", {"stage": "nowhere"})])
def test_an_act_that_there_is_not_is_not_found(operator, city, verb, query):
    assert operator.get(reverse("block_confirm", args=[city.blocks["failed"].pk, verb]), query).status_code == 404


def test_on_the_production_system_every_act_says_why(operator, city, settings, quiet):
    settings.ENVIRONMENT = "prod"
    failed = city.blocks["failed"]
    reply = operator.post(reverse("block_act", args=[failed.pk, "run"]), {"reason": " "})
    assert reply.status_code == 422 and "every act leaves its reason" in reply.content.decode() and quiet == []
    failed.refresh_from_db()
    assert failed.state == State.FAILED


def test_a_form_without_its_token_is_refused(city, quiet):
    from django.test import Client

    careful = Client(enforce_csrf_checks=True)
    careful.force_login(User.objects.get(username="operator"))
    assert careful.post(reverse("block_act", args=[city.blocks["failed"].pk, "run"])).status_code == 403


def test_a_hop_that_failed_says_the_sentence_before_the_code(client, db):
    city = world.build()
    client.force_login(city.viewer)
    text = client.get(city.blocks["failed"].get_absolute_url()).content.decode()
    hop = text[text.index('class="hop hop--failed"') :].split("</li>")[0]
    assert "answered 503" in hop and hop.index("answered 503") < hop.index("<code>http-503</code>")


def test_a_running_block_whose_worker_is_lost_is_not_said_to_be_well(client, db):
    city = world.build()
    client.force_login(city.viewer)
    block = city.blocks["running"]
    assert "Nothing to do." in client.get(block.get_absolute_url()).content.decode()
    ScheduleBlock.objects.filter(pk=block.pk).update(lease_until=datetime.now(UTC) - timedelta(hours=5))
    text = client.get(block.get_absolute_url()).content.decode()
    assert "its worker is lost: its lease ran out 5 h" in text and "Nothing to do." not in text
