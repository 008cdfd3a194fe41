"""Empty datastore resources: what is empty, what is broken, who is told, and the words of the original."""

import pytest

from opendata_ops.sandbox.wire import Reply
from pipelines.models import UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.empty_resources import CELLS, Found, told
from pipelines.upkeep.portals import Faults
from tests.pipelines.small_ckan import done, found, package, portal, refusal, resource, well  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db
KIND = "empty-resources"
#: Facts 1.1, as the original script was run: two empty tables, neither with a job.
ORIGINAL = "EMPTIES FOUND:\n```\n# \tPACKAGE  \n1.\tA Shelter\n2.\tBudget   \n```"


def test_the_message_is_the_originals_word_for_word(portal):  # noqa: F811
    portal.packages = [package("budget", resource("b", extract_job=None)), package("a-shelter", resource("s", extract_job=None))]
    portal.table("b", 0)
    portal.table("s", 0)
    run = well(KIND, columns="package, extract_job")
    assert run.notice == ORIGINAL and run.details["trouble"] is True
    assert run.message == "2 tables counted: 2 empty, 0 could not be counted."


def test_a_column_with_a_word_is_shown_and_a_missing_cell_cuts_nothing_off():
    """The original's defect: one cell without a word dropped the column of everybody, or the table."""
    empty = [Found("a", "A Shelter", "Beds", "1", ""), Found("b", "Budget", "Sums", "2", "Airflow: budget")]
    assert told(empty, [], Faults(), ["package", "extract_job", "rows"]) == (
        "EMPTIES FOUND:\n```\n# \tPACKAGE  \tEXTRACT_JOB    \tROWS\n1.\tA Shelter\t               \t0   \n2.\tBudget   \tAirflow: budget\t0   \n```"
    )
    assert set(CELLS) >= {"package", "extract_job", "rows"}


def test_a_table_counts_by_either_sign_and_a_package_without_them_is_no_error(portal):  # noqa: F811
    portal.packages = [
        package(
            "mixed",
            resource("full"),
            resource("by-flag", url_type=None),
            resource("by-word", url_type=None, datastore_active="true"),
            resource("file", url_type="upload", datastore_active=False),
            {"id": "bare", "name": "bare"},
        )
    ]
    portal.table("full", 7)
    portal.table("by-flag", 0)
    portal.table("by-word", 0)
    run = well(KIND)
    assert found(run, "resource", "finding", "rows") == [("by-flag", "empty", 0), ("by-word", "empty", 0)]
    assert run.message.startswith("3 tables counted: 2 empty")
    assert {given["resource_id"] for name, given in portal.asked if name == "datastore_search"} == {"full", "by-flag", "by-word"}


def test_a_table_that_can_not_be_counted_is_broken_and_not_empty(portal):  # noqa: F811
    portal.packages = [package("budget", resource("b")), package("shelter", resource("gone"), resource("s"))]
    portal.table("b", 0)
    portal.table("s", 12)
    run = well(KIND)
    assert found(run, "package", "resource", "finding", "rows") == [("budget", "b", "empty", 0), ("shelter", "gone", "broken", None)]
    assert "COULD NOT BE COUNTED:" in run.notice and "was not found" in run.notice
    portal.tables["b"] = refusal("Validation Error", "no", 409)
    assert "EMPTIES" not in well(KIND).notice


def test_all_pages_of_the_catalogue_are_read(portal):  # noqa: F811
    portal.packages = [package(f"p{number}", resource(f"r{number}")) for number in range(10)]
    for number in range(10):
        portal.table(f"r{number}", number % 2)
    assert len(found(well(KIND), "resource")) == 5 and portal.names().count("package_search") == 4


def test_they_are_told_by_title_whatever_the_names_are(portal):  # noqa: F811
    portal.packages = [package("z", resource("1"), title="an early one"), package("a", resource("2"), title="Budget"), package("b", resource("3"))]
    for number in "123":
        portal.table(number, 0)
    assert [title for (title,) in found(well(KIND), "title")] == ["an early one", "B", "Budget"]


def test_a_malformed_package_is_told_and_the_others_are_counted(portal):  # noqa: F811
    portal.packages = [{"id": "x", "name": "odd"}, package("budget", resource("b"))]
    portal.table("b", 0)
    run = well(KIND)
    assert found(run, "package", "finding") == [("budget", "empty"), ("odd", "not looked at")]
    assert "COULD NOT BE LOOKED AT:\nodd: " in run.notice and "1 package could not be looked at." in run.message


def test_a_healthy_portal_says_so_and_a_run_twice_finds_the_same(portal):  # noqa: F811
    portal.packages = [package("budget", resource("b"))]
    portal.table("b", 3)
    for _ in range(2):
        run = well(KIND, is_dry=True)
        assert (run.notice, run.details["trouble"], run.details["findings"]["rows"]) == ("No empties", False, [])
    assert set(portal.names()) == {"package_search", "datastore_search"}  # nothing but questions


def test_a_portal_that_is_away_ends_the_job_and_is_not_asked_for_hours(portal, monkeypatch):  # noqa: F811
    monkeypatch.setattr(portals, "MOST_IN_A_ROW", 3)
    portal.packages = [package(f"p{number}", resource(f"r{number}")) for number in range(9)]
    portal.actions["datastore_search"] = lambda given: Reply.of({"success": False, "error": {"message": "busy"}})
    run = done(KIND)
    assert run.state == UpkeepRun.State.FAILED and "busy" in run.message and portal.names().count("datastore_search") == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [({"portal": "moon"}, "no active CKAN provider 'moon'"), ({"columns": "colour"}, "the notice has no column colour")],
)
def test_what_is_set_up_wrong_is_said_before_anything_is_asked(portal, options, words):  # noqa: F811
    run = done(KIND, **options)
    assert run.state == UpkeepRun.State.FAILED and words in run.message and portal.asked == []


def test_without_a_portal_the_job_says_what_to_do():
    run = done(KIND)
    assert run.state == UpkeepRun.State.FAILED and "Add a provider of the kind CKAN first." in run.message
