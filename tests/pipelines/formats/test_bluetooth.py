"""Bluetooth: days come out as they always were published; what is odd is kept, told, or refused with its reason."""

import random
import tracemalloc
from collections.abc import Iterator
from datetime import date

import pytest

from pipelines.formats import bluetooth, sorted_lines, text_lines
from pipelines.formats.bluetooth import FILES, NO_MATCHED, Bluetooth
from pipelines.formats.sensors import Document
from tests.pipelines.formats.sensing import (
    ELM,
    ELM_ID,
    OAK,
    OAK_ID,
    ORIGINAL_UNITS,
    PHONES,
    STRAY,
    Told,
    as_cells,
    at,
    due,
    golden,
    needs_the_original,
    original,
    published,
    raw_day,
    ready,
    row_id,
    standard_of,
    standardize,
    table_of,
    terms,
)

DAY, NEXT, FALL, SPRING = date(2019, 6, 1), date(2019, 6, 2), date(2019, 11, 3), date(2019, 3, 10)
UNITS = [OAK, ELM]


def block(day: date = DAY) -> Bluetooth:
    return Bluetooth(terms("bt", day))


def document(folder, kind: str, body: str, day: date = DAY, role: str = ""):
    [made] = standardize(block(day), folder, body, f"{kind}.txt").made
    return standard_of(made, role)


def joined(folder, kind: str, body: str, day: date = DAY, units: list[dict] = UNITS, helper: str | None = None) -> tuple[Bluetooth, Told]:
    documents = [document(folder, kind, body, day)]
    if helper is not None:
        documents.append(document(folder, "matched", helper, day, role="matched"))
    reader = block(day)
    return reader, ready(reader, folder, documents, units)


# the days of the original


@needs_the_original
@pytest.mark.parametrize("day", [DAY, NEXT])
@pytest.mark.parametrize(("kind", "dataset"), [("matched", "x44q-icha"), ("traf_match_summary", "v7zg-5jg9")])
def test_matches_and_sums_are_published_as_the_original_did(tmp_path, kind, dataset, day):
    _, told = joined(tmp_path, kind, original(kind, day), day, ORIGINAL_UNITS)
    assert published(told.table) == as_cells(golden(dataset)[day.day - 1])
    assert told.refused == []
    ids = ("545b7c56753af339ca16e388ebd1d9b2", "b040f50462dc83984a6868dbe831aa08")
    assert {(row["origin_device_id"], row["dest_device_id"]) for row in told.table} == {ids}


@needs_the_original
def test_reads_are_published_as_the_original_did(tmp_path):
    _, told = joined(tmp_path, "unmatched", original("unmatched", DAY), units=ORIGINAL_UNITS, helper=original("matched", DAY))
    assert published(told.table) == as_cells(golden("qnpj-zrb9")[0])
    assert told.reasons == ["reader_id is no device of the inventory"]


@needs_the_original
def test_the_counter_goes_across_the_files_of_every_day_not_of_a_runs_first_alone(tmp_path):
    """The original's counter began anew with each file from a run's second day on: of these rows the address alone differs, and their ids."""
    _, told = joined(tmp_path, "unmatched", original("unmatched", NEXT), NEXT, ORIGINAL_UNITS, helper=original("matched", NEXT))
    rows, theirs = published(told.table), as_cells(golden("qnpj-zrb9")[1])
    assert [row["device_address"] for row in theirs] == ["1", "2", "2"]
    assert [row["device_address"] for row in rows] == ["3", "2", "2"]
    by_counter = ("device_address", "record_id")
    assert [{k: v for k, v in row.items() if k not in by_counter} for row in rows] == [
        {k: v for k, v in row.items() if k not in by_counter} for row in theirs
    ]
    assert [ours["record_id"] == their["record_id"] for ours, their in zip(rows, theirs, strict=True)] == [False, True, True]


# a day


