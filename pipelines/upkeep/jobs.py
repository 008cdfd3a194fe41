"""Upkeep jobs: what is done now and then beside the blocks. Whose turn it is, who does it, and what became of it.

A job's kind is a class of this package: say `kind`, `label` and `options`, write `run`, and it is registered. A button, a command
and the schedule ask for it alike (`start`), a worker or the command does it (`carry_out`), and one that was lost is given up. Of
one job one run at a time goes on; a constraint of the database keeps that.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from catalog import audit
from catalog.audit import Actor
from pipelines import clock, secrets
from pipelines.connectors.base import Parameter
from pipelines.errors import PipelineError, SetupError
from pipelines.models import Cadence, Pipeline, Trigger, UpkeepJob, UpkeepRun
from pipelines.upkeep import telling

log = logging.getLogger(__name__)

#: A running job that has said nothing for so long was lost with its worker; jobs note their progress far more often.
LOST_AFTER = timedelta(minutes=30)
#: A message that nobody took by then was lost: the tick rings again.
RING_AFTER = timedelta(seconds=30)
LONGEST_WORDS = 2_000
#: A notice is cut into ten posts of 3,000 characters at most; what would come after is not kept either.
LONGEST_NOTICE = 40_000
#: A page can show no more of a table, and each run keeps its own.
MOST_FINDINGS = 5_000
#: How often a job that walks through a long list gives a sign of life.
BEAT_SECONDS = 5
#: Of all cadences, monthly lets the most days pass.
LONGEST_PAUSE_DAYS = 63

KINDS: dict[str, type[Job]] = {}


@dataclass
class Note:
    """What a job says while it works: words for its page. Each is a sign of life, so say one at least every few minutes."""

    run: UpkeepRun
    details: dict[str, Any] = field(default_factory=dict)
    #: What a webhook is to be told, None where the job says nothing of its own; and whether that is bad news.
    told: str | None = None
    is_trouble: bool = False
    is_news: bool = False
    _beat_at: float = field(default_factory=time.monotonic)

    @property
    def is_dry(self) -> bool:
        """Whether the job is only to look: it changes nothing, here and elsewhere, and says what it would have done."""
        return self.run.is_dry

    def findings(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Keep what was found, as a table of plain values. Of a very long one the page has the beginning, and how much more there is."""
        kept = [[_plain(cell) for cell in row] for row in rows]
        table: dict[str, Any] = {"columns": list(columns), "rows": kept[:MOST_FINDINGS]}
        self(findings=table | ({"more": len(kept) - MOST_FINDINGS} if len(kept) > MOST_FINDINGS else {}))

    def notice(self, text: str, *, trouble: bool, is_news: bool = True) -> None:
        """What a webhook is to be told when the run has ended, in Slack's words; `trouble`: something is wrong that a person must mend.

        What is no news is told only where it ends trouble.
        """
        self.told, self.is_trouble, self.is_news = text, trouble, is_news

    def walk(self, words: str = "") -> None:
        """Say `words` where nothing was said for some seconds: to be called at each step of a long walk."""
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            self(words)

    def __call__(self, words: str = "", **details: Any) -> None:
        """Keep `words` as what it does now, and `details` (plain JSON values) with the run. Raises JobLost when it was given up."""
        self._beat_at = time.monotonic()
        self.details |= details
        changes: dict[str, Any] = {"beat_at": Now(), "details": self.details} | ({"message": _clean(words)} if words else {})
        if not UpkeepRun.objects.filter(pk=self.run.pk, state=UpkeepRun.State.RUNNING).update(**changes):
            raise JobLost(f"{self.run} was given up for lost")


class JobLost(Exception):
    """The run was given up while it worked: somebody else may have begun again, and what this one would still write is void."""


