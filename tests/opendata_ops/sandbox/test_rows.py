"""The practice rows look like the real ones, in the shares that were measured, and are the same each time."""

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from opendata_ops.sandbox import Dataset, Portal, soql
from opendata_ops.sandbox.rows import LA311_COLUMNS, PET_MATRIX, ServiceRequests, la311, la311_rows, seattle_pets

from .conftest import Client

NAMES = [column.name for column in LA311_COLUMNS]


@pytest.fixture(scope="module")
def requests():
    return [dict(zip(NAMES, row, strict=True)) for row in la311_rows(10_000)]


def test_ten_thousand_requests_have_exactly_the_measured_types_and_states(requests):
    assert len(NAMES) == 34
    assert Counter(row["requesttype"] for row in requests) == {
        "Bulky Items": 4470,
        "Graffiti Removal": 2628,
        "Illegal Dumping Pickup": 901,
        "Metal/Household Appliances": 833,
        "Homeless Encampment": 405,
        "Electronic Waste": 335,
        "Dead Animal Removal": 172,
        "Other": 115,
        "Single Streetlight Issue": 76,
        "Multiple Streetlight Issue": 59,
        "Report Water Waste": 6,
    }
    assert Counter(row["status"] for row in requests) == {"Closed": 9723, "Cancelled": 244, "Open": 16, "Pending": 15, "Referred Out": 2}


def test_cells_are_empty_as_often_as_measured(requests):
    empty = Counter(name for row in requests for name, value in row.items() if value is None)
    assert (empty["mobileos"], empty["servicedate"], empty["assignto"], empty["closeddate"]) == (7701, 555, 120, 49)
    assert 0 < empty["latitude"] == empty["zipcode"] == empty["policeprecinct"] < 30
    assert 1500 < empty["cdmember"] < 2100 and 20 < empty["nc"] < 60
    assert sum(row["status"] == "Closed" and row["closeddate"] is None for row in requests) == 18


def test_the_oddities_are_there(requests):
    assert sum(row["closeddate"] is not None and row["closeddate"] < row["createddate"] for row in requests) == 12
    assert all(row["updateddate"] >= row["createddate"] for row in requests)
    assert Counter(row["updateddate"] for row in requests).most_common(1)[0][1] >= 24
    assert any(row["zipcode"] == "0" for row in requests)
    assert any((row["servicedate"] or "").startswith("3020") for row in requests)
    addresses = " ".join(row["address"] for row in requests)
    assert all(oddity in addresses for oddity in (",", '"', "\n", "Ñ", "☂", "\\"))


def test_numbers_and_times_grow_and_each_day_has_its_share():
    made = ServiceRequests(3650, days=365)
    rows = [made(i) for i in range(3650)]
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(rows, rows[1:], strict=False))
    assert set(Counter(row[1][:10] for row in rows).values()) == {10}
    assert rows[made.first_on(date(2020, 3, 1))][1][:10] == "2020-03-01"
    assert rows[made.first_on(date(2020, 3, 1)) - 1][1][:10] == "2020-02-29"
    by_hour = Counter(made(i)[1][11:13] for i in range(3650))
    assert by_hour["10"] > 10 * by_hour.get("03", 1)


def test_the_same_seed_makes_the_same_rows_and_another_others():
    first, again, other = (list(la311_rows(50, seed=seed)) for seed in (1, 1, 2))
    assert first == again and first != other


def test_a_request_is_open_until_its_closing_comes():
    made = ServiceRequests(600, days=1)
    row = made(100)
    created, updated, closed = row[1], row[2], row[13]
    early = made.at(100, created)
    assert (early[6], early[13], early[2]) == ("Open", None, created)
    assert made.at(100, max(closed, updated)) == row


def test_the_pets_are_exactly_the_published_matrix():
    pets = seattle_pets()
    counted = Counter((int(row[0][:4]), row[3]) for row in pets)
    for year, counts in PET_MATRIX.items():
        assert tuple(counted[year, species] for species in ("Cat", "Dog", "Goat", "Pig")) == counts
    assert len(pets) == 51_754
    assert Counter(row[3] for row in pets) == {"Cat": 16_829, "Dog": 34_882, "Goat": 38, "Pig": 5}
    assert sum(row[2] is None for row in pets) == 358
    assert sum(row[5] is None for row in pets) == 27_652
    assert sum(row[6] is None for row in pets) == 328
    assert sum(bool(re.fullmatch(r"\d{5}-\d{4}", row[6] or "")) for row in pets) == 68
    assert len(pets) - len({row[1] for row in pets}) == 20
    names = [row[2] or "" for row in pets]
    assert sum(not name.isascii() for name in names) == 29 and max(map(len, names)) == 50
    assert 'Leonard "Leo"' in names
    assert Counter(row[6] for row in pets if row[4] == "Retriever, Golden").most_common(1)[0][0] == "98115"
    assert max(row[0] for row in pets) <= "2019-04-15T00:00:00.000"


MILLION = """
import sys
from opendata_ops.sandbox import Dataset, Portal, soql
from opendata_ops.sandbox.rows import la311
with Portal(la311("rq3b-xjk8", 1_000_000)) as portal:
    print(portal.port, flush=True)
    sys.stdin.read()
"""