@pytest.mark.parametrize("day", [DAY, NEXT])
@pytest.mark.parametrize("kind", ["matched", "traf_match_summary"])
def test_matches_and_sums_are_published_with_their_ids(tmp_path, kind, day):
    _, told = joined(tmp_path, kind, raw_day(kind, day), day)
    assert published(told.table) == as_cells(due(kind, day))
    assert told.refused == []
    assert {(row["origin_device_id"], row["dest_device_id"]) for row in told.table} == {(OAK_ID, ELM_ID)}


@pytest.mark.parametrize("day", [DAY, NEXT])
def test_reads_are_numbered_behind_the_matched_ones_of_their_day_and_the_unknown_reader_is_refused(tmp_path, day):
    _, told = joined(tmp_path, "unmatched", raw_day("unmatched", day), day, helper=raw_day("matched", day))
    assert published(told.table) == as_cells(due("unmatched", day))
    assert [row["device_address"] for row in told.table] == ["3", "2", "2"]
    assert [row["device_id"] for row in told.table] == [OAK_ID, ELM_ID, OAK_ID]
    [refused] = told.refused
    assert (refused.reason, refused.column, refused.value, refused.number) == ("reader_id is no device of the inventory", "reader_id", STRAY, 4)
    assert refused.raw["dev_addr"] == PHONES[3]


def test_a_block_of_all_three_files_numbers_the_matched_rows_first(tmp_path):
    documents = [document(tmp_path, kind, raw_day(kind, DAY)) for kind in ("unmatched", "traf_match_summary", "matched")]
    told = ready(block(), tmp_path, documents, UNITS)
    assert [made.ext for made in told.made] == ["matched.json", "traf_match_summary.json", "unmatched.json"]
    assert [row["device_address"] for row in table_of(told.made[2])] == ["3", "2", "2"]


def test_documents_have_the_shapes_of_the_lake(tmp_path):
    told = standardize(block(), tmp_path, raw_day("unmatched", DAY), "unmatched.txt")
    [made] = told.made
    dates = {"collection_date": "2019-06-01 00:00:00-05:00", "processing_date": "2019-06-02 08:00:00-05:00"}
    assert made.header == Document(made.path).header == {
        "data_type": "bluetooth", "file_type": "unmatched", "origin_filename": "Austin_bt_2019-06-01_unmatched.txt",
        "target_filename": "Austin_bt_2019-06-01_unmatched.json", **dates,
    }  # fmt: skip
    assert (made.base, made.ext, made.rows) == ("Austin", "unmatched.json", 4)
    assert told.rows[0] == {
        "host_timestamp": "2019-06-01 00:00:03-05:00", "ip_address": "10.20.0.40", "field_timestamp": "2019-05-31 23:59:56-05:00",
        "reader_id": "oak_2nd", "dev_addr": PHONES[2],
    }  # fmt: skip
    made = ready(block(), tmp_path, [standard_of(made)], UNITS).made[0]
    joined = Document(made.path)
    assert joined.part("devices") == [{**OAK, "device_id": OAK_ID}, {**ELM, "device_id": ELM_ID}]
    assert next(joined.rows()) == {**told.rows[0], "device_id": OAK_ID}
    assert made.columns[-1] == ("device_id", "text") and made.header["target_filename"] == "Austin_bt_2019-06-01_unmatched.json"


def test_summary_cells_stay_the_texts_that_they_were(tmp_path):
    told = standardize(block(), tmp_path, raw_day("traf_match_summary", DAY), "traf_match_summary.txt")
    assert (told.rows[0]["seg_length"], told.rows[0]["avg_travel_time"], told.rows[0]["timestamp"]) == ("0.412", "-1", "2019-06-01 00:00:00-05:00")


def test_reads_are_observed_by_reader_the_unknown_too_and_matches_are_not(tmp_path):
    reader = block()
    standardize(reader, tmp_path, raw_day("unmatched", DAY), "unmatched.txt")
    standardize(reader, tmp_path, raw_day("matched", DAY), "matched.txt")
    seen = reader.observations()
    assert {name: one["value"] for name, one in seen.items()} == {"elm_2nd": 1, "oak_2nd": 2, STRAY: 1}
    assert seen["oak_2nd"] == {
        "value": 2, "rows": 2, "first": "2019-06-01T05:00:03+00:00", "last": "2019-06-01T05:01:40+00:00", "unit": "Unmatched Entries"
    }  # fmt: skip


