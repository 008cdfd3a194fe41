"""The inventory as people see it: editions, devices, a map, an upload that is shown before it is stored."""

import csv
import io
import json
import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from catalog import boundaries, inventory, maps, selectors
from catalog.audit import Actor
from catalog.models import AuditEntry, InventoryEdition
from pipelines.models import Pipeline
from tests import world
from tests.catalog.squares import collection, square
from tests.web import asks, plain_web  # noqa: F401

pytestmark = [pytest.mark.usefixtures("plain_web")]
ANN = Actor("ann")
JUNE = datetime(2019, 6, 2, tzinfo=ZoneInfo("America/Chicago"))
LAMAR = {"device_type": "BLUETOOTH", "device_name": "lamar_mlk", "device_ip": "172.16.132.68", "lat": 30.2715, "lon": -97.7539,
         "primary_st": "LAMAR & <b>", "cross_st": "MLK", "atd_device_id": 1}  # fmt: skip
SIXTH = {"device_type": "BLUETOOTH", "device_name": "lamar_6th", "device_ip": "172.16.132.69", "lat": None, "lon": None, "atd_device_id": 2}


@pytest.fixture
def people(db):
    return world.build(nothing=True)


@pytest.fixture
def viewer(client, people):
    client.force_login(people.viewer)
    return client


@pytest.fixture
def steward(client, people):
    client.force_login(people.steward)
    return client


def stored(*units: dict, dated_at: datetime = JUNE, code: str = "bt") -> InventoryEdition:
    return inventory.store(code, dated_at, list(units or (LAMAR, SIXTH)), ANN, origin="units.json").edition


def seen(client, path: str) -> str:
    reply = client.get(path)
    assert reply.status_code == 200, reply.status_code
    return reply.content.decode()


def body(reply) -> str:
    return b"".join(reply.streaming_content).decode("utf-8-sig")


# looking


def test_a_list_without_editions_says_what_to_do_and_what_is_asked_for(viewer, client, people):
    assert "A steward uploads a file" in seen(viewer, reverse("inventories"))
    world.pipeline("bt-unmatched", "Bluetooth reads", world.provider("awam", "AWAM"), world.dataset("iaf", "Reads"), world.SATURDAY, inventory="bt")
    page = seen(viewer, reverse("inventories"))
    assert "no edition yet" in page and "Bluetooth reads" in page and reverse("inventory_upload") not in page
    client.force_login(people.steward)
    assert f"{reverse('inventory_upload')}?code=bt" in seen(client, reverse("inventories"))


def test_the_list_shows_the_newest_edition_and_asks_as_often_however_many_there_are(viewer):
    feeds, awam = world.dataset("iaf", "Reads"), world.provider("awam", "AWAM")
    for number in range(3):
        # a pipeline without an inventory, of the same dataset, hides no other
        world.pipeline(f"bt-{number}", f"Bluetooth {number}", awam, feeds, world.SATURDAY, inventory="bt" if number else "")
        stored(LAMAR, dated_at=JUNE + timedelta(days=number))
        with asks(exactly=3):
            [line] = selectors.inventory_lines()
        assert (line.code, line.devices, line.editions, len(line.pipelines)) == ("bt", 1, number + 1, number)
        assert line.newest.dated_at == JUNE + timedelta(days=number)
    assert "Bluetooth 1" in seen(viewer, reverse("inventories"))


def test_the_page_shows_the_devices_their_places_and_what_changed(viewer):
    stored(LAMAR, dated_at=JUNE - timedelta(days=7))
    edition = stored()
    page = seen(viewer, reverse("inventory", args=["bt"]))
    assert page.count('class="map__dot"') == 1 and "1 of them have a place on the map" in page
    assert "LAMAR &amp; &lt;b&gt; / MLK" in page and "<b>" not in page and "style=" not in page
    assert "<dt>1 new</dt><dd>lamar_6th</dd>" in page
    older = InventoryEdition.objects.exclude(pk=edition.pk).get()
    assert f'href="?edition={older.pk}"' in page
    older = seen(viewer, f"{reverse('inventory', args=['bt'])}?edition={older.pk}")
    assert "lamar_6th" not in older
    assert "map__spot" in seen(viewer, f"{reverse('inventory', args=['bt'])}?unit=1") and "map__spot" not in page
    found = seen(viewer, f"{reverse('inventory', args=['bt'])}?q=132.69")
    assert "1 device of 2" in found and "No device fits" in seen(viewer, f"{reverse('inventory', args=['bt'])}?q=nowhere")
    for odd in ("?unit=99&page=99", "?unit=x&page=x"):
        seen(viewer, reverse("inventory", args=["bt"]) + odd)
    for gone in ("?edition=999999", "?edition=x"):
        expected = 404 if gone.endswith("9") else 200
        assert viewer.get(reverse("inventory", args=["bt"]) + gone).status_code == expected
    assert viewer.get(reverse("inventory", args=["zz"])).status_code == 404


