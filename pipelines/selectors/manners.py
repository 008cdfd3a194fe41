"""How a pipeline reads, what it does with rows that are gone and columns that change, and how it publishes: in sentences, for people.

Pure but for the pipeline's own fields; what the fields mean is decided in stages/extract.py, load.py and publish.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines import clock
from pipelines.models import Drift, Gone, LoadMode, Pipeline, PortalMode, Stage
from pipelines.selectors.chain import moment_words


@dataclass(frozen=True)
class Manners:
    """Every answer, for a page."""

    reading: list[str]
    volume: str
    changed_columns: str
    loading: str
    gone_rows: str
    publishing: str


def of(pipeline: Pipeline, now: datetime) -> Manners:
    return Manners(
        reading=reading(pipeline, now),
        volume=volume(pipeline),
        changed_columns=changed_columns(pipeline),
        loading=loading(pipeline),
        gone_rows=gone_rows(pipeline),
        publishing=publishing(pipeline),
    )


def reads_in_short(pipeline: Pipeline) -> str:
    """For the head of a page, to stand behind its rhythm: ", only what changed since the last time"; "" where windows say it all."""
    if not pipeline.is_snapshot:
        return ""
    return ", only what changed since the last load" if pipeline.watermark_column else ", the whole source each time"


def reading(pipeline: Pipeline, now: datetime) -> list[str]:
    """What a block asks of its source, and when all keys are compared."""
    if not pipeline.is_snapshot:
        return [f"Each block reads the rows whose {pipeline.window_column} lies in its span."]
    if not pipeline.watermark_column:
        return ["Each block reads the whole source, and only the newest block is worth running."]
    return [*_since(pipeline), *_comparison(pipeline, now)]


def _since(pipeline: Pipeline) -> list[str]:
    column = pipeline.watermark_column
    name = "the time at which the source changed it" if column == ":updated_at" else column
    overlap = f"less an overlap of {_span(pipeline.overlap_minutes)}, " if pipeline.overlap_minutes else ""
    later = f"rows whose {name} is at or after the newest that was loaded, {overlap}and those that have none"
    if pipeline.watermark:
        return [f"Each block reads the {later}.", f"Loaded so far: up to {moment_words(pipeline.watermark)}."]
    first = f"rows at or after {moment_words(pipeline.since)}, and those that have none" if pipeline.since else "all rows"
    return [f"Nothing was loaded by watermark yet: the first block reads {first}.", f"Each later block reads the {later}."]


def _comparison(pipeline: Pipeline, now: datetime) -> list[str]:
    what = "All keys are compared with the source’s" if pipeline.key else "Without a key, the whole source is read again"
    if not pipeline.compare_days:
        return ["The keys are never compared: rows deleted at the source are only found where a block is forced or the pipeline initialized."]
    zone = clock.zone(pipeline.time_zone)
    every = "every day" if pipeline.compare_days == 1 else f"every {pipeline.compare_days} days"
    if pipeline.compared_at is None:
        return [f"{what} {every}, to find deleted rows; the first time with the next block."]
    due = pipeline.compared_at + timedelta(days=pipeline.compare_days)
    after = "with the next block" if due <= now else f"with the first block after {_day(due.astimezone(zone))}"
    return [f"{what} {every}, to find deleted rows: last {_day(pipeline.compared_at.astimezone(zone))}, next {after}."]


def loading(pipeline: Pipeline) -> str:
    """How rows are put into the table."""
    if pipeline.load_mode == LoadMode.APPEND:
        return "Rows are only added; a re-run replaces what its own block had added."
    if pipeline.key:
        return "New and changed rows are inserted and updated by key; equal ones are left alone."
    return "Rows are compared whole: those that differ are exchanged, equal ones left alone, and twins stay twins."


def gone_rows(pipeline: Pipeline) -> str:
    """What becomes of rows that the source no longer has."""
    there = f", and from {pipeline.portal.title}" if _publishes(pipeline) else ""
    if pipeline.load_mode == LoadMode.APPEND:
        return "Rows are only added; what is gone at the source stays."
    if not pipeline.key:
        read = "what was read again" if pipeline.watermark_column else "the block" if not pipeline.is_snapshot else "the pipeline"
        return f"Without a key, the rows of {read} become those of the source: what is gone there is deleted here{there}."
    if pipeline.gone_rows == Gone.DELETE:
        brake = " A reading that lost more than half of them deletes nothing before a person forces it." if pipeline.is_snapshot else ""
        return f"They are deleted from the table{there}.{brake}"
    return "They are kept, and counted in the block’s story." if pipeline.is_snapshot else "They are kept, and not looked for."


def changed_columns(pipeline: Pipeline) -> str:
    """What becomes of a load whose source has other columns than before."""
    if pipeline.drift == Drift.STOP:
        return "Nothing is read until a person accepts them."
    return "The table is widened and the load goes on: a new column is added, one of another type becomes text. The dataset’s timeline tells it."


def volume(pipeline: Pipeline) -> str:
    return "A block with an unusual number of rows is called suspicious." if pipeline.watch_volume else "It is not watched."


def publishing(pipeline: Pipeline) -> str:
    """How the portal is given the rows; "" where there is none."""
    if not _publishes(pipeline):
        return ""
    portal = pipeline.portal.connector_class
    if portal.publishes_whole:
        return "The whole table is written anew each time."
    if pipeline.portal_mode == PortalMode.REPLACE and portal.can_replace:
        return "All rows are replaced at once whenever something changed; readers see the old ones or the new ones."
    words = "Rows that are new or changed are inserted and updated by key"
    if pipeline.gone_rows == Gone.DELETE and pipeline.key:
        words += "; deleted ones are deleted there" if portal.can_delete else "; deleted ones stay there, for this portal can’t delete single rows"
    return f"{words}."


def _publishes(pipeline: Pipeline) -> bool:
    return Stage.PUBLISH in pipeline.stages and pipeline.portal_id is not None


def _span(minutes: int) -> str:
    length, word = next((length, word) for length, word in ((1440, "day"), (60, "hour"), (1, "minute")) if minutes % length == 0)
    number = minutes // length
    return f"{number:,} {word}{'s' * (number != 1)}"


def _day(moment: datetime) -> str:
    return f"{moment:%b} {moment.day} {moment.year}, {moment:%H:%M}"
