"""JSON documents read as they stream: the list of records that a path names, record by record, however big the document is. Pure.

What stands before the list is passed over value by value; memory is one record and a piece of the file. Where there is no list at
the root but one object after the other (JSON lines), those are the records.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from pipelines.errors import DataError, SetupError
from pipelines.formats.attributes import Number, loads

PIECE = 1024 * 1024
#: One record may be as big as this; a city's boundary has some megabytes.
LARGEST_RECORD = 256 * PIECE

_quick = msgspec.json.Decoder(float_hook=Number)
_WHITE = " \t\r\n"


def path_of(told: Any, title: str = "The pipeline") -> tuple[str, ...]:
    """The steps of "$.a.1.b": keys, and places in lists. Raises SetupError for what is no such path."""
    if not told:
        return ()
    steps = str(told).strip().removeprefix("$").removeprefix(".").split(".")
    if steps == [""]:
        return ()
    if not all(steps) or any(set(step) & set("[]*?@") for step in steps):
        raise SetupError(
            f"{title} has the jsonpath {told!r}, which is not of the form $.name.0.name.",
            code="bad-jsonpath",
            next_step="Write the keys from the root to the list, with dots between them; a place in a list is its number, from 0.",
        )
    return tuple(steps)


def decoded(raw: str) -> Any:
    """One value with its numbers as they stood: fractions are `Number`, whole numbers int. Raises ValueError."""
    try:
        return _quick.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # NaN, a line end inside a text, half a letter
        return loads(raw)


class Cursor:
    """A place in a JSON file. Raises DataError, with the place in words, for what is no JSON."""

    def __init__(self, page: Path):
        self._name = page.name
        self._file = page.open("rb")
        self._letters = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._decoder = json.JSONDecoder(strict=False)
        self._text, self._at, self._ended = "", 0, False
        self.where = "at its begin"
        #: the lists and objects that were entered and not left
        self._open: list[str] = []

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def wrong(self, what: str) -> NoReturn:
        raise DataError(
            f"{self._name} is not the JSON that it should be: {self.where} {what}.",
            code="bad-json",
            next_step="Look at the raw file; if the source answers with something else now, tell the provider.",
        ) from None

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        if len(self._text) - self._at > LARGEST_RECORD:
            self.wrong(f"stands a value bigger than {LARGEST_RECORD:,} letters, or a broken one")
        piece = self._file.read(max(PIECE, len(self._text) - self._at))
        self._text, self._at = self._text[self._at :] + self._letters.decode(piece, final=not piece), 0
        self._ended = not piece
        return bool(piece)

    def sign(self) -> str:
        """The next letter that is no space, without taking it; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, sign: str) -> bool:
        """Pass that letter if it is the next one."""
        if self.sign() != sign:
            return False
        self._at += 1
        return True

    def raw(self) -> str:
        """The text of the next value."""
        self.sign()
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    self.wrong(f"{error.msg.lower()}")
                continue
            except RecursionError:
                self.wrong("values are nested too deep")
            # a number may go on in the next piece
            if end == len(self._text) and self._text[end - 1] not in '}]"' and not self._ended:
                self._more()
                continue
            text, self._at = self._text[self._at : end], end
            return text

    def items(self) -> Iterator[str]:
        """The texts of the values of the list that begins here."""
        self._enter("[")
        number = 0
        while not self._leave("]", number):
            number += 1
            self.where = f"in record {number:,}"
            yield self.raw()

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; the caller takes the value of each before the next."""
        self._enter("{")
        number = 0
        while not self._leave("}", number):
            number += 1
            yield self._key()

    def goto(self, place: int) -> bool:
        """Move to a place of the list that begins here; False where it has none."""
        self._enter("[")
        for number in range(place + 1):
            if self._leave("]", number):
                return False
            if number < place:
                self.raw()
        return True

    def leave_list(self) -> None:
        """Pass what is left of a list of which `items` gave some."""
        while not self._leave("]", 1):
            self.raw()

    def finish(self) -> None:
        """Read what follows to the end, so that a document that was cut off is never taken for a whole one."""
        while self._open:
            if self._open[-1] == "[":
                if not self._leave("]", 1):
                    self.raw()
            elif not self._leave("}", 1):
                self._key()
                self.raw()
        self.where = "at its end"
        if self.sign():
            self.wrong("something follows")

    def _enter(self, sign: str) -> None:
        self.take(sign)
        self._open.append(sign)

    def _leave(self, sign: str, number: int) -> bool:
        """Whether the list or object of which `number` members were read ends here; else the comma before the next is passed."""
        if self.take(sign):
            self._open.pop()
            return True
        if number and not self.take(","):
            self.wrong(f"neither a comma nor {sign} follows")
        return False

    def _key(self) -> str:
        if self.sign() != '"':
            self.wrong("a key is missing")
        key = json.loads(self.raw(), strict=False)
        if not self.take(":"):
            self.wrong(f"no colon follows the key {key!r}")
        self.where = f"behind {key!r}"
        return key


def go(cursor: Cursor, steps: Sequence[str]) -> list[str]:
    """Move to the value at that path. Returns [] if it is there, else what is where it breaks off."""
    for step in steps:
        if cursor.sign() == "[":
            if not step.isdecimal() or not cursor.goto(int(step)):
                return [f"a list, which has no {step}"]
            continue
        if cursor.sign() != "{":
            return [f"a value without keys where {step} should be"]
        there = []
        for key in cursor.members():
            if key == step:
                break
            there.append(key)
            cursor.raw()
        else:
            return there or ["no key at all"]
    return []


def not_there(page: Path, steps: Sequence[str], there: Sequence[str]) -> DataError:
    """What to say of a document that has no such path."""
    return DataError(
        f"{page.name} has nothing at {'.'.join(('$', *steps))}; there is {', '.join(there[:20])}.",
        code="bad-json",
        next_step="Change the pipeline's jsonpath, or look at the raw file: the source may have answered with an error.",
    )
