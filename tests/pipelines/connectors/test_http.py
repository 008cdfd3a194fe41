"""The outbound door: what it retries, what it never accepts, where it never goes and what it never says."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import json
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import pytest

from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors import wire
from pipelines.connectors.addresses import AllowList, address, is_public
from pipelines.connectors.http import MIB, Door
from pipelines.errors import DataError, PermanentError, PipelineError, SetupError, TransientError
from tests.pipelines.connectors.servers import Told, by_hand

HERE = ["127.0.0.0/8"]
CANARY = "c4nary/Tok+en=%7x"


@pytest.fixture
def server():
    with Told() as server:
        yield server
    assert not server.mistakes


@pytest.fixture
def naps():
    """How long each pause between attempts would have been."""
    return []


@pytest.fixture
def events():
    return []


@pytest.fixture
def door(naps, events):
    with Door(HERE, sleep=naps.append, on_event=lambda level, text: events.append((level, text))) as door:
        yield door


# ------------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("status", [202, 408, 429, 500, 502, 503, 504])
def test_a_status_that_usually_passes_is_asked_again_and_the_answer_is_taken(server, door, status):
    server.fail(status)
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [202, 408, 429, 500, 502, 503, 504])
def test_a_status_that_does_not_pass_ends_as_a_transient_error_with_its_count(server, door, status):
    server.fail(Fault("status", code=status), times=99)
    with pytest.raises(TransientError) as caught:
        door.get_json(f"{server.url}/x")
    assert caught.value.code == f"http-{status}"
    assert f"answered {status} " in caught.value.message
    assert caught.value.message.endswith(", 4 times")
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 501, 505])
def test_a_refusal_is_told_at_once_and_never_repeated(server, door, status):
    server.fail(Fault("status", code=status), times=99)
    with pytest.raises(PipelineError) as caught:
        door.get_json(f"{server.url}/x")
    assert caught.value.code == f"http-{status}"
    if status < 500:
        assert isinstance(caught.value, PermanentError)
        assert len(server.requests) == 1


def test_a_refusal_speaks_in_the_portals_own_words_and_names_the_next_step(server, naps):
    server.fail(Fault("status", code=403, body='{"message":"You must be logged in to access this resource","error":true}'))
    with Door(HERE, owner="provider la-311", sleep=naps.append) as door, pytest.raises(SetupError) as caught:
        door.get_json(f"{server.url}/x")
    assert "says 403: You must be logged in to access this resource" in caught.value.message
    assert caught.value.next_step == "Check the user name and password of provider la-311."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"code":"query.soql.no-such-column","error":true,"message":"No such column: x"}', "No such column: x (query.soql.no-such-column)"),
        ('{"success":false,"error":{"message":"Access denied","__type":"Authorization Error"}}', "Access denied (Authorization Error)"),
        ('{"error":true,"message":"Internal error","status":500}', "Internal error"),
        ('["odd"]', "Bad Request"),
        ("<html>no</html>", "Bad Request"),
        ('{"message":"line\\nbreak\\u001b[31m"}', "line break [31m"),
    ],
)
def test_every_portals_error_shape_becomes_one_plain_line(server, door, body, said):
    server.fail(Fault("status", code=400, body=body))
    with pytest.raises(SetupError) as caught:
        door.get_json(f"{server.url}/x")
    assert caught.value.message.endswith(f"says 400: {said}")


def test_a_short_retry_after_is_waited_for_exactly(server, door, naps):
    server.fail(Fault("status", code=429, retry_after=3))
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    assert naps == [3.0]


def test_a_retry_after_given_as_a_date_is_understood(server, door, naps):
    server.fail(Fault("status", code=503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)))
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    assert 0 < naps[0] <= 9


def test_a_long_retry_after_is_left_to_the_block(server, door, naps):
    server.fail(Fault("status", code=429, retry_after=120))
    with pytest.raises(TransientError) as caught:
        door.get_json(f"{server.url}/x")
    assert caught.value.retry_after == 120
    assert naps == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("advice", ["soon", "nan", "-5", "inf", ""])
def test_a_retry_after_that_means_nothing_falls_back_to_our_own_pause(server, door, naps, advice):
    server.fail(Fault("status", code=503, retry_after=advice))
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    assert 0 <= naps[0] <= 15


def test_pauses_grow_and_an_operator_hears_of_each(server, door, naps, events):
    server.fail(503, times=3)
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    # half a second, one, two; each with up to one second of jitter
    assert [low <= nap <= low + 1 for low, nap in zip((0.5, 1, 2), naps, strict=True)] == [True] * 3
    warnings = [text for level, text in events if level == "warning"]
    assert ["attempt 2 of 4" in warnings[0], "attempt 3 of 4" in warnings[1], "attempt 4 of 4" in warnings[2]] == [True] * 3


def test_no_attempt_that_would_begin_after_the_deadline_is_waited_for(server, naps):
    server.fail(503, times=99)
    with Door(HERE, deadline=0.4, sleep=naps.append) as door, pytest.raises(TransientError):
        door.get_json(f"{server.url}/x")
    assert (naps, len(server.requests)) == ([], 1)  # the first pause is half a second or more


def test_a_post_is_sent_once_unless_the_caller_says_that_twice_is_harmless(server, door):
    server.fail(503, times=2)
    with pytest.raises(TransientError):
        door.post_json(f"{server.url}/x", {"a": 1})
    assert len(server.requests) == 1
    assert door.post_json(f"{server.url}/x", {"a": 1}, repeatable=True) == {"ok": True}
    assert [asked.method for asked in server.requests] == ["POST"] * 3


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_verbs_go_by_the_same_door(server, door, method):
    assert door.post_json(f"{server.url}/x", [1], method=method) == {"ok": True}
    assert (server.requests[0].method, server.requests[0].headers["content-type"]) == (method, "application/json")


# --------------------------------------------------------------------------------------------- connections and deadlines


def test_a_connection_that_is_refused_is_named_so(door):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TransientError, match="could not be reached: Connection refused, 4 times") as caught:
        door.get_json(f"http://127.0.0.1:{port}/")
    assert caught.value.code == "unreachable"


def test_a_name_that_does_not_exist_is_named_so(door, monkeypatch):
    def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TransientError, match=r"the name data\.example\.gov was not found") as caught:
        door.get_json("https://data.example.gov/")
    assert (caught.value.code, "spelling" in caught.value.next_step) == ("dns", True)


def test_a_server_that_hangs_up_without_a_word_is_asked_again(server, door):
    server.fail(Fault("lost_reply"))
    assert door.get_json(f"{server.url}/x") == {"ok": True}


def test_a_server_that_is_silent_is_given_up_after_the_read_time_out(server, naps):
    server.fail(Fault("hang"), times=9)
    with Door(HERE, read_timeout=0.2, attempts=2, sleep=naps.append) as door, pytest.raises(TransientError) as caught:
        door.get_json(f"{server.url}/x")
    assert (caught.value.code, len(server.requests)) == ("timeout", 2)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["in the headers", "in the body", "in a chunk's size"],
)
def test_a_slow_drip_ends_at_the_deadline(start, naps):
    def drip(connection):
        connection.sendall(start)
        # ends when the client hangs up; a client that waits for the end would be here for 100 s and fail by its own time-out
        for _ in range(1000):
            connection.sendall(b"0")
            time.sleep(0.1)

    started = time.monotonic()
    with by_hand(drip) as (url, _), Door(HERE, deadline=1, read_timeout=0.5, sleep=naps.append) as door:
        with pytest.raises(TransientError, match="did not finish its answer within 1 s") as caught:
            door.get_json(url)
        elapsed = time.monotonic() - started
    assert (caught.value.code, naps) == ("deadline", [])
    assert elapsed < 50  # not a speed limit: the drip itself would take 100 s


def test_silence_is_not_waited_for_beyond_the_deadline():
    """The read time-out is longer than the deadline: it is the client that hangs up, not the server that gives up on it."""
    hung_up = threading.Event()

    def silent(connection):
        # a TimeoutError after five seconds leaves the event unset
        if connection.recv(1) == b"":
            hung_up.set()

    with by_hand(silent) as (url, _), Door(HERE, deadline=0.5, read_timeout=60) as door:
        with pytest.raises(TransientError) as caught:
            door.get_json(url)
        assert (caught.value.code, hung_up.wait(5)) == ("deadline", True)


def test_a_big_body_is_sent_whole(server, door):
    assert door.post_json(f"{server.url}/x", ["y" * 5_000_000]) == {"ok": True}
    assert server.requests[0].body_bytes == 5_000_004


# -------------------------------------------------------------------------------------------------------------- bodies


def a_reply(body: bytes, kind: str = "application/json", **headers: str) -> Reply:
    return Reply(200, body, kind, headers)


@pytest.mark.parametrize("fault", ["cut", "cut_chunked"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_cut_body_is_never_accepted(server, door, fault, end):
    server.says = a_reply(json.dumps(["row"] * 200).encode())
    server.fail(Fault(fault, end=end), times=99)
    with pytest.raises(TransientError) as caught:
        door.get_json(f"{server.url}/x")
    assert (caught.value.code, len(server.requests)) == ("cut-body", 4)


def test_a_cut_body_is_counted_in_bytes(server, door):
    server.says = a_reply(b"[" + b" " * 788 + b"]")
    server.fail(Fault("cut"), times=99)
    with pytest.raises(TransientError, match=r"was cut: 395 of 790 bytes arrived, 4 times"):
        door.get_json(f"{server.url}/x")


def test_a_cut_body_that_is_whole_the_next_time_is_taken(server, door):
    server.fail(next=[Fault("cut"), Fault("cut_chunked"), Fault("truncated")])
    assert door.get_json(f"{server.url}/x") == {"ok": True}


@pytest.mark.parametrize("chunked", [True, False])
def test_a_packed_body_is_unpacked_and_a_cut_one_refused_even_without_a_length(door, chunked):
    packed = gzip.compress(json.dumps(list(range(5000))).encode())

    def speak(piece):
        def answer(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\n")
            if chunked:
                connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(piece), piece))
            else:
                connection.sendall(b"\r\n" + piece)

        return answer

    with by_hand(speak(packed)) as (url, _):
        assert door.get_json(url) == list(range(5000))
    with by_hand(speak(packed[:-200])) as (url, _), pytest.raises(TransientError, match="packed body of .* was cut") as caught:
        door.ask("GET", url)
    assert caught.value.code == "cut-body"
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    with by_hand(speak(bytes(broken))) as (url, _), pytest.raises(TransientError, match="packed body of .* is broken") as caught:
        door.ask("GET", url)
    assert caught.value.code == "cut-body"


def test_a_body_packed_in_several_members_is_one_body(server, door):
    server.says = a_reply(gzip.compress(b"[1,") + gzip.compress(b"2]") + b"\0\0", **{"Content-Encoding": "gzip"})
    assert door.get_json(f"{server.url}/x") == [1, 2]


def test_a_packing_that_was_not_asked_for_is_refused(server, door):
    server.says = a_reply(b"xx", **{"Content-Encoding": "br"})
    with pytest.raises(DataError) as caught:
        door.get_json(f"{server.url}/x")
    assert (caught.value.code, server.requests[0].headers["accept-encoding"]) == ("unknown-encoding", "gzip")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "text/csv", "application/json", ""])
def test_a_web_page_with_status_200_is_never_data(server, door, tmp_path, kind):
    server.fail(Fault("html", content_type=kind), times=99)
    with pytest.raises(TransientError) as caught:
        door.download(f"{server.url}/x", tmp_path / "page.csv", expect="csv")
    assert caught.value.code == "html-instead"
    assert "answered 200 with a web page where CSV was asked for" in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("expect", "kind", "passes"),
    [
        ("json", "application/json;charset=utf-8", True), ("json", "application/geo+json", True), ("json", "text/plain", True), ("json", "", True),
        ("json", "text/csv", False), ("json", "image/png", False),
        ("csv", "text/csv; charset=UTF-8", True), ("csv", "application/octet-stream", True), ("csv", "application/json", False),
        ("text", "text/plain", True), ("text", "image/png", False), ("any", "image/png", True),
    ],
)  # fmt: skip
def test_the_content_type_is_held_against_what_was_asked_for(server, door, expect, kind, passes):
    server.says = a_reply(b"1", kind)
    if passes:
        assert door.ask("GET", f"{server.url}/x", expect=expect).body == b"1"
        return
    with pytest.raises(TransientError) as caught:
        door.ask("GET", f"{server.url}/x", expect=expect)
    assert caught.value.code == f"not-{expect}"


@pytest.mark.parametrize("expect", ["json", "csv", "text"])
def test_an_empty_200_is_refused_where_a_body_is_expected(server, door, expect):
    server.says = a_reply(b"", "text/plain")
    with pytest.raises(TransientError) as caught:
        door.ask("GET", f"{server.url}/x", expect=expect)
    assert caught.value.code == "empty-body"
    assert door.ask("GET", f"{server.url}/x").body == b""


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'[{"a": 1}, {"a": "tex', "cut-body", "ends in the middle (line 1, column"),
        (b'[{"a": 1}, {"a"', "cut-body", "ends in the middle"),
        (b'{"a": 1}{"b": 2}', "not-json", "not JSON: Extra data"),
        (b"{'a': 1}", "not-json", "not JSON"),
        (b'[NaN]', "not-strict-json", "holds NaN"),
        (b'[-Infinity]', "not-strict-json", "holds -Infinity"),
        (b'[1e999]', "not-strict-json", "too large"),
        (b'{"a": 1, "b": 2, "a": 3}', "not-strict-json", "'a' stands twice"),
        (b'["\xff"]', "not-strict-json", "utf-8"),
        (b"[" * 100_000, "not-strict-json", "recursion"),
    ],
)  # fmt: skip
def test_json_that_is_cut_or_loose_is_refused_and_its_fault_named(server, door, body, code, said):
    server.says = a_reply(body)
    with pytest.raises(PipelineError) as caught:
        door.get_json(f"{server.url}/x")
    assert (caught.value.code, said in caught.value.message) == (code, True), caught.value.message
    assert isinstance(caught.value, DataError if code == "not-strict-json" else TransientError)


def test_text_is_read_in_the_character_set_that_it_declares(server, door):
    server.says = a_reply("Señor".encode("latin-1"), "text/plain; charset=ISO-8859-1")
    assert door.get_text(f"{server.url}/x") == "Señor"
    server.says = a_reply("\ufeffSeñor".encode(), "text/plain")
    assert door.get_text(f"{server.url}/x") == "Señor"
    server.says = a_reply("Señor".encode("latin-1"), "text/plain")
    with pytest.raises(DataError) as caught:
        door.get_text(f"{server.url}/x")
    assert caught.value.code == "wrong-encoding"


def test_a_gzip_bomb_is_refused_without_being_unpacked(server, tmp_path):
    server.fail(Fault("gzip_bomb", megabytes=200))
    with Door(HERE, max_bytes=8 * MIB) as door:
        tracemalloc.start()
        with pytest.raises(DataError) as caught:
            door.download(f"{server.url}/x", tmp_path / "page.csv")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert caught.value.code == "too-big"
    assert peak < 40 * MIB  # the server's own copy of the packed bytes is in it
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["announced", "chunked", "endless", "padded"])
def test_a_body_over_the_bound_is_refused_however_it_comes(how, naps):
    def speak(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        if how == "announced":
            connection.sendall(b"Content-Length: 99999999999\r\n\r\n")
            return
        if how == "padded":
            # unpacked it is one byte, and its padding never ends
            connection.sendall(b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"1"))
            while True:
                connection.sendall(b"\0" * 65536)
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n" if how == "chunked" else b"\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"1" * 65536 + b"\r\n" if how == "chunked" else b"1" * 65536)

    with by_hand(speak) as (url, _), Door(HERE, max_held_bytes=MIB, sleep=naps.append) as door, pytest.raises(DataError) as caught:
        door.get_json(url)
    assert (caught.value.code, naps) == ("too-big", [])


# ----------------------------------------------------------------------------------------------------------- downloads


def test_a_download_appears_whole_hashed_and_told_of(server, door, tmp_path):
    body = b"a,b\n" + b"1,2\n" * 700_000
    server.says = a_reply(body, "text/csv", **{"X-Socrata-RequestId": "req-7"})
    seen = []
    got = door.download(f"{server.url}/x", tmp_path / "page.csv", on_bytes=seen.append)
    assert (got.bytes, got.sha256, got.request_id, got.proven) == (len(body), hashlib.sha256(body).hexdigest(), "req-7", True)
    assert (tmp_path / "page.csv").read_bytes() == body
    assert [path.name for path in tmp_path.iterdir()] == ["page.csv"]
    assert (seen[-1], len(seen) > 1, seen == sorted(seen)) == (len(body), True, True)


def test_a_download_that_fails_leaves_nothing_and_the_last_good_file_stays(server, door, tmp_path):
    path = tmp_path / "page.csv"
    path.write_text("a\nold\n")
    server.says = a_reply(b"a\n" + b"new\n" * 1000, "text/csv")
    server.fail(Fault("cut"), times=99)
    with pytest.raises(TransientError):
        door.download(f"{server.url}/x", path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"page.csv": "a\nold\n"}


def test_a_download_without_a_length_says_that_its_end_is_not_proven(server, door, tmp_path):
    server.says = a_reply(b"a\n1\n2\n3\n", "text/csv")
    server.fail(Fault("cut_at_line"))
    got = door.download(f"{server.url}/x", tmp_path / "page.csv")
    assert (got.proven, got.bytes < 8) == (False, True)


def test_several_pages_in_flight_share_one_door(server, door, tmp_path):
    server.says = lambda request: a_reply(request.path.encode() * 50_000, "text/csv")
    done = {}
    threads = [
        threading.Thread(target=lambda n=n: done.update({n: door.download(f"{server.url}/{n}", tmp_path / f"{n}.csv").sha256})) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == {n: hashlib.sha256(f"/{n}".encode() * 50_000).hexdigest() for n in range(8)}


# ----------------------------------------------------------------------------------------------------------- redirects


def test_a_redirect_to_another_host_is_not_followed_and_says_where_it_wanted_to_go(server, door):
    server.fail(Fault("redirect", to=f"http://elsewhere.example/x?token={CANARY}"))
    with pytest.raises(SetupError, match=r"wants to send us to http://elsewhere\.example/x") as caught:
        door.get_json(f"{server.url}/x", auth=("user", "pass-word"))
    assert caught.value.code == "redirect"
    assert CANARY not in caught.value.message


def test_another_port_of_the_same_machine_is_another_host(server, door):
    with Told() as other:
        server.fail(Fault("redirect", to=f"{other.url}/y"))
        with pytest.raises(SetupError):
            door.get_json(f"{server.url}/x", headers={"X-App-Token": CANARY})
        assert other.requests == []


def test_a_redirect_inside_the_same_host_is_followed_a_few_times_and_no_more(server, door):
    server.says = lambda request: Reply.of({"at": request.path})
    server.fail(next=[Fault("redirect", to="/second"), Fault("redirect", to=f"{server.url}/third")])
    assert door.get_json(f"{server.url}/first") == {"at": "/third"}
    server.fail(Fault("redirect", to="/first"), times=99)
    with pytest.raises(SetupError, match="in a circle"):
        door.get_json(f"{server.url}/first")


def test_a_publish_is_never_redirected(server, door):
    server.fail(Fault("redirect", to="/second"))
    with pytest.raises(SetupError):
        door.post_json(f"{server.url}/x", [], repeatable=True)
    assert len(server.requests) == 1


# ------------------------------------------------------------------------------------------------------------ addresses

#: Each is a way to say, or to be led to, a machine behind our own walls.
PRIVATE_FORMS = [
    "127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "127.255.255.254", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]",
    "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.8", "192.88.99.1", "198.18.0.1", "203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "①②⑦.⓪.⓪.①", "127。0。0。1", "user@127.0.0.1", "data.example.gov@127.0.0.1", "data.example.gov:443@127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("form", PRIVATE_FORMS)
def test_no_spelling_of_a_private_address_is_reached(form, naps):
    """Against a server that listens on every address of this machine, so that a form that slips through is served."""

    def speak(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")

    with by_hand(speak, host="0.0.0.0") as (url, heard), Door(sleep=naps.append) as door:
        port = url.rpartition(":")[2]
        with pytest.raises(PipelineError) as caught:
            door.get_json(f"http://{form}:{port}/")
        assert heard == []
    # a form that this machine's resolver does not know is refused as a name; the rest for what they are
    assert caught.value.code in ("address-refused", "bad-address", "dns")
    assert naps == [] or caught.value.code == "dns"


NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.169.254 172.16.0.1 192.0.0.8 192.0.0.170 192.0.2.1
    192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::
    2002:a00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 4000::1"""
