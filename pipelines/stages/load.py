"""Load: lake → warehouse. Every file is staged, every value judged, and the whole block merged in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from django.conf import settings
from django.db.models.functions import Now

from catalog import lake
from catalog.models import CatalogEntry, Layer
from pipelines import warehouse
from pipelines.blocks import Counts, Outcome, not_conserved
from pipelines.connectors.base import Column
from pipelines.errors import DataError, PipelineError, SetupError
from pipelines.faults import InjectedFault
from pipelines.formats import json_rows, sensors
from pipelines.models import Gone, ImportLog, Pipeline, RejectedRow, Run, RunState, ScheduleBlock, Stage
from pipelines.stages import volume
from pipelines.stages.columns import may_retype
from pipelines.stages.note import Note
from pipelines.warehouse.tables import REJECTED_ROWS, REJECTED_SHARE, Merged, Region, Rejected, Scope, Table, visible

#: So many rejected rows are kept of a load that is refused as a whole.
EXAMPLES = 1_000
#: The latest layer that has files is the one to load.
LAYERS = (Layer.AGGREGATED, Layer.READY, Layer.STANDARD, Layer.RAW)
#: Of what sensors bring, only the last step is rows: what comes before are documents, which only their own stages read.
DOCUMENT_LAYERS = (Layer.AGGREGATED, Layer.READY)
#: The role of a document, and those of the files that help to read others: a day's matched reads, an intersection's site.json.
DOCUMENT, MATCHED, SITE = "document", "matched", "site"
#: Which stage puts files there.
MADE_BY = {Layer.AGGREGATED: Stage.AGGREGATE, Layer.READY: Stage.ENRICH, Layer.STANDARD: Stage.STANDARDIZE, Layer.RAW: Stage.EXTRACT}


def load(run: Run, note: Note) -> Outcome:
    """Merge the block's files. rows_in (all files) = inserted + updated, unchanged, rejected, duplicates."""
    block = run.block
    pipeline = block.pipeline
    if pipeline.is_snapshot and newer_is_loaded(block):
        return Outcome(
            Counts(), message="A newer block has been loaded meanwhile: these rows are out of date.", mark=ScheduleBlock.Mark.UNCHANGED, is_final=True
        )
    found = files_of(block)
    keys = [entry for entry in found if entry.metadata.get("role") == "keys"]
    entries = [entry for entry in found if entry not in keys]
    if not entries and not keys:
        return Outcome(Counts(), message="The lake has no rows for this window; the warehouse stays as it is.", mark=block.mark)
    work = Work(run, note, entries, keys, _read_of(block))
    total = sum(entry.rows or 0 for entry in entries)
    diary = Diary(run, work.engine.full_name(pipeline.table), total)
    diary.write(ImportLog.Event.BEGIN, message=f"{len(entries)} files, {total:,} rows")
    try:
        return _load(work, total, diary)
    except (PipelineError, InjectedFault) as error:
        diary.write(ImportLog.Event.FAILED, message=str(error), offset=diary.offset)
        raise


@dataclass(frozen=True)
class Work:
    """What there is to load: the files, those of keys alone, and what the extract had asked for (its run's details)."""

    run: Run
    note: Note
    entries: list[CatalogEntry]
    keys: list[CatalogEntry]
    read: dict[str, Any]

    @property
    def pipeline(self) -> Pipeline:
        return self.run.block.pipeline

    @property
    def engine(self) -> ModuleType:
        return warehouse.engine(warehouse_of(self.pipeline))

    @property
    def is_whole(self) -> bool:
        """Whether the files hold every row that the source has."""
        return self.pipeline.is_snapshot and self.read.get("read", "all") == "all"

    @property
    def region(self) -> Region:
        """For which rows of the table the files speak."""
        pipeline = self.pipeline
        if self.is_whole:
            return Region("pipeline")
        if not pipeline.key:
            since = self.read.get("since", "")
            return Region("since", pipeline.watermark_column, since) if pipeline.is_snapshot and since else Region("block")
        # a window's rows are looked for one by one: worth it only where those that are gone are to go
        return Region("block") if not pipeline.is_snapshot and pipeline.gone_rows == Gone.DELETE else Region()

    @property
    def are_vouched(self) -> bool:
        """Whether the source itself says that its values are of the table's types: a steward's own word is judged value by value."""
        told = {name: kind for entry in self.entries for name, kind in entry.metadata.get("columns", [])}
        as_told = all(kind == told.get(name, kind) for name, kind in self.pipeline.types.items())
        return as_told and all(entry.metadata.get("vouched") for entry in self.entries)

    def files(self, entries: list[CatalogEntry]) -> Iterator[tuple[int, Path]]:
        """The files on local disk as CSV, with their places in the list."""
        for number, entry in enumerate(entries):
            path = lake.lake().local_path(entry.pointer, self.note.workdir, sha256=entry.sha256)
            if entry.id_ext == ".json":
                page, path = path, self.note.workdir / f"{entry.id_base}.csv"
                json_rows.write_csv(page, path, dict(map(tuple, entry.metadata["columns"])), rows=entry.rows)
            yield number, path


