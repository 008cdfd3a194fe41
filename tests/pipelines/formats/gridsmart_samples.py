"""A GRIDSMART device's day by hand: zips of both layouts, a site file, lines of each count version."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pipelines.formats.gridsmart import Gridsmart
from pipelines.formats.gridsmart_zip import Bounds
from pipelines.formats.sensors import Made, Raw, Standard, Terms
from pipelines.formats.standard import Refused

ZONE = "America/Chicago"
DAY = date(2019, 6, 1)
CAMERA = "AA-BB-CC-DD-EE-FF"
NB, SB, EB = (letter * 32 for letter in "abc")
BASE = "Burnet_Richcreek"
UNIT = {
    "device_type": "GRIDSMART", "atd_device_id": "6945", "device_status": "TURNED_ON", "device_ip": "10.0.0.7",
    "atd_location_id": "LOC16-000345", "primary_st": "BURNET RD", "cross_st": "RICHCREEK RD", "lat": 30.3527, "lon": -97.7351,
}  # fmt: skip


def dashes(guid: str) -> str:
    return f"{guid[:8]}-{guid[8:12]}-{guid[12:16]}-{guid[16:20]}-{guid[20:]}"


def v8(time, turn="S", length=10, speed=42, zone=2.0, offset=-360) -> str:
    return f"8,23,{time},{offset},{turn},{length},{speed},G,{zone},1,5.0,0.0,42,39"


#: The vehicles of facts/datalake.md §7.3: file name to lines.
GOLDEN = {
    NB: [
        v8("10.0"), v8("512.4", length=17, speed=30, zone=1.0), v8("1459.9", length=16, speed=34, zone=0.6),
        v8("1500.0", length=11, speed=20, zone=30.0), v8("233000.1", "U", 11, 20, 3.0),
    ],
    SB: [v8("20.5", "L", 14, 13, 2.5)],
    EB: [v8("30.0", "R")],
}  # fmt: skip


def zip_of(members: dict[str, bytes | str], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", packing) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return held.getvalue()


def text_of(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def layout_a(zones: dict[str, list[str]], day: date = DAY) -> bytes:
    return zip_of({f"{CAMERA}/{day}/{dashes(zone)}.csv": text_of(lines) for zone, lines in zones.items()})


def layout_b(zones: dict[str, list[str]], day: date = DAY) -> bytes:
    return zip_of({f"{CAMERA}/{day}.zip": zip_of({f"{dashes(zone)}.csv": text_of(lines) for zone, lines in zones.items()})})


def site(
    streets=("Burnet", "Richcreek"),
    drift: timedelta = timedelta(),
    address="10.0.0.7",
    place=(30.3527, -97.7351),
    zone_id="(UTC-06:00) Central",
    wall=-5,
    **more,
):
    """A site file. The device shows summer time, `wall` hours from UTC, beside an offset without it; its clock is ahead of ours by `drift`."""
    host = datetime(2019, 6, 2, 6, 34, 6)
    zones = [(NB, "Northbound", "Through", True), (SB, "Southbound", "Left", True), (EB, "Eastbound", "Right", False)]
    masks = [{"Vehicle": {"Id": guid, "ApproachType": way, "TurnType": turn, "IncludeInData": counted}} for guid, way, turn, counted in zones]
    clock = "%m/%d/%Y %I:%M:%S %p"
    return {
        "header": {"data_type": "gs_site", "collection_date": "2019-06-02 00:00:00-05:00", "device_net_addr": address},
        "site": {
            "CameraDevices": [{"Fisheye": {"IsConfigured": True, "MACAddress": CAMERA, "CameraMasks": {"ZoneMasks": [*masks, {"Bicycle": {}}]}}}],
            "Location": {"Street1": streets[0], "Street2": streets[1], "Latitude": place[0], "Longitude": place[1]},
        },
        "datetime": {"DateTime": (host + timedelta(hours=wall) + drift).strftime(clock), "TimeZoneId": zone_id, "HostTimeUTC": host.strftime(clock)},
        "hardware_info": {},
        **more,
    }  # fmt: skip


def terms(day: date = DAY, **options) -> Terms:
    zone = ZoneInfo(ZONE)
    starts_at = datetime(day.year, day.month, day.day, tzinfo=zone)
    ends_at = datetime(*(day + timedelta(days=1)).timetuple()[:3], tzinfo=zone)
    return Terms("gs", day, ZONE, starts_at.astimezone(UTC), ends_at.astimezone(UTC), datetime(2019, 6, 2, 9, tzinfo=UTC), options)


class Done:
    """What a verb gave: what it refused, what it made, and the format with its tally."""

    def __init__(self, format_: Gridsmart, given):
        self.format, self.tally = format_, format_.tally
        self.refused: list[Refused] = []
        self.made: list[Made] = []
        for one in given:
            (self.refused if isinstance(one, Refused) else self.made).append(one)
        tally = self.tally
        assert tally.rows_in == tally.rows_out + tally.rejected + tally.duplicates + tally.elsewhere, tally

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.refused]

    def zone(self, guid: str) -> Made:
        return next(one for one in self.made if one.header["guid"] == dashes(guid))

    def rows(self, number: int = 0, key: str = "data") -> list[dict]:
        return json.loads(self.made[number].path.read_text())[key]


def standardize(folder: Path, body: bytes, about=None, *, day: date = DAY, bounds: Bounds | None = None) -> Done:
    """Run the first step on a zip; `about` is the site file (None: one that is right, False: none)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "day.zip"
    path.write_bytes(body)
    helpers = {}
    if about is not False:
        helpers["site"] = folder / "site.json"
        helpers["site"].write_text(json.dumps(about or site()))
    made = Gridsmart(terms(day), bounds)
    return Done(made, made.standardize(Raw(path, f"{BASE}_gs_{day}.zip", BASE, "zip", helpers), folder))


def standards(done: Done, days: int = 0, about=None) -> list[Standard]:
    """The documents of the first step as the second reads them; with the site file of `about`."""
    found = [Standard(one.path, one.base, one.ext, one.header, days) for one in done.made]
    if about:
        path = done.made[0].path.with_name("site-of-day.json")
        path.write_text(json.dumps(about))
        found.append(Standard(path, BASE, "site.json", about["header"], days, "site"))
    return found


def ready(folder: Path, documents: list[Standard], units=(UNIT,), day: date = DAY, **options) -> Done:
    folder.mkdir(parents=True, exist_ok=True)
    made = Gridsmart(terms(day, **options))
    return Done(made, made.ready(documents, units, folder))


def aggregate(folder: Path, counts: Path, day: date = DAY, **options) -> Done:
    folder.mkdir(parents=True, exist_ok=True)
    made = Gridsmart(terms(day, **options))
    return Done(made, made.aggregate(counts, BASE, folder))
