"""The city's tennis courts, as the list that its web page draws its map from."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("tennis_courts_facilities", "*tennis*")
def tennis_courts_facilities(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list at the root, or in the one list inside it: `{ID, Name, Type, Lights, Courts, …, lat, lng}`."""
    return rows_of(raw)
