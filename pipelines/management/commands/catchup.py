"""Catch up: run one stage for the days that the stage before it has and it has not. What atd-data-lake's nightly scripts did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from catalog import audit
from pipelines import clock
from pipelines.errors import PipelineError
from pipelines.management.base import DONE, FAILED, NOTHING, OpsCommand, count, me, pipelines_named, refusal
from pipelines.management.commands.run import BlocksCommand
from pipelines.models import Pipeline
from pipelines.planner import Order
from pipelines.upkeep import catchup, compare, simulate, twins
from pipelines.upkeep.catchup import Comparison, Day
from pipelines.upkeep.compare import BASE, BASE_AND_EXT, CHANGED, FORCED, MISSING
from pipelines.upkeep.output import Output

EPILOG = """exit codes: 0 done, 1 a block failed or a pipeline could not be compared, 2 refused or bad usage or configuration, 3 nothing to do;
130 stopped by Ctrl-C.

A day is chosen where the stage before has something that this stage has not made, or has made of other bytes. Days are the
city's. Without --end_date what is dated today or later is left out, for it is not complete; the same day as start and end is
exactly that day. Only the named stage runs (publish: load and publish); --onward runs those after it too."""
STARTS = "number of days back from today, a date, a time with offset (a time of day is cut off), or seconds since 1970; goes before -r"
#: So many days of a preview are told one by one.
SHOWN = 60


class Command(BlocksCommand):
    help = "Compare what comes before a stage with what the stage has made, and run the days that it lacks."

    def add_arguments(self, parser: CommandParser) -> None:
        OpsCommand.add_arguments(self, parser)
        parser.epilog = EPILOG
        parser.add_argument("pipelines", nargs="+", metavar="PIPELINE", help="slugs of pipelines")
        parser.add_argument("--stage", required=True, choices=list(catchup.WORDS), help="the stage to catch up")
        last = "compare from this day on; superseded by -s. 0 is 2000-01-01"
        parser.add_argument("-r", "--last_run_date", "--last-run-date", default="", metavar="DATE", help=last)
        parser.add_argument("-s", "--start_date", "--start-date", default="", metavar="DATE|DAYS", help=STARTS)
        parser.add_argument("-e", "--end_date", "--end-date", default="", metavar="DATE", help="up to this day, which is left out")
        parser.add_argument("-F", "--force", action="store_true", help="also the days that are there already")
        parser.add_argument("--key", choices=[BASE, BASE_AND_EXT], default="", help="what tells two files apart (default: by the stage)")
        parser.add_argument("--onward", action="store_true", help="run the later stages of these days as well")
        parser.add_argument("-o", "--output_filepath", "--output", default="", metavar="DIR", help="also write every file there, flat")
        simulated = "do all the work and write nothing anywhere, but into the folder of -o"
        parser.add_argument("-0", "--simulate", action="store_true", help=simulated)
        parser.add_argument("--dry-run", action="store_true", help="only tell the days, and run nothing")
        parser.add_argument("--debug", action="store_true", help="work on the pipeline's test twin, which is made or brought up to date first")
        place = "where the twin publishes, instead of a CSV file below var/"
        parser.add_argument("--test-resource", default="", metavar="RESOURCE", help=f"{place}; a dataset of its own on the same portal")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, metavar="N", help=f"days at once (default: {settings.WORKERS})")
        parser.add_argument("--queue", action="store_true", help="leave the work to the workers and return at once")
        parser.add_argument("--no-logs", action="store_true", help="tell only what became of each day")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options: Any) -> int:
        self._check(options)
        stage = catchup.stage_of(options["stage"])
        chosen = pipelines_named(options["pipelines"])
        if options["debug"]:
            chosen = [self._twin(one, options) for one in chosen]
        self.told: list[dict[str, Any]] = []
        found, broken = [], 0
        for pipeline in chosen:
            try:
                found.append(self._compared(pipeline, stage, options))
            except PipelineError as error:
                if len(chosen) == 1:
                    raise
                # one source that is away must not keep the others from catching up
                broken += 1
                self.told.append({"pipeline": pipeline.slug, "error": error.message, "next_step": error.next_step})
                self.complain(f"{pipeline.slug}: {error.message}", error.next_step)
        due = [one for one in found if one.days]
        if options["dry_run"] or not due:
            return self._told_only(found, broken)
        code = self._simulate(due, options) if options["simulate"] else self._place(due, options)
        return max(code, FAILED) if broken and code in (DONE, NOTHING) else code

    def _check(self, options: dict[str, Any]) -> None:
        """Raise Refusal for flags that contradict each other."""
        if not options["start_date"] and not options["last_run_date"]:
            raise refusal("A last_run_date or start_date must be specified.", "Add -s with a date or a number of days back, for example -s 30")
        if options["workers"] < 1:
            raise refusal(f"--workers {options['workers']}: at least 1 is needed.", f"Leave it out for {settings.WORKERS}.")
        if options["test_resource"] and not options["debug"]:
            raise refusal("--test-resource is for --debug.", "Add --debug, or leave it out.")
        if options["queue"] and (options["simulate"] or options["output_filepath"]):
            raise refusal("--queue leaves the work to the workers, which neither simulate nor write to a folder.", "Leave --queue out.")

    def _twin(self, pipeline: Pipeline, options: dict[str, Any]) -> Pipeline:
        if options["simulate"] or options["dry_run"]:
            # what writes nothing makes no twin either
            if not (twin := twins.twin_of(pipeline)):
                raise refusal(f"{pipeline.slug} has no test twin yet, and a simulation makes none.", "Leave -0 and --dry-run out once, or --debug.")
            return twin
        twin, words = twins.refreshed(pipeline, actor=me(), resource=options["test_resource"], reason=options["reason"])
        self.say(f"{pipeline.slug}: {words}")
        return twin

    def _compared(self, pipeline: Pipeline, stage: str, options: dict[str, Any]) -> Comparison:
        try:
            within = compare.bounds(
                last_run=options["last_run_date"],
                start=options["start_date"],
                end=options["end_date"],
                zone_name=pipeline.time_zone,
                now=timezone.now(),
            )
        except ValueError as error:
            raise refusal(str(error), "See how times are written with: python3 manage.py catchup --help") from error
        catchup.stages_from(pipeline, stage, onward=options["onward"])
        found = catchup.compared(pipeline, stage, within, key=options["key"], force=options["force"], tell=self.complain)
        self.told.append(as_json(found))
        whys = [sum(one.why == why for one in found.decisions) for why in (MISSING, CHANGED, FORCED)]
        counted = ", ".join(f"{number:,} {why}" for number, why in zip(whys, (MISSING, CHANGED, FORCED), strict=True) if number)
        words = f"{pipeline.slug} {options['stage']}, {within.words(pipeline.time_zone)} ({pipeline.time_zone})"
        self.say(f"{words}: {count(len(found.decisions), 'file')} compared, {counted or 'nothing lacks'}.")
        return found

    def _told_only(self, found: list[Comparison], broken: int) -> int:
        if self.as_json:
            self.print_json({"blocks": [], "refused": []})
        for one in found:
            for day in one.days[:SHOWN]:
                self.say(f"  {_name(one.pipeline, day)}: {', '.join(day.whys)}: {', '.join(_labels(day))}")
            if len(one.days) > SHOWN:
                self.say(f"  … and {len(one.days) - SHOWN:,} more days; see them all with --json")
        if broken:
            return FAILED
        if not any(one.days for one in found):
            self.say("Nothing to do.")
            return NOTHING
        self.say(f"{count(sum(len(one.days) for one in found), 'day')} would run. Nothing was changed.")
        return DONE

    def _place(self, due: list[Comparison], options: dict[str, Any]) -> int:
        """Ask for the days as ordinary blocks, and work them off. Returns the exit code."""
        output = Output(Path(options["output_filepath"])) if options["output_filepath"] else None
        orders = []
        for one in due:
            stages = catchup.stages_from(one.pipeline, one.stage, onward=options["onward"])
            result = f"{one.taken:,} of {len(one.decisions):,} files, {count(len(one.days), 'day')} asked for."
            audit.write(me(), "catch-up", kind="pipeline", target=one.pipeline.slug, reason=options["reason"], result=result, stage=one.stage)
            windows = [(day.starts_at, day.ends_at) for day in one.days]
            orders.append(Order([one.pipeline], which="all", windows=windows, stages=stages, force=options["force"]))
        code = self._carry_out(orders, options)
        if output:
            with output:
                for order in orders:
                    output.keep(order.pipelines[0], order.windows or [], order.stages or [])
            self.say(output.words)
        return code

    def _simulate(self, due: list[Comparison], options: dict[str, Any]) -> int:
        """Do the stages of each day, write nothing, and tell what would have been. Returns the exit code."""
        output = Output(Path(options["output_filepath"])) if options["output_filepath"] else None
        code, ended = DONE, []
        with output or simulate.NOWHERE:
            for one in due:
                stages = catchup.stages_from(one.pipeline, one.stage, onward=options["onward"])
                for day in one.days:
                    told = simulate.day(one.pipeline, (day.starts_at, day.ends_at), stages, force=options["force"], output=output)
                    ended.append(told.as_json())
                    for words in told.lines:
                        self.say(f"{_name(one.pipeline, day)} {words}")
                    if told.error:
                        code = FAILED
                        self.complain(f"{_name(one.pipeline, day)}: {told.error}", told.next_step)
        if self.as_json:
            self.print_json({"simulated": ended})
        if output:
            self.say(output.words)
        self.say(f"{count(len(ended), 'day')} simulated. Nothing was written{' but into that folder' if output else ''}.")
        return code

    def print_json(self, value: Any) -> None:
        """What was compared belongs to every answer."""
        super().print_json({"compared": self.told, **value} if hasattr(self, "told") and "error" not in value else value)


def _name(pipeline: Pipeline, day: Day) -> str:
    return f"{pipeline.slug} {clock.window_text(day.starts_at, day.ends_at, pipeline.time_zone)}"


def _labels(day: Day) -> list[str]:
    names = [one.item.label.rsplit("/", 1)[-1] + (" (late)" if one.is_late else "") for one in day.decisions]
    return [*names[:5], f"and {len(names) - 5} more"] if len(names) > 6 else names


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison as --json gives it."""
    return {
        "pipeline": found.pipeline.slug,
        "stage": found.stage,
        "since": found.within.since.isoformat(),
        "until": found.within.until.isoformat(),
        "compared": len(found.decisions),
        "chosen": found.taken,
        "days": [
            {
                "starts_at": day.starts_at.isoformat(),
                "ends_at": day.ends_at.isoformat(),
                "files": [{"base": one.item.base, "ext": one.item.ext, "why": one.why, "late": one.is_late} for one in day.decisions],
            }
            for day in found.days
        ],
    }
