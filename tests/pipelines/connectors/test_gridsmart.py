"""Cameras as a source: each device asked by itself, none of them in the way of another, and what did not come is named."""

import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.gridsmart import INTERSECTIONS, ZONE, ZONES, Cameras, Intersection, traffic
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors import http
from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.gridsmart import Device, Gridsmart
from pipelines.connectors.http import Door
from pipelines.errors import NeverCame, NotReady, SetupError, TransientError
from pipelines.formats.gridsmart import Gridsmart as Format
from pipelines.formats.sensors import Raw, Standard, Terms
from tests.pipelines.connectors.servers import Told
from tests.pipelines.formats.gridsmart_samples import Done

NOW = datetime(2019, 7, 4, 9, tzinfo=UTC)
DAY = date(2019, 7, 3)
BURNET, LAMAR, LOOP, SPEEDWAY, BRODIE, PARMER, CHAVEZ = INTERSECTIONS
WELL = tuple(replace(place, vehicles=25) for place in INTERSECTIONS if not place.is_dead)


@pytest.fixture(autouse=True)
def no_naps(monkeypatch):
    monkeypatch.setattr(http, "_pause", lambda state: 0)


@pytest.fixture
def serve():
    """A maker of running cameras: `serve(BURNET, LAMAR)`."""
    made = []

    def make(*places: Intersection, **options) -> Cameras:
        made.append(Cameras(places, now=lambda: NOW, days=5, **options).start())
        return made[-1]

    yield make
    mistakes = [device.mistakes for cameras in made for device in cameras.devices.values()]
    for cameras in made:
        cameras.stop()
    assert mistakes == [[]] * len(mistakes)


class Client:
    """A connector, and what its door told."""

    def __init__(self, *, allow=("127.0.0.1",), address="http://{ip}:8902/api", **parameters):
        self.told = []
        door = Door(list(allow), on_event=lambda level, text: self.told.append(text) if level == "warning" else None, sleep=lambda seconds: None)
        parameters = {"timeout": "30", "zip_timeout": "30", "attempts": "1"} | {name: str(value) for name, value in parameters.items()}
        self.source = Gridsmart(Account("cameras", address, parameters), door)
        self.source.now = lambda: NOW

    def request(self, units, day=DAY, days=1, asked_at=NOW, **options):
        zone = ZoneInfo(ZONE)
        starts_at, ends_at = (datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(days=more) for more in (0, days))
        return FetchRequest(
            columns=(), window_column="read_date", starts_at=starts_at.astimezone(UTC), ends_at=ends_at.astimezone(UTC), time_zone=ZONE,
            options={"devices": units, **options}, asked_at=asked_at,
        )  # fmt: skip

    def fetch(self, workdir, units, day=DAY, **more):
        workdir.mkdir(parents=True, exist_ok=True)
        return list(self.source.fetch("counts", self.request(units, day, **more), rows=None, workdir=workdir, progress=lambda done, total: None))

    @property
    def missing(self):
        return {missing.name.partition(" (")[0]: missing.code for missing in self.source.missing}


def zips(files):
    return [file.metadata["base"] for file in files if file.metadata["ext"] == "zip"]


