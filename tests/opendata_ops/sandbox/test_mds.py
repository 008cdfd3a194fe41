"""The operators' API: every version answers as its standard says, log-ins hold, and scripts do what they promise."""

import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import jsonschema
import pytest

from opendata_ops.sandbox.mds import SPIN, Basic, Bearer, Headers, MdsServer, OAuth, Operators
from opendata_ops.sandbox.mds_trips import VERSIONS, Fleet, as_json

from .conftest import Client

HOUR = "2026-03-08T10"
BEGINS = datetime(2026, 3, 8, 10, tzinfo=UTC)
SCHEMAS = Path("/work/shared/data/mds/schema")


def accept(version):
    return {"Accept": f"application/vnd.mds{'.provider' if version < '1' else ''}+json;version={version}"}


def asking(version, hour=BEGINS, length=timedelta(hours=1)):
    """The query for an hour, in the words of a version."""
    first, last = hour.timestamp(), (hour + length).timestamp()
    match version:
        case "0.2":
            return {"start_time": first, "end_time": last}
        case "0.3":
            return {"min_end_time": int(first * 1000), "max_end_time": int(last * 1000)}
    return {"end_time": f"{hour:%Y-%m-%dT%H}"}


def ask(server, version=None, hour=BEGINS, headers=None, path="/trips", **more):
    """(status, headers, body as JSON where it is JSON)"""
    version = version or server.version
    query = urlencode({**(asking(version, hour) if path == "/trips" else {}), **more})
    status, told, body = Client(server)(f"{server.prefix}{path}?{query}", headers={**accept(version), **(headers or {})})
    return status, told, json.loads(body) if body.endswith(b"}") else body


def trips_of(body):
    return body["trips"] if "trips" in body else body["data"]["trips"]


