"""What each version of MDS says of a trip, as data; and the judgement of one trip by it.

The official JSON Schemas (0.2 to 1.2) and the text of 2.x are the source; `tests/pipelines/formats/test_mds_rules.py` holds the
rules against the schemas. A trip that breaks its schema is not worthless: only what a row cannot be made without is an *error*,
the rest is a *warning*, mended where there is one way to understand it.

Beyond upstream's verdicts (a missing or null field is an error, any value of the right type is fine) we take what it refused
though one can read it: a number written as a text, a number where a text is due, an unknown key, an accuracy that is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Below it an instant is told in seconds, from it on in milliseconds (upstream's older tools cut here too: the year 2099).
SECONDS_END = 4_100_264_520
#: The last instant that a calendar has, in milliseconds: the end of the year 9999.
LAST_MS = 253_402_300_799_999
#: 1.2 and later know no trip before 2018.
FIRST_MS_1_2 = 1_514_764_800_000
LONGEST_TEXT = 255

UNKNOWN_KEY = "is a key that this version does not have"
MISSING = "is missing"

_ABSENT = type(None)
_NUMBERS = frozenset({int, float})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_NUMERIC = re.compile(r"\s*-?\d+(\.\d+)?\s*", re.ASCII).fullmatch
_CURRENCY = re.compile(r"[A-Z]{3}").fullmatch
PROPULSIONS = frozenset({"combustion", "electric", "electric_assist", "human"})
_PARKING = frozenset({"corral", "curb", "rack", "other_valid", "invalid"})
#: Two names of one field: who says a version and writes as another is understood.
_ALIASES = {"propulsion_type": "propulsion_types", "propulsion_types": "propulsion_type"}


class Problem(NamedTuple):
    """What is wrong with a field. `fits`: the version's schema does not mind it, only we do."""

    field: str
    words: str
    is_error: bool = False
    fits: bool = False


class Rule(NamedTuple):
    """What a field may be: a value of one of `types` of which `check` is true (a null is not asked); `kind` says how to mend it."""

    types: frozenset[type]
    check: Callable[[Any], Any] | None
    required: bool
    kind: str
    words: str = ""


class Rules(NamedTuple):
    """The rules of one version. `is_flat`: the trips stand at the top of the page, with locations in the place of a route (2.x)."""

    version: str
    fields: dict[str, Rule]
    required: int
    is_flat: bool
    allows_unknown: bool
    #: A trip without a route, or with one without points, is taken with no points: 0.2's operators sent them.
    takes_no_route: bool
    said: re.Pattern[str]
    propulsion: str
    #: Fields that upstream knew before the schema did.
    beyond: frozenset[str] = frozenset()


# the kinds of a field


def is_short(value: str) -> bool:
    return len(value) <= LONGEST_TEXT


def is_whole(value: float) -> bool:
    return type(value) is int or value.is_integer()


def is_seconds(value: float) -> bool:
    return 0 <= value < SECONDS_END


def is_milliseconds(value: float) -> bool:
    return SECONDS_END <= value <= LAST_MS and (type(value) is int or value.is_integer())


def is_milliseconds_1_2(value: float) -> bool:
    return FIRST_MS_1_2 <= value <= LAST_MS and (type(value) is int or value.is_integer())


def _listed(values: list[Any]) -> bool:
    try:
        return bool(values) and PROPULSIONS.issuperset(values)
    except TypeError:  # a list or an object among them
        return False


def is_listed_once(values: list[Any]) -> bool:
    return _listed(values) and len(set(values)) == len(values)


def _one_text(value: Any) -> bool:
    return type(value) is str or (len(value) <= 1 and all(type(one) is str for one in value))


def _secure(value: str) -> bool:
    return value.startswith("https://")


def _is_place(longitude: Any, latitude: Any) -> bool:
    return type(longitude) in _NUMBERS and type(latitude) in _NUMBERS and -180 <= longitude <= 180 and -90 <= latitude <= 90


def _location_fits(place: dict[str, Any]) -> bool:
    return _is_place(place.get("lng"), place.get("lat"))