def _load(work: Work, total: int, diary: Diary) -> Outcome:
    run, note, pipeline, entries = work.run, work.note, work.pipeline, work.entries
    _refuse_part(work)
    _refuse_shrunk(work, total)
    with work.engine.Load(
        warehouse_of(pipeline),
        # nothing new was read and all keys are compared: which of two copies is newer is then no question
        table_of(pipeline, entries) if entries else replace(table_of(pipeline, work.keys), version=""),
        run_id=run.pk,
        block_id=run.block_id,
        pipeline_id=pipeline.pk,
        fence=run.fence,
        region=work.region,
        deletes_gone=pipeline.gone_rows == Gone.DELETE or run.is_rebuild,
        mode=pipeline.load_mode,
        rebuild=run.is_rebuild,
        widens=may_retype(pipeline),
        vouched=work.are_vouched,
        connections=settings.LOAD_CONNECTIONS,
    ) as job:
        for words in job.widened:
            note.warn(f"{work.engine.full_name(pipeline.table)}: {words}.")
        for number, rows in job.stage_many(work.files(entries)):
            entry = entries[number]
            if entry.rows is not None and rows != entry.rows:
                raise DataError(f"{entry.pointer} has {rows:,} rows; {entry.rows:,} were counted when it came.", code="rows-lost")
            diary.chunk(entry.pointer, rows)
            note.progress(diary.offset, total)
        for _, path in work.files(work.keys):
            job.stage_keys(path)
        rejected = _keep_rejected(run, entries, job, note, total)
        merged = job.merge()
        watermark = _watermark(work, job)
    # every row of the block was judged anew, those that an earlier load rejected among them; what another stage rejected never came here
    RejectedRow.objects.filter(block=run.block, run__stage=Stage.LOAD, replayed_at=None).exclude(run=run).update(replayed_at=Now())
    counts = Counts(
        rows_in=job.staged,
        rows_out=merged.inserted + merged.updated,
        inserted=merged.inserted,
        updated=merged.updated,
        unchanged=merged.unchanged,
        deleted=merged.deleted,
        rejected=rejected,
        duplicates=merged.duplicates,
    )
    if not counts.add_up():
        # the merge is committed; saying so loudly is all that is left, and a re-run is harmless
        raise not_conserved(counts)
    message = _words(merged, rejected, has_key=bool(pipeline.key))
    diary.write(ImportLog.Event.END, rows=counts.rows_out, message=message, offset=diary.offset)
    note.log(message + ", in one transaction")
    mark, why = volume.judge_changes(run, merged.inserted + merged.updated + merged.deleted)
    if rejected and rejected == job.staged:
        # too few to call the type wrong, yet nothing arrived
        mark = ScheduleBlock.Mark.SUSPICIOUS
    details = {"gone": merged.gone, "widened": list(job.widened), "watermark": watermark, "compared": work.is_whole or bool(work.keys)}
    return Outcome(counts, message=why or message, mark=mark, details=details)


