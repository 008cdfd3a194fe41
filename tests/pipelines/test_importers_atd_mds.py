"""The configuration of atd-mds: as it is, encrypted or not, from a file or from S3, it becomes operators that can run, and goes back."""

import json
import os
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from moto.server import ThreadedMotoServer

from catalog import lake
from catalog.audit import Actor
from catalog.models import AuditEntry, BoundaryLayer
from opendata_ops.sandbox import areas
from opendata_ops.sandbox import city as sandbox
from opendata_ops.sandbox.mds import MdsServer, OAuth
from opendata_ops.sandbox.mds_trips import Fleet
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as Table
from pipelines import importers, planner, runner
from pipelines.importers import areas as importers_areas
from pipelines.importers import atd_mds, files, json_lines
from pipelines.importers.plan import Plan
from pipelines.models import Enrichment, Pipeline, Provider, RegisteredOperator, ScheduleBlock
from pipelines.stages import outside, release
from tests.catalog.test_lake import give_credentials
from tests.pipelines.scene import drop_city
from tests.pipelines.test_config_commands import run
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db
ME = Actor("test")
HOUR = datetime(2026, 3, 10, 22, tzinfo=UTC)
KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
POLYGONS = Path("/work/shared/data/polygons")

PROVIDERS = {
    "bird": {
        "auth_type": "Bearer",
        "token": "canary-token-1Aa",
        "mds_api_url": "https://mds.bird.example",
        "version": "0.3.0",
        "headers": {"App-Version": "3.0.0", "X-Api-Key": "canary-header-2Bb"},
        "interval": 30,
        "time_format": "unix",
        "delay": 1.5,
        "max_attempts": 4,
        "paging": False,
        "provider_id": "2411d395-04f2-47c9-ab66-d09e9e3c3251",
    },
    "jump": {
        "auth_type": "oauth",
        "token_url": "https://login.example/oauth/v2/token",
        "auth_token_res_key": "access_token",
        "auth_data": {"client_id": "canary-id-3Cc", "client_secret": "canary-secret-4Dd", "grant_type": "client_credentials", "scope": "mds"},
        "request": {"auth": {"headers": {"Authorization": "Basic canary-basic-5Ee"}}},
        "mds_api_url": "https://api.example/v0.2/emobility/mds",
        "version": "0.2.0",
        "timeout": 10,
        "mds_param_override": {"start_time": "min_end_time", "end_time": "max_end_time"},
    },
    "lyft": {
        "auth_type": "Basic",
        "auth_data": {"username": "city", "password": "canary-password-6Ff"},
        "mds_api_url": "https://api.lyft.example",
        "version": "0.4.0",
        "paging": True,
    },
    "sample_co": {
        "auth_type": "Custom",
        "headers": {"Authorization": "canary-custom-7Gg"},
        "mds_api_url": "https://sample.example",
        "version": "0.2.0",
    },
    "VeoRide INC.": {"auth_type": "Bearer", "token": "canary-veo-8Hh", "mds_api_url": "https://veo.example", "version": "0.2.0"},
}
SETTINGS = {
    "HASURA_ENDPOINT": "https://hasura.example/v1/graphql",
    "HASURA_ADMIN_KEY": "canary-hasura-9Ii",
    "SOCRATA_DATA_ENDPOINT": "data.austintexas.gov",
    "SOCRATA_DATASET": "7d8e-dm7r",
    "SOCRATA_APP_TOKEN": "canary-app-1Jj",
    "SOCRATA_KEY_ID": "the-key-id",
    "SOCRATA_KEY_SECRET": "canary-key-2Kk",
}


@pytest.fixture(autouse=True)
def no_key_of_the_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ATD_MDS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path):
    def write(value, name="providers_staging.json"):
        path = tmp_path / name
        text = value if isinstance(value, str | bytes) else json.dumps(value, indent=4)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def both(file):
    return [file(PROVIDERS), file(SETTINGS, "settings_staging.json")]


def planned(*paths, **more) -> Plan:
    return importers.plan(paths, **more)


def imported(*paths, **more):
    return importers.apply(planned(*paths, **more), actor=ME)


def changed(said: dict, **keys) -> dict:
    """bird alone, with these keys; None takes one out."""
    bird = {**PROVIDERS["bird"], **said, **keys}
    return {"bird": {key: value for key, value in bird.items() if value is not None}}