@pytest.fixture
def serve():
    """Start servers; they end with the test and must have made no mistake of their own."""
    started = []

    def start(*args, **kwargs):
        kwargs.setdefault("fleet", FLEET)
        started.append(MdsServer(*args, **kwargs).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()
        assert server.mistakes == []


FLEET = Fleet("Redwing", hourly=12)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_delivers_the_truth_in_its_own_envelope_and_words(serve, version):
    server = serve(version=version)
    status, headers, body = ask(server)
    assert status == 200
    assert body["version"] == VERSIONS[version]
    assert headers["content-type"] == ("application/json" if version == "0.2" else accept(version)["Accept"])
    assert ("data" in body) is (version < "2")
    assert ("links" in body) is (version in ("0.2", "0.3"))
    expected = [trip for trip in server.trips(HOUR) if version != "0.2" or trip.start_ms >= BEGINS.timestamp() * 1000]
    assert trips_of(body) == [as_json(trip, version) for trip in expected] and len(expected) >= 6
    if (schema := next(SCHEMAS.glob(f"{version}.*.json"), None)) is not None:
        jsonschema.validate(body, json.loads(schema.read_text()))


def test_0_2_speaks_seconds_and_loses_trips_that_cross_the_hour_unless_asked_with_an_overlap(serve):
    server = serve(version="0.2", fleet=Fleet(hourly=40))
    inside = trips_of(ask(server)[2])
    wider = trips_of(ask(server, start_time=BEGINS.timestamp() - 86_400)[2])
    ended = [trip["trip_id"] for trip in wider if trip["end_time"] >= BEGINS.timestamp()]
    assert isinstance(inside[0]["end_time"], float)
    assert len(inside) < len(ended) == len(server.trips(HOUR))


def test_hours_of_0_3_are_half_open_and_together_give_each_trip_once(serve):
    server = serve(version="0.3", fleet=Fleet(hourly=5, seed="edges"))
    day = [BEGINS + timedelta(hours=place) for place in range(24)]
    got = [trip["trip_id"] for hour in day for trip in trips_of(ask(server, hour=hour)[2])]
    assert got == [trip.trip_id for hour in day for trip in server.trips(hour)]
    assert any(trip.end_ms % 3_600_000 == 0 for hour in day for trip in server.trips(hour)), "one ends on the hour itself"
    one = server.trips(HOUR)[2]
    before, after = ({"min_end_time": one.end_ms + low, "max_end_time": one.end_ms + high} for low, high in ((-1, 0), (0, 1)))
    assert [len(trips_of(ask(server, **span)[2])) for span in (before, after)] == [0, 1]


@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_pages_follow_their_links_to_the_end(serve, version):
    server = serve(version=version, page_size=5)
    got, body = [], ask(server, start_time=BEGINS.timestamp() - 86_400)[2] if version == "0.2" else ask(server)[2]
    sizes = []
    while True:
        got += trips_of(body)
        sizes.append(len(trips_of(body)))
        if body["links"]["next"] is None:
            break
        path = body["links"]["next"].removeprefix(server.url)
        body = json.loads(Client(server)(path, headers=accept(version))[2])
    assert set(sizes[:-1]) == {5} and 0 < sizes[-1] <= 5, "no page is empty"
    ended = [trip for trip in got if trip["trip_id"] in {trip.trip_id for trip in server.trips(HOUR)}]
    assert len(ended) == 12 and len({trip["trip_id"] for trip in got}) == len(got)


@pytest.mark.parametrize(
    ("version", "header", "status", "answered"),
    [
        ("0.3", {}, 200, "0.2.1"),
        ("0.3", {"Accept": "application/json"}, 200, "0.2.1"),
        ("0.3", accept("0.4"), 406, None),
        ("0.4", accept("0.2"), 200, "0.2.1"),
        ("1.2", {}, 406, None),
        ("1.2", {"Accept": "application/vnd.mds+json;version=1.2.0"}, 200, "1.2.0"),
        ("1.2", {"Accept": "application/vnd.mds.provider+json;version=1.2"}, 406, None),
        ("1.2", accept("1.0"), 406, None),
        ("2.0", {"Accept": f"{accept('2.1')['Accept']}, {accept('2.0')['Accept']}"}, 200, "2.0.2"),
        ("0.2", accept("0.4"), 200, "0.2.1"),
    ],
)
def test_the_version_is_negotiated(serve, version, header, status, answered):
    server = serve(version=version)
    query = urlencode(asking("0.2" if answered == "0.2.1" else version))
    got, _, body = Client(server)(f"/trips?{query}", headers=header)
    body = json.loads(body)
    assert (got, body.get("version")) == (status, answered)
    if status == 406:
        assert body["error"] and any(version in kind for kind in body["error_details"])


def test_options_tell_the_versions_before_1_0(serve):
    status, headers, _ = Client(serve(version="0.4"))("/trips", "OPTIONS", headers=accept("0.4"))
    assert status == 200 and "version=0.4" in headers["accept"] and "version=0.2" in headers["accept"]
    assert Client(serve(version="1.0"))("/trips", "OPTIONS", headers=accept("1.0"))[0] == 405


@pytest.mark.parametrize(
    ("version", "standing", "status"),
    [
        *((version, "over", 200) for version in VERSIONS),
        *((version, "not over", 404) for version in VERSIONS if version >= "0.4"),
        *((version, "not over", 200) for version in ("0.2", "0.3")),
        *((version, "out of service", 404) for version in VERSIONS if version >= "0.4"),
        ("0.4", "not ready", 404),
        ("1.1", "not ready", 404),
        ("1.2", "not ready", 102),
        ("2.0", "not ready", 202),
        ("2.1", "not ready", 202),
    ],
)
def test_an_hour_is_answered_as_the_version_says(serve, version, standing, status):
    now = BEGINS + timedelta(minutes={"over": 6000, "not over": 59, "not ready": 75, "out of service": 6000}[standing])
    opens = BEGINS + timedelta(hours=1) if standing == "out of service" else None
    server = serve(version=version, clock=lambda: now, ready_minutes=30, opens=opens)
    got, _, body = ask(server)
    assert got == status
    if standing != "over" and status == 200:
        assert trips_of(body) == [], "0.2 and 0.3 know no word for it"
    assert server.served == [(BEGINS, status)]


def test_an_empty_hour_in_service_is_an_answer(serve):
    body = ask(serve(version="1.1", fleet=Fleet(hourly=0)))[2]
    assert body == {"version": "1.1.1", "data": {"trips": []}}
    assert ask(serve(version="1.0", fleet=Fleet(hourly=0), quirks=["empty_hour_is_404"]))[0] == 404


@pytest.mark.parametrize("query", [{}, {"end_time": "2026-3-8T1"}, {"end_time": "2026-03-08T24"}, {"end_time": "1583661600000"}])
def test_an_hour_that_is_no_hour_is_400_with_words(serve, query):
    status, _, body = Client(serve(version="2.0"))("/trips?" + urlencode(query), headers=accept("2.0"))
    assert status == 400 and json.loads(body)["error"] == "bad_param"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("auth", "good", "bad"),
    [
        (Bearer("t1"), {"Authorization": "Bearer t1"}, {"Authorization": "Bearer t2"}),
        (Basic("u", "p"), {"Authorization": basic("u", "p")}, {"Authorization": basic("u", "q")}),
        (Headers({"X-Key": "k"}), {"X-Key": "k"}, {"X-Key": "l"}),
    ],
)
def test_a_wrong_credential_is_401_and_a_right_one_is_not(serve, auth, good, bad):
    server = serve(auth=auth)
    assert [ask(server, headers=headers)[0] for headers in (good, bad, {})] == [200, 401, 401]


