"""Boundary layers as stewards and viewers see them: upload, key, map, table, and what is refused where."""

import csv
import io
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from catalog import boundaries, maps, selectors
from catalog.audit import Actor
from catalog.models import AuditEntry, BoundaryLayer
from pipelines.models import Enrichment
from tests import world
from tests.catalog.squares import collection, square
from tests.web import plain_web  # noqa: F401

ANN = Actor("ann")
SQUARES = collection(
    square("1", 0, 0, OBJECTID=4, title="Harbour & docks"), square("2", 1, 0, OBJECTID=5, title="Hill"), square("10", 2, 0, OBJECTID=6, title="<b>")
)
ADD = "admin:catalog_boundarylayer_add"

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]


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


def stored(geojson: bytes = SQUARES, **more) -> BoundaryLayer:
    return boundaries.store("squares", "Squares", "name", geojson, ANN, **more)


def seen(client, path: str) -> str:
    reply = client.get(path)
    assert reply.status_code == 200, reply.status_code
    return reply.content.decode()


def map_of(page: str) -> str:
    return re.search(r'<svg class="map".*?</svg>', page, re.S)[0]


def uploaded(geojson: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile("areas.geojson", geojson, content_type="application/geo+json")


def send(client, path: str, **fields):
    return client.post(path, {"title": "Squares", "slug": "squares", "key_property": "", "label_property": "", "_save": "Save", **fields})


def errors(reply) -> str:
    assert reply.status_code == 200, "it was taken"
    return str(reply.context["adminform"].form.errors)


# looking


def test_a_list_without_layers_says_what_to_do(viewer, client, people):
    assert "A steward uploads a GeoJSON file" in seen(viewer, reverse("boundaries"))
    client.force_login(people.steward)
    assert reverse(ADD) in seen(client, reverse("boundaries"))


def test_the_list_names_who_uses_a_layer(viewer):
    layer = stored()
    trees = world.pipeline("trees", "Street trees", world.provider("parks", "Parks"), world.dataset("trees", "Trees"), world.SATURDAY)
    for column in ("area", "zone"):
        Enrichment.objects.create(pipeline=trees, layer=layer, lon_column="lon", lat_column="lat", column=column)
    page = seen(viewer, reverse("boundaries"))
    assert page.count("Street trees") == 1 and reverse("boundary", args=["squares"]) in page
    page = seen(viewer, layer.get_absolute_url())
    assert page.count("Street trees") == 2 and "zone" in page and "by lon, lat" in page


def test_pages_ask_as_often_however_many_use_a_layer(people, django_assert_num_queries):
    layer = stored()
    boundaries.load(layer)
    parks, feeds = world.provider("parks", "Parks"), world.dataset("trees", "Trees")
    for number in range(3):
        made = world.pipeline(f"trees-{number}", f"Trees {number}", parks, feeds, world.SATURDAY)
        Enrichment.objects.create(pipeline=made, layer=layer, lon_column="lon", lat_column="lat", column="area")
        boundaries.store(f"more-{number}", "More", "name", SQUARES, ANN)
        lean = BoundaryLayer.objects.defer("content").get(slug="squares")
        with django_assert_num_queries(3):
            assert [len(line.pipelines) for line in selectors.boundary_lines() if line.layer == layer] == [number + 1]
        with django_assert_num_queries(2):
            assert len(selectors.layer_page(lean, {}).uses) == number + 1


def test_the_map_and_its_table_show_the_same_areas(viewer):
    page = seen(viewer, stored(label_property="title").get_absolute_url())
    assert map_of(page).count("<path d=") == 3
    assert re.findall(r"<title>(.*?)</title></path>", page) == ["1: Harbour &amp; docks", "2: Hill", "10: &lt;b&gt;"]
    assert re.findall(r'\?area=(\w+)#map">', page) == ["1", "2", "10"]
    assert "style=" not in page and "<b>" not in page


def test_an_area_is_marked_and_a_point_is_looked_up(viewer):
    address = stored(label_property="title").get_absolute_url()
    assert "map__picked" not in seen(viewer, address)
    assert "map__picked" in seen(viewer, f"{address}?area=10")
    assert "It lies in 2, Hill." in seen(viewer, f"{address}?lon=1.5&lat=0.5") and "map__spot" in seen(viewer, f"{address}?lon=1.5&lat=0.5")
    assert "lies in no area" in seen(viewer, f"{address}?lon=9&lat=9")
    assert "Write longitude and latitude" in seen(viewer, f"{address}?lon=west&lat=")
    for odd in ("?area=none&page=99", "?q=nowhere", "?lon=nan&lat=inf"):
        seen(viewer, address + odd)


def test_a_layer_of_very_many_areas_is_one_outline_and_pages_of_a_table(viewer, monkeypatch):
    monkeypatch.setattr(maps, "MOST_TITLES", 200)
    layer = stored(collection(*[square(n, n % 20, n // 20) for n in range(250)]))
    page = seen(viewer, layer.get_absolute_url())
    assert map_of(page).count("<path") == 1 and "Areas 1 to 100 of 250" in page
    assert "Areas 201 to 250 of 250" in seen(viewer, layer.get_absolute_url() + "?page=3")
    assert "1 area of 250" in seen(viewer, layer.get_absolute_url() + "?q=249")


def test_the_table_and_the_file_can_be_downloaded(viewer):
    address = stored().get_absolute_url()
    body = b"".join(viewer.get(f"{address}?format=csv").streaming_content).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(body)))
    assert [row["key"] for row in rows] == ["1", "2", "10"] and 12_300 < float(rows[0]["square_kilometres"]) < 12_310
    assert viewer.get(reverse("boundary_file", args=["squares"])).content == SQUARES


def test_a_layer_that_was_spoilt_says_so_and_its_page_stands(viewer):
    layer = stored(collection(square("spoilt", 5, 5)))
    BoundaryLayer.objects.update(sha256="0" * 64)
    page = seen(viewer, layer.get_absolute_url())
    assert "can’t be read" in page and "Upload it again" in page


def test_nobody_looks_without_an_account(client, db):
    assert client.get(reverse("boundaries")).status_code == 302


def test_a_picture_keeps_every_area_and_the_shape_of_the_layer():
    layer = boundaries.parse(collection(square("large", 0, 60, size=2), square("speck", 3, 60, size=1e-9)), "name")
    drawn = maps.draw(layer)
    assert [shape.key for shape in drawn.shapes] == ["large", "speck"] and all(shape.path.startswith("M") for shape in drawn.shapes)
    # at 61 degrees north a degree of longitude is half as long as one of latitude
    assert drawn.width / drawn.height == pytest.approx(3 * 0.4848 / 2, rel=0.01)
    assert maps.place(layer, drawn, 0, 62) == (0, 0) and maps.place(layer, drawn, -1, 62) is None


# uploading


def test_a_steward_uploads_a_file_chooses_its_key_and_sees_the_map(steward):
    reply = send(steward, reverse(ADD), upload=uploaded(SQUARES))
    layer = BoundaryLayer.objects.get()
    assert reply.status_code == 302 and reply["Location"] == layer.get_absolute_url()
    assert (layer.key_property, layer.areas, layer.uploaded_by) == ("name", 3, "steward")
    change = reverse("admin:catalog_boundarylayer_change", args=[layer.pk])
    page = seen(steward, change)
    assert '<option value="OBJECTID">OBJECTID: 3 different, such as 4</option>' in page and 'class="map"' in page
    assert "Stored: 3 areas, named by title." in send_and_follow(steward, change, key_property="title")
    layer.refresh_from_db()
    assert layer.key_property == "title" and boundaries.content_of(layer) == SQUARES
    assert list(AuditEntry.objects.filter(kind="boundary").order_by("pk").values_list("actor", "verb")) == [
        ("steward", "create"),
        ("steward", "edit"),
    ]


def send_and_follow(client, path: str, **fields) -> str:
    reply = client.post(path, {"title": "Squares", "key_property": "", "label_property": "", "_save": "Save", **fields}, follow=True)
    assert reply.status_code == 200
    return reply.content.decode()


def test_a_new_upload_takes_the_place_of_the_old_one(steward):
    layer = stored()
    change = reverse("admin:catalog_boundarylayer_change", args=[layer.pk])
    send_and_follow(steward, change, key_property="name", upload=uploaded(collection(square("9", 0, 0))))
    again = BoundaryLayer.objects.get()
    assert (again.pk, again.slug, again.areas, again.uploaded_by) == (layer.pk, "squares", 1, "steward")


def test_what_is_wrong_is_said_at_the_file_and_nothing_is_stored(steward):
    assert "Choose the GeoJSON file." in errors(send(steward, reverse(ADD)))
    assert "is no JSON" in errors(send(steward, reverse(ADD), upload=uploaded(b"PK zip")))
    twins = collection(square("a", 0, 0), square("a", 1, 0))
    assert "The properties are name." in errors(send(steward, reverse(ADD), upload=uploaded(twins)))
    assert "EPSG:4326" in errors(send(steward, reverse(ADD), upload=uploaded(collection(square("a", 3_000_000, 10_000_000)))))
    assert not BoundaryLayer.objects.exists() and not AuditEntry.objects.filter(kind="boundary").exists()
    layer = stored()
    change = reverse("admin:catalog_boundarylayer_change", args=[layer.pk])
    other = steward.post(change, {"title": "Squares", "key_property": "title", "upload": uploaded(collection(square("a", 0, 0))), "_save": "Save"})
    assert "Select a valid choice" in errors(other) or "has no title" in errors(other)
    assert BoundaryLayer.objects.get().sha256 == layer.sha256


def test_an_outline_that_was_repaired_is_told_to_who_uploaded_it(steward):
    bow = square("bow", 4, 0)
    bow["geometry"]["coordinates"] = [[[4, 0], [5, 1], [5, 0], [4, 1], [4, 0]]]
    reply = steward.post(reverse(ADD), {"title": "Bow", "slug": "bow", "upload": uploaded(collection(bow)), "_save": "Save"}, follow=True)
    assert "Its outline was repaired" in reply.content.decode()


def test_a_layer_in_use_is_not_deleted(client, people):
    people.steward.is_superuser = True
    people.steward.save()
    client.force_login(people.steward)
    layer = stored()
    delete = reverse("admin:catalog_boundarylayer_delete", args=[layer.pk])
    trees = world.pipeline("trees", "Street trees", world.provider("parks", "Parks"), world.dataset("trees", "Trees"), world.SATURDAY)
    use = Enrichment.objects.create(pipeline=trees, layer=layer, lon_column="lon", lat_column="lat", column="area")
    assert client.post(delete, {"post": "yes"}).status_code == 403
    use.delete()
    assert client.post(delete, {"post": "yes"}).status_code == 302
    assert not BoundaryLayer.objects.exists() and AuditEntry.objects.filter(kind="boundary", verb="delete").exists()


def test_a_viewer_uploads_nothing(viewer):
    assert send(viewer, reverse(ADD), upload=uploaded(SQUARES)).status_code == 302
    assert not BoundaryLayer.objects.exists()
