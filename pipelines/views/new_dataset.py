"""A new dataset from an address: paste it, see what lies there, mend what was recognised, save."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_http_methods

from catalog.audit import Actor
from catalog.models import Dataset, RefreshRate
from pipelines import importers, secrets
from pipelines.connectors import connector_for
from pipelines.errors import PipelineError
from pipelines.formats.attributes import TYPES
from pipelines.importers import by_address
from pipelines.importers.by_address import Line
from pipelines.models import Cadence, Pipeline, Provider

MAY = ("catalog.add_dataset", "pipelines.add_pipeline", "pipelines.add_provider")
#: More columns than any table of the city's has (220).
MOST_COLUMNS = 1_000
SHOWN_ROWS = 10


class AddressForm(forms.Form):
    """Where it lies, and what can't be seen from outside."""

    address = forms.CharField(max_length=2000, label="Address")
    format = forms.ChoiceField(required=False, choices=[("", "By its name"), *((word, word) for word in by_address.FORMATS)])
    sheet = forms.CharField(required=False, max_length=100, help_text="Of an Excel file. Empty: the first.")
    jsonpath = forms.CharField(required=False, max_length=200, label="Path to the rows", help_text="Of JSON, like $.result.rows")
    encoding = forms.CharField(required=False, max_length=40, help_text="Of CSV, like latin1. Empty: UTF-8.")
    delimiter = forms.CharField(required=False, max_length=1, strip=False, label="Cells divided by", help_text="Of CSV. Empty: a comma.")
    where = forms.CharField(required=False, max_length=500, label="Filter", help_text="Of a map layer, like STATUS = 'Open'")

    def options(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in by_address.OPTIONS}


class DatasetForm(forms.Form):
    """What the public is told of it, when it is fetched, and where it goes."""

    title = forms.CharField(max_length=200)
    slug = forms.SlugField(required=False, max_length=100, label="Short name", help_text="Part of its addresses. Empty: made of the title.")
    part = forms.CharField(required=False, max_length=200, label="Table", help_text="Where the dataset has several tables: the name of this one.")
    description = forms.CharField(required=False, label="Notes", widget=forms.Textarea(attrs={"rows": 3}))
    department = forms.CharField(required=False, max_length=200, label="Division")
    steward_email = forms.EmailField(required=False, label="Contact", help_text="An address that people may write to.")
    tags = forms.CharField(required=False, max_length=1000, help_text="Words that people search for, separated by commas.")
    information_url = forms.URLField(required=False, max_length=1000, label="More about it", assume_scheme="https")
    refresh_rate = forms.ChoiceField(choices=RefreshRate.choices, initial=RefreshRate.IRREGULAR, label="Promise")
    portal = forms.ChoiceField(required=False)
    key = forms.CharField(
        required=False, max_length=500, help_text="Columns that name a row, separated by commas. Empty: all rows are replaced each time."
    )
    cadence = forms.ChoiceField(
        choices=[choice for choice in Cadence.choices if choice[0] not in (Cadence.HOURLY,)], initial=Cadence.DAILY, label="Fetched"
    )
    cron = forms.CharField(required=False, max_length=100, help_text="For “By a cron expression”: minute hour day month weekday.")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        portals = [(one.slug, one.title) for one in Provider.objects.filter(is_active=True).order_by("title") if connector_for(one.kind).can_publish]
        self.fields["portal"].choices = [("", "Not published"), *portals]

    def dataset(self) -> dict[str, Any]:
        told = self.cleaned_data
        names = ("title", "description", "department", "steward_email", "tags", "information_url", "refresh_rate")
        return {"slug": told["slug"] or slugify(told["title"])[:100], **{name: told[name] for name in names}}

    def schedule(self) -> dict[str, Any]:
        return {"cadence": self.cleaned_data["cadence"], "cron": self.cleaned_data["cron"], "time_zone": settings.TIME_ZONE}

    def keys(self) -> list[str]:
        return [name.strip() for name in self.cleaned_data["key"].split(",") if name.strip()]