def _rule(kind: str, types: set[type], check: Callable[[Any], Any] | None = None, words: str = "") -> Rule:
    return Rule(frozenset(types), check, True, kind, words)


_ID = _rule("id", {str}, _UUID, "is not a UUID in small letters")
_TEXT = _rule("text", {str})
_SHORT_TEXT = _rule("text", {str}, is_short, "is longer than 255 letters")
_WHOLE = _rule("number", {int, float}, is_whole, "is not a whole number")
_SECONDS = _rule("time", {int, float}, is_seconds, "is not in seconds, as this version has it")
_MS = _rule("time", {int, float}, is_milliseconds, "is not in whole milliseconds, as this version has it")
_MS_1_2 = _rule("time", {int, float}, is_milliseconds_1_2, "is not in whole milliseconds since 2018, as this version has it")
_PROPULSION = _rule("list", {list}, _listed, "is not a list of this version's propulsion types")
_PROPULSION_ONCE = _rule("list", {list}, is_listed_once, "is not a list of this version's propulsion types, each once")
_LOCATION = _rule("location", {dict}, _location_fits, "is not a place on the globe")
_ANY = _rule("any", {dict, list, str, int, float, bool, _ABSENT})


def _vehicle(*types: str) -> Rule:
    return _rule("text", {str}, frozenset(types).__contains__, "is not one of this version's vehicle types")


class Route:
    """True of a route of two or more points in a FeatureCollection, each with its time; `trouble` says why one is none."""

    def __init__(self, *, since: int = 0, whole: bool = True, bounded: bool = True):
        self.since, self.whole, self.bounded = since, whole, bounded

    def __call__(self, route: dict[str, Any]) -> bool:
        return not self.trouble(route)

    def trouble(self, route: dict[str, Any]) -> str:
        since = self.since
        try:
            features = route["features"]
            if route["type"] != "FeatureCollection" or type(features) is not list:
                return "is not a FeatureCollection"
            if len(features) < 2:
                return "has fewer than two points"
            for feature in features:
                geometry, stamp = feature["geometry"], feature["properties"]["timestamp"]
                point = geometry["coordinates"]
                if feature["type"] != "Feature" or geometry["type"] != "Point" or type(point) is not list:
                    return "holds something else than points"
                if not (type(stamp) is int and stamp >= since) and not self._is_time(stamp):
                    return "has a point whose timestamp is not of this version's kind"
                if self.bounded:
                    if len(point) != 2 or not _is_place(point[0], point[1]):
                        return "has a point that is not [longitude, latitude] on the globe"
                elif len(point) < 2 or any(type(number) not in _NUMBERS for number in point):
                    return "has a point that is not [longitude, latitude]"
        except (KeyError, TypeError):
            return "has a point without type, geometry or timestamp"
        return ""

    def _is_time(self, stamp: Any) -> bool:
        # the schemas count a point's time from 1970 in any unit: only a trip's own times are asked for theirs
        return type(stamp) in _NUMBERS and stamp >= self.since and (not self.whole or is_whole(stamp))


def _maybe(rule: Rule, *, nullable: bool = True) -> Rule:
    """The rule of a field that may be missing."""
    return rule._replace(required=False, types=rule.types | {_ABSENT} if nullable else rule.types)


# the versions


def _of(version: str, fields: dict[str, Rule], *, is_flat: bool = False, allows_unknown: bool = True, takes_no_route: bool = False) -> Rules:
    required = sum(rule.required for rule in fields.values())
    propulsion = "propulsion_type" if "propulsion_type" in fields else "propulsion_types"
    return Rules(version, fields, required, is_flat, allows_unknown, takes_no_route, re.compile(re.escape(version) + r"\.[0-9]+"), propulsion)