PUBLIC = "1.1.1.1 8.8.8.8 52.206.140.205 100.63.255.255 100.128.0.1 172.32.0.1 2600:1f18::1 2a00:1450::1 ::ffff:8.8.8.8"


@pytest.mark.parametrize("ip", NOT_PUBLIC.split())
def test_addresses_that_are_not_public_are_known_as_such(ip):
    assert not is_public(address(ip))


@pytest.mark.parametrize("ip", PUBLIC.split())
def test_public_addresses_are_known_as_such(ip):
    assert is_public(address(ip))


def test_a_name_that_answers_public_first_and_private_then_never_reaches_the_private_one(server, monkeypatch, naps):
    """DNS rebinding: each connection dials only the very addresses that it has checked."""
    answers, dialled = iter(["93.184.216.34"]), []

    def resolve(host, port, *_args, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers, "127.0.0.1"), server.port))]

    def dial(sock, target):
        dialled.append(target[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(wire._TimedSocket, "connect", dial)
    with Door(sleep=naps.append) as door, pytest.raises(SetupError) as caught:
        door.get_json("https://rebound.example/")
    assert (caught.value.code, dialled, server.requests) == ("address-refused", ["93.184.216.34"], [])


def test_who_was_reached_counts_and_not_who_was_dialled(server, monkeypatch):
    """A network that leads a public address to this machine: the peer is looked at before a byte is sent."""
    connect = socket.socket.connect
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))])
    monkeypatch.setattr(wire._TimedSocket, "connect", lambda sock, _target: connect(sock, ("127.0.0.1", server.port)))
    with Door() as door, pytest.raises(SetupError, match=r"is at 127\.0\.0\.1"):
        door.get_json("http://public.example/")
    assert server.requests == []


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "127.0.0.1", "127.0.0.1:{port}", "localhost", "localhost:{port}", "LocalHost"])
def test_the_allow_list_opens_what_it_names(server, allowed):
    host = "localhost" if "host" in allowed.lower() else "127.0.0.1"
    with Door([allowed.format(port=server.port)]) as door:
        assert door.get_json(f"http://{host}:{server.port}/") == {"ok": True}


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "127.0.0.1:1", "localhost", "example.gov", "::1"])
def test_the_allow_list_opens_nothing_else(server, allowed):
    with Door([allowed]) as door, pytest.raises(SetupError) as caught:
        door.get_json(f"{server.url}/")
    assert (caught.value.code, server.requests) == ("address-refused", [])
    assert f"127.0.0.1:{server.port}" in caught.value.next_step


