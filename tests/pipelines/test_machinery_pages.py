"""Import logs, and workers with their queue: a load that died is said so, and a silence is never green."""

import csv
import io
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from catalog import audit
from pipelines.models import ImportLog, Pipeline, Provider, Pulse, Run, ScheduleBlock
from pipelines.selectors import machinery
from tests import world
from tests.web import plain_web  # noqa: F401


@pytest.fixture
def city(db):
    return world.build()


@pytest.fixture
def viewer(client, city):
    client.force_login(city.viewer)
    return client


def text_of(client, name, **query):
    reply = client.get(reverse(name), query)
    assert reply.status_code == 200
    return reply.content.decode()


def load_of(city, state, *events, fence=70):
    """A load run of the failed block with these lines in its diary."""
    block = city.blocks["failed"]
    run = Run.objects.create(
        block=block, stage="load", state=state, attempt=1, fence=fence, trigger="schedule", asked_by="schedule", holder="h:1",
        finished_at=None if state == "running" else timezone.now(),
    )  # fmt: skip
    for event, rows in events:
        ImportLog.objects.create(run=run, pipeline=block.pipeline, event=event, table="scooters", file="raw/page_1.csv", rows=rows, total=100)
    return run


def outcome(run):
    return {load.run.pk: load for load in machinery.all_loads(machinery.LoadFilters())}[run.pk].face.word


# import logs


def test_a_load_without_an_end_that_nobody_works_on_has_died(city):
    assert outcome(load_of(city, "crashed", ("begin", 0), ("chunk", 40))) == "Died"


def test_a_load_that_goes_on_is_loading_and_has_not_died(city):
    assert outcome(load_of(city, "running", ("begin", 0), ("chunk", 40))) == "Loading"


def test_a_load_that_said_why_it_failed_has_failed(city):
    assert outcome(load_of(city, "failed", ("begin", 0), ("failed", 0))) == "Failed"


def test_a_load_with_an_end_has_ended_whatever_came_after_it(city):
    assert outcome(load_of(city, "crashed", ("begin", 0), ("chunk", 100), ("end", 100))) == "Ended"


def test_the_list_counts_chunks_and_rows_and_links_the_block(viewer, city):
    run = load_of(city, "crashed", ("begin", 0), ("chunk", 40), ("chunk", 25))
    text = text_of(viewer, "import_logs", outcome="died")
    assert reverse("block", args=[run.block_id]) in text and ">65<" in text and "1 died" in text
    assert "requests" not in text.split("<tbody>")[1]


def test_the_filters_narrow_and_an_odd_day_is_said_so(viewer, city):
    load_of(city, "crashed", ("begin", 0))
    assert "Scooter trips" not in text_of(viewer, "import_logs", pipeline="requests").split("<tbody>")[1]
    assert "No load fits these filters" in text_of(viewer, "import_logs", day="1999-01-01")
    assert "is not a day" in text_of(viewer, "import_logs", day="yesterday")


def test_pages_go_by_key_and_miss_no_load(city):
    runs = [load_of(city, "crashed", ("begin", 0), fence=100 + n) for n in range(machinery.LOADS_A_PAGE + 7)]
    seen, filters = [], machinery.LoadFilters(pipeline=city.blocks["failed"].pipeline.slug)
    while True:
        page = machinery.import_logs(filters)
        seen += [load.run.pk for load in page.loads]
        # a load that begins between two pages moves nothing
        load_of(city, "crashed", ("begin", 0), fence=1000 + len(seen))
        if page.next_before is None:
            break
        filters = machinery.LoadFilters(pipeline=filters.pipeline, before=page.next_before)
    assert seen == sorted((run.pk for run in runs), reverse=True)


def test_the_csv_holds_every_load(viewer, city):
    for n in range(60):
        load_of(city, "crashed", ("begin", 0), fence=100 + n)
    body = b"".join(viewer.get(reverse("import_logs"), {"format": "csv"}).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(body)))
    assert len(rows) == machinery.import_logs(machinery.LoadFilters()).total
    assert {row["outcome"] for row in rows} >= {"Died", "Ended", "Loading"}


def test_import_logs_ask_as_much_for_many_as_for_few(viewer, city):
    with CaptureQueriesContext(connection) as few:
        text_of(viewer, "import_logs")
    for n in range(40):
        load_of(city, "crashed", ("begin", 0), ("chunk", 3), fence=100 + n)
    with CaptureQueriesContext(connection) as many:
        text_of(viewer, "import_logs")
    assert len(many) == len(few)


def test_nothing_loaded_is_a_sentence(client, db):
    people = world.build(nothing=True)
    client.force_login(people.viewer)
    assert "Nothing was loaded yet." in text_of(client, "import_logs")


# workers


def page(city, **more):
    return machinery.workers(timezone.now(), depth=more.pop("depth", 0), **more)


def words(city, name):
    return next(sign.face.word for sign in page(city).signs if sign.name == name)


