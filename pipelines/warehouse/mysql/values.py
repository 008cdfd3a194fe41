"""What a value of a city's file says, read as PostgreSQL reads it, for the cells that MariaDB's SQL can't be trusted with.

The plain majority (ISO times, plain numbers, `true`) is told in SQL by `plainly_good`. Every other cell comes here and goes
back as the plain text of what it means, or is rejected with its reason, which is in the words that PostgreSQL's rejects have.
"""

from __future__ import annotations

import json
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from typing import NoReturn

#: Digits that decimal(65,30) keeps before and after the point.
WHOLE, FRACTION = 35, 30

NOT_A_NUMBER = "not a number"
TOO_MANY_DIGITS = f"a number with more digits than the warehouse keeps ({WHOLE} before the point, {FRACTION} after it)"
NOT_A_TIME = "not a date and time"
HAS_A_ZONE = "has a zone, but the column is in local time"
NOT_A_TRUTH = "not true or false"
NOT_JSON = "not JSON"

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BLANKS = " \t\n\r\v\f"


class Refused(ValueError):
    """The value can't enter its column; the message is the reason in words."""


def meant(kind: str, text: str) -> str:
    """The plain text of a cell that is not empty, as `typed` in SQL reads it. Raises Refused.

    A number without an exponent; a time as "2026-01-02 03:04:05.678" (an instant in UTC); "true" or "false"; else as it is.
    """
    return _READERS[kind](text) if kind in _READERS else text


def _number(text: str) -> str:
    text = text.strip(_BLANKS)
    if not _NUMBER.fullmatch(text):
        raise Refused(NOT_A_NUMBER)
    value = Decimal(text)
    if not value:
        return "0"
    sign, digits, exponent = value.as_tuple()
    plain = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(plain)
    if len(plain) + exponent > WHOLE or -exponent > FRACTION:
        raise Refused(TOO_MANY_DIGITS)
    return format(Decimal((sign, tuple(map(int, plain)), exponent)), "f")


def _truth(text: str) -> str:
    word = text.strip(_BLANKS).lower()
    if word and ("true".startswith(word) or "yes".startswith(word) or word in ("on", "1")):
        return "true"
    if word and ("false".startswith(word) or "no".startswith(word) or word in ("of", "off", "0")):
        return "false"
    raise Refused(NOT_A_TRUTH)


def _no_constant(word: str) -> NoReturn:
    raise Refused(NOT_JSON)


def _json(text: str) -> str:
    try:
        found = json.loads(text, parse_constant=_no_constant)
        # a NUL and half a character are JSON, but no text that PostgreSQL's jsonb, or a portal, takes
        if "\\u0000" in json.dumps(found) or not json.dumps(found, ensure_ascii=False).encode():
            raise Refused(NOT_JSON)
    except (ValueError, RecursionError):
        raise Refused(NOT_JSON) from None
    return text


