"""What every page carries, whoever asks."""

import logging

import pytest
from django.http import HttpResponse
from structlog.contextvars import get_contextvars

from opendata_ops.middleware import PrivatePagesMiddleware
from tests.web import plain_web  # noqa: F401


@pytest.fixture
def ask(rf):
    """ask(view, **headers) is the reply to a request that went through the middleware."""

    def ask(view=lambda request: HttpResponse("ok"), **headers):
        return PrivatePagesMiddleware(view)(rf.get("/", headers=headers))

    return ask


def test_no_cache_keeps_a_page(ask):
    def lenient(request):
        return HttpResponse("ok", headers={"Cache-Control": "public, max-age=3600"})

    assert ask()["Cache-Control"] == ask(lenient)["Cache-Control"] == "no-store"


def test_a_page_asks_for_none_of_the_readers_devices(ask):
    assert "camera=()" in ask()["Permissions-Policy"] and "geolocation=()" in ask()["Permissions-Policy"]


def test_a_view_may_have_a_policy_of_its_own(ask):
    assert ask(lambda request: HttpResponse(headers={"Permissions-Policy": "camera=(self)"}))["Permissions-Policy"] == "camera=(self)"


def test_each_request_has_an_id_that_its_log_lines_carry(ask):
    seen = []

    def view(request):
        seen.append((request.id, get_contextvars()["request_id"]))
        return HttpResponse()

    replies = [ask(view)["X-Request-ID"], ask(view)["X-Request-ID"]]
    assert [(one, one) for one in replies] == seen and replies[0] != replies[1]
    assert "request_id" not in get_contextvars()


def test_the_id_of_the_proxy_in_front_is_taken_over(ask):
    assert ask(**{"X-Request-ID": "3f2b-77aa-0001"})["X-Request-ID"] == "3f2b-77aa-0001"


@pytest.mark.parametrize("forged", ["x", "a b c d e f g h", "<script>alert(1)</script>", "1" * 65, 'id","level":"error'])
def test_a_forged_id_never_reaches_the_log(ask, forged):
    assert ask(**{"X-Request-ID": forged})["X-Request-ID"] != forged


def test_a_failure_does_not_leave_its_id_to_the_next_request(rf):
    def broken(request):
        logging.getLogger(__name__).info("about to fail")
        raise ValueError

    with pytest.raises(ValueError):
        PrivatePagesMiddleware(broken)(rf.get("/"))
    assert "request_id" not in get_contextvars()


@pytest.mark.parametrize("query", ["q=%00", "state=done%00", "page=1&page=%00"])
def test_a_nul_in_an_address_is_answered_in_words_before_any_page_looks_for_it(client, query):
    reply = client.get(f"/login/?{query}")
    assert reply.status_code == 400
    assert "not understood" in reply.content.decode()
    assert reply["Cache-Control"] == "no-store"
