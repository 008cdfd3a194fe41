"""Steps after a load in a real browser: seen in all states, renewed by themselves, done again by an operator, also narrow."""

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from catalog.models import AuditEntry
from pipelines import secrets
from pipelines.models import AfterRun, AfterStep
from tests.browser.conftest import NARROW
from tests.pipelines.test_after_pages import all_states, due, step

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow, pytest.mark.django_db(transaction=True)]

LONG = "There is no materialized view service_requests_by_council_district_and_month in city or public. " * 3


@pytest.fixture
def steps(city):
    """On the page of one block a step in each state, and longer ones."""
    one, block = city.pipelines["requests"], city.blocks["requests"]
    all_states(one, block)
    address = "https://api.riverton.example/status/reset-cache/" + "very-long-" * 12
    due(step(one, AfterStep.Kind.POST, 8, target=address, secret=secrets.seal("token-of-the-cache")), block, message=LONG)
    hook = step(one, AfterStep.Kind.NOTIFY, 9, target="", secret="env:OPS_WEBHOOK", prefix="Testing")
    due(hook, block, AfterRun.State.DONE, "hooks.example took it.")
    step(one, AfterStep.Kind.RELOAD, 10, target="https://reports.riverton.example/reload", expect="Reloading...", is_active=False)
    return block


@pytest.mark.parametrize("size", [{}, {"viewport": NARROW}])
def test_every_page_with_steps_fits_its_window(visit, city, steps, size):
    visitor = visit(**size)
    visitor.log_in(city.operator)
    failed = AfterRun.objects.filter(state="failed").first()
    pipeline = reverse("pipeline", args=["requests"])
    for path in (steps.get_absolute_url(), pipeline, f"{pipeline}?tab=settings", reverse("after_retry", args=[failed.pk]), reverse("today")):
        assert visitor.go(path) == 200
        assert visitor.too_wide() <= 0, path


def test_a_step_is_done_again_and_the_page_follows_it(visit, city, steps):
    visitor = visit()
    visitor.log_in(city.operator)
    failed = AfterRun.objects.get(step__target="view_failed")
    visitor.go(steps.get_absolute_url())
    row = visitor.page.locator("#after tr", has_text="Refresh the view view_failed")
    row.get_by_role("link", name="Retry…").click()
    visitor.page.get_by_label("Why").fill("the view is there now")
    visitor.page.get_by_role("button", name="Do it again").click()
    expect(row.locator(".state")).to_have_text("Waiting")
    assert AuditEntry.objects.get(verb="retry").reason == "the view is there now"
    AfterRun.objects.filter(pk=failed.pk).update(state="done", finished_at=timezone.now(), message="The view is new.")
    expect(visitor.page.get_by_text("The view is new.")).to_be_visible()
    expect(row.locator(".state")).to_have_text("Done")
