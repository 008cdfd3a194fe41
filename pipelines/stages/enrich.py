"""Enrich: lake, standard → lake, ready. Every row gets the keys of the areas in which its points lie; the rest of it stays as it is, byte for byte.

A pipeline without a standardize stage has its raw files enriched. A point outside a layer, or none, makes an empty cell (NULL).
The documents of sensors are joined with the inventory instead (`ready.py`).
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from django.db.models import Max
from django.db.models.functions import Now

from catalog import boundaries, lake
from catalog.boundaries import Areas
from catalog.models import CatalogEntry, DatasetColumn, Layer
from pipelines.blocks import Counts, Outcome
from pipelines.connectors.csv_dialects import LARGEST_CELL
from pipelines.errors import DataError, SetupError
from pipelines.faults import faultpoint
from pipelines.formats import json_rows
from pipelines.models import Enrichment, Pipeline, Run, Stage
from pipelines.stages import documents
from pipelines.stages.load import files_of
from pipelines.stages.note import Note
from pipelines.stages.ready import ready

#: Rows whose points are looked up at once: memory is a piece of the file, and a sweep over the areas pays.
CHUNK = 50_000
#: The flag of a row whose points all lie outside the layer that is named first.
OUTSIDE_CITY = "outside-city"


# rows and columns, without the database


@dataclass(frozen=True)
class Lookup:
    """A column to add: the key of the area of `layer` in which the point of the columns `lon` and `lat` lies."""

    column: str
    lon: str
    lat: str
    layer: str
    areas: Areas


@dataclass
class Tally:
    """What was counted: rows in all, flagged rows, and for each new column its points inside, outside, and rows without a point."""

    rows: int = 0
    outside_city: int = 0
    inside: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    no_point: dict[str, int] = field(default_factory=dict)

    def add(self, column: str, inside: int, points: int, rows: int) -> None:
        for counts, number in ((self.inside, inside), (self.outside, points - inside), (self.no_point, rows - points)):
            counts[column] = counts.get(column, 0) + number


def add_columns(source: Path, target: Path, lookups: Sequence[Lookup], tally: Tally, progress: Callable[[int], None] = lambda rows: None) -> str:
    """Write the CSV file `source` to `target` with a column more for each look-up; returns the sha256 of what was written.

    The rows are counted in `tally`, and `progress` hears how many it has. What stands in a row is not touched: a row that can't be
    understood goes on as it is, longer by the same commas, and is the loader's to reject. Raises SetupError where a column is not
    there or already is.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    digest = hashlib.sha256()
    # Latin-1 takes every byte and gives it back; what is looked at are commas, quotes and digits
    with source.open(encoding="latin-1", newline="\n") as given, target.open("wb") as made:

        def write(lines: Iterable[str]) -> None:
            piece = "".join(lines).encode("latin-1")
            digest.update(piece)
            made.write(piece)

        [head], _ = next(_chunks(given, 1), ([""], False))
        names = [_utf8(name) for name in next(csv.reader([head]), [])]
        pairs = _places(source.name, names, lookups)
        write(_longer([head], ["".join(f",{one.column}" for one in lookups)]))
        texts = [_cells(one.areas) for one in lookups]
        places = sorted({place for pair in pairs.values() for place in pair})
        for lines, has_quotes in _chunks(given, CHUNK):
            cells = (None if has_quotes else _by_commas(lines, len(names), places)) or _by_reader(lines, len(names), places)
            write(_longer(lines, _looked_up(cells, len(lines), lookups, pairs, texts, tally)))
            tally.rows += len(lines)
            progress(tally.rows)
    return digest.hexdigest()


def _chunks(file: TextIO, size: int) -> Iterator[tuple[list[str], bool]]:
    """So many records at a time as they stand, and whether a quote is among them.

    A line end between quotes is part of its record: records are counted here as they were when the file came.
    """
    while lines := list(islice(file, size)):
        has_quotes = '"' in "".join(lines)
        yield (list(_joined(lines, file)) if has_quotes else lines), has_quotes


def _joined(lines: list[str], rest: Iterator[str]) -> Iterator[str]:
    """Records of lines; the last one is read to its end."""
    held: list[str] = []
    is_open = 0
    for line in lines:
        is_open ^= line.count('"') & 1
        if held or is_open:
            held.append(line)
        if is_open:
            continue
        yield "".join(held) if held else line
        held = []
    for line in rest if is_open else ():
        held.append(line)
        if line.count('"') & 1:
            break
    if held:
        yield "".join(held)


