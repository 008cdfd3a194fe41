"""What every page of the console has around it: the city, the theme, and how the machinery is."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from opendata_ops import selectors

log = logging.getLogger(__name__)

THEME_COOKIE = "theme"
#: The button walks from the computer's own preference to dark, to light, and back.
NEXT_THEME = {"": "dark", "dark": "light", "light": ""}
THEME_WORDS = {"dark": "Dark", "light": "Light", "": "As my computer"}


@dataclass(frozen=True)
class Shell:
    """The rail's foot and its count; `machinery` is None when the database could not be asked."""

    now: object
    machinery: selectors.Machinery | None
    needs: int
    has_trips: bool = False


def shell(request: HttpRequest) -> dict:
    """Context processor. `shell` is lazy: pages that print nothing of it (errors, log-in) ask the database nothing."""
    theme = theme_of(request)
    return {
        "city": settings.CITY_NAME,
        "environment": settings.ENVIRONMENT,
        "theme": theme,
        "next_theme": THEME_WORDS[NEXT_THEME[theme]],
        "shell": SimpleLazyObject(lambda: _shell(request)),
    }


def theme_of(request: HttpRequest) -> str:
    theme = request.COOKIES.get(THEME_COOKIE, "")
    return theme if theme in NEXT_THEME else ""


def _shell(request: HttpRequest) -> Shell:
    now = timezone.now()
    try:
        # a savepoint where a transaction is open, so that a missing table does not spoil the page's own queries
        with transaction.atomic() if connection.in_atomic_block else nullcontext():
            # the first page has counted already
            rail = getattr(request, "rail", None) or selectors.rail(now)
            return Shell(now, selectors.machinery(now), rail.needs, rail.has_trips)
    except DatabaseError as error:
        # the page around a failure must stand: it says "unknown", and the log says why
        log.warning("The shell could not ask the database: %s", error)
        return Shell(now, None, 0)
