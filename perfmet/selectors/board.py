"""The health of all sensors of all watches, as a list and as a map: who answers, who gives data, who is plainly wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from django.core.paginator import Page, Paginator
from django.db.models import Q

from catalog.models import BoundaryLayer
from perfmet.models import Health, Observation
from perfmet.selectors import looks, places, watches
from perfmet.selectors.places import Picture, Spot
from perfmet.selectors.sensors import Choice, Line, Wanted, choices
from perfmet.selectors.watches import Tab
from pipelines.selectors.faces import Face

A_PAGE = 100
#: How far back the board looks for the beginning of a state.
SINCE_DAYS = 60
#: A sensor that was not observed on its watch's newest day is expected no more; so long it is still named.
GONE_DAYS = 60


@dataclass(frozen=True)
class Question:
    """One of the three that the health of a sensor answers: how many of all, in words."""

    title: str
    face: Face
    good: int
    of: int
    words: str

    @property
    def share(self) -> float:
        """0 to 120, the width of its bar."""
        return round(120 * self.good / self.of, 1) if self.of else 0


@dataclass(frozen=True)
class Row:
    """A line of the board. `since` is the first day of its present state, with `is_longer` where that is as far as anybody looked."""

    line: Line
    tab: Tab
    since: date | None
    is_longer: bool

    @property
    def days(self) -> int | None:
        return None if self.since is None else (self.line.day - self.since).days + 1


@dataclass(frozen=True)
class Board:
    """The board. `lines` are all sensors of the chosen watches on their newest days; `gone` those that are expected no more."""

    tabs: list[Tab]
    wanted: Wanted
    source: str
    now: datetime
    lines: list[Line] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    chosen: list[Line] = field(default_factory=list)
    listed: Page | None = None
    rows: list[Row] = field(default_factory=list)
    gone: list[Line] = field(default_factory=list)

    @property
    def trouble(self) -> int:
        return sum(line.is_trouble for line in self.lines)

    @property
    def counters(self) -> list[Choice]:
        """Each health that occurs."""
        return [choice for choice in self.choices if choice.face is not None]

    @property
    def questions(self) -> list[Question]:
        return questions(self.lines)

    @property
    def late(self) -> list[Tab]:
        """Watches of which a day should be known by now, and is not."""
        return [tab for tab in self.tabs if tab.newest and (due := watches.newest_due(tab.watch.pipeline, self.now)) and tab.newest < due]

    @property
    def never(self) -> list[Tab]:
        return [tab for tab in self.tabs if tab.newest is None]


def questions(lines: Iterable[Line]) -> list[Question]:
    """Responsive? Of those, generating data? Of those, plausible? A sensor of a day that has not come in answers none of them."""
    lines = list(lines)
    known = [line for line in lines if line.health != Health.STALE]
    answer = [line for line in known if line.health != Health.SILENT]
    give = [line for line in answer if line.health != Health.ZERO]
    plausible = [line for line in give if line.health in (Health.WELL, Health.NEW)]
    late = len(lines) - len(known)
    return [
        _question("Responsive?", len(answer), len(known), Health.SILENT, "silent", f"; the day of {late:,} more has no data yet" if late else ""),
        _question("Generating data?", len(give), len(answer), Health.ZERO, "all zero", ""),
        _question("Plausible?", len(plausible), len(give), Health.HIGH, "low, high or part of the day", ""),
    ]


def _question(title: str, good: int, of: int, bad: Health, words: str, more: str) -> Question:
    wrong = of - good
    face = looks.face_of(bad) if wrong else looks.face_of(Health.WELL) if of else looks.UNKNOWN
    return Question(title, face, good, of, (f"{wrong:,} {words}" if wrong else "all of them" if of else "nothing is known") + more)


def board(given: Mapping[str, str], now: datetime) -> Board:
    """The board as the address asks; four queries at most."""
    tabs = watches.tabs()
    wanted = Wanted.of(given)
    source = given.get("source", "")
    lines, gone = newest_lines(tabs, source)
    chosen = wanted.chosen(lines)
    listed = Paginator(chosen, A_PAGE).get_page(given.get("page"))
    by_watch = {tab.watch.pk: tab for tab in tabs}
    since = _since(listed)
    rows = [Row(line, by_watch[line.watch.pk], *since.get((line.watch.pk, line.sensor), (None, False))) for line in listed]
    return Board(tabs, wanted, source, now, lines, choices(lines, wanted), chosen, listed, rows, gone)


def newest_lines(tabs: Iterable[Tab], source: str = "") -> tuple[list[Line], list[Line]]:
    """Each sensor's newest line: of those observed on the newest day of their watch, and of those that are not any more. One query."""
    wanted = {tab.watch.pk: tab for tab in tabs if tab.newest and (not source or tab.watch.pipeline.slug == source)}
    if not wanted:
        return [], []
    days = Q(pk__in=[])
    for pk, tab in wanted.items():
        days |= Q(watch=pk, day__gt=tab.newest - timedelta(days=GONE_DAYS), day__lte=tab.newest)
    newest = Observation.objects.filter(days).order_by("-watch_id", "-sensor", "-day").distinct("watch_id", "sensor")
    lines, gone = [], []
    for seen in newest:
        tab = wanted[seen.watch_id]
        (lines if seen.day == tab.newest else gone).append(Line.of(tab.watch, seen))
    return lines, sorted(gone, key=lambda line: (line.day, line.sensor))


