"""Datasets, one dataset from source to promise, and the audit: trouble first, gaps drawn, nothing green that is not."""

import csv
import io
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from catalog import audit
from catalog.models import AuditEntry, Dataset, DatasetColumn, DatasetEvent
from opendata_ops import datasets
from opendata_ops.sandbox.ckan import Ckan
from pipelines import secrets
from pipelines.models import Run, ScheduleBlock, State
from pipelines.selectors import faces
from tests import world
from tests.web import plain_web  # noqa: F401


@pytest.fixture(autouse=True)
def in_chicago(settings):
    settings.TIME_ZONE = world.CHICAGO


@pytest.fixture
def city(db):
    return world.build(world.SATURDAY)


@pytest.fixture
def viewer(client, city):
    client.force_login(city.viewer)
    return client


def text_of(client, name, *args, **query):
    reply = client.get(reverse(name, args=args), query)
    assert reply.status_code == 200
    return reply.content.decode()


def lines(**filters):
    return datasets.dataset_list(datasets.DatasetFilters(**filters), world.SATURDAY).lines


def page(slug):
    return datasets.dataset_page(Dataset.objects.get(slug=slug), world.SATURDAY)


# the list


def test_datasets_in_trouble_come_first(city):
    looks = [line.face.look for line in lines()]
    loud = [look in ("failed", "suspicious", "late") for look in looks]
    assert loud == sorted(loud, reverse=True) and looks[0] == "failed"


def test_each_dataset_says_how_it_is(city):
    looks = {line.dataset.slug: line.face.look for line in lines()}
    assert looks["scooter-trips"] == "failed" and looks["radar-counts"] == "suspicious"
    assert looks["street-trees"] == "paused" and looks["311-requests"] == "ok" and looks["council-notes"] == "queued"


def test_a_dataset_without_a_pipeline_is_not_called_fine(city):
    world.dataset("lonely", "Lonely")
    assert next(line for line in lines() if line.dataset.slug == "lonely").face == datasets.NO_PIPELINE


def test_a_broken_promise_is_late_though_nothing_failed(city):
    recent = ScheduleBlock.objects.filter(pipeline=city.pipelines["requests"], starts_at__gte=world.SATURDAY - timedelta(days=5))
    recent.update(state=State.WAITING, finished_at=None, due_at=world.SATURDAY)
    assert next(line for line in lines() if line.dataset.slug == "311-requests").face == faces.LATE
    assert page("311-requests").promise.face.look == "late"


def test_filters_narrow_and_an_empty_answer_is_a_sentence(viewer, city):
    assert {line.dataset.slug for line in lines(department="Parks")} == {"street-trees"}
    assert {line.dataset.slug for line in lines(search="mobility")} == {"scooter-trips"}
    assert all(line.face.look in ("failed", "suspicious", "paused", "crashed") for line in lines(standing="trouble"))
    assert "No dataset fits these filters" in text_of(viewer, "datasets", q="no such thing")


def test_the_list_asks_as_much_for_many_as_for_few(viewer, city):
    with CaptureQueriesContext(connection) as few:
        text_of(viewer, "datasets")
    source = world.provider("office", "Office")
    for n in range(20):
        world.pipeline(f"more-{n}", f"More {n}", source, world.dataset(f"more-{n}", f"More {n}"), world.SATURDAY)
    with CaptureQueriesContext(connection) as many:
        text_of(viewer, "datasets")
    assert len(many) == len(few)


def test_the_csv_has_every_dataset(viewer, city):
    body = b"".join(viewer.get(reverse("datasets"), {"format": "csv"}).streaming_content).decode()
    rows = {row["dataset"]: row for row in csv.DictReader(io.StringIO(body))}
    assert len(rows) == Dataset.objects.count() and rows["scooter-trips"]["state"] == "Failed"


def test_an_empty_city_says_what_comes_first(client, db):
    people = world.build(nothing=True)
    client.force_login(people.viewer)
    assert "No dataset is described yet." in text_of(client, "datasets")


# one dataset


def test_the_chain_of_the_newest_block_adds_up_on_the_page(viewer, city):
    text = text_of(viewer, "dataset", "311-requests")
    rows = city.blocks["requests"].rows
    assert f"<b>{rows:,}</b> at the source" in text and "it adds up" in text


