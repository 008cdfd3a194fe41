"""What is around every page: who may come in, the theme, the machinery's state, health, and pages for when things break."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connection
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.urls import get_resolver, reverse

from opendata_ops import context, selectors, views
from opendata_ops.templatetags import ops
from pipelines.models import Pulse
from pipelines.selectors import faces, schedule
from tests import world
from tests.web import asks, plain_web  # noqa: F401

STATIC = settings.BASE_DIR / "static"
TEMPLATES = settings.BASE_DIR / "templates"


def pages() -> list[str]:
    """Every address without arguments, but the admin's."""
    patterns = [one for app in ("opendata_ops", "perfmet", "pipelines", "catalog") for one in get_resolver(f"{app}.urls").url_patterns]
    return [one.name for one in patterns if getattr(one, "name", None) and not one.pattern.converters]


OPEN = {"login", "logout", "theme", "healthz", "readyz", "statusz"}
#: Pages that are there to change something: address → who may.
FOR_STEWARDS = {"inventory_upload", "new_dataset"}
#: An address that only takes a press, and one that is asked about something: their own tests look at them.
PRESSES, ASKED = {"quality-score-now"}, {"quality-table"}


def who(name: str) -> str:
    return "steward" if name in FOR_STEWARDS else "viewer"


@pytest.fixture
def saturday():
    with time_machine.travel(world.SATURDAY, tick=False):
        yield world.SATURDAY


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(set(pages()) - OPEN - PRESSES))
def test_every_page_wants_a_log_in_and_then_the_right_to_look(client, name, django_user_model):
    address = reverse(name)
    assert client.get(address).headers["Location"].startswith(reverse("login"))
    client.force_login(django_user_model.objects.create_user("nobody"))
    refused = client.get(address)
    assert refused.status_code == 403
    assert who(name) in refused.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(set(pages()) - OPEN - PRESSES - ASKED))
@pytest.mark.parametrize("nothing", [True, False], ids=["nothing", "city"])
def test_every_page_stands_with_data_and_without(client, name, nothing, saturday):
    made = world.build(saturday, nothing=nothing)
    client.force_login(getattr(made, who(name)))
    shown = client.get(reverse(name))
    assert shown.status_code == 200
    assert 'href="#"' not in shown.content.decode()


@pytest.mark.django_db
def test_the_shell_asks_five_times(saturday, rf):
    made = world.build(saturday)
    request = rf.get("/")
    request.user = made.viewer
    with asks(5):
        shell = context.shell(request)["shell"]
        assert shell.needs == 7


@pytest.mark.django_db
def test_the_shell_stands_when_the_database_does_not(client, saturday, monkeypatch):
    made = world.build(saturday, nothing=True)
    client.force_login(made.viewer)

    def down(now):
        raise DatabaseError("the server closed the connection")

    monkeypatch.setattr(selectors, "machinery", down)
    shown = client.get(reverse("search"))
    assert shown.status_code == 200
    assert "Database silent" in shown.content.decode()


@pytest.mark.django_db
def test_a_missing_table_spoils_only_the_shell(rf, saturday):
    made = world.build(saturday, nothing=True)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE pipelines_pulse RENAME TO pulses_elsewhere")
    request = rf.get("/")
    request.user = made.viewer
    assert context.shell(request)["shell"].machinery is None
    assert made.viewer.groups.count() == 1  # the transaction around it still answers


@pytest.mark.parametrize(
    ("tick", "canary", "words"),
    [
        (None, None, "Not started"),
        (20, 25, "Workers listening"),
        (600, 20, "Scheduler silent"),
        (20, 600, "Workers silent"),
        (20, None, "Workers silent"),
    ],
)
@pytest.mark.django_db
def test_a_silent_part_of_the_machinery_is_named(tick, canary, words):
    for name, seconds in (("tick", tick), ("canary", canary)):
        if seconds is not None:
            Pulse.objects.create(name=name, at=world.SATURDAY - timedelta(seconds=seconds))
    assert selectors.machinery(world.SATURDAY).words == words


@pytest.mark.parametrize("name", ["400.html", "403.html", "403_csrf.html", "404.html", "500.html"])
def test_the_pages_for_broken_things_need_no_database_and_no_request(name):
    # no django_db mark: a query here would fail the test
    shown = render_to_string(name)
    assert "<h1>" in shown and 'href="/"' in shown


@pytest.mark.django_db
def test_the_theme_button_walks_through_three_and_stays(client):
    made = world.build(nothing=True)
    client.force_login(made.viewer)
    seen = []
    for _ in range(3):
        back = client.post(reverse("theme"), {"next": "/runs/?state=bad"})
        assert back.headers["Location"] == "/runs/?state=bad"
        seen.append(re.search(r'<html lang="en"(?: class="(\w+)")?>', client.get(reverse("runs")).content.decode()).group(1))
    assert seen == ["dark", "light", None]


