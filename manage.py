#!/usr/bin/env python3
"""The one door: `python3 manage.py demo`, `up`, `test`, or any Django command, from a fresh clone onwards.

Needs Python 3.11 with venv, and git; it makes everything else itself. What it does is in opendata_ops/bootstrap.py.
"""

import os
import sys
from pathlib import Path

# Before anything else is imported: an older Python must meet this sentence, not a SyntaxError.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "Open Data Ops needs Python 3.11 or later; this is Python {}.{} ({}).\n"
        "Start it with a newer one, for example: python3.11 manage.py demo".format(*sys.version_info[:2], sys.executable)
    )
if os.name == "nt":
    sys.exit("Open Data Ops runs on Linux and macOS; on Windows, start it inside WSL.")

sys.path.insert(0, str(Path(__file__).resolve().parent))

if __name__ == "__main__":
    from opendata_ops import bootstrap

    sys.exit(bootstrap.main(sys.argv))
