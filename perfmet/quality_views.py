"""The pages of quality: the league table, one table's score with the press that scores it again, what would raise the scores."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import OPERATE, act, needs_view
from perfmet import scoring
from perfmet.selectors import quality, quality_improve, quality_table
from pipelines.errors import SetupError
from pipelines.forms import ReasonForm


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
    return _table_page(request, page, ReasonForm())


@act
def score_now(request: HttpRequest) -> HttpResponse:
    """Have the tables of a dataset scored now, by a worker. The table is named in the address, as on its page."""
    page = quality_table.table_page(request.GET)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _table_page(request, page, form, status=422)
    line = page.line
    try:
        answer = scoring.ask(line.package, version=line.version, place=line.place, actor=Actor.of(request.user), reason=form.cleaned_data["reason"])
    except SetupError as error:
        messages.error(request, f"Nothing was asked. {error.message} {error.next_step}")
    else:
        if answer.run:
            messages.success(request, f"{line.name}: {answer.text} A worker takes it within seconds; then its new score is here.")
        else:
            messages.error(request, f"{line.name}: nothing was asked. {answer.text}")
    return redirect(line.href)


def _table_page(request: HttpRequest, page: quality_table.TablePage, form: ReasonForm, status: int = 200) -> HttpResponse:
    may = request.user.has_perm(OPERATE) and page.is_newest and not page.model.is_relative
    return render(request, "perfmet/quality_table.html", {"page": page, "form": form, "may_score": may}, status=status)


@needs_view
@require_GET
def improve(request: HttpRequest) -> HttpResponse:
    page = quality_improve.improve(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response("quality-improve.csv", quality_improve.COLUMNS, quality_improve.as_csv(page.chosen))
    return render(request, "perfmet/quality_improve.html", {"page": page})