def token(server, **changed):
    form = {**server.auth.form, **changed}
    headers = {"Content-Type": "application/x-www-form-urlencoded", **server.auth.headers}
    status, _, body = Client(server)("/oauth/token", "POST", urlencode(form), headers)
    return status, json.loads(body)


@pytest.mark.parametrize("auth", [OAuth(), SPIN, OAuth(headers={"App-Version": "3.0.0"}, key="token")], ids=["oauth", "spin", "bolt"])
def test_a_token_opens_until_it_expires(serve, auth):
    server = serve(auth=auth)
    status, told = token(server)
    assert status == 200 and ("expires_in" in told) is auth.tells_expiry
    login = {"Authorization": f"Bearer {told[auth.key]}"}
    assert ask(server, headers=login)[0] == 200
    server.expire_tokens()
    assert ask(server, headers=login)[0] == 401
    assert ask(server, headers={"Authorization": f"Bearer {token(server)[1][auth.key]}"})[0] == 200
    name = "password" if auth is SPIN else "client_secret"
    assert token(server, **{name: "guess"})[0] == 401
    assert token(server, grant_type="magic")[1]["error"] == "unsupported_grant_type"
    server.script_token(400, times=2)
    assert [token(server)[0] for _ in range(3)] == [400, 400, 200]