def test_each_device_gives_its_zip_and_its_site_file(serve, tmp_path):
    cameras, client = serve(BURNET, LAMAR), Client()
    files = client.fetch(tmp_path, cameras.units())
    assert [(file.name, file.metadata["base"], file.metadata["ext"], file.metadata.get("role")) for file in files] == [
        ("Burnet_Richcreek_gs_2019-07-04_site.json", "Burnet_Richcreek", "site.json", "site"),
        ("Burnet_Richcreek_gs_2019-07-03.zip", "Burnet_Richcreek", "zip", None),
        ("Lamar_Manchaca_gs_2019-07-04_site.json", "Lamar_Manchaca", "site.json", "site"),
        ("Lamar_Manchaca_gs_2019-07-03.zip", "Lamar_Manchaca", "zip", None),
    ]
    site, received = files[0], files[1]
    # the site is of the day on which it was asked for, the counts of theirs
    assert (site.metadata["collection_date"], received.metadata["collection_date"]) == ("2019-07-04", "2019-07-03")
    assert received.path.read_bytes() == cameras.devices[BURNET.base].zip_of(DAY) and received.bytes == received.path.stat().st_size
    assert received.rows is None and received.origin.endswith("/api/counts/bydate/2019-07-03")
    told = json.loads(site.path.read_text())
    assert told["header"] == {
        "data_type": "gs_site", "target_filename": site.name, "collection_date": "2019-07-04 00:00:00-05:00",
        "device_net_addr": cameras.address(BURNET),
    }  # fmt: skip
    assert told["datetime"] == {
        "DateTime": "07/04/2019 04:00:00 AM", "TimeZoneId": "(UTC-06:00) Central Time (US & Canada)", "HostTimeUTC": "07/04/2019 09:00:00 AM",
    }  # fmt: skip
    assert told["site"]["Location"]["Street1"] == "Burnet" and told["hardware_info"]["HardwareVersion"] == "2.0"


def test_a_dead_device_is_named_and_stops_no_other(serve, tmp_path):
    cameras, client = serve(CHAVEZ, BURNET), Client()
    assert zips(client.fetch(tmp_path, cameras.units())) == [BURNET.base]
    [missing] = client.source.missing
    assert missing.code == "unreachable" and str(missing).startswith("CESAR CHAVEZ ST_TRINITY ST (127.0.0.1:")
    assert (
        any("missing is CESAR CHAVEZ ST" in text for text in client.told) and "1 of 2 devices gave all that was asked for, 1 did not" in client.told
    )


@pytest.mark.parametrize(
    ("fault", "where", "code"),
    [
        (503, "datetime.json", "http-503"),
        (404, "counts/bydate", "http-404"),
        ("html", "counts/bydate", "not-zip"),
        ("html", "site.json", "html-instead"),
        ("empty", "counts/bydate", "not-zip"),
        ("cut", "counts/bydate", "cut-body"),
        ("redirect", "site.json", "redirect"),
    ],
)
def test_a_device_that_fails_at_any_question_is_missing_alone(serve, tmp_path, fault, where, code):
    cameras, client = serve(BURNET, LAMAR), Client()
    cameras.devices[BURNET.base].fail(fault, path=where, times=9)
    files = client.fetch(tmp_path, cameras.units())
    assert zips(files) == [LAMAR.base]
    assert client.missing == {"BURNET RD_RICHCREEK RD": code}
    # nothing of it is left behind
    assert {path.name for path in tmp_path.iterdir()} == {file.path.name for file in files}


@pytest.mark.parametrize(("where", "timeouts"), [("counts/bydate", {"zip_timeout": 0.3}), ("site.json", {"timeout": 0.3})])
def test_a_device_that_says_nothing_more_is_waited_for_no_longer_than_its_time_out(serve, tmp_path, where, timeouts):
    cameras, client = serve(BURNET), Client(**timeouts)
    cameras.devices[BURNET.base].fail("hang", path=where, times=9)
    with pytest.raises(TransientError, match="gave no answer in time"):
        client.fetch(tmp_path, cameras.units())
    assert client.missing == {"BURNET RD_RICHCREEK RD": "timeout"} and not list(tmp_path.iterdir())


def test_a_device_that_drips_is_ended_by_its_own_deadline(serve, tmp_path, monkeypatch):
    cameras, client = serve(BURNET), Client(device_seconds=0.5)
    cameras.devices[BURNET.base].fail(Fault("drip", seconds=0.02), path="site.json", times=9)
    with pytest.raises(TransientError, match=r"did not finish its answer within 0\.\d+ s"):
        client.fetch(tmp_path, cameras.units())
    assert client.missing == {"BURNET RD_RICHCREEK RD": "deadline"}


