"""The two Socrata loaders that we replace, from their own configuration files to served tables: first load, again, edits, deletions, faults.

Everything twice: into PostgreSQL and into MariaDB.

A reader who knows nothing of us asks the table, and must find the source's rows: each once, none more, compared by hash.
"""

import hashlib
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pymysql
import pytest
from django.conf import settings as configured
from django.core.management import call_command

from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.rows import la311, seattle_pets
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import planner, runner
from pipelines.models import ImportLog, Pipeline, Provider, Run, RunState, ScheduleBlock, State
from pipelines.planner import Order
from tests.mariadb import mariadb, mariadb_server
from tests.pipelines.scene import ANN, city, stage_scene

__all__ = ["mariadb", "mariadb_server", "stage_scene"]
pytestmark = pytest.mark.django_db(transaction=True)

DATA = Path(configured.BASE_DIR).parent / "shared" / "data"
LA311, PETS = DATA / "la311_2020_10000rows.csv", DATA / "seattle_pets_2019_51366rows.csv"
YEAR_2019, YEAR_2020, SEATTLE = "pvft-t768", "rq3b-xjk8", "jguv-t9rb"
IN_TWO_YEARS = "1-870704814"

CONFIG_311 = """
mode = "update"
dask = true
reset_db = false

[socrata]
host = "{url}"
token = "canary-token-311"

[socrata.datasets]
2019 = "{year_2019}"
2020 = "{year_2020}"

[data]
key = "srnumber"
target = "requests"
years = ["2020"]
since = 2015-01-01T00:00:00

[data.fields]
{fields}
"""

SETTINGS_PETS = """
IMPORT_TOPICS = {{
    'pet_license': {{
        'topic_name': 'pet_license',
        'source_type': 'socrata',
        'source_url': '{url}',
        'dataset_name': 'jguv-t9rb',
        'target_type': 'mysql',
        'target_conn': 'default',
        'target_table': 'pet_license',
        'target_string_columns': 'license_number, animal_s_name, species, primary_breed, secondary_breed, zip_code',
        'target_date_columns': 'license_issue_date',
        'filter_soql': "where license_issue_date > '%s'",
        'filter_sql': "SELECT MAX(license_issue_date) FROM pet_license;",
        'filter_sql_result_datatype': 'datetime',
    }},
    'example_topic2': {{'target': 'nowhere', 'target_columns': 'a, b'}},
}}
TARGET_CONN = {{'default': {{'host': 'localhost', 'port': 3306, 'db': 'rover', 'user': 'rover', 'password': 'canary-password-pets'}}}}
MISC = {{'quit_signal': 15, 'tmp_dir': '/tmp', 'import_log_table': 'import_log', 'pull_row_limit': 1000}}
"""


class Reader:
    """Somebody who reads the warehouse, and knows nothing of us but the tables' names."""

    def __init__(self, dsn: str):
        self.is_maria = dsn.startswith("mysql")
        self.address = urlsplit(dsn)

    def ask(self, query: str) -> list[tuple]:
        """Rows of a query that is written as PostgreSQL's; a table is `city.name`."""
        if not self.is_maria:
            return city(query)
        query = query.replace("city.", "").replace('"', "`")
        where = {"host": self.address.hostname, "port": self.address.port, "user": self.address.username}
        session = pymysql.connect(**where, password=unquote(self.address.password), database=self.address.path[1:], charset="utf8mb4")
        with closing(session), session.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def rows(self, pipeline: Pipeline, dataset: SandboxTable, where: str = "true") -> list[tuple]:
        """The rows of a pipeline's table, as both sides can be compared."""
        kinds = {column.name: column.type for column in dataset.columns}
        names = list(dataset.names)
        listed = ", ".join(f'"{name}"' for name in names)
        found = self.ask(f'select {listed} from city."{pipeline.table}" where {where}')
        return [tuple(told(value, kinds[name]) for name, value in zip(names, row, strict=True)) for row in found]

    def sees(self, pipeline: Pipeline, dataset: SandboxTable, where: str = "true") -> None:
        """The table has the source's rows, each as often as there, and no others."""
        theirs, ours = rows_of(dataset, list(dataset.names)), self.rows(pipeline, dataset, where)
        assert len(ours) == len(theirs)
        assert fingerprint(ours) == fingerprint(theirs)


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.needs("mariadb"))])
def reader(request, settings) -> Reader:
    """A reader of the warehouse `city`, which is PostgreSQL once and MariaDB once."""
    dsn = request.getfixturevalue("mariadb") if request.param == "mariadb" else settings.WAREHOUSES["default"]
    settings.WAREHOUSES = {**settings.WAREHOUSES, "city": dsn}
    return Reader(dsn)


@pytest.fixture
def portal(stage_scene):
    """Los Angeles and Seattle on one portal; the real files where they lie beside the project, else rows of their shape."""
    here = Portal(requests_of_2020(), requests_of_2019(), pets()).start()
    yield here
    here.stop()


