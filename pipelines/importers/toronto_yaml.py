"""Dataset files of Toronto's open-data `operations` (`files_to_datastore`): a package with its resources. Each resource becomes a pipeline
from its address through standardize and load to a CKAN portal (a provider `ckan`; another with --portal), with its dictionary.

What such a file leaves empty (`null`, `''`) it does not say: words that a person entered here stay. What it says counts, whatever
was entered here. Which portal, when it was paused and how a pipeline is called the file does not know, and leaves alone.

A resource is known by its package and its name, so a file may list its resources in another order, and one that gets a second
resource changes the first one's pipeline and makes no twin of it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from catalog.models import Dataset, RefreshRate
from pipelines import clock
from pipelines.connectors.web_file import HEADERS
from pipelines.errors import SetupError
from pipelines.formats import custom, dates
from pipelines.formats.attributes import LONGEST_NAME, TYPES, fitting
from pipelines.importers import plain
from pipelines.importers.plan import DATASET, KEEP, PIPELINE, PROVIDER, Plan, Problem, Wanted, suggestion
from pipelines.importers.portals import as_slug
from pipelines.importers.yaml_nodes import TRUTHS, Unreadable, compose, deeper, is_null, kind_of, line_of, refuse_tag, text_of
from pipelines.models import Cadence, LoadMode, Pipeline, PortalMode, Stage

NAME = "Toronto's dataset YAML"
#: The portal of a file that is imported without --portal, where no CKAN is here yet.
PORTAL = "ckan"
ZONE = "America/Toronto"

#: What they call it → the setting here. The first four a package can't do without.
NEEDED = ("title", "dataset_category", "refresh_rate", "resources")
EXPECTED = ("schedule", "dag_owner_name", "dag_owner_email", "date_published", "owner_division", "owner_email", "notes", "excerpt")
WORDS = {
    "title": "title",
    "notes": "description",
    "excerpt": "excerpt",
    "limitations": "limitations",
    "collection_method": "collection_method",
    "information_url": "information_url",
    "owner_division": "department",
    "owner_section": "section",
    "owner_unit": "unit",
    "dag_owner_name": "engineer",
}
LISTS = ("civic_issues", "topics", "tags")
#: Kept for the way back; `jira_issue_id` is told to the portal, as they do.
ISSUE, ISSUE_URL = "jira_issue_id", "jira_issue_url"
PACKAGE_KEYS = (*NEEDED, *EXPECTED, *(key for key in WORDS if key not in NEEDED + EXPECTED), *LISTS, ISSUE, ISSUE_URL)
#: A key that was once misspelt in their own files, and what it means.
MISSPELT = {"text_published": "date_published"}

CATEGORIES = tuple(Dataset.Category.values)
RATES = {
    "Real-time": RefreshRate.REAL_TIME,
    "Hourly": RefreshRate.HOURLY,
    "Daily": RefreshRate.DAILY,
    "Weekly": RefreshRate.WEEKLY,
    "Bi-weekly": RefreshRate.FORTNIGHTLY,
    "Monthly": RefreshRate.MONTHLY,
    "Quarterly": RefreshRate.QUARTERLY,
    "Semi-annually": RefreshRate.HALF_YEARLY,
    "Annually": RefreshRate.YEARLY,
    "As available": RefreshRate.IRREGULAR,
    "Will not be Refreshed": RefreshRate.NEVER,
}
ISSUES = ("Affordable housing", "Climate change", "Fiscal responsibility", "Mobility", "Poverty reduction")
TOPICS = (
    "Business", "City government", "Community services", "Culture and tourism", "Development and infrastructure", "Environment", "Finance",
    "Garbage and recycling", "Health", "Locations and mapping", "Parks and recreation", "Permits and licenses", "Public safety", "Transportation",
    "Water",
)  # fmt: skip
#: What Airflow's words for a schedule mean. "@once" is a cadence of its own.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
ONCE, NEVER = "@once", ("", "none", "null", "@none", "@never")

RESOURCE_NEEDED = ("format", "url", "attributes")
#: Ignored there and here, and kept for the way back.
LEGACY = ("nested", "custom")
RESOURCE_KEYS = (
    *RESOURCE_NEEDED, "agol", "query_params", "encoding", "sheet", "jsonpath", "is_geojson", "custom_reader", "custom_headers", "multi",
    "multi_insert_date", "datastore_upsert", *LEGACY,
)  # fmt: skip
FORMATS = ("csv", "geojson", "json", "xlsx")
#: The options of a pipeline that a file speaks of. `update` and `epoch_zone` it leaves alone.
OPTIONS = (
    "attributes", "published_format", "encoding", "sheet", "jsonpath", "is_geojson", "custom_reader", "where", "multi", "multi_insert_date", "own",
)  # fmt: skip

#: As CKAN has them; only the name is told.
TAG_KEYS = ("name", "vocabulary_id", "display_name", "id", "state")
ATTRIBUTE_KEYS = ("id", "source_name", "target_name", "type", "format", "info", *LEGACY)
INFO_KEYS = ("notes", "label", "type_override")
TIMES = ("date", "timestamp")
SLUG = re.compile(r"[-a-zA-Z0-9_]{1,100}")

#: More values than this in a file are none that a person wrote: a few lines of aliases (*) unfold into gigabytes.
MOST_VALUES = 100_000

_READER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A name of a secret is made of words, which a key itself hardly is.
_SECRET_NAME = re.compile(r"_?[A-Za-z]{1,20}(?:[_-](?:[A-Za-z]{1,20}|[0-9]{1,4}))*")
#: SQLAlchemy, with which CKAN makes its tables, takes it for a parameter.
_PARAMETER = re.compile(r"(?<![:\w]):(?=\w)|\\:")
_JSONPATH = re.compile(r"\$(\.[^.\s\[\]]+)*")
_KEYS_AT_LINE_STARTS = re.compile(rf"^[ ]+['\"]?({'|'.join(key for key in PACKAGE_KEYS)})['\"]?[ ]*:", re.MULTILINE)
_AT_THE_EDGE = re.compile(r"^(?!#|---|\.\.\.|%)\S.*?:(?:\s|$)", re.MULTILINE)
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def recognises(path: str, text: str) -> bool:
    """Whether a mapping at the left edge holds at least three of a package's keys, and no pipelines of ours."""
    return bool(_AT_THE_EDGE.search(text)) and len(set(_KEYS_AT_LINE_STARTS.findall(text))) >= 3


