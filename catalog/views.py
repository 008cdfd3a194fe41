"""The lake's pages: what lies there, one file, its bytes, and whether they are still the same; those of boundary layers and of the inventory."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack

from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import content_disposition_header

from catalog import audit, inventory, selectors
from catalog import boundaries as layers
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.forms import InventoryUpload
from catalog.gates import act, needs_inventory, needs_view
from catalog.lake import PipelineError
from catalog.lake import lake as the_lake
from catalog.models import BoundaryLayer, CatalogEntry, InventoryEdition, Layer

PIECE = 256 * 1024
#: A preview is stored within this many seconds, or is made again.
HELD_SECONDS = 3600
HELD = "catalog.inventory"


@needs_view
def lake(request: HttpRequest) -> HttpResponse:
    filters = selectors.LakeFilters.of(request.GET)
    if request.GET.get("format") == "csv":
        return csv_response(
            "lake.csv",
            [
                "dataset",
                "pipeline",
                "layer",
                "file",
                "window_start",
                "window_end",
                "bytes",
                "rows",
                "sha256",
                "pointer",
                "origin",
                "arrived_at",
                "withdrawn_at",
            ],
            (
                [
                    e.dataset.slug,
                    e.source,
                    e.layer,
                    e.name,
                    e.window_start,
                    e.window_end,
                    e.bytes,
                    e.rows,
                    e.sha256,
                    e.pointer,
                    e.origin,
                    e.created_at,
                    e.withdrawn_at,
                ]
                for e in filters.files().iterator(chunk_size=2000)
            ),
        )
    page = selectors.lake_page(filters, request.GET.get("page", 1))
    return render(request, "catalog/lake.html", {"lake": page, "layers": Layer.values})


@needs_view
def lake_file(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "catalog/file.html", {"file": selectors.file_page(_entry(pk))})


@needs_view
def lake_download(request: HttpRequest, pk: int) -> HttpResponse:
    """The bytes as they lie in the lake, streamed."""
    entry = _entry(pk)
    try:
        body = _Body(entry.pointer)
    except PipelineError as error:
        messages.error(request, f"It can't be downloaded: {error.message} {error.next_step}".strip())
        return redirect("lake_file", pk=pk)
    response = StreamingHttpResponse(body, content_type="application/octet-stream")
    response["Content-Length"] = str(body.size)
    response["Content-Disposition"] = content_disposition_header(True, entry.name)
    return response


@act
def lake_check(request: HttpRequest, pk: int) -> HttpResponse:
    entry = _entry(pk)
    answer = selectors.check(entry)
    audit.write(Actor.of(request.user), "check", kind="file", target=entry.pointer, result=answer.text)
    messages.add_message(request, messages.SUCCESS if answer.is_equal else messages.ERROR, answer.text)
    return redirect("lake_file", pk=pk)


def _entry(pk: int) -> CatalogEntry:
    return get_object_or_404(CatalogEntry.objects.select_related("dataset"), pk=pk)


class _Body:
    """The file as pieces; Django calls `close` when the answer is sent or the reader has gone."""

    def __init__(self, pointer: str):
        self._held = ExitStack()
        self.size = the_lake().size(pointer)
        self._stream = self._held.enter_context(the_lake().open(pointer))

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._stream.read(PIECE):
            yield piece

    def close(self) -> None:
        self._held.close()


# boundary layers


@needs_view
def boundaries(request: HttpRequest) -> HttpResponse:
    return render(request, "catalog/boundaries.html", {"lines": selectors.boundary_lines()})


@needs_view
def boundary(request: HttpRequest, slug: str) -> HttpResponse:
    layer = _layer(slug)
    if request.GET.get("format") == "csv":
        try:
            lines = selectors.area_lines(layer)
        except PipelineError as error:
            messages.error(request, f"There is no table: {error.message} {error.next_step}".strip())
            return redirect(layer)
        header = ["key", "label", "square_kilometres", "west", "south", "east", "north"]
        return csv_response(f"{slug}.csv", header, ([line.key, line.label, f"{line.size:.4f}", *line.bounds] for line in lines))
    return render(request, "catalog/boundary.html", {"page": selectors.layer_page(layer, request.GET)})


@needs_view
def boundary_file(request: HttpRequest, slug: str) -> HttpResponse:
    """The file as it was uploaded."""
    layer = _layer(slug)
    try:
        body = layers.content_of(layer)
    except PipelineError as error:
        messages.error(request, f"It can't be downloaded: {error.message} {error.next_step}".strip())
        return redirect(layer)
    response = HttpResponse(body, content_type="application/geo+json")
    response["Content-Disposition"] = content_disposition_header(True, f"{slug}.geojson")
    return response


def _layer(slug: str) -> BoundaryLayer:
    return get_object_or_404(BoundaryLayer.objects.defer("content"), slug=slug)


# the inventory


@needs_view
def inventories(request: HttpRequest) -> HttpResponse:
    return render(request, "catalog/inventories.html", {"lines": selectors.inventory_lines()})


@needs_view
def inventory_edition(request: HttpRequest, code: str) -> HttpResponse:
    """One edition: a page, its CSV, or the document that the original keeps."""
    form = request.GET.get("format")
    if form in ("csv", "json"):
        return _download(_edition(code, request.GET.get("edition")), form)
    page = selectors.inventory_page(code, request.GET)
    if page is None:
        raise Http404(f"The inventory {code} has no such edition.")
    return render(request, "catalog/inventory.html", {"page": page})


def _edition(code: str, number: str | None) -> InventoryEdition:
    editions = InventoryEdition.objects.filter(code=code).order_by("-dated_at")
    found = (editions.filter(pk=selectors.asked.number(number)) if number else editions).first()
    if found is None:
        raise Http404(f"The inventory {code} has no such edition.")
    return found


def _download(edition: InventoryEdition, form: str) -> HttpResponse:
    name = f"{edition.code}_{timezone.localtime(edition.dated_at):%Y-%m-%d}_unit_data.{form}"
    if form == "csv":
        fields = inventory.fields_of(edition.units)
        return csv_response(name, fields, ([unit.get(field) for field in fields] for unit in edition.units))
    response = JsonResponse(inventory.document(edition), json_dumps_params={"indent": 1, "ensure_ascii": False})
    response["Content-Disposition"] = content_disposition_header(True, name)
    return response


@needs_inventory
def inventory_upload(request: HttpRequest) -> HttpResponse:
    """A file is read and shown; what was shown is what is stored: it travels with the page, signed, and no file is sent twice."""
    if request.method != "POST":
        given = {name: request.GET[name] for name in ("code",) if name in request.GET}
        return _upload_page(request, InventoryUpload(initial=given))
    if "held" in request.POST:
        return _store(request)
    form = InventoryUpload(request.POST, request.FILES)
    if not form.is_valid():
        return _upload_page(request, form)
    name, content = form.cleaned_data["file"].name, form.content
    held = signing.dumps(
        {"code": form.code, "dated": form.dated_at.isoformat(), "file": name, "content": b64encode(content).decode()}, salt=HELD, compress=True
    )
    if len(held) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE - 10_000:
        form.add_error("file", "The file is too large to be shown here. Store it with: python3 manage.py inventory import FILE")
        return _upload_page(request, form)
    preview = selectors.inventory_preview(form.code, form.dated_at, name, form.reading)
    return render(request, "catalog/inventory_upload.html", {"form": form, "preview": preview, "held": held})


def _upload_page(request: HttpRequest, form: InventoryUpload) -> HttpResponse:
    return render(request, "catalog/inventory_upload.html", {"form": form, "fields": inventory.FIELDS}, status=422 if form.errors else 200)


def _store(request: HttpRequest) -> HttpResponse:
    try:
        held = signing.loads(request.POST["held"], salt=HELD, max_age=HELD_SECONDS)
    except signing.BadSignature:
        messages.error(request, "The preview is too old, or was changed on its way. Choose the file again.")
        return redirect("inventory_upload")
    code, dated_at = held["code"], inventory.moment(held["dated"])
    try:
        reading = inventory.read(held["file"], b64decode(held["content"]))
        stored = inventory.store(
            code,
            dated_at,
            reading.units,
            Actor.of(request.user),
            origin=held["file"],
            reason=request.POST.get("reason", "").strip(),
            replace=request.POST.get("replace") == "yes",
        )
    except PipelineError as error:
        messages.error(request, f"Nothing was stored: {error.message} {error.next_step}".strip())
        return redirect("inventory_upload")
    messages.add_message(request, messages.INFO if stored.verb == "same" else messages.SUCCESS, stored.text)
    return redirect(f"{reverse('inventory', args=[code])}?edition={stored.edition.pk}")
