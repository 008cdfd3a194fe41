"""The areas that a pipeline looks up, as a steward writes them into its form."""

import pytest
from django.urls import reverse

from catalog import boundaries
from catalog.audit import Actor
from catalog.models import AuditEntry
from pipelines.models import Enrichment
from tests import world
from tests.catalog.squares import collection, square
from tests.pipelines.test_admin import pipeline_values
from tests.web import plain_web  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]


@pytest.fixture
def trees(client):
    client.force_login(world.build(nothing=True).steward)
    world.provider("portal", "Portal")
    made = world.pipeline("trees", "Street trees", world.provider("parks", "Parks"), world.dataset("street-trees", "Trees"), world.SATURDAY)
    made.layer = boundaries.store("squares", "Squares", "name", collection(square("1", 0, 0)), Actor("ann"))
    return made


def send(client, trees, *areas: dict, known: int = 0):
    sent = {"enrichments-TOTAL_FORMS": len(areas), "enrichments-INITIAL_FORMS": known}
    for number, area in enumerate(areas):
        words = {
            "pipeline": trees.pk,
            "layer": trees.layer.pk,
            "position": number,
            "lon_column": "lon",
            "lat_column": "lat",
            "column": "area",
            **area,
        }
        sent |= {f"enrichments-{number}-{name}": value for name, value in words.items()}
    return client.post(reverse("admin:pipelines_pipeline_change", args=[trees.pk]), {**pipeline_values(trees), **sent}, follow=True)


def test_areas_are_added_changed_and_taken_out_and_the_audit_tells(client, trees):
    page = send(client, trees, {"column": "area"}, {"column": "zone", "lon_column": "x"}).content.decode()
    assert list(Enrichment.objects.values_list("column", "lon_column")) == [("area", "lon"), ("zone", "x")]
    # the trees are only extracted, loaded and published
    assert "not the stage enrich" in page
    area, zone = Enrichment.objects.all()
    send(client, trees, {"id": area.pk, "lat_column": "y"}, {"id": zone.pk, "column": "zone", "lon_column": "x", "DELETE": "on"}, known=2)
    assert list(Enrichment.objects.values_list("column", "lat_column")) == [("area", "y")]
    told = [entry.details["changed"] for entry in AuditEntry.objects.filter(kind="pipeline", target="trees").order_by("pk")]
    told = [changed for changed in told if "area area" in changed]
    assert [set(changed) for changed in told] == [{"area area", "area zone"}, {"area area", "area zone"}]
    assert told[1]["area zone"] == ["zone from Squares", None] and told[1]["area area"]["lat_column"] == ["lat", "y"]


@pytest.mark.parametrize("column", ["Area", "9th", "a b", 'x"; drop table city'])
def test_a_column_that_no_table_takes_is_refused(client, trees, column):
    assert "Use small letters" in send(client, trees, {"column": column}).content.decode()
    assert not Enrichment.objects.exists()