def read(path: str, text: str) -> Plan:
    """The datasets, providers and pipelines that the file wants. All that is wrong with it is in `problems` and `warnings`; nothing is raised."""
    return _Reader(path).read(text)


def column_name(words: str) -> str:
    """The name of a column as CKAN's datastore takes it, with the least that must be changed of it; "" where nothing is left."""
    # no control characters and line ends, no double quotes, no underscore at its beginning, no `:x`, 63 bytes
    plain_words = "".join(" " if letter.isspace() else letter for letter in words if letter.isspace() or unicodedata.category(letter)[0] != "C")
    mended = _PARAMETER.sub(": ", plain_words.replace('"', "'")).strip().lstrip("_").strip()
    return fitting(mended).strip()


@dataclass
class _Package:
    """What is known of a package while its resources are read."""

    name: str
    slug: str
    line: int
    title: str = ""
    cadence: Mapping[str, Any] = field(default_factory=dict)
    #: The lines of those values.
    lines: dict[str, int] = field(default_factory=dict)
    #: What of it the way back wants, and nothing else.
    own: dict[str, Any] = field(default_factory=dict)
    #: The dictionary: {part: {column: its words}}.
    parts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


#: A value with the node of its key and its own.
_Pair = tuple[yaml.Node, yaml.Node]


