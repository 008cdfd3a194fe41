"""MDS as a source: each version asked in its own words, each log-in, each answer an hour can have, and no secret anywhere."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from opendata_ops.sandbox.mds import SPIN, Basic, Bearer, Headers, MdsServer, OAuth
from opendata_ops.sandbox.mds_trips import Fleet
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors import http
from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.http import Door
from pipelines.connectors.mds import MDS, VERSIONS
from pipelines.errors import DataError, NoService, NotReady, PipelineError, SetupError, TransientError
from pipelines.formats.trip_columns import TRIP_COLUMNS
from tests.pipelines.connectors.servers import Told, by_hand

HOUR = datetime(2026, 3, 8, 10, tzinfo=UTC)
LATER = HOUR + timedelta(days=30)
FLEET = Fleet("Redwing", seed="connector", hourly=12)
PROVIDER_ID = "c20e08cf-8488-46a6-a66c-5d8fb827f7e0"


@pytest.fixture(autouse=True)
def no_naps(monkeypatch):
    monkeypatch.setattr(http, "_pause", lambda state: 0)


@pytest.fixture
def serve():
    """A maker of running operators: `serve(version="1.2", …)`."""
    made = []

    def make(fleet=FLEET, **options):
        made.append(MdsServer(fleet, **options).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()
    assert [server.mistakes for server in made] == [[]] * len(made)


class Client:
    """A connector to `url`, and what its door told."""

    def __init__(self, url, *, secrets=None, naps=None, **parameters):
        self.events = []
        known = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in parameters.items()}
        sealed = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in (secrets or {}).items()}
        account = Account("redwing", url, {"auth_type": "none", **known}, sealed)
        sleep = naps.append if naps is not None else lambda seconds: None
        self.door = Door(
            ["127.0.0.1"], secrets=tuple(sealed.values()), owner="provider redwing", on_event=lambda *told: self.events.append(told), sleep=sleep
        )
        self.mds = MDS(account, self.door)

    def fetch(self, workdir, *, hours=1, asked_at=LATER, starts_at=HOUR):
        request = FetchRequest(columns=(), starts_at=starts_at, ends_at=starts_at + timedelta(hours=hours), asked_at=asked_at)
        return list(self.mds.fetch("trips", request, rows=None, workdir=workdir, progress=lambda done, total: None))

    @property
    def warnings(self):
        return [text for level, text in self.events if level == "warning"]


def trips_in(files):
    """The ids of the trips of all pages, in order."""
    pages = [json.loads(file.path.read_bytes()) for file in files if "role" not in file.metadata]
    return [trip["trip_id"] for page in pages for trip in page.get("data", page)["trips"]]


def ids(trips):
    return [str(trip.trip_id) for trip in trips]


def asked(server, path="/trips"):
    return [request for request in server.requests if request.path == path]


# versions


@pytest.mark.parametrize(
    ("version", "query", "accept"),
    [
        ("0.2", {"start_time": "1772942400", "end_time": "1772967600"}, "application/vnd.mds.provider+json;version=0.2, application/json;q=0.9"),
        ("0.3", {"min_end_time": "1772964000000", "max_end_time": "1772967600000"}, "application/vnd.mds.provider+json;version=0.3"),
        ("0.4", {"end_time": "2026-03-08T10"}, "application/vnd.mds.provider+json;version=0.4"),
        *[(version, {"end_time": "2026-03-08T10"}, f"application/vnd.mds+json;version={version}") for version in ("1.0", "1.1", "1.2", "2.0", "2.1")],
    ],
)
def test_each_version_is_asked_in_its_own_words_for_the_trips_that_ended_in_the_hour(serve, tmp_path, version, query, accept):
    server = serve(version=version, quirks=["strict_parameters"])
    client = Client(server.url, version=f"{version}.0", provider_id=PROVIDER_ID, provider_name="Redwing")
    files = client.fetch(tmp_path)
    [request] = asked(server)
    assert (request.query, request.headers["accept"]) == (query, accept)
    if version == "0.2":
        # what began before the hour is only found by asking wider; what ended elsewhere is another block's
        assert set(ids(server.trips(HOUR))) < set(trips_in(files))
        assert files[0].metadata["overlaps"]
    else:
        assert trips_in(files) == ids(server.trips(HOUR)) and not files[0].metadata["overlaps"]
    about = files[0].metadata
    assert (about["version"], about["provider_id"], about["provider_name"]) == (version, PROVIDER_ID, "Redwing")
    assert (about["starts_at"], about["ends_at"], about["page"]) == ("2026-03-08T10:00:00Z", "2026-03-08T11:00:00Z", 1)
    assert (files[0].name, files[0].rows) == ("trips.json", len(trips_in(files)))
    assert client.warnings == []


def test_every_version_is_covered():
    assert [f"{major}.{minor}" for major, minor in VERSIONS] == ["0.2", "0.3", "0.4", "1.0", "1.1", "1.2", "2.0", "2.1"]


def test_the_file_holds_the_bytes_that_came(serve, tmp_path):
    body = b'{ "version" :"1.2.0", "data":{"trips":[\n] } }'
    with Told(Reply(200, body, content_type="application/vnd.mds+json;version=1.2")) as server:
        [file] = Client(server.url, version="1.2").fetch(tmp_path)
    assert (file.path.read_bytes(), file.rows, file.bytes) == (body, 0, len(body))


def test_the_columns_are_those_that_the_format_writes():
    state = MDS(Account("redwing", "https://x.example"), None).describe("trips")
    assert [(column.name, column.type) for column in state.columns] == list(TRIP_COLUMNS) and state.version is None


def test_a_span_of_several_hours_is_several_questions_from_0_4_on(serve, tmp_path):
    server = serve(version="1.1")
    files = Client(server.url, version="1.1").fetch(tmp_path, hours=3)
    assert [request.query["end_time"] for request in asked(server)] == ["2026-03-08T10", "2026-03-08T11", "2026-03-08T12"]
    assert trips_in(files) == [one for hour in range(3) for one in ids(server.trips(HOUR + timedelta(hours=hour)))]
    assert [file.name for file in files] == ["trips.json", "trips-00002.json", "trips-00003.json"]
    server.requests.clear()
    [file, _] = Client(server.url, version="1.1").fetch(tmp_path, starts_at=HOUR + timedelta(minutes=30))
    assert file.metadata["overlaps"]


def test_another_version_than_was_asked_for_is_told_once(serve, tmp_path):
    server = serve(version="0.2", quirks=["says_1.0"], page_size=5)
    client = Client(server.url, version="0.2")
    assert len(client.fetch(tmp_path)) > 2
    assert client.warnings == ["MDS 0.2 was asked for, and the body of the answer says 1.0"]
    other = serve(version="1.2")
    other.script(HOUR, "wrong_type")
    client = Client(other.url, version="1.2")
    assert client.fetch(tmp_path)[0].metadata["content_type"].startswith("text/plain")
    assert client.warnings == ["JSON was asked for, and the Content-Type of the answer says text/plain"]


def test_an_operator_that_only_knows_the_long_name_of_its_version_is_asked_by_it(tmp_path):
    def answer(request):
        known = request.headers["accept"].endswith("=1.2.0")
        return Reply.of({"version": "1.2.0", "data": {"trips": []}}) if known else Reply.of({"error": "not_acceptable"}, 406)

    with Told(answer) as server:
        client = Client(server.url, version="1.2")
        client.fetch(tmp_path)
        client.fetch(tmp_path)
        assert len(server.requests) == 3  # the second hour is asked rightly at once


# log-ins

LOGINS = {
    "bearer": (Bearer(), {"auth_type": "Bearer"}, {"token": Bearer().token}),
    "basic": (Basic(), {"auth_type": "BASIC"}, {"auth_data": {"username": "city", "password": "practice-password"}}),
    "headers": (Headers(), {"auth_type": "custom"}, {"auth_headers": {"X-Api-Key": "practice-api-key"}}),
    "oauth": (OAuth(), {"auth_type": "oauth"}, {"auth_data": dict(OAuth().form)}),
    "password for a jwt": (SPIN, {"auth_type": "OAuth", "auth_token_res_key": "jwt"}, {"auth_data": dict(SPIN.form)}),
}
CANARIES = ("practice-bearer-token", "practice-password", "practice-api-key", "practice-secret")


def told_by(error, client):
    return f"{error.message} {error.next_step} {client.events}"


@pytest.mark.parametrize("name", LOGINS)
def test_each_log_in_opens_and_a_wrong_one_is_refused_without_being_shown(serve, tmp_path, name):
    auth, parameters, secrets = LOGINS[name]
    server = serve(version="1.2", auth=auth)
    parameters = {"version": "1.2", "token_url": server.token_url, **parameters}
    client = Client(server.url, secrets=secrets, **parameters)
    [file] = client.fetch(tmp_path)
    assert trips_in([file]) == ids(server.trips(HOUR))
    assert "12 trips" in client.mds.test()
    wrong = json.loads(json.dumps(secrets).replace("practice", "stranger"))
    stranger = Client(server.url, secrets=wrong, **parameters)
    for ask in (lambda: stranger.fetch(tmp_path), stranger.mds.test):
        with pytest.raises(SetupError) as caught:
            ask()
        assert caught.value.code == "credentials-refused" and "redwing" in caught.value.next_step
        assert "stranger" not in told_by(caught.value, stranger)
    assert not any(canary in f"{client.events} {file}" for canary in CANARIES)


def test_one_token_serves_all_pages_and_one_that_is_about_to_end_is_not_used(serve, tmp_path):
    form = dict(OAuth().form)
    for lifetime, tokens in ((3600, 1), (20, 3)):
        server = serve(version="0.3", auth=OAuth(lifetime=lifetime), page_size=5)
        Client(server.url, version="0.3", auth_type="oauth", token_url=server.token_url, secrets={"auth_data": form}).fetch(tmp_path)
        assert (len(asked(server)), len(asked(server, "/oauth/token"))) == (3, tokens)


def test_a_token_that_is_refused_is_renewed_once_and_no_more(serve, tmp_path):
    server = serve(version="1.2", auth=OAuth())
    client = Client(server.url, version="1.2", auth_type="oauth", token_url=server.token_url, secrets={"auth_data": dict(OAuth().form)})
    server.script(HOUR, "expired")
    assert len(trips_in(client.fetch(tmp_path))) == 12
    server.requests.clear()
    server.script(HOUR, 401, times=9)
    with pytest.raises(SetupError) as caught:
        client.fetch(tmp_path)
    assert caught.value.code == "credentials-refused"
    assert (len(asked(server)), len(asked(server, "/oauth/token"))) == (2, 1)


def test_what_a_token_server_says_is_passed_on_in_words_and_without_its_secrets(serve, tmp_path):
    server = serve(version="1.2", auth=OAuth(headers={"App-Version": "3.0.0"}))
    options = {"version": "1.2", "auth_type": "oauth", "token_url": server.token_url}
    sealed = {"auth_data": dict(OAuth().form), "token_headers": {"App-Version": "3.0.0"}}
    server.script_token(400)
    client = Client(server.url, secrets=sealed, **options)
    with pytest.raises(SetupError, match="the token server gives no token: .*Scripted") as caught:
        client.fetch(tmp_path)
    assert caught.value.code == "credentials-refused"
    for status, kind in ((404, SetupError), (202, TransientError)):
        server.script_token(status, times=9)
        with pytest.raises(kind, match="the token server gives no token") as caught:
            client.fetch(tmp_path)
        assert caught.value.code == "no-token"  # of an hour it would say "no service", or "not ready"
        server._token_script.clear()
    server.script_token(500)
    assert client.fetch(tmp_path)  # what passes is tried again
    client = Client(server.url, secrets=sealed, auth_token_res_key="jwt", **options)
    with pytest.raises(SetupError, match="answered without jwt; its answer has ") as caught:
        client.fetch(tmp_path)
    assert caught.value.code == "no-token" and not any(token in told_by(caught.value, client) for token in server._tokens)


def test_a_log_in_may_be_sent_as_json(tmp_path):
    def answer(request):
        if request.path == "/login":
            return Reply.of({"token": "t0ken-canary"}) if request.json() == {"email": "a@b.example", "password": "pw-canary"} else Reply.of({}, 401)
        return Reply.of({"version": "1.2.0", "data": {"trips": []}}, 200 if request.headers["authorization"] == "Bearer t0ken-canary" else 401)

    with Told(answer) as server:
        secrets = {"auth_data": {"email": "a@b.example", "password": "pw-canary"}}
        client = Client(server.url, version="1.2", auth_type="oauth", token_body="json", token_url=f"{server.url}/login", secrets=secrets)
        assert len(client.fetch(tmp_path)) == 1
        server.says = lambda request: Reply.of({"error": "bad_param", "error_description": f"Not with {request.headers['authorization'][7:]}"}, 400)
        with pytest.raises(SetupError, match=r"Not with \*\*\*") as caught:
            client.fetch(tmp_path)
        assert "canary" not in told_by(caught.value, client)


def test_two_operators_in_one_process_keep_their_own_names_and_headers(serve, tmp_path):
    lime = serve(version="0.3", renamed={"min_end_time": "start_time", "max_end_time": "end_time"}, required_headers={"App-Version": "3.0.0"})
    jump = serve(version="0.3", quirks=["strict_parameters"])
    first = Client(lime.url, version="0.3", headers={"App-Version": "3.0.0"}, mds_param_override={"start_time": "start_time", "end_time": "end_time"})
    assert len(trips_in(first.fetch(tmp_path))) == 12
    assert len(trips_in(Client(jump.url, version="0.3").fetch(tmp_path))) == 12
    assert "app-version" not in asked(jump)[0].headers and set(asked(jump)[0].query) == {"min_end_time", "max_end_time"}
    picky = serve(version="0.3", quirks=["rejects_max_end_time"], clock=lambda: HOUR + timedelta(hours=2))
    assert Client(picky.url, version="0.3", mds_param_override={"end_time": ""}).fetch(tmp_path)
    assert set(asked(picky)[0].query) == {"min_end_time"}


# pages


@pytest.mark.parametrize("quirks", [(), ("relative_next",), ("last_page_without_next",)])
def test_pages_are_followed_to_the_last_with_the_parameters_of_the_first_only(serve, tmp_path, quirks):
    server = serve(version="0.3", page_size=5, quirks=quirks)
    files = Client(server.url, version="0.3").fetch(tmp_path)
    assert [file.rows for file in files] == [5, 5, 2] and trips_in(files) == ids(server.trips(HOUR))
    assert [(file.name, file.metadata["page"]) for file in files][-1] == ("trips-00003.json", 3)


def test_pages_that_are_not_followed_are_told(serve, tmp_path):
    server = serve(version="0.3", page_size=5)
    client = Client(server.url, version="0.3", paging="off")
    assert [file.rows for file in client.fetch(tmp_path)] == [5]
    assert client.warnings == ["the trips go on after the first page, and paging is off for provider redwing"]
    other = serve(version="1.2", page_size=5, quirks=["pages_anyway"])
    client = Client(other.url, version="1.2")
    assert len(trips_in(client.fetch(tmp_path))) == 12
    assert client.warnings == ["the trips come by pages, which MDS 1.2 does not know; they are followed"]


@pytest.mark.parametrize("word", ["self_loop", "endless"])
def test_pages_that_go_round_in_a_circle_end(serve, tmp_path, word):
    server = serve(version="1.2")
    server.script(HOUR, word, times=99)
    with pytest.raises(DataError, match="go round in a circle") as caught:
        Client(server.url, version="1.2").fetch(tmp_path)
    assert caught.value.code == "paging-loop" and len(server.requests) < 20


def test_the_same_page_under_ever_new_addresses_is_a_circle(tmp_path):
    def answer(request):
        page = int(request.query.get("page", 1))
        return Reply.of({"version": "0.3.0", "data": {"trips": [{"trip_id": "a"}]}, "links": {"next": f"/trips?page={page + 1}"}})

    with Told(answer) as server, pytest.raises(DataError, match="it is the page before once more"):
        Client(server.url, version="0.3").fetch(tmp_path)


def test_a_link_to_another_host_gets_neither_question_nor_log_in(serve, tmp_path):
    with Told() as thief:
        server = serve(version="0.3", auth=Bearer())
        server.script(HOUR, "other_host", to=f"{thief.url}/trips?page=2")
        client = Client(server.url, version="0.3", auth_type="bearer", secrets={"token": Bearer().token})
        with pytest.raises(SetupError) as caught:
            client.fetch(tmp_path)
        assert (caught.value.code, thief.requests) == ("foreign-link", [])


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("http://mds.example/austin/trips?page=2", "https://mds.example/austin/trips?page=2"),
        ("https://MDS.example:443/t?page=2", "https://MDS.example:443/t?page=2"),
        ("?page=2", "https://mds.example/austin/trips?page=2"),
        ("http://mds.example:8080/t", None),
        ("https://mds.example.evil.example/t", None),
        ("https://x@evil.example/t", None),
        ("https://mds.example:port/t", None),
        ("ftp://mds.example/t", None),
    ],
)
def test_the_log_in_goes_to_the_operators_own_place_only(link, leads_to):
    mds = Client("https://mds.example/austin").mds
    if leads_to:
        assert mds.next_page(link, "https://mds.example/austin/trips?end_time=x") == leads_to
    else:
        with pytest.raises(SetupError) as caught:
            mds.next_page(link, "https://mds.example/austin/trips")
        assert caught.value.code == "foreign-link"


# what an hour answers

SOON = HOUR + timedelta(hours=2)


@pytest.mark.parametrize(
    ("version", "answer", "asked_at", "kind", "code", "words"),
    [
        ("1.2", 404, SOON, NotReady, "not-ready", "has no trips of the hour 2026-03-08 10:00 UTC yet"),
        ("1.2", 404, LATER, NoService, "no-service", "it did not operate then"),
        ("0.4", 404, LATER, NoService, "no-service", "48 hours after it"),
        ("0.3", 404, SOON, NotReady, "not-ready", "2026-03-08 10:00 to 2026-03-08 11:00 UTC"),
        ("0.3", 404, LATER, SetupError, "http-404", "which MDS 0.3 has no meaning for"),
        ("2.0", 202, LATER, NotReady, "not-ready", "has not finished"),
        ("1.2", 102, LATER, NotReady, "not-ready", "has not finished"),
        ("1.2", 406, LATER, SetupError, "version-refused", "does not speak MDS 1.2"),
        ("1.2", 400, LATER, SetupError, "request-refused", "does not understand"),
        ("1.2", 401, LATER, SetupError, "credentials-refused", "refuses the log-in"),
        ("1.2", 403, LATER, SetupError, "credentials-refused", "may not read trips"),
        ("1.2", 410, LATER, SetupError, "gone", "gone for good"),
        ("1.2", 429, LATER, TransientError, "rate-limited", "asked too often"),
        ("1.2", 500, LATER, TransientError, "http-500", "500"),
        ("1.2", 503, LATER, TransientError, "http-503", "503"),
        ("1.2", "html", LATER, TransientError, "html-instead", "web page"),
        ("1.2", "cut", LATER, TransientError, "cut-body", "cut"),
        ("1.2", "no_trips", LATER, DataError, "not-mds", "no list of trips; its answer has version"),
    ],
)
def test_each_answer_of_an_hour_has_its_own_words(serve, tmp_path, version, answer, asked_at, kind, code, words):
    server = serve(version=version)
    server.script(HOUR, answer, times=9)
    with pytest.raises(kind) as caught:
        Client(server.url, version=version, max_attempts=2).fetch(tmp_path, asked_at=asked_at)
    error = caught.value
    assert (type(error), error.code) == (kind, code) and words in error.message, error.message
    assert error.next_step or isinstance(error, TransientError)
    passing = kind is TransientError
    assert len(asked(server)) == (2 if passing or answer == 406 else 1)  # a 406 may only be one of spelling


def test_an_hour_without_trips_is_a_page_without_trips(serve, tmp_path):
    server = serve(Fleet("Redwing", hourly=0), version="2.0")
    [file] = Client(server.url, version="2.0").fetch(tmp_path)
    assert (file.rows, trips_in([file])) == (0, [])


@pytest.mark.parametrize("answer", [202, 429])
def test_how_long_to_wait_is_the_operators_to_say(serve, tmp_path, answer):
    server = serve(version="2.0")
    server.script(HOUR, answer, retry_after=1800)
    with pytest.raises(TransientError) as caught:
        Client(server.url, version="2.0").fetch(tmp_path)
    assert caught.value.retry_after == 1800 and len(asked(server)) == 1


def test_an_hour_that_may_come_is_asked_for_again_in_an_hour_and_never_after_it_is_settled(serve, tmp_path):
    server = serve(version="1.2", closes=HOUR)
    for hours_after, wait in ((3, 3600), (48.5, 1801)):
        with pytest.raises(NotReady) as caught:
            Client(server.url, version="1.2").fetch(tmp_path, asked_at=HOUR + timedelta(hours=hours_after))
        assert caught.value.retry_after == wait


def test_an_interim_answer_leaves_nothing_on_the_line_for_the_next_question(tmp_path):
    """requests takes 102 for the answer; the 200 that follows when the operator is done must not be read as that of the next hour."""

    def page(trip):
        body = json.dumps({"version": "1.2.0", "data": {"trips": [{"trip_id": trip}]}})
        return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def speak(connection):
        if len(heard) > 1:
            connection.sendall(page("of the next hour"))
            return
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        if connection.recv(65536):
            connection.sendall(page("of the hour before"))

    with by_hand(speak) as (url, heard):
        client = Client(url, version="1.2")
        with pytest.raises(NotReady, match=r"\(102\)"):
            client.fetch(tmp_path)
        assert trips_in(client.fetch(tmp_path, starts_at=HOUR + timedelta(hours=1))) == ["of the next hour"]


def test_hours_out_of_service_among_others_are_told_and_all_of_them_are_an_end(serve, tmp_path):
    server = serve(version="1.1", closes=HOUR + timedelta(hours=2))
    client = Client(server.url, version="1.1")
    assert [file.metadata["hour"] for file in client.fetch(tmp_path, hours=3)] == ["2026-03-08T10", "2026-03-08T11"]
    assert len(client.warnings) == 1 and "2026-03-08 12:00 UTC" in client.warnings[0]
    with pytest.raises(NoService):
        client.fetch(tmp_path, starts_at=HOUR + timedelta(hours=2), hours=2)


# manners


def test_it_waits_before_each_attempt_and_gives_up_after_so_many(serve, tmp_path):
    server, naps = serve(version="1.2"), []
    server.script(HOUR, 500, times=9)
    with pytest.raises(TransientError, match="4 times"):
        Client(server.url, version="1.2", delay="1.5", max_attempts="4", naps=naps).fetch(tmp_path)
    assert len(asked(server)) == 4 and naps.count(1.5) == 4


def test_the_time_out_is_honoured(serve, tmp_path):
    server = serve(version="1.2")
    server.script(HOUR, "hang")
    with pytest.raises(TransientError) as caught:
        Client(server.url, version="1.2", timeout="0.2", max_attempts="1").fetch(tmp_path)
    assert caught.value.code == "timeout"


# vehicles of 2.x


def vehicles_in(files):
    pages = [json.loads(file.path.read_bytes()) for file in files if file.metadata.get("role") == "vehicles"]
    return [vehicle["device_id"] for page in pages for vehicle in page["vehicles"]]


def test_each_vehicle_is_asked_for_once_however_many_trips_it_made(serve, tmp_path):
    server = serve(Fleet("Redwing", hourly=30, devices=6), version="2.0", page_size=7, quirks=["pages_anyway"])
    client = Client(server.url, version="2.0", provider_id=PROVIDER_ID)
    files = client.fetch(tmp_path, hours=2)
    devices = {str(trip.device.device_id) for hour in (0, 1) for trip in server.trips(HOUR + timedelta(hours=hour))}
    assert sorted(vehicles_in(files)) == sorted(devices) and len(devices) == 6
    told = [file for file in files if file.metadata.get("role") == "vehicles"]
    assert [file.name for file in told][:2] == ["vehicles.json", "vehicles-00002.json"] and {file.rows for file in told} == {1}
    none = Client(server.url, version="2.0", vehicles="none").fetch(tmp_path)
    assert vehicles_in(none) == []


def test_many_vehicles_are_taken_from_the_list_and_the_strangers_are_counted(serve, tmp_path):
    server = serve(Fleet("Redwing", hourly=90, devices=60), version="2.1", page_size=25, quirks=["forgets_vehicles"])
    client = Client(server.url, version="2.1")
    files = client.fetch(tmp_path)
    needed = {str(trip.device.device_id) for trip in server.trips(HOUR)}
    assert len(needed) > 40 and len(asked(server, "/vehicles")) == 2
    forgotten = needed - set(vehicles_in(files))
    assert forgotten and len([one for one in server.requests if one.path.startswith("/vehicles/")]) == len(forgotten)
    assert client.warnings[-1].startswith(f"nothing is known of {len(forgotten)} of the {len(needed)} vehicles")


def test_a_vehicle_that_cannot_be_asked_for_now_stops_the_hour(serve, tmp_path):
    server = serve(version="2.0")
    server.fail(500, path="/vehicles", times=9)
    with pytest.raises(TransientError) as caught:
        Client(server.url, version="2.0", max_attempts=1).fetch(tmp_path)
    assert caught.value.code == "http-500"


def test_letters_that_no_text_may_hold_stop_nothing(tmp_path):
    body = '{"version": "2.0\\u0000\\ud800", "trips": [{"trip_id": "\\ud800", "device_id": "\\ud800/../x"}]}'

    def answer(request):
        return Reply(200, body.encode()) if request.path == "/trips" else Reply.of({"error": "not_found"}, 404)

    with Told(answer) as server:
        client = Client(server.url, version="2.0")
        [file] = client.fetch(tmp_path)
        assert server.requests[-1].path.startswith("/vehicles/") and server.requests[-1].target == "/vehicles/%3F%2F..%2Fx"
    assert (file.rows, file.metadata["payload_version"]) == (1, "2.0")
    [warning] = client.warnings
    assert warning.startswith("nothing is known of 1 of the 1 vehicles") and warning.isprintable()


# settings


@pytest.mark.parametrize(
    ("parameters", "secrets", "code", "words"),
    [
        ({"version": "3.0"}, {}, "unknown-version", "'3.0' is no version"),
        ({"version": "latest"}, {}, "unknown-version", "'latest'"),
        ({"auth_type": "magic"}, {}, "bad-parameter", "'magic' is none of its values"),
        ({"auth_type": "bearer"}, {}, "credentials-missing", r"has no token \(token\)"),
        ({"auth_type": "basic"}, {"auth_data": {"password": "pw-canary"}}, "credentials-missing", "auth_data"),
        ({"auth_type": "oauth"}, {"auth_data": {"a": "pw-canary"}}, "credentials-missing", "token_url"),
        ({"auth_type": "oauth", "token_url": "https://x.example"}, {}, "credentials-missing", "auth_data"),
        ({"auth_type": "custom"}, {}, "credentials-missing", "auth_headers"),
        ({"auth_type": "basic"}, {"auth_data": "pw-canary"}, "bad-parameter", "no JSON object"),
        ({"headers": "{"}, {}, "bad-parameter", "no JSON object"),
        ({"headers": '{"a": [1]}'}, {}, "bad-parameter", "no JSON object"),
        ({"mds_param_override": {"endtime": "x"}}, {}, "bad-parameter", "nothing is asked by endtime"),
        ({"paging": "maybe"}, {}, "bad-parameter", "neither on nor off"),
        ({"delay": "-1"}, {}, "bad-parameter", "no number from 0 on"),
        ({"max_attempts": "0"}, {}, "bad-parameter", "no number from 1 on"),
        ({"timeout": "nan"}, {}, "bad-parameter", "no number"),
        ({"id_rule": "magic"}, {}, "bad-parameter", "none of its values"),
        ({"vehicles": "some", "version": "2.0"}, {}, "bad-parameter", "none of its values"),
    ],
)
def test_a_wrong_setting_is_named_and_a_secret_one_not_shown(serve, tmp_path, parameters, secrets, code, words):
    server = serve(version=parameters.get("version", "1.2") if parameters.get("version") == "2.0" else "1.2")
    client = Client(server.url, **{"version": "1.2", "secrets": secrets, **parameters})
    with pytest.raises(SetupError, match=words) as caught:
        client.fetch(tmp_path)
    assert caught.value.code == code and "redwing" in caught.value.message + caught.value.next_step
    assert "canary" not in told_by(caught.value, client)


def test_a_password_does_not_travel_readable_by_all(tmp_path):
    mds = MDS(Account("redwing", "http://mds.example", {"version": "1.2"}, {}), Door([]))
    with pytest.raises(SetupError) as caught:
        mds.test()
    assert caught.value.code == "plain-http"
    parameters = {"auth_type": "oauth", "token_url": "http://token.example"}
    token = MDS(Account("redwing", "https://mds.example", parameters, {"auth_data": '{"password": "hush"}'}), Door([]))
    with pytest.raises(SetupError) as caught:
        token.test()
    assert caught.value.code == "plain-http" and "hush" not in caught.value.message


def test_only_trips_of_windows_are_read(tmp_path):
    client = Client("https://mds.example", version="1.2")
    with pytest.raises(SetupError, match="Write trips|is nothing that is read"):
        client.mds.describe("status_changes")
    with pytest.raises(SetupError) as caught:
        list(client.mds.fetch("trips", FetchRequest(columns=()), rows=None, workdir=tmp_path, progress=lambda *told: None))
    assert caught.value.code == "no-window"


def test_the_test_button_tells_an_operator_from_another_server(serve):
    assert "takes the log-in, and has no trips of" in Client(serve(version="1.2", closes=HOUR).url, version="1.2").mds.test()
    with Told() as stranger, pytest.raises(PipelineError) as caught:
        Client(stranger.url, version="1.2").mds.test()
    assert caught.value.code == "not-mds" and "its answer has ok" in caught.value.message
