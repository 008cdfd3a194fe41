"""The library's programmes and events: one JSON object a line."""

import json
from collections.abc import Iterator
from typing import Any

from pipelines.formats.csv_table import encoding_of
from pipelines.formats.custom import Broken, Raw, custom_reader
from pipelines.formats.json_stream import decoded
from pipelines.formats.nested import flatten


@custom_reader("library_events", "*library*event*", "*library*program*")
def library_events(raw: Raw) -> Iterator[dict[str, Any] | Broken]:
    """An object a line, of which what is nested is flattened. A line that is no object is refused, and takes no other along."""
    encoding = encoding_of(raw.options.get("encoding"))
    with raw.path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, errors="surrogateescape") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                event = decoded(line)
            except (json.JSONDecodeError, RecursionError):
                event = None
            if isinstance(event, dict):
                yield from flatten(event, raw.wanted)
            else:
                yield Broken("the line is not a JSON object", {"line": line[:1000]})
