"""The jobs with which a city begins: beside MDS the nightly and monthly ones, beside a CKAN portal those that watch over it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import time
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count

from catalog import audit
from catalog.audit import Actor
from pipelines.models import Cadence, Notices, Pipeline, Provider, UpkeepJob
from pipelines.upkeep import jobs

#: Providers need a day, and a little more, before an hour of theirs is complete.
SETTLE_MINUTES = 1800


@dataclass(frozen=True)
class Preset:
    """A job as it is made where there is none of its title yet."""

    title: str
    kind: str
    at: time | None = None
    options: dict[str, Any] = field(default_factory=dict)
    cadence: str = Cadence.DAILY
    day: int = 1
    cron: str = ""
    notices: str = Notices.ALWAYS
    #: So many CKAN portals it takes.
    portals: int = 0


PRESETS = (
    Preset("Nightly heal", "heal", time(2), {"days": 35}),
    Preset("Nightly resync", "resync", time(3), {"days": 30}),
    Preset("Monthly trip report", "trip-report", time(7, 40), cadence=Cadence.MONTHLY, day=3),
)
#: At the times at which Toronto has them done; others have times of ours where it had none.
PORTAL_PRESETS = tuple(
    Preset(title, kind, cadence=Cadence.CRON, cron=cron, notices=notices, portals=portals)
    for title, kind, cron, notices, portals in (
        ("Empty datastore resources", "empty-resources", "5 4-14 * * *", Notices.TROUBLE, 1),
        ("Stalest datasets", "stale-datasets", "30 4 * * 3", Notices.ALWAYS, 0),
        ("Cached files of the datastore", "cached-files", "0 */3 * * *", Notices.TROUBLE, 1),
        ("Two catalogues compared", "catalogue-compare", "1 0,12 * * 1-5", Notices.ALWAYS, 2),
        ("ETL inventory", "etl-inventory", "0 6 * * *", Notices.TROUBLE, 1),
        ("Times of remote files", "remote-file-times", "0 */2 * * *", Notices.ALWAYS, 1),
        ("Remote files", "remote-files", "15 * * * *", Notices.ALWAYS, 1),
        ("Descriptions told to the portal", "descriptions", "10 * * * *", Notices.TROUBLE, 1),
        ("Backups of the portal's tables", "backups", "0 3 * * 0", Notices.TROUBLE, 1),
        ("Data quality scores", "quality", "20 19 * * *", Notices.ALWAYS, 0),
        ("Old logs", "log-retention", "0 0 * * *", Notices.TROUBLE, 0),
        ("Columns without a description", "missing-dictionary", "0 7 * * 1", Notices.ALWAYS, 0),
        ("Addresses for more information", "information-urls", "30 7 * * 1", Notices.TROUBLE, 0),
    )
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


@transaction.atomic
def make_for_a_portal(*, actor: Actor, reason: str = "") -> list[str]:
    """Make the jobs that watch over a CKAN portal, as Toronto has them, where they are missing; what was done, a sentence each."""
    zones = Counter(Pipeline.objects.filter(portal__kind="ckan").values_list("time_zone", flat=True)).most_common(1)
    zone = zones[0][0] if zones else settings.TIME_ZONE
    # the one to which most is published is the city's own
    there = Provider.objects.filter(kind="ckan", is_active=True).annotate(pipelines_of_it=Count("publishes")).order_by("-pipelines_of_it", "slug")
    slugs = list(there.values_list("slug", flat=True))
    said = []
    for preset in PORTAL_PRESETS:
        if preset.portals > len(slugs):
            takes = f"{preset.portals} CKAN {'portal' if preset.portals == 1 else 'portals'}"
            said.append(f"{preset.title}: left out, it takes {takes} and there {'is' if len(slugs) == 1 else 'are'} {len(slugs) or 'none'}.")
        else:
            options = dict(zip(("portal", "other"), slugs, strict=False))
            said.append(_job(replace(preset, options=options), zone, actor, reason))
    return said


#: What `upkeep --presets` may be told.
SETS: dict[str, Callable[..., list[str]]] = {"mds": make, "toronto": make_for_a_portal}


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
            "cron": preset.cron,
            "notices": preset.notices,
            "at_time": preset.at,
            "day": preset.day,
            "time_zone": zone,
        },
    )
    if not is_new:
        return f"{preset.title}: it was there, and stays as it is."
    audit.write(actor, "add", kind="upkeep", target=job.title, reason=reason, result=jobs.rhythm(job))
    return f"{preset.title}: {jobs.rhythm(job)}."
