"""Following: observing walks behind the runs, and never in their way.

When blocks were worked off, by a worker or by the command `run`, their process observes what they brought (`hear`). What it did not
come to, or what failed, the upkeep job "Observe sensors" does: it asks which good runs nobody has looked at, and which days should
have come and have not, and so marks them stale. A failure there is a failed upkeep run, which waits on the first page until
observing goes well again. A load is as good as it was, whatever happens here; a simulation leaves no run, and so nothing to follow.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, connections
from django.db.models import Exists, Max, OuterRef, Q
from django.utils import timezone

from catalog import audit
from perfmet import expected, observe
from perfmet.health import Thresholds
from perfmet.models import Observation, SensorWatch
from perfmet.observe import Seen
from pipelines import clock, planner
from pipelines.errors import PipelineError, SetupError
from pipelines.models import Cadence, Pulse, Run, RunState, Stage, Trigger, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from pipelines.upkeep.jobs import Job, Note

log = logging.getLogger(__name__)

KIND, TITLE = "observe", "Observe sensors"
#: How far each watch has been looked through: the pulse's details are its number → the moment.
PULSE = "observing"
#: A run that ended so long before the last look may have been written down only after it.
OVERLAP = timedelta(minutes=10)
#: Two blocks of one day may end at once: one that ended so shortly before the day was observed may not be in it.
AT_ONCE = timedelta(seconds=10)

Todo = list[tuple[SensorWatch, list[date]]]


# what there is to do


def unseen(*, block_ids: Collection[int] | None = None, now: datetime) -> Todo:
    """The days of good runs that nobody has observed since, by watch; of these blocks, or all since each watch was last looked through.

    Four queries, and one for each hourly pipeline; one where nothing is watched.
    """
    watches = {watch.pipeline_id: watch for watch in _watches(block_ids)}
    if not watches:
        return []
    found = _runs(watches, block_ids, now)
    days = {run["pk"]: _days(watches[run["block__pipeline"]], run) for run in found}
    seen = _seen({watches[run["block__pipeline"]] for run in found}, {day for each in days.values() for day in each})
    todo: dict[int, set[date]] = defaultdict(set)
    for run in found:
        watch = watches[run["block__pipeline"]]
        is_part = watch.pipeline.cadence == Cadence.HOURLY
        todo[run["block__pipeline"]] |= {day for day in days[run["pk"]] if _is_unseen(run, seen.get((watch.pk, day)), is_part=is_part)}
    whole = [(watches[pk], sorted(whole_days(watches[pk], each, now))) for pk, each in todo.items()]
    return [(watch, each) for watch, each in whole if each]


def _watches(block_ids: Collection[int] | None) -> Iterable[SensorWatch]:
    watches = SensorWatch.objects.filter(is_active=True).select_related("pipeline__provider").order_by("pk")
    return watches if block_ids is None else watches.filter(pipeline__blocks__in=block_ids).distinct()


def _runs(watches: dict[int, SensorWatch], block_ids: Collection[int] | None, now: datetime) -> list[dict[str, Any]]:
    """The newest run of each block that brought something to observe: of standardize where it counted, else of load."""
    good = Run.objects.filter(state=RunState.DONE)
    # one that counts nothing may be of a file that names no sensors: then the table tells, and where there is none, nobody
    counted = Q(stage=Stage.STANDARDIZE, details__has_key="observations") & ~Q(details__observations={})
    counts = good.filter(counted, block=OuterRef("block"))
    wanted = counted | Q(stage=Stage.LOAD) & ~Exists(counts)
    runs = good.filter(wanted, block__pipeline__in=watches).order_by("block_id", "-pk").distinct("block_id")
    if block_ids is not None:
        return list(runs.filter(block__in=block_ids).values(*_RUN))
    since = looked_until(watches.values(), now)
    recent = runs.filter(finished_at__gte=min(since.values())).values(*_RUN)
    return [run for run in recent if run["finished_at"] >= since[watches[run["block__pipeline"]].pk]]


_RUN = ("pk", "block__pipeline", "block__starts_at", "block__ends_at", "finished_at")


def _days(watch: SensorWatch, run: dict[str, Any]) -> list[date]:
    """The days that a run may have changed: of a window its own, of a snapshot the last of its rule's window."""
    if not watch.pipeline.is_snapshot:
        return observe.days_of(watch.pipeline, run["block__starts_at"], run["block__ends_at"])
    [today] = observe.days_of(watch.pipeline, run["finished_at"], run["finished_at"] + timedelta(microseconds=1))
    return observe.days_between(today - timedelta(days=watch.window_days), today - timedelta(days=1))


