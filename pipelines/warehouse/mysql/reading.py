"""What is read of a city's table: counts, the rows that a portal has not seen, a sample."""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipelines.connectors.base import Column
from pipelines.warehouse.measures import By, Measure, Offsets, Question, Value, Where
from pipelines.warehouse.mysql.ddl import Held, columns_of, key_of
from pipelines.warehouse.mysql.merge import key_text
from pipelines.warehouse.mysql.session import connect, is_there, literal, name, names, one, plain_words, run
from pipelines.warehouse.mysql.values import as_text
from pipelines.warehouse.tables import Scope

#: A page does not wait longer for its chart.
CHART_SECONDS = 20


def where(scope: Scope, *, block: str = "_odo_block", pipeline: str = "_odo_pipeline") -> str:
    """The scope as a condition."""
    whose = "true"
    if scope.block_id is not None:
        whose = f"{block} = {int(scope.block_id)}"
    elif scope.pipeline_id is not None:
        whose = f"{pipeline} = {int(scope.pipeline_id)}"
    if scope.only is None:
        return whose
    listed = ", ".join(literal(value) for value in scope.only.values)
    return f"{whose} and coalesce(cast({name(scope.only.column)} as char), '') {'not ' * scope.only.is_not}in ({listed})"


def count(dsn: str, table: str, scope: Scope, *, after: int = 0) -> int:
    """Rows of the scope that were written after the sequence number `after`."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        return one(cursor, f"select count(*) from {name(table)} where {where(scope)} and _odo_seq > {int(after)}")


def rows_after(
    dsn: str, table: str, columns: Sequence[Column], scope: Scope, *, after: int, chunk: int, run_id: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(last sequence number, rows) in chunks, in the order in which they were written. Values are text, booleans or None, as portals take them.

    Each chunk is a query of its own from the last number on, so that nothing is open while the portal is talked to (law 10). A
    row that is written meanwhile comes again, with its new number.
    """
    shown = ", ".join(as_text(column.type, name(column.name)) for column in columns)
    listed = [column.name for column in columns]
    flags = [place for place, column in enumerate(columns) if column.type == "boolean"]
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection, connection.cursor() as cursor:
        while True:
            cursor.execute(
                f"select _odo_seq, {shown} from {name(table)} where {where(scope)} and _odo_seq > {int(after)} order by _odo_seq limit {int(chunk)}"
            )
            found = cursor.fetchall()
            if found:
                after = found[-1][0]
                yield after, [_portal_row(listed, flags, row[1:]) for row in found]
            if len(found) < chunk:
                return


def _portal_row(listed: Sequence[str], flags: Sequence[int], values: Sequence[Any]) -> dict[str, Any]:
    row = dict(zip(listed, values, strict=True))
    for place in flags:
        row[listed[place]] = None if values[place] is None else bool(values[place])
    return row


def deleted_after(dsn: str, table: str, scope: Scope, *, after: int, chunk: int, run_id: int) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """(last sequence number, keys) in chunks: what was deleted after the sequence number, and has not come back since."""
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection, connection.cursor() as cursor:
        if not (is_there(cursor, table) and is_there(cursor, "_odo_deleted")):
            return
        key, kinds = key_of(cursor, table), columns_of(cursor, table)
        if not key:
            return
        # the keys of a chunk are looked for in the table by their own index
        mine = where(replace(scope, only=None), block="d.block_id", pipeline="d.pipeline_id")
        while True:
            cursor.execute(
                f"select d.seq, d.row_key from _odo_deleted d where d.table_name = {literal(table)} and {mine} and d.seq > {int(after)}"
                f" order by d.seq limit {int(chunk)}"
            )
            found = [(seq, json.loads(row_key)) for seq, row_key in cursor.fetchall()]
            if not found:
                return
            after = found[-1][0]
            back = _held_keys(cursor, table, key, kinds, [row_key for _, row_key in found])
            gone = [row_key for _, row_key in found if tuple(row_key.get(each) for each in key) not in back]
            if gone:
                yield after, gone


