"""Upkeep: the list of jobs with how they went, one job with what it found and its history, and the presses that have it done or look now."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from catalog import asked
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import OPERATE, act, needs_view
from pipelines import planner
from pipelines.forms import ReasonForm
from pipelines.models import UpkeepJob
from pipelines.selectors import upkeep as selectors


@needs_view
@require_GET
def jobs(request: HttpRequest) -> HttpResponse:
    lines = selectors.job_lines()
    if request.GET.get("format") == "json":
        return JsonResponse({"jobs": [selectors.job_json(line) for line in lines]}, json_dumps_params={"indent": 1})
    return render(request, "pipelines/upkeep.html", {"lines": lines, "history": selectors.history()})


@needs_view
@require_GET
def job(request: HttpRequest, pk: int) -> HttpResponse:
    if request.GET.get("format") == "csv":
        return _findings_csv(request, pk)
    return _page(request, pk, ReasonForm())


def _findings_csv(request: HttpRequest, pk: int) -> HttpResponse:
    one = get_object_or_404(UpkeepJob, pk=pk)
    shown = selectors.found(one, asked.number(request.GET.get("run")))
    if shown is None or shown.findings is None:
        raise Http404("This run kept no table of findings.")
    return csv_response(f"{slugify(one.title) or 'job'}-run-{shown.line.run.pk}.csv", shown.findings.columns, shown.findings.rows)


@act
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a job done now, by a worker; with `dry`, have it only look."""
    one = get_object_or_404(UpkeepJob, pk=pk)
    is_dry = "dry" in request.POST
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _page(request, pk, form, status=422)
    answer = planner.ask_for_upkeep(one, actor=Actor.of(request.user), reason=form.cleaned_data["reason"], is_dry=is_dry)
    if answer.run:
        messages.success(request, f"{one.title}: {answer.text} A worker takes it within seconds.")
    else:
        messages.error(request, f"{one.title}: nothing was done. {answer.text}")
    return redirect("upkeep_job", pk=pk)


def _page(request: HttpRequest, pk: int, form: ReasonForm, status: int = 200) -> HttpResponse:
    one = get_object_or_404(UpkeepJob, pk=pk)
    [line] = selectors.job_lines(pk=pk)
    moves = line.last is not None and line.last.run.finished_at is None
    context = {"line": line, "form": form, "moves": moves, "may_operate": request.user.has_perm(OPERATE)}
    if request.htmx:
        response = render(request, "pipelines/_upkeep_live.html", context, status=status)
        if not moves:
            # it has ended: what it found stands elsewhere on the page
            response["HX-Refresh"] = "true"
        return response
    shown = selectors.found(one, asked.number(request.GET.get("run")))
    listed = shown.findings.page(request.GET.get("page")) if shown and shown.findings else None
    context |= {"shown": shown, "listed": listed, "rows": selectors.Findings.cells(listed or []), "history": selectors.history(one)}
    return render(request, "pipelines/upkeep_job.html", context, status=status)
