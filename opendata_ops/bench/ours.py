"""Our real path, as an operator's command takes it: Provider, Pipeline and block, each stage in a child process, every law kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from django.conf import settings

from catalog.audit import Actor
from catalog.models import Dataset
from opendata_ops.bench import rows
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.server import Place
from pipelines import planner, runner
from pipelines.errors import DataError
from pipelines.models import Cadence, Pipeline, Provider, Run, ScheduleBlock, Stage, State, Trigger

SCHEMA = "city"
ACTOR = Actor("bench")


class Ours:
    """A pipeline of its own, from a dataset of the bench's portal into a table of its own."""

    def __init__(self, ground: Ground, **fields: Any):
        self.ground = ground
        number = ground.number()
        self.resource = f"aaaa-{number:04d}"
        self.table = f"ours_{number}"
        self.cost: Cost | None = None
        self.provider = Provider.objects.create(slug=f"portal-{number}", title="Portal", kind="socrata", base_url=ground.portal.url)
        dataset = Dataset.objects.create(slug=f"requests-{number}", title="Service requests")
        values = {
            "resource": self.resource,
            "key": [rows.KEY],
            "stages": [Stage.EXTRACT, Stage.LOAD],
            "cadence": Cadence.MANUAL,
            "table": self.table,
            # the bench changes sizes as it likes
            "watch_volume": False,
            **fields,
        }
        self.pipeline = Pipeline(slug=f"bench-{number}", title="Bench", provider=self.provider, dataset=dataset, **values)
        self.pipeline.full_clean()
        self.pipeline.save()

    def place(self, place: Place) -> None:
        """Put a content at the portal, newer than what was there."""
        self.ground.portal.place(self.resource, place)

    def load(self, *, meter: Any = None) -> Cost:
        """Order the present block and work it off, measured (the database by `meter`). Raises DataError when it did not end well."""
        self.pipeline.refresh_from_db()
        self.ground.settle()
        before = self.ground.wal()
        with measured(meter or self.ground.meter) as cost:
            order = planner.Order([self.pipeline])
            placed = planner.place(order, actor=ACTOR, reason="bench", trigger=Trigger.COMMAND, bell=False)
            runner.work_off(placed.moved, workers=1)
        cost.wal = self.ground.wal() - before
        self.cost = self._told(cost, placed.moved)
        return self.cost

    def _told(self, cost: Cost, moved: list[int]) -> Cost:
        block = ScheduleBlock.objects.filter(pk__in=moved).first()
        if block is None or block.state != State.DONE:
            raise DataError(f"the block ended {block.state if block else 'nowhere'}: {block.message if block else 'it could not be placed'}")
        latest = {run.stage: run for run in Run.objects.filter(block=block).order_by("pk")}
        cost.peak_mb = max((run.details.get("peak_memory_mb", 0) for run in latest.values()), default=0)
        cost.details = {
            "counts": {stage: run.counts() for stage, run in latest.items()},
            "seconds": {stage: round(run.seconds, 3) for stage, run in latest.items()},
            "peak_mb": {stage: run.details.get("peak_memory_mb") for stage, run in latest.items()},
        }
        return cost

    def fingerprint(self) -> tuple[int, int]:
        return self.ground.fingerprint(SCHEMA, self.table)

    def forget(self) -> None:
        """Drop the table and the files: the next measurement needs the room and must not find them."""
        if self.pipeline.warehouse == "default":
            self.ground.drop(SCHEMA, self.table)
        shutil.rmtree(Path(settings.LAKE_URL), ignore_errors=True)
