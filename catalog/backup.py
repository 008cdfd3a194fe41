"""The catalog saved and brought back: every entry and every edition of the inventory, as lines of JSON.

The files of the lake are not in it: the lake keeps them. A backup begins with a line that says what it is and ends with one that
counts and hashes what stands between, so that one that was cut is never taken for a whole one. Restoring puts an entry where it
was, by its pointer and by the key of the catalog, once its file was seen in the lake; it takes nothing live away.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from catalog import audit, inventory
from catalog.audit import Actor
from catalog.lake import CHUNK, fingerprint, lake
from catalog.models import CatalogEntry, Dataset, InventoryEdition, Layer
from pipelines.errors import DataError

KIND, VERSION = "open-data-ops-catalog", 1
#: Where backups lie in the lake. The catalog does not name them, for they are what is left when it is lost; nothing sweeps them.
PLACE = f"{Layer.BACKUP.value}/catalog"
BATCH = 1000
#: So many are named, and the rest counted.
NAMED = 50
VERIFY = ("exists", "sha256", "nothing")

FACTS = ("window_end", "bytes", "rows", "origin", "metadata", "run_id", "created_at", "withdrawn_at")
IDENTITY = ("source", "layer", "id_base", "id_ext", "window_start")
MOMENTS = ("window_start", "window_end", "created_at", "withdrawn_at")


# saving


@dataclass(frozen=True)
class Backup:
    """A backup that is whole: where it lies, and what is in it."""

    place: str
    entries: int
    editions: int
    bytes: int
    sha256: str

    @property
    def words(self) -> str:
        entries, editions = f"{self.entries:,} entr{'y' if self.entries == 1 else 'ies'}", f"{self.editions:,} edition{'s' * (self.editions != 1)}"
        return f"{entries} and {editions} of the inventory in {self.place}, {self.bytes:,} bytes."


def backup(path: Path, actor: Actor, *, reason: str = "") -> Backup:
    """Write the catalog to a file, packed where its name ends in .gz; it appears when it is whole. Flat in memory; audited. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        entries, editions = _write(part, packed=path.name.endswith(".gz"))
        made = Backup(str(path), entries, editions, part.stat().st_size, fingerprint(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    audit.write(actor, "backup", kind="catalog", target=made.place, reason=reason, result=made.words, sha256=made.sha256)
    return made


def backup_to_lake(actor: Actor, *, reason: str = "") -> Backup:
    """Write the catalog into the backup layer of the lake: `backup/catalog/2026-11-22T140509Z.jsonl.gz`. Raises PipelineError."""
    with tempfile.TemporaryDirectory(prefix="backup-") as folder:
        path = Path(folder, f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.jsonl.gz")
        entries, editions = _write(path, packed=True)
        made = Backup(f"{PLACE}/{path.name}", entries, editions, path.stat().st_size, fingerprint(path))
        lake().put(path, pointer=made.place, sha256=made.sha256)
    audit.write(actor, "backup", kind="catalog", target=made.place, reason=reason, result=made.words, sha256=made.sha256)
    return made


def _write(path: Path, *, packed: bool) -> tuple[int, int]:
    """(entries, editions) that were written."""
    with ExitStack() as held:
        raw = held.enter_context(path.open("wb"))
        # no name and no time in the header: the same catalog is the same bytes
        file: IO[bytes] = held.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0)) if packed else raw
        digest, counts = hashlib.sha256(), {"entry": 0, "edition": 0}
        for line in _lines():
            counts[line["kind"]] = counts.get(line["kind"], 0) + 1
            told = (json.dumps(line, cls=_Encoder, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
            digest.update(told)
            file.write(told)
        end = {"kind": "end", "entries": counts["entry"], "editions": counts["edition"], "sha256": digest.hexdigest()}
        file.write((json.dumps(end) + "\n").encode())
    return counts["entry"], counts["edition"]


class _Encoder(DjangoJSONEncoder):
    """Moments in full: Django's own cuts them at milliseconds, and a moment is part of a key."""

    def default(self, value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else super().default(value)


def _lines() -> Iterator[dict[str, Any]]:
    # one transaction that sees one state: an entry and its dataset belong together
    with transaction.atomic():
        yield {"kind": KIND, "version": VERSION, "made_at": timezone.now(), "lake": lake().describe()}
        for slug, title in Dataset.objects.order_by("slug").values_list("slug", "title"):
            yield {"kind": "dataset", "slug": slug, "title": title}
        fields = ("pointer", "sha256", *IDENTITY, *FACTS)
        for entry in CatalogEntry.objects.order_by("pk").values("dataset__slug", *fields).iterator(chunk_size=BATCH):
            yield {"kind": "entry", "dataset": entry.pop("dataset__slug"), **entry}
        fields = ("code", "dated_at", "units", "sha256", "origin", "uploaded_at", "uploaded_by")
        for edition in InventoryEdition.objects.order_by("code", "dated_at").values(*fields).iterator(chunk_size=1):
            yield {"kind": "edition", **edition}


# bringing back


@dataclass
class Restored:
    """What became of the lines of a backup: counts, and names of what could not be put where it was."""

    made_at: str = ""
    entries: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    #: entries that came back as withdrawn, since a file that came later stands in their place
    superseded: int = 0
    datasets: list[str] = field(default_factory=list)
    editions_created: int = 0
    editions_unchanged: int = 0
    editions_other: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.altered or self.conflicts or self.editions_other)

    @property
    def words(self) -> str:
        said = [f"{self.entries:,} entries: {self.created:,} brought back, {self.updated:,} put right, {self.unchanged:,} as they were"]
        if self.superseded:
            said.append(f"{self.superseded:,} of them as withdrawn, for a later file stands in their place")
        troubles = (
            (self.missing, "left out, for their files are not in the lake"),
            (self.altered, "left out, for their files are not those that were catalogued"),
            (self.conflicts, "left out, for the catalog has something else there"),
        )
        said += [f"{len(names):,} {word}" for names, word in troubles if names]
        said.append(f"{self.editions_created:,} editions of the inventory brought back, {self.editions_unchanged:,} as they were")
        if self.editions_other:
            said.append(f"{len(self.editions_other):,} left as they are here, with other devices")
        if self.datasets:
            said.append(f"{len(self.datasets):,} datasets made by their names alone: import the configuration to fill them")
        return f"{'; '.join(said)}."


def restore(path: Path, actor: Actor, *, verify: str = "exists", dry_run: bool = False, reason: str = "") -> Restored:
    """Bring the entries and editions of a backup back; audited, twice is harmless, flat in memory.

    `verify` is how a file is looked for in the lake: "exists" (with its size), "sha256" (read whole), "nothing". What is not there
    is left out and named. Raises DataError for what is no whole backup, before anything is changed.
    """
    if verify not in VERIFY:
        raise DataError(f"{verify!r} is no way to verify.", code="bad-verify", next_step=f"Say {', '.join(VERIFY)}.")
    check(path)
    done = Restored()
    lines = _read(path)
    done.made_at = next(lines)["made_at"]
    titles: dict[str, str] = {}
    while batch := list(islice(lines, BATCH)):
        titles |= {line["slug"]: line["title"] for line in batch if line["kind"] == "dataset"}
        _entries([line for line in batch if line["kind"] == "entry"], titles, done, verify, dry_run)
        for line in batch:
            if line["kind"] == "edition":
                _edition(line, done, dry_run)
    if not dry_run:
        details = {"missing": done.missing[:NAMED], "altered": done.altered[:NAMED], "conflicts": done.conflicts[:NAMED]}
        audit.write(actor, "restore", kind="catalog", target=path.name, reason=reason, result=done.words, **details)
    return done


def check(path: Path) -> tuple[int, int]:
    """(entries, editions) of a whole backup. Raises DataError for anything else."""
    counts = {"entry": 0, "edition": 0}
    digest = hashlib.sha256()
    end: Mapping[str, Any] | None = None
    for number, (line, told) in enumerate(_raw(path), 1):
        if end is not None:
            raise _broken(path, f"line {number:,} stands after its end")
        if number == 1 and (told.get("kind"), told.get("version")) != (KIND, VERSION):
            raise _broken(path, f"it does not begin as a backup of the catalog does (version {VERSION})")
        if told.get("kind") == "end":
            end = told
            continue
        digest.update(line)
        counts[told["kind"]] = counts.get(told["kind"], 0) + 1
    if end is None:
        raise _broken(path, "it was cut: its last line is missing")
    if (end.get("sha256"), end.get("entries"), end.get("editions")) != (digest.hexdigest(), counts["entry"], counts["edition"]):
        raise _broken(path, "it was changed: what it holds is not what its last line says")
    return counts["entry"], counts["edition"]


def _broken(path: Path, words: str) -> DataError:
    return DataError(f"{path.name} is no whole backup: {words}.", code="backup-broken", next_step="Use another one.")


def _raw(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line, and what it says. Raises DataError."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
            for line in file:
                number += 1
                told = json.loads(line)
                if not isinstance(told, dict) or "kind" not in told:
                    raise ValueError("no object with a kind")
                yield line, told
    except (ValueError, EOFError, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise DataError(f"{path} can't be read: {error.strerror}.", code="backup-unreadable", next_step="Name another file.") from error
        raise _broken(path, f"line {max(number, 1):,}: {error}") from error


def _read(path: Path) -> Iterator[dict[str, Any]]:
    return (told for _, told in _raw(path) if told["kind"] != "end")


def _entries(lines: list[dict[str, Any]], titles: Mapping[str, str], done: Restored, verify: str, dry_run: bool) -> None:
    """Bring a batch of entries back: verify outside of the transaction, for the lake may be far away."""
    done.entries += len(lines)
    sound = [line for line in lines if _is_there(line, done, verify)]
    if not sound:
        return
    for line in sound:
        for name in MOMENTS:
            line[name] = datetime.fromisoformat(line[name]) if line[name] else None
    with transaction.atomic():
        datasets = _datasets({line["dataset"] for line in sound}, titles, done, dry_run)
        present = {entry.pointer: entry for entry in CatalogEntry.objects.filter(pointer__in=[line["pointer"] for line in sound])}
        live = _live(sound)
        fresh, changed, rivals = [], [], []
        for line in sound:
            entry = present.get(line["pointer"])
            if entry is not None and _key(entry) != _key_of(line):
                done.conflicts.append(f"{line['pointer']}: here it is {entry.source} {entry.name} of {entry.window_start:%Y-%m-%d}")
                continue
            facts = {name: line[name] for name in FACTS} | {"dataset_id": datasets[line["dataset"]].pk}
            _settle(line, entry, facts, live, rivals, done)
            if entry is None:
                fresh.append(CatalogEntry(pointer=line["pointer"], sha256=line["sha256"], **{name: line[name] for name in IDENTITY}, **facts))
            elif any(getattr(entry, name) != value for name, value in facts.items()):
                for name, value in facts.items():
                    setattr(entry, name, value)
                changed.append(entry)
            else:
                done.unchanged += 1
        done.created += len(fresh)
        done.updated += len(changed)
        if not dry_run:
            # those that give way first: of one name only one is live
            CatalogEntry.objects.filter(pk__in=rivals, withdrawn_at=None).update(withdrawn_at=Now())
            CatalogEntry.objects.bulk_update(changed, ["dataset", *FACTS])
            CatalogEntry.objects.bulk_create(fresh)


def _settle(line: Mapping[str, Any], entry: CatalogEntry | None, facts: dict[str, Any], live: dict, rivals: list[int], done: Restored) -> None:
    """Who is live: what is live now stays so, but for a file that came before the one that comes back."""
    if entry is not None and entry.withdrawn_at is None:
        facts["withdrawn_at"] = None
        return
    rival = live.get(_identity(line))
    if line["withdrawn_at"] is not None or rival is None:
        return
    if rival.created_at > line["created_at"]:
        facts["withdrawn_at"] = entry.withdrawn_at if entry is not None else rival.created_at
        done.superseded += 1
    else:
        rivals.append(rival.pk)


def _live(lines: list[dict[str, Any]]) -> dict[tuple, CatalogEntry]:
    """The live entries that have the identity of one of these lines."""
    wanted = {_identity(line) for line in lines if line["withdrawn_at"] is None}
    near = Q(source__in={one[0] for one in wanted}, window_start__in={one[4] for one in wanted})
    found = {tuple(getattr(entry, name) for name in IDENTITY): entry for entry in CatalogEntry.objects.filter(near).live()}
    return {identity: entry for identity, entry in found.items() if identity in wanted}


def _identity(line: Mapping[str, Any]) -> tuple:
    return tuple(line[name] for name in IDENTITY)


def _key(entry: CatalogEntry) -> tuple:
    return entry.sha256, *(getattr(entry, name) for name in IDENTITY)


def _key_of(line: Mapping[str, Any]) -> tuple:
    return line["sha256"], *_identity(line)


def _is_there(line: Mapping[str, Any], done: Restored, verify: str) -> bool:
    """Whether the file of an entry is in the lake; where it is not, that is noted. Raises PipelineError where the lake can't be asked."""
    if verify == "nothing":
        return True
    pointer = line["pointer"]
    try:
        size = lake().size(pointer)
    except DataError:
        done.missing.append(pointer)
        return False
    if size == line["bytes"] and (verify == "exists" or _sha256(pointer) == line["sha256"]):
        return True
    done.altered.append(pointer)
    return False


def _sha256(pointer: str) -> str:
    digest = hashlib.sha256()
    with lake().open(pointer) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _datasets(slugs: set[str], titles: Mapping[str, str], done: Restored, dry_run: bool) -> dict[str, Dataset]:
    """The datasets by slug, those that are not there made by their names alone. They are locked: shelving waits in the same queue."""
    found = {one.slug: one for one in Dataset.objects.select_for_update(no_key=True).filter(slug__in=slugs).order_by("pk")}
    for slug in sorted(slugs.difference(found)):
        made = Dataset(slug=slug, title=titles.get(slug, slug))
        if not dry_run:
            made.save()
        if slug not in done.datasets:
            done.datasets.append(slug)
        found[slug] = made
    return found


def _edition(line: Mapping[str, Any], done: Restored, dry_run: bool) -> None:
    code, dated_at = line["code"], datetime.fromisoformat(line["dated_at"])
    if inventory.fingerprint(line["units"]) != line["sha256"]:
        done.conflicts.append(f"inventory {code} of {dated_at:%Y-%m-%d}: its devices are not those that were stored")
        return
    facts = {name: line[name] for name in ("units", "sha256", "origin", "uploaded_by")}
    facts["uploaded_at"] = datetime.fromisoformat(line["uploaded_at"])
    there = InventoryEdition.objects.filter(code=code, dated_at=dated_at).values_list("sha256", flat=True).first()
    if there is None:
        done.editions_created += 1
        if not dry_run:
            InventoryEdition.objects.create(code=code, dated_at=dated_at, **facts)
    elif there == line["sha256"]:
        done.editions_unchanged += 1
    else:
        done.editions_other.append(f"{code} of {dated_at:%Y-%m-%d}")


def fetched(pointer: str, folder: Path) -> Path:
    """A backup of the lake as a local file; "" is the newest. Raises PipelineError."""
    if not pointer:
        names = lake().names(PLACE)
        if not names:
            raise DataError(f"There is no backup below {PLACE} in the lake at {lake().describe()}.", code="no-backup", next_step="Name a file.")
        pointer = f"{PLACE}/{names[-1]}"
    return lake().local_path(pointer, folder)
