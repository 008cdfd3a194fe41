"""The lake's pages: what lies there, one file, its bytes, and whether they are still the same; and those of boundary layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header

from catalog import audit, selectors
from catalog import boundaries as layers
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import act, needs_view
from catalog.lake import PipelineError
from catalog.lake import lake as the_lake
from catalog.models import BoundaryLayer, CatalogEntry, Layer

PIECE = 256 * 1024


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
