"""How good datasets are: the newest score of every table by one model at one place, narrowed and sorted as an address asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib.postgres.expressions import ArraySubquery
from django.core.paginator import Page, Paginator
from django.db.models import DateTimeField, ExpressionWrapper, F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.urls import reverse

from perfmet import scorecard
from perfmet.models import Grade, QualityRun, QualityScore
from perfmet.selectors import grades
from perfmet.selectors.grades import Bar, Gain
from perfmet.selectors.looks import known
from pipelines.models import Provider

A_PAGE = 50
#: So many runs stand in the spark of a table.
TREND = 20
CURRENT = "current"
#: A table that is not scored any more is named for so long; a history of years need not be read through for it.
GONE = timedelta(days=60)
#: A change that is smaller is none: it does not show in three decimals.
STILL = 0.0005
SORTS = {"": "Worst first", "best": "Best first", "name": "By name", "fell": "Fell most", "gain": "Most to gain"}


# which model, and where


@dataclass(frozen=True)
class Model:
    """What was scored: by which model and where; `place` is "" for the warehouse, else the slug of a portal.

    `run` is its newest run, `full` its newest finished one over everything; None where there was none.
    """

    version: str
    place: str
    place_name: str
    run: QualityRun | None = None
    full: QualityRun | None = None

    @property
    def key(self) -> str:
        """As the chooser of the page sends it."""
        return f"{self.version}@{self.place}"

    @property
    def label(self) -> str:
        model = scorecard.MODELS.get(self.version)
        return model.label if model else self.version

    @property
    def name(self) -> str:
        return f"{self.label}, {self.place_name}"

    @property
    def is_relative(self) -> bool:
        return is_relative(self.version)


def models() -> list[Model]:
    """Every model and place that was ever scored, the current model of the warehouse first. Three queries."""
    each = ("version", "place")
    runs = QualityRun.objects.order_by(*each, "-started_at", "-pk").distinct(*each)
    full = {(run.version, run.place): run for run in runs.filter(scope="all", state=QualityRun.State.DONE)}
    titles = dict(Provider.objects.values_list("slug", "title"))
    found = []
    for run in runs:
        found.append(Model(run.version, run.place, place_name(run.place, titles), run, full.get((run.version, run.place))))
    return sorted(found, key=lambda one: (one.version != CURRENT, one.version, one.place != "", one.place_name.casefold()))


def is_relative(version: str) -> bool:
    """Whether a grade of this model comes of a table's place among the others of its run."""
    model = scorecard.MODELS.get(version)
    return model is not None and model.is_relative


def lifts_to(version: str, score: float | None, gain: Gain | None, grade: str) -> str:
    """The better grade that one act would lead to, or ""; of a model that sets tables against each other nobody can tell."""
    return "" if is_relative(version) else grades.lifts_to(score, gain, grade)


def place_name(place: str, titles: Mapping[str, str]) -> str:
    return titles.get(place, place) if place else "the warehouse"


def chosen_model(every: list[Model], given: Mapping[str, str]) -> Model | None:
    """The model that an address asks for, with `model` and `place` or with both in `by`; else the first. None where nothing was ever scored.

    What was never scored is answered too, as a model without a run: the page says so in words.
    """
    version, separator, place = given.get("by", "").partition("@")
    if not separator:
        version, place = given.get("model", ""), given.get("place")
    if not version and place is None:
        return every[0] if every else None
    fits = [one for one in every if one.version == (version or one.version) and one.place == (one.place if place is None else place)]
    return fits[0] if fits else Model((version or CURRENT)[:20], (place or "")[:80], (place or "the warehouse")[:80])


# one table's newest score


