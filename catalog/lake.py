"""The lake: files in, files out, and a CatalogEntry for each.

A lake is a folder or `s3://bucket/prefix`. Files lie where `shelf` says, are written whole (a temporary name, then a rename;
or one complete upload) and are never changed: a file's place carries its fingerprint, so other bytes lie elsewhere. A pipeline
may ask for another place (`atd_mds_place`); where that is taken by other bytes, the name is marked with the fingerprint.
`shelve` puts the file first and makes its entry second, so an entry always has its file; a file that no entry names is an
orphan of something that died, and `sweep` removes it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from catalog.models import CatalogEntry, Dataset, Layer
from pipelines.errors import DataError, PipelineError, SetupError, TransientError

CHUNK = 1 << 20
#: S3 asks for multipart above this size; a part is this big.
PART = 16 << 20
#: What `shelf` makes, and nothing else: `sweep` must never touch a file of somebody else who shares the folder or bucket.
OURS = re.compile(rf"(?:{'|'.join(Layer.values)})/[^/]+/[^/]+/\d{{4}}/\d{{2}}/\d{{4}}-\d{{2}}-\d{{2}}T\d{{2,4}}Z/[0-9a-f]{{12}}-[^/]+")
TEMPORARY = re.compile(r"\.lake-[0-9a-f]{16}\.part")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


# where a file lies


def safe_name(name: str) -> str:
    """`name` as a file name that every disk and bucket takes: letters, digits, `._-`, at most 120 characters.

    A name that had to be changed gets a mark of the original, so that two names never become one.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"
    if plain == name and len(name) <= 120:
        return name
    base, ext = split_name(plain)
    return f"{base[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}{ext[:30]}"


def split_name(name: str) -> tuple[str, str]:
    """("page_2", ".csv.gz") of "page_2.csv.gz": x.csv and x.txt must stay two files of a window."""
    path = PurePosixPath(name)
    count = 2 if path.suffix.lower() in PACKED else 1
    ext = "".join(path.suffixes[-count:])
    return name.removesuffix(ext), ext


def shelf(pipeline_slug: str, dataset_slug: str, layer: str, starts_at: datetime, sha256: str, name: str) -> str:
    """The pointer of a file: `raw/<dataset>/<pipeline>/2026/11/2026-11-20T23Z/<12 of sha256>-<name>`.

    The window's start is in UTC, so the two hours of the autumn clock change stay two; minutes are told where there are any.
    """
    at = starts_at.astimezone(UTC)
    stamp = f"{at:%Y-%m-%dT%H}{at:%M}Z" if at.minute else f"{at:%Y-%m-%dT%H}Z"
    pointer = f"{Layer(layer).value}/{dataset_slug}/{pipeline_slug}/{at:%Y/%m}/{stamp}/{sha256[:12]}-{safe_name(name)}"
    return checked(pointer)


def atd_mds_place(provider: str, starts_at: datetime, zone_name: str, name: str) -> str:
    """Where atd-mds laid the file of an hour: `staging/bird/2020/1/11/16/trips.json`, lower case, hours of the city's clock, unpadded.

    The hour is that at which the window starts. Of the two hours that the autumn clock gives one name, the later keeps it, as
    there; the earlier is `1-first`. The stage is ATD_MDS_RUN_MODE, else ENVIRONMENT.
    """
    zone = ZoneInfo(zone_name)
    local, later = starts_at.astimezone(zone), (starts_at + timedelta(hours=1)).astimezone(zone)
    is_repeated = (local.date(), local.hour) == (later.date(), later.hour)
    hour = f"{local.hour}-first" if is_repeated else f"{local.hour}"
    name = re.sub(r"-0+(?=\d+\.)", "-", name)  # of a further page too: trips-2.json
    return checked(f"{_run_mode()}/{safe_name(provider.lower())}/{local.year}/{local.month}/{local.day}/{hour}/{safe_name(name.lower())}")


def _run_mode() -> str:
    return safe_name((os.environ.get("ATD_MDS_RUN_MODE") or settings.ENVIRONMENT or "staging").lower())


def checked(pointer: str) -> str:
    """`pointer` itself. Raises DataError if it could lead out of the lake."""
    if _leads_out(pointer):
        raise DataError(f"{pointer!r} is not a place in the lake.", code="lake-pointer")
    return pointer


def _leads_out(pointer: str) -> bool:
    return any(part in ("", ".", "..") for part in pointer.split("/")) or "\\" in pointer or not pointer.isprintable()


