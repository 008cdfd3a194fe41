"""A folder of files by day: what lies there comes as it is, what does not is waited for and then told, and nothing is passed over unseen."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.dated_files import LineCounter, Pattern
from pipelines.connectors.folder import Folder
from pipelines.connectors.http import Door
from pipelines.errors import NeverCame, NotReady, PipelineError, SetupError, TransientError

CHICAGO = "America/Chicago"
UNMATCHED, MATCHED, SUMMARY = "Austin_bt_%m-%d-%Y.txt", "Austin_btmatch_%m-%d-%Y.txt", "Austin_bt_summary_15_%m-%d-%Y.txt"
OPTIONS = {"file": "unmatched", "area": "Austin", "helpers": {"matched": MATCHED}}
#: Local midnights of June 2019, by UTC.
JUNE = {day: datetime(2019, 6, day, 5, tzinfo=UTC) for day in range(1, 10)}


class Drop:
    """A folder with files, and a connector to it; `events` holds what it told."""

    def __init__(self, folder: Path, **parameters: str):
        self.folder, self.events = folder, []
        self.source = Folder(Account("awam", str(folder), parameters), Door(on_event=lambda level, text: self.events.append((level, text))))

    def put(self, name: str, content: bytes = b"a,b\n", at: float = 1.56e9) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        os.utime(path, (at, at))
        return path

    def fetch(self, day: int = 1, days: int = 1, resource: str = UNMATCHED, asked_at: datetime | None = None, **options):
        return list(
            self.source.fetch(
                resource,
                request(JUNE[day], JUNE[day + days], asked_at=asked_at, options={**OPTIONS, **options}),
                rows=None,
                workdir=self.work,
                progress=lambda done, total: None,
            )
        )

    @property
    def work(self) -> Path:
        made = self.folder.with_name("work")
        made.mkdir(exist_ok=True)
        return made

    def listing(self, resource: str = UNMATCHED, since=None, until=None, **options):
        return list(self.source.listing(resource, request(since, until, options={**OPTIONS, **options})))

    def told(self, level: str) -> list[str]:
        return [text for one, text in self.events if one == level]


def request(starts_at, ends_at, **more) -> FetchRequest:
    return FetchRequest(columns=(), window_column="host_read_time", starts_at=starts_at, ends_at=ends_at, time_zone=CHICAGO, **more)


@pytest.fixture
def drop(tmp_path):
    folder = tmp_path / "awam"
    folder.mkdir()
    return Drop(folder)


def test_a_day_comes_as_it_was_dropped_with_its_helper_behind_it(drop):
    content = b"6/1/2019 12:00:00 AM,1.2.3.4,x,lamar,QQ==\r\n\r\n\xff\xfe odd\nlast without an end"
    drop.put("Austin_bt_06-01-2019.txt", content)
    drop.put("Austin_btmatch_06-01-2019.txt", b"m\nn\n")
    main, helper = drop.fetch()
    assert main.path.read_bytes() == content and (main.bytes, main.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert main.rows == 3  # an empty line is no record
    told = {name: main.metadata[name] for name in ("base", "ext", "collection_date", "origin_filename")}
    assert told == {"base": "Austin", "ext": "unmatched.txt", "collection_date": "2019-06-01", "origin_filename": "Austin_bt_06-01-2019.txt"}
    assert "role" not in main.metadata and main.origin == str(drop.folder / main.name)
    assert (helper.metadata["role"], helper.metadata["ext"], helper.metadata["base"]) == ("matched", "matched.txt", "Austin")
    assert drop.events == []


def test_a_helper_that_is_missing_is_told_and_stops_nothing(drop):
    drop.put("Austin_bt_06-01-2019.txt")
    [main] = drop.fetch()
    assert main.metadata["missing"] == ["matched"]
    assert drop.told("warning") == [f"Austin_bt_06-01-2019.txt comes without its file of matched: {drop.folder} has none of 2019-06-01"]


def test_only_the_files_of_the_window_come_in_the_order_of_their_days(drop):
    for day in (4, 2, 3, 1):
        drop.put(f"Austin_bt_06-0{day}-2019.txt")
    assert [file.name for file in drop.fetch(2, days=2, helpers={})] == ["Austin_bt_06-02-2019.txt", "Austin_bt_06-03-2019.txt"]


def test_a_name_that_is_no_date_is_counted_in_a_warning_and_a_sister_file_is_none(drop):
    for name in ("Austin_bt_06-01-2019.txt", "Austin_btmatch_06-01-2019.txt", "Austin_bt_summary_15_06-01-2019.txt"):
        drop.put(name)
    for name in ("Austin_bt_13-45-2019.txt", "austin_bt_06-02-2019.txt", "Austin_bt_06-03-2019 (1).txt", "README"):
        drop.put(name)
    (drop.folder / "Austin_bt_06-04-2019.txt").mkdir()
    assert [one.label.rpartition("/")[2] for one in drop.listing()] == ["Austin_bt_06-01-2019.txt"]
    [warning] = drop.told("warning")
    assert warning.startswith(f"{drop.folder} has 4 files that are no files of {UNMATCHED}, passed over: ") and warning.endswith(", …")
    assert drop.told("info") == [f"{drop.folder} has 1 file of other kinds: Austin_bt_summary_15_06-01-2019.txt"]


def test_of_two_files_of_one_day_the_first_is_taken_and_the_other_told(drop):
    drop.put("Austin_bt_06-01-2019.txt", b"first\n")
    drop.put("Austin_bt_6-1-2019.txt", b"second\n")
    [main] = drop.fetch(helpers={})
    assert main.path.read_bytes() == b"first\n"
    assert drop.told("warning") == [f"{drop.folder} has 1 file of a time that another file has already, passed over: Austin_bt_6-1-2019.txt"]


def test_the_listing_is_ordered_has_local_days_and_obeys_its_bounds(drop):
    for name in ("Austin_bt_11-03-2019.txt", "Austin_bt_06-01-2019.txt", "Austin_bt_03-10-2019.txt"):
        drop.put(name)
    spans = [(one.base, one.ext, one.starts_at, one.ends_at - one.starts_at) for one in drop.listing(helpers={})]
    assert spans == [
        ("Austin", "unmatched.txt", datetime(2019, 3, 10, 6, tzinfo=UTC), timedelta(hours=23)),
        ("Austin", "unmatched.txt", JUNE[1], timedelta(hours=24)),
        ("Austin", "unmatched.txt", datetime(2019, 11, 3, 5, tzinfo=UTC), timedelta(hours=25)),
    ]
    assert [one.starts_at for one in drop.listing(since=JUNE[1], until=JUNE[2], helpers={})] == [JUNE[1]]
    assert drop.listing(since=JUNE[2], until=JUNE[3], helpers={}) == []


@pytest.mark.parametrize("change", [{"content": b"a,b\nc\n"}, {"at": 1.57e9}], ids=["size", "time"])
@pytest.mark.parametrize("name", ["Austin_bt_06-01-2019.txt", "Austin_btmatch_06-01-2019.txt"])
def test_a_file_that_was_written_again_has_another_fingerprint_and_so_has_one_whose_helper_was(drop, name, change):
    drop.put("Austin_bt_06-01-2019.txt")
    drop.put("Austin_btmatch_06-01-2019.txt")
    drop.put("Austin_bt_06-02-2019.txt")
    before, other = drop.listing()
    assert [before, other] == drop.listing() and drop.fetch()[0].metadata["fingerprint"] == before.fingerprint
    drop.put(name, **change)
    after, same = drop.listing()
    assert after.fingerprint != before.fingerprint and same == other


def test_a_helper_that_comes_late_changes_the_fingerprint(drop):
    drop.put("Austin_bt_06-01-2019.txt")
    [before] = drop.listing()
    drop.put("Austin_btmatch_06-01-2019.txt")
    [after] = drop.listing()
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("hours", "late_days", "kind"), [(1, 3, NotReady), (71, 3, NotReady), (72, 3, NeverCame), (1, 0, NeverCame), (30, 2, NotReady)]
)
def test_a_file_that_is_not_there_is_waited_for_and_then_told(drop, hours, late_days, kind):
    with pytest.raises(PipelineError) as caught:
        drop.fetch(asked_at=JUNE[2] + timedelta(hours=hours), late_days=late_days)
    assert type(caught.value) is kind and "has no file Austin_bt_%m-%d-%Y.txt of Sat Jun 1 2019" in caught.value.message
    if kind is NotReady:
        assert 0 < caught.value.retry_after <= 3600
    else:
        assert "accept the block" in caught.value.next_step


def test_a_window_of_days_waits_for_each_of_them_and_then_goes_on_without_those_that_never_came(drop):
    for day in (1, 2, 4):
        drop.put(f"Austin_bt_06-0{day}-2019.txt")
    with pytest.raises(NotReady, match="has no file .* of Mon Jun 3 2019 yet"):
        drop.fetch(1, days=4, helpers={}, asked_at=JUNE[6])
    assert len(drop.fetch(1, days=4, helpers={}, asked_at=JUNE[8])) == 3
    assert [str(one) for one in drop.source.missing] == [f"file {UNMATCHED} of 2019-06-03: it never came, 3 days after its time"]
    drop.put("Austin_bt_06-03-2019.txt")
    assert len(drop.fetch(1, days=4, helpers={}, asked_at=JUNE[6])) == 4 and drop.source.missing == []


def test_a_file_that_grows_while_it_is_read_is_not_taken(drop, monkeypatch):
    path = drop.put("Austin_bt_06-01-2019.txt", b"x\n" * 10)
    listed = Folder._held

    def then_grows(self, patterns):
        yield from list(listed(self, patterns))
        with path.open("ab") as file:
            file.write(b"more\n")

    monkeypatch.setattr(Folder, "_held", then_grows)
    with pytest.raises(TransientError, match="was written to while it was read") as caught:
        drop.fetch(helpers={})
    assert caught.value.code == "source-moved"


def test_a_file_that_was_written_to_just_now_is_left_to_be_finished_where_the_folder_fills_slowly(tmp_path):
    drop = Drop(tmp_path, quiet_seconds="60")
    drop.put("Austin_bt_06-01-2019.txt", at=datetime.now(UTC).timestamp() - 10)
    with pytest.raises(NotReady) as caught:
        drop.fetch(helpers={})
    assert (caught.value.code, caught.value.retry_after) == ("still-written", 60)
    drop.put("Austin_bt_06-01-2019.txt", at=datetime.now(UTC).timestamp() - 600)
    assert len(drop.fetch(helpers={})) == 1


@pytest.mark.parametrize(
    ("name", "content", "rows"), [("csv", b"h,i\n1,2\n3,4\n", 2), ("csv", b'h,i\r\n1,"2\r\n\r\n', 1), ("zip", b"PK\n\n", None), ("csv", b"", 0)]
)
def test_rows_are_counted_where_a_text_has_them_and_left_open_where_it_must_be_opened_first(drop, name, content, rows):
    drop.put(f"Austin_wt_2019-06-01.{name}", content)
    [main] = drop.fetch(resource=f"Austin_wt_%Y-%m-%d.{name}", file="", helpers={})
    assert (main.rows, main.metadata["ext"]) == (rows, name)


def test_a_header_is_no_row_where_the_options_say_so(drop):
    drop.put("Austin_bt_06-01-2019.txt", b"h\n1\n2\n")
    assert drop.fetch(helpers={}, header=True)[0].rows == 2
    drop.put("Austin_wt_2019-06-01.csv", b"1\n2\n")
    assert drop.fetch(resource="Austin_wt_%Y-%m-%d.csv", helpers={}, header=False)[0].rows == 2


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_lines_are_counted_alike_however_the_pieces_fall(size):
    text, counter = b"a\n\n \r\nb\r\nlast", LineCounter()
    for start in range(0, len(text), size):
        counter.feed(text[start : start + size])
    assert counter.total == 3


def test_a_missing_folder_is_a_matter_of_setup(tmp_path):
    with pytest.raises(SetupError, match="does not exist or may not be read") as caught:
        Drop(tmp_path / "gone").listing()
    assert "Create or mount" in caught.value.next_step
    with pytest.raises(SetupError, match="not a folder's whole path"):
        Drop(Path("awam")).source.test()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("requests.csv", "it names no day"),
        ("x_%Y-%m.csv", "it names no day"),
        ("x_%q.csv", "it has %q"),
        ("x_%Y-%m-%d.csv%", "it has %"),
        ("../%Y-%m-%d.csv", "leads into a folder below"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_in_words(drop, pattern, words):
    with pytest.raises(SetupError, match=words) as caught:
        drop.listing(pattern)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "option", [{"helpers": ["x"]}, {"helpers": {"m": "no day"}}, {"late_days": "three"}, {"late_days": -1}, {"header": "yes"}, {"file": 1}]
)
def test_an_option_that_makes_no_sense_is_refused_in_words(drop, option):
    with pytest.raises(SetupError) as caught:
        drop.listing(**option)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("pattern", "name", "wall"),
    [
        ("x%Y%m%d.zip", "x20190601.zip", datetime(2019, 6, 1)),
        ("x%Y%j.zip", "x2019152.zip", datetime(2019, 6, 1)),
        ("%Y/%m/%d/bt/Austin_bt_%Y-%m-%d_unmatched.txt", "2019/06/01/bt/Austin_bt_2019-06-01_unmatched.txt", datetime(2019, 6, 1)),
        ("%Y/%m/%d/bt/Austin_bt_%Y-%m-%d_unmatched.txt", "2019/06/02/bt/Austin_bt_2019-06-01_unmatched.txt", None),
        ("100%%_%d %b %Y", "100%_1 Jun 2019", datetime(2019, 6, 1)),
        ("x_%m-%d-%y_%H.txt", "x_06-01-19_23.txt", datetime(2019, 6, 1, 23)),
        ("x.%Y-%m-%d", "xa2019-06-01", None),
        ("x_%Y-%m-%d", "x_2019-06-01\n", None),
        ("x_%Y-%m-%d", "X_2019-06-01", None),
        ("x_%Y-%m-%d", "x_2019-02-30", None),
    ],
)
def test_what_a_name_says_of_time(pattern, name, wall):
    found = Pattern(pattern).moment(name)
    assert (found.wall if found else None) == wall


def test_an_hour_in_the_name_is_an_hour(drop):
    drop.put("x_2019-06-01_05.txt")
    drop.put("x_2019-06-01_04.txt")
    first, second = drop.listing("x_%Y-%m-%d_%H.txt", helpers={})
    assert (first.starts_at, first.ends_at) == (datetime(2019, 6, 1, 9, tzinfo=UTC), second.starts_at)
    assert len(drop.fetch(resource="x_%Y-%m-%d_%H.txt", helpers={})) == 2


def test_an_hour_that_is_not_there_is_waited_for(drop):
    asked = request(datetime(2019, 6, 1, 9, tzinfo=UTC), datetime(2019, 6, 1, 10, tzinfo=UTC), asked_at=JUNE[2])
    with pytest.raises(NotReady, match="of 2019-06-01 04:00 yet"):
        list(drop.source.fetch("x_%Y-%m-%d_%H.txt", asked, rows=None, workdir=drop.work, progress=lambda done, total: None))


def test_without_a_window_nothing_can_be_fetched(drop):
    with pytest.raises(SetupError) as caught:
        list(drop.source.fetch(UNMATCHED, request(None, None), rows=None, workdir=drop.work, progress=lambda done, total: None))
    assert caught.value.code == "no-window"


def test_the_test_button_says_what_is_there(drop):
    drop.put("Austin_bt_06-01-2019.txt", at=1.5593e9)
    assert drop.source.test() == f"{drop.folder} can be read; it holds 1 file, the newest of 2019-05-31 10:53 UTC"
    assert drop.source.describe(UNMATCHED).columns == ()