@dataclass(frozen=True)
class Line:
    """A table with its newest score. `history` are its last scores, the newest first; `previous` the one before the newest, or None."""

    pk: int
    run_id: int
    version: str
    place: str
    package: str
    resource: str
    title: str
    division: str
    store_type: str
    bars: list[Bar]
    score: float | None
    grade: str
    score_norm: float | None
    grade_norm: str
    gain: Gain | None
    history: list[float]
    recorded_at: datetime
    dataset: str
    pipeline: str

    @property
    def name(self) -> str:
        return self.title or self.package or "(no name)"

    @property
    def part(self) -> str:
        """The table of the dataset, where that is another name."""
        return "" if self.resource in (self.name, self.package) else self.resource

    @property
    def href(self) -> str:
        return address(self.package, self.resource, self.version, self.place)

    @property
    def score_text(self) -> str:
        return grades.figure(self.score)

    @property
    def previous(self) -> float | None:
        return known(self.history[1]) if len(self.history) > 1 else None

    @property
    def change(self) -> float | None:
        """Since the run before; None for a table that was scored once."""
        return None if self.previous is None or self.score is None else self.score - self.previous

    @property
    def change_text(self) -> str:
        return "new" if len(self.history) < 2 else grades.signed(self.change)

    @property
    def is_fallen(self) -> bool:
        return self.change is not None and self.change < -STILL

    @cached_property
    def weakest(self) -> Bar | None:
        return grades.weakest(self.bars)

    @property
    def weakest_words(self) -> str:
        """What stands where no dimension is the weakest: none is below 1, or nobody knows."""
        return "none" if any(bar.value is not None for bar in self.bars) and self.score is not None else "not known"

    @property
    def spark(self) -> str:
        return grades.spark(self.history, TREND)

    @property
    def spark_words(self) -> str:
        seen = [value for value in map(known, self.history) if value is not None]
        return f"{len(self.history)} runs, from {min(seen):.3f} to {max(seen):.3f}" if seen else "no number yet"

    @property
    def lifts_to(self) -> str:
        return lifts_to(self.version, self.score, self.gain, self.grade)


def address(package: str, resource: str, version: str, place: str, page: str = "quality-table") -> str:
    """The page of one table. Names of portals hold whatever people wrote, so they stand behind the question mark."""
    told = {"package": package, "resource": resource, "model": version, "place": place}
    return f"{reverse(page)}?{urlencode(told)}"


def newest(**which: Any) -> QuerySet[QualityScore]:
    """The newest score of each table, as a queryset that can be narrowed further."""
    order = ["version", "place", "package", "resource"]
    found = QualityScore.objects.filter(**which).order_by(*order, "-recorded_at", "-pk").distinct(*order)
    return QualityScore.objects.order_by().filter(pk__in=found.values("pk"))


#: What a line is made of; everything else of a score is longer than a list needs.
_FIELDS = (
    "pk", "run_id", "version", "place", "package", "resource", "title", "division", "store_type", "freshness", "metadata", "accessibility",
    "completeness", "usability", "score", "grade", "score_norm", "grade_norm", "recorded_at",
)  # fmt: skip


def lines(found: QuerySet[QualityScore]) -> list[Line]:
    """These scores as lines, in the order of their names. One query."""
    same = {name: OuterRef(name) for name in ("version", "place", "package", "resource")}
    before = QualityScore.objects.filter(**same, recorded_at__lte=OuterRef("recorded_at")).order_by("-recorded_at", "-pk")
    rows = found.order_by("package", "resource", "version", "place").annotate(
        top=F("gains__0"), last=ArraySubquery(before.values("score")[:TREND]), in_dataset=F("dataset__slug"), by_pipeline=F("pipeline__slug")
    )
    return [_line(row) for row in rows.values(*_FIELDS, "top", "last", "in_dataset", "by_pipeline")]


def _line(row: dict[str, Any]) -> Line:
    weights = grades.weights(row["version"], row["store_type"])
    top = grades.gains([row["top"]])
    return Line(
        bars=grades.bars(row, weights),
        score=known(row["score"]),
        gain=top[0] if top else None,
        history=row["last"],
        dataset=row["in_dataset"] or "",
        pipeline=row["by_pipeline"] or "",
        **{
            name: row[name]
            for name in (
                "pk", "run_id", "version", "place", "package", "resource", "title", "division", "store_type", "grade", "score_norm", "grade_norm",
                "recorded_at",
            )
        },
    )  # fmt: skip


# how the league is narrowed


