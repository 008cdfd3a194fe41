"""Measuring a table for its score: one query over the warehouse, beside pandas over a file of the same rows; and the memory of a portal's pages.

pandas does what the original does once it has a table on its disk: it reads the whole, and counts what is missing and what is the
same. That the original first has to fetch the table page by page is not counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pandas

from opendata_ops.bench import bare, rows
from opendata_ops.bench.findings import Finding, compared, interleaved, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.ours import Ours
from opendata_ops.bench.plan import Plan, as_file, rendered
from opendata_ops.bench.sensors import grown
from opendata_ops.bench.server import Place
from perfmet import measure
from pipelines.errors import DataError

ROWS, FEW = 1_000_000, 50_000
#: So many pages are counted, and a quarter of them.
PAGES = 16
#: All pages may take so much more than a quarter of them.
MOST_MB = 16
#: All CPU, the database's too, that a million rows may take.
MOST_SECONDS = 15
#: Column to (missing cells, whether all others are the same).
Counted = dict[str, tuple[int, bool]]


def quality(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """The ratio to pandas, the CPU of a million rows, and whether the memory of pages is flat."""
    number = plan.size(ROWS, FEW)
    page = _page(ground.folder / "quality", min(number, measure.PAGE_ROWS))
    # first, while there is nothing in this process that a child could use again
    few, many = (bare.in_a_process(lambda pages=pages: grown(lambda: count_pages(page, pages))) for pages in (PAGES // 4, PAGES))

    content = rows.Content("base", number)
    rendered(ground, content, "csv")
    loaded = Ours(ground)
    loaded.place(Place(content.kind, content.rows))
    loaded.load()
    path = as_file(ground, content)
    found: dict[str, Counted] = {}
    mine, theirs = interleaved(
        plan.pairs,
        _timed(ground, found, "ours", lambda: of_table(ground.dsn, loaded.table)),
        _timed(ground, found, "pandas", lambda: bare.in_a_process(lambda: of_frame(path))),
        say=plan.say,
    )
    loaded.forget()
    path.unlink()
    same(found["ours"], found["pandas"])
    yield compared("quality", f"measure {number:,} rows of {len(rows.NAMES)} columns", "pandas, file on disk", number, mine, theirs, 2)
    cpu = median(cost.cpu for cost in mine)
    more = {"cpu_per_row": (cpu * 1e6 / number, None), "details": {"ours": list(map(told, mine))}}
    yield simple("quality", "CPU of a measurement, the database's too", number, cpu, "s", MOST_SECONDS * number / ROWS, **more)

    shutil.rmtree(page.parent)
    words = f"{few:.0f} MB for {PAGES // 4} pages of {measure.PAGE_ROWS:,} rows, {many:.0f} MB for {PAGES}"
    yield simple("quality", "memory of a portal's pages", PAGES * measure.PAGE_ROWS, many - few, "MB", MOST_MB, words=words)


def _timed(ground: Ground, found: dict[str, Counted], name: str, work: Callable[[], Counted]) -> Callable[[], Cost]:
    def timed() -> Cost:
        with measured(ground.meter) as cost:
            found[name] = work()
        return cost

    return timed


def of_table(dsn: str, table: str) -> Counted:
    cells = measure.in_warehouse(dsn, table, rows.NAMES).cells
    return {column.name: (column.missing, column.is_constant) for column in cells.columns}


def of_frame(path: Path) -> Counted:
    """What pandas says of a file, read as the original reads it."""
    frame = pandas.read_csv(path, index_col=False, low_memory=False)
    return {name: (int(frame[name].isna().sum()), bool(frame[name].nunique() <= 1)) for name in frame.columns}


def same(ours: Counted, theirs: Counted) -> None:
    """Both must have counted the same. Raises DataError."""
    if differ := [name for name in theirs if ours.get(name) != theirs[name]]:
        raise DataError(f"column {differ[0]}: {ours.get(differ[0])} were counted, pandas says {theirs[differ[0]]}")


def _page(folder: Path, number: int) -> Path:
    """A page as a portal gives it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "page.csv"
    with bare.Bytes(rows.render(folder, rows.Content("base", number), "csv")) as stream, path.open("wb") as file:
        while piece := stream.read(bare.COPY_BYTES):
            file.write(piece)
    return path


def count_pages(path: Path, pages: int) -> Any:
    """As many pages as that, one after the other."""
    count = measure.Count(rows.NAMES)
    for _ in range(pages):
        count.add(path)
    return count.rows
