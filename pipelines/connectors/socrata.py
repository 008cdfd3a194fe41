"""Socrata portals, by SODA 2.1 or SODA3: describe, count and fetch a dataset; upsert, delete and replace rows of one."""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

from pipelines.connectors import csv_pages, json_pages
from pipelines.connectors.base import (
    Account,
    Column,
    Connector,
    FetchedFile,
    FetchRequest,
    Parameter,
    Progress,
    Published,
    SourceState,
)
from pipelines.connectors.csv_pages import header_of
from pipelines.connectors.http import Door, Reply
from pipelines.errors import DataError, SetupError, TransientError

FOUR_BY_FOUR = re.compile(r"[a-z0-9]{4}-[a-z0-9]{4}")
#: A field name as SoQL takes it without quoting: anything else would be a piece of query.
FIELD = re.compile(r":?@?[A-Za-z0-9_]+")
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
POINT = re.compile(rf"\s*POINT\s*\(\s*{_NUMBER}\s+{_NUMBER}\s*\)\s*", re.IGNORECASE)
#: How the older type and whole downloads write it: latitude first.
PAIR = re.compile(rf"\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*", re.IGNORECASE)

#: The portal's dataTypeName → ours. What is not here (location, lines, polygons, documents) comes as text in the CSV.
TYPES = {
    "number": "number",
    "money": "number",
    "percent": "number",
    "stars": "number",
    "double": "number",
    "calendar_date": "local_time",
    "date": "instant",
    "fixed_timestamp": "instant",
    "checkbox": "boolean",
    "point": "point",
    "json": "json",
}
SYSTEM_TYPES = {":created_at": "instant", ":updated_at": "instant"}
#: An upsert of 10,000 rows may take minutes on a busy portal.
UPSERT_SECONDS = 300
#: A replacement travels whole and is worked in before it is answered; portals have been seen to take hours.
REPLACE_SECONDS = 7200
#: Of keys in one question, so that its address stays shorter than what every server on the way takes.
ADDRESS_ROOM = 3000


class _Abandoned(Exception):
    """The reader of the pages has gone; the pages still in flight stop."""


