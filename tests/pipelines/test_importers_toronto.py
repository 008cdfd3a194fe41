"""Toronto's dataset files: every one becomes a dataset with its pipelines, a mistake is told with its line, and an export imports to the same."""

import random
import textwrap
from io import StringIO
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command

from catalog.audit import Actor
from catalog.models import Dataset, DatasetColumn
from pipelines import importers, secrets
from pipelines.connectors import ckan_rows
from pipelines.formats import attributes
from pipelines.importers import own, toronto_words, toronto_yaml, toronto_yaml_export
from pipelines.models import Pipeline, Provider, UpkeepJob
from tests.pipelines.test_config_commands import run

ME = Actor("test")
SIX = Path(settings.BASE_DIR).parent / "shared/data/toronto_yaml"
needs_six = pytest.mark.skipif(not SIX.is_dir(), reason=f"Toronto's six files are not here: {SIX}")
db = pytest.mark.django_db

PACKAGE = """
    bike-shops:
      schedule: '0 9 * * 1'
      dag_owner_name: Ana
      dag_owner_email: ana@toronto.ca
      title: Bike shops
      date_published: '2019-07-23 16:49:22.574393'
      dataset_category: Map
      refresh_rate: Semi-annually
      owner_division: Transportation Services
      owner_section: null
      owner_unit:
      owner_email: bikes@toronto.ca
      civic_issues: null
      topics: [Transportation, Health]
      tags:
      - name: bike
        vocabulary_id: null
      information_url: null
      excerpt: Where to buy one.
      limitations: null
      notes: All of them.
      resources:
        Bike shops:
          format: csv
          url: https://opendata.toronto.ca/bikes/shops.csv?v=1
          attributes:
          - id: id
            type: int
            info:
              notes: Number of it
          - source_name: Nm
            target_name: Name
            type: text
            info: {notes: ''}
          - id: Opened
            type: date
            format: '%Y/%m/%d'
            info:
              notes: Since when
"""


def six():
    return sorted(SIX.glob("*.yaml"))


def read(text, path="bike-shops.yaml"):
    return toronto_yaml.read(path, textwrap.dedent(text))


def do(paths, **options):
    return importers.apply(importers.plan(paths, **options), actor=ME)


def wipe():
    Pipeline.objects.all().delete()
    Dataset.objects.all().delete()
    Provider.objects.all().delete()


