"""How a score looks: its grade, its five dimensions with their weights, a number as it is printed, a sentence as a row keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfmet import dimensions, scorecard
from perfmet.models import Grade
from perfmet.selectors.looks import known

#: The dimensions in the order of pages: the heaviest of the current model first. Their names are the fields of QualityScore.
DIMENSIONS = {
    "freshness": "Freshness",
    "metadata": "Metadata",
    "accessibility": "Access",
    "completeness": "Completeness",
    "usability": "Usability",
}
#: What each of them asks, for a reader who meets it for the first time.
QUESTIONS = {
    "freshness": "Does it come as often as was promised, and is it recent?",
    "metadata": "Is it described, is somebody named, is every column explained?",
    "accessibility": "Can people find it by tags, and does a pipeline keep it fresh?",
    "completeness": "Are its cells filled?",
    "usability": "Can its columns’ names be understood, and do they say anything?",
}
GRADES = (Grade.GOLD, Grade.SILVER, Grade.BRONZE)
#: A spark is so wide for each run, and so high.
STEP, HEIGHT = 4, 16
#: A spark that moves by less is drawn as if it moved by so much: noise is no drama.
LEAST_SPAN = 0.1


@dataclass(frozen=True)
class Bar:
    """A dimension of a score: its value (None: the model has none for this table), its weight, and what is lost by it."""

    name: str
    value: float | None
    weight: float

    @property
    def word(self) -> str:
        return DIMENSIONS[self.name]

    @property
    def question(self) -> str:
        return QUESTIONS[self.name]

    @property
    def text(self) -> str:
        return figure(self.value)

    @property
    def weight_text(self) -> str:
        return f"{100 * self.weight:.1f}".removesuffix(".0") + " %" if self.weight else "–"

    @property
    def part(self) -> float | None:
        """What it brings to the score."""
        return None if self.value is None or not self.weight else self.weight * self.value

    @property
    def part_text(self) -> str:
        return figure(self.part)

    @property
    def lost(self) -> float:
        """What the score lacks by it."""
        return 0.0 if self.value is None else max(self.weight * (1 - self.value), 0.0)

    @property
    def lost_text(self) -> str:
        return "–" if self.part is None else figure(self.lost)

    @property
    def fill(self) -> str:
        return fill_of(self.value)

    @property
    def width(self) -> float:
        """On a bar of 120 units."""
        return round(120 * min(max(self.value or 0, 0), 1), 1)


def weights(version: str, store_type: str) -> Mapping[str, float]:
    """What each dimension weighs; nothing for a model that this version does not know, whose scores are shown as they are."""
    model = scorecard.MODELS.get(version)
    if model is None:
        return {}
    return (model.file_weights or {}) if store_type == dimensions.FILESTORE else model.weights


def bars(values: Mapping[str, float | None], weighed: Mapping[str, float]) -> list[Bar]:
    """All five, in the order of pages; one that is not asked of a table has no value either, whatever an older version stored there."""
    return [Bar(name, known(values.get(name)) if not weighed or weighed.get(name) else None, weighed.get(name, 0.0)) for name in DIMENSIONS]


def weakest(some: list[Bar]) -> Bar | None:
    """The dimension with the lowest value, of equals the heaviest; None where none is below 1."""
    below = [bar for bar in some if bar.value is not None and bar.value < 1]
    return min(below, key=lambda bar: (bar.value, -bar.weight), default=None)


def fill_of(value: float | None) -> str:
    """The class of a bar without its "bar--", by the bins of the grades: quiet where all is well."""
    if value is None:
        return "queued"
    return {Grade.BRONZE: "failed", Grade.SILVER: "late", Grade.GOLD: "okquiet"}[scorecard.grade(value)]


def lifts_to(score: float | None, gain: Gain | None, grade: str) -> str:
    """The better grade that a table would have by that gain; "" where it stays in its bin."""
    if score is None or gain is None:
        return ""
    then = gain.grade or scorecard.grade(min(score + gain.gain, 1))
    return then if _RANK.get(then, -1) > _RANK.get(grade, len(_RANK)) else ""


_RANK = {Grade.BRONZE: 0, Grade.SILVER: 1, Grade.GOLD: 2}


def figure(value: float | None) -> str:
    """ "0.737"; a dash for what is no number."""
    value = known(value)
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """ "+0.074", "−0.012", "0.000"; a dash where nothing is known."""
    value = known(value)
    if value is None:
        return "–"
    text = f"{abs(value):.3f}"
    return text if text == "0.000" else f"{'+' if value > 0 else '−'}{text}"


def spark(newest_first: Sequence[float | None], room: int) -> str:
    """A path through scores, the newest at the right edge of `room` places; "" for fewer than two. A score that is none breaks it.

    It is drawn between its own lowest and highest: what it shows is whether the score moved, how good it is stands beside it.
    """
    values = [known(value) for value in reversed(newest_first[:room])]
    there = [value for value in values if value is not None]
    if len(there) < 2:
        return ""
    low, span = min(there), max(max(there) - min(there), LEAST_SPAN)
    points, is_open = [], False
    for place, value in enumerate(values, start=room - len(values)):
        if value is not None:
            y = round((HEIGHT - 2) * (1 - (value - low) / span) + 1, 1)
            points.append(f"{'L' if is_open else 'M'}{place * STEP + 1} {y:g}")
        is_open = value is not None
    return "".join(points)


# what stands in the JSON fields of a score, whoever wrote them


@dataclass(frozen=True)
class Reason:
    """Why a dimension is not 1: a sentence, the original's code for it, and the columns that it speaks of."""

    dimension: str
    code: str
    text: str
    columns: list[str]

    @property
    def word(self) -> str:
        return DIMENSIONS.get(self.dimension, self.dimension.capitalize() or "Score")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Reason:
        return cls(_text(given.get("dimension")), _text(given.get("code")), _text(given.get("text")), _names(given.get("columns")))


