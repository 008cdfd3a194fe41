"""A staged block becomes part of its table: by key, as a multiset, or added. Each function works inside the caller's transaction.

All of them find the typed good rows in `_stage`, in the order in which they came, and write only what differs: a whole snapshot
with 5 % edits costs a quarter of a blind upsert (facts/performance.md §3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.warehouse.postgres.ddl import BOOKKEEPING, identifier
from pipelines.warehouse.postgres.session import SCHEMA
from pipelines.warehouse.tables import Merged, Region, Table

SEQ = Literal(f"{SCHEMA}._odo_seq")
TOMBSTONES = Identifier(SCHEMA, "_odo_deleted")
#: Where the table has so many times the staged rows, each is looked up in it by its key.
FEW = 10


@dataclass(frozen=True)
class Writer:
    """Who merges what: a block of a pipeline, into a table, speaking for a region of it."""

    table: Table
    block_id: int
    pipeline_id: int
    fence: int
    region: Region
    deletes_gone: bool

    @property
    def target(self) -> Composable:
        return identifier(self.table.name)

    @property
    def values(self) -> Composable:
        """What the bookkeeping columns get; literals, not parameters: a column's name may hold a percent sign."""
        return SQL("{}, {}, nextval({}), now()").format(Literal(self.pipeline_id), Literal(self.block_id), SEQ)


def names(listed: Sequence[str], alias: str = "") -> Composable:
    dot = f"{alias}." if alias else ""
    return SQL(", ").join(SQL(dot + "{}").format(Identifier(name)) for name in listed)


def same_key(key: Sequence[str], left: str, right: str) -> Composable:
    return SQL(" and ").join(SQL(f"{left}.{{0}} = {right}.{{0}}").format(Identifier(name)) for name in key)


def drop_copies(cursor: Any, relation: Composable, table: Table) -> int:
    """Of rows with one key keep the newest by the version column, else the last that came; returns how many went."""
    key = names(table.key)
    # sources are asked in the order of the key: rows that lie in strictly rising order have no copies, which is seen at a fifth of the cost
    rising = SQL("select not exists (select from (select ({key}) <= lag(({key})) over () as is_back from {relation}) steps where is_back)")
    cursor.execute(rising.format(key=SQL("row({})").format(key), relation=relation))
    if cursor.fetchone()[0]:
        return 0
    cursor.execute(SQL("select count(*) from (select from {} group by {} having count(*) > 1) twice").format(relation, key))
    if not cursor.fetchone()[0]:
        return 0
    newest = SQL("{} desc nulls last, ").format(Identifier(table.version)) if table.version else SQL("")
    cursor.execute(
        SQL(
            "delete from {relation} where ctid in (select id from"
            " (select ctid as id, row_number() over (partition by {key} order by {newest} ctid desc) as place from {relation}"
            " where ({key}) in (select {key} from {relation} group by {key} having count(*) > 1)) ranked where place > 1)"
        ).format(relation=relation, key=key, newest=newest)
    )
    return cursor.rowcount


def upsert(cursor: Any, writer: Writer, kept_keys: Sequence[tuple[str, ...]] | None, has_key_files: bool) -> Merged:
    """Insert and update by key; find, and delete if asked, what the source no longer has.

    `kept_keys` are the keys of rejected rows, as text: the source has them, so their old copies stay; None = too many to know.
    """
    table = writer.table
    stage = SQL("pg_temp._stage")
    # a hash of wide rows that spills to disk takes half as long again
    cursor.execute("set local work_mem = '128MB'")
    duplicates = drop_copies(cursor, stage, table)
    words = {
        "t": writer.target,
        "first_key": SQL("o.{}").format(Identifier(table.key[0])),
        "same_key": same_key(table.key, "o", "n"),
        "mine": names(table.names, "n"),
        "theirs": names(table.names, "o"),
        "older": SQL("coalesce(n.{0} < o.{0}, false)").format(Identifier(table.version)) if table.version else SQL("false"),
        "columns": names(table.names),
        "key": names(table.key),
        "set": SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in (*table.names, *BOOKKEEPING)),
        "book": names(tuple(BOOKKEEPING)),
        "writer": writer.values,
    }
    cursor.execute("select count(*) from _stage")
    staged = cursor.fetchone()[0]
    with _row_by_row(cursor, is_wanted=staged * FEW <= _rows_about(cursor, writer)):
        cursor.execute(
            SQL(
                "create temp table _delta on commit drop as select n.ctid as id, {first_key} is null as is_new, {older} as is_older"
                " from _stage n left join {t} o on {same_key} where {first_key} is null or ({mine}) is distinct from ({theirs})"
            ).format(**words)
        )
    cursor.execute(
        "select count(*) filter (where is_new), count(*) filter (where not is_new and not is_older), count(*) filter (where is_older) from _delta"
    )
    inserted, updated, older = cursor.fetchone()
    if inserted + updated:
        # by their places in the stage: a hash of all of it, wide as the rows are, would cost more than the writing of a few
        with _row_by_row(cursor):
            cursor.execute(
                SQL(
                    "insert into {t} ({columns}, {book}) select {mine}, {writer} from _stage n join _delta d on d.id = n.ctid where not d.is_older"
                    " on conflict ({key}) do update set {set}"
                ).format(**words)
            )
    gone, deleted = _gone(cursor, writer, kept_keys, has_key_files, staged)
    return Merged(inserted, updated, staged - inserted - updated - older, deleted, duplicates + older, gone)


