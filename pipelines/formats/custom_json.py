"""What most custom readers do: the records of a JSON document, flattened. Their shapes differ, and the configuration's names tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.formats.custom import Broken, Raw
from pipelines.formats.json_stream import path_of
from pipelines.formats.nested import flatten, objects


def rows_of(raw: Raw) -> Iterator[Any]:
    """The rows of a document, wherever its list stands (option `jsonpath` says so where the first list is not meant)."""
    for record in objects(raw.path, path_of(raw.options.get("jsonpath"))):
        raw.counts["records"] += 1
        if isinstance(record, Mapping):
            yield from flatten(record, raw.wanted)
        else:
            yield Broken("it is not an object", {"record": record})
