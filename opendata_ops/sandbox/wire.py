"""What every server of the practice city has in common: a socket, a log of what was asked, faults, and a side door for a person.

A server answers a `Request` with a `Reply`; the bytes are written here by hand, because half of the faults are
things that a well-meaning HTTP library would refuse to send.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import traceback
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from .faults import KINDS, Fault, Schedule

LOGIN_PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign In</title></head><body>
<form action="/login" method="post"><input name="user"><input name="password" type="password"><button>Sign in</button></form>
</body></html>
"""


@dataclass
class Request:
    """One request, read whole. `query` maps each parameter to its last value; header names are lower case."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def address(self) -> str:
        """The decoded target, as a person would type it."""
        return unquote_plus(self.target)

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body.decode("utf-8") or "null")


@dataclass
class Reply:
    """One answer. A `body` of bytes is sent with its length; an iterator of bytes is sent in chunks.

    `before` goes onto the wire first, as an interim answer does; a `fault` of the answer's own says how it is delivered.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = field(default=b"", repr=False)
    content_type: str = "application/json;charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    before: bytes = b""
    fault: Fault | None = None

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        """A JSON answer."""
        return cls(status, (json.dumps(value, ensure_ascii=False) + "\n").encode(), headers=dict(headers))


@dataclass
class Asked:
    """One line of a server's log: what was asked, when (seconds of the monotonic clock), and how it went."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    target: str
    headers: dict[str, str] = field(repr=False)
    body_bytes: int
    at: float
    status: int = 0
    fault: str = ""


class LocalServer(ABC):
    """A server on this machine with a log (`requests`), faults (`fail`) and an address (`url`, after `start`).

    A subclass says `answer` and, for its own error shapes, `error_body`. `latency` seconds are added to every answer.
    Use it as a context manager, or `start()` and `stop()`; a stopped server may be started again.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, latency: float = 0.0):
        self.host = host
        self.port = port
        self.latency = latency
        self.requests: list[Asked] = []
        self.faults = Schedule()
        #: tracebacks of this server's own mistakes: a test of a client should find it empty
        self.mistakes: list[str] = []
        self.stopping = threading.Event()
        self._numbers = 0
        self._log_lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._httpd: _Listener | None = None
        self._thread: threading.Thread | None = None

    # what a subclass says
    @abstractmethod
    def answer(self, request: Request, fault: Fault | None) -> Reply:
        """The reply to one request. `fault` is given for those faults that change rows; wire faults are applied afterwards."""

    def error_body(self, status: int) -> bytes:
        """The body of an error `status` in this server's shape."""
        return (json.dumps({"error": True, "message": http.client.responses.get(status, "Error"), "status": status}) + "\n").encode()

    def control(self, verb: str, request: Request) -> Any:
        """An action of the side door beside those of `_side_door`; returns JSON. Raises LookupError when there is none."""
        raise LookupError(verb)

    # life
    def start(self) -> LocalServer:
        """Listen, and answer on a thread of its own. With port 0 the system picks a free one, kept for the next start."""
        if self._httpd is not None:
            raise RuntimeError(f"{type(self).__name__} already listens at {self.url}")
        self.stopping.clear()
        self._httpd = _Listener((self.host, self.port), self)
        self.port = self._httpd.server_address[1]
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, name=f"sandbox-{self.port}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the door and every open connection at once, as a crash would. Does nothing when not started."""
        if self._httpd is None or self._thread is None:
            return
        self.stopping.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()
        self._httpd = self._thread = None
        with self._log_lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its client or its thread closed it first

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def fail(self, fault: Fault | int | None = None, **when: Any) -> None:
        """Let coming requests go wrong: see `Schedule.add` (`next`, `path`, `method`, `times`)."""
        self.faults.add(fault, **when)

    # one request
    def _log(self, request: Request) -> Asked:
        with self._log_lock:
            self._numbers += 1
            asked = Asked(
                self._numbers,
                request.method,
                request.path,
                request.query,
                request.target,
                request.headers,
                len(request.body),
                time.monotonic(),
            )
            self.requests.append(asked)
        return asked

    def _side_door(self, request: Request) -> Reply:
        """`/__sandbox/…`: faults, requests and the city's own moves for a person with curl. Never logged, never faulty."""
        verb = request.path.removeprefix("/__sandbox").strip("/")
        try:
            match request.method, verb:
                case "GET", "":
                    return Reply.of({"faults": {kind: {"does": told, "options": options} for kind, (told, options) in KINDS.items()}})
                case "GET", "requests":
                    return Reply.of([{**vars(asked), "headers": _without_secrets(asked.headers)} for asked in list(self.requests)])
                case "DELETE", "requests":
                    self.requests.clear()
                    return Reply.of({"requests": 0})
                case "GET", "faults":
                    return Reply.of(self.faults.waiting())
                case "DELETE", "faults":
                    self.faults.clear()
                    return Reply.of([])
                case "POST", "faults":
                    asked = request.json()
                    for entry in asked if isinstance(asked, list) else [asked]:
                        when = {name: entry.pop(name) for name in ("path", "method", "times") if name in entry}
                        self.fail(Fault(entry.pop("kind"), **entry), **when)
                    return Reply.of(self.faults.waiting())
                case "POST", _:
                    return Reply.of(self.control(verb, request))
        except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
            return Reply.of({"error": True, "message": f"{type(error).__name__}: {error}"}, 400)
        except LookupError:
            pass
        return Reply.of({"error": True, "message": f"the sandbox has no {request.method} {request.path}; GET /__sandbox lists"}, 404)

    def _instead(self, fault: Fault) -> Reply | None:
        """The reply of a fault that needs no answer; None when the request is to be answered first."""
        match fault.kind:
            case "status":
                code = int(fault["code"])
                body = fault["body"]
                retry = {} if fault["retry_after"] is None else {"Retry-After": str(fault["retry_after"])}
                shape = self.error_body(code) if body is None else body.encode() if isinstance(body, str) else body
                return Reply(code, shape, fault["content_type"] or "application/json;charset=utf-8", retry)
            case "html":
                return Reply(200, LOGIN_PAGE, fault["content_type"])
            case "empty":
                return Reply(200, b"")
            case "redirect":
                return Reply(int(fault["code"]), b"", headers={"Location": str(fault["to"])})
            case "length_cap":
                return Reply(400, b'{"error":true,"message":"length must be <= 50000"}\n')
            case "gzip_bomb":
                return Reply(200, _bomb(int(fault["megabytes"])), "text/csv; charset=UTF-8", {"Content-Encoding": "gzip"})
        return None


