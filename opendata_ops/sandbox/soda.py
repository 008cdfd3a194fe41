"""A Socrata portal on this machine: SODA 2.1 read and write, metadata, catalog, SODA3 queries, and every error shape.

It answers as the real ones were measured to (facts/socrata.md §3). Where the facts say nothing, the choice is marked
"assumed" here. Rows come in no particular order unless one is asked for, and in another one each time.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import hmac
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import soql
from .faults import Fault
from .tables import CATALOG_TYPES, SYSTEM_TYPES, Column, Dataset, IllegalField, Record, utc_text
from .wire import LocalServer, Reply, Request, in_blocks

ID = r"([a-z0-9]{4}-[a-z0-9]{4})"
CSV = "text/csv; charset=UTF-8"
JSON = "application/json;charset=utf-8"
#: more rows than this in one answer are sent in chunks as they are made
STREAMED = 100_000
#: header space that the real portal gives to X-SODA2-Fields and -Types
HEADER_ROOM = 4096

#: what an error status looks like when it is not about a query
BODIES: dict[int, dict[str, Any]] = {
    202: {"code": "accepted", "message": "Your request is still processing. Please try again."},
    400: {"code": "query.compiler.malformed", "error": True, "message": "Could not parse SoQL query", "data": {"query": ""}},
    401: {"code": "authentication_required", "error": True, "message": "Invalid username or password"},
    403: {"message": "You must be logged in to access this resource", "error": True},
    404: {"code": "dataset.missing", "error": True, "message": "Not found", "data": {"id": "gone-gone"}},
    410: {"code": "dataset.retired", "error": True, "message": "This dataset has been retired"},
    413: {"code": "payload_too_large", "error": True, "message": "Request entity too large"},
    429: {"code": "too_many_requests", "error": True, "message": "Too many requests"},
    500: {"error": True, "message": "Internal error", "status": 500},
    503: {"error": True, "message": "Service Unavailable", "status": 503},
    504: {"code": "execution_timeout", "error": True, "message": "Execution timed out"},
}


class Refused(Exception):
    """The portal's refusal as a reply."""

    def __init__(self, status: int, body: Mapping[str, Any] | None = None, **headers: str):
        super().__init__(status)
        self.reply = Reply.of(BODIES[status] if body is None else body, status, **headers)


@dataclass
class Page:
    """Rows on their way out: field names, their SODA types, and tuples of values in the portal's own form."""

    names: list[str]
    types: list[str]
    rows: Iterable[Sequence[Any]]
    size: int
    nulls_kept: bool = False


