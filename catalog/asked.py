"""What the address of a page asks for: days and numbers as people and links write them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

from django.utils import timezone


def day(text: str | None) -> tuple[date | None, str]:
    """The day that is asked for, and what is wrong with it in words: no day and no words for none, no day and words for what is no day."""
    text = (text or "").strip()
    try:
        return (date.fromisoformat(text) if text else None), ""
    except ValueError:
        return None, f"“{text}” is not a day. Write it like 2026-11-20; all days are shown."


def number(text: str | None) -> int | None:
    """The number of a row; None for anything else, and for one that is too long for the database."""
    return int(text) if text and text.isdecimal() and len(text) < 19 else None


def span(one: date) -> tuple[datetime, datetime]:
    """A day of the city as two instants, half-open."""
    zone = timezone.get_current_timezone()
    return datetime.combine(one, time.min, zone), datetime.combine(one + timedelta(days=1), time.min, zone)
