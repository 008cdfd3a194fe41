"""Publishing to the real CKAN, by whole runs: rows go from a table of the portal's datastore through the warehouse to another one."""

import hashlib

import pytest

from catalog.models import Dataset, DatasetColumn
from pipelines import planner, runner, secrets
from pipelines.connectors import ckan_exchange, ckan_rows, http
from pipelines.connectors.base import Column
from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline, Provider, Run, ScheduleBlock, State, UpkeepJob
from pipelines.stages import describe
from pipelines.upkeep import jobs
from tests.ckan.portals import COLUMNS, about, connector, publish, write
from tests.ckan.real import Refused
from tests.pipelines.scene import ANN, city, drop_city

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]

#: As untidy as the columns of Toronto's files are.
FIELDS = {
    "ID": "int8",
    "Name of the place": "text",
    "% of students/ year": "float8",
    "Doors' opening": "timestamp",
    "DURATION/ Construction Timeline": "text",
    "first:second": "text",
    "l" * 63: "date",
    "geometry": "json",
}
NAMES = list(FIELDS)


def row(number: int, **changed) -> dict:
    values = (
        number, f'Çelik\n"Bros", {number}', number * 0.1, "2024-03-10T02:30:00", None if number % 3 else "", "x", "2024-02-29", {"at": [0, 1.5]},
    )  # fmt: skip
    return {**dict(zip(NAMES, values, strict=True)), **changed}


class Town:
    """A pipeline from one table of the portal to another."""

    def __init__(self, ckan, who: str = "sysadmin_key", **fields):
        self.ckan = ckan
        told = [{"id": name, "type": kind} for name, kind in FIELDS.items()]
        ckan.action("package_create", name="source", owner_org="city")
        made = ckan.action(
            "datastore_create", resource={"package_id": "source", "name": "In"}, fields=told, primary_key=["ID"], records=[row(n) for n in range(5)]
        )
        self.source = made["resource_id"]
        self.dataset = Dataset.objects.create(slug="places", title="Places", description="All places.", refresh_rate="yearly", topics=["Culture"])
        account = {"kind": "ckan", "base_url": ckan.url, "parameters": {"organization": "city"}}
        provider = Provider.objects.create(slug="in", title="In", **account)
        portal = Provider.objects.create(slug="out", title="Open data", secrets={"api_key": secrets.seal(getattr(ckan, who))}, **account)
        values = {
            "resource": self.source, "table": "places", "load_mode": "replace", "portal_mode": "replace", "portal": portal,
            "portal_resource": "places/All places", "gone_rows": "delete", "cadence": "once", "stages": ["extract", "load", "publish"], **fields,
        }  # fmt: skip
        self.pipeline = Pipeline(slug="places", title="Places", provider=provider, dataset=self.dataset, **values)
        self.pipeline.full_clean()
        self.pipeline.save()

    def go(self, **order) -> Run:
        """Run the present block; its last run."""
        placed = planner.place(planner.Order([Pipeline.objects.get(pk=self.pipeline.pk)], **order), actor=ANN, trigger="command", bell=False)
        assert placed.moved, placed.refused
        runner.work_off(placed.moved, workers=1)
        block = ScheduleBlock.objects.get(pipeline=self.pipeline)
        assert block.state == State.DONE, f"{block.stage}: {block.message} {block.next_step}"
        return Run.objects.filter(block=block).first()

    def change(self, *records) -> None:
        self.ckan.action("datastore_upsert", resource_id=self.source, records=list(records))

    @property
    def package(self) -> dict:
        return self.ckan.action("package_show", id="places")

    @property
    def target(self) -> dict:
        return self.package["resources"][0]

    def rows(self, id: str = "") -> list[dict]:
        """What a table shows the public, in the order of the ids, without CKAN's own numbers."""
        found = self.ckan.action("datastore_search", key="", resource_id=id or self.target["id"], sort="ID", limit=1_000)["records"]
        return [{name: value for name, value in record.items() if name != "_id"} for record in found]

    def numbers(self) -> list[int]:
        """CKAN's own numbers of the rows: a row that was sent anew has another."""
        return [record["_id"] for record in self.ckan.action("datastore_search", resource_id=self.target["id"], fields=["_id"])["records"]]

    def types(self, id: str) -> dict[str, str]:
        fields = self.ckan.action("datastore_search", resource_id=id, limit=0)["fields"]
        return {field["id"]: field["type"] for field in fields if field["id"] != "_id"}

    def notes(self) -> dict[str, str]:
        fields = self.ckan.action("datastore_search", resource_id=self.target["id"], limit=0)["fields"]
        return {field["id"]: field.get("info", {}).get("notes", "") for field in fields}


