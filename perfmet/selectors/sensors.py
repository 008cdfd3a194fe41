"""The sensors of a pipeline on a day, and one sensor over time: what came against what was expected, the hours covered, what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import Max, Min, Q
from django.http import Http404
from django.urls import reverse

from perfmet.health import Thresholds
from perfmet.models import Health, Observation, SensorWatch
from perfmet.selectors import looks, places, spans, watches
from perfmet.selectors.places import Spot
from perfmet.selectors.spans import Span
from perfmet.selectors.watches import Tab
from pipelines import clock
from pipelines.errors import SetupError
from pipelines.models import Pipeline, ScheduleBlock
from pipelines.selectors import faces
from pipelines.selectors.faces import Face, Square

#: Sensors on a page, and the days that stand as squares behind each.
A_PAGE = 50
SQUARES = 14
#: Days of one sensor's trend where nobody asked for others.
TREND = 30
SORTS = {"": "Farthest off first", "name": "By name", "value": "Most first"}
NOT_OBSERVED = faces.NOT_OWED
GAP = Face("missing", "Not observed")


@dataclass(frozen=True)
class Line:
    """One sensor on one day, as it is printed."""

    watch: SensorWatch
    sensor: str
    unit: str
    day: date
    value: float
    rows: int
    expected: float | None
    first_at: datetime | None
    last_at: datetime | None
    health: str
    reason: str

    @classmethod
    def of(cls, watch: SensorWatch, seen: Observation) -> Line:
        return cls(
            watch, seen.sensor, seen.unit, seen.day, seen.value, seen.rows, seen.expected, seen.first_at, seen.last_at, seen.health, seen.reason
        )

    @property
    def name(self) -> str:
        return self.sensor or "(no name)"

    @property
    def other_name(self) -> str:
        """What the inventory calls it, where that is another name."""
        return self.unit if self.unit != self.sensor else ""

    @property
    def href(self) -> str:
        return reverse("sensor", args=[self.watch.pipeline.slug, self.sensor])

    @property
    def face(self) -> Face:
        return looks.face_of(self.health)

    @property
    def fill(self) -> str:
        return looks.fill_of(self.health)

    @property
    def is_trouble(self) -> bool:
        return looks.is_trouble(self.health)

    @property
    def arrived(self) -> str:
        """A dash where nothing was sent: that is not the same as a sum of 0."""
        return looks.figure(self.value) if self.rows else "–"

    @property
    def arrived_words(self) -> str:
        return looks.figure(self.value) if self.rows else "nothing"

    @property
    def expected_text(self) -> str:
        return looks.figure(self.expected)

    @property
    def share_text(self) -> str:
        return looks.percent(looks.share(self.value, self.expected)) if self.rows else "–"

    @property
    def tone(self) -> str:
        """The colour of its share."""
        if self.health in (Health.SILENT, Health.ZERO):
            return "bad"
        return "warn" if self.is_trouble else ""

    @property
    def bar(self) -> looks.Bar:
        return looks.bar(self.value, self.expected)

    @cached_property
    def hours(self) -> looks.Hours:
        return looks.hours(self.first_at, self.last_at, self.day, self.watch.pipeline.time_zone)

    @property
    def order(self) -> tuple:
        return looks.worst_first(self.health, self.value, self.expected, self.sensor)


#: The columns of the CSV files of observations.
COLUMNS = ["sensor", "unit", "day", "value", "expected", "share", "rows", "first_at", "last_at", "health", "reason"]


def as_csv(lines: Iterable[Line]) -> Iterator[list]:
    for line in lines:
        part = looks.share(line.value, line.expected)
        yield [
            line.sensor, line.unit, line.day, looks.known(line.value), looks.known(line.expected), None if part is None else round(part, 4),
            line.rows, line.first_at, line.last_at, line.health, line.reason,
        ]  # fmt: skip


# how a list is narrowed


@dataclass(frozen=True)
class Wanted:
    """The filters of a list of sensors: a health, "trouble", or neither; words of the name; an order."""

    health: str = ""
    search: str = ""
    sort: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Wanted:
        sort = given.get("sort", "")
        return cls(given.get("health", "")[:8], given.get("q", "").strip()[:200], sort if sort in SORTS else "")

    def chosen(self, lines: Iterable[Line]) -> list[Line]:
        """The lines that it lets through, in its order."""
        words = self.search.casefold()
        found = [line for line in lines if (not words or words in line.sensor.casefold() or words in line.unit.casefold()) and self._fits(line)]
        if self.sort == "name":
            return sorted(found, key=lambda line: (line.sensor.casefold(), line.sensor))
        if self.sort == "value":
            return sorted(found, key=lambda line: (-(looks.known(line.value) or 0), line.sensor))
        return sorted(found, key=lambda line: line.order)

    def _fits(self, line: Line) -> bool:
        return line.is_trouble if self.health == "trouble" else not self.health or line.health == self.health


@dataclass(frozen=True)
class Choice:
    """A filter by health: its code, icon and word, and how many sensors it would show."""

    code: str
    face: Face | None
    word: str
    count: int
    is_chosen: bool


def choices(lines: Iterable[Line], wanted: Wanted) -> list[Choice]:
    """All, those that need a look, and each health that occurs, or was asked for."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.health] = counts.get(line.health, 0) + 1
    trouble = sum(count for health, count in counts.items() if looks.is_trouble(health))
    found = [
        Choice("", None, "All", sum(counts.values()), not wanted.health),
        Choice("trouble", None, "Needs a look", trouble, wanted.health == "trouble"),
    ]
    for health in (*looks.ORDER, *sorted(counts.keys() - set(looks.ORDER))):
        if counts.get(health) or wanted.health == health:
            face = looks.face_of(health)
            found.append(Choice(str(health), face, face.word, counts.get(health, 0), wanted.health == health))
    return found


