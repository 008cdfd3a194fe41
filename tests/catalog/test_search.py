"""The catalog searched in the words of atd-data-lake: wildcards, repositories, dates by the city's clock, and a limit that is kept."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse

from catalog import search
from catalog.models import CatalogEntry, Dataset
from catalog.search import Search, find
from pipelines.errors import SetupError
from tests import world
from tests.pipelines.commanding import command
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db
AUSTIN = ZoneInfo("America/Chicago")


def at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=AUSTIN)


def entry(source: str, layer: str, base: str, ext: str, day: str, **more) -> CatalogEntry:
    pipeline_of = Dataset.objects.get(pipelines__slug=source)
    start = at(day)
    pointer = f"{layer}/{source}/{day}/{base}_{ext}".replace(" ", "_")
    return CatalogEntry.objects.create(
        dataset=pipeline_of, source=source, layer=layer, id_base=base, id_ext=ext, window_start=start, window_end=start + timedelta(days=1),
        **{"pointer": pointer, "sha256": "0" * 64, "bytes": 1, "rows": None, **more},
    )  # fmt: skip


@pytest.fixture
def sensors(db):
    """Two days of two Bluetooth files, a day of cameras, a table of another department, and a test twin of one."""
    awam, devices = world.provider("awam", "AWAM"), world.provider("devices", "Cameras")
    reads = world.dataset("reads", "Bluetooth reads")
    unmatched = world.pipeline("bt-unmatched", "Unmatched", awam, reads, world.SATURDAY, data_source="Bluetooth", inventory="bt")
    world.pipeline("bt-matched", "Matched", awam, reads, world.SATURDAY, data_source="Bluetooth", inventory="bt")
    world.pipeline("bt-unmatched-test", "Twin", awam, reads, world.SATURDAY, data_source="Bluetooth", inventory="bt", twin_of=unmatched)
    world.pipeline("cameras", "Cameras", devices, world.dataset("counts", "Counts"), world.SATURDAY, data_source="GRIDSMART", inventory="gs")
    world.pipeline("trees", "Trees", awam, world.dataset("trees", "Trees"), world.SATURDAY)
    for day in ("2019-06-01", "2019-06-02"):
        entry("bt-unmatched", "raw", "Austin", "unmatched.txt", day)
        entry("bt-matched", "raw", "Austin", "matched.txt", day)
    entry("bt-unmatched", "standard", "Austin", "unmatched.json", "2019-06-01", metadata={"header": {"data_type": "bluetooth"}})
    entry("bt-unmatched-test", "raw", "Austin", "unmatched.txt", "2019-06-01")
    entry("cameras", "ready", "Burnet_Richcreek", "counts.json", "2019-06-01")
    entry("cameras", "aggregated", "Burnet_Richcreek", "agg15.json", "2019-06-01")
    entry("trees", "raw", "page_1", ".csv", "2019-06-01")


def names(**asked) -> list[str]:
    return [f"{one.source} {one.window_start.astimezone(AUSTIN):%d} {one.id_ext}" for one in find(Search(**asked)).entries]


def test_wildcards_stand_for_any_letters_and_large_letters_are_small_ones(sensors):
    assert names(ext="%.json", base="austin") == ["bt-unmatched 01 unmatched.json"]
    assert names(base="Burnet*", ext="agg*") == ["cameras 01 agg15.json"]
    assert names(base="Burnet") == []
    assert names(base="%RICH%", repository="ready") == ["cameras 01 agg15.json", "cameras 01 counts.json"]
    # what a pattern holds besides is itself: no dot, bracket or underscore is a wildcard
    assert names(ext="agg1..js*") == names(base="Burnet.Rich*") == names(base="(*") == names(base="Burnet_Richcree_") == []
    assert names(ext="csv") == names(ext=".csv") == ["trees 01 .csv"]


def test_a_data_source_is_a_pipeline_a_name_or_the_code_of_an_inventory(sensors):
    assert names(source="bt-matched") == ["bt-matched 01 matched.txt", "bt-matched 02 matched.txt"]
    both = names(source="bluetooth", repository="raw")
    assert both == names(source="bt", repository="raw") == names(source="bt-*", repository="raw")
    assert both == ["bt-matched 01 matched.txt", "bt-unmatched 01 unmatched.txt", "bt-matched 02 matched.txt", "bt-unmatched 02 unmatched.txt"]
    assert names(source="GRID%") == ["cameras 01 agg15.json", "cameras 01 counts.json"]


def test_repositories_are_layers_or_the_originals_names_and_twins_have_their_own(sensors):
    assert names(repository="rawjson") == names(repository="standard") == ["bt-unmatched 01 unmatched.json"]
    assert names(repository="raw-test") == ["bt-unmatched-test 01 unmatched.txt"]
    assert names(repository="aggregated") == ["cameras 01 agg15.json"]
    with pytest.raises(SetupError, match="'public' is no repository") as caught:
        find(Search(repository="public"))
    assert "rawjson" in caught.value.next_step


def test_dates_are_the_citys_the_end_is_exclusive_and_an_exact_one_is_exact(sensors):
    first, second = date(2019, 6, 1), date(2019, 6, 2)
    assert len(names(source="bt", repository="raw", exact=first)) == len(names(source="bt", repository="raw", exact=second)) == 2
    assert names(source="bt-matched", until=second) == ["bt-matched 01 matched.txt"]
    assert names(source="bt-matched", since=second) == ["bt-matched 02 matched.txt"]
    assert names(source="bt-matched", since=first, until=first) == []
    # the local midnight is 05:00 in UTC: a moment is that moment, in whatever zone
    assert names(source="bt-matched", exact=datetime(2019, 6, 1, 5, tzinfo=UTC)) == ["bt-matched 01 matched.txt"]
    assert names(source="bt-matched", exact=datetime(2019, 6, 1, tzinfo=UTC)) == []
    assert names(source="bt-matched", since=datetime(2019, 6, 1, 5, 0, 1, tzinfo=UTC)) == ["bt-matched 02 matched.txt"]


def test_the_limit_is_kept_and_what_it_leaves_out_is_told(sensors):
    found = find(Search(source="bt", repository="raw", limit=3))
    assert (len(found.entries), found.total, found.is_cut) == (3, 4, True)
    found = find(Search(source="bt", repository="raw", limit=4))
    assert (len(found.entries), found.total, found.is_cut) == (4, 4, False)
    # the newest one is the newest one
    assert names(source="bt-matched", newest_first=True, limit=1) == ["bt-matched 02 matched.txt"]
    for limit in (0, -1, search.MOST + 1):
        with pytest.raises(SetupError, match="limit"):
            find(Search(limit=limit))


def test_withdrawn_files_are_found_when_they_are_asked_for(sensors):
    CatalogEntry.objects.filter(source="trees").update(withdrawn_at=at("2019-07-01"))
    assert names(source="trees") == [] and names(source="trees", standing="withdrawn") == names(source="trees", standing="all") == ["trees 01 .csv"]


# the three doors


def test_the_page_narrows_its_list_by_the_same_words(client, sensors):
    client.force_login(world.people()[0])

    def listed(**query) -> str:
        reply = client.get(reverse("lake"), query)
        assert reply.status_code == 200
        return reply.content.decode()

    page = listed(source="bt", ext="*.txt", since="2019-06-02", until="2019-06-03")
    assert "2 files" in page and '<details class="filters__more" open>' in page and 'value="bt"' in page
    assert "5 files" in listed(base="austin", ext="%.txt", source="bluetooth", layer="raw")
    assert "open>" not in listed(layer="raw").split("filters__more")[1][:10]
    assert "“soon” is not a day" in listed(until="soon")
    reply = client.get(reverse("lake"), {"format": "csv", "source": "GRIDSMART"})
    assert len(b"".join(reply.streaming_content).decode().splitlines()) == 3


def test_the_command_finds_tells_and_keeps_the_limit(sensors):
    told = command("catalog", "search", "--source", "bt", "--repository", "raw", "--ext", "*.txt", "--limit", "3", "--json")
    assert told.code == 0 and (told.json["total"], len(told.json["entries"])) == (4, 3)
    assert told.json["entries"][0]["collection_date"] == "2019-06-01 00:00:00-05:00"
    assert "3 files of 4: raise --limit" in command("catalog", "search", "--source", "bt", "--repository", "raw", "--limit", "3").out
    told = command("catalog", "search", "--date", "2019-06-01", "--base", "Burnet*")
    assert told.code == 0 and "agg15.json" in told.out and told.out.endswith("2 files.\n")
    told = command("catalog", "search", "--base", "nowhere")
    assert told.code == 3 and "No file fits" in told.out
    told = command("catalog", "search", "--since", "soon")
    assert told.code == 2 and "'soon' is neither a day nor a moment" in told.err
    newest = command("catalog", "search", "--source", "bt-matched", "--newest", "--limit", "1", "--json").json["entries"]
    assert [one["collection_date"][:10] for one in newest] == ["2019-06-02"]
