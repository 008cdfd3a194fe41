"""Run blocks now, in the foreground or by the workers: the same orders as the page's buttons."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from time import sleep
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db.models.functions import Now
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipelines import clock, planner, runner
from pipelines.blocks import Verdict
from pipelines.management.base import ASK_DOCTOR, DONE, FAILED, NOTHING, REFUSED, SEE_ALL, STOPPED, OpsCommand, count, me, pipelines_named, refusal
from pipelines.models import STAGE_ORDER, AfterRun, Cadence, Pipeline, Run, ScheduleBlock, Stage, State, Trigger
from pipelines.planner import Order, Placed, Planned
from pipelines.selectors import rebuilds, reports
from pipelines.selectors.after import after_json, deed_words
from pipelines.selectors.waiting import CANARY_SILENT
from pipelines.upkeep import after

EPILOG = """exit codes: 0 done, 1 a block failed, 2 refused or bad usage or configuration, 3 nothing to do; 130 stopped by Ctrl-C.

A window is chosen by its end: after --time-min, up to and including --time-max, in the pipeline's time zone. So 17 is the
hour from 16:00 to 17:00. An hour that the clock repeats means both; where it must be one of them, write an instant:
2026-11-01T06:00Z. Without a time, the blocks that are owed and not done; of a snapshot (a pipeline without a window column)
the present one. Hours that are done are fetched again with --force only, where the source can't say whether they changed."""

EXAMPLE = "for example --time-min 2026-11-20-00 --time-max 2026-11-21-00"
#: A year of hours has 8,784. More blocks in one order are a slip of the finger sooner than a wish.
MOST_WINDOWS = 10_000
#: How often to ask after a block that a worker took before this command could.
LOOK_SECONDS = 0.5
#: What stands for loading on upstream's command line: it validates, enriches and loads in one step.
LOADING = (Stage.STANDARDIZE, Stage.ENRICH, Stage.AGGREGATE, Stage.LOAD)
IMAGE = "opendata_ops:local"
#: The exit codes with which docker says that it could not run the program at all.
DOCKERS_OWN = (125, 126, 127)
HOURS = {
    Cadence.HOURLY: 1,
    Cadence.CRON: 1,
    Cadence.ONCE: 24,
    Cadence.DAILY: 24,
    Cadence.MANUAL: 24,
    Cadence.WEEKLY: 7 * 24,
    Cadence.MONTHLY: 30 * 24,
}


