"""Offer: what a pipeline shows the public, its rows as its release makes them; and the key of the public ids, made once and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from secrets import token_hex
from types import ModuleType

from django.db import transaction

from catalog.models import Dataset
from pipelines import secrets, warehouse
from pipelines.connectors.base import Column
from pipelines.errors import SetupError
from pipelines.models import Pipeline, ScheduleBlock
from pipelines.stages.load import warehouse_of
from pipelines.stages.release import LOADED_AT, Release, Row, compiled, problems, steps_of
from pipelines.warehouse.tables import Scope


@dataclass(frozen=True)
class Offer:
    """The rows of a pipeline's table as the public gets them: read here by the publish stage, and by a reconciliation.

    Without a `release` the `columns` are the table's, as they are.
    """

    pipeline: Pipeline
    release: Release | None
    columns: tuple[Column, ...]
    dsn: str

    @property
    def engine(self) -> ModuleType:
        return warehouse.engine(self.dsn)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row on the portal."""
        return self.release.key if self.release else tuple(self.pipeline.key)

    @property
    def k(self) -> int:
        """The smallest group whose area is told; 0 where all are."""
        return self.pipeline.release_k if self.release and self.release.areas else 0

    def public(self, scope: Scope) -> Scope:
        """The rows of a scope that are published."""
        return replace(scope, only=self.release.only) if self.release else scope

    def withheld(self, scope: Scope) -> Scope | None:
        """The rows of a scope that are not; None where all are."""
        return replace(scope, only=replace(self.release.only, is_not=True)) if self.release and self.release.only else None

    def count(self, scope: Scope, *, after: int = 0) -> int:
        """How many rows of the scope are published, of those written after `after`."""
        return self.engine.count(self.dsn, self.pipeline.table, self.public(scope), after=after)

    def chunks(self, scope: Scope, after: int, *, run_id: int = 0, blanked: Counter[str] | None = None) -> Iterator[tuple[int, list[Row]]]:
        """(last sequence number, rows as the public gets them) in chunks; `blanked` counts the cells that the smallest group blanks, by column."""
        if self.release is None:
            yield from self._read(self.columns, scope, after, run_id)
            return
        for part in self._groups(scope):
            yield from self._released(part, after, run_id, Counter() if blanked is None else blanked)

    def _groups(self, scope: Scope) -> Iterator[Scope]:
        """The scope in the parts within which areas are counted: of a pipeline with windows, its blocks."""
        if not self.k or self.pipeline.is_snapshot or scope.block_id is not None:
            yield scope
            return
        same = {"pipeline__table": self.pipeline.table, "pipeline__warehouse": self.pipeline.warehouse}
        for block_id in ScheduleBlock.objects.filter(**same).order_by("pk").values_list("pk", flat=True).iterator(chunk_size=5_000):
            yield Scope(block_id=block_id)

    def _released(self, scope: Scope, after: int, run_id: int, blanked: Counter[str]) -> Iterator[tuple[int, list[Row]]]:
        too_few = self._too_few(scope, run_id)
        for seq, rows in self._read(self.release.reads, self.public(scope), after, run_id):
            made = [self.release.row(row) for row in rows]
            for name, values in too_few.items():
                for row in made:
                    if row[name] in values:
                        row[name] = None
                        blanked[name] += 1
            yield seq, made

    def _too_few(self, scope: Scope, run_id: int) -> dict[str, set[str]]:
        """Column to the areas that fewer rows than the smallest group have: counted in all rows of the scope, whichever are sent."""
        if not self.k:
            return {}
        areas = self.release.part(self.release.areas)
        counts: dict[str, Counter[str]] = {column.name: Counter() for column in areas.columns}
        for _, rows in self._read(areas.reads, self.public(scope), 0, run_id):
            for row in rows:
                for name, value in areas.row(row).items():
                    counts[name][value] += 1
        return {name: {value for value, rows in found.items() if value is not None and rows < self.k} for name, found in counts.items()}

    def _read(self, columns: tuple[Column, ...], scope: Scope, after: int, run_id: int) -> Iterator[tuple[int, list[Row]]]:
        pipeline = self.pipeline
        return self.engine.rows_after(self.dsn, pipeline.table, columns, scope, after=after, chunk=pipeline.publish_chunk, run_id=run_id)

    def withheld_keys(self, scope: Scope, after: int, *, run_id: int = 0) -> Iterator[tuple[int, list[Row]]]:
        """The portal's keys of the rows that are not published, in chunks like those of `chunks`."""
        if hidden := self.withheld(scope):
            for seq, rows in self._read(self.key_columns, hidden, after, run_id):
                yield seq, [self.key_of(row) for row in rows]

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """What is to be read of a row to know its key on the portal."""
        if self.release is None:
            return tuple(column for column in self.columns if column.name in self.pipeline.key)
        return self.release.keys.reads

    def key_of(self, row: Row) -> Row:
        """The key on the portal of a row, told by its key in the table."""
        return self.release.keys.row(row) if self.release else {name: row[name] for name in self.pipeline.key}

    def guard_portal(self, there: Iterable[Column]) -> None:
        """Raise SetupError if the portal's dataset has a column that is private here: whoever filled it once may fill it again."""
        private = {name.lower() for name in self.pipeline.private_columns} - {column.name.lower() for column in self.columns}
        if forbidden := [column.name for column in there if column.name.lower() in private]:
            raise SetupError(
                f"The portal dataset {self.pipeline.portal_resource} has a column {forbidden[0]}, which is private and must never leave.",
                code="private-column",
                next_step=f"Delete the column {forbidden[0]} of {self.pipeline.portal_resource} on the portal, with its values.",
            )


