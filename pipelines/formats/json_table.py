"""JSON documents: a list of objects at a path, one object a line (JSON lines), or an object of lists, a list for each column.

Read as they stream, so a big list costs no memory; what must be held whole is one record, or an object of lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.json_stream import Cursor, decoded, go, not_there, path_of
from pipelines.formats.table_reader import Batch, TableReader, Terms


class JsonTable(TableReader):
    """Options: `jsonpath` ($.value; keys with dots between them, a number is a place in a list). A key that a record lacks is nothing."""

    def __init__(self, terms: Terms):
        super().__init__(terms)
        self._steps = path_of(terms.options.get("jsonpath"), terms.title)

    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        with Cursor(page) as cursor:
            found = records_at(cursor, page, self._steps, [attribute.source for attribute in self.attributes])
            yield from self.in_batches(enumerate(found, start=1), names)


def records_at(cursor: Cursor, page: Path, steps: Sequence[str], wanted: Sequence[str]) -> Iterator[Any]:
    """The records at a path; `wanted` are the names that they should have. Raises DataError."""
    if there := go(cursor, steps):
        raise not_there(page, steps, there)
    match cursor.sign():
        case "[":
            return _of_list(cursor)
        case "{":
            return _of_objects(cursor, page, steps, wanted)
        case "" if not steps:
            return iter(())
    raise not_there(page, steps, ["a value that is neither a list nor an object"])


def _of_list(cursor: Cursor) -> Iterator[Any]:
    yield from map(_value, cursor.items())
    cursor.finish()


def _value(raw: str) -> Any:
    try:
        return decoded(raw)
    except RecursionError:
        # deeper than anything means something: refused as what is no object
        return raw[:1000]


def _of_objects(cursor: Cursor, page: Path, steps: Sequence[str], wanted: Sequence[str]) -> Iterator[Any]:
    """Records of what begins with an object: one a line, or lists that are columns, or one record."""
    first = _value(cursor.raw())
    if not steps and cursor.sign() == "{":
        return chain([first], _one_after_the_other(cursor))
    cursor.finish()
    lists = {name: value for name, value in first.items() if isinstance(value, list)}
    if lists and set(wanted) & lists.keys() and all(name in lists for name in wanted if name in first) and _are_columns(lists):
        return _rows_of_columns(lists)
    if lists and not set(wanted) & first.keys():
        at = [".".join(("$", *steps, name)) for name, value in lists.items() if value and isinstance(value[0], dict)]
        raise DataError(
            f"{page.name} holds an object where a list of rows is wanted{'; lists are at ' + ', '.join(at[:5]) if at else ''}.",
            code="bad-json",
            next_step="Write the path of the list into the pipeline's jsonpath; where that is `features`, set is_geojson.",
        )
    return iter([first])


def _one_after_the_other(cursor: Cursor) -> Iterator[Any]:
    number = 2
    while cursor.sign():
        cursor.where = f"in record {number:,}"
        yield _value(cursor.raw())
        number += 1


def _are_columns(lists: Mapping[str, list[Any]]) -> bool:
    return len({len(value) for value in lists.values()}) == 1


def _rows_of_columns(lists: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))
