"""Standardize: lake, raw → lake, standard. Each raw file of the block becomes a file of the city's own form; what is no row is kept apart.

That form is CSV; of sensors it is a document (`documents.py`), and of a camera's zip one for each of its zones. Nothing here
knows what a file holds: `FORMATS` names for each format of a pipeline who reads it. A record that is refused never stops the
block: it is kept whole with its reason, and judged anew when the stage runs again. Where nearly all are refused, the block is
suspicious.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from catalog import lake
from catalog.models import CatalogEntry, Layer
from pipelines.blocks import Counts, Outcome
from pipelines.errors import SetupError
from pipelines.faults import faultpoint
from pipelines.formats import mds_trips
from pipelines.formats.sensors import Raw, SensorFormat
from pipelines.formats.standard import Format
from pipelines.formats.table_reader import MissingColumns, TableReader
from pipelines.models import RegisteredOperator, Run, ScheduleBlock
from pipelines.stages import documents, table_files, volume
from pipelines.stages.documents import Desk
from pipelines.stages.load import DOCUMENT, MATCHED, SITE, entries_of, files_of
from pipelines.stages.note import Note
from pipelines.stages.refusals import BATCH, Refusals, is_suspicious

#: The local files of a role ("vehicles"), fetched only when they are asked for.
Helpers = Callable[[str], Iterator[Path]]
NOTHING = "The lake has no raw files for this window."


def standardize(run: Run, note: Note) -> Outcome:
    """Turn the block's raw files into standard ones. Raises PipelineError.

    rows_in (all records) = rows_out + rejected + duplicates; what belongs to another block, and comes there again, is a duplicate here.
    """
    if run.block.pipeline.format in documents.FORMATS:
        return _documents(run, note)
    block = run.block
    entries = files_of(block, [Layer.RAW])
    pages = [entry for entry in entries if not entry.metadata.get("role")]
    reader = _reader(block, entries, note)
    work = _Work(run, note, reader)
    if isinstance(reader, TableReader):
        table_files.describe(block.pipeline, reader, note)
    # of files that only their reader can count nobody knows how many rows there will be
    total = None if any(entry.rows is None for entry in pages) else sum(entry.rows for entry in pages)
    note.progress(0, total)
    for entry in pages:
        faultpoint("standardize.page")
        try:
            work.file(entry)
        except MissingColumns as error:
            table_files.tell_drift(run, note, error.missing, error.extra)
            raise
        note.progress(reader.tally.rows_in, total)
    if isinstance(reader, TableReader):
        reader.finish()
    drift = {"drift": table_files.tell_drift(run, note, [], list(reader.extra))} if isinstance(reader, TableReader) and pages else {}
    lake.withdraw_others(block.pipeline.slug, Layer.STANDARD, block.starts_at, work.entries)
    tally = reader.tally
    work.refusals.retire_earlier()
    work.refusals.tell(note, tally)
    mark, why, counted = ScheduleBlock.Mark.NONE, "", {}
    if any(entry.rows is None for entry in pages):
        # only now it is known how many rows came; files whose rows nobody could count on their way count as one each
        read: volume.Read = "window" if block.pipeline.window_column else "all"
        mark, why = volume.judge(block, tally.rows_in, history=volume.history(block, read), source_changed=False, read=read)
        counted = {"taken": sum(1 if entry.rows is None else entry.rows for entry in pages), "rows": tally.rows_in}
    return Outcome(
        Counts(
            rows_in=tally.rows_in,
            rows_out=tally.rows_out,
            rejected=tally.rejected,
            duplicates=tally.duplicates + tally.elsewhere,
            bytes=work.bytes,
        ),
        message=(why or work.refusals.words(tally)) if pages else NOTHING,
        mark=ScheduleBlock.Mark.SUSPICIOUS if is_suspicious(tally) else mark,
        details={
            "entries": [entry.pk for entry in work.entries],
            "flags": dict(tally.flags),
            "warnings": dict(tally.warnings),
            "elsewhere": tally.elsewhere,
            "schema": reader.report(),
            **counted,
            **drift,
        },
    )


class _Work:
    """Takes the raw files one by one, keeps what is refused, and counts."""

    def __init__(self, run: Run, note: Note, reader: Format):
        self.run, self.note, self.reader = run, note, reader
        self.refusals = Refusals(run)
        self.entries: list[CatalogEntry] = []
        self.bytes = 0

    def file(self, raw: CatalogEntry) -> None:
        """Make the standard file of a raw one; also of one without records, so that a load never takes the raw file in its place."""
        block, note, tally = self.run.block, self.note, self.reader.tally
        page = lake.lake().local_path(raw.pointer, note.workdir, sha256=raw.sha256)
        name = f"{raw.id_base}.csv"
        target = note.workdir / name
        rows_in, rows_out = tally.rows_in, tally.rows_out
        refused = self.reader.convert(page, target, raw.metadata)
        while batch := list(islice(refused, BATCH)):
            self.refusals.keep(batch, raw.pointer)
        if raw.rows is not None:
            documents.refuse_lost(raw.pointer, tally.rows_in - rows_in, raw.rows)
        size = target.stat().st_size
        self.entries.append(
            lake.shelve(
                dataset=block.pipeline.dataset,
                source=block.pipeline.slug,
                layer=Layer.STANDARD,
                window=(block.starts_at, block.ends_at),
                file=target,
                name=name,
                sha256=lake.fingerprint(target),
                bytes=size,
                rows=tally.rows_out - rows_out,
                origin=raw.pointer,
                metadata={"columns": [list(column) for column in self.reader.columns], "vouched": True},
                run_id=self.run.pk,
            )
        )
        self.bytes += size
        note.log(f"{raw.name}: {tally.rows_out - rows_out:,} of {tally.rows_in - rows_in:,} rows, as {name}")


# documents


def _documents(run: Run, note: Note) -> Outcome:
    """Turn the block's raw files into documents, and say what was observed of each sensor.

    Of raw files whose rows nobody could count on their way (zips), the run's details say how many there were: `taken`.
    """
    block = run.block
    entries = entries_of(block, [Layer.RAW])
    pages = documents.of_role(entries, "")
    helpers = documents.of_role(entries, MATCHED)
    sites = {entry.id_base: documents.site_of(block.pipeline, entry.id_base, documents.day_of(block)) for entry in pages}
    desk = Desk(run, note, Layer.STANDARD, [*pages, *helpers, *filter(None, sites.values())])
    reader, tally = desk.reader, desk.tally
    total = sum(entry.rows or 0 for entry in pages)
    note.progress(0, total)
    for entry in pages:
        faultpoint("standardize.page")
        rows_in, rows_out = tally.rows_in, tally.rows_out
        _take(desk, reader, entry, sites[entry.id_base])
        if reader.counts_lines and entry.rows is not None:
            documents.refuse_lost(entry.pointer, tally.rows_in - rows_in, entry.rows)
        note.log(f"{desk.terms.name(entry.id_base, entry.id_ext)}: {tally.rows_out - rows_out:,} of {tally.rows_in - rows_in:,} rows")
        note.progress(tally.rows_in, total)
    for entry in helpers:
        # what is refused of it is kept by the pipeline that publishes it
        _take(desk, desk.format(file=MATCHED), entry, None, role=MATCHED)
    for entry in documents.of_role(entries, SITE):
        desk.copy(entry, SITE)
    details = desk.close()
    return Outcome(
        desk.counts(),
        message=desk.refusals.words(tally) if pages else NOTHING,
        mark=ScheduleBlock.Mark.SUSPICIOUS if is_suspicious(tally) else ScheduleBlock.Mark.NONE,
        details={
            **details,
            "observations": reader.observations(),
            **({} if reader.counts_lines else {"taken": sum(1 if entry.rows is None else entry.rows for entry in pages)}),
        },
    )


def _take(desk: Desk, reader: SensorFormat, entry: CatalogEntry, site: CatalogEntry | None, *, role: str = DOCUMENT) -> None:
    """Standardize one raw file; the clock of a camera is known by the site file of its intersection."""
    raw = Raw(
        path=desk.local_path(entry),
        name=desk.terms.name(entry.id_base, entry.id_ext),
        base=entry.id_base,
        ext=entry.id_ext,
        helpers={SITE: desk.local_path(site)} if site else {},
        metadata=entry.metadata,
    )
    with desk.folder() as folder:
        desk.take(reader.standardize(raw, folder), entry.pointer, [entry, *([site] if site else [])], role=role)


# who reads what


def _reader(block: ScheduleBlock, entries: list[CatalogEntry], note: Note) -> Format:
    """The reader of this block's format. Raises SetupError for a format that nobody standardizes."""
    pipeline = block.pipeline
    if pipeline.format in table_files.FORMATS and "attributes" not in pipeline.options:
        raise SetupError(
            f"{pipeline.title} has no attributes, so nobody can say what the columns of its files of the format {pipeline.format!r} are to be.",
            code="no-attributes",
            next_step=f"Write them into its options, set its format to one of {', '.join(sorted(FORMATS))}, or take standardize out of its stages.",
        )
    if pipeline.format not in FORMATS:
        known = sorted([*FORMATS, *documents.FORMATS])
        raise SetupError(
            f"Nothing is known that turns files of the format {pipeline.format!r} into the city's own form.",
            code="no-such-format",
            next_step=f"Set the format of {pipeline.title} to one of {', '.join(known)}, or take standardize out of its stages.",
        )

    def helpers(role: str) -> Iterator[Path]:
        for entry in entries:
            if entry.metadata.get("role") == role:
                yield lake.lake().local_path(entry.pointer, note.workdir, sha256=entry.sha256)

    return FORMATS[pipeline.format](block, helpers)


