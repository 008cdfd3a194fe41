"""JSON with the line of every name: Python's own reader knows only the value, and a mistake must be told with its line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from json.decoder import scanstring
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODE = json.JSONDecoder(parse_constant=lambda word: _no_number(word)).raw_decode
MOST_DEEP = 50


class NotJSON(ValueError):
    """What is wrong, in words without any of the text's own, and on which line."""

    def __init__(self, message: str, line: int):
        super().__init__(message)
        self.message, self.line = message, line


@dataclass(frozen=True)
class Twice:
    """A name that stands twice in one object: its path, its line and the line of the first."""

    path: str
    line: int
    first: int


@dataclass
class Document:
    """`value`, the line of each path (`bird.auth_data.username`), and the names that stand twice; of those the first counts."""

    value: Any = field(default=None, repr=False)  # secrets are among it
    lines: dict[str, int] = field(default_factory=dict)
    twice: list[Twice] = field(default_factory=list)


def parse(text: str) -> Document:
    """Raises NotJSON."""
    return _Parser(text).document()


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.told = Document()
        self._counted_to, self._line = 0, 1

    def document(self) -> Document:
        self.told.value, end = self._value(self._skip(0), "", 0)
        if self._skip(end) != len(self.text):
            raise NotJSON("something stands after its end", self._line_at(self._skip(end)))
        return self.told

    def _value(self, at: int, path: str, deep: int) -> tuple[Any, int]:
        if deep > MOST_DEEP:
            raise NotJSON("it is nested too deep", self._line_at(at))
        if self.text[at : at + 1] == "{":
            return self._object(at, path, deep)
        if self.text[at : at + 1] == "[":
            return self._list(at, path, deep)
        try:
            return _DECODE(self.text, at)
        except json.JSONDecodeError as error:
            raise NotJSON(_lowered(error.msg), self._line_at(min(error.pos, len(self.text)))) from None
        except ValueError:
            # NaN, or a number of thousands of digits
            raise NotJSON("a number can't be read", self._line_at(at)) from None

    def _object(self, at: int, path: str, deep: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self._skip(at + 1)
        while self.text[at : at + 1] != "}":
            if self.text[at : at + 1] != '"':
                raise NotJSON("a name in double quotes is wanted here", self._line_at(at))
            line = self._line_at(at)
            try:
                name, end = scanstring(self.text, at + 1, True)
            except json.JSONDecodeError as error:
                raise NotJSON(_lowered(error.msg), self._line_at(error.pos)) from None
            at = self._skip(end)
            if self.text[at : at + 1] != ":":
                raise NotJSON("a colon is wanted here", self._line_at(at))
            inner = f"{path}.{name}" if path else name
            value, end = self._value(self._skip(at + 1), inner, deep + 1)
            if name in found:
                self.told.twice.append(Twice(inner, line, self.told.lines[inner]))
            else:
                found[name], self.told.lines[inner] = value, line
            at = self._comma(end, "}")
        return found, at + 1

    def _list(self, at: int, path: str, deep: int) -> tuple[list[Any], int]:
        found = []
        at = self._skip(at + 1)
        while self.text[at : at + 1] != "]":
            value, end = self._value(at, f"{path}.{len(found) + 1}", deep + 1)
            found.append(value)
            at = self._comma(end, "]")
        return found, at + 1

    def _comma(self, at: int, closing: str) -> int:
        """Where the next item begins, or the closing bracket stands."""
        at = self._skip(at)
        if self.text[at : at + 1] == ",":
            after = self._skip(at + 1)
            if self.text[after : after + 1] == closing:
                raise NotJSON("a comma stands before the end, and nothing after it", self._line_at(at))
            return after
        if self.text[at : at + 1] != closing:
            raise NotJSON(f"a comma or {closing} is wanted here", self._line_at(at))
        return at

    def _skip(self, at: int) -> int:
        return _SPACE.match(self.text, at).end()

    def _line_at(self, at: int) -> int:
        # asked in order of place, nearly: the text is counted once, not once a name
        if at < self._counted_to:
            return self.text.count("\n", 0, at) + 1
        self._line += self.text.count("\n", self._counted_to, at)
        self._counted_to = at
        return self._line


def _lowered(words: str) -> str:
    return words[:1].lower() + words[1:]