# times

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
    "january": 1, "february": 2, "march": 3, "april": 4, "june": 6, "july": 7, "august": 8, "sept": 9, "september": 9, "october": 10,
    "november": 11, "december": 12,
}  # fmt: skip
_DAYS = {
    "mon", "tue", "wed", "thu", "fri", "sat", "sun", "tues", "wednes", "weds", "thur", "thurs",
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
}  # fmt: skip
#: Hours east of UTC of the zones that are known by letters.
_ZONES = {
    "z": 0, "zulu": 0, "ut": 0, "utc": 0, "gmt": 0, "wet": 0, "cet": 1, "bst": 1, "west": 1, "cest": 2, "eet": 2, "eest": 3, "msk": 3,
    "ast": -4, "adt": -3, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
    "akst": -9, "akdt": -8, "hst": -10, "jst": 9, "aest": 10, "aedt": 11, "nzst": 12, "nzdt": 13,
}  # fmt: skip
_CLOCK = re.compile(
    r"(?:^|(?P<t>[ t]))(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<fraction>\.[0-9]*)?)?(?:\s*(?P<half>am|pm)(?![a-z]))?"
    r"(?P<zone>\s*(?:[+-][0-9]{1,2}(?::?[0-9]{2}(?::?[0-9]{2})?)?|[a-z]+(?:/[a-z_]+(?:/[a-z_]+)?)?))?(?P<rest>\s.*)?$"
)
_DATES = [
    re.compile(shape)
    for shape in (
        r"(?P<y>[0-9]{4,})-(?P<m>[0-9]{1,2})-(?P<d>[0-9]{1,2})",
        r"(?P<y>[0-9]{4,})/(?P<m>[0-9]{1,2})/(?P<d>[0-9]{1,2})",
        r"(?P<m>[0-9]{1,2})(?P<s>[/.-])(?P<d>[0-9]{1,2})(?P=s)(?P<y>[0-9]{4,}|[0-9]{2})",
        r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})",
        r"(?P<m>[a-z]+)\.?[ -]+(?P<d>[0-9]{1,2})(?:, *|[ -]+)(?P<y>[0-9]{4,})",
        r"(?P<d>[0-9]{1,2})[ -]+(?P<m>[a-z]+)[ -]+(?P<y>[0-9]{4,}|[0-9]{2})",
        r"(?P<y>[0-9]{4,})-(?P<m>[a-z]+)-(?P<d>[0-9]{1,2})",
    )
]
_DIGITS = re.compile(r"[0-9/.-]+")
_DAY_AND_ZONE = re.compile(r"(?P<day>.*[0-9])\s*(?P<zone>[+-][0-9]{2}(?::?[0-9]{2})?|[a-z]+(?:/[a-z_]+)*)")
_COMPACT = re.compile(r"^([0-9]{8})[t ]([0-9]{2})([0-9]{2})([0-9]{2})(?![0-9:])")
_WEEKDAY = re.compile(r"([a-z]+)[, ]+")


@cache
def _zone_names() -> dict[str, str]:
    return {name.lower(): name for name in zoneinfo.available_timezones()}


def _offset(word: str, local: datetime) -> timedelta:
    """How far a zone was ahead of UTC at a local time. Raises Refused for a zone that nobody knows."""
    if word[0] in "+-":
        digits = word[1:].replace(":", "")
        hours, minutes, seconds = int(digits[:2]), int(digits[2:4] or 0), int(digits[4:6] or 0)
        if hours > 15 or minutes > 59 or seconds > 59:
            raise Refused(NOT_A_TIME)
        found = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return -found if word[0] == "-" else found
    if word in _ZONES:
        return timedelta(hours=_ZONES[word])
    if word not in _zone_names():
        raise Refused(NOT_A_TIME)
    zone = zoneinfo.ZoneInfo(_zone_names()[word])
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    # an hour that comes twice is the later one, an hour that is left out is reckoned by the clock before it, as PostgreSQL does
    return second if first > second else first


def _moment(text: str, *, is_instant: bool) -> str:
    # 20260102T030405 is written like any other first
    words = _COMPACT.sub(r"\1 \2:\3:\4", " ".join(text.lower().split()))
    hour = minute = second = 0
    extra, zone = timedelta(), ""
    if clock := _CLOCK.search(words):
        hour, minute, second = int(clock["hour"]), int(clock["minute"]), int(clock["second"] or 0)
        if clock["fraction"] and len(clock["fraction"]) > 1:
            extra = timedelta(microseconds=round(Decimal(clock["fraction"]) * 1_000_000))
        if clock["half"]:
            if hour > 12:
                raise Refused(NOT_A_TIME)
            hour = hour % 12 + (12 if clock["half"] == "pm" else 0)
        zone = (clock["zone"] or "").strip()
        if clock["t"] == "t" and not _DIGITS.fullmatch(words[: clock.start()].rpartition(" ")[2]):
            raise Refused(NOT_A_TIME)
        # the year may stand behind the clock: Wed Dec 17 07:37:16 1997
        words = f"{words[: clock.start()]}{clock['rest'] or ''}".strip()
    local = _day(words)
    if local is None and not clock and (split := _DAY_AND_ZONE.fullmatch(words)):
        local, zone = _day(split["day"]), split["zone"]
    if local is None:
        raise Refused(NOT_A_TIME)
    if minute > 59 or second > 60 or hour > 24 or (hour == 24 and (minute or second or extra)):
        raise Refused(NOT_A_TIME)
    try:
        local += timedelta(hours=hour, minutes=minute, seconds=second) + extra
        offset = _offset(zone, local) if zone else timedelta()
        if is_instant:
            local -= offset
    except OverflowError:
        raise Refused(NOT_A_TIME) from None
    if zone and not is_instant:
        raise Refused(HAS_A_ZONE)
    return local.replace(tzinfo=None).isoformat(sep=" ")


