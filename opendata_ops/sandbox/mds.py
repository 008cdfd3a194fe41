"""A scooter operator's MDS provider API on this machine: versions 0.2 to 2.1, four kinds of log-in, and what goes wrong in practice.

    from opendata_ops.sandbox.mds import Bearer, MdsServer, OAuth
    from opendata_ops.sandbox.mds_trips import Fleet

    with MdsServer(Fleet("Redwing", hourly=20), version="1.2", auth=OAuth(lifetime=60)) as server:
        server.url                                   # the API's base: /trips comes after it
        server.upstream_entry()                      # how atd-mds' providers_*.json would name this server and log in
        server.trips("2026-03-08T10")                # the truth: list[Trip] as delivered for that UTC hour
        server.script("2026-03-08T10", 404, 202, 429, "cut", retry_after=2)   # the next four answers for that hour
        server.script("2026-03-08T11", 500, times=5)
        server.script_token(400, 500)                # the next two answers of the token address
        server.expire_tokens()
        ...
        server.served                                # [(hour, status), …] of /trips, in order
        server.requests                              # everything that was asked: path, query, headers, status

An answer in a script is a status, None (the right answer), a word of WORDS, or a fault of `faults.KINDS`. Scripts are met after
the log-in and the version were found good; an hour is a UTC hour ("2026-03-08T10"). QUIRKS names lasting misbehaviours
(facts/mds.md §4.2): `quirks=("same_trips",)`. `clock` tells the operator's time; hours outside of [opens, closes) are no service, and so
are those of which `pauses` (a function of the hour) is true; hours that are not past do not exist yet, and those past by less than
`ready_minutes` are not ready.

What versions say is in facts/mds.md §4.1. Where it says nothing, the choice is marked "assumed" here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .faults import KINDS, Fault
from .mds_trips import VERSIONS, Fleet, Trip, as_hour, as_json, hours, vehicle_as_json
from .wire import LocalServer, Reply, Request

#: answers of a script beside statuses and faults
WORDS = {
    "expired": "401, and every token given until now is worth nothing any more",
    "self_loop": "links.next is the address just asked for",
    "other_host": "links.next is on another host (`to`)",
    "endless": "links.next leads to one more page, always another one",
    "102-then-200": "an interim 102, then the right answer on the same connection",
    "wrong_version": "the envelope says another version (`says`)",
    "wrong_type": "the right body as text/plain",
    "another_hour": "the trips of the hour before, as if they were those asked for",
    "no_trips": "an envelope without trips in it",
    "hang": "nothing for `seconds`, then the connection closes",
}
_INSTEAD = ("status", "html", "empty", "redirect")

#: lasting misbehaviours of real operators
QUIRKS = {
    "rejects_max_end_time": 'Jump and Spin on 0.3: 400 "Invalid additional property" for max_end_time',
    "fourteen_days": "Spin: 400 for a period of more than 14 days",
    "says_1.0": 'Veoride: every envelope says version "1.0"',
    "same_trips": "Scoobi: the same thirty trips whatever is asked for, latitude and longitude swapped, in Pittsburgh",
    "fails_before_opening": "Free2Move: 500 for hours before it came to the city",
    "ignores_accept": "never 406: answers in its own version whatever is asked for",
    "plain_type": "Content-Type application/json in every version",
    "empty_hour_is_404": "404 for an hour without trips",
    "late_is_404": "404, too, while an hour is not ready (1.2 and later should say 102 or 202)",
    "gone": "410 for an hour out of service",
    "pages_anyway": "0.4 and later: pages, which the standard forbids",
    "relative_next": "links.next without a host",
    "last_page_without_next": "the last page's links have no next at all",
    "strict_parameters": "400 for a parameter that it does not know",
    "trip_type_text": 'trip_type as text ("rider") instead of a list',
    "forgets_vehicles": "2.x: every fifth vehicle is unknown to /vehicles",
}

#: how long a span is answered where 0.2 and 0.3 name none
_UNASKED = timedelta(days=7)


# who may ask


@dataclass(frozen=True)
class Bearer:
    """A token that never changes."""

    token: str = "practice-bearer-token"  # noqa: S105 - public, like all of the practice city


@dataclass(frozen=True)
class Basic:
    """User and password."""

    user: str = "city"
    password: str = "practice-password"  # noqa: S105 - public, like all of the practice city


@dataclass(frozen=True)
class Headers:
    """Headers of the operator's own."""

    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Api-Key": "practice-api-key"})


