"""A staged block becomes part of its table: by key, as a multiset, or added. Each function works inside the caller's transaction.

All of them find the good rows in `_stage`, as text that `typed` reads, and write only what differs.
"""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import ER

from pipelines.connectors.base import Column
from pipelines.warehouse.mysql.ddl import SQL_TYPES, key_length
from pipelines.warehouse.mysql.session import literal, name, names, one, run
from pipelines.warehouse.mysql.staging import TextStage
from pipelines.warehouse.mysql.values import as_text, meant, typed
from pipelines.warehouse.tables import BOOKKEEPING, Merged, Region, Table

#: A cell longer than this goes into the print of its row as a print of its own: no text may outgrow the server's largest packet.
_LONG_CELL = 4_000


@dataclass(frozen=True)
class Writer:
    """Who merges what: a block of a pipeline, into a table, speaking for a region of it. `base` is the number before the first
    of those reserved for its rows, and `dead` that before the first for what it deletes."""

    table: Table
    block_id: int
    pipeline_id: int
    fence: int
    region: Region
    deletes_gone: bool
    base: int
    dead: int
    engine: str

    @property
    def target(self) -> str:
        return name(self.table.name)

    def values(self, row_id: str) -> str:
        """What the bookkeeping columns get."""
        return f"{int(self.pipeline_id)}, {int(self.block_id)}, {int(self.base)} + {row_id}, now(6)"

    def kind(self, column: str) -> str:
        return next(each.type for each in self.table.columns if each.name == column)

    def typed(self, column: str, alias: str) -> str:
        """The value of a staged cell."""
        return typed(self.kind(column), f"{alias}.{name(column)}", nullable=column not in self.table.key)

    def typed_row(self, alias: str) -> str:
        return ", ".join(self.typed(column, alias) for column in self.table.names)

    def same_key(self, left: str, staged: str) -> str:
        """A condition: the row of the table and the row of the stage have one key."""
        return " and ".join(f"{left}.{name(each)} = {self.typed(each, staged)}" for each in self.table.key)

    def mine(self, alias: str) -> str:
        """The rows for which the files speak."""
        if self.region.kind == "block":
            return f"{alias}._odo_block = {int(self.block_id)}"
        mine = f"{alias}._odo_pipeline = {int(self.pipeline_id)}"
        if self.region.kind == "since":
            column = f"{alias}.{name(self.region.column)}"
            kind = self.kind(self.region.column)
            since = typed(kind, literal(meant(kind, self.region.since)))
            mine += f" and ({column} >= {since} or {column} is null)"
        return mine

    def insert(self, target: str) -> str:
        return f"insert into {target} ({names((*self.table.names, *BOOKKEEPING))})"


def is_empty(cursor: Any, table: str) -> bool:
    return one(cursor, f"select not exists (select 1 from {name(table)})") == 1


def fill(cursor: Any, writer: Writer, target: str) -> int:
    """Put all staged rows into an empty table with a key; returns how many copies of a key were left out."""
    statement = f"{writer.insert(target)} select {writer.typed_row('s')}, {writer.values('s._odo_id')} from _stage s"
    try:
        run(cursor, statement)
        return 0
    except pymysql.IntegrityError as error:
        if error.args[0] != ER.DUP_ENTRY:
            raise
    # looking for copies first would cost every load what only few have
    copies = drop_copies(cursor, writer)
    run(cursor, statement)
    return copies


def drop_copies(cursor: Any, writer: Writer) -> int:
    """Of staged rows with one key keep the newest by the version column, else the last that came; returns how many went."""
    printed = f"unhex(md5({_key_print(writer)}))"
    staged, distinct = _pair(cursor, f"select count(*), count(distinct {printed}) from _stage")
    if staged == distinct:
        return 0
    version = writer.table.version
    newest = f"{typed(writer.kind(version), name(version))} desc, " if version else ""
    run(
        cursor,
        f"create temporary table _copies (_odo_id bigint not null primary key) {writer.engine} select _odo_id from"
        f" (select _odo_id, row_number() over (partition by {printed} order by {newest}_odo_id desc) as place from _stage) ranked where place > 1",
    )
    run(cursor, "delete s from _stage s join _copies c on c._odo_id = s._odo_id")
    run(cursor, "drop temporary table _copies")
    return staged - distinct


def _key_print(writer: Writer) -> str:
    """A staged row's key as one text; equal values have one text, however they were written."""
    parts = []
    for column in writer.table.key:
        value = typed(writer.kind(column), name(column), nullable=False)
        parts.append(value if SQL_TYPES[writer.kind(column)] == "longtext" else f"cast({value} as char)")
    if len(parts) == 1:
        return parts[0]
    return f"concat_ws(':', {', '.join(f'char_length({part}), {part}' for part in parts)})"


