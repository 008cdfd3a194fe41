"""Descriptions: what was edited of a dataset since its portal was told is told to the portal, though no row of it changed."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.errors import PipelineError
from pipelines.models import Pipeline, UpkeepJob, UpkeepRun
from pipelines.stages import describe
from pipelines.upkeep.jobs import Job, Note


class Descriptions(Job):
    """A dataset that was never published is none of its business: its first publication tells the portal of it."""

    kind = "descriptions"
    label = "Descriptions"
    about = "Tells the portal what was edited of a dataset's title, notes or dictionary since it was last told, without touching a row."
    can_dry = True

    def has_work(self, job: UpkeepJob) -> bool:
        return any(True for _ in self._edited(job))

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        rows, failed, told = [], 0, 0
        for pipeline, error in self._edited(job):
            try:
                if error is not None:
                    raise error
                if note.is_dry:
                    changed = "would be told anew"
                else:
                    changed = ", ".join(describe.push(pipeline, lambda text: note.walk())) or "the portal said all of it already"
                told += 1
            except PipelineError as refused:
                failed += 1
                changed = f"refused: {refused.message} {refused.next_step}".strip()
            rows.append((pipeline.dataset.slug, pipeline.part, pipeline.portal.slug, changed))
            note.walk(f"{len(rows):,} descriptions so far.")
        note.findings(("package", "table", "portal", "what"), rows)
        words = _words(told, failed, is_dry=note.is_dry)
        if failed:
            lines = [f"{package} {table}: {what}".replace(" : ", ": ") for package, table, _, what in rows if what.startswith("refused")]
            note.notice("\n".join([words, *lines]), trouble=True)
        return words

    def _edited(self, job: UpkeepJob) -> Iterator[tuple[Pipeline, PipelineError | None]]:
        """The pipelines whose portal was told something else, or of which it can't be said, and why."""
        introduced = self.pipelines_of(job).exclude(described="").filter(portal__is_active=True, twin_of=None)
        for pipeline in introduced.order_by("slug").prefetch_related("dataset__columns"):
            if not describe.can_be_told(pipeline):
                continue
            try:
                if describe.differs(pipeline):
                    yield pipeline, None
            except PipelineError as error:
                yield pipeline, error


def _words(told: int, failed: int, *, is_dry: bool) -> str:
    if not told and not failed:
        return "Each portal says of its datasets what the catalog does."
    words = f"{told:,} description{'s' * (told != 1)} {'would be' if is_dry else 'were' if told != 1 else 'was'} told to the portal."
    return words + f" {failed:,} {'were' if failed != 1 else 'was'} refused, each for its own reason." * bool(failed)
