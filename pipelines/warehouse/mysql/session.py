"""Sessions with a MariaDB or MySQL warehouse: how it is reached, what its errors mean, and how a dead run's sessions end."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CR, ER

from pipelines.errors import PermanentError, SetupError, TransientError

#: A server takes no larger packet than its max_allowed_packet, which is at least this on every server in use.
PIECE = 256 << 10
#: So many sessions one run may have at the same time.
SESSIONS_OF_A_RUN = 8
#: So long a run's rows may wait for another merge into the same table: longer than any stage's deadline.
LONGEST_WAIT = 4 * 3600
#: So long a change of a table waits for its readers; whoever comes after it stands behind it in the queue.
TABLE_WAIT = 60

_GONE = {
    CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_IPSOCK_ERROR, CR.CR_UNKNOWN_HOST, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST,
    CR.CR_SERVER_HANDSHAKE_ERR, CR.CR_COMMANDS_OUT_OF_SYNC, ER.SERVER_SHUTDOWN, ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS,
    ER.USER_LIMIT_REACHED, ER.NEW_ABORTING_CONNECTION, ER.ABORTING_CONNECTION, ER.QUERY_INTERRUPTED,
    ER.NET_READ_ERROR, ER.NET_READ_INTERRUPTED, ER.NET_ERROR_ON_WRITE, ER.NET_WRITE_INTERRUPTED,
    1927,  # this session was ended by KILL (MariaDB)
    4031,  # this session was idle too long (MySQL)
}  # fmt: skip
_BUSY = {ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, 1969, 3024}  # the last two: a statement ran into the server's own time limit
_FULL = {ER.RECORD_FILE_FULL, ER.DISK_FULL, ER.OUTOFMEMORY, ER.OUT_OF_SORTMEMORY, ER.OUT_OF_RESOURCES, ER.ERROR_ON_WRITE}
_FORBIDDEN = {
    ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.PROCACCESS_DENIED_ERROR, ER.HOST_NOT_PRIVILEGED, ER.OPTION_PREVENTS_STATEMENT,
    1698,  # the account is only for a local system user
}  # fmt: skip
_NO_LOCAL_FILES = {ER.NOT_ALLOWED_COMMAND, 3948, 4166}
_DEPRECATED = 1287


class Session(Connection):
    """A connection that sends the bytes that `outgoing` holds, and only these: a server can't ask for a file of this machine."""

    outgoing: Iterable[bytes] | None = None

    def _read_query_result(self, unbuffered: bool = False) -> int:
        # as the driver does it, but with our own way of answering LOAD DATA LOCAL
        self._result = None
        result = _Result(self)
        if unbuffered:
            result.init_unbuffered_query()
        else:
            result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


class _Result(MySQLResult):
    def _read_load_local_packet(self, first_packet: Any) -> None:
        connection = self.connection
        pieces, connection.outgoing = connection.outgoing, None
        try:
            for piece in pieces or ():
                for start in range(0, len(piece), PIECE):
                    connection.write_packet(piece[start : start + PIECE])
        finally:
            # an empty packet ends the file, also one that broke off here
            connection.write_packet(b"")
            answer = connection._read_packet()
        if pieces is None:
            raise SetupError("The warehouse asked for a file that nobody offered.", code="warehouse-refused")
        self._read_ok_packet(answer)


def _address(dsn: str) -> dict[str, Any]:
    """What the driver needs of `mysql://user:password@host:port/database?unix_socket=…&ssl_ca=…`. Raises SetupError."""
    try:
        parts = urlsplit(dsn)
        found = {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 3306,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": unquote(parts.path.lstrip("/")),
        }
    except ValueError:
        found = {}
    more = dict(parse_qsl(parts.query)) if found else {}
    if not found.get("database") or more.keys() - {"unix_socket", "ssl_ca"}:
        raise SetupError(
            "A MariaDB or MySQL warehouse is mysql://user:password@host:port/database; ?unix_socket=… and ?ssl_ca=… may follow.",
            code="warehouse-address",
            next_step="Correct WAREHOUSE_URL or WAREHOUSES in the settings.",
        )
    return {**found, **more}


