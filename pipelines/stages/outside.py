"""How a stage, a form or the doctor reaches an outside system: a connector with its account and the one door out."""

from collections.abc import Callable

from django.conf import settings

from pipelines.connectors.base import Connector
from pipelines.connectors.http import Door
from pipelines.models import Provider


def connector(provider: Provider, on_event: Callable[[str, str], None] = lambda level, text: None) -> Connector:
    """The connector of this provider, its secrets resolved and known to the door. Raises SetupError."""
    account = provider.account()
    door = Door(settings.OUTBOUND_ALLOW, secrets=tuple(account.secrets.values()), owner=f"provider {provider.slug}", on_event=on_event)
    return provider.connector_class(account, door)
