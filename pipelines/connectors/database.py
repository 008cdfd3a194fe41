"""A database of the city as a source: a table, a view or a query, by the day; and KITS, the detectors' history behind the radar counts."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zoneinfo import ZoneInfo

from pipelines.connectors import sql_engines
from pipelines.connectors.base import Column, Connector, FetchedFile, FetchRequest, Listed, Parameter, Progress, SourceState
from pipelines.connectors.csv_dialects import writer
from pipelines.connectors.dated_files import absent, area_of, late_days_of, local_days
from pipelines.connectors.sql_engines import MSSQL, POSTGRESQL, SQLITE, Place, connected, place_of
from pipelines.errors import SetupError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause, Select

#: Rows that are held at once.
CHUNK = 1_000

# (what the file calls it, where KITS has it): facts/datalake.md §7.2
_KITS = (
    ("detID", "DETID"), ("intID", "INTID"), ("curDateTime", "CURDATETIME"), ("intName", "INTNAME"), ("detName", "DETNAME"), ("volume", "VOLUME"),
    ("occupancy", "OCCUPANCY"), ("speed", "SPEED"), ("status", "STATUS"), ("uploadSuccess", "UPLOADSUCCESS"),
    ("detCountComparison", "DETCOUNTCOMPARISON"), ("dailyCumulative", "DAILYCUMULATIVE"),
)  # fmt: skip
_OF_DETECTORS = frozenset({"INTID", "INTNAME", "DETNAME"})
#: The numbers whose sums tell that a day was corrected.
_KITS_SUMS = ("VOLUME", "OCCUPANCY", "SPEED")


# values as a file has them


def _cell(value: Any) -> Any:
    """A value as a file has it: times in ISO, instants in UTC with a Z, numbers in full."""
    match value:
        case bool():
            return "true" if value else "false"
        case None | str() | int():
            return value
        case datetime():
            return _instant(value) if value.tzinfo else value.isoformat()
        case date():
            return f"{value.isoformat()}T00:00:00"
        case Decimal():
            return f"{value:f}"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
        case bytes() | memoryview() | bytearray():
            return bytes(value).hex()
    return str(value)


def _kits_cell(value: Any) -> Any:
    return value.isoformat(sep=" ") if isinstance(value, datetime) else _cell(value)


def _instant(value: Any) -> Any:
    """A moment in UTC; one without a zone is UTC already. SQLite's texts stay as they are."""
    if not isinstance(value, datetime):
        return _cell(value)
    return f"{(value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat()}Z"


# what is read


@dataclass(frozen=True)
class Wanted:
    """What is read, as SQL: `columns` by the names that the file gives them; the `moment` of a row, of a `kind` (local_time or instant).

    `sums` are whole or exact numbers that are summed up to tell one state of a day from another; `order` where the file has one.
    `instants` are the columns whose times are of a moment, whether or not the driver gives them a zone: it is then UTC. `cell` and
    `writer` are how values and rows are written.
    """

    source: FromClause
    columns: Mapping[str, ColumnElement]
    moment: ColumnElement | None
    kind: str = "local_time"
    sums: Sequence[ColumnElement] = ()
    instants: frozenset[str] = frozenset()
    order: Sequence[ColumnElement] = ()
    cell: Callable[[Any], Any] = _cell
    writer: Callable[[TextIO], Any] = writer


@dataclass(frozen=True)
class _Held:
    """A column as the database has it, with our type; `is_exact`: a number whose sum is the same in any order."""

    name: str
    type: str
    is_exact: bool


