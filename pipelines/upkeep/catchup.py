"""Catching up: which days of a pipeline one stage has still to do, by comparing what the stage before it has with what it has made.

For the first stage that is what the source lists against the raw files of the lake; for the later ones the files of one layer
against those of the next; for the last, the files that are loaded against what the runs of the blocks have published. The days that
are chosen become ordinary blocks (`planner.place`), so a bad day never keeps a later one from running.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from django.utils import timezone

from catalog.audit import Actor
from catalog.models import CatalogEntry, InventoryEdition
from pipelines import blocks, clock
from pipelines.connectors.base import FetchRequest, Parameter
from pipelines.errors import PipelineError, SetupError
from pipelines.models import Cadence, ImportLog, Pipeline, Run, RunState, ScheduleBlock, Stage, State, UpkeepJob, UpkeepRun
from pipelines.stages import outside
from pipelines.stages.load import DOCUMENT, LAYERS, MADE_BY, MATCHED
from pipelines.upkeep import compare
from pipelines.upkeep.compare import BASE, BASE_AND_EXT, Bounds, Decision, Item
from pipelines.upkeep.jobs import Job, Note

#: What atd-data-lake calls the stages, and our own words.
WORDS = {
    "ingest": Stage.EXTRACT,
    "standardize": Stage.STANDARDIZE,
    "ready": Stage.ENRICH,
    "aggregate": Stage.AGGREGATE,
    "publish": Stage.PUBLISH,
    "extract": Stage.EXTRACT,
    "enrich": Stage.ENRICH,
}
LAYER_OF = {stage: layer for layer, stage in MADE_BY.items()}
#: So far beside a day lies what may help to make it.
NEIGHBOURS = timedelta(days=2)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Day:
    """A window that a stage has still to do, and the things for which it is chosen."""

    starts_at: datetime
    ends_at: datetime
    decisions: tuple[Decision, ...]

    @property
    def whys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.why for one in self.decisions))


@dataclass(frozen=True)
class Comparison:
    """What was compared for one stage of a pipeline, and the days that come of it, oldest first."""

    pipeline: Pipeline
    stage: str
    within: Bounds
    decisions: list[Decision]
    days: list[Day]

    @property
    def taken(self) -> int:
        return sum(bool(one.why) for one in self.decisions)


def stage_of(word: str) -> str:
    """The stage that a word names. Raises SetupError with the words that there are."""
    if word not in WORDS:
        raise SetupError(f"There is no stage {word!r}.", code="no-such-stage", next_step=f"Use one of: {', '.join(WORDS)}")
    return WORDS[word]


def stages_from(pipeline: Pipeline, stage: str, *, onward: bool = False) -> list[str]:
    """The stages that a day then runs: this one, with what only leads to it; with `onward` all after it too. Raises SetupError."""
    own = list(pipeline.stages)
    if stage not in own:
        raise SetupError(f"{pipeline.title} has no stage {stage}.", code="no-such-stage", next_step=f"It has: {', '.join(own)}")
    if onward:
        return own[own.index(stage) :]
    # to publish a day is to load it first: the portal is given what the warehouse has
    return [name for name in own if name == stage or (stage == Stage.PUBLISH and name == Stage.LOAD)]


def compared(pipeline: Pipeline, stage: str, within: Bounds, *, key: str = "", force: bool = False, tell: Tell = lambda words: None) -> Comparison:
    """Compare one stage of a pipeline with what comes before it. `key` "" is the stage's usual one.

    Changes nothing; may ask the source, whose warnings `tell` hears. Raises SetupError where it can't be compared, and what the
    source raises.
    """
    stages_from(pipeline, stage)
    if pipeline.is_snapshot:
        raise SetupError(
            f"{pipeline.title} is read as a whole, not by windows, so it has no days to catch up.",
            code="no-windows",
            next_step=f"Run it: python3 manage.py run {pipeline.slug}",
        )
    source = [one for one in _source(pipeline, stage, within, tell) if within.hold(one.starts_at)]
    ends = [one.ends_at or compare.a_day_after(one.starts_at, pipeline.time_zone) for one in source]
    target = list(_target(pipeline, stage, min(one.starts_at for one in source), max(ends))) if source else []
    # a raw file has the very name that the source gave it; a stage may make one file of many, or many of one
    key = key or (BASE_AND_EXT if stage == Stage.EXTRACT else BASE)
    decisions = compare.compare(source, target, within=within, zone_name=pipeline.time_zone, key=key, force=force)
    return Comparison(pipeline, stage, within, decisions, _days(pipeline, decisions))


def _days(pipeline: Pipeline, decisions: Iterable[Decision]) -> list[Day]:
    """The windows of the pipeline in which the chosen things lie."""
    cadence = "daily" if pipeline.cadence in (Cadence.MANUAL, Cadence.ONCE) else pipeline.rhythm
    chosen: dict[tuple[datetime, datetime], list[Decision]] = defaultdict(list)
    for one in decisions:
        if one.why:
            for window in clock.windows(cadence, pipeline.time_zone, one.item.starts_at, one.ends_at):
                chosen[window].append(one)
    return [Day(*window, tuple(chosen[window])) for window in sorted(chosen)]


# what the stage before has


def _source(pipeline: Pipeline, stage: str, within: Bounds, tell: Tell) -> Iterator[Item]:
    if stage == Stage.EXTRACT:
        yield from _listed(pipeline, within, tell)
        return
    layer = layer_before(pipeline, stage)
    live = _live(pipeline, layer).filter(window_start__gte=within.since, window_start__lt=within.until)
    for entry in _telling(live, rows=stage == Stage.PUBLISH):
        yield _item(entry, pipeline, fingerprint=entry.sha256)


def _listed(pipeline: Pipeline, within: Bounds, tell: Tell) -> Iterator[Item]:
    request = FetchRequest(
        columns=(),
        window_column=pipeline.window_column,
        starts_at=within.since,
        ends_at=within.until,
        time_zone=pipeline.time_zone,
        options=outside.options(pipeline),
    )
    for one in outside.connector(pipeline.provider).listing(pipeline.resource, request):
        yield Item(one.base, one.ext, one.starts_at, one.ends_at, one.fingerprint, label=one.label)


def layer_before(pipeline: Pipeline, stage: str) -> str:
    """The layer from which a stage reads: that of the nearest stage before it that the pipeline has. Raises SetupError."""
    before = pipeline.stages[: pipeline.stages.index(stage)]
    layer = next((layer for layer in LAYERS if MADE_BY[layer] in before), None)
    if layer is None:
        raise SetupError(
            f"{pipeline.title} has no stage before {stage}, so there is nothing to compare it with.",
            code="no-layer-before",
            next_step=f"Its stages are {', '.join(pipeline.stages)}: compare a later one.",
        )
    return layer


def _live(pipeline: Pipeline, layer: str):
    entries = CatalogEntry.objects.live().filter(source=pipeline.slug, layer=layer)
    return entries.order_by("window_start", "id_base", "id_ext")


def _telling(entries: Iterable[CatalogEntry], *, rows: bool) -> Iterator[CatalogEntry]:
    """Of each window the entries that stand for its data: the documents, where it has any, else the rows; with `rows` always these.

    A day's matched reads help to read its others and are data as well: they may come late. A camera's site file is none.
    """
    for _, window in groupby(entries, key=lambda entry: entry.window_start):
        held = list(window)
        plain = [entry for entry in held if not entry.metadata.get("role")]
        whole = [entry for entry in held if entry.metadata.get("role") in (DOCUMENT, MATCHED)]
        is_read_whole = any(entry.metadata.get("role") == DOCUMENT for entry in whole)
        yield from plain if rows else whole if is_read_whole else [*plain, *whole]


def _item(entry: CatalogEntry, pipeline: Pipeline, *, fingerprint: str = "", inputs: frozenset[str] | None = None) -> Item:
    # files that do not say whose they are (the pages of a portal) are one thing together: their names differ from layer to layer
    base, ext = entry.metadata.get("base", pipeline.slug), entry.metadata.get("ext", "")
    return Item(base, ext, entry.window_start, entry.window_end, fingerprint, inputs, entry.pointer)


# what the stage has made


def _target(pipeline: Pipeline, stage: str, since: datetime, until: datetime) -> Iterator[Item]:
    """What there is of the span, from the first thing's beginning to the last one's end."""
    if stage == Stage.PUBLISH:
        yield from _published(pipeline, since, until)
        return
    entries = list(_telling(_live(pipeline, LAYER_OF[stage]).filter(window_end__gt=since, window_start__lt=until), rows=False))
    if stage == Stage.EXTRACT:
        known = _fetched(pipeline, since, until)
        for entry in entries:
            told = known.get((entry.window_start, entry.metadata.get("base"), entry.metadata.get("ext")), entry.metadata.get("fingerprint"))
            yield _item(entry, pipeline, inputs=frozenset({told}) if told else None)
        return
    editions = _Editions(pipeline) if stage == Stage.ENRICH and pipeline.inventory else None
    gone = _withdrawn(pipeline, since, until)
    for entry in entries:
        inputs = entry.metadata.get("inputs")
        if inputs is not None and (gone.intersection(inputs) or (editions and editions.have_changed(entry))):
            # made with another inventory than it would be made with now, or of a helper or a neighbour day that is another one now
            inputs = []
        yield _item(entry, pipeline, inputs=None if inputs is None else frozenset(inputs))


def _withdrawn(pipeline: Pipeline, since: datetime, until: datetime) -> set[str]:
    """The fingerprints of what is no longer there: of these days and their neighbours, for a camera's day may end in the next."""
    ours = CatalogEntry.objects.filter(source=pipeline.slug, window_end__gt=since - NEIGHBOURS, window_start__lt=until + NEIGHBOURS)
    gone = set(ours.exclude(withdrawn_at=None).values_list("sha256", flat=True))
    return gone - set(ours.live().filter(sha256__in=gone).values_list("sha256", flat=True)) if gone else gone


