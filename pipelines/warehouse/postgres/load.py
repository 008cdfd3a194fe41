"""A load into PostgreSQL: bulk copy into a private stage, judge every value, merge in one transaction."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.errors import DataError, LeaseLost
from pipelines.faults import faultpoint
from pipelines.warehouse.postgres.checks import checks
from pipelines.warehouse.postgres.ddl import BOOKKEEPING, SQL_TYPES, identifier, prepare
from pipelines.warehouse.postgres.session import SCHEMA, connect, plain_words
from pipelines.warehouse.tables import LONGEST_KEY, Merged, Rejected, Table, broken, records, visible

COPY_BYTES = 1 << 20  # the default of 8 kB costs a third of the speed (facts/performance.md §9)
TOO_LONG = -10_000  # the verdict on a longer one; -1 is the first column of the key being empty, -2 the second, …


class Load:
    """One load of one block: `stage` each file, `rejected` rows out, `merge`. Leaving it closes the session and drops the stage."""

    def __init__(self, dsn: str, table: Table, *, run_id: int, block_id: int, pipeline_id: int, fence: int, replaces_block: bool = True):
        self.table = table
        self.block_id, self.pipeline_id, self.fence = block_id, pipeline_id, fence
        # without a key the rows of the window are replaced: those of the block, or of the whole pipeline when it is a snapshot
        self.replaces_block = replaces_block
        self.connection = connect(dsn, run_id=run_id)
        self.torn: dict[int, int] = {}  # file → rows of it that no COPY can take
        self.files: dict[int, Path] = {}
        self.staged = 0

    def __enter__(self) -> Load:
        with plain_words():
            prepare(self.connection, self.table)
            self._make_stage()
            self._claim_ledger()
        return self

    def __exit__(self, *problem) -> None:
        self.connection.close()

    # 1 stage

    def _make_stage(self) -> None:
        fields = SQL(", ").join(SQL("{} text").format(Identifier(name)) for name in self.table.names)
        with self.connection, self.connection.cursor() as cursor:
            # what we add begins with _odo_, as no column of a source may
            cursor.execute("create temp sequence _record")
            own = SQL("_odo_file int not null default 0, _odo_record bigint not null default nextval('_record')")
            cursor.execute(SQL("create temp table _stage ({}, {})").format(own, fields))

    def stage(self, number: int, path: Path) -> int:
        """Copy one CSV file with a header; returns how many rows it had, rejected ones included. Raises DataError for a wrong header."""
        self.files[number] = path
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            cursor.execute(SQL("alter table _stage alter _odo_file set default {}").format(Literal(number)))
            cursor.execute("alter sequence _record restart")
            cursor.execute("savepoint file")
            try:
                with path.open("rb") as stream:
                    cursor.copy_expert(self._copy(self.table.names), stream, size=COPY_BYTES)
                rows = cursor.rowcount
            except psycopg2.errors.BadCopyFileFormat as error:
                self._check_header(path, error)
                rows = self._stage_row_by_row(cursor, number, path)
            except (psycopg2.errors.CharacterNotInRepertoire, psycopg2.errors.UntranslatableCharacter):
                rows = self._stage_row_by_row(cursor, number, path)
        self.staged += rows
        faultpoint("load.staged")
        return rows

    def _copy(self, names: Sequence[str], *, header: str = "match") -> Composable:
        listed = SQL(", ").join(map(Identifier, names))
        own = SQL(", ").join(map(Identifier, self.table.names))
        return SQL("copy _stage ({}) from stdin (format csv, header {}, force_null ({}), encoding 'UTF8')").format(listed, SQL(header), own)

    def _check_header(self, path: Path, error: Exception) -> None:
        with path.open("rb") as stream:
            first = stream.readline().decode("utf-8", "replace").strip().lstrip("\ufeff")
        found = next(csv.reader([first]), [])
        if found != self.table.names:
            raise DataError(
                f"{path.name}: the header names {', '.join(found) or 'nothing'}; expected {', '.join(self.table.names)}.", code="wrong-header"
            ) from error

    def _stage_row_by_row(self, cursor: Any, number: int, path: Path) -> int:
        """A file with broken rows: they are taken out, with their reason, and the others copied with their own numbers."""
        cursor.execute("rollback to savepoint file")
        rows = 0
        width = len(self.table.names)
        clean = path.with_name(path.name + ".clean")
        try:
            with clean.open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                for record, _, cells in records(path, width):
                    rows = record
                    if broken(cells, width):
                        self.torn[number] = self.torn.get(number, 0) + 1
                    else:
                        writer.writerow([record, *cells])
            with clean.open("rb") as stream:
                cursor.copy_expert(self._copy(["_odo_record", *self.table.names], header="false"), stream, size=COPY_BYTES)
        finally:
            clean.unlink(missing_ok=True)
        return rows

    def _rejected_cells(self, number: int, record: int, line: int, reason: str, cells: list[str]) -> Rejected:
        shown = [visible(cell) for cell in cells]
        raw = dict(zip(self.table.names, shown, strict=False))
        if len(shown) > len(self.table.names):
            raw["(more)"] = ", ".join(shown[len(self.table.names) :])
        return Rejected(number, record, line, "", reason, ", ".join(shown)[:1000], raw)

    # 2 judge

    def judge(self) -> int:
        """Find the rows that can't be loaded, all columns at once in the server. Returns how many, unreadable ones included."""
        key = self.table.key
        cases = [SQL("when {} is null then {}").format(Identifier(name), Literal(-1 - n)) for n, name in enumerate(key)]
        if key:
            length = SQL(" + ").join(SQL("octet_length({})").format(Identifier(name)) for name in key)
            cases.append(SQL("when {} > {} then {}").format(length, Literal(LONGEST_KEY), Literal(TOO_LONG)))
        cases += [
            SQL("when {0} is not null and {1} then {2}").format(Identifier(column.name), SQL(test).format(c=Identifier(column.name)), Literal(n))
            for n, (column, test, _) in enumerate(self._tests)
        ]
        verdict = SQL("case {} end").format(SQL(" ").join(cases)) if cases else SQL("null::int")
        with plain_words(), self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                SQL(
                    "create temp table _bad as select _odo_file, _odo_record, _odo_why from"
                    " (select _odo_file, _odo_record, {} as _odo_why from _stage) judged where _odo_why is not null"
                ).format(verdict)
            )
            found = cursor.rowcount
            cursor.execute("create unique index on _bad (_odo_file, _odo_record)")
            cursor.execute("analyze _bad")
        return found + sum(self.torn.values())

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        for file in self.files:
            with plain_words(), self.connection, self.connection.cursor() as cursor:
                cursor.execute("select _odo_record, _odo_why from _bad where _odo_file = %s", [file])
                why_of = dict(cursor.fetchall())
            if why_of or file in self.torn:
                yield from self._explain(file, why_of)

    @property
    def _tests(self) -> list[tuple[Column, str, str]]:
        return [(column, *check) for column in self.table.columns for check in checks(column)]

    def _explain(self, file: int, why_of: dict[int, int]) -> Iterator[Rejected]:
        names, key, tests = self.table.names, self.table.key, self._tests
        for record, line, cells in records(self.files[file], len(names)):
            if file in self.torn and (reason := broken(cells, len(names))):
                yield self._rejected_cells(file, record, line, reason, cells)
                continue
            why = why_of.get(record)
            if why is None:
                continue
            if why == TOO_LONG:
                column, reason = key[0], f"the key is longer than {LONGEST_KEY:,} bytes"
            elif why < 0:
                column, reason = key[-1 - why], "the key is empty"
            else:
                column, reason = tests[why][0].name, tests[why][2]
            raw = dict(zip(names, cells, strict=True))
            yield Rejected(file, record, line, column, reason, raw[column][:1000], raw)

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
        """Insert and update by key, or replace, in one transaction that a later attempt's claim makes void. Raises LeaseLost."""
        with plain_words():
            with self.connection, self.connection.cursor() as cursor:
                # one merge into a table at a time, so that two blocks with one key can't both insert it
                cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"odo {SCHEMA}.{self.table.name}"])
                merged = self._upsert(cursor) if self.table.key else self._replace(cursor)
                faultpoint("load.merged")
                mine = SQL("update {} set merged_at = now() where block_id = %s and table_name = %s and fence = %s")
                cursor.execute(mine.format(Identifier(SCHEMA, "_odo_ledger")), [self.block_id, self.table.name, self.fence])
                if not cursor.rowcount:
                    raise LeaseLost("A later attempt has begun to load this block.")
            # the planner's knowledge of a table that just grew from nothing is worth the second it costs
            if merged.inserted > 10_000:
                with self.connection, self.connection.cursor() as cursor:
                    cursor.execute(SQL("analyze {}").format(identifier(self.table.name)))
        faultpoint("load.committed")
        return merged

    def _good(self) -> Composable:
        return SQL("_stage s where not exists (select from _bad b where b._odo_file = s._odo_file and b._odo_record = s._odo_record)")

    def _typed(self) -> Composable:
        return SQL(", ").join(SQL("{0}::{1} as {0}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in self.table.columns)

    def _upsert(self, cursor: Any) -> Merged:
        names = {
            "t": identifier(self.table.name),
            "key": SQL(", ").join(map(Identifier, self.table.key)),
            "columns": SQL(", ").join(map(Identifier, self.table.names)),
            "typed": self._typed(),
            "good": self._good(),
            "mine": SQL(", ").join(SQL("n.{}").format(Identifier(name)) for name in self.table.names),
            "theirs": SQL(", ").join(SQL("o.{}").format(Identifier(name)) for name in self.table.names),
            "same_key": SQL(" and ").join(SQL("o.{0} = n.{0}").format(Identifier(name)) for name in self.table.key),
            "first_key": SQL("o.{}").format(Identifier(self.table.key[0])),
            "set": SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in (*self.table.names, *BOOKKEEPING)),
            "book": SQL(", ").join(map(Identifier, BOOKKEEPING)),
            # literals, not parameters: a column's name may hold a percent sign
            "writer": SQL("{}, {}").format(Literal(self.pipeline_id), Literal(self.block_id)),
            "seq": Literal(f"{SCHEMA}._odo_seq"),
            "newest": SQL("{} desc nulls last, ").format(Identifier(self.table.version)) if self.table.version else SQL(""),
            "older": SQL("n.{0} < o.{0}").format(Identifier(self.table.version)) if self.table.version else SQL("false"),
        }
        # of two copies of a key the newer wins; without a version column the one that came last
        cursor.execute(
            SQL(
                "create temp table _new on commit drop as select distinct on ({key}) {columns} from"
                " (select _odo_file, _odo_record, {typed} from {good}) typed order by {key}, {newest} _odo_file desc, _odo_record desc"
            ).format(**names)
        )
        distinct = cursor.rowcount
        cursor.execute("analyze _new")
        cursor.execute(SQL("select count(*) from {good}").format(**names))
        good = cursor.fetchone()[0]
        # only what differs is written: a whole snapshot with 5 % edits costs a quarter of a blind upsert (facts/performance.md §3)
        cursor.execute(
            SQL(
                "create temp table _delta on commit drop as select n.*, {first_key} is null as _odo_is_new, coalesce({older}, false) as _odo_is_older"
                " from _new n left join {t} o on {same_key}"
                " where {first_key} is null or ({mine}) is distinct from ({theirs})"
            ).format(**names)
        )
        cursor.execute(
            "select count(*) filter (where _odo_is_new), count(*) filter (where not _odo_is_new and not _odo_is_older),"
            " count(*) filter (where _odo_is_older) from _delta"
        )
        inserted, updated, older = cursor.fetchone()
        cursor.execute(
            SQL(
                "insert into {t} ({columns}, {book}) select {columns}, {writer}, nextval({seq}), now() from _delta where not _odo_is_older"
                " on conflict ({key}) do update set {set}"
            ).format(**names)
        )
        return Merged(inserted, updated, distinct - inserted - updated - older, 0, good - distinct + older)

    def _replace(self, cursor: Any) -> Merged:
        whose, value = ("_odo_block", self.block_id) if self.replaces_block else ("_odo_pipeline", self.pipeline_id)
        cursor.execute(SQL("delete from {} where {} = %s").format(identifier(self.table.name), Identifier(whose)), [value])
        deleted = cursor.rowcount
        columns = SQL(", ").join(map(Identifier, self.table.names))
        cursor.execute(
            SQL("insert into {t} ({columns}, {book}) select {typed}, {writer}, nextval({seq}), now() from {good}").format(
                t=identifier(self.table.name),
                columns=columns,
                typed=self._typed(),
                good=self._good(),
                book=SQL(", ").join(map(Identifier, BOOKKEEPING)),
                writer=SQL("{}, {}").format(Literal(self.pipeline_id), Literal(self.block_id)),
                seq=Literal(f"{SCHEMA}._odo_seq"),
            )
        )
        return Merged(cursor.rowcount, 0, 0, deleted, 0)
