"""The bench's rows: the same everywhere, rendered once, found by their index."""

import csv
import io
import json

import pytest

from opendata_ops.bench import rows


def content_of(rendered: rows.Rendered, offset: int, limit: int) -> bytes:
    first, size = rendered.span(offset, limit)
    return rendered.path.read_bytes()[first : first + size]


def test_a_row_is_the_same_in_every_file_that_holds_it(tmp_path):
    short = rows.render(tmp_path, rows.Content("base", 40), "csv")
    begun = short.path.read_bytes()
    grown = rows.render(tmp_path, rows.Content("base", 100), "csv")
    at_once = rows.render(tmp_path / "other", rows.Content("base", 100), "csv")
    assert grown.path == short.path and grown.path.read_bytes().startswith(begun)
    assert grown.path.read_bytes() == at_once.path.read_bytes()
    # the shorter content still ends where it did
    assert content_of(rows.Rendered(grown.path, short.content), 0, 1000) == begun


def test_csv_and_json_hold_the_same_cells(tmp_path):
    content = rows.Content("base", 500)
    as_csv, as_json = (rows.render(tmp_path, content, form) for form in ("csv", "json"))
    cells = list(csv.reader(io.StringIO(content_of(as_csv, 0, 500).decode(), newline="")))
    objects = json.loads(b"[" + content_of(as_json, 0, 500) + b"]")
    assert len(cells) == len(objects) == 500
    for line, told in zip(cells, objects, strict=True):
        told["location"] = "POINT ({} {})".format(*told["location"]["coordinates"])
        assert [told.get(name, "") for name in rows.NAMES] == line


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(("offset", "limit"), [(0, 1), (0, 7), (13, 10), (95, 50), (100, 10), (200, 1)])
def test_a_slice_is_what_slicing_the_rows_gives(tmp_path, form, offset, limit):
    rendered = rows.render(tmp_path, rows.Content("base", 100), form)
    write = {"csv": rows.as_csv, "json": rows.as_json}[form]
    wanted = "".join(write(rows.row(number)) for number in range(100)[offset : offset + limit])
    assert content_of(rendered, offset, limit).decode() == (wanted.removesuffix(",\n") if form == "json" else wanted)


def test_the_snapshot_is_the_base_with_the_changes_in_it(tmp_path):
    number = 1_000
    held = {}
    for kind in ("base", "delta", "snap"):
        content = rows.Content(kind, number)
        text = content_of(rows.render(tmp_path, content, "csv"), 0, content.count).decode()
        lines = list(csv.reader(io.StringIO(text, newline="")))
        held[kind] = {line[0]: line for line in lines}
        assert len(lines) == len(held[kind]) == content.count
    assert held["base"] | held["delta"] == held["snap"]
    assert len(held["delta"]) == number * 5 // 100
    assert not any(held["base"].get(key) == line for key, line in held["delta"].items()), "a changed row that is not changed"


def test_only_what_changed_is_as_new_as_the_watermark():
    place = rows.NAMES.index("updateddate")
    base = [rows.row(number)[place] for number in range(0, 300_000, 7)]
    assert max(base) == base[0] == rows.NEWEST
    # the overlap of a day reaches none of the others
    assert sorted(base)[-2] < "2021-01-14"
    assert all(rows.row(number, changed=True)[place] > rows.NEWEST for number in range(0, 300_000, rows.CHANGED_EVERY))


def test_a_file_that_was_cut_off_is_finished(tmp_path):
    whole = rows.render(tmp_path, rows.Content("base", 60), "csv")
    wanted = whole.path.read_bytes()
    # a bench that was killed: rows without an index, and half a row
    index = rows.index_of(whole.path)
    index.write_bytes(index.read_bytes()[: 8 * 31])
    whole.path.write_bytes(wanted[:-20])
    again = rows.render(tmp_path, rows.Content("base", 60), "csv")
    assert again.path.read_bytes() == wanted
