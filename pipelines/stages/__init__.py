"""The stages: each takes a Run, reads one place, writes the next, and returns an Outcome; it finds its input by asking the lake."""

from pipelines.blocks import Outcome
from pipelines.errors import SetupError
from pipelines.models import Run, Stage
from pipelines.stages import aggregate, enrich, extract, load, publish, standardize
from pipelines.stages.note import Note

STAGES = {
    Stage.EXTRACT: extract.extract,
    Stage.STANDARDIZE: standardize.standardize,
    Stage.ENRICH: enrich.enrich,
    Stage.AGGREGATE: aggregate.aggregate,
    Stage.LOAD: load.load,
    Stage.PUBLISH: publish.publish,
}


def carry_out(run: Run, note: Note) -> Outcome:
    """Do the stage of this run. Raises PipelineError, LeaseLost."""
    if run.stage not in STAGES:
        raise SetupError(
            f"This version has no {run.stage} stage.",
            code="no-such-stage",
            next_step=f"Take {run.stage} out of the stages of {run.block.pipeline.title}.",
        )
    return STAGES[Stage(run.stage)](run, note)