def test_the_bar_draws_the_gap_where_a_block_was_owed_and_never_was(city):
    whole = page("311-requests").feeds[0].bar
    gone = ScheduleBlock.objects.filter(pipeline=city.pipelines["requests"], fence__gt=0).order_by("-starts_at")[12]
    assert gone.runs.count() == 0
    gone.delete()
    holed = page("311-requests").feeds[0].bar
    assert len(holed) == len(whole)
    square = next(one for one in holed if one.starts_at == gone.starts_at)
    assert square.face == faces.MISSING and "never ran" in square.title


def test_the_gaps_of_a_paused_pipeline_are_not_called_missing(city):
    assert {square.face.look for square in page("street-trees").feeds[0].bar} <= {"ok", "due", "paused"}


def test_a_block_that_waits_its_first_turn_does_not_hide_the_one_that_ran(city):
    one = city.pipelines["requests"]
    newest = ScheduleBlock.objects.filter(pipeline=one).order_by("-starts_at").first()
    world.block(one, (newest.ends_at, newest.ends_at + timedelta(days=1)), State.WAITING).save()
    assert page("311-requests").feeds[0].block.pk == newest.pk


def test_an_unchanged_snapshot_shows_the_counts_of_the_block_that_read_them(city):
    done = ScheduleBlock.objects.filter(pipeline=city.pipelines["trees"]).order_by("-starts_at").first()
    read = done.runs.get(stage="extract")
    newer = world.block(city.pipelines["trees"], (done.ends_at, done.ends_at + timedelta(days=1)), State.DONE, mark="unchanged")
    newer.save()
    Run.objects.create(
        block=newer, stage="extract", state="unchanged", attempt=1, fence=1, trigger="schedule", asked_by="schedule", holder="h",
        finished_at=world.SATURDAY,
        rows_in=58_120, unchanged=58_120, details={"evidence_run": read.pk},
    )  # fmt: skip
    chain = page("street-trees").feeds[0].chain
    assert chain.adds_up is True and f"block {done.pk:,}" in chain.note and chain.hops[-1].rows == 58_120


def test_the_timeline_holds_runs_and_edits_and_can_be_narrowed(viewer, city):
    audit.write(audit.Actor("steward"), "edit", kind="dataset", target="311-requests", result="Changed licence.")
    whole, edits = text_of(viewer, "dataset", "311-requests"), text_of(viewer, "dataset", "311-requests", show="edits")
    assert "Changed licence." in whole and "Loaded" in whole
    assert "Changed licence." in edits and "Loaded" not in edits


def test_the_timeline_tells_each_days_loads_in_one_line(viewer, city):
    days = [event for event in page("311-requests").timeline if event.kind == "run"]
    block = city.blocks["requests"]
    load = block.runs.get(stage="load")
    assert days[0].text.startswith(f"1 load: {load.inserted:,} new, 0 changed, 22 rejected; {load.inserted:,} rows published")
    assert (days[0].face.word, days[0].who) == ("Loaded", "schedule") and len(days) == 6
    reply = viewer.get(days[0].href)
    assert reply.status_code == 200 and f"{load.pk:,}" in reply.content.decode()


def test_a_day_on_which_something_failed_says_so_with_the_last_failures_words(city):
    event = next(event for event in page("scooter-trips").timeline if event.kind == "run")
    assert event.face.look == "failed" and "failed, the last one: Zipwheel answered 503" in event.text and ".." not in event.text
    Run.objects.filter(state="failed").update(superseded_at=world.SATURDAY)
    event = next(event for event in page("scooter-trips").timeline if event.kind == "run")
    assert event.face.look == "ok" and "made good since" in event.text


def test_a_change_at_the_source_stands_on_the_timeline(viewer, city):
    one = Dataset.objects.get(slug="311-requests")
    DatasetEvent.objects.create(dataset=one, kind="columns", source="requests", text="The source’s columns changed: <i> (text) is new.")
    DatasetEvent.objects.create(dataset=one, kind="metadata", source="requests", text="At the source, licence: CC0 → CC BY.")
    changes = text_of(viewer, "dataset", "311-requests", show="changes")
    assert "&lt;i&gt; (text) is new" in changes and "CC0 → CC BY" in changes and "Loaded" not in changes
    assert "is new" in text_of(viewer, "dataset", "311-requests") and "is new" not in text_of(viewer, "dataset", "311-requests", show="edits")
    assert "Neither the source nor the portal" in text_of(viewer, "dataset", "street-trees", show="changes")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            {"count": "1000", "null": "120", "cardinality": "27", "smallest": "2003-11-28T00:00:00.000", "largest": "9"},
            ("12 %", "27", "2003-11-28", "9"),
        ),
        ({"count": 1_000_000, "null": 3, "cardinality": 1_234}, ("under 0.1 %", "1,234", "", "")),
        ({"count": 0, "null": 0}, ("", "", "", "")),
        ({"count": "many", "cardinality": None, "smallest": {"a": 1}}, ("", "", "", "")),
        ({}, ("", "", "", "")),
        ("not what was promised", ("", "", "", "")),
    ],
)
def test_what_the_source_says_of_a_columns_values_is_told_in_words(told, line):
    found = datasets.ColumnLine.of(DatasetColumn(name="x", told=told))
    assert (found.empty, found.distinct, found.smallest, found.largest) == line


