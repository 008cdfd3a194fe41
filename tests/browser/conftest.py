"""A real browser before a live server: every page is watched for what the strict policy refused and for errors of scripts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests import world
from tests.web import plain_web  # noqa: F401

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # playwright's loop lives in this thread, and Django takes it for an async context in which the ORM is refused
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    # and keeps its connections apart from those of before, which a forked child would find open
    connections.close_all()
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        started = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield started
        started.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def live_server(plain_web) -> Iterator[LiveServer]:  # noqa: F811  pytest-django's own lives a session, and would keep the settings that it began with
    server = LiveServer("localhost")
    yield server
    server.stop()


@pytest.fixture
def city(transactional_db) -> world.World:
    return world.build()


class Visitor:
    """Somebody at a browser: `page`, and `complaints` that the browser made (policy, scripts)."""

    def __init__(self, page: Page, address: str):
        self.page, self.address, self.complaints = page, address, []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))

    def _heard(self, message) -> None:
        if "Content Security Policy" in message.text or (message.type == "error" and "Failed to load resource" not in message.text):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def log_in(self, person) -> None:
        """Come in with a session that exists already: hashing a password takes a second."""
        client = Client()
        client.force_login(person)
        self.page.context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": self.address}])
        self.go(reverse("today"))

    def log_in_by_hand(self, person) -> None:
        self.page.goto(self.address + reverse("login"))
        self.page.fill("input[name=username]", person.username)
        self.page.fill("input[name=password]", world.PASSWORD)
        self.page.click("button:has-text('Log in')")
        self.page.wait_for_url(self.address + reverse("today"))

    def go(self, path: str) -> int:
        return self.page.goto(self.address + path).status

    def too_wide(self) -> int:
        """By how many pixels the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture
def visit(browser, live_server, city):
    """`visit(**of a browser context)` gives a Visitor; at the end none of them may have complained."""
    opened: list[tuple[BrowserContext, Visitor]] = []

    def make(**options) -> Visitor:
        context = browser.new_context(**{"viewport": WIDE, **options})
        context.set_default_timeout(15_000)
        visitor = Visitor(context.new_page(), live_server.url)
        opened.append((context, visitor))
        return visitor

    yield make
    for context, _ in opened:
        context.close()
    complaints = [complaint for _, visitor in opened for complaint in visitor.complaints]
    assert not complaints, "\n".join(complaints)
