"""Each fault, looked at on the wire: what a client under test will meet is what the fault's name says."""

import gzip
import http.client
import json
import threading
import zlib

import pytest

from opendata_ops.sandbox import KINDS, Fault

from .conftest import Client

ROWS = "/resource/abcd-1234.json"
TABLE = "/resource/abcd-1234.csv"
ORDERED = f"{TABLE}?$order=srnumber"


def parted(received):
    """(status line, headers, body) of what came on a socket."""
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:]), body


def right(ask):
    """The body that a client gets when nothing goes wrong."""
    return ask(ORDERED)[2]


@pytest.mark.parametrize("code", [202, 400, 401, 403, 404, 410, 413, 429, 500, 503, 504])
def test_a_status_comes_with_the_portal_s_body_and_then_all_is_well(ask, portal, code):
    portal.fail(Fault(code))
    status, headers, body = ask(ROWS)
    assert status == code and headers["content-type"].startswith("application/json")
    assert json.loads(body)["message"]
    assert "retry-after" not in headers
    assert ask(ROWS)[0] == 200
    assert [(asked.status, asked.fault) for asked in portal.requests] == [(code, "status"), (200, "")]


def test_a_backend_error_has_the_body_that_los_angeles_gave(ask, portal):
    portal.fail(500)
    assert json.loads(ask(ROWS)[2]) == {"error": True, "message": "Internal error", "status": 500}


def test_retry_after_is_sent_when_it_is_asked_for(ask, portal):
    portal.fail(Fault(429, retry_after=7))
    assert ask(ROWS)[1]["retry-after"] == "7"


def test_a_script_is_met_in_order_one_request_each(ask, portal):
    portal.fail(next=[503, None, Fault("html"), 429])
    assert [ask(ROWS)[0] for _ in range(5)] == [503, 200, 200, 429, 200]
    assert portal.requests[2].fault == "html"


def test_a_fault_meets_only_the_requests_of_its_path_and_as_often_as_said(ask, portal):
    portal.fail(503, path=r"\.csv\?.*count\(\*\)", times=2)
    asked = {"S_select": "count(*)"}
    assert [ask(TABLE)[0], ask(ROWS, **asked)[0], ask(TABLE, **asked)[0], ask(TABLE, **asked)[0], ask(TABLE, **asked)[0]] == [200, 200, 503, 503, 200]
    portal.fail(503, method="POST")
    assert ask(ROWS)[0] == 200 and ask(ROWS, "POST", [{"srnumber": "x"}])[0] == 503
    assert "x" not in portal.dataset("abcd-1234").rows


def test_a_fault_that_does_not_exist_is_refused_when_it_is_set(portal):
    with pytest.raises(ValueError, match="no fault is called 'cutt'"):
        Fault("cutt")
    with pytest.raises(ValueError, match="has no option code"):
        Fault("cut", code=1)
    with pytest.raises(ValueError, match="say which fault"):
        portal.fail()


@pytest.mark.parametrize(("end", "how"), [("close", "closed"), ("reset", "reset")])
def test_a_cut_body_is_shorter_than_its_length(ask, portal, end, how):
    whole = right(ask)
    portal.fail(Fault("cut", part=0.3, end=end))
    received, ended = ask.wire(ORDERED)
    _, headers, body = parted(received)
    assert int(headers["content-length"]) == len(whole)
    assert ended == how
    assert whole.startswith(body) and len(body) < len(whole)
    if end == "close":
        assert len(body) == int(len(whole) * 0.3)
        portal.fail(Fault("cut"))
        with pytest.raises(http.client.IncompleteRead):
            ask(ORDERED)


def test_a_cut_body_without_a_length_ends_at_a_line_end_and_looks_whole(ask, portal):
    whole = right(ask)
    portal.fail(Fault("cut_at_line"))
    _, headers, body = parted(ask.wire(ORDERED)[0])
    assert "content-length" not in headers and "transfer-encoding" not in headers and headers["connection"] == "close"
    assert whole.startswith(body) and body.endswith(b"\n") and 0 < len(body) < len(whole)


def test_a_chunked_body_may_never_end(ask, portal):
    portal.fail(Fault("cut_chunked"))
    received, ended = ask.wire(ORDERED)
    _, headers, body = parted(received)
    assert headers["transfer-encoding"] == "chunked" and "content-length" not in headers
    assert ended == "closed" and not body.endswith(b"0\r\n\r\n")
    portal.fail(Fault("cut_chunked"))
    with pytest.raises(http.client.IncompleteRead):
        ask(ORDERED)


def test_truncated_json_has_a_length_that_agrees(ask, portal):
    portal.fail(Fault("truncated"))
    status, headers, body = ask(ROWS)
    assert status == 200 and int(headers["content-length"]) == len(body)
    with pytest.raises(ValueError):
        json.loads(body)


def test_a_log_in_page_comes_with_200(ask, portal):
    portal.fail(next=[Fault("html"), Fault("html", content_type="application/json;charset=utf-8")])
    status, headers, body = ask(ROWS)
    assert status == 200 and headers["content-type"].startswith("text/html") and b"<form" in body
    assert ask(ROWS)[1]["content-type"].startswith("application/json")


