"""The machinery's pages: the diary of loads, and whether workers, scheduler and queue are alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, QuerySet, Sum

from catalog import asked
from catalog.models import AuditEntry
from pipelines.clock import span_words
from pipelines.models import ImportLog, Pipeline, Provider, Pulse, Run, RunState, ScheduleBlock
from pipelines.selectors.faces import CRASHED, FAILED, RUNNING, Face
from pipelines.selectors.waiting import CANARY_SILENT, TICK_SILENT

LOADS_A_PAGE, RESTARTS = 50, 10
#: A host that has said nothing for longer is gone or stuck.
HOST_SILENT = timedelta(minutes=3)

ENDED, WENT_WRONG, DIED, LOADING = Face("ok", "Ended"), FAILED, Face(CRASHED.look, "Died"), Face(RUNNING.look, "Loading")
OUTCOMES = {"ended": ENDED, "failed": WENT_WRONG, "died": DIED, "loading": LOADING}


# import logs


@dataclass(frozen=True)
class LoadFilters:
    """What the list of loads is narrowed to; `day` is the day on which the load began, in the city's zone."""

    pipeline: str = ""
    outcome: str = ""
    day: date | None = None
    before: int | None = None
    problem: str = ""

    @classmethod
    def of(cls, given) -> LoadFilters:
        day, problem = asked.day(given.get("day", ""))
        outcome = given.get("outcome", "")
        return cls(
            pipeline=given.get("pipeline", ""),
            outcome=outcome if outcome in OUTCOMES else "",
            day=day,
            before=asked.number(given.get("before", "")),
            problem=problem,
        )

    def loads(self) -> QuerySet[Run]:
        """The runs that opened an import log, newest first, each with its `outcome` still in two truths: `has_end`, `has_failed`."""
        said = ImportLog.objects.filter(run=OuterRef("pk"))
        loads = Run.objects.filter(Exists(said)).annotate(
            has_end=Exists(said.filter(event=ImportLog.Event.END)), has_failed=Exists(said.filter(event=ImportLog.Event.FAILED))
        )
        if self.pipeline:
            loads = loads.filter(block__pipeline__slug=self.pipeline)
        if self.day:
            start, end = asked.span(self.day)
            loads = loads.filter(started_at__gte=start, started_at__lt=end)
        return loads.order_by("-pk")

    def shown(self) -> QuerySet[Run]:
        """The same, narrowed to the outcome."""
        return self.loads().filter(BY_OUTCOME[self.outcome]) if self.outcome else self.loads()

    def after(self, loads: QuerySet[Run]) -> QuerySet[Run]:
        """The page that follows the load `before`."""
        return (loads.filter(pk__lt=self.before) if self.before else loads).select_related("block__pipeline")


ENDED_Q = Q(has_end=True)
FAILED_Q = Q(has_end=False, has_failed=True)
LOADING_Q = Q(has_end=False, has_failed=False, state=RunState.RUNNING)
#: no end, no failure, and nobody at work on it: its process died in the middle
DIED_Q = Q(has_end=False, has_failed=False) & ~Q(state=RunState.RUNNING)
BY_OUTCOME = {"ended": ENDED_Q, "failed": FAILED_Q, "loading": LOADING_Q, "died": DIED_Q}


@dataclass(frozen=True)
class Load:
    """One load as its diary tells it."""

    run: Run
    face: Face
    files: int
    first_file: str
    table: str
    chunks: int
    rows: int
    total: int | None
    began: datetime
    last: datetime
    message: str

    @property
    def seconds(self) -> float:
        return (self.last - self.began).total_seconds()


@dataclass(frozen=True)
class LoadsPage:
    filters: LoadFilters
    loads: list[Load]
    counts: dict[str, int]
    rows: int
    pipelines: list[tuple[str, str]]
    next_before: int | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def import_logs(filters: LoadFilters) -> LoadsPage:
    """The list of loads with its totals, in five queries. Pages go by key: loads that begin meanwhile move nothing."""
    counts = filters.loads().order_by().aggregate(**{name: Count("pk", filter=condition) for name, condition in BY_OUTCOME.items()})
    shown = filters.shown()
    rows = ImportLog.objects.filter(run__in=shown.order_by().values("pk"), event=ImportLog.Event.CHUNK).aggregate(rows=Sum("rows"))["rows"] or 0
    runs = list(filters.after(shown)[: LOADS_A_PAGE + 1])
    return LoadsPage(
        filters=filters,
        loads=diaries(runs[:LOADS_A_PAGE]),
        counts=counts,
        rows=rows,
        pipelines=list(Pipeline.objects.order_by("title").values_list("slug", "title")),
        next_before=runs[LOADS_A_PAGE - 1].pk if len(runs) > LOADS_A_PAGE else None,
    )


