"""Ready: the enrich of sensors. Lake, standard + the inventory → lake, ready: documents with their devices, and the rows that are loaded.

A camera's clock may be off, so that its file of a day begins or ends in another: such an intersection's day is whole only with
the neighbour's file. Where that has not come, the intersection is held back and told, and the others go on. When it comes, or
comes again with other vehicles, the neighbour's enrich asks for this one again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from catalog import audit, inventory
from catalog.models import CatalogEntry, Layer
from pipelines import blocks
from pipelines.blocks import Outcome
from pipelines.errors import TransientError
from pipelines.faults import faultpoint
from pipelines.formats.sensors import SensorFormat, Standard
from pipelines.models import Run, RunState, ScheduleBlock, Stage, State, Trigger
from pipelines.stages import documents
from pipelines.stages.documents import Desk
from pipelines.stages.load import DOCUMENT, MATCHED, entries_of
from pipelines.stages.note import Note
from pipelines.stages.refusals import is_suspicious

#: The day before and the day after, as they are told and as the pipeline's options let them be done without.
NEIGHBOURS = {-1: ("the day before", "ignore_previous"), 1: ("the day after", "ignore_next")}


@dataclass
class Group:
    """What is made ready together: all of Bluetooth or radar, or one intersection.

    `lacks` are the neighbour days that have not come and are waited for, `without` those that are not waited for.
    """

    base: str
    own: list[CatalogEntry]
    helpers: list[CatalogEntry] = field(default_factory=list)
    neighbours: list[tuple[int, CatalogEntry]] = field(default_factory=list)
    lacks: list[int] = field(default_factory=list)
    without: list[int] = field(default_factory=list)

    @property
    def inputs(self) -> list[CatalogEntry]:
        return [*self.own, *self.helpers, *(entry for _, entry in self.neighbours)]

    @property
    def rows(self) -> int:
        """The rows of the day's own documents."""
        return sum(entry.rows or 0 for entry in self.own)

    @property
    def lacks_words(self) -> str:
        return f"{self.base} lacks {' and '.join(NEIGHBOURS[days][0] for days in self.lacks)}"


def ready(run: Run, note: Note) -> Outcome:
    """Join the block's documents with the inventory. Raises PipelineError; SetupError "no-inventory" where no edition is dated after the day.

    rows_in are the rows that were read, those of neighbour days among them; `taken` in the details are the day's own, with those held back.
    """
    block = run.block
    pipeline = block.pipeline
    _wake_neighbours(block, note)
    edition = inventory.edition_for(pipeline.inventory, block.ends_at.astimezone(documents.zone_of(block)))
    groups = list(_groups(block))
    going = [group for group in groups if not group.lacks]
    held = [group for group in groups if group.lacks]
    desk = Desk(run, note, Layer.READY, [entry for group in going for entry in group.inputs], edition)
    if pipeline.enrichments.exists():
        note.warn("The pipeline's areas are not looked up: sensors are joined with their inventory, which has places of its own.")
    note.log(f"The inventory {edition.code} of {desk.inventory['date']}: {len(edition.units):,} units, sha256 {edition.sha256[:12]}")
    tally = desk.tally
    total = sum(group.rows for group in going)
    note.progress(0, total)
    for group in going:
        faultpoint("ready.group")
        _make(desk, group, edition.units)
        note.progress(min(tally.rows_in, total), total)
    _refuse_stale(block, held)
    details = desk.close()
    for group in held:
        note.warn(f"{group.lacks_words}: its clock is off, so its day is not whole. {group.rows:,} rows are held back.")
    return Outcome(
        desk.counts(),
        message=_words(desk, groups, held),
        mark=ScheduleBlock.Mark.SUSPICIOUS if held or is_suspicious(tally) else ScheduleBlock.Mark.NONE,
        details={
            **details,
            "held": [{"base": group.base, "days": group.lacks, "rows": group.rows} for group in held],
            "without": [{"base": group.base, "days": group.without} for group in going if group.without],
            "taken": sum(group.rows for group in groups),
        },
    )


def _words(desk: Desk, groups: Sequence[Group], held: Sequence[Group]) -> str:
    if not groups:
        return "The lake has no standard documents for this window."
    words = desk.refusals.words(desk.tally).replace("other blocks", "other days or to zones that are not counted")
    if not held:
        return words
    names = "; ".join(group.lacks_words for group in held[:5]) + f" and {len(held) - 5} more" * (len(held) > 5)
    return f"{words}. {sum(group.rows for group in held):,} rows held back until a neighbour day comes: {names}."


