"""What a webhook is told of a job's run: which webhook, whether it is to be told at all, and what became of it.

A job that failed to tell anybody is as done as it was: how the telling went stands in `UpkeepRun.noticed`, on the job's page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.conf import settings

from pipelines import secrets
from pipelines.errors import PipelineError
from pipelines.models import Notices, UpkeepJob, UpkeepRun
from pipelines.upkeep import after, notices

log = logging.getLogger(__name__)

#: Slack takes one post a second; more in a row are refused.
PACE_SECONDS = 1.0
#: Stands before the words of a job that failed.
FAILED = ":red_circle: Failed:"
SENDER = "Open Data Ops"
LONGEST_WORDS = 300


def tell(run: UpkeepRun, *, is_news: bool, is_its_own: bool, pause: Callable[[float], None]) -> None:
    """Tell the webhook of a run that has ended, if it is to be told, and write down what became of it. Raises nothing that a webhook causes.

    `is_its_own`: the words are those that the job chose for it, not just the run's message; `is_news`: and it is not the same as ever.
    `pause(seconds)` is called between posts.
    """
    said = _silence(run, is_news, is_its_own)
    if not said:
        # who is stopped now leaves that behind
        _write(run, "It was begun to be told, and nobody knows how that ended.")
        said = _told(run, pause)
    _write(run, said)


def head(job: UpkeepJob) -> str:
    """What stands over each post."""
    return f"*{job.title}* | {settings.ENVIRONMENT.upper()}"


def webhook(job: UpkeepJob) -> str:
    """The address to post to; "" where there is none. Raises SetupError where the stored one can't be opened.

    Outside production the setting for that goes before all others: a copy of the database must not speak in the city's channel.
    """
    if not is_production() and settings.NOTICE_WEBHOOK_TEST:
        return settings.NOTICE_WEBHOOK_TEST
    if job.webhook:
        return secrets.reveal(job.webhook)
    return settings.NOTICE_WEBHOOK if is_production() else ""


def is_production() -> bool:
    return settings.ENVIRONMENT == "prod"


def _silence(run: UpkeepRun, is_news: bool, is_its_own: bool) -> str:
    """Why nobody is told; "" where somebody is."""
    job, is_trouble, was_trouble = run.job, bool(run.details.get("trouble")), _was_trouble(run)
    if run.is_dry:
        return "Nobody was told: it only looked."
    if job.notices == Notices.NEVER:
        return "Nobody was told: the job is set to tell nobody."
    if not run.notice.strip():
        return "Nobody was told: there was nothing to tell."
    if is_trouble and was_trouble and str(job.options.get("repeat", "yes")).strip().lower() == "no":
        return "Nobody was told: they were when it began, and are told when it ends."
    if not (is_trouble or was_trouble):
        if job.notices == Notices.TROUBLE:
            return "Nobody was told: nothing is wrong."
        if is_its_own and not is_news:
            return "Nobody was told: there was nothing new to tell."
        if not is_its_own and not job.webhook:
            # the city's webhook would be flooded by jobs that only ever say that they ran
            return "Nobody was told: it went well, and the job names no webhook of its own."
    return ""


def _was_trouble(run: UpkeepRun) -> bool:
    """Whether the last run that came to an end, and did not only look, was in trouble."""
    earlier = UpkeepRun.objects.filter(job=run.job_id, is_dry=False, pk__lt=run.pk, details__has_key="trouble")
    return bool(earlier.order_by("-pk").values_list("details__trouble", flat=True).first())


def _told(run: UpkeepRun, pause: Callable[[float], None]) -> str:
    """Post it; what became of that, in words."""
    sender = SENDER if is_production() else f"{SENDER} ({settings.ENVIRONMENT})"
    try:
        if not (address := webhook(run.job)):
            return "Nobody was told: no webhook is named, by the job or by the settings."
        posts = notices.reports(head(run.job), run.notice, sender)
        return after.tell(address, posts, owner=f"the job {run.job.title}", pause=lambda: pause(PACE_SECONDS))
    except PipelineError as error:
        words = f"Could not be told: {error.message} {error.next_step}".strip().replace("of this step", "of this job's webhook")
    except Exception as error:
        # the run has ended well or badly on its own account: its end must not become another
        log.exception("The webhook of the upkeep job %s could not be told", run.job)
        words = f"Could not be told: unexpected {type(error).__name__}. This is a fault of the program: report the log."
    log.warning("%s: %s", run.job, words)
    return words


def _write(run: UpkeepRun, words: str) -> None:
    run.noticed = secrets.redact(words)[:LONGEST_WORDS]
    UpkeepRun.objects.filter(pk=run.pk).update(noticed=run.noticed)