def _longer(lines: Sequence[str], more: Sequence[str]) -> Iterator[str]:
    """Each record with its new cells before its line end; the last one of a file is given one."""
    for line, cells in zip(lines, more, strict=True):
        if line[-1:] != "\n":
            yield f"{line}{cells}\n"
        elif line[-2:] == "\r\n":
            yield f"{line[:-2]}{cells}\r\n"
        else:
            yield f"{line[:-1]}{cells}\n"


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _places(name: str, names: list[str], lookups: Sequence[Lookup]) -> dict[tuple[str, str], tuple[int, int]]:
    """Where the longitude and latitude of each pair of columns stand."""
    has = ", ".join(names) or "no columns"
    for one in lookups:
        if missing := [column for column in (one.lon, one.lat) if column not in names]:
            raise SetupError(
                f"{one.column} is looked up by {one.lon} and {one.lat}, and {name} has no {' and no '.join(missing)}; it has {has}.",
                code="enrich-column",
                next_step="Correct the names of the columns where the pipeline's areas are listed.",
            )
        if one.lon == one.lat:
            raise SetupError(
                f"{one.column} is looked up by {one.lon} as longitude and as latitude.",
                code="enrich-column",
                next_step="Correct the names of the columns where the pipeline's areas are listed.",
            )
        if one.column in names:
            raise SetupError(
                f"{name} has a column {one.column} already.",
                code="enrich-column-taken",
                next_step="Give the new column another name where the pipeline's areas are listed.",
            )
    return {(one.lon, one.lat): (names.index(one.lon), names.index(one.lat)) for one in lookups}


def _cells(areas: Areas) -> np.ndarray:
    """The comma and the cell of every area, and of none."""
    quoted = (f'"{key.replace(chr(34), chr(34) * 2)}"' if set(key) & set(',"') else key for key in areas.keys)
    return np.array([*(f",{key}".encode().decode("latin-1") for key in quoted), ","], dtype=object)


def _by_commas(lines: list[str], width: int, places: list[int]) -> dict[int, Sequence[str]] | None:
    """The cells at `places` of records without quotes (place → a text a record); None if a record has more or fewer than `width`.

    A tenth of the time of a reader of CSV: all commas are found at once, and only the wanted cells are ever made.
    """
    text = "".join(lines)
    signs = np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
    ends, commas = np.flatnonzero(signs == ord("\n")), np.flatnonzero(signs == ord(","))
    if len(ends) != len(lines) or len(commas) != len(lines) * (width - 1):
        return None
    edges = np.empty((len(lines), width + 1), dtype=np.intp)
    edges[0, 0], edges[1:, 0] = -1, ends[:-1]
    edges[:, 1:-1], edges[:, -1] = commas.reshape(len(lines), width - 1), ends
    if not (np.diff(edges, axis=1) > 0).all():
        return None
    return {
        place: [text[begin:end] for begin, end in zip((edges[:, place] + 1).tolist(), edges[:, place + 1].tolist(), strict=True)] for place in places
    }


def _by_reader(lines: list[str], width: int, places: list[int]) -> dict[int, Sequence[str]]:
    """As `_by_commas`, for records of any kind: empty cells of one that is no CSV, or has more or fewer than `width`."""
    pick, nothing, taken = itemgetter(*places), ("",) * len(places), 0

    def watched() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += 1
            yield line

    def alone(line: str) -> tuple[str, ...]:
        try:
            [row] = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            return nothing
        return pick(row) if len(row) == width else nothing

    reader = csv.reader(watched())
    picked: list[tuple[str, ...]] = []
    while len(picked) < len(lines):
        try:
            for row in reader:
                if taken == len(picked) + 1 and len(row) == width:
                    picked.append(pick(row))
                else:
                    # several at once: the reader saw a quote open where by their number none is
                    picked += map(alone, lines[len(picked) : taken])
            picked += map(alone, lines[len(picked) :])
        except csv.Error:
            # the reader goes on behind it
            picked += map(alone, lines[len(picked) : taken])
    return dict(zip(places, zip(*picked, strict=True), strict=True))


def _looked_up(cells: dict, rows: int, lookups: Sequence[Lookup], pairs: dict, texts: list[np.ndarray], tally: Tally) -> list[str]:
    """What comes to the end of each row, and the counts of it."""
    points = {}
    for pair, (lon, lat) in pairs.items():
        where = boundaries.numbers(cells[lon]), boundaries.numbers(cells[lat])
        points[pair] = (*where, np.isfinite(where[0]) & np.isfinite(where[1]))
    more: Any = ""
    has_point, is_outside = np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool)
    for one, text in zip(lookups, texts, strict=True):
        lon, lat, there = points[one.lon, one.lat]
        found = one.areas.index(lon, lat)
        inside = found < len(one.areas)
        tally.add(one.column, int(inside.sum()), int(there.sum()), rows)
        if one.layer == lookups[0].layer:
            has_point |= there
            is_outside &= ~inside
        more = more + text[found]
    tally.outside_city += int((has_point & is_outside).sum())
    return more.tolist()


# the stage


