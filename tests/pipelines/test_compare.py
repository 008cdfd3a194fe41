"""The compare loop without a database: every case of the original's table, its two bugs mended, and the bounds that people type."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pipelines.upkeep.compare import BASE, BASE_AND_EXT, CHANGED, FORCED, MISSING, Bounds, Item, bounds, compare

CHICAGO = "America/Chicago"
NOW = datetime(2019, 6, 5, 3, 30, tzinfo=UTC)  # 22:30 of June 4 in Chicago


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(CHICAGO)).astimezone(UTC)


def thing(name: str, span: str = "2019-06-01", **more) -> Item:
    """ "A/x" of "2019-06-01", or of "2019-06-01T01 2019-06-01T02"."""
    base, ext = name.split("/")
    start, _, end = span.partition(" ")
    return Item(base, ext, at(start), at(end) if end else None, **more)


EVER = Bounds(at("2000-01-01"), at("2100-01-01"))


def taken(source: list[Item], target: list[Item], key: str = BASE, *, within: Bounds = EVER, force: bool = False) -> list[str]:
    """What is taken, as "A/x 06-01"."""
    found = compare(source, target, within=within, zone_name=CHICAGO, key=key, force=force)
    return [f"{one.item.base}/{one.item.ext} {one.item.starts_at.astimezone(ZoneInfo(CHICAGO)):%m-%d}" for one in found if one.why]


BOTH = (BASE, BASE_AND_EXT)
X = ["A/x 06-01"]


@pytest.mark.parametrize("key", BOTH)
def test_a_thing_that_the_target_lacks_is_taken_and_one_that_it_has_is_left(key):
    assert taken([thing("A/x")], [], key) == X
    assert taken([thing("A/x")], [thing("A/x")], key) == []
    assert taken([thing("A/x")], [thing("B/x"), thing("A/x", "2019-06-02"), thing("A/x", "2019-05-31")], key) == X


def test_by_base_any_sibling_is_evidence_and_by_both_one_missing_of_three_is_found():
    siblings = [thing("A/x"), thing("A/y"), thing("A/z")]
    assert taken(siblings[:2], siblings[2:], BASE) == []
    assert taken(siblings[:1], siblings[2:], BASE_AND_EXT) == X
    assert taken(siblings, siblings[1:], BASE_AND_EXT) == X


@pytest.mark.parametrize("ext", ["unit_data.json", "site.json", "Site.JSON"])
def test_a_file_beside_the_data_is_no_evidence_of_the_data(ext):
    assert taken([thing("A/x")], [thing(f"A/{ext}")], BASE) == X
    assert taken([thing(f"A/{ext}")], [thing(f"A/{ext}")], BASE_AND_EXT) == []


@pytest.mark.parametrize("key", BOTH)
def test_spans_that_overlap_are_there_whichever_is_the_longer(key):
    hour = "2019-06-01T05 2019-06-01T06"
    assert taken([thing("A/x")], [thing("A/x", hour)], key) == []
    assert taken([thing("A/x", "2019-06-01T00 2019-06-01T01")], [thing("A/x")], key) == []
    # the original takes this hour again every night, for its day begins before it
    assert taken([thing("A/x", hour)], [thing("A/x")], key) == []
    assert taken([thing("A/x", "2019-06-02T00 2019-06-02T01")], [thing("A/x")], key) == ["A/x 06-02"]
    # a long span before a short one still reaches
    assert taken([thing("A/x", hour)], [thing("A/x"), thing("A/x", "2019-06-01T01 2019-06-01T02")], key) == []


@pytest.mark.parametrize("key", BOTH)
def test_things_may_come_in_any_order_and_are_decided_in_the_order_of_time(key):
    days = [thing("A/x", "2019-06-02"), thing("A/x", "2019-06-01")]
    # the original asks for the first of June again
    assert taken(days, days, key) == [] == taken(days, days[::-1], key)
    assert taken(days, [], key) == ["A/x 06-01", "A/x 06-02"]


@pytest.mark.parametrize(("day", "hours"), [("2019-06-01", 24), ("2026-03-08", 23), ("2026-11-01", 25)])
def test_what_has_no_end_lasts_a_local_day(day, hours):
    [one] = compare([thing("A/x", day)], [], within=EVER, zone_name=CHICAGO)
    assert one.ends_at - one.item.starts_at == timedelta(hours=hours)
    last = one.ends_at - timedelta(minutes=30)
    assert taken([Item("A", "x", last, one.ends_at)], [thing("A/x", day)]) == []
    assert taken([Item("A", "x", one.ends_at, one.ends_at + timedelta(minutes=30))], [thing("A/x", day)]) != []


def test_what_was_made_of_other_bytes_is_made_anew():
    source = [thing("A/x", fingerprint="new")]
    known = {"key": BASE, "within": EVER, "zone_name": CHICAGO}

    def why(*target: Item) -> str:
        [one] = compare(source, target, **known)
        return one.why

    assert why(thing("A/j", inputs=frozenset({"old"}))) == CHANGED
    assert why(thing("A/j", inputs=frozenset({"new", "helper"}))) == ""
    assert why(thing("A/j", inputs=frozenset({"old"})), thing("A/k", inputs=frozenset({"new"}))) == ""
    assert why(thing("A/j", inputs=None)) == "" and why() == MISSING
    # a source without fingerprints says nothing of its bytes
    [one] = compare([thing("A/x")], [thing("A/x", inputs=frozenset({"old"}))], **known)
    assert one.why == ""
    # of three siblings one changed: by base it is found as well
    found = compare([*source, thing("A/y", fingerprint="y")], [thing("A/j", inputs=frozenset({"y"}))], **known)
    assert [(each.item.ext, each.why) for each in found] == [("x", CHANGED), ("y", "")]


def test_force_takes_what_is_there_and_widens_no_bound():
    days = [thing("A/x", f"2019-06-0{day}") for day in (1, 2, 3)]
    within = Bounds(at("2019-06-02"), at("2019-06-03"))
    assert taken(days, days, within=within, force=True) == ["A/x 06-02"]
    [one] = compare(days, days, within=within, zone_name=CHICAGO, force=True)
    assert one.why == FORCED


def test_what_is_older_than_the_last_run_is_told():
    within = bounds(start="2019-06-01", last_run="2019-06-02", zone_name=CHICAGO, now=NOW)
    found = compare([thing("A/x"), thing("A/x", "2019-06-03")], [], within=within, zone_name=CHICAGO)
    assert [(one.why, one.is_late) for one in found] == [(MISSING, True), (MISSING, False)]


# bounds


def span(**typed: str) -> tuple[str, str]:
    """The bounds in Chicago, as "2019-06-01T00:00-05:00"."""
    made = bounds(zone_name=CHICAGO, now=NOW, **typed)
    return tuple(moment.astimezone(ZoneInfo(CHICAGO)).isoformat(timespec="minutes") for moment in (made.since, made.until))


JUNE_1, JUNE_4 = "2019-06-01T00:00-05:00", "2019-06-04T00:00-05:00"


def test_days_back_are_counted_by_the_citys_clock():
    # in Greenwich it is the fifth of June already
    assert span(start="0")[0] == JUNE_4
    assert span(start="3") == (JUNE_1, JUNE_4)
    assert bounds(start="2019", zone_name=CHICAGO, now=NOW).since == at("2019-06-04") - timedelta(days=2019) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("typed", "since"),
    [
        ("2019-06-01", JUNE_1),
        ("20190601", JUNE_1),
        ("2019-06-01T15:00", JUNE_1),
        ("2019-06-01T15:00-05:00", JUNE_1),
        # the original takes +00:00 for no zone at all
        ("2019-06-01T00:00:00+00:00", "2019-05-31T19:00-05:00"),
        ("2019-06-01T00:00:00Z", "2019-05-31T19:00-05:00"),
        ("1559365200", JUNE_1),
        ("1559400000.5", JUNE_1),
        ("2019-01-15", "2019-01-15T00:00-06:00"),
    ],
)
def test_a_start_is_a_date_a_time_or_seconds_and_its_offset_is_believed(typed, since):
    assert span(start=typed)[0] == span(last_run=typed)[0] == since


def test_a_last_run_of_nought_is_the_year_2000_and_a_start_goes_before_it():
    assert span(last_run="0")[0] == "2000-01-01T00:00-06:00"
    assert span(last_run="0", start="1")[0] == "2019-06-03T00:00-05:00"
    assert span(last_run="2019-06-03", start="2019-06-01")[0] == JUNE_1


def test_the_end_is_left_out_and_the_same_day_twice_is_that_day():
    days = [thing("A/x", f"2019-06-0{day}") for day in range(1, 8)]

    def days_of(**typed: str) -> list[str]:
        return [name[-2:] for name in taken(days, [], within=bounds(zone_name=CHICAGO, now=NOW, **typed))]

    assert days_of(start="2019-06-02", end="2019-06-04") == ["02", "03"]
    assert days_of(start="2019-06-02", end="2019-06-02") == ["02"]
    # without an end what is dated today or later is not complete; with one it is asked for
    assert days_of(start="2019-06-02") == ["02", "03"] == days_of(last_run="2019-06-02")
    assert days_of(start="2019-06-02", end="2019-06-07") == ["02", "03", "04", "05", "06"]
    assert days_of(start="2019-06-04", end="2019-06-04") == ["04"]
    assert days_of(start="0") == [] == days_of(start="2019-06-06")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({}, "a start date or the date of the last run must be given"),
        ({"end": "2019-06-01"}, "a start date or the date of the last run must be given"),
        ({"start": "yesterday"}, "'yesterday' is not a time"),
        ({"start": "-3"}, "'-3' is not a time"),
        ({"last_run": "2019-06-01 UTC"}, "'2019-06-01 UTC' is not a time"),
        ({"start": "9" * 400}, "is not a time"),
        ({"start": "2019-06-02", "end": "2019-06-01"}, "'2019-06-01' is not after '2019-06-02'"),
        ({"last_run": "2019-06-02", "end": "2019-06-02"}, "nothing lies between"),
    ],
)
def test_bounds_that_mean_nothing_are_refused_in_words(typed, words):
    with pytest.raises(ValueError, match=words):
        bounds(zone_name=CHICAGO, now=NOW, **typed)


def test_bounds_are_told_in_the_citys_time():
    assert bounds(start="3", zone_name=CHICAGO, now=NOW).words(CHICAGO) == "from 2019-06-01 up to today, which is left out"
    assert bounds(start="2019-06-01", end="2019-06-01", zone_name=CHICAGO, now=NOW).words(CHICAGO) == "2019-06-01 only"
    utc = bounds(start="2019-06-01T00:00Z", end="2019-06-02", zone_name=CHICAGO, now=NOW)
    assert utc.words(CHICAGO) == "from 2019-05-31 19:00 up to 2019-06-02, which is left out"
