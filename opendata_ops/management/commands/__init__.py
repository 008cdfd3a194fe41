"""One file a command; what they do is in opendata_ops/supervisor.py."""
