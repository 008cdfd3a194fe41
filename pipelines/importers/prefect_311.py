"""`config.toml` of the Los Angeles 311 loader (hackforla/311-data), in all its versions: one portal, one dataset, and a pipeline
for each yearly dataset, all of them into the one table `data.target`, kept apart by `data.key`.

What decides which years are read changed there, and is seen from the file:
- `mode = "update"` (or "diff"): all datasets, each from the newest `data.recent_column` on;
- `mode = "full"`: only `data.years`, all rows of them; the other years are imported paused;
- no `mode`, as since the end of 2020, or years that are numbers beside one: only `data.years`; the others are paused.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

from pipelines.importers.plan import DATASET, PIPELINE, Plan, Problem, Step, Wanted, suggestion
from pipelines.importers.portals import FOUR_BY_FOUR, LIKE_AN_ID, NOT_AN_ID, Portal, as_slug, as_title, is_near, portal_at

NAME = "311-data config.toml"
#: The real one has 60 lines.
LARGEST = 1 << 20
MOST_DOTS = 200

#: Each key that a version of it had, with what stands there.
KEYS: dict[str, tuple[type, ...]] = {
    "mode": (str,),
    "dask": (bool,),
    "reset_db": (bool,),
    "temp_folder": (str,),
    "api_url": (str,),
    "report_server_url": (str,),
    "stage": (str,),
    "vacuum_db": (bool,),
    "slack_hook": (str,),
    "api.server": (str,),
    "socrata.host": (str,),
    "socrata.domain": (str,),
    "socrata.token": (str,),
    "socrata.datasets": (dict,),
    "data.key": (str, list),
    "data.target": (str,),
    "data.years": (list, str, int),
    "data.since": (str, datetime, date),
    "data.start_datetime": (str, datetime, date),
    "data.recent_column": (str,),
    "data.views": (list, str),
    "data.fields": (dict,),
    "context.secrets.SLACK_HOOK": (str,),
    "context.secrets.DSN": (str,),
}
#: Under these names the file gives names of its own.
FREE = ("socrata.datasets", "data.fields")
#: Prefect's own sections: how it runs and logs, nothing about the data.
PREFECTS = ("backend", "cloud", "context", "debug", "engine", "flows", "home_dir", "logging", "server", "tasks", "user_config_path")
#: What has no counterpart here: the lake is the folder, and nothing asked `api.server`.
NOT_NEEDED = ("temp_folder", "api.server")
HOOK = "PREFECT__CONTEXT__SECRETS__SLACK_HOOK"

_WORDS = {str: "text", bool: "true or false", int: "a number", list: "a list", dict: "a section", datetime: "a time", date: "a day"}
_HEADER = re.compile(r"^[ \t]*\[[ \t]*socrata[ \t]*(?:\.[^\]\n]*)?\]", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_]\w*)\}|(?P<bare>[A-Za-z_]\w*))")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^)]*\)")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|\#[^\n]*|\n|[\[\]{}=.]|[^\s"\'\#\[\]{}=.]+', re.DOTALL
)
#: SQL's names of a type, without length and precision, and ours.
_SQL_TYPES = {
    "number": "bigint bigserial decimal double|double precision float float4 float8 int int2 int4 int8 integer mediumint money numeric real "
    "serial smallint tinyint",
    "text": "char character character|varying citext text time uuid varchar",
    "local_time": "date datetime timestamp timestamp|without|time|zone",
    "instant": "timestamptz timestamp|with|time|zone",
    "boolean": "bool boolean",
    "json": "json jsonb",
    "point": "point",
}
SQL_TYPES = {name.replace("|", " "): kind for kind, names in _SQL_TYPES.items() for name in names.split()} | {"double precision": "number"}


def recognises(path: str, text: str) -> bool:
    """Whether it has the section of a Socrata portal."""
    return bool(_HEADER.search(text)) or (path.lower().endswith(".toml") and "socrata" in text)


def read(path: str, text: str) -> Plan:
    """What the file wants. All that is wrong with it is in `problems`; nothing is raised."""
    return _Reader(path).read(text)


class _Reader:
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.notes: list[str] = []
        self.said: dict[str, Any] = {}
        self.lines: dict[str, int] = {}

    def read(self, text: str) -> Plan:
        tree = self._parse(text)
        if tree is None:
            return self._plan()
        self.lines = lines_of(text)
        self._know(tree)
        portal = self._portal()
        for name in ("api_url", "report_server_url"):
            self._address(name)
        years = self._years()
        shape = self._shape()
        if self.problems or portal is None or shape is None:
            return self._plan()
        return self._plan(self._provider(portal), self._dataset(portal, shape), *self._pipelines(portal, years, shape))

    def _plan(self, *wanted: Wanted) -> Plan:
        return Plan(wanted, tuple(self.problems), tuple(self.notes), warnings=tuple(self.warnings))

    def _parse(self, text: str) -> dict[str, Any] | None:
        if len(text) > LARGEST:
            self._problem("", "The file is too long to be this configuration.", "Name the config.toml itself.", line=0)
            return None
        for number, line in enumerate(text.split("\n"), start=1):
            # Python's reader takes minutes over a name of thousands of parts
            if line.count(".") > MOST_DOTS and not line.lstrip().startswith("#"):
                self._problem("", "This line is none of a configuration.", "Take it out.", line=number)
                return None
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            said = str(error)
            place = re.search(r"\(at line (\d+)", said)
            line = int(place[1]) if place else text.rstrip().count("\n") + 1
            # what stands there may be a secret: only TOML's own words are repeated
            self._problem("", f"This is not TOML: {' '.join(_QUOTED.sub('', said).split())}.", "Correct this line.", line=line)
        except RecursionError:
            self._problem("", "The file is nested too deep to be a configuration.", "Name the config.toml itself.", line=0)
        except ValueError:
            # a number of thousands of digits, a day that no calendar has
            self._problem("", "The file holds a number or a time that can't be read.", "Put it in quotes, or take it out.", line=0)
        return None

    # what is there, and what is strange

    def _know(self, tree: Mapping[str, Any]) -> None:
        """Put what is known into `said`, by its whole name; tell what is not known."""
        left_out = []
        for name, value in _leaves(tree):
            line = self._line(name)
            if name in KEYS:
                if not isinstance(value, KEYS[name]) or (isinstance(value, bool) and bool not in KEYS[name]):
                    wanted = " or ".join(_WORDS[kind] for kind in KEYS[name])
                    self._problem(name, f"{_kind(value)} stands where {wanted} is wanted.", f"Write {wanted} there.")
                elif isinstance(value, str) and _VARIABLE.search(value) and not _is_secret(name):
                    self._problem(name, "This names a variable, which is not read here.", "Write its value in its place.")
                else:
                    self.said[name] = value.strip() if isinstance(value, str) else value
                if name in NOT_NEEDED and value:
                    left_out.append(name)
                continue
            if name.partition(".")[0] in PREFECTS:
                left_out.append(".".join(name.split(".")[:2]))
                continue
            if near := _nearest(name):
                self._problem(name, f"There is no key {name!r}.", f"Did you mean {near}?")
            else:
                next_step = "Nothing, if you don't miss it; else set it in the admin."
                self.warnings.append(Problem(self.path, line, name, "No version of this configuration has this key; it is left out.", next_step))
        if left_out:
            self.notes.append(f"Not needed here, and left out: {', '.join(dict.fromkeys(left_out))}.")

    def _portal(self) -> Portal | None:
        name = "socrata.domain" if "socrata.domain" in self.said and "socrata.host" not in self.said else "socrata.host"
        host = self._needed(name, 'Write host = "data.lacity.org" under [socrata].')
        if not host:
            return None
        try:
            return portal_at(host)
        except ValueError as error:
            self._problem(name, str(error), 'Write it like host = "data.lacity.org", or with http:// or https:// before it.')
            return None

    def _address(self, name: str) -> None:
        """An address that is asked after a load is shown wherever the step is: nothing secret may be in it."""
        try:
            parts = urlsplit(self.said.get(name, ""))
            has_secret = bool("@" in parts.netloc or parts.query or parts.fragment)
        except ValueError:
            has_secret = True
        if has_secret:
            next_step = "Write only the address; a token is entered in the admin, as the step's secret."
            self._problem(name, "There is more in this address than a host and a path.", next_step)

    def _years(self) -> dict[str, bool]:
        """Year → whether it is read; every dataset of the file is there."""
        datasets = self._needed("socrata.datasets", 'Write 2020 = "rq3b-xjk8" under [socrata.datasets].') or {}
        seen: dict[str, str] = {}
        for year, resource in datasets.items():
            name = f"socrata.datasets.{year}"
            if not isinstance(resource, str) or not FOUR_BY_FOUR.fullmatch(resource):
                self._problem(name, NOT_AN_ID, LIKE_AN_ID)
            elif not as_slug(year):
                self._problem(name, "This dataset has no name that a pipeline could take.", "Name it by its year.")
            elif resource in seen:
                first = self._line(f"socrata.datasets.{seen[resource]}")
                self._problem(name, f"{resource} is the dataset of {seen[resource]} already, on line {first}.", "Keep one of the two.")
            else:
                seen[resource] = year
        mode = self.said.get("mode", "")
        if mode not in ("", "update", "diff", "full"):
            self._problem("mode", f"{mode!r} is not a mode.", suggestion(mode, ("full", "update"), what="The modes"))
        years = self.said.get("data.years")
        counted = isinstance(years, int) or (isinstance(years, list) and any(isinstance(year, int) for year in years))
        if mode in ("update", "diff") and not counted:
            return dict.fromkeys(datasets, True)
        chosen = self._names("data.years", years)
        if not chosen and not self._is_told("data.years"):
            self._problem("data.years", "No year is named, so nothing would be read.", 'Write years = ["2020"] under [data].')
        for year in chosen:
            if datasets and year not in datasets:
                next_step = suggestion(year, datasets, what="The datasets")
                self._problem("data.years", f"socrata.datasets has no {year!r}.", next_step)
        return {year: year in chosen for year in datasets}

    def _shape(self) -> dict[str, Any] | None:
        """Columns, types, key and table: what all the pipelines have in common."""
        fields = self._needed("data.fields", "Name the columns under [data.fields], each with a type or an empty text.") or {}
        types = {name: kind for name, sql in fields.items() if (kind := self._type(name, sql))}
        key = self._names("data.key", self._needed("data.key", 'Write key = "srnumber" under [data].'))
        table = self._needed("data.target", 'Write target = "requests" under [data].')
        recent = self.said.get("data.recent_column") or "updateddate"
        is_update = self.said.get("mode") != "full"
        for name in key:
            if fields and name not in fields:
                self._problem("data.key", f"The key {name} is not among data.fields.", suggestion(name, fields, what="They are"))
        if fields and recent not in fields and (is_update or "data.recent_column" in self.said):
            where = "data.recent_column" if "data.recent_column" in self.said else "data.fields"
            self._problem(where, f"data.fields has no {recent}, by which newer rows are known.", suggestion(recent, fields, what="They are"))
        since = "data.start_datetime" if self.said.get("data.start_datetime") else "data.since"
        begins = self._moment(since)
        if self.problems:
            return None
        return {
            "columns": list(fields),
            "types": types,
            "key": key,
            "table": table,
            "version_column": recent if recent in fields else "",
            "watermark_column": recent if is_update else "",
            "since": begins if is_update else "",
            "load_mode": "upsert",
            "pages_in_flight": 3 if self._parallel else 1,
        }

    def _type(self, name: str, sql: Any) -> str | None:
        """Our type of a field; None with a problem."""
        if not isinstance(sql, str):
            self._problem(f"data.fields.{name}", f"{_kind(sql)} stands where the name of a type is wanted.", 'Write "" to have it guessed.')
            return None
        if not sql.strip():
            return "local_time" if name.endswith("date") else "number" if name in ("latitude", "longitude") else "text"
        bare = " ".join(re.sub(r"\([^)]*\)", " ", sql.lower()).split())
        if bare not in SQL_TYPES:
            next_step = suggestion(bare, SQL_TYPES, what="The types")
            self._problem(f"data.fields.{name}", f"The type of {name} is not known here.", next_step)
            return None
        return SQL_TYPES[bare]

    def _moment(self, name: str) -> str:
        """A moment as the column writes it; "" for none, and with a problem."""
        value = self.said.get(name, "")
        if isinstance(value, str) and value:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                self._problem(name, "This is not a moment.", "Write it like 2020-09-20T01:39:13.")
                return ""
        if isinstance(value, datetime) and value.tzinfo:
            self._problem(name, "This moment names a zone; the column is in the city's own time.", "Write it like 2020-09-20T01:39:13.")
            return ""
        if isinstance(value, datetime):
            return value.isoformat()
        return f"{value.isoformat()}T00:00:00" if value else ""

    @property
    def _parallel(self) -> bool:
        return self.said.get("dask", True)

    # what is wanted

    def _provider(self, portal: Portal) -> Wanted:
        lines = {name: self._line(f"socrata.{key}") for name, key in (("base_url", "host"), ("secrets", "token"))}
        token = self.said.get("socrata.token", "")
        return portal.wanted(
            file=self.path,
            line=self._line("socrata.host"),
            lines={**lines, "max_parallel": self._line("dask")},
            values={"max_parallel": 4 if self._parallel else 1},
            secrets={"app_token": _or_variable(token)} if token else {},
        )

    def _dataset(self, portal: Portal, shape: Mapping[str, Any]) -> Wanted:
        title = f"{as_title(shape['table'])} ({portal.host})"
        line = self._line("data.target")
        return Wanted(DATASET, as_slug(shape["table"]), {}, self.path, line, {"slug": line}, first={"title": title})

    def _pipelines(self, portal: Portal, years: Mapping[str, bool], shape: Mapping[str, Any]) -> Iterator[Wanted]:
        after = tuple(self._after())
        places = {"columns": "fields", "types": "fields", "key": "key", "table": "target", "watermark_column": "recent_column"}
        lines = {name: self._line(f"data.{key}") for name, key in {**places, "version_column": "recent_column", "since": "since"}.items()}
        lines |= {f"after.{number}": step.line for number, step in enumerate(after, start=1)}
        lines |= {"after": self._line("data.views"), "is_paused": self._line("data.years")}
        slugs = {year: as_slug(f"{shape['table']}-{year}") for year in years}
        for year, is_read in years.items():
            line = self._line(f"socrata.datasets.{year}")
            values = {
                **shape,
                "provider": portal.slug,
                "dataset": as_slug(shape["table"]),
                "resource": self.said["socrata.datasets"][year],
                "is_paused": not is_read,
                "paused_reason": "" if is_read else "Not among data.years when it was imported.",
                "after": after,
            }
            yield Wanted(
                PIPELINE,
                slugs[year],
                values,
                self.path,
                line,
                {**lines, "resource": line},
                first={"title": f"{as_title(shape['table'])} {year}", "stages": ["extract", "load"]},
                keeps_steps=True,
            )
        self._tell(portal, years, slugs, shape)

    def _after(self) -> Iterator[Step]:
        """What the old flow did at its end, in its order."""
        for view in self._names("data.views", self.said.get("data.views")):
            yield Step({"kind": "refresh", "target": view}, line=self._line("data.views"))
        yield Step({"kind": "analyze"})
        if self.said.get("vacuum_db"):
            yield Step({"kind": "vacuum"}, line=self._line("vacuum_db"))
        if self.said.get("api_url"):
            target = f"{self.said['api_url'].rstrip('/')}/status/reset-cache"
            yield Step({"kind": "post", "target": target}, line=self._line("api_url"))
        if self.said.get("report_server_url"):
            target = f"{self.said['report_server_url'].rstrip('/')}/reload"
            yield Step({"kind": "reload", "target": target, "expect": "Reloading..."}, line=self._line("report_server_url"))
        prefix = self.said.get("stage", "")
        hook = next((name for name in ("context.secrets.SLACK_HOOK", "slack_hook") if self.said.get(name)), "")
        if hook:
            yield Step({"kind": "notify", "prefix": prefix, "secret": _or_variable(self.said[hook])}, line=self._line(hook))
        else:
            # there it came from the environment, and without it nothing was posted
            first = {"secret": f"env:{HOOK}", "is_active": HOOK in os.environ}
            yield Step({"kind": "notify", "prefix": prefix}, first, self._line("stage"))
            if not first["is_active"]:
                self.notes.append(
                    f"The notice after a load is imported switched off, for its webhook is not in the file: set {HOOK} in the environment of "
                    "the web and the workers, or enter the webhook in the admin, and switch the step on."
                )

    def _tell(self, portal: Portal, years: Mapping[str, bool], slugs: Mapping[str, str], shape: Mapping[str, Any]) -> None:
        """What is left for the person who imports."""
        read = [slugs[year] for year, is_read in years.items() if is_read]
        if self.said.get("reset_db"):
            self.notes.append(
                f"reset_db is true; an import empties nothing. To load everything anew: python3 manage.py run {' '.join(read)} --initialize. "
                "The old rows stay until the new ones are complete."
            )
        if paused := [slugs[year] for year, is_read in years.items() if not is_read]:
            self.notes.append(f"Imported paused, for data.years does not name them: {', '.join(paused)}.")
        if shape["since"]:
            self.notes.append(
                f"An empty table is filled from {shape['since']} on, as the file says. To have all rows: "
                f"python3 manage.py run {read[0]} --initialize, or take since out and import again."
            )
        if views := self._names("data.views", self.said.get("data.views")):
            self.notes.append(f"After each load the materialized views are refreshed: {', '.join(views)}. Where one is missing, its step says so.")
        addresses = [portal.address, self.said.get("api_url", ""), self.said.get("report_server_url", "")]
        if near := [urlsplit(address).netloc.rpartition("@")[2] for address in addresses if is_near(address)]:
            self.notes.append(f"Allow what lies on your own network, or has no https: OUTBOUND_ALLOW={','.join(dict.fromkeys(near))}")
        if self.said.get("context.secrets.DSN"):
            self.notes.append(
                "The address of a database stands in the file (context.secrets.DSN). It is not stored: write it into WAREHOUSE_URL, "
                "or into WAREHOUSES under a name, and import with --warehouse NAME."
            )
        self.notes.append("Where it ran, variables PREFECT__SECTION__KEY came before this file; they are not read. Write what they set into it.")

    # words

    def _needed(self, name: str, next_step: str) -> Any:
        value = self.said.get(name)
        is_misspelt = any(problem.next_step == f"Did you mean {name}?" for problem in self.problems)
        if not value and not is_misspelt and not self._is_told(name):
            self._problem(name, f"{name} is missing or empty, and needed.", next_step)
        return value

    def _is_told(self, name: str) -> bool:
        return any(problem.field == name for problem in self.problems)

    def _names(self, name: str, value: Any) -> list[str]:
        """Names as a list: they may stand as one, as text with commas, or as a list written in a text, as variables have them."""
        if isinstance(value, str) and value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                self._problem(name, "This list can't be read.", 'Write it like ["first", "second"].')
                return []
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, int):
            value = [value]
        if not all(isinstance(item, (str, int)) and not isinstance(item, bool) for item in value or []):
            self._problem(name, "Something in this list is neither text nor a number.", 'Write it like ["first", "second"].')
            return []
        return list(dict.fromkeys(text for item in value or [] if (text := str(item).strip())))

    def _line(self, name: str) -> int:
        """The line of a key, or of the section in which it would stand; 0 for the whole file."""
        while name and name not in self.lines:
            name = name.rpartition(".")[0]
        return self.lines.get(name, 0)

    def _problem(self, name: str, message: str, next_step: str, *, line: int | None = None) -> None:
        self.problems.append(Problem(self.path, self._line(name) if line is None else line, name, message, next_step))


def lines_of(text: str) -> dict[str, int]:
    """Line of each key and section of a TOML text, by its whole name with dots. What is in an inline table has its parent's."""
    lines: dict[str, int] = {}
    section: list[str] = []
    words: list[str] = []
    depth, line, at_start, is_header = 0, 1, True, False
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == "\n":
            line += 1
            if depth == 0:
                at_start, is_header, words = True, False, []
        elif word.startswith("#"):
            continue
        elif at_start and word == "[":
            is_header = True
        elif is_header:
            if word == "]":
                section, at_start, is_header = words, False, False
                lines.setdefault(".".join(section), line)
            elif word not in (".", "["):
                words.append(_unquoted(word))
        elif at_start and word == "=":
            at_start = False
            for end in range(len(section) + 1, len(section) + len(words) + 1):
                lines.setdefault(".".join([*section, *words][:end]), line)
        elif at_start and word != ".":
            words.append(_unquoted(word))
        elif word in ("[", "{"):
            depth += 1
        elif word in ("]", "}"):
            depth = max(0, depth - 1)  # of [[section]] the second bracket closes nothing
        line += word.count("\n") if len(word) > 1 else 0
    return lines


