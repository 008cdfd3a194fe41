"""Table files: the readers of csv, json, geojson and xlsx for a block, the dictionary that follows from a configuration, and what drifted.

A pipeline whose options have `attributes` is read by them, whatever else its files hold. What they hold and nobody configured is told once
on the dataset's timeline; what is configured and not there stops the block, and is told too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from catalog.models import DatasetColumn, DatasetEvent
from pipelines import clock
from pipelines.connectors.base import Column
from pipelines.errors import SetupError
from pipelines.formats import custom
from pipelines.formats.attributes import parse
from pipelines.formats.csv_table import CsvTable
from pipelines.formats.custom_table import CustomTable
from pipelines.formats.geojson import GeoJson
from pipelines.formats.json_table import JsonTable
from pipelines.formats.table_reader import TableReader, Terms
from pipelines.formats.xlsx import Xlsx
from pipelines.models import Pipeline, Run, ScheduleBlock
from pipelines.stages.columns import describe_columns
from pipelines.stages.note import Note

#: How raw files are read → by whom.
FORMATS: dict[str, type[TableReader]] = {"csv": CsvTable, "json": JsonTable, "geojson": GeoJson, "xlsx": Xlsx}
#: So many names are told in a sentence; all are in the event.
MOST_NAMES = 12


def reader(block: ScheduleBlock, helpers: Callable[[str], Iterator[Path]]) -> TableReader:
    """Who reads the files of a block. Raises SetupError for attributes, options or a custom reader that nobody knows."""
    pipeline = block.pipeline
    terms = terms_of(pipeline)
    if name := pipeline.options.get("custom_reader"):
        return CustomTable(terms, custom.find(name, pipeline.title), helpers)
    kind = FORMATS["geojson"] if pipeline.format == "json" and pipeline.options.get("is_geojson") else FORMATS[pipeline.format]
    return kind(terms)


def terms_of(pipeline: Pipeline) -> Terms:
    """What the pipeline's reader is told. Raises SetupError."""
    options = pipeline.options
    try:
        zone = clock.zone(options.get("epoch_zone") or pipeline.time_zone)
    except ValueError as error:
        raise SetupError(f"The epoch_zone of {pipeline.title}: {error}", code="bad-zone", next_step="Change it in the pipeline's options.") from error
    return Terms(
        attributes=parse(options, pipeline.title),
        key=tuple(pipeline.key),
        zone=zone,
        options=options,
        title=pipeline.title,
    )


def describe(pipeline: Pipeline, made: TableReader, note: Note) -> None:
    """Keep the dictionary in step with the attributes: their types are the configuration's, a person's words stay.

    What a person configured is to be published: it waits for no second word, as a column that a source brings by itself does.
    """
    new = {one.name for one in made.attributes} - {column.name for column in pipeline.dictionary()}
    columns = tuple(Column(one.name, one.kind, portal_type=one.type) for one in made.attributes)
    describe_columns(pipeline, columns, note)
    if new:
        DatasetColumn.objects.filter(dataset=pipeline.dataset, part=pipeline.part, name__in=new).update(is_published=True)


def tell_drift(run: Run, note: Note, missing: Sequence[str], extra: Sequence[str]) -> dict[str, list[str]]:
    """Tell, once, how the files differ from the configuration; returns it for the run's details."""
    pipeline = run.block.pipeline
    drift = {"missing": list(missing), "extra": list(extra)}
    told = DatasetEvent.objects.filter(dataset=pipeline.dataset_id, kind=DatasetEvent.Kind.COLUMNS, source=pipeline.slug, details__has_key="drift")
    last = told.first()
    if drift != (last.details["drift"] if last else {"missing": [], "extra": []}):
        text = _words(drift) or "The data have the configured columns again, and no others."
        DatasetEvent.objects.create(
            dataset_id=pipeline.dataset_id,
            kind=DatasetEvent.Kind.COLUMNS,
            source=pipeline.slug,
            text=text,
            # what was accepted of a source that names its columns itself stays accepted
            details={"drift": drift, "columns": pipeline.accepted_columns},
            run_id=run.pk,
        )
    if extra and not missing:
        note.warn(_words(drift))
    return drift


def _words(drift: dict[str, list[str]]) -> str:
    words = [f"{name} is in the configuration, but not in the data." for name in drift["missing"]]
    if extra := drift["extra"]:
        more = f" and {len(extra) - MOST_NAMES:,} more" if len(extra) > MOST_NAMES else ""
        words.append(f"In the data, and not in the configuration: {', '.join(extra[:MOST_NAMES])}{more}.")
    return " ".join(words)