class BlocksCommand(OpsCommand, ABC):
    """A command that places orders and then works their blocks off, or leaves them to the queue; options: queue, workers, no_logs, reason."""

    def _carry_out(self, orders: list[Order], options: dict[str, Any]) -> int:
        """Place the orders, work the blocks off or leave them to the queue, and tell what became of each."""
        if ScheduleBlock.objects.stalled(Now()).exists():
            # what a killed worker left is "running" only by name; where no tick runs, nobody else would take it back
            planner.sweep()
        last = Run.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        placed = [planner.place(order, actor=me(), reason=options["reason"], trigger=Trigger.COMMAND, bell=False) for order in orders]
        moved, waiting, refused = _sorted_out(placed)
        if refused:
            self._left_alone(refused)
        if not moved and not waiting:
            return self._nothing(orders, refused)
        if options["queue"]:
            return self._queue(moved, waiting, refused)
        ids = [*moved, *waiting]
        texts, ended = None, []
        with (
            Steps(shows_bars=not self.as_json, write=None if options["no_logs"] else self.say) as steps,
            signals_stop(),
            contextlib.suppress(KeyboardInterrupt),
        ):
            texts = self._work_off(ids, options["workers"], steps)
            ended = after.carry_out(block_ids=ids)
        if texts is None:
            return self._stopped(ids, refused, last)
        return self._report(ids, texts, refused, last, ended)

    def _work_off(self, ids: list[int], workers: int, steps: Steps) -> dict[int, str]:
        """Run the blocks, and wait for those that a worker took first. Returns what became of each, in words."""
        texts: dict[int, str] = {}
        pending = ids
        while pending:
            results = runner.work_off(pending, workers=workers, on_step=steps)
            texts |= {result.block_id: result.text for result in results}
            elsewhere = [result.block_id for result in results if result.state == State.RUNNING]
            for block in ScheduleBlock.objects.filter(pk__in=elsewhere).select_related("pipeline"):
                self.say(f"{block}: a worker was quicker ({block.holder or 'gone by now'}); waiting for it.")
            while ScheduleBlock.objects.running().filter(pk__in=elsewhere).exists():
                if ScheduleBlock.objects.stalled(Now()).filter(pk__in=elsewhere).exists():
                    planner.sweep()
                sleep(LOOK_SECONDS)
            # between two stages, or given back: whoever is first goes on
            pending = list(ScheduleBlock.objects.due(Now()).filter(pk__in=elsewhere).values_list("pk", flat=True))
        return texts

    def _left_alone(self, refused: list[Verdict]) -> None:
        for verdict in refused:
            self.complain(f"Left alone: {self._name(verdict)}: {verdict.text}", _instead(verdict))

    def _name(self, verdict: Verdict) -> str:
        block = ScheduleBlock.objects.select_related("pipeline").filter(pk=verdict.block_id).first()
        return f"block {block.pk}, {block}" if block else "a window"

    def _nothing(self, orders: list[Order], refused: list[Verdict]) -> int:
        if self.as_json:
            self.print_json({"blocks": [], "refused": _refused_json(refused)})
        if refused:
            return REFUSED
        for order in orders:
            self.say(f"{order.pipelines[0].slug}: {nothing_words(order)}")
        return NOTHING

    def _queue(self, moved: list[int], waiting: list[int], refused: list[Verdict]) -> int:
        try:
            for block_id in [*moved, *waiting]:
                planner.ring(block_id)
        except Exception as error:  # the queue may be the database, redis or SQS, and each has errors of its own
            name = type(error).__name__
            raise refusal(
                f"{count(len(moved) + len(waiting), 'block')} may start, but the queue can't be reached ({name}).",
                f"They start by themselves once it answers and workers run. {ASK_DOCTOR}",
            ) from error
        if self.as_json:
            self.print_json({"queued": moved, "waiting": waiting, "refused": _refused_json(refused)})
        parts = [f"{len(moved):,} queued"] * bool(moved) + [f"{len(waiting):,} waiting for a worker already"] * bool(waiting)
        self.say(f"Blocks: {', '.join(parts)}.")
        pulse = planner.pulse_age()
        if pulse is None or pulse > CANARY_SILENT.total_seconds():
            self.complain("No worker listens now.", "Start them with: python3 manage.py up")
        else:
            self.say("See how they go with: python3 manage.py status")
        return REFUSED if refused else DONE

    def _stopped(self, ids: list[int], refused: list[Verdict], last: int) -> int:
        blocks = _in_order(ids)
        done = sum(block.state == State.DONE for block in blocks)
        if self.as_json:
            self.print_json({"blocks": reports.report_all(blocks, since_run=last), "refused": _refused_json(refused), "stopped": True})
        slugs = " ".join(dict.fromkeys(block.pipeline.slug for block in blocks))
        self.complain(
            f"Stopped. Of {count(len(blocks), 'block')} {done} {'is' if done == 1 else 'are'} done; the others wait, and a worker may take them.",
            f"Go on with the same command and --incomplete-only, or keep them from running: python3 manage.py cancel {slugs}",
        )
        return STOPPED

    def _report(self, ids: list[int], texts: dict[int, str], refused: list[Verdict], last: int, ended: list[AfterRun]) -> int:
        blocks = _in_order(ids)
        told = reports.report_all(blocks, since_run=last)
        if self.as_json:
            self.print_json({"blocks": told, "after": [after_json(one) for one in ended], "refused": _refused_json(refused)})
        for block, as_json in zip(blocks, told, strict=True):
            line, next_step = _words(block, as_json["rows"]["sentence"], texts.get(block.pk, ""))
            if _went_well(block):
                self.say(f"{line} Next: {next_step}" if next_step else line)
            else:
                self.complain(line, next_step)
        for one in ended:
            words = f"{one.step.pipeline.slug}, after the load: {deed_words(one.step)}: {one.get_state_display().lower()}. {one.message}".rstrip()
            if one.state == AfterRun.State.FAILED:
                # the blocks are as good as they were: it is told, and changes nothing of the exit code
                self.complain(words, f"Mend the cause, then: python3 manage.py after --retry {one.pk}")
            else:
                self.say(words)
        if len(blocks) > 1:
            states = [block.state for block in blocks]
            self.say(f"{len(blocks):,} blocks: {', '.join(f'{states.count(state):,} {state}' for state in State.values if state in states)}.")
        if not all(map(_went_well, blocks)):
            return FAILED
        return REFUSED if refused else DONE


