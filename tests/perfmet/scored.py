"""Scored tables for tests and screenshots of the quality pages: runs with a history, every grade, and what broken data leaves behind."""

from __future__ import annotations

import math
import random
from datetime import timedelta

from catalog.models import Dataset
from perfmet.models import Grade, QualityRun, QualityScore
from pipelines.models import Pipeline
from tests import world

DAY = timedelta(days=1)
DIVISIONS = ("Parks, Forestry & Recreation", "Transportation Services", "City Clerk's Office", "Toronto Public Health", "Shelter & Support")
SUBJECTS = ("Street trees", "Bicycle counts", "Council votes", "Dinesafe", "Shelter occupancy", "Road closures", "Building permits", "Ravine plants")
#: Weights of the current model, as the city's page names them: a test does not ask the program for them.
WEIGHTS = {"freshness": 0.35, "metadata": 0.35, "accessibility": 0.15, "completeness": 0.10, "usability": 0.05}


def run(back: int = 0, **more) -> QualityRun:
    """A finished run over everything, so many days before world.SATURDAY."""
    at = world.SATURDAY - back * DAY
    values = {"version": "current", "scope": "all", "state": QualityRun.State.DONE, "started_at": at, "finished_at": at + timedelta(minutes=4)}
    return QualityRun.objects.create(**{**values, **more})


def score(of: QualityRun, package: str = "street-trees", resource: str = "", **more) -> QualityScore:
    """An unsaved score of a run; `total` is weighed from the dimensions where no `score` is given."""
    values = {"freshness": 1.0, "metadata": 1.0, "accessibility": 1.0, "completeness": 1.0, "usability": 1.0}
    values |= {name: more.pop(name) for name in list(more) if name in values}
    total = more.pop("score", None)
    if total is None:
        total = sum(weight * (values[name] or 0) for name, weight in WEIGHTS.items())
    grade = Grade.BRONZE if total <= 0.6 else Grade.SILVER if total <= 0.8 else Grade.GOLD
    told = {
        "run": of, "version": of.version, "place": of.place, "package": package, "resource": resource or package, "title": package.capitalize(),
        "division": DIVISIONS[0], "recorded_at": of.started_at, "grade": grade, "score": total, "rows": 1_200, "columns": 12, **values,
    }  # fmt: skip
    return QualityScore(**{**told, **more})


#: What a table whose metadata lack half says of itself.
REASONS = [
    {"dimension": "metadata", "code": "~missing_def_cols:c2,c3", "text": "2 of 12 columns have no definition: c2, c3.", "columns": ["c2", "c3"]},
    {"dimension": "freshness", "code": "~refresh_rate:weekly~periods_behind:2.0", "text": "Refreshed 14 days late for a weekly dataset."},
]
GAINS = [
    {"text": "Bring new rows: the newest came 21 days ago.", "gain": 0.09, "dimension": "freshness", "columns": [], "grade": ""},
    {"text": "Describe 2 of 12 columns: c2, c3.", "gain": 0.0292, "dimension": "metadata", "columns": ["c2", "c3"], "grade": ""},
]
#: Others, so that a list of many tables has several remedies.
MORE_GAINS = [
    {"text": "Add tags: the words that people search for.", "gain": 0.075, "dimension": "accessibility", "columns": [], "grade": ""},
    {"text": "Write the description.", "gain": 0.0437, "dimension": "metadata", "columns": [], "grade": ""},
    {"text": "Rename 3 columns in plain words: F1, F2, bdngHt.", "gain": 0.0125, "dimension": "usability", "columns": ["F1", "F2", "bdngHt"]},
    {"text": "Describe all 9 columns: a, b, c, d and 5 more.", "gain": 0.175, "dimension": "metadata", "columns": ["a", "b", "c"], "grade": ""},
    {"text": "Fill the empty cells of ward: 62% of all cells are empty.", "gain": 0.062, "dimension": "completeness", "columns": ["ward"]},
]


def gains(place: int) -> list[dict]:
    """The gains of the table at that place, the largest first, as a score keeps them."""
    return sorted([MORE_GAINS[place % 5], *GAINS][: 3 - place % 2], key=lambda gain: -gain["gain"])


EVIDENCE = {
    "c2": {"reason": "No definition.", "sample": ["A", "B", None, "", 17]},
    "ward": {"reason": "The same value in every row.", "sample": ["10"]},
}


def fill(tables: int, runs: int, **more) -> list[QualityRun]:
    """`tables` of every grade, each with a history of `runs`; some belong to a dataset and pipeline that are there."""
    dice = random.Random(6)
    datasets, feeding = [], []
    for place in range(min(tables, 12)):
        one, is_new = Dataset.objects.get_or_create(slug=f"scored-{place}", defaults={"title": f"{SUBJECTS[place % 8]} {place}"})
        provider = world.provider(f"files-{place}", f"City files {place}") if is_new else None
        datasets.append(one)
        feeding.append(world.pipeline(one.slug, one.title, provider, one, world.SATURDAY) if provider else one.pipelines.get())
    made = [run(back, **more) for back in range(runs - 1, -1, -1)]
    base = [{name: dice.choice([0.25, 0.5, 0.75, 0.9, 1, 1]) for name in WEIGHTS} for _ in range(tables)]
    rows = []
    for one in made:
        for place in range(tables):
            values = {name: min(1, max(0, value + dice.choice([-0.1, 0, 0, 0.05]))) for name, value in base[place].items()}
            known: dict[str, Dataset | Pipeline] = {"dataset": datasets[place], "pipeline": feeding[place]} if place < len(datasets) else {}
            rows.append(
                score(
                    one, f"scored-{place}", f"{SUBJECTS[place % 8]} {place}, daily" if place % 3 else "", title=f"{SUBJECTS[place % 8]} {place}",
                    division=DIVISIONS[place % 5], store_type="filestore" if place % 7 == 3 else "datastore", reasons=REASONS, gains=gains(place),
                    evidence=EVIDENCE, codes={"metadata": "~missing_def_cols:c2,c3"}, **values, **known,
                )
            )  # fmt: skip
    QualityScore.objects.bulk_create(rows, batch_size=5_000)
    return made


def strange(of: QualityRun) -> list[QualityScore]:
    """What broken portals and older versions leave behind."""
    nothing = dict.fromkeys(WEIGHTS)
    return QualityScore.objects.bulk_create(
        [
            score(of, "nothing known", score=0.0, **nothing),
            score(of, "not a number", score=math.nan, freshness=math.nan, metadata=math.inf),
            score(of, "p" * 200, "r" * 200, title="t" * 300, division="d" * 200, score=0.31),
            score(of, "a/b", "what? & <script>alert(1)</script>#1", title="<b>bold</b>", score=0.5),
            score(of, "wrong json", reasons={"a": 1}, gains="much", evidence=[1, 2], codes=["~x"], score=0.2),
            score(
                of, "half json", reasons=[None, {}, {"text": "w" * 900, "dimension": "purple"}],
                gains=[{"gain": "x"}, {"gain": 2, "text": "n" * 700}],
                evidence={"c": None, "d": {"sample": "x"}, "e" * 200: {"reason": "r" * 500, "sample": ["v" * 3_000, {"a": [1]}]}}, score=0.61,
            ),
            score(of, "files only", store_type="filestore", completeness=None, usability=None, score=0.512),
            score(of, "half-день 半日", "", title="", score=0.8),
        ]
    )  # fmt: skip
