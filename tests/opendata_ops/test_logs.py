"""A log line is one JSON object that says which run it is about and gives no secret away."""

import io
import json
import logging

import pytest
from structlog.contextvars import bound_contextvars

from opendata_ops.logs import json_formatter
from pipelines.secrets import RedactFilter


@pytest.fixture
def log():
    """A logger as settings.LOGGING makes them, and `lines()` of what it wrote."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    handler.addFilter(RedactFilter())
    logger = logging.Logger("pipelines.test")  # noqa: LOG001 - one of our own, that no other test's handlers hear
    logger.addHandler(handler)
    logger.lines = lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    return logger


def test_a_line_says_when_how_bad_who_and_what(log):
    log.warning("%s rows were refused", 3)
    (line,) = log.lines()
    assert line.pop("at").endswith("Z")
    assert line == {"level": "warning", "logger": "pipelines.test", "event": "3 rows were refused"}


def test_a_line_carries_its_run(log):
    with bound_contextvars(run_id=42, block=7, stage="load"):
        log.error("it broke")
    log.error("later")
    assert (log.lines()[0]["run_id"], log.lines()[0]["block"], log.lines()[0]["stage"]) == (42, 7, "load")
    assert "run_id" not in log.lines()[1]


def test_a_line_break_in_a_value_forges_no_second_line(log):
    log.error("name %s", 'x\n{"level": "info", "event": "all is well"}')
    assert len(log.lines()) == 1


def test_a_traceback_is_told_without_its_secrets(log):
    try:
        raise ValueError("GET https://portal.example.gov/x?token=canary-7431")
    except ValueError:
        log.exception("it broke with Authorization: Bearer canary-7431-canary")
    (line,) = log.lines()
    assert "ValueError" in line["traceback"] and "test_logs.py" in line["traceback"]
    assert "canary-7431" not in json.dumps(line)


def test_what_json_cannot_hold_is_still_logged(log):
    with bound_contextvars(run_id={1, 2}):
        log.error("odd")
    assert log.lines()[0]["run_id"] == "{1, 2}"


def test_a_traceback_is_kept_without_the_filter_too(log):
    log.handlers[0].filters.clear()
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("it broke")
    assert "KeyError" in log.lines()[0]["traceback"]