class Command(BlocksCommand):
    help = "Run blocks of pipelines: extract, load, publish."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = EPILOG
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="slugs of pipelines; none with --provider means all of that provider")
        parser.add_argument("--provider", default="", help="only pipelines of this provider")
        parser.add_argument("--time-min", default="", metavar="yyyy-mm-dd-hh", help="windows that end after this time")
        parser.add_argument("--time-max", default="", metavar="yyyy-mm-dd-hh", help="windows that end by this time (default: now)")
        hours = "so many hours before --time-max (default: 1, and --time-max now), or after --time-min"
        parser.add_argument("--interval", type=int, metavar="HOURS", help=f"where one of the times is missing: {hours}")
        parser.add_argument("--force", action="store_true", help="also where the source has not changed, and send every row again")
        rebuild = "read everything, build a new table and put it in the place of the old; says what goes, and asks"
        parser.add_argument("--initialize", action="store_true", help=rebuild)
        parser.add_argument("--yes", action="store_true", help="answer yes to what --initialize asks")
        parser.add_argument("--incomplete-only", action="store_true", help="only blocks that are not done, each from the stage at which it stands")
        parser.add_argument("--dry-run", action="store_true", help="print what would run, and change nothing")
        parser.add_argument("--stages", metavar="a,b", help=f"only these stages, of: {', '.join(STAGE_ORDER)}")
        parser.add_argument("--no-extract", action="store_true", help="leave out extract")
        loading = "leave out load, and standardize, enrich and aggregate, which prepare it"
        parser.add_argument("--no-load", "--no-sync-db", action="store_true", help=loading)
        parser.add_argument("--no-publish", "--no-sync-socrata", action="store_true", help="leave out publish")
        parser.add_argument("--no-logs", action="store_true", help="tell only what became of each block; its log is kept all the same")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, metavar="N", help=f"blocks at once (default: {settings.WORKERS})")
        parser.add_argument("--queue", action="store_true", help="leave the work to the workers and return at once")
        parser.add_argument("--reason", default="", help="why; kept in the audit")
        docker = parser.add_argument_group("in a container")
        docker.add_argument("--docker-mode", action="store_true", help="do it in a container; with --dry-run print the command that would")
        docker.add_argument("--env-file", default="", metavar="FILE", help="the settings of the container; needed with --docker-mode")
        docker.add_argument("--docker-args", default="", metavar="ARGS", help='more for `docker run`: --docker-args="--network host"')
        docker.add_argument("--docker-image", default=IMAGE, metavar="IMAGE", help=f"the image that has this program (default: {IMAGE})")

    def act(self, **options: Any) -> int:
        if not options["pipelines"] and not options["provider"]:
            raise refusal("Name a pipeline, or a provider with --provider.", SEE_ALL)
        if options["workers"] < 1:
            raise refusal(f"--workers {options['workers']}: at least 1 is needed.", f"Leave it out for {settings.WORKERS}.")
        now = timezone.now()
        container = container_command(options, as_json=self.as_json)
        chosen = pipelines_named(options["pipelines"], options["provider"])
        orders = [order_of(pipeline, options, now) for pipeline in chosen]
        for words in dict.fromkeys(words for pipeline in chosen for words in _odd_times(pipeline, options, now)):
            self.say(words)
        if options["dry_run"]:
            return self._preview(orders, container)
        if container:
            return self._in_container(container)
        if options["initialize"]:
            self._ask_to_initialize(chosen, yes=options["yes"])
        return self._carry_out(orders, options)

    def _ask_to_initialize(self, chosen: list[Pipeline], *, yes: bool) -> None:
        """Say what would be replaced, and go on only with a yes. Raises Refusal."""
        for pipeline in chosen:
            self.say(f"{pipeline.slug}: {rebuilds.words(pipeline)}")
        if yes:
            return
        if self.as_json or not sys.stdin.isatty():
            raise refusal("--initialize replaces these tables, and nobody was there to say yes.", "Add --yes if that is what you want.")
        self.say("Initialize? Type yes:")
        if sys.stdin.readline().strip().lower() != "yes":
            raise refusal("Nothing was changed.", "Type yes in full, or add --yes.")

    def _in_container(self, words: list[str]) -> int:
        """Let a container do it; its exit code is ours. Raises Refusal."""
        if not shutil.which(words[0]):
            raise refusal("There is no program `docker` on this machine.", "Install it, or leave --docker-mode out: the command does the same.")
        self.say(f"$ {shlex.join(words)}")
        try:
            code = subprocess.run(words, check=False).returncode
        except KeyboardInterrupt:
            return STOPPED
        if code in DOCKERS_OWN:
            # what docker itself says of an image or a flag stands above
            raise refusal(f"docker could not start the container (exit code {code}).", "Look at --docker-image, --docker-args and --env-file.")
        return code

    def _preview(self, orders: list[Order], container: list[str]) -> int:
        lines = [line for order in orders for line in planner.preview(order)]
        if self.as_json:
            self.print_json({"would_run": [planned(line) for line in lines]} | ({"command": shlex.join(container)} if container else {}))
        for line in lines:
            now = line.block.state if line.block else "never ran"
            words = f"left alone: {line.skip}" if line.skip else f"would run {' → '.join(line.will)}"
            self.say(f"{line.pipeline.slug} {clock.window_text(line.starts_at, line.ends_at, line.pipeline.time_zone)} ({now}): {words}")
        if container:
            self.say(f"(dry)$ {shlex.join(container)}")
        will = sum(not line.skip for line in lines)
        if not lines:
            for order in orders:
                self.say(f"{order.pipelines[0].slug}: {nothing_words(order)}")
            return NOTHING
        self.say(f"{count(will, 'block')} would run. This was a dry run: nothing was changed.")
        return DONE if will else REFUSED


