"""CSV files in a folder: a publication is one complete file, which replaces the last one in a single step."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from pipelines.connectors.base import Account, Column, Connector, Parameter, Published
from pipelines.connectors.csv_dialects import BACKSLASH, DIALECTS, RFC4180, rows_of, writer
from pipelines.connectors.csv_pages import count_records
from pipelines.errors import SetupError, TransientError


class CsvFile(Connector):
    """A folder that takes CSV files (UTF-8, header of field names, commas, quotes doubled, LF). A resource is a file name.

    A data export keeps the values as they are: a cell that begins with `=` is not disarmed for spreadsheets, because the
    readers of these files are programs. An absent value and an empty text both become an empty cell.
    """

    kind = "csv_file"
    label = "CSV file in a folder"
    can_publish = True
    publishes_whole = True
    address_hint = "/srv/open-data"
    parameters = (
        Parameter(
            "dialect",
            "Dialect",
            default=RFC4180,
            help="rfc4180: quotes are doubled. backslash: quotes, tabs and line ends have a \\ before them, as MySQL and GatherAndStore read them.",
        ),
    )

    def __init__(self, account: Account, door: Any):
        super().__init__(account, door)
        self._open: dict[str, tuple[TextIO, tuple[str, ...]]] = {}

    @property
    def dialect(self) -> str:
        """How the files are written. Raises SetupError for a dialect that there is not."""
        told = self.account.parameters.get("dialect", "").strip().lower() or RFC4180
        if told not in DIALECTS:
            raise SetupError(
                f"provider {self.account.slug} is to write CSV in the dialect {told!r}, which there is not",
                code="unknown-dialect",
                next_step=f"Write {' or '.join(DIALECTS)} as the dialect of provider {self.account.slug}.",
            )
        return told

    @property
    def folder(self) -> Path:
        """The folder. Raises SetupError if it is not one that can be written."""
        folder = self.whole_path
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise SetupError(
                f"the folder {folder} does not exist or may not be written",
                code="folder",
                next_step=f"Create {folder} and let the user that runs the workers write there.",
            )
        return folder

    def _path(self, resource: str) -> Path:
        """Where the file of `resource` lies: always directly in the folder."""
        name = resource if resource.lower().endswith(".csv") else f"{resource}.csv"
        if not resource or resource.startswith(".") or Path(name).name != name or not name.isprintable() or "\\" in name:
            raise SetupError(
                f"{resource!r} is not a plain file name",
                code="bad-resource",
                next_step="Enter a name like requests.csv, without folders and not beginning with a dot.",
            )
        return self.folder / name

    def test(self) -> str:
        held = sum(1 for _ in self.folder.glob("*.csv"))
        return f"{self.folder} can be written; it holds {held:,} CSV files"

    def preflight(self, resource: str, *, columns: Iterable[Column], key: tuple[str, ...], replaces: bool = False) -> tuple[Column, ...]:
        """A file takes any columns; only its folder, its name and its dialect can be wrong."""
        self._path(resource)
        _ = self.dialect
        return tuple(columns)

    def open_publication(self, resource: str, columns: tuple[Column, ...]) -> None:
        path, dialect = self._path(resource), self.dialect
        # One name for all attempts: what a killed one left is overwritten by the next. The lock dies with its process.
        part = path.with_name(f".{path.name}.part")
        file = part.open("a", encoding="utf-8", newline="")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # between our open and our lock its writer may have given it its name: what we hold would be the public file
            ours = part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno()))
        except BlockingIOError:
            ours = False
        if not ours:
            file.close()
            raise TransientError(f"another publication is writing {path} now", code="busy")
        file.truncate(0)
        names = tuple(column.name for column in columns)
        writer(file, dialect).writerow(names)
        self._open[resource] = (file, names)

    def upsert(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Add rows to the file that is being written; nobody sees them before `close_publication`."""
        file, names = self._open[resource]
        writer(file, self.dialect).writerows([_cell(row.get(name)) for name in names] for row in rows)
        return Published(created=len(rows))

    def close_publication(self, resource: str) -> None:
        file, _ = self._open.pop(resource)
        path = self._path(resource)
        with file:
            file.flush()
            # on disk before it has the name: after a power cut the name must not point to nothing
            os.fsync(file.fileno())
            path.with_name(f".{path.name}.part").replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def published_count(self, resource: str) -> int:
        """The rows of the file that readers see; 0 while there is none."""
        path = self._path(resource)
        if not path.exists():
            return 0
        # a quote behind a backslash is none: these records can't be counted by their quotes
        records = sum(1 for _ in rows_of(path, BACKSLASH)) if self.dialect == BACKSLASH else count_records(path)
        return max(records - 1, 0)


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return value
