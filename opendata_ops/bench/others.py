"""Other loaders beside ours: the same rows from the same server into the same database, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from psycopg2.sql import SQL, Identifier

from opendata_ops.bench import peers, rows
from opendata_ops.bench.changes import before, read_only
from opendata_ops.bench.findings import SKIPPED, Finding, compared, interleaved
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost
from opendata_ops.bench.peers import Peer
from opendata_ops.bench.plan import Plan, fresh, rendered, same
from opendata_ops.bench.server import Place
from pipelines.errors import DataError, SetupError

#: Columns that every loader keeps as they came, whatever it makes of times and numbers.
PLAIN = (rows.KEY, "status", "address", "ncname")


def first_loads(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Everybody's first load of the same rows."""
    yield from _first_loads(ground, plan, peers.PEERS, plan.size(200_000, 20_000))


def slow_first_load(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """The same of the one that is too slow for so many."""
    yield from _first_loads(ground, plan, (peers.SLOW,), plan.size(50_000, 5_000))


def _first_loads(ground: Ground, plan: Plan, others: Sequence[Peer], number: int) -> Iterator[Finding]:
    base = rows.Content("base", number)
    for form in ("csv", "json"):
        rendered(ground, base, form)
    try:
        python = peers.environment(ground.folder)
    except SetupError as error:
        for peer in others:
            yield Finding("peers", "first load", peer.title, number, SKIPPED, words=error.message, target=peer.target)
        return
    sides: list[Callable[[], Cost]] = [lambda: fresh(ground, base)]
    sides += [lambda peer=peer: _loaded(ground, python, peer, base) for peer in others]
    mine, *theirs = interleaved(plan.pairs, *sides, say=plan.say)
    for peer, costs in zip(others, theirs, strict=True):
        peers.forget(ground, peer)
        yield compared("peers", "first load, as installed", peer.title, number, mine, costs, peer.target)


def _loaded(ground: Ground, python: Path, peer: Peer, content: rows.Content) -> Cost:
    """A first load by another, into a table that nobody had before, checked and dropped."""
    resource, table = _placed(ground, content), f"theirs_{ground.number()}"
    cost = peers.load(ground, python, peer, f"{ground.portal.url}/resource/{resource}", table, content.count)
    _same_plain(ground, peer, table, content.count)
    _drop(ground, peer, table)
    return cost


def _placed(ground: Ground, content: rows.Content) -> str:
    resource = f"bbbb-{ground.number():04d}"
    ground.portal.place(resource, Place(content.kind, content.rows))
    return resource


def _same_plain(ground: Ground, peer: Peer, table: str, count: int) -> None:
    """What it loaded are the rows that were served. Raises DataError."""
    found = ground.fingerprint(peer.schema, table, PLAIN, as_text=True)
    known = ground.known_plain.setdefault(count, found[1])
    if found != (count, known):
        raise DataError(f"{peer.title} left {found[0]:,} rows with the hash {found[1]}; {count:,} with {known} were expected")


def _drop(ground: Ground, peer: Peer, table: str) -> None:
    if peer.schema == "public":
        ground.drop(peer.schema, table)
        return
    for schema in (peer.schema, f"{peer.schema}_staging"):
        ground.ask(SQL("drop schema if exists {} cascade").format(Identifier(schema)))


def dlt_changes(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """5 % of a loaded table by the best of them that can upsert."""
    number, peer = plan.size(1_000_000, 20_000), peers.PEERS[0]
    base, changed, after = (rows.Content(kind, number) for kind in ("base", "delta", "snap"))
    for content in (base, changed, after):
        rendered(ground, content, "csv")
    try:
        python = peers.environment(ground.folder)
    except SetupError as error:
        yield Finding("peers_delta", "5 % changed", peer.title, number, SKIPPED, words=error.message, target=1.7)
        return
    table = f"theirs_{ground.number()}"
    peers.load(ground, python, peer, f"{ground.portal.url}/resource/{_placed(ground, base)}", table, base.count)
    ground.copy_table(peer.schema, table, "theirs_before")
    with before(ground, number) as old:

        def ours() -> Cost:
            cost = read_only(old.again(watermark_column="updateddate").load(), changed.count)
            same(ground, old.ours.fingerprint(), after.count)
            return cost

        def theirs() -> Cost:
            ground.copy_table(peer.schema, "theirs_before", table)
            cost = peers.load(ground, python, peer, f"{ground.portal.url}/resource/{_placed(ground, changed)}", table, changed.count)
            _same_plain(ground, peer, table, after.count)
            return cost

        mine, other = interleaved(plan.pairs, ours, theirs, say=plan.say)
    _drop(ground, peer, table)
    peers.forget(ground, peer)
    yield compared("peers_delta", f"5 % changed of {number:,}", peer.title, changed.count, mine, other, 1.7)
