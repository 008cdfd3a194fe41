"""One tick by hand, or from cron: plan what is owed, take back what was lost, ring for what is due."""

import logging
from typing import Any

from pipelines import planner
from pipelines.management.base import DONE, REFUSED, OpsCommand, count


class Command(OpsCommand):
    help = "Plan owed blocks, reap the dead, ring for what is due. Safe to call at any time and from any host."
    #: the log alone says which schedule is broken
    log_level = logging.WARNING

    def act(self, **options: Any) -> int:
        done = planner.tick()
        if self.as_json:
            self.print_json(done)
        self.say(f"{count(done['made'], 'block')} planned, {done['reaped']} taken back, {done['rung']} rung.")
        if done["broken"]:
            broken = f"The schedule of {count(done['broken'], 'pipeline')} can't be planned; the lines above name them."
            self.complain(broken, "Correct their cadence, zone and first day in the admin, under Pipelines.")
            return REFUSED
        return DONE
