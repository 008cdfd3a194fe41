"""The pages of performance: what stands on them, what is said where there is nothing, and how often they ask the database."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta

import pytest
import time_machine
from django.urls import reverse

from catalog import boundaries
from catalog.audit import Actor
from perfmet.models import Health, Observation, SensorWatch
from perfmet.selectors import board as boards
from perfmet.selectors import jobs, places, sensors, watches
from pipelines.models import Pipeline, Run, ScheduleBlock, State
from pipelines.selectors import faces
from tests import world
from tests.catalog.squares import collection, square
from tests.perfmet import watched
from tests.perfmet.watched import FRIDAY
from tests.web import asks, plain_web  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("plain_web")]

DAY = timedelta(days=1)
SATURDAY = FRIDAY + DAY


@pytest.fixture
def viewer(client, db):
    client.force_login(world.people()[0])
    with time_machine.travel(world.SATURDAY, tick=False):
        yield client


@pytest.fixture
def readers(viewer):
    """A watched pipeline with 24 sensors and 20 days, one of them with nothing."""
    one = watched.watch(watched.pipeline())
    watched.fill(one, 24, 20, gap=FRIDAY - 6 * DAY)
    return one


def shown(client, name, *args, status=200, **asked):
    reply = client.get(reverse(name, args=args), asked)
    assert reply.status_code == status
    return reply.content.decode()


def lines_of(client, name, *args, **asked):
    reply = client.get(reverse(name, args=args), {"format": "csv", **asked})
    assert reply["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(b"".join(reply.streaming_content).decode())))


def text_of(page: str) -> str:
    """What a reader sees of it."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<main")[1]).split())


# jobs


def report(now=world.SATURDAY, **asked):
    return jobs.page(jobs.Asked.of({name.rstrip("_"): str(value) for name, value in asked.items()}, now), now)


def stages(page, source):
    return {job.stage: job.face.word for job in page.jobs if job.source == source}


def test_pipelines_of_a_data_source_are_one_and_one_without_stands_under_its_own_title(viewer):
    for slug in ("bt-unmatched", "bt-matched"):
        watched.worked(watched.pipeline(slug, slug), 2, rows=100)
    watched.worked(watched.pipeline("noise", "Noise meters", ""), 2, rows=7)
    page = report()
    assert page.names == ["Bluetooth", "Noise meters"] and page.bad == 0
    extract = next(job for job in page.jobs if job.source == "Bluetooth")
    assert (extract.stage, extract.records, extract.rows, extract.runs, extract.covers) == ("extract", 2, 200, 2, "1 day")
    assert stages(page, "Noise meters") == dict.fromkeys(watched.STAGES, "Done")
    assert sum(source.share for source in page.sources) == pytest.approx(1)


def test_a_stage_that_should_have_run_stands_out_as_absent(viewer):
    watched.pipeline()
    page = report()
    assert stages(page, "Bluetooth") == dict.fromkeys(watched.STAGES, "Absent") and page.bad == 5
    text = shown(viewer, "performance")
    assert text.count('<tr class="absent">') == 5 and "no run, though a block was due" in text
    assert "5 of 5 jobs need a look" in text
    assert [line["state"] for line in lines_of(viewer, "performance")] == ["Absent"] * 5


def test_after_a_failure_the_later_stages_are_absent_and_say_why(viewer):
    one = watched.pipeline()
    watched.worked(one, 3, failed=FRIDAY)
    page = report()
    assert list(stages(page, "Bluetooth").values()) == ["Done", "Failed", "Absent", "Absent", "Absent"]
    assert page.jobs[2].notes == ["not reached, standardize failed"]
    text = shown(viewer, "performance")
    assert "The disk of the lake is full." in text and "Make room, then retry this day." in text
    assert ScheduleBlock.objects.get(state=State.FAILED).get_absolute_url() in text


def test_one_absent_pipeline_of_three_is_seen(viewer):
    for slug in ("bt-unmatched", "bt-matched"):
        watched.worked(watched.pipeline(slug, slug), 2, none=FRIDAY if slug == "bt-matched" else None)
    page = report()
    assert set(stages(page, "Bluetooth").values()) == {"Absent"}
    assert page.jobs[0].runs == 1 and page.jobs[0].notes == ["bt-matched: no run, though a block was due"]