@pytest.fixture
def file(tmp_path):
    def write(text, name="bike-shops.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), newline="")
        return path

    return write


@pytest.fixture
def imported(file):
    def from_text(text=PACKAGE, name="bike-shops.yaml", **options):
        return do([file(text, name)], **options)

    return from_text


def told(text, path="bike-shops.yaml"):
    """(problems, warnings) as (line, field, words)."""
    plan = read(text, path)
    return tuple([(one.line, one.field, f"{one.message} {one.next_step}") for one in found] for found in (plan.problems, plan.warnings))


def pipeline_of(text):
    return next(wanted for wanted in read(text).wanted if wanted.kind == "pipeline")


# what a file means


@db
def test_a_package_is_a_dataset_with_all_that_its_portal_says(imported):
    imported()
    dataset = Dataset.objects.get()
    assert (dataset.slug, dataset.title, dataset.description, dataset.excerpt) == ("bike-shops", "Bike shops", "All of them.", "Where to buy one.")
    assert (dataset.category, dataset.refresh_rate, dataset.topics, dataset.civic_issues) == ("Map", "half-yearly", ["Transportation", "Health"], [])
    assert (dataset.department, dataset.section, dataset.steward_email) == ("Transportation Services", "", "bikes@toronto.ca")
    assert (dataset.engineer, dataset.engineer_email, dataset.tags) == ("Ana", "ana@toronto.ca", "bike")
    assert dataset.published_on.isoformat() == "2019-07-23T16:49:22.574393+00:00"


@db
def test_a_resource_is_a_pipeline_from_its_address_to_its_table_on_the_portal(imported):
    imported()
    pipeline = Pipeline.objects.get()
    assert (pipeline.slug, pipeline.part, pipeline.table, pipeline.format) == ("bike-shops", "Bike shops", "bike_shops", "csv")
    assert (pipeline.provider.kind, pipeline.provider.base_url, pipeline.resource) == (
        "web_file",
        "https://opendata.toronto.ca",
        "/bikes/shops.csv?v=1",
    )
    assert pipeline.stages == ["extract", "standardize", "load", "publish"]
    assert (pipeline.cadence, pipeline.cron, pipeline.time_zone) == ("cron", "0 9 * * 1", "America/Toronto")
    assert (pipeline.key, pipeline.load_mode, pipeline.portal_mode) == ([], "replace", "replace")
    assert (pipeline.portal.slug, pipeline.portal_resource) == ("ckan", "bike-shops/Bike shops")
    assert pipeline.options == {
        "attributes": [
            {"source": "id", "name": "id", "type": "int"},
            {"source": "Nm", "name": "Name", "type": "text"},
            {"source": "Opened", "name": "Opened", "type": "date", "format": "%Y/%m/%d"},
        ],
        "published_format": "csv",
        "epoch_zone": "America/Toronto",
    }
    lines = DatasetColumn.objects.values_list("part", "name", "type", "portal_type", "description")
    assert list(lines) == [
        ("Bike shops", "id", "number", "int", "Number of it"),
        ("Bike shops", "Name", "text", "text", ""),
        ("Bike shops", "Opened", "local_time", "date", "Since when"),
    ]
    assert [column.name for column in pipeline.dictionary()] == ["id", "Name", "Opened"]


@needs_six
@db
def test_the_six_files_become_datasets_with_a_pipeline_for_each_resource_and_the_second_import_has_nothing_to_do():
    report = do(six())
    assert not report.warnings
    assert (Dataset.objects.count(), Pipeline.objects.count()) == (6, 8)
    assert sorted(Provider.objects.values_list("slug", "kind")) == [
        ("ckan", "ckan"),
        ("opendata-toronto-ca", "web_file"),
        ("secure-toronto-ca", "web_file"),
        ("services3-arcgis-com", "arcgis"),
    ]
    road = Pipeline.objects.get(slug="road-reconstruction-program")
    assert (road.format, road.options["where"]) == ("geojson", "inv_display_program ='TS_Road_Reconstruction'")
    assert road.options["attributes"][6] == {"source": "INV_DURATION_PUBLIC", "name": "DURATION/ Construction Timeline", "type": "text"}
    food = Pipeline.objects.get(slug="dinesafe")
    assert (food.key, food.load_mode, food.portal_mode, food.gone_rows) == (["unique_id"], "upsert", "upsert", "keep")
    assert food.options["custom_reader"] == "dinesafe"
    grants = Pipeline.objects.filter(dataset__slug="community-grants-allocations").order_by("pk")
    assert [(one.options["sheet"], one.options["multi"], one.options["multi_insert_date"]) for one in grants] == [
        ("Grants Allocations", True, True),
        ("Legend", True, True),
    ]
    assert Dataset.objects.get(slug="dinesafe").description.startswith("DineSafe is Toronto Public Health’s")
    assert Dataset.objects.get(slug="traffic-and-parking-by-law-schedules").portal_fields == {"jira_issue_id": "DIA-648"}
    again = importers.plan(six())
    assert {change.verb for change in again.changes} == {"unchanged"}


@needs_six
@db
def test_the_six_files_exported_and_imported_elsewhere_are_the_same_city_to_the_byte(tmp_path):
    do(six())
    call_command("export_config", "--format", "toronto", "-o", f"{tmp_path}/", stderr=StringIO())
    before, ours = {path.name: path.read_bytes() for path in tmp_path.iterdir()}, own.write(own.document())
    assert sorted(before) == [path.name for path in six()]
    assert {change.verb for change in importers.plan(sorted(tmp_path.iterdir())).changes} == {"unchanged"}
    wipe()
    do(sorted(tmp_path.iterdir()))
    assert own.write(own.document()) == ours
    # into a folder that is not there yet
    call_command("export_config", "--format", "toronto", "-o", f"{tmp_path}/again/", stderr=StringIO())
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


@needs_six
@db
def test_our_own_yaml_of_the_six_files_restores_them_with_the_dictionary_of_each_part(file):
    do(six())
    text = own.write(own.document())
    wipe()
    assert not do([file(text, "city.yaml")]).warnings
    assert own.write(own.document()) == text
    assert set(Dataset.objects.get(slug="ttc-subway-delay-data").columns.values_list("part", flat=True)) == {
        "TTC Subway Delay Data since 2025",
        "Code Descriptions",
    }
    assert {change.verb for change in importers.plan(six()).changes} == {"unchanged"}


@needs_six
def test_what_yaml_itself_reads_of_the_six_files_is_what_we_read():
    for path in six():
        [(name, package)] = yaml.safe_load(path.read_text()).items()
        wanted = toronto_yaml.read(str(path), path.read_bytes().decode()).wanted
        found = {one.values["part"]: one.values for one in wanted if one.kind == "pipeline"}
        assert list(found) == list(package["resources"])
        for resource, said in package["resources"].items():
            compare(found[resource], name, resource, said)


def compare(values, package, name, said):
    """A pipeline against what YAML's own reader says of its resource."""
    assert values["portal_resource"] == f"{package}/{name.strip()}"
    sources = [one.get("source_name") or one["id"] for one in said["attributes"]]
    assert [one["source"] for one in values["options"]["attributes"]] == sources
    assert [one["type"] for one in values["options"]["attributes"]] == [one["type"] for one in said["attributes"]]
    formats = [one["format"] for one in said["attributes"] if one["type"] in ("date", "timestamp")]
    assert [one["format"] for one in values["options"]["attributes"] if "format" in one] == formats
    assert values["options"]["published_format"] == said["format"]
    assert bool(values["options"]["multi"]) == bool(said.get("multi"))
    assert values["options"]["where"] == (said.get("query_params") or None)


# all the ways in which such a file is written


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("schedule: '@once'", ("once", "")),
        ("schedule: ' 0   9  * * MON-FRI '", ("cron", "0 9 * * MON-FRI")),
        ("schedule: 5 4-14 * * *", ("cron", "5 4-14 * * *")),
        ("schedule: '0 22-2 * * 5-1'", ("cron", "0 22-23,0-2 * * 5-6,0-1")),
        ("schedule: '0 9 ? * sat-mon'", ("cron", "0 9 * * 6-6,0-1")),
        ("schedule: '@daily'", ("cron", "0 0 * * *")),
        ("schedule: null", ("manual", "")),
    ],
)
def test_a_schedule_is_a_cron_expression_or_a_word_for_one(line, means):
    values = pipeline_of(PACKAGE.replace("schedule: '0 9 * * 1'", line)).values
    assert (values["cadence"], values["cron"]) == means


