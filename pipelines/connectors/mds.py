"""Operators of scooters and bicycles, by MDS Provider 0.2 to 2.1: the trips that ended in an hour, and of 2.x what is known of their vehicles.

Files are kept as they came; `pipelines/formats/mds_trips.py` reads them. What a status means of an hour stands in `_told`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

from pipelines.connectors import envelopes
from pipelines.connectors.base import Account, Column, Connector, FetchedFile, FetchRequest, Parameter, Progress, SourceState
from pipelines.connectors.envelopes import Envelope
from pipelines.connectors.http import Door, Downloaded, Manners
from pipelines.errors import DataError, NoService, NotReady, PipelineError, SetupError, TransientError
from pipelines.formats.trip_columns import TRIP_COLUMNS

Version = tuple[int, int]
VERSIONS: tuple[Version, ...] = ((0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1))
AUTH_KINDS = ("oauth", "bearer", "basic", "custom", "none")
VEHICLE_WAYS = ("auto", "each", "all", "none")
ID_RULES = ("", "integers-to-uuid")
#: What a token is called in the answers of token servers.
TOKEN_NAMES = ("access_token", "jwt", "token")
#: Of log-in data, what may stand in a message: hidden, a user "austin" or a scope "trips" would hide half of every address.
NO_SECRETS = frozenset({"grant_type", "scope", "audience", "username"})
#: What a query may ask by; `mds_param_override` gives them other names.
QUERY_NAMES = ("start_time", "end_time", "bbox", "device_id", "vehicle_id")

#: So long after an hour, "no such data" is the end of the matter: the operator did not operate then.
NO_SERVICE_AFTER = timedelta(hours=48)
#: An hour that is not there yet is asked for again after so many seconds.
ASK_AGAIN = 3600.0
#: A token this close to its end is not used for one more question.
TOKEN_MARGIN = 30.0
#: More pages than this, or so many without a trip, are a loop that nobody has seen through.
MOST_PAGES, MOST_EMPTY_PAGES = 10_000, 10
#: So many vehicles are asked for one by one; where more are needed, the list of all is cheaper.
MOST_SINGLE_VEHICLES = 40

#: Said of vehicles, these leave their types open; the trips are there.
NOT_TOLD = frozenset({"http-404", "http-410", "http-400", "http-405", "http-501", "not-mds"})
#: 202 and 102 say "later", which for an hour is an answer.
ANSWERS = frozenset({"http-202", "http-102"})


@dataclass(frozen=True)
class _Question:
    """One question for trips. `hour` is the UTC hour that it asks for, None for a span of time that the version names by two bounds."""

    params: Mapping[str, str | int]
    starts_at: datetime
    ends_at: datetime
    hour: datetime | None = None

    def __str__(self):
        if self.hour:
            return f"the hour {self.hour:%Y-%m-%d %H}:00 UTC"
        return f"{self.starts_at:%Y-%m-%d %H:%M} to {self.ends_at:%Y-%m-%d %H:%M} UTC"


@dataclass
class _Token:
    value: str
    ends_at: float  # by the monotonic clock


class MDS(Connector):
    """An operator's MDS Provider API. The resource is `trips`; the address is upstream's `mds_api_url`, without `/trips`."""

    kind = "mds"
    label = "MDS Provider (mobility operators, 0.2 to 2.1)"
    can_fetch = True
    can_count = False
    address_hint = "https://mds.operator.example/austin"
    parameters = (
        Parameter("version", "MDS version", required=True, default="0.2", help="As the operator serves it: 0.2, 0.3, 0.4, 1.0 to 1.2, 2.0 or 2.1."),
        Parameter("provider_id", "Provider id", help="The operator's UUID in the MDS registry."),
        Parameter("provider_name", "Provider name", help="For trips that do not say it themselves (2.x)."),
        Parameter("auth_type", "Log-in", required=True, default="bearer", help="oauth, bearer, basic, custom (own headers) or none."),
        Parameter("token", "Token", secret=True, help="For bearer."),
        Parameter(
            "auth_data",
            "Log-in data",
            secret=True,
            help='JSON. basic: {"username": "…", "password": "…"}. oauth: the fields that the token server wants, as '
            '{"client_id": "…", "client_secret": "…", "grant_type": "client_credentials", "scope": "…"}, or an e-mail and a password.',
        ),
        Parameter("auth_headers", "Secret headers", secret=True, help='JSON: {"X-Api-Key": "…"}. All that custom has; beside another log-in too.'),
        Parameter("token_url", "Address of the token server", help="For oauth."),
        Parameter("auth_token_res_key", "Name of the token", help="In its answer. Empty: access_token, jwt or token, whichever is there."),
        Parameter("token_headers", "Headers for the token server", secret=True, help="JSON."),
        Parameter("token_body", "Log-in is sent as", default="form", help="form or json."),
        Parameter("headers", "Further headers", help='JSON, for each request: {"App-Version": "3.0.0"}.'),
        Parameter(
            "mds_param_override",
            "Names of query parameters",
            help='JSON, ours to theirs: {"start_time": "start_time", "end_time": "end_time"}. An empty name leaves it out.',
        ),
        Parameter("paging", "Follow links.next", default="on", help="on or off."),
        Parameter("delay", "Pause before each request (s)", default="0"),
        Parameter("max_attempts", "Attempts", default="3"),
        Parameter("timeout", "Time-out (s)", default="60"),
        Parameter("overlap_hours", "Overlap (h)", default="6", help="0.2 only finds trips that also began in the span: so much earlier it asks."),
        Parameter(
            "vehicles",
            "Vehicles of 2.x",
            default="auto",
            help="Their types stand apart from the trips. each: asked one by one; all: the whole list; auto: what is less; none: not asked.",
        ),
        Parameter("id_rule", "Rule for ids", help="integers-to-uuid for operators whose ids are numbers; else empty."),
        Parameter("atd_mds", "Kept for atd-mds", help="JSON: what its configuration said and nothing here reads; an export gives it back."),
    )

    def __init__(self, account: Account, door: Door):
        super().__init__(account, door)
        self._token: _Token | None = None
        self._uses_long_version = False

    # ---------------------------------------------------------------------------------------------------- the settings

    @property
    def version(self) -> Version:
        """(major, minor) of the MDS version. Raises SetupError for one that there is not."""
        told = self.plain("version")
        found = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", told)
        version = (int(found[1]), int(found[2])) if found else None
        if version not in VERSIONS:
            known = ", ".join(f"{major}.{minor}" for major, minor in VERSIONS)
            raise self._bad("version", f"{told!r} is no version of MDS that we speak", f"one of {known}", code="unknown-version")
        return version

    @property
    def manners(self) -> Manners:
        """How often and how fast this operator is asked."""
        attempts = self._number("max_attempts", least=1)
        return Manners(attempts=int(attempts), delay=self._number("delay"), answers=ANSWERS)

    @property
    def id_rule(self) -> str:
        return self.choice("id_rule", ID_RULES)

    def plain(self, name: str) -> str:
        declared = next(parameter for parameter in self.parameters if parameter.name == name)
        return str(self.account.parameters.get(name, "") or "").strip() or declared.default

    def choice(self, name: str, choices: Iterable[str]) -> str:
        told = self.plain(name).lower()
        if told not in choices:
            raise self._bad(name, f"{told!r} is none of its values", " or ".join(choice for choice in choices if choice))
        return told

    def is_on(self, name: str) -> bool:
        told = self.plain(name).lower()
        if told not in ("on", "true", "yes", "1", "off", "false", "no", "0"):
            raise self._bad(name, f"{told!r} is neither on nor off", "on or off")
        return told in ("on", "true", "yes", "1")

    def _number(self, name: str, least: float = 0) -> float:
        try:
            value = float(self.plain(name))
        except ValueError:
            value = math.nan
        if not least <= value < 1e6:
            raise self._bad(name, f"{self.plain(name)!r} is no number from {least:g} on", "a number")
        return value

    def _table(self, name: str) -> dict[str, str]:
        """A parameter or secret that holds a JSON object: names to texts; {} where it is empty. Raises SetupError, which never shows the value."""
        is_secret = any(parameter.secret for parameter in self.parameters if parameter.name == name)
        told = (self.account.secrets if is_secret else self.account.parameters).get(name) or {}
        if isinstance(told, str):
            try:
                told = json.loads(told) if told.strip() else {}
            except ValueError:
                told = None
        if not isinstance(told, Mapping) or any(isinstance(value, dict | list) for value in told.values()):
            raise self._bad(name, "it is no JSON object of names and texts", 'something like {"name": "text"}')
        table = {str(key): "" if value is None else str(value) for key, value in told.items()}
        if is_secret:
            self.door.redact.learn(*(value for key, value in table.items() if key not in NO_SECRETS))
        return table

    def _bad(self, name: str, what: str, wanted: str, *, code: str = "bad-parameter") -> SetupError:
        label = next(parameter.label for parameter in self.parameters if parameter.name == name)
        return SetupError(
            f"the setting {label!r} ({name}) of provider {self.account.slug} is wrong: {what}",
            code=code,
            next_step=f"Write {wanted} there.",
        )

    # ------------------------------------------------------------------------------------------------------- the log-in

    def _login(self) -> dict[str, str]:
        """The header that shows who asks; {} where secret headers or nothing do. Raises PipelineError."""
        match self.choice("auth_type", AUTH_KINDS):
            case "bearer":
                token = self.account.secrets.get("token", "").strip()
                if not token:
                    raise self._missing("token")
                return {"Authorization": token if token.lower().startswith("bearer ") else f"Bearer {token}"}
            case "basic":
                pair = self._table("auth_data")
                if not pair.get("username"):
                    raise self._missing("auth_data")
                both = b64encode(f"{pair['username']}:{pair.get('password', '')}".encode()).decode()
                self.door.redact.learn(both)
                return {"Authorization": f"Basic {both}"}
            case "oauth":
                if self._token is None or self._token.ends_at - TOKEN_MARGIN <= time.monotonic():
                    self._token = self._new_token()
                return {"Authorization": f"Bearer {self._token.value}"}
            case "custom" if not self._table("auth_headers") and not self._table("headers"):
                raise self._missing("auth_headers")
        return {}

    def _missing(self, name: str) -> SetupError:
        label = next(parameter.label for parameter in self.parameters if parameter.name == name)
        return SetupError(
            f"provider {self.account.slug} logs in by {self.plain('auth_type')} and has no {label.lower()} ({name})",
            code="credentials-missing",
            next_step=f"Enter {label.lower()} of provider {self.account.slug}.",
        )

    def _new_token(self) -> _Token:
        """Ask the token server. Raises PipelineError."""
        url, fields = self.plain("token_url"), self._table("auth_data")
        if not url:
            raise self._missing("token_url")
        if not fields:
            raise self._missing("auth_data")
        how = {"form": fields} if self.choice("token_body", ("form", "json")) == "form" else {"payload": fields}
        host = urlsplit(url).netloc
        asked = time.monotonic()
        try:
            answer = self.door.ask(
                "POST", url, **how, headers={"Accept": "application/json", **self._table("token_headers")}, repeatable=True, expect="json",
                read_timeout=self._number("timeout", least=0.001), manners=self.manners,
            ).json  # fmt: skip
        except PipelineError as error:
            raise self._no_token(error) from None
        told = self.plain("auth_token_res_key")
        found = [answer.get(name) for name in ((told,) if told else TOKEN_NAMES)] if isinstance(answer, dict) else []
        value = next((token for token in found if isinstance(token, str) and token), "")
        if not value:
            # the names only: what stands behind them may be a secret
            names = ", ".join(map(str, answer)) if isinstance(answer, dict) else "no object"
            raise SetupError(
                self.door.redact(f"the token server {host} answered without {told or ' or '.join(TOKEN_NAMES)}; its answer has {names or 'nothing'}"),
                code="no-token",
                next_step=f"Write the right name as the name of the token of provider {self.account.slug}.",
            )
        self.door.redact.learn(value)
        lasts = math.inf
        with suppress(TypeError, ValueError):
            lasts = float(answer.get("expires_in"))
        return _Token(value, asked + lasts)

    def _no_token(self, error: PipelineError) -> PipelineError:
        """What the token server's answer means: its 404 or 202 must never be taken for that of an hour."""
        words, slug = f"the token server gives no token: {error.message}", self.account.slug
        if error.code in ("http-400", "http-401", "http-403"):
            step = f"Check the log-in data of provider {slug}: a client may have been renewed, or lost its scope."
            return SetupError(words, code="credentials-refused", next_step=step)
        if isinstance(error, TransientError):
            return TransientError(words, retry_after=error.retry_after, code="no-token" if error.code in ANSWERS else error.code)
        if not error.code.startswith("http-"):
            return error
        return SetupError(words, code="no-token", next_step=f"Check the address of the token server of provider {slug}.")

    # ----------------------------------------------------------------------------------------------------- the question

    @property
    def _accept(self) -> str:
        """The media type of the version that we want an answer in."""
        major, minor = self.version
        if (major, minor) == (0, 2):
            return "application/vnd.mds.provider+json;version=0.2, application/json;q=0.9"
        number = f"{major}.{minor}"
        if self._uses_long_version:
            number = f"{number}.{self.plain('version').split('.')[2]}" if self.plain("version").count(".") == 2 else f"{number}.0"
        return f"application/vnd.mds{'.provider' if major == 0 else ''}+json;version={number}"

    def _questions(self, request: FetchRequest) -> list[_Question]:
        """What to ask for the window of `request`: one span before 0.4, then one question an hour. Raises SetupError."""
        starts_at, ends_at = request.starts_at, request.ends_at
        if starts_at is None or ends_at is None:
            raise SetupError(
                f"trips of provider {self.account.slug} are to be read without a window, and MDS gives them by the hour in which they ended",
                code="no-window",
                next_step="Set the window column of the pipeline to end_time.",
            )
        starts_at, ends_at = starts_at.astimezone(UTC), ends_at.astimezone(UTC)
        if self.version < (0, 4):
            if self.version == (0, 2):
                # its bounds are of the trip's start and of its end: a trip over the bound would be in no window at all
                lower, upper = ("start_time", _seconds(starts_at - self.overlap)), ("end_time", _seconds(ends_at))
            else:
                lower, upper = ("min_end_time", _seconds(starts_at) * 1000), ("max_end_time", _seconds(ends_at) * 1000)
            named = [(self._renamed("start_time", lower[0]), lower[1]), (self._renamed("end_time", upper[0]), upper[1])]
            return [_Question({name: value for name, value in named if name}, starts_at, ends_at)]
        hours = []
        hour = _hour(starts_at)
        while hour < ends_at:
            name = self._renamed("end_time", "end_time")
            hours.append(_Question({name: f"{hour:%Y-%m-%dT%H}"} if name else {}, hour, hour + timedelta(hours=1), hour))
            hour += timedelta(hours=1)
        return hours

    @property
    def overlap(self) -> timedelta:
        return timedelta(hours=self._number("overlap_hours"))

    def _renamed(self, name: str, usual: str) -> str:
        """What this operator calls a query parameter; "" where it is to be left out. `usual` is the version's own name for it."""
        names = self._table("mds_param_override")
        if unknown := sorted(set(names) - {*QUERY_NAMES, "min_end_time", "max_end_time"}):
            raise self._bad("mds_param_override", f"nothing is asked by {', '.join(unknown)}", f"names out of {', '.join(QUERY_NAMES)}")
        return names.get(name, names.get(usual, usual))

    def url(self, path: str) -> str:
        return f"{self.web_address}/{path}"

    def _resource(self, resource: str) -> str:
        name = resource.strip("/").lower()
        if name != "trips":
            raise SetupError(
                f"{resource!r} is nothing that is read from an MDS provider here",
                code="bad-resource",
                next_step="Write trips as the pipeline's resource.",
            )
        return name

    def _headers(self) -> dict[str, str]:
        """Own headers, then what we accept, then secrets and the log-in, which win."""
        merged: dict[str, str] = {}
        for headers in (self._table("headers"), {"Accept": self._accept}, self._table("auth_headers"), self._login()):
            lowered = {name.lower() for name in headers}
            merged = {**{name: value for name, value in merged.items() if name.lower() not in lowered}, **headers}
        return merged

    def get(self, url: str, params: Mapping[str, str | int] | None, path: Path) -> Downloaded:
        """The answer as a file. A refused token is renewed once, a refused version spelled out once. Raises PipelineError as the door does."""
        has_renewed = False
        while True:
            try:
                return self.door.download(
                    url, path, params=params, headers=self._headers(), expect="json", read_timeout=self._number("timeout", least=0.001),
                    manners=self.manners,
                )  # fmt: skip
            except SetupError as error:
                if error.code in ("http-401", "http-403") and self._token and not has_renewed:
                    self.door.tell("info", f"{urlsplit(url).netloc} refuses the token of provider {self.account.slug}; a new one is asked for")
                    has_renewed, self._token = True, None
                elif error.code == "http-406" and self.version >= (0, 3) and not self._uses_long_version:
                    # some operators only know "1.2.0", where others only know "1.2"
                    self._uses_long_version = True
                else:
                    raise

    # ----------------------------------------------------------------------------------------------------- the verbs

    def test(self) -> str:
        """Ask for the trips of an hour of the day before yesterday; "not there" is an answer too, for it comes after the log-in."""
        now = datetime.now(UTC)
        hour = _hour(now) - timedelta(hours=47)
        [question] = self._questions(FetchRequest(columns=(), starts_at=hour, ends_at=hour + timedelta(hours=1)))
        host = urlsplit(self.web_address).netloc
        with tempfile.TemporaryDirectory(prefix="mds-") as folder:
            path = Path(folder, "trips.json")
            try:
                self.get(self.url("trips"), question.params, path)
            except PipelineError as error:
                if error.code in ("http-404", *ANSWERS):
                    return f"{host} takes the log-in, and has no trips of {question} ({error.code[5:]}). If it should, check the address."
                raise self.told(error, question, now) from None
            found = envelopes.read(path, "trips")
        if not found.place:
            raise self.no_list("trips", found.members)
        return f"{host} answers as MDS {self.short_version}; {found.items:,} trips came for {question}"

    def describe(self, resource: str) -> SourceState:
        """The columns of a trip. No request: an MDS provider says nothing of itself."""
        self._resource(resource)
        return SourceState(
            title=f"Trips of {self.plain('provider_name') or self.account.slug}",
            columns=tuple(Column(name, kind) for name, kind in TRIP_COLUMNS),
            key="trip_id",
            metadata={"version": self.short_version, "provider_id": self.plain("provider_id")},
        )

    @property
    def short_version(self) -> str:
        return "{}.{}".format(*self.version)

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield the pages of trips of the window, then, of 2.x, the answers about their vehicles (role "vehicles").

        Raises NotReady while the operator has not finished an hour of it, and NoService where it has nothing of any hour.
        """
        questions = self._questions(request)
        fetch = _Fetch(self, self.url(self._resource(resource)), request, workdir, progress)
        absent: list[NoService] = []
        for question in questions:
            try:
                yield from fetch.trips(question)
            except NoService as error:
                absent.append(error)
        if len(absent) == len(questions):
            raise absent[0]
        for error in absent:
            self.door.tell("warning", error.message)
        if self.version >= (2, 0):
            yield from fetch.vehicles(self.choice("vehicles", VEHICLE_WAYS))

    # ------------------------------------------------------------------------------------------------ what it all means

    def told(self, error: PipelineError, question: _Question, now: datetime) -> PipelineError:
        """What an answer says of an hour: the error to raise."""
        host, slug = urlsplit(self.web_address).netloc, self.account.slug
        said = error.message
        match error.code:
            case "http-404":
                settled = question.ends_at + NO_SERVICE_AFTER
                if now < settled:
                    wait = min(ASK_AGAIN, (settled - now).total_seconds() + 1)
                    words = f"{host} has no trips of {question} yet (404), or did not operate then"
                    return NotReady(words, retry_after=wait, code="not-ready")
                if self.version < (0, 4):
                    return SetupError(
                        f"{host} knows no trips of {question} (404), which MDS {self.short_version} has no meaning for: {said}",
                        code="http-404",
                        next_step=f"Check the address of provider {slug}.",
                    )
                hours = NO_SERVICE_AFTER.total_seconds() / 3600
                return NoService(
                    f"{host} has nothing of {question} (404), {hours:g} hours after it: it did not operate then",
                    code="no-service",
                    next_step=f"If it did operate, check the address of provider {slug}.",
                )
            case "http-202" | "http-102":
                wait = error.retry_after if isinstance(error, TransientError) else None
                words = f"{host} has not finished {question} ({error.code[5:]}); it says to ask again later"
                return NotReady(words, retry_after=wait, code="not-ready")
            case "http-400":
                return SetupError(
                    f"{host} does not understand what it is asked for {question}: {said}",
                    code="request-refused",
                    next_step=f"Check the MDS version and the names of query parameters of provider {slug}, and its first day.",
                )
            case "http-410":
                return SetupError(
                    f"{host} says that {question} is gone for good: {said}",
                    code="gone",
                    next_step="Ask the operator whether it still keeps these trips; if not, let the pipeline begin later.",
                )
        return self.refused(error)

    def refused(self, error: PipelineError) -> PipelineError:
        """What an answer says of us, whatever was asked: the error to raise."""
        host, slug, said = urlsplit(self.web_address).netloc, self.account.slug, error.message
        match error.code:
            case "http-401" | "http-403":
                return SetupError(
                    f"{host} refuses the log-in of provider {slug}: {said}",
                    code="credentials-refused",
                    next_step=f"Check the log-in data of provider {slug}.",
                )
            case "http-406":
                return SetupError(
                    f"{host} does not speak MDS {self.short_version}: {said}",
                    code="version-refused",
                    next_step=f"Set the version of provider {slug} to one that it speaks.",
                )
            case "http-429":
                wait = error.retry_after if isinstance(error, TransientError) else None
                return TransientError(f"{host} is asked too often: {said}", retry_after=wait, code="rate-limited")
        return error

    def no_list(self, name: str, members: Mapping[str, Any]) -> DataError:
        """The error for an answer that has no list `name`, only other `members`."""
        names = _printable(", ".join(map(str, members)))[:200] or "nothing"
        said = members.get("error_description") or members.get("error") or members.get("message")
        told = f": {_printable(said)[:300]}" if isinstance(said, str) else ""
        return DataError(
            self.door.redact(f"{urlsplit(self.web_address).netloc} sent no list of {name}; its answer has {names}{told}"),
            code="not-mds",
            next_step=f"Check the address and the version of provider {self.account.slug}.",
        )

    def next_page(self, link: str, current: str) -> str:
        """The address of the next page, if our log-in may go there. Raises SetupError."""
        base, address = urlsplit(self.web_address), urljoin(current, link)
        ours, theirs = _place(self.web_address), _place(address)
        if theirs and (theirs[0], theirs[1], ours[0]) == ("http", ours[1], "https") and theirs[2] in (80, ours[2]):
            # written by a server behind a gateway, which does not know that it is spoken to by TLS
            return urlunsplit(urlsplit(address)._replace(scheme="https", netloc=base.netloc))
        if theirs != ours:
            where = _printable(f"{theirs[0]}://{theirs[1]}:{theirs[2]}")[:200] if theirs else "no address at all"
            raise SetupError(
                self.door.redact(f"the next page is said to be at {where}; our log-in for {base.netloc} goes nowhere else"),
                code="foreign-link",
                next_step=f"If that is the same operator, enter it as the address of provider {self.account.slug}; else ask them.",
            )
        return address


class _Fetch:
    """The files of one window: counts pages and remembers which vehicles are known."""

    def __init__(self, source: MDS, url: str, request: FetchRequest, workdir: Path, progress: Progress):
        self.source, self.url, self.request, self.workdir, self.progress = source, url, request, workdir, progress
        self.arrived = 0
        #: 2.x: the vehicles that the trips were made with, in their order; those that were told of
        self.devices: dict[str, None] = {}
        self.known: set[str] = set()
        self._told: set[str] = set()
        self._files: Counter[str] = Counter()

    @property
    def now(self) -> datetime:
        return self.request.asked_at or datetime.now(UTC)

    def trips(self, question: _Question) -> Iterator[FetchedFile]:
        """The pages of one question. Raises PipelineError in the words of MDS."""
        has_vehicles_apart = self.source.version >= (2, 0)
        try:
            for file in self._pages(self.url, question.params, "trips", self._remember_device if has_vehicles_apart else None, question.hour):
                self.arrived += file.rows
                self.progress(self.arrived, None)
                yield file
        except PipelineError as error:
            raise self.source.told(error, question, self.now) from None

    def _remember_device(self, trip: Any) -> None:
        device = trip.get("device_id") if isinstance(trip, dict) else None
        if isinstance(device, str) and device:
            self.devices[device] = None

    # ---------------------------------------------------------------------------------------------------- vehicles

    def vehicles(self, way: str) -> Iterator[FetchedFile]:
        """What the operator says of the vehicles of the trips, each once. One that it does not know is told, and no reason to stop."""
        if way == "none" or not self.devices:
            return
        if way == "all" or (way == "auto" and len(self.devices) > MOST_SINGLE_VEHICLES):
            yield from self._vehicles(self.source.url("vehicles"))
        missing = [device for device in self.devices if device not in self.known]
        for device in [] if way == "all" else missing[:MOST_SINGLE_VEHICLES] if way == "auto" else missing:
            yield from self._vehicles(self.source.url(f"vehicles/{quote(device, safe='', errors='replace')}"))
        if unknown := [device for device in self.devices if device not in self.known]:
            shown = _printable(", ".join(unknown[:3]))[:200] + " …" * (len(unknown) > 3)
            self._warn_once(f"nothing is known of {len(unknown):,} of the {len(self.devices):,} vehicles, so their type is left open: {shown}")

    def _vehicles(self, url: str) -> Iterator[FetchedFile]:
        try:
            yield from self._pages(url, None, "vehicles", self._remember_vehicle, None)
        except PipelineError as error:
            if error.code not in NOT_TOLD:
                raise self.source.refused(error) from None
            self.source.door.tell("debug", error.message)

    def _remember_vehicle(self, vehicle: Any) -> None:
        device = vehicle.get("device_id") if isinstance(vehicle, dict) else None
        if isinstance(device, str):
            self.known.add(device)

    # ------------------------------------------------------------------------------------------------------- pages

    def _pages(
        self,
        url: str,
        params: Mapping[str, str | int] | None,
        name: str,
        on_item: Callable[[Any], None] | None,
        hour: datetime | None,
    ) -> Iterator[FetchedFile]:
        """Yield the pages of a list, by its `links.next`. Raises DataError("paging-loop") for one that comes again."""
        source, follows = self.source, name != "trips" or self.source.is_on("paging")
        seen = {url if not params else f"{url}?{urlencode(params)}"}
        before, number, empty = "", 0, 0
        while True:
            number += 1
            path = self.workdir / self._name(name)
            try:
                got = source.get(url, params, path)
            except SetupError as error:
                if error.code != "http-404" or number == 1:
                    raise
                raise TransientError(f"the page before leads to page {number} of {name}, which is not there", code="page-missing") from None
            marks = _Marks(on_item)
            envelope = self._read(path, name, marks)
            empty = 0 if envelope.items else empty + 1
            if envelope.items and marks.fingerprint == before:
                raise self._loop(name, number, "it is the page before once more")
            link = _next_link(envelope)
            yield self._file(path, got, envelope, name, url, params, hour, number)
            if not link:
                return
            if not follows:
                self._warn_once(f"the {name} go on after the first page, and paging is off for provider {source.account.slug}")
                return
            if name == "trips" and source.version > (0, 4):
                self._warn_once(f"the trips come by pages, which MDS {source.short_version} does not know; they are followed")
            url, params, before = source.next_page(link, url), None, marks.fingerprint
            if url in seen:
                raise self._loop(name, number, "its next page is one that was read already")
            if number >= MOST_PAGES or empty >= MOST_EMPTY_PAGES:
                raise self._loop(name, number, f"it is the last of {empty} that are empty" if empty else f"there are more than {MOST_PAGES:,}")
            seen.add(url)

    def _name(self, name: str) -> str:
        """trips.json, trips-00002.json …: the first as atd-mds called the only one."""
        self._files[name] += 1
        return f"{name}.json" if self._files[name] == 1 else f"{name}-{self._files[name]:05d}.json"

    def _read(self, path: Path, name: str, on_item: Callable[[Any], None]) -> Envelope:
        """The page's envelope. Raises DataError where it has no such list."""
        try:
            envelope = envelopes.read(path, name, on_item)
        except DataError as error:
            if error.code != "not-an-object":
                raise
            raise self.source.no_list(name, {}) from None
        if not envelope.place:
            raise self.source.no_list(name, envelope.members)
        return envelope

    def _loop(self, name: str, number: int, why: str) -> DataError:
        slug = self.source.account.slug
        return DataError(
            f"the pages of {name} go round in a circle. Of page {number:,}: {why}",
            code="paging-loop",
            next_step=f"Tell the operator. If its first page holds the whole hour, turn paging off for provider {slug}.",
        )

    def _file(
        self,
        path: Path,
        got: Downloaded,
        envelope: Envelope,
        name: str,
        url: str,
        params: Mapping[str, str | int] | None,
        hour: datetime | None,
        number: int,
    ) -> FetchedFile:
        source, request = self.source, self.request
        payload_version = _printable(str(envelope.members.get("version") or ""))
        content_type = got.headers.get("Content-Type", "")
        self._compare_versions(content_type, payload_version)
        origin = url if not params else f"{url}?{urlencode(params)}"
        metadata = {
            "provider": source.account.slug,
            "provider_id": source.plain("provider_id"),
            "provider_name": source.plain("provider_name"),
            "version": source.short_version,
            "payload_version": payload_version[:40],
            "content_type": content_type[:200],
            "starts_at": _iso(request.starts_at),
            "ends_at": _iso(request.ends_at),
            "hour": f"{hour:%Y-%m-%dT%H}" if hour else "",
            "overlaps": self._overlaps,
            "id_rule": source.id_rule,
            "page": number,
            "request_id": got.request_id,
            **({"role": name} if name != "trips" else {}),
        }
        return FetchedFile(path.name, path, envelope.items, got.bytes, got.sha256, source.door.redact(origin), metadata)

    @property
    def _overlaps(self) -> bool:
        """Whether more was asked for than the window: 0.2's overlap, or whole hours of a window that has none.

        A trip that ended outside of the window then belongs to another block, which asks for it as well.
        """
        version, bounds = self.source.version, (self.request.starts_at, self.request.ends_at)
        return version == (0, 2) or (version >= (0, 4) and any(_hour(bound.astimezone(UTC)) != bound for bound in bounds))

    def _compare_versions(self, content_type: str, payload_version: str) -> None:
        """Say once what is told of another kind or version than was asked for."""
        ours = self.source.short_version
        kind = content_type.partition(";")[0].strip().lower()
        if kind and not kind.endswith(("/json", "+json")):
            self._warn_once(f"JSON was asked for, and the Content-Type of the answer says {kind[:40]}")
        found = re.search(r";\s*version\s*=\s*\"?([\d.]+)", content_type)
        for told, where in ((found[1] if found else "", "Content-Type"), (payload_version, "body")):
            if told and ".".join(told.split(".")[:2]) != ours:
                self._warn_once(f"MDS {ours} was asked for, and the {where} of the answer says {told[:20]}")

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.source.door.tell("warning", text)


class _Marks:
    """Takes the items of a page on their way and makes a fingerprint of their ids: a page that comes again may have other links."""

    def __init__(self, on_item: Callable[[Any], None] | None):
        self._digest = hashlib.blake2b(digest_size=16)
        self._on_item = on_item

    def __call__(self, item: Any) -> None:
        if isinstance(item, dict):
            self._digest.update(f"{item.get('trip_id') or item.get('device_id')}\n".encode("utf-8", "surrogatepass"))
        if self._on_item:
            self._on_item(item)

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()


def _next_link(envelope: Envelope) -> str:
    links = envelope.members.get("links")
    link = links.get("next") if isinstance(links, dict) else None
    return link.strip() if isinstance(link, str) else ""


def _place(url: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an address; None for what is none."""
    try:
        parts = urlsplit(url)
        return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or (443 if parts.scheme.lower() == "https" else 80)
    except ValueError:
        return None


def _printable(text: str) -> str:
    """A stranger's text without what no database keeps: control letters, halves of letters."""
    return "".join(filter(str.isprintable, text))


def _seconds(when: datetime) -> int:
    return int(when.timestamp())


def _hour(when: datetime) -> datetime:
    return when.replace(minute=0, second=0, microsecond=0)


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
