"""The page of trips, and its numbers as files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from catalog.exports import csv_response
from catalog.gates import needs_view
from pipelines.errors import PipelineError
from pipelines.selectors import trips as selectors
from pipelines.upkeep import trip_counts


@needs_view
@require_GET
def trips(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    asked = selectors.Asked.of(request.GET, now)
    if request.GET.get("format") == "csv":
        return _file(request, asked, now)
    return render(request, "pipelines/trips.html", {"page": selectors.page(asked, now)})


def _file(request: HttpRequest, asked: selectors.Asked, now: Any) -> HttpResponse:
    """The table that `what` names (months, vehicles, days, hours); what the warehouse can't answer is a page that says why."""
    what, terms = request.GET.get("what", ""), asked.terms
    try:
        source = trip_counts.chosen(asked.table)
        makers: dict[str, Callable[[], tuple]] = {
            "vehicles": lambda: selectors.months_csv(source, terms, by_vehicle=True, now=now),
            "days": lambda: selectors.days_csv(asked, source),
            "hours": lambda: selectors.week_csv(source, terms),
        }
        columns, rows = makers.get(what, lambda: selectors.months_csv(source, terms, by_vehicle=False, now=now))()
    except PipelineError as error:
        page = selectors.TripsPage(asked, trip_counts.sources(), words=error.message, next_step=error.next_step, is_broken=True)
        return render(request, "pipelines/trips.html", {"page": page}, status=503)
    name = f"trips-{what if what in makers else 'months'}-{terms.first}-to-{terms.last}.csv"
    return csv_response(name, list(columns), rows)
