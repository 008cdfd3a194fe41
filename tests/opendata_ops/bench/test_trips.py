"""The trips' line of the bench: the real stages' own functions walk every page, and a trip that is lost is an error and no figure."""

import shutil
from types import SimpleNamespace

import pytest

from opendata_ops.bench import polygons, trips
from pipelines.errors import DataError
from pipelines.formats.mds_trips import TripReader


@pytest.fixture
def pages(tmp_path):
    return list(trips._pages(tmp_path, 25))


def test_every_trip_of_the_pages_is_one_that_no_reader_refuses_or_minds(pages, tmp_path):
    reader = TripReader(trips.Terms(version=trips.VERSION))
    assert [list(reader.convert(page, tmp_path / "out.csv", {"version": trips.VERSION})) for page in pages] == [[]]
    assert (reader.tally.rows_out, dict(reader.tally.flags), dict(reader.tally.warnings)) == (25, {}, {})


def test_a_refused_trip_ends_the_line(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(polygons, "made_layers", lambda: iter(()))
    pages[0].write_text(pages[0].read_text().replace('"trip_id"', '"trip"', 1))
    with pytest.raises(DataError, match="a trip was refused"):
        trips._walk(SimpleNamespace(dsn=""), pages, [], None)
    shutil.rmtree(tmp_path)
