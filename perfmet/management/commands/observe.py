"""Observe the sensors anew: what each gave on a day, against what was expected."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from perfmet import observe, tasks
from perfmet.health import day_words
from perfmet.models import Health, SensorWatch
from perfmet.observe import Seen
from pipelines.errors import PipelineError
from pipelines.management.base import DONE, FAILED, NOTHING, OpsCommand, count, pipelines_named, refusal

WATCH_IT = "Make a watch for it under Settings, Sensor watches."


class Command(OpsCommand):
    help = "Observe the sensors of watched pipelines anew, from what standardize counted or from the table. Twice is harmless."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 1 a pipeline could not be observed, 2 bad usage, 3 nothing to do"
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="slugs of pipelines; none: all that are watched")
        parser.add_argument("--from", dest="first", default="", metavar="YYYY-MM-DD", help="the first day (default: that of the first block)")
        parser.add_argument("--to", dest="last", default="", metavar="YYYY-MM-DD", help="the last day (default: that of the last block)")

    def act(self, **options: Any) -> int:
        first, last = (self._day(options[name]) for name in ("first", "last"))
        if first and last and last < first:
            raise refusal(f"The span from {first} to {last} ends before it begins.", "Swap the two days.")
        told, failed = [], []
        for watch in self._watches(options["pipelines"]):
            slug = watch.pipeline.slug
            try:
                seen = self._observe(watch, first, last)
            except PipelineError as error:
                failed.append({"pipeline": slug, "error": error.message, "next_step": error.next_step})
                self.complain(f"{slug}: {error.message}", error.next_step)
                continue
            told.append({"pipeline": slug, **_as_json(seen)})
            self.say(f"{slug}: {_words(seen)}")
        if self.as_json:
            self.print_json({"observed": told, "failed": failed})
        if failed:
            return FAILED
        return DONE if any(each["days"] for each in told) else NOTHING

    def _watches(self, slugs: list[str]) -> list[SensorWatch]:
        """The watches on these pipelines in their order, switched off or not, or all that are on. Raises Refusal."""
        watches = SensorWatch.objects.select_related("pipeline__provider")
        if not slugs:
            found = list(watches.filter(is_active=True).order_by("pipeline__slug"))
            if not found:
                raise refusal("No pipeline is watched.", "Make a watch under Settings, Sensor watches.")
            return found
        named = pipelines_named(slugs)
        by_pipeline = {watch.pipeline_id: watch for watch in watches.filter(pipeline__in=named)}
        if missing := [pipeline.slug for pipeline in named if pipeline.pk not in by_pipeline]:
            raise refusal(f"Nobody watches the sensors of {', '.join(missing)}.", WATCH_IT)
        return [by_pipeline[pipeline.pk] for pipeline in named]

    def _observe(self, watch: SensorWatch, first: date | None, last: date | None) -> Seen | None:
        recorded = observe.recorded_days(watch)
        first, last = first or (recorded and recorded[0]), last or (recorded and recorded[1])
        if not first or not last or last < first:
            return None
        now = timezone.now()
        days = tasks.whole_days(watch, observe.days_between(first, last), now)
        return observe.gather(watch, days, open_days=tasks.open_days(watch, days, now))

    @staticmethod
    def _day(given: str) -> date | None:
        if not given:
            return None
        try:
            # fromisoformat takes other forms too, which nobody means here
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", given):
                return date.fromisoformat(given)
        except ValueError:
            pass
        raise refusal(f"{given!r} is no day.", "Write it like 2026-10-01.")


def _as_json(seen: Seen | None) -> dict[str, Any]:
    if not seen or not seen.days:
        return {"days": 0}
    return {
        "days": len(seen.days),
        "from": seen.days[0].isoformat(),
        "to": seen.days[-1].isoformat(),
        "rows": seen.written,
        "health": {str(health): number for health, number in sorted(seen.health.items())},
    }


def _words(seen: Seen | None) -> str:
    if not seen or not seen.days:
        return "it has nothing to observe of these days yet."
    first, last = seen.days[0], seen.days[-1]
    span = f"{day_words(first)} {first.year}" + (f" to {day_words(last)} {last.year}" if last != first else "")
    health = ", ".join(f"{seen.health[one]:,} {Health(one).label.lower()}" for one in Health if seen.health[one])
    return f"{count(len(seen.days), 'day')}, {span}. Of each sensor and day: {health or 'no sensor sent anything'}."
