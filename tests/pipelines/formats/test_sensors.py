"""What the sensors' formats share: documents that are never in the memory as a whole, the city's clock with its repeated hour, names and ids."""

import json
import tracemalloc
from datetime import date, datetime

import pytest

from pipelines.errors import DataError
from pipelines.formats.sensors import (
    Document,
    DocumentWriter,
    LocalTimes,
    Seen,
    file_name,
    hashed,
    md5_of,
    pointer,
    rows_ext,
    text_of,
    wall,
)  # fmt: skip

ZONE = "America/Chicago"
AUTUMN = "2019-11-03T"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "document.json"


def times(*walls: str, series=None, strictly: bool = False) -> list[str]:
    clock = LocalTimes(ZONE)
    return [clock.text(datetime.fromisoformat(one), series, strictly=strictly)[-6:] for one in walls]


# documents


def test_a_document_is_json_and_comes_back_row_by_row(path):
    rows = [{"a": "1", "ä": None}, {"b": ["]", "[\n"]}, {"c": 0.5}]
    with DocumentWriter(path, {"data_type": "x"}, head={"site": {"x": [1]}}) as document:
        document.write(rows[:1])
        document.write([])
        document.write_lines([b'{"b":["]","[\\n"]}'])
        document.write(rows[2:])
        document.tail = {"devices": [{"name": "]"}], "device": {}}
    assert document.rows == 3
    assert json.loads(path.read_text()) == {"header": {"data_type": "x"}, "site": {"x": [1]}, "data": rows, "devices": [{"name": "]"}], "device": {}}
    found = Document(path)
    assert found.header == {"data_type": "x"} and found.part("site") == {"x": [1]}
    assert list(found.rows()) == rows == list(found.rows())
    assert (found.part("devices"), found.part("device"), found.part("nothing")) == ([{"name": "]"}], {}, None)


def test_a_document_without_rows_is_one_too(path):
    with DocumentWriter(path, {}, rows_key="counts"):
        pass
    found = Document(path, rows_key="counts")
    assert json.loads(path.read_text()) == {"header": {}, "counts": []} and list(found.rows()) == [] and found.part("site") is None


@pytest.mark.parametrize(
    "cut", [b'{"header":{},\n', b'{"header":{},\n"data":[\n{"a":1},\n', b'{"header":{},\n"data":[\n{"a":', b"[1]\n", b"", b"\x00\xff"]
)
def test_a_cut_document_is_never_taken_for_a_whole_one(path, cut):
    path.write_bytes(cut)
    with pytest.raises(DataError, match="document.json is not a document of ours"):
        list(Document(path).rows())


def test_a_row_that_cannot_be_written_leaves_no_document(path):
    with pytest.raises(UnicodeEncodeError), DocumentWriter(path, {}) as document:
        document.write([{"a": "\udc80"}])
    assert not path.exists()


def test_the_memory_of_a_document_does_not_grow_with_its_rows(path):
    def peak(rows: int) -> int:
        tracemalloc.start()
        with DocumentWriter(path, {}) as document:
            for number in range(rows):
                document.write([{"number": number, "text": "x" * 200}])
        assert sum(1 for _ in Document(path).rows()) == rows
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < peak(1_000) + 100_000


# local time


def test_a_time_has_the_offset_of_its_day():
    clock = LocalTimes(ZONE)
    assert clock.text(datetime(2019, 6, 1)) == "2019-06-01 00:00:00-05:00"
    assert clock.text(datetime(2019, 12, 1, 7, 5, 9)) == "2019-12-01 07:05:09-06:00"
    # the clock skips it: taken by the clock before it, as the original does
    assert clock.text(datetime(2019, 3, 10, 2, 15)) == "2019-03-10 02:15:00-06:00"


def test_in_the_repeated_hour_the_second_pass_begins_where_times_go_back():
    walls = [f"{AUTUMN}{one}" for one in ("00:59:59", "01:10:00", "01:59:58", "01:59:50", "01:00:03", "01:30:00", "02:00:00")]
    assert times(*walls) == ["-05:00", "-05:00", "-05:00", "-05:00", "-06:00", "-06:00", "-06:00"]


def test_each_series_has_its_own_passes():
    clock = LocalTimes(ZONE)
    told = [clock.text(datetime.fromisoformat(f"{AUTUMN}{at}"), series)[-6:] for at, series in (("01:45", "a"), ("01:00", "b"), ("01:00", "a"))]
    assert told == ["-05:00", "-05:00", "-06:00"]


def test_of_two_equal_times_of_what_comes_once_a_time_the_second_is_of_the_second_pass():
    walls = [f"{AUTUMN}{one}" for one in ("01:00", "01:00", "01:15", "01:15")]
    assert times(*walls, series=1, strictly=True) == ["-05:00", "-06:00", "-05:00", "-06:00"]
    assert times(*walls, series=1) == ["-05:00"] * 4


def test_only_the_second_pass_has_its_offset_in_the_row_id():
    assert hashed("2019-06-01 00:00:00-05:00", ZONE) == "2019-06-01T00:00:00"
    assert hashed("2019-11-03 01:15:00-05:00", ZONE) == "2019-11-03T01:15:00"
    assert hashed("2019-11-03 01:15:00-06:00", ZONE) == "2019-11-03T01:15:00-06:00"
    assert hashed("2019-11-03 02:15:00-06:00", ZONE) == "2019-11-03T02:15:00"
    assert wall("2019-05-31 22:02:11.600000-05:00") == "2019-05-31T22:02:11.600000"
    assert text_of(datetime.fromisoformat("2019-06-01T03:02:11.6+00:00"), ZONE) == "2019-05-31 22:02:11.600000-05:00"


def test_what_was_seen_of_a_sensor_is_told_in_utc():
    seen = Seen()
    assert seen.told("Reads") == {"value": 0, "rows": 0, "first": "", "last": "", "unit": "Reads"}
    for at, value in (("2019-06-01 00:15:00-05:00", 3), ("2019-06-01 00:00:00-05:00", 4), ("", 1)):
        seen.see(at, value)
    assert seen.told("Reads") == {
        "value": 8, "rows": 3, "first": "2019-06-01T05:00:00+00:00", "last": "2019-06-01T05:15:00+00:00", "unit": "Reads"
    }  # fmt: skip


# names and ids


def test_files_are_called_and_lie_as_the_original_has_them():
    day = date(2019, 6, 1)
    assert file_name("Austin", "bt", day, "unmatched.txt") == "Austin_bt_2019-06-01_unmatched.txt"
    assert file_name("Austin", "wt", day, "csv") == "Austin_wt_2019-06-01.csv"
    assert file_name("Burnet_Rich/creek", "gs", day, "zip") == "Burnet_Rich&creek_gs_2019-06-01.zip"
    assert pointer("standard", "bt", day, "x.json") == "rawjson/2019/06/01/bt/x.json"
    assert [pointer(layer, "bt", day, "x", is_test=True).split("/")[0] for layer in ("raw", "standard", "ready", "aggregated")] == [
        "raw-test", "rawjson-test", "ready-test", "ready-test"
    ]  # fmt: skip
    assert [rows_ext(ext) for ext in ("unmatched.json", "json", "agg15.json")] == ["unmatched.rows.csv", "rows.csv", "agg15.rows.csv"]


def test_ids_are_made_as_they_always_were():
    assert md5_of("BLUETOOTH", "172.16.132.68", 30.2715378, -97.7539673) == "545b7c56753af339ca16e388ebd1d9b2"
    assert md5_of("RADAR", None, "10.0.0.9", 30.2715378, -97.7539673) == "7913ca6e3735f7b681d2996a87c8afd4"
