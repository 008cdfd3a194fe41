"""The page of an upkeep job: what it found as a table, what a webhook was told, and the press that only looks."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django_q.models import OrmQ

from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.selectors import upkeep as selectors
from pipelines.selectors.upkeep import Findings
from pipelines.upkeep.jobs import Job
from tests import world
from tests.web import asks, plain_web  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RunState = UpkeepRun.State


class Looker(Job):
    """A job of the tests that can look without changing anything."""

    kind, label, can_dry = "test-page-looker", "Looker", True

    def run(self, job, run, note):
        return "Looked."


class Doer(Job):
    """One that can't."""

    kind, label = "test-page-doer", "Doer"

    def run(self, job, run, note):
        return "Done."


@pytest.fixture
def people(db):
    return world.build(nothing=True)


@pytest.fixture
def operator(client, people):
    client.force_login(people.operator)
    return client


def job(kind: str = "test-page-looker", **more) -> UpkeepJob:
    return UpkeepJob.objects.create(**{"kind": kind, "title": f"The {kind}", "cadence": "manual", **more})


def ended(one: UpkeepJob, findings=None, state: str = RunState.DONE, hours: int = 0, **more) -> UpkeepRun:
    at = NOW - timedelta(hours=hours)
    details = {} if findings is None else {"findings": findings}
    values = {"message": "It is done.", "asked_by": "ann", "asked_at": at, "started_at": at, "finished_at": at}
    return UpkeepRun.objects.create(job=one, state=state, details=details, **{**values, **more})


TABLE = {
    "columns": ["package", "days_late", "is_daily"],
    "rows": [["trees", 12, True], ["=permits", 1_200, False], ["https://x.example/a?b=1", None, None]],
}


def page(client, one: UpkeepJob, **asked) -> str:
    reply = client.get(reverse("upkeep_job", args=[one.pk]), asked)
    assert reply.status_code == 200
    return reply.content.decode()


def test_what_a_run_found_is_a_table_with_its_file(operator):
    one = job()
    ended(one, TABLE)
    text = page(operator, one)
    assert '<th class="num">days late</th>' in text and '<td class="num">1,200</td>' in text and ">yes</td>" in text
    assert 'href="https://x.example/a?b=1"' in text and "style=" not in text.split("<main")[1]
    reply = operator.get(reverse("upkeep_job", args=[one.pk]), {"format": "csv"})
    rows = list(csv.reader(io.StringIO(b"".join(reply.streaming_content).decode())))
    assert rows[:2] == [["package", "days_late", "is_daily"], ["trees", "12", "True"]] and rows[2][0] == "'=permits", "no spreadsheet runs it"


def test_fractions_of_a_column_stand_below_each_other_and_counts_stay_counts():
    cells = Findings.cells([["a", 0.3, 1_200], ["b", 0.3075, 7], ["c", 2, None]])
    assert [[cell.text for cell in row] for row in cells] == [["a", "0.300", "1,200"], ["b", "0.307", "7"], ["c", "2.000", "–"]]


def test_an_older_run_is_shown_when_it_is_asked_for_and_one_of_another_job_is_not(operator):
    one, other = job(), job("test-page-doer")
    old = ended(one, {"columns": ["what"], "rows": [["an old thing"]]}, hours=5)
    ended(one, {"columns": ["what"], "rows": [["a new thing"]]})
    strange = ended(other, {"columns": ["what"], "rows": [["a strange thing"]]})
    assert "a new thing" in page(operator, one) and "an old thing" not in page(operator, one)
    assert "an old thing" in page(operator, one, run=old.pk) and "the newest</a>" in page(operator, one, run=old.pk)
    assert "a strange thing" not in page(operator, one, run=strange.pk)
    assert operator.get(reverse("upkeep_job", args=[one.pk]), {"format": "csv", "run": strange.pk}).status_code == 404
    assert f"?run={old.pk}#found" in page(operator, one), "the history leads there"


def test_while_a_run_goes_on_the_last_findings_stay(operator):
    one = job()
    ended(one, TABLE, hours=1)
    UpkeepRun.objects.create(job=one, state=RunState.RUNNING, started_at=NOW)
    text = page(operator, one)
    assert "=permits" in text and 'hx-trigger="every 2s"' in text


