"""Logs: one JSON object a line, with the run, block and stage that it belongs to.

Whoever works on a run says so once, `structlog.contextvars.bind_contextvars(run_id=…, block=…, stage=…)`; every line that is
logged from then on in that thread carries it, also the lines of libraries. Modules log through the standard library,
`logging.getLogger(__name__)`, so that pipelines.secrets.RedactFilter sees every line.
"""

import logging

import structlog


def json_formatter() -> logging.Formatter:
    """The formatter of settings.LOGGING: time in UTC, level, logger, event, the bound context, and a traceback as text."""
    before = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _traceback,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer(sort_keys=True, default=str)],
    )


def _traceback(logger, method, event):
    """The traceback as the redacting filter left it; the filter takes `exc_info` away, so that nothing formats it anew."""
    record, error = event.get("_record"), event.pop("exc_info", None)
    if record is not None and record.exc_text:
        event["traceback"] = record.exc_text
    elif error:
        event["traceback"] = logging.Formatter().formatException(error)
    return event