class Portal(LocalServer):
    """A Socrata portal with `datasets`, on a free port of this machine.

    `accounts` (user → password) may log in by Basic authentication; where there are any, publishing needs one of them.
    `viewers` may read private datasets and not publish. `require_token` refuses reads without an app token; with `tokens`, a
    token must be one of them. `limit_cap` is the 50,000 of the old portals. `count_key` is the name under which a bare
    `count(*)` comes; a portal that is not of the `new_backend` writes the counts of its metadata as numbers. `compress` answers
    in gzip to who accepts it. `state` is a folder that keeps published rows over a restart.
    """

    def __init__(
        self,
        *datasets: Dataset,
        accounts: Mapping[str, str] | None = None,
        viewers: Mapping[str, str] | None = None,
        require_token: bool = False,
        tokens: Iterable[str] = (),
        limit_cap: int | None = None,
        count_key: str = "count",
        new_backend: bool = True,
        compress: bool = False,
        state: str | Path | None = None,
        **server: Any,
    ):
        super().__init__(**server)
        self.datasets: dict[str, Dataset] = {}
        self.accounts = dict(accounts or {})
        self.viewers = dict(viewers or {})
        self.require_token = require_token
        self.tokens = frozenset(tokens)
        self.limit_cap = limit_cap
        self.count_key = count_key
        self.new_backend = new_backend
        self.compress = compress
        self.state = Path(state) if state else None
        self._kept: dict[str, int] = {}
        self._keeping = threading.Lock()
        for dataset in datasets:
            self.add(dataset)

    # what a test or the practice city does with it
    def add(self, dataset: Dataset) -> Dataset:
        """Hold a dataset; with `state`, its rows are those of the last time. Raises ValueError for an id that is taken."""
        if dataset.id in self.datasets:
            raise ValueError(f"the portal already has a dataset {dataset.id}: {self.datasets[dataset.id].name}")
        self.datasets[dataset.id] = dataset
        if self.state and (stored := self.state / f"{dataset.id}.jsonl").exists():
            with stored.open(encoding="utf-8") as lines:
                dataset.restore(lines)
            self._kept[dataset.id] = dataset.version
        return dataset

    def dataset(self, id: str) -> Dataset:
        """The dataset `id`. Raises KeyError."""
        return self.datasets[id]

    def edit(self, id: str, fraction: float = 0.05, seed: int = 0, add: int = 0) -> dict[str, list[str]]:
        """Change some rows as a city does and move rowsUpdatedAt: see `Dataset.edit`."""
        return self.datasets[id].edit(fraction, seed, add)

    def touch(self, id: str) -> int:
        """Move rowsUpdatedAt without changing a row; returns it."""
        return self.datasets[id].touch()

    def alter(
        self, id: str, add: Mapping[str, str] | None = None, remove: Sequence[str] = (), retype: Mapping[str, str] | None = None
    ) -> tuple[Column, ...]:
        """Add (name → dataTypeName), remove or retype columns: see `Dataset.alter`."""
        return self.datasets[id].alter(add, remove, retype)

    def keep(self) -> None:
        """Write what changed since the last time into `state`, whole and then renamed. Does nothing without `state`."""
        if not self.state:
            return
        with self._keeping:
            self.state.mkdir(parents=True, exist_ok=True)
            for dataset in list(self.datasets.values()):
                version = dataset.version
                if self._kept.get(dataset.id) == version:
                    continue
                partial = self.state / f".{dataset.id}.partial"
                with partial.open("w", encoding="utf-8") as file:
                    file.writelines(line + "\n" for line in dataset.dump())
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(self.state / f"{dataset.id}.jsonl")
                self._kept[dataset.id] = version

    def stop(self) -> None:
        super().stop()
        self.keep()

    def control(self, verb: str, request: Request) -> Any:
        asked = dict(request.json() or {})
        if verb not in ("edit", "touch", "alter"):
            raise LookupError(verb)
        id = asked.pop("id", None)
        if id not in self.datasets:
            raise ValueError(f"no dataset {id!r} here; there are: {', '.join(self.datasets)}")
        if verb == "edit":
            return self.edit(id, **asked)
        if verb == "alter":
            return [column.name for column in self.alter(id, **asked)]
        return {"rowsUpdatedAt": self.touch(id)}

    def error_body(self, status: int) -> bytes:
        return (json.dumps(BODIES[status]) + "\n").encode() if status in BODIES else super().error_body(status)

    # answering
    def answer(self, request: Request, fault: Fault | None) -> Reply:
        try:
            self._check_token(request)
            for methods, pattern, handler in _ROUTES:
                if found := pattern.fullmatch(request.path):
                    if request.method not in methods:
                        raise Refused(405, {"code": "method_not_allowed", "error": True, "message": f"{request.method} is not allowed here"})
                    reply = handler(self, request, fault, *found.groups())
                    break
            else:
                raise Refused(404, {"code": "not_found", "error": True, "message": "Not found"})
        except Refused as refusal:
            reply = refusal.reply
        except soql.SoqlError as error:
            reply = _query_refused(error, request)
        reply.headers.setdefault("X-Socrata-RequestId", hashlib.sha256(f"{self._numbers}{request.target}".encode()).hexdigest()[:25])
        reply.headers.setdefault("X-Socrata-Region", "aws-us-east-1-fedramp-prod")
        wants_gzip = self.compress and "gzip" in request.headers.get("accept-encoding", "")
        if wants_gzip and isinstance(reply.body, bytes) and len(reply.body) > 500:
            reply.body = gzip.compress(reply.body, 5)
            reply.headers["Content-Encoding"] = "gzip"
        return reply

    def _check_token(self, request: Request) -> None:
        token = _token(request)
        bad = {"code": "permission_denied", "error": True, "message": "Invalid app_token specified"}
        if token and self.tokens and token not in self.tokens:
            raise Refused(403, bad)
        # assumed: a portal that wants a token refuses its absence in the same words
        if self.require_token and not token and not self._user(request):
            raise Refused(403, bad)

    def _user(self, request: Request) -> str:
        """The account that the request logs in with, or "". Raises Refused for a wrong password, also where none is needed (assumed)."""
        given = request.headers.get("authorization", "")
        if not given.lower().startswith("basic "):
            return ""
        try:
            user, _, password = base64.b64decode(given[6:], validate=True).decode("utf-8").partition(":")
        except ValueError:
            raise Refused(401) from None
        known = {**self.viewers, **self.accounts}.get(user)
        if known is None or not hmac.compare_digest(known.encode(), password.encode()):
            raise Refused(401)
        return user

    def _readable(self, request: Request, id: str, missing: Mapping[str, Any]) -> Dataset:
        dataset = self.datasets.get(id)
        if dataset is None:
            raise Refused(404, {**missing, "data": {"id": id}})
        user = self._user(request)
        if dataset.retired:
            raise Refused(410)
        if dataset.private and not user:
            raise Refused(403)
        return dataset

    def _writable(self, request: Request, id: str) -> Dataset:
        dataset = self.datasets.get(id)
        if dataset is None:
            raise Refused(404, {**BODIES[404], "data": {"id": id}})
        user = self._user(request)
        if (self.accounts or self.viewers or dataset.private) and not user:
            raise Refused(403)
        if user and user not in self.accounts:
            raise Refused(403, {"code": "permission_denied", "error": True, "message": f"{user} may not update_dataset on {id}"})
        return dataset

    def _rows(self, request: Request, fault: Fault | None, id: str, form: str) -> Reply:
        """GET /resource/{id}.json|.csv"""
        dataset = self._readable(request, id, BODIES[404])
        if fault and fault.kind == "alter":
            dataset.alter(fault["add"], fault["remove"], fault["retype"])
        query = soql.parse_parameters(request.query)
        if query.limit is None:
            query.limit = 1000
        if self.limit_cap is not None and query.limit > self.limit_cap:
            raise Refused(400, {"error": True, "message": f"length must be <= {self.limit_cap}"})
        return self._sent(request, fault, dataset, query, form)

    def _sent(self, request: Request, fault: Fault | None, dataset: Dataset, query: soql.Query, form: str) -> Reply:
        moment = dataset.rows_updated_at
        page = self._page(dataset, query)
        headers = self._headers(request, dataset, page, moment)
        if fault:
            _spoil(page, fault, headers)
        body = _csv(page, bom=request.query.get("$$bom") == "true") if form == "csv" else _json(page)
        reply = Reply(200, body if page.size > STREAMED else b"".join(body), CSV if form == "csv" else JSON, headers)
        if fault and fault.kind == "touch":
            dataset.touch()
        if fault and fault.kind == "edit":
            dataset.edit(fault["fraction"], fault["seed"], fault["add"])
        return reply

    def _page(self, dataset: Dataset, query: soql.Query) -> Page:
        """The rows that a query asks for, found now and made when they are sent. Raises SoqlError."""
        records, places = dataset.found(query)
        compiler = soql.Compiler(dataset.getters())
        if query.aggregates:
            return self._grouped(records, places, query, compiler)
        end = len(places) if query.limit is None else query.offset + query.limit
        wanted = places[query.offset : end]
        names, types, project = _projection(dataset, query, compiler)
        return Page(names, types, (project(records[i]) for i in wanted), len(wanted))

    def _grouped(self, records: Sequence[Record], places: Sequence[int], query: soql.Query, compiler: soql.Compiler) -> Page:
        if any(isinstance(expression, soql.Star) for expression, _ in query.select) or not query.select:
            raise soql.SoqlError("query.soql.column-not-in-group-bys", "Column not in group bys: *", column="*")
        keys = [compiler.value(expression) for expression in query.group]
        names, types, makers = [], [], []
        for expression, alias in query.select:
            bare = self.count_key if expression == soql.Call("count") else soql.default_alias(expression)
            names.append(alias or bare)
            if expression in query.group:
                place = query.group.index(expression)
                types.append(keys[place][1])
                makers.append((False, place))
            elif isinstance(expression, soql.Call) and expression.name in soql.AGGREGATES:
                make, kind = soql.aggregate(expression, compiler)
                types.append(kind)
                makers.append((True, make))
            else:
                name = soql.default_alias(expression)
                compiler.value(expression)
                raise soql.SoqlError("query.soql.column-not-in-group-bys", f"Column not in group bys: {name}", column=name)
        if keys:
            groups: dict[tuple[Any, ...], list[Record]] = {}
            for i in places:
                record = records[i]
                groups.setdefault(tuple(get(record) for get, _ in keys), []).append(record)
            listed: list[tuple[tuple[Any, ...], Any]] = list(groups.items())
        else:
            listed = [((), _Records(records, places))]
        rows = [tuple(_told(make(members) if many else key[make]) for many, make in makers) for key, members in listed]
        rows = _arranged(rows, names, types, query)
        return Page(names, types, rows, len(rows))

    def _headers(self, request: Request, dataset: Dataset, page: Page, moment: int) -> dict[str, str]:
        tag = hashlib.sha256(f"{dataset.id} {dataset.version} {request.target}".encode()).digest()
        changed = formatdate(moment, usegmt=True)
        headers = {
            "ETag": f'"{base64.b64encode(tag[:15]).decode()}---gzi--gzip"',
            "Last-Modified": changed,
            "X-SODA2-Truth-Last-Modified": changed,
            "X-SODA2-Secondary-Last-Modified": changed,
            "X-SODA2-Data-Out-Of-Date": "false",
        }
        fields, types = json.dumps(page.names, separators=(",", ":")), json.dumps(page.types, separators=(",", ":"))
        if len(fields) + len(types) < HEADER_ROOM:
            headers |= {"X-SODA2-Fields": fields, "X-SODA2-Types": types}
        return headers

    def _row(self, request: Request, fault: Fault | None, id: str, row: str) -> Reply:
        """GET or DELETE /resource/{id}/{row}.json: by the publisher's key, or by `:id`."""
        reading = request.method in ("GET", "HEAD")
        dataset = self._readable(request, id, BODIES[404]) if reading else self._writable(request, id)
        column = ":id" if row.startswith("row-") or not dataset.key else dataset.key
        query = soql.Query(where=soql.Call("=", (soql.Column(column), soql.Literal(row, "text"))))
        records, places = dataset.found(query)
        if not len(places):
            raise Refused(404, {"code": "row.missing", "error": True, "message": "Not found", "data": {"id": row}})
        if reading:
            names, types, project = _projection(dataset, query, soql.Compiler(dataset.getters()))
            return Reply.of({name: value for name, value in zip(names, project(records[places[0]]), strict=True) if value is not None})
        dataset.publish([{":id": dataset.sid(records[places[0]].seq), ":deleted": True}])
        return Reply.of([{"typ": "delete", "id": row}])

    def _publish(self, request: Request, fault: Fault | None, id: str, form: str = "") -> Reply:
        """POST (upsert) or PUT (replace) of JSON or CSV rows."""
        dataset = self._writable(request, id)
        if fault and fault.kind == "alter":
            dataset.alter(fault["add"], fault["remove"], fault["retype"])
        try:
            sent = _sent_rows(request, dataset)
            told = dataset.publish(sent, replace=request.method == "PUT", refuse=int(fault["n"]) if fault and fault.kind == "row_errors" else 0)
        except IllegalField as error:
            raise Refused(400, {"code": "illegal_field_name", "error": True, "message": str(error)}) from None
        except ValueError as error:
            raise Refused(400, {"code": "malformed_body", "error": True, "message": f"Could not parse request body: {error}"}) from None
        return Reply.of(told)

    def _view(self, request: Request, fault: Fault | None, id: str) -> Reply:
        """GET /api/views/{id}.json"""
        missing = {"code": "not_found", "error": True, "message": "Not found"}
        if id not in self.datasets:
            raise Refused(404, {**missing, "data": {"id": id}}, **{"X-Error-Code": "not_found", "X-Error-Message": "Not found"})
        dataset = self._readable(request, id, missing)
        if fault and fault.kind == "alter":
            dataset.alter(fault["add"], fault["remove"], fault["retype"])
        reply = Reply.of(view(dataset, new_backend=self.new_backend))
        if fault and fault.kind == "touch":
            dataset.touch()
        if fault and fault.kind == "edit":
            dataset.edit(fault["fraction"], fault["seed"], fault["add"])
        return reply

    def _keep_view(self, request: Request, fault: Fault | None, id: str) -> Reply:
        """DELETE /api/views/{id} would drop the whole dataset: this portal never does, and the log shows who asked."""
        raise Refused(403, {"code": "permission_denied", "error": True, "message": "This portal does not delete datasets"})

    def _view_v1(self, request: Request, fault: Fault | None, id: str) -> Reply:
        """GET /api/views/metadata/v1/{id}"""
        dataset = self._readable(request, id, {"code": "not_found", "error": True, "message": "Not found"})
        return Reply.of(
            {
                "id": dataset.id,
                "name": dataset.name,
                "attribution": dataset.attribution or None,
                "category": dataset.category or None,
                "createdAt": _iso(dataset.created_at),
                "dataUpdatedAt": _iso(dataset.rows_updated_at),
                "dataUri": f"{self.url}/resource/{dataset.id}",
                "description": dataset.description or None,
                "domain": urlsplit(self.url).netloc,
                "license": dataset.licence or None,
                "metadataUpdatedAt": _iso(dataset.view_last_modified),
                "provenance": "official",
                "updatedAt": _iso(max(dataset.rows_updated_at, dataset.view_last_modified)),
                "webUri": f"{self.url}/d/{dataset.id}",
                "tags": list(dataset.tags),
                "customFields": _custom_fields(dataset),
            }
        )

    def _download(self, request: Request, fault: Fault | None, id: str) -> Reply:
        """GET /api/views/{id}/rows.csv: the whole dataset with display names and display dates, whatever else was asked."""
        dataset = self._readable(request, id, {"code": "not_found", "error": True, "message": "Not found"})
        page = self._page(dataset, soql.Query(order=[(soql.Column(":id"), False)]))
        headers = {
            "Content-Disposition": f'attachment; filename="{re.sub(r"[^A-Za-z0-9]+", "_", dataset.name)}.csv"',
            "Last-Modified": formatdate(dataset.rows_updated_at, usegmt=True),
        }
        if fault:
            _spoil(page, fault, headers)
        return Reply(200, in_blocks(_display_lines(page, dataset.columns)), CSV, headers)

    def _catalog(self, request: Request, fault: Fault | None) -> Reply:
        """GET /api/catalog/v1: open to all. Assumed: as a service of its own it does not look at log-ins, not even at wrong ones."""
        asked, here = request.query, urlsplit(self.url).netloc
        listed = [dataset for dataset in self.datasets.values() if not dataset.private]
        if (domains := asked.get("domains")) and here not in domains.split(","):
            listed = []
        if ids := asked.get("ids"):
            listed = [dataset for dataset in listed if dataset.id in ids.split(",")]
        if words := asked.get("q"):
            listed = [dataset for dataset in listed if words.lower() in f"{dataset.name} {dataset.description}".lower()]
        limit, offset = int(asked.get("limit") or 100), int(asked.get("offset") or 0)
        if limit > 10_000:
            raise Refused(400, {"error": True, "message": "Invalid value for limit: it may not exceed 10000"})
        results = [_catalog_entry(dataset, self.url) for dataset in listed[offset : offset + limit]]
        return Reply.of({"results": results, "resultSetSize": len(listed), "timings": {"serviceMillis": 5, "searchMillis": [2]}, "warnings": []})

    def _query_v3(self, request: Request, fault: Fault | None, id: str, verb: str, form: str) -> Reply:
        """POST or GET /api/v3/views/{id}/query.json, export.csv: needs a token or a log-in; an export knows no pages of its own."""
        if not _token(request) and not self._user(request):
            raise Refused(403, {"code": "permission_denied", "error": True, "message": "You must be logged in to access this resource"})
        dataset = self._readable(request, id, BODIES[404])
        if fault and fault.kind == "alter":
            dataset.alter(fault["add"], fault["remove"], fault["retype"])
        try:
            asked = (request.json() if request.method == "POST" else {"query": request.query.get("query", "")}) or {}
            paging = asked.get("page") if verb == "query" else None
            number, size = (int(paging.get("pageNumber", 1)), int(paging.get("pageSize", 1000))) if paging else (1, 0)
            if number < 1 or size < 0:
                raise ValueError("page numbers begin with 1")
        except (ValueError, TypeError, AttributeError):
            raise Refused(400) from None
        query = soql.parse_parameters({"$query": asked.get("query") or "select *"})
        if paging:
            # assumed: the query's own limit bounds what is paged
            start, rest = (number - 1) * size, size if query.limit is None else max(0, query.limit - (number - 1) * size)
            query = replace(query, limit=min(size, rest), offset=query.offset + start)
            if not query.order and not query.aggregates:
                query.order = [(soql.Column(":id"), False)]
        if asked.get("includeSynthetic", form == "json") and not query.aggregates and (not query.select or query.select == [(soql.Star(), "")]):
            query.select = [(soql.Star(system=True), ""), (soql.Star(), "")]
        return self._sent(request, fault, dataset, query, form)


