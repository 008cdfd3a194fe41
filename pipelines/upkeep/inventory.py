"""The inventory as an upkeep job: an edition a day from Knack, from a database or another provider of rows, or from an address."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from catalog import inventory
from catalog.audit import Actor
from catalog.inventory import Reading
from catalog.models import InventoryEdition
from pipelines import clock, secrets
from pipelines.connectors.base import Connector, FetchRequest, Parameter
from pipelines.connectors.http import Door
from pipelines.errors import DataError, SetupError
from pipelines.models import Provider, UpkeepJob, UpkeepRun
from pipelines.stages import outside
from pipelines.upkeep.jobs import Job, Note


class FetchInventory(Job):
    """What is fetched is dated the day on which it is fetched, as the original has it: data of the days before is matched with it."""

    kind = "inventory"
    label = "Fetch an inventory"
    about = "Fetches the devices of an inventory and keeps them as the edition of this day."
    options = (
        Parameter("code", "Inventory", required=True, help="Its code, for example bt."),
        Parameter("provider", "Provider", help="The slug of a provider: Knack, a database, a portal. Empty: the address below."),
        Parameter("resource", "Table, query or dataset", help="Of Knack nothing: it knows inventories by their code."),
        Parameter("address", "Address", help="Of a JSON document, a JSON list or a CSV file, where no provider is named."),
        Parameter("authorization", "Authorization", help="env:NAME of the variable that holds what this header says. Empty: none."),
        Parameter("replace", "Replace this day's edition", default="no", help="yes: other devices take the place of those fetched earlier this day."),
        Parameter("least_percent", "Least (%)", default="50", help="Fewer devices than so many of a hundred of the last edition fail the job."),
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        code = str(job.options.get("code", "")).strip()
        if not code:
            raise _setup(job, "no inventory is named", "Say its code, such as bt, in the options.")
        least = self.number(job, "least_percent")
        replace = str(job.options.get("replace", "no")).strip().lower()
        if replace not in ("yes", "no"):
            raise _setup(job, f"replace is {replace!r}, and may be yes or no", "Correct it in the options.")
        note(f"Fetching the inventory {code}.")
        origin, reading = _fetched(job, code, note)
        note(f"{inventory.devices(len(reading.units))} came.", notes=reading.notes[:100], devices=len(reading.units))
        before = InventoryEdition.objects.filter(code=code).order_by("-dated_at").first()
        if before and len(reading.units) * 100 < len(before.units) * least:
            raise DataError(
                f"{origin} gave {inventory.devices(len(reading.units))}, and the edition dated {before.dated_at:%Y-%m-%d} has {len(before.units):,}.",
                code="inventory-small",
                next_step=f"Find out where they are. If they are gone, upload the edition by hand, or lower least_percent (now {least}) once.",
            )
        stored = inventory.store(
            code,
            inventory.today(clock.zone(job.time_zone)),
            reading.units,
            Actor(run.asked_by),
            origin=origin,
            reason=f"upkeep job {job.title}",
            replace=replace == "yes",
        )
        notes = len(reading.notes)
        odd = f" {notes:,} {'note' if notes == 1 else 'notes'} on what was not taken as it stood: see this run." if notes else ""
        against = f" Against the edition before: {inventory.difference(before.units, reading.units).words}." if _moved(before, stored) else ""
        return f"{stored.text}{against}{odd}"


def _moved(before: InventoryEdition | None, stored: inventory.Stored) -> bool:
    return before is not None and stored.verb != "same" and before.sha256 != stored.edition.sha256


def _setup(job: UpkeepJob, words: str, next_step: str) -> SetupError:
    return SetupError(f"{job}: {words}.", code="bad-option", next_step=next_step)


def _fetched(job: UpkeepJob, code: str, note: Note) -> tuple[str, Reading]:
    """(where they are from, the records). Raises PipelineError."""
    slug, address = (str(job.options.get(name, "")).strip() for name in ("provider", "address"))
    if bool(slug) == bool(address):
        raise _setup(job, "one of provider and address must be named, not both", "Correct it in the options.")
    if address:
        return _from_address(job, address)
    provider = Provider.objects.filter(slug=slug, is_active=True).first()
    if provider is None:
        raise _setup(job, f"there is no active provider {slug!r}", "Name one that there is, or switch it on.")
    connector = outside.connector(provider, lambda level, text: note())
    resource = str(job.options.get("resource", "")).strip()
    with connector.door:
        if units := getattr(connector, "units", None):
            return f"{provider.title}: {code}", inventory.of_records(f"{provider.title}, {code}", units(code))
        if not resource:
            raise _setup(job, f"what to read from {provider.title} is not said", "Name a table, a query or a dataset as resource.")
        return f"{provider.title}: {resource}", _read_rows(connector, provider.title, resource, note)


def _from_address(job: UpkeepJob, address: str) -> tuple[str, Reading]:
    told = str(job.options.get("authorization", "")).strip()
    header = secrets.reveal(told) if told else ""
    with Door(settings.OUTBOUND_ALLOW, secrets=(header,) if header else (), owner=f"the job {job.title}") as door:
        reply = door.ask("GET", address, headers={"Authorization": header} if header else {}, expect="text")
        name = Path(urlsplit(address).path).name or urlsplit(address).netloc
        # what the address asks for behind its ? may be a key
        return door.redact(address.partition("?")[0]), inventory.read(name, reply.body)


def _read_rows(connector: Connector, title: str, resource: str, note: Note) -> Reading:
    """All rows of a table, a query or a dataset, as CSV. Raises PipelineError."""
    request = FetchRequest(columns=connector.describe(resource).columns, format="csv")
    rows = connector.count(resource, request) if connector.can_count else None
    readings = []
    with tempfile.TemporaryDirectory(prefix="inventory-") as folder:
        for file in connector.fetch(resource, request, rows=rows, workdir=Path(folder), progress=lambda seen, of: note()):
            if file.rows:
                readings.append(inventory.read(f"{title}, {file.name}", file.path.read_bytes()))
    if not readings:
        raise DataError(f"{title} has no rows in {resource}.", code="inventory-empty", next_step="Check what is to be read in the job's options.")
    return Reading([unit for one in readings for unit in one.units], [words for one in readings for words in one.notes])
