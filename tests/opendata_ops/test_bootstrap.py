"""A fresh clone and a bare Python become a running command; a second start finds everything made."""

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from opendata_ops import bootstrap

# A project as small as can be: our bootstrap, nothing to install, and a command that tells where it runs.
TELL_TALE = """
import sys
from opendata_ops import bootstrap
bootstrap.enter_environment(bootstrap.PROJECT, sys.argv, dev=False)
print(sys.prefix, *sys.argv[1:], sep="|")
"""


@pytest.fixture
def small_project(tmp_path):
    project = tmp_path / "My City's data"
    (project / "opendata_ops").mkdir(parents=True)
    (project / "opendata_ops" / "__init__.py").touch()
    shutil.copy(bootstrap.__file__, project / "opendata_ops")
    (project / "manage.py").write_text(TELL_TALE)
    (project / "requirements.txt").write_text("# nothing\n")
    return project


def bare_python() -> str:
    """The Python that this environment was made from."""
    return str(Path(sys._base_executable).resolve())


@pytest.fixture
def probe(small_project, tmp_path):
    """The project wants a package that no Python has; pip finds it in a folder, without a network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "odo_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("odo_probe.py", "")
        wheel.writestr("odo_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: odo-probe\nVersion: 1.0\n")
        wheel.writestr("odo_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("odo_probe-1.0.dist-info/RECORD", "")
    (small_project / "requirements.txt").write_text("odo-probe==1.0\n")
    return wheels


def launch(project: Path, *words: str, cwd: Path | None = None) -> subprocess.Popen:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ODO_NO_BOOTSTRAP")}
    env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project.parent / "wheels")}
    return subprocess.Popen(
        [bare_python(), str(project / "manage.py"), *words], cwd=cwd or "/", env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_starts_at_once_make_one_environment_out_of_a_broken_one_and_a_third_finds_it_made(small_project, probe, tmp_path):
    (small_project / ".venv" / "bin").mkdir(parents=True)
    (small_project / ".venv" / "bin" / "python").symlink_to("/nonexistent/python")  # a system upgrade took it away
    first, second = launch(small_project, "a b", cwd=tmp_path), launch(small_project, "c")
    out, err = zip(first.communicate(timeout=300), second.communicate(timeout=300), strict=True)

    venv = str(small_project / ".venv")
    assert (first.returncode, second.returncode) == (0, 0), err
    assert out == (f"{venv}|a b\n", f"{venv}|c\n"), "stdout is the command's own"
    assert "".join(err).count("Making the Python environment") == 1

    third = launch(small_project, "d")
    assert third.communicate(timeout=60) == (f"{venv}|d\n", "")


def test_a_package_that_cannot_be_installed_ends_with_pips_words_and_what_to_do():
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", "nobody-has-this==1.0"]
    with pytest.raises(bootstrap.BootstrapError, match=r"No matching distribution found for nobody-has-this[\s\S]*PIP_INDEX_URL"):
        bootstrap._install(command, total=1)


def test_an_older_python_is_told_so_before_anything_is_imported(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later; this is Python 3\.9"):
        runpy.run_path(str(bootstrap.PROJECT / "manage.py"), run_name="__main__")


def test_an_environment_that_holds_every_pin_is_used_as_it_is(small_project, monkeypatch):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started another Python"))
    (small_project / "requirements.txt").write_text(f"Django=={importlib.metadata.version('Django')}\n")
    bootstrap.enter_environment(small_project, ["manage.py", "status"], dev=False)
    assert not (small_project / ".venv").exists()


def test_nothing_is_made_when_the_bootstrap_is_switched_off(small_project, monkeypatch):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started another Python"))
    monkeypatch.setenv("ODO_NO_BOOTSTRAP", "1")
    (small_project / "requirements.txt").write_text("nobody-has-this==1.0\n")
    bootstrap.enter_environment(small_project, ["manage.py", "status"], dev=False)
    assert not (small_project / ".venv").exists()


def test_a_changed_requirement_makes_the_environment_stale(small_project):
    (small_project / ".venv" / "bin").mkdir(parents=True)
    (small_project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (small_project / ".venv" / bootstrap.STAMP).write_text(bootstrap.fingerprint(small_project, dev=False))
    assert bootstrap.is_ready(small_project, dev=False)
    (small_project / "requirements.txt").write_text("tenacity==9.2.1\n")
    assert not bootstrap.is_ready(small_project, dev=False)


@pytest.mark.parametrize(
    "line, need",
    [
        ("", "none"),
        ("help run", "none"),
        ("--help", "none"),
        ("--version", "none"),
        ("check", "none"),
        ("check --deploy", "none"),
        ("check --database default", "server"),
        ("shell --help", "none"),
        ("run -h", "none"),
        ("collectstatic --noinput", "none"),
        ("makemigrations --check", "server"),
        ("migrate", "server"),
        ("dbshell", "server"),
        ("status --json", "current"),
        ("demo --port 8001", "current"),
        ("a_command_of_tomorrow", "current"),
    ],
)
def test_each_command_asks_of_the_database_no_more_than_it_needs(line, need):
    assert bootstrap.database_need(["manage.py", *line.split()]) == need


def test_every_package_is_pinned_with_everything_that_it_brings():
    pins = {canonicalize_name(name): version for name, version in bootstrap.wanted(bootstrap.PROJECT, dev=True).items()}
    unpinned = set()
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            brought = Requirement(text)
            needed = brought.marker is None or brought.marker.evaluate({"extra": ""})
            if needed and canonicalize_name(brought.name) not in pins:
                unpinned.add(f"{brought.name} (for {name})")
    assert not unpinned
    assert {name: importlib.metadata.version(name) for name in pins} == pins, "the environment is not the pinned one"


def test_each_line_of_the_requirements_is_an_exact_pin():
    for path in bootstrap.requirement_files(bootstrap.PROJECT, dev=True):
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"|#.*|-r requirements\.txt|[A-Za-z0-9._-]+(\[\w+\])?==[\w.]+", line), line


def test_a_missing_program_is_found_out_by_any_of_its_names(monkeypatch):
    program = bootstrap.Program("chromium", ("chromium", "chromium-browser"), ("chromium",), "the tests in a browser")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/chromium-browser" if name == "chromium-browser" else None)
    assert not bootstrap.missing(program)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert bootstrap.missing(program)


def test_only_root_on_debian_installs_programs(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not bootstrap.may_install()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert bootstrap.may_install()


def test_var_lets_the_databases_user_pass_but_not_look_whatever_the_umask(tmp_path, monkeypatch):
    before = os.umask(0o077)
    try:
        monkeypatch.setattr(bootstrap, "keep_owner", lambda path: None)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert bootstrap.var_folder(tmp_path).stat().st_mode & 0o777 == 0o711
    finally:
        os.umask(before)
    (tmp_path / "var").chmod(0o700)
    bootstrap.var_folder(tmp_path)
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700, "a folder that exists keeps the mode that somebody gave it"