@pytest.mark.parametrize("words", ["true", "True", "yes", "'true'", "on"])
def test_a_layer_is_one_however_the_truth_is_written(words):
    text = PACKAGE.replace("format: csv", f"format: json\n          agol: {words}").replace("shops.csv?v=1", "FeatureServer/0/")
    wanted = pipeline_of(text)
    assert (wanted.values["format"], wanted.values["options"]["published_format"]) == ("geojson", "json")
    assert wanted.values["resource"] == "/bikes/FeatureServer/0"
    assert wanted.values["provider"] == "opendata-toronto-ca-arcgis"


@pytest.mark.parametrize("key", ["primary_key: id", "primary_key: 'id, Opened'", "primary_key: [id, Nm]", "primary_key:\n            - id"])
def test_a_key_is_a_word_several_with_commas_or_a_list_and_may_name_the_source(key):
    found = pipeline_of(PACKAGE.replace("          attributes:", f"          datastore_upsert:\n            {key}\n          attributes:")).values
    assert found["key"] == {"primary_key: 'id, Opened'": ["id", "Opened"], "primary_key: [id, Nm]": ["id", "Name"]}.get(key, ["id"])
    assert (found["load_mode"], found["portal_mode"]) == ("upsert", "upsert")


def test_names_that_are_cut_to_the_same_63_bytes_stay_two_columns_and_no_letter_is_broken():
    long = "é" * 40
    text = PACKAGE.replace("id: id", f"id: '{long} one '").replace("target_name: Name", f"target_name: '{long} two'")
    attributes = pipeline_of(text).values["options"]["attributes"]
    assert [one["name"] for one in attributes[:2]] == ["é" * 31, "é" * 30 + "_2"]
    assert attributes[0]["source"] == f"{long} one "


def test_a_name_that_no_portal_takes_is_mended_and_found_by_its_own_words():
    text = PACKAGE.replace("id: id", 'id: "\\ufeff Size (\\"inch\\") "')
    assert pipeline_of(text).values["options"]["attributes"][0] == {"source": '\ufeff Size ("inch") ', "name": "Size ('inch')", "type": "int"}
    assert "No CKAN takes" in told(text)[1][0][2]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("_id", "id"),
        ("Total\nAmount", "Total Amount"),
        ("at :noon", "at : noon"),
        ("10:30:00", "10:30:00"),
        ("ZIP\u200b", "ZIP"),
        (" % of\tall ", "% of all"),
        ("\\:x", ": x"),
        ("a__b", "a__b"),
        ("_", ""),
    ],
)
def test_of_a_name_as_little_is_changed_as_must_be(wanted, name):
    assert toronto_words.column_name(wanted) == name
    assert not name or not ckan_rows.why_illegal(name)


def test_anchors_merges_escapes_and_folded_text_mean_what_yaml_says():
    text = """
    p:
      schedule: '@once'
      dag_owner_name: ''
      dag_owner_email:
      title: "Caf\\u00e9s \\ud83d\\ude00"
      date_published: 2019-07-23
      dataset_category: Table
      refresh_rate: Real-time
      owner_division: x
      owner_email: a@b.ca
      excerpt: >-
        one
        two
      notes: |
        first

          second: not a key
      resources:
        A: &a
          format: csv
          url: https://h.ca/a.csv
          attributes: &columns
          - id: n
            type: int
        2023:
          <<: *a
          url: https://h.ca/b.csv
        B: {format: csv, url: "https://h.ca/c.csv", attributes: *columns}"""
    plan = read(text, "p.yaml")
    assert not plan.problems and not plan.warnings
    dataset = next(wanted for wanted in plan.wanted if wanted.kind == "dataset").values
    assert (dataset["title"], dataset["excerpt"]) == ("Cafés 😀", "one two")
    assert dataset["description"] == "first\n\n  second: not a key"
    assert {part: list(columns) for part, columns in dataset["parts"].items()} == {"A": ["n"], "2023": ["n"], "B": ["n"]}
    assert [one.values["resource"] for one in plan.wanted if one.kind == "pipeline"] == ["/a.csv", "/b.csv", "/c.csv"]


def test_aliases_that_unfold_for_ever_are_refused():
    bomb = "p:\n  title: x\n  schedule: y\n  notes: z\n  resources: &a\n    a: {attributes: [" + ",".join(["&b 1"] * 3) + "]}\n    b: *a\n"
    assert read(bomb, "p.yaml").problems
    deep = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    for place in ("tags: *a8", "dag_owner_name: *a8", "resources: {x: {custom: *a8}}"):
        words = f"p:\n  title: x\n  schedule: y\n  notes: z\n  {place}\n"
        assert any("unfolds" in one.message for one in toronto_yaml.read("p.yaml", deep + words).problems), place


