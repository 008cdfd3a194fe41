"""Standardize: lake, raw → lake, standard. Each raw file of the block becomes a CSV file of the city's own form; what is no row is kept apart.

Nothing here knows what a file holds: `FORMATS` names for each format of a pipeline who reads it. A record that is refused never
stops the block: it is kept whole with its reason, and judged anew when the stage runs again. Where nearly all are refused, the
block is suspicious.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from django.db.models.functions import Now

from catalog import lake
from catalog.models import CatalogEntry, Layer
from pipelines.blocks import Counts, Outcome
from pipelines.errors import DataError, SetupError
from pipelines.faults import faultpoint
from pipelines.formats import mds_trips
from pipelines.formats.standard import Format, Refused, Tally
from pipelines.models import RegisteredOperator, RejectedRow, Run, ScheduleBlock, Stage
from pipelines.stages.load import files_of
from pipelines.stages.note import Note
from pipelines.warehouse.tables import REJECTED_ROWS, REJECTED_SHARE, visible

#: The local files of a role ("vehicles"), fetched only when they are asked for.
Helpers = Callable[[str], Iterator[Path]]
#: So many kinds of refusals and warnings are told in the log, the most frequent first; all are in the run's details.
MOST_KINDS = 20
BATCH = 200


def standardize(run: Run, note: Note) -> Outcome:
    """Turn the block's raw files into standard ones.

    rows_in (all records) = rows_out + rejected + duplicates; what belongs to another block, and comes there again, is a duplicate here.
    """
    block = run.block
    entries = files_of(block, [Layer.RAW])
    pages = [entry for entry in entries if not entry.metadata.get("role")]
    reader = _reader(block, entries, note)
    work = _Work(run, note, reader)
    total = sum(entry.rows or 0 for entry in pages)
    note.progress(0, total)
    for entry in pages:
        faultpoint("standardize.page")
        work.file(entry)
        note.progress(reader.tally.rows_in, total)
    lake.withdraw_others(block.pipeline.slug, Layer.STANDARD, block.starts_at, work.entries)
    # every record of the block was judged anew, those that this stage refused before among them
    earlier = RejectedRow.objects.filter(block=block, run__stage=Stage.STANDARDIZE, replayed_at=None).exclude(run=run)
    earlier.update(replayed_at=Now())
    tally = reader.tally
    work.tell()
    return Outcome(
        Counts(
            rows_in=tally.rows_in,
            rows_out=tally.rows_out,
            rejected=tally.rejected,
            duplicates=tally.duplicates + tally.elsewhere,
            bytes=work.bytes,
        ),
        message=_words(tally, work.reasons) if pages else "The lake has no raw files for this window.",
        mark=ScheduleBlock.Mark.SUSPICIOUS if _is_suspicious(tally) else ScheduleBlock.Mark.NONE,
        details={
            "entries": [entry.pk for entry in work.entries],
            "flags": dict(tally.flags),
            "warnings": dict(tally.warnings),
            "elsewhere": tally.elsewhere,
            "schema": reader.report(),
        },
    )


def _is_suspicious(tally: Tally) -> bool:
    too_many = tally.rejected > REJECTED_ROWS and tally.rejected > tally.rows_in * REJECTED_SHARE
    return too_many or (tally.rejected > 0 and not tally.rows_out)


def _words(tally: Tally, reasons: Counter[str]) -> str:
    words = f"{tally.rows_out:,} of {tally.rows_in:,} rows"
    if tally.rejected:
        words += f", {tally.rejected:,} rejected"
        if _is_suspicious(tally):
            words += f" (most because of: {reasons.most_common(1)[0][0]})"
    words += f", {tally.duplicates:,} duplicates" * bool(tally.duplicates)
    return words + f", {tally.elsewhere:,} that belong to other blocks" * bool(tally.elsewhere)


class _Work:
    """Takes the raw files one by one, keeps what is refused, and counts."""

    def __init__(self, run: Run, note: Note, reader: Format):
        self.run, self.note, self.reader = run, note, reader
        self.entries: list[CatalogEntry] = []
        self.reasons: Counter[str] = Counter()
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
            self.reasons.update(one.reason for one in batch)
            RejectedRow.objects.bulk_create(self._kept(raw, one) for one in batch)
        if raw.rows is not None and tally.rows_in - rows_in != raw.rows:
            raise DataError(
                f"{raw.pointer} has {tally.rows_in - rows_in:,} rows; {raw.rows:,} were counted when it came.",
                code="rows-lost",
                next_step="Run the block again from extract.",
            )
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

    def _kept(self, raw: CatalogEntry, refused: Refused) -> RejectedRow:
        return RejectedRow(
            run=self.run,
            block=self.run.block,
            reason=visible(refused.reason)[:300],
            column=visible(refused.column)[:63],
            value=visible(refused.value)[:1000],
            row_key=visible(refused.key)[:300],
            raw=_visible(refused.raw),
            file=raw.pointer,
            line=refused.number,
        )

    def tell(self) -> None:
        """What was refused and what was odd, as lines of the log."""
        for words, times in self.reasons.most_common(MOST_KINDS):
            self.note.warn(f"{times:,} rows rejected: {words}")
        for words, times in self.reader.tally.warnings.most_common(MOST_KINDS):
            self.note.warn(f"{times:,} rows taken all the same: {words}")


def _visible(value: Any) -> Any:
    """JSON as the database can keep it: what is no text is written as its bytes."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(name): _visible(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_visible(inner) for inner in value]
    return value


# who reads what


def _reader(block: ScheduleBlock, entries: list[CatalogEntry], note: Note) -> Format:
    """The reader of this block's format. Raises SetupError for a format that nobody standardizes."""
    pipeline = block.pipeline
    if pipeline.format not in FORMATS:
        raise SetupError(
            f"Nothing is known that turns files of the format {pipeline.format!r} into the city's own form.",
            code="no-such-format",
            next_step=f"Set the format of {pipeline.title} to one of {', '.join(sorted(FORMATS))}, or take standardize out of its stages.",
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
FORMATS: dict[str, Callable[[ScheduleBlock, Helpers], Format]] = {"mds_trips": _mds_trips}
