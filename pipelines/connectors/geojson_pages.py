"""Settle a page of GeoJSON that arrived: its features counted, their object ids, and whether it says that there are more.

A page is walked from feature to feature, so that memory is one feature and not one page, however long its shores are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipelines.errors import DataError, TransientError

PIECE = 1 << 20


@dataclass(frozen=True)
class Page:
    """What a page holds. `error` is what stands in it instead of features, {"code", "message", …}, or None."""

    ids: tuple[int, ...]
    has_more: bool
    error: Any = None


def settle(path: Path, id_field: str) -> Page:
    """Walk a page. Raises TransientError("cut-body") for one that ends in the middle, DataError for what is no page of features.

    ArcGIS says that there are more at the top level or under "properties", by its version.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            return _page(_Walker(file, path.name), id_field, path.name)
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} is not UTF-8: {error}", code="wrong-encoding") from None


def _page(walker: _Walker, id_field: str, name: str) -> Page:
    ids: list[int] = []
    has_more, error, has_features = False, None, False
    for key in walker.names():
        if key == "features" and walker.opens("["):
            has_features = True
            ids += (_id_of(feature, id_field, name, len(ids) + 1) for feature in walker.items())
            continue
        value = walker.value()
        if key == "exceededTransferLimit":
            has_more |= value is True
        elif key == "properties" and isinstance(value, dict):
            has_more |= value.get("exceededTransferLimit") is True
        elif key == "error":
            error = value
    if not has_features and error is None:
        raise DataError(f"{name} is no page of GeoJSON: it has no features", code="not-rows")
    return Page(tuple(ids), has_more, error)


def _id_of(feature: Any, id_field: str, name: str, number: int) -> int:
    """The object id of a feature: among its properties, else beside them."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    found = properties.get(id_field) if isinstance(properties, dict) else None
    if found is None and isinstance(feature, dict):
        found = feature.get("id")
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if not isinstance(found, int) or isinstance(found, bool):
        raise DataError(
            f"{name}: feature {number:,} has no {id_field}, by which the layer knows its features",
            code="no-object-id",
            next_step="Open the layer's page in a browser and compare its object id field.",
        )
    return found


class _Walker:
    """Goes through the text of one JSON object, value by value, and holds no more of it than the value at hand."""

    def __init__(self, file: TextIO, name: str):
        self.file, self.name = file, name
        self.text, self.at, self.is_whole = "", 0, False
        self.decoder = json.JSONDecoder()

    def names(self) -> Iterator[str]:
        """Each name of the object; after each, its value must be taken. Raises DataError for what is no object."""
        if not self.opens("{"):
            raise DataError(f"{self.name} is not JSON with a page of features: it does not begin with {{", code="not-json")
        while self._next() != "}":
            key = self.value()
            self._step(":")
            yield key
            self._comma("}")
        self.at += 1
        if self._next():
            raise DataError(f"{self.name} goes on behind its end", code="not-json")

    def items(self) -> Iterator[Any]:
        """Each item of the list that was opened."""
        while self._next() != "]":
            yield self.value()
            self._comma("]")
        self.at += 1

    def opens(self, bracket: str) -> bool:
        """Whether this bracket is next; steps over it."""
        if self._next() != bracket:
            return False
        self.at += 1
        return True

    def value(self) -> Any:
        """The next value, whole."""
        self._next()
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.is_whole:
                    raise self._broken(error) from None
            else:
                # a number at the end of what was read may go on
                if end < len(self.text) or self.is_whole:
                    self.at = end
                    return found
            self._more()

    def _next(self) -> str:
        """The next sign that is no white space; "" at the end."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return self.text[self.at]
                self.at += 1
            if self.is_whole:
                return ""
            self._more()

    def _step(self, sign: str) -> None:
        if self._next() != sign:
            raise self._broken(None)
        self.at += 1

    def _comma(self, end: str) -> None:
        if self._next() != end:
            self._step(",")

    def _more(self) -> None:
        """Read on: as much again as is held, so that a long value is not looked through for each piece of it."""
        held = self.text[self.at :]
        piece = self.file.read(max(PIECE, len(held)))
        self.text, self.at, self.is_whole = held + piece, 0, not piece

    def _broken(self, error: json.JSONDecodeError | None) -> TransientError:
        if self._next() == "" or (error and (error.pos >= len(self.text.rstrip()) or error.msg.startswith("Unterminated string"))):
            return TransientError(f"{self.name} was cut: it ends in the middle", code="cut-body")
        return TransientError(f"{self.name} is not JSON{f': {error.msg}' if error else ''}", code="not-json")
