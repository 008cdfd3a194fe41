"""The page that compares a pipeline with its portal: which span, what was found, and what a repair would do; for the command too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pipelines import clock
from pipelines.models import Pipeline, Reconciliation, ScheduleBlock
from pipelines.selectors.grid import as_input
from pipelines.upkeep import resync

#: A person waits for the answer of a page: a longer span is compared by the command or the nightly job.
MOST_DAYS = 7
RECENT = 10
KINDS = {
    "missing": ("Missing", "In the warehouse, not on the portal."),
    "extra": ("Extra", "On the portal, not in the warehouse."),
    "changed": ("Changed", "On both, with other values or at another time."),
}


@dataclass(frozen=True)
class Line:
    """One row that differs: its public id, its block (None for an extra one), and in words how."""

    key: str
    block: ScheduleBlock | None
    words: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The differences of one kind: `count` of them, the first ones as lines."""

    word: str
    label: str
    about: str
    count: int
    lines: list[Line]

    @property
    def left_out(self) -> int:
        return max(self.count - len(self.lines), 0)


@dataclass(frozen=True)
class Page:
    """What the page prints of a pipeline; `one` is the reconciliation that is shown, or None."""

    refusal: str
    mates: list[Pipeline]
    recent: list[Reconciliation]
    one: Reconciliation | None
    sentence: str
    groups: list[Group]
    notes: list[str]
    blocks: list[ScheduleBlock]
    unrepairable: str


def page(pipeline: Pipeline, number: int | None = None) -> Page:
    """The newest reconciliation, or that of the number; in four queries."""
    recent = list(pipeline.reconciliations.defer("differences")[:RECENT])
    for one in recent:
        one.pipeline = pipeline
    wanted = number if number is not None else (recent[0].pk if recent else None)
    chosen = pipeline.reconciliations.filter(pk=wanted).first() if wanted else None
    if chosen:
        chosen.pipeline = pipeline
    refusal = resync.refusal(pipeline)
    blocks = list(ScheduleBlock.objects.filter(pk__in=chosen.blocks).select_related("pipeline").order_by("starts_at")) if chosen else []
    return Page(
        refusal=refusal,
        mates=[] if refusal else resync.mates(pipeline)[1:],
        recent=recent,
        one=chosen,
        sentence=resync.sentence(chosen) if chosen else "",
        groups=_groups(chosen, blocks) if chosen else [],
        notes=[one["words"] for one in chosen.differences if one["kind"] == "note"] if chosen else [],
        blocks=blocks,
        unrepairable=resync.unrepairable(chosen) if chosen else "",
    )


def _groups(one: Reconciliation, blocks: list[ScheduleBlock]) -> list[Group]:
    known = {block.pk: block for block in blocks}
    made = []
    for kind, (label, about) in KINDS.items():
        lines = [
            Line(difference["key"], known.get(difference.get("block")), tuple(_words(difference)))
            for difference in one.differences
            if difference["kind"] == kind
        ]
        if count := getattr(one, kind):
            made.append(Group(kind, label, about, count, lines[: resync.KEPT]))
    return made


def _words(difference: Mapping[str, Any]) -> list[str]:
    if difference["kind"] == "extra":
        return [f"stands there at {difference['at']}"]
    return [f"{name}: {_value(here)} here, {_value(there)} there" for name, (here, there) in difference.get("columns", {}).items()]


def _value(value: Any) -> str:
    return "nothing" if value is None else str(value)


def as_json(one: Reconciliation) -> dict[str, Any]:
    """A reconciliation as the command and the page's JSON give it."""
    return {
        "reconciliation": one.pk,
        "pipeline": one.pipeline.slug,
        "starts_at": one.starts_at,
        "ends_at": one.ends_at,
        "at": one.at,
        "asked_by": one.asked_by,
        "equal": one.is_equal,
        "warehouse_rows": one.warehouse_rows,
        "portal_rows": one.portal_rows,
        "missing": one.missing,
        "extra": one.extra,
        "changed": one.changed,
        "blocks": one.blocks,
        "repaired": one.repaired_at is not None,
        "differences": one.differences,
    }


def span(pipeline: Pipeline, begin: str, end: str) -> tuple[datetime, datetime]:
    """The instants of a span as people write it: the pipeline's local time, a bare day meaning the whole of it. Raises ValueError in words."""
    starts_at, ends_at = _bound(begin, pipeline, is_end=False), _bound(end, pipeline, is_end=True)
    if starts_at >= ends_at:
        raise ValueError("The span ends before it begins. Exchange its ends.")
    return starts_at, ends_at


def _bound(text: str, pipeline: Pipeline, *, is_end: bool) -> datetime:
    text = text.strip()
    try:
        if len(text) == 10:
            return clock.day_start(date.fromisoformat(text) + timedelta(days=is_end), pipeline.time_zone)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time. Write it like 2026-11-12T08:00, or a day like 2026-11-12.") from None
    if moment.tzinfo is None:
        # of an hour that comes twice, from its first and up to its second
        moment = moment.replace(tzinfo=clock.zone(pipeline.time_zone), fold=is_end)
    return moment.astimezone(UTC)


def usual_span(pipeline: Pipeline, now: datetime) -> tuple[str, str]:
    """What the form offers: the last whole days that have settled, as its fields write them."""
    today = (now - timedelta(minutes=pipeline.settle_minutes)).astimezone(clock.zone(pipeline.time_zone)).date()
    first, last = (clock.day_start(today - timedelta(days=days), pipeline.time_zone) for days in (3, 0))
    return as_input(first, pipeline), as_input(last, pipeline, is_end=True)


def command_of(pipeline: Pipeline, begin: str, end: str) -> str:
    """The command line that compares the same span."""
    return f"python3 manage.py reconcile {pipeline.slug} --from {begin} --to {end}"
