"""The inventory: the city's devices and places, dated. Data of a day is matched with the first edition dated after that day.

`edition_for` chooses the edition of a day; `read` makes clean records of a CSV or JSON file, `store` keeps them as an edition.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from catalog import audit
from catalog.audit import Actor
from catalog.models import InventoryEdition
from pipelines.errors import DataError, SetupError

#: An edition that is dated in the day itself, after its beginning, is one from after it: the original asks for a second after
#: midnight. The shortest day has 23 hours, so the midnight with which a day begins never counts, whatever the clocks do.
WITHIN = timedelta(hours=23)
#: A city of Austin's size has a thousand devices of a kind, in half a megabyte.
MOST_BYTES, MOST_UNITS = 20_000_000, 100_000

#: What atd-data-lake says of a device, in its order. Other fields may stand beside them and are kept as they come.
FIELDS = (
    "device_type", "atd_device_id", "device_name", "device_status", "device_ip", "ip_comm_status", "atd_location_id",
    "coa_intersection_id", "lat", "lon", "primary_st", "primary_st_segment_id", "cross_st", "cross_st_segment_id", "kits_id",
)  # fmt: skip
DEGREES = {"lat": 90.0, "lon": 180.0}
WHOLE = ("coa_intersection_id", "primary_st_segment_id", "cross_st_segment_id", "kits_id")
STREETS = ("primary_st", "cross_st")
TEXTS = ("device_type", "device_name", "device_status", "device_ip", "ip_comm_status", "atd_location_id")
#: What else a header may call them.
OTHER_NAMES = {"latitude": "lat", "longitude": "lon", "lng": "lon", "long": "lon", "ip": "device_ip", "status": "device_status"}
#: One device of a file may have one of these; two with the same would be taken for each other, or double a sensor's rows.
ONCE = {"device_name": "rows of that reader are doubled", "kits_id": "rows of that detector are doubled", "device_ip": "only one of them is called"}
NOTHING = ("", "nan", "none", "null", "n/a")


# which edition


def edition_for(code: str, day_end: datetime) -> InventoryEdition:
    """The edition of `code` that the data of the day ending at `day_end` (aware) is matched with: the first dated after its beginning.

    Of midnights that is the first at `day_end` or later. Raises SetupError "no-inventory" when there is none.
    """
    editions = InventoryEdition.objects.filter(code=code)
    # in UTC, where hours are hours: by a local clock, 23 hours before a midnight is one o'clock on the day of 23 hours too
    found = editions.filter(dated_at__gt=day_end.astimezone(UTC) - WITHIN).order_by("dated_at").first()
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


def moment(text: str, zone: tzinfo | None = None) -> datetime:
    """A date or a moment as people and files write it; a date is its midnight, what names no zone is in `zone` (the city's). Raises ValueError."""
    at = datetime.fromisoformat(text.strip())
    return at if at.tzinfo else at.replace(tzinfo=zone or timezone.get_current_timezone())


def today(zone: tzinfo) -> datetime:
    """This day's beginning: what an edition that is fetched now is dated."""
    return datetime.combine(timezone.now().astimezone(zone).date(), time.min, zone)


# reading a file


@dataclass(frozen=True)
class Reading:
    """The records of a file, clean; `notes` tell what was not taken as it stood, each with its place. `code` and `dated_at`: if the file says so."""

    units: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    code: str = ""
    dated_at: datetime | None = None


def read(name: str, content: bytes) -> Reading:
    """The records of a file: CSV with a header, a JSON list, or the original's document {header, devices}.

    Raises DataError that names the file and what in it is wrong: its line, or the number of the device, and the field.
    """
    if len(content) > MOST_BYTES:
        raise _bad(name, f"has {len(content) / 1e6:.1f} MB; an inventory may have {MOST_BYTES / 1e6:.0f} MB", "inventory-size")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _bad(name, f"line {line:,}: byte {content[error.start]:#04x} is not UTF-8", "inventory-encoding", "Save it as UTF-8.") from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise _bad(name, f"line {line:,} holds a NUL character", "inventory-encoding", "Save it as plain text (UTF-8).")
    if not text.strip():
        raise _bad(name, "is empty", "inventory-empty")
    return _read_json(name, text) if text.lstrip()[0] in "[{" else _read_csv(name, text)


def of_records(name: str, records: Iterable[Mapping[str, Any]]) -> Reading:
    """The same of records that are there already, such as those of a database; `name` says where they are from. Raises DataError."""
    placed = [(f"record {number:,}", record) for number, record in enumerate(records, 1)]
    return Reading(*_clean(name, placed))


def _bad(name: str, words: str, code: str, next_step: str = "") -> DataError:
    return DataError(f"{name}: {words}.", code=code, next_step=next_step or "Correct the file and upload it again.")


def _read_csv(name: str, text: str) -> Reading:
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    # said each time: the limit is one for the whole process
    csv.field_size_limit(1_000_000)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    names: list[str] = []
    placed: list[tuple[str, dict[str, Any]]] = []
    try:
        for row in lines:
            if not any(value.strip() for value in row):
                continue
            if not names:
                names = _header(name, lines.line_num, row)
                continue
            if len(row) != len(names):
                raise _bad(name, f"line {lines.line_num:,} has {len(row)} values, and the header has {len(names)} fields", "inventory-line")
            placed.append((f"line {lines.line_num:,}", dict(zip(names, row, strict=True))))
    except csv.Error as error:
        raise _bad(name, f"line {lines.line_num:,} is not CSV: {error}", "inventory-csv") from error
    return Reading(*_clean(name, placed))


def _header(name: str, line: int, row: Sequence[str]) -> list[str]:
    names = [field_name(value) for value in row]
    if "" in names:
        raise _bad(name, f"line {line:,}: column {names.index('') + 1} of the header has no name", "inventory-header")
    if twice := [one for one, times in Counter(names).items() if times > 1]:
        raise _bad(name, f"line {line:,}: the header names {twice[0]} twice", "inventory-header")
    return names


def field_name(text: Any) -> str:
    """A heading as a field: "Device Name" is device_name, "Latitude" lat."""
    plain = re.sub(r"[^a-z0-9]+", "_", str(text).strip().lower()).strip("_")
    return OTHER_NAMES.get(plain, plain)


def _read_json(name: str, text: str) -> Reading:
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad(name, f"line {error.lineno:,}, column {error.colno:,} is not JSON: {error.msg}", "inventory-json") from error
    except (ValueError, RecursionError) as error:
        raise _bad(name, f"is not JSON that can be read: {error}", "inventory-json") from error
    header: Any = {}
    if isinstance(told, dict):
        if not isinstance(told.get("devices"), list):
            raise _bad(name, f"has no list under “devices”; it has {', '.join(map(str, list(told)[:10])) or 'nothing'}", "inventory-json")
        header, told = told.get("header") or {}, told["devices"]
    if not isinstance(header, dict):
        raise _bad(name, "its “header” is no object", "inventory-json")
    placed = []
    for number, device in enumerate(told, 1):
        if not isinstance(device, dict):
            raise _bad(name, f"device {number:,} is {str(device)[:40]!r} and not an object of fields", "inventory-json")
        placed.append((f"device {number:,}", {field_name(key): value for key, value in device.items()}))
    dated_at = None
    if said := header.get("collection_date"):
        try:
            dated_at = moment(str(said))
        except ValueError as error:
            raise _bad(name, f"header, collection_date: {str(said)[:40]!r} is not a moment", "inventory-date") from error
    kind = re.fullmatch(r"(.+)_unit_data", str(header.get("data_type", "")))
    return Reading(*_clean(name, placed), code=kind[1] if kind else "", dated_at=dated_at)


# cleaning


def _clean(name: str, placed: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Records as the formats expect them, and what was not taken as it stood. Raises DataError."""
    if not placed:
        raise _bad(name, "has no devices", "inventory-empty")
    if len(placed) > MOST_UNITS:
        raise _bad(name, f"has {len(placed):,} devices; an inventory may have {MOST_UNITS:,}", "inventory-size")
    if not any(known in record for _, record in placed for known in FIELDS):
        has = ", ".join(list(placed[0][1])[:15]) or "none"
        raise _bad(name, f"has no field that is known; its fields are {has}", "inventory-header", f"Name the fields {', '.join(FIELDS)}.")
    units, notes = [], []
    seen: dict[tuple[str, Any], str] = {}
    for place, record in placed:
        unit = {}
        for key, value in record.items():
            unit[key], trouble = _value(key, value)
            if trouble:
                notes.append(f"{place}, {key}: {trouble}.")
        if unit.get("lat") == unit.get("lon") == 0:
            notes.append(f"{place}: lat and lon are 0, which lies in the sea; both are left empty.")
            unit |= {"lat": None, "lon": None}
        # a place without coordinates is still a place; both or none, for half a point is drawn nowhere
        if (unit.get("lat") is None) != (unit.get("lon") is None):
            notes.append(f"{place}: lat and lon belong together; both are left empty.")
            unit |= {"lat": None, "lon": None}
        if "ip_comm_status" in unit and not unit["ip_comm_status"]:
            unit["ip_comm_status"] = "UNKNOWN"
        for key in ONCE:
            if (value := unit.get(key)) in (None, "") or unit.get("device_status") == "REMOVED":
                continue
            first = seen.setdefault((key, value), place)
            if first != place:
                notes.append(f"{place}, {key}: {value} is that of {first} too; {ONCE[key]}.")
        if "device_ip" in unit and unit["device_ip"] is None:
            notes.append(f"{place}, device_ip: empty; the device can't be called.")
        units.append(unit)
    return units, notes


def _value(key: str, value: Any) -> tuple[Any, str]:
    """A field's value as it is kept, and what was wrong with the one that came."""
    if isinstance(value, str):
        value = value.strip()
    is_nothing = value is None or (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, str) and value.lower() in NOTHING)
    if key in STREETS:
        return ("" if is_nothing else str(value)), ""
    if is_nothing:
        return None, ""
    if key in FIELDS and isinstance(value, (dict, list, bool)):
        return None, f"{json.dumps(value)[:40]} is no single value; it is left empty"
    if key in DEGREES or key in WHOLE:
        return _number(key, value)
    if key == "atd_device_id" and re.fullmatch(r"[1-9]\d{0,17}", str(value)):
        return int(value), ""  # a number in Knack's JSON, a text in a table: the same device
    return (str(value) if key in TEXTS else _plain(value)), ""


def _number(key: str, value: Any) -> tuple[int | float | None, str]:
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        return None, f"{str(value)[:40]!r} is no number; it is left empty"
    if key in DEGREES:
        if not abs(number) <= DEGREES[key]:
            return None, f"{number:g} is no {'latitude' if key == 'lat' else 'longitude'} in degrees; it is left empty"
        return number, ""
    if not number.is_integer():
        return None, f"{str(value)[:40]!r} is no whole number; it is left empty"
    return int(number), ""


def _plain(value: Any) -> Any:
    """A value of a field of somebody's own, as the database takes it."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.replace("\x00", "")
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


# keeping


def fingerprint(units: Sequence[Mapping[str, Any]]) -> str:
    """sha256 of the canonical JSON of the records, in hexadecimal."""
    return hashlib.sha256(json.dumps(units, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """What became of an edition: `verb` is create, replace, or same where the very records were there already."""

    edition: InventoryEdition
    verb: str
    text: str


def store(
    code: str, dated_at: datetime, units: Sequence[dict[str, Any]], by: Actor, *, origin: str = "", reason: str = "", replace: bool = False
) -> Stored:
    """Keep the records as the edition of `code` dated `dated_at` (aware); audited.

    The same records again change nothing, and the answer says so. Raises DataError "inventory-taken" where other records stand
    there and `replace` is not said, and "inventory-code" for a code that can't be part of an address.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", code):
        raise DataError(f"{code!r} can't be the code of an inventory.", code="inventory-code", next_step="Use small letters and digits, like bt.")
    sha256 = fingerprint(units)
    facts = {"units": list(units), "sha256": sha256, "origin": origin[:500], "uploaded_by": by.name[:150]}
    day = f"{dated_at.astimezone(_zone(dated_at)):%Y-%m-%d %H:%M %Z}"
    with transaction.atomic():
        # made empty where there is none: two who store at once stand in line at the row
        edition, is_new = InventoryEdition.objects.get_or_create(code=code, dated_at=dated_at, defaults=facts)
        before = InventoryEdition.objects.select_for_update().get(pk=edition.pk)
        if not is_new:
            if before.sha256 == sha256:
                return Stored(before, "same", f"The edition of {code} dated {day} holds the same {devices(len(units))} already: nothing is changed.")
            if not replace:
                raise _taken(before, day, units)
            InventoryEdition.objects.filter(pk=before.pk).update(**facts, uploaded_at=Now())
        verb, was = ("create", None) if is_new else ("replace", before.sha256)
        words = f"{devices(len(units))}, dated {day}."
        told = {"dated_at": dated_at.isoformat(), "origin": origin[:500], "changed": {"sha256": [was, sha256]}}
        audit.write(by, verb, kind="inventory", target=code, reason=reason, result=words, **told)
        edition.refresh_from_db()
    return Stored(edition, verb, f"{'Stored' if is_new else 'Replaced'}: {code}, {words}")


def _taken(before: InventoryEdition, day: str, units: Sequence[Mapping[str, Any]]) -> DataError:
    told = difference(before.units, units)
    return DataError(
        f"There is an edition of {before.code} dated {day} already, with {devices(len(before.units))}; this one has {told.words}.",
        code="inventory-taken",
        next_step="Give it another date, or say that it shall replace that one (in the shell with --replace).",
    )


def devices(number: int) -> str:
    return f"{number:,} {'device' if number == 1 else 'devices'}"


def fields_of(units: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields that records have: the known ones in their order, then what else there is by name."""
    has = {key for unit in units for key in unit}
    return [name for name in FIELDS if name in has] + sorted(has.difference(FIELDS))


def document(edition: InventoryEdition) -> dict[str, Any]:
    """An edition as the original writes it: {header, devices}. Read again it gives the same edition."""
    dated, made = timezone.localtime(edition.dated_at), timezone.localtime(edition.uploaded_at)
    header = {
        "data_type": f"{edition.code}_unit_data",
        "target_filename": f"{edition.code}_{dated:%Y-%m-%d}_unit_data.json",
        "collection_date": str(dated),
        "processing_date": str(made),
    }
    return {"header": header, "devices": edition.units}


# comparing


@dataclass(frozen=True)
class Difference:
    """What one edition has that another has not: names of devices."""

    added: list[str]
    gone: list[str]
    changed: list[str]

    @property
    def words(self) -> str:
        parts = [(self.added, "new"), (self.gone, "gone"), (self.changed, "changed")]
        said = [f"{len(names):,} {word}" for names, word in parts if names]
        return ", ".join(said) or "the same devices in another order or with other fields"


def name_of(unit: Mapping[str, Any]) -> str:
    """What people call a device: its name, else its number, its address or its place."""
    for key in ("device_name", "atd_device_id", "kits_id", "device_ip", "atd_location_id"):
        if (value := unit.get(key)) not in (None, ""):
            return str(value)
    return f"{unit.get('primary_st') or ''} / {unit.get('cross_st') or ''}".strip(" /") or "a device without a name"


def difference(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> Difference:
    """What became of the devices between two editions; a device is known by its number, else by its name."""
    before, after = _by_identity(old), _by_identity(new)
    return Difference(
        added=[name_of(after[key]) for key in after if key not in before],
        gone=[name_of(before[key]) for key in before if key not in after],
        changed=[name_of(after[key]) for key in after if key in before and before[key] != after[key]],
    )


def _by_identity(units: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for unit in units:
        number = unit.get("atd_device_id")
        name = (str(unit.get("device_type")), str(number) if number not in (None, "") else name_of(unit))
        # two of one name stay two
        found[*name, times[name]] = unit
        times[name] += 1
    return found
