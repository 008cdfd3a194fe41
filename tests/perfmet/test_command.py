"""The command `observe`: which days of which pipelines, in words and as JSON, and its exit codes."""

from datetime import timedelta

import pytest
from django.utils import timezone

from perfmet.models import Health, Observation, SensorWatch
from pipelines import clock
from tests.perfmet.readers import SUNDAY, ZONE, block_of, board, days_ago, delivered, watched
from tests.pipelines.commanding import command

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def monday(monkeypatch):
    """The Monday after SUNDAY, when nothing of it is due any more."""
    now = clock.day_start(days_ago(-1), ZONE) + timedelta(hours=12)
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.fixture
def watch():
    found = watched()
    for ago in (4, 3, 2, 0):
        delivered(found, days_ago(ago), {"a": 100})
    return found


def test_all_recorded_days_of_all_watched_pipelines_are_observed(watch):
    watched(is_active=False)
    told = command("observe")
    assert told.code == 0 and not told.err
    assert told.out.strip() == f"{watch.pipeline.slug}: 5 days, 18 Nov 2026 to 22 Nov 2026. Of each sensor and day: 1 well, 3 new, 1 no data yet."
    assert board(watch, days_ago(1)) == {"a": Health.STALE}


def test_a_span_of_days_as_json(watch):
    told = command("observe", watch.pipeline.slug, "--from", str(days_ago(4)), "--to", str(days_ago(3)), "--json")
    [line] = told.json["observed"]
    assert line == {"pipeline": watch.pipeline.slug, "days": 2, "from": "2026-11-18", "to": "2026-11-19", "rows": 2, "health": {"new": 2}}
    assert Observation.objects.count() == 2 and told.code == 0


def test_a_day_that_may_still_come_is_not_called_stale(watch):
    today = days_ago(-1)
    block_of(watch, clock.day_start(today, ZONE), clock.day_start(days_ago(-2), ZONE), state="waiting", finished_at=None)
    command("observe", watch.pipeline.slug)
    assert board(watch) and not board(watch, today)


def test_twice_says_the_same(watch):
    assert command("observe") == command("observe")


def test_one_pipeline_that_fails_does_not_stop_the_others(watch):
    bad = watched(thresholds={"lo": 1})
    delivered(bad, SUNDAY, {"a": 1})
    told = command("observe", "--json")
    assert told.code == 1 and [line["pipeline"] for line in told.json["observed"]] == [watch.pipeline.slug]
    assert told.json["failed"][0]["pipeline"] == bad.pipeline.slug and "there is no lo" in told.err


def test_where_no_block_is_yet_there_is_nothing_to_do():
    watch = watched()
    told = command("observe", watch.pipeline.slug)
    assert told.code == 3 and "nothing to observe of these days yet" in told.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "No pipeline is watched"),
        (("nobody",), "There is no pipeline 'nobody'"),
        (("--from", "yesterday"), "'yesterday' is no day"),
        (("--from", "2026-02-30"), "'2026-02-30' is no day"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "ends before it begins"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_in_words(words, said):
    told = command("observe", *words)
    assert told.code == 2 and said in told.err and "Next: " in told.err


def test_a_pipeline_that_nobody_watches_is_named():
    watch = watched()
    SensorWatch.objects.all().delete()
    told = command("observe", watch.pipeline.slug)
    assert told.code == 2 and f"Nobody watches the sensors of {watch.pipeline.slug}" in told.err
