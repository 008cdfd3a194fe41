"""Pages in tests: without TLS and without collected static files. A test file of pages says `from tests.web import plain_web  # noqa: F401`."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext


@pytest.fixture(autouse=True)
def plain_web(settings):
    """What `demo` turns off on a loopback address, and static files straight from their folder."""
    settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}


@contextmanager
def asks(exactly: int) -> Iterator[None]:
    """The block inside asks the database so often; the savepoints that only a test's own transaction needs don't count."""
    with CaptureQueriesContext(connection) as told:
        yield
    queries = [query["sql"] for query in told if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert len(queries) == exactly, "\n".join([f"{len(queries)} queries, not {exactly}:", *queries])
