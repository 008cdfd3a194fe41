"""Import logs, and workers with their queue."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from catalog.exports import csv_response
from catalog.gates import needs_view
from pipelines import planner
from pipelines.selectors import machinery as selectors

log = logging.getLogger(__name__)


@needs_view
def import_logs(request: HttpRequest) -> HttpResponse:
    filters = selectors.LoadFilters.of(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response(
            "import-logs.csv",
            ["run", "block", "pipeline", "table", "outcome", "began", "last", "seconds", "files", "chunks", "rows", "total", "message"],
            (
                [
                    load.run.pk, load.run.block_id, load.run.block.pipeline.slug, load.table, load.face.word, load.began, load.last,
                    round(load.seconds, 1), load.files, load.chunks, load.rows, load.total, load.message,
                ]
                for load in selectors.all_loads(filters)
            ),
        )  # fmt: skip
    return render(request, "pipelines/import_logs.html", {"logs": selectors.import_logs(filters)})


@needs_view
def workers(request: HttpRequest) -> HttpResponse:
    depth, trouble = _depth()
    page = selectors.workers(timezone.now(), depth=depth, trouble=trouble)
    return render(request, "pipelines/_workers_live.html" if request.htmx else "pipelines/workers.html", {"machinery": page})


def _depth() -> tuple[int | None, str]:
    """The queue's length; a queue on another system may be down, and then this page must say so instead of failing with it."""
    try:
        return planner.queue_depth(), ""
    except Exception as error:  # noqa: BLE001  redis, SQS and the database each raise their own; the page shows it, the log keeps it
        log.warning("The queue can't be asked: %s", error)
        return (
            None,
            f"The queue can't be asked: {type(error).__name__}. Look at QUEUE_URL and whether its server runs; manage.py doctor tells more.",
        )
