"""Changes: 5 % of a loaded table, read from a watermark on or as a whole snapshot, beside what a script would do with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from opendata_ops.bench import bare, rows
from opendata_ops.bench.findings import Finding, compared, interleaved, simple, told
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.ours import SCHEMA, Ours
from opendata_ops.bench.plan import Plan, as_file, rendered, same
from opendata_ops.bench.server import Place
from pipelines.connectors.base import Column
from pipelines.connectors.socrata import TYPES
from pipelines.errors import DataError
from pipelines.models import Pipeline
from pipelines.warehouse import postgres
from pipelines.warehouse.tables import Region, Table


class Before:
    """A table of ours and a bare one, both with the base rows, that can be had again and again as they were before the change."""

    def __init__(self, ground: Ground, number: int):
        self.ground, self.number, self.version = ground, number, 1_700_000_000
        base = rendered(ground, rows.Content("base", number), "csv")
        self.ours = Ours(ground, watermark_column="updateddate", compare_days=0)
        self.ours.place(Place("base", number))
        self.ours.load()
        ground.copy_table(SCHEMA, self.ours.table, "ours_before")
        bare.create(ground, "bare_before")
        bare.copy(ground, "bare_before", base)
        same(ground, self.ours.fingerprint(), number)
        same(ground, ground.fingerprint(bare.SCHEMA, "bare_before"), number)
        self.watermark = Pipeline.objects.get(pk=self.ours.pipeline.pk).watermark

    def again(self, **settings) -> Ours:
        """Our side as before the change, with these settings of the pipeline; the portal has the change."""
        self.ground.copy_table(SCHEMA, "ours_before", self.ours.table)
        Pipeline.objects.filter(pk=self.ours.pipeline.pk).update(watermark=self.watermark, **settings)
        self.version += 1
        self.ours.place(Place("snap", self.number, since_kind="delta", version=self.version))
        return self.ours

    def bare_again(self) -> str:
        self.ground.copy_table(bare.SCHEMA, "bare_before", "bare")
        return "bare"

    def forget(self) -> None:
        self.ours.forget()
        self.ground.drop(SCHEMA, "ours_before")
        for table in ("bare_before", "bare"):
            self.ground.drop(bare.SCHEMA, table)


@contextmanager
def before(ground: Ground, number: int) -> Iterator[Before]:
    made = Before(ground, number)
    try:
        yield made
    finally:
        made.forget()


def read_only(cost: Cost, wanted: int) -> Cost:
    """Raise DataError when ours read other rows than those that were meant: then the figure would be of something else."""
    read = cost.details["counts"]["extract"]["rows_in"]
    if read != wanted:
        raise DataError(f"the pipeline read {read:,} rows where {wanted:,} were meant")
    return cost


def delta(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """Only the changed rows, read from the watermark on, against COPY into a stage and INSERT .. ON CONFLICT."""
    number = plan.size(1_000_000, 20_000)
    changed, after = rows.Content("delta", number), rows.Content("snap", number)
    rendered(ground, after, "csv")
    file = rendered(ground, changed, "csv")
    with before(ground, number) as old:

        def ours() -> Cost:
            cost = read_only(old.again(watermark_column="updateddate").load(), changed.count)
            same(ground, old.ours.fingerprint(), after.count)
            return cost

        def theirs() -> Cost:
            cost = bare.stage_and_merge(ground, old.bare_again(), file)
            same(ground, ground.fingerprint(bare.SCHEMA, "bare"), after.count)
            return cost

        mine, other = interleaved(plan.pairs, ours, theirs, say=plan.say)
    yield compared("delta", f"5 % changed of {number:,}", "bare stage-and-merge", changed.count, mine, other, 0.75)


def snapshot(ground: Ground, plan: Plan) -> Iterator[Finding]:
    """The whole table again, 5 % of it changed, against a blind ON CONFLICT of all rows: the merge alone, its log, and the whole way."""
    number = plan.size(200_000, 20_000)
    after = rows.Content("snap", number)
    file = rendered(ground, after, "csv")
    with before(ground, number) as old:

        def ours() -> Cost:
            cost = read_only(old.again(watermark_column="").load(), after.count)
            same(ground, old.ours.fingerprint(), after.count)
            return cost

        def ours_merge() -> Cost:
            old.again(watermark_column="")
            cost = _merge(ground, old.ours, after)
            same(ground, old.ours.fingerprint(), after.count)
            return cost

        def theirs() -> Cost:
            cost = bare.stage_and_merge(ground, old.bare_again(), file)
            same(ground, ground.fingerprint(bare.SCHEMA, "bare"), after.count)
            return cost

        def theirs_merge() -> Cost:
            cost = bare.blind_merge(ground, old.bare_again(), file)
            same(ground, ground.fingerprint(bare.SCHEMA, "bare"), after.count)
            return cost

        mine, other, my_merge, their_merge = interleaved(plan.pairs, ours, theirs, ours_merge, theirs_merge, say=plan.say)
    yield compared("snapshot", f"snapshot of {number:,}, 5 % changed: the merge", "blind ON CONFLICT", after.count, my_merge, their_merge, 3)
    share = 100 * median(cost.wal for cost in my_merge) / median(cost.wal for cost in their_merge)
    yield simple("snapshot", "its log (WAL), of the blind one's", after.count, share, "%", 40, details={"ours": [told(cost) for cost in my_merge]})
    yield compared("snapshot", "the same, source to table", "stage, blind ON CONFLICT", after.count, mine, other, None)


def _merge(ground: Ground, ours: Ours, content: rows.Content) -> Cost:
    """Our merge alone: the rows are staged and judged when the clock starts."""
    columns = tuple(Column(name, TYPES.get(kind, "text")) for name, kind, _ in rows.COLUMNS)
    job = postgres.Load(
        ground.dsn,
        Table(ours.table, columns, (rows.KEY,)),
        run_id=0,
        # nobody's block: the fence of the real one must not move, or its next run would lose its lease
        block_id=0,
        pipeline_id=ours.pipeline.pk,
        fence=1,
        region=Region("pipeline"),
        vouched=True,
    )
    with job:
        job.stage(0, as_file(ground, content))
        job.judge()
        ground.settle()
        start = ground.wal()
        with measured(ground.meter) as cost:
            merged = job.merge()
        cost.wal = ground.wal() - start
    cost.details = {"inserted": merged.inserted, "updated": merged.updated, "unchanged": merged.unchanged}
    return cost
