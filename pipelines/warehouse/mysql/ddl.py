"""The city's tables in MariaDB: made, widened, and known by their columns and keys.

A change of a table can't be undone here, so each is one statement that either happened or not, and is asked for again by the
next load when this one dies before it. A column's comment is its type in our words: the server's own has one name for several.
"""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import contextlib
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from pipelines.connectors.base import COLUMN_TYPES, Column
from pipelines.errors import SetupError
from pipelines.warehouse.mysql.session import Session, collation, connect, literal, locked, name, names, one, plain_words, run
from pipelines.warehouse.mysql.values import FRACTION, WHOLE, as_text
from pipelines.warehouse.tables import BOOKKEEPING, LONGEST_KEY, Table

SQL_TYPES = {
    "text": "longtext",
    "number": f"decimal({WHOLE + FRACTION},{FRACTION})",
    "local_time": "datetime(6)",
    "instant": "datetime(6)",
    "boolean": "tinyint(1)",
    "point": "longtext",
    "json": "longtext",
}
_BOOK_TYPES = dict(zip(BOOKKEEPING, ("bigint", "bigint", "bigint", "datetime(6)"), strict=True))
_TEXTS = ("text", "point", "json")
#: What one index may hold, in bytes, and what the columns of a key that are not text take of it.
_INDEX_BYTES = 3072
_KEY_BYTES = {"number": 30, "local_time": 8, "instant": 8, "boolean": 1}
_LONGEST_NAME = 64
#: A column that is being made from another one of another type.
_WIDER = "_odo_wider"


@dataclass(frozen=True)
class Held:
    """A column as the table has it: its type in our words, whether that is certain, and the server's own word."""

    type: str
    is_told: bool
    sql_type: str

    @property
    def is_text(self) -> bool:
        return self.type in _TEXTS


def full_name(name: str) -> str:
    """A city table as people name it."""
    return name


