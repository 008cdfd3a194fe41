"""YAML as nodes with their lines: what a value's text is, and what to say where it can't be read. Shared by the importers that read YAML."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipelines.importers.plan import Problem

AGAIN = "Correct the file and import it again."

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")}
_NULLS = {"", "~", "null", "Null", "NULL"}
_QUOTED = re.compile(r"""'[^']*'|"[^"]*["]""")
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Unreadable(Exception):
    """A value that can't be what it should be; caught where its name is known."""

    def __init__(self, node: yaml.Node, message: str, next_step: str = AGAIN):
        super().__init__(message)
        self.node, self.message, self.next_step = node, message, next_step


def compose(path: str, text: str, loader: type[yaml.SafeLoader]) -> tuple[yaml.Node | None, Problem | None]:
    """The file's root, or why there is none."""

    def refused(line: int, message: str, next_step: str = AGAIN) -> tuple[None, Problem]:
        return None, Problem(path, line, "", message, next_step)

    try:
        root = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # a word of the file may be a secret in the wrong place: only YAML's own words and single signs are repeated
        said = _QUOTED.sub(_veiled, error.problem or error.context or "it cannot be read")
        line = mark.line + 1 if mark else 0
        if "'\\t'" in said:
            return refused(line, "A tab stands where YAML wants spaces.", "Put spaces in the place of the tabs.")
        begun = f" (begun on line {error.context_mark.line + 1})" if error.context_mark and error.context_mark.line + 1 != line else ""
        return refused(line, f"This is not YAML: {said}{begun}.")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        return refused(line, f"A character that YAML forbids stands here: {error.reason}.", "Take it out, or save the file again as UTF-8 text.")
    except RecursionError:
        return refused(0, "The file is nested too deep to be a configuration.")
    except (ValueError, OverflowError) as error:
        # PyYAML lets this out where an escape like "\\U00110000" names no character
        return refused(0, f"The file holds an escape that names no character: {error}.")
    if root is None:
        return refused(0, "The file holds nothing.", "Write something in it; `manage.py help import_config` shows an example.")
    return root, None


def line_of(node: yaml.Node) -> int:
    """The line on which it begins, counted from 1."""
    return node.start_mark.line + 1


def is_null(node: yaml.Node) -> bool:
    # programs also write !!null "null"
    return isinstance(node, yaml.ScalarNode) and (node.style is None and node.value in _NULLS or node.tag == "tag:yaml.org,2002:null")


def kind_of(node: yaml.Node) -> str:
    return {yaml.SequenceNode: "A list", yaml.MappingNode: "A mapping"}.get(type(node), "A single value")


def refuse_tag(node: yaml.Node) -> None:
    if node.tag not in _TAGS:
        raise Unreadable(node, "A value that begins with ! is a tag to YAML, and tags are not read.", "Put the value in quotes.")


def text_of(node: yaml.Node) -> str:
    """The text as it stands, whatever YAML would make of it; "" for nothing. Raises Unreadable."""
    refuse_tag(node)
    if not isinstance(node, yaml.ScalarNode):
        raise Unreadable(
            node,
            f"{kind_of(node)} stands where a single value is wanted.",
            "Write one value, in quotes if it begins with [ or {.",
        )
    if is_null(node):
        return ""
    if "\0" in node.value or any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise Unreadable(node, "The text holds a character that the database can't store (NUL or half of a pair).", "Take it out.")
    return node.value


def text_or_nothing(node: yaml.Node) -> str | None:
    return None if is_null(node) else text_of(node)


def text_or_deeper(node: yaml.Node) -> Any:
    return text_of(node) if isinstance(node, yaml.ScalarNode) else deeper(node)


def deeper(node: yaml.Node) -> Any:
    """JSON inside a parameter: here, what is not in quotes is a number, true, false or null when it looks like one."""
    refuse_tag(node)
    if isinstance(node, yaml.SequenceNode):
        return [deeper(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {text_of(key): deeper(value) for key, value in node.value}
    text = text_of(node)
    if is_null(node):
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


def _veiled(quoted: re.Match[str]) -> str:
    """What PyYAML quotes: a sign or a word of its own as it stands, a word of the file not."""
    return quoted[0] if len(quoted[0]) < 5 or quoted[0][1] == "<" else "a word"


# writing


class Dumper(yaml.SafeDumper):
    """Lists inside their parents, text of several lines as such, no anchors."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: Dumper, text: str) -> yaml.Node:
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        style = '"'  # the other line ends (NEL, LS, PS, CR) would come back as plain ones, were they not escaped
    elif len(lines) > 1 and all(line == line.rstrip() for line in lines):
        style = "|"
    else:
        style = None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)


def dump(value: Any, *, is_open: bool = False) -> str:
    """It as YAML: the same value gives the same bytes. `is_open`: a line for each setting, also where several would fit."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False if is_open else None)