def _held_keys(cursor: Any, table: str, key: Sequence[str], kinds: dict[str, Held], wanted: Sequence[dict[str, str]]) -> set[tuple[Any, ...]]:
    """Which of these keys the table has, as text."""
    found = set()
    shown = ", ".join(key_text(kinds[each].type, name(each)) for each in key)
    for start in range(0, len(wanted), 500):
        tuples = ", ".join(f"({', '.join(_stored(kinds[each].type, row_key[each]) for each in key)})" for row_key in wanted[start : start + 500])
        cursor.execute(f"select {shown} from {name(table)} where ({names(key)}) in ({tuples})")
        found |= set(cursor.fetchall())
    return found


def _stored(kind: str, text: str) -> str:
    """A key's text, as a portal knows it, as the value that the table has."""
    if kind == "boolean":
        return "1" if text == "true" else "0"
    if kind in ("local_time", "instant"):
        return f"cast({literal(text.removesuffix('Z'))} as datetime(6))"
    return literal(text) if kind in ("text", "point", "json") else f"cast({literal(text)} as decimal(65,30))"


def highest(dsn: str, table: str, column: str, *, pipeline_id: int) -> str:
    """The greatest value of a column in the pipeline's rows, as portals write it; "" when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        held = columns_of(cursor, table).get(column)
        if held is None:
            return ""
        value = as_text(held.type, f"max({name(column)})")
        found = one(cursor, f"select {value} from {name(table)} where _odo_pipeline = {int(pipeline_id)}")
        return "" if found is None else str(found)


def count_by_two(dsn: str, table: str, rows: str, columns: str, *, limit: int = 10_000) -> list[tuple[str | None, str | None, int]]:
    """(value of `rows`, value of `columns`, how many rows), the most frequent first; a date counts by its year, an empty cell as None."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        kinds = columns_of(cursor, table)
        if rows not in kinds or columns not in kinds:
            return []
        run(cursor, time_limit(cursor, CHART_SECONDS))
        shown = ", ".join(_chart_value(kinds[each].type, name(each)) for each in (rows, columns))
        cursor.execute(f"select {shown}, count(*) from {name(table)} group by 1, 2 order by 3 desc, 1, 2 limit {int(limit)}")
        return list(cursor.fetchall())


def time_limit(cursor: Any, seconds: int) -> str:
    """The statement after which the server breaks off what takes longer."""
    if one(cursor, "select version() like '%mariadb%'"):
        return f"set session max_statement_time = {int(seconds)}"
    return f"set session max_execution_time = {int(seconds) * 1000}"


def _chart_value(kind: str, value: str) -> str:
    if kind in ("local_time", "instant"):
        return f"cast(year({value}) as char)"
    return key_text(kind, value) if kind != "boolean" else f"case {value} when 1 then 'true' when 0 then 'false' end"


def measures(dsn: str, table: str, question: Question) -> list[dict[str, Any]]:
    """A dict for each group, in the order of the groups: what it is grouped by, and its measures. Numbers are int or Decimal.

    A month and a day are a date, an instant is aware. Raises SetupError where the table can't answer, TransientError where it takes too long.
    """
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        kinds = {column: _measured_kind(column, held) for column, held in columns_of(cursor, table).items()}
        question.check(table, kinds)
        run(cursor, time_limit(cursor, question.seconds))
        groups = [_group(by, kinds[by.column], question.offsets) for by in question.by]
        rows = f"{name(table)} where {_all_of(question.where)}"
        if question.told_apart:
            rows, asked = _in_two_steps(question, groups, rows)
        else:
            asked = [*groups, *map(_measure, question.measures)]
        grouped = f" group by {_places(len(groups))}" if groups else ""
        cursor.execute(f"select {', '.join(asked)} from {rows}{grouped} limit {int(question.limit) + 1}")
        found = question.answer(cursor.fetchall())
        instants = {each.name for each in question.measures if each.kind in ("min", "max") and kinds.get(each.column) == "instant"}
        instants |= {by.name for by in question.by if not by.part and kinds[by.column] == "instant"}
        for row in found:
            row |= {label: row[label].replace(tzinfo=UTC) for label in instants if row[label] is not None}
        return found


