"""Files brought into the server as text, and each of their values judged. The stage is private to the session, and ends with it.

A file goes as it is, in one LOAD DATA. Where the server warns of anything (a row of another width, bytes that are no text) or
we see what it would misread, the file is staged once more, row by row, and the broken rows are left out with their reasons.
"""

# ruff: noqa: S608  names go through `name`, texts through `literal`, numbers through `int`
from __future__ import annotations

import codecs
import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pymysql
from pymysql.cursors import SSCursor

from pipelines.connectors.base import Column
from pipelines.errors import DataError, PermanentError
from pipelines.warehouse.mysql.ddl import key_length
from pipelines.warehouse.mysql.session import Session, collation, literal, name, names, one, run, stage_engine
from pipelines.warehouse.mysql.values import Refused, meant, plainly_good, typed
from pipelines.warehouse.tables import LONGEST_KEY, Rejected, Table, broken, records, visible

READ = 1 << 20
#: Verdicts besides the number of the column that is wrong: -1 is the first column of the key being empty, -2 the second, …
TOO_LONG, TOO_WIDE = -10_000, -20_000
#: The keys of so many broken rows are remembered.
MOST_TORN_KEYS = 20_000
_BOM = codecs.BOM_UTF8


class Odd(Exception):
    """The file holds what LOAD DATA would misread: it must be staged row by row."""