def test_the_dictionary_shows_the_sources_figures_where_there_are_any(viewer, city):
    assert "Smallest" not in text_of(viewer, "dataset", "311-requests")
    Dataset.objects.get(slug="311-requests").columns.filter(name="status").update(
        told={"count": 200, "null": 3, "cardinality": 5, "largest": "<Open>"}
    )
    text = text_of(viewer, "dataset", "311-requests")
    assert "Smallest" in text and "1.5 %" in text and "&lt;Open&gt;" in text
    body = b"".join(viewer.get(reverse("dataset", args=["311-requests"]), {"format": "csv"}).streaming_content).decode()
    row = next(row for row in csv.DictReader(io.StringIO(body)) if row["name"] == "status")
    assert (row["empty"], row["distinct"], row["smallest"], row["largest"]) == ("1.5 %", "5", "", "<Open>")


def test_the_page_asks_as_much_for_a_long_history_as_for_a_short_one(viewer, city):
    with CaptureQueriesContext(connection) as few:
        text_of(viewer, "dataset", "311-requests")
    one = city.blocks["requests"]
    Run.objects.bulk_create(
        [Run(block=one, stage="load", state="failed", attempt=1, fence=100 + n, trigger="schedule", asked_by="x", holder="h",
             started_at=world.SATURDAY, finished_at=world.SATURDAY) for n in range(80)]
    )  # fmt: skip
    with CaptureQueriesContext(connection) as many:
        text_of(viewer, "dataset", "311-requests")
    assert len(many) == len(few) <= 26


def test_the_dictionary_says_what_is_kept_inside(viewer, city):
    columns = Dataset.objects.get(slug="311-requests").columns
    columns.filter(name="address").update(is_published=False)
    text = text_of(viewer, "dataset", "311-requests")
    assert "1 kept inside" in text and "8 without a description" in text
    body = b"".join(viewer.get(reverse("dataset", args=["311-requests"]), {"format": "csv"}).streaming_content).decode()
    assert {row["name"]: row["is_published"] for row in csv.DictReader(io.StringIO(body))}["address"] == "False"


@pytest.mark.parametrize("slug", ["311-requests", "scooter-trips", "street-trees", "council-notes", "shelter-beds", "inspections", "pet-licences"])
def test_every_dataset_has_a_page(viewer, city, slug):
    text = text_of(viewer, "dataset", slug).split("<main")[1]
    assert ' style="' not in text and 'href="#"' not in text and ">None" not in text


def test_what_was_never_promised_is_not_called_kept(city):
    assert page("street-trees").promise.face is None
    assert page("311-requests").promise.face.look == "ok"


def test_a_dataset_with_nothing_says_the_next_step(viewer, city):
    world.dataset("lonely", "Lonely")
    assert "No pipeline feeds this dataset." in text_of(viewer, "dataset", "lonely")
    assert "Nothing has run yet." in text_of(viewer, "dataset", "council-notes")


def test_a_viewer_sees_no_buttons_that_act(viewer, city, client):
    rerun = reverse("rerun", args=["requests"])
    assert rerun not in text_of(viewer, "dataset", "311-requests")
    client.force_login(city.operator)
    assert rerun in text_of(client, "dataset", "311-requests")


def test_a_dataset_that_is_not_there_is_not_found(viewer):
    assert viewer.get(reverse("dataset", args=["nowhere"])).status_code == 404


# the audit


@pytest.fixture
def acts(db):
    people = world.build(nothing=True)
    for n in range(datasets.AUDIT_A_PAGE + 5):
        audit.write(audit.Actor.of(people.operator), "run", kind="block", target=str(n), reason="again", result="Asked to run extract.")
    audit.write(audit.Actor("command"), "pause", kind="pipeline", target="requests", result="refused: It is paused already.")
    audit.write(audit.Actor("steward"), "edit", kind="dataset", target="trees", result="Changed title.", changed={"title": ["<b>a", "b"]})
    return people


