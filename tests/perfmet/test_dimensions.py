"""Dimensions: the numbers that the original's own code gave (facts/toronto.md §2.2, §2.3), and what it broke at."""

from dataclasses import replace

import pytest

from perfmet import dimensions as dims
from perfmet.dimensions import ColumnFacts, Facts
from perfmet.words import lexicon

#: The words that the original's functions were given in place of WordNet.
KNOWS = lexicon({"id", "date", "event", "name", "ward", "year"})
NEAR = 0.001
ALL_FIELDS = {"notes": "n", "topics": ["t"], "owner_email": "a@toronto.ca", "information_url": "https://x"}


def table(*names, rows=100, constant=(), empty=(), notes="said", **more):
    columns = tuple(ColumnFacts(name, notes, rows if name in empty else 0, name in constant or name in empty) for name in names)
    return Facts("p", "r", columns=columns, rows=rows, **more)


# current: freshness


@pytest.mark.parametrize(
    ("rate", "days", "value", "code"),
    [
        ("Daily", 0, 1, ""),
        ("Daily", 1, 1, ""),
        ("Daily", 2, 0.989796, "~refresh_rate:daily~periods_behind:1.0"),
        ("Daily", 4, 0.908163, "~refresh_rate:daily~periods_behind:3.0"),
        ("Daily", 8, 0.5, "~refresh_rate:daily~periods_behind:7.0"),
        ("Weekly", 7, 1, ""),
        ("Weekly", 14, 0.96875, "~refresh_rate:weekly~periods_behind:1.0"),
        ("Weekly", 34, 0.535077, "~refresh_rate:weekly~periods_behind:3.9"),
        ("Weekly", 35, 0.5, "~refresh_rate:weekly~periods_behind:4.0"),
        ("Bi-weekly", 42, 0.875, "~refresh_rate:bi-weekly~periods_behind:2.0"),
        ("Monthly", 30, 1, ""),
        ("Monthly", 45, 0.96875, "~refresh_rate:monthly~periods_behind:0.5"),
        ("Monthly", 60, 0.875, "~refresh_rate:monthly~periods_behind:1.0"),
        ("Monthly", 75, 0.71875, "~refresh_rate:monthly~periods_behind:1.5"),
        ("Monthly", 90, 0.5, "~refresh_rate:monthly~periods_behind:2.0"),
        ("Quarterly", 182, 0.875, "~refresh_rate:quarterly~periods_behind:1.0"),
        ("Semi-annually", 365, 0.873623, "~refresh_rate:semi-annually~periods_behind:1.0"),
        ("Semi-annually", 546, 0.5, "~refresh_rate:semi-annually~periods_behind:2.0"),
        ("Annually", 365, 1, ""),
        ("Annually", 400, 0.98161, "~refresh_rate:annually~periods_behind:0.1"),
        ("Annually", 500, 0.726403, "~refresh_rate:annually~periods_behind:0.4"),
        ("Annually", 547, 0.502736, "~refresh_rate:annually~periods_behind:0.5"),
        ("Annually", 548, 0.5, "~refresh_rate:annually~periods_behind:0.5"),
        ("Annually", 731, 0.277169, "~refresh_rate:annually~periods_behind:1.0"),
        ("Annually", 912, 0.153158, "~refresh_rate:annually~periods_behind:1.5"),
        ("As available", 730, 1, ""),
        ("As available", 731, 0.777169, "~refresh_rate:as available~stale"),
        ("As available", 913, 0.652397, "~refresh_rate:as available~stale"),
        ("As available", 1095, 0.5, "~refresh_rate:as available~stale"),
        ("Will not be Refreshed", 800, 0.733116, "~refresh_rate:will not be refreshed~stale"),
        ("Real-time", 5000, 1, ""),
        ("Daily", None, 1, ""),
        ("whenever", 100, 1, ""),
        ("whenever", 800, 0.466233, ""),
    ],
)
def test_freshness_is_what_the_original_reckoned(rate, days, value, code):
    found = dims.freshness(Facts("p", "r", refresh_rate=rate, days=days))

    assert found.value == pytest.approx(value, abs=NEAR) and found.code == code
    # whatever is not whole is told in words; so is a date that nobody gave
    assert bool(found.reasons) == (bool(code) or value < 1 or days is None)


# current: metadata


