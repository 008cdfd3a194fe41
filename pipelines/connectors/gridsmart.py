"""GRIDSMART cameras: a device at each intersection, asked by HTTP for its site, its clock and the counts of a day.

The provider has no address of its own but a pattern, http://{ip}:8902/api; the devices are the inventory's, handed over in
`FetchRequest.options["devices"]`. Several are asked at once, each in its own time: one that is dead or slow keeps no other from
being read. What did not come is told, and stands in `missing` with its reason, until the window is read again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.connectors.base import Account, Connector, FetchedFile, FetchRequest, Listed, Missing, Parameter, Progress, SourceState
from pipelines.connectors.http import MIB, Door, Manners
from pipelines.errors import DataError, NeverCame, NotReady, PipelineError, SetupError, TransientError

RESOURCE = "counts"
#: The seconds after which a day that no device has is asked for again, and until when that is worth it.
ASK_AGAIN = 3600.0
WAIT_FOR_DAY = timedelta(hours=48)
#: So many devices are named in one sentence.
MOST_NAMED = 5
_CLOCK = "%m/%d/%Y %I:%M:%S %p"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Device:
    """A device as the inventory has it; `ip` is its address, with a port where that is its own."""

    name: str
    ip: str
    unit: Mapping[str, Any] = field(repr=False, hash=False)

    def lacks(self, why: str, code: str) -> Missing:
        return Missing(f"{self.name} ({self.ip})", why, code)


@dataclass(frozen=True)
class _Settings:
    """How devices are asked, in seconds and bytes; `pattern` is their address with {ip} in it."""

    pattern: str
    at_once: int
    timeout: float
    zip_timeout: float
    device_seconds: float
    manners: Manners
    largest_zip: int


@dataclass(frozen=True)
class _Site:
    """What a device says of itself: its intersection's name, the documents, and the days that it has."""

    base: str
    site: Mapping[str, Any] = field(repr=False)
    days: tuple[date, ...] = ()


