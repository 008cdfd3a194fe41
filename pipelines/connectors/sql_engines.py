"""How a city's databases are reached: five engines by one address, never past the outbound door, and what goes wrong in plain words.

Every connection is told to read only, where its engine knows what that is; give a user that may do no more. A driver dials only the
address that the door reached. Certificates are checked, but of a neighbour that the allow-list names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import certifi

from pipelines.connectors.base import Account
from pipelines.connectors.http import Door
from pipelines.errors import PipelineError, SetupError, TransientError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect

POSTGRESQL, MYSQL, MSSQL, SQLITE = "postgresql", "mysql", "mssql", "sqlite"
#: What people write before the :// → the engine.
NAMES = {
    "postgresql": POSTGRESQL, "postgres": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL, "mssql": MSSQL, "sqlserver": MSSQL, "sqlite": SQLITE,
}  # fmt: skip
_DRIVERS = {POSTGRESQL: "postgresql+psycopg2", MYSQL: "mysql+pymysql", MSSQL: "mssql+pymssql", SQLITE: "sqlite+pysqlite"}
_PORTS = {POSTGRESQL: 5432, MYSQL: 3306, MSSQL: 1433, SQLITE: 0}
TITLES = {POSTGRESQL: "PostgreSQL", MYSQL: "MySQL or MariaDB", MSSQL: "MS SQL Server", SQLITE: "SQLite"}
TLS = ("auto", "verify", "require")
EXAMPLE = "mssql://kits.example.gov:1433/KITSDB"

#: Numbers that servers give to what a person must set right.
_REFUSED_LOGIN = {MYSQL: {1044, 1045, 1698, 3118}, MSSQL: {18456, 18452, 18470}}
_NO_DATABASE = {MYSQL: {1049}, MSSQL: {4060, 911}}
_REFUSED_QUERY = {MYSQL: {1054, 1064, 1109, 1142, 1143, 1146, 1370}, MSSQL: {102, 156, 207, 208, 229, 230, 4104, 8114, 241}}
_SQLITE_FILE = re.compile(r"unable to open database file|file is not a database|not authorized")
_SQLITE_QUERY = re.compile(r"no such (table|column|function)|syntax error|ambiguous column")


@dataclass(frozen=True)
class Place:
    """Where a database is and who asks: all of a URL, in its parts. Of SQLite `database` is the file's whole path."""

    engine: str
    host: str
    port: int
    database: str
    user: str
    password: str
    tls: str

    def __str__(self):
        return self.database if self.engine == SQLITE else f"{self.database} on {self.host}:{self.port}"

    def __repr__(self):
        return f"<Place {self}>"