def _day(words: str) -> datetime | None:
    """Midnight of a day in words; None for what is no day."""
    if (weekday := _WEEKDAY.match(words)) and weekday[1] in _DAYS:
        words = words[weekday.end() :]
    for shape in _DATES:
        if found := shape.fullmatch(words):
            month = found["m"]
            number = int(month) if month.isdigit() else _MONTHS.get(month, 0)
            year = int(found["y"])
            if len(found["y"]) == 2:
                year += 2000 if year < 70 else 1900
            try:
                return datetime(year, number, int(found["d"]), tzinfo=UTC)
            except ValueError:
                return None
    return None


@lru_cache(maxsize=1 << 15)
def _local_time(text: str) -> str:
    return _moment(text, is_instant=False)


@lru_cache(maxsize=1 << 15)
def _instant(text: str) -> str:
    return _moment(text, is_instant=True)


_READERS = {"number": _number, "boolean": _truth, "json": _json, "local_time": _local_time, "instant": _instant}


# in SQL

_TIME = (
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,6})?)?)?"
)  # fmt: skip


def plainly_good(kind: str, cell: str) -> str:
    """A condition that is true only of text that `typed` reads as it is meant; `cell` is SQL, not empty."""
    if kind == "number":
        return f"{cell} regexp '^-?[0-9]{{1,{WHOLE}}}(\\.[0-9]{{1,{FRACTION}}})?$'"
    if kind in ("local_time", "instant"):
        end = "Z?$" if kind == "instant" else "$"
        # the 29th to 31st are there in some months only, and the year 0 never was
        last = f"substr({cell}, 9, 2) > '28' and substr({cell}, 9, 2) > day(last_day(concat(substr({cell}, 1, 7), '-01')))"
        return f"({cell} regexp '{_TIME}{end}' and not ({last}) and {cell} not like '0000%')"
    if kind == "boolean":
        return f"{cell} in ('true', 'false', 't', 'f', '1', '0')"
    if kind == "json":
        # it takes `\x` and `1.` for JSON
        return f"(json_valid({cell}) and instr({cell}, '\\') = 0 and {cell} not regexp '[0-9]\\.([^0-9]|$)')"
    return "true"


def typed(kind: str, cell: str, *, nullable: bool = True) -> str:
    """The value of a cell of plain text in SQL; an empty cell is NULL."""
    if kind == "boolean":
        return f"case when {cell} = '' then null else {cell} in ('true', 't', '1') end"
    given = f"nullif({cell}, '')" if nullable else cell
    if kind == "number":
        return f"cast({given} as decimal({WHOLE + FRACTION},{FRACTION}))"
    if kind == "local_time":
        return f"cast({given} as datetime(6))"
    if kind == "instant":
        return f"cast(trim(trailing 'Z' from {given}) as datetime(6))"
    return given


def as_text(kind: str, value: str) -> str:
    """A stored value in SQL as portals take it: text, and of a boolean 1 or 0."""
    if kind == "number":
        return f"trim(trailing '.' from trim(trailing '0' from cast({value} as char)))"
    if kind == "local_time":
        return f"left(date_format({value}, '%Y-%m-%dT%H:%i:%s.%f'), 23)"
    if kind == "instant":
        return f"concat(left(date_format({value}, '%Y-%m-%dT%H:%i:%s.%f'), 23), 'Z')"
    return value
