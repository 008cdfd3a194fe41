"""What the first page, the search and the health checks print. Fixed numbers of queries; nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Min, Q
from django.urls import reverse

from catalog.models import Dataset, RefreshRate
from pipelines import clock, planner
from pipelines.models import Pipeline, Provider, Pulse, Run, ScheduleBlock
from pipelines.selectors import faces, schedule, today
from pipelines.selectors.after import Failure
from pipelines.selectors.after import failures as after_failures
from pipelines.selectors.faces import Face
from pipelines.selectors.promises import LatePromise, late_promises, promise_words
from pipelines.selectors.trouble import Trouble
from pipelines.selectors.trouble import troubles as all_troubles
from pipelines.selectors.upkeep import RunLine
from pipelines.selectors.upkeep import failures as upkeep_failures

#: The tick comes once a minute, the canary is asked with it: three missed ones are a silence.
SILENT_AFTER = timedelta(minutes=3)
HITS = 25


# the machinery, for the foot of the rail


@dataclass(frozen=True)
class Machinery:
    """Whether anybody plans and anybody listens, in one state and a few words."""

    face: Face
    words: str
    tick_at: datetime | None


def machinery(now: datetime) -> Machinery:
    """One query: the pulses of the tick and of the queue's canary; a second one only where the canary is silent."""
    at = dict(Pulse.objects.filter(name__in=["tick", "canary", "canary asked"]).values_list("name", "at"))
    tick_at, canary_at, asked_at = at.get("tick"), at.get("canary"), at.get("canary asked")
    if tick_at is None:
        return Machinery(Face("queued", "Not started"), "Not started", None)
    if tick_at < now - SILENT_AFTER:
        return Machinery(Face("failed", "Silent"), "Scheduler silent", tick_at)
    if canary_at is None or canary_at < now - SILENT_AFTER:
        # the canary stands in the same queue: workers that are all busy have not come to it yet
        if ScheduleBlock.objects.running().filter(lease_until__gt=now).exists():
            return Machinery(Face("ok", "Busy"), "Workers busy", tick_at)
        if canary_at is None and asked_at and asked_at > now - SILENT_AFTER:
            return Machinery(Face("queued", "Starting"), "Workers starting", tick_at)
        return Machinery(Face("failed", "Silent"), "Workers silent", tick_at)
    return Machinery(Face("ok", "Listening"), "Workers listening", tick_at)


# what needs a person


@dataclass(frozen=True)
class Need:
    """One thing that somebody must look at: what, since when, the first bad hop and why, and the one button."""

    face: Face
    title: str
    href: str
    since: datetime | None
    hop: str
    cause: str
    next_step: str
    act: str
    act_href: str
    is_act: bool = False


#: Trouble that stops data goes before trouble that only waits.
_RANK = {"failed": 0, "crashed": 0, "suspicious": 1, "late": 2, "paused": 3}


def needs(pipelines: list[Pipeline], troubles: list[Trouble], failures: list[Failure], upkeep: list[RunLine], now: datetime) -> list[Need]:
    """Everything that needs a person, worst first, then oldest. Asks nothing."""
    by_pk = {pipeline.pk: pipeline for pipeline in pipelines}
    # a pipeline that was made between the two questions is told of next time
    found = [_trouble_need(by_pk[trouble.pipeline_id], trouble) for trouble in troubles if trouble.pipeline_id in by_pk]
    found += [_late_need(promise) for promise in late_promises(pipelines, now)]
    found += [_paused_need(pipeline) for pipeline in pipelines if pipeline.is_paused]
    found += [_after_need(failure) for failure in failures]
    found += [_upkeep_need(line) for line in upkeep]
    return sorted(found, key=lambda need: (_RANK.get(need.face.look, 4), need.since or now, need.title))


@dataclass(frozen=True)
class Rail:
    """What the rail beside every page tells: how many things need a person, and whether there are trips to report on."""

    needs: int
    has_trips: bool


def rail(now: datetime) -> Rail:
    """The questions of `needs_count`, and no more."""
    pipelines = list(schedule.pipelines_with_newest())
    return Rail(len(needs(pipelines, all_troubles(now), after_failures(), upkeep_failures(), now)), has_trips(pipelines))


def has_trips(pipelines: list[Pipeline]) -> bool:
    return any(pipeline.provider.kind == "mds" for pipeline in pipelines)


def needs_count(now: datetime) -> int:
    """How many things need a person: the number beside "Today". Four queries."""
    return rail(now).needs


