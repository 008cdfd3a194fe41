"""What a portal that is down could not be given: kept as a CSV file in the lake until it is sent, so that a person may take it there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog import lake
from catalog.models import CatalogEntry, Layer
from pipelines.connectors import csv_dialects
from pipelines.connectors.csv_pages import PIECE
from pipelines.errors import NotReady, PipelineError, TransientError
from pipelines.models import ScheduleBlock

if TYPE_CHECKING:
    from pipelines.stages.publish import Publication

NAME = "pending-upload.csv"
ROLE = "pending upload"
#: A portal that was down for all the usual attempts is asked again so often, and the block waits meanwhile.
AGAIN_SECONDS = 15 * 60


def kept(job: Publication, error: TransientError) -> TransientError:
    """The error, with the words where the rows lie that wait; on the last attempt as one that goes on waiting."""
    run, pipeline = job.run, job.pipeline
    is_last = run.attempt >= pipeline.max_attempts
    # a portal that answers, and has fewer rows than it took, is not down
    if error.code == "portal-short" or (not is_last and run.attempt != 1):
        return error
    try:
        entry = _shelve(job)
    except PipelineError as trouble:
        # the portal's trouble is the news; that its rows could not even be put aside is said as well
        return TransientError(
            f"{error.message} Its rows could not be put aside either: {trouble.message}", retry_after=error.retry_after, code=error.code
        )
    if entry is None:
        return error
    words = f"{error.message} {entry.rows:,} rows are pending upload, and lie in the lake as {entry.pointer}."
    if not is_last:
        return TransientError(words, retry_after=error.retry_after, code=error.code, next_step=error.next_step)
    return NotReady(f"{words} They are sent as soon as it answers.", retry_after=AGAIN_SECONDS, code="pending-upload", next_step=error.next_step)


def _shelve(job: Publication) -> CatalogEntry | None:
    run, block = job.run, job.run.block
    path = job.note.workdir / NAME
    rows, _ = write_csv(path, job.chunks(job.scope, job.after), [column.name for column in job.columns])
    if not rows:
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    entry = lake.shelve(
        dataset=block.pipeline.dataset,
        source=block.pipeline.slug,
        layer=Layer.BACKUP,
        window=(block.starts_at, block.ends_at),
        file=path,
        name=NAME,
        sha256=digest.hexdigest(),
        bytes=path.stat().st_size,
        rows=rows,
        origin=f"the warehouse, for {block.pipeline.portal.slug}",
        metadata={"role": ROLE, "columns": [[column.name, column.type] for column in job.columns]},
        run_id=run.pk,
    )
    job.note.log(f"{NAME}: {rows:,} rows that {block.pipeline.portal.title} has not been given")
    return entry


def withdraw(block: ScheduleBlock) -> None:
    """The portal has been given everything: what waited is no longer wanted."""
    lake.withdraw_others(block.pipeline.slug, Layer.BACKUP, block.starts_at, [])


def write_csv(path: Path, chunks: Iterable[tuple[int, list[dict[str, Any]]]], names: list[str]) -> tuple[int, int]:
    """Write chunks of rows as a CSV file with a header; returns how many rows, and the highest sequence number."""
    number = seq = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv_dialects.writer(file)
        writer.writerow(names)
        for upto, rows in chunks:
            writer.writerows([cell(row.get(name)) for name in names] for row in rows)
            number, seq = number + len(rows), max(seq, upto)
    return number, seq


def cell(value: Any) -> Any:
    """A value as a CSV file holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
