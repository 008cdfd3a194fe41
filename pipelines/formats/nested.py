"""Nested JSON → flat rows: every element of the innermost lists is a row, with all that stands around it.

    {"id": 1, "visits": [{"day": "a", "faults": [{"f": 0}, {"f": 2}]}, {"day": "b", "faults": null}]}
    → {"id": 1, "day": "a", "f": 0}, {"id": 1, "day": "a", "f": 2}, {"id": 1, "day": "b", "faults": null}

What stands in an object inside is taken as if it stood outside. Where a name is taken already, the inner one is called `list.name`.
An object without anything in its lists is a row all the same: nothing is lost for want of an infraction.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.json_stream import Cursor, decoded, go, not_there

_SHAPES = {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"}
_LOOSE = re.compile(r"[^0-9a-z]+")


def flatten(record: Mapping[str, Any], keep: Container[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of one record. Lists and objects whose names are in `keep` stay whole, and so do geometries."""
    flat, lists = _spread(record, keep)
    if not lists:
        yield flat
    for name, elements in lists:
        for element in elements:
            for row in flatten(element, keep):
                yield flat | {(f"{name}.{key}" if key in flat else key): value for key, value in row.items()}


def _spread(record: Mapping[str, Any], keep: Container[str]) -> tuple[dict[str, Any], list[tuple[str, list[Mapping[str, Any]]]]]:
    """(what a row has of this record, the lists in it that are rows of their own)."""
    flat: dict[str, Any] = {}
    lists: list[tuple[str, list[Mapping[str, Any]]]] = []
    for name, value in record.items():
        if name in keep or not value or not isinstance(value, Mapping | list):
            flat[name] = value if value != [] and value != {} else None
        elif isinstance(value, Mapping):
            if value.get("type") in _SHAPES:
                flat[name] = value
                continue
            inner, more = _spread(value, keep)
            flat |= {(f"{name}.{key}" if key in flat or key in record else key): held for key, held in inner.items()}
            lists += more
        elif all(isinstance(element, Mapping) for element in value):
            lists.append((name, value))
        else:
            flat[name] = value
    return flat, lists


def objects(page: Path, steps: Sequence[str] = ()) -> Iterator[Any]:
    """The records of a document, as they stream: the list at a path; without one the list at the root, or the first list inside it.

    An object without any list is one record. What is beside the list at the root is told by `beside`. Raises DataError.
    """
    with Cursor(page) as cursor:
        if there := go(cursor, steps):
            raise not_there(page, steps, there)
        if cursor.sign() == "[":
            yield from map(decoded, cursor.items())
            cursor.finish()
            return
        if cursor.sign() != "{":
            raise not_there(page, steps, ["a value that is neither a list nor an object"])
        lone: dict[str, Any] = {}
        found = False
        for key in cursor.members():
            if not found and cursor.sign() == "[":
                found = True
                yield from map(decoded, cursor.items())
            else:
                lone[key] = decoded(cursor.raw())
        cursor.finish()
    if not found:
        _stop_at_error(page, lone)
        inside = [value for value in lone.values() if isinstance(value, list | Mapping) and value]
        if len(inside) == 1 and isinstance(inside[0], Mapping):
            # {"result": {"records": [...]}}
            inner = next((value for value in inside[0].values() if isinstance(value, list)), None)
            yield from inner if inner is not None else [lone]
        else:
            yield lone


def beside(page: Path, name: str) -> Any:
    """A value that stands at the root beside the list, such as @odata.count; None where there is none. Raises DataError."""
    with Cursor(page) as cursor:
        if cursor.sign() == "{":
            for key in cursor.members():
                if key == name:
                    return decoded(cursor.raw())
                cursor.raw()
    return None


def _stop_at_error(page: Path, told: Mapping[str, Any]) -> None:
    if "error" in told or "Message" in told:
        words = told.get("error") or told.get("Message")
        raise DataError(f"{page.name} is an error of the source: {words}.", code="source-error", next_step="Run the block again from extract.")


def loosely(name: str) -> str:
    """A name by its letters and digits: `OutcomeDate` and `outcome_date` are one."""
    return _LOOSE.sub("", name.casefold())


def named(rows: Iterable[Any], wanted: Iterable[str], called: Mapping[str, str]) -> Iterator[Any]:
    """Rows whose names are those that are wanted, where they differ only in how they are written; `called` says how others are."""
    by_letters = {loosely(name): name for name in wanted}
    known: dict[str, str] = {there: name for name, there in called.items()}
    for row in rows:
        if not isinstance(row, Mapping):
            yield row
            continue
        made: dict[str, Any] = {}
        for key, value in row.items():
            if key not in known:
                known[key] = by_letters.get(loosely(key), key)
            name = known[key]
            # an exact name goes before one that is only like it
            if name == key or name not in row:
                made[name] = value
        yield made
