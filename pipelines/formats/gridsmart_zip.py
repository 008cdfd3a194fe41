"""What lies in a GRIDSMART device's zip: the count files of its zones, read where they lie; what is not one is refused by name.

Nothing is unpacked under a name that a zip gives, so no name can lead out of the folder. A zip is bounded before it is opened
(the size of its list of files), before a file is read (what it says of its size) and while it is read (what really comes out).
Two layouts are known (facts/datalake.md §7.3): A `AA-BB-CC-DD-EE-FF/2019-06-01/{guid}.csv`, and B
`AA-BB-CC-DD-EE-FF/2019-06-01.zip`, which holds `{guid}.csv`.
"""

from __future__ import annotations

import errno
import io
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO

from pipelines.formats.standard import Refused

MIB = 1024 * 1024
PIECE = 64 * 1024


@dataclass(frozen=True)
class Bounds:
    """What a day of one device may hold at most: files, bytes of one and of all when unpacked, letters of a line, bytes of the list of files."""

    members: int = 4096
    member_bytes: int = 256 * MIB
    total_bytes: int = 1024 * MIB
    line: int = 4096
    directory: int = 4 * MIB


class Unreadable(Exception):
    """Why something in a zip, or all of it, is refused; without values, so that equal reasons can be counted."""


@dataclass(frozen=True)
class ZoneFile:
    """The counts of one zone: its id as the file is called (dashes and all), the camera's MAC, and its lines, which may be read once."""

    name: str
    guid: str
    camera: str
    _member: BinaryIO = field(repr=False)
    _longest: int = field(repr=False)

    def lines(self) -> Iterator[tuple[int, str | None]]:
        """(number, line without its end) of each line that is not empty; None for a line that is longer than any count."""
        with io.BufferedReader(self._member, PIECE) as file:
            number = 0
            while line := file.readline(self._longest + 1):
                number += 1
                if len(line) > self._longest and not line.endswith(b"\n"):
                    while (rest := file.readline(PIECE)) and not rest.endswith(b"\n"):
                        continue
                    yield number, None
                elif text := line.decode("utf-8-sig", "backslashreplace").strip():
                    yield number, text