def requests_of_2020() -> SandboxTable:
    if LA311.exists():
        return SandboxTable.from_csv(LA311, id=YEAR_2020, key="srnumber")
    made = la311(YEAR_2020, 10_000)
    return SandboxTable(YEAR_2020, "Requests 2020", made.columns, [record.values for record in made._rows], key="srnumber")


def requests_of_2019() -> SandboxTable:
    """A few requests of the year before, one of which is in both datasets, older here."""
    whole = requests_of_2020()
    rows = [dict(zip(whole.names, record.values, strict=True)) for record in list(whole._rows)[:50]]
    shared = rows[7]
    old = [{**row, "srnumber": f"1-19{number:05d}"} for number, row in enumerate(rows)]
    old.append({**shared, "status": "Open", "updateddate": "2019-12-31T23:00:00.000"})
    return SandboxTable(YEAR_2019, "Requests 2019", whole.columns, [tuple(row[name] for name in whole.names) for row in old], key="srnumber")


def pets() -> SandboxTable:
    if PETS.exists():
        return SandboxTable.from_csv(PETS, id=SEATTLE)
    made = seattle_pets(SEATTLE, 5_000)
    return SandboxTable(SEATTLE, "Pets", made.columns, [record.values for record in made._rows])


def set_up_311(portal: Portal, folder: Path, warehouse: str = "city") -> list[Pipeline]:
    fields = "\n".join(f'{name} = ""' for name in portal.dataset(YEAR_2020).names)
    file = folder / "config.toml"
    file.write_text(CONFIG_311.format(url=portal.url, year_2019=YEAR_2019, year_2020=YEAR_2020, fields=fields))
    call_command("import_config", str(file), warehouse=warehouse)
    Pipeline.objects.update(time_zone="America/Los_Angeles")
    return list(Pipeline.objects.filter(table="requests").order_by("resource"))


def set_up_pets(portal: Portal, folder: Path, warehouse: str = "city") -> Pipeline:
    file = folder / "settings.py"
    file.write_text(SETTINGS_PETS.format(url=portal.url))
    call_command("import_config", str(file), warehouse=warehouse)
    return Pipeline.objects.get(resource=SEATTLE)


def go(*pipelines: Pipeline, **order) -> None:
    """Order the pipelines' present blocks, and work them off."""
    for pipeline in pipelines:
        pipeline.refresh_from_db()
    placed = planner.place(Order(list(pipelines), **order), actor=ANN, trigger="command", bell=False)
    assert placed.moved, [verdict.text for verdict in placed.refused]
    runner.work_off(placed.moved, workers=1)


def done(*pipelines: Pipeline) -> None:
    for pipeline in pipelines:
        block = ScheduleBlock.objects.filter(pipeline=pipeline).latest("starts_at")
        assert block.state == State.DONE, (pipeline.slug, block.state, block.message)


def last(pipeline: Pipeline, stage: str = "load") -> Run:
    return Run.objects.filter(block__pipeline=pipeline, stage=stage, state__in=[RunState.DONE, RunState.UNCHANGED]).first()


def rows_of(dataset: SandboxTable, names: list[str]) -> list[tuple]:
    places = [dataset.names.index(name) for name in names]
    kinds = {column.name: column.type for column in dataset.columns}
    return [tuple(told(record.values[place], kinds[name]) for place, name in zip(places, names, strict=True)) for record in dataset._rows]


def told(value, kind: str) -> str:
    """A value as both sides can be compared: numbers by their value, a time to the second."""
    if value is None or value == "":
        return ""
    if kind == "number":
        return f"{float(value):.9f}"
    if kind in ("calendar_date", "local_time"):
        return str(value)[:19].replace(" ", "T")
    return str(value)


def fingerprint(rows: list[tuple]) -> str:
    return hashlib.sha256("\n".join(sorted("\x1f".join(row) for row in rows)).encode()).hexdigest()


# Los Angeles


def test_los_angeles_goes_through_first_again_edited_deleted_and_in_two_years(portal, reader, tmp_path):
    older, newer = set_up_311(portal, tmp_path)
    assert {older.resource, newer.resource} == {YEAR_2019, YEAR_2020}
    if older.resource != YEAR_2019:
        older, newer = newer, older
    source = portal.dataset(YEAR_2020)
    total = len(source)

    go(older, newer)
    done(older, newer)
    assert reader.ask("select count(*), count(distinct srnumber) from city.requests") == [(total + 50, total + 50)]
    mine = f"_odo_pipeline = {newer.pk}"
    reader.sees(newer, source, mine)
    before = reader.ask("select srnumber, _odo_seq from city.requests order by 1")

    # again: the watermark's ties and the overlap are read, and nothing is written
    portal.touch(YEAR_2020)
    go(newer)
    assert last(newer).inserted == last(newer).updated == 0
    portal.requests.clear()
    go(older, newer)  # the source says that nothing changed
    assert [request.path for request in portal.requests] == [f"/api/views/{YEAR_2019}.json", f"/api/views/{YEAR_2020}.json"]
    assert reader.ask("select srnumber, _odo_seq from city.requests order by 1") == before

    # 5 % edited, with their date as a portal writes it
    edited = edit(portal, YEAR_2020, share=0.05)
    go(newer)
    assert (last(newer).updated, last(newer).inserted) == (len(edited), 0)
    reader.sees(newer, source, mine)

    # the copy in the other year is older, and stays older
    go(older, force=True)
    assert last(older).duplicates == 1
    reader.sees(newer, source, mine)

    # gone at the source: kept unless the steward wants otherwise, found when everything is read
    source.publish([{"srnumber": key, ":deleted": True} for key in sorted(edited)[:20]])
    go(newer, force=True)
    assert last(newer).details["gone"] == 20 and last(newer).deleted == 0
    Pipeline.objects.filter(pk=newer.pk).update(gone_rows="delete")
    go(newer, force=True)
    assert last(newer).deleted == 20
    reader.sees(newer, source, mine)


