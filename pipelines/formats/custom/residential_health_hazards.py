"""Complaints about health hazards in homes: addresses → complaints or inspections → findings."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of


@custom_reader("residential_health_hazards", "residential_health_*")
def residential_health_hazards(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list of addresses, or of complaints, with lists of inspections and of what was found inside; their names are the configuration's."""
    return rows_of(raw)
