"""The tags and filters that every page uses: states, icons, numbers, times, small charts. Nothing here asks the database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache
from html import escape
from urllib.parse import urlsplit

from django import template
from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from pipelines import clock
from pipelines.selectors import faces

register = template.Library()

#: Which entry of the rail a page belongs to.
SECTIONS = {
    "pipeline": "pipelines",
    "rerun": "pipelines",
    "accept_columns": "pipelines",
    "initialize": "pipelines",
    "dataset": "datasets",
    "block": "runs",
    "block_confirm": "runs",
    "lake_file": "lake",
    "boundary": "boundaries",
    "inventory": "inventories",
    "inventory_upload": "inventories",
    "upkeep_job": "upkeep",
    "upkeep_run": "upkeep",
    "sensors": "performance",
    "sensor": "performance",
    "health-board": "performance",
    "sensor-map": "performance",
    "quality-table": "quality",
    "quality-improve": "quality",
    "quality-score-now": "quality",
}


@register.simple_tag
@cache
def icon(name: str) -> SafeString:
    """An icon of the sprite, silent: the word stands beside it."""
    return format_html('<svg class="i" aria-hidden="true"><use href="#i-{}"/></svg>', name)


@register.simple_tag
def grade(word: str, said: str = "") -> SafeString:
    """A grade of the quality score as icon, word and colour; `said` stands after the word."""
    return format_html('<span class="grade grade--{}">{}{}{}</span>', word.lower(), icon("quality"), word or "No grade", said)


#: What is not yet due waits; in a grid it is an empty square.
_ICONS = {"due": "queued"}


@register.simple_tag
def state(thing, fill: str = "", word: str = "") -> SafeString:
    """Icon, word and colour of a block, a run, a Face or a look by name. `fill` is "", "tint" or "solid"; `word` replaces the usual one."""
    face = faces.of(thing)
    return format_html(
        '<span class="state state--{}{}">{}{}</span>',
        face.look,
        format_html(" state--{}", fill) if fill else "",
        icon(_ICONS.get(face.look, face.look)),
        word or face.word,
    )


#: A tick in a pale cell is drawn by the stylesheet; every other look brings its icon.
_BARE = {"ok", "missing", "due"}


@register.simple_tag
def cell(square) -> SafeString:
    """One square of a grid: anything with `face`, `title`, `href` (or none) and `shade` ("", "v1", "v3", "v4")."""
    return mark_safe(_cell(square))  # noqa: S308  escaped there


def _cell(square) -> str:
    # written out, for a page may have two thousand: looks and shades are words of ours, what else stands in it is escaped
    look = square.face.look
    inside = "" if look in _BARE else icon(look)
    shade = f" b--{square.shade}" if square.shade and look == "ok" else ""
    if square.href:
        return f'<a class="b b--{look}{shade}" href="{escape(square.href)}" title="{escape(square.title)}">{inside}</a>'
    return f'<span class="b b--{look}{shade}" title="{escape(square.title)}">{inside}</span>'


@register.simple_tag
def day_cells(squares, mondays) -> SafeString:
    """A line of the day grid: a table cell a square; `mondays` are the places at which a week begins."""
    cells = (f"{'<td class=mon>' if place in mondays else '<td>'}{_cell(square)}</td>" for place, square in enumerate(squares))
    return mark_safe("".join(cells))  # noqa: S308  escaped there


@register.simple_tag
def spark(values, label: str = "") -> SafeString:
    """A row of small bars, one a value; None leaves a gap. The numbers themselves are in `label`."""
    values = list(values)
    top = max((value or 0 for value in values), default=0) or 1
    # one path for all bars: a rectangle each weighed as much as the rest of the line
    bars = "".join(
        f"M{index * 4} 16v-{height}h3v{height}"
        for index, value in enumerate(values)
        if value is not None
        for height in [max(1, round(16 * value / top))]
    )
    return format_html(
        '<svg class="spark" width="{}" height="16" role="img" aria-label="{}"><title>{}</title><path class="bar--queued" d="{}"/></svg>',
        max(len(values) * 4 - 1, 1),
        label,
        label,
        bars,
    )


@register.simple_tag(takes_context=True)
def nav_link(context, name: str, word: str, count: int = 0) -> SafeString:
    """An entry of the rail; marked when the page belongs to it."""
    match = getattr(context.get("request"), "resolver_match", None)
    here = match and SECTIONS.get(match.url_name, match.url_name) == name
    return format_html(
        '<li><a href="{}"{}>{}{}</a></li>',
        reverse(name),
        mark_safe(' aria-current="page"') if here else "",
        word,
        format_html('<span class="count" title="{} need a person">{}</span>', counted(count, "thing"), count) if count else "",
    )


@register.filter
def thousands(value) -> str:
    """A count with commas; a dash where nothing is known."""
    return "–" if value is None or value == "" else f"{int(value):,}"


def counted(number: int, word: str, plural: str = "") -> str:
    """ "1 block", "2,400 blocks"."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


