"""A span of time as the commands take it that read or change what a portal has: --from and --to, in the pipeline's zone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from pipelines.management.base import pipelines_named, refusal
from pipelines.models import Pipeline
from pipelines.selectors import reconcile


def add_span(parser: CommandParser) -> None:
    parser.add_argument("--from", dest="begin", required=True, metavar="TIME", help="2026-11-12T08:00 in the pipeline's zone, or a day")
    parser.add_argument("--to", dest="end", required=True, metavar="TIME", help="up to this time, or up to and with this day")


def pipeline_and_span(options: dict[str, Any], command: str) -> tuple[Pipeline, datetime, datetime]:
    """The pipeline that is named, and the aware ends of the span. Raises Refusal that says how times are written."""
    [pipeline] = pipelines_named([options["pipeline"]])
    try:
        return pipeline, *reconcile.span(pipeline, options["begin"], options["end"])
    except ValueError as error:
        raise refusal(str(error), f"See how times are written with: python3 manage.py {command} --help") from error
