"""The one outbound door: every request that a connector makes goes through `Door`, and nothing leaves by another way.

It keeps the promises that no connector should have to think of: time-outs and a total deadline, retries of what
usually passes, bodies that are whole, bounded and of the kind asked for, no private address unless it is allowed, no
secret in a message. What it raises is already in plain words (`pipelines.errors`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import ssl
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import certifi
import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ReadTimeoutError

from pipelines.connectors.addresses import AllowList
from pipelines.connectors.redaction import Redactor
from pipelines.connectors.wire import GuardedAdapter, dial, on_the_clock, seconds_allowed, seconds_left
from pipelines.errors import DataError, PipelineError, SetupError, TransientError

MIB = 1024 * 1024
#: Bodies are read, hashed and written in pieces of this size.
PIECE = MIB
#: A source that asks for a longer pause gets it from the block, which waits in the database, not from a sleeping worker.
LONGEST_NAP = 15.0
#: No source may put us off for longer than this, whatever its Retry-After says.
LONGEST_PAUSE = 24 * 3600.0
#: How many redirects inside the same host are followed.
HOPS = 3

#: Statuses that usually pass. 202 is a portal that is still preparing the answer.
PASSING = frozenset({202, 408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: What may be said to every host; other headers may be a secret of the first.
_ANYBODYS = ("User-Agent", "Accept", "Accept-Encoding")
#: The portal understood and refused what we sent.
REFUSED_DATA = frozenset({409, 422})

#: The content types that each kind of body may come as. A missing type and octet-stream (file stores) pass; HTML never does.
_TYPES = {
    "json": ("application/json", "application/vnd.geo+json", "text/json", "text/plain", "text/javascript", "+json"),
    "csv": ("text/csv", "application/csv", "text/plain", "application/vnd.ms-excel", "text/tab-separated-values"),
    "xml": ("application/xml", "text/xml", "+xml"),
    "zip": ("application/zip", "application/x-zip-compressed"),
    "text": ("text/", "application/json", "+json", "application/xml"),
}
_ANYTHING = ("", "application/octet-stream", "binary/octet-stream")

Receive = TypeVar("Receive")
Params = Mapping[str, str | int] | None


@dataclass(frozen=True)
class Reply:
    """A small answer, held in memory: `body` is whole and decompressed, `json` its value where JSON was asked for."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    request_id: str = ""
    json: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Manners:
    """How one provider wants to be asked: at most so many `attempts` (0: as the door has it), `delay` seconds before each of them.

    `answers` are codes that usually pass ("http-202") and here are an answer: they are raised at once, not tried again.
    `redirects`: "host" follows those that stay at the same host, "all" those to others, too, which get none of our headers; with
    "none" a redirect is a status like any other ("http-302").
    """

    attempts: int = 0
    delay: float = 0.0
    answers: frozenset[str] = frozenset()
    redirects: Literal["host", "all", "none"] = "host"


@dataclass(frozen=True)
class Downloaded:
    """A body that is whole on disk.

    `bytes` and `sha256` are of the file as stored (decompressed). `proven` says that the transport itself showed the end
    (Content-Length, chunks or gzip); without it, a cut at a line end can only be seen by counting rows.
    """

    path: Path
    bytes: int
    sha256: str
    headers: Mapping[str, str] = field(repr=False)
    request_id: str = ""
    proven: bool = True


# ---------------------------------------------------------------------------------------------------------------------
# The door


