"""Toronto's bids portal: open solicitations, awarded and non-competitive contracts, as pages of OData."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of
from pipelines.formats.nested import beside

#: How the portal calls what is published, where letters alone do not tell.
CALLED = {
    "Document Number": "Solicitation_Document_Number",
    "RFx (Solicitation) Type": "Solicitation_Type",
    "Award Date": "Latest_Date_Awarded",
    "Solicitation Document Description": "Solicitation_Document_Description",
}


def count(page: Path) -> int | None:
    """How many records all pages have together, as a page says."""
    told = beside(page, "@odata.count")
    return int(told) if told is not None else None


@custom_reader("tobids_*", called=CALLED, total=count)
def tobids(raw: Raw) -> Iterator[dict[str, Any]]:
    """Pages `{"@odata.count": 2010, "value": [{Solicitation_Document_Number, High_Level_Category, …, [suppliers]}]}`: the connector asks for
    them ($top, $skip) until it has as many as the count; each supplier of an award is a row.
    """
    return rows_of(raw)