def test_a_value_that_stands_for_nothing_is_not_said_wherever_it_may_stand_for_nothing():
    text = PACKAGE
    for key in ("dag_owner_name", "dag_owner_email", "owner_division", "owner_email", "notes", "excerpt", "date_published", "schedule"):
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
        text = text.replace(line, f"{line.partition(':')[0]}:")
    text = text.replace("info: {notes: ''}", "info: null").replace("topics: [Transportation, Health]", "topics:")
    text = text.replace("format: csv\n", "format: csv\n          agol:\n          encoding: null\n          sheet: ~\n          query_params:\n")
    plan = read(text)
    assert not plan.problems
    dataset = next(wanted for wanted in plan.wanted if wanted.kind == "dataset").values
    assert set(dataset) == {"title", "category", "refresh_rate", "tags", "parts", "portal_fields"}


def test_what_is_no_address_is_told_to_the_portal_as_it_stands_and_stops_nothing():
    text = PACKAGE.replace("bikes@toronto.ca", "'bikes@toronto.ca; roads@toronto.ca'").replace("ana@toronto.ca", "[a@b.ca, b@b.ca]")
    text = text.replace("'2019-07-23 16:49:22.574393'", "some day")
    plan = read(text)
    assert not plan.problems and len(plan.warnings) == 3
    dataset = next(wanted for wanted in plan.wanted if wanted.kind == "dataset").values
    assert dataset["portal_fields"]["owner_email"] == "bikes@toronto.ca; roads@toronto.ca"
    assert dataset["portal_fields"]["date_published"] == "some day"
    assert pipeline_of(text).values["options"]["own"] == {"dag_owner_email": "a@b.ca, b@b.ca"}


# a corpus of our own

WILD = [
    "Ward", "Naïve – 50 % of “it”", "A/B: c, d", "#", "- x", "yes", "0123", "2021-01-01", "null", "{a}", "[b]", "@x", "%d", "a\tb", "l1\nl2", "'q'",
    "😀",
]  # fmt: skip


def wild_package(seed):
    """(name, package) as YAML's own types, with all that such a file may hold."""
    dice = random.Random(seed)

    def some(words, most):
        return dice.sample(words, dice.randint(1, most))

    def maybe(value):
        return dice.choice([value, None, value])

    def text():
        return " ".join(some(WILD, 5)) + dice.choice(["", "x" * 120, " end "])

    def attribute(number):
        name = f"{dice.choice([*WILD, 'n' * 70, 'é' * 50, 'X Y '])} {number}{dice.choice(['', ' ', '!'])}"
        kind = dice.choice(list(attributes.TYPES))
        one = dice.choice([{"id": name}, {"source_name": name, "target_name": f"{name} new"}, {"id": name, "source_name": name, "target_name": name}])
        one["type"] = kind
        if kind in ("date", "timestamp"):
            forms = ["%Y-%m-%d", "epoch", "%Y-%m-%d %H:%M:%S", "%b %d, %Y", "%Y-%m-%dT%H:%M:%S.%fZ", "%m/%d/%Y %I:%M:%S %p", "%d-%b-%Y"]
            one["format"] = dice.choice(forms)
        if dice.random() < 0.9:
            one["info"] = dice.choice([{"notes": text()}, {"notes": ""}, {"notes": None}, None])
        return one

    def resource():
        kind = dice.choice(["csv", "xlsx", "json", "geojson", "agol", "custom"])
        host = dice.choice(["opendata.toronto.ca", "gis.toronto.ca", "services3.arcgis.com", "secure.toronto.ca:8443"])
        path = dice.choice(["a b.csv", "x-yyyy.csv", "x-yyyy-qq.xlsx", "v2?format=json&a=1", "data", "%20é.csv"])
        one = {"format": {"agol": "geojson", "custom": "json"}.get(kind, kind), "url": f"{dice.choice(['https', 'https', 'http'])}://{host}/{path}"}
        one["attributes"] = [attribute(number) for number in range(dice.choice([2, 3, 7, 220 if seed % 10 == 0 else 9]))]
        if kind == "agol":
            layer = f"https://{host}/arcgis/rest/services/X/FeatureServer/{dice.randint(0, 99)}"
            one |= {"agol": True, "url": layer, "query_params": maybe("a = 'b' AND c > 1")}
        if kind == "custom":
            one["custom_reader"] = dice.choice(["dinesafe", "swimsafe", "a_new_one"])
        if kind == "xlsx":
            one["sheet"] = dice.choice(["Sheet 1", "Données ", 2023])
        if kind == "csv":
            one["encoding"] = dice.choice(["latin1", "utf-8-sig", "utf-8", None, "cp1252"])
        if kind == "json":
            one |= {"jsonpath": maybe("$.a.1.b"), "is_geojson": dice.choice([False, True, None])}
            if dice.random() < 0.5:
                one["custom_headers"] = {"X-Key": dice.choice(["some_secret", "a-secret-2", "text/plain"])}
        if "yyyy" in one["url"]:
            one |= {"multi": True, "multi_insert_date": dice.choice([True, False])}
        if dice.random() < 0.3:
            named = [each.get("target_name") or each["id"] for each in one["attributes"]]
            keys = some(named, 2)
            one["datastore_upsert"] = {"primary_key": keys[0] if len(keys) == 1 else keys}
        if dice.random() < 0.2:
            one |= {"nested": {"a": [1, 2.5, True, None]}, "custom": "old"}
        return one

    name = f"package-{seed}"
    package = {
        "title": text()[:150],
        "schedule": dice.choice(["@once", "5 4 * * *", "0  9 1 1,7 *", "30 6 * * MON-FRI", "*/15 4-14 * * *"]),
        "dag_owner_name": dice.choice(["", "Ana", None]),
        "dag_owner_email": dice.choice(["", "a@b.ca", None, "a@b.ca, c@d.ca"]),
        "date_published": dice.choice(["2019-07-23 16:49:22.574393", "2020-01-01", "2021-05-06T07:08:09", None]),
        "dataset_category": dice.choice(["Map", "Table"]),
        "refresh_rate": dice.choice(list(toronto_words.RATES)),
        "owner_division": text()[:150],
        "owner_email": dice.choice(["a@b.ca", "a@b.ca ", "ask them", None]),
        "notes": text(),
        "excerpt": dice.choice([text(), None]),
        "resources": {f"{dice.choice(WILD)} {'long ' * dice.choice([0, 0, 30])}{number}": resource() for number in range(dice.choice([1, 1, 2, 10]))},
    }
    for key, value in {
        "owner_section": text()[:150],
        "owner_unit": None,
        "civic_issues": some(toronto_words.ISSUES, 3),
        "topics": some(toronto_words.TOPICS, 5),
        "tags": dice.choice([[{"name": "a b", "vocabulary_id": None}, {"name": "c"}], None, ["x", "y"], [{"name": "z", "vocabulary_id": "v"}]]),
        "information_url": "https://x.ca/a?b=c d",
        "limitations": text(),
        "collection_method": text(),
        "jira_issue_id": "DIA-1",
        "jira_issue_url": "https://jira/DIA-1",
    }.items():
        if dice.random() < 0.7:
            package[key] = maybe(value)
    order = list(package)
    dice.shuffle(order)
    return name, {key: package[key] for key in order}