def test_an_empty_body_comes_with_200(ask, portal):
    portal.fail(Fault("empty"))
    status, headers, body = ask(ROWS)
    assert (status, headers["content-length"], body) == (200, "0", b"")


def test_a_slow_body_comes_byte_by_byte_and_does_not_outlive_the_portal(ask, portal):
    portal.fail(Fault("drip", seconds=0.02))
    assert parted(ask.wire(f"{ROWS}?$offset=1000")[0])[2] == b"[]\n"
    portal.requests.clear()
    portal.fail(Fault("drip", seconds=600))
    waiting = threading.Thread(target=ask.wire, args=(ORDERED,))
    waiting.start()
    while not (portal.requests and portal.requests[0].status):
        assert waiting.is_alive(), "the slow reader gave up before it was answered"
        threading.Event().wait(0.01)
    portal.stop()
    waiting.join(10)
    assert not waiting.is_alive()


def test_an_answer_may_never_come(ask, portal):
    portal.fail(Fault("hang", seconds=600))
    assert ask.wire(ROWS, timeout=0.3) == (b"", "silent")


def test_a_late_answer_is_a_right_one(ask, portal):
    portal.fail(Fault("none", delay=0.2))
    assert ask(ROWS)[0] == 200
    waited = portal.requests[0].at
    ask(ROWS)
    assert portal.requests[1].at - waited >= 0.2


def test_a_gzip_bomb_is_small_on_the_wire(ask, portal):
    portal.fail(Fault("gzip_bomb", megabytes=20))
    _, headers, body = ask(TABLE)
    assert headers["content-encoding"] == "gzip" and len(body) < 200_000
    assert len(zlib.decompress(body, 31)) > 19 * 1024 * 1024


def test_a_redirect_leads_elsewhere(ask, portal):
    portal.fail(Fault("redirect", to="http://elsewhere.example/x", code=307))
    status, headers, _ = ask(ROWS)
    assert (status, headers["location"]) == (307, "http://elsewhere.example/x")


def test_the_length_cap_is_said_in_its_words(ask, portal):
    portal.fail(Fault("length_cap"))
    status, _, body = ask(ROWS)
    assert (status, json.loads(body)["message"]) == (400, "length must be <= 50000")


def test_a_page_may_name_other_columns(ask, portal):
    portal.fail(Fault("wrong_columns"))
    header = ask(TABLE)[2].split(b"\n")[0]
    assert header == b'"surprise","location","address","nc","updateddate","status","srnumber"'


def test_a_row_may_be_missing_or_come_twice(ask, portal):
    asked = {"S_order": "srnumber", "S_select": "srnumber"}
    whole = ask.json(ROWS, **asked)
    portal.fail(next=[Fault("missing_row"), Fault("duplicate_rows", n=2), Fault("duplicate_rows", n=2, instead=True)])
    missing, more, instead = (ask.json(ROWS, **asked) for _ in range(3))
    assert len(missing) == 99 and [row for row in whole if row not in missing] == [{"srnumber": "1-1049"}]
    assert more == [*whole, *whole[:2]]
    assert instead == [*whole[:-2], *whole[:2]]


def test_nulls_may_be_said(ask, portal):
    portal.fail(Fault("nulls_kept"))
    [row] = ask.json(ROWS, S_where="srnumber='1-1003'")
    assert row["nc"] is None and row["address"] is None


def test_a_byte_order_mark_comes_first(ask, portal):
    portal.fail(Fault("bom"))
    assert ask(TABLE)[2].startswith(b'\xef\xbb\xbf"srnumber"')
    assert ask(f"{TABLE}?$$bom=true")[2].startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize(("kind", "byte"), [("nul", b"\x00"), ("bad_utf8", b"\xff")])
def test_one_cell_may_hold_a_byte_that_does_not_belong(ask, portal, kind, byte):
    whole = right(ask)
    portal.fail(Fault(kind))
    body = ask(ORDERED)[2]
    assert body.count(byte) == 1 and body.replace(byte, b"") == whole


def test_a_nul_is_escaped_in_json(ask, portal):
    portal.fail(Fault("nul"))
    assert b"\\u0000" in ask(ROWS)[2]


def test_the_replica_may_lag(ask, portal):
    portal.fail(Fault("out_of_date"))
    assert ask(ROWS)[1]["x-soda2-data-out-of-date"] == "true"


@pytest.mark.parametrize("name", ["COUNT", "count_1"])
def test_a_count_may_come_under_another_name(ask, portal, name):
    portal.fail(Fault("count_key", name=name))
    assert ask.json(ROWS, S_select="count(*)") == [{name: "100"}]


def test_headers_may_be_set_and_removed(ask, portal):
    portal.fail(Fault("headers", set={"X-SODA2-Fields": None, "ETag": '"x"', "Content-Type": "text/plain"}))
    _, headers, _ = ask(ROWS)
    assert "x-soda2-fields" not in headers and headers["etag"] == '"x"' and headers["content-type"] == "text/plain"