def test_failures_with_the_same_words_are_one_line_and_those_made_good_are_none(viewer):
    one = watched.pipeline()
    watched.worked(one, 1)
    for back in (2, 3, 4):
        watched.worked(one, 1, last=FRIDAY - back * DAY, failed=FRIDAY - back * DAY)
    page = report()
    assert [(failure.blocks, failure.runs) for failure in page.failures] == [(3, 3)] and page.failed == 3
    Run.objects.filter(state="failed").update(superseded_at=world.SATURDAY)
    page = report()
    assert page.failures == [] and page.failed == 0 and page.sources[0].squares[-3].face == faces.OK


def test_what_needs_no_stage_or_is_paused_or_not_due_is_not_called_absent(viewer):
    same = watched.pipeline("same", "Same", "Same")
    watched.worked(same, 1)
    Run.objects.exclude(stage="extract").delete()
    Run.objects.update(state="unchanged", rows_out=0, unchanged=410_000)
    watched.pipeline("rest", "Rest", "Rest", is_paused=True)
    watched.pipeline("week", "Week", "Week", cadence="weekly")
    watched.pipeline("hand", "Hand", "Hand", cadence="manual")
    # due in this very minute: a worker may still be on its way
    watched.pipeline("soon", "Soon", "Soon", due_time=time(6, 40))
    page = report()
    assert list(stages(page, "Same").values()) == ["Unchanged", *["Not needed"] * 4]
    assert set(stages(page, "Rest").values()) == {"Paused"}
    assert page.quiet == ["Hand", "Soon", "Week"] and page.bad == 0
    assert set(stages(report(now=world.SATURDAY + timedelta(hours=1)), "Soon").values()) == {"Absent"}


def test_the_stage_after_one_that_has_just_ended_is_not_absent_yet(viewer):
    one = watched.pipeline(stages=["extract", "load"])
    watched.worked(one, 1)
    Run.objects.filter(stage="load").delete()
    ended = Run.objects.get().finished_at
    assert stages(report(now=ended + timedelta(minutes=5)), "Bluetooth") == {"extract": "Done", "load": "Not yet"}
    assert stages(report(now=ended + timedelta(minutes=40)), "Bluetooth") == {"extract": "Done", "load": "Absent"}


def test_the_days_are_those_of_the_run_or_those_of_the_data_as_asked(viewer):
    watched.worked(watched.pipeline(), 1)
    assert set(stages(report(day=SATURDAY), "Bluetooth").values()) == {"Done"}
    assert set(stages(report(day=FRIDAY, by="data"), "Bluetooth").values()) == {"Done"}
    assert "extract" not in stages(report(day=SATURDAY, by="data"), "Bluetooth"), "the day's data is not due yet"
    assert jobs.Asked.of({"by": "data"}, world.SATURDAY).day == FRIDAY


def test_a_day_of_data_is_that_of_the_pipelines_own_clock(viewer):
    one = watched.pipeline(time_zone="UTC", due_time=None)
    window = datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    block = world.block(one, window, rows=5)
    block.save()
    Run.objects.bulk_create(world.runs_of(block))
    page = report(day="2026-11-19", by="data", from_="2026-11-18", to="2026-11-19")
    assert set(stages(page, "Bluetooth").values()) == {"Done"}
    assert [square.face for square in page.sources[0].squares] == [jobs.ABSENT, faces.OK]


def test_an_hourly_pipeline_owes_every_day_since_it_began(viewer):
    watched.pipeline(cadence="hourly", starts_on=FRIDAY - 2 * DAY)
    words = [square.face.word for square in report(from_=FRIDAY - 4 * DAY, to=SATURDAY + 2 * DAY).sources[0].squares]
    assert words == ["Nothing owed"] * 2 + ["Absent"] * 4 + ["Nothing owed"] * 2


