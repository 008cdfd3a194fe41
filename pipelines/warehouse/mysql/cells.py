"""What the cells of a city's table say: one pass over it, whatever its size, and nothing of it gathered here."""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from pipelines.errors import SetupError
from pipelines.warehouse.cells import MISSING, MISSING_JSON, SAMPLE_LENGTH, SAMPLE_ROWS, SAY_NOTHING, SHAPE, Cells, ColumnCells, samples
from pipelines.warehouse.mysql.ddl import columns_of
from pipelines.warehouse.mysql.reading import time_limit
from pipelines.warehouse.mysql.session import connect, literal, name, plain_words, run
from pipelines.warehouse.mysql.values import as_text

_TEXTS = ("text", "point", "json")


def cells(dsn: str, table: str, names: Sequence[str], *, seconds: int = 600) -> Cells:
    """Count the rows, and of these columns the missing cells; the engine breaks off after `seconds`.

    Raises SetupError where the table or a column is not there, TransientError where it takes too long.
    """
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        kinds = {column: held.type for column, held in columns_of(cursor, table).items()}
        _check(table, names, kinds)
        run(cursor, time_limit(cursor, seconds))
        asked = ["count(*)"]
        for each in names:
            edges = ["1", "2"] if each == SHAPE else [f"min({name(each)})", f"max({name(each)})"]
            asked += [f"count(case when {_missing(each, kinds[each])} then 1 end)", *edges]
        cursor.execute(f"select {', '.join(asked)} from {name(table)}")
        rows, *found = cursor.fetchone()
        told = {each: found[3 * place : 3 * place + 3] for place, each in enumerate(names)}
        # "NA" beside one value: the smallest and the largest differ, and one of them is the "NA"
        doubted = [each for each, (_, low, high) in told.items() if low != high and {low, high} & SAY_NOTHING]
        same = _only_one(cursor, table, doubted, kinds)
        shown = ", ".join(_sample(each, kinds[each]) for each in names) or "1"
        cursor.execute(f"select {shown} from {name(table)} limit {int(SAMPLE_ROWS)}")
        seen = samples(list(cursor.fetchall()), len(names))
    columns = [
        ColumnCells(each, kinds[each], int(told[each][0]), each != SHAPE and (each in same or told[each][1] == told[each][2]), seen[place])
        for place, each in enumerate(names)
    ]
    return Cells(rows, tuple(columns))


def _check(table: str, names: Sequence[str], kinds: dict[str, str]) -> None:
    if not kinds:
        raise SetupError(
            f"The warehouse has no table {table}.", code="no-table", next_step="The first load makes it: run a block of a pipeline that loads it."
        )
    if strangers := [each for each in names if each not in kinds]:
        raise SetupError(
            f"The table {table} has no column {strangers[0]!r}.", code="no-column", next_step="Run a block of its pipeline, which brings its columns."
        )


def _missing(each: str, kind: str) -> str:
    value = name(each)
    if kind not in _TEXTS:
        return f"{value} is null"
    words = MISSING_JSON if kind == "json" else MISSING
    return f"{value} is null or {value} in ({', '.join(map(literal, words))})"


def _only_one(cursor: Any, table: str, names: Sequence[str], kinds: dict[str, str]) -> set[str]:
    """Which of these columns say one thing at most, without their missing cells."""
    if not names:
        return set()
    values = [f"case when {_missing(each, kinds[each])} then null else {name(each)} end" for each in names]
    cursor.execute(f"select {', '.join(f'min({value}) <=> max({value})' for value in values)} from {name(table)}")
    return {each for each, is_one in zip(names, cursor.fetchone(), strict=True) if is_one}


def _sample(each: str, kind: str) -> str:
    value = name(each)
    text = f"case {value} when 1 then 'true' when 0 then 'false' end" if kind == "boolean" else as_text(kind, value)
    return f"left({text}, {int(SAMPLE_LENGTH) + 1})"
