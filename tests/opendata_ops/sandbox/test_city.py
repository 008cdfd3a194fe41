"""The practice city: what it says of itself is what it serves, it lives by the clock, and it can be stopped and started."""

import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from opendata_ops.sandbox.city import ACCOUNT, BUILDING_PERMITS, DATASETS, INSPECTIONS, PET_LICENCES, SERVICE_REQUESTS, STREET_TREES, ZONE, City
from opendata_ops.sandbox.tables import portal_value

from .conftest import Client

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=ZoneInfo(ZONE))


class Clock:
    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def city():
    with City(clock=Clock()) as city:
        yield city
    assert city.source.mistakes == city.portal.mistakes == city.scooters.mistakes == []


@pytest.mark.parametrize("told", DATASETS, ids=lambda told: told.id)
def test_source_and_portal_hold_what_the_city_says(city, told):
    source, portal = Client(city.source), Client(city.portal)
    at_source = source.json(f"/api/views/{told.id}.json")
    at_portal = portal.json(f"/api/views/{told.target_id}.json")
    names = [column.name for column in told.columns]
    assert [column["fieldName"] for column in at_source["columns"]] == [column["fieldName"] for column in at_portal["columns"]] == names
    assert [column["dataTypeName"] for column in at_portal["columns"]] == [column.portal_type for column in told.columns]
    assert at_portal.get("rowIdentifierColumnId") == (None if told.is_keyless else at_portal["columns"][names.index(told.key)]["id"])
    assert ("rowIdentifierColumnId" in at_source) is told.source_key
    assert at_source["license"]["name"] == told.licence and at_source["attribution"] == told.steward
    assert portal.json(f"/resource/{told.target_id}.json", S_select="count(*)") == [{"count": "0"}]
    assert {told.window_column, told.watermark_column} - {""} <= set(names)


def test_the_portal_takes_rows_only_from_its_publisher(city):
    portal = Client(city.portal)
    path, rows = f"/resource/{STREET_TREES.target_id}.json", [{"tree_id": "T1", "diameter_in": 4}]
    assert portal(path, "POST", rows)[0] == 403
    login = {"Authorization": "Basic " + b64encode(f"{ACCOUNT.user}:{ACCOUNT.password}".encode()).decode()}
    assert portal.json(path, "POST", rows, login)["Rows Created"] == 1
    portal(path, "PUT", [], login)


@pytest.mark.parametrize(
    ("told", "rows", "repeated", "misfits"),
    [
        (BUILDING_PERMITS, 2000, 5, {"issued_date": 7, "valuation": 3}),
        (STREET_TREES, 5000, 8, {"planted_date": 6, "diameter_in": 4}),
        (INSPECTIONS, 1200, 4, {"inspection_date": 3, "score": 5}),
        (PET_LICENCES, 51_754, 20, {}),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_some_rows_are_wrong_on_purpose_and_it_is_known_how_many(city, told, rows, repeated, misfits):
    kept = city.source.dataset(told.id).rows
    assert len(kept) == rows
    assert len(kept) - len({row[told.key] for row in kept}) == repeated
    found = Counter()
    for row in kept:
        for column in told.columns:
            try:
                portal_value(row[column.name], column.portal_type)
            except ValueError:
                found[column.name] += 1
    assert found == misfits


def test_the_requests_are_those_of_the_last_thirty_days_up_to_now(city):
    rows = list(city.source.dataset(SERVICE_REQUESTS.id).rows.values())
    days = Counter(row["createddate"][:10] for row in rows)
    assert min(days) == "2026-10-21" and max(days) == "2026-11-20" and len(days) == 31
    assert {count for day, count in days.items() if day != "2026-11-20"} == {600}
    assert max(row["updateddate"] for row in rows) <= "2026-11-20T12:00:00.000"
    assert 0 < days["2026-11-20"] < 600


def test_a_city_started_later_tells_the_same_story():
    first, later = (City(clock=Clock(NOON + timedelta(hours=hours)), requests_a_day=100) for hours in (0, 3))
    clock = first.clock
    clock.now += timedelta(hours=3)
    assert first.tick() > 10
    assert first.source.dataset(SERVICE_REQUESTS.id).rows == later.source.dataset(SERVICE_REQUESTS.id).rows


def test_a_minute_never_passes_without_a_change():
    clock = Clock(NOON.replace(hour=3))
    city = City(clock=clock, requests_a_day=60)
    dataset = city.source.dataset(SERVICE_REQUESTS.id)
    for _ in range(5):
        before, moment = dataset.rows, dataset.rows_updated_at
        clock.now += timedelta(minutes=1)
        assert city.tick() > 0
        assert dataset.rows != before and dataset.rows_updated_at > moment
        assert dataset.rows.keys() >= before.keys()


def test_a_kept_city_shows_its_first_day_again(tmp_path):
    City(clock=Clock(), state=tmp_path, requests_a_day=10)
    later = City(clock=Clock(NOON + timedelta(days=2)), state=tmp_path, requests_a_day=10)
    assert min(row["createddate"] for row in later.source.dataset(SERVICE_REQUESTS.id).rows.values()).startswith("2026-10-21")


def start(*arguments):
    command = [sys.executable, "-m", "opendata_ops.sandbox", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    words = [server.stdout.readline().split() for _ in range(6)]
    assert [line[:2] for line in words] == [["ready", name] for name in ("source", "portal", "scooters", "files", "maps", "ckan")]
    return server, [line[2] for line in words]


class At:
    """Where a server listens, for a Client."""

    def __init__(self, url):
        self.host, port = url.removeprefix("http://").split(":")
        self.port = int(port)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_listens_and_ends_cleanly(end):
    server, urls = start()
    assert len(set(urls)) == 6
    assert Client(At(urls[0])).json("/api/catalog/v1")["resultSetSize"] == len(DATASETS)
    server.send_signal(end)
    out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


def test_what_was_published_survives_a_restart_and_even_a_kill(tmp_path):
    state = tmp_path / "state"
    login = {"Authorization": "Basic " + b64encode(f"{ACCOUNT.user}:{ACCOUNT.password}".encode()).decode()}
    path = f"/resource/{STREET_TREES.target_id}.json"
    server, urls = start("--state", str(state))
    Client(At(urls[1])).json(path, "POST", [{"tree_id": "T1"}, {"tree_id": "T2"}], login)
    kept = state / f"{STREET_TREES.target_id}.jsonl"
    while not kept.exists() or '"T2"' not in kept.read_text():
        assert server.poll() is None
    server.kill()
    server.communicate()
    server, urls = start("--state", str(state))
    assert Client(At(urls[1])).json(path, S_select="count(*)") == [{"count": "2"}]
    server.terminate()
    server.communicate(timeout=30)


def test_the_sandbox_needs_neither_django_nor_any_package():
    code = "import sys, opendata_ops.sandbox.city; print(sorted(m for m in ('django', 'requests', 'numpy') if m in sys.modules))"
    told = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("[]\n", "")
