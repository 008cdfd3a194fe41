"""The story of one block: what happened, where the rows are, who asked, what waits, and what may be pressed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet

from catalog.models import AuditEntry, CatalogEntry
from pipelines import clock
from pipelines.models import ImportLog, LogLine, Pulse, RejectedRow, Run, RunState, ScheduleBlock, Stage, State
from pipelines.selectors import faces
from pipelines.selectors.faces import Face

#: What a page shows at once; the rest is one link away.
LOG_LINES, REJECTED_ROWS, AUDIT_ROWS, IMPORT_ROWS, FILES = 300, 50, 20, 60, 100
#: A tick or a canary that is older than this is no sign of life any more.
TICK_SILENT, CANARY_SILENT = timedelta(minutes=3), timedelta(minutes=3)
#: A lost message is rung again within half a minute, so a block that is due for longer has some other cause.
LONG_DUE = timedelta(minutes=2)

WELL = (RunState.DONE, RunState.UNCHANGED)
BAD = (RunState.FAILED, RunState.CRASHED, RunState.CANCELLED)
HOP_NAMES = {
    Stage.EXTRACT: "Lake",
    Stage.STANDARDIZE: "Lake, standard",
    Stage.ENRICH: "Lake, ready",
    Stage.LOAD: "Warehouse",
    Stage.PUBLISH: "Portal",
}
WHERE = {
    Stage.EXTRACT: "in the lake",
    Stage.STANDARDIZE: "in the standard file",
    Stage.ENRICH: "in the ready file",
    Stage.LOAD: "in the warehouse",
    Stage.PUBLISH: "on the portal",
}
ICONS = {Stage.EXTRACT: "lake", Stage.STANDARDIZE: "lake", Stage.ENRICH: "lake", Stage.LOAD: "database", Stage.PUBLISH: "portal"}


# where the rows are: Law 1


@dataclass(frozen=True)
class Joint:
    """The sign between two hops; `kind` is "", "differs" (explained) or "broken" (not)."""

    sign: str
    kind: str
    title: str


def _signed(number: int) -> str:
    """ "−14", "+3", with the sign that is as wide as a figure."""
    return f"{number:+,}".replace("-", "\N{MINUS SIGN}")


HOP_FACES = {
    "ok": Face("ok", "ok"),
    "rejected": Face("suspicious", "rejected"),
    "differs": Face("failed", "differs"),
    "failed": Face("failed", "failed"),
    "running": Face("running", "running"),
    "behind": Face("late", "not yet"),
    "unreached": Face("unchanged", "not reached"),
}


@dataclass(frozen=True)
class Hop:
    """One place on the way. `rows` stand there (None: nothing has arrived yet); `difference` rows of the place before are unexplained.

    `state` is "ok", "rejected" (rows were rejected on the way here), "differs", "failed", "running", "behind" (what stands here
    is of an earlier pass) or "unreached".
    """

    key: str
    name: str
    where: str
    icon: str
    rows: int | None
    state: str
    rejected: int = 0
    duplicates: int = 0
    difference: int | None = None
    run: Run | None = None

    @property
    def lost(self) -> int:
        return self.rejected + self.duplicates

    @property
    def surplus(self) -> int:
        """Rows that are here and were not at the hop before."""
        return max(-(self.difference or 0), 0)

    @property
    def face(self) -> Face:
        return HOP_FACES[self.state]

    @property
    def look(self) -> str:
        """The hop's colour: only what is to be repaired is filled, and neither explained rejections nor a wait for another hop are that."""
        return {"behind": "unchanged", "rejected": "ok"}.get(self.state, self.face.look)

    @property
    def joint(self) -> Joint:
        """What stands between this hop and the one before it."""
        if self.state == "failed" and self.rows is None:
            return Joint("≠", "broken", "nothing arrived")
        if self.difference:
            return Joint(
                _signed(-self.difference),
                "broken",
                f"{abs(self.difference):,} rows {'are missing' if self.difference > 0 else 'are too many'} here",
            )
        if self.rows is None or self.state in ("behind", "running"):
            return Joint(
                "–",
                "",
                {"running": "being worked on", "behind": "not compared: what stands here is of an earlier pass"}.get(self.state, "not reached"),
            )
        if self.lost:
            return Joint(
                _signed(-self.lost),
                "differs",
                f"{self.rejected:,} rejected and kept with their reasons, {self.duplicates:,} duplicates",
            )
        return Joint("=", "", "same count")