def place_of(account: Account) -> Place:
    """The parts of the provider's address, or of the whole URL among its secrets. Raises SetupError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    whole = account.secrets.get("url", "").strip()
    try:
        url = make_url(whole or account.base_url.strip())
        engine = NAMES.get(url.drivername.partition("+")[0].lower())
    except (ArgumentError, ValueError):
        engine = None
    if engine is None:
        raise _bad_address(account, f"is no address of a database: {', '.join(sorted(set(NAMES)))} can be read", whole)
    if url.query:
        raise _bad_address(account, "has options behind a ?, which are not read here", whole)
    if not whole and (url.username or url.password):
        raise SetupError(
            f"the address of provider {account.slug} holds a user name or a password before the @",
            code="bad-address",
            next_step=f"Take them out of the address of provider {account.slug}, and enter them in their own fields.",
        )
    database = url.database or ""
    if engine == SQLITE and not Path(database).is_absolute():
        raise _bad_address(account, "names no file by its whole path, as sqlite:////srv/data/counts.db does", whole)
    if engine != SQLITE and not (url.host and database) or (url.host or "").startswith("/"):
        raise _bad_address(account, "must name a host and a database", whole)
    tls = (account.parameters.get("tls") or "auto").strip().lower()
    if tls not in TLS:
        raise SetupError(
            f"the encryption of provider {account.slug} is {tls!r}, which there is not",
            code="bad-parameter",
            next_step=f"Write {' or '.join(TLS)} there.",
        )
    return Place(
        engine=engine,
        host=url.host or "",
        port=url.port or _PORTS[engine],
        database=database,
        user=(url.username if whole else "") or account.parameters.get("user", "").strip(),
        password=(url.password if whole else "") or account.secrets.get("password", ""),
        tls=tls,
    )


def _bad_address(account: Account, what: str, whole: str) -> SetupError:
    # the secret URL may hold a password: it is never shown
    shown = "the whole URL among the secrets" if whole else f"the address {account.base_url!r}"
    return SetupError(
        f"{shown} of provider {account.slug} {what}",
        code="bad-address",
        next_step=f"Write it like {EXAMPLE}, and user and password in their own fields.",
    )


def dialect_of(engine: str) -> Dialect:
    """How the engine writes SQL."""
    from sqlalchemy.engine import make_url

    return make_url(f"{_DRIVERS[engine]}://").get_dialect()()


@contextmanager
def connected(place: Place, door: Door, slug: str, *, timeout: float) -> Iterator[Connection]:
    """A connection that reads, in one transaction, rolled back at its end. `timeout`: seconds for one statement.

    Errors of the server come out as PipelineError, in its words and without secrets.
    """
    from sqlalchemy import create_engine, exc
    from sqlalchemy.pool import NullPool

    door.redact.learn(place.password)
    open_one = {POSTGRESQL: _postgresql, MYSQL: _mysql, MSSQL: _mssql, SQLITE: _sqlite}[place.engine]
    engine = create_engine(f"{_DRIVERS[place.engine]}://", creator=lambda: open_one(place, door, timeout), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except exc.DBAPIError as error:
        # "from None": the text of these errors holds the statement and its values
        raise told(error.orig, place, door, slug) from None
    finally:
        engine.dispose()


# one engine after the other


def _reached(place: Place, door: Door) -> str:
    """The address at which the host answered, for a driver that dials for itself."""
    with door.dial(place.host, place.port) as sock:
        return sock.getpeername()[0]


def _is_neighbour(place: Place, door: Door) -> bool:
    return place.tls == "auto" and door.names(place.host, place.port)


def _postgresql(place: Place, door: Door, timeout: float) -> Any:
    import psycopg2

    tls = {"sslmode": "verify-full", "sslrootcert": certifi.where()}
    if place.tls == "require" or _is_neighbour(place, door):
        tls = {"sslmode": "require" if place.tls == "require" else "prefer"}
    connection = psycopg2.connect(
        host=place.host, hostaddr=_reached(place, door), port=place.port, dbname=place.database, user=place.user, password=place.password,
        connect_timeout=int(door.connect_timeout), application_name="opendata-ops", gssencmode="disable",
        keepalives=1, keepalives_idle=30, keepalives_interval=10, keepalives_count=3, **tls,
    )  # fmt: skip
    connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
    with connection.cursor() as cursor:
        cursor.execute("set statement_timeout = %s", [int(timeout * 1000)])
        cursor.execute("set timezone = 'UTC'")
    connection.commit()
    return connection


def _mysql(place: Place, door: Door, timeout: float) -> Any:
    import pymysql

    if place.tls == "require":
        tls: dict[str, Any] = {"ssl": {"check_hostname": False, "verify_mode": "none"}}
    elif _is_neighbour(place, door):
        tls = {}  # encrypted where the server can
    else:
        tls = {"ssl_ca": certifi.where(), "ssl_verify_cert": True, "ssl_verify_identity": True}
    connection = pymysql.connect(
        host=place.host, port=place.port, user=place.user, password=place.password, database=place.database, charset="utf8mb4",
        read_timeout=timeout, write_timeout=timeout, defer_connect=True, local_infile=False, program_name="opendata-ops",
        init_command="set time_zone = '+00:00'", **tls,
    )  # fmt: skip
    connection.connect(door.dial(place.host, place.port))
    with connection.cursor() as cursor:
        cursor.execute("set session transaction read only")
    return connection


def _mssql(place: Place, door: Door, timeout: float) -> Any:
    import pymssql

    # its driver encrypts, and can't check certificates
    tls = {} if _is_neighbour(place, door) else {"encryption": "require"}
    return pymssql.connect(
        server=_reached(place, door), port=str(place.port), user=place.user, password=place.password, database=place.database,
        login_timeout=int(door.connect_timeout), timeout=int(timeout), appname="opendata-ops", read_only=True, arraysize=1000, **tls,
    )  # fmt: skip


def _sqlite(place: Place, door: Door, timeout: float) -> Any:
    import sqlite3

    return sqlite3.connect(f"file:{quote(place.database)}?mode=ro", uri=True, timeout=timeout)


# what goes wrong


def told(error: Any, place: Place, door: Door, slug: str) -> PipelineError:
    """What a driver's error means: the error to raise, with nothing secret in it."""
    if isinstance(error, PipelineError):
        return error
    words = door.redact(_words(error))
    code, kind = _number(error), type(error).__name__
    state = getattr(error, "pgcode", None) or ""
    refused_login = code in _REFUSED_LOGIN.get(place.engine, ()) or state.startswith("28")
    no_database = code in _NO_DATABASE.get(place.engine, ()) or state == "3D000"
    if place.engine == POSTGRESQL and not state:
        # before there is a session, libpq gives no code
        refused_login = bool(re.search(r"authentication failed|no password supplied|role .* does not exist|no pg_hba", words))
        no_database = bool(re.search(r"database .* does not exist", words))
    if refused_login:
        return SetupError(
            f"{place} refuses the log-in of provider {slug}: {words}",
            code="credentials-refused",
            next_step=f"Check the user and the password of provider {slug}.",
        )
    if no_database or (place.engine == SQLITE and _SQLITE_FILE.search(words)):
        return SetupError(f"there is no database {place}: {words}", code="no-database", next_step=f"Check the address of provider {slug}.")
    if re.search(r"certificate|SSL is required|does not support SSL", words):
        return SetupError(
            f"the connection to {place} can't be encrypted as it must be: {words}",
            code="tls-certificate",
            next_step=f"Have its certificate renewed, set the encryption of provider {slug} to require, or name the host in OUTBOUND_ALLOW.",
        )
    is_query = code in _REFUSED_QUERY.get(place.engine, ()) or (place.engine == SQLITE and _SQLITE_QUERY.search(words))
    if is_query or kind in ("ProgrammingError", "DataError", "NotSupportedError", "UndefinedTable", "UndefinedColumn") or state[:2] in ("42", "22"):
        return SetupError(
            f"{place} does not answer what it is asked: {words}",
            code="query-refused",
            next_step="Check the pipeline's resource and window column, and what the user may read.",
        )
    return TransientError(f"{place} did not answer as it should: {words}", code="database-down")


def _number(error: Any) -> int:
    first = error.args[0] if getattr(error, "args", ()) else None
    if isinstance(first, tuple):
        first = first[0] if first else None
    return first if isinstance(first, int) else 0


def _words(error: Any) -> str:
    """The server's own sentence: its first line; of pymssql, which gives bytes in tuples, the text in them."""
    args = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], tuple) else error.args
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in args if not isinstance(one, int)]
    line = next((line.strip() for text in texts for line in text.splitlines() if line.strip()), type(error).__name__)
    return line[:300]