def test_a_zip_has_the_time_that_is_left_of_its_device(serve, tmp_path, monkeypatch):
    cameras, client = serve(BURNET), Client(device_seconds=200)
    deadlines, download = [], client.source.door.download

    def watched(url, path, **how):
        deadlines.append(how["deadline"])
        return download(url, path, **how)

    monkeypatch.setattr(client.source.door, "download", watched)
    client.fetch(tmp_path, cameras.units())
    assert len(deadlines) == 1 and 0 < deadlines[0] < 200


def test_that_a_device_does_not_say_what_it_is_keeps_nothing_back(serve, tmp_path):
    cameras, client = serve(BURNET), Client()
    cameras.devices[BURNET.base].fail(500, path="hardwareinfo", times=9)
    files = client.fetch(tmp_path, cameras.units())
    assert zips(files) == [BURNET.base] and json.loads(files[0].path.read_text())["hardware_info"] == {}


def test_what_a_device_says_wrongly_of_itself_makes_it_missing(serve, tmp_path):
    answers = {
        "/api/site.json": {"Location": {"Street1": "", "Street2": 5}},
        "/api/datetime.json": {}, "/api/counts.json": ["2019-07-03"], "/api/system/hardwareinfo.json": {},
    }  # fmt: skip
    cameras, client = serve(BURNET), Client()
    with Told(lambda request: Reply.of(answers[request.path])) as odd:
        unit = {**cameras.units()[0], "atd_device_id": 1, "primary_st": "ODD", "device_ip": f"127.0.0.1:{odd.port}"}
        assert zips(client.fetch(tmp_path / "1", [unit, *cameras.units()])) == [BURNET.base]
        assert client.missing == {"ODD_RICHCREEK RD": "no-streets"}
        answers["/api/site.json"] = [1]
        client.fetch(tmp_path / "2", [unit, *cameras.units()])
        assert client.missing == {"ODD_RICHCREEK RD": "not-gridsmart"}


@pytest.mark.parametrize(
    ("street", "base"),
    [
        ("../../etc", "&..&etc_B"),
        ("A/B", "A&B_B"),
        ("C:\\x", "C&x_B"),
        ("\x00\nX\u202e", "X_B"),
        (".hidden", "hidden_B"),
        ("x" * 500, "x" * 70 + "_B"),
    ],
)
def test_a_street_never_leads_out_of_the_folder(tmp_path, street, base):
    answers = {
        "/api/site.json": {"Location": {"Street1": street, "Street2": "B"}}, "/api/datetime.json": {},
        "/api/counts.json": ["2019-07-03T00:00:00", "2019-06-31", 5, "soon"], "/api/system/hardwareinfo.json": {},
    }  # fmt: skip
    client = Client()

    def answer(request):
        return Reply(200, b"PK and more", "application/zip") if "bydate" in request.path else Reply.of(answers[request.path])

    with Told(answer) as odd:
        unit = {"atd_device_id": 1, "device_ip": f"127.0.0.1:{odd.port}", "atd_location_id": "L", "primary_st": "A", "cross_st": "B"}
        files = client.fetch(tmp_path / "work", [unit])
    assert {file.metadata["base"] for file in files} == {base}
    assert all(file.path.resolve().is_relative_to(tmp_path / "work") for file in files)


def test_a_zip_that_is_cut_on_the_device_itself_comes_as_it_is(serve, tmp_path):
    cameras, client = serve(PARMER), Client()
    files = client.fetch(tmp_path, cameras.units())
    whole = cameras.devices[PARMER.base].zip_of(DAY)
    assert files[1].bytes == len(whole) * 3 // 5 and not client.source.missing


