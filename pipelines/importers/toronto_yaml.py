"""Dataset files of Toronto's open-data `operations` (`files_to_datastore`): a package with its resources. Each resource becomes a pipeline
from its address through standardize and load to a CKAN portal (a provider `ckan`; another with --portal), with its dictionary.

What such a file leaves empty (`null`, `''`) it does not say: words that a person entered here stay. What it says counts, whatever
was entered here. Which portal, when it was paused and how a pipeline is called the file does not know, and leaves alone.

A resource is known by its package and its name, so a file may list its resources in another order, and one that gets a second
resource changes the first one's pipeline and makes no twin of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from catalog.models import Dataset, RefreshRate
from pipelines.importers import plain
from pipelines.importers.plan import DATASET, PROVIDER, Plan, Wanted, suggestion
from pipelines.importers.toronto_nodes import Reading, TooMuch
from pipelines.importers.toronto_resource import Package, Resource
from pipelines.importers.toronto_words import (
    CATEGORIES,
    EXPECTED,
    ISSUE,
    ISSUE_URL,
    ISSUES,
    LISTS,
    NEEDED,
    NEVER,
    ONCE,
    PACKAGE_KEYS,
    PORTAL,
    PRESETS,
    RATES,
    SLUG,
    TAG_KEYS,
    TOPICS,
    WORDS,
    cron_of,
    is_email,
    moment_of,
    slugged,
)
from pipelines.importers.yaml_nodes import compose, is_null, kind_of, line_of
from pipelines.models import Cadence

NAME = "Toronto's dataset YAML"

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
_KEYS_AT_LINE_STARTS = re.compile(rf"^[ ]+['\"]?({'|'.join(key for key in PACKAGE_KEYS)})['\"]?[ ]*:", re.MULTILINE)
_AT_THE_EDGE = re.compile(r"^(?!#|---|\.\.\.|%)\S.*?:(?:\s|$)", re.MULTILINE)


def recognises(path: str, text: str) -> bool:
    """Whether a mapping at the left edge holds at least three of a package's keys, and no pipelines of ours."""
    return bool(_AT_THE_EDGE.search(text)) and len(set(_KEYS_AT_LINE_STARTS.findall(text))) >= 3


def read_all(files: Iterable[tuple[str, str]]) -> Plan:
    """What several files want together; see `read`.

    Of files that name one package that one counts whose own name it is: a copy whose package was not renamed keeps nothing out.
    """
    plans = {path: read(path, text) for path, text in files}
    described: dict[str, list[str]] = {}
    for path, plan in plans.items():
        for slug in {wanted.slug for wanted in plan.wanted if wanted.kind == DATASET}:
            described.setdefault(slug, []).append(path)
    for slug, paths in described.items():
        named = [path for path in paths if _stem(path) == slug]
        for path in paths if len(named) == 1 else ():
            if path != named[0]:
                plans[path] = _without(plans[path], slug, named[0])
    return Plan(
        tuple(wanted for plan in plans.values() for wanted in plan.wanted),
        tuple(problem for plan in plans.values() for problem in plan.problems),
        tuple(note for plan in plans.values() for note in plan.notes),
        warnings=tuple(warning for plan in plans.values() for warning in plan.warnings),
    )


def _without(plan: Plan, slug: str, other: str) -> Plan:
    """A plan without a package that another file describes."""
    dataset = next(wanted for wanted in plan.wanted if wanted.kind == DATASET and wanted.slug == slug)
    message = f"The package {slug} is described in {other} too, which bears its name; here it is left out."
    warning = dataset.problem("", message, "Give one of the two another name.")
    kept = [wanted for wanted in plan.wanted if wanted is not dataset and wanted.values.get("dataset") != slug]
    return replace(plan, wanted=tuple(kept), warnings=(*plan.warnings, warning))


def read(path: str, text: str) -> Plan:
    """The datasets, providers and pipelines that the file wants. All that is wrong with it is in `problems` and `warnings`; nothing is raised."""
    return _Reader(path).read(text)


def _stem(path: str) -> str:
    """The name of a file without its ending."""
    return PurePosixPath(path.replace("\\", "/")).stem


