"""Enrich: every row gets the keys of its areas, nothing else of it changes, and none is lost."""

import csv
import io
from pathlib import Path

import pytest
from django.conf import settings

from catalog import boundaries
from catalog.audit import Actor
from catalog.models import CatalogEntry, DatasetColumn
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines.errors import SetupError
from pipelines.models import Enrichment, ImportLog, State
from pipelines.stages import enrich
from pipelines.stages.enrich import Lookup, Tally, add_columns
from tests.catalog.squares import collection, square
from tests.pipelines.scene import SOURCE, stage_scene

__all__ = ["stage_scene"]
ANN = Actor("ann")


def areas(*features: dict) -> boundaries.Areas:
    return boundaries.parse(collection(*features), "name")


WEST_EAST = areas(square("west", 0, 0), square("a,b", 1, 0), square("Cañada", 2, 0))


def lookups(layer: boundaries.Areas = WEST_EAST) -> list[Lookup]:
    return [Lookup("area_start", "lon", "lat", "city", layer), Lookup("area_end", "to_lon", "to_lat", "city", layer)]


def enriched(tmp_path: Path, text: str | bytes, asked: list[Lookup] | None = None) -> tuple[bytes, Tally]:
    source, target, tally = tmp_path / "given.csv", tmp_path / "made.csv", Tally()
    source.write_bytes(text.encode() if isinstance(text, str) else text)
    sha256 = add_columns(source, target, asked or lookups(), tally)
    assert sha256 == boundaries.hashlib.sha256(target.read_bytes()).hexdigest()
    return target.read_bytes(), tally


HEAD = "id,lon,lat,to_lon,to_lat,note\n"


def test_the_keys_come_to_the_end_and_the_rest_stays_byte_for_byte(tmp_path):
    rows = ["1,0.5,0.5,1.5,0.5,x\n", "2,0.50,.5,2.5,5e-1,\n", "3,9,9,,,plain\n"]
    made, tally = enriched(tmp_path, HEAD + "".join(rows))
    lines = made.decode().splitlines(keepends=True)
    assert lines[0] == "id,lon,lat,to_lon,to_lat,note,area_start,area_end\n"
    assert lines[1:] == ['1,0.5,0.5,1.5,0.5,x,west,"a,b"\n', "2,0.50,.5,2.5,5e-1,,west,Cañada\n", "3,9,9,,,plain,,\n"]
    assert tally.rows == 3
    assert (tally.inside, tally.outside) == ({"area_start": 2, "area_end": 2}, {"area_start": 1, "area_end": 0})
    assert tally.no_point == {"area_start": 0, "area_end": 1}


def test_quotes_line_ends_in_cells_and_bytes_that_are_no_utf8_are_left_alone(tmp_path):
    rows = [b'"1","0.5","0.5",1.5,0.5,"two\nlines, ""quoted"""\r\n', b"2,0.5,0.5,1.5,0.5,\xff\x00\n", b'3,0.5,0.5,1.5,0.5,"no end of line"']
    made, tally = enriched(tmp_path, HEAD.encode() + b"".join(rows))
    assert made.split(b"\n", 1)[1] == (
        b'"1","0.5","0.5",1.5,0.5,"two\nlines, ""quoted""",west,"a,b"\r\n' + rows[1][:-1] + b',west,"a,b"\n' + rows[2] + b',west,"a,b"\n'
    )
    assert tally.rows == 3


@pytest.mark.parametrize(
    "row",
    [
        "1,0.5,0.5\n",
        "1,0.5,0.5,1.5,0.5,x,y\n",
        "\n",
        "1,0.5,0.5,1.5,0.5,a\rb\n",
        "1,here,0.5,nan,inf,x\n",
        "1,500,0.5,0.5,-91,x\n",
        '1,0.5,0.5,1"5,0.5,"x\n',
    ],
)
@pytest.mark.parametrize("other", ["9,0.5,0.5,0.5,0.5,x\n", '9,0.5,0.5,0.5,0.5,"x"\n'])
def test_a_row_that_is_odd_goes_on_as_it_is_and_takes_no_other_with_it(tmp_path, row, other):
    made, tally = enriched(tmp_path, HEAD + other + row + other)
    lines = made.decode().split("\n", 1)[1]
    good = f"{other[:-1]},west,west\n"
    if "\r" in row and '"' not in other:
        # an end of line to a reader, and none to the loader, which refuses the row
        assert lines == f'{good}{row[:-1]},west,"a,b"\n{good}'
    else:
        assert lines == f"{good}{row[:-1]},,\n{good}"
    assert tally.rows == 3