@dataclass(frozen=True)
class Term:
    """A piece of the sentence of Law 1: `sign` stands before it ("", "=", "≠" or "+")."""

    sign: str
    rows: int
    words: str


@dataclass(frozen=True)
class Chain:
    """The hops in order, and whether their counts agree. `adds_up` None: not every hop has been reached, so nobody can say yet."""

    hops: tuple[Hop, ...]
    adds_up: bool | None
    first_differs: Hop | None
    note: str = ""

    @property
    def terms(self) -> list[Term]:
        """source = lake = warehouse + rejected + duplicates = portal, with the numbers, as far as the rows have come."""
        terms = []
        for hop in self.hops:
            if hop.rows is None:
                break
            sign = "" if not terms else ("≠" if hop.difference else "=")
            terms.append(Term(sign, hop.rows, hop.where))
            # after the load they are told even when there are none: that they were counted is the news
            if hop.rejected or hop.key == Stage.LOAD:
                terms.append(Term("+", hop.rejected, "rejected"))
            if hop.duplicates or hop.key == Stage.LOAD:
                terms.append(Term("+", hop.duplicates, "duplicates" if hop.duplicates != 1 else "duplicate"))
        return terms

    @property
    def sentence(self) -> str:
        return " ".join(f"{term.sign} {term.rows:,} {term.words}".strip() for term in self.terms)

    def as_json(self) -> dict[str, Any]:
        return {
            "adds_up": self.adds_up,
            "first_differs": self.first_differs.key if self.first_differs else None,
            "sentence": self.sentence,
            "note": self.note,
            "hops": [
                {
                    "hop": hop.key,
                    "rows": hop.rows,
                    "rejected": hop.rejected,
                    "duplicates": hop.duplicates,
                    "difference": hop.difference,
                    "state": hop.state,
                }
                for hop in self.hops
            ],
        }


def reconcile(runs: Iterable[Run], stages: Sequence[str] = (Stage.EXTRACT, Stage.LOAD, Stage.PUBLISH), earlier: Iterable[Run] = ()) -> Chain:
    """Follow the rows of one block from hop to hop, by the newest run of each stage that counted them. Pure.

    `runs` are all runs of the block in any order, `stages` those of its pipeline. An extract that found the source unchanged
    moved nothing, so the run before it is the evidence; where that belongs to an older block (a snapshot is read again in
    every window), `earlier` are the runs of that block.
    """
    own = sorted(runs, key=lambda run: run.pk, reverse=True)
    note = ""
    newest = next((run for run in own if run.stage == Stage.EXTRACT and run.state in WELL), None)
    if newest and newest.state == RunState.UNCHANGED:
        own, note = _evidence(own, sorted(earlier, key=lambda run: run.pk, reverse=True))
    hops: list[Hop] = []
    upstream: Run | None = None
    for stage in stages:
        mine = [run for run in own if run.stage == stage]
        latest = mine[0] if mine else None
        well = [run for run in mine if run.state in WELL]
        # a run that is "unchanged" and counted nothing says only that all is as before
        evidence = next((run for run in well if run.state == RunState.DONE or run.rows_in), None)
        if stage == stages[0]:
            hops.append(_source(evidence, latest))
        hops.append(_hop(stage, hops[-1], latest, well[0] if well else None, evidence, upstream))
        upstream = evidence or upstream
    broken = next((hop for hop in hops if hop.difference or hop.state in ("failed", "differs")), None)
    complete = all(hop.rows is not None and hop.state in ("ok", "rejected") for hop in hops)
    adds_up = False if any(hop.difference for hop in hops) else (True if complete else None)
    return Chain(hops=tuple(hops), adds_up=adds_up, first_differs=broken, note=note)


def _evidence(own: list[Run], earlier: list[Run]) -> tuple[list[Run], str]:
    """Of a block whose source was found unchanged: the runs that counted its rows, and the words for it. Both lists newest first."""
    said = "The source has not changed, so nothing had to move"
    counted = [run for run in own if not (run.stage == Stage.EXTRACT and run.state == RunState.UNCHANGED)]
    first = next((run for run in counted if run.stage == Stage.EXTRACT and run.state == RunState.DONE), None)
    if first:
        return counted, f"{said}. The counts are those of run {first.pk:,}."
    first = next((run for run in earlier if run.stage == Stage.EXTRACT and run.state == RunState.DONE), None)
    if first:
        return earlier, f"{said}. The counts are those of block {first.block_id:,}, the last that read rows."
    return own, f"{said}, and no earlier run that counted rows is known."