#: methods, path, handler
_ROUTES: list[tuple[tuple[str, ...], re.Pattern[str], Callable[..., Reply]]] = []


def _route(methods: str, path: str, handler: Callable[..., Reply]) -> None:
    _ROUTES.append((tuple(methods.split()), re.compile(path), handler))


def _resource(portal: Portal, request: Request, fault: Fault | None, id: str, form: str | None) -> Reply:
    if request.method in ("POST", "PUT"):
        return portal._publish(request, fault, id)
    return portal._rows(request, fault, id, form or "json")


def _views(portal: Portal, request: Request, fault: Fault | None, id: str) -> Reply:
    return portal._keep_view(request, fault, id) if request.method == "DELETE" else portal._view(request, fault, id)


# an id that is no 4x4 is missing too, in the same shape
_route("GET HEAD POST PUT", r"/(?:resource|id)/([^/.]+)(?:\.(json|csv))?", _resource)
_route("GET HEAD DELETE", r"/(?:resource|id)/" + ID + r"/(.+?)(?:\.json)?", Portal._row)
_route("GET HEAD", r"/api/views/metadata/v1/" + ID + r"(?:\.json)?", Portal._view_v1)
_route("GET HEAD", r"/api/views/" + ID + r"/rows\.csv", Portal._download)
_route("GET HEAD DELETE", r"/api/views/([^/.]+)(?:\.json)?", _views)
_route("GET HEAD", r"/api/catalog/v1(?:\.json)?", Portal._catalog)
_route("GET POST", r"/api/v3/views/" + ID + r"/(query|export)\.(json|csv)", Portal._query_v3)


