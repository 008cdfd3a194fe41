"""How much is measured, and what every line needs: files on disk, a first load, and the proof that all loads left the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from opendata_ops.bench import bare, rows
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost
from opendata_ops.bench.ours import Ours
from opendata_ops.bench.server import Place
from pipelines.errors import DataError


@dataclass(frozen=True)
class Plan:
    """How much is measured. `rows` overrides every line's own number; `pairs` is the number of interleaved pairs; `say` hears of each."""

    pairs: int = 5
    rows: int | None = None
    quick: bool = False
    say: Callable[[str], None] = lambda text: None

    def size(self, usual: int, quick: int) -> int:
        return self.rows or (quick if self.quick else usual)


def rendered(ground: Ground, content: rows.Content, form: str) -> rows.Rendered:
    """The file of a content, rendered in a process of its own: its memory is not to be ours."""
    bare.in_a_process(lambda: rows.render(ground.folder, content, form) and None)
    return rows.Rendered(rows.folder(ground.folder) / f"{content.stem}.{form}", content)


def fresh(ground: Ground, content: rows.Content, connections: int = 1, **fields) -> Cost:
    """A first load by a pipeline that never ran, checked against a bare load of the same rows."""
    mine = Ours(ground, **fields)
    mine.place(Place(content.kind, content.rows))
    with sessions(connections):
        cost = mine.load()
    form = fields.get("format", "csv")
    if not ground.portal.seen().get(form):
        raise DataError(f"the pipeline was to read {form}, and did not")
    same(ground, mine.fingerprint(), content.count)
    mine.forget()
    return cost


@contextmanager
def sessions(number: int) -> Iterator[None]:
    """So many sessions copy at once meanwhile."""
    before, settings.LOAD_CONNECTIONS = settings.LOAD_CONNECTIONS, number
    try:
        yield
    finally:
        settings.LOAD_CONNECTIONS = before


def same(ground: Ground, found: tuple[int, int], count: int) -> None:
    """Every load of a content must leave the same rows. Raises DataError."""
    known = ground.known.setdefault(count, found[1])
    if found != (count, known):
        raise DataError(f"{found[0]:,} rows with the hash {found[1]} were loaded; {count:,} with {known} were expected")


def as_file(ground: Ground, content: rows.Content) -> Path:
    """A content as one CSV file with its header, for a loader that wants a path."""
    path = rows.folder(ground.folder) / f"{content.stem}-{content.rows}-whole.csv"
    if not path.exists():
        with bare.Bytes(rendered(ground, content, "csv")) as stream, path.open("wb") as file:
            while piece := stream.read(bare.COPY_BYTES):
                file.write(piece)
    return path