class Job(ABC):
    """One kind of upkeep. Subclass it in a module of this package with `kind` and `label`, and it is registered."""

    kind: ClassVar[str] = ""
    label: ClassVar[str] = ""
    #: One sentence for the page: what it does.
    about: ClassVar[str] = ""
    #: What `UpkeepJob.options` may hold; every value is optional and its default a word of text.
    options: ClassVar[tuple[Parameter, ...]] = ()
    #: It can look without changing anything (`note.is_dry`); one that only ever looks can as well.
    can_dry: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.kind or not cls.label:
            raise TypeError(f"{cls.__name__} must say its kind and its label")
        if cls.kind in KINDS:
            raise TypeError(f"two upkeep jobs say that they are {cls.kind!r}: {KINDS[cls.kind].__name__}, {cls.__name__}")
        KINDS[cls.kind] = cls

    @abstractmethod
    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        """Do it once; return what was done, in a sentence. `note(words, **details)` tells the page meanwhile. Raises PipelineError.

        It may be begun again after a worker was lost, so twice must be harmless.
        """

    def has_work(self, job: UpkeepJob) -> bool:
        """Whether there is anything to do, asked when the schedule's time has come: where there is not, no run is made of it."""
        return True

    def pipelines_of(self, job: UpkeepJob) -> QuerySet[Pipeline]:
        """The pipelines that the job names, or all of them."""
        named = job.pipelines.select_related("provider", "dataset", "portal")
        return named if job.pipelines.exists() else Pipeline.objects.select_related("provider", "dataset", "portal")

    @classmethod
    def word(cls, job: UpkeepJob, name: str) -> str:
        """An option as text without spaces at its ends; its declared default where the job says nothing."""
        declared = next(option for option in cls.options if option.name == name)
        return str(job.options.get(name, declared.default) or "").strip()

    @classmethod
    def words(cls, job: UpkeepJob, name: str) -> list[str]:
        """An option that is a list, or text with commas or line ends between its parts."""
        declared = next(option for option in cls.options if option.name == name)
        given = job.options.get(name, declared.default) or []
        parts = given if isinstance(given, list) else str(given).replace("\n", ",").split(",")
        return [text for part in parts if (text := str(part).strip())]

    @classmethod
    def is_yes(cls, job: UpkeepJob, name: str) -> bool:
        """An option that is yes or no. Raises SetupError."""
        given = cls.word(job, name).lower()
        if given not in ("yes", "no"):
            raise SetupError(
                f"{job}: {name} must be yes or no, not {given!r}.", code="bad-option", next_step="Correct it under Settings, Upkeep jobs."
            )
        return given == "yes"

    @classmethod
    def number(cls, job: UpkeepJob, name: str) -> int:
        """An option as a whole number of 0 or more; its declared default where the job says nothing. Raises SetupError."""
        declared = next(option for option in cls.options if option.name == name)
        given = job.options.get(name, declared.default)
        try:
            number = int(given)
        except (TypeError, ValueError):
            number = -1
        if number < 0:
            raise SetupError(
                f"{job}: {name} must be a whole number, not {given!r}.", code="bad-option", next_step="Correct it under Settings, Upkeep jobs."
            )
        return number


