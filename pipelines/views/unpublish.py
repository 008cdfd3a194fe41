"""Take days off the portal: a span is picked, the page says what would go, and a press with a reason does it."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from catalog.audit import Actor
from catalog.gates import needs_operate
from pipelines import planner, secrets
from pipelines.errors import PipelineError
from pipelines.forms import ReasonForm
from pipelines.models import Cadence, Pipeline, Trigger
from pipelines.selectors import reconcile as spans
from pipelines.upkeep import unpublish as upkeep
from pipelines.upkeep.unpublish import Preview

#: A person waits for the answer of a page: more is taken off by the command.
MOST_DAYS = 31
MOVED = "Blocks of these days have moved since the page was made, so nothing was done. Look again."


class TakeOffForm(ReasonForm):
    """Why, whether to publish again, and the mark of what the page showed."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    republish = forms.BooleanField(required=False)
    sure = forms.BooleanField(required=True, error_messages={"required": "Tick that you are sure: the public will no longer see these rows."})

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # what the public loses is never taken without a word, on whichever system
        self.fields["reason"].required = True
        self.fields["reason"].error_messages["required"] = "Say why these rows have to go."


@needs_operate
@require_http_methods(["GET", "POST"])
def unpublish(request: HttpRequest, slug: str) -> HttpResponse:
    """What taking a span off the portal would do; the POST does it."""
    one = get_object_or_404(Pipeline.objects.select_related("dataset", "provider", "portal"), slug=slug)
    asked = request.POST if request.method == "POST" else request.GET
    begin, end = asked.get("from", ""), asked.get("to", "")
    why_not, found = upkeep.refusal(one), None
    if not why_not and (begin or end):
        try:
            found = _previewed(one, begin, end)
        except (ValueError, PipelineError) as error:
            why_not = secrets.redact(str(error))
    form = TakeOffForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and found and found.taken and form.is_valid():
        if form.cleaned_data["seen"] == found.mark:
            return _taken_off(request, one, found, form)
        form.add_error(None, MOVED)
    usual = spans.usual_span(one, timezone.now())
    context = {
        "pipeline": one,
        "found": found,
        "form": form,
        "why_not": why_not,
        "from_value": begin or usual[0],
        "to_value": end or usual[1],
        "input_type": "datetime-local" if one.cadence == Cadence.HOURLY else "date",
        "command": f"python3 manage.py unpublish {one.slug} --from {begin or usual[0]} --to {end or usual[1]}",
        "most_days": MOST_DAYS,
    }
    return render(request, "pipelines/unpublish.html", context, status=422 if request.method == "POST" else 200)


def _previewed(one: Pipeline, begin: str, end: str) -> Preview:
    """What would go of a span as people write it. Raises ValueError in words, PipelineError."""
    starts_at, ends_at = spans.span(one, begin, end)
    if ends_at - starts_at > timedelta(days=MOST_DAYS, hours=1):
        command = f"python3 manage.py unpublish {one.slug} --from {begin} --to {end}"
        raise ValueError(f"A page takes at most {MOST_DAYS} days off. For more, use the command: {command}")
    return upkeep.preview(one, starts_at, ends_at)


def _taken_off(request: HttpRequest, one: Pipeline, found: Preview, form: TakeOffForm) -> HttpResponse:
    told: list[str] = []
    wish = {"reason": form.cleaned_data["reason"], "republish": form.cleaned_data["republish"]}
    try:
        done = upkeep.unpublish(found, actor=Actor.of(request.user), trigger=Trigger.BUTTON, tell=told.append, **wish)
    except PipelineError as error:
        messages.error(request, secrets.redact(f"It broke off: {error.message} {error.next_step}".strip()))
        return redirect(one)
    for block_id in done.asked:
        planner.ring(block_id)
    messages.add_message(request, messages.ERROR if done.refused else messages.SUCCESS, done.words(one.portal.title))
    for words in told:
        if "once more" in words:
            messages.warning(request, words)
    return redirect(one)
