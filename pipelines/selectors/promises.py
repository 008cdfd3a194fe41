"""What the public was promised, and which datasets are late by it. Pure: the pipelines carry what is newest of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.conf import settings

from catalog.models import Dataset, RefreshRate
from pipelines import clock
from pipelines.models import Pipeline


@dataclass(frozen=True)
class LatePromise:
    """A dataset whose newest data is older than what was promised by `since`."""

    dataset: Dataset
    since: datetime
    newest: datetime | None
    pipeline: Pipeline


def late_promises(pipelines: Iterable[Pipeline], now: datetime) -> list[LatePromise]:
    """Datasets that are late by their own promise; `pipelines` come from `schedule.pipelines_with_newest`."""
    by_dataset: dict[int, list[Pipeline]] = {}
    for pipeline in pipelines:
        by_dataset.setdefault(pipeline.dataset_id, []).append(pipeline)
    late = []
    for feeding in by_dataset.values():
        dataset = feeding[0].dataset
        promised = promised_by(dataset, now)
        if promised is None:
            continue
        through, since = promised
        newest = max((pipeline.newest_end for pipeline in feeding if pipeline.newest_end), default=None)
        # a pipeline that was made after the promise fell due has not broken it
        young = all(pipeline.created_at > since for pipeline in feeding)
        if not (newest and newest >= through) and not (newest is None and young):
            late.append(LatePromise(dataset, since, newest, feeding[0]))
    return late


#: Rates that name no day on which new data is owed; what is called real-time is owed as data by the hour is.
UNPROMISED = (RefreshRate.IRREGULAR, RefreshRate.NEVER)
HOURLY = (RefreshRate.REAL_TIME, RefreshRate.HOURLY)


def promised_by(dataset: Dataset, now: datetime) -> tuple[datetime, datetime] | None:
    """Up to which instant data was promised, and since when it should have been here; None where nothing was promised.

    A period's data is due at `promise_time` of the day after it, or by the end of that day; an hour's within the next hour.
    """
    if dataset.is_retired or dataset.refresh_rate in UNPROMISED:
        return None
    if dataset.refresh_rate in HOURLY:
        through = now.replace(minute=0, second=0, microsecond=0) - clock.HOUR
        return through, through + clock.HOUR
    zone = settings.TIME_ZONE
    day = now.astimezone(clock.zone(zone)).date()
    while True:
        day = _period_start(dataset.refresh_rate, day)
        due = clock.local_instant(day, dataset.promise_time, zone) if dataset.promise_time else clock.day_start(day + timedelta(days=1), zone)
        if due <= now:
            return clock.day_start(day, zone), due
        day -= timedelta(days=1)


def _period_start(rate: str, day: date) -> date:
    if rate == RefreshRate.WEEKLY:
        return day - timedelta(days=day.weekday())
    if rate == RefreshRate.FORTNIGHTLY:
        # two weeks from Monday to Sunday, counted since the first Monday of the calendar
        return day - timedelta(days=(day.toordinal() - 1) % 14)
    if rate == RefreshRate.MONTHLY:
        return day.replace(day=1)
    if rate == RefreshRate.QUARTERLY:
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    if rate == RefreshRate.HALF_YEARLY:
        return day.replace(month=1 if day.month < 7 else 7, day=1)
    return day.replace(month=1, day=1) if rate == RefreshRate.YEARLY else day


def promise_words(dataset: Dataset) -> str:
    """The promise as people read it: "Daily by 07:00"."""
    by = f" by {dataset.promise_time:%H:%M}" if dataset.promise_time and dataset.refresh_rate not in HOURLY else ""
    return f"{dataset.get_refresh_rate_display()}{by}"
