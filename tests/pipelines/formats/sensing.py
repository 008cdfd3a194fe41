"""Raw days of sensors, made here; a block of a sensor's format, and what is asked of it: documents, tables and refusals out.

What atd-data-lake published of its own days is not in this project: those tests read it beside the checkout, or say that they can't.
"""

import csv
import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings

from pipelines.formats.sensors import Document, Made, Raw, Standard, Terms
from pipelines.formats.standard import Refused

# days made here: own streets, addresses and numbers

OAK = {"device_type": "BLUETOOTH", "atd_device_id": 201, "device_name": "oak_2nd", "device_ip": "10.20.0.4", "lat": 30.3112, "lon": -97.7021}
ELM = {**OAK, "atd_device_id": 202, "device_name": "elm_2nd", "device_ip": "10.20.0.5", "lat": 30.3187, "lon": -97.7034}
RADAR = {"device_type": "RADAR", "atd_device_id": 207, "device_name": None, "device_ip": "10.20.0.9", "lat": 30.3201, "lon": -97.71, "kits_id": 14}
#: As the readers write a phone. The first is matched, the second matched and read, the third read, the last read where no inventory knows.
PHONES = [b64encode(f"02:00:5E:00:00:{number:02X}".encode()).decode() for number in (17, 34, 51, 68)]
#: The number of each on the portal: of a day's matches first.
NUMBERS = {phone: number for number, phone in enumerate(PHONES, 1)}
STRAY = "stray_3rd"
#: What a file is → what it is called in the folder.
NAMES = {
    "unmatched": "Austin_bt_%m-%d-%Y.txt",
    "matched": "Austin_btmatch_%m-%d-%Y.txt",
    "traf_match_summary": "Austin_bt_summary_15_%m-%d-%Y.txt",
    "radar": "Austin_wt_%Y-%m-%d.csv",
}
RADAR_HEAD = "detID,intID,curDateTime,intName,detName,volume,occupancy,speed,status,uploadSuccess,detCountComparison,dailyCumulative"


def at(day: date, seconds: int) -> datetime:
    """So long after a day's local midnight, by the wall; before it where it is below zero."""
    return datetime.combine(day, time()) + timedelta(seconds=seconds)


def clock(wall: datetime, seconds: str = ":%S") -> str:
    """`6/1/2019 12:00:03 AM`, as the readers' host writes it."""
    return f"{wall.month}/{wall.day}/{wall.year} {wall.hour % 12 or 12}{wall.strftime(f':%M{seconds} %p')}"


def row_id(*fields: Any) -> str:
    """The md5 of these fields one behind the other; a time is hashed as the portal shows it."""
    texts = (field.isoformat() if isinstance(field, datetime) else str(field) for field in fields)
    return md5("".join(texts).encode(), usedforsecurity=False).hexdigest()


OAK_ID, ELM_ID = (row_id("BLUETOOTH", unit["device_ip"], unit["lat"], unit["lon"]) for unit in (OAK, ELM))
RADAR_ID = row_id("RADAR", None, RADAR["device_ip"], RADAR["lat"], RADAR["lon"])


def reads(day: date) -> list[tuple]:
    """Host's time, the reader's address, its own time (the first lies before midnight), the reader, the phone."""
    return [
        (at(day, 3), "10.20.0.40", at(day, -4), "oak_2nd", PHONES[2]),
        (at(day, 12), "10.20.0.50", at(day, 9), "elm_2nd", PHONES[1]),
        (at(day, 100), "10.20.0.40", at(day, 97), "oak_2nd", PHONES[1]),
        (at(day, 150), "10.20.0.66", at(day, 149), STRAY, PHONES[3]),
    ]


def matches(day: date) -> list[tuple]:
    """The phone, from where to where, from when (the first before midnight) to when, seconds, miles an hour, whether it is valid, a filter."""
    return [
        (PHONES[0], "oak_2nd", "elm_2nd", at(day, -610), at(day, -22), 588, 6, "invalid", 41),
        (PHONES[1], "oak_2nd", "elm_2nd", at(day, 240), at(day, 317), 77, 19, "valid", 41),
    ]