def _words(merged: Merged, rejected: int, *, has_key: bool) -> str:
    words = f"{merged.inserted:,} new, {merged.updated:,} changed, {merged.unchanged:,} unchanged"
    words += f", {rejected:,} rejected" * bool(rejected) + f", {merged.duplicates:,} duplicates" * bool(merged.duplicates)
    if merged.deleted:
        words += f", {merged.deleted:,} {'deleted, for they are gone at the source' if has_key else 'replaced'}"
    elif merged.gone:
        words += f", {merged.gone:,} gone at the source and kept"
    return words


def _read_of(block: ScheduleBlock) -> dict[str, Any]:
    """What the block's last good extract asked its source for."""
    good = block.runs.filter(stage=Stage.EXTRACT, state=RunState.DONE).first()
    return good.details if good else {}


def _refuse_part(work: Work) -> None:
    """Raise DataError before a new table is built of files that hold only a part of the source: the other rows would be lost."""
    if work.run.is_rebuild and not work.is_whole:
        raise DataError(
            "The files of this block hold only what had changed at the source, and a new table of them would lose all other rows.",
            code="not-whole",
            next_step="Initialize it with all its stages, extract among them.",
        )


def _refuse_shrunk(work: Work, total: int) -> None:
    """Raise DataError before most of a pipeline's rows would be deleted because its source lost them, unless a person asked for it."""
    pipeline, run = work.pipeline, work.run
    if not work.is_whole or pipeline.gone_rows != Gone.DELETE or run.is_forced or run.is_rebuild:
        return
    dsn = warehouse_of(pipeline)
    if pipeline.table in work.engine.tables(dsn):
        held = work.engine.count(dsn, pipeline.table, Scope(pipeline_id=pipeline.pk))
        if words := volume.too_few(total, held):
            raise DataError(words, code="shrunk", next_step=volume.SHRUNK_NEXT)


def _watermark(work: Work, job: Any) -> str:
    """Up to where the pipeline has been read, now that its rows are merged; "" where it reads without a watermark."""
    pipeline = work.pipeline
    if not pipeline.watermark_column:
        return ""
    if pipeline.watermark_column.startswith(":"):
        # the source's own clock: as it stood before the first row was read
        return work.read.get("changed_at") or ""
    newest = None if work.is_whole else job.newest(pipeline.watermark_column)
    if newest is not None:
        # both are times as portals write them, so their texts are in their order; the table need not be read for it
        return max(pipeline.watermark, newest)
    return work.engine.highest(warehouse_of(pipeline), pipeline.table, pipeline.watermark_column, pipeline_id=pipeline.pk)


def _keep_rejected(run: Run, entries: list[CatalogEntry], job: Any, note: Note, total: int) -> int:
    """Store every rejected row with its reason. Raises DataError when most are rejected: then the type is wrong, not the rows."""
    number = job.judge()
    too_many = number > REJECTED_ROWS and number > total * REJECTED_SHARE
    # of a file that is refused as a whole, some rows as examples: the others would say the same
    found = islice(job.rejected(), EXAMPLES if too_many else None)
    reasons: Counter[str] = Counter()
    while batch := list(islice(found, 200)):
        reasons.update(f"{row.column}: {row.reason}" if row.column else row.reason for row in batch)
        RejectedRow.objects.bulk_create(_rejected(run, entries, row) for row in batch)
    if too_many:
        raise DataError(
            f"{number:,} of {total:,} rows were rejected, most because of {reasons.most_common(1)[0][0]}. Nothing was loaded.",
            code="mostly-rejected",
            next_step="If the column really holds such values, set its type to text in the pipeline.",
        )
    for words, times in reasons.most_common(20):
        note.warn(f"{times:,} rows rejected: {words}")
    return number


def _rejected(run: Run, entries: list[CatalogEntry], row: Rejected) -> RejectedRow:
    return RejectedRow(
        run=run,
        block=run.block,
        reason=row.reason,
        column=row.column,
        value=visible(row.value),
        row_key=" · ".join(row.raw.get(name, "") for name in run.block.pipeline.key)[:300],
        raw={name: visible(cell) for name, cell in row.raw.items()},
        file=entries[row.file].pointer,
        line=row.line,
    )


