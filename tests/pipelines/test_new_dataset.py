"""A steward makes a dataset in the browser, from an address: what is seen is what lies there, and what is saved then runs."""

import re
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog.models import AuditEntry, Dataset
from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.arcgis import ArcGIS, toronto_layers
from opendata_ops.sandbox.files import toronto_files
from pipelines import planner
from pipelines.models import Pipeline, Provider, ScheduleBlock, State
from tests import world
from tests.pipelines.catching import work_off
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db
DELAYS = next(path for path in toronto_rows.FILES if path.endswith("delay.csv"))
CODES = next(path for path in toronto_rows.FILES if path.endswith("delay.xlsx"))


@pytest.fixture(scope="module")
def site():
    with toronto_files() as one:
        yield one


@pytest.fixture
def steward(client, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    _, _, person = world.people()
    client.force_login(person)
    return client


def fields(html: str) -> dict[str, str]:
    """What a browser would send of the page's form, untouched."""
    found = {}
    for tag in re.findall(r"<input[^>]*>", html):
        named = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if "name" in named and (named.get("type") != "checkbox" or " checked" in tag):
            found[named["name"]] = unescape(named.get("value", ""))
    for name, body in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', html, re.S):
        options = re.findall(r'<option(?: value="([^"]*)")?( selected)?>([^<]*)', body)
        value, _, text = next((one for one in options if one[1]), options[0])
        found[name] = unescape(value or ("" if 'value=""' in body and not value and "<option value" in body else text))
    for name, body in re.findall(r'<textarea name="([^"]+)"[^>]*>(.*?)</textarea>', html, re.S):
        found[name] = unescape(body.strip())
    return found


def looked(steward, address: str, **more) -> str:
    answer = steward.post(reverse("new_dataset"), {"address": address, "look": "1", **more})
    return answer.content.decode()


def test_the_columns_types_and_first_rows_of_a_file_are_shown_and_nothing_is_stored(steward, site):
    html = looked(steward, site.url + DELAYS)
    told = fields(html)
    assert {told[name] for name in told if name.startswith("source-")} >= {"Date", "Time", "Station", "Code", "Min Delay"}
    by_name = {told[f"source-{n}"]: told[f"type-{n}"] for n in range(50) if f"source-{n}" in told}
    assert (by_name["Date"], by_name["Min Delay"], by_name["Station"]) == ("date", "int", "text")
    assert "Its first rows" in html
    assert not Dataset.objects.exists() and not Provider.objects.exists()


def test_what_was_looked_at_is_saved_and_runs(steward, site):
    told = fields(looked(steward, site.url + DELAYS))
    told |= {"title": "Subway delays", "notes-0": "The day of the delay", "tags": "transit", "portal": "", "save": "1"}
    answer = steward.post(reverse("new_dataset"), told)
    made = Pipeline.objects.get()
    assert answer.status_code == 302 and answer.url == made.get_absolute_url()
    assert (made.dataset.slug, made.dataset.tags, made.provider.kind, made.resource) == ("subway-delays", "transit", "web_file", DELAYS)
    assert made.dictionary()[0].description == "The day of the delay"
    assert set(AuditEntry.objects.values_list("kind", flat=True)) == {"provider", "dataset", "pipeline"}
    planner.plan(made, timezone.now())
    [done] = work_off(ScheduleBlock.objects.values_list("pk", flat=True))
    assert done.state == State.DONE, done.message
    assert ScheduleBlock.objects.get().runs.get(stage="load").rows_out == 200


def test_a_second_table_of_a_dataset_that_is_there_becomes_another_part_of_it(steward, site):
    told = fields(looked(steward, site.url + DELAYS)) | {"title": "Subway delays", "portal": "", "save": "1", "description": "Every delay"}
    steward.post(reverse("new_dataset"), told)
    told = fields(looked(steward, site.url + CODES)) | {"title": "Subway delays", "part": "Codes", "portal": "", "save": "1"}
    answer = steward.post(reverse("new_dataset"), told)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    assert sorted(Pipeline.objects.values_list("slug", "part")) == [("subway-delays", ""), ("subway-delays-codes", "Codes")]
    assert Dataset.objects.get().description == "Every delay"
    assert Provider.objects.count() == 1


def test_a_layer_of_a_map_is_known_by_its_address(steward):
    with ArcGIS(toronto_layers()) as gis:
        told = fields(looked(steward, f"{gis.url}{toronto_rows.ROADS_PATH}/query?where=1%3D1"))
        types = {told[f"source-{n}"]: (told[f"type-{n}"], told[f"format-{n}"]) for n in range(60) if f"source-{n}" in told}
        assert types["OBJECTID"] == ("int", "") and types["LAST_UPDATED_DATE"][1] == "epoch" and "geometry" in types
        answer = steward.post(reverse("new_dataset"), told | {"title": "Roads", "portal": "", "save": "1"})
    assert answer.status_code == 302, answer.content.decode()[:3000]
    assert (Provider.objects.get().kind, Pipeline.objects.get().resource) == ("arcgis", toronto_rows.ROADS_PATH)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("budget.csv", "no address of the web"),
        ("https://ann:secret@example.gov/a.csv", "holds a name or a password"),
        ("{site}/nothing-here.csv", "404"),
    ],
)
def test_an_address_that_leads_nowhere_is_answered_with_what_to_do(steward, site, address, words):
    html = looked(steward, address.replace("{site}", site.url))
    assert words in html and "Nothing was stored" in html
    assert "secret" not in html.split("<form")[0]


def test_columns_that_can_not_be_are_refused_by_name_and_what_was_typed_stays(steward, site):
    told = fields(looked(steward, site.url + DELAYS))
    wrong = told | {"title": "Subway delays", "portal": "", "name-1": told["name-0"], "notes-3": "kept words", "save": "1"}
    answer = steward.post(reverse("new_dataset"), wrong)
    html = answer.content.decode()
    assert answer.status_code == 422 and "stands 2 times" in html and "kept words" in html
    assert not Dataset.objects.exists()


def test_only_stewards_make_datasets(client):
    viewer, operator, _ = world.people()
    for person in (viewer, operator):
        client.force_login(person)
        assert client.get(reverse("new_dataset")).status_code == 403
