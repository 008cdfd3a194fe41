"""After a load: views refreshed, tables analyzed, caches cleared, reports reloaded, people told. Each with a state of its own.

`blocks.py` notes what is due in the transaction of a load's end; here it is claimed, done, and its end recorded in words.
Nothing here moves a block: what fails stays visible until it is done again, and the load is as good as it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from types import ModuleType
from urllib.parse import urlsplit

import requests
import urllib3
from django.conf import settings
from django.db import connection, transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from catalog import audit
from catalog.audit import Actor
from pipelines import secrets, warehouse
from pipelines.blocks import Verdict
from pipelines.connectors.http import Door, Reply
from pipelines.errors import PipelineError, SetupError, TransientError
from pipelines.models import AfterRun, AfterStep, Run, RunState, ScheduleBlock, Stage, State
from pipelines.upkeep import notices

log = logging.getLogger(__name__)

Kind = AfterStep.Kind

#: So long an outside address may take for its answer; a report that reloads is slow.
ANSWER_SECONDS = 120
#: Longer than the longest statement in a warehouse: whoever has done a step for so long was lost.
LOST_AFTER = timedelta(minutes=35)
#: What the worker that loaded has not begun by then, it will not: the tick rings for it.
LEFT_AFTER = timedelta(minutes=1)
#: One call begins nothing new after so long; what is left waits for the next.
SHIFT_SECONDS = 30 * 60
#: A webhook that is asked too often says when it may be asked again; longer pauses are not waited for.
LONGEST_NAP_SECONDS = 30
LONGEST_WORDS = 2_000
CLAIM_LOCK = 0x0D0_AF7E

_IN_WAREHOUSE = frozenset({Kind.REFRESH, Kind.ANALYZE, Kind.VACUUM})
#: Done once for a later load, these are done for the earlier one too.
ONCE_IS_ENOUGH = _IN_WAREHOUSE | {Kind.POST}


# whose turn it is


def carry_out(*, block_ids: Collection[int] | None = None, limit: int = 1_000) -> list[AfterRun]:
    """Do what waits, of these blocks or of all, in the order of the steps; returns what ended here. It may take half an hour.

    Several processes may call it at once: each step is done by one of them.
    """
    ended: list[AfterRun] = []
    until = time.monotonic() + SHIFT_SECONDS
    while len(ended) < limit and time.monotonic() < until and (one := _claim(block_ids)):
        ended.append(_carry(one))
    return ended


@transaction.atomic
def _claim(block_ids: Collection[int] | None) -> AfterRun | None:
    """Take the next one whose turn it is; None when there is none. Marks as skipped what need not be done any more."""
    with connection.cursor() as cursor:
        # for the milliseconds of a claim: two at once could begin the same refresh twice, and one would fail for the other's lock
        cursor.execute("select pg_advisory_xact_lock(%s)", [CLAIM_LOCK])
    rows = AfterRun.objects.filter(state__in=[AfterRun.State.WAITING, AfterRun.State.RUNNING]).select_related("step__pipeline", "run")
    open_ = list(rows.order_by("asked_at", "run_id", "step__position", "step_id"))
    waiting = [one for one in open_ if one.state == AfterRun.State.WAITING]
    skipped = {one.pk: words for one in waiting if (words := _needless(one, waiting))}
    for pk, words in skipped.items():
        _end(pk, AfterRun.State.SKIPPED, words)
    going = {_deed(one) for one in open_ if one.state == AfterRun.State.RUNNING}
    begun_runs: set[int] = set()
    for one in open_:
        if one.pk in skipped:
            continue
        if one.step.kind != Kind.NOTIFY:
            # in their order: a cache that is cleared before the view is refreshed fills with the old rows again
            its_turn = one.run_id not in begun_runs and _deed(one) not in going
            begun_runs.add(one.run_id)
        else:
            its_turn = True
        if one.state == AfterRun.State.WAITING and its_turn and (block_ids is None or one.run.block_id in block_ids):
            AfterRun.objects.filter(pk=one.pk).update(state=AfterRun.State.RUNNING, started_at=Now(), finished_at=None, message="")
            return AfterRun.objects.select_related("step__pipeline", "run__block").get(pk=one.pk)
    return None


def _deed(one: AfterRun) -> tuple:
    """What is done, wherever it was asked: two pipelines that feed one table refresh the same view."""
    step, pipeline = one.step, one.step.pipeline
    if step.kind in _IN_WAREHOUSE:
        return step.kind, pipeline.warehouse, step.target or pipeline.table
    if step.kind == Kind.POST:
        return step.kind, step.target, step.secret
    return step.kind, one.pk


def _needless(one: AfterRun, waiting: list[AfterRun]) -> str:
    """Why it need not be done; "" when it must."""
    if not one.step.is_active:
        return "The step was switched off before it was begun."
    if one.step.kind in ONCE_IS_ENOUGH and any(other.run_id > one.run_id and _deed(other) == _deed(one) for other in waiting):
        return "A later load is due to do the same."
    return ""


def _end(pk: int, state: str, words: str) -> None:
    AfterRun.objects.filter(pk=pk).update(state=state, finished_at=Now(), message=_clean(words))


def _clean(words: str) -> str:
    """As the database keeps it and a person may read it: an answer from outside may hold anything."""
    return secrets.redact(words).replace("\x00", "\\x00")[:LONGEST_WORDS]


def _carry(one: AfterRun) -> AfterRun:
    """Do it, and record how it ended. Raises nothing of what the step raises."""
    ended = None
    try:
        ended = _ended(one)
    finally:
        if ended is None:
            # a time-out of the queue, Ctrl-C: the next tick has it begin again, which does no harm if it had been done
            _mine(one).update(state=AfterRun.State.WAITING, started_at=None, message="The worker was stopped; it begins again.")
    state, words = ended
    # one that was given up for lost, and is done by somebody else now, is not ours to end
    _mine(one).update(state=state, finished_at=Now(), message=_clean(words))
    if state == AfterRun.State.FAILED:
        log.warning("%s of %s failed: %s", one.step.kind, one.step.pipeline.slug, words)
    one.refresh_from_db(fields=["state", "started_at", "finished_at", "message"])
    return one


def _ended(one: AfterRun) -> tuple[str, str]:
    """Do it; (state, words) of how it ended."""
    try:
        return AfterRun.State.DONE, _ACTS[Kind(one.step.kind)](one)
    except PipelineError as error:
        return AfterRun.State.FAILED, f"{_sentence(error.message)} {error.next_step}".strip()
    except Exception as error:
        log.exception("step %s after run %s", one.step_id, one.run_id)
        return AfterRun.State.FAILED, f"Unexpected {type(error).__name__}: {error}. This is a fault of the program: report the log."


def _mine(one: AfterRun):
    return AfterRun.objects.filter(pk=one.pk, state=AfterRun.State.RUNNING, started_at=one.started_at)


def _sentence(words: str) -> str:
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?", '"')) else f"{words}."


# what the tick does


def give_up_lost() -> int:
    """Mark as failed what a worker began and never ended; returns how many."""
    words = "The worker that did it was lost: whether it was done is not known. Try it again."
    lost = AfterRun.objects.filter(state=AfterRun.State.RUNNING, started_at__lt=Now() - LOST_AFTER)
    return lost.update(state=AfterRun.State.FAILED, finished_at=Now(), message=words)


def is_left() -> bool:
    """Whether something waits that the worker of its load has not begun."""
    return AfterRun.objects.filter(state=AfterRun.State.WAITING, asked_at__lt=Now() - LEFT_AFTER).exists()


def failed() -> QuerySet[AfterRun]:
    """What waits for a person: of each active step the last time that it was done, where that failed."""
    ended = AfterRun.objects.filter(step=OuterRef("pk"), state__in=[AfterRun.State.DONE, AfterRun.State.FAILED]).order_by("-pk").values("pk")[:1]
    last = AfterStep.objects.filter(is_active=True).annotate(ended=Subquery(ended)).values("ended")
    return AfterRun.objects.filter(state=AfterRun.State.FAILED, pk__in=last)


def faults(step: AfterStep) -> list[PipelineError]:
    """Why the step could not be done, as far as that is known without asking anybody outside. `step` has its pipeline."""
    found = []
    for question in (lambda: secrets.reveal(step.secret) if step.secret else None, lambda: step.kind in _IN_WAREHOUSE and _warehouse(step)):
        try:
            question()
        except PipelineError as error:
            found.append(error)
    return found


# what a person does


@transaction.atomic
def retry(after_run_id: int, *, actor: Actor, reason: str = "") -> Verdict:
    """Ask for a failed step again, by hand; whoever calls `carry_out` next does it. Leaves its audit row, refused or not.

    Raises AfterRun.DoesNotExist.
    """
    one = AfterRun.objects.select_related("step", "run").get(pk=after_run_id)
    if not one.step.is_active:
        moved, text = False, "The step is switched off."
    else:
        failed = AfterRun.objects.filter(pk=one.pk, state=AfterRun.State.FAILED)
        moved = bool(failed.update(state=AfterRun.State.WAITING, asked_at=Now(), started_at=None, finished_at=None, message=""))
        one.refresh_from_db(fields=["state"])
        text = "Asked to do it again." if moved else f"Only a failed step can be done again; this one is {one.state}."
    result = f"{secrets.redact(str(one.step))}: {text}" if moved else f"refused: {text}"
    audit.write(actor, "retry", kind="block", target=str(one.run.block_id), reason=reason, result=result, after_run=one.pk)
    return Verdict(moved=moved, text=text, block_id=one.run.block_id)


# the steps


def _refresh(one: AfterRun) -> str:
    engine, dsn = _warehouse(one.step)
    return engine.refresh(dsn, one.step.target)


def _analyze(one: AfterRun) -> str:
    engine, dsn = _warehouse(one.step)
    return engine.analyze(dsn, one.step.target or one.step.pipeline.table)


def _vacuum(one: AfterRun) -> str:
    engine, dsn = _warehouse(one.step)
    return engine.vacuum(dsn, one.step.target or one.step.pipeline.table)


def _warehouse(step: AfterStep) -> tuple[ModuleType, str]:
    """(engine, address) of the pipeline's warehouse. Raises SetupError."""
    alias = step.pipeline.warehouse
    if alias not in settings.WAREHOUSES:
        raise SetupError(f"There is no warehouse {alias!r}.", code="no-warehouse", next_step="Name it in WAREHOUSES, or choose another.")
    dsn = settings.WAREHOUSES[alias]
    return warehouse.engine(dsn), dsn


