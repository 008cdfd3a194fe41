"""Permits with green roofs: the permits as CSV, and of each the areas of its roof in a workbook."""

from collections.abc import Iterator
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.csv_table import encoding_of, records
from pipelines.formats.custom import Broken, Raw, custom_reader
from pipelines.formats.nested import loosely
from pipelines.formats.xlsx import sheet_records

#: The role of the raw file that the others are joined with.
JOINED = "joined"


@custom_reader("building_permits_green_roofs", "*green_roof*")
def building_permits_green_roofs(raw: Raw) -> Iterator[dict[str, Any] | Broken]:
    """CSV of permits (PERMIT_NUM, REVISION_NUM, …) and, as a further raw file of the role `joined`, a workbook with GREEN_ROOF_AREA and so on.

    They are joined by the columns that both have, or those that the option `join_on` names. Every permit is a row, one without a
    line in the workbook too.
    """
    books = list(raw.helpers(JOINED))
    held: list[dict[str, Any]] = [row for book in books for row in sheet_records(book, raw.options.get("sheet") or "")]
    on: list[str] = []
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in records(raw.path, encoding_of(raw.options.get("encoding"))):
        if isinstance(row, Broken):
            yield row
            continue
        if held and not on:
            on = [loosely(name) for name in raw.options.get("join_on") or _common(row, held[0])]
            if not on:
                raise DataError(
                    f"{raw.path.name} and {books[0].name} have no column in common to be joined by.",
                    code="nothing-in-common",
                    next_step="Write the names into the pipeline's option join_on, or look at the two files.",
                )
            found = {_key(line, on): line for line in held}
        joined = found.get(_key(row, on), {}) if on else {}
        has = {loosely(name) for name in row}
        yield {**row, **{name: joined.get(name) for name in (held[0] if held else ()) if loosely(name) not in has}}


def _common(row: dict[str, Any], line: dict[str, Any]) -> list[str]:
    there = {loosely(name) for name in line}
    return [name for name in row if loosely(name) in there]


def _key(row: dict[str, Any], on: list[str]) -> tuple[str, ...]:
    by_letters = {loosely(name): value for name, value in row.items()}
    return tuple(_bare(by_letters.get(name)) for name in on)


def _bare(value: Any) -> str:
    """A number of a permit as both files write it: 01, "1 " and 1.0 are one."""
    text = "" if value is None else str(value).strip().removesuffix(".0")
    return text.lstrip("0") or "0" if text.isdecimal() else text.casefold()
