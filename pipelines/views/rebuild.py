"""Initialize: a page that says what a new table would drop, and the POST that asks for it: with a reason and the pipeline's slug, typed."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from catalog.audit import Actor
from catalog.gates import needs_operate
from pipelines import planner
from pipelines.forms import ReasonForm
from pipelines.models import Pipeline, Trigger
from pipelines.selectors import preview as previews
from pipelines.selectors import rebuilds


class InitializeForm(ReasonForm):
    """Why, the slug in full so that no slip of the finger drops a table, and which state of the block the page showed."""

    slug = forms.CharField(
        max_length=80,
        label="The pipeline’s slug",
        error_messages={"required": "Type the pipeline’s slug, so that it is surely this one."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}),
    )
    seen = forms.RegexField(
        r"^(\d+:\d+)?$",
        required=False,
        widget=forms.HiddenInput,
        error_messages={"invalid": "The page was damaged on its way. Open it again."},
    )

    def __init__(self, one: Pipeline, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.one = one

    def clean_slug(self) -> str:
        if self.cleaned_data["slug"] != self.one.slug:
            raise forms.ValidationError(f"That is not the slug of this pipeline. Type {self.one.slug}.")
        return self.cleaned_data["slug"]

    def fences(self) -> dict[int, int]:
        block, _, fence = self.cleaned_data["seen"].partition(":")
        return {int(block): int(fence)} if block else {}


@needs_operate
@require_http_methods(["GET", "POST"])
def initialize(request: HttpRequest, slug: str) -> HttpResponse:
    """What initializing this pipeline would drop and do."""
    now = timezone.now()
    one = get_object_or_404(Pipeline.objects.select_related("dataset", "provider", "portal"), slug=slug)
    order = planner.Order([one], which="all", rebuild=True)
    refusal = rebuilds.refusal(one)
    preview = None if refusal else previews.preview(order, now)
    form = InitializeForm(one, request.POST if request.method == "POST" else None, initial={"seen": preview.seen if preview else ""})
    if request.method == "POST" and not refusal and form.is_valid():
        return _place(request, one, order, form)
    [line] = preview.lines if preview else [None]
    if line and line.planned.skip:
        refusal = f"It can’t be initialized now: {line.planned.skip}."
    context = {
        "pipeline": one,
        "form": form,
        "line": line,
        "refusal": refusal,
        "drops": "" if preview is None else rebuilds.words(one),
        "command": "" if preview is None else f"python3 manage.py run {one.slug} --initialize --queue",
    }
    return render(request, "pipelines/initialize.html", context, status=422 if request.method == "POST" else 200)


def _place(request: HttpRequest, one: Pipeline, order: planner.Order, form: InitializeForm) -> HttpResponse:
    placed = planner.place(order, actor=Actor.of(request.user), reason=form.cleaned_data["reason"], trigger=Trigger.BUTTON, seen=form.fences())
    if not placed.moved:
        messages.error(request, f"Nothing was done. {' '.join(verdict.text for verdict in placed.refused)}")
        return redirect(one)
    messages.success(request, "Asked to initialize. A worker takes it within seconds; the old rows are served until the new ones are complete.")
    return redirect("block", pk=placed.moved[0])
