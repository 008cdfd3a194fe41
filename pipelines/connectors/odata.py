"""Pages of OData: how many rows one has, and where the next one is.

A server says that there are more with a link, or by a count of them all that is greater than what came. Nobody who reads
only the first page would notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from pipelines.errors import DataError, TransientError
from pipelines.formats.json_stream import Cursor, decoded

#: Rows that are asked for at once where we are to ask page by page.
TOP = 1000
#: More pages than this are a loop that nobody has seen through.
MOST_PAGES = 2000
#: The signs of OData stand before its rows, or behind them.
EDGE = 64 * 1024


@dataclass(frozen=True)
class Page:
    """One page: its rows, how many there are in all (None: it does not say), and the address of the next one ("": it names none)."""

    rows: int
    count: int | None = None
    next_link: str = ""


def settle(path: Path) -> Page | None:
    """What a file says of pages; None of one that is no list of OData. Raises TransientError for a broken one."""
    with path.open("rb") as file:
        edges = file.read(EDGE)
        file.seek(max(file.seek(0, 2) - EDGE, 0))
        edges += file.read()
    if b'"@odata.' not in edges:
        return None
    rows, told = None, {}
    try:
        with Cursor(path) as cursor:
            if cursor.sign() != "{":
                return None
            for key in cursor.members():
                if key == "value" and cursor.sign() == "[":
                    rows = sum(1 for _ in cursor.items())
                else:
                    told[key] = cursor.raw()
            cursor.finish()
    except DataError as error:
        raise TransientError(error.message, code="not-json") from None
    if rows is None:
        return None
    values = {key: decoded(raw) for key, raw in told.items() if key.startswith("@odata.")}
    count, link = values.get("@odata.count"), values.get("@odata.nextLink")
    count = int(count) if isinstance(count, str) and count.isdecimal() else count
    return Page(rows, count if type(count) is int else None, link if isinstance(link, str) else "")


def page_of(resource: str, skip: int, top: int = 0) -> str:
    """The address of the page that begins behind so many rows, with `top` rows where that is said; its other words stay. Pure."""
    parts = urlsplit(resource)
    said = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in ("$skip", *(["$top"] if top else []))]
    if top:
        said += [("$top", str(top))] + ([("$count", "true")] if "$count" not in dict(said) else [])
    said.append(("$skip", str(skip)))
    query = "&".join(f"{quote(name, safe='$')}={quote(value, safe='')}" for name, value in said)
    return urlunsplit(parts._replace(query=query))