def test_a_test_twin_is_no_job_and_no_watch_of_the_city(viewer):
    one = watched.pipeline()
    twin = watched.pipeline("bt-test", "Bluetooth, test", twin_of=one)
    watched.watch(twin)
    assert report().names == ["Bluetooth"] and [job.slugs for job in report().jobs][0] == ["bt-unmatched"]
    assert watches.tabs() == []


def test_the_span_has_bars_shares_and_a_chart_whose_gaps_stay_gaps(viewer):
    watched.worked(watched.pipeline(), 14, none=FRIDAY - 3 * DAY)
    text = shown(viewer, "performance")
    data = json.loads(re.search(r'<script id="elapsed-data"[^>]*>(.*?)</script>', text)[1])
    assert data["gaps"] and len(data["x"]) == 14 and data["seconds"]["Bluetooth"].count(None) == 1
    by_day = {line["day"]: line["Bluetooth"] for line in lines_of(viewer, "performance", what="days")}
    assert by_day["2026-11-18"] == "" and float(by_day["2026-11-21"]) == data["seconds"]["Bluetooth"][-1]
    (source,) = lines_of(viewer, "performance", what="sources")
    assert (source["source"], source["day_records"], source["days_absent"], source["share_of_seconds"]) == ("Bluetooth", "13", "1", "1.0")
    assert "100 %" in text_of(text) and "style=" not in text.split("<main")[1]


def test_files_that_the_runs_of_the_day_wrote_are_counted(viewer):
    from catalog.models import CatalogEntry

    one = watched.pipeline()
    watched.worked(one, 2)
    run = Run.objects.filter(stage="extract").order_by("started_at").last()
    for place in range(3):
        CatalogEntry.objects.create(
            dataset=one.dataset, source=one.slug, layer="raw", id_base=str(place), window_start=run.block.starts_at, window_end=run.block.ends_at,
            pointer=str(place), sha256="0", bytes=1, run_id=run.pk,
        )  # fmt: skip
    files = {job.stage: job.files for job in report().jobs}
    assert files["extract"] == 3 and files["load"] is None


def test_a_wrong_day_is_answered_in_words_and_the_usual_days_are_shown(viewer):
    watched.worked(watched.pipeline(), 2)
    text = text_of(shown(viewer, "performance", day="yesterday", **{"from": "2026-11-30", "to": "2020-01-01"}))
    assert "“yesterday” is no day" in text and "the days are swapped" in text and "92 days at most" in text


def test_the_job_report_asks_a_fixed_number_of_times(viewer):
    watched.worked(watched.pipeline(), 3)
    asked = jobs.Asked.of({}, world.SATURDAY)
    with asks(4):
        jobs.page(asked, world.SATURDAY)
    for place in range(4):
        watched.worked(watched.pipeline(f"more-{place}", f"More {place}", ""), 10, failed=FRIDAY)
    with asks(4):
        jobs.page(asked, world.SATURDAY)


def test_a_city_without_pipelines_is_told_what_will_stand_here(viewer):
    assert "There is no pipeline yet" in shown(viewer, "performance")


# the sensors of a day


def test_the_worst_stand_first_and_each_has_its_bar_its_hours_and_its_reason(viewer, readers):
    page = sensors.sensors_page("bt-unmatched", {})
    assert page.day == FRIDAY and page.before == FRIDAY - DAY and page.after is None and page.trouble == 5
    healths = [line.health for line, _ in page.rows]
    assert healths[:2] == ["silent", "zero"] and set(healths[2:5]) == {"low", "high", "partial"} and healths[5:7] == ["new", "well"]
    text = shown(viewer, "sensors", "bt-unmatched")
    for words in ("5 of 24 sensors need a look", "Part of the day", "No reading since 19 Nov", "00:01 to 11:18", "no data", "3.1 times the usual"):
        assert words in text_of(text), words
    assert text.count('class="mark"') == 23, "a new sensor has no mark: nothing is expected of it yet"
    assert "style=" not in text.split("<main")[1]


