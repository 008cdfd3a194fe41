"""The pages of quality: what stands on them, what is said where there is nothing, and how often they ask the database."""

import csv
import io
import json
import re

import pytest
import time_machine
from django.urls import reverse

from perfmet.models import QualityRun, QualityScore
from perfmet.selectors import grades, quality, quality_improve, quality_table
from pipelines.models import Pipeline
from tests import world
from tests.perfmet import scored
from tests.web import asks, plain_web  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]

PAGES = ("quality", "quality-improve")


@pytest.fixture
def viewer(client, db):
    client.force_login(world.people()[0])
    with time_machine.travel(world.SATURDAY, tick=False):
        yield client


@pytest.fixture
def tables(viewer):
    """30 tables of every grade, each scored three times."""
    return scored.fill(30, 3)


def shown(client, name, status=200, **asked):
    reply = client.get(reverse(name), asked)
    assert reply.status_code == status
    return reply.content.decode()


def lines_of(client, name, **asked):
    reply = client.get(reverse(name), {"format": "csv", **asked})
    assert reply["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))


def text_of(page: str) -> str:
    """What a reader sees of it."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<main")[1]).split())


def saved(*scores: QualityScore) -> list[QualityScore]:
    return QualityScore.objects.bulk_create(scores)


# the league


def test_the_worst_stand_first_and_the_newest_score_of_a_table_counts(viewer):
    old, new = scored.run(7), scored.run()
    saved(scored.score(old, "a", score=0.9), scored.score(new, "a", score=0.5), scored.score(old, "b", score=0.2), scored.score(new, "b", score=0.7))
    page = quality.league({})
    assert [(line.package, line.score_text, line.change_text) for line in page.chosen] == [("a", "0.500", "−0.400"), ("b", "0.700", "+0.500")]
    assert [line["package"] for line in lines_of(viewer, "quality", sort="best")] == ["b", "a"]
    assert [line["package"] for line in lines_of(viewer, "quality", grade="fell")] == ["a"]


def test_every_page_opens_with_much_with_none_and_with_broken_data(viewer):
    for name in PAGES:
        assert "No dataset has been scored yet" in text_of(shown(viewer, name))
    scored.fill(60, 2)
    scored.strange(scored.run())
    for name in PAGES:
        assert "<script>alert" not in shown(viewer, name)
    for line in quality.league({}).lines:
        assert viewer.get(line.href).status_code == 200, line.href
