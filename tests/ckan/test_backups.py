"""Backups of tables of a real CKAN: what comes back is what was there, to the last empty text; and the refresh from a staged file."""

from datetime import date

import pytest

from catalog.audit import Actor
from catalog.models import AuditEntry, CatalogEntry, Dataset
from pipelines import secrets
from pipelines.connectors.ckan import Ckan
from pipelines.errors import SetupError, TransientError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import backups, jobs
from pipelines.upkeep.staged_refresh import RefreshFromStagedFile
from tests import world
from tests.pipelines.commanding import command

pytestmark = [pytest.mark.django_db, pytest.mark.needs("redis")]

NOW = world.SATURDAY
FIELDS = [
    {"id": "Name of the thing", "type": "text", "info": {"label": "Name", "notes": "What people call it"}},
    {"id": "name of the thing", "type": "text"},
    {"id": "count", "type": "int", "info": {"notes": "How many"}},
    {"id": "share", "type": "float"},
    {"id": "exact", "type": "numeric"},
    {"id": "day", "type": "date"},
    {"id": "moment", "type": "timestamp"},
    {"id": "shape", "type": "json", "info": {"notes": "GeoJSON"}},
    {"id": "is_open", "type": "bool"},
]
ROWS = [
    {"Name of the thing": "Zoë \"Z\",\n\t'x'", "name of the thing": "", "count": 0, "share": 0.1, "exact": "12.50", "day": "2024-03-15",
     "moment": "2024-03-15T13:02:03", "shape": {"type": "Point", "coordinates": [-79.4, 43.7]}, "is_open": True},
    {"Name of the thing": None, "name of the thing": "None", "count": None, "share": 3.0, "exact": None, "day": None, "moment": None,
     "shape": None, "is_open": False},
    {"Name of the thing": "", "name of the thing": None, "count": -5, "share": None, "exact": "0", "day": "1999-12-31",
     "moment": "1999-12-31T00:00:00", "shape": [], "is_open": None},
]  # fmt: skip


@pytest.fixture
def portal(real_ckan, settings, tmp_path):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.LAKE_URL = str(tmp_path / "lake")
    settings.WORK_DIR = str(tmp_path / "work")
    one = world.provider("ckan", "Open data", kind="ckan", base_url=real_ckan.url)
    one.secrets = {"api_key": secrets.seal(real_ckan.sysadmin_key)}
    one.save()
    return one


def made(real_ckan, portal, package: str, rows=ROWS, fields=FIELDS, key=()):
    """A pipeline whose table holds these rows on the portal already."""
    shown = real_ckan.action("package_create", name=package, title=package.title(), owner_org="city")
    resource = real_ckan.action(
        "resource_create", package_id=shown["id"], name="Things", format="CSV", url="_datastore_only_resource", url_type="datastore"
    )
    real_ckan.action("datastore_create", resource_id=resource["id"], fields=fields, records=rows, force=True, primary_key=list(key))
    one = world.pipeline(package, package.title(), portal, world.dataset(package, package), NOW, portal=portal)
    one.portal_resource, one.key, one.load_mode = f"{package}/Things", list(key), "upsert" if key else "replace"
    one.save()
    return one, resource["id"]


def held(real_ckan, resource_id: str):
    """(fields without CKAN's own, rows without their number) as anyone may ask for them."""
    told = real_ckan.action("datastore_search", resource_id=resource_id, limit=32_000, sort="_id")
    fields = [{name: one[name] for name in ("id", "type", "info") if one.get(name)} for one in told["fields"] if one["id"] != "_id"]
    return fields, [{name: value for name, value in row.items() if name != "_id"} for row in told["records"]]


def test_a_backup_that_was_wiped_comes_back_with_equal_rows_types_and_notes(real_ckan, portal):
    one, resource_id = made(real_ckan, portal, "backed-up")
    before = held(real_ckan, resource_id)
    holding = backups.of_pipeline(one)
    first = backups.back_up(holding)
    assert (first.rows, first.columns, first.is_new) == (3, 9, True)
    assert not backups.back_up(holding).is_new and holding.entries().count() == 1
    real_ckan.action("datastore_delete", resource_id=resource_id, filters={}, force=True)
    real_ckan.action("datastore_upsert", resource_id=resource_id, records=[{"count": 7}], method="insert", force=True)
    assert backups.restore(holding, backups.chosen(holding, first.sha256[:10]), actor=Actor("ann"), reason="it was wiped") == 3
    assert held(real_ckan, resource_id) == before
    # what was there meanwhile can be brought back, too
    assert [entry.rows for entry in holding.entries()] == [1, 3]
    assert AuditEntry.objects.get(verb="restore").reason == "it was wiped"
    again = backups.back_up(holding)
    assert (again.sha256, again.is_new) == (first.sha256, False)