class _Reader:
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.notes: list[str] = []
        self.wanted: list[Wanted] = []
        self.values = 0

    def read(self, text: str) -> Plan:
        root, problem = compose(self.path, text, yaml.SafeLoader)
        if problem:
            return Plan(problems=(problem,))
        try:
            packages = self._pairs(root, "", "the package's name, and under it what it is")
            for name, (at, body) in packages.items():
                self._package(name, at, body, is_alone=len(packages) == 1)
        except (_TooMuch, RecursionError):
            self._problem(root, "", "The file unfolds into more values than anybody can have written.", "Write its anchors (& and *) out.")
        if self.wanted:
            self.wanted.insert(0, self._portal())
        return Plan(tuple(self.wanted), tuple(self.problems), tuple(self.notes), warnings=tuple(self.warnings))

    def _portal(self) -> Wanted:
        """The CKAN that the pipelines publish to, where nobody has named one yet."""
        note = (
            f"A portal {PORTAL} was made for these datasets, without an address. Enter the address and the API key of your CKAN under "
            f"Providers, or name a portal that is here: import_config … --portal SLUG."
        )
        # .invalid is a name that nobody can have
        first = {"title": "CKAN portal", "kind": "ckan", "base_url": "https://ckan.invalid", "is_active": False}
        return Wanted(PROVIDER, PORTAL, {}, self.path, 1, first=first, is_shared=True, is_stand_in=True, next_steps={"": note})

    # a package

    def _package(self, name: str, at: yaml.Node, body: yaml.Node, *, is_alone: bool) -> None:
        said = self._settings(body, name, PACKAGE_KEYS, f"the settings of the package {name}", what="The keys of a package")
        package = _Package(name, self._slug(name, at), line_of(at))
        self._compare_with_file(name, at, is_alone=is_alone)
        for key in NEEDED:
            if key not in said:
                self._problem(at, f"{name}.{key}", f"The package does not say its {key}.", f"Write {key}: and its value under {name}.")
        for key in EXPECTED:
            if key not in said:
                what = "It then runs only by hand." if key == "schedule" else "It is left empty."
                self._warn(at, f"{name}.{key}", f"The package does not say its {key}. {what}", f"Write {key}: and its value under {name}.")
        values: dict[str, Any] = {}
        for key, (key_node, node) in said.items():
            where = f"{name}.{key}"
            package.lines[key] = line_of(key_node)
            with self._told(where):
                if key in WORDS:
                    if words := self._words(node):
                        values[WORDS[key]] = words
                elif key == "schedule":
                    package.cadence = self._schedule(where, node, package)
                elif key in LISTS:
                    self._list_of(key, where, node, values, package)
                elif key != "resources":
                    self._one(key, where, node, values, package)
        if "title" in said and not values.get("title"):
            self._problem(said["title"][1], f"{name}.title", "The title is empty.", "Write what people are to read.")
        package.title = values.get("title", name)
        package.cadence = package.cadence or {"cadence": Cadence.MANUAL.value, "cron": ""}
        if "resources" in said:
            self._resources(package, said["resources"][1])
        values["parts"] = package.parts
        # what the dataset itself says now, the portal is not told beside it
        said_now = [theirs for theirs, ours in _IN_ITS_PLACE.items() if ours in values]
        values["portal_fields"] = {**dict.fromkeys(said_now), **values.get("portal_fields", {})}
        lines = {ours: package.lines[theirs] for theirs, ours in _DATASET_LINES.items() if theirs in package.lines}
        self.wanted.append(
            Wanted(DATASET, package.slug, values, self.path, package.line, lines, keeps_parameters=True, first={"title": package.title})
        )

    def _slug(self, name: str, at: yaml.Node) -> str:
        if SLUG.fullmatch(name):
            return name
        slug = plain.short(_slugged(name) or "package", 100, of=name, is_cut=not _slugged(name))
        self._warn(at, name, f"{name!r} is no name that a portal takes; the package is called {slug}.", "Use small letters, digits and dashes.")
        return slug

    def _compare_with_file(self, name: str, at: yaml.Node, *, is_alone: bool) -> None:
        file = PurePosixPath(self.path.replace("\\", "/"))
        if is_alone and file.suffix.lower() in (".yaml", ".yml") and file.stem != name:
            self._warn(at, name, f"The file is called {file.stem} and the package in it {name}; the package's name counts.", "Rename the file.")

    def _one(self, key: str, where: str, node: yaml.Node, values: dict[str, Any], package: _Package) -> None:
        """A key with one value that needs more than its words."""
        words = self._words(node)
        if key == "dataset_category":
            values["category"] = self._choice(where, node, words, CATEGORIES, "The categories")
        elif key == "refresh_rate":
            values["refresh_rate"] = str(RATES.get(self._choice(where, node, words, RATES, "The refresh rates"), RefreshRate.IRREGULAR))
        elif not words:
            return
        elif key == "date_published":
            if (moment := _moment(words)) is not None:
                values["published_on"] = moment
            else:
                self._warn(node, where, f"{words!r} is no date; the portal is told it as it stands.", "Write it like 2019-07-23 16:49:22.")
                values.setdefault("portal_fields", {})["date_published"] = words
        elif key == "owner_email":
            if _is_email(words):
                values["steward_email"] = words
            else:
                self._warn(node, where, f"{words!r} is no e-mail address; the portal is told it as it stands.", "Write one address.")
                values.setdefault("portal_fields", {})["owner_email"] = words
        elif key == "dag_owner_email":
            if _is_email(words):
                values["engineer_email"] = words
            else:
                self._warn(node, where, f"{words!r} is no e-mail address; nobody is written to.", "Write one address.")
                package.own[key] = words
        elif key == ISSUE:
            values.setdefault("portal_fields", {})[ISSUE] = words
        elif key == ISSUE_URL:
            package.own[ISSUE_URL] = words

    def _choice(self, where: str, node: yaml.Node, words: str, known: Iterable[str], what: str) -> str:
        """Which of the known words it is, whatever its capitals; "" with a problem for none."""
        found = {one.lower(): one for one in known}.get(re.sub(r"\s+", " ", words).lower())
        if found is None:
            self._problem(node, where, f"{words!r} is none of its choices.", suggestion(words, known, what=what))
        return found or ""

    def _schedule(self, where: str, node: yaml.Node, package: _Package) -> Mapping[str, Any]:
        words = re.sub(r"\s+", " ", self._words(node))
        if words.lower() == ONCE:
            return {"cadence": Cadence.ONCE.value, "cron": ""}
        if words.lower() in NEVER:
            return {"cadence": Cadence.MANUAL.value, "cron": ""}
        cron = cron_of(words)
        if cron is None:
            next_step = "Write minute, hour, day, month and weekday, like '20 7 * * 4', or '@once'."
            if words.startswith("@"):
                next_step = suggestion(words, [*PRESETS, ONCE], what="The words for a schedule")
            self._problem(node, where, f"{words!r} is no time that comes.", next_step)
            return {}
        if cron != words:
            package.own["schedule"] = words
        return {"cadence": Cadence.CRON.value, "cron": cron}

    def _list_of(self, key: str, where: str, node: yaml.Node, values: dict[str, Any], package: _Package) -> None:
        items = list(self._items(node))
        if key == "tags":
            self._tags(where, items, values, package)
            return
        known, what = (TOPICS, "The topics") if key == "topics" else (ISSUES, "The civic issues")
        found = [self._choice(where, item, words, known, what) for item in items if (words := self._words(item))]
        if chosen := list(dict.fromkeys(filter(None, found))):
            values[key] = chosen

    def _tags(self, where: str, items: Sequence[yaml.Node], values: dict[str, Any], package: _Package) -> None:
        names: list[str] = []
        for item in items:
            if isinstance(item, yaml.MappingNode):
                said = self._settings(item, where, TAG_KEYS, "name: and the tag", what="The keys of a tag")
                name = self._words(said["name"][1]) if "name" in said else ""
                if "vocabulary_id" in said and (vocabulary := self._words(said["vocabulary_id"][1])):
                    package.own.setdefault("vocabularies", {})[name] = vocabulary
            else:
                name = self._words(item)
            if name and name not in names:
                names.append(name)
        joined = ", ".join(names)
        if not names:
            return
        if len(joined) <= Dataset._meta.get_field("tags").max_length and not any("," in name for name in names):
            values["tags"] = joined
        else:
            # the list itself is what the portal is told; the words for people's searches are as many as there is room for
            values["tags"] = ", ".join(name.replace(",", "") for name in names)[:1000].rpartition(",")[0]
            values.setdefault("portal_fields", {})["tags"] = names

    # its resources

    def _resources(self, package: _Package, node: yaml.Node) -> None:
        where = f"{package.name}.resources"
        found = self._pairs(node, where, "the resources, each under its name", all_at=True)
        if not found:
            self._warn(node, where, "The package has no resource, so nothing fills it.", "Write one under resources, or leave it for later.")
        for name, (at, body) in found.items():
            if isinstance(body, yaml.MappingNode):
                _Resource(self, package, name, at, is_only=len(found) == 1).read(body)
            else:
                message = f"{'Nothing' if is_null(body) else kind_of(body)} stands where the resource {name} is to be described."
                self._problem(at, f"{where}.{name}", message, "Write its format, url and attributes.")

    # values

    def _words(self, node: yaml.Node) -> str:
        """The text, without spaces at its ends; "" for nothing. A list of words is taken with commas. Raises Unreadable."""
        if isinstance(node, yaml.SequenceNode):
            self._count(len(node.value))
            return ", ".join(filter(None, (self._words(item) for item in node.value)))
        return _whole(node).strip()

    def _items(self, node: yaml.Node) -> Iterator[yaml.Node]:
        """The items of a list; a single value is a list of it, and nothing one of none. Raises Unreadable."""
        if isinstance(node, yaml.SequenceNode):
            self._count(len(node.value))
            yield from (item for item in node.value if not is_null(item))
        elif not is_null(node):
            yield node

    def _truth(self, where: str, node: yaml.Node) -> bool:
        words = self._words(node).lower()
        if not words:
            return False
        if words not in TRUTHS:
            self._problem(node, where, f"{words!r} is neither true nor false.", "Write true or false.")
        return TRUTHS.get(words, False)

    # mappings

    def _settings(self, node: yaml.Node, where: str, known: Sequence[str], wanted: str, *, what: str) -> dict[str, _Pair]:
        """The pairs of a mapping whose keys are known; another is a problem that names the nearest."""
        found: dict[str, _Pair] = {}
        for key, pair in self._pairs(node, where, wanted).items():
            meant = MISSPELT.get(key, key)
            if meant not in known:
                self._problem(pair[0], f"{where}.{key}", f"{key!r} is not known here.", suggestion(key, known, what=what))
            elif meant != key and meant not in found:
                self._warn(pair[0], f"{where}.{key}", f"{key!r} is read as {meant}.", f"Did you mean {meant}?")
                found[meant] = pair
            elif meant == key:
                found[key] = pair
        return found

    def _pairs(self, node: yaml.Node, where: str, wanted: str, *, all_at: bool = False) -> dict[str, _Pair]:
        """{key: its node, its value's} of a mapping, in order, with what `<<` brings into it. A key that comes twice is a problem.

        `all_at`: the keys are names that people read, and lose the spaces at their ends.
        """
        if is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, where, f"{kind_of(node)} stands where a mapping is wanted: {wanted}.", "Begin each with its name and a colon.")
            return {}
        self._count(len(node.value))
        found: dict[str, _Pair] = {}
        merged: dict[str, _Pair] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self._pairs(one, where, wanted, all_at=all_at), **merged}
                continue
            with self._told(where):
                refuse_tag(value)
                name = _whole(key).strip() if all_at else _whole(key)
                path = f"{where}.{name}" if where else name
                if not name:
                    self._problem(key, where, "A name is missing before the colon.", "Write it there.")
                elif name in found:
                    first = found[name]
                    message = f"{name!r} stands here twice; first on line {line_of(first[0])}."
                    self._weigh(first[1])
                    if _same(first[1], value):
                        self._warn(key, path, message, "Take one of the two out; they say the same.")
                    else:
                        self._problem(key, path, message, "Keep one of the two.")
                else:
                    found[name] = (key, value)
        return {**merged, **found} if merged else found

    def _deeper(self, node: yaml.Node) -> Any:
        """What nobody here reads, as JSON. Raises Unreadable."""
        self._weigh(node)
        return deeper(node)

    def _weigh(self, node: yaml.Node) -> None:
        """Count all that a value unfolds into."""
        if isinstance(node, yaml.CollectionNode):
            self._count(len(node.value))
            for item in node.value:
                for one in item if isinstance(item, tuple) else (item,):
                    self._weigh(one)

    def _count(self, values: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            raise _TooMuch

    # problems

    def _told(self, where: str) -> _Told:
        """What can't be read within is a problem there."""
        return _Told(self, where)

    def _problem(self, node: yaml.Node, path: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(self.path, line_of(node), path, message, next_step))

    def _warn(self, node: yaml.Node, path: str, message: str, next_step: str) -> None:
        self.warnings.append(Problem(self.path, line_of(node), path, message, next_step))


class _TooMuch(Exception):
    """The file unfolds into more values than anybody can have written."""


class _Told:
    """A value that can't be read within is a problem, and what follows it is read."""

    def __init__(self, reader: _Reader, where: str):
        self.reader, self.where = reader, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> bool:
        if isinstance(error, Unreadable):
            self.reader._problem(error.node, self.where, error.message, error.next_step)
            return True
        return False


class _Resource:
    """A resource of a package on its way to a pipeline."""

    def __init__(self, reader: _Reader, package: _Package, name: str, at: yaml.Node, *, is_only: bool):
        self.reader, self.package, self.name, self.at, self.is_only = reader, package, name, at, is_only
        self.where = f"{package.name}.resources.{name}"
        self.lines: dict[str, int] = {}
        self.own: dict[str, Any] = {}

    def read(self, body: yaml.Node) -> None:
        reader, package = self.reader, self.package
        said = reader._settings(body, self.where, RESOURCE_KEYS, f"the settings of the resource {self.name}", what="The keys of a resource")
        for key in RESOURCE_NEEDED:
            if key not in said:
                next_step = f"Write {key}: and its value under {self.name}."
                reader._problem(self.at, f"{self.where}.{key}", f"The resource does not say its {key}.", next_step)
        self.lines = {key: line_of(at) for key, (at, _) in said.items()}
        values: dict[str, Any] = {}
        for key in LEGACY:
            if key in said:
                with reader._told(f"{self.where}.{key}"):
                    self.own[key] = reader._deeper(said[key][1])
        options = self._options(said)
        columns, sources = self._attributes(said, options)
        key = self._key(said, options, columns, sources)
        published = options.get("published_format", "csv")
        is_layer = self._is("agol", said)
        address = self._address(said)
        if address is None:
            return
        part = plain.short(self.name, 200, of=self.name)
        package.parts[part] = columns
        if package.own or self.own:
            options["own"] = {**package.own, **self.own}
        provider, path = self._provider(address, said, is_layer=is_layer)
        values = {
            "provider": provider,
            "dataset": package.slug,
            "part": part,
            "resource": path,
            "format": "geojson" if is_layer else published,
            **package.cadence,
            "key": key,
            "load_mode": (LoadMode.UPSERT if key else LoadMode.REPLACE).value,
            "portal_mode": (PortalMode.UPSERT if key else PortalMode.REPLACE).value,
            "portal_resource": f"{package.slug}/{self.name}",
            "options": {**dict.fromkeys(OPTIONS), **options},
        }
        first = {
            "title": f"{package.title}: {self.name}"[:200] if not self.is_only else package.title[:200],
            "portal": PORTAL,
            "stages": [stage.value for stage in (Stage.EXTRACT, Stage.STANDARDIZE, Stage.LOAD, Stage.PUBLISH)],
            "time_zone": ZONE,
            "options": {"epoch_zone": ZONE},
        }
        lines = {ours: self.lines[theirs] for theirs, ours in _PIPELINE_LINES.items() if theirs in self.lines}
        if "schedule" in package.lines:
            lines |= dict.fromkeys(("cadence", "cron"), package.lines["schedule"])
        wish = package.slug if self.is_only else f"{package.slug}-{_slugged(self.name) or plain.short('part', 13, of=self.name, is_cut=True)}"
        reader.wanted.append(
            Wanted(
                PIPELINE, plain.short(wish, Pipeline._meta.get_field("slug").max_length, of=f"{package.slug}/{self.name}"), values, reader.path,
                line_of(self.at), lines, first=first, keeps_parameters=True, known_by={"dataset__slug": package.slug, "part": part},
                # one that was made here may be called otherwise, and fill the same table there
                else_by={"dataset__slug": package.slug, "portal_resource": values["portal_resource"]},
            )
        )  # fmt: skip

    # what is read, and how

    def _is(self, key: str, said: Mapping[str, _Pair]) -> bool:
        if key not in said:
            return False
        with self.reader._told(f"{self.where}.{key}"):
            return self.reader._truth(f"{self.where}.{key}", said[key][1])
        return False

    def _text(self, key: str, said: Mapping[str, _Pair]) -> str:
        """The words of a key, "" where they are not there or can't be read; of the latter a problem tells."""
        if key not in said:
            return ""
        with self.reader._told(f"{self.where}.{key}"):
            return self.reader._words(said[key][1])
        return ""

    def _options(self, said: Mapping[str, _Pair]) -> dict[str, Any]:
        """What the formats want to know, without the attributes."""
        reader, options = self.reader, {}
        if "format" in said:
            node = said["format"][1]
            options["published_format"] = reader._choice(f"{self.where}.format", node, self._text("format", said), FORMATS, "The formats")
        for theirs, ours in (("encoding", "encoding"), ("jsonpath", "jsonpath"), ("custom_reader", "custom_reader"), ("query_params", "where")):
            if words := self._text(theirs, said):
                options[ours] = words
        # a sheet is found by its name, and a name may end in a space
        if "sheet" in said and not is_null(said["sheet"][1]):
            with reader._told(f"{self.where}.sheet"):
                options["sheet"] = _whole(said["sheet"][1])
        for name in ("is_geojson", "multi", "multi_insert_date"):
            if self._is(name, said):
                options[name] = True
        self._judge(said, options)
        return options

    def _judge(self, said: Mapping[str, _Pair], options: Mapping[str, Any]) -> None:
        reader = self.reader
        if encoding := options.get("encoding"):
            try:
                codecs.lookup(encoding)
            except (LookupError, ValueError):
                known = ["utf-8", "utf-8-sig", "latin1", "cp1252", "utf-16"]
                reader._problem(
                    said["encoding"][1], f"{self.where}.encoding", f"{encoding!r} is no encoding.", suggestion(encoding, known, what="Some encodings")
                )
        if (path := options.get("jsonpath")) and not _JSONPATH.fullmatch(path):
            hint = "Write names with points between them, and a number for the place in a list: $.result.0.rows"
            reader._problem(said["jsonpath"][1], f"{self.where}.jsonpath", f"{path!r} is no path that can be followed.", hint)
        if name := options.get("custom_reader"):
            self._judge_reader(said["custom_reader"][1], name)
        if options.get("published_format") == "xlsx" and "sheet" not in options and "custom_reader" not in options:
            reader._warn(self.at, f"{self.where}.sheet", "It does not say which sheet to read; the first one is.", "Write sheet: and its name.")

    def _judge_reader(self, node: yaml.Node, name: str) -> None:
        place = f"{self.where}.custom_reader"
        if not _READER_NAME.fullmatch(name):
            self.reader._problem(node, place, f"{name!r} is no name of a reader.", "Write the reader's name, like dinesafe.")
            return
        try:
            custom.find(name)
        except SetupError as error:
            # the rest can be imported, and the reader may be written later
            self.reader._warn(node, place, f"There is no custom reader {name!r} here.", error.next_step)

    # the dictionary

    def _attributes(self, said: Mapping[str, _Pair], options: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """({column: its words}, {source: column}); the attributes themselves go into `options`."""
        reader = self.reader
        columns: dict[str, dict[str, Any]] = {}
        sources: dict[str, str] = {}
        attributes: list[dict[str, Any]] = []
        kept: dict[str, dict[str, Any]] = {}
        node = said["attributes"][1] if "attributes" in said else None
        if node is None:
            return columns, sources
        where = f"{self.where}.attributes"
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            said_there = "Nothing" if is_null(node) or isinstance(node, yaml.SequenceNode) else kind_of(node)
            reader._problem(node, where, f"{said_there} stands where a list of attributes is wanted.", "Begin each with a dash, like - id: Ward.")
            return columns, sources
        seen: dict[str, tuple[str, int]] = {}
        for number, item in enumerate(reader._items(node), start=1):
            place = f"{where}.{number}"
            with reader._told(place):
                if (read := self._attribute(place, item)) is None:
                    continue
                source, name, words, attribute, left = read
                if name in seen and seen[name][0] == source:
                    message = f"{name!r} stands here twice; first on line {seen[name][1]}. The first counts."
                    reader._warn(item, place, message, "Take one of the two out.")
                    continue
                name = _free(name, columns)
                seen.setdefault(name, (source, line_of(item)))
                columns[name] = words
                sources.setdefault(source, name)
                attributes.append({"source": source, "name": name, **attribute})
                if left:
                    kept[name] = left
        options["attributes"] = attributes
        if kept:
            self.own["attributes"] = kept
        return columns, sources

    def _attribute(self, place: str, item: yaml.Node) -> tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]] | None:
        """(name at the source, name of the column, words of the dictionary, type and format, what only the way back wants). Raises Unreadable."""
        reader = self.reader
        said = reader._settings(item, place, ATTRIBUTE_KEYS, "the settings of an attribute", what="The keys of an attribute")
        # a name may begin or end with a space at the source
        names = {key: _whole(said[key][1]) for key in ("id", "source_name", "target_name") if key in said and not is_null(said[key][1])}
        source = names.get("source_name") or names.get("id") or names.get("target_name") or ""
        wanted = names.get("target_name") or names.get("id") or names.get("source_name") or ""
        name = column_name(wanted)
        if not name or not source:
            reader._problem(item, place, "The attribute has no name.", "Write id: and the name, or source_name: and target_name:.")
            return None
        if name != fitting(wanted.strip().strip("\ufeff").strip()).strip():
            reader._warn(item, place, f"No CKAN takes {wanted!r} as a name; the column is called {name}.", "Write target_name: and another name.")
        kind = reader._words(said["type"][1]) if "type" in said else ""
        kind = reader._choice(f"{place}.type", said["type"][1] if "type" in said else item, kind, TYPES, "The types") or "text"
        left: dict[str, Any] = {key: reader._deeper(said[key][1]) for key in LEGACY if key in said}
        attribute: dict[str, Any] = {"type": kind}
        words = reader._words(said["format"][1]) if "format" in said else ""
        if kind in TIMES:
            attribute["format"] = words
            if why := dates.why_no_format(words):
                message = f"The attribute is a {kind}, and {why}."
                next_step = 'Write format: "%Y-%m-%d", as its values are, or epoch.'
                reader._problem(said["format"][1] if "format" in said else item, f"{place}.format", message, next_step)
        elif words:
            left["format"] = words
        dictionary: dict[str, Any] = {"type": TYPES[kind], "portal_type": kind}
        if "info" in said:
            info = reader._settings(said["info"][1], f"{place}.info", INFO_KEYS, "notes: and what the column means", what="The keys of info")
            for key, ours in (("notes", "description"), ("label", "label")):
                if key in info and (words := reader._words(info[key][1])):
                    dictionary[ours] = words
            if "type_override" in info:
                left["type_override"] = reader._deeper(info["type_override"][1])
        return source, name, dictionary, attribute, left

    def _key(
        self, said: Mapping[str, _Pair], options: Mapping[str, Any], columns: Mapping[str, Any], sources: Mapping[str, str]
    ) -> list[str]:
        """The columns that name a row, where its rows are inserted and updated."""
        if "datastore_upsert" not in said or is_null(said["datastore_upsert"][1]):
            return []
        reader, where, node = self.reader, f"{self.where}.datastore_upsert", said["datastore_upsert"][1]
        if isinstance(node, yaml.MappingNode):
            inner = reader._settings(node, where, ("primary_key",), "primary_key: and the column", what="Its keys")
            where = f"{where}.primary_key"
            node = inner["primary_key"][1] if "primary_key" in inner else None
        found: list[str] = []
        before = len(reader.problems)
        with reader._told(where):
            for item in reader._items(node) if node is not None else ():
                words = _whole(item).strip()
                # a name may hold a comma itself
                for name in [words] if _column_of(words, columns, sources) else [one.strip() for one in words.split(",") if one.strip()]:
                    if column := _column_of(name, columns, sources):
                        found.append(column)
                    else:
                        reader._problem(item, where, f"{name!r} is not among the attributes.", suggestion(name, columns, what="They are"))
            if not found and len(reader.problems) == before:
                reader._problem(self.at, where, "It does not say by which columns a row is known.", "Write primary_key: and the column.")
        return list(dict.fromkeys(found))

    # where it comes from

    def _address(self, said: Mapping[str, _Pair]) -> SplitResult | None:
        if "url" not in said:
            return None
        node, url = said["url"][1], self._text("url", said)
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            self.reader._problem(node, f"{self.where}.url", "This is no address of the web.", "Write it whole, like https://opendata.example.gov/file.csv.")
            return None
        if parts.username or parts.password:
            message = "The address holds a name or a password, which everybody could read."
            self.reader._problem(node, f"{self.where}.url", message, "Write it without them, and send them in a header: custom_headers.")
            return None
        return parts

    def _provider(self, address: SplitResult, said: Mapping[str, _Pair], *, is_layer: bool) -> tuple[str, str]:
        """(slug, path there); the provider joins what is wanted."""
        place = address.netloc.lower()
        slug = as_slug(place)
        if is_layer and "arcgis" not in place:
            slug = plain.short(f"{slug}-arcgis", 80, of=slug)
        elif not is_layer and "arcgis" in place:
            slug = plain.short(f"{slug}-files", 80, of=slug)
        if address.scheme == "http":
            slug = plain.short(f"{slug}-http", 80, of=slug)
        path = address.path
        if is_layer:
            path = path.rstrip("/").removesuffix("/query").rstrip("/")
        path = f"{path or '/'}?{address.query}" if address.query else path or "/"
        values: dict[str, Any] = {"kind": "arcgis" if is_layer else "web_file", "base_url": f"{address.scheme}://{place}"}
        first: dict[str, Any] = {"title": place}
        headers = self._headers(said)
        if headers and is_layer:
            message = "A layer is asked without headers of one's own; they are left out."
            self.reader._warn(said["custom_headers"][0], f"{self.where}.custom_headers", message, "Enter a token at the provider, if it wants one.")
        elif headers:
            # who sends other headers is another account at the same host
            names = sorted((name, word if _SECRET_NAME.fullmatch(word) else KEEP) for name, word in headers.items())
            slug = plain.short(slug, 80, of=repr(names), is_cut=True) if len(slug) > 71 else f"{slug}-{plain.fingerprint(repr(names))}"
            first["title"] = f"{place} ({', '.join(headers)})"[:200]
            values["parameters"] = {f"header_{number}": name for number, name in enumerate(headers, start=1)}
            literal, named = {}, {}
            for number, word in enumerate(headers.values(), start=1):
                if word != KEEP and not _SECRET_NAME.fullmatch(word):
                    literal[f"header_{number}_value"] = word
                else:
                    named[f"header_{number}_value"] = KEEP if word == KEEP else f"env:{word}"
            if literal:
                values["secrets"] = literal
            if named:
                # what a person entered since in the place of the name stays
                first["secrets"] = named
                self.reader.notes += [
                    f"Provider {slug}: the header {list(headers)[int(name.split('_')[1]) - 1]} is read from the variable {word.removeprefix('env:')} "
                    "of the environment. If that word is the header's value itself, enter it in the admin."
                    for name, word in named.items()
                    if word != KEEP
                ]
        line = self.lines.get("url", line_of(self.at))
        # who sends headers is no one else's account
        else_by = {} if "parameters" in values else {"kind": values["kind"], "base_url": values["base_url"], "parameters__header_1__isnull": True}
        self.reader.wanted.append(
            Wanted(
                PROVIDER, slug, values, self.reader.path, line, dict.fromkeys(("base_url", "kind", "parameters", "secrets"), line),
                first=first, keeps_parameters=True, is_shared=True, else_by=else_by,
            )
        )  # fmt: skip
        return slug, path

    def _headers(self, said: Mapping[str, _Pair]) -> dict[str, str]:
        if "custom_headers" not in said:
            return {}
        reader, where = self.reader, f"{self.where}.custom_headers"
        headers: dict[str, str] = {}
        with reader._told(where):
            for name, (_, node) in reader._pairs(said["custom_headers"][1], where, "headers, each with the name of its secret").items():
                if words := reader._words(node):
                    # a variable of the environment has no dashes
                    headers[name] = words.replace("-", "_") if _SECRET_NAME.fullmatch(words) else words
        if len(headers) > HEADERS:
            message = f"More than {HEADERS} headers can't be sent."
            reader._problem(said["custom_headers"][0], where, message, "Leave out those that nobody asks for.")
            return {}
        return headers


