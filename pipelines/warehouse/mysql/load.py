"""A load into MariaDB: stage every file, judge every value, merge in one transaction that only the newest attempt may commit."""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql

from pipelines.errors import LeaseLost, TransientError
from pipelines.faults import faultpoint
from pipelines.warehouse.mysql import fresh, merge
from pipelines.warehouse.mysql.ddl import prepare
from pipelines.warehouse.mysql.merge import Writer
from pipelines.warehouse.mysql.session import connect, locked, name, one, plain_words, run, stage_engine
from pipelines.warehouse.mysql.staging import TextStage
from pipelines.warehouse.tables import Merged, Region, Rejected, Table


class Load:
    """One load of one block: `stage` each file, `judge`, read `rejected`, `merge`. Leaving it closes the session and drops the stage.

    `mode` is "upsert" (by key), "replace" (without a key: the region becomes what was staged) or "append". `rebuild` puts a
    new table in the place of the old one. `widens`: a column whose type changed becomes text instead of stopping the load;
    `widened` says which. `vouched` and `connections` change nothing here: every value is judged, and one session stages.
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
        self.dsn, self.table = dsn, table
        self.block_id, self.pipeline_id, self.fence = block_id, pipeline_id, fence
        # without a key the rows of the block are replaced, unless it is said that the files speak for more
        self.region = region or Region("none" if table.key else "block")
        self.deletes_gone, self.mode = deletes_gone, mode or ("upsert" if table.key else "replace")
        self.rebuild, self.widens = rebuild, widens
        self.connection = connect(dsn, run_id=run_id)
        self.staged = 0
        self.widened: tuple[str, ...] = ()
        self._keys: TextStage | None = None
        self._is_beside = False  # whether a table of this attempt stands beside the served one

    def __enter__(self) -> Load:
        with contextlib.ExitStack() as trouble:
            trouble.callback(self.connection.close)
            with plain_words():
                self.table, self.widened = prepare(self.connection, self.table, widens=self.widens, replaces=self.rebuild)
                self._claim_ledger()
                self._stage = TextStage(self.connection, self.table)
            trouble.pop_all()  # none: the session stays open for the load
        return self

    def __exit__(self, *problem) -> None:
        try:
            if self._is_beside and self.connection.open:
                with plain_words(), self.connection.cursor() as cursor:
                    run(cursor, f"drop table if exists {name(fresh.build_name(self._writer(0, 0)))}")
        finally:
            if self.connection.open:
                self.connection.close()

    def _writer(self, base: int, dead: int) -> Writer:
        return Writer(
            self.table, self.block_id, self.pipeline_id, self.fence, self.region, self.deletes_gone, base, dead, stage_engine(self.connection)
        )

    # 1 stage

    def stage(self, number: int, path: Path) -> int:
        """Copy one CSV file with a header; returns how many rows it had, rejected ones included. Raises DataError for a wrong header."""
        with plain_words():
            rows = self._stage.copy(number, path)
        self.staged += rows
        faultpoint("load.staged")
        return rows

    def stage_many(self, files: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, int]]:
        """Copy numbered files one after the other; yields (number, rows) in their order."""
        for number, path in files:
            yield number, self.stage(number, path)

    def stage_keys(self, path: Path) -> int:
        """Copy a CSV file that has the key columns only: all keys that the source has now. Returns its rows."""
        with plain_words():
            if self._keys is None:
                kinds = {column.name: column for column in self.table.columns}
                columns = tuple(kinds[each] for each in self.table.key)
                self._keys = TextStage(self.connection, replace(self.table, columns=columns, version=""), "_keys")
            return self._keys.copy(len(self._keys.files), path)

    # 2 judge

    def judge(self) -> int:
        """Find the rows that can't be loaded. Returns how many, unreadable ones included."""
        with plain_words():
            return self._stage.judge()

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        with plain_words():
            yield from self._stage.rejected()

    # 3 merge

    def _claim_ledger(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("start transaction")
            cursor.execute(
                "insert into _odo_ledger (block_id, table_name, fence) values (%s, %s, %s) on duplicate key update"
                " merged_at = if(fence <= values(fence), null, merged_at), fence = greatest(fence, values(fence))",
                [self.block_id, self.table.name, self.fence],
            )
            held = one(cursor, "select fence from _odo_ledger where block_id = %s and table_name = %s", [self.block_id, self.table.name])
            cursor.execute("commit")
            if held != self.fence:
                raise LeaseLost("A later attempt has begun to load this block.")

    def merge(self) -> Merged:
        """Make the staged rows part of the table, in one transaction that a later attempt's claim makes void. Raises LeaseLost."""
        with plain_words():
            self._stage.settle()
            if self._keys is not None:
                self._keys.judge()
                self._keys.settle()
            # one merge into a table at a time, so that two blocks with one key can't both insert it
            with locked(self.connection, f"merge {self.table.name}") as is_ours, self.connection.cursor() as cursor:
                if not is_ours:
                    raise TransientError(f"Another merge into {self.table.name} does not end.", code="warehouse-busy")
                writer = self._reserve(cursor)
                merged = self._rebuilt(cursor, writer) if self.rebuild else self._merged(cursor, writer)
            # the planner's knowledge of a table that just grew from nothing is worth the second it costs
            if merged.inserted > 10_000:
                with self.connection.cursor() as cursor:
                    cursor.execute(f"analyze table {writer.target}")
        faultpoint("load.committed")
        return merged

    def newest(self, column: str) -> str | None:
        """After the merge: the greatest time that was staged in that column; None = ask the table, which here is as quick."""
        return None

    def _reserve(self, cursor: Any) -> Writer:
        """Take as many numbers of writing as this merge can need; nobody waits for them until it ends."""
        held = one(cursor, f"select count(*) from {name(self.table.name)}")
        wanted = self._stage.rows + held
        cursor.execute("update _odo_counter set seq = last_insert_id(seq + %s)", [wanted + 1])
        base = one(cursor, "select last_insert_id()") - wanted
        return self._writer(base, base + self._stage.rows)

    def _merged(self, cursor: Any, writer: Writer) -> Merged:
        with self._transaction(cursor):
            if self.table.key:
                merged = merge.upsert(cursor, writer, self._stage, self._keys)
            else:
                merged = merge.append(cursor, writer) if self.mode == "append" else merge.compare(cursor, writer)
            faultpoint("load.merged")
            self._note_merge(cursor)
        return merged

    def _rebuilt(self, cursor: Any, writer: Writer) -> Merged:
        fresh.check_free(cursor, self.table.name)
        had = one(cursor, f"select count(*) from {writer.target} where _odo_pipeline = {int(self.pipeline_id)}")
        self._is_beside = True
        rows, copies = fresh.build(cursor, writer, self.connection)
        fresh.keep_others(cursor, writer, self.connection)
        with self._transaction(cursor):
            gone = fresh.find_gone(cursor, writer)
            faultpoint("load.merged")
            self._check_ledger(cursor)
        # who claims the block from here on merges after us: it waits for the lock that we hold
        fresh.swap(cursor, writer)
        self._is_beside = False
        faultpoint("load.swapped")
        self._note_merge(cursor)
        fresh.drop_aside(cursor, writer)
        return Merged(rows, 0, 0, gone if self.table.key else had, copies, gone)

    @contextlib.contextmanager
    def _transaction(self, cursor: Any) -> Iterator[None]:
        cursor.execute("start transaction")
        is_whole = False
        try:
            yield
            is_whole = True
        finally:
            if not is_whole:
                # a session that broke off has rolled back by itself
                with contextlib.suppress(pymysql.Error):
                    cursor.execute("rollback")
        cursor.execute("commit")

    def _check_ledger(self, cursor: Any) -> None:
        asked = "select fence from _odo_ledger where block_id = %s and table_name = %s for update"
        if one(cursor, asked, [self.block_id, self.table.name]) != self.fence:
            raise LeaseLost("A later attempt has begun to load this block.")

    def _note_merge(self, cursor: Any) -> None:
        self._check_ledger(cursor)
        noted = "update _odo_ledger set merged_at = now(6) where block_id = %s and table_name = %s and fence = %s"
        cursor.execute(noted, [self.block_id, self.table.name, self.fence])
