"""Extract: source → lake, raw. Pages stream into the lake as files; a source that has not changed is left alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry, Layer
from pipelines import blocks
from pipelines.blocks import Counts, Outcome
from pipelines.connectors.base import Connector, FetchedFile, FetchRequest, SourceState
from pipelines.errors import NeverCame, NoService, NotReady, SetupError, TransientError
from pipelines.faults import faultpoint
from pipelines.formats import sensors
from pipelines.models import Pipeline, RawNames, Run, RunState, ScheduleBlock, Stage
from pipelines.stages import outside, volume
from pipelines.stages.columns import describe_columns, notice_columns, wanted
from pipelines.stages.metadata import describe_dataset
from pipelines.stages.note import Note


def extract(run: Run, note: Note) -> Outcome:
    """Fetch the block's rows. Rows in are what the source counts, rows out what lies in the lake; they must be equal.

    A source that can't count gives what it gives. One that did not operate in the window ends the block without rows, and so,
    as suspicious, does one whose files of the window never came. A file whose rows only its reader can count counts as one.
    Of a snapshot in files the bytes tell whether it changed, whatever the source says of them: the same ones are not taken in again.
    """
    block = run.block
    pipeline = block.pipeline
    source = outside.connector(pipeline.provider, note.event)
    before = source.describe(pipeline.resource)
    describe_dataset(before, pipeline, note)
    # files that only their reader understands have no columns yet: those of the dataset are its format's
    has_columns = bool(before.columns)
    if not has_columns:
        _needs_a_reader(pipeline)
    drift = notice_columns(before, pipeline, note) if has_columns else {}
    version = version_of(before, pipeline)
    if version and not (run.is_forced or run.is_rebuild) and version == blocks.bookkeeper(block).source_version:
        return _unchanged(block, before)

    columns = wanted(before, pipeline) if has_columns else ()
    # with the source's own types: a steward's word may be taken back, and the files must not remember it
    types = {column.name: column.type for column in before.columns}
    told = [[column.name, types[column.name]] for column in columns]
    if has_columns:
        describe_columns(pipeline, columns, note, stats=before.metadata.get("column_stats"))
    reading = reading_of(block, run, before)
    request = FetchRequest(
        columns=columns,
        order=tuple(pipeline.key),
        window_column=pipeline.window_column,
        starts_at=block.starts_at if pipeline.window_column else None,
        ends_at=block.ends_at if pipeline.window_column else None,
        time_zone=pipeline.time_zone,
        since_column=pipeline.watermark_column if reading.since else "",
        since=reading.since,
        page_size=pipeline.page_size,
        in_flight=pipeline.pages_in_flight,
        format=pipeline.format if pipeline.format in ("csv", "json") else "csv",
        asked_at=timezone.now(),
        options=outside.options(pipeline),
    )
    usual, moved = volume.history(block, reading.kind), volume.source_changed(pipeline, before)
    fetch = _Fetch(run, note, source, told)
    content = ""
    try:
        if has_columns or not pipeline.is_snapshot:
            fetch.rows(request, reading)
        else:
            held = fetch.held(request)
            content = version_of(replace(before, version=_bytes_of(held)), pipeline)
            if not (run.is_forced or run.is_rebuild) and content == _last_content(pipeline):
                return _unchanged(block, before, "What the source gave is what it gave before, byte for byte.")
            version = version or content
            fetch.rows(request, reading, held)
    except NeverCame as error:
        return _never_came(run, error)
    except NoService as error:
        return _no_service(run, error)
    if reading.compares_keys:
        # only the key columns, of every row: what the warehouse has besides is gone at the source
        fetch.keys(
            replace(request, columns=tuple(column for column in columns if column.name in pipeline.key), since_column="", since="", format="csv")
        )
    if fetch.read:
        after = source.describe(pipeline.resource)
        if after.version != before.version:
            note.warn("The source changed while it was read, though not in its count; the next run will read it again.")
    if not source.missing:
        # what a device gave earlier stays, though it does not answer now
        lake.withdraw_others(pipeline.slug, Layer.RAW, block.starts_at, fetch.entries)
    mark, message = volume.judge(block, fetch.read, history=[] if fetch.uncounted else usual, source_changed=moved, read=reading.kind)
    message = message or f"{fetch.words}{fetch.helpers}{reading.words}"
    if source.missing:
        mark = ScheduleBlock.Mark.SUSPICIOUS
        message = f"{message.rstrip('.')}. {len(source.missing):,} missing: {'; '.join(map(str, source.missing))}"
    return Outcome(
        Counts(rows_in=fetch.read, rows_out=fetch.read, bytes=fetch.bytes),
        message=message,
        mark=mark,
        details={
            "source_version": version,
            "content": content,
            "files": fetch.files,
            "uncounted": fetch.uncounted,
            "entries": [entry.pk for entry in fetch.entries],
            "changed_at": before.changed_at.isoformat() if before.changed_at else None,
            "read": reading.kind,
            "since": reading.since,
            "compares_keys": reading.compares_keys,
            "drift": drift,
            "fingerprints": fetch.fingerprints,
            "missing": [vars(missing) for missing in source.missing],
        },
    )


@dataclass(frozen=True)
class Reading:
    """What a block asks of its source: a "window", "all" rows, or the "changes" since a moment; and whether all keys are compared."""

    kind: volume.Read
    since: str = ""
    compares_keys: bool = False

    @property
    def words(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return since + ", and all keys" * self.compares_keys


def reading_of(block: ScheduleBlock, run: Run, state: SourceState) -> Reading:
    """How much this block reads. Raises SetupError for a watermark that can't be understood."""
    pipeline = block.pipeline
    if pipeline.window_column:
        return Reading("window")
    if not pipeline.watermark_column or run.is_rebuild or run.is_forced:
        return Reading("all")
    if not pipeline.watermark:
        return Reading("changes", _moment(pipeline, state, pipeline.since, 0)) if pipeline.since else Reading("all")
    due = pipeline.compare_days and (pipeline.compared_at is None or pipeline.compared_at < timezone.now() - timedelta(days=pipeline.compare_days))
    if due and not pipeline.key:
        # rows without a key can only be compared whole
        return Reading("all")
    return Reading("changes", _moment(pipeline, state, pipeline.watermark, pipeline.overlap_minutes), compares_keys=bool(due))