class _Reader(Reading):
    def __init__(self, path: str):
        super().__init__(path)
        self.notes: list[str] = []
        self.wanted: list[Wanted] = []

    def read(self, text: str) -> Plan:
        root, problem = compose(self.path, text, yaml.SafeLoader)
        if problem:
            return Plan(problems=(problem,))
        try:
            packages = self.pairs(root, "", "the package's name, and under it what it is")
            for name, (at, body) in packages.items():
                self._package(name, at, body, is_alone=len(packages) == 1)
        except (TooMuch, RecursionError):
            self.problem(root, "", "The file unfolds into more values than anybody can have written.", "Write its anchors (& and *) out.")
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
        said = self.settings(body, name, PACKAGE_KEYS, f"the settings of the package {name}", what="The keys of a package")
        package = Package(name, self._slug(name, at), line_of(at))
        self._compare_with_file(name, at, is_alone=is_alone)
        for key in NEEDED:
            if key not in said:
                self.problem(at, f"{name}.{key}", f"The package does not say its {key}.", f"Write {key}: and its value under {name}.")
        for key in EXPECTED:
            if key not in said:
                what = "It then runs only by hand." if key == "schedule" else "It is left empty."
                self.warn(at, f"{name}.{key}", f"The package does not say its {key}. {what}", f"Write {key}: and its value under {name}.")
        values: dict[str, Any] = {}
        for key, (key_node, node) in said.items():
            where = f"{name}.{key}"
            package.lines[key] = line_of(key_node)
            with self.telling(where):
                if key in WORDS:
                    if words := self.words(node):
                        values[WORDS[key]] = words
                elif key == "schedule":
                    package.cadence = self._schedule(where, node, package)
                elif key in LISTS:
                    self._list_of(key, where, node, values, package)
                elif key != "resources":
                    self._one(key, where, node, values, package)
        if "title" in said and not values.get("title"):
            self.problem(said["title"][1], f"{name}.title", "The title is empty.", "Write what people are to read.")
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
        slug = plain.short(slugged(name) or "package", 100, of=name, is_cut=not slugged(name))
        self.warn(at, name, f"{name!r} is no name that a portal takes; the package is called {slug}.", "Use small letters, digits and dashes.")
        return slug

    def _compare_with_file(self, name: str, at: yaml.Node, *, is_alone: bool) -> None:
        if is_alone and self.path.lower().endswith((".yaml", ".yml")) and _stem(self.path) != name:
            self.warn(at, name, f"The file is called {_stem(self.path)} and the package in it {name}; the package's name counts.", "Rename the file.")

    def _one(self, key: str, where: str, node: yaml.Node, values: dict[str, Any], package: Package) -> None:
        """A key with one value that needs more than its words."""
        words = self.words(node)
        if key == "dataset_category":
            values["category"] = self.choice(where, node, words, CATEGORIES, "The categories")
        elif key == "refresh_rate":
            values["refresh_rate"] = str(RATES.get(self.choice(where, node, words, RATES, "The refresh rates"), RefreshRate.IRREGULAR))
        elif not words:
            return
        elif key == "date_published":
            if (moment := moment_of(words)) is not None:
                values["published_on"] = moment
            else:
                self.warn(node, where, f"{words!r} is no date; the portal is told it as it stands.", "Write it like 2019-07-23 16:49:22.")
                values.setdefault("portal_fields", {})["date_published"] = words
        elif key == "owner_email":
            if is_email(words):
                values["steward_email"] = words
            else:
                self.warn(node, where, f"{words!r} is no e-mail address; the portal is told it as it stands.", "Write one address.")
                values.setdefault("portal_fields", {})["owner_email"] = words
        elif key == "dag_owner_email":
            if is_email(words):
                values["engineer_email"] = words
            else:
                self.warn(node, where, f"{words!r} is no e-mail address; nobody is written to.", "Write one address.")
                package.own[key] = words
        elif key == ISSUE:
            values.setdefault("portal_fields", {})[ISSUE] = words
        elif key == ISSUE_URL:
            package.own[ISSUE_URL] = words

    def _schedule(self, where: str, node: yaml.Node, package: Package) -> Mapping[str, Any]:
        words = re.sub(r"\s+", " ", self.words(node))
        if words.lower() == ONCE:
            return {"cadence": Cadence.ONCE.value, "cron": ""}
        if words.lower() in NEVER:
            return {"cadence": Cadence.MANUAL.value, "cron": ""}
        cron = cron_of(words)
        if cron is None:
            next_step = "Write minute, hour, day, month and weekday, like '20 7 * * 4', or '@once'."
            if words.startswith("@"):
                next_step = suggestion(words, [*PRESETS, ONCE], what="The words for a schedule")
            self.problem(node, where, f"{words!r} is no time that comes.", next_step)
            return {}
        if cron != words:
            package.own["schedule"] = words
        return {"cadence": Cadence.CRON.value, "cron": cron}

    def _list_of(self, key: str, where: str, node: yaml.Node, values: dict[str, Any], package: Package) -> None:
        items = list(self.items(node))
        if key == "tags":
            self._tags(where, items, values, package)
            return
        known, what = (TOPICS, "The topics") if key == "topics" else (ISSUES, "The civic issues")
        found = [self.choice(where, item, words, known, what) for item in items if (words := self.words(item))]
        if chosen := list(dict.fromkeys(filter(None, found))):
            values[key] = chosen

    def _tags(self, where: str, items: Sequence[yaml.Node], values: dict[str, Any], package: Package) -> None:
        names: list[str] = []
        for item in items:
            if isinstance(item, yaml.MappingNode):
                said = self.settings(item, where, TAG_KEYS, "name: and the tag", what="The keys of a tag")
                name = self.words(said["name"][1]) if "name" in said else ""
                if "vocabulary_id" in said and (vocabulary := self.words(said["vocabulary_id"][1])):
                    package.own.setdefault("vocabularies", {})[name] = vocabulary
            else:
                name = self.words(item)
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

    def _resources(self, package: Package, node: yaml.Node) -> None:
        where = f"{package.name}.resources"
        found = self.pairs(node, where, "the resources, each under its name", all_at=True)
        if not found:
            self.warn(node, where, "The package has no resource, so nothing fills it.", "Write one under resources, or leave it for later.")
        for name, (at, body) in found.items():
            if isinstance(body, yaml.MappingNode):
                resource = Resource(self, package, name, at, is_only=len(found) == 1)
                resource.read(body)
                self.notes += resource.notes
                self.wanted += resource.wanted
            else:
                message = f"{'Nothing' if is_null(body) else kind_of(body)} stands where the resource {name} is to be described."
                self.problem(at, f"{where}.{name}", message, "Write its format, url and attributes.")
