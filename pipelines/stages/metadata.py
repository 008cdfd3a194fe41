"""What a source says of a dataset: it fills what the steward left empty, and later changes of it are told on the timeline."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models.functions import Now

from catalog.models import Dataset, DatasetEvent, RefreshRate
from pipelines.connectors.base import SourceState
from pipelines.models import Pipeline
from pipelines.stages.note import Note

#: The words of portals for a rate that is certainly one of ours; of another, "three times a week", a steward chooses.
RATES = {
    RefreshRate.REAL_TIME: ("real time", "realtime"),
    RefreshRate.HOURLY: ("hourly", "every hour", "once an hour", "pt1h", "r/pt1h"),
    RefreshRate.DAILY: ("daily", "every day", "nightly", "every night", "once a day", "p1d", "r/p1d"),
    RefreshRate.WEEKLY: ("weekly", "every week", "once a week", "every 7 days", "p1w", "p7d", "r/p1w", "r/p7d"),
    RefreshRate.FORTNIGHTLY: ("fortnightly", "every two weeks", "every 2 weeks", "every 14 days", "p2w", "r/p2w"),
    RefreshRate.MONTHLY: ("monthly", "every month", "once a month", "p1m", "r/p1m"),
    RefreshRate.QUARTERLY: ("quarterly", "every quarter", "every 3 months", "every three months", "once a quarter", "p3m", "r/p3m"),
    RefreshRate.HALF_YEARLY: ("semi annually", "semiannually", "half yearly", "twice a year", "every 6 months", "every six months", "p6m", "r/p6m"),
    RefreshRate.YEARLY: ("yearly", "annually", "annual", "every year", "once a year", "every 12 months", "p1y", "r/p1y"),
    RefreshRate.NEVER: ("will not be refreshed", "never", "not updated", "historical"),
}
_RATE = {words: rate for rate, many in RATES.items() for words in many}
#: What it says → the field of the dataset that it may fill.
FIELDS = {"description": "description", "licence": "licence", "refresh_rate": "refresh_rate", "tags": "tags", "contact": "steward_email"}
#: What a steward left empty; "as needed" is the form's own first choice.
EMPTY = ("", RefreshRate.IRREGULAR)
NAMES = {"title": "title", "description": "description", "licence": "licence", "refresh_rate": "refresh rate", "tags": "tags", "contact": "contact"}
SHOWN = 80


def rate_of(words: str) -> str:
    """The RefreshRate that these words certainly mean, or "". "Three times a week" means none. Pure."""
    return str(_RATE.get(re.sub(r"[\s_-]+", " ", words).strip(" .").lower(), ""))


def told_by(state: SourceState) -> dict[str, str]:
    """What a source says, by the names of NAMES, in its own words; only what it says. Pure."""
    tags = state.metadata.get("tags") or []
    said = {
        "title": state.title,
        "description": state.description,
        "licence": state.licence,
        "refresh_rate": state.refresh_rate,
        "tags": ", ".join(map(str, tags)) if isinstance(tags, list | tuple) else tags,
        "contact": state.metadata.get("contact") or state.metadata.get("contact_email"),
    }
    # the database takes no NUL
    return {name: str(words).replace("\x00", "").strip() for name, words in said.items() if words and str(words).strip("\x00 \n\t")}


def describe_dataset(state: SourceState, pipeline: Pipeline, note: Note) -> None:
    """Fill the dataset's empty fields with the source's words, and tell once what the source changed of them since.

    A field that still holds what the source said before follows it; a person's words stay.
    """
    told = told_by(state)
    with transaction.atomic():
        # two blocks of the dataset may read the same news at once; one tells it
        dataset = Dataset.objects.select_for_update(no_key=True).get(pk=pipeline.dataset_id)
        last = DatasetEvent.objects.filter(dataset=dataset, kind=DatasetEvent.Kind.METADATA, source=pipeline.slug).first()
        before = last.details.get("told", {}) if last else {}
        changed = [name for name in NAMES if told.get(name, "") != before.get(name, "")]
        if not changed:
            return
        taken = _fill(dataset, {name: (before.get(name, ""), told.get(name, "")) for name in changed})
        text = _words(changed, before, told, taken) if last else _first_words(told, taken)
        DatasetEvent.objects.create(
            dataset=dataset,
            kind=DatasetEvent.Kind.METADATA,
            source=pipeline.slug,
            text=text,
            details={"told": told, "changed": {name: [before.get(name, ""), told.get(name, "")] for name in changed}, "taken": sorted(taken)},
            run_id=note.run.pk,
        )
    note.log(text)


def _fill(dataset: Dataset, changed: dict[str, tuple[str, str]]) -> set[str]:
    """Write what may be written; returns the names of what was taken."""
    fields: dict[str, Any] = {}
    taken = set()
    for name, (old, new) in changed.items():
        if name not in FIELDS or not (value := _value(name, new)):
            continue
        present = getattr(dataset, FIELDS[name])
        if present in EMPTY or (old and present == _value(name, old)):
            fields[FIELDS[name]] = value
            taken.add(name)
    if fields:
        Dataset.objects.filter(pk=dataset.pk).update(**fields, updated_at=Now())
    return taken


def _value(name: str, words: str) -> str:
    """The source's words as the dataset's field holds them; "" for what it cannot hold."""
    if name == "refresh_rate":
        return rate_of(words)
    if name == "contact":
        try:
            validate_email(words)
        except ValidationError:
            return ""
    most = Dataset._meta.get_field(FIELDS[name]).max_length
    if most and len(words) > most:
        # whole tags rather than half a word; half an address would be nobody's
        return {"tags": words[:most].rpartition(",")[0], "contact": ""}.get(name, f"{words[: most - 1]}…")
    return words


def _first_words(told: dict[str, str], taken: set[str]) -> str:
    names = [NAMES[name] + (f" ({told[name]})" if len(told[name]) <= SHOWN and name != "tags" else "") for name in NAMES if name in taken]
    if names:
        return f"Taken from the source’s own description: {', '.join(names)}."
    return "The source’s own description was noted; the dataset keeps its words."


def _words(changed: list[str], before: dict[str, str], told: dict[str, str], taken: set[str]) -> str:
    """Each change with old and new where they are short."""
    parts = []
    for name in changed:
        old, new = before.get(name, ""), told.get(name, "")
        values = f": {old or 'nothing'} → {new or 'nothing'}" if max(len(old), len(new)) <= SHOWN else " changed"
        parts.append(f"{NAMES[name]}{values}{' (taken over)' if name in taken else ''}")
    return f"At the source, {'; '.join(parts)}."
