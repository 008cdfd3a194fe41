"""A source's columns: what changed about them, which of them to take, and the dataset's dictionary kept in step with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from catalog import audit
from catalog.audit import Actor
from catalog.models import DatasetColumn, DatasetEvent
from pipelines import blocks
from pipelines.blocks import Verdict
from pipelines.connectors.base import Column, SourceState
from pipelines.errors import DataError, SetupError
from pipelines.models import Drift, Pipeline, ScheduleBlock, State, Trigger
from pipelines.stages.note import Note

CHANGED = "columns-changed"
#: Of what a source says of a column's values: longer than this is no example any more.
MOST_EXAMPLES, LONGEST_EXAMPLE = 20, 200


# what changed


@dataclass(frozen=True)
class Changes:
    """How the columns of a source differ from those accepted: names with types; of a retyped one its old type and its new one."""

    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self):
        return bool(self.added or self.removed or self.retyped)

    def __str__(self):
        """Each change in words, without the full stop."""
        return "; ".join(
            [
                *(f"{name} ({kind}) is new" for name, kind in self.added),
                *(f"{name} ({kind}) is gone" for name, kind in self.removed),
                *(f"{name} was {old} and is {new} now" for name, old, new in self.retyped),
            ]
        )

    def details(self) -> dict[str, list]:
        return {name: [list(one) for one in getattr(self, name)] for name in ("added", "removed", "retyped")}


def compare(accepted: Sequence[Sequence[str]], now: Sequence[Sequence[str]]) -> Changes:
    """Two lists of (name, type). Their order is no change. Pure."""
    before, after = dict(map(tuple, accepted)), dict(map(tuple, now))
    return Changes(
        added=tuple((name, kind) for name, kind in after.items() if name not in before),
        removed=tuple((name, kind) for name, kind in before.items() if name not in after),
        retyped=tuple((name, before[name], kind) for name, kind in after.items() if before.get(name, kind) != kind),
    )


def notice_columns(state: SourceState, pipeline: Pipeline, note: Note) -> dict[str, list]:
    """Compare the source's columns with those accepted, before anything is fetched; returns what changed, for the run's details.

    The first reading accepts what there is. A change is told once on the dataset's timeline. Raises SetupError(CHANGED) where
    the pipeline wants a person to accept it first, and DataError when a column is gone without which nothing can be read.
    """
    now = [[column.name, column.type] for column in state.columns]
    with transaction.atomic():
        # the row's lock: of two blocks that see the same change at once, one tells it
        accepted = Pipeline.objects.select_for_update(no_key=True).get(pk=pipeline.pk).accepted_columns
        changes = compare(accepted, now) if accepted else Changes()
        waits = bool(changes) and (pipeline.drift == Drift.STOP or bool(needed_but_gone(pipeline, now)))
        last = _last_told(pipeline)
        if changes and (last is None or last.details.get("columns") != now):
            _tell(pipeline, f"The source’s columns changed: {changes}.", note.run.pk, columns=now, **changes.details())
        elif accepted and not changes and last and compare(accepted, last.details.get("columns", [])):
            _tell(pipeline, "The source’s columns are again those that were accepted.", note.run.pk, columns=now)
        if not waits and accepted != now:
            Pipeline.objects.filter(pk=pipeline.pk).update(accepted_columns=now)
            pipeline.accepted_columns = now
    if not changes:
        return {}
    _stop_if_gone(pipeline, now)
    if waits:
        raise SetupError(
            f"The source’s columns changed: {changes}. Nothing was fetched.",
            code=CHANGED,
            next_step=f"Look at the changes and accept them: the button “Accept the columns”, or python3 manage.py accept {pipeline.slug} --columns",
        )
    _warn(changes, note)
    return changes.details()


def _warn(changes: Changes, note: Note) -> None:
    if changes.added:
        names = ", ".join(name for name, _ in changes.added)
        note.warn(f"New columns at the source: {names}. They are loaded, and not published before a steward says so.")
    if changes.removed:
        note.warn(f"Columns that the source no longer gives: {', '.join(name for name, _ in changes.removed)}.")
    for name, old, new in changes.retyped:
        note.warn(f"{name} was {old} and is {new} now.")


def _tell(pipeline: Pipeline, text: str, run_id: int, **details: Any) -> None:
    DatasetEvent.objects.create(
        dataset_id=pipeline.dataset_id, kind=DatasetEvent.Kind.COLUMNS, source=pipeline.slug, text=text, details=details, run_id=run_id
    )


def _last_told(pipeline: Pipeline) -> DatasetEvent | None:
    return DatasetEvent.objects.filter(dataset=pipeline.dataset_id, kind=DatasetEvent.Kind.COLUMNS, source=pipeline.slug).first()


def unaccepted(pipeline: Pipeline) -> DatasetEvent | None:
    """The change of columns that waits for a person; None where nothing waits. One query."""
    last = _last_told(pipeline)
    return last if last and compare(pipeline.accepted_columns, last.details.get("columns", [])) else None


def may_retype(pipeline: Pipeline) -> bool:
    """Whether a column of the table may become text for the source's new type: the pipeline says so, or a person accepted the change."""
    if pipeline.drift == Drift.WIDEN:
        return True
    accepted = dict(map(tuple, pipeline.accepted_columns))
    told = DatasetEvent.objects.filter(dataset=pipeline.dataset_id, kind=DatasetEvent.Kind.COLUMNS, source=pipeline.slug)
    return any(accepted.get(name) == new for event in told for name, _, new in event.details.get("retyped", []))


