"""Custom readers: for files that no format reads, a function each, found by being here. A file of this folder is all it takes.

    from pipelines.formats.custom import Raw, custom_reader

    @custom_reader("my_dataset")
    def my_dataset(raw: Raw) -> Iterator[dict[str, Any]]:
        \"\"\"What the file looks like.\"\"\"
        yield {"name": "value"}

A reader yields mappings by the names that the file has; names, types and what is refused are settled as in any other format
(`custom_table`). A name may have a `*` for what follows: the first file whose name fits exactly, else by such a pattern, is asked.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.errors import SetupError


@dataclass(frozen=True)
class Raw:
    """What a reader is given: the raw file, the further files of its block by role, the pipeline's options, the names that are wanted."""

    path: Path
    helpers: Callable[[str], Iterator[Path]]
    options: Mapping[str, Any] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    #: "records": how many were read, where a record may be several rows
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Broken:
    """What a reader yields in the place of a row that is none: why, and what it holds."""

    reason: str
    raw: Mapping[str, Any]


Read = Callable[[Raw], Iterator[Any]]


@dataclass(frozen=True)
class CustomReader:
    """A reader by its name. `called`: wanted name → how the file calls it, where letters alone do not tell.

    `total` says how many records all files of a block have together, as each of them tells; None where they do not.
    """

    name: str
    read: Read
    called: Mapping[str, str] = field(default_factory=dict)
    total: Callable[[Path], int | None] | None = None


READERS: dict[str, CustomReader] = {}


def custom_reader(*names: str, called: Mapping[str, str] | None = None, total: Callable[[Path], int | None] | None = None) -> Callable[[Read], Read]:
    """Register a function as the reader of these names."""

    def register(read: Read) -> Read:
        for name in names:
            if name in READERS:
                raise TypeError(f"two custom readers are called {name!r}: {READERS[name].read.__module__}, {read.__module__}")
            READERS[name] = CustomReader(name, read, called or {}, total)
        return read

    return register


@cache
def load() -> Mapping[str, CustomReader]:
    """All readers of this folder, by their names."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return READERS


def find(name: str, title: str = "The pipeline") -> CustomReader:
    """The reader of that name. Raises SetupError that says which file to write."""
    readers = load()
    if name in readers:
        return readers[name]
    fitting = [pattern for pattern in readers if fnmatch.fnmatchcase(name, pattern)]
    if fitting:
        return readers[max(fitting, key=len)]
    raise SetupError(
        f"{title} is to be read by the custom reader {name!r}, and there is none of this name.",
        code="no-custom-reader",
        next_step=f"Write pipelines/formats/custom/{name}.py with a function under @custom_reader({name!r}); the others there show how. "
        f"There are {', '.join(sorted(readers))}.",
    )