def fingerprint(path: Path) -> str:
    """sha256 of a local file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# the lake itself


class Lake(ABC):
    """What a folder and a bucket have in common. Pointers are relative, with forward slashes.

    Raises SetupError where a person must act (permission, bucket, credentials), TransientError where it may pass (full, down),
    DataError where a file is missing or not the one that was meant.
    """

    def put(self, path: Path, *, pointer: str, sha256: str = "") -> None:
        """Move the whole local file at `path` into the lake; after a failure it is still there.

        The same bytes again are welcome. Raises DataError if other bytes lie there already, or if the file is not `sha256`.
        """
        checked(pointer)
        actual = fingerprint(path)
        if sha256 and actual != sha256:
            raise DataError(f"{path.name} changed before it reached the lake: its sha256 is {actual}, not {sha256}.", code="lake-sha256")
        present = self._sha256(pointer)
        if present not in (None, actual):
            raise DataError(
                f"{pointer} already holds other bytes, and files in the lake are never changed.",
                code="lake-other-bytes",
                next_step="Keep both files and tell the maintainers: two files have come to share a name.",
            )
        # one that is there but in no entry is an orphan; written anew it is young, and no sweep takes it before its entry is made
        if present is None or not _named([pointer]):
            self._write(path, pointer, actual)
        path.unlink()

    @contextmanager
    def open(self, pointer: str) -> Iterator[BinaryIO]:
        """The file as a stream, never wholly in memory. A cut body raises TransientError while it is read."""
        stream = self._stream(checked(pointer))
        try:
            yield stream
        finally:
            stream.close()

    @abstractmethod
    def local_path(self, pointer: str, workdir: Path, *, sha256: str = "") -> Path:
        """A path to read the file from: the file itself, or a copy in `workdir`. Raises DataError if it is not `sha256`."""

    def exists(self, pointer: str) -> bool:
        return self._size(checked(pointer)) is not None

    def size(self, pointer: str) -> int:
        """Bytes. Raises DataError if there is no such file."""
        size = self._size(checked(pointer))
        if size is None:
            raise self._missing(pointer)
        return size

    def names(self, folder: str) -> list[str]:
        """The names of the files right below a folder of the lake, sorted; none where there is no such folder."""
        return sorted(self._names(checked(folder)))

    def delete(self, pointer: str) -> None:
        """Remove a file that no catalog entry names, live or withdrawn. Raises DataError if one does."""
        if _named([checked(pointer)]):
            raise DataError(f"{pointer} is in the catalog; the lake keeps its evidence.", code="lake-catalogued")
        self._remove(pointer)

    def sweep(self, older_than: timedelta) -> list[str]:
        """Remove what the dead left and nobody names: temporaries, orphans, unfinished uploads, each older than that.

        Returns the pointers of what went. Files that do not look like ours are never touched.
        """
        before = datetime.now(UTC) - older_than
        gone = self._abort_uploads(before)
        files = self._listing(before)
        while batch := list(islice(files, 1000)):
            for pointer in sorted(set(batch) - _named(batch)):
                self._remove(pointer)
                gone.append(pointer)
        return gone

    def check(self) -> str:
        """Write, read and delete a small file; the answer in a sentence. Raises PipelineError."""
        probe, words = f"{Layer.RAW.value}/{_temporary()}", secrets.token_bytes(64)
        self._write_bytes(words, probe)
        try:
            with self.open(probe) as stream:
                came_back = stream.read()
        finally:
            self._remove(probe)
        if came_back != words:
            raise DataError(f"{self.describe()} gave other bytes than it took.", code="lake-other-bytes", next_step="Do not use this storage.")
        return f"The lake at {self.describe()} took, gave back and removed a file."

    def free_space(self) -> int | None:
        """Bytes left, or None where nobody can say."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """Where it is, in words without secrets."""

    def _missing(self, pointer: str) -> DataError:
        return DataError(f"{pointer} is not in the lake at {self.describe()}.", code="lake-missing", next_step="Run the block again from extract.")

    # what a folder and a bucket each do their own way
    @abstractmethod
    def _sha256(self, pointer: str) -> str | None: ...

    @abstractmethod
    def _size(self, pointer: str) -> int | None: ...

    @abstractmethod
    def _write(self, path: Path, pointer: str, sha256: str) -> None: ...

    @abstractmethod
    def _write_bytes(self, content: bytes, pointer: str) -> None: ...

    @abstractmethod
    def _stream(self, pointer: str) -> BinaryIO: ...

    @abstractmethod
    def _names(self, folder: str) -> Iterable[str]: ...

    @abstractmethod
    def _remove(self, pointer: str) -> None: ...

    @abstractmethod
    def _listing(self, before: datetime) -> Iterator[str]: ...

    def _abort_uploads(self, before: datetime) -> list[str]:
        return []


def _temporary() -> str:
    return f".lake-{secrets.token_hex(8)}.part"


def _is_ours(pointer: str) -> bool:
    return bool(OURS.fullmatch(pointer) or TEMPORARY.fullmatch(PurePosixPath(pointer).name))


def _named(pointers: list[str]) -> set[str]:
    """Those of `pointers` that an entry names, live or withdrawn."""
    return set(CatalogEntry.objects.filter(pointer__in=pointers).values_list("pointer", flat=True))


# a folder


class FolderLake(Lake):
    """A lake on a disk. Every file appears under its name at once and whole, and is on the disk when `put` returns."""

    def __init__(self, root: Path):
        self.root = root.absolute()

    def local_path(self, pointer: str, workdir: Path, *, sha256: str = "") -> Path:
        path = self._path(checked(pointer))
        if not self.exists(pointer):
            raise self._missing(pointer)
        with self._in_words():
            if sha256 and fingerprint(path) != sha256:
                raise _altered(pointer)
        return path

    def free_space(self) -> int | None:
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return shutil.disk_usage(there).free

    def describe(self) -> str:
        return str(self.root)

    def _path(self, pointer: str) -> Path:
        path = self.root / pointer
        # a link inside the lake must not lead out of it either
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{pointer!r} leads out of the lake.", code="lake-pointer")
        return path

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._told(error) from error

    def _told(self, error: OSError) -> PipelineError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return TransientError(
                f"The lake at {self.root} is full.", code="lake-full", next_step="Free space on that disk; the block then goes on by itself."
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP):
            return SetupError(
                f"The lake at {self.root} can't be used: {error.strerror} ({error.filename}).",
                code="lake-permission",
                next_step="Let the user that runs the workers write there, or set LAKE_URL to another folder.",
            )
        return TransientError(f"The lake at {self.root} failed: {error}.", code="lake-io")

    def _sha256(self, pointer: str) -> str | None:
        with self._in_words():
            try:
                return fingerprint(self._path(pointer))
            except FileNotFoundError:
                return None

    def _size(self, pointer: str) -> int | None:
        with self._in_words():
            try:
                return self._path(pointer).stat().st_size
            except FileNotFoundError:
                return None

    def _write(self, path: Path, pointer: str, sha256: str) -> None:
        with self._arriving(pointer) as part:
            _link_or_copy(path, part)

    def _write_bytes(self, content: bytes, pointer: str) -> None:
        with self._arriving(pointer) as part:
            part.write_bytes(content)

    @contextmanager
    def _arriving(self, pointer: str) -> Iterator[Path]:
        """A temporary name beside the final one; what is written there is flushed and renamed, or removed."""
        target = self._path(pointer)
        with self._in_words():
            _make_folder(target.parent)
            part = target.with_name(_temporary())
            try:
                yield part
                _flush(part)
                os.utime(part)
                part.rename(target)
                _flush(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def _stream(self, pointer: str) -> BinaryIO:
        with self._in_words():
            try:
                return self._path(pointer).open("rb")
            except (FileNotFoundError, IsADirectoryError):
                raise self._missing(pointer) from None

    def _names(self, folder: str) -> list[str]:
        with self._in_words():
            place = self._path(folder)
            return [path.name for path in place.iterdir() if path.is_file() and not TEMPORARY.fullmatch(path.name)] if place.is_dir() else []

    def _remove(self, pointer: str) -> None:
        with self._in_words():
            self._path(pointer).unlink(missing_ok=True)

    def _listing(self, before: datetime) -> Iterator[str]:
        with self._in_words():
            for top in (*Layer.values, _run_mode()):
                for folder, _, names in os.walk(self.root / top, onerror=_refuse_unreadable):
                    for path in (Path(folder, name) for name in names):
                        pointer = path.relative_to(self.root).as_posix()
                        try:
                            if _is_ours(pointer) and path.lstat().st_mtime < before.timestamp():
                                yield pointer
                        except FileNotFoundError:
                            continue  # a temporary that its writer has just renamed


def _refuse_unreadable(error: OSError) -> None:
    # os.walk would skip the folder and say nothing
    if not isinstance(error, FileNotFoundError):
        raise error


def _link_or_copy(path: Path, part: Path) -> None:
    """The bytes of `path` at `part`: in no time on the same disk, else copied."""
    try:
        os.link(path, part)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
            raise
        shutil.copyfile(path, part)


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents so that they outlive a power cut, as the file in it will."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush(folder.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _altered(pointer: str) -> DataError:
    return DataError(
        f"{pointer} is not the file that was catalogued: its sha256 differs.",
        code="lake-sha256",
        next_step="Find out who changed it, then run the block again from extract.",
    )


# a bucket


def s3_client(*, access_key: str = "", secret_key: str = "") -> Any:
    """A client of S3 or what speaks like it, by the AWS_… environment, or with keys of its own. Raises ValueError for a bad endpoint."""
    import boto3  # here, for its import takes a quarter of a second that a folder need not pay
    from botocore.config import Config

    # a session of our own: boto3's default one is not safe to build in two threads
    session = boto3.session.Session(aws_access_key_id=access_key or None, aws_secret_access_key=secret_key or None)
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 5},
        # a server of our own seldom has a host name for every bucket
        s3={"addressing_style": "path" if _endpoint() else "auto"},
    )
    return session.client("s3", region_name=session.region_name or "us-east-1", config=config)


class BucketLake(Lake):
    """A lake on S3 or what speaks like it. No access list is ever set: who may read is the bucket's own affair."""

    def __init__(self, bucket: str, prefix: str):
        self.bucket = bucket
        self.prefix = prefix

    @functools.cached_property
    def _s3(self) -> Any:
        with self._in_words():
            try:
                return s3_client()
            except ValueError as error:
                raise SetupError(f"{error}.", code="lake-address", next_step="Set AWS_ENDPOINT_URL to an address like https://host:9000.") from error

    def local_path(self, pointer: str, workdir: Path, *, sha256: str = "") -> Path:
        copy = workdir / PurePosixPath(checked(pointer)).name
        digest = hashlib.sha256()
        expected = sha256 or self._head(pointer).get("Metadata", {}).get("sha256", "")
        with self.open(pointer) as stream, copy.open("wb") as file:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if expected and digest.hexdigest() != expected:
            copy.unlink()
            raise _altered(pointer)
        return copy

    def describe(self) -> str:
        where = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        endpoint = urlsplit(_endpoint())
        return f"{where} on {endpoint.hostname}{f':{endpoint.port}' if endpoint.port else ''}" if endpoint.hostname else where

    def _key(self, pointer: str) -> str:
        return f"{self.prefix}/{pointer}" if self.prefix else pointer

    def _pointer(self, key: str) -> str:
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        from botocore import exceptions as boto

        try:
            yield
        except boto.ClientError as error:
            raise self._told(error) from error
        except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound, boto.NoRegionError, boto.ParamValidationError) as error:
            raise SetupError(
                f"The lake at {self.describe()} can't be used: {error}", code="lake-credentials", next_step="Set LAKE_URL and the AWS_… variables."
            ) from error
        except boto.BotoCoreError as error:
            raise TransientError(f"The lake at {self.describe()} did not answer as it should: {error}", code="lake-down") from error

    def _told(self, error: Any) -> PipelineError:
        reply = error.response.get("ResponseMetadata", {})
        code, status = error.response.get("Error", {}).get("Code", ""), reply.get("HTTPStatusCode", 0)
        said = f"The lake at {self.describe()} said {status} {code} to {error.operation_name}."
        if code in ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException") or status in (0, 408, 409, 429) or status >= 500:
            # 409: another writer of the same name is at work
            return TransientError(said, code=f"lake-{status}")
        return SetupError(said, code=f"lake-{status}", next_step="Look at the bucket's name, its policy and the AWS_… credentials.")

    def _head(self, pointer: str) -> dict[str, Any]:
        """What the bucket says of a file; empty if it has none."""
        from botocore.exceptions import ClientError

        with self._in_words():
            try:
                return self._s3.head_object(Bucket=self.bucket, Key=self._key(pointer))
            except ClientError as error:
                # a HEAD has no body to say which is missing; a bucket that is not there answers 404 too, and fails at the first write
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return {}
                raise

    def _sha256(self, pointer: str) -> str | None:
        if not (head := self._head(pointer)):
            return None
        if noted := head.get("Metadata", {}).get("sha256"):
            return noted
        with self.open(pointer) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _size(self, pointer: str) -> int | None:
        return self._head(pointer).get("ContentLength")

    def _write(self, path: Path, pointer: str, sha256: str) -> None:
        from boto3.s3.transfer import TransferConfig

        with self._in_words(), path.open("rb") as file:
            # an upload that fails is aborted by boto3, one that dies is swept
            self._s3.upload_fileobj(
                file,
                self.bucket,
                self._key(pointer),
                ExtraArgs={"Metadata": {"sha256": sha256}},
                Config=TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4),
            )

    def _write_bytes(self, content: bytes, pointer: str) -> None:
        with self._in_words():
            self._s3.put_object(Bucket=self.bucket, Key=self._key(pointer), Body=content)

    def _stream(self, pointer: str) -> BinaryIO:
        from botocore.exceptions import ClientError

        with self._in_words():
            try:
                reply = self._s3.get_object(Bucket=self.bucket, Key=self._key(pointer))
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    raise self._missing(pointer) from None
                raise
        return io.BufferedReader(_Body(reply["Body"], reply["ContentLength"], pointer), CHUNK)

    def _names(self, folder: str) -> Iterator[str]:
        prefix = self._key(f"{folder}/")
        with self._in_words():
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                yield from (item["Key"].removeprefix(prefix) for item in page.get("Contents", []))

    def _remove(self, pointer: str) -> None:
        with self._in_words():
            self._s3.delete_object(Bucket=self.bucket, Key=self._key(pointer))

    def _listing(self, before: datetime) -> Iterator[str]:
        with self._in_words():
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key("")):
                for item in page.get("Contents", []):
                    pointer = self._pointer(item["Key"])
                    if item["LastModified"] < before and _is_ours(pointer):
                        yield pointer

    def _abort_uploads(self, before: datetime) -> list[str]:
        gone = []
        with self._in_words():
            for page in self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._key("")):
                for upload in page.get("Uploads", []):
                    pointer = self._pointer(upload["Key"])
                    if upload["Initiated"] < before and OURS.fullmatch(pointer):
                        self._s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                        gone.append(pointer)
        return gone


