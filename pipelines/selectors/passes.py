"""The attempts at a block: its runs by pass, and the stages of a pass drawn as bars of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipelines.clock import span_words
from pipelines.models import Run, RunState, Stage
from pipelines.selectors.chain import BAD, WELL


def passes(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs by pass, newest pass first, each in its order: a new pass begins where the stage goes back, or is done a second time."""
    order = Stage.values
    grouped: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.pk):
        last = grouped[-1][-1] if grouped else None
        goes_on = last is not None and (order.index(run.stage) > order.index(last.stage) or (run.stage == last.stage and last.state not in WELL))
        if goes_on:
            grouped[-1].append(run)
        else:
            grouped.append([run])
    return grouped[::-1]


@dataclass(frozen=True)
class Bar:
    """One stage as a bar, in units of an SVG that is 836 wide: where it begins, how long it waited and how long it worked."""

    stage: str
    state: str
    y: int
    wait_x: float
    wait_width: float
    x: float
    width: float
    text: str
    run: Run

    @property
    def text_x(self) -> float:
        # at the far right the words stand before the end of the picture
        return min(self.x + self.width + 6, 600)

    @property
    def text_y(self) -> int:
        return self.y + 11


@dataclass(frozen=True)
class Gantt:
    """The stages of a pass, end to end: pauses between tries are left out and told in words."""

    bars: tuple[Bar, ...]
    height: int
    ticks: tuple[tuple[float, str], ...]
    seconds: float
    summary: str


LEFT, SPAN = 92, 480


def gantt(pass_: Sequence[Run], now: datetime) -> Gantt | None:
    """Bars for the last try of each stage of a pass; None when nothing has run."""
    last: dict[str, Run] = {}
    tries: dict[str, int] = {}
    for run in pass_:
        last[run.stage] = run
        tries[run.stage] = tries.get(run.stage, 0) + 1
    if not last:
        return None
    spans = [(run, _waited(run), _worked(run, now)) for run in last.values()]
    total = max(sum(waited + worked for _, waited, worked in spans), 0.001)
    scale, at, bars = SPAN / total, float(LEFT), []
    for index, (run, waited, worked) in enumerate(spans):
        wait_width, width = waited * scale, max(worked * scale, 1.5)
        bars.append(
            Bar(
                stage=run.stage,
                state=_bar_state(run),
                y=20 + 21 * index,
                wait_x=round(at, 1),
                wait_width=round(wait_width, 1),
                x=round(at + wait_width, 1),
                width=round(width, 1),
                text=_bar_text(run, waited, worked, tries[run.stage]),
                run=run,
            )
        )
        at += wait_width + worked * scale
    return Gantt(
        bars=tuple(bars),
        height=24 + 21 * len(bars),
        ticks=tuple((round(LEFT + SPAN * step / 4, 1), clock_words(total * step / 4)) for step in range(5)),
        seconds=total,
        summary=", ".join(f"{bar.stage} {bar.text}" for bar in bars),
    )


def _waited(run: Run) -> float:
    return max((run.started_at - run.queued_at).total_seconds(), 0.0) if run.queued_at else 0.0


def _worked(run: Run, now: datetime) -> float:
    return max(((run.finished_at or now) - run.started_at).total_seconds(), 0.0)


def _bar_state(run: Run) -> str:
    return {
        RunState.DONE: "okquiet",
        RunState.UNCHANGED: "okquiet",
        RunState.RUNNING: "running",
        RunState.FAILED: "failed",
        RunState.CRASHED: "crashed",
        RunState.CANCELLED: "queued",
        RunState.WAITING: "queued",
    }[RunState(run.state)]


def _bar_text(run: Run, waited: float, worked: float, tries: int) -> str:
    parts = [span_words(worked)]
    if run.state in BAD:
        parts.append(run.get_state_display().lower())
    elif run.state == RunState.UNCHANGED:
        parts.append("unchanged")
    elif run.state == RunState.DONE and run.rows_in:
        parts.append(f"{run.rows_in:,} rows")
    if run.rejected:
        parts.append(f"{run.rejected:,} rejected")
    if waited >= 1:
        parts.append(f"{span_words(waited)} in the queue")
    if tries > 1:
        parts.append(f"try {tries}")
    return " · ".join(parts)


def clock_words(seconds: float) -> str:
    """Seconds on an axis: "0:20", "1:06:00"; under ten seconds "2.5 s"."""
    if 0 < seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