def key_length(table: Table) -> int:
    """How many characters a text in the table's key may have."""
    kinds = [column.type for column in table.columns if column.name in table.key]
    texts = sum(kind in _TEXTS for kind in kinds)
    room = _INDEX_BYTES - sum(_KEY_BYTES.get(kind, 0) for kind in kinds)
    return min(768, room // (4 * texts)) if texts else LONGEST_KEY


def definition(column: Column, *, is_key: bool, length: int, collate: str) -> str:
    """A column as CREATE TABLE writes it."""
    kind = SQL_TYPES[column.type]
    if is_key and column.type in _TEXTS:
        kind = f"varchar({length})"
    if column.type in _TEXTS:
        kind += f" character set utf8mb4 collate {collate}"
    comment = f"{column.type}, UTC" if column.type == "instant" else column.type
    return f"{name(column.name)} {kind}{' not null' if is_key else ''} comment {literal(comment)}"


def prepare(connection: Session, table: Table, *, widens: bool = False, replaces: bool = False) -> tuple[Table, tuple[str, ...]]:
    """Make our own tables and the city table, or widen it; returns the table as it is now, and what was widened, in words.

    New columns are always added. One whose type changed stops the load, or, with `widens`, becomes text. `replaces`: the
    table will be built anew, so what it is now does not matter. Raises SetupError.
    """
    _check_names(table)
    with locked(connection, "prepare"), connection.cursor() as cursor:
        _prepare_our_own(cursor)
        have = columns_of(cursor, table.name)
        if not have:
            create(cursor, table.name, table, collation(connection))
            return table, ()
        if "_odo_seq" not in have:
            raise SetupError(
                f"The table {table.name} was not made by Open Data Ops.",
                code="foreign-table",
                next_step="Name another table in the pipeline, or rename that one.",
            )
        if replaces:
            return table, ()
        _check_key(cursor, table)
        return _widen(cursor, table, have, collate=collation(connection), widens=widens)


def _check_names(table: Table) -> None:
    for column in table.columns:
        if column.name.startswith("_odo_"):
            raise SetupError(f"The source has a column {column.name!r}; names with _odo_ are ours.", code="column-name")
        if len(column.name) > _LONGEST_NAME:
            raise SetupError(f"The column {column.name!r} has a longer name than MariaDB keeps ({_LONGEST_NAME} characters).", code="column-name")
        if column.name != column.name.rstrip() or any(ord(char) > 0xFFFF for char in column.name):
            raise SetupError(f"MariaDB has no column {column.name!r}: a name has no blank at its end, and no emoji.", code="column-name")
    if len({_alike(each) for each in table.names}) != len(table.names):
        raise SetupError(f"Two columns of {table.name} have the same name.", code="column-name")


def _alike(text: str) -> str:
    """A name as MariaDB compares it: without case and accents."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).casefold()


def _prepare_our_own(cursor: Any) -> None:
    run(
        cursor,
        "create table if not exists _odo_ledger (block_id bigint not null, table_name varchar(64) character set utf8mb4 not null,"
        " fence bigint not null, merged_at datetime(6), primary key (block_id, table_name)) engine = innodb",
    )
    run(cursor, "create table if not exists _odo_counter (id tinyint not null primary key, seq bigint not null) engine = innodb")
    run(cursor, "insert into _odo_counter select 1, 0 from dual where not exists (select 1 from _odo_counter)")
    # the keys of rows that were deleted, until every portal has followed
    run(
        cursor,
        "create table if not exists _odo_deleted (table_name varchar(64) character set utf8mb4 not null, row_key longtext character set utf8mb4"
        " not null, seq bigint not null, pipeline_id bigint not null, block_id bigint not null, at datetime(6) not null,"
        " primary key (table_name, seq)) engine = innodb",
    )


def create(cursor: Any, called: str, table: Table, collate: str) -> None:
    """Make an empty city table of that name."""
    length = key_length(table)
    fields = [definition(column, is_key=column.name in table.key, length=length, collate=collate) for column in table.columns]
    fields += [f"{each} {kind} not null" for each, kind in _BOOK_TYPES.items()]
    if table.key:
        fields += [f"primary key ({names(table.key)})", "key _odo_by_seq (_odo_seq)"]
    else:
        fields += ["primary key (_odo_seq)", "key _odo_by_block (_odo_block)"]
    run(cursor, f"create table {name(called)} ({', '.join(fields)}) engine = innodb row_format = dynamic character set utf8mb4 collate {collate}")


def columns_of(cursor: Any, table: str) -> dict[str, Held]:
    """The columns of a city table, ours among them, in its order; empty when there is none."""
    cursor.execute(
        "select column_name, data_type, column_type, column_comment from information_schema.columns"
        " where table_schema = database() and table_name = %s order by ordinal_position",
        [table],
    )
    found = {}
    for column, data_type, column_type, comment in cursor.fetchall():
        told = comment.partition(",")[0].strip()
        guess = {"decimal": "number", "datetime": "local_time", "tinyint": "boolean"}.get(data_type, "text")
        found[column] = Held(told if told in COLUMN_TYPES else guess, told in COLUMN_TYPES, column_type)
    return found


def table_columns(dsn: str, name: str) -> list[str]:
    """The city's own columns of a table, in its order; empty when there is none."""
    return list(column_types(dsn, name))


def column_types(dsn: str, name: str) -> dict[str, str]:
    """The city's own columns of a table with their types in our words; empty when there is none."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        return {column: held.type for column, held in columns_of(cursor, name).items() if not column.startswith("_odo_")}


def key_of(cursor: Any, table: str) -> tuple[str, ...]:
    """The columns of a city table's key, in their order; () when it has none."""
    cursor.execute(
        "select column_name from information_schema.statistics where table_schema = database() and table_name = %s"
        " and index_name = 'PRIMARY' order by seq_in_index",
        [table],
    )
    return tuple(column for (column,) in cursor.fetchall() if column not in BOOKKEEPING)


def _check_key(cursor: Any, table: Table) -> None:
    found = key_of(cursor, table.name)
    if found != table.key:
        raise SetupError(
            f"The table {table.name} has the key ({', '.join(found) or 'none'}), the pipeline wants ({', '.join(table.key) or 'none'}).",
            code="other-key",
            next_step="Name another table, or give the pipeline the key that the table has.",
        )


def _same(held: Held, wanted: str) -> bool:
    return held.type == wanted or {held.type, wanted} <= {"text", "point"} or (not held.is_told and held.sql_type == SQL_TYPES[wanted])


def _widen(cursor: Any, table: Table, have: dict[str, Held], *, collate: str, widens: bool) -> tuple[Table, tuple[str, ...]]:
    is_empty = one(cursor, f"select not exists (select 1 from {name(table.name)})") == 1
    length = key_length(table)
    columns, changes, widened, to_text = [], [], [], []
    for column in table.columns:
        held = have.get(column.name)
        written = definition(column, is_key=column.name in table.key, length=length, collate=collate)
        if held is None:
            changes.append(f"add column {written}")
            widened.append(f"{column.name} is new")
        elif _same(held, column.type):
            pass
        elif is_empty:
            # nothing was loaded yet: a first load that was refused for its types must not bind the second
            changes.append(f"modify column {written}")
        elif widens and column.name not in table.key:
            if held.type != "text":
                to_text.append((column.name, held))
                widened.append(f"{column.name} was {held.type} and is text now, for the source says {column.type}")
            column = replace(column, type="text")
        else:
            raise SetupError(
                f"{table.name}.{column.name} is {held.type}, the source says {column.type}.",
                code="other-type",
                next_step=f"Set the type of {column.name} in the pipeline to the table's own, or load into another table.",
            )
        columns.append(column)
    if changes:
        run(cursor, f"alter table {name(table.name)} {', '.join(changes)}")
    for column, held in to_text:
        _become_text(cursor, table.name, column, held, collate, is_left=_WIDER in have)
    return replace(table, columns=tuple(columns)), tuple(widened)


def _become_text(cursor: Any, table: str, column: str, held: Held, collate: str, *, is_left: bool) -> None:
    """Give a column the type text, its values as portals write them: a second column takes them and then its place.

    The place is taken in one statement; of a run that died before it, only the second column is left, and made anew here.
    """
    if is_left or _WIDER in columns_of(cursor, table):
        run(cursor, f"alter table {name(table)} drop column {_WIDER}")
    written = definition(Column(name=column, type="text"), is_key=False, length=0, collate=collate)
    _, _, as_written = written.partition(name(column))
    run(cursor, f"alter table {name(table)} add column {_WIDER}{as_written} after {name(column)}")
    value = as_text(held.type, name(column))
    if held.type == "boolean":
        value = f"case {name(column)} when 1 then 'true' when 0 then 'false' end"
    run(cursor, f"update {name(table)} set {_WIDER} = {value}")
    run(cursor, f"alter table {name(table)} drop column {name(column)}, change column {_WIDER} {written}")


def tables(dsn: str) -> list[str]:
    """The city's tables, by name."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select distinct table_name from information_schema.columns where table_schema = database() and column_name = '_odo_seq'"
            " and table_name not like '|_odo|_%' escape '|' order by 1"
        )
        return [found for (found,) in cursor.fetchall()]