@dataclass(frozen=True)
class Wanted:
    """The filters of the league: a grade, or "fell"; a division; words of a name; an order."""

    grade: str = ""
    division: str = ""
    search: str = ""
    sort: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Wanted:
        sort, grade = given.get("sort", ""), given.get("grade", "")
        return cls(
            grade=grade if grade in (*Grade.values, "fell", "lift") else "",
            division=given.get("division", "")[:200],
            search=given.get("q", "").strip()[:200],
            sort=sort if sort in SORTS else "",
        )

    def ignoring_grade(self, some: Iterable[Line]) -> list[Line]:
        words = self.search.casefold()
        return [line for line in some if (not self.division or line.division == self.division) and (not words or words in _words(line))]

    def chosen(self, some: Iterable[Line]) -> list[Line]:
        """The lines that it lets through, in its order."""
        found = [line for line in self.ignoring_grade(some) if self._fits(line)]
        return sorted(found, key=_ORDERS[self.sort])

    def _fits(self, line: Line) -> bool:
        if self.grade == "fell":
            return line.is_fallen
        if self.grade == "lift":
            return bool(line.lifts_to)
        return not self.grade or line.grade == self.grade


def _words(line: Line) -> str:
    return f"{line.title} {line.package} {line.resource}".casefold()


def _name(line: Line) -> tuple:
    return line.name.casefold(), line.resource.casefold(), line.pk


#: A score that is no number is a fault, and stands before the worst.
_ORDERS = {
    "": lambda line: (-math.inf if line.score is None else line.score, *_name(line)),
    "best": lambda line: (-(line.score or 0), *_name(line)),
    "name": _name,
    "fell": lambda line: (line.change or 0, *_name(line)),
    "gain": lambda line: (-(line.gain.gain if line.gain else 0), *_name(line)),
}


@dataclass(frozen=True)
class Choice:
    """A counter above the league: its code in the address, its word, and how many tables it would show."""

    code: str
    word: str
    count: int
    is_chosen: bool
    more: str = ""

    @property
    def is_grade(self) -> bool:
        return self.code in Grade.values


# the league


@dataclass(frozen=True)
class League:
    """The league table. `lines` are all tables that are scored, `gone` those that the newest run over everything had no more."""

    models: list[Model]
    model: Model | None
    wanted: Wanted
    lines: list[Line] = field(default_factory=list)
    gone: list[Line] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    divisions: list[str] = field(default_factory=list)
    chosen: list[Line] = field(default_factory=list)
    listed: Page | None = None

    @property
    def mean_text(self) -> str:
        return grades.figure(_mean(line.score for line in self.lines))

    @property
    def change_text(self) -> str:
        """How the mean moved since each table's run before; "" where none was scored twice."""
        change = _mean(line.change for line in self.lines)
        return "" if change is None else grades.signed(change)

    @property
    def lifts(self) -> int:
        """Tables that one act would lift to a better grade."""
        return sum(bool(line.lifts_to) for line in self.lines)

    @property
    def unscored(self) -> list[Unscored]:
        """What the newest run could not score."""
        return failed(self.model.run) if self.model else []

    @property
    def weights(self) -> list[tuple[Bar, Bar]]:
        """What each dimension weighs by this model, of a table and of files."""
        both = [grades.bars({}, grades.weights(self.model.version, kind)) for kind in ("datastore", "filestore")] if self.model else []
        return list(zip(*both, strict=True))

    @property
    def sorts(self) -> list[tuple[str, str]]:
        return list(SORTS.items())


def league(given: Mapping[str, str]) -> League:
    """The league as the address asks; four queries, three where nothing was ever scored."""
    every = models()
    model, wanted = chosen_model(every, given), Wanted.of(given)
    if model is None:
        return League(every, model, wanted)
    scored, gone = tables(model)
    chosen = wanted.chosen(scored)
    return League(
        models=every,
        model=model,
        wanted=wanted,
        lines=scored,
        gone=gone,
        choices=choices(wanted.ignoring_grade(scored), wanted),
        divisions=sorted({line.division for line in scored if line.division}, key=str.casefold),
        chosen=chosen,
        listed=Paginator(chosen, A_PAGE).get_page(given.get("page")),
    )


def tables(model: Model) -> tuple[list[Line], list[Line]]:
    """Every table of a model: those that are scored, and those that its newest run over everything did not find any more. One query."""
    every = lines(newest_of(model))
    gone = [line for line in every if is_gone(model, line.run_id, line.recorded_at, f"{line.package} / {line.resource}")]
    here = {line.pk for line in every} - {line.pk for line in gone}
    return [line for line in every if line.pk in here], gone


