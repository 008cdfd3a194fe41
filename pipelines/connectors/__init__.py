"""The connectors: every module in this folder is imported, and a Connector that is defined is registered."""

from importlib import import_module
from pkgutil import iter_modules

from pipelines.connectors.base import REGISTRY, Connector
from pipelines.errors import SetupError


def discover() -> None:
    """Import every module of this folder; one that is imported already is not run again."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


discover()


def connector_for(kind: str) -> type[Connector]:
    """The connector class of `kind`. Raises SetupError naming the kinds that there are."""
    try:
        return REGISTRY[kind]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise SetupError(
            f"no connector is of the kind {kind!r}; the kinds are: {known}",
            code="unknown-kind",
            next_step="Choose one of these kinds for the provider.",
        ) from None