class _Records(Sequence[Record]):
    """The records at some places, made again for each reader; their number costs nothing."""

    def __init__(self, records: Sequence[Record], places: Sequence[int]):
        self.records = records
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: Any) -> Any:
        return self.records[self.places[i]]

    def __iter__(self) -> Iterator[Record]:
        records = self.records
        return (records[i] for i in self.places)


def _told(value: Any) -> Any:
    """A computed value as the portal says it: a number as text, whole where it is whole."""
    if isinstance(value, bool) or value is None or isinstance(value, str | dict):
        return value
    return str(int(value)) if value == int(value) else str(value)


def _arranged(rows: list[tuple[Any, ...]], names: list[str], types: list[str], query: soql.Query) -> list[tuple[Any, ...]]:
    """Grouped rows filtered by HAVING, ordered and cut, all by the names of the result."""

    def by_name(expression: Any) -> Any:
        # after grouping an aggregate is a column of the result, under its alias
        for place, (selected, _) in enumerate(query.select):
            if selected == expression:
                return soql.Column(names[place])
        if isinstance(expression, soql.Call):
            return soql.Call(expression.name, tuple(by_name(arg) for arg in expression.args))
        return expression

    def getter(place: int, kind: str) -> soql.Getter:
        if kind == "number":
            return (lambda row: None if row[place] is None else soql.number(row[place])), kind
        return (lambda row: row[place]), kind

    compiler = soql.Compiler({name: getter(place, kind) for place, (name, kind) in enumerate(zip(names, types, strict=True))})
    if query.having is not None:
        keep, _ = compiler.value(by_name(query.having))
        rows = [row for row in rows if keep(row) is True]
    for expression, down in reversed(query.order):
        key, _ = compiler.value(by_name(expression))
        rows = sorted(rows, key=lambda row, key=key: ((value := key(row)) is None, value), reverse=down)
    end = len(rows) if query.limit is None else query.offset + query.limit
    return rows[query.offset : end]


