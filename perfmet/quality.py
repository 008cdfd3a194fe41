"""Scoring: a `QualityRun` with a `QualityScore` for each table, whoever asks for it: a command, a button or the schedule.

On Tuesdays everything is scored, on other days what promises to be daily; `force` scores everything on any day. One that can't be
read never stops the others, and is named with its reason. History is only ever added to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from perfmet import scorecard, subjects, words
from perfmet.dimensions import ColumnFacts, Facts, Reason
from perfmet.models import QualityRun, QualityScore
from perfmet.scorecard import Model, Scored
from perfmet.subjects import Subject
from perfmet.words import Knows
from pipelines import clock, secrets
from pipelines.errors import PipelineError, SetupError

log = logging.getLogger(__name__)

ALL, DAILY, ONE = "all", "daily", "one"
#: On this day of the week everything is scored (Monday is 1).
WHOLE_DAY = 2
#: A run that began so long ago and never ended was lost with whoever did it.
LOST_AFTER = timedelta(hours=12)
#: Of so many columns a score keeps samples: a page shows no more.
MOST_EVIDENCE = 40
DONE_NOTICE = ":done_green: Data quality explanation codes generated for {packages} packages, {resources} resources"


@dataclass(frozen=True)
class Made:
    """What a scoring did: its run (not kept where it only looked), the scores, what could not be scored, and what the model leaves out."""

    run: QualityRun
    scores: list[QualityScore]
    failed: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    #: What was scored and is not for the public.
    inside: list[str] = field(default_factory=list)

    @property
    def packages(self) -> int:
        return len({score.package for score in self.scores})

    @property
    def notice(self) -> str:
        """What a webhook is told."""
        text = DONE_NOTICE.format(packages=self.packages, resources=len(self.scores))
        return "\n".join([text, *(f":exclamation: {_named(one)}" for one in self.failed)])


def scope_of(names: Sequence[str], now: datetime, *, force: bool) -> str:
    """Which tables are scored: the named ones, all (on the city's Tuesday, or forced), or the daily ones."""
    if names:
        return ONE
    return ALL if force or now.astimezone(clock.zone(settings.TIME_ZONE)).isoweekday() == WHOLE_DAY else DAILY


def score(
    *,
    version: str = scorecard.CURRENT.version,
    place: str = "",
    names: Sequence[str] = (),
    force: bool = False,
    asked_by: str = "schedule",
    now: datetime | None = None,
    is_dry: bool = False,
    beat: Callable[[str], None] = lambda text: None,
) -> Made:
    """Score the tables whose turn it is, at a place ("" = the warehouse, else a portal's slug). `is_dry`: keep nothing.

    `beat` hears what is read now. Raises SetupError for a model, place or name that is not there, PipelineError where the portal
    itself does not answer; then the run is kept as failed.
    """
    now = now or timezone.now()
    model = scorecard.model_called(version)
    knows = words.english(settings.QUALITY_WORDS)
    run = QualityRun(version=version, scope=scope_of(names, now, force=force), place=place, asked_by=asked_by[:150], started_at=now)
    if not is_dry:
        give_up_lost(now)
        run.save()
    made = Made(run, [])
    # what is not said otherwise below: the queue's time-out or Ctrl-C ended it
    run.state, run.message = QualityRun.State.FAILED, "It was broken off before it was done."
    try:
        _score_all(made, model, knows, list(names), now, beat)
        if model.is_relative:
            _set_norms(made.scores)
        run.state = QualityRun.State.FAILED if made.failed and not made.scores else QualityRun.State.DONE
        run.message = _words(made)
    except PipelineError as error:
        run.message = f"{error.message} {error.next_step}".strip()
        raise
    finally:
        run.finished_at = timezone.now()
        run.message = secrets.redact(run.message)
        counts = {"packages": made.packages, "resources": len(made.scores)}
        run.details = {"failed": made.failed, "left_out": made.left_out, "inside": made.inside, **counts}
        if not is_dry:
            _keep(made)
    return made


def give_up_lost(now: datetime) -> int:
    """Close the runs whose process is gone. Returns how many."""
    lost = QualityRun.objects.filter(state=QualityRun.State.RUNNING, started_at__lt=now - LOST_AFTER)
    return lost.update(state=QualityRun.State.FAILED, finished_at=now, message="It was lost with whoever did it.")


def _score_all(made: Made, model: Model, knows: Knows, names: list[str], now: datetime, beat: Callable[[str], None]) -> None:
    taken: set[tuple[str, str]] = set()
    for found in subjects.of_place(made.run.place, names, now):
        subject = _named_once(found, taken)
        if made.run.scope == DAILY and not subject.is_daily:
            continue
        beat(f"Scoring {subject.name}.")
        if subject.store_type == "filestore" and model.file_weights is None:
            made.left_out.append(subject.name)
            continue
        try:
            facts = subject.read(model, lambda subject=subject: beat(f"Reading {subject.name}."))
            scored = model.score(facts, knows)
            made.scores.append(_row(made.run, subject, model, scored, knows, now.replace(microsecond=0)))
            if not subject.is_public:
                made.inside.append(subject.name)
        except PipelineError as error:
            made.failed.append({"name": subject.name, "why": secrets.redact(f"{error.message} {error.next_step}".strip())})
        except (OperationalError, InterfaceError):
            # our own database: the next table would not fare better
            raise
        except Exception as error:
            log.exception("Scoring %s broke", subject.name)
            why = f"unexpected {type(error).__name__}: {error}. This is a fault of the program: report it."
            made.failed.append({"name": subject.name, "why": secrets.redact(why)})


def _named_once(subject: Subject, taken: set[tuple[str, str]]) -> Subject:
    """The subject, its names as long as a score keeps them and no other's of the run."""
    package, resource = subject.package[:200], subject.resource[:200]
    number = 1
    while (package, resource) in taken:
        number += 1
        resource = f"{subject.resource[:190]} ({number})"
    taken.add((package, resource))
    return replace(subject, package=package, resource=resource)


def _record(scores: list[QualityScore]) -> None:
    """Give the scores a second that no other run's have: what is published is known by it."""
    at = scores[0].recorded_at
    with connection.cursor() as cursor:
        # until the scores are written, nobody else looks for a second of their own
        cursor.execute("select pg_advisory_xact_lock(hashtextextended('odo quality', 0))")
    while QualityScore.objects.filter(recorded_at=at).exists():
        at += timedelta(seconds=1)
    for score in scores:
        score.recorded_at = at
    QualityScore.objects.bulk_create(scores, batch_size=500)


def _row(run: QualityRun, subject: Subject, model: Model, scored: Scored, knows: Knows, at: datetime) -> QualityScore:
    facts = scored.facts
    is_table = not facts.is_file
    return QualityScore(
        run=run,
        pipeline=subject.pipeline,
        dataset=subject.dataset,
        version=model.version,
        place=run.place,
        package=subject.package,
        resource=subject.resource,
        resource_id=facts.resource_id[:100],
        title=facts.title[:300],
        division=facts.division[:200],
        store_type=facts.store_type,
        score=scored.score,
        grade=scored.grade,
        codes=scored.codes,
        reasons=[_reason(reason) for reason in scored.reasons],
        gains=[gain.told() for gain in model.gains(scored, knows)],
        evidence=_evidence(facts, scored.reasons),
        rows=facts.rows if is_table else None,
        columns=len(facts.columns) if is_table else None,
        recorded_at=at,
        **{name: one.value for name, one in scored.dimensions.items()},
    )


def _reason(reason: Reason) -> dict[str, Any]:
    code = f"~{reason.code}" if reason.code else ""
    return {"dimension": reason.dimension, "code": code, "text": reason.text, "columns": list(reason.columns)}


def _evidence(facts: Facts, reasons: Sequence[Reason]) -> dict[str, dict[str, Any]]:
    """Column to what is wrong with it, in words, and what stands in it; the columns in the order of the reasons."""
    columns = {column.name: column for column in facts.columns}
    found: dict[str, list[str]] = {}
    for reason in reasons:
        for name in reason.columns:
            if name in columns:
                found.setdefault(name, []).append(_why(columns[name], reason, facts))
    kept = list(found)[:MOST_EVIDENCE]
    return {name: {"reason": " ".join(dict.fromkeys(found[name])), "sample": list(columns[name].sample)} for name in kept}


def _why(column: ColumnFacts, reason: Reason, facts: Facts) -> str:
    if reason.code.startswith("constant_cols"):
        if not facts.rows:
            return "It has no rows."
        return "Nothing is in it." if column.nulls == facts.rows else "It says the same in every row."
    if reason.dimension == "completeness":
        return f"{column.nulls:,} of {facts.rows:,} cells are empty."
    if reason.dimension == "metadata":
        return "It is not described."
    if reason.code == "invalid_geospatial":
        return f"{facts.invalid_shapes:,} shapes are invalid."
    return "Its name is not made of English words." if reason.code == "colnames_unclear" else "Its name is in small letters alone."


def _set_norms(scores: list[QualityScore]) -> None:
    for row, norm in zip(scores, scorecard.norms([(row.package, row.score) for row in scores]), strict=True):
        row.score_norm = norm.norm
        # both, as the notebook has it: of its package's mean
        row.grade = row.grade_norm = norm.grade


@transaction.atomic
def _keep(made: Made) -> None:
    made.run.save()
    if made.scores and made.run.state == QualityRun.State.DONE:
        _record(made.scores)


def _words(made: Made) -> str:
    scope = {ALL: "", DAILY: " that promise new rows each day", ONE: ""}[made.run.scope]
    text = f"Scored {_many(len(made.scores), 'table')} of {_many(made.packages, 'dataset')}{scope}."
    if not made.scores and not made.failed:
        text = "No dataset promises new rows each day: there was nothing to score." if made.run.scope == DAILY else "There was nothing to score."
    if made.left_out:
        text += f" {_many(len(made.left_out), 'file')} left out: this model scores tables alone."
    if made.failed:
        text += f" {len(made.failed):,} could not be scored: {'; '.join(_named(one) for one in made.failed[:5])}"
    return text


def _named(one: dict[str, str]) -> str:
    return f"{one['name']}: {one['why']}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def newest(*, version: str = scorecard.CURRENT.version, place: str = "", package: str = "") -> list[QualityScore]:
    """The newest score of each table by a model at a place, the best first; of one dataset where it is named. One query."""
    found = QualityScore.objects.filter(version=version, place=place, **({"package": package} if package else {}))
    each = found.order_by("package", "resource", "-recorded_at", "-pk").distinct("package", "resource")
    return sorted(each, key=lambda score: (-score.score, score.package, score.resource))


def run_numbered(number: int | None, *, version: str = "", place: str | None = None) -> QualityRun:
    """The run of this number; of none, the newest that ended well, of this model and place where they are given. Raises SetupError."""
    runs = QualityRun.objects.filter(state=QualityRun.State.DONE)
    if number is not None:
        found = runs.filter(pk=number).first()
    else:
        found = runs.filter(**({"version": version} if version else {}), **({} if place is None else {"place": place})).order_by("-pk").first()
    if found is None:
        raise SetupError(
            f"There is no scoring {number}." if number is not None else "Nothing was scored yet.",
            code="no-scoring",
            next_step="Score with: python3 manage.py quality score --all",
        )
    return found
