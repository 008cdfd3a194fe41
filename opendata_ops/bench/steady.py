"""What must stay as it is: nothing is read of a source that did not change, and size changes neither memory nor the cost of a row."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from opendata_ops.bench import rows
from opendata_ops.bench.findings import BROKEN, MET, MISSED, Finding, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost
from opendata_ops.bench.ours import Ours
from opendata_ops.bench.plan import Plan, fresh, rendered
from opendata_ops.bench.server import Place
from pipelines.errors import PipelineError

#: Below this a load is measured several times; above, once is minutes.
REPEATED = 200_000
#: "within 10 %", and "flat": the largest size may cost so much more a row than the first.
MOST_GROWTH = 1.10
LIMITS = {"csv": 128, "json": 256}


def unchanged(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """A second load of a source that did not change: the server counts what it was asked."""
    number = plan.size(50_000, 5_000)
    rendered(ground, rows.Content("base", number), "csv")
    mine = Ours(ground)
    mine.place(Place("base", number))
    mine.load()
    mine.place(Place("base", number))
    cost = mine.load()
    seen = ground.portal.seen()
    mine.forget()
    yield Finding(
        "unchanged",
        "unchanged source: requests",
        "",
        number,
        MET if seen == {"metadata": 1} else MISSED,
        words=f"the source was asked for {', '.join(f'{kind} {times} x' for kind, times in sorted(seen.items()))}",
        figure=sum(seen.values()),
        unit="request",
        target=1,
        at_least=False,
        seconds=(cost.seconds, None),
    )


def sizes(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Memory and cost a row from 50,000 rows to 3,000,000, CSV and JSON."""
    first = plan.size(50_000, 5_000)
    steps = [first * times for times in ((1, 2, 20, 60) if not plan.rows and not plan.quick else (1, 2, 4))]
    for form in ("csv", "json"):
        costs: dict[int, list[Cost]] = {}
        try:
            for number in steps:
                content = rows.Content("base", number)
                rendered(ground, content, form)
                costs[number] = [fresh(ground, content, format=form) for _ in range(plan.pairs if number <= REPEATED else 1)]
        except PipelineError as error:
            yield Finding("sizes", f"memory and cost, {form.upper()}", "", number, BROKEN, words=error.message)
            continue
        yield from _told(form, costs)


def _told(form: str, costs: dict[int, list[Cost]]) -> Iterator[Finding]:
    first, second, *_, last = costs
    peaks = {number: max(cost.peak_mb for cost in some) for number, some in costs.items()}
    a_row = {number: median(cost.cpu for cost in some) * 1e6 / number for number, some in costs.items()}
    details = {"peaks_mb": peaks, "cpu_per_row": a_row, "ours": [told(cost) for some in costs.values() for cost in some]}
    name = form.upper()
    yield simple("sizes", f"peak memory of a stage, {name}", last, max(peaks.values()), "MB", LIMITS[form], details=details)
    growth = max(peaks.values()) / peaks[first]
    yield simple("sizes", f"peak memory at {last:,} rows through {first:,}, {name}", last, growth, "x", MOST_GROWTH)
    # the fixed cost of a block makes few rows dearer; what may not be is that many are
    words = ", ".join(f"{number:,}: {value:.1f}" for number, value in a_row.items())
    yield simple(
        "sizes",
        f"CPU a row at {last:,} rows through {second:,}, {name}",
        last,
        a_row[last] / a_row[second],
        "x",
        MOST_GROWTH,
        words=f"µs a row {words}",
    )
