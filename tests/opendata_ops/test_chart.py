"""Count by two columns: both axes from the data, empty pairs as 0, the exact matrix of the city's pets; and what a broken warehouse says."""

import csv
import io

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from catalog.models import AuditEntry, Dataset, DatasetColumn
from opendata_ops import chart
from opendata_ops.sandbox import rows as practice
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import warehouse
from pipelines.errors import TransientError
from pipelines.models import Run, State
from tests import world
from tests.pipelines.scene import SOURCE, stage_scene  # noqa: F401
from tests.web import plain_web  # noqa: F401

#: §2.7 of the facts: Cat, Dog, Goat, Pig.
PETS = {
    "2003": (1, 0, 0, 0), "2006": (1, 0, 0, 0), "2008": (0, 2, 0, 0), "2011": (0, 1, 0, 0), "2014": (1, 2, 0, 0), "2015": (36, 66, 0, 0),
    "2016": (60, 139, 0, 0), "2017": (3037, 4858, 9, 0), "2018": (8416, 16959, 22, 3), "2019": (5277, 12855, 7, 2),
}  # fmt: skip
SPECIES = ("Cat", "Dog", "Goat", "Pig")


def numbers(found):
    return {line.label: tuple(cell.rows for cell in line.cells) for line in found.lines}


# the matrix


def test_both_axes_come_from_the_data_and_pairs_that_never_were_are_zero():
    found = chart.matrix([("Dog", "2018", 5), ("Cat", "2019", 2), ("Goat", "2003", 1)])
    assert found.heads == ["2003", "2018", "2019"]
    assert numbers(found) == {"Cat": (0, 0, 2), "Dog": (0, 5, 0), "Goat": (1, 0, 0)}
    assert (found.totals, found.total) == ([1, 5, 2], 8) and len(list(found.pairs())) == 9


def test_numbers_stand_by_size_words_by_the_alphabet_and_what_is_empty_last():
    found = chart.matrix([("10", "x", 1), ("9", "x", 1), (None, "x", 7), ("zebra", "x", 1), ("Ant", "x", 1), ("-1.5", "x", 1), ("", "x", 1)])
    assert [line.label for line in found.lines] == ["-1.5", "9", "10", "Ant", "zebra", "(empty)"]
    assert found.lines[-1].total == 8


def test_of_too_many_values_the_most_frequent_are_shown_and_no_row_is_lost():
    pairs = [(f"r{n:03}", f"c{n % 60:02}", 1 + n % 7) for n in range(300)]
    found = chart.matrix(pairs)
    assert (len(found.lines), len(found.heads), found.all_rows, found.all_columns) == (41, 41, 300, 60)
    assert found.lines[-1].label == found.heads[-1] == "others"
    assert found.total == sum(number for *_, number in pairs) == sum(found.totals) == sum(line.total for line in found.lines)
    assert min(line.total for line in found.lines[:-1]) >= 6, "the rarest stand among the others"


def test_a_cell_of_many_thousands_leaves_the_others_their_shade():
    found = chart.matrix([("a", "x", 16_959), ("b", "x", 36), ("c", "x", 1), ("c", "y", 0)])
    shades = {line.label: [cell.shade for cell in line.cells] for line in found.lines}
    assert shades == {"a": [5, 0], "b": [2, 0], "c": [1, 0]}


def test_nothing_makes_an_empty_matrix():
    assert chart.matrix([]) == chart.Matrix()


# in the warehouse


@pytest.mark.django_db(transaction=True)
def test_the_pets_of_the_source_make_the_exact_matrix_on_the_page(stage_scene, client):  # noqa: F811
    pets = practice.seattle_pets()
    scene = stage_scene(
        SandboxTable(SOURCE, "Pets", practice.PET_COLUMNS, pets),
        key=[],
        load_mode="replace",
        page_size=50_000,
        stages=["extract", "load"],
        portal=None,
    )
    assert scene.go().state == State.DONE, scene.block.message
    client.force_login(world.people()[2])
    asked = {"rows": "species", "columns": "license_issue_date"}
    page = client.get(reverse("dataset", args=[scene.dataset.slug]), asked).content.decode()
    assert "51,754 rows" in page and ">16,959</td>" in page and 'class="num h5"' in page and "style=" not in page.split("<main")[1]

    reply = client.get(reverse("dataset_chart", args=[scene.dataset.slug]), {**asked, "shape": "long"})
    pairs = list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))
    assert len(pairs) == 40
    got = {(next(iter(pair.values())), list(pair.values())[1]): int(pair["rows"]) for pair in pairs}
    assert got == {(name, year): number for year, four in PETS.items() for name, number in zip(SPECIES, four, strict=True)}

    reply = client.get(reverse("dataset_chart", args=[scene.dataset.slug]), {"rows": "license_issue_date", "columns": "species"})
    [head, *lines] = csv.reader(io.StringIO(b"".join(reply.streaming_content).decode()))
    assert head[1:] == [*SPECIES, "all"] and lines[-1] == ["all", "16829", "34882", "38", "5", "51754"]
    assert {year: tuple(map(int, cells)) for year, *cells, _ in lines[:-1]} == PETS


