"""The upkeep jobs from the shell: list them, do one now, make the usual ones."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from pipelines import clock, planner
from pipelines.management.base import DONE, FAILED, NOTHING, REFUSED, OpsCommand, me, refusal
from pipelines.models import Trigger, UpkeepJob, UpkeepRun
from pipelines.selectors import upkeep as selectors
from pipelines.selectors.upkeep import JobLine
from pipelines.upkeep import jobs, presets

SEE = "See them with: python3 manage.py upkeep"


class Command(OpsCommand):
    help = "List the upkeep jobs; with --run do one here and now, with --dry-run only look, with --presets make the usual ones."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 told or done, 1 the job failed, 2 refused or bad usage, 3 there is no job"
        parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a job by its title, its kind (where one job has it) or its number")
        parser.add_argument("--run", action="store_true", help="do it now, here")
        parser.add_argument("--queue", action="store_true", help="with --run: leave it to the workers and return at once")
        parser.add_argument("--dry-run", action="store_true", help="only look: say what it would do, change nothing and tell nobody")
        parser.add_argument(
            "--presets",
            nargs="?",
            const="mds",
            choices=sorted(presets.SETS),
            help="make the usual jobs: mds (as it is without a word; MDS pipelines hourly with 30 h to settle too), or toronto, a portal's",
        )
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        if options["presets"]:
            return self._presets(options["presets"], options["reason"])
        wants_run = options["run"] or options["dry_run"]
        if wants_run and not options["name"]:
            raise refusal("Say which job to run.", SEE)
        lines = [_named(options["name"])] if options["name"] else selectors.job_lines()
        if wants_run:
            return self._run(lines[0].job, options["reason"], queue=options["queue"], is_dry=options["dry_run"])
        if self.as_json:
            self.print_json({"jobs": [selectors.job_json(line) for line in lines]})
        for line in lines:
            self.say(_words(line))
            if options["name"]:
                for one in selectors.history(line.job, limit=10):
                    self.say(
                        f"  {_when(one.run.asked_at, line.job)}  {one.face.word.lower()}, asked by {one.run.asked_by}. {one.run.message}".rstrip()
                    )
        if not lines:
            self.say("There is no upkeep job yet. Next: python3 manage.py upkeep --presets")
            return NOTHING
        return DONE

    def _presets(self, which: str, reason: str) -> int:
        said = presets.SETS[which](actor=me(), reason=reason)
        jobs.plan(timezone.now())
        if self.as_json:
            self.print_json({"done": said, "jobs": [selectors.job_json(line) for line in selectors.job_lines()]})
        for words in said:
            self.say(words)
        return DONE

    def _run(self, job: UpkeepJob, reason: str, *, queue: bool, is_dry: bool) -> int:
        jobs.give_up_lost()
        ask = planner.ask_for_upkeep if queue else jobs.start
        answer = ask(job, actor=me(), reason=reason, trigger=Trigger.COMMAND, is_dry=is_dry)
        if answer.run is None:
            cant = is_dry and not jobs.can_dry(job)
            raise refusal(
                f"{job.title}: {answer.text}", "Run it without --dry-run." if cant else "Wait for it, and look with: python3 manage.py upkeep"
            )
        # whoever is quicker does it: a worker may have taken it at the tick
        run = None if queue else jobs.carry_out(answer.run.pk)
        if run is None:
            answer.run.refresh_from_db()
        if self.as_json:
            self.print_json({"job": job.title, "run": selectors.run_json(run or answer.run)})
        if run is None:
            self.say(f"{job.title}: {'a worker takes it' if queue else 'a worker was quicker and has it'}. {SEE}")
            return DONE
        if run.state == UpkeepRun.State.FAILED:
            self.complain(f"{job.title}: failed. {run.message}", "Mend the cause, then run it again.")
            return FAILED
        for row in run.details.get("findings", {}).get("rows", []):
            self.say("  " + " | ".join("" if cell is None else str(cell) for cell in row))
        self.say(f"{job.title}{' (only looked)' if is_dry else ''}: {run.message}")
        if run.noticed:
            self.say(f"  {run.noticed}")
        return DONE if run.state == UpkeepRun.State.DONE else REFUSED


def _named(name: str) -> JobLine:
    """The job of this title, kind or number. Raises Refusal."""
    lines = selectors.job_lines()
    wanted = name.strip().lower()
    found = [line for line in lines if line.job.title.lower() == wanted or (wanted.isdecimal() and line.job.pk == int(wanted))]
    found = found or [line for line in lines if line.job.kind == wanted]
    if len(found) > 1:
        raise refusal(f"{len(found)} jobs are of the kind {name!r}.", f"Use a title: {', '.join(line.job.title for line in found)}")
    if not found:
        there = ", ".join(line.job.title for line in lines)
        raise refusal(f"There is no upkeep job {name!r}.", f"Use one of: {there}" if there else "Make them with: python3 manage.py upkeep --presets")
    return found[0]


def _words(line: JobLine) -> str:
    last = f"; last {_when(line.last.run.asked_at, line.job)}: {line.last.run.message}" if line.last else ""
    coming = f"; next {_when(line.next_at, line.job)}" if line.next_at else ""
    return f"{line.job.title} ({line.job.kind}): {line.face.word.lower()}, {line.rhythm}{coming}{last}"


def _when(moment: Any, job: UpkeepJob) -> str:
    return f"{moment.astimezone(clock.zone(job.time_zone)):%a %b %d, %H:%M %Z}"
