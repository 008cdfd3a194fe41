"""Two ways of bringing files into the server. Both count what they took and know which rows they could not take, and why.

`TypedStage` copies straight into typed columns: as fast as COPY is, for files whose types the source itself vouches for.
`TextStage` copies text and judges every value in SQL: for all others, and for whatever the typed way does not understand.
"""

from __future__ import annotations

import csv
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.errors import DataError
from pipelines.warehouse.postgres.checks import checks, looks_untold, while_copying
from pipelines.warehouse.postgres.ddl import SQL_TYPES
from pipelines.warehouse.postgres.session import plain_words
from pipelines.warehouse.tables import LONGEST_KEY, Rejected, Table, broken, records, visible

COPY_BYTES = 1 << 20  # the default of 8 kB costs a third of the speed (facts/performance.md §9)
TOO_LONG = -10_000  # the verdict on a longer key; -1 is the first column of the key being empty, -2 the second, …
#: So many bad values the typed way explains; a load with more is judged the careful way.
MOST_SKIPPED = 1_000
#: So many records at the head of each file are looked at for values that COPY would take as something else.
LOOKED_AT = 200
_SKIPPED = re.compile(r'at line (\d+) for column "(.*?)"', re.DOTALL)


#: The constraint of a table that takes a typed copy.
CHECKED = "_odo_checked"


class Odd(Exception):
    """Something that the typed way does not understand: the load begins again, the careful way."""


def copy_command(target: Composable, names: Sequence[str], nullable: Sequence[str], *, header: str = "match", more: str = "") -> Composable:
    """COPY of a CSV file; an empty cell is NULL, quoted or not. `nullable` are the columns of the file that are ours to null."""
    return SQL("copy {} ({}) from stdin (format csv, header {}, force_null ({}), encoding 'UTF8'{})").format(
        target, SQL(", ").join(map(Identifier, names)), SQL(header), SQL(", ").join(map(Identifier, nullable)), SQL(more)
    )


def check_header(path: Path, names: Sequence[str], error: Exception | None = None) -> None:
    """Raise DataError unless the file's first line names exactly these columns."""
    with path.open("rb") as stream:
        first = stream.readline().decode("utf-8", "replace").strip().lstrip("\ufeff")
    found = next(csv.reader([first]), [])
    if found != list(names):
        raise DataError(
            f"{path.name}: the header names {', '.join(found) or 'nothing'}; expected {', '.join(names)}.", code="wrong-header"
        ) from error


class TypedStage:
    """Files copied into typed columns of `target`; on an old server, or for whatever is odd, `copy` raises Odd."""

    def __init__(self, connect: Callable[[], Any], connection: Any, table: Table, target: Composable):
        self.table, self.target = table, target
        self._connect, self._connection = connect, connection
        self._skipped: dict[int, dict[int, str]] = {}  # file → line → column
        self.files: dict[int, Path] = {}
        version = connection.server_version
        if version < 170_000:
            raise Odd("this server's COPY can't leave bad values out")
        # what a column takes and we do not, like NaN: the row stops the COPY, and the load goes the careful way
        with connection, connection.cursor() as cursor:
            cursor.execute(SQL("alter table {} add constraint {} check ({})").format(target, Identifier(CHECKED), while_copying(table)))
        self._options = ", on_error ignore, log_verbosity verbose" + (f", reject_limit {MOST_SKIPPED}" if version >= 180_000 else "")

    def copy(self, number: int, path: Path, connection: Any = None) -> int:
        """Copy one file; returns its rows, those with bad values included."""
        self.files[number] = path
        if any(looks_untold(self.table.columns, cells) for _, _, cells in islice(records(path, len(self.table.names)), LOOKED_AT)):
            raise Odd("a value that COPY would read as something else")
        connection = connection or self._connection
        notices = connection.notices = _Notices()
        try:
            with connection, connection.cursor() as cursor, path.open("rb") as stream:
                cursor.copy_expert(copy_command(self.target, self.table.names, self.table.names, more=self._options), stream, size=COPY_BYTES)
                rows = cursor.rowcount
        except psycopg2.errors.BadCopyFileFormat as error:
            check_header(path, self.table.names, error)
            raise Odd("a row of another width") from error
        except (psycopg2.DataError, psycopg2.IntegrityError, psycopg2.errors.ProgramLimitExceeded) as error:
            raise Odd(str(error)) from error
        skipped = {int(found[1]): found[2] for text in notices.texts if (found := _SKIPPED.search(text))}
        if len(skipped) != notices.skips or not set(skipped.values()) <= set(self.table.names):
            raise Odd("bad values that it does not name")
        self._skipped[number] = skipped
        return rows + len(skipped)

    def copy_many(self, files: Iterable[tuple[int, Path]], connections: int) -> Iterator[tuple[int, int]]:
        """Copy files by so many sessions at once, and tell them in order; the next file is fetched while they copy."""
        local = threading.local()
        opened: list[Any] = []

        def one(number: int, path: Path) -> int:
            with plain_words():
                if not hasattr(local, "connection"):
                    local.connection = self._connect()
                    opened.append(local.connection)
                return self.copy(number, path, local.connection)

        flying: list[tuple[int, Any]] = []
        with ThreadPoolExecutor(max_workers=connections, thread_name_prefix="copy") as pool:
            try:
                for number, path in files:
                    flying.append((number, pool.submit(one, number, path)))
                    if len(flying) > connections:
                        first, future = flying.pop(0)
                        yield first, future.result()
                for first, future in flying:
                    yield first, future.result()
            finally:
                for _, future in flying:
                    future.cancel()
                pool.shutdown(wait=True)
                for connection in opened:
                    with closing(connection):
                        pass

    def judge(self) -> int:
        """How many rows were left out."""
        return sum(map(len, self._skipped.values()))

    def rejected(self) -> Iterator[Rejected]:
        """The rows that were left out, each with its reason and raw cells."""
        reasons = {column.name: checks(column)[0][1] for column in self.table.columns if checks(column)}
        for number, skipped in self._skipped.items():
            if not skipped:
                continue
            lines = iter(sorted(skipped))
            wanted: int | None = next(lines)
            held: tuple[int, int, list[str]] | None = None
            # COPY names the last line of a record, the file's reader the first
            for found in (*_with_end(records(self.files[number], len(self.table.names))),):
                if held and wanted is not None and held[1] <= wanted < found[1]:
                    record, line, cells = held
                    column = skipped[wanted]
                    raw = dict(zip(self.table.names, map(visible, cells), strict=True))
                    yield Rejected(number, record, line, column, reasons.get(column, "not what its column holds"), raw[column][:1000], raw)
                    wanted = next(lines, None)
                    if wanted is None:
                        break
                held = found