# what it makes


@pytest.mark.django_db(transaction=True)
def test_an_operator_of_an_imported_configuration_runs_from_its_api_to_the_portal(file, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    told = sandbox.TRIPS
    public = Table(told.target_id, told.title, [(column.name, column.type) for column in told.columns], [], key=told.key)
    fleet = Fleet("Bird", seed="atd bird", hourly=5, devices=3)
    with ExitStack() as city:
        portal = Portal(public, accounts={"the-key-id": "the-key-secret"}).start()
        city.callback(portal.stop)
        server = MdsServer(fleet, version="0.3", auth=OAuth(), renamed={"min_end_time": "start_time"}).start()
        city.callback(server.stop)
        city.callback(drop_city)
        portal_keys = {
            "SOCRATA_DATA_ENDPOINT": portal.url,
            "SOCRATA_DATASET": told.target_id,
            "SOCRATA_KEY_ID": "the-key-id",
            "SOCRATA_KEY_SECRET": "the-key-secret",
        }
        layers = [file(made(), f"{name}.geojson") for name, made in (("districts", areas.districts), ("tracts", areas.tracts))]
        imported(file({"bird": server.upstream_entry()}), file(portal_keys, "settings_staging.json"), *layers)
        Pipeline.objects.update(starts_on=HOUR.date())
        order = planner.Order(list(Pipeline.objects.all()), starts_at=HOUR, ends_at=HOUR + timedelta(hours=1), which="all")
        runner.work_off(planner.place(order, actor=ME, bell=False).moved, workers=1)
        block = ScheduleBlock.objects.get()
        assert (block.state, block.rows) == ("done", 5), block.message
        published = list(portal.dataset(told.target_id).rows)
        assert len(published) == 5 and fleet.provider_id not in str(published)


def test_both_files_make_operators_and_pipelines_that_can_run_and_publish(both):
    report = imported(*both)
    assert [(one.kind, one.slug) for one in report.created if one.kind != "provider"] == [
        ("dataset", "shared-micromobility-trips"),
        *(("pipeline", f"{slug}-trips") for slug in ("bird", "jump", "lyft", "sample_co", "veoride-inc")),
    ]
    pipeline = Pipeline.objects.get(slug="bird-trips")
    assert (pipeline.format, pipeline.resource, pipeline.cadence, pipeline.window_column) == ("mds_trips", "trips", "hourly", "end_time")
    assert (pipeline.settle_minutes, pipeline.time_zone, pipeline.table) == (1800, "America/Chicago", "trips")
    assert (pipeline.key, pipeline.load_mode) == (["provider_id", "trip_id"], "upsert")
    assert pipeline.stages == ["extract", "standardize", "enrich", "load", "publish"]
    assert (pipeline.portal.slug, pipeline.portal.kind, pipeline.portal_resource) == ("data-austintexas-gov", "socrata", "7d8e-dm7r")
    assert (pipeline.release, pipeline.private_columns) == (release.ATD_TRIPS, release.ATD_PRIVATE)
    assert release.problems(pipeline) == []
    assert {one.dataset.slug for one in Pipeline.objects.all()} == {"shared-micromobility-trips"}


def test_every_key_reaches_the_connector(both):
    imported(*both)
    bird, jump, lyft, sample, veo = (Provider.objects.get(slug=slug) for slug in ("bird", "jump", "lyft", "sample_co", "veoride-inc"))

    asked = outside.connector(bird)
    assert bird.base_url == "https://mds.bird.example"
    assert (asked.version, asked.manners.attempts, asked.manners.delay, asked.is_on("paging")) == ((0, 3), 4, 1.5, False)
    assert asked.plain("timeout") == "30" and asked.plain("provider_id") == PROVIDERS["bird"]["provider_id"]
    assert bird.account().secrets["token"] == "canary-token-1Aa"
    assert (asked._table("headers"), asked._table("auth_headers")) == ({"App-Version": "3.0.0"}, {"X-Api-Key": "canary-header-2Bb"})
    asked = outside.connector(jump)
    assert asked._table("auth_data") == jump_data() and asked.plain("token_url") == "https://login.example/oauth/v2/token"
    assert asked._table("token_headers") == {"Authorization": "Basic canary-basic-5Ee"}
    assert asked._table("mds_param_override") == {"start_time": "min_end_time", "end_time": "max_end_time"}
    assert asked.plain("timeout") == "10" and asked.plain("auth_token_res_key") == "access_token"
    asked = outside.connector(lyft)
    assert asked._table("auth_data") == {"username": "city", "password": "canary-password-6Ff"} and asked.is_on("paging")
    assert outside.connector(sample)._table("auth_headers") == {"Authorization": "canary-custom-7Gg"}
    assert [outside.connector(one).choice("auth_type", ("bearer", "oauth", "basic", "custom")) for one in (bird, jump, lyft, sample)] == [
        "bearer", "oauth", "basic", "custom",
    ]  # fmt: skip
    assert outside.connector(veo).id_rule == "integers-to-uuid"


def jump_data():
    return PROVIDERS["jump"]["auth_data"]


def test_no_secret_is_shown_or_stored_in_clear(both, capsys):
    told = planned(*both)
    code, out, err = run("import_config", *both, "--json")
    assert code == 0
    rows = [list(model.objects.values()) for model in (Provider, Pipeline, AuditEntry)]
    for text in (out, err, *capsys.readouterr(), repr(told), repr(rows)):
        assert "canary" not in text


def test_mistakes_never_repeat_a_secret(file):
    broken = json.dumps(PROVIDERS).replace('"version": "0.4.0"', '"version": 4')
    for text in (broken, broken.replace("canary-token-1Aa", "canary-\\q"), '{"bird": {"auth_type": "Bearer", "token": ["canary"]}}', broken[:-9]):
        problems = planned(file(text)).problems
        assert problems and "canary" not in repr(problems)


def test_a_time_out_that_atd_mds_read_from_interval_is_told(both):
    notes = planned(*both).notes
    assert "bird.interval: atd-mds read its time-out from here, and so it is taken here." in notes
    assert not any(note.startswith("jump") for note in notes)


def test_where_both_time_outs_stand_the_documented_one_counts_and_that_is_told(file):
    path = file(changed({"timeout": 7}))
    assert any("here the time-out is 7 s, as `timeout` says" in note for note in planned(path).notes)
    imported(path)
    assert Provider.objects.get().parameters["timeout"] == "7"


def test_hasura_is_told_as_not_needed_and_its_key_is_not_kept(both):
    assert any(note.startswith("Not needed here, and left out: HASURA_ENDPOINT, HASURA_ADMIN_KEY.") for note in planned(*both).notes)


def test_code_is_told_and_not_executed(file):
    for key, value in (("custom_client", "os.system"), ("custom_function", "lambda config: {}")):
        told = planned(file(changed({}, **{key: value})))
        assert not told.problems
        assert [(one.field, one.line > 1) for one in told.warnings] == [(f"bird.{key}", True)]
        assert "nothing of a configuration is executed" in told.warnings[0].message


def test_providers_alone_load_and_do_not_publish_and_later_both_do(file, both):
    imported(both[0])
    pipeline = Pipeline.objects.get(slug="bird-trips")
    assert pipeline.stages[-1] == "load" and pipeline.portal is None
    imported(*both)
    pipeline.refresh_from_db()
    assert pipeline.stages[-1] == "publish" and pipeline.portal_resource == "7d8e-dm7r"


def test_settings_alone_make_the_portal(both):
    report = imported(both[1])
    assert [one.slug for one in report.created] == ["data-austintexas-gov"]
    assert any("import them together with providers" in note for note in report.notes)


def test_what_a_person_changed_since_stays_and_what_the_file_says_counts(both, file):
    imported(*both)
    bird = Provider.objects.get(slug="bird")
    bird.title, bird.parameters = "Bird, Inc.", {**bird.parameters, "overlap_hours": "3", "delay": "99"}
    bird.save()
    Pipeline.objects.filter(slug="bird-trips").update(settle_minutes=60, table="scooter_trips", raw_names="atd-mds")
    imported(both[1], file({**PROVIDERS, **changed({"max_attempts": None})}))
    bird.refresh_from_db()
    assert (bird.title, bird.parameters["overlap_hours"], bird.parameters["delay"]) == ("Bird, Inc.", "3", "1.5")
    assert "max_attempts" not in bird.parameters
    assert Pipeline.objects.values_list("settle_minutes", "table", "raw_names").get(slug="bird-trips") == (60, "scooter_trips", "atd-mds")


# mistakes

CASES = [
    (changed({"auth_type": None}), "bird.auth_type", "none", "OAuth, Bearer, Basic, Custom"),
    (changed({"auth_type": "Digest"}), "bird.auth_type", "'Digest'", "Bearer"),
    (changed({"token": None}), "bird.token", "Bearer needs it", ""),
    (changed({"auth_type": "OAuth"}), "bird.token_url", "OAuth needs it", ""),
    (changed({"auth_type": "Basic", "auth_data": {"password": "x"}}), "bird.auth_data.username", "needs a user name", ""),
    (changed({"mds_api_url": None}), "bird.mds_api_url", "needs its address", "without /trips"),
    (changed({"mds_api_url": "mds.bird.co"}), "bird.mds_api_url", "no address of the web", "https://"),
    (changed({"version": "0.5.0"}), "bird.version", "no version of MDS", "2.1.0"),
    (changed({"version": 0.3}), "bird.version", "A number stands where text is wanted", ""),
    (changed({"paging": "yes"}), "bird.paging", "Text stands where true or false is wanted", ""),
    (changed({"delay": True}), "bird.delay", "True or false stands where a number is wanted", ""),
    (changed({"interval": 0}), "bird.interval", "above 0", ""),
    (changed({"mds_param_override": {"start_tme": "x"}}), "bird.mds_param_override.start_tme", "Nothing is asked by", "start_time"),
    (changed({"mds_param_override": {"end_time": 1}}), "bird.mds_param_override.end_time", "text is wanted", ""),
    (changed({"headers": ["x"]}), "bird.headers", "A list stands where an object is wanted", ""),
    (changed({"max_atempts": 3}), "bird.max_atempts", "There is no key", "max_attempts"),
    ({"bird": 3, "lyft": PROVIDERS["lyft"]}, "bird", "an operator's object is wanted", ""),
    ({"bird": PROVIDERS["lyft"], "Bird": PROVIDERS["lyft"]}, "Bird", "the same name here as 'bird'", ""),
    ({"…": PROVIDERS["lyft"]}, "…", "no name for a provider", ""),
    ({**SETTINGS, "SOCRATA_DATASET": "nonsense"}, "SOCRATA_DATASET", "not the id", "eight characters"),
    ({**SETTINGS, "SOCRATA_DATASET": None}, "SOCRATA_DATASET", "needed", "7d8e-dm7r"),
    ({**SETTINGS, "SOCRATA_DATA_ENDPOINT": "https://x/y"}, "SOCRATA_DATA_ENDPOINT", "address of a page", ""),
    ({**SETTINGS, "SOCRATA_KEY_ID": 5}, "SOCRATA_KEY_ID", "A number stands where text is wanted", ""),
    ({**SETTINGS, "SOCRATA_KEY_IDD": "5"}, "SOCRATA_KEY_IDD", "There is no key", "SOCRATA_KEY_ID"),
]


@pytest.mark.parametrize(("said", "field", "message", "next_step"), CASES, ids=[f"{case[1]}: {case[2]}"[:60] for case in CASES])
def test_a_mistake_names_file_line_and_field_and_nothing_is_written(file, said, field, message, next_step):
    path = file(said)
    found = [one for one in planned(path).problems if one.field == field]
    assert found and message in found[0].message and next_step in found[0].next_step and found[0].next_step
    key = field.rpartition(".")[2]
    lines = Path(path).read_text().splitlines()
    assert found[0].file == path and (f'"{key}"' not in "".join(lines) or f'"{key}"' in lines[found[0].line - 1])
    with pytest.raises(importers.Refused):
        imported(path)
    assert not Provider.objects.exists()


def test_a_name_that_stands_twice_and_a_broken_file_are_told_with_their_line(file):
    twice = '{"bird": {"auth_type": "Bearer", "token": "a",\n"mds_api_url": "https://x.example",\n"token": "b"}}'
    (problem,) = planned(file(twice)).problems
    assert (problem.line, problem.field, problem.message) == (3, "bird.token", "It stands here twice; first on line 1.")
    (problem,) = planned(file('{"bird": {\n"auth_type": "Bearer",\n}}')).problems
    assert (problem.line, problem.message) == (2, "This is not JSON: a comma stands before the end, and nothing after it.")


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"}', '{"a":1}x', "[1,]", '{"a": NaN}', '{"a": "\n"}', "[" * 200, '{"a": 1' + "0" * 5000 + "}", '{"a":\\u1}']
)
def test_what_is_no_json_is_refused_in_words(text):
    with pytest.raises(json_lines.NotJSON) as refusal:
        json_lines.parse(text)
    assert refusal.value.line >= 1 and refusal.value.message


