"""Quality on the real CKAN: any package is scored as it is there, and the scores are published, again and again, as one history."""

import json

import pytest
import requests

from perfmet import quality, score_tables
from pipelines import secrets
from pipelines.models import Provider
from tests.ckan.real import RealCkan
from tests.perfmet.cities import TUESDAY, WEDNESDAY

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db]

PACKAGE = {
    "owner_org": "city", "title": "Street trees", "notes": "All of them.", "topics": ["Environment"], "owner_email": "trees@city.example",
    "information_url": "https://city.example/trees", "refresh_rate": "Daily", "last_refreshed": "2026-11-22T10:00:00", "owner_division": "Parks",
    "tags": [{"name": "trees"}],
}  # fmt: skip
FIELDS = [
    {"id": "tree_id", "type": "int", "info": {"notes": "Its number."}},
    {"id": "ward", "type": "text", "info": {"notes": "Its ward."}},
    {"id": "planted", "type": "date"},
    {"id": "geometry", "type": "text"},
]
BOWTIE = json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]]})


@pytest.fixture
def portal(real_ckan: RealCkan, settings):
    """The real CKAN with a small table, an empty one, a document and a retired dataset; its provider is `open`."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    Provider.objects.create(
        slug="open", title="Open data", kind="ckan", base_url=real_ckan.url, parameters={"organization": "city"},
        secrets={"api_key": secrets.seal(real_ckan.editor_key)},
    )  # fmt: skip
    _table(real_ckan, "street-trees", "Trees", trees(10))
    _table(real_ckan, "no-trees", "Nothing", [])
    _table(real_ckan, "old-trees", "Old", [], is_retired="true")
    plans = real_ckan.action("package_create", name="plans", **{**PACKAGE, "dataset_category": "Document"})
    real_ckan.action("resource_create", package_id=plans["id"], name="Plan", format="PDF", url="https://city.example/plan.pdf")
    return real_ckan


def trees(last, first=0):
    """Rows of which every second ward, every date and every shape but one says nothing."""
    return [{"tree_id": n, "ward": "NA" if n % 2 else "7", "planted": None, "geometry": BOWTIE if n == 7 else None} for n in range(first, last)]


def _table(ckan, package, name, records, **fields):
    made = ckan.action("package_create", name=package, **{**PACKAGE, **fields})
    ckan.action("datastore_create", resource={"package_id": made["id"], "name": name}, fields=FIELDS, records=records, force=True)


def _more(ckan, package, records):
    [resource] = ckan.action("package_show", id=package)["resources"]
    ckan.action("datastore_upsert", resource_id=resource["id"], records=records, method="insert", force=True)


def held(ckan):
    """The published rows, and their columns with the types that the portal has."""
    resources = {one["name"]: one["id"] for one in ckan.action("package_show", id=score_tables.PACKAGE)["resources"]}
    told = {}
    for name in (score_tables.SCORES, score_tables.SCORECARD):
        if name in resources:
            found = ckan.action("datastore_search", resource_id=resources[name], sort="_id")
            told[name] = (found["records"], {field["id"]: field["type"] for field in found["fields"]})
    return told


def test_a_portal_is_scored_and_its_scores_are_published_as_one_history(portal: RealCkan):
    # more than one page has
    _more(portal, "street-trees", trees(20_100, first=10))

    made = quality.score(place="open", now=TUESDAY)

    found = {score.package: score for score in made.scores}
    assert set(found) == {"street-trees", "no-trees", "plans"} and not made.failed
    large = found["street-trees"]
    assert (large.rows, large.columns, large.resource, large.division) == (20_100, 4, "Trees", "Parks")
    assert large.codes == {
        "metadata": "~missing_def_cols:planted", "freshness": "~refresh_rate:daily~periods_behind:1.0", "accessibility": "~no_pipeline_found",
        "completeness": "~significant_missing_data", "usability": "~constant_cols:ward,planted",
    }  # fmt: skip
    assert large.completeness == pytest.approx(1 - (10_050 + 20_100 + 20_099) / 80_400)
    assert (found["no-trees"].rows, found["plans"].store_type) == (0, "filestore")

    provider = score_tables.portal_for(made.run)
    assert score_tables.publish(made.run, provider) == 3
    assert score_tables.publish(made.run, provider) == 3
    second = quality.score(place="open", now=WEDNESDAY, force=True)
    score_tables.publish(second.run, provider)

    rows, kinds = held(portal)[score_tables.SCORES]
    # what is published is itself a dataset that is scored the next time
    assert [row["package"] for row in rows] == ["no-trees", "plans", "street-trees", "catalogue-quality-scores", "no-trees", "plans", "street-trees"]
    assert list(kinds)[1:] == [column.name for column in score_tables.WHOLE.columns]
    assert (kinds["score"], kinds["usability"], kinds["recorded_at"], kinds["grade"]) == ("float8", "float8", "timestamp", "text")
    assert (rows[0]["recorded_at"], rows[2]["score"]) == ("2026-11-24T18:00:00.000", round(large.score, 3))


def test_what_a_dead_publication_left_is_not_there_twice(portal: RealCkan):
    run = quality.score(place="open", now=TUESDAY).run
    provider = score_tables.portal_for(run)
    score_tables.publish(run, provider)
    [(rows, _)] = held(portal).values()
    resource = next(one for one in portal.action("package_show", id=score_tables.PACKAGE)["resources"] if one["name"] == score_tables.SCORES)
    portal.action("datastore_delete", resource_id=resource["id"], filters={"package": "plans"}, force=True)

    score_tables.publish(run, provider)

    [(again, _)] = held(portal).values()
    assert sorted(row["package"] for row in again) == sorted(row["package"] for row in rows)


def test_0_1_0_has_its_scorecard_and_its_models_beside_it(portal: RealCkan):
    made = quality.score(place="open", version="0.1.0", now=TUESDAY)
    assert made.left_out == ["plans / Plan"]
    assert "~invalid_geospatial" in {score.package: score.codes["usability"] for score in made.scores}["street-trees"]
    provider = score_tables.portal_for(made.run)
    for _ in range(2):
        assert score_tables.publish(made.run, provider) == 2

    rows, kinds = held(portal)[score_tables.SCORECARD]
    # the lower one of two is always 0: the shape that is none costs more than having no rows at all
    assert [(row["package"], row["version"], row["score_norm"]) for row in rows] == [("no-trees", "0.1.0", 1), ("street-trees", "0.1.0", 0)]
    assert kinds["score_norm"] == "float8"
    resources = {one["name"]: one for one in portal.action("package_show", id=score_tables.PACKAGE)["resources"]}
    assert len(resources) == 2
    models = requests.get(resources[score_tables.MODELS]["url"], timeout=10).json()
    assert models["0.1.0"]["dimensions"][0]["name"] == "usability"
