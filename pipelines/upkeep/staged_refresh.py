"""Refresh a table of a CKAN portal from a file that somebody laid into a staging folder: back up, check, exchange, remove the file.

What refresh_covid_data did by one script (facts/toronto.md §1.2), without its gap: the file is read and judged before anything is
touched, the rows are exchanged in one step, and where the portal then has another number of them the backup is put back.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from dateutil import parser as dates

from catalog.audit import Actor
from catalog.models import Dataset
from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import DataError, SetupError
from pipelines.models import Provider, UpkeepJob, UpkeepRun
from pipelines.stages import outside
from pipelines.upkeep import backups, portals
from pipelines.upkeep.backups import PAGE, Holding, Row
from pipelines.upkeep.jobs import Job, Note

TRUTHS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
WHOLE = {"int", "int4", "int8", "bigint"}
BROKEN = {"float", "float8", "float4"}


class RefreshFromStagedFile(Job):
    """Puts the rows of a staged CSV file in the place of those of a package's only table."""

    kind = "staged-refresh"
    label = "Refresh from a staged file"
    about = "When a CSV file lies in the staging folder, it becomes what a table of the portal shows; the former rows are backed up first."
    can_dry = True
    options = (
        portals.PORTAL,
        Parameter("package", "Package", required=True, help="Its name on the portal; it must have exactly one table."),
        Parameter(
            "file",
            "File",
            required=True,
            help="The whole path of the CSV file, like /srv/staging/covid19cases.csv. It is removed when all went well.",
        ),
        Parameter("dates", "Columns with dates", help="Separated by commas: dates there may be written in any form."),
        Parameter("sort", "Sorted by", help="A column. Empty: in the file's order."),
    )

    def has_work(self, job: UpkeepJob) -> bool:
        return Path(self.word(job, "file")).is_file()

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        for name in ("package", "file"):
            if not self.word(job, name):
                raise SetupError(f"{job}: {name} is not set.", code="bad-option", next_step="Enter it under Settings, Upkeep jobs.")
        with portals.asked(job, self.word(job, "portal"), note) as portal:
            return self._refresh(job, run, note, portal)

    def _refresh(self, job: UpkeepJob, run: UpkeepRun, note: Note, portal: Ckan) -> str:
        package, table = _table(portal, self.word(job, "package"))
        title, resource = package.get("title") or package["name"], f"{package['name']}/{table['name']}"
        file = Path(self.word(job, "file"))
        if not file.is_file():
            raise DataError(f"There is no staged file {file}.", code="no-staged-file", next_step="Lay it there, then run this again.")
        with outside.scratch() as folder:
            staged = Staged(file, folder, backups.fields_of(portal, table), self.words(job, "dates"), self.word(job, "sort"))
            had = portal.published_count(resource)
            if note.is_dry:
                _, rows = staged.judge()
                return f"{title}: {rows:,} records would take the place of {had:,}."
            holding = _holding(portals.provider(job, self.word(job, "portal")), package, table)
            before = backups.back_up(holding, portal, note)
            sha256, rows = staged.judge()
            if last := _loaded_last(job, sha256):
                words = f"{title}: data is not new, UID of backup files: {sha256}. Nothing to load."
                note(words, prepared=sha256, same_as=last)
                file.unlink()
                note.notice(words, trouble=False)
                return words
            portal.exchange(resource, staged.fields, staged.batches, rows=rows)
            held = portal.published_count(resource)
            if held != rows:
                backups.restore(holding, before, actor=Actor(run.asked_by), reason=f"{held:,} of {rows:,} rows arrived", portal=portal)
                raise DataError(
                    f"{title}: {held:,} of {rows:,} records arrived; what was there before is restored.",
                    code="portal-miscounted",
                    next_step="Run it again.",
                )
        portal.action("resource_patch", id=table["id"], last_modified=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
        # last of all: until here the same run may begin again
        file.unlink()
        words = f"{title} refreshed: {rows:,} records, {had:,} before."
        note(words, prepared=sha256, rows=rows, before=before.sha256)
        note.notice(f"{title} refreshed: from {had:,} to {rows:,} records", trouble=False)
        return words


def _table(portal: Ckan, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """CKAN's words of the package, and of its only table. Raises SetupError."""
    package = portal.action("package_show", id=name)
    tables = [one for one in package["resources"] if portals.in_datastore(one)]
    if len(tables) != 1:
        raise SetupError(
            f"{package['name']} has {len(tables):,} tables, and exactly one is wanted here.",
            code="not-one-table",
            next_step="Choose a package with one table, or refresh each by a pipeline.",
        )
    return package, tables[0]


def _holding(provider: Provider, package: dict[str, Any], table: dict[str, Any]) -> Holding:
    """Under which name the catalog keeps its backups; a dataset that it does not know yet is made."""
    dataset, _ = Dataset.objects.get_or_create(slug=package["name"][:100], defaults={"title": package.get("title") or package["name"]})
    return Holding(provider, package["name"], table["name"], dataset, f"staged-{package['name']}"[:80])


def _loaded_last(job: UpkeepJob, sha256: str) -> int | None:
    """The number of the newest run that loaded something, if that was the same content."""
    last = job.runs.filter(state=UpkeepRun.State.DONE, is_dry=False, details__prepared__isnull=False).first()
    return last.pk if last and last.details["prepared"] == sha256 else None


@dataclass
class Staged:
    """A staged CSV file, read as the table's fields want it; sorted on disk, so a large one takes no more memory than a small one."""

    file: Path
    folder: Path
    fields: list[dict[str, Any]]
    dates: list[str]
    sort: str

    def judge(self) -> tuple[str, int]:
        """(sha256 of the rows as they would be sent, their number). Raises DataError naming line, column and value."""
        self._same_columns()
        digest, number = hashlib.sha256(), 0
        for batch in self.batches():
            for row in batch:
                digest.update(json.dumps([row[one["id"]] for one in self.fields], ensure_ascii=False).encode() + b"\n")
            number += len(batch)
        if not number:
            raise DataError(f"{self.file} has no rows, and what is shown now would be lost.", code="empty-file", next_step="Lay a whole file there.")
        return digest.hexdigest(), number

    def _same_columns(self) -> None:
        with self.file.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream), [])
        wanted = [one["id"] for one in self.fields]
        wrong = [f"{name!r} is missing" for name in wanted if name not in header] + [
            f"{name!r} is not a column there" for name in header if name not in wanted
        ]
        wrong += [f"{name!r} is to be read as a date, and is no column" for name in self.dates if name not in wanted]
        wrong += [f"{self.sort!r} is to be sorted by, and is no column"] if self.sort and self.sort not in wanted else []
        if wrong:
            raise DataError(f"{self.file}: {'; '.join(wrong)}.", code="wrong-columns", next_step="Correct the file or the job; nothing was changed.")

    def batches(self) -> Iterator[list[Row]]:
        """The rows as CKAN takes them, in their order."""
        kinds = {one["id"]: one["type"] for one in self.fields}
        number = 0
        names = list(kinds)
        for values in self._read(names):
            rows = []
            for line in values:
                number += 1
                rows.append({name: self._value(name, kinds[name], value, number) for name, value in zip(names, line, strict=True)})
            yield rows

    def _read(self, names: list[str]) -> Iterator[list[tuple]]:
        shown = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        order = ""
        if self.sort:
            column = '"' + self.sort.replace('"', '""') + '"'
            order = f" order by try_cast({column} as double), {column}"
        path = str(self.file).replace("'", "''")
        config = {"threads": 1, "memory_limit": backups.MEMORY, "temp_directory": str(self.folder), "autoinstall_known_extensions": False}
        with duckdb.connect(config=config) as database:
            database.execute("set enable_progress_bar = false")
            source = f"read_csv('{path}', header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', nullstr = '')"
            try:
                found = database.execute(f"select {shown} from {source}{order}")  # noqa: S608  names and path are quoted
            except duckdb.Error as error:
                first = str(error).splitlines()[0]
                raise DataError(f"{self.file} can't be read: {first}", code="bad-csv", next_step="Correct the file; nothing was changed.") from error
            while batch := found.fetchmany(PAGE):
                yield batch

    def _value(self, name: str, kind: str, value: str | None, number: int) -> Any:
        text = (value or "").strip()
        if not text:
            return None
        try:
            if name in self.dates:
                return dates.parse(text).date().isoformat()
            if kind in WHOLE:
                return int(text)
            if kind in BROKEN:
                return float(text)
            if kind == "bool":
                return TRUTHS[text.lower()]
            if kind in ("json", "jsonb"):
                return json.loads(text)
        except (ValueError, KeyError, OverflowError):
            what = "date" if name in self.dates else kind
            raise DataError(
                f"{self.file}: {value!r} of {name} is no {what} (row {number:,}{f' by {self.sort}' if self.sort else ''}).",
                code="bad-value",
                next_step="Correct the file; nothing was changed.",
            ) from None
        return value
