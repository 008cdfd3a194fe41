"""Zips of GRIDSMART devices: both layouts are read, and nothing that a zip may hold leads out of it, fills the memory or ends the run."""

import io
import random
import struct
import tracemalloc
import zipfile

import pytest

from pipelines.formats.gridsmart_zip import Bounds, zone_files
from pipelines.formats.standard import Refused
from tests.pipelines.formats.gridsmart_samples import BASE, CAMERA, DAY, EB, GOLDEN, NB, SB, dashes, layout_a, layout_b, standardize, text_of, zip_of

ZONE_FILE = f"{CAMERA}/{DAY}/{dashes(NB)}.csv"
LINES = text_of(GOLDEN[NB])


def walk(tmp_path, body, **bounds):
    """What a zip holds: (guid, lines) of zones' files, and what is refused."""
    path = tmp_path / "day.zip"
    path.write_bytes(body)
    return [one if isinstance(one, Refused) else (one.guid, list(one.lines())) for one in zone_files(path, DAY, tmp_path, Bounds(**bounds))]


@pytest.mark.parametrize("layout", [layout_a, layout_b])
def test_both_layouts_give_the_zones_with_their_lines(tmp_path, layout):
    found = walk(tmp_path, layout(GOLDEN))
    assert found == [(dashes(guid), list(enumerate(lines, start=1))) for guid, lines in GOLDEN.items()]
    assert [path.name for path in tmp_path.iterdir()] == ["day.zip"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"../../{dashes(NB)}.csv", "leads out"),
        (f"/etc/{dashes(NB)}.csv", "leads out"),
        (f"{CAMERA}/../{dashes(NB)}.csv", "leads out"),
        (f"{CAMERA}\\{DAY}\\{dashes(NB)}.csv", "leads out"),
        (f"C:{CAMERA}/{DAY}/{dashes(NB)}.csv", "leads out"),
        (f"{CAMERA}/{DAY}/{dashes(NB)}\x07.csv", "name that is none"),
        (f"{CAMERA}/{DAY}/{'x' * 400}.csv", "name that is none"),
        (f"{CAMERA}/{DAY}/readme.txt", "no layout"),
        (f"{CAMERA}/{DAY}/deep/{dashes(NB)}.csv", "no layout"),
        (f"{dashes(NB)}.csv", "no layout"),
        (f"{CAMERA}/yesterday/{dashes(NB)}.csv", "no layout"),
        (f"{CAMERA}/2019-06-02/{dashes(NB)}.csv", "of another day"),
        (f"{CAMERA}/{DAY}/inner.zip", "zip where a zone's file"),
    ],
)
def test_a_file_with_a_name_that_it_should_not_have_is_refused_and_the_others_are_read(tmp_path, name, reason):
    refused, zone = walk(tmp_path, zip_of({name: LINES, f"{CAMERA}/{DAY}/{dashes(SB)}.csv": LINES}))
    assert reason in refused.reason and refused.number == 1 and refused.raw["member"]
    assert zone[0] == dashes(SB)
    # nothing was written under any name, here or above
    assert [path.name for path in tmp_path.iterdir()] == ["day.zip"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no zip, or not a whole one"),
        (b"PK\x03\x04", "no zip, or not a whole one"),
        (b"<html>Sign in</html>", "no zip, or not a whole one"),
        (layout_a(GOLDEN)[:-30], "no zip, or not a whole one"),
        (layout_a(GOLDEN)[: len(layout_a(GOLDEN)) * 3 // 5], "no zip, or not a whole one"),
        (random.Random(7).randbytes(3000), "no zip, or not a whole one"),
    ],
)
def test_what_is_no_whole_zip_is_one_refusal(tmp_path, body, reason):
    [refused] = walk(tmp_path, body)
    assert refused.number == 0 and reason in refused.reason and refused.reason.startswith("The zip")


def test_any_byte_of_a_zip_may_be_wrong_without_a_crash(tmp_path):
    body = layout_b(GOLDEN)
    chance = random.Random(5)
    for _ in range(300):
        broken = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        for one in walk(tmp_path, bytes(broken)):
            assert isinstance(one, Refused) or one[0]


@pytest.mark.parametrize("layout", [layout_a, layout_b])
def test_a_file_whose_checksum_is_wrong_gives_no_line_at_all(tmp_path, layout):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(ZONE_FILE, LINES)
    body = held.getvalue().replace(b"512.4", b"512.5")
    [refused] = walk(tmp_path, body)
    assert "cannot be unpacked" in refused.reason


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"member_bytes": 100}, "A file says that it is larger than 100 bytes"),
        ({"total_bytes": 100}, "A file would make the zip larger than 100 bytes"),
        ({"members": 0}, "The zip holds more than 0 files"),
        ({"directory": 50}, "The zip has a list of files that is too long"),
    ],
)
def test_a_zip_that_declares_too_much_is_refused_before_it_is_unpacked(tmp_path, bounds, reason):
    [refused] = walk(tmp_path, zip_of({ZONE_FILE: LINES}), **bounds)
    assert refused.reason == reason