def test_the_audit_is_narrowed_by_who_what_and_which(client, acts):
    client.force_login(acts.viewer)
    assert "Changed title." in text_of(client, "audit", user="steward") and "Asked to run" not in text_of(client, "audit", user="steward")
    assert "It is paused already" in text_of(client, "audit", verb="pause")
    assert "Changed title." in text_of(client, "audit", target="tree")
    assert "Nothing fits these filters" in text_of(client, "audit", day="1999-01-01")
    assert "is not a day" in text_of(client, "audit", day="x")


def test_one_block_is_not_taken_for_another_that_begins_like_it(acts):
    found = datasets.AuditFilters(kind="block", target="1").entries()
    assert [entry.target for entry in found] == ["1"]


def test_the_audit_goes_by_key_and_misses_nothing(acts):
    first = datasets.audit_page(datasets.AuditFilters())
    audit.write(audit.Actor("late"), "run", kind="block", target="9999")
    second = datasets.audit_page(datasets.AuditFilters(before=first.next_before))
    seen = [line.entry.pk for line in first.lines + second.lines]
    assert seen == list(AuditEntry.objects.exclude(actor="late").order_by("-pk").values_list("pk", flat=True)) and second.next_before is None


def test_what_was_written_is_shown_and_never_run(client, acts):
    client.force_login(acts.viewer)
    assert "title: &lt;b&gt;a → b" in text_of(client, "audit")


def test_the_audit_csv_has_every_entry(client, acts):
    client.force_login(acts.viewer)
    body = b"".join(client.get(reverse("audit"), {"format": "csv", "verb": "run"}).streaming_content).decode()
    assert len(list(csv.DictReader(io.StringIO(body)))) == datasets.AUDIT_A_PAGE + 5


def test_the_audit_asks_the_same_however_long_it_is(client, acts):
    client.force_login(acts.viewer)
    with CaptureQueriesContext(connection) as few:
        text_of(client, "audit")
    for n in range(50):
        audit.write(audit.Actor("x"), "run", kind="block", target=str(n))
    with CaptureQueriesContext(connection) as many:
        text_of(client, "audit")
    assert len(few) == len(many)


@pytest.mark.parametrize(("name", "args"), [("datasets", []), ("dataset", ["311-requests"]), ("audit", [])])
def test_nobody_looks_without_logging_in(client, db, name, args):
    reply = client.get(reverse(name, args=args))
    assert reply.status_code == 302 and "/login/" in reply["Location"]


# what its portal is told


@pytest.fixture
def on_a_ckan(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Ckan() as portal:
        one = world.provider("ckan", "Open data", kind="ckan", base_url=portal.url, parameters={"organization": "city"})
        one.secrets = {"api_key": secrets.seal(portal.sysadmin_key)}
        one.save()
        told = world.dataset("trees", "Trees", description="Every tree.", topics=["Environment"])
        DatasetColumn.objects.create(dataset=told, part="Trees", name="kind", portal_type="text", description="The species")
        made = world.pipeline("trees", "Trees", one, told, world.SATURDAY, portal=one, portal_resource="trees/Trees", part="Trees", release=[])
        yield portal, made


@pytest.mark.django_db
def test_a_steward_tells_the_portal_what_was_edited_and_no_row_is_touched(client, on_a_ckan):
    portal, made = on_a_ckan
    _, operator, steward = world.people()
    address = reverse("describe_dataset", args=["trees"])
    client.force_login(operator)
    assert client.post(address).status_code == 403
    client.force_login(steward)
    assert "Tell the portal" in client.get(made.dataset.get_absolute_url()).content.decode()
    assert client.post(address).status_code == 302
    assert portal.package("trees")["notes"] == "Every tree."
    Dataset.objects.filter(slug="trees").update(description="Every tree, and each stump.")
    html = client.post(address, follow=True).content.decode()
    assert portal.package("trees")["notes"] == "Every tree, and each stump." and "The portal was told" in html
    assert "says all of it already" in client.post(address, follow=True).content.decode()
    assert AuditEntry.objects.filter(verb="describe", target="trees").count() == 3
    assert '<td class="dim">Trees</td>' in html and "Environment" in html