@contextlib.contextmanager
def _row_by_row(cursor: Any, *, is_wanted: bool = True) -> Iterator[None]:
    """Joins meanwhile look up row after row: the planner knows nothing of a table that was filled just now, and would read all of the other."""
    for name in ("enable_hashjoin", "enable_mergejoin") if is_wanted else ():
        cursor.execute(SQL("set local {} = off").format(Identifier(name)))
    yield
    for name in ("enable_hashjoin", "enable_mergejoin") if is_wanted else ():
        cursor.execute(SQL("set local {} = on").format(Identifier(name)))


def _rows_about(cursor: Any, writer: Writer) -> int:
    """How many rows the table has, as it was when it was last looked at; 0 when it never was."""
    cursor.execute(
        SQL("select greatest(reltuples, 0)::bigint from pg_class where oid = {}::regclass").format(Literal(writer.target.as_string(cursor)))
    )
    return cursor.fetchone()[0]


def _gone(cursor: Any, writer: Writer, kept_keys: Sequence[tuple[str, ...]] | None, has_key_files: bool, staged: int) -> tuple[int, int]:
    """How many rows of the region the source no longer has, and how many of them were deleted."""
    region, key = writer.region, writer.table.key
    if kept_keys is None or (region.kind not in ("block", "pipeline") and not has_key_files):
        return 0, 0
    cursor.execute(SQL("select count(*) from {}").format(writer.target))
    if not has_key_files and cursor.fetchone()[0] == staged:
        # each staged key is in the table now: as many rows as keys, and there is nothing else to look for
        return 0, 0
    known = SQL("select {} from _stage").format(names(key))
    if has_key_files:
        known += SQL(" union all select {} from _keys").format(names(key))
    as_text = SQL(", ").join(SQL("o.{}::text").format(Identifier(name)) for name in key)
    rejected = SQL("")
    if kept_keys:
        rejected = SQL(" and ({}) not in (values {})").format(
            as_text, SQL(", ").join(SQL("({})").format(SQL(", ").join(map(Literal, found))) for found in kept_keys)
        )
    whose, value = ("_odo_block", writer.block_id) if region.kind == "block" else ("_odo_pipeline", writer.pipeline_id)
    gone = SQL("from {t} o where o.{whose} = {value} and not exists (select from ({known}) k where {same}){rejected}").format(
        t=writer.target, whose=Identifier(whose), value=Literal(value), known=known, same=same_key(key, "k", "o"), rejected=rejected
    )
    if not writer.deletes_gone:
        cursor.execute(SQL("select count(*) {}").format(gone))
        return cursor.fetchone()[0], 0
    deleted = delete_with_tombstones(cursor, writer, gone)
    return deleted, deleted


def delete_with_tombstones(cursor: Any, writer: Writer, gone: Composable) -> int:
    """Delete the rows of `from {table} o where …` and leave for each its key, for the portals to follow."""
    cursor.execute(
        SQL(
            "with victims as (select o.ctid as id {gone}), dead as (delete from {t} o using victims v where o.ctid = v.id returning {key})"
            " insert into {tombstones} (table_name, row_key, seq, pipeline_id, block_id, at)"
            " select {name}, to_jsonb(dead), nextval({seq}), {pipeline}, {block}, now() from dead"
        ).format(
            gone=gone,
            t=writer.target,
            key=SQL(", ").join(SQL("o.{0}::text as {0}").format(Identifier(name)) for name in writer.table.key),
            tombstones=TOMBSTONES,
            name=Literal(writer.table.name),
            seq=SEQ,
            pipeline=Literal(writer.pipeline_id),
            block=Literal(writer.block_id),
        )
    )
    return cursor.rowcount


def compare(cursor: Any, writer: Writer) -> Merged:
    """Without a key: the region's rows become those staged, as a multiset; equal rows stay untouched, as many as there are."""
    region = writer.region
    if region.kind == "block":
        mine = SQL("_odo_block = {}").format(Literal(writer.block_id))
    else:
        mine = SQL("_odo_pipeline = {}").format(Literal(writer.pipeline_id))
    if region.kind == "since":
        mine += SQL(" and ({0} >= {1} or {0} is null)").format(Identifier(region.column), Literal(region.since))
    columns = names(writer.table.names)
    numbered = "select ctid as id, md5(row({columns})::text) as print, row_number() over (partition by md5(row({columns})::text)) as copy"
    staged = SQL(numbered + " from _stage").format(columns=columns)
    held = SQL(numbered + " from {t} where {mine}").format(columns=columns, t=writer.target, mine=mine)
    cursor.execute(
        SQL(
            "create temp table _pairs on commit drop as select s.id as staged, o.id as held from ({}) s full join ({}) o"
            " on s.print = o.print and s.copy = o.copy where s.id is null or o.id is null"
        ).format(staged, held)
    )
    cursor.execute(SQL("delete from {t} o using _pairs p where o.ctid = p.held").format(t=writer.target))
    deleted = cursor.rowcount
    cursor.execute(
        SQL("insert into {t} ({columns}, {book}) select {columns}, {writer} from _stage s where ctid in (select staged from _pairs)").format(
            t=writer.target, columns=columns, book=names(tuple(BOOKKEEPING)), writer=writer.values
        )
    )
    inserted = cursor.rowcount
    cursor.execute("select count(*) from _stage")
    return Merged(inserted, 0, cursor.fetchone()[0] - inserted, deleted, 0)


def append(cursor: Any, writer: Writer) -> Merged:
    """Add the rows; what an earlier run of the same block had added makes room for them."""
    cursor.execute(SQL("delete from {} where _odo_block = {}").format(writer.target, Literal(writer.block_id)))
    deleted = cursor.rowcount
    columns = names(writer.table.names)
    cursor.execute(
        SQL("insert into {} ({}, {}) select {}, {} from _stage").format(writer.target, columns, names(tuple(BOOKKEEPING)), columns, writer.values)
    )
    return Merged(cursor.rowcount, 0, 0, deleted, 0)