class Socrata(Connector):
    """A portal that speaks SODA. A resource is a dataset id like `rq3b-xjk8`."""

    kind = "socrata"
    label = "Socrata (SODA 2.1 and 3)"
    can_fetch = True
    can_publish = True
    vouches_for_types = True
    can_delete = True
    can_replace = True
    address_hint = "https://data.example.gov"
    parameters = (
        Parameter("app_token", "App token", secret=True, help="A share of the portal of our own; without it, requests are throttled."),
        Parameter("user", "User name or API key id", help="Needed to publish, and to read private datasets."),
        Parameter("password", "Password or API key secret", secret=True),
        Parameter("api", "API to read rows by", default="2.1", help="2.1, or 3 for SODA3, which wants an app token or a log-in."),
    )

    def __init__(self, account: Account, door: Door):
        super().__init__(account, door)
        self._portal_types: dict[str, Mapping[str, str]] = {}

    def _url(self, resource: str, path: str) -> str:
        if not FOUR_BY_FOUR.fullmatch(resource):
            raise SetupError(
                f"{resource!r} is not the id of a Socrata dataset",
                code="bad-resource",
                next_step="Enter the eight characters at the end of the dataset's web address; they look like rq3b-xjk8.",
            )
        return self.web_address + path.format(resource)

    @property
    def _headers(self) -> dict[str, str]:
        token = self.account.secrets.get("app_token", "")
        return {"X-App-Token": token} if token else {}

    @property
    def _auth(self) -> tuple[str, str] | None:
        user, password = self.account.parameters.get("user", ""), self.account.secrets.get("password", "")
        return (user, password) if user and password else None

    @property
    def _is_soda3(self) -> bool:
        """Which API rows are read by. Raises SetupError for one that there is not."""
        version = self.account.parameters.get("api", "").strip() or "2.1"
        if version not in ("2.1", "3"):
            raise SetupError(
                f"provider {self.account.slug} is to be read by API {version}, and a Socrata portal has 2.1 and 3",
                code="unknown-api",
                next_step=f"Write 2.1 or 3 as the API of provider {self.account.slug}.",
            )
        return version == "3"

    def _question(self, resource: str, form: str, clauses: Mapping[str, str | int]) -> tuple[str, dict[str, Any]]:
        """(address, what goes with it) of a query for rows; `clauses` are SoQL's, in its order.

        SODA3 takes the query in one piece, by POST; its export has no pages of its own, so ours are LIMIT and OFFSET there too.
        """
        if not self._is_soda3:
            return self._url(resource, f"/resource/{{}}.{form}"), {"params": {f"${name}": value for name, value in clauses.items()}}
        words = {"order": "ORDER BY"}
        query = " ".join(f"{words.get(name, name.upper())} {value}" for name, value in clauses.items())
        path = "/api/v3/views/{}/export.csv" if form == "csv" else "/api/v3/views/{}/query.json"
        return self._url(resource, path), {"payload": {"query": query}}

    @contextmanager
    def _with_token(self) -> Iterator[None]:
        """Say what a refusal means where SODA3 was asked by a stranger."""
        try:
            yield
        except SetupError as error:
            if error.code not in ("http-401", "http-403") or not self._is_soda3 or self._auth or self._headers:
                raise
            raise SetupError(
                f"{urlsplit(self.web_address).netloc} gives rows by SODA3 only to who has an app token, and provider {self.account.slug} has none",
                code="token-missing",
                next_step=f"Enter an app token of provider {self.account.slug}, or set its API to 2.1.",
            ) from None

    def _get(self, url: str, params: Mapping[str, str | int] | None = None) -> tuple[Any, str]:
        """The JSON answer and the portal's request id."""
        reply = self.door.ask("GET", url, params=params, headers=self._headers, auth=self._auth, expect="json")
        return reply.json, reply.request_id

    def test(self) -> str:
        """Ask the portal's own catalog how much it holds and, with a password, for the first dataset in it: a wrong one is refused there."""
        host = urlsplit(self.web_address).netloc
        answer, _ = self._get(f"{self.web_address}/api/catalog/v1", {"domains": host, "limit": 1})
        held = answer.get("resultSetSize") if isinstance(answer, dict) else None
        if not isinstance(held, int):
            raise SetupError(
                f"{host} answers, but not as a Socrata portal does",
                code="not-socrata",
                next_step=f"Check the address of provider {self.account.slug}.",
            )
        told = f"{host} answers; its catalog lists {held:,} entries"
        if not self._auth:
            return told
        # the catalog is open to all, whatever log-in comes with the question; what is said of one dataset is not
        known = _first_listed(answer)
        if not known:
            return f"{told}. None of them is a dataset, so the password could not be tried"
        self._get(self._url(known, "/api/views/{}.json"))
        return f"{told}, and it takes the user name and password"

    # ----------------------------------------------------------------------------------------------------- a source

    def describe(self, resource: str) -> SourceState:
        view, request_id = self._get(self._url(resource, "/api/views/{}.json"))
        if not isinstance(view, dict) or not view.get("columns"):
            raise SetupError(
                f"{resource} of {urlsplit(self.web_address).netloc} is not a table: it has no columns",
                code="not-a-table",
                next_step="Choose a dataset that has rows; a file, a map or a story has none.",
            )
        try:
            return self._described(resource, view, request_id)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError):
            # OverflowError, OSError: a time that no calendar holds
            raise DataError(
                f"{urlsplit(self.web_address).netloc} describes {resource} in a way that no Socrata portal does",
                code="odd-metadata",
                next_step=f"Open {self._url(resource, '/api/views/{}.json')} in a browser, and check the address of provider {self.account.slug}.",
            ) from None

    def _described(self, resource: str, view: Mapping[str, Any], request_id: str) -> SourceState:
        """The portal's metadata as ours. Raises what a stranger's JSON makes of reading it."""
        # Computed regions are added by the portal and come and go with its maps.
        told = [column for column in view["columns"] if not str(column.get("fieldName", "")).startswith(":")]
        columns = tuple(
            Column(
                name=column["fieldName"],
                type=TYPES.get(column.get("dataTypeName", ""), "text"),
                label=column.get("name") or "",
                description=column.get("description") or "",
            )
            for column in told
        )
        self._portal_types[resource] = {column.name: column.type for column in columns}
        stamp = view.get("rowsUpdatedAt") or view.get("viewLastModified")
        licence = view.get("license") or {}
        return SourceState(
            title=view.get("name") or resource,
            columns=columns,
            version=str(stamp) if stamp else None,
            changed_at=datetime.fromtimestamp(int(stamp), UTC) if stamp else None,
            key=_row_identifier(view, told),
            description=view.get("description") or "",
            licence=licence.get("name") or view.get("licenseId") or "",
            refresh_rate=_refresh_rate(view),
            metadata={
                "category": view.get("category") or "",
                "tags": view.get("tags") or [],
                "attribution": view.get("attribution") or "",
                "contact": _contact(view),
                "column_stats": {column["fieldName"]: stats for column in told if (stats := _stats(column.get("cachedContents")))},
                "portal_types": {column["fieldName"]: column.get("dataTypeName", "") for column in told},
                "metadata_changed_at": view.get("viewLastModified"),
                "request_id": request_id,
            },
        )

    def _types_of(self, resource: str) -> Mapping[str, str]:
        """The type of each column, as the portal told them when it was first asked."""
        if resource not in self._portal_types:
            self.describe(resource)
        return self._portal_types[resource]

    def count(self, resource: str, request: FetchRequest) -> int:
        return self._count(resource, self._where(resource, request))

    def _where(self, resource: str, request: FetchRequest) -> str:
        """The window and the watermark of a request as one SoQL condition; "" for all rows. Raises SetupError."""
        types = {**SYSTEM_TYPES, **{column.name: column.type for column in request.columns}}
        # who asks for keys only does not ask for the column that says which of them
        if {request.window_column, request.since_column} - {"", *types}:
            types = {**self._types_of(resource), **types}
        return " AND ".join(part for part in (_window(request, types), _since(request, types)) if part)

    def _count(self, resource: str, where: str) -> int:
        url, question = self._question(resource, "json", {"select": "count(*)", **({"where": where} if where else {})})
        with self._with_token():
            rows = self.door.ask(
                "POST" if "payload" in question else "GET", url, **question, headers=self._headers, auth=self._auth, repeatable=True,
                expect="json",
            ).json  # fmt: skip
        try:
            # The name of the value differs between portals (count, COUNT, count_1): there is only one.
            [row] = rows
            [value] = row.values()
            return int(value)
        except (TypeError, ValueError, AttributeError):
            raise DataError(f"asked how many rows {resource} has, the portal did not answer a number", code="no-count") from None

    def fetch(self, resource: str, request: FetchRequest, *, rows: int, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield pages (CSV, or JSON as the portal wrote it) in order, `request.in_flight` on their way at once; none when `rows` is 0.

        On disk are at most `in_flight` pages that were not yet asked for. The last page may hold more rows than were
        counted, if the source grew meanwhile. Raises TransientError("short-page") when a page has fewer: the source
        shrank while it was read, or the page was cut at the end of a line.
        """
        where = self._where(resource, request)
        clauses = {
            "select": ",".join(_field(column.name) for column in request.columns),
            **({"where": where} if where else {}),
            "order": ",".join(dict.fromkeys([*(_field(name) for name in request.order), ":id"])),
            "limit": request.page_size,
        }
        wanted = tuple(column.name for column in request.columns)
        abandoned = threading.Event()

        def page(offset: int) -> FetchedFile:
            expected = min(request.page_size, rows - offset)
            path = workdir / f"{resource}-{offset // request.page_size + 1:05d}.{request.format}"
            return self._page(resource, {**clauses, "offset": offset}, path, wanted, expected, abandoned)

        with ThreadPoolExecutor(max_workers=request.in_flight, thread_name_prefix=f"page-{resource}") as pool:
            offsets = range(0, rows, request.page_size)
            flying: deque[Future[FetchedFile]] = deque(pool.submit(page, offset) for offset in offsets[: request.in_flight])
            arrived = 0
            try:
                for place in range(len(offsets)):
                    file = flying.popleft().result()
                    # the next one leaves before this one is handed over: the line is never idle while a page is stored
                    if place + request.in_flight < len(offsets):
                        flying.append(pool.submit(page, offsets[place + request.in_flight]))
                    arrived += file.rows
                    progress(arrived, rows)
                    yield file
            finally:
                abandoned.set()
                for future in flying:
                    future.cancel()

    def _page(
        self,
        resource: str,
        clauses: Mapping[str, str | int],
        path: Path,
        wanted: tuple[str, ...],
        expected: int,
        abandoned: threading.Event,
    ) -> FetchedFile:
        """Fetch one page to `path`; its columns and its number of rows are what was asked for."""

        def still_wanted(_: int) -> None:
            if abandoned.is_set():
                raise _Abandoned

        still_wanted(0)
        form = path.suffix[1:]
        url, question = self._question(resource, form, clauses)
        watched = csv_pages.Watched(csv_pages.RecordCounter if form == "csv" else json_pages.ObjectCounter)
        with self._with_token():
            got = self.door.download(
                url, path, **question, headers=self._headers, auth=self._auth, expect=form, on_bytes=still_wanted,
                watch=watched.begin,
            )  # fmt: skip
        if form == "csv":
            page = csv_pages.settle(path, proven=got.proven, watched=watched, sha256=got.sha256)
            _same_columns(path.name, page.header, wanted)
        else:
            page = json_pages.settle(path, watched=watched, sha256=got.sha256)
            # a null is left out, so a name may be missing; a strange one may not be there
            _same_columns(path.name, tuple(name for name in page.header if name not in wanted), ())
        host, offset = urlsplit(url).netloc, int(clauses["offset"])
        if page.rows < expected:
            raise TransientError(f"{host} gave {page.rows:,} of {expected:,} rows from row {offset:,} on", code="short-page")
        if page.rows > int(clauses["limit"]):
            raise DataError(f"{host} was asked for {clauses['limit']:,} rows and gave {page.rows:,}", code="long-page")
        stale = got.headers.get("X-SODA2-Data-Out-Of-Date", "").strip().lower() == "true"
        if stale:
            self.door.tell("warning", f"{host} says that its copy of the rows is out of date; newer rows may be missing")
        return FetchedFile(
            name=path.name,
            path=path,
            rows=page.rows,
            bytes=page.bytes,
            sha256=page.sha256,
            origin=self.door.redact(f"{url}?{urlencode(question.get('params') or question['payload'])}"),
            metadata={
                "request_id": got.request_id,
                "offset": offset,
                "rows_expected": expected,
                "out_of_date": stale,
                "notes": list(page.notes),
            },
        )

    # -------------------------------------------------------------------------------------------------- a publisher

    def preflight(self, resource: str, *, columns: Iterable[Column], key: tuple[str, ...], replaces: bool = False) -> tuple[Column, ...]:
        """The portal's columns, if it can take ours by our key. Raises SetupError.

        Only a replacement does without a row identifier; one that is not our key would merge rows even then.
        """
        slug = self.account.slug
        if not self._auth:
            raise SetupError(
                f"provider {slug} has no user name and password, and publishing needs them",
                code="credentials-missing",
                next_step=f"Enter the user name and password (or an API key's id and secret) of provider {slug}.",
            )
        portal = self.described = self.describe(resource)
        if not portal.key and not replaces:
            raise SetupError(
                f"the portal dataset {resource} has no row identifier: every upsert would append its rows once more",
                code="row-identifier-missing",
                next_step=f"Set {', '.join(key) or 'the key'} as the row identifier of {resource} on the portal.",
            )
        if portal.key and key != (portal.key,):
            raise SetupError(
                f"the portal dataset {resource} knows its rows by {portal.key}, and we by {', '.join(key) or 'no key'}",
                code="row-identifier-differs",
                next_step=f"Make {portal.key} the key of the dataset here, or change the row identifier on the portal.",
            )
        theirs = {column.name: column for column in portal.columns}
        wrong = []
        for column in columns:
            if column.name not in theirs:
                wrong.append(f"{column.name} does not exist there")
            elif theirs[column.name].type not in (column.type, "text"):
                wrong.append(f"{column.name} is {theirs[column.name].type} there and {column.type} here")
        if wrong:
            raise SetupError(
                f"the portal dataset {resource} cannot take our columns: {'; '.join(wrong)}",
                code="columns-differ",
                next_step=f"Add or change these columns of {resource} on the portal, or take them out of what is published.",
            )
        return portal.columns

    def upsert(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Send one chunk. The portal finds each row by its row identifier, so the same chunk may be sent twice.

        `Errors > 0` comes back in `Published.errors`: the caller decides.
        """
        types = self._types_of(resource)
        return self._sent_rows(resource, [{name: _sent(value, types.get(name, "text"), name) for name, value in row.items()} for row in rows])

    def delete(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Delete rows by the row identifier, which is all that each of `rows` holds.

        The portal counts a row that is not there as an error, and says only how many: then it is asked which of them it
        still has, and those alone are errors.
        """
        if not rows:
            return Published()
        types = self._types_of(resource)
        told = [{name: _sent(value, types.get(name, "text"), name) for name, value in row.items()} for row in rows]
        done = self._sent_rows(resource, [{**row, ":deleted": True} for row in told])
        if not done.errors:
            return done
        left = self._still_there(resource, told, types)
        return replace(done, errors=left, reply={**done.reply, "Already absent": max(done.errors - left, 0)})

    def _still_there(self, resource: str, rows: list[dict[str, Any]], types: Mapping[str, str]) -> int:
        """How many of the rows, each told by its key, the portal has."""
        return sum(self._count(resource, where) for where in _by_key(rows, types))

    def present(self, resource: str, rows: list[dict[str, Any]]) -> set[str]:
        """Which of the rows, each told by the row identifier, the portal has: their identifiers as it writes them."""
        if not rows:
            return set()
        [name] = rows[0]
        held: set[str] = set()
        for where in _by_key(rows, self._types_of(resource)):
            url, question = self._question(resource, "json", {"select": _field(name), "where": where, "limit": len(rows)})
            with self._with_token():
                told = self.door.ask(
                    "POST" if "payload" in question else "GET", url, **question, headers=self._headers, auth=self._auth, repeatable=True,
                    expect="json",
                ).json  # fmt: skip
            if not isinstance(told, list) or not all(isinstance(row, dict) and name in row for row in told):
                raise DataError(f"asked which rows of {resource} it has, the portal did not answer with rows", code="no-rows")
            held |= {str(row[name]) for row in told}
        return held

    def replace(self, resource: str, columns: tuple[Column, ...], path: Path, rows: int) -> Published:
        """Exchange all rows of the dataset for those of a CSV file, which travels from the disk.

        The portal works it in as a whole: until it answers, readers see the old rows.
        """
        _same_columns(path.name, header_of(path), tuple(column.name for column in columns))
        reply = self.door.upload(
            "PUT", self._url(resource, "/resource/{}.json"), path, content_type="text/csv", headers=self._headers, auth=self._auth,
            repeatable=True, read_timeout=REPLACE_SECONDS, deadline=REPLACE_SECONDS,
        )  # fmt: skip
        return self._counted(resource, reply, rows)

    def _sent_rows(self, resource: str, payload: list[dict[str, Any]]) -> Published:
        """Send one chunk of rows as SODA takes them; by their key, so it may be sent twice."""
        reply = self.door.ask(
            "POST", self._url(resource, "/resource/{}.json"), payload=payload, headers=self._headers, auth=self._auth, repeatable=True,
            read_timeout=UPSERT_SECONDS, expect="json",
        )  # fmt: skip
        return self._counted(resource, reply, len(payload))

    def _counted(self, resource: str, reply: Reply, rows: int) -> Published:
        """The counts that the portal answers. Raises DataError if it gives none."""
        answer = reply.json
        names = ("Rows Created", "Rows Updated", "Rows Deleted", "Errors")
        counts = [answer[name] for name in names if name in answer] if isinstance(answer, dict) else []
        if not counts or not all(type(value) is int and value >= 0 for value in counts):
            raise DataError(
                f"the portal took {rows:,} rows of {resource} and did not answer with counts",
                code="no-counts",
                next_step=f"Look at {resource} on the portal, then force the publish stage.",
            )
        created, updated, deleted, errors = (answer.get(name, 0) for name in names)
        return Published(created=created, updated=updated, deleted=deleted, errors=errors, reply={**answer, "request_id": reply.request_id})

    def published_count(self, resource: str) -> int:
        return self._count(resource, "")


def _first_listed(answer: Mapping[str, Any]) -> str:
    """The id of the first dataset that a catalog's answer lists; "" for none, or for a shape that is not a catalog's."""
    for entry in answer.get("results") or ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        found = resource.get("id") if isinstance(resource, dict) else None
        if isinstance(found, str) and FOUR_BY_FOUR.fullmatch(found):
            return found
    return ""


def _row_identifier(view: Mapping[str, Any], columns: list[Mapping[str, Any]]) -> str:
    """The field name of the row identifier: portals give it as a field name or as a column's id, in one of two places."""
    for said in ((view.get("metadata") or {}).get("rowIdentifier"), view.get("rowIdentifierColumnId")):
        for column in columns:
            if said is not None and str(said) in (column["fieldName"], str(column.get("id"))):
                return column["fieldName"]
    return ""


def _custom_field(view: Mapping[str, Any], *words: str) -> str:
    """The first custom field whose name has one of `words`: each portal has its own groups and names for them."""
    groups = (view.get("metadata") or {}).get("custom_fields") or {}
    fields = [(name.lower(), value) for group in groups.values() if isinstance(group, dict) for name, value in group.items()]
    return next((str(value) for word in words for name, value in fields if word in name and value), "")


def _refresh_rate(view: Mapping[str, Any]) -> str:
    """The declared frequency ("Update" / "Update Frequency")."""
    return _custom_field(view, "frequency")


def _contact(view: Mapping[str, Any]) -> str:
    """Who answers for the dataset, an address for choice. The owner is an account of the portal, not a contact."""
    private = view.get("privateMetadata")
    told = private.get("contactEmail") if isinstance(private, dict) else ""
    return str(told or _custom_field(view, "contact email", "email", "contact"))


def _stats(contents: Any) -> dict[str, Any]:
    """What the portal counted of a column's values, its numbers as numbers: old portals write them so, new ones as text; {} for nothing."""
    if not isinstance(contents, dict):
        return {}
    counts = {name: found for name in ("count", "non_null", "null", "cardinality") if (found := _whole(contents.get(name))) is not None}
    edges = {name: contents[name] for name in ("smallest", "largest") if contents.get(name) is not None}
    top = [
        {"item": entry["item"], "count": _whole(entry.get("count"))}
        for entry in contents.get("top") or ()
        if isinstance(entry, dict) and entry.get("item") is not None
    ]
    return {**counts, **edges, **({"top": top} if top else {})}


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _by_key(rows: list[dict[str, Any]], types: Mapping[str, str]) -> Iterator[str]:
    """Conditions that together name all the rows, each told by its one key column; each short enough for an address."""
    [name] = rows[0]
    literals = [_literal(str(row[name]), types.get(name, "text"), name) for row in rows]
    while literals:
        room, asked = ADDRESS_ROOM, []
        while literals and (not asked or len(quote(literals[-1])) < room):
            asked.append(literals.pop())
            room -= len(quote(asked[-1])) + len(quote(","))
        yield f"{_field(name)} in ({','.join(asked)})"


def _field(name: str) -> str:
    if not FIELD.fullmatch(name):
        raise SetupError(
            f"{name!r} is not a Socrata field name",
            code="bad-column",
            next_step="Use the field names of the portal's API page: letters, digits and underscores.",
        )
    return name


def _window(request: FetchRequest, types: Mapping[str, str]) -> str:
    """The window as a SoQL condition, in the column's own clock; "" for none.

    Local clocks fall back in autumn: the two UTC hours that share a local one are an empty window and a full one, so
    windows that meet in UTC still meet here, and each row belongs to one.
    """
    if not request.window_column:
        return ""
    name = _field(request.window_column)
    kind = types.get(name)
    if kind not in ("local_time", "instant"):
        raise SetupError(
            f"the window column {name} is {kind or 'not among the columns'}: a window needs a date and time",
            code="bad-window-column",
            next_step="Choose a date column of the dataset as its window column.",
        )
    bounds = ((">=", request.starts_at), ("<", request.ends_at))
    return " AND ".join(f"{name} {sign} '{_moment(when, kind, request.time_zone)}'" for sign, when in bounds if when is not None)


def _since(request: FetchRequest, types: Mapping[str, str]) -> str:
    """The watermark as a SoQL condition; "" for none.

    Rows at the watermark come again, because others may share its value; so do rows without a value, which no watermark
    would ever reach. The portal's own clock (`:updated_at`) has a value in each row.
    """
    if not request.since_column or not request.since:
        return ""
    name = _field(request.since_column)
    kind = types.get(name)
    if kind not in ("local_time", "instant", "number", "text"):
        raise SetupError(
            f"the watermark column {name} is {kind or 'not among the columns'}: a watermark needs a column whose values grow",
            code="bad-watermark-column",
            next_step="Choose a date column of the dataset as its watermark column, or a number that grows.",
        )
    newer = f"{name} >= {_literal(request.since, kind, name)}"
    return newer if name in SYSTEM_TYPES else f"({newer} OR {name} IS NULL)"


def _literal(value: str, kind: str, name: str) -> str:
    """A value as SoQL writes it in a comparison with a column of type `kind`. Raises SetupError if it is none of that type."""
    try:
        match kind:
            case "number":
                number = Decimal(value)
                if not number.is_finite():
                    raise ValueError(value)
                return format(number, "f")
            case "instant":
                when = datetime.fromisoformat(value)
                return f"'{_moment(when if when.tzinfo else when.replace(tzinfo=UTC), kind, 'UTC')}'"
            case "local_time":
                when = datetime.fromisoformat(value)
                if when.tzinfo:
                    raise ValueError(value)
                return f"'{when.isoformat(timespec='milliseconds')}'"
    except (ValueError, ArithmeticError):
        raise SetupError(
            f"{value!r} is not a value that column {name} ({kind}) could have",
            code="bad-since",
            next_step=f"Write it as {name} shows its values; a date and time looks like 2020-09-20T01:39:13.",
        ) from None
    return "'" + value.replace("'", "''") + "'"


def _moment(when: datetime, kind: str, zone: str) -> str:
    """An instant as SoQL writes it: `2020-01-01T08:00:00.000Z`, or without Z in the zone's own clock."""
    if kind == "instant":
        return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return when.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(timespec="milliseconds")


def _same_columns(page: str, header: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Raise DataError naming the first column that is not the one asked for."""
    if header == wanted:
        return
    alike = (got == want for got, want in zip(header, wanted, strict=False))
    place = next((i for i, same in enumerate(alike) if not same), min(len(header), len(wanted)))
    got = repr(header[place]) if place < len(header) else "nothing"
    want = repr(wanted[place]) if place < len(wanted) else "nothing"
    raise DataError(
        f"{page}: column {place + 1} is {got} where {want} was asked for ({len(header)} columns came, {len(wanted)} were asked for)",
        code="wrong-columns",
        next_step="Compare the dataset's columns with the portal's: one may have been renamed, added or taken away.",
    )


def _sent(value: Any, kind: str, name: str) -> Any:
    """A cell as SODA takes it: text or null, GeoJSON for a point."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case datetime():
            return _moment(value, "instant", "UTC") if value.tzinfo else value.isoformat(timespec="milliseconds")
        case date():
            return value.isoformat()
        case Decimal() | float() if not math.isfinite(value):
            raise DataError(f"column {name} holds {value}, and a portal takes finite numbers only", code="not-finite")
        case Decimal():
            return format(value, "f")
        case dict() | list():
            return value
    if kind == "point" and isinstance(value, str):
        if found := POINT.fullmatch(value):
            return {"type": "Point", "coordinates": [float(found[1]), float(found[2])]}
        if found := PAIR.fullmatch(value):
            return {"type": "Point", "coordinates": [float(found[2]), float(found[1])]}
    return str(value)
