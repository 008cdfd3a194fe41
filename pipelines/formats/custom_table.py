"""Files that a custom reader reads: its rows, by the names of the configuration, each with its id, none of them twice.

Where `unique_id` is configured and the file has none, it is the MD5 of the row's values. Options: `id_fields`, the configured names of which
it is made (all others than itself where none are told: then no two different rows are ever taken for one); `custom_names`, {configured name:
the file's name} where they differ in more than case and signs; `jsonpath`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.formats.attributes import text
from pipelines.formats.custom import Broken, CustomReader, Raw
from pipelines.formats.nested import named
from pipelines.formats.table_reader import Batch, TableReader, Terms

UNIQUE = "unique_id"


class CustomTable(TableReader):
    """`helpers` gives the further files of the block by their role."""

    def __init__(self, terms: Terms, reader: CustomReader, helpers: Callable[[str], Iterator[Path]]):
        super().__init__(terms)
        self._reader, self._helpers = reader, helpers
        self._wanted = tuple(attribute.source for attribute in self.attributes)
        self._ids = tuple(terms.options.get("id_fields") or [name for name in self._wanted if name != UNIQUE])
        self._seen: set[bytes] = set()
        self._told: int | None = None
        self._counts: Counter[str] = Counter()

    def rows_of(self, page: Path, about: Mapping[str, Any], names: dict[str, None]) -> Iterator[Batch]:
        if self._reader.total is not None and (told := self._reader.total(page)) is not None:
            self._told = told
        raw = Raw(page, self._helpers, self.terms.options, self._wanted, self._counts)
        rows = named(self._reader.read(raw), self._wanted, {**self._reader.called, **(self.terms.options.get("custom_names") or {})})
        yield from self.in_batches(self._once(rows), names)

    def _once(self, rows: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """Numbered rows, each with its id, those left out that came before."""
        has_id = UNIQUE in self._wanted
        for number, row in enumerate(rows, start=1):
            if isinstance(row, Broken):
                self.refuse(number, row.reason, row.raw)
                continue
            if has_id and isinstance(row, dict):
                if UNIQUE not in row:
                    row[UNIQUE] = _md5("|".join(text(row.get(name)) for name in self._ids))
                mark = bytes.fromhex(_md5(text(row[UNIQUE])))
                if mark in self._seen:
                    self.tally.rows_in += 1
                    self.tally.duplicates += 1
                    continue
                self._seen.add(mark)
            yield number, row

    def finish(self) -> None:
        """Raises DataError where the files say that there are more records than came."""
        came = self._counts["records"]
        if self._told is not None and came < self._told:
            raise DataError(
                f"The source says that it has {self._told:,} records, and {came:,} came.",
                code="pages-missing",
                next_step="Run the block again from extract; if it stays so, the source is not read to its last page.",
            )


def _md5(written: str) -> str:
    return hashlib.md5(written.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