def _trouble_need(pipeline: Pipeline, trouble: Trouble) -> Need:
    block = reverse("block", args=[trouble.block_id])
    many = trouble.count > 1
    failed = trouble.face.look in ("failed", "crashed")
    if many and failed:
        zone = clock.zone(pipeline.time_zone)
        bounds = f"from={trouble.first_start.astimezone(zone):%Y-%m-%dT%H:%M}&to={trouble.last_end.astimezone(zone):%Y-%m-%dT%H:%M}"
        act, act_href = f"Retry {trouble.count:,} blocks", f"{reverse('rerun', args=[pipeline.slug])}?which=failed&{bounds}"
    elif many:
        act, act_href = (
            f"See {trouble.count:,} blocks",
            f"{reverse('blocks')}?state={'held' if trouble.face == faces.HELD else 'suspicious'}&pipeline={pipeline.slug}",
        )
    else:
        act, act_href = "Open block", block
    cause = trouble.message or "No reason was given."
    return Need(
        face=trouble.face,
        title=pipeline.title,
        href=pipeline.get_absolute_url(),
        since=trouble.since,
        # of rows that are odd nobody knows yet where they went wrong
        hop="Rows" if trouble.face == faces.SUSPICIOUS else trouble.hop,
        cause=f"{trouble.count:,} blocks; the last: {cause}" if many else cause,
        next_step=trouble.next_step,
        act=act,
        act_href=act_href,
        is_act=many and failed,
    )


def _paused_need(pipeline: Pipeline) -> Need:
    page = pipeline.get_absolute_url()
    cause = pipeline.paused_reason or "Nobody said why."
    return Need(faces.PAUSED, pipeline.title, page, None, "Schedule", cause, "", "See and resume", page)


def _after_need(failure: Failure) -> Need:
    return Need(
        face=faces.FAILED,
        title=failure.pipeline.title,
        href=f"{reverse('block', args=[failure.block_id])}#after",
        since=failure.line.at,
        hop="After the load",
        cause=f"{failure.words}: {failure.line.message}",
        next_step="The load itself is as good as it was.",
        act="Retry",
        act_href=reverse("after_retry", args=[failure.line.pk]),
        is_act=True,
    )


def _upkeep_need(line: RunLine) -> Need:
    page = reverse("upkeep_job", args=[line.run.job_id])
    return Need(faces.FAILED, line.run.job.title, page, line.run.asked_at, "Upkeep", line.run.message, "", "Look, and run it again", page)


def _late_need(promise: LatePromise) -> Need:
    zone = clock.zone(settings.TIME_ZONE)
    if promise.newest:
        newest = promise.newest.astimezone(zone)
        # an end at midnight is the end of the day before, and is called by that day's name
        last = newest - timedelta(microseconds=1) if newest.time() == time.min else newest
        shown = f"The newest data is of {last:%b} {last.day}" + (f", up to {last:%H:%M}" if last == newest else "")
    else:
        shown = "Nothing has arrived yet"
    return Need(
        face=faces.LATE,
        title=promise.dataset.title,
        href=reverse("dataset", args=[promise.dataset.slug]),
        since=promise.since,
        hop="Promise",
        cause=f"{promise_words(promise.dataset)}, as the public was told. {shown}.",
        next_step="",
        act="See its blocks",
        act_href=promise.pipeline.get_absolute_url(),
    )


# the first page


@dataclass(frozen=True)
class Counter:
    """One of the five numbers: what it counts, a small note, and the list that it leads to."""

    face: Face
    number: int
    note: str
    href: str


@dataclass(frozen=True)
class Board:
    """Everything on the first page."""

    counters: list[Counter]
    needs: list[Need]
    lines: list[schedule.PipelineLine]
    heads: list[schedule.DayHead]
    weeks: list
    hours: today.Hours
    running: list[today.RunningLine]
    datasets: int
    providers: int

    @property
    def is_set_up(self) -> bool:
        return bool(self.lines)

    @property
    def rail(self) -> Rail:
        """What the rail would count again."""
        return Rail(len(self.needs), has_trips([line.pipeline for line in self.lines]))

    @property
    def mondays(self) -> set[int]:
        """The columns of the day grid at which a week begins."""
        return {place for place, head in enumerate(self.heads) if head.is_monday}


def board(now: datetime) -> Board:
    """The first page in nine queries: pipelines, troubles, what failed beside them, days, today's runs, running blocks, what is due."""
    pipelines = list(schedule.pipelines_with_newest())
    troubles = all_troubles(now)
    needed = needs(pipelines, troubles, after_failures(), upkeep_failures(), now)
    lines = schedule.pipeline_lines(pipelines, now)
    running = today.running()
    soon = today.due_soon(pipelines, now)
    lines.sort(key=lambda line: (faces.WORST_FIRST.index(line.face), line.pipeline.title))
    heads = schedule.day_heads(now)
    return Board(
        counters=_counters(pipelines, needed, troubles, running, soon, now),
        needs=needed,
        lines=lines,
        heads=heads,
        weeks=schedule.weeks(heads),
        hours=today.today_by_hour(pipelines, now),
        running=running,
        datasets=len({pipeline.dataset_id for pipeline in pipelines}),
        providers=len({pipeline.provider_id for pipeline in pipelines}),
    )


