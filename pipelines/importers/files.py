"""Files of a configuration, wherever they lie and whether or not they are encrypted: a path or `s3://bucket/key`, plain or Fernet.

What goes wrong is an `Unreadable` in words; no word of a file and no key is ever among them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from pipelines.importers.plan import suggestion

#: No configuration is longer; what is, was named by mistake.
LARGEST_FILE = 20 << 20
#: How every Fernet token begins: its version, and a time before the year 2106.
_TOKEN = re.compile(rb"\s*gAAAAA[A-Za-z0-9_-]+={0,2}\s*")
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)")


class Unreadable(Exception):
    """A file that can't be read or written: why, and what to do next."""

    def __init__(self, message: str, next_step: str, line: int = 0):
        super().__init__(message)
        self.message, self.next_step, self.line = message, next_step, line


class Missing(Unreadable):
    """There is no such file."""


def read(path: str, environment: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file or of an object in S3, as they are. Raises Unreadable.

    The `environment` may hold AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of its own; without them the process's count.
    """
    content = _object(path, environment or {}) if is_s3(path) else _file(Path(path))
    if len(content) > LARGEST_FILE:
        raise Unreadable(f"The file is longer than {LARGEST_FILE:,} bytes; no configuration is.", "Name a configuration file.")
    return content


def write(path: str, content: bytes, *, is_secret: bool = False) -> None:
    """The whole file or none: a full disk must not leave half a configuration under the name of the last good one. Raises Unreadable.

    One that `is_secret` only its owner may read.
    """
    if is_s3(path):
        bucket, key = _place(path)
        with _in_words(path, {}) as s3:
            s3.put_object(Bucket=bucket, Key=key, Body=content)
        return
    file = Path(path)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600 if is_secret else 0o666)
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        raise Unreadable(f"{path} can't be written: {error.strerror}.", "Name a file in a folder that you may write to.") from error
    finally:
        part.unlink(missing_ok=True)


def beside(path: str, name: str) -> str:
    """Where the file of that name lies in the folder of `path`."""
    return f"{path.rpartition('/')[0]}/{name}" if is_s3(path) else str(Path(path).with_name(name))


# encryption


def is_encrypted(content: bytes) -> bool:
    """Whether it is one Fernet token and nothing else, as atd-mds stores its configuration."""
    return bool(_TOKEN.fullmatch(content))


def opened(content: bytes, key: str) -> bytes:
    """What was encrypted. Raises Unreadable for a wrong key and for one that is none."""
    try:
        return _cipher(key).decrypt(content.strip())
    except InvalidToken:
        raise Unreadable(
            "The file is encrypted, and the key that was given does not open it (or the file was cut or changed).",
            "Give the key that encrypted it, with --fernet-key-env and the name of the variable that holds it.",
        ) from None


def closed(content: bytes, key: str) -> bytes:
    """It, encrypted. Raises Unreadable for a key that is none."""
    return _cipher(key).encrypt(content)


def _cipher(key: str) -> Fernet:
    try:
        return Fernet(key.strip().encode())
    except ValueError:
        raise Unreadable(
            "The key that was given is no Fernet key: 32 bytes in url-safe base64, 44 characters.",
            "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'",
        ) from None


# where it lies


def is_s3(path: str) -> bool:
    return path.startswith("s3://")


def _file(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise Unreadable("This is a folder.", f"Name the files in it: {str(file).rstrip('/')}/*.yaml")
        with file.open("rb") as opened:
            # not read to its end: a device has none
            return opened.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise Missing("There is no such file.", _near(file)) from None
    except OSError as error:
        raise Unreadable(f"The file can't be read: {error.strerror}.", "Let the user who runs this command read it.") from error


def _near(file: Path) -> str:
    names = sorted(item.name for item in file.parent.iterdir()) if file.parent.is_dir() else []
    if not names:
        return f"Look at the path: the folder {file.parent} does not exist or is empty."
    return suggestion(file.name, names, what=f"In {file.parent} are")


def _object(path: str, environment: Mapping[str, str]) -> bytes:
    bucket, key = _place(path)
    with _in_words(path, environment) as s3, s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
        return body.read(LARGEST_FILE + 1)


def _place(path: str) -> tuple[str, str]:
    found = _S3.fullmatch(path)
    if not found:
        raise Unreadable("This is no address of a file in S3.", "Write it like s3://bucket/config/providers_production.json.")
    return found[1], found[2]


@contextmanager
def _in_words(path: str, environment: Mapping[str, str]) -> Iterator[Any]:
    """A client of S3; what it raises is told as Unreadable. The same settings reach it as reach the lake."""
    from botocore import exceptions as boto  # here, as in the lake: its import takes a quarter of a second

    from catalog import lake

    again = "Look at the bucket's name, its policy and the AWS_… credentials of this environment."
    try:
        yield lake.s3_client(access_key=environment.get("AWS_ACCESS_KEY_ID", ""), secret_key=environment.get("AWS_SECRET_ACCESS_KEY", ""))
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "404"):
            raise Missing("There is no such file in S3.", "Look at the address: s3://bucket/key.") from None
        if code == "NoSuchBucket":
            raise Unreadable("There is no such bucket in S3.", "Look at the address: s3://bucket/key.") from None
        raise Unreadable(f"The storage refuses it: {code}.", again) from None
    except (boto.BotoCoreError, ValueError) as error:
        # botocore's own words name the endpoint and what is missing, and no credentials
        raise Unreadable(f"The storage can't be reached: {error}", again) from None