def test_a_cell_too_few_and_one_too_many_do_not_make_up_for_each_other(tmp_path):
    rows = ["1,0.5,0.5,1.5,0.5\n", "2,0.5,0.5,1.5,0.5,x,y\n", "3,0.5,0.5,2.5,0.5,x\n"]
    made, _ = enriched(tmp_path, HEAD + "".join(rows))
    assert made.decode().splitlines()[1:] == [f"{rows[0][:-1]},,", f"{rows[1][:-1]},,", f"{rows[2][:-1]},west,Cañada"]


def test_a_row_is_outside_the_city_when_all_of_its_points_are(tmp_path):
    other = areas(square("far", 50, 50))
    asked = [*lookups(), Lookup("zone", "lon", "lat", "zones", other)]
    rows = ["1,0.5,0.5,9,9,\n", "2,9,9,9,9,\n", "3,9,9,,,\n", "4,,,,,\n", "5,50.5,50.5,0.5,0.5,\n"]
    _, tally = enriched(tmp_path, HEAD + "".join(rows), asked)
    assert tally.outside_city == 2


def test_chunks_are_one_file_again(tmp_path, monkeypatch):
    rows = "".join(f'{n},{n % 4 + 0.5},0.5,0.5,0.5,"a\nb"\n' if n % 7 == 0 else f"{n},{n % 4 + 0.5},0.5,0.5,0.5,\n" for n in range(200))
    whole, _ = enriched(tmp_path, HEAD + rows)
    monkeypatch.setattr(enrich, "CHUNK", 3)
    pieces, tally = enriched(tmp_path, HEAD + rows)
    assert pieces == whole and tally.rows == 200
    keys = [row["area_start"] for row in csv.DictReader(io.StringIO(whole.decode(), newline=""))]
    assert keys == ["west", "a,b", "Cañada", ""] * 50


@pytest.mark.parametrize(
    ("column", "lon", "lat", "words"),
    [
        ("zone", "longitude", "lat", "given.csv has no longitude; it has id, lon, lat, to_lon, to_lat, note"),
        ("note", "lon", "lat", "has a column note already"),
        ("zone", "lon", "lon", "lon as longitude and as latitude"),
    ],
)
def test_columns_that_are_not_there_or_are_already_are_named(tmp_path, column, lon, lat, words):
    with pytest.raises(SetupError, match=words):
        enriched(tmp_path, HEAD, [Lookup(column, lon, lat, "city", WEST_EAST)])


def test_a_file_without_rows_gets_the_columns_all_the_same(tmp_path):
    made, tally = enriched(tmp_path, HEAD)
    assert made == HEAD[:-1].encode() + b",area_start,area_end\n" and tally.rows == 0


# the whole way


def trees(rows: int = 1000) -> SandboxTable:
    """Trees on a line from west to east over three squares, the fourth part of them beyond."""
    columns = [("id", "text"), ("lon", "number"), ("lat", "number"), ("kind", "text")]
    made = [(f"t{n:05d}", str(n * 4 / rows), "0.5", ['Oak, "red"', "Çelik", None][n % 3]) for n in range(rows)]
    return SandboxTable(SOURCE, "Trees", columns, made, key="id")


def with_areas(scene, **more):
    layer = boundaries.store("squares", "Squares", "name", collection(square("1", 0, 0), square("02", 1, 0), square("3", 2, 0)), ANN)
    Enrichment.objects.create(pipeline=scene.pipeline, layer=layer, lon_column="lon", lat_column="lat", column="area", **more)
    return layer