def offer(pipeline: Pipeline, *, secret: str | None = None) -> Offer:
    """What the pipeline shows the public. Raises SetupError for a release that is wrong, or that would let a private column out.

    Without rules: the columns of the table that the dictionary does not keep inside. `secret` makes the public ids; None: the
    pipeline's own, which is made if there is none yet.
    """
    dsn = warehouse_of(pipeline)
    have = warehouse.engine(dsn).column_types(dsn, pipeline.table)
    if not pipeline.release:
        columns = _as_they_are(pipeline, list(have))
        if leaving := [column.name for column in columns if column.name in pipeline.private_columns]:
            raise _private(f"The private column {leaving[0]} would be published as it is.", leaving[0])
        return Offer(pipeline, None, columns, dsn)
    for words in problems(pipeline):
        leak = next((name for name in pipeline.private_columns if f"private column {name}:" in words), "")
        raise _private(words, leak) if leak else SetupError(words, code="release-wrong", next_step="Correct the pipeline's release in the admin.")
    if not have:
        return Offer(pipeline, None, (), dsn)
    names = [step["rule"] for entry in pipeline.release if "only" not in entry for step in steps_of(entry)]
    if secret is None:
        secret = surrogate_key(pipeline) if "surrogate" in names else ""
    made = compiled(pipeline.release, {**have, LOADED_AT: "instant"}, key=pipeline.key, secret=secret)
    return Offer(pipeline, made, made.columns, dsn)


def public_columns(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns that leave; () before the first load. Writes nothing, so it may be asked where no id is made. Raises SetupError."""
    return offer(pipeline, secret="").columns


def _private(words: str, column: str) -> SetupError:
    return SetupError(
        words,
        code="private-column",
        next_step=f"Give the pipeline a release that hides {column}, or leave it out of what is published. Nothing was sent.",
    )


def _as_they_are(pipeline: Pipeline, have: list[str]) -> tuple[Column, ...]:
    told = {column.name: column for column in pipeline.dictionary()}
    # a column that nobody described is withheld: better a gap than a leak
    shown = [told[name] for name in have if name in told and told[name].is_published]
    columns = tuple(Column(one.name, one.type, one.label, one.description, one.portal_type) for one in shown)
    withheld = [name for name in pipeline.key if name not in {column.name for column in columns}]
    if have and withheld:
        raise SetupError(
            f"The key {', '.join(withheld)} is not to be published, and without it the portal can't tell rows apart.",
            code="key-withheld",
            next_step="Publish the key column, or drop the publish stage.",
        )
    return columns


def surrogate_key(pipeline: Pipeline) -> str:
    """The key that makes the pipeline's public ids; made when it is first needed, and never changed after.

    All pipelines of a dataset share one: a vehicle that comes by two feeds is one vehicle for the public. So a pipeline without
    a key takes that of the dataset's oldest pipeline that has one. A pipeline that is moved to another dataset keeps its own,
    for with another its rows would stand on the portal twice. Raises SetupError where the key can't be opened.
    """
    if not pipeline.surrogate_key:
        with transaction.atomic():
            # two blocks of the dataset may need it at the same moment; one makes it
            Dataset.objects.select_for_update(no_key=True).get(pk=pipeline.dataset_id)
            mates = Pipeline.objects.filter(dataset=pipeline.dataset_id).exclude(surrogate_key="").order_by("pk")
            own = mates.filter(pk=pipeline.pk).values_list("surrogate_key", flat=True).first()
            sealed = own or mates.values_list("surrogate_key", flat=True).first() or secrets.seal(token_hex(32))
            Pipeline.objects.filter(pk=pipeline.pk).update(surrogate_key=sealed)
        pipeline.surrogate_key = sealed
    try:
        return secrets.reveal(pipeline.surrogate_key)
    except SetupError as error:
        raise SetupError(
            f"The key of the public ids of {pipeline.slug} can't be opened: {error.message}", code=error.code, next_step=error.next_step
        ) from error
