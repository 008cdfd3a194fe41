"""A plain web server of files: with ETag, Last-Modified, both or none; some refuse HEAD, ask for a key, redirect, or send a web page.

with WebFiles() as site:
    site.put("/budget-2024.csv", b"a,b\\n1,2\\n")
    site.put("/secret.json", b"[]", wants={"X-Key": "s3cret"})
    site.put("/moved.csv", status=302, to="/budget-2024.csv")
    ...  # read f"{site.url}/budget-2024.csv"

What is not there is a 404 with a web page, as most servers have it. A file's stamp moves only when its bytes do.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import PurePosixPath
from typing import Any

from .faults import Fault
from .toronto_rows import CSV, FILES, JSON, XLSX, Made
from .wire import LocalServer, Reply, Request

_TYPES = {".csv": CSV, ".json": JSON, ".geojson": "application/geo+json", ".xlsx": XLSX, ".zip": "application/zip", ".html": "text/html"}
#: How a server tells that a file has changed.
ETAG, MODIFIED, BOTH, NONE, NOW = "etag", "modified", "both", "none", "now"
ERROR_PAGE = b"<!DOCTYPE html>\n<html><head><title>Page not found</title></head><body><h1>Sorry</h1></body></html>\n"


@dataclass(frozen=True)
class WebFile:
    """What lies at one path. `body` is made when first asked for, where it is a function.

    `tells` is how its changes are told: ETAG, MODIFIED, BOTH, NONE, or NOW (a Last-Modified that is always this second: a lie).
    `head` is the status that HEAD gets instead of the headers, such as 405. `wants` are headers without which there is a 401.
    `status` other than 200 is answered to all, with `to` as the Location. `packs`: sent as gzip to who takes it.
    """

    body: bytes | Callable[[], Made] = field(default=b"", repr=False)
    content_type: str = ""
    tells: str = BOTH
    modified: datetime | None = None
    head: int = 0
    wants: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    to: str = ""
    packs: bool = False


class WebFiles(LocalServer):
    """Files by path, without their query. `clock` tells when a file was put there."""

    def __init__(self, files: Mapping[str, WebFile] | None = None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), **server: Any):
        super().__init__(**server)
        self.clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, WebFile] = {}
        for path, file in (files or {}).items():
            self._files[path] = self._stamped(file)

    def put(self, path: str, body: bytes | Made | Callable[[], Made] = b"", **how: Any) -> WebFile:
        """Lay a file at `path` (see `WebFile`), in the place of what is there. The same bytes again keep their stamp."""
        if isinstance(body, Made):
            how.setdefault("content_type", body.content_type)
            body = body.body
        with self._lock:
            there = self._files.get(path)
            file = WebFile(body=body, **how)
            if there is not None and file.modified is None and there.body == body:
                file = replace(file, modified=there.modified)
            elif there is not None and file.modified is None and there.modified is not None:
                # these headers know whole seconds: a file that is changed within one would seem the same
                file = replace(file, modified=max(self.clock(), there.modified + timedelta(seconds=1)))
            self._files[path] = file = self._stamped(file)
        return file

    def remove(self, path: str) -> None:
        """Take a file away. Raises KeyError."""
        with self._lock:
            del self._files[path]

    def paths(self) -> list[str]:
        return sorted(self._files)

    def _stamped(self, file: WebFile) -> WebFile:
        return file if file.modified else replace(file, modified=self.clock())

    def _whole(self, path: str) -> WebFile | None:
        """The file with its bytes made."""
        with self._lock:
            file = self._files.get(path)
            if file is not None and callable(file.body):
                made = file.body()
                file = self._files[path] = replace(file, body=made.body, content_type=file.content_type or made.content_type)
        return file

    def control(self, verb: str, request: Request) -> Any:
        """`PUT`-like side door: POST /__sandbox/remove {"path": …}; POST /__sandbox/put {"path", "text"}."""
        asked = request.json()
        if verb == "remove":
            self.remove(asked["path"])
        elif verb == "put":
            self.put(asked["path"], asked["text"].encode())
        else:
            raise LookupError(verb)
        return self.paths()

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return Reply(405, ERROR_PAGE, "text/html")
        file = self._whole(request.path)
        if file is None:
            return Reply(404, ERROR_PAGE, "text/html; charset=utf-8")
        if any(request.headers.get(name.lower()) != value for name, value in file.wants.items()):
            return Reply.of({"message": "A key is needed"}, 401)
        if request.method == "HEAD" and file.head:
            return Reply(file.head, b"", "text/html")
        if file.status != 200:
            return Reply(file.status, ERROR_PAGE, "text/html", {"Location": file.to} if file.to else {})
        headers = self._told(file)
        if self._has_it(request, file, headers):
            return Reply(304, b"", file.content_type, headers)
        body, kind = file.body, file.content_type or _TYPES.get(PurePosixPath(request.path).suffix.lower(), "application/octet-stream")
        if file.packs and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, mtime=0)
        return Reply(200, body, kind, headers)

    def _told(self, file: WebFile) -> dict[str, str]:
        headers = {}
        if file.tells in (ETAG, BOTH):
            headers["ETag"] = f'"{hashlib.md5(file.body, usedforsecurity=False).hexdigest()}"'
        if file.tells in (MODIFIED, BOTH, NOW):
            headers["Last-Modified"] = format_datetime((datetime.now(UTC) if file.tells == NOW else file.modified.astimezone(UTC)), usegmt=True)
        return headers

    @staticmethod
    def _has_it(request: Request, file: WebFile, headers: Mapping[str, str]) -> bool:
        """Whether the client said that it has these bytes."""
        if (known := request.headers.get("if-none-match")) is not None:
            return "ETag" in headers and headers["ETag"] in [one.strip() for one in known.split(",")]
        if (since := request.headers.get("if-modified-since")) and "Last-Modified" in headers:
            return parsedate_to_datetime(headers["Last-Modified"]) <= parsedate_to_datetime(since)
        return False


def toronto_files(**server: Any) -> WebFiles:
    """The web files of Toronto's dataset files, one server for their two hosts; each is made when first asked for."""
    return WebFiles({path: WebFile(make) for path, make in FILES.items()}, **server)
