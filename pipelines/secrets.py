"""Secrets: where they lie, how they are opened, and how they are kept out of every line that anybody reads.

A stored secret is `env:NAME` (the value stays in the environment) or `fernet:<token>`, encrypted by the first of
FERNET_KEYS and readable by any of them.
"""

import logging
import os

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from pipelines.connectors.redaction import Redactor
from pipelines.errors import SetupError

ENV, SEALED = "env:", "fernet:"
MASK = "••••••"
#: The program's own secrets: a provider that names one would carry it out of the house.
OWN_NAMES = frozenset({"SECRET_KEY", "SECRET_KEY_FALLBACKS", "FERNET_KEYS", "DATABASE_URL", "WAREHOUSE_URL", "WAREHOUSES", "QUEUE_URL"})
OWN_PREFIXES = ("AWS_", "PG")

#: Knows every secret that this process has opened; all that is logged, stored as a message or shown goes through it.
redact = Redactor()


def _box() -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in settings.FERNET_KEYS])
    except ValueError as error:
        raise SetupError(
            "FERNET_KEYS holds something that is not a Fernet key.",
            code="fernet-key",
            next_step="Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'",
        ) from error


def seal(value: str) -> str:
    """What to store for `value`: a reference as it is, an already sealed one as it is, anything else encrypted."""
    if value.startswith(ENV):
        _not_our_own(value.removeprefix(ENV))
    if value.startswith((ENV, SEALED)):
        return value
    return SEALED + _box().encrypt(value.encode()).decode()


def reveal(stored: str) -> str:
    """The secret itself. Raises SetupError that says which variable or key is missing, never the value."""
    secret = _open(stored)
    redact.learn(secret)
    return secret


def _open(stored: str) -> str:
    if stored.startswith(ENV):
        name = stored.removeprefix(ENV)
        _not_our_own(name)
        if name not in os.environ:
            raise SetupError(f"the environment has no {name}.", code="secret-missing", next_step=f"Set {name} for the web and the workers.")
        return os.environ[name]
    if not stored.startswith(SEALED):
        raise SetupError("it is stored neither as env:NAME nor encrypted.", code="secret-unsealed", next_step="Enter it again in the admin.")
    try:
        return _box().decrypt(stored.removeprefix(SEALED).encode()).decode()
    except InvalidToken:
        raise SetupError(
            "none of FERNET_KEYS opens it.",
            code="secret-locked",
            next_step="Put the key that sealed it back into FERNET_KEYS, or enter the secret again.",
        ) from None


def _not_our_own(name: str) -> None:
    if name in OWN_NAMES or name.startswith(OWN_PREFIXES):
        raise SetupError(
            f"{name} is a secret of this program itself and is given to no provider.",
            code="own-secret",
            next_step="Keep the provider's secret under a name of its own, for example PORTAL_PASSWORD.",
        )


def describe(stored: str) -> str:
    """How a stored secret is shown: the name of its variable, or a mask."""
    return stored if stored.startswith(ENV) else MASK


def rotate(stored: str) -> str:
    """The same secret under the first key. References stay. Raises SetupError where no key opens it."""
    if stored.startswith(ENV):
        return stored
    return SEALED + _box().encrypt(reveal(stored).encode()).decode()


class RedactFilter(logging.Filter):
    """Masks token-like values in every line that is logged, tracebacks' messages included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = redact(record.getMessage())
        record.args = None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