def _with_end(found: Iterator[tuple[int, int, list[str]]]) -> Iterator[tuple[int, int, list[str]]]:
    yield from found
    yield 0, 1 << 62, []


class _Notices:
    """What the server says while it copies; psycopg2 keeps the last fifty only."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.skips = 0

    def append(self, text: str) -> None:
        if "skipping row" in text or _SKIPPED.search(text):
            self.skips += 1
            if self.skips <= MOST_SKIPPED:
                self.texts.append(text)


class TextStage:
    """Files copied as text into a private table `_text`, judged there, and the good rows typed into `_stage`."""

    def __init__(self, connection: Any, table: Table):
        self.connection, self.table = connection, table
        self.torn: Counter[int] = Counter()  # file → rows of it that no COPY can take
        self.files: dict[int, Path] = {}
        fields = SQL(", ").join(SQL("{} text").format(Identifier(name)) for name in table.names)
        with connection, connection.cursor() as cursor:
            # what we add begins with _odo_, as no column of a source may
            cursor.execute("create temp sequence _record")
            own = SQL("_odo_file int not null default 0, _odo_record bigint not null default nextval('_record')")
            cursor.execute(SQL("create temp table _text ({}, {})").format(own, fields))

    def copy(self, number: int, path: Path) -> int:
        """Copy one file; returns how many rows it had, rejected ones included. Raises DataError for a wrong header."""
        self.files[number] = path
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(SQL("alter table _text alter _odo_file set default {}").format(Literal(number)))
            cursor.execute("alter sequence _record restart")
            cursor.execute("savepoint file")
            try:
                with path.open("rb") as stream:
                    cursor.copy_expert(copy_command(SQL("_text"), self.table.names, self.table.names), stream, size=COPY_BYTES)
                return cursor.rowcount
            except psycopg2.errors.BadCopyFileFormat as error:
                check_header(path, self.table.names, error)
                return self._row_by_row(cursor, number, path)
            except (psycopg2.errors.CharacterNotInRepertoire, psycopg2.errors.UntranslatableCharacter):
                return self._row_by_row(cursor, number, path)

    def _row_by_row(self, cursor: Any, number: int, path: Path) -> int:
        """A file with broken rows: they are taken out, with their reason, and the others copied with their own numbers."""
        cursor.execute("rollback to savepoint file")
        rows = 0
        names, width = self.table.names, len(self.table.names)
        clean = path.with_name(path.name + ".clean")
        try:
            with clean.open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                for record, _, cells in records(path, width):
                    rows = record
                    if broken(cells, width):
                        self.torn[number] += 1
                    else:
                        writer.writerow([record, *cells])
            with clean.open("rb") as stream:
                cursor.copy_expert(copy_command(SQL("_text"), ["_odo_record", *names], names, header="false"), stream, size=COPY_BYTES)
        finally:
            clean.unlink(missing_ok=True)
        return rows

    def judge(self) -> int:
        """Find the rows that can't be loaded, all columns at once in the server, and type the others. Returns how many, unreadable ones included."""
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
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                SQL(
                    "create temp table _bad as select _odo_file, _odo_record, _odo_why from"
                    " (select _odo_file, _odo_record, {} as _odo_why from _text) judged where _odo_why is not null"
                ).format(verdict)
            )
            found = cursor.rowcount
            cursor.execute("create unique index on _bad (_odo_file, _odo_record)")
            cursor.execute("analyze _bad")
        return found + sum(self.torn.values())

    def settle(self) -> None:
        """Type the good rows into `_stage`, in the order in which they came. Call it after `rejected` was read."""
        typed = SQL(", ").join(SQL("{0}::{1} as {0}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in self.table.columns)
        good = SQL("_text s where not exists (select from _bad b where b._odo_file = s._odo_file and b._odo_record = s._odo_record)")
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(SQL("create temp table _stage as select {} from {}").format(typed, good))
            cursor.execute("drop table _text")

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        for file in self.files:
            with self.connection, self.connection.cursor() as cursor:
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

    def _rejected_cells(self, number: int, record: int, line: int, reason: str, cells: list[str]) -> Rejected:
        shown = [visible(cell) for cell in cells]
        raw = dict(zip(self.table.names, shown, strict=False))
        if len(shown) > len(self.table.names):
            raw["(more)"] = ", ".join(shown[len(self.table.names) :])
        return Rejected(number, record, line, "", reason, ", ".join(shown)[:1000], raw)