def evidence_run(runs: Iterable[Run]) -> int | None:
    """The run that an unchanged extract names as its evidence, if it belongs to another block; None when nothing need be looked up."""
    own = list(runs)
    extracts = [run for run in own if run.stage == Stage.EXTRACT and run.state in WELL]
    newest = max(extracts, key=lambda run: run.pk, default=None)
    if newest is None or newest.state != RunState.UNCHANGED:
        return None
    named = newest.details.get("evidence_run")
    return named if named and named not in {run.pk for run in own} else None


def earlier_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs of the older block that has the evidence; at most one query, none for a block that read rows itself."""
    named = evidence_run(runs)
    return list(Run.objects.filter(block__runs=named)) if named else []


def _source(evidence: Run | None, latest: Run | None) -> Hop:
    state = "ok" if evidence else ("running" if latest and latest.state == RunState.RUNNING else "unreached")
    return Hop("source", "Source", "at the source", "source", evidence.rows_in if evidence else None, state, run=evidence)


def _hop(stage: str, before: Hop, latest: Run | None, confirmed: Run | None, evidence: Run | None, upstream: Run | None) -> Hop:
    rows = rejected = duplicates = 0
    if evidence:
        rejected, duplicates = evidence.rejected, evidence.duplicates
        rows = (evidence.published if stage == Stage.PUBLISH else evidence.rows_out) + evidence.unchanged
    known = evidence is not None
    difference = before.rows - rows - rejected - duplicates if known and before.rows is not None else None
    # a stage that was confirmed after the last count before it is up to date; else what stands here is of an earlier pass
    behind = bool(known and upstream and confirmed and confirmed.pk < upstream.pk)
    if latest and latest.state in BAD:
        state = "failed"
    elif latest and latest.state == RunState.RUNNING:
        state = "running"
    elif not known:
        state = "unreached"
    elif behind:
        state = "behind"
    elif difference:
        state = "differs"
    else:
        state = "rejected" if rejected else "ok"
    # what is of another pass, or being replaced, can't be held against the rows that come
    if behind or (state == "running" and known):
        difference = None
    return Hop(
        str(stage),
        HOP_NAMES[Stage(stage)],
        WHERE[Stage(stage)],
        ICONS[Stage(stage)],
        rows if known else None,
        state,
        rejected,
        duplicates,
        difference,
        evidence or latest,
    )


# attempts and stages


def passes(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs by pass, newest pass first, each in its order: a new pass begins where the stage goes back, or is done a second time."""
    order = Stage.values
    grouped: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.pk):
        last = grouped[-1][-1] if grouped else None
        goes_on = last is not None and (order.index(run.stage) > order.index(last.stage) or (run.stage == last.stage and last.state not in WELL))
        if goes_on:
            grouped[-1].append(run)
        else:
            grouped.append([run])
    return grouped[::-1]


@dataclass(frozen=True)
class Bar:
    """One stage as a bar, in units of an SVG that is 836 wide: where it begins, how long it waited and how long it worked."""

    stage: str
    state: str
    y: int
    wait_x: float
    wait_width: float
    x: float
    width: float
    text: str
    run: Run

    @property
    def text_x(self) -> float:
        # at the far right the words stand before the end of the picture
        return min(self.x + self.width + 6, 600)

    @property
    def text_y(self) -> int:
        return self.y + 11


@dataclass(frozen=True)
class Gantt:
    """The stages of a pass, end to end: pauses between tries are left out and told in words."""

    bars: tuple[Bar, ...]
    height: int
    ticks: tuple[tuple[float, str], ...]
    seconds: float
    summary: str


LEFT, SPAN = 92, 480