def test_a_zip_without_end_is_broken_off(serve, tmp_path):
    class Endless(Told):
        def answer(self, request, fault):
            return (
                Reply(200, (b"PK" + b"0" * 1_000_000 for _ in range(40)), "application/zip")
                if "bydate" in request.path
                else super().answer(request, fault)
            )

    told = {"/api/site.json": {"Location": {"Street1": "A", "Street2": "B"}}, "/api/counts.json": ["2019-07-03"]}
    client = Client(largest_zip=3)
    with Endless(lambda request: Reply.of(told.get(request.path, {}))) as odd:
        unit = {"atd_device_id": 1, "device_ip": f"127.0.0.1:{odd.port}", "atd_location_id": "L", "primary_st": "A", "cross_st": "B"}
        with pytest.raises(TransientError, match="larger than 3,145,728 bytes"):
            client.fetch(tmp_path, [unit])
    assert list(client.missing.values()) == ["too-big"]


# which devices


def test_removed_devices_and_those_without_place_or_address_are_not_asked_and_twins_are_told_once(serve, tmp_path):
    cameras, client = serve(BURNET), Client()
    unplaced = {**cameras.units()[0], "atd_device_id": 1, "device_ip": None, "primary_st": "NO ADDRESS"}
    lured = {**cameras.units()[0], "atd_device_id": 2, "device_ip": "10.0.0.1/admin?", "primary_st": "LURE"}
    found = client.source.devices({"devices": [*cameras.units(), unplaced, lured]})
    assert [device.name for device in found] == ["BURNET RD_RICHCREEK RD"]
    assert [text for text in client.told if "CHICON" in text] == [
        f"E 7TH ST_CHICON ST has the address {cameras.address(BURNET)} of BURNET RD_RICHCREEK RD: it is asked only once, as BURNET RD_RICHCREEK RD"
    ]
    assert sum("no address in the inventory that can be asked" in text for text in client.told) == 2


def test_the_name_filter_asks_only_some(serve, tmp_path):
    cameras, client = serve(BURNET, LAMAR), Client()
    assert zips(client.fetch(tmp_path, cameras.units(), name_filter="^S LAMAR")) == [LAMAR.base]
    assert not cameras.devices[BURNET.base].requests
    with pytest.raises(SetupError, match="no regular expression"):
        client.fetch(tmp_path, cameras.units(), name_filter="(")
    with pytest.raises(SetupError, match="has no device whose name has 'NOWHERE'"):
        client.fetch(tmp_path, cameras.units(), name_filter="NOWHERE")


@pytest.mark.parametrize("units", [None, []])
def test_without_devices_a_person_is_told_what_to_do(tmp_path, units):
    client = Client()
    with pytest.raises(SetupError) as caught:
        client.fetch(tmp_path, units)
    assert caught.value.code == "no-devices" and "edition" in caught.value.next_step


def test_of_two_devices_that_call_themselves_alike_the_second_is_missing(serve, tmp_path):
    twin = Intersection("Burnet", "Richcreek", "X RD", "Y RD", 30, -97)
    one, other, client = serve(BURNET), serve(twin), Client()
    second = {**other.units()[0], "atd_device_id": 9999}
    files = client.fetch(tmp_path, [one.units()[0], second])
    assert zips(files) == [BURNET.base] and client.missing == {"X RD_Y RD": "same-name"}
    assert files[1].path.read_bytes() == one.devices[BURNET.base].zip_of(DAY)


def test_a_few_devices_are_asked_at_once_and_no_more(serve, tmp_path):
    places = [Intersection(f"A{number}", "B", f"A{number}", "B", 30, -97) for number in range(6)]
    cameras, client = serve(*places), Client(devices_at_once=3)
    together = threading.Barrier(3, timeout=30)
    inside, most, lock = 0, 0, threading.Lock()

    for device in cameras.devices.values():

        def answer(request, fault, answered=device.answer):
            nonlocal inside, most
            if not request.path.endswith("site.json"):
                return answered(request, fault)
            with lock:
                inside += 1
                most = max(most, inside)
            # three must be here together, or this breaks
            together.wait()
            with lock:
                inside -= 1
            return answered(request, fault)

        device.answer = answer
    files = client.fetch(tmp_path, cameras.units()[:6])
    assert zips(files) == [place.base for place in places] and most == 3