# a pipeline's sensors on a day


@dataclass(frozen=True)
class SensorsPage:
    """`tab` is None where the pipeline has no watch, `day` None where nothing was observed yet; `listed` are the lines of this page.

    `squares` stand in the order of `listed`. `block` is that of the day, where it was made.
    """

    pipeline: Pipeline
    tabs: list[Tab]
    tab: Tab | None = None
    day: date | None = None
    before: date | None = None
    after: date | None = None
    problem: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    choices: list[Choice] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    chosen: list[Line] = field(default_factory=list)
    listed: Page | None = None
    rows: list[tuple[Line, list[Square]]] = field(default_factory=list)
    span: Span | None = None
    block: ScheduleBlock | None = None

    @property
    def trouble(self) -> int:
        return sum(line.is_trouble for line in self.lines)

    @property
    def value(self) -> float:
        return sum(looks.known(line.value) or 0 for line in self.lines)

    @property
    def expected(self) -> float:
        return sum(looks.known(line.expected) or 0 for line in self.lines)

    @property
    def value_text(self) -> str:
        return looks.figure(self.value)

    @property
    def expected_text(self) -> str:
        return looks.figure(self.expected)

    @property
    def share_text(self) -> str:
        return looks.percent(looks.share(self.value, self.expected))

    @property
    def sorts(self) -> list[tuple[str, str]]:
        return list(SORTS.items())


def watch_of(slug: str) -> tuple[Pipeline | None, SensorWatch | None]:
    """The pipeline of that slug and its watch. One query."""
    pipeline = Pipeline.objects.select_related("watch", "dataset").filter(slug=slug).first()
    watch = getattr(pipeline, "watch", None)
    if watch is not None:
        watch.pipeline = pipeline
    return pipeline, watch