def sums(day: date) -> list[tuple]:
    """A pair's quarter hours, the first of them without a sample."""
    pair = ("oak_2nd", "elm_2nd", "2nd", "Oak", "Eastbound", "2nd", "Elm", "Westbound", "0.412")
    return [(*pair, at(day, 0), -1, -1, 15, 0, -1), (*pair, at(day, 900), 82, 18, 15, 6, 4)]


def counts(day: date) -> list[tuple]:
    """Two quarter hours of three detectors, not in the order of their numbers, and one of an intersection that the inventory lacks."""
    return [
        (5, 14, at(day, 0), "OAKSECOND", "EB_in", 23, 1, 29, "Working", 100, 3, 23),
        (4, 14, at(day, 0), "OAKSECOND", "EB_out", 12, 0, 27, "Working", 100, 0, 12),
        (6, 14, at(day, 900), "OAKSECOND", "WB_in", 41, 3, 33, "Working", 100, 1, 41),
        (31, 88, at(day, 3180), "ELSEWHERE", "NB_out", 0, 0, 0, "Failed", 0, 0, 0),
    ]


def raw_day(kind: str, day: date) -> str:
    """That day's file, as the city's systems leave it."""
    if kind == "radar":
        lines = [RADAR_HEAD, *(",".join(map(str, row)) for row in counts(day))]
    else:
        rows, seconds = {"unmatched": (reads, ":%S"), "matched": (matches, ":%S"), "traf_match_summary": (sums, "")}[kind]
        lines = [",".join(clock(cell, seconds) if isinstance(cell, datetime) else str(cell) for cell in row) for row in rows(day)]
    return "\n".join(lines) + "\n"


def due(kind: str, day: date) -> list[dict[str, Any]]:
    """What is to be published of that day's file, given the day's other files; a time as the portal shows it."""
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in {"unmatched": _due_reads, "matched": _due_matches, "traf_match_summary": _due_sums, "radar": _due_counts}[kind](day)
    ]


def _due_reads(day: date) -> list[dict[str, Any]]:
    return [
        {
            "host_read_time": host, "field_device_read_time": field, "reader_identifier": reader, "device_address": NUMBERS[phone],
            "record_id": row_id(host, reader, NUMBERS[phone]),
        }
        for host, _, field, reader, phone in reads(day) if reader != STRAY
    ]  # fmt: skip


def _due_matches(day: date) -> list[dict[str, Any]]:
    return [
        {
            "device_address": NUMBERS[phone], "origin_reader_identifier": origin, "destination_reader_identifier": end,
            "travel_time_seconds": seconds, "speed_miles_per_hour": speed, "match_validity": validity,
            "filter_identifier": of, "start_time": start, "end_time": ended,
            "day_of_week": f"{start:%A}", "record_id": row_id(start, ended, origin, end, NUMBERS[phone]),
        }
        for phone, origin, end, start, ended, seconds, speed, validity, of in matches(day)
    ]  # fmt: skip


def _due_sums(day: date) -> list[dict[str, Any]]:
    names = (
        "origin_reader_identifier", "destination_reader_identifier", "origin_roadway", "origin_cross_street", "origin_direction",
        "destination_roadway", "destination_cross_street", "destination_direction", "segment_length_miles", "timestamp",
        "average_travel_time_seconds", "average_speed_mph", "summary_interval_minutes", "number_samples", "standard_deviation",
    )  # fmt: skip
    return [{**dict(zip(names, row, strict=True)), "record_id": row_id(row[9], row[0], row[1], row[8])} for row in sums(day)]


def _due_counts(day: date) -> list[dict[str, Any]]:
    return [
        {
            "detid": detector, "int_id": number, "curdatetime": wall, "intname": name, "detname": lane, "volume": volume, "occupancy": occupancy,
            "speed": speed, "month": wall.month, "day": wall.day, "year": wall.year, "hour": wall.hour, "minute": wall.minute,
            "day_of_week": int(f"{wall:%w}"), "timebin": f"{wall:%H:%M}", "direction": lane[:2], "row_id": row_id(name, wall, detector),
        }
        for detector, number, wall, name, lane, volume, occupancy, speed, *_ in sorted(counts(day), key=lambda row: (row[2], row[0]))
        if name != "ELSEWHERE"
    ]  # fmt: skip


# the days of the original: beside the checkout, or nowhere