def written(seed, name, package):
    """The same package in one of the ways in which people and programs write YAML."""
    dice = random.Random(f"style {seed}")
    text = yaml.safe_dump(
        {name: package},
        sort_keys=False,
        default_style=dice.choice([None, None, '"', "'"]) if not dice.random() < 0.3 else None,
        default_flow_style=dice.choice([False, None]),
        width=dice.choice([40, 80, 1000]),
        indent=dice.choice([2, 4]),
        allow_unicode=dice.choice([True, False]),
        explicit_start=dice.choice([True, False]),
    )
    if dice.random() < 0.5:
        text = "# made by hand\n" + text.rstrip("\n")
    return text.replace("\n", "\r\n") if dice.random() < 0.3 else text


# 240 seeds were read when this was written; a few a run keep it true
@pytest.mark.parametrize("first", [1, 11, 21])
def test_whatever_such_a_file_may_hold_is_read_as_yaml_itself_reads_it(first):
    for seed in range(first, first + 5):
        name, package = wild_package(seed)
        text = written(seed, name, package)
        assert toronto_yaml.recognises("x.yaml", text) and not own.recognises("x.yaml", text), seed
        plan = toronto_yaml.read(f"{name}.yaml", text)
        assert not plan.problems, (seed, plan.problems)
        pipelines = {one.values["portal_resource"]: one.values for one in plan.wanted if one.kind == "pipeline"}
        package = yaml.safe_load(text)[name]
        assert len(pipelines) == len(package["resources"]), seed
        for resource, said in package["resources"].items():
            values = pipelines[f"{name}/{str(resource).strip()}"]
            compare(values, name, str(resource), said)
            names = [one["name"] for one in values["options"]["attributes"]]
            assert len(set(names)) == len(names) == len(said["attributes"])
            assert not list(filter(None, map(ckan_rows.why_illegal, names)))


@db
def test_a_corpus_of_such_files_is_imported_exported_and_imported_to_the_same(file, tmp_path):
    paths = []
    for seed in (1, 4):
        name, package = wild_package(seed)
        paths.append(file(written(seed, name, package), f"{name}.yaml"))
    do(paths)
    assert Dataset.objects.count() == 2
    tables, slugs = (list(Pipeline.objects.values_list(name, flat=True)) for name in ("table", "slug"))
    assert len(set(tables)) == len(tables) == len(set(slugs))
    again = importers.plan(paths)
    assert [change for change in again.changes if change.verb != "unchanged"] == []
    exported = toronto_yaml_export.write(toronto_yaml_export.packages(Dataset.objects.all())[0])
    changes = importers.plan([file(exported, "all.yaml")]).changes
    assert [change for change in changes if change.verb != "unchanged"] == []
    wipe()
    do([file(exported, "all.yaml")])
    assert toronto_yaml_export.write(toronto_yaml_export.packages(Dataset.objects.all())[0]) == exported


# mistakes, each with its line