def all_loads(filters: LoadFilters) -> Iterator[Load]:
    """Every load that the filters ask for, newest first, a portion at a time."""
    before = filters.before
    while True:
        runs = list(replace(filters, before=before).after(filters.shown())[:500])
        yield from diaries(runs)
        if len(runs) < 500:
            return
        before = runs[-1].pk


def diaries(runs: list[Run]) -> list[Load]:
    """What the import log says of these runs (as `LoadFilters.loads` gives them), in one query."""
    told = {
        row["run"]: row
        for row in ImportLog.objects.filter(run__in=runs)
        .order_by()
        .values("run")
        .annotate(
            files=Count("file", distinct=True, filter=~Q(file="")),
            first_file=Min("file", filter=~Q(file="")),
            table_name=Max("table"),
            chunks=Count("pk", filter=Q(event=ImportLog.Event.CHUNK)),
            loaded=Sum("rows", filter=Q(event=ImportLog.Event.CHUNK)),
            expected=Max("total"),
            began=Min("at"),
            last=Max("at"),
            said=Max("message", filter=Q(event=ImportLog.Event.FAILED)),
        )
    }
    return [
        Load(
            run=run,
            face=_outcome(run),
            files=row["files"],
            first_file=row["first_file"] or "",
            table=row["table_name"],
            chunks=row["chunks"],
            rows=row["loaded"] or 0,
            total=row["expected"],
            began=row["began"],
            last=row["last"],
            message=row["said"] or run.message,
        )
        for run in runs
        for row in [told[run.pk]]
    ]


def _outcome(run: Run) -> Face:
    if run.has_end:
        return ENDED
    if run.has_failed:
        return WENT_WRONG
    return LOADING if run.state == RunState.RUNNING else DIED


# workers and queue


@dataclass(frozen=True)
class Sign:
    """A part of the machinery and how it is, in words."""

    name: str
    face: Face
    at: datetime | None
    words: str


@dataclass(frozen=True)
class RunningBlock:
    """A running block; `silent` is how long its worker has said nothing, in seconds, `left` how long its lease still holds."""

    run: Run
    block: ScheduleBlock
    silent: float
    left: float
    face: Face
    words: str


@dataclass(frozen=True)
class Host:
    name: str
    face: Face
    at: datetime | None
    running: int
    words: str


@dataclass(frozen=True)
class Limit:
    """How full an outside system is: blocks that run there against its limit."""

    provider: Provider
    running: int

    @property
    def is_full(self) -> bool:
        return self.running >= self.provider.max_parallel


@dataclass(frozen=True)
class WorkersPage:
    """`depth` is None where the queue itself could not be asked; `trouble` says why."""

    signs: list[Sign]
    hosts: list[Host]
    running: list[RunningBlock]
    depth: int | None
    due: int
    later: int
    oldest_due: ScheduleBlock | None
    limits: list[Limit]
    restarts: list[AuditEntry]
    trouble: str
    now: datetime


def workers(now: datetime, *, depth: int | None, trouble: str = "") -> WorkersPage:
    """The page of workers and queue, in six queries; `depth` is the queue's length, asked by the caller."""
    pulses = {pulse.name: pulse for pulse in Pulse.objects.all()}
    blocks = list(ScheduleBlock.objects.running().select_related("pipeline__provider", "pipeline__portal").order_by("changed_at"))
    runs = {run.block_id: run for run in Run.objects.filter(state=RunState.RUNNING, block__in=blocks)}
    waiting = ScheduleBlock.objects.filter(state="waiting").aggregate(
        due=Count("pk", filter=Q(due_at__lte=now)), later=Count("pk", filter=Q(due_at__gt=now))
    )
    oldest = ScheduleBlock.objects.due(now).select_related("pipeline").order_by("due_at").first()
    extracting, publishing = (
        Count("pipelines__blocks", filter=_runs("pipelines__blocks", "extract"), distinct=True),
        Count("publishes__blocks", filter=_runs("publishes__blocks", "publish"), distinct=True),
    )
    providers = Provider.objects.annotate(extracting=extracting, publishing=publishing).annotate(at_work=F("extracting") + F("publishing"))
    return WorkersPage(
        signs=[
            _tick(pulses.get("tick"), now),
            _canary(pulses.get("canary"), pulses.get("canary asked"), now),
            _queue(depth, trouble),
        ],
        hosts=_hosts(pulses, blocks, now),
        running=[_running(block, runs[block.pk], now) for block in blocks if block.pk in runs],
        depth=depth,
        due=waiting["due"],
        later=waiting["later"],
        oldest_due=oldest,
        limits=[
            Limit(provider, provider.at_work)
            for provider in providers.order_by("-at_work", "title")
            if provider.at_work or (provider.blocked_until and provider.blocked_until > now)
        ],
        restarts=list(AuditEntry.objects.filter(kind="workers", verb="restart")[:RESTARTS]),
        trouble=trouble,
        now=now,
    )