class Database(Connector):
    """A database by SQL. The address is `engine://host:port/database`, of SQLite `sqlite:////whole/path`.

    The resource is a table or view (`schema.table`), a whole query (`select …`), or `kits`, which is `kits:KITS` where the schema
    has another name. Rows of a window are those whose window column lies in it: a column without a zone has the city's wall time.
    """

    kind = "database"
    label = "Database (PostgreSQL, MySQL, MS SQL Server, SQLite)"
    can_fetch = True
    can_list = True
    address_hint = sql_engines.EXAMPLE
    parameters = (
        Parameter("user", "User", help="One that may read and nothing else."),
        Parameter("password", "Password", secret=True),
        Parameter("url", "Whole URL", secret=True, help="Instead of address, user and password: mssql://user:password@host:1433/database"),
        Parameter(
            "tls",
            "Encryption",
            default="auto",
            help="auto: certificates are checked, and of hosts in OUTBOUND_ALLOW taken as they are. verify: always checked. "
            "require: encrypted, certificate not checked. MS SQL Server's driver encrypts and can't check.",
        ),
        Parameter("timeout", "Time-out (s)", default="600", help="For one statement."),
    )

    # the verbs of a source

    def test(self) -> str:
        from sqlalchemy import inspect

        place = self._place
        with self._connected() as connection:
            held = len(inspect(connection).get_table_names())
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
        return f"{place} takes the log-in as {sql_engines.TITLES[place.engine]} {version}; its usual schema has {held:,} table{'s' * (held != 1)}"

    def describe(self, resource: str) -> SourceState:
        """The columns of a table or query; none of KITS, which gives a raw file for the standardize stage."""
        if self._kits_schema(resource) is not None:
            return SourceState(title=f"Detector counts of KITS in {self._place}", columns=())
        with self._connected() as connection:
            columns = [Column(one.name, one.type) for one in self._columns(connection, resource)]
        return SourceState(title=resource if not _is_query(resource) else f"A query of {self._place}", columns=tuple(columns))

    def count(self, resource: str, request: FetchRequest) -> int:
        with self._connected() as connection:
            return connection.execute(self.counting(self._wanted(connection, resource, request), request)).scalar_one()

    def listing(self, resource: str, request: FetchRequest) -> Iterator[Listed]:
        """A thing a local day that has rows. The fingerprint is of their number and of the sums of their whole and exact numbers."""
        with self._connected() as connection:
            yield from self._days(connection, self._wanted(connection, resource, request), resource, request)

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield the rows as one CSV file, streamed from the server. Of KITS, a day without rows is not there yet, or never came."""
        is_kits = self._kits_schema(resource) is not None
        if is_kits and (request.starts_at is None or request.ends_at is None):
            raise self._no_window("KITS is read by the day, and no day is asked for")
        about: dict[str, Any] = {}
        with self._connected() as connection:
            wanted = self._wanted(connection, resource, request)
            if wanted.moment is not None and request.starts_at is not None:
                # asked before the rows are read: what changes meanwhile makes another fingerprint the next time
                days = list(self._days(connection, wanted, resource, request))
                if is_kits:
                    self._notice_absent(days, request)
                about = self._about(days, resource, request)
            path = workdir / about.get("origin_filename", "rows.csv")
            seen, digest = self._write(connection, wanted, request, path, progress, rows)
        yield FetchedFile(path.name, path, seen, path.stat().st_size, digest, self.door.redact(f"{self._place}: {resource}")[:2000], about)

    def _notice_absent(self, days: Sequence[Listed], request: FetchRequest) -> None:
        """Wait for the days that KITS has not yet, or tell of them: detectors that count give rows each day. Raises NotReady, NeverCame."""
        zone = ZoneInfo(request.time_zone)
        have = {one.starts_at.astimezone(zone).date() for one in days}
        lacks = [day for day in local_days(request) if day not in have]
        self.missing = []
        if lacks or not days:
            self.missing = absent(str(self._place), "row", lacks, request, late_days_of(request.options, self.account), is_all=not days)

    def _about(self, days: Sequence[Listed], resource: str, request: FetchRequest) -> dict[str, Any]:
        """What the catalog tells the file of these days by."""
        base, day = self._base(resource, request), request.starts_at.astimezone(ZoneInfo(request.time_zone)).date()
        marks = [one.fingerprint for one in days]
        return {
            "base": base,
            "ext": "csv",
            "collection_date": f"{day}",
            "origin_filename": f"{base}_{day}.csv",
            "fingerprint": marks[0] if len(marks) == 1 else _mark("\n".join(marks)),
        }

    def _write(
        self, connection: Connection, wanted: Wanted, request: FetchRequest, path: Path, progress: Progress, rows: int | None
    ) -> tuple[int, str]:
        """Write the rows to a CSV file, chunk by chunk; returns (how many, its sha256)."""
        seen = 0
        answer = connection.execution_options(stream_results=True, max_row_buffer=CHUNK).execute(self.reading(wanted, request))
        as_cell = [_instant if name in wanted.instants else wanted.cell for name in wanted.columns]
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            made = wanted.writer(file)
            made.writerow(wanted.columns)
            for chunk in answer.partitions(CHUNK):
                made.writerows([cell(value) for cell, value in zip(as_cell, row, strict=True)] for row in chunk)
                seen += len(chunk)
                progress(seen, rows)
        with path.open("rb") as file:
            return seen, hashlib.file_digest(file, "sha256").hexdigest()

    # where it is

    @property
    def _place(self) -> Place:
        return place_of(self.account)

    def _connected(self) -> Any:
        told = str(self.account.parameters.get("timeout") or "600").strip()
        if not told.isdigit() or not int(told):
            raise SetupError(
                f"the time-out of provider {self.account.slug} is {told!r}, which is no number of seconds",
                code="bad-parameter",
                next_step="Write a whole number there.",
            )
        return connected(self._place, self.door, self.account.slug, timeout=float(told))

    def _base(self, resource: str, request: FetchRequest) -> str:
        return area_of(request.options, self.account) or ("rows" if _is_query(resource) else resource.rpartition(".")[2])

    def _no_window(self, what: str) -> SetupError:
        return SetupError(what, code="no-window", next_step="Set the window column of the pipeline.")

    # what is read

    def _wanted(self, connection: Connection, resource: str, request: FetchRequest) -> Wanted:
        """What the resource is, as SQL. Raises SetupError."""
        schema = self._kits_schema(resource)
        if schema is not None:
            return kits(schema if connection.dialect.name in (POSTGRESQL, MSSQL) else "")
        return self._table_or_query(self._columns(connection, resource), resource, request)

    def _table_or_query(self, columns: Sequence[_Held], resource: str, request: FetchRequest) -> Wanted:
        from sqlalchemy import column, table, text

        if _is_query(resource):
            source = text(_query_of(resource)).columns(*(column(one.name) for one in columns)).subquery("asked")
        else:
            schema, name = self._table_of(resource)
            source = table(name, *(column(one.name) for one in columns), schema=schema)
        types = {one.name: one.type for one in columns}
        # a steward may know better what a column of a query is
        types |= {one.name: one.type for one in request.columns}
        if missing := [name for name in (request.window_column, request.since_column, *request.order) if name and name not in types]:
            raise SetupError(
                f"{resource} has no column {missing[0]}; it has {', '.join(types)}",
                code="columns-gone",
                next_step="Change the pipeline's window column, watermark column or key.",
            )
        names = [one.name for one in request.columns] or list(types)
        return Wanted(
            source=source,
            columns={name: source.c[name] for name in names},
            moment=source.c[request.window_column] if request.window_column else None,
            kind="instant" if types.get(request.window_column) == "instant" else "local_time",
            instants=frozenset(name for name in names if types[name] == "instant"),
            sums=[source.c[one.name] for one in columns if one.is_exact],
            order=[source.c[name] for name in dict.fromkeys((*filter(None, [request.window_column]), *request.order))],
        )

    def _kits_schema(self, resource: str) -> str | None:
        """The schema of KITS' tables; None of a resource that is not KITS."""
        name, colon, schema = resource.strip().partition(":")
        if name.lower() != "kits":
            return None
        if colon and schema and not re.fullmatch(r"[\w$]+(\.[\w$]+)?", schema):
            raise self._bad_resource(resource)
        return schema if colon else "KITS"

    def _table_of(self, resource: str) -> tuple[str | None, str]:
        if not re.fullmatch(r"[\w$ -]+(\.[\w$ -]+){0,2}", resource.strip()):
            raise self._bad_resource(resource)
        schema, _, name = resource.strip().rpartition(".")
        return schema or None, name

    def _bad_resource(self, resource: str) -> SetupError:
        return SetupError(
            f"{resource!r} is neither a table nor a query nor kits",
            code="bad-resource",
            next_step="Write a table like schema.table, a query that begins with select and has no semicolon, or kits.",
        )

    def _columns(self, connection: Connection, resource: str) -> list[_Held]:
        """The columns with our types; of a query all are text. Raises SetupError."""
        from sqlalchemy import exc, inspect, text

        if _is_query(resource):
            if ";" in resource:
                raise self._bad_resource(resource)
            # no row: only what the columns are called; their types are the steward's to tell
            answer = connection.execute(text(f"select * from ({_query_of(resource)}) asked where 1 = 0"))  # noqa: S608  the steward's own query
            return [_Held(name, "text", False) for name in answer.keys()]  # noqa: SIM118  a result is no mapping
        schema, name = self._table_of(resource)
        try:
            found = inspect(connection).get_columns(name, schema=schema)
        except exc.NoSuchTableError:
            raise SetupError(
                f"{self._place} has no table {resource}, or its user may not see it",
                code="no-such-table",
                next_step="Check the pipeline's resource, with its schema, and what the user may read.",
            ) from None
        return [_Held(one["name"], *_type(one["type"])) for one in found]

    # statements: built for an engine's name, so that one that is not here can be looked at

    def counting(self, wanted: Wanted, request: FetchRequest) -> Select:
        from sqlalchemy import func, select

        return select(func.count()).select_from(wanted.source).where(*self._where(wanted, request))

    def reading(self, wanted: Wanted, request: FetchRequest) -> Select:
        from sqlalchemy import select

        columns = [column.label(name) for name, column in wanted.columns.items()]
        return select(*columns).select_from(wanted.source).where(*self._where(wanted, request)).order_by(*wanted.order)

    def counting_days(self, wanted: Wanted, request: FetchRequest) -> Select:
        """(day, rows, sums …) by the day of the moment: its own of a column without a zone, else the city's in PostgreSQL and UTC's elsewhere."""
        from sqlalchemy import Date, Numeric, cast, func, select

        engine, moment = self._place.engine, wanted.moment
        if engine == SQLITE:
            day = func.date(moment)
        elif engine == POSTGRESQL and wanted.kind == "instant":
            day = cast(func.timezone(request.time_zone, moment), Date)
        else:
            day = cast(moment, Date)
        # the sum of small numbers may be too large for their own type
        is_roomy = engine in (POSTGRESQL, SQLITE)
        sums = [func.sum(column if is_roomy else cast(column, Numeric(38, 6))) for column in wanted.sums]
        asked = select(day.label("day"), func.count().label("rows"), *sums).select_from(wanted.source)
        return asked.where(moment.is_not(None), *self._where(wanted, request)).group_by(day).order_by(day)

    def _where(self, wanted: Wanted, request: FetchRequest) -> list[ColumnElement]:
        conditions = []
        if wanted.moment is not None:
            if request.starts_at is not None:
                conditions.append(self._comparable(wanted) >= self._bound(wanted.kind, request.starts_at, request.time_zone))
            if request.ends_at is not None:
                conditions.append(self._comparable(wanted) < self._bound(wanted.kind, request.ends_at, request.time_zone))
        if request.since_column:
            from sqlalchemy import or_

            column = wanted.source.c[request.since_column]
            conditions.append(or_(column >= request.since, column.is_(None)))
        return conditions

    def _comparable(self, wanted: Wanted) -> ColumnElement:
        """SQLite keeps times as texts of several forms: read as times, they compare as such."""
        from sqlalchemy import func

        return func.datetime(wanted.moment) if self._place.engine == SQLITE else wanted.moment

    def _bound(self, kind: str, moment: datetime, time_zone: str) -> Any:
        from sqlalchemy import DateTime, cast, literal
        from sqlalchemy.dialects.mssql import DATETIMEOFFSET

        engine = self._place.engine
        if kind == "instant":
            moment = moment.astimezone(UTC)
            if engine == POSTGRESQL:
                return literal(moment, DateTime(timezone=True))
            if engine == MSSQL:
                return cast(literal(moment.isoformat(sep=" ")), DATETIMEOFFSET)
        else:
            moment = moment.astimezone(ZoneInfo(time_zone))
        wall = moment.replace(tzinfo=None)
        return literal(f"{wall:%Y-%m-%d %H:%M:%S}") if engine == SQLITE else literal(wall, DateTime())

    # the days that there are

    def _days(self, connection: Connection, wanted: Wanted, resource: str, request: FetchRequest) -> Iterator[Listed]:
        if wanted.moment is None:
            raise self._no_window(f"{resource} has no window column, so nobody knows its days")
        base, zone = self._base(resource, request), ZoneInfo(request.time_zone)
        for day, rows, *sums in self._day_counts(connection, wanted, request):
            starts_at, ends_at = (datetime.combine(one, datetime.min.time(), zone).astimezone(UTC) for one in (day, day + timedelta(days=1)))
            mark = "/".join([str(rows), *("" if one is None else f"{Decimal(str(one)).normalize():f}" for one in sums)])
            yield Listed(base, "csv", starts_at, ends_at, f"{base}_{day}.csv", _mark(mark), rows)

    def _day_counts(self, connection: Connection, wanted: Wanted, request: FetchRequest) -> Iterator[tuple]:
        found = [(_day(one[0]), *one[1:]) for one in connection.execute(self.counting_days(wanted, request))]
        if wanted.kind == "local_time" or self._place.engine == POSTGRESQL:
            yield from found
            return
        # the server can't be trusted to know the city's clock: each local day that may have some of these rows is asked for
        zone = ZoneInfo(request.time_zone)
        for day in sorted({day + timedelta(days=step) for day, *_ in found for step in (-1, 0, 1)}):
            bounds = [datetime.combine(one, datetime.min.time(), zone).astimezone(UTC) for one in (day, day + timedelta(days=1))]
            starts_at = max(filter(None, (bounds[0], request.starts_at)))
            ends_at = min(filter(None, (bounds[1], request.ends_at)))
            if starts_at < ends_at:
                one_day = FetchRequest(columns=(), starts_at=starts_at, ends_at=ends_at, time_zone=request.time_zone)
                counts = [one[1:] for one in connection.execute(self.counting_days(wanted, one_day))]
                if counts:
                    yield day, *(sum(filter(None, one)) for one in zip(*counts, strict=True))


