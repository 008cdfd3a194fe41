"""Documents: what the stages of sensors share: a format with its terms, and a desk where what it makes is shelved and what it refuses is kept.

Standardize, enrich and aggregate differ in what they give to the format; where its documents lie, what their entries say and how
rows are counted is the same. A document that is made again of the same inputs has the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry, DatasetColumn, InventoryEdition, Layer
from pipelines import clock
from pipelines.blocks import Counts
from pipelines.connectors.base import Column
from pipelines.errors import DataError, SetupError
from pipelines.formats import sensors
from pipelines.formats.bluetooth import Bluetooth
from pipelines.formats.gridsmart import Gridsmart
from pipelines.formats.sensors import CountingFormat, Made, SensorFormat, Terms, rows_ext
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.wavetronix import Wavetronix
from pipelines.models import Pipeline, RawNames, Run, RunState, ScheduleBlock
from pipelines.stages.columns import describe_columns
from pipelines.stages.load import DOCUMENT
from pipelines.stages.note import Note
from pipelines.stages.refusals import BATCH, Refusals

#: The format of a pipeline → what reads it.
FORMATS: dict[str, type[SensorFormat]] = {"bluetooth": Bluetooth, "wavetronix": Wavetronix, "gridsmart": Gridsmart}
#: Those whose rows are counted by the quarter hour before they are loaded.
COUNTING: dict[str, type[CountingFormat]] = {"gridsmart": Gridsmart}
#: The day on which the clock goes back.
LONGEST_DAY = timedelta(hours=25)
#: Columns that tell which device of the inventory a row is of: in the table, and not among what was ever published.
INSIDE = ("device_id", "origin_device_id", "dest_device_id")


class Desk:
    """One stage of one block of sensors: `reader` is its format, and `take` puts away what the format yields."""

    def __init__(self, run: Run, note: Note, layer: str, inputs: Sequence[CatalogEntry], edition: InventoryEdition | None = None):
        block, pipeline = run.block, run.block.pipeline
        if not pipeline.inventory:
            raise SetupError(
                f"{pipeline.title} does not say which inventory its sensors are in, and so not what its files are called.",
                code="no-inventory-code",
                next_step="Write the code of the inventory (bt, wt or gs) into the pipeline's settings.",
            )
        if block.ends_at - block.starts_at > LONGEST_DAY:
            raise SetupError(
                f"A block of {pipeline.title} is longer than a day, and sensors are read day by day.",
                code="not-daily",
                next_step="Set the pipeline's cadence to every day.",
            )
        self.run, self.note, self.layer = run, note, layer
        self.pipeline = pipeline
        self.inventory: dict[str, str] = {}
        if edition:
            dated = edition.dated_at.astimezone(zone_of(block))
            self.inventory = {"code": edition.code, "sha256": edition.sha256, "date": f"{dated:%Y-%m-%d}"}
        self.made_of = _digest([sorted(entry.sha256 for entry in inputs), self.inventory, pipeline.format, pipeline.options])
        self.terms = terms_of(block, self._processed_at())
        self.reader = self.format()
        self.refusals = Refusals(run)
        self.entries: list[CatalogEntry] = []
        self.bytes = self.table_rows = self.documents = 0
        self._described = False

    @property
    def tally(self) -> Tally:
        return self.reader.tally

    def format(self, **options: Any) -> SensorFormat:
        """A new reader of this block; `options` go before the pipeline's."""
        return FORMATS[self.pipeline.format](replace(self.terms, options={**self.pipeline.options, **options}))

    def _processed_at(self) -> datetime:
        """When this stage first did these inputs: a document that says another time is another file, and all that is made of it is made again."""
        last = self.run.block.runs.filter(stage=self.run.stage, state=RunState.DONE).first()
        if last and last.details.get("made_of") == self.made_of:
            return datetime.fromisoformat(last.details["processed_at"])
        return timezone.now().replace(microsecond=0)

    def local_path(self, entry: CatalogEntry) -> Path:
        return lake.lake().local_path(entry.pointer, self.note.workdir, sha256=entry.sha256)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Where a format may write; gone after it."""
        with TemporaryDirectory(dir=self.note.workdir) as folder:
            yield Path(folder)

    def take(self, found: Iterable[Refused | Made], file: str, inputs: Sequence[CatalogEntry], *, role: str = DOCUMENT) -> None:
        """Keep what is refused of the file at that pointer, and put what is made of `inputs` into the lake.

        What is refused of a helper is kept where it is no helper: it is passed over.
        """
        held: list[Refused] = []
        for one in found:
            if isinstance(one, Made):
                self._shelve(one, inputs, role)
            elif role == DOCUMENT:
                held.append(one)
            if len(held) >= BATCH:
                self.refusals.keep(held, file)
                held = []
        self.refusals.keep(held, file)

    def copy(self, entry: CatalogEntry, role: str) -> None:
        """A file of another layer as it is, under the day on which it was collected."""
        with self.folder() as folder:
            path = folder / "copy"
            shutil.copyfile(self.local_path(entry), path)
            self._put(path, entry.id_base, entry.id_ext, entry.rows, {**entry.metadata, "role": role, "inputs": [entry.sha256]}, entry.pointer)

    def _shelve(self, made: Made, inputs: Sequence[CatalogEntry], role: str) -> None:
        about: dict[str, Any] = {"inputs": [entry.sha256 for entry in inputs]}
        if self.inventory:
            about["inventory"] = self.inventory
        origin = ", ".join(entry.pointer for entry in inputs)
        if made.table is not None:
            columns = [list(column) for column in made.columns]
            self._describe(made.columns)
            self._put(made.table, made.base, rows_ext(made.ext), made.table_rows, {**about, "columns": columns, "vouched": True}, origin)
            self.table_rows += made.table_rows
        self._put(made.path, made.base, made.ext, made.rows, {**about, "role": role, "header": dict(made.header)}, origin)
        self.documents += role == DOCUMENT

    def _put(self, path: Path, base: str, ext: str, rows: int | None, metadata: dict[str, Any], origin: str) -> None:
        pipeline, block = self.pipeline, self.run.block
        metadata = {"base": base, "ext": ext, "collection_date": f"{self.terms.day}", **metadata}
        day = date.fromisoformat(metadata["collection_date"])
        place, name = "", sensors.file_name(base, pipeline.inventory, day, ext)
        if pipeline.raw_names == RawNames.ATD_DATA_LAKE:
            place = sensors.pointer(self.layer, pipeline.inventory, day, name, is_test=pipeline.is_test)
        size = path.stat().st_size
        self.entries.append(
            lake.shelve(
                dataset=pipeline.dataset,
                source=pipeline.slug,
                layer=self.layer,
                window=(block.starts_at, block.ends_at),
                file=path,
                name=name,
                sha256=lake.fingerprint(path),
                bytes=size,
                rows=rows,
                origin=origin,
                metadata=metadata,
                run_id=self.run.pk,
                place=place,
                identity=(base, ext),
            )
        )
        self.bytes += size

    def _describe(self, columns: Sequence[tuple[str, str]]) -> None:
        """The table's columns stand in the dataset's dictionary, those that tell the device as what stays inside."""
        if self._described:
            return
        new = set(INSIDE) - {column.name for column in self.pipeline.dictionary()}
        describe_columns(self.pipeline, tuple(Column(name, kind) for name, kind in columns), self.note)
        DatasetColumn.objects.filter(dataset=self.pipeline.dataset, part=self.pipeline.part, name__in=new).update(is_published=False)
        self._described = True

    def counts(self) -> Counts:
        """The tally as the run's counts: what belongs to another day is told there, and is a duplicate here."""
        tally = self.tally
        return Counts(
            rows_in=tally.rows_in,
            rows_out=tally.rows_out,
            rejected=tally.rejected,
            duplicates=tally.duplicates + tally.elsewhere,
            bytes=self.bytes,
        )

    def close(self) -> dict[str, Any]:
        """Withdraw what was not made again, let go of earlier refusals, tell the log; returns what every such run keeps in its details."""
        lake.withdraw_others(self.pipeline.slug, self.layer, self.run.block.starts_at, self.entries)
        self.refusals.retire_earlier()
        self.refusals.tell(self.note, self.tally)
        return {
            "entries": [entry.pk for entry in self.entries],
            "files": self.documents,
            "flags": dict(self.tally.flags),
            "warnings": dict(self.tally.warnings),
            "elsewhere": self.tally.elsewhere,
            "made_of": self.made_of,
            "processed_at": self.terms.processed_at.isoformat(),
            **({"inventory": self.inventory} if self.inventory else {}),
        }


