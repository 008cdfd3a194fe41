"""The pages of performance: the job report, the sensors of a pipeline, one sensor, the health board, the map; each with its CSV."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from catalog.exports import csv_response
from catalog.gates import needs_view
from perfmet.selectors import board as boards
from perfmet.selectors import jobs, watches
from perfmet.selectors import sensors as selectors


@needs_view
@require_GET
def performance(request: HttpRequest) -> HttpResponse:
    asked = jobs.Asked.of(request.GET, timezone.now())
    page = jobs.page(asked, timezone.now())
    if request.GET.get("format") == "csv":
        return _jobs_csv(page, request.GET.get("what", ""))
    return render(request, "perfmet/jobs.html", {"page": page, "tabs": watches.tabs(), "here": "jobs"})


def _jobs_csv(page: jobs.JobsPage, what: str) -> HttpResponse:
    """The table that `what` names: the jobs of the day, the sources of the span, or seconds by day."""
    asked = page.asked
    if what == "sources":
        header = ["source", "day_records", "rows", "seconds", "share_of_seconds", "failed_runs", "days_absent"]
        rows = [[s.name, s.records, s.rows, round(s.seconds, 1), round(s.share, 4), s.failed, s.absent] for s in page.sources]
        return csv_response(f"sources-{asked.span.first}-to-{asked.span.last}.csv", header, rows)
    if what == "days":
        header = ["day", *page.chart_names, "all"]
        return csv_response(
            f"seconds-{asked.span.first}-to-{asked.span.last}.csv", header, ([day, *values, round(total, 1)] for day, values, total in page.days)
        )
    header = [
        "source", "stage", "state", "seconds", "day_records", "files", "rows", "runs", "failed_runs", "began", "ended", "covers_from", "covers_to",
        "note",
    ]  # fmt: skip
    rows = (
        [
            job.source, job.stage, job.face.word, round(job.seconds, 1) if job.runs else None, job.records, job.files, job.rows, job.runs, job.failed,
            job.began, job.ended, job.covers_from, job.covers_to, " ".join(job.notes),
        ]
        for job in page.jobs
    )  # fmt: skip
    return csv_response(f"jobs-{asked.day}.csv", header, rows)


@needs_view
@require_GET
@vary_on_headers("HX-Request")
def sensors(request: HttpRequest, slug: str) -> HttpResponse:
    page = selectors.sensors_page(slug, request.GET)
    if request.GET.get("format") == "csv":
        return csv_response(f"sensors-{slug}-{page.day or 'none'}.csv", selectors.COLUMNS, selectors.as_csv(page.chosen))
    template = "perfmet/_sensors_list.html" if _wants_fragment(request) and page.listed else "perfmet/sensors.html"
    return render(request, template, {"page": page, "tabs": page.tabs, "here": slug})


@needs_view
@require_GET
def sensor(request: HttpRequest, slug: str, sensor: str) -> HttpResponse:
    page = selectors.sensor_page(slug, sensor, request.GET)
    if request.GET.get("format") == "csv":
        lines = [day.line for day in reversed(page.days) if day.line]
        return csv_response(f"sensor-{slug}-{page.span.first}-to-{page.span.last}.csv", selectors.COLUMNS, selectors.as_csv(lines))
    return render(request, "perfmet/sensor.html", {"page": page, "tabs": page.tabs, "here": slug})


@needs_view
@require_GET
@vary_on_headers("HX-Request")
def health_board(request: HttpRequest) -> HttpResponse:
    page = boards.board(request.GET, timezone.now())
    if request.GET.get("format") == "csv":
        lines = page.chosen
        rows = ([line.watch.pipeline.slug, *row] for line, row in zip(lines, selectors.as_csv(lines), strict=True))
        return csv_response("sensor-health.csv", ["pipeline", *selectors.COLUMNS], rows)
    template = "perfmet/_board_list.html" if _wants_fragment(request) and page.lines else "perfmet/board.html"
    return render(request, template, {"page": page, "tabs": page.tabs, "here": "board"})


@needs_view
@require_GET
def sensor_map(request: HttpRequest) -> HttpResponse:
    page = boards.map_page(request.GET)
    if request.GET.get("format") == "csv":
        every = [(line, spot.lon, spot.lat, spot.name) for line, spot in page.placed] + [(line, None, None, "") for line in page.unplaced]
        rows = ([line.watch.pipeline.slug, line.sensor, line.health, line.reason, lon, lat, name] for line, lon, lat, name in every)
        return csv_response("sensor-map.csv", ["pipeline", "sensor", "health", "reason", "lon", "lat", "place"], rows)
    return render(request, "perfmet/map.html", {"page": page, "tabs": page.tabs, "here": "map"})


def _wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for the list alone; where it restores a page of the history it wants the whole."""
    return bool(request.htmx) and not request.htmx.history_restore_request
