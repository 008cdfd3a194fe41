"""Rows as CKAN's datastore takes them: legal names, types, cells, and the batches of a CSV file. Pure."""

from __future__ import annotations

import csv
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from pipelines.connectors.base import Column
from pipelines.errors import DataError

#: Of rows, so many are sent at once; and of text, so many characters: polygons are long.
BATCH, BATCH_TEXT = 20_000, 8_000_000
#: PostgreSQL, where CKAN keeps its tables, cuts a longer name without a word.
LONGEST_NAME = 63

#: SQLAlchemy, with which CKAN makes its tables, reads this as a parameter, in quotes too; CKAN answers 500 to it.
_PARAMETER = re.compile(r"(?<![:\w\\]):\w+(?!:)|\\:")

#: The type of a column by the portal's word, where the dictionary has one; eight bytes, for four are too few for an id now and then.
PORTAL_TYPES = {"int": "int8", "float": "float8", "nested": "json"}
#: … and by ours, where it has none.
OUR_TYPES = {
    "text": "text",
    "number": "numeric",
    "local_time": "timestamp",
    "instant": "timestamptz",
    "boolean": "bool",
    "point": "text",
    "json": "json",
}
#: CKAN's (that is PostgreSQL's) type → ours; what is not here comes as text.
_THEIRS = {
    "int2": "number", "int4": "number", "int8": "number", "int": "number", "integer": "number", "bigint": "number", "numeric": "number",
    "float4": "number", "float8": "number", "float": "number", "date": "local_time", "timestamp": "local_time", "timestamptz": "instant",
    "bool": "boolean", "boolean": "boolean", "json": "json", "jsonb": "json", "nested": "json",
}  # fmt: skip
_WHOLE = ("int2", "int4", "int8", "int", "integer", "bigint")


def type_of(column: Column) -> str:
    """The type that a new column gets on the portal; one that is the portal's own, as a copy or a restored table has it, stays it."""
    return PORTAL_TYPES.get(column.portal_type) or column.portal_type or OUR_TYPES[column.type]


def our_type(theirs: str) -> str:
    """A type of the portal's in our words."""
    return _THEIRS.get(theirs, "text")


def why_illegal(name: str) -> str:
    """Why the datastore would refuse a column of this name; "" where it takes it."""
    if not name:
        return "is empty"
    if name != name.strip():
        return "begins or ends with a space"
    if name.startswith("_"):
        return "begins with an underscore"
    if '"' in name:
        return "has a double quote"
    if any(unicodedata.category(letter).startswith("C") for letter in name):
        return "has a control character"
    if _PARAMETER.search(name):
        return "has a colon before a letter, which CKAN takes for a parameter of its own"
    if len(name.encode()) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    return ""


def cell(value: Any, kind: str, name: str) -> Any:
    """A value, or a cell of a CSV file, as the API takes it for a column of the portal's type `kind`. Raises DataError.

    An empty cell is null but for a value that is an empty text. A number is a number; one that would lose digits so goes as text.
    """
    match value:
        case None:
            return None
        case bool():
            return value
        case float() | Decimal() if not math.isfinite(value):
            _refuse(value, name, "which is no number")
        case datetime() | date():
            return value.isoformat()
        case dict() | list():
            return value
    if kind in ("json", "jsonb", "nested"):
        return _parsed(value, name) if isinstance(value, str) else value
    text = str(value)
    if not text and kind != "text":
        return None
    match our_type(kind):
        case "number":
            return _number(text, kind, name)
        case "boolean":
            return {"true": True, "false": False}.get(text.lower(), text)
        case "local_time" if kind == "date":
            return text[:10]
        case "local_time":
            return text.removesuffix(".000")
    return text


def _parsed(text: str, name: str) -> Any:
    if not text:
        return None

    def no_constant(found: str) -> NoReturn:
        raise ValueError(f"{found} is not JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except ValueError:
        _refuse(text, name, "which is not JSON")


def _number(text: str, kind: str, name: str) -> Any:
    try:
        number = Decimal(text)
    except InvalidOperation:
        # the portal says what it would rather have
        return text
    if not number.is_finite():
        _refuse(text, name, "which is no number")
    if kind in _WHOLE:
        # "3.0" is a whole number that the portal's own reading refuses; what is none it may refuse itself
        return int(number) if number == number.to_integral_value() else text
    near = float(number)
    return near if math.isfinite(near) and (kind.startswith("float") or Decimal(repr(near)) == number) else text


def _refuse(value: Any, name: str, why: str) -> NoReturn:
    raise DataError(
        f"column {name} holds {str(value)[:100]!r}, {why}",
        code="not-for-ckan",
        next_step=f"Correct the row at its source, or set another type for {name}.",
    )


def batches(path: Path, kinds: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a CSV file (UTF-8, header of column names) as records for the portal's types, in batches. Raises DataError."""
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        names = next(reader)
        if missing := [name for name in names if name not in kinds]:
            raise DataError(f"{path.name} has a column {missing[0]} that the portal's table has not", code="wrong-columns")
        yield from _cut(
            # an absent value and an empty text are one empty cell here: absent, for that is what nearly all of them are
            ({name: cell(text, kinds[name], name) if text else None for name, text in zip(names, cells or [""], strict=True)}, sum(map(len, cells)))
            for cells in reader
        )


def parts(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Records in batches that a portal takes at once."""
    yield from _cut((record, sum(len(str(value)) for value in record.values())) for record in records)


def _cut(records: Iterable[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    """Records, each with the length of its text, in batches."""
    batch: list[dict[str, Any]] = []
    length = 0
    for record, letters in records:
        batch.append(record)
        length += letters
        if len(batch) == BATCH or length > BATCH_TEXT:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def same_key(value: Any, kind: str) -> Any:
    """A key of a column of the portal's type `kind`, such that what we send and what the portal gives back are equal."""
    match our_type(kind):
        case "number":
            with suppress(InvalidOperation):
                return Decimal(str(value)).normalize()
        case "local_time" | "instant":
            with suppress(ValueError):
                return datetime.fromisoformat(str(value))
    return str(value)
