"""The score of a table or file: its dimensions weighed by a model, the grade, and what would raise it most. Pure.

A model is a name in `MODELS`. What would raise the score is not guessed: each remedy is applied to what is known of the table, and
the table is scored again (`gains`). Model 0.1.0 also sets the scores of one run against each other (`norms`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfmet import dimensions
from perfmet.dimensions import (
    ACCESSIBILITY,
    COMPLETENESS,
    DATASTORE,
    DIMENSIONS,
    FIELD_WORDS,
    FRESHNESS,
    METADATA,
    USABILITY,
    ColumnFacts,
    Dimension,
    Facts,
    Reason,
    listed,
    many,
)
from perfmet.words import Knows, english_share
from pipelines.errors import SetupError

#: Right-closed: a score of 0.8 is Silver.
BINS = {"Bronze": 0.6, "Silver": 0.8, "Gold": 1.0}
#: A remedy that raises the score by less is not worth its line.
LEAST_GAIN = 0.0005
#: A sum of weights is not exact: 0.7999999 is the 0.8 that was meant, and so is 0.8000001.
EXACT_DIGITS = 9


def grade(score: float) -> str:
    """Bronze up to 0.6, Silver up to 0.8, above that Gold."""
    return next((name for name, most in BINS.items() if round(score, EXACT_DIGITS) <= most), "Gold")


def ranked_weights(number: int, method: str = "sr") -> tuple[float, ...]:
    """The weights of so many dimensions by their rank, together 1, as the notebook makes them.

    sr: sum and reciprocal, rs: rank sum, rr: reciprocal, re: exponent 0.2. Raises ValueError for another.
    """
    shapes: dict[str, Callable[[int], float]] = {
        "sr": lambda rank: 1 / rank + (number + 1 - rank) / number,
        "rs": lambda rank: number + 1 - rank,
        "rr": lambda rank: 1 / rank,
        "re": lambda rank: (number + 1 - rank) ** 0.2,
    }
    if method not in shapes:
        raise ValueError(f"there is no way to weigh ranks that is called {method!r}: choose {', '.join(shapes)}")
    raw = [shapes[method](rank) for rank in range(1, number + 1)]
    return tuple(one / math.fsum(raw) for one in raw)


@dataclass(frozen=True)
class Gain:
    """One thing that somebody could do, by how much the score would rise for it alone, and the grade that it would then have ("": not known)."""

    text: str
    gain: float
    dimension: str
    columns: tuple[str, ...] = ()
    grade: str = ""

    def told(self) -> dict[str, Any]:
        """As a score keeps it."""
        return {"text": self.text, "gain": round(self.gain, 4), "dimension": self.dimension, "columns": list(self.columns), "grade": self.grade}


@dataclass(frozen=True)
class Scored:
    """What a model says of one table or file. `dimensions` are by name, in the model's order."""

    facts: Facts
    dimensions: Mapping[str, Dimension]
    score: float
    grade: str

    @property
    def reasons(self) -> list[Reason]:
        return [reason for one in self.dimensions.values() for reason in one.reasons]

    @property
    def codes(self) -> dict[str, str]:
        """Dimension to the original's code; "" where there is none."""
        return {name: one.code for name, one in self.dimensions.items()}


@dataclass(frozen=True)
class Model:
    """A way to score: how each dimension is reckoned, and what it weighs for a table and for a file."""

    version: str
    label: str
    reckon: Mapping[str, Callable[[Facts, Knows], Dimension]]
    weights: Mapping[str, float]
    #: None: files are not scored.
    file_weights: Mapping[str, float] | None = None
    #: The metadata that it asks for.
    fields: tuple[str, ...] = ()
    #: The grade comes of the score's place between the lowest and the highest of its run.
    is_relative: bool = False
    #: It asks whether shapes are valid, and whether a portal's resource names the job that feeds it.
    asks_for_shapes: bool = False
    asks_for_jobs: bool = False

    def score(self, facts: Facts, knows: Knows) -> Scored:
        """The score of a table or file. Raises ValueError for a file where the model scores none."""
        weights = self.file_weights if facts.is_file else self.weights
        if weights is None:
            raise ValueError(f"model {self.version} does not score files")
        found = {name: reckon(facts, knows) for name, reckon in self.reckon.items()}
        value = sum(weight * (found[name].value or 0.0) for name, weight in weights.items())
        return Scored(facts, found, value, grade(value))

    def gains(self, scored: Scored, knows: Knows) -> list[Gain]:
        """What could be done and is worth it, the largest gain first: each remedy by itself, scored again."""
        found = []
        for remedy in _remedies(self, scored, knows):
            again = self.score(remedy.facts, knows)
            if again.score - scored.score >= LEAST_GAIN:
                # where the grade hangs on all others, nobody knows what it would be
                would_be = "" if self.is_relative else again.grade
                found.append(Gain(remedy.text, again.score - scored.score, remedy.dimension, remedy.columns, would_be))
        return sorted(found, key=lambda gain: -gain.gain)