def kits(schema: str) -> Wanted:
    """Austin's detectors: the history of counts with the detectors' names, in the order of atd-data-lake."""
    from sqlalchemy import column, quoted_name, table

    def held(name: str, columns: set[str]) -> Any:
        # unquoted, as atd-data-lake asked for them: each server folds the names as it does
        names = [column(quoted_name(one, quote=False)) for one in sorted(columns)]
        return table(quoted_name(name, quote=False), *names, schema=quoted_name(schema, quote=False) if schema else None)

    own = {place for _, place in _KITS}
    history = held("SYSDETHISTORYRM", own - _OF_DETECTORS).alias("a")
    detectors = held("DETECTORSRM", {"DETID", *_OF_DETECTORS}).alias("b")
    of = {place: (detectors if place in _OF_DETECTORS else history).c[place] for place in own}
    return Wanted(
        source=history.join(detectors, history.c.DETID == detectors.c.DETID),
        columns={name: of[place] for name, place in _KITS},
        moment=of["CURDATETIME"],
        sums=[of[name] for name in _KITS_SUMS],
        # the file is to be written as atd-data-lake wrote it, to the line end
        cell=_kits_cell,
        writer=csv.writer,
        # by the detector's number last: two lanes may share a name
        order=[of[name] for name in ("CURDATETIME", "INTNAME", "DETNAME", "DETID")],
    )


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_query(resource: str) -> bool:
    return bool(re.match(r"(?i)\s*select\s", resource))


def _query_of(resource: str) -> str:
    # a colon would be taken for a parameter
    return resource.strip().replace(":", "\\:")


def _day(value: Any) -> date:
    return value if type(value) is date else date.fromisoformat(str(value)[:10])


def _type(kind: Any) -> tuple[str, bool]:
    """Our type of a column's SQL type, and whether it is a whole or exact number."""
    from sqlalchemy import types
    from sqlalchemy.dialects.mssql import DATETIMEOFFSET, MONEY, SMALLMONEY
    from sqlalchemy.dialects.mysql import TIMESTAMP

    if isinstance(kind, types.Boolean):
        return "boolean", False
    if isinstance(kind, types.Integer | types.Numeric | types.Float | MONEY | SMALLMONEY):
        return "number", not isinstance(kind, types.Float)
    # MySQL keeps a TIMESTAMP in UTC, and gives it so to a session of that zone
    if isinstance(kind, DATETIMEOFFSET | TIMESTAMP) or (isinstance(kind, types.DateTime) and getattr(kind, "timezone", False)):
        return "instant", False
    if isinstance(kind, types.DateTime | types.Date):
        return "local_time", False
    return ("json" if isinstance(kind, types.JSON) else "text"), False
