"""What is seen at the beaches each day: wind, rain, waves, fowl."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("toronto_beaches_observations", "*beach*observations*")
def toronto_beaches_observations(raw: Raw) -> Iterator[dict[str, Any]]:
    """Lists, nested or not, with dataCollectionDate, beachName, windSpeed, airTemp, waterTemp, turbidity and so on."""
    return rows_of(raw)
