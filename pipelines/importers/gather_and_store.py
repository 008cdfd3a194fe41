"""`settings.py` of GatherAndStore: for each topic of IMPORT_TOPICS a dataset and a pipeline, from its portal into its table.

The file is a program, and is read as data: nothing of it is executed. Of a topic's settings each must be a literal; what the
loader needed for itself (logging, its serializer, its signals) may be more, and is left alone.

That loader took every column that the source had (`select *`); its lists of string and date columns only said how to write
them. So a pipeline names no columns, and takes their types from the lists. It had no key: whole rows are compared.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipelines.importers.plan import DATASET, PIPELINE, Plan, Problem, Wanted, suggestion
from pipelines.importers.portals import FOUR_BY_FOUR, LIKE_AN_ID, NOT_AN_ID, Portal, as_slug, as_title, portal_at

NAME = "GatherAndStore settings.py"
#: The real one has 80 lines.
LARGEST = 1 << 20

TOPICS, TARGETS, MISC = "IMPORT_TOPICS", "TARGET_CONN", "MISC"
#: The connection of its own log, which our import log replaces.
LOG_TARGET = "IMPORT_LOGGING"
#: Without these a topic could not run there either.
NEEDED = ("source_type", "source_url", "dataset_name", "target_type", "target_conn", "target_table", "target_string_columns", "target_date_columns")
KNOWN = ("topic_name", *NEEDED, "filter_soql", "filter_sql", "filter_sql_result_datatype")
SCHEMES = {"mysql": "mysql", "postgres": "postgres", "postgresql": "postgres"}

_ASSIGNED = re.compile(rf"^{TOPICS}[ \t]*[:=]", re.MULTILINE)
_SOQL = re.compile(r"\s*where\s+(\w+)\s*>=?\s*(['\"]?)%s\2\s*;?\s*", re.IGNORECASE)
_SQL = re.compile(r"\s*select\s+max\s*\(\s*[`\"]?(\w+)[`\"]?\s*\)\s*from\s+[`\"\w.]+\s*;?\s*", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
#: What the parts that are left alone may hold: names, literals and how they are put together, but nothing that does something.
_INERT = (
    ast.Constant, ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Attribute, ast.Name, ast.Subscript, ast.Slice,
    ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.expr_context,
)  # fmt: skip
_INERT_CALLS = ("frozenset", "set", "list", "tuple", "dict", "os.getenv", "os.environ.get")


class _NoLiteral(Exception):
    """What stands there is computed; caught where its name is known."""

    def __init__(self, node: ast.AST):
        super().__init__("no literal")
        self.line: int = getattr(node, "lineno", 0)


@dataclass(frozen=True)
class _Entry:
    """A value of a dictionary, and the lines of its name and of itself."""

    line: int
    node: ast.expr

    def value(self) -> Any:
        """The literal. Raises _NoLiteral."""
        try:
            return ast.literal_eval(self.node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise _NoLiteral(self.node) from None


@dataclass(frozen=True)
class _Topic:
    """A topic that has all it needs, in plain values."""

    name: str
    line: int
    said: Mapping[str, Any]
    lines: Mapping[str, int]


def recognises(path: str, text: str) -> bool:
    """Whether it assigns IMPORT_TOPICS at the beginning of a line."""
    return bool(_ASSIGNED.search(text))


def read(path: str, text: str) -> Plan:
    """What the file wants. All that is wrong with it is in `problems` and `warnings`; nothing is raised, and nothing executed."""
    return _Reader(path).read(text)


class _Reader:
    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.left_out: list[str] = []

    def read(self, text: str) -> Plan:
        tables = self._tables(text)
        if tables is None:
            return self._plan((), ())
        targets = dict(self._entries(TARGETS, tables.get(TARGETS)))
        page_size = self._page_size(dict(self._entries(MISC, tables.get(MISC))))
        topics = list(self._topics(tables))
        wanted: list[Wanted] = []
        for topic in topics:
            wanted += self._wanted(topic, targets, page_size)
        self._tell_twice(topics)
        used = {topic.said["target_conn"] for topic in topics}
        self.left_out += [f"{TARGETS}.{name}" for name in targets if name not in used]
        return self._plan(wanted, topics)

    def _plan(self, wanted: Iterable[Wanted], topics: Iterable[_Topic]) -> Plan:
        notes = []
        if self.left_out:
            notes.append(f"Not needed here, and left out: {', '.join(self.left_out)}. The import log is kept by itself.")
        if names := [topic.name for topic in topics]:
            notes.append(
                f"{_listed(names)}: no key is named, so whole rows are compared, and a row that the source has twice stays twice. All columns "
                "of the source are taken, as there; the lists of columns only say of which type they are."
            )
        return Plan(tuple(wanted), tuple(self.problems), tuple(notes) if not self.problems else (), warnings=tuple(self.warnings))

    # the program, as data

    def _tables(self, text: str) -> dict[str, ast.expr] | None:
        """What is assigned to the names that are read; None with a problem where the file is no program."""
        if len(text) > LARGEST:
            self._problem(0, "", "The file is too long to be this configuration.", "Name the settings.py itself.")
            return None
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            # what stands there may be a secret: only Python's own words are repeated
            said = _QUOTED.sub("…", error.msg)
            self._problem(error.lineno or 0, "", f"This is not Python: {said}.", "Correct this line; as Python 3 it must be readable.")
            return None
        except (RecursionError, MemoryError):
            self._problem(0, "", "The file is nested too deep to be a configuration.", "Name the settings.py itself.")
            return None
        except ValueError:
            self._problem(0, "", "The file holds a character that no program has (NUL).", "Save it again as UTF-8 text.")
            return None
        tables: dict[str, ast.expr] = {}
        for statement in tree.body:
            name, value = _assigned(statement)
            if name in (TOPICS, TARGETS, MISC):
                if name in tables:
                    self._problem(statement.lineno, name, f"{name} is assigned twice.", "Keep one of the two.")
                tables[name] = value
            elif name:
                self._let_be(name, value)
                self.left_out.append(name)
            elif not _is_harmless(statement):
                self._problem(
                    statement.lineno,
                    "",
                    "Something is done here; a configuration is read as data, and nothing in it is executed.",
                    f"Take it out: only {TOPICS}, {TARGETS} and {MISC} are read, each assigned once.",
                )
        return tables

    def _let_be(self, name: str, value: ast.expr) -> None:
        """What is not read may be what it likes, but for code."""
        for node in ast.walk(value):
            if isinstance(node, _INERT) or (isinstance(node, ast.Call) and _dotted(node.func) in _INERT_CALLS):
                continue
            line = getattr(node, "lineno", value.lineno)
            self._problem(line, name, "Code stands here; nothing in a configuration is executed.", "Write the value itself, or take it out.")
            return

    def _entries(self, name: str, node: ast.expr | None) -> Iterator[tuple[str, _Entry]]:
        """The entries of a dictionary as it is written down; what is none is a problem."""
        if node is None:
            return
        if not isinstance(node, ast.Dict):
            self._problem(node.lineno, name, f"{name} is no dictionary that is written down.", "Write it like {'name': 'value'}.")
            return
        seen: dict[str, int] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            at = key if key is not None else value
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                self._problem(at.lineno, name, "A name in this dictionary is no text that is written down.", "Write it in quotes.")
            elif key.value in seen:
                first = seen[key.value]
                self._problem(at.lineno, f"{name}.{key.value}", f"{key.value!r} stands here twice; first on line {first}.", "Keep one of the two.")
            else:
                seen[key.value] = at.lineno
                yield key.value, _Entry(at.lineno, value)

    # its parts

    def _page_size(self, misc: Mapping[str, _Entry]) -> int | None:
        self.left_out += [f"{MISC}.{name}" for name in misc if name != "pull_row_limit"]
        for name, entry in misc.items():
            if name != "pull_row_limit":
                self._let_be(f"{MISC}.{name}", entry.node)
        if "pull_row_limit" not in misc:
            return None
        entry = misc["pull_row_limit"]
        size = self._literal(f"{MISC}.pull_row_limit", entry)
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            self._problem(entry.line, f"{MISC}.pull_row_limit", "This is no number of rows.", "Write a whole number, like 1000.")
            return None
        return size

    def _topics(self, tables: Mapping[str, ast.expr]) -> Iterator[_Topic]:
        """The topics that can run; one that could not run there either is a warning."""
        found = dict(self._entries(TOPICS, tables.get(TOPICS)))
        broken = 0
        for name, entry in found.items():
            where = f"{TOPICS}.{name}"
            entries = dict(self._entries(where, entry.node))
            if not isinstance(entry.node, ast.Dict):
                continue
            missing = [key for key in NEEDED if key not in entries]
            strange = [key for key in entries if key not in KNOWN]
            if missing:
                broken += 1
                also = f" It names {_listed(strange)}, which nothing reads." if strange else ""
                message = f"This topic could not run there either: it lacks {_listed(missing)}.{also} It is left out."
                self.warnings.append(
                    Problem(self.path, entry.line, where, message, f"Complete it, or take it out. {_meant(missing, strange)}".strip())
                )
                continue
            for key in strange:
                next_step = suggestion(key, KNOWN, what="The settings of a topic")
                self.warnings.append(Problem(self.path, entries[key].line, f"{where}.{key}", f"A topic has no {key!r}; it is left out.", next_step))
            said = {key: self._literal(f"{where}.{key}", entries[key]) for key in KNOWN if key in entries}
            lines = {key: one.line for key, one in entries.items()}
            if not self._texts(where, said, lines):
                continue
            yield _Topic(name, entry.line, said, lines)
        if found and broken == len(found):
            line = next(iter(found.values())).line
            self._problem(line, TOPICS, "None of the topics can run.", "Complete one of them; the warnings say what is missing.")
        elif not found and not self.problems:
            self._problem(0, TOPICS, "No topic is named, so nothing would be read.", f"Write one into {TOPICS}.")

    def _texts(self, where: str, said: dict[str, Any], lines: Mapping[str, int]) -> bool:
        """Whether all settings of a topic are texts (the columns may be lists of them); problems for those that are not."""
        are_texts = True
        for key, value in said.items():
            is_list = key.endswith("_columns") and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
            if isinstance(value, str) or is_list:
                continue
            are_texts = False
            if not any(problem.field == f"{where}.{key}" for problem in self.problems):
                self._problem(lines[key], f"{where}.{key}", "No text stands here.", "Write it in quotes.")
        return are_texts

    # what is wanted

    def _wanted(self, topic: _Topic, targets: Mapping[str, _Entry], page_size: int | None) -> list[Wanted]:
        """Provider, dataset and pipeline of a topic; none of them where something is wrong."""
        before = len(self.problems)

        def wrong(key: str, message: str, next_step: str) -> None:
            self._problem(topic.lines[key], f"{TOPICS}.{topic.name}.{key}", message, next_step)

        said, slug = topic.said, as_slug(topic.name)
        if not slug:
            self._problem(topic.line, f"{TOPICS}.{topic.name}", "This name gives no name for a pipeline.", "Write letters or digits.")
        if said["source_type"].lower() != "socrata":
            wrong("source_type", "This is no kind of source that GatherAndStore had.", "Write 'socrata'.")
        if said["target_type"].lower() not in SCHEMES:
            wrong("target_type", "This is no kind of target that is known.", "Write 'mysql' or 'postgres'.")
        if said["target_conn"] not in targets:
            wrong("target_conn", f"{TARGETS} has no such name.", suggestion(said["target_conn"], targets, what="Its names"))
        if not FOUR_BY_FOUR.fullmatch(said["dataset_name"]):
            wrong("dataset_name", NOT_AN_ID, LIKE_AN_ID)
        portal = None
        try:
            portal = portal_at(said["source_url"])
        except ValueError as error:
            wrong("source_url", str(error), "Write it like 'data.seattle.gov', or with http:// or https:// before it.")
        types = {
            **dict.fromkeys(_columns(said["target_string_columns"]), "text"),
            **dict.fromkeys(_columns(said["target_date_columns"]), "local_time"),
        }
        watermark = self._watermark(topic, wrong)
        kind = {"datetime": "local_time", "integer": "number"}.get(said.get("filter_sql_result_datatype", "").lower())
        if watermark and kind:
            types.setdefault(watermark, kind)
        if len(self.problems) > before or portal is None:
            return []
        values = {
            "provider": portal.slug,
            "dataset": slug,
            "resource": said["dataset_name"],
            "key": [],
            "columns": [],
            "types": types,
            "watermark_column": watermark,
            "load_mode": "replace",
            "table": said["target_table"],
            "warehouse": said["target_conn"],
            **({"page_size": page_size} if page_size else {}),
        }
        title = as_title(said.get("topic_name") or topic.name)
        return [
            self._provider(portal, topic),
            Wanted(DATASET, slug, {}, self.path, topic.line, first={"title": title}),
            Wanted(
                PIPELINE,
                slug,
                values,
                self.path,
                topic.line,
                {name: topic.lines[key] for name, key in _PLACES.items() if key in topic.lines},
                first={"title": title, "stages": ["extract", "load"]},
                next_steps={"warehouse": self._how_to_reach(topic, targets[said["target_conn"]])},
            ),
        ]

    def _provider(self, portal: Portal, topic: _Topic) -> Wanted:
        line = topic.lines["source_url"]
        return portal.wanted(file=self.path, line=line, lines={"base_url": line}, values={}, secrets={})

    def _watermark(self, topic: _Topic, wrong: Any) -> str:
        """The column by which newer rows were asked for; "" where all are read each time."""
        named: dict[str, str] = {}
        for key, form, example in (
            ("filter_soql", _SOQL, "where license_issue_date > '%s'"),
            ("filter_sql", _SQL, "SELECT MAX(license_issue_date) FROM pet_license;"),
        ):
            text = topic.said.get(key, "")
            if not text.strip():
                continue
            found = form.fullmatch(text)
            if not found:
                wrong(key, "This asks for more than the rows that are newer than the newest.", f"Write it like: {example}")
            else:
                named[key] = found[1]
        if len({name.lower() for name in named.values()}) > 1:
            wrong("filter_sql", f"filter_soql goes by {named['filter_soql']}, and this by {named['filter_sql']}.", "Name one column in both.")
        return named.get("filter_soql") or named.get("filter_sql", "")

    def _how_to_reach(self, topic: _Topic, target: _Entry) -> str:
        """What to write into the environment so that the target of a topic is known here. Its password is not looked at."""
        entries = dict(self._entries(f"{TARGETS}.{topic.said['target_conn']}", target.node))
        told = {
            key: self._literal(f"{TARGETS}.{topic.said['target_conn']}.{key}", entries[key])
            for key in ("user", "host", "port", "db")
            if key in entries
        }
        scheme = SCHEMES[topic.said["target_type"].lower()]
        port = f":{told['port']}" if told.get("port") else ""
        user, database = (quote(str(told.get(key) or other), safe="") for key, other in (("user", "user"), ("db", "database")))
        address = f"{scheme}://{user}:…@{told.get('host') or 'host'}{port}/{database}"
        return (
            f"Set WAREHOUSES={topic.said['target_conn']}={address} with the password in the place of … (a comma divides it from another one), "
            "or import with --warehouse default."
        )

    def _tell_twice(self, topics: Iterable[_Topic]) -> None:
        """The same source into the same table by two topics: they would take each other's rows away."""
        seen: dict[tuple[str, str, str], _Topic] = {}
        for topic in topics:
            place = (topic.said["dataset_name"], topic.said["target_conn"], topic.said["target_table"])
            first = seen.setdefault(place, topic)
            if first is not topic:
                self._problem(
                    topic.lines["dataset_name"],
                    f"{TOPICS}.{topic.name}.dataset_name",
                    f"{topic.said['dataset_name']} goes into this table by topic {first.name} already, on line {first.line}.",
                    "Keep one of the two.",
                )

    # words

    def _literal(self, where: str, entry: _Entry) -> Any:
        """The value; None with a problem where it is computed."""
        try:
            return entry.value()
        except _NoLiteral as error:
            self._problem(
                error.line or entry.line, where, "This is no literal, and nothing in a configuration is executed.", "Write the value itself."
            )
            return None

    def _problem(self, line: int, field: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(self.path, line, field, message, next_step))


#: Where in a topic a pipeline's setting comes from.
_PLACES = {
    "provider": "source_url",
    "resource": "dataset_name",
    "types": "target_string_columns",
    "watermark_column": "filter_soql",
    "table": "target_table",
    "warehouse": "target_conn",
}


def _assigned(statement: ast.stmt) -> tuple[str, ast.expr]:
    """The name and the value of an assignment to one name; the name is "" for any other statement."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        return statement.target.id, statement.value
    return "", ast.Constant(None)


def _dotted(node: ast.expr) -> str:
    """ "os.environ.get" of such a name; "" of anything else."""
    words = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(words)]) if isinstance(node, ast.Name) else ""


def _is_harmless(statement: ast.stmt) -> bool:
    """An import, which is not carried out, a text that stands alone, or nothing."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass))


def _columns(names: str | Iterable[str]) -> list[str]:
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip()]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _meant(missing: list[str], strange: list[str]) -> str:
    """What a strange name may have been meant for."""
    pairs = [(name, next((key for key in missing if key.startswith(name) or name in key), "")) for name in strange]
    return " ".join(f"By {name}, did you mean {key}?" for name, key in pairs if key)
