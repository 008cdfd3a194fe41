"""A resource of a package of Toronto's: from its keys to a pipeline, with the provider that it comes from and its part of the dictionary."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml

from pipelines.connectors.web_file import HEADERS
from pipelines.errors import SetupError
from pipelines.formats import custom, dates
from pipelines.formats.attributes import TYPES, fitting
from pipelines.importers import plain
from pipelines.importers.plan import KEEP, PIPELINE, PROVIDER, Wanted, suggestion
from pipelines.importers.portals import as_slug
from pipelines.importers.toronto_nodes import Pair, Reading, whole
from pipelines.importers.toronto_words import (
    ATTRIBUTE_KEYS,
    FORMATS,
    INFO_KEYS,
    LEGACY,
    OPTIONS,
    PORTAL,
    RESOURCE_KEYS,
    RESOURCE_NEEDED,
    TIMES,
    ZONE,
    column_name,
    column_of,
    free,
    slugged,
)
from pipelines.importers.yaml_nodes import is_null, kind_of, line_of
from pipelines.models import LoadMode, Pipeline, PortalMode, Stage

#: Their key of a value → ours, for its line.
_PIPELINE_LINES = {"url": "resource", "format": "format", "datastore_upsert": "key", "attributes": "options"}
_READER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A name of a secret is made of words, which a key itself hardly is.
_SECRET_NAME = re.compile(r"_?[A-Za-z]{1,20}(?:[_-](?:[A-Za-z]{1,20}|[0-9]{1,4}))*")
_JSONPATH = re.compile(r"\$(\.[^.\s\[\]]+)*")


@dataclass
class Package:
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


class Resource:
    """A resource of a package on its way to a pipeline: `read` leaves what it wants in `wanted` and `notes`."""

    def __init__(self, reader: Reading, package: Package, name: str, at: yaml.Node, *, is_only: bool):
        self.reader, self.package, self.name, self.at, self.is_only = reader, package, name, at, is_only
        self.where = f"{package.name}.resources.{name}"
        self.lines: dict[str, int] = {}
        self.own: dict[str, Any] = {}
        self.notes: list[str] = []
        self.wanted: list[Wanted] = []

    def read(self, body: yaml.Node) -> None:
        reader, package = self.reader, self.package
        said = reader.settings(body, self.where, RESOURCE_KEYS, f"the settings of the resource {self.name}", what="The keys of a resource")
        for key in RESOURCE_NEEDED:
            if key not in said:
                next_step = f"Write {key}: and its value under {self.name}."
                reader.problem(self.at, f"{self.where}.{key}", f"The resource does not say its {key}.", next_step)
        self.lines = {key: line_of(at) for key, (at, _) in said.items()}
        values: dict[str, Any] = {}
        for key in LEGACY:
            if key in said:
                with reader.telling(f"{self.where}.{key}"):
                    self.own[key] = reader.deeper_of(said[key][1])
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
        wish = package.slug if self.is_only else f"{package.slug}-{slugged(self.name) or plain.short('part', 13, of=self.name, is_cut=True)}"
        self.wanted.append(
            Wanted(
                PIPELINE, plain.short(wish, Pipeline._meta.get_field("slug").max_length, of=f"{package.slug}/{self.name}"), values, reader.path,
                line_of(self.at), lines, first=first, keeps_parameters=True, known_by={"dataset__slug": package.slug, "part": part},
                # one that was made here may be called otherwise, and fill the same table there
                else_by={"dataset__slug": package.slug, "portal_resource": values["portal_resource"]},
            )
        )  # fmt: skip

    # what is read, and how

    def _is(self, key: str, said: Mapping[str, Pair]) -> bool:
        if key not in said:
            return False
        with self.reader.telling(f"{self.where}.{key}"):
            return self.reader.truth(f"{self.where}.{key}", said[key][1])
        return False

    def _text(self, key: str, said: Mapping[str, Pair]) -> str:
        """The words of a key, "" where they are not there or can't be read; of the latter a problem tells."""
        if key not in said:
            return ""
        with self.reader.telling(f"{self.where}.{key}"):
            return self.reader.words(said[key][1])
        return ""

    def _options(self, said: Mapping[str, Pair]) -> dict[str, Any]:
        """What the formats want to know, without the attributes."""
        reader, options = self.reader, {}
        if "format" in said:
            node = said["format"][1]
            options["published_format"] = reader.choice(f"{self.where}.format", node, self._text("format", said), FORMATS, "The formats")
        for theirs, ours in (("encoding", "encoding"), ("jsonpath", "jsonpath"), ("custom_reader", "custom_reader"), ("query_params", "where")):
            if words := self._text(theirs, said):
                options[ours] = words
        # a sheet is found by its name, and a name may end in a space
        if "sheet" in said and not is_null(said["sheet"][1]):
            with reader.telling(f"{self.where}.sheet"):
                options["sheet"] = whole(said["sheet"][1])
        for name in ("is_geojson", "multi", "multi_insert_date"):
            if self._is(name, said):
                options[name] = True
        self._judge(said, options)
        return options

    def _judge(self, said: Mapping[str, Pair], options: Mapping[str, Any]) -> None:
        reader = self.reader
        if encoding := options.get("encoding"):
            try:
                codecs.lookup(encoding)
            except (LookupError, ValueError):
                known = ["utf-8", "utf-8-sig", "latin1", "cp1252", "utf-16"]
                reader.problem(
                    said["encoding"][1], f"{self.where}.encoding", f"{encoding!r} is no encoding.", suggestion(encoding, known, what="Some encodings")
                )
        if (path := options.get("jsonpath")) and not _JSONPATH.fullmatch(path):
            hint = "Write names with points between them, and a number for the place in a list: $.result.0.rows"
            reader.problem(said["jsonpath"][1], f"{self.where}.jsonpath", f"{path!r} is no path that can be followed.", hint)
        if name := options.get("custom_reader"):
            self._judge_reader(said["custom_reader"][1], name)
        if options.get("published_format") == "xlsx" and "sheet" not in options and "custom_reader" not in options:
            reader.warn(self.at, f"{self.where}.sheet", "It does not say which sheet to read; the first one is.", "Write sheet: and its name.")

    def _judge_reader(self, node: yaml.Node, name: str) -> None:
        place = f"{self.where}.custom_reader"
        if not _READER_NAME.fullmatch(name):
            self.reader.problem(node, place, f"{name!r} is no name of a reader.", "Write the reader's name, like dinesafe.")
            return
        try:
            custom.find(name)
        except SetupError as error:
            # the rest can be imported, and the reader may be written later
            self.reader.warn(node, place, f"There is no custom reader {name!r} here.", error.next_step)

    # the dictionary

    def _attributes(self, said: Mapping[str, Pair], options: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
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
            reader.problem(node, where, f"{said_there} stands where a list of attributes is wanted.", "Begin each with a dash, like - id: Ward.")
            return columns, sources
        seen: dict[str, tuple[str, int]] = {}
        for number, item in enumerate(reader.items(node), start=1):
            place = f"{where}.{number}"
            with reader.telling(place):
                if (read := self._attribute(place, item)) is None:
                    continue
                source, name, words, attribute, left = read
                if name in seen and seen[name][0] == source:
                    message = f"{name!r} stands here twice; first on line {seen[name][1]}. The first counts."
                    reader.warn(item, place, message, "Take one of the two out.")
                    continue
                name = free(name, columns)
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
        said = reader.settings(item, place, ATTRIBUTE_KEYS, "the settings of an attribute", what="The keys of an attribute")
        # a name may begin or end with a space at the source
        names = {key: whole(said[key][1]) for key in ("id", "source_name", "target_name") if key in said and not is_null(said[key][1])}
        source = names.get("source_name") or names.get("id") or names.get("target_name") or ""
        wanted = names.get("target_name") or names.get("id") or names.get("source_name") or ""
        name = column_name(wanted)
        if not name or not source:
            reader.problem(item, place, "The attribute has no name.", "Write id: and the name, or source_name: and target_name:.")
            return None
        if name != fitting(wanted.strip().strip("\ufeff").strip()).strip():
            reader.warn(item, place, f"No CKAN takes {wanted!r} as a name; the column is called {name}.", "Write target_name: and another name.")
        kind = reader.words(said["type"][1]) if "type" in said else ""
        kind = reader.choice(f"{place}.type", said["type"][1] if "type" in said else item, kind, TYPES, "The types") or "text"
        left: dict[str, Any] = {key: reader.deeper_of(said[key][1]) for key in LEGACY if key in said}
        attribute: dict[str, Any] = {"type": kind}
        words = reader.words(said["format"][1]) if "format" in said else ""
        if kind in TIMES:
            attribute["format"] = words
            if why := dates.why_no_format(words):
                message = f"The attribute is a {kind}, and {why}."
                next_step = 'Write format: "%Y-%m-%d", as its values are, or epoch.'
                reader.problem(said["format"][1] if "format" in said else item, f"{place}.format", message, next_step)
        elif words:
            left["format"] = words
        dictionary: dict[str, Any] = {"type": TYPES[kind], "portal_type": kind}
        if "info" in said:
            info = reader.settings(said["info"][1], f"{place}.info", INFO_KEYS, "notes: and what the column means", what="The keys of info")
            for key, ours in (("notes", "description"), ("label", "label")):
                if key in info and (words := reader.words(info[key][1])):
                    dictionary[ours] = words
            if "type_override" in info:
                left["type_override"] = reader.deeper_of(info["type_override"][1])
        return source, name, dictionary, attribute, left

    def _key(self, said: Mapping[str, Pair], options: Mapping[str, Any], columns: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
        """The columns that name a row, where its rows are inserted and updated."""
        if "datastore_upsert" not in said or is_null(said["datastore_upsert"][1]):
            return []
        reader, where, node = self.reader, f"{self.where}.datastore_upsert", said["datastore_upsert"][1]
        if isinstance(node, yaml.MappingNode):
            inner = reader.settings(node, where, ("primary_key",), "primary_key: and the column", what="Its keys")
            where = f"{where}.primary_key"
            node = inner["primary_key"][1] if "primary_key" in inner else None
        found: list[str] = []
        before = len(reader.problems)
        with reader.telling(where):
            for item in reader.items(node) if node is not None else ():
                words = whole(item).strip()
                # a name may hold a comma itself
                for name in [words] if column_of(words, columns, sources) else [one.strip() for one in words.split(",") if one.strip()]:
                    if column := column_of(name, columns, sources):
                        found.append(column)
                    else:
                        reader.problem(item, where, f"{name!r} is not among the attributes.", suggestion(name, columns, what="They are"))
            if not found and len(reader.problems) == before:
                reader.problem(self.at, where, "It does not say by which columns a row is known.", "Write primary_key: and the column.")
        return list(dict.fromkeys(found))

    # where it comes from

    def _address(self, said: Mapping[str, Pair]) -> SplitResult | None:
        if "url" not in said:
            return None
        node, url = said["url"][1], self._text("url", said)
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            self.reader.problem(
                node, f"{self.where}.url", "This is no address of the web.", "Write it whole, like https://opendata.example.gov/file.csv."
            )
            return None
        if parts.username or parts.password:
            message = "The address holds a name or a password, which everybody could read."
            self.reader.problem(node, f"{self.where}.url", message, "Write it without them, and send them in a header: custom_headers.")
            return None
        return parts

    def _provider(self, address: SplitResult, said: Mapping[str, Pair], *, is_layer: bool) -> tuple[str, str]:
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
            self.reader.warn(said["custom_headers"][0], f"{self.where}.custom_headers", message, "Enter a token at the provider, if it wants one.")
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
                self.notes += [
                    f"Provider {slug}: the header {list(headers)[int(name.split('_')[1]) - 1]} is read from the variable {word.removeprefix('env:')} "
                    "of the environment. If that word is the header's value itself, enter it in the admin."
                    for name, word in named.items()
                    if word != KEEP
                ]
        line = self.lines.get("url", line_of(self.at))
        # who sends headers is no one else's account
        else_by = {} if "parameters" in values else {"kind": values["kind"], "base_url": values["base_url"], "parameters__header_1__isnull": True}
        self.wanted.append(
            Wanted(
                PROVIDER, slug, values, self.reader.path, line, dict.fromkeys(("base_url", "kind", "parameters", "secrets"), line),
                first=first, keeps_parameters=True, is_shared=True, else_by=else_by,
            )
        )  # fmt: skip
        return slug, path

    def _headers(self, said: Mapping[str, Pair]) -> dict[str, str]:
        if "custom_headers" not in said:
            return {}
        reader, where = self.reader, f"{self.where}.custom_headers"
        headers: dict[str, str] = {}
        with reader.telling(where):
            for name, (_, node) in reader.pairs(said["custom_headers"][1], where, "headers, each with the name of its secret").items():
                if words := reader.words(node):
                    # a variable of the environment has no dashes
                    headers[name] = words.replace("-", "_") if _SECRET_NAME.fullmatch(words) else words
        if len(headers) > HEADERS:
            message = f"More than {HEADERS} headers can't be sent."
            reader.problem(said["custom_headers"][0], where, message, "Leave out those that nobody asks for.")
            return {}
        return headers
