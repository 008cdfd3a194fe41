"""GeoJSON: the properties of each feature, and its geometry as compact JSON text. Pages of ArcGIS layers and files alike.

A feature without a geometry is a row all the same, and counted as a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipelines.errors import DataError
from pipelines.formats.attributes import GEOMETRY, Number, compact, loads
from pipelines.formats.json_stream import Cursor, decoded, not_there
from pipelines.formats.table_reader import Batch, TableReader

NO_GEOMETRY = "it has no geometry"


class _Feature(msgspec.Struct):
    """A feature; its geometry stays as it was written."""

    type: str = ""
    id: Any = None
    properties: dict[str, Any] | None = None
    geometry: msgspec.Raw = msgspec.Raw(b"null")


_feature = msgspec.json.Decoder(_Feature, float_hook=Number)


class GeoJson(TableReader):
    """Each feature is a row. `geometry` and `id` stand beside its properties, unless those have such names themselves.

    A configured `OBJECTID`, or whatever the layer calls its own number, is a property like the others; where the features have it only
    as their `id`, the attribute is to say `id` as its source.
    """

    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        sources = {attribute.source for attribute in self.attributes}
        self._wants_id, self._wants_geometry = "id" in sources, GEOMETRY in sources
        with Cursor(page) as cursor:
            yield from self.in_batches(self._rows(cursor, page), names)

    def _rows(self, cursor: Cursor, page: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, raw in enumerate(_features(cursor, page), start=1):
            if (row := self._row(raw, number)) is not None:
                yield number, row

    def _row(self, raw: str, number: int) -> dict[str, Any] | None:
        try:
            feature_id, properties, geometry = _parts(raw)
        except (ValueError, TypeError, AttributeError, msgspec.ValidationError):
            self.refuse(number, "it is not a feature", {"feature": raw[:1000]}, value=raw[:1000])
            return None
        row = dict(properties)
        if self._wants_geometry:
            if geometry is None:
                self.tally.warnings[NO_GEOMETRY] += 1
            row.setdefault(GEOMETRY, geometry)
        if self._wants_id:
            row.setdefault("id", feature_id)
        return row


def _features(cursor: Cursor, page: Path) -> Iterator[str]:
    """The texts of the features. Raises DataError for a document that has none, with the words of an ArcGIS error."""
    if cursor.sign() == "[":
        yield from cursor.items()
        cursor.finish()
        return
    if cursor.sign() != "{":
        cursor.wrong("neither { nor [ stands")
    there, found = [], False
    for key in cursor.members():
        there.append(key)
        if key == "features" and cursor.sign() == "[":
            found = True
            yield from cursor.items()
        elif key == "error":
            said = decoded(cursor.raw())
            words = said.get("message") or said.get("details") if isinstance(said, dict) else said
            raise DataError(f"{page.name} is an error of the source: {words}.", code="source-error", next_step="Run the block again from extract.")
        else:
            cursor.raw()
    cursor.finish()
    if not found:
        raise not_there(page, ["features"], there)


def _parts(raw: str) -> tuple[Any, Mapping[str, Any], str | None]:
    """(id, properties, geometry as text) of a feature. Raises what decoders raise."""
    try:
        feature = _feature.decode(raw)
        shape = _closed_up(bytes(feature.geometry).decode())
        return feature.id, feature.properties or {}, shape
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        told = loads(raw)
        return told.get("id"), dict(told.get("properties") or {}), compact(told.get("geometry")) or None


def _closed_up(shape: str) -> str | None:
    """A geometry without spaces, its numbers as they stood; None of null."""
    if shape == "null":
        return None
    if not any(sign in shape for sign in " \n\t\r"):
        return shape
    pieces = shape.split('"')
    if "\\" in shape or any(piece.split() != [piece] for piece in pieces[1::2]):
        # a space inside a text is not ours to take
        return compact(loads(shape)) or None
    pieces[::2] = ["".join(piece.split()) for piece in pieces[::2]]
    return '"'.join(pieces)
