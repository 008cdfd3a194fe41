"""A portal that gives rows as fast as a disk can: it sends slices of rendered files and never looks at a row.

It speaks as much SODA 2.1 as a reader needs: metadata, count(*), pages of CSV and JSON by $limit and $offset, and a $where,
which it answers with the table that was placed for it. What it is asked for and cannot do is refused, never guessed.
Started as a process of its own (`start`), so that its cost is nobody else's; it ends with the one that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opendata_ops.bench import rows

#: Without $limit a portal gives so many rows.
DEFAULT_LIMIT = 1_000


@dataclass(frozen=True)
class Place:
    """What stands behind a dataset id: a content, and the one that a $where gets. `version` is its rowsUpdatedAt, epoch seconds."""

    kind: str
    rows: int
    since_kind: str = ""
    version: int = 1_700_000_000

    def content(self, *, filtered: bool) -> rows.Content:
        return rows.Content(self.since_kind if filtered else self.kind, self.rows)


class Tables(ThreadingHTTPServer):
    """The server: its datasets by id, and how often each kind of request was made."""

    daemon_threads = True

    def __init__(self, root: Path):
        self.root = root
        self.places: dict[str, Place] = {}
        self.seen: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), Asked)


class Asked(BaseHTTPRequestHandler):
    """One connection of a reader."""

    protocol_version = "HTTP/1.1"
    server: Tables

    def log_message(self, *args: Any) -> None:
        """A line a request on stderr would cost more than the request."""

    def do_GET(self) -> None:
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            # a reader that only wanted the beginning has gone
            self.close_connection = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        steps = parts.path.strip("/").split("/")
        match steps:
            case ["_seen"]:
                self._json(dict(self.server.seen))
            case ["api", "views", name] if place := self._place(name, ".json"):
                self._count("metadata")
                self._json(_metadata(name.removesuffix(".json"), place))
            case ["resource", name] if place := self._place(name, ".csv") or self._place(name, ".json"):
                self._rows(place, name.rpartition(".")[2], asked)
            case _:
                self._refuse(404, f"nothing at {parts.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.places[self.path.strip("/")] = Place(**json.loads(body))
        self.server.seen.clear()
        self._json({})

    def _place(self, name: str, suffix: str) -> Place | None:
        return self.server.places.get(name.removesuffix(suffix)) if name.endswith(suffix) else None

    def _count(self, kind: str) -> None:
        self.server.seen[kind] += 1

    def _rows(self, place: Place, form: str, asked: dict[str, str]) -> None:
        select = [name.strip() for name in asked.get("$select", ",".join(rows.NAMES)).split(",")]
        filtered = "$where" in asked
        if filtered and not place.since_kind:
            self._refuse(400, "this table was placed without an answer to a $where")
            return
        content = place.content(filtered=filtered)
        if select == ["count(*)"]:
            self._count("count")
            self._json([{"count": str(content.count)}])
            return
        if tuple(select) != rows.NAMES:
            self._refuse(400, f"only all {len(rows.NAMES)} columns in their order are there; asked for {asked['$select']}")
            return
        self._count("rows")
        self._count(form)
        offset, limit = int(asked.get("$offset", 0)), int(asked.get("$limit", DEFAULT_LIMIT))
        rendered = rows.Rendered(rows.folder(self.server.root) / f"{content.stem}.{form}", content)
        first, size = rendered.span(offset, limit)
        head, tail = (rows.HEADER, b"") if form == "csv" else (b"[", b"]\n")
        self._begin("text/csv;charset=UTF-8" if form == "csv" else "application/json;charset=utf-8", len(head) + size + len(tail))
        self.wfile.write(head)
        self.wfile.flush()
        with rendered.path.open("rb") as file:
            while size:
                sent = os.sendfile(self.connection.fileno(), file.fileno(), first, size)
                first, size = first + sent, size - sent
        self.wfile.write(tail)

    def _begin(self, kind: str, size: int, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self._begin("application/json;charset=utf-8", len(body), status)
        self.wfile.write(body)

    def _refuse(self, status: int, why: str) -> None:
        self._json({"error": True, "message": why}, status)


def _metadata(name: str, place: Place) -> dict[str, Any]:
    columns = [
        {"id": n, "name": label, "fieldName": field, "dataTypeName": kind, "position": n}
        for n, (field, kind, label) in enumerate(rows.COLUMNS, start=1)
    ]
    return {
        "id": name,
        "name": f"{place.rows:,} service requests",
        "columns": columns,
        "rowsUpdatedAt": place.version,
        "metadata": {"rowIdentifier": rows.KEY},
    }


# the side of the one who starts it


@dataclass(frozen=True)
class Running:
    """A server that runs: where, and the two things that only the bench asks of it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def place(self, name: str, place: Place) -> None:
        """Put a content behind a dataset id; the count of requests begins anew."""
        self._ask("POST", f"/{name}", json.dumps(asdict(place)))

    def seen(self) -> dict[str, int]:
        """How many requests for "metadata", "count" and "rows" (of them "csv" and "json") came since something was placed."""
        return self._ask("GET", "/_seen")

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        line = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            line.request(method, path, body)
            return json.loads(line.getresponse().read())
        finally:
            line.close()


@contextmanager
def start(root: Path):
    """A server over the files under `root`, as a process; a `Running`."""
    command = [sys.executable, "-m", "opendata_ops.bench.server", str(root)]
    project = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project) as process:
        try:
            yield Running(int(process.stdout.readline()))
        finally:
            # it ends when its input does, also when we are killed before this line
            process.stdin.close()


def main(root: str) -> None:
    server = Tables(Path(root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
