"""The monthly report of trips as an upkeep job: of the month before, kept with the run, and told to a webhook where one is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from django.utils import timezone

from pipelines import clock, secrets
from pipelines.connectors.base import Parameter
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import after, notices
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.trip_counts import LONG_MILES, Line, Terms, chosen, last_day, month_before, months, of_month

#: Nobody waits at a page for it.
SECONDS = 600


class TripReport(Job):
    """The same numbers as the page of trips shows for that month, by the zone of the job."""

    kind = "trip-report"
    label = "Monthly trip report"
    about = "Counts the trips of the month before, by provider, keeps the numbers with the run and tells a webhook, if there is one."
    options = (
        Parameter("table", "Table of trips", help="Empty: the first that MDS pipelines load."),
        Parameter("valid_only", "Only valid trips", default="yes", help="yes: 0.1 to 500 miles and under a day; no: all."),
        Parameter("long_miles", "Long from (miles)", default=str(LONG_MILES)),
        Parameter("k", "Smallest count that is told", default="0", help="MDS asks for 10. 0: all are told."),
        Parameter("webhook", "Slack-compatible webhook", help="env:NAME of the variable that holds its address. Empty: nobody is told."),
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        source = chosen(str(job.options.get("table", "")))
        now = timezone.now()
        terms = of_month(
            month_before(now.astimezone(clock.zone(job.time_zone)).date()),
            job.time_zone,
            valid_only=str(job.options.get("valid_only", "yes")).lower() not in ("no", "false", "0"),
            long_miles=self.number(job, "long_miles"),
            k=self.number(job, "k"),
        )
        note(f"Counting the trips of {terms.first:%B %Y} in {source.name}.")
        lines = months(source, terms, now=now, seconds=SECONDS)
        note(month=f"{terms.first:%Y-%m}", table=source.name, lines=[as_json(line.cells(terms)) for line in lines])
        words = told(terms, lines)
        if not (webhook := job.options.get("webhook")):
            return words
        return f"{words}\n{after.tell(secrets.reveal(webhook), notices.payloads(words), owner=f'the job {job.title}')}"


def as_json(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A line's cells as JSON keeps them."""
    numbers = {name: float(value) for name, value in cells.items() if isinstance(value, Decimal)}
    return {**cells, **numbers, **{name: value.isoformat() for name, value in cells.items() if isinstance(value, date)}}


def told(terms: Terms, lines: Sequence[Line]) -> str:
    """The report in a sentence, and a line a provider."""
    is_month = terms.first.day == 1 and terms.last == last_day(terms.first)
    span = f"{terms.first:%B %Y}" if is_month else f"{terms.first} to {terms.last}"
    trips = sum(line.trips or 0 for line in lines)
    miles = sum((line.miles or Decimal(0) for line in lines), Decimal(0))
    some = ", without the counts that are too small to be told" if any("trips" in line.hidden for line in lines) else ""
    said = [f"Trips in {span}: {trips:,}, {miles:,.0f} miles{some}."]
    said += [f"{line.provider}: {f'fewer than {terms.k}' if line.trips is None else f'{line.trips:,}'} trips{_far(line)}" for line in lines]
    if waiting := sum(line.hours_open for line in lines):
        said.append(f"{waiting:,} hours have not come in yet, so the numbers may grow.")
    return "\n".join(said)


def _far(line: Line) -> str:
    return f", {line.miles:,.0f} miles" if line.miles else ""