# what is odd


READ = "6/1/2019 12:00:00 AM,10.0.0.1,6/1/2019 12:00:01 AM,oak_2nd,AAA="


def test_a_short_line_is_kept_with_nulls_and_refused_where_a_published_column_needs_more(tmp_path):
    told = standardize(block(), tmp_path, f"{READ}\n6/1/2019 12:00:02 AM,10.0.0.1\n", "unmatched.txt")
    assert told.rows[1] == {
        "host_timestamp": "2019-06-01 00:00:02-05:00", "ip_address": "10.0.0.1", "field_timestamp": None, "reader_id": None, "dev_addr": None
    }  # fmt: skip
    told = ready(block(), tmp_path, [standard_of(told.made[0])], UNITS)
    assert (told.reasons, len(told.table)) == (["field_timestamp is missing"], 1)


def test_a_line_without_its_last_unneeded_field_is_published_without_it(tmp_path):
    line = raw_day("matched", DAY).splitlines()[0].rpartition(",")[0]
    reader, told = joined(tmp_path, "matched", line)
    assert (told.table[0]["filter_identifier"], told.table[0]["record_id"]) == ("", row_id(at(DAY, -610), at(DAY, -22), "oak_2nd", "elm_2nd", 1))


def test_fields_too_many_are_kept_under_null_as_the_original_did(tmp_path):
    reader = block()
    told = standardize(reader, tmp_path, f"{READ},more,and more\n", "unmatched.txt")
    assert told.rows[0]["null"] == ["more", "and more"] and told.rows[0]["dev_addr"] == "AAA="
    assert dict(reader.tally.warnings) == {bluetooth.LONG: 1}


@pytest.mark.parametrize(
    "time", ["nan", "", "6/31/2019 1:00:00 AM", "6/1/2019 13:00:00 PM", "6/1/2019 1:60:00 AM", "6/1/2019 1:00:00", "6/1/19 1:00:00 AM"]
)
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_no_time_is_null_in_the_document_and_refused_at_ready(tmp_path, time, place):
    cells = READ.split(",")
    cells[place] = time
    reader = block()
    told = standardize(reader, tmp_path, f"{READ}\n{','.join(cells)}\n", "unmatched.txt")
    name = FILES["unmatched"].fields[place]
    assert told.rows[1][name] is None and told.rows[0][name]
    assert dict(reader.tally.warnings) == {f"{name} {bluetooth.UNREAD}": 1}
    seen = reader.observations()["oak_2nd"]
    assert (seen["rows"], seen["value"], seen["first"], seen["last"]) == (2, 2, "2019-06-01T05:00:00+00:00", "2019-06-01T05:00:00+00:00")
    told = ready(block(), tmp_path, [standard_of(told.made[0])], UNITS)
    assert (told.reasons, told.refused[0].number) == ([f"{name} is missing"], 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"6/1/2019 12:00:00 AM,10.0.0.1,\x00,oak_2nd,AAA=", "the line holds a NUL byte"),
        (b"6/1/2019 12:00:00 AM,10.0.0.1,x,lamar_\xff,AAA=", "the line is not UTF-8"),
        (b'6/1/2019 12:00:00 AM,10.0.0.1,x,"oak_2nd,AAA=', "the line is no CSV: unexpected end of data"),
        (b"x" * (text_lines.LONGEST + 1), "the line is longer than 65,536 bytes"),
        (b"6/1/2019 12:00:00 AM,10.0.0.1,6/1/2019 12:00:00 AM,oak_2nd," + b"A" * text_lines.LONGEST, "the line is longer than 65,536 bytes"),
    ],
)
def test_a_line_that_is_no_text_is_refused_and_the_others_go_on(tmp_path, line, reason):
    told = standardize(block(), tmp_path, b"\n".join([READ.encode(), line, READ.encode()]), "unmatched.txt")
    assert (told.reasons, len(told.rows), told.refused[0].number) == ([reason], 2, 2)
    assert set(told.refused[0].raw) == {"line"} and "\0" not in told.refused[0].raw["line"] and len(told.refused[0].raw["line"]) < 20_000