def _post(one: AfterRun) -> str:
    address = one.step.target
    try:
        reply = _ask(one, "POST", address, payload={})
    except TransientError as error:
        if error.code == "http-202":  # to a connector "not ready"; to us: taken, and done when the other side comes to it
            return f"{_host(address)} answered 202."
        raise
    return f"{_host(address)} answered {reply.status}."


def _reload(one: AfterRun) -> str:
    address, expect = one.step.target, one.step.expect
    text = _ask(one, "GET", address).body.decode("utf-8", "replace")
    if expect and expect not in text:
        said = " ".join(text.split())[:200]
        raise SetupError(f"{_host(address)} answered without the words “{expect}”; it began: {said or 'nothing'}", code="not-expected")
    return f"{_host(address)} answered" + (f", and said “{expect}”." if expect else ".")


def _ask(one: AfterRun, method: str, address: str, payload: dict | None = None) -> Reply:
    """One request, with the step's secret as bearer token. Raises PipelineError."""
    secret = secrets.reveal(one.step.secret) if one.step.secret else ""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    with _door(_owner(one.step), (secret,)) as door:
        return _in_own_words(lambda: door.ask(method, address, payload=payload, headers=headers))


def _notify(one: AfterRun) -> str:
    if not one.step.secret:
        raise SetupError("The webhook's address was never entered.", code="secret-missing", next_step="Enter it in the step's secret.")
    return tell(secrets.reveal(one.step.secret), notices.posts(_ending(one)), owner=_owner(one.step))


