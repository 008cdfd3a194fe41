"""Attributes: what a table's configuration says of each column, and the rules by which values become its typed text. Pure.

`Pipeline.options["attributes"]` is a list of `{"source", "name", "type", "format"}`; `parse` makes Attributes of it, or says in words
what is wrong. A `Cleaner` turns the values of one column, many at once, into the text that the warehouse reads: absent is "", numbers
are plain, dates `2024-03-15`, times `2024-03-15T13:02:03`, JSON compact. Zero is zero, nothing is nothing and never the word None.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from pipelines.errors import SetupError
from pipelines.formats import dates

#: The type of an attribute → the type of its column in the warehouse.
TYPES = {"text": "text", "int": "number", "float": "number", "date": "local_time", "timestamp": "local_time", "json": "json"}
#: The attribute that is made of the columns of latitude and longitude where the file has none of this name.
GEOMETRY = "geometry"
#: The attribute that is filled by what the address of the file says of its year.
FILE_DATE = "date_from_filename"
KEYS = ("source", "name", "type", "format")
#: PostgreSQL cuts longer names, and so must whoever asks for them.
LONGEST_NAME = 63
#: Of the values of a column of dates so many are remembered, for most stand there often.
MOST_KNOWN = 50_000
#: More digits before the point than any number that means something.
MOST_DIGITS = 300

_INTS = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,17}+)?+\n)*+")
_FLOATS = re.compile(r"(?:(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+)?+\n)*+")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


class Number(str):
    """A number's own text in a JSON document, told apart from a text that looks like one."""

    __slots__ = ()


class Unfit(ValueError):
    """A value that can't be of the column's type; its text follows the column's name in a sentence."""


@dataclass(frozen=True)
class Attribute:
    """One column: what the source calls it, what the city calls it, its type (one of TYPES) and, of dates, how they are written there."""

    source: str
    name: str
    type: str = "text"
    format: str = ""

    @property
    def kind(self) -> str:
        """The type of its column in the warehouse."""
        return TYPES[self.type]


def fitting(name: str) -> str:
    """A name as PostgreSQL would cut it: at most 63 bytes, no letter broken."""
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


# the configuration


def problems(told: Any) -> list[str]:
    """What is wrong with a list of attributes as it stands in a configuration, each in a sentence without its full stop; [] if nothing is."""
    if not isinstance(told, list) or not told:
        return ["attributes is not a list of columns, each with name and type"]
    found: list[str] = []
    names: dict[str, int] = {}
    for number, one in enumerate(told, start=1):
        if not isinstance(one, Mapping):
            found.append(f"attribute {number} is not a mapping of name and type")
            continue
        name = one.get("name") or one.get("source")
        if not isinstance(name, str) or not name.strip():
            found.append(f"attribute {number} has no name")
            continue
        found += [f"attribute {name!r} has the unknown key {key!r}{suggestion(str(key), KEYS)}" for key in one if key not in KEYS]
        kind = one.get("type", "text")
        if kind not in TYPES:
            found.append(f"attribute {name!r} has the unknown type {kind!r}{suggestion(str(kind), TYPES) or '; known are ' + ', '.join(TYPES)}")
        elif kind in ("date", "timestamp") and (why := dates.why_no_format(one.get("format"))):
            found.append(f"attribute {name!r} is of the type {kind} and {why}")
        if len(name.encode()) > LONGEST_NAME:
            found.append(f"attribute {name!r} has a name longer than {LONGEST_NAME} bytes; PostgreSQL would call it {fitting(name)!r}")
        names[name] = names.get(name, 0) + 1
    return found + [f"attribute {name!r} stands {times} times" for name, times in names.items() if times > 1]