def _fetched(pipeline: Pipeline, since: datetime, until: datetime) -> dict[tuple[datetime, str, str], str]:
    """(window, base, ext) → what the source said of the content when it was last fetched. The entry's own word may be older: a file that
    was touched and has the same bytes keeps its entry."""
    runs = Run.objects.filter(
        block__pipeline=pipeline, stage=Stage.EXTRACT, state=RunState.DONE, block__ends_at__gt=since, block__starts_at__lt=until
    ).order_by("pk")
    known = {}
    for starts_at, fingerprints in runs.values_list("block__starts_at", "details__fingerprints"):
        known |= {(starts_at, base, ext): fingerprint for base, ext, fingerprint in fingerprints or []}
    return known


class _Editions:
    """The inventory's editions, to see whether a file was made with the one that its day is matched with now."""

    def __init__(self, pipeline: Pipeline):
        self.editions = list(InventoryEdition.objects.filter(code=pipeline.inventory).order_by("dated_at").values_list("dated_at", "sha256"))

    def have_changed(self, entry: CatalogEntry) -> bool:
        made_with = (entry.metadata.get("inventory") or {}).get("sha256")
        now = next((sha256 for dated_at, sha256 in self.editions if dated_at > entry.window_start), None)
        return bool(made_with and now and made_with != now)


