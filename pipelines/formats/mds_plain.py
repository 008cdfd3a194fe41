"""Trips that are in every way as their version has them, decoded and judged in one step; nearly all trips are.

The rules of `mds_rules` become types that the decoder checks while it reads. They are never looser than the rules: what a type
refuses is asked again there, where the words are, and what no type can say is asked of the decoded trip.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pipelines.formats import mds_rules
from pipelines.formats.mds_rules import LAST_MS, LONGEST_TEXT, SECONDS_END, Rule, Rules

_Number = int | float
_Longitude = Annotated[int, Meta(ge=-180, le=180)] | Annotated[float, Meta(ge=-180, le=180)]
_Latitude = Annotated[int, Meta(ge=-90, le=90)] | Annotated[float, Meta(ge=-90, le=90)]
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class _Location(Struct, gc=False):
    lng: _Longitude
    lat: _Latitude
    horizontal_accuracy: Any = None


def _route(rule: mds_rules.Route) -> type:
    """A route of two or more points, as the version bounds them. A time that is no whole number is asked by the rules."""
    point = tuple[_Longitude, _Latitude] if rule.bounded else tuple[_Number, _Number]
    geometry = msgspec.defstruct("Geometry", [("type", Literal["Point"]), ("coordinates", point)], gc=False)
    stamped = msgspec.defstruct("Properties", [("timestamp", Annotated[int, Meta(ge=rule.since)])], gc=False)
    feature = msgspec.defstruct("Feature", [("type", Literal["Feature"]), ("geometry", geometry), ("properties", stamped)], gc=False)
    features = Annotated[list[feature], Meta(min_length=2)]  # type: ignore[valid-type]
    return msgspec.defstruct("Route", [("type", Literal["FeatureCollection"]), ("features", features)], gc=False)


def _words(rule: Rule) -> Any:
    """The one of some words that a text must be. A rule that is no list of them is asked of the decoded text."""
    words = getattr(rule.check, "__self__", None)
    return Literal[tuple(sorted(words))] if isinstance(words, frozenset) else str


def _type_of(rule: Rule) -> tuple[Any, bool]:
    """The type that the decoder checks for a rule, and whether the rule's own check must be asked as well."""
    check = rule.check
    if check is mds_rules.is_short:
        return Annotated[str, Meta(max_length=LONGEST_TEXT)], False
    if check is mds_rules.is_whole:
        return int, False
    if check is mds_rules.is_seconds:
        return Annotated[int, Meta(ge=0, lt=SECONDS_END)] | Annotated[float, Meta(ge=0, lt=SECONDS_END)], False
    if check is mds_rules.is_milliseconds:
        return Annotated[int, Meta(ge=SECONDS_END, le=LAST_MS)], False
    if check is mds_rules.is_milliseconds_1_2:
        return Annotated[int, Meta(ge=mds_rules.FIRST_MS_1_2, le=LAST_MS)], False
    match rule.kind:
        case "id":
            return str, False  # all at once, in `Plain`
        case "route":
            return _route(check), False
        case "location":
            return _Location, False
        case "list":
            propulsions = Literal[tuple(sorted(mds_rules.PROPULSIONS))]
            return Annotated[list[propulsions], Meta(min_length=1)], False  # type: ignore[valid-type]
        case "text":
            told = _words(rule)
            return told, told is str and check is not None
        case "word":
            return str | list[str], True
        case "any":
            return Any, False
    raise TypeError(f"no type says what a field of the kind {rule.kind!r} may be")


def _each_once(values: list[Any]) -> bool:
    return len(values) == 1 or len(set(values)) == len(values)


def _field(name: str, rule: Rule, told: Any) -> tuple[Any, ...]:
    if rule.required:
        return name, told
    return name, (told | None if type(None) in rule.types and told is not Any else told), None


class Plain:
    """The trips of one version that need no closer look."""

    def __init__(self, rules: Rules):
        self.rules = rules
        told = {name: _type_of(rule) for name, rule in rules.fields.items()}
        fields = [_field(name, rule, told[name][0]) for name, rule in rules.fields.items()]
        made = msgspec.defstruct(f"Trip_{rules.version.replace('.', '_')}", fields, kw_only=True, forbid_unknown_fields=True, gc=False)
        self._decode = msgspec.json.Decoder(made).decode
        self._asked: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
            (attrgetter(name), rule.check) for name, rule in rules.fields.items() if told[name][1] and rule.check
        ]
        self._asked += [(attrgetter(name), _each_once) for name, rule in rules.fields.items() if rule.check is mds_rules.is_listed_once]
        ids = [name for name, rule in rules.fields.items() if rule.kind == "id"]
        self._ids = attrgetter(*(name for name in ids if rules.fields[name].required))
        self._asked += [(attrgetter(name), rules.fields[name].check) for name in ids if not rules.fields[name].required]  # type: ignore[misc]
        self._are_ids = re.compile(" ".join([_UUID] * sum(rules.fields[name].required for name in ids))).fullmatch

    def trip(self, raw: msgspec.Raw) -> Any:
        """The trip as an object with the version's fields, None for those that are not there; None of a trip that must be looked at closer."""
        try:
            trip = self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not self._are_ids(" ".join(self._ids(trip))):
            return None
        for value_of, check in self._asked:
            if (value := value_of(trip)) is not None and not check(value):
                return None
        return trip