def line_of(text, words):
    return next(number for number, line in enumerate(textwrap.dedent(text).splitlines(), start=1) if words in line)


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("refresh_rate: Semi-annually", "refresh_rate: Fortnightly", "bike-shops.refresh_rate", "'Fortnightly' is none of its choices."),
        ("refresh_rate: Semi-annually", "refresh_rate: Anually", "bike-shops.refresh_rate", "Did you mean Annually?"),
        ("dataset_category: Map", "dataset_category: Maps", "bike-shops.dataset_category", "Did you mean Map?"),
        ("topics: [Transportation, Health]", "topics: [Helth]", "bike-shops.topics", "Did you mean Health?"),
        ("civic_issues: null", "civic_issues: [Mobilty]", "bike-shops.civic_issues", "Did you mean Mobility?"),
        ("format: csv", "format: cvs", "bike-shops.resources.Bike shops.format", "Did you mean csv?"),
        ("type: int", "type: integer", "bike-shops.resources.Bike shops.attributes.1.type", "Did you mean int?"),
        ("format: '%Y/%m/%d'", "format: ''", "bike-shops.resources.Bike shops.attributes.3.format", "has no format"),
        ("format: '%Y/%m/%d'", "format: '%Q'", "bike-shops.resources.Bike shops.attributes.3.format", "'%Q'"),
        ("schedule: '0 9 * * 1'", "schedule: '0 25 * * 1'", "bike-shops.schedule", "'0 25 * * 1' is no time that comes."),
        ("schedule: '0 9 * * 1'", "schedule: '@onse'", "bike-shops.schedule", "Did you mean @once?"),
        ("schedule: '0 9 * * 1'", "schedule: '0 0 9 * * 1'", "bike-shops.schedule", "minute, hour, day, month and weekday"),
        ("excerpt: Where", "exerpt: Where", "bike-shops.exerpt", "Did you mean excerpt?"),
        ("format: csv", "format: csv\n          encodng: latin1", "bike-shops.resources.Bike shops.encodng", "Did you mean encoding?"),
        ("type: int", "typ: int", "bike-shops.resources.Bike shops.attributes.1.typ", "Did you mean type?"),
        ("info: {notes: ''}", "info: {note: ''}", "bike-shops.resources.Bike shops.attributes.2.info.note", "Did you mean notes?"),
        ("format: csv", "format: csv\n          encoding: latin9000", "bike-shops.resources.Bike shops.encoding", "no encoding"),
        ("format: csv", "format: csv\n          jsonpath: $.a[0]", "bike-shops.resources.Bike shops.jsonpath", "$.result.0.rows"),
        ("format: csv", "format: csv\n          multi: maybe", "bike-shops.resources.Bike shops.multi", "neither true nor false"),
        ("url: https://opendata", "url: opendata", "bike-shops.resources.Bike shops.url", "no address of the web"),
        ("url: https://", "url: https://me:hunter2@", "bike-shops.resources.Bike shops.url", "custom_headers"),
        ("title: Bike", "title: ''\n      #", "bike-shops.title", "The title is empty."),
        ("topics: [Transportation, Health]", "topics: !!python/name:os.system", "bike-shops", "tags are not read"),
    ],
)
def test_a_mistake_is_refused_in_words_with_its_line_and_what_was_probably_meant(old, new, field, words):
    text = PACKAGE.replace(old, new, 1)
    problems, _ = told(text)
    assert field in [at for _, at, _ in problems]
    line, _, said = next(one for one in problems if one[1] == field)
    assert words in said
    assert "hunter2" not in str(problems)
    assert line == line_of(text, new.splitlines()[-1].strip(" #") or new.splitlines()[0])


def test_a_key_that_comes_twice_names_both_lines_and_where_both_say_the_same_it_is_only_a_warning():
    text = PACKAGE.replace("title: Bike shops", "title: Bike shops\n      title: Bikes")
    [(line, field, words)], _ = told(text)
    assert (line, field) == (line_of(text, "title: Bikes"), "bike-shops.title")
    assert f"first on line {line_of(text, 'title: Bike shops')}" in words
    problems, [(line, field, words)] = told(text.replace("title: Bikes", "title: Bike shops"))
    assert (problems, field) == ([], "bike-shops.title")


@pytest.mark.parametrize("key", ["title", "dataset_category", "refresh_rate", "resources"])
def test_what_a_dataset_cannot_be_made_without_is_asked_for(key):
    problems, _ = told(textwrap.dedent(PACKAGE).replace(f"  {key}:", f"  #{key}:").partition("  #resources")[0])
    assert (2, f"bike-shops.{key}") in [(line, field) for line, field, _ in problems]


def test_what_their_own_test_asks_for_and_a_dataset_can_do_without_is_only_a_warning():
    problems, warnings = told(PACKAGE.replace("excerpt: Where to buy one.", "").replace("notes: All of them.", ""))
    assert (problems, [field for _, field, _ in warnings]) == ([], ["bike-shops.notes", "bike-shops.excerpt"])


def test_the_one_misspelt_key_of_their_own_files_is_read_as_what_it_means():
    problems, [(_, field, words)] = told(PACKAGE.replace("date_published", "text_published"))
    assert (problems, field) == ([], "bike-shops.text_published")
    assert "Did you mean date_published?" in words


def test_a_file_of_another_name_than_its_package_is_only_a_warning():
    problems, [(line, field, words)] = told(PACKAGE, "shops.yaml")
    assert (problems, line, field) == ([], 2, "bike-shops")
    assert "Rename the file." in words


@db
def test_a_copy_whose_package_was_not_renamed_is_left_out_with_a_warning_and_keeps_nothing_else_out(file):
    paths = [file(PACKAGE.replace("Bike shops", "Bike racks"), "bike-racks.yaml"), file(PACKAGE, "bike-shops.yaml")]
    report = do(paths)
    assert [one.file for one in report.warnings if "is left out" in one.message] == [str(paths[0])]
    assert (Dataset.objects.get().title, Pipeline.objects.get().part) == ("Bike shops", "Bike shops")
    assert "described twice" in importers.plan([paths[0], file(PACKAGE, "shops.yaml")]).problems[0].message


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "epoch", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d", "%Y%m%d%H%M%S", "%b %d, %Y", "%Y%m%d", "%m-%d-%Y", "%d-%b-%Y",
     "%Y-%m-%dT%H:%M:%S.%fZ", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%Y %I:%M:%S %p"],
)  # fmt: skip
def test_every_format_of_their_dates_is_one(form):
    assert told(PACKAGE.replace("%Y/%m/%d", form)) == ([], [])