#: What of a dataset is told to the portal as it stands where it is none of ours → the setting that it would be.
_IN_ITS_PLACE = {"owner_email": "steward_email", "date_published": "published_on", "tags": "tags"}
#: Their key of a value → ours, for its line.
_DATASET_LINES = {
    **WORDS,
    "dataset_category": "category",
    "refresh_rate": "refresh_rate",
    "civic_issues": "civic_issues",
    "topics": "topics",
    "tags": "tags",
    "date_published": "published_on",
    "owner_email": "steward_email",
    "dag_owner_email": "engineer_email",
    ISSUE: "portal_fields",
    "resources": "parts",
}
_PIPELINE_LINES = {"url": "resource", "format": "format", "datastore_upsert": "key", "attributes": "options"}


def _whole(node: yaml.Node) -> str:
    """The text as it stands, a letter beyond the first 65,536 also where it is written as its two halves. Raises Unreadable."""
    if isinstance(node, yaml.ScalarNode) and any("\ud800" <= letter <= "\udbff" for letter in node.value):
        try:
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            pass  # half of a pair, of which text_of tells
    return text_of(node)


def _same(one: yaml.Node, other: yaml.Node) -> bool:
    """Whether two values say the same."""
    if type(one) is not type(other) or one.tag != other.tag:
        return False
    if isinstance(one, yaml.MappingNode):
        return len(one.value) == len(other.value) and all(
            _same(a, c) and _same(b, d) for (a, b), (c, d) in zip(one.value, other.value, strict=True)
        )
    if isinstance(one, yaml.SequenceNode):
        return len(one.value) == len(other.value) and all(map(_same, one.value, other.value))
    return one.value == other.value


