"""Beneath the door: sockets that keep a deadline, connections that look whom they reached, and requests' adapter for them."""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from pipelines.connectors.addresses import AllowList, address
from pipelines.errors import SetupError

#: An answer may be long in the making, but a line that takes not one byte for this many seconds is dead.
SENDING = 60.0

_call = threading.local()


@contextmanager
def on_the_clock(started: float, seconds: float, pace: float) -> Iterator[None]:
    """Within it, no socket operation of this thread lasts longer than `pace` seconds, nor beyond `seconds` after `started`."""
    _call.deadline, _call.seconds, _call.pace = started + seconds, seconds, pace
    try:
        yield
    finally:
        _call.deadline = None


def seconds_left() -> float | None:
    """Seconds to the deadline of this thread's request, None outside one. Raises TimeoutError once it has passed."""
    deadline = getattr(_call, "deadline", None)
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the whole request has passed")
    return left


def seconds_allowed() -> float:
    """What this thread's request may take as a whole."""
    return _call.seconds


class _Timed:
    """A socket whose every read and write is timed by what is left of the deadline.

    `timeout=` of requests starts anew with each byte that drips in, in the headers as in the body; this one cannot be
    kept alive by dripping.
    """

    def _arm(self, most: float = math.inf) -> None:
        left = seconds_left()
        if left is not None:
            self.settimeout(min(_call.pace, left, most))

    def recv(self, *args: Any) -> bytes:
        self._arm()
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        self._arm()
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        self._arm()
        return super().send(*args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        # in pieces, so that a big body over a slow line is timed by its progress
        view = memoryview(data).cast("B")
        for start in range(0, len(view), 64 * 1024):
            self._arm(SENDING)
            super().sendall(view[start : start + 64 * 1024], flags)


class _TimedSocket(_Timed, socket.socket):
    pass


class _TimedTLSSocket(_Timed, ssl.SSLSocket):
    pass


def dial(
    allow: AllowList, host: str, port: int, *, timeout: float, kind: type[socket.socket] = socket.socket, options: Iterable[tuple] = ()
) -> socket.socket:
    """A socket to `host`, which is resolved once: only permitted addresses are dialled, and it is looked again at whom was reached.

    Raises socket.gaierror or UnicodeError for a name that is not found, OSError of the last address that did not answer, and
    SetupError where none is permitted. The deadline of the thread's request shortens the `timeout`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    refused, failure = "", None
    for family, form, protocol, _, target in found:
        if not allow.permits(host, port, address(target[0])):
            refused = target[0]
            continue
        sock = kind(family, form, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            left = seconds_left()
            sock.settimeout(timeout if left is None else min(timeout, left))
            sock.connect(target)
            peer = sock.getpeername()[0]
        except OSError as error:
            sock.close()
            failure = error
            continue
        # The check that counts: whom we did reach, before a byte is sent.
        if allow.permits(host, port, address(peer)):
            return sock
        sock.close()
        refused = peer
    if failure is not None:
        raise failure
    raise SetupError(
        f"{host} is at {refused}, an address inside a private or reserved network, where connectors may not go",
        code="address-refused",
        next_step=f"If this host is meant, have {host}:{port} added to the setting OUTBOUND_ALLOW.",
    )


class _Guarded:
    """A connection that goes only where the door's allow-list permits."""

    allow: AllowList
    connect_timeout: float

    def _new_conn(self) -> socket.socket:
        host = self._dns_host.strip("[]")
        try:
            return dial(self.allow, host, self.port, timeout=self.connect_timeout, kind=_TimedSocket, options=self.socket_options or ())
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, error.strerror or str(error)) from error


def _guarded_pools(allow: AllowList, connect_timeout: float) -> dict[str, type[HTTPConnectionPool]]:
    """Connection pools whose connections know this door's allow-list."""
    rules = {"allow": allow, "connect_timeout": connect_timeout}
    http = type("GuardedHTTPConnection", (_Guarded, HTTPConnection), rules)
    https = type("GuardedHTTPSConnection", (_Guarded, HTTPSConnection), rules)
    return {
        "http": type("GuardedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": http}),
        "https": type("GuardedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
    }


@lru_cache(maxsize=8)
def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Certificates checked against `ca_file`, sockets timed. Shared by all doors: reading the authorities takes a while."""
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = _TimedTLSSocket
    return context


class GuardedAdapter(HTTPAdapter):
    """requests' way to urllib3, with guarded pools, our own TLS context and no proxies from the environment."""

    def __init__(self, allow: AllowList, connect_timeout: float, ca_file: str):
        self._pools = _guarded_pools(allow, connect_timeout)
        self._tls = _tls_context(ca_file)
        super().__init__(pool_maxsize=8)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context already holds the certificates; requests would load its own bundle into it for each connection."""
        conn.cert_reqs = "CERT_REQUIRED"
