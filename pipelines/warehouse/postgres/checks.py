"""What PostgreSQL is asked of each value before it may enter a column: a test and its reason in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg2.sql import SQL, Composable, Identifier, Literal

from pipelines.connectors.base import Column
from pipelines.warehouse.postgres.ddl import SQL_TYPES
from pipelines.warehouse.tables import LONGEST_KEY, Table

#: Words that PostgreSQL would take as a time although no source means them.
_MAGIC_TIME = r"\y(now|today|tomorrow|yesterday|epoch|allballs|infinity)\y"
#: Zones that are UTC under another name: read by a clock that goes by UTC, they change nothing, so they are told by their looks.
_ZULU_AT_END = r"\d\s*(z|zulu|utc?|gmt|[+-]00(:?00)?)\s*$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*$"


_TIMES = ("local_time", "instant")


def checks(column: Column) -> list[tuple[str, str]]:
    """(SQL test that is true for a bad value, reason in words) for a column's type; `{c}` stands for its text.

    They are asked in order: a test may count on those before it.
    """
    kind = SQL_TYPES[column.type]
    never = f"not pg_input_is_valid({{c}}, '{kind}')"
    if column.type == "number":
        return [(f"{{c}} !~ '{_braced(_NUMBER)}' or {never}", "not a number")]
    if column.type in _TIMES:
        # years that Python and the portals can't read are no dates to us
        far = f"not ({{c}}::{kind} >= '0001-01-01' and {{c}}::{kind} < '10000-01-01')"
        checks = [(f"case when {{c}} ~* '{_braced(_MAGIC_TIME)}' or {never} then true else {far} end", "not a date and time")]
        if column.type == "local_time":
            # PostgreSQL reads a time with a zone into a column without one by dropping the zone, whatever it says
            zoned = f"({{c}}::timestamptz at time zone 'UTC') <> {{c}}::timestamp or {{c}} ~* '{_braced(_ZULU_AT_END)}'"
            checks.append((zoned, "has a zone, but the column is in local time"))
        return checks
    if column.type in ("boolean", "json"):
        return [(never, "not true or false" if column.type == "boolean" else "not JSON")]
    return []


def _braced(pattern: str) -> str:
    """A pattern that goes through `SQL.format`."""
    return pattern.replace("{", "{{").replace("}", "}}")


_MAGIC = re.compile(r"\b(now|today|tomorrow|yesterday|epoch|allballs|infinity)\b", re.IGNORECASE)
_ZONE = re.compile(r"\d\s*(z|[a-z]{3,}|[+-]\d{2}(:?\d{2})?)\s*$", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*")


def looks_untold(columns: Sequence[Column], cells: Sequence[str]) -> bool:
    """Whether a cell holds what COPY would take as another value than it says: `now`, a zone in a local time, `0x1F`."""
    for column, cell in zip(columns, cells, strict=False):
        if not cell or column.type == "text":
            continue
        if column.type == "number" and not _PLAIN_NUMBER.fullmatch(cell) and cell.strip()[:1] in "+-.0123456789":
            return True
        if column.type in _TIMES and _MAGIC.search(cell):
            return True
        if column.type == "local_time" and _ZONE.search(cell.partition("T")[2] or cell.partition(" ")[2]):
            return True
    return False


def while_copying(table: Table) -> Composable:
    """What must be true of each row that COPY takes into typed columns, as a CHECK: null is fine, but in the key."""
    tests = [SQL("true")]
    # all columns of a type at once, which costs a third of one after the other; nulls don't count, and null is no violation
    for kind, lowest, highest in (("number", "> '-Infinity'", "< 'Infinity'"), *((kind, ">= '0001-01-01'", "< '10000-01-01'") for kind in _TIMES)):
        if found := [Identifier(column.name) for column in table.columns if column.type == kind]:
            # NaN is greater than Infinity to PostgreSQL
            test = SQL("least({c}) " + lowest + " and greatest({c}) " + highest)
            tests.append(test.format(c=SQL(", ").join(found)))
    if table.key:
        tests += [SQL("{} is not null").format(Identifier(name)) for name in table.key]
        # a number or a time is never that long
        texts = [column.name for column in table.columns if column.name in table.key and column.type in ("text", "point", "json")]
        if texts:
            length = SQL(" + ").join(SQL("octet_length({}::text)").format(Identifier(name)) for name in texts)
            tests.append(SQL("{} <= {}").format(length, Literal(LONGEST_KEY)))
    return SQL(" and ").join(tests)
