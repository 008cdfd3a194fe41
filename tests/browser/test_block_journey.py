"""What people do with one block and its files: watch it run, press, say why, look at what was rejected, check a file, set up a provider."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from catalog.models import AuditEntry, CatalogEntry, Dataset
from pipelines.models import LogLine, Provider, Run, ScheduleBlock, State
from tests import world
from tests.browser.conftest import NARROW

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def story(block) -> str:
    return reverse("block", args=[block.pk])


def test_an_operator_reads_the_preview_says_why_and_runs_the_block_again(visit, city):
    failed = city.blocks["failed"]
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.go(story(failed))
    visitor.page.get_by_role("link", name="Try extract again…").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_contain_text("Run this block")
    expect(visitor.page.get_by_text("extract → standardize → enrich → load → publish", exact=True)).to_be_visible()
    visitor.page.get_by_label("Why").fill("Zipwheel answers again")
    visitor.page.get_by_role("button", name="Run extract").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Asked to run extract")
    expect(visitor.page.locator("#live")).to_contain_text("Waiting for extract")
    expect(visitor.page.locator("#audit")).to_contain_text("Zipwheel answers again")
    failed.refresh_from_db()
    assert (failed.state, failed.asked_by) == (State.WAITING, "operator")


def test_going_back_from_the_preview_changes_nothing(visit, city):
    failed = city.blocks["failed"]
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.go(reverse("block_confirm", args=[failed.pk, "force"]))
    visitor.page.get_by_role("link", name="Go back, change nothing").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_contain_text("Scooter trips, Zipwheel")
    failed.refresh_from_db()
    assert failed.state == State.FAILED and not AuditEntry.objects.filter(target=str(failed.pk)).exists()


def test_a_running_block_moves_by_itself_and_comes_to_rest(visit, city):
    running = city.blocks["running"]
    visitor = visit()
    visitor.log_in(city.viewer)
    visitor.go(story(running))
    expect(visitor.page.locator("#live")).to_contain_text("30,000 of 50,000 rows, 60 %")
    ScheduleBlock.objects.filter(pk=running.pk).update(progress_done=45_000)
    LogLine.objects.create(run=running.runs.get(stage="load"), text="page 9 is in")
    expect(visitor.page.locator("#live")).to_contain_text("45,000 of 50,000 rows, 90 %")
    expect(visitor.page.locator("#log-lines")).to_contain_text("page 9 is in")

    now = datetime.now(UTC)
    Run.objects.filter(block=running, state="running").update(state="done", finished_at=now, rows_in=50_000, rows_out=50_000, inserted=50_000)
    ScheduleBlock.objects.filter(pk=running.pk).update(state=State.DONE, holder="", lease_until=None, finished_at=now, message="50,000 new")
    expect(visitor.page.locator("#live")).to_contain_text("Done")
    expect(visitor.page.locator("#attempts")).not_to_contain_text("Running")
    # at rest: the last answer was 286, so nobody asks again
    asked = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.wait_for_timeout(4_500)
    assert [url for url in asked if "fragment" in url] == []


def test_what_a_person_types_stays_while_the_page_refreshes(visit, city):
    visitor = visit()
    visitor.log_in(city.viewer)
    visitor.go(story(city.blocks["running"]))
    box = visitor.page.get_by_label("Search the log")
    box.fill("merged")
    ScheduleBlock.objects.filter(pk=city.blocks["running"].pk).update(progress_done=40_000)
    expect(visitor.page.locator("#live")).to_contain_text("80 %")
    expect(box).to_have_value("merged")


def test_without_javascript_a_run_is_cancelled_and_the_page_is_whole(visit, city):
    running = city.blocks["running"]
    visitor = visit(java_script_enabled=False)
    visitor.log_in(city.operator)
    visitor.go(story(running))
    visitor.page.get_by_role("link", name="Cancel load…").click()
    visitor.page.get_by_role("button", name="Cancel load").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Asked to stop")
    expect(visitor.page.locator("#live")).to_contain_text("operator asked to stop it.")
    running.refresh_from_db()
    assert running.cancel_asked_by == "operator"


def test_a_rejected_row_opens_to_show_the_whole_row_and_its_file(visit, city):
    visitor = visit()
    visitor.log_in(city.viewer)
    visitor.go(story(city.blocks["requests"]))
    row = visitor.page.locator("#rejected tbody tr").first
    row.locator("summary").click()
    expect(row.locator("dl")).to_contain_text("srnumber")
    row.get_by_role("link").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("page-00001.csv")


def test_a_file_is_looked_at_and_checked_and_a_missing_one_is_said(visit, city, lake_folder):
    entry = CatalogEntry.objects.get()
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.go(reverse("lake_file", args=[entry.pk]))
    expect(visitor.page.get_by_role("main")).to_contain_text("is not in the lake")
    path = lake_folder / entry.pointer
    path.parent.mkdir(parents=True)
    path.write_bytes(b"id,name\n1,somebody wrote this\n")
    visitor.page.get_by_role("button", name="Check now").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Not equal")
    expect(visitor.page.get_by_role("table")).to_contain_text("somebody wrote this")


def test_a_steward_sets_up_a_provider_and_the_admin_keeps_the_policy(visit, city):
    visitor = visit()
    visitor.log_in(city.steward)
    visitor.go(reverse("admin:pipelines_provider_add"))
    visitor.page.get_by_role("link", name="Socrata (SODA 2.1 and 3)").click()
    visitor.page.get_by_label("Title").press_sequentially("Harbour portal")
    expect(visitor.page.get_by_label("Slug")).to_have_value("harbour-portal")
    visitor.page.get_by_label("Address").fill("https://harbour.example")
    visitor.page.get_by_label("App token").fill("a secret of the harbour")
    visitor.page.get_by_role("button", name="Save and continue editing").click()
    expect(visitor.page.get_by_text("Set (••••••)")).to_be_visible()
    assert Provider.objects.get(slug="harbour-portal").secrets["app_token"].startswith("fernet:")
    assert "a secret of the harbour" not in visitor.page.content()


@pytest.mark.parametrize("options", [{"viewport": NARROW, "color_scheme": "dark"}, {}])
def test_no_page_of_the_admin_breaks_the_policy(visit, city, options):
    root = User.objects.create_superuser("root", password=world.PASSWORD)
    visitor = visit(**options)
    visitor.log_in(root)
    one = city.pipelines["requests"]
    pages = [
        reverse("admin:index"),
        reverse("admin:pipelines_provider_changelist"),
        reverse("admin:pipelines_provider_change", args=[one.provider_id]),
        reverse("admin:pipelines_pipeline_change", args=[one.pk]),
        reverse("admin:pipelines_scheduleblock_changelist"),
        reverse("admin:pipelines_scheduleblock_change", args=[city.blocks["failed"].pk]),
        reverse("admin:catalog_dataset_change", args=[Dataset.objects.get(slug="311-requests").pk]),
        reverse("admin:catalog_auditentry_changelist"),
    ]
    assert {page: visitor.go(page) for page in pages} == dict.fromkeys(pages, 200)
