"""A CKAN portal on this machine: the action API of CKAN 2.12 with its datastore, as far as publishing, backups and upkeep ask of it.

with Ckan() as portal:
    ...  # POST f"{portal.url}/api/3/action/package_create" with the header Authorization: portal.editor_key

Its answers and its refusals are those of a real CKAN: tests/ckan/test_contract.py asks both the same questions. What a real one
does not have is marked here: `datastore_cache`, which Toronto's portal adds, and the fields at the top level of a dataset, which there
an extension brings. Functions of the datastore are kept and not run, but for the exchange of two tables that our own connector asks for.
"""

from __future__ import annotations

import json
import mimetypes
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import NAMESPACE_URL, uuid4, uuid5

from . import datastore
from .datastore import Invalid, Table, Unstorable
from .faults import Fault
from .lucene import Query
from .wire import LocalServer, Reply, Request

#: what a dataset of Toronto's portal says at its top level; another portal drops it without a word
FIELDS = (
    "refresh_rate", "last_refreshed", "date_published", "is_retired", "dataset_category", "owner_division", "owner_section", "owner_unit",
    "owner_email", "topics", "civic_issues", "information_url", "excerpt", "limitations", "collection_method", "jira_issue_id", "formats",
)  # fmt: skip
#: what every CKAN has of a dataset
OWN_FIELDS = ("title", "notes", "author", "author_email", "maintainer", "maintainer_email", "license_id", "url", "version")
LICENCES = {
    "cc-by": ("Creative Commons Attribution", "http://www.opendefinition.org/licenses/cc-by"),
    "odc-pddl": ("Open Data Commons Public Domain Dedication and License (PDDL)", "http://www.opendefinition.org/licenses/odc-pddl"),
    "other-open": ("Other (Open)", ""),
}
FORMATS = {name.lower(): name for name in ("CSV", "JSON", "GeoJSON", "XLSX", "XLS", "XML", "ZIP", "SHP", "PDF", "TXT", "HTML", "KML")}
CACHED_FORMATS = ("csv", "json", "xml")
PACKAGES_MAX = 1_000
READ_ONLY = (
    "Cannot edit read-only resource because changes made may be lost. Use a resource created for editing e.g. with datastore_create or use "
    '"force=True" to ignore this warning.'
)

Package = dict[str, Any]
Resource = dict[str, Any]
Asked = dict[str, Any]


@dataclass(frozen=True)
class User:
    """An account: its organizations are those in which it is an editor."""

    name: str
    is_sysadmin: bool = False
    organizations: frozenset[str] = frozenset()


NOBODY = User("")


class Refused(Exception):
    """What an action is answered with when it is not done."""

    def __init__(self, status: int, error: Any):
        super().__init__(error)
        self.status = status
        self.error = error


def _not_found(message: str = "") -> Refused:
    return Refused(404, {"__type": "Not Found Error", "message": f"Not found: {message}" if message else "Not found"})


def _denied(message: str = "") -> Refused:
    return Refused(403, {"__type": "Authorization Error", "message": f"Access denied: {message}" if message else "Access denied"})


def _wrong(**error: Any) -> Refused:
    return Refused(409, {**error, "__type": "Validation Error"})


@dataclass
class _File:
    """What was uploaded for a resource."""

    name: str
    body: bytes
    at: float = field(default_factory=lambda: datetime.now(UTC).timestamp())


