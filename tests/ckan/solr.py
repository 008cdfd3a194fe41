"""A stand-in for Solr: what CKAN's package_search asks of it, answered from documents that are kept in memory.

It speaks `/schema?wt=schema.xml`, `/update/` (documents as JSON or XML, deletes by query) and `/select/` with q, fq, sort, start,
rows, fl and facets. Words are looked for as pieces of name, title, notes and tags: there is no ranking and no stemming.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

from opendata_ops.sandbox.lucene import Query, values_of

SCHEMA = b'<?xml version="1.0" encoding="UTF-8"?><schema name="ckan-2.12" version="1.6"></schema>'


class Solr(ThreadingHTTPServer):
    """The stand-in on a free port of this machine; `url` is what CKAN is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/solr/ckan"

    def update(self, body: bytes, content_type: str) -> None:
        """Add documents or delete those of a query, as pysolr writes both."""
        if "json" in content_type:
            asked = json.loads(body)
            added = asked if isinstance(asked, list) else []
            deleted = [] if isinstance(asked, list) else [asked["delete"]["query"]] if "delete" in asked else []
        else:
            root = ElementTree.fromstring(body)
            added = [{} for _ in root.iter("doc")]
            for document, element in zip(added, root.iter("doc"), strict=True):
                for entry in element.iter("field"):
                    name = entry.attrib["name"]
                    document[name] = [*values_of(document, name), entry.text or ""] if name in document else entry.text or ""
            deleted = [entry.text or "" for entry in root.iter("query")] if root.tag == "delete" else []
        with self.lock:
            for document in added:
                self.documents[document["index_id"]] = document
            for text in deleted:
                test = Query(text).test
                self.documents = {name: document for name, document in self.documents.items() if not test(document)}

    def select(self, asked: dict[str, list[str]]) -> dict[str, Any]:
        """The page of documents that a search asks for, with facets."""
        tests = [Query(text).test for text in [*asked.get("q", ["*:*"]), *asked.get("fq", [])]]
        with self.lock:
            found = [document for document in self.documents.values() if all(test(document) for test in tests)]
        for field, _, direction in reversed([part.strip().partition(" ") for part in asked.get("sort", ["score desc"])[-1].split(",")]):
            found.sort(key=lambda document, field=field: "".join(values_of(document, field)[:1]), reverse=direction.strip() == "desc")
        start, rows = int(asked.get("start", ["0"])[-1]), int(asked.get("rows", ["10"])[-1])
        wanted = set(re.split(r"[\s,]+", asked.get("fl", ["*"])[-1])) - {"", "score"}
        page = [
            document if "*" in wanted or not wanted else {name: document[name] for name in wanted if name in document}
            for document in found[start : start + rows]
        ]
        facets = {}
        for field in asked.get("facet.field", []):
            counts = Counter(value for document in found for value in values_of(document, field))
            facets[field] = [entry for pair in counts.most_common() for entry in pair]
        return {
            "responseHeader": {"status": 0},
            "response": {"numFound": len(found), "start": start, "docs": page},
            "facet_counts": {"facet_fields": facets, "facet_queries": {}},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Solr

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.rstrip("/")
        if path.endswith("/update"):
            self.server.update(body, self.headers.get("Content-Type", ""))
            self._send(b'{"responseHeader": {"status": 0}}')
        else:
            # a long search comes as a form
            self._answer({**parse_qs(urlsplit(self.path).query), **parse_qs(body.decode())})

    def _answer(self, asked: dict[str, list[str]]) -> None:
        if urlsplit(self.path).path.rstrip("/").endswith("/schema"):
            self._send(SCHEMA, "application/xml")
        else:
            self._send(json.dumps(self.server.select(asked)).encode())

    def _send(self, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
