"""What an import wants, what it would change, and what is wrong with it: plain values that every importer speaks in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PROVIDER, DATASET, PIPELINE = "provider", "dataset", "pipeline"
BOUNDARY, UPKEEP, OPERATOR = "boundary", "upkeep job", "operator"
#: Under what a file lists the things of a kind, and how a sentence names several of them.
SECTION = {PROVIDER: "providers", DATASET: "datasets", BOUNDARY: "boundaries", PIPELINE: "pipelines", UPKEEP: "upkeep", OPERATOR: "operators"}
PLURAL = {**SECTION, UPKEEP: "upkeep jobs"}
#: Instead of a secret: keep the one that is stored here.
KEEP = "sealed"


@dataclass(frozen=True)
class Problem:
    """Why an import is refused. `line` counts from 1; 0 means the whole file. `field` is a path like `pipelines.la-311.cadence`."""

    file: str
    line: int
    field: str
    message: str
    next_step: str


@dataclass(frozen=True)
class Step:
    """A step after a load as a file has it: `values` go by AfterStep's field names; `first` are those that only a new step takes.

    `secret` is clear text, "env:NAME", KEEP, or "" for none.
    """

    values: Mapping[str, Any] = field(repr=False)
    first: Mapping[str, Any] = field(default_factory=dict, repr=False)
    line: int = 0


@dataclass(frozen=True)
class Wanted:
    """A provider, dataset, pipeline … as a file has it; what it does not name stays as it is, or takes its default.

    `slug` is the name under which it stands: an upkeep job's title, an operator's id and mode. `values` go by the model's field
    names, in Python's types; a reference is a slug. Some need words:
    a provider's `secrets` are {name: clear text, "env:NAME", KEEP, or None to forget it};
    a dataset's `columns` are {name: {"label", "type", "description", "is_published"}}, each of them optional, in their order,
    and its `parts` are {part: such columns};
    a pipeline's `after` are Steps in their order. They are all that it has, unless `keeps_steps`: then those that the file
    does not name stay;
    a pipeline's `enrichments` are Steps in their order, known by their column, and all that it has;
    a boundary's `file` is the name of its GeoJSON beside the file that names it, `sha256` the fingerprint of it;
    an upkeep job's `pipelines` are slugs.
    `first` are values that only a new object takes: what a foreign file does not say, and a person may have changed since.
    Of what stands in `unread` the file holds something that could not be read, of which a Problem tells already.
    `lines` gives the line of each value, also of `secrets.NAME`, `parameters.NAME`, `columns.NAME` and `after.1`.
    `next_steps` says what to do where a value can't stand here, in better words than a list of those that can.
    `keeps_parameters`: a provider's parameters, a pipeline's options and a dataset's portal_fields that the file does not name
    stay; one that is None is forgotten.
    `offers` are enrichments that a pipeline gets where their layer is here; a note tells of those whose layer is not. Beside
    the layer's slug a Step names in `first` the `key_property` by which a layer of another slug is known.
    `is_shared`: several files may ask for it, like the portal that they all read; the same twice is once.
    `known_by`: fields with their values (`dataset__slug`) by which a stored one is this one, whatever its slug, and `else_by` those
    by which it is where the first find none; without `known_by` its slug and kind are asked first. `slug` is then a wish, which a
    new one gets where nothing else has it; who refers to it by that wish is led to it. Such a pipeline keeps the part that it has.
    `is_stand_in`: the file names no portal, and this one stands for it. It is made only where a new pipeline needs it and this
    installation has none of its kind.
    """

    kind: str
    slug: str
    values: Mapping[str, Any] = field(repr=False)  # secrets are among them
    file: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    is_readable: bool = True
    first: Mapping[str, Any] = field(default_factory=dict)
    next_steps: Mapping[str, str] = field(default_factory=dict)
    keeps_steps: bool = False
    keeps_parameters: bool = False
    offers: tuple[Step, ...] = ()
    is_shared: bool = False
    known_by: Mapping[str, Any] = field(default_factory=dict)
    else_by: Mapping[str, Any] = field(default_factory=dict)
    is_stand_in: bool = False

    @property
    def path(self) -> str:
        return f"{SECTION[self.kind]}.{self.slug}"

    def problem(self, name: str, message: str, next_step: str) -> Problem:
        """A problem with the value of that name, on its line; name "" = with the whole object."""
        line = self.lines.get(name) or self.lines.get(".".join(name.split(".")[:2])) or self.lines.get(name.partition(".")[0]) or self.line
        return Problem(self.file, line, f"{self.path}.{name}" if name else self.path, message, next_step)


@dataclass(frozen=True)
class FieldChange:
    """One setting, as an export would write it before and after; None = not there."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """What becomes of one object: `verb` is "created", "changed" or "unchanged"."""

    kind: str
    slug: str
    verb: str
    file: str
    line: int
    fields: tuple[FieldChange, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What files want. A file's reader fills `wanted`, `problems`, `warnings` and `notes`; comparing with the database adds `changes`.

    `warnings` are problems of a part that is left out, while the rest is imported. `notes` are sentences for the person who
    imports: nothing is wrong, but something is left for him to do.
    """

    wanted: tuple[Wanted, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def of(self, verb: str) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.verb == verb)


@dataclass(frozen=True)
class Report:
    """What an import did."""

    created: tuple[Change, ...]
    changed: tuple[Change, ...]
    unchanged: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()


def suggestion(word: str, known: Iterable[str], *, what: str) -> str:
    """The next step for a word that is not known: the nearest that is, else all there are. `what` names them: "Its keys"."""
    known = list(known)
    # the letters decide, not their case: "Daily" is near to "daily"
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {by_lower[near[0]]}?"
    if not known:
        return f"{what}: there are none."
    shown = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
    return f"{what}: {shown}."