@register.filter(name="counted")
def counted_filter(number, words: str) -> str:
    """`{{ 2|counted:"block" }}` is "2 blocks"; an odd plural follows a comma: "entry,entries"."""
    return counted(int(number or 0), *words.split(","))


@register.filter
def span(seconds) -> str:
    """Seconds in words for people, two units at most: "4 min 20 s", "1 d 4 h"; a dash for None."""
    if seconds is None or seconds == "":
        return "–"
    if hasattr(seconds, "total_seconds"):
        seconds = seconds.total_seconds()
    if 0 < seconds < 1:
        return "under 1 s"
    left, parts = max(int(seconds), 0), []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


@register.filter
def ago(moment: datetime | None) -> str:
    """How long since, in words: "4 min"; "now" within five seconds, a dash for None."""
    if moment is None:
        return "–"
    seconds = (timezone.now() - moment).total_seconds()
    return "now" if seconds < 5 else span(seconds)


@register.filter
def until(moment: datetime | None) -> str:
    """How long until, in words; "now" when it has come."""
    if moment is None:
        return "–"
    seconds = (moment - timezone.now()).total_seconds()
    return "now" if seconds <= 0 else span(seconds)


def _local(moment: datetime, zone_name: str) -> datetime:
    return moment.astimezone(clock.zone(zone_name or settings.TIME_ZONE))


@register.filter
def local_time(moment: datetime | None, zone_name: str = "") -> SafeString | str:
    """ "Nov 20, 17:00" in the city's zone or the one named, UTC on hover; with the year when it is another one."""
    if moment is None:
        return "–"
    local = _local(moment, zone_name)
    year = "" if local.year == _local(timezone.now(), zone_name).year else f" {local.year}"
    return _time_tag(moment, f"{local:%b} {local.day}{year}, {local:%H:%M}")


@register.filter
def local_clock(moment: datetime | None, zone_name: str = "") -> SafeString | str:
    """ "17:00:05" in the city's zone or the one named, UTC on hover."""
    return "–" if moment is None else _time_tag(moment, f"{_local(moment, zone_name):%H:%M:%S}")


@register.filter
def local_day(moment: datetime | date | None, zone_name: str = "") -> SafeString | str:
    """ "Fri Nov 20" of an instant in the city's zone or the one named, or of a day; with the year when it is another one."""
    if moment is None:
        return "–"
    day = _local(moment, zone_name) if isinstance(moment, datetime) else moment
    year = "" if day.year == _local(timezone.now(), zone_name).year else f" {day.year}"
    words = f"{day:%a %b} {day.day}{year}"
    return _time_tag(moment, words) if isinstance(moment, datetime) else words


def _time_tag(moment: datetime, words: str) -> SafeString:
    utc = moment.astimezone(UTC)
    return format_html('<time datetime="{}" title="{} UTC">{}</time>', f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S}", words)


@register.filter
def window(block, zone_name: str = "") -> str:
    """A block's span in words, in its pipeline's zone."""
    return clock.window_text(block.starts_at, block.ends_at, zone_name or block.pipeline.time_zone)


@register.filter(name="bytes")
def bytes_filter(size) -> str:
    """ "9.8 MB"; a dash for None. Thousands, not 1,024s, as disks are sold."""
    if size is None or size == "":
        return "–"
    size = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


@register.filter
def host(address: str) -> str:
    """The host of an address, for people: data.city.gov."""
    return urlsplit(address).netloc or address


@register.filter
def file_name(path: str) -> str:
    """The last part of a lake path: what a person calls the file."""
    return path.rpartition("/")[2]


@register.filter
def pace(run) -> str:
    """Rows a second of a run; a dash where nothing can be said."""
    return f"{run.rows_in / run.seconds:,.0f}" if run.seconds and run.rows_in else "–"


@register.filter
def percent(part, whole) -> int:
    """`part` of `whole` in whole per cent, 0 where the whole is unknown."""
    return min(100, round(100 * (part or 0) / whole)) if whole else 0
