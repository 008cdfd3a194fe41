"""A block's story, and the presses on it: each verb has a page that says what it will do, and a POST that does it."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import content_disposition_header
from django_htmx.http import HttpResponseStopPolling

from catalog.audit import Actor
from catalog.exports import csv_response
from catalog.gates import OPERATE, act, needs_operate, needs_view
from pipelines import blocks, planner
from pipelines.forms import ActForm
from pipelines.models import ScheduleBlock, State, Trigger
from pipelines.selectors import blocks as selectors
from pipelines.selectors.after import of_block
from pipelines.selectors.chain import earlier_runs, reconcile
from pipelines.selectors.reports import report
from pipelines.stages import columns

GOES_ON_AS_REBUILD = "It goes on with the initialize that was asked for: a new table takes the old one’s place."
VERBS = ("run", "force", "rerun", "cancel", "hold", "release", "accept")


@needs_view
def block(request: HttpRequest, pk: int) -> HttpResponse:
    story = _story(request, pk)
    context = {"story": story, "afterwards": of_block(story.block), "may_operate": request.user.has_perm(OPERATE)}
    return render(request, "pipelines/block.html", context)


@needs_view
def block_fragment(request: HttpRequest, pk: int) -> HttpResponse:
    """The moving part of the page. A block that neither runs nor waits answers 286, and htmx asks no more."""
    story = _story(request, pk)
    response = render(request, "pipelines/_block_fragment.html", {"story": story, "may_operate": request.user.has_perm(OPERATE)})
    if story.block.state in (State.RUNNING, State.WAITING):
        return response
    return HttpResponseStopPolling(response.content)


@needs_view
def block_json(request: HttpRequest, pk: int) -> HttpResponse:
    """The same report that `run --json` and `status --json` print."""
    return JsonResponse(report(_one_block(pk)), json_dumps_params={"indent": 2})


@needs_view
def block_log(request: HttpRequest, pk: int) -> HttpResponse:
    """The log as text, with the filters of the page."""
    one = _one_block(pk)
    lines = selectors.log_lines(one, request.GET.get("level", ""), request.GET.get("q", ""))
    response = StreamingHttpResponse(
        (f"{line.at:%Y-%m-%dT%H:%M:%SZ} run {line.run_id} {line.run.stage} {line.level} {line.text}\n" for line in lines.iterator()),
        content_type="text/plain; charset=utf-8",
    )
    response["Content-Disposition"] = content_disposition_header(True, f"block-{pk}-log.txt")
    return response


@needs_view
def rejected_csv(request: HttpRequest, pk: int) -> HttpResponse:
    """The rejected rows; `?all=1` takes those of replaced runs with them."""
    one = _one_block(pk)
    runs = list(one.runs.all())
    chain = reconcile(runs, one.pipeline.stages, earlier_runs(runs))
    rows = selectors.rejected_rows(one, None if request.GET.get("all") else selectors.current_rejecting_runs(chain, runs))
    return csv_response(
        f"block-{pk}-rejected.csv",
        ["run", "reason", "column", "value", "key", "file", "line", "raw", "at", "replayed_at"],
        (
            [
                row.run_id,
                row.reason,
                row.column,
                row.value,
                row.row_key,
                row.file,
                row.line,
                selectors.raw_json(row),
                row.at,
                row.replayed_at,
            ]
            for row in rows.iterator()
        ),
    )


@needs_operate
def block_confirm(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    one = _one_block(pk)
    if verb == "accept" and one.error_code == columns.CHANGED:
        return redirect("accept_columns", slug=one.pipeline.slug)
    proposal = _proposal(one, verb, request.GET.get("stage", ""))
    form = ActForm(initial={"seen_fence": one.fence, "stage": proposal.stage}, verb=verb)
    return render(request, "pipelines/block_confirm.html", {"one": one, "proposal": proposal, "form": form})


@act
def block_act(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    one = _one_block(pk)
    form = ActForm(request.POST, verb=verb)
    proposal = _proposal(one, verb, request.POST.get("stage", ""))
    if not form.is_valid():
        return render(request, "pipelines/block_confirm.html", {"one": one, "proposal": proposal, "form": form}, status=422)
    moved, text = _do(one, proposal, Actor.of(request.user), form.cleaned_data["reason"], form.cleaned_data["seen_fence"])
    messages.add_message(request, messages.SUCCESS if moved else messages.ERROR, text if moved else f"Nothing was done. {text}")
    return redirect(one)


@dataclass(frozen=True)
class Proposal:
    """What a press would do, in words, before it is pressed."""

    verb: str
    title: str
    does: list[str]
    button: str
    stage: str = ""
    stages: tuple[str, ...] = ()
    refusal: str = ""
    known_rows: int | None = None


def _do(one: ScheduleBlock, proposal: Proposal, actor: Actor, reason: str, seen_fence: int | None) -> tuple[bool, str]:
    if proposal.verb == "accept":
        verdict = blocks.accept(one.pk, actor=actor, reason=reason, seen_fence=seen_fence)
        return verdict.moved, verdict.text
    if proposal.verb in ("cancel", "hold", "release"):
        verdict = getattr(blocks, proposal.verb)(one.pk, actor=actor, reason=reason)
        if verdict.moved and proposal.verb == "release":
            planner.ring(one.pk)
        return verdict.moved, verdict.text
    placed = planner.place(
        _order(one, proposal.verb, proposal.stage),
        actor=actor,
        reason=reason,
        trigger=Trigger.BUTTON,
        seen=None if seen_fence is None else {one.pk: seen_fence},
    )
    if placed.moved:
        return True, f"Asked to run {' → '.join(proposal.stages)}. A worker takes it within seconds."
    return False, " ".join(verdict.text for verdict in placed.refused) or "The block is gone."


def _order(one: ScheduleBlock, verb: str, stage: str) -> planner.Order:
    own = list(one.pipeline.stages)
    stages = own[own.index(stage) :] if verb == "rerun" and stage in own else None
    return planner.Order(pipelines=[one.pipeline], which="all", stages=stages, force=verb == "force", block_ids=[one.pk])


def _proposal(one: ScheduleBlock, verb: str, stage: str) -> Proposal:
    """Raises Http404 for a verb or a stage that there isn't."""
    if verb not in VERBS:
        raise Http404(f"There is no act {verb!r}. The acts on a block are {', '.join(VERBS)}.")
    if verb == "rerun" and stage not in one.pipeline.stages:
        raise Http404(f"{one.pipeline.title} has no stage {stage!r}. It has {', '.join(one.pipeline.stages)}.")
    if verb in ("cancel", "hold", "release"):
        return _standstill(one, verb)
    if verb == "accept":
        return _acceptance(one)
    line = planner.preview(_order(one, verb, stage))[0]
    title = {"run": "Run this block", "force": "Force this block", "rerun": f"Re-run from {stage}"}[verb]
    publishes = "publish" in line.will
    what = " → ".join(line.will)
    return Proposal(
        verb=verb,
        title=title,
        does=[
            *([GOES_ON_AS_REBUILD] if blocks.stays_rebuild(one, list(line.will)) else []),
            *_stage_words(one, line.will, verb == "force"),
            "If the rows are already the same, nothing changes: running twice is harmless.",
        ],
        button=f"{'Force' if verb == 'force' else 'Run'} {what}" + (f" to {one.pipeline.portal.title}" if publishes and one.pipeline.portal else ""),
        stage=stage if verb == "rerun" else "",
        stages=line.will,
        refusal=f"It can't be done now: {line.skip}." if line.skip else "",
        known_rows=line.known_rows,
    )