def test_a_layer_lies_beneath_the_devices_that_stand_in_it(people):
    boundaries.store("far", "Far", "name", collection(square("x", 0, 0), square("y", 1, 0)), ANN)
    assert selectors.unit_map(selectors.unit_lines([LAMAR])).outline == ""
    boundaries.store("here", "Here", "name", collection(square("a", -98, 30), square("b", -97, 30)), ANN)
    assert selectors.unit_map(selectors.unit_lines([LAMAR])).outline.startswith("M")
    assert selectors.unit_map(selectors.unit_lines([SIXTH])) is None


def test_an_edition_can_be_downloaded_as_table_and_as_the_originals_document_and_read_again(viewer):
    edition = stored()
    address = reverse("inventory", args=["bt"])
    rows = list(csv.DictReader(io.StringIO(body(viewer.get(f"{address}?format=csv")))))
    assert [row["device_name"] for row in rows] == ["lamar_mlk", "lamar_6th"] and rows[0]["lat"] == "30.2715"
    document = viewer.get(f"{address}?format=json&edition={edition.pk}")
    assert document.json()["header"]["data_type"] == "bt_unit_data" and "bt_2019-06-02_unit_data.json" in document["Content-Disposition"]
    again = inventory.read("again.json", document.content)
    assert (again.code, again.dated_at, inventory.fingerprint(again.units)) == ("bt", edition.dated_at, edition.sha256)


def test_nobody_looks_without_an_account(client, db):
    assert client.get(reverse("inventories")).status_code == client.get(reverse("inventory", args=["bt"])).status_code == 302


# uploading

UPLOAD = "/inventory/upload/"


def upload(client, content: bytes, name: str = "units.csv", **fields):
    return client.post(UPLOAD, {"file": SimpleUploadedFile(name, content), **fields})


def table(*lines: str) -> bytes:
    return "\n".join(["device_type,device_name,atd_device_id,lat,lon", *[f"BLUETOOTH,{line}" for line in lines]]).encode()


def held(page: str) -> str:
    return re.search(r'name="held" value="([^"]+)"', page)[1]


def test_a_steward_sees_a_file_before_it_is_stored_and_what_was_seen_is_stored(steward):
    assert reverse("inventory_upload") == UPLOAD and "Read it and show it" in seen(steward, f"{UPLOAD}?code=bt")
    stored(LAMAR, dated_at=JUNE - timedelta(days=1))
    reply = upload(steward, table("lamar_mlk,1,30.2715,-97.7539", "lamar_6th,2,north,-97.75"), code="bt", dated="2019-06-02")
    page = reply.content.decode()
    assert "line 3, lat: &#x27;north&#x27; is no number" in page and "1 of 2 devices" in page and "Store with 2 devices" in page
    assert "<dt>1 new</dt><dd>lamar_6th</dd>" in page and InventoryEdition.objects.count() == 1
    reply = steward.post(UPLOAD, {"held": held(page), "reason": "a new reader"}, follow=True)
    assert "Stored: bt, 2 devices, dated 2019-06-02" in reply.content.decode()
    edition = InventoryEdition.objects.get(dated_at=JUNE)
    assert ([unit["device_name"] for unit in edition.units], edition.origin, edition.uploaded_by) == (
        ["lamar_mlk", "lamar_6th"],
        "units.csv",
        "steward",
    )
    assert AuditEntry.objects.filter(kind="inventory", actor="steward", verb="create", reason="a new reader").exists()
    # pressed twice: it says so, and there is one
    again = steward.post(UPLOAD, {"held": held(page)}, follow=True)
    assert "already: nothing is changed" in again.content.decode() and InventoryEdition.objects.count() == 2


def test_a_document_says_its_code_and_its_date_itself(steward):
    document = json.dumps(inventory.document(stored())).encode()
    InventoryEdition.objects.all().delete()
    page = upload(steward, document, "unit_data.json").content.decode()
    assert "bt, dated Jun 2 2019, 00:00: 2 devices" in re.sub(r"<[^>]+>", "", page)
    assert "The file says that it is bt" in upload(steward, document, "unit_data.json", code="wt").content.decode()


