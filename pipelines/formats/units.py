"""The inventory's units by the name that a sensor's rows have for them: each name is of one unit, and each unit has its id.

Two units may share a name, for the inventory is kept by hand. The one with the lowest atd_device_id is taken, so that no row
doubles, and each such row is counted among the warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.formats.sensors import md5_of


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's record with its `device_id`; `shares` says that others have the same name."""

    record: Mapping[str, Any]
    device_id: str
    shares: bool = False


class Units:
    """Units by name. `used` are those that were asked for, as a document lists them."""

    def __init__(self, units: Iterable[Mapping[str, Any]], name: str, of: Callable[[Any], Any], id_fields: tuple[str, ...], warnings: Counter[str]):
        """`name` is the field with the name, `of` makes it what rows hold (None: a unit without one); the id is the md5 of `id_fields`."""
        self.warnings = warnings
        self._words = f"{name} is of several units: the one with the lowest atd_device_id is taken"
        self._found: dict[Any, Unit] = {}
        self._used: set[Any] = set()
        for unit in sorted(units, key=_by_id):
            if (known_as := of(unit.get(name))) is None:
                continue
            known = self._found.get(known_as)
            record = known.record if known else unit
            self._found[known_as] = Unit(record, md5_of(*(record.get(field) for field in id_fields)), shares=bool(known))

    def __contains__(self, name: Any) -> bool:
        return name in self._found

    def find(self, name: Any) -> Unit:
        """The unit of that name, which is then one of the used ones. Raises KeyError for a name that the inventory does not have."""
        unit = self._found[name]
        self._used.add(name)
        if unit.shares:
            self.warnings[self._words] += 1
        return unit

    @property
    def used(self) -> list[dict[str, Any]]:
        """The records of the units that were found, by their atd_device_id, each with its device_id."""
        return [{**unit.record, "device_id": unit.device_id} for name, unit in self._found.items() if name in self._used]


def _by_id(unit: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Numbers by their value, then texts, then those without an id."""
    told = unit.get("atd_device_id")
    text = "" if told is None else str(told)
    return not text, int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 10**19, text