class _Listener(ThreadingHTTPServer):
    """The listening socket; each connection is a daemon thread that `LocalServer.stop` can end."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: LocalServer):
        self.owner = owner
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for this host's full name here, which can take seconds and is used nowhere
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, ConnectionError | TimeoutError):
            return  # the client went away, which clients under test do on purpose
        self.owner.mistakes.append(traceback.format_exc())
        super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads a request, asks the owner, writes the reply as the fault of the hour wants it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        owner = self.server.owner
        with owner._log_lock:
            owner._connections.add(self.connection)

    def finish(self) -> None:
        owner = self.server.owner
        with owner._log_lock:
            owner._connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the owner keeps a log of its own."""

    def handle_one_request(self) -> None:
        if self.server.owner.stopping.is_set():
            self.close_connection = True
            return
        super().handle_one_request()

    def serve(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, parts.path, query, headers, self._read_body())
        if request.path.startswith("/__sandbox"):
            self._send(owner._side_door(request))
            return
        asked = owner._log(request)
        fault = owner.faults.take(request.method, request.address)
        asked.fault = fault.kind if fault else ""
        if pause := owner.latency + (fault.delay if fault else 0.0):
            owner.stopping.wait(pause)
        if fault and fault.kind == "hang":
            owner.stopping.wait(float(fault["seconds"]))
            self._drop("close")
            return
        reply = owner._instead(fault) if fault else None
        if reply is None:
            try:
                reply = owner.answer(request, fault)
            except Exception:  # noqa: BLE001 - the one door of this server
                # a mistake of the sandbox itself: shown to the client, to `mistakes` and on stderr, never swallowed
                owner.mistakes.append(traceback.format_exc())
                traceback.print_exc()
                reply = Reply(500, owner.error_body(500))
        asked.status = reply.status
        if reply.fault:
            fault, asked.fault = reply.fault, reply.fault.kind
        if reply.before:
            self._write(reply.before)
        self._deliver(reply, fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = serve

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                continue  # trailers
            body = b"".join(pieces)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding", "") == "gzip" else body

    def _deliver(self, reply: Reply, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        if kind in ("cut", "cut_at_line", "cut_chunked", "truncated", "drip", "bom") and not isinstance(reply.body, bytes):
            reply.body = b"".join(reply.body)
        match kind:
            case "bom":
                reply.body = b"\xef\xbb\xbf" + reply.body
                self._send(reply)
            case "headers":
                removed = {name for name, value in fault["set"].items() if value is None}
                reply.headers.update({name: value for name, value in fault["set"].items() if value is not None})
                self._send(reply, without=removed)
            case "truncated":
                reply.body = reply.body[: _some(reply.body, fault["part"])]
                self._send(reply)
            case "cut":
                self._write(self._head(reply, {"Content-Length": str(len(reply.body))}))
                self._write(reply.body[: _some(reply.body, fault["part"])])
                self._drop(fault["end"])
            case "cut_at_line":
                lines = reply.body.splitlines(keepends=True)
                self._write(self._head(reply, {"Connection": "close"}))
                self._write(b"".join(lines[: max(1, int(len(lines) * fault["part"]))]))
                self._drop("close")
            case "cut_chunked":
                piece = reply.body[: _some(reply.body, fault["part"])]
                self._write(self._head(reply, {"Transfer-Encoding": "chunked"}))
                self._write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self._drop(fault["end"])
            case "drip":
                self._write(self._head(reply, {"Content-Length": str(len(reply.body))}))
                for at in range(len(reply.body)):
                    self._write(reply.body[at : at + 1])
                    if self.server.owner.stopping.wait(float(fault["seconds"])):
                        break
            case "lost_reply":
                self._drop(fault["end"])
            case _:
                self._send(reply)

    def _send(self, reply: Reply, without: Iterable[str] = ()) -> None:
        """The reply as promised: with its length, or in chunks; compressed only where the reply says so itself."""
        if isinstance(reply.body, bytes):
            # HEAD tells the length and sends nothing
            body = b"" if self.command == "HEAD" else reply.body
            head = self._head(reply, {"Content-Length": str(len(reply.body))}, without)
            if len(body) < 65_536:
                self._write(head + body)
            else:
                self._write(head)
                self._write(body)
            return
        self._write(self._head(reply, {"Transfer-Encoding": "chunked"}, without))
        for piece in reply.body:
            if piece:
                self._write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self._write(b"0\r\n\r\n")

    def _head(self, reply: Reply, more: dict[str, str], without: Iterable[str] = ()) -> bytes:
        headers = {"Server": "nginx", "Date": self.date_time_string(), "Content-Type": reply.content_type, **reply.headers, **more}
        gone = {name.lower() for name in without}
        lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in gone]
        if headers.get("Connection") == "close":
            self.close_connection = True
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _write(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _drop(self, end: str) -> None:
        """End the connection here: `close` (FIN) or `reset` (RST, and what was not yet read is lost)."""
        self.close_connection = True
        if end == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            owner = self.server.owner
            with owner._log_lock:
                owner._connections.discard(self.connection)
            # detach: the handler's file objects still hold the socket, and a RST is sent only by the last close
            os.close(self.connection.detach())


def _some(body: bytes, part: float) -> int:
    """How much of a body is sent: a part of it, at least one byte, never all."""
    return min(max(1, int(len(body) * part)), max(0, len(body) - 1))


def _bomb(megabytes: int) -> bytes:
    """A gzip stream of about a thousandth of what it grows to."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    block = b'"1-1523590121"\n' * 69_906
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def _without_secrets(headers: dict[str, str]) -> dict[str, str]:
    """Headers for a person's eyes: whether a credential was sent, never which."""
    return {name: "(set)" if name in ("authorization", "x-app-token", "cookie") else value for name, value in headers.items()}


def in_blocks(lines: Iterator[str], size: int = 1000) -> Iterator[bytes]:
    """Encode lines a block at a time: one join and one encode for `size` lines, and memory of one block.

    A lone surrogate stands for a byte that is not UTF-8 (the fault bad_utf8) and goes out as that byte.
    """
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) >= size:
            yield "".join(block).encode("utf-8", "surrogateescape")
            block = []
    if block:
        yield "".join(block).encode("utf-8", "surrogateescape")
