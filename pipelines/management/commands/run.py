"""Run blocks now, in the foreground or by the workers: the same orders as the page's buttons."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines import clock, planner, runner
from pipelines.management.base import DONE, FAILED, NOTHING, REFUSED, OpsCommand, me, pipelines_named, refusal
from pipelines.models import STAGE_ORDER, Pipeline, Run, ScheduleBlock, Stage, State, Trigger
from pipelines.planner import Order, Placed, Planned
from pipelines.selectors import reports

EPILOG = """exit codes: 0 done, 1 a block failed, 2 refused or bad usage or configuration, 3 nothing to do

A window is chosen by its end: after --time-min, up to and including --time-max, in the pipeline's time zone. Without
either, the blocks that are owed and not done; of a snapshot (a pipeline without a window column) the present one."""


class Command(OpsCommand):
    help = "Run blocks of pipelines: extract, load, publish."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.epilog = EPILOG
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="slugs of pipelines; none with --provider means all of that provider")
        parser.add_argument("--provider", default="", help="only pipelines of this provider")
        parser.add_argument("--time-min", default="", metavar="yyyy-mm-dd-hh", help="windows that end after this time (default: --interval before --time-max)")
        parser.add_argument("--time-max", default="", metavar="yyyy-mm-dd-hh", help="windows that end by this time (default: now)")
        parser.add_argument("--interval", type=int, default=1, metavar="HOURS", help="with --time-max alone: so many hours before it (default: 1)")
        parser.add_argument("--force", action="store_true", help="also where the source has not changed, and send every row again")
        parser.add_argument("--incomplete-only", action="store_true", help="only blocks that are not done, each from the stage at which it stands")
        parser.add_argument("--dry-run", action="store_true", help="print what would run, and change nothing")
        parser.add_argument("--stages", default="", metavar="a,b", help=f"only these stages, of: {', '.join(STAGE_ORDER)}")
        for stage in (Stage.EXTRACT, Stage.LOAD, Stage.PUBLISH):
            parser.add_argument(f"--no-{stage}", action="store_true", help=f"leave out {stage}")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, metavar="N", help=f"blocks at once (default: {settings.WORKERS})")
        parser.add_argument("--queue", action="store_true", help="leave the work to the workers and return at once")
        parser.add_argument("--reason", default="", help="why; kept in the audit")

    def act(self, **options) -> int:
        if not options["pipelines"] and not options["provider"]:
            raise refusal("Name a pipeline, or a provider with --provider.", "See what there is with: python3 manage.py status")
        if options["workers"] < 1:
            raise refusal(f"--workers {options['workers']}: at least 1 is needed.")
        chosen = pipelines_named(options["pipelines"], options["provider"])
        orders = [order_of(pipeline, options) for pipeline in chosen]
        if options["dry_run"]:
            return self._preview(orders)
        last = Run.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        placed = [
            planner.place(order, actor=me(), reason=options["reason"], trigger=Trigger.COMMAND, bell=options["queue"]) for order in orders
        ]
        moved = [block_id for each in placed for block_id in each.moved]
        if options["queue"]:
            return self._queued(placed, moved)
        # a block that waits its turn already is one that this command may take as well as any worker
        waiting = [verdict.block_id for each in placed for verdict in each.refused]
        waiting = list(ScheduleBlock.objects.filter(pk__in=waiting, state=State.WAITING).values_list("pk", flat=True))
        refused = [verdict for each in placed for verdict in each.refused if verdict.block_id not in waiting]
        for verdict in refused:
            self.say(f"Left alone: block {verdict.block_id}: {verdict.text}")
        if not moved and not waiting:
            return self._nothing(refused)
        with Steps(quiet=self.as_json, write=self.say) as steps:
            try:
                results = runner.work_off([*moved, *waiting], workers=options["workers"], on_step=steps)
            except KeyboardInterrupt:
                self.say("Stopped. The blocks that were running go back to the queue.")
                return FAILED
        return self._report({result.block_id: result.text for result in results}, last)

    def _nothing(self, refused: list) -> int:
        if self.as_json:
            self.print_json({"blocks": [], "refused": [{"block": verdict.block_id, "why": verdict.text} for verdict in refused]})
        if refused:
            return REFUSED
        self.say("Nothing to do: every block of this order is done. Next: use --force to run it all the same.")
        return NOTHING

    def _preview(self, orders: list[Order]) -> int:
        lines = [line for order in orders for line in planner.preview(order)]
        if self.as_json:
            self.print_json({"would_run": [planned(line) for line in lines]})
        for line in lines if not self.as_json else []:
            now = line.block.state if line.block else "never ran"
            words = f"left alone: {line.skip}" if line.skip else " → ".join(line.will)
            self.say(f"{line.pipeline.slug}  {clock.window_text(line.starts_at, line.ends_at, line.pipeline.time_zone)}  ({now})  {words}")
        will = sum(not line.skip for line in lines)
        self.say(f"{will} blocks would run. Nothing was changed." if will else "Nothing to do.")
        return DONE if will else NOTHING

    def _queued(self, placed: list[Placed], moved: list[int]) -> int:
        refused = [verdict for each in placed for verdict in each.refused]
        if self.as_json:
            self.print_json({"queued": moved, "refused": [{"block": verdict.block_id, "why": verdict.text} for verdict in refused]})
        for verdict in refused:
            self.say(f"Left alone: block {verdict.block_id}: {verdict.text}")
        if not moved:
            self.say("Nothing was queued.")
            return REFUSED if refused else NOTHING
        self.say(f"{len(moved)} blocks queued. Next: python3 manage.py status")
        return DONE

    def _report(self, results: dict[int, str], since_run: int) -> int:
        blocks = list(reports.blocks_with_runs(pk__in=list(results)))
        if self.as_json:
            self.print_json({"blocks": [reports.report(block, since_run=since_run) for block in blocks]})
        went_well = all(block.state == State.DONE or _stopped_as_asked(block) for block in blocks)
        for block in blocks:
            told = reports.reconcile(block.runs.all(), block.pipeline.stages, reports.earlier_runs(block.runs.all()))
            self.say(f"{block}: {block.state}{f' ({block.mark})' if block.mark else ''}. {told.sentence}. {results[block.pk]}".replace("..", "."))
            if block.next_step:
                self.say(f"  Next: {block.next_step}")
            if block.state == State.WAITING:
                self.say(f"  It will be tried again from {block.due_at:%Y-%m-%d %H:%M:%S} UTC on, by the workers or by this command.")
        return DONE if went_well else FAILED


def _stopped_as_asked(block: ScheduleBlock) -> bool:
    return block.state == State.HELD and not block.error_code


def planned(line: Planned) -> dict:
    """A line of the preview as JSON."""
    return {
        "pipeline": line.pipeline.slug,
        "window": {"starts_at": line.starts_at.isoformat(), "ends_at": line.ends_at.isoformat()},
        "block": line.block.pk if line.block else None,
        "state": line.block.state if line.block else None,
        "stages": list(line.will),
        "skip": line.skip,
    }


def order_of(pipeline: Pipeline, options: dict) -> Order:
    """The order that the flags describe for this pipeline. Raises CommandError with exit code 2."""
    low, high = (_time(options[name], f"--{name.replace('_', '-')}", pipeline) for name in ("time_min", "time_max"))
    if high and not low:
        if options["interval"] < 1:
            raise refusal(f"--interval {options['interval']}: at least 1 hour is needed.")
        low = high - timedelta(hours=options["interval"])
    if low and not high:
        high = timezone.now()
    if low and high and low >= high:
        raise refusal(f"--time-min {options['time_min']} is not before --time-max {options['time_max'] or 'now'}.")
    if options["force"] and not low and not pipeline.is_snapshot:
        raise refusal(
            f"{pipeline.slug} has many windows: say which ones to force.", "Add --time-min and --time-max, for example --time-min 2026-11-20-00 --time-max 2026-11-21-00"
        )
    which = "incomplete" if options["incomplete_only"] or not low else "all"
    if options["force"]:
        which = "all"
    return Order([pipeline], starts_at=low, ends_at=high, which=which, stages=_stages(pipeline, options), force=options["force"])


def _time(text: str, flag: str, pipeline: Pipeline) -> datetime | None:
    """`yyyy-mm-dd-hh`, unpadded allowed, in the pipeline's zone, as a UTC instant."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})-(\d{1,2})", text.strip())
    try:
        year, month, day, hour = map(int, match.groups())
        if hour == 24:
            return clock.local_instant(datetime(year, month, day).date() + clock.DAY, datetime.min.time(), pipeline.time_zone)
        return clock.local_instant(datetime(year, month, day).date(), datetime.min.replace(hour=hour).time(), pipeline.time_zone)
    except (AttributeError, ValueError):
        raise refusal(f"{flag} {text!r} is not a time.", "Write yyyy-mm-dd-hh, for example 2026-11-20-17 for 17:00 on November 20.") from None