def gantt(pass_: Sequence[Run], now: datetime) -> Gantt | None:
    """Bars for the last try of each stage of a pass; None when nothing has run."""
    last: dict[str, Run] = {}
    tries: dict[str, int] = {}
    for run in pass_:
        last[run.stage] = run
        tries[run.stage] = tries.get(run.stage, 0) + 1
    if not last:
        return None
    spans = [(run, _waited(run), _worked(run, now)) for run in last.values()]
    total = max(sum(waited + worked for _, waited, worked in spans), 0.001)
    scale, at, bars = SPAN / total, float(LEFT), []
    for index, (run, waited, worked) in enumerate(spans):
        wait_width, width = waited * scale, max(worked * scale, 1.5)
        bars.append(
            Bar(
                stage=run.stage,
                state=_bar_state(run),
                y=20 + 21 * index,
                wait_x=round(at, 1),
                wait_width=round(wait_width, 1),
                x=round(at + wait_width, 1),
                width=round(width, 1),
                text=_bar_text(run, waited, worked, tries[run.stage]),
                run=run,
            )
        )
        at += wait_width + worked * scale
    return Gantt(
        bars=tuple(bars),
        height=24 + 21 * len(bars),
        ticks=tuple((round(LEFT + SPAN * step / 4, 1), clock_words(total * step / 4)) for step in range(5)),
        seconds=total,
        summary=", ".join(f"{bar.stage} {bar.text}" for bar in bars),
    )


def _waited(run: Run) -> float:
    return max((run.started_at - run.queued_at).total_seconds(), 0.0) if run.queued_at else 0.0


def _worked(run: Run, now: datetime) -> float:
    return max(((run.finished_at or now) - run.started_at).total_seconds(), 0.0)


def _bar_state(run: Run) -> str:
    return {
        RunState.DONE: "okquiet",
        RunState.UNCHANGED: "okquiet",
        RunState.RUNNING: "running",
        RunState.FAILED: "failed",
        RunState.CRASHED: "crashed",
        RunState.CANCELLED: "queued",
        RunState.WAITING: "queued",
    }[RunState(run.state)]


def _bar_text(run: Run, waited: float, worked: float, tries: int) -> str:
    parts = [span_words(worked)]
    if run.state in BAD:
        parts.append(run.get_state_display().lower())
    elif run.state == RunState.UNCHANGED:
        parts.append("unchanged")
    elif run.state == RunState.DONE and run.rows_in:
        parts.append(f"{run.rows_in:,} rows")
    if run.rejected:
        parts.append(f"{run.rejected:,} rejected")
    if waited >= 1:
        parts.append(f"{span_words(waited)} in the queue")
    if tries > 1:
        parts.append(f"try {tries}")
    return " · ".join(parts)


