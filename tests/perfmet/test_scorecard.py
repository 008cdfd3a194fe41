"""Scorecard: weights, grades and norms of facts/toronto.md §2, and gains that are what a second scoring finds."""

import json
from dataclasses import replace

import pytest

from perfmet import scorecard
from perfmet.dimensions import ColumnFacts, Dimension, Facts
from perfmet.scorecard import CURRENT, V0_1_0, Model
from perfmet.words import lexicon
from pipelines.errors import SetupError

KNOWS = lexicon({"id", "date", "event", "name", "ward", "year"})
NEAR = 0.001


def given(model: Model, **values) -> Model:
    """The model, with these dimensions whatever the facts are."""
    return replace(model, reckon={name: (lambda facts, knows, name=name: Dimension(name, values[name])) for name in model.reckon})


@pytest.mark.parametrize(
    ("metadata", "freshness", "accessibility", "completeness", "usability", "score", "grade"),
    [
        (1, 1, 1, 1, 1, 1.0, "Gold"),
        (0.875, 0.5, 0.75, 1, 0.875, 0.7375, "Silver"),
        (0.25, 0, 0.5, 0.375, 0.5, 0.225, "Bronze"),
        (1, 0, 1, 1, 0, 0.6, "Bronze"),
        (1, 1, 0, 1, 0, 0.8, "Silver"),
    ],
)
def test_a_table_s_score_and_grade_are_the_original_s(metadata, freshness, accessibility, completeness, usability, score, grade):
    model = given(CURRENT, metadata=metadata, freshness=freshness, accessibility=accessibility, completeness=completeness, usability=usability)
    found = model.score(Facts("p", "r"), KNOWS)
    assert found.score == pytest.approx(score, abs=NEAR) and found.grade == grade


@pytest.mark.parametrize(("metadata", "freshness", "accessibility", "score", "grade"), [(1, 1, 0.9, 0.982, "Gold"), (0.25, 1, 0, 0.5125, "Bronze")])
def test_a_file_s_score_and_grade_are_the_original_s(metadata, freshness, accessibility, score, grade):
    model = given(CURRENT, metadata=metadata, freshness=freshness, accessibility=accessibility, completeness=None, usability=None)
    found = model.score(Facts("p", "r", store_type="filestore"), KNOWS)
    assert found.score == pytest.approx(score, abs=NEAR) and found.grade == grade


@pytest.mark.parametrize(
    ("score", "grade"),
    [
        (-0.2, "Bronze"), (0, "Bronze"), (0.6, "Bronze"), (0.35 + 0.15 + 0.1, "Bronze"), (0.601, "Silver"), (0.35 + 0.35 + 0.1, "Silver"),
        (0.1 + 0.7, "Silver"), (0.1 * 3 + 0.5 + 1e-12, "Silver"), (0.80001, "Gold"), (1, "Gold"), (1.0000001, "Gold"),
    ],
)  # fmt: skip
def test_bins_are_closed_on_the_right_whatever_floats_say(score, grade):
    assert scorecard.grade(score) == grade


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("sr", (0.378549, 0.246057, 0.176656, 0.123028, 0.075710)),
        ("rs", (0.333333, 0.266667, 0.2, 0.133333, 0.066667)),
        ("rr", (0.437956, 0.218978, 0.145985, 0.109489, 0.087591)),
        ("re", (0.226420, 0.216538, 0.204430, 0.188507, 0.164105)),
    ],
)
def test_ranks_weigh_what_the_notebook_gives_them(method, weights):
    assert scorecard.ranked_weights(5, method) == pytest.approx(weights, abs=0.000001)


def test_an_unknown_way_to_weigh_is_refused():
    with pytest.raises(ValueError, match="'xx'"):
        scorecard.ranked_weights(5, "xx")


def test_a_run_of_0_1_0_is_normed_and_graded_by_package():
    values = {"p1": [(1,) * 5, (0.5,) * 5], "p2": [(0.8, 0.5, 0.9, 0.6, 0.5)], "p3": [(0.2, 0, 0.1, 0.9, 0.5)], "p4": [(0.9, 0.75, 1, 0.9, 1)]}
    scores = [
        (package, given(V0_1_0, **dict(zip(V0_1_0.weights, each, strict=True))).score(Facts(package, "r"), KNOWS).score)
        for package, listed in values.items()
        for each in listed
    ]

    found = scorecard.norms(scores)

    assert [score for _, score in scores] == pytest.approx([1, 0.5, 0.69653, 0.241956, 0.888328], abs=0.00001)
    assert [one.norm for one in found] == pytest.approx([1, 0.340408, 0.599667, 0, 0.852684], abs=0.00001)
    assert [(round(one.package_norm, 2), one.grade) for one in found] == [
        (0.67, "Silver"), (0.67, "Silver"), (0.60, "Bronze"), (0, "Bronze"), (0.85, "Gold"),
    ]  # fmt: skip


@pytest.mark.parametrize("scores", [[("p", 0.7)], [("p", 0.7), ("q", 0.7)]])
def test_scores_that_are_all_the_same_are_normed_to_nothing(scores):
    assert {(one.norm, one.grade) for one in scorecard.norms(scores)} == {(0.0, "Bronze")}


