"""A JSON object with one long list is walked item by item: the same answer in whatever pieces it comes, and a cut is never taken for an end."""

import json

import pytest

from pipelines.connectors import envelopes
from pipelines.errors import DataError, TransientError

TRIPS = [{"id": "a", "n": -12.5e3, "route": [{"x": ']}\\"é', "y": [1, 2, 30]}]}, 7, None, {"id": "zwölf"}]
PAGE = {"version": "1.2.0", "data": {"more": {"trips": [1]}, "trips": TRIPS}, "links": {"next": None}, "ttl": 123}


def walked(text: str, tmp_path, **more):
    path = tmp_path / "page.json"
    path.write_text(text)
    items = []
    return envelopes.read(path, "trips", items.append, **more), items


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_answer_does_not_depend_on_the_pieces_that_are_read(tmp_path, piece, indent):
    found, items = walked("\ufeff" + json.dumps(PAGE, indent=indent, ensure_ascii=False) + "\n", tmp_path, piece=piece)
    assert (items, found.items, found.place) == (TRIPS, 4, "data.trips")
    assert found.members == {"version": "1.2.0", "links": {"next": None}, "ttl": 123}


def test_a_list_at_the_top_an_empty_one_and_none_are_told_apart(tmp_path):
    assert walked('{"trips": [1, 2], "version": "2.0.0"}', tmp_path)[0] == envelopes.Envelope({"version": "2.0.0"}, 2, "trips")
    assert walked('{"data": {"trips": []}}', tmp_path)[0] == envelopes.Envelope({}, 0, "data.trips")
    for text in ('{"trips": null}', '{"data": {}}', '{"data": []}', "{}"):
        assert walked(text, tmp_path)[0].place == ""


@pytest.mark.parametrize("piece", [5, 1000])
def test_a_cut_at_any_place_is_seen(tmp_path, piece):
    text = json.dumps(PAGE)
    for end in range(1, len(text)):
        with pytest.raises(TransientError) as caught:
            walked(text[:end], tmp_path, piece=piece)
        assert caught.value.code == "cut-body", text[:end]


@pytest.mark.parametrize(
    "text", ['{"trips": [1 2]                    }', '{"a": nonsense ________________}', '{"trips": []} and more', '{"a" 1                 }']
)
def test_what_is_not_json_is_named(tmp_path, text):
    with pytest.raises(TransientError) as caught:
        walked(text, tmp_path)
    assert caught.value.code == "not-json"


def test_another_value_is_no_envelope(tmp_path):
    with pytest.raises(DataError) as caught:
        walked("[]", tmp_path)
    assert caught.value.code == "not-an-object"


def test_one_trip_at_a_time_is_in_memory(tmp_path):
    """An item that would not fit is refused; a file of many that do is not."""
    path = tmp_path / "page.json"
    path.write_text('{"trips": [' + ",".join(['"' + "x" * 1000 + '"'] * 2000) + "]}")
    walk = envelopes._Walk
    assert envelopes.read(path, "trips", piece=4096).items == 2000
    with path.open() as file:
        one = walk(file, path.name, 4096)
        list(zip(range(1), one.members(), strict=False))
        assert one.items(lambda item: None) == 2000
        assert len(one.text) < 3 * 4096
