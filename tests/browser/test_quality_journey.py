"""A browser on the pages of quality: they fit a telephone whatever stands in them, filter without a reload, and draw their chart."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from perfmet.selectors import quality
from pipelines.models import UpkeepJob, UpkeepRun
from tests.browser.conftest import NARROW, WIDE
from tests.perfmet import scored
from tests.world import SATURDAY

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_the_pages_of_quality_and_of_an_upkeep_job_fit_whatever_stands_in_them(visit, city):
    scored.fill(12, 3)
    scored.strange(scored.run())
    job = UpkeepJob.objects.create(kind="quality", title="u" * 200, cadence="manual")
    UpkeepRun.objects.create(
        job=job, state="done", started_at=SATURDAY, finished_at=SATURDAY, message="m" * 400, notice="n" * 2_000, noticed="z" * 300,
        details={"findings": {"columns": ["a"], "rows": [["x" * 900, 1], ["https://example.org/" + "y" * 300]]}},
    )  # fmt: skip
    lines = {line.package: line.href for line in quality.league({}).lines}
    pages = [
        reverse("quality"),
        reverse("quality-improve"),
        reverse("upkeep_job", args=[job.pk]),
        lines["half json"],
        lines["p" * 200],
        lines["scored-1"],
    ]
    visitor = visit(viewport=NARROW)
    visitor.log_in(city.operator)
    for page in pages:
        assert visitor.go(page) == 200
        for window in (WIDE, NARROW):
            visitor.page.set_viewport_size(window)
            assert visitor.too_wide() <= 0, (page, window)


def test_the_league_is_narrowed_in_place_and_a_table_draws_its_history(visit, city):
    scored.fill(12, 3)
    visitor = visit()
    visitor.log_in(city.viewer)
    visitor.go(reverse("quality"))
    visitor.page.select_option("#table-division", scored.DIVISIONS[1])
    expect(visitor.page.locator(".league tbody tr")).to_have_count(3)
    assert "division=" in visitor.page.url
    visitor.page.locator(".league tbody th a").first.click()
    expect(visitor.page.locator(".plot canvas")).to_be_visible()