def _moment(pipeline: Pipeline, state: SourceState, watermark: str, overlap: int) -> str:
    """From where to read, as the watermark's column writes it: a time less the overlap; a number or a text as it is."""
    name = pipeline.watermark_column
    kind = "instant" if name.startswith(":") else {column.name: column.type for column in state.columns}.get(name, "text")
    kind = pipeline.types.get(name, kind)
    if kind not in ("local_time", "instant"):
        return watermark
    try:
        moment = datetime.fromisoformat(watermark) - timedelta(minutes=overlap)
    except (ValueError, OverflowError) as error:
        raise SetupError(
            f"The watermark {watermark!r} of {pipeline.title} is no date and time, and its column {name} is one.",
            code="bad-watermark",
            next_step="Write `since` like 2020-09-20T01:39:13, or initialize the pipeline.",
        ) from error
    if kind == "local_time":
        return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class _Fetch:
    """Brings files of one resource into the lake, and counts what came."""

    def __init__(self, run: Run, note: Note, source: Connector, told: list[list[str]]):
        self.run, self.note, self.source, self.told = run, note, source, told
        self.pipeline = run.block.pipeline
        self.entries: list[CatalogEntry] = []
        self.read = self.bytes = self.files = self.uncounted = 0
        #: what the source said of each file's content, where it lists files: [base, ext, fingerprint]
        self.fingerprints: list[list[str]] = []
        self._identities: set[tuple[str, str]] = set()
        #: files that help to read the others, by their role
        self.roles: Counter[str] = Counter()

    @property
    def words(self) -> str:
        """What came, "1,204 rows in 2 files"."""
        files = f"{self.files:,} file{'s' * (self.files != 1)}"
        return f"{self.read:,} rows in {files}" if not self.uncounted else f"{files}, whose rows are counted when they are read"

    @property
    def helpers(self) -> str:
        """The further files in words, " and 2 of vehicles"; "" where there are none."""
        return "".join(f" and {number:,} of {role}" for role, number in self.roles.items())

    def held(self, request: FetchRequest) -> list[FetchedFile]:
        """Every file of the request, here and not yet in the lake."""
        rows = self._count(request, "in all")
        held = list(self.source.fetch(self.pipeline.resource, request, rows=rows, workdir=self.note.workdir, progress=self.note.progress))
        if rows:
            _unmoved(self.source.count(self.pipeline.resource, request), rows, sum(fetched.rows or 0 for fetched in held))
        return held

    def rows(self, request: FetchRequest, reading: Reading, held: list[FetchedFile] | None = None) -> None:
        """Every row of the request, or those that are `held` already. Raises TransientError when the source moved meanwhile."""
        where = "in all" if reading.kind == "all" else "for this window" if reading.kind == "window" else f"since {reading.since}"
        self.read = self._bring(request, where, self.told, "") if held is None else self._shelve(held, self.told, "")
        self.files = len(self.entries) - self.roles.total()

    def keys(self, request: FetchRequest) -> None:
        """The keys of every row."""
        kinds = dict(map(tuple, self.told))
        keys = self._bring(request, "by their keys", [[column.name, kinds[column.name]] for column in request.columns], "keys-")
        self.note.log(f"{keys:,} keys to compare with the warehouse's")

    def _count(self, request: FetchRequest, where: str) -> int | None:
        """How many rows the source says that the request has; None of a source that can't count."""
        pipeline, note = self.pipeline, self.note
        rows = None
        if self.source.can_count:
            rows = self.source.count(pipeline.resource, request)
            note.log(f"{pipeline.resource} of {pipeline.provider.title} has {rows:,} rows {where}")
        note.progress(0, rows)
        return rows

    def _bring(self, request: FetchRequest, where: str, told: list[list[str]], prefix: str) -> int:
        rows = self._count(request, where)
        given = self.source.fetch(self.pipeline.resource, request, rows=rows, workdir=self.note.workdir, progress=self.note.progress)
        read = self._shelve(given, told, prefix)
        if rows:
            _unmoved(self.source.count(self.pipeline.resource, request), rows, read)
        return read

    def _shelve(self, given: Iterable[FetchedFile], told: list[list[str]], prefix: str) -> int:
        """Files into the lake, one by one; returns how many rows they have."""
        read = 0
        for fetched in given:
            faultpoint("extract.page")
            self.entries.append(self._shelved(fetched, told, prefix))
            if role := fetched.metadata.get("role"):
                self.roles[role] += 1
            else:
                # what can't be counted yet is one thing: a day of which half the files came is to be seen, too
                read += 1 if fetched.rows is None else fetched.rows
                self.uncounted += fetched.rows is None
            self.bytes += fetched.bytes
            held = role or "a file" if fetched.rows is None else f"{fetched.rows:,} {role or 'rows'}"
            self.note.log(f"{prefix}{fetched.name}: {held}, {fetched.bytes:,} bytes, sha256 {fetched.sha256[:12]}")
        return read

    def _identity(self, metadata: Mapping[str, Any]) -> tuple[str, str] | None:
        """What the catalog tells the file by; None where its name does, as of the second of one kind in a block of many days."""
        if "base" not in metadata:
            return None
        identity = (metadata["base"], metadata["ext"])
        self.fingerprints.append([*identity, metadata.get("fingerprint", "")])
        if identity in self._identities:
            return None
        self._identities.add(identity)
        return identity

    def _shelved(self, fetched: FetchedFile, told: list[list[str]], prefix: str) -> CatalogEntry:
        """Move a file into the lake."""
        pipeline, block, name = self.pipeline, self.run.block, prefix + fetched.name
        metadata = {**fetched.metadata, **({"columns": told, "vouched": self.source.vouches_for_types} if told else {})}
        identity = self._identity(metadata)
        place = ""
        if pipeline.raw_names == RawNames.ATD_MDS:
            place = lake.atd_mds_place(pipeline.provider.slug, block.starts_at, pipeline.time_zone, name)
        elif pipeline.raw_names == RawNames.ATD_DATA_LAKE and identity:
            place = _atd_data_lake_place(pipeline, date.fromisoformat(metadata["collection_date"]), *identity)
        entry = lake.shelve(
            dataset=pipeline.dataset,
            source=pipeline.slug,
            layer=Layer.RAW,
            window=(block.starts_at, block.ends_at),
            file=fetched.path,
            name=name,
            identity=identity,
            sha256=fetched.sha256,
            bytes=fetched.bytes,
            rows=fetched.rows,
            origin=fetched.origin,
            metadata={**metadata, "role": "keys"} if prefix else metadata,
            run_id=self.run.pk,
            place=place,
        )
        # the lake linked or uploaded the file; its copy here would pile up
        fetched.path.unlink(missing_ok=True)
        return entry