def _in_two_steps(question: Question, groups: list[str], rows: str) -> tuple[str, list[str]]:
    """(from where, what) to ask, with the groups split by the column whose values are told apart: several times faster than DISTINCT, which sorts."""
    inner = [*(f"{group} as g{place}" for place, group in enumerate(groups)), f"{name(question.told_apart)} as apart"]
    outer = [f"g{place}" for place in range(len(groups))]
    for place, measure in enumerate(question.measures):
        inner.append(f"{_measure(replace(measure, kind='count') if measure.kind == 'distinct' else measure)} as m{place}")
        shapes = {"count": f"cast(coalesce(sum(m{place}), 0) as signed)", "distinct": f"count(case when m{place} > 0 then 1 end)"}
        outer.append(shapes.get(measure.kind, f"{measure.kind}(m{place})"))
    return f"(select {', '.join(inner)} from {rows} group by {_places(len(groups) + 1)}) p", outer


def _places(number: int) -> str:
    return ", ".join(map(str, range(1, number + 1)))


def _measured_kind(column: str, held: Held) -> str:
    # our own columns have no comment that tells what they are
    return "instant" if column == "_odo_loaded_at" else held.type


def _group(by: By, kind: str, offsets: Offsets) -> str:
    value = name(by.column)
    if not by.part:
        return value
    if kind == "instant":
        value = f"date_add({value}, interval ({_ahead(value, offsets)}) second)"
    shapes = {
        "month": f"cast(date_format({value}, '%Y-%m-01') as date)",
        "day": f"date({value})",
        "hour": f"hour({value})",
        "weekday": f"weekday({value})",
    }
    return shapes[by.part]


def _ahead(value: str, offsets: Offsets) -> str:
    """How many seconds the clock is ahead of UTC at a value."""
    [(_, seconds), *changes] = offsets
    found = str(int(seconds))
    for since, seconds in changes:
        found = f"case when {value} >= {_bound(since)} then {int(seconds)} else {found} end"
    return found


def _bound(value: Value) -> str:
    """A number, or an instant as the table keeps it."""
    if isinstance(value, datetime):
        return literal(f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}")
    return f"{value:f}"


def _measure(measure: Measure) -> str:
    value = name(measure.column) if measure.column else "1"
    if measure.where:
        value = f"case when {_all_of(measure.where)} then {value} end"
    return f"count(distinct {value})" if measure.kind == "distinct" else f"{measure.kind}({value})"


def _all_of(conditions: Sequence[Where]) -> str:
    return " and ".join(map(_condition, conditions)) or "true"


def _condition(where: Where) -> str:
    value = name(where.column)
    parts = [f"{value} {sign} {_bound(bound)}" for sign, bound in where.bounds()]
    if where.among:
        parts.append(f"{value} in ({', '.join(map(literal, where.among))})")
    found = " and ".join(parts) or f"{value} is not null"
    return f"({value} is null or {value} = '' or {found})" if where.or_empty else found


def sample(dsn: str, table: str, limit: int = 20) -> tuple[list[str], list[tuple]]:
    """A few rows as text, for a page."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        kinds = {column: held.type for column, held in columns_of(cursor, table).items() if not column.startswith("_odo_")}
        if not kinds:
            return [], []
        shown = ", ".join(_sample_text(kind, name(column)) for column, kind in kinds.items())
        cursor.execute(f"select {shown} from {name(table)} limit {int(limit)}")
        return list(kinds), list(cursor.fetchall())


def _sample_text(kind: str, value: str) -> str:
    if kind == "boolean":
        return f"case {value} when 1 then 'true' when 0 then 'false' end"
    return f"trim(trailing '.000000' from cast({value} as char))" if kind in ("local_time", "instant") else as_text(kind, value)
