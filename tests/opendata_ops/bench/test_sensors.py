"""The sensors' line of the bench: the format itself walks the file, and a line that is lost is an error and no figure."""

from types import SimpleNamespace

import pytest

from opendata_ops.bench import bare, sensors
from opendata_ops.bench.findings import TOLD
from opendata_ops.bench.plan import Plan
from pipelines.errors import DataError


@pytest.fixture
def files(tmp_path):
    made = sensors.Files(tmp_path, 60)
    sensors.write_day(made.raw, made.lines)
    return made


def test_every_line_of_the_day_is_published(files):
    assert files.ready(files.standardize()).table_rows == sensors.read(files.raw) == 60


def test_a_lost_line_ends_the_measurement(files):
    files.raw.write_bytes(files.raw.read_bytes() + b"\0\n")
    with pytest.raises(DataError, match="60 rows were made of 60 lines, and 1 refused"):
        files.standardize()


def test_a_ratio_a_pace_and_the_growth_of_memory_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "in_a_process", lambda work: work())
    monkeypatch.setattr(sensors, "grown", lambda work: float(bool(work())))
    ratio, pace, memory = sensors.bluetooth(SimpleNamespace(folder=tmp_path, meter=None), Plan(pairs=1, rows=400))
    assert ratio.figure > 0 and ratio.target == 0.25 and ratio.baseline == "csv.reader alone"
    assert pace.figure > 0 and pace.state == TOLD
    assert (memory.figure, memory.unit, memory.target, memory.at_least) == (0, "MB", sensors.MOST_MB, False)
    assert list(tmp_path.iterdir()) == []
