"""The monthly report of trips: printed, as JSON, or into a CSV file."""

from __future__ import annotations

import csv
import re
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from catalog.exports import plain
from pipelines import clock
from pipelines.management.base import DONE, OpsCommand, refusal
from pipelines.upkeep import trip_counts
from pipelines.upkeep.trip_report import SECONDS, as_json, told


class Command(OpsCommand):
    help = "Count the trips of MDS providers by provider and month, as the public numbers are counted: 0.1 to 500 miles and under a day."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 told, 2 bad usage, or the warehouse could not count it"
        parser.add_argument("--month", default="", metavar="YYYY-MM", help="the month (default: the one before this)")
        parser.add_argument("--from", dest="first", default="", metavar="YYYY-MM-DD", help="instead of a month: the first day on which trips began")
        parser.add_argument("--to", dest="last", default="", metavar="YYYY-MM-DD", help="and the last one")
        parser.add_argument("--zone", default=settings.TIME_ZONE, help=f"by whose clock months begin (default: {settings.TIME_ZONE}); UTC is one")
        parser.add_argument("--all", action="store_true", help="without the filter: every trip counts")
        parser.add_argument("--long", type=int, default=trip_counts.LONG_MILES, metavar="MILES", help="long is from so many miles on (default: 60)")
        parser.add_argument("--k", type=int, default=0, help="counts under it are not told: -1 in files (default: 0, all are told)")
        parser.add_argument("--by-vehicle", action="store_true", help="a line for each vehicle type")
        parser.add_argument("--table", default="", help="the table of trips, where there are several")
        parser.add_argument("--csv", default="", metavar="FILE", help="write the lines into this file")

    def act(self, **options: Any) -> int:
        terms = self._terms(options)
        source = trip_counts.chosen(options["table"])
        lines = trip_counts.months(source, terms, by_vehicle=options["by_vehicle"], now=timezone.now(), seconds=SECONDS)
        cells = [line.cells(terms) for line in lines]
        if options["csv"]:
            self._write(Path(options["csv"]), cells)
        if self.as_json:
            shown = asdict(terms) | {"first": terms.first.isoformat(), "last": terms.last.isoformat()}
            self.print_json({"table": source.name, "terms": shown, "lines": [as_json(each) for each in cells]})
        else:
            self.say(told(terms, lines))
        return DONE

    def _terms(self, options: dict[str, Any]) -> trip_counts.Terms:
        try:
            today = timezone.now().astimezone(clock.zone(options["zone"])).date()
        except ValueError as error:
            raise refusal(str(error), "Or leave --zone out for the city's own.") from error
        terms = trip_counts.of_month(
            trip_counts.month_before(today), options["zone"], valid_only=not options["all"], long_miles=options["long"], k=options["k"]
        )
        if options["long"] < 1 or options["k"] < 0:
            raise refusal("--long takes 1 mile or more, and --k no number under 0.", "Leave them out for 60 and 0.")
        if options["month"]:
            if options["first"] or options["last"]:
                raise refusal("Give either --month, or --from and --to.", "--month 2026-10 is the whole of October.")
            month = self._day(f"{options['month']}-01", f"{options['month']} is no month.", "2026-10")
            return replace(terms, first=month, last=trip_counts.last_day(month))
        if options["first"] or options["last"]:
            first, last = (self._day(given, f"{given!r} is no day.", "2026-10-01") for given in (options["first"], options["last"]))
            if last < first:
                raise refusal(f"The span from {first} to {last} ends before it begins.", "Swap the two days.")
            return replace(terms, first=first, last=last)
        return terms

    @staticmethod
    def _day(given: str, wrong: str, like: str) -> date:
        try:
            # fromisoformat takes other forms too, which nobody means here
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", given):
                return date.fromisoformat(given)
        except ValueError:
            pass
        raise refusal(wrong, f"Write it like {like}.")

    def _write(self, path: Path, cells: list[dict[str, Any]]) -> None:
        try:
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(trip_counts.COLUMNS)
                writer.writerows([plain(value) for value in each.values()] for each in cells)
        except OSError as error:
            raise refusal(f"{path} can't be written: {error.strerror}.", "Name a file in a folder that you may write to.") from error
        self.say(f"{len(cells):,} lines written to {path}.")
