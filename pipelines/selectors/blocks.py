"""The story of one block: what happened, who asked, what waits, what may be pressed, its log, files, rejected rows and loads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet

from catalog.models import AuditEntry, CatalogEntry
from pipelines import clock
from pipelines.models import ImportLog, LogLine, RejectedRow, Run, RunState, ScheduleBlock, State
from pipelines.selectors import faces
from pipelines.selectors.chain import Chain, earlier_runs, reconcile
from pipelines.selectors.faces import Face
from pipelines.selectors.outcome import outcome
from pipelines.selectors.passes import Gantt, gantt, passes
from pipelines.selectors.waiting import surroundings, why_waiting
from pipelines.stages import columns, pending

#: What a page shows at once; the rest is one link away.
LOG_LINES, REJECTED_ROWS, AUDIT_ROWS, IMPORT_ROWS, FILES = 300, 50, 20, 60, 100


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
    suspicious = block.mark == ScheduleBlock.Mark.SUSPICIOUS
    if block.state == State.HELD:
        return [Button("release", "Release", "again", is_primary=True), *_again(block), *[Button("accept", "Accept as it is", "ok")] * suspicious]
    if block.state == State.FAILED and block.error_code == columns.CHANGED and not block.superseded_at:
        return [Button("accept", "Accept the columns", "ok", is_primary=True), Button("run", "Try again", "again"), Button("hold", "Hold", "paused")]
    if block.state == State.FAILED:
        return [
            Button("run", f"Try {block.stage} again", "again", is_primary=True),
            *_again(block),
            Button("hold", "Hold", "paused"),
        ]
    if block.state == State.WAITING:
        return [Button("run", "Run now", "again", is_primary=True), *_again(block), Button("hold", "Hold", "paused")]
    if suspicious:
        return [Button("accept", "Accept as it is", "ok", is_primary=True), Button("run", "Run again", "again"), *_again(block)]
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


def telling(block: ScheduleBlock, chain: Chain, waits: Sequence[str], now: datetime) -> Telling:
    """The sentence at the top of the page, and the one that says what to do. Pure."""
    if block.state == State.RUNNING:
        if block.cancel_asked_at:
            return Telling(
                f"{block.cancel_asked_by or 'Somebody'} asked to stop it.",
                "It ends within seconds, and nothing half-done stays.",
                "late",
            )
        if block.lease_until < now:
            silent = clock.span_words((now - block.lease_until).total_seconds())
            return Telling(
                f"{block.stage.capitalize()} was running, but its worker is lost: its lease ran out {silent} ago.",
                "The scheduler takes the block back within a minute and tries again. Where it does not, look at Workers.",
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
        advice = block.next_step or "Ask the provider whether this is right. If it is, accept it as it is; else run it again."
        return Telling(block.message or "It is done, and something about it is unusual.", advice, "suspicious")
    if chain.adds_up is False:
        hop = chain.first_differs
        where = f" at the hop “{hop.name}”" if hop else ""
        return Telling(
            f"It is done, but the counts do not agree{where}.",
            f"Run it again from {hop.key if hop else block.stage}; twice is harmless.",
            "",
        )
    if block.mark in (ScheduleBlock.Mark.EMPTY, ScheduleBlock.Mark.NO_SERVICE, ScheduleBlock.Mark.UNCHANGED):
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
class ShownRejected:
    """A rejected row as the page shows it. `file` is the number of its file, None where that is not among the block's."""

    row: RejectedRow
    file: int | None

    @property
    def cells(self) -> list[tuple[str, str, bool]]:
        """Each value of the row as it came: name, text, and whether it is JSON with an inside, which is written over several lines."""
        # what is no text came in a JSON file, where a number, a null and a list are written so
        return [
            (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1), isinstance(value, dict | list))
            for name, value in self.row.raw.items()
        ]


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
    said: list[str]
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
    def shown_rejected(self) -> list[ShownRejected]:
        """The rejected rows of the page, each with the number of the file in which it stands, where that is among the files."""
        known = {entry.pointer: entry.pk for entry in self.files}
        return [ShownRejected(row, known.get(row.file)) for row in self.rejections.page.object_list]

    @property
    def pending(self) -> CatalogEntry | None:
        """The file of rows that wait for a portal that is down; None where nothing waits."""
        return next((entry for entry in self.files if entry.metadata.get("role") == pending.ROLE and entry.withdrawn_at is None), None)

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
        said=outcome(block, chain),
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
        telling=telling(block, chain, why_waiting(block, surroundings(block, now)) if block.state == State.WAITING else [], now),
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