class _Body(io.RawIOBase):
    """The body of a reply as a plain file. botocore counts it; what it says of a cut one is told here in our words."""

    def __init__(self, body: Any, expected: int, pointer: str):
        self.body, self.expected, self.pointer, self.seen = body, expected, pointer, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        try:
            chunk = self.body.read(len(buffer))
        except (BotoCoreError, HTTPError, OSError) as error:
            raise TransientError(f"{self.pointer} broke off after {self.seen:,} of {self.expected:,} bytes: {error}", code="lake-cut") from error
        self.seen += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self.body.close()
        super().close()


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


# the lake of this installation


def at(url: str) -> Lake:
    """The lake at a folder or at `s3://bucket/prefix`. Raises SetupError on any other address."""
    scheme = urlsplit(url).scheme if "://" in url else ""
    if not scheme and url.strip():
        return FolderLake(Path(url))
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    is_bucket = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc) and not parts.query and not parts.fragment
    if scheme == "s3" and is_bucket and not (prefix and _leads_out(prefix)):
        return BucketLake(parts.netloc, prefix)
    raise SetupError("LAKE_URL is neither a folder nor s3://bucket/prefix.", code="lake-address", next_step="Set LAKE_URL.")


@functools.lru_cache(maxsize=8)
def _opened(url: str, endpoint: str, process: int) -> Lake:
    # endpoint and process only tell one lake from another
    return at(url)


