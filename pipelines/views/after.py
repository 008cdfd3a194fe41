"""What was to be done after a load: the moving part of a block's page, and the press that does a failed step again."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from catalog.audit import Actor
from catalog.gates import OPERATE, needs_operate, needs_view
from pipelines import planner
from pipelines.forms import ReasonForm
from pipelines.models import AfterRun, ScheduleBlock
from pipelines.selectors import after as selectors
from pipelines.upkeep import after


@needs_view
def of_block(request: HttpRequest, pk: int) -> HttpResponse:
    """The section of a block's page; it asks for itself until nothing of it moves."""
    block = get_object_or_404(ScheduleBlock.objects.select_related("pipeline"), pk=pk)
    context = {"afterwards": selectors.of_block(block), "may_operate": request.user.has_perm(OPERATE)}
    return render(request, "pipelines/_after_block.html", context)


@needs_operate
@require_http_methods(["GET", "POST"])
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """A page that says what will be done again, and the POST that asks for it."""
    one = get_object_or_404(AfterRun.objects.select_related("step__pipeline", "run__block__pipeline"), pk=pk)
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        verdict = after.retry(one.pk, actor=Actor.of(request.user), reason=form.cleaned_data["reason"])
        if verdict.moved:
            planner.ring_after(is_asked=True)
            messages.success(request, f"{verdict.text} A worker takes it within seconds.")
        else:
            messages.error(request, f"Nothing was done. {verdict.text}")
        return redirect(one.run.block)
    context = {
        "one": one,
        "own": one.run.block,
        "deed": selectors.deed_words(one.step),
        "refusal": "" if one.state == AfterRun.State.FAILED else f"There is nothing to do again: it is {one.get_state_display().lower()}.",
        "form": form,
    }
    return render(request, "pipelines/after_retry.html", context, status=422 if request.method == "POST" else 200)
