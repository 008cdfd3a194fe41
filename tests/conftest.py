"""What every test stands on: a database of its own, a lake of its own, and a word for programs that may be missing.

The tests' database lies on the embedded server, or on the server that `DATABASE_URL` names; it carries this process's number,
so that two runs on one machine, and the processes of one run (pytest-xdist), do not meet. Programs that the tests start find it
through the environment.
"""

import os
from collections import Counter

import environ
import hypothesis
import psutil
import pytest
from django.db import connection

from opendata_ops import bootstrap, database

EMBEDDED = database.is_embedded()  # asked once: below, the environment names the tests' database
TEST_DATABASE = f"test_opendata_ops_{os.getpid()}"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# a test never asserts a time: on a busy machine an example may take as long as it likes
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): programs of bootstrap.PROGRAMS; without them it is skipped, in CI it fails")
    if not config.getoption("numprocesses", None):
        # a process that only hands out tests to others leaves the environment, which they inherit, as it found it
        _point_at(database.url(start=False))


def _point_at(url: str) -> None:
    """Settings, warehouse and the programs that tests start: all use the tests' database on that server, none the real one."""
    from django.conf import settings

    test_url = f"{url.rsplit('/', 1)[0]}/{TEST_DATABASE}"
    server = {name: value for name, value in environ.Env.db_url_config(url).items() if name in ("HOST", "PORT", "USER", "PASSWORD")}
    settings.DATABASES["default"].update(server)  # in place: the connection looks at this very dictionary
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = TEST_DATABASE
    settings.DATABASE_URL = os.environ["DATABASE_URL"] = test_url
    settings.WAREHOUSES = {"default": test_url}
    os.environ.pop("WAREHOUSE_URL", None)


@pytest.fixture(scope="session")
def django_db_modify_db_settings():
    """Start the server when the first test asks for the database, and clear what killed runs left on it."""
    if EMBEDDED:
        server = database.embedded()
        server.start()
        _point_at(server.url())
        with server.connected("postgres") as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^test_opendata_ops_[0-9]+$'")
            for (name,) in cursor.fetchall():
                if not psutil.pid_exists(int(name.rsplit("_", 1)[1])):
                    cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """The tests' database need not survive a power cut: commits that don't wait for the disk save minutes."""
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {TEST_DATABASE} SET synchronous_commit = off")
        connection.close()


@pytest.fixture(autouse=True)
def lake_folder(tmp_path, settings, monkeypatch):
    """Each test has an empty lake, which the programs that it starts share."""
    folder = tmp_path / "lake"
    settings.LAKE_URL = str(folder)
    monkeypatch.setenv("LAKE_URL", str(folder))
    return folder


# programs that pip cannot bring: `@pytest.mark.needs("chromium")`


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the real CKAN begin first: one at a time has it, so that at the end of a run the processes would wait for each other."""
    items.sort(key=lambda item: "tests/ckan/" not in item.nodeid)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in {name for mark in item.iter_markers("needs") for name in mark.args}:
        program = next((program for program in bootstrap.PROGRAMS if program.name == name), None)
        if program is None:
            raise pytest.UsageError(f"{item.nodeid} needs {name!r}, which bootstrap.PROGRAMS does not name")
        if bootstrap.missing(program):
            item.user_properties.append(("missed", name))  # in the report: with several processes, it is what reaches the first one
            if IN_CI:
                pytest.fail(f"{name} is missing; in CI that is a failure, not a reason to skip", pytrace=False)
            pytest.skip(f"{name} is not installed")


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [report for kind in ("skipped", "failed", "error") for report in terminalreporter.stats.get(kind, [])]
    missed = Counter(name for report in reports if report.when == "setup" for key, name in report.user_properties if key == "missed")
    for name, tests in sorted(missed.items()):
        terminalreporter.write_line(f"NOT TESTED: {tests} tests need {name}, which is not installed here.", yellow=True)
