"""The inventory: which edition a day gets, what an uploaded file may say, and what takes the place of what."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from catalog import inventory
from catalog.models import InventoryEdition
from pipelines.errors import SetupError

AUSTIN = ZoneInfo("America/Chicago")


def midnight(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=AUSTIN)


def edition(dated_at: datetime, code: str = "bt") -> InventoryEdition:
    return InventoryEdition.objects.create(code=code, dated_at=dated_at, units=[], sha256="0" * 64)


def end_of(day: str) -> datetime:
    return datetime.combine(midnight(day).date() + timedelta(days=1), datetime.min.time(), AUSTIN)


# which edition


@pytest.mark.django_db
def test_a_day_gets_the_first_edition_that_is_dated_after_it():
    second, tenth = edition(midnight("2019-06-02")), edition(midnight("2019-06-10"))
    edition(midnight("2019-06-02"), code="wt")
    assert inventory.edition_for("bt", end_of("2019-05-12")) == second
    assert inventory.edition_for("bt", end_of("2019-06-01")) == second
    # dated at the day's own beginning is not after it
    assert inventory.edition_for("bt", end_of("2019-06-02")) == tenth
    # the moment may be told in any zone
    assert inventory.edition_for("bt", end_of("2019-06-02").astimezone(UTC)) == tenth


@pytest.mark.django_db
@pytest.mark.parametrize(("day", "hours"), [("2019-03-10", 23), ("2019-06-01", 24), ("2019-11-03", 25)])
def test_the_length_of_a_day_does_not_move_its_edition(day, hours):
    start, end = midnight(day), end_of(day)
    assert (end.astimezone(UTC) - start.astimezone(UTC)) == timedelta(hours=hours)
    edition(start)
    after = edition(end)
    assert inventory.edition_for("bt", end) == after
    within = edition(start + timedelta(hours=14))
    assert inventory.edition_for("bt", end) == within


@pytest.mark.django_db
def test_no_edition_is_told_by_code_and_day_and_what_to_do():
    with pytest.raises(SetupError, match=r"'gs' has no edition dated after 2019-06-01: it has none at all") as caught:
        inventory.edition_for("gs", end_of("2019-06-01").astimezone(UTC))
    assert caught.value.code == "no-inventory" and "dated 2019-06-02 or later" in caught.value.next_step
    edition(midnight("2019-05-20"))
    with pytest.raises(SetupError, match="the newest is dated 2019-05-20"):
        inventory.edition_for("bt", end_of("2019-06-01"))
