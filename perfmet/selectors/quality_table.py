"""The page of one table's score: its dimensions, the reasons, the columns that fail, what would raise it, and how it was before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.http import Http404

from catalog import asked
from perfmet.models import QualityScore
from perfmet.selectors import grades, quality
from perfmet.selectors.grades import Bar, Failing, Gain, Reason
from perfmet.selectors.looks import known
from perfmet.selectors.mending import Mend, mend
from perfmet.selectors.quality import Line, Model

#: So many scores of the past stand in the chart and its table.
HISTORY = 400


@dataclass(frozen=True)
class Dimension:
    """A dimension of this score: its bar, the original's code, and the sentences."""

    bar: Bar
    code: str
    reasons: list[Reason]


@dataclass(frozen=True)
class Act:
    """Something that would raise the score: what to do, what it brings, the grade it would lead to, and where it is done."""

    gain: Gain
    lifts_to: str
    mend: Mend


@dataclass(frozen=True)
class Past:
    """The score of one time."""

    pk: int
    at: datetime
    bars: list[Bar]
    score: float | None
    grade: str
    codes: object
    store_type: str
    division: str
    change: float | None = None

    @property
    def score_text(self) -> str:
        return grades.figure(self.score)

    @property
    def change_text(self) -> str:
        return grades.signed(self.change) if self.change is not None else "–"


@dataclass(frozen=True)
class TablePage:
    """One score of a table (`is_newest`: its newest), and what is known around it. `others` are the same table by other models and places."""

    score: QualityScore
    line: Line
    model: Model
    dimensions: list[Dimension]
    other_reasons: list[Reason]
    acts: list[Act]
    failing: list[Failing]
    past: list[Past]
    others: list[tuple[Model, Line]]
    is_newest: bool

    @property
    def press(self) -> str:
        """Where "Score now" is posted to."""
        return quality.address(self.line.package, self.line.resource, self.line.version, self.line.place, page="quality-score-now")

    @property
    def figure(self) -> str:
        return grades.figure(self.score.score)

    @property
    def norm_text(self) -> str:
        return grades.figure(self.score.score_norm)

    @property
    def lost(self) -> list[Dimension]:
        """What costs points, the most first."""
        return sorted((one for one in self.dimensions if one.bar.lost > 0), key=lambda one: -one.bar.lost)

    @property
    def chart(self) -> dict:
        """Seconds of the moments, and the score with its dimensions, the oldest first."""
        past = self.past[::-1]
        series = {"Score": [one.score for one in past]}
        weighed = [bar.name for bar in self.line.bars if bar.weight]
        for name in weighed:
            series[grades.DIMENSIONS[name]] = [next(bar.value for bar in one.bars if bar.name == name) for one in past]
        return {
            "x": [int(one.at.timestamp()) for one in past],
            "scores": series,
            "dashed": [grades.DIMENSIONS[name] for name in weighed],
            "zone": settings.TIME_ZONE,
            "gaps": True,
        }


