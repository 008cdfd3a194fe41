"""What the cells of a table say, column by column, for who judges its quality: described once, and counted by each engine's `cells`."""

from __future__ import annotations

from dataclasses import dataclass

#: Texts that say nothing: what pandas 1.5 takes for missing in a CSV file, by which open-data-toronto counted.
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan",
    "null",
)  # fmt: skip
#: The same of a JSON value as text: a null, or a text that says nothing.
MISSING_JSON = ("", "null", '""')
#: What may be the smallest or the largest text of a column, and says nothing.
SAY_NOTHING = {*MISSING, *MISSING_JSON}
#: The column with a row's shape: whether all are the same nobody asks, and to compare shapes would take long.
SHAPE = "geometry"
#: So many rows are looked at for samples, and so much is kept of a value.
SAMPLE_ROWS, SAMPLE_LENGTH = 5, 200


@dataclass(frozen=True)
class ColumnCells:
    """One column: its type in our words, how many of its cells are missing, whether the others all say the same, and some of its values as text.

    Without any value, a column says the same as well. Of the column `geometry` that is not asked: it is never constant.
    """

    name: str
    type: str
    missing: int
    is_constant: bool
    sample: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cells:
    """The number of rows, and the columns that were asked for."""

    rows: int
    columns: tuple[ColumnCells, ...]


def samples(rows: list[tuple[str | None, ...]], width: int) -> list[tuple[str, ...]]:
    """For each of so many columns its different values in these rows, missing ones too."""
    found = []
    for place in range(width):
        values = ["" if row[place] is None else str(row[place]) for row in rows]
        found.append(tuple(dict.fromkeys(value if len(value) <= SAMPLE_LENGTH else f"{value[: SAMPLE_LENGTH - 1]}…" for value in values)))
    return found
