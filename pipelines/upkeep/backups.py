"""Backups of what a CKAN portal shows: a table's rows as Parquet beside its fields as JSON, in the lake; and the way back.

A backup is named by the sha256 of its content, rows and fields together, so the same content is one backup however often it is
made, and a note that changed is another. It is only called made when it was read again and gave the same sha256. Rows come in
pages, so the portal's cap on one answer (32,000 rows by default) cuts nothing off; a table that changed meanwhile is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from django.conf import settings
from django.utils import timezone
from django.utils.text import slugify

from catalog import audit, lake
from catalog.audit import Actor
from catalog.models import CatalogEntry, Dataset, Layer
from pipelines import clock
from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import DataError, PipelineError, SetupError, TransientError
from pipelines.models import Pipeline, Provider, UpkeepJob, UpkeepRun
from pipelines.stages import outside
from pipelines.upkeep.jobs import Job, Note

#: Rows of one question; what the portal gives of them is counted, for its own cap may be lower.
PAGE = 20_000
#: What Parquet keeps as such; of all other types the text, as the portal writes it, is what comes back unchanged.
PARQUET = {"int": "BIGINT", "int4": "BIGINT", "int8": "BIGINT", "float": "DOUBLE", "float8": "DOUBLE", "bool": "BOOLEAN"}
MEMORY = "256MB"
DATA, FIELDS = "data", "fields"
Row = dict[str, Any]


@dataclass(frozen=True)
class Holding:
    """A table of a portal: whose it is, under which name the catalog keeps its backups (`source`), and by what its rows are told."""

    portal: Provider
    package: str
    table: str
    dataset: Dataset
    source: str
    key: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        """As a CKAN connector takes it: "package/Resource name"."""
        return f"{self.package}/{self.table}"

    @property
    def base(self) -> str:
        return f"{slugify(self.package)[:50]}__{slugify(self.table)[:50]}"

    def entries(self, kind: str = DATA):
        """The live files of this table's backups, the newest first."""
        there = CatalogEntry.objects.live().filter(source=self.source, layer=Layer.BACKUP, id_base__startswith=f"{self.base}__")
        return there.filter(id_base__endswith=f"__{kind}").order_by("-created_at", "-pk")


@dataclass(frozen=True)
class Backup:
    """A backup that was read again: where it lies, and what is in it. `is_new` False: the same content was there already."""

    sha256: str
    data: CatalogEntry
    fields: CatalogEntry
    is_new: bool

    @property
    def rows(self) -> int:
        return self.data.rows or 0

    @property
    def columns(self) -> int:
        return len(self.data.metadata["columns"])

    @property
    def words(self) -> str:
        return f"{self.columns:,} columns and {self.rows:,} rows as {self.data.pointer}"


def of_pipeline(pipeline: Pipeline) -> Holding:
    """What the pipeline publishes. Raises SetupError where that is no table of a CKAN portal."""
    package, _, table = pipeline.portal_resource.partition("/")
    if not pipeline.portal or pipeline.portal.kind != Ckan.kind or not table:
        raise SetupError(
            f"{pipeline.title} publishes to no table of a CKAN portal, so there is nothing to back up.",
            code="not-ckan",
            next_step="Choose a pipeline whose portal is a CKAN, and whose resource there is written as package/Resource name.",
        )
    return Holding(pipeline.portal, package, table, pipeline.dataset, pipeline.slug, tuple(pipeline.key))


# saving


def back_up(holding: Holding, portal: Ckan | None = None, note: Note | None = None) -> Backup:
    """Back the table up as it is now. Raises PipelineError; then nothing is called a backup that is none."""
    with _asked(holding, portal) as portal, outside.scratch() as folder:
        resource = table_of(portal, holding)
        fields = fields_of(portal, resource)
        lines = folder / "rows.json"
        sha256, rows = _write_lines(lines, portal, resource, fields, note)
        if found := _there(holding, sha256):
            return found
        parquet = folder / "rows.parquet"
        _write_parquet(lines, parquet, fields)
        told = {"package": holding.package, "resource": holding.table, "resource_id": resource["id"], "sha256": sha256, "rows": rows,
                "primary_key": list(holding.key), "fields": fields}  # fmt: skip
        again, count = content_sha256(fields, rows_of(parquet, fields))
        if (again, count) != (sha256, rows):
            raise DataError(
                f"The backup of {holding.resource} did not come back as it was written: {count:,} of {rows:,} rows, sha256 {again[:12]}.",
                code="backup-broken",
                next_step="Report it; the portal was not touched.",
            )
        words = folder / "fields.json"
        words.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
        return Backup(
            sha256,
            _shelve(holding, parquet, f"{DATA}", ".parquet", sha256, rows, resource, fields),
            _shelve(holding, words, f"{FIELDS}", ".json", sha256, None, resource, fields),
            is_new=True,
        )


