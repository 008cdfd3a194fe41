"""The inventory as an upkeep job: from Knack, from a database, from an address; what it keeps, and when it fails rather than keep it."""

import sqlite3
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from catalog import inventory
from catalog.audit import Actor
from catalog.models import InventoryEdition
from opendata_ops.sandbox.wire import Reply
from pipelines import secrets
from pipelines.models import Provider, UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from tests.pipelines.connectors.servers import Told
from tests.pipelines.connectors.test_knack import SmallKnack

pytestmark = pytest.mark.django_db
AUSTIN = ZoneInfo("America/Chicago")
DEVICES = [{"device_name": f"reader_{n}", "atd_device_id": n, "lat": 30.2, "lon": -97.7} for n in range(1, 5)]


def done(title: str = "Inventory", zone: str = "America/Chicago", **options) -> UpkeepRun:
    job, _ = UpkeepJob.objects.update_or_create(title=title, defaults={"kind": "inventory", "options": options, "time_zone": zone})
    jobs.check(job)
    run = jobs.start(job, actor=Actor("ann")).run
    return jobs.carry_out(run.pk)


def failed(**options) -> str:
    run = done(**options)
    assert run.state == UpkeepRun.State.FAILED, run.message
    return run.message


@pytest.fixture
def web(settings):
    """A server that gives what it is told, and may be reached."""
    with Told(Reply.of(DEVICES)) as server:
        settings.OUTBOUND_ALLOW = [server.url.removeprefix("http://")]
        yield server


def test_an_address_gives_the_edition_of_this_day_in_the_zone_of_the_job(web):
    run = done(code="bt", address=f"{web.url}/units.json?key=hidden", zone="Asia/Tokyo")
    assert run.state == UpkeepRun.State.DONE and run.message.startswith("Stored: bt, 4 devices, dated ")
    edition = InventoryEdition.objects.get()
    assert edition.dated_at == inventory.today(ZoneInfo("Asia/Tokyo"))
    assert (edition.origin, edition.uploaded_by, len(edition.units)) == (f"{web.url}/units.json", "ann", 4)
    # once more the same day: harmless, and said
    again = done(code="bt", address=f"{web.url}/units.json", zone="Asia/Tokyo")
    assert "holds the same 4 devices already" in again.message and InventoryEdition.objects.get().pk == edition.pk


def test_other_devices_of_the_same_day_take_its_place_only_when_the_job_says_so(web):
    done(code="bt", address=web.url)
    web.says = Reply.of([*DEVICES, {"device_name": "new", "lat": "north"}])
    assert "There is an edition of bt dated" in failed(code="bt", address=web.url)
    run = done(code="bt", address=web.url, replace="yes")
    assert "Against the edition before: 1 new." in run.message and "1 note on what was not taken" in run.message
    assert run.details["notes"][0] == "device 5, lat: 'north' is no number; it is left empty."


def test_a_fetch_that_lost_most_devices_fails_and_the_last_edition_stays(web):
    inventory.store("bt", inventory.today(AUSTIN) - timedelta(days=1), DEVICES, Actor("ann"))
    web.says = Reply.of(DEVICES[:1])
    assert "gave 1 device, and the edition dated" in failed(code="bt", address=web.url)
    assert InventoryEdition.objects.count() == 1
    assert done(code="bt", address=web.url, least_percent=25).state == UpkeepRun.State.DONE


def test_what_an_address_gives_instead_of_devices_is_told(web):
    web.says = Reply.of({"devices": []})
    assert "units.json: has no devices" in failed(code="bt", address=f"{web.url}/units.json")
    web.says = Reply.of({"message": "no"}, 404)
    assert "404" in failed(code="bt", address=web.url)
    assert not InventoryEdition.objects.exists()


def test_a_secret_header_comes_from_the_environment(web, monkeypatch):
    monkeypatch.setenv("UNITS_TOKEN", "Bearer s3cret-token")
    assert done(code="bt", address=web.url, authorization="env:UNITS_TOKEN").state == UpkeepRun.State.DONE
    assert web.requests[-1].headers["authorization"] == "Bearer s3cret-token"


def test_knack_gives_an_inventory_by_its_code(settings):
    with SmallKnack() as server:
        settings.OUTBOUND_ALLOW = [server.url.removeprefix("http://")]
        Provider.objects.create(
            slug="knack", title="Data Tracker", kind="knack", base_url=server.url,
            parameters={"app_id": "app1"}, secrets={"api_key": secrets.seal("s3cret")},
        )  # fmt: skip
        assert done(code="bt", provider="knack").state == UpkeepRun.State.DONE
    edition = InventoryEdition.objects.get()
    assert edition.origin == "Data Tracker: bt"
    lamar, ghost = edition.units
    assert (lamar["device_name"], lamar["kits_id"], lamar["ip_comm_status"], lamar["lat"]) == ("lamar_mlk", 7, "UNKNOWN", 30.27)
    assert ghost["device_name"] == "ghost" and ghost["lat"] is None


def test_a_database_gives_an_inventory_by_a_query(tmp_path):
    with sqlite3.connect(tmp_path / "units.db") as database:
        database.execute("create table units (NAME text, LAT real, LON real, KITS integer)")
        database.executemany("insert into units values (?, ?, ?, ?)", [("lamar_mlk", 30.27, -97.75, 7), ("ghost", None, None, None)])
    database.close()
    Provider.objects.create(slug="kits", title="KITS", kind="database", base_url=f"sqlite:///{tmp_path / 'units.db'}")
    query = "select NAME as device_name, LAT as lat, LON as lon, KITS as kits_id from units order by NAME desc"
    run = done(code="wt", provider="kits", resource=query)
    assert run.state == UpkeepRun.State.DONE, run.message
    assert InventoryEdition.objects.get().units == [
        {"device_name": "lamar_mlk", "lat": 30.27, "lon": -97.75, "kits_id": 7},
        {"device_name": "ghost", "lat": None, "lon": None, "kits_id": None},
    ]
    assert "what to read from KITS is not said" in failed(code="wt", provider="kits")
    assert "has no rows" in failed(code="wt", provider="kits", resource=f"{query[: -len(' order by NAME desc')]} where NAME = 'x'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no inventory is named"),
        ({"code": "bt"}, "one of provider and address must be named"),
        ({"code": "bt", "provider": "x", "address": "https://x.example"}, "one of provider and address must be named"),
        ({"code": "bt", "provider": "x"}, "no active provider 'x'"),
        ({"code": "bt", "address": "https://x.example", "replace": "perhaps"}, "replace is 'perhaps'"),
        ({"code": "bt", "address": "https://x.example", "least_percent": "-1"}, "least_percent must be a whole number"),
    ],
)
def test_what_is_set_up_wrong_is_said_before_anything_is_asked(options, words):
    assert words in failed(**options)