@pytest.mark.parametrize("body", ["", "\n", "\r\n\r\n", "\ufeff"])
def test_an_empty_file_is_an_empty_document_and_an_empty_table(tmp_path, body):
    _, told = joined(tmp_path, "unmatched", body, helper="")
    assert (told.table, told.rows, told.refused) == ([], [], [])


def test_line_ends_blank_lines_a_mark_of_utf8_and_quotes_change_nothing(tmp_path):
    lines = raw_day("unmatched", DAY).splitlines()
    plain = standardize(block(), tmp_path, "\n".join(lines), "unmatched.txt").rows
    assert standardize(block(), tmp_path, "\r\n".join(lines) + "\r\n", "unmatched.txt").rows == plain
    quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    assert standardize(block(), tmp_path, "\ufeff" + "\r\n\r\n".join(quoted) + "\r\n", "unmatched.txt").rows == plain


def test_letters_beyond_ascii_and_control_characters_are_kept(tmp_path):
    line = READ.replace("10.0.0.1", "Pe\u00f1a \\ \x01\t")
    assert standardize(block(), tmp_path, line, "unmatched.txt").rows[0]["ip_address"] == "Pe\u00f1a \\ \x01\t"


def test_a_field_too_many_and_one_too_few_in_the_next_line_do_not_make_two_good_rows(tmp_path):
    told = standardize(block(), tmp_path, f"{READ},6/1/2019 12:00:02 AM\n10.0.0.2,6/1/2019 12:00:03 AM,elm_2nd,BBB=\n", "unmatched.txt")
    assert (told.rows[0]["null"], told.rows[1]["host_timestamp"], told.rows[1]["dev_addr"]) == (["6/1/2019 12:00:02 AM"], None, None)


def test_the_first_and_the_last_read_are_told_of_a_file_that_is_not_in_order(tmp_path):
    reader = block()
    standardize(reader, tmp_path, "\n".join(READ.replace("12:00:00", f"12:00:{second}") for second in ("05", "09", "02", "07")), "unmatched.txt")
    seen = reader.observations()["oak_2nd"]
    assert (seen["first"][14:19], seen["last"][14:19]) == ("00:02", "00:09")


def test_a_file_of_no_known_kind_is_refused_whole(tmp_path):
    reader = block()
    told = standardize(reader, tmp_path, READ, "weather.txt")
    assert (told.made, told.refused[0].number) == ([], 0) and "unmatched, matched, traf_match_summary" in told.reasons[0]


def test_of_two_units_with_a_name_the_first_is_taken_no_row_doubles_and_it_is_told(tmp_path):
    later, unnamed = {**OAK, "atd_device_id": 1001, "device_ip": "10.9.9.9"}, {**OAK, "atd_device_id": 5, "device_name": None}
    reader, told = joined(tmp_path, "unmatched", raw_day("unmatched", DAY), units=[later, unnamed, ELM, OAK], helper=raw_day("matched", DAY))
    assert [row["device_id"] for row in told.table] == [OAK_ID, ELM_ID, OAK_ID]
    assert dict(reader.tally.warnings) == {"device_name is of several units: the one with the lowest atd_device_id is taken": 2}


def test_without_its_matched_file_a_day_is_numbered_by_its_reads_and_that_is_told(tmp_path):
    reader, told = joined(tmp_path, "unmatched", raw_day("unmatched", DAY))
    assert [row["device_address"] for row in told.table] == ["1", "2", "2"]
    assert dict(reader.tally.warnings) == {NO_MATCHED: 1}


def test_rows_that_are_not_published_take_no_number(tmp_path):
    ghost = raw_day("matched", DAY).replace(f"{PHONES[0]},oak_2nd", f"{PHONES[0]},{STRAY}")
    reader, told = joined(tmp_path, "unmatched", raw_day("unmatched", DAY), helper=ghost)
    assert [row["device_address"] for row in told.table] == ["2", "1", "1"]
    assert reader.tally.rejected == 1, "what the helper refuses is counted where it is published"