def newest_of(model: Model) -> QuerySet[QualityScore]:
    """The newest scores of a model's tables; of those that its newest run over everything has no more, the ones that were there lately."""
    recent = {"run__started_at__gte": model.full.started_at - GONE} if model.full else {}
    return newest(version=model.version, place=model.place, **recent)


def is_gone(model: Model, run_id: int, recorded_at: datetime, name: str) -> bool:
    """Whether the newest run over everything came later and did not find this table. One that it could not score has its last score."""
    if model.full is None or run_id == model.full.pk or recorded_at >= model.full.started_at:
        return False
    return name not in {one.name for one in failed(model.full)}


@dataclass(frozen=True)
class Unscored:
    """A table that a run could not score: its dataset and its own name as the run put them together, and why."""

    name: str
    why: str


def failed(run: QualityRun | None) -> list[Unscored]:
    """What a run could not score."""
    told = run.details.get("failed") if run and isinstance(run.details, dict) else None
    found = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return [Unscored(str(one.get("name", "")), str(one.get("why", ""))) for one in found]


def choices(some: Iterable[Line], wanted: Wanted) -> list[Choice]:
    """All, each grade, those that fell and those that one act would lift."""
    some = list(some)
    counts = Counter(line.grade for line in some)
    found = [Choice("", "All", len(some), not wanted.grade)]
    found += [Choice(grade, grade, counts[grade], wanted.grade == grade) for grade in grades.GRADES]
    found.append(Choice("fell", "Fell", sum(line.is_fallen for line in some), wanted.grade == "fell", "since the run before"))
    found.append(Choice("lift", "One act away", sum(bool(line.lifts_to) for line in some), wanted.grade == "lift", "from a better grade"))
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


COLUMNS = [
    "package", "resource", "title", "division", "grade", "score", "change", *grades.DIMENSIONS, "weakest", "raise_most", "gain", "lifts_to",
    "store_type", "model", "place", "recorded_at",
]  # fmt: skip


def as_csv(some: Iterable[Line]) -> Iterator[list]:
    for line in some:
        yield [
            line.package, line.resource, line.title, line.division, line.grade, line.score,
            None if line.change is None else round(line.change, 6), *(bar.value for bar in line.bars),
            line.weakest.name if line.weakest else "", line.gain.text if line.gain else "", line.gain.gain if line.gain else None, line.lifts_to,
            line.store_type, line.version, line.place, line.recorded_at,
        ]  # fmt: skip


# what other pages say of a dataset


def of_dataset(pk: int) -> list[Line]:
    """The newest scores of a dataset's tables by the current model, wherever it was read. One query."""
    return lines(newest(dataset=pk, **_lately()))


def _lately() -> dict[str, Any]:
    """The current model, in the runs since the newest one over everything and shortly before; all of them where there was none."""
    full = QualityRun.objects.filter(version=CURRENT, scope="all", state=QualityRun.State.DONE).order_by("-started_at")
    full_at = Subquery(full.values("started_at")[:1])
    since = ExpressionWrapper(full_at - Value(GONE), output_field=DateTimeField())
    return {"version": CURRENT, "run__started_at__gte": Coalesce(since, Value(datetime.min.replace(tzinfo=UTC)))}


@dataclass(frozen=True)
class Standing:
    """How good a dataset is: grade and score of its worst table, of so many."""

    grade: str
    score: float | None
    tables: int

    @property
    def score_text(self) -> str:
        return grades.figure(self.score)

    @property
    def words(self) -> str:
        return f"The worst of its {self.tables} tables" if self.tables > 1 else "Its score"


def of_datasets() -> dict[int, Standing]:
    """Number of a dataset to how good it is by the current model. One query."""
    found: dict[int, list[tuple[float, str]]] = {}
    for pk, grade, score in newest(dataset__isnull=False, **_lately()).values_list("dataset", "grade", "score"):
        found.setdefault(pk, []).append((-math.inf if known(score) is None else score, grade))
    return {pk: _worst(each) for pk, each in found.items()}


def standing(some: Iterable[Line]) -> Standing | None:
    """How good a dataset with these tables is; None where none was scored."""
    each = [(-math.inf if line.score is None else line.score, line.grade) for line in some]
    return _worst(each) if each else None


def _worst(each: list[tuple[float, str]]) -> Standing:
    score, grade = min(each)
    return Standing(grade, known(score), len(each))