def kinds() -> Mapping[str, type[Job]]:
    """Every kind that there is: the modules of this package are imported once."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return KINDS


def kind_of(job: UpkeepJob) -> type[Job]:
    """The class of a job. Raises SetupError naming the kinds that there are."""
    try:
        return kinds()[job.kind]
    except KeyError:
        raise SetupError(
            f"{job}: there is no upkeep job of the kind {job.kind!r}; the kinds are: {', '.join(sorted(KINDS))}.",
            code="unknown-kind",
            next_step="Choose one of these kinds under Settings, Upkeep jobs.",
        ) from None


def check(job: UpkeepJob) -> None:
    """Whether the kind is known and its options are. Raises ValidationError by field."""
    try:
        kind = kind_of(job)
    except SetupError as error:
        raise ValidationError({"kind": error.message}) from error
    known = {option.name for option in kind.options}
    if not isinstance(job.options, dict):
        raise ValidationError({"options": 'Give names and values, like {"days": 35}.'})
    if strangers := sorted(set(job.options) - known):
        raise ValidationError({"options": f"{kind.label} has no {', '.join(strangers)}. It knows: {', '.join(sorted(known)) or 'none'}."})
    if (job.cadence == Cadence.CRON) != bool(job.cron):
        raise ValidationError({"cron": "A cron expression goes with the cadence “By a cron expression”, and that cadence with an expression."})
    most = {Cadence.WEEKLY: 7, Cadence.MONTHLY: 31}.get(Cadence(job.cadence))
    if most and not 1 <= job.day <= most:
        raise ValidationError({"day": f"Give a day from 1 to {most}."})


# when


def next_time(job: UpkeepJob, after: datetime) -> datetime | None:
    """The first time after `after` at which the schedule has it done, as a UTC instant; None: only by hand.

    The time of day is the city's, on days when the clock changes too: one that is skipped is taken at the next valid minute, one
    that comes twice at its first. Of an hourly job only the minute counts; a month without its day has it on its last. Raises
    ValueError where zone or day make no sense.
    """
    at = job.at_time or datetime.min.time()
    if job.cadence in (Cadence.MANUAL, Cadence.ONCE):
        return None
    if job.cadence == Cadence.CRON:
        return next(clock.cron_times(job.cron, job.time_zone, after))
    if job.cadence == Cadence.HOURLY:
        moment = after.astimezone(UTC).replace(minute=at.minute, second=0, microsecond=0)
        return moment if moment > after else moment + clock.HOUR
    today = after.astimezone(clock.zone(job.time_zone)).date()
    for days in range(LONGEST_PAUSE_DAYS):
        day = today + timedelta(days=days)
        if _is_its_day(job, day) and (moment := clock.local_instant(day, at, job.time_zone)) > after:
            return moment
    raise ValueError(f"{job} has no day {job.day} in its {job.cadence} round")


def _is_its_day(job: UpkeepJob, day: date) -> bool:
    if job.cadence == Cadence.WEEKLY:
        return day.isoweekday() == job.day
    if job.cadence == Cadence.MONTHLY:
        return day.day == job.day or (day.day < job.day and (day + clock.DAY).day == 1)
    return True


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def rhythm(job: UpkeepJob) -> str:
    """When it is done, in words: "every day at 02:00 (America/Chicago)", "on day 3 of the month at 07:40 (UTC)"."""
    at = f"{job.at_time or datetime.min.time():%H:%M} ({job.time_zone})"
    return {
        Cadence.MANUAL: "only by hand",
        Cadence.ONCE: "only by hand",
        Cadence.CRON: f"{clock.cron_words(job.cron)[:1].lower()}{clock.cron_words(job.cron)[1:]} ({job.time_zone})",
        Cadence.HOURLY: f"every hour, {job.at_time.minute if job.at_time else 0} minutes past",
        Cadence.DAILY: f"every day at {at}",
        Cadence.WEEKLY: f"every {WEEKDAYS[(job.day - 1) % 7]} at {at}",
        Cadence.MONTHLY: f"on day {job.day} of the month at {at}",
    }[Cadence(job.cadence)]


def plan(now: datetime) -> int:
    """Give every active job that has none its next time. Returns how many got one; a job is not begun by having been made."""
    fresh = 0
    for job in UpkeepJob.objects.filter(is_active=True, next_at=None).exclude(cadence__in=[Cadence.MANUAL, Cadence.ONCE]):
        try:
            fresh += UpkeepJob.objects.filter(pk=job.pk, next_at=None).update(next_at=next_time(job, now))
        except ValueError as error:
            # one job with an impossible schedule must not stop the others'
            log.error("The upkeep job %s can't be planned: %s", job, error)
    return fresh


def due(now: datetime) -> list[UpkeepJob]:
    """Active jobs whose time has come, the longest due first."""
    return list(UpkeepJob.objects.filter(is_active=True, next_at__lte=now).order_by("next_at"))


def begin_due(now: datetime) -> list[UpkeepRun]:
    """Ask for what is due, each once whoever else calls this: the runs that were made. What was missed while all was down is done once."""
    plan(now)
    begun = []
    for job in due(now):
        try:
            later = next_time(job, now)
        except ValueError as error:
            log.error("The upkeep job %s can't be planned: %s", job, error)
            later = None
        has_work = _has_work(job)
        with transaction.atomic():
            # who moves the next time is the one who asks: two ticks at once ask once
            mine = UpkeepJob.objects.filter(pk=job.pk, next_at=job.next_at).update(next_at=later)
            if mine and has_work and (run := start(job, actor=audit.SCHEDULE, trigger=Trigger.SCHEDULE).run):
                begun.append(run)
    return begun


def _has_work(job: UpkeepJob) -> bool:
    try:
        return kind_of(job)().has_work(job)
    except Exception:
        # it is begun, and says in the words of its run what is wrong; the other jobs go on
        log.exception("Whether the upkeep job %s has anything to do is not known", job)
        return True


# asked for, by whichever door


@dataclass(frozen=True)
class Answer:
    """The answer to a wish: the run that was made, or why there is none."""

    run: UpkeepRun | None
    text: str


def start(
    job: UpkeepJob, *, actor: Actor, reason: str = "", trigger: str = Trigger.BUTTON, is_dry: bool = False, details: dict[str, Any] | None = None
) -> Answer:
    """Ask for a job to be done now; it waits for whoever carries it out. Leaves its audit row, moved or refused.

    `is_dry`: it is only to look, and to say what it would have done. `details` stand in the run from its beginning: what this one time
    is about, for a kind that asks `run.details` for it.
    """
    run = None
    if is_dry and not can_dry(job):
        text = "It can't look without changing anything: it has no dry run."
        audit.write(actor, "run", kind="upkeep", target=job.title, reason=reason, result=f"refused: {text}")
        return Answer(None, text)
    try:
        with transaction.atomic():
            run = UpkeepRun.objects.create(
                job=job, trigger=trigger, asked_by=actor.name[:150], asked_because=reason, is_dry=is_dry, details=details or {}
            )
        text = "Asked to look, and to change nothing." if is_dry else "Asked to run."
    except IntegrityError:
        going = job.runs.filter(state__in=OPEN).first()
        does = "runs" if going and going.state == UpkeepRun.State.RUNNING else "waits"
        text = f"It {does} already, asked by {going.asked_by if going else 'somebody'}."
    audit.write(actor, "run", kind="upkeep", target=job.title, reason=reason, result=text if run else f"refused: {text}")
    return Answer(run, text)


def can_dry(job: UpkeepJob) -> bool:
    """Whether the job can look without changing anything; one of an unknown kind can't."""
    kind = kinds().get(job.kind)
    return bool(kind and kind.can_dry)