# the page


@pytest.fixture
def pets(db, settings):
    """The pet licences of the small city, with their dictionary; the warehouse answers what `answers` says."""
    city = world.build(world.SATURDAY)
    one = Dataset.objects.get(slug="pet-licences")
    DatasetColumn.objects.bulk_create(
        [DatasetColumn(dataset=one, name=name, type=kind) for name, kind in (("species", "text"), ("issued", "local_time"), ("zip", "text"))]
    )
    return city


@pytest.fixture
def answers(monkeypatch):
    """What the warehouse says, a list of pairs or an error; and how often it was asked."""
    told = {"pairs": [("Cat", "2018", 3), ("Dog", "2019", 4)], "asked": 0}

    def count_by_two(dsn, table, rows, columns, *, limit):
        told["asked"] += 1
        if isinstance(told["pairs"], Exception):
            raise told["pairs"]
        return told["pairs"]

    chart.cache.clear()
    monkeypatch.setattr(warehouse.postgres, "count_by_two", count_by_two)
    yield told
    chart.cache.clear()


def shown(client, user, **asked):
    client.force_login(user)
    reply = client.get(reverse("dataset", args=["pet-licences"]), asked)
    assert reply.status_code == 200
    return reply.content.decode()


def test_nothing_is_counted_before_somebody_chooses(client, pets, answers):
    assert "Choose a column for the rows" in shown(client, pets.viewer) and answers["asked"] == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rows": "species", "columns": "species"}, "Choose two different columns."),
        ({"rows": "species", "columns": "<b>"}, "There is no column &lt;b&gt; in the dictionary."),
        ({"rows": "species"}, "Choose a column for the rows"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_in_words(client, pets, answers, asked, words):
    assert words in shown(client, pets.viewer, **asked) and answers["asked"] == 0
    assert client.get(reverse("dataset_chart", args=["pet-licences"]), asked).status_code == 404


def test_a_warehouse_that_does_not_answer_costs_the_chart_and_not_the_page(client, pets, answers):
    answers["pairs"] = TransientError("The warehouse does not answer: no route")
    page = shown(client, pets.viewer, rows="species", columns="issued")
    assert "could not count it: The warehouse does not answer" in page and "What happened" in page


def test_the_same_question_is_answered_from_memory_until_the_next_load(client, pets, answers):
    for _ in range(3):
        assert "7 rows" in shown(client, pets.viewer, rows="species", columns="issued")
    assert answers["asked"] == 1
    block = pets.pipelines["pets"].blocks.filter(state=State.DONE).first()
    Run.objects.create(
        block=block, stage="load", state="done", attempt=1, fence=99, trigger="schedule", asked_by="x", holder="h", finished_at=world.SATURDAY
    )
    shown(client, pets.viewer, rows="species", columns="issued")
    assert answers["asked"] == 2


def test_a_steward_saves_the_chart_for_everyone_and_nobody_else_may(client, pets, answers):
    address, chosen = reverse("save_chart", args=["pet-licences"]), {"rows": "species", "columns": "issued"}
    assert address not in shown(client, pets.viewer, **chosen)
    assert client.post(address, chosen).status_code == 403
    assert address in shown(client, pets.steward, **chosen)
    assert client.post(address, chosen).status_code == 302 and client.get(address).status_code == 405
    one = Dataset.objects.get(slug="pet-licences")
    assert (one.chart_rows, one.chart_columns) == ("species", "issued")
    entry = AuditEntry.objects.first()
    assert (entry.verb, entry.kind, entry.target, entry.details["changed"]["chart_rows"]) == ("edit", "dataset", "pet-licences", ["", "species"])
    page = shown(client, pets.viewer)
    assert "7 rows" in page and "issued, year" in page
    assert address not in shown(client, pets.steward), "what everyone sees already need not be saved"


def test_what_is_no_pair_of_columns_is_not_saved(client, pets):
    client.force_login(pets.steward)
    for chosen in ({"rows": "species"}, {"rows": "species", "columns": "species"}, {"rows": "species", "columns": "nothing"}):
        client.post(reverse("save_chart", args=["pet-licences"]), chosen)
    assert Dataset.objects.get(slug="pet-licences").chart_rows == ""


def test_the_page_asks_one_question_more_for_a_chart(client, pets, answers):
    client.force_login(pets.viewer)
    address = reverse("dataset", args=["pet-licences"])
    with CaptureQueriesContext(connection) as without:
        client.get(address)
    with CaptureQueriesContext(connection) as with_chart:
        client.get(address, {"rows": "species", "columns": "issued"})
    assert len(with_chart) == len(without) + 1
