"""Resync: what the warehouse has for the public of a span of time, held against what the portal has; and the two made one again.

Rows are compared by the time that the public sees: a trip that ended at 9:58 stands on the portal at 10:00. So the portal is
asked for the rows of a span by its own column, the warehouse's rows are read from one window before to one after, and of both
those count whose public time lies in the span. Slice by slice, so that memory is one slice deep.

A row that only the portal has is called extra only where every window around it is loaded here: what the portal holds of other
times, from before this program or still to be loaded, is none of ours and is left alone.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Min
from django.db.models.functions import Now
from django.utils import timezone

from catalog import audit
from catalog.audit import Actor
from pipelines import blocks
from pipelines.blocks import Verdict
from pipelines.connectors.base import Column, Connector, FetchRequest, Parameter
from pipelines.errors import DataError, SetupError
from pipelines.models import Pipeline, Reconciliation, ScheduleBlock, Stage, State, Trigger, UpkeepJob, UpkeepRun
from pipelines.stages import outside
from pipelines.stages.offer import Offer, offer
from pipelines.stages.release import Row, public_time
from pipelines.upkeep.jobs import Job, Note
from pipelines.warehouse.tables import Scope

#: Of a kind of difference so many are kept to be looked at; of rows to be deleted, so many can be repaired at once.
KEPT, KEPT_EXTRA = 200, 5_000
#: More rows that nobody here knows than this are no slip: the span or the portal's dataset is another one.
MOST_EXTRA = 200_000
SLICE = {"hourly": timedelta(hours=6)}
PAGE = 50_000
#: What was found so long ago may no longer be so: rows are not deleted by it.
REPAIR_WITHIN = timedelta(days=1)

Tell = Callable[[str], None]


def mates(pipeline: Pipeline) -> list[Pipeline]:
    """The pipelines that publish to the same dataset of the same portal, this one first: only together can they be compared with it."""
    same = Pipeline.objects.filter(portal=pipeline.portal_id, portal_resource=pipeline.portal_resource).exclude(pk=pipeline.pk)
    others = same.select_related("provider", "dataset", "portal").order_by("slug")
    return [pipeline, *(other for other in others if Stage.PUBLISH in other.stages)]


def refusal(pipeline: Pipeline) -> str:
    """Why this pipeline can't be compared with its portal row by row; "" where it can."""
    if Stage.PUBLISH not in pipeline.stages or not pipeline.portal_id:
        return f"{pipeline.title} is not published, so there is nothing to compare."
    if pipeline.is_snapshot:
        return f"{pipeline.title} is read as a whole, not by windows: force its publish stage, which sends every row and compares the numbers."
    if not pipeline.key:
        return f"{pipeline.title} has no key, so its rows can't be told apart on the portal."
    if not pipeline.portal.connector_class.can_fetch:
        return f"{pipeline.portal.title} can't be read row by row: what is published there is replaced whole each time."
    return ""


def reconcile(
    pipeline: Pipeline, starts_at: datetime, ends_at: datetime, *, actor: Actor, reason: str = "", tell: Tell = lambda words: None
) -> Reconciliation:
    """Compare the public times from `starts_at` up to `ends_at` (aware, half-open) and keep what was found; changes nothing outside.

    Raises SetupError where nothing can be compared, else what the portal or the warehouse raises.
    """
    if words := refusal(pipeline):
        raise SetupError(words, code="not-comparable", next_step="Choose a pipeline that reads by windows and publishes by key to a portal.")
    if starts_at >= ends_at:
        raise SetupError("The span ends before it begins.", code="bad-span", next_step="Exchange its ends.")
    found = _Comparison(pipeline, starts_at, ends_at, tell).carried_out()
    kept = Reconciliation.objects.create(
        pipeline=pipeline,
        starts_at=starts_at,
        ends_at=ends_at,
        asked_by=actor.name[:150],
        warehouse_rows=found.warehouse_rows,
        portal_rows=found.portal_rows,
        missing=found.missing,
        extra=found.extra,
        changed=found.changed,
        differences=[*found.notes(), *found.listed],
        blocks=sorted(found.blocks),
    )
    audit.write(actor, "reconcile", kind="pipeline", target=pipeline.slug, reason=reason, result=sentence(kept), reconciliation=kept.pk)
    return kept