def _projection(dataset: Dataset, query: soql.Query, compiler: soql.Compiler) -> tuple[list[str], list[str], Callable[[Record], Sequence[Any]]]:
    """(names, types, function from a record to its values) of a SELECT without aggregates. Raises SoqlError."""
    names: list[str] = []
    types: list[str] = []
    places: list[int] = []
    makers: list[Callable[[Record], Any]] = []
    own = {column.name: (place, column.soda_type) for place, column in enumerate(dataset.columns)}
    for expression, alias in query.select or [(soql.Star(), "")]:
        if isinstance(expression, soql.Star):
            listed = [(soql.Column(name), "") for name in (SYSTEM_TYPES if expression.system else dataset.names)]
        else:
            listed = [(expression, alias)]
        for one, name in listed:
            value, kind = compiler.value(one)
            names.append(name or soql.default_alias(one))
            types.append(kind)
            if isinstance(one, soql.Column) and one.name in own:
                # the stored text, not the number that it compares as
                place = own[one.name][0]
                places.append(place)
                makers.append(lambda record, place=place: record.values[place])
            else:
                makers.append(lambda record, value=value: _told(value(record)))
    if places == list(range(len(dataset.columns))) == list(range(len(makers))):
        return names, types, lambda record: record.values
    if len(places) == len(makers) > 1:
        pick = itemgetter(*places)
        return names, types, lambda record: pick(record.values)
    return names, types, lambda record: tuple(make(record) for make in makers)


