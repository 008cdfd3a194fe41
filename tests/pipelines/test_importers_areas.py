"""Our own YAML carries boundaries with their areas, enrichments, releases and upkeep jobs to another city, and back to the letter."""

import json
import textwrap
from datetime import time

import pytest
from django.core.exceptions import ValidationError

from catalog import boundaries
from catalog.audit import Actor
from catalog.models import AuditEntry, BoundaryLayer, Dataset
from pipelines import importers
from pipelines.formats.atd_trips import ATD_PRIVATE, ATD_TRIPS
from pipelines.importers import own, plain
from pipelines.importers.settle import NO_CHECKS, Checks
from pipelines.models import Enrichment, Pipeline, Provider, UpkeepJob
from tests.pipelines.test_config_commands import run

pytestmark = pytest.mark.django_db
ME = Actor("test")


def square(key, west):
    ring = [[west, 30], [west + 1, 30], [west + 1, 31], [west, 31], [west, 30]]
    return {"type": "Feature", "properties": {"district_n": key}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


AREAS = json.dumps({"type": "FeatureCollection", "features": [square("1", -98), square("2", -97)]}).encode()
#: Of every kind of value that JSON has; no stage is asked to carry it out.
WORDS = [
    {"column": "trip_id", "from": "trip_id", "rule": "surrogate", "type": "text"},
    {"column": "end", "from": "end_time", "rules": ["in_zone", "round_minutes"], "minutes": 15, "zone": "America/Chicago", "exact": False},
    {"column": "lat", "from": ["end_lat", "end_lon"], "rule": "round_decimals", "decimals": 3.0, "words": "07:00", "none": None, "digits": "15"},
]


@pytest.fixture
def city():
    provider = Provider.objects.create(slug="bird", title="Bird", kind="socrata", base_url="https://x.example.gov")
    dataset = Dataset.objects.create(slug="trips", title="Trips")
    boundaries.store("council-districts", "Council: districts", "district_n", AREAS, Actor("steward"), label_property="district_n")
    pipeline = Pipeline.objects.create(
        slug="bird-trips",
        title="Bird trips",
        provider=provider,
        dataset=dataset,
        portal=provider,
        resource="trips",
        portal_resource="aaaa-bbbb",
        table="trips",
        key=["provider_id", "trip_id"],
        private_columns=ATD_PRIVATE,
        release=ATD_TRIPS,
        release_k=10,
        raw_names="atd-mds",
        surrogate_key="fernet:never-leaves",
    )
    layer = BoundaryLayer.objects.get()
    for position, end in enumerate(("start", "end")):
        Enrichment.objects.create(
            pipeline=pipeline, position=9 - position, layer=layer, lon_column=f"{end}_lon", lat_column=f"{end}_lat", column=f"district_{end}"
        )
    job = UpkeepJob.objects.create(kind="heal", title="Nightly: heal", options={"days": 35}, at_time=time(2), time_zone="America/Chicago")
    job.pipelines.add(pipeline)
    UpkeepJob.objects.create(kind="trip-report", title="Monthly report", cadence="monthly", day=3, is_active=False)


@pytest.fixture
def imported(tmp_path):
    def do(text, beside=None, checks=NO_CHECKS):
        path = tmp_path / "city.yaml"
        path.write_text(textwrap.dedent(text))
        if beside is not None:
            (tmp_path / "council-districts.geojson").write_bytes(beside)
        planned = importers.plan([path], checks=checks)
        return importers.apply(planned, actor=ME, checks=checks)

    return do


def exported():
    return own.write(own.document())


def wipe():
    for model in (UpkeepJob, Pipeline, BoundaryLayer, Dataset, Provider):
        model.objects.all().delete()


def test_everything_comes_back_in_another_city_with_the_areas_beside_the_file(city, imported):
    before = exported()
    wipe()
    imported(before, beside=AREAS)
    assert exported() == before
    pipeline = Pipeline.objects.get()
    assert (pipeline.release, pipeline.release_k, pipeline.raw_names, pipeline.surrogate_key) == (ATD_TRIPS, 10, "atd-mds", "")
    assert [one.column for one in plain.enrichments_of(pipeline)] == ["district_end", "district_start"]
    assert UpkeepJob.objects.get(kind="heal").options == {"days": 35}
    assert boundaries.content_of(BoundaryLayer.objects.get()) == AREAS
    assert "never-leaves" not in before


def test_a_release_keeps_its_types(city, imported):
    Pipeline.objects.update(release=WORDS, private_columns=["no", "07:00"])
    before = exported()
    Pipeline.objects.update(release=[], private_columns=[])
    imported(before)
    assert (Pipeline.objects.get().release, exported()) == (WORDS, before)


def test_a_release_that_lets_something_private_out_is_refused(city, tmp_path):
    path = tmp_path / "city.yaml"
    path.write_text("pipelines:\n  bird-trips:\n    private_columns: [vehicle_type, trip_id]\n")
    code, _, err = run("import_config", path)
    assert code == 2 and f"{path}:2: pipelines.bird-trips.release:" in err and "vehicle_type" in err


def test_options_keep_their_types(city, imported):
    deep = {"days": 35, "words": "35", "deep": [1, True, None, "07:00"]}
    UpkeepJob.objects.filter(kind="heal").update(options=deep)
    before = exported()
    UpkeepJob.objects.all().delete()
    imported(before)
    assert UpkeepJob.objects.get(kind="heal").options == deep and exported() == before


def test_the_export_of_a_city_changes_nothing_in_it_and_needs_no_file_beside_it(city, imported):
    audited = AuditEntry.objects.count()
    report = imported(exported())
    assert (report.created, report.changed, len(report.unchanged)) == ((), (), 6)
    assert AuditEntry.objects.count() == audited


def test_areas_that_are_nowhere_are_asked_for_in_words(city, imported):
    text = exported()
    wipe()
    with pytest.raises(importers.Refused) as refusal:
        imported(text)
    (problem,) = refusal.value.problems  # and none for what refers to them
    assert problem.field == "boundaries.council-districts.file" and problem.line
    assert problem.message == "The areas of council-districts are not here: there is no council-districts.geojson beside this file."
    assert "upload it under Boundaries" in problem.next_step


def test_a_changed_file_beside_it_replaces_the_areas(city, imported):
    changed = AREAS.replace(b'"2"', b'"7"')
    report = imported("boundaries: {council-districts: {file: council-districts.geojson}}", beside=changed)
    assert [field.name for change in report.changed for field in change.fields] == ["sha256"]
    assert boundaries.load(BoundaryLayer.objects.get()).keys == ("1", "7")
    assert AuditEntry.objects.filter(kind="boundary", target="council-districts", actor="test").count() == 1


@pytest.mark.parametrize(
    ("text", "beside", "field", "words"),
    [
        ("boundaries: {council-districts: {file: ../../etc/passwd}}", None, "file", "no name of a file beside this one"),
        ("boundaries: {council-districts: {key_property: nonsense}}", None, "file", "has no nonsense"),
        ("boundaries: {council-districts: {file: council-districts.geojson}}", b"{", "file", "no JSON"),
        ("boundaries: {council-districts: {sha256: aa, file: gone.geojson}}", None, "sha256", "the areas that are stored here are others"),
        ("boundaries: {council-districts: {colour: red}}", None, "colour", "A boundary has no setting 'colour'"),
        ("pipelines: {bird-trips: {enrichments: [{layer: counzil}]}}", None, "enrichments.1.layer", "no boundary 'counzil'"),
        ("pipelines: {bird-trips: {enrichments: [{layer: council-districts}]}}", None, "enrichments.1", "does not say its lon_column"),
        ("pipelines: {bird-trips: {enrichments: [{lon: x}]}}", None, "enrichments.1.lon", "An enrichment has no setting 'lon'"),
        ("upkeep: {Nightly: {cadence: daily}}", None, "kind", "A new upkeep job needs kind"),
        ("upkeep: {Nightly: {kind: heal, pipelines: [birdtrips]}}", None, "pipelines", "no pipeline 'birdtrips'"),
        ("upkeep: {Nightly: {kind: heal, title: x}}", None, "title", "An upkeep job has no setting 'title'"),
        ("upkeep: {Nightly: {kind: heal, options: {dys: 3}}}", None, "options", "knows days"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_nothing_is_written(city, imported, text, beside, field, words):
    def check(job):
        if "dys" in job.options:
            raise ValidationError({"options": "heal has no dys; it knows days."})

    before = exported()
    with pytest.raises(importers.Refused) as refusal:
        imported(text, beside=beside, checks=Checks(job=check))
    found = [problem for problem in refusal.value.problems if words in problem.message]
    assert found and found[0].field.endswith(f".{field}") and found[0].line == 1 and found[0].next_step
    assert exported() == before


def test_a_list_of_enrichments_is_all_that_the_pipeline_has(city, imported):
    kept = Enrichment.objects.get(column="district_end").pk
    imported(
        """\
        pipelines:
          bird-trips:
            enrichments:
              - {layer: council-districts, lon_column: x, lat_column: y, column: other}
              - {layer: council-districts, lon_column: end_lon, lat_column: y, column: district_end}
        """
    )
    told = [(one.column, one.lat_column) for one in plain.enrichments_of(Pipeline.objects.get())]
    assert told == [("other", "y"), ("district_end", "y")]
    assert Enrichment.objects.get(column="district_end").pk == kept


def test_a_job_whose_hour_was_changed_is_planned_anew_and_another_is_not(city, imported):
    UpkeepJob.objects.update(next_at="2030-06-01T00:00Z")
    imported("upkeep: {'Nightly: heal': {at_time: 03:00}, Monthly report: {options: {a: 1}}}")
    assert dict(UpkeepJob.objects.values_list("kind", "next_at__year")) == {"heal": None, "trip-report": 2030}


def test_a_pipelines_columns_alone_can_be_changed(city, imported):
    report = imported("pipelines: {bird-trips: {columns: [a, b]}}")
    assert Pipeline.objects.get().columns == ["a", "b"] and len(report.changed) == 1


def test_the_commands_write_the_areas_beside_the_file_and_find_them_there(city, tmp_path):
    out = tmp_path / "out" / "city.yaml"
    out.parent.mkdir()
    before = exported()
    assert run("export_config", "-o", out)[0] == 0
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == {"city.yaml": before.encode(), "council-districts.geojson": AREAS}
    wipe()
    code, said, err = run("import_config", out)
    assert (code, exported()) == (0, before), err
    assert "create  upkeep job Nightly: heal: heal daily" in said and "create  boundary council-districts: Council: districts" in said


def test_a_kind_of_job_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    path = tmp_path / "city.yaml"
    path.write_text("upkeep:\n  Nightly:\n    kind: heel\n")
    code, _, err = run("import_config", path)
    assert code == 2 and f"{path}:3: upkeep.Nightly.kind:" in err and "heal" in err


def test_some_pipelines_take_their_areas_along_and_no_jobs(city):
    told = own.document(["bird-trips"])
    assert list(told) == ["providers", "datasets", "boundaries", "pipelines"]
