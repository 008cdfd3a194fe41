"""Quality: whose turn it is, what is known of each table, what is kept, published and told, by a command and by the schedule."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.conf import settings as conf

from catalog.audit import Actor
from catalog.models import AuditEntry, RefreshRate
from perfmet import quality, score_tables, subjects
from perfmet.models import QualityRun, QualityScore
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Stage, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from tests import world
from tests.perfmet.cities import TUESDAY, WEDNESDAY, described, dropped, feeding, good, loaded, ran
from tests.pipelines.commanding import command
from tests.pipelines.small_ckan import SmallCkan, package, portal, refusal, resource

__all__ = ["portal"]
pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def tables():
    """What a test loads into the warehouse is gone after it."""
    yield
    dropped(conf.WAREHOUSES["default"], *Pipeline.objects.values_list("table", flat=True))


def scored(now=TUESDAY, **more):
    return quality.score(now=now, **more)


def one(made):
    [score] = made.scores
    return score


# whose turn it is


@pytest.mark.parametrize(("now", "force", "scope"), [
    (TUESDAY, False, "all"), (WEDNESDAY, False, "daily"), (WEDNESDAY, True, "all"),
    # Tuesday in Greenwich, and still Monday in the city
    (datetime(2026, 11, 24, 3, tzinfo=UTC), False, "daily"),
])  # fmt: skip
def test_all_is_scored_on_the_city_s_tuesday_or_when_forced(now, force, scope, settings):
    settings.TIME_ZONE = "America/Chicago"
    assert quality.scope_of([], now, force=force) == scope


def test_a_named_dataset_is_scored_on_any_day():
    assert quality.scope_of(["a"], WEDNESDAY, force=False) == "one"


def test_on_other_days_only_what_promises_to_be_daily_is_scored():
    good("each-day")
    good("each-week", refresh_rate="weekly")
    assert {score.package for score in scored(WEDNESDAY).scores} == {"each-day"}
    assert {score.package for score in scored(TUESDAY).scores} == {"each-day", "each-week"}


def test_only_what_is_published_public_and_alive_is_scored():
    good("here")
    good("old", is_retired=True)
    good("secret", access="internal")
    good("metadata-catalog")
    unpublished = good("unpublished")
    Pipeline.objects.filter(pk=unpublished.pk).update(stages=["extract", "load"])
    assert [score.package for score in scored().scores] == ["here"]


@pytest.mark.parametrize(("name", "words"), [("nowhere", "no dataset 'nowhere'"), ("old", "old is retired"), ("unfed", "No pipeline brings unfed")])
def test_a_name_that_can_not_be_scored_is_refused(name, words):
    good("old", is_retired=True)
    world.dataset("unfed", "Unfed")
    with pytest.raises(SetupError, match=words):
        scored(names=[name])
    assert QualityRun.objects.get().state == "failed"


# what is known of a table


def test_a_dataset_in_which_nothing_is_amiss_is_gold_without_a_reason():
    good()

    score = one(scored())

    assert (score.score, score.grade, score.reasons, score.gains, score.evidence) == (1, "Gold", [], [], {})
    assert (score.package, score.resource, score.store_type, score.rows, score.columns) == ("street-trees", "stre-0001", "datastore", 3, 2)
    assert score.pipeline.slug == score.dataset.slug == "street-trees" and score.codes == dict.fromkeys(score.codes, "")


def test_what_a_steward_left_empty_is_missing_and_told():
    good(information_url="", topics=[])

    score = one(scored())

    assert score.metadata == 0.75 and score.codes["metadata"] == "~metadata_missing:topics,information_url"
    assert [reason["code"] for reason in score.reasons] == ["~metadata_missing:topics,information_url"]
    assert score.gains[0] == {"text": "Write the topics.", "gain": 0.0438, "dimension": "metadata", "columns": [], "grade": "Gold"}


def test_a_table_without_rows_is_scored_and_so_is_one_that_was_never_loaded():
    good("no-rows", rows=0)
    never = feeding(described("never", "tree_id", "ward"))
    found = {score.package: score for score in scored().scores}
    assert (found["no-rows"].rows, found["no-rows"].codes["usability"]) == (0, "~constant_cols:tree_id,ward")
    assert (found["never"].rows, found["never"].columns, found["never"].pipeline) == (0, 2, never)


def test_a_column_that_stays_inside_is_not_judged():
    pipeline = feeding(described("trees", "tree_id", "owner", notes="Said."))
    loaded(conf.WAREHOUSES["default"], pipeline.table, {"tree_id": "number", "owner": "text"}, [(1, "NN"), (2, "NN")])
    assert one(scored()).codes["usability"] == "~constant_cols:owner"
    pipeline.dataset.columns.filter(name="owner").update(is_published=False)
    again = one(scored(TUESDAY + DAY, force=True))
    assert (again.columns, again.codes["usability"], again.evidence) == (1, "", {})


def test_a_released_table_is_judged_by_its_public_columns_and_shows_no_hidden_value():
    pipeline = feeding(described("trips", "trip_id", "minutes", notes="Said."), key=["trip_id"], release=[
        {"column": "ID", "from": "trip_id", "rule": "as_is"},
        {"column": "rough", "from": "minutes", "rule": "round_minutes", "minutes": 15, "type": "local_time"},
        {"column": "source", "from": [], "rule": "constant", "value": "city", "type": "text"},
    ])  # fmt: skip
    loaded(conf.WAREHOUSES["default"], pipeline.table, {"trip_id": "text", "minutes": "local_time"}, [("a", "2026-01-01 10:01:00"), ("b", None)])

    score = one(scored())

    assert score.columns == 3 and score.codes["usability"] == "~constant_cols:rough,source"
    assert score.evidence["rough"] == {"reason": "It says the same in every row.", "sample": []}


def test_a_broken_release_is_told_of_its_table_alone():
    broken = good("broken")
    Pipeline.objects.filter(pk=broken.pk).update(private_columns=["ward"])
    good("well")

    made = scored()

    assert [score.package for score in made.scores] == ["well"] and made.run.state == "done"
    [failed] = made.failed
    assert failed["name"] == "broken / brok-0001" and "ward would be published" in failed["why"]
    assert made.run.details["failed"] == [failed] and "broken" in made.run.message and ":exclamation: broken" in made.notice


def test_a_fault_of_the_program_stops_no_other_table(monkeypatch):
    good("one")
    good("two")
    real = subjects._of_table

    def breaks(pipeline, known, model):
        if pipeline.slug == "one":
            raise ZeroDivisionError("a name without words")
        return real(pipeline, known, model)

    monkeypatch.setattr(subjects, "_of_table", breaks)
    made = scored()
    assert [score.package for score in made.scores] == ["two"] and "ZeroDivisionError" in made.failed[0]["why"]


def test_where_nothing_could_be_scored_the_run_has_failed(monkeypatch):
    pipeline = good()
    Pipeline.objects.filter(pk=pipeline.pk).update(private_columns=["ward"])
    made = scored()
    assert made.run.state == "failed" and not QualityScore.objects.exists()


def test_failing_columns_are_shown_with_what_stands_in_them():
    pipeline = feeding(described("trees", "xq", "ward", "kind"))
    loaded(conf.WAREHOUSES["default"], pipeline.table, {"xq": "text", "ward": "text", "kind": "text"}, [("7", "", None), ("7", "NA", None)])

    score = one(scored())

    assert score.evidence["xq"] == {"reason": "It is not described. It says the same in every row.", "sample": ["7"]}
    assert score.evidence["ward"]["reason"].startswith("It is not described. 2 of 2 cells are empty.")
    assert score.evidence["ward"]["sample"] == ["", "NA"]


def test_pipelines_that_fill_one_table_are_one_table_and_parts_are_several():
    dataset = described("trips", "id", notes="Said.")
    for slug in ("lark", "zip"):
        feeding(dataset, slug, table="trips", portal_resource="trip-0001")
    parts = described("covid", "id", notes="Said.")
    for part in ("Cases", "Deaths"):
        feeding(parts, f"covid-{part.lower()}", part=part, portal_resource="")
    for table in ("trips", "covid_cases", "covid_deaths"):
        loaded(conf.WAREHOUSES["default"], table, {"id": "text"}, [("a",), ("b",)])

    found = [(score.package, score.resource) for score in scored().scores]

    assert found == [("covid", "Cases"), ("covid", "Deaths"), ("trips", "trip-0001")]


def test_two_tables_of_one_name_are_told_apart():
    dataset = described("trips", "id", notes="Said.")
    for slug in ("lark", "zip"):
        feeding(dataset, slug, portal_resource="trip-0001")
    assert [score.resource for score in scored().scores] == ["trip-0001", "zip"]


def test_two_long_names_that_begin_alike_are_two():
    taken = set()
    names = [quality._named_once(subjects.Subject("p", "r" * 300 + end, "", "datastore", None), taken).resource for end in "abc"]
    assert len(set(names)) == 3 and max(map(len, names)) <= 200


def test_documents_are_scored_as_files_with_what_the_model_asks_of_files():
    dataset = described("plans", description="Plans.", topics=["x"], information_url="u", tags="a", category="Document", refresh_rate="daily")
    ran(feeding(dataset, format="pdf", stages=["extract", "publish"]), Stage.PUBLISH, TUESDAY, published=1)

    score = one(scored())

    assert (score.store_type, score.usability, score.completeness, score.rows) == ("filestore", None, None, None)
    assert score.score == pytest.approx(0.41 + 0.41 + 0.18 * 0.9) and score.codes["accessibility"] == "~filestore_resource"
    assert scored(version="0.1.0").left_out == ["plans / plan-0001"]


# how fresh it is


def test_rows_are_as_fresh_as_their_last_change_and_no_fresher_than_their_source():
    pipeline = good()
    [block] = pipeline.blocks.all()
    assert subjects.refreshed([pipeline])[pipeline.pk] == TUESDAY - DAY
    # an hour later it ran again, and nothing had changed
    ran(pipeline, Stage.PUBLISH, TUESDAY)
    assert subjects.refreshed([pipeline])[pipeline.pk] == TUESDAY - DAY
    ran(pipeline, Stage.EXTRACT, TUESDAY, details={"changed_at": "2026-10-01T00:00:00+00:00"})
    assert subjects.refreshed([pipeline])[pipeline.pk] == datetime(2026, 10, 1, tzinfo=UTC)
    ran(pipeline, Stage.EXTRACT, TUESDAY, details={"changed_at": "2027-10-01T00:00:00+00:00"})
    assert subjects.refreshed([pipeline])[pipeline.pk] == TUESDAY - DAY


def test_a_late_dataset_says_so():
    good()
    score = one(scored(TUESDAY + 7 * DAY))
    assert score.codes["freshness"] == "~refresh_rate:daily~periods_behind:7.0" and score.freshness == 0.5
    assert score.gains[0]["text"] == "Bring new rows: the newest came 8 days ago."


@pytest.mark.parametrize(("text", "moment"), [
    ("2026-11-20T10:00:00.123456", datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)), ("2026-11-20 10:00:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
    ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)), ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)), ("soon", None),
    (None, None), ("", None),
])  # fmt: skip
def test_a_moment_is_read_as_portals_write_it(text, moment):
    assert subjects._moment(text) == moment


def test_every_rate_of_ours_has_words_of_the_formulas():
    assert set(subjects.RATES) == set(RefreshRate)


# what is kept


def test_history_is_added_to_and_the_newest_is_the_score():
    good()
    first, second = one(scored()), one(scored(TUESDAY + 8 * DAY, force=True))
    assert QualityScore.objects.count() == 2 and quality.newest() == [second] != [first]
    assert QualityRun.objects.count() == 2


def test_two_runs_of_one_second_are_recorded_in_two():
    good()
    assert one(scored()).recorded_at != one(scored()).recorded_at


def test_a_dry_run_keeps_nothing():
    good()
    assert one(scored(is_dry=True)).score == 1
    assert not QualityRun.objects.exists() and not QualityScore.objects.exists()


def test_a_run_that_was_lost_is_closed_by_the_next():
    lost = QualityRun.objects.create(version="current", scope="all", started_at=TUESDAY - DAY)
    young = QualityRun.objects.create(version="current", scope="all", started_at=TUESDAY - timedelta(hours=1))
    scored()
    lost.refresh_from_db()
    young.refresh_from_db()
    assert (lost.state, young.state) == ("failed", "running")


def test_a_model_or_portal_that_is_not_there_is_refused():
    with pytest.raises(SetupError, match="no quality model 'x'"):
        scored(version="x")
    with pytest.raises(SetupError, match="no portal 'x'"):
        scored(place="x")


def test_0_1_0_sets_the_tables_of_a_run_against_each_other():
    good("best")
    good("worst", description="", topics=[], limitations="", refresh_rate="irregular")
    good("middle", limitations="")
    found = {score.package: score for score in scored(version="0.1.0").scores}
    assert (found["best"].score_norm, found["best"].grade, found["worst"].score_norm, found["worst"].grade_norm) == (1, "Gold", 0, "Bronze")
    assert 0 < found["middle"].score_norm < 1


# as tables


def test_the_table_of_a_run_has_the_original_s_seventeen_columns_and_numbers_for_numbers():
    good()
    run = scored().run
    stream = io.StringIO()

    assert score_tables.write_csv(run, stream) == 1

    [row] = csv.DictReader(io.StringIO(stream.getvalue()))
    assert list(row) == [
        "package", "resource", "usability", "usability_code", "metadata", "metadata_code", "freshness", "freshness_code", "completeness",
        "completeness_code", "accessibility", "accessibility_code", "store_type", "division", "score", "grade", "recorded_at",
    ]  # fmt: skip
    assert (row["score"], row["recorded_at"], row["division"]) == ("1.0", "2026-11-24T18:00:00Z", "Transportation")
    kinds = {column.name: column.portal_type for column in score_tables.WHOLE.columns}
    assert kinds["score"] == "float" and kinds["recorded_at"] == "timestamp" and all(column.description for column in score_tables.WHOLE.columns)


def test_a_file_has_what_the_original_keeps_where_nothing_is_asked():
    feeding(described("plans", category="Document"), stages=["extract", "publish"])
    [row] = score_tables.table_of(scored().run).rows(QualityRun.objects.get())
    assert (row["usability"], row["usability_code"], row["completeness_code"]) == (0, "Not Applicable", "Not Applicable")


def test_the_scorecard_of_0_1_0_has_a_row_a_package():
    parts = described("covid", "id", notes="Said.")
    for part in ("Cases", "Deaths"):
        feeding(parts, f"covid-{part.lower()}", part=part, portal_resource="")
    good("trees")
    run = scored(version="0.1.0").run
    rows = list(score_tables.table_of(run).rows(run))
    assert [row["package"] for row in rows] == ["covid", "trees"]
    assert list(rows[0]) == [
        "package", "usability", "metadata", "freshness", "completeness", "accessibility", "score", "score_norm", "grade", "grade_norm", "recorded_at",
        "version",
    ]  # fmt: skip


def test_of_a_dataset_that_is_not_public_not_even_the_name_leaves():
    good("secret", access="internal")
    run = scored(names=["secret"]).run
    assert run.scores.count() == 1 and list(score_tables.WHOLE.rows(run)) == []


# on a CKAN portal


class ScoresPortal:
    """The table of a CKAN that scores are published to: rows are added and removed as CKAN does it."""

    def __init__(self, portal: SmallCkan):
        self.portal, self.rows, self.files, self.package = portal, [], [], None
        self.fields, self.fail_at = None, 0
        for name in ("package_show", "package_create", "package_patch", "resource_create", "resource_patch", "resource_show", "datastore_create",
                     "datastore_search", "datastore_upsert", "datastore_delete"):  # fmt: skip
            portal.actions[name] = getattr(self, name)

    def package_show(self, given):
        return self.package or refusal("Not Found Error", "Not found", 404)

    def package_create(self, given):
        self.package = {"id": "p1", "state": "active", **given, "resources": []}
        return self.package

    def package_patch(self, given):
        self.package |= given
        return self.package

    def resource_create(self, given):
        made = {"id": f"00000000-0000-0000-0000-{len(self.package['resources']):012}", "created": "2026-11-24T00:00:00", **given}
        self.package["resources"].append(made)
        return made

    def resource_show(self, given):
        return self.package["resources"][0]

    def resource_patch(self, given):
        self.package["resources"][0] |= given
        return self.package["resources"][0]

    def datastore_create(self, given):
        held = {field["id"]: field for field in self.fields or ()}
        self.fields = [held.get(field["id"], field) for field in given["fields"]]
        return given

    def datastore_search(self, given):
        if self.fields is None:
            return refusal("Not Found Error", "Not found", 404)
        wanted = (given.get("filters") or {}).get("recorded_at")
        found = [row for row in self.rows if wanted in (None, row["recorded_at"])]
        return {"total": len(found), "records": [], "fields": [{"id": "_id", "type": "int"}, *self.fields]}

    def datastore_upsert(self, given):
        if self.fail_at:
            self.rows += given["records"][: self.fail_at]
            self.fail_at = 0
            return refusal("Integrity Error", "the portal broke off", 409)
        self.rows += given["records"]
        return {}

    def datastore_delete(self, given):
        self.rows = [row for row in self.rows if row["recorded_at"] != given["filters"]["recorded_at"]]
        return {}


def test_scores_are_added_to_the_portal_and_twice_is_harmless(portal):
    good()
    there = ScoresPortal(portal)
    first = scored().run
    provider = score_tables.portal_for(first)

    assert score_tables.publish(first, provider) == 1
    assert score_tables.publish(first, provider) == 1
    second = scored(WEDNESDAY).run
    assert score_tables.publish(second, provider) == 1

    # what is there already stays: readers see no hole
    assert "datastore_delete" not in portal.names()
    assert there.package["name"] == "catalogue-quality-scores"
    assert there.package["resources"][0]["name"] == "quality-scores-explanation-codes-and-scores"
    assert [row["recorded_at"] for row in there.rows] == ["2026-11-24T18:00:00Z", "2026-11-25T18:00:00Z"]
    assert list(there.rows[0]) == [column.name for column in score_tables.WHOLE.columns] and there.rows[0]["score"] == 1.0
    assert {field["id"]: field["type"] for field in there.fields}["score"] in ("float", "float8")
    first.refresh_from_db()
    assert first.published_at


def test_what_a_publication_that_broke_off_had_added_is_not_added_twice(portal):
    good("one")
    good("two")
    there = ScoresPortal(portal)
    run = scored().run
    there.fail_at = 1
    with pytest.raises(Exception, match="broke off"):
        score_tables.publish(run, score_tables.portal_for(run))
    assert len(there.rows) == 1
    run.refresh_from_db()
    assert run.published_at is None

    score_tables.publish(run, score_tables.portal_for(run))

    assert sorted(row["package"] for row in there.rows) == ["one", "two"]


def test_a_portal_that_is_not_there_or_not_named_is_told(portal):
    run = scored().run
    with pytest.raises(SetupError, match="no CKAN portal 'nowhere'"):
        score_tables.portal_for(run, "nowhere")
    world.provider("second", "Second", kind="ckan")
    with pytest.raises(SetupError, match="not said to which CKAN portal"):
        score_tables.portal_for(run)


# scoring a CKAN portal


RATED = {"title": "Trees", "notes": "All.", "topics": "Environment", "owner_email": "a@b.ca", "information_url": "u", "refresh_rate": "Daily",
         "last_refreshed": "2026-11-24T10:00:00", "num_tags": 1, "tags": [{"name": "a"}], "owner_division": "Parks"}  # fmt: skip
FIELDS = [{"id": "tree_id", "type": "int", "info": {"notes": "The number."}}, {"id": "ward", "type": "text"}]


def paged(portal, id, rows):
    def search(given):
        if given["resource_id"] != id:
            return refusal("Not Found Error", "Not found", 404)
        start = given.get("offset", 0)
        records = rows[start : start + given["limit"]]
        return {"total": len(rows), "fields": [{"id": "_id", "type": "int"}, *FIELDS], "records": records}

    portal.actions["datastore_search"] = search
    portal.actions["resource_show"] = lambda given: resource(given["id"])
    portal.actions["package_show"] = lambda given: next(one for one in portal.packages if one["name"] == given["id"])


TREES = "11111111-1111-1111-1111-111111111111"


def test_any_package_of_a_ckan_portal_is_scored_without_a_pipeline(portal):
    portal.packages = [
        package("trees", resource(TREES, "Trees"), resource("f1", "Map", datastore_active=False), **RATED),
        package("old", resource("o1"), **{**RATED, "is_retired": "true"}),
        package("metadata-catalog", resource("m1"), **RATED),
        package("plans", resource("d1", "Plan", datastore_active=False), **{**RATED, "dataset_category": "Document", "formats": "PDF"}),
        package("broken", resource("22222222-2222-2222-2222-222222222222", "Gone"), **RATED),
    ]
    paged(portal, TREES, [{"_id": 1, "tree_id": 1, "ward": "NA"}, {"_id": 2, "tree_id": 2, "ward": "W1"}])

    made = scored(place="open")

    trees, plans = made.scores
    assert (trees.package, trees.resource, trees.rows, trees.columns, trees.division) == ("trees", "Trees", 2, 2, "Parks")
    assert trees.codes == {
        "metadata": "~missing_def_cols:ward", "freshness": "", "accessibility": "~no_pipeline_found", "completeness": "",
        "usability": "~constant_cols:ward",
    }  # fmt: skip
    assert trees.evidence["ward"]["sample"] == ["NA", "W1"]
    assert (plans.store_type, plans.accessibility) == ("filestore", 0.75)
    assert [one["name"] for one in made.failed] == ["broken / Gone"]


def test_a_pipeline_counts_for_the_resource_of_its_own_package_alone(portal):
    from pipelines.models import Provider

    other = "33333333-3333-3333-3333-333333333333"
    portal.packages = [package("trees", resource(TREES, "Data"), **RATED), package("shrubs", resource(other, "Data"), **RATED)]
    feeding(described("trees"), portal=Provider.objects.get(slug="open"), portal_resource="trees/DATA")
    paged(portal, TREES, [])
    found = {subject.package: subject.pipeline for subject in subjects.of_place("open", [], TUESDAY)}
    assert found["trees"].slug == "trees" and found["shrubs"] is None


def test_one_package_of_a_portal_is_asked_for_alone(portal):
    portal.packages = [package("trees", resource(TREES, "Trees"), **RATED), package("shrubs", **RATED)]
    paged(portal, TREES, [{"_id": 1, "tree_id": 1, "ward": "a"}])
    made = scored(place="open", names=["trees"])
    assert one(made).package == "trees" and "package_search" not in portal.names()


def test_0_1_0_asks_the_resource_who_feeds_it(portal):
    portal.packages = [package("trees", resource(TREES, "Trees", extract_job="Airflow"), **RATED)]
    paged(portal, TREES, [{"_id": 1, "tree_id": 1, "ward": "a"}])
    assert one(scored(place="open", version="0.1.0")).accessibility == 1
    assert one(scored(place="open")).accessibility == 0.75


def test_extras_of_a_package_are_its_fields():
    told = {"name": "trees", "notes": "x", "tags": [], "resources": [{"last_modified": None, "created": "2026-11-20T00:00:00", "format": "CSV"}]}
    facts = subjects._of_package(told, TUESDAY)
    assert (facts.days, facts.has_tags, facts.fields) == (4, False, {"notes": "x"})


# a portal that describes its resources one by one


@pytest.mark.django_db(transaction=True)
def test_any_dataset_of_a_socrata_portal_is_scored(settings):
    from opendata_ops.sandbox.soda import Portal
    from tests.pipelines import scene

    server = Portal(scene.table(45)).start()
    try:
        settings.OUTBOUND_ALLOW = [server.url.removeprefix("http://")]
        world.provider("soda", "Soda", base_url=server.url)
        made = scored(place="soda", names=[scene.SOURCE, "zzzz-9999"])
    finally:
        server.stop()
    score = one(made)
    assert (score.package, score.resource, score.rows, score.columns) == (scene.SOURCE, "Source rows", 45, 6)
    assert score.completeness == 1 and score.codes["accessibility"].startswith("~no_pipeline_found")
    assert [failed["name"] for failed in made.failed] == ["zzzz-9999 / zzzz-9999"]


# the command


def test_the_command_scores_lists_and_explains():
    good(information_url="")
    with time_machine.travel(TUESDAY, tick=False):
        told = command("quality", "score", "--all", "--json")
    assert told.code == 0 and told.json["scores"][0]["package"] == "street-trees" and told.json["run"]["scope"] == "all"
    assert AuditEntry.objects.filter(verb="score", kind="quality").count() == 1
    assert command("quality", "list").out.startswith("0.956  Gold    street-trees / stre-0001")
    shown = command("quality", "show", "street-trees").out
    assert "- The dataset does not say: the address of a page that tells more. ~metadata_missing:information_url" in shown
    assert "+ 0.044: Give the address of a page that tells more." in shown
    assert command("quality", "show", "street-trees", "--json").json["scores"][0]["gains"][0]["dimension"] == "metadata"
    assert "Did you mean street-trees?" in command("quality", "show", "stret-trees").err


def test_the_command_tries_without_keeping_and_refuses_to_publish_that():
    good()
    told = command("quality", "score", "street-trees", "--dry-run")
    assert told.code == 0 and "Nothing was kept." in told.out and not QualityRun.objects.exists()
    assert command("quality", "score", "--dry-run", "--publish").code == 2


def test_the_command_says_when_there_is_nothing():
    assert command("quality", "list").code == 3
    assert command("quality", "score", "--all").code == 3
    assert command("quality", "show", "x").code == 2
    assert command("quality", "csv", "77").code == 2


def test_the_command_ends_with_1_where_a_table_could_not_be_scored():
    pipeline = good()
    Pipeline.objects.filter(pk=pipeline.pk).update(private_columns=["ward"])
    told = command("quality", "score", "--all")
    assert told.code == 1 and "ward would be published" in told.err


def test_the_command_publishes_and_prints_csv(portal):
    good()
    there = ScoresPortal(portal)
    assert "1 row published." in command("quality", "score", "--all", "--publish", "open").out
    assert command("quality", "publish", "--json").json["published"] == 1 and len(there.rows) == 1
    assert command("quality", "csv").out.startswith("package,resource,usability,")
    assert AuditEntry.objects.filter(verb="publish", kind="quality").count() == 2


# the schedule


def upkeep(*, is_dry=False, **options) -> UpkeepRun:
    job = UpkeepJob.objects.create(title="Scores", kind="quality", options=options)
    jobs.check(job)
    answer = jobs.start(job, actor=Actor("ann"), is_dry=is_dry)
    return jobs.carry_out(answer.run.pk, pause=lambda seconds: None)


def test_the_upkeep_job_scores_publishes_and_tells(portal):
    good()
    there = ScoresPortal(portal)
    run = upkeep(force="yes", publish="yes")
    assert run.state == "done" and run.message.endswith("1 rows were published on Portal open."), run.message
    assert run.notice == ":done_green: Data quality explanation codes generated for 1 packages, 1 resources"
    [[package, resource, *_]] = run.details["findings"]["rows"]
    assert (package, resource) == ("street-trees", "stre-0001")
    assert QualityRun.objects.get().asked_by == "ann" and len(there.rows) == 1


def test_the_upkeep_job_only_looks_when_it_is_told_to(portal):
    good()
    there = ScoresPortal(portal)
    run = upkeep(is_dry=True, force="yes", publish="yes")
    assert run.state == "done" and not QualityRun.objects.exists() and not there.rows and run.details["findings"]["rows"]


def test_the_upkeep_job_has_failed_where_nothing_could_be_scored():
    pipeline = good()
    Pipeline.objects.filter(pk=pipeline.pk).update(private_columns=["ward"])
    run = upkeep(force="yes")
    assert run.state == "failed" and "ward would be published" in run.message
