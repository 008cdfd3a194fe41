"""One tick by hand, or from cron: plan what is owed, take back what was lost, ring for what is due."""

from pipelines import planner
from pipelines.management.base import DONE, OpsCommand


class Command(OpsCommand):
    help = "Plan owed blocks, reap the dead, ring for what is due. Safe to call at any time and from any host."

    def act(self, **options) -> int:
        done = planner.tick()
        if self.as_json:
            self.print_json(done)
        self.say(f"{done['made']} blocks planned, {done['reaped']} taken back, {done['rung']} rung, {done['broken']} pipelines with a broken schedule.")
        return DONE