def parse(options: Mapping[str, Any], title: str = "The pipeline") -> tuple[Attribute, ...]:
    """The attributes of a pipeline's options. Raises SetupError that names every one that is wrong."""
    told = options.get("attributes")
    if wrong := problems(told):
        raise SetupError(
            f"{title} can't be read as configured: {'; '.join(wrong)}.",
            code="bad-attributes",
            next_step="Mend these attributes in the pipeline's configuration.",
        )
    return tuple(
        Attribute(
            source=one.get("source") or one["name"],
            name=one.get("name") or one["source"],
            type=one.get("type", "text"),
            format=one.get("format") or "",
        )
        for one in told
    )


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known word, to be set behind a sentence; "" where none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


# values


@dataclass(frozen=True)
class Cleaned:
    """The texts of a column's values in their order, and why some of them have none: place → words that follow the column's name."""

    texts: Sequence[str]
    unfit: Mapping[int, str]


_ALL_FIT: Mapping[int, str] = {}


class Cleaner:
    """Makes typed text of one attribute's values. `is_text`: every value is text or None, as in CSV; else they are JSON's or a workbook's."""

    def __init__(self, attribute: Attribute, zone: tzinfo = UTC, *, is_text: bool = False):
        self.attribute = attribute
        self._is_text = is_text
        self._one = self._rule(attribute, zone)
        self._known = _Known(self._one)

    def column(self, values: Sequence[Any]) -> Cleaned:
        """All values at once where nothing is odd about them, one by one where something is."""
        match self.attribute.type:
            case "text" if self._is_text:
                return Cleaned(values if None not in values else ["" if value is None else value for value in values], _ALL_FIT)
            case "text":
                one = self._one
                return Cleaned([value if type(value) is str else "" if value is None else one(value) for value in values], _ALL_FIT)
            case "int" | "float" as kind:
                texts = values if self._is_text and None not in values else [_text_of_number(value) for value in values]
                joined = "\n".join(texts) + "\n"
                if joined.count("\n") == len(texts) and (_INTS if kind == "int" else _FLOATS).fullmatch(joined):
                    return Cleaned(texts, _ALL_FIT)
            case "date" | "timestamp":
                known = self._known
                try:
                    return Cleaned([known[value] for value in values], _ALL_FIT)
                except (Unfit, TypeError):
                    pass
        return self._one_by_one(values)

    def _one_by_one(self, values: Sequence[Any]) -> Cleaned:
        texts, unfit, one = [], {}, self._one
        for place, value in enumerate(values):
            try:
                texts.append(one(value))
            except Unfit as error:
                texts.append("")
                unfit[place] = str(error)
        return Cleaned(texts, unfit)

    def _rule(self, attribute: Attribute, zone: tzinfo) -> Callable[[Any], str]:
        match attribute.type:
            case "int":
                return whole
            case "float":
                return decimal
            case "json":
                return json_of_text if self._is_text else compact
            case "date" | "timestamp":
                return _moments(attribute, zone)
        return text


class _Known(dict):
    """Values that were read before → their texts; not for ever more of them."""

    def __init__(self, one: Callable[[Any], str]):
        super().__init__()
        self._one = one

    def __missing__(self, value: Any) -> str:
        made = self._one(value)
        if len(self) >= MOST_KNOWN:
            self.clear()
        self[value] = made
        return made


