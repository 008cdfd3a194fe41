"""The pages of quality: what stands on them, what is said where there is nothing, and how often they ask the database."""

import csv
import io
import json
import re
from datetime import timedelta

import pytest
import time_machine
from django.conf import settings as conf
from django.contrib.auth.models import User
from django.urls import reverse
from django_q.models import OrmQ

from catalog.models import AuditEntry
from opendata_ops import datasets
from perfmet import quality as scorer
from perfmet.models import QualityRun, QualityScore
from perfmet.selectors import quality, quality_improve, quality_table
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs
from tests import world
from tests.perfmet import cities, scored
from tests.web import asks, plain_web  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]


@pytest.fixture
def people(db):
    return world.build(nothing=True)


@pytest.fixture
def viewer(client, people):
    client.force_login(people.viewer)
    with time_machine.travel(world.SATURDAY, tick=False):
        yield client


@pytest.fixture
def operator(client, people):
    client.force_login(people.operator)
    return client


def shown(client, name, status=200, **asked):
    reply = client.get(reverse(name), asked)
    assert reply.status_code == status
    return reply.content.decode()


def lines_of(client, name, **asked):
    reply = client.get(reverse(name), {"format": "csv", **asked})
    assert reply["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))


def text_of(page: str) -> str:
    """What a reader sees of it."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<main")[1]).split())


def saved(*scores: QualityScore) -> list[QualityScore]:
    return QualityScore.objects.bulk_create(scores)


def packages(**asked) -> list[str]:
    return [line.package for line in quality.league(asked).chosen]


# the league


def test_the_worst_stand_first_and_the_newest_score_of_a_table_counts(viewer):
    old, new = scored.run(7), scored.run()
    saved(scored.score(old, "a", score=0.9), scored.score(new, "a", score=0.5), scored.score(old, "b", score=0.2), scored.score(new, "b", score=0.7))
    page = quality.league({})
    assert [(line.package, line.score_text, line.change_text) for line in page.chosen] == [("a", "0.500", "−0.400"), ("b", "0.700", "+0.500")]
    assert [line["package"] for line in lines_of(viewer, "quality", sort="best")] == ["b", "a"]
    assert [line["change"] for line in lines_of(viewer, "quality", grade="fell")] == ["-0.4"]
    text = text_of(shown(viewer, "quality"))
    assert "Mean 0.600, +0.050 since the run before" in text and "Bronze" in text


def test_grades_divisions_and_words_narrow_the_list_and_the_counters_agree(viewer):
    new = scored.run()
    saved(
        scored.score(new, "trees", score=0.9, division="Parks"), scored.score(new, "benches", score=0.7, division="Parks"),
        scored.score(new, "permits", score=0.75, division="Planning", gains=scored.GAINS), scored.score(new, "votes", score=0.3, division="Clerk"),
    )  # fmt: skip
    assert packages(grade="Silver") == ["benches", "permits"] and packages(division="Parks") == ["benches", "trees"]
    assert packages(q="VOTE") == ["votes"] and packages(grade="lift") == ["permits"] and packages(sort="name")[0] == "benches"
    assert packages(grade="Silver", division="Parks") == ["benches"]
    counts = {choice.word: choice.count for choice in quality.league({"division": "Parks"}).choices}
    assert counts == {"All": 2, "Gold": 1, "Silver": 1, "Bronze": 0, "Fell": 0, "One act away": 0}
    page = shown(viewer, "quality", division="Parks", q="zebra")
    assert "No table fits “zebra”" in text_of(page) and 'href="?by=current%40"' in page
    assert "division=Parks" in page and "grade=Gold" in page, "the counters are links, and keep the other filters"


def test_each_model_and_place_has_a_league_of_its_own(viewer):
    world.provider("portal", "Open portal", "ckan")
    saved(scored.score(scored.run(), "a", score=0.5), scored.score(scored.run(version="0.1.0"), "a", score=0.9, grade="Gold"))
    saved(scored.score(scored.run(place="portal"), "b", score=0.7))
    assert [model.name for model in quality.models()] == [
        "Current (2023 on), the warehouse",
        "Current (2023 on), Open portal",
        "0.1.0 (2020), the warehouse",
    ]
    assert packages() == ["a"] and packages(place="portal") == ["b"] and packages(by="current@portal") == ["b"]
    assert [line.score for line in quality.league({"model": "0.1.0"}).lines] == [0.9]
    text = text_of(shown(viewer, "quality", model="2.0", place="nowhere"))
    assert "No table of nowhere was scored by the model 2.0" in text


def test_a_table_that_a_whole_run_did_not_find_counts_no_more_and_is_named_below(viewer):
    old = scored.run(7)
    saved(scored.score(old, "here", score=0.9), scored.score(old, "withdrawn", score=0.1))
    saved(scored.score(scored.run(1), "here", score=0.9))
    page = quality.league({})
    assert [line.package for line in page.lines] == ["here"] and [line.package for line in page.gone] == ["withdrawn"]
    assert "Not scored any more" in shown(viewer, "quality") and quality_improve.improve({}).scored == 1


def test_a_run_over_the_daily_ones_alone_takes_nobody_off_the_list(viewer):
    whole = scored.run(3)
    saved(scored.score(whole, "weekly", score=0.4), scored.score(whole, "daily", score=0.4))
    saved(scored.score(scored.run(0, scope="daily"), "daily", score=0.6))
    assert [(line.package, line.score_text) for line in quality.league({}).lines] == [("daily", "0.600"), ("weekly", "0.400")]


def test_a_table_that_could_not_be_scored_keeps_its_place_and_the_reason_is_told(viewer):
    saved(scored.score(scored.run(7), "broken", "the table", score=0.7))
    failed = [{"name": "broken / the table", "why": "The portal said 503."}, {"name": "other"}, "junk"]
    scored.run(1, details={"failed": failed}, message="Scored 0 tables.")
    page = quality.league({})
    assert [line.package for line in page.lines] == ["broken"] and not page.gone
    text = text_of(shown(viewer, "quality"))
    assert "Could not be scored 2 tables" in text and "The portal said 503." in text


def test_a_run_that_goes_on_or_failed_says_so_over_the_list(viewer):
    saved(scored.score(scored.run(7), "a", score=0.7))
    late = scored.run(state=QualityRun.State.FAILED, message="The portal of the city did not answer.")
    assert "The newest run failed" in shown(viewer, "quality") and "did not answer" in shown(viewer, "quality-improve")
    QualityRun.objects.filter(pk=late.pk).update(state=QualityRun.State.RUNNING, message="")
    assert "Scoring goes on since" in shown(viewer, "quality") and packages() == ["a"]


def test_hundreds_of_tables_are_paged_and_none_is_lost(viewer):
    saved(*(scored.score(scored_run, f"table-{place:03}", score=place / 120) for scored_run in [scored.run()] for place in range(120)))
    found = [line.package for page in "123" for line in quality.league({"page": page}).listed]
    assert found == [f"table-{place:03}" for place in range(120)]
    assert "1 to 50 of 120 tables" in text_of(shown(viewer, "quality"))


def test_htmx_gets_the_list_alone_and_the_history_gets_the_page(viewer):
    saved(scored.score(scored.run(), score=0.7))
    fragment = viewer.get(reverse("quality"), headers={"HX-Request": "true"})
    assert fragment.content.decode().startswith('<section class="section" id="list"') and "HX-Request" in fragment["Vary"]
    again = viewer.get(reverse("quality"), headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<main" in again.content.decode()


def test_the_pages_ask_a_fixed_number_of_times(viewer):
    with asks(3):
        quality.league({})
    for tables, runs in ((3, 2), (70, 3)):
        QualityRun.objects.all().delete()
        scored.fill(tables, runs)
        with asks(4):
            page = quality.league({})
        with asks(4):
            quality_improve.improve({})
        asked = {"package": page.lines[0].package, "resource": page.lines[0].resource}
        with asks(6):
            quality_table.table_page(asked)
        with asks(1):
            assert len(quality.of_datasets()) == min(tables, 12)


def test_a_city_without_scores_is_told_how_to_score(viewer):
    for name in ("quality", "quality-improve"):
        text = text_of(shown(viewer, name))
        assert "No dataset has been scored yet" in text and "manage.py quality score --all" in text


def test_broken_scores_break_no_page_and_what_people_wrote_is_escaped(viewer):
    scored.strange(scored.run())
    for name in ("quality", "quality-improve"):
        page = shown(viewer, name)
        assert "<script>alert" not in page and "style=" not in page.split("<main")[1]
        assert lines_of(viewer, name)
    for line in quality.league({}).lines:
        reply = viewer.get(line.href)
        assert reply.status_code == 200 and b"<script>alert" not in reply.content
    (half,) = (line for line in quality.league({}).lines if line.package == "half json")
    assert lines_of(viewer, "quality-table", package=half.package, resource=half.resource, what="columns")
    assert lines_of(viewer, "quality-table", package=half.package, resource=half.resource)


# one table


@pytest.fixture
def permits(viewer):
    """A table with three scores, the newest with reasons, gains and failing columns."""
    portal = world.provider("files", "Files")
    one = world.dataset("permits", "Building permits")
    fed = world.pipeline("permits-daily", "Permits, daily", portal, one, world.SATURDAY)
    known = {"dataset": one, "pipeline": fed, "title": "Building permits", "division": "Planning"}
    saved(scored.score(scored.run(14), "permits", "Permits", **known), scored.score(scored.run(7), "permits", "Permits", metadata=0.5, **known))
    (newest,) = saved(
        scored.score(
            scored.run(), "permits", "Permits", metadata=0.5, freshness=0.875, reasons=scored.REASONS, gains=scored.GAINS, evidence=scored.EVIDENCE,
            codes={"metadata": "~missing_def_cols:c2,c3", "usability": ""}, **known,
        )
    )  # fmt: skip
    return newest


TABLE = {"package": "permits", "resource": "Permits"}


def test_a_table_shows_what_each_dimension_brings_why_and_what_would_raise_it(viewer, permits):
    page = quality_table.table_page(TABLE)
    assert sum(one.bar.part for one in page.dimensions) == pytest.approx(permits.score)
    assert [one.bar.name for one in page.lost] == ["metadata", "freshness"]
    assert [(act.gain.gain_text, act.lifts_to, act.mend.words) for act in page.acts] == [
        ("+0.090", "Gold", "See its blocks"), ("+0.029", "Gold", "Edit the description"),
    ]  # fmt: skip
    text = text_of(shown(viewer, "quality-table", **TABLE))
    for words in ("0.781 Silver", "It loses most by metadata (−0.175)", "~missing_def_cols:c2,c3", "2 of 12 columns have no definition", "(nothing)"):
        assert words in text, words
    assert "style=" not in shown(viewer, "quality-table", **TABLE).split("<main")[1]


def test_failing_columns_stand_in_the_order_of_the_reasons(viewer, permits):
    told = [{"dimension": "usability", "columns": ["zebra", "a"]}, {"dimension": "metadata", "columns": ["middle", "a"]}]
    QualityScore.objects.filter(pk=permits.pk).update(
        evidence={name: {"reason": "No.", "sample": [1]} for name in ("a", "middle", "unnamed", "zebra")},
        reasons=[{**one, "text": "Because."} for one in told],
    )
    assert [one.column for one in quality_table.table_page(TABLE).failing] == ["zebra", "a", "middle", "unnamed"]
    assert lines_of(viewer, "quality-table", **TABLE, what="columns")[0] == {"column": "zebra", "why": "No.", "value": "1"}


def test_the_history_has_the_originals_columns_and_a_chart_with_the_same_numbers(viewer, permits):
    lines = lines_of(viewer, "quality-table", **TABLE)
    assert list(lines[0]) == [
        "package", "resource", "usability", "usability_code", "metadata", "metadata_code", "freshness", "freshness_code", "completeness",
        "completeness_code", "accessibility", "accessibility_code", "store_type", "division", "score", "grade", "recorded_at",
    ]  # fmt: skip
    assert [line["score"] for line in lines] == [str(permits.score), "0.825", "1.0"] and lines[0]["metadata_code"] == "~missing_def_cols:c2,c3"
    text = shown(viewer, "quality-table", **TABLE)
    chart = json.loads(re.search(r'<script id="scores-data"[^>]*>(.*?)</script>', text)[1])
    assert chart["scores"]["Score"] == [1.0, 0.825, permits.score] and chart["scores"]["Metadata"] == [1.0, 0.5, 0.5]
    assert len(chart["x"]) == 3 and chart["x"] == sorted(chart["x"])


def test_a_score_of_the_past_is_shown_as_it_was_and_one_of_another_table_is_not(viewer, permits):
    first = QualityScore.objects.order_by("recorded_at").first()
    text = text_of(shown(viewer, "quality-table", **TABLE, at=first.pk))
    assert "1.000 Gold" in text and "its newest score is 0.781" in text and "It loses nothing" in text
    (other,) = saved(scored.score(scored.run(), "other", score=0.1))
    assert "0.781 Silver" in text_of(shown(viewer, "quality-table", **TABLE, at=other.pk))


def test_a_table_that_was_never_scored_so_is_not_found(viewer, permits):
    shown(viewer, "quality-table", status=404)
    shown(viewer, "quality-table", status=404, package="permits", resource="Fees")
    shown(viewer, "quality-table", status=404, **TABLE, model="0.1.0")
    shown(viewer, "quality-table", status=404, **TABLE, place="portal")


def test_the_same_table_by_another_model_is_one_click_away(viewer, permits):
    saved(scored.score(scored.run(version="0.1.0"), "permits", "Permits", score=0.66, score_norm=0.4, grade="Bronze", grade_norm="Bronze"))
    page = shown(viewer, "quality-table", **TABLE)
    assert "0.1.0 (2020), the warehouse · 0.660" in page
    text = text_of(shown(viewer, "quality-table", **TABLE, model="0.1.0"))
    assert "0.400 between the lowest and the highest of its run" in text


def test_a_table_whose_dataset_is_not_kept_here_says_so(viewer):
    saved(scored.score(scored.run(), "strangers", "Their table", score=0.7, gains=scored.GAINS))
    text = text_of(shown(viewer, "quality-table", package="strangers", resource="Their table"))
    assert "not kept in this console" in text and "on the portal" in text


# score now


def test_the_press_asks_a_worker_to_score_this_dataset_alone_and_to_publish_nothing(operator, permits, monkeypatch):
    operator.force_login(User.objects.get(username="operator"))
    page = quality_table.table_page(TABLE)
    assert "A worker takes it within seconds" in operator.post(page.press, {"reason": "spring"}, follow=True).content.decode()
    (run,) = UpkeepRun.objects.all()
    assert run.details == {"datasets": ["permits"]} and run.job.cadence == "manual" and OrmQ.objects.count() == 1
    assert AuditEntry.objects.filter(kind="upkeep", verb="run", reason="spring").exists()
    told = {}
    monkeypatch.setattr(
        scorer, "score", lambda **asked: told.update(asked) or scorer.Made(QualityRun(version="current", state="done", message="Scored."), [])
    )
    assert jobs.carry_out(run.pk).state == "done"
    assert (told["names"], told["place"], told["version"], told["is_dry"]) == (["permits"], "", "current", False)
    assert "publish" not in run.job.options and run.job.notices == "never"
    operator.post(page.press)
    assert UpkeepJob.objects.count() == 1, "one job, however often it is pressed"


def test_what_a_worker_then_scores_stands_on_the_page_with_its_reasons(client, people):
    pipeline = cities.good(information_url="", tags="")
    try:
        with time_machine.travel(cities.TUESDAY, tick=False):
            client.force_login(people.operator)
            [first] = scorer.score(names=["street-trees"], now=cities.TUESDAY - timedelta(days=7)).scores
            table = {"package": "street-trees", "resource": first.resource}
            client.post(quality_table.table_page(table).press)
            assert jobs.carry_out(UpkeepRun.objects.get().pk).state == "done"
            page = quality_table.table_page(table)
            text = text_of(client.get(page.line.href).content.decode())
    finally:
        cities.dropped(conf.WAREHOUSES["default"], pipeline.table)
    assert len(page.past) == 2 and page.score.run.scope == "one" and page.score.run.asked_by == "operator" and page.line.dataset == "street-trees"
    assert sum(one.bar.part for one in page.dimensions) == pytest.approx(page.score.score)
    for words in ("~no_tags", "It has no tags", "Add tags: the words that people search for.", "a steward edits it"):
        assert words in text, words


def test_a_viewer_has_no_press_and_may_not_press(viewer, permits):
    page = quality_table.table_page(TABLE)
    assert page.press.split("?")[0] not in shown(viewer, "quality-table", **TABLE)
    assert viewer.post(page.press).status_code == 403 and viewer.get(page.press).status_code == 405 and not UpkeepRun.objects.exists()


def test_where_a_mistake_is_public_the_press_asks_for_a_reason(operator, permits, settings):
    operator.force_login(User.objects.get(username="operator"))
    settings.ENVIRONMENT = "prod"
    reply = operator.post(quality_table.table_page(TABLE).press)
    assert reply.status_code == 422 and "Say why in a few words" in reply.content.decode() and not UpkeepRun.objects.exists()


def test_a_model_that_sets_tables_against_each_other_scores_none_alone(operator):
    saved(scored.score(scored.run(version="0.1.0"), "permits", "Permits", score=0.66))
    page = quality_table.table_page({**TABLE, "model": "0.1.0"})
    assert page.press.split("?")[0] not in shown(operator, "quality-table", **TABLE, model="0.1.0")
    assert "one alone has no grade" in operator.post(page.press, follow=True).content.decode() and not UpkeepRun.objects.exists()


# what would raise the scores


def test_all_gains_stand_by_size_and_a_remedy_knows_on_how_many_tables_it_helps(viewer):
    new = scored.run()
    saved(
        scored.score(new, "a", score=0.75, division="Parks", gains=scored.GAINS),
        scored.score(new, "b", score=0.5, division="Clerk", gains=[{**scored.GAINS[1], "text": "Describe all 3 columns: x, y, z.", "gain": 0.2}]),
        scored.score(new, "c", score=1.0, gains=[]),
    )
    page = quality_improve.improve({})
    assert [(act.gain.gain_text, act.name, act.lifts_to) for act in page.chosen] == [
        ("+0.200", "B", "Silver"),
        ("+0.090", "A", "Gold"),
        ("+0.029", "A", ""),
    ]
    assert [(one.name, one.tables, one.total_text, one.lifts) for one in page.remedies] == [
        ("Describe columns", 2, "+0.229", 1), ("Bring new rows", 1, "+0.090", 1),
    ]  # fmt: skip
    assert (page.tables, page.lifts, page.scored) == (2, 2, 3)
    assert [line["title"] for line in lines_of(viewer, "quality-improve", remedy="Describe columns")] == ["B", "A"]
    assert [line["gain"] for line in lines_of(viewer, "quality-improve", division="Parks", dimension="freshness")] == ["0.09"]
    assert "No act fits" in text_of(shown(viewer, "quality-improve", q="zebra"))


def test_where_nothing_would_raise_a_score_the_list_says_so(viewer):
    saved(scored.score(scored.run(), "a"))
    assert "Nothing would raise the score of any of 1 table" in text_of(shown(viewer, "quality-improve"))


# the dataset's page and the list of datasets, the admin, the doors


def test_a_dataset_is_as_good_as_its_worst_table(viewer, permits):
    saved(scored.score(scored.run(), "permits", "Fees", score=0.41, dataset=permits.dataset))
    assert (quality.of_datasets()[permits.dataset.pk].grade, quality.of_datasets()[permits.dataset.pk].tables) == ("Bronze", 2)
    page = viewer.get(permits.dataset.get_absolute_url()).content.decode()
    assert "Bronze</span> 0.410" in page and "Describe 2 of 12 columns" not in page and "Bring new rows" in page
    assert quality_table.quality.address("permits", "Fees", "current", "").replace("&", "&amp;") in page
    (line,) = datasets.dataset_list(datasets.DatasetFilters(), world.SATURDAY).lines
    assert (line.quality.grade, line.quality.score_text) == ("Bronze", "0.410")
    assert lines_of(viewer, "datasets")[0]["grade"] == "Bronze"


def test_a_dataset_that_was_never_scored_has_no_grade(viewer):
    one = world.dataset("lonely", "Lonely")
    assert "Not scored yet." in viewer.get(one.get_absolute_url()).content.decode()
    assert lines_of(viewer, "datasets")[0]["grade"] == "" and quality.of_datasets() == {}


def test_a_table_that_left_its_dataset_long_ago_does_not_pull_it_down(viewer, permits):
    saved(scored.score(scored.run(quality.GONE // timedelta(days=1) + 30), "permits", "Of old", score=0.1, dataset=permits.dataset))
    assert [line.resource for line in quality.of_dataset(permits.dataset.pk)] == ["Permits"]


@pytest.mark.parametrize("model", ["qualityrun", "qualityscore"])
def test_scores_are_history_in_the_admin(client, people, model):
    (one,) = saved(scored.score(scored.run(), score=0.7))
    client.force_login(people.steward)
    assert client.get(reverse(f"admin:perfmet_{model}_changelist")).status_code == 200
    pk = one.run_id if model == "qualityrun" else one.pk
    assert client.get(reverse(f"admin:perfmet_{model}_change", args=[pk])).status_code == 200
    assert client.post(reverse(f"admin:perfmet_{model}_delete", args=[pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:perfmet_{model}_add")).status_code == 403


@pytest.mark.parametrize("name", ["quality", "quality-table", "quality-improve"])
def test_nobody_looks_without_logging_in_or_without_the_right(client, db, django_user_model, name):
    reply = client.get(reverse(name))
    assert reply.status_code == 302 and "/login/" in reply["Location"]
    client.force_login(django_user_model.objects.create_user("nobody"))
    assert client.get(reverse(name)).status_code == 403


def test_the_rail_marks_quality_on_each_of_its_pages(viewer, permits):
    for name, asked in (("quality", {}), ("quality-improve", {}), ("quality-table", TABLE)):
        assert f'<a href="{reverse("quality")}" aria-current="page">Quality</a>' in shown(viewer, name, **asked)