def _runs(path: str, stage: str) -> Q:
    return Q(**{f"{path}__state": "running", f"{path}__stage": stage})


def _tick(pulse: Pulse | None, now: datetime) -> Sign:
    if pulse is None:
        return Sign(
            "Scheduler",
            Face("failed", "Never ticked"),
            None,
            "Nothing is planned and nobody rings for due blocks. Start it with manage.py up.",
        )
    age = now - pulse.at
    if age > TICK_SILENT:
        return Sign(
            "Scheduler",
            Face("failed", "Silent"),
            pulse.at,
            f"It last ticked {span_words(age.total_seconds())} ago; it should each minute. Start it with manage.py up.",
        )
    broken = pulse.details.get("broken", 0)
    if broken:
        many = "pipeline has a schedule" if broken == 1 else "pipelines have schedules"
        return Sign(
            "Scheduler",
            Face("suspicious", "Ticks, with trouble"),
            pulse.at,
            f"{broken} {many} that can't be planned; the log of the web server says which.",
        )
    return Sign(
        "Scheduler",
        Face("ok", "Ticks"),
        pulse.at,
        f"Last on {pulse.details.get('host', 'an unnamed host')}: {_tick_words(pulse.details)}.",
    )


def _tick_words(details: dict) -> str:
    return f"{details.get('made', 0)} blocks planned, {details.get('rung', 0)} rung for, {details.get('reaped', 0)} taken back"


def _canary(answered: Pulse | None, asked: Pulse | None, now: datetime) -> Sign:
    if answered is None:
        words = "Nobody has answered yet." if asked else "Nobody was asked yet."
        return Sign(
            "Queue",
            Face("failed" if asked else "queued", "No answer" if asked else "Not asked"),
            None,
            f"{words} Start the workers with manage.py up.",
        )
    age = now - answered.at
    if age > CANARY_SILENT:
        return Sign(
            "Queue",
            Face("failed", "Silent"),
            answered.at,
            f"A worker last answered {span_words(age.total_seconds())} ago. The watchdog restarts what stalls; see manage.py doctor.",
        )
    return Sign("Queue", Face("ok", "Answers"), answered.at, f"A worker on {answered.details.get('host', 'an unnamed host')} answered.")


def _queue(depth: int | None, trouble: str) -> Sign:
    if depth is None:
        return Sign("Messages", Face("failed", "Can't be asked"), None, trouble)
    return Sign(
        "Messages",
        Face("ok", "Empty") if depth == 0 else Face("queued", "Waiting"),
        None,
        "None is waiting." if depth == 0 else f"{depth:,} {'message waits' if depth == 1 else 'messages wait'} for a worker.",
    )


def _hosts(pulses: dict[str, Pulse], blocks: list[ScheduleBlock], now: datetime) -> list[Host]:
    """Every host that was ever heard of: by its pulse, by the tick or the canary, or by what it holds."""
    seen = {name.removeprefix("worker "): pulse for name, pulse in pulses.items() if name.startswith("worker ")}
    for name in ("tick", "canary"):
        pulse = pulses.get(name)
        host = pulse.details.get("host") if pulse else None
        if host and (host not in seen or seen[host].at < pulse.at):
            seen[host] = pulse
    held: dict[str, list[ScheduleBlock]] = {}
    for block in blocks:
        held.setdefault(block.holder.split(":")[0], []).append(block)
    return [_host(name, seen.get(name), held.get(name, []), now) for name in sorted(set(seen) | set(held))]


def _host(name: str, pulse: Pulse | None, held: list[ScheduleBlock], now: datetime) -> Host:
    at = pulse.at if pulse else None
    # a lease that is good is itself a sign of life, renewed each second
    busy = sum(block.lease_until >= now for block in held)
    if busy:
        return Host(name, Face("running", "At work"), at, busy, f"Running {busy} {'block' if busy == 1 else 'blocks'}.")
    if held:
        return Host(name, Face("crashed", "Lost"), at, 0, f"{len(held)} of its leases ran out; the next sweep takes the blocks back.")
    if now - at <= HOST_SILENT:
        return Host(name, Face("ok", "Ready"), at, 0, "Waiting for work.")
    return Host(name, Face("failed", "Silent"), at, 0, f"Nothing heard for {span_words((now - at).total_seconds())}.")


def _running(block: ScheduleBlock, run: Run, now: datetime) -> RunningBlock:
    silent, left = (now - run.beat_at).total_seconds(), (block.lease_until - now).total_seconds()
    if left < 0:
        face, words = Face("crashed", "Lease ran out"), f"{span_words(-left)} ago; the next sweep takes it back and tries again."
    elif block.cancel_asked_at:
        face, words = Face("cancelled", "Being cancelled"), f"asked by {block.cancel_asked_by or 'somebody'}"
    else:
        face, words = RUNNING, f"lease good for {span_words(left)}"
    return RunningBlock(run, block, max(silent, 0.0), left, face, words)