def lake() -> Lake:
    """The lake of settings.LAKE_URL: one a process, for a connection must not be shared with a forked child."""
    return _instead.get() or _opened(settings.LAKE_URL, _endpoint(), os.getpid())


_instead: ContextVar[Lake | None] = ContextVar("_instead", default=None)


@contextmanager
def instead(other: Lake) -> Iterator[None]:
    """Within this, `lake()` is `other`: a simulation writes there (`catalog.overlay`)."""
    token = _instead.set(other)
    try:
        yield
    finally:
        _instead.reset(token)


# files and their entries


def shelve(
    *,
    dataset: Dataset,
    source: str,
    layer: str,
    window: tuple[datetime, datetime],
    file: Path,
    name: str,
    sha256: str,
    bytes: int,
    rows: int | None,
    origin: str = "",
    metadata: dict[str, Any] | None = None,
    run_id: int | None = None,
    place: str = "",
    identity: tuple[str, str] | None = None,
) -> CatalogEntry:
    """Move `file` into the lake and return its live entry; `source` is the pipeline's slug, `window` (start, end) in aware time.

    The same bytes under the same name give the same entry, live again if it was withdrawn. Other bytes take its place: the
    former entry is withdrawn, its file stays. `place` is the pointer that is wanted instead of the shelf's (see `atd_mds_place`).
    `identity` is (id_base, id_ext) where the name does not tell them: ("Austin", "unmatched.txt").
    Raises PipelineError; then there is no new entry.
    """
    if (actual := file.stat().st_size) != bytes:
        raise DataError(f"{name} has {actual:,} bytes, not {bytes:,}.", code="lake-size")
    starts_at, ends_at = window
    fields = _name_fields(name) if identity is None else dict(zip(("id_base", "id_ext"), identity, strict=True))
    told = {"source": source, "layer": Layer(layer).value, "window_start": starts_at, **fields}
    pointer = _free(place, told, sha256) if place else shelf(source, dataset.slug, layer, starts_at, sha256, name)
    lake().put(file, pointer=pointer, sha256=sha256)
    return _enter(
        pointer,
        identity=told,
        dataset=dataset,
        window_end=ends_at,
        sha256=sha256,
        bytes=bytes,
        rows=rows,
        origin=origin[:2000],
        metadata=metadata or {},
        run_id=run_id,
    )