def terms_of(block: ScheduleBlock, processed_at: datetime) -> Terms:
    """What the block's format is told."""
    pipeline = block.pipeline
    return Terms(
        code=pipeline.inventory,
        day=day_of(block),
        time_zone=pipeline.time_zone,
        starts_at=block.starts_at,
        ends_at=block.ends_at,
        processed_at=processed_at,
        options=pipeline.options,
    )


def zone_of(block: ScheduleBlock) -> tzinfo:
    return clock.zone(block.pipeline.time_zone)


def day_of(block: ScheduleBlock) -> date:
    """The local day of a block."""
    return block.starts_at.astimezone(zone_of(block)).date()


def refuse_lost(name: str, counted: int, expected: int) -> None:
    """Raise DataError where a format read other rows than lie there."""
    if counted != expected:
        raise DataError(
            f"{name} has {counted:,} rows; {expected:,} were counted when it came.", code="rows-lost", next_step="Run the block again from extract."
        )


def site_of(pipeline: Pipeline, base: str, day: date) -> CatalogEntry | None:
    """The site file of an intersection for a day: the latest collected on it or before, else the first after it; None if there is none."""
    sites = CatalogEntry.objects.live().filter(source=pipeline.slug, layer=Layer.RAW, id_base=base, metadata__role="site")
    before = sites.filter(metadata__collection_date__lte=f"{day}").order_by("-metadata__collection_date", "-window_start").first()
    return before or sites.order_by("metadata__collection_date", "window_start").first()


def of_role(entries: Iterable[CatalogEntry], *roles: str) -> list[CatalogEntry]:
    return [entry for entry in entries if entry.metadata.get("role", "") in roles]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
