"""The city's drinking fountains and bottle-filling stations, as the list that its web page draws its map from."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("drinking_fountains", "*drinking*")
def drinking_fountains(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list at the root, or in the one list inside it: a place each, with a latitude and a longitude."""
    return rows_of(raw)