# the verb


@dataclass(frozen=True)
class Accepted(Verdict):
    """The answer to `accept`; `block_id` is the pipeline's number, and `again` are the blocks that run again."""

    again: tuple[int, ...] = ()


@transaction.atomic
def accept(pipeline: Pipeline, *, actor: Actor, reason: str = "", seen_event: int | None = None, trigger: str = Trigger.BUTTON) -> Accepted:
    """Take the source's columns as they were last told, and run again what they had stopped; of a snapshot its newest block.

    `seen_event` is the change that the page showed: one that came since is refused instead of accepted unseen.
    """
    pipeline = Pipeline.objects.select_for_update(no_key=True, of=("self",)).select_related("dataset").get(pk=pipeline.pk)
    told = unaccepted(pipeline)
    if told is None:
        return _answer(pipeline, actor, reason, False, "There is nothing to accept: the source’s columns are those that were accepted.")
    if seen_event is not None and told.pk != seen_event:
        return _answer(pipeline, actor, reason, False, "The columns changed again since you looked. Look again before you press.")
    if gone := needed_but_gone(pipeline, told.details["columns"]):
        return _answer(pipeline, actor, reason, False, f"Without {', '.join(gone)} it can't be read: change the pipeline, or ask the provider.")
    changes = compare(pipeline.accepted_columns, told.details["columns"])
    Pipeline.objects.filter(pk=pipeline.pk).update(accepted_columns=told.details["columns"])
    stopped = ScheduleBlock.objects.filter(pipeline=pipeline, state=State.FAILED, error_code=CHANGED, superseded_at=None)
    ids = stopped.order_by("-starts_at").values_list("pk", flat=True)
    again = [
        blocks.requeue(pk, actor=actor, reason=reason or "columns accepted", trigger=trigger).block_id
        for pk in (ids[:1] if pipeline.is_snapshot else ids)
    ]
    words = f" {len(again):,} block{'s run' if len(again) != 1 else ' runs'} again." if again else ""
    return _answer(pipeline, actor, reason, True, f"Accepted: {changes}.{words}", tuple(again), **changes.details())


def _answer(pipeline: Pipeline, actor: Actor, reason: str, moved: bool, text: str, again: tuple[int, ...] = (), **details: list) -> Accepted:
    result = text if moved else f"refused: {text}"
    audit.write(actor, "accept", kind="pipeline", target=pipeline.slug, reason=reason, result=result, **details)
    return Accepted(moved, text, pipeline.pk, again)


# which to take


def _needed(pipeline: Pipeline) -> list[str]:
    """The columns without which nothing can be read: those that a pipeline can't do without, whatever becomes of the others."""
    single = [pipeline.window_column, pipeline.version_column, pipeline.watermark_column]
    # a source's own clock (`:updated_at`) is no column of the dataset
    return list(dict.fromkeys([*pipeline.key, *(name for name in single if name and not name.startswith(":"))]))