# rows on the wire


def _cell(value: Any) -> str:
    """A value in CSV: quoted unless null, and null and empty text look the same."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return '"true"' if value else '"false"'
    if isinstance(value, dict):
        if "coordinates" in value:
            longitude, latitude = value["coordinates"]
            return f'"POINT ({longitude} {latitude})"'
        if "latitude" in value:
            # the older type, the other way round
            return f'"({value["latitude"]}, {value["longitude"]})"'
        value = value.get("url") or json.dumps(value)
    return '"' + str(value).replace('"', '""') + '"'


def _csv(page: Page, *, bom: bool = False) -> Iterator[bytes]:
    return in_blocks(_csv_lines(page, "\ufeff" if bom else ""))


def _csv_lines(page: Page, start: str) -> Iterator[str]:
    yield start + ",".join(f'"{name}"' for name in page.names) + "\n"
    cell = _cell
    for row in page.rows:
        yield (
            ",".join(["" if value is None else f'"{value}"' if type(value) is str and value and '"' not in value else cell(value) for value in row])
            + "\n"
        )


def _json(page: Page) -> Iterator[bytes]:
    return in_blocks(_json_lines(page))


def _json_lines(page: Page) -> Iterator[str]:
    names, encode, keep = page.names, json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode, page.nulls_kept
    start = "["
    for row in page.rows:
        yield start + encode({name: value for name, value in zip(names, row, strict=False) if keep or value is not None})
        start = "\n,"
    yield "[]\n" if start == "[" else "]\n"


def _display_lines(page: Page, columns: Sequence[Column]) -> Iterator[str]:
    buffer = io.StringIO()
    # told to end its lines with CR LF, it quotes both in a cell
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([column.label for column in columns])
    formats = [column.display if column.type == "calendar_date" else "" for column in columns]
    for row in page.rows:
        writer.writerow(
            [
                datetime.fromisoformat(value).strftime(form) if form and value else _cell(value)[1:-1] if isinstance(value, dict) else value
                for value, form in zip(row, formats, strict=False)
            ]
        )
        yield buffer.getvalue().removesuffix("\r\n") + "\n"
        buffer.seek(0)
        buffer.truncate()


def _spoil(page: Page, fault: Fault, headers: dict[str, str]) -> None:
    """Make a right page wrong, for the faults that change rows."""
    match fault.kind:
        case "wrong_columns":
            page.names = ["surprise", *reversed(page.names[:-1])]
            headers.pop("X-SODA2-Fields", None)
        case "missing_row":
            rows = list(page.rows)
            at = max(0, (len(rows) - int(fault["n"])) // 2)
            page.rows = rows[:at] + rows[at + int(fault["n"]) :]
        case "duplicate_rows":
            rows = list(page.rows)
            n = int(fault["n"])
            page.rows = [*(rows[:-n] if fault["instead"] else rows), *rows[:n]]
        case "nulls_kept":
            page.nulls_kept = True
        case "nul" | "bad_utf8":
            page.rows = _stained(page.rows, page.types, "\x00" if fault.kind == "nul" else "\udcff")
        case "out_of_date":
            headers["X-SODA2-Data-Out-Of-Date"] = "true"
        case "count_key":
            page.names = [str(fault["name"]) if name == "count" else name for name in page.names]


def _stained(rows: Iterable[Sequence[Any]], types: Sequence[str], stain: str) -> Iterator[Sequence[Any]]:
    """The rows with `stain` in the first text of the first row that has one."""
    done = False
    for row in rows:
        if not done:
            for place, (value, kind) in enumerate(zip(row, types, strict=False)):
                if kind == "text" and value:
                    row = [*row[:place], value[:1] + stain + value[1:], *row[place + 1 :]]
                    done = True
                    break
        yield row


# rows off the wire


def _sent_rows(request: Request, dataset: Dataset) -> list[dict[str, Any]]:
    """The rows of a publish. Raises ValueError for a body that is neither JSON rows nor CSV with a header."""
    if "csv" in request.headers.get("content-type", ""):
        by_label = {column.label: column.name for column in dataset.columns}
        reader = csv.reader(io.StringIO(request.body.decode("utf-8-sig")))
        header = [by_label.get(name, name) for name in next(reader, [])]
        return [dict(zip(header, row, strict=True)) for row in reader]
    sent = request.json()
    rows = [sent] if isinstance(sent, dict) else sent
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a JSON array of objects")
    return rows


def _token(request: Request) -> str:
    return request.headers.get("x-app-token", "") or request.query.get("$$app_token", "")


def _query_refused(error: soql.SoqlError, request: Request) -> Reply:
    if error.code == "bad-parameter":
        return Reply.of({"error": True, "message": error.message}, 400)
    if error.code == "query.compiler.malformed":
        body = {"code": error.code, "error": True, "message": error.message, "data": {"query": request.address, **error.data}}
        return Reply.of(body, 400)
    return Reply.of({"message": f"{error.code}; {error.message}", "errorCode": error.code, "error": True, "data": error.data}, 400)


# what a dataset says of itself


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def _with_numbers(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a column's profile tells, as the old portals wrote it."""
    counts = {name: int(value) for name, value in told.items() if name in ("count", "non_null", "null", "cardinality")}
    top = {"top": [{**entry, "count": int(entry["count"])} for entry in told["top"]]} if "top" in told else {}
    return {**told, **counts, **top}


