"""The warehouse: the only SQL on city data. `engine` finds the module that speaks to an address."""

from types import ModuleType

from pipelines.errors import SetupError
from pipelines.warehouse import mysql, postgres

ENGINES: dict[str, ModuleType] = {"postgres": postgres, "postgresql": postgres, "mysql": mysql, "mariadb": mysql}


def engine(dsn: str) -> ModuleType:
    """The engine of a warehouse's address. Raises SetupError for a scheme that none speaks."""
    scheme = dsn.partition("://")[0].lower()
    try:
        return ENGINES[scheme]
    except KeyError:
        raise SetupError(
            f"A warehouse's address begins with {', '.join(f'{name}://' for name in ENGINES)}; this one with {scheme[:20]!r}.",
            code="no-engine",
            next_step="Correct WAREHOUSE_URL or WAREHOUSES in the settings.",
        ) from None


def end_sessions(dsn: str, *, run_id: int) -> int:
    """End what a dead run left running in the warehouse at `dsn` ("" = none). Returns how many sessions."""
    return engine(dsn).end_sessions(dsn, run_id=run_id) if dsn else 0
