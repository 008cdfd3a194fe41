"""The practice city's dataset files, as Toronto writes them: imported like any steward's, from servers of this machine to a CKAN of its own.

The files are in `sandbox/packages`; `{FILES}` and `{MAPS}` in them stand for the addresses of the servers.
"""

from __future__ import annotations

import tempfile
from datetime import time
from pathlib import Path

from catalog.audit import Actor
from catalog.models import Dataset
from opendata_ops.sandbox import city
from pipelines import importers, secrets
from pipelines.models import Cadence, Pipeline, Provider, UpkeepJob
from pipelines.upkeep import presets

FOLDER = Path(__file__).parent / "sandbox" / "packages"
PORTAL = "practice-ckan"
#: The key of the practice portal's sysadmin: public, like everything there.
KEY = "practice-sysadmin"
SCORES = "Data quality scores"


def create(files_url: str, maps_url: str, ckan_url: str, *, actor: Actor) -> None:
    """Import the packages that are not here yet, and bring the addresses of all up to date. Raises importers.Refused."""
    portal, is_new = Provider.objects.get_or_create(
        slug=PORTAL,
        defaults={
            "title": "Open data CKAN (practice)",
            "kind": "ckan",
            "base_url": ckan_url,
            "parameters": {"organization": "city"},
            "time_zone": city.ZONE,
            "max_parallel": 2,
        },
    )
    if is_new:
        portal.secrets = {"api_key": secrets.seal(KEY)}
    portal.base_url = ckan_url
    portal.full_clean()
    portal.save()
    mine = Pipeline.objects.filter(portal=portal)
    for kind, url in (("web_file", files_url), ("arcgis", maps_url)):
        Provider.objects.filter(kind=kind, pipelines__in=mine).update(base_url=url)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for file in sorted(FOLDER.glob("*.yaml")):
            if not Dataset.objects.filter(slug=file.stem).exists():
                # its title is the file's name: a copy, with the addresses as they are today
                copy = Path(folder) / file.name
                copy.write_text(file.read_text(encoding="utf-8").replace("{FILES}", files_url).replace("{MAPS}", maps_url), encoding="utf-8")
                paths.append(copy)
        if paths:
            planned = importers.plan(paths, portal=PORTAL)
            importers.apply(planned, actor=actor, reason="the practice city was made")
    # small tables go first, so that the first page shows some of everything
    mine.exclude(time_zone=city.ZONE).update(time_zone=city.ZONE, priority=1)
    for kind, title in (("web_file", "City files (practice)"), ("arcgis", "City maps (practice)")):
        Provider.objects.filter(kind=kind, pipelines__portal=portal).exclude(title=title).update(title=title)
    presets.make_for_a_portal(actor=actor, reason="the practice city was made")
    # the day's first scores should be there at the first look, not at night
    UpkeepJob.objects.filter(title=SCORES, runs=None).update(cadence=Cadence.HOURLY, cron="", at_time=time(0, 5), options={"force": "yes"})