def test_a_number_that_is_none_is_refused(tmp_path):
    line = raw_day("matched", DAY).splitlines()[0]
    _, told = joined(tmp_path, "matched", "\n".join(line.replace(",588,", f",{cell},") for cell in ("nan", "1_0", "x", "\u0665", "588", "")))
    assert told.reasons == ["travel_time_secs is no number"] * 4
    assert [row["travel_time_seconds"] for row in told.table] == ["588", ""]


# the clock


def read_at(clock: str, reader: str = "oak_2nd", field: str | None = None) -> str:
    return f"11/3/2019 {clock},10.0.0.1,11/3/2019 {field or clock},{reader},AAA="


def test_the_second_pass_through_the_repeated_hour_has_its_own_ids_and_all_else_is_unchanged(tmp_path):
    clocks = ["12:59:00 AM", "1:30:00 AM", "1:59:00 AM", "1:30:00 AM", "1:58:30 AM", "2:00:10 AM"]
    body = "\n".join(read_at(clock) for clock in clocks)
    told = standardize(block(FALL), tmp_path, body, "unmatched.txt")
    assert [row["host_timestamp"][11:] for row in told.rows] == [
        "00:59:00-05:00", "01:30:00-05:00", "01:59:00-05:00", "01:30:00-06:00", "01:58:30-06:00", "02:00:10-06:00"
    ]  # fmt: skip
    told = ready(block(FALL), tmp_path, [standard_of(told.made[0])], UNITS)
    assert [row["host_read_time"][11:] for row in told.table] == ["00:59:00", "01:30:00", "01:59:00", "01:30:00", "01:58:30", "02:00:10"]
    ids = [row["record_id"] for row in told.table]
    assert len(set(ids)) == 6
    assert ids[1] == bluetooth.md5_of("2019-11-03T01:30:00", "oak_2nd", 1)
    assert ids[3] == bluetooth.md5_of("2019-11-03T01:30:00-06:00", "oak_2nd", 1)


def test_the_field_time_lies_in_the_pass_of_its_host_time(tmp_path):
    body = "\n".join(
        [read_at("1:59:50 AM"), read_at("1:00:05 AM", field="1:59:58 AM"), read_at("1:00:09 AM"), read_at("2:00:03 AM", field="1:59:57 AM")]
    )
    rows = standardize(block(FALL), tmp_path, body, "unmatched.txt").rows
    assert [row["field_timestamp"][11:] for row in rows] == ["01:59:50-05:00", "01:59:58-05:00", "01:00:09-06:00", "01:59:57-06:00"]


def test_a_jitter_of_clocks_is_no_second_pass(tmp_path):
    body = "\n".join(map(read_at, ["1:30:00 AM", "1:29:51 AM", "1:31:00 AM"]))
    assert {row["host_timestamp"][-6:] for row in standardize(block(FALL), tmp_path, body, "unmatched.txt").rows} == {"-05:00"}


@pytest.mark.parametrize("is_sorted", [False, True])
def test_the_sums_of_the_repeated_hour_are_eight_a_pair_in_either_order(tmp_path, is_sorted):
    quarters = ["1:00 AM", "1:15 AM", "1:30 AM", "1:45 AM"] * 2
    lines = [
        f"{pair},2nd,Oak,Eastbound,2nd,Elm,Westbound,0.412,11/3/2019 {quarter},-1,-1,15,0,-1"
        for quarter in (sorted(quarters) if is_sorted else quarters)
        for pair in ("oak_2nd,elm_2nd", "elm_2nd,oak_2nd")
    ]
    _, told = joined(tmp_path, "traf_match_summary", "\n".join(lines), FALL)
    assert len({row["record_id"] for row in told.table}) == 16
    assert [row["timestamp"][11:16] for row in told.table] == [quarter for quarter in ("01:00", "01:15", "01:30", "01:45") * 2 for _ in "ab"]