def _first(time: Rule, vehicle: Rule, route: Route) -> dict[str, Rule]:
    """The fields of 0.2 to 0.4."""
    return {
        "provider_name": _TEXT,
        "provider_id": _ID,
        "device_id": _ID,
        "vehicle_id": _TEXT,
        "vehicle_type": vehicle,
        "propulsion_type": _PROPULSION,
        "trip_id": _ID,
        "trip_duration": _WHOLE,
        "trip_distance": _WHOLE,
        "route": _rule("route", {dict}, route),
        "accuracy": _WHOLE,
        "start_time": time,
        "end_time": time,
        "parking_verification_url": _maybe(_rule("text", {str}, _secure, "does not begin with https://")),
        "standard_cost": _maybe(_WHOLE),
        "actual_cost": _maybe(_WHOLE),
    }


def _second(time: Rule, vehicle: Rule, route: Route) -> dict[str, Rule]:
    """The fields of 1.x."""
    fields = _first(time, vehicle, route)
    del fields["propulsion_type"]
    return fields | {
        "provider_name": _SHORT_TEXT,
        "vehicle_id": _SHORT_TEXT,
        "propulsion_types": _PROPULSION_ONCE,
        "publication_time": _maybe(time, nullable=False),
        "parking_verification_url": _maybe(_TEXT),
        "currency": _maybe(_rule("text", {str}, _CURRENCY, "is not a currency of three letters")),
    }


_SCOOTERS = ("bicycle", "scooter")
_THIRD = {
    "provider_id": _ID,
    "device_id": _ID,
    "trip_id": _ID,
    "start_time": _MS_1_2,
    "end_time": _MS_1_2,
    "start_location": _LOCATION,
    "end_location": _LOCATION,
    "duration": _WHOLE,
    "distance": _WHOLE,
    "data_provider_id": _maybe(_ID),
    "journey_id": _maybe(_ID),
    "journey_attributes": _maybe(_ANY),
    # a list of at most one in the OpenAPI description, a word in the text
    "trip_type": _maybe(_rule("word", {list, str}, _one_text, "is neither a word nor a list of one")),
    "trip_attributes": _maybe(_ANY),
    "fare_attributes": _maybe(_ANY),
    "accessibility_attributes": _maybe(_ANY),
    "publication_time": _maybe(_MS_1_2),
    "parking_verification_url": _maybe(_TEXT),
    "parking_category": _maybe(_rule("text", {str}, _PARKING.__contains__, "is not one of this version's parking categories")),
    "standard_cost": _maybe(_WHOLE),
    "actual_cost": _maybe(_WHOLE),
    "currency": _maybe(_rule("text", {str}, _CURRENCY, "is not a currency of three letters")),
}

# upstream knew a time of publication and a currency in every version
_0_2 = _first(_SECONDS, _vehicle(*_SCOOTERS), Route(whole=False, bounded=False)) | {"publication_time": _maybe(_SECONDS), "currency": _maybe(_TEXT)}
_0_3 = _first(_MS, _vehicle(*_SCOOTERS), Route(bounded=False)) | {"publication_time": _maybe(_MS, nullable=False), "currency": _maybe(_TEXT)}
_0_4 = _0_3 | {"vehicle_type": _vehicle(*_SCOOTERS, "car", "moped"), "route": _rule("route", {dict}, Route())}
_1_0 = _second(_MS, _vehicle(*_SCOOTERS, "car", "moped", "other"), Route())
_1_2 = _second(_MS_1_2, _vehicle(*_SCOOTERS, "cargo_bicycle", "car", "moped", "other"), Route(since=FIRST_MS_1_2))

VERSIONS: dict[str, Rules] = {
    "0.2": _of("0.2", _0_2, takes_no_route=True)._replace(beyond=frozenset({"publication_time", "currency"})),
    "0.3": _of("0.3", _0_3)._replace(beyond=frozenset({"currency"})),
    "0.4": _of("0.4", _0_4),
    "1.0": _of("1.0", _1_0, allows_unknown=False),
    "1.1": _of("1.1", _1_0, allows_unknown=False),
    "1.2": _of("1.2", _1_2, allows_unknown=False),
    "2.0": _of("2.0", _THIRD, is_flat=True),
    "2.1": _of("2.1", _THIRD, is_flat=True),
}


