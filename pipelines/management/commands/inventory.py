"""The inventory from the shell: list it, store a file as an edition, write an edition to a file, or see which one a day is matched with."""

from __future__ import annotations

import argparse
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from catalog import inventory, search, selectors
from catalog.models import InventoryEdition
from pipelines.management.base import DONE, NOTHING, OpsCommand, count, me, refusal

#: In words more notes than this are a wall; --json has them all.
TOLD = 20
SEE = "See what there is with: python3 manage.py inventory list"


class Command(OpsCommand):
    help = "List the inventory's editions, import one from a CSV or JSON file, export one, or say which one a day is matched with."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 2 refused or bad usage, 3 there is none"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|import|export|for")
        told = verbs.add_parser("list", help="the inventories, or the editions of one")
        told.add_argument("code", nargs="?", default="", metavar="CODE")
        given = verbs.add_parser("import", help="store a file as an edition")
        given.add_argument("file", metavar="FILE", help="CSV with a header, a JSON list, or a unit_data.json of atd-data-lake")
        given.add_argument("--code", default="", help="which inventory, for example bt; a unit_data.json says it itself")
        given.add_argument("--date", default="", help="from when it counts; else as the file says, else today")
        given.add_argument("--replace", action="store_true", help="take the place of another edition of that date")
        given.add_argument("--dry-run", action="store_true", help="only say what would be stored")
        given.add_argument("--reason", default="", help="why; kept in the audit")
        taken = verbs.add_parser("export", help="write an edition as the document {header, devices}")
        taken.add_argument("code", metavar="CODE")
        taken.add_argument("--date", default="", help="the edition of this date; else the newest")
        taken.add_argument("--output", default="", metavar="FILE", help="a new file; else stdout")
        day = verbs.add_parser("for", help="which edition the data of a day is matched with")
        day.add_argument("code", metavar="CODE")
        day.add_argument("day", metavar="DAY")
        for one in (told, given, taken, day):
            # behind the verb, too, is where people write it
            one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout, and nothing else there")

    def act(self, **options: Any) -> int:
        return {"list": self._list, "import": self._import, "export": self._export, "for": self._for}[options["verb"]](options)

    def _list(self, options: dict[str, Any]) -> int:
        if code := options["code"]:
            editions = list(InventoryEdition.objects.filter(code=code).order_by("-dated_at"))
            if self.as_json:
                self.print_json({"code": code, "editions": [_told(one) for one in editions]})
            for one in editions:
                self.say(f"{_day(one.dated_at)}  {inventory.devices(len(one.units))}  {one.origin}  stored by {one.uploaded_by}")
            if not editions:
                self.say(f"{code} has no edition. Next: python3 manage.py inventory import FILE --code {code}")
            return DONE if editions else NOTHING
        lines = selectors.inventory_lines()
        if self.as_json:
            self.print_json(
                {
                    "inventories": [
                        {
                            "code": line.code,
                            "newest": _day(line.newest.dated_at) if line.newest else None,
                            "devices": line.devices,
                            "editions": line.editions,
                            "pipelines": [slug for _, slug in line.pipelines],
                        }
                        for line in lines
                    ]
                }
            )
        for line in lines:
            newest = f"{count(line.editions, 'edition')}, the newest dated {_day(line.newest.dated_at)} with {inventory.devices(line.devices)}"
            self.say(
                f"{line.code}: {newest if line.newest else 'no edition yet'}; used by {', '.join(slug for _, slug in line.pipelines) or 'nobody'}"
            )
        if not lines:
            self.say("There is no inventory. Next: python3 manage.py inventory import FILE --code bt")
        return DONE if lines else NOTHING

    def _import(self, options: dict[str, Any]) -> int:
        path = Path(options["file"])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise refusal(f"{path} can't be read: {error.strerror}.", "Name a file that is there.") from error
        found = inventory.read(path.name, content)
        code = options["code"] or found.code
        if not code:
            raise refusal(f"{path.name} does not say which inventory it is.", "Say it with --code, for example --code bt.")
        if found.code and options["code"] and found.code != options["code"]:
            raise refusal(f"{path.name} says that it is {found.code}, not {options['code']}.", "Leave --code out, or name the other file.")
        dated_at = _midnight(search.moment(options["date"])) or found.dated_at or inventory.today(timezone.get_current_timezone())
        for note in found.notes[:TOLD]:
            self.complain(note)
        if len(found.notes) > TOLD:
            self.complain(f"and {len(found.notes) - TOLD:,} more like these")
        if options["dry_run"]:
            words = f"Would be stored: {code}, {inventory.devices(len(found.units))}, dated {_day(dated_at)}."
            if self.as_json:
                self.print_json({"dry_run": True, "code": code, "dated": _day(dated_at), "devices": len(found.units), "notes": found.notes})
            self.say(words)
            return DONE
        stored = inventory.store(code, dated_at, found.units, me(), origin=path.name, reason=options["reason"], replace=options["replace"])
        if self.as_json:
            self.print_json({"verb": stored.verb, **_told(stored.edition), "notes": found.notes})
        self.say(stored.text)
        return DONE

    def _export(self, options: dict[str, Any]) -> int:
        editions = InventoryEdition.objects.filter(code=options["code"]).order_by("-dated_at")
        if options["date"]:
            editions = editions.filter(dated_at=_midnight(search.moment(options["date"])))
        edition = editions.first()
        if edition is None:
            raise refusal(f"There is no such edition of {options['code']!r}.", SEE)
        text = json.dumps(inventory.document(edition), indent=1, ensure_ascii=False)
        if not options["output"]:
            self.stdout.write(text)
            return DONE
        try:
            with Path(options["output"]).open("x", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            raise refusal(f"{options['output']} can't be written: {error.strerror}.", "Name a new file in a folder that is there.") from error
        self.say(f"{options['output']}: {edition}, {inventory.devices(len(edition.units))}.")
        return DONE

    def _for(self, options: dict[str, Any]) -> int:
        day = search.moment(options["day"])
        if day is None or isinstance(day, datetime):
            raise refusal(f"{options['day']!r} is no day.", "Write it like 2019-06-01.")
        edition = inventory.edition_for(options["code"], _midnight(day + timedelta(days=1)))
        if self.as_json:
            self.print_json({"day": day, **_told(edition)})
        self.say(f"{day} is matched with {edition.code} dated {_day(edition.dated_at)}: {inventory.devices(len(edition.units))}.")
        return DONE


def _told(edition: InventoryEdition) -> dict[str, Any]:
    return {
        "code": edition.code,
        "dated": _day(edition.dated_at),
        "devices": len(edition.units),
        "origin": edition.origin,
        "uploaded_at": edition.uploaded_at,
        "uploaded_by": edition.uploaded_by,
        "sha256": edition.sha256,
    }


def _day(moment: datetime) -> str:
    """A day, with its time where that is not the city's midnight."""
    local = timezone.localtime(moment)
    return f"{local:%Y-%m-%d}" if (local.hour, local.minute) == (0, 0) else f"{local:%Y-%m-%d %H:%M}"


def _midnight(day: date | datetime | None) -> datetime | None:
    """A day of the city as its beginning."""
    return day if day is None or isinstance(day, datetime) else inventory.moment(day.isoformat())