class TextStage:
    """`_stage`: the files' cells as text, each row with `_odo_id`, its number among all rows of the load, from 1 on.

    One that is `called` otherwise is another stage in the same session.
    """

    def __init__(self, connection: Session, table: Table, called: str = "_stage"):
        self.connection, self.table = connection, table
        self.name, self._bad, self.kept, self._meant = called, f"{called}_bad", f"{called}_kept", f"{called}_meant"
        self.files: dict[int, Path] = {}
        self.first: dict[int, int] = {}  # file → the number before its first row's
        self.torn: dict[int, int] = {}  # file → rows of it that no bulk load can take
        self.torn_keys: list[tuple[str, ...]] | None = []  # None: too many to keep
        self.rows = 0
        self.bad = 0
        text = f"longtext character set utf8mb4 collate {collation(connection)} not null"
        self._made = f"{stage_engine(connection)} character set utf8mb4 collate {collation(connection)}"
        fields = ", ".join(f"{name(column)} {text}" for column in table.names)
        with connection.cursor() as cursor:
            run(cursor, f"create temporary table {self.name} (_odo_id bigint not null primary key, {fields}) {self._made}")
            run(
                cursor,
                f"create temporary table {self._bad} (_odo_id bigint not null primary key, _odo_why int not null, _odo_key_ok tinyint not null)"
                f" {self._made}",
            )

    # bringing in

    def copy(self, number: int, path: Path) -> int:
        """Stage one file; returns its rows, broken ones included. Raises DataError for a wrong header."""
        self.files[number], self.first[number] = path, self.rows
        with path.open("rb") as stream:
            ending = _after_header(stream, path, self.table.names)
            try:
                rows = self._whole(stream, ending)
            except Odd:
                with self.connection.cursor() as cursor:
                    run(cursor, f"delete from {self.name} where _odo_id > {self.rows}")
                rows = self._row_by_row(number, path)
        self.rows += rows
        return rows

    def _whole(self, stream: IO[bytes], ending: str) -> int:
        watch = _Watch(stream)
        with self.connection.cursor() as cursor:
            run(cursor, f"set @odo_id = {self.rows}")
            try:
                rows = send(
                    cursor, watch, f"{self.name} ({{dialect}}) ({names(self.table.names)}) set _odo_id = (@odo_id := @odo_id + 1)", ending=ending
                )
            except pymysql.DatabaseError as error:
                # what is not UTF-8 may be an error or a warning, by the server's version
                if watch.is_odd or _is_about_text(error):
                    raise Odd(str(error)) from error
                raise
            if watch.is_odd or cursor.warning_count:
                raise Odd("what LOAD DATA misreads")
            last = name(self.table.names[-1])
            if watch.has_returns and ending == "\n" and one(cursor, f"select exists (select 1 from {self.name} where {last} like '%\r')"):
                raise Odd("lines that end in two ways")
        return rows

    def _row_by_row(self, number: int, path: Path) -> int:
        width = len(self.table.names)
        seen = 0

        def good() -> Iterator[list[Any]]:
            nonlocal seen
            for record, _, cells in records(path, width):
                seen = record
                if broken(cells, width):
                    self.torn[number] = self.torn.get(number, 0) + 1
                    self._remember(cells)
                else:
                    yield [self.first[number] + record, *cells]

        with self.connection.cursor() as cursor:
            send_rows(cursor, good(), f"{self.name} ({{dialect}}) (_odo_id, {names(self.table.names)})")
        return seen

    def _remember(self, cells: Sequence[str]) -> None:
        """Keep the key of a broken row, as far as it can be read: the source has it, so its old copy is not gone."""
        found = dict(zip(self.table.names, cells, strict=False))
        kinds = {column.name: column.type for column in self.table.columns}
        if self.torn_keys is None or not self.table.key:
            return
        try:
            key = tuple(meant(kinds[each], visible(found[each])) for each in self.table.key)
        except (Refused, KeyError):
            return
        if len(self.torn_keys) < MOST_TORN_KEYS:
            self.torn_keys.append(key)
        else:
            self.torn_keys = None

    # judging

    def judge(self) -> int:
        """Find the rows that can't be loaded, and write what odd cells mean in their place. Returns how many, broken ones included."""
        asked = [column for column in self.table.columns if plainly_good(column.type, "") != "true"]
        key_why = self._key_verdict()
        unclear = [f"({name(column.name)} <> '' and not {plainly_good(column.type, name(column.name))})" for column in asked]
        if self.table.key:
            unclear.append("_odo_why is not null")
        if not unclear:
            return sum(self.torn.values())
        with tempfile.TemporaryFile() as verdicts, tempfile.TemporaryFile() as meanings:
            changed = self._weigh(asked, key_why, " or ".join(unclear), verdicts, meanings)
            with self.connection.cursor() as cursor:
                verdicts.seek(0)
                self.bad = send_proven(cursor, verdicts, f"{self._bad} ({{dialect}}) (_odo_id, _odo_why, _odo_key_ok)")
                if changed:
                    meanings.seek(0)
                    self._rewrite(cursor, changed, meanings)
        return self.bad + sum(self.torn.values())

    def _key_verdict(self) -> str:
        key = self.table.key
        if not key:
            return "null"
        kinds = {column.name: column.type for column in self.table.columns}
        cases = [f"when {name(each)} = '' then {-1 - n}" for n, each in enumerate(key)]
        cases.append(f"when {' + '.join(f'length({name(each)})' for each in key)} > {LONGEST_KEY} then {TOO_LONG}")
        cases += [
            f"when char_length({name(each)}) > {key_length(self.table)} then {TOO_WIDE - n}"
            for n, each in enumerate(key)
            if kinds[each] in ("text", "point", "json")
        ]
        return f"case {' '.join(cases)} end"

    def _weigh(self, asked: Sequence[Column], key_why: str, unclear: str, verdicts: IO[bytes], meanings: IO[bytes]) -> set[int]:
        """Read every row that is not plainly good; write (row, verdict) and (row, column, meaning). Returns the columns with meanings."""
        bad, told = _rows_to(verdicts), _rows_to(meanings)
        place = {column.name: n for n, column in enumerate(self.table.columns)}
        changed: set[int] = set()
        with self.connection.cursor(SSCursor) as cursor:
            cells = "".join(f", {name(column.name)}" for column in asked)
            # HAVING, for it may ask for the verdict by its name
            cursor.execute(f"select _odo_id, {key_why} as _odo_why{cells} from {self.name} having {unclear}")
            for row_id, why, *values in cursor:
                key_ok = why is None or why <= TOO_LONG
                for column, cell in zip(asked, values, strict=True):
                    if not cell:
                        continue
                    try:
                        meaning = meant(column.type, cell)
                    except Refused:
                        why = place[column.name] if why is None else why
                        key_ok = key_ok and column.name not in self.table.key
                        continue
                    if meaning != cell:
                        changed.add(place[column.name])
                        told.writerow([row_id, place[column.name], meaning])
                if why is not None:
                    bad.writerow([row_id, why, int(key_ok)])
        return changed

    def _rewrite(self, cursor: Any, changed: Iterable[int], meanings: IO[bytes]) -> None:
        fields = "_odo_id bigint not null, place int not null, cell longtext not null, primary key (place, _odo_id)"
        run(cursor, f"create temporary table {self._meant} ({fields}) {self._made}")
        send_proven(cursor, meanings, f"{self._meant} ({{dialect}}) (_odo_id, place, cell)")
        for place in sorted(changed):
            cell = name(self.table.names[place])
            run(cursor, f"update {self.name} s join {self._meant} m on m._odo_id = s._odo_id set s.{cell} = m.cell where m.place = {place}")
        run(cursor, f"drop temporary table {self._meant}")

    def rejected(self) -> Iterator[Rejected]:
        """The rows that `judge` found, each with its reason and raw cells."""
        for number, path in self.files.items():
            with self.connection.cursor() as cursor:
                first = self.first[number]
                cursor.execute(f"select _odo_id - {first}, _odo_why from {self._bad} where _odo_id > {first} and _odo_id <= {self._end(number)}")
                why_of = dict(cursor.fetchall())
            if why_of or number in self.torn:
                yield from self._explain(number, path, why_of)

    def _end(self, number: int) -> int:
        later = [first for other, first in self.first.items() if other > number]
        return min(later, default=self.rows)

    def _explain(self, number: int, path: Path, why_of: dict[int, int]) -> Iterator[Rejected]:
        listed, key = self.table.names, self.table.key
        for record, line, cells in records(path, len(listed)):
            if number in self.torn and (reason := broken(cells, len(listed))):
                yield _torn(listed, number, record, line, reason, cells)
                continue
            why = why_of.get(record)
            if why is None:
                continue
            if why <= TOO_WIDE:
                column = key[TOO_WIDE - why]
                reason = f"the key is longer than {key_length(self.table)} characters"
            elif why == TOO_LONG:
                column, reason = key[0], f"the key is longer than {LONGEST_KEY:,} bytes"
            elif why < 0:
                column, reason = key[-1 - why], "the key is empty"
            else:
                column = listed[why]
                reason = _reason(self.table.columns[why].type, cells[why])
            raw = dict(zip(listed, cells, strict=True))
            yield Rejected(number, record, line, column, reason, raw[column][:1000], raw)

    # for the merge

    def settle(self) -> None:
        """Take the rejected rows out of the stage, and keep their keys, where they can be read."""
        with self.connection.cursor() as cursor:
            if self.table.key:
                # it has no index: such a key may be too long for one
                run(cursor, f"create temporary table {self.kept} {self._made} select {self.typed_key('s')} from {self.name} s limit 0")
                if self.torn_keys:
                    send_rows(cursor, self.torn_keys, f"{self.kept} ({{dialect}}) ({names(self.table.key)})")
            if self.bad:
                bad = f"{self.name} s join {self._bad} b on b._odo_id = s._odo_id"
                if self.table.key:
                    run(cursor, f"insert into {self.kept} select {self.typed_key('s')} from {bad} where b._odo_key_ok = 1")
                run(cursor, f"delete s from {bad}")

    def typed_key(self, alias: str) -> str:
        """The key's values in SQL, under their names."""
        kinds = {column.name: column.type for column in self.table.columns}
        return ", ".join(f"{typed(kinds[each], f'{alias}.{name(each)}', nullable=False)} as {name(each)}" for each in self.table.key)


