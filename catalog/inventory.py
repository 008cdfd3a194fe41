"""The inventory: the city's devices and places, dated. Data of a day is matched with the first edition dated after that day.

`edition_for` chooses the edition of a day; `read` and `clean` make one of a CSV or JSON file, and `store` keeps it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from django.utils import timezone

from catalog.models import InventoryEdition
from pipelines.errors import SetupError

#: An edition that is dated in the day itself, after its beginning, is one from after it: the original asks for a second after
#: midnight. The shortest day has 23 hours, so the midnight with which a day begins never counts, whatever the clocks do.
WITHIN = timedelta(hours=23)


# which edition


def edition_for(code: str, day_end: datetime) -> InventoryEdition:
    """The edition of `code` that the data of the day ending at `day_end` (aware) is matched with: the first dated after its beginning.

    Of midnights that is the first at `day_end` or later. Raises SetupError "no-inventory" when there is none.
    """
    editions = InventoryEdition.objects.filter(code=code)
    found = editions.filter(dated_at__gt=day_end - WITHIN).order_by("dated_at").first()
    if found is not None:
        return found
    zone = _zone(day_end)
    day = (day_end - timedelta(microseconds=1)).astimezone(zone).date()
    newest = editions.order_by("-dated_at").values_list("dated_at", flat=True).first()
    has = f"the newest is dated {newest.astimezone(zone):%Y-%m-%d}" if newest else "it has none at all"
    raise SetupError(
        f"The inventory {code!r} has no edition dated after {day}: {has}.",
        code="no-inventory",
        next_step=f"Upload an edition of {code} dated {day + timedelta(days=1)} or later under Inventory, or run the upkeep job that fetches one.",
    )


def _zone(moment: datetime) -> tzinfo:
    """The zone in which a day is told: that of `moment`, the city's where it is plain UTC."""
    return timezone.get_current_timezone() if moment.tzinfo in (None, UTC) else moment.tzinfo
