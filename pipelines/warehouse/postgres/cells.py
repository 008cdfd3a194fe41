"""What the cells of a city's table say: one pass over it, whatever its size, and nothing of it gathered here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.errors import SetupError
from pipelines.warehouse.cells import MISSING, SAMPLE_LENGTH, SAMPLE_ROWS, SAY_NOTHING, SHAPE, Cells, ColumnCells, samples
from pipelines.warehouse.postgres.ddl import columns_of, our_type, portal_text
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words


def cells(dsn: str, table: str, names: Sequence[str], *, seconds: int = 600) -> Cells:
    """Count the rows, and of these columns the missing cells; the engine breaks off after `seconds`.

    Raises SetupError where the table or a column is not there, TransientError where it takes too long.
    """
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kinds = {name: our_type(kind) for name, kind in columns_of(cursor, table).items()}
        _check(table, names, kinds)
        cursor.execute("select set_config('statement_timeout', %s, true)", [f"{seconds}s"])
        asked: list[Composable] = [SQL("count(*)")]
        for name in names:
            asked += [SQL("count(*) filter (where {})").format(_missing(name, kinds[name])), *_edges(name, kinds[name])]
        where = Identifier(SCHEMA, table)
        cursor.execute(SQL("select {} from {}").format(SQL(", ").join(asked), where))
        rows, *found = cursor.fetchone()
        told = {name: found[3 * place : 3 * place + 3] for place, name in enumerate(names)}
        # "NA" beside one value: the smallest and the largest differ, and one of them is the "NA"
        doubted = [name for name, (_, low, high) in told.items() if low != high and {low, high} & SAY_NOTHING]
        same = _only_one(cursor, where, doubted, kinds)
        shown = SQL(", ").join(_sample(name, kinds[name]) for name in names) if names else SQL("1")
        cursor.execute(SQL("select {} from {} limit {}").format(shown, where, Literal(SAMPLE_ROWS)))
        seen = samples(cursor.fetchall(), len(names))
    columns = [
        ColumnCells(name, kinds[name], told[name][0], name != SHAPE and (name in same or told[name][1] == told[name][2]), seen[place])
        for place, name in enumerate(names)
    ]
    return Cells(rows, tuple(columns))


def _check(table: str, names: Sequence[str], kinds: dict[str, str]) -> None:
    if not kinds:
        raise SetupError(
            f"The warehouse has no table {table}.", code="no-table", next_step="The first load makes it: run a block of a pipeline that loads it."
        )
    if strangers := [name for name in names if name not in kinds]:
        raise SetupError(
            f"The table {table} has no column {strangers[0]!r}.", code="no-column", next_step="Run a block of its pipeline, which brings its columns."
        )


def _missing(name: str, kind: str) -> Composable:
    value = Identifier(name)
    if kind in ("text", "point"):
        return SQL("{0} is null or {0} in ({1})").format(value, SQL(", ").join(map(Literal, MISSING)))
    if kind == "json":
        # a JSON null, or a text that says nothing
        return SQL("{0} is null or {0} in ('null', '\"\"')").format(value)
    if kind == "number":
        return SQL("{0} is null or {0} = 'NaN'").format(value)
    return SQL("{} is null").format(value)


def _comparable(name: str, kind: str) -> Composable:
    """The value as it is compared quickly: texts by their bytes."""
    value = Identifier(name)
    if kind in ("text", "point"):
        return SQL('{} collate "C"').format(value)
    if kind == "json":
        return SQL('{}::text collate "C"').format(value)
    return SQL("{}::int").format(value) if kind == "boolean" else value


def _edges(name: str, kind: str) -> list[Composable]:
    if name == SHAPE:
        return [SQL("1"), SQL("2")]
    value = _comparable(name, kind)
    return [SQL("min({})").format(value), SQL("max({})").format(value)]


def _only_one(cursor: Any, where: Composable, names: Sequence[str], kinds: dict[str, str]) -> set[str]:
    """Which of these columns say one thing at most, without their missing cells."""
    if not names:
        return set()
    asked = []
    for name in names:
        present = SQL("filter (where not ({}))").format(_missing(name, kinds[name]))
        value = _comparable(name, kinds[name])
        asked.append(SQL("min({0}) {1} is not distinct from max({0}) {1}").format(value, present))
    cursor.execute(SQL("select {} from {}").format(SQL(", ").join(asked), where))
    return {name for name, is_one in zip(names, cursor.fetchone(), strict=True) if is_one}


def _sample(name: str, kind: str) -> Composable:
    text = SQL("{}::text").format(Identifier(name)) if kind == "boolean" else portal_text(Identifier(name), kind)
    return SQL("left({}, {})").format(text, Literal(SAMPLE_LENGTH + 1))
