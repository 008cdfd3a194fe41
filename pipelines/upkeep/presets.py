"""How a city begins with MDS: hourly with a pause for the providers to settle, and the nightly and monthly jobs beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import time
from typing import Any

from django.conf import settings
from django.db import transaction

from catalog import audit
from catalog.audit import Actor
from pipelines.models import Cadence, Pipeline, UpkeepJob
from pipelines.upkeep import jobs

#: Providers need a day, and a little more, before an hour of theirs is complete.
SETTLE_MINUTES = 1800


@dataclass(frozen=True)
class Preset:
    """A job as it is made where there is none of its title yet."""

    title: str
    kind: str
    at: time
    options: dict[str, Any] = field(default_factory=dict)
    cadence: str = Cadence.DAILY
    day: int = 1


PRESETS = (
    Preset("Nightly heal", "heal", time(2), {"days": 35}),
    Preset("Nightly resync", "resync", time(3), {"days": 30}),
    Preset("Monthly trip report", "trip-report", time(7, 40), cadence=Cadence.MONTHLY, day=3),
)


@transaction.atomic
def make(*, actor: Actor, reason: str = "") -> list[str]:
    """Set MDS pipelines to every hour with the pause, and make the jobs that are missing; what was done, a sentence each.

    A job that is there, and a pipeline with a pause of its own, stays as somebody wanted it.
    """
    ours = Pipeline.objects.filter(provider__kind="mds")
    said = [_settle(pipeline, actor, reason) for pipeline in ours.exclude(window_column="").filter(settle_minutes=0)]
    zones = Counter(ours.values_list("time_zone", flat=True)).most_common(1)
    zone = zones[0][0] if zones else settings.TIME_ZONE
    return said + [_job(preset, zone, actor, reason) for preset in PRESETS]


def _settle(pipeline: Pipeline, actor: Actor, reason: str) -> str:
    changes = {"cadence": [pipeline.cadence, Cadence.HOURLY.value], "settle_minutes": [0, SETTLE_MINUTES]}
    pipeline.cadence, pipeline.settle_minutes = Cadence.HOURLY, SETTLE_MINUTES
    pipeline.save(update_fields=["cadence", "settle_minutes"])
    words = f"{pipeline.slug}: every hour, {SETTLE_MINUTES // 60} hours after its end."
    audit.write(actor, "change", kind="pipeline", target=pipeline.slug, reason=reason, result=words, changes=changes)
    return words


def _job(preset: Preset, zone: str, actor: Actor, reason: str) -> str:
    if preset.kind not in jobs.kinds():
        return f"{preset.title}: left out, there is no upkeep job of the kind {preset.kind}."
    known = {option.name for option in jobs.kinds()[preset.kind].options}
    job, is_new = UpkeepJob.objects.get_or_create(
        title=preset.title,
        defaults={
            "kind": preset.kind,
            "options": {name: value for name, value in preset.options.items() if name in known},
            "cadence": preset.cadence,
            "at_time": preset.at,
            "day": preset.day,
            "time_zone": zone,
        },
    )
    if not is_new:
        return f"{preset.title}: it was there, and stays as it is."
    audit.write(actor, "add", kind="upkeep", target=job.title, reason=reason, result=f"{preset.at:%H:%M} {zone}")
    return f"{preset.title}: {jobs.rhythm(job)}."