def test_json_is_read_as_python_reads_it_and_each_name_has_its_line():
    text = '{ "a": [1, {"b": null}],\r\n "c": "\\u00e9\\n", "d": {"e": -1.5e3, "f": [], "g": {}, "h": true} }\n'
    told = json_lines.parse(text)
    assert told.value == json.loads(text)
    assert told.lines == {"a.2.b": 1, "a": 1, "c": 2, "d": 2, "d.e": 2, "d.f": 2, "d.g": 2, "d.h": 2}


# encrypted


def test_an_encrypted_file_is_opened_by_the_key_that_the_environment_names(file, monkeypatch):
    path = file(Fernet(KEY).encrypt(json.dumps(PROVIDERS).encode()))
    monkeypatch.setenv("MY_KEY", KEY)
    code, out, err = run("import_config", path, "--fernet-key-env", "MY_KEY")
    assert (code, Provider.objects.count()) == (0, 5)
    assert KEY not in out + err
    Provider.objects.all().update(title="x")
    monkeypatch.setenv("ATD_MDS_FERNET_KEY", KEY)
    assert run("import_config", path)[0] == 3  # and by upstream's own variable, without being asked


def test_a_person_at_a_terminal_is_asked_for_the_key_once(file, monkeypatch):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or KEY)
    paths = [file(Fernet(KEY).encrypt(json.dumps(one).encode()), name) for one, name in ((PROVIDERS, "p.json"), (SETTINGS, "s.json"))]
    assert run("import_config", *paths)[0] == 0
    assert asked == ["Fernet key of the encrypted files: "]


