"""Attributes: what is wrong with a configuration is said in words, and every value becomes what it means, or is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from pipelines.errors import SetupError
from pipelines.formats import dates
from pipelines.formats.attributes import Attribute, Cleaner, Number, Unfit, compact, decimal, fitting, parse, problems, text, whole
from tests.pipelines.formats.reading import TORONTO, attributes

# the configuration


def test_a_name_is_its_own_source_unless_it_is_told_otherwise():
    told = [{"name": "a", "type": "int"}, {"source": "b", "name": "c"}, {"source": "d", "name": "e", "type": "date", "format": "epoch"}]
    options = {"attributes": told}
    assert parse(options) == (Attribute("a", "a", "int"), Attribute("b", "c"), Attribute("d", "e", "date", "epoch"))
    assert [one.kind for one in parse(options)] == ["number", "text", "local_time"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "attributes is not a list of columns"),
        ([], "attributes is not a list of columns"),
        (["a"], "attribute 1 is not a mapping"),
        ([{"type": "int"}], "attribute 1 has no name"),
        ([{"name": "a", "type": "integer"}], "attribute 'a' has the unknown type 'integer'; did you mean 'int'?"),
        ([{"name": "a", "type": "blob"}], "known are text, int, float, date, timestamp, json"),
        ([{"name": "a", "typ": "int"}], "attribute 'a' has the unknown key 'typ'; did you mean 'type'?"),
        ([{"name": "a", "type": "date"}], "is of the type date and has no format: write how its dates look, such as %Y-%m-%d, or epoch"),
        ([{"name": "a", "type": "date", "format": "%Q-%m"}], "has the format '%Q-%m': %Q is unknown"),
        ([{"name": "a", "type": "timestamp", "format": "%H:%M"}], "has the format '%H:%M', which has no year"),
        ([{"name": "a"}, {"name": "a"}], "attribute 'a' stands 2 times"),
        ([{"name": "é" * 40}], f"PostgreSQL would call it {'é' * 31!r}"),
    ],
)
def test_what_is_wrong_with_an_attribute_is_said_in_words(told, words):
    assert words in "; ".join(problems(told))
    with pytest.raises(SetupError) as caught:
        parse({"attributes": told}, "Roads")
    assert words in caught.value.message and caught.value.message.startswith("Roads") and caught.value.code == "bad-attributes"


def test_all_that_is_wrong_is_said_at_once():
    assert len(problems([{"name": "a", "type": "x"}, {"name": "b", "type": "date"}, {"name": "c", "colour": 1}])) == 3


def test_a_name_is_cut_as_postgresql_cuts_it_and_no_letter_is_broken():
    assert fitting("a" * 70) == "a" * 63 and fitting("a" + "é" * 40) == "a" + "é" * 31 and fitting("kept") == "kept"


# numbers


WHOLE = [
    (0, "0"), ("0", "0"), (False, "0"), (True, "1"), (None, ""), ("", ""), ("  ", ""), (3, "3"), ("3.0", "3"), (3.0, "3"), (" 3 ", "3"),
    ("1,000", "1000"), ("-12,345,678", "-12345678"), ("007", "7"), ("+5", "5"), ("1e3", "1000"), ("-0", "0"), (Number("3.00"), "3"),
    (float("nan"), ""), (10**30, "1" + "0" * 30), ("12\x00", "12"),
]  # fmt: skip
DECIMAL = [
    (0, "0"), (0.0, "0.0"), ("0", "0"), (None, ""), ("", ""), ("1.50", "1.50"), (Number("1.50"), "1.50"), ("1,000.5", "1000.5"), (".5", "0.5"),
    ("5.", "5"), ("-79.3800", "-79.3800"), ("1e-5", "0.00001"), (1e-7, "0.0000001"), (3, "3"), (float("nan"), ""), ("+1.5", "1.5"), (True, "1"),
]  # fmt: skip
NO_NUMBERS = ["None", "abc", "1,00", "12,34", "1_000", "0x1F", "1 000", "NaN", "inf", "١٢", "5%", "$5", "1\n2", [1], {"a": 1}, float("inf"), "1e999"]


@pytest.mark.parametrize(("value", "made"), WHOLE)
def test_a_whole_number_is_read_however_it_is_written(value, made):
    assert whole(value) == made


@pytest.mark.parametrize(("value", "made"), DECIMAL)
def test_a_number_keeps_its_digits_and_loses_its_commas(value, made):
    assert decimal(value) == made


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_refused_and_never_guessed(value):
    for read in (whole, decimal):
        with pytest.raises(Unfit):
            read(value)


def test_a_fraction_is_no_whole_number():
    with pytest.raises(Unfit, match="is not a whole number"):
        whole("3.5")


@pytest.mark.parametrize("kind", ["int", "float"])
def test_a_column_at_once_gives_what_its_values_give_one_by_one(kind):
    table = [value for value, _ in (WHOLE if kind == "int" else DECIMAL)] + NO_NUMBERS
    cleaner = Cleaner(Attribute("a", "a", kind))
    for values in ([1, 2, 0, None], table, [value for value in table if isinstance(value, str)]):
        alone = [cleaner.column([value]) for value in values]
        together = cleaner.column(values)
        assert list(together.texts) == [one.texts[0] for one in alone]
        assert together.unfit == {place: one.unfit[0] for place, one in enumerate(alone) if one.unfit}


def test_a_line_break_in_a_cell_of_numbers_never_shifts_the_others():
    made = Cleaner(Attribute("a", "a", "int"), is_text=True).column(["1\n2", "3"])
    assert made.unfit == {0: "is not a number"} and made.texts[1] == "3"


# dates


DATES = [
    ("%Y-%m-%d", "2024-03-15", "2024-03-15T00:00:00"),
    ("%Y/%m/%d", "2024/03/15", "2024-03-15T00:00:00"),
    ("%Y/%m/%d", "2024-03-15", "2024-03-15T00:00:00"),
    ("%Y-%m-%d", "2024/03/15", "2024-03-15T00:00:00"),
    ("%Y%m%d", "20240315", "2024-03-15T00:00:00"),
    ("%Y%m%d", 20240315, "2024-03-15T00:00:00"),
    ("%Y%m%d", 20240315.0, "2024-03-15T00:00:00"),
    ("%Y%m%d%H%M%S", "20240315130203", "2024-03-15T13:02:03"),
    ("%Y-%m-%d %H:%M:%S", "2024-03-15 13:02:03", "2024-03-15T13:02:03"),
    ("%Y-%m-%dT%H:%M:%S", "2024-03-15T13:02:03", "2024-03-15T13:02:03"),
    ("%Y-%m-%dT%H:%M:%S.%fZ", "2024-03-15T13:02:03.123Z", "2024-03-15T13:02:03"),
    ("%b %d, %Y", "Mar 15, 2024", "2024-03-15T00:00:00"),
    ("%b %d, %Y", "mar 5,  2024", "2024-03-05T00:00:00"),
    ("%B %d, %Y", "September 5, 2024", "2024-09-05T00:00:00"),
    ("%d-%b-%Y", "15-MAR-2024", "2024-03-15T00:00:00"),
    ("%m-%d-%Y", "03-15-2024", "2024-03-15T00:00:00"),
    ("%m/%d/%Y", "3/5/2024", "2024-03-05T00:00:00"),
    ("%d/%m/%Y", "15/03/2024", "2024-03-15T00:00:00"),
    ("%m/%d/%Y %I:%M:%S %p", "03/15/2024 01:02:03 PM", "2024-03-15T13:02:03"),
    ("%m/%d/%Y %I:%M:%S %p", "03/15/2024 12:02:03 AM", "2024-03-15T00:02:03"),
    ("%m/%d/%Y %I:%M:%S %p", "3/15/2024 12:02:03 p.m.", "2024-03-15T12:02:03"),
    ("%d/%m/%y", "15/03/24", "2024-03-15T00:00:00"),
    ("%Y-%m-%dT%H:%M:%S%z", "2024-07-15T13:02:03+00:00", "2024-07-15T09:02:03"),
    ("%F %T", "2024-03-15 13:02:03", "2024-03-15T13:02:03"),
    # sources change between a day and a time
    ("%Y-%m-%d", "2024-03-15T13:02:03", "2024-03-15T13:02:03"),
    ("%Y-%m-%d %H:%M:%S", "2024-03-15T13:02:03.250", "2024-03-15T13:02:03"),
    ("epoch", "2024-03-15", "2024-03-15T00:00:00"),
    # a workbook's cell is a time already
    ("%m/%d/%Y", datetime(2024, 3, 15, 13, 2, 3), "2024-03-15T13:02:03"),
    ("%Y-%m-%d", date(2024, 3, 15), "2024-03-15T00:00:00"),
    ("epoch", 1710498000000, "2024-03-15T06:20:00"),
    ("epoch", "1710498000000", "2024-03-15T06:20:00"),
    ("epoch", 1710498000999.0, "2024-03-15T06:20:00"),
    ("epoch", 0, "1969-12-31T19:00:00"),
    ("epoch", -2208988800000, "1899-12-31T19:00:00"),
    ("epoch", Number("1.710498e12"), "2024-03-15T06:20:00"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "value", "made"), DATES)
def test_a_date_is_read_in_every_form_of_the_corpus(pattern, value, made):
    assert Cleaner(Attribute("a", "a", "timestamp", pattern), TORONTO).column([value, None, ""]).texts == [made, "", ""]
    assert Cleaner(Attribute("a", "a", "date", pattern), TORONTO).column([value]).texts == [made[:10]]


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("%Y-%m-%d", "2024-02-30"), ("%Y-%m-%d", "15 March"), ("%Y-%m-%d", "None"), ("%m/%d/%Y", "15/03/2024"), ("%Y-%m-%d", "0000-00-00"),
        ("%Y-%m-%d", "2024-03-15x"), ("%Y-%m-%dT%H:%M:%S", "2024-03-15T13:02:03+05:00"), ("epoch", "soon"), ("epoch", 10**20), ("epoch", True),
        ("%Y%m%d", "2024-W01-1"), ("%Y-%m-%d", ["2024-03-15"]), ("%Y%m%d", "20250230"),
    ],
)  # fmt: skip
def test_what_is_no_such_date_is_refused_with_its_form(pattern, value):
    made = Cleaner(Attribute("a", "a", "date", pattern), TORONTO).column(["2024-03-15" if pattern == "%Y-%m-%d" else None, value])
    assert list(made.unfit) == [1] and ("milliseconds since 1970" if pattern == "epoch" else pattern) in made.unfit[1]


def test_an_epoch_is_of_the_zone_that_is_told():
    for zone, made in ((UTC, "2024-03-15T10:20:00"), (TORONTO, "2024-03-15T06:20:00"), (ZoneInfo("Asia/Tokyo"), "2024-03-15T19:20:00")):
        assert Cleaner(Attribute("a", "a", "timestamp", "epoch"), zone).column([1710498000000]).texts == [made]


def test_the_same_day_in_two_writings_is_the_same_and_no_memory_grows_without_bound(monkeypatch):
    monkeypatch.setattr("pipelines.formats.attributes.MOST_KNOWN", 3)
    cleaner = Cleaner(Attribute("a", "a", "date", "%Y-%m-%d"))
    values = [f"2024-01-{day:02}" for day in range(1, 29)] * 2
    assert cleaner.column(values).texts == values and len(cleaner._known) <= 3


def test_every_pattern_that_python_understands_of_the_corpus_is_read_as_python_reads_it():
    at = datetime(2024, 3, 5, 13, 2, 3, 120_000)
    for pattern in {pattern for pattern, _, _ in DATES if pattern not in ("epoch", "%Y-%m-%dT%H:%M:%S%z", "%F %T")}:
        written = at.strftime(pattern)
        assert dates.reader_of(pattern)(written) == datetime.strptime(written, pattern), pattern


# text and JSON


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (None, ""), ("", ""), ("None", "None"), (" kept ", " kept "), (Number("1.10"), "1.10"), (10, "10"), (0, "0"), (True, "true"),
        ({"a": [Number("1.0"), None]}, '{"a":[1.0,null]}'), (datetime(2024, 3, 15, 10), "2024-03-15 10:00:00"), (time(7, 30), "07:30:00"),
        (float("nan"), ""), (3.0, "3.0"),
    ],
)  # fmt: skip
def test_text_is_what_stands_there_and_nothing_is_never_the_word_none(value, made):
    assert text(value) == made
    assert Cleaner(Attribute("a", "a")).column([value]).texts == [made]


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (None, ""), ("", ""), ({"a": Number("1.50"), "é": None}, '{"a":1.50,"é":null}'), ([], "[]"), ('{ "a": 1.0 }', '{"a":1.0}'),
        ("plain", '"plain"'), ("[note]", '"[note]"'), (0, "0"), (False, "false"), ({"a": "x\x00"}, '{"a":"x "}'),
    ],
)  # fmt: skip
def test_json_is_compact_with_its_numbers_as_they_stood(value, made):
    assert compact(value) == made


def test_json_in_a_cell_must_be_json():
    made = Cleaner(Attribute("a", "a", "json"), is_text=True).column(['{"a": [1, 2.50]}', "", "plain", "NaN", "[1,"])
    assert made.texts == ['{"a":[1,2.50]}', "", "", "null", ""] and made.unfit == {2: "is not JSON", 4: "is not JSON"}


def test_attributes_of_the_tests_are_written_short():
    assert attributes("a>b:date:%H:%M")[0] == {"source": "a", "name": "b", "type": "date", "format": "%H:%M"}