class Gridsmart(Connector):
    """The devices of the inventory. The resource is `counts`; a window is a local day, and each device gives a zip and a site file of it."""

    kind = "gridsmart"
    label = "GRIDSMART cameras (devices of an inventory)"
    can_fetch = True
    can_count = False
    can_list = True
    wants_devices = True
    address_hint = "http://{ip}:8902/api"
    parameters = (
        Parameter("devices_at_once", "Devices at once", default="4", help="1 to 16."),
        Parameter("timeout", "Time-out of a question (s)", default="15"),
        Parameter("zip_timeout", "Time-out of a zip that stands still (s)", default="60"),
        Parameter("device_seconds", "Most time for one device (s)", default="300", help="All its questions and its zip together."),
        Parameter("attempts", "Attempts", default="2"),
        Parameter("largest_zip", "Largest zip (MB)", default="256"),
        Parameter("probe", "A device to test with", help="Its IP address. Only for the test of the connection."),
    )

    def __init__(self, account: Account, door: Door):
        super().__init__(account, door)
        self.missing: list[Missing] = []
        #: Our clock, which the devices' are compared with.
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)

    # ---------------------------------------------------------------------------------------------------- the settings

    def _number(self, name: str, least: float, most: float) -> float:
        declared = next(parameter for parameter in self.parameters if parameter.name == name)
        told = str(self.account.parameters.get(name) or "").strip() or declared.default
        try:
            value = float(told)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise SetupError(
                f"the setting {declared.label!r} ({name}) of provider {self.account.slug} is {told!r}, which is no number from {least:g} to {most:g}",
                code="bad-parameter",
                next_step=f"Write a number from {least:g} to {most:g} there.",
            )
        return value

    @property
    def settings(self) -> _Settings:
        """Raises SetupError for one that is wrong: that is everybody's, and no device's failure."""
        return _Settings(
            pattern=self._pattern,
            at_once=int(self._number("devices_at_once", 1, 16)),
            timeout=self._number("timeout", 0.1, 600),
            zip_timeout=self._number("zip_timeout", 0.1, 3600),
            device_seconds=self._number("device_seconds", 0.1, 3600),
            manners=Manners(attempts=int(self._number("attempts", 1, 10))),
            largest_zip=int(self._number("largest_zip", 1, 4096)) * MIB,
        )

    @property
    def _pattern(self) -> str:
        """The address with {ip} in it. Raises SetupError for one without."""
        pattern = self.account.base_url.strip().rstrip("/")
        if pattern.count("{ip}") != 1:
            raise SetupError(
                f"the address of provider {self.account.slug} is {self.account.base_url!r}, and devices are asked at a pattern with {{ip}} in it",
                code="bad-address",
                next_step=f"Enter {self.address_hint} as the address of provider {self.account.slug}.",
            )
        return pattern if "://" in pattern else f"http://{pattern}"

    def address(self, ip: str, pattern: str) -> str:
        """The address at which a device is asked. Raises SetupError for one that must not be."""
        if ip.count(":") == 1:
            # it brings its own port
            url = re.sub(r"\{ip\}(:\d+)?", ip, pattern)
        else:
            url = pattern.replace("{ip}", f"[{ip}]" if ":" in ip else ip)
        if url.lower().startswith("http://") and not self.door.lists(url):
            raise SetupError(
                f"the device at {ip} is asked by http, which everyone on the way can read and change, and OUTBOUND_ALLOW does not name it",
                code="address-refused",
                next_step="If the device is meant, have its network added to the setting OUTBOUND_ALLOW.",
            )
        return url

    # ----------------------------------------------------------------------------------------------------- the devices

    def devices(self, options: Mapping[str, Any]) -> list[Device]:
        """The devices that are to be asked, by name. Raises SetupError where there are none, or for a name filter that can't be read.

        Left out are those that were removed, have no location or no address; of two at one address the second.
        """
        units = options.get("devices")
        if units is None:
            raise SetupError(
                f"provider {self.account.slug} asks the devices of an inventory, and the pipeline names none",
                code="no-devices",
                next_step="Write the code of the cameras' inventory (gs) into the pipeline's settings, and upload an edition of it.",
            )
        wanted = self._filter(str(options.get("name_filter") or ""))
        found: dict[str, Device] = {}
        # in one order, so that of two at one address it is always the same that is asked
        for unit in sorted(units, key=lambda unit: str(unit.get("atd_device_id") or "")):
            name = "_".join(str(unit.get(street) or "").strip() for street in ("primary_st", "cross_st"))
            if str(unit.get("device_status") or "").strip().upper() == "REMOVED" or not str(unit.get("atd_location_id") or "").strip():
                continue
            if wanted and not wanted.search(name):
                continue
            ip = str(unit.get("device_ip") or "").strip()
            if not _is_host(ip):
                self.door.tell("warning", f"{name} has no address in the inventory that can be asked: {ip[:60]!r}")
            elif ip in found:
                self.door.tell("warning", f"{name} has the address {ip} of {found[ip].name}: it is asked only once, as {found[ip].name}")
            else:
                found[ip] = Device(name, ip, unit)
        if not found:
            of = f" whose name has {wanted.pattern!r}" if wanted else ""
            raise SetupError(
                f"the inventory of provider {self.account.slug} has no device{of} that can be asked, of {len(units):,}",
                code="no-devices",
                next_step="Upload an edition of the inventory with the addresses and locations of the cameras" + ", or change the filter." * bool(of),
            )
        return sorted(found.values(), key=lambda device: (device.name, device.ip))

    def _filter(self, told: str) -> re.Pattern[str] | None:
        try:
            return re.compile(told) if told else None
        except re.error as error:
            raise SetupError(
                f"the name filter {told!r} is no regular expression: {error}",
                code="bad-filter",
                next_step="Write part of a name, such as BURNET.*RICHCREEK.",
            ) from error

    # -------------------------------------------------------------------------------------------------------- a source

    def test(self) -> str:
        """Ask the device that is named for it what time it is; without one, say what would be asked."""
        probe = str(self.account.parameters.get("probe") or "").strip()
        if not probe:
            return f"The devices of the inventory will be asked at {self._pattern}. Enter one as the device to test with, and it is asked now."
        if not _is_host(probe):
            raise SetupError(
                f"{probe!r} is not the address of a device", code="bad-address", next_step="Enter an IP address as the device to test with."
            )
        asking = _Asking(self, self.settings, Device(probe, probe, {}), threading.Event())
        told, days = asking.json("datetime.json", dict), asking.days()
        return f"The device at {probe} answers: it is {told.get('DateTime')} there, {told.get('TimeZoneId')}, and it has {len(days):,} days"

    def describe(self, resource: str) -> SourceState:
        """Nothing is asked: which devices there are stands in the inventory, and what a zip holds only its reader knows."""
        if resource.strip() != RESOURCE:
            raise SetupError(
                f"provider {self.account.slug} has no {resource!r}: devices give {RESOURCE}",
                code="bad-resource",
                next_step=f"Write {RESOURCE} as the pipeline's resource.",
            )
        return SourceState(title="Camera counts", columns=(), key="record_id")

    def listing(self, resource: str, request: FetchRequest) -> Iterator[Listed]:
        """The days that the devices have. A device that does not answer is told of, and has none."""
        self.describe(resource)
        zone = ZoneInfo(request.time_zone)
        found = []
        self.missing = []
        asked = 0
        for device, told in self._each(request, lambda asking: asking.site()):
            asked += 1
            if isinstance(told, Missing):
                self.missing.append(told)
                continue
            for day in told.days:
                starts_at, ends_at = (datetime.combine(day + timedelta(days=more), day_time(), zone).astimezone(UTC) for more in (0, 1))
                if (request.starts_at is None or ends_at > request.starts_at) and (request.ends_at is None or starts_at < request.ends_at):
                    found.append(Listed(told.base, "zip", starts_at, ends_at, f"{day}_{told.base}.zip of device {device.ip}"))
        self._tell_of_missing(asked)
        yield from sorted(found, key=lambda one: (one.starts_at, one.base))

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield of each device that answers its site file (role "site") and its zip of each local day of the window.

        `progress` counts devices. Raises SetupError where there is no device, TransientError where none of them answers, NotReady
        where none has the day yet.
        """
        self.describe(resource)
        days = _days(request)
        self.missing = []
        came: dict[str, str] = {}
        asked = files = 0
        for device, told in self._each(request, lambda asking: asking.bring(days, request, workdir)):
            asked += 1
            progress(asked, None)
            if isinstance(told, Missing):
                self.missing.append(told)
                continue
            base, brought, lacks = told
            if base in came:
                words = f"it says that it is {base}, as the device at {came[base]} does"
                self.missing.append(device.lacks(words, "same-name"))
                for file in brought:
                    file.path.unlink()
                continue
            came[base] = device.ip
            self.missing += [device.lacks(f"it has no counts of {day}", "no-day") for day in lacks]
            files += sum(1 for file in brought if not file.metadata.get("role"))
            yield from brought
        if not files:
            raise self._nothing(asked, days, request)
        self._tell_of_missing(asked)

    def _each(self, request: FetchRequest, ask: Callable[[_Asking], Any]) -> Iterator[tuple[Device, Any]]:
        """Ask the devices, several at once; yield each, in order, with what `ask` gave, or why it gave nothing."""
        devices = self.devices(request.options)
        settings, stopped = self.settings, threading.Event()

        def one(device: Device) -> Any:
            try:
                return ask(_Asking(self, settings, device, stopped))
            except PipelineError as error:
                return device.lacks(error.message, error.code)

        with ThreadPoolExecutor(max_workers=settings.at_once, thread_name_prefix="camera") as pool:
            flying: deque[tuple[Device, Future[Any]]] = deque()
            waiting = iter(devices)
            try:
                while True:
                    # on disk are at most the files of so many devices that were not yet taken
                    while len(flying) < settings.at_once and (device := next(waiting, None)):
                        flying.append((device, pool.submit(one, device)))
                    if not flying:
                        return
                    device, asked = flying.popleft()
                    yield device, asked.result()
            finally:
                stopped.set()
                for _, asked in flying:
                    asked.cancel()

    def _tell_of_missing(self, asked: int) -> None:
        for missing in self.missing:
            self.door.tell("warning", f"missing is {missing}")
        silent = len({missing.name for missing in self.missing})
        self.door.tell("warning" if silent else "debug", f"{asked - silent:,} of {asked:,} devices gave all that was asked for, {silent:,} did not")

    def _nothing(self, asked: int, days: list[date], request: FetchRequest) -> PipelineError:
        """What it means that no device gave a zip."""
        self._tell_of_missing(asked)
        of = f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}"
        if all(missing.code == "no-day" for missing in self.missing):
            words = f"none of {asked:,} devices has counts of {of}"
            if (request.asked_at or self.now()) < (request.ends_at or self.now()) + WAIT_FOR_DAY:
                return NotReady(f"{words} yet", code="no-day", retry_after=ASK_AGAIN)
            return NeverCame(words, code="no-day", next_step="Look at a device: does it count? What it no longer keeps is lost.")
        refused = next((missing for missing in self.missing if missing.code == "address-refused"), None)
        if refused and all(missing.code in ("address-refused", "no-day") for missing in self.missing):
            return SetupError(
                f"none of {asked:,} devices may be asked: {refused.why}",
                code="address-refused",
                next_step="Have the network of the cameras added to the setting OUTBOUND_ALLOW.",
            )
        return TransientError(
            f"none of {asked:,} devices gave counts of {of}: {_named(self.missing)}",
            code="no-device",
            next_step="Check that this machine is inside the network of the cameras.",
        )


class _Asking:
    """The questions to one device, within the time that one device may take."""

    def __init__(self, source: Gridsmart, settings: _Settings, device: Device, stopped: threading.Event):
        self.source, self.settings, self.device, self.stopped = source, settings, device, stopped
        self.url = source.address(device.ip, settings.pattern)
        self._ends_at = time.monotonic() + settings.device_seconds

    def bring(self, days: list[date], request: FetchRequest, workdir: Path) -> tuple[str, list[FetchedFile], list[date]]:
        """(the intersection's name, the files, the days that the device does not have). Raises PipelineError."""
        told = self.site()
        has = [day for day in days if day in told.days]
        files: list[FetchedFile] = []
        with ExitStack() as undoing:
            if has:
                files.append(self._site_file(told, request, workdir))
                undoing.callback(files[0].path.unlink)
            for day in has:
                files.append(self._zip(told.base, day, workdir))
                undoing.callback(files[-1].path.unlink)
            # all came: they stay
            undoing.pop_all()
        return told.base, files, [day for day in days if day not in has]

    def site(self) -> _Site:
        """What the device says of itself. Raises PipelineError."""
        site = self.json("site.json", dict)
        clock = self.json("datetime.json", dict)
        # to the second, as devices tell their own: read right after theirs
        clock = {**clock, "HostTimeUTC": self.source.now().strftime(_CLOCK)}
        try:
            hardware = self.json("system/hardwareinfo.json", dict)
        except PipelineError as error:
            # of use to whoever repairs it, and to nothing else
            self.source.door.tell("debug", f"{self.device.name} does not say what it is: {error.message}")
            hardware = {}
        return _Site(self._base(site), {"site": site, "datetime": clock, "hardware_info": hardware}, self.days())

    def days(self) -> tuple[date, ...]:
        """The days that the device has. Raises PipelineError."""
        told = self.json("counts.json", list)
        found = []
        for text in told:
            if isinstance(text, str) and _DAY.fullmatch(text[:10]):
                try:
                    found.append(date.fromisoformat(text[:10]))
                except ValueError:
                    continue  # a 31st of June is no day that can be asked for
        return tuple(sorted(set(found)))

    def json(self, path: str, kind: type) -> Any:
        """An answer. Raises PipelineError; DataError where it is of another kind than devices give."""
        settings = self.settings
        reply = self.source.door.ask(
            "GET", f"{self.url}/{path}", expect="json", read_timeout=settings.timeout, deadline=self._left(), manners=settings.manners
        )
        if not isinstance(reply.json, kind):
            raise DataError(f"its {path} is no {'list' if kind is list else 'object'}", code="not-gridsmart")
        return reply.json

    def _left(self) -> float:
        """The seconds that the device has left. Raises TransientError when it has none."""
        if self.stopped.is_set():
            raise TransientError("the reading was stopped", code="stopped")
        if (left := self._ends_at - time.monotonic()) <= 0:
            raise TransientError(f"it did not give all within {self.settings.device_seconds:g} s", code="deadline")
        return left

    def _base(self, site: Mapping[str, Any]) -> str:
        """Street1_Street2 as names of files can bear it. Raises DataError for a device that says no streets."""
        place = site.get("Location")
        streets = [place.get(name) for name in ("Street1", "Street2")] if isinstance(place, dict) else []
        cleaned = [_cleaned(street) for street in streets if isinstance(street, str)]
        if not any(cleaned):
            raise DataError("its site.json names no streets", code="no-streets")
        return "_".join(cleaned)

    def _site_file(self, told: _Site, request: FetchRequest, workdir: Path) -> FetchedFile:
        """What the device said of itself, as facts/datalake.md §7.4 has it, dated this day."""
        source = self.source
        run_day = (request.asked_at or source.now()).astimezone(ZoneInfo(request.time_zone))
        midnight = run_day.replace(hour=0, minute=0, second=0, microsecond=0)
        name = f"{told.base}_gs_{midnight:%Y-%m-%d}_site.json"
        header = {"data_type": "gs_site", "target_filename": name, "collection_date": str(midnight), "device_net_addr": self.device.ip}
        path = self._path(workdir, name)
        path.write_text(json.dumps({"header": header, **told.site}, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
        body = path.read_bytes()
        metadata = self._metadata(told.base, "site.json", midnight.date()) | {"role": "site"}
        return FetchedFile(name, path, None, len(body), hashlib.sha256(body).hexdigest(), f"{self.url}/site.json", metadata)

    def _path(self, workdir: Path, name: str) -> Path:
        """Where a file lies until it is taken: two devices may call themselves alike, and are asked at once."""
        return workdir / f"{re.sub(r'[^0-9A-Za-z.]', '-', self.device.ip)}-{name}"

    def _zip(self, base: str, day: date, workdir: Path) -> FetchedFile:
        """The zip of a day, as it came. Raises PipelineError."""
        settings, most = self.settings, self.settings.largest_zip

        def look(so_far: int) -> None:
            self._left()
            if so_far > most:
                raise DataError(f"its zip of {day} is larger than {most:,} bytes", code="too-big")

        name = f"{base}_gs_{day}.zip"
        url = f"{self.url}/counts/bydate/{day}"
        path = self._path(workdir, name)
        got = self.source.door.download(
            url,
            path,
            expect="any",
            on_bytes=look,
            read_timeout=settings.zip_timeout,
            deadline=self._left(),
            manners=settings.manners,
        )
        with got.path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if not is_zip:
            got.path.unlink()
            raise TransientError(f"what it gave for {day} is no zip", code="not-zip")
        return FetchedFile(name, got.path, None, got.bytes, got.sha256, url, self._metadata(base, "zip", day))

    def _metadata(self, base: str, ext: str, day: date) -> dict[str, Any]:
        unit = self.device.unit
        return {
            "base": base,
            "ext": ext,
            "collection_date": f"{day}",
            "device_net_addr": self.device.ip,
            "atd_device_id": unit.get("atd_device_id"),
        }


def _days(request: FetchRequest) -> list[date]:
    """The local days that the window touches. Raises SetupError for a request without a window."""
    if request.starts_at is None or request.ends_at is None:
        raise SetupError(
            "cameras give their counts by the day, and the pipeline reads without a window",
            code="no-window",
            next_step="Set the window column of the pipeline to read_date.",
        )
    zone = ZoneInfo(request.time_zone)
    first, last = request.starts_at.astimezone(zone).date(), (request.ends_at - timedelta(microseconds=1)).astimezone(zone).date()
    return [first + timedelta(days=more) for more in range((last - first).days + 1)]


def _is_host(told: str) -> bool:
    """Whether it is an IP address or a name, with or without a port, and nothing besides."""
    host, port = (told.rsplit(":", 1) + [""])[:2] if told.count(":") == 1 else (told, "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_HOST.fullmatch(host)) and not host.replace(".", "").isdigit()
    return True


def _cleaned(street: str) -> str:
    """A street as part of a file's name: a device is a stranger, and its street may lead out of the folder."""
    plain = re.sub(r"[/\\]", "&", street)
    return "".join(letter for letter in plain if letter.isprintable() and letter not in '<>:"|?*').strip().strip(".")[:70].strip()


def _named(missing: list[Missing]) -> str:
    """The devices that are missing, in a sentence."""
    told = "; ".join(map(str, missing[:MOST_NAMED]))
    return told + f" and {len(missing) - MOST_NAMED:,} more" * (len(missing) > MOST_NAMED)
