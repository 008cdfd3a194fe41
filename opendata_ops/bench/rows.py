"""Rows like Los Angeles' 311 requests: 34 columns, made by number, so that row 7 is the same in every file and on every machine.

They are rendered once as a portal writes them (CSV with every value quoted, JSON without the nulls) and served from disk.
Beside each file lies an index: where each row begins, as 8-byte numbers, so that any slice can be sent without looking at it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

#: (field name, the portal's type, label): 4 times, 2 numbers, a point and 27 texts.
COLUMNS = (
    ("srnumber", "text", "SRNumber"),
    ("createddate", "calendar_date", "CreatedDate"),
    ("updateddate", "calendar_date", "UpdatedDate"),
    ("actiontaken", "text", "ActionTaken"),
    ("owner", "text", "Owner"),
    ("requesttype", "text", "RequestType"),
    ("status", "text", "Status"),
    ("requestsource", "text", "RequestSource"),
    ("createdbyuserorganization", "text", "CreatedByUserOrganization"),
    ("mobileos", "text", "MobileOS"),
    ("anonymous", "text", "Anonymous"),
    ("assignto", "text", "AssignTo"),
    ("servicedate", "calendar_date", "ServiceDate"),
    ("closeddate", "calendar_date", "ClosedDate"),
    ("addressverified", "text", "AddressVerified"),
    ("approximateaddress", "text", "ApproximateAddress"),
    ("address", "text", "Address"),
    ("housenumber", "text", "HouseNumber"),
    ("direction", "text", "Direction"),
    ("streetname", "text", "StreetName"),
    ("suffix", "text", "Suffix"),
    ("zipcode", "text", "ZipCode"),
    ("latitude", "number", "Latitude"),
    ("longitude", "number", "Longitude"),
    ("location", "point", "Location"),
    ("tbmpage", "text", "TBMPage"),
    ("tbmcolumn", "text", "TBMColumn"),
    ("tbmrow", "text", "TBMRow"),
    ("apc", "text", "APC"),
    ("cd", "text", "CD"),
    ("cdmember", "text", "CDMember"),
    ("nc", "text", "NC"),
    ("ncname", "text", "NCName"),
    ("policeprecinct", "text", "PolicePrecinct"),
)
NAMES = tuple(name for name, _, _ in COLUMNS)
KEY = "srnumber"
#: The newest updateddate of an unchanged row; row 0 alone has it, and row 0 is among the changed ones.
NEWEST = "2021-01-15T00:00:00.000"
#: One row in so many is changed, and one in `NEW_EVERY` comes to it: 5 % together.
CHANGED_EVERY, NEW_EVERY = 25, 100
HEADER = (",".join(f'"{name}"' for name in NAMES) + "\n").encode()
#: "," and a line end between two rows of JSON.
JSON_GAP = 2
_PIECE = 5_000
#: Taken when the module is loaded: a file that is edited during a bench changes nothing of it.
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
_DAYS = [(date(2020, 1, 1) + timedelta(n)).isoformat() for n in range(371)]

_TYPES = (
    ("Bulky Items", "BOS"),
    ("Graffiti Removal", "OCB"),
    ("Bulky Items", "BOS"),
    ("Illegal Dumping Pickup", "BOS"),
    ("Metal/Household Appliances", "BOS"),
    ("Bulky Items", "BOS"),
    ("Graffiti Removal", "OCB"),
    ("Homeless Encampment", "BOS"),
    ("Electronic Waste", "BOS"),
    ("Multiple Streetlight Issue", "BSL"),
    ("Dead Animal Removal", "BOS"),
)
_SOURCES = ("Call", "Mobile App", "Driver Self Report", "Self Service", "Call", "Email", "Council's Office")
_ORGANIZATIONS = ("BOS", "Self Service", "OCB", "ITA", "Self Service_SAN", "Proactive Insert", "BOS")
_ASSIGNED = ("NC", "EV", "WV", "SLA", "WLA", None, "GAPBH", "SGB", "HB", "KYCC", "CCAC", "NEGB", "HBT")
_STREETS = (
    "VANOWEN",
    "WESTMORELAND",
    "SLAUSON",
    "43RD",
    "GERTRUDE",
    "CAÑADA",
    "MARTIN LUTHER KING JR",
    "LA CIENEGA",
    "SEPULVEDA",
    "VAN NUYS",
    "FIGUEROA",
)
_SUFFIXES = ("ST", "AVE", "BLVD", "PL", "DR", "ST", "AVE")
_AREAS = (
    ("6", "Nury Martinez", "South Valley APC", "19", "LAKE BALBOA NC", "WEST VALLEY", "91406", 34.194, -118.499),
    ("13", "Mitch O'Farrell", "Central APC", "53", "RAMPART VILLAGE NC", "OLYMPIC", "90004", 34.072, -118.288),
    (
        "8",
        "Marqueece Harris-Dawson",
        "South Los Angeles APC",
        "81",
        "EMPOWERMENT CENTRAL AREA NDC",
        "77TH STREET",
        "90047",
        33.989,
        -118.303,
    ),
    ("7", "Monica Rodriguez", "North Valley APC", "5", "SYLMAR NC", "MISSION", "91342", 34.307, -118.449),
    ("9", "Curren D. Price Jr.", "South Los Angeles APC", "125", "ZAPATA KING NC", "NEWTON", "90011", 34.004, -118.263),
    ("14", None, "East Los Angeles APC", "50", "BOYLE HEIGHTS NC", "HOLLENBECK", "90033", 34.043, -118.217),
    ("11", "Mike Bonin", "West Los Angeles APC", "71", "MAR VISTA CC", "PACIFIC", "90066", 34.004, -118.431),
)


def row(number: int, *, changed: bool = False) -> tuple[str | None, ...]:
    """The cells of one row as a portal's CSV has them, None for a null; `changed` as it is after an edit."""
    mixed = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    a, b, c, d = mixed >> 48, (mixed >> 32) & 0xFFFF, (mixed >> 16) & 0xFFFF, mixed & 0xFFFF
    kind, owner = _TYPES[a % 11]
    cd, member, apc, nc, council, precinct, zipcode, latitude, longitude = _AREAS[b % 7]
    day, minute = number // 4100 % 365, number % 1440
    created = _moment(day, minute)
    is_open = c % 97 == 0
    updated = NEWEST if number == 0 else _moment(day + d % 12, (minute + c) % 1440)
    house, direction, street, suffix = str(100 + d % 18000), "NSEW"[c % 4], _STREETS[a % 11], _SUFFIXES[b % 7]
    text = f"{house} {direction} {street} {suffix}, {zipcode}"
    if number % 499 == 0:
        # what a careless reader trips over: quotes, a line end, a backslash
        text = f'{house} {direction} {street} "REAR \\ ALLEY"\n{zipcode}'
    lat, lon = repr(round(latitude + a % 9973 / 1e5, 6)), repr(round(longitude + b % 9967 / 1e5, 6))
    status = "Open" if is_open else "Cancelled" if c % 41 == 0 else "Closed"
    if changed:
        status, updated = "Referred Out", f"2026-11-{1 + number % 20:02d}T{a % 24:02d}:{b % 60:02d}:00.000"
    return (
        f"1-{1_500_000_000 + number}",
        created,
        updated,
        "SR Created",
        owner,
        kind,
        status,
        _SOURCES[c % 7],
        _ORGANIZATIONS[d % 7],
        ("iOS" if a % 3 else "Android") if d % 4 == 0 else None,
        "Y" if b % 3 == 0 else "N",
        _ASSIGNED[c % 13],
        None if a % 18 == 0 else _moment(day + 6, 0),
        None if is_open else updated if changed else _moment(day + d % 9, c % 1440),
        "Y",
        "N" if c % 5 else None,
        text,
        house,
        direction,
        street,
        suffix,
        zipcode,
        lat,
        lon,
        f"POINT ({lon} {lat})",
        str(500 + a % 200),
        "ABCDEFGHJ"[b % 9],
        str(1 + c % 7),
        apc,
        cd,
        member,
        nc,
        council,
        precinct,
    )