def _standstill(one: ScheduleBlock, verb: str) -> Proposal:
    if verb == "cancel":
        return Proposal(
            verb=verb,
            title="Cancel this block",
            does=[
                f"Stops {one.stage} within about 10 seconds and holds the block.",
                "Nothing half-done stays: the warehouse is as it was before this stage.",
                "Files that are whole already stay in the lake. Chunks that a portal has confirmed stay there; a later run goes on after them.",
                "Nothing of it runs again until somebody releases or runs it.",
            ],
            button=f"Cancel {one.stage}" if one.state == State.RUNNING else "Cancel and hold",
            refusal="" if one.state in (State.RUNNING, State.WAITING) else f"There is nothing to cancel: the block is {one.state}.",
        )
    if verb == "hold":
        return Proposal(
            verb=verb,
            title="Hold this block",
            does=["Keeps the block from running, by schedule or retry, until somebody releases it. Other blocks of the pipeline go on."],
            button="Hold this block",
            refusal="" if one.state in (State.WAITING, State.FAILED) else f"Only a waiting or failed block can be held; this one is {one.state}.",
        )
    return Proposal(
        verb=verb,
        title="Release this block",
        does=[f"Lets it go on at {one.stage}, at once, with its tries counted from none."],
        button=f"Release and run from {one.stage}",
        refusal="" if one.state == State.HELD else f"Only a held block can be released; this one is {one.state}.",
    )


def _acceptance(one: ScheduleBlock) -> Proposal:
    rows = f"{one.rows:,} row{'s' * (one.rows != 1)}" if one.rows else "no rows"
    if one.mark != ScheduleBlock.Mark.SUSPICIOUS:
        refusal = "There is nothing to accept: nothing about it is suspicious."
    else:
        refusal = "" if one.state in (State.DONE, State.HELD) else f"It is {one.state} at {one.stage}: look again when it is done."
    return Proposal(
        verb="accept",
        title="Accept this block as it is",
        does=[
            f"Says that {rows} is right for this block: the mark “suspicious” goes, and the block is called done.",
            "Later blocks are judged by it too: what was unusual once is less so the next time.",
            "Nothing is read, loaded or published by it.",
        ],
        button=f"Accept {rows}",
        refusal=refusal,
    )


def _stage_words(one: ScheduleBlock, stages: tuple[str, ...], force: bool) -> list[str]:
    """What each stage will do, in sentences."""
    pipeline = one.pipeline
    rows = f"about {one.rows:,} rows" if one.rows is not None else "the rows"
    words = {
        "extract": f"Asks {pipeline.provider.title} for {rows} of {pipeline.resource}"
        + (" even if it says that nothing has changed." if force else "; skips the rest if it says that nothing has changed."),
        "standardize": "Turns the raw file into the city's own form and keeps what it rejects, with the reason.",
        "enrich": "Adds places and names to the rows.",
        "aggregate": "Gathers the rows of each quarter of an hour.",
        "load": f"Loads {rows} into the table {pipeline.table} in one transaction; readers see the old rows or the new ones.",
        "publish": f"Publishes what differs to {pipeline.portal.title if pipeline.portal else 'the portal'}, {pipeline.portal_resource}.",
    }
    return [f"{stage}: {words[stage]}" for stage in stages]


def _one_block(pk: int) -> ScheduleBlock:
    try:
        return selectors.one_block(pk)
    except ScheduleBlock.DoesNotExist:
        raise Http404(f"There is no block {pk}.") from None


def _story(request: HttpRequest, pk: int) -> selectors.BlockStory:
    try:
        return selectors.block_story(
            pk,
            timezone.now(),
            level=request.GET.get("level", ""),
            search=request.GET.get("q", "").strip(),
            page=request.GET.get("page", 1),
            all_rejected=bool(request.GET.get("all")),
        )
    except ScheduleBlock.DoesNotExist:
        raise Http404(f"There is no block {pk}.") from None