def _since(lines: Iterable[Line]) -> dict[tuple[int, str], tuple[date, bool]]:
    """(watch, sensor) to the first day of its present state. One query."""
    lines = list(lines)
    if not lines:
        return {}
    oldest = min(line.day for line in lines) - timedelta(days=SINCE_DAYS)
    earlier = (
        Observation.objects.filter(watch__in={line.watch.pk for line in lines}, sensor__in={line.sensor for line in lines}, day__gte=oldest)
        .order_by("-day")
        .values_list("watch", "sensor", "day", "health")
    )
    states = {(line.watch.pk, line.sensor): line.health for line in lines}
    found: dict[tuple[int, str], date] = {}
    ended: set[tuple[int, str]] = set()
    for watch, sensor, day, health in earlier:
        key = (watch, sensor)
        if key not in states or key in ended:
            continue
        if health == states[key]:
            found[key] = day
        else:
            ended.add(key)
    return {key: (day, key not in ended and day <= oldest + timedelta(days=1)) for key, day in found.items()}


# the map


@dataclass(frozen=True)
class MapPage:
    """The map and its twin. `unplaced` are the sensors for which no inventory has a place."""

    tabs: list[Tab]
    wanted: Wanted
    source: str
    layers: list[BoundaryLayer]
    layer: str
    lines: list[Line] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    placed: list[tuple[Line, Spot]] = field(default_factory=list)
    unplaced: list[Line] = field(default_factory=list)
    listed: Page | None = None
    picture: Picture | None = None

    @property
    def chosen(self) -> int:
        return len(self.placed) + len(self.unplaced)

    @property
    def legend(self) -> list[tuple[str, Face, str]]:
        """(letter, face, class of the fill) of each health."""
        return [(looks.letter_of(health), looks.face_of(health), looks.fill_of(health)) for health in looks.ORDER]

    @property
    def letters(self) -> dict[str, str]:
        return {str(health): letter for health, letter in looks.LETTERS.items()}


def map_page(given: Mapping[str, str]) -> MapPage:
    """The map as the address asks; six queries at most, and one for a layer that this process has not read."""
    tabs = watches.tabs()
    wanted = Wanted.of(given)
    source, layer = given.get("source", ""), given.get("layer", "")
    lines, _ = newest_lines(tabs, source)
    placed, unplaced = places_of(wanted.chosen(lines))
    picture = places.drawn([(spot, line) for line, spot in placed], layer)
    every = [(line, spot) for line, spot in placed] + [(line, None) for line in unplaced]
    return MapPage(
        tabs=tabs,
        wanted=wanted,
        source=source,
        layers=places.layers(),
        layer=layer,
        lines=lines,
        choices=choices(lines, wanted),
        placed=placed,
        unplaced=unplaced,
        listed=Paginator(every, A_PAGE).get_page(given.get("page")),
        picture=picture,
    )


def places_of(lines: Iterable[Line]) -> tuple[list[tuple[Line, Spot]], list[Line]]:
    """The lines with their places, and those without. One query."""
    lines = list(lines)
    of_watch = {line.watch.pk: line.watch for line in lines}
    editions = places.newest_units(watch.pipeline.inventory for watch in of_watch.values()) if of_watch else {}
    units = {
        pk: places.Units(editions[watch.pipeline.inventory].units, watch.unit_field)
        for pk, watch in of_watch.items()
        if watch.pipeline.inventory in editions
    }
    placed, unplaced = [], []
    for line in lines:
        spot = units[line.watch.pk].spot(line.sensor, line.unit) if line.watch.pk in units else None
        if spot:
            placed.append((line, spot))
        else:
            unplaced.append(line)
    return placed, unplaced