def sentence(one: Reconciliation) -> str:
    """What was found, in a sentence."""
    if one.is_equal:
        return f"Equal: {one.warehouse_rows:,} rows here and on {one.pipeline.portal.title}."
    parts = [(one.missing, "missing there"), (one.extra, "only there"), (one.changed, "with other values")]
    told = ", ".join(f"{number:,} {words}" for number, words in parts if number)
    return f"{one.warehouse_rows:,} rows here, {one.portal_rows:,} on {one.pipeline.portal.title}: {told}."


# comparing


@dataclass(frozen=True)
class _Clock:
    """The column that tells a row's public time, the clock it is written by, and how far it may lie from the real time."""

    column: Column
    zone: str
    margin: timedelta

    def of(self, text: str | None) -> datetime | None:
        """A public time as a naive moment of this clock; None for none."""
        if not text:
            return None
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when

    def at(self, moment: datetime) -> datetime:
        """An instant as this clock shows it."""
        zone = UTC if self.column.type == "instant" else ZoneInfo(self.zone)
        return moment.astimezone(zone).replace(tzinfo=None)

    def instant(self, naive: datetime) -> datetime:
        zone = UTC if self.column.type == "instant" else ZoneInfo(self.zone)
        return naive.replace(tzinfo=zone).astimezone(UTC)