ORIGINAL = Path(settings.BASE_DIR).parent / "shared" / "data" / "sensors"
needs_the_original = pytest.mark.skipif(
    not ORIGINAL.is_dir(), reason=f"NOT TESTED: {ORIGINAL} is not here, so nobody can say whether atd-data-lake published the very same rows"
)
ORIGINAL_UNITS = [
    {**OAK, "device_name": "lamar_mlk", "device_ip": "172.16.132.68", "lat": 30.2715378, "lon": -97.7539673},
    {**ELM, "device_name": "lamar_6th", "device_ip": "172.16.132.72", "lat": 30.2836018, "lon": -97.7520752},
]
ORIGINAL_RADAR = {**RADAR, "device_ip": "10.0.0.9", "lat": 30.2715378, "lon": -97.7539673, "kits_id": 1}


def original(kind: str, day: date) -> str:
    """The original's raw file of that day."""
    folder = "wavetronix_raw" if kind == "radar" else "bluetooth_raw"
    return (ORIGINAL / folder / f"{day:{NAMES[kind]}}").read_text()


def golden(name: str) -> list[list[dict]]:
    """What the original published, a list a day."""
    return [json.loads(line) for line in (ORIGINAL / "golden" / f"soc_{name}.jsonl").read_text().splitlines()]


# blocks


def terms(code: str, day: date) -> Terms:
    chicago = ZoneInfo("America/Chicago")
    starts_at = datetime(day.year, day.month, day.day, tzinfo=chicago)
    ends_at = datetime.combine(day + timedelta(days=1), starts_at.timetz())
    return Terms(code, day, chicago.key, starts_at.astimezone(UTC), ends_at.astimezone(UTC), ends_at.astimezone(UTC) + timedelta(hours=8))


@dataclass
class Told:
    """What a verb yielded, with its files read."""

    made: list[Made]
    refused: list[Refused]

    @classmethod
    def by(cls, yielded) -> "Told":
        yielded = list(yielded)
        return cls([one for one in yielded if isinstance(one, Made)], [one for one in yielded if isinstance(one, Refused)])

    @property
    def rows(self) -> list[dict]:
        [made] = self.made
        return list(Document(made.path).rows())

    @property
    def table(self) -> list[dict]:
        [made] = self.made
        return table_of(made)

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.refused]


def table_of(made: Made) -> list[dict]:
    with made.table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def standardize(reader, folder: Path, body: str | bytes, ext: str) -> Told:
    """One raw file of these bytes as a document, its counts proven."""
    raw = folder / f"raw-{ext}"
    raw.write_bytes(body.encode() if isinstance(body, str) else body)
    before = reader.tally.rows_in, reader.tally.rows_out, reader.tally.rejected
    told = Told.by(reader.standardize(Raw(raw, reader.terms.name("Austin", ext), "Austin", ext), folder))
    counts = tuple(now - then for now, then in zip((reader.tally.rows_in, reader.tally.rows_out, reader.tally.rejected), before, strict=True))
    rows = sum(made.rows for made in told.made)
    assert counts == (rows + len(told.refused), rows, len(told.refused))
    # what was written is JSON for any reader, not only for ours
    assert all(len(json.loads(made.path.read_bytes())["data"]) == made.rows for made in told.made)
    return told


def ready(reader, folder: Path, documents: list[Standard], units: list[dict]) -> Told:
    """These documents joined, their counts proven."""
    told = Told.by(reader.ready(documents, units, folder))
    tally = reader.tally
    rows = sum(made.rows for made in told.made)
    own = sum(sum(1 for _ in Document(one.path).rows()) for one in documents if not one.role)
    assert (tally.rows_in, tally.rows_out, tally.rejected) == (own, rows, len(told.refused)) and own == rows + len(told.refused)
    assert all(made.table_rows == made.rows == len(table_of(made)) for made in told.made)
    return told


def standard_of(made: Made, role: str = "") -> Standard:
    return Standard(made.path, made.base, made.ext, made.header, role=role)


def published(table: list[dict]) -> list[dict]:
    """Rows of a table without their devices, which the portal does not get."""
    return [{name: cell for name, cell in row.items() if "device_id" not in name} for row in table]


def as_cells(rows: list[dict]) -> list[dict]:
    """Rows that are due as cells of a CSV file."""
    return [{name: str(value) for name, value in row.items()} for row in rows]
