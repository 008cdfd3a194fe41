"""How a score looks: pure. What a page must never trip over, and what it must not pretend."""

import math

import pytest

from perfmet.selectors import grades
from perfmet.selectors.grades import Gain
from perfmet.selectors.mending import mend
from perfmet.selectors.quality_improve import remedy_of

TABLE, FILE = grades.weights("current", "datastore"), grades.weights("current", "filestore")
FULL = dict.fromkeys(grades.DIMENSIONS, 1.0)


def gain(text="Add tags.", by=0.1, columns=(), grade=""):
    return Gain(text, by, "metadata", list(columns), grade)


def test_the_weakest_is_the_lowest_and_of_equals_the_one_that_weighs_most():
    assert grades.weakest(grades.bars({**FULL, "usability": 0.2, "metadata": 0.5}, TABLE)).name == "usability"
    assert grades.weakest(grades.bars({**FULL, "usability": 0.5, "metadata": 0.5}, TABLE)).name == "metadata"
    assert grades.weakest(grades.bars(FULL, TABLE)) is None


def test_what_is_not_asked_of_a_file_is_never_its_weakest_though_an_older_version_stored_a_zero():
    bars = grades.bars({**FULL, "usability": 0.0, "completeness": 0.0, "accessibility": 0.9}, FILE)
    assert grades.weakest(bars).name == "accessibility"
    assert {bar.name: bar.text for bar in bars if bar.value is None} == {"usability": "–", "completeness": "–"}


def test_what_the_dimensions_bring_and_lose_adds_up_to_the_score_and_to_one():
    bars = grades.bars({"freshness": 0.5, "metadata": 0.875, "accessibility": 0.75, "completeness": 1, "usability": 0.875}, TABLE)
    assert sum(bar.part for bar in bars) == pytest.approx(0.7375)
    assert sum(bar.part + bar.lost for bar in bars) == pytest.approx(1)


def test_a_model_that_this_version_does_not_know_is_shown_without_weights():
    bars = grades.bars({**FULL, "metadata": 0.4}, grades.weights("2.0", "datastore"))
    assert (bars[1].text, bars[1].weight_text, bars[1].part_text, bars[1].lost_text) == ("0.400", "–", "–", "–")


def test_a_gain_lifts_only_into_a_better_grade():
    assert grades.lifts_to(0.55, gain(by=0.1), "Bronze") == "Silver"
    assert grades.lifts_to(0.55, gain(by=0.05), "Bronze") == "", "0.6 is Bronze still"
    assert grades.lifts_to(0.55, gain(by=0.1, grade="Gold"), "Bronze") == "Gold", "the score's own word counts"
    assert grades.lifts_to(0.9, gain(by=0.05), "Gold") == ""
    assert grades.lifts_to(None, gain(), "Bronze") == grades.lifts_to(0.5, None, "Bronze") == ""


def test_a_spark_breaks_where_a_score_is_no_number():
    assert grades.spark([0.5, math.nan, 0.6, 0.7], 4).count("M") == 2
    assert grades.spark([0.5], 20) == grades.spark([], 20) == grades.spark([math.nan, 0.5], 20) == ""


def test_numbers_are_said_with_their_sign_and_never_as_minus_zero():
    assert [grades.signed(value) for value in (0.0742, -0.012, -0.0001, None, math.nan)] == ["+0.074", "−0.012", "0.000", "–", "–"]


@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, [None], [{}], ["x", 3], {"a": None}, {"a": {"sample": 3}}, [{"gain": "x"}], [{"columns": 3}]])
def test_whatever_stands_in_the_json_of_a_score_a_page_can_be_made_of_it(junk):
    assert all(isinstance(one.text, str) for one in grades.reasons(junk))
    assert grades.gains(junk) == []
    assert all(isinstance(one.sample, list) for one in grades.evidence(junk))
    assert grades.code_of(junk, "metadata") == ""


def test_gains_stand_by_size_and_one_that_brings_nothing_is_left_out():
    told = [{"text": "a", "gain": 0.1}, {"text": "b", "gain": 0.3}, {"text": "c", "gain": 0}, {"text": "d", "gain": math.inf}]
    assert [one.text for one in grades.gains(told)] == ["b", "a"]


def test_an_empty_value_is_not_shown_as_a_missing_one():
    (failing,) = grades.evidence({"c": {"reason": "No definition.", "sample": [None, "", " ", 0, False, "A"]}})
    assert failing.sample == ["(nothing)", "(blank)", "(blank)", "0", "False", "A"]


@pytest.mark.parametrize(
    "some, name",
    [
        (["Describe 2 of 12 columns: a, b.", "Describe all 3 columns: a, b, c."], "Describe columns"),
        (["Rename 1 column in plain words: F1.", "Rename 8 columns in plain words: F1, F2 and 6 more."], "Rename columns in plain words"),
        (["Mend or drop a column that says the same in every row: x.", "Mend or drop 3 columns that say the same in every row: x, y, z."],
         "Mend or drop columns that say nothing"),
    ],
)  # fmt: skip
def test_one_remedy_for_many_tables_has_one_name(some, name):
    assert {remedy_of(gain(text, columns=["a"])) for text in some} == {name}


def test_a_remedy_without_columns_has_the_words_before_its_numbers():
    assert remedy_of(gain("Bring new rows: the newest came 41 days ago.")) == "Bring new rows"
    assert remedy_of(gain("Mend the shapes of 1,200 rows.")) == "Mend the shapes of some rows"
    assert remedy_of(gain("")) == "Something unnamed"


def test_what_this_console_does_not_keep_is_mended_on_the_portal():
    assert mend("metadata", None, "").href == ""
    assert mend("metadata", (7, "trees"), "").is_edit
    assert mend("freshness", (7, "trees"), "trees-daily").href == "/pipelines/trees-daily/"
    assert mend("completeness", (7, "trees"), "").href.endswith("/datasets/trees/#columns")