def sensors_page(slug: str, given: Mapping[str, str]) -> SensorsPage:
    """The sensors of a pipeline on the day asked for, or the newest; six more queries at most. Raises Http404 for an unknown pipeline."""
    pipeline, watch = watch_of(slug)
    if pipeline is None:
        raise Http404(f"There is no pipeline {slug!r}.")
    tabs = watches.tabs()
    if watch is None:
        return SensorsPage(pipeline, tabs)
    tab = next((tab for tab in tabs if tab.watch.pk == watch.pk), None) or Tab(watch, pipeline.data_source or pipeline.title, None, {})
    asked, problem = spans.day_of(given, "day")
    observed = Observation.objects.filter(watch=watch)
    ends = observed.aggregate(
        newest=Max("day"),
        before=Max("day", filter=Q(day__lt=asked or tab.newest or date.max)),
        after=Min("day", filter=Q(day__gt=asked or tab.newest or date.max)),
    )
    wanted = Wanted.of(given)
    if ends["newest"] is None:
        return SensorsPage(pipeline, tabs, tab, problem=problem, wanted=wanted)
    # an inactive watch has no tab that knows its newest day
    day = asked or tab.newest or ends["newest"]
    lines = [Line.of(watch, seen) for seen in observed.filter(day=day)]
    chosen = wanted.chosen(lines)
    listed = Paginator(chosen, A_PAGE).get_page(given.get("page"))
    span = Span(day - timedelta(days=SQUARES - 1), day)
    return SensorsPage(
        pipeline=pipeline,
        tabs=tabs,
        tab=tab,
        day=day,
        before=ends["before"],
        after=ends["after"],
        problem=problem,
        wanted=wanted,
        choices=choices(lines, wanted),
        lines=lines,
        chosen=chosen,
        listed=listed,
        rows=list(zip(listed, _squares(watch, [line.sensor for line in listed], span), strict=True)),
        span=span,
        block=_block(pipeline, day),
    )


def _squares(watch: SensorWatch, sensors: list[str], span: Span) -> list[list[Square]]:
    """A square a day for each sensor. One query."""
    seen = {
        (sensor, day): health
        for sensor, day, health in Observation.objects.filter(watch=watch, sensor__in=sensors, day__gte=span.first, day__lte=span.last)
        .order_by()
        .values_list("sensor", "day", "health")
    }
    return [[_square(day, seen.get((sensor, day))) for day in span.days] for sensor in sensors]


def _square(day: date, health: str | None) -> Square:
    face = NOT_OBSERVED if health is None else looks.face_of(health)
    return Square(face, f"{day:%b} {day.day}: {'not observed' if health is None else face.word.lower()}")


def _block(pipeline: Pipeline, day: date) -> ScheduleBlock | None:
    """The first block of the pipeline that begins on that local day."""
    zone = pipeline.time_zone
    found = ScheduleBlock.objects.filter(
        pipeline=pipeline, starts_at__gte=clock.day_start(day, zone), starts_at__lt=clock.day_start(day + timedelta(days=1), zone)
    ).order_by("starts_at")
    block = found.first()
    if block is not None:
        block.pipeline = pipeline
    return block


# one sensor


@dataclass(frozen=True)
class Event:
    """Something that happened to a sensor or its data on a day; `number` stands on the chart's line."""

    number: int
    day: date
    face: Face
    words: str
    href: str = ""


@dataclass(frozen=True)
class DayLine:
    """A day of one sensor: what was seen, or None; `block` of the pipeline, with its face."""

    day: date
    line: Line | None
    block: ScheduleBlock | None
    face: Face


@dataclass(frozen=True)
class SensorPage:
    """One sensor: its newest line, its days (newest first), what happened, the chart, and where it stands."""

    watch: SensorWatch
    tabs: list[Tab]
    sensor: str
    span: Span
    newest: Line
    days: list[DayLine]
    events: list[Event]
    chart: dict
    spot: Spot | None
    picture: places.Picture | None
    place_words: str
    tab: Tab | None = None

    @property
    def observed(self) -> int:
        return sum(day.line is not None for day in self.days)

    @property
    def days_in_trouble(self) -> int:
        return sum(bool(day.line and day.line.is_trouble) for day in self.days)


def sensor_page(slug: str, sensor: str, given: Mapping[str, str]) -> SensorPage:
    """One sensor over the span asked for, or its last days; nine queries at most. Raises Http404 without a watch, or for an unknown sensor."""
    pipeline, watch = watch_of(slug)
    if watch is None:
        raise Http404(f"No sensors of {slug!r} are watched.")
    newest = Observation.objects.filter(watch=watch, sensor=sensor).order_by("-day").first()
    if newest is None:
        raise Http404(f"No sensor of {pipeline} is called “{sensor}”. The list of its sensors names all that were seen.")
    span = spans.span_of(given, newest.day, TREND)
    # the day before the span tells whether its first day is a change
    seen = {
        one.day: Line.of(watch, one)
        for one in Observation.objects.filter(watch=watch, sensor=sensor, day__gte=span.first - timedelta(days=7), day__lte=span.last)
    }
    blocks = _blocks(pipeline, span)
    days = [DayLine(day, seen.get(day), blocks.get(day), _block_face(blocks.get(day))) for day in span.days]
    events = list(_events(days, max((line for day, line in seen.items() if day < span.first), key=lambda line: line.day, default=None)))
    line = Line.of(watch, newest)
    tabs = watches.tabs()
    spot, picture, words = places.of_sensor(watch, line)
    return SensorPage(
        watch=watch,
        tabs=tabs,
        sensor=sensor,
        span=span,
        newest=line,
        days=days[::-1],
        events=events[::-1],
        chart=_chart(days, events, limits_of(watch), pipeline.time_zone),
        spot=spot,
        picture=picture,
        place_words=words,
        tab=next((tab for tab in tabs if tab.watch.pk == watch.pk), None),
    )