class Diary:
    """The import log of one load."""

    def __init__(self, run: Run, table: str, total: int):
        self.run, self.table, self.total = run, table, total
        self.offset = 0

    def write(self, event: str, *, file: str = "", rows: int = 0, offset: int = 0, message: str = "") -> None:
        ImportLog.objects.create(
            run=self.run,
            pipeline=self.run.block.pipeline,
            event=event,
            file=file,
            table=self.table,
            offset=offset,
            rows=rows,
            total=self.total,
            message=message.replace("\x00", "\\x00"),
        )

    def chunk(self, file: str, rows: int) -> None:
        self.write(ImportLog.Event.CHUNK, file=file, rows=rows, offset=self.offset)
        self.offset += rows


def newer_is_loaded(block: ScheduleBlock) -> bool:
    """Whether a later block of the same snapshot is in the warehouse: loading this one would bring old rows back."""
    later = Run.objects.filter(block__pipeline=block.pipeline_id, block__starts_at__gt=block.starts_at, stage=Stage.LOAD, state=RunState.DONE)
    return later.exists()


def files_of(block: ScheduleBlock, layers: Sequence[str] | None = None) -> list[CatalogEntry]:
    """The files that are loaded: those of the first of these layers that has any, but for documents and what helps to read them."""
    if layers is None:
        layers = DOCUMENT_LAYERS if block.pipeline.format in sensors.FORMATS else LAYERS
    return [entry for entry in entries_of(block, layers) if entry.metadata.get("role") not in (DOCUMENT, MATCHED, SITE)]


def entries_of(block: ScheduleBlock, layers: Sequence[str]) -> list[CatalogEntry]:
    """The live files of the first of these layers that has any, in the order of their names. Raises DataError when they are of two passes.

    A layer whose stage the pipeline no longer has is passed over: its files are of another time.
    """
    live = CatalogEntry.objects.live().filter(source=block.pipeline.slug, window_start=block.starts_at)
    for layer in layers:
        stage = MADE_BY[layer]
        if stage != Stage.EXTRACT and stage not in block.pipeline.stages:
            continue
        if found := list(live.filter(layer=layer).order_by("id_base", "id_ext")):
            _of_one_pass(block, found, stage)
            return found
    return []


def _of_one_pass(block: ScheduleBlock, entries: list[CatalogEntry], stage: str) -> None:
    """A stage that broke off has already put some of its files in the place of the last good one's: together they are nobody's data."""
    good = block.runs.filter(stage=stage, state=RunState.DONE).first()
    brought = good.details.get("entries") if good else None
    if brought is not None and set(brought) != {entry.pk for entry in entries}:
        raise DataError(
            f"A later {'fetch' if stage == Stage.EXTRACT else stage} of this window broke off and replaced some of its files.",
            code="mixed-files",
            next_step=f"Run the block again from {stage}.",
        )


def table_of(pipeline: Pipeline, entries: list[CatalogEntry]) -> Table:
    """The table as the files have it: their columns, with the pipeline's types where it names them. Raises DataError."""
    layouts = {tuple(map(tuple, entry.metadata.get("columns", []))) for entry in entries}
    if len(layouts) != 1:
        raise DataError(
            f"The {len(entries)} files of this block do not have the same columns.",
            code="mixed-files",
            next_step="Force the block, so that all are fetched again.",
        )
    # a steward's word goes before the source's, also for files that came before it: a re-run from load obeys it
    columns = tuple(Column(name=name, type=pipeline.types.get(name, kind)) for name, kind in layouts.pop())
    missing = [name for name in pipeline.key if name not in {column.name for column in columns}]
    if missing:
        raise DataError(
            f"The files have no {', '.join(missing)}, the key.", code="key-missing", next_step="Change the pipeline's key, or force the block."
        )
    return Table(pipeline.table, columns, tuple(pipeline.key), pipeline.version_column)


def warehouse_of(pipeline: Pipeline) -> str:
    """The address of the pipeline's warehouse. Raises SetupError for an alias that the settings don't have."""
    try:
        return settings.WAREHOUSES[pipeline.warehouse]
    except KeyError:
        known = ", ".join(settings.WAREHOUSES)
        raise SetupError(
            f"The settings have no warehouse {pipeline.warehouse!r}; they have {known}.",
            code="no-warehouse",
            next_step="Name one of these in the pipeline.",
        ) from None