def _counters(pipelines, needed, troubles, running, soon, now) -> list[Counter]:
    failed = [trouble for trouble in troubles if trouble.face.look in ("failed", "crashed")]
    suspicious = [trouble for trouble in troubles if trouble.face == faces.SUSPICIOUS]
    late = [need for need in needed if need.face == faces.LATE]
    stopped = len({trouble.pipeline_id for trouble in failed})
    promised = {pipeline.dataset_id for pipeline in pipelines if pipeline.dataset.refresh_rate != RefreshRate.IRREGULAR}
    city = clock.zone(settings.TIME_ZONE)
    oldest = min((line.since for line in running), default=None)
    blocks = reverse("blocks")
    return [
        Counter(
            Face("failed", "Failed now"),
            sum(trouble.count for trouble in failed),
            f"blocks of {stopped} {'pipeline' if stopped == 1 else 'pipelines'}" if stopped else "nothing has failed",
            f"{blocks}?state=failed",
        ),
        Counter(Face("late", "Late promises"), len(late), f"of {len(promised)} made to the public", f"{reverse('pipelines')}?show=late"),
        Counter(
            Face("suspicious", "Suspicious"), sum(trouble.count for trouble in suspicious), "arrived, but not as usual", f"{blocks}?state=suspicious"
        ),
        Counter(
            faces.RUNNING, len(running), f"oldest since {oldest.astimezone(city):%H:%M}" if oldest else "nothing just now", f"{blocks}?state=running"
        ),
        Counter(
            Face("queued", "Due in 2 h"),
            soon.count,
            f"next {'now' if soon.first_at <= now else f'{soon.first_at.astimezone(city):%H:%M}'}, {soon.first_title}"
            if soon.first_at
            else "nothing is planned",
            f"{reverse('pipelines')}?show=due",
        ),
    ]


# search


@dataclass(frozen=True)
class Hit:
    kind: str
    title: str
    href: str
    note: str


def search(words: str, may_edit: bool = False) -> list[Hit]:
    """Datasets, pipelines, providers by name, address or portal id; runs and blocks by number. Five queries at most, none for nothing."""
    words = words.strip()
    if not words:
        return []
    hits = []
    number = words.lower().removeprefix("run").removeprefix("block").strip().lstrip("#").replace(",", "")
    if number.isdecimal() and len(number) < 19:
        for block in ScheduleBlock.objects.filter(pk=number).select_related("pipeline"):
            hits.append(Hit("Block", f"Block {block.pk:,}", block.get_absolute_url(), str(block)))
        for run in Run.objects.filter(pk=number).select_related("block__pipeline"):
            hits.append(Hit("Run", f"Run {run.pk:,}", run.block.get_absolute_url(), f"{run.stage} of {run.block}"))
    datasets = Dataset.objects.filter(
        Q(title__icontains=words)
        | Q(slug__icontains=words)
        | Q(tags__icontains=words)
        | Q(department__icontains=words)
        | Q(description__icontains=words)
    )
    hits += [Hit("Dataset", found.title, found.get_absolute_url(), found.department) for found in datasets[:HITS]]
    pipelines = Pipeline.objects.select_related("provider").filter(
        Q(title__icontains=words)
        | Q(slug__icontains=words)
        | Q(resource__icontains=words)
        | Q(portal_resource__icontains=words)
        | Q(table__icontains=words)
        | Q(provider__title__icontains=words)
    )
    for found in pipelines[:HITS]:
        shown = [f"{found.provider.title} {found.resource}", *([f"published as {found.portal_resource}"] if found.portal_resource else [])]
        hits.append(Hit("Pipeline", found.title, found.get_absolute_url(), ", ".join(shown)))
    providers = Provider.objects.filter(Q(title__icontains=words) | Q(slug__icontains=words) | Q(base_url__icontains=words))
    for found in providers[:HITS]:
        href = reverse("admin:pipelines_provider_change", args=[found.pk]) if may_edit else f"{reverse('pipelines')}?provider={found.slug}"
        hits.append(Hit("Provider", found.title, href, found.base_url))
    return hits


# health


@dataclass(frozen=True)
class Readiness:
    ok: bool
    problems: list[str]


def readiness() -> Readiness:
    """Whether pages can be served: the database answers, and its tables are those of this code."""
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        behind = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return Readiness(False, [f"The database does not answer: {type(error).__name__}"])
    if behind:
        return Readiness(False, [f"{len(behind)} migrations are not applied, first {behind[0][0]}. Run: python3 manage.py migrate"])
    return Readiness(True, [])


def status(now: datetime) -> dict:
    """How the machinery is, for a monitor: ages in seconds, None where nothing is known. Six queries."""

    def age(moment: datetime | None) -> float | None:
        return round((now - moment).total_seconds(), 1) if moment else None

    pulses = dict(Pulse.objects.values_list("name", "at"))
    active = Q(pipeline__is_paused=False, pipeline__provider__is_active=True)
    oldest_due = ScheduleBlock.objects.due(now).filter(active).aggregate(at=Min("due_at"))["at"]
    return {
        "at": now.isoformat(),
        "tick_age": age(pulses.get("tick")),
        "queue_age": age(pulses.get("canary")),
        "workers": {name.removeprefix("worker "): age(at) for name, at in pulses.items() if name.startswith("worker ")},
        "oldest_due_age": age(oldest_due),
        "due": ScheduleBlock.objects.due(now).count(),
        "running": ScheduleBlock.objects.running().count(),
        "stalled": ScheduleBlock.objects.stalled(now).count(),
        "failed": ScheduleBlock.objects.failed_for_good().count(),
        "queue_depth": planner.queue_depth(),
    }