@pytest.fixture
def town(real_ckan, settings, tmp_path, monkeypatch, transactional_db):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.WORK_DIR = tmp_path / "work"
    settings.HEARTBEAT_SECONDS = 0.1
    monkeypatch.setattr(http, "_pause", lambda state: 0.01)
    yield lambda **fields: Town(real_ckan, **fields)
    drop_city()


def as_null(rows: list[dict]) -> list[dict]:
    """An empty text and an absent value are one empty cell on the way."""
    return [{name: None if value == "" else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("who", ["sysadmin_key", "editor_key"])
def test_rows_without_a_key_arrive_as_they_are_once_and_are_exchanged_when_one_changed(town, who):
    scene = town(who=who)
    assert scene.go().published == 5
    assert scene.rows() == as_null(scene.rows(scene.source))
    assert scene.types(scene.target["id"]) == FIELDS
    # the names went through the warehouse too
    assert city("select count(*) from information_schema.columns where table_name = 'places' and column_name = any (%s)", NAMES) == [(len(NAMES),)]
    told, ids, numbers = scene.target, (scene.package["id"], scene.target["id"]), scene.numbers()
    run = scene.go()
    assert (run.published, run.unchanged) == (0, 5) and "Nothing new to send" in run.message
    assert (scene.numbers(), scene.target["last_modified"]) == (numbers, told["last_modified"])
    scene.change(row(3, **{"Name of the place": "New name"}))
    assert scene.go().published == 5
    assert scene.rows() == as_null(scene.rows(scene.source)) and scene.rows()[3]["Name of the place"] == "New name"
    assert (scene.package["id"], scene.target["id"]) == ids
    assert scene.go(force=True).published == 5


def test_rows_with_a_key_are_upserted_and_the_deleted_ones_deleted(town):
    scene = town(key=["ID"], load_mode="upsert", portal_mode="upsert")
    assert scene.go().published == 5
    numbers = scene.numbers()
    scene.change(row(1, **{"% of students/ year": 99.5}), row(7))
    scene.ckan.action("datastore_delete", resource_id=scene.source, filters={"ID": [2]})
    run = scene.go()
    assert (run.published, run.deleted) == (2, 1)
    assert scene.rows() == as_null(scene.rows(scene.source))
    assert set(numbers) - set(scene.numbers()) == {3}


def test_what_the_portal_says_is_what_the_catalog_knows_and_only_differences_are_sent(town):
    scene = town()
    scene.go()
    package = scene.package
    assert (package["title"], package["notes"], package["refresh_rate"], package["topics"]) == ("Places", "All places.", "Annually", ["Culture"])
    assert package["is_retired"] == "false" and package["organization"]["name"] == "city" and package["last_refreshed"]
    assert (scene.target["name"], scene.target["url_type"], scene.target["datastore_active"]) == ("All places", "datastore", True)
    scene.ckan.action("package_patch", id="places", limitations="By hand.")
    Dataset.objects.update(description="Other words.", excerpt="Words.")
    scene.pipeline = Pipeline.objects.get(pk=scene.pipeline.pk)
    assert describe.push(scene.pipeline, print) == ("notes", "excerpt")
    assert (scene.package["notes"], scene.package["excerpt"], scene.package["limitations"]) == ("Other words.", "Words.", "By hand.")
    assert describe.push(scene.pipeline, print) == () and describe.push(scene.pipeline, print, is_asked=True) == ()


def test_words_that_were_edited_reach_the_portal_by_a_job_while_no_row_is_touched(town):
    scene = town()
    scene.go()
    job = UpkeepJob.objects.create(title="Descriptions", kind="descriptions", cadence="hourly")
    kind = jobs.kind_of(job)()
    assert not kind.has_work(job)
    told, numbers = scene.target, scene.numbers()
    DatasetColumn.objects.filter(name="Name of the place").update(description="What people call it: its name, 100 % of it.", label="Name")
    assert kind.has_work(job)
    dry = jobs.carry_out(jobs.start(job, actor=ANN, is_dry=True).run.pk)
    assert dry.message == "1 description would be told to the portal." and not scene.notes()["Name of the place"]
    done = jobs.carry_out(jobs.start(job, actor=ANN).run.pk)
    assert done.details["findings"]["rows"] == [["places", "", "out", "dictionary: Name of the place"]]
    assert scene.notes()["Name of the place"] == "What people call it: its name, 100 % of it."
    assert (scene.numbers(), scene.target["last_modified"]) == (numbers, told["last_modified"])
    assert not kind.has_work(job)
    # and they stay when the table is exchanged
    scene.change(row(3, **{"first:second": "y"}))
    scene.go()
    assert scene.notes()["Name of the place"] == "What people call it: its name, 100 % of it." and scene.rows()[3]["first:second"] == "y"


def test_a_refused_description_is_told_by_the_job_and_keeps_no_rows_back(town):
    scene = town()
    scene.go()
    Dataset.objects.update(tags="no/slash")
    job = UpkeepJob.objects.create(title="Descriptions", kind="descriptions", cadence="hourly")
    run = jobs.carry_out(jobs.start(job, actor=ANN).run.pk)
    assert "no/slash" in run.details["findings"]["rows"][0][3] and run.details["trouble"]
    scene.change(row(3, **{"first:second": "y"}))
    run = scene.go()
    assert run.published == 5 and run.lines.filter(text__contains="refused the description").exists()


def test_rows_that_are_never_to_be_exchanged_stay_whoever_forces_it(town):
    scene = town(options={"update": "never"})
    assert scene.go().published == 5
    numbers = scene.numbers()
    scene.change(row(3, **{"first:second": "y"}))
    run = scene.go(force=True)
    assert run.published == 0 and "are left as they are, though it was forced" in run.message
    assert scene.numbers() == numbers and scene.rows()[3]["first:second"] == "x"
    Pipeline.objects.update(options={})
    assert scene.go(force=True).published == 5 and scene.rows()[3]["first:second"] == "y"


def test_what_somebody_deleted_on_the_portal_is_made_again(town):
    scene = town()
    scene.go()
    scene.ckan.action("dataset_purge", id="places")
    scene.change(row(3, **{"first:second": "y"}))
    assert scene.go().published == 5 and len(scene.rows()) == 5


# the connector alone


def test_an_exchange_keeps_aliases_indexes_and_the_words_of_others(real_ckan, tmp_path):
    ckan = connector(real_ckan)
    publish(ckan, "shelters/Rows", write(tmp_path / "old.csv", "old", 3), 3, key=("id",))
    id = ckan._resource("shelters/Rows")["id"]
    other = {"id": "edition", "info": {"type_override": "text", "notes": "By hand."}}
    real_ckan.action("datastore_create", resource_id=id, aliases=["shelters_of_the_city"], fields=[{"id": "id"}, other, {"id": "when"}], force=True)
    publish(ckan, "shelters/Rows", write(tmp_path / "new.csv", "new", 4), 4, key=("id",))
    by_alias = real_ckan.action("datastore_search", resource_id="shelters_of_the_city")
    assert by_alias["total"] == 4 and {record["edition"] for record in by_alias["records"]} == {"new"}
    fields = {field["id"]: field for field in real_ckan.action("datastore_search", resource_id=id, limit=0)["fields"]}
    assert fields["edition"]["info"] == {"type_override": "text", "notes": "Which edition the row is of."}
    assert fields["when"]["type"] == "date" and fields["id"]["info"]["notes"] == "Names the row."

    def indexes():
        with real_ckan.sql() as cursor:
            cursor.execute("select indexname from pg_indexes where tablename = %s and indexname !~ '_pkey'", [id])
            return {name for (name,) in cursor.fetchall()}

    assert indexes() == {hashlib.sha1((id + part).encode()).hexdigest() for part in ('"_full_text"', '"id"')}
    # by their names CKAN knows them, and makes no second ones
    ckan.open_publication("shelters/Rows", COLUMNS)
    ckan.upsert("shelters/Rows", [{"id": "1", "edition": "newer", "when": "2025-01-01T00:00:00.000"}, {"id": "9", "edition": "newer", "when": None}])
    assert len(indexes()) == 2 and ckan.published_count("shelters/Rows") == 5
    assert ckan.present("shelters/Rows", [{"id": "1.0"}, {"id": "9"}, {"id": "77"}]) == {"1.0", "9"}


def test_a_table_with_triggers_of_its_own_gets_each_row_by_them(real_ckan, tmp_path):
    ckan = connector(real_ckan)
    publish(ckan, "shelters/Rows", write(tmp_path / "old.csv", "old", 3), 3)
    id = ckan._resource("shelters/Rows")["id"]
    body = "BEGIN NEW.edition := upper(NEW.edition); RETURN NEW; END;"
    real_ckan.action("datastore_function_create", name="loud", rettype="trigger", definition=body)
    real_ckan.action("datastore_create", resource_id=id, triggers=[{"function": "loud"}], force=True)
    assert "added" in publish(ckan, "shelters/Rows", write(tmp_path / "new.csv", "new", 4), 4).reply["way"]
    found = real_ckan.action("datastore_search", resource_id=id)
    assert found["total"] == 4 and {record["edition"] for record in found["records"]} == {"NEW"}


def test_what_a_ckan_does_not_know_as_a_field_is_said_beside(real_ckan):
    ckan = connector(real_ckan)
    ckan.introduce("shelters/Rows", about(budget_line="B-17", licence="https://open.toronto.ca/open-data-license/"))
    package = real_ckan.action("package_show", id="shelters")
    assert {extra["key"]: extra["value"] for extra in package["extras"]} == {
        "budget_line": "B-17", "license_url": "https://open.toronto.ca/open-data-license/",
    }  # fmt: skip
    assert ckan.introduce("shelters/Rows", about(budget_line="B-18", licence="https://open.toronto.ca/open-data-license/")) == ("budget_line",)
    package = real_ckan.action("package_show", id="shelters")
    assert {"key": "budget_line", "value": "B-18"} in package["extras"] and package["tags"][0]["name"] == "housing"


def test_a_new_type_makes_a_new_table_for_a_sysadmin_and_is_refused_to_others(real_ckan, tmp_path):
    with_text = (COLUMNS[0], COLUMNS[1], Column("when", "text"), Column("more", "number"))
    path = tmp_path / "new.csv"
    path.write_text("id,edition,when,more\n1,new,some day,1.25\n")
    for who in ("editor_key", "sysadmin_key"):
        ckan = connector(real_ckan, getattr(real_ckan, who))
        publish(ckan, f"shelters-{who[:6]}/Rows", write(tmp_path / "old.csv", "old", 3), 3)
        if who == "sysadmin_key":
            publish(ckan, f"shelters-{who[:6]}/Rows", path, 1, columns=with_text)
            assert [column.portal_type for column in ckan.describe(f"shelters-{who[:6]}/Rows").columns] == ["int8", "text", "text", "numeric"]
        else:
            with pytest.raises(SetupError, match="when is date there and text here"):
                publish(ckan, f"shelters-{who[:6]}/Rows", path, 1, columns=with_text)


def test_names_that_ckan_refuses_are_told_before_a_row_is_sent(real_ckan):
    ckan = connector(real_ckan)
    ckan.introduce("shelters/Rows", about())
    id = ckan._resource("shelters/Rows")["id"]
    for name in ("_id", 'a "b"', " a", "at :noon", "ö" * 32, "tab\tstop"):
        with pytest.raises(SetupError, match="CKAN cannot take columns of these names"):
            ckan.preflight("shelters/Rows", columns=[Column(name)], key=(), replaces=True)
        with pytest.raises(Refused, match=r"met (409|500)"):
            real_ckan.action("datastore_create", resource_id=id, fields=[{"id": name, "type": "text"}], records=[{name: "x"}], force=True)


def test_a_wrong_token_and_a_stranger_are_refused_in_ckans_own_words(real_ckan):
    assert "knows the token as edna's" in connector(real_ckan, real_ckan.editor_key).test()
    with pytest.raises(SetupError, match="does not know the token of provider open-data"):
        connector(real_ckan, "wrong-token-123").test()
    real_ckan.action("organization_create", name="police")
    with pytest.raises(SetupError, match="Access denied: User edna not authorized"):
        connector(real_ckan, real_ckan.editor_key, organization="police").introduce("arrests/Rows", about())
    with pytest.raises(DataError, match="Organization does not exist"):
        connector(real_ckan, organization="nobody").introduce("arrests/Rows", about())


def test_packages_are_all_told_page_by_page(real_ckan, monkeypatch):
    monkeypatch.setattr("pipelines.connectors.ckan.PACKAGES_A_PAGE", 2)
    for number in range(5):
        real_ckan.action("package_create", name=f"package-{number}", owner_org="city", private=number == 3)
    assert [package["name"] for package in connector(real_ckan).packages()] == [f"package-{number}" for number in range(5)]


def test_the_body_of_the_exchange_has_nothing_that_ckan_takes_for_a_parameter():
    body = ckan_exchange.function("a" * 36, "b" * 36, "token", 3, dict.fromkeys(NAMES, "text"), ("ID",), "english")
    assert not ckan_rows._PARAMETER.search(body)
