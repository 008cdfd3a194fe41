"""The two loaders that this program replaces: their own files, as they are, become providers, datasets and pipelines that can run."""

import re
import textwrap
from datetime import datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from catalog.audit import Actor
from catalog.models import AuditEntry, Dataset
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from opendata_ops.sandbox.tables import guess_type
from pipelines import importers, planner, runner, secrets
from pipelines.importers import gather_and_store, own, prefect_311
from pipelines.models import AfterStep, Pipeline, Provider, Run, ScheduleBlock
from tests.pipelines.scene import city, stage_scene  # noqa: F401

pytestmark = pytest.mark.django_db
ME = Actor("test")
TOKEN, HOOK, PASSWORD = "canary-token-8Zq1", "https://hooks.slack.example/services/canary-hook-7Yp2", "canary-password-6Xo3"

#: As the later versions are: no mode, years as numbers, what to do after a load.
LATER = f"""\
# how the flow runs
dask = true
reset_db = false
temp_folder = ""
api_url = "https://api.city.example"   # whose cache is cleared
report_server_url = "https://reports.city.example/"
stage = "Testing"
vacuum_db = false

[socrata]
host = "data.city.example"
token = "{TOKEN}"

[socrata.datasets]
2019 = "aaaa-2019"
2020 = "aaaa-2020"
2021 = "aaaa-2021"

[data]
years = [
    2020,
    2021
    ]
target = "requests"
key = "srnumber"
recent_column = "updateddate"
views = ["service_requests", "open_requests"]

[data.fields]
srnumber = ""
requesttype = ""
createddate = ""
updateddate = ""
nc = "integer"
zipcode = ""
latitude = ""
longitude = ""
"""

#: As the first version is: a mode, years as text, a moment to begin at.
FIRST = f"""\
mode = "update"
dask = false
reset_db = false

[api]
server = "http://localhost:5000"

[socrata]
host = "data.city.example"
token = "{TOKEN}"

    [socrata.datasets]
    2019 = "aaaa-2019"
    2020 = "aaaa-2020"

[data]
key = "srnumber"
target = "requests"
years = ["2020"]
since = "2020-09-20T01:39:13"

    [data.fields]
    srnumber = ""
    updateddate = ""
    nc = "integer"
"""