def test_a_reader_that_goes_away_leaves_no_thread_at_work(serve, tmp_path):
    cameras, client = serve(BURNET, LAMAR, LOOP), Client(devices_at_once=1)
    given = client.source.fetch("counts", client.request(cameras.units()), rows=None, workdir=tmp_path, progress=lambda done, total: None)
    next(given)
    given.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("camera")]
    assert not cameras.devices[LOOP.base].requests


def test_a_zip_that_is_on_its_way_when_the_reader_goes_away_is_broken_off(serve, tmp_path, monkeypatch):
    codes, lacks = [], Device.lacks
    monkeypatch.setattr(Device, "lacks", lambda device, why, code: codes.append(code) or lacks(device, why, code))
    told = {"/api/site.json": {"Location": {"Street1": "A", "Street2": "B"}}, "/api/counts.json": ["2019-07-03"]}
    begun = threading.Event()

    def pieces():
        yield b"PK"
        while True:
            begun.set()
            yield b"0" * 1_000_000

    def answer(request):
        return Reply(200, pieces(), "application/zip") if "bydate" in request.path else Reply.of(told.get(request.path, {}))

    cameras, client = serve(BURNET), Client(devices_at_once=2, largest_zip=4096)
    with Told(answer) as endless:
        unit = {**cameras.units()[0], "atd_device_id": 1, "primary_st": "ZZ", "device_ip": f"127.0.0.1:{endless.port}"}
        request = client.request([unit, *cameras.units()])
        given = client.source.fetch("counts", request, rows=None, workdir=tmp_path, progress=lambda done, total: None)
        next(given)
        assert begun.wait(30)
        given.close()
    assert codes == ["stopped"] and not list(tmp_path.glob("*.part"))


# what none of them has


def test_where_no_device_answers_the_window_is_tried_again(serve, tmp_path):
    cameras, client = serve(CHAVEZ), Client()
    with pytest.raises(TransientError, match="none of 1 devices gave counts of 2019-07-03: CESAR CHAVEZ") as caught:
        client.fetch(tmp_path, cameras.units()[:1])
    assert caught.value.code == "no-device"


def test_a_day_that_no_device_has_yet_is_waited_for_and_at_last_given_up(serve, tmp_path):
    cameras, client = serve(BURNET), Client()
    with pytest.raises(NotReady, match="none of 1 devices has counts of 2019-07-04 yet"):
        client.fetch(tmp_path, cameras.units(), date(2019, 7, 4))
    with pytest.raises(NeverCame, match="none of 1 devices has counts of 2019-05-04"):
        client.fetch(tmp_path, cameras.units(), date(2019, 5, 4))


def test_a_device_that_lacks_the_day_is_missing_and_the_others_are_read(serve, tmp_path):
    cameras, client = serve(BURNET, LAMAR), Client()
    cameras.devices[LAMAR.base].days = 0
    assert zips(client.fetch(tmp_path, cameras.units())) == [BURNET.base] and client.missing == {"S LAMAR BLVD_MANCHACA RD": "no-day"}


def test_a_window_of_two_days_gives_both(serve, tmp_path):
    cameras, client = serve(BURNET), Client()
    files = client.fetch(tmp_path, cameras.units(), DAY - timedelta(days=1), days=2)
    assert [file.metadata["collection_date"] for file in files] == ["2019-07-04", "2019-07-02", "2019-07-03"]


def test_a_device_is_only_asked_where_connectors_may_go(serve, tmp_path):
    cameras, client = serve(BURNET), Client(allow=())
    with pytest.raises(SetupError, match="OUTBOUND_ALLOW") as caught:
        client.fetch(tmp_path, cameras.units())
    assert caught.value.code == "address-refused" and not cameras.devices[BURNET.base].requests


@pytest.mark.parametrize(
    ("more", "code"),
    [({"address": "http://10.0.0.1/api"}, "bad-address"), ({"devices_at_once": 0}, "bad-parameter"), ({"timeout": "soon"}, "bad-parameter")],
)
def test_a_setting_that_is_wrong_is_named(serve, tmp_path, more, code):
    cameras, client = serve(BURNET), Client(**more)
    with pytest.raises(SetupError) as caught:
        client.fetch(tmp_path, cameras.units())
    # a setting is everybody's, and not a device's failure
    assert caught.value.code == code and not client.source.missing


