"""What is owed: the list of pipelines, one pipeline's blocks, the re-run with its preview, pause and resume, the lists of runs and blocks."""

from __future__ import annotations

from datetime import datetime

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from catalog import asked
from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import OPERATE, act, needs_operate, needs_view
from pipelines import clock, planner
from pipelines.forms import ActForm
from pipelines.models import COUNTS, Cadence, Pipeline, Trigger
from pipelines.selectors import after, attributes, faces, lists, manners, promises, schedule, tables, today
from pipelines.selectors import preview as previews
from pipelines.selectors.grid import Grid, as_input, block_grid
from pipelines.selectors.trouble import troubles
from pipelines.stages import columns
from pipelines.views.order import BEGINNINGS, WHICH, OrderForm, PlaceForm

TABS = [("blocks", "Blocks"), ("runs", "Runs"), ("durations", "Durations"), ("settings", "Settings")]
SHOWN_LINES = 500


# the list


@needs_view
@require_GET
def pipelines(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    known = list(schedule.pipelines_with_newest())
    show, provider = request.GET.get("show", ""), request.GET.get("provider", "")
    lines = [line for line in schedule.pipeline_lines(_chosen(known, show, provider, now), now) if show != "trouble" or line.face in _TROUBLE]
    lines.sort(key=lambda line: (line.next_due is None, line.next_due or now, line.pipeline.title) if show == "due" else (line.pipeline.title,))
    if request.GET.get("format") == "csv":
        return _pipelines_csv(lines)
    providers = sorted({pipeline.provider for pipeline in known}, key=lambda found: found.title)
    return render(
        request,
        "pipelines/pipelines.html",
        {"lines": lines, "known": len(known), "show": show, "shows": SHOWS, "providers": providers, "provider": provider},
    )


SHOWS = [("", "All"), ("trouble", "With trouble"), ("late", "Late by their promise"), ("due", "Due in 2 h"), ("paused", "Paused")]
_TROUBLE = (faces.FAILED, faces.CRASHED, faces.SUSPICIOUS, faces.MISSING, faces.OVERDUE, faces.HELD)


def _chosen(known: list[Pipeline], show: str, provider: str, now: datetime) -> list[Pipeline]:
    chosen = [pipeline for pipeline in known if not provider or pipeline.provider.slug == provider]
    if show == "late":
        late = {promise.dataset.pk for promise in promises.late_promises(known, now)}
        return [pipeline for pipeline in chosen if pipeline.dataset_id in late]
    if show == "due":
        due = today.due_soon(known, now).pipeline_ids
        return [pipeline for pipeline in chosen if pipeline.pk in due]
    if show == "paused":
        return [pipeline for pipeline in chosen if pipeline.is_paused]
    return chosen


def _pipelines_csv(lines: list[schedule.PipelineLine]) -> HttpResponse:
    return csv_response(
        "pipelines.csv",
        ["pipeline", "title", "provider", "dataset", "state", "cadence", "last_finished", "next_due", "newest_data", "rows_a_day", "kept", "owed"],
        (
            [
                line.pipeline.slug, line.pipeline.title, line.pipeline.provider.slug, line.pipeline.dataset.slug, line.face.word, line.cadence,
                line.last_finish, line.next_due, line.newest, line.rows_a_day, line.kept, line.owed,
            ]
            for line in lines
        ),
    )  # fmt: skip


# one pipeline


@needs_view
@require_GET
def pipeline(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    one = _one(slug)
    if request.GET.get("format") == "json":
        return _pipeline_json(one, now)
    tab = request.GET.get("tab", "blocks")
    if tab not in dict(TABS):
        raise Http404(f"A pipeline has no page {tab!r}. It has {', '.join(dict(TABS))}.")
    shared = {
        "pipeline": one,
        "now": now,
        "tab": tab,
        "tabs": TABS,
        "cadence": schedule.cadence_words(one),
        "reads_in_short": manners.reads_in_short(one),
        "next_due": planner.next_due(one, now),
        "troubles": [trouble for trouble in troubles(now) if trouble.pipeline_id == one.pk],
        "after_failures": after.failures([one]),
        "unaccepted": columns.unaccepted(one),
        "may_operate": request.user.has_perm(OPERATE),
        "act_form": ActForm(),
        "mates": tables.mates(one),
        "own_key": tables.key_words(one.key),
    }
    return _TAB_VIEWS[tab](request, one, now, shared)


def _blocks_tab(request: HttpRequest, one: Pipeline, now: datetime, shared: dict) -> HttpResponse:
    grid = block_grid(one, now, asked.day(request.GET.get("until") or request.GET.get("day"))[0])
    if request.GET.get("format") == "csv":
        return _grid_csv(one, grid)
    failed = [trouble for trouble in shared["troubles"] if trouble.face.look in ("failed", "crashed")]
    return render(
        request,
        "pipelines/pipeline.html",
        {
            **shared,
            "grid": grid,
            "which": WHICH,
            "beginnings": _beginnings(one),
            "from_value": _input(one, grid.trouble_start),
            "to_value": _input(one, grid.trouble_end, is_end=True),
            "input_type": "datetime-local" if one.cadence == Cadence.HOURLY else "date",
            "failed": sum(trouble.count for trouble in failed),
            "failed_from": _input(one, min((trouble.first_start for trouble in failed), default=None)),
            "failed_to": _input(one, max((trouble.last_end for trouble in failed), default=None), is_end=True),
        },
    )


def _runs_tab(request: HttpRequest, one: Pipeline, now: datetime, shared: dict) -> HttpResponse:
    page = lists.run_page(lists.RunFilter(pipeline=one.slug, before=asked.number(request.GET.get("before"))))
    return render(request, "pipelines/pipeline_runs.html", {**shared, "page": page})


def _durations_tab(request: HttpRequest, one: Pipeline, now: datetime, shared: dict) -> HttpResponse:
    found = lists.durations(one, now)
    if request.GET.get("format") == "csv":
        return _runs_csv(f"{one.slug}-durations.csv", found.runs)
    return render(request, "pipelines/pipeline_durations.html", {**shared, "durations": found})


def _settings_tab(request: HttpRequest, one: Pipeline, now: datetime, shared: dict) -> HttpResponse:
    context = {**shared, "edit_href": _edit_href(request, one), "after_steps": after.of_pipeline(one), "manners": manners.of(one, now)}
    context["reading"] = attributes.reading(one)
    return render(request, "pipelines/pipeline_settings.html", context)


_TAB_VIEWS = {"blocks": _blocks_tab, "runs": _runs_tab, "durations": _durations_tab, "settings": _settings_tab}


def _edit_href(request: HttpRequest, one: Pipeline) -> str:
    """Where this person may edit it; empty where he may not."""
    if not (request.user.is_staff and request.user.has_perm("pipelines.change_pipeline")):
        return ""
    try:
        return reverse("admin:pipelines_pipeline_change", args=[one.pk])
    except NoReverseMatch:
        return ""


def _pipeline_json(one: Pipeline, now: datetime) -> JsonResponse:
    grid = block_grid(one, now)
    squares = sorted((cell for row in grid.rows for cell in row.cells if cell), key=lambda cell: cell.starts_at)
    return JsonResponse(
        {
            "pipeline": one.slug,
            "title": one.title,
            "provider": one.provider.slug,
            "dataset": one.dataset.slug,
            "cadence": one.cadence,
            "time_zone": one.time_zone,
            "stages": one.stages,
            "is_paused": one.is_paused,
            "next_due": planner.next_due(one, now),
            "windows": [
                {"starts_at": cell.starts_at, "ends_at": cell.ends_at, "shown_as": cell.face.word, "page": cell.href, **_stored(cell)}
                for cell in squares
            ],
        },
        json_dumps_params={"indent": 1},
    )


def _grid_csv(one: Pipeline, grid: Grid) -> HttpResponse:
    squares = sorted((cell for row in grid.rows for cell in row.cells if cell), key=lambda cell: cell.starts_at)
    return csv_response(
        f"{one.slug}-blocks.csv",
        ["starts_at", "ends_at", "window", "state", "rows", "rejected", "upstream_status"],
        (
            [cell.starts_at, cell.ends_at, clock.window_text(cell.starts_at, cell.ends_at, one.time_zone), cell.face.word, *_stored(cell).values()]
            for cell in squares
        ),
    )


def _stored(cell: faces.Square) -> dict[str, int | None]:
    """What the cell's block says in numbers; None where there is no block."""
    return {name: getattr(cell.block, name, None) for name in ("rows", "rejected", "upstream_status")}


# re-run: the preview is a page, the press is a POST to the same address


@needs_operate
@require_http_methods(["GET", "POST"])
def rerun(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    one = _one(slug)
    form = OrderForm(one, request.POST if request.method == "POST" else request.GET)
    press = PlaceForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and press.is_valid():
        return _place(request, one, form, press)
    status = 422 if request.method == "POST" else 200 if form.is_valid() else 400
    preview = previews.preview(form.order(), now) if form.is_valid() else None
    return render(
        request,
        "pipelines/rerun.html",
        {
            "pipeline": one,
            "form": form,
            "press": press,
            "preview": preview,
            "shown": preview.lines[:SHOWN_LINES] if preview else [],
            "left_out": max(0, len(preview.lines) - SHOWN_LINES) if preview else 0,
            "which": WHICH,
            "beginnings": _beginnings(one),
            "stops": form.fields["stop"].choices,
            "chosen": form.cleaned_data if form.is_valid() else form.data,
            "command": form.command() if form.is_valid() else "",
            "from_value": _input(one, form.cleaned_data["starts_at"]) if form.is_valid() else "",
            "to_value": _input(one, form.cleaned_data["ends_at"], is_end=True) if form.is_valid() else "",
            "input_type": "datetime-local" if one.cadence == Cadence.HOURLY else "date",
        },
        status=status,
    )


def _place(request: HttpRequest, one: Pipeline, form: OrderForm, press: PlaceForm) -> HttpResponse:
    placed = planner.place(
        form.order(), actor=Actor.of(request.user), reason=press.cleaned_data["reason"], trigger=Trigger.BUTTON, seen=press.fences()
    )
    moved, refused = len(placed.moved), len(placed.refused)
    blocks = "block" if moved == 1 else "blocks"
    if moved:
        messages.success(request, f"Asked to run {moved:,} {blocks}. Workers take them oldest first, {one.provider.max_parallel} at once.")
    if refused:
        messages.warning(request, f"{refused:,} left alone. {placed.refused[0].text}")
    if not moved and not refused:
        messages.info(request, "Nothing was asked: no block of this span is left to run.")
    return redirect(one)


def _input(one: Pipeline, moment: datetime | None, *, is_end: bool = False) -> str:
    return as_input(moment, one, is_end=is_end) if moment else ""


def _beginnings(one: Pipeline) -> list[tuple[str, str]]:
    return [("", "Where each block stands"), *((stage, BEGINNINGS[stage]) for stage in one.stages)]


# pause and resume


@act
def pause(request: HttpRequest, slug: str) -> HttpResponse:
    return _pause_or_resume(request, slug, planner.pause)


@act
def resume(request: HttpRequest, slug: str) -> HttpResponse:
    return _pause_or_resume(request, slug, planner.resume)


def _pause_or_resume(request: HttpRequest, slug: str, verb) -> HttpResponse:
    one = get_object_or_404(Pipeline, slug=slug)
    form = ActForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"Nothing was done. {' '.join(form.errors.get('reason', ['The form was not complete.']))}")
        return redirect(one)
    verdict = verb(one, actor=Actor.of(request.user), reason=form.cleaned_data["reason"])
    messages.add_message(request, messages.SUCCESS if verdict.moved else messages.WARNING, verdict.text)
    return redirect(one)


# lists


@needs_view
@require_GET
def runs(request: HttpRequest) -> HttpResponse:
    get = request.GET
    wanted = lists.RunFilter(
        pipeline=get.get("pipeline", ""),
        stage=get.get("stage", ""),
        state=get.get("state", ""),
        trigger=get.get("trigger", ""),
        day=asked.day(get.get("day"))[0],
        before=asked.number(get.get("before")),
    )
    csv = get.get("format") == "csv"
    page = lists.run_page(wanted, size=10_000 if csv else lists.RUNS_A_PAGE)
    if csv:
        return _runs_csv("runs.csv", page.runs)
    return render(
        request,
        "pipelines/runs.html",
        {
            "page": page,
            "wanted": wanted,
            "pipelines": schedule.pipeline_choices(),
            "stages": lists.STAGES,
            "states": lists.RUN_STATES,
            "triggers": lists.TRIGGERS,
            "is_filtered": any((wanted.pipeline, wanted.stage, wanted.state, wanted.trigger, wanted.day)),
        },
    )


def _runs_csv(name: str, found) -> HttpResponse:
    return csv_response(
        name,
        ["run", "pipeline", "window_start", "stage", "state", "attempt", "trigger", "asked_by", "started_at", "seconds", *COUNTS, "bytes", "message"],
        (
            [
                run.pk, run.block.pipeline.slug, run.block.starts_at, run.stage, run.state, run.attempt, run.trigger, run.asked_by, run.started_at,
                run.seconds, *run.counts().values(), run.bytes, run.message,
            ]
            for run in found
        ),
    )  # fmt: skip


@needs_view
@require_GET
def block_list(request: HttpRequest) -> HttpResponse:
    state, slug = request.GET.get("state", "failed"), request.GET.get("pipeline", "")
    if state not in lists.BLOCK_LISTS:
        raise Http404(f"There is no list of {state!r} blocks. There are {', '.join(lists.BLOCK_LISTS)}.")
    csv = request.GET.get("format") == "csv"
    size = 10_000 if csv else lists.RUNS_A_PAGE
    page = lists.block_page(state, slug, asked.number(request.GET.get("before")), timezone.now(), size)
    if csv:
        return csv_response(
            f"blocks-{state}.csv",
            ["block", "pipeline", "starts_at", "ends_at", "stage", "state", "since", "rows", "message", "next_step"],
            ([b.pk, b.pipeline.slug, b.starts_at, b.ends_at, b.stage, b.state, b.changed_at, b.rows, b.message, b.next_step] for b in page.blocks),
        )
    return render(
        request,
        "pipelines/blocks.html",
        {"page": page, "state": state, "lists": lists.BLOCK_LISTS.items(), "slug": slug, "pipelines": schedule.pipeline_choices()},
    )


@needs_view
@require_GET
def running(request: HttpRequest) -> HttpResponse:
    """The running blocks as the table that the first page shows, asked again by the page itself."""
    return render(request, "pipelines/_running.html", {"running": today.running()})


def _one(slug: str) -> Pipeline:
    return get_object_or_404(tables.with_mates(schedule.pipelines_with_newest()), slug=slug)
