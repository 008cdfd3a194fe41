"""Toronto's six dataset files on a stage: their sources served on this machine, a CKAN for them, and what of each row is due at every hop."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
import yaml
from django.conf import settings
from openpyxl import load_workbook

from catalog import lake
from catalog.models import CatalogEntry, Layer
from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.arcgis import ArcGIS
from opendata_ops.sandbox.files import WebFiles
from pipelines import blocks, importers, planner, runner, secrets, stages
from pipelines.errors import PipelineError
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, State
from pipelines.stages.note import Note
from tests.pipelines.scene import ANN, city

SIX = Path(settings.BASE_DIR).parent / "shared/data/toronto_yaml"
needs_six = pytest.mark.skipif(not SIX.is_dir(), reason=f"Toronto's six files are not here: {SIX}")
TTC = "/toronto.transit.commission/ttc-routes-and-schedules/ttc-subway-delay"
DEVELOPMENTS = "/city.planning/development-pipeline/DevelopmentPipelineDashboard.csv"
#: A row as what it says, whatever it is written in: a number is a float, a date its text, JSON its value, nothing None.
Row = dict[str, Any]


class Town:
    """The files are imported as they are; then their providers are pointed at this machine, and the portal's log-in is entered."""

    def __init__(self, files: WebFiles, layers: ArcGIS, address: str, key: str, folder: Path):
        self.files, self.layers, self.address, self.key, self.folder = files, layers, address, key, folder

    def take(self, *packages: str) -> None:
        self.read([SIX / f"{name}.yaml" for name in packages])
        portal = {"base_url": self.address, "is_active": True, "parameters": {"organization": "city"}, "secrets": {"api_key": secrets.seal(self.key)}}
        Provider.objects.filter(kind="ckan").update(**portal)

    def read(self, paths: list[Path]) -> importers.Report:
        """Import these files as a person does, and again lead their providers here."""
        report = importers.apply(importers.plan(paths), actor=ANN)
        Provider.objects.filter(kind="web_file").update(base_url=self.files.url)
        Provider.objects.filter(kind="arcgis").update(base_url=self.layers.url)
        return report

    def edited(self, package: str, *changes: tuple[str, str]) -> Path:
        """The file of a package with other words in it."""
        text = (SIX / f"{package}.yaml").read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = self.folder / f"{package}.yaml"
        path.write_text(text)
        return path

    # acting

    def go(self, **order: Any) -> dict[str, Run]:
        """Order the present blocks and do their stages in this process, as a worker does. Returns the last run of each pipeline."""
        return {pipeline.slug: self.walk(block) for pipeline, block in self.placed(**order)}

    def placed(self, **order: Any) -> list[tuple[Pipeline, int]]:
        found = []
        for pipeline in Pipeline.objects.order_by("pk"):
            placed = planner.place(planner.Order([pipeline], **order), actor=ANN, trigger="command", bell=False)
            assert placed.moved, placed.refused
            found += [(pipeline, block) for block in placed.moved]
        return found

    def walk(self, block_id: int) -> Run:
        while True:
            run = blocks.claim(block_id, holder="test")
            assert run is not None, ScheduleBlock.objects.get(pk=block_id).message
            workdir = self.folder / f"work{run.pk}"
            workdir.mkdir()
            try:
                outcome = stages.carry_out(run, Note(run, workdir, lambda done, total: None))
            except PipelineError as error:
                blocks.fail(run, error)
                raise
            block = blocks.advance(run, outcome)
            run.refresh_from_db()
            assert run.state in (RunState.DONE, RunState.UNCHANGED), run.message
            if block.state == State.DONE:
                return run

    def work(self, **order: Any) -> ScheduleBlock:
        """The same of the only pipeline in a process of its own, which may be killed."""
        [(_, block)] = self.placed(**order)
        runner.work_off([block], workers=1)
        return ScheduleBlock.objects.get(pk=block)

    # looking

    def action(self, name: str, **params: Any) -> Any:
        reply = requests.post(f"{self.address}/api/3/action/{name}", json=params, headers={"Authorization": self.key}, timeout=60)
        reply.raise_for_status()
        return reply.json()["result"]

    def package(self, name: str) -> dict[str, Any]:
        return self.action("package_show", id=name)

    def table(self, pipeline: Pipeline) -> dict[str, Any]:
        """The portal's resource of a pipeline."""
        package, _, name = pipeline.portal_resource.partition("/")
        [found] = [one for one in self.package(package)["resources"] if one["name"] == name]
        return found

    def portal(self, pipeline: Pipeline) -> list[Row]:
        found = self.action("datastore_search", resource_id=self.table(pipeline)["id"], limit=32_000)["records"]
        return ordered(pipeline, ({name: value for name, value in one.items() if name != "_id"} for one in found))

    def numbers(self, pipeline: Pipeline) -> list[int]:
        """CKAN's own numbers of the rows: one that was sent anew has another."""
        found = self.action("datastore_search", resource_id=self.table(pipeline)["id"], fields=["_id"], limit=32_000)["records"]
        return sorted(one["_id"] for one in found)

    def standard(self, pipeline: Pipeline) -> list[Row]:
        rows: list[Row] = []
        for entry in CatalogEntry.objects.live().filter(source=pipeline.slug, layer=Layer.STANDARD):
            path = lake.lake().local_path(entry.pointer, self.folder, sha256=entry.sha256)
            with path.open(encoding="utf-8", newline="") as file:
                rows += csv.DictReader(file)
        return ordered(pipeline, rows)

    def warehouse(self, pipeline: Pipeline) -> list[Row]:
        names = [one["name"] for one in pipeline.options["attributes"]]
        listed = ", ".join('"' + name.replace("%", "%%") + '"' for name in names)
        return ordered(pipeline, (dict(zip(names, row, strict=True)) for row in city(f'select {listed} from city."{pipeline.table}"')))

    def due(self, pipeline: Pipeline) -> list[Row]:
        """What the source's own bytes say, read in the plainest way there is."""
        attributes = attributes_of(pipeline)
        rows = [{name: said(one, row.get(source)) for source, name, one in attributes} for row in self._source(pipeline)]
        # the key that is made of a row's values is that of its equals too
        return ordered(pipeline, [row for place, row in enumerate(rows) if not pipeline.key or row not in rows[:place]])

    def _source(self, pipeline: Pipeline) -> Iterator[Mapping[str, Any]]:
        options = pipeline.options
        if pipeline.provider.kind == "arcgis":
            for feature in self.layers.layers[pipeline.resource].rows():
                if feature["properties"]["INV_DISPLAY_PROGRAM"] == toronto_rows.ROADS_PROGRAM:
                    yield {**feature["properties"], "geometry": feature["geometry"]}
        elif options.get("custom_reader"):
            yield from inspections(json.loads(self._bytes(pipeline.resource)))
        elif pipeline.format == "csv":
            text = self._bytes(pipeline.resource).decode("utf-8")
            yield from csv.DictReader(io.StringIO(text, newline=""))
        elif pipeline.format == "json":
            yield from json.loads(self._bytes(pipeline.resource))["value"]
        else:
            for label, path in self._editions(pipeline):
                header, *rows = load_workbook(io.BytesIO(self._bytes(path)))[options["sheet"]].iter_rows(values_only=True)
                for row in rows:
                    if any(cell is not None for cell in row):
                        cells = [cell.strip() if isinstance(cell, str) else cell for cell in row]
                        yield {**dict(zip([str(name).strip() for name in header], cells, strict=True)), "date_from_filename": label}

    def _editions(self, pipeline: Pipeline) -> list[tuple[str, str]]:
        if not pipeline.options.get("multi"):
            return [("", pipeline.resource)]
        return [(str(year), pipeline.resource.replace("yyyy", str(year))) for year in toronto_rows.GRANT_YEARS]

    def _bytes(self, path: str) -> bytes:
        return requests.get(self.files.url + path, timeout=10).content