#: As GatherAndStore's is, with its sample topic that never ran.
SETTINGS = f"""\
import logging
import signal

LOGGING = {{
    "level": logging.INFO,
    "format": "[%(asctime)s] %(message)s",
}}

TARGET_CONN = {{
    'MYSQL_ONE': {{'host': '127.0.0.1', 'port': 3306, 'db': 'rover', 'user': 'loader', 'password': "{PASSWORD}"}},
    'POSTGRES_ONE': {{'host': 'pg.example', 'port': 5432, 'db': 'money', 'user': 'loader', 'password': "{PASSWORD}"}},
    'IMPORT_LOGGING': {{'host': '127.0.0.1', 'port': 3306, 'db': 'rover', 'user': 'loader', 'password': "{PASSWORD}"}},
}}

IMPORT_TOPICS = {{
    'pet_license': {{
        'topic_name': 'pet_license',
        'source_type': 'socrata',
        'source_url': 'data.city.example',
        'dataset_name': 'pets-0001',
        'target_type': 'mysql',
        'target_conn': 'MYSQL_ONE',
        'target_table': 'pet_license',
        'target_string_columns': 'license_number, animal_s_name, species',
        'target_date_columns': 'license_issue_date',
        'filter_soql': "where license_issue_date > '%s'",
        'filter_sql': "SELECT MAX(license_issue_date) FROM pet_license;",
        'filter_sql_result_datatype': "datetime"
    }},
    'sample': {{
        'topic_name': 'taxes',
        'source_type': 'socrata',
        'source_url': 'data.city.example',
        'dataset_name': 'taxe-0001',
        'target_type': 'postgres',
        'target': 'POSTGRES_ONE',
        'target_table': 'taxes',
        'target_columns': 'a, b'
    }}
}}

SERIALIZER_SETTINGS = {{'utf8_sanitize': True, 'escapes': frozenset(['"', '\\t'])}}

MISC = {{
    'quit_signal': signal.SIGTERM,
    'tmp_dir': '/tmp/',
    'import_log_table': 'import_log',
    'pull_row_limit': 1000
}}

SQL_CMDS = {{'import_log_sql': "INSERT INTO import_log VALUES('%(source_file)s')"}}
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def imported(file):
    """Imports one text and gives the report."""

    def do(text, name="config.toml", warehouse=""):
        return importers.apply(importers.plan([file(text, name)], warehouse=warehouse), actor=ME)

    return do


@pytest.fixture
def told(file):
    """(problems, warnings) of a text, each as (line, message and next step)."""

    def do(text, name="config.toml", warehouse=""):
        planned = importers.plan([file(text, name)], warehouse=warehouse)
        return tuple([(one.line, f"{one.message} {one.next_step}") for one in found] for found in (planned.problems, planned.warnings))

    return do


def run(*words):
    """(exit code, stdout, stderr) of a command line."""
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command(*map(str, words), stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    return code, out.getvalue(), err.getvalue()


def changed_line(text, before):
    """The number of the first line that was not there before."""
    return next(number for number, line in enumerate(text.split("\n"), start=1) if line not in before.split("\n"))


def steps(pipeline):
    return [(step.kind, step.target) for step in pipeline.after_steps.all()]


# 311-data


def test_a_yearly_dataset_is_a_pipeline_and_all_of_them_fill_one_table(imported):
    imported(LATER)
    provider, dataset = Provider.objects.get(), Dataset.objects.get()
    assert (provider.kind, provider.base_url, provider.max_parallel) == ("socrata", "https://data.city.example", 4)
    assert secrets.reveal(provider.secrets["app_token"]) == TOKEN
    pipelines = {pipeline.slug: pipeline for pipeline in Pipeline.objects.all()}
    assert list(pipelines) == ["requests-2019", "requests-2020", "requests-2021"]
    for pipeline in pipelines.values():
        pipeline.full_clean()
        assert (pipeline.provider, pipeline.dataset, pipeline.table, pipeline.key) == (provider, dataset, "requests", ["srnumber"])
        assert (pipeline.version_column, pipeline.watermark_column) == ("updateddate", "updateddate")
        assert pipeline.stages == ["extract", "load"]
    assert [pipeline.resource for pipeline in pipelines.values()] == ["aaaa-2019", "aaaa-2020", "aaaa-2021"]


def test_the_fields_are_the_columns_in_their_order_and_their_types_are_ours(imported):
    imported(LATER)
    pipeline = Pipeline.objects.first()
    assert pipeline.columns == ["srnumber", "requesttype", "createddate", "updateddate", "nc", "zipcode", "latitude", "longitude"]
    assert pipeline.types == {
        "srnumber": "text",
        "requesttype": "text",
        "createddate": "local_time",
        "updateddate": "local_time",
        "nc": "number",
        "zipcode": "text",
        "latitude": "number",
        "longitude": "number",
    }


@pytest.mark.parametrize(
    ("sql", "ours"),
    [
        ("numeric(10, 2)", "number"),
        ("Double Precision", "number"),
        ("character varying(50)", "text"),
        ("varchar", "text"),
        ("timestamp without time zone", "local_time"),
        ("timestamp(3) with time zone", "instant"),
        ("date", "local_time"),
        ("boolean", "boolean"),
        ("jsonb", "json"),
    ],
)
def test_a_type_of_sql_has_one_of_ours(imported, sql, ours):
    imported(LATER.replace('nc = "integer"', f'nc = "{sql}"'))
    assert Pipeline.objects.first().types["nc"] == ours


def test_after_a_load_comes_all_that_the_old_flow_did_at_its_end(imported, monkeypatch):
    monkeypatch.delenv(prefect_311.HOOK, raising=False)
    report = imported(LATER.replace("vacuum_db = false", "vacuum_db = true"))
    pipeline = Pipeline.objects.get(slug="requests-2020")
    assert steps(pipeline) == [
        ("refresh", "service_requests"),
        ("refresh", "open_requests"),
        ("analyze", ""),
        ("vacuum", ""),
        ("post", "https://api.city.example/status/reset-cache"),
        ("reload", "https://reports.city.example/reload"),
        ("notify", ""),
    ]
    assert pipeline.after_steps.get(kind="reload").expect == "Reloading..."
    notice = pipeline.after_steps.get(kind="notify")
    assert (notice.prefix, notice.secret, notice.is_active) == ("Testing", f"env:{prefect_311.HOOK}", False)
    assert any(prefect_311.HOOK in note for note in report.notes)


def test_without_vacuum_views_and_addresses_those_steps_are_not_made(imported, monkeypatch):
    monkeypatch.setenv(prefect_311.HOOK, HOOK)
    imported(FIRST)
    assert steps(Pipeline.objects.first()) == [("analyze", ""), ("notify", "")]
    assert AfterStep.objects.filter(kind="notify", is_active=True).count() == 2  # its webhook is in the environment, as it was there


@pytest.mark.parametrize("line", [f'slack_hook = "{HOOK}"\n', f'[context.secrets]\nSLACK_HOOK = "{HOOK}"\n'])
def test_a_webhook_in_the_file_is_sealed(imported, line):
    imported(line + LATER if line.startswith("slack") else LATER + line)
    notice = AfterStep.objects.filter(kind="notify").first()
    assert notice.secret.startswith("fernet:")
    assert secrets.reveal(notice.secret) == HOOK
    assert notice.is_active


def test_a_secret_that_names_a_variable_stays_in_the_environment(imported):
    imported(LATER.replace(f'"{TOKEN}"', '"${SOCRATA_TOKEN}"'))
    assert Provider.objects.get().secrets == {"app_token": "env:SOCRATA_TOKEN"}


def test_mode_update_reads_every_dataset_from_its_newest_row_on(imported):
    imported(FIRST)
    pipelines = list(Pipeline.objects.order_by("slug"))
    assert [pipeline.is_paused for pipeline in pipelines] == [False, False]
    assert {(pipeline.watermark_column, pipeline.since) for pipeline in pipelines} == {("updateddate", "2020-09-20T01:39:13")}
    assert {pipeline.pages_in_flight for pipeline in pipelines} == {1}  # dask = false
    assert Provider.objects.get().max_parallel == 1


def test_mode_full_reads_only_its_years_and_all_of_them(imported):
    report = imported(FIRST.replace('"update"', '"full"'))
    read = {pipeline.slug: pipeline for pipeline in Pipeline.objects.all()}
    assert (read["requests-2020"].is_paused, read["requests-2019"].is_paused) == (False, True)
    assert "data.years" in read["requests-2019"].paused_reason
    assert {(one.watermark_column, one.since, one.version_column) for one in read.values()} == {("", "", "updateddate")}
    assert any("requests-2019" in note and "paused" in note for note in report.notes)


def test_without_a_mode_or_with_years_as_numbers_only_the_years_are_read(imported):
    imported(LATER)
    assert list(Pipeline.objects.filter(is_paused=True).values_list("slug", flat=True)) == ["requests-2019"]
    imported('mode = "update"\n' + LATER.replace("2020,\n", ""))
    assert list(Pipeline.objects.filter(is_paused=True).values_list("slug", flat=True)) == ["requests-2019", "requests-2020"]


@pytest.mark.parametrize("years", ['"2020,2019"', '\'["2020","2019"]\'', "[2020, 2019]", '["2020", "2019"]'])
def test_years_may_be_written_as_variables_have_them(imported, years):
    imported(FIRST.replace('"update"', '"full"').replace('["2020"]', years))
    assert not Pipeline.objects.filter(is_paused=True).exists()


@pytest.mark.parametrize("moment", ['"2020-09-20T01:39:13"', "2020-09-20T01:39:13", '"2020-09-20 01:39:13"'])
def test_start_datetime_comes_before_since(imported, moment):
    imported(FIRST.replace("since = ", f'start_datetime = {moment}\nsince = "2019-01-01T00:00:00" #'))
    assert Pipeline.objects.first().since == "2020-09-20T01:39:13"


@pytest.mark.parametrize(
    ("host", "address", "slug"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127-0-0-1-8080"),
        ("https://data.city.example/", "https://data.city.example", "data-city-example"),
        (" data.city.example ", "https://data.city.example", "data-city-example"),
        ("http://[::1]:81", "http://[::1]:81", "1-81"),
    ],
)
def test_a_host_may_carry_a_scheme_and_a_port(imported, host, address, slug):
    imported(LATER.replace('"data.city.example"', f'"{host}"'))
    assert (Provider.objects.get().base_url, Provider.objects.get().slug) == (address, slug)


def test_a_password_in_the_host_is_sealed_and_not_in_the_address(imported):
    imported(LATER.replace('"data.city.example"', f'"https://me:{PASSWORD}@data.city.example"'))
    provider = Provider.objects.get()
    assert (provider.base_url, provider.parameters) == ("https://data.city.example", {"user": "me"})
    assert secrets.reveal(provider.secrets["password"]) == PASSWORD


def test_reset_db_empties_nothing_and_the_note_says_how(imported):
    report = imported(LATER.replace("reset_db = false", "reset_db = true"))
    assert any("run requests-2020 requests-2021 --initialize" in note for note in report.notes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('host = "data.city.example"', 'hots = "data.city.example"', "Did you mean socrata.host?"),
        ('target = "requests"', 'target = "My Requests"', "small letters"),
        ('key = "srnumber"', 'key = "srnummer"', "Did you mean srnumber?"),
        ('recent_column = "updateddate"', 'recent_column = "updated"', "Did you mean updateddate?"),
        ('"aaaa-2020"', '"aaaa2020"', "look like rq3b-xjk8"),
        ('"aaaa-2021"', '"aaaa-2020"', "the dataset of 2020 already, on line 16"),
        ("years = [\n    2020,", "years = [ 2031,", "has no '2031'"),
        ('"integer"', '"intger"', "Did you mean integer?"),
        ('"integer"', "7", "A number stands where the name of a type is wanted"),
        ("dask = true", 'dask = "yes"', "Text stands where true or false is wanted"),
        ("dask = true", "dask = maybe", "This is not TOML"),
        ("2020 = ", "2019 = ", "Cannot overwrite a value"),
        ("https://api.city.example", "api.city.example", "This is no address of the web"),
        ("https://api.city.example", "${API_URL}", "This names a variable"),
        ("https://api.city.example", f"https://me:{PASSWORD}@api.city.example", "more in this address than a host and a path"),
        ("https://api.city.example", f"https://api.city.example/?key={PASSWORD}", "more in this address than a host and a path"),
        ("https://api.city.example", "https://[", "more in this address than a host and a path"),
        ("vacuum_db = false", f'vacuum_db = false; slack_hook = "{HOOK}"', "This is not TOML"),
        ("vacuum_db = false", 'slack_hook = "canary"', "no address of a webhook"),
        ("data.city.example", "data.city.example/resource", "the portal's own is wanted"),
        ("data.city.example", "ftp://data.city.example", "neither with https:// nor with http://"),
        (f'"{TOKEN}"', '"env:DATABASE_URL"', "is a secret of this program itself"),
        ('["service_requests", "open_requests"]', '["\\u0000"]', "can't store"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_config_toml_is_told_with_its_line(told, old, new, words):
    assert old in LATER
    text = LATER.replace(old, new, 1)
    problems, _ = told(text)
    assert problems
    assert words in problems[0][1]
    assert problems[0][0] == changed_line(text, LATER)
    assert not [secret for secret in (TOKEN, HOOK, PASSWORD) if secret in str(problems)]


def test_a_key_that_no_version_has_is_left_out_with_a_warning_and_prefects_own_with_a_note(file):
    planned = importers.plan([file("colour = 3\n" + LATER + '\n[logging]\nlevel = "DEBUG"\n', "config.toml")])
    assert not planned.problems
    assert [(warning.line, warning.field) for warning in planned.warnings] == [(1, "colour")]
    assert any("temp_folder" in note or "logging.level" in note for note in planned.notes)


def test_importing_a_config_toml_twice_changes_nothing(imported, monkeypatch):
    monkeypatch.setenv(prefect_311.HOOK, HOOK)
    imported(LATER)
    stored = list(AfterStep.objects.order_by("pk").values()), list(Pipeline.objects.order_by("pk").values())
    report = imported(LATER)
    assert (report.created, report.changed, len(report.unchanged)) == ((), (), 5)
    assert (list(AfterStep.objects.order_by("pk").values()), list(Pipeline.objects.order_by("pk").values())) == stored


def test_a_second_import_leaves_what_a_person_added_since(imported):
    imported(LATER)
    pipeline = Pipeline.objects.get(slug="requests-2020")
    pipeline.title, pipeline.cadence = "Requests of this year", "hourly"
    pipeline.save()
    AfterStep.objects.create(pipeline=pipeline, position=9, kind="notify", target="", secret=secrets.seal(HOOK), prefix="Ops")
    pipeline.after_steps.filter(kind="notify", prefix="Testing").update(secret=secrets.seal(HOOK), is_active=True)
    before = list(pipeline.after_steps.values())
    report = imported(LATER)
    assert not report.changed
    pipeline.refresh_from_db()
    assert (pipeline.title, pipeline.cadence) == ("Requests of this year", "hourly")
    assert list(pipeline.after_steps.values()) == before


def test_a_new_year_in_the_file_is_a_new_pipeline_and_nothing_else(imported):
    imported(LATER)
    report = imported(LATER.replace('2021 = "aaaa-2021"', '2021 = "aaaa-2021"\n2022 = "aaaa-2022"').replace("2021\n    ]", "2021, 2022]"))
    assert [change.slug for change in report.created] == ["requests-2022"]
    assert not report.changed


@pytest.mark.parametrize(
    "text",
    [
        "[socrata]\nhost = " + "[" * 20_000,
        "[socrata]\nhost = " + "{a=" * 20_000,
        "[socrata]\nyears = " + "9" * 10_000,
        "[socrata]\nhost = '''\n" + "x" * 100,
        "[socrata]\n" + "a." * 20_000 + "b = 1",
        "[socrata]\nhost = 1979-13-45",
        "[socrata]\nhost = '\0'",
        "[socrata]\n" + "#" * (prefect_311.LARGEST + 1),
        "[socrata]\n",
        "[[socrata]]\nx = 1\n[socrata]\n",
        "[socrata]\nhost = {a = 1}\n[socrata.datasets]\n[data]\nyears = {}\n[data.fields]\nx = [1]",
    ],
)
def test_a_hostile_config_toml_is_a_problem_and_never_a_crash(told, text):
    problems, _ = told(text)
    assert problems


@pytest.mark.parametrize("text", [b"[socrata]\nhost = '\xff'", LATER.encode("utf-16"), LATER.replace("city", "citté").encode("latin-1")])
def test_another_encoding_than_utf8_is_a_problem(told, text):
    [(_, words)], _ = told(text)
    assert "UTF-8" in words


def test_the_lines_of_a_toml_are_found_whatever_stands_between():
    text = textwrap.dedent('''\
        a = """
        [no.header]
        b = 1
        """
        "quoted.name" = [ # a list
          "x = 1", [1],
          { y = 2 },
        ]
        [ one . "two" ]
        three.four = 'it''s'
        five = { six = [
          1 ] }
        # seven = 7
        [[one.many]]
        eight = "a # b = c"
        ''').replace("'it''s'", "'its'")
    lines = prefect_311.lines_of(text)
    assert lines == {
        "a": 1,
        "quoted.name": 5,
        "one.two": 9,
        "one.two.three": 10,
        "one.two.three.four": 10,
        "one.two.five": 11,
        "one.many": 14,
        "one.many.eight": 15,
    }


# GatherAndStore


def test_a_topic_is_a_dataset_and_a_pipeline_that_compares_whole_rows(imported):
    imported(SETTINGS, "settings.py", "default")
    pipeline = Pipeline.objects.get()
    pipeline.full_clean()
    assert (pipeline.slug, pipeline.resource, pipeline.table, pipeline.warehouse) == ("pet-license", "pets-0001", "pet_license", "default")
    assert (pipeline.key, pipeline.load_mode, pipeline.watermark_column) == ([], "replace", "license_issue_date")
    assert pipeline.columns == []  # it took all that the source had
    assert pipeline.types == {"license_number": "text", "animal_s_name": "text", "species": "text", "license_issue_date": "local_time"}
    assert (pipeline.page_size, pipeline.stages) == (1000, ["extract", "load"])
    assert (pipeline.provider.base_url, pipeline.dataset.title) == ("https://data.city.example", "Pet license")


def test_the_topic_that_never_ran_is_a_warning_with_its_line_and_the_others_are_imported(file):
    code, out, err = run("import_config", file(SETTINGS, "settings.py"), "--warehouse", "default")
    assert code == 0
    assert re.search(r"settings\.py:30: IMPORT_TOPICS\.sample: .*lacks target_conn, target_string_columns and target_date_columns", err)
    assert "did you mean target_conn?" in err
    assert "create  pipeline pet-license" in out
    assert Pipeline.objects.count() == 1


def test_a_target_that_is_not_known_here_is_a_problem_that_says_what_to_set_and_hides_the_password(file):
    code, out, err = run("import_config", file(SETTINGS, "settings.py"))
    assert code == 2
    assert "settings.py:22: " in err
    assert "WAREHOUSES=MYSQL_ONE=mysql://loader:…@127.0.0.1:3306/rover" in err
    assert "--warehouse default" in err
    assert PASSWORD not in out + err
    assert not Pipeline.objects.exists()


def test_a_target_that_is_known_here_is_used(imported, settings):
    settings.WAREHOUSES = {**settings.WAREHOUSES, "MYSQL_ONE": "mysql://x@127.0.0.1/rover"}
    imported(SETTINGS, "settings.py")
    assert Pipeline.objects.get().warehouse == "MYSQL_ONE"


def test_a_warehouse_that_is_not_known_is_refused_before_anything_is_read(file):
    code, _, err = run("import_config", file(SETTINGS, "settings.py"), "--warehouse", "defualt")
    assert code == 2
    assert "Did you mean default?" in err


def test_the_settings_are_read_as_data_and_nothing_is_executed(told, tmp_path):
    mark = tmp_path / "executed"
    for line in (
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"x = open({str(mark)!r}, 'w')",
        f"LOGGING = {{'a': open({str(mark)!r}, 'w')}}",
        f"MISC = {{'tmp_dir': open({str(mark)!r}, 'w')}}",
        f"IMPORT_TOPICS = {{'x': open({str(mark)!r}, 'w')}}",
        f"y = [open({str(mark)!r}, 'w') for _ in [1]]",
        f"z = f\"{{open({str(mark)!r}, 'w')}}\"",
        f"class X:\n    a = open({str(mark)!r}, 'w')",
        f"import os; os.system('touch {mark}')",
    ):
        for text in (f"{SETTINGS}\n{line}\n", f"{line}\n{SETTINGS}\n"):
            problems, _ = told(text, "settings.py", "default")
            assert problems, line
            where = next(number for number, one in enumerate(text.split("\n"), start=1) if one == line.split("\n")[0])
            assert problems[0][0] in (where, where + line.count("\n")) or "twice" in str(problems), (line, problems)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("'data.city.example'", "HOST", "This is no literal"),
        ("'data.city.example'", "'data.' + 'city.example'", "This is no literal"),
        ("'data.city.example'", "7", "No text stands here"),
        ("'pets-0001'", "'pets'", "look like rq3b-xjk8"),
        ("'mysql'", "'oracle'", "'mysql' or 'postgres'"),
        ("conn': 'MYSQL_ONE'", "conn': 'MYSQL_ON'", "Did you mean MYSQL_ONE?"),
        ("'pet_license',\n        'target_string", "'Pet-License',\n        'target_string", "small letters"),
        ("license_issue_date > '%s'\"", "license_issue_date > '%s' and species = 'Dog'\"", "asks for more"),
        ("MAX(license_issue_date)", "MAX(license_number)", "Name one column in both"),
        ("'source_type': 'socrata'", "'source_type': 'ckan'", "Write 'socrata'."),
        ("'topic_name': 'pet_license'", "'topic_name': 'pet', 'topic_name': 'dog'", "stands here twice; first on line 17"),
        ("'pull_row_limit': 1000", "'pull_row_limit': 'many'", "no number of rows"),
        ("'pull_row_limit': 1000", "'pull_row_limit': 0", "no number of rows"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_settings_py_is_told_with_its_line(told, old, new, words):
    assert old in SETTINGS
    text = SETTINGS.replace(old, new, 1)
    problems, _ = told(text, "settings.py", "default")
    assert words in problems[0][1]
    assert problems[0][0] == changed_line(text, SETTINGS)


def test_one_source_into_one_table_by_two_topics_is_refused(told):
    one = SETTINGS[SETTINGS.index("    'pet_license': {") : SETTINGS.index("    'sample'")]
    problems, _ = told(SETTINGS.replace("    'sample'", one.replace("'pet_license': {", "'again': {") + "    'sample'"), "settings.py", "default")
    assert "by topic pet_license already, on line 16" in problems[0][1]


def test_with_no_topic_that_can_run_nothing_is_imported(told):
    text = SETTINGS.replace("'target_conn': 'MYSQL_ONE',", "")
    problems, warnings = told(text, "settings.py", "default")
    assert ["None of the topics can run." in words for _, words in problems] == [True]
    assert len(warnings) == 2


def test_one_note_says_all_that_is_not_needed(file):
    planned = importers.plan([file(SETTINGS, "settings.py")], warehouse="default")
    [note] = [note for note in planned.notes if "left out" in note]
    for name in ("LOGGING", "SERIALIZER_SETTINGS", "SQL_CMDS", "MISC.quit_signal", "MISC.import_log_table", "TARGET_CONN.IMPORT_LOGGING"):
        assert name in note


def test_importing_a_settings_py_twice_changes_nothing(imported):
    imported(SETTINGS, "settings.py", "default")
    report = imported(SETTINGS, "settings.py", "default")
    assert (report.created, report.changed, len(report.unchanged)) == ((), (), 3)
    assert len(report.warnings) == 1


@pytest.mark.parametrize(
    "text",
    [
        "IMPORT_TOPICS = " + "[" * 5_000,
        "IMPORT_TOPICS = " + "-" * 100_000 + "1",
        "IMPORT_TOPICS = " + "(" * 150 + ")" * 150,
        "IMPORT_TOPICS = {}" + "\nX = a" + ".b" * 50_000,
        "IMPORT_TOPICS = {}" + "\nX = " + "1+" * 50_000 + "1",
        "IMPORT_TOPICS = {'a': " + "{'b': " * 90 + "1" + "}" * 91,
        "IMPORT_TOPICS = {**IMPORT_TOPICS}",
        "IMPORT_TOPICS = IMPORT_TOPICS",
        "IMPORT_TOPICS = {'a': IMPORT_TOPICS}",
        "IMPORT_TOPICS = {1: 2}",
        "IMPORT_TOPICS = {}\0",
        "IMPORT_TOPICS: dict",
        "IMPORT_TOPICS = 'x' * 10 ** 12",
        "IMPORT_TOPICS = 9" + "9" * 10_000,
        "IMPORT_TOPICS =\nprint 'two'",
        "IMPORT_TOPICS = {}\nprint 'two'",
        "IMPORT_TOPICS = {}\n" + "#" * (gather_and_store.LARGEST + 1),
        SETTINGS.replace("'license_number,", "'\\x00,"),
        SETTINGS.replace("'license_number,", "'\\ud800,"),
        SETTINGS.replace("'pull_row_limit': 1000", "'pull_row_limit': 10**20"),
        SETTINGS.replace("'pull_row_limit': 1000", "'pull_row_limit': 99999999999999999999"),
    ],
)
def test_a_hostile_settings_py_is_a_problem_and_never_a_crash(told, text):
    problems, _ = told(text, "settings.py", "default")
    assert problems
    assert all(line <= text.count("\n") + 1 for line, _ in problems)


# both


def test_both_files_may_name_one_portal(file):
    planned = importers.plan([file(LATER, "config.toml"), file(SETTINGS, "settings.py")], warehouse="default")
    assert not planned.problems
    importers.apply(planned, actor=ME)
    assert Provider.objects.count() == 1
    assert Pipeline.objects.count() == 4


def test_two_files_that_say_different_things_of_one_portal_are_refused(file):
    other = LATER.replace(TOKEN, "another").replace('target = "requests"', 'target = "calls"')
    [problem] = importers.plan([file(LATER, "config.toml"), file(other, "other.toml")]).problems
    assert "described twice" in problem.message
    assert problem.file.endswith("other.toml")


@pytest.mark.parametrize(("text", "name"), [(LATER, "config.toml"), (SETTINGS, "settings.py")])
def test_a_dry_run_says_what_would_be_made_and_makes_nothing(file, text, name):
    code, out, _ = run("import_config", file(text, name), "--dry-run", "--warehouse", "default")
    assert code == 0
    assert "create  provider data-city-example: socrata, https://data.city.example" in out
    assert "pets-0001 → default.pet_license; no key; newer license_issue_date" in out or (
        "create  pipeline requests-2020: data-city-example aaaa-2020 → default.requests; key srnumber; newer updateddate; "
        "then refresh service_requests" in out
    )
    assert "this was a dry run" in out
    assert not Provider.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--json"]])
def test_no_secret_of_a_foreign_file_is_ever_shown(file, flags, caplog):
    config = f'slack_hook = "{HOOK}"\n' + LATER + f'[context.secrets]\nDSN = "postgres://me:{PASSWORD}@host/db"\n'
    shown = ""
    for text, name in ((config, "config.toml"), (SETTINGS, "settings.py")):
        for broken in (text, text.replace("=", "= =", 1), text.replace('"https', 'x"https'), text.replace(f'"{PASSWORD}"', f"{PASSWORD}")):
            for words in ([], ["--warehouse", "default"]):
                shown += "".join(map(str, run("import_config", file(broken, name), *flags, *words)))
                shown += repr(importers.plan([file(broken, name)]))
    shown += own.write(own.document()) + "".join(map(str, AuditEntry.objects.values_list("details", "result"))) + caplog.text
    for secret in (TOKEN, HOOK, PASSWORD, "canary"):
        assert secret not in shown


def test_what_was_imported_is_exported_and_comes_back_to_the_letter(file):
    for text, name in ((LATER, "config.toml"), (SETTINGS, "settings.py")):
        run("import_config", file(text, name), "--warehouse", "default")
    exported = own.write(own.document())
    assert run("import_config", file(exported, "city.yaml"))[0] == 3  # nothing to do
    Pipeline.objects.all().delete()
    Dataset.objects.all().delete()
    Provider.objects.all().delete()
    assert run("import_config", file(exported, "city.yaml"))[0] == 0
    assert own.write(own.document()) == exported


# the whole way


def loaded(slug, **order):
    """What one load of a pipeline inserted, updated and deleted, ordered and worked off as a person does it."""
    order = planner.Order([Pipeline.objects.get(slug=slug)], **order)
    placed = planner.place(order, actor=ME, trigger="command", bell=False)
    assert placed.moved, placed.refused
    runner.work_off(placed.moved, workers=1)
    block = ScheduleBlock.objects.get(pipeline__slug=slug)
    assert block.state == "done", (block.message, block.next_step)
    run = Run.objects.filter(block=block, stage="load").first()
    return run.inserted, run.updated, run.deleted


@pytest.mark.django_db(transaction=True)
def test_the_rows_of_both_old_configurations_arrive_and_a_second_load_changes_nothing(stage_scene, file):  # noqa: F811
    fields = [(name, guess_type(name)) for name in re.findall(r"^(\w+) = ", LATER[LATER.index("[data.fields]") :], re.MULTILINE)]

    def request(number, year):
        when = f"{year}-01-02T08:{number % 60:02}:00"
        return (f"1-{year}{number}", "Bulky Items", when, when, "19", "90001", "34.19402846", "-118.4994716")

    both = ("1-870704814", "Bulky Items", "2020-12-31T23:59:00", None, "19", "90001", None, None)
    older, newer = ((*both[:3], updated, *both[4:]) for updated in ("2020-12-31T23:59:00", "2021-01-04T08:00:00"))
    pets = [("2019-01-02", "21091", "Molly", "Dog"), ("2019-01-02", "21091", "Twana", "Dog"), ("2019-01-02", "21091", "Twana", "Dog")]
    pet_columns = (("license_issue_date", "calendar_date"), ("license_number", "text"), ("animal_s_name", "text"), ("species", "text"))
    portal = Portal(
        SandboxTable("aaaa-2020", "2020", fields, [*(request(number, 2020) for number in range(50)), older], key="srnumber"),
        SandboxTable("aaaa-2021", "2021", fields, [newer, *(request(number, 2021) for number in range(40))], key="srnumber"),
        SandboxTable("pets-0001", "Pets", pet_columns, pets, key=""),
    ).start()
    try:
        config = LATER.replace("data.city.example", portal.url).replace('["service_requests", "open_requests"]', "[]")
        config = config.replace("https://api.city.example", "").replace("https://reports.city.example/", "")
        # its list names a column that the source never had
        topics = SETTINGS.replace("data.city.example", portal.url).replace("'license_number, ", "'pet_license_number, ")
        assert run("import_config", file(config, "config.toml"))[0] == 0
        assert run("import_config", file(topics, "settings.py"), "--warehouse", "default")[0] == 0
        assert loaded("requests-2021") == (41, 0, 0)
        assert loaded("requests-2020") == (50, 0, 0)
        assert loaded("pet-license") == (3, 0, 0)
        rows = city("select srnumber, updateddate, nc, zipcode from city.requests order by srnumber")
        assert len(rows) == 91
        assert rows[-1] == ("1-870704814", datetime(2021, 1, 4, 8), 19, "90001")
        assert city("select animal_s_name, license_issue_date from city.pet_license order by 1") == [
            ("Molly", datetime(2019, 1, 2)),
            ("Twana", datetime(2019, 1, 2)),
            ("Twana", datetime(2019, 1, 2)),
        ]
        for slug in ("requests-2021", "requests-2020", "pet-license"):
            assert loaded(slug, which="all", force=True) == (0, 0, 0)
    finally:
        portal.stop()
