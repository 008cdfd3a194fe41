"""What the pages about pipelines print: frozen dataclasses, each from a fixed number of queries."""
