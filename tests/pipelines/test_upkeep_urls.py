"""Addresses for more information: what each answer means, who is asked how, and how many at once."""

import threading

import pytest

from opendata_ops.sandbox.wire import Reply
from pipelines.upkeep.information_urls import CLIENT, GONE, REDIRECTED, SERVER, SILENT, UNASKED, WELL, _Door, answer
from tests import world
from tests.pipelines.connectors.servers import Told
from tests.pipelines.small_ckan import found, package, portal, well  # noqa: F401  a fixture

KIND = "information-urls"
STATUS = {"/ok": 200, "/gone": 404, "/retired": 410, "/forbidden": 403, "/broken": 500, "/busy": 503, "/accepted": 202}


class Web(Told):
    """Pages that answer as they are called; `/only-get` does not know HEAD, and `/moved` is elsewhere."""

    def __init__(self):
        super().__init__()
        self.at_once, self.most, self._lock = 0, 0, threading.Lock()
        self.gate: threading.Barrier | None = None

    def answer(self, request, fault):
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            if self.gate:
                self.gate.wait(10)
            if request.path.startswith("/moved"):
                return Reply(302, headers={"Location": "/new?with=a+word"})
            if request.path == "/only-get" and request.method == "HEAD":
                return Reply(405)
            return Reply(STATUS.get(request.path, 200), b"x" * 100, "text/html")
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def web():
    with Web() as server:
        yield server


def said(web: Web, path: str, allow: frozenset[str] = frozenset()):
    with _Door([web.url.removeprefix("http://")]) as door:
        return answer(door, f"{web.url}{path}" if path.startswith("/") else path, allow)


@pytest.mark.parametrize(
    ("path", "outcome", "methods"),
    [
        ("/ok", WELL, ["HEAD"]),
        ("/accepted", WELL, ["HEAD"]),
        ("/only-get", WELL, ["HEAD", "GET"]),
        ("/moved", REDIRECTED, ["HEAD"]),
        ("/gone", GONE, ["HEAD", "GET"]),
        ("/retired", GONE, ["HEAD", "GET"]),
        ("/forbidden", CLIENT, ["HEAD", "GET"]),
        ("/broken", SERVER, ["HEAD", "GET"]),
        ("/busy", SERVER, ["HEAD", "GET"]),
    ],
)
def test_what_an_answer_means_and_that_head_alone_condemns_nobody(web, path, outcome, methods):
    assert said(web, path).outcome == outcome
    assert [request.method for request in web.requests] == methods


def test_a_redirect_is_not_followed_and_its_end_is_named(web):
    assert said(web, "/moved").said.endswith(f"302: it is now {web.url}/new?with=a+word")
    assert [request.path for request in web.requests] == ["/moved"]


def test_a_host_on_the_list_may_refuse_us_but_may_not_have_lost_the_page(web):
    allow = frozenset({"127.0.0.1"})
    assert said(web, "/forbidden", allow).outcome == WELL and said(web, "/gone", allow).outcome == GONE


def test_a_host_that_is_away_and_what_is_no_address_are_told_apart(web):
    web.stop()
    assert said(web, "/ok").outcome == SILENT
    assert said(web, "see our page").outcome == UNASKED
    with _Door() as door:  # a machine of our own network, which nobody allowed
        assert answer(door, "http://127.0.0.1:9/").outcome == UNASKED


@pytest.mark.django_db
def test_each_address_of_a_portal_is_asked_once_and_each_dataset_is_told(portal, web, settings):  # noqa: F811
    settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, web.url.removeprefix("http://")]
    portal.packages = [
        package("a", information_url=f"{web.url}/gone"),
        package("b", information_url=f" {web.url}/gone "),
        package("c", information_url=f"{web.url}/ok"),
        package("d", information_url=""),
        package("e", information_url=None),
        package("f", information_url=f"{web.url}/moved"),
    ]
    run = well(KIND, portal="open", is_dry=True)
    assert found(run, "dataset", "outcome") == [("a", "not found"), ("b", "not found"), ("f", "redirected")]
    assert run.message == "3 addresses asked: 2 not found, 1 redirected." and run.details["trouble"]
    assert run.notice.startswith(f"*not found: 2*\n1. _a_: {web.url}/gone (")
    assert [request.path for request in web.requests if request.method == "HEAD"].count("/gone") == 1


@pytest.mark.django_db
def test_our_own_datasets_are_asked_where_no_portal_is_named(web, settings):
    settings.OUTBOUND_ALLOW = [web.url.removeprefix("http://")]
    world.dataset("parks", "Parks", information_url=f"{web.url}/ok")
    world.dataset("none", "None")
    world.dataset("gone", "Gone", information_url=f"{web.url}/gone", is_retired=True)
    run = well(KIND)
    assert (run.notice, run.details["trouble"]) == ("1 address for more information asked: all are well.", False)


@pytest.mark.django_db
def test_as_many_are_asked_at_once_as_the_job_says_and_no_more(web, settings):
    settings.OUTBOUND_ALLOW = [web.url.removeprefix("http://")]
    for number in range(9):
        world.dataset(f"d{number}", f"D {number}", information_url=f"{web.url}/ok?{number}")
    web.gate = threading.Barrier(3)  # three must be there at a time for any to be answered
    well(KIND, parallel="3")
    assert web.most == 3 and len(web.requests) == 9