def span_words(seconds: float | None) -> str:
    """Seconds as people say them: "0.4 s", "41 s", "1 min 06 s", "2 h 05 min"."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def clock_words(seconds: float) -> str:
    """Seconds on an axis: "0:20", "1:06:00"; under ten seconds "2.5 s"."""
    if 0 < seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


# why a waiting block waits


@dataclass(frozen=True)
class Surroundings:
    """What a waiting block can wait for, besides its time. Ages in seconds; None = never heard of."""

    now: datetime
    provider: str = ""
    running_there: int = 0
    limit_there: int | None = None
    asked_to_wait_until: datetime | None = None
    other_block_runs: bool = False
    ahead: int = 0
    tick_age: float | None = None
    canary_age: float | None = None
    running: int = 0


def why_waiting(block: ScheduleBlock, around: Surroundings) -> list[str]:
    """Why a waiting block does not run yet, the most binding cause first, in sentences. Pure; empty for a block that is not waiting."""
    if block.state != State.WAITING:
        return []
    pipeline = block.pipeline
    reasons = []
    if around.canary_age is None and around.running == 0:
        reasons.append("No worker is listening: nobody has ever answered the queue. Start the workers with manage.py up.")
    elif around.canary_age is not None and around.canary_age > CANARY_SILENT.total_seconds() and around.running == 0:
        reasons.append(f"No worker is listening: the queue last answered {span_words(around.canary_age)} ago. Start the workers with manage.py up.")
    if around.tick_age is None:
        reasons.append("The scheduler has never ticked, so nobody rings for due blocks. Start it with manage.py up.")
    elif around.tick_age > TICK_SILENT.total_seconds():
        reasons.append(f"The scheduler last ticked {span_words(around.tick_age)} ago, so nobody rings for due blocks. Start it with manage.py up.")
    if not pipeline.provider.is_active:
        reasons.append(f"{pipeline.provider.title} is switched off; nothing of it runs until a steward switches it on.")
    if pipeline.is_paused and block.trigger == "schedule":
        reasons.append(f"The pipeline is paused: {pipeline.paused_reason or 'nobody said why'}. Resume it, or run this block by hand.")
    if block.due_at > around.now:
        why = "to try again" if block.attempts else ("for the source" if block.error_code else "until it is due")
        reasons.append(f"It waits {why}, until {_local(block.due_at, around.now, pipeline.time_zone)}.")
    if around.asked_to_wait_until and around.asked_to_wait_until > around.now:
        reasons.append(
            f"{around.provider} asked us to wait until {_local(around.asked_to_wait_until, around.now, pipeline.time_zone)}. Nothing to do."
        )
    if around.limit_there is not None and around.running_there >= around.limit_there:
        verb = "block runs" if around.running_there == 1 else "blocks run"
        reasons.append(f"{around.running_there} {verb} at {around.provider} already, and {around.limit_there} at once is its limit.")
    if around.other_block_runs:
        reasons.append("Another block of this pipeline is running, and they go one after the other, for they touch the same rows.")
    if around.ahead and block.due_at <= around.now:
        reasons.append(f"It is behind {around.ahead:,} {'block' if around.ahead == 1 else 'blocks'} in the queue.")
    if reasons:
        return reasons
    overdue = (around.now - block.due_at).total_seconds()
    if overdue > LONG_DUE.total_seconds():
        return [f"It has been due for {span_words(overdue)}, and nothing that is known keeps it. Look at Workers, or press Run now."]
    return ["It is next: a worker takes it within seconds."]


def _local(moment: datetime, now: datetime, zone_name: str) -> str:
    local, today = moment.astimezone(clock.zone(zone_name)), now.astimezone(clock.zone(zone_name)).date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%a %b} {local.day}, {local:%H:%M}"


def surroundings(block: ScheduleBlock, now: datetime) -> Surroundings:
    """Look around a waiting block, in three queries."""
    pipeline = block.pipeline
    provider = {Stage.EXTRACT: pipeline.provider, Stage.PUBLISH: pipeline.portal}.get(Stage(block.stage))
    here = Q(pipeline__provider=provider) if block.stage == Stage.EXTRACT else Q(pipeline__portal=provider)
    running = ScheduleBlock.objects.running().aggregate(
        all=Count("pk"),
        there=Count("pk", filter=here & Q(stage=block.stage)),
        siblings=Count("pk", filter=Q(pipeline=pipeline)),
    )
    ahead = (
        ScheduleBlock.objects.due(now)
        .filter(Q(pipeline__priority__gt=pipeline.priority) | Q(pipeline__priority=pipeline.priority, due_at__lt=block.due_at))
        .exclude(pk=block.pk)
        .filter(Q(pipeline__is_paused=False) | ~Q(trigger="schedule"), pipeline__provider__is_active=True)
        .count()
    )
    ages = {pulse.name: (now - pulse.at).total_seconds() for pulse in Pulse.objects.filter(name__in=["tick", "canary"])}
    return Surroundings(
        now=now,
        provider=provider.title if provider else "",
        running_there=running["there"] if provider else 0,
        limit_there=provider.max_parallel if provider else None,
        asked_to_wait_until=provider.blocked_until if provider else None,
        other_block_runs=pipeline.is_snapshot and running["siblings"] > 0,
        ahead=ahead,
        tick_age=ages.get("tick"),
        canary_age=ages.get("canary"),
        running=running["all"],
    )


# what may be pressed


@dataclass(frozen=True)
class Button:
    """One act on a block. `stage` is for "rerun": the stage to begin with."""

    verb: str
    label: str
    icon: str = ""
    stage: str = ""
    is_primary: bool = False


def buttons(block: ScheduleBlock) -> list[Button]:
    """The acts that make sense in the state in which the block is, the likeliest first. Pure."""
    if block.state == State.RUNNING:
        if block.cancel_asked_at:
            return []
        return [Button("cancel", f"Cancel {block.stage}", "cancelled", is_primary=True)]
    if block.state == State.HELD:
        return [Button("release", "Release", "again", is_primary=True), *_again(block)]
    if block.state == State.FAILED:
        return [
            Button("run", f"Try {block.stage} again", "again", is_primary=True),
            *_again(block),
            Button("hold", "Hold", "paused"),
        ]
    if block.state == State.WAITING:
        return [Button("run", "Run now", "again", is_primary=True), *_again(block), Button("hold", "Hold", "paused")]
    return [Button("run", "Run again", "again", is_primary=True), *_again(block)]


def _again(block: ScheduleBlock) -> list[Button]:
    later = [Button("rerun", f"From {stage}", stage=stage) for stage in block.pipeline.stages[1:]]
    return [Button("force", "Force"), *later]


# what happened, in sentences


@dataclass(frozen=True)
class Telling:
    """What happened and what to do; `tone` is "" (alarm), "calm", "late" or "suspicious"."""

    headline: str
    advice: str
    tone: str


def telling(block: ScheduleBlock, chain: Chain, waits: Sequence[str]) -> Telling:
    """The sentence at the top of the page, and the one that says what to do. Pure."""
    if block.state == State.RUNNING:
        if block.cancel_asked_at:
            return Telling(
                f"{block.cancel_asked_by or 'Somebody'} asked to stop it.",
                "It ends within seconds, and nothing half-done stays.",
                "late",
            )
        return Telling(f"{block.stage.capitalize()} is running, asked by {_asked(block)}.", "Nothing to do.", "calm")
    if block.state == State.FAILED:
        return _telling_of_failure(block)
    if block.state == State.HELD:
        tone = "suspicious" if block.mark == ScheduleBlock.Mark.SUSPICIOUS else "late"
        advice = block.next_step or f"Nothing of it runs until somebody releases it, at {block.stage}, or runs it again."
        return Telling(block.message or "Somebody held it and did not say why.", advice, tone)
    if block.state == State.WAITING:
        if block.message:
            advice = " ".join(filter(None, [block.next_step, *waits]))
            return Telling(block.message, advice, "late")
        return Telling(f"It waits for {block.stage}, asked by {_asked(block)}.", " ".join(waits), "calm")
    return _telling_of_success(block, chain)


def _asked(block: ScheduleBlock) -> str:
    who = "the schedule" if block.asked_by == "schedule" else block.asked_by
    return f"{who} (“{block.asked_because}”)" if block.asked_because else who


def _telling_of_failure(block: ScheduleBlock) -> Telling:
    headline = block.message or f"It failed at {block.stage}, and left no message."
    if block.superseded_at:
        return Telling(headline, "A later run made it good. Nothing to do.", "calm")
    return Telling(headline, block.next_step or f"Read the log below, then try {block.stage} again.", "")


def _telling_of_success(block: ScheduleBlock, chain: Chain) -> Telling:
    if block.mark == ScheduleBlock.Mark.SUSPICIOUS:
        advice = block.next_step or "Ask the provider whether this is right. If it is, there is nothing to do; else run it again."
        return Telling(block.message or "It is done, and something about it is unusual.", advice, "suspicious")
    if chain.adds_up is False:
        hop = chain.first_differs
        where = f" at the hop “{hop.name}”" if hop else ""
        return Telling(
            f"It is done, but the counts do not agree{where}.",
            f"Run it again from {hop.key if hop else block.stage}; twice is harmless.",
            "",
        )
    if block.mark in (ScheduleBlock.Mark.EMPTY, ScheduleBlock.Mark.UNCHANGED):
        return Telling(block.message or f"It is {block.get_mark_display()}.", "Nothing to do.", "calm")
    last = chain.hops[-1]
    if chain.adds_up and last.rows is not None:
        rejected = sum(hop.rejected for hop in chain.hops)
        kept = (
            f" {rejected:,} {'row was' if rejected == 1 else 'rows were'} rejected and {'is' if rejected == 1 else 'are'} kept below."
            if rejected
            else ""
        )
        headline = f"{last.rows:,} {'row is' if last.rows == 1 else 'rows are'} {last.where}, and every row of the source is accounted for.{kept}"
        return Telling(headline, block.message, "calm")
    return Telling(block.message or "It is done.", "", "calm")


def standing_words(block: ScheduleBlock, face: Face) -> str:
    """The state with its stage: "Failed at publish", "Running load", "Waiting for extract"."""
    if block.state == State.DONE or block.superseded_at:
        return face.word
    joiner = {State.RUNNING: "", State.FAILED: "at ", State.WAITING: "for ", State.HELD: "before "}[State(block.state)]
    return f"{face.word}{',' if face.word == 'Overdue' else ''} {joiner}{block.stage}"


def try_words(block: ScheduleBlock) -> str:
    """Which try it is: "try 3 of 5", "2 of 5 tries used", "tried 5 of 5 times"; empty where nothing was tried or all went well."""
    most = block.pipeline.max_attempts
    if block.state == State.RUNNING:
        return f"try {block.attempts} of {most}"
    if block.state == State.WAITING and block.attempts:
        return f"{block.attempts} of {most} tries used"
    if block.state == State.FAILED and block.attempts:
        return f"tried {block.attempts} of {most} times"
    return ""


# the page


@dataclass(frozen=True)
class Rejections:
    """Rejected rows of the block: how many by reason, and one page of them. `older` are those of runs that a later one replaced."""

    total: int
    reasons: list[tuple[str, int]]
    page: Page
    older: int
    shows_all: bool


@dataclass(frozen=True)
class Log:
    """The lines that the filters ask for, oldest first, at most LOG_LINES of the newest; counts are of the whole block."""

    lines: list[LogLine]
    all: int
    warnings: int
    errors: int
    found: int
    level: str
    search: str


@dataclass(frozen=True)
class Loads:
    """The import log of the block; `died` are the runs that began a load and said no more, although they are over."""

    rows: list[ImportLog]
    total: int
    died: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class BlockStory:
    block: ScheduleBlock
    zone: str
    window: str
    chain: Chain
    runs: list[Run]
    passes: list[list[Run]]
    gantt: Gantt | None
    log: Log
    files: list[CatalogEntry]
    files_total: int
    rejections: Rejections
    loads: Loads
    audit: list[AuditEntry]
    face: Face
    telling: Telling
    buttons: list[Button]
    before: ScheduleBlock | None
    after: ScheduleBlock | None
    now: datetime

    @property
    def standing(self) -> str:
        return standing_words(self.block, self.face)

    @property
    def tries(self) -> str:
        return try_words(self.block)

    @property
    def moves(self) -> bool:
        """Whether the page should look again by itself."""
        return self.block.state in (State.RUNNING, State.WAITING)

    @property
    def shown_rejected(self) -> list[tuple[RejectedRow, int | None]]:
        """The rejected rows of the page, each with the number of the file in which it stands, where that is among the files."""
        known = {entry.pointer: entry.pk for entry in self.files}
        return [(row, known.get(row.file)) for row in self.rejections.page.object_list]

    @property
    def last_run(self) -> Run | None:
        return self.runs[0] if self.runs else None

    @property
    def fraction(self) -> float | None:
        """Progress from 0 to 1, where the running stage knows how much is to come."""
        block = self.block
        return min(block.progress_done / block.progress_total, 1.0) if block.progress_total and block.progress_done is not None else None


def one_block(pk: int) -> ScheduleBlock:
    """The block with its pipeline, provider, portal and dataset, in one query. Raises ScheduleBlock.DoesNotExist."""
    return ScheduleBlock.objects.select_related("pipeline__provider", "pipeline__portal", "pipeline__dataset").get(pk=pk)


def block_story(
    pk: int,
    now: datetime,
    *,
    level: str = "",
    search: str = "",
    page: str | int = 1,
    all_rejected: bool = False,
) -> BlockStory:
    """All that the page of a block prints, in a number of queries that does not grow with its history."""
    block = one_block(pk)
    runs = list(block.runs.all())
    for run in runs:
        run.block = block
    chain = reconcile(runs, block.pipeline.stages, earlier_runs(runs))
    grouped = passes(runs)
    files = CatalogEntry.objects.filter(source=block.pipeline.slug, window_start=block.starts_at).order_by("withdrawn_at", "layer", "id_base", "pk")
    neighbours = list(
        ScheduleBlock.objects.filter(pipeline=block.pipeline, starts_at__lt=block.starts_at)
        .order_by("-starts_at")[:1]
        .union(
            ScheduleBlock.objects.filter(pipeline=block.pipeline, starts_at__gt=block.starts_at).order_by("starts_at")[:1],
            all=True,
        )
    )
    for neighbour in neighbours:
        neighbour.pipeline = block.pipeline
    some_files = list(files[: FILES + 1])
    return BlockStory(
        block=block,
        zone=block.pipeline.time_zone,
        window=clock.window_text(block.starts_at, block.ends_at, block.pipeline.time_zone),
        chain=chain,
        runs=runs,
        passes=grouped,
        gantt=gantt(grouped[0], now) if grouped else None,
        log=_log(block, level, search),
        files=some_files[:FILES],
        files_total=files.count() if len(some_files) > FILES else len(some_files),
        rejections=_rejections(block, chain, runs, page, all_rejected),
        loads=_loads(block, runs),
        audit=list(AuditEntry.objects.filter(kind="block", target=str(block.pk))[:AUDIT_ROWS]),
        face=faces.of_block(block, now),
        telling=telling(block, chain, why_waiting(block, surroundings(block, now)) if block.state == State.WAITING else []),
        buttons=buttons(block),
        before=next((neighbour for neighbour in neighbours if neighbour.starts_at < block.starts_at), None),
        after=next((neighbour for neighbour in neighbours if neighbour.starts_at > block.starts_at), None),
        now=now,
    )


def log_lines(block: ScheduleBlock, level: str = "", search: str = "") -> QuerySet[LogLine]:
    """The block's log lines, oldest first. `level` "warning" takes errors with it; `search` is in any case."""
    lines = LogLine.objects.filter(run__block=block).select_related("run")
    if level == LogLine.Level.WARNING:
        lines = lines.filter(level__in=[LogLine.Level.WARNING, LogLine.Level.ERROR])
    elif level == LogLine.Level.ERROR:
        lines = lines.filter(level=level)
    return lines.filter(text__icontains=search) if search else lines


