"""A city's database as a source: the rows of exactly the days that are asked for, on each engine, streamed, and never past the outbound door."""

import csv
import sqlite3
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pymysql
import pytest
from django.db import connection as control

from pipelines.connectors import sql_engines
from pipelines.connectors.base import Account, Column, FetchRequest
from pipelines.connectors.database import Database, _type, kits
from pipelines.connectors.http import Door
from pipelines.errors import NeverCame, NotReady, PipelineError, SetupError, TransientError
from tests.mariadb import mariadb, mariadb_server  # noqa: F401

CHICAGO = "America/Chicago"
JUNE = {day: datetime(2019, 6, day, 5, tzinfo=UTC) for day in range(1, 10)}
AREA = {"area": "Austin"}

#: As atd-data-lake wrote it, to the line end (facts/datalake.md §7.2, /work/shared/data/sensors).
KITS_FILE = (
    b"detID,intID,curDateTime,intName,detName,volume,occupancy,speed,status,uploadSuccess,detCountComparison,dailyCumulative\r\n"
    b"2,1,2019-06-01 00:00:00,LAMARMANCHACA,NB_in,19,0,34,Working,100,1,19\r\n"
    b"1,1,2019-06-01 00:00:00,LAMARMANCHACA,NB_out,17,0,31,Working,100,0,17\r\n"
    b"3,1,2019-06-01 00:15:00,LAMARMANCHACA,SB_in,38,2,36,Working,100,1,38\r\n"
    b"9,77,2019-06-01 23:59:59,NOWHERE,NB_in,0,0,0,Working,100,1,0\r\n"
)
HISTORY = [
    (1, "2019-06-01 00:00:00", 17, 0, 31, "Working", 100, 0, 17),
    (2, "2019-06-01 00:00:00", 19, 0, 34, "Working", 100, 1, 19),
    (3, "2019-06-01 00:15:00", 38, 2, 36, "Working", 100, 1, 38),
    (9, "2019-06-01 23:59:59", 0, 0, 0, "Working", 100, 1, 0),
    (2, "2019-06-02 00:00:00", 21, 0, 34, "Working", 100, 1, 21),
    (2, "2019-05-31 23:45:00", 5, 0, 34, "Working", 100, 1, 900),
    (2, "2019-06-04 12:00:00", 5, 0, 34, "Working", 100, 1, 9),
]
DETECTORS = [(1, 1, "LAMARMANCHACA", "NB_out"), (2, 1, "LAMARMANCHACA", "NB_in"), (3, 1, "LAMARMANCHACA", "SB_in"), (9, 77, "NOWHERE", "NB_in")]
#: The same moments, by their clock and with their zone.
READINGS = [(1, "2019-06-01T04:59:59"), (2, "2019-06-01 05:00:00"), (3, "2019-06-02 04:59:59"), (4, "2019-06-02 05:00:00")]


