"""A source's columns: which of them to take, and the dataset's dictionary kept in step with them."""

from __future__ import annotations

from dataclasses import replace

from django.db.models.functions import Now

from catalog.models import DatasetColumn
from pipelines.connectors.base import Column, SourceState
from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline
from pipelines.stages.note import Note


def wanted(state: SourceState, pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns to take, in the pipeline's order, with its own types where it names them. Raises DataError for one that is gone."""
    told = {column.name: column for column in state.columns}
    names = pipeline.columns or list(told)
    needed = [*names, *pipeline.key, *filter(None, [pipeline.window_column, pipeline.version_column])]
    gone = [name for name in dict.fromkeys(needed) if name not in told]
    if gone:
        raise DataError(
            f"The source no longer has {', '.join(gone)}; it has {', '.join(told)}.",
            code="columns-gone",
            next_step="Change the pipeline's columns or key, or ask the provider.",
        )
    left_out = [name for name in pipeline.key if name not in names]
    if left_out:
        raise SetupError(
            f"The key {', '.join(left_out)} is not among the columns to take.", code="key-not-taken", next_step="Add it to the pipeline's columns."
        )
    return tuple(replace(told[name], type=pipeline.types.get(name, told[name].type)) for name in names)


def describe_columns(pipeline: Pipeline, columns: tuple[Column, ...], note: Note) -> None:
    """Keep the dictionary in step with the source: new columns are told and stay inside until a steward lets them out; a steward's words stay."""
    known = {column.name: column for column in pipeline.dataset.columns.all()}
    fresh = [column.name for column in columns if column.name not in known]
    if known and fresh:
        note.warn(f"New columns at the source: {', '.join(fresh)}. They are loaded, and not published before a steward says so.")
    missing = sorted(set(known) - {column.name for column in columns}) if not pipeline.columns else []
    if missing:
        note.warn(f"Columns that the source no longer gives: {', '.join(missing)}.")
    for position, column in enumerate(columns):
        old = known.get(column.name)
        if old is None:
            # not only once: another block of the pipeline may be writing the same dictionary now
            first = {"label": column.label[:200], "description": column.description, "is_published": not known}
            old, _ = DatasetColumn.objects.get_or_create(dataset=pipeline.dataset, name=column.name, defaults=first)
        elif old.type != column.type:
            note.warn(f"{column.name} was {old.type} and is {column.type} now.")
        words = {"label": old.label or column.label[:200], "description": old.description or column.description}
        # by name: what a steward writes meanwhile into the other fields must not be undone
        DatasetColumn.objects.filter(pk=old.pk).update(position=position, type=column.type, seen_at=Now(), **words)
