"""What the rows of a table say of its quality: counted in the warehouse by one query, or in the files that a portal gives, page by page.

Both count alike (`pipelines.warehouse.cells`). Memory does not grow with the rows: of a portal one page is on disk at a time, and
DuckDB counts in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import shapely

from pipelines import warehouse
from pipelines.connectors.base import Column, Connector, FetchRequest
from pipelines.errors import DataError
from pipelines.warehouse.cells import MISSING, SAMPLE_LENGTH, SAMPLE_ROWS, SHAPE, Cells, ColumnCells, samples
from pipelines.warehouse.tables import Scope

#: Rows a page of a portal; CKAN gives 32,000 at most.
PAGE_ROWS = 20_000
#: Shapes are looked at so many at a time.
SHAPES_AT_ONCE = 2_000
#: A line of a page may be so long: a shape of a whole city is some MB.
LONGEST_LINE = 32 << 20
SECONDS = 600
_AS_TEXT = (
    f"all_varchar = true, header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', parallel = false, max_line_size = {LONGEST_LINE}"
)
_SETTINGS = {"memory_limit": "1GB", "threads": 2}


@dataclass(frozen=True)
class Measured:
    """The cells of a table, and how many of its rows have an invalid shape; None where it has no shapes, or nobody asked."""

    cells: Cells
    invalid_shapes: int | None = None


def in_warehouse(dsn: str, table: str, names: Sequence[str], *, with_shapes: bool = False, seconds: int = SECONDS) -> Measured:
    """Measure these columns of a city's table. Raises SetupError where one is not there, TransientError where it takes too long."""
    engine = warehouse.engine(dsn)
    cells = engine.cells(dsn, table, names, seconds=seconds)
    if not with_shapes or SHAPE not in names:
        return Measured(cells)
    [kind] = [column.type for column in cells.columns if column.name == SHAPE]
    pages = engine.rows_after(dsn, table, (Column(SHAPE, kind),), Scope(), after=0, chunk=SHAPES_AT_ONCE, run_id=0)
    return Measured(cells, sum(invalid(row[SHAPE] for row in rows) for _, rows in pages))


def invalid(texts: Iterable[str | None]) -> int:
    """How many of these GeoJSON geometries are no valid shape. No text is no shape, and not an invalid one."""
    given = [text for text in texts if text not in (None, "", "null")]
    shapes = shapely.from_geojson(given, on_invalid="ignore")
    return int((shapely.is_missing(shapes) | ~shapely.is_valid(shapes)).sum()) if given else 0


def on_portal(
    portal: Connector, resource: str, columns: Sequence[Column], *, with_shapes: bool = False, beat: Callable[[], None] = lambda: None
) -> Measured:
    """Measure a resource of a portal through its connector: its pages come to disk one after the other, are counted and removed.

    `beat` is called with each page. Raises PipelineError.
    """
    request = FetchRequest(columns=tuple(columns), page_size=PAGE_ROWS, in_flight=1, format="csv")
    counted = Count([column.name for column in columns], with_shapes=with_shapes)
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        rows = portal.count(resource, request) if portal.can_count else None
        if rows != 0:
            for file in portal.fetch(resource, request, rows=rows, workdir=Path(folder), progress=lambda seen, of: beat()):
                if not file.metadata.get("role"):
                    counted.add(file.path)
                file.path.unlink()
    return counted.measured({column.name: column.type for column in columns})


@dataclass
class Count:
    """What was counted of these columns in the CSV files so far."""

    names: Sequence[str]
    with_shapes: bool = False
    rows: int = 0
    invalid_shapes: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    #: The smallest and the largest value that says something.
    edges: dict[str, tuple[str, str]] = field(default_factory=dict)
    seen: list[tuple[str | None, ...]] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Count a CSV file, whose header has the columns. Raises DataError for one that can't be read so."""
        try:
            with duckdb.connect(config=_SETTINGS) as connection:
                # all as text: what a value means is not asked, and a guessed type would lose some
                page = f"read_csv({_literal(str(path))}, {_AS_TEXT})"
                connection.execute(f"create view page as select * from {page}")  # noqa: S608  the path is quoted
                self._count(connection)
        except duckdb.Error as error:
            raise DataError(f"{path.name} can't be counted: {str(error).splitlines()[0]}", code="bad-page") from error

    def _count(self, connection: Any) -> None:
        asked = ["count(*)"]
        for name in self.names:
            says = f"{_name(name)} is not null and {_name(name)} not in ({', '.join(map(_literal, MISSING))})"
            # a shape is long, and never asked
            edges = ["null", "null"] if name == SHAPE else [f"min({_name(name)}) filter ({says})", f"max({_name(name)}) filter ({says})"]
            asked += [f"count(*) filter (not ({says}))", *edges]
        rows, *found = connection.execute(f"select {', '.join(asked)} from page").fetchone()  # noqa: S608  names are quoted
        self.rows += rows
        for place, name in enumerate(self.names):
            missing, low, high = found[3 * place : 3 * place + 3]
            self.missing[name] = self.missing.get(name, 0) + missing
            if low is not None:
                before = self.edges.get(name, (low, high))
                self.edges[name] = (min(low, before[0]), max(high, before[1]))
        if len(self.seen) < SAMPLE_ROWS and self.names:
            shown = ", ".join(f"left({_name(name)}, {SAMPLE_LENGTH + 1})" for name in self.names)
            self.seen += connection.execute(f"select {shown} from page limit {SAMPLE_ROWS - len(self.seen)}").fetchall()  # noqa: S608
        if self.with_shapes and SHAPE in self.names:
            self.invalid_shapes += sum(invalid(texts) for texts in _shapes(connection))

    def measured(self, kinds: dict[str, str]) -> Measured:
        seen = samples(self.seen, len(self.names))
        columns = [
            ColumnCells(name, kinds.get(name, "text"), self.missing.get(name, 0), name != SHAPE and self._is_constant(name), seen[place])
            for place, name in enumerate(self.names)
        ]
        has_shapes = self.with_shapes and SHAPE in self.names
        return Measured(Cells(self.rows, tuple(columns)), self.invalid_shapes if has_shapes else None)

    def _is_constant(self, name: str) -> bool:
        low, high = self.edges.get(name, ("", ""))
        return low == high


def _shapes(connection: Any) -> Iterator[list[str | None]]:
    cursor = connection.execute(f"select {_name(SHAPE)} from page")  # noqa: S608  a name of ours
    while found := cursor.fetchmany(SHAPES_AT_ONCE):
        yield [text for (text,) in found]


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
