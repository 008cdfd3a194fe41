"""What people do at the console, in a real browser: look, choose blocks, preview, press, see the result; also narrow, and without JavaScript."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from catalog.models import AuditEntry, CatalogEntry
from pipelines.models import Pipeline, ScheduleBlock, State
from tests.browser.conftest import NARROW

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def addresses(city) -> list[str]:
    """Every kind of page, with an example of each."""
    plain = ["today", "datasets", "pipelines", "runs", "blocks", "lake", "import_logs", "workers", "audit", "search"]
    block = city.blocks["failed"]
    return [
        *(reverse(name) for name in plain),
        reverse("search") + "?q=scooter",
        *(reverse("pipeline", args=[slug]) for slug in ("scooters-zipwheel", "requests", "pets", "inspections", "notes")),
        *(f"{reverse('pipeline', args=['scooters-zipwheel'])}?tab={tab}" for tab in ("runs", "durations", "settings")),
        reverse("rerun", args=["scooters-zipwheel"]),
        reverse("rerun", args=["scooters-zipwheel"]) + "?from=x&to=y",
        *(reverse("block", args=[one.pk]) for one in (block, city.blocks["running"], city.blocks["requests"])),
        reverse("block_confirm", args=[block.pk, "run"]),
        reverse("dataset", args=["311-requests"]),
        reverse("lake_file", args=[CatalogEntry.objects.get().pk]),
    ]


@pytest.mark.parametrize("role", ["viewer", "operator", "steward"])
def test_each_role_logs_in_and_sees_today(visit, city, role):
    visitor = visit()
    visitor.log_in_by_hand(getattr(city, role))
    expect(visitor.page.locator("#need")).to_be_visible()
    expect(visitor.page.get_by_role("link", name="Settings")).to_have_count(1 if role == "steward" else 0)
    visitor.page.get_by_role("button", name="Log out").click()
    expect(visitor.page.get_by_label("Password")).to_be_visible()


def test_a_wrong_password_is_answered_in_a_sentence(visit, city):
    visitor = visit()
    visitor.go(reverse("login"))
    visitor.page.get_by_label("Name").fill("viewer")
    visitor.page.get_by_label("Password").fill("wrong")
    visitor.page.get_by_role("button", name="Log in").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("don’t belong together")


def test_no_page_is_wider_than_a_telephone_or_breaks_the_policy(visit, city):
    visitor = visit(viewport=NARROW)
    visitor.log_in(city.operator)
    found = {path: (visitor.go(path), visitor.too_wide()) for path in addresses(city)}
    assert {path: told for path, told in found.items() if told[1] > 0 or told[0] not in (200, 400)} == {}


def test_no_page_is_wider_than_its_window_or_breaks_the_policy(visit, city):
    visitor = visit(color_scheme="dark")
    visitor.log_in(city.operator)
    found = {path: (visitor.go(path), visitor.too_wide()) for path in addresses(city)}
    assert {path: told for path, told in found.items() if told[1] > 0 or told[0] not in (200, 400)} == {}


def test_an_operator_retries_the_failed_blocks_from_today(visit, city):
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.page.get_by_role("link", name="Retry 6 blocks").click()
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Run 6 blocks of Scooter trips, Zipwheel, and publish them")
    visitor.page.get_by_label("Why").fill("Zipwheel is up again")
    visitor.page.get_by_role("button", name="Run 6 blocks and publish to data.riverton.example").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Asked to run 6 blocks.")
    expect(visitor.page.get_by_role("link", name="Retry 6 failed")).to_have_count(0)
    assert ScheduleBlock.objects.filter(state=State.WAITING, asked_because="Zipwheel is up again").count() == 6
    assert AuditEntry.objects.filter(reason="Zipwheel is up again", actor="operator").count() == 6


def test_dragging_over_the_gap_fills_the_order_and_runs_just_that(visit, city):
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.go(reverse("pipeline", args=["scooters-zipwheel"]))
    gap = visitor.page.locator("td[data-look=missing]")
    row = gap.first.locator("xpath=..").locator("td[data-look=missing]")
    first, last = row.nth(0), row.nth(2)
    box, end = first.bounding_box(), last.bounding_box()
    visitor.page.mouse.move(box["x"] + 5, box["y"] + 5)
    visitor.page.mouse.down()
    visitor.page.mouse.move(end["x"] + 5, end["y"] + 5, steps=8)
    visitor.page.mouse.up()
    expect(visitor.page.locator("#picked")).to_have_text("3 blocks picked.")
    expect(visitor.page.locator("[data-count=missing]")).to_have_text("3")
    assert visitor.page.locator("[name=from]").input_value() == first.get_attribute("data-from")
    assert visitor.page.locator("[name=to]").input_value() == last.get_attribute("data-to")
    visitor.page.get_by_role("button", name="See what would run").click()
    visitor.page.get_by_role("button", name="Run 3 blocks and publish").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Asked to run 3 blocks.")


def test_blocks_are_picked_with_the_keyboard_alone(visit, city):
    visitor = visit()
    visitor.log_in(city.operator)
    visitor.go(reverse("pipeline", args=["scooters-zipwheel"]))
    cells = visitor.page.locator("td[data-look=missing]")
    cells.nth(0).focus()
    visitor.page.keyboard.press("x")
    expect(visitor.page.locator("#picked")).to_have_text("1 block picked.")
    cells.nth(4).focus()
    visitor.page.keyboard.press("x")
    expect(visitor.page.locator("#picked")).to_have_text("5 blocks picked.")
    visitor.page.keyboard.press("/")
    expect(visitor.page.locator("#q")).to_be_focused()


def test_two_presses_on_one_page_are_one_wish(visit, city):
    visitor = visit()
    visitor.log_in(city.operator)
    address = reverse("rerun", args=["scooters-zipwheel"]) + "?which=failed"
    visitor.go(address)
    other = visitor.page.context.new_page()
    other.goto(visitor.address + address)
    for page, told in ((visitor.page, "Asked to run 6 blocks."), (other, "Nothing was asked")):
        page.get_by_role("button", name="Run 6 blocks").click()
        expect(page.get_by_role("status")).to_contain_text(told)
    assert AuditEntry.objects.filter(verb="run", result__startswith="Asked").count() == 6 + 1  # and the one that the city began with


def test_everything_that_is_pressed_works_without_javascript(visit, city):
    visitor = visit(java_script_enabled=False)
    visitor.log_in(city.operator)
    visitor.go(reverse("pipeline", args=["scooters-zipwheel"]))
    visitor.page.locator("[name=from]").fill("")
    visitor.page.locator("[name=to]").fill("")
    visitor.page.get_by_label("Failed", exact=False).last.check()
    visitor.page.get_by_role("button", name="See what would run").click()
    visitor.page.get_by_role("button", name="Run 6 blocks").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Asked to run 6 blocks.")
    visitor.page.get_by_text("Pause…").click()
    visitor.page.locator("details textarea").fill("strike")
    visitor.page.get_by_role("button", name="Pause Scooter trips").click()
    expect(visitor.page.get_by_role("status")).to_contain_text("Paused.")
    assert Pipeline.objects.get(slug="scooters-zipwheel").paused_reason == "strike"
    visitor.page.locator(".nav__foot button", has_text="Dark").click()
    expect(visitor.page.locator("html")).to_have_class("dark")


def test_a_running_block_moves_by_itself(visit, city):
    visitor = visit()
    visitor.log_in(city.viewer)
    expect(visitor.page.locator("#running progress")).to_have_attribute("value", "30000")
    ScheduleBlock.objects.filter(pk=city.blocks["running"].pk).update(progress_done=45_000)
    expect(visitor.page.locator("#running progress")).to_have_attribute("value", "45000")


def test_durations_are_drawn_and_stand_in_a_table(visit, city):
    visitor = visit()
    visitor.log_in(city.viewer)
    visitor.go(reverse("pipeline", args=["scooters-zipwheel"]) + "?tab=durations")
    expect(visitor.page.locator(".uplot canvas")).to_have_count(2)
    assert visitor.page.locator("section table.table--tight tbody tr").count() > 50