@pytest.mark.parametrize(
    ("key", "words"),
    [(OTHER_KEY, "the key that was given does not open it"), ("short", "is no Fernet key"), ("", "no key was given"), ("é" * 44, "is no Fernet key")],
    # names of their own: a key is another in each process, and the processes must agree on the list of tests
    ids=["another", "short", "none", "letters"],
)
def test_a_wrong_key_is_a_clear_error_and_never_an_empty_configuration(file, key, words):
    path = file(Fernet(KEY).encrypt(json.dumps(PROVIDERS).encode()))
    (problem,) = planned(path, key_for=lambda path: key).problems
    assert words in problem.message and "--fernet-key-env" in problem.next_step + "--fernet-key-env"
    assert not key or key not in problem.message + problem.next_step
    assert not planned(path, key_for=lambda path: key).wanted


def test_a_cut_encrypted_file_is_refused(file):
    path = file(Fernet(KEY).encrypt(json.dumps(PROVIDERS).encode())[:-40])
    assert "does not open it (or the file was cut or changed)" in planned(path, key_for=lambda path: KEY).problems[0].message


def test_a_variable_that_is_not_there_is_told_by_its_name(both):
    code, _, err = run("import_config", both[0], "--fernet-key-env", "NO_SUCH_KEY")
    assert (code, Provider.objects.count()) == (2, 0)
    assert "The environment has no NO_SUCH_KEY." in err


