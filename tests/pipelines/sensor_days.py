"""Days of sensors on a stage: folders into which the city's systems drop files, an inventory, a portal with what is published of them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry, Dataset, InventoryEdition, Layer
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from opendata_ops.sandbox.tables import portal_value
from pipelines import blocks, secrets, stages
from pipelines.errors import PipelineError
from pipelines.formats import sensors
from pipelines.formats.bluetooth import FILES
from pipelines.formats.gridsmart_counts import COUNT_COLUMNS
from pipelines.formats.wavetronix import COLUMNS as RADAR_COLUMNS
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, State
from pipelines.stages.documents import INSIDE
from pipelines.stages.note import Note
from tests.pipelines.formats import gridsmart_samples as cameras
from tests.pipelines.formats.sensing import ELM, NAMES, OAK, ORIGINAL_RADAR, ORIGINAL_UNITS, RADAR, due, golden, original, raw_day

ZONE = "America/Chicago"
ONE, TWO = date(2019, 6, 1), date(2019, 6, 2)
PASSWORD = "pw-canary-7"
_numbers = itertools.count(1)

BLUETOOTH_UNITS, RADAR_UNITS = [OAK, ELM], [RADAR]

#: slug → what is fetched, how it is read, and where on the portal it is.
KINDS: dict[str, dict[str, Any]] = {
    "bt-unmatched": {
        "resource": "Austin_bt_%m-%d-%Y.txt", "format": "bluetooth", "inventory": "bt", "data_source": "Bluetooth", "window_column": "host_read_time",
        "options": {"file": "unmatched", "area": "Austin", "helpers": {"matched": "Austin_btmatch_%m-%d-%Y.txt"}},
        "portal_resource": "qnpj-zrb9", "columns": FILES["unmatched"].table,
    },
    "bt-matched": {
        "resource": "Austin_btmatch_%m-%d-%Y.txt", "format": "bluetooth", "inventory": "bt", "data_source": "Bluetooth",
        "window_column": "start_time", "options": {"file": "matched", "area": "Austin"}, "portal_resource": "x44q-icha",
        "columns": FILES["matched"].table,
    },
    "bt-summary": {
        "resource": "Austin_bt_summary_15_%m-%d-%Y.txt", "format": "bluetooth", "inventory": "bt", "data_source": "Bluetooth",
        "window_column": "timestamp", "options": {"file": "traf_match_summary", "area": "Austin"}, "portal_resource": "v7zg-5jg9",
        "columns": FILES["traf_match_summary"].table,
    },
    "radar-counts": {
        "resource": "Austin_wt_%Y-%m-%d.csv", "format": "wavetronix", "inventory": "wt", "data_source": "Wavetronix", "window_column": "curdatetime",
        "options": {"area": "Austin"}, "portal_resource": "i626-g7ub", "columns": RADAR_COLUMNS, "key": ["row_id"],
    },
    "camera-counts": {
        "resource": "counts", "format": "gridsmart", "inventory": "gs", "data_source": "GRIDSMART", "window_column": "read_date",
        "options": {"area": "Austin"}, "portal_resource": "sh59-i6y9", "columns": COUNT_COLUMNS,
        "stages": ["extract", "standardize", "enrich", "aggregate", "load", "publish"],
    },
}  # fmt: skip
PORTAL_TYPES = {"local_time": "calendar_date", "boolean": "checkbox"}


def window(day: date) -> tuple[datetime, datetime]:
    """The UTC ends of a local day."""
    zone = ZoneInfo(ZONE)
    ends = (datetime(one.year, one.month, one.day, tzinfo=zone).astimezone(UTC) for one in (day, day + timedelta(days=1)))
    return tuple(ends)


def drop(folder: Path) -> None:
    """Two raw days of every kind, as the city's systems leave them."""
    folder.mkdir(exist_ok=True)
    for kind, name in NAMES.items():
        for day in (ONE, TWO):
            (folder / f"{day:{name}}").write_text(raw_day(kind, day))