def test_a_fresh_pulse_is_a_sign_of_life(city):
    assert (words(city, "Scheduler"), words(city, "Queue"), words(city, "Messages")) == ("Ticks", "Answers", "Empty")


def test_a_scheduler_that_has_not_ticked_is_silent_and_not_green(city):
    Pulse.objects.filter(name="tick").update(at=timezone.now() - timedelta(minutes=9))
    sign = page(city).signs[0]
    assert sign.face.look == "failed" and "9 min" in sign.words and "manage.py up" in sign.words


def test_a_tick_with_a_broken_schedule_is_suspicious(city):
    Pulse.objects.filter(name="tick").update(details={"broken": 2}, at=timezone.now())
    assert page(city).signs[0].face.look == "suspicious"


def test_a_queue_that_nobody_answers_is_silent(city):
    Pulse.objects.filter(name="canary").update(at=timezone.now() - timedelta(hours=2))
    assert words(city, "Queue") == "Silent"
    Pulse.objects.filter(name="canary").delete()
    Pulse.objects.create(name="canary asked", at=timezone.now())
    assert words(city, "Queue") == "No answer"


def test_a_lease_that_ran_out_is_not_called_running(city):
    ScheduleBlock.objects.filter(pk=city.blocks["running"].pk).update(lease_until=timezone.now() - timedelta(seconds=40), holder="ops-9:1")
    told = page(city)
    assert [line.face.word for line in told.running] == ["Lease ran out"]
    assert next(host for host in told.hosts if host.name == "ops-9").face.word == "Lost"


def test_a_host_at_work_needs_no_other_pulse(city):
    ScheduleBlock.objects.filter(pk=city.blocks["running"].pk).update(lease_until=timezone.now() + timedelta(seconds=9), holder="ops-9:1")
    host = next(host for host in page(city).hosts if host.name == "ops-9")
    assert (host.face.word, host.running) == ("At work", 1)


def test_a_host_that_went_silent_is_still_listed(city):
    Pulse.objects.filter(name="worker ops-2").update(at=timezone.now() - timedelta(hours=5))
    assert next(host for host in page(city).hosts if host.name == "ops-2").face.word == "Silent"


def test_an_outside_system_that_asked_us_to_wait_is_shown(viewer, city):
    Provider.objects.filter(slug="permits-db").update(blocked_until=timezone.now() + timedelta(minutes=7))
    assert "Asked us to wait" in text_of(viewer, "workers")


def test_a_queue_that_cannot_be_asked_is_said_and_the_page_stands(viewer, monkeypatch):
    def down():
        raise ConnectionError("no redis, password hunter2")

    monkeypatch.setattr("pipelines.planner.queue_depth", down)
    text = text_of(viewer, "workers")
    assert "The queue can&#x27;t be asked" in text and "hunter2" not in text


def test_restarts_are_kept_on_the_page(viewer, city):
    audit.write(audit.Actor("watchdog"), "restart", kind="workers", target="ops-1", reason="the canary was silent")
    assert "the canary was silent" in text_of(viewer, "workers")


def test_the_page_of_workers_refreshes_only_its_moving_part(viewer):
    reply = viewer.get(reverse("workers"), headers={"HX-Request": "true"})
    text = reply.content.decode()
    assert "<html" not in text and 'hx-trigger="every 5s"' in text


def test_workers_ask_as_much_for_many_blocks_as_for_few(viewer, city):
    with CaptureQueriesContext(connection) as few:
        text_of(viewer, "workers")
    one = city.blocks["running"]
    for n in range(1, 25):
        more = ScheduleBlock.objects.create(
            pipeline=one.pipeline, starts_at=one.starts_at + timedelta(days=30 + n), ends_at=one.ends_at + timedelta(days=30 + n), state="running",
            stage="load", stages=["load"], due_at=timezone.now(), holder=f"h{n}:1", lease_until=timezone.now(), fence=1,
        )  # fmt: skip
        Run.objects.create(block=more, stage="load", attempt=1, fence=1, trigger="schedule", asked_by="s", holder="h:1")
    with CaptureQueriesContext(connection) as many:
        text_of(viewer, "workers")
    assert len(many) == len(few)


@pytest.mark.parametrize("name", ["import_logs", "workers"])
def test_nobody_looks_without_logging_in(client, db, name):
    reply = client.get(reverse(name))
    assert reply.status_code == 302 and "/login/" in reply["Location"]


def test_loads_of_pipelines_of_many_zones_are_told_by_one_clock_the_citys(viewer, city):
    load = load_of(city, "done", ("begin", 0), ("end", 40))
    began = ImportLog.objects.filter(run=load).earliest("at").at
    Pipeline.objects.update(time_zone="Asia/Tokyo")
    text = text_of(viewer, "import_logs")
    assert f"{timezone.localtime(began):%H:%M}</time>" in text and f"{began.astimezone(ZoneInfo('Asia/Tokyo')):%H:%M}</time>" not in text