def enrich(run: Run, note: Note) -> Outcome:
    """Add the pipeline's areas to the block's rows; as many rows come out as go in. Raises PipelineError."""
    block = run.block
    pipeline = block.pipeline
    if pipeline.format in documents.FORMATS:
        return ready(run, note)
    asked = list(pipeline.enrichments.select_related("layer"))
    if not asked:
        raise SetupError(
            f"{pipeline.title} has the stage enrich, and no areas to look up.",
            code="no-enrichments",
            next_step="List them in the pipeline's settings under “Areas to look up”, or take enrich out of its stages.",
        )
    lookups = [Lookup(one.column, one.lon_column, one.lat_column, one.layer.slug, boundaries.load(one.layer)) for one in asked]
    given = files_of(block, [Layer.STANDARD] if Stage.STANDARDIZE in pipeline.stages else [Layer.STANDARD, Layer.RAW])
    total = sum(entry.rows or 0 for entry in given if entry.metadata.get("role") != "keys")
    tally = Tally()
    entries = []
    for entry in given:
        faultpoint("enrich.file")
        entries.append(_enriched(run, note, entry, lookups, tally, total))
    lake.withdraw_others(pipeline.slug, Layer.READY, block.starts_at, entries)
    _describe(pipeline, asked)
    flags = {OUTSIDE_CITY: tally.outside_city} if tally.outside_city else {}
    for one in asked:
        note.log(
            f"{one.column}: {tally.inside.get(one.column, 0):,} inside {one.layer.title}, {tally.outside.get(one.column, 0):,} outside,"
            f" {tally.no_point.get(one.column, 0):,} without a point; by the file of sha256 {one.layer.sha256[:12]}"
        )
    return Outcome(
        Counts(rows_in=total, rows_out=tally.rows, bytes=sum(entry.bytes for entry in entries)),
        message=_words(tally, asked),
        details={
            "files": len(entries),
            "entries": [entry.pk for entry in entries],
            "flags": flags,
            "layers": {one.layer.slug: {"sha256": one.layer.sha256, "areas": one.layer.areas, "key": one.layer.key_property} for one in asked},
            "columns": {
                one.column: {"layer": one.layer.slug, **{name: getattr(tally, name).get(one.column, 0) for name in ("inside", "outside", "no_point")}}
                for one in asked
            },
        },
    )


def _words(tally: Tally, asked: list[Enrichment]) -> str:
    names = f"{len(asked)} column{'s' * (len(asked) != 1)}"
    lost = f"; {tally.outside_city:,} outside {asked[0].layer.title}" if tally.outside_city else ""
    return f"{tally.rows:,} rows with {names} of areas{lost}"


def _enriched(run: Run, note: Note, entry: CatalogEntry, lookups: list[Lookup], tally: Tally, total: int) -> CatalogEntry:
    """The file of the layer ready that is made of `entry`."""
    path = lake.lake().local_path(entry.pointer, note.workdir, sha256=entry.sha256)
    made = note.workdir / "enriched.csv"
    metadata = {**entry.metadata, "from": entry.pointer}
    if entry.metadata.get("role") == "keys":
        # keys alone have no points; they go along, for load looks into one layer only
        shutil.copyfile(path, made)
        return _shelved(run, made, entry, entry.sha256, entry.rows, metadata)
    columns = entry.metadata.get("columns")
    if not columns:
        raise DataError(f"{entry.pointer} came without the types of its columns.", code="no-columns", next_step="Run the block again from extract.")
    if entry.id_ext == ".json":
        page, path = path, note.workdir / f"{entry.id_base}.rows.csv"
        json_rows.write_csv(page, path, dict(map(tuple, columns)), rows=entry.rows)
    before = tally.rows
    sha256 = add_columns(path, made, lookups, tally, lambda rows: note.progress(rows, total))
    rows = tally.rows - before
    if entry.rows is not None and rows != entry.rows:
        raise DataError(f"{entry.pointer} has {rows:,} rows; {entry.rows:,} were counted when it came.", code="rows-lost")
    metadata["columns"] = [*columns, *([one.column, "text"] for one in lookups)]
    return _shelved(run, made, entry, sha256, rows, metadata)


def _shelved(run: Run, file: Path, entry: CatalogEntry, sha256: str, rows: int | None, metadata: dict) -> CatalogEntry:
    block = run.block
    return lake.shelve(
        dataset=block.pipeline.dataset,
        source=block.pipeline.slug,
        layer=Layer.READY,
        window=(block.starts_at, block.ends_at),
        file=file,
        name=f"{entry.id_base}.csv" if entry.id_ext == ".json" else entry.name,
        sha256=sha256,
        bytes=file.stat().st_size,
        rows=rows,
        origin=f"{entry.layer}: {entry.name}",
        metadata=metadata,
        run_id=run.pk,
    )


def _describe(pipeline: Pipeline, asked: list[Enrichment]) -> None:
    """The new columns stand in the dataset's dictionary; like every column that comes later, they stay inside until a steward lets them out."""
    columns = pipeline.dataset.columns.filter(part=pipeline.part)
    last = columns.aggregate(last=Max("position"))["last"] or 0
    for place, one in enumerate(asked, 1):
        words = f"{one.layer.title}: the {one.layer.key_property} of the area in which {one.lon_column}, {one.lat_column} lies."
        DatasetColumn.objects.get_or_create(
            dataset=pipeline.dataset,
            part=pipeline.part,
            name=one.column,
            defaults={"position": last + place, "type": "text", "description": words, "is_published": False},
        )
    columns.filter(name__in=[one.column for one in asked]).update(seen_at=Now())