class City:
    """One engine with KITS' tables, and a table `readings` of two columns: when_utc (an instant) and amount."""

    kits = "kits"
    instant = "when_utc"

    def __init__(self, address: str, user: str = "", password: str = "", allow: tuple[str, ...] = ("127.0.0.1", "localhost")):
        self.events: list[tuple[str, str]] = []
        self.door = Door(allow, on_event=lambda level, text: self.events.append((level, text)))
        self.account = Account("radar", address, {"user": user} if user else {}, {"password": password} if password else {}, CHICAGO)
        self.source = Database(self.account, self.door)

    def fill(self, run, schema: str = "") -> None:
        """Make the tables; `run` takes a statement and its values, written for SQLite."""
        dot = f"{schema}." if schema else ""
        run(
            f"create table {dot}SYSDETHISTORYRM (DETID integer, CURDATETIME {self.datetime}, VOLUME integer, OCCUPANCY integer, SPEED integer, "
            "STATUS varchar(20), UPLOADSUCCESS integer, DETCOUNTCOMPARISON integer, DAILYCUMULATIVE integer)"
        )
        run(f"create table {dot}DETECTORSRM (DETID integer, INTID integer, INTNAME varchar(40), DETNAME varchar(40))")
        run(f"create table {dot}readings (id integer primary key, {self.instant} {self.instant_type}, amount numeric(9,2), name varchar(40))")
        for row in HISTORY:
            run(f"insert into {dot}SYSDETHISTORYRM values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for row in DETECTORS:
            run(f"insert into {dot}DETECTORSRM values (?, ?, ?, ?)", row)
        for row in READINGS:
            run(f"insert into {dot}readings values (?, ?, 1.50, ?)", (*row, 'Ann "the" Fox'))

    datetime = "timestamp"
    instant_type = "timestamp"

    def fetch(self, resource: str, work: Path, request: FetchRequest, progress=lambda done, total: None):
        work.mkdir(exist_ok=True)
        return list(self.source.fetch(resource, request, rows=self.source.count(resource, request), workdir=work, progress=progress))


class Sqlite(City):
    def __init__(self, folder: Path):
        self.path = folder / "kits's 1%.db"
        super().__init__(f"sqlite:///{self.path}")
        with closing(sqlite3.connect(self.path)) as held, held:
            self.fill(held.execute)


class Postgres(City):
    kits = "kits:wt_city"
    instant_type = "timestamptz"

    def __init__(self):
        settings = control.settings_dict
        super().__init__(f"postgresql://{settings['HOST']}:{settings['PORT']}/{settings['NAME']}", settings["USER"], settings["PASSWORD"])
        self.settings = settings
        with closing(self.connect()) as held, held, held.cursor() as cursor:
            cursor.execute("set timezone = 'UTC'")
            cursor.execute("drop schema if exists wt_city cascade")
            cursor.execute("create schema wt_city")
            self.fill(lambda statement, values=(): cursor.execute(statement.replace("?", "%s"), values), "wt_city")

    def connect(self):
        names = {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER", "password": "PASSWORD"}
        return psycopg2.connect(**{name: self.settings[key] for name, key in names.items()})

    def close(self) -> None:
        with closing(self.connect()) as held, held, held.cursor() as cursor:
            cursor.execute("drop schema wt_city cascade")


class Mariadb(City):
    datetime = "datetime"

    def __init__(self, url: str):
        from urllib.parse import unquote

        parts = urlsplit(url)
        password = unquote(parts.password)
        super().__init__(f"mariadb://{parts.hostname}:{parts.port}{parts.path}", parts.username, password)
        held = pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username, password=password, database=parts.path[1:], autocommit=True)
        with closing(held), held.cursor() as cursor:
            cursor.execute("set time_zone = '+00:00'")
            self.fill(lambda statement, values=(): cursor.execute(statement.replace("?", "%s"), values))


@pytest.fixture
def sqlite(tmp_path):
    return Sqlite(tmp_path)


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.django_db(transaction=True)),
        pytest.param("mariadb", marks=pytest.mark.needs("mariadb")),
    ]
)
def city(request, tmp_path):
    """Each engine that can be had here, one after the other."""
    if request.param == "sqlite":
        yield Sqlite(tmp_path)
    elif request.param == "postgresql":
        made = Postgres()
        yield made
        made.close()
    else:
        yield Mariadb(request.getfixturevalue("mariadb"))


def day(first: int = 1, last: int | None = None, **more) -> FetchRequest:
    """The local days of June 2019 from `first` up to `last`, which is left out."""
    options = {"options": AREA, "window_column": "curdatetime", "time_zone": CHICAGO, **more}
    return FetchRequest(columns=(), starts_at=JUNE[first], ends_at=JUNE[last or first + 1], **options)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_day_of_kits_is_the_file_that_atd_data_lake_wrote_on_each_engine(city, tmp_path):
    [got] = city.fetch(city.kits, tmp_path / "work", day())
    assert got.path.read_bytes() == KITS_FILE
    assert (got.name, got.rows, got.bytes) == ("Austin_2019-06-01.csv", 4, len(KITS_FILE))
    told = {name: got.metadata[name] for name in ("base", "ext", "collection_date")}
    assert told == {"base": "Austin", "ext": "csv", "collection_date": "2019-06-01"}
    assert city.source.describe(city.kits).columns == ()