@dataclass(frozen=True)
class OAuth:
    """A token for the `form` posted to /oauth/token, under the name `key`, good for `lifetime` seconds.

    `is_jwt` makes it a signed JSON web token. `headers` are needed on the token request, too (Bird: App-Version).
    `tells_expiry` says `expires_in`.
    """

    form: Mapping[str, str] = field(
        default_factory=lambda: {"grant_type": "client_credentials", "client_id": "city", "client_secret": "practice-secret", "scope": "trips"}
    )
    key: str = "access_token"
    lifetime: float = 3600.0
    is_jwt: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    tells_expiry: bool = True


#: Spin's way: a log-in by e-mail that gives a "jwt"
SPIN = OAuth(form={"grant_type": "api", "email": "city@practice.city", "password": "practice-password"}, key="jwt", is_jwt=True, tells_expiry=False)


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, error: str, description: str = "", details: Iterable[str] = (), **headers: str):
        super().__init__(status)
        self.status, self.error, self.description, self.details, self.headers = status, error, description, list(details), headers


_ERRORS = {
    400: ("bad_param", "A parameter is missing or malformed"),
    401: ("unauthorized", "Invalid, expired, or insufficient scope of token"),
    403: ("forbidden", "This account may not read trips"),
    404: ("not_found", "Object(s) do not exist"),
    406: ("not_acceptable", "The requested version is not supported"),
    410: ("gone", "This resource is gone"),
    429: ("too_many_requests", "Slow down"),
    500: ("server_error", "Internal server error"),
    503: ("unavailable", "Service unavailable"),
}