NO_LAYOUT = "has a name that no layout of zips knows"
_CAMERA = re.compile(r"\w{2}(-\w{2}){5}", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ZONE = re.compile(r"([0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})\.csv", re.ASCII | re.IGNORECASE)


def zone_files(path: Path, day: date, folder: Path, bounds: Bounds | None = None) -> Iterator[ZoneFile | Refused]:
    """The zones' files of a zip of that day, in the order of the zip; each is whole (its checksum was compared) and is read before the next.

    What is no such file is refused, and the others go on; a zip that can't be read at all is one refusal with the number 0.
    `folder` takes the inner zip of layout B for as long as it is read.
    """
    walk = _Walk(day, folder, bounds or Bounds())
    try:
        with path.open("rb") as file:
            yield from walk.outer(file)
    except Unreadable as error:
        yield _refused(0, str(error), path.name)


class _Walk:
    """One pass through a zip; counts what came out of it."""

    def __init__(self, day: date, folder: Path, bounds: Bounds):
        self.day, self.folder, self.bounds = day, folder, bounds
        self.files = self.unpacked = 0
        self._seen: set[str] = set()

    def outer(self, file: BinaryIO) -> Iterator[ZoneFile | Refused]:
        with self._opened(file) as archive:
            for number, info in self._members(archive):
                name = info.filename
                try:
                    camera, inner = self._place(info)
                    if name.lower().endswith(".zip"):
                        yield from self._inner(archive, info, camera)
                    else:
                        yield self._zone(archive, info, inner, camera, name)
                except Unreadable as error:
                    yield _refused(number, str(error), name)

    def _inner(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, camera: str) -> Iterator[ZoneFile | Refused]:
        """Layout B: the zones of the zip in the zip. Raises Unreadable for one that can't be opened."""
        with tempfile.TemporaryFile(dir=self.folder) as file:
            for piece in self._pieces(archive, info):
                file.write(piece)
            file.seek(0)
            with self._opened(file) as inside:
                for number, member in self._members(inside):
                    name = f"{info.filename}/{member.filename}"
                    try:
                        _check_name(member)
                        if member.filename.lower().endswith(".zip"):
                            raise Unreadable("is a zip in a zip in a zip, and no device packs so deep")
                        yield self._zone(inside, member, member.filename, camera, name)
                    except Unreadable as error:
                        yield _refused(number, str(error), name)

    @contextmanager
    def _opened(self, file: BinaryIO) -> Iterator[zipfile.ZipFile]:
        _check_directory(file, self.bounds.directory)
        with _plainly("cannot be opened: it is no zip, or not a whole one"):
            archive = zipfile.ZipFile(file)
        with archive:
            yield archive

    def _members(self, archive: zipfile.ZipFile) -> Iterator[tuple[int, zipfile.ZipInfo]]:
        members = [info for info in archive.infolist() if not info.is_dir()]
        self.files += len(members)
        if self.files > self.bounds.members:
            raise Unreadable(f"holds more than {self.bounds.members:,} files")
        return enumerate(members, start=1)

    def _place(self, info: zipfile.ZipInfo) -> tuple[str, str]:
        """The camera of a file and its own name. Raises Unreadable for a name of neither layout, or of another day."""
        _check_name(info)
        parts = info.filename.split("/")
        if not _CAMERA.fullmatch(parts[0]) or len(parts) not in (2, 3):
            raise Unreadable(NO_LAYOUT)
        day = parts[1][:-4] if len(parts) == 2 and parts[1].lower().endswith(".zip") else parts[1]
        if not _DAY.fullmatch(day):
            raise Unreadable(NO_LAYOUT)
        if day != self.day.isoformat():
            raise Unreadable("is of another day than its zip")
        if len(parts) == 3 and parts[2].lower().endswith(".zip"):
            raise Unreadable("is a zip where a zone's file was expected")
        return parts[0].upper(), parts[-1]

    def _zone(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, own_name: str, camera: str, name: str) -> ZoneFile:
        found = _ZONE.fullmatch(own_name)
        if not found:
            raise Unreadable(NO_LAYOUT)
        guid = dashed(found[1])
        if guid.lower() in self._seen:
            raise Unreadable("is of a zone that the zip has twice")
        # read through once before a line of it is believed: a wrong checksum is known only at the end
        for _ in self._pieces(archive, info):
            continue
        self._seen.add(guid.lower())
        with _plainly("cannot be unpacked"):
            return ZoneFile(name, guid, camera, archive.open(info), self.bounds.line)

    def _pieces(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The bytes of a file, unpacked. Raises Unreadable for one that is too big, broken or packed in a way that we do not open."""
        most, all_of_it = self.bounds.member_bytes, self.bounds.total_bytes
        if info.flag_bits & 0x1:
            raise Unreadable("is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # other packers hand out as much at once as the packed bytes make, however much that is
            raise Unreadable("is packed in a way that devices do not use")
        if info.file_size > most:
            raise Unreadable(f"says that it is larger than {most:,} bytes")
        if self.unpacked + info.file_size > all_of_it:
            raise Unreadable(f"would make the zip larger than {all_of_it:,} bytes")
        with _plainly("cannot be unpacked"):
            member = archive.open(info)
        with member:
            size = 0
            while True:
                with _plainly("cannot be unpacked"):
                    piece = member.read(PIECE)
                if not piece:
                    return
                size += len(piece)
                self.unpacked += len(piece)
                if size > most:
                    raise Unreadable(f"is larger than {most:,} bytes")
                if self.unpacked > all_of_it:
                    raise Unreadable(f"makes the zip larger than {all_of_it:,} bytes")
                yield piece


def dashed(guid: str) -> str:
    """A zone's id with its dashes, 8-4-4-4-12, in the letters that it came in."""
    plain = guid.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def _refused(number: int, reason: str, name: str) -> Refused:
    return Refused(number, f"A file {reason}" if number else f"The zip {reason}", "", "", name, {"member": name} if number else {"zip": name})


def _check_name(info: zipfile.ZipInfo) -> None:
    """Raises Unreadable for a name by which an unpacked file would leave its folder, or that no person can read."""
    told = info.orig_filename
    if told.startswith("/") or "\\" in told or re.match(r"[A-Za-z]:", told) or ".." in told.split("/"):
        raise Unreadable("has a name that leads out of the zip")
    if not told.isprintable() or len(told) > 300:
        raise Unreadable("has a name that is none")


@contextmanager
def _plainly(what: str) -> Iterator[None]:
    """Whatever Python's zipfile raises for a broken zip, as Unreadable. What the disk raises goes on."""
    try:
        yield
    # a packing that zipfile does not know is one of its RuntimeErrors
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise Unreadable(what) from error
    except OSError as error:
        # a place before the beginning of the file, as a forged list of files may name it
        if error.errno != errno.EINVAL:
            raise
        raise Unreadable(what) from error


_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def _check_directory(file: BinaryIO, most: int) -> None:
    """Raises Unreadable where the list of files is larger than `most` bytes: zipfile reads the whole list before it can be asked."""
    file.seek(0, io.SEEK_END)
    size = file.tell()
    # the end record (22 bytes) stands before a comment of at most 65,535; of a zip64 one of 20 and one of 56 stand before it
    start = max(0, size - 65_535 - 22 - 20 - 56)
    file.seek(start)
    tail = file.read()
    file.seek(0)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise Unreadable("cannot be opened: it is no zip, or not a whole one")
    sizes = [struct.unpack_from("<L", tail, at + 12)[0]]
    if at >= 76 and tail[at - 20 : at - 16] == _LOCATOR_64 and tail[at - 76 : at - 72] == _END_64:
        sizes.append(struct.unpack_from("<Q", tail, at - 76 + 40)[0])
    if max(sizes) > most:
        raise Unreadable("has a list of files that is too long")