def _moment(day: int, minute: int) -> str:
    """So many days (370 at most) and minutes after the beginning of 2020, as a portal writes a time without zone."""
    return f"{_DAYS[min(day, 370)]}T{minute // 60:02d}:{minute % 60:02d}:00.000"


def as_csv(cells: Iterable[str | None]) -> str:
    """A line as SODA writes it: every value quoted, a null empty."""
    return ",".join("" if cell is None else '"' + cell.replace('"', '""') + '"' for cell in cells) + "\n"


def as_json(cells: Iterable[str | None]) -> str:
    """An object as SODA writes it: nulls left out, numbers as text, the point as GeoJSON; with what stands between two of them."""
    held = {name: cell for name, cell in zip(NAMES, cells, strict=True) if cell is not None}
    held["location"] = {"type": "Point", "coordinates": [float(held["longitude"]), float(held["latitude"])]}
    return json.dumps(held, ensure_ascii=False, separators=(",", ":")) + ",\n"


@dataclass(frozen=True)
class Content:
    """What a served table holds: "base" (rows 0 … n), "delta" (the 5 % of n that changed or came), "snap" (all, with those 5 %)."""

    kind: str
    rows: int

    @property
    def stem(self) -> str:
        # one file of base rows serves all sizes: 50,000 rows are the beginning of 3,000,000
        return "base" if self.kind == "base" else f"{self.kind}-{self.rows}"

    @property
    def count(self) -> int:
        """How many rows it has."""
        new = self.rows // NEW_EVERY
        changed = -(-self.rows // CHANGED_EVERY)
        return {"base": self.rows, "delta": changed + new, "snap": self.rows + new}[self.kind]

    def numbers(self, start: int) -> Iterable[tuple[int, bool]]:
        """(row number, whether it is changed) from the `start`th row on."""
        if self.kind == "base":
            return ((number, False) for number in range(start, self.rows))
        if self.kind == "snap":
            return ((number, number < self.rows and number % CHANGED_EVERY == 0) for number in range(start, self.count))
        there = [*range(0, self.rows, CHANGED_EVERY), *range(self.rows, self.rows + self.rows // NEW_EVERY)]
        return ((number, number < self.rows) for number in there[start:])


@dataclass(frozen=True)
class Rendered:
    """A file of rows without header or brackets, and the index beside it."""

    path: Path
    content: Content

    @property
    def is_json(self) -> bool:
        return self.path.suffix == ".json"

    def span(self, offset: int, limit: int) -> tuple[int, int]:
        """(first byte, number of bytes) of the rows [offset, offset + limit), as far as there are any."""
        start, stop = min(offset, self.content.count), min(offset + limit, self.content.count)
        if start == stop:
            return 0, 0
        with index_of(self.path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as index:
            first, after = (int.from_bytes(index[8 * n : 8 * n + 8], "little") for n in (start, stop))
        return first, after - first - (JSON_GAP if self.is_json else 0)


def index_of(path: Path) -> Path:
    return path.with_suffix(f"{path.suffix}.index")


def folder(root: Path) -> Path:
    """Where the files of this very generator lie: other code, other folder."""
    return root / f"rows-{_VERSION}"


def render(root: Path, content: Content, form: str) -> Rendered:
    """The file of this content as "csv" or "json", made or made longer where it is not there yet."""
    path = folder(root) / f"{content.stem}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    index = index_of(path)
    if not index.exists():
        path.write_bytes(b"")
        index.write_bytes(bytes(8))
    have = index.stat().st_size // 8 - 1
    if have < content.count:
        _grow(path, index, content, have, {"csv": as_csv, "json": as_json}[form])
    return Rendered(path, content)


def _grow(path: Path, index: Path, content: Content, have: int, write) -> None:
    """Write the rows from `have` on; the index after the rows, so that what it names is there."""
    with index.open("r+b") as places, path.open("r+b") as file:
        places.seek(8 * have)
        end = int.from_bytes(places.read(8), "little")
        file.seek(end)
        places.seek(8 * have + 8)
        lines, ends = [], array("Q")
        for number, changed in content.numbers(have):
            line = write(row(number, changed=changed)).encode()
            end += len(line)
            lines.append(line)
            ends.append(end)
            if len(lines) == _PIECE:
                _put(file, places, lines, ends)
                lines, ends = [], array("Q")
        _put(file, places, lines, ends)


def _put(file, places, lines: list[bytes], ends: array) -> None:
    file.write(b"".join(lines))
    file.flush()
    ends.tofile(places)
    places.flush()