def test_a_note_that_changed_is_another_backup(real_ckan, portal):
    one, resource_id = made(real_ckan, portal, "noted")
    holding = backups.of_pipeline(one)
    first = backups.back_up(holding)
    fields = [{**FIELDS[0], "info": {"notes": "Another word"}}, *FIELDS[1:]]
    real_ckan.action("datastore_create", resource_id=resource_id, fields=fields, force=True)
    second = backups.back_up(holding)
    assert second.is_new and second.sha256 != first.sha256
    backups.restore(holding, first, actor=Actor("ann"))
    assert held(real_ckan, resource_id)[0][0]["info"]["notes"] == "What people call it"


def test_a_key_still_tells_rows_apart_after_a_table_was_restored(real_ckan, portal):
    fields = [{"id": "number", "type": "int"}, {"id": "name", "type": "text"}]
    one, resource_id = made(real_ckan, portal, "keyed", [{"number": 1, "name": "a"}, {"number": 2, "name": "b"}], fields, key=("number",))
    holding = backups.of_pipeline(one)
    backups.restore(holding, backups.back_up(holding), actor=Actor("ann"))
    real_ckan.action("datastore_upsert", resource_id=resource_id, records=[{"number": 2, "name": "c"}], method="upsert", force=True)
    assert [row["name"] for row in held(real_ckan, resource_id)[1]] in (["a", "c"], ["c", "a"])


def test_a_table_beyond_what_ckan_gives_at_once_is_saved_whole(real_ckan, portal, monkeypatch):
    rows = [{"number": number} for number in range(33_000)]
    one, _ = made(real_ckan, portal, "long", rows, [{"id": "number", "type": "int"}])
    monkeypatch.setattr(backups, "PAGE", 100_000)  # CKAN gives 32,000 of them
    saved = backups.back_up(backups.of_pipeline(one))
    assert saved.rows == 33_000


def test_a_table_that_changes_while_it_is_read_is_not_backed_up(real_ckan, portal, monkeypatch):
    one, resource_id = made(real_ckan, portal, "moving")
    monkeypatch.setattr(backups, "PAGE", 2)
    asked = Ckan.action

    def and_one_more(self, name, /, **params):
        if name == "datastore_search" and params.get("offset") == 2:
            real_ckan.action("datastore_upsert", resource_id=resource_id, records=[{"count": 7}], method="insert", force=True)
        return asked(self, name, **params)

    monkeypatch.setattr(Ckan, "action", and_one_more)
    with pytest.raises(TransientError, match="changed while it was read"):
        backups.back_up(backups.of_pipeline(one))
    assert not CatalogEntry.objects.filter(source=one.slug).exists()


def test_the_command_lists_makes_and_restores(real_ckan, portal):
    one, resource_id = made(real_ckan, portal, "commanded")
    before = held(real_ckan, resource_id)
    assert command("backups", "list", one.slug).code == 3
    assert command("backups", "make", one.slug).code == 0
    real_ckan.action("datastore_delete", resource_id=resource_id, filters={}, force=True)
    assert "nobody was there to say yes" in command("backups", "restore", one.slug).err
    assert command("backups", "restore", one.slug, "--dry-run").code == 0
    assert held(real_ckan, resource_id)[1] == []
    assert command("backups", "restore", one.slug, "--yes", "--reason", "wiped").code == 0
    assert held(real_ckan, resource_id) == before
    assert "there are:" in command("backups", "restore", one.slug, "--backup", "ffff", "--yes").err


def test_the_job_keeps_so_many_and_one_table_that_fails_stops_no_other(real_ckan, portal):
    good, resource_id = made(real_ckan, portal, "kept")
    bad, _ = made(real_ckan, portal, "broken")
    bad.portal_resource = "broken/Nothing of this name"
    bad.save()
    job = UpkeepJob.objects.create(kind="backups", title="Backups", options={"keep": 1})
    for number in range(2):
        real_ckan.action("datastore_upsert", resource_id=resource_id, records=[{"count": number}], method="insert", force=True)
        run = done(job)
    assert run.state == UpkeepRun.State.FAILED and "Nothing of this name" in run.message
    assert [row[3].partition(":")[0] for row in run.details["findings"]["rows"]] == ["failed", "saved"]
    assert backups.of_pipeline(good).entries().count() == 1


def done(job: UpkeepJob, **how) -> UpkeepRun:
    return jobs.carry_out(jobs.start(job, actor=Actor("ann"), **how).run.pk)


# the refresh from a staged file (facts/toronto.md §1.2)

CASES = [
    {"id": "Assigned_ID", "type": "int"},
    {"id": "Age", "type": "text"},
    {"id": "Episode Date", "type": "date"},
    {"id": "Weight", "type": "float"},
]


@pytest.fixture
def staged(real_ckan, portal, tmp_path):
    def lay(package: str, text: str):
        made(real_ckan, portal, package, [{"Assigned_ID": 9, "Age": "old", "Episode Date": "2020-01-01", "Weight": 1.5}], CASES)
        file = tmp_path / f"{package}.csv"
        file.write_text(text, encoding="utf-8")
        options = {"portal": portal.slug, "package": package, "file": str(file), "dates": "Episode Date", "sort": "Assigned_ID"}
        return UpkeepJob.objects.create(kind="staged-refresh", title=package, options=options), file

    return lay


