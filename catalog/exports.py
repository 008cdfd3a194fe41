"""Tables as CSV for people who open them in a spreadsheet: streamed, with a header, harmless to the program that opens them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

#: A cell that begins so is run as a formula by spreadsheets; some take the wide signs of East Asian keyboards for the plain ones.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
NUMBER = re.compile(r"[+-]?[0-9.,]+([eE][+-]?[0-9]+)?")


class _Echo:
    """A file that hands every line straight back, so that csv can be streamed."""

    def write(self, line: str) -> str:
        return line


def plain(value: Any) -> str:
    """A value as a cell: instants in UTC, nothing as nothing, and no text that a spreadsheet would run."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    text = str(value).replace("\x00", "\N{SYMBOL FOR NULL}")
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def csv_response(name: str, header: list[str], rows: Iterable[Iterable[Any]]) -> StreamingHttpResponse:
    """A download called `name`, one line at a time."""

    def lines() -> Iterator[str]:
        writer = csv.writer(_Echo())
        yield writer.writerow(header)
        for row in rows:
            yield writer.writerow([plain(value) for value in row])

    response = StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, name)
    return response
