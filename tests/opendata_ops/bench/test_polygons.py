"""The polygons' line of the bench: both sides answer the same, and the made layers leave no gap."""

from types import SimpleNamespace

import numpy as np
import pytest
import shapely

from opendata_ops.bench import polygons
from opendata_ops.bench.findings import MET, MISSED
from opendata_ops.bench.plan import Plan
from pipelines.errors import DataError


@pytest.fixture(scope="module")
def tracts() -> polygons.Ready:
    return polygons._ready("tracts", polygons._geojson(40, 30))


def test_the_made_areas_meet_without_gap_or_fold(tracts):
    geometries = tracts.areas.geometries
    assert len(geometries) == 40 and not tracts.areas.repaired
    assert shapely.area(geometries).sum() == pytest.approx(shapely.area(shapely.union_all(geometries)), rel=1e-4)
    assert 20 < shapely.get_num_coordinates(geometries).mean() < 45


def test_the_peer_and_ours_answer_the_same(tracts):
    lon, lat = polygons.points(500)
    ours = tracts.areas.index(lon, lat)
    assert list(ours) == list(polygons.Peer(tracts).index(lon, lat))
    assert (ours < 40).mean() > 0.9


def test_two_sides_that_differ_are_an_error_and_no_figure(tracts, monkeypatch, tmp_path):
    monkeypatch.setattr(polygons.Peer, "index", lambda self, lon, lat: np.zeros(len(lon), dtype=int))
    with pytest.raises(DataError, match="points differ, the first at"):
        list(polygons._one_layer(SimpleNamespace(meter=None), Plan(pairs=1), tracts, 100, 100))


def test_a_small_bench_gives_a_line_a_figure_and_sweeps_its_files(tracts, monkeypatch, tmp_path):
    monkeypatch.setattr(polygons, "made_layers", lambda: iter([tracts]))
    told = list(polygons.point_in_polygon(SimpleNamespace(meter=None, folder=tmp_path), Plan(pairs=1, rows=200)))
    # whether a target is met is no matter of a test: the machine may be busy
    assert [line.state in (MET, MISSED) for line in told] == [True, True, True] and all(line.figure > 0 for line in told)
    assert list(tmp_path.iterdir()) == []
