"""What is read of a city's table: counts, the rows that a portal has not seen, a sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.warehouse.measures import By, Measure, Offsets, Question, Where
from pipelines.warehouse.postgres.ddl import BOOKKEEPING, columns_of, key_of, our_type, portal_text
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.tables import Scope


def where(scope: Scope) -> Composable:
    """The scope as a condition."""
    whose = SQL("true")
    if scope.block_id is not None:
        whose = SQL("_odo_block = {}").format(Literal(scope.block_id))
    elif scope.pipeline_id is not None:
        whose = SQL("_odo_pipeline = {}").format(Literal(scope.pipeline_id))
    if scope.only is None:
        return whose
    sign = SQL("<> all" if scope.only.is_not else "= any")
    return SQL("{} and coalesce({}::text, '') {} ({})").format(whose, Identifier(scope.only.column), sign, Literal(list(scope.only.values)))


def count(dsn: str, table: str, scope: Scope, *, after: int = 0) -> int:
    """Rows of the scope that were written after the sequence number `after`."""
    query = SQL("select count(*) from {} where {} and _odo_seq > %s").format(Identifier(SCHEMA, table), where(scope))
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, [after])
        return cursor.fetchone()[0]


def rows_after(
    dsn: str, table: str, columns: Sequence[Column], scope: Scope, *, after: int, chunk: int, run_id: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(last sequence number, rows) in chunks, in the order in which they were written. Values are text, booleans or None, as portals take them."""
    shown = SQL(", ").join(_portal_text(column) for column in columns)
    query = SQL("select _odo_seq, {} from {} where {} and _odo_seq > {} order by _odo_seq").format(
        shown, Identifier(SCHEMA, table), where(scope), Literal(after)
    )
    names = [column.name for column in columns]
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection:
        # held in the server after its transaction ended: one sort for all chunks, nothing gathered here, and no transaction
        # open while the portal is being talked to (law 10)
        cursor = connection.cursor("odo_publish", withhold=True)
        cursor.itersize = chunk
        cursor.execute(query)
        connection.commit()
        while found := cursor.fetchmany(chunk):
            yield found[-1][0], [dict(zip(names, row[1:], strict=True)) for row in found]


def _portal_text(column: Column) -> Composable:
    name = Identifier(column.name)
    return name if column.type == "boolean" else portal_text(name, column.type)


def tables(dsn: str) -> list[str]:
    """The city's tables, by name."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = %s and tablename not like '\\_odo\\_%%' order by 1", [SCHEMA])
        return [name for (name,) in cursor.fetchall()]


def deleted_after(dsn: str, table: str, scope: Scope, *, after: int, chunk: int, run_id: int) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """(last sequence number, keys) in chunks: what was deleted after the sequence number, and has not come back since."""
    whose = SQL("true")
    if scope.block_id is not None:
        whose = SQL("d.block_id = {}").format(Literal(scope.block_id))
    elif scope.pipeline_id is not None:
        whose = SQL("d.pipeline_id = {}").format(Literal(scope.pipeline_id))
    with plain_words(), contextlib.closing(connect(dsn, run_id=run_id)) as connection:
        with connection, connection.cursor() as cursor:
            key = _key_of(cursor, table)
        if not key:
            return
        same = SQL(" and ").join(SQL("t.{0}::text = d.row_key ->> {1}").format(Identifier(name), Literal(name)) for name in key)
        query = SQL(
            "select d.seq, d.row_key from {d} d where d.table_name = {name} and {whose} and d.seq > {after}"
            " and not exists (select from {t} t where {same}) order by d.seq"
        ).format(d=Identifier(SCHEMA, "_odo_deleted"), name=Literal(table), whose=whose, after=Literal(after), t=Identifier(SCHEMA, table), same=same)
        cursor = connection.cursor("odo_deleted", withhold=True)
        cursor.itersize = chunk
        cursor.execute(query)
        connection.commit()
        while found := cursor.fetchmany(chunk):
            yield found[-1][0], [key for _, key in found]


def _key_of(cursor: Any, table: str) -> tuple[str, ...]:
    cursor.execute("select to_regclass(%s) is not null and to_regclass(%s) is not null", [f'{SCHEMA}."{table}"', f"{SCHEMA}._odo_deleted"])
    return key_of(cursor, table) if cursor.fetchone()[0] else ()


def highest(dsn: str, table: str, column: str, *, pipeline_id: int) -> str:
    """The greatest value of a column in the pipeline's rows, as portals write it; "" when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kind = columns_of(cursor, table).get(column)
        if kind is None:
            return ""
        value = portal_text(SQL("max({})").format(Identifier(column)), our_type(kind))
        cursor.execute(SQL("select {} from {} where _odo_pipeline = %s").format(value, Identifier(SCHEMA, table)), [pipeline_id])
        return cursor.fetchone()[0] or ""