def _free(place: str, identity: dict[str, Any], sha256: str) -> str:
    """`place`, or where other bytes, or the same bytes of another pipeline or window lie there, the place with a mark before its end.

    A place without a fingerprint is no promise of its bytes: the file there is asked, and the catalog, whose entries never change.
    """
    base, ext = split_name(checked(place))
    mark, source = sha256[:12], identity["source"]
    # the last is nobody else's: what one pipeline fetched in one second for several days lies under one day, such as a site file
    own = f"{base}-{source}-{identity['window_start'].astimezone(UTC):%Y%m%dT%H%MZ}-{mark}{ext}"
    for pointer in (place, f"{base}-{mark}{ext}", f"{base}-{source}-{mark}{ext}", own):
        entry = CatalogEntry.objects.filter(pointer=pointer).values("sha256", *identity).first()
        if entry not in (None, {"sha256": sha256, **identity}):
            continue
        if lake()._sha256(pointer) in (None, sha256):
            return pointer
    raise DataError(
        f"{place} and the names beside it hold other files already.",
        code="lake-other-bytes",
        next_step="Give the pipeline its own way of naming raw files.",
    )


def _name_fields(name: str) -> dict[str, str]:
    base, ext = split_name(name)
    if len(base) > 200 or len(ext) > 60:
        base, ext = split_name(safe_name(name))
    return {"id_base": base, "id_ext": ext}


