"""`manage.py bench` as it is typed: a small one from end to end, in a database of its own that is gone afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from opendata_ops.bench import ground, rows
from opendata_ops.bench.meter import Meter


def bench(folder, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ODO_NO_BOOTSTRAP": "1"}
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "bench", "--folder", str(folder), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def databases() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("select datname from pg_database where datname like 'odo\\_bench\\_%'")
        return [name for (name,) in cursor.fetchall()]


@pytest.mark.django_db(transaction=True)
def test_a_small_bench_goes_through_the_real_path_and_leaves_nothing(tmp_path):
    before = databases()
    done = bench(tmp_path, "--quick", "--only", "first_load", "--rows", "2000", "--pairs", "1", "--json")
    # whether a target is met is no matter of a test: the machine may be busy
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert [line["state"] in ("met", "missed") for line in told["lines"]] == [True, True], told["lines"]
    [one, two] = told["lines"]
    assert one["figure"] > 0 and one["rows"] == 2000 and one["pairs"] == 1
    counts = one["details"]["ours"][0]["details"]["counts"]
    assert counts["extract"]["rows_out"] == counts["load"]["inserted"] == 2000
    assert told["machine"]["cores"] and "load_before" in told["noise"]
    assert "bare COPY" in done.stderr
    assert databases() == before
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["rows"]


def test_too_few_rows_are_refused_in_words(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call_command("bench", "--rows", "0", "--folder", str(tmp_path / "bench"))
    assert stopped.value.code == 2
    assert "--rows must be at least 100" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()


@pytest.mark.django_db(transaction=True)
def test_the_meter_counts_the_sessions_of_one_database():
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid(), current_database()")
        pid, name = cursor.fetchone()
        path = Path(f"/proc/{pid}/status")
        if not path.exists():
            pytest.skip("the database's processes are not to be seen from here")
        status = path.read_text()
        postmaster = int(status.partition("PPid:")[2].split()[0])
        mine, others = Meter(postmaster, name), Meter(postmaster, "no_such_database")
        try:
            mine.begin()
            others.begin()
            cursor.execute("select count(*) from generate_series(1, 3000000)")
            assert mine.end() > 0
            assert others.end() == 0
        finally:
            mine.close()
            others.close()


def test_what_killed_benches_left_is_swept_and_nothing_else(tmp_path):
    kept = {rows.folder(tmp_path).name, f"run-{os.getpid()}", "venv"}
    for name in (*kept, "rows-0ld", "run-4194305", "peer-4194305-sling"):
        (tmp_path / name / "inside").mkdir(parents=True)
    ground.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
