"""`python -m opendata_ops.sandbox`: the practice city, until Ctrl-C or SIGTERM.

Prints one line a server when it listens (`ready source http://127.0.0.1:PORT`), then serves.
"""

from __future__ import annotations

import argparse
import signal
import threading

from .city import City


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m opendata_ops.sandbox", description="Serve the practice city on this machine.")
    parser.add_argument("--port", type=int, default=0, help="the source's port; the others take the next ones (0: free ones)")
    parser.add_argument("--state", metavar="FOLDER", help="keep what is published to the portal in this folder")
    parser.add_argument("--sensors", metavar="FOLDER", help="have traffic sensors, too, whose files lie in this folder")
    parser.add_argument("--alive", action="store_true", help="let the source change a little every minute")
    asked = parser.parse_args()
    stopping = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopping.set())
    with City(port=asked.port, state=asked.state, sensors=asked.sensors, pulse=60.0 if asked.alive else 0.0) as city:
        for name, server in city.servers.items():
            print(f"ready {name} {server.url}", flush=True)
        stopping.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