def _atd_data_lake_place(pipeline: Pipeline, day: date, base: str, ext: str) -> str:
    """Where atd-data-lake laid the raw file of a local day. Raises SetupError for a pipeline that does not say of which source it is."""
    if not pipeline.inventory:
        raise SetupError(
            f"The raw files of {pipeline.title} are to be named as in atd-data-lake, with the code of an inventory, and it has none.",
            code="no-inventory-code",
            next_step="Write the code in the pipeline's inventory, for example bt, or choose its own names for raw files.",
        )
    name = sensors.file_name(base, pipeline.inventory, day, ext)
    return sensors.pointer(Layer.RAW, pipeline.inventory, day, name, is_test=pipeline.is_test)


def _needs_a_reader(pipeline: Pipeline) -> None:
    """Raise SetupError where the files of a source that names no columns would be loaded as they are."""
    if Stage.STANDARDIZE not in pipeline.stages and set(pipeline.stages) - {Stage.EXTRACT}:
        raise SetupError(
            f"What {pipeline.provider.title} gives for {pipeline.title} are files whose columns nobody knows before they are read.",
            code="columns-unknown",
            next_step="Add standardize to the pipeline's stages, and choose the format that reads these files.",
        )


def version_of(state: SourceState, pipeline: Pipeline) -> str:
    """What must be the same for a second read to be needless: the source's version, and what we ask of it."""
    if not state.version:
        return ""
    taken = [[column.name, column.type] for column in state.columns if not pipeline.columns or column.name in pipeline.columns]
    asked = [
        taken, pipeline.resource, pipeline.columns, pipeline.types, pipeline.key, pipeline.window_column, pipeline.version_column,
        pipeline.watermark_column, pipeline.gone_rows, pipeline.table, pipeline.warehouse,
        pipeline.load_mode, pipeline.portal_id, pipeline.portal_resource, pipeline.stages,
        # which rows, and how they are read; of a pipeline without options nothing is asked that was not before there were any
        *([pipeline.options, pipeline.format] if pipeline.options else []),
    ]  # fmt: skip
    return f"{state.version}/{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"


