"""E. coli at the beaches: beaches → days, or days → beaches, and the sites of each."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("toronto_beaches_water_quality", "*beach*water_quality*")
def toronto_beaches_water_quality(raw: Raw) -> Iterator[dict[str, Any]]:
    """Nested lists with beachId, beachName, siteName, collectionDate, eColi and comments, and a latitude and a longitude of the beach."""
    return rows_of(raw)
