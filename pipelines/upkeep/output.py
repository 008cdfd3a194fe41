"""Also into a folder: the files of the lake and the rows of the portal, for somebody who looks at them by hand."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from catalog import lake
from catalog.models import CatalogEntry
from pipelines.connectors import csv_dialects
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Run, RunState, Stage
from pipelines.stages.load import MADE_BY
from pipelines.stages.offer import offer
from pipelines.stages.pending import cell
from pipelines.warehouse.tables import Scope

LAYER_OF = {stage: layer for layer, stage in MADE_BY.items()}


class Output:
    """A folder, made if it is not there: every file flat in it under its own name, and the rows of each portal dataset in {resource}.csv.

    Use it with `with`. Raises SetupError where it can't be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder.expanduser().absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # a folder that can't be written is known before a night's work, not after it
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise SetupError(
                f"The folder {self.folder} can't be written: {error.strerror}.", code="output-folder", next_step="Name another one with -o."
            ) from error
        self.files = self.rows = 0
        #: which file of the lake has which name here
        self._names: dict[str, str] = {}
        self._open: dict[str, tuple[TextIO, Sequence[str]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    @property
    def words(self) -> str:
        tables = f", and {self.rows:,} rows in {', '.join(sorted(self._open))}" if self._open else ""
        return f"{self.files:,} file{'s' * (self.files != 1)} written to {self.folder}{tables}."

    def keep(self, pipeline: Pipeline, windows: Iterable[tuple[datetime, datetime]], stages: Sequence[str]) -> None:
        """Write what these stages have made of these windows: their files as the lake has them, and what publish has sent, from the warehouse."""
        for starts_at, _ in windows:
            good = set(
                Run.objects.filter(block__pipeline=pipeline, block__starts_at=starts_at, state__in=[RunState.DONE, RunState.UNCHANGED])
                .order_by()
                .values_list("stage", flat=True)
                .distinct()
            )
            self.keep_files(pipeline, starts_at, [stage for stage in stages if stage in good])
            if Stage.PUBLISH in stages and Stage.PUBLISH in good:
                block = pipeline.blocks.get(starts_at=starts_at)
                ours = offer(pipeline)
                for _, rows in ours.chunks(Scope(block_id=block.pk), 0):
                    self.keep_rows(pipeline, [column.name for column in ours.columns], rows)

    def keep_files(self, pipeline: Pipeline, starts_at: datetime, stages: Sequence[str]) -> None:
        """Write the live files of the window that these stages make."""
        for layer in (LAYER_OF[stage] for stage in stages if stage in LAYER_OF):
            for entry in CatalogEntry.objects.live().filter(source=pipeline.slug, layer=layer, window_start=starts_at):
                with lake.lake().open(entry.pointer) as stream, (self.folder / self._name(entry.pointer)).open("wb") as file:
                    shutil.copyfileobj(stream, file, lake.CHUNK)
                self.files += 1

    def _name(self, pointer: str) -> str:
        """The file's own name; where a file of another repository has it (the standard and the ready document share one), with its repository."""
        name = PurePosixPath(pointer).name
        if self._names.setdefault(name, pointer) == pointer:
            return name
        return f"{pointer.split('/')[0]}-{name}"

    def keep_rows(self, pipeline: Pipeline, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> int:
        """Add published rows to the dataset's file, which the first of them begins anew. Returns how many."""
        name = f"{lake.safe_name(pipeline.portal_resource or pipeline.slug).removesuffix('.csv')}.csv"
        if name not in self._open:
            file = self._stack.enter_context((self.folder / name).open("w", encoding="utf-8", newline=""))
            csv_dialects.writer(file).writerow(names)
            self._open[name] = file, names
        file, names = self._open[name]
        writer, before = csv_dialects.writer(file), self.rows
        for row in rows:
            writer.writerow([cell(row.get(name)) for name in names])
            self.rows += 1
        return self.rows - before


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, one by one."""
    csv.field_size_limit(max(csv.field_size_limit(), csv_dialects.LARGEST_CELL))
    with path.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)
