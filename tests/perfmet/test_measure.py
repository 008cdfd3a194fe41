"""Measuring: both warehouses and the pages of a portal count the same of the same cells, and pandas agrees."""

import csv
import json
import math
from pathlib import Path

import pandas
import pytest

from perfmet import measure
from pipelines import warehouse
from pipelines.connectors.base import Account, Column, Connector, FetchedFile
from pipelines.errors import DataError, SetupError
from pipelines.warehouse.cells import MISSING
from tests.mariadb import mariadb, mariadb_server
from tests.perfmet.cities import dropped, loaded

__all__ = ["mariadb", "mariadb_server"]
POINT = json.dumps({"type": "Point", "coordinates": [-79.38, 43.65]})
#: Its outline crosses itself.
BOWTIE = json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]]})
KINDS = {"name": "text", "ward": "text", "same": "text", "none": "text", "height": "number", "seen": "local_time", "geometry": "text"}
ROWS = [
    ("oak", "NA", "x", None, "1.5", "2026-01-01 00:00:00", POINT),
    ("Oak", "3", "x", "", "1.50", "2026-01-02 00:00:00", BOWTIE),
    ("oak ", "n/a", "x", "null", None, None, "no shape"),
    ("", "3", "x", None, "1.5", "2026-01-01 00:00:00", None),
]


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.needs("mariadb"))])
def dsn(request, db, settings):
    address = settings.WAREHOUSES["default"] if request.param == "postgres" else request.getfixturevalue("mariadb")
    yield address
    dropped(address, "trees")


def told(cells):
    return {column.name: (column.missing, column.is_constant) for column in cells.columns}


#: Column to (missing, constant): the words that say nothing are missing, and do not make a second value.
WANTED = {"name": (1, False), "ward": (2, True), "same": (0, True), "none": (4, True), "seen": (1, False), "geometry": (1, False)}


def test_a_table_is_counted_alike_by_both_engines(dsn):
    loaded(dsn, "trees", KINDS, ROWS)

    found = measure.in_warehouse(dsn, "trees", list(KINDS), with_shapes=True)

    assert found.cells.rows == 4
    # 1.5 and 1.50 are one number
    assert told(found.cells) == WANTED | {"height": (1, True)}
    assert {column.name: column.type for column in found.cells.columns}["seen"] == "local_time"
    assert found.cells.columns[0].sample == ("oak", "Oak", "oak ", "")
    assert found.invalid_shapes == 2


def test_each_word_that_says_nothing_is_missing_and_no_other(dsn):
    words = [*MISSING, "na", "Null", "none", "None", "-", " ", "0", "NA "]
    loaded(dsn, "trees", {"word": "text"}, [(word,) for word in words])
    [column] = measure.in_warehouse(dsn, "trees", ["word"]).cells.columns
    assert (column.missing, column.is_constant) == (len(MISSING), False)


def test_a_table_without_rows_has_columns_that_say_nothing(dsn):
    loaded(dsn, "trees", KINDS, [])
    found = measure.in_warehouse(dsn, "trees", ["name", "height", "geometry"], with_shapes=True)
    assert (found.cells.rows, told(found.cells)) == (0, {"name": (0, True), "height": (0, True), "geometry": (0, False)})
    assert found.invalid_shapes == 0


def test_truths_and_json_are_counted_too(dsn):
    rows = [(True, '{"a": 1}', "[1]"), (None, "null", "null"), (False, '""', None)]
    loaded(dsn, "trees", {"is_old": "boolean", "made": "json", "same": "json"}, rows)
    found = measure.in_warehouse(dsn, "trees", ["is_old", "made", "same"])
    assert told(found.cells) == {"is_old": (1, False), "made": (2, True), "same": (2, True)}


def test_what_is_not_there_is_named(dsn):
    loaded(dsn, "trees", {"name": "text"}, [])
    with pytest.raises(SetupError, match="no column 'ward'"):
        measure.in_warehouse(dsn, "trees", ["ward"])
    with pytest.raises(SetupError, match="no table shrubs"):
        measure.in_warehouse(dsn, "shrubs", ["ward"])


def test_a_long_value_is_cut_for_the_sample(dsn):
    loaded(dsn, "trees", {"name": "text"}, [("é" * 5_000,)])
    [column] = measure.in_warehouse(dsn, "trees", ["name"]).cells.columns
    assert column.sample == ("é" * 199 + "…",)


