"""The inventory: which edition a day gets, what an uploaded file may say, and what takes the place of what."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from catalog import inventory
from catalog.audit import Actor
from catalog.models import AuditEntry, InventoryEdition
from pipelines.errors import DataError, SetupError

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
    assert inventory.edition_for("bt", end) == inventory.edition_for("bt", end.astimezone(UTC)) == after
    within = edition(start + timedelta(hours=14))
    assert inventory.edition_for("bt", end) == inventory.edition_for("bt", end.astimezone(UTC)) == within


@pytest.mark.django_db
def test_no_edition_is_told_by_code_and_day_and_what_to_do():
    with pytest.raises(SetupError, match=r"'gs' has no edition dated after 2019-06-01: it has none at all") as caught:
        inventory.edition_for("gs", end_of("2019-06-01").astimezone(UTC))
    assert caught.value.code == "no-inventory" and "dated 2019-06-02 or later" in caught.value.next_step
    edition(midnight("2019-05-20"))
    with pytest.raises(SetupError, match="the newest is dated 2019-05-20"):
        inventory.edition_for("bt", end_of("2019-06-01"))


# what a file may say

ANN = Actor("ann")
HEAD = "device_type,atd_device_id,device_name,device_status,device_ip,ip_comm_status,lat,lon,primary_st,cross_st,kits_id"
LAMAR = "BLUETOOTH,2001,lamar_mlk,TURNED_ON,172.16.132.68,ONLINE,30.2715378,-97.7539673, LAMAR BLVD ,MLK,1.0"
DOCUMENT = {
    "header": {"data_type": "bt_unit_data", "target_filename": "Austin_bt_2019-06-02_unit_data.json", "collection_date": "2019-06-02 00:00:00-05:00"},
    "devices": [
        {"device_type": "BLUETOOTH", "device_name": "lamar_mlk", "device_ip": "172.16.132.68", "lat": "30.2715378", "lon": -97.7539673,
         "primary_st": " LAMAR BLVD ", "cross_st": None, "coa_intersection_id": "5150.0", "ip_comm_status": None, "installer": {"firm": float("nan")}}
    ],
}  # fmt: skip


def table(*lines: str) -> bytes:
    return "\n".join([HEAD, *lines]).encode()


def test_the_document_of_the_original_is_read_with_its_date_and_its_code():
    found = inventory.read("unit_data.json", json.dumps(DOCUMENT).encode())
    assert (found.code, found.dated_at, found.notes) == ("bt", datetime(2019, 6, 2, 5, tzinfo=UTC), [])
    assert found.units == [
        {"device_type": "BLUETOOTH", "device_name": "lamar_mlk", "device_ip": "172.16.132.68", "lat": 30.2715378, "lon": -97.7539673,
         "primary_st": "LAMAR BLVD", "cross_st": "", "coa_intersection_id": 5150, "ip_comm_status": "UNKNOWN", "installer": {"firm": None}}
    ]  # fmt: skip


def test_a_csv_file_and_a_plain_list_give_the_same_records():
    listed = inventory.read("list.json", json.dumps([dict(zip(HEAD.split(","), LAMAR.split(","), strict=True))]).encode())
    for name, content in {
        "comma.csv": table(LAMAR),
        "excel.csv": b"\xef\xbb\xbf" + table(LAMAR).replace(b",", b";").replace(b"\n", b"\r\n") + b"\r\n;;;;;;;;;;\r\n",
        "tabs.csv": table(LAMAR).replace(b",", b"\t"),
        "words.csv": table(LAMAR).replace(b"lat,lon", b"Latitude,LNG").replace(b"device_name", b"Device Name"),
    }.items():
        found = inventory.read(name, content)
        assert found == listed, name
    assert listed.code == "" and listed.dated_at is None
    [unit] = listed.units
    assert (unit["lat"], unit["kits_id"], unit["primary_st"], unit["atd_device_id"]) == (30.2715378, 1, "LAMAR BLVD", 2001)


def test_what_is_not_taken_as_it_stands_is_told_with_its_line_and_its_field():
    found = inventory.read(
        "units.csv",
        table(
            LAMAR,
            "BLUETOOTH,2002,lamar_6th,TURNED_ON,,,north,-97.75,LAMAR,6TH,NaN",
            "BLUETOOTH,2003,lamar_mlk,TURNED_ON,172.16.132.68,ONLINE,95,-97.75,LAMAR,MLK,7.5",
            "BLUETOOTH,2004,lamar_mlk,REMOVED,172.16.132.68,ONLINE,0,0.0,,,",
        ),
    )
    assert found.notes == [
        "line 3, lat: 'north' is no number; it is left empty.",
        "line 3: lat and lon belong together; both are left empty.",
        "line 3, device_ip: empty; the device can't be called.",
        "line 4, lat: 95 is no latitude in degrees; it is left empty.",
        "line 4, kits_id: '7.5' is no whole number; it is left empty.",
        "line 4: lat and lon belong together; both are left empty.",
        "line 4, device_name: lamar_mlk is that of line 2 too; rows of that reader are doubled.",
        "line 4, device_ip: 172.16.132.68 is that of line 2 too; only one of them is called.",
        "line 5: lat and lon are 0, which lies in the sea; both are left empty.",
    ]
    _, second, third, removed = found.units
    assert (second["lat"], second["lon"], second["kits_id"], second["ip_comm_status"]) == (None, None, None, "UNKNOWN")
    assert third["kits_id"] is None and removed["primary_st"] == ""


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "inventory-empty", "is empty"),
        (b" \n\t\n", "inventory-empty", "is empty"),
        (table(), "inventory-empty", "has no devices"),
        (b"[]", "inventory-empty", "has no devices"),
        (table(LAMAR).replace(b"LAMAR B", b"L\xc4MAR"), "inventory-encoding", "line 2: byte 0xc4 is not UTF-8"),
        (table(LAMAR).replace(b"mlk", b"m\x00k"), "inventory-encoding", "line 2 holds a NUL"),
        (table(LAMAR, "BLUETOOTH,1"), "inventory-line", "line 3 has 2 values, and the header has 11 fields"),
        (table(LAMAR + ',"open'), "inventory-csv", "line 2 is not CSV"),
        (table(LAMAR).replace(b"lon", b"lat"), "inventory-header", "line 1: the header names lat twice"),
        (table(LAMAR).replace(b"lat,", b","), "inventory-header", "line 1: column 7 of the header has no name"),
        (b"a,b\n1,2\n", "inventory-header", "no field that is known; its fields are a, b"),
        (b'[{"lat": 1,}]', "inventory-json", "line 1, column 12 is not JSON"),
        (b"[" * 100_000, "inventory-json", "is not JSON that can be read"),
        (b'{"units": []}', "inventory-json", "no list under .devices.; it has units"),
        (b'{"header": [1], "devices": [{"lat": 1}]}', "inventory-json", "header. is no object"),
        (b'[{"lat": 1}, "lamar"]', "inventory-json", "device 2 is 'lamar' and not an object"),
        (b'{"header": {"collection_date": "soon"}, "devices": [{"lat": 1}]}', "inventory-date", "header, collection_date: 'soon' is not a moment"),
    ],
)
def test_a_file_that_is_no_inventory_is_refused_with_its_name_and_the_place(content, code, words):
    with pytest.raises(DataError, match=f"^units.x: .*{words}") as caught:
        inventory.read("units.x", content)
    assert caught.value.code == code and caught.value.next_step.endswith(".")


def test_a_file_of_any_size_is_not_read():
    with pytest.raises(DataError, match=r"has 20\.0 MB; an inventory may have 20 MB"):
        inventory.read("units.csv", b"x" * (inventory.MOST_BYTES + 1))


def test_a_date_without_a_zone_is_the_citys():
    assert inventory.moment("2019-06-02") == midnight("2019-06-02")
    assert inventory.moment(" 2019-06-02 14:00 ") == midnight("2019-06-02 14:00")
    assert inventory.moment("2019-06-02T00:00:00Z") == datetime(2019, 6, 2, tzinfo=UTC)
    with pytest.raises(ValueError, match="soon"):
        inventory.moment("soon")


# what takes the place of what


@pytest.mark.django_db
def test_the_same_records_again_change_nothing_and_others_only_when_it_is_said():
    at, units = midnight("2019-06-02"), inventory.read("units.csv", table(LAMAR)).units
    first = inventory.store("bt", at, units, ANN, origin="units.csv")
    assert (first.verb, first.edition.units, first.edition.uploaded_by) == ("create", units, "ann")
    # the order of a record's fields is not content, the moment may be told in any zone
    again = inventory.store("bt", at.astimezone(UTC), [dict(reversed(units[0].items()))], Actor("ben"))
    assert (again.verb, again.edition.pk, again.edition.uploaded_by) == ("same", first.edition.pk, "ann")
    assert "the same 1 device already: nothing is changed" in again.text
    others = [{**units[0], "lat": 30.5}, {"device_name": "lamar_6th"}]
    with pytest.raises(DataError, match=r"edition of bt dated 2019-06-02 00:00 CDT already, with 1 device; this one has 1 new, 1 changed") as caught:
        inventory.store("bt", at, others, ANN)
    assert caught.value.code == "inventory-taken"
    assert InventoryEdition.objects.get().sha256 == first.edition.sha256
    replaced = inventory.store("bt", at, others, Actor("ben"), reason="moved", replace=True)
    assert (replaced.verb, replaced.edition.pk, replaced.edition.units, replaced.edition.uploaded_by) == ("replace", first.edition.pk, others, "ben")
    told = list(AuditEntry.objects.filter(kind="inventory").order_by("pk").values_list("actor", "verb", "target", "reason"))
    assert told == [("ann", "create", "bt", ""), ("ben", "replace", "bt", "moved")]
    assert AuditEntry.objects.latest("pk").details["changed"] == {"sha256": [first.edition.sha256, replaced.edition.sha256]}


@pytest.mark.django_db
@pytest.mark.parametrize("code", ["", "BT", "a b", "../x", "x" * 41])
def test_a_code_must_be_able_to_stand_in_an_address(code):
    with pytest.raises(DataError) as caught:
        inventory.store(code, midnight("2019-06-02"), [{"lat": None}], ANN)
    assert caught.value.code == "inventory-code" and not InventoryEdition.objects.exists()


def test_two_editions_are_compared_by_the_numbers_of_their_devices():
    old = [{"device_type": "B", "atd_device_id": 1, "device_name": "a"}, {"device_name": "b"}, {"device_name": "b"}, {"kits_id": 7}]
    new = [{"device_type": "B", "atd_device_id": 1, "device_name": "renamed"}, {"device_name": "b"}, {"primary_st": "LAMAR", "cross_st": "6TH"}]
    told = inventory.difference(old, new)
    assert (told.added, told.gone, told.changed) == (["LAMAR / 6TH"], ["b", "7"], ["renamed"])
    assert told.words == "1 new, 2 gone, 1 changed"
