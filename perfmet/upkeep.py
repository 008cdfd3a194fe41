"""The upkeep job that scores datasets: each day those that promise new rows each day, on Tuesdays all; and publishes the scores."""

from __future__ import annotations

from perfmet import quality, score_tables, scorecard
from perfmet.models import QualityScore
from pipelines.connectors.base import Parameter
from pipelines.errors import SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep.jobs import Job, Note

FINDINGS = ("package", "resource", "score", "grade", "why", "raises it most", "by")
_NO = ("", "no")


class Quality(Job):
    """Twice is harmless: a second run of a day adds a second line to the history, and what is published is known by its second."""

    kind = "quality"
    label = "Score datasets"
    about = "Scores how good datasets are, and why: daily ones each day, all on Tuesdays. The history is kept, and published where asked."
    can_dry = True
    options = (
        Parameter("model", "Model", default=scorecard.CURRENT.version, help=f"One of {', '.join(scorecard.MODELS)}."),
        Parameter("place", "Portal that is read", help="The slug of a CKAN or Socrata portal. Empty: the warehouse."),
        Parameter("publish", "Publish to", default="no", help="The slug of a CKAN portal; yes: the one that was read, or the only one; no."),
        Parameter("force", "All on every day", default="no", help="yes: everything is scored, whatever the day."),
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        """`run.details["datasets"]` names the only ones that are meant this time: those that somebody pressed "Score now" for."""
        publish = self.word(job, "publish").lower()
        made = quality.score(
            version=self.word(job, "model"),
            place=self.word(job, "place"),
            names=[str(name) for name in run.details.get("datasets", [])],
            force=self.is_yes(job, "force"),
            asked_by=run.asked_by,
            is_dry=note.is_dry,
            beat=note.walk,
        )
        note.findings(FINDINGS, map(_finding, made.scores))
        note(scoring=made.run.pk, failed=made.failed)
        words = made.run.message
        if publish not in _NO and not note.is_dry and made.run.state == made.run.State.DONE:
            portal = score_tables.portal_for(made.run, "" if publish == "yes" else publish)
            rows = score_tables.publish(made.run, portal)
            words += f" {rows:,} rows were published on {portal.title}."
        note.notice(made.notice, trouble=bool(made.failed))
        if made.failed and not made.scores:
            raise SetupError(words, code="not-scored", next_step="Mend what it names, then run it again.")
        return words


def _finding(score: QualityScore) -> tuple[str | float, ...]:
    why = "; ".join(reason["text"] for reason in score.reasons)
    best = score.gains[0] if score.gains else {"text": "", "gain": ""}
    return score.package, score.resource, round(score.score, 3), score.grade, why, best["text"], best["gain"]