def attributes_of(pipeline: Pipeline) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(name at the source, column, attribute) as YAML's own reader has them."""
    [package] = yaml.safe_load((SIX / f"{pipeline.dataset.slug}.yaml").read_text()).values()
    listed = package["resources"][pipeline.part]["attributes"]
    return [(one.get("source_name") or one["id"], one.get("target_name") or one["id"], one) for one in listed]


def inspections(establishments: list[Mapping[str, Any]]) -> Iterator[Row]:
    """Each prosecution with its infraction, inspection and establishment; what has none of the next is a row too."""
    for place in establishments:
        for visit in place["inspections"] or [{}]:
            for fault in visit.get("infractions") or [{}]:
                for outcome in fault.get("prosecutions") or [{}]:
                    yield {
                        **place, **visit, **fault, "OutcomeDate": outcome.get("outcomeDate"), "OutcomeDesc": outcome.get("outcomeDesc"),
                        "amountFined": outcome.get("amountFined"),
                    }  # fmt: skip


def said(attribute: Mapping[str, Any], value: Any) -> Any:
    """What a value of the source says, by the type and format of its attribute."""
    if value in (None, ""):
        return None
    match attribute["type"]:
        case "date" if attribute["format"] == "epoch":
            return datetime.fromtimestamp(value / 1000, UTC).astimezone(ZoneInfo("America/Toronto")).date().isoformat()
        case "date":
            return datetime.strptime(value, attribute["format"]).date().isoformat()
        case "int" | "float":
            return float(str(value).replace(",", ""))
        case "text" if not isinstance(value, dict | list):
            return str(value)
    return value


def ordered(pipeline: Pipeline, rows: Iterator[Row] | list[Row]) -> list[Row]:
    """The rows as what they say, in one order; without the key that the reader of dinesafe makes, which no source has."""
    kinds = {one["name"]: one["type"] for one in pipeline.options["attributes"] if one["name"] != "unique_id"}
    return sorted(({name: meant(kind, name, row.get(name)) for name, kind in kinds.items()} for row in rows), key=repr)


def meant(kind: str, name: str, value: Any) -> Any:
    if value in (None, ""):
        return None
    if kind == "json" or name == "geometry":
        return json.loads(value) if isinstance(value, str) else value
    if kind in ("int", "float"):
        return float(value)
    if kind == "date":
        return str(value)[:10]
    return str(value) if isinstance(value, Decimal) else value