CURRENT = Model(
    version="current",
    label="Current (2023 on)",
    reckon={
        METADATA: lambda facts, knows: dimensions.metadata(facts),
        FRESHNESS: lambda facts, knows: dimensions.freshness(facts),
        ACCESSIBILITY: lambda facts, knows: dimensions.accessibility(facts),
        COMPLETENESS: lambda facts, knows: dimensions.completeness(facts),
        USABILITY: dimensions.usability,
    },
    weights={METADATA: 0.35, FRESHNESS: 0.35, ACCESSIBILITY: 0.15, COMPLETENESS: 0.10, USABILITY: 0.05},
    file_weights={METADATA: 0.41, FRESHNESS: 0.41, ACCESSIBILITY: 0.18},
    fields=dimensions.FIELDS,
)
V0_1_0 = Model(
    version="0.1.0",
    label="0.1.0 (2020)",
    reckon={
        USABILITY: dimensions.usability_0_1_0,
        METADATA: lambda facts, knows: dimensions.metadata_0_1_0(facts),
        FRESHNESS: lambda facts, knows: dimensions.freshness_0_1_0(facts),
        COMPLETENESS: lambda facts, knows: dimensions.completeness_0_1_0(facts),
        ACCESSIBILITY: lambda facts, knows: dimensions.accessibility_0_1_0(facts),
    },
    weights=dict(zip(DIMENSIONS, ranked_weights(len(DIMENSIONS)), strict=True)),
    fields=dimensions.FIELDS_0_1_0,
    is_relative=True,
    asks_for_shapes=True,
    asks_for_jobs=True,
)
MODELS = {model.version: model for model in (CURRENT, V0_1_0)}


def model_called(version: str) -> Model:
    """The model of a version. Raises SetupError, which names those that there are."""
    try:
        return MODELS[version]
    except KeyError:
        raise SetupError(f"There is no quality model {version!r}.", code="no-model", next_step=f"Choose one of these: {', '.join(MODELS)}.") from None


# what would raise it


@dataclass(frozen=True)
class _Remedy:
    """Something to do, and what would be known of the table when it is done."""

    text: str
    dimension: str
    facts: Facts
    columns: tuple[str, ...] = ()


def _remedies(model: Model, scored: Scored, knows: Knows) -> Iterator[_Remedy]:
    facts = scored.facts
    yield from _of_metadata(model, facts)
    yield from _of_freshness(facts)
    yield from _of_accessibility(facts)
    if not facts.is_file:
        yield from _of_columns(model, facts, knows)


def _of_metadata(model: Model, facts: Facts) -> Iterator[_Remedy]:
    for name in model.fields:
        better = replace(facts, fields={**facts.fields, name: "steward@city.example" if name == "owner_email" else "said"})
        verb = "Name" if name == "owner_email" else "Give" if name == "information_url" else "Write"
        what = "a steward with an address of their own" if name == "owner_email" else FIELD_WORDS[name]
        yield _Remedy(f"{verb} {what}.", METADATA, better)
    silent = [column.name for column in facts.columns if not column.notes.strip() or (model is V0_1_0 and column.notes.strip() == column.name)]
    if model is CURRENT:
        silent = [name for name in silent if name != dimensions.GEOMETRY]
    if silent:
        described = tuple(replace(column, notes="said of it") if column.name in silent else column for column in facts.columns)
        whole = "all" if len(silent) == len(facts.columns) else f"{len(silent):,} of"
        text = f"Describe {whole} {many(len(facts.columns), 'column')}: {listed(silent)}."
        yield _Remedy(text, METADATA, replace(facts, columns=described), tuple(silent))


def _of_freshness(facts: Facts) -> Iterator[_Remedy]:
    if facts.days:
        what = "Bring new rows" if facts.rate not in dimensions.PROMISES_NOTHING else "Bring new rows, or retire it"
        yield _Remedy(f"{what}: the newest came {many(facts.days, 'day')} ago.", FRESHNESS, replace(facts, days=0))
    if facts.rate not in (*dimensions.PERIODS, *dimensions.PROMISES_NOTHING, dimensions.REAL_TIME):
        better = replace(facts, refresh_rate=_kept_rate(facts))
        yield _Remedy("Promise how often it is refreshed, and keep it.", FRESHNESS, better)


def _kept_rate(facts: Facts) -> str:
    """The shortest rate that its newest rows keep."""
    return next((rate for rate, days in dimensions.PERIODS.items() if rate != "hourly" and (facts.days or 0) < days), "annually")


def _of_accessibility(facts: Facts) -> Iterator[_Remedy]:
    if not facts.has_tags:
        yield _Remedy("Add tags: the words that people search for.", ACCESSIBILITY, replace(facts, has_tags=True))
    if not facts.has_pipeline:
        yield _Remedy("Let a pipeline bring its rows.", ACCESSIBILITY, replace(facts, has_pipeline=True))
    if dimensions.is_table_in_files(facts):
        # what its rows will be like nobody knows: at best, as good as rows can be
        yield _Remedy("Publish its files as a table (this much at best).", ACCESSIBILITY, replace(facts, store_type=DATASTORE, columns=()))