def edit(portal: Portal, id: str, share: float) -> set[str]:
    """Edit rows as a city does: their date of change with them."""
    edited = set(portal.edit(id, share)["edited"])
    source = portal.dataset(id)
    place = source.names.index("updateddate")
    key = source.names.index(source.key)
    changed = []
    for record in source._rows:
        if record.values[key] in edited and record.values[place] is not None:
            changed.append(dict(zip(source.names, record.values, strict=True)) | {"updateddate": "2026-06-01T12:00:00.000"})
    source.publish(changed)
    return {row[source.key] for row in changed}


def test_initialize_killed_half_way_leaves_the_old_rows_and_the_next_one_finishes(portal, reader, tmp_path, monkeypatch):
    *_, newer = sorted(set_up_311(portal, tmp_path), key=lambda one: one.resource == YEAR_2020)
    Pipeline.objects.filter(pk=newer.pk).update(page_size=1000)
    go(newer)
    source = portal.dataset(YEAR_2020)
    total = len(source)
    victims = [record.values[source.names.index("srnumber")] for record in list(source._rows)[:5]]
    source.publish([{"srnumber": key, ":deleted": True} for key in victims])
    monkeypatch.setenv("ODO_FAULT", "load.staged:4:kill")
    go(newer, rebuild=True)
    assert reader.ask("select count(*) from city.requests") == [(total,)]
    monkeypatch.delenv("ODO_FAULT")
    ScheduleBlock.objects.update(due_at="2020-01-01T00:00:00Z")
    runner.work_off(ScheduleBlock.objects.filter(pipeline=newer).values_list("pk", flat=True), workers=1)
    done(newer)
    reader.sees(newer, source)


def test_faults_between_two_loads_lose_and_double_nothing(portal, reader, tmp_path):
    *_, newer = sorted(set_up_311(portal, tmp_path), key=lambda one: one.resource == YEAR_2020)
    Pipeline.objects.filter(pk=newer.pk).update(page_size=2500)
    for fault in (503, Fault("cut"), Fault("html")):
        portal.fail(fault, path=f"/resource/{YEAR_2020}.csv", times=1)
    go(newer)
    for _ in range(4):
        if ScheduleBlock.objects.filter(pipeline=newer, state=State.DONE).exists():
            break
        portal.faults.clear()
        go(newer)
    done(newer)
    reader.sees(newer, portal.dataset(YEAR_2020))


# Seattle


def test_seattle_goes_through_first_again_edited_and_deleted_without_a_key(portal, reader, tmp_path):
    one = set_up_pets(portal, tmp_path)
    source = portal.dataset(SEATTLE)
    total = len(source)
    go(one)
    done(one)
    reader.sees(one, source)
    chunks = -(-total // 1000)
    assert list(ImportLog.objects.order_by("pk").values_list("event", flat=True)) == ["begin", *["chunk"] * chunks, "end"]
    before = reader.ask("select _odo_seq from city.pet_license order by 1")

    go(one, force=True)
    assert (last(one).unchanged, last(one).inserted, last(one).deleted) == (total, 0, 0)
    assert reader.ask("select _odo_seq from city.pet_license order by 1") == before

    # 5 % edited and some licences expired: a source without a key is replaced as a whole
    rows = [list(record.values) for record in source._rows]
    place = source.names.index("animal_s_name")
    for number in range(0, len(rows), 20):
        rows[number][place] = f"Renamed {number}"
    kept = rows[: total - 30]
    source.fill(kept)
    portal.touch(SEATTLE)
    go(one, force=True)
    reader.sees(one, source)
    assert last(one).unchanged == sum(number % 20 != 0 for number in range(total - 30))


def test_no_secret_of_their_files_is_stored_in_the_clear(portal, tmp_path, capsys):
    set_up_311(portal, tmp_path, "default")
    set_up_pets(portal, tmp_path, "default")
    said = capsys.readouterr()
    for canary in ("canary-token-311", "canary-password-pets"):
        assert canary not in said.out + said.err
        assert canary not in str(list(Provider.objects.values())) + str(list(Pipeline.objects.values()))
