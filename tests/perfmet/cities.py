"""Tables of a city for the tests of its scores: a dataset with its pipeline, a table in the warehouse, the runs that brought its rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings

from catalog.models import Dataset, DatasetColumn
from pipelines import warehouse
from pipelines.connectors.base import Column
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, Stage
from pipelines.warehouse.tables import Table
from tests import world

#: A Tuesday and a Wednesday, at noon of the city.
TUESDAY = datetime(2026, 11, 24, 18, tzinfo=UTC)
WEDNESDAY = TUESDAY + timedelta(days=1)


def loaded(dsn: str, name: str, columns: dict[str, str], rows: Sequence[Sequence[Any]]) -> None:
    """A table of the warehouse with these rows, as a load leaves it."""
    engine = warehouse.engine(dsn)
    with closing(engine.connect(dsn)) as connection:
        engine.prepare(connection, Table(name, tuple(Column(name=each, type=kind) for each, kind in columns.items())))
        names = [*columns, "_odo_pipeline", "_odo_block", "_odo_seq", "_odo_loaded_at"]
        quote = '"' if dsn.startswith("postgres") else "`"
        listed = ", ".join(f"{quote}{each}{quote}" for each in names)
        with connection.cursor() as cursor:
            for number, row in enumerate(rows):
                insert = f"insert into {engine.full_name(name)} ({listed}) values ({', '.join(['%s'] * len(names))})"
                cursor.execute(insert, [*row, 1, 1, number + 1, "2026-11-02 09:00:00"])
        connection.commit()


def dropped(dsn: str, *names: str) -> None:
    engine = warehouse.engine(dsn)
    with closing(engine.connect(dsn)) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"drop table if exists {engine.full_name(name)}")
        connection.commit()


def described(slug: str, *columns: str, notes: str = "", part: str = "", **fields: Any) -> Dataset:
    """A dataset with a dictionary of these columns."""
    found = Dataset.objects.filter(slug=slug).first() or world.dataset(slug, slug.replace("-", " ").title(), **fields)
    DatasetColumn.objects.bulk_create(
        DatasetColumn(dataset=found, part=part, position=place, name=name, description=notes) for place, name in enumerate(columns)
    )
    return found


def feeding(dataset: Dataset, slug: str = "", **fields: Any) -> Pipeline:
    """A pipeline that loads and publishes the dataset."""
    source = Provider.objects.filter(slug="files").first() or world.provider("files", "City files")
    portal = Provider.objects.filter(slug="portal").first() or world.provider("portal", "Portal")
    slug = slug or dataset.slug
    values = {"portal": portal, "stages": ["extract", "load", "publish"], "key": [], "window_column": "", "portal_resource": f"{slug[:4]}-0001"}
    return world.pipeline(slug, dataset.title, source, dataset, world.SATURDAY, **{**values, **fields})


def ran(pipeline: Pipeline, stage: str, at: datetime, *, details: dict[str, Any] | None = None, **counts: int) -> Run:
    """A run of a stage that ended well at a moment."""
    block = ScheduleBlock.objects.filter(pipeline=pipeline).first()
    if block is None:
        block = world.block(pipeline, (at - timedelta(days=1), at))
        block.save()
    fence = Run.objects.filter(block=block).count() + 1
    rows = counts.get("inserted", 0) + counts.get("updated", 0)
    return Run.objects.create(
        block=block, stage=stage, state=RunState.DONE, attempt=1, fence=fence, trigger="schedule", asked_by="schedule", holder="here",
        started_at=at, finished_at=at, rows_in=rows, rows_out=rows, details=details or {}, **counts,
    )  # fmt: skip


def good(slug: str = "street-trees", rows: int = 3, **fields: Any) -> Pipeline:
    """A daily dataset in which little is amiss: its table has two described columns, and came the day before TUESDAY."""
    told = {
        "description": "All trees.", "topics": ["Environment"], "information_url": "https://city.example/trees", "tags": "trees, parks",
        "refresh_rate": "daily", "collection_method": "Counted.", "limitations": "None.",
    }  # fmt: skip
    dataset = described(slug, "tree_id", "ward", notes="What it says.", **{**told, **fields})
    found = feeding(dataset)
    loaded(settings.WAREHOUSES["default"], found.table, {"tree_id": "number", "ward": "text"}, [(number, f"W{number}") for number in range(rows)])
    ran(found, Stage.PUBLISH, TUESDAY - timedelta(days=1), published=rows)
    return found