def tell(address: str, posts: Sequence[dict[str, str]], *, owner: str, pause: Callable[[], None] = lambda: None) -> str:
    """Post to a Slack-compatible webhook; returns in words that it took them. Raises PipelineError, which never quotes the address.

    `pause` is called between two posts.
    """
    # the address is the secret: whoever knows it may write to the channel
    never_said = _pieces(address)
    secrets.redact.learn(*never_said[:2])  # for the log, where libraries tell of each request by its path
    with _door(owner, never_said) as door:
        for number, payload in enumerate(posts, start=1):
            if number > 1:
                pause()
            try:
                _told(door, address, payload)
            except PipelineError as error:
                before = f" {number - 1} of {len(posts)} posts had arrived." if number > 1 else ""
                raise type(error)(f"{_sentence(error.message)}{before}", code=error.code, next_step=error.next_step) from None
    return f"{_host(address)} took it" + (f", in {len(posts)} posts." if len(posts) > 1 else ".")


def _told(door: Door, address: str, payload: dict[str, str]) -> None:
    """Post one piece; where the webhook says that it is asked too often, after the pause that it wants."""
    for last in (False, False, True):
        try:
            _in_own_words(lambda: door.ask("POST", address, payload=payload))
        except TransientError as error:
            if error.code == "http-202":
                return
            if last or error.code != "http-429" or not error.retry_after or error.retry_after > LONGEST_NAP_SECONDS:
                raise
            time.sleep(error.retry_after)
        else:
            return


