"""Upkeep: the list of jobs with how they went, one job with its history, and the press that has it done now."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET

from catalog.audit import Actor
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
    return _page(request, pk, ReasonForm())


@act
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """Have a job done now, by a worker."""
    one = get_object_or_404(UpkeepJob, pk=pk)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _page(request, pk, form, status=422)
    answer = planner.ask_for_upkeep(one, actor=Actor.of(request.user), reason=form.cleaned_data["reason"])
    if answer.run:
        messages.success(request, f"{one.title}: {answer.text} A worker takes it within seconds.")
    else:
        messages.error(request, f"{one.title}: nothing was done. {answer.text}")
    return redirect("upkeep_job", pk=pk)


def _page(request: HttpRequest, pk: int, form: ReasonForm, status: int = 200) -> HttpResponse:
    one = get_object_or_404(UpkeepJob, pk=pk)
    [line] = selectors.job_lines(pk=pk)
    moves = line.last is not None and line.last.run.finished_at is None
    context = {"line": line, "history": selectors.history(one), "form": form, "moves": moves, "may_operate": request.user.has_perm(OPERATE)}
    template = "pipelines/_upkeep_live.html" if request.htmx else "pipelines/upkeep_job.html"
    return render(request, template, context, status=status)
