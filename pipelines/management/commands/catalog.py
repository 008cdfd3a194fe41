"""The catalog from the shell: search it, copy files from one repository to another, save it and bring it back."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from catalog import backup, copying, search
from catalog.models import CatalogEntry, Layer
from catalog.search import Search
from pipelines.management.base import DONE, FAILED, NOTHING, OpsCommand, count, me, pipelines_named, refusal
from pipelines.models import Pipeline

#: In words more than this is a wall; --json has them all.
TOLD = 20
TWINS = "twins"


class Command(OpsCommand):
    help = "Search the catalog, copy files between repositories, back the catalog up and restore it."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 done, 1 something was left out, 2 refused or bad usage, 3 nothing was found"
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="search|copy|backup|restore")
        find = verbs.add_parser("search", help="list files; %% and * stand for any letters")
        _add_search(find)
        find.add_argument("--limit", type=int, default=100, help="at most so many (100)")
        find.add_argument("--newest", action="store_true", help="the newest data first")
        copy = verbs.add_parser("copy", help="copy the files that a search finds to another pipeline, such as a test twin")
        _add_search(copy)
        copy.add_argument("--to", required=True, metavar="SLUG", help=f"a pipeline, or {TWINS}: the test twin of each file's own")
        copy.add_argument("--to-layer", default="", choices=["", *Layer.values], metavar="LAYER", help="another layer than the files' own")
        save = verbs.add_parser("backup", help="write every entry and every edition of the inventory as lines of JSON")
        save.add_argument("file", nargs="?", default="", help="a file, packed where it ends in .gz; without one, the lake's backup layer")
        back = verbs.add_parser("restore", help="bring a backup's entries back, each whose file is in the lake")
        back.add_argument("file", nargs="?", default="", help="a file; without one, the newest in the lake's backup layer, or --from-lake")
        back.add_argument("--from-lake", default="", metavar="POINTER", help="a backup in the lake")
        back.add_argument("--verify", choices=backup.VERIFY, default="exists", help="how a file is looked for: its size, its sha256, or not at all")
        for one in (copy, back):
            one.add_argument("--dry-run", action="store_true", help="only say what would be done")
        for one in (copy, save, back):
            one.add_argument("--reason", default="", help="why; kept in the audit")
        for one in (find, copy, save, back):
            # behind the verb, too, is where people write it
            one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout, and nothing else there")

    def act(self, **options: Any) -> int:
        return {"search": self._search, "copy": self._copy, "backup": self._backup, "restore": self._restore}[options["verb"]](options)

    def _search(self, options: dict[str, Any]) -> int:
        found = search.find(_asked(options, limit=options["limit"], newest_first=options["newest"]))
        if self.as_json:
            self.print_json({"total": found.total, "limit": options["limit"], "entries": [search.as_json(entry) for entry in found.entries]})
        for entry in found.entries:
            self.say(_line(entry))
        if not found.entries:
            self.say("No file fits.")
            return NOTHING
        self.say(
            f"{count(len(found.entries), 'file')} of {found.total:,}: raise --limit for more." if found.is_cut else f"{count(found.total, 'file')}."
        )
        return DONE

    def _copy(self, options: dict[str, Any]) -> int:
        asked = _asked(options)
        if not any((asked.source, asked.base, asked.ext, asked.exact, asked.since, asked.until)):
            raise refusal("All files of the lake would be copied.", "Say which: --source, --base, --ext or dates.")
        by_target: dict[Pipeline, list[CatalogEntry]] = {}
        for entry in search.entries(asked):
            by_target.setdefault(_target(options["to"], entry), []).append(entry)
        if not by_target:
            self.say("No file fits.")
            return NOTHING
        told = []
        for target, wanted in by_target.items():
            made = copying.copy(
                wanted,
                source=target.slug,
                dataset=target.dataset,
                actor=me(),
                layer=options["to_layer"],
                is_test=target.is_test,
                reason=options["reason"],
                dry_run=options["dry_run"],
            )
            told.append({"to": target.slug, **vars(made)})
            self.say(f"{target.slug}: {'would be ' if options['dry_run'] else ''}{made.words}")
            for words in made.failed[:TOLD]:
                self.complain(words)
        if self.as_json:
            self.print_json({"dry_run": options["dry_run"], "copied": told})
        return FAILED if any(one["failed"] for one in told) else DONE

    def _backup(self, options: dict[str, Any]) -> int:
        if not options["file"]:
            made = backup.backup_to_lake(me(), reason=options["reason"])
        else:
            path = Path(options["file"]).absolute()
            if path.exists():
                raise refusal(f"{path} is there already.", "Give a new name: a backup takes no other's place.")
            try:
                made = backup.backup(path, me(), reason=options["reason"])
            except OSError as error:
                raise refusal(f"{path} can't be written: {error.strerror}.", "Name a folder that is there and may be written to.") from error
        if self.as_json:
            self.print_json(vars(made))
        self.say(f"Saved: {made.words}")
        return DONE

    def _restore(self, options: dict[str, Any]) -> int:
        if options["file"] and options["from_lake"]:
            raise refusal("A file and a place in the lake are named.", "Name one of them.")
        with tempfile.TemporaryDirectory(prefix="restore-") as folder:
            path = Path(options["file"]).absolute() if options["file"] else backup.fetched(options["from_lake"], Path(folder))
            done = backup.restore(path, me(), verify=options["verify"], dry_run=options["dry_run"], reason=options["reason"])
            name = path.name
        if self.as_json:
            self.print_json({"backup": name, "dry_run": options["dry_run"], "is_whole": done.is_whole, **vars(done)})
        self.say(f"{'Would be restored' if options['dry_run'] else 'Restored'} from {name} of {done.made_at}: {done.words}")
        for what, names in (
            ("not in the lake", done.missing),
            ("not the file that was catalogued", done.altered),
            ("in conflict", done.conflicts),
            ("inventory with other devices", done.editions_other),
        ):
            for one in names[:TOLD]:
                self.complain(f"{what}: {one}")
            if len(names) > TOLD:
                self.complain(f"{what}: and {len(names) - TOLD:,} more")
        return DONE if done.is_whole else FAILED


def _add_search(parser: CommandParser) -> None:
    parser.add_argument("--source", default="", help="a pipeline's slug, its data source (Bluetooth) or its inventory (bt)")
    parser.add_argument("--repository", "--layer", default="", help=f"{', '.join(search.REPOSITORIES)}; with -test those of test twins")
    parser.add_argument("--base", default="", help="for example Austin, or Burnet*")
    parser.add_argument("--ext", default="", help="for example csv, or %%.json")
    parser.add_argument("--date", default="", help="exactly this day (or moment), in the city's zone")
    parser.add_argument("--since", default="", help="from this day on")
    parser.add_argument("--until", default="", help="before this day")
    parser.add_argument("--standing", default="live", choices=search.STANDINGS, help="live")


def _asked(options: dict[str, Any], **more: Any) -> Search:
    """The search that the options say. Raises PipelineError."""
    days = {name: search.moment(options[option]) for name, option in (("exact", "date"), ("since", "since"), ("until", "until"))}
    return Search(**{name: options[name] for name in ("source", "repository", "base", "ext", "standing")}, **days, **more)


def _target(slug: str, entry: CatalogEntry) -> Pipeline:
    """The pipeline to which a file is copied. Raises Refusal."""
    if slug != TWINS:
        return pipelines_named([slug])[0]
    twin = Pipeline.objects.filter(twin_of__slug=entry.source).select_related("dataset").first()
    if twin is None:
        raise refusal(f"{entry.source} has no test twin.", "Make one, or name a pipeline with --to.")
    return twin


def _line(entry: CatalogEntry) -> str:
    told = search.as_json(entry)
    gone = "  withdrawn" if entry.withdrawn_at else ""
    return f"{told['collection_date'][:16]}  {entry.source}  {entry.layer}  {entry.id_base}  {entry.id_ext}  {entry.bytes:,} B  {entry.pointer}{gone}"