def _seen(watches: Collection[SensorWatch], days: Collection[date]) -> dict[tuple[int, date], tuple[int, datetime]]:
    """(watch, day) to the newest run that was observed, and when."""
    if not days:
        return {}
    rows = Observation.objects.filter(watch__in=watches, day__gte=min(days), day__lte=max(days), run_id__isnull=False).order_by()
    return {(watch, day): (run_id, at) for watch, day, run_id, at in rows.values_list("watch", "day").annotate(Max("run_id"), Max("at"))}


def _is_unseen(run: dict[str, Any], seen: tuple[int, datetime] | None, *, is_part: bool) -> bool:
    if seen is None or run["pk"] > seen[0]:
        return True
    # of several blocks of a day, the one with the smaller number may end last
    return is_part and run["pk"] != seen[0] and run["finished_at"] > seen[1] - AT_ONCE


def looked_until(watches: Iterable[SensorWatch], now: datetime) -> dict[int, datetime]:
    """Number of a watch to the moment up to which its runs have been looked through; of a new one, the horizon of the planner."""
    told = Pulse.objects.filter(name=PULSE).values_list("details", flat=True).first() or {}
    horizon = now - timedelta(days=settings.PLAN_HORIZON_DAYS)
    return {watch.pk: max(horizon, datetime.fromisoformat(told[str(watch.pk)]) - OVERLAP) if str(watch.pk) in told else horizon for watch in watches}


def overdue(now: datetime) -> Todo:
    """The days that should have come by now, and of which nobody has observed anything: stale, unless something came. Two queries.

    Only of daily and hourly pipelines that the schedule runs, and from the first day on that was ever observed.
    """
    todo: Todo = []
    watches = [watch for watch in _watches(None) if _is_followed(watch)]
    rows = Observation.objects.filter(watch__in=watches, day__gte=(now - timedelta(days=2 * 366)).date()).order_by()
    known: dict[int, dict[date, int]] = defaultdict(dict)
    for watch, day, most in rows.values_list("watch", "day").annotate(Max("rows")):
        known[watch][day] = most
    for watch in watches:
        reach, observed = expected.reach(watch.window_days), known[watch.pk]
        heard = [day for day, rows in observed.items() if rows]
        late = timedelta(hours=_late(watch))
        windows = planner.owed_windows(watch.pipeline, now - reach, now)
        # the last window of a day says that the whole day should be here
        due = {observe.days_of(watch.pipeline, *window)[-1]: planner.due_at(watch.pipeline, *window) for window in windows}
        days = [day for day, at in due.items() if at + late <= now and day not in observed and any(day - reach <= one < day for one in heard)]
        if days:
            todo.append((watch, sorted(days)))
    return todo


def open_days(watch: SensorWatch, days: Iterable[date], now: datetime) -> set[date]:
    """Those of the days that may still come: the block with their end is not due, or its hours of grace are not over."""
    pipeline, late = watch.pipeline, timedelta(hours=_late(watch))
    found = set()
    for day in days:
        end = clock.day_start(day + clock.DAY, pipeline.time_zone) - timedelta(microseconds=1)
        if planner.due_at(pipeline, *clock.window_at(pipeline.rhythm, pipeline.time_zone, end)) + late > now:
            found.add(day)
    return found


def whole_days(watch: SensorWatch, days: Collection[date], now: datetime) -> set[date]:
    """Those of the days that can be judged: of an hourly pipeline, when its last hour has come or comes no more. Half a day would be low."""
    pipeline = watch.pipeline
    waiting = open_days(watch, days, now) if pipeline.cadence == Cadence.HOURLY else set()
    if not waiting:
        return set(days)
    ends = {clock.day_start(day + clock.DAY, pipeline.time_zone): day for day in waiting}
    good = Run.objects.filter(state=RunState.DONE, stage__in=[Stage.STANDARDIZE, Stage.LOAD], block__pipeline=pipeline, block__ends_at__in=ends)
    return set(days) - (waiting - {ends[end] for end in good.values_list("block__ends_at", flat=True)})


def _is_followed(watch: SensorWatch) -> bool:
    pipeline = watch.pipeline
    rests = pipeline.is_paused or not pipeline.provider.is_active or pipeline.is_snapshot
    return not rests and pipeline.cadence in (Cadence.HOURLY, Cadence.DAILY)


def _late(watch: SensorWatch) -> float:
    try:
        return Thresholds.of(settings.SENSOR_THRESHOLDS, watch.thresholds).late
    except SetupError:
        # told where the watch is observed; here it must not keep the others from being looked at
        return settings.SENSOR_THRESHOLDS["late"]


# doing it


@dataclass(frozen=True)
class Followed:
    """What became of it: what was observed, and for each watch that failed its sentence."""

    seen: list[tuple[SensorWatch, Seen]]
    failed: list[tuple[SensorWatch, str]]

    @property
    def words(self) -> str:
        days = sum(len(seen.days) for _, seen in self.seen)
        watches = len(self.seen)
        return f"Observed {days:,} day{'s' * (days != 1)} of {watches:,} pipeline{'s' * (watches != 1)}." if days else "There was nothing to observe."


