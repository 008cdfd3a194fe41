"""The backups of what a pipeline shows on its portal: the list, a press that makes one, and a guided way back."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from catalog.audit import Actor
from catalog.gates import OPERATE, act, needs_operate, needs_view
from pipelines import secrets
from pipelines.errors import PipelineError
from pipelines.forms import ReasonForm
from pipelines.models import Pipeline
from pipelines.upkeep import backups as upkeep

#: A person waits for the answer of a page: more rows are brought back by the command.
MOST_ROWS = 200_000


class RestoreForm(ReasonForm):
    """Why, and that the person means it."""

    sure = forms.BooleanField(required=True, error_messages={"required": "Tick that you are sure: the public will see the rows of the backup."})

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = True
        self.fields["reason"].error_messages["required"] = "Say why these rows are brought back."


def _pipeline(slug: str) -> Pipeline:
    return get_object_or_404(Pipeline.objects.select_related("dataset", "provider", "portal"), slug=slug)


@needs_view
@require_GET
def backups(request: HttpRequest, slug: str) -> HttpResponse:
    """The backups of a pipeline's table, the newest first."""
    one = _pipeline(slug)
    context = {"pipeline": one, "may_operate": request.user.has_perm(OPERATE)}
    try:
        holding = upkeep.of_pipeline(one)
        context |= {"holding": holding, "entries": list(holding.entries()[:200])}
    except PipelineError as error:
        context["why_not"] = f"{error.message} {error.next_step}"
    return render(request, "pipelines/backups.html", context)


@act
def make(request: HttpRequest, slug: str) -> HttpResponse:
    """Back the table up now."""
    one = _pipeline(slug)
    try:
        made = upkeep.back_up(upkeep.of_pipeline(one))
    except PipelineError as error:
        messages.error(request, secrets.redact(f"No backup was made. {error.message} {error.next_step}".strip()))
    else:
        messages.success(request, f"Saved: {made.words}." if made.is_new else f"Nothing changed since the last backup: {made.words}.")
    return redirect("backups", slug=slug)


@needs_operate
@require_http_methods(["GET", "POST"])
def restore(request: HttpRequest, slug: str, sha256: str) -> HttpResponse:
    """What bringing a backup back would do; the POST does it."""
    one = _pipeline(slug)
    form = RestoreForm(request.POST if request.method == "POST" else None)
    context = {"pipeline": one, "form": form, "most_rows": MOST_ROWS}
    try:
        holding = upkeep.of_pipeline(one)
        backup = upkeep.chosen(holding, sha256)
    except PipelineError as error:
        return render(request, "pipelines/backup_restore.html", context | {"why_not": f"{error.message} {error.next_step}"}, status=404)
    context |= {"holding": holding, "backup": backup, "is_large": backup.rows > MOST_ROWS}
    if request.method == "POST" and not context["is_large"] and form.is_valid():
        try:
            rows = upkeep.restore(holding, backup, actor=Actor.of(request.user), reason=form.cleaned_data["reason"])
        except PipelineError as error:
            messages.error(request, secrets.redact(f"Nothing was restored. {error.message} {error.next_step}".strip()))
        else:
            messages.success(request, f"Restored: {rows:,} rows of {sha256[:12]}. What was there before is a backup too.")
        return redirect("backups", slug=slug)
    return render(request, "pipelines/backup_restore.html", context, status=422 if request.method == "POST" else 200)
