"""The columns of a trip, whatever version of MDS told it: what a connector promises, the format writes and the table holds."""

#: The internal trip. Times are UTC in whole seconds, lengths in metres and seconds, money in the currency's smallest unit.
TRIP_COLUMNS = (
    ("provider_id", "text"),
    ("provider_name", "text"),
    ("trip_id", "text"),
    ("device_id", "text"),
    ("vehicle_id", "text"),
    ("vehicle_type", "text"),
    ("propulsion", "text"),
    ("start_time", "instant"),
    ("end_time", "instant"),
    ("start_lon", "number"),
    ("start_lat", "number"),
    ("end_lon", "number"),
    ("end_lat", "number"),
    ("duration_s", "number"),
    ("distance_m", "number"),
    ("accuracy_m", "number"),
    ("cost_standard", "number"),
    ("cost_actual", "number"),
    ("currency", "text"),
    ("published_at", "instant"),
    ("parking", "text"),
    ("trip_type", "text"),
)
