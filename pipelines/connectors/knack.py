"""Knack, where the city keeps its devices: the records of an inventory, each device with the place where it stands.

Objects and filters are parameters; their defaults are those of the city of Austin. A field is known by its label in Knack, which
is asked for, since its key (field_884) is another in every application.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.connectors.base import Connector, Parameter
from pipelines.connectors.http import Manners
from pipelines.errors import DataError, SetupError, TransientError

#: Knack allows ten calls a second to an application; whoever makes more is shut out for a while.
CALLS_A_SECOND = 9
ATTEMPTS = 5
ROWS_A_PAGE = 1000
#: More pages than this are a loop that nobody has seen through.
MOST_PAGES = 1000

#: What is taken of a device and of its place, by label; everything else in Knack stays there.
OF_DEVICE = ("device_type", "atd_device_id", "device_name", "device_status", "device_ip", "ip_comm_status", "atd_location_id", "kits_id")
OF_PLACE = ("atd_location_id", "coa_intersection_id", "primary_st", "primary_st_segment_id", "cross_st", "cross_st_segment_id")
#: What is said of a device whose place is not there.
NOWHERE = dict.fromkeys((*OF_PLACE[1:], "lat", "lon"))
INVENTORIES = {
    "bt": {"object": "object_56", "where": {"field_884": "BLUETOOTH"}, "join": "ATD_LOCATION_ID"},
    "wt": {"object": "object_56", "where": {"field_884": "RADAR"}, "join": "ATD_LOCATION_ID"},
    "gs": {"object": "object_98", "where": {"field_2384": 1}, "join": "SIGNAL_ID", "constants": {"device_type": "GRIDSMART"}},
}


@dataclass(frozen=True)
class _Inventory:
    """Which devices an inventory has: an object of Knack, what its records must have, the label by which a place is found, what is said of each."""

    object: str
    where: Mapping[str, Any]
    join: str
    constants: Mapping[str, Any]


class Knack(Connector):
    """An application of Knack. It gives no rows to pipelines, but the records of inventories (`units`) to the upkeep job that asks for them."""

    kind = "knack"
    label = "Knack (inventory of devices)"
    can_count = False
    address_hint = "https://api.knack.com"
    parameters = (
        Parameter("app_id", "Application id", required=True),
        Parameter("api_key", "API key", secret=True, required=True),
        Parameter("locations", "Object of the places", default="object_11"),
        Parameter("location_field", "Their field with the coordinates", default="LOCATION"),
        Parameter(
            "inventories",
            "Inventories",
            default=json.dumps(INVENTORIES),
            help="JSON: code → object, its object, what a record must have (where), the label that names its place (join), constants.",
        ),
        Parameter(
            "names", "Labels of other words", default='{"READER_ID": "device_name"}', help="JSON: a label in Knack → the field of the inventory."
        ),
    )

    def test(self) -> str:
        asked = self._parameter("locations")
        fields = self._fields(asked)
        return f"Knack answered: {asked}, where the places are, has {len(fields):,} fields."

    def units(self, code: str) -> Iterator[dict[str, Any]]:
        """The devices of an inventory ("bt"), as Knack has them now. A device without a place is given without one. Raises PipelineError."""
        wanted = self._inventory(code)
        places = self._places(wanted.join)
        fields = self._fields(wanted.object)
        join = self._key(fields, wanted.join, wanted.object)
        names = self._names()
        keys = {self._field(label, names): key for label, key in fields.items()}
        for record in self._records(wanted.object, wanted.where, join):
            unit = {name: _value(record, keys[name]) for name in dict.fromkeys((*OF_DEVICE, *names.values())) if name in keys}
            unit |= {"ip_comm_status": unit.get("ip_comm_status"), **places.get(_joined(_value(record, join)), NOWHERE), **wanted.constants}
            yield unit

    # what the parameters say

    def _parameter(self, name: str) -> str:
        default = next(parameter.default for parameter in self.parameters if parameter.name == name)
        return (self.account.parameters.get(name) or default).strip()

    def _object(self, name: str) -> Mapping[str, Any]:
        """A parameter that is a JSON object. Raises SetupError."""
        try:
            told = json.loads(self._parameter(name))
        except ValueError as error:
            raise self._wrong(f"the parameter {name} is not JSON: {error}") from error
        if not isinstance(told, dict):
            raise self._wrong(f"the parameter {name} is no JSON object")
        return told

    def _wrong(self, words: str) -> SetupError:
        return SetupError(f"provider {self.account.slug}: {words}", code="knack-setup", next_step=f"Correct it in provider {self.account.slug}.")

    def _inventory(self, code: str) -> _Inventory:
        known = self._object("inventories")
        told = known.get(code)
        if told is None:
            raise self._wrong(f"there is no inventory {code!r}; there are {', '.join(sorted(known)) or 'none'}")
        if not isinstance(told, dict) or not all(isinstance(told.get(name), str) and told[name] for name in ("object", "join")):
            raise self._wrong(f"the inventory {code} needs an object and a join")
        where, constants = told.get("where") or {}, told.get("constants") or {}
        if not isinstance(where, dict) or not isinstance(constants, dict):
            raise self._wrong(f"the inventory {code} needs where and constants as objects of names and values")
        return _Inventory(told["object"], where, told["join"], constants)

    def _names(self) -> dict[str, str]:
        return {_label(label): str(name) for label, name in self._object("names").items()}

    @staticmethod
    def _field(label: str, names: Mapping[str, str]) -> str:
        return names.get(label, label)

    # what Knack says

    def _places(self, join: str) -> dict[str, dict[str, Any]]:
        """The places by what devices are joined to them by: streets, ids and coordinates."""
        place = self._parameter("locations")
        fields = self._fields(place)
        key = self._key(fields, join, place)
        point = self._key(fields, self._parameter("location_field"), place)
        found: dict[str, dict[str, Any]] = {}
        for record in self._records(place, {}, key):
            if not (name := _joined(_value(record, key))):
                continue
            told = _value(record, point)
            degrees = told if isinstance(told, dict) else {}
            # the first of two places of one name: the order is Knack's by that name, so it is the same every time
            found.setdefault(
                name,
                {field: _value(record, fields[field]) for field in OF_PLACE if field in fields}
                | {"lat": degrees.get("latitude"), "lon": degrees.get("longitude")},
            )
        return found

    def _key(self, fields: Mapping[str, str], label: str, where: str) -> str:
        try:
            return fields[_label(label)]
        except KeyError:
            raise self._wrong(
                f"{where} in Knack has no field labelled {label!r}; its labels are {', '.join(sorted(fields)[:40]) or 'none'}"
            ) from None

    def _fields(self, name: str) -> dict[str, str]:
        """Label (in small letters, with underscores) to key of the fields of an object."""
        told = self._ask(f"{name}/fields", {})
        fields = told.get("fields")
        if not isinstance(fields, list) or not all(isinstance(one, dict) and isinstance(one.get("key"), str) for one in fields):
            raise DataError(f"Knack does not say which fields {name} has", code="not-knack")
        return {_label(one.get("label") or one.get("name") or one["key"]): one["key"] for one in fields}

    def _records(self, name: str, where: Mapping[str, Any], order: str) -> Iterator[dict[str, Any]]:
        """Every record of an object that has these values, by the field `order`. Raises TransientError where they changed while they were read."""
        params = {"rows_per_page": ROWS_A_PAGE, "sort_field": order, "sort_order": "asc"}
        if where:
            rules = [{"field": field, "operator": "is", "value": value} for field, value in where.items()]
            params["filters"] = json.dumps({"match": "and", "rules": rules})
        seen: set[str] = set()
        for page in range(1, MOST_PAGES + 1):
            told = self._ask(f"{name}/records", {**params, "page": page})
            records, pages, total = told.get("records"), told.get("total_pages"), told.get("total_records")
            if not isinstance(records, list) or not isinstance(pages, int) or not isinstance(total, int) or not _are_records(records):
                raise DataError(f"Knack answered page {page} of {name} with what is no page of records", code="not-knack")
            for record in records:
                if record["id"] not in seen:
                    seen.add(record["id"])
                    yield record
            if page >= pages:
                # records that moved between two pages would come twice or be missing, and nobody would see it
                if len(seen) != total:
                    raise TransientError(f"Knack has {total:,} records of {name}, and gave {len(seen):,}: they changed meanwhile", code="knack-moved")
                return
        raise DataError(f"Knack gives more than {MOST_PAGES:,} pages of {name}", code="not-knack")

    def _ask(self, path: str, params: Mapping[str, str | int]) -> dict[str, Any]:
        secrets = self.account.secrets
        headers = {"X-Knack-Application-Id": self._app_id(), "X-Knack-REST-API-KEY": secrets.get("api_key", "")}
        reply = self.door.ask(
            "GET",
            f"{self.web_address}/v1/objects/{path}",
            params=params,
            headers=headers,
            expect="json",
            manners=Manners(attempts=ATTEMPTS, delay=1 / CALLS_A_SECOND),
        )
        if not isinstance(reply.json, dict):
            raise DataError(f"Knack answered {path} with what is no object", code="not-knack")
        return reply.json

    def _app_id(self) -> str:
        app_id = self.account.parameters.get("app_id", "").strip()
        if not app_id or not self.account.secrets.get("api_key"):
            raise self._wrong("Knack wants an application id and an API key")
        return app_id


def _are_records(records: Sequence[Any]) -> bool:
    return all(isinstance(record, dict) and isinstance(record.get("id"), str) for record in records)


def _label(text: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(text).strip().lower()).strip("_")


def _value(record: Mapping[str, Any], key: str) -> Any:
    """A field's value: the raw one, which is typed, where there is one; of a connection to other records their names; "" is nothing."""
    value = record.get(f"{key}_raw")
    if value is None:
        value = record.get(key)
    if isinstance(value, list):
        value = ", ".join(str(one.get("identifier") or "") if isinstance(one, dict) else str(one) for one in value)
    # what has no raw value may come as a piece of a web page
    return re.sub(r"<[^>]*>", "", value).strip() or None if isinstance(value, str) else value


def _joined(value: Any) -> str:
    """What two records are joined by, as text: a signal's number is 12 in one object and "12" in another."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
