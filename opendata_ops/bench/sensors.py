"""A Bluetooth day of 500,000 lines: made a document, beside reading the same file with Python's csv module; and joined with the inventory.

Memory is measured in a process of its own, for a whole day and for a quarter of one: what it takes must not grow with the lines.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from opendata_ops.bench import bare
from opendata_ops.bench.findings import Finding, compared, interleaved, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.plan import Plan
from pipelines.errors import DataError
from pipelines.formats.bluetooth import Bluetooth
from pipelines.formats.sensors import Made, Raw, Standard, Terms

LINES, FEW = 500_000, 50_000
READERS = 150
DAY = date(2026, 6, 1)
STARTS_AT = datetime(2026, 6, 1, 5, tzinfo=UTC)
TERMS = Terms("bt", DAY, "America/Chicago", STARTS_AT, STARTS_AT + timedelta(days=1), STARTS_AT + timedelta(days=1, hours=8))
#: A whole day may take so much more than a quarter of one.
MOST_MB = 8


@dataclass(frozen=True)
class Files:
    """Raw files of a number of lines, and a folder to work in."""

    folder: Path
    lines: int

    @property
    def raw(self) -> Path:
        return self.folder / f"unmatched-{self.lines}.txt"

    def standardize(self) -> Made:
        return self._made(Bluetooth(TERMS).standardize(Raw(self.raw, self.raw.name, "Austin", "unmatched.txt"), self.folder))

    def ready(self, made: Made) -> Made:
        return self._made(Bluetooth(TERMS).ready([Standard(made.path, made.base, made.ext, made.header)], units(), self.folder))

    def _made(self, yielded: Iterator[Any]) -> Made:
        *refused, made = yielded
        if refused or made.rows != self.lines:
            raise DataError(f"{made.rows:,} rows were made of {self.lines:,} lines, and {len(refused):,} refused")
        return made


def bluetooth(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Standardize against csv.reader, the pace of the join, and the memory of both."""
    number = plan.size(LINES, FEW)
    folder = ground.folder / "sensors"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    day, quarter = Files(folder, number), Files(folder, number // 4)
    for files in (day, quarter):
        write_day(files.raw, files.lines)
    # first, while there is nothing in this process that a child could use again
    few, many = (bare.in_a_process(lambda files=files: grown(lambda: files.ready(files.standardize()))) for files in (quarter, day))
    title = f"bluetooth: standardize {day.raw.stat().st_size / 1e6:.0f} MB"
    mine, theirs = interleaved(plan.pairs, _timed(ground, day.standardize), _timed(ground, lambda: read(day.raw)), say=plan.say)
    yield compared("sensors", title, "csv.reader alone", number, mine, theirs, 0.25)

    made = day.standardize()
    costs = [_timed(ground, lambda: day.ready(made))() for _ in range(plan.pairs)]
    pace = number / median(cost.client for cost in costs)
    cpu = (median(cost.client for cost in costs) * 1e6 / number, None)
    yield simple(
        "sensors",
        "bluetooth: joined, sorted, published rows",
        number,
        pace,
        "rows/CPU s",
        None,
        cpu_per_row=cpu,
        details={"ours": [*map(told, costs)]},
    )

    shutil.rmtree(folder)
    words = f"standardize and ready take {few:.0f} MB for a quarter of the lines and {many:.0f} MB for all"
    yield simple("sensors", "bluetooth: memory of a day over a quarter", number, many - few, "MB", MOST_MB, words=words)


def _timed(ground: Ground, work: Callable[[], Any]) -> Callable[[], Cost]:
    def measure() -> Cost:
        with measured(ground.meter) as cost:
            work()
        return cost

    return measure


def read(path: Path) -> int:
    """Every line of a file as the csv module gives it, and nothing done with it."""
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.reader(file))


def grown(work: Callable[[], Any]) -> float:
    """By how many MB this process grew at most while it worked; for a child that does nothing else. Linux alone can say it."""
    # the highest mark so far is forgotten
    Path("/proc/self/clear_refs").write_text("5")
    before = _kb("VmRSS")
    work()
    return (_kb("VmHWM") - before) / 1024


def _kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def units() -> list[dict[str, Any]]:
    """An inventory that knows every reader."""
    place = {"device_type": "BLUETOOTH", "lat": 30.27, "lon": -97.75}
    return [{**place, "atd_device_id": number, "device_name": reader_of(number), "device_ip": f"10.0.0.{number}"} for number in range(READERS)]


def reader_of(number: int) -> str:
    return f"lamar_street_{number:03}"


def write_day(path: Path, lines: int) -> None:
    """Reads as the host writes them, in order: some seconds after the field, of phones that come by at a few readers."""
    dice = random.Random(lines)  # noqa: S311 - the same day each time; nothing is secret
    phones = [f"{number:011x}Njk6QjI=" for number in range(max(1, lines // 10))]
    with path.open("w", encoding="utf-8", newline="") as file:
        for number in range(lines):
            second = number * 86_400 // lines
            file.write(
                f"{clock(second)},166.159.23.{dice.randrange(256)},{clock(max(0, second - dice.randrange(11)))},"
                f"{reader_of(dice.randrange(READERS))},{dice.choice(phones)}\n"
            )


def clock(second: int) -> str:
    """A second of the day as the files have it: `6/1/2026 12:00:00 AM`."""
    hour, rest = divmod(second, 3600)
    return f"{DAY.month}/{DAY.day}/{DAY.year} {hour % 12 or 12}:{rest // 60:02}:{rest % 60:02} {'AM' if hour < 12 else 'PM'}"