def _pair(cursor: Any, statement: str) -> tuple[int, int]:
    cursor.execute(statement)
    return cursor.fetchone()


def upsert(cursor: Any, writer: Writer, stage: TextStage, keys: TextStage | None) -> Merged:
    """Insert and update by key; find, and delete if asked, what the source no longer has. `keys` are all keys that it has."""
    table = writer.table
    if is_empty(cursor, table.name):
        copies = fill(cursor, writer, writer.target)
        return Merged(one(cursor, "select count(*) from _stage"), 0, 0, 0, copies)
    copies = drop_copies(cursor, writer)
    first = f"o.{name(table.key[0])}"
    older = f"coalesce({writer.typed(table.version, 'n')} < o.{name(table.version)}, 0)" if table.version else "0"
    others = [column for column in table.names if column not in table.key]
    differs = " or ".join(f"not (o.{name(column)} <=> {writer.typed(column, 'n')})" for column in others)
    run(
        cursor,
        f"create temporary table _delta (_odo_id bigint not null primary key, is_new tinyint not null, is_older tinyint not null) {writer.engine}",
    )
    run(
        cursor,
        f"insert into _delta select n._odo_id, {first} is null, {older} from _stage n left join {writer.target} o on {writer.same_key('o', 'n')}"
        f" where {first} is null{f' or {differs}' if differs else ''}",
    )
    cursor.execute("select coalesce(sum(is_new), 0), coalesce(sum(not is_new and not is_older), 0), coalesce(sum(is_older), 0) from _delta")
    inserted, updated, late = map(int, cursor.fetchone())
    if updated:
        sets = ", ".join(f"o.{name(column)} = {writer.typed(column, 'n')}" for column in others)
        book = zip(BOOKKEEPING, writer.values("n._odo_id").split(", "), strict=True)
        run(
            cursor,
            f"update _delta d straight_join _stage n on n._odo_id = d._odo_id straight_join {writer.target} o on {writer.same_key('o', 'n')}"
            f" set {sets}, {', '.join(f'o.{column} = {value}' for column, value in book)} where d.is_new = 0 and d.is_older = 0",
        )
    if inserted:
        run(
            cursor,
            f"{writer.insert(writer.target)} select {writer.typed_row('n')}, {writer.values('n._odo_id')}"
            " from _delta d straight_join _stage n on n._odo_id = d._odo_id where d.is_new = 1",
        )
    staged = one(cursor, "select count(*) from _stage")
    gone = _find_gone(cursor, writer, stage, keys)
    deleted = delete_gone(cursor, writer) if gone and writer.deletes_gone else 0
    return Merged(inserted, updated, staged - inserted - updated - late, deleted, copies + late, gone)


def _find_gone(cursor: Any, writer: Writer, stage: TextStage, keys: TextStage | None) -> int:
    """Put the keys of the region's rows that the source no longer has into `_gone`; returns how many."""
    unreadable = stage.torn_keys is None or (keys is not None and keys.torn_keys is None)
    if unreadable or (writer.region.kind not in ("block", "pipeline") and keys is None):
        return 0
    # every staged row is in the table by now; where the table has no others, none can be gone
    if one(cursor, f"select count(*) from {writer.target}") == one(cursor, "select count(*) from _stage"):
        return 0
    region = "block" if writer.region.kind == "block" else "pipeline"
    mine = f"o._odo_{region} = {int(writer.block_id if region == 'block' else writer.pipeline_id)}"
    key = writer.table.key
    fields = ", ".join(f"{name(each)} {_key_type(cursor, writer, each)} not null" for each in key)
    # in InnoDB: the others' indexes are too short for a long key
    run(cursor, f"create temporary table _known ({fields}, primary key ({names(key)})) engine = innodb")
    for held in (stage, *([keys] if keys else [])):
        cursor.execute(f"insert ignore into _known select {held.typed_key('s')} from {held.name} s")
        # a rejected row's key may be longer than any that the table can have
        fits = " and ".join(f"char_length({name(each)}) <= {key_length(writer.table)}" for each in key)
        cursor.execute(f"insert ignore into _known select {names(key)} from {held.kept} where {fits}")
    same = " and ".join(f"k.{name(each)} = o.{name(each)}" for each in key)
    run(
        cursor,
        f"create temporary table _gone (_odo_n bigint not null auto_increment primary key) {writer.engine}"
        f" select {names(key, 'o')} from {writer.target} o left join _known k on {same} where {mine} and k.{name(key[0])} is null",
    )
    return one(cursor, "select count(*) from _gone")


