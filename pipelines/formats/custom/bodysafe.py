"""Inspections of personal services (barbers, tattooing): establishments → inspections → infractions."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("bodysafe")
def bodysafe(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list of establishments (estId, estName, addrFull, srvType, a latitude and a longitude), each with a list of inspections (insStatus,
    insDate, observation), each of these with a list of infractions (infCategory, defDesc, infType, actionDesc, and outcomes inside).
    """
    return rows_of(raw)