OPEN = (UpkeepRun.State.WAITING, UpkeepRun.State.RUNNING)


# done


def carry_out(run_id: int, *, pause: Callable[[float], None] = time.sleep) -> UpkeepRun | None:
    """Do a run that waits, here; the run as it ended, or None when somebody else has it. Only what is not an Exception is raised on.

    Its webhook is told once it has ended, `pause`d between two posts: what becomes of that changes nothing of the run's own end.
    """
    now = {"state": UpkeepRun.State.RUNNING, "started_at": Now(), "beat_at": Now()}
    if not UpkeepRun.objects.filter(pk=run_id, state=UpkeepRun.State.WAITING).update(**now):
        return None
    run = UpkeepRun.objects.select_related("job").get(pk=run_id)
    note = Note(run, dict(run.details))
    state, words, is_mine = UpkeepRun.State.FAILED, "The worker was stopped before it was done.", False
    try:
        words = kind_of(run.job)().run(run.job, run, note)
        state = UpkeepRun.State.DONE
        note.details["trouble"] = note.is_trouble
    except JobLost as error:
        log.warning("%s", error)
    except PipelineError as error:
        words = f"{error.message} {error.next_step}".strip()
        _fell(note, words)
    except Exception as error:
        # whatever it is, the next job must run and this one must not stay "running": its words stand on the page
        log.exception("The upkeep job %s broke", run.job)
        words = f"Unexpected {type(error).__name__}: {error}. This is a fault of the program: report it."
        _fell(note, words)
    finally:
        # also where the queue's time-out or Ctrl-C ends it, which are no Exceptions and go on
        notice = _clean(words if note.told is None else note.told, LONGEST_NOTICE)
        ended = {"state": state, "message": _clean(words), "details": note.details, "notice": notice, "finished_at": Now()}
        is_mine = bool(UpkeepRun.objects.filter(pk=run_id, state=UpkeepRun.State.RUNNING).update(**ended))
        if is_mine and state == UpkeepRun.State.FAILED:
            log.warning("The upkeep job %s failed: %s", run.job, words)
    run.refresh_from_db()
    if is_mine:
        telling.tell(run, is_news=note.is_news, is_its_own=note.told is not None, pause=pause)
    return run


def _fell(note: Note, words: str) -> None:
    """A job that failed is trouble, whatever it had found until then."""
    note.told = f"{note.told}\n{telling.FAILED} {words}" if note.told else f"{telling.FAILED} {words}"
    note.is_trouble = note.details["trouble"] = True


def give_up_lost() -> int:
    """Close the runs whose worker is gone: failed, in words, so that the next time can begin. Returns how many."""
    words = f"Its worker was lost: no sign of life for {LOST_AFTER.total_seconds() / 60:g} minutes."
    lost = UpkeepRun.objects.filter(state=UpkeepRun.State.RUNNING, beat_at__lt=Now() - LOST_AFTER)
    return lost.update(state=UpkeepRun.State.FAILED, message=words, finished_at=Now())


def unheard() -> Collection[int]:
    """Runs that have waited so long that their message must have been lost, or was never sent."""
    waiting = Q(state=UpkeepRun.State.WAITING, asked_at__lt=Now() - RING_AFTER)
    return list(UpkeepRun.objects.filter(waiting).order_by("asked_at").values_list("pk", flat=True))


def _clean(words: str, longest: int = LONGEST_WORDS) -> str:
    """As the database keeps it and a person may read it."""
    return secrets.redact(words).replace("\x00", "\\x00")[:longest]


def _plain(cell: Any) -> Any:
    """A cell of a table of findings as JSON keeps it; what came from outside may hold anything."""
    return cell if cell is None or isinstance(cell, bool | int | float) else _clean(str(cell))