# there and back


def back(what="providers", *words):
    code, out, err = run("export_config", "--format", "atd-mds", "--what", what, *words)
    assert code == 0, err
    return json.loads(out)


def test_what_was_imported_comes_back_with_its_secrets_on_an_explicit_word_only(both):
    imported(*both)
    assert back("providers", "--with-secrets") == PROVIDERS
    assert back("settings", "--with-secrets") == {**SETTINGS, "HASURA_ENDPOINT": "", "HASURA_ADMIN_KEY": ""}
    audited = AuditEntry.objects.filter(verb="export", kind="secret")
    assert [entry.target for entry in audited.order_by("pk")] == ["bird, jump, lyft, sample_co, veoride-inc", "data-austintexas-gov"]


def test_without_that_word_no_secret_leaves_and_reading_it_back_changes_nothing(both, file):
    imported(*both)
    stored = list(Provider.objects.order_by("pk").values())
    providers, portal = back(), back("settings")
    assert "canary" not in json.dumps([providers, portal])
    assert providers["jump"]["auth_data"] == dict.fromkeys(jump_data(), "sealed")
    assert providers["bird"]["headers"] == {"App-Version": "3.0.0", "X-Api-Key": "sealed"}
    again = imported(file(providers), file(portal, "settings_staging.json"))
    assert (again.created, again.changed) == ((), ())
    assert list(Provider.objects.order_by("pk").values()) == stored


