"""Inspections of restaurants: establishments → inspections → infractions → prosecutions."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("dinesafe")
def dinesafe(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list of establishments: `{estId, estName, address, latitude, longitude, inspections: [{inspectionDate, inspectionStatus, infractions:
    [{typeDesc, prosecutions: [{outcomeDate, outcomeDesc, amountFined}]}]}]}`. Any of the lists may be null.
    """
    return rows_of(raw)
