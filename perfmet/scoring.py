"""Have the tables of one dataset scored now: the door behind the button, which asks a worker as every other door of upkeep does."""

from __future__ import annotations

from catalog.audit import Actor
from perfmet import scorecard
from perfmet.upkeep import Quality
from pipelines import planner
from pipelines.errors import SetupError
from pipelines.models import Cadence, Notices, UpkeepJob
from pipelines.upkeep.jobs import Answer

TITLE = "Score one dataset now"


def ask(package: str, *, version: str, place: str, actor: Actor, reason: str = "") -> Answer:
    """Ask a worker to score the tables of this dataset (as the place calls it) by that model. Publishes nothing and tells nobody.

    Raises SetupError for a model that is not there, and for one that sets tables against each other: one alone would be the worst.
    """
    model = scorecard.model_called(version)
    if model.is_relative:
        raise SetupError(
            f"The model {model.label} sets the tables of a run against each other: one alone has no grade.",
            code="relative-model",
            next_step="Score all of them: python3 manage.py quality score --all",
        )
    return planner.ask_for_upkeep(_job(version, place), actor=actor, reason=reason, details={"datasets": [package]})


def _job(version: str, place: str) -> UpkeepJob:
    """The job that does so, made where there is none: apart from the nightly one, which publishes and tells what it found."""
    which = ", ".join(part for part in (place, "" if version == scorecard.CURRENT.version else version) if part)
    values = {"kind": Quality.kind, "cadence": Cadence.MANUAL, "notices": Notices.NEVER, "options": {"model": version, "place": place}}
    return UpkeepJob.objects.get_or_create(title=f"{TITLE}{f' ({which})' if which else ''}", defaults=values)[0]
