"""The lines of the bench: what is measured against what, and what it should come to (the targets of issue 3 §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings

from opendata_ops.bench import bare, rows
from opendata_ops.bench.findings import Finding, compared, interleaved, simple
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost
from opendata_ops.bench.ours import Ours
from opendata_ops.bench.server import Place
from pipelines.errors import DataError


@dataclass(frozen=True)
class Plan:
    """How much is measured. `rows` overrides every line's own number; `pairs` is the number of interleaved pairs."""

    pairs: int = 5
    rows: int | None = None
    quick: bool = False

    def size(self, usual: int, quick: int) -> int:
        return self.rows or (quick if self.quick else usual)


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
    csv = _rendered(ground, base, "csv")

    def theirs() -> Cost:
        bare.create(ground, "bare")
        cost = bare.copy(ground, "bare", csv)
        _same(ground, ground.fingerprint(bare.SCHEMA, "bare"), base.count)
        return cost

    for _, _, _, fields in ours:
        _rendered(ground, base, fields.get("format", "csv"))
    sides = [lambda sessions=sessions, fields=fields: _fresh(ground, base, sessions, **fields) for _, _, sessions, fields in ours]
    other, *mine = interleaved(plan.pairs, theirs, *sides)
    for (title, target, _, _), costs in zip(ours, mine, strict=True):
        yield compared(group, title, "bare COPY, one connection", base.count, costs, other, target)


def _rendered(ground: Ground, content: rows.Content, form: str) -> rows.Rendered:
    """The file of a content, rendered in a process of its own: its memory is not to be ours."""
    bare.in_a_process(lambda: rows.render(ground.folder, content, form) and None)
    return rows.Rendered(rows.folder(ground.folder) / f"{content.stem}.{form}", content)


def _fresh(ground: Ground, content: rows.Content, connections: int = 1, **fields) -> Cost:
    """A first load by a pipeline that never ran, checked against a bare load of the same rows."""
    mine = Ours(ground, **fields)
    mine.place(Place(content.kind, content.rows))
    with several(connections):
        cost = mine.load()
    form = fields.get("format", "csv")
    if not ground.portal.seen().get(form):
        raise DataError(f"the pipeline was to read {form}, and did not")
    _same(ground, mine.fingerprint(), content.count)
    mine.forget()
    return cost


@contextmanager
def several(connections: int) -> Iterator[None]:
    """So many sessions copy at once meanwhile."""
    before, settings.LOAD_CONNECTIONS = settings.LOAD_CONNECTIONS, connections
    try:
        yield
    finally:
        settings.LOAD_CONNECTIONS = before


def _same(ground: Ground, found: tuple[int, int], count: int) -> None:
    """Every load of a content must leave the same rows. Raises DataError."""
    known = ground.known.setdefault(count, found[1])
    if found != (count, known):
        raise DataError(f"{found[0]:,} rows with the hash {found[1]} were loaded; {count:,} with {known} were expected")


GROUPS: dict[str, Callable[[Ground, Plan], Iterator[Finding]]] = {"first_load": first_load, "json": json_pages}