def test_a_name_on_the_allow_list_does_not_open_the_clouds_own_address():
    allow = AllowList(["inside.example", "10.0.0.0/8"])
    assert allow.permits("inside.example", 443, ipaddress.ip_address("10.1.2.3"))
    assert allow.permits("inside.example", 443, ipaddress.ip_address("192.168.1.1"))
    assert not allow.permits("inside.example", 443, ipaddress.ip_address("169.254.169.254"))
    assert AllowList(["169.254.169.254"]).permits("x", 80, ipaddress.ip_address("169.254.169.254"))


@pytest.mark.parametrize("entry", ["a b", "http://x", "host:0", "host:99999", "host:port", "10.0.0.0/99", "[::1"])
def test_an_allow_list_that_cannot_be_read_is_refused_by_name(entry):
    with pytest.raises(ValueError, match="OUTBOUND_ALLOW has"):
        Door([entry])


NOT_ASKED = ("file:///etc/passwd", "ftp://x/", "gopher://x/", "//x/", "x", "", "http://", "http://a\\b/", "http://x:port/", "http://x/ y")


@pytest.mark.parametrize("url", NOT_ASKED)
def test_only_addresses_of_the_web_are_asked(door, url):
    with pytest.raises(SetupError) as caught:
        door.get_json(url)
    assert caught.value.code == "bad-address"