def test_without_a_window_or_with_another_resource_nothing_is_asked(serve, tmp_path):
    cameras, client = serve(BURNET), Client()
    with pytest.raises(SetupError, match="without a window"):
        list(client.source.fetch("counts", FetchRequest((), options={"devices": cameras.units()}), rows=None, workdir=tmp_path, progress=print))
    with pytest.raises(SetupError, match="devices give counts"):
        client.source.describe("volumes")
    assert client.source.describe("counts").columns == ()


# what they have


def test_the_listing_tells_which_day_each_device_has(serve):
    cameras, client = serve(BURNET, CHAVEZ, LAMAR), Client()
    found = list(client.source.listing("counts", client.request(cameras.units(), DAY - timedelta(days=1), days=2)))
    assert [(one.base, one.ext, one.starts_at.astimezone(ZoneInfo(ZONE)).date()) for one in found] == [
        (base, "zip", day) for day in (DAY - timedelta(days=1), DAY) for base in (BURNET.base, LAMAR.base)
    ]
    assert found[0].ends_at - found[0].starts_at == timedelta(days=1) and list(client.missing.values()) == ["unreachable"]
    assert len(list(client.source.listing("counts", FetchRequest((), time_zone=ZONE, options={"devices": cameras.units()})))) == 10


def test_the_test_of_the_connection_asks_the_device_that_is_named_for_it(serve):
    cameras = serve(BURNET)
    assert Client(probe=cameras.address(BURNET)).source.test().endswith("(UTC-06:00) Central Time (US & Canada), and it has 5 days")
    assert "http://{ip}:8902/api" in Client().source.test()
    with pytest.raises(SetupError):
        Client(address="https://cameras.example").source.test()
    with pytest.raises(SetupError):
        Client(probe="10.0.0.1/x").source.test()


# from the devices to the vehicles


def test_what_passed_the_cameras_comes_out_whatever_their_clocks_say(serve, tmp_path):
    """A drifting clock, a wrong zone, UTC files, the other layout: each vehicle of the day comes out once, at its time."""
    cameras, client = serve(*WELL), Client()
    documents = {}
    for days in (0, 1):
        day = DAY - timedelta(days=1 - days)
        files = client.fetch(tmp_path / f"{days}", cameras.units(), day)
        sites = {file.metadata["base"]: file.path for file in files if file.metadata["ext"] == "site.json"}
        for file in files:
            base = file.metadata["base"]
            if file.metadata["ext"] == "zip":
                folder = tmp_path / f"{days}{base}"
                folder.mkdir()
                format_ = Format(terms(day))
                done = Done(format_, format_.standardize(Raw(file.path, file.name, base, "zip", {"site": sites[base]}), folder))
                documents.setdefault(base, []).extend(Standard(made.path, base, made.ext, made.header, days) for made in done.made)
                if not days:
                    documents[base].append(Standard(sites[base], base, "site.json", {}, 0, "site"))
    assert client.source.missing == []
    for place in WELL:
        format_ = Format(terms(DAY - timedelta(days=1)))
        done = Done(format_, format_.ready(documents[place.base], cameras.units(), tmp_path))
        if place.cuts_zips:
            assert not done.made or done.made[0].rows == 0
            continue
        passed = sorted(vehicle.at for zone in ZONES if zone.is_counted for vehicle in traffic(place, zone, DAY - timedelta(days=1), place.vehicles))
        assert [datetime.fromisoformat(row["timestamp_adj"]) for row in done.rows(0, "counts")] == passed, place.base
        assert done.made[0].rows == 100 and json.loads(done.made[0].path.read_text())["device"]["primary_st"] == place.primary


def terms(day: date) -> Terms:
    request = Client().request([], day)
    return Terms("gs", day, ZONE, request.starts_at, request.ends_at, NOW)