def _sorted_out(placed: list[Placed]) -> tuple[list[int], list[int], list[Verdict]]:
    """The blocks that were moved, those that wait already (and that this command may take as well as any worker), and the refusals."""
    moved = [block_id for each in placed for block_id in each.moved]
    verdicts = [verdict for each in placed for verdict in each.refused]
    idle = set(ScheduleBlock.objects.filter(pk__in=[verdict.block_id for verdict in verdicts], state=State.WAITING).values_list("pk", flat=True))
    waiting = [verdict.block_id for verdict in verdicts if verdict.block_id in idle]
    return moved, waiting, [verdict for verdict in verdicts if verdict.block_id not in idle]


def _in_order(ids: list[int]) -> list[ScheduleBlock]:
    """The blocks with their runs, in the order in which they were asked for."""
    place = {block_id: number for number, block_id in enumerate(ids)}
    return sorted(reports.blocks_with_runs(pk__in=ids), key=lambda block: place[block.pk])


def _went_well(block: ScheduleBlock) -> bool:
    """Done, or stopped where this order ends; a block that was cancelled or held meanwhile has an error code."""
    return block.state == State.DONE or (block.state == State.HELD and not block.error_code)


def _words(block: ScheduleBlock, sentence: str, text: str) -> tuple[str, str]:
    """What became of a block, and what to do next ("": nothing)."""
    mark = f" ({block.get_mark_display()})" if block.mark else ""
    where = {State.FAILED: f" at {block.stage}", State.HELD: f" before {block.stage}", State.WAITING: f" for {block.stage}"}.get(
        State(block.state), ""
    )
    message = block.message or (text if block.state == State.WAITING else "")
    if block.state == State.DONE and sentence and not block.mark:
        message = ""  # the words of the last stage, which its own line has told
    line = f"{block}: {block.state}{where}{mark}. " + " ".join(f"{part.rstrip('.')}." for part in (sentence, message) if part)
    again = f"python3 manage.py run {_by_name(block)}"
    if block.state == State.HELD and not block.error_code:
        return line.strip(), block.next_step or f"Go on with {block.stage}: {again}"
    if block.state == State.WAITING:
        due = block.due_at.astimezone(clock.zone(block.pipeline.time_zone))
        later = f"It is tried again from {due:%H:%M:%S %Z} on, by the workers or by the same command."
        return line.strip(), f"{block.next_step} {later}".strip()
    if block.state == State.FAILED:
        return line.strip(), block.next_step or f"Read its log on the page of block {block.pk}, mend the cause, then: {again}"
    if block.state == State.HELD:
        return line.strip(), block.next_step or f"Let it go on with: python3 manage.py release {block.pk}"
    return line.strip(), block.next_step


