"""Search finds a thing by whatever a person has at hand: a name, a portal id, a number."""

import pytest
from django.urls import reverse

from opendata_ops import selectors
from tests import world
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture
def city():
    return world.build(world.SATURDAY)


def found(words: str) -> set[tuple[str, str]]:
    return {(hit.kind, hit.title) for hit in selectors.search(words)}


def test_a_name_finds_dataset_pipeline_and_provider(city):
    assert found("scooter") >= {("Dataset", "Scooter trips"), ("Pipeline", "Scooter trips, Zipwheel")}
    assert ("Provider", "Zipwheel") in found("zipwheel")


def test_a_portal_id_finds_what_is_published_as_it(city):
    assert found("7d8e-dm7r") == {("Pipeline", "Scooter trips, Zipwheel")}


@pytest.mark.parametrize("form", ["{}", "block {}", "Block {}", "#{}"])
def test_a_number_finds_the_block(city, form):
    block = city.blocks["failed"]
    assert ("Block", f"Block {block.pk:,}") in found(form.format(block.pk))


def test_a_number_as_the_pages_print_it_finds_the_run(city):
    run = city.blocks["failed"].runs.first()
    assert ("Run", f"Run {run.pk:,}") in found(f"run {run.pk:,}")


@pytest.mark.parametrize("words", ["", "   ", "zzzz", "%", "_x_", "9" * 30, "'; drop table", "\N{SUPERSCRIPT TWO}"])
def test_what_is_not_there_is_said_in_a_sentence(client, city, words):
    client.force_login(city.viewer)
    answer = client.get(reverse("search"), {"q": words})
    assert answer.status_code == 200
    assert answer.context["hits"] == []
    assert "story" in answer.content.decode()


def test_every_hit_leads_to_a_page(client, city):
    client.force_login(city.viewer)
    for hit in selectors.search("scooter") + selectors.search("zipwheel") + selectors.search(str(city.blocks["failed"].pk)):
        assert client.get(hit.href).status_code == 200, hit


def test_what_was_typed_is_shown_as_text(client, city):
    client.force_login(city.viewer)
    shown = client.get(reverse("search"), {"q": "<script>alert(1)</script>"}).content.decode()
    assert "<script>alert" not in shown


def test_search_asks_a_fixed_number_of_times(city, django_assert_num_queries):
    with django_assert_num_queries(5):
        selectors.search("31")
    with django_assert_num_queries(0):
        selectors.search("")
