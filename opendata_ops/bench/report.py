"""The bench's table for a reader, with what it was measured on and how quiet that was."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opendata_ops.bench.findings import BROKEN, MET, MISSED, SKIPPED, TOLD, Finding

_WORDS = {MET: "met", MISSED: "NOT MET", SKIPPED: "skipped", BROKEN: "BROKEN", TOLD: "–"}


def verdict(finding: Finding) -> str:
    """One finding in a few words: the figure, the target, and whether it was met."""
    if finding.figure is None:
        return f"{_WORDS[finding.state]}: {finding.words}"
    target = "" if finding.target is None else f" ({'at least' if finding.at_least else 'at most'} {_number(finding.target)} {finding.unit})"
    return f"{_number(finding.figure)} {finding.unit}{target} {_WORDS[finding.state]}"


def lines(findings: list[Finding]) -> Iterator[str]:
    """The table, a line a finding."""
    head = ("line", "against", "rows", "figure", "spread", "target", "verdict", "seconds o/b", "CPU µs/row o/b")
    table = [head, *(_cells(finding) for finding in findings)]
    widths = [max(len(row[place]) for row in table) for place in range(len(head))]
    for number, row in enumerate(table):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
    for finding in findings:
        if finding.words:
            yield f"{finding.title}: {finding.words}"


def _cells(finding: Finding) -> tuple[str, ...]:
    figure = "" if finding.figure is None else f"{_number(finding.figure)} {finding.unit}"
    spread = "" if finding.least is None else f"{_number(finding.least)}–{_number(finding.most)} of {finding.pairs}"
    target = "" if finding.target is None else f"{'≥' if finding.at_least else '≤'} {_number(finding.target)}"
    return (
        finding.title,
        finding.baseline,
        f"{finding.rows:,}",
        figure,
        spread,
        target,
        _WORDS[finding.state],
        _both(finding.seconds, 2),
        _both(finding.cpu_per_row, 1),
    )


def _both(values: tuple[float | None, float | None], digits: int) -> str:
    return " / ".join("–" if value is None else f"{value:.{digits}f}" for value in values) if any(values) else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


# what it was measured on


class Noise:
    """How busy the machine was with other things while the bench ran."""

    def __init__(self) -> None:
        self._before = _times()
        self.load_before = os.getloadavg()[0]

    def told(self) -> dict[str, Any]:
        spent = [after - before for before, after in zip(self._before, _times(), strict=True)]
        whole = sum(spent) or 1
        return {
            "steal_percent": round(100 * spent[7] / whole, 1) if len(spent) > 7 else None,
            "idle_percent": round(100 * spent[3] / whole, 1) if len(spent) > 3 else None,
            "load_before": round(self.load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
        }


def _times() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all cores together, in ticks; [] where nobody tells."""
    try:
        return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except FileNotFoundError:
        return []


def machine(server_version: str) -> dict[str, Any]:
    """What it ran on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": server_version,
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), platform.machine())