def test_the_listing_has_a_thing_a_day_that_has_rows_and_exactly_the_days_that_were_asked_for(city):
    everything = list(city.source.listing(city.kits, FetchRequest(columns=(), time_zone=CHICAGO, options=AREA)))
    assert [(one.label, one.rows) for one in everything] == [
        ("Austin_2019-05-31.csv", 1), ("Austin_2019-06-01.csv", 4), ("Austin_2019-06-02.csv", 1), ("Austin_2019-06-04.csv", 1),
    ]  # fmt: skip
    [only] = city.source.listing(city.kits, day(2))
    assert (only.base, only.ext, only.starts_at, only.ends_at) == ("Austin", "csv", JUNE[2], JUNE[3])
    assert only == everything[2]


def test_the_rows_of_a_day_by_the_citys_clock_come_from_a_table_of_instants(city, tmp_path):
    table = "wt_city.readings" if city.kits != "kits" else "readings"
    columns = (Column("id", "number"), Column("when_utc", "instant"), Column("amount", "number"), Column("name"))
    asked = FetchRequest(
        columns=columns, starts_at=JUNE[1], ends_at=JUNE[2], window_column="when_utc", time_zone=CHICAGO, order=("id",), options=AREA
    )
    [got] = city.fetch(table, tmp_path / "work", asked)
    assert [row[0] for row in rows_of(got.path)] == ["id", "2", "3"] and got.rows == 2
    assert rows_of(got.path)[1][3] == 'Ann "the" Fox'
    if city.kits != "kits" or "maria" in city.account.base_url:
        # SQLite has no instants: its texts are as they were written, and its days are UTC's
        assert rows_of(got.path)[1][1].startswith("2019-06-01T05:00:00Z")
        wide = FetchRequest(columns=(), window_column="when_utc", time_zone=CHICAGO, options=AREA)
        assert [(one.label[-14:-4], one.rows) for one in city.source.listing(table, wide)] == [
            ("2019-05-31", 1),
            ("2019-06-01", 2),
            ("2019-06-02", 1),
        ]


def test_a_query_is_read_as_a_table_is(city, tmp_path):
    dot = "wt_city." if city.kits != "kits" else ""
    query = f"select DETID as detector, VOLUME as volume, CURDATETIME as at, '10:30 %' as note from {dot}SYSDETHISTORYRM where STATUS = 'Working'"
    names = [column.name for column in city.source.describe(query).columns]
    assert names == ["detector", "volume", "at", "note"]
    asked = FetchRequest(
        columns=tuple(Column(name) for name in ("volume", "note")), starts_at=JUNE[1], ends_at=JUNE[2], window_column="at", time_zone=CHICAGO
    )
    [got] = city.fetch(query, tmp_path / "work", asked)
    assert rows_of(got.path)[0] == ["volume", "note"] and sorted(rows_of(got.path)[1:]) == [
        ["0", "10:30 %"],
        ["17", "10:30 %"],
        ["19", "10:30 %"],
        ["38", "10:30 %"],
    ]


def test_a_corrected_value_changes_the_fingerprint_of_its_day_and_of_no_other(sqlite, tmp_path):
    before = {one.label: one.fingerprint for one in sqlite.source.listing("kits", day(1, 9))}
    [got] = sqlite.fetch("kits", tmp_path / "work", day())
    assert got.metadata["fingerprint"] == before["Austin_2019-06-01.csv"]
    with closing(sqlite3.connect(sqlite.path)) as held, held:
        held.execute("update SYSDETHISTORYRM set SPEED = 35 where DETID = 3")
    after = {one.label: one.fingerprint for one in sqlite.source.listing("kits", day(1, 9))}
    assert [label for label in before if before[label] != after[label]] == ["Austin_2019-06-01.csv"]


