"""The steward's list: everything that would raise a score, over all tables, by what it brings; and which remedy helps how many tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from django.core.paginator import Page, Paginator
from django.db.models import F

from perfmet.selectors import grades, quality
from perfmet.selectors.grades import Gain
from perfmet.selectors.looks import known
from perfmet.selectors.mending import Mend, mend
from perfmet.selectors.quality import Model

A_PAGE = 100
#: An act on columns is the same remedy whatever the columns are called, and however many they are: by its first word.
ON_COLUMNS = {
    "Describe": "Describe columns",
    "Rename": "Rename columns in plain words",
    "Mend": "Mend or drop columns that say nothing",
    "Fill": "Fill empty cells",
}
_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True)
class Act:
    """Something to do for one table. `then` is the score that it would have."""

    name: str
    part: str
    href: str
    division: str
    score: float | None
    grade: str
    gain: Gain
    remedy: str
    lifts_to: str
    mend: Mend

    @property
    def score_text(self) -> str:
        return grades.figure(self.score)

    @property
    def then_text(self) -> str:
        return grades.figure(None if self.score is None else min(self.score + self.gain.gain, 1))


@dataclass(frozen=True)
class Remedy:
    """One kind of act: on how many tables it would help, what it brings together and at most, and how many grades it lifts."""

    name: str
    dimension: str
    tables: int
    total: float
    most: float
    lifts: int
    is_chosen: bool

    @property
    def total_text(self) -> str:
        return grades.signed(self.total)

    @property
    def most_text(self) -> str:
        return grades.signed(self.most)


@dataclass(frozen=True)
class Wanted:
    """The filters of the list: a division, a dimension, a remedy, words of a table's name."""

    division: str = ""
    dimension: str = ""
    remedy: str = ""
    search: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Wanted:
        dimension = given.get("dimension", "")
        return cls(
            division=given.get("division", "")[:200],
            dimension=dimension if dimension in grades.DIMENSIONS else "",
            remedy=given.get("remedy", "")[:200],
            search=given.get("q", "").strip()[:200],
        )

    def ignoring_remedy(self, some: Iterable[Act]) -> list[Act]:
        words = self.search.casefold()
        return [
            act
            for act in some
            if (not self.division or act.division == self.division)
            and (not self.dimension or act.gain.dimension == self.dimension)
            and (not words or words in f"{act.name} {act.part}".casefold())
        ]

    def chosen(self, some: Iterable[Act]) -> list[Act]:
        return [act for act in some if not self.remedy or act.remedy == self.remedy]


@dataclass(frozen=True)
class Improve:
    """The list of acts, the largest gain first. `tables` are those that have any; `scored` is how many tables are scored at all."""

    models: list[Model]
    model: Model | None
    wanted: Wanted
    scored: int = 0
    every: int = 0
    divisions: list[str] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)
    chosen: list[Act] = field(default_factory=list)
    listed: Page | None = None

    @property
    def tables(self) -> int:
        return len({act.href for act in self.chosen})

    @property
    def lifts(self) -> int:
        return len({act.href for act in self.chosen if act.lifts_to})

    @property
    def dimensions(self) -> list[tuple[str, str]]:
        return list(grades.DIMENSIONS.items())


def improve(given: Mapping[str, str]) -> Improve:
    """The list as the address asks; four queries, three where nothing was ever scored."""
    every = quality.models()
    model, wanted = quality.chosen_model(every, given), Wanted.of(given)
    if model is None:
        return Improve(every, model, wanted)
    rows = [row for row in _rows(model) if not quality.is_gone(model, row["run_id"], row["recorded_at"], f"{row['package']} / {row['resource']}")]
    acts = sorted((act for row in rows for act in _acts(row)), key=lambda act: (-act.gain.gain, act.name.casefold(), act.gain.text))
    narrowed = wanted.ignoring_remedy(acts)
    chosen = wanted.chosen(narrowed)
    return Improve(
        models=every,
        model=model,
        wanted=wanted,
        scored=len(rows),
        every=len(acts),
        divisions=sorted({act.division for act in acts if act.division}, key=str.casefold),
        remedies=remedies(narrowed, wanted.remedy),
        chosen=chosen,
        listed=Paginator(chosen, A_PAGE).get_page(given.get("page")),
    )


_FIELDS = ("run_id", "version", "place", "package", "resource", "title", "division", "score", "grade", "gains", "dataset_id", "recorded_at")


def _rows(model: Model) -> list[dict]:
    found = quality.newest_of(model).annotate(in_dataset=F("dataset__slug"), by_pipeline=F("pipeline__slug"))
    return list(found.values(*_FIELDS, "in_dataset", "by_pipeline"))


def _acts(row: dict) -> Iterator[Act]:
    name = row["title"] or row["package"] or "(no name)"
    score = known(row["score"])
    for gain in grades.gains(row["gains"]):
        yield Act(
            name=name,
            part="" if row["resource"] in (name, row["package"]) else row["resource"],
            href=quality.address(row["package"], row["resource"], row["version"], row["place"]),
            division=row["division"],
            score=score,
            grade=row["grade"],
            gain=gain,
            remedy=remedy_of(gain),
            lifts_to=quality.lifts_to(row["version"], score, gain, row["grade"]),
            mend=mend(gain.dimension, (row["dataset_id"], row["in_dataset"]) if row["in_dataset"] else None, row["by_pipeline"] or ""),
        )


def remedy_of(gain: Gain) -> str:
    """The kind of an act: its words without the names and numbers of the table that it is for."""
    verb = gain.text.partition(" ")[0]
    if gain.columns and verb in ON_COLUMNS:
        return ON_COLUMNS[verb]
    words = _NUMBER.sub("some", gain.text.partition(":")[0]).strip().removesuffix(".")
    return words[:120] or "Something unnamed"


def remedies(some: Iterable[Act], chosen: str) -> list[Remedy]:
    """The remedies of these acts, those that bring most together first."""
    of_remedy: dict[str, list[Act]] = {}
    for act in some:
        of_remedy.setdefault(act.remedy, []).append(act)
    found = [
        Remedy(
            name=name,
            dimension=acts[0].gain.word,
            tables=len({act.href for act in acts}),
            total=sum(act.gain.gain for act in acts),
            most=acts[0].gain.gain,
            lifts=sum(bool(act.lifts_to) for act in acts),
            is_chosen=name == chosen,
        )
        for name, acts in of_remedy.items()
    ]
    return sorted(found, key=lambda remedy: (-remedy.total, remedy.name))


COLUMNS = ["title", "table", "division", "what_to_do", "remedy", "dimension", "gain", "score", "grade", "lifts_to", "columns"]


def as_csv(some: Iterable[Act]) -> Iterator[list]:
    for act in some:
        yield [
            act.name, act.part, act.division, act.gain.text, act.remedy, act.gain.dimension, act.gain.gain, act.score, act.grade, act.lifts_to,
            ", ".join(act.gain.columns),
        ]  # fmt: skip
