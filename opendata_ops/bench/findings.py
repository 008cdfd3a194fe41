"""What a line of the bench found: a figure, its target, and the verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from opendata_ops.bench.meter import Cost
from opendata_ops.bench.ratios import per_row, ratios

MET, MISSED, SKIPPED, BROKEN, TOLD = "met", "missed", "skipped", "broken", "told"


@dataclass
class Finding:
    """One line of the table. `target` None: it is told and not judged. `at_least` False: the figure may be at most the target."""

    group: str
    title: str
    baseline: str
    rows: int
    state: str
    words: str = ""
    figure: float | None = None
    unit: str = "x"
    target: float | None = None
    at_least: bool = True
    least: float | None = None
    most: float | None = None
    pairs: int = 0
    seconds: tuple[float | None, float | None] = (None, None)
    cpu_per_row: tuple[float | None, float | None] = (None, None)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def fails(self) -> bool:
        return self.state in (MISSED, BROKEN)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(figure: float, target: float | None, *, at_least: bool) -> str:
    """MET, MISSED, or TOLD without a target."""
    if target is None:
        return TOLD
    return MET if (figure >= target if at_least else figure <= target) else MISSED


def compared(
    group: str, title: str, baseline: str, rows: int, ours: Sequence[Cost], theirs: Sequence[Cost], target: float | None, **more: Any
) -> Finding:
    """How many times faster ours was: the median of the pairs, with the CPU of both sides beside it."""
    spread = ratios([cost.seconds for cost in ours], [cost.seconds for cost in theirs])
    return Finding(
        group,
        title,
        baseline,
        rows,
        judged(spread.middle, target, at_least=True),
        figure=spread.middle,
        target=target,
        least=spread.least,
        most=spread.most,
        pairs=len(ours),
        seconds=(median(cost.seconds for cost in ours), median(cost.seconds for cost in theirs)),
        cpu_per_row=(_cpu(ours, rows), _cpu(theirs, rows)),
        details={"ours": [told(cost) for cost in ours], "theirs": [told(cost) for cost in theirs], **more},
    )


def simple(group: str, title: str, rows: int, figure: float, unit: str, target: float | None, *, at_least: bool = False, **more: Any) -> Finding:
    """A figure that needs no other side."""
    words = more.pop("words", "")
    return Finding(group, title, "", rows, judged(figure, target, at_least=at_least), words, figure, unit, target, at_least, **more)


def _cpu(costs: Sequence[Cost], rows: int) -> float:
    return per_row([cost.cpu for cost in costs], rows)


def told(cost: Cost) -> dict[str, Any]:
    """A measurement as the JSON has it."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(cost).items()}


def interleaved(pairs: int, *sides: Callable[[], Cost], say: Callable[[str], None] = lambda text: None) -> list[list[Cost]]:
    """Measure all sides in turn, `pairs` times; who begins changes each time, so that a machine that slows down slows all."""
    found: list[list[Cost]] = [[] for _ in sides]
    for turn in range(pairs):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            found[side].append(sides[side]())
        say(f"  turn {turn + 1} of {pairs}: {', '.join(f'{costs[-1].seconds:.2f}' for costs in found)} s")
    return found
