"""The README's first command, as a newcomer meets it: `demo` in a folder of its own, ended by Ctrl-C, and started again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError, call_command

from opendata_ops import bootstrap, database, supervisor


@pytest.fixture
def checkout():
    """A copy of the project, with nothing made in it yet, at a place where every user may pass."""
    folder = Path(tempfile.mkdtemp(prefix="odo demo ", dir="/tmp"))
    folder.chmod(0o755)
    project = folder / "checkout"
    not_ours = shutil.ignore_patterns(".git", ".venv", "var", ".env", "__pycache__", ".*_cache", "tests")
    shutil.copytree(bootstrap.PROJECT, project, ignore=not_ours)
    yield project
    for process in running_in(project):
        process.kill()
    shutil.rmtree(folder)


def environment() -> dict[str, str]:
    """Of a person who has set nothing: neither this test run's database nor its lake."""
    tests_own = ("DATABASE_URL", "LAKE_URL", "DJANGO_SETTINGS_MODULE")
    return {name: value for name, value in os.environ.items() if name not in tests_own} | {"ODO_NO_BOOTSTRAP": "1"}


def manage(project: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(project / "manage.py"), *words]
    return subprocess.run(command, cwd="/", env=environment(), capture_output=True, text=True, timeout=120)


def running_in(project: Path) -> list[psutil.Process]:
    """Every living process whose command line or folder is of this checkout."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                any(str(project) in word for word in process.cmdline()) or process.cwd().startswith(str(project))
            ):
                found.append(process)
        except psutil.Error:
            pass
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Demo:
    """`manage.py demo` as a process, in a process group of its own like one that a terminal starts."""

    def __init__(self, project: Path, *words: str):
        self.port = free_port()
        self.told = project.parent / "told"
        with self.told.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(project / "manage.py"), "demo", "--port", str(self.port), *words],
                cwd="/", env=environment(), stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def is_up(self) -> bool:
        """Wait for the lines that it prints when all is up, or for its end."""
        deadline = time.monotonic() + 180
        while self.process.poll() is None and time.monotonic() < deadline:
            if "Ctrl-C" in self.told.read_text():
                return True
            time.sleep(0.05)
        return False

    def press_ctrl_c(self) -> int:
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=60)


@pytest.mark.slow
def test_demo_comes_up_from_nothing_ends_without_a_trace_and_resumes(checkout):
    demo = Demo(checkout, "--no-run")
    assert demo.is_up(), demo.told.read_text()
    told = demo.told.read_text()
    assert f"http://127.0.0.1:{demo.port}" in told
    assert [role for role in ("viewer", "operator", "steward") if f"    {role} " not in told] == []
    assert "Traceback" not in told
    with urllib.request.urlopen(f"http://127.0.0.1:{demo.port}/healthz", timeout=10) as answer:
        assert answer.status == 200

    # another terminal
    seen = json.loads(manage(checkout, "status", "--json").stdout)
    assert "blocks" in seen
    refused = manage(checkout, "up", "--port", str(free_port()))
    assert refused.returncode == 2
    assert "already runs from this folder" in refused.stderr

    assert demo.press_ctrl_c() == 0
    assert running_in(checkout) == []

    again = Demo(checkout, "--no-run")
    assert again.is_up(), again.told.read_text()
    assert again.told.read_text().replace(str(again.port), "PORT") == told.replace(str(demo.port), "PORT")
    again.process.kill()  # a crash this time: the database lives on, nothing else does
    again.process.wait()
    deadline = time.monotonic() + 20
    while (
        len(left := [process.info["name"] for process in running_in(checkout) if "postgres" not in process.info["name"]])
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert left == []

    refused = manage(checkout, "up", "--host", "0.0.0.0", "--port", str(free_port()))
    assert refused.returncode == 2
    assert "passwords are public" in refused.stderr
    assert running_in(checkout) == [], "the last one to leave stopped the database that the crash had left"


@pytest.mark.parametrize("command, practice", [("demo", True), ("up", False)])
def test_what_was_asked_reaches_the_supervisor(command, practice, monkeypatch):
    asked = []
    monkeypatch.setattr(supervisor, "serve", lambda options, announce: asked.append(options) or 0)
    call_command(command, "--port", "8123", "--workers", "3")
    assert asked == [supervisor.Options(port=8123, workers=3, practice=practice)]


@pytest.mark.parametrize("refusal", [supervisor.CannotStart("Port 8000 is taken."), database.DatabaseUnavailable("PostgreSQL does not start.")])
def test_a_refusal_is_one_sentence_and_exit_code_2(refusal, monkeypatch):
    def refuse(options, announce):
        raise refusal

    monkeypatch.setattr(supervisor, "serve", refuse)
    with pytest.raises(CommandError, match=str(refusal)) as caught:
        call_command("up")
    assert caught.value.returncode == 2


def test_no_workers_at_all_is_refused():
    with pytest.raises(CommandError, match="--workers must be 1 or more"):
        call_command("demo", "--workers", "0")
