"""A small portal and a client that follows no convention but HTTP."""

import http.client
import json
import socket
from urllib.parse import quote, urlencode

import pytest

from opendata_ops.sandbox import Dataset, Portal

COLUMNS = [
    ("srnumber", "text", "SRNumber"),
    ("status", "text", "Status"),
    ("updateddate", "calendar_date", "UpdatedDate"),
    ("nc", "number", "NC"),
    ("address", "text", "Address"),
    ("location", "point", "Location"),
    ("verified", "checkbox", "Verified"),
]


def small_rows(count=100):
    """Rows with nulls, ties on updateddate, commas, quotes, a newline and letters from elsewhere."""
    return [
        {
            "srnumber": f"1-{1000 + i}",
            "status": "Open" if i % 4 == 0 else "Closed",
            "updateddate": f"2020-01-{1 + i // 10:02d}T00:{i % 10 // 5:02d}:00.000",
            "nc": None if i % 10 == 3 else str(i),
            "address": ("16815 W VANOWEN ST, 91406", 'the "REAR" house', "UNIT 4\nCAÑADA ☂", None)[i % 4],
            "location": {"type": "Point", "coordinates": [-118.5, 34.25 + i / 1000]},
            "verified": i % 2 == 0,
        }
        for i in range(count)
    ]


class Client:
    """Asks a server; each answer is (status, headers with lower-case names, body)."""

    def __init__(self, server):
        self.server = server

    def __call__(self, path, method="GET", body=None, headers=None, **query):
        if query:
            path += "?" + urlencode({name.replace("S_", "$"): value for name, value in query.items()}, quote_via=quote)
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()

    def json(self, path, *args, **query):
        status, _, body = self(path, *args, **query)
        assert status == 200, body
        return json.loads(body)

    def wire(self, path, timeout=10.0):
        """Everything that comes on the socket until it ends, and how it ended: "closed", "reset" or "silent"."""
        with socket.create_connection((self.server.host, self.server.port), timeout=timeout) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = b""
            try:
                while piece := raw.recv(65_536):
                    received += piece
            except ConnectionResetError:
                return received, "reset"
            except TimeoutError:
                return received, "silent"
            return received, "closed"


@pytest.fixture
def portal():
    """A portal with 100 small rows under srnumber (`abcd-1234`) and the same without a row identifier (`nokey-less` → `free-0000`)."""
    rows = small_rows()
    with Portal(
        Dataset("abcd-1234", "Service requests", COLUMNS, rows, key="srnumber", update_frequency="Daily", attribution="Customer Service"),
        Dataset("free-0000", "No identifier", COLUMNS, rows[:3]),
    ) as portal:
        yield portal
    assert portal.mistakes == []


@pytest.fixture
def ask(portal):
    return Client(portal)
