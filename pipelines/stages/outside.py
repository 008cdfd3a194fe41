"""How a stage, a form or the doctor reaches an outside system: a connector with its account and the one door out."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from catalog.models import InventoryEdition
from pipelines.connectors.base import Connector
from pipelines.connectors.http import Door
from pipelines.models import Pipeline, Provider


def connector(provider: Provider, on_event: Callable[[str, str], None] = lambda level, text: None) -> Connector:
    """The connector of this provider, its secrets resolved and known to the door. Raises SetupError."""
    account = provider.account()
    door = Door(settings.OUTBOUND_ALLOW, secrets=tuple(account.secrets.values()), owner=f"provider {provider.slug}", on_event=on_event)
    return provider.connector_class(account, door)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is fetched and looked at beside the runs, which have their own; gone with the block. What a killed process left is swept."""
    work = Path(settings.WORK_DIR)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="scratch-") as folder:
        yield Path(folder)


def options(pipeline: Pipeline) -> dict[str, Any]:
    """What a request says beside the rows that it wants: the pipeline's options, and the devices where its source asks those of the inventory."""
    if not pipeline.provider.connector_class.wants_devices:
        return pipeline.options
    newest = InventoryEdition.objects.filter(code=pipeline.inventory).order_by("-dated_at").first()
    return pipeline.options if newest is None else {**pipeline.options, "devices": newest.units}
