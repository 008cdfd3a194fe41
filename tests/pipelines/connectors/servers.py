"""Servers for the door's tests: one that answers as told, one that writes bytes by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from opendata_ops.sandbox.wire import LocalServer, Reply, Request


class Told(LocalServer):
    """Answers what it was told: a Reply, or a function from a Request to one; `{"ok": true}` where nothing was said."""

    def __init__(self, says: Reply | Callable[[Request], Reply] | None = None, **server):
        super().__init__(**server)
        self.says = says or Reply.of({"ok": True})

    def answer(self, request, fault):
        # a copy: a fault shortens the reply that it is given
        return self.says(request) if callable(self.says) else replace(self.says, headers=dict(self.says.headers))


@contextmanager
def by_hand(speak: Callable[[socket.socket], None], host: str = "127.0.0.1", *, listens: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """(address, what each connection said first) of a server that hands every connection to `speak`.

    It reads the request before, unless `listens` is false (as for TLS, where `speak` must begin).
    """
    heard: list[bytes] = []
    ended = threading.Event()
    listener = socket.create_server((host, 0))
    listener.settimeout(0.05)

    def one(connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection:
            try:
                heard.append(connection.recv(65536) if listens else b"")
                speak(connection)
            except OSError:
                pass  # the client under test hung up, which is what some tests are about

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    threads: list[threading.Thread] = []
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}", heard
    finally:
        ended.set()
        server.join()
        listener.close()
        for thread in threads:
            thread.join(timeout=6)
