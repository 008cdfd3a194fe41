"""CKAN portals, by their action API: read a resource of the datastore; introduce a dataset, exchange, upsert and delete its rows."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pipelines.connectors import ckan_about, ckan_exchange, ckan_rows
from pipelines.connectors.base import (
    About,
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
from pipelines.connectors.csv_pages import header_of, settle
from pipelines.connectors.http import MIB, Door
from pipelines.errors import DataError, PermanentError, PipelineError, SetupError, TransientError
from pipelines.faults import faultpoint

#: Of packages, so many are asked for at once: CKAN gives no more of them.
PACKAGES_A_PAGE = 1_000
#: Of rows, so many are read at once: CKAN gives 32,000 at most, and a page is held in memory.
ROWS_A_PAGE = 10_000
#: Of keys in one question, and of rows that are told by their numbers.
KEYS_AT_ONCE = 2_000
IDS_AT_ONCE = 20_000
#: A request that writes rows is worked in before it is answered; a busy portal may take minutes.
WRITE_SECONDS = 300
#: A file of hundreds of MB may take so long to be sent.
UPLOAD_SECONDS = 1800
#: What ends so only asks. What is named changes nothing either when it is done twice. Neither may be lost by one broken connection.
_QUESTIONS = ("_show", "_list", "_search", "_info", "_autocomplete")
_TWICE_IS_HARMLESS = frozenset({"package_patch", "resource_patch", "datastore_function_delete", "datastore_cache"})
#: CKAN's word for what went wrong → our error and its code.
_KINDS: dict[str, tuple[type[PipelineError], str]] = {
    "Authorization Error": (SetupError, "http-403"),
    "Not Found Error": (SetupError, "http-404"),
    "Validation Error": (DataError, "http-409"),
    "Integrity Error": (DataError, "http-400"),
}
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_PACKAGE = re.compile(r"[a-z0-9_-]{2,100}")


@dataclass(frozen=True)
class _Rows:
    """The rows that are to take a table's place: how many, and the records, in batches, for the types of the columns.

    `fields` are those of the table that they make, where they are not to be made of the columns that are published.
    """

    count: int
    batches: Callable[[Mapping[str, str]], Iterable[list[dict[str, Any]]]]
    fields: Sequence[Mapping[str, Any]] = ()


class Ckan(Connector):
    """A portal that speaks CKAN's action API. A resource is its id, or `package-name/Resource name`."""

    kind = "ckan"
    label = "CKAN (action API)"
    can_fetch = True
    can_publish = True
    can_delete = True
    can_replace = True
    can_introduce = True
    address_hint = "https://data.example.gov"
    parameters = (
        Parameter("api_key", "API token", secret=True, help="Of an account there; needed to publish, and to read what is not public."),
        Parameter("organization", "Organization", help="The name of the organization that new datasets belong to, like city-of-toronto."),
        Parameter("licence_url", "Licence", help="The address of the licence of datasets that name none, or CKAN's id of it."),
        Parameter("language", "Language of its full-text search", default="english", help="As ckan.datastore.default_fts_lang has it."),
    )

    def __init__(self, account: Account, door: Door):
        super().__init__(account, door)
        #: What was found of each resource, and by which key its rows are told.
        self._held: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}

    @property
    def _headers(self) -> dict[str, str]:
        key = self.account.secrets.get("api_key", "")
        return {"Authorization": key} if key else {}

    @property
    def host(self) -> str:
        """What a message calls the portal."""
        return urlsplit(self.web_address).netloc

    # ------------------------------------------------------------------------------------------------------ the API

    def action(self, name: str, /, **params: Any) -> Any:
        """What the portal answers to an action: the `result`, of whatever shape the action has. Raises PipelineError, in CKAN's own words.

        Questions and what may be done twice are asked again where the connection failed.
        """
        return self._ask(name, params, repeatable=name.endswith(_QUESTIONS) or name in _TWICE_IS_HARMLESS)

    def _ask(self, name: str, params: dict[str, Any], *, repeatable: bool) -> Any:
        seconds = WRITE_SECONDS if name.startswith("datastore_") and not name.endswith(_QUESTIONS) else None
        reply = self.door.ask(
            "POST", f"{self.web_address}/api/3/action/{name}", payload=params, headers=self._headers, repeatable=repeatable, expect="json",
            read_timeout=seconds,
        )  # fmt: skip
        return self._result(name, reply.json)

    def upload(self, name: str, file: Path, file_name: str, /, **params: Any) -> Any:
        """The `result` of an action that takes a file beside its parameters, as a web form sends it, straight from the disk. Raises PipelineError.

        For a moment there is a second copy of the file beside it.
        """
        boundary, body = f"odo-{token_hex(16)}", file.with_name(f"{file.name}.form")
        try:
            with body.open("wb") as form, file.open("rb") as content:
                for field, value in params.items():
                    form.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode())
                # as browsers write it: a sign that would end the name early is percent-encoded
                named = file_name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
                form.write(f'--{boundary}\r\nContent-Disposition: form-data; name="upload"; filename="{named}"\r\n'.encode())
                form.write(b"Content-Type: application/octet-stream\r\n\r\n")
                shutil.copyfileobj(content, form, MIB)
                form.write(f"\r\n--{boundary}--\r\n".encode())
            reply = self.door.upload(
                "POST", f"{self.web_address}/api/3/action/{name}", body, content_type=f"multipart/form-data; boundary={boundary}",
                headers=self._headers, repeatable=name in _TWICE_IS_HARMLESS, read_timeout=WRITE_SECONDS, deadline=UPLOAD_SECONDS,
            )  # fmt: skip
        finally:
            body.unlink(missing_ok=True)
        return self._result(name, reply.json)

    def _result(self, name: str, answer: Any) -> Any:
        """What an answer holds. Raises PipelineError."""
        if not isinstance(answer, dict) or "success" not in answer:
            raise SetupError(
                f"{self.host} answers, but not as a CKAN portal does",
                code="not-ckan",
                next_step=f"Check the address of provider {self.account.slug}: it is the portal's first page, without /api.",
            )
        if answer["success"] is not True:
            self._refused(name, answer.get("error"))
        return answer.get("result")

    def _refused(self, name: str, error: Any) -> NoReturn:
        """Raise what an answer means that says by itself that it failed, though its status was a good one."""
        told = error if isinstance(error, dict) else {"message": error}
        kind, code = _KINDS.get(told.get("__type", ""), (TransientError, "ckan-failed"))
        raise kind(self.door.redact(f"{self.host} refused {name}: {words(told)}"), code=code)

    def packages(self) -> Iterator[dict[str, Any]]:
        """Yield every package that the account may see, with its resources, in pages until there are no more. Raises PipelineError."""
        seen: set[str] = set()
        start = 0
        while True:
            answer = self.action("package_search", rows=PACKAGES_A_PAGE, start=start, sort="name asc", include_private=True)
            page = answer["results"]
            for package in page:
                # a package that is made meanwhile moves the others on by one place
                if package["id"] not in seen:
                    seen.add(package["id"])
                    yield package
            start += len(page)
            if not page or start >= answer["count"]:
                return

    def test(self) -> str:
        """Ask for the portal's version and, with a token, whose it is: a wrong one is refused there."""
        status = self.action("status_show")
        told = f"{self.host} answers: CKAN {status.get('ckan_version', 'of an unknown version')}"
        if "datastore" not in status.get("extensions", ["datastore"]):
            raise SetupError(
                f"{self.host} has no datastore, and rows are read from it and written to it",
                code="no-datastore",
                next_step="Ask who runs the portal to enable its datastore plugin.",
            )
        if not self._headers:
            return told
        try:
            # without an id: whose token it is
            return f"{told}, and it knows the token as {self.action('user_show')['name']}'s"
        except SetupError as error:
            # before CKAN 2.10 nobody could ask so
            if error.code != "http-404" or not (may := self.action("organization_list_for_user", permission="create_dataset")):
                raise SetupError(
                    f"{self.host} does not know the token of provider {self.account.slug}",
                    code="http-403",
                    next_step=f"Make a new API token on the portal, and enter it in provider {self.account.slug}.",
                ) from None
        return f"{told}; with the token datasets of {len(may):,} organizations may be made"

    # --------------------------------------------------------------------------------------------- what there is

    def _package(self, name: str) -> dict[str, Any] | None:
        """A package with its resources; None where there is none. Raises SetupError for one that was deleted on the portal."""
        try:
            package = self.action("package_show", id=name)
        except SetupError as error:
            if error.code != "http-404":
                raise
            return None
        if package.get("state") == "deleted":
            raise SetupError(
                f"the dataset {name} was deleted on {self.host}",
                code="deleted-there",
                next_step="Restore or purge it on the portal, or publish under another name.",
            )
        return package

    def _place(self, resource: str) -> tuple[str, str]:
        """(package, name of the resource in it, "" for its only one). Raises SetupError."""
        package, _, name = resource.strip().partition("/")
        if not _PACKAGE.fullmatch(package):
            raise SetupError(
                f"{resource!r} is neither the id of a CKAN resource nor package-name/Resource name",
                code="bad-resource",
                next_step="Write the name that stands in the dataset's address, a slash and the resource's name; or the resource's id.",
            )
        return package, name.strip()

    def _find(self, resource: str) -> dict[str, Any] | None:
        """The resource as the portal shows it; None where there is none."""
        if _ID.fullmatch(resource.strip()):
            try:
                found = self.action("resource_show", id=resource.strip())
            except SetupError as error:
                if error.code != "http-404":
                    raise
                return None
        else:
            name, table = self._place(resource)
            package = self._package(name)
            found = self._in(package, table) if package else None
        if found:
            self._held[resource] = found
        return found

    def _in(self, package: Mapping[str, Any], table: str) -> dict[str, Any] | None:
        """The resource of that name in a package. Raises SetupError where it can't be told which."""
        named = [each for each in package["resources"] if not table or (each.get("name") or "").strip() == table]
        if len(named) > 1:
            which = f"named {table!r}" if table else "and its address names none of them"
            raise SetupError(
                f"the dataset {package['name']} of {self.host} has {len(named)} resources {which}",
                code="which-resource",
                next_step="Rename one of them on the portal, or write the id of the right one.",
            )
        return named[0] if named else None

    def _resource(self, resource: str) -> dict[str, Any]:
        """The resource, found once. Raises SetupError("not-introduced") where there is none."""
        found = self._held.get(resource) or self._find(resource)
        if found is None:
            raise SetupError(
                f"{self.host} has no {resource}",
                code="not-introduced",
                next_step="Send the description to the portal, which makes it; or check its name.",
            )
        return found

    def _table(self, id: str) -> dict[str, Any] | None:
        """`fields` and `total` of a table of the datastore; None where there is none."""
        try:
            return self.action("datastore_search", resource_id=id, limit=0)
        except SetupError as error:
            if error.code != "http-404":
                raise
            return None

    # ----------------------------------------------------------------------------------------------------- a source

    def describe(self, resource: str) -> SourceState:
        """Two requests. CKAN doesn't say when rows changed, so there is no `version`: each read compares all of them."""
        shown = self._resource(resource)
        table = self._table(shown["id"])
        if table is None:
            raise SetupError(
                f"{resource} of {self.host} is not a table: the datastore has no rows of it",
                code="not-a-table",
                next_step="Choose a resource that CKAN shows a table of; a file is fetched by its address.",
            )
        return self._state(shown, table)

    def _state(self, shown: Mapping[str, Any], table: Mapping[str, Any]) -> SourceState:
        told = [field for field in table["fields"] if field["id"] != "_id"]
        info = {field["id"]: field.get("info") or {} for field in told}
        columns = tuple(
            Column(
                name=field["id"],
                type=ckan_rows.our_type(field["type"]),
                label=info[field["id"]].get("label") or "",
                description=info[field["id"]].get("notes") or "",
                portal_type=field["type"],
            )
            for field in told
        )
        stamp = shown.get("last_modified") or shown.get("created")
        return SourceState(
            title=shown.get("name") or shown["id"],
            columns=columns,
            changed_at=datetime.fromisoformat(stamp).replace(tzinfo=UTC) if stamp else None,
            description=shown.get("description") or "",
            metadata={"resource_id": shown["id"], "package_id": shown.get("package_id"), "rows": table.get("total"), "info": info},
        )

    def count(self, resource: str, request: FetchRequest) -> int:
        return self.action("datastore_search", resource_id=self._resource(resource)["id"], limit=0, filters=_window(request))["total"]

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield pages as CSV, in the order of the table's own row numbers. Raises TransientError("short-page") where the table shrank meanwhile."""
        id, filters = self._resource(resource)["id"], _window(request)
        size = min(request.page_size, ROWS_A_PAGE)
        arrived = 0
        while rows is None or arrived < rows:
            question = {
                "resource_id": id,
                "fields": [column.name for column in request.columns],
                "filters": filters,
                "sort": "_id",
                "limit": size,
                "offset": arrived,
                "include_total": False,
            }
            page = workdir / f"{id}-{arrived // size + 1:05d}.json"
            self.door.download(
                f"{self.web_address}/api/3/action/datastore_search", page, payload=question, headers=self._headers, expect="json",
                read_timeout=WRITE_SECONDS,
            )  # fmt: skip
            file = self._page(page, question)
            page.unlink()
            if not file.rows:
                if rows is None:
                    return
                raise TransientError(f"{self.host} gave {arrived:,} of {rows:,} rows", code="short-page")
            arrived += file.rows
            progress(arrived, rows)
            yield file

    def _page(self, page: Path, question: Mapping[str, Any]) -> FetchedFile:
        """The records of an answer as a CSV file beside it, each number as it was written."""
        whole = page.read_bytes()
        try:
            # a number as it was written; but inside of JSON as the number that it is
            records = json.loads(whole, parse_float=str, parse_int=str)["result"]["records"]
            nested = json.loads(whole)["result"]["records"]
        except (ValueError, KeyError, TypeError):
            raise TransientError(f"{self.host} was asked for rows and answered with something else", code="no-rows") from None
        path, names = page.with_suffix(".csv"), question["fields"]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(names)
            for record, plain in zip(records, nested, strict=True):
                writer.writerow([_written(plain[name] if isinstance(record[name], dict | list) else record[name]) for name in names])
        settled = settle(path, proven=True)
        return FetchedFile(
            name=path.name,
            path=path,
            rows=settled.rows,
            bytes=settled.bytes,
            sha256=settled.sha256,
            origin=self.door.redact(f"{self.web_address}/api/3/action/datastore_search?resource_id={question['resource_id']}"),
            metadata={"offset": question["offset"]},
        )

    # ------------------------------------------------------------------------------------- what it says of a dataset

    def introduce(self, resource: str, about: About) -> tuple[str, ...]:
        """Make package and resource where there are none; then only what differs is sent: fields, format, the dictionary."""
        if _ID.fullmatch(resource.strip()):
            shown = self._resource(resource)
            package = self._package(shown["package_id"])
            changed: list[str] = []
        else:
            name, _ = self._place(resource)
            package = self._package(name)
            changed = [] if package else [f"the dataset {name} was made"]
        wanted = ckan_about.fields_of(about, self.account.parameters.get("organization", ""), self.account.parameters.get("licence_url", ""))
        if package is None:
            package = self._made(name, wanted)
        else:
            changed += self._say(package, wanted)
        return tuple(changed + self._say_of_table(resource, package, about))

    def _made(self, name: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """A new package that says all of it."""
        try:
            package = self.action("package_create", name=name, **{field: ckan_about.sent(field, value) for field, value in wanted.items()})
        except DataError:
            # another pipeline of the same dataset may have made it just now
            if (package := self._package(name)) is None:
                raise
            self._say(package, wanted)
            return package
        self._say_beside(package, wanted)
        return package

    def _say(self, package: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
        """Patch what the package does not say yet; returns the names of the fields."""
        differ = ckan_about.unsaid(package, wanted)
        if not differ:
            return []
        beside = ckan_about.extras(package)
        patch = {name: ckan_about.sent(name, wanted[name]) for name in differ if name not in beside}
        if kept := {name: ckan_about.as_extra(wanted[name]) for name in differ if name in beside}:
            patch["extras"] = _extras(beside | kept)
        self._say_beside(self.action("package_patch", id=package["id"], **patch), wanted)
        return differ

    def _say_beside(self, package: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """A field that it does not know CKAN drops without a word: what it dropped just now goes among the extras, where it keeps any."""
        if dropped := [name for name in ckan_about.unsaid(package, wanted) if not ckan_about.is_known(package, name)]:
            beside = ckan_about.extras(package) | {name: ckan_about.as_extra(wanted[name]) for name in dropped}
            self.action("package_patch", id=package["id"], extras=_extras(beside))

    def _say_of_table(self, resource: str, package: Mapping[str, Any], about: About) -> list[str]:
        """Make the resource, or patch what of it differs: its format, its dictionary. Returns what changed, in words."""
        table = self._place(resource)[1] if not _ID.fullmatch(resource.strip()) else ""
        shown = self._held.get(resource) if _ID.fullmatch(resource.strip()) else self._in(package, table)
        wanted = {"format": about.format.upper(), "extract_job": f"Open Data Ops: {package['name']}"}
        if shown is None:
            self._held[resource] = self.action(
                "resource_create",
                package_id=package["id"],
                name=table or about.table,
                url=about.origin or "_datastore_only_resource",
                url_type="datastore",
                is_preview=True,
                **wanted,
            )
            return [f"the table {table or about.table} was made"]
        self._held[resource] = shown
        differ = {name: value for name, value in wanted.items() if str(shown.get(name) or "").lower() != value.lower()}
        changed = [f"{name} of the table {shown['name']}" for name in differ]
        if differ:
            self._held[resource] = self.action("resource_patch", id=shown["id"], **differ)
        return changed + self._say_of_columns(shown["id"], about.columns)

    def _say_of_columns(self, id: str, columns: Iterable[Column]) -> list[str]:
        """Send the dictionary of a table that there is, if a word of it differs: no row is touched."""
        table = self._table(id)
        if table is None:
            return []
        held = {field["id"]: field.get("info") or {} for field in table["fields"] if field["id"] != "_id"}
        wanted = ckan_about.dictionary([column for column in columns if column.name in held], held)
        differ = [name for name, info in wanted.items() if info != held[name]]
        if differ:
            # all of them, in the portal's order: older versions take a part of them for another table
            fields = [_field(name, "", wanted.get(name, info)) for name, info in held.items()]
            self._ask("datastore_create", {"resource_id": id, "fields": fields, "force": True}, repeatable=True)
        return [f"dictionary: {', '.join(differ)}"] if differ else []

    # -------------------------------------------------------------------------------------------------- a publisher

    def preflight(self, resource: str, *, columns: Iterable[Column], key: tuple[str, ...], replaces: bool = False) -> tuple[Column, ...]:
        """The portal's columns, or ours where it has no table yet. Raises SetupError for names or types that it can't take.

        Only a replacement by a sysadmin may give a column another type: then the table is a new one.
        """
        columns = tuple(columns)
        self._refuse_strangers()
        if wrong := [f"{column.name!r} {why}" for column in columns if (why := ckan_rows.why_illegal(column.name))]:
            raise SetupError(
                f"CKAN cannot take columns of these names: {'; '.join(wrong)}",
                code="column-name",
                next_step="Rename them in the pipeline's columns.",
            )
        if not key and not replaces:
            raise SetupError(
                f"the rows of {resource} have no key: every upsert would append them once more",
                code="row-identifier-missing",
                next_step="Give the pipeline a key, or replace all rows each time.",
            )
        self._keys[resource] = key
        shown = self._resource(resource)
        table = self._table(shown["id"])
        if table is None:
            return columns
        self.described = self._state(shown, table)
        if not (replaces and self.may_exchange):
            self._check_types(resource, self.described.columns, columns)
        return self.described.columns

    def _refuse_strangers(self) -> None:
        if not self._headers:
            raise SetupError(
                f"provider {self.account.slug} has no API token, and publishing needs one",
                code="credentials-missing",
                next_step=f"Make an API token of an account of the portal, and enter it in provider {self.account.slug}.",
            )

    def _check_types(self, resource: str, theirs: Iterable[Column], ours: Iterable[Column]) -> None:
        """Raise SetupError naming the columns whose values the portal's table can't take."""
        held = {column.name: column for column in theirs}
        wrong = [
            f"{column.name} is {held[column.name].portal_type} there and {kind} here"
            for column in ours
            if column.name in held and held[column.name].type not in ("text", ckan_rows.our_type(kind := ckan_rows.type_of(column)))
        ]
        if wrong:
            raise SetupError(
                f"the table of {resource} cannot take our columns: {'; '.join(wrong)}",
                code="columns-differ",
                next_step="Change the types in the dictionary; or replace all rows with a sysadmin's token, which makes the table anew.",
            )

    @property
    def may_exchange(self) -> bool:
        """Whether the account may make functions, and so exchange tables: a sysadmin of a CKAN with PostgreSQL."""
        if not hasattr(self, "_is_sysadmin"):
            try:
                self.action("datastore_function_delete", name=f"odo_{token_hex(8)}", if_exists=True)
                self._is_sysadmin = True
            except PipelineError as error:
                if error.code not in ("http-400", "http-403"):
                    raise
                self._is_sysadmin = False
        return self._is_sysadmin

    def open_publication(self, resource: str, columns: tuple[Column, ...]) -> None:
        """Make the table where there is none; add the columns that it lacks, and see that it knows its rows by the key."""
        self._prepare(self._resource(resource)["id"], columns, self._keys.get(resource, ()))

    def _prepare(self, id: str, columns: Iterable[Column], key: tuple[str, ...]) -> dict[str, str]:
        """Column to type of the table, as it is now."""
        table = self._table(id)
        held = {field["id"]: field for field in (table or {"fields": []})["fields"] if field["id"] != "_id"}
        said = ckan_about.dictionary(columns, {})
        fields = [_field(name, "", {}) for name in held]
        fields += [_field(column.name, ckan_rows.type_of(column), said[column.name]) for column in columns if column.name not in held]
        wish = {"resource_id": id, "fields": fields, "primary_key": list(key), "force": True}
        self._ask("datastore_create", wish, repeatable=True)
        return {field["id"]: held[field["id"]]["type"] if field["id"] in held else field["type"] for field in fields}

    def upsert(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Send one chunk by its key; CKAN does not tell new rows from changed ones."""
        id, kinds = self._resource(resource)["id"], self._kinds(resource)
        for part in ckan_rows.parts([_record(row, kinds) for row in rows]):
            self._write(id, part, "upsert")
        return Published(updated=len(rows))

    def _kinds(self, resource: str) -> dict[str, str]:
        """Column to type of the resource's table, asked once."""
        shown = self._resource(resource)
        if "_kinds" not in shown:
            table = self._table(shown["id"]) or {"fields": []}
            shown["_kinds"] = {field["id"]: field["type"] for field in table["fields"] if field["id"] != "_id"}
        return shown["_kinds"]

    def _write(self, id: str, records: list[dict[str, Any]], method: str) -> None:
        wish = {"resource_id": id, "records": records, "method": method, "force": True, "calculate_record_count": False}
        # what is inserted twice is there twice
        self._ask("datastore_upsert", wish, repeatable=method == "upsert")

    def close_publication(self, resource: str) -> None:
        self._date(resource)

    def _date(self, resource: str) -> None:
        """Say on the portal that the rows changed now: of the resource, and of its package where the portal doesn't do so itself."""
        shown, now = self._resource(resource), datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
        self.action("resource_patch", id=shown["id"], last_modified=now)
        self._say(self.action("package_show", id=shown["package_id"]), {"last_refreshed": now})

    def delete(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Delete rows by their key; CKAN deletes what there is of them without counting."""
        id, kinds = self._resource(resource)["id"], self._kinds(resource)
        for filters in _by_key([_record(row, kinds) for row in rows]):
            self._remove(id, filters)
        if rows:
            self._date(resource)
        return Published(deleted=len(rows))

    def _remove(self, id: str, filters: Mapping[str, Any]) -> None:
        if not filters:
            raise ValueError("a filter that names nothing would empty the table")
        self._ask("datastore_delete", {"resource_id": id, "filters": filters, "force": True, "calculate_record_count": False}, repeatable=True)

    def present(self, resource: str, rows: list[dict[str, Any]]) -> set[str]:
        """Which of the rows the portal has: their keys, as they were given."""
        if not rows:
            return set()
        id, [name] = self._resource(resource)["id"], rows[0]
        kind = self._kinds(resource).get(name, "text")
        given = {ckan_rows.same_key(row[name], kind): str(row[name]) for row in rows}
        held: set[str] = set()
        for filters in _by_key([_record(row, {name: kind}) for row in rows]):
            told = self.action("datastore_search", resource_id=id, filters=filters, fields=[name], limit=KEYS_AT_ONCE, include_total=False)
            held |= {given[key] for record in told["records"] if (key := ckan_rows.same_key(record[name], kind)) in given}
        return held

    def published_count(self, resource: str) -> int:
        table = self._table(self._resource(resource)["id"])
        return table["total"] if table else 0

    # ------------------------------------------------------------------------------------------------- all its rows

    def replace(self, resource: str, columns: tuple[Column, ...], path: Path, rows: int) -> Published:
        """Exchange all rows for those of a CSV file.

        A sysadmin's go into a staged table, which takes the public one's place in one transaction: readers see the old rows or the
        new ones. For others the new rows are added in batches, then the old ones deleted: readers may see both for a while, and
        never fewer than there were. What a run that was killed left behind is cleaned by the next.
        """
        if header_of(path) != tuple(column.name for column in columns):
            raise DataError(f"{path.name} has other columns than those that were announced", code="wrong-columns")
        return self._replace(resource, columns, self._keys.get(resource, ()), _Rows(rows, partial(ckan_rows.batches, path)))

    def exchange(
        self,
        resource: str,
        fields: Sequence[Mapping[str, Any]],
        batches: Callable[[], Iterable[list[dict[str, Any]]]],
        *,
        rows: int,
        key: tuple[str, ...] = (),
    ) -> Published:
        """Exchange all rows for records that are told as CKAN tells them, as a backup has them.

        `fields` are the table's to be (id, type, info), `batches` gives its `rows` records, each time anew, as the API takes them: an empty
        text stays one.
        Otherwise like `replace`; a table that can't be exchanged keeps the types that it has.
        """
        columns = tuple(
            Column(one["id"], ckan_rows.our_type(one["type"]), (one.get("info") or {}).get("label", ""), (one.get("info") or {}).get("notes", ""))
            for one in fields
        )
        return self._replace(
            resource, columns, key, _Rows(rows, lambda kinds: (part for batch in batches() for part in ckan_rows.parts(batch)), fields)
        )

    def _replace(self, resource: str, columns: tuple[Column, ...], key: tuple[str, ...], rows: _Rows) -> Published:
        shown = self._resource(resource)
        if self._table(shown["id"]) is None:
            # empty, so that the first rows too come as a whole
            self._prepare(shown["id"], columns, key)
        way = "exchanged"
        if not self.may_exchange or not self._exchange(shown, columns, key, rows):
            way = "added, then the old ones deleted"
            self._append(shown["id"], columns, key, rows)
        self._date(resource)
        faultpoint("ckan.dated")
        return Published(created=rows.count, reply={"rows": rows.count, "way": way})

    def _exchange(self, shown: Mapping[str, Any], columns: tuple[Column, ...], key: tuple[str, ...], rows: _Rows) -> bool:
        """Stage the rows and exchange the tables; False where the public table has triggers of its own, which must see each row."""
        live = shown["id"]
        name = f"odo-staging-{hashlib.sha256(live.encode()).hexdigest()[:16]}"
        function = name.replace("-", "_")
        self._clear(name, function)
        staged, control = self._stage(name, shown)
        faultpoint("ckan.staging")
        try:
            kinds = self._fill(staged, live, columns, key, rows)
            language = self.account.parameters.get("language", "").strip() or "english"
            body = ckan_exchange.function(live, staged, f"Open Data Ops {token_hex(8)}", rows.count, kinds, key, language)
            self._ask("datastore_function_create", {"name": function, "or_replace": True, "rettype": "trigger", "definition": body}, repeatable=True)
            faultpoint("ckan.function")
            wish = {
                "resource_id": control,
                "fields": [{"id": "fires", "type": "text"}],
                "triggers": [{"function": function}],
                "records": [{"fires": "the exchange"}],
                "force": True,
                "calculate_record_count": False,
            }
            self._ask("datastore_create", wish, repeatable=True)
        except PermanentError as error:
            # of one that passes, the next attempt cleans up
            self._clear(name, function)
            if ckan_exchange.NO_MOMENT in error.message:
                raise TransientError(error.message, code="busy-readers") from None
            if ckan_exchange.OWN_TRIGGERS not in error.message:
                raise
            self.door.tell("warning", f"{error.message}: the new rows are added to it, and the old ones deleted then")
            return False
        faultpoint("ckan.exchanged")
        try:
            self._clear(name, function)
        except PipelineError as error:
            # the rows are where they belong; what is left is hidden, and the next publication removes it
            self.door.tell("warning", f"what the exchange needed could not be removed: {error.message}")
        faultpoint("ckan.cleaned")
        return True

    def _stage(self, name: str, shown: Mapping[str, Any]) -> tuple[str, str]:
        """The ids of two resources of a dataset that nobody sees: for the rows, and for what fires the exchange."""
        owner = self.action("package_show", id=shown["package_id"]).get("owner_org")
        package = self.action(
            "package_create",
            name=name,
            title="Rows on their way (Open Data Ops)",
            notes="Made and removed again by Open Data Ops while it exchanges the rows of a table.",
            state="draft",
            resources=[{"name": "rows", "url": "_datastore_only_resource"}, {"name": "exchange", "url": "_datastore_only_resource"}],
            **({"owner_org": owner, "private": True} if owner else {}),
        )
        return tuple(each["id"] for each in package["resources"])

    def _fill(self, staged: str, live: str, columns: tuple[Column, ...], key: tuple[str, ...], rows: _Rows) -> dict[str, str]:
        """Load the rows into the staged table, with the dictionary that the public one is to have. Raises TransientError unless all are there."""
        held = {field["id"]: field.get("info") or {} for field in self._table(live)["fields"]}
        said = ckan_about.dictionary(columns, held)
        fields = rows.fields or [_field(column.name, ckan_rows.type_of(column), said[column.name]) for column in columns]
        kinds = {field["id"]: field["type"] for field in fields}
        self._ask("datastore_create", {"resource_id": staged, "fields": fields, "primary_key": list(key), "force": True}, repeatable=True)
        for batch in rows.batches(kinds):
            self._write(staged, batch, "insert")
            faultpoint("ckan.batch")
        self._count(staged, rows.count)
        return kinds

    def _count(self, id: str, rows: int) -> None:
        """Raise TransientError unless the table has so many rows."""
        if (held := self._table(id)["total"]) != rows:
            raise TransientError(f"{self.host} was sent rows and has {held:,} where {rows:,} must be; the old ones stay", code="portal-miscounted")
        faultpoint("ckan.counted")

    def _clear(self, name: str, function: str) -> None:
        """Remove the staging dataset with its tables, and the function, whatever of them is there."""
        try:
            package = self.action("package_show", id=name)
        except SetupError as error:
            if error.code != "http-404":
                raise
            package = {"resources": []}
        for resource in package["resources"]:
            with suppress(SetupError):
                # without a table there is nothing to drop
                self._ask("datastore_delete", {"resource_id": resource["id"], "force": True, "calculate_record_count": False}, repeatable=True)
        self.action("datastore_function_delete", name=function, if_exists=True)
        if "id" in package:
            self.action("dataset_purge", id=package["id"])

    def _append(self, id: str, columns: tuple[Column, ...], key: tuple[str, ...], rows: _Rows) -> None:
        """Add the new rows, then delete the old ones; what was added is taken back when it fails."""
        # a key that old and new rows share would refuse the new ones
        kinds = self._prepare(id, columns, ())
        faultpoint("ckan.unkeyed")
        newest = self.action("datastore_search", resource_id=id, fields=["_id"], sort="_id desc", limit=1)
        last = newest["records"][0]["_id"] if newest["records"] else 0
        is_whole = False
        try:
            for batch in rows.batches(kinds):
                self._write(id, batch, "insert")
                faultpoint("ckan.batch")
            self._count(id, newest["total"] + rows.count)
            is_whole = True
        finally:
            if not is_whole:
                self._take_back(id, last)
        if last:
            self._remove_beside(id, last, is_new=False)
        faultpoint("ckan.removed")
        self._prepare(id, columns, key)

    def _take_back(self, id: str, last: int) -> None:
        """Delete what was added behind the row `last`, after a failure, which goes on whatever becomes of this."""
        try:
            self._remove_beside(id, last, is_new=True)
            self.door.tell("warning", f"{self.host}: what was added to the table was taken back")
        except PipelineError as trouble:
            self.door.tell("warning", f"{self.host}: what was added to the table stays beside the old rows until the next run: {trouble.message}")

    def _remove_beside(self, id: str, last: int, *, is_new: bool) -> None:
        """Delete the rows numbered up to `last`, or those behind it."""
        try:
            self._remove(id, {"_id": {"gt" if is_new else "lte": last}})
        except (DataError, TransientError):
            # before CKAN 2.12 rows are told one by one
            while ids := self._ids(id, last, is_new=is_new):
                self._remove(id, {"_id": ids})

    def _ids(self, id: str, last: int, *, is_new: bool) -> list[int]:
        """Numbers of rows up to `last`, or behind it: so many as are deleted at once."""
        order = "_id desc" if is_new else "_id"
        told = self.action("datastore_search", resource_id=id, fields=["_id"], sort=order, limit=IDS_AT_ONCE, include_total=False)
        return [number for record in told["records"] if ((number := record["_id"]) > last) == is_new]


def words(error: dict[str, Any]) -> str:
    """What CKAN says of a failure, in one line: its message, or field by field what is wrong."""
    if error.get("message"):
        return str(error["message"])
    told = {name: said for name, said in error.items() if name not in ("__type", "info")}
    return "; ".join(f"{name}: {_line(said)}" for name, said in told.items()) or "no reason given"


def _line(said: Any) -> str:
    if isinstance(said, list):
        return " ".join(_line(each) for each in said if each)
    if isinstance(said, dict):
        return words(said)
    return str(said)


def _extras(told: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in told.items()]


def _field(name: str, kind: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """A column as CKAN is told of it; without a type one that there is, without words one that keeps those that it has."""
    return {"id": name, **({"type": kind} if kind else {}), **({"info": dict(info)} if info else {})}


def _record(row: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    return {name: ckan_rows.cell(value, kinds.get(name, "text"), name) for name, value in row.items()}


def _by_key(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Filters that together name all the records, each told by its key: those that share all but the last column go together."""
    groups: defaultdict[tuple, list[Any]] = defaultdict(list)
    for record in records:
        *first, last = record.items()
        groups[(tuple(first), last[0])].append(last[1])
    for (first, name), values in groups.items():
        for start in range(0, len(values), KEYS_AT_ONCE):
            yield {**dict(first), name: values[start : start + KEYS_AT_ONCE]}


def _window(request: FetchRequest) -> dict[str, Any]:
    """The window of a request as CKAN's filters, in the column's own clock; {} for none. Raises SetupError for a watermark."""
    if request.since_column:
        raise SetupError(
            "CKAN can't be asked for the rows that are newer than others or have no value",
            code="bad-watermark-column",
            next_step="Take the watermark column out of the pipeline: all rows are read then, and compared.",
        )
    if not request.window_column:
        return {}
    kind = {column.name: column.type for column in request.columns}.get(request.window_column)

    def moment(when: datetime) -> str:
        if kind == "instant":
            return when.astimezone(UTC).isoformat()
        return when.astimezone(ZoneInfo(request.time_zone)).replace(tzinfo=None).isoformat()

    bounds = {sign: moment(when) for sign, when in (("gte", request.starts_at), ("lt", request.ends_at)) if when is not None}
    return {request.window_column: bounds} if bounds else {}


def _written(value: Any) -> Any:
    """A value of a record as a CSV file holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict | list) else value
