"""Compare with the portal: a span is picked, compared, its differences are read, and repaired on a page that says first what it will do."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from catalog import asked
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import OPERATE, act, needs_operate, needs_view
from pipelines import planner, secrets
from pipelines.errors import PipelineError
from pipelines.forms import ReasonForm
from pipelines.models import Cadence, Pipeline, Trigger
from pipelines.selectors import reconcile as selectors
from pipelines.upkeep import resync


class SpanForm(ReasonForm):
    """From where to where, and why."""

    def __init__(self, one: Pipeline, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.one = one
        # "from" is a word of Python, so these two can't be written as others are
        for name in ("from", "to"):
            self.fields[name] = forms.CharField(max_length=30, error_messages={"required": "Give both ends of the span."})

    def clean(self):
        cleaned = super().clean()
        if not cleaned.get("from") or not cleaned.get("to"):
            return cleaned
        try:
            starts_at, ends_at = selectors.span(self.one, cleaned["from"], cleaned["to"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error
        if ends_at - starts_at > timedelta(days=selectors.MOST_DAYS, hours=1):
            command = selectors.command_of(self.one, cleaned["from"], cleaned["to"])
            raise forms.ValidationError(f"A page compares at most {selectors.MOST_DAYS} days. For more, use the command: {command}")
        return {**cleaned, "starts_at": starts_at, "ends_at": ends_at}


@needs_view
@require_GET
def reconcile(request: HttpRequest, slug: str) -> HttpResponse:
    one = _one(slug)
    page = selectors.page(one, asked.number(request.GET.get("of")))
    if request.GET.get("of") and not page.one:
        raise Http404(f"{one.title} was never compared under the number {request.GET['of']}.")
    if page.one and request.GET.get("format") == "json":
        return JsonResponse(selectors.as_json(page.one), json_dumps_params={"indent": 1})
    if page.one and request.GET.get("format") == "csv":
        rows = ([group.word, line.key, line.block.pk if line.block else "", "; ".join(line.words)] for group in page.groups for line in group.lines)
        return csv_response(f"{one.slug}-differences-{page.one.pk}.csv", ["kind", "public_id", "block", "difference"], rows)
    return _page(request, one, page, SpanForm(one))


@act
def run(request: HttpRequest, slug: str) -> HttpResponse:
    """Compare a span now; the answer is the page of what was found."""
    one = _one(slug)
    form = SpanForm(one, request.POST)
    if form.is_valid():
        cleaned = form.cleaned_data
        try:
            found = resync.reconcile(one, cleaned["starts_at"], cleaned["ends_at"], actor=Actor.of(request.user), reason=cleaned["reason"])
            return redirect(f"{reverse('reconcile', args=[slug])}?of={found.pk}")
        except PipelineError as error:
            form.add_error(None, secrets.redact(f"Nothing was compared: {error.message} {error.next_step}".strip()))
    return _page(request, one, selectors.page(one), form, status=422)


@needs_operate
@require_http_methods(["GET", "POST"])
def repair(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """What repairing a reconciliation will do; the POST does it."""
    one = _one(slug)
    page = selectors.page(one, pk)
    if not page.one:
        raise Http404(f"{one.title} was never compared under the number {pk}.")
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and not page.unrepairable and form.is_valid():
        return _repaired(request, one, page, form)
    return render(
        request, "pipelines/reconcile_repair.html", {"pipeline": one, "page": page, "form": form}, status=422 if request.method == "POST" else 200
    )


def _repaired(request: HttpRequest, one: Pipeline, page: selectors.Page, form: ReasonForm) -> HttpResponse:
    try:
        done = resync.repair(page.one, actor=Actor.of(request.user), reason=form.cleaned_data["reason"], trigger=Trigger.BUTTON)
    except PipelineError as error:
        messages.error(request, secrets.redact(f"It was not repaired: {error.message} {error.next_step}".strip()))
        return redirect(f"{reverse('reconcile', args=[one.slug])}?of={page.one.pk}")
    for block_id in done.asked:
        planner.ring(block_id)
    messages.add_message(request, messages.SUCCESS if done.moved else messages.ERROR, done.text if done.moved else f"Nothing was done. {done.text}")
    return redirect(f"{reverse('reconcile', args=[one.slug])}?of={page.one.pk}")


def _one(slug: str) -> Pipeline:
    return get_object_or_404(Pipeline.objects.select_related("dataset", "provider", "portal"), slug=slug)


def _page(request: HttpRequest, one: Pipeline, page: selectors.Page, form: SpanForm, status: int = 200) -> HttpResponse:
    begin, end = (form.data.get("from", ""), form.data.get("to", "")) if form.is_bound else selectors.usual_span(one, timezone.now())
    context = {
        "pipeline": one,
        "page": page,
        "form": form,
        "from_value": begin,
        "to_value": end,
        "input_type": "datetime-local" if one.cadence == Cadence.HOURLY else "date",
        "command": selectors.command_of(one, begin, end),
        "most_days": selectors.MOST_DAYS,
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "pipelines/reconcile.html", context, status=status)
