"""What an initialization would replace, in words: for the command that asks and for the page that confirms."""

from pipelines import warehouse
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, Stage
from pipelines.stages.load import warehouse_of
from pipelines.warehouse.tables import Scope


def refusal(pipeline: Pipeline) -> str:
    """Why this pipeline can never be initialized as a whole; "" where it can."""
    if not pipeline.is_snapshot:
        return f"{pipeline.title} can’t be initialized as a whole: it is read window by window. Force its blocks instead."
    if Stage.LOAD not in pipeline.stages:
        return f"{pipeline.title} can’t be initialized: it has no load stage, and so no table."
    return ""


def words(pipeline: Pipeline) -> str:
    """What would go and what would stay. Asks the warehouse."""
    try:
        dsn = warehouse_of(pipeline)
        engine = warehouse.engine(dsn)
        name = engine.full_name(pipeline.table)
        if pipeline.table not in engine.tables(dsn):
            return f"the table {name} does not exist yet; it would be made and filled."
        mine = engine.count(dsn, pipeline.table, Scope(pipeline_id=pipeline.pk))
        others = engine.count(dsn, pipeline.table, Scope()) - mine
    except PipelineError as error:
        return f"what its table holds can't be told: {error.message}"
    theirs = f" The {others:,} rows of other pipelines are taken over into it." if others else ""
    return (
        f"drops {mine:,} rows of {name} and puts a new table in its place, with all rows that the source has now.{theirs}"
        " The old rows are served until the new ones are complete."
    )