def _blocks(pipeline: Pipeline, span: Span) -> dict[date, ScheduleBlock]:
    """The worst block of each local day of the span. One query."""
    zone = clock.zone(pipeline.time_zone)
    found: dict[date, ScheduleBlock] = {}
    for block in ScheduleBlock.objects.filter(
        pipeline=pipeline,
        starts_at__gte=clock.day_start(span.first, pipeline.time_zone),
        starts_at__lt=clock.day_start(span.last + timedelta(days=1), pipeline.time_zone),
    ).order_by("starts_at"):
        block.pipeline = pipeline
        day = block.starts_at.astimezone(zone).date()
        known = found.get(day)
        if known is None or faces.worst([faces.of_block(known), faces.of_block(block)]) != faces.of_block(known):
            found[day] = block
    return found


def _block_face(block: ScheduleBlock | None) -> Face:
    return faces.NOT_OWED if block is None else faces.of_block(block)


_BAD_BLOCKS = (faces.FAILED, faces.CRASHED, faces.SUSPICIOUS, faces.HELD, faces.OVERDUE)


def _events(days: list[DayLine], before: Line | None) -> Iterator[Event]:
    """Each change of health, the failed blocks, and the days of which nothing is known, in the order of the days."""
    number, health, last = 0, before.health if before else None, before is not None
    for day in days:
        if day.face in _BAD_BLOCKS:
            number += 1
            yield Event(
                number, day.day, day.face, f"The block of this day: {day.block.message or day.face.word.lower()}", day.block.get_absolute_url()
            )
        if day.line is None:
            # a gap is told once, on its first day
            if last:
                number += 1
                words = "No block was made" if day.block is None else "The block left no observation"
                yield Event(number, day.day, GAP, f"{words}: nothing is known of this sensor", day.block.get_absolute_url() if day.block else "")
            last = False
            continue
        last = True
        if health is not None and day.line.health != health:
            number += 1
            was = looks.face_of(health).word.lower()
            reason = f". {day.line.reason}" if day.line.reason else ""
            yield Event(number, day.day, day.line.face, f"{day.line.face.word}, before that {was}{reason}")
        health = day.line.health


def limits_of(watch: SensorWatch) -> tuple[float, float] | None:
    """The shares of the expected value between which a day is usual; None where the watch's own make no sense (its admin page says so)."""
    try:
        thresholds = Thresholds.of(settings.SENSOR_THRESHOLDS, watch.thresholds)
    except SetupError:
        return None
    return thresholds.low, thresholds.high


def _chart(days: list[DayLine], events: list[Event], limits: tuple[float, float] | None, zone: str) -> dict:
    """For uPlot: a moment a day, the two lines, the usual band, and the upright lines of events; None is a gap."""
    low, high = limits or (None, None)

    def series(value) -> list[float | None]:
        return [None if day.line is None or (found := looks.known(value(day.line))) is None else round(found, 2) for day in days]

    expected = series(lambda line: line.expected)
    return {
        "x": [_moment(day.day, zone) for day in days],
        "zone": zone,
        "days": True,
        "gaps": True,
        "trend": {"arrived": series(lambda line: line.value), "expected": expected},
        "dashed": ["expected"],
        "band": {
            "usual from": [None if value is None else round(value * low, 2) for value in expected],
            "usual to": [None if value is None else round(value * high, 2) for value in expected],
        }
        if limits
        else {},
        "events": [[_moment(event.day, zone), str(event.number)] for event in events],
    }


def _moment(day: date, zone: str) -> int:
    return int(clock.day_start(day, zone).timestamp())