def test_a_reader_that_is_not_here_yet_and_a_sheet_that_is_not_named_do_not_stop_the_rest():
    problems, [(_, field, words)] = told(PACKAGE.replace("format: csv", "format: csv\n          custom_reader: not_here"))
    assert (problems, field) == ([], "bike-shops.resources.Bike shops.custom_reader")
    assert "pipelines/formats/custom/not_here.py" in words
    problems, [(_, field, _)] = told(PACKAGE.replace("format: csv", "format: xlsx"))
    assert (problems, field) == ([], "bike-shops.resources.Bike shops.sheet")


# what stays, and what follows the file

SECOND = """
        {name}:
          format: xlsx
          sheet: Codes
          url: https://opendata.toronto.ca/bikes/codes.xlsx
          attributes:
          - id: code
            type: text
"""


@db
def test_a_package_that_gets_a_second_resource_keeps_the_pipeline_of_the_first(imported):
    imported()
    first = Pipeline.objects.get()
    head, name, rest = PACKAGE.partition("        Bike shops:\n")
    imported(head + SECOND.format(name="A code") + name + rest)
    assert list(Pipeline.objects.order_by("pk").values_list("slug", "part")) == [("bike-shops", "Bike shops"), ("bike-shops-a-code", "A code")]
    assert Pipeline.objects.get(part="Bike shops").pk == first.pk


@db
def test_resources_whose_names_make_the_same_slug_are_different_pipelines_with_tables_of_their_own(imported, file):
    imported(PACKAGE + SECOND.format(name="A code") + SECOND.format(name="'A/code'") + SECOND.format(name="x " * 60) + SECOND.format(name="é"))
    slugs, tables = (list(Pipeline.objects.values_list(name, flat=True)) for name in ("slug", "table"))
    assert len(set(slugs)) == len(set(tables)) == 5
    assert max(map(len, slugs)) <= 80 and max(map(len, tables)) <= 63
    # a package of another file whose own name is the slug of one of these
    other = PACKAGE.replace("bike-shops:", "bike-shops-a-code:").replace("        Bike shops:", "        Codes:")
    imported(other, "bike-shops-a-code.yaml")
    assert Pipeline.objects.count() == len(set(Pipeline.objects.values_list("table", flat=True))) == 6
    again = importers.plan([file(other, "bike-shops-a-code.yaml")])
    assert {change.verb for change in again.changes} == {"unchanged"}


@db
def test_what_the_file_leaves_empty_stays_as_a_person_wrote_it_and_what_it_says_counts(imported):
    imported()
    Dataset.objects.update(limitations="Not for navigation.", excerpt="Mine.", portal_fields={"colour": "green"})
    DatasetColumn.objects.filter(name="Name").update(description="What it is called.")
    DatasetColumn.objects.filter(name="id").update(description="Mine.")
    pipeline = Pipeline.objects.get()
    Pipeline.objects.update(is_paused=True, title="Mine", table="mine", options={**pipeline.options, "update": "never", "encoding": "latin1"})
    imported()
    dataset, pipeline = Dataset.objects.get(), Pipeline.objects.get()
    assert (dataset.limitations, dataset.excerpt, dataset.portal_fields) == ("Not for navigation.", "Where to buy one.", {"colour": "green"})
    assert dict(DatasetColumn.objects.values_list("name", "description")) == {
        "id": "Number of it",
        "Name": "What it is called.",
        "Opened": "Since when",
    }
    assert (pipeline.is_paused, pipeline.title, pipeline.table) == (True, "Mine", "mine")
    assert (pipeline.options["update"], pipeline.options["epoch_zone"]) == ("never", "America/Toronto")
    assert "encoding" not in pipeline.options


@db
def test_a_dry_run_shows_each_word_that_would_change_and_writes_nothing(imported, file):
    imported()
    path = file(PACKAGE.replace("notes: Since when", "notes: Since which day").replace("refresh_rate: Semi-annually", "refresh_rate: Daily"))
    out = StringIO()
    call_command("import_config", str(path), "--dry-run", stdout=out)
    assert 'refresh_rate: "half-yearly" → "daily"' in out.getvalue()
    assert 'parts.Bike shops.Opened.description: "Since when" → "Since which day"' in out.getvalue()
    assert Dataset.objects.get().refresh_rate == "half-yearly"


@db
def test_a_dataset_that_was_made_here_is_exported_and_imported_as_it_is_whatever_its_parts_and_providers_are_called(imported, file):
    imported(OURS, "ours.yaml")
    exported = toronto_yaml_export.write(toronto_yaml_export.packages(Dataset.objects.all())[0])
    assert "Trees of the city:" in exported and "https://opendata.toronto.ca/trees.csv" in exported
    changes = importers.plan([file(exported, "trees.yaml")]).changes
    assert [change for change in changes if change.verb != "unchanged"] == []


