"""How members of council voted: CSV of which some letters are those of Windows in the guise of another encoding."""

from collections.abc import Iterator
from typing import Any

from pipelines.formats.csv_table import encoding_of, records
from pipelines.formats.custom import Broken, Raw, custom_reader

#: \x92 and its like are control characters in latin1 and in Unicode; who wrote them meant an apostrophe, a dash, a quotation mark.
WINDOWS = {number: bytes([number]).decode("cp1252") for number in range(0x80, 0xA0) if number not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
#: The same bytes where they were no letters of the file's encoding at all.
WINDOWS |= {0xDC00 + number: letter for number, letter in WINDOWS.items()}


@custom_reader("council_votes", "*voting_record*", "*council_vote*")
def council_votes(raw: Raw) -> Iterator[dict[str, Any] | Broken]:
    """CSV (Term, First Name, Last Name, Committee, Date/Time, Agenda Item #, …), with Windows' punctuation as the characters that it was."""
    for row in records(raw.path, encoding_of(raw.options.get("encoding"))):
        yield row if isinstance(row, Broken) else {name: cell.translate(WINDOWS) for name, cell in row.items()}
