"""A block of a sensor's format, and what is asked of it: raw files in, documents, tables and refusals out."""

import csv
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pipelines.formats.sensors import Document, Made, Raw, Standard, Terms
from pipelines.formats.standard import Refused

SAMPLES = Path(__file__).parent / "sensors"


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


def golden(name: str) -> list[list[dict]]:
    """What the original published, a list a day."""
    return [json.loads(line) for line in (SAMPLES / f"soc_{name}.jsonl").read_text().splitlines()]


def published(table: list[dict]) -> list[dict]:
    """Rows of a table without their devices, which the portal does not get."""
    return [{name: cell for name, cell in row.items() if "device_id" not in name} for row in table]


def as_cells(rows: list[dict]) -> list[dict]:
    """A golden's rows as cells of a CSV file."""
    return [{name: str(value) for name, value in row.items()} for row in rows]