def test_a_secret_of_the_environment_is_told_by_its_name_and_read_so(file):
    imported(file(changed({"token": "env:BIRD_TOKEN", "headers": None})))
    assert Provider.objects.get().secrets == {"token": "env:BIRD_TOKEN"}
    assert back()["bird"]["token"] == "env:BIRD_TOKEN"


def test_an_export_may_be_encrypted_as_atd_mds_wants_it_and_only_its_owner_reads_it(both, tmp_path, monkeypatch):
    imported(*both)
    monkeypatch.setenv("MY_KEY", KEY)
    path = tmp_path / "providers_production.json"
    words = ("--format", "atd-mds", "--what", "providers", "--with-secrets", "--fernet-key-env", "MY_KEY", "-o", path)
    assert run("export_config", *words)[0] == 0
    content = path.read_bytes()
    assert content[1:6] == b"AAAAA" and path.stat().st_mode & 0o077 == 0  # by which atd-mds knows it
    assert json.loads(Fernet(KEY).decrypt(content)) == PROVIDERS
    Provider.objects.filter(slug="bird").update(base_url="https://other.example")
    with pytest.raises(importers.Refused) as refusal:
        imported(str(path), key_for=lambda path: OTHER_KEY)
    assert "does not open it" in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "atd-mds"), "Which file of atd-mds is wanted?"),
        (("--what", "providers"), "--what belongs to --format atd-mds."),
        (("--with-secrets",), "--with-secrets belongs to --format atd-mds."),
        (("--format", "atd-mds", "--what", "settings", "lyft-trips"), "None of these pipelines publishes."),
        (("--format", "atd-mds", "--what", "providers", "--fernet-key-env", "NO_SUCH"), "The environment has no NO_SUCH."),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(both, words, said):
    imported(both[0])
    code, out, err = run("export_config", *words)
    assert (code, out) == (2, "") and said in err


def test_on_the_production_system_secrets_leave_for_a_reason_only(both, settings):
    imported(*both)
    settings.ENVIRONMENT = "prod"
    words = ("export_config", "--format", "atd-mds", "--what", "settings", "--with-secrets")
    code, out, _ = run(*words)
    assert (code, out) == (2, "")
    assert run(*words, "--reason", "moving house")[0] == 0
    assert AuditEntry.objects.get(verb="export").reason == "moving house"


# S3


@pytest.fixture(scope="module")
def storage():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        give_credentials(patch, "http://{}:{}".format(*server.get_host_and_port()))
        client = lake.s3_client()
        client.create_bucket(Bucket="atd-config")
        yield client
        client.close()
    server.stop()


def put(storage, key, value, fernet=None):
    content = json.dumps(value).encode()
    storage.put_object(Bucket="atd-config", Key=key, Body=Fernet(fernet).encrypt(content) if fernet else content)


def test_a_configuration_is_read_from_a_bucket_and_written_there(storage, monkeypatch):
    put(storage, "config/providers_staging.json", PROVIDERS, KEY)
    put(storage, "config/settings_staging.json", SETTINGS)
    monkeypatch.setenv("ATD_MDS_FERNET_KEY", KEY)
    names = [f"s3://atd-config/config/{what}_staging.json" for what in ("providers", "settings")]
    assert run("import_config", *names)[0] == 0
    assert Pipeline.objects.filter(portal__slug="data-austintexas-gov").count() == 5
    out = "s3://atd-config/back/providers.json"
    words = ("--format", "atd-mds", "--what", "providers", "--with-secrets", "--fernet-key-env", "ATD_MDS_FERNET_KEY", "-o", out)
    assert run("export_config", *words)[0] == 0
    assert json.loads(Fernet(KEY).decrypt(files.read(out))) == PROVIDERS