def _unquoted(word: str) -> str:
    return word[1:-1] if word[:1] in ("'", '"') else word


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(whole name, value) of all that stands in the file; a section under whose name it gives names of its own is one value."""
    for name, value in tree.items():
        whole = f"{above}{name}"
        if isinstance(value, dict) and whole not in FREE and not (whole in KEYS and not value):
            yield from _leaves(value, f"{whole}.")
        else:
            yield whole, value


def _nearest(name: str) -> str:
    """The known key that is meant by a slip of the pen, or under the wrong section; "" where it is rather a key of its own.

    To leave out the former would change what is meant; the latter harms nobody.
    """
    section, _, last = name.rpartition(".")
    for known in KEYS:
        its_section, _, its_last = known.rpartition(".")
        if last == its_last or (section == its_section and difflib.get_close_matches(last, [its_last], cutoff=0.7)):
            return known
    return ""


def _kind(value: Any) -> str:
    words = next((words for kind, words in ((bool, "true or false"), *_WORDS.items()) if isinstance(value, kind)), "something else")
    return words[:1].upper() + words[1:]


def _is_secret(name: str) -> bool:
    return name == "socrata.token" or name.startswith("context.secrets.") or name == "slack_hook"


def _or_variable(secret: str) -> str:
    """A secret as an import takes it: `$NAME`, as Prefect reads it, is `env:NAME` here."""
    named = _VARIABLE.fullmatch(secret)
    return f"env:{named['braced'] or named['bare']}" if named else secret