@pytest.mark.parametrize(
    ("fields", "notes", "value", "code"),
    [
        (ALL_FIELDS, {}, 1, ""),
        ({**ALL_FIELDS, "owner_email": "OpenData@toronto.ca"}, {}, 0.75, "~owner_is_opendata"),
        (
            {name: ALL_FIELDS[name] for name in ("notes", "topics", "owner_email")},
            {"c0": "x", "c1": "x", "c2": "", "c3": ""},
            0.625,
            "~metadata_missing:information_url~missing_def_cols:c2,c3",
        ),
        (ALL_FIELDS, {"c0": "x", "c1": "x", "c2": "x", "c3": ""}, 0.875, "~missing_def_cols:c3"),
        (ALL_FIELDS, {"c0": "x", "c1": "x", "c2": "x", "geometry": ""}, 1, ""),
        ({}, {"c0": "", "c1": ""}, 0, "~metadata_missing:notes,topics,owner_email,information_url~all_data_def_missing"),
        # an empty value lowers the score, and has no code
        ({**ALL_FIELDS, "topics": []}, {}, 0.75, ""),
        ({**ALL_FIELDS, "topics": "[]", "notes": " "}, {}, 0.5, ""),
    ],
)
def test_metadata_is_what_the_original_reckoned(fields, notes, value, code):
    found = dims.metadata(Facts("p", "r", fields=fields, rows=1, columns=tuple(ColumnFacts(*each) for each in notes.items())))

    assert found.value == pytest.approx(value, abs=NEAR) and found.code == code
    assert bool(found.reasons) == (value < 1)


def test_of_a_file_only_the_dataset_s_own_fields_are_asked():
    found = dims.metadata(Facts("p", "r", fields={**ALL_FIELDS, "owner_email": "opendata@toronto.ca"}, store_type="filestore"))
    assert (found.value, found.code) == (0.75, "~owner_is_opendata")


# current: completeness


@pytest.mark.parametrize(("missing", "value", "code"), [
    (0, 1, ""), (3, 1, ""), (4, 0.5, "~significant_missing_data"), (6, 0.25, "~significant_missing_data"), (8, 0, "~significant_missing_data"),
])  # fmt: skip
def test_completeness_is_what_the_original_reckoned(missing, value, code):
    columns = (ColumnFacts("a", nulls=min(missing, 4)), ColumnFacts("b", nulls=max(0, missing - 4)))
    found = dims.completeness(Facts("p", "r", columns=columns, rows=4))
    assert (found.value, found.code) == (value, code)


def test_an_empty_table_misses_nothing_and_is_scored():
    assert dims.completeness(table("a", "b", rows=0)).value == 1
    usability = dims.usability(table("event_id", "ward", rows=0), KNOWS)
    assert (usability.value, usability.code) == (0.5, "~constant_cols:event_id,ward")
    assert usability.reasons[0].text == "The table has no rows, so no column tells anything."


def test_the_code_of_missing_data_goes_by_the_rounded_share():
    columns = (ColumnFacts("a", nulls=995),)
    found = dims.completeness(Facts("p", "r", columns=(*columns, ColumnFacts("b")), rows=1000))
    assert (found.value, found.code) == (1, "~significant_missing_data")


# current: usability


@pytest.mark.parametrize(
    ("facts", "value", "code"),
    [
        (table("event_id", "eventDate"), 1, ""),
        (table("event_id", "ward", "year", "xq"), 1, ""),
        (table("event_id", "ward", "zz", "xq"), 0.75, "~colnames_unclear"),
        (table("event_id", "yy", "zz", "xq"), 0.625, "~colnames_unclear"),
        (table("event_id", "ward", "year", "name", constant=["ward"]), 0.875, "~constant_cols:ward"),
        (table("event_id", "ward", "year", "name", constant=["ward"], empty=["name"]), 0.75, "~constant_cols:ward,name"),
        (table("event_id", "ward", "year", "geometry", constant=["geometry"]), 1, ""),
        (table("id_aa_bb_cc_dd"), 0.5, "~colnames_unclear"),
        (table("__", "event_id", "ward"), 1, ""),
        (table("__"), 0.5, "~colnames_unclear"),
    ],
)
def test_usability_is_what_the_original_reckoned(facts, value, code):
    found = dims.usability(facts, KNOWS)
    assert found.value == pytest.approx(value, abs=NEAR) and found.code == code


def test_half_of_six_names_is_half_whatever_floats_say():
    # 1 - 1/6 - 1/6 - 1/6 is a little more than a half, and would be forgiven
    found = dims.usability(table("event_id", "ward", "year", "xa", "xb", "xc"), KNOWS)
    assert (found.value, found.code) == (0.75, "~colnames_unclear")


# current: accessibility


