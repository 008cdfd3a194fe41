"""A small city of squares, as the GeoJSON that a steward would upload."""

import json


def square(name, west: float, south: float, size: float = 1, **more) -> dict:
    """A feature: a square with the property `name`, its corner at `west`, `south` in degrees."""
    ring = [[west, south], [west + size, south], [west + size, south + size], [west, south + size], [west, south]]
    return {"type": "Feature", "properties": {"name": name, **more}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def collection(*features: dict, **more) -> bytes:
    return json.dumps({"type": "FeatureCollection", **more, "features": features}).encode()
