"""`providers_*.json` and `settings_*.json` of atd-mds (City of Austin), plain or encrypted with Fernet, from a file or `s3://bucket/key`:
the operators, each with a pipeline of its trips hour by hour, and the portal that they are published to. Import both together. Its
`.env` leads to both, and GeoJSON files of areas that are named with them are added to the trips.

Nothing is executed: a log-in or a client that was a Python function is told, and its operator needs log-in headers of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pipelines.connectors.mds import MDS, QUERY_NAMES
from pipelines.formats import atd_trips
from pipelines.formats.trip_columns import TRIP_COLUMNS
from pipelines.importers import json_lines
from pipelines.importers.plan import DATASET, KEEP, PIPELINE, PROVIDER, Plan, Problem, Step, Wanted, suggestion
from pipelines.importers.portals import FOUR_BY_FOUR, LIKE_AN_ID, NOT_AN_ID, Portal, as_slug, as_title, portal_at

NAME = "atd-mds providers_*.json and settings_*.json"
DATASET_SLUG, DATASET_TITLE = "shared-micromobility-trips", "Shared Micromobility Vehicle Trips"
#: Its blocks were hours of this clock.
TIME_ZONE = "America/Chicago"
#: So long after an hour its jobs asked for it: operators settle their trips late.
SETTLE_MINUTES = 1800
KEY = ["provider_id", "trip_id"]

#: Its words for the ways to log in, by ours.
AUTH_TYPES = {"oauth": "OAuth", "bearer": "Bearer", "basic": "Basic", "custom": "Custom"}
#: Each key of an operator, with what stands there.
KEYS: dict[str, tuple[type, ...]] = {
    "auth_type": (str,),
    "token": (str,),
    "auth_data": (dict, str),
    "token_url": (str,),
    "auth_token_res_key": (str,),
    "request": (dict,),
    "mds_api_url": (str,),
    "version": (str,),
    "headers": (dict,),
    "paging": (bool,),
    "delay": (int, float),
    "max_attempts": (int,),
    "interval": (int, float),
    "timeout": (int, float),
    "mds_param_override": (dict,),
    "provider_id": (str,),
    "provider_name": (str,),
    "time_format": (str,),
}
SETTINGS = (
    "HASURA_ENDPOINT", "HASURA_ADMIN_KEY", "SOCRATA_DATA_ENDPOINT", "SOCRATA_DATASET", "SOCRATA_APP_TOKEN", "SOCRATA_KEY_ID",
    "SOCRATA_KEY_SECRET",
)  # fmt: skip
NOT_NEEDED = ("HASURA_ENDPOINT", "HASURA_ADMIN_KEY")
#: Our parameter of each of its keys that is taken as it is, as text.
TAKEN = {
    "auth_type": "auth_type",
    "token_url": "token_url",
    "auth_token_res_key": "auth_token_res_key",
    "version": "version",
    "provider_id": "provider_id",
    "provider_name": "provider_name",
    "delay": "delay",
    "max_attempts": "max_attempts",
}
#: The parameter that keeps what only atd-mds reads, so that an export gives it back.
KEPT = "atd_mds"
#: A client or log-in that is code has a name like these.
_CODE = re.compile(r"custom|callable|function|client|class", re.IGNORECASE)
#: A header of such a name carries a secret.
_SECRET_HEADER = re.compile(r"auth|key|token|secret|passw|cookie|signature|session|credential", re.IGNORECASE)
_PROVIDERS = re.compile(r'"(?:mds_api_url|auth_type)"\s*:')
_SETTINGS = re.compile(rf'"(?:{"|".join(SETTINGS)})"\s*:')
_WORDS = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list", type(None): "null"}


def recognises(path: str, text: str) -> bool:
    """Whether it is an object with the keys of an operator or of the settings."""
    return text.lstrip().startswith("{") and bool(_PROVIDERS.search(text) or _SETTINGS.search(text))


def read(path: str, text: str) -> Plan:
    """What one file wants; see `read_all`."""
    return read_all([(path, text)])


def read_all(files: Iterable[tuple[str, str]]) -> Plan:
    """What the files want together. All that is wrong with them is in `problems` and `warnings`; nothing is raised."""
    return _Reader().read(files)


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.notes: list[str] = []

    def read(self, files: Iterable[tuple[str, str]]) -> Plan:
        operators: list[_Operator] = []
        portals: list[tuple[Wanted, str]] = []
        for path, text in files:
            try:
                document = json_lines.parse(text)
            except json_lines.NotJSON as error:
                self._problem(path, error.line, "", f"This is not JSON: {error.message}.", "Correct this line.")
                continue
            for again in document.twice:
                self._problem(path, again.line, again.path, f"It stands here twice; first on line {again.first}.", "Keep one of the two.")
            if any(name in SETTINGS for name in document.value):
                portals += self._settings(path, document)
            else:
                operators += self._operators(path, document)
        if len({(portal.slug, resource) for portal, resource in portals}) > 1:
            portal, _ = portals[1]
            self._problem(
                portal.file, portal.line, "SOCRATA_DATASET", "Another of these files names another portal.", "Import the stages one by one."
            )
        self._tell(operators, portals)
        wanted = [*(portal for portal, _ in portals[:1]), *(one for operator in operators for one in operator.wanted(*portals[:1]))]
        if operators:
            first = operators[0]
            words = {"title": DATASET_TITLE, "columns": dict(_columns())}
            wanted.append(Wanted(DATASET, DATASET_SLUG, {}, first.path, first.line, first=words, is_shared=True))
        return Plan(tuple(wanted), tuple(self.problems), tuple(self.notes) if not self.problems else (), warnings=tuple(self.warnings))

    def _tell(self, operators: list[_Operator], portals: list[tuple[Wanted, str]]) -> None:
        if operators and not portals:
            self.notes.append("Without settings_*.json nothing is published: import it together with this file to name the portal.")
        if portals and not operators:
            self.notes.append("The settings name the portal only: import them together with providers_*.json, so that its pipelines publish there.")
        if operators:
            self.notes.append(
                f"Each hour is fetched {SETTLE_MINUTES // 60} hours after its end, as the jobs of atd-mds did, and counts by the trip's end; "
                "the hours that are owed begin with today: a pipeline's `starts_on` makes it owe earlier ones."
            )
            self.notes.append("The nightly heal and resync and the monthly report that ran beside it: python3 manage.py upkeep --presets")

    # the settings

    def _settings(self, path: str, document: json_lines.Document) -> Iterator[tuple[Wanted, str]]:
        """The portal, and the dataset there."""
        before = len(self.problems)
        said: dict[str, str] = {}
        for name, value in document.value.items():
            line = document.lines[name]
            if name not in SETTINGS:
                self._stranger(path, line, name, SETTINGS, "The settings")
            elif value is not None and not isinstance(value, str):
                self._problem(path, line, name, f"{_kind(value)} stands where text is wanted.", "Write it in quotes.")
            elif value:
                said[name] = value.strip()
        if left := [name for name in NOT_NEEDED if name in said]:
            self.notes.append(f"Not needed here, and left out: {', '.join(left)}. Trips go straight into the warehouse.")
        host, resource = said.get("SOCRATA_DATA_ENDPOINT", ""), said.get("SOCRATA_DATASET", "")
        if not host and not resource:
            return
        for name, value, example in (
            ("SOCRATA_DATA_ENDPOINT", host, '"data.austintexas.gov"'),
            ("SOCRATA_DATASET", resource, '"7d8e-dm7r"'),
        ):
            if not value:
                self._problem(path, document.lines.get(name, 1), name, "It is needed, to publish.", f'Write "{name}": {example}.')
        portal: Portal | None = None
        try:
            portal = portal_at(host) if host else None
        except ValueError as error:
            self._problem(path, document.lines["SOCRATA_DATA_ENDPOINT"], "SOCRATA_DATA_ENDPOINT", str(error), 'Write it like "data.austintexas.gov".')
        if resource and not FOUR_BY_FOUR.fullmatch(resource):
            self._problem(path, document.lines["SOCRATA_DATASET"], "SOCRATA_DATASET", NOT_AN_ID, LIKE_AN_ID)
        if len(self.problems) > before or portal is None:
            return
        places = {"app_token": "SOCRATA_APP_TOKEN", "password": "SOCRATA_KEY_SECRET"}
        lines = {f"secrets.{name}": document.lines[key] for name, key in places.items() if key in said}
        wanted = portal.wanted(
            file=path,
            line=document.lines["SOCRATA_DATA_ENDPOINT"],
            lines={"base_url": document.lines["SOCRATA_DATA_ENDPOINT"], **lines},
            values={"parameters": {"user": said["SOCRATA_KEY_ID"]}} if "SOCRATA_KEY_ID" in said else {},
            secrets={name: said[key] for name, key in places.items() if key in said},
        )
        yield wanted, resource

    # the operators

    def _operators(self, path: str, document: json_lines.Document) -> Iterator[_Operator]:
        seen: dict[str, str] = {}
        for name, said in document.value.items():
            line = document.lines[name]
            slug = slug_of(name)
            if not isinstance(said, dict):
                self._problem(
                    path, line, name, f"{_kind(said)} stands where an operator's object is wanted.", 'Write it like "bird": {"auth_type": …}.'
                )
            elif not slug:
                self._problem(path, line, name, "This name gives no name for a provider.", "Write letters or digits.")
            elif slug in seen:
                self._problem(path, line, name, f"It would have the same name here as {seen[slug]!r}: {slug}.", "Give one of the two another name.")
            else:
                seen[slug] = name
                operator = _Operator(self, path, name, slug, line, document.lines)
                if operator.understand(said):
                    yield operator

    def _stranger(self, path: str, line: int, field: str, known: Iterable[str], what: str) -> None:
        """A key that no version has: near to one that there is, it is a mistake; else it is told and left out."""
        name = field.rpartition(".")[2]
        meant = suggestion(name, known, what=what)
        if meant.startswith("Did you mean"):
            self._problem(path, line, field, f"There is no key {name!r}.", meant)
        else:
            next_step = "Nothing, if you don't miss it; else set it in the admin."
            self.warnings.append(Problem(path, line, field, "No version of this configuration has this key; it is left out.", next_step))

    def _problem(self, path: str, line: int, field: str, message: str, next_step: str) -> None:
        self.problems.append(Problem(path, line, field, message, next_step))


class _Operator:
    """One operator of a providers_*.json on its way to a provider and a pipeline."""

    def __init__(self, reader: _Reader, path: str, name: str, slug: str, line: int, lines: Mapping[str, int]):
        self.reader, self.path, self.name, self.slug, self.line, self.all_lines = reader, path, name, slug, line, lines
        self.base_url = ""
        #: None: not named in the file, so one that an earlier import brought is forgotten.
        self.parameters: dict[str, str | None] = {}
        self.secrets: dict[str, str] = {}
        self.lines: dict[str, int] = {}

    def understand(self, said: dict[str, Any]) -> bool:
        """Take its keys; whether all is well."""
        before = len(self.reader.problems)
        told = {key: value for key, value in said.items() if self._is_known(key, value)}
        for key, parameter in TAKEN.items():
            self._take(parameter, key, None if key not in told else str(told[key]))
        self._log_in(told)
        self._address(told)
        self._take("paging", "paging", None if "paging" not in told else "on" if told["paging"] else "off")
        self._time_out(told)
        self._headers(told)
        self._override(told)
        version = told.get("version")
        if version is not None and not re.fullmatch(r"(0\.[234]|1\.[012]|2\.[01])(\.\d+)?", version):
            self._wrong("version", f"{version!r} is no version of MDS that is spoken here.", "Write 0.2.0 to 2.1.0, as the operator serves it.")
        kept = {key: told[key] for key in ("interval", "time_format") if key in told}
        if "interval" in told and "timeout" in told:
            kept["timeout"] = told["timeout"]
        if self.slug != self.name:
            kept["name"] = self.name
        self._take(KEPT, "", json.dumps(kept, ensure_ascii=False) if kept else None)
        return len(self.reader.problems) == before

    def wanted(self, portal: tuple[Wanted, str] | None = None) -> list[Wanted]:
        """Its provider and its pipeline; `portal` and the dataset there, where the settings name one."""
        provider = {"kind": "mds", "base_url": self.base_url, "parameters": self.parameters, **({"secrets": self.secrets} if self.secrets else {})}
        first_parameters = {"id_rule": "integers-to-uuid"} if "veo" in self.slug else {}
        stages = ["extract", "standardize", "enrich", "load"]
        publishing = {}
        if portal:
            stages = [*stages, "publish"]
            publishing = {"portal": portal[0].slug, "portal_resource": portal[1], "stages": stages}
        first = {
            "title": f"{as_title(self.name)} trips",
            "resource": "trips",
            "format": "mds_trips",
            "stages": stages,
            "cadence": "hourly",
            "window_column": "end_time",
            "settle_minutes": SETTLE_MINUTES,
            "time_zone": TIME_ZONE,
            "key": KEY,
            "load_mode": "upsert",
            "table": "trips",
            "release": atd_trips.ATD_TRIPS,
            "private_columns": atd_trips.ATD_PRIVATE,
        }
        return [
            Wanted(
                PROVIDER,
                self.slug,
                provider,
                self.path,
                self.line,
                self.lines,
                first={"title": as_title(self.name), "time_zone": TIME_ZONE, "parameters": first_parameters},
                keeps_parameters=True,
            ),
            Wanted(
                PIPELINE,
                f"{self.slug}-trips",
                {"provider": self.slug, "dataset": DATASET_SLUG, **publishing},
                self.path,
                self.line,
                first=first,
                offers=tuple(_offers()),
            ),
        ]

    # its keys

    def _is_known(self, key: str, value: Any) -> bool:
        """Whether the key is one that is taken, with a value that it may have."""
        if key == "request.auth.headers":
            key = "request"  # as its documentation writes it
        if key not in KEYS:
            self._strange(key, value)
            return False
        if value is None:
            return False
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and bool not in KEYS[key]):
            wanted = _WORDS[KEYS[key][0]]
            self._wrong(key, f"{_kind(value)} stands where {wanted} is wanted.", f"Write {wanted} there.")
            return False
        return True

    def _strange(self, key: str, value: Any) -> None:
        field = f"{self.name}.{key}"
        if _CODE.search(key):
            self.reader.warnings.append(
                Problem(
                    self.path,
                    self._line(key),
                    field,
                    "This names code of atd-mds, and nothing of a configuration is executed; it is left out.",
                    "If it made log-in headers, enter them as the provider's log-in headers (auth_headers); else choose its parameters in the admin.",
                )
            )
        else:
            self.reader._stranger(self.path, self._line(key), field, KEYS, "The keys of an operator")

    def _log_in(self, told: dict[str, Any]) -> None:
        kind = told.get("auth_type", "").lower()
        if kind not in AUTH_TYPES:
            given = repr(told["auth_type"]) if kind else "none"
            self._wrong("auth_type", f"The way to log in is {given}.", f"Write one of {', '.join(AUTH_TYPES.values())}.")
            return
        needed = {"oauth": ("token_url", "auth_data"), "bearer": ("token",), "basic": ("auth_data",)}.get(kind, ())
        for key in needed:
            if not told.get(key):
                self._wrong(key, f"{AUTH_TYPES[kind]} needs it.", f'Write "{key}" there, or choose another auth_type.')
        if token := told.get("token"):
            self._seal("token", "token", token)
        data = told.get("auth_data")
        if isinstance(data, dict) and data:
            if kind == "basic" and not data.get("username"):
                self._wrong("auth_data.username", "Basic needs a user name.", 'Write "auth_data": {"username": "…", "password": "…"}.')
            self._seal("auth_data", "auth_data", _sealed_text(data))
        elif data:
            if data != KEEP and not data.startswith("env:"):
                self._wrong("auth_data", "Text stands where an object is wanted.", 'Write it like {"username": "…", "password": "…"}.')
            self._seal("auth_data", "auth_data", data)

    def _address(self, told: dict[str, Any]) -> None:
        address = told.get("mds_api_url", "").strip().rstrip("/")
        try:
            parts = urlsplit(address)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            said = "It is no address of the web." if address else "An operator needs its address."
            self._wrong("mds_api_url", said, 'Write it like "https://mds.operator.example", without /trips.')
            return
        self.base_url = address
        self.lines["base_url"] = self._line("mds_api_url")

    def _time_out(self, told: dict[str, Any]) -> None:
        seconds = told.get("timeout", told.get("interval"))
        key = "timeout" if "timeout" in told else "interval"
        if seconds is not None and not 0 < seconds < 1e6:
            self._wrong(key, "A time-out is a number of seconds above 0.", "Write it like 30, or take it out.")
        self._take("timeout", key, None if seconds is None else _number(seconds))
        if "interval" in told:
            meant = "and so it is taken here"
            if "timeout" in told and told["timeout"] != told["interval"]:
                meant = f"and `timeout` had no effect; here the time-out is {_number(told['timeout'])} s, as `timeout` says"
            self.reader.notes.append(f"{self.name}.interval: atd-mds read its time-out from here, {meant}.")

    def _headers(self, told: dict[str, Any]) -> None:
        headers = told.get("headers") or {}
        private = {name: value for name, value in headers.items() if _SECRET_HEADER.search(name)}
        public = {name: value for name, value in headers.items() if name not in private}
        self._take("headers", "headers", json.dumps(public, ensure_ascii=False) if public else None)
        if private:
            self._seal("auth_headers", "headers", _sealed_text(private))
        elif told.get("auth_type", "").lower() == "custom":
            self.reader.notes.append(
                f"{self.name}: its log-in was a function of atd-mds; enter the headers that it made as the provider's secret headers (auth_headers)."
            )
        further = told.get("request") or {}
        auth = further.get("auth") if isinstance(further.get("auth"), dict) else {}
        if token_headers := auth.get("headers"):
            if isinstance(token_headers, dict):
                self._place("token_headers", "request.auth.headers", _sealed_text(token_headers))
            else:
                self._wrong("request.auth.headers", f"{_kind(token_headers)} stands where an object is wanted.", "Write names and texts.")
        else:
            self._place("token_headers", "request", None)

    def _override(self, told: dict[str, Any]) -> None:
        names = told.get("mds_param_override") or {}
        for name, real in names.items():
            if name not in QUERY_NAMES:
                self._wrong(f"mds_param_override.{name}", f"Nothing is asked by {name!r}.", suggestion(name, QUERY_NAMES, what="The names"))
            elif not isinstance(real, str):
                self._wrong(f"mds_param_override.{name}", f"{_kind(real)} stands where text is wanted.", "Write the operator's own name.")
        self._take("mds_param_override", "mds_param_override", json.dumps(names, ensure_ascii=False) if names else None)

    # where it goes

    def _take(self, parameter: str, key: str, value: str | None) -> None:
        self.parameters[parameter] = value
        if key:
            self.lines[f"parameters.{parameter}"] = self._line(key)

    def _seal(self, secret: str, key: str, value: str) -> None:
        self.secrets[secret] = value
        self.lines[f"secrets.{secret}"] = self._line(key)

    def _place(self, name: str, key: str, value: str | None) -> None:
        """As a secret or as a parameter, whichever the connector says that it is."""
        if name not in _SECRETS:
            self._take(name, key, value)
        elif value is not None:
            self._seal(name, key, value)

    def _wrong(self, key: str, message: str, next_step: str) -> None:
        self.reader._problem(self.path, self._line(key), f"{self.name}.{key}", message, next_step)

    def _line(self, key: str) -> int:
        """The line of a key; where it is not there, of what it belongs to."""
        path = f"{self.name}.{key}"
        while path not in self.all_lines and "." in path:
            path = path.rpartition(".")[0]
        return self.all_lines.get(path, self.line)


_SECRETS = {parameter.name for parameter in MDS.parameters if parameter.secret}


def slug_of(name: str) -> str:
    """The provider's slug of a name there: the name itself where it may be one, as all of Austin's are."""
    return name if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,79}", name) else as_slug(name)


def _columns() -> Iterator[tuple[str, dict[str, Any]]]:
    """The dictionary of the trips: of their columns only those leave for the public that the release gives as they are."""
    as_they_are = {entry["from"] for entry in atd_trips.ATD_TRIPS if entry.get("rule") in ("as_is", "blank_as")} - set(atd_trips.ATD_PRIVATE)
    areas = [(offer.values["column"], "text") for offer in _offers()]
    for name, kind in (*TRIP_COLUMNS, *areas):
        yield name, {"type": kind, "is_published": name in as_they_are}


def _offers() -> Iterator[Step]:
    """The areas of both ends of a trip."""
    for column, key_property, slug in atd_trips.AREAS:
        known_by = {"key_property": key_property} if key_property != "id" else {}
        for end in ("start", "end"):
            yield Step({"layer": slug, "lon_column": f"{end}_lon", "lat_column": f"{end}_lat", "column": f"{column}_{end}"}, known_by)


def _sealed_text(values: Mapping[str, Any]) -> str:
    """What is stored of an object with secrets: its JSON; of one that an export veiled, the word to keep what is stored."""
    return KEEP if all(value == KEEP for value in values.values()) else json.dumps(values, ensure_ascii=False)


def _number(value: float) -> str:
    return f"{value:g}"


def _kind(value: Any) -> str:
    words = _WORDS[bool if isinstance(value, bool) else type(value)]
    return words[:1].upper() + words[1:]