def test_a_filter_a_search_and_the_file_agree(viewer, readers):
    text = text_of(shown(viewer, "sensors", "bt-unmatched", health="silent"))
    assert "1 of 24 sensors" in text and "airport_rd_manor_dr" in text and "levee_rd" not in text
    assert [line["health"] for line in lines_of(viewer, "sensors", "bt-unmatched", health="trouble")] == ["silent", "zero", "low", "high", "partial"]
    assert {line["sensor"] for line in lines_of(viewer, "sensors", "bt-unmatched", q="LEVEE")} == {
        "levee_rd_manor_dr", "levee_rd_chapel_st", "levee_rd_weir_rd",
    }  # fmt: skip
    assert "No sensor fits “nobody”" in text_of(shown(viewer, "sensors", "bt-unmatched", q="nobody"))


def test_hundreds_of_sensors_are_paged_and_none_is_lost(viewer):
    one = watched.watch(watched.pipeline())
    watched.fill(one, 120, 1)
    found = [line.sensor for page in (1, 2, 3) for line, _ in sensors.sensors_page("bt-unmatched", {"page": str(page), "sort": "name"}).rows]
    assert len(found) == 120 and found == sorted(found)
    text = text_of(shown(viewer, "sensors", "bt-unmatched"))
    assert "1 to 50 of 120 sensors" in text and "after →" in text


def test_the_sensors_of_a_day_ask_a_fixed_number_of_times(viewer):
    one = watched.watch(watched.pipeline())
    watched.fill(one, 3, 3)
    with asks(7):
        sensors.sensors_page("bt-unmatched", {})
    watched.fill(watched.watch(watched.pipeline("more", "More", "")), 90, 3)
    with asks(7):
        sensors.sensors_page("more", {})


def test_a_day_of_which_nothing_is_known_names_its_block_and_the_nearest_days(viewer, readers):
    gap = FRIDAY - 6 * DAY
    watched.worked(readers.pipeline, 1, last=gap, failed=gap)
    text = text_of(shown(viewer, "sensors", "bt-unmatched", day=str(gap)))
    assert "Nothing is known of the sensors on Sat Nov 14" in text and "The disk of the lake is full." in text
    assert "Fri Nov 13 and Sun Nov 15" in text
    page = sensors.sensors_page("bt-unmatched", {})
    squares = page.rows[0][1]
    assert squares[7].face == faces.NOT_OWED and "not observed" in squares[7].title and squares[-1].face.word == "Silent"


def test_what_is_missing_is_said_and_what_to_do_about_it(viewer, django_user_model):
    watched.pipeline("plain", "Plain", "")
    assert "Nobody watches the sensors of Plain yet" in shown(viewer, "sensors", "plain")
    one = watched.watch(watched.pipeline())
    text = shown(viewer, "sensors", "bt-unmatched")
    assert "Nothing was observed yet" in text and "manage.py observe bt-unmatched" in text
    SensorWatch.objects.update(is_active=False)
    watched.seen(one, "a").save()
    assert "This watch is switched off" in shown(viewer, "sensors", "bt-unmatched")
    shown(viewer, "sensors", "nowhere", status=404)
    shown(viewer, "sensor", "plain", "a", status=404)
    shown(viewer, "sensor", "bt-unmatched", "unheard", status=404)


