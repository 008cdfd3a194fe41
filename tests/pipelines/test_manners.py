"""The settings page in sentences: how a pipeline reads, what becomes of rows gone and of changed columns, how it publishes."""

from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse

from catalog.models import CatalogEntry
from pipelines.models import Pipeline, Provider, Run, ScheduleBlock
from pipelines.selectors import manners
from tests import world
from tests.web import asks, plain_web  # noqa: F401

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pipeline(**fields) -> Pipeline:
    portal = Provider(pk=2, slug="portal", title="Riverton Open Data", kind=fields.pop("kind", "socrata"))
    values = {"key": ["id"], "time_zone": "UTC", "portal": portal, "portal_resource": "abcd-1234", "title": "Trees", **fields}
    return Pipeline(provider=Provider(pk=1, title="Trees office", kind="socrata"), **values)


WATERMARKED = {"watermark_column": "updateddate", "watermark": "2026-11-20T16:39:00.000", "overlap_minutes": 1440}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window_column": "createddate"}, ["whose createddate lies in its span"]),
        ({}, ["reads the whole source"]),
        (WATERMARKED, ["whose updateddate is at or after the newest that was loaded, less an overlap of 1 day, and those that have none",
                       "up to 2026-11-20 16:39", "every 7 days", "the first time with the next block"]),
        ({**WATERMARKED, "watermark_column": ":updated_at", "overlap_minutes": 90}, ["the time at which the source changed it", "of 90 minutes"]),
        ({**WATERMARKED, "watermark": "", "since": "2020-09-20T01:39:13"}, ["the first block reads rows at or after 2020-09-20 01:39"]),
        ({**WATERMARKED, "watermark": "", "overlap_minutes": 0}, ["the first block reads all rows", "that was loaded, and those"]),
        ({**WATERMARKED, "compared_at": NOW - timedelta(days=2)}, ["last Nov 20 2026, 12:00, next with the first block after Nov 27 2026, 12:00"]),
        ({**WATERMARKED, "compared_at": NOW - timedelta(days=9)}, ["next with the next block"]),
        ({**WATERMARKED, "compare_days": 0}, ["never compared"]),
        ({**WATERMARKED, "compare_days": 1, "key": [], "load_mode": "replace"}, ["Without a key, the whole source is read again every day"]),
    ],
)  # fmt: skip
def test_the_way_of_reading_is_told(fields, words):
    told = " ".join(manners.reading(pipeline(**fields), NOW))
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "kept, and counted"),
        ({"window_column": "createddate"}, "kept, and not looked for"),
        ({"gone_rows": "delete"}, "deleted from the table, and from Riverton Open Data. A reading that lost more than half"),
        ({"gone_rows": "delete", "portal": None}, "deleted from the table."),
        ({"key": [], "load_mode": "append"}, "only added"),
        ({"key": [], "load_mode": "replace"}, "the rows of the pipeline become those of the source"),
        ({"key": [], "load_mode": "replace", **WATERMARKED}, "the rows of what was read again become"),
    ],
)
def test_what_becomes_of_rows_that_are_gone_is_told(fields, words):
    assert words in manners.gone_rows(pipeline(**fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "inserted and updated by key."),
        ({"gone_rows": "delete"}, "deleted ones are deleted there"),
        ({"portal_mode": "replace"}, "All rows are replaced at once"),
        ({"kind": "csv_file"}, "written anew each time"),
        ({"stages": ["extract", "load"]}, ""),
        ({"portal": None}, ""),
    ],
)
def test_the_way_of_publishing_is_told(fields, words):
    told = manners.publishing(pipeline(**fields))
    assert words in told and bool(told) is bool(words)


def test_changed_columns_volume_and_loading_are_told():
    assert "twins stay twins" in manners.loading(pipeline(key=[], load_mode="replace")) and "by key" in manners.loading(pipeline())
    assert "only added" in manners.loading(pipeline(key=[], load_mode="append"))
    assert "accepts them" in manners.changed_columns(pipeline(drift="stop")) and "widened" in manners.changed_columns(pipeline())
    assert "suspicious" in manners.volume(pipeline()) and "not watched" in manners.volume(pipeline(watch_volume=False))


# on the pages


@pytest.fixture
def city(client, db):
    made = world.build()
    client.force_login(made.viewer)
    return made


def test_the_settings_tab_says_it_all_and_asks_no_more_for_it(client, city):
    one = city.pipelines["trees"]
    Pipeline.objects.filter(pk=one.pk).update(**WATERMARKED, key=["id"], gone_rows="delete", drift="stop", portal_mode="replace", watch_volume=False)
    address = f"{one.get_absolute_url()}?tab=settings"
    client.get(address)
    with asks(15):
        text = client.get(address).content.decode()
    for words in ("up to 2026-11-20 16:39", "deleted from the table", "until a person accepts them", "All rows are replaced at once", "not watched"):
        assert words in text
    assert ", only what changed since the last load. From" in text
    assert "the whole source each time" not in text


def test_a_file_that_waits_for_the_portal_is_offered_with_what_becomes_of_it(client, city):
    block = city.blocks["failed"]
    entry = CatalogEntry.objects.create(
        dataset=block.pipeline.dataset, source=block.pipeline.slug, layer="backup", id_base="pending-upload", id_ext=".csv",
        window_start=block.starts_at, window_end=block.ends_at, pointer="x/pending-upload.csv", sha256="0" * 64, bytes=1234, rows=77,
        metadata={"role": "pending upload"},
    )  # fmt: skip
    text = client.get(reverse("block", args=[block.pk])).content.decode()
    assert "77 rows wait for" in text and "They are sent as soon as it answers" in text
    assert text.count(reverse("lake_download", args=[entry.pk])) == 2
    CatalogEntry.objects.filter(pk=entry.pk).update(withdrawn_at=NOW)
    assert "pending upload.</strong>" not in client.get(reverse("block", args=[block.pk])).content.decode()


def test_the_story_tells_what_the_pass_did_besides(client, city):
    block = city.blocks["requests"]
    load, publish = (Run.objects.filter(block=block, stage=stage).first() for stage in ("load", "publish"))
    Run.objects.filter(pk=load.pk).update(deleted=3, details={"gone": 3, "widened": ["zip was number and is text now"], "watermark": "2026-11-20"})
    Run.objects.filter(pk=publish.pk).update(deleted=3, details={"table_rows": 1000, "portal_rows": 1002})
    ScheduleBlock.objects.filter(pk=block.pk).update(asked_because="")
    text = client.get(reverse("block", args=[block.pk])).content.decode()
    for words in ("3 rows are gone at the source", "zip was number", "3 rows were deleted on", "The table has 1,000 rows, "):
        assert words in text
    assert "it adds up" in text
