"""A load into PostgreSQL: stage every file, judge every value, merge in one transaction that only the newest attempt may commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier

from pipelines.errors import LeaseLost
from pipelines.faults import faultpoint
from pipelines.warehouse.postgres import fresh, merge
from pipelines.warehouse.postgres.ddl import identifier, portal_text, prepare
from pipelines.warehouse.postgres.merge import Writer
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.postgres.staging import COPY_BYTES, Odd, TextStage, TypedStage, check_header, copy_command
from pipelines.warehouse.tables import Merged, Region, Rejected, Table

#: The keys of so many rejected rows are remembered, so that their old copies are not taken for gone.
MOST_REJECTED_KEYS = 20_000


class Load:
    """One load of one block: `stage` each file, `judge`, read `rejected`, `merge`. Leaving it closes the session and drops the stage.

    `mode` is "upsert" (by key), "replace" (without a key: the region becomes what was staged) or "append". `vouched`: the
    source itself says that its values are of these types, so they may be copied as such; what COPY leaves out is rejected, and
    what looks odd sends the load the careful way. `rebuild` puts a new table in the place of the old one. `widens`: a column
    whose type changed becomes text instead of stopping the load; `widened` says which. `connections` sessions copy at once.
    """

    def __init__(
        self,
        dsn: str,
        table: Table,
        *,
        run_id: int,
        block_id: int,
        pipeline_id: int,
        fence: int,
        region: Region | None = None,
        deletes_gone: bool = False,
        mode: str = "",
        rebuild: bool = False,
        widens: bool = False,
        vouched: bool = False,
        connections: int = 1,
    ):
        self.dsn, self.run_id, self.table = dsn, run_id, table
        self.block_id, self.pipeline_id, self.fence = block_id, pipeline_id, fence
        # without a key the rows of the block are replaced, unless it is said that the files speak for more
        self.region = region or Region("none" if table.key else "block")
        self.deletes_gone, self.mode = deletes_gone, mode or ("upsert" if table.key else "replace")
        self.rebuild, self.widens, self.vouched, self.connections = rebuild, widens, vouched, connections
        self.connection = connect(dsn, run_id=run_id)
        self.staged = 0
        self.widened: tuple[str, ...] = ()
        self._files: list[tuple[int, Path]] = []
        self._told = -1  # the last file whose rows the caller heard of
        self._beside: Composable | None = None  # the table that is built beside, while it may become the served one
        self._rejected_keys: list[tuple[str, ...]] | None = []
        self._has_key_files = False
        self._left_out = 0  # rows that were rejected
        self._was_swapped = False

    def __enter__(self) -> Load:
        with plain_words():
            self.table, self.widened = prepare(self.connection, self.table, widens=self.widens, replaces=self.rebuild)
            self._claim_ledger()
            self._stage = self._typed_stage() if self.vouched else self._text_stage()
        return self

    def __exit__(self, *problem) -> None:
        try:
            if self._beside is not None and not self.connection.closed:
                self.connection.rollback()
                with plain_words(), self.connection, self.connection.cursor() as cursor:
                    cursor.execute(SQL("drop table if exists {}").format(self._beside))
        finally:
            self.connection.close()

    @property
    def writer(self) -> Writer:
        return Writer(self.table, self.block_id, self.pipeline_id, self.fence, self.region, self.deletes_gone)

    # 1 stage

    def _typed_stage(self) -> TypedStage | TextStage:
        with self.connection, self.connection.cursor() as cursor:
            if self.rebuild or fresh.is_empty(cursor, self.table.name):
                target = self._beside = fresh.make(cursor, self.writer)
            else:
                target = SQL("pg_temp._stage")
                cursor.execute(SQL("create temp table _stage as select {} from {} limit 0").format(merge.names(self.table.names), self.writer.target))
        try:
            return TypedStage(lambda: connect(self.dsn, run_id=self.run_id), self.connection, self.table, target)
        except Odd:
            return self._text_stage()

    def _text_stage(self) -> TextStage:
        with self.connection, self.connection.cursor() as cursor:
            if self._beside is not None:
                cursor.execute(SQL("drop table if exists {}").format(self._beside))
            cursor.execute("drop table if exists pg_temp._stage")
            self._beside = fresh.make(cursor, self.writer) if self.rebuild else None
        return TextStage(self.connection, self.table)

    def stage(self, number: int, path: Path) -> int:
        """Copy one CSV file with a header; returns how many rows it had, rejected ones included. Raises DataError for a wrong header."""
        [(_, rows)] = self.stage_many([(number, path)])
        return rows

    def stage_many(self, files: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, int]]:
        """Copy numbered files in turn, or several at once; yields (number, rows) in their order."""
        for number, rows in self._copied(files):
            self.staged += rows
            faultpoint("load.staged")
            yield number, rows

    def _copied(self, files: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, int]]:
        files = iter(files)
        if isinstance(self._stage, TypedStage):
            try:
                # into a private stage only one session can copy
                if self._beside is not None:
                    for number, rows in self._stage.copy_many(self._remembered(files), self.connections):
                        self._told = number
                        yield number, rows
                else:
                    for number, path in self._remembered(files):
                        with plain_words():
                            rows = self._stage.copy(number, path)
                        self._told = number
                        yield number, rows
                return
            except Odd:
                yield from self._again()
        for number, path in self._remembered(files):
            with plain_words():
                rows = self._stage.copy(number, path)
            yield number, rows

    def _remembered(self, files: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, Path]]:
        for number, path in files:
            self._files.append((number, path))
            yield number, path

    def _again(self) -> Iterator[tuple[int, int]]:
        """Stage what was staged the careful way; tells of the files that the caller has not heard of yet."""
        with plain_words():
            self._stage = self._text_stage()
            for number, path in list(self._files):
                rows = self._stage.copy(number, path)
                if number > self._told:
                    yield number, rows

    def stage_keys(self, path: Path) -> int:
        """Copy a CSV file that has the key columns only: all keys that the source has now. Returns its rows."""
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            if not self._has_key_files:
                cursor.execute(SQL("create temp table _keys as select {} from {} limit 0").format(merge.names(self.table.key), self.writer.target))
                self._has_key_files = True
            with path.open("rb") as stream:
                try:
                    cursor.copy_expert(copy_command(SQL("pg_temp._keys"), self.table.key, self.table.key), stream, size=COPY_BYTES)
                except psycopg2.errors.BadCopyFileFormat as error:
                    check_header(path, self.table.key, error)
                    raise
            return cursor.rowcount

    # 2 judge

    def judge(self) -> int:
        """Find the rows that can't be loaded, in the server. Returns how many."""
        with plain_words():
            self._left_out = self._stage.judge()
        return self._left_out

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        with plain_words():
            for row in self._stage.rejected():
                self._remember_key(row)
                yield row

    def _remember_key(self, row: Rejected) -> None:
        if self._rejected_keys is not None and self.table.key:
            if len(self._rejected_keys) >= MOST_REJECTED_KEYS:
                self._rejected_keys = None
            else:
                self._rejected_keys.append(tuple(row.raw.get(name, "") for name in self.table.key))

    # 3 merge

    def _claim_ledger(self) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                SQL(
                    "insert into {ledger} (block_id, table_name, fence) values (%s, %s, %s)"
                    " on conflict (block_id, table_name) do update set fence = excluded.fence, merged_at = null"
                    " where _odo_ledger.fence <= excluded.fence"
                ).format(ledger=Identifier(SCHEMA, "_odo_ledger")),
                [self.block_id, self.table.name, self.fence],
            )
            if not cursor.rowcount:
                raise LeaseLost("A later attempt has begun to load this block.")

    def merge(self) -> Merged:
        """Make the staged rows part of the table, in one transaction that a later attempt's claim makes void. Raises LeaseLost."""
        with plain_words():
            if isinstance(self._stage, TextStage):
                self._stage.settle()
            with self.connection, self.connection.cursor() as cursor:
                # one merge into a table at a time, so that two blocks with one key can't both insert it
                cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"odo {SCHEMA}.{self.table.name}"])
                merged = self._merged(cursor)
                faultpoint("load.merged")
                mine = SQL("update {} set merged_at = now() where block_id = %s and table_name = %s and fence = %s")
                cursor.execute(mine.format(Identifier(SCHEMA, "_odo_ledger")), [self.block_id, self.table.name, self.fence])
                if not cursor.rowcount:
                    raise LeaseLost("A later attempt has begun to load this block.")
            self._beside = None
            # the next merge joins by the key; all other columns, and what the making of the key has counted just now, are left to
            # autovacuum, which looks within a minute
            if merged.inserted > 10_000 and self.table.key and not self._was_swapped:
                with self.connection, self.connection.cursor() as cursor:
                    cursor.execute(SQL("analyze {} ({})").format(identifier(self.table.name), merge.names(self.table.key)))
        faultpoint("load.committed")
        return merged

    def newest(self, column: str) -> str | None:
        """After the merge: the greatest time that was staged in that column, as portals write it, "" for none; None = ask the table."""
        kind = next((one.type for one in self.table.columns if one.name == column), "")
        if self._was_swapped or kind not in ("local_time", "instant"):
            return None
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            cursor.execute(SQL("select {} from pg_temp._stage").format(portal_text(SQL("max({})").format(Identifier(column)), kind)))
            return cursor.fetchone()[0] or ""

    def _merged(self, cursor: Any) -> Merged:
        writer = self.writer
        if self._beside is not None and (self.rebuild or fresh.is_empty(cursor, self.table.name)):
            self._was_swapped = True
            return self._swapped(cursor, writer, self._beside)
        if self._beside is not None:
            # somebody else filled the table meanwhile: what was built beside is a stage like any other
            cursor.execute(SQL("create temp table _stage as select {} from {}").format(merge.names(self.table.names), self._beside))
            cursor.execute(SQL("drop table {}").format(self._beside))
        if self.table.key:
            return merge.upsert(cursor, writer, self._rejected_keys, self._has_key_files)
        return merge.append(cursor, writer) if self.mode == "append" else merge.compare(cursor, writer)

    def _swapped(self, cursor: Any, writer: Writer, beside: Composable) -> Merged:
        if isinstance(self._stage, TextStage):
            fresh.fill(cursor, writer, beside)
        fresh.book(cursor, writer, beside)
        came = self.staged - self._left_out
        cursor.execute(SQL("select count(*) from {} where _odo_pipeline = %s").format(writer.target), [self.pipeline_id])
        had = cursor.fetchone()[0]
        if had or self.rebuild:
            if writer.table.key:
                duplicates = merge.drop_copies(cursor, beside, writer.table)
            else:
                duplicates = 0
            fresh.keep_others(cursor, writer, beside)
            gone = fresh.bury(cursor, writer, beside)
            fresh.finish(cursor, writer, beside)
        else:
            duplicates, gone = fresh.finish(cursor, writer, beside), 0
        fresh.swap(cursor, writer, beside)
        return Merged(came - duplicates, 0, 0, gone if self.table.key else had, duplicates, gone)
