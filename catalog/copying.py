"""Files of the lake copied from one repository to another: the bytes, and an entry of their own for them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from catalog import audit
from catalog.audit import Actor
from catalog.lake import lake, shelve
from catalog.models import CatalogEntry, Dataset, Layer
from catalog.search import REPOSITORIES, TEST
from pipelines.errors import DataError, PipelineError

#: Where atd-data-lake lays a file: repository, then day, code and name.
ATD_PLACE = re.compile(rf"(?P<repository>{'|'.join(REPOSITORIES)})(?:{TEST})?/(?P<rest>\d{{4}}/\d{{2}}/\d{{2}}/[^/]+/[^/]+)")
#: So many failures are named, and the rest counted.
NAMED = 20


@dataclass
class Copied:
    """What became of files that were to be copied: new ones, ones that were there already, ones that took another's place; what failed."""

    new: int = 0
    same: int = 0
    replaced: int = 0
    bytes: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        said = [f"{self.new:,} copied"]
        said += [f"{number:,} {word}" for number, word in ((self.same, "there already"), (self.replaced, "in the place of other bytes")) if number]
        said += [f"{len(self.failed):,} failed"] if self.failed else []
        return f"{', '.join(said)}; {self.bytes:,} bytes."


def copy(
    entries: Iterable[CatalogEntry],
    *,
    source: str,
    dataset: Dataset,
    actor: Actor,
    layer: str = "",
    is_test: bool = False,
    reason: str = "",
    dry_run: bool = False,
) -> Copied:
    """Copy files to the pipeline `source` of `dataset`, into their own layer or `layer`; audited, and twice is harmless.

    Names as atd-data-lake's are kept, below `raw-test` and the like where `is_test`. One file that fails stops no other: it is in
    `failed`, in words. Raises DataError for a file that would be copied onto itself, before anything is done.
    """
    wanted = list(entries)
    for entry in wanted:
        if entry.source == source and entry.layer == (layer or entry.layer):
            raise DataError(f"{entry.pointer} is one of {source} already.", code="copy-onto-itself", next_step="Name another pipeline or layer.")
    made = Copied()
    with tempfile.TemporaryDirectory(prefix="copy-") as folder:
        for entry in wanted:
            try:
                _copy_one(entry, source, dataset, Layer(layer or entry.layer), is_test, Path(folder), made, dry_run)
            except PipelineError as error:
                made.failed.append(f"{entry.pointer}: {error.message}")
    if not dry_run and (made.new or made.replaced or made.failed):
        audit.write(actor, "copy", kind="files", target=source, reason=reason, result=made.words, failed=made.failed[:NAMED])
    return made


def _copy_one(entry: CatalogEntry, source: str, dataset: Dataset, layer: Layer, is_test: bool, folder: Path, made: Copied, dry_run: bool) -> None:
    identity = {"id_base": entry.id_base, "id_ext": entry.id_ext}
    there = CatalogEntry.objects.filter(source=source, layer=layer, window_start=entry.window_start, **identity).live().first()
    if there is not None and there.sha256 == entry.sha256:
        made.same += 1
        return
    if dry_run:
        lake().size(entry.pointer)  # one that is missing is told now
    else:
        _carry(entry, source, dataset, layer, is_test, folder)
    made.new += there is None
    made.replaced += there is not None
    made.bytes += entry.bytes


def _carry(entry: CatalogEntry, source: str, dataset: Dataset, layer: Layer, is_test: bool, folder: Path) -> None:
    name = PurePosixPath(entry.pointer).name
    original = lake().local_path(entry.pointer, folder, sha256=entry.sha256)
    file = folder / f"{entry.pk}.copy"
    try:
        # of a folder the path is the file in the lake itself, which must stay
        shutil.copyfile(original, file)
    finally:
        if original.is_relative_to(folder):
            original.unlink()
    try:
        shelve(
            dataset=dataset,
            source=source,
            layer=layer,
            window=(entry.window_start, entry.window_end),
            file=file,
            name=_plain_name(name, entry.sha256),
            sha256=entry.sha256,
            bytes=entry.bytes,
            rows=entry.rows,
            origin=entry.origin,
            metadata={**entry.metadata, "copied_from": entry.pointer},
            place=_place(entry, layer, is_test),
            identity=(entry.id_base, entry.id_ext),
        )
    finally:
        file.unlink(missing_ok=True)


def _plain_name(name: str, sha256: str) -> str:
    """The name without the mark that the shelf puts before it: it will get one of its own."""
    return name.removeprefix(f"{sha256[:12]}-")


def _place(entry: CatalogEntry, layer: Layer, is_test: bool) -> str:
    """Where a file that lies as atd-data-lake's is to lie; "" where the shelf says it."""
    found = ATD_PLACE.fullmatch(entry.pointer)
    if not found or layer != entry.layer:
        return ""
    return f"{found['repository']}{TEST if is_test else ''}/{found['rest']}"
