"""Settle a page of GeoJSON that arrived: its features counted, their object ids, and whether it says that there are more.

A page is walked from feature to feature, so that memory is one feature and not one page, however long its shores are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipelines.errors import DataError, TransientError
from pipelines.formats.json_stream import Cursor, decoded


class _Feature(msgspec.Struct):
    """What is looked at of a feature: its geometry, mostly the greater part, is not made."""

    id: Any = None
    properties: Any = None


_features = msgspec.json.Decoder(_Feature)


@dataclass(frozen=True)
class Page:
    """What a page holds. `error` is what stands in it instead of features, {"code", "message", …}, or None."""

    ids: tuple[int, ...]
    has_more: bool
    error: Any = None


def settle(path: Path, id_field: str) -> Page:
    """Walk a page. Raises TransientError for one that is cut or garbled, DataError for what is no page of features.

    ArcGIS says that there are more at the top level or under "properties", by its version.
    """
    try:
        with Cursor(path) as cursor:
            return _page(cursor, id_field, path.name)
    except DataError as error:
        if error.code != "bad-json":
            raise
        # the transport showed its end: what is no JSON then was broken off by the server, which usually passes
        raise TransientError(error.message, code="not-json") from None


def _page(cursor: Cursor, id_field: str, name: str) -> Page:
    ids: list[int] = []
    has_more, error, has_features = False, None, False
    if cursor.sign() != "{":
        raise DataError(f"{name} is no page of GeoJSON: it does not begin with {{", code="not-rows")
    for key in cursor.members():
        if key == "features" and cursor.sign() == "[":
            has_features = True
            ids += (_id_of(_feature(cursor, raw), id_field, name, number) for number, raw in enumerate(cursor.items(), 1))
            continue
        value = _value(cursor, cursor.raw())
        if key == "exceededTransferLimit":
            has_more |= value is True
        elif key == "properties" and isinstance(value, dict):
            has_more |= value.get("exceededTransferLimit") is True
        elif key == "error":
            error = value
    cursor.finish()
    if not has_features and error is None:
        raise DataError(f"{name} is no page of GeoJSON: it has no features", code="not-rows")
    return Page(tuple(ids), has_more, error)


def _feature(cursor: Cursor, raw: str) -> _Feature:
    try:
        return _features.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        # no object, or what strict JSON has not, such as NaN
        told = _value(cursor, raw)
        return _Feature(told.get("id"), told.get("properties")) if isinstance(told, dict) else _Feature()


def _value(cursor: Cursor, raw: str) -> Any:
    try:
        return decoded(raw)
    except (ValueError, RecursionError) as error:
        cursor.wrong(str(error))


def _id_of(feature: _Feature, id_field: str, name: str, number: int) -> int:
    """The object id of a feature: among its properties, else beside them."""
    found = feature.properties.get(id_field) if isinstance(feature.properties, dict) else None
    if found is None:
        found = feature.id
    if not isinstance(found, int) or isinstance(found, bool):
        raise DataError(
            f"{name}: feature {number:,} has no {id_field}, by which the layer knows its features",
            code="no-object-id",
            next_step="Open the layer's page in a browser and compare its object id field.",
        )
    return found