def test_a_jwt_says_whose_it_is(serve):
    server = serve(auth=OAuth(is_jwt=True))
    claims = token(server)[1]["access_token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["provider_id"] == FLEET.provider_id


def test_a_short_life_ends_by_itself(serve):
    server = serve(auth=OAuth(lifetime=0.0))
    assert ask(server, headers={"Authorization": f"Bearer {token(server)[1]['access_token']}"})[0] == 401


def test_a_script_is_met_by_its_hour_alone_and_then_all_is_well(serve):
    server = serve(version="1.2")
    server.script(HOUR, 404, 202, 429, 102, 500, retry_after=7)
    assert ask(server, hour=BEGINS + timedelta(hours=1))[0] == 200
    answers = [ask(server) for _ in range(6)]
    assert [status for status, _, _ in answers] == [404, 202, 429, 102, 500, 200]
    assert answers[2][1]["retry-after"] == "7"
    assert server.served[1:] == [(BEGINS, status) for status in (404, 202, 429, 102, 500, 200)]


def test_an_expired_token_is_refused_once_and_a_new_one_works(serve):
    server = serve(auth=OAuth())
    server.script(HOUR, "expired")
    login = {"Authorization": f"Bearer {token(server)[1]['access_token']}"}
    assert [ask(server, headers=login)[0] for _ in range(2)] == [401, 401]
    assert ask(server, headers={"Authorization": f"Bearer {token(server)[1]['access_token']}"})[0] == 200


def test_bodies_that_are_not_what_they_seem(serve):
    server = serve(version="1.2")
    server.script(HOUR, "html", "empty", "truncated", "wrong_version", "wrong_type", "another_hour", "no_trips", None)
    whole = [as_json(trip, "1.2") for trip in server.trips(HOUR)]
    html, empty, truncated, version, kind, another, none, right = (ask(server) for _ in range(8))
    assert html[0] == 200 and b"<html>" in html[2]
    assert empty[2] == b""
    assert version[2]["version"] == "9.9.9"
    assert kind[1]["content-type"] == "text/plain" and trips_of(kind[2]) == whole
    assert trips_of(another[2]) == [as_json(trip, "1.2") for trip in server.trips("2026-03-08T09")]
    assert none[2]["data"] == {}
    assert trips_of(right[2]) == whole


@pytest.mark.parametrize("word", ["cut", "cut_chunked"])
def test_a_cut_body_is_cut(serve, word):
    import http.client

    server = serve(version="1.2")
    server.script(HOUR, word)
    with pytest.raises(http.client.IncompleteRead):
        ask(server)
    assert ask(server)[0] == 200


def test_an_interim_102_is_followed_by_the_answer_on_the_same_connection(serve):
    server = serve(version="1.2", quirks=["ignores_accept"])
    server.script(HOUR, "102-then-200")
    received, _ = Client(server).wire(f"/trips?end_time={HOUR}")
    assert received.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.endswith(b"}}")


def test_links_that_lead_astray(serve):
    server = serve(version="0.3", page_size=5)
    server.script(HOUR, "self_loop", "other_host", "endless", to="http://127.0.0.9/trips")
    loop, other, endless = (ask(server)[2]["links"]["next"] for _ in range(3))
    assert loop == f"{server.url}/trips?{urlencode(asking('0.3'))}"
    assert other == "http://127.0.0.9/trips"
    assert endless.endswith("page=2")


def test_vehicles_of_2_x_are_told_one_by_one_and_in_pages(serve):
    server = serve(version="2.0", page_size=20)
    trip = trips_of(ask(server)[2])[0]
    assert "vehicle_type" not in trip and "provider_name" not in trip
    status, _, body = ask(server, path=f"/vehicles/{trip['device_id']}")
    assert status == 200 and [vehicle["device_id"] for vehicle in body["vehicles"]] == [trip["device_id"]]
    assert body["vehicles"][0]["vehicle_type"] == "scooter_standing"
    assert ask(server, path="/vehicles/unknown")[0] == 404
    got, page = [], 1
    while page:
        body = ask(server, path="/vehicles", page=page)[2]
        got += [vehicle["device_id"] for vehicle in body["vehicles"]]
        page = page + 1 if body["links"]["next"] else 0
    assert got == [device.device_id for device in FLEET.devices]
    assert ask(serve(version="1.2"), path="/vehicles")[0] == 404


def test_the_misbehaviours_that_were_seen(serve):
    lime = serve(version="0.3", renamed={"min_end_time": "start_time", "max_end_time": "end_time"})
    assert ask(lime)[0] == 400
    assert (
        Client(lime)(
            f"/trips?start_time={BEGINS.timestamp() * 1000:.0f}&end_time={BEGINS.timestamp() * 1000 + 3_600_000:.0f}", headers=accept("0.3")
        )[0]
        == 200
    )
    jump = ask(serve(version="0.3", quirks=["rejects_max_end_time"]))
    assert jump[0] == 400 and jump[2]["error_description"] == "Invalid additional property"
    spin = serve(version="0.2", quirks=["fourteen_days"])
    assert ask(spin, start_time=BEGINS.timestamp() - 15 * 86_400)[0] == 400
    veoride = ask(serve(version="0.2", quirks=["says_1.0"], fleet=Fleet("VeoRide INC.", hourly=40, integer_ids=True)))[2]
    assert veoride["version"] == "1.0" and isinstance(trips_of(veoride)[0]["trip_id"], int)
    scoobi = serve(version="0.4", quirks=["same_trips"])
    one, other = ask(scoobi)[2], ask(scoobi, hour=BEGINS + timedelta(days=9))[2]
    assert one == other and len(trips_of(one)) == 30
    lon, lat = trips_of(one)[0]["route"]["features"][0]["geometry"]["coordinates"]
    assert 40 < lon < 41 and -81 < lat < -79, "Pittsburgh, the wrong way round"
    early = serve(version="0.4", quirks=["fails_before_opening"], opens=BEGINS + timedelta(days=3))
    assert ask(early)[0] == 500
    assert ask(serve(version="1.2", quirks=["gone"], closes=BEGINS))[0] == 410
    nights = serve(version="1.2", pauses=lambda hour: hour.hour == 10)
    assert [ask(nights)[0], ask(nights, hour=BEGINS + timedelta(hours=1))[0], nights.trips(HOUR)] == [404, 200, []]
    bird = serve(version="0.3", required_headers={"App-Version": "3.0.0"})
    assert [ask(bird)[0], ask(bird, headers={"App-Version": "3.0.0"})[0]] == [400, 200]
    assert ask(serve(version="2.0", quirks=["trip_type_text"]))[2]["trips"][0]["trip_type"] == "rider"


def test_more_requests_than_allowed_are_429_with_a_time_to_wait(serve):
    server = serve(version="1.2", limit=(2, 60))
    answers = [ask(server) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert 1 <= int(answers[2][1]["retry-after"]) <= 60


def test_a_misspelt_wish_is_refused():
    with pytest.raises(ValueError, match="no quirk is called slow"):
        MdsServer(FLEET, quirks=["slow"])
    with pytest.raises(ValueError, match=r"no MDS version 3\.0"):
        MdsServer(FLEET, version="3.0")
    with pytest.raises(ValueError, match="no answer is called 'nope'"):
        MdsServer(FLEET).script(HOUR, "nope")


def test_several_operators_share_a_port_and_keep_their_own_log_ins():
    one, two = MdsServer(FLEET, version="0.3", page_size=5, auth=Bearer("t")), MdsServer(FLEET, version="2.0", auth=Basic("u", "p"))
    with Operators({"redwing": one, "zipp": two}) as operators:
        assert one.url == f"{operators.url}/redwing"
        status, _, body = ask(one, headers={"Authorization": "Bearer t"})
        assert status == 200 and body["links"]["next"].startswith(f"{one.url}/trips?")
        assert ask(two, headers={"Authorization": "Bearer t"})[0] == 401
        assert ask(two, headers={"Authorization": basic("u", "p")})[0] == 200
        assert Client(operators)("/nobody/trips")[0] == 404
        assert Client(operators)("/__sandbox/zipp/script", "POST", {"hour": HOUR, "answers": [503]})[0] == 200
        assert ask(two, headers={"Authorization": basic("u", "p")})[0] == 503
        assert operators.mistakes == []


def test_an_operator_that_hangs_ends_with_its_server():
    one = MdsServer(FLEET)
    with Operators({"redwing": one}) as operators:
        one.script(HOUR, "hang")
        asking_it = threading.Thread(target=lambda: pytest.raises(Exception, ask, one))  # noqa: B017 - the connection is closed somehow
        asking_it.start()
        while not operators.requests:
            asking_it.join(0.01)
    asking_it.join(10)
    deadline = time.monotonic() + 10
    while not one.served and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.served == [(BEGINS, 200)]


def test_the_entry_for_atd_mds_names_address_and_log_in(serve):
    server = serve(auth=OAuth(), version="0.4")
    entry = server.upstream_entry()
    assert (entry["mds_api_url"], entry["version"], entry["auth_type"], entry["token_url"]) == (
        server.url,
        "0.4.0",
        "OAuth",
        f"{server.url}/oauth/token",
    )
    assert entry["auth_data"] == server.auth.form
    lime = MdsServer(FLEET, version="0.3", renamed={"min_end_time": "start_time", "max_end_time": "end_time"})
    assert lime.upstream_entry()["mds_param_override"] == {"start_time": "start_time", "end_time": "end_time"}
