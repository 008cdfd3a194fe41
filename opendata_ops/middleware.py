"""What every page gets on its way out, and every log line of a request on its way in."""

import re
import secrets

from django.core.exceptions import BadRequest
from django.views.defaults import bad_request
from structlog.contextvars import bound_contextvars

#: Nothing on our pages uses a device of the reader; what a page never asks for, no injected script may have.
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in ("camera", "display-capture", "geolocation", "microphone", "payment", "serial", "usb"))
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class PrivatePagesMiddleware:
    """No cache keeps a page; each request has an id in the log and in `X-Request-ID`.

    An id that the proxy in front gives is taken over, so that its log and ours tell of the same request.
    An address with a NUL in its query is answered 400: PostgreSQL takes none, so no page could look for one.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        given = request.headers.get("X-Request-ID", "")
        request.id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        with bound_contextvars(request_id=request.id):
            if any("\x00" in text for _, texts in request.GET.lists() for text in texts):
                response = bad_request(request, BadRequest("a NUL in the query"))
            else:
                response = self.get_response(request)
        response.headers["X-Request-ID"] = request.id
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        # every page: the sign-in page's token must be fresh too; static files never come this far, whitenoise answers before
        response.headers["Cache-Control"] = "no-store"
        return response
