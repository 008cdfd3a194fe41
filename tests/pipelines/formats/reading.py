"""What the tests of table files read with: bytes and attributes in, rows, refusals and the reader's counts out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from pipelines.formats import custom
from pipelines.formats.attributes import parse
from pipelines.formats.custom_table import CustomTable
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.table_reader import TableReader, Terms

TORONTO = ZoneInfo("America/Toronto")
YAML = Path(__file__).parents[4] / "shared/data/toronto_yaml"


@dataclass
class Read:
    """What became of a file: the lines of the CSV without its header, the refused rows, the counts, and what nobody configured."""

    header: list[str]
    rows: list[list[str]]
    refused: list[Refused]
    tally: Tally
    extra: list[str]
    text: str
    reader: TableReader

    @property
    def why(self) -> list[tuple[int, str]]:
        return [(one.number, one.reason) for one in self.refused]

    @property
    def warnings(self) -> dict[str, int]:
        return dict(self.tally.warnings)


def attributes(*told: str | dict[str, Any]) -> list[dict[str, Any]]:
    """ "a:int", "a>b:date:%Y-%m-%d" (source a, name b) → attributes as a configuration has them."""
    made = []
    for one in told:
        if isinstance(one, str):
            name, kind, pattern = [*one.split(":", 2), "", ""][:3]
            source, _, name = name.rpartition(">")
            one = {"source": source or name, "name": name, "type": kind or "text", "format": pattern}
        made.append(one)
    return made


@pytest.fixture
def read(tmp_path):
    """Reads a file: `read(CsvTable, b"a\\n1\\n", "a:int")`."""
    return Bench(tmp_path)


class Bench:
    """Reads files of one test."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, kind: type[TableReader], body: bytes | str, *told: str | dict, about: dict | None = None, key: Sequence[str] = (), **options):
        return self.again(kind(terms(told, key, options)), body, about=about)

    def custom(self, name: str, body: bytes | str, *told: str | dict, joined: bytes | None = None, **options) -> Read:
        def helpers(role: str):
            if joined is not None and role == "joined":
                path = self.folder / "joined.xlsx"
                path.write_bytes(joined)
                yield path

        return self.again(CustomTable(terms(told, (), options), custom.find(name), helpers), body)

    def again(self, reader: TableReader, body: bytes | str, about: dict | None = None) -> Read:
        page, target = self.folder / "raw.file", self.folder / "made.csv"
        page.write_bytes(body.encode() if isinstance(body, str) else body)
        refused = list(reader.convert(page, target, about or {}))
        text = target.read_bytes().decode()
        with target.open(encoding="utf-8", newline="") as file:
            # a line of nothing is one empty cell
            header, *rows = [row or [""] for row in csv.reader(file)]
        tally = reader.tally
        assert tally.rows_in == tally.rows_out + tally.rejected + tally.duplicates
        return Read(header, rows, refused, tally, list(reader.extra), text, reader)


def terms(told: Sequence[str | dict], key: Sequence[str], options: dict[str, Any]) -> Terms:
    return Terms(parse({"attributes": attributes(*told)}), tuple(key), ZoneInfo(options.get("epoch_zone", "America/Toronto")), options)


def configured(package: str, resource: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The attributes and the other keys of a resource of Toronto's files; the test is skipped, loudly, where they are not."""
    path = YAML / f"{package}.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not here: it is data that the repository may not hold")
    told = yaml.safe_load(path.read_text(encoding="utf-8"))[package]["resources"][resource]
    made = []
    for one in told["attributes"]:
        source, name = one.get("source_name") or one["id"], one.get("target_name") or one["id"]
        made.append({"source": source, "name": name, "type": one["type"], "format": one.get("format", "")})
    return made, told
