"""Where the rows of a block are, hop by hop: Law 1, source = lake = warehouse + rejected + duplicates = portal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.models import Run, RunState, Stage
from pipelines.selectors.faces import Face

WELL = (RunState.DONE, RunState.UNCHANGED)
BAD = (RunState.FAILED, RunState.CRASHED, RunState.CANCELLED)
HOP_NAMES = {
    Stage.EXTRACT: "Lake",
    Stage.STANDARDIZE: "Lake, standard",
    Stage.ENRICH: "Lake, ready",
    Stage.AGGREGATE: "Lake, aggregated",
    Stage.LOAD: "Warehouse",
    Stage.PUBLISH: "Portal",
}
WHERE = {
    Stage.EXTRACT: "in the lake",
    Stage.STANDARDIZE: "in the standard file",
    Stage.ENRICH: "in the ready file",
    Stage.AGGREGATE: "in the aggregated file",
    Stage.LOAD: "in the warehouse",
    Stage.PUBLISH: "on the portal",
}
ICONS = {Stage.LOAD: "database", Stage.PUBLISH: "portal"} | dict.fromkeys((Stage.EXTRACT, Stage.STANDARDIZE, Stage.ENRICH, Stage.AGGREGATE), "lake")


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
    is of an earlier pass) or "unreached". `beyond` rows went along that are not of this block, and don't count among `rows`.
    `is_recounted`: what came was counted otherwise (files, vehicles, a day with its neighbours), and none of it is missing.
    `unit` is what `rows` counts: "file" where nobody can count rows before they are read.
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
    beyond: int = 0
    is_recounted: bool = False
    unit: str = "row"

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
        if self.rows is None or self.difference is None:
            unsure = "not reached" if self.rows is None else "not compared: what stands here is of an earlier pass"
            return Joint("–", "", "being worked on" if self.state == "running" else unsure)
        if self.is_recounted:
            return Joint("→", "", f"all that came was taken, and is counted otherwise here; {self.rejected:,} rejected")
        if self.lost:
            return Joint(
                _signed(-self.lost),
                "differs",
                f"{self.rejected:,} rejected and kept with their reasons, {self.duplicates:,} duplicates",
            )
        return Joint("=", "", "same count")


@dataclass(frozen=True)
class Term:
    """A piece of the sentence of Law 1: `sign` stands before it ("", "=", "≠", "→" or "+")."""

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
            # what stands there of an earlier pass, or is being replaced, is no part of this one's sentence
            if hop.rows is None or (hop.difference is None and hop.key != "source"):
                break
            sign = "" if not terms else ("≠" if hop.difference else "→" if hop.is_recounted else "=")
            terms.append(Term(sign, hop.rows, hop.where if hop.unit == "row" else f"{hop.unit}{'s' * (hop.rows != 1)} {hop.where}"))
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
    return Hop(
        "source", "Source", _asked_words(evidence), "source", evidence.rows_in if evidence else None, state, run=evidence, unit=_unit(evidence)
    )


def _unit(evidence: Run | None) -> str:
    """What an extract counted."""
    return "file" if evidence and evidence.details.get("uncounted") else "row"


def _asked_words(evidence: Run | None) -> str:
    """Where the rows of the source stand: of a reading by watermark only what was new or changed was asked for."""
    if not evidence or evidence.details.get("read") != "changes":
        return "at the source"
    return f"new or changed at the source since {moment_words(evidence.details.get('since', ''))}".removesuffix(" since ")


def moment_words(text: str) -> str:
    """A watermark as people read it: "2026-11-20 16:39" of an ISO moment (its zone stays unsaid as the source leaves it), else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?", text)
    if not found:
        return text
    day, minute, second, _, zone = found.groups()
    clock = "" if minute == "00:00" and second in (None, ":00") and not zone else f" {minute}"
    return f"{day}{clock}{' UTC' if zone in ('Z', '+00:00') else f' {zone}' if zone else ''}"


def _hop(stage: str, before: Hop, latest: Run | None, confirmed: Run | None, evidence: Run | None, upstream: Run | None) -> Hop:
    rows = rejected = duplicates = beyond = 0
    if evidence:
        rejected, duplicates = evidence.rejected, evidence.duplicates
        beyond = evidence.details.get("beyond", 0) if stage == Stage.PUBLISH else 0
        rows = (evidence.published if stage == Stage.PUBLISH else evidence.rows_out) + evidence.unchanged - beyond
    known = evidence is not None
    difference = before.rows - rows - rejected - duplicates if known and before.rows is not None else None
    taken, made = (evidence.details.get("taken"), evidence.details.get("made")) if evidence else (None, None)
    is_recounted = bool(evidence) and (taken not in (None, evidence.rows_in) or made not in (None, rows))
    if difference is not None and taken is not None:
        difference = before.rows - taken
    if made is not None:
        rows = made
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
        beyond,
        is_recounted,
        _unit(evidence) if stage == Stage.EXTRACT else "row",
    )