def _by_name(block: ScheduleBlock) -> str:
    """What to write behind `run` for this block and no other."""
    pipeline = block.pipeline
    if pipeline.is_snapshot:
        return pipeline.slug
    low, high = (_typed(moment, clock.zone(pipeline.time_zone)) for moment in (block.starts_at, block.ends_at))
    return f"{pipeline.slug} --time-min {low} --time-max {high}"


def _typed(moment: datetime, zone: tzinfo) -> str:
    """An end of a window as --time-min takes it; where the clock shows it twice, as an instant, since it must be one of them."""
    # an hour of UTC may begin at half past of a local one: the next full hour lies in the same window
    local = (moment + clock.HOUR - timedelta(microseconds=1)).astimezone(zone)
    twice = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
    return f"{moment:%Y-%m-%dT%H:%MZ}" if twice else f"{local:%Y-%m-%d-%H}"


def _instead(verdict: Verdict) -> str:
    """What to do about a block that was left alone."""
    running = ScheduleBlock.objects.running().filter(pk=verdict.block_id).exists()
    return (
        f"Wait for it, or stop it with: python3 manage.py cancel {verdict.block_id}"
        if running
        else "Look with python3 manage.py status, and try again."
    )


def _refused_json(refused: list[Verdict]) -> list[dict[str, Any]]:
    return [{"block": verdict.block_id or None, "why": verdict.text, "next_step": _instead(verdict)} for verdict in refused]


def nothing_words(order: Order) -> str:
    """Why an order has no block to run."""
    [pipeline] = order.pipelines
    if planner.preview(replace(order, which="all")):
        return "nothing to do, every block of this order is done. To run them all the same, add --force with --time-min and --time-max."
    if order.starts_at is None or order.ends_at is None:
        return f"nothing to do, no window of it is owed yet: the first day is {pipeline.starts_on or 'the day on which it was made'}."
    zone = clock.zone(pipeline.time_zone)
    low, high = (moment.astimezone(zone).strftime("%Y-%m-%d-%H") for moment in (order.starts_at, order.ends_at))
    words = f"nothing to do, none of its {pipeline.cadence} windows ends after {low} and by {high} ({pipeline.time_zone})."
    return f"{words} Choose a longer span." if pipeline.cadence != Cadence.HOURLY else words


