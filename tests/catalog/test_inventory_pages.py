"""The inventory as people see it: editions, devices, a map, an upload that is shown before it is stored."""

import pytest

from catalog import boundaries, maps
from tests.catalog.squares import collection, square

# the picture


def test_points_lie_in_the_picture_as_on_the_ground_with_a_margin_and_the_areas_beneath():
    under = boundaries.parse(collection(square("a", -98, 30)), "name")
    points = [("sw", "South west", -97.8, 30.2), ("ne", "North east", -97.7, 30.3)]
    drawn = maps.draw_spots(points, under)
    [low, high] = drawn.spots
    assert (low.key, low.label, high.key) == ("sw", "South west", "ne")
    assert 0 < low.x < high.x < drawn.width and 0 < high.y < low.y < drawn.height
    # a degree of longitude is 0.864 as long as one of latitude there
    assert (high.x - low.x) / (low.y - high.y) == pytest.approx(0.8637, rel=0.001)
    assert drawn.outline.startswith("M")


def test_one_point_is_a_map_and_no_point_is_none_and_a_line_of_them_is_no_strip():
    assert maps.draw_spots([]) is None
    one = maps.draw_spots([("a", "", -97.7, 30.2)])
    assert one.width == one.height == 7200 and (one.spots[0].x, one.spots[0].y) == (3600, 3600)
    row = maps.draw_spots([(str(n), "", -97.7 + n / 10, 30.2) for n in range(5)])
    assert row.width == 7200 and row.height >= 0.4 * 7200