@dataclass
class _Comparison:
    pipeline: Pipeline
    starts_at: datetime
    ends_at: datetime
    tell: Tell
    warehouse_rows: int = 0
    portal_rows: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    listed: list[dict[str, Any]] = field(default_factory=list)
    blocks: set[int] = field(default_factory=set)
    #: rows of the portal of times that are not loaded here, and blocks that are still on their way
    strange: int = 0
    under_way: set[int] = field(default_factory=set)
    #: keys of rows that the portal has at another time than the warehouse
    displaced: set[str] = field(default_factory=set)

    def carried_out(self) -> _Comparison:
        self.offers = [offer(one) for one in mates(self.pipeline)]
        self.offers = [one for one in self.offers if one.columns]
        if not self.offers:
            raise SetupError(
                f"Nothing was ever loaded by {self.pipeline.title}.", code="nothing-loaded", next_step="Run its blocks before they are compared."
            )
        self.portal = outside.connector(self.pipeline.portal)
        first = self.offers[0]
        if any(one.key != first.key or len(one.key) != 1 for one in self.offers):
            raise SetupError(
                f"The pipelines that publish to {self.pipeline.portal_resource} do not name a row there by the same one column.",
                code="row-identifier-differs",
                next_step="Give their releases the same key.",
            )
        [self.key] = first.key
        there = self.portal.preflight(self.pipeline.portal_resource, columns=first.columns, key=first.key)
        theirs = {column.name: column for column in there}
        self.columns = tuple(theirs[column.name] for column in first.columns)
        self.clock = self._clock(theirs)
        self.since = {
            one.pipeline.pk: ScheduleBlock.objects.filter(pipeline=one.pipeline).aggregate(first=Min("starts_at"))["first"] for one in self.offers
        }
        candidates: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="odo-reconcile-") as folder:
            for begin, end in self._slices():
                self._compare(begin, end, candidates, Path(folder))
                if len(candidates) > MOST_EXTRA:
                    raise DataError(
                        f"{self.pipeline.portal.title} has more than {MOST_EXTRA:,} rows of this span that are not known here.",
                        code="too-many-extra",
                        next_step=f"Look at {self.pipeline.portal_resource} there: is it the right dataset? Or compare a shorter span.",
                    )
                self.tell(f"Compared up to {end:%Y-%m-%d %H:%M} UTC: {self.warehouse_rows:,} rows here, {self.portal_rows:,} there.")
        self._settle_extra(candidates)
        return self

    def _clock(self, theirs: dict[str, Column]) -> _Clock:
        """By which column of the portal the span is asked for. Raises SetupError where the pipelines publish no such time, or not the same."""
        told = [public_time(one.pipeline, one.engine.column_types(one.dsn, one.pipeline.table)) for one in self.offers]
        if None in told or len({(column, zone) for column, zone, _ in told}) != 1:
            raise SetupError(
                f"No published column of {self.pipeline.portal_resource} tells the time of a row alike for all its pipelines.",
                code="no-public-time",
                next_step=f"Release {self.pipeline.window_column}, rounded if it is private.",
            )
        column, zone, _ = told[0]
        return _Clock(theirs[column], zone, timedelta(minutes=max(minutes for _, _, minutes in told)) / 2)

    def _slices(self) -> Iterator[tuple[datetime, datetime]]:
        step = SLICE.get(self.pipeline.cadence, timedelta(days=1))
        begin = self.starts_at.astimezone(UTC)
        while begin < self.ends_at:
            yield begin, min(begin + step, self.ends_at)
            begin += step

    def _compare(self, begin: datetime, end: datetime, candidates: dict[str, str], folder: Path) -> None:
        low, high = self.clock.at(begin), self.clock.at(end)
        around = list(
            ScheduleBlock.objects.filter(
                pipeline__in=[one.pipeline.pk for one in self.offers], ends_at__gt=begin - self.clock.margin, starts_at__lt=end + self.clock.margin
            )
        )
        ours: dict[str, tuple[tuple[Any, ...], int]] = {}
        for one in self.offers:
            for block in around:
                if block.pipeline_id != one.pipeline.pk:
                    continue
                if not _is_settled(block):
                    self.under_way.add(block.pk)
                    continue
                for row in _rows(one, Scope(block_id=block.pk)):
                    when = self.clock.of(row[self.clock.column.name])
                    if when is not None and low <= when < high:
                        ours[str(row[self.key])] = (self._canonical(row), block.pk)
        self.warehouse_rows += len(ours)
        for row in self._portal(begin, end, folder):
            self.portal_rows += 1
            key = row[self.key]
            if key in ours:
                values, block_id = ours.pop(key)
                if other := self._unlike(values, self._canonical(row)):
                    self._change(key, block_id, other)
            elif self._is_loaded(row[self.clock.column.name], around):
                candidates[key] = row[self.clock.column.name]
            else:
                self.strange += 1
        self._settle_missing(ours)

    def _portal(self, begin: datetime, end: datetime, folder: Path) -> Iterator[Row]:
        """The portal's rows of the span, as text."""
        resource = self.pipeline.portal_resource
        request = FetchRequest(
            columns=self.columns, order=(self.key,), window_column=self.clock.column.name, starts_at=begin, ends_at=end, time_zone=self.clock.zone,
            page_size=PAGE, in_flight=1,
        )  # fmt: skip
        rows = self.portal.count(resource, request)
        for file in self.portal.fetch(resource, request, rows=rows, workdir=folder, progress=lambda done, total: None):
            with file.path.open(newline="", encoding="utf-8") as stream:
                yield from csv.DictReader(stream)
            file.path.unlink()

    def _canonical(self, row: Row) -> tuple[Any, ...]:
        return tuple(canonical(row.get(column.name), column.type) for column in self.columns)

    def _unlike(self, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> dict[str, list[Any]]:
        """Column to [here, there] where they are not the same."""
        pairs = zip(self.columns, ours, theirs, strict=True)
        return {column.name: [_shown(here), _shown(there)] for column, here, there in pairs if here != there}

    def _change(self, key: str, block_id: int, columns: dict[str, list[Any]]) -> None:
        self.changed += 1
        self.blocks.add(block_id)
        self._list({"kind": "changed", "key": key, "block": block_id, "columns": columns}, self.changed)

    def _list(self, difference: dict[str, Any], number: int, most: int = KEPT) -> None:
        if number <= most:
            self.listed.append(difference)

    def _is_loaded(self, text: str, around: Iterable[ScheduleBlock]) -> bool:
        """Whether every pipeline that reaches back so far has loaded all windows in which a row of this public time may lie."""
        when = self.clock.instant(self.clock.of(text))
        edges = (when - self.clock.margin, when + max(self.clock.margin - timedelta(microseconds=1), timedelta()))
        owing = [pk for pk, first in self.since.items() if first and first <= edges[0]]
        spans = [(block.pipeline_id, block.starts_at, block.ends_at) for block in around if block.state == State.DONE]
        return bool(owing) and all(any(pk == own and start <= edge < stop for own, start, stop in spans) for pk in owing for edge in edges)

    def _settle_missing(self, ours: dict[str, tuple[tuple[Any, ...], int]]) -> None:
        """What the portal does not have at its time: it may have it at another."""
        elsewhere = self.portal.present(self.pipeline.portal_resource, [{self.key: key} for key in ours])
        for key, (_, block_id) in ours.items():
            if key in elsewhere:
                self.displaced.add(key)
                self._change(key, block_id, {self.clock.column.name: ["in this span", "at another time"]})
                continue
            self.missing += 1
            self.blocks.add(block_id)
            self._list({"kind": "missing", "key": key, "block": block_id}, self.missing)

    def _settle_extra(self, candidates: dict[str, str]) -> None:
        """What only the portal has at this time: the warehouse may have it at another."""
        for key, block_id in known(self.offers, candidates):
            when = candidates.pop(key)
            if key not in self.displaced:
                self._change(key, block_id, {self.clock.column.name: ["at another time", when]})
        self.extra = len(candidates)
        for number, (key, when) in enumerate(sorted(candidates.items()), start=1):
            self._list({"kind": "extra", "key": key, "at": when}, number, KEPT_EXTRA)

    def notes(self) -> list[dict[str, Any]]:
        """What was left out of the comparison, in words."""
        words = []
        if self.strange:
            words.append(f"{self.strange:,} rows of {self.pipeline.portal.title} are of times that are not loaded here: they are left alone.")
        if self.under_way:
            words.append(f"{len(self.under_way):,} blocks of this span are not done yet: their rows were not compared.")
        return [{"kind": "note", "words": text} for text in words]


def _is_settled(block: ScheduleBlock) -> bool:
    """Whether the portal should have its rows by now."""
    return block.state == State.DONE or (block.state == State.FAILED and block.stage == Stage.PUBLISH)


def _rows(one: Offer, scope: Scope) -> Iterator[Row]:
    for _, rows in one.chunks(scope, 0):
        yield from rows


def known(offers: Iterable[Offer], wanted: Iterable[str]) -> list[tuple[str, int]]:
    """(key on the portal, block) of the wanted keys that a table has, whenever; reads the tables' keys until all are found."""
    left, found = set(wanted), []
    tables = {(one.dsn, one.pipeline.table, one.pipeline.surrogate_key): one for one in offers}
    for one in tables.values():
        columns = (*one.key_columns, Column("_odo_block", "number"))
        table, chunk = one.pipeline.table, one.pipeline.publish_chunk
        if not left:
            break
        for _, rows in one.engine.rows_after(one.dsn, table, columns, one.public(Scope()), after=0, chunk=chunk, run_id=0):
            for row in rows:
                [key] = one.key_of(row).values()
                if key in left:
                    left.remove(key)
                    found.append((key, int(row["_odo_block"])))
            if not left:
                break
    return found


_POINT = re.compile(r"(POINT)?\s*\(\s*([-+\d.eE]+)[\s,]+([-+\d.eE]+)\s*\)")


def canonical(value: Any, kind: str) -> Any:
    """A value in the one form in which the two sides of a comparison write it; nothing is None. Pure."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    text = str(value)
    try:
        match kind:
            case "number":
                return Decimal(text).normalize()
            case "boolean":
                return text.lower() == "true"
            case "local_time" | "instant":
                when = datetime.fromisoformat(text)
                return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
            case "json":
                return json.dumps(json.loads(text), sort_keys=True)
            case "point" if found := _POINT.fullmatch(text.strip()):
                x, y = float(found[2]), float(found[3])
                # without the word it is the older form, latitude first
                return (x, y) if found[1] else (y, x)
    except (ValueError, InvalidOperation):
        # what is not of its type is compared as it stands
        return text
    return text


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else value.isoformat() if isinstance(value, datetime) else str(value)


# repairing


@dataclass(frozen=True)
class Repair:
    """What a repair did: `asked` blocks publish again, `deleted` rows are off the portal; or why nothing was done."""

    moved: bool
    text: str
    asked: tuple[int, ...] = ()
    refused: tuple[Verdict, ...] = ()
    deleted: int = 0


def repair(one: Reconciliation, *, actor: Actor, reason: str = "", trigger: str = Trigger.BUTTON, deletes: bool = True) -> Repair:
    """Have the blocks with missing or changed rows published again, all their rows; with `deletes`, take the extra rows off the portal.

    Each block leaves its audit row, and the repair one. The caller may ring for the `asked` blocks. Raises PipelineError of the portal.
    """
    if why := unrepairable(one):
        return _told(one, actor, reason, Repair(False, why))
    deleted = _delete(one) if deletes else 0
    verdicts = [
        blocks.requeue(pk, actor=actor, reason=reason or f"reconciliation {one.pk}", stage=Stage.PUBLISH, force=True, trigger=trigger)
        for pk in one.blocks
        if ScheduleBlock.objects.filter(pk=pk).exists()
    ]
    asked = tuple(verdict.block_id for verdict in verdicts if verdict.moved)
    refused = tuple(verdict for verdict in verdicts if not verdict.moved)
    Reconciliation.objects.filter(pk=one.pk).update(repaired_at=Now(), repaired_by=actor.name[:150])
    one.refresh_from_db()
    words = [f"{len(asked):,} {'block' if len(asked) == 1 else 'blocks'} asked to publish all rows again"] if one.blocks else []
    if refused:
        words.append(f"{len(refused):,} refused ({refused[0].text})")
    if deleted or (one.extra and deletes):
        words.append(f"{deleted:,} rows deleted on {one.pipeline.portal.title}")
    if one.extra and not deletes:
        words.append(f"{one.extra:,} rows that only {one.pipeline.portal.title} has were left there")
    return _told(one, actor, reason, Repair(True, "; ".join(words) + ".", asked, refused, deleted))


def unrepairable(one: Reconciliation) -> str:
    """Why this reconciliation can't be repaired; "" where it can."""
    if one.is_equal:
        return "Nothing differs, so there is nothing to repair."
    if one.repaired_at:
        return f"It was repaired by {one.repaired_by} already. Compare again to see what became of it."
    if timezone.now() - one.at > REPAIR_WITHIN:
        return "It was made more than a day ago, and rows may have changed since: compare again."
    if one.extra and not one.pipeline.portal.connector_class.can_delete and not one.blocks:
        return f"{one.pipeline.portal.title} can't delete single rows."
    return ""


def _told(one: Reconciliation, actor: Actor, reason: str, done: Repair) -> Repair:
    result = done.text if done.moved else f"refused: {done.text}"
    audit.write(actor, "repair", kind="pipeline", target=one.pipeline.slug, reason=reason, result=result, reconciliation=one.pk)
    return done


def _delete(one: Reconciliation) -> int:
    """Take the extra rows off the portal that are still unknown here. Returns how many. Raises DataError when some stay."""
    keys = [difference["key"] for difference in one.differences if difference["kind"] == "extra"]
    if not keys or not one.pipeline.portal.connector_class.can_delete:
        return 0
    offers = [found for found in map(offer, mates(one.pipeline)) if found.columns]
    # what was loaded since is no longer extra
    keys = sorted(set(keys) - {key for key, _ in known(offers, keys)})
    [name] = offers[0].key
    portal: Connector = outside.connector(one.pipeline.portal)
    chunk, deleted = one.pipeline.publish_chunk, 0
    for first in range(0, len(keys), chunk):
        reply = portal.delete(one.pipeline.portal_resource, [{name: key} for key in keys[first : first + chunk]])
        deleted += reply.deleted
        if reply.errors:
            raise DataError(
                f"{one.pipeline.portal.title} did not delete {reply.errors:,} of {len(keys):,} rows.",
                code="portal-refused",
                next_step="Look at these rows on the portal, then compare and repair again.",
            )
    return deleted


# every night


class Resync(Job):
    """The last weeks of every dataset that is published by windows, once a dataset, however many pipelines feed it."""

    kind = "resync"
    label = "Resync"
    about = "Compares what is published of the last weeks with the warehouse, row by row, and publishes again what is missing or changed."
    options = (
        Parameter("days", "Days", default="30", help="How far back."),
        Parameter("repair", "Repair", default="publish", help="no: only compare. publish: publish again. all: and delete what only the portal has."),
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        days, how = self.number(job, "days"), str(job.options.get("repair", "publish")).strip().lower()
        if how not in ("no", "publish", "all"):
            raise SetupError(f"{job}: repair is no, publish or all; not {how!r}.", code="bad-option", next_step="Correct the job's options.")
        actor, until = Actor(run.asked_by), timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        told, differing, seen = [], 0, set()
        for one in self.pipelines_of(job).order_by("slug"):
            where = (one.portal_id, one.portal_resource)
            if refusal(one) or where in seen:
                continue
            seen.add(where)
            found = reconcile(one, until - timedelta(days=days), until, actor=actor, reason=job.title, tell=note)
            words = f"{one.portal_resource}: {sentence(found)}"
            if not found.is_equal:
                differing += 1
                if how != "no":
                    words += f" {repair(found, actor=actor, reason=job.title, trigger=run.trigger, deletes=how == 'all').text}"
            told.append(words)
            note(words, reconciliations=[*note.details.get("reconciliations", []), found.pk])
        if not told:
            return "No pipeline publishes by windows to a portal that can be read: nothing was compared."
        return f"{len(told)} {'dataset' if len(told) == 1 else 'datasets'} compared over {days} days, {differing} differed. {' '.join(told)}"
