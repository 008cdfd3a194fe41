"""Walk through a JSON object that holds one long list: each item by itself, so that memory is one item deep, whatever the file weighs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pipelines.errors import DataError, TransientError

PIECE = 1024 * 1024
#: One item, or one member beside the list, may be as long as this (characters).
LONGEST = 64 * PIECE
#: An error so near the end of what was read may be a word or an escape that is cut there.
EDGE = 16
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class Envelope:
    """What an object held: `members` beside the list, the number of its `items`, and where it stood: `place` is "data.trips", "trips" or ""."""

    members: dict[str, Any] = field(default_factory=dict)
    items: int = 0
    place: str = ""


def read(path: Path, name: str, on_item: Callable[[Any], None] = lambda item: None, *, inside: str = "data", piece: int = PIECE) -> Envelope:
    """Walk the object in `path`; each item of its list `name` goes to `on_item`. The list stands at the top or in the object `inside`;
    `piece` characters are read at once.

    Raises TransientError("cut-body") for an object that does not end, TransientError("not-json") for what is not JSON, and
    DataError("not-an-object") for another value.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        walk = _Walk(file, path.name, piece)
        if walk.look() != "{":
            raise DataError(f"{path.name} is not a JSON object with a list {name!r} in it", code="not-an-object")
        members: dict[str, Any] = {}
        items, place = 0, ""
        for key in walk.members():
            opening = walk.look()
            if key == name and opening == "[":
                items, place = walk.items(on_item), name
            elif key == inside and opening == "{":
                for inner in walk.members():
                    if inner == name and walk.look() == "[":
                        items, place = walk.items(on_item), f"{inside}.{name}"
                    else:
                        walk.value()
            else:
                members[key] = walk.value()
        if walk.look():
            raise TransientError(f"{path.name} goes on after its end", code="not-json")
    return Envelope(members, items, place)


class _Walk:
    """A place in a JSON text that is read piece by piece."""

    def __init__(self, file: TextIO, name: str, piece: int):
        self.file, self.name, self.piece = file, name, piece
        self.text, self.at = "", 0
        self.has_ended = False
        self._decode = json.JSONDecoder(strict=False).raw_decode

    def look(self) -> str:
        """The next character that is no space, not yet taken; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        if (found := self.look()) != wanted:
            raise self._cut() if not found else self._odd(f"{found!r} where {wanted!r} belongs")
        self.at += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.look()
        while True:
            try:
                value, end = self._decode(self.text, self.at)
            except json.JSONDecodeError as error:
                at_edge = error.pos >= len(self.text) - EDGE or error.msg.startswith("Unterminated string")
                if not at_edge:
                    raise self._odd(error.msg) from None
                if not self._more():
                    raise self._cut() from None
                continue
            except RecursionError:
                raise self._odd("too deep a nesting") from None
            # a number that ends where the piece ends may go on in the next one
            if end < len(self.text) or not self._more():
                self.at = end
                return value

    def members(self) -> Any:
        """Yield the names of an object's members; whoever asks takes each value."""
        self.take("{")
        if self.look() == "}":
            self.at += 1
            return
        while True:
            if self.look() != '"':
                raise self._odd("a member without a name") if self.look() else self._cut()
            name = self.value()
            self.take(":")
            yield name
            if self.look() == ",":
                self.at += 1
                continue
            self.take("}")
            return

    def items(self, on_item: Callable[[Any], None]) -> int:
        """Give each item of a list away; returns how many there were."""
        self.take("[")
        if self.look() == "]":
            self.at += 1
            return 0
        number = 0
        while True:
            on_item(self.value())
            number += 1
            if self.look() == ",":
                self.at += 1
                continue
            self.take("]")
            return number

    def _more(self) -> bool:
        """Read on, forgetting what was taken; False at the end of the file."""
        if self.has_ended:
            return False
        kept = self.text[self.at :]
        if len(kept) > LONGEST:
            raise DataError(f"{self.name} holds a value of more than {LONGEST:,} characters", code="too-big")
        # as much again as is kept: a long value is not looked at once for each piece of it
        piece = self.file.read(max(self.piece, len(kept)))
        if not piece:
            self.has_ended = True
            return False
        self.text, self.at = kept + piece, 0
        return True

    def _cut(self) -> TransientError:
        return TransientError(f"{self.name} was cut: its JSON ends in the middle", code="cut-body")

    def _odd(self, what: str) -> TransientError:
        return TransientError(f"{self.name} is not JSON: {what}", code="not-json")