def planned(line: Planned) -> dict[str, Any]:
    """A line of the preview as JSON."""
    return {
        "pipeline": line.pipeline.slug,
        "window": {
            "starts_at": line.starts_at.isoformat(),
            "ends_at": line.ends_at.isoformat(),
            "time_zone": line.pipeline.time_zone,
            "text": clock.window_text(line.starts_at, line.ends_at, line.pipeline.time_zone),
        },
        "block": line.block.pk if line.block else None,
        "state": line.block.state if line.block else None,
        "stages": list(line.will),
        "skip": line.skip,
    }


def order_of(pipeline: Pipeline, options: dict[str, Any], now: datetime) -> Order:
    """The order that the flags describe for this pipeline. Raises Refusal (exit code 2)."""
    low, high = _span(pipeline, options, now)
    if options["force"] and not low and not pipeline.is_snapshot:
        raise refusal(f"{pipeline.slug} has many windows: say which ones to force.", f"Add --time-min and --time-max, {EXAMPLE}")
    rebuild = options["initialize"]
    if rebuild and (low or high or not pipeline.is_snapshot):
        raise refusal(
            f"{pipeline.slug} can't be initialized {'for a span of time' if pipeline.is_snapshot else 'as a whole: it is read window by window'}.",
            "Leave the times out." if pipeline.is_snapshot else f"Force its windows instead, {EXAMPLE}",
        )
    stages = _stages(pipeline, options)
    which = "incomplete" if options["incomplete_only"] or (not low and not options["force"]) else "all"
    if not (options["force"] or rebuild or pipeline.is_snapshot or (stages and Stage.EXTRACT not in stages)):
        # a source that can't be asked what it has would send all of it again
        which = which if pipeline.provider.connector_class.can_count else "incomplete"
    return Order([pipeline], starts_at=low, ends_at=high, which=which, stages=stages, force=options["force"], rebuild=rebuild)


def _span(pipeline: Pipeline, options: dict[str, Any], now: datetime) -> tuple[datetime | None, datetime | None]:
    """The span in which the windows end, as UTC instants; (None, None) when none was named. Raises Refusal."""
    first, last = (_time(options[name], f"--{name.replace('_', '-')}", pipeline) for name in ("time_min", "time_max"))
    hours = options["interval"]
    if hours is not None and not 1 <= hours <= MOST_WINDOWS:
        raise refusal(f"--interval {hours}: a number of hours from 1 to {MOST_WINDOWS:,} is needed.", "Or name both --time-min and --time-max.")
    if not (first or last or hours):
        return None, None
    high = last.at if last else _later(first, hours, pipeline) if first and hours else now
    low = first.at if first else _earlier(last, hours or 1, pipeline) if last else now - timedelta(hours=hours or 1)
    if low >= now:
        raise refusal("No window is over yet after that time: it lies in the future.", f"Choose a time that has passed, {EXAMPLE}")
    if low >= high:
        words = f"--time-min {options['time_min']} is not before --time-max {options['time_max']} in {pipeline.time_zone}."
        raise refusal(words, f"Choose an earlier --time-min, {EXAMPLE}")
    if not pipeline.is_snapshot:
        # a window that is not over would come out green with half its rows
        high = min(high, now)
    if (high - low) / timedelta(hours=HOURS[Cadence(pipeline.cadence)]) > MOST_WINDOWS:
        raise refusal(f"That span holds more than {MOST_WINDOWS:,} windows of {pipeline.slug}.", f"Choose a shorter one, {EXAMPLE}")
    return low, high


@dataclass(frozen=True)
class Typed:
    """A time of the command line: `wall` is the city's clock without a zone (None: an instant was typed), `at` the UTC instant."""

    text: str
    wall: datetime | None
    at: datetime
    found: int = 1