@transaction.atomic
def _enter(pointer: str, *, identity: dict[str, Any], **facts: Any) -> CatalogEntry:
    # the dataset's row is the queue in which two workers that shelve for it wait; no_key lets entries that point to it be made
    Dataset.objects.select_for_update(no_key=True).get(pk=facts["dataset"].pk)
    CatalogEntry.objects.filter(**identity).live().exclude(pointer=pointer).update(withdrawn_at=Now())
    CatalogEntry.objects.filter(pointer=pointer).exclude(withdrawn_at=None).update(withdrawn_at=None)
    entry = CatalogEntry.objects.filter(pointer=pointer).first()
    if entry is None:
        return CatalogEntry.objects.create(pointer=pointer, **identity, **facts)
    made_of = {name: facts["metadata"][name] for name in ("inputs", "inventory") if name in facts["metadata"]}
    if made_of and any(entry.metadata.get(name) != told for name, told in made_of.items()):
        # the same bytes, made of others this time: who compares must not find the day changed for ever
        entry.metadata.update(made_of)
        entry.save(update_fields=["metadata"])
    return entry


def withdraw_others(source: str, layer: str, window_start: datetime, keep: Iterable[CatalogEntry]) -> int:
    """Withdraw the live entries of that window that are not in `keep`: the source no longer gives them. Returns how many."""
    entries = CatalogEntry.objects.filter(source=source, layer=layer, window_start=window_start).live()
    return entries.exclude(pk__in=[entry.pk for entry in keep]).update(withdrawn_at=Now())