def test_an_edition_of_the_same_date_is_replaced_only_when_that_is_said(steward):
    edition = stored(LAMAR)
    same = upload(steward, json.dumps([LAMAR]).encode(), code="bt", dated="2019-06-02").content.decode()
    assert "There is nothing to store" in same and 'name="held"' not in same
    other = upload(steward, json.dumps([SIXTH]).encode(), code="bt", dated="2019-06-02").content.decode()
    assert "Replace that edition" in other
    refused = steward.post(UPLOAD, {"held": held(other)}, follow=True).content.decode()
    assert "Nothing was stored: There is an edition of bt dated 2019-06-02" in refused
    assert InventoryEdition.objects.get().sha256 == edition.sha256
    steward.post(UPLOAD, {"held": held(other), "replace": "yes"})
    assert InventoryEdition.objects.get().units == [SIXTH]


@pytest.mark.parametrize(
    ("content", "fields", "words"),
    [
        (table("lamar_mlk,1"), {"code": "bt"}, "units.csv: line 2 has 3 values, and the header has 5 fields."),
        (table("lamar_mlk,1,30,-97"), {}, "The file does not say which inventory it is. Write its code"),
        (table("lamar_mlk,1,30,-97"), {"code": "b t"}, "valid"),
        (table("lamar_mlk,1,30,-97"), {"code": "bt", "dated": "soon"}, "valid date"),
        (b"", {"code": "bt"}, "empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_is_stored(steward, content, fields, words):
    reply = upload(steward, content, **fields)
    assert reply.status_code == 422 and words in reply.content.decode()
    assert not InventoryEdition.objects.exists()


def test_a_preview_that_was_changed_on_its_way_is_not_stored(steward):
    page = upload(steward, table("lamar_mlk,1,30,-97"), code="bt").content.decode()
    reply = steward.post(UPLOAD, {"held": held(page)[:-3] + "abc"}, follow=True)
    assert "Choose the file again" in reply.content.decode() and not InventoryEdition.objects.exists()


def test_a_file_without_a_date_counts_from_today(steward):
    page = upload(steward, table("lamar_mlk,1,30,-97"), code="bt").content.decode()
    steward.post(UPLOAD, {"held": held(page)})
    assert InventoryEdition.objects.get().dated_at == inventory.today(ZoneInfo("America/Chicago"))


def test_a_file_too_large_for_a_page_is_sent_to_the_command(steward, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10_100
    assert "manage.py inventory import" in upload(steward, table("lamar_mlk,1,30,-97"), code="bt").content.decode()


def test_a_viewer_uploads_nothing(viewer):
    assert viewer.get(UPLOAD).status_code == 403 and upload(viewer, table("lamar_mlk,1,30,-97"), code="bt").status_code == 403
    assert not InventoryEdition.objects.exists() and not Pipeline.objects.exists()


# the picture


def test_points_lie_in_the_picture_as_on_the_ground_with_a_margin_and_the_areas_beneath():
    under = boundaries.parse(collection(square("a", -98, 30)), "name")
    points = [("sw", "South west", -97.8, 30.2), ("ne", "North east", -97.7, 30.3)]
    drawn = maps.draw_spots(points, under)
    [low, high] = drawn.spots
    assert (low.key, low.label, high.key) == ("sw", "South west", "ne")
    assert 0 < low.x < high.x < drawn.width and 0 < high.y < low.y < drawn.height
    # a degree of longitude is 0.864 as long as one of latitude there
    assert (high.x - low.x) / (low.y - high.y) == pytest.approx(0.8637, rel=0.001)
    assert drawn.outline.startswith("M")


def test_one_point_is_a_map_and_no_point_is_none_and_a_line_of_them_is_no_strip():
    assert maps.draw_spots([]) is None
    one = maps.draw_spots([("a", "", -97.7, 30.2)])
    assert one.width == one.height == 7200 and (one.spots[0].x, one.spots[0].y) == (3600, 3600)
    row = maps.draw_spots([(str(n), "", -97.7 + n / 10, 30.2) for n in range(5)])
    assert row.width == 7200 and row.height >= 0.4 * 7200


# the settings


@pytest.mark.django_db
def test_the_settings_list_editions_and_let_nobody_edit_one(client, people):
    edition = stored()
    client.force_login(people.steward)
    page = seen(client, reverse("admin:catalog_inventoryedition_changelist"))
    assert "units.json" in page and ">2<" in page
    page = seen(client, reverse("admin:catalog_inventoryedition_change", args=[edition.pk]))
    assert f"{reverse('inventory', args=['bt'])}?edition={edition.pk}" in page and 'name="_save"' not in page
    assert client.get(reverse("admin:catalog_inventoryedition_add"))["Location"] == reverse("inventory_upload")
    delete = reverse("admin:catalog_inventoryedition_delete", args=[edition.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    people.steward.is_superuser = True
    people.steward.save()
    assert client.post(delete, {"post": "yes"}).status_code == 302
    assert not InventoryEdition.objects.exists()
    assert "2 devices" in AuditEntry.objects.get(kind="inventory", verb="delete").result
