"""How good the datasets are, from the shell: score them, list the scores, show why one is as it is, publish a scoring."""

from __future__ import annotations

import argparse
import difflib
from typing import Any

from django.core.management.base import CommandParser

from catalog import audit
from catalog.models import Dataset
from perfmet import quality, score_tables, scorecard
from perfmet.dimensions import ACCESSIBILITY, COMPLETENESS, FRESHNESS, METADATA, USABILITY
from perfmet.models import QualityRun, QualityScore
from pipelines.management.base import DONE, FAILED, NOTHING, OpsCommand, count, me, refusal

#: The heaviest first.
SHOWN = (METADATA, FRESHNESS, ACCESSIBILITY, COMPLETENESS, USABILITY)
SCORE = "python3 manage.py quality score --all"


class Command(OpsCommand):
    help = "Score how good datasets are, list their newest scores, show why one is as it is and what would raise it, or publish a scoring."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 1 something could not be scored, 2 refused or bad usage, 3 there is nothing"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="score|list|show|publish|csv")
        done = verbs.add_parser("score", help="score the datasets whose turn it is: all on Tuesdays, else the daily ones")
        done.add_argument("datasets", nargs="*", metavar="DATASET", help="only these: slugs, or what the portal calls them")
        done.add_argument("--all", "--force", dest="force", action="store_true", help="all of them, whatever the day")
        done.add_argument(
            "--publish", nargs="?", const="yes", default="", metavar="PORTAL", help="then publish the scores, on this CKAN or the only one"
        )
        done.add_argument("--dry-run", action="store_true", help="only say what they would be; keep and publish nothing")
        listed = verbs.add_parser("list", help="the newest score of each table, the best first")
        shown = verbs.add_parser("show", help="a dataset's newest scores, why they are so, and what would raise them")
        shown.add_argument("dataset", metavar="DATASET")
        sent = verbs.add_parser("publish", help="publish a scoring on a CKAN portal; twice is harmless")
        sent.add_argument("--portal", default="", help="its slug; else the one that was scored, or the only one")
        table = verbs.add_parser("csv", help="print a scoring as CSV, with the columns of the publication")
        for one in (sent, table):
            one.add_argument("run", nargs="?", type=int, metavar="RUN", help="its number; else the newest")
        for one in (done, listed, shown, sent, table):
            one.add_argument("--model", default=scorecard.CURRENT.version, choices=list(scorecard.MODELS), help="current, or 0.1.0 of 2020")
            one.add_argument("--place", default="", metavar="PORTAL", help="the slug of a CKAN or Socrata portal; without it, the warehouse")
            one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout, and nothing else there")

    def act(self, **options: Any) -> int:
        verbs = {"score": self._score, "list": self._list, "show": self._show, "publish": self._publish, "csv": self._csv}
        return verbs[options["verb"]](options)

    def _score(self, options: dict[str, Any]) -> int:
        is_dry, publish = options["dry_run"], options["publish"]
        if is_dry and publish:
            raise refusal("A dry run publishes nothing.", "Leave out --publish, or --dry-run.")
        made = quality.score(
            version=options["model"],
            place=options["place"],
            names=options["datasets"],
            force=options["force"],
            asked_by=me().name,
            is_dry=is_dry,
        )
        published = None
        if not is_dry:
            audit.write(me(), "score", kind="quality", target=options["place"] or "the warehouse", result=made.run.message)
            if publish and made.run.state == QualityRun.State.DONE:
                published = self._send(made.run, "" if publish == "yes" else publish)
        if self.as_json:
            scores = sorted(map(_json, made.scores), key=lambda one: -one["score"])
            self.print_json({"run": _run_json(made.run), "scores": scores, "failed": made.failed, "published": published})
        for score in sorted(made.scores, key=lambda score: -score.score):
            self.say(_line(score))
        for one in made.failed:
            self.complain(f"{one['name']}: {one['why']}", "Mend it, then score it again.")
        self.say(made.run.message if not is_dry else f"{made.run.message} Nothing was kept.")
        if published is not None:
            self.say(f"{count(published, 'row')} published.")
        if made.failed:
            return FAILED
        return DONE if made.scores else NOTHING

    def _send(self, run: QualityRun, slug: str) -> int:
        portal = score_tables.portal_for(run, slug)
        rows = score_tables.publish(run, portal)
        audit.write(me(), "publish", kind="quality", target=portal.slug, result=f"{count(rows, 'row')} of the scoring {run.pk}.")
        return rows

    def _list(self, options: dict[str, Any]) -> int:
        scores = quality.newest(version=options["model"], place=options["place"])
        if self.as_json:
            self.print_json({"model": options["model"], "place": options["place"], "scores": [_json(score) for score in scores]})
        for score in scores:
            self.say(_line(score))
        if not scores:
            self.say(f"Nothing was scored yet. Next: {SCORE}")
        return DONE if scores else NOTHING

    @staticmethod
    def _instead(name: str) -> str:
        """What to type in the place of a dataset that has no score."""
        known = list(Dataset.objects.values_list("slug", flat=True))
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5) if name not in known else []
        return f"Did you mean {near[0]}?" if near else f"Score it with: python3 manage.py quality score {name}"

    def _show(self, options: dict[str, Any]) -> int:
        scores = quality.newest(version=options["model"], place=options["place"], package=options["dataset"])
        if not scores:
            raise refusal(f"{options['dataset']} was not scored yet.", self._instead(options["dataset"]))
        if self.as_json:
            self.print_json({"dataset": options["dataset"], "scores": [_json(score) | _why_json(score) for score in scores]})
        for score in scores:
            self._explain(score)
        return DONE

    def _explain(self, score: QualityScore) -> None:
        self.say(_line(score))
        values = ", ".join(f"{name} {getattr(score, name):.3f}" for name in SHOWN if getattr(score, name) is not None)
        self.say(f"  {values}; scored {score.recorded_at:%Y-%m-%d %H:%M} UTC")
        for reason in score.reasons:
            self.say(f"  - {reason['text']} {reason['code']}".rstrip())
        for gain in score.gains:
            lifts = f", {gain['grade']}" if gain.get("grade") and gain["grade"] != score.grade else ""
            self.say(f"  + {gain['gain']:.3f}{lifts}: {gain['text']}")

    def _publish(self, options: dict[str, Any]) -> int:
        run = self._run(options)
        rows = self._send(run, options["portal"])
        if self.as_json:
            self.print_json({"run": _run_json(run), "published": rows})
        self.say(f"{count(rows, 'row')} of the scoring {run.pk} published.")
        return DONE

    def _csv(self, options: dict[str, Any]) -> int:
        run = self._run(options)
        if self.as_json:
            self.print_json({"run": _run_json(run), "rows": list(score_tables.table_of(run).rows(run))})
        else:
            score_tables.write_csv(run, self.stdout)
        return DONE

    def _run(self, options: dict[str, Any]) -> QualityRun:
        return quality.run_numbered(options["run"], version=options["model"], place=options["place"])


def _line(score: QualityScore) -> str:
    return f"{score.score:.3f}  {score.grade:<6}  {score.package} / {score.resource}"


def _run_json(run: QualityRun) -> dict[str, Any]:
    return {"number": run.pk, "model": run.version, "scope": run.scope, "place": run.place, "state": run.state, "message": run.message}


def _json(score: QualityScore) -> dict[str, Any]:
    values = {name: getattr(score, name) for name in SHOWN}
    return {
        "package": score.package, "resource": score.resource, **values, "score": score.score, "grade": score.grade, "score_norm": score.score_norm,
        "codes": score.codes, "rows": score.rows, "columns": score.columns, "recorded_at": score_tables.stamp(score.recorded_at),
    }  # fmt: skip


def _why_json(score: QualityScore) -> dict[str, Any]:
    return {"reasons": score.reasons, "gains": score.gains, "evidence": score.evidence}
