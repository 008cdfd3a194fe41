"""Pages of rows as SODA writes them in JSON → the CSV that the warehouse stages: the wanted columns in their order, each value as it was.

A null is left out of a row, and a column that is null in every row is in none: so the columns are told, never found.
DuckDB reads a page (a tenth of the time, a bounded piece of memory); what it would alter or refuse, Python reads row by row.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import duckdb

from pipelines.errors import DataError

PIECE = 1024 * 1024
#: One row may be as big as this; the biggest cells that were seen have a megabyte.
LARGEST_ROW = 64 * PIECE
#: What DuckDB may take beside its own code; it needs half of it for 50,000 rows of service requests.
MEMORY = "128MB"

#: A number, or a list of them, that stands for itself behind a name. (In a text it does no harm to find one.)
_BARE = re.compile(rb'":(?!")[ \t\r\n]*([\[ \t\r\n]*-?\d[-+\d.eE, \t\r\n\[\]]*)')
#: Nearly all of them, at one look: a point's two.
_POINT = re.compile(rb"\[-?[1-9]\d{0,2}\.\d{0,8}[1-9],-?[1-9]\d{0,2}\.\d{0,8}[1-9]\]")
_NUMBER = re.compile(rb"[-+\d.eE]+")
#: At most 15 digits, no zero at the end of a fraction, not too small to be written without an exponent.
_PLAIN = re.compile(rb"0|-?[1-9]\d{0,14}|-?(?:0|[1-9]\d*)\.(?=\d{0,3}[1-9])\d*[1-9]")
_PAIR = re.compile(r"\((\S+), (\S+)\)")


class _Number(str):
    """A number's own text, told apart from a text that looks like one."""

    __slots__ = ()


def write_csv(page: Path, target: Path, columns: Mapping[str, str], *, rows: int) -> None:
    """Write the rows of the JSON array in `page` to `target` as CSV (UTF-8, a header of the names of `columns`).

    `rows` is how many objects were counted when the page arrived.

    `columns` maps each wanted name to its type (one of COLUMN_TYPES), in the order wanted. Numbers, times and truths are
    the text that stands in the page; a point, written as GeoJSON, as a `location` object or as `(lat, lon)`, becomes
    `POINT (lon lat)`; any other object or list is its JSON. Null is an empty cell, an empty text is `""`. A lone surrogate
    and a byte that is not UTF-8 become bytes that are not UTF-8, so the row is refused by the loader, and seen.

    Raises DataError for a page that is not an array of objects, that has a key twice in a row, or that has not `rows` rows.
    """
    if _is_plain(page, columns):
        try:
            if _by_duckdb(page, target, columns) == rows:
                return
            # a null among the rows would be a row of nulls
        except duckdb.Error:
            pass  # it refuses a page for one bad letter, and names a byte: Python reads on, or says which row is wrong
    done = _by_python(page, target, columns)
    if done != rows:
        raise DataError(f"{page.name} has {done:,} rows where {rows:,} were counted", code="miscounted-page")


def _is_plain(page: Path, columns: Mapping[str, str]) -> bool:
    """Whether DuckDB gives back each bare number as it stands, and can be told the names at all."""
    if len({name.lower() for name in columns}) < len(columns) or any(letter in str(page) for letter in "*?["):
        # it takes no heed of the case of names, and reads a path as a pattern
        return False
    rest = b""
    with page.open("rb") as file:
        while piece := file.read(PIECE):
            piece = rest + piece
            # a number ends before the next quote
            end = piece.rfind(b'"')
            if len(piece) - end > 2 * PIECE:
                return False
            if not _are_plain(piece[:end]):
                return False
            rest = piece[end:]
    return _are_plain(rest)


def _are_plain(piece: bytes) -> bool:
    return all(_POINT.fullmatch(found) or all(map(_stays, _NUMBER.findall(found))) for found in _BARE.findall(piece))


def _stays(number: bytes) -> bool:
    """Whether a computer's own form of the number is written as it came."""
    return bool(len(number) <= 16 and _PLAIN.fullmatch(number)) or _is_shortest(number)


def _is_shortest(number: bytes) -> bool:
    text = number.decode()
    try:
        return "." in text and repr(float(text)) == text and 1e-4 <= abs(float(text)) < 1e15
    except ValueError:
        return False


# by DuckDB


