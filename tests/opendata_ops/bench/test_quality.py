"""The line of the bench for measuring: both sides count the same of the same rows, or there is no figure."""

import pytest

from opendata_ops.bench import quality, rows
from pipelines.errors import DataError


@pytest.fixture
def page(tmp_path):
    return quality._page(tmp_path / "quality", 300)


def test_a_page_counts_as_pandas_counts_it(page):
    count = quality.measure.Count(rows.NAMES)
    count.add(page)
    ours = {column.name: (column.missing, column.is_constant) for column in count.measured({}).cells.columns}
    assert count.rows == 300
    quality.same(ours, quality.of_frame(page))


def test_a_count_that_differs_ends_the_measurement(page):
    theirs = quality.of_frame(page)
    with pytest.raises(DataError, match="column status: None were counted"):
        quality.same({name: found for name, found in theirs.items() if name != "status"}, theirs)


def test_every_page_is_counted(page):
    assert quality.count_pages(page, 3) == 900
