"""A CKAN as small as the tests of upkeep jobs need one: packages, tables with their rows and fields, and a log of the actions that were asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest

from catalog.audit import Actor
from opendata_ops.sandbox.wire import Reply, Request
from pipelines.models import Provider, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from tests.pipelines.connectors.servers import Told

PAGE = 3


class SmallCkan(Told):
    """Answers as CKAN does. `packages` are what package_search gives, `tables` maps a resource's id to its datastore_search answer.

    `actions` may answer an action otherwise: with what a function of its parameters returns, or a whole Reply.
    """

    def __init__(self, packages: list[dict[str, Any]] | None = None):
        super().__init__()
        self.packages = packages or []
        self.tables: dict[str, dict[str, Any] | Reply] = {}
        self.actions: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def table(self, resource_id: str, total: int, fields: list[dict[str, Any]] | None = None) -> None:
        self.tables[resource_id] = {"total": total, "fields": [{"id": "_id", "type": "int"}, *(fields or [])], "records": []}

    def answer(self, request, fault):
        name, given = request.path.rpartition("/")[2], sent(request)
        self.asked.append((name, given))
        if name in self.actions:
            found = self.actions[name](given)
            return found if isinstance(found, Reply) else result(found)
        if name == "package_search":
            start = given.get("start", 0)
            return result({"count": len(self.packages), "results": self.packages[start : start + min(PAGE, given["rows"])]})
        if name == "datastore_search":
            found = self.tables.get(given["resource_id"]) or refusal(
                "Not Found Error", f'Not found: Resource "{given["resource_id"]}" was not found.', 404
            )
            return found if isinstance(found, Reply) else result(found)
        return Reply.of(f"Bad request - Action name not known: {name}", 400)

    def names(self) -> list[str]:
        """The actions that were asked, in their order."""
        return [name for name, _ in self.asked]


def sent(request: Request) -> dict[str, Any]:
    """The parameters of an action: of JSON, or of a form, whose file is (name, bytes)."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return request.json()
    form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.body)
    given: dict[str, Any] = {}
    for part in form.iter_parts():
        name, file_name, content = part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True)
        given[name] = (file_name, content) if file_name else content.decode()
    return given


def result(value: Any) -> Reply:
    return Reply.of({"success": True, "result": value})


def refusal(kind: str, message: str, status: int) -> Reply:
    return Reply.of({"success": False, "error": {"__type": kind, "message": message}}, status)


def package(name: str, *resources: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A package as CKAN gives it."""
    return {"id": f"id-{name}", "name": name, "title": name.replace("-", " ").title(), "resources": list(resources), **fields}


def resource(id: str, name: str = "", **fields: Any) -> dict[str, Any]:
    """A resource with a table in the datastore, unless the fields say otherwise."""
    return {"id": id, "name": name or id, "format": "CSV", "state": "active", "url_type": "datastore", "datastore_active": True, **fields}


@contextmanager
def small_ckan(settings: Any, slug: str = "open") -> Iterator[SmallCkan]:
    with SmallCkan() as server:
        settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, server.url.removeprefix("http://")]
        Provider.objects.create(slug=slug, title=f"Portal {slug}", kind="ckan", base_url=server.url)
        yield server


@pytest.fixture
def portal(settings) -> Iterator[SmallCkan]:
    """The only CKAN that there is; its provider has the slug `open`."""
    settings.OUTBOUND_ALLOW = []
    with small_ckan(settings) as server:
        yield server


def done(kind: str, *, is_dry: bool = False, job_fields: dict[str, Any] | None = None, **options: Any) -> UpkeepRun:
    """A run of the job of this kind, ended."""
    job, _ = UpkeepJob.objects.update_or_create(title=kind, defaults={"kind": kind, "options": options, **(job_fields or {})})
    jobs.check(job)
    answer = jobs.start(job, actor=Actor("ann"), is_dry=is_dry)
    assert answer.run, answer.text
    return jobs.carry_out(answer.run.pk, pause=lambda seconds: None)


def well(kind: str, **more: Any) -> UpkeepRun:
    """The same, which went well."""
    run = done(kind, **more)
    assert run.state == UpkeepRun.State.DONE, run.message
    return run


def found(run: UpkeepRun, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of what a run found."""
    table = run.details["findings"]
    places = [table["columns"].index(name) for name in columns]
    return [tuple(row[place] for place in places) for row in table["rows"]]