def _time(text: str, flag: str, pipeline: Pipeline) -> Typed | None:
    """`yyyy-mm-dd-hh`, unpadded allowed, in the pipeline's zone, or an instant like 2026-11-20T17:00Z; None for "". Raises Refusal.

    Hour 24 is the end of the day. A time that comes twice is its second: the windows that end at either lie up to it. One that the
    clock skips is the moment at which it jumps.
    """
    text = text.strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})-(\d{1,2})", text)
    try:
        if not match:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None or moment.year < 1900:
                raise ValueError("an instant needs its offset")
            return Typed(text, None, moment.astimezone(UTC))
        year, month, day, hour = map(int, match.groups())
        if year < 1900 or hour > 24:
            raise ValueError("no city has data of that year, and a zone may not reach it")
        wall = datetime(year, month, day) + timedelta(hours=hour)  # noqa: DTZ001  the city's wall, as typed
        found = clock.instants(wall, pipeline.time_zone)
        return Typed(text, wall, found[-1] if found else clock.local_instant(wall.date(), wall.time(), pipeline.time_zone), len(found))
    except (ValueError, OverflowError):
        raise refusal(f"{flag} {text!r} is not a time.", "Write yyyy-mm-dd-hh, for example 2026-11-20-17 for 17:00 on November 20.") from None


def _later(first: Typed, hours: int, pipeline: Pipeline) -> datetime:
    """So many hours after a time, by the city's clock where that was typed."""
    if first.wall is None:
        return first.at + timedelta(hours=hours)
    wall = first.wall + timedelta(hours=hours)
    found = clock.instants(wall, pipeline.time_zone)
    return found[-1] if found else clock.local_instant(wall.date(), wall.time(), pipeline.time_zone)


def _earlier(last: Typed, hours: int, pipeline: Pipeline) -> datetime:
    """So many hours before a time, by the city's clock where that was typed; windows that end after it are meant.

    By the clock on the wall, hour 1 of the night on which it goes back is both of them, and no hour is left over between two
    calls that follow each other. Before a skipped hour it is the moment just before the jump: what ends at the jump is meant.
    """
    if last.wall is None:
        return last.at - timedelta(hours=hours)
    wall = last.wall - timedelta(hours=hours)
    found = clock.instants(wall, pipeline.time_zone)
    return found[-1] if found else clock.local_instant(wall.date(), wall.time(), pipeline.time_zone) - timedelta(microseconds=1)


def _odd_times(pipeline: Pipeline, options: dict[str, Any], now: datetime) -> Iterator[str]:
    """What somebody should know of the times that he typed."""
    for name in ("time_min", "time_max"):
        flag = f"--{name.replace('_', '-')}"
        typed = _time(options[name], flag, pipeline)
        if typed and not typed.found:
            local = typed.at.astimezone(clock.zone(pipeline.time_zone))
            yield f"{flag} {typed.text} does not exist in {pipeline.time_zone}: the clock jumps over it to {local:%H:%M}, and that is taken."
        elif typed and typed.found > 1:
            yield f"{flag} {typed.text} comes twice in {pipeline.time_zone}: both hours are meant."
        if typed and name == "time_max" and typed.at > now:
            yield "--time-max lies in the future: windows that are not over yet are left out."


def container_command(options: dict[str, Any], *, as_json: bool) -> list[str]:
    """The same order as words for a container; [] without --docker-mode. Raises Refusal."""
    if not options["docker_mode"]:
        if options["env_file"] or options["docker_args"] or options["docker_image"] != IMAGE:
            raise refusal("--env-file, --docker-args and --docker-image are for --docker-mode.", "Add --docker-mode, or leave them out.")
        return []
    if not options["env_file"]:
        raise refusal("--docker-mode needs the settings of the container.", "Add --env-file with the file's path, like --env-file ~/ops/prod.env")
    file = Path(options["env_file"]).expanduser()
    if not file.is_file():
        raise refusal(f"There is no file {file}.", "Correct --env-file: a file of NAME=value lines, as in .env.example.")
    try:
        more = shlex.split(options["docker_args"])
    except ValueError as error:
        raise refusal(f"--docker-args can't be read: {error}.", 'Close every quote, for example --docker-args "--network host"') from None
    if options["initialize"] and not options["yes"]:
        raise refusal("In a container nobody can answer what --initialize asks.", "Add --yes if that is what you want.")
    terminal = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    start = ["docker", "run", *more, *terminal, "--env-file", str(file), "--rm", options["docker_image"]]
    return [*start, "python3", "manage.py", "run", *options["pipelines"], *_flags(options), *["--json"] * as_json]


