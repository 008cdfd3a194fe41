"""How a dataset file of Toronto's is read: mappings whose keys are known, values in words, each mistake with its line. Whatever YAML can say
is understood, also anchors and merges, but for what unfolds without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from pipelines.importers.plan import Problem, suggestion
from pipelines.importers.toronto_words import MISSPELT
from pipelines.importers.yaml_nodes import TRUTHS, Unreadable, deeper, is_null, kind_of, line_of, refuse_tag, text_of

#: More values than this in a file are none that a person wrote: a few lines of aliases (*) unfold into gigabytes.
MOST_VALUES = 100_000


#: A value with the node of its key and its own.
Pair = tuple[yaml.Node, yaml.Node]


class Reading:
    """What every part of a file is read with; it keeps what is wrong with it."""

    def __init__(self, path: str):
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.values = 0

    # values

    def words(self, node: yaml.Node) -> str:
        """The text, without spaces at its ends; "" for nothing. A list of words is taken with commas. Raises Unreadable."""
        if isinstance(node, yaml.SequenceNode):
            self.count(len(node.value))
            return ", ".join(filter(None, (self.words(item) for item in node.value)))
        return whole(node).strip()

    def items(self, node: yaml.Node) -> Iterator[yaml.Node]:
        """The items of a list; a single value is a list of it, and nothing one of none. Raises Unreadable."""
        if isinstance(node, yaml.SequenceNode):
            self.count(len(node.value))
            yield from (item for item in node.value if not is_null(item))
        elif not is_null(node):
            yield node

    def truth(self, where: str, node: yaml.Node) -> bool:
        words = self.words(node).lower()
        if not words:
            return False
        if words not in TRUTHS:
            self.problem(node, where, f"{words!r} is neither true nor false.", "Write true or false.")
        return TRUTHS.get(words, False)

    # mappings

    def settings(self, node: yaml.Node, where: str, known: Sequence[str], wanted: str, *, what: str) -> dict[str, Pair]:
        """The pairs of a mapping whose keys are known; another is a problem that names the nearest."""
        found: dict[str, Pair] = {}
        for key, pair in self.pairs(node, where, wanted).items():
            meant = MISSPELT.get(key, key)
            if meant not in known:
                self.problem(pair[0], f"{where}.{key}", f"{key!r} is not known here.", suggestion(key, known, what=what))
            elif meant != key and meant not in found:
                self.warn(pair[0], f"{where}.{key}", f"{key!r} is read as {meant}.", f"Did you mean {meant}?")
                found[meant] = pair
            elif meant == key:
                found[key] = pair
        return found

    def pairs(self, node: yaml.Node, where: str, wanted: str, *, all_at: bool = False) -> dict[str, Pair]:
        """{key: its node, its value's} of a mapping, in order, with what `<<` brings into it. A key that comes twice is a problem.

        `all_at`: the keys are names that people read, and lose the spaces at their ends.
        """
        if is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, where, f"{kind_of(node)} stands where a mapping is wanted: {wanted}.", "Begin each with its name and a colon.")
            return {}
        self.count(len(node.value))
        found: dict[str, Pair] = {}
        merged: dict[str, Pair] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self.pairs(one, where, wanted, all_at=all_at), **merged}
                continue
            with self.telling(where):
                refuse_tag(value)
                name = whole(key).strip() if all_at else whole(key)
                path = f"{where}.{name}" if where else name
                if not name:
                    self.problem(key, where, "A name is missing before the colon.", "Write it there.")
                elif name in found:
                    first = found[name]
                    message = f"{name!r} stands here twice; first on line {line_of(first[0])}."
                    self.weigh(first[1])
                    if _same(first[1], value):
                        self.warn(key, path, message, "Take one of the two out; they say the same.")
                    else:
                        self.problem(key, path, message, "Keep one of the two.")
                else:
                    found[name] = (key, value)
        return {**merged, **found} if merged else found

    def deeper_of(self, node: yaml.Node) -> Any:
        """What nobody here reads, as JSON. Raises Unreadable."""
        self.weigh(node)
        return deeper(node)

    def weigh(self, node: yaml.Node) -> None:
        """Count all that a value unfolds into."""
        if isinstance(node, yaml.CollectionNode):
            self.count(len(node.value))
            for item in node.value:
                for one in item if isinstance(item, tuple) else (item,):
                    self.weigh(one)

    def count(self, values: int) -> None:
        self.values += values
        if self.values > MOST_VALUES:
            raise TooMuch

    def choice(self, where: str, node: yaml.Node, words: str, known: Iterable[str], what: str) -> str:
        """Which of the known words it is, whatever its capitals; "" with a problem for none."""
        found = {one.lower(): one for one in known}.get(re.sub(r"\s+", " ", words).lower())
        if found is None:
            self.problem(node, where, f"{words!r} is none of its choices.", suggestion(words, known, what=what))
        return found or ""

    # problems

    def telling(self, where: str) -> Telling:
        """What can't be read within is a problem there."""
        return Telling(self, where)

    def problem(self, node: yaml.Node, path: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(self.path, line_of(node), path, message, next_step))

    def warn(self, node: yaml.Node, path: str, message: str, next_step: str) -> None:
        self.warnings.append(Problem(self.path, line_of(node), path, message, next_step))


class TooMuch(Exception):
    """The file unfolds into more values than anybody can have written."""


class Telling:
    """A value that can't be read within is a problem, and what follows it is read."""

    def __init__(self, reader: Reading, where: str):
        self.reader, self.where = reader, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> bool:
        if isinstance(error, Unreadable):
            self.reader.problem(error.node, self.where, error.message, error.next_step)
            return True
        return False


def whole(node: yaml.Node) -> str:
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
        return len(one.value) == len(other.value) and all(_same(a, c) and _same(b, d) for (a, b), (c, d) in zip(one.value, other.value, strict=True))
    if isinstance(one, yaml.SequenceNode):
        return len(one.value) == len(other.value) and all(map(_same, one.value, other.value))
    return one.value == other.value
