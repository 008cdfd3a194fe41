"""The warehouse: the only SQL on city data."""