def _custom_fields(dataset: Dataset) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if dataset.update_frequency:
        fields["Update"] = {"Automation": "Yes", "Update Frequency": dataset.update_frequency}
    if dataset.attribution:
        fields["Dataset Information"] = {"Agency": dataset.attribution}
    if dataset.contact_email:
        # assumed: each portal names it in its own way
        fields.setdefault("Dataset Information", {})["Contact Email"] = dataset.contact_email
    return fields


def _column_id(dataset: Dataset, place: int) -> int:
    """A column's number on this portal, the same each time."""
    return 100_000_000 + int(hashlib.sha256(dataset.id.encode()).hexdigest()[:6], 16) * 8 + place


def view(dataset: Dataset, *, new_backend: bool = True) -> dict[str, Any]:
    """A dataset as /api/views/{id}.json tells it."""
    contents = dataset.cached_contents()
    if not new_backend:
        contents = [_with_numbers(told) for told in contents]
    columns = [
        {
            "id": _column_id(dataset, place),
            "name": column.label,
            "dataTypeName": column.type,
            "description": column.description,
            "fieldName": column.name,
            "position": place + 1,
            "renderTypeName": column.type,
            "tableColumnId": _column_id(dataset, place) - 50_000_000,
            "cachedContents": contents[place] if place < len(contents) else {},
            "format": {},
        }
        for place, column in enumerate(dataset.columns)
    ]
    metadata: dict[str, Any] = {
        "custom_fields": _custom_fields(dataset),
        "availableDisplayTypes": ["table", "fatrow", "page"],
        "attachments": [],
    }
    told: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "assetType": "dataset",
        "attribution": dataset.attribution,
        "category": dataset.category,
        "createdAt": dataset.created_at,
        "description": dataset.description,
        "displayType": "table",
        "downloadCount": 0,
        "hideFromCatalog": False,
        "locale": "",
        "newBackend": new_backend,
        "provenance": "official",
        "publicationAppendEnabled": False,
        "publicationDate": dataset.created_at,
        "publicationStage": "published",
        "rowsUpdatedAt": dataset.rows_updated_at,
        "rowsUpdatedBy": "city-data",
        "tableId": _column_id(dataset, 0) // 10,
        "viewCount": 0,
        "viewLastModified": dataset.view_last_modified,
        "viewType": "tabular",
        "approvals": [],
        "columns": columns,
        "grants": [] if dataset.private else [{"inherited": False, "type": "viewer", "flags": ["public"]}],
        "metadata": metadata,
        "owner": {"id": "city-data", "displayName": "City data", "type": "interactive"},
        "query": {},
        "rights": ["read"],
        "tags": list(dataset.tags),
        "flags": ["default", "restorable"],
    }
    if dataset.licence:
        told["license"] = {"name": dataset.licence}
    if dataset.key:
        identifier = _column_id(dataset, dataset.names.index(dataset.key))
        told["rowIdentifierColumnId"] = identifier
        metadata["rowIdentifier"] = str(identifier)
    return told