def test_htmx_gets_the_list_alone_and_the_history_gets_the_page(viewer, readers):
    address = reverse("sensors", args=["bt-unmatched"])
    fragment = viewer.get(address, headers={"HX-Request": "true"})
    assert fragment.content.decode().startswith('<section class="section" id="list"') and "HX-Request" in fragment["Vary"]
    again = viewer.get(address, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<main" in again.content.decode()
    board = viewer.get(reverse("health-board"), headers={"HX-Request": "true"})
    assert board.content.decode().startswith('<section class="section" id="list"')


def test_strange_names_and_numbers_break_no_page_and_are_escaped(viewer):
    one = watched.watch(watched.pipeline())
    watched.strange(one)
    for name, args in (("sensors", ["bt-unmatched"]), ("health-board", []), ("sensor-map", [])):
        text = shown(viewer, name, *args)
        assert "<script>alert" not in text and "<b>bold" not in text and "&lt;script&gt;" in text
        assert not re.search(r"\b(nan|inf)\b", text_of(text).replace("not a number", "")), "a broken sum is a dash"
        assert lines_of(viewer, name, *args)
    for seen in Observation.objects.all():
        assert "NaN" not in shown(viewer, "sensor", "bt-unmatched", seen.sensor).split("<main")[1]


# one sensor


def chart_of(text):
    return json.loads(re.search(r'<script id="trend-data"[^>]*>(.*?)</script>', text)[1])


def test_the_trend_has_its_band_its_gap_and_its_events(viewer, readers):
    name = watched.name_of(3)
    text = shown(viewer, "sensor", "bt-unmatched", name, **{"from": "2026-11-10", "to": "2026-11-20"})
    data = chart_of(text)
    assert len(data["x"]) == 11 and data["gaps"] and data["trend"]["arrived"][4] is None
    expected = data["trend"]["expected"]
    assert data["band"]["usual from"][0] == pytest.approx(expected[0] * 0.5, abs=0.1) and data["band"]["usual to"][4] is None
    events = sensors.sensor_page("bt-unmatched", name, {"from": "2026-11-10", "to": "2026-11-20"}).events
    assert [(event.day, event.face.word) for event in events] == [(date(2026, 11, 17), "High"), (date(2026, 11, 14), "Not observed")]
    assert len(data["events"]) == 2 and "High, before that well. 12,300 against 4,000 expected" in text
    lines = lines_of(viewer, "sensor", "bt-unmatched", name, **{"from": "2026-11-10", "to": "2026-11-20"})
    assert [line["day"] for line in lines] == [str(date(2026, 11, day)) for day in range(10, 21) if day != 14]
    assert [float(line["value"]) for line in lines] == [value for value in data["trend"]["arrived"] if value is not None]


def test_a_failed_block_is_an_event_that_leads_to_it(viewer, readers):
    watched.worked(readers.pipeline, 3, failed=FRIDAY - DAY)
    (event,) = sensors.sensor_page("bt-unmatched", watched.name_of(9), {"from": "2026-11-18"}).events
    assert event.face == faces.FAILED and "The disk of the lake is full." in event.words
    assert event.href == ScheduleBlock.objects.get(state=State.FAILED).get_absolute_url()


def test_the_first_day_of_a_span_is_compared_with_the_day_before_it(viewer, readers):
    page = sensors.sensor_page("bt-unmatched", watched.name_of(3), {"from": "2026-11-17", "to": "2026-11-17"})
    assert [event.words[:22] for event in page.events] == ["High, before that well"]


def test_a_watchs_own_thresholds_make_the_band_and_wrong_ones_no_band(viewer, readers):
    readers.thresholds = {"low": 0.8, "high": 1.2}
    readers.save()
    data = chart_of(shown(viewer, "sensor", "bt-unmatched", watched.name_of(9)))
    assert data["band"]["usual to"][-1] == pytest.approx(data["trend"]["expected"][-1] * 1.2, abs=0.1)
    readers.thresholds = {"loud": 3}
    readers.save()
    assert chart_of(shown(viewer, "sensor", "bt-unmatched", watched.name_of(9)))["band"] == {}


def test_a_sensor_stands_on_a_map_or_the_page_says_why_not(viewer, readers):
    address = "sensor", "bt-unmatched", watched.name_of(0)
    assert "The inventory bt has no edition yet" in shown(viewer, *address)
    watched.edition(sensors=24, missing=1)
    assert "has it without a place" in shown(viewer, *address)
    text = shown(viewer, "sensor", "bt-unmatched", watched.name_of(1))
    assert text.count('class="spot ') == 1 and "Levee Rd / Manor Dr" in text
    Pipeline.objects.filter(slug="bt-unmatched").update(inventory="")
    assert "names no inventory" in shown(viewer, *address)


def test_one_sensor_asks_a_fixed_number_of_times(viewer, readers):
    watched.edition(sensors=24)
    for name in (watched.name_of(1), watched.name_of(12)):
        with asks(8):
            sensors.sensor_page("bt-unmatched", name, {})


# the board


def test_the_board_answers_the_three_questions_and_counts_by_state(viewer, readers):
    page = boards.board({}, world.SATURDAY)
    assert [(question.good, question.of) for question in page.questions] == [(23, 24), (22, 23), (19, 22)]
    assert {choice.code: choice.count for choice in page.counters} == {
        "silent": 1, "zero": 1, "low": 1, "high": 1, "partial": 1, "new": 1, "well": 18,
    }  # fmt: skip
    text = text_of(shown(viewer, "health-board"))
    for words in ("5 of 24 sensors need a look", "Responsive? of 24 1 silent", "Generating data? of 23 1 all zero", "Plausible? of 22 3 low, high"):
        assert words in text, words
    assert [line["health"] for line in lines_of(viewer, "health-board", health="trouble")] == ["silent", "zero", "low", "high", "partial"]


def test_a_state_is_told_with_its_first_day(viewer, readers):
    since = {row.line.health: (row.since, row.days) for row in boards.board({"health": "trouble"}, world.SATURDAY).rows}
    assert since["silent"] == (FRIDAY, 1) and since["zero"] == (FRIDAY - DAY, 2) and since["high"] == (FRIDAY - 3 * DAY, 4)


def test_a_sensor_that_nobody_expects_any_more_is_named_apart_and_counted_nowhere(viewer, readers):
    watched.seen(readers, "old_reader", FRIDAY - 9 * DAY).save()
    page = boards.board({}, world.SATURDAY)
    assert len(page.lines) == 24 and [line.sensor for line in page.gone] == ["old_reader"]
    assert "Not expected any more" in shown(viewer, "health-board")


def test_a_day_without_data_is_not_the_sensors_fault_and_not_well_either(viewer, readers):
    other = watched.watch(watched.pipeline("gs-counts", "Cameras", "GRIDSMART"))
    Observation.objects.bulk_create(watched.seen(other, f"camera {place}", FRIDAY, Health.STALE) for place in range(5))
    page = boards.board({}, world.SATURDAY)
    assert page.trouble == 5 and page.questions[0].of == 24 and "5 more has no data yet" in page.questions[0].words
    assert "No data yet" in text_of(shown(viewer, "health-board"))


def test_a_source_that_is_behind_and_one_without_a_day_are_said(viewer, readers):
    watched.fill(watched.watch(watched.pipeline("wt-counts", "Radar", "Wavetronix")), 3, 3, last=FRIDAY - 2 * DAY)
    watched.watch(watched.pipeline("noise", "Noise meters", ""))
    text = text_of(shown(viewer, "health-board"))
    assert "Wavetronix is behind: the newest day that is known is Wed Nov 18" in text and "Nothing of Noise meters was observed yet" in text
    assert "Bluetooth is behind" not in text
    assert {line["pipeline"] for line in lines_of(viewer, "health-board", source="wt-counts")} == {"wt-counts"}


def test_a_weekly_or_a_paused_source_is_not_behind_because_others_are_daily(viewer):
    week = watched.pipeline("week", "Week", "", cadence="weekly", due_time=time(6, 0))
    # Saturday, 06:42: the week from Nov 9 was due on Monday, the one from Nov 16 ends tomorrow
    assert watches.newest_due(week, world.SATURDAY) == date(2026, 11, 9)
    daily = watched.pipeline()
    assert watches.newest_due(daily, world.SATURDAY) == FRIDAY
    assert watches.newest_due(daily, world.SATURDAY - timedelta(hours=3)) == FRIDAY - DAY, "its run and the observing have their time"
    daily.is_paused = True
    assert watches.newest_due(daily, world.SATURDAY) is None
    assert watches.newest_due(watched.pipeline("hand", "Hand", "", cadence="manual"), world.SATURDAY) is None


def test_without_a_watch_the_board_says_how_to_add_one(client, viewer):
    for name in ("health-board", "sensor-map"):
        assert "No sensors are watched yet" in shown(viewer, name) and "A steward adds it in Settings" in shown(viewer, name)


def test_the_board_asks_a_fixed_number_of_times(viewer, readers):
    with asks(4):
        boards.board({}, world.SATURDAY)
    watched.fill(watched.watch(watched.pipeline("more", "More", "")), 130, 2)
    with asks(4):
        boards.board({}, world.SATURDAY)


def test_the_tabs_say_how_many_sensors_of_the_newest_day_need_a_look(viewer, readers):
    (tab,) = watches.tabs()
    assert (tab.name, tab.newest, tab.sensors, tab.trouble) == ("Bluetooth", FRIDAY, 24, 5)
    watched.watch(watched.pipeline("bt-matched", "Bluetooth, matched"))
    assert [tab.name for tab in watches.tabs()] == ["Bluetooth, matched", "Bluetooth, unmatched"], "two watches of a source are told apart"


# the map


def test_the_map_letters_who_is_not_well_and_its_twin_has_everybody(viewer, readers):
    watched.edition(sensors=24, missing=2)
    text = shown(viewer, "sensor-map")
    picture = re.search(r'<svg class="map map--sensors".*?</svg>', text, re.S)[0]
    assert picture.count("<circle") == 22 and sorted(re.findall(r"<text[^>]*>(.)</text>", picture)) == ["H", "L", "N", "P"]
    lines = lines_of(viewer, "sensor-map")
    assert len(lines) == 24 and sorted(line["health"] for line in lines if not line["lat"]) == ["silent", "zero"]
    assert "22 of 24 sensors have a place" in text_of(text) and "2 sensors without a place at the end" in text_of(text)


def test_a_layer_lies_beneath_the_sensors_that_are_in_it(viewer, readers):
    watched.edition(sensors=24)
    boundaries.store("far", "Far away", "name", collection(square("1", 10, 50)), Actor("x"))
    boundaries.store("city", "Districts", "name", collection(square("1", -98, 30)), Actor("x"))
    assert boards.map_page({}).picture.layer.slug == "city" and "map__land" in shown(viewer, "sensor-map")
    assert boards.map_page({"layer": "none"}).picture.outline == ""
    assert boards.map_page({"layer": "far"}).picture.layer.slug == "far"


def test_many_sensors_that_are_well_are_one_path_and_those_that_are_not_keep_their_links(viewer, readers, monkeypatch):
    watched.edition(sensors=24)
    monkeypatch.setattr(places, "MOST_LINKS", 10)
    picture = boards.map_page({}).picture
    assert len(picture.marks) == 6 and picture.dots.count("h0") == 18


def test_sensors_without_places_are_said_to_be_so(viewer, readers):
    text = text_of(shown(viewer, "sensor-map"))
    assert "None of these sensors has a place" in text and "24 sensors without a place" in text


def test_the_map_asks_a_fixed_number_of_times(viewer, readers):
    watched.edition(sensors=24)
    with asks(6):
        boards.map_page({})
    watched.fill(watched.watch(watched.pipeline("more", "More", "")), 60, 2)
    with asks(6):
        boards.map_page({})


# the ways in


def test_pipelines_and_datasets_lead_to_their_sensors(viewer, readers):
    watched.pipeline("plain", "Plain", "")
    link = f'href="{reverse("sensors", args=["bt-unmatched"])}"'
    assert link in shown(viewer, "pipeline", "bt-unmatched") and link in shown(viewer, "dataset", "bt-unmatched")
    assert "/sensors/plain" not in shown(viewer, "pipeline", "plain") + shown(viewer, "dataset", "plain")


def test_the_rail_marks_performance_on_all_its_pages_and_strangers_stay_out(client, viewer, readers, django_user_model):
    addresses = [
        reverse("performance"), reverse("health-board"), reverse("sensor-map"), reverse("sensors", args=["bt-unmatched"]),
        reverse("sensor", args=["bt-unmatched", watched.name_of(1)]),
    ]  # fmt: skip
    for address in addresses:
        assert f'href="{reverse("performance")}" aria-current="page">Performance' in viewer.get(address).content.decode()
        assert viewer.post(address).status_code == 405
    client.force_login(django_user_model.objects.create_user("nobody"))
    assert {client.get(address).status_code for address in addresses} == {403}