def test_the_env_file_of_atd_mds_leads_to_its_configuration(storage, file):
    put(storage, "config/providers_production.json", PROVIDERS, KEY)
    put(storage, "elsewhere/settings.json", SETTINGS, KEY)
    file(areas.districts(), "districts.geojson")
    text = f"""\
# atd-mds
AWS_ACCESS_KEY_ID=other
AWS_SECRET_ACCESS_KEY='canary-aws'
ATD_MDS_BUCKET=atd-config   # where it lies
export ATD_MDS_FERNET_KEY="{KEY}"
ATD_MDS_RUN_MODE=PRODUCTION
ATD_MDS_SETTINGS=elsewhere/settings.json
ATD_MDS_DISTRICTS_GEOJSON=districts.geojson
"""
    code, out, err = run("import_config", file(text, "staging.env"))
    assert code == 0, err
    assert "leads to s3://atd-config/config/providers_production.json, s3://atd-config/elsewhere/settings.json" in out
    assert KEY not in out + err and "canary" not in out + err
    assert BoundaryLayer.objects.get().slug == "council-districts"
    assert Enrichment.objects.filter(column="council_district_end").count() == 5


def test_an_env_file_without_a_bucket_is_refused_in_words(file):
    (problem,) = planned(file("ATD_MDS_RUN_MODE=STAGING\n", ".env")).problems
    assert problem.field == "ATD_MDS_BUCKET" and "name the files themselves" in problem.next_step


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://atd-config/none.json", "There is no such file in S3."),
        ("s3://no-such-bucket/x.json", "There is no such bucket in S3."),
        ("s3://atd-config", "This is no address of a file in S3."),
    ],
)
def test_what_is_not_in_s3_is_told(storage, address, words):
    (problem,) = planned(address).problems
    assert (problem.file, problem.message) == (address, words)


def test_a_storage_that_cannot_be_reached_is_told_without_credentials(monkeypatch):
    give_credentials(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    (problem,) = planned("s3://atd-config/x.json").problems
    assert "can't be reached" in problem.message and "not-a-secret" not in problem.message


# areas


def test_areas_that_are_named_with_it_are_looked_up_for_both_ends_of_each_trip(both, file):
    districts, tracts = file(areas.districts(), "districts.json"), file(areas.tracts(), "tracts.geojson")
    report = imported(*both, districts, tracts)
    assert {layer.slug: layer.key_property for layer in BoundaryLayer.objects.all()} == {
        "council-districts": "district_n",
        "census-tracts": "GEOID10",
    }
    columns = list(Enrichment.objects.filter(pipeline__slug="bird-trips").order_by("position").values_list("column", "lon_column", "layer__slug"))
    assert columns == [
        ("council_district_start", "start_lon", "council-districts"),
        ("council_district_end", "end_lon", "council-districts"),
        ("census_geoid_start", "start_lon", "census-tracts"),
        ("census_geoid_end", "end_lon", "census-tracts"),
    ]
    assert [note for note in report.notes if "trip-cells" in note]  # what is missing is said, once
    assert len([note for note in report.notes if "boundary layer" in note]) == 1


def test_a_layer_of_another_name_is_known_by_its_key_and_a_steward_s_own_choice_stays(both, file):
    imported(file(areas.districts(), "districts.json"))
    BoundaryLayer.objects.update(slug="our-districts")
    imported(*both)
    assert set(Enrichment.objects.values_list("layer__slug", flat=True)) == {"our-districts"}
    Enrichment.objects.filter(pipeline__slug="bird-trips", column="council_district_end").update(lat_column="other")
    assert imported(*both).changed == ()


@pytest.mark.skipif(not POLYGONS.is_dir(), reason="the real polygons are not on this machine")
def test_austins_own_files_become_its_three_layers():
    names = ("council_districts_simplified.json", "census_tracts_2010_simplified_20pct.json")
    imported(*(str(POLYGONS / name) for name in names))
    told = {layer.slug: (layer.key_property, layer.areas) for layer in BoundaryLayer.objects.defer("content")}
    assert told == {"council-districts": ("district_n", 10), "census-tracts": ("GEOID10", 332)}
    # the grid has 4,633 cells, which take seconds
    (grid,) = importers_areas.read("hex1000.json", (POLYGONS / "hex1000.json").read_text()).wanted
    assert (grid.slug, grid.first["key_property"]) == ("trip-cells", "id")


# the registry

REGISTRY = """\
provider_name,mode_id,provider_id,url,mds_api_url,gbfs_api_url
Bird,micromobility,2411D395-04f2-47c9-ab66-d09e9e3c3251,https://www.bird.co,https://mds.bird.co,https://mds.bird.co/gbfs
"LEO, Explore",micromobility,7c653014-2f33-4f5b-98de-30ea66430986,https://leoride.co/,,
Bird,car-share,2411d395-04f2-47c9-ab66-d09e9e3c3251,,,
"""


def test_the_registry_of_operators_is_added_and_brought_up_to_date(file):
    assert len(imported(file(REGISTRY, "providers.csv")).created) == 3
    assert imported(file(REGISTRY, "providers.csv")).changed == ()
    report = imported(file(REGISTRY.replace("https://mds.bird.co,", "https://mds2.bird.co,"), "providers.csv"))
    assert [(one.kind, one.slug) for one in report.changed] == [("operator", "2411d395-04f2-47c9-ab66-d09e9e3c3251 micromobility")]
    assert RegisteredOperator.objects.get(operator_id="2411d395-04f2-47c9-ab66-d09e9e3c3251", mode="micromobility").mds_api_url.startswith(
        "https://mds2"
    )
    assert RegisteredOperator.objects.filter(mds_api_url="").count() == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (REGISTRY.replace(",,,", ",,"), 4, "This line has 5 values"),
        (REGISTRY.replace("7c653014-2f33-4f5b-98de-30ea66430986", ""), 3, "an operator needs it"),
        (REGISTRY.replace('"LEO, Explore"', '"LEO'), 3, "This is not CSV"),
        (REGISTRY.replace("https://www.bird.co", "x" * 600), 2, "500 characters"),
    ],
)
def test_a_line_of_the_registry_that_is_wrong_is_told(file, text, line, words):
    problems = planned(file(text, "providers.csv")).problems
    assert any(words in problem.message and problem.line >= line for problem in problems), problems


