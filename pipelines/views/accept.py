"""Accepting the changed columns of a source: a page that names each change, and the POST that takes them."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from catalog.audit import Actor
from catalog.gates import needs_operate
from pipelines import planner
from pipelines.forms import ReasonForm
from pipelines.models import Pipeline
from pipelines.stages import columns


class AcceptForm(ReasonForm):
    """Why, and which change the page showed."""

    seen_event = forms.IntegerField(required=False, widget=forms.HiddenInput)


@needs_operate
@require_http_methods(["GET", "POST"])
def columns_of(request: HttpRequest, slug: str) -> HttpResponse:
    """The changes of a pipeline's source that wait for a person."""
    one = get_object_or_404(Pipeline.objects.select_related("dataset", "provider"), slug=slug)
    told = columns.unaccepted(one)
    form = AcceptForm(request.POST if request.method == "POST" else None, initial={"seen_event": told.pk if told else None})
    if request.method == "POST" and form.is_valid():
        verdict = columns.accept(one, actor=Actor.of(request.user), reason=form.cleaned_data["reason"], seen_event=form.cleaned_data["seen_event"])
        for block_id in verdict.again:
            planner.ring(block_id)
        if verdict.moved:
            messages.success(request, verdict.text)
        else:
            messages.error(request, f"Nothing was done. {verdict.text}")
        return redirect(one)
    changes = columns.compare(one.accepted_columns, told.details["columns"]) if told else None
    gone = columns.needed_but_gone(one, told.details["columns"]) if told else []
    context = {"pipeline": one, "told": told, "changes": changes, "gone": gone, "form": form}
    return render(request, "pipelines/accept_columns.html", context, status=422 if request.method == "POST" else 200)