def test_the_city_s_own_bookkeeping_is_asked_for_by_nobody(dsn):
    loaded(dsn, "trees", {"name": "text"}, [("oak",)])
    assert list(warehouse.engine(dsn).column_types(dsn, "trees")) == ["name"]


# the pages of a portal


class Pages(Connector):
    """A portal with these pages of CSV."""

    kind, label, can_fetch = "pages-of-a-test", "Pages of a test", True

    def __init__(self, *pages):
        super().__init__(Account("pages", "https://portal.example"), None)
        self.pages, self.left = pages, []

    def test(self):
        return ""

    def count(self, resource, request):
        return sum(map(len, self.pages))

    def fetch(self, resource, request, *, rows, workdir, progress):
        for number, page in enumerate(self.pages):
            self.left.append(len([*Path(workdir).iterdir()]))
            path = workdir / f"{number}.csv"
            write(path, [column.name for column in request.columns], page)
            progress(number, rows)
            yield FetchedFile(path.name, path, len(page), 0, "", "")


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def columns_of(*names):
    return [Column(name, "text") for name in names]


def test_a_portal_s_pages_are_counted_as_the_warehouse_counts():
    portal, beats = Pages(ROWS[:1], ROWS[1:3], ROWS[3:]), []

    found = measure.on_portal(portal, "trees", [Column(*each) for each in KINDS.items()], with_shapes=True, beat=lambda: beats.append(1))

    # to a file 1.5 and 1.50 are two texts
    assert told(found.cells) == WANTED | {"height": (1, False)}
    assert (found.cells.rows, found.invalid_shapes, len(beats)) == (4, 2, 3)
    assert found.cells.columns[0].sample == ("oak", "Oak", "oak ", "")


def test_of_a_portal_one_page_at_a_time_lies_on_the_disk():
    portal = Pages(*[[("a",)]] * 5)
    measure.on_portal(portal, "trees", columns_of("name"))
    assert portal.left == [0] * 5


def test_a_value_on_another_page_is_another_value():
    portal = Pages([("a",), ("a",)], [("",)], [("b",)])
    [column] = measure.on_portal(portal, "trees", columns_of("name")).cells.columns
    assert (column.missing, column.is_constant) == (1, False)


def test_a_portal_without_rows_is_asked_for_no_page():
    portal = Pages()
    found = measure.on_portal(portal, "trees", columns_of("name"))
    assert (found.cells.rows, portal.left) == (0, [])


def test_odd_names_and_cells_are_counted(tmp_path):
    names = ['he said "no"', "a,b", "it's", "é ü"]
    path = tmp_path / "it's a page.csv"
    write(path, names, [("line\nbreak", 'q"q', ",", "x" * 3_000_000), ("", "", "", "")])
    count = measure.Count(names)
    count.add(path)
    assert [(column.name, column.missing) for column in count.measured({}).cells.columns] == [(name, 1) for name in names]


def test_a_page_that_is_none_is_told(tmp_path):
    path = tmp_path / "page.csv"
    path.write_text("other\n1\n")
    with pytest.raises(DataError, match="page.csv can't be counted"):
        measure.Count(["name"]).add(path)


def test_pandas_counts_the_same(tmp_path):
    names, rows = [*KINDS][:4], [row[:4] for row in ROWS] + [(word, word, "x", word) for word in MISSING]
    path = tmp_path / "page.csv"
    write(path, names, rows)
    count = measure.Count(names)
    count.add(path)
    frame = pandas.read_csv(path, dtype=object, keep_default_na=False, na_values=list(MISSING))

    for column in count.measured({}).cells.columns:
        assert column.missing == frame[column.name].isna().sum()
        assert column.is_constant == (frame[column.name].nunique() <= 1)


@pytest.mark.parametrize(("texts", "wrong"), [([], 0), ([None, "", "null"], 0), ([POINT, POINT], 0), ([POINT, BOWTIE, "{", "[1]"], 3)])
def test_a_shape_is_invalid_when_no_map_could_draw_it(texts, wrong):
    assert measure.invalid(texts) == wrong


def test_no_cell_is_counted_twice():
    # the share of missing cells is over rows and columns, whatever the pages
    portal = Pages(*[[("a", "")] * 3] * 4)
    cells = measure.on_portal(portal, "trees", columns_of("name", "ward")).cells
    assert math.isclose(sum(column.missing for column in cells.columns) / (cells.rows * 2), 0.5)