def table_page(given: Mapping[str, str]) -> TablePage:
    """The score that an address names with package, resource, model and place, or one of its past with `at`; six queries.

    Raises Http404 for a table that was never scored so.
    """
    package, resource = given.get("package", ""), given.get("resource", "")
    models = quality.models()
    # named, though every one of them is asked: the index begins with model and place
    asked_of = {"version__in": {one.version for one in models}, "place__in": {one.place for one in models}}
    ranks = {(one.version, one.place): rank for rank, one in enumerate(models)}
    every = quality.lines(quality.newest(package=package, resource=resource, **asked_of))
    every = sorted((one for one in every if (one.version, one.place) in ranks), key=lambda one: ranks[one.version, one.place])
    wanted = given.get("model", "") or (every[0].version if every else quality.CURRENT)
    place = given.get("place")
    # of one table the place may be left out, where it has only one
    fits = [one for one in every if one.version == wanted and one.place == (one.place if place is None else place)]
    if not fits:
        raise Http404(f"“{resource or package}” was never scored so. The league table has all tables that were.")
    line = fits[0]
    past = _past(line)
    chosen = asked.number(given.get("at")) or line.pk
    which = chosen if chosen in {one.pk for one in past} else line.pk
    score = QualityScore.objects.select_related("run", "dataset", "pipeline").get(pk=which)
    bars = next(one.bars for one in past if one.pk == score.pk)
    told = grades.reasons(score.reasons)
    return TablePage(
        score=score,
        line=line,
        model=models[ranks[line.version, line.place]],
        dimensions=[Dimension(bar, grades.code_of(score.codes, bar.name), [one for one in told if one.dimension == bar.name]) for bar in bars],
        other_reasons=[one for one in told if one.dimension not in grades.DIMENSIONS],
        acts=[_act(gain, score) for gain in grades.gains(score.gains)],
        failing=_failing(score.evidence, told),
        past=past,
        others=[(models[ranks[one.version, one.place]], one) for one in every if one.pk != line.pk],
        is_newest=score.pk == line.pk,
    )


def _act(gain: Gain, score: QualityScore) -> Act:
    dataset = (score.dataset.pk, score.dataset.slug) if score.dataset else None
    lifts = quality.lifts_to(score.version, known(score.score), gain, score.grade)
    return Act(gain, lifts, mend(gain.dimension, dataset, score.pipeline.slug if score.pipeline else ""))


def _failing(evidence: object, told: list[Reason]) -> list[Failing]:
    """The failing columns in the order of the reasons: the database keeps a JSON object in an order of its own."""
    places = {name: place for place, name in enumerate(dict.fromkeys(name for reason in told for name in reason.columns))}
    return sorted(grades.evidence(evidence), key=lambda one: places.get(one.column, len(places)))


_PAST = ("pk", "recorded_at", "score", "grade", "codes", "store_type", "division", *grades.DIMENSIONS)


def _past(line: Line) -> list[Past]:
    """The last scores of a table, the newest first. One query."""
    rows = list(
        QualityScore.objects.filter(version=line.version, place=line.place, package=line.package, resource=line.resource)
        .order_by("-recorded_at", "-pk")
        .values(*_PAST)[: HISTORY + 1]
    )
    found = []
    for place, row in enumerate(rows[:HISTORY]):
        score = known(row["score"])
        before = known(rows[place + 1]["score"]) if place + 1 < len(rows) else None
        found.append(
            Past(
                pk=row["pk"],
                at=row["recorded_at"],
                bars=grades.bars(row, grades.weights(line.version, row["store_type"])),
                score=score,
                grade=row["grade"],
                codes=row["codes"],
                store_type=row["store_type"],
                division=row["division"],
                change=None if before is None or score is None else score - before,
            )
        )
    return found


#: The columns of the original's history, in its order (facts/toronto.md §2.1).
HISTORY_COLUMNS = [
    "package", "resource", "usability", "usability_code", "metadata", "metadata_code", "freshness", "freshness_code", "completeness",
    "completeness_code", "accessibility", "accessibility_code", "store_type", "division", "score", "grade", "recorded_at",
]  # fmt: skip
_ORIGINAL = ("usability", "metadata", "freshness", "completeness", "accessibility")


def history_csv(page: TablePage) -> Iterator[list]:
    for one in page.past:
        values = {bar.name: bar.value for bar in one.bars}
        pairs = [cell for name in _ORIGINAL for cell in (values[name], grades.code_of(one.codes, name))]
        yield [page.line.package, page.line.resource, *pairs, one.store_type, one.division, one.score, one.grade, one.at]


def failing_csv(some: Iterable[Failing]) -> Iterator[list]:
    """A line for each value of the samples, one for a column without any."""
    for one in some:
        for value in one.sample or [""]:
            yield [one.column, one.why, value]
