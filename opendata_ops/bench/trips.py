"""Trips of an operator: validated, looked up in three layers at both ends and loaded, beside a bare COPY of the rows that come of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from psycopg2.sql import SQL, Identifier

from opendata_ops.bench import bare
from opendata_ops.bench.findings import Finding, compared, interleaved, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.ours import SCHEMA
from opendata_ops.bench.plan import Plan
from opendata_ops.bench.polygons import ENDS, made_layers, points
from pipelines.connectors.base import Column
from pipelines.errors import DataError
from pipelines.formats.mds_trips import Terms, TripReader
from pipelines.formats.trip_columns import TRIP_COLUMNS
from pipelines.stages.enrich import Lookup, Tally, add_columns
from pipelines.warehouse import postgres
from pipelines.warehouse.tables import Table

PAGE = 10_000
VERSION = "1.2"
KEY = ("provider_id", "trip_id")
SQL_TYPES = {"text": "text", "number": "numeric", "instant": "timestamptz"}
#: 2026-11-20T17:00:00Z, when all of them end
END_MS = 1_795_194_000_000


def trips(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """From the operator's pages on disk to the served table; and the bare COPY of the same rows into a keyed table."""
    number = plan.size(200_000, 20_000)
    folder = ground.folder / "trips"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = list(_pages(folder, number))
    lookups = [Lookup(f"{layer.name}_{end}", f"{end}_lon", f"{end}_lat", layer.name, layer.areas) for end in ENDS for layer in made_layers()]
    table = Table("trips", tuple(Column(*told) for told in (*TRIP_COLUMNS, *((one.column, "text") for one in lookups))), KEY)

    def ours() -> Cost:
        ground.drop(SCHEMA, table.name)
        ground.settle()
        with measured(ground.meter) as cost:
            rows = bare.in_a_process(lambda: _walk(ground, pages, lookups, table))
        if rows != number:
            raise DataError(f"{rows:,} trips were loaded of {number:,}")
        return cost

    def theirs() -> Cost:
        _keyed(ground, table)
        return bare.timed(ground, lambda cursor: [_copy(cursor, _ready(page), table) for page in pages])

    mine, other = interleaved(plan.pairs, ours, theirs, say=plan.say)
    shutil.rmtree(folder)
    yield compared("trips", "trips: validate, enrich, load", "bare COPY of the rows", number, mine, other, None)
    pace = number / median(cost.seconds for cost in mine)
    yield simple("trips", "the same, a second", number, pace, "trips/s", 20_000, at_least=True, details={"ours": list(map(told, mine))})


def _ready(page: Path) -> Path:
    return page.with_suffix(".ready.csv")


def _walk(ground: Ground, pages: list[Path], lookups: list[Lookup], table: Table) -> int:
    """What the stages do with the pages, in one process; returns how many rows are new in the table."""
    reader, tally = TripReader(Terms(version=VERSION)), Tally()
    for page in pages:
        standard = page.with_suffix(".csv")
        for refused in reader.convert(page, standard, {"version": VERSION}):
            raise DataError(f"a trip was refused: {refused.reason}")
        add_columns(standard, _ready(page), lookups, tally)
    job = postgres.Load(ground.dsn, table, run_id=0, block_id=0, pipeline_id=0, fence=1, vouched=True)
    with job:
        for _ in job.stage_many(enumerate(map(_ready, pages))):
            pass
        job.judge()
        return job.merge().inserted


def _keyed(ground: Ground, table: Table) -> None:
    ground.drop(bare.SCHEMA, table.name)
    fields = [SQL("{} {}").format(Identifier(column.name), SQL(SQL_TYPES[column.type])) for column in table.columns]
    fields.append(SQL("primary key ({})").format(SQL(", ").join(map(Identifier, table.key))))
    ground.ask(SQL("create table {} ({})").format(Identifier(bare.SCHEMA, table.name), SQL(", ").join(fields)))


def _copy(cursor: Any, path: Path, table: Table) -> None:
    with path.open("rb") as stream:
        cursor.copy_expert(bare.copy_of(Identifier(bare.SCHEMA, table.name)), stream, size=bare.COPY_BYTES)


def _pages(folder: Path, number: int) -> Iterator[Path]:
    """Trips as an operator's 1.2 writes them, each with a route from one point of the city to another."""
    (x, y), (to_x, to_y) = points(number), (one[::-1] for one in points(number))
    for first in range(0, number, PAGE):
        found = [
            {
                "provider_id": "0309585e-599f-4e57-ac85-ffffffffffff",
                "provider_name": "Wheelies",
                "device_id": f"00000000-0000-4000-9000-{place % 997:012x}",
                "vehicle_id": f"W{place % 997}",
                "vehicle_type": "scooter",
                "propulsion_types": ["electric"],
                "trip_id": f"00000000-0000-4000-8000-{place:012x}",
                "trip_duration": 750,
                "trip_distance": 1879,
                "route": {
                    "type": "FeatureCollection",
                    "features": [_feature(x[place], y[place], END_MS - 750_000), _feature(to_x[place], to_y[place], END_MS)],
                },
                "accuracy": 5,
                "start_time": END_MS - 750_000,
                "end_time": END_MS,
                "publication_time": END_MS + 3_600_000,
                "standard_cost": 330,
                "actual_cost": 330,
                "currency": "USD",
            }
            for place in range(first, min(first + PAGE, number))
        ]
        path = folder / f"page-{first:09d}.json"
        path.write_text(json.dumps({"version": "1.2.0", "data": {"trips": found}}))
        yield path


def _feature(x: float, y: float, at: int) -> dict[str, Any]:
    place = {"type": "Point", "coordinates": [round(float(x), 6), round(float(y), 6)]}
    return {"type": "Feature", "properties": {"timestamp": at}, "geometry": place}
