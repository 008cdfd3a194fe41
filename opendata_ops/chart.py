"""Count by two columns: how many rows of a dataset's table have which pair of values, both axes from the data, empty pairs as 0."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django.core.cache import cache

from catalog.models import Dataset, DatasetColumn
from pipelines import warehouse
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, Run, RunState, Stage
from pipelines.stages.load import warehouse_of
from pipelines.warehouse.tables import Scope

#: More rows or columns than these are no picture any more: the most frequent ones are shown, and the others together.
MOST = 40
#: So many pairs are asked of the warehouse; what is rarer is counted and not named.
PAIRS = 10_000
#: The shades of a cell, from one row to the most of all.
SHADES = 5
DATES = ("local_time", "instant")
EMPTY, OTHERS = "(empty)", "others"
KEPT_SECONDS = 3600

Pair = tuple[str | None, str | None, int]


@dataclass(frozen=True)
class Cell:
    rows: int
    #: 0 for no rows, else 1 to SHADES, darker by powers: one cell of many thousands must not make all others white
    shade: int


@dataclass(frozen=True)
class Line:
    label: str
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class Matrix:
    """Zero-filled: each line has a cell for each head. `unnamed` rows are in pairs too rare to be listed; they are in no cell."""

    heads: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    total: int = 0
    unnamed: int = 0
    all_rows: int = 0
    all_columns: int = 0

    def pairs(self) -> Iterator[tuple[str, str, int]]:
        """(row, column, count), a line after the other; the pairs without a row of data among them."""
        for line in self.lines:
            for head, cell in zip(self.heads, line.cells, strict=True):
                yield line.label, head, cell.rows


def matrix(pairs: Iterable[Pair], *, table_rows: int | None = None, most: int = MOST) -> Matrix:
    """The pairs as a matrix. `table_rows` is how many rows there are where `pairs` are only the most frequent of them. Pure."""
    counts: Counter[tuple[str, str]] = Counter()
    by_row: Counter[str] = Counter()
    by_column: Counter[str] = Counter()
    for row, column, number in pairs:
        row, column = row or EMPTY, column or EMPTY
        counts[row, column] += number
        by_row[row] += number
        by_column[column] += number
    rows, columns = _axis(by_row, most), _axis(by_column, most)
    shown_rows, shown_columns = set(rows), set(columns)
    drawn: Counter[tuple[str, str]] = Counter()
    for (row, column), number in counts.items():
        drawn[row if row in shown_rows else OTHERS, column if column in shown_columns else OTHERS] += number
    top = max(drawn.values(), default=0)
    lines = []
    for row in rows:
        cells = [Cell(drawn[row, column], _shade(drawn[row, column], top)) for column in columns]
        lines.append(Line(row, cells, sum(cell.rows for cell in cells)))
    total = sum(counts.values())
    return Matrix(
        heads=columns,
        lines=lines,
        totals=[sum(line.cells[place].rows for line in lines) for place in range(len(columns))],
        total=total,
        unnamed=max(0, table_rows - total) if table_rows is not None else 0,
        all_rows=len(by_row),
        all_columns=len(by_column),
    )


def _axis(found: Counter[str], most: int) -> list[str]:
    """The values of an axis in their order: numbers by size, words by the alphabet, what is empty and the others at the end."""
    frequent = sorted(found, key=lambda value: (-found[value], value))
    shown = frequent if len(frequent) <= most else frequent[:most]
    return sorted(shown, key=_order) + [OTHERS] * (len(shown) < len(frequent))


def _order(value: str) -> tuple:
    if value == EMPTY:
        return (2, 0.0, value)
    try:
        number = float(value)
    except ValueError:
        return (1, 0.0, value.casefold(), value)
    return (0, number, value) if math.isfinite(number) else (1, 0.0, value.casefold(), value)


def _shade(rows: int, top: int) -> int:
    return math.ceil(SHADES * math.log1p(rows) / math.log1p(top)) if rows else 0


# the dataset's own


@dataclass(frozen=True)
class Chart:
    """The chart as the page shows it. Without `matrix` nothing was chosen or there is nothing to show, and `words` says which."""

    tables: list[str]
    table: str
    columns: list[DatasetColumn]
    row_name: str
    column_name: str
    matrix: Matrix | None
    words: str
    is_broken: bool = False
    is_default: bool = False

    @property
    def notes(self) -> str:
        """What is left out of the picture, and how to read it."""
        parts = ["The darker a cell, the more rows it has, by powers."]
        both = ((self.row_head, self.matrix.all_rows), (self.column_head, self.matrix.all_columns)) if self.matrix else ()
        parts += [f"{head}: the {MOST} most frequent of {found:,} values; the others are counted together." for head, found in both if found > MOST]
        if self.matrix and self.matrix.unnamed:
            parts.append(f"{self.matrix.unnamed:,} more rows are in pairs rarer than the first {PAIRS:,} and are not shown.")
        return " ".join(parts)

    @property
    def row_head(self) -> str:
        return self._head(self.row_name)

    @property
    def column_head(self) -> str:
        return self._head(self.column_name)

    def _head(self, name: str) -> str:
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            return name
        return f"{found.label or found.name}, year" if found.type in DATES else found.label or found.name


def chart_of(dataset: Dataset, pipelines: list[Pipeline], columns: list[DatasetColumn], asked: dict[str, str]) -> Chart:
    """What `asked` ("rows", "columns", "table") wants, or what the steward saved; one query, and one look into the warehouse."""
    loading = {pipeline.table: pipeline for pipeline in pipelines if Stage.LOAD in pipeline.stages}
    row_name, column_name = asked.get("rows", ""), asked.get("columns", "")
    if not row_name and not column_name:
        row_name, column_name = dataset.chart_rows, dataset.chart_columns
    table = asked.get("table", "")
    table = table if table in loading else next(iter(loading), "")
    known = {column.name for column in columns}
    unknown = [name for name in (row_name, column_name) if name and name not in known]
    found, words, is_broken = None, "", False
    if not loading:
        words = "No pipeline loads this dataset into the warehouse, so there is nothing to count."
    elif not columns:
        words = "No columns are known yet: the first extract brings them."
    elif unknown:
        words = f"There is no column {' and no '.join(unknown)} in the dictionary. Choose another."
    elif not row_name or not column_name:
        words = "Choose a column for the rows and one for the columns. A date counts by its year."
    elif row_name == column_name:
        words = "Choose two different columns."
    else:
        try:
            found = counted(loading[table], row_name, column_name)
            words = "" if found.total else "The table has no rows with these columns yet."
        except PipelineError as error:
            words, is_broken = f"The warehouse could not count it: {error.message} {error.next_step}".strip(), True
    return Chart(
        tables=list(loading),
        table=table,
        columns=columns,
        row_name=row_name,
        column_name=column_name,
        matrix=found if found and found.total else None,
        words=words,
        is_broken=is_broken,
        is_default=bool(row_name) and (row_name, column_name) == (dataset.chart_rows, dataset.chart_columns),
    )


def counted(pipeline: Pipeline, rows: str, columns: str) -> Matrix:
    """The matrix of a pipeline's table. The same question before the next load is answered from memory. Raises PipelineError."""
    loads = Run.objects.filter(block__pipeline__table=pipeline.table, stage=Stage.LOAD, state=RunState.DONE)
    last = loads.order_by("-pk").values_list("pk", flat=True).first()
    key = f"chart/{pipeline.warehouse}/{pipeline.table}/{rows}/{columns}/{last}"
    pairs, table_rows = cache.get(key, (None, None))
    if pairs is None:
        dsn = warehouse_of(pipeline)
        engine = warehouse.engine(dsn)
        pairs = engine.count_by_two(dsn, pipeline.table, rows, columns, limit=PAIRS)
        table_rows = engine.count(dsn, pipeline.table, Scope()) if len(pairs) >= PAIRS else None
        cache.set(key, (pairs, table_rows), KEPT_SECONDS)
    return matrix(pairs, table_rows=table_rows)