@pytest.mark.parametrize(("hours", "kind"), [(2, NotReady), (71, NotReady), (73, NeverCame)])
def test_a_day_that_kits_has_not_is_waited_for_and_then_told(sqlite, tmp_path, hours, kind):
    with pytest.raises(PipelineError, match="has no row of Mon Jun 3 2019") as caught:
        sqlite.fetch("kits", tmp_path / "work", day(3, asked_at=JUNE[4] + timedelta(hours=hours)))
    assert type(caught.value) is kind


def test_a_table_without_rows_in_the_window_is_an_empty_file(sqlite, tmp_path):
    asked = FetchRequest(columns=(Column("id"),), starts_at=JUNE[8], ends_at=JUNE[9], window_column="when_utc", time_zone=CHICAGO)
    [got] = sqlite.fetch("readings", tmp_path / "work", asked)
    assert (got.rows, rows_of(got.path)) == (0, [["id"]])


def test_rows_since_a_moment_come_with_those_that_have_none(sqlite, tmp_path):
    with closing(sqlite3.connect(sqlite.path)) as held, held:
        held.execute("insert into readings (id) values (9)")
    asked = FetchRequest(columns=(Column("id"),), order=("id",), since_column="when_utc", since="2019-06-02 04:59:59")
    [got] = sqlite.fetch("readings", tmp_path / "work", asked)
    assert rows_of(got.path) == [["id"], ["3"], ["4"], ["9"]] and dict(got.metadata) == {}


def test_rows_are_streamed_and_never_held_as_a_whole(city, tmp_path):
    engine, work = city.account.base_url.partition(":")[0], tmp_path / "work"
    table = {
        "sqlite": "(with recursive n(value) as (select 1 union all select value + 1 from n where value < 4000) select value from n)",
        "postgresql": "generate_series(1, 4000) value",
        "mariadb": "(select seq as value from seq_1_to_4000) numbers",
    }[engine]
    words = "replace(hex(zeroblob(2000)), '0', '7')" if engine == "sqlite" else "repeat('7', 4000)"
    query = f"select {words} as words, value from {table}"
    fetching = []

    def progress(done, total):
        if engine == "postgresql" and done == 1_000:
            # libpq's memory is not Python's: the server says how it is asked
            with closing(city.connect()) as held, held, held.cursor() as cursor:
                cursor.execute("select count(*) from pg_stat_activity where application_name = 'opendata-ops' and query like 'FETCH FORWARD%'")
                fetching.append(cursor.fetchone()[0])

    city.source.describe(query)  # the driver is imported before anything is measured
    work.mkdir()
    asked = FetchRequest(columns=(Column("value"), Column("words")))
    tracemalloc.start()
    [got] = city.source.fetch(query, asked, rows=None, workdir=work, progress=progress)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got.rows == 4_000 and got.bytes > 16e6
    assert peak < 12e6
    assert fetching == ([1] if engine == "postgresql" else [])