@pytest.mark.django_db
@pytest.mark.parametrize("next_page", ["https://evil.example/", "//evil.example", "javascript:alert(1)", ""])
def test_the_theme_button_leads_nowhere_else(client, next_page):
    assert client.post(reverse("theme"), {"next": next_page}).headers["Location"] == "/"


@pytest.mark.django_db
def test_a_made_up_theme_is_not_written_into_the_page(client):
    made = world.build(nothing=True)
    client.force_login(made.viewer)
    client.cookies["theme"] = 'x" onload="alert(1)'
    assert '<html lang="en">' in client.get(reverse("runs")).content.decode()


def test_healthz_answers_without_a_database(client):
    assert client.get("/healthz").content == b"ok\n"


@pytest.mark.django_db
def test_readyz_says_yes_and_what_is_missing(client, monkeypatch):
    assert client.get("/readyz").json() == {"ok": True, "problems": []}
    monkeypatch.setattr(
        selectors.MigrationExecutor, "migration_plan", lambda self, targets: [(type("M", (), {"__str__": lambda s: "pipelines.0009"})(), False)]
    )
    behind = client.get("/readyz")
    assert behind.status_code == 503
    assert "migrate" in behind.json()["problems"][0]


@pytest.mark.django_db
def test_statusz_has_the_figures_of_the_machinery(client, saturday):
    world.build(saturday)
    told = client.get("/statusz").json()
    assert told["tick_age"] == 18.0
    assert told["workers"] == {"ops-1": 4.0, "ops-2": 6.0}
    assert (told["running"], told["failed"], told["stalled"]) == (1, 6, 0)
    assert told["queue_depth"] == 0


@pytest.mark.django_db
def test_statusz_is_for_this_machine_or_for_whoever_may_look():
    def ask(**extra):
        request = RequestFactory().get("/statusz", **extra)
        request.user = type("Anybody", (), {"has_perm": lambda self, name: False})()
        return views.statusz(request)

    assert ask(REMOTE_ADDR="127.0.0.1").status_code == 200
    assert ask(REMOTE_ADDR="::1").status_code == 200
    for stranger in ({"REMOTE_ADDR": "10.0.0.7"}, {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "10.0.0.7"}, {"REMOTE_ADDR": ""}):
        with pytest.raises(PermissionDenied):
            ask(**stranger)


def test_vendored_scripts_are_what_the_table_says():
    table = (STATIC / "vendor" / "VENDORED.md").read_text()
    listed = dict(re.findall(r"^\| (\S+) \| .*\| ([0-9a-f]{64}) \|$", table, re.M))
    assert listed
    for name in {path.name for path in (STATIC / "vendor").iterdir()} - {"VENDORED.md", "uPlot.LICENSE"}:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == listed[name]


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_template_needs_what_the_policy_forbids(path: Path):
    text = path.read_text()
    assert not re.search(r"\sstyle=", text), "a style attribute: positions are SVG attributes, looks are classes"
    assert not re.search(r"<[a-z][^>]*\son[a-z]+=|hx-on|javascript:", text), "an event handler: app.js"
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "an inline script"
    assert 'href="#"' not in text


def test_every_icon_that_a_page_names_is_in_the_sprite():
    sprite = set(re.findall(r'id="i-([\w-]+)"', (TEMPLATES / "_icons.html").read_text()))
    named = {name for path in TEMPLATES.rglob("*.html") for name in re.findall(r"""{% icon ["']([\w-]+)""", path.read_text())}
    from pipelines.selectors import faces

    looks = {face.look for face in vars(faces).values() if isinstance(face, faces.Face)} - {"due"}
    assert named | looks <= sprite


@pytest.mark.django_db
def test_there_is_one_page_to_log_in_and_the_settings_say_why_they_are_closed(client):
    made = world.build(nothing=True)
    settings_page = reverse("admin:pipelines_pipeline_changelist")
    asked = client.get(settings_page, follow=True)
    assert asked.request["PATH_INFO"] == reverse("login") and asked.context["next"] == settings_page
    client.force_login(made.viewer)
    refused = client.get(settings_page, follow=True)
    assert refused.status_code == 403 and "Settings are edited by stewards" in refused.content.decode()
    client.force_login(made.steward)
    assert client.get(settings_page).status_code == 200


@pytest.mark.django_db
def test_pages_for_when_things_break_keep_the_colours_that_were_chosen(client):
    client.force_login(world.build(nothing=True).viewer)
    client.cookies["theme"] = "dark"
    lost = client.get("/nowhere/")
    assert lost.status_code == 404 and '<html lang="en" class="dark">' in lost.content.decode()


def test_a_square_of_a_grid_shows_markup_as_letters():
    square = schedule.Square(faces.FAILED, '<img src=x onerror="alert(1)">', '/x/?a="b"')
    for made in (ops.cell(square), ops.day_cells([square], {0})):
        assert "<img" not in made and '"alert' not in made and '"b"' not in made and "&lt;img" in made
    assert "mon" in ops.day_cells([square], {0}) and "mon" not in ops.day_cells([square], {7})
