"""The app's own YAML: providers, datasets, boundaries, pipelines and upkeep jobs, each under its slug (a job under its title).

A file may be short; what it does not say takes its default (a title comes of the slug, a table of the slug with `_` for `-`,
and without a portal nothing is published):

    providers:
      la-open-data:
        kind: socrata
        base_url: https://data.lacity.org
        secrets:
          app_token: env:LA_APP_TOKEN
    datasets:
      la-311:
        title: MyLA311 service requests
    pipelines:
      la-311-2020:
        provider: la-open-data
        dataset: la-311
        resource: rq3b-xjk8
        key: [srnumber]
        after:
          - {kind: refresh, target: service_requests}
          - {kind: notify, secret: env:SLACK_HOOK}

A pipeline may also say what its enrich stage adds and what leaves for the portal; the areas are a GeoJSON beside the file, and
what is done now and then stands under upkeep:

    boundaries:
      council-districts: {key_property: district_n, file: council-districts.geojson}
    pipelines:
      bird-trips:
        enrichments:
          - {layer: council-districts, lon_column: start_lon, lat_column: start_lat, column: council_district_start}
        private_columns: [trip_id, device_id, start_lon, start_lat]
        release:
          - {column: trip_id, from: trip_id, rule: surrogate}
    upkeep:
      Nightly heal: {kind: heal, cadence: daily, at_time: 02:00, time_zone: America/Chicago, pipelines: [bird-trips]}

An import changes what the file names and leaves the rest: settings, columns and objects that are not named stay. So an export,
which writes every setting, restores exactly what it saw, and a file of three lines changes one setting. A list (key, stages,
the steps after a load, the enrichments) is one setting: it is as the file has it.

A dataset of several tables, like a CKAN package with its resources, has its dictionary under `parts`, each table under its name.

A secret is `env:NAME` (stays in the environment), the word `sealed` (keep what is stored here), nothing (forget it), or the
value itself, which is encrypted on its way in. Texts are taken as they stand: `07:00`, `17:00`, `1-2-3` and `no` need no quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import yaml
from django.db import models

from catalog.models import BoundaryLayer, Dataset
from pipelines.importers import plain
from pipelines.importers.plan import (
    BOUNDARY,
    DATASET,
    PIPELINE,
    PLURAL,
    PROVIDER,
    SECTION,
    UPKEEP,
    Plan,
    Problem,
    Step,
    Wanted,
    suggestion,
)
from pipelines.importers.yaml_nodes import (
    TRUTHS,
    Unreadable,
    compose,
    deeper,
    dump,
    is_null,
    kind_of,
    refuse_tag,
    text_of,
    text_or_deeper,
    text_or_nothing,
)
from pipelines.models import Pipeline, Provider, UpkeepJob

NAME = "Open Data Ops YAML"
SECTIONS = {SECTION[kind]: kind for kind in (PROVIDER, DATASET, BOUNDARY, PIPELINE, UPKEEP)}
HEADER = """\
# Open Data Ops configuration, written by: python3 manage.py export_config
# Read it back with: python3 manage.py import_config FILE… (with --dry-run it only says what would change).
# It holds every setting. You may leave out what should stay as it is; nothing is removed by leaving it out.
# Secrets: env:NAME is read from the environment; `sealed` is stored encrypted and never leaves its installation.
# To enter a sealed one elsewhere, write its value in the place of `sealed` (it is encrypted on its way in), or env:NAME.
"""

_OURS = re.compile(rf"^(?:{'|'.join(SECTIONS)})[ ]*:", re.MULTILINE)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?")


# reading


def recognises(path: str, text: str) -> bool:
    """Whether one of our sections begins a line."""
    return bool(_OURS.search(text))


def read(path: str, text: str) -> Plan:
    """What the file wants. All that is wrong with it is in `problems`; nothing is raised."""
    return _Reader(path).read(text)


class _Loader(yaml.SafeLoader):
    """Composes nodes with their marks, and refuses aliases: a few lines of them unfold into gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "anchors and aliases (& and *) are not read", self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _Reader:
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.wanted: list[Wanted] = []

    def read(self, text: str) -> Plan:
        root, problem = compose(self.path, text, _Loader)
        if problem:
            self.problems.append(problem)
        if root is not None:
            for section, at, node in self._pairs(root, "", f"sections ({', '.join(SECTIONS)})"):
                if section not in SECTIONS:
                    self._problem(at, section, f"{section!r} is not a section.", suggestion(section, SECTIONS, what="The sections"))
                    continue
                each = f"{PLURAL[SECTIONS[section]]}, each under its {'title' if SECTIONS[section] == UPKEEP else 'slug'}"
                for slug, key, body in self._pairs(node, section, each, under_slugs=True):
                    self._thing(SECTIONS[section], slug, key, body)
        return Plan(tuple(self.wanted), tuple(self.problems))

    def _thing(self, kind: str, slug: str, key: yaml.Node, body: yaml.Node) -> None:
        """One object under its slug."""
        where = f"{SECTION[kind]}.{slug}"
        before = len(self.problems)
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        unread: set[str] = set()
        known = plain.keys_of(kind)
        for name, at, node in self._pairs(body, where, f"settings of {kind} {slug}"):
            if name not in known:
                a = "An" if kind[0] in "aeiou" else "A"
                self._problem(at, f"{where}.{name}", f"{a} {kind} has no setting {name!r}.", self._stranger(kind, name, known))
                continue
            lines[name] = at.start_mark.line + 1
            try:
                values[name] = self._setting(kind, name, f"{where}.{name}", node, lines)
            except Unreadable as error:
                unread.add(name)
                self._problem(error.node, f"{where}.{name}", error.message, error.next_step)
        readable = isinstance(body, yaml.MappingNode) or (is_null(body) and len(self.problems) == before)
        line = key.start_mark.line + 1
        self.wanted.append(Wanted(kind, slug, values, self.path, line, lines, frozenset(unread), readable))

    @staticmethod
    def _stranger(kind: str, name: str, known: list[str]) -> str:
        if name == "slug":
            return "The slug is the name under which it stands; take this line out."
        return suggestion(name, known, what=f"The settings of a {kind}")

    # one setting

    def _setting(self, kind: str, name: str, where: str, node: yaml.Node, lines: dict[str, int]) -> Any:
        """The value in the type of its field. Raises Unreadable."""
        if kind == DATASET and name == "columns":
            return dict(self._columns(where, node, lines, name))
        if kind == DATASET and name == "parts":
            parts = self._named(where, node, lines, name)
            return {part: dict(self._columns(f"{where}.{part}", body, lines, f"parts.{part}")) for part, body in parts}
        if kind == PIPELINE and name == "after":
            return tuple(self._steps(where, node, lines, name, plain.STEP_FIELDS, ("step", "step after a load", "kind: analyze")))
        if kind == PIPELINE and name == "enrichments":
            words = ("enrichment", "enrichment", "column: council_district")
            return tuple(self._steps(where, node, lines, name, plain.ENRICHMENT_FIELDS, words))
        if kind == UPKEEP and name == "pipelines":
            return self._list(node)
        if kind == BOUNDARY and name in plain.PARTS[BOUNDARY]:
            return text_of(node)
        field = plain.FIELDS[kind][name]
        if isinstance(field, models.JSONField):
            if field.get_default() == {}:
                read: Callable[[yaml.Node], Any] = {"secrets": text_or_nothing, **dict.fromkeys(plain.EXACT, deeper)}.get(name, text_or_deeper)
                return {item: read(value) for item, value in self._named(where, node, lines, name)}
            return self._list(node)
        return _scalar(field, node)

    def _columns(self, where: str, node: yaml.Node, lines: dict[str, int], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The dictionary of a table: (column, its words)."""
        for column, body in self._named(where, node, lines, place):
            words = {}
            for name, at, value in self._pairs(body, f"{where}.{column}", f"words of column {column} (such as label: …)"):
                if name not in plain.COLUMN_FIELDS:
                    next_step = suggestion(name, plain.COLUMN_FIELDS, what="The settings of a column")
                    self._problem(at, f"{where}.{column}.{name}", f"A column has no setting {name!r}.", next_step)
                    continue
                try:
                    words[name] = _scalar(plain.COLUMN_FIELDS[name], value)
                except Unreadable as error:
                    self._problem(error.node, f"{where}.{column}.{name}", error.message, error.next_step)
            yield column, words

    def _steps(
        self, where: str, node: yaml.Node, lines: dict[str, int], list_name: str, fields: Mapping[str, models.Field], words: tuple[str, str, str]
    ) -> Iterator[Step]:
        """The items of a list, each with settings of these fields. Raises Unreadable where they are no list."""
        one, called, example = words
        if is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            raise Unreadable(node, f"{kind_of(node)} stands where a list of {one}s is wanted.", f"Begin each {one} with a dash, like - {example}.")
        refuse_tag(node)
        for number, item in enumerate(node.value, start=1):
            lines[f"{list_name}.{number}"] = item.start_mark.line + 1
            values = {}
            article = "An" if called[0] in "aeiou" else "A"
            for name, at, value in self._pairs(item, f"{where}.{number}", f"words of {article.lower()} {one} (such as {example})"):
                if name not in fields:
                    next_step = suggestion(name, fields, what=f"The settings of {article.lower()} {one}")
                    self._problem(at, f"{where}.{number}.{name}", f"{article} {called} has no setting {name!r}.", next_step)
                    continue
                lines[f"{list_name}.{number}.{name}"] = at.start_mark.line + 1
                try:
                    values[name] = _scalar(fields[name], value)
                except Unreadable as error:
                    self._problem(error.node, f"{where}.{number}.{name}", error.message, error.next_step)
            yield Step(values, line=item.start_mark.line + 1)

    def _named(self, where: str, node: yaml.Node, lines: dict[str, int], name: str) -> Iterator[tuple[str, yaml.Node]]:
        """The pairs of a mapping within a setting, their lines noted."""
        for item, at, value in self._pairs(node, where, "names with their values (name: value)"):
            lines[f"{name}.{item}"] = at.start_mark.line + 1
            yield item, value

    def _list(self, node: yaml.Node) -> list[Any]:
        if is_null(node):
            return []
        if isinstance(node, yaml.ScalarNode):
            return [text_of(node)]  # one column as a key is so common that it needs no brackets
        if not isinstance(node, yaml.SequenceNode):
            raise Unreadable(node, f"{kind_of(node)} stands where a list is wanted.", "Write it like [first, second].")
        refuse_tag(node)
        return [text_or_deeper(item) for item in node.value]

    # mappings and problems

    def _pairs(self, node: yaml.Node, where: str, wanted: str, *, under_slugs: bool = False) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """(key, its node, its value) of a mapping, in order; a node that is none, and a key that comes twice, is a problem."""
        if is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            first = "its slug and a colon" if under_slugs else "its name and a colon"
            hint = f"Begin each with {first}, without a dash before it."
            self._problem(node, where, f"{kind_of(node)} stands where a mapping is wanted: {wanted}.", hint)
            return []
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            try:
                name = text_of(key)
                refuse_tag(value)
            except Unreadable as error:
                self._problem(error.node, where, error.message, error.next_step)
                continue
            path = f"{where}.{name}" if where else name
            if not name:
                what = "slug" if under_slugs else "name"
                self._problem(key, where, f"A {what} is missing before the colon.", f"Write the {what} there.")
            elif name in found:
                self._problem(key, path, f"{name!r} stands here twice; first on line {lines[name]}.", "Keep one of the two.")
            else:
                found[name], lines[name] = (name, key, value), key.start_mark.line + 1
        return list(found.values())

    def _problem(self, node: yaml.Node, field: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(self.path, node.start_mark.line + 1, field, message, next_step))


def _scalar(field: models.Field, node: yaml.Node) -> Any:
    """A single value in the type of the model's field. Raises Unreadable."""
    text = text_of(node)
    if isinstance(field, (models.CharField, models.TextField)):
        return text
    if is_null(node):
        if field.null:
            return None
        raise Unreadable(node, "Nothing stands here, and nothing is not a value for it.", "Write a value, or take the line out.")
    if isinstance(field, models.ForeignKey):
        return text
    if isinstance(field, models.BooleanField):
        if text.lower() not in TRUTHS:
            raise Unreadable(node, f"{text!r} is neither true nor false.", "Write true or false.")
        return TRUTHS[text.lower()]
    if isinstance(field, models.TimeField):
        return _time(node, text)
    if isinstance(field, models.DateTimeField):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise Unreadable(node, f"{text!r} is not a day and a time.", "Write them like 2026-01-31T17:30:00+00:00.") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(field, models.DateField):
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise Unreadable(node, f"{text!r} is not a day.", "Write year-month-day, like 2026-01-31.") from None
    if not re.fullmatch(r"[-+]?\d{1,18}", text.replace("_", "")):
        raise Unreadable(node, f"{text!r} is not a whole number.", "Write digits only.")
    return int(text.replace("_", ""))


def _time(node: yaml.Node, text: str) -> time:
    found = _CLOCK.fullmatch(text)
    try:
        hour, minute, second, fraction = found.groups()
        return time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
    except (AttributeError, ValueError):
        raise Unreadable(node, f"{text!r} is not a time of day.", "Write hours and minutes, like 07:00 or 17:30.") from None


# writing


def document(pipelines: list[str] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """{"providers": {slug: settings}, "datasets": …, "pipelines": …}: all, or some pipelines with what they refer to. No secret is in it.

    Boundaries and upkeep jobs are there where there are any; the jobs only when all is told. Test twins are not: they are made of
    their pipelines.
    """
    chosen = (
        Pipeline.objects.filter(twin_of=None).select_related("provider", "dataset", "portal").prefetch_related("after_steps", "enrichments__layer")
    )
    providers, datasets, boundaries = Provider.objects.all(), Dataset.objects.all(), BoundaryLayer.objects.defer("content")
    jobs = UpkeepJob.objects.prefetch_related("pipelines")
    if pipelines is not None:
        chosen = chosen.filter(slug__in=pipelines)
        providers = providers.filter(models.Q(pipelines__in=chosen) | models.Q(publishes__in=chosen)).distinct()
        datasets = datasets.filter(pipelines__in=chosen).distinct()
        boundaries = boundaries.filter(enrichments__pipeline__in=chosen).distinct()
        jobs = jobs.none()
    # by slug in Python: the order of letters must not depend on the database's collation
    told = {
        section: {plain.slug_of(thing): plain.plain(thing) for thing in sorted(things, key=plain.slug_of)}
        for section, things in (
            ("providers", providers),
            ("datasets", datasets.prefetch_related("columns")),
            ("boundaries", boundaries),
            ("pipelines", chosen),
            ("upkeep", jobs),
        )
    }
    return {section: things for section, things in told.items() if things or section in ("providers", "datasets", "pipelines")}


def write(told: dict[str, dict[str, dict[str, Any]]]) -> str:
    """`document` as YAML: the same settings give the same bytes. Reading it back changes nothing."""
    return HEADER + "".join(f"\n{dump({section: things})}" for section, things in told.items())