def test_an_hour_that_the_clock_skips_is_taken_by_the_clock_before_it(tmp_path):
    body = "3/10/2019 2:15:00 AM,10.0.0.1,3/10/2019 2:14:59 AM,oak_2nd,AAA="
    assert standardize(block(SPRING), tmp_path, body, "unmatched.txt").rows[0]["host_timestamp"] == "2019-03-10 02:15:00-06:00"


# many lines


def test_a_line_that_never_ends_is_not_held_in_memory(tmp_path):
    (tmp_path / "raw").write_bytes(b"x" * (text_lines.LONGEST + 5 * text_lines.PIECE))
    [piece] = text_lines.pieces(tmp_path / "raw")
    assert text_lines.LONGEST < len(piece) < text_lines.LONGEST + text_lines.PIECE


def day_of(lines: int, seed: int = 5) -> Iterator[str]:
    """Reads of a day, in order, by thirty readers."""
    dice = random.Random(seed)
    for number in range(lines):
        minute, second = divmod(number * 3600 // lines, 60)
        reader, phone = dice.randrange(30), dice.randrange(99)
        yield f"6/1/2019 7:{minute:02}:{second:02} AM,10.0.0.{phone % 9},6/1/2019 7:{minute:02}:00 AM,reader_{reader},{phone}="


def test_plain_lines_by_columns_give_what_they_give_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "PIECE", 700)
    lines = list(day_of(400))
    dice = random.Random(6)
    for number in dice.sample(range(400), 60):
        lines[number] = dice.choice(["nan" + lines[number][20:], lines[number][:60], lines[number] + ",x", lines[number].replace("reader", '"'), ""])
    # out of order too: the first and the last time of a reader are not those of its first and last line
    dice.shuffle(lines)
    body = "\n".join(lines)
    by_columns, by_line = block(), block()
    fast = standardize(by_columns, tmp_path, body, "unmatched.txt")
    written = fast.made[0].path.read_bytes()
    monkeypatch.setattr(text_lines, "is_plain", lambda piece: False)
    slow = standardize(by_line, tmp_path, body, "unmatched.txt")
    assert written == slow.made[0].path.read_bytes()
    assert fast.refused == slow.refused and fast.refused
    assert by_columns.observations() == by_line.observations()
    assert by_columns.tally == by_line.tally


def test_a_day_is_sorted_by_time_and_reader_and_equal_rows_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_lines, "RUN", 8_000)
    lines = list(day_of(900))
    random.Random(7).shuffle(lines)
    units = [{**OAK, "device_name": f"reader_{number}", "atd_device_id": number} for number in range(30)]
    _, told = joined(tmp_path, "unmatched", "\n".join(lines), units=units)
    place = {line: number for number, line in enumerate(lines)}
    keys = sorted(lines, key=lambda line: (line.split(",")[0], line.split(",")[3], place[line]))
    assert [row["dev_addr"] for row in told.rows] == [line.split(",")[4] for line in keys]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "raw-unmatched.txt",
        "unmatched.ready.json",
        "unmatched.rows.csv",
        "unmatched.standard.json",
    ]


def test_memory_does_not_grow_with_the_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "PIECE", 2_048)
    monkeypatch.setattr(sorted_lines, "RUN", 20_000)
    monkeypatch.setattr(bluetooth, "BATCH", 50)
    monkeypatch.setattr(bluetooth._Times, "MOST", 50)
    units = [{**OAK, "device_name": f"reader_{number}", "atd_device_id": number} for number in range(30)]
    peaks = []
    for lines in (300, 300, 1_200):
        (tmp_path / "raw").write_text("\n".join(day_of(lines)))
        tracemalloc.start()
        [made] = Told.by(block().standardize(bluetooth.Raw(tmp_path / "raw", "raw", "Austin", "unmatched.txt"), tmp_path)).made
        [made] = Told.by(block().ready([standard_of(made)], units, tmp_path)).made
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert made.rows == lines
    # the first warms what is kept for good
    assert peaks[2] < peaks[1] * 1.3, peaks
