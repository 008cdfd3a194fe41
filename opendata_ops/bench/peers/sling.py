"""sling: one CSV of all rows over HTTP into a table; its start is in its time, for it is a program and not a library."""

import os
import subprocess
import sys

from clocked import argument, clock
from sling_linux_amd64 import SLING_BIN

asked = argument()
environment = os.environ | {"PG_BENCH": asked["dsn"].replace("postgres://", "postgresql://") + "?sslmode=disable"}
command = [
    SLING_BIN, "run",
    "--src-stream", f"{asked['url']}.csv?$limit={asked['rows']}",
    "--tgt-conn", "PG_BENCH",
    "--tgt-object", f"{asked['schema']}.{asked['table']}",
    "--mode", "full-refresh",
    "--primary-key", "srnumber",
]  # fmt: skip
with clock():
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stdout + done.stderr)
