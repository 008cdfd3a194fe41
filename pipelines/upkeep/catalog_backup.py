"""The catalog's backup as an upkeep job: written into the lake, the oldest taken out."""

from __future__ import annotations

from catalog import backup
from catalog.audit import Actor
from catalog.lake import lake
from pipelines.connectors.base import Parameter
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep.jobs import Job, Note


class BackUpCatalog(Job):
    """What `manage.py catalog backup` does, now and then; `manage.py catalog restore` brings it back."""

    kind = "catalog-backup"
    label = "Back up the catalog"
    about = "Writes every entry of the catalog and every edition of the inventory into the lake's backup layer."
    options = (Parameter("keep", "Backups to keep", default="30", help="The oldest beyond so many are taken out of the lake. 0: all are kept."),)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        keep = self.number(job, "keep")
        note("Writing the catalog.")
        made = backup.backup_to_lake(Actor(run.asked_by), reason=f"upkeep job {job.title}")
        # their names are moments in UTC: in the order of the letters they are in the order of time
        old = lake().names(backup.PLACE)[:-keep] if keep else []
        for name in old:
            lake().delete(f"{backup.PLACE}/{name}")
        gone = f" {len(old):,} older {'one was' if len(old) == 1 else 'ones were'} taken out." if old else ""
        return f"Saved: {made.words}{gone}"