def test_proxies_and_passwords_of_the_environment_are_ignored(server, door, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert door.get_json(f"{server.url}/x") == {"ok": True}
    assert "authorization" not in server.requests[0].headers


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("how", ["auth", "token", "query"])
def test_a_credential_never_travels_readable_to_a_host_that_is_not_listed(how, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: pytest.fail("a credential was on its way"))
    given = {"auth": {"auth": ("u", CANARY)}, "token": {"headers": {"X-App-Token": CANARY}}, "query": {"params": {"$$app_token": CANARY}}}[how]
    with Door() as door, pytest.raises(SetupError) as caught:
        door.get_json("http://data.example.gov/x", **given)
    assert caught.value.code == "plain-http"


FAILURES = {
    "status": Fault("status", code=500),
    "refused": Fault("status", code=403, body=json.dumps({"message": f"bad token {CANARY}, Authorization: Basic dTpw"})),
    "long wait": Fault("status", code=429, retry_after=99, body=json.dumps({"message": CANARY})),
    "html": Fault("html"),
    "cut": Fault("cut"),
    "lost": Fault("lost_reply"),
    "redirect": Fault("redirect", to=f"http://user:{CANARY}@elsewhere.example/{CANARY}?app_token={CANARY}"),
    "empty": Fault("empty"),
}


@pytest.mark.parametrize("fault", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("where", ["query", "header", "auth", "path"])
def test_no_secret_stands_in_any_message_event_or_traceback(server, events, fault, where, naps):
    given = {
        "query": {"params": {"$$app_token": CANARY, "$where": "a='b'"}},
        "header": {"headers": {"X-App-Token": CANARY}},
        "auth": {"auth": ("user", CANARY)},
        "path": {},
    }[where]
    url = f"{server.url}/x" + (quote(CANARY, safe="") if where == "path" else "")
    server.fail(fault, times=99)
    door = Door(HERE, secrets=[CANARY], sleep=naps.append, on_event=lambda level, text: events.append((level, text)))
    with door, pytest.raises(PipelineError) as caught:
        door.get_json(url, **given)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.next_step + repr(events)
    for spelling in (CANARY, quote(CANARY, safe=""), quote(CANARY), "c4nary"):
        assert spelling not in told


def test_no_secret_stands_in_the_events_of_a_request_that_went_well(server, door, events):
    door.get_json(f"{server.url}/x", params={"$$app_token": CANARY, "$limit": 5})
    assert [level for level, _ in events] == ["debug"]
    assert (quote(CANARY, safe="") in events[0][1], "limit=5" in events[0][1]) == (False, True)


def test_no_secret_stands_in_the_traceback_of_a_host_that_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    # one attempt: the end of several would hide the first error's chain in any case
    with Door(HERE, attempts=1) as door, pytest.raises(TransientError) as caught:
        door.get_json(f"http://127.0.0.1:{port}/x", params={"$$app_token": CANARY})
    assert "c4nary" not in "".join(traceback.format_exception(caught.value))


def test_a_header_that_cannot_be_sent_does_not_show_itself(door):
    with pytest.raises(SetupError) as caught:
        door.get_json("https://data.example.gov/", headers={"X-App-Token": f"{CANARY}\n"})
    assert (caught.value.code, CANARY in "".join(traceback.format_exception(caught.value))) == ("bad-header", False)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET https://x/y?$$app_token=abc&$limit=5", "GET https://x/y?$$app_token=***&$limit=5"),
        ("https://x/y?sig=abc&api_key=d&a=1#f", "https://x/y?sig=***&api_key=***&a=1#f"),
        ("https://me:word@x/y", "https://***@x/y"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
        ("X-App-Token: abc, X-Other: d", "X-App-Token: ***, X-Other: d"),
        ('{"password": "hunter22", "user": "me"}', '{"password": "***", "user": "me"}'),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.abc", "sent Bearer ***"),
        ("row 7: $where=a='b', no token here", "row 7: $where=a='b', no token here"),
        ("Check the user name and password of provider la-311.", "Check the user name and password of provider la-311."),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked_and_the_rest_stays_readable(text, masked):
    assert Door().redact(text) == masked


def test_tls_is_checked_and_has_the_same_deadline(tmp_path, naps):
    """A certificate of our own making: refused by the public authorities, taken with `ca_file`, and timed like plain HTTP."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def drip(raw):
        with context.wrap_socket(raw, server_side=True) as connection:
            path = connection.recv(65536).split()[1]
            if path == b"/ok":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(1000):
                connection.sendall(b"0")
                time.sleep(0.1)

    with by_hand(drip, listens=False) as (plain, _):
        url = plain.replace("http:", "https:")
        with Door(HERE, sleep=naps.append) as door, pytest.raises(SetupError, match="is not trusted") as caught:
            door.get_json(f"{url}/ok")
        assert caught.value.code == "tls-certificate"
        with Door(HERE, ca_file=str(certificate), deadline=1, read_timeout=0.5, sleep=naps.append) as door:
            assert door.get_json(f"{url}/ok") == []
            with pytest.raises(TransientError) as late:
                door.get_json(f"{url}/drip")
    assert late.value.code == "deadline"


def self_signed(folder):
    """The path of a PEM file with a key and a certificate for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


# -------------------------------------------------------------------------------------------------------------- uploads


@pytest.fixture
def parcel(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 100_000)
    return path


def put(door, url, path, **more):
    return door.upload("PUT", f"{url}/x", path, content_type="text/csv", **more)


def test_a_file_arrives_whole_with_its_length_and_its_kind(door, parcel):
    heard = []
    with Told(lambda asked: heard.append(asked) or Reply.of({"Rows Created": 1})) as server:
        reply = put(door, server.url, parcel, headers={"X-More": "yes"}, auth=("user", CANARY))
    [asked] = heard
    assert asked.body == parcel.read_bytes() and reply.json == {"Rows Created": 1}
    told = {name: asked.headers.get(name) for name in ("content-length", "content-type", "x-more", "transfer-encoding")}
    assert told == {"content-length": str(parcel.stat().st_size), "content-type": "text/csv", "x-more": "yes", "transfer-encoding": None}


@pytest.mark.parametrize("fault", [Fault("lost_reply"), Fault(503), Fault("cut"), Fault("lost_reply", end="reset")])
def test_a_file_is_sent_again_only_where_that_is_harmless(server, door, parcel, fault):
    server.fail(fault, times=1)
    assert put(door, server.url, parcel, repeatable=True).status == 200
    assert [asked.body_bytes for asked in server.requests] == [parcel.stat().st_size] * 2
    server.requests.clear()
    server.fail(fault, times=1)
    with pytest.raises(TransientError):
        put(door, server.url, parcel)
    assert len(server.requests) == 1


def test_an_upload_has_a_deadline_of_its_own_for_all_its_attempts(naps, parcel):
    def swallow(connection):
        while connection.recv(65_536):
            pass

    # it stands in for the door's own, which is shorter than the test; the answer is never sent
    with (
        by_hand(swallow) as (url, _),
        Door(HERE, deadline=0.001, read_timeout=30, sleep=naps.append) as door,
        pytest.raises(TransientError, match="did not finish its answer within 1.5 s") as caught,
    ):
        put(door, url, parcel, repeatable=True, deadline=1.5)
    assert (caught.value.code, naps) == ("deadline", [])


def test_a_line_that_takes_no_more_bytes_is_given_up(naps, tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "SENDING", 0.5)
    big = tmp_path / "big.csv"
    with big.open("wb") as file:
        file.truncate(64 * MIB)  # more than all buffers on the way
    given_up = threading.Event()

    def deaf(connection):
        given_up.wait(20)

    with by_hand(deaf) as (url, _), Door(HERE, deadline=600, read_timeout=600, attempts=1, sleep=naps.append) as door:
        with pytest.raises(TransientError) as caught:
            put(door, url, big, read_timeout=7200)
        given_up.set()
    assert caught.value.code in ("timeout", "no-answer")


def test_no_failure_of_an_upload_shows_a_secret(server, events, naps, parcel):
    with Door(HERE, sleep=naps.append, secrets=[CANARY], on_event=lambda *event: events.append(event)) as door:
        told = []
        for fault in (Fault("status", code=400, body=json.dumps({"message": CANARY})), Fault(401), Fault("lost_reply"), Fault("html")):
            server.fail(fault, times=9)
            with pytest.raises(PipelineError) as caught:
                put(door, server.url, parcel, auth=("user", CANARY), repeatable=True, params={"token": CANARY})
            server.faults.clear()
            told.append(str(caught.value.message))
    assert CANARY not in repr(told) + repr(events) and quote(CANARY, safe="") not in repr(told) + repr(events)


def test_a_file_never_follows_a_redirect(server, door, parcel):
    server.fail(Fault("redirect", to=f"{server.url}/elsewhere", code=307))
    with pytest.raises(SetupError) as caught:
        put(door, server.url, parcel, repeatable=True)
    assert caught.value.code == "redirect" and len(server.requests) == 1