def test_of_an_inner_zip_the_bounds_are_those_of_the_whole(tmp_path):
    body = layout_b(GOLDEN)
    files = walk(tmp_path, body, members=3)
    assert [one.reason for one in files] == ["A file holds more than 3 files"], "one outside and three inside"
    inner = len(zipfile.ZipFile(io.BytesIO(body)).read(f"{CAMERA}/{DAY}.zip"))
    found = walk(tmp_path, body, total_bytes=inner + len(LINES) + 5)
    assert [isinstance(one, Refused) for one in found] == [False, True, True]


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_said(tmp_path):
    bomb = bytearray(zip_of({ZONE_FILE: b"0" * 5_000_000}))
    # "ten bytes" in the file's own head and in the list of files
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", bomb, bomb.index(mark) + place, 10)
    tracemalloc.start()
    [refused] = walk(tmp_path, bytes(bomb))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "cannot be unpacked" in refused.reason and peak < 2_000_000


@pytest.mark.parametrize(
    ("bounds", "reason"), [({"member_bytes": 1_000}, "is larger than 1,000 bytes"), ({"total_bytes": 1_000}, "makes the zip larger than 1,000 bytes")]
)
def test_what_really_comes_out_is_bounded_whatever_was_declared(tmp_path, monkeypatch, bounds, reason):
    body = zip_of({ZONE_FILE: "0"})
    # Python's zipfile hands out no more than was declared; should it ever, the bounds hold all the same
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info: io.BytesIO(b"0" * 5_000))
    [refused] = walk(tmp_path, body, **bounds)
    assert reason in refused.reason


def test_files_that_share_their_bytes_are_counted_each(tmp_path):
    """A list of files may name the same packed bytes many times: a small zip then unpacks to any size."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ZONE_FILE, b"0" * 900_000)
        first = archive.infolist()[0]
        for number in range(20):
            twin = zipfile.ZipInfo(f"{CAMERA}/{DAY}/{number:032x}.csv")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "flag_bits"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
    found = walk(tmp_path, held.getvalue(), total_bytes=5_000_000)
    reasons = {one.reason for one in found if isinstance(one, Refused)}
    # their own heads have another name: Python refuses those; what passes is bounded by the whole
    assert reasons and all("unpacked" in reason or "larger" in reason for reason in reasons)
    assert sum(not isinstance(one, Refused) for one in found) <= 5


def test_a_list_of_files_that_only_zip64_knows_is_bounded_as_well(tmp_path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(ZONE_FILE, LINES)
    body = held.getvalue()
    end = body.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    [refused] = walk(tmp_path, body[:end] + record + locator + body[end:])
    assert refused.reason == "The zip has a list of files that is too long"


def test_a_zip_in_a_zip_in_a_zip_is_refused(tmp_path):
    deepest = zip_of({f"{dashes(NB)}.csv": LINES})
    [refused] = walk(tmp_path, zip_of({f"{CAMERA}/{DAY}.zip": zip_of({"more.zip": deepest})}))
    assert "zip in a zip in a zip" in refused.reason


def test_an_inner_zip_that_is_broken_stops_no_other(tmp_path):
    other = CAMERA.replace("AA", "BB")
    body = zip_of({f"{CAMERA}/{DAY}.zip": b"PK, but no more", f"{other}/{DAY}.zip": zip_of({f"{dashes(SB)}.csv": LINES})})
    refused, zone = walk(tmp_path, body)
    assert "no zip, or not a whole one" in refused.reason and zone[0] == dashes(SB)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packers_whose_output_has_no_bound_are_not_opened(tmp_path, packing):
    [refused] = walk(tmp_path, zip_of({ZONE_FILE: LINES}, packing))
    assert "packed in a way" in refused.reason


def test_an_encrypted_file_is_refused(tmp_path):
    body = bytearray(zip_of({ZONE_FILE: LINES}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(mark) + place] |= 1
    [refused] = walk(tmp_path, bytes(body))
    assert refused.reason == "A file is encrypted"


def test_a_zone_that_a_zip_has_twice_counts_once(tmp_path):
    again = f"{CAMERA.replace('AA', 'BB')}/{DAY}/{dashes(NB).upper()}.csv"
    zone, refused = walk(tmp_path, zip_of({ZONE_FILE: LINES, again: LINES}))
    assert zone[0] == dashes(NB) and "twice" in refused.reason


def test_a_line_without_end_is_one_refusal_and_is_never_held(tmp_path):
    body = zip_of({ZONE_FILE: b"8" * 3_000_000 + b"\n" + LINES.encode()})
    tracemalloc.start()
    [(_, lines)] = walk(tmp_path, body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines[0] == (1, None) and [text for _, text in lines[1:]] == GOLDEN[NB] and peak < 1_000_000


def test_every_refused_file_is_counted_and_the_good_zones_become_documents(tmp_path):
    body = zip_of({
        "../evil.csv": "x", f"{CAMERA}/{DAY}/note.txt": "x",
        **{f"{CAMERA}/{DAY}/{dashes(zone)}.csv": text_of(GOLDEN[zone]) for zone in (NB, SB, EB)},
    })  # fmt: skip
    done = standardize(tmp_path, body)
    assert (done.tally.rows_in, done.tally.rows_out, done.tally.rejected) == (9, 7, 2)
    assert [made.ext for made in done.made] == [f"{dashes(zone)}.json" for zone in (NB, SB, EB)]
    assert {made.base for made in done.made} == {BASE}
