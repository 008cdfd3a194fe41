"""What the sources of Toronto's six dataset files hold, from a seed: as untidy as a city's own files are (facts/toronto.md §3.4).

Each function gives a `Made`: the same arguments give the same bytes, whenever they are asked. `misfits` rows hold a value that is
none of its declared type, so that a reader has something to reject. `FILES` and `ROADS_PATH` say at which path each lies.

    made = development_pipeline(200)
    made.body, made.rows, made.misfits
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

CSV = "text/csv"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
JSON = "application/json"

#: The years of which the city has a workbook of grants.
GRANT_YEARS = (2022, 2023, 2024, 2025)
ROADS_PATH = "/b9WvedVPoizGfvfD/ArcGIS/rest/services/COTGEO_TOINVIEW_PROGRAM_LINE/FeatureServer/0"
ROADS_PROGRAM = "TS_Road_Reconstruction"

_STREETS = ("Bloor St W", "Danforth Ave", "Dufferin St", "Eglinton Ave E", "Finch Ave W", "King St W", "Queen St E", "Rue de l'Étang", "Yonge St")
_STATIONS = ("BLOOR STATION", "FINCH STATION", "KENNEDY BD STATION", "KIPLING STATION", "SHEPPARD WEST STATION", "ST GEORGE YUS STATION")
_CODES = {
    "EUDO": "Door Problems - Faulty Equipment", "MUIS": "Injured or ill Customer (In Station) - Transported", "MUSAN": "Unsanitary Vehicle",
    "PUMEL": "Escalator/Elevator Incident", "SUDP": "Disorderly Patron", "TUO": "Late Entering Service",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """One file: its bytes, how many records it has, and how many of them a reader must refuse."""

    body: bytes = field(repr=False)
    content_type: str
    rows: int
    misfits: int = 0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


# ttc-subway-delay-data


def subway_delays(count: int = 200, *, seed: int = 1, first: date = date(2025, 1, 1), misfits: int = 0) -> Made:
    """CSV, dates as 20250101, line ends of Windows; every 40th station has a line break in its quotes; many delays are 0."""
    chance, rows = random.Random(f"subway/{seed}"), []
    for number in range(count):
        day = first + timedelta(days=number // 40)
        station = chance.choice(_STATIONS)
        delay = chance.choice((0, 0, 3, 5, 12))
        rows.append([
            f"{day:%Y%m%d}" if number >= misfits else "20250230",
            f"{chance.randrange(24):02}:{chance.randrange(60):02}",
            f"{day:%A}",
            station.replace(" ", "\n", 1) if number % 40 == 7 else station,
            chance.choice(list(_CODES)),
            delay,
            delay + 4 if delay else 0,
            chance.choice(("N", "S", "E", "W", "")),
            chance.choice(("YU", "BD", "SHP", "YU/BD")),
            5000 + chance.randrange(900),
        ])  # fmt: skip
    header = ("Date", "Time", "Day", "Station", "Code", "Min Delay", "Min Gap", "Bound", "Line", "Vehicle")
    return Made(_csv(header, rows, ending="\r\n").encode(), CSV, count, min(misfits, count))


def subway_codes() -> Made:
    """A workbook of two sheets, of which the second, "Subway Code Description", is wanted; spaces around its words."""
    sheets = {
        "Read me": [("About",), ("Codes of the subway",)],
        "Subway Code Description": [("CODE ", " DESCRIPTION"), *((f" {code}", f"{words} ") for code, words in _CODES.items())],
    }
    return Made(workbook(sheets), XLSX, len(_CODES))


# development-pipeline


def development_pipeline(count: int = 200, *, seed: int = 1, misfits: int = 0) -> Made:
    """CSV in UTF-8 with a byte order mark; dates as 3/15/2024, areas as "1,000", wards as 3.0, zeros, and line breaks in quotes."""
    chance, rows = random.Random(f"pipeline/{seed}"), []
    for number in range(count):
        homes, area = 0 if number % 12 == 5 else chance.randrange(3, 900, 3), chance.randrange(0, 90_000, 250)
        other = chance.choice((0, 0, 1000, 2450.5))
        received = date(2016, 1, 1) + timedelta(days=chance.randrange(3200))
        description = f"Proposal for {homes} units, on {chance.choice(_STREETS)}."
        rows.append([
            chance.choice(("Built", "Active", "Under Review")),
            f"{received:%y} {100_000 + number} STE {number % 25 + 1:02} OZ",
            f"{received.month:02}/{received.day:02}/{received.year}" if number % 17 else "",
            f"{description}\nRevised \"as of right\"." if number % 25 == 3 else description,
            f"{chance.randrange(1, 3000)} {chance.choice(_STREETS)}",
            "not known" if number < misfits else f"{number % 25 + 1}.0" if number % 5 == 4 else number % 25 + 1,
            f"{area:,}",
            f"{other:,}",
            f"{area + other:,}",
            homes if number % 11 else "",
            f"https://aic.example/{number}" if number % 3 else "",
        ])  # fmt: skip
    header = (
        "Pipeline Status", "Application Number", "Date Received", "Description", "Address", "Ward", "Proposed Residential Gross Floor Area",
        "Proposed Non-Residential Gross Floor Area", "Proposed Gross Floor Area", "Proposed Residential Units",
        "Application Information Centre Link",
    )  # fmt: skip
    return Made(_csv(header, rows).encode("utf-8-sig"), CSV, count, min(misfits, count))


# community-grants-allocations

_LEGEND = (
    ("Field Name / Item / Column name ", "Description / Definition", "Comments / Examples"),
    ("CSP", "Community Services Partnerships", None),
    ("AIF", "Access, Equity and Human Rights ", "until 2023"),
    ("TAC", "Toronto Arts Council", 0),
)
LEGEND_ROWS = len(_LEGEND) - 1


def grants(year: int = 2024, count: int = 60, *, seed: int = 1) -> Made:
    """A workbook of a year with the sheets "Grants Allocations" (`rows` is of this one) and "Legend" (LEGEND_ROWS).

    Spaces at the ends of headers, whole numbers as 3.0 and 3, zeros, empty cells, and an empty row at the end.
    """
    chance = random.Random(f"grants/{year}/{seed}")
    rows: list[tuple[Any, ...]] = [
        ("Organization", "Total Number of Grants", " Ward", "Service Area", "Total Funding Amount ", "Funding Program", "Division")
    ]
    for number in range(count):
        amount = chance.choice((0, 1000, 12_500, 45_250.5))
        rows.append((
            f"{chance.choice(('Café', 'Centre', 'Maison', 'Friends'))} of {chance.choice(_STREETS)} {number}",
            float(chance.randrange(1, 5)) if number % 4 else chance.randrange(0, 2),
            chance.choice(("City-wide", "12", None)),
            chance.choice(("City-wide", "Local ", "Neighbourhood")),
            amount,
            chance.choice(("CSP", "AIF", "TAC")),
            "Social Development",
        ))  # fmt: skip
    return Made(workbook({"Grants Allocations": [*rows, (None,) * 7], "Legend": _LEGEND}), XLSX, count)


# dinesafe


def dinesafe(count: int = 60, *, seed: int = 1) -> Made:
    """JSON: establishments with inspections, these with infractions, these with prosecutions; each list may be null. `rows` are establishments.

    Some infractions come twice; some prosecutions are pending, without date and amount; amounts are 0 or 365.0; ids are texts.
    """
    chance, made = random.Random(f"dinesafe/{seed}"), []
    for number in range(count):
        inspections: list[dict[str, Any]] | None = []
        for visit in range(chance.randrange(0, 4)):
            day = date(2023, 1, 1) + timedelta(days=number + 120 * visit)
            infractions = [_infraction(chance, day) for _ in range(chance.randrange(0, 3))]
            inspections.append({
                "inspectionId": str(900_000 + number * 10 + visit),
                "inspectionDate": f"{day}",
                "inspectionStatus": chance.choice(("Pass", "Pass", "Conditional Pass", "Closed")),
                "observation": chance.choice((None, "Fail to hold\nfood cold")),
                "infractions": [*infractions, *infractions[:1]] if number % 9 == 4 else infractions or None,
            })  # fmt: skip
        if number % 13 == 5:
            inspections = None
        made.append({
            "estId": str(10_000 + number), "oldEstId": None, "estName": f"CAFÉ {number}", "estType": "Restaurant",
            "address": f"{number * 7 + 1} {chance.choice(_STREETS)}", "unit": "Unit-2" if number % 6 == 1 else None, "postal": "M5V 2H1", "phone": "",
            "latitude": round(43.6 + chance.random() / 5, 5), "longitude": round(-79.6 + chance.random() / 3, 5), "inspections": inspections,
        })  # fmt: skip
    return Made(_json(made), JSON, count)


def _infraction(chance: random.Random, day: date) -> dict[str, Any]:
    prosecutions = [
        {
            "outcomeDate": None if is_pending else f"{day + timedelta(days=90)}",
            "outcomeDesc": "Pending" if is_pending else "Conviction - Fined",
            "amountFined": None if is_pending else chance.choice((0, 365.0, 1250)),
        }
        for is_pending in chance.choice(((), (), (False,), (True,)))
    ]
    return {
        "typeDesc": chance.choice(("Food Safety Training", "Sanitation - Sec. 7(1)(e)", "Storage of food")),
        "deficiencyDesc": 'Fail to ensure, "always"',
        "severity": chance.choice(("M - Minor", "S - Significant", "C - Crucial")),
        "actionDesc": chance.choice(("Notice to Comply", "Ticket")),
        "prosecutions": prosecutions or None,
    }


# traffic-and-parking-by-law-schedules


def by_laws(count: int = 44, *, seed: int = 1) -> Made:
    """JSON whose rows lie under "value", with lists and objects in them, empty ones among them; some council dates are null."""
    chance, made = random.Random(f"by-laws/{seed}"), []
    for number in range(count):
        day = date(2015, 3, 31) + timedelta(days=chance.randrange(3000))
        table = [
            {"Highway": chance.choice(_STREETS), "Side": "Both", "Times and/or Days": "7:00 a.m. to 9:00 a.m.", "Zone": row}
            for row in range(number % 4)
        ]
        made.append({
            "scheduleName": f"SCHEDULE {number + 1}",
            "displayName": f"Schedule {number + 1}: “No Stopping”",
            "description": f"No Stopping\n(Chapter 950-{1300 + number})",
            "byLawDetailFields": [{"name": "Highway", "order": 0}, {"name": "Side", "order": 1}],
            "latestRegulationActionByLaw": f"{100 + number}-{day.year}",
            "latestRegulationActionByStatus": chance.choice(("Added", "Amended", "Deleted")),
            "latestRegulationActionCouncilDate": None if number % 10 == 9 else f"{day}",
            "latestRegulationActionEffectiveDate": None,
            "regulationActions": [{"byLaw": f"{100 + number}-{day.year}", "status": "Added", "pages": 0}],
            "regulationActionsSummary": f"[Added {day} by By-law No. {100 + number}-{day.year}]" if number % 3 else "",
            "tableData": {"columns": list(table[0]) if table else [], "rows": table},
            "parsedTableData": None,
        })  # fmt: skip
    return Made(_json({"@odata.context": "files", "value": made}), JSON, count)


# road-reconstruction-program

#: (name, Esri's type) as the layer has them: what the dataset file names, and what it does not.
ROAD_FIELDS = (
    ("OBJECTID", "esriFieldTypeOID"), ("PROJ_NUM", "esriFieldTypeString"), ("LAST_UPDATED_DATE", "esriFieldTypeDate"),
    ("INV_PROJECT", "esriFieldTypeString"), ("INV_LOCATION", "esriFieldTypeString"), ("INV_DETAIL", "esriFieldTypeString"),
    ("INV_DURATION_PUBLIC", "esriFieldTypeString"), ("INV_STATUS", "esriFieldTypeString"), ("INV_PRIORITY", "esriFieldTypeString"),
    ("INV_OWNER", "esriFieldTypeString"), ("INV_PUBLIC_CONTACT_NAME", "esriFieldTypeString"), ("INV_PUBLIC_CONTACT_EMAIL", "esriFieldTypeString"),
    ("INV_WEB_SITE", "esriFieldTypeString"), ("INV_DISPLAY_PROGRAM", "esriFieldTypeString"), ("INV_DISPLAY_SYMBOL", "esriFieldTypeString"),
    ("INV_START_YEAR", "esriFieldTypeSmallInteger"), ("CONTR_NUMBER", "esriFieldTypeString"), ("EST_COST", "esriFieldTypeDouble"),
    ("GlobalID", "esriFieldTypeGlobalID"), ("Shape__Length", "esriFieldTypeDouble"), ("PHOTO", "esriFieldTypeBlob"),
)  # fmt: skip


def road_works(count: int = 120, *, seed: int = 1) -> list[dict[str, Any]]:
    """Features in GeoJSON with the values of ROAD_FIELDS; every fourth is of another program than ROADS_PROGRAM.

    Object ids begin at 0, some are left out; every 20th has no geometry; dates are milliseconds of the epoch or null.
    """
    chance, features = random.Random(f"roads/{seed}"), []
    for number in range(count):
        start = [round(-79.55 + chance.random() / 3, 6), round(43.62 + chance.random() / 6, 6)]
        updated = datetime(2024, 3, 15, 10, 20, tzinfo=UTC) + timedelta(hours=number)
        street, year = chance.choice(_STREETS), 2025 + number % 3
        properties = {
            "OBJECTID": number + number // 7 * 3, "PROJ_NUM": f"P-{1000 + number}",
            "LAST_UPDATED_DATE": None if number % 15 == 8 else int(updated.timestamp() * 1000),
            "INV_PROJECT": "Road Reconstruction", "INV_LOCATION": f"{street}: from 1 to {number}",
            "INV_DETAIL": "New road, curbs\nand sidewalks" if number % 10 == 1 else "New road", "INV_DURATION_PUBLIC": f"{year} - {year + 1}",
            "INV_STATUS": chance.choice(("Planned", "Under Construction", None)), "INV_PRIORITY": "0", "INV_OWNER": "Transportation Services",
            "INV_PUBLIC_CONTACT_NAME": "Capital Works", "INV_PUBLIC_CONTACT_EMAIL": "works@practice.city", "INV_WEB_SITE": "",
            "INV_DISPLAY_PROGRAM": ROADS_PROGRAM if number % 4 != 3 else "TS_Cycling", "INV_DISPLAY_SYMBOL": "line", "INV_START_YEAR": year,
            "CONTR_NUMBER": f"{year % 100}ECS-TI-{number:02}" if number % 5 else None, "EST_COST": chance.choice((0, 125_000, 2_400_000.5)),
            "GlobalID": hashlib.md5(f"{seed}/{number}".encode(), usedforsecurity=False).hexdigest(),
            "Shape__Length": 0 if number % 20 == 18 else 812.25,
        }  # fmt: skip
        line = {"type": "LineString", "coordinates": [start, [round(start[0] + 0.004, 6), round(start[1] + 0.001, 6)]]}
        features.append({"type": "Feature", "id": properties["OBJECTID"], "geometry": None if number % 20 == 18 else line, "properties": properties})
    return features


# of no dataset file of the six, but of some of the other 217


def licences_latin1(count: int = 30, *, seed: int = 1) -> Made:
    """CSV in ISO 8859-1, with letters that UTF-8 writes otherwise, coordinates of which some are empty, and numbers in quotes."""
    chance, rows = random.Random(f"licences/{seed}"), []
    for number in range(count):
        has_place = number % 6 != 5
        rows.append([
            f"B{70_000 + number}", f"Pâtisserie Élan {number}", f"{chance.randrange(1, 400)} {chance.choice(_STREETS)}",
            43.6 + number / 1000 if has_place else "", -79.4 + number / 1000 if has_place else "", f"{chance.randrange(0, 9000, 1000):,}",
            f"{date(2020, 1, 1) + timedelta(days=number * 9):%d-%b-%Y}",
        ])  # fmt: skip
    header = ("Licence No.", "Operating Name", "Address", "Latitude", "Longitude", "Fee", "Issued")
    return Made(_csv(header, rows).encode("latin-1"), CSV, count)


# where they lie

_TTC = "/toronto.transit.commission/ttc-routes-and-schedules/ttc-subway-delay"
GRANTS_TEMPLATE = "/social.development.finance.administration/community-grants/community-grants-allocations-yyyy.xlsx"
DINESAFE_PATH = "/opendata/ds_od/inpections/v2"

#: The paths of the web files that the dataset files name (their hosts are two), and what makes each.
FILES: dict[str, Callable[[], Made]] = {
    f"{_TTC}.csv": subway_delays,
    f"{_TTC}.xlsx": subway_codes,
    "/city.planning/development-pipeline/DevelopmentPipelineDashboard.csv": development_pipeline,
    "/transportation.services/traffic-and-parking-by-law-schedules/files.json": by_laws,
    DINESAFE_PATH: dinesafe,
    "/municipal.licensing.and.standards/business-licences/licences.csv": licences_latin1,
    **{GRANTS_TEMPLATE.replace("yyyy", str(year)): (lambda year=year: grants(year)) for year in GRANT_YEARS},
}


# how they are written


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]], *, ending: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def workbook(sheets: dict[str, Iterable[Sequence[Any]]]) -> bytes:
    """An Excel file with these sheets, in their order: the same rows give the same bytes."""
    # here, and not above: the practice city starts without it
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    held, plain = io.BytesIO(), io.BytesIO()
    book.save(held)
    # openpyxl writes the hour of its writing into the book and onto each of its parts
    with zipfile.ZipFile(held) as written, zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in written.namelist():
            part = written.read(name)
            if name == "docProps/core.xml":
                part = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2024-01-02T03:04:05Z", part)
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
    return plain.getvalue()