@contextmanager
def _asked(holding: Holding, portal: Ckan | None) -> Iterator[Ckan]:
    """The portal that the caller has open, else one of our own, closed again."""
    if portal is not None:
        yield portal
        return
    own = outside.connector(holding.portal)
    with own.door:
        yield own


def table_of(portal: Ckan, holding: Holding) -> dict[str, Any]:
    """CKAN's own words of the table: the one resource of that name. Raises SetupError for none, or several."""
    package = portal.action("package_show", id=holding.package)
    found = [one for one in package.get("resources", []) if one.get("name") == holding.table]
    if len(found) != 1:
        names = ", ".join(repr(one.get("name")) for one in package.get("resources", [])) or "none"
        raise SetupError(
            f"{holding.package} has {len(found) or 'no'} resource{'s' * (len(found) != 1)} named {holding.table!r}; it has {names}.",
            code="no-such-resource",
            next_step="Correct the resource's name here or on the portal.",
        )
    return found[0]


def fields_of(portal: Ckan, resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table's fields as a new table takes them: id, type and info, without CKAN's own row number. Raises SetupError."""
    told = portal.action("datastore_search", resource_id=resource["id"], limit=0)
    return [{name: one[name] for name in ("id", "type", "info") if one.get(name)} for one in told["fields"] if one["id"] != "_id"]


def _write_lines(lines: Path, portal: Ckan, resource: Mapping[str, Any], fields: list[dict[str, Any]], note: Note | None) -> tuple[str, int]:
    """Write the table's rows, a JSON object a line, in CKAN's order. Returns (sha256 of the content, number of rows)."""
    names = parquet_names(fields)
    with lines.open("w", encoding="utf-8") as file:

        def told() -> Iterator[Row]:
            for row in _pages(portal, resource, note):
                file.write(json.dumps({names[one["id"]]: _kept(row.get(one["id"]), one["type"]) for one in fields}, ensure_ascii=False) + "\n")
                yield row

        return content_sha256(fields, told())


def _pages(portal: Ckan, resource: Mapping[str, Any], note: Note | None) -> Iterator[Row]:
    """Every row of the table. Raises TransientError where it changed while it was read."""
    ask = {"resource_id": resource["id"], "sort": "_id", "limit": PAGE}
    total = read = None
    while total is None or read < total:
        page = portal.action("datastore_search", offset=read or 0, include_total=True, **ask)
        total = page["total"] if total is None else total
        read = (read or 0) + len(page["records"])
        yield from page["records"]
        if note:
            note(f"{read:,} of {total:,} rows of {resource['name']} read")
        if page["total"] != total or (not page["records"] and read < total):
            break
    now = portal.action("resource_show", id=resource["id"])
    last = portal.action("datastore_search", resource_id=resource["id"], limit=0)["total"]
    if not read == total == last or now.get("last_modified") != resource.get("last_modified"):
        raise TransientError(
            f"{resource['name']} changed while it was read: {total:,} rows before, {read:,} read, {last:,} after. No backup was made.",
            code="source-moved",
        )


def content_sha256(fields: list[dict[str, Any]], rows: Iterable[Row]) -> tuple[str, int]:
    """(sha256 of fields and rows, number of rows): of the same table the same, whatever order JSON's names come in."""
    digest = hashlib.sha256(_canonical(fields))
    number = 0
    for row in rows:
        digest.update(_canonical([_kept(row.get(one["id"]), one["type"]) for one in fields]))
        number += 1
    return digest.hexdigest(), number


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _kept(value: Any, kind: str) -> Any:
    """A value as Parquet keeps it: numbers and truths as such, anything else as text; a list or an object is its JSON."""
    if value is None:
        return None
    if kind in PARQUET:
        # 3.0 of a portal's JSON is 3 when a double is written again
        return float(value) if PARQUET[kind] == "DOUBLE" else value
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def parquet_names(fields: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Field to column of the Parquet file: the same, but for those that only differ in the case of their letters."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for one in fields:
        name, number = one["id"], 1
        while name.lower() in taken:
            number += 1
            name = f"{one['id']}_{number}"
        taken.add(name.lower())
        names[one["id"]] = name
    return names


def _write_parquet(lines: Path, target: Path, fields: list[dict[str, Any]]) -> None:
    names = parquet_names(fields)
    kinds = ", ".join(f"{_text(names[one['id']])}: '{PARQUET.get(one['type'], 'VARCHAR')}'" for one in fields)
    # names and paths are quoted; there is no database here to be told anything else
    query = f"read_json({_text(str(lines))}, format = 'newline_delimited', columns = {{{kinds}}}, compression = 'none')"
    with _duckdb(lines.parent) as database:
        database.execute(f"copy (select * from {query}) to {_text(str(target))} (format parquet)")  # noqa: S608


def rows_of(parquet: Path, fields: list[dict[str, Any]]) -> Iterator[Row]:
    """The rows of a backup in their order, by field; a value of a JSON field is the text of its JSON."""
    names = parquet_names(fields)
    wanted = ", ".join(_name(names[one["id"]]) for one in fields)
    with _duckdb(parquet.parent) as database:
        found = database.execute(f"select {wanted} from read_parquet({_text(str(parquet))})")  # noqa: S608
        while batch := found.fetchmany(PAGE):
            for values in batch:
                yield {one["id"]: value for one, value in zip(fields, values, strict=True)}


def _duckdb(folder: Path) -> duckdb.DuckDBPyConnection:
    settled = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(folder), "autoinstall_known_extensions": False}
    database = duckdb.connect(config=settled)
    database.execute("set enable_progress_bar = false")
    return database


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _there(holding: Holding, sha256: str) -> Backup | None:
    data = holding.entries().filter(id_base=f"{holding.base}__{sha256}__{DATA}").first()
    words = holding.entries(FIELDS).filter(id_base=f"{holding.base}__{sha256}__{FIELDS}").first()
    return Backup(sha256, data, words, is_new=False) if data and words else None


def _shelve(
    holding: Holding,
    file: Path,
    kind: str,
    ext: str,
    sha256: str,
    rows: int | None,
    resource: Mapping[str, Any],
    fields: list[dict[str, Any]],
) -> CatalogEntry:
    return lake.shelve(
        dataset=holding.dataset,
        source=holding.source,
        layer=Layer.BACKUP,
        window=clock.window_at("daily", settings.TIME_ZONE, timezone.now()),
        file=file,
        name=f"{holding.base}__{sha256}__{kind}{ext}",
        identity=(f"{holding.base}__{sha256}__{kind}", ext),
        sha256=lake.fingerprint(file),
        bytes=file.stat().st_size,
        rows=rows,
        origin=f"{holding.portal.base_url} {resource['id']}",
        metadata={"content": sha256, "columns": [[one["id"], one["type"]] for one in fields], "resource_id": resource["id"]},
    )


# the way back


def chosen(holding: Holding, sha256: str = "") -> Backup:
    """The newest backup of the table, or the one whose sha256 begins so. Raises SetupError."""
    there = [entry.metadata["content"] for entry in holding.entries()]
    found = [one for one in there if one.startswith(sha256)]
    if not found:
        known = ", ".join(one[:12] for one in there[:10]) or "none"
        raise SetupError(
            f"{holding.resource} has no backup {sha256[:12]!r}; there are: {known}." if sha256 else f"{holding.resource} has no backup.",
            code="no-backup",
            next_step="Choose one of these, or make one first.",
        )
    if sha256 and len(set(found)) > 1:
        raise SetupError(
            f"{len(found)} backups of {holding.resource} begin with {sha256}.", code="several-backups", next_step="Write more of its sha256."
        )
    return _there(holding, found[0])


def restore(holding: Holding, backup: Backup, *, actor: Actor, reason: str = "", portal: Ckan | None = None) -> int:
    """Put a backup in the place of what the table holds, in one step; rows, types, keys and notes are as they were. Returns the rows.

    What is there now is backed up first. The warehouse is left alone: the pipeline's next forced publication sends its rows again.
    Audited. Raises PipelineError; then the table is as it was.
    """
    with _asked(holding, portal) as portal, outside.scratch() as folder:
        told = json.loads(_local(backup.fields, folder).read_text(encoding="utf-8"))
        parquet = _local(backup.data, folder)
        fields = told["fields"]
        sha256, rows = content_sha256(fields, rows_of(parquet, fields))
        if sha256 != backup.sha256:
            raise DataError(
                f"The backup {backup.data.pointer} is not what it was when it was made (sha256 {sha256[:12]}, not {backup.sha256[:12]}).",
                code="backup-broken",
                next_step="Choose another backup.",
            )
        before = back_up(holding, portal)
        portal.exchange(holding.resource, fields, lambda: as_sent(parquet, fields), rows=rows, key=tuple(told["primary_key"]))
        held = portal.published_count(holding.resource)
    words = f"{rows:,} rows of {backup.sha256[:12]} restored; what was there is {before.sha256[:12]}"
    audit.write(actor, "restore", kind="table", target=holding.resource, reason=reason, result=words, restored=backup.sha256, before=before.sha256)
    if held != rows:
        raise DataError(f"{holding.resource} has {held:,} rows after {rows:,} were restored.", code="portal-miscounted", next_step="Restore again.")
    return rows


def as_sent(parquet: Path, fields: list[dict[str, Any]]) -> Iterator[list[Row]]:
    """The rows of a backup as CKAN takes them, in batches of `PAGE`."""
    nested = {one["id"] for one in fields if one["type"] in ("json", "jsonb") or one["type"].startswith("_")}
    batch: list[Row] = []
    for row in rows_of(parquet, fields):
        batch.append({name: json.loads(value) if name in nested and value is not None else value for name, value in row.items()})
        if len(batch) == PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _local(entry: CatalogEntry, folder: Path) -> Path:
    return lake.lake().local_path(entry.pointer, folder, sha256=entry.sha256)


# now and then


class BackUpTables(Job):
    """What `manage.py backups make` does, now and then."""

    kind = "backups"
    label = "Back up what the portal shows"
    about = "Keeps the rows of each table of a CKAN portal as Parquet, with its fields beside it, where they changed since the last backup."
    can_dry = True
    options = (Parameter("keep", "Backups of a table to keep", default="10", help="The oldest beyond so many are taken out of the lake. 0: all."),)

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        keep = self.number(job, "keep")
        rows: list[list[Any]] = []
        made = failed = 0
        for pipeline in self.pipelines_of(job).filter(portal__kind=Ckan.kind, twin_of=None).order_by("slug"):
            try:
                holding = of_pipeline(pipeline)
                if note.is_dry:
                    rows.append([pipeline.slug, holding.resource, None, "would be read", ""])
                    continue
                backup = back_up(holding, note=note)
            except PipelineError as error:
                # one table that can't be read must not keep the others from being saved
                failed += 1
                rows.append([pipeline.slug, pipeline.portal_resource, None, f"failed: {error.message}", ""])
                continue
            made += backup.is_new
            thin_out(holding, keep)
            rows.append([pipeline.slug, holding.resource, backup.rows, "saved" if backup.is_new else "as it was", backup.sha256[:12]])
        note.findings(["pipeline", "table", "rows", "what", "sha256"], rows)
        words = f"{len(rows):,} tables, {made:,} saved, {len(rows) - made - failed:,} as they were, {failed:,} failed"
        if failed:
            note.notice(f"Backups: {words}", trouble=True)
            first = next(row for row in rows if str(row[3]).startswith("failed"))
            raise DataError(f"{words}. {first[1]} {first[3]}", code="backups-failed", next_step="Look at its findings.")
        return f"{words}." if not note.is_dry else f"{len(rows):,} tables would be read."


def thin_out(holding: Holding, keep: int) -> int:
    """Take the oldest backups beyond `keep` out of the lake; 0 keeps all. Returns how many."""
    old = list(holding.entries()[keep:]) if keep else []
    for entry in old:
        words = holding.entries(FIELDS).filter(id_base=entry.id_base.removesuffix(DATA) + FIELDS)
        for one in (entry, *words):
            # a backup is no evidence of what came: when it goes, its line in the catalog goes with it, for the lake keeps what is named there
            CatalogEntry.objects.filter(pk=one.pk).delete()
            lake.lake().delete(one.pointer)
    return len(old)