class MdsServer(LocalServer):
    """The API of one operator: see the module's head.

    `version` is the newest that it speaks, `also` what else (None: a server of 0.3 or 0.4 speaks 0.2 as well, as those demand).
    `auth` is Bearer, Basic, Headers, OAuth or None. `page_size` trips come on a page of 0.2 and 0.3 (0: all on one). `renamed` maps
    a parameter's name in the standard to this operator's. `required_headers` are refused when absent. `limit` is (requests, seconds):
    more are answered 429. `prefix` is a path before all others. Raises ValueError for a version or a quirk that does not exist.
    """

    def __init__(
        self,
        fleet: Fleet | None = None,
        *,
        version: str = "1.2",
        also: Iterable[str] | None = None,
        auth: Bearer | Basic | Headers | OAuth | None = None,
        page_size: int = 0,
        clock: Callable[[], datetime] | None = None,
        opens: datetime | None = None,
        closes: datetime | None = None,
        ready_minutes: float = 0.0,
        pauses: Callable[[datetime], bool] | None = None,
        quirks: Iterable[str] = (),
        renamed: Mapping[str, str] | None = None,
        required_headers: Mapping[str, str] | None = None,
        limit: tuple[int, float] | None = None,
        prefix: str = "",
        **server: Any,
    ):
        super().__init__(**server)
        also = (("0.2",) if version in ("0.3", "0.4") else ()) if also is None else tuple(also)
        self.fleet = fleet or Fleet()
        self.version = version
        self.versions = (version, *also)
        self.auth = auth
        self.page_size = page_size
        self.clock = clock or (lambda: datetime.now(UTC))
        self.opens = opens
        self.closes = closes
        self.ready = timedelta(minutes=ready_minutes)
        self.pauses = pauses
        self.quirks = frozenset(quirks)
        self.renamed = dict(renamed or {})
        self.required_headers = dict(required_headers or {})
        self.limit = limit
        self.prefix = prefix
        self.served: list[tuple[datetime, int]] = []
        if unknown := sorted(set(self.versions) - set(VERSIONS)):
            raise ValueError(f"no MDS version {', '.join(unknown)}; there are: {', '.join(VERSIONS)}")
        if unknown := sorted(self.quirks - set(QUIRKS)):
            raise ValueError(f"no quirk is called {', '.join(unknown)}; there are: {', '.join(QUIRKS)}")
        self._lock = threading.Lock()
        self._scripts: dict[datetime, deque[tuple[int | str | None, dict[str, Any]]]] = {}
        self._token_script: deque[int] = deque()
        self._tokens: dict[str, float] = {}
        self._given = 0
        self._times: deque[float] = deque()

    # what a test or the practice city does with it
    @property
    def url(self) -> str:
        """The API's base, without a slash at the end."""
        return f"{super().url}{self.prefix}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/oauth/token"

    def trips(self, hour: datetime | str) -> list[Trip]:
        """What this operator delivers for a UTC hour once it is ready: duplicates and oddities in it; out of service: nothing."""
        hour = as_hour(hour)
        if not self._operates(hour):
            return []
        return list(self._same) if "same_trips" in self.quirks else self.fleet.trips(hour)

    def script(self, hour: datetime | str, *answers: int | str | None, times: int = 1, **options: Any) -> None:
        """Let the next requests for an hour be answered by `answers`, each `times` times, then rightly.

        `options` go to all: retry_after, to, says, seconds, or the options of a fault. Raises ValueError for a word that means nothing.
        """
        for answer in answers:
            if isinstance(answer, str) and answer not in WORDS and (answer not in KINDS or not _can_deliver(answer)):
                raise ValueError(f"no answer is called {answer!r}; there are: {', '.join([*WORDS, *filter(_can_deliver, KINDS)])}")
        with self._lock:
            waiting = self._scripts.setdefault(as_hour(hour), deque())
            waiting.extend((answer, options) for answer in answers for _ in range(times))

    def script_token(self, *statuses: int, times: int = 1) -> None:
        """Let the next token requests fail with these statuses (400: invalid_scope, as Jump's did)."""
        with self._lock:
            self._token_script.extend(status for status in statuses for _ in range(times))

    def expire_tokens(self) -> None:
        """From now on every token given before is refused."""
        with self._lock:
            self._tokens.clear()

    def upstream_entry(self) -> dict[str, Any]:
        """This server in atd-mds' providers_*.json (facts/mds.md §1.5): address, version, log-in, headers, renamed parameters."""
        entry: dict[str, Any] = {"mds_api_url": self.url, "version": f"{self.version}.0", "headers": dict(self.required_headers)}
        if self.renamed:
            # upstream calls the two bounds of 0.3 by the names that they have in 0.2
            usual = {"min_end_time": "start_time", "max_end_time": "end_time"}
            entry["mds_param_override"] = {usual.get(name, name): own for name, own in self.renamed.items()}
        match self.auth:
            case Bearer(token):
                entry |= {"auth_type": "Bearer", "token": token}
            case Basic(user, password):
                entry |= {"auth_type": "Basic", "auth_data": {"username": user, "password": password}}
            case Headers(headers):
                entry |= {"auth_type": "Custom", "headers": {**entry["headers"], **headers}}
            case OAuth():
                entry |= {
                    "auth_type": "OAuth",
                    "token_url": self.token_url,
                    "auth_data": dict(self.auth.form),
                    "auth_token_res_key": self.auth.key,
                    "request": {"auth": {"headers": dict(self.auth.headers)}},
                }
        return entry

    def control(self, verb: str, request: Request) -> Any:
        """Side door: POST /__sandbox/script {"hour": …, "answers": […], …} and /__sandbox/expire."""
        if verb == "script":
            asked = dict(request.json())
            self.script(asked.pop("hour"), *asked.pop("answers"), **asked)
            return {"hours": sorted(f"{hour:%Y-%m-%dT%H}" for hour, waiting in self._scripts.items() if waiting)}
        if verb == "expire":
            self.expire_tokens()
            return {"tokens": 0}
        raise LookupError(verb)

    # answering
    def error_body(self, status: int) -> bytes:
        error, description = _ERRORS.get(status, ("error", f"Status {status}"))
        return _error(error, description, [])

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        version = self.version
        try:
            path = request.path.removeprefix(self.prefix)
            if self.limit:
                self._count(*self.limit)
            if isinstance(self.auth, OAuth) and path == "/oauth/token":
                return self._token(request)
            self._check_log_in(request)
            for name, value in self.required_headers.items():
                if request.headers.get(name.lower()) != value:
                    raise Refused(400, "bad_request", f"The header {name} must be {value}")
            version = self._negotiated(request)
            if request.method == "OPTIONS" and version < "1":
                return Reply(200, b"", self._type(version), {"Allow": "GET, HEAD, OPTIONS", "Accept": ", ".join(map(_media_type, self.versions))})
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "method_not_allowed", f"{request.method} is not allowed here")
            if path == "/trips":
                return self._trips(request, version)
            if path == "/vehicles" and version >= "2":
                return self._vehicles(request, version)
            if path.startswith("/vehicles/") and version >= "2":
                return self._vehicle(path.removeprefix("/vehicles/"), version)
            raise Refused(404, "not_found", f"There is no {path} here")
        except Refused as refusal:
            # assumed: 0.2 and 0.3, which say nothing about a body, use the shape of the later ones
            body = _error(refusal.error, refusal.description, refusal.details)
            return Reply(refusal.status, body, self._type(version), refusal.headers)

    def _count(self, most: int, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - seconds:
                self._times.popleft()
            if len(self._times) >= most:
                wait = math.ceil(self._times[0] + seconds - now)
                raise Refused(429, *_ERRORS[429], **{"Retry-After": str(max(1, wait))})
            self._times.append(now)

    def _check_log_in(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        match self.auth:
            case Bearer(token):
                good = scheme.lower() == "bearer" and hmac.compare_digest(given, token)
            case Basic(user, password):
                good = scheme.lower() == "basic" and given == base64.b64encode(f"{user}:{password}".encode()).decode()
            case Headers(headers):
                good = all(request.headers.get(name.lower()) == value for name, value in headers.items())
            case OAuth():
                with self._lock:
                    good = scheme.lower() == "bearer" and self._tokens.get(given, 0.0) > time.monotonic()
            case _:
                good = True
        if not good:
            raise self._unauthorized()

    def _unauthorized(self) -> Refused:
        return Refused(401, *_ERRORS[401], **{"WWW-Authenticate": "Basic" if isinstance(self.auth, Basic) else 'Bearer error="invalid_token"'})

    def _token(self, request: Request) -> Reply:
        """POST /oauth/token with a form."""
        auth = self.auth
        assert isinstance(auth, OAuth)
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", "Post the form here")
        with self._lock:
            scripted = self._token_script.popleft() if self._token_script else 0
        if scripted:
            raise Refused(scripted, "invalid_scope" if scripted == 400 else _ERRORS.get(scripted, ("error", ""))[0], "Scripted")
        for name, value in auth.headers.items():
            if request.headers.get(name.lower()) != value:
                raise Refused(400, "invalid_request", f"The header {name} must be {value}")
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        if form.get("grant_type") != auth.form.get("grant_type"):
            raise Refused(400, "unsupported_grant_type", "grant_type")
        if form.get("scope") != auth.form.get("scope"):
            raise Refused(400, "invalid_scope", "scope")
        if any(form.get(name) != value for name, value in auth.form.items()):
            raise Refused(401, "invalid_client", "Client authentication failed")
        told: dict[str, Any] = {auth.key: self._new_token(auth), "token_type": "bearer"}
        if auth.tells_expiry:
            told["expires_in"] = int(auth.lifetime)
        return Reply.of(told, **{"Cache-Control": "no-store"})

    def _new_token(self, auth: OAuth) -> str:
        with self._lock:
            self._given += 1
            number = self._given
            token = hashlib.sha256(f"{self.fleet.provider_id} {number}".encode()).hexdigest()
            if auth.is_jwt:
                claims = {"jti": number, "exp": int(time.time() + auth.lifetime), "provider_id": self.fleet.provider_id}
                token = ".".join(_base64(part) for part in (b'{"alg":"HS256","typ":"JWT"}', json.dumps(claims).encode()))
                token += "." + _base64(hmac.new(b"practice", token.encode(), hashlib.sha256).digest())
            self._tokens[token] = time.monotonic() + auth.lifetime
        return token

    def _negotiated(self, request: Request) -> str:
        """The version to answer in. Raises Refused with 406."""
        if self.version == "0.2" or "ignores_accept" in self.quirks:
            return self.version
        wanted = []
        for entry in request.headers.get("accept", "").split(","):
            media, _, parameters = entry.strip().partition(";")
            if media in ("application/vnd.mds+json", "application/vnd.mds.provider+json"):
                found = re.search(r'version\s*=\s*"?([0-9.]+)"?', parameters)
                wanted.append((media, ".".join(found[1].split(".")[:2]) if found else ""))
        for media, version in wanted:
            if version in self.versions and _media_type(version).startswith(media + ";"):
                return version
        # 0.3 and 0.4: who says nothing of a version is answered as 0.2
        if not wanted and self.version < "1" and "0.2" in self.versions:
            return "0.2"
        raise Refused(406, *_ERRORS[406], details=[_media_type(version) for version in self.versions])

    def _type(self, version: str) -> str:
        return "application/json" if version == "0.2" or "plain_type" in self.quirks else _media_type(version)

    def _trips(self, request: Request, version: str) -> Reply:
        query = self._by_canonical_name(request, version)
        if version in ("0.2", "0.3"):
            begins, ends = self._span(query, version)
            # a span is known by its last hour: those of 0.2 begin earlier, to overlap
            hour = as_hour(max(begins, ends - timedelta(microseconds=1)))
        else:
            hour = self._asked_hour(query)
            begins, ends = hour, hour + timedelta(hours=1)
        with self._lock:
            waiting = self._scripts.get(hour)
            answer, options = waiting.popleft() if waiting else (None, {})
        try:
            reply = self._scripted(request, answer, options, version) if answer is not None else None
            if reply is None:
                reply = self._page(request, query, version, (begins, ends), answer if isinstance(answer, str) else "", options)
        except Refused as refusal:
            self.served.append((hour, refusal.status))
            raise
        self.served.append((hour, reply.status))
        return reply

    def _by_canonical_name(self, request: Request, version: str) -> dict[str, str]:
        """The query under the names of the standard. Raises Refused for a name that this operator does not take."""
        query = dict(request.query)
        if "rejects_max_end_time" in self.quirks and "max_end_time" in query:
            raise Refused(400, "bad_request", "Invalid additional property", ["max_end_time"])
        for canonical, own in self.renamed.items():
            if canonical in query:
                raise Refused(400, "bad_param", f"Unknown parameter: {canonical}")
            if own in query:
                query[canonical] = query.pop(own)
        known = {"0.2": ("start_time", "end_time", "bbox"), "0.3": ("min_end_time", "max_end_time")}.get(version, ("end_time",))
        unknown = sorted(set(query) - {*known, "device_id", "vehicle_id", "page"})
        if unknown and "strict_parameters" in self.quirks:
            raise Refused(400, "bad_param", "Unknown parameter", unknown)
        return query

    def _span(self, query: Mapping[str, str], version: str) -> tuple[datetime, datetime]:
        first, last, unit = ("start_time", "end_time", 1.0) if version == "0.2" else ("min_end_time", "max_end_time", 1000.0)
        try:
            ends = datetime.fromtimestamp(float(query[last]) / unit, UTC) if last in query else self.clock().astimezone(UTC)
            begins = datetime.fromtimestamp(float(query[first]) / unit, UTC) if first in query else self.opens or ends - _UNASKED
        except (ValueError, OverflowError, OSError) as error:
            raise Refused(400, "bad_param", f"{first} and {last} must be {'seconds' if version == '0.2' else 'milliseconds'} since 1970") from error
        if ends < begins:
            raise Refused(400, "bad_param", f"{last} lies before {first}")
        if "fourteen_days" in self.quirks and ends - begins > timedelta(days=14):
            raise Refused(400, "bad_param", "The period may not be longer than 14 days")
        return begins, ends

    def _asked_hour(self, query: Mapping[str, str]) -> datetime:
        asked = query.get("end_time", "")
        try:
            if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d", asked):
                raise ValueError(asked)
            return as_hour(asked)
        except ValueError as error:
            raise Refused(400, "bad_param", "end_time must be an hour like 2019-10-01T07", [asked] if asked else ["missing"]) from error

    def _scripted(self, request: Request, answer: int | str, options: Mapping[str, Any], version: str) -> Reply | None:
        """The reply of a script that needs no trips; None otherwise."""
        if answer == 102:
            # a server that means 102 as its last word; closed, for nothing says where its answer ends
            return Reply(102, b"", self._type(version), {"Connection": "close"})
        if isinstance(answer, int):
            headers = {"Retry-After": str(options["retry_after"])} if "retry_after" in options else {}
            body = b"" if answer in (202, 204) else _error(*_ERRORS.get(answer, ("error", f"Status {answer}")), [])
            return Reply(answer, body, self._type(version), headers)
        if answer == "expired":
            self.expire_tokens()
            raise self._unauthorized()
        if answer == "hang":
            self.stopping.wait(float(options.get("seconds", 3600.0)))
            return Reply(200, b"", fault=Fault("lost_reply"))
        if answer in _INSTEAD:
            return self._instead(Fault(answer, **options))
        return None

    def _page(
        self, request: Request, query: Mapping[str, str], version: str, span: tuple[datetime, datetime], word: str, options: Mapping[str, Any]
    ) -> Reply:
        if version in ("0.2", "0.3"):
            trips = self._in_span(*span, version)
        else:
            self._check_standing(span[0], version)
            trips = self.trips(span[0])
            if not trips and "empty_hour_is_404" in self.quirks:
                raise Refused(404, *_ERRORS[404])
        if word == "another_hour":
            trips = self.trips(span[0] - timedelta(hours=1))
        told = [as_json(trip, version) for trip in self._filtered(trips, query)]
        if version >= "2" and "trip_type_text" in self.quirks:
            for trip in told:
                trip["trip_type"] = trip["trip_type"][0]
        pages = version in ("0.2", "0.3") or "pages_anyway" in self.quirks
        links: dict[str, str | None] = {}
        if pages or word in ("self_loop", "other_host", "endless"):
            links, told = self._paged(request, told, word, options)
        says = "1.0" if "says_1.0" in self.quirks else str(options.get("says", "9.9.9")) if word == "wrong_version" else VERSIONS[version]
        content = {} if word == "no_trips" else {"trips": told}
        envelope: dict[str, Any] = {"version": says, **content} if version >= "2" else {"version": says, "data": content}
        if links:
            envelope["links"] = links
        reply = Reply(200, json.dumps(envelope, separators=(",", ":")).encode(), self._type(version))
        if word == "wrong_type":
            reply.content_type = "text/plain"
        elif word == "102-then-200":
            reply.before = b"HTTP/1.1 102 Processing\r\n\r\n"
        elif word and word not in WORDS:
            reply.fault = Fault(word, **options)
        return reply

    def _operates(self, hour: datetime) -> bool:
        is_early = self.opens is not None and hour + timedelta(hours=1) <= self.opens
        is_late = self.closes is not None and hour >= self.closes
        return not (is_early or is_late or (self.pauses is not None and self.pauses(hour)))

    def _check_standing(self, hour: datetime, version: str) -> None:
        """Raises Refused where 0.4 and later have no trips of the hour to give."""
        now = self.clock()
        ends = hour + timedelta(hours=1)
        if self.opens and ends <= self.opens and "fails_before_opening" in self.quirks:
            raise Refused(500, *_ERRORS[500])
        if not self._operates(hour):
            raise Refused(*((410, *_ERRORS[410]) if "gone" in self.quirks else (404, *_ERRORS[404])))
        if now < ends:
            raise Refused(404, "not_found", "The hour is not over")
        if now < ends + self.ready:
            if version < "1.2" or "late_is_404" in self.quirks:
                raise Refused(404, "not_found", "The hour is not ready")
            raise Refused(102, "", "", Connection="close") if version == "1.2" else Refused(202, "accepted", "The hour is not ready")

    def _in_span(self, begins: datetime, ends: datetime, version: str) -> list[Trip]:
        """0.2: started not before and ended not after; 0.3: ended in [begins, ends). Hours not over yet, or not ready, are silently absent."""
        now = self.clock()
        if self.opens and ends <= self.opens and "fails_before_opening" in self.quirks:
            raise Refused(500, *_ERRORS[500])
        if "same_trips" in self.quirks:
            return list(self._same)
        low, high = int(begins.timestamp() * 1000), int(ends.timestamp() * 1000)
        # one hour more: 0.2 takes a trip that ends on the end itself
        asked = hours(begins, ends + timedelta(hours=1 if version == "0.2" else 0))
        trips = [trip for hour in asked if hour + timedelta(hours=1) + self.ready <= now for trip in self.trips(hour)]
        if version == "0.2":
            return [trip for trip in trips if trip.start_ms - (trip.end_ms - trip.due_ms) >= low and trip.due_ms <= high]
        return [trip for trip in trips if low <= trip.due_ms < high]

    @property
    def _same(self) -> list[Trip]:
        """What Scoobi sends, whatever the hour."""
        odd = Fleet(self.fleet.name, provider_id=self.fleet.provider_id, seed=self.fleet.seed, hourly=30, odd={"outside": 1.0})
        return [_swapped(trip) for trip in odd.trips("2020-01-01T12")]

    @staticmethod
    def _filtered(trips: list[Trip], query: Mapping[str, str]) -> list[Trip]:
        if "device_id" in query:
            trips = [trip for trip in trips if str(trip.device.device_id) == query["device_id"]]
        if "vehicle_id" in query:
            trips = [trip for trip in trips if str(trip.device.vehicle_id) == query["vehicle_id"]]
        if "bbox" in query:
            try:
                west, south, east, north = map(float, query["bbox"].split(","))
            except ValueError:
                raise Refused(400, "bad_param", "bbox must be four numbers") from None
            trips = [trip for trip in trips if any(west <= lon <= east and south <= lat <= north for lon, lat, _ in trip.route)]
        return trips

    def _paged(self, request: Request, told: list[Any], word: str = "", options: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[Any]]:
        """(JSON-API links, the page's entries)."""
        try:
            page = max(1, int(request.query.get("page") or 1))
        except ValueError:
            raise Refused(400, "bad_param", "page must be a number") from None
        size = self.page_size or max(1, len(told))
        last = max(1, -(-len(told) // size))
        own = f"http://{request.headers.get('host', '')}"

        def address(number: int) -> str:
            return f"{own}{request.path}?{urlencode({**request.query, 'page': str(number)})}"

        links: dict[str, Any] = {
            "first": address(1),
            "last": address(last),
            "prev": address(page - 1) if page > 1 else None,
            "next": address(page + 1) if page < last or word == "endless" else None,
        }
        if word == "self_loop":
            links["next"] = f"{own}{request.target}"
        if word == "other_host":
            links["next"] = str((options or {}).get("to", "http://trips.elsewhere.example/trips?page=2"))
        if links["next"] and "relative_next" in self.quirks:
            links["next"] = links["next"].removeprefix(own)
        if links["next"] is None and "last_page_without_next" in self.quirks:
            del links["next"]
        return links, told[(page - 1) * size : page * size]

    def _forgets(self, number: int) -> bool:
        return "forgets_vehicles" in self.quirks and number % 5 == 4

    def _vehicles(self, request: Request, version: str) -> Reply:
        known = [device for number, device in enumerate(self.fleet.devices) if not self._forgets(number)]
        links, devices = self._paged(request, known)
        return self._vehicle_envelope(devices, version, {"links": links})

    def _vehicle(self, device_id: str, version: str) -> Reply:
        for number, device in enumerate(self.fleet.devices):
            if str(device.device_id) == device_id and not self._forgets(number):
                return self._vehicle_envelope([device], version, {})
        raise Refused(404, *_ERRORS[404])

    def _vehicle_envelope(self, devices: list[Any], version: str, more: Mapping[str, Any]) -> Reply:
        now = int(self.clock().timestamp() * 1000)
        told = [vehicle_as_json(device, self.fleet.provider_id) for device in devices]
        envelope = {"version": VERSIONS[version], "last_updated": now, "ttl": 0, "vehicles": told, **more}
        return Reply(200, json.dumps(envelope, separators=(",", ":")).encode(), self._type(version))


class Operators(LocalServer):
    """Several operators on one port, each under a path of its own: `Operators({"redwing": MdsServer(...)})` serves /redwing/trips."""

    def __init__(self, operators: Mapping[str, MdsServer], **server: Any):
        super().__init__(**server)
        self.operators = dict(operators)
        for name, operator in self.operators.items():
            operator.prefix = f"/{name}"
            operator.stopping = self.stopping

    def start(self) -> Operators:
        super().start()
        for operator in self.operators.values():
            operator.port = self.port
        return self

    def answer(self, request: Request, fault: Fault | None) -> Reply:
        operator = self.operators.get(request.path.split("/")[1])
        if operator is None:
            return Reply(404, _error("not_found", "No operator is called so", list(self.operators)))
        return operator.answer(request, fault)

    def control(self, verb: str, request: Request) -> Any:
        """POST /__sandbox/{operator}/{verb}"""
        name, _, verb = verb.partition("/")
        if name not in self.operators:
            raise LookupError(name)
        return self.operators[name].control(verb, request)


def _can_deliver(kind: str) -> bool:
    return kind in _INSTEAD or kind in ("cut", "cut_at_line", "cut_chunked", "truncated", "drip", "lost_reply", "headers", "bom")


def _media_type(version: str) -> str:
    return f"application/vnd.mds{'.provider' if version < '1' else ''}+json;version={version}"


def _error(error: str, description: str, details: list[str]) -> bytes:
    if not error:
        return b""  # an interim status has no body
    told: dict[str, Any] = {"error": error, "error_description": description}
    if details:
        told["error_details"] = details
    return json.dumps(told).encode()


def _base64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _swapped(trip: Trip) -> Trip:
    return replace(trip, route=tuple((lat, lon, at) for lon, lat, at in trip.route), oddities=("outside", "swapped"))