def _key_type(cursor: Any, writer: Writer, column: str) -> str:
    """A key column's type with its collation, as the table has it."""
    cursor.execute(
        "select column_type, collation_name from information_schema.columns where table_schema = database() and table_name = %s and column_name = %s",
        [writer.table.name, column],
    )
    kind, collate = cursor.fetchone()
    return f"{kind} character set utf8mb4 collate {collate}" if collate else kind


def delete_gone(cursor: Any, writer: Writer) -> int:
    """Delete the rows whose keys `_gone` has, and leave the keys for the portals to follow."""
    bury(cursor, writer)
    same = " and ".join(f"o.{name(each)} = g.{name(each)}" for each in writer.table.key)
    return run(cursor, f"delete o from {writer.target} o join _gone g on {same}")


def bury(cursor: Any, writer: Writer) -> None:
    """Leave the keys that `_gone` has."""
    pairs = ", ".join(f"{literal(each)}, {key_text(writer.kind(each), f'g.{name(each)}')}" for each in writer.table.key)
    run(
        cursor,
        "insert into _odo_deleted (table_name, row_key, seq, pipeline_id, block_id, at)"
        f" select {literal(writer.table.name)}, json_object({pairs}), {int(writer.dead)} + g._odo_n, {int(writer.pipeline_id)},"
        f" {int(writer.block_id)}, now(6) from _gone g",
    )


def key_text(kind: str, value: str) -> str:
    """A key's value as a portal knows it."""
    return f"case {value} when 1 then 'true' else 'false' end" if kind == "boolean" else as_text(kind, value)


def compare(cursor: Any, writer: Writer) -> Merged:
    """Without a key: the region's rows become those staged, as a multiset; equal rows stay untouched, as many as there are."""
    staged = one(cursor, "select count(*) from _stage")
    held = one(cursor, f"select count(*) from {writer.target} o where {writer.mine('o')}")
    insert = f"{writer.insert(writer.target)} select {writer.typed_row('s')}, {writer.values('s._odo_id')} from _stage s"
    if not held:
        run(cursor, insert)
        return Merged(staged, 0, 0, 0, 0)
    # a print alone is no print of a row with a NULL: what is not there is told apart from what is empty
    ours = _print(writer.table.columns, lambda column: writer.typed(column.name, "s"))
    theirs = _print(writer.table.columns, lambda column: f"o.{name(column.name)}")
    for called, row_id, print_, source in (
        ("_staged_prints", "s._odo_id", ours, "_stage s"),
        ("_held_prints", "o._odo_seq", theirs, f"{writer.target} o where {writer.mine('o')}"),
    ):
        run(
            cursor,
            f"create temporary table {called} (id bigint not null, print binary(16) not null, copy bigint not null, primary key (print, copy))"
            f" {writer.engine} select id, print, row_number() over (partition by print order by id) as copy"
            f" from (select {row_id} as id, {print_} as print from {source}) printed",
        )
    deleted = run(
        cursor,
        f"delete o from {writer.target} o join _held_prints h on h.id = o._odo_seq left join _staged_prints p on p.print = h.print"
        " and p.copy = h.copy where p.id is null",
    )
    inserted = run(
        cursor,
        f"{insert} join _staged_prints p on p.id = s._odo_id left join _held_prints h on h.print = p.print and h.copy = p.copy where h.id is null",
    )
    return Merged(inserted, 0, staged - inserted, deleted, 0)


def _print(columns: Sequence[Column], value: Any) -> str:
    """16 bytes that tell a row from any other."""
    parts = []
    for column in columns:
        found = value(column)
        text = f"cast({found} as char)" if SQL_TYPES[column.type] != "longtext" else found
        short = f"if(length({text}) > {_LONG_CELL}, md5({text}), {text})"
        parts.append(f"coalesce(concat(length({text}), ':', {short}), '-')")
    return f"unhex(md5(concat({', '.join(parts)})))"


def append(cursor: Any, writer: Writer) -> Merged:
    """Add the rows; what an earlier run of the same block had added makes room for them."""
    deleted = run(cursor, f"delete from {writer.target} where _odo_block = {int(writer.block_id)}")
    inserted = run(cursor, f"{writer.insert(writer.target)} select {writer.typed_row('s')}, {writer.values('s._odo_id')} from _stage s")
    return Merged(inserted, 0, 0, deleted, 0)