def test_a_million_rows_page_right_and_the_server_stays_small():
    with subprocess.Popen([sys.executable, "-c", MILLION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        portal = Portal(port=int(server.stdout.readline()))
        ask = Client(portal)
        path = "/resource/rq3b-xjk8.csv"
        assert ask.json("/resource/rq3b-xjk8.json", S_select="count(*)") == [{"count": "1000000"}]
        expected = ServiceRequests(1_000_000)
        select = "srnumber,createddate,location,zipcode"
        for offset in (0, 450_000, 990_000):
            _, headers, body = ask(path, S_order="srnumber", S_limit=50_000, S_offset=offset, S_select=select)
            assert int(headers["content-length"]) == len(body)
            rows = list(csv.reader(io.StringIO(body.decode(), newline="")))[1:]
            assert len(rows) == min(50_000, 1_000_000 - offset)
            assert [row[0] for row in rows[::997]] == [expected(offset + i)[0] for i in range(0, len(rows), 997)]
        whole = ask(path, S_order="srnumber", S_limit=50_000, S_offset=500_000)[2]
        assert whole.count(b'\n"1-') == 50_000
        [last] = ask.json("/resource/rq3b-xjk8.json", S_order="srnumber DESC", S_limit=1)
        assert last["srnumber"] == expected(999_999)[0]
        window = "createddate >= '2020-06-01' and createddate < '2020-06-02'"
        [counted] = ask.json("/resource/rq3b-xjk8.json", S_select="count(*)", S_where=window)
        day = ask.json("/resource/rq3b-xjk8.json", S_where=window, S_order="srnumber", S_limit=50_000)
        assert len(day) == int(counted["count"]) and {row["createddate"][:10] for row in day} == {"2020-06-01"}
        status = Path(f"/proc/{server.pid}/status")
        if status.exists():
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
            assert peak < 300, f"the server grew to {peak:.0f} MB"
        server.stdin.close()


def test_a_window_and_an_order_on_made_rows_agree_with_a_plain_scan():
    with Portal(la311("rq3b-xjk8", 3000, days=30)) as portal:
        ask = Client(portal)
        path = "/resource/rq3b-xjk8.json"
        rows = list(portal.dataset("rq3b-xjk8").rows.values())
        # both bounds are the very times of rows: one is left out, the other is kept
        after, until = rows[250]["createddate"], rows[450]["createddate"]
        window = f"createddate > '{after}' and createddate <= '{until}' and status != 'Referred Out' and nc > 5"
        expected = [
            row["srnumber"] for row in rows if after < row["createddate"] <= until and row["status"] != "Referred Out" and int(row["nc"] or 0) > 5
        ]
        span = ask.json(path, S_select="srnumber", S_where=f"createddate > '{after}' and createddate <= '{until}'", S_order="srnumber")
        assert [row["srnumber"] for row in span] == [row["srnumber"] for row in rows[251:451]]
        assert [row["srnumber"] for row in ask.json(path, S_where=window, S_order="srnumber", S_limit=5000)] == expected
        assert expected
        by_time = [row["srnumber"] for row in ask.json(path, S_order="updateddate, srnumber DESC", S_limit=5000)]
        assert by_time == [r["srnumber"] for r in sorted(sorted(rows, key=lambda r: r["srnumber"], reverse=True), key=lambda r: r["updateddate"])]
        whole = [row["srnumber"] for row in ask.json(path, S_limit=5000)]
        assert sorted(whole) == sorted(row["srnumber"] for row in rows) and whole != sorted(whole)


def test_made_rows_can_be_edited_and_added_to():
    with Portal(la311("rq3b-xjk8", 1000)) as portal:
        ask = Client(portal)
        before = portal.dataset("rq3b-xjk8").rows
        names = portal.edit("rq3b-xjk8", fraction=0.05, add=3)
        after = portal.dataset("rq3b-xjk8").rows
        assert {key for key in before if before[key] != after[key]} == set(names["edited"]) and len(names["edited"]) == 50
        assert ask.json("/resource/rq3b-xjk8.json", S_select="count(*)") == [{"count": "1003"}]
        tail = ask.json("/resource/rq3b-xjk8.json", S_order="srnumber", S_offset=1000)
        assert [row["srnumber"] for row in tail] == names["added"]
        portal.alter("rq3b-xjk8", add={"origin": "text"}, remove=["tbmpage"])
        again = portal.edit("rq3b-xjk8", fraction=1.0)
        assert len(again["edited"]) == 1003 and "tbmpage" not in json.dumps(ask.json("/resource/rq3b-xjk8.json", S_limit=1))


def test_a_watermark_on_a_million_made_rows_looks_at_few_of_them():
    looked = []

    def make(i):
        looked.append(i)
        return (f"{i:07d}", f"2020-01-01T{i // 42_000:02d}:00:00.000")

    columns = [("id", "text"), ("day", "calendar_date")]
    dataset = Dataset.made("made-rows", "n", columns, 1_000_000, make, key="id", grows={"id": True, "day": False}, rows_updated_at=1_600_000_000)
    since = soql.parse_parameters({"$where": "(day >= '2020-01-01T23:00:00.000' OR day IS NULL)"})
    assert len(dataset.found(since)[1]) == 1_000_000 - 23 * 42_000
    edited = dataset.edit(0.00001, add=3)
    changed = soql.parse_parameters({"$where": ":updated_at >= '2020-12-31'"})
    rows, places = dataset.found(changed)
    assert {rows[i].values[0] for i in places} == {*edited["edited"], *edited["added"]} and len(places) == 13
    assert len(looked) < 1_000
