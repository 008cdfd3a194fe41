"""How often the portal's API was called, as a function in the cloud (AWS Lambda) answers."""

from collections.abc import Iterator
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.attributes import loads
from pipelines.formats.custom import Raw, custom_reader
from pipelines.formats.custom_json import rows_of
from pipelines.formats.nested import beside, flatten


@custom_reader("ckan_api_usage", "*api_usage*")
def ckan_api_usage(raw: Raw) -> Iterator[dict[str, Any]]:
    """A list of records, bare or in Lambda's envelope `{"statusCode": 200, "body": "[…]"}`, whose body is JSON in a text."""
    body = beside(raw.path, "body")
    if not isinstance(body, str):
        yield from rows_of(raw)
        return
    status = beside(raw.path, "statusCode")
    if status is not None and int(status) >= 400:
        words = f"{raw.path.name} is an error of the source ({status}): {body[:200]}."
        raise DataError(words, code="source-error", next_step="Run the block again from extract.")
    held = loads(body)
    for record in held if isinstance(held, list) else [held]:
        yield from flatten(record, raw.wanted)