class Ckan(LocalServer):
    """A CKAN portal on a free port of this machine.

    `users` maps API keys to accounts; without any there are a sysadmin (`sysadmin_key`) and an editor of the organization `city`
    (`editor_key`). `organizations` maps names to titles. `fields` are those that a dataset has besides CKAN's own. `rows_max` is the
    most that one search gives. `has_cache` brings Toronto's action datastore_cache. `state` is a folder that keeps everything over a
    restart.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, User] | None = None,
        organizations: Mapping[str, str] | None = None,
        fields: Iterable[str] = FIELDS,
        rows_max: int = datastore.ROWS_MAX,
        has_cache: bool = True,
        state: str | Path | None = None,
        **server: Any,
    ):
        super().__init__(**server)
        names = dict(organizations or {"city": "City"})
        self.users = dict(users or {"practice-sysadmin": User("sam", True), "practice-editor": User("edna", organizations=frozenset(names))})
        self.organizations = {name: self._organization(name, title) for name, title in names.items()}
        self.fields = tuple(fields)
        self.rows_max = rows_max
        self.has_cache = has_cache
        self.state = Path(state) if state else None
        self.packages: dict[str, Package] = {}
        self.tables: dict[str, Table] = {}
        self.files: dict[str, _File] = {}
        #: name → definition
        self.functions: dict[str, str] = {}
        #: resources that there were: of them CKAN says so in other words
        self._deleted: set[str] = set()
        self._kept: dict[str, int] = {}
        # one request at a time works in here: each is a transaction
        self._lock = threading.RLock()
        if self.state and (self.state / "portal.json").exists():
            self._restore(self.state)

    # what a test or the practice city does with it
    @property
    def sysadmin_key(self) -> str:
        """The key of the first account that may everything."""
        return next(key for key, user in self.users.items() if user.is_sysadmin)

    @property
    def editor_key(self) -> str:
        """The key of the first account that may not."""
        return next(key for key, user in self.users.items() if not user.is_sysadmin)

    def package(self, name: str) -> Package:
        """The dataset of that name, as the portal shows it. Raises KeyError."""
        with self._lock:
            found = self._named(name)
            if found is None:
                raise KeyError(name)
            return self._shown(found)

    def table(self, package: str, resource: str) -> Table:
        """The table of a resource, by the names of both. Raises KeyError."""
        for each in self.package(package)["resources"]:
            if each["name"] == resource:
                return self.tables[each["id"]]
        raise KeyError(resource)

    def empty(self) -> None:
        """Without datasets, rows and functions."""
        with self._lock:
            for kept in (self.packages, self.tables, self.files, self.functions):
                kept.clear()

    def keep(self) -> None:
        """Write what changed since the last time into `state`, each file whole and then renamed. Does nothing without `state`."""
        if not self.state:
            return
        (self.state / "tables").mkdir(parents=True, exist_ok=True)
        (self.state / "files").mkdir(exist_ok=True)
        with self._lock:
            for id, table in self.tables.items():
                if self._kept.get(id) != table.version:
                    _write(self.state / "tables" / f"{id}.jsonl", "\n".join(datastore.dumped(table)).encode())
                    self._kept[id] = table.version
            for id, file in self.files.items():
                if self._kept.get(f"file {id}") != file.at:
                    _write(self.state / "files" / id, file.body)
                    self._kept[f"file {id}"] = file.at
            told = {
                "packages": self.packages,
                "functions": self.functions,
                "tables": list(self.tables),
                "files": {id: [file.name, file.at] for id, file in self.files.items()},
            }
            _write(self.state / "portal.json", json.dumps(told).encode())

    def _restore(self, state: Path) -> None:
        told = json.loads((state / "portal.json").read_text())
        self.packages, self.functions = told["packages"], told["functions"]
        for id in told["tables"]:
            with (state / "tables" / f"{id}.jsonl").open(encoding="utf-8") as lines:
                self.tables[id] = datastore.restored(lines)
        self.files = {id: _File(name, (state / "files" / id).read_bytes(), at) for id, (name, at) in told["files"].items()}

    def stop(self) -> None:
        super().stop()
        self.keep()

    # answering
    def error_body(self, status: int) -> bytes:
        error = {"__type": "Internal Server Error", "message": "Internal Server Error"} if status >= 500 else {"message": "Refused"}
        return (json.dumps({"help": f"{self.url}/api/3/action/help_show", "error": error, "success": False}) + "\n").encode()

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        if found := re.fullmatch(r"/api/(?:3/)?action/(\w+)", request.path):
            return self._act(found[1], request, fault)
        with self._lock:
            if found := re.fullmatch(r"/dataset/[\w-]+/resource/([\w-]+)/download/(.*)", request.path):
                return self._download(found[1])
            if found := re.fullmatch(r"/datastore/dump/([\w-]+)", request.path):
                return self._dump(found[1], self._who(request))
        if request.path in ("/", "/api/3"):
            return Reply.of({"version": 3})
        return Reply(404, b"<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n", "text/html; charset=utf-8")

    def _act(self, name: str, request: Request, fault: Fault | None) -> Reply:
        action = _ACTIONS.get(name)
        if action is None or (name == "datastore_cache" and not self.has_cache):
            return Reply.of(f"Bad request: Action name not known: {name}", 400)
        if request.method == "GET" and name not in _READS:
            return Reply.of("Bad request: JSON Error: Invalid request. Please use POST method for your request", 400)
        try:
            asked = _asked(request)
        except ValueError:
            return Reply.of("Bad request: JSON Error: Error decoding JSON data.", 400)
        help = f"{self.url}/api/3/action/help_show?name={name}"
        try:
            with self._lock:
                result = action(self, self._who(request), asked)
        except Invalid as invalid:
            return Reply.of({"help": help, "error": {**invalid.error, "__type": "Validation Error"}, "success": False}, 409)
        except Refused as refusal:
            return Reply.of({"help": help, "error": refusal.error, "success": False}, refusal.status)
        if fault and name == "datastore_search":
            result["records"] = _spoiled(result["records"], fault)
        return Reply.of({"help": help, "success": True, "result": result})

    def _who(self, request: Request) -> User:
        """Whose key it is; a wrong one is nobody's, as there."""
        return self.users.get(request.headers.get("authorization", ""), NOBODY)

    def _download(self, id: str) -> Reply:
        file = self.files.get(id)
        if file is None:
            return Reply(404, b"", "text/html; charset=utf-8")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return Reply(200, file.body, kind, {"Last-Modified": formatdate(file.at, usegmt=True)})

    def _dump(self, id: str, who: User) -> Reply:
        try:
            table = self._readable_table(who, {"resource_id": id})
        except Refused:
            return Reply(404, b"", "text/html; charset=utf-8")
        head = ",".join(_quoted(name) for name in ("_id", *table.fields)) + "\r\n"
        kinds = [each.type for each in table.fields.values()]
        lines = (",".join([str(number), *map(_csv_cell, row.values(), kinds)]) + "\n" for number, row in table.rows.items())
        return Reply(200, (head + "".join(lines)).encode(), "application/octet-stream")

    # who may what
    def _edits(self, who: User, package: Package) -> bool:
        if who.is_sysadmin:
            return True
        owner = package["owner_org"]
        return owner in self._organization_ids(who) if owner else package["creator_user_id"] == _id_of(who.name) != _id_of("")

    def _reads(self, who: User, package: Package) -> bool:
        if package["state"] == "active" and not package["private"]:
            return True
        return self._edits(who, package) or (package["private"] and package["owner_org"] in self._organization_ids(who))

    def _organization_ids(self, who: User) -> set[str]:
        return {self.organizations[name]["id"] for name in who.organizations if name in self.organizations}

    # datasets
    def _named(self, name: Any) -> Package | None:
        """A dataset by its id or its name; of several of one name, the one that was not deleted."""
        if (found := self.packages.get(name)) is not None:
            return found
        named = [package for package in self.packages.values() if package["name"] == name]
        return next((package for package in named if package["state"] != "deleted"), named[0] if named else None)

    def _package(self, who: User, asked: Asked, *, edit: bool = False) -> Package:
        if not asked.get("id"):
            raise _wrong(**{"id" if edit else "name_or_id": ["Missing value"]})
        package = self._named(asked["id"])
        if package is None:
            raise _not_found()
        if not (self._edits(who, package) if edit else self._reads(who, package)):
            raise _denied(f"User {who.name} not authorized to {'edit' if edit else 'read'} package {package['id']}")
        return package

    def _shown(self, package: Package) -> Package:
        """The dataset as an answer shows it."""
        licence, address = LICENCES.get(package["license_id"], (package["license_id"], ""))
        owner = next((each for each in self.organizations.values() if each["id"] == package["owner_org"]), None)
        return {
            **package,
            "isopen": package["license_id"] in LICENCES,
            "license_title": licence,
            **({"license_url": address} if address else {}),
            "organization": owner,
            "num_tags": len(package["tags"]),
            "num_resources": len(package["resources"]),
            "resources": [dict(each) for each in package["resources"]],
            "groups": [],
            "relationships_as_subject": [],
            "relationships_as_object": [],
        }

    def _say(self, who: User, package: Package, asked: Asked) -> None:
        """Write the fields of `asked` on a dataset, all or none. Raises Refused."""
        errors: dict[str, Any] = {}
        if "name" in asked:
            errors |= self._wrong_name(asked["name"], package["id"])
        tags = [tag["name"] for tag in asked.get("tags") or ()]
        if wrong := [told for tag in tags if (told := _wrong_tag(tag))]:
            errors["tags"] = wrong
        errors |= self._wrong_extras(asked.get("extras") or ())
        owner = asked.get("owner_org") or package["owner_org"]
        if asked.get("owner_org"):
            found = next((each for each in self.organizations.values() if owner in (each["id"], each["name"])), None)
            if found is None:
                errors["owner_org"] = ["Organization does not exist"]
            elif not who.is_sysadmin and found["name"] not in who.organizations:
                raise _denied(f"User {who.name} not authorized to add dataset to this organization")
            else:
                owner = found["id"]
        if _true(asked.get("private", package["private"])) and not owner:
            errors["private"] = ["Datasets with no organization can't be private."]
        if errors:
            raise _wrong(**errors)
        package["owner_org"] = owner
        package["private"] = _true(asked.get("private", package["private"]))
        for name in OWN_FIELDS:
            if name in asked:
                package[name] = asked[name]
        package["name"] = asked.get("name", package["name"])
        package["title"] = package["title"] or package["name"]
        for name in self.fields:
            if asked.get(name) is not None:
                value = asked[name]
                package[name] = value if isinstance(value, str | list) else json.dumps(value)
        if "tags" in asked:
            package["tags"] = [
                {"display_name": tag, "id": _id_of(tag), "name": tag, "state": "active", "vocabulary_id": None} for tag in sorted(set(tags))
            ]
        if "extras" in asked:
            package["extras"] = [{"key": each["key"], "value": str(each["value"])} for each in asked["extras"]]
        if "state" in asked and (who.is_sysadmin or package["state"] != "active"):
            package["state"] = asked["state"]

    def _wrong_name(self, name: Any, id: str) -> dict[str, list[str]]:
        if not isinstance(name, str) or not name:
            return {"name": ["Missing value"]}
        if len(name) < 2:
            return {"name": ["Must be at least 2 characters long", f'Name "{name}" length is less than minimum 2']}
        if name in ("new", "edit", "search"):
            return {"name": ["That name cannot be used"]}
        if len(name) > 100:
            return {"name": ["Name must be a maximum of 100 characters long", f'Name "{name}" length is more than maximum 100']}
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            return {"name": ["Must be purely lowercase alphanumeric (ascii) characters and these symbols: -_"]}
        if any(each["name"] == name and each["id"] != id and each["state"] != "deleted" for each in self.packages.values()):
            return {"name": ["That URL is already in use."]}
        return {}

    def _wrong_extras(self, extras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        names = [each["key"] for each in extras]
        if any(name in self.fields for name in names):
            return {"extras": [{"key": ["There is a schema field with the same name"]} if name in self.fields else {} for name in names]}
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            return {"extras_validation": [f'Duplicate key "{name}"' for name in twice]}
        return {}

    def package_list(self, who: User, asked: Asked) -> list[str]:
        return sorted(each["name"] for each in self.packages.values() if each["state"] == "active" and not each["private"])

    def package_show(self, who: User, asked: Asked) -> Package:
        return self._shown(self._package(who, {"id": asked.get("id") or asked.get("name_or_id")}))

    def package_search(self, who: User, asked: Asked) -> Asked:
        known = {
            "q",
            "fq",
            "fq_list",
            "rows",
            "start",
            "sort",
            "facet",
            "facet.field",
            "facet.limit",
            "include_private",
            "include_drafts",
            "df",
            "fl",
        }
        if unknown := sorted(set(asked) - known):
            message = f'Search Query is invalid: "Invalid search parameters: {unknown}"'
            raise Refused(400, {"__type": "Search Query Error", "message": message})
        start, rows = (_whole(asked, name, default) for name, default in (("start", 0), ("rows", 10)))
        private, drafts = _true(asked.get("include_private", False)), _true(asked.get("include_drafts", False))
        tests = [Query(text).test for text in (asked.get("q") or "*:*", asked.get("fq") or "*:*", *(asked.get("fq_list") or ()))]
        found = []
        for package in self.packages.values():
            if package["state"] != "active" and not (drafts and package["state"] == "draft"):
                continue
            if (package["private"] and not private) or not self._reads(who, package):
                continue
            shown = self._shown(package)
            owner = (shown["organization"] or {}).get("name")
            document = {**shown, "tags": [tag["name"] for tag in shown["tags"]], "organization": owner, "title_string": shown["title"]}
            if all(test(document) for test in tests):
                found.append((document, shown))
        sort = asked.get("sort") or "score desc, metadata_modified desc"
        for clause in reversed(sort.split(",")):
            name, _, direction = clause.strip().partition(" ")
            found.sort(key=lambda pair, name=name: str(pair[0].get(name) or ""), reverse=direction.strip() == "desc")
        page = [shown for _, shown in found[start : start + min(rows, PACKAGES_MAX)]]
        return {"count": len(found), "facets": {}, "results": page, "sort": sort, "search_facets": {}}

    def current_package_list_with_resources(self, who: User, asked: Asked) -> list[Package]:
        start, rows = _whole(asked, "offset", 0), _whole(asked, "limit", PACKAGES_MAX)
        newest = sorted(self.packages.values(), key=lambda package: package["metadata_modified"], reverse=True)
        return [self._shown(each) for each in newest if each["state"] == "active" and not each["private"]][start : start + rows]

    def package_create(self, who: User, asked: Asked) -> Package:
        if who is NOBODY:
            raise _denied("User  not authorized to create packages")
        package: Package = {
            **dict.fromkeys(OWN_FIELDS),
            "id": str(uuid4()), "creator_user_id": _id_of(who.name), "metadata_created": _now(), "metadata_modified": _now(), "name": "",
            "owner_org": None, "private": False, "state": "active", "type": "dataset", "extras": [], "tags": [], "resources": [],
        }  # fmt: skip
        # only a sysadmin makes a draft
        self._say(who, package, {"name": None, **asked})
        for each in asked.get("resources") or ():
            self._add_resource(package, each)
        self.packages[package["id"]] = package
        return self._shown(package)

    def package_patch(self, who: User, asked: Asked) -> Package:
        package = self._package(who, asked, edit=True)
        before = json.dumps(package)
        self._say(who, package, {name: value for name, value in asked.items() if name != "id"})
        if json.dumps(package) != before:
            package["metadata_modified"] = _now()
        return self._shown(package)

    def package_delete(self, who: User, asked: Asked) -> None:
        self._package(who, asked, edit=True)["state"] = "deleted"

    def dataset_purge(self, who: User, asked: Asked) -> None:
        if not who.is_sysadmin:
            raise _denied()
        package = self._package(who, asked, edit=True)
        for resource in package["resources"]:
            # its table stays in the datastore, where nobody finds it, as there
            self.files.pop(resource["id"], None)
        del self.packages[package["id"]]

    # resources
    def _resource(self, id: Any) -> tuple[Package, Resource] | None:
        for package in self.packages.values():
            for resource in package["resources"]:
                if resource["id"] == id:
                    return package, resource
        return None

    def _add_resource(self, package: Package, asked: Asked) -> Resource:
        resource: Resource = {
            **dict.fromkeys(
                ("cache_last_updated", "cache_url", "description", "last_modified", "mimetype", "mimetype_inner", "name", "resource_type", "size",
                 "url_type"),
            ),
            "created": _now(), "datastore_active": False, "format": "", "hash": "", "id": str(uuid4()), "metadata_modified": _now(),
            "package_id": package["id"], "position": len(package["resources"]), "state": "active", "url": "",
        }  # fmt: skip
        self._say_of_resource(resource, asked)
        package["resources"].append(resource)
        package["metadata_modified"] = _now()
        return resource

    def _say_of_resource(self, resource: Resource, asked: Asked) -> None:
        """Write the fields of `asked` on a resource. Raises Refused."""
        told = {name: value for name, value in asked.items() if name not in ("id", "package_id", "upload", "extras")}
        if told.get("last_modified"):
            try:
                told["last_modified"] = datetime.fromisoformat(str(told["last_modified"])).replace(tzinfo=None).isoformat()
            except ValueError:
                raise _wrong(last_modified=["Date format incorrect"]) from None
        if "format" in told:
            told["format"] = FORMATS.get(str(told["format"] or "").lower(), told["format"] or "")
        if told.get("size") not in (None, ""):
            told["size"] = int(told["size"])
        resource.update(told)
        upload = asked.get("upload")
        if isinstance(upload, _File):
            self.files[resource["id"]] = upload
            resource |= {"url_type": "upload", "url": upload.name, "size": len(upload.body), "last_modified": _now()}
        # the address of what the portal itself holds is the portal's
        if resource["url_type"] == "upload":
            name = re.sub(r"[^a-z0-9._-]", "-", unquote(resource["url"] or "").rsplit("/", 1)[-1].lower())
            resource["url"] = f"{self.url}/dataset/{resource['package_id']}/resource/{resource['id']}/download/{name}"
        elif resource["url_type"] == "datastore":
            resource["url"] = f"{self.url}/datastore/dump/{resource['id']}"
        elif resource["url"] and "://" not in resource["url"]:
            resource["url"] = f"http://{resource['url']}"
        if told.get("url") or isinstance(upload, _File):
            resource["mimetype"] = mimetypes.guess_type(str(told.get("url") or upload.name))[0]
            resource["format"] = resource["format"] or FORMATS.get((mimetypes.guess_extension(resource["mimetype"] or "") or "").strip("."), "")
        resource["metadata_modified"] = _now()

    def resource_show(self, who: User, asked: Asked) -> Resource:
        found = self._resource(asked.get("id"))
        if found is None:
            raise _not_found("Resource was not found." if asked.get("id") in self._deleted else "")
        if not self._reads(who, found[0]):
            raise _denied(f"User {who.name} not authorized to read resource {asked['id']}")
        return dict(found[1])

    def resource_create(self, who: User, asked: Asked) -> Resource:
        if not asked.get("package_id"):
            raise _wrong(package_id=["Missing value"])
        package = self._package(who, {"id": asked["package_id"]})
        if not self._edits(who, package):
            raise _denied(f"User {who.name} not authorized to create resources on dataset {asked['package_id']}")
        return dict(self._add_resource(package, asked))

    def _editable(self, who: User, asked: Asked, what: str = "edit resource") -> tuple[Package, Resource]:
        if not asked.get("id"):
            raise _wrong(id=["Missing value"])
        found = self._resource(asked["id"])
        if found is None:
            raise _not_found("Resource was not found.")
        if not self._edits(who, found[0]):
            raise _denied(f"User {who.name} not authorized to {what} {asked['id']}")
        return found

    def resource_patch(self, who: User, asked: Asked) -> Resource:
        package, resource = self._editable(who, asked)
        changed = dict(resource)
        self._say_of_resource(changed, asked)
        resource.clear()
        resource.update(changed)
        package["metadata_modified"] = _now()
        return dict(resource)

    def resource_delete(self, who: User, asked: Asked) -> None:
        if asked.get("id") and self._resource(asked["id"]) is None:
            raise _not_found()
        package, resource = self._editable(who, asked, "delete resource")
        package["resources"].remove(resource)
        for position, left in enumerate(package["resources"]):
            left["position"] = position
        self._deleted.add(resource["id"])
        self.tables.pop(resource["id"], None)
        self.files.pop(resource["id"], None)

    # tables
    def _id(self, asked: Asked) -> str:
        id = asked.get("resource_id") or asked.get("id")
        if not id:
            raise _wrong(resource_id=["Missing value"])
        return id

    def _readable_table(self, who: User, asked: Asked) -> Table:
        id = self._id(asked)
        found, table = self._resource(id), self.tables.get(id)
        if table is None or found is None:
            raise _not_found(f'Resource "{id}" was not found.')
        if not self._reads(who, found[0]):
            raise _denied(f"User {who.name} not authorized to perform resource_show on resource {id}")
        return table

    def _writable(self, who: User, asked: Asked) -> Resource:
        """The resource whose rows may be changed. Raises Refused."""
        id = self._id(asked)
        found = self._resource(id)
        if found is None:
            raise _not_found()
        package, resource = found
        if not self._edits(who, package):
            raise _denied(f"User {who.name} not authorized to perform resource_update on resource {id}")
        if not _true(asked.get("force", False)) and resource["url_type"] not in ("datastore",):
            raise _wrong(**{"read-only": [READ_ONLY]})
        return resource

    def datastore_search(self, who: User, asked: Asked) -> Asked:
        table = self._readable_table(who, asked)
        capped = {**asked, "limit": min(asked.get("limit", 100), self.rows_max)} if isinstance(asked.get("limit", 100), int) else asked
        return {**table.search(capped), "resource_id": self._id(asked)}

    def datastore_info(self, who: User, asked: Asked) -> Asked:
        table = self._readable_table(who, asked)
        return {"fields": table.schema(), "meta": {"id": self._id(asked), "count": len(table.rows), "table_type": "BASE TABLE", "aliases": []}}

    def datastore_create(self, who: User, asked: Asked) -> Asked:
        if made := asked.get("resource"):
            package = self._package(who, {"id": made.get("package_id")})
            if not self._edits(who, package):
                raise _denied(f"User {who.name} not authorized to create resources on dataset {made.get('package_id')}")
            made = {"url": "_datastore_only_resource", **made}
            new = self._add_resource(package, {**made, "url_type": "datastore"})
            asked = {**asked, "resource_id": new["id"], "resource": made}
        elif not (asked.get("resource_id") or asked.get("id")):
            raise _wrong(resource_id=["resource_id or resource required"])
        elif self._resource(self._id(asked)) is None:
            raise _wrong(resource_id=[f"Resource not found: {self._id(asked)}"])
        resource = self._writable(who, asked)
        before = self.tables.get(resource["id"])
        # a table of its own to work on: all of it is done, or nothing
        table = Table(**vars(before)) if before else Table()
        table.fields, table.rows = dict(table.fields), dict(table.rows)
        records = asked.get("records") or []
        if triggers := asked.get("triggers"):
            names = [each["function"] for each in triggers]
            if unknown := [name for name in names if name not in self.functions]:
                raise _wrong(triggers=[f"function {unknown[0]}() does not exist"])
            table.triggers = tuple(names)
        try:
            table.declare(asked.get("fields") or [], records, delete_fields=_true(asked.get("delete_fields", False)))
            fired: list[str] = []
            written = table.write(records, "insert", fired.append)
            if asked.get("primary_key") is not None:
                key = asked["primary_key"]
                table.identify([part.strip() for part in key.split(",") if part.strip()] if isinstance(key, str) else key)
            for function in fired:
                self._fire(function)
        except Unstorable as refusal:
            raise _wrong(records=[str(refusal)], records_row=0) from None
        except Invalid:
            if made:
                package["resources"].remove(new)
            raise
        self.tables[resource["id"]] = table
        if not resource["datastore_active"]:
            resource["datastore_active"] = True
            if resource["url_type"] == "datastore":
                resource["last_modified"] = _now()
        fields = [{**each, "type": each["type"]} if each.get("type") else dict(each) for each in asked.get("fields") or ()]
        fires = {"for_each": "row", "when": "before insert or update"}
        return {
            **{name: asked[name] for name in ("primary_key", "resource") if name in asked},
            **({"triggers": [{**fires, **each} for each in triggers]} if triggers else {}),
            "resource_id": resource["id"],
            **({"fields": fields} if fields else {}),
            **({"records": written} if _true(asked.get("include_records", False)) else {}),
            "method": "insert",
        }

    def datastore_upsert(self, who: User, asked: Asked) -> Asked:
        method = asked.get("method", "upsert")
        if method not in ("upsert", "insert", "update"):
            raise _wrong(method=["Value must be one of ['upsert', 'insert', 'update']"])
        resource = self._writable(who, asked)
        table = self.tables.get(resource["id"])
        if table is None:
            raise _not_found(f'Resource "{resource["id"]}" was not found.')
        table.write(asked.get("records") or [], method, self._fire)
        return {"resource_id": resource["id"], **({"method": method} if "method" in asked else {})}

    def datastore_delete(self, who: User, asked: Asked) -> Asked:
        resource = self._writable(who, asked)
        table = self.tables.get(resource["id"])
        if table is None:
            raise _not_found(f'Resource "{resource["id"]}" was not found.')
        if asked.get("filters") is None:
            del self.tables[resource["id"]]
            resource["datastore_active"] = False
            if resource["url_type"] == "datastore":
                resource["last_modified"] = _now()
        else:
            table.delete(asked["filters"])
        return {"resource_id": resource["id"], **({"filters": asked["filters"]} if "filters" in asked else {})}

    def datastore_records_delete(self, who: User, asked: Asked) -> Asked:
        if not isinstance(asked.get("filters"), dict):
            raise _wrong(filters=["Missing value"])
        return self.datastore_delete(who, asked)

    def datastore_cache(self, who: User, asked: Asked) -> Asked:
        """Toronto's own: write the files of a table, or of all tables of a dataset, anew."""
        if asked.get("package_id"):
            package = self._package(who, {"id": asked["package_id"]}, edit=True)
            cached = [each for each in package["resources"] if each["datastore_active"]]
        else:
            cached = [self._editable(who, {"id": self._id(asked)})[1]]
        for resource in cached:
            resource["datastore_cache"] = {form.upper(): f"{self.url}/datastore/dump/{resource['id']}?format={form}" for form in CACHED_FORMATS}
            resource["datastore_cache_last_update"] = _now()
        return {each["id"]: each["datastore_cache"] for each in cached}

    # functions of the datastore
    def datastore_function_create(self, who: User, asked: Asked) -> None:
        if not who.is_sysadmin:
            raise _denied()
        name, definition = asked.get("name"), asked.get("definition")
        if not name or not definition:
            raise _wrong(**{"name" if not name else "definition": ["Missing value"]})
        if name in self.functions and not _true(asked.get("or_replace", False)):
            raise _wrong(name=[f'function "{name}" already exists with same argument types'])
        if not re.search(r"\bEND\s*;?\s*$", definition):
            raise _wrong(definition=["unexpected end of function definition at end of input"])
        self.functions[name] = definition

    def datastore_function_delete(self, who: User, asked: Asked) -> None:
        if not who.is_sysadmin:
            raise _denied()
        name = asked.get("name")
        if name not in self.functions and not _true(asked.get("if_exists", False)):
            raise _wrong(name=[f"function {name}() does not exist"])
        if any(name in table.triggers for table in self.tables.values()):
            raise Refused(500, {"__type": "Internal Server Error", "message": "Internal Server Error"})
        self.functions.pop(name, None)

    def _fire(self, function: str) -> None:
        """Do what a function asks for, if it is one that the connector writes; any other does nothing here. Raises Unstorable."""
        named = dict(re.findall(r"^\s*(live|staged|token) CONSTANT text := '((?:[^']|'')*)';", self.functions[function], re.MULTILINE))
        if set(named) != {"live", "staged", "token"}:
            return
        wanted = int(re.search(r"wanted CONSTANT bigint := (\d+);", self.functions[function])[1])
        live, staged = self.tables.get(named["live"]), self.tables.get(named["staged"])
        if live is None or staged is None:
            raise Unstorable(f'relation "public.{named["live"] if live is None else named["staged"]}" does not exist')
        if live.token == named["token"]:
            return
        if len(staged.rows) != wanted:
            raise Unstorable(f"the staged table has {len(staged.rows)} rows, and {wanted} were sent")
        if live.triggers:
            raise Unstorable("the public table has triggers of its own")
        staged.token = named["token"]
        self.tables[named["live"]], self.tables[named["staged"]] = staged, live
        # kept files go by the id and the version: neither table may look like what was there before
        live.version = staged.version = live.version + staged.version + 1

    # the site
    def _organization(self, name: str, title: str) -> dict[str, Any]:
        return {
            "id": _id_of(f"organization {name}"), "name": name, "title": title, "type": "organization", "description": "", "image_url": "",
            "created": "2020-01-01T00:00:00", "is_organization": True, "approval_status": "approved", "state": "active",
        }  # fmt: skip

    def organization_list(self, who: User, asked: Asked) -> list[str]:
        return sorted(self.organizations)

    def organization_show(self, who: User, asked: Asked) -> Asked:
        found = next((each for each in self.organizations.values() if asked.get("id") in (each["id"], each["name"])), None)
        if found is None:
            raise _not_found()
        count = sum(1 for each in self.packages.values() if each["owner_org"] == found["id"] and each["state"] == "active")
        return {**found, "display_name": found["title"], "package_count": count, "extras": [], "groups": []}

    def organization_list_for_user(self, who: User, asked: Asked) -> list[Asked]:
        mine = self.organizations if who.is_sysadmin else {name: self.organizations[name] for name in who.organizations}
        return [{**each, "display_name": each["title"], "capacity": "admin" if who.is_sysadmin else "editor"} for each in mine.values()]

    def license_list(self, who: User, asked: Asked) -> list[Asked]:
        return [{"id": id, "title": title, "url": url, "status": "active"} for id, (title, url) in LICENCES.items()]

    def status_show(self, who: User, asked: Asked) -> Asked:
        return {
            "site_title": "CKAN", "site_description": "", "site_url": self.url, "error_emails_to": None, "locale_default": "en",
            "extensions": ["datastore"], "ckan_version": "2.12.0",
        }  # fmt: skip

    def user_show(self, who: User, asked: Asked) -> Asked:
        found = next((each for each in self.users.values() if each.name == asked.get("id")), who if not asked.get("id") else NOBODY)
        if found is NOBODY:
            raise _not_found()
        return {"id": _id_of(found.name), "name": found.name, "display_name": found.name, "state": "active", "sysadmin": found.is_sysadmin}


_READS = frozenset({
    "package_list", "package_show", "package_search", "current_package_list_with_resources", "resource_show", "datastore_search", "datastore_info",
    "organization_list", "organization_show", "organization_list_for_user", "license_list", "status_show", "user_show",
})  # fmt: skip
_ACTIONS: dict[str, Callable[[Ckan, User, Asked], Any]] = {
    name: getattr(Ckan, name)
    for name in (
        *_READS, "package_create", "package_patch", "package_delete", "dataset_purge", "resource_create", "resource_patch", "resource_delete",
        "datastore_create", "datastore_upsert", "datastore_delete", "datastore_records_delete", "datastore_cache", "datastore_function_create",
        "datastore_function_delete",
    )
}  # fmt: skip


def _asked(request: Request) -> Asked:
    """The parameters of an action, however they came: in the address, as JSON, as a form, as a form with a file. Raises ValueError."""
    if request.method == "GET":
        return dict(request.query)
    kind = request.headers.get("content-type", "")
    if kind.startswith("multipart/form-data"):
        return _form(kind, request.body)
    if kind.startswith("application/x-www-form-urlencoded"):
        text = request.body.decode()
        # curl says so of JSON, too
        return json.loads(text) if text.lstrip().startswith("{") else dict(parse_qsl(text, keep_blank_values=True))
    asked = request.json() or {}
    if not isinstance(asked, dict):
        raise ValueError("not an object")
    return asked


def _form(kind: str, body: bytes) -> Asked:
    parts = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    asked: Asked = {}
    for part in parts.get_payload():
        name, file = part.get_param("name", header="content-disposition"), part.get_filename()
        content = part.get_payload(decode=True)
        asked[name] = content.decode() if file is None else _File(file, content)
    return asked


def _spoiled(records: list[Any], fault: Fault) -> list[Any]:
    match fault.kind:
        case "missing_row":
            return records[: -int(fault["n"])]
        case "duplicate_rows":
            return records + records[: int(fault["n"])]
    return records


def _wrong_tag(tag: str) -> str:
    if len(tag) < 2:
        return f'Tag "{tag}" length is less than minimum 2'
    if not re.fullmatch(r"[\w \-.]+", tag):
        return f'Tag "{tag}" can only contain alphanumeric characters, spaces (" "), hyphens ("-"), underscores ("_") or dots (".")'
    return ""


def _whole(asked: Asked, name: str, default: int) -> int:
    try:
        return int(asked.get(name, default))
    except (TypeError, ValueError):
        raise _wrong(**{name: ["Invalid integer", "Please enter an integer value"]}) from None


def _true(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "t", "y", "on", "1")


def _csv_cell(value: Any, kind: str) -> str:
    """A cell as PostgreSQL copies it: an empty text is told from null, and null among JSON is JSON's."""
    if kind in ("json", "jsonb"):
        return _quoted(json.dumps(value))
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    return _quoted(str(value)) or '""'


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text


def _id_of(name: str) -> str:
    """An id that is the same at every start."""
    return str(uuid5(NAMESPACE_URL, f"ckan {name}"))


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _write(path: Path, body: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(body)
    partial.replace(path)
