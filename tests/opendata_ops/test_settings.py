"""`.env.example` is true: it lists every name that settings.py reads, each explained, and copying it changes nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from django.conf import settings

READERS = {"str", "int", "list", "dict", "bool", "float", "json", "env_bool", "env_count", "env_numbers", "kept_secret"}
LINES = Path(settings.BASE_DIR, ".env.example").read_text().splitlines()
NAMED = [match for line in LINES if (match := re.fullmatch(r"#?([A-Z][A-Z0-9_]*)=(.*)", line))]


def reads() -> dict[str, ast.Call]:
    """The names that settings.py asks the environment for, with the call that does."""
    tree = ast.parse(Path(settings.BASE_DIR, "opendata_ops", "settings.py").read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in READERS and re.fullmatch(r"[A-Z][A-Z0-9_]*", node.args[0].value):
                found[node.args[0].value] = node
    return found


def test_every_setting_that_the_environment_gives_is_in_the_example():
    assert {match[1] for match in NAMED} == set(reads())
    assert len(NAMED) == len(reads())


def test_every_line_of_the_example_is_explained():
    for number, line in enumerate(LINES):
        if re.match(r"#?[A-Z][A-Z0-9_]*=", line):
            assert re.match(r"# \S.{10,}", LINES[number - 1]), f"{line} has no sentence above it"


def test_the_example_shows_the_true_defaults():
    calls = reads()
    for match in NAMED:
        defaults = calls[match[1]].args[1:] + [keyword.value for keyword in calls[match[1]].keywords if keyword.arg == "default"]
        if defaults and isinstance(defaults[0], ast.Constant):
            assert match[2] == {True: "true", False: "false"}.get(defaults[0].value, str(defaults[0].value)), match[1]
        elif defaults and isinstance(defaults[0], ast.List):
            assert match[2] == ",".join(element.value for element in defaults[0].elts), match[1]


def test_a_copy_of_the_example_sets_nothing():
    assert not [line for line in LINES if line and not line.startswith("#")]


def in_settings(question: str, **environment: str) -> subprocess.CompletedProcess:
    """Ask a fresh process that starts with this environment and no other."""
    base = {"DATABASE_URL": "postgres://nobody@localhost/none", "SECRET_KEY": "k" * 60, "FERNET_KEYS": settings.FERNET_KEYS[0]}
    return subprocess.run(
        [sys.executable, "-c", f"from opendata_ops import settings\nprint({question})"],
        cwd=settings.BASE_DIR, env={**base, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_word_that_is_neither_yes_nor_no_stops_the_start():
    done = in_settings("settings.DEBUG", DEBUG="flase")
    assert done.returncode == 1 and "DEBUG='flase' is neither yes nor no" in done.stderr


def test_a_city_that_says_nothing_is_safe():
    done = in_settings("settings.DEBUG, settings.SECURE_SSL_REDIRECT, settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE")
    assert done.stdout.strip() == "False True True True", done.stderr


def test_thresholds_of_sensors_lie_over_what_holds_otherwise():
    done = in_settings("settings.SENSOR_THRESHOLDS['low'], settings.SENSOR_THRESHOLDS['high']", SENSOR_THRESHOLDS="high=2.5,hours=20")
    assert done.stdout.strip() == "0.5 2.5", done.stderr


def test_a_threshold_of_another_name_or_no_number_stops_the_start():
    done = in_settings("settings.SENSOR_THRESHOLDS", SENSOR_THRESHOLDS="hi=2")
    assert done.returncode == 1 and "SENSOR_THRESHOLDS names hi. It knows: low, high" in done.stderr
    done = in_settings("settings.SENSOR_THRESHOLDS", SENSOR_THRESHOLDS="high=twice")
    assert done.returncode == 1 and "SENSOR_THRESHOLDS: high='twice' is not a number" in done.stderr


def test_an_unknown_queue_is_refused():
    done = in_settings("settings.Q_CLUSTER", QUEUE_URL="amqp://rabbit")
    assert done.returncode == 1 and "use redis:// or sqs://" in done.stderr.replace("…", "")


def test_two_processes_that_start_at_once_keep_one_key(tmp_path):
    script = (
        "import sys; from pathlib import Path; from opendata_ops import settings\n"
        "settings.VAR_DIR = Path(sys.argv[1])\n"
        "import secrets; print(settings.kept_secret('A_KEY', lambda: secrets.token_hex(8)))"
    )
    environment = {"DATABASE_URL": "postgres://nobody@localhost/none", "SECRET_KEY": "k" * 60, "FERNET_KEYS": settings.FERNET_KEYS[0]}
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    keys = {process.communicate()[0].strip() for process in started}
    assert len(keys) == 1 and len(keys.pop()) == 16
    (path,) = (tmp_path / "secrets").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