def _flags(options: dict[str, Any]) -> Iterator[str]:
    """The flags of this order as they are typed, but those of the container and --dry-run."""
    for name in ("provider", "time_min", "time_max", "interval", "stages", "reason"):
        if options[name] not in ("", None):
            yield from (f"--{name.replace('_', '-')}", str(options[name]))
    if options["workers"] != settings.WORKERS:
        yield from ("--workers", str(options["workers"]))
    for name in ("force", "initialize", "yes", "incomplete_only", "no_extract", "no_load", "no_publish", "no_logs", "queue"):
        if options[name]:
            yield f"--{name.replace('_', '-')}"


def _stages(pipeline: Pipeline, options: dict[str, Any]) -> list[str] | None:
    """The stages that the flags leave; None when no flag speaks of stages. Raises Refusal."""
    named = [name.strip() for name in (options["stages"] or "").split(",") if name.strip()]
    if options["stages"] is not None and not named:
        raise refusal("--stages names no stage.", f"Use some of: {', '.join(STAGE_ORDER)}")
    for name in named:
        if name not in STAGE_ORDER:
            raise refusal(f"There is no stage {name!r}.", f"Use some of: {', '.join(STAGE_ORDER)}")
    flags = {"no_extract": (Stage.EXTRACT,), "no_load": LOADING, "no_publish": (Stage.PUBLISH,)}
    left_out = {stage for flag, stages in flags.items() if options[flag] for stage in stages}
    if not named and not left_out:
        return None
    chosen = [name for name in pipeline.stages if name in (named or STAGE_ORDER) and name not in left_out]
    if not chosen:
        raise refusal(f"No stage of {pipeline.slug} is left to run.", f"It has: {', '.join(pipeline.stages)}")
    return chosen


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """Let SIGTERM and a lost terminal stop the command as Ctrl-C does: the blocks go back at once, not when their leases run out."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # under nohup a lost terminal is to be ignored
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Steps:
    """Progress: bars where stderr is a terminal, and a line for each stage that ended; `write` None leaves those out."""

    def __init__(self, *, shows_bars: bool, write: Callable[[str], None] | None):
        self.write = write
        console = Console(stderr=True)
        self.bars = None
        if console.is_terminal and shows_bars:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            # drawn when something is heard, by no thread of its own: the runner forks, and a lock that a thread holds stays locked in the child
            self.bars = Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Steps:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self.bars:
            self.bars.stop()

    def __call__(self, run: Run, block: ScheduleBlock | None, progress: tuple[int, int | None]) -> None:
        if self.bars:
            if run.pk not in self.tasks:
                self.tasks[run.pk] = self.bars.add_task(f"{run.block} {run.stage}", total=None)
            self.bars.update(self.tasks[run.pk], completed=progress[0], total=progress[1])
            if block is not None:
                self.bars.remove_task(self.tasks.pop(run.pk))
            self.bars.refresh()
        if block is not None and self.write:
            run.refresh_from_db()
            state = run.get_state_display().lower()
            self._line(f"{run.block} {run.stage}: {state}{f' in {run.seconds:.1f} s' if run.seconds is not None else ''}. {run.message}".rstrip())

    def _line(self, text: str) -> None:
        if self.bars and sys.stdout.isatty():
            # above the bars, and not through them
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.write(text)