@pytest.mark.django_db(transaction=True)
def test_trees_of_a_portal_get_their_areas_and_a_changed_layer_counts_from_the_next_run(stage_scene):
    scene = stage_scene(trees(), stages=["extract", "enrich", "load"], portal=None, version_column="")
    with_areas(scene)
    block = scene.go()
    assert block.state == State.DONE, block.message
    run = scene.last("enrich")
    assert (run.rows_in, run.rows_out, run.details["flags"]) == (1000, 1000, {"outside-city": 249})
    assert run.details["columns"] == {"area": {"layer": "squares", "inside": 751, "outside": 249, "no_point": 0}}
    old = run.details["layers"]["squares"]["sha256"]
    # the tree on the border of 1 and 02 is in 1, and the key 02 is no number
    found = dict(scene.warehouse("id, area"))
    assert (found["t00250"], found["t00251"], found["t00750"], found["t00751"]) == ("1", "02", "3", None)
    ready = CatalogEntry.objects.live().filter(source=scene.pipeline.slug, layer="ready")
    assert sum(entry.rows for entry in ready) == 1000 and {tuple(entry.metadata["columns"][-1]) for entry in ready} == {("area", "text")}
    assert {entry.metadata["vouched"] for entry in ready} == {True}
    word = DatasetColumn.objects.get(dataset=scene.dataset, name="area")
    assert (word.is_published, word.type) == (False, "text") and word.seen_at

    boundaries.store("squares", "Squares", "name", collection(square("all", 0, 0, size=9)), ANN)
    scene.go(force=True, stages=["enrich", "load"])
    assert scene.last("enrich").details["layers"]["squares"]["sha256"] != old
    assert {area for _, area in scene.warehouse("id, area")} == {"all"}


@pytest.mark.django_db(transaction=True)
def test_a_stage_that_broke_off_leaves_no_mix_to_load_and_one_that_is_gone_leaves_nothing(stage_scene, monkeypatch):
    scene = stage_scene(trees(), stages=["extract", "enrich", "load"], portal=None, version_column="")
    with_areas(scene)
    scene.go()
    before = scene.warehouse("id, area")
    boundaries.store("squares", "Squares", "name", collection(square("all", 0, 0, size=9)), ANN)
    # the first file is of the new layer, the second still of the old one
    monkeypatch.setenv("ODO_FAULT", "enrich.file:2:raise")
    scene.again(stage="enrich")
    monkeypatch.delenv("ODO_FAULT")
    block = scene.again(stage="load")
    assert (block.state, block.error_code) == (State.FAILED, "mixed-files") and "from enrich" in block.next_step
    assert scene.warehouse("id, area") == before
    assert scene.again(stage="enrich").state == State.DONE
    assert {area for _, area in scene.warehouse("id, area")} == {"all"}

    scene.change(stages=["extract", "load"])
    scene.again(stage="load")
    loaded = ImportLog.objects.filter(run=scene.last("load"), event="chunk").values_list("file", flat=True)
    assert {file.partition("/")[0] for file in loaded} == {"raw"}, "files of a stage that the pipeline no longer has were loaded"


@pytest.mark.django_db(transaction=True)
def test_without_areas_the_stage_says_what_is_missing(stage_scene):
    scene = stage_scene(trees(10), stages=["extract", "enrich", "load"], portal=None, version_column="")
    block = scene.go()
    assert (block.state, block.error_code) == (State.FAILED, "no-enrichments") and "Areas to look up" in block.next_step


def test_the_real_layers_are_looked_up_from_text(tmp_path):
    folder = settings.BASE_DIR.parent / "shared" / "data" / "polygons"
    if not folder.exists():
        pytest.skip(f"the real polygons are not at {folder}")
    names = {
        "district": ("council_districts_simplified", "district_n"),
        "tract": ("census_tracts_2010_simplified_20pct", "GEOID10"),
        "hex": ("hex1000", "id"),
    }
    layers = {name: boundaries.parse((folder / f"{file}.json").read_bytes(), key) for name, (file, key) in names.items()}
    asked = [Lookup(f"my_{name}", "lon", "lat", name, layer) for name, layer in layers.items()]
    made, tally = enriched(tmp_path, (folder / "points_500.csv").read_bytes(), asked)
    rows = list(csv.DictReader(io.StringIO(made.decode())))
    assert len(rows) == 500 == tally.rows
    assert [row for row in rows if any(row[name] != row[f"my_{name}"] for name in names)] == []