def _published(pipeline: Pipeline, since: datetime, until: datetime) -> Iterator[Item]:
    """The files whose rows are on the portal: those of the last good load before the last good publication of each block."""
    of_span = {"block__pipeline": pipeline, "block__ends_at__gt": since, "block__starts_at__lt": until}
    loaded: dict[int, int] = {}
    published: dict[int, int] = {}
    # a publication that was taken back is superseded
    good = Run.objects.filter(**of_span, state=RunState.DONE, stage__in=[Stage.LOAD, Stage.PUBLISH])
    good = good.exclude(stage=Stage.PUBLISH, superseded_at__isnull=False).order_by("pk")
    for pk, block_id, stage in good.values_list("pk", "block_id", "stage"):
        if stage == Stage.LOAD:
            loaded[block_id] = pk
        elif block_id in loaded:
            published[block_id] = loaded[block_id]
    chunks = ImportLog.objects.filter(run__in=published.values(), event=ImportLog.Event.CHUNK).values_list("file", flat=True)
    for entry in CatalogEntry.objects.filter(pointer__in=set(chunks)):
        yield _item(entry, pipeline, inputs=frozenset({entry.sha256}))


# every night


class CatchUp(Job):
    """What the original's thirteen scripts did each night: any day that a stage lacks, or has made of other files, goes on from there."""

    kind = "catch-up"
    label = "Catch up"
    about = "Compares each stage of pipelines whose source lists what it has with the stage before it, and runs the days that it lacks."
    options = (Parameter("days", "Days", default="30", help="How far back."),)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        days, actor = self.number(job, "days"), Actor(run.asked_by)
        asked, trouble, looked_at = 0, [], 0
        for pipeline in self.pipelines_of(job).filter(twin_of=None, is_paused=False, provider__is_active=True).order_by("slug"):
            if pipeline.is_snapshot or not pipeline.provider.connector_class.can_list:
                continue
            looked_at += 1
            within = compare.bounds(start=str(days), zone_name=pipeline.time_zone, now=timezone.now())
            taken: set[datetime] = set()
            for stage in (name for name in pipeline.stages if name != Stage.LOAD):
                try:
                    found = compared(pipeline, stage, within)
                except PipelineError as error:
                    # told, and the later stages and the other pipelines are compared all the same
                    trouble.append(f"{pipeline.slug} {stage}: {error.message}")
                    continue
                for day in found.days:
                    if day.starts_at not in taken and _may_run(pipeline, day) and _ask(pipeline, day, stage, actor, job.title, run.trigger):
                        taken.add(day.starts_at)
            asked += len(taken)
            note(f"{pipeline.slug}: {len(taken):,} days asked for.", asked=asked, trouble=trouble)
        told = f"{looked_at:,} pipeline{'s' * (looked_at != 1)} compared over {days} days, {asked:,} day{'s' * (asked != 1)} asked for."
        return " ".join([told, *(f"{words.rstrip('.')}." for words in trouble)])


def _may_run(pipeline: Pipeline, day: Day) -> bool:
    """Not what is under way, nor what somebody stopped, holds or has taken off the portal; nor a day before the first that is owed."""
    first = pipeline.starts_on
    if first and day.starts_at.astimezone(clock.zone(pipeline.time_zone)).date() < first:
        return False
    block = ScheduleBlock.objects.filter(pipeline=pipeline, starts_at=day.starts_at).first()
    return block is None or block.state in (State.DONE, State.FAILED)


def _ask(pipeline: Pipeline, day: Day, stage: str, actor: Actor, reason: str, trigger: str) -> bool:
    stages = stages_from(pipeline, stage, onward=True)
    block = ScheduleBlock.objects.filter(pipeline=pipeline, starts_at=day.starts_at).first()
    wish = {"actor": actor, "reason": f"{reason}: {', '.join(day.whys)}", "stages": stages, "trigger": trigger}
    if block is None:
        return blocks.open_window(pipeline, day.starts_at, day.ends_at, **wish).moved
    return blocks.requeue(block.pk, seen_fence=block.fence, **wish).moved
