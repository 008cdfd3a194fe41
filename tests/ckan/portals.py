"""What tests of the connector share: a connector of the real CKAN, a table's columns, files of rows, and a reader that never stops looking."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from pipelines.connectors.base import About, Account, Column
from pipelines.connectors.ckan import Ckan
from pipelines.connectors.http import Door
from tests.ckan.real import RealCkan

COLUMNS = (
    Column("id", "number", "Id", "Names the row.", "int"),
    Column("edition", "text", "", "Which edition the row is of."),
    Column("when", "local_time", portal_type="date"),
)


def connector(ckan: RealCkan, key: str = "", **parameters: str) -> Ckan:
    """A connector as a stage makes it, its words to be read in `heard`."""
    key = key or ckan.sysadmin_key
    heard: list[tuple[str, str]] = []
    door = Door(
        ["127.0.0.1"], secrets=(key,), owner="provider open-data", attempts=2, sleep=lambda seconds: None, on_event=lambda *said: heard.append(said)
    )
    made = Ckan(Account("open-data", ckan.url, {"organization": "city", **parameters}, {"api_key": key}), door)
    made.heard = heard
    return made


def about(columns: tuple[Column, ...] = COLUMNS, **fields: Any) -> About:
    told = {"title": "Shelters", "description": "All shelters.", "refresh_rate": "Daily", "tags": ["housing"], "is_retired": False, **fields}
    return About(told, "Rows", columns)


def write(path: Path, edition: str, rows: int, columns: tuple[Column, ...] = COLUMNS) -> Path:
    """A file of rows of one edition."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column.name for column in columns)
        writer.writerows([number, edition, "2024-03-15T00:00:00.000"] for number in range(rows))
    return path


def publish(ckan: Ckan, resource: str, path: Path, rows: int, *, key: tuple[str, ...] = (), columns: tuple[Column, ...] = COLUMNS) -> Any:
    """All rows of a file to a resource, as the publish stage does it; of a new one it is told first."""
    if ckan._find(resource) is None:
        ckan.introduce(resource, about(columns))
    ckan.preflight(resource, columns=columns, key=key, replaces=True)
    return ckan.replace(resource, columns, path, rows)


def leftovers(ckan: RealCkan, *resources: str) -> list[str]:
    """Tables, functions and datasets that are none of these resources'."""
    with ckan.sql() as cursor:
        cursor.execute(
            "select tablename from pg_tables where schemaname = 'public' and tablename <> '_table_stats' and tablename <> all (%s)", [list(resources)]
        )
        found = [name for (name,) in cursor.fetchall()]
        cursor.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace and proname like 'odo%%'")
        found += [name for (name,) in cursor.fetchall()]
    with ckan.sql(ckan.catalogue_database) as cursor:
        cursor.execute("select name from package where name like 'odo-%%'")
        return found + [name for (name,) in cursor.fetchall()]


class Reader:
    """Looks at a public table again and again, as nobody in particular: how many rows of each edition, and the total that CKAN tells."""

    def __init__(self, ckan: RealCkan, resource: str):
        self.ckan, self.resource = ckan, resource
        #: (total, {edition: rows}), each kind of sight once, in the order in which it was first seen; and what went wrong
        self.seen: list[tuple[int, dict[str, int]]] = []
        #: what the last look saw
        self.last: tuple[int, dict[str, int]] = (0, {})
        self.failed: list[str] = []
        self.looks = 0

    def look(self) -> None:
        """One look. While CKAN itself is down there is nothing to see."""
        try:
            reply = requests.post(f"{self.ckan.url}/api/3/action/datastore_search", json={"resource_id": self.resource, "limit": 32_000}, timeout=30)
        except requests.ConnectionError:
            return
        self.looks += 1
        if not reply.ok:
            self.failed.append(reply.text[:500])
            return
        found = reply.json()["result"]
        editions: dict[str, int] = {}
        for record in found["records"]:
            editions[record["edition"]] = editions.get(record["edition"], 0) + 1
        self.last = (found["total"], editions)
        if self.last not in self.seen:
            self.seen.append(self.last)

    @contextmanager
    def looking(self, readers: int = 1) -> Iterator[Reader]:
        """So many at once look as long as the block goes on, and once more after it."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.wait(0.02):
                self.look()

        threads = [threading.Thread(target=go_on) for _ in range(readers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            self.look()
