"""Watches in the admin: a steward makes and changes them, mistakes are told at their field, and what was observed is only looked at."""

from datetime import datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from catalog.models import AuditEntry
from perfmet import observe
from perfmet.models import Health, SensorWatch
from perfmet.observe import Delivery
from pipelines import clock
from tests import world
from tests.perfmet.readers import SUNDAY, ZONE, board, days_ago, reading, watched
from tests.web import plain_web  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def monday(monkeypatch):
    now = datetime.combine(days_ago(-1), datetime.min.time(), tzinfo=clock.zone(ZONE)) + timedelta(hours=12)
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.fixture
def people():
    return world.build(nothing=True)


@pytest.fixture
def steward(client, people):
    client.force_login(people.steward)
    return client


def form(watch: SensorWatch, **changes) -> dict:
    values = {
        "label": watch.label, "sensor_column": watch.sensor_column, "value_column": "", "time_column": "", "unit_field": "", "rule": "previous",
        "window_days": 7, "thresholds": "{}", "is_active": "on",
    }  # fmt: skip
    return {**values, **changes}


def save(client, watch: SensorWatch, **changes):
    return client.post(reverse("admin:perfmet_sensorwatch_change", args=[watch.pk]), form(watch, **changes), follow=True)


def test_a_steward_makes_a_watch_and_the_audit_says_so(steward):
    watch = watched()
    pipeline = watch.pipeline
    watch.delete()
    told = steward.post(reverse("admin:perfmet_sensorwatch_add"), {**form(watch), "pipeline": pipeline.pk})
    assert told.status_code == 302
    assert SensorWatch.objects.get().pipeline == pipeline
    assert AuditEntry.objects.filter(kind="sensor watch", verb="create", target=pipeline.title).exists()


def test_by_new_thresholds_the_last_weeks_are_judged_anew_at_once(steward):
    watch = watched()
    observe.observe_days(watch, {days_ago(ago): Delivery({"a": reading(100 if ago else 80)}, 1) for ago in range(9, -1, -1)})
    assert board(watch) == {"a": Health.WELL}
    text = save(steward, watch, thresholds='{"low": 0.9}').content.decode()
    assert board(watch) == {"a": Health.LOW}
    assert "1 observations of the last weeks were judged anew" in text


def test_another_column_says_how_to_have_the_past_observed_anew(steward):
    watch = watched()
    assert f"python3 manage.py observe {watch.pipeline.slug}" in save(steward, watch, sensor_column="id").content.decode()


@pytest.mark.parametrize(
    ("changes", "pipeline", "words"),
    [
        ({"thresholds": '{"lo": 1}'}, {}, "there is no lo"),
        ({"thresholds": '{"low": 2}'}, {}, "must be less than high"),
        ({"thresholds": "[1]"}, {}, "are none"),
        ({"window_days": 0}, {}, "greater than or equal to 1"),
        ({"unit_field": "device_name"}, {}, "names no inventory"),
        ({}, {"window_column": "", "load_mode": "upsert"}, "has no window column"),
        ({}, {"stages": ["extract"]}, "neither standardizes nor loads"),
    ],
    ids=str,
)
def test_mistakes_are_told_at_their_field(steward, changes, pipeline, words):
    watch = watched(pipeline=pipeline)
    assert words in save(steward, watch, **changes).content.decode().replace("&#x27;", "'")


def test_an_operator_changes_no_watch_and_a_steward_deletes_none(client, people):
    watch = watched()
    client.force_login(people.operator)
    assert client.get(reverse("admin:perfmet_sensorwatch_change", args=[watch.pk])).status_code == 302
    client.force_login(people.steward)
    assert client.post(reverse("admin:perfmet_sensorwatch_delete", args=[watch.pk]), {"post": "yes"}).status_code == 403


def test_observations_are_looked_at_and_never_changed(steward):
    watch = watched()
    observe.observe(watch, SUNDAY, {"a": reading(5)})
    text = steward.get(reverse("admin:perfmet_observation_changelist")).content.decode()
    assert "Its first day" in text
    assert steward.get(reverse("admin:perfmet_observation_add")).status_code == 403