def _reason(kind: str, cell: str) -> str:
    try:
        meant(kind, cell)
    except Refused as refusal:
        return str(refusal)
    return f"not what a column of {kind} holds"


def _torn(listed: Sequence[str], number: int, record: int, line: int, reason: str, cells: Sequence[str]) -> Rejected:
    shown = [visible(cell) for cell in cells]
    raw = dict(zip(listed, shown, strict=False))
    if len(shown) > len(listed):
        raw["(more)"] = ", ".join(shown[len(listed) :])
    return Rejected(number, record, line, "", reason, ", ".join(shown)[:1000], raw)


# files and the server


class _Watch:
    """The pieces of a file as they are sent; it stops at what LOAD DATA would take and we do not."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream
        self.is_odd = self.has_returns = False

    def __iter__(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while piece := self.stream.read(READ):
            try:
                # most pieces are plain, and to say so is a hundred times faster than to read them
                if not piece.isascii() or decoder.getstate()[0]:
                    decoder.decode(piece)
            except UnicodeDecodeError:
                self.is_odd = True
            if self.is_odd or b"\0" in piece:
                self.is_odd = True
                return
            self.has_returns = self.has_returns or b"\r" in piece
            yield piece
        self.is_odd = bool(decoder.getstate()[0])


def _is_about_text(error: pymysql.Error) -> bool:
    # invalid character string; incorrect string value; data too long; rows of another width
    return bool(error.args) and error.args[0] in (1300, 1366, 1406, 1261, 1262, 1263, 1265)


def _after_header(stream: IO[bytes], path: Path, listed: Sequence[str]) -> str:
    """Read a file's header and leave the stream behind it; returns how its lines end. Raises DataError for other columns."""
    if stream.read(len(_BOM)) != _BOM:
        stream.seek(0)
    header = stream.readline()
    while header.count(b'"') % 2 and (more := stream.readline()):
        header += more
    found = next(csv.reader(io.StringIO(header.decode("utf-8", "replace"), newline="")), [])
    if found != list(listed):
        raise DataError(f"{path.name}: the header names {', '.join(found) or 'nothing'}; expected {', '.join(listed)}.", code="wrong-header")
    return "\r\n" if header.endswith(b"\r\n") else "\n"