def needed_but_gone(pipeline: Pipeline, now: Sequence[Sequence[str]]) -> list[str]:
    """The columns that the pipeline can't do without and that are not among these (name, type)."""
    there = {name for name, _ in now}
    return [name for name in _needed(pipeline) if name not in there]


def _stop_if_gone(pipeline: Pipeline, now: Sequence[Sequence[str]], also: Sequence[str] = ()) -> None:
    """Raise DataError where the source has not what the pipeline needs."""
    if gone := [*also, *(name for name in needed_but_gone(pipeline, now) if name not in also)]:
        raise DataError(
            f"The source no longer has {', '.join(gone)}; it has {', '.join(name for name, _ in now)}.",
            code="columns-gone",
            next_step="Change the pipeline's columns or key, or ask the provider.",
        )


def wanted(state: SourceState, pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns to take, in the pipeline's order, with its own types where it names them.

    One that the pipeline names and the source used to have is left out; `describe_columns` says so. Raises DataError for one
    that is gone and needed, or that nobody ever saw.
    """
    told = {column.name: column for column in state.columns}
    names = pipeline.columns or list(told)
    missing = [name for name in names if name not in told]
    seen = {column.name for column in pipeline.dictionary() if column.seen_at and column.name in missing} if missing else set()
    now = [[column.name, column.type] for column in state.columns]
    _stop_if_gone(pipeline, now, also=[name for name in missing if name not in seen or not set(names) & set(told)])
    left_out = [name for name in pipeline.key if name not in names]
    if left_out:
        raise SetupError(
            f"The key {', '.join(left_out)} is not among the columns to take.", code="key-not-taken", next_step="Add it to the pipeline's columns."
        )
    return tuple(replace(told[name], type=pipeline.types.get(name, told[name].type)) for name in names if name in told)


# the dictionary


def describe_columns(pipeline: Pipeline, columns: tuple[Column, ...], note: Note, stats: Mapping[str, Any] | None = None) -> None:
    """Keep the dictionary in step with the source: new columns are told and stay inside until a steward lets them out; a steward's words stay.

    `stats` is what the source says of the values of its columns, by name.
    """
    known = {column.name: column for column in pipeline.dictionary()}
    taken = {column.name for column in columns}
    if missing := [name for name in pipeline.columns if name not in taken]:
        note.warn(f"The pipeline names {', '.join(missing)}, which the source no longer has. The rest is read.")
    if new := [column for column in columns if column.name not in known]:
        lines = [
            DatasetColumn(
                dataset=pipeline.dataset, part=pipeline.part, position=position, name=column.name, type=column.type, is_published=not known,
                portal_type=column.portal_type, label=column.label[:200], description=column.description,
                told=_short((stats or {}).get(column.name) or {}),
            )
            for position, column in enumerate(columns) if column in new
        ]  # fmt: skip
        # another block of the pipeline may be writing the same dictionary now
        DatasetColumn.objects.bulk_create(lines, ignore_conflicts=True)
        known = {column.name: column for column in pipeline.dictionary()}
    for position, column in enumerate(columns):
        old = known[column.name]
        words = {"label": old.label or column.label[:200], "description": old.description or column.description}
        if stats is not None:
            words["told"] = _short(stats.get(column.name) or {})
        now = {"position": position, "type": column.type, **words, **({"portal_type": column.portal_type} if column.portal_type else {})}
        if changed := {name: value for name, value in now.items() if getattr(old, name) != value}:
            # by name: what a steward writes meanwhile into the other fields must not be undone
            DatasetColumn.objects.filter(pk=old.pk).update(**changed)
    pipeline.dataset.columns.filter(part=pipeline.part, name__in=taken).update(seen_at=Now())


def _short(value: Any) -> Any:
    """A source's own words as they may be stored: no endless lists or texts, and no NUL, which the database refuses."""
    if isinstance(value, Mapping):
        return {str(name): _short(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_short(inner) for inner in value[:MOST_EXAMPLES]]
    return value.replace("\x00", "")[:LONGEST_EXAMPLE] if isinstance(value, str) else value
