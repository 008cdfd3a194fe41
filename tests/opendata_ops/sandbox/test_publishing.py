"""Publishing: what an upsert counts, what it keeps, and who may."""

import json
from base64 import b64encode

import pytest

from opendata_ops.sandbox import Dataset, Portal
from opendata_ops.sandbox.tables import utc_text

from .conftest import COLUMNS, Client, small_rows

PATH = "/resource/abcd-1234.json"


def told(created=0, updated=0, deleted=0, errors=0, by_key=0, by_sid=0):
    return {
        "Rows Created": created,
        "Rows Updated": updated,
        "Rows Deleted": deleted,
        "Errors": errors,
        "By RowIdentifier": by_key,
        "By SID": by_sid,
    }


def test_an_upsert_creates_updates_and_deletes_by_the_key(ask, portal):
    sent = [{"srnumber": "new", "nc": 5}, {"srnumber": "1-1000", "status": "Cancelled"}, {"srnumber": "1-1001", ":deleted": True}]
    assert ask.json(PATH, "POST", sent) == told(created=1, updated=1, deleted=1, by_key=2)
    rows = portal.dataset("abcd-1234").rows
    assert len(rows) == 100 and "1-1001" not in rows
    assert rows["new"]["nc"] == "5" and rows["1-1000"]["status"] == "Cancelled"


def test_a_field_left_out_keeps_its_value_and_a_null_clears_it(ask, portal):
    ask.json(PATH, "POST", [{"srnumber": "1-1000", "status": None}])
    row = portal.dataset("abcd-1234").rows["1-1000"]
    assert row["status"] is None and row["nc"] == "0"


def test_the_same_upsert_twice_leaves_the_same_rows(ask, portal):
    sent = small_rows(10)
    ask.json(PATH, "POST", sent)
    before = portal.dataset("abcd-1234").rows
    assert ask.json(PATH, "POST", sent) == told(updated=10, by_key=10)
    assert portal.dataset("abcd-1234").rows == before


def test_two_rows_of_one_key_in_one_batch_make_one_row(ask, portal):
    assert ask.json(PATH, "POST", [{"srnumber": "x", "nc": 1}, {"srnumber": "x", "nc": 2}]) == told(created=1, updated=1, by_key=1)
    assert portal.dataset("abcd-1234").rows["x"]["nc"] == "2"


def test_without_a_row_identifier_every_upsert_appends(ask, portal):
    assert ask.json("/resource/free-0000.json", "POST", small_rows(3)) == told(created=3)
    assert len(portal.dataset("free-0000").rows) == 6


def test_a_row_may_be_named_by_its_system_id(ask, portal):
    [row] = ask.json("/resource/free-0000.json", S_select=":id,srnumber", S_order=":id", S_limit=1)
    assert ask.json("/resource/free-0000.json", "POST", [{":id": row[":id"], "status": "Merged"}]) == told(updated=1, by_sid=1)
    assert ask.json("/resource/free-0000.json", "POST", [{":id": row[":id"], ":deleted": True}]) == told(deleted=1, by_sid=1)
    assert len(portal.dataset("free-0000").rows) == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"srnumber": "n", "nc": "many"},
        {"srnumber": "n", "updateddate": "2026-02-30"},
        {"srnumber": "n", "verified": "perhaps"},
        {"srnumber": "n", "location": "here"},
        {"nc": 1},
        {"srnumber": "absent", ":deleted": True},
        {":id": "row-none~0000.0000", "nc": 1},
    ],
)
def test_a_row_that_does_not_fit_is_counted_in_errors_and_the_rest_goes_in(ask, portal, bad):
    assert ask.json(PATH, "POST", [bad, {"srnumber": "good"}]) == told(created=1, errors=1)
    assert set(portal.dataset("abcd-1234").rows) - {f"1-{1000 + i}" for i in range(100)} == {"good"}
    assert portal.dataset("abcd-1234").refusals[0].startswith("row 1: ")


def test_an_unknown_field_refuses_the_whole_batch(ask, portal):
    before = portal.dataset("abcd-1234").rows
    status, _, body = ask(PATH, "POST", [{"srnumber": "a"}, {"srnumber": "b", "colour": "red"}])
    assert (status, json.loads(body)["message"]) == (400, "Illegal field name sent: colour")
    assert portal.dataset("abcd-1234").rows == before


@pytest.mark.parametrize("body", ["[{", '"text"', "[1]"])
def test_a_body_that_is_no_rows_is_refused(ask, body):
    assert ask(PATH, "POST", body)[0] == 400


def test_a_replace_drops_every_other_row(ask, portal):
    assert ask.json(PATH, "PUT", small_rows(4)) == told(created=4)
    assert len(portal.dataset("abcd-1234").rows) == 4
    assert ask.json(PATH, S_select="count(*)") == [{"count": "4"}]


def test_csv_upserts_with_field_names_or_display_names(ask, portal):
    text = 'SRNumber,status,nc,location,:deleted\nnew,"Open, really",7,POINT (-118.5 34.1),\n1-1000,,,,true\n'
    assert ask.json(PATH, "POST", text, {"Content-Type": "text/csv"}) == told(created=1, deleted=1, by_key=1)
    assert portal.dataset("abcd-1234").rows["new"]["location"] == {"type": "Point", "coordinates": [-118.5, 34.1]}