def _log(block: ScheduleBlock, level: str, search: str) -> Log:
    level = level if level in (LogLine.Level.WARNING, LogLine.Level.ERROR) else ""
    counts = LogLine.objects.filter(run__block=block).aggregate(
        all=Count("pk"),
        warnings=Count("pk", filter=~Q(level=LogLine.Level.INFO)),
        errors=Count("pk", filter=Q(level=LogLine.Level.ERROR)),
        found=Count("pk", filter=Q(pk__in=log_lines(block, level, search).values("pk"))),
    )
    lines = list(log_lines(block, level, search).order_by("-pk")[:LOG_LINES])[::-1]
    return Log(lines=lines, level=level, search=search, **counts)


def rejected_rows(block: ScheduleBlock, run_ids: Iterable[int] | None = None) -> QuerySet[RejectedRow]:
    """The block's rejected rows in the order of its files; of these runs only, where they are named."""
    rows = RejectedRow.objects.filter(block=block).order_by("pk")
    return rows if run_ids is None else rows.filter(run__in=list(run_ids))


def raw_json(row: RejectedRow) -> str:
    """The whole rejected row as it came, as one line of JSON."""
    return json.dumps(row.raw, ensure_ascii=False)


def current_rejecting_runs(chain: Chain, runs: Iterable[Run]) -> list[int]:
    """The runs whose rejected rows still speak of what stands here: each stage's evidence, and what was tried after it."""
    evidence = {hop.key: hop.run.pk for hop in chain.hops if hop.run and hop.key != "source"}
    return [run.pk for run in runs if run.pk >= evidence.get(run.stage, 0)]