# the city's own setup


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("gopher://x/y", "is no address of a database"),
        ("kits", "is no address of a database"),
        ("mssql://kits.example.gov", "must name a host and a database"),
        ("postgresql:///city", "must name a host and a database"),
        ("sqlite:///kits.db", "names no file by its whole path"),
        ("mssql://sa:secret@kits.example.gov/KITSDB", "holds a user name or a password before the @"),
        ("postgresql://db.example/city?host=10.0.0.1", "has options behind a"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_words(address, words):
    with pytest.raises(SetupError, match=words) as caught:
        City(address).source.test()
    assert caught.value.code == "bad-address" and caught.value.next_step and "secret" not in str(caught.value)


def test_the_whole_url_may_be_the_secret_and_is_never_shown():
    account = Account("radar", "mssql://kits", secrets={"url": "mssql+pymssql://reader:p%40ss@kits.example.gov/KITSDB"})
    place = sql_engines.place_of(account)
    assert (place.engine, place.host, place.port, place.database, place.user, place.password) == (
        "mssql", "kits.example.gov", 1433, "KITSDB", "reader", "p@ss",
    )  # fmt: skip
    assert "p@ss" not in f"{place} {place!r}"
    with pytest.raises(SetupError) as caught:
        sql_engines.place_of(Account("radar", "x", secrets={"url": "gopher://reader:hunter2@kits"}))
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "address", ["postgresql://127.0.0.1:{port}/x", "mysql://127.0.0.1:{port}/x", "mssql://127.0.0.1:{port}/x", "mssql://localhost:{port}/x"]
)
def test_no_driver_reaches_a_private_address_that_is_not_allowed(address):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        with pytest.raises(SetupError, match="address inside a private or reserved network") as caught:
            City(address.format(port=listener.getsockname()[1]), "reader", "secret", allow=()).source.test()
        assert caught.value.code == "address-refused" and "OUTBOUND_ALLOW" in caught.value.next_step
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_password_of_a_whole_url_is_masked_in_whatever_is_said_afterwards():
    door = Door(("127.0.0.1",))
    with pytest.raises(TransientError):
        Database(Account("radar", "x", secrets={"url": "mysql://reader:h1dden-word@127.0.0.1:1/x"}), door).test()
    assert "h1dden-word" not in door.redact("the server says: h1dden-word is wrong")


@pytest.mark.parametrize("engine", ["postgresql", "mysql", "mssql"])
def test_a_server_that_is_away_is_tried_later_and_the_password_is_not_told(engine):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError) as caught:
        City(f"{engine}://127.0.0.1:{port}/x", "reader", "h1dden-word").source.test()
    assert "h1dden-word" not in str(caught.value)


def test_a_host_that_is_not_a_neighbour_must_show_a_certificate(monkeypatch):
    """The password would travel readable by all; the driver is asked, so that nothing is sent."""
    asked = {}

    class Enough(Exception):
        pass

    def connect(**how):
        asked.update(how)
        raise Enough

    monkeypatch.setattr(sql_engines, "_reached", lambda place, door: "93.184.216.34")
    monkeypatch.setattr(Door, "dial", lambda self, host, port: None)
    for engine, driver in (("postgresql", psycopg2), ("mysql", pymysql), ("mssql", __import__("pymssql"))):
        monkeypatch.setattr(driver, "connect", connect)
        for allow, is_neighbour in (((), False), (("db.example",), True)):
            asked.clear()
            with pytest.raises(Enough):
                City(f"{engine}://db.example/x", "reader", "secret", allow=allow).source.test()
            strict = asked.get("sslmode") == "verify-full" or asked.get("ssl_verify_identity") is True or asked.get("encryption") == "require"
            assert strict is not is_neighbour
            if engine != "mysql":
                assert "93.184.216.34" in (asked.get("hostaddr"), asked.get("server"))


def test_a_wrong_password_is_a_matter_of_setup_and_the_right_one_is_taken(city):
    assert "takes the log-in as" in city.source.test()
    if city.account.secrets:
        wrong = City(city.account.base_url, city.account.parameters["user"], "wr0ng-word")
        with pytest.raises(SetupError) as caught:
            wrong.source.test()
        assert caught.value.code == "credentials-refused" and "wr0ng-word" not in caught.value.message


def test_what_the_database_does_not_have_is_told_in_words(city):
    for resource, code in {
        "nowhere": "no-such-table",
        "select * from nowhere": "query-refused",
        "select nope from readings where": "query-refused",
        "select 1; drop table readings": "bad-resource",
        "delete from readings": "no-such-table",
        "a.b.c.d": "bad-resource",
        "kits:a b": "bad-resource",
    }.items():
        with pytest.raises(SetupError) as caught:
            city.source.count(resource, FetchRequest(columns=()))
        assert (resource, caught.value.code) == (resource, code) and caught.value.next_step


