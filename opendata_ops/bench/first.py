"""First loads: source → served table, from nothing, beside a bare COPY of the same bytes into the same keyed table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opendata_ops.bench import bare, rows
from opendata_ops.bench.findings import Finding, compared, interleaved
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost
from opendata_ops.bench.plan import Plan, fresh, rendered, same


def first_load(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Source → served table, from nothing, from pages of CSV."""
    ours = (("first load, CSV, one connection", 0.8, 1, {}), ("first load, CSV, two connections", 1.2, 2, {}))
    yield from _first_load("first_load", ground, rows.Content("base", plan.size(1_000_000, 50_000)), plan, ours)


def json_pages(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """The same from pages of JSON, against the same COPY of CSV."""
    ours = (("first load, JSON, one connection", 0.7, 1, {"format": "json"}),)
    yield from _first_load("json", ground, rows.Content("base", plan.size(200_000, 50_000)), plan, ours)


def _first_load(group: str, ground: Ground, base: rows.Content, plan: Plan, ours: Sequence[tuple]) -> Iterator[Finding]:
    """Ours in each way, and a bare COPY of the same bytes into the same keyed table, in turn."""
    csv = rendered(ground, base, "csv")

    def theirs() -> Cost:
        bare.create(ground, "bare")
        cost = bare.copy(ground, "bare", csv)
        same(ground, ground.fingerprint(bare.SCHEMA, "bare"), base.count)
        return cost

    for _, _, _, fields in ours:
        rendered(ground, base, fields.get("format", "csv"))
    sides = [lambda sessions=sessions, fields=fields: fresh(ground, base, sessions, **fields) for _, _, sessions, fields in ours]
    other, *mine = interleaved(plan.pairs, theirs, *sides, say=plan.say)
    for (title, target, _, _), costs in zip(ours, mine, strict=True):
        yield compared(group, title, "bare COPY, one connection", base.count, costs, other, target)