def _rejections(block: ScheduleBlock, chain: Chain, runs: list[Run], page: str | int, shows_all: bool) -> Rejections:
    current = current_rejecting_runs(chain, runs)
    by_reason: dict[str, int] = {}
    total = older = 0
    for run_id, reason, count in (
        RejectedRow.objects.filter(block=block).values_list("run", "reason").annotate(n=Count("pk")).order_by("-n", "reason")
    ):
        if run_id not in current:
            older += count
            if not shows_all:
                continue
        total += count
        by_reason[reason] = by_reason.get(reason, 0) + count
    rows = rejected_rows(block, None if shows_all else current)
    paginator = Paginator(rows, REJECTED_ROWS)
    paginator.count = total  # counted above; a second count would only cost a query
    return Rejections(total, sorted(by_reason.items(), key=lambda pair: -pair[1]), paginator.get_page(page), older, shows_all)


def _loads(block: ScheduleBlock, runs: list[Run]) -> Loads:
    begun: dict[int, set[str]] = {}
    for run_id, event in ImportLog.objects.filter(run__block=block).values_list("run", "event").distinct().order_by("run"):
        begun.setdefault(run_id, set()).add(event)
    over = {run.pk for run in runs if run.state != RunState.RUNNING}
    died = {run_id for run_id, events in begun.items() if run_id in over and not events & {ImportLog.Event.END, ImportLog.Event.FAILED}}
    rows = list(ImportLog.objects.filter(run__block=block).order_by("-pk")[: IMPORT_ROWS + 1])
    total = ImportLog.objects.filter(run__block=block).count() if len(rows) > IMPORT_ROWS else len(rows)
    return Loads(rows=rows[:IMPORT_ROWS], total=total, died=died)
