"""Feature layers as ArcGIS serves them: metadata, counts, object ids and pages of GeoJSON, with what is odd about real ones.

with ArcGIS({"/rest/services/Trees/FeatureServer/0": Layer("Trees", fields, features)}) as server:
    ...  # read f"{server.url}/rest/services/Trees/FeatureServer/0/query?where=1=1&f=geojson"

Errors come with status 200 and a body {"error": …}, as they do there. A page says that there are more at the top level, under
"properties", at both or at neither place (`Layer.flag`).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from . import toronto_rows
from .faults import Fault
from .wire import LocalServer, Reply, Request

Feature = dict[str, Any]

TOP, PROPERTIES, BOTH, NEITHER, ALWAYS = "top", "properties", "both", "neither", "always"


@dataclass
class Layer:
    """One layer. `fields` are (name, Esri's type), `features` GeoJSON's or a function that makes them when they are first asked for.

    `flag` says where a page tells that there are more; ALWAYS says so of the last one, too. A layer without `has_pages` (10.2 and
    older) knows neither resultOffset nor orderByFields, and gives its features in the order in which they lie. `empty_after`: the page
    that would begin behind so many features has none, and says that there are more. `ignores_order`, `ignores_ranges`: so it is
    told, and gives what it will. `token`: who does not name it gets 499. `edited` is in milliseconds of the epoch, None of a layer
    that does not say.
    """

    name: str
    fields: Sequence[tuple[str, str]]
    features: Sequence[Feature] | Callable[[], Sequence[Feature]] = field(repr=False)
    description: str = ""
    copyright: str = ""
    max_record_count: int = 2000
    flag: str = TOP
    has_pages: bool = True
    speaks_geojson: bool = True
    geometry_type: str = "esriGeometryPoint"
    edited: int | None = None
    empty_after: int | None = None
    ignores_order: bool = False
    ignores_ranges: bool = False
    token: str = ""
    #: a page waits for so many seconds
    slow: float = 0.0

    @property
    def id_field(self) -> str:
        return next(name for name, kind in self.fields if kind == "esriFieldTypeOID")

    def rows(self) -> Sequence[Feature]:
        if callable(self.features):
            self.features = self.features()
        return self.features


class _Refused(Exception):
    """An error as ArcGIS tells it: code, message, details."""

    def __init__(self, code: int, message: str, *details: str):
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


class ArcGIS(LocalServer):
    """Layers by path. `edit` changes one and its date."""

    def __init__(self, layers: Mapping[str, Layer], **server: Any):
        super().__init__(**server)
        self.layers = dict(layers)
        self._lock = threading.Lock()

    def edit(self, path: str, features: Sequence[Feature]) -> None:
        """Other features, and a later date of the last edit where the layer tells one."""
        layer = self.layers[path]
        with self._lock:
            layer.features = list(features)
            if layer.edited is not None:
                layer.edited += 1000

    def error_body(self, status: int) -> bytes:
        return json.dumps({"error": {"code": status, "message": "Error performing query operation", "details": []}}).encode()

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        path = request.path.rstrip("/")
        asked = dict(request.query)
        if request.method == "POST":
            asked |= dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        layer = self.layers.get(path.removesuffix("/query"))
        try:
            if path.endswith(("/rest/info", "/rest/services")):
                return Reply.of({"currentVersion": 11.2, "services": []})
            if layer is None:
                raise _Refused(400, "Invalid URL", "Invalid URL")
            if layer.token and asked.get("token") != layer.token:
                raise _Refused(498, "Invalid Token") if asked.get("token") else _Refused(499, "Token Required")
            if not path.endswith("/query"):
                return Reply.of(self._metadata(path, layer))
            if layer.slow:
                self.stopping.wait(layer.slow)
            return self._query(layer, asked)
        except _Refused as refused:
            return Reply.of({"error": {"code": refused.code, "message": refused.message, "details": list(refused.details)}})

    def _metadata(self, path: str, layer: Layer) -> dict[str, Any]:
        told: dict[str, Any] = {
            "currentVersion": 11.2 if layer.has_pages else 10.2,
            "id": int(path.rpartition("/")[2]),
            "name": layer.name,
            "type": "Feature Layer" if layer.geometry_type else "Table",
            "description": layer.description,
            "copyrightText": layer.copyright,
            "objectIdField": layer.id_field,
            "fields": [{"name": name, "type": kind, "alias": name.replace("_", " ").title()} for name, kind in layer.fields],
            "maxRecordCount": layer.max_record_count,
            "capabilities": "Query",
        }
        if layer.speaks_geojson:
            told["supportedQueryFormats"] = "JSON, geoJSON, PBF"
        else:
            told["supportedQueryFormats"] = "JSON, AMF"
        if layer.geometry_type:
            told["geometryType"] = layer.geometry_type
        if layer.has_pages:
            told["advancedQueryCapabilities"] = {"supportsPagination": True, "supportsOrderBy": True, "supportsStatistics": True}
        if layer.edited is not None:
            told["editingInfo"] = {"lastEditDate": layer.edited, "dataLastEditDate": layer.edited}
        return told

    def _query(self, layer: Layer, asked: Mapping[str, str]) -> Reply:
        where = asked.get("where", "")
        if not where:
            raise _Refused(400, "Cannot perform query. Invalid query parameters.", "'where' must be given")
        if layer.ignores_ranges:
            where = where.partition(" AND ")[0].strip("()")
        is_wanted = condition(where, [name for name, _ in layer.fields])
        with self._lock:
            found = [one for one in layer.rows() if is_wanted(one["properties"])]
        if asked.get("returnCountOnly") == "true":
            return Reply.of({"count": len(found)})
        if asked.get("returnIdsOnly") == "true":
            return Reply.of({"objectIdFieldName": layer.id_field, "objectIds": [one["properties"][layer.id_field] for one in found] or None})
        if asked.get("f") != "geojson" or not layer.speaks_geojson:
            raise _Refused(400, "Output format not supported.", "this layer of the practice city gives its features as geojson only")
        return self._page(layer, found, asked)

    def _page(self, layer: Layer, found: list[Feature], asked: Mapping[str, str]) -> Reply:
        if not layer.has_pages and {"resultOffset", "resultRecordCount", "orderByFields"} & set(asked):
            raise _Refused(400, "Pagination is not supported.", "resultOffset, resultRecordCount and orderByFields are not supported")
        if order := asked.get("orderByFields"):
            name, _, way = order.partition(" ")
            if name not in dict(layer.fields):
                raise _Refused(400, "Cannot perform query. Invalid query parameters.", f"'orderByFields' names {name}")
            if not layer.ignores_order:
                found.sort(key=lambda one: one["properties"][name], reverse=way.strip().upper() == "DESC")
        start, most = int(asked.get("resultOffset") or 0), layer.max_record_count
        if asked.get("resultRecordCount"):
            most = min(most, int(asked["resultRecordCount"]))
        page, has_more = found[start : start + most], len(found) > start + most
        if layer.empty_after is not None and page:
            begins = sorted(one["properties"][layer.id_field] for one in layer.rows()).index(page[0]["properties"][layer.id_field])
            if begins >= layer.empty_after:
                page, has_more = [], True
        body: dict[str, Any] = {"type": "FeatureCollection"}
        says = has_more or layer.flag == ALWAYS
        if says and layer.flag in (PROPERTIES, BOTH):
            body["properties"] = {"exceededTransferLimit": True}
        if says and layer.flag in (TOP, BOTH, ALWAYS):
            body["exceededTransferLimit"] = True
        wanted = asked.get("outFields", "*")
        names = None if wanted == "*" else {name.strip() for name in wanted.split(",")}
        blobs = {name for name, kind in layer.fields if kind in ("esriFieldTypeBlob", "esriFieldTypeRaster")}
        body["features"] = [_told(one, names, blobs) for one in page]
        return Reply(200, json.dumps(body, ensure_ascii=False).encode(), "application/geo+json; charset=utf-8")


def _told(feature: Feature, names: set[str] | None, blobs: set[str]) -> Feature:
    kept = {name: value for name, value in feature["properties"].items() if name not in blobs and (names is None or name in names)}
    return {**feature, "properties": kept}


# where


_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<sign><>|>=|<=|=|>|<|\(|\)))")
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


def condition(where: str, names: Sequence[str]) -> Callable[[Mapping[str, Any]], bool]:
    """What a where says, of a feature's properties: comparisons, AND, OR, brackets; names without their case. Raises the 400 of ArcGIS."""
    tokens, place, text = [], 0, where.rstrip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise _bad_where(where)
        tokens.append((found.lastgroup, found[found.lastgroup]))
        place = found.end()
    known = {name.lower(): name for name in names}
    left = tokens[::-1]

    def take(kind: str, *values: str) -> str | None:
        if left and left[-1][0] == kind and (not values or left[-1][1].upper() in values):
            return left.pop()[1]
        return None

    def either() -> Callable[[Mapping[str, Any]], bool]:
        parts = [both()]
        while take("word", "OR"):
            parts.append(both())
        return lambda row: any(part(row) for part in parts)

    def both() -> Callable[[Mapping[str, Any]], bool]:
        parts = [one()]
        while take("word", "AND"):
            parts.append(one())
        return lambda row: all(part(row) for part in parts)

    def one() -> Callable[[Mapping[str, Any]], bool]:
        if take("sign", "("):
            inner = either()
            if not take("sign", ")"):
                raise _bad_where(where)
            return inner
        first, sign, second = value(), take("sign", *_SIGNS), value()
        if sign is None:
            raise _bad_where(where)

        def compares(row: Mapping[str, Any]) -> bool:
            a, b = first(row), second(row)
            return a is not None and b is not None and _SIGNS[sign](a, b)

        return compares

    def value() -> Callable[[Mapping[str, Any]], Any]:
        if (said := take("text")) is not None:
            return lambda row: said[1:-1].replace("''", "'")
        if (said := take("number")) is not None:
            return lambda row: float(said)
        said = take("word")
        if said is None or said.lower() not in known:
            raise _bad_where(where)
        return lambda row: row.get(known[said.lower()])

    whole = either()
    if left:
        raise _bad_where(where)
    return whole


def _bad_where(where: str) -> _Refused:
    return _Refused(400, "Cannot perform query. Invalid query parameters.", f"'Invalid field or expression: {where[:80]}' parameter is invalid")


def toronto_layers() -> dict[str, Layer]:
    """The layer of the road reconstruction program, paged by fifty so that it takes several pages."""
    return {
        toronto_rows.ROADS_PATH: Layer(
            "COTGEO_TOINVIEW_PROGRAM_LINE", toronto_rows.ROAD_FIELDS, toronto_rows.road_works, "Programs that are shown in TO INview",
            "City of Toronto", max_record_count=50, flag=PROPERTIES, geometry_type="esriGeometryPolyline",
            edited=int(time.time() // 86_400) * 86_400_000,
        )
    }  # fmt: skip