def _slugged(words: str) -> str:
    """ "Green P / Parking" → "green-p-parking", however long."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, or where another column has it after it was cut, the name with a number at its end."""
    number, free = 1, name
    while free in taken:
        number += 1
        end = f"_{number}"
        free = name.encode()[: LONGEST_NAME - len(end)].decode(errors="ignore") + end
    return free


def _column_of(name: str, columns: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """The column that is meant by a name, its own or that at the source; "" for none."""
    name = name.strip()
    if column_name(name) in columns:
        return column_name(name)
    return sources.get(name, "")


def _moment(words: str) -> datetime | None:
    """The UTC instant of a date as their files have it: with a time or without, no zone meaning UTC. None for what is none."""
    read: list[Callable[[str], datetime]] = [datetime.fromisoformat]
    forms = ("%Y/%m/%d", "%m/%d/%Y", "%B %d, %Y", "%b %d, %Y", "%Y-%m")
    read += [lambda text, form=form: datetime.strptime(text, form).replace(tzinfo=UTC) for form in forms]
    for one in read:
        try:
            moment = one(words)
        except ValueError:
            continue
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _is_email(words: str) -> bool:
    try:
        validate_email(words)
    except ValidationError:
        return False
    return len(words) <= 254


def cron_of(words: str) -> str | None:
    """The expression as the clock here takes it; None for one that never comes. Airflow also takes `?`, and spans that go round."""
    if (preset := words.lower()) in PRESETS:
        return PRESETS[preset]
    fields = words.split()
    if len(fields) != 5:
        return None
    for expression in (" ".join(fields), " ".join(map(_around, fields, _CRON_RANGES))):
        try:
            clock.validate_cron(expression)
        except ValidationError:
            continue
        return expression
    return None


def _around(words: str, span: tuple[int, int]) -> str:
    """A field of a cron expression: `?` is `*`, and a span that goes round (22-2) is two."""
    first, last = span
    parts = []
    for part in words.replace("?", "*").strip(",").split(","):
        found = re.fullmatch(r"(\w+)-(\w+)", part)
        begin, end = (_WEEKDAYS.index(one.lower()) if one.lower() in _WEEKDAYS else one for one in found.groups()) if found else ("", "")
        if str(begin).isdigit() and str(end).isdigit() and int(begin) > int(end):
            parts += [f"{begin}-{last}", f"{first}-{end}"]
        else:
            parts.append(part)
    return ",".join(parts)
