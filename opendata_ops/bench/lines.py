"""The lines of the bench by their names, in the order in which they are measured (the targets are those of issues 3 §3, 4 §3 and 5 §4)."""

from collections.abc import Callable, Iterator

from opendata_ops.bench import changes, first, maria, others, polygons, quality, sensors, steady, trips
from opendata_ops.bench.findings import Finding
from opendata_ops.bench.ground import Ground
from opendata_ops.bench.plan import Plan

GROUPS: dict[str, Callable[[Ground, Plan], Iterator[Finding]]] = {
    "first_load": first.first_load,
    "json": first.json_pages,
    "delta": changes.delta,
    "snapshot": changes.snapshot,
    "peers": others.first_loads,
    "peers_slow": others.slow_first_load,
    "peers_delta": others.dlt_changes,
    "mariadb": maria.first_load,
    "polygons": polygons.point_in_polygon,
    "trips": trips.trips,
    "sensors": sensors.bluetooth,
    "quality": quality.quality,
    "unchanged": steady.unchanged,
    "sizes": steady.sizes,
}