def test_nothing_is_written_whatever_the_query_says(city):
    """The server refuses, and the row is still there afterwards."""
    table = "wt_city.readings" if city.kits != "kits" else "readings"
    with pytest.raises(PipelineError), city.source._connected() as held:
        from sqlalchemy import text

        held.execute(text(f"delete from {table}"))
        held.commit()
    assert city.source.count(table, FetchRequest(columns=())) == 4


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(SetupError) as caught:
        City(f"sqlite:///{tmp_path}/none.db").source.test()
    assert caught.value.code == "no-database" and not (tmp_path / "none.db").exists()


def test_a_column_that_is_not_there_is_named(sqlite):
    with pytest.raises(SetupError, match="has no column nope; it has id, when_utc, amount, name"):
        sqlite.source.count("readings", FetchRequest(columns=(), window_column="nope", starts_at=JUNE[1], ends_at=JUNE[2]))


# MS SQL Server, of which there is none here: what it would be asked


def asked_of_mssql(build, **request) -> str:
    source = City("mssql://kits.example.gov/KITSDB").source
    statement = build(source, FetchRequest(columns=(), starts_at=JUNE[1], ends_at=JUNE[2], time_zone=CHICAGO, **request))
    dialect = sql_engines.dialect_of("mssql")
    dialect.server_version_info = (15, 0)  # what it learns when it connects: before 2008 there was no DATE
    return " ".join(str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).split())


def test_kits_is_asked_for_as_atd_data_lake_asked_for_it():
    assert asked_of_mssql(lambda source, request: source.reading(kits("KITS"), request)) == (
        "SELECT a.DETID AS [detID], b.INTID AS [intID], a.CURDATETIME AS [curDateTime], b.INTNAME AS [intName], b.DETNAME AS [detName], "
        "a.VOLUME AS volume, a.OCCUPANCY AS occupancy, a.SPEED AS speed, a.STATUS AS status, a.UPLOADSUCCESS AS [uploadSuccess], "
        "a.DETCOUNTCOMPARISON AS [detCountComparison], a.DAILYCUMULATIVE AS [dailyCumulative] "
        "FROM [KITS].SYSDETHISTORYRM AS a JOIN [KITS].DETECTORSRM AS b ON a.DETID = b.DETID "
        "WHERE a.CURDATETIME >= '2019-06-01 00:00:00' AND a.CURDATETIME < '2019-06-02 00:00:00' "
        "ORDER BY a.CURDATETIME, b.INTNAME, b.DETNAME, a.DETID"
    )


def test_days_of_mssql_are_counted_by_their_date_and_an_instant_with_its_offset():
    days = asked_of_mssql(lambda source, request: source.counting_days(kits("KITS"), request))
    assert "CAST(a.CURDATETIME AS DATE) AS day, count(*) AS rows" in days and "GROUP BY CAST(a.CURDATETIME AS DATE)" in days

    def instants(source, request):
        columns = [type("Held", (), {"name": "at", "type": "instant", "is_exact": False})]
        return source.counting(source._table_or_query(columns, "dbo.crashes", request), request)

    told = asked_of_mssql(instants, window_column="at")
    assert "FROM dbo.crashes" in told and "dbo.crashes.at >= CAST('2019-06-01 05:00:00+00:00' AS DATETIMEOFFSET)" in told


def test_types_of_each_engine_are_known():
    from sqlalchemy.dialects import mssql, mysql, postgresql

    known = {
        mssql.BIT(): ("boolean", False), mssql.MONEY(): ("number", True), mssql.DATETIMEOFFSET(): ("instant", False), mssql.REAL(): ("number", False),
        mssql.DATETIME2(): ("local_time", False), mysql.TIMESTAMP(): ("instant", False), mysql.DATETIME(): ("local_time", False),
        mysql.DECIMAL(9, 2): ("number", True), mysql.DOUBLE(): ("number", False), postgresql.TIMESTAMP(timezone=True): ("instant", False),
        postgresql.TIMESTAMP(): ("local_time", False), postgresql.JSONB(): ("json", False), postgresql.UUID(): ("text", False),
    }  # fmt: skip
    assert {repr(kind): _type(kind) for kind in known} == {repr(kind): expected for kind, expected in known.items()}