def _pieces(address: str) -> tuple[str, ...]:
    """The address of a webhook, and what of it an error could repeat: its path, and each long part of that."""
    path = urlsplit(address).path
    return tuple(piece for piece in (address, path, *path.split("/")) if len(piece) > 8)


def _ending(one: AfterRun) -> notices.Ending:
    """How the block of this run ended, as it was noted then."""
    run = one.run
    ended = run.details.get("ended", {})
    if ended.get("state") == State.FAILED:
        how = notices.BADLY
    elif ended.get("state") == State.DONE and ended.get("mark") != ScheduleBlock.Mark.SUSPICIOUS:
        how = notices.WELL
    else:
        how = notices.PERHAPS
    load = _load_of(run)
    return notices.Ending(
        title=one.step.pipeline.title,
        how=how,
        message=secrets.redact(ended.get("message") or run.message),
        inserted=load.inserted if load else 0,
        updated=load.updated if load else 0,
        prefix=one.step.prefix,
    )


def _load_of(run: Run) -> Run | None:
    """The load whose rows this end is about: the last one, unless the source was read again since and brought nothing to load."""
    so_far = Run.objects.filter(block=run.block_id, pk__lte=run.pk, state__in=[RunState.DONE, RunState.UNCHANGED])
    load = so_far.filter(stage=Stage.LOAD, state=RunState.DONE).first()
    read = so_far.filter(stage=Stage.EXTRACT).first()
    return load if load and (read is None or load.pk > read.pk) else None


class _PlainDoor(Door):
    """The door, for those who answer in a line of plain text: Slack says "channel_not_found", a cache "busy"."""

    def _said(self, response: requests.Response) -> str:
        if not response.headers.get("Content-Type", "").startswith("text/plain"):
            return super()._said(response)
        try:
            start = response.raw.read(2_000, decode_content=True).decode("utf-8", "replace")
        except (OSError, urllib3.exceptions.HTTPError):
            return ""  # the status is the news; its reason was cut
        return " ".join("".join(sign if sign.isprintable() else " " for sign in start).split())[:200]


def _owner(step: AfterStep) -> str:
    return f"the step after a load of {step.pipeline.slug}"


def _door(owner: str, never_said: tuple[str, ...]) -> Door:
    """The one way out, with a deadline for all of it. A POST is sent once: nobody knows what a second one would do."""
    return _PlainDoor(
        settings.OUTBOUND_ALLOW,
        read_timeout=ANSWER_SECONDS,
        deadline=ANSWER_SECONDS,
        max_held_bytes=8 * 1024 * 1024,
        secrets=never_said,
        owner=owner,
    )


def _in_own_words(ask: Callable[[], Reply]) -> Reply:
    """What `ask` answers; the advice of the door is for datasets, and here it is about an address."""
    try:
        return ask()
    except PipelineError as error:
        if error.code in ("http-404", "http-410"):
            error.next_step = "Check the address of this step."
        elif error.code in ("http-401", "http-403"):
            error.next_step = "Check the secret of this step."
        raise


def _host(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


_ACTS: dict[str, Callable[[AfterRun], str]] = {
    Kind.REFRESH: _refresh,
    Kind.ANALYZE: _analyze,
    Kind.VACUUM: _vacuum,
    Kind.POST: _post,
    Kind.RELOAD: _reload,
    Kind.NOTIFY: _notify,
}