def text(value: Any) -> str:
    """A value in a column of text: as it stands in the document; lists and mappings are compact JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case float() if math.isnan(value):
            return ""
        case datetime() | date() | time() | timedelta():
            return _text_of_time(value)
        case Mapping() | list():
            return compact(value)
    return str(value)


def whole(value: Any) -> str:
    """A whole number: 3, "3", "3.0", " 1,000 ", 3.0; true is 1. Raises Unfit."""
    found = _decimal(value)
    if found is None:
        return ""
    if found != found.to_integral_value():
        raise Unfit("is not a whole number")
    return str(int(found))


def decimal(value: Any) -> str:
    """A number, with the digits that it came with, without an exponent. Raises Unfit."""
    found = _decimal(value)
    return "" if found is None else format(found, "f")


def _decimal(value: Any) -> Decimal | None:
    match value:
        case None:
            return None
        case bool() | int():
            return _bounded(Decimal(int(value)))
        case float():
            # the original scripts took NaN for nothing, too
            if math.isnan(value):
                return None
            value = repr(value)
        case str():
            value = value.replace("\x00", " ").strip()
        case _:
            raise Unfit("is not a number")
    if not value:
        return None
    if _GROUPED.fullmatch(value):
        value = value.replace(",", "")
    if not _NUMBER.fullmatch(value):
        raise Unfit("is not a number")
    return _bounded(Decimal(value))


def _bounded(number: Decimal) -> Decimal:
    if number and abs(number.adjusted()) > MOST_DIGITS:
        raise Unfit("has more digits than any number that means something")
    return number


def _text_of_number(value: Any) -> str:
    """What is plainly a number or nothing as text; of anything else a text that the pattern of plain numbers refuses."""
    match value:
        case None:
            return ""
        case bool():
            return "?"
        case str():
            return value
    return str(value)


def _moments(attribute: Attribute, zone: tzinfo) -> Callable[[Any], str]:
    read, is_date = dates.reader_of(attribute.format, zone), attribute.type == "date"
    words = "is not a number of milliseconds since 1970" if attribute.format == dates.EPOCH else f"is not a date of the form {attribute.format}"

    def moment(value: Any) -> str:
        match value:
            case None:
                return ""
            case bool():
                raise Unfit(words)
            case float() if math.isnan(value):
                return ""
            case datetime():
                found = value
            case date():
                found = datetime.combine(value, time())
            case float() if value.is_integer() and attribute.format != dates.EPOCH:
                # a workbook's 20240315 may be 20240315.0
                return moment(str(int(value)))
            case str() | int() | float():
                if isinstance(value, str) and not (value := value.replace("\x00", " ").strip()):
                    return ""
                try:
                    found = read(value)
                except ValueError:
                    raise Unfit(words) from None
            case _:
                raise Unfit(words)
        return found.date().isoformat() if is_date else found.replace(tzinfo=None).isoformat(timespec="seconds")

    return moment


def _text_of_time(value: datetime | date | time | timedelta) -> str:
    return value.isoformat(" ", "seconds") if isinstance(value, datetime) else str(value)


# JSON


def compact(value: Any) -> str:
    """JSON on one line, with its numbers as they stood; "" for nothing. A text that is JSON's itself is taken as such. Raises Unfit."""
    if value is None or value == "":
        return ""
    if type(value) is str and value.lstrip()[:1] in ("{", "["):
        try:
            return json_of_text(value)
        except Unfit:
            pass  # a text that begins with a bracket, and no more
    try:
        return _compact(value)
    except (TypeError, ValueError, RecursionError):
        raise Unfit("is not JSON") from None


def json_of_text(value: Any) -> str:
    """A cell that must be JSON, compact; "" for nothing. Raises Unfit."""
    if value is None or not value.strip():
        return ""
    try:
        return _compact(loads(value))
    except (ValueError, RecursionError):
        raise Unfit("is not JSON") from None


def loads(document: str) -> Any:
    """JSON with its numbers as they stand (Number), NaN as nothing. Raises ValueError."""
    return json.loads(document, strict=False, parse_float=Number, parse_constant=_constant)


def _constant(word: str) -> Any:
    # no number of a document is infinite: it is refused where a number is wanted
    return None if word == "NaN" else Number(word)


def _compact(value: Any) -> str:
    match value:
        case Number():
            if not _NUMBER.fullmatch(value):
                raise ValueError(f"{value} is no number")
            return str(value)
        case str():
            return json.dumps(value.replace("\x00", " "), ensure_ascii=False)
        case Mapping():
            return "{" + ",".join(f"{_compact(str(name))}:{_compact(inner)}" for name, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_compact, value)) + "]"
        case datetime() | date() | time() | timedelta():
            return json.dumps(_text_of_time(value))
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