def test_when_a_run_has_ended_the_page_is_read_again_and_not_before(operator):
    one = job()
    run = UpkeepRun.objects.create(job=one, state=RunState.RUNNING, started_at=NOW)
    address = reverse("upkeep_job", args=[one.pk])
    assert "HX-Refresh" not in operator.get(address, headers={"HX-Request": "true"})
    UpkeepRun.objects.filter(pk=run.pk).update(state=RunState.DONE, finished_at=NOW)
    assert operator.get(address, headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_what_was_not_kept_is_counted_and_a_long_table_is_paged(operator):
    one = job()
    ended(one, {"columns": ["number"], "rows": [[f"line {place}"] for place in range(250)], "more": 1_400})
    assert "1,400 findings more were not kept" in page(operator, one)
    pages = [page(operator, one, page=number) for number in (1, 2, 3, 4, 5)]
    assert [int(place) for text in pages for place in re.findall(r">line (\d+)<", text)] == list(range(250))


@pytest.mark.parametrize(
    "details",
    [
        {"findings": None}, {"findings": "x"}, {"findings": {"columns": "ab", "rows": []}}, {"findings": {"columns": ["a"], "rows": {"b": 1}}},
        {"findings": {"columns": [], "rows": []}}, {"findings": {"columns": ["a"], "rows": [[1, 2, {"b": [3]}], [], "junk", [None]]}}, [], "x",
    ],
)  # fmt: skip
def test_whatever_a_job_kept_the_page_opens(operator, details):
    one = job()
    run = ended(one)
    UpkeepRun.objects.filter(pk=run.pk).update(details=details)
    assert "What it found" in page(operator, one)
    found = Findings.of(details)
    assert found is None or {len(row) for row in found.rows} <= {len(found.columns)}


def test_what_a_webhook_was_told_stands_with_what_became_of_it(operator):
    one = job()
    ended(one, notice=":warning: *3* tables\n<b>are</b> empty", noticed="Told in 1 post.")
    text = page(operator, one)
    assert "Told in 1 post." in text and ":warning: *3* tables\n&lt;b&gt;are&lt;/b&gt; empty" in text and "The text for the webhook" in text
    UpkeepRun.objects.update(is_dry=True)
    assert "What a webhook would have been told" in page(operator, one)


def test_a_run_that_only_looked_says_so_in_the_history(operator):
    one = job()
    ended(one, TABLE)
    assert "only looked" not in page(operator, one).split('id="history"')[1]
    ended(one, TABLE, is_dry=True)
    assert page(operator, one).split('id="history"')[1].count("only looked") == 1
    assert "only looked" in operator.get(reverse("upkeep")).content.decode()


def test_the_press_that_only_looks_asks_for_that_and_stands_where_a_job_can(operator):
    one, other = job(), job("test-page-doer")
    assert "Only look" in page(operator, one) and "Only look" not in page(operator, other)
    told = operator.post(reverse("upkeep_run", args=[one.pk]), {"dry": "1", "reason": "spring"}, follow=True).content.decode()
    run = one.runs.get()
    assert run.is_dry and run.asked_because == "spring" and OrmQ.objects.count() == 1 and "Asked to look, and to change nothing." in told
    refused = operator.post(reverse("upkeep_run", args=[other.pk]), {"dry": "1"}, follow=True).content.decode()
    assert "it has no dry run" in refused and not other.runs.exists()


def test_the_press_that_runs_it_is_no_dry_run(operator):
    one = job()
    operator.post(reverse("upkeep_run", args=[one.pk]))
    assert not one.runs.get().is_dry


def test_a_viewer_sees_the_findings_and_no_press(client, people):
    client.force_login(people.viewer)
    one = job()
    ended(one, TABLE)
    text = page(client, one)
    assert "=permits" in text and "Run now" not in text and "Only look" not in text
    assert client.post(reverse("upkeep_run", args=[one.pk]), {"dry": "1"}).status_code == 403


def test_a_job_that_never_ran_or_keeps_no_list_says_so(operator):
    one = job()
    assert "It has not run yet" in page(operator, one) and "What it found" not in page(operator, one)
    ended(one, state=RunState.FAILED, message="The portal said 503.", hours=2)
    assert "It failed before it could list anything" in page(operator, one)
    ended(one, hours=1)
    assert "This job keeps no list" in page(operator, one)
    ended(one, {"columns": ["package"], "rows": []})
    assert "It found nothing to list" in page(operator, one)


def test_a_history_of_thousands_of_findings_is_not_read_for_the_list(operator):
    one = job()
    for hours in range(5):
        ended(one, TABLE, hours=hours)
    with asks(1):
        runs = selectors.history(one)
        assert [line.face.look for line in runs] == ["ok"] * 5 and "details" in runs[0].run.get_deferred_fields()
    with asks(1):
        assert selectors.found(one).is_newest
    with asks(2):
        assert not selectors.found(one, runs[4].run.pk).is_newest
