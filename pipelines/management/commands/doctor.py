"""Ask everything that the city stands on how it is, and say what to do where it is not well."""

from dataclasses import asdict

from pipelines import planner
from pipelines.management.base import DONE, FAILED, OpsCommand
from pipelines.stages import outside
from pipelines.stages.offer import public_columns
from pipelines.upkeep import doctor


class Command(OpsCommand):
    help = (
        "Look at settings, keys, database, clock, lake, warehouses, queue, workers and schedule; ask each active provider one small "
        "question, and each portal whether it would take what is published there. Each answer comes with the next step. Also works "
        "when the database is down."
    )
    # run_checks is one of the doctor's own questions: a wrong setting must not keep him from the others
    requires_system_checks = []

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 bad usage"
        parser.add_argument("--no-network", action="store_true", help="do not ask the providers")

    def act(self, **options) -> int:
        marks = {doctor.OK: self.style.SUCCESS, doctor.WARNING: self.style.WARNING, doctor.FAILED: self.style.ERROR}
        findings = []
        for finding in doctor.examine(
            connect=outside.connector,
            columns=public_columns,
            queue_depth=planner.queue_depth,
            pulse_age=planner.age,
            network=not options["no_network"],
        ):
            findings.append(finding)
            mark = marks.get(finding.status, str)
            self.say(f"{mark(f'{finding.status:<8}')} {finding.name}: {finding.message}")
            if finding.next_step:
                self.say(f"         Next: {finding.next_step}")
        counts = {status: sum(finding.status == status for finding in findings) for status in (doctor.OK, doctor.WARNING, doctor.FAILED)}
        if self.as_json:
            self.print_json({"ok": not counts[doctor.FAILED], "checks": [asdict(finding) for finding in findings]})
        self.say(f"{counts[doctor.OK]} ok, {counts[doctor.WARNING]} warnings, {counts[doctor.FAILED]} failed.")
        return FAILED if counts[doctor.FAILED] else DONE