def _by_duckdb(page: Path, target: Path, columns: Mapping[str, str]) -> int:
    told = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in columns)
    wanted = ", ".join(f"{_point(name)} as {_name(name)}" if kind == "point" else _name(name) for name, kind in columns.items())
    # alone in its line, a cell `\.` would end COPY; in quotes it is data
    quotes = ", force_quote *" if len(columns) == 1 else ""
    settings = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(target.parent), "autoinstall_known_extensions": False}
    with duckdb.connect(config=settings) as database:
        # it would write to the terminal of whoever runs us
        database.execute("set enable_progress_bar = false")
        source = f"read_json({_text(str(page))}, format = 'array', columns = {{{told}}}, compression = 'none')"
        # names and paths are quoted above; there is no database here to be told anything else
        [(rows,)] = database.execute(
            f"copy (select {wanted} from {source}) to {_text(str(target))} (format csv, header, compression 'none'{quotes})"  # noqa: S608
        ).fetchall()
    return rows


def _point(name: str) -> str:
    """The three spellings of a point as one; what is none of them stays as it is."""
    cell = _name(name)
    pairs = (("$.coordinates[0]", "$.coordinates[1]"), ("$.longitude", "$.latitude"))
    spelled = [f"'POINT (' || json_extract_string({cell}, '{lon}') || ' ' || json_extract_string({cell}, '{lat}') || ')'" for lon, lat in pairs]
    return (
        f"case when starts_with({cell}, '{{') and json_valid({cell}) then coalesce({', '.join(spelled)}, {cell}) "
        f"else regexp_replace({cell}, '^\\((\\S+), (\\S+)\\)$', 'POINT (\\2 \\1)') end"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


# by Python


def _by_python(page: Path, target: Path, columns: Mapping[str, str]) -> int:
    rows = 0
    with target.open("wb") as file:
        file.write(_line(_quoted(name) for name in columns))
        for row in _rows_of(page):
            file.write(_line(_cell(row.get(name), kind) for name, kind in columns.items()))
            rows += 1
    return rows


def _line(cells: Iterator[str]) -> bytes:
    # a surrogate has no place in UTF-8: as these bytes it is refused with its row, and never a letter that it was not
    return (",".join(cells) + "\n").encode("utf-8", "surrogatepass")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _cell(value: Any, kind: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dict() | list():
            value = (_as_point(value) if kind == "point" else "") or _compact(value)
        case str() if kind == "point" and (pair := _PAIR.fullmatch(value)):
            value = f"POINT ({pair[2]} {pair[1]})"
    return _quoted(value)


def _as_point(value: Any) -> str:
    match value:
        case {"coordinates": [longitude, latitude, *_]} | {"longitude": longitude, "latitude": latitude}:
            if isinstance(longitude, str) and isinstance(latitude, str):
                return f"POINT ({longitude} {latitude})"
    return ""


def _compact(value: Any) -> str:
    """JSON with its numbers as they stood."""
    match value:
        case _Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{_compact(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_compact, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _rows_of(page: Path) -> Iterator[dict[str, Any]]:
    """The objects of the array in the file, one after the other. Raises DataError."""
    decoder = json.JSONDecoder(strict=False, parse_int=_Number, parse_float=_Number, parse_constant=_Number, object_pairs_hook=_no_key_twice)
    text, at, number = "", 0, 0

    def wrong(what: str) -> NoReturn:
        raise DataError(f"{page.name} is not a page of rows: {what}", code="bad-json-page") from None

    with page.open("rb") as file:
        letters = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

        def more() -> bool:
            """Read on; False at the end of the file."""
            nonlocal text, at
            if len(text) - at > LARGEST_ROW:
                wrong(f"row {number + 1:,} is bigger than {LARGEST_ROW:,} letters, or broken")
            piece = file.read(max(PIECE, len(text) - at))
            text, at = text[at:] + letters.decode(piece, final=not piece), 0
            return bool(piece)

        def following() -> str:
            """The next letter that is no space, "" at the end."""
            nonlocal at
            while True:
                while at < len(text) and text[at] in " \t\r\n":
                    at += 1
                if at < len(text):
                    return text[at]
                if not more():
                    return ""

        if following() != "[":
            wrong("it does not begin with [")
        at += 1
        sign = following()
        while sign != "]":
            if number and sign != ",":
                wrong(f"no comma or ] follows row {number:,}")
            at += bool(number)
            if following() != "{":
                wrong(f"row {number + 1:,} is not an object")
            while True:
                try:
                    row, at = decoder.raw_decode(text, at)
                    break
                except json.JSONDecodeError as error:
                    if not more():
                        wrong(f"row {number + 1:,}: {error.msg}")
                except ValueError as error:
                    wrong(f"row {number + 1:,}: {error}")
            number += 1
            yield row
            sign = following()
        at += 1
        if following():
            wrong("something follows the last row")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice!r} stands twice")
    return found
