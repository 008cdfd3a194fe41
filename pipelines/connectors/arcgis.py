"""Feature layers of ArcGIS, on line or on a city's own server: described, counted, and read in pages of GeoJSON.

Pages are asked for by object id, "after the last one seen", in its order: an offset over rows that move loses some. A server
too old to put its features in order (10.2 and before) is asked for all its ids first, and then for a range of them at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from pipelines.connectors import geojson_pages
from pipelines.connectors.base import Connector, FetchedFile, FetchRequest, Parameter, Progress, SourceState
from pipelines.connectors.geojson_pages import Page
from pipelines.errors import DataError, PermanentError, PipelineError, SetupError, TransientError

#: What Esri calls a field's type → ours (text, int, float, date, timestamp). Dates come as milliseconds of the epoch.
TYPES = {
    "esriFieldTypeOID": "int",
    "esriFieldTypeInteger": "int",
    "esriFieldTypeSmallInteger": "int",
    "esriFieldTypeBigInteger": "int",
    "esriFieldTypeDouble": "float",
    "esriFieldTypeSingle": "float",
    "esriFieldTypeString": "text",
    "esriFieldTypeGUID": "text",
    "esriFieldTypeGlobalID": "text",
    "esriFieldTypeTimeOnly": "text",
    "esriFieldTypeTimestampOffset": "text",
    "esriFieldTypeDate": "timestamp",
    "esriFieldTypeDateOnly": "date",
}
#: What does not come in GeoJSON, or not as a value (esriFieldTypeBlob, Raster, XML); the geometry comes beside the fields.
GEOMETRY = "esriFieldTypeGeometry"
EVERYTHING = "1=1"
#: Of a layer that does not say how many features it gives at once: what every version gives.
USUAL_PAGE = 1000


@dataclass(frozen=True)
class _Layer:
    """What must be known of a layer to read it."""

    name: str
    id_field: str
    page_size: int
    has_order: bool


class ArcGIS(Connector):
    """Layers of one ArcGIS server. A resource is a layer's path, like /arcgis/rest/services/Trees/FeatureServer/0.

    Options of a pipeline: `where` is a filter as ArcGIS takes it ("STATUS = 'Open'").
    """

    kind = "arcgis"
    label = "ArcGIS feature layers"
    can_fetch = True
    address_hint = "https://services3.arcgis.com"
    parameters = (
        Parameter("token", "Token", secret=True, help="Of a layer that is not public."),
        Parameter("test_path", "Path to try", help="A layer that “Test connection” asks for; without it, only whether there is an ArcGIS server."),
    )

    def __init__(self, account: Any, door: Any):
        super().__init__(account, door)
        self._layers: dict[str, _Layer] = {}

    def test(self) -> str:
        """Ask for the layer to try; without one, for the list of services, of which any answer will do: many servers keep it to themselves."""
        host, path = urlsplit(self.web_address).netloc, self.account.parameters.get("test_path", "").strip()
        if path:
            return f"{host} answers; {path} is {self.describe(path).title}"
        try:
            version = self._ask(f"{self.web_address}/arcgis/rest/services", {}, "its list of services").get("currentVersion")
        except PermanentError as error:
            if not error.code.startswith(("http-", "arcgis-")):
                raise
            version = None
        told = f"{host} answers" + (f"; it is ArcGIS {version}" if version else "")
        return f"{told}; whether it takes our token can't be tested without a layer to try" if self._token else told

    # what is asked

    def _url(self, resource: str) -> str:
        path = resource.strip().split("?")[0].rstrip("/").removesuffix("/query")
        server, _, number = path.rpartition("/")
        if "://" in path or not number.isdigit() or not server.endswith(("/FeatureServer", "/MapServer")):
            raise SetupError(
                f"{resource!r} is not the path of an ArcGIS layer",
                code="bad-resource",
                next_step="Enter the path of one layer, with its number: /arcgis/rest/services/Trees/FeatureServer/0.",
            )
        return f"{self.web_address}/{path.lstrip('/')}".replace(" ", "%20")

    @property
    def _token(self) -> dict[str, str]:
        token = self.account.secrets.get("token", "")
        return {"token": token} if token else {}

    def _ask(self, url: str, params: Mapping[str, str], what: str) -> dict[str, Any]:
        """The JSON answer of ArcGIS, which tells its errors with status 200. Raises PipelineError."""
        told = self.door.get_json(url, {**params, "f": "json", **self._token})
        if not isinstance(told, dict):
            raise DataError(f"{urlsplit(url).netloc}, asked for {what}, did not answer with an object", code="not-arcgis")
        if "error" in told:
            self._refuse(told["error"], urlsplit(url).netloc, what, params.get("where", ""))
        return told

    def _refuse(self, error: Any, host: str, what: str, where: str) -> NoReturn:
        """Raise what an error of ArcGIS means."""
        said = error if isinstance(error, dict) else {}
        code = said.get("code")
        code = code if isinstance(code, int) else 0
        details = said.get("details")
        parts = [said.get("message"), *(details if isinstance(details, list) else [details])]
        words = self.door.redact("; ".join(dict.fromkeys(" ".join(str(part).split()) for part in parts if part))[:300]) or "no reason given"
        message, slug = f"{host}, asked for {what}, says {code or 'error'}: {words}", self.account.slug
        if code in (401, 403, 498, 499):
            step = f"Enter a new token of provider {slug}." if self._token else f"The layer is not public: enter a token of provider {slug}."
            raise SetupError(message, code=f"arcgis-{code}", next_step=step)
        if code == 429 or code >= 500 or not code:
            raise TransientError(message, code=f"arcgis-{code or 'error'}")
        is_filter = code == 400 and where not in ("", EVERYTHING)
        step = f"Compare the filter with the layer's fields: {where}" if is_filter else "Open the layer's page in a browser: it may have moved."
        raise SetupError(message, code=f"arcgis-{code}", next_step=step)

    # a source

    def describe(self, resource: str) -> SourceState:
        """What the layer says of itself. The version is the time of its last edit, None of a layer that tells none.

        metadata["fields"] are [name, type] as they come in pages, "geometry" among them; metadata["unsupported"] [name, Esri's type]
        of those that do not come.
        """
        url = self._url(resource)
        told = self._ask(url, {}, "the layer's description")
        fields = told.get("fields")
        if not isinstance(fields, list) or not fields or not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in fields):
            raise SetupError(
                f"{resource} of {urlsplit(url).netloc} has no fields: it is a group of layers, or a picture",
                code="not-a-table",
                next_step="Choose a layer or table of the service; its page lists their numbers.",
            )
        self._layers[resource] = _layer(resource, told)
        kinds = [(one["name"], str(one.get("type"))) for one in fields]
        comes = [[name, TYPES[kind]] for name, kind in kinds if kind in TYPES]
        edited = told.get("editingInfo") if isinstance(told.get("editingInfo"), dict) else {}
        stamp = edited.get("lastEditDate")
        changed_at = _moment(stamp)
        return SourceState(
            title=str(told.get("name") or resource),
            columns=(),
            version=str(stamp) if changed_at else None,
            changed_at=changed_at,
            description=str(told.get("description") or ""),
            metadata={
                "fields": comes + ([["geometry", "text"]] if told.get("geometryType") else []),
                "unsupported": [[name, kind] for name, kind in kinds if kind not in TYPES and kind != GEOMETRY],
                "labels": {one["name"]: str(one.get("alias") or "") for one in fields},
                "copyright": str(told.get("copyrightText") or ""),
                "geometry_type": str(told.get("geometryType") or ""),
                "object_id": self._layers[resource].id_field,
                "page_size": self._layers[resource].page_size,
            },
        )

    def _layer(self, resource: str) -> _Layer:
        if resource not in self._layers:
            self.describe(resource)
        return self._layers[resource]

    def count(self, resource: str, request: FetchRequest) -> int:
        told = self._ask(f"{self._url(resource)}/query", {"where": _where(request), "returnCountOnly": "true"}, "its number of features")
        count = told.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise DataError(f"asked how many features {resource} has, the server did not answer a number", code="no-count")
        return count

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield pages of GeoJSON as they came, in the order of the object ids; none when `rows` is 0.

        Raises TransientError("source-moved") when there are fewer or more than `rows`, DataError for a feature that comes twice and
        for a page that has no features and says that there are more.
        """
        if request.window_column or request.since_column:
            raise SetupError(
                f"the layers of provider {self.account.slug} are read whole, and the pipeline asks for {request.window_column or 'what is new'}",
                code="no-windows",
                next_step="Take the window column and the watermark column out of the pipeline; a filter is an option (`where`).",
            )
        if rows is None:
            rows = self.count(resource, request)
        if not rows:
            return
        layer = self._layer(resource)
        size = max(1, min(request.page_size, layer.page_size))
        reading = _Reading(self, resource, layer, request, workdir, size, rows)
        arrived = 0
        for file in reading.by_order() if layer.has_order else reading.by_ranges():
            arrived += file.rows or 0
            progress(arrived, rows)
            yield file
        if arrived != rows:
            raise TransientError(f"{layer.name} had {rows:,} features before it was read, and gave {arrived:,}", code="source-moved")


class _Reading:
    """One reading of a layer, page by page."""

    def __init__(self, source: ArcGIS, resource: str, layer: _Layer, request: FetchRequest, workdir: Path, size: int, rows: int):
        self.source, self.layer, self.workdir, self.size, self.rows = source, layer, workdir, size, rows
        self.url = f"{source._url(resource)}/query"
        self.host = urlsplit(self.url).netloc
        self.where = _where(request)
        self.number = 0

    def by_order(self) -> Iterator[FetchedFile]:
        """Pages behind the last object id seen, until all are there that were counted.

        What a page says of more is no guide: some servers say it of their last page, some of none, and a page may be short of what
        was asked for because the server has a limit of its own.
        """
        last: int | None = None
        arrived = 0
        order = {"orderByFields": f"{self.layer.id_field} ASC", "resultRecordCount": str(self.size)}
        while True:
            file, page = self._page(self._beyond(last), order)
            if not page.ids:
                if page.has_more:
                    raise self._stuck("after object id " + str(last) if last is not None else "at its beginning")
                return
            if last is not None and min(page.ids) <= last:
                raise self._twice(next(one for one in page.ids if one <= last))
            arrived += len(page.ids)
            goes_on = arrived < self.rows
            if goes_on and any(later < earlier for earlier, later in zip(page.ids, page.ids[1:], strict=False)):
                raise DataError(
                    f"{self.host} gives the features of {self.layer.name} out of order, though asked for the order of {self.layer.id_field}",
                    code="no-order",
                    next_step="Ask whoever runs the server; read by pages, such a layer would lose features.",
                )
            last = max(page.ids)
            yield file
            if not goes_on:
                return

    def by_ranges(self) -> Iterator[FetchedFile]:
        """Pages of so many object ids each, of a server that keeps no order. A range that is too much for it is halved."""
        ids = self._ids()
        ranges = [(start, min(start + self.size, len(ids))) for start in range(0, len(ids), self.size)][::-1]
        while ranges:
            start, end = ranges.pop()
            low, high = ids[start], ids[end - 1]
            within = f"({self.where}) AND {self.layer.id_field} >= {low} AND {self.layer.id_field} <= {high}"
            file, page = self._page(within, {})
            if strange := [one for one in page.ids if not low <= one <= high]:
                raise self._twice(strange[0])
            if page.has_more and end - start > 1 and len(page.ids) < end - start:
                file.path.unlink()
                self.number -= 1
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
                continue
            if not page.ids and page.has_more:
                raise self._stuck(f"at object id {low}")
            if page.ids:
                yield file

    def _ids(self) -> array[int]:
        """Every object id, in order: eight bytes each."""
        told = self.source._ask(self.url, {"where": self.where, "returnIdsOnly": "true"}, "its object ids")
        ids = told.get("objectIds") or []
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise DataError(f"{self.host} does not say which features {self.layer.name} has", code="no-object-id")
        return array("q", sorted(set(ids)))

    def _beyond(self, last: int | None) -> str:
        # object ids may be 0, and less: only the first page knows no beginning
        return self.where if last is None else f"({self.where}) AND {self.layer.id_field} > {last}"

    def _page(self, where: str, more: Mapping[str, str]) -> tuple[FetchedFile, Page]:
        """One page on disk, its features counted; none of them is in it twice. Raises PipelineError."""
        source, door = self.source, self.source.door
        self.number += 1
        path = self.workdir / f"features-{self.number:05d}.geojson"
        asked = {"where": where, "outFields": "*", "outSR": "4326", **more, "f": "geojson"}
        got = door.download(self.url, path, params={**asked, **source._token}, expect="json")
        page = geojson_pages.settle(path, self.layer.id_field)
        if page.error is not None:
            path.unlink()
            source._refuse(page.error, self.host, f"page {self.number} of {self.layer.name}", self.where)
        if len(set(page.ids)) != len(page.ids):
            seen: set[int] = set()
            raise self._twice(next(one for one in page.ids if one in seen or seen.add(one)))
        metadata = {
            "page": self.number,
            "first_id": min(page.ids, default=None),
            "last_id": max(page.ids, default=None),
            "request_id": got.request_id,
        }
        origin = door.redact(f"{self.url}?{urlencode(asked)}")
        return FetchedFile(path.name, path, len(page.ids), got.bytes, got.sha256, origin, metadata), page

    def _twice(self, one: int) -> PipelineError:
        return DataError(
            f"{self.host} gave the feature {self.layer.id_field} {one} of {self.layer.name} twice, or where it was not asked for",
            code="duplicate-rows",
            next_step="Ask whoever runs the server: its object ids are not unique, or it does not keep to what is asked.",
        )

    def _stuck(self, where: str) -> PipelineError:
        return DataError(
            f"{self.host} gave no features of {self.layer.name} {where}, and says that there are more",
            code="empty-page",
            next_step="Choose a smaller page size for the pipeline: one feature may be too big for what the server sends at once.",
        )


def _where(request: FetchRequest) -> str:
    """The filter of a request. Raises SetupError for one that is no text."""
    told = request.options.get("where") or ""
    if not isinstance(told, str):
        raise SetupError(
            "the filter of a layer is no text", code="bad-option", next_step="Write `where` like STATUS = 'Open' in the pipeline's options."
        )
    return told.strip() or EVERYTHING


def _layer(resource: str, told: Mapping[str, Any]) -> _Layer:
    """How a layer is to be read, by its description. Raises SetupError for one that can't be."""
    name = str(told.get("name") or resource)
    formats = str(told.get("supportedQueryFormats") or "geojson")
    if "geojson" not in formats.lower():
        raise SetupError(
            f"{name} gives its features as {formats}, and not as GeoJSON",
            code="no-geojson",
            next_step="Ask whoever runs the server for ArcGIS 10.4 or newer.",
        )
    id_field = told.get("objectIdField") or next((one["name"] for one in told["fields"] if one.get("type") == "esriFieldTypeOID"), "")
    unique = told.get("uniqueIdInfo")
    if not id_field or (isinstance(unique, dict) and unique.get("OIDFieldContainsHashValue")):
        raise SetupError(
            f"{name} has no object ids that stay, by which its pages could be asked for",
            code="no-object-id",
            next_step="Choose a layer that has an object id field.",
        )
    abilities = told.get("advancedQueryCapabilities")
    abilities = abilities if isinstance(abilities, dict) else {}
    most = told.get("maxRecordCount")
    return _Layer(
        name=name,
        id_field=str(id_field),
        page_size=most if isinstance(most, int) and most > 0 else USUAL_PAGE,
        has_order=bool(abilities.get("supportsPagination") and abilities.get("supportsOrderBy", True)),
    )


def _moment(stamp: Any) -> datetime | None:
    """A time as ArcGIS tells it, in milliseconds of the epoch; None for what is none."""
    if not isinstance(stamp, int | float) or isinstance(stamp, bool):
        return None
    try:
        return datetime.fromtimestamp(stamp / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