def test_a_registry_that_names_an_operator_twice_or_no_modes_is_read(file):
    told = planned(file(REGISTRY.replace("car-share", "micromobility"), "providers.csv"))
    assert (len(told.wanted), [warning.line for warning in told.warnings]) == (2, [4])
    older = "provider_name,provider_id,url,mds_api_url,gbfs_api_url\nLeo&Go,84b174c4-eb74-5d07-bdeb-27f4215d2aa9,https://x.example,,\n"
    imported(file(older, "providers.csv"))
    assert RegisteredOperator.objects.values_list("name", "mode").get() == ("Leo&Go", "")


def test_an_operator_of_the_registry_becomes_a_provider_by_one_action(file, client, admin_user, plain_web):  # noqa: F811
    imported(file(REGISTRY, "providers.csv"))
    client.force_login(admin_user)
    chosen = list(RegisteredOperator.objects.order_by("pk").values_list("pk", flat=True))
    values = {"action": "make_providers", "_selected_action": chosen}
    page = client.post("/admin/pipelines/registeredoperator/", values, follow=True).content.decode()
    assert "is a provider now: enter its log-in" in page
    assert "LEO, Explore names no MDS address in the registry." in page and "Bird is there already: provider bird." not in page
    bird = Provider.objects.get()
    assert (bird.slug, bird.kind, bird.base_url, bird.is_active) == ("bird", "mds", "https://mds.bird.co", False)
    assert bird.parameters == {"provider_id": "2411d395-04f2-47c9-ab66-d09e9e3c3251", "provider_name": "Bird"}
    assert AuditEntry.objects.filter(verb="create", kind="provider", target="bird").count() == 1
    again = client.post("/admin/pipelines/registeredoperator/", values, follow=True).content.decode()
    assert "Bird is there already: provider bird." in again


def test_bare_names_stay_as_they_were():
    assert [atd_mds.slug_of(name) for name in ("bird", "sample_co", "free2move", "VeoRide INC.")] == ["bird", "sample_co", "free2move", "veoride-inc"]
