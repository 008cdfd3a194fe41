"""The practice city is tested as its clients see it: over a socket, and byte by byte where the bytes are the point."""