def connect(dsn: str, *, run_id: int | None = None) -> Session:
    """A connection of a stage; a lock in its run's name lets `end_sessions` find it. Raises TransientError, SetupError."""
    with plain_words(), contextlib.ExitStack() as undo:
        connection = Session(
            **_address(dsn), charset="utf8mb4", autocommit=True, connect_timeout=10, local_infile=True, cursorclass=pymysql.cursors.Cursor
        )
        undo.callback(connection.close)
        _check_version(connection)
        with connection.cursor() as cursor:
            for setting in _settings(connection):
                cursor.execute(f"set session {setting}")
            if run_id:
                _mark(cursor, run_id)
        undo.pop_all()
        return connection


def _check_version(connection: Session) -> None:
    """Raise SetupError for a server too old to put a rebuilt table in another's place in one step."""
    told = connection.get_server_info()
    found = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)", told)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < ((10, 6) if is_mariadb(connection) else (8, 0)):
        raise SetupError(
            f"The warehouse runs {told}; MariaDB 10.6 or MySQL 8.0 is needed.", code="warehouse-version", next_step="Use a newer server."
        )


def is_mariadb(connection: Session) -> bool:
    return "mariadb" in connection.get_server_info().lower()


def collation(connection: Session) -> str:
    """Text goes by its bytes, blanks at its end included: 'a', 'A' and 'a ' are three keys, as in PostgreSQL."""
    return "utf8mb4_nopad_bin" if is_mariadb(connection) else "utf8mb4_0900_bin"


def stage_engine(connection: Session) -> str:
    """For private tables: what needs no undo and no log, and leaves no growing file on the server."""
    return "engine = aria transactional = 0" if is_mariadb(connection) else "engine = innodb"


def _settings(connection: Session) -> list[str]:
    modes = ["STRICT_ALL_TABLES", "NO_BACKSLASH_ESCAPES", "ERROR_FOR_DIVISION_BY_ZERO", "NO_ENGINE_SUBSTITUTION", "NO_ZERO_DATE", "NO_ZERO_IN_DATE"]
    return [
        # values stand in statements between quotes of their own: with this mode a backslash is an ordinary character there
        f"sql_mode = '{','.join(modes)}'",
        f"collation_connection = {collation(connection)}",
        "time_zone = '+00:00'",
        "transaction_isolation = 'READ-COMMITTED'" if not is_mariadb(connection) else "tx_isolation = 'READ-COMMITTED'",
        "sql_notes = 0",  # so that every warning that is counted is one
        "innodb_lock_wait_timeout = 300",
        f"lock_wait_timeout = {TABLE_WAIT}",
        "net_read_timeout = 300",
        "net_write_timeout = 300",
    ]


def name(text: str) -> str:
    """A name as SQL writes it."""
    return "`" + text.replace("`", "``") + "`"


def names(listed: Iterable[str], alias: str = "") -> str:
    dot = f"{alias}." if alias else ""
    return ", ".join(dot + name(each) for each in listed)


def literal(text: str) -> str:
    """A text as SQL writes it, in our sessions (NO_BACKSLASH_ESCAPES)."""
    return "'" + text.replace("'", "''") + "'"


def run(cursor: Any, statement: str) -> int:
    """Run a statement that must not be warned of; returns the rows that it wrote. Raises PermanentError for a warning."""
    rows = cursor.execute(statement)
    if cursor.warning_count:
        told = [row for row in cursor.connection.show_warnings() if row[1] != _DEPRECATED]
        if told:
            raise PermanentError(f"The warehouse changed a value: {told[0][2]}", code="warehouse-warning")
    return rows


def one(cursor: Any, statement: str, args: Any = None) -> Any:
    """The only value of a query."""
    cursor.execute(statement, args)
    found = cursor.fetchone()
    return found[0] if found else None


# locks by name, which belong to a session and not to a transaction


def _lock_name(cursor: Any, words: str) -> str:
    # names are the whole server's, and short: the database is part of what is hashed
    database = one(cursor, "select database()")
    return f"odo {hashlib.sha256(f'{database} {words}'.encode()).hexdigest()[:40]}"


