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

A secret is `env:NAME` (stays in the environment), the word `sealed` (keep what is stored here), nothing (forget it), or the
value itself, which is encrypted on its way in. Texts are taken as they stand: `07:00`, `17:00`, `1-2-3` and `no` need no quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
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
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")}
_NULLS = {"", "~", "null", "Null", "NULL"}
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*["]""")
_AGAIN = "Correct the file and import it again."


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


class _Unreadable(Exception):
    """A value that can't be what it should be; caught where its name is known."""

    def __init__(self, node: yaml.Node, message: str, next_step: str = _AGAIN):
        super().__init__(message)
        self.node, self.message, self.next_step = node, message, next_step


class _Reader:
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.wanted: list[Wanted] = []

    def read(self, text: str) -> Plan:
        root = self._compose(text)
        if root is not None:
            for section, at, node in self._pairs(root, "", f"sections ({', '.join(SECTIONS)})"):
                if section not in SECTIONS:
                    self._problem(at, section, f"{section!r} is not a section.", suggestion(section, SECTIONS, what="The sections"))
                    continue
                each = f"{PLURAL[SECTIONS[section]]}, each under its {'title' if SECTIONS[section] == UPKEEP else 'slug'}"
                for slug, key, body in self._pairs(node, section, each, under_slugs=True):
                    self._thing(SECTIONS[section], slug, key, body)
        return Plan(tuple(self.wanted), tuple(self.problems))

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # a word of the file may be a secret in the wrong place: only YAML's own words and single signs are repeated
            said = _QUOTED.sub(_veiled, error.problem or error.context or "it cannot be read")
            line = mark.line + 1 if mark else 0
            if "'\\t'" in said:
                self._say(line, "", "A tab stands where YAML wants spaces.", "Put spaces in the place of the tabs.")
            else:
                begun = f" (begun on line {error.context_mark.line + 1})" if error.context_mark and error.context_mark.line + 1 != line else ""
                self._say(line, "", f"This is not YAML: {said}{begun}.", _AGAIN)
            return None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
            self._say(
                line,
                "",
                f"A character that YAML forbids stands here: {error.reason}.",
                "Take it out, or save the file again as UTF-8 text.",
            )
            return None
        except RecursionError:
            self._say(0, "", "The file is nested too deep to be a configuration.", _AGAIN)
            return None
        except (ValueError, OverflowError) as error:
            # PyYAML lets this out where an escape like "\\U00110000" names no character
            self._say(0, "", f"The file holds an escape that names no character: {error}.", _AGAIN)
            return None
        if root is None:
            self._say(0, "", "The file holds nothing.", "Write something in it; `manage.py help import_config` shows an example.")
        return root

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
            except _Unreadable as error:
                unread.add(name)
                self._problem(error.node, f"{where}.{name}", error.message, error.next_step)
        readable = isinstance(body, yaml.MappingNode) or (_is_null(body) and len(self.problems) == before)
        line = key.start_mark.line + 1
        self.wanted.append(Wanted(kind, slug, values, self.path, line, lines, frozenset(unread), readable))

    @staticmethod
    def _stranger(kind: str, name: str, known: list[str]) -> str:
        if name == "slug":
            return "The slug is the name under which it stands; take this line out."
        return suggestion(name, known, what=f"The settings of a {kind}")

    # one setting

    def _setting(self, kind: str, name: str, where: str, node: yaml.Node, lines: dict[str, int]) -> Any:
        """The value in the type of its field. Raises _Unreadable."""
        if kind == DATASET and name == "columns":
            return dict(self._columns(where, node, lines))
        if kind == PIPELINE and name == "after":
            return tuple(self._steps(where, node, lines, name, plain.STEP_FIELDS, ("step", "step after a load", "kind: analyze")))
        if kind == PIPELINE and name == "enrichments":
            words = ("enrichment", "enrichment", "column: council_district")
            return tuple(self._steps(where, node, lines, name, plain.ENRICHMENT_FIELDS, words))
        if kind == UPKEEP and name == "pipelines":
            return self._list(node)
        if kind == BOUNDARY and name in plain.PARTS[BOUNDARY]:
            return _text(node)
        field = plain.FIELDS[kind][name]
        if isinstance(field, models.JSONField):
            if field.get_default() == {}:
                read: Callable[[yaml.Node], Any] = {"secrets": _text_or_nothing, "options": _deeper}.get(name, _text_or_deeper)
                return {item: read(value) for item, value in self._named(where, node, lines, name)}
            return self._list(node)
        return _scalar(field, node)

    def _columns(self, where: str, node: yaml.Node, lines: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The dictionary: (column, its words)."""
        for column, body in self._named(where, node, lines, "columns"):
            words = {}
            for name, at, value in self._pairs(body, f"{where}.{column}", f"words of column {column} (such as label: …)"):
                if name not in plain.COLUMN_FIELDS:
                    next_step = suggestion(name, plain.COLUMN_FIELDS, what="The settings of a column")
                    self._problem(at, f"{where}.{column}.{name}", f"A column has no setting {name!r}.", next_step)
                    continue
                try:
                    words[name] = _scalar(plain.COLUMN_FIELDS[name], value)
                except _Unreadable as error:
                    self._problem(error.node, f"{where}.{column}.{name}", error.message, error.next_step)
            yield column, words

    def _steps(
        self, where: str, node: yaml.Node, lines: dict[str, int], list_name: str, fields: Mapping[str, models.Field], words: tuple[str, str, str]
    ) -> Iterator[Step]:
        """The items of a list, each with settings of these fields. Raises _Unreadable where they are no list."""
        one, called, example = words
        if _is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            raise _Unreadable(node, f"{_kind_of(node)} stands where a list of {one}s is wanted.", f"Begin each {one} with a dash, like - {example}.")
        _refuse_tag(node)
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
                except _Unreadable as error:
                    self._problem(error.node, f"{where}.{number}.{name}", error.message, error.next_step)
            yield Step(values, line=item.start_mark.line + 1)

    def _named(self, where: str, node: yaml.Node, lines: dict[str, int], name: str) -> Iterator[tuple[str, yaml.Node]]:
        """The pairs of a mapping within a setting, their lines noted."""
        for item, at, value in self._pairs(node, where, "names with their values (name: value)"):
            lines[f"{name}.{item}"] = at.start_mark.line + 1
            yield item, value

    def _list(self, node: yaml.Node) -> list[Any]:
        if _is_null(node):
            return []
        if isinstance(node, yaml.ScalarNode):
            return [_text(node)]  # one column as a key is so common that it needs no brackets
        if not isinstance(node, yaml.SequenceNode):
            raise _Unreadable(node, f"{_kind_of(node)} stands where a list is wanted.", "Write it like [first, second].")
        _refuse_tag(node)
        return [_text_or_deeper(item) for item in node.value]

    # mappings and problems

    def _pairs(self, node: yaml.Node, where: str, wanted: str, *, under_slugs: bool = False) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """(key, its node, its value) of a mapping, in order; a node that is none, and a key that comes twice, is a problem."""
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            first = "its slug and a colon" if under_slugs else "its name and a colon"
            hint = f"Begin each with {first}, without a dash before it."
            self._problem(node, where, f"{_kind_of(node)} stands where a mapping is wanted: {wanted}.", hint)
            return []
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            try:
                name = _text(key)
                _refuse_tag(value)
            except _Unreadable as error:
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
        self._say(node.start_mark.line + 1, field, message, next_step)

    def _say(self, line: int, field: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(self.path, line, field, message, next_step))


def _veiled(quoted: re.Match[str]) -> str:
    """What PyYAML quotes: a sign or a word of its own as it stands, a word of the file not."""
    return quoted[0] if len(quoted[0]) < 5 or quoted[0][1] == "<" else "a word"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS


def _kind_of(node: yaml.Node) -> str:
    return {yaml.SequenceNode: "A list", yaml.MappingNode: "A mapping"}.get(type(node), "A single value")


def _refuse_tag(node: yaml.Node) -> None:
    if node.tag not in _TAGS:
        raise _Unreadable(node, "A value that begins with ! is a tag to YAML, and tags are not read.", "Put the value in quotes.")


def _text(node: yaml.Node) -> str:
    """The text as it stands, whatever YAML would make of it; "" for nothing. Raises _Unreadable."""
    _refuse_tag(node)
    if not isinstance(node, yaml.ScalarNode):
        raise _Unreadable(
            node,
            f"{_kind_of(node)} stands where a single value is wanted.",
            "Write one value, in quotes if it begins with [ or {.",
        )
    if _is_null(node):
        return ""
    if "\0" in node.value or any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise _Unreadable(node, "The text holds a character that the database can't store (NUL or half of a pair).", "Take it out.")
    return node.value


def _text_or_nothing(node: yaml.Node) -> str | None:
    return None if _is_null(node) else _text(node)


def _text_or_deeper(node: yaml.Node) -> Any:
    return _text(node) if isinstance(node, yaml.ScalarNode) else _deeper(node)


def _deeper(node: yaml.Node) -> Any:
    """JSON inside a parameter: here, what is not in quotes is a number, true, false or null when it looks like one."""
    _refuse_tag(node)
    if isinstance(node, yaml.SequenceNode):
        return [_deeper(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_text(key): _deeper(value) for key, value in node.value}
    text = _text(node)
    if _is_null(node):
        return None
    if node.style is None:
        if text in ("true", "false"):
            return text == "true"
        if re.fullmatch(r"-?(0|[1-9]\d*)", text):
            return int(text)
        # as PyYAML writes a float, which always has a point; other words (1e5, .nan) are text
        if re.fullmatch(r"-?\d+\.\d*(e[+-]\d+)?", text):
            return float(text)
    return text


def _scalar(field: models.Field, node: yaml.Node) -> Any:
    """A single value in the type of the model's field. Raises _Unreadable."""
    text = _text(node)
    if isinstance(field, (models.CharField, models.TextField)):
        return text
    if _is_null(node):
        if field.null:
            return None
        raise _Unreadable(node, "Nothing stands here, and nothing is not a value for it.", "Write a value, or take the line out.")
    if isinstance(field, models.ForeignKey):
        return text
    if isinstance(field, models.BooleanField):
        if text.lower() not in _TRUTHS:
            raise _Unreadable(node, f"{text!r} is neither true nor false.", "Write true or false.")
        return _TRUTHS[text.lower()]
    if isinstance(field, models.TimeField):
        return _time(node, text)
    if isinstance(field, models.DateField):
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise _Unreadable(node, f"{text!r} is not a day.", "Write year-month-day, like 2026-01-31.") from None
    if not re.fullmatch(r"[-+]?\d{1,18}", text.replace("_", "")):
        raise _Unreadable(node, f"{text!r} is not a whole number.", "Write digits only.")
    return int(text.replace("_", ""))


def _time(node: yaml.Node, text: str) -> time:
    found = _CLOCK.fullmatch(text)
    try:
        hour, minute, second, fraction = found.groups()
        return time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
    except (AttributeError, ValueError):
        raise _Unreadable(node, f"{text!r} is not a time of day.", "Write hours and minutes, like 07:00 or 17:30.") from None


# writing


class _Dumper(yaml.SafeDumper):
    """Lists inside their parents, text of several lines as such, no anchors."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        style = '"'  # the other line ends (NEL, LS, PS, CR) would come back as plain ones, were they not escaped
    elif len(lines) > 1 and all(line == line.rstrip() for line in lines):
        style = "|"
    else:
        style = None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


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
    return HEADER + "".join(f"\n{_yaml({section: things})}" for section, things in told.items())


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