def test_one_row_is_deleted_by_its_address_and_never_the_dataset(ask, portal):
    assert ask.json("/resource/abcd-1234/1-1005.json", "DELETE") == [{"typ": "delete", "id": "1-1005"}]
    assert "1-1005" not in portal.dataset("abcd-1234").rows
    assert ask("/api/views/abcd-1234", "DELETE")[0] == 403
    assert ask("/resource/abcd-1234.json", "DELETE")[0] == 405
    assert len(portal.dataset("abcd-1234").rows) == 99


def test_a_publish_moves_the_time_of_the_rows_even_within_one_second(ask, portal):
    times = []
    for _ in range(3):
        ask.json(PATH, "POST", [{"srnumber": "1-1000", "status": "Open"}])
        times.append(ask.json("/api/views/abcd-1234.json")["rowsUpdatedAt"])
    assert times[0] < times[1] < times[2]


def test_only_changed_rows_get_a_new_system_time(ask, portal):
    portal.dataset("abcd-1234").clock = lambda: 4_000_000_000.0
    ask.json(PATH, "POST", [{"srnumber": "1-1000", "status": "Open"}])
    assert [row["srnumber"] for row in ask.json(PATH, S_where=":updated_at > '2090-01-01'")] == ["1-1000"]


def test_whoever_reads_from_the_last_change_on_misses_no_row_even_within_one_second(ask, portal):
    dataset = portal.dataset("abcd-1234")
    dataset.clock = lambda: 4_000_000_000.2
    for name in ("1-1000", "1-1001", "1-1002"):
        before = ask.json("/api/views/abcd-1234.json")["rowsUpdatedAt"]
        ask.json(PATH, "POST", [{"srnumber": name, "status": "Open"}])
        assert [row["srnumber"] for row in ask.json(PATH, S_where=f":updated_at > '{utc_text(before + 0.2)}'")] == [name]
    assert len(ask.json(PATH, S_where=f":updated_at >= '{utc_text(dataset.created_at)}'")) == 100


def test_a_portal_with_accounts_lets_only_publishers_write():
    def basic(pair):
        return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}

    with Portal(Dataset("abcd-1234", "", COLUMNS, key="srnumber"), accounts={"pub": "right"}, viewers={"eye": "sees"}) as portal:
        ask = Client(portal)
        rows = small_rows(2)
        assert ask(PATH, "POST", rows)[0] == 403
        assert ask(PATH, "POST", rows, basic("pub:wrong"))[0] == 401
        status, _, body = ask(PATH, "POST", rows, basic("eye:sees"))
        assert (status, json.loads(body)["code"]) == (403, "permission_denied")
        assert len(portal.dataset("abcd-1234").rows) == 0
        assert ask(PATH, "POST", rows, basic("pub:right"))[0] == 200
        assert ask(PATH)[0] == 200


def test_published_rows_survive_a_restart(tmp_path):
    def open_portal():
        return Portal(Dataset("abcd-1234", "", COLUMNS, key="srnumber"), state=tmp_path / "state")

    with open_portal() as first:
        Client(first).json(PATH, "POST", small_rows(50))
        rows, moment = first.dataset("abcd-1234").rows, first.dataset("abcd-1234").rows_updated_at
    with open_portal() as second:
        assert second.dataset("abcd-1234").rows == rows
        assert second.dataset("abcd-1234").rows_updated_at == moment
        assert Client(second).json(PATH, "POST", small_rows(51)) == told(created=1, updated=50, by_key=50)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["abcd-1234.jsonl"]


def test_rows_of_another_shape_are_not_restored(tmp_path):
    with Portal(Dataset("abcd-1234", "", COLUMNS, small_rows(2), key="srnumber"), state=tmp_path):
        pass
    with pytest.raises(ValueError, match="stored rows are of abcd-1234 with columns"):
        Portal(Dataset("abcd-1234", "", ["id"]), state=tmp_path)


def test_an_edit_changes_exactly_its_share_and_can_be_repeated():
    def edited():
        portal = Portal(Dataset("abcd-1234", "", COLUMNS, small_rows(), key="srnumber"))
        before = portal.dataset("abcd-1234").rows
        names = portal.edit("abcd-1234", fraction=0.05, seed=3, add=2)
        return before, portal.dataset("abcd-1234").rows, names

    before, after, names = edited()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == set(names["edited"]) and len(changed) == 5
    assert set(after) - set(before) == set(names["added"]) and len(names["added"]) == 2
    assert all(after[key]["status"] != before[key]["status"] and after[key]["updateddate"] > before[key]["updateddate"] for key in changed)
    assert edited()[2] == names


def test_columns_can_be_added_removed_and_retyped(ask, portal):
    portal.alter("abcd-1234", add={"priority": "number"}, remove=["address"], retype={"nc": "text", "status": "number"})
    told_columns = {column["fieldName"]: column["dataTypeName"] for column in ask.json("/api/views/abcd-1234.json")["columns"]}
    assert told_columns["priority"] == "number" and told_columns["nc"] == "text" and "address" not in told_columns
    row = portal.dataset("abcd-1234").rows["1-1001"]
    assert row["priority"] is None and row["nc"] == "1" and row["status"] is None
    with pytest.raises(ValueError, match="cannot change srnumber"):
        portal.alter("abcd-1234", remove=["srnumber"])