def _groups(block: ScheduleBlock) -> Iterator[Group]:
    """The block's standard documents by base, each with what it needs."""
    found = entries_of(block, [Layer.STANDARD])
    reader = documents.FORMATS[block.pipeline.format](documents.terms_of(block, block.starts_at))
    beside = _neighbours(block)
    for base, entries in groupby(documents.of_role(found, DOCUMENT), key=lambda entry: entry.id_base):
        group = Group(base, list(entries), [entry for entry in documents.of_role(found, MATCHED) if entry.id_base == base])
        if site := documents.site_of(block.pipeline, base, documents.day_of(block)):
            group.helpers.append(site)
        for days, entry in _needed(reader, group.own):
            there = beside[days].get(base)
            if there is None:
                absent = group.without if block.pipeline.options.get(NEIGHBOURS[days][1]) else group.lacks
                absent += [days] * (days not in absent)
            elif same := there.get(entry.id_ext):
                # a zone of which that day has no file had no vehicle then
                group.neighbours.append((days, same))
        yield group


def _needed(reader: SensorFormat, own: Sequence[CatalogEntry]) -> Iterator[tuple[int, CatalogEntry]]:
    """The documents that need a neighbour's to be whole, each with which."""
    for entry in own:
        if days := reader.neighbour(entry.metadata["header"]):
            yield days, entry


def _neighbours(block: ScheduleBlock) -> dict[int, dict[str, dict[str, CatalogEntry]]]:
    """-1 and 1 → the base → the ext → the live standard document of the day before or after."""
    live = CatalogEntry.objects.live().filter(source=block.pipeline.slug, layer=Layer.STANDARD, metadata__role=DOCUMENT)
    found: dict[int, dict[str, dict[str, CatalogEntry]]] = {-1: {}, 1: {}}
    for days, entries in ((-1, live.filter(window_end=block.starts_at)), (1, live.filter(window_start=block.ends_at))):
        for entry in entries:
            found[days].setdefault(entry.id_base, {})[entry.id_ext] = entry
    return found


def _make(desk: Desk, group: Group, units: Sequence[dict[str, Any]]) -> None:
    """Make one group ready, and see that each row that lies there was read."""
    given = [
        *(_standard(desk, entry) for entry in group.own),
        *(_standard(desk, entry, days=days) for days, entry in group.neighbours),
        *(_standard(desk, entry, role=entry.metadata["role"]) for entry in group.helpers),
    ]
    before = desk.tally.rows_in
    with desk.folder() as folder:
        desk.take(desk.reader.ready(given, units, folder), group.own[0].pointer, group.inputs)
    expected = group.rows + sum(entry.rows or 0 for _, entry in group.neighbours)
    documents.refuse_lost(group.base, desk.tally.rows_in - before, expected)


def _standard(desk: Desk, entry: CatalogEntry, *, days: int = 0, role: str = "") -> Standard:
    return Standard(desk.local_path(entry), entry.id_base, entry.id_ext, entry.metadata.get("header", {}), days, role)


# days that wait for each other


def _wake_neighbours(block: ScheduleBlock, note: Note) -> None:
    """Ask again for the enrich of the days that were made, or held back, without what this day has now."""
    others = ScheduleBlock.objects.filter(pipeline=block.pipeline)
    for days, other in ((1, others.filter(ends_at=block.starts_at).first()), (-1, others.filter(starts_at=block.ends_at).first())):
        if not other or not (bases := _wants(other, days, block)):
            continue
        reason = f"{', '.join(bases)} waited for {documents.day_of(block)}"
        if other.state == State.HELD:
            note.log(f"{reason}, and {other} is held: run its enrich when it is released.")
        else:
            verdict = blocks.requeue(other.pk, actor=audit.SCHEDULE, stage=Stage.ENRICH, reason=reason, trigger=Trigger.SCHEDULE)
            note.log(f"{reason}: {verdict.text}")


def _wants(other: ScheduleBlock, days: int, block: ScheduleBlock) -> list[str]:
    """The bases of `other` that want this block, which is so many days from it: for they had nothing of it, or other documents."""
    last = other.runs.filter(stage=Stage.ENRICH, state=RunState.DONE).first()
    if not last:
        return []
    present, past = defaultdict(set), defaultdict(set)
    standard = CatalogEntry.objects.filter(
        source=block.pipeline.slug, layer=Layer.STANDARD, window_start=block.starts_at, metadata__role=DOCUMENT
    )  # fmt: skip
    for base, sha256, withdrawn_at in standard.values_list("id_base", "sha256", "withdrawn_at"):
        (past if withdrawn_at else present)[base].add(sha256)
    wants = {one["base"] for one in (*last.details.get("held", []), *last.details.get("without", [])) if days in one["days"]}
    ready = CatalogEntry.objects.live().filter(source=block.pipeline.slug, layer=Layer.READY, window_start=other.starts_at, metadata__role=DOCUMENT)
    wants |= {base for base, inputs in ready.values_list("id_base", "metadata__inputs") if (past[base] - present[base]) & set(inputs)}
    return sorted(wants & set(present))


def _refuse_stale(block: ScheduleBlock, held: Sequence[Group]) -> None:
    """Raise TransientError where a neighbour came while this ran: it found this block at work, and could not ask for it again."""
    beside = _neighbours(block) if held else {}
    for group in held:
        for days in group.lacks:
            if group.base in beside[days]:
                raise TransientError(f"{NEIGHBOURS[days][0].capitalize()} of {group.base} came meanwhile.", code="neighbour-came")