def count_by_two(dsn: str, table: str, rows: str, columns: str, *, limit: int = 10_000) -> list[tuple[str | None, str | None, int]]:
    """(value of `rows`, value of `columns`, how many rows), the most frequent first; a date counts by its year, an empty cell as None."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kinds = columns_of(cursor, table)
        if rows not in kinds or columns not in kinds:
            return []
        shown = [
            SQL("extract(year from {})::int::text").format(Identifier(name))
            if kinds[name].startswith("timestamp")
            else SQL("{}::text").format(Identifier(name))
            for name in (rows, columns)
        ]
        cursor.execute("set local statement_timeout = '20s'")
        cursor.execute(
            SQL("select {}, {}, count(*) from {} group by 1, 2 order by 3 desc, 1, 2 limit {}").format(
                *shown, Identifier(SCHEMA, table), Literal(limit)
            )
        )
        return cursor.fetchall()


def measures(dsn: str, table: str, question: Question) -> list[dict[str, Any]]:
    """A dict for each group, in the order of the groups: what it is grouped by, and its measures. Numbers are int or Decimal.

    A month and a day are a date, an instant is aware. Raises SetupError where the table can't answer, TransientError where it takes too long.
    """
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        kinds = columns_of(cursor, table)
        question.check(table, {column: our_type(kind) for column, kind in kinds.items()})
        groups = [_group(by, kinds[by.column], question.offsets) for by in question.by]
        rows = SQL("{} where {}").format(Identifier(SCHEMA, table), _all_of(question.where))
        if question.told_apart:
            rows, asked = _in_two_steps(question, groups, rows)
        else:
            asked = [*groups, *map(_measure, question.measures)]
        places = _places(len(groups))
        query = SQL("select {} from {}{} limit {}").format(
            SQL(", ").join(asked),
            rows,
            SQL(" group by {}").format(places) if groups else SQL(""),
            Literal(question.limit + 1),
        )
        cursor.execute("select set_config('statement_timeout', %s, true)", [f"{question.seconds}s"])
        # it takes every group for a new one, and would sort the whole table by them; hashed, a year takes seconds
        cursor.execute("set local enable_sort = off; set local work_mem = '64MB'")
        cursor.execute(query)
        return question.answer(cursor.fetchall())


def _in_two_steps(question: Question, groups: list[Composable], rows: Composable) -> tuple[Composable, list[Composable]]:
    """(from where, what) to ask, with the groups split by the column whose values are told apart: several times faster than DISTINCT, which sorts."""
    inner = [SQL("{} as {}").format(group, Identifier(f"g{place}")) for place, group in enumerate(groups)]
    inner.append(SQL("{} as apart").format(Identifier(question.told_apart)))
    outer: list[Composable] = [Identifier(f"g{place}") for place in range(len(groups))]
    for place, measure in enumerate(question.measures):
        part = Identifier(f"m{place}")
        is_distinct = measure.kind == "distinct"
        inner.append(SQL("{} as {}").format(_measure(replace(measure, kind="count") if is_distinct else measure), part))
        shape = {"count": "coalesce(sum({}), 0)::bigint", "distinct": "count(*) filter (where {} > 0)"}.get(measure.kind, f"{measure.kind}({{}})")
        outer.append(SQL(shape).format(part))
    parts = SQL("(select {} from {} group by {}) p").format(SQL(", ").join(inner), rows, _places(len(groups) + 1))
    return parts, outer


def _places(number: int) -> Composable:
    return SQL(", ").join(SQL(str(place)) for place in range(1, number + 1))


def _group(by: By, kind: str, offsets: Offsets) -> Composable:
    value = Identifier(by.column)
    if not by.part:
        return value
    if our_type(kind) == "instant":
        value = SQL("(({} at time zone 'UTC') + {})").format(value, _ahead(value, offsets))
    shapes = {
        "month": "date_trunc('month', {})::date",
        "day": "{}::date",
        "hour": "extract(hour from {})::int",
        "weekday": "extract(isodow from {})::int - 1",
    }
    return SQL(shapes[by.part]).format(value)


def _ahead(value: Identifier, offsets: Offsets) -> Composable:
    """How far the clock is ahead of UTC at a value."""
    [(_, seconds), *changes] = offsets
    found: Composable = SQL("interval {}").format(Literal(f"{seconds} seconds"))
    for since, seconds in changes:
        found = SQL("case when {} >= {} then interval {} else {} end").format(value, Literal(since), Literal(f"{seconds} seconds"), found)
    return found


def _measure(measure: Measure) -> Composable:
    value = Identifier(measure.column) if measure.column else SQL("*")
    shape = "count(distinct {})" if measure.kind == "distinct" else f"{measure.kind}({{}})"
    found = SQL(shape).format(value)
    return SQL("{} filter (where {})").format(found, _all_of(measure.where)) if measure.where else found


def _all_of(conditions: Sequence[Where]) -> Composable:
    return SQL(" and ").join(map(_condition, conditions)) if conditions else SQL("true")


def _condition(where: Where) -> Composable:
    value = Identifier(where.column)
    parts = [SQL("{} {} {}").format(value, SQL(sign), Literal(bound)) for sign, bound in where.bounds()]
    if where.among:
        parts.append(SQL("{} in ({})").format(value, SQL(", ").join(map(Literal, where.among))))
    found = SQL(" and ").join(parts) if parts else SQL("{} is not null").format(value)
    if not where.or_empty:
        return found
    empty = SQL("({0} is null or {0}::text = '')").format(value)
    return SQL("({} or {})").format(empty, found)


def sample(dsn: str, table: str, limit: int = 20) -> tuple[list[str], list[tuple]]:
    """A few rows as text, for a page."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection, connection.cursor() as cursor:
        names = [name for name in columns_of(cursor, table) if name not in BOOKKEEPING]
        if not names:
            return [], []
        listed = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in names)
        cursor.execute(SQL("select {} from {} limit {}").format(listed, Identifier(SCHEMA, table), Literal(limit)))
        return names, cursor.fetchall()
