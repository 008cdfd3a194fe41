"""The pages of quality: the league table, one table's score, what would raise the scores; each with its CSV."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from catalog.exports import csv_response
from catalog.gates import OPERATE, needs_view
from perfmet.selectors import quality, quality_improve, quality_table


@needs_view
@require_GET
@vary_on_headers("HX-Request")
def league(request: HttpRequest) -> HttpResponse:
    page = quality.league(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response("quality.csv", quality.COLUMNS, quality.as_csv(page.chosen))
    template = "perfmet/_quality_list.html" if request.htmx and not request.htmx.history_restore_request and page.lines else "perfmet/quality.html"
    return render(request, template, {"page": page})


@needs_view
@require_GET
def table(request: HttpRequest) -> HttpResponse:
    page = quality_table.table_page(request.GET)
    if request.GET.get("format") == "csv":
        if request.GET.get("what") == "columns":
            return csv_response("failing-columns.csv", ["column", "why", "value"], quality_table.failing_csv(page.failing))
        return csv_response("quality-history.csv", quality_table.HISTORY_COLUMNS, quality_table.history_csv(page))
    return render(request, "perfmet/quality_table.html", {"page": page, "may_operate": request.user.has_perm(OPERATE)})


@needs_view
@require_GET
def improve(request: HttpRequest) -> HttpResponse:
    page = quality_improve.improve(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response("quality-improve.csv", quality_improve.COLUMNS, quality_improve.as_csv(page.chosen))
    return render(request, "perfmet/quality_improve.html", {"page": page})