def _catalog_entry(dataset: Dataset, url: str) -> dict[str, Any]:
    updated = utc_text(dataset.rows_updated_at)
    metadata: dict[str, Any] = {"domain": urlsplit(url).netloc}
    if dataset.licence:
        metadata["license"] = dataset.licence
    return {
        "resource": {
            "name": dataset.name,
            "id": dataset.id,
            "resource_name": None,
            "parent_fxf": [],
            "description": dataset.description,
            "attribution": dataset.attribution or None,
            "attribution_link": None,
            "contact_email": dataset.contact_email or None,
            "type": "dataset",
            "updatedAt": updated,
            "createdAt": utc_text(dataset.created_at),
            "metadata_updated_at": utc_text(dataset.view_last_modified),
            "data_updated_at": updated,
            "page_views": {"page_views_last_week": 0, "page_views_last_month": 0, "page_views_total": 0},
            "columns_name": [column.label for column in dataset.columns],
            "columns_field_name": [column.name for column in dataset.columns],
            "columns_datatype": [CATALOG_TYPES.get(column.type, column.type.capitalize()) for column in dataset.columns],
            "columns_description": [column.description for column in dataset.columns],
            "columns_format": [{} for _ in dataset.columns],
            "download_count": 0,
            "provenance": "official",
            "lens_view_type": "tabular",
            "locked": False,
            "blob_mime_type": None,
            "hide_from_data_json": False,
            "publication_date": utc_text(dataset.created_at),
        },
        "classification": {
            "categories": [],
            "tags": [],
            "domain_category": dataset.category,
            "domain_tags": list(dataset.tags),
            "domain_metadata": [{"key": "Update_Update-Frequency", "value": dataset.update_frequency}] if dataset.update_frequency else [],
        },
        "metadata": metadata,
        "permalink": f"{url}/d/{dataset.id}",
        "link": f"{url}/d/{dataset.id}",
        "owner": {"id": "city-data", "display_name": "City data"},
        "creator": {"id": "city-data", "display_name": "City data"},
    }