@pytest.mark.parametrize(
    ("tags", "pipeline", "formats", "store", "value", "code"),
    [
        (True, True, (), "datastore", 1, ""),
        (True, False, (), "datastore", 0.75, "~no_pipeline_found"),
        (False, True, (), "datastore", 0.75, "~no_tags"),
        (False, False, (), "datastore", 0.5, "~no_pipeline_found~no_tags"),
        (True, True, ["PDF"], "filestore", 0.9, "~filestore_resource"),
        (True, False, ["PDF", "CSV"], "filestore", 0.75, "~no_pipeline_found~filestore_resource"),
        (False, False, ["PDF"], "filestore", 0.5, "~no_pipeline_found~no_tags~filestore_resource"),
        (True, True, ["CSV", "XLSX"], "filestore", 0, "~filestore_resource"),
        (True, True, [], "filestore", 0, "~filestore_resource"),
        # a text is formats with commas, not letters
        (True, True, "csv, xlsx", "filestore", 0, "~filestore_resource"),
        (True, True, "PDF,CSV", "filestore", 0.9, "~filestore_resource"),
    ],
)
def test_accessibility_is_what_the_original_reckoned(tags, pipeline, formats, store, value, code):
    facts = Facts("p", "r", has_tags=tags, has_pipeline=pipeline, formats=formats, store_type=store)

    found = dims.accessibility(facts)

    assert found.value == pytest.approx(value, abs=NEAR) and found.code == code
    assert dims.accessibility(replace(facts, refresh_rate="Real-time")).code == ""
    assert len(dims.accessibility(replace(facts, refresh_rate="Real-time")).reasons) == len(found.reasons)


def test_a_file_has_no_columns_to_be_judged():
    file = Facts("p", "r", store_type="filestore")
    for found in (dims.usability(file, KNOWS), dims.completeness(file)):
        assert (found.value, found.code) == (None, "Not Applicable")


# 0.1.0


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        (table("event_id", "event_date"), 0.75),
        (table("eventId", "eventDate"), 1),
        (table("eventId", "bdngHeight", "ward", "year", constant=["ward"]), 0.625),
        (table("event_id", "geometry", invalid_shapes=0), 0.75),
        (table("event_id", "geometry", invalid_shapes=2), 0.616667),
        (table("event_id", "geometry", invalid_shapes=10), 0.083333),
    ],
)
def test_usability_of_0_1_0_is_what_the_notebook_reckoned(facts, value):
    assert dims.usability_0_1_0(facts, KNOWS).value == pytest.approx(value, abs=NEAR)


@pytest.mark.parametrize(
    ("rate", "days", "value"),
    [
        ("Daily", 0, 0.999938), ("Daily", 1, 0.749938), ("Daily", 2, 0.499937), ("Weekly", 6, 0.999934), ("Weekly", 7, 0.749933),
        ("Weekly", 14, 0.499928), ("Annually", 364, 0.99669), ("Annually", 365, 0.746654), ("Annually", 821, 0.250342),
        ("Annually", 1095, 0.023713), ("As available", 0, 0), ("Daily", None, 0), ("Real-time", 9999, 1), ("Daily", -1, 0.999938),
    ],
)  # fmt: skip
def test_freshness_of_0_1_0_is_what_the_notebook_reckoned(rate, days, value):
    found = dims.freshness_0_1_0(Facts("p", "r", refresh_rate=rate, days=days))
    assert found.value == pytest.approx(value, abs=0.0001)


def test_metadata_of_0_1_0_takes_a_name_for_no_description():
    fields = {"collection_method": "c", "limitations": "", "topics": "t", "owner_email": "a.opendata@city.ca"}
    columns = (ColumnFacts("ward", "ward "), ColumnFacts("year", "The year."))
    found = dims.metadata_0_1_0(Facts("p", "r", fields=fields, columns=columns, rows=1))
    assert (found.value, found.code) == (0.5, "~owner_is_opendata~missing_def_cols:ward")


def test_completeness_of_0_1_0_is_the_share_that_is_there():
    columns = (ColumnFacts("a", nulls=2), ColumnFacts("b", nulls=1))
    assert dims.completeness_0_1_0(Facts("p", "r", columns=columns, rows=4)).value == pytest.approx(0.625)
    assert dims.completeness_0_1_0(table("a", rows=0)).value == 1


def test_accessibility_of_0_1_0_asks_for_a_job_alone():
    assert dims.accessibility_0_1_0(Facts("p", "r", has_pipeline=True)).value == 1
    assert dims.accessibility_0_1_0(Facts("p", "r", has_tags=True)).value == 0.5