def test_a_run_without_scores_has_no_norms():
    assert scorecard.norms([]) == []


def test_a_model_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(SetupError) as caught:
        scorecard.model_called("2.0")
    assert "current, 0.1.0" in caught.value.next_step


def test_the_models_are_described_as_json():
    told = json.loads(json.dumps(scorecard.described()))
    assert told["0.1.0"]["dimensions"][0] == {"name": "usability", "rank": 1, "weights": pytest.approx(0.378549, abs=0.000001)}
    assert told["current"]["bins"] == {"Bronze": 0.6, "Silver": 0.8, "Gold": 1.0}


# gains


def worst() -> Facts:
    columns = tuple(
        ColumnFacts(name, "", nulls, is_constant) for name, nulls, is_constant in [("xq1", 10, True), ("xq2", 9, False), ("ward", 0, True)]
    )
    return Facts("p", "r", {"owner_email": "opendata@toronto.ca"}, "Weekly", 30, 10, columns)


@pytest.mark.parametrize("model", [CURRENT, V0_1_0])
def test_gains_are_what_the_score_would_rise_by_the_largest_first(model):
    scored = model.score(worst(), KNOWS)

    gains = model.gains(scored, KNOWS)

    assert [gain.gain for gain in gains] == sorted((gain.gain for gain in gains), reverse=True)
    assert all(gain.gain > 0 for gain in gains)
    assert {gain.dimension for gain in gains} == {"metadata", "freshness", "accessibility", "completeness", "usability"}


def test_each_remedy_of_the_current_model_is_worth_what_its_weight_says():
    gains = {gain.text: gain for gain in CURRENT.gains(CURRENT.score(worst(), KNOWS), KNOWS)}

    worth = {text: gain.gain for text, gain in gains.items()}
    assert worth == {
        "Describe all 3 columns: xq1, xq2, ward.": pytest.approx(0.35 / 2),
        "Write the description.": pytest.approx(0.35 / 8),
        "Write the topics.": pytest.approx(0.35 / 8),
        "Name a steward with an address of their own.": pytest.approx(0.35 / 8),
        "Give the address of a page that tells more.": pytest.approx(0.35 / 8),
        "Bring new rows: the newest came 30 days ago.": pytest.approx(0.35 * (1 - (1 + 1 - (23 / 7 / 4) ** 2) / 2)),
        "Add tags: the words that people search for.": pytest.approx(0.15 / 4),
        "Let a pipeline bring its rows.": pytest.approx(0.15 / 4),
        "Rename 2 columns in plain words: xq1, xq2.": pytest.approx(0.05 * (1 - 1 / 3) / 2),
        "Mend or drop 2 columns that say the same in every row: xq1, ward.": pytest.approx(0.05 * 2 / 3 / 2),
        "Fill the empty cells of xq1: 63% of all cells are empty.": pytest.approx(0.10 * 19 / 30 + 0.05 / 3 / 2),
    }
    assert gains["Rename 2 columns in plain words: xq1, xq2."].columns == ("xq1", "xq2")


def test_what_is_whole_has_nothing_to_gain():
    fields = dict.fromkeys((*CURRENT.fields, *V0_1_0.fields), "said") | {"owner_email": "a@city.ca"}
    columns = (ColumnFacts("eventId", "The event."), ColumnFacts("eventDate", "Its day."))
    best = Facts("p", "r", fields, "Daily", 0, 10, columns, has_tags=True, has_pipeline=True)
    for model in (CURRENT, V0_1_0):
        assert model.gains(model.score(best, KNOWS), KNOWS) == []


def test_a_gain_names_the_grade_that_it_would_bring():
    fields = {"notes": "n", "topics": "t", "owner_email": "a@city.ca", "information_url": "u"}
    silver = Facts("p", "r", fields, "Daily", 0, 10, (ColumnFacts("event_id"),), has_tags=True)
    [best, *_] = CURRENT.gains(CURRENT.score(silver, KNOWS), KNOWS)
    assert (best.text, best.grade, best.told()["columns"]) == ("Describe all 1 column: event_id.", "Gold", ["event_id"])


def test_an_empty_table_is_to_be_filled_not_mended():
    empty = replace(worst(), rows=0)
    texts = [gain.text for gain in CURRENT.gains(CURRENT.score(empty, KNOWS), KNOWS)]
    assert "Fill the table: it has no rows." in texts and not any(text.startswith(("Mend", "Fill the empty")) for text in texts)


def test_tables_in_files_are_to_become_tables():
    file = Facts("p", "r", refresh_rate="Daily", days=0, formats="CSV", store_type="filestore", has_tags=True)
    [first, *_] = CURRENT.gains(CURRENT.score(file, KNOWS), KNOWS)
    assert first.text == "Publish its files as a table (this much at best)."


def test_0_1_0_scores_no_files():
    with pytest.raises(ValueError, match="does not score files"):
        V0_1_0.score(Facts("p", "r", store_type="filestore"), KNOWS)