def _mds_trips(block: ScheduleBlock, helpers: Helpers) -> Format:
    """By the operator's present settings, so that a stage that is run again obeys what was changed; the version is the one that was asked."""
    provider = block.pipeline.provider
    settings = {parameter.name: parameter.default for parameter in provider.connector_class.parameters} | provider.parameters
    name = settings.get("provider_name", "")
    terms = mds_trips.Terms(
        version=settings.get("version", ""),
        starts_at=block.starts_at,
        ends_at=block.ends_at,
        overlap_hours=float(settings.get("overlap_hours") or 0),
        operator=name or provider.title,
        operators={} if name else dict(RegisteredOperator.objects.values_list("operator_id", "name")),
        integer_ids=settings.get("id_rule") == "integers-to-uuid",
        extent=_extent(block),
    )
    return mds_trips.TripReader(terms, mds_trips.read_vehicles(helpers("vehicles")))


def _extent(block: ScheduleBlock) -> tuple[float, float, float, float] | None:
    """[west, south, east, north] of the city, by the areas that enrich its rows; None where there are none."""
    extents = [extent for extent in block.pipeline.enrichments.values_list("layer__extent", flat=True) if extent]
    if not extents:
        return None
    west, south, east, north = zip(*extents, strict=True)
    return min(west), min(south), max(east), max(north)


#: The format of a pipeline → who makes its reader for a block.
FORMATS: dict[str, Callable[[ScheduleBlock, Helpers], Format]] = {"mds_trips": _mds_trips, **dict.fromkeys(table_files.FORMATS, table_files.reader)}