HEADER = "Assigned_ID,Age,Episode Date,Weight\n"


def rows_of(real_ckan, package: str):
    [resource] = real_ckan.action("package_show", id=package)["resources"]
    return held(real_ckan, resource["id"])[1], resource


def test_a_staged_file_becomes_what_is_shown_and_is_removed(real_ckan, staged):
    job, file = staged("covid", HEADER + "2,20 to 29 Years,01/23/2020,\n10,,2020-02-21,0\n1,50 to 59 Years,January 22 2020,2.5\n")
    run = done(job)
    assert (run.state, run.message) == (UpkeepRun.State.DONE, "Covid refreshed: 3 records, 1 before.")
    assert run.notice == "Covid refreshed: from 1 to 3 records"
    rows, resource = rows_of(real_ckan, "covid")
    assert [(row["Assigned_ID"], row["Age"], row["Episode Date"][:10], row["Weight"]) for row in rows] == [
        (1, "50 to 59 Years", "2020-01-22", 2.5), (2, "20 to 29 Years", "2020-01-23", None), (10, None, "2020-02-21", 0.0)
    ]  # fmt: skip
    assert not file.exists() and resource["last_modified"][:10] >= date.today().isoformat()
    assert CatalogEntry.objects.filter(layer="backup", rows=1).count() == 1
    # the same content once more is known, and only its file goes
    file.write_text(HEADER + "1,50 to 59 Years,2020-01-22,2.5\n2,20 to 29 Years,2020-01-23,\n10,,2020-02-21,0.0\n")
    assert "data is not new, UID of backup files" in done(job).message
    assert not file.exists()


@pytest.mark.parametrize(
    ("package", "text", "words"),
    [
        ("no-columns", "Assigned_ID,Age\n1,x\n", "'Episode Date' is missing"),
        ("no-number", HEADER + "one,x,2020-01-01,\n", "'one' of Assigned_ID is no int"),
        ("no-date", HEADER + "1,x,yesterday-ish,\n", "of Episode Date is no date"),
        ("no-rows", HEADER, "has no rows"),
    ],
)
def test_a_staged_file_that_is_wrong_changes_nothing_and_stays(real_ckan, staged, package, text, words):
    job, file = staged(package, text)
    run = done(job)
    assert run.state == UpkeepRun.State.FAILED and words in run.message
    assert [row["Age"] for row in rows_of(real_ckan, package)[0]] == ["old"] and file.exists()


def test_where_fewer_rows_arrive_the_backup_is_put_back(real_ckan, staged, monkeypatch):
    job, file = staged("short", HEADER + "1,x,2020-01-01,\n2,y,2020-01-01,\n")
    exchange = Ckan.exchange

    def loses_one(self, resource, fields, batches, *, rows, key=()):
        kept = [batch[:-1] if rows == 2 else batch for batch in batches()]
        return exchange(self, resource, fields, lambda: kept, rows=sum(map(len, kept)), key=key)

    monkeypatch.setattr(Ckan, "exchange", loses_one)
    run = done(job)
    assert run.state == UpkeepRun.State.FAILED and "what was there before is restored" in run.message
    assert [row["Age"] for row in rows_of(real_ckan, "short")[0]] == ["old"] and file.exists()


def test_a_dry_run_changes_nothing(real_ckan, staged):
    job, file = staged("dry", HEADER + "1,x,2020-01-01,\n")
    run = done(job, is_dry=True)
    assert run.message == "Dry: 1 records would take the place of 1." and file.exists()
    assert not CatalogEntry.objects.filter(source="staged-dry").exists()
    job.options["package"] = "dry-alone"
    job.save()
    real_ckan.action("package_create", name="dry-alone", title="Alone", owner_org="city")
    real_ckan.action("datastore_create", resource={"package_id": "dry-alone", "name": "T"}, fields=CASES, records=[], force=True)
    assert done(job, is_dry=True).message == "Alone: 1 records would take the place of 0."
    assert not Dataset.objects.filter(slug="dry-alone").exists(), "a look makes nothing"
    assert not RefreshFromStagedFile().has_work(UpkeepJob(kind="staged-refresh", options={})), "no file is named"
    assert [row["Age"] for row in rows_of(real_ckan, "dry")[0]] == ["old"]


def test_a_package_with_two_tables_is_refused(real_ckan, staged):
    job, _ = staged("two-tables", HEADER + "1,x,2020-01-01,\n")
    real_ckan.action("resource_create", package_id="two-tables", name="More", url="_datastore_only_resource", url_type="datastore")
    assert "has 2 tables" in done(job).message


def test_what_is_no_table_of_a_ckan_has_no_backups():
    with pytest.raises(SetupError, match="publishes to no table of a CKAN"):
        backups.of_pipeline(world.pipeline("plain", "Plain", world.provider("p", "P"), world.dataset("d", "D"), NOW))
    assert backups.parquet_names(FIELDS)["name of the thing"] == "name of the thing_2"