def carry_out(todo: Todo, note: Note | None = None) -> Followed:
    """Observe these days; a watch that fails does not stop the others. Raises what says that the control database is away."""
    followed = Followed([], [])
    for watch, days in todo:
        if note:
            note(f"Observing {watch.pipeline.slug}.")
        try:
            followed.seen.append((watch, observe.gather(watch, days)))
        except PipelineError as error:
            followed.failed.append((watch, f"{watch.pipeline.slug}: {error.message} {error.next_step}".strip()))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.exception("Observing %s broke", watch.pipeline.slug)
            words = f"{watch.pipeline.slug}: unexpected {type(error).__name__}: {error}. This is a fault of the program: report it."
            followed.failed.append((watch, words))
    for _, words in followed.failed:
        log.warning("Observing failed, and will be tried again: %s", words)
    return followed


def hear(block_ids: Collection[int], **_: Any) -> None:
    """Receiver of `runner.after_work`. What fails is asked of the upkeep job at once, where it is seen. Raises nothing that a load could feel."""
    try:
        if carry_out(unseen(block_ids=block_ids, now=timezone.now())).failed:
            _have_it_seen()
    except (OperationalError, InterfaceError) as error:
        log.warning("The control database is away; what was run now is observed later: %s", error)
        if not connection.in_atomic_block:
            connections.close_all()
    except Exception:
        log.exception("Observing after a run broke; the upkeep job tries again")


def _have_it_seen() -> None:
    """Do it again as the upkeep job: if it fails once more, a failed run stands on the first page."""
    answer = jobs.start(the_job(), actor=audit.SCHEDULE, reason="Observing failed after a run.", trigger=Trigger.SCHEDULE)
    if answer.run:
        jobs.carry_out(answer.run.pk)


def the_job() -> UpkeepJob:
    """The job, made where there is none. One that somebody has changed or switched off stays so."""
    if job := UpkeepJob.objects.filter(kind=KIND).order_by("pk").first():
        return job
    values = {"kind": KIND, "cadence": Cadence.HOURLY, "at_time": time(0, 10), "time_zone": settings.TIME_ZONE}
    return UpkeepJob.objects.get_or_create(title=TITLE, defaults=values)[0]


def keep_job(*, raw: bool = False, **_: Any) -> None:
    """Receiver: where sensors are watched, there is the job that looks after them. `raw`: a backup is being read in, jobs and all."""
    if not raw:
        the_job()


class Observe(Job):
    """Does nothing while everything is observed by those who ran it; then the schedule makes no run of it."""

    kind = KIND
    label = "Observe sensors"
    about = "Observes what runs brought and nobody has looked at yet, and calls a day stale that should have come. Most hours there is nothing to do."

    def has_work(self, job: UpkeepJob) -> bool:
        newest = job.runs.order_by("-pk").first()
        # what failed must be told as mended too, though somebody else has done the work meanwhile
        return bool(newest and newest.state == UpkeepRun.State.FAILED) or bool(self._todo(job, timezone.now()))

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        now = timezone.now()
        followed = carry_out(self._todo(job, now), note)
        self._remember(job, now, {watch.pk for watch, _ in followed.failed})
        note(days={watch.pipeline.slug: len(seen.days) for watch, seen in followed.seen})
        if followed.failed:
            well = f"{followed.words} " if followed.seen else ""
            raise SetupError(f"{well}{' '.join(words for _, words in followed.failed)} It is tried again each hour.", code="not-observed")
        return followed.words

    def _todo(self, job: UpkeepJob, now: datetime) -> Todo:
        days: dict[int, set[date]] = defaultdict(set)
        watches: dict[int, SensorWatch] = {}
        chosen = set(job.pipelines.values_list("pk", flat=True))
        for watch, each in [*unseen(now=now), *overdue(now)]:
            if not chosen or watch.pipeline_id in chosen:
                watches[watch.pk] = watch
                days[watch.pk] |= set(each)
        return [(watches[pk], sorted(each)) for pk, each in days.items()]

    def _remember(self, job: UpkeepJob, now: datetime, failed: Collection[int]) -> None:
        """How far all is looked through now; where it failed, and what the job leaves out, it stays as it was."""
        told = Pulse.objects.filter(name=PULSE).values_list("details", flat=True).first() or {}
        chosen = set(job.pipelines.values_list("pk", flat=True))
        looked = {watch.pk for watch in _watches(None) if not chosen or watch.pipeline_id in chosen} - set(failed)
        planner.beat(PULSE, **{**told, **{str(pk): now.isoformat() for pk in looked}})
