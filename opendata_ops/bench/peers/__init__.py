"""Other loaders, each in its best known way, in a scratch environment under var/bench that is made when it is first needed.

Their files here are scripts for that environment's Python: they are never imported, and nothing of theirs comes into `.venv`.
A script takes one JSON argument (address, dsn, table, rows, folder) and ends with a JSON line: seconds and CPU without its imports.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendata_ops.bench.ground import Ground
from opendata_ops.bench.meter import Cost, measured
from pipelines.errors import DataError, SetupError

#: The versions that were measured; others would be other figures.
REQUIREMENTS = (
    "dlt[postgres]==1.31.0",
    "pyarrow==26.0.1",
    "adbc-driver-postgresql==1.13.0",
    "adbc-driver-manager==1.13.0",
    "sling-linux-amd64==1.4.11",  # the package `sling` itself fetches its program from GitHub at the first run
    "tabulator==1.53.5",
    "chardet==5.2.0",
    "psycopg2-binary==2.9.13",
    "requests",
)
#: A peer that takes longer than this for one load is stopped.
PATIENCE_SECONDS = 1_200


@dataclass(frozen=True)
class Peer:
    """Another loader: its script, how it is named in the table, and how many times faster ours is to be."""

    script: str
    title: str
    target: float
    schema: str = "public"


PEERS = (
    Peer("dlt_arrow", "dlt, Arrow → parquet → ADBC, upsert", 1.5, schema="dlt_arrow"),
    Peer("sling", "sling, CSV over HTTP", 3),
    Peer("xloader", "ckanext-xloader's steps", 3),
    Peer("prefect_poc", "311-data's prefect-poc steps", 3),
)
#: So slow that it gets fewer rows, and ours as few beside it.
SLOW = Peer("dlt_rest", "dlt, rest_api source", 15, schema="dlt_rest")


def environment(folder: Path) -> Path:
    """The Python of the scratch environment, made where it is missing. Raises SetupError with what pip said."""
    venv = folder / "venv"
    python, stamp = venv / "bin" / "python", venv / "odo-bench.txt"
    wanted = "\n".join(REQUIREMENTS)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True)
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", *REQUIREMENTS]
    made = subprocess.run(pip, check=False, capture_output=True, text=True)
    if made.returncode:
        raise SetupError(f"the other loaders could not be installed: {' '.join(made.stderr.split()[-40:])}", code="bench-peers")
    stamp.write_text(wanted)
    return python


def load(ground: Ground, python: Path, peer: Peer, url: str, table: str, number: int) -> Cost:
    """One load by a peer, from `url` into `table`; the clock is the peer's own, without its imports."""
    scratch = ground.folder / f"peer-{os.getpid()}-{peer.script}"
    scratch.mkdir(exist_ok=True)
    argument = {"url": url, "dsn": ground.dsn, "schema": peer.schema, "table": table, "rows": number, "folder": str(scratch)}
    ground.settle()
    before = ground.wal()
    with measured(ground.meter) as cost:
        said = _run([str(python), str(Path(__file__).with_name(f"{peer.script}.py")), json.dumps(argument)], scratch)
    cost.wal = ground.wal() - before
    cost.details = {"seconds_with_start": cost.seconds}
    cost.seconds, cost.client, cost.peak_mb = said["seconds"], said["cpu"], said["peak_mb"]
    return cost


def forget(ground: Ground, peer: Peer) -> None:
    """Remove what a peer keeps between its loads."""
    shutil.rmtree(ground.folder / f"peer-{os.getpid()}-{peer.script}", ignore_errors=True)


def _run(command: Sequence[str], scratch: Path) -> dict[str, Any]:
    # homes and settings of their own: what a person configured for these tools is not to decide
    clean = {
        "PATH": f"{Path(command[0]).parent}:/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "SLING_DISABLE_TELEMETRY": "true",
    }
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=clean, cwd=scratch, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{Path(command[1]).stem} took longer than {PATIENCE_SECONDS} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        raise DataError(f"{Path(command[1]).stem} failed: {' '.join((done.stderr or done.stdout).split()[-40:])}")
    return json.loads(lines[-1])