def test_the_rows_may_move_after_an_answer(ask, portal):
    def moment():
        return ask.json("/api/views/abcd-1234.json")["rowsUpdatedAt"]

    before = moment()
    portal.fail(Fault("touch"), path=r"\.csv")
    ask(TABLE)
    assert moment() > before
    rows = portal.dataset("abcd-1234").rows
    portal.fail(Fault("edit", fraction=0.1), path=r"\.csv")
    assert len(ask(TABLE)[2]) and moment() > before + 1
    assert sum(row != rows[key] for key, row in portal.dataset("abcd-1234").rows.items()) == 10


def test_the_columns_may_change_before_an_answer(ask, portal):
    portal.fail(Fault("alter", add={"extra": "text"}, remove=["nc"]), path=r"\.csv")
    assert "nc" in ask.json(ROWS, S_where="nc=5")[0]
    assert ask(TABLE)[2].split(b"\n")[0] == b'"srnumber","status","updateddate","address","location","verified","extra"'
    assert ask(ROWS, S_select="nc")[0] == 400


@pytest.mark.parametrize(("end", "how"), [("close", "closed"), ("reset", "reset")])
def test_a_publish_may_be_committed_and_its_answer_lost(ask, portal, end, how):
    portal.fail(Fault("lost_reply", end=end), method="POST")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(ROWS, "POST", [{"srnumber": "kept"}])
    assert "kept" in portal.dataset("abcd-1234").rows
    portal.fail(Fault("lost_reply", end=end))
    assert ask.wire(ROWS) == (b"", how)


def test_a_publish_may_refuse_some_rows_with_200(ask, portal):
    portal.fail(Fault("row_errors", n=2), method="POST")
    sent = [{"srnumber": name} for name in "abc"]
    answer = ask.json(ROWS, "POST", sent)
    assert (answer["Rows Created"], answer["Errors"]) == (1, 2)
    assert {"a", "b", "c"} & set(portal.dataset("abcd-1234").rows) == {"c"}


def test_too_large_a_publish_changes_nothing(ask, portal):
    portal.fail(413)
    assert ask(ROWS, "POST", [{"srnumber": "big"}])[0] == 413
    assert "big" not in portal.dataset("abcd-1234").rows


def test_a_person_sets_faults_with_curl_and_sees_what_was_asked(ask, portal):
    set_ = ask("/__sandbox/faults", "POST", [{"kind": "status", "code": 503, "times": 2, "path": "csv"}, {"kind": "cut"}])
    assert set_[0] == 200 and len(ask.json("/__sandbox/faults")) == 2
    assert ask(TABLE)[0] == 503
    ask("/__sandbox/faults", "DELETE")
    assert ask(TABLE)[0] == 200
    ask(ROWS, headers={"X-App-Token": "canary-token", "Authorization": "Basic Y2FuYXJ5"})
    log = ask("/__sandbox/requests")[2].decode()
    assert [entry["path"] for entry in json.loads(log)] == [TABLE, TABLE, ROWS]
    assert "canary" not in log and "Y2FuYXJ5" not in log
    assert len(ask.json("/__sandbox/edit", "POST", {"id": "abcd-1234", "fraction": 0.02})["edited"]) == 2
    assert ask.json("/__sandbox/touch", "POST", {"id": "abcd-1234"})["rowsUpdatedAt"] == portal.dataset("abcd-1234").rows_updated_at
    assert "colour" in ask.json("/__sandbox/alter", "POST", {"id": "abcd-1234", "add": {"colour": "text"}})
    assert set(ask.json("/__sandbox")["faults"]) == set(KINDS)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/__sandbox/faults", {"kind": "nothing"}, 400),
        ("/__sandbox/faults", {"kind": "cut", "path": "("}, 400),
        ("/__sandbox/edit", {"id": "none-none"}, 400),
        ("/__sandbox/edit", {"id": "abcd-1234", "fractoin": 1}, 400),
        ("/__sandbox/nothing", {}, 404),
    ],
)
def test_a_mistake_at_the_side_door_is_told(ask, path, body, status):
    got, _, text = ask(path, "POST", body)
    assert got == status and json.loads(text)["message"]


def test_a_connection_is_kept_for_the_next_request_and_faults_do_not_leak_into_it(portal):
    connection = http.client.HTTPConnection(portal.host, portal.port, timeout=10)
    portal.fail(503)
    statuses = []
    for _ in range(3):
        connection.request("GET", ROWS)
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)
        local = connection.sock.getsockname()
    assert statuses == [503, 200, 200] and connection.sock.getsockname() == local
    connection.close()


def test_chunked_and_compressed_requests_are_read(portal):
    connection = http.client.HTTPConnection(portal.host, portal.port, timeout=10)
    connection.request("POST", ROWS, iter([b'[{"srnumber":', b' "chunked"}]']), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert json.loads(connection.getresponse().read())["Rows Created"] == 1
    connection.close()
    body = gzip.compress(b'[{"srnumber": "packed"}]')
    assert Client(portal).json(ROWS, "POST", body, {"Content-Encoding": "gzip"})["Rows Created"] == 1
