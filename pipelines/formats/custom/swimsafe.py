"""Inspections of pools and spas: facilities → establishments → inspections → infractions."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("swimsafe")
def swimsafe(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list of facilities (facilityName, address, a latitude and a longitude), each with its establishments (estName, type), their
    inspections (insStatus, insDate, observation) and infractions (infCategory, defDesc, infType, actionDesc).
    """
    return rows_of(raw)