@dataclass(frozen=True)
class Gain:
    """One thing to do, and what the score would rise by."""

    text: str
    gain: float
    dimension: str
    columns: list[str]
    grade: str = ""

    @property
    def word(self) -> str:
        return DIMENSIONS.get(self.dimension, self.dimension.capitalize() or "Score")

    @property
    def gain_text(self) -> str:
        return signed(self.gain)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Gain:
        try:
            gain = known(float(given.get("gain")))
        except (TypeError, ValueError):
            gain = None
        return cls(_text(given.get("text")), gain or 0.0, _text(given.get("dimension")), _names(given.get("columns")), _text(given.get("grade")))


@dataclass(frozen=True)
class Failing:
    """A column that costs points: why, and some of its values as they are."""

    column: str
    why: str
    sample: list[str]

    @classmethod
    def of(cls, column: str, given: Any) -> Failing:
        told = given if isinstance(given, Mapping) else {"reason": given}
        sample = told.get("sample")
        return cls(str(column), _text(told.get("reason")), [_value(one) for one in sample] if isinstance(sample, list) else [])


def reasons(given: Any) -> list[Reason]:
    found = [Reason.of(one) for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    return [one for one in found if one.text or one.code]


def gains(given: Any) -> list[Gain]:
    """The largest first; what would raise nothing is left out."""
    found = [Gain.of(one) for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    return sorted((one for one in found if one.gain > 0), key=lambda one: -one.gain)


def evidence(given: Any) -> list[Failing]:
    return [Failing.of(column, told) for column, told in given.items()] if isinstance(given, Mapping) else []


def code_of(codes: Any, dimension: str) -> str:
    return _text(codes.get(dimension)) if isinstance(codes, Mapping) else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _names(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _value(value: Any) -> str:
    """A cell as a reader must see it: nothing is not the same as a text without letters."""
    if value is None:
        return "(nothing)"
    if isinstance(value, str) and not value.strip():
        return "(blank)"
    return str(value)