def send(cursor: Any, pieces: Iterable[bytes], into: str, *, ending: str = "\n") -> int:
    """Bulk load CSV; `into` is "table ({dialect}) (columns) …". Returns the rows. The caller looks at the cursor's warnings."""
    dialect = "fields terminated by ',' optionally enclosed by '\"' escaped by '' lines terminated by " + literal(ending)
    table, _, columns = into.partition(" ({dialect}) ")
    cursor.connection.outgoing = pieces
    # the server is told a name because it must be told one; what it gets are the pieces
    return cursor.execute(f"load data local infile 'pieces' into table {table} character set utf8mb4 {dialect} {columns}")


def send_proven(cursor: Any, stream: IO[bytes], into: str) -> int:
    """Bulk load what we have written ourselves. Raises PermanentError when the server takes it otherwise."""
    rows = send(cursor, iter(lambda: stream.read(READ), b""), into)
    if cursor.warning_count:
        raise PermanentError(f"The warehouse changed a value: {cursor.connection.show_warnings()[0][2]}", code="warehouse-warning")
    return rows


def send_rows(cursor: Any, rows: Iterable[Sequence[Any]], into: str) -> int:
    """Bulk load rows of cells, written in the one way that leaves nothing to be misread. Raises PermanentError as `send_proven`."""
    with tempfile.TemporaryFile() as spool:
        _rows_to(spool).writerows(rows)
        spool.seek(0)
        return send_proven(cursor, spool, into)


class _Text:
    """A binary file that takes text, for the csv module."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(text.encode())


def _rows_to(stream: IO[bytes]) -> Any:
    # every cell between quotes: a bare NULL would be read as one, and a lone carriage return as an end
    return csv.writer(_Text(stream), quoting=csv.QUOTE_ALL, lineterminator="\n")