def version_of(said: object) -> Rules | None:
    """The rules of a version as anybody writes it: "0.2", "1.2.0", "2.0.2". None of one that we do not know."""
    return VERSIONS.get(".".join(str(said).strip().split(".")[:2]))


# the judgement of a trip


def odd_fields(trip: dict[str, Any], rules: Rules) -> list[str]:
    """The names of the fields that are not as the version has them, those that are missing among them. Nearly always none."""
    odd = []
    seen = 0
    known = rules.fields.get
    for name, value in trip.items():
        rule = known(name)
        if rule is None:
            odd.append(name)
            continue
        types, check, required, _, _ = rule
        if required:
            seen += 1
        if type(value) not in types or (check is not None and value is not None and not check(value)):
            odd.append(name)
    if seen < rules.required:
        odd += [name for name, rule in rules.fields.items() if rule.required and name not in trip]
    return odd


def mend(trip: dict[str, Any], odd: Sequence[str], rules: Rules, *, integer_ids: bool) -> tuple[dict[str, Any], list[Problem]]:
    """The trip as we understand it, and what was wrong with it. With an error among the problems it is no row.

    `integer_ids`: ids that are whole numbers are made UUIDs from the operator's (`integer_uuid`).
    """
    mended, problems = dict(trip), []
    for name in odd:
        rule = rules.fields.get(name)
        if rule is None:
            if name not in _ALIASES or _ALIASES[name] in trip:
                problems.append(Problem(name, UNKNOWN_KEY, fits=rules.allows_unknown))
            continue
        if name not in trip and (other := _ALIASES.get(name)) in trip:
            mended[name] = trip[other]
            problems.append(Problem(name, f"is called {other}"))
            if type(mended[name]) in rule.types and rule.check(mended[name]):
                continue
        value, problem = _mended(name, mended.get(name, MISSING), rule, rules, trip if integer_ids else None)
        mended[name] = value
        problems.append(problem._replace(fits=True) if name in rules.beyond else problem)
    return mended, problems


def _mended(name: str, value: Any, rule: Rule, rules: Rules, numbered: dict[str, Any] | None) -> tuple[Any, Problem]:
    """The value as we understand it, and what is wrong with it. `numbered` is the trip whose ids may be whole numbers."""
    needed = rule.required and not (name == "route" and rules.takes_no_route)

    def unreadable(words: str) -> tuple[Any, Problem]:
        empty = _NOWHERE if rule.kind == "route" else None
        return empty, Problem(name, words if needed else f"{words}, and is left out", is_error=needed)

    if value is MISSING:
        return unreadable(MISSING)
    if value is None:
        # an accuracy that the operator does not know, and says so, is the one number that nobody needs
        return unreadable("is null") if name != "accuracy" else (None, Problem(name, "is null"))
    return _MENDERS[rule.kind](name, value, rule, unreadable, numbered)


def _mend_id(name, value, rule, unreadable, numbered):
    if type(value) is int and name in ("trip_id", "device_id"):
        if numbered is None:
            return value, Problem(name, "is a whole number, and the provider has no rule for such ids", is_error=True)
        try:
            return integer_uuid(value, numbered.get("provider_id")), Problem(name, "is a whole number, made a UUID by the provider's rule")
        except ValueError as error:
            return value, Problem(name, str(error), is_error=True)
    if type(value) is not str:
        return unreadable("is not a text")
    if not value.strip():
        return unreadable("is empty")
    return value, Problem(name, rule.words)


def _mend_text(name, value, rule, unreadable, numbered):
    if type(value) in _NUMBERS:
        return str(value), Problem(name, "is a number where a text is due")
    if type(value) is not str:
        return unreadable("is not a text")
    return value, Problem(name, rule.words)


def _mend_number(name, value, rule, unreadable, numbered):
    if type(value) is str and _NUMERIC(value):
        return _number(value), Problem(name, "is a number written as a text")
    if type(value) not in _NUMBERS:
        return unreadable("is not a number")
    return value, Problem(name, rule.words)


