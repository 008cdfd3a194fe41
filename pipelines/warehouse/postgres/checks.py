"""What PostgreSQL is asked of each value before it may enter a column: a test and its reason in words."""

from __future__ import annotations

from pipelines.connectors.base import Column
from pipelines.warehouse.postgres.ddl import SQL_TYPES

#: Words that PostgreSQL would take as a time although no source means them.
_MAGIC_TIME = r"\y(now|today|tomorrow|yesterday|epoch|allballs|infinity)\y"
#: Zones that are UTC under another name: read by a clock that goes by UTC, they change nothing, so they are told by their looks.
_ZULU_AT_END = r"\d\s*(z|zulu|utc?|gmt|[+-]00(:?00)?)\s*$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*$"


def checks(column: Column) -> list[tuple[str, str]]:
    """(SQL test that is true for a bad value, reason in words) for a column's type; `{c}` stands for its text.

    They are asked in order: a test may count on those before it.
    """
    kind = SQL_TYPES[column.type]
    never = f"not pg_input_is_valid({{c}}, '{kind}')"
    if column.type == "number":
        return [(f"{{c}} !~ '{_braced(_NUMBER)}' or {never}", "not a number")]
    if column.type in ("local_time", "instant"):
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