def _stages(pipeline: Pipeline, options: dict) -> list[str] | None:
    named = [name.strip() for name in options["stages"].split(",") if name.strip()]
    for name in named:
        if name not in STAGE_ORDER:
            raise refusal(f"There is no stage {name!r}.", f"Use some of: {', '.join(STAGE_ORDER)}")
    left_out = {stage for stage in (Stage.EXTRACT, Stage.LOAD, Stage.PUBLISH) if options[f"no_{stage}"]}
    if not named and not left_out:
        return None
    chosen = [name for name in pipeline.stages if name in (named or STAGE_ORDER) and name not in left_out]
    if not chosen:
        raise refusal(f"No stage of {pipeline.slug} is left to run.", f"It has: {', '.join(pipeline.stages)}")
    return chosen


class Steps:
    """Progress in the terminal: bars where there is one, else a line an ended stage."""

    def __init__(self, *, quiet: bool, write):
        self.write = write
        console = Console(stderr=True)
        self.bars = None
        if console.is_terminal and not quiet:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            self.bars = Progress(*columns, console=console, transient=True)
        self.tasks: dict[int, int] = {}

    def __enter__(self):
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *problem):
        if self.bars:
            self.bars.stop()

    def __call__(self, run: Run, block: ScheduleBlock | None, progress: tuple[int, int | None]) -> None:
        if self.bars:
            if run.pk not in self.tasks:
                self.tasks[run.pk] = self.bars.add_task(f"{run.block} {run.stage}", total=None)
            self.bars.update(self.tasks[run.pk], completed=progress[0], total=progress[1])
        if block is None:
            return
        if self.bars:
            self.bars.remove_task(self.tasks.pop(run.pk))
        run.refresh_from_db()
        self.write(f"{run.block}  {run.stage}: {run.get_state_display().lower()} in {run.seconds or 0:.1f} s. {run.message}")