def _mend_time(name, value, rule, unreadable, numbered):
    value, problem = _mend_number(name, value, rule, unreadable, numbered)
    if type(value) not in _NUMBERS:
        return value, problem
    if not 0 <= value <= LAST_MS:
        return unreadable("is no time between the years 1970 and 9999")
    if problem.words == rule.words and rule.check in (is_seconds, is_milliseconds) and (rule.check is is_seconds or is_whole(value)):
        # any number from 0 on is good for these schemas; that its unit is another's is for us to say
        problem = problem._replace(fits=True)
    return value, problem


def _mend_list(name, value, rule, unreadable, numbered):
    if type(value) is str:
        return [value], Problem(name, "is a text where a list is due")
    if type(value) is not list or any(type(one) is not str for one in value):
        return unreadable("is not a list of texts")
    return value, Problem(name, rule.words)


def _mend_word(name, value, rule, unreadable, numbered):
    if type(value) is not list or any(type(one) is not str for one in value):
        return unreadable("is not a list of texts")
    return value, Problem(name, rule.words)


def _mend_route(name, value, rule, unreadable, numbered):
    if type(value) is not dict:
        return unreadable("is not a route")
    features = value.get("features")
    if type(features) is not list or not features:
        return unreadable("has no points")
    ends = [_point(feature) for feature in (features[0], features[-1])]
    if None in ends:
        value, problem = unreadable(f"has no {'start' if ends[0] is None else 'end'} point")
        return _route_of(*(end or _NO_POINT for end in ends)), problem
    return _route_of(*ends), Problem(name, rule.check.trouble(value) or rule.words)


def _mend_location(name, value, rule, unreadable, numbered):
    if type(value) is not dict:
        return unreadable("is not a place")
    place = _pair(value.get("lng"), value.get("lat"))
    if place is None:
        return unreadable("has no lng and lat")
    return {**value, "lng": place[0], "lat": place[1]}, Problem(name, rule.words)


def _mend_any(name, value, rule, unreadable, numbered):
    return value, Problem(name, rule.words)


_MENDERS = {
    "id": _mend_id,
    "text": _mend_text,
    "number": _mend_number,
    "time": _mend_time,
    "list": _mend_list,
    "word": _mend_word,
    "route": _mend_route,
    "location": _mend_location,
    "any": _mend_any,
}


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _pair(longitude: Any, latitude: Any) -> tuple[float, float] | None:
    pair = [_number(one) if type(one) is str and _NUMERIC(one) else one for one in (longitude, latitude)]
    return tuple(pair) if all(type(one) in _NUMBERS for one in pair) else None


def _point(feature: Any) -> tuple[float, float] | None:
    """[longitude, latitude] of a point of a route, or None where it has none."""
    try:
        longitude, latitude, *_ = feature["geometry"]["coordinates"]
    except (KeyError, TypeError, ValueError):
        return None
    return _pair(longitude, latitude)


def _route_of(*ends: tuple[Any, Any]) -> dict[str, Any]:
    return {"features": [{"geometry": {"coordinates": end}} for end in ends]}


_NO_POINT = ("", "")
_NOWHERE = _route_of(_NO_POINT, _NO_POINT)


def integer_uuid(number: int, provider_id: Any) -> str:
    """The UUID of an id that is a whole number, as upstream made it for VeoRide: its hexadecimal digits behind those of the operator's id.

    Two numbers can come to one UUID where one continues the digits of the operator's id: such a trip is told apart by its values.
    Raises ValueError, in words, for a number or an operator's id that has no place in a UUID.
    """
    digits = f"{number:x}"
    stem = provider_id.replace("-", "") if type(provider_id) is str and _UUID(provider_id) else ""
    if not stem:
        raise ValueError("is a whole number, and there is no UUID in provider_id to make one of it")
    if number < 0 or len(digits) > len(stem):
        raise ValueError("is a whole number that no UUID can hold")
    made = stem[: len(stem) - len(digits)] + digits
    return "-".join((made[:8], made[8:12], made[12:16], made[16:20], made[20:]))