def _bytes_of(held: Sequence[FetchedFile]) -> str:
    """A version by the files themselves: it changes when one does, comes or goes."""
    marks = sorted(f"{fetched.name} {fetched.sha256}" for fetched in held)
    return f"bytes-{hashlib.sha256(chr(10).join(marks).encode()).hexdigest()[:32]}"


def _last_content(pipeline: Pipeline) -> str:
    """The content of the reading that all stages went well with; "" where none is known."""
    last = Run.objects.filter(block__pipeline=pipeline, stage=Stage.EXTRACT, state=RunState.DONE).first()
    is_known = last is not None and last.details.get("source_version") == pipeline.source_version != ""
    return last.details.get("content", "") if is_known else ""


def _unchanged(block: ScheduleBlock, state: SourceState, message: str = "") -> Outcome:
    """The lake, the warehouse and the portal have this version already."""
    last = Run.objects.filter(block__pipeline=block.pipeline_id, stage=Stage.EXTRACT, state=RunState.DONE)
    if not block.pipeline.is_snapshot:
        last = last.filter(block=block)
    found = last.first()
    rows = found.rows_out if found else 0
    since = f" since {state.changed_at:%Y-%m-%d %H:%M} UTC" if state.changed_at else ""
    return Outcome(
        Counts(rows_in=rows, unchanged=rows),
        message=message or f"The source has not changed{since}.",
        mark=ScheduleBlock.Mark.UNCHANGED,
        is_final=True,
        details={"evidence_run": found.pk if found else None},
    )


#: Until a source is asked again that says for the first time that it did not operate.
SECONDS_TO_BE_SURE = 3600


def _no_service(run: Run, error: NoService) -> Outcome:
    """The source did not operate in the window: nothing follows. It is suspicious where the window had rows before, which stay.

    Sources give the same answer for an hour once by mistake (facts/mds.md §4.1), and what is done is not asked again: so it
    is believed when it is said the second time. Raises NotReady the first time.
    """
    block = run.block
    if not block.runs.filter(stage=Stage.EXTRACT, state=RunState.WAITING).exists():
        raise NotReady(
            f"{error.message}. Asked again before that is believed.", code="no-service-yet", retry_after=SECONDS_TO_BE_SURE, next_step=error.next_step
        ) from error
    if block.rows:
        words = f"{error.message}; the window had {block.rows:,} rows before. {volume.LEFT}"
        return Outcome(Counts(), message=words, mark=ScheduleBlock.Mark.SUSPICIOUS, is_final=True)
    return Outcome(Counts(), message=f"{error.message}. {error.next_step}", mark=ScheduleBlock.Mark.NO_SERVICE, is_final=True)


def _never_came(run: Run, error: NeverCame) -> Outcome:
    """The files of the window are not there, and no longer waited for: nothing follows, and a person is to look at it."""
    had = f" The window had {run.block.rows:,} rows before. {volume.LEFT}" if run.block.rows else ""
    words = f"{error.message}.{had} {error.next_step}".rstrip()
    return Outcome(Counts(), message=words, mark=ScheduleBlock.Mark.SUSPICIOUS, is_final=True)


def fingerprints_of(block: ScheduleBlock) -> dict[tuple[str, str], str]:
    """What the source said of the content of each thing, by (base, ext), when this block was last read well; {} where it was not."""
    last = block.runs.filter(stage=Stage.EXTRACT, state=RunState.DONE).first()
    return {(base, ext): mark for base, ext, mark in last.details.get("fingerprints", [])} if last else {}


def _unmoved(now: int, rows: int, read: int) -> None:
    """Raise TransientError unless the source counted the same before and after, and we have them all."""
    if now != rows or read != rows:
        raise TransientError(
            f"The source changed while it was read: {rows:,} rows before, {read:,} read, {now:,} after. Nothing was loaded.",
            code="source-moved",
        )
