"""Importing a configuration: all or nothing, to the letter, every mistake with its line, and no secret ever shown."""

import textwrap
from datetime import date, time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.audit import Actor
from catalog.models import AuditEntry, Dataset, DatasetColumn
from pipelines import importers, secrets
from pipelines.errors import SetupError
from pipelines.importers import own, plain
from pipelines.importers.plan import Plan, Wanted
from pipelines.models import AfterRun, AfterStep, Pipeline, Provider

pytestmark = pytest.mark.django_db
ME = Actor("test")
HIDDEN = "hunter2-do-not-show"

MINIMAL = f"""
    providers:
      la:
        kind: socrata
        base_url: https://data.lacity.org
        secrets: {{app_token: env:LA_APP_TOKEN, password: {HIDDEN}}}
    datasets:
      la-311:
        title: MyLA311 service requests
    pipelines:
      la-311-2020:
        provider: la
        dataset: la-311
        resource: rq3b-xjk8
        key: [srnumber]
"""


@pytest.fixture
def file(tmp_path):
    """Writes a configuration and gives its path."""

    def write(text, name="city.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    return write


@pytest.fixture
def imported(file):
    """Imports texts, one file each."""

    def do(*texts, reason=""):
        planned = importers.plan([file(text, f"{number}.yaml") for number, text in enumerate(texts)])
        return importers.apply(planned, actor=ME, reason=reason)

    return do


@pytest.fixture
def refused(file):
    """The problems of a text, as (line, message and next step)."""

    def do(text, name="city.yaml"):
        return [(problem.line, f"{problem.message} {problem.next_step}") for problem in importers.plan([file(text, name)]).problems]

    return do


@pytest.fixture
def city():
    """A configuration with everything in it that is awkward to write down."""
    source = Provider.objects.create(
        slug="la",
        title="Los Ángeles: “open” data # no comment",
        kind="socrata",
        base_url="https://data.lacity.org",
        parameters={"user": "0123"},
        secrets={"app_token": "env:LA_APP_TOKEN", "password": "env:LA_PASSWORD"},
        time_zone="America/Los_Angeles",
        max_parallel=7,
        contact="yes",
    )
    portal = Provider.objects.create(slug="2020-01-02", title="null", kind="csv_file", base_url="/srv/open data", is_active=False)
    dataset = Dataset.objects.create(
        slug="la-311",
        title="311",
        description="First line: a\r\nsecond\n\n  indented – tab\there \ntrailing \n",
        promise_time=time(17, 0),
        steward_email="ana@city.gov",
        access="internal",
        tags="a, b",
    )
    for position, name in ((1, "srnumber"), (0, "no"), (9, "1e3")):
        DatasetColumn.objects.create(
            dataset=dataset, name=name, position=position, label=f"{name}: x", description="one\ntwo", is_published=name != "no"
        )
    pipeline = Pipeline.objects.create(
        slug="la-311-2020",
        title="= 2020",
        provider=source,
        dataset=dataset,
        portal=portal,
        resource="1-2-3",
        portal_resource="~",
        table="la_311",
        key=["no", "1e3"],
        types={"no": "boolean", "1e3": "number"},
        due_time=time(7, 5, 30),
        starts_on=date(2020, 1, 1),
        priority=-3,
        is_paused=True,
        paused_reason="- wait\n- see",
    )
    for position, step in enumerate(
        (
            {"kind": "refresh", "target": "no: view"},
            {"kind": "vacuum", "is_active": False},
            {"kind": "reload", "target": "https://reports.city.example/reload?a=1#b", "expect": "Reloading... # yes"},
            {"kind": "notify", "secret": "env:SLACK_HOOK", "prefix": "[Testing]"},
            {"kind": "notify", "secret": "env:OPS_HOOK", "prefix": ""},
        )
    ):
        AfterStep.objects.create(pipeline=pipeline, position=position * 10, **step)


def wipe():
    Pipeline.objects.all().delete()
    Dataset.objects.all().delete()
    Provider.objects.all().delete()


def exported():
    return own.write(own.document())


# the round trip


def test_export_wipe_import_export_gives_the_same_bytes(city, imported):
    before = exported()
    wipe()
    imported(before)
    assert exported() == before


def test_what_was_imported_is_what_was_exported(city, imported):
    def rows():
        return [plain.plain(thing) for model in (Provider, Dataset, Pipeline) for thing in model.objects.order_by("slug")]

    before, text = rows(), exported()
    wipe()
    imported(text)
    assert rows() == before
    assert Dataset.objects.get().description.startswith("First line: a\r\nsecond")


def test_importing_an_export_where_it_was_made_changes_nothing_and_leaves_no_trace(city, imported):
    Provider.objects.filter(slug="la").update(secrets={"password": secrets.seal(HIDDEN)}, base_url="https://me:geheim@host/x")
    stored = list(Provider.objects.order_by("pk").values())
    positions = list(DatasetColumn.objects.order_by("pk").values())
    report = imported(exported())
    assert (report.created, report.changed, len(report.unchanged)) == ((), (), 4)
    assert list(Provider.objects.order_by("pk").values()) == stored
    assert list(DatasetColumn.objects.order_by("pk").values()) == positions
    assert not AuditEntry.objects.exists()


storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(deadline=None)
@given(description=storable, column=storable.filter(bool), words=st.lists(storable), parameter=storable.filter(bool))
def test_every_text_that_the_database_can_hold_comes_back(description, column, words, parameter):
    text = own.write(
        {
            "datasets": {"x": {"description": description, "columns": {column: {"label": description}}}},
            "pipelines": {"x": {"key": words}},
            "providers": {"x": {"parameters": {parameter: description}}},
        }
    )
    read = own.read("x.yaml", text)
    assert not read.problems
    dataset, pipeline, provider = read.wanted
    assert dataset.values == {"description": description, "columns": {column: {"label": description}}}
    assert pipeline.values == {"key": words}
    assert provider.values == {"parameters": {parameter: description}}


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable,
    lambda inner: st.lists(inner) | st.dictionaries(storable.filter(bool), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(deep=st.lists(jsons) | st.dictionaries(storable.filter(bool), jsons))
def test_json_inside_a_parameter_keeps_its_types(deep):
    read = own.read("x.yaml", own.write({"providers": {"x": {"parameters": {"headers": deep}}}}))
    assert not read.problems
    assert read.wanted[0].values["parameters"]["headers"] == deep


def test_every_setting_of_the_models_is_exported_and_no_state_is():
    assert plain.keys_of("pipeline")[-2:] == ["after", "enrichments"]
    assert {"release", "private_columns", "release_k", "raw_names"} <= set(plain.keys_of("pipeline"))
    assert "surrogate_key" not in plain.keys_of("pipeline")
    assert set(plain.STEP_FIELDS) == {"kind", "target", "expect", "secret", "prefix", "is_active"}
    assert {"slug", "blocked_until", "source_version", "published_seq", "created_at", "id"}.isdisjoint(
        plain.keys_of("pipeline") + plain.keys_of("provider")
    )
    assert {"stages", "portal", "deadline_minutes", "paused_reason", "dataset"} <= set(plain.keys_of("pipeline"))
    assert plain.keys_of("dataset")[-2:] == ["columns", "parts"]


# short files


def test_what_a_sensors_format_wants_to_know_comes_back_with_its_types_and_a_twin_is_no_configuration(city, imported):
    known = {"area": "Austin", "minutes": 15, "ignore_next": False, "names": {"Loop 360_Loop 1": "LOC16-004350"}, "helpers": {"matched": "%m-%d.txt"}}
    pipeline = Pipeline.objects.first()
    Pipeline.objects.filter(pk=pipeline.pk).update(data_source="Bluetooth", inventory="bt", options=known, raw_names="atd-data-lake")
    pipeline.refresh_from_db()
    fields = {field.name: getattr(pipeline, field.attname) for field in Pipeline._meta.concrete_fields if field.name not in ("id", "slug", "twin_of")}
    Pipeline.objects.create(
        slug="twin",
        twin_of=pipeline,
        **{f"{name}_id" if name in ("provider", "dataset", "portal") else name: value for name, value in fields.items()},
    )
    text = own.write(own.document())
    assert "twin" not in own.document()["pipelines"] and pipeline.slug in own.document()["pipelines"]
    Pipeline.objects.all().delete()
    imported(text)
    again = Pipeline.objects.get(slug=pipeline.slug)
    assert (again.data_source, again.inventory, again.options, again.raw_names) == ("Bluetooth", "bt", known, "atd-data-lake")
    assert own.write(own.document()) == text


def test_a_short_file_makes_a_pipeline_that_can_run(imported):
    report = imported(MINIMAL)
    assert [change.slug for change in report.created] == ["la", "la-311", "la-311-2020"]
    pipeline = Pipeline.objects.get()
    assert (pipeline.table, pipeline.title, pipeline.load_mode) == ("la_311_2020", "La 311 2020", "upsert")
    assert pipeline.stages == ["extract", "load"]  # nowhere to publish to


def test_without_a_key_the_rows_are_replaced_and_with_a_portal_they_are_published(imported):
    imported(
        MINIMAL.replace("key: [srnumber]", "portal: files\n        portal_resource: out.csv"),
        "providers: {files: {kind: csv_file, base_url: /srv/open}}",
    )
    pipeline = Pipeline.objects.get()
    assert (pipeline.load_mode, pipeline.stages) == ("replace", ["extract", "load", "publish"])


def test_what_the_file_does_not_name_stays(city, imported):
    before = plain.plain(Pipeline.objects.get())
    report = imported("pipelines: {la-311-2020: {priority: 5}}")
    assert [(change.name, change.before, change.after) for change in report.changed[0].fields] == [("priority", -3, 5)]
    assert plain.plain(Pipeline.objects.get()) == {**before, "priority": 5}
    assert Provider.objects.count() == 2


def test_texts_stand_as_they_are_written_whatever_yaml_would_make_of_them(imported):
    lines = [
        "key: [no, 1e3, 0123, 12:30]",
        "due_time: 17:30",
        "window_column: yes",
        "starts_on: 2020-01-02",
        "page_size: 50_000",
    ]
    imported(MINIMAL.replace("rq3b-xjk8", "2020-01-01").replace("key: [srnumber]", "\n        ".join(lines)))
    pipeline = Pipeline.objects.get()
    assert (pipeline.resource, pipeline.key, pipeline.window_column) == ("2020-01-01", ["no", "1e3", "0123", "12:30"], "yes")
    assert (pipeline.due_time, pipeline.starts_on, pipeline.page_size) == (time(17, 30), date(2020, 1, 2), 50_000)


def test_references_reach_what_is_stored_already_and_what_another_file_makes(city, imported):
    imported("pipelines: {two: {provider: la, dataset: fresh, resource: x, key: id}}", "datasets: {fresh:}")
    assert Pipeline.objects.get(slug="two").dataset.title == "Fresh"
    assert Pipeline.objects.get(slug="two").key == ["id"]


# the dictionary


def test_columns_that_the_file_does_not_name_stay_after_those_that_it_orders(city, imported):
    imported("datasets: {la-311: {columns: {1e3: {label: Thousand}, fresh: , no: }}}")
    columns = list(Dataset.objects.get().columns.values_list("name", "label", "description", "is_published"))
    assert columns == [
        ("1e3", "Thousand", "one\ntwo", True),
        ("fresh", "", "", True),
        ("no", "no: x", "one\ntwo", False),
        ("srnumber", "srnumber: x", "one\ntwo", True),
    ]


# the steps after a load

STEPS = f"""
    pipelines:
      la-311-2020:
        after:
          - {{kind: refresh, target: service_requests}}
          - kind: post
            target: https://api.city.example/status/reset-cache
          - {{kind: notify, secret: "https://hooks.example/{HIDDEN}", prefix: Testing}}
"""


def steps():
    return [(step.position, step.kind, step.target, step.is_active) for step in AfterStep.objects.order_by("position")]


def test_the_steps_of_a_file_are_made_in_their_order_and_a_webhook_is_sealed(imported):
    imported(MINIMAL)
    imported(STEPS)
    assert steps() == [
        (0, "refresh", "service_requests", True),
        (1, "post", "https://api.city.example/status/reset-cache", True),
        (2, "notify", "", True),
    ]
    stored = AfterStep.objects.get(kind="notify").secret
    assert secrets.reveal(stored) == f"https://hooks.example/{HIDDEN}"
    text = exported()
    assert "secret: sealed" in text
    assert HIDDEN not in text
    assert stored not in text


def test_the_same_steps_again_are_no_change_and_a_new_webhook_is_one_that_is_not_shown(imported):
    imported(MINIMAL)
    imported(STEPS)
    before = list(AfterStep.objects.order_by("pk").values())
    assert not imported(STEPS).changed
    assert list(AfterStep.objects.order_by("pk").values()) == before
    [change] = imported(STEPS.replace(HIDDEN, "another-hook-canary")).changed
    assert [field.name for field in change.fields] == ["after"]
    assert change.fields[0].after[2]["secret"] == "sealed (a new value)"
    assert "canary" not in str(AuditEntry.objects.values_list("details"))
    assert secrets.reveal(AfterStep.objects.get(kind="notify").secret).endswith("another-hook-canary")


def test_steps_that_are_not_named_stay_and_a_list_that_is_named_is_all_there_is(city, imported):
    before = steps()
    imported("pipelines: {la-311-2020: {priority: 5}}")
    assert steps() == before
    imported("pipelines: {la-311-2020: {after: [{kind: vacuum}]}}")
    assert steps() == [(0, "vacuum", "", False)]  # what the file does not say of it stays too
    imported("pipelines: {la-311-2020: {after: }}")
    assert steps() == []


def test_a_step_that_is_changed_or_moved_keeps_its_history(city, imported):
    refresh, hook = AfterStep.objects.get(kind="refresh").pk, AfterStep.objects.get(secret="env:OPS_HOOK").pk
    imported("pipelines: {la-311-2020: {after: [{kind: notify, secret: env:OPS_HOOK}, {kind: refresh, target: other}]}}")
    assert list(AfterStep.objects.order_by("position").values_list("pk", "target")) == [(hook, ""), (refresh, "other")]
    assert not AfterRun.objects.exists()


def test_a_change_of_steps_is_in_the_audit_with_before_and_after(city, imported):
    imported("pipelines: {la-311-2020: {after: [{kind: analyze}]}}", reason="tidy")
    [row] = AuditEntry.objects.all()
    before, after = row.details["changes"]["after"]
    assert [step["kind"] for step in before] == ["refresh", "vacuum", "reload", "notify", "notify"]
    assert after == [{"kind": "analyze", "target": "", "expect": "", "secret": "", "prefix": "", "is_active": True}]
    assert row.reason == "tidy"


def test_a_webhook_that_was_sealed_elsewhere_is_to_be_entered_here(imported):
    imported(MINIMAL)
    imported(STEPS)
    text = exported()
    wipe()
    report = imported(text)
    assert any("step 3 after a load: enter its secret" in note for note in report.notes)
    assert AfterStep.objects.get(kind="notify").secret == ""
    assert exported() == text
    assert not imported(text).changed


def test_a_password_in_a_steps_address_is_not_exported_and_stays_where_it_is(imported, refused):
    imported(MINIMAL)
    imported(STEPS.replace("https://api", f"https://me:{HIDDEN}@api"))
    text = exported()
    assert HIDDEN not in text + str(AuditEntry.objects.values_list("details"))
    assert not imported(text).changed
    assert HIDDEN in AfterStep.objects.get(kind="post").target
    wipe()
    assert [words for _, words in refused(text) if "Write the address anew" in words]


@pytest.mark.parametrize(
    ("line", "step", "words"),
    [
        (4, "{kind: refrsh, target: x}", "Did you mean refresh?"),
        (4, "{knd: refresh}", "Did you mean kind?"),
        (4, "{target: x}", "is not a kind of step"),
        (4, "{kind: refresh, target: }", "which view to refresh"),
        (4, "{kind: post, target: api}", "no address of the web"),
        (4, "{kind: notify, target: 'https://hooks.example/x'}", "Write it under secret"),
        (4, "{kind: notify, secret: }", "Its secret is empty"),
        (4, "{kind: notify, secret: env:DATABASE_URL}", "a secret of this program itself"),
        (4, "{kind: analyze, is_active: maybe}", "Write true or false"),
        (4, "{kind: analyze, prefix: " + "x" * 81 + "}", "The prefix of this step"),
        (4, "analyze", "A single value stands where a mapping is wanted"),
    ],
)
def test_each_mistake_in_a_step_is_told_with_its_line(city, refused, line, step, words):
    problems = refused(f"pipelines:\n  la-311-2020:\n    after:\n      - {step}")
    assert problems[0][0] == line
    assert words in problems[0][1]


# secrets


def test_a_stored_secret_does_not_follow_a_provider_to_another_host(imported, refused):
    imported(MINIMAL)
    text = "providers:\n  la:\n    base_url: https://elsewhere.example"
    assert [words for _, words in refused(text) if "another host" in words]
    imported(text + "\n    secrets: {app_token: env:OTHER, password: entered-anew}")
    assert Provider.objects.get().base_url == "https://elsewhere.example"


def test_a_stored_secret_does_not_follow_a_step_to_another_host(imported, refused):
    post = "pipelines: {la-311-2020: {after: [{kind: post, target: 'https://%s/x'%s}]}}"
    imported(MINIMAL)
    imported(post % ("api.city.example", f", secret: {HIDDEN}"))
    for kept in ("", ", secret: sealed"):
        assert [words for _, words in refused(post % ("elsewhere.example", kept)) if "another host" in words]
    imported(post % ("elsewhere.example", ", secret: "))
    assert AfterStep.objects.get().secret == ""


def test_a_clear_secret_is_sealed_and_stands_nowhere_else(file, caplog):
    planned = importers.plan([file(MINIMAL)])
    report = importers.apply(planned, actor=ME)
    stored = Provider.objects.get().secrets
    assert stored["app_token"] == "env:LA_APP_TOKEN"
    assert stored["password"].startswith("fernet:")
    assert secrets.reveal(stored["password"]) == HIDDEN
    everything = [
        repr(planned),
        repr(report),
        exported(),
        caplog.text,
        *map(str, AuditEntry.objects.values_list("details", "result")),
    ]
    assert not [text for text in everything if HIDDEN in text or stored["password"] in text]


def test_the_same_clear_secret_again_is_no_change_and_another_one_is(imported):
    imported(MINIMAL)
    sealed = Provider.objects.get().secrets["password"]
    assert not imported(MINIMAL).changed
    assert Provider.objects.get().secrets["password"] == sealed
    changed = imported(MINIMAL.replace(HIDDEN, "another-secret")).changed
    assert [(change.name, change.after) for change in changed[0].fields] == [("secrets.password", "sealed (a new value)")]
    assert secrets.reveal(Provider.objects.get().secrets["password"]) == "another-secret"


def test_sealed_elsewhere_means_to_be_entered_here_and_no_run_goes_on_without_it(imported):
    imported(MINIMAL)
    text = exported()
    assert "password: sealed" in text
    wipe()
    report = imported(text)
    assert any("enter the secret password" in note for note in report.notes)
    with pytest.raises(SetupError, match="password"):
        Provider.objects.get().account()
    assert exported() == text


def test_a_secret_that_is_not_named_stays_and_nothing_forgets_it(imported):
    imported(MINIMAL)
    imported("providers: {la: {secrets: {app_token: env:OTHER}}}")
    assert set(Provider.objects.get().secrets) == {"app_token", "password"}
    imported("providers: {la: {secrets: {password: }}}")
    assert Provider.objects.get().secrets == {"app_token": "env:OTHER"}


def test_a_password_in_an_address_is_not_exported_and_an_address_without_it_is_refused_elsewhere(imported, refused):
    imported(MINIMAL.replace("https://data", f"https://me:{HIDDEN}@data"))
    text = exported()
    assert HIDDEN not in text
    assert HIDDEN not in str(AuditEntry.objects.values_list("details"))
    wipe()
    assert [line for line, words in refused(text) if "Write the address anew" in words]


@pytest.mark.parametrize(
    "value",
    [
        f"!{HIDDEN} x",
        f"!{HIDDEN}!x y",
        f"*{HIDDEN}",
        f"&{HIDDEN} [a]",
        f"'{HIDDEN}",
        f"fernet:{HIDDEN}",
        f"[{HIDDEN}",
        f"@{HIDDEN}",
    ],
)
def test_a_secret_that_breaks_the_file_is_not_repeated_in_the_error(file, value):
    problems = importers.plan([file(MINIMAL.replace(f"password: {HIDDEN}", f"password: {value}"))]).problems
    assert problems
    assert HIDDEN not in str(problems)


# refusals


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (3, "providers:\n  la:\n    base_ulr: x", "no setting 'base_ulr'. Did you mean base_url?"),
        (1, "provider: {}", "Did you mean providers?"),
        (3, "providers:\n  la:\n    kind: socratta\n    base_url: https://x", "Did you mean socrata?"),
        (5, "providers:\n  la:\n    kind: socrata\n    base_url: https://x\n    secrets: {app_tokn: abcdef}", "Did you mean app_token?"),
        (3, "providers:\n  la:\n    parameters: {password: abcdef}\n    kind: socrata\n    base_url: https://x", "Write it under secrets."),
        (2, "providers:\n  new:\n    kind: socrata", "A new provider needs base_url. Write it like base_url: https://data.example.gov"),
        (3, "providers:\n  la: {kind: socrata, base_url: x}\n  la: {}", "stands here twice; first on line 2"),
        (2, "datasets:\n  - title: x", "A list stands where a mapping is wanted: datasets, each under its slug."),
        (2, "datasets:\n  '': {}", "A slug is missing"),
        (2, "datasets:\n  a b: {}", "The slug 'a b': Enter a valid"),
        (3, "datasets:\n  a:\n    slug: a", "take this line out"),
        (3, "datasets:\n  a:\n    refresh_rate: Dayly", "Did you mean daily?"),
        (3, "datasets:\n  a:\n    promise_time: 25:00", "is not a time of day"),
        (4, "datasets:\n  a:\n    columns:\n      b: {type: numbr}", "Did you mean number?"),
        (4, "datasets:\n  a:\n    columns:\n      b: {lable: x}", "Did you mean label?"),
        (5, "datasets:\n  a:\n    columns:\n      b: {}\n      b: {}", "stands here twice"),
        (3, "pipelines:\n  la-311-2020:\n    provider: l", "There is no provider 'l'. Did you mean la?"),
        (3, "pipelines:\n  la-311-2020:\n    page_size: many", "is not a whole number"),
        (3, "pipelines:\n  la-311-2020:\n    page_size: 0", "greater than or equal to 1"),
        (3, "pipelines:\n  la-311-2020:\n    is_paused: maybe", "Write true or false."),
        (3, "pipelines:\n  la-311-2020:\n    time_zone: Amerika/Chicago", "is not a time zone"),
        (3, "pipelines:\n  la-311-2020:\n    stages: [load, extract]", "The order is"),
        (3, "pipelines:\n  la-311-2020:\n    warehouse: defualt", "Did you mean default?"),
        (3, "pipelines:\n  la-311-2020:\n    provider: '2020-01-02'", "can't be fetched from"),
        (3, "pipelines:\n  la-311-2020:\n    title: [a]", "A list stands where a single value is wanted"),
        (2, "providers:\n\tla: {}", "Put spaces in the place of the tabs."),
        (3, "providers:\n  a: &x {kind: socrata}\n  b: *x", "anchors and aliases"),
        (3, "providers:\n  la:\n    title: !!python/object/apply:os.getcwd []", "tags are not read"),
        (2, "providers:\n  a: {title: 'x}", "This is not YAML"),
        (2, "providers:\n  a: [unclosed", "expected ',' or ']', but got '<stream end>'"),
        (2, b"providers:\n  a: {title: \xff}", "Save it again as UTF-8."),
        (2, 'datasets:\n  a: {title: "\\0"}', "NUL"),
        (2, b"datasets:\n  a: {title: \x01}", "forbids"),
        (0, 'datasets:\n  a: {title: "\\U00110000"}', "names no character"),
        (0, "datasets: " + "[" * 5000, "nested too deep"),
        (0, "# only a comment", "The file holds nothing."),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line_and_what_to_do(city, refused, line, text, words):
    problems = refused(text)
    assert len(problems) == 1, problems
    assert problems[0][0] == line
    assert words in problems[0][1]


def test_a_missing_file_and_a_strange_one_are_problems_like_any_other(tmp_path, file):
    file("a: 1", "city.toml")
    paths = [tmp_path / "citi.toml", tmp_path, tmp_path / "city.toml"]
    assert [problem.message.split(".")[0] for problem in importers.plan(paths).problems] == [
        "There is no such file",
        "This is a folder",
        "This is no configuration that is known here",
    ]
    assert importers.plan(paths).problems[0].next_step == "Did you mean city.toml?"


def test_a_file_without_an_end_one_that_is_too_long_and_a_circle_of_links_are_problems(file, tmp_path, monkeypatch):
    monkeypatch.setattr(importers.files, "LARGEST_FILE", 1000)
    circle = tmp_path / "circle.yaml"
    circle.symlink_to(circle)
    paths = ["/dev/zero", file("datasets:\n" + "#" * 1000), circle]
    messages = [problem.message for problem in importers.plan(paths).problems]
    assert ["longer than 1,000 bytes" in message for message in messages] == [True, True, False]
    assert "can't be read" in messages[2]


def test_two_files_that_describe_one_thing_are_refused(file):
    paths = [file("datasets: {a: {title: A}}", "one.yaml"), file("datasets: {a: {title: B}}", "two.yaml")]
    [problem] = importers.plan(paths).problems
    assert (problem.file, problem.line) == (str(paths[1]), 1)
    assert "one.yaml, line 1" in problem.message


def test_one_mistake_in_one_file_and_nothing_of_any_file_is_written(file):
    planned = importers.plan([file(MINIMAL, "good.yaml"), file("datasets: {b: {access: none}}", "bad.yaml")])
    with pytest.raises(importers.Refused):
        importers.apply(planned, actor=ME)
    assert not Provider.objects.exists()
    assert not AuditEntry.objects.exists()


def test_what_went_wrong_between_plan_and_act_is_refused_as_a_whole(city, file):
    planned = importers.plan([file("datasets: {new: }\npipelines: {two: {provider: la, dataset: la-311, resource: x, key: k}}")])
    Pipeline.objects.all().delete()
    Provider.objects.all().delete()
    with pytest.raises(importers.Refused, match="no provider 'la'"):
        importers.apply(planned, actor=ME)
    assert not Dataset.objects.filter(slug="new").exists()


def test_a_plan_writes_nothing(file):
    planned = importers.plan([file(MINIMAL)])
    assert [change.verb for change in planned.changes] == ["created"] * 3
    assert not Provider.objects.exists()
    assert not AuditEntry.objects.exists()


def test_each_change_leaves_an_audit_row_with_before_and_after_and_why(city, imported):
    imported("pipelines: {la-311-2020: {priority: 5}}\ndatasets: {la-311: {title: '311'}, fresh: }", reason="the vendor asked")
    rows = AuditEntry.objects.order_by("pk").values_list("actor", "verb", "kind", "target", "reason", "details")
    assert list(rows) == [
        ("test", "create", "dataset", "fresh", "the vendor asked", {"changes": {}}),
        ("test", "change", "pipeline", "la-311-2020", "the vendor asked", {"changes": {"priority": [-3, 5]}}),
    ]


# other formats


def test_another_format_is_one_module_that_recognises_and_reads(file, monkeypatch):
    def read(path, text):
        return Plan(wanted=(Wanted("dataset", text.split("=")[1].strip(), {"title": "From afar"}, path, 1),))

    foreign = SimpleNamespace(NAME="Foreign", recognises=lambda path, text: text.startswith("topic="), read=read)
    monkeypatch.setattr(importers, "FORMATS", (*importers.FORMATS, foreign))
    importers.apply(importers.plan([file("topic=birds", "settings.py"), file("datasets: {bees: }")]), actor=ME)
    assert set(Dataset.objects.values_list("slug", "title")) == {("birds", "From afar"), ("bees", "Bees")}