@login_required
@require_http_methods(["GET", "POST"])
def new_dataset(request: HttpRequest) -> HttpResponse:
    """GET: the address is asked for. POST with `look`: what lies there. POST with `save`: it is made."""
    if not request.user.has_perms(MAY):
        raise PermissionDenied("Only stewards may make a dataset. Ask one to put you into the group “steward”.")
    if request.method == "GET":
        return _page(request, AddressForm(initial={"address": request.GET.get("address", "")}))
    asked = AddressForm(request.POST)
    if not asked.is_valid():
        return _page(request, asked, status=422)
    return _save(request, asked) if "save" in request.POST else _look(request, asked)


def _look(request: HttpRequest, asked: AddressForm) -> HttpResponse:
    try:
        found = by_address.look(asked.cleaned_data["address"], format=asked.cleaned_data["format"], options=asked.options())
    except PipelineError as error:
        return _page(request, asked, trouble=_words(error), status=422)
    lines = [Line(one.source, one.name, one.type, one.format) for one in found.detected.attributes]
    state = found.state
    # what was found out goes back with the form: it is what the pipeline will read by
    again = AddressForm(initial={"address": asked.cleaned_data["address"], "format": found.detected.format, **asked.options(), **found.options})
    told = DatasetForm(
        initial={
            "title": found.title,
            "description": state.description,
            "portal": Provider.objects.filter(kind="ckan", is_active=True).values_list("slug", flat=True).first() or "",
            "cadence": Cadence.DAILY,
        }
    )
    return _page(request, again, found=found, told=told, lines=lines, sample=_sample(found))


def _save(request: HttpRequest, asked: AddressForm) -> HttpResponse:
    told = DatasetForm(request.POST)
    lines = list(_lines(request))
    if not told.is_valid():
        return _page(request, asked, told=told, lines=lines, status=422)
    try:
        planned = by_address.plan(
            asked.cleaned_data["address"],
            format=by_address.format_of(by_address.place_of(asked.cleaned_data["address"]), asked.cleaned_data["format"]),
            options=asked.options(),
            lines=lines,
            dataset=told.dataset(),
            part=told.cleaned_data["part"],
            portal=told.cleaned_data["portal"],
            key=told.keys(),
            schedule=told.schedule(),
        )
        importers.apply(planned, actor=Actor.of(request.user), reason="made from an address in the browser")
    except PipelineError as error:
        return _page(request, asked, told=told, lines=lines, trouble=_words(error), status=422)
    except importers.Refused as refused:
        trouble = " ".join(f"{one.field}: {one.message} {one.next_step}" for one in refused.problems[:5])
        return _page(request, asked, told=told, lines=lines, trouble=secrets.redact(trouble), status=422)
    dataset = Dataset.objects.get(slug=told.dataset()["slug"])
    made = Pipeline.objects.get(dataset=dataset, part=told.cleaned_data["part"])
    messages.success(request, f"{made.title} is made. Its schedule fetches it; or have it fetched now, with “Re-run”.")
    return redirect(made)


def _lines(request: HttpRequest) -> Iterator[Line]:
    """The columns as the form sends them back; one that is not ticked is left out."""
    for number in range(MOST_COLUMNS):
        if f"source-{number}" not in request.POST:
            return
        if request.POST.get(f"take-{number}"):
            said = {name: request.POST.get(f"{name}-{number}", "") for name in ("source", "name", "type", "format", "notes")}
            yield Line(**{**said, "name": said["name"].strip(), "format": said["format"].strip()})


def _sample(found: by_address.Look) -> list[list[tuple[str, bool]]]:
    """Some rows, in the order of the columns: each cell's text, and whether it is a number."""
    columns = [(one.name, one.type in ("int", "float")) for one in found.detected.attributes]
    return [[(str(row.get(name, "")), is_number) for name, is_number in columns] for row in found.detected.sample_rows[:SHOWN_ROWS]]


def _words(error: PipelineError) -> str:
    return secrets.redact(f"{error.message.rstrip('.')}. {error.next_step}".strip())


def _page(request: HttpRequest, asked: AddressForm, *, status: int = 200, **context: Any) -> HttpResponse:
    return render(request, "pipelines/new_dataset.html", {"asked": asked, "types": list(TYPES), **context}, status=status)
