"""A stage for real runs: a source and a portal that speak SODA, a pipeline between them, worked off by real child processes.

Nothing is simulated below the portals' HTTP: rows go through the lake, COPY and the merge. Tests that use it need
`@pytest.mark.django_db(transaction=True)`, for a child process sees only what is committed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.conf import settings
from django.db import connections
from psycopg2.sql import SQL, Identifier

from catalog.audit import Actor
from catalog.models import Dataset
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import blocks, planner, runner, secrets
from pipelines.connectors import http
from pipelines.models import Pipeline, Provider, Run, ScheduleBlock

ANN = Actor("ann")
SOURCE, TARGET = "aaaa-0001", "bbbb-0001"
PASSWORD = "pw-canary-1"
COLUMNS = (
    ("id", "text"),
    ("name", "text"),
    ("amount", "number"),
    ("open", "checkbox"),
    ("place", "point"),
    ("updateddate", "calendar_date"),
)
_numbers = itertools.count(1)


def made_row(number: int) -> tuple[Any, ...]:
    """Row `number` of a small table; some cells are null, some names need quoting."""
    place = {"type": "Point", "coordinates": [-118.25 + number % 100 / 1000, 34.05]} if number % 5 else None
    when = datetime(2026, 1, 1) + timedelta(minutes=number)
    name = ['Ann "the" Fox', "Bo, Jr.", "Çelik\nBros", None][number % 4]
    amount = None if number % 9 == 0 else str(number * 1.5)
    return (f"k{number:07d}", name, amount, number % 2 == 0, place, when.isoformat(timespec="milliseconds"))


def table(rows: int, **about: Any) -> SandboxTable:
    """A source's table of `rows` rows with the key `id`."""
    return SandboxTable(SOURCE, "Source rows", COLUMNS, [made_row(number) for number in range(rows)], key="id", **about)


class Scene:
    """One pipeline from `source` to `portal`, and what a test does with it."""

    def __init__(self, source_table: SandboxTable, *, portal_key: str | None = None, **fields: Any):
        self.source = Portal(source_table).start()
        columns = [(column.name, column.type) for column in source_table.columns]
        key = source_table.key if portal_key is None else portal_key
        self.portal = Portal(SandboxTable(TARGET, "Target", columns, [], key=key), accounts={"u": PASSWORD}).start()
        name = f"scene{next(_numbers)}_{os.getpid()}"
        self.dataset = Dataset.objects.create(slug=name, title="Scene")
        self.provider = Provider.objects.create(slug=f"s-{name}", title="Source", kind="socrata", base_url=self.source.url)
        self.portal_provider = Provider.objects.create(
            slug=f"p-{name}",
            title="Portal",
            kind="socrata",
            base_url=self.portal.url,
            parameters={"user": "u"},
            secrets={"password": secrets.seal(PASSWORD)},
        )
        values = {
            "resource": source_table.id,
            "key": [source_table.key] if source_table.key else [],
            "version_column": "updateddate" if "updateddate" in source_table.names else "",
            "table": name,
            "portal": self.portal_provider,
            "portal_resource": TARGET,
            "time_zone": "America/Los_Angeles",
            "page_size": 400,
            "publish_chunk": 300,
            **fields,
        }
        self.pipeline = Pipeline(slug=name, title="Scene", provider=self.provider, dataset=self.dataset, **values)
        self.pipeline.full_clean(exclude=["portal"] if values["portal"] is None else None)
        self.pipeline.save()

    def close(self) -> None:
        self.source.stop()
        self.portal.stop()

    # acting
    def change(self, **fields: Any) -> None:
        """Change the pipeline's settings, as a steward does."""
        Pipeline.objects.filter(pk=self.pipeline.pk).update(**fields)
        self.pipeline.refresh_from_db()

    def place(self, **order: Any) -> planner.Placed:
        """Order blocks; nobody works on them yet."""
        self.pipeline.refresh_from_db()
        return planner.place(planner.Order([self.pipeline], **order), actor=ANN, trigger="command", bell=False)

    def go(self, **order: Any) -> ScheduleBlock:
        """Order the present block and work it off. Returns it as it stands then."""
        placed = self.place(**order)
        assert placed.moved, placed.refused
        runner.work_off(placed.moved, workers=1)
        return self.block

    def again(self, stage: str | None = None, **wish: Any) -> ScheduleBlock:
        """Re-run the present block and work it off."""
        verdict = blocks.requeue(self.block.pk, actor=ANN, stage=stage, **wish)
        assert verdict.moved, verdict.text
        return self.work()

    def work(self) -> ScheduleBlock:
        """Work the present block off as far as it goes now."""
        runner.work_off([self.block.pk], workers=1)
        return self.block

    def hurry(self) -> ScheduleBlock:
        """Let the time pass that the block has to wait for, then work it off."""
        Provider.objects.update(blocked_until=None)
        ScheduleBlock.objects.filter(pk=self.block.pk).update(due_at=datetime.now(UTC) - timedelta(seconds=1))
        return self.work()

    # looking
    @property
    def block(self) -> ScheduleBlock:
        return ScheduleBlock.objects.select_related("pipeline__provider", "pipeline__dataset").get(pipeline=self.pipeline)

    def last(self, stage: str) -> Run:
        return Run.objects.filter(block__pipeline=self.pipeline, stage=stage).first()

    def runs(self, stage: str = "") -> list[Run]:
        found = Run.objects.filter(block__pipeline=self.pipeline).order_by("pk")
        return list(found.filter(stage=stage) if stage else found)

    def warehouse(self, columns: str = "id, name, amount, open, updateddate") -> list[tuple]:
        """The rows of the city table, by key; empty when there is no table."""
        return city(f'select {columns} from city."{self.pipeline.table}" order by 1') if exists(self.pipeline.table) else []

    def portal_rows(self, id: str = TARGET) -> dict[str, dict[str, Any]]:
        """What the portal holds: key to row."""
        return keyed(self.portal.dataset(id))

    def source_rows(self) -> dict[str, dict[str, Any]]:
        return keyed(self.source.dataset(self.pipeline.resource))

    def lake_rows(self) -> int:
        """Rows in the live files of the lake, by the catalog."""
        from catalog.models import CatalogEntry

        return sum(entry.rows for entry in CatalogEntry.objects.live().filter(source=self.pipeline.slug))


