"""The rules of each version of MDS say the same of a trip as its official JSON Schema, where that is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from django.conf import settings

from pipelines.formats.mds_plain import Plain
from pipelines.formats.mds_rules import VERSIONS, integer_uuid, mend, odd_fields, version_of
from pipelines.formats.mds_trips import Terms, TripReader
from tests.pipelines.formats.mds_samples import DEVICE, FULL, OPERATOR, ROUTED, body, page, trip

SCHEMAS = Path(settings.BASE_DIR).parent / "shared" / "data" / "mds" / "schema"
AWAY, NULL = ..., None


def points(*coordinates, at=1581433705000, kind="Point", **route):
    """A route with these points."""
    features = [{"type": "Feature", "properties": {"timestamp": at}, "geometry": {"type": kind, "coordinates": one}} for one in coordinates]
    return {"type": "FeatureCollection", "features": features, **route}


#: changes to a valid trip: each is valid in some versions and not in others
CHANGES = [
    {},
    *({name: AWAY} for name in trip("1.2")),
    *({name: NULL} for name in trip("1.2")),
    *({name: "12"} for name in ("trip_duration", "trip_distance", "accuracy", "start_time", "standard_cost", "route")),
    *({name: 12} for name in ("provider_name", "vehicle_id", "vehicle_type", "currency", "trip_id", "parking_verification_url")),
    *({name: 12.5} for name in ("trip_duration", "accuracy", "actual_cost")),
    *({name: 12.0} for name in ("trip_distance", "standard_cost")),
    *({name: True} for name in ("trip_distance", "end_time", "provider_id")),
    *({name: "B3CA5C86-7F45-4544-BF58-111111111111"} for name in ("trip_id", "device_id", "provider_id")),
    {"trip_id": "123"},
    {"trip_distance": -1},
    {"trip_duration": 10**9},
    {"publication_time": 1581433705.5},
    {"start_time": 1581433705123.5},
    *({"vehicle_type": kind} for kind in ("bicycle", "car", "moped", "cargo_bicycle", "other", "scooter_seated")),
    *({name: value} for name in ("propulsion_type", "propulsion_types") for value in (["electric"], ["electric", "electric"], ["steam"], "human")),
    {"propulsion_type": AWAY, "propulsion_types": AWAY},
    {"currency": "usd"},
    {"currency": "Dollar"},
    {"parking_verification_url": "http://example.org/x.jpg"},
    {"parking_verification_url": "https://example.org/x.jpg"},
    {"provider_name": "x" * 300},
    {"vehicle_id": "x" * 300},
    {"colour": "red"},
    {"route": {}},
    {"route": []},
    {"route": points()},
    {"route": points([-97.7, 30.2])},
    {"route": points([-97.7, 30.2], [])},
    {"route": points([-97.7, 30.2], [-97.7, 30.2, 150.0])},
    {"route": points([30.2, -97.7], [30.2, -97.7])},
    {"route": points([-97.7, 30.2], ["-97.7", "30.2"])},
    {"route": points([-97.7, 30.2], [-97.7, None])},
    {"route": points([-97.7, 30.2], [-97.7, 30.2], kind="LineString")},
    {"route": points([-97.7, 30.2], [-97.7, 30.2], at="now")},
    {"route": points([-97.7, 30.2], [-97.7, 30.2], at=-5)},
    {"route": points([-97.7, 30.2], [-97.7, 30.2], at=15814337.5)},
    {"route": points([-97.7, 30.2], [-97.7, 30.2], type="Features")},
    {"route": {"type": "FeatureCollection", "features": [1, 2]}},
    {"route": {"type": "FeatureCollection", "features": [{}, {}]}},
]


#: and to one of 2.x
PLACES = [
    *({"start_location": place} for place in ({}, [], {"lng": 200, "lat": 3}, {"lng": "1", "lat": 2}, {"lat": 30.2, "lng": -97, "more": 1})),
    *({"trip_type": kind} for kind in ("rider", ["rider"], ["rider", "x"], [1], {}, 5, None)),
    *({"parking_category": kind} for kind in ("curb", "sky", None, 4)),
    *({"duration": value} for value in (1, 1.0, 1.5, "1", True, None, 2**70)),
    *({"journey_id": value} for value in (None, "x", 7, "0309585e-599f-4e57-ac85-ffffffffffff")),
    {"fare_attributes": {"a": [1]}},
]


@pytest.mark.parametrize("version", ROUTED)
def test_the_rules_and_the_official_schema_agree(version):
    jsonschema = pytest.importorskip("jsonschema")
    path = SCHEMAS / f"{FULL[version]}.json"
    if not path.exists():
        pytest.skip("the official schemas are not at hand")
    oracle, rules = jsonschema.Draft6Validator(json.loads(path.read_text())), VERSIONS[version]
    differ, verdicts = [], set()
    for change in CHANGES:
        one = trip(version, **change)
        odd = odd_fields(one, rules)
        _, problems = mend(one, odd, rules, integer_ids=False)
        verdicts.add(fits := oracle.is_valid(page(version, one)))
        if all(problem.fits for problem in problems) != fits:
            differ.append((change, problems, fits))
    assert differ == [] and verdicts == {True, False}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_decoded_in_one_step_is_what_the_rules_find_nothing_odd_in(version):
    rules = VERSIONS[version]
    plain, taken = Plain(rules), 0
    for change in [*CHANGES, *PLACES]:
        one = trip(version, **change)
        found = plain.trip(msgspec.Raw(json.dumps(one).encode()))
        if found is not None:
            taken += 1
            assert odd_fields(one, rules) == [], change
            assert {name: getattr(found, name) for name in one if isinstance(one[name], str | int | float)} == {
                name: value for name, value in one.items() if isinstance(value, str | int | float)
            }
    # and it does take them: a trip as it should be, and what a version leaves free
    assert plain.trip(msgspec.Raw(json.dumps(trip(version)).encode())) is not None and taken > 5
    assert plain.trip(msgspec.Raw(b"[]")) is plain.trip(msgspec.Raw(b'{"trip_id": ')) is None


def test_a_version_is_known_however_it_is_written():
    assert [rules and rules.version for rules in map(version_of, ["0.2", "0.4.1", " 1.2.0 ", "2.0.2", 2.1])] == ["0.2", "0.4", "1.2", "2.0", "2.1"]
    assert [version_of(said) for said in ("", "3.0", None, "x", "0.20", 2)] == [None] * 6


@pytest.mark.parametrize(
    ("number", "uuid"),
    [
        (1, "0309585e-599f-4e57-ac85-fffffffffff1"),
        (104865, "0309585e-599f-4e57-ac85-fffffff199a1"),
        (99999999, "0309585e-599f-4e57-ac85-fffff5f5e0ff"),
        (0, "0309585e-599f-4e57-ac85-fffffffffff0"),
        (16**32 - 1, "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ],
)
def test_a_whole_number_becomes_the_uuid_that_upstream_made_of_it(number, uuid):
    assert integer_uuid(number, OPERATOR) == uuid


@pytest.mark.parametrize(("number", "operator"), [(-1, OPERATOR), (16**32, OPERATOR), (1, "sample"), (1, None), (1, 7)])
def test_a_number_that_has_no_place_in_a_uuid_is_refused_in_words(number, operator):
    with pytest.raises(ValueError, match="is a whole number"):
        integer_uuid(number, operator)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_trip_becomes_the_same_row_in_one_step_or_looked_at_closer(version, tmp_path, monkeypatch):
    """Both ways over the same trips: valid ones, odd ones and broken ones."""
    changes = [change | {"trip_id": f"{number:08d}-7f45-4544-bf58-111111111111"} for number, change in enumerate([*CHANGES, *PLACES])]
    held = tmp_path / "page.json"
    held.write_bytes(body(version, *(trip(version, **change) for change in changes)))

    def read() -> tuple:
        reader = TripReader(Terms(version=version), {DEVICE: ("VID120SF", "scooter", "electric")})
        refused = [(one.number, one.reason, one.raw) for one in reader.convert(held, tmp_path / "made.csv", {"version": version})]
        return (tmp_path / "made.csv").read_text(), refused, reader.report(), reader.tally

    at_once = read()
    monkeypatch.setattr(Plain, "trip", lambda self, raw: None)
    assert read() == at_once and at_once[2]["fit"] > 5
