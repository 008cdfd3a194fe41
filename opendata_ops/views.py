"""The first page, search, theme and health. A view is a sentence: who may, what to read, what to show."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from catalog.exports import csv_response
from catalog.gates import OPERATE, SEE, needs_view
from opendata_ops import context, selectors


@needs_view
@require_GET
def today(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    board = selectors.board(now)
    if request.GET.get("format") == "csv":
        return day_csv(board)
    request.rail = board.rail
    template = "opendata_ops/today.html" if board.is_set_up else "opendata_ops/empty.html"
    return render(request, template, {"board": board, "now": now, "may_operate": request.user.has_perm(OPERATE)})


def day_csv(board: selectors.Board) -> HttpResponse:
    heads = ["pipeline", *(str(head.day) for head in board.heads), "kept", "owed"]
    rows = ([line.pipeline.slug, *(square.face.word for square in line.days), line.kept, line.owed] for line in board.lines)
    return csv_response("pipelines-28-days.csv", heads, rows)


@needs_view
@require_GET
def search(request: HttpRequest) -> HttpResponse:
    words = request.GET.get("q", "")
    return render(request, "opendata_ops/search.html", {"words": words, "hits": selectors.search(words, request.user.is_staff)})


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Light, dark, or as the computer: the next of the three, kept in a cookie of this browser."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = reverse("today")
    response = redirect(back)
    chosen = context.NEXT_THEME[context.theme_of(request)]
    response.set_cookie(context.THEME_COOKIE, chosen, max_age=365 * 86_400, samesite="Lax", secure=settings.SESSION_COOKIE_SECURE, httponly=True)
    return response


@require_GET
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_GET
def readyz(request: HttpRequest) -> HttpResponse:
    """Pages can be served: 200, or 503 with what is missing."""
    ready = selectors.readiness()
    return JsonResponse({"ok": ready.ok, "problems": ready.problems}, status=200 if ready.ok else 503)


@require_GET
def statusz(request: HttpRequest) -> HttpResponse:
    """Figures of the machinery as JSON, for a monitor on this machine or for whoever may look."""
    if not is_loopback(request) and not request.user.has_perm(SEE):
        raise PermissionDenied("Log in, or ask from this machine.")
    return JsonResponse(selectors.status(timezone.now()))


def is_loopback(request: HttpRequest) -> bool:
    """Whether the request was made on this machine. One that a proxy passed on was not."""
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