def keyed(held: SandboxTable) -> dict[str, dict[str, Any]]:
    rows = [dict(zip(held.names, record.values, strict=True)) for record in held._rows]
    return {row[held.key]: row for row in rows} if held.key else dict(enumerate(rows))


def connect() -> Any:
    return psycopg2.connect(settings.WAREHOUSES["default"])


def city(query: str, *args: Any) -> list[tuple]:
    """Ask the warehouse as a reader does."""
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, args or None)
        return cursor.fetchall() if cursor.description else []


def exists(name: str) -> bool:
    return bool(city("select to_regclass(%s) is not null", f'city."{name}"')[0][0])


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    """A CSV file as a portal sends it: quoted unless empty."""

    def cell(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if value else ""

    lines = [",".join(map(cell, row)) for row in [header, *rows]]
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    return path


def drop_city() -> None:
    """Remove the warehouse's tables and forget who merged, which no test's flush knows of."""
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select to_regnamespace('city') is not null")
        if cursor.fetchone()[0]:
            cursor.execute("select tablename from pg_tables where schemaname = 'city' and tablename not like '\\_odo%'")
            for (name,) in cursor.fetchall():
                cursor.execute(SQL("drop table {}").format(Identifier("city", name)))
            cursor.execute("drop table if exists city._odo_ledger")


@pytest.fixture
def stage_scene(settings, tmp_path, monkeypatch, transactional_db) -> Iterator[Any]:
    """A maker of scenes: `stage_scene(rows=1000, **pipeline_fields)`; the portals are closed and the city's tables dropped after the test."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    settings.WORK_DIR = tmp_path / "work"
    settings.HEARTBEAT_SECONDS = 0.1
    # the door's own naps between tries; what a source asks for is kept, up to a tenth of a second
    monkeypatch.setattr(http, "_pause", lambda state: min(state.outcome.exception().retry_after or 0.01, 0.1))
    made: list[Scene] = []

    def make(rows: int | SandboxTable = 1000, **fields: Any) -> Scene:
        made.append(Scene(table(rows) if isinstance(rows, int) else rows, **fields))
        return made[-1]

    yield make
    for scene in made:
        scene.close()
    drop_city()


def as_sent(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows as two portals may be compared: a number by its value."""
    return {key: {name: float(value) if name == "amount" and value else value for name, value in row.items()} for key, row in rows.items()}


def together(act: Callable[[], Any], times: int) -> list[Any]:
    """What `act` answered, called by so many threads at the same moment."""
    start, answers, errors = threading.Barrier(times), [], []

    def one() -> None:
        try:
            start.wait()
            answers.append(act())
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return answers