def _of_columns(model: Model, facts: Facts, knows: Knows) -> Iterator[_Remedy]:
    if not facts.rows and facts.columns:
        filled = replace(facts, rows=1, columns=tuple(replace(column, nulls=0, is_constant=False) for column in facts.columns))
        yield _Remedy("Fill the table: it has no rows.", USABILITY, filled)
    yield from _renamed(model, facts, knows)
    constant = [column.name for column in dimensions.constant_columns(facts)]
    if constant and facts.rows:
        # as if they said something: to drop the last ones of a table would leave nothing to score
        mended = tuple(replace(column, is_constant=False) if column.name in constant else column for column in facts.columns)
        what = "a column that says" if len(constant) == 1 else f"{len(constant):,} columns that say"
        yield _Remedy(f"Mend or drop {what} the same in every row: {listed(constant)}.", USABILITY, replace(facts, columns=mended), tuple(constant))
    yield from _filled(model, facts)
    if facts.invalid_shapes:
        yield _Remedy(f"Mend the shapes of {many(facts.invalid_shapes, 'row')}.", USABILITY, replace(facts, invalid_shapes=0), (dimensions.GEOMETRY,))


def _renamed(model: Model, facts: Facts, knows: Knows) -> Iterator[_Remedy]:
    most = dimensions.UNCLEAR_SHARE if model is CURRENT else dimensions.CLEAR_SHARE
    unclear = [column.name for column in facts.columns if column.name != dimensions.GEOMETRY and english_share(column.name, knows) <= most]
    if not unclear:
        return
    word = _a_word(knows)
    clear = tuple(replace(column, name=word) if column.name in unclear else column for column in facts.columns)
    text = f"Rename {many(len(unclear), 'column')} in plain words: {listed(unclear)}."
    yield _Remedy(text, USABILITY, replace(facts, columns=clear), tuple(unclear))


def _a_word(knows: Knows) -> str:
    """A name that every reader knows, not in small letters; where a list knows none of these, one that it does not know."""
    return next((f"{word}{word.title()}" for word in ("event", "name", "date", "year") if knows(word)), "name")


def _filled(model: Model, facts: Facts) -> Iterator[_Remedy]:
    """The emptiest columns, filled: of "current" as many as it takes to have half of the cells, of 0.1.0 up to five."""
    emptiest = sorted((column for column in facts.columns if column.nulls), key=lambda column: -column.nulls)
    chosen: list[str] = []
    better = facts
    for column in emptiest:
        if (model is CURRENT and dimensions.missing_share(better) < 0.5) or (model is not CURRENT and len(chosen) == 5):
            break
        chosen.append(column.name)
        better = replace(facts, columns=tuple(_full(one) if one.name in chosen else one for one in facts.columns))
    if chosen:
        text = f"Fill the empty cells of {listed(chosen)}: {dimensions.missing_share(facts):.0%} of all cells are empty."
        yield _Remedy(text, COMPLETENESS, better, tuple(chosen))


def _full(column: ColumnFacts) -> ColumnFacts:
    return replace(column, nulls=0, is_constant=False)


# one run's scores against each other, as 0.1.0 has it


@dataclass(frozen=True)
class Norm:
    """A score's place between the lowest (0) and the highest (1) of its run, and its package's mean of those, with the grade of that."""

    norm: float
    package_norm: float
    grade: str


def norms(scores: Sequence[tuple[str, float]]) -> list[Norm]:
    """The norm of each (package, score), in their order. One score alone, or all the same, is 0, as scikit-learn's MinMaxScaler has it."""
    values = [score for _, score in scores]
    low, high = min(values, default=0.0), max(values, default=0.0)
    placed = [(score - low) / (high - low) if high > low else 0.0 for score in values]
    packages: dict[str, list[float]] = defaultdict(list)
    for (package, _), norm in zip(scores, placed, strict=True):
        packages[package].append(norm)
    means = {package: dimensions.mean(each) for package, each in packages.items()}
    return [Norm(norm, means[package], grade(means[package])) for (package, _), norm in zip(scores, placed, strict=True)]


def described() -> dict[str, Any]:
    """The models as `scoring-models` publishes them: version to how metrics become dimensions, dimensions a score, and a score a grade."""
    return {
        model.version: {
            "aggregation_methods": {
                "metrics_to_dimension": "avg",
                "dimensions_to_score": "sum_and_reciprocal" if model.is_relative else "weighted_sum",
            },
            "dimensions": [
                {"name": name, "rank": rank, "weights": weight} | _file_weight(model, name)
                for rank, (name, weight) in enumerate(model.weights.items(), 1)
            ],
            "bins": BINS,
        }
        for model in MODELS.values()
    }


def _file_weight(model: Model, name: str) -> dict[str, float]:
    return {"filestore_weights": model.file_weights.get(name, 0)} if model.file_weights else {}