class Door:
    """The only way out. Safe to share between threads.

    `allow`: host names, host:port and networks that may be reached though they are private (setting OUTBOUND_ALLOW).
    `deadline`: seconds for one call with all its attempts and its whole body. `max_bytes` bounds a download, on the wire
    and unpacked; `max_held_bytes` an answer that is held in memory. `secrets` never appear in a message. `owner` is who a
    refused credential belongs to ("provider la-311"). `on_event(level, text)` hears of requests ("debug") and of retries
    ("warning"), one call at a time. `ca_file` replaces the public certificate authorities.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        connect_timeout: float = 10,
        read_timeout: float = 60,
        deadline: float = 600,
        attempts: int = 4,
        max_bytes: int = 4096 * MIB,
        max_held_bytes: int = 64 * MIB,
        user_agent: str = "OpenDataOps/1.0",
        secrets: Sequence[str] = (),
        owner: str = "the provider",
        ca_file: str = "",
        on_event: Callable[[str, str], None] = lambda level, text: None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.read_timeout = read_timeout
        self.connect_timeout = connect_timeout
        self.deadline = deadline
        self.attempts = attempts
        self.max_bytes = max_bytes
        self.max_held_bytes = max_held_bytes
        self.user_agent = user_agent
        self.owner = owner
        self.redact = Redactor(secrets)
        self._allow = AllowList(allow)
        self._adapter = GuardedAdapter(self._allow, connect_timeout, ca_file or certifi.where())
        self._on_event = on_event
        self._telling = threading.Lock()
        self._sleep = sleep

    def close(self) -> None:
        """Close the kept connections."""
        self._adapter.close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def tell(self, level: str, text: str) -> None:
        """Pass an event on, redacted."""
        with self._telling:
            self._on_event(level, self.redact(text))

    def lists(self, url: str) -> bool:
        """Whether the allow-list itself names the host of `url`: a neighbour that we may speak to without TLS."""
        scheme, host, port = self._place(url)
        return self._allow.names(host, port or _default_port(scheme))

    def names(self, host: str, port: int) -> bool:
        """Whether the allow-list itself names this host at this port."""
        return self._allow.names(host, port)

    def dial(self, host: str, port: int) -> socket.socket:
        """A plain connection for who speaks another language than HTTP, such as a database's driver. Raises SetupError, TransientError.

        A driver that dials for itself must be given the address that was reached (`getpeername`), not the name.
        """
        try:
            return dial(self._allow, host, port, timeout=self.connect_timeout)
        except (socket.gaierror, UnicodeError):
            raise self._failure(
                TransientError,
                f"the name {host} was not found",
                code="dns",
                next_step=f"Check the spelling of the address of {self.owner}, and this machine's DNS.",
            ) from None
        except TimeoutError:
            raise self._failure(
                TransientError, f"{host} did not take the connection within {self.connect_timeout:g} s", code="connect-timeout"
            ) from None
        except OSError as error:
            raise self._failure(TransientError, f"{host}:{port} could not be reached: {error.strerror or error}", code="unreachable") from None

    def get_json(self, url: str, params: Params = None, headers: Mapping[str, str] | None = None, auth: Any = None) -> Any:
        """The answer as strict JSON. Raises PipelineError."""
        return self.ask("GET", url, params=params, headers=headers, auth=auth, expect="json").json

    def get_text(self, url: str, params: Params = None, headers: Mapping[str, str] | None = None, auth: Any = None, *, expect: str = "text") -> str:
        """The answer as text, in the character set that it declares (UTF-8 when it declares none). Raises PipelineError."""
        reply = self.ask("GET", url, params=params, headers=headers, auth=auth, expect=expect)
        header = Message()
        header["Content-Type"] = reply.headers.get("Content-Type", "")
        charset = header.get_content_charset("utf-8-sig")
        try:
            return reply.body.decode(charset)
        except (UnicodeDecodeError, LookupError) as error:
            raise self._failure(DataError, f"the text of {_host(url)} is not {charset}: {error}", code="wrong-encoding") from None

    def post_json(
        self,
        url: str,
        payload: Any,
        *,
        method: str = "POST",
        repeatable: bool = False,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
        read_timeout: float | None = None,
    ) -> Any:
        """Send `payload` as JSON by POST (or PUT, DELETE) and return the JSON answer. Raises PipelineError.

        It is sent again after a failure only where the caller says `repeatable`: an upsert by key is.
        """
        return self.ask(
            method, url, params=params, headers=headers, auth=auth, payload=payload, repeatable=repeatable,
            read_timeout=read_timeout, expect="json",
        ).json  # fmt: skip

    def ask(
        self,
        method: str,
        url: str,
        *,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        payload: Any = None,
        form: Mapping[str, str] | None = None,
        repeatable: bool = False,
        expect: str = "any",
        read_timeout: float | None = None,
        deadline: float | None = None,
        manners: Manners | None = None,
    ) -> Reply:
        """One request whose answer is small. Raises PipelineError.

        `expect` is "json" (its value is then in `Reply.json`), "csv", "xml", "zip", "text" or "any". The body is `payload` as
        JSON, or `form` as a web form sends it. `deadline` stands in for the door's own.
        """

        return self._walk(
            method, url, self._held(expect), params=params, headers=headers, auth=auth, payload=payload, form=form, read_timeout=read_timeout,
            deadline=deadline, repeatable=repeatable or method in ("GET", "HEAD"), manners=manners,
        )  # fmt: skip

    def look(self, url: str, *, method: str = "HEAD", headers: Mapping[str, str] | None = None, manners: Manners | None = None) -> Reply:
        """What is said of `url` before its body, by HEAD, or by a GET whose body is left where it is. Raises PipelineError."""

        def head(response: requests.Response) -> Reply:
            return Reply(response.status_code, response.headers, b"", _request_id(response.headers))

        return self._walk(method, url, head, params=None, headers=headers, auth=None, repeatable=True, manners=manners)

    def upload(
        self,
        method: str,
        url: str,
        path: Path,
        *,
        content_type: str,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        repeatable: bool = False,
        expect: str = "json",
        read_timeout: float | None = None,
        deadline: float | None = None,
    ) -> Reply:
        """Send the file at `path` as the body, straight from the disk; the answer is small. Raises PipelineError.

        It is sent again after a failure, from its first byte, only where the caller says `repeatable`: a replacement of the
        whole is. `deadline` stands in for the door's own: a big body, and what the other side does with it, take their time.
        """
        with path.open("rb") as file:
            return self._walk(
                method, url, self._held(expect), params=params, headers={**(headers or {}), "Content-Type": content_type}, auth=auth,
                file=file, read_timeout=read_timeout, deadline=deadline, repeatable=repeatable,
            )  # fmt: skip

    def download(
        self,
        url: str,
        path: Path,
        *,
        params: Params = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        payload: Any = None,
        expect: str = "csv",
        on_bytes: Callable[[int], None] | None = None,
        watch: Callable[[], Callable[[bytes], None]] | None = None,
        read_timeout: float | None = None,
        deadline: float | None = None,
        manners: Manners | None = None,
    ) -> Downloaded:
        """Stream the answer to a file that appears at `path` only when it is whole. Raises PipelineError.

        With a `payload` the question is that JSON, by POST: one that only asks, so it may be asked again.
        `on_bytes(bytes so far)` is called after each piece of the running attempt; what it raises ends the download.
        `watch` is called at the beginning of each attempt and gives who is shown its pieces: what can be learned of a body
        while it passes need not be read again. `deadline` stands in for the door's own.
        """
        part = path.with_name(f"{path.name}.part")

        def store(response: requests.Response) -> Downloaded:
            body, digest, size = _Body(self, response, self.max_bytes), hashlib.sha256(), 0
            shown = watch() if watch else None
            try:
                with part.open("wb") as file:
                    for piece in body.pieces(expect):
                        file.write(piece)
                        digest.update(piece)
                        size += len(piece)
                        if shown:
                            shown(piece)
                        if on_bytes:
                            on_bytes(size)
                    # here, where other downloads go on meanwhile: whoever shelves the file finds nothing left to flush
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            return Downloaded(path, size, digest.hexdigest(), response.headers, _request_id(response.headers), body.proven)

        method = "GET" if payload is None else "POST"
        return self._walk(
            method, url, store, params=params, headers=headers, auth=auth, payload=payload, repeatable=True, read_timeout=read_timeout,
            deadline=deadline, manners=manners,
        )  # fmt: skip

    def _held(self, expect: str) -> Callable[[requests.Response], Reply]:
        """Take an answer into memory."""

        def hold(response: requests.Response) -> Reply:
            body = b"".join(_Body(self, response, self.max_held_bytes).pieces(expect))
            # parsed here, inside the attempt: JSON that is cut or garbled usually passes, as a cut body does
            value = self._strict_json(body, _host(response.url)) if expect == "json" else None
            return Reply(response.status_code, response.headers, body, _request_id(response.headers), value)

        return hold

    def _strict_json(self, body: bytes, host: str) -> Any:
        """The body as strict JSON: no NaN, no Infinity, no key twice. Raises PipelineError."""
        try:
            text = body.decode("utf-8-sig")
            return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_key_twice)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
                raise self._failure(TransientError, f"the JSON of {host} ends in the middle ({place})", code="cut-body") from None
            raise self._failure(TransientError, f"{host} sent what is not JSON: {error.msg} ({place})", code="not-json") from None
        except (ValueError, RecursionError) as error:
            raise self._failure(DataError, f"the JSON of {host} is not strict JSON: {error}", code="not-strict-json") from None

    # ------------------------------------------------------------------------------------------------------ attempts

    def _walk(
        self,
        method: str,
        url: str,
        receive: Callable[[requests.Response], Receive],
        *,
        params: Params,
        headers: Mapping[str, str] | None,
        auth: tuple[str, str] | None,
        payload: Any = None,
        form: Mapping[str, str] | None = None,
        file: BinaryIO | None = None,
        repeatable: bool,
        read_timeout: float | None = None,
        deadline: float | None = None,
        manners: Manners | None = None,
    ) -> Receive:
        """One call: as many attempts as are worth it and fit in the deadline."""
        request = self._prepare(method, url, params, headers, auth, payload, file, form)
        seconds = deadline or self.deadline
        manners = manners or Manners()
        attempts = (manners.attempts or self.attempts) if repeatable else 1
        started = time.monotonic()

        def attempt() -> Receive:
            if manners.delay:
                self._sleep(manners.delay)
            if file:
                file.seek(0)
            with on_the_clock(started, seconds, read_timeout or self.read_timeout):
                return self._once(request, receive, manners.redirects)

        retrying = Retrying(
            retry=retry_if_exception(lambda error: _worth_repeating(error) and error.code not in manners.answers),
            stop=stop_after_attempt(attempts) | stop_before_delay(seconds),
            wait=_pause,
            before_sleep=lambda state: self._announce(state, attempts),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            received = retrying(attempt)
        except TransientError as error:
            times = retrying.statistics["attempt_number"]
            if times == 1 or error.code == "deadline":
                raise
            raise TransientError(
                f"{error.message}, {times} times", retry_after=error.retry_after, code=error.code, next_step=error.next_step
            ) from None
        self.tell("debug", f"{method} {request.url} answered in {time.monotonic() - started:.2f} s")
        return received

    def _announce(self, state: RetryCallState, attempts: int) -> None:
        message, nap = state.outcome.exception().message, state.upcoming_sleep
        self.tell("warning", f"{message}; attempt {state.attempt_number + 1} of {attempts} follows in {nap:.1f} s")

    def _once(self, request: requests.PreparedRequest, receive: Callable[[requests.Response], Receive], redirects: str) -> Receive:
        """One attempt, with redirects followed by hand, as far as `Manners.redirects` lets them go."""
        for _ in range(HOPS + 1):
            response = self._send(request)
            # closed, not released: what is left of an unread body must not become the start of the next answer
            with response:
                status = response.status_code
                if status in REDIRECTS and redirects != "none":
                    request = self._redirected(request, response, goes_anywhere=redirects == "all")
                elif 200 <= status < 300 and status != 202:
                    return receive(response)
                else:
                    self._refuse(response)
        raise self._failure(
            SetupError,
            f"{_host(request.url)} redirects in a circle, {HOPS} times and more",
            code="redirect",
            next_step=f"Open the address of {self.owner} in a browser and enter the one where it ends.",
        )

    def _send(self, request: requests.PreparedRequest) -> requests.Response:
        try:
            return self._adapter.send(request, stream=True, timeout=(self.connect_timeout, self.read_timeout), verify=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # "from None": the texts of these errors hold whole addresses and header values
            raise self._unreached(error, request) from None

    def _redirected(self, request: requests.PreparedRequest, response: requests.Response, *, goes_anywhere: bool) -> requests.PreparedRequest:
        """The request that a redirect asks for, if it stays at the same scheme, host and port or `goes_anywhere`. Raises SetupError.

        Another host gets nothing that was meant for the first, and is not asked in the clear unless the allow-list names it.
        """
        target = urljoin(request.url, response.headers.get("Location", ""))
        place = self._place(target)
        stays = place == self._place(request.url)
        may_go = stays or (goes_anywhere and (place[0] == "https" or self.lists(target)))
        if request.method not in ("GET", "HEAD") or not may_go:
            raise self._failure(
                SetupError,
                f"{_host(request.url)} answered {response.status_code} and wants to send us to {target.partition('?')[0]}",
                code="redirect",
                next_step=f"If that is the right place, enter it as the address of {self.owner}.",
            )
        followed = request.copy()
        followed.url = target
        if not stays:
            followed.headers = CaseInsensitiveDict({name: request.headers[name] for name in _ANYBODYS if name in request.headers})
        return followed

    # ------------------------------------------------------------------------------------------------------ requests

    def _prepare(
        self,
        method: str,
        url: str,
        params: Params,
        headers: Mapping[str, str] | None,
        auth: tuple[str, str] | None,
        payload: Any,
        file: BinaryIO | None,
        form: Mapping[str, str] | None,
    ) -> requests.PreparedRequest:
        """The request as it will be sent. Raises SetupError for an address or a header that cannot be used."""
        self._place(url)
        sent = CaseInsensitiveDict({"User-Agent": self.user_agent, "Accept": "*/*", "Accept-Encoding": "gzip"})
        sent.update(headers or {})
        if auth:
            pair = b64encode(f"{auth[0]}:{auth[1]}".encode()).decode()
            self.redact.learn(auth[1], pair)
            sent["Authorization"] = f"Basic {pair}"
        body: bytes | BinaryIO | None = file
        if payload is not None:
            try:
                body = json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()
            except ValueError:
                raise DataError("a value that is not a finite number cannot be sent as JSON", code="not-strict-json") from None
            sent["Content-Type"] = "application/json"
        if form is not None:
            body = urlencode(dict(form)).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            request = requests.Request(method, url, headers=dict(sent), params=dict(params or {}), data=body).prepare()
        except requests.exceptions.InvalidHeader:
            raise self._failure(
                SetupError,
                f"a header for {_host(url)} holds a character that HTTP forbids",
                code="bad-header",
                next_step=f"Check the tokens and passwords of {self.owner} for a space or a line break at an end.",
            ) from None
        except (requests.RequestException, ValueError):
            raise self._bad_address(url) from None
        # what the redactor would mask in the address, in a header or in a log-in is a secret
        login = form or {name: value for name, value in (payload.items() if isinstance(payload, Mapping) else ()) if isinstance(value, str)}
        bare = request.url + "".join(f"\n{name}: {value}" for name, value in [*sent.items(), *login.items()])
        if self.redact(bare) != bare and request.url.lower().startswith("http:") and not self.lists(request.url):
            raise self._failure(
                SetupError,
                f"the address of {_host(url)} begins with http://, so a password or token would travel readable by all",
                code="plain-http",
                next_step=f"Write https:// in the address of {self.owner}, or have the host added to OUTBOUND_ALLOW.",
            )
        return request

    def _place(self, url: str) -> tuple[str, str, int | None]:
        """(scheme, host, port) of an address that a connector may use. Raises SetupError."""
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        except ValueError:
            raise self._bad_address(url) from None
        if scheme not in ("http", "https") or not host or "\\" in url or any(c.isspace() or ord(c) < 32 for c in url):
            raise self._bad_address(url)
        if parts.username is not None or parts.password is not None:
            raise self._failure(
                SetupError,
                f"the address of {host} holds a user name or password before the @",
                code="bad-address",
                next_step=f"Take them out of the address of {self.owner}, and enter them in their own fields.",
            )
        return scheme, host, port or _default_port(scheme)

    def _bad_address(self, url: str) -> SetupError:
        return self._failure(
            SetupError,
            f"{url!r} is not an address that can be asked",
            code="bad-address",
            next_step=f"Correct the address of {self.owner}; it looks like https://data.example.gov.",
        )

    # ------------------------------------------------------------------------------------------------------ failures

    def _failure(self, kind: type[PipelineError], message: str, **more: Any) -> PipelineError:
        """The error, with nothing secret in it."""
        if "next_step" in more:
            more["next_step"] = self.redact(more["next_step"])
        return kind(self.redact(message), **more)

    def _late(self, host: str) -> PipelineError | None:
        """The error to raise if the total deadline is what ended a read."""
        try:
            seconds_left()
        except TimeoutError:
            return self._failure(TransientError, f"{host} did not finish its answer within {seconds_allowed():g} s", code="deadline")
        return None

    def _unreached(self, error: Exception, request: requests.PreparedRequest) -> PipelineError:
        """No status line came: say why."""
        host = _host(request.url)
        if late := self._late(host):
            return late
        cause = _root(error)
        if isinstance(error, requests.exceptions.InvalidURL | urllib3.exceptions.LocationValueError):
            return self._bad_address(request.url)
        if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            return self._failure(TransientError, f"{host} did not take the connection within {self.connect_timeout:g} s", code="connect-timeout")
        if isinstance(cause, NameResolutionError):
            return self._failure(
                TransientError,
                f"the name {host} was not found",
                code="dns",
                next_step=f"Check the spelling of the address of {self.owner}, and this machine's DNS.",
            )
        if isinstance(cause, NewConnectionError):
            why = getattr(cause.__cause__, "strerror", None) or "no connection"
            return self._failure(TransientError, f"{host} could not be reached: {why}", code="unreachable")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._failure(
                SetupError,
                f"the certificate of {host} is not trusted: {cause.verify_message}",
                code="tls-certificate",
                next_step=f"Check the address of {self.owner}, or ask whoever runs {host} to renew its certificate.",
            )
        if isinstance(cause, ssl.SSLError):
            return self._failure(TransientError, f"{host} broke off the encrypted connection: {cause.reason}", code="tls")
        if isinstance(cause, ReadTimeoutError | TimeoutError):
            return self._failure(TransientError, f"{host} gave no answer in time", code="timeout")
        if isinstance(error, UnicodeError):
            return self._failure(SetupError, f"a header for {host} holds a character that HTTP forbids", code="bad-header")
        return self._failure(TransientError, f"{host} closed the connection without an answer", code="no-answer")

    def _refuse(self, response: requests.Response) -> NoReturn:
        """Raise what a status other than success means."""
        status, host = response.status_code, _host(response.url)
        # An interim status has no body. Reading its end would give the connection back to the pool, and the real answer that
        # may still follow on it would be taken for the answer to the next question.
        said = self._said(response) if status >= 200 else ""
        if status in PASSING:
            reason = f"{status} {response.reason or ''}".strip()
            raise self._failure(
                TransientError,
                f"{host} answered {reason}" + (f": {said}" if said and status != 202 else ""),
                retry_after=_retry_after(response.headers.get("Retry-After")),
                code=f"http-{status}",
            )
        kind = DataError if status in REFUSED_DATA else SetupError if 400 <= status < 500 else TransientError
        raise self._failure(
            kind,
            f"{host} says {status}: {said or response.reason or 'no reason given'}",
            code=f"http-{status}",
            next_step={
                401: f"Check the user name and password of {self.owner}.",
                403: f"Check the user name and password of {self.owner}.",
                404: "Check the resource's id: it may have been retired or replaced.",
                410: "The resource was retired; find its successor and enter its id.",
                413: "Send less at once: smaller chunks, or an upsert in place of a replacement.",
            }.get(status, ""),
        )

    def _said(self, response: requests.Response) -> str:
        """What an error reply says for itself, in one short line; "" if it says nothing that a person can read."""
        try:
            body = b"".join(_Body(self, response, 64 * 1024).pieces("any"))
            said = json.loads(body)
        except (PipelineError, ValueError):
            # The status is the news; an error page that is cut, huge, HTML or plain text adds nothing to it.
            return ""
        return _sentence(said)


class _Body:
    """The body of one response: checked, unpacked, in pieces.

    `proven` becomes True when the transport showed that the end is the end.
    """

    def __init__(self, door: Door, response: requests.Response, limit: int):
        self.door, self.response, self.limit = door, response, limit
        self.host = _host(response.url)
        self.proven = False

    def pieces(self, expect: str) -> Iterator[bytes]:
        """Yield the body. Raises TransientError for a cut, empty or wrong body, DataError for one that is too big."""
        unpacked, first = 0, True
        for piece in self._unpacked():
            if first:
                self._check_kind(expect, piece)
                first = False
            unpacked += len(piece)
            if unpacked > self.limit:
                raise self._too_big("unpacked")
            yield piece
        if first and expect != "any":
            raise self._wrong(f"{self.host} sent an empty body with its {self.response.status_code}", "empty-body")

    def _unpacked(self) -> Iterator[bytes]:
        packing = self.response.headers.get("Content-Encoding", "").strip().lower()
        if packing in ("", "identity"):
            yield from self._wire()
            return
        if packing not in ("gzip", "x-gzip"):
            raise self.door._failure(DataError, f"{self.host} packed its answer as {packing!r}, which was not asked for", code="unknown-encoding")
        inflator = zlib.decompressobj(wbits=31)
        try:
            for packed in self._wire():
                while packed:
                    if inflator.eof:
                        if not packed.strip(b"\0"):
                            break
                        inflator = zlib.decompressobj(wbits=31)
                    piece = inflator.decompress(packed, PIECE)
                    while piece:
                        yield piece
                        # zlib may hold more than PIECE allowed out, even when all of its input is used up
                        full = len(piece) == PIECE and not inflator.eof
                        piece = inflator.decompress(inflator.unconsumed_tail, PIECE) if full else b""
                    packed = inflator.unused_data if inflator.eof else inflator.unconsumed_tail
        except zlib.error as error:
            raise self._wrong(f"the packed body of {self.host} is broken: {error}", "cut-body") from None
        if not inflator.eof:
            raise self._wrong(f"the packed body of {self.host} was cut", "cut-body")
        self.proven = True

    def _wire(self) -> Iterator[bytes]:
        """The bytes as they come, compared at the end with what was declared."""
        raw = self.response.raw
        declared = None if raw.chunked else raw.length_remaining
        if declared is not None and declared > self.limit:
            raise self._too_big("announced")
        arrived = 0
        while True:
            try:
                piece = raw.read(PIECE, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._broken(error, arrived, declared) from None
            if not piece:
                break
            arrived += len(piece)
            if arrived > self.limit:
                raise self._too_big("as sent")
            yield piece
        if declared is not None and arrived != declared:
            raise self._broken(None, arrived, declared)
        self.proven = raw.chunked or declared is not None

    def _broken(self, error: Exception | None, arrived: int, declared: int | None) -> PipelineError:
        if late := self.door._late(self.host):
            return late
        if isinstance(error, ReadTimeoutError | TimeoutError):
            return self._wrong(f"{self.host} stopped sending after {arrived:,} bytes", "timeout")
        root = _root(error) if error else None
        if isinstance(root, OSError):
            return self._wrong(f"{self.host} broke the connection in the middle of the body", "cut-body")
        # http.client keeps back the piece of a chunk that broke
        partial = getattr(root, "partial", b"")
        arrived += len(partial) if isinstance(partial, bytes) else 0
        of = f" of {declared:,}" if declared is not None else ""
        return self._wrong(f"the body of {self.host} was cut: {arrived:,}{of} bytes arrived", "cut-body")

    def _check_kind(self, expect: str, start: bytes) -> None:
        """Refuse HTML with a 200 (a login page, a maintenance page) and whatever else is not what was asked for."""
        if expect == "any":
            return
        declared = self.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        opening = start[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if declared in ("text/html", "application/xhtml+xml") or opening.startswith((b"<!doctype html", b"<html")):
            raise self._wrong(f"{self.host} answered 200 with a web page where {expect.upper()} was asked for", "html-instead")
        if declared not in _ANYTHING and not any(
            declared.endswith(kind) if kind.startswith("+") else declared.startswith(kind) for kind in _TYPES[expect]
        ):
            raise self._wrong(f"{self.host} sent {declared} where {expect.upper()} was asked for", f"not-{expect}")

    def _wrong(self, message: str, code: str) -> PipelineError:
        return self.door._failure(TransientError, message, code=code)

    def _too_big(self, how: str) -> PipelineError:
        return self.door._failure(
            DataError,
            f"the answer of {self.host} is bigger than the {self.limit:,} bytes that it may have ({how})",
            code="too-big",
            next_step="Ask for less at once: a smaller page or window.",
        )


# ---------------------------------------------------------------------------------------------------------------------
# Small things


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.code != "deadline" and (error.retry_after is None or error.retry_after <= LONGEST_NAP)


_backoff = wait_exponential_jitter(multiplier=0.5, max=LONGEST_NAP, jitter=1)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the source asked for, else doubling with jitter."""
    asked = state.outcome.exception().retry_after
    return asked if asked is not None else _backoff(state)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for, given as seconds or as an HTTP date; None if it is absent or means nothing."""
    if not value:
        return None
    seconds = None
    with suppress(ValueError):
        seconds = float(value)
    if seconds is None:
        # not a number, so a date; a text that is neither is no advice
        with suppress(ValueError, TypeError):
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _root(error: BaseException) -> BaseException:
    """The error inside the errors: requests wraps urllib3, which wraps http.client, each in its own way."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in reversed(error.args) if isinstance(part, BaseException)), None)
        if inner is None or inner is error or isinstance(error, NewConnectionError):
            return error
        error = inner


def _sentence(said: Any) -> str:
    """The message of the error shapes that portals use: Socrata's, CKAN's and ArcGIS's {"error": {...}}, or ""."""
    if isinstance(said, list) and said:
        said = said[0]
    if not isinstance(said, dict):
        return ""
    inner = said.get("error")
    source = inner if isinstance(inner, dict) else said
    # MDS and OAuth: a word in "error", the sentence in "error_description"
    text = source.get("message") or source.get("error_description") or (inner if isinstance(inner, str) else "") or ""
    code = source.get("errorCode") or source.get("code") or source.get("__type")
    if not text and "__type" in source:
        # CKAN's Validation Error: field by field what is wrong
        text = "; ".join(
            f"{name}: {' '.join(map(str, said)) if isinstance(said, list) else said}" for name, said in source.items() if name != "__type"
        )
    text = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())[:300]
    return f"{text} ({code})" if text and isinstance(code, str) else text


def _request_id(headers: Mapping[str, str]) -> str:
    return headers.get("X-Socrata-RequestId") or headers.get("X-Request-Id") or ""


def _host(url: str) -> str:
    """The host of an address, with its port if it has one of its own: how a message names the other side."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found