@contextlib.contextmanager
def locked(connection: Session, words: str, *, wait: float = LONGEST_WAIT) -> Iterator[bool]:
    """Hold a lock of the database in that name; False when it was not free in time."""
    with connection.cursor() as cursor:
        lock = _lock_name(cursor, words)
        is_ours = one(cursor, "select get_lock(%s, %s)", [lock, wait]) == 1
    try:
        yield is_ours
    finally:
        # a session that broke off has lost its locks already
        if is_ours and connection.open:
            with contextlib.suppress(pymysql.Error), connection.cursor() as cursor:
                cursor.execute("select release_lock(%s)", [lock])


def _mark(cursor: Any, run_id: int) -> None:
    for number in range(SESSIONS_OF_A_RUN):
        if one(cursor, "select get_lock(%s, 0)", [_lock_name(cursor, f"run {run_id} {number}")]) == 1:
            return
    raise PermanentError(f"Run {run_id} has {SESSIONS_OF_A_RUN} sessions in the warehouse already.", code="warehouse-refused")


def end_sessions(dsn: str, *, run_id: int) -> int:
    """End what a dead run left running in the warehouse, and wait until it is gone. Returns how many sessions."""
    if not dsn:
        return 0
    ended = 0
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        for number in range(SESSIONS_OF_A_RUN):
            lock = _lock_name(cursor, f"run {run_id} {number}")
            session = one(cursor, "select is_used_lock(%s)", [lock])
            if session is None:
                continue
            try:
                cursor.execute(f"kill {int(session)}")
            except pymysql.Error as error:
                if error.args[0] != ER.NO_SUCH_THREAD:
                    raise
            until = time.monotonic() + 5
            while one(cursor, "select is_used_lock(%s)", [lock]) is not None and time.monotonic() < until:
                time.sleep(0.02)
            ended += 1
    return ended


def has_merged(dsn: str, *, block_id: int, fence: int) -> bool:
    """Whether the attempt with that fence has merged its rows."""
    with plain_words(), contextlib.closing(connect(dsn)) as connection, connection.cursor() as cursor:
        if not is_there(cursor, "_odo_ledger"):
            return False
        asked = "select count(*) from _odo_ledger where block_id = %s and fence = %s and merged_at is not null"
        return one(cursor, asked, [block_id, fence]) > 0


def is_there(cursor: Any, table: str) -> bool:
    """Whether the database has such a table."""
    return one(cursor, "select count(*) from information_schema.tables where table_schema = database() and table_name = %s", [table]) > 0


@contextlib.contextmanager
def plain_words() -> Iterator[None]:
    """Turn the driver's errors into ours: a server that is away passes, a server that refuses needs a person."""
    try:
        yield
    except pymysql.InterfaceError as error:
        raise TransientError(f"The warehouse broke off: {_words(error)}", code="warehouse-down") from error
    except pymysql.Error as error:
        code, words = _code(error), _words(error)
        if code in _GONE:
            raise TransientError(f"The warehouse broke off or does not answer: {words}", code="warehouse-down") from error
        if code in _FULL or "errno: 28" in words or "Errcode: 28" in words:
            raise TransientError(f"The warehouse is out of room: {words}", code="warehouse-full", retry_after=600) from error
        if code in _BUSY:
            raise TransientError(f"The warehouse was busy: {words}", code="warehouse-busy") from error
        if code in _FORBIDDEN:
            raise SetupError(
                f"The warehouse forbids it: {words}",
                code="warehouse-forbidden",
                next_step="Grant the warehouse user this right, or correct its password.",
            ) from error
        if code == ER.BAD_DB_ERROR:
            raise SetupError(f"{words}.", code="warehouse-forbidden", next_step="Make the database, or correct WAREHOUSES.") from error
        if code in _NO_LOCAL_FILES:
            raise SetupError(
                f"The warehouse takes no bulk load: {words}", code="warehouse-local-infile", next_step="Set local_infile = ON on that server."
            ) from error
        if code in (ER.DUP_FIELDNAME, ER.WRONG_COLUMN_NAME, ER.TOO_LONG_IDENT):
            raise SetupError(f"The warehouse can't keep a column apart: {words}", code="column-name") from error
        raise PermanentError(f"The warehouse refused: {words}", code="warehouse-refused") from error


def _code(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _words(error: Exception) -> str:
    found = error.args[-1] if error.args else ""
    return (str(found).strip() or type(error).__name__).splitlines()[0]
