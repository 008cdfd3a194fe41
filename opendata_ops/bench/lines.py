"""The lines of the bench: what is measured against what, and what it should come to (the targets of issue 3 §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    """Source → served table, from nothing, against a bare COPY of the same bytes into the same keyed table."""
    number = plan.size(200_000, 50_000)
    base = rows.Content("base", number)
    csv = _rendered(ground, base, "csv")
    for title, target, form, fields in (
        ("first load, CSV", 0.8, "csv", {}),
        ("first load, JSON", 0.7, "json", {"format": "json"}),
    ):
        _rendered(ground, base, form)

        def ours(fields=fields) -> Cost:
            return _fresh(ground, base, **fields)

        def theirs() -> Cost:
            bare.create(ground, "bare")
            cost = bare.copy(ground, "bare", csv)
            _same(ground, ground.fingerprint(bare.SCHEMA, "bare"), number)
            return cost

        mine, other = interleaved(plan.pairs, ours, theirs)
        yield compared("first_load", title, "bare COPY, one connection", number, mine, other, target)


def _rendered(ground: Ground, content: rows.Content, form: str) -> rows.Rendered:
    """The file of a content, rendered in a process of its own: its memory is not to be ours."""
    bare.in_a_process(lambda: rows.render(ground.folder, content, form) and None)
    return rows.Rendered(rows.folder(ground.folder) / f"{content.stem}.{form}", content)


def _fresh(ground: Ground, content: rows.Content, **fields) -> Cost:
    """A first load by a pipeline that never ran, checked against a bare load of the same rows."""
    mine = Ours(ground, **fields)
    mine.place(Place(content.kind, content.rows))
    cost = mine.load()
    _same(ground, mine.fingerprint(), content.count)
    mine.forget()
    return cost


def _same(ground: Ground, found: tuple[int, int], count: int) -> None:
    """Every load of a content must leave the same rows. Raises DataError."""
    known = ground.known.setdefault(count, found[1])
    if found != (count, known):
        raise DataError(f"{found[0]:,} rows with the hash {found[1]} were loaded; {count:,} with {known} were expected")


GROUPS: dict[str, Callable[[Ground, Plan], Iterator[Finding]]] = {"first_load": first_load}