def drop_the_original(folder: Path) -> None:
    """The original's raw days and their inventory; of radar it saved of the second day what it published, and the raw line is made of that."""
    folder.mkdir(exist_ok=True)
    for kind, name in NAMES.items():
        for day in (ONE, TWO) if kind != "radar" else (ONE,):
            (folder / f"{day:{name}}").write_text(original(kind, day))
    header = original("radar", ONE).splitlines()[0]
    [told] = golden("i626-g7ub")[1]
    cells = [told[name] for name in ("detid", "int_id", "curdatetime", "intname", "detname", "volume", "occupancy", "speed")]
    (folder / f"{TWO:{NAMES['radar']}}").write_text(f"{header}\n{','.join(map(str, cells))},Working,100,1,{told['volume']}\n")
    edition("bt", ORIGINAL_UNITS), edition("wt", [ORIGINAL_RADAR])


def edition(code: str, units: list[Mapping[str, Any]], day: date = date(2019, 6, 20)) -> InventoryEdition:
    """An inventory of that day."""
    return InventoryEdition.objects.create(code=code, dated_at=window(day)[0], units=units, sha256=f"{next(_numbers):064x}")


class Sensors:
    """One pipeline of sensors, from a folder to a portal; the portal may be shared, or absent where nothing is published."""

    def __init__(self, slug: str, tmp_path: Path, *, portal: Portal | None = None, **fields: Any):
        self.kind, self.tmp_path = KINDS[slug], tmp_path
        self.slug = f"{slug}-{next(_numbers)}"
        self.public = [(name, PORTAL_TYPES.get(kind, kind)) for name, kind in self.kind["columns"] if name not in INSIDE]
        about = {name: value for name, value in self.kind.items() if name != "columns"}
        usual = {
            "stages": ["extract", "standardize", "enrich", "load", "publish"],
            "key": ["record_id"],
            "raw_names": "atd-data-lake",
            "cadence": "daily",
        }
        about = {**usual, **about, **fields}
        if portal is None:
            about["stages"] = [stage for stage in about["stages"] if stage not in ("load", "publish")]
        else:
            self.table = portal.add(SandboxTable(about["portal_resource"], slug, self.public, [], key=about["key"][0]))
            about["portal"] = Provider.objects.create(
                slug=f"p-{self.slug}", title="Portal", kind="socrata", base_url=portal.url, parameters={"user": "u"},
                secrets={"password": secrets.seal(PASSWORD)},
            )  # fmt: skip
        dataset = Dataset.objects.create(slug=self.slug, title=slug)
        source = Provider.objects.create(slug=f"s-{self.slug}", title="Drop", kind="folder", base_url=str(tmp_path / "drop"))
        self.pipeline = Pipeline(
            slug=self.slug, title=slug, provider=source, dataset=dataset, time_zone=ZONE,
            table=f"s{next(_numbers)}_{os.getpid()}", **about,
        )  # fmt: skip
        self.pipeline.full_clean(exclude=["portal"] if portal is None else None)
        self.pipeline.save()

    # as a worker does, in this process
    def run(self, *days: date) -> list[ScheduleBlock]:
        """All stages of these days, one after the other."""
        for day in days:
            for stage in self.pipeline.stages:
                self.do(stage, day)
        return [self.block(day) for day in days]

    def block(self, day: date = ONE) -> ScheduleBlock:
        return ScheduleBlock.objects.select_related("pipeline__dataset", "pipeline__provider").get(pipeline=self.pipeline, starts_at=window(day)[0])

    def place(self, day: date = ONE) -> ScheduleBlock:
        """A block of that day that nobody works on."""
        starts_at, ends_at = window(day)
        fields = {"ends_at": ends_at, "due_at": timezone.now(), "stage": "extract", "stages": self.pipeline.stages}
        block, _ = ScheduleBlock.objects.get_or_create(pipeline=self.pipeline, starts_at=starts_at, defaults=fields)
        return block

    def claim(self, stage: str, day: date = ONE) -> Run:
        due = timezone.now() - timedelta(seconds=1)
        ScheduleBlock.objects.filter(pk=self.place(day).pk).update(stage=stage, stages=self.pipeline.stages, state=State.WAITING, due_at=due)
        return blocks.claim(self.block(day).pk, holder="test")

    def give(self, *files: tuple[str, str, bytes], day: date = ONE, rows: Mapping[str, int] | None = None, asked: date | None = None) -> None:
        """What an extract of these files (base, ext, bytes) leaves behind; site files are helpers, of the day on which they were asked for."""
        run, entries = self.claim("extract", day), []
        for base, ext, body in files:
            path = self.tmp_path / "raw"
            path.write_bytes(body)
            of = (asked or day) if ext == "site.json" else day
            about = {"base": base, "ext": ext, "collection_date": f"{of}", **({"role": "site"} if ext == "site.json" else {})}
            code = self.pipeline.inventory
            place = sensors.pointer("raw", code, of, sensors.file_name(base, code, of, ext)) if code else ""
            entries.append(
                lake.shelve(
                    dataset=self.pipeline.dataset, source=self.slug, layer=Layer.RAW, window=window(day), file=path, name=f"{base}.{ext}",
                    identity=(base, ext), sha256=lake.fingerprint(path), bytes=len(body), rows=(rows or {}).get(ext), metadata=about, run_id=run.pk,
                    place=place,
                )
            )  # fmt: skip
        lake.withdraw_others(self.slug, Layer.RAW, window(day)[0], entries)
        number = sum(entry.rows or 1 for entry in entries if "role" not in entry.metadata)
        blocks.advance(run, blocks.Outcome(blocks.Counts(rows_in=number, rows_out=number), details={"entries": [entry.pk for entry in entries]}))

    def do(self, stage: str, day: date = ONE) -> Run:
        """Do one stage as a worker does; a failure is the block's, and raised."""
        run = self.claim(stage, day)
        workdir = self.tmp_path / f"work{run.pk}"
        workdir.mkdir()
        try:
            outcome = stages.carry_out(run, Note(run, workdir, lambda done, total: None))
        except PipelineError as error:
            blocks.fail(run, error)
            raise
        assert not list(workdir.iterdir()), "a stage leaves nothing behind in its folder"
        blocks.advance(run, outcome)
        run.refresh_from_db()
        assert run.state == RunState.DONE, run.message
        return run

    # looking
    def files(self, layer: str, day: date = ONE) -> list[CatalogEntry]:
        live = CatalogEntry.objects.live().filter(source=self.slug, layer=layer, window_start=window(day)[0])
        return list(live.order_by("id_base", "id_ext"))

    def names(self, layer: str, day: date = ONE) -> list[str]:
        return [entry.pointer for entry in self.files(layer, day)]

    def document(self, layer: str, base: str, ext: str, day: date = ONE) -> dict[str, Any]:
        entry = next(one for one in self.files(layer, day) if (one.id_base, one.id_ext) == (base, ext))
        return json.loads(lake.lake().local_path(entry.pointer, self.tmp_path, sha256=entry.sha256).read_bytes())

    def told(self) -> list[dict[str, Any]]:
        """What the portal has, a row with its names."""
        return [dict(zip(self.table.names, record.values, strict=True)) for record in self.table._rows]

    def due(self, *days: date) -> list[dict[str, Any]]:
        """What is to be published of the days that `drop` leaves, as the portal keeps it."""
        kind = self.kind["options"].get("file", "radar")
        return self._kept([row for day in days for row in due(kind, day)])

    def golden(self, day: date) -> list[dict[str, Any]]:
        """What the original published of its own day, as the portal keeps it."""
        return self._kept(golden(self.kind["portal_resource"])[(day - ONE).days])

    def _kept(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kinds = dict(self.public)
        return [{name: portal_value(value, kinds[name]) for name, value in row.items()} for row in rows]


def camera_day(drift: timedelta = timedelta(), base: str = cameras.BASE, day: date = ONE, layout: Any = cameras.layout_a, zones: Any = None) -> list:
    """The raw files of an intersection's day: its zip and its site file, whose clock is ahead by `drift`."""
    streets = tuple(base.split("_"))
    about = cameras.site(streets, drift=drift)
    return [(base, "zip", layout(zones or cameras.GOLDEN, day)), (base, "site.json", json.dumps(about).encode())]


assert set(sensors.FORMATS) == {kind["format"] for kind in KINDS.values()}