OURS = """
    providers:
      downtown: {kind: web_file, base_url: "https://opendata.toronto.ca"}
      opendata-toronto-ca: {kind: csv_file, base_url: /srv/open}
      open-toronto: {kind: ckan, base_url: "https://ckan.city.example"}
    datasets:
      trees:
        title: Trees
        category: Table
        columns: {id: {type: number, portal_type: int}}
    pipelines:
      all-the-trees:
        provider: downtown
        dataset: trees
        resource: /trees.csv
        stages: [extract, standardize, load, publish]
        portal: open-toronto
        portal_resource: trees/Trees of the city
        portal_mode: replace
        cadence: cron
        cron: 0 9 * * 1
        options: {attributes: [{source: id, name: id, type: int}], published_format: csv}
"""


@db
def test_a_provider_of_another_kind_that_has_the_name_of_a_host_is_left_alone(imported):
    imported(OURS, "ours.yaml")
    Provider.objects.filter(slug="downtown").update(base_url="https://elsewhere.example")
    imported()
    assert Provider.objects.get(slug="opendata-toronto-ca").kind == "csv_file"
    assert Pipeline.objects.get(slug="bike-shops").provider.base_url == "https://opendata.toronto.ca"


# portals and secrets


@db
def test_the_portal_is_the_one_that_is_named_else_the_only_ckan_that_is_here_and_never_moves_by_itself(imported, file):
    Provider.objects.create(slug="open-toronto", title="Open", kind="ckan", base_url="https://ckan.city.example")
    imported()
    assert Pipeline.objects.get().portal.slug == "open-toronto"
    assert not Provider.objects.filter(slug="ckan").exists()
    Provider.objects.create(slug="other", title="Other", kind="ckan", base_url="https://other.city.example")
    assert {change.verb for change in importers.plan([file(PACKAGE)]).changes} == {"unchanged"}
    two = importers.plan([file(PACKAGE.replace("bike-shops:", "two:"), "two.yaml")])
    assert "--portal open-toronto" in two.problems[0].next_step
    imported(portal="other")
    assert Pipeline.objects.get().portal.slug == "other"


@db
def test_without_any_ckan_a_portal_is_made_that_nobody_can_reach_and_the_person_is_told_what_to_do(imported):
    report = imported()
    portal = Provider.objects.get(slug="ckan")
    assert (portal.is_active, portal.base_url) == (False, "https://ckan.invalid")
    assert "--portal" in report.notes[0]


@db
def test_a_portal_that_is_not_here_is_refused_with_the_nearest(file):
    Provider.objects.create(slug="open-toronto", title="Open", kind="ckan", base_url="https://ckan.city.example")
    code, _, err = run("import_config", file(PACKAGE), "--portal", "open-torono")
    assert (code, "Did you mean open-toronto?" in err) == (2, True)


HEADERS = PACKAGE.replace(
    "format: csv", "format: csv\n          custom_headers:\n            X-Key: bike-api-key\n            Accept: text/csv, hunter2"
)


@db
def test_a_secret_header_is_read_from_the_environment_or_sealed_and_what_a_person_entered_stays(imported, file):
    imported(HEADERS)
    provider = Pipeline.objects.get().provider
    assert provider.parameters == {"header_1": "X-Key", "header_2": "Accept"}
    assert provider.secrets["header_1_value"] == "env:bike_api_key"
    assert secrets.reveal(provider.secrets["header_2_value"]) == "text/csv, hunter2"
    provider.secrets["header_1_value"] = secrets.seal("entered-by-hand")
    provider.save()
    imported(HEADERS)
    assert secrets.reveal(Provider.objects.get(pk=provider.pk).secrets["header_1_value"]) == "entered-by-hand"
    told = toronto_yaml_export.packages(Dataset.objects.all())[0]
    assert told["bike-shops"]["resources"]["Bike shops"]["custom_headers"] == {"X-Key": "sealed", "Accept": "sealed"}
    assert "hunter2" not in str(told)


@db
def test_a_webhook_of_an_upkeep_job_is_sealed_and_never_leaves_in_clear(imported):
    job = "upkeep:\n  Nightly heal: {kind: heal, cadence: cron, cron: 5 4-14 * * *, notices: trouble, webhook: %s}\n"
    imported(job % '"https://hooks.example/hunter2"', "jobs.yaml")
    stored = UpkeepJob.objects.get()
    assert (stored.cron, stored.notices, secrets.reveal(stored.webhook)) == ("5 4-14 * * *", "trouble", "https://hooks.example/hunter2")
    text = own.write(own.document())
    assert "hunter2" not in text and secrets.SEALED not in text
    assert "webhook: sealed" in text
    assert not imported(text, "jobs.yaml").changed
    report = imported(job % '"https://hooks.example/hunter3"', "jobs.yaml")
    assert [(one.name, one.before, one.after) for one in report.changed[0].fields] == [("webhook", "sealed", "sealed (a new value)")]
    assert secrets.reveal(UpkeepJob.objects.get().webhook).endswith("hunter3")
    with pytest.raises(importers.Refused, match="no address of a webhook"):
        imported(job % "hunter2", "jobs.yaml")


@db
def test_a_dataset_that_no_such_file_can_describe_is_told_and_left_out(imported):
    imported()
    Provider.objects.filter(kind="web_file").update(kind="socrata")
    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("export_config", "bike-shops", "--format", "toronto", stdout=out, stderr=err)
    assert (ended.value.code, out.getvalue()) == (3, "")
    assert "its source is of the kind socrata" in err.getvalue()
